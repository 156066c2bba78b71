//! gethostlatency: which calls are rows, what the rows say, and in which files they are seen.
//!
//! The functions are those of a library that the tests make (`netbcc_tests::library`), so a call takes as long as a check wants,
//! and answers what it wants. Only the last checks have a real C library, in which a program looks up a name that nobody is asked
//! about.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::library::{FUNCTIONS, write, write_program};
use netbcc_tests::net::Net;
use netbcc_tests::peer::{Peer, hex};
use netbcc_tests::raw::map_entries;
use netbcc_tests::run::{PATIENCE, Run, maps_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::engine::PROMPT;

pub(crate) const CHECKS: &[Check] = checks![
    a_lookup_is_one_row,
    the_text_is_exactly_these_bytes,
    json_rows_carry_every_value,
    a_lookup_without_a_name_is_no_row,
    names_are_cut_and_escaped,
    a_name_that_is_read_in_during_the_call_is_there,
    a_call_inside_another_is_no_row,
    the_functions_that_a_file_has_are_seen,
    a_static_program_is_seen_if_it_is_named,
    failures_have_their_names,
    failed_lookups_only_and_slow_ones_only,
    filters_go_by_the_process_and_its_threads,
    a_thread_that_ends_inside_leaves_nothing,
    a_table_that_is_full_is_told,
    a_ring_that_is_full_tells_exactly_what_it_lost,
    libraries_of_other_processes_and_mount_namespaces_are_found,
    a_file_that_was_replaced_is_seen_where_it_is_still_used,
    what_is_no_library_is_left_out,
    files_that_are_only_called_like_libraries_hold_nothing_up: alone,
    two_files_of_an_overlay_make_one_row,
    a_real_c_library_is_seen_in_a_process_that_starts_later,
];

/// A library in a folder of its own.
struct Scene {
    net: Net,
    folder: TempDir,
    library: PathBuf,
}

/// The last name that is looked up: what happened before has its row by then.
const END: &str = "the.end";

impl Scene {
    fn new() -> Self {
        Self::with(&FUNCTIONS, "libc.so.6")
    }

    fn with(functions: &[&str], name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let library = folder.path().join(name);
        write(&library, functions).expect("room for a page");
        Self { net: Net::new(), folder, library }
    }

    /// The tool, for this library and this process only.
    fn start(&self, case: &Case, peer: &Peer, options: &str) -> Run<'_> {
        let library = self.library.display();
        case.launch(&format!("-p {} -l {library} {options}", peer.pid())).start(&self.net)
    }

    /// Looks up a name, which is found.
    fn look_up(&self, peer: &Peer, name: &str) {
        peer.look_up(&self.library, "getaddrinfo", &of(name), 0, "");
    }
}

/// A name as a peer takes it.
fn of(name: impl AsRef<[u8]>) -> String {
    format!("={}", hex(name.as_ref()))
}

/// The rows in JSON until that of the last name, which is looked up now.
fn rows(scene: &Scene, run: &Run<'_>, peer: &Peer) -> Vec<Value> {
    peer.look_up(&scene.library, "getaddrinfo", &of(END), -4, "");
    rows_until(run, END)
}

/// The rows in JSON until that of this name.
fn rows_until(run: &Run<'_>, last: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let lines = run.await_lines(rows.len() + 1);
        for line in &lines[rows.len()..] {
            let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if row["host"] == last {
                return rows;
            }
            rows.push(row);
        }
    }
}

/// The names of rows; null for one that was not read.
fn hosts(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["host"].as_str().unwrap_or("null")).collect()
}

fn a_lookup_is_one_row(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json");
    for function in FUNCTIONS {
        client.look_up(&scene.library, function, &of(format!("by.{function}")), 7, "");
    }
    let rows = rows(&scene, &run, &client);
    assert_eq!(hosts(&rows), FUNCTIONS.map(|function| format!("by.{function}")));
    for (row, function) in rows.iter().zip(FUNCTIONS) {
        assert_eq!((&row["function"], &row["pid"]), (&function.into(), &client.pid().into()), "{row}");
        assert_eq!(row["comm"], "client");
    }
    run.finish();
}

fn the_text_is_exactly_these_bytes(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("abcdefghijklmno");
    for (options, header, ret, error) in [
        ("", "TIME      PID     COMM                  LATms HOST", 0, ""),
        ("--errors", "TIME      PID     COMM                  LATms ERROR         HOST", 0, "-             "),
        (
            "--errors",
            "TIME      PID     COMM                  LATms ERROR         HOST",
            -2,
            "NONAME        ",
        ),
        (
            "--failed",
            "TIME      PID     COMM                  LATms ERROR         HOST",
            -105,
            "IDN_ENCODE    ",
        ),
    ] {
        let run = scene.start(case, &client, options);
        // At once, also into a pipe.
        assert_eq!(run.await_lines(1), [header]);
        client.look_up(&scene.library, "getaddrinfo", &of("a name.example"), ret, "takes 20");
        let row = &run.await_lines(2)[1];
        let (head, rest) = row.split_at(10);
        assert_eq!(
            head.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>(),
            "00:00:00  "
        );
        let (process, rest) = rest.split_at(25);
        assert_eq!(process, format!("{:<7} {:<16} ", client.pid(), "abcdefghijklmno"));
        let (latency, rest) = rest.split_at(11);
        assert_eq!(rest, format!("{error}a name.example"));
        let ms: f64 = latency.trim_start().trim_end().parse().expect("a number");
        assert!((20.0..20_000.0).contains(&ms) && latency == format!("{ms:>10.2} "), "{latency:?}");
        run.finish();
    }
}

fn json_rows_carry_every_value(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let space = fs::metadata("/proc/self/ns/mnt").expect("/proc is mounted").ino();
    let run = scene.start(case, &client, "--json");
    let start = Instant::now();
    client.look_up(&scene.library, "getaddrinfo", &of("www.example.org"), -3, "takes 30");
    client.look_up(&scene.library, "gethostbyname", &of("www.example.org"), 0, "");
    let took = start.elapsed();
    let rows = rows(&scene, &run, &client);
    assert_eq!(rows.len(), 2, "{rows:?}");
    let expected = [
        ("getaddrinfo", Value::from("AGAIN"), Value::from(-3)),
        ("gethostbyname", "NULL".into(), Value::Null),
    ];
    for (row, (function, error, ret)) in rows.iter().zip(expected) {
        assert_eq!((&row["function"], &row["error"], &row["ret"]), (&function.into(), &error, &ret), "{row}");
        assert_eq!((&row["pid"], &row["tid"]), (&client.pid().into(), &client.pid().into()), "{row}");
        assert_eq!((&row["comm"], &row["mntns"]), (&"client".into(), &space.into()), "{row}");
        assert_eq!(row["host"], "www.example.org");
        // Kernels before 5.15 do not tell it.
        let library = scene.library.display().to_string();
        assert!(row["libc"] == library || row["libc"] == Value::Null && !has_links(), "{row}");
    }
    let took_ns = u128::from(rows[0]["latency_ns"].as_u64().expect("a number"));
    assert!((30_000_000..took.as_nanos()).contains(&took_ns), "{took_ns} ns of {took:?}");
    run.finish();
}

/// Whether this kernel tells a program at which of its places it runs.
fn has_links() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").expect("/proc is mounted");
    symbols.lines().any(|line| line.ends_with(" bpf_get_attach_cookie_pe"))
}

fn a_lookup_without_a_name_is_no_row(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json");
    for function in FUNCTIONS {
        client.look_up(&scene.library, function, "null", 0, "");
    }
    client.look_up(&scene.library, "getaddrinfo", "=", 0, "");
    client.look_up(&scene.library, "getaddrinfo", "nowhere", 0, "");
    let rows = rows(&scene, &run, &client);
    assert_eq!(rows.iter().map(|row| &row["host"]).collect::<Vec<_>>(), [&Value::from(""), &Value::Null]);
    run.finish();
}

fn names_are_cut_and_escaped(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer_named(b"a\x1b[2J");
    let long = "n".repeat(300);
    let names: [&[u8]; 5] =
        [long.as_bytes(), &long.as_bytes()[..79], &long.as_bytes()[..78], b"a\x1b[2Jb", b"\xff\xc3\xa4"];
    let run = scene.start(case, &client, "");
    for name in names {
        client.look_up(&scene.library, "getaddrinfo", &of(name), 0, "");
    }
    let lines = run.await_lines(1 + names.len());
    let shown: Vec<&str> = lines[1..].iter().map(|line| &line[46..]).collect();
    let at = "00:00:00  1234567 ".len() + "a\\x1b[2J".len();
    assert!(lines[1..].iter().all(|line| line[18..at] == *"a\\x1b[2J"), "{lines:?}");
    assert_eq!(shown, [&long[..79], &long[..79], &long[..78], "a\\x1b[2Jb", "\\xff\u{e4}"]);
    run.finish();
}

fn a_name_that_is_read_in_during_the_call_is_there(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    // The name is a path: the peer maps this file, which begins with its own.
    let file = scene.folder.path().join("name");
    fs::write(&file, [file.as_os_str().as_encoded_bytes(), b"\0"].concat()).expect("room for a file");
    let run = scene.start(case, &client, "--json");
    client.look_up(&scene.library, "getaddrinfo", &of(file.as_os_str().as_encoded_bytes()), 0, "late");
    let rows = rows(&scene, &run, &client);
    let path = file.display().to_string();
    assert_eq!(hosts(&rows), [&path[..path.len().min(79)]]);
    run.finish();
}

fn a_call_inside_another_is_no_row(case: &Case) {
    let scene = Scene::with(&FUNCTIONS, "ld-musl-x86_64.so.1");
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json");
    let inner = of("inner");
    // As musl does it, and one in which the inner call fails; its end is not that of the outer one.
    client.look_up(
        &scene.library,
        "gethostbyname",
        &of("one"),
        5,
        &format!("inside gethostbyname2 {inner} 0"),
    );
    client.look_up(&scene.library, "getaddrinfo", &of("two"), 0, &format!("inside getaddrinfo {inner} -2"));
    // Without a name outside, the inner one is a lookup.
    client.look_up(
        &scene.library,
        "getaddrinfo",
        "null",
        0,
        &format!("inside getaddrinfo {} 0", of("three")),
    );
    let rows = rows(&scene, &run, &client);
    assert_eq!(hosts(&rows), ["one", "two", "three"]);
    assert!(rows.iter().all(|row| row["error"] == Value::Null), "{rows:?}");
    assert_eq!(rows[0]["function"], "gethostbyname");
    run.finish();
}

fn the_functions_that_a_file_has_are_seen(case: &Case) {
    let scene = Scene::with(&FUNCTIONS[1..2], "program");
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json");
    client.look_up(&scene.library, "getaddrinfo", &of("unseen"), 0, "");
    client.look_up(&scene.library, "gethostbyname", &of("seen"), 1, "");
    client.look_up(&scene.library, "gethostbyname", &of(END), 1, "");
    assert_eq!(hosts(&rows_until(&run, END)), ["seen"]);
    run.finish();
    case.launch("-l /etc/hosts").ends().code(2).one_line(case.tool, &["-l /etc/hosts", "ELF"]);
}

fn a_static_program_is_seen_if_it_is_named(case: &Case) {
    let scene = Scene::new();
    write_program(&scene.library, &FUNCTIONS).expect("room for a page");
    let client = scene.net.peer("client");
    client.map(&scene.library);
    let run = scene.start(case, &client, "--json");
    // By itself the tool looks at what other programs may use only.
    let other = case.launch(&format!("--json -v -p {}", client.pid())).start(&scene.net);
    scene.look_up(&client, "seen");
    assert_eq!(hosts(&rows(&scene, &run, &client)), ["seen"]);
    run.finish();
    let ended = other.finish();
    assert_eq!(ended.stdout, Vec::<String>::new());
    assert!(ended.stderr.contains(&format!("not hooked: {}: ", scene.library.display())), "{}", ended.stderr);
}

fn failures_have_their_names(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json");
    let codes: [(i32, Value); 18] = [
        (0, Value::Null),
        (-1, "BADFLAGS".into()),
        (-2, "NONAME".into()),
        (-3, "AGAIN".into()),
        (-4, "FAIL".into()),
        (-5, "NODATA".into()),
        (-6, "FAMILY".into()),
        (-7, "SOCKTYPE".into()),
        (-8, "SERVICE".into()),
        (-9, "ADDRFAMILY".into()),
        (-10, "MEMORY".into()),
        (-11, "SYSTEM".into()),
        (-12, "OVERFLOW".into()),
        (-104, "INTR".into()),
        (-105, "IDN_ENCODE".into()),
        (-13, Value::from(-13)),
        (5, 5.into()),
        (i32::MIN, i32::MIN.into()),
    ];
    for (code, _) in &codes {
        client.look_up(&scene.library, "getaddrinfo", &of("name"), *code, "");
    }
    let rows = rows(&scene, &run, &client);
    assert_eq!(rows.len(), codes.len());
    for (row, (code, name)) in rows.iter().zip(&codes) {
        assert_eq!((&row["ret"], &row["error"]), (&Value::from(*code), name), "{row}");
    }
    run.finish();
}

fn failed_lookups_only_and_slow_ones_only(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let runs = ["--json --failed", "--json --min-ms 40.5", "--json --failed --min-ms 40.5"]
        .map(|options| scene.start(case, &client, options));
    for (name, ret, how) in
        [("fast", 0, ""), ("failed", -2, ""), ("slow", 0, "takes 41"), ("both", -2, "takes 41")]
    {
        client.look_up(&scene.library, "getaddrinfo", &of(name), ret, how);
    }
    client.look_up(&scene.library, "gethostbyname", &of("no.pointer"), 0, "");
    client.look_up(&scene.library, "gethostbyname", &of("pointer"), 1, "");
    client.look_up(&scene.library, "getaddrinfo", &of(END), -4, "takes 41");
    let kept: [&[&str]; 3] = [&["failed", "both", "no.pointer"], &["slow", "both"], &["both"]];
    for (run, kept) in runs.into_iter().zip(kept) {
        let rows = rows_until(&run, END);
        // A machine that is busy makes a fast one slow.
        let fast = |row: &&Value| ["slow", "both"].contains(&row["host"].as_str().unwrap_or_default());
        let busy = kept.contains(&"slow") || kept.len() == 1;
        let shown: Vec<&Value> = rows
            .iter()
            .filter(|row| !busy || fast(row) || row["latency_ns"].as_u64() < Some(40_500_000))
            .collect();
        assert_eq!(shown.iter().map(|row| row["host"].as_str().expect("a name")).collect::<Vec<_>>(), kept);
        run.finish();
    }
}

fn filters_go_by_the_process_and_its_threads(case: &Case) {
    let scene = Scene::new();
    let (one, two) = (scene.net.peer("one"), scene.net.peer("two"));
    let library = scene.library.display();
    let both = format!("--pid {},{}", one.pid(), two.pid());
    let runs = [
        both.clone(),
        format!("-p {}", one.pid()),
        format!("{both} --comm worker,two"),
        format!("{both} --comm !worker"),
        format!("{both} --uid 54321"),
    ]
    .map(|options| case.launch(&format!("-l {library} --json {options}")).start(&scene.net));
    two.become_user(54_321);
    scene.look_up(&one, "first");
    one.look_up(&scene.library, "getaddrinfo", &of("second"), 0, &format!("thread {}", hex(b"worker")));
    scene.look_up(&two, "third");
    let kept: [&[&str]; 5] = [
        &["first", "second", "third"],
        &["first", "second"],
        &["second", "third"],
        &["first", "third"],
        &["third"],
    ];
    for (run, kept) in runs.into_iter().zip(kept) {
        run.await_lines(kept.len());
        let ended = run.stop();
        ended.code(0);
        let parse = |line: &String| serde_json::from_str(line).expect("it is JSON");
        let rows: Vec<Value> = ended.stdout.iter().map(parse).collect();
        assert_eq!(hosts(&rows), kept);
        for row in rows.iter().filter(|row| row["host"] == "second") {
            assert_eq!(row["comm"], "worker");
            assert_ne!(row["tid"], row["pid"]);
        }
    }
}

/// The entries of the tool's table of calls under way.
fn under_way(run: &Run<'_>) -> usize {
    let maps = maps_of(run.pid()).into_iter().filter_map(|id| map_entries(id).expect("the tool holds it"));
    maps.filter(|(name, _)| name == "CALLS").map(|(_, entries)| entries).sum()
}

fn a_thread_that_ends_inside_leaves_nothing(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.new_peer("client");
    let run = scene.start(case, &client, "--json");
    for _ in 0..3 {
        client.look_up(&scene.library, "getaddrinfo", &of("endless"), 0, "ends");
    }
    let deadline = Instant::now() + PATIENCE;
    while under_way(&run) > 0 {
        assert!(Instant::now() < deadline, "{} calls", under_way(&run));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rows(&scene, &run, &client), Vec::<Value>::new());
    assert_eq!(run.finish().lost(), 0);
}

fn a_table_that_is_full_is_told(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json --x-table-entries 1");
    client.look_up(
        &scene.library,
        "getaddrinfo",
        &of("kept"),
        0,
        &format!("beside getaddrinfo {} 0", of("lost")),
    );
    assert_eq!(hosts(&rows(&scene, &run, &client)), ["kept"]);
    let ended = run.stop();
    ended.code(0);
    assert!(ended.stderr.contains("lost 1 events: 1 because a table was full"), "{}", ended.stderr);
}

fn a_ring_that_is_full_tells_exactly_what_it_lost(case: &Case) {
    const COUNT: usize = 503;
    let scene = Scene::new();
    let client = scene.net.peer("client");
    let run = scene.start(case, &client, "--json --x-ring-bytes 4096");
    run.suspend();
    client.look_up(&scene.library, "getaddrinfo", "null", 0, &format!("times {COUNT}"));
    run.resume();
    run.is_through();
    let ended = run.stop();
    ended.code(0);
    let (seen, lost) = (ended.stdout.len(), ended.lost());
    assert!(seen > 0 && lost > 0 && seen + lost == COUNT, "{seen} seen, {lost} lost: {}", ended.stderr);
    for (nth, line) in ended.stdout.iter().enumerate() {
        let row: Value = serde_json::from_str(line).expect("it is JSON");
        assert_eq!(row["host"], format!("name-{nth}"));
    }
}

fn libraries_of_other_processes_and_mount_namespaces_are_found(case: &Case) {
    let scenes = ["libc.so.6", "libc-2.31.so", "ld-musl-x86_64.so.1", "libc.so", "libuClibc-1.0.so"]
        .map(|name| Scene::with(&FUNCTIONS[..2], name));
    let (near, far) = (scenes[0].net.peer("near"), scenes[0].net.new_peer("far"));
    far.own_mounts();
    for scene in &scenes[..3] {
        near.map(&scene.library);
    }
    for scene in &scenes[3..] {
        far.map(&scene.library);
    }
    let pids = format!("{},{}", near.pid(), far.pid());
    let run = case.launch(&format!("--json --pid {pids} -v")).start(&scenes[0].net);
    for (nth, scene) in scenes.iter().enumerate() {
        let path = scene.library.display().to_string();
        assert!(
            run.said().contains(&format!("to be hooked: {path}: getaddrinfo gethostbyname\n")),
            "{}",
            run.said()
        );
        scene.look_up(if nth < 3 { &near } else { &far }, &format!("name.{nth}"));
        // Another process than the one by which it was found.
        scene.look_up(if nth < 3 { &far } else { &near }, &format!("other.{nth}"));
    }
    let rows = rows(&scenes[0], &run, &near);
    let expected = (0..scenes.len()).flat_map(|nth| [format!("name.{nth}"), format!("other.{nth}")]);
    assert_eq!(hosts(&rows), expected.collect::<Vec<_>>());
    for (row, scene) in rows.chunks(2).zip(&scenes) {
        assert_ne!(row[0]["mntns"], row[1]["mntns"]);
        let path = scene.library.display().to_string();
        assert!(row[0]["libc"] == path || !has_links(), "{row:?}");
    }
    run.finish();
}

fn a_file_that_was_replaced_is_seen_where_it_is_still_used(case: &Case) {
    let scene = Scene::new();
    let client = scene.net.peer("client");
    client.map(&scene.library);
    // As a package manager does it: a new file takes the name.
    let new = scene.folder.path().join("new");
    write(&new, &FUNCTIONS).expect("room for a page");
    let kept = scene.folder.path().join("kept");
    fs::hard_link(&scene.library, &kept).expect("one more name");
    fs::rename(&new, &scene.library).expect("it takes its place");
    let run = case.launch(&format!("--json -p {}", client.pid())).start(&scene.net);
    client.look_up(&kept, "getaddrinfo", &of("old"), 0, "");
    // Nobody had this one when the tool started, and it lies where nobody looks.
    client.look_up(&scene.library, "getaddrinfo", &of("new"), 0, "");
    client.look_up(&kept, "getaddrinfo", &of(END), 0, "");
    assert_eq!(hosts(&rows_until(&run, END)), ["old"]);
    run.finish();
}

fn what_is_no_library_is_left_out(case: &Case) {
    let scene = Scene::with(&FUNCTIONS[1..], "libc.so.6");
    let client = scene.net.peer("client");
    client.map(&scene.library);
    let ended = case.launch(&format!("--json -v -p {}", client.pid())).start(&scene.net).finish();
    let said = format!("not hooked: {}: it has no getaddrinfo", scene.library.display());
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
}

/// Files of this size, each called like a C library, that begin with these bytes.
fn called_like_libraries(folder: &Path, name: &str, count: usize, begin: &[u8], bytes: u64) -> Vec<PathBuf> {
    let path = |nth: usize| {
        let place = folder.join(format!("{name}-{nth}"));
        fs::create_dir(&place).expect("room for a directory");
        let path = place.join("libc.so.6");
        let mut file = File::create(&path).expect("room for a file");
        file.write_all(begin).and_then(|()| file.set_len(bytes)).expect("a hole takes no room");
        path
    };
    (0..count).map(path).collect()
}

fn files_that_are_only_called_like_libraries_hold_nothing_up(case: &Case) {
    // Of so many bytes a search reads twenty files, and of a process it opens 64.
    const BYTES: u64 = 50 << 20;
    const LARGE: usize = 40;
    const MANY: usize = 300;
    let scene = Scene::new();
    let places = tempfile::tempdir().expect("a directory");
    // One without any function: it is a program's file all the same.
    let other = places.path().join("other");
    write(&other, &[]).expect("room for a page");
    let library = fs::read(&other).expect("it was written");
    let [large, many, near] = ["large", "many", "near"].map(|name| scene.net.new_peer(name));
    for path in called_like_libraries(places.path(), "large", LARGE, &library, BYTES) {
        large.map(&path);
    }
    for path in called_like_libraries(places.path(), "many", MANY, &[], BYTES) {
        many.map(&path);
    }
    near.map(&scene.library);
    let run = case.launch(&format!("--json -p {}", near.pid())).start(&scene.net);
    scene.look_up(&near, "seen");
    assert_eq!(hosts(&rows(&scene, &run, &near)), ["seen"]);
    let io = fs::read_to_string(format!("/proc/{}/io", run.pid())).unwrap_or_default();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
    assert!(read.is_none_or(|read| read < 3 << 29), "{read:?} bytes were read");
    let said = run.finish().stderr;
    let (number, _) = said.split_once(" files that are called like C libraries").expect("it is said");
    let number: usize = number.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    let (least, most) = (MANY - 64 + LARGE - 20, MANY - 64 + LARGE);
    assert!((least..=most).contains(&number), "{least} to {most}: {said}");

    // A signal is heard from when the tool has blocked it. What a busy machine adds to the end, it does not add each time.
    let mut times = Vec::new();
    let prompt = (0..3).any(|_| {
        let run = case.launch("--json").begin(&scene.net);
        let deadline = Instant::now() + PATIENCE;
        while !blocks(run.pid(), Signal::SIGTERM) {
            assert!(Instant::now() < deadline, "it blocks no signal");
            thread::yield_now();
        }
        let (ended, took) = run.ends_after(Signal::SIGTERM);
        ended.code(0);
        times.push(took);
        took < PROMPT
    });
    assert!(prompt, "it took {times:?} to end");
}

/// Whether a process keeps this signal waiting.
fn blocks(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & 1 << (signal as i32 - 1) != 0
}

/// Mounts an overlay of this folder at another one, whose own changes are kept elsewhere.
fn overlay(lower: &Path, at: &Path) -> bool {
    let [upper, work] = ["upper", "work"].map(|name| at.with_extension(name));
    for folder in [at, &upper, &work] {
        fs::create_dir(folder).expect("room for a directory");
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    nix::mount::mount(Some("overlay"), at, Some("overlay"), nix::mount::MsFlags::empty(), Some(&*options))
        .is_ok()
}

fn two_files_of_an_overlay_make_one_row(case: &Case) {
    let scene = Scene::new();
    let mounts = tempfile::tempdir().expect("a directory");
    // Changes of an overlay cannot lie on an overlay.
    if nix::mount::mount(
        Some("tmpfs"),
        mounts.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .is_err()
    {
        skip("a machine on which a tmpfs can be mounted");
    }
    let places = ["one", "two"].map(|name| mounts.path().join(name));
    let are_there = places.each_ref().map(|at| overlay(scene.folder.path(), at));
    let undo = || {
        for at in places.iter().map(PathBuf::as_path).chain([mounts.path()]) {
            let _may_be_none = nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH);
        }
    };
    if are_there != [true; 2] {
        undo();
        skip("a kernel with overlay file systems");
    }
    let client = scene.net.new_peer("client");
    let libraries = places.each_ref().map(|at| at.join("libc.so.6"));
    for library in &libraries {
        client.map(library);
    }
    let run = case.launch(&format!("--json -p {}", client.pid())).start(&scene.net);
    for (library, name) in libraries.iter().zip(["one", "two"]) {
        client.look_up(library, "getaddrinfo", &of(name), 0, "");
    }
    client.look_up(&libraries[0], "getaddrinfo", &of(END), 0, "");
    let rows = rows_until(&run, END);
    drop(client);
    undo();
    assert_eq!(hosts(&rows), ["one", "two"]);
    run.finish();
}

fn a_real_c_library_is_seen_in_a_process_that_starts_later(case: &Case) {
    const NAME: &str = "no.such.name.invalid";
    let scene = Scene::new();
    let run = case.launch("--json --comm nft --errors").start(&scene.net);
    let rule = format!("add rule inet probe output ip daddr {NAME} drop");
    // In a network without a way out: no server can be asked.
    let nft = || Command::new("nft").args(["-c", &*rule]).output();
    let Ok(output) = scene.net.near().enter(nft) else { skip("a machine with nft") };
    assert!(!output.status.success(), "nobody knows this name");
    let lines = run.await_lines(1);
    let row: Value = serde_json::from_str(&lines[0]).expect("it is JSON");
    assert_eq!((&row["host"], &row["function"]), (&NAME.into(), &"getaddrinfo".into()), "{row}");
    assert!(["AGAIN", "NONAME"].map(Value::from).contains(&row["error"]), "{row}");
    run.stop().code(0);
}
