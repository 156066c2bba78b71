//! Rows in files of their own: `--file`, `--rotate`, and SIGHUP.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::Net;
use netbcc_tests::run::{Launch, PATIENCE};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const CHECKS: &[Check] = checks![
    full_files_get_numbers_and_no_row_is_lost,
    the_oldest_file_goes,
    a_hang_up_opens_the_file_again,
    a_sampler_opens_its_file_again_between_blocks,
    a_folder_of_somebody_else_is_refused_at_the_start,
    a_full_disk_has_whole_rows_and_one_clear_line,
];

/// So many connections, and the size of files: prime, and the least.
const SOME: usize = 503;
const LEAST: u64 = 4096;

/// A folder that everybody may look into.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The files of `path`, the oldest first, with their texts.
fn files_of(path: &Path) -> Vec<(PathBuf, String)> {
    let numbered = |number: usize| PathBuf::from(format!("{}.{number}", path.display()));
    let count = (1..10_000).find(|&number| !numbered(number).exists()).expect("they end");
    let names = (1..count).rev().map(numbered).chain([path.to_owned()]);
    names.map(|name| (name.clone(), fs::read_to_string(name).expect("it is text"))).collect()
}

/// Waits until the text of this file is as wanted.
fn await_text(path: &Path, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::read_to_string(path) {
            Ok(text) if wanted(&text) => return text,
            found => assert!(Instant::now() < deadline, "{}: {found:?}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn full_files_get_numbers_and_no_row_is_lost(_: &Case) {
    for format in ["", "--json"] {
        let (net, folder) = (Net::new(), folder());
        let client = net.peer("client");
        let path = folder.path().join("rows");
        let options = format!("-p {} {format} --file {} --rotate 4096,1000", client.pid(), path.display());
        let run = Launch::new("tcpconnlat", &options).start(&net);
        assert_eq!(client.churn(net.v4(80), SOME, 1), (0, SOME));
        let ended = run.signal(Signal::SIGTERM);
        ended.code(0);
        assert_eq!(ended.stdout, [""; 0], "all is in files");
        let files = files_of(&path);
        assert!(files.len() > 3, "{} files", files.len());
        let mut rows = 0;
        for (name, text) in &files {
            assert!(
                text.len() as u64 <= LEAST && text.ends_with('\n'),
                "{}: {} bytes",
                name.display(),
                text.len()
            );
            let mut lines = text.lines();
            if format.is_empty() {
                let titles = lines.next().unwrap_or_default();
                assert!(
                    titles.starts_with("PID ") && titles.ends_with("LAT(ms)"),
                    "{}: {titles}",
                    name.display()
                );
            }
            for line in lines {
                let is_row = if format.is_empty() {
                    line.contains(" client ")
                } else {
                    line.starts_with('{') && line.ends_with('}')
                };
                assert!(is_row, "{}: {line}", name.display());
                rows += 1;
            }
        }
        // All but the last are full: one more row would not fit.
        for (name, text) in &files[..files.len() - 1] {
            let longest = text.lines().map(str::len).max().unwrap_or_default() as u64 + 2;
            assert!(text.len() as u64 + longest > LEAST, "{}: {} bytes", name.display(), text.len());
        }
        ended.sums_up(rows, SOME);
    }
}

fn the_oldest_file_goes(_: &Case) {
    let (net, folder) = (Net::new(), folder());
    let client = net.peer("client");
    let path = folder.path().join("rows");
    let options = format!("-p {} --file {} --rotate 4K,2", client.pid(), path.display());
    let run = Launch::new("tcpconnlat", &options).start(&net);
    assert_eq!(client.churn(net.v4(80), SOME, 1), (0, SOME));
    run.signal(Signal::SIGTERM).code(0);
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .expect("it is there")
        .map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["rows", "rows.1", "rows.2"]);
}

fn a_hang_up_opens_the_file_again(_: &Case) {
    let (net, folder) = (Net::new(), folder());
    let client = net.peer("client");
    let (path, taken) = (folder.path().join("rows"), folder.path().join("taken"));
    let options = format!("-p {} --file {}", client.pid(), path.display());
    let run = Launch::new("tcpconnlat", &options).start(&net);
    client.refused(net.v4(80));
    let before = await_text(&path, |text| text.lines().count() == 2);
    // As logrotate(8) does.
    fs::rename(&path, &taken).expect("it is ours");
    kill(Pid::from_raw(run.pid().cast_signed()), Signal::SIGHUP).expect("it runs");
    // At once, also where no row comes.
    let titles = await_text(&path, |text| text.lines().count() == 1);
    assert_eq!(Some(titles.trim_end()), before.lines().next());
    client.refused(net.v4(81));
    let after = await_text(&path, |text| text.lines().count() == 2);
    assert!(after.lines().last().is_some_and(|row| row.contains(" 81 ")), "{after}");
    assert_eq!(fs::read_to_string(&taken).expect("it is there"), before);
    // Each run adds to what is there.
    run.signal(Signal::SIGTERM).code(0).quiet();
    let run = Launch::new("tcpconnlat", &options).start(&net);
    run.signal(Signal::SIGTERM).code(0).quiet();
    assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{after}{titles}"));
}

fn a_sampler_opens_its_file_again_between_blocks(_: &Case) {
    let (net, folder) = (Net::new(), folder());
    let (path, taken) = (folder.path().join("blocks"), folder.path().join("taken"));
    let run = Launch::new("tcptop", &format!("-C --file {} 3600", path.display())).start(&net);
    fs::rename(&path, &taken).expect("it is there from the start");
    kill(Pid::from_raw(run.pid().cast_signed()), Signal::SIGHUP).expect("it runs");
    await_text(&path, |_| true);
    run.signal(Signal::SIGTERM).code(0);
    let block = fs::read_to_string(&path).expect("it is there");
    assert!(block.contains("loadavg"), "the last block is in the new file: {block:?}");
}

fn a_folder_of_somebody_else_is_refused_at_the_start(_: &Case) {
    let folder = folder();
    chown(folder.path(), Some(65_534), Some(65_534)).expect("we are root");
    let path = folder.path().join("rows");
    let words = ["open ", "Permission denied", "a run gives up what lets root write anywhere"];
    for rotate in ["", "--rotate 1M"] {
        let ended = Launch::new("tcpconnect", &format!("--file {} {rotate}", path.display())).ends();
        ended.code(1).one_line("tcpconnect", &words);
    }
    // To a file of ours there a run may write, and not give it another name.
    fs::write(&path, "").expect("root may");
    let ended = Launch::new("tcpconnect", &format!("--file {} --rotate 1M", path.display())).ends();
    ended.code(1).one_line("tcpconnect", &words);
    let net = Net::new();
    let run = Launch::new("tcpconnect", &format!("--file {}", path.display())).start(&net);
    run.signal(Signal::SIGTERM).code(0);
}

fn a_full_disk_has_whole_rows_and_one_clear_line(_: &Case) {
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts of our own");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("nobody else sees them");
    let (net, folder) = (Net::new(), folder());
    mount(Some("none"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
        .expect("a small disk");
    let client = net.peer("client");
    let path = folder.path().join("rows");
    let options = format!("-p {} --json --file {} --rotate 16K,1000", client.pid(), path.display());
    let run = Launch::new("tcpconnlat", &options).start(&net);
    assert_eq!(client.churn(net.v4(80), SOME, 1), (0, SOME));
    let ended = run.ends();
    ended.code(1);
    assert!(
        ended.stderr.contains(&format!("write to {}: No space left on device", path.display())),
        "{}",
        ended.stderr
    );
    let files = files_of(&path);
    let rows: Vec<&str> = files.iter().flat_map(|(_, text)| text.lines()).collect();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.starts_with('{') && row.ends_with('}')),
        "{rows:#?}"
    );
    nix::mount::umount(folder.path()).expect("nobody uses it");
}
