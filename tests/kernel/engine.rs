//! What every tool gets from the engine: manners, pipes, permissions, and that nothing stays behind.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use netbcc::sys::btf::{self, VMLINUX, Wanted};
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, least, skip};
use netbcc_tests::net::{END_PORT, Net};
use netbcc_tests::raw::{program, program_begins, program_exists};
use netbcc_tests::run::{
    Copy, Launch, PATIENCE, Seat, attached_of, in_place_of, own_mounts, programs_of, with_own_pids,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid, pipe2, write};

pub(crate) const CHECKS: &[Check] = checks![
    copies_run_side_by_side,
    without_permission_there_is_one_clear_line,
    root_of_a_user_namespace_is_told_that_it_is_not_enough,
    kill_9_leaves_nothing_loaded,
    a_reader_that_goes_away_is_a_normal_end,
    a_reader_that_goes_away_is_noticed_before_the_next_row,
    a_full_disk_is_one_clear_line,
    rows_leave_through_a_pipe_at_once,
    a_missing_kernel_field_is_refused_by_its_name,
    json_begins_with_the_first_row,
    a_pid_is_meant_as_the_namespace_counts,
    a_number_that_is_no_process_is_said,
    too_few_descriptors_are_one_clear_line,
    too_little_memory_is_one_clear_line,
    a_user_who_may_start_no_thread_is_served,
    a_file_that_takes_no_more_has_whole_rows,
    what_is_not_mounted_is_said_by_its_name,
    times_are_right_in_a_time_namespace,
    a_time_zone_is_a_regular_file,
    a_descriptor_for_reading_is_not_written_to,
    another_pipe_without_a_reader_is_an_error,
    a_stall_is_one_long_interval_and_nothing_catches_up,
    the_interval_under_way_is_printed_at_a_hang_up_and_says_how_long_it_was,
    a_signal_while_the_tool_loads_is_a_normal_end,
    a_signal_that_was_ignored_stays_ignored,
    a_hang_up_prints_the_table_of_a_count,
    a_reader_that_goes_away_is_not_the_end_of_the_ledger,
    a_sampler_whose_reader_takes_nothing_ends_when_told,
    standard_error_that_nobody_reads_keeps_no_tool,
    programs_keep_their_processor_where_they_may_lose_it,
];

/// The tools that there are.
pub(crate) fn tools() -> impl Iterator<Item = &'static str> + Clone {
    netbcc::registry::TOOLS.iter().map(|entry| entry.spec.name)
}

fn copies_run_side_by_side(_: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let runs =
        ["tcpconnect", "tcplife", "tcpconnect", "tcplife"].map(|tool| Launch::new(tool, "").start(&net));
    client.refused(net.v4(80));
    client.refused(net.v4(81));
    for run in &runs {
        // Each makes its own end connect, which the others see, too.
        run.rows(2).are("PID", &[client.pid(); 2]);
    }
    for run in runs {
        run.finish();
    }
}

fn without_permission_there_is_one_clear_line(_: &Case) {
    let copy = Copy::new();
    for tool in tools() {
        let ended = Launch::new(tool, least(tool)).program(copy.path()).user(65_534).ends();
        ended.code(1).one_line(tool, &["root"]);
    }
}

fn root_of_a_user_namespace_is_told_that_it_is_not_enough(_: &Case) {
    if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|most| most.trim() == "0") {
        skip("user namespaces");
    }
    for tool in tools() {
        let ended = Launch::new(tool, least(tool)).root_of_its_own().ends();
        ended.code(1).one_line(tool, &["user namespace", "root of the host"]);
    }
}

fn kill_9_leaves_nothing_loaded(_: &Case) {
    for tool in tools() {
        let net = Net::new();
        let run = Launch::new(tool, least(tool)).start(&net);
        let programs = programs_of(run.pid());
        assert!(!programs.is_empty(), "{tool} holds no program");
        for &id in &programs {
            assert!(program_exists(id).expect("we may ask"), "{tool}: program {id}");
        }
        run.signal(Signal::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        // The kernel frees programs in its own time, and tells nobody.
        while let Some(id) = programs.iter().find(|&&id| program_exists(id).expect("we may ask")) {
            assert!(Instant::now() < deadline, "{tool}: program {id} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn a_reader_that_goes_away_is_a_normal_end(_: &Case) {
    for (tool, options) in [("tcpconnect", ""), ("tcpconnect", "--json"), ("tcplife", ""), ("tcplife", "-s")]
    {
        let notes = Case { tool, rung: Rung::Any }.notes(options);
        let net = Net::new();
        let client = net.peer("client");
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let run = Launch::new(tool, options).stdout(writer).start(&net);
        let mut reader = BufReader::new(File::from(reader));
        if options == "--json" {
            client.refused(net.v4(80));
        }
        let mut first = String::new();
        reader.read_line(&mut first).expect("a pipe can be read");
        assert!(!first.is_empty(), "{tool} {options}");
        drop(reader);
        client.refused(net.v4(81));
        assert_eq!(run.ends().code(0).said(), notes, "{tool} {options}");
    }
}

/// Standard output is a pipe, or a socket, as supervisors hand it over; nothing is ever written to it.
fn a_reader_that_goes_away_is_noticed_before_the_next_row(_: &Case) {
    let net = Net::new();
    let quiet = net.peer("quiet");
    let of_quiet = format!("--json -p {}", quiet.pid());
    for (tool, options) in [("tcpconnect", &*of_quiet), ("softirqs", "--json 3600")] {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let run = Launch::new(tool, options).stdout(writer).start(&net);
        drop(reader);
        run.ends().code(0).quiet();
        let (reader, writer) = UnixStream::pair().expect("two sockets");
        let run = Launch::new(tool, options).stdout(OwnedFd::from(writer)).start(&net);
        drop(reader);
        run.ends().code(0).quiet();
    }
    // Who only has nothing to say still listens.
    let client = net.peer("client");
    let (reader, writer) = UnixStream::pair().expect("two sockets");
    let run = Launch::new("tcpconnect", "--json").stdout(OwnedFd::from(writer)).start(&net);
    reader.shutdown(Shutdown::Write).expect("it is open");
    client.refused(net.v4(80));
    let mut row = String::new();
    BufReader::new(&reader).read_line(&mut row).expect("a row");
    assert!(row.starts_with('{'), "{row:?}");
    run.stop().code(0);
}

fn a_signal_that_was_ignored_stays_ignored(_: &Case) {
    for (ignored, end) in [(Signal::SIGHUP, Signal::SIGINT), (Signal::SIGINT, Signal::SIGHUP)] {
        let net = Net::new();
        let client = net.peer("client");
        let run = Launch::new("tcpconnect", "").ignoring(&[ignored]).start(&net);
        kill(Pid::from_raw(run.pid().cast_signed()), ignored).expect("it runs");
        client.refused(net.v4(80));
        run.arrival(1);
        run.signal(end).code(0).quiet();
    }
}

fn a_hang_up_prints_the_table_of_a_count(_: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = Launch::new("tcpconnect", "-c").start(&net);
    for _ in 0..3 {
        client.refused(net.v4(80));
    }
    let ended = run.signal(Signal::SIGHUP);
    ended.code(0);
    let to = net.v4(80).ip().to_string();
    let ours: Vec<&String> = ended.stdout.iter().filter(|line| line.contains(&to)).collect();
    assert!(matches!(ours[..], [row] if row.trim_end().ends_with(" 3")), "{:#?}", ended.stdout);
}

fn a_reader_that_goes_away_is_not_the_end_of_the_ledger(_: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let run = Launch::new("tcpconnect", "--x-ring-bytes 4096").stdout(writer).start(&net);
    run.suspend();
    // More than the ring holds.
    assert_eq!(client.churn(net.v4(80), 503, 1), (0, 503));
    drop(reader);
    run.resume();
    let ended = run.ends();
    ended.code(0);
    assert!(ended.lost() > 0, "{}", ended.stderr);
}

/// What is promised. Measured without the time in which tool and test had no processor; what else a busy machine adds, as where
/// the kernel takes programs away, it does not add each time.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

fn a_sampler_whose_reader_takes_nothing_ends_when_told(_: &Case) {
    for (tool, options) in [
        ("hardirqs", "1"),
        ("netqtop", "-n lo -i 1"),
        ("softirqs", "1"),
        ("softirqslower", "0"),
        ("tcpcong", "1"),
        ("tcpreset", "-c -i 1"),
        ("tcprtt", "-i 1"),
        ("tcpsubnet", "-i 1"),
        ("tcpsynbl", "1"),
        ("tcptop", "-C 1"),
        ("tcpwhy", "-c -i 1"),
    ] {
        let net = Net::new();
        let (_reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("it holds a page");
        write(&writer, &[b'\n'; 4096]).expect("it has room for a page");
        // The first block is due after a second, on a machine that is not busy.
        let held_back = (1..=10).map(|tenths| Duration::from_millis(1000 + 300 * tenths)).any(|pause| {
            let (writer, net) = (writer.try_clone().expect("room for one more"), &net);
            let run = Launch::new(tool, options).stdout(writer).start(net);
            std::thread::sleep(pause);
            let (ended, took) = run.ends_after(Signal::SIGTERM);
            ended.code(0);
            // Rows are said to be missing; where nothing is sent, the others have a headline only.
            let held_back = ended.stderr.contains("not written")
                || !matches!(tool, "hardirqs" | "netqtop" | "softirqs" | "softirqslower");
            held_back && took < PROMPT
        });
        assert!(held_back, "{tool}: no run whose block was held back has ended within {PROMPT:?}");
    }
}

fn standard_error_that_nobody_reads_keeps_no_tool(_: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let (_reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("it holds a page");
    write(&writer, &[b'\n'; 4096]).expect("it has room for a page");
    // A row, and a flood that fills the ring: what is in that is read at the end.
    for rows in [1, 8009] {
        let mut times = Vec::new();
        let prompt = (0..5).any(|_| {
            let [out, err] = [(); 2].map(|()| writer.try_clone().expect("room for one more"));
            let run = Launch::new("tcpconnect", "").stdout(out).stderr(err).start(&net);
            assert_eq!(client.churn(net.v4(80), rows, 1), (0, rows));
            let (ended, took) = run.ends_after(Signal::SIGTERM);
            ended.code(0);
            times.push(took);
            took < PROMPT
        });
        assert!(prompt, "{rows} rows: no run has ended within {PROMPT:?}: {times:?}");
    }
}

fn a_full_disk_is_one_clear_line(_: &Case) {
    for tool in tools() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("there is /dev/full");
        let notes = Case { tool, rung: Rung::Any }.notes(least(tool));
        let ended = Launch::new(tool, least(tool)).stdout(full).ends().without(&notes);
        ended.code(1).one_line(tool, &["No space left on device"]);
    }
}

fn rows_leave_through_a_pipe_at_once(_: &Case) {
    /// What is promised.
    const AT_ONCE: Duration = Duration::from_millis(50);
    /// Rows that come together: the tool rests behind the first of them.
    const BURST: usize = 3;
    // To each, the refusal of an open is a row.
    let tools = [
        ("tcpconnect", ""),
        ("tcpconnect", "--json"),
        ("tcpconnlat", ""),
        ("tcpdrop", "--all"),
        ("tcplife", ""),
        ("tcplife", "-s"),
    ];
    for (tool, options) in tools {
        let net = Net::new();
        let client = net.peer("client");
        let run = Launch::new(tool, options).start(&net);
        let mut seen = 0;
        // The delays of a round, each without the time in which the tool was ready to go on and had no processor.
        let mut round = || -> Vec<Duration> {
            (0..4)
                .flat_map(|_| {
                    let (waited, mut calls) = (run.waited_for_cpu(), Vec::new());
                    for _ in 0..BURST {
                        calls.push(Instant::now());
                        client.refused(net.v4(80));
                    }
                    let came: Vec<Instant> = (1..=BURST).map(|nth| run.arrival(seen + nth)).collect();
                    seen += BURST;
                    let waited = run.waited_for_cpu().saturating_sub(waited);
                    let late = move |(came, call): (Instant, Instant)| (came - call).saturating_sub(waited);
                    came.into_iter().zip(calls).map(late).collect::<Vec<_>>()
                })
                .collect()
        };
        // The one that is late may also be the client, the test or all of the machine: not in each round.
        let mut rounds = Vec::new();
        let kept = (0..10).any(|_| {
            rounds.push(round());
            rounds[rounds.len() - 1].iter().all(|late| *late < AT_ONCE)
        });
        assert!(kept, "{tool} {options}: rows were later than {AT_ONCE:?} in each round: {rounds:?}");
        run.finish();
    }
}

/// The real binary, told that the kernel's structs have another field than they do.
fn a_missing_kernel_field_is_refused_by_its_name(_: &Case) {
    const NAME: &[u8] = b"\0skc_dport\0";
    own_mounts();
    let mut types = fs::read(VMLINUX).expect("the kernel describes itself");
    let at = types.windows(NAME.len()).position(|bytes| bytes == NAME).expect("struct sock_common has it");
    // A name as long, so that all else is where it was.
    types[at + 1..at + 5].copy_from_slice(b"xkc_");
    let changed = tempfile::NamedTempFile::new().expect("a file");
    fs::write(changed.path(), types).expect("there is room");
    in_place_of(changed.path(), VMLINUX);
    for tool in ["tcpconnect", "tcplife", "tcpaccept", "tcptop"] {
        let ended = Launch::new(tool, "").fails().unwrap_or_else(|| panic!("{tool} runs without it"));
        ended.code(1).one_line(tool, &["this kernel's struct sock_common has no field skc_dport"]);
    }
    // What reads no such field runs.
    let net = Net::new();
    Launch::new("netqtop", "-n lo").start(&net).finish();
}

fn json_begins_with_the_first_row(_: &Case) {
    for tool in ["tcpconnect", "tcplife"] {
        let net = Net::new();
        let client = net.peer("client");
        let run = Launch::new(tool, "--json").start(&net);
        client.refused(net.v4(80));
        run.rows(1);
        let ended = run.finish();
        // No banner, no header: every line is an object.
        for line in &ended.stdout {
            assert!(line.starts_with('{') && line.ends_with('}'), "{tool}: {line:?}");
        }
    }
}

fn a_pid_is_meant_as_the_namespace_counts(_: &Case) {
    let net = Net::new();
    with_own_pids(|| {
        let first = net.new_peer("first");
        let client = net.new_peer("client");
        let run = Launch::new("tcpconnect", "-p 2").start(&net).ended_by(|| client.refused(net.v4(END_PORT)));
        first.refused(net.v4(80));
        client.refused(net.v4(81));
        run.rows(1).are("PID", &[client.pid()]).are("DPORT", &[81]);
        let ended = run.stop();
        ended.code(0);
        assert!(
            ended.stderr.contains(&format!("is process {} of the host", client.pid())),
            "{}",
            ended.stderr
        );
        let nobody = Launch::new("tcpconnect", "-p 999").ends();
        nobody.code(1).one_line("tcpconnect", &["--pid 999", "no such process in this PID namespace"]);
    });
}

fn a_number_that_is_no_process_is_said(_: &Case) {
    let thread = gettid();
    let net = Net::new();
    for entry in netbcc::registry::TOOLS {
        if !(entry.command)().get_arguments().any(|arg| arg.get_short() == Some('p') && arg.get_id() == "pid")
        {
            continue;
        }
        let tool = entry.spec.name;
        for (number, said) in [
            (i32::MAX.to_string(), "there is no such process now".to_owned()),
            (thread.to_string(), format!("is a thread of process {}", std::process::id())),
        ] {
            let ended = Launch::new(tool, &format!("-p {number}")).start(&net).stop();
            ended.code(0);
            let line = format!("{tool}: --pid {number}");
            let lines = ended.stderr.lines().filter(|told| told.starts_with(&line) && told.contains(&said));
            assert_eq!(lines.count(), 1, "{said}: {}", ended.stderr);
        }
    }
}

fn too_few_descriptors_are_one_clear_line(_: &Case) {
    // Each number from far too few to enough once, by another tool each: every tool at every number takes minutes in a
    // guest.
    for (most, tool) in (12..=40).zip(tools().cycle()) {
        let launch = Launch::new(tool, least(tool)).limit(Resource::RLIMIT_NOFILE, most);
        let Some(ended) = launch.fails() else {
            assert!(most > 20, "{tool} runs with {most} descriptors");
            continue;
        };
        let clear = ended.stderr.lines().filter(|line| line.contains("open files")).count() == 1;
        if ended.code != Some(1) || !clear || ended.stderr.contains("does not offer") {
            ended.fail(&format!("ulimit -n {most}"));
        }
    }
}

fn too_little_memory_is_one_clear_line(_: &Case) {
    for tool in tools() {
        let ended = Launch::new(tool, least(tool)).limit(Resource::RLIMIT_DATA, 1 << 20).ends();
        ended.code(1).one_line(tool, &["ulimit -d", "1024 KiB"]);
    }
}

fn a_user_who_may_start_no_thread_is_served(_: &Case) {
    let copy = Copy::new();
    copy.grant(Copy::NEEDED);
    let mut served = 0;
    for tool in tools() {
        let net = Net::new();
        let launch = || Launch::new(tool, least(tool)).program(copy.path()).user(65_534);
        // Before 5.11 an ordinary user may lock too little memory, and some kernels keep uprobes for root.
        if launch().fails().is_some() {
            continue;
        }
        launch().limit(Resource::RLIMIT_NPROC, 0).start(&net).stop().code(0);
        served += 1;
    }
    if served == 0 {
        skip("a tool that an ordinary user may run");
    }
}

/// A file system that is full, and a file as large as it may be.
fn a_file_that_takes_no_more_has_whole_rows(_: &Case) {
    /// A page, which some of the rows fill.
    const MOST: u64 = 4096;
    const ROWS: usize = 101;
    own_mounts();
    let [place, full] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let only = format!("size={MOST}");
    mount(Some("tmpfs"), full.path(), Some("tmpfs"), MsFlags::empty(), Some(only.as_str())).expect("a tmpfs");
    for is_full in [true, false] {
        for options in ["", "--json"] {
            let net = Net::new();
            let client = net.peer("client");
            let folder = if is_full { &full } else { &place };
            let mut file = tempfile::tempfile_in(folder.path()).expect("a file");
            let launch =
                Launch::new("tcpconnect", options).stdout(file.try_clone().expect("room for one more"));
            let launch = if is_full { launch } else { launch.limit(Resource::RLIMIT_FSIZE, MOST) };
            let run = launch.start(&net);
            assert_eq!(client.churn(net.v4(80), ROWS, 1), (0, ROWS));
            let ended = run.ends();
            let said = if is_full { "No space left on device" } else { "File too large" };
            ended.code(1);
            assert!(ended.stderr.contains(said), "{}", ended.stderr);
            let mut text = String::new();
            file.rewind().expect("it is a file");
            file.read_to_string(&mut text).expect("rows are UTF-8");
            let bytes = u64::try_from(text.len()).expect("it is short");
            assert!(bytes <= MOST && bytes > MOST - 512 && text.ends_with('\n'), "{text}");
            let is_row = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert!(options.is_empty() || text.lines().all(|line| is_row(&line)), "{text}");
        }
    }
    umount2(full.path(), MntFlags::MNT_DETACH).expect("it is ours");
}

fn what_is_not_mounted_is_said_by_its_name(_: &Case) {
    own_mounts();
    for (place, said) in [("/sys", "no /sys is mounted here"), ("/proc", "no /proc is mounted here")] {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        let all: Vec<_> = tools().map(|tool| (tool, Launch::new(tool, least(tool)).ends())).collect();
        umount2(place, MntFlags::MNT_DETACH).expect("it is ours");
        for (tool, ended) in all {
            ended.code(1).one_line(tool, &[said]);
        }
    }
}

/// The row of one refused connect, whose time of day is now.
fn tells_the_time(launch: Launch) {
    let seconds =
        |time: &str| time.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().expect("digits"));
    let net = Net::new();
    let run = launch.start(&net);
    net.peer("client").refused(net.v4(80));
    let rows = run.rows(2);
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later").as_secs().cast_signed();
    let late = (now - seconds(rows[0].get("TIME"))).rem_euclid(86_400);
    rows[0].must(late <= 60, format_args!("it is {late} s later"));
    run.finish();
}

fn times_are_right_in_a_time_namespace(_: &Case) {
    for ahead in [40_000, -1] {
        tells_the_time(Launch::new("tcpstates", "-T").clock_ahead(ahead));
        // This one holds rows back for a moment, by the same clock.
        let net = Net::new();
        let run = Launch::new("tcpconnect", "").clock_ahead(ahead).start(&net);
        net.peer("client").refused(net.v4(80));
        run.rows(1);
        run.finish();
    }
}

fn a_time_zone_is_a_regular_file(_: &Case) {
    let place = tempfile::tempdir().expect("a directory");
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for zone in ["/dev/zero", pipe.to_str().expect("UTF-8"), "/", ""] {
        tells_the_time(Launch::new("tcpstates", "-T").env("TZ", zone));
    }
}

fn a_descriptor_for_reading_is_not_written_to(_: &Case) {
    // Standard input is open for reading; 4000 is not open.
    for (number, said) in [("0", "not open for writing"), ("4000", "Bad file descriptor")] {
        let ended = Launch::new("tcpconnect", "").env("NETBCC_READY_FD", number).ends();
        ended.code(1);
        let line = ended.stderr.lines().last().unwrap_or_default();
        assert!(
            line.starts_with(&format!("tcpconnect: NETBCC_READY_FD={number}: ")) && line.contains(said),
            "{line}"
        );
    }
}

fn another_pipe_without_a_reader_is_an_error(_: &Case) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    let ended = Launch::new("tcpconnect", "").env("NETBCC_READY_FD", "0").stdin(writer, Seat::Job).ends();
    ended.code(1);
    let line = ended.stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("tcpconnect: write to NETBCC_READY_FD: Broken pipe"), "{}", ended.stderr);
}

/// The blocks of a sampler: when each was made, and what it says that it covers.
fn blocks_of(lines: &[String]) -> Vec<(u64, u64)> {
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
        let field = |name: &str| row[name].as_u64().expect("it is a number");
        let block = (field("ts_ns"), field("interval_ns"));
        if blocks.last().is_none_or(|last| last.0 != block.0) {
            blocks.push(block);
        }
    }
    blocks
}

/// Whether two of the blocks are seconds apart, and those between cover that time. A tool that is held up between its two
/// looks at the clock is late at one of them; so is one of whose blocks one had no row. Neither is so for ever.
fn covers_what_passed(blocks: &[(u64, u64)]) -> bool {
    (0..blocks.len()).any(|from| {
        let mut covered = 0;
        blocks[from + 1..].iter().any(|&(at, interval)| {
            covered += interval;
            let passed = at - blocks[from].0;
            passed > 2_000_000_000 && passed.abs_diff(covered) < passed / 25
        })
    })
}

/// What says in each row of JSON how long its interval was: tools, with options that make this one so many seconds long.
fn samplers(seconds: u32) -> impl Iterator<Item = (&'static str, String)> {
    const OF_TOOLS: [(&str, &str); 10] = [
        ("hardirqs", "--json --vectors INTERVAL"),
        ("netqtop", "-n lo --json -i INTERVAL"),
        ("softirqs", "--json INTERVAL"),
        ("tcpcong", "--json --open INTERVAL"),
        ("tcpreset", "-c --json -i INTERVAL"),
        ("tcprtt", "--json -i INTERVAL"),
        ("tcpsubnet", "--json -i INTERVAL"),
        ("tcpsynbl", "--json --listeners INTERVAL"),
        ("tcptop", "--json INTERVAL"),
        ("tcpwhy", "-c --json -i INTERVAL"),
    ];
    let has_interval = |tool: &&str| {
        let entry = netbcc::registry::TOOLS.iter().find(|entry| entry.spec.name == *tool).expect("it is one");
        (entry.command)().get_arguments().any(|arg| arg.get_id() == "interval")
    };
    let known: Vec<_> = OF_TOOLS.iter().map(|(tool, _)| *tool).collect();
    assert_eq!(tools().filter(has_interval).collect::<Vec<_>>(), known, "tools with an interval");
    OF_TOOLS.into_iter().map(move |(tool, options)| (tool, options.replace("INTERVAL", &seconds.to_string())))
}

fn the_interval_under_way_is_printed_at_a_hang_up_and_says_how_long_it_was(_: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let since = Instant::now();
    // In BCC's netqtop Ctrl-C leaves the interval under way out.
    let runs: Vec<_> = samplers(3600)
        .filter(|(tool, _)| *tool != "netqtop")
        .map(|(tool, options)| (tool, Launch::new(tool, &options).start(&net), Instant::now()))
        .collect();
    let near = client.connect(listener.address());
    let far = listener.accept();
    near.send(1000);
    far.receive(1000);
    client.refused(net.v4_of(2, 81));
    // This pause is what is measured, not a wait for something.
    std::thread::sleep(Duration::from_millis(400));
    for (tool, run, ready) in runs {
        let least = ready.elapsed();
        let ended = run.signal(Signal::SIGHUP);
        let most = since.elapsed();
        ended.code(0);
        let blocks = blocks_of(&ended.stdout);
        let told: Vec<_> = blocks.iter().map(|block| Duration::from_nanos(block.1)).collect();
        if !matches!(told[..], [told] if told >= least && told <= most) {
            ended.fail(&format!("{tool}: {told:?}, not one interval of {least:?} to {most:?}"));
        }
    }
}

/// tcpstates reads this setting at its start; here it waits for whoever writes it.
fn a_signal_while_the_tool_loads_is_a_normal_end(_: &Case) {
    let place = tempfile::tempdir().expect("a directory");
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    own_mounts();
    in_place_of(&pipe, "/proc/sys/kernel/kptr_restrict");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let path = pipe.clone();
        let ended = Launch::new("tcpstates", "").ends_after(move |pid| {
            let deadline = Instant::now() + PATIENCE;
            // There is no writing end before somebody reads.
            let mut writer = loop {
                let opened =
                    OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
                match opened {
                    Ok(writer) => break writer,
                    Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENXIO), "{error}"),
                }
                assert!(Instant::now() < deadline, "it does not ask for the setting");
                std::thread::sleep(Duration::from_millis(1));
            };
            kill(pid, signal).expect("it runs");
            writer.write_all(b"1\n").expect("it reads");
        });
        ended.code(0).quiet();
    }
}

fn a_stall_is_one_long_interval_and_nothing_catches_up(_: &Case) {
    /// More than two intervals.
    const STALL: Duration = Duration::from_millis(2500);
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let runs: Vec<_> =
        samplers(1).map(|(tool, options)| (tool, Launch::new(tool, &options).start(&net))).collect();
    // tcpcong follows what begins during its run.
    let near = client.connect(listener.address());
    let far = listener.accept();
    for (_, run) in &runs {
        run.suspend();
    }
    std::thread::sleep(STALL);
    // Some have no block where nothing is sent, or fails.
    let send = || {
        near.send(1000);
        far.receive(1000);
        client.refused(net.v4_of(2, 81));
    };
    send();
    for (_, run) in &runs {
        run.resume();
    }
    let deadline = Instant::now() + PATIENCE;
    let stall = u64::try_from(STALL.as_nanos()).expect("seconds");
    for (tool, run) in runs {
        let blocks = loop {
            // Those of the time before are among them, while the others started.
            let blocks = blocks_of(&run.lines());
            let after = blocks.iter().position(|block| block.1 > stall).map_or(&[][..], |at| &blocks[at..]);
            if after.len() >= 3 && covers_what_passed(&blocks) {
                break blocks;
            }
            if Instant::now() > deadline {
                run.fail(&format!("no block covers the stall, or none what passed: {blocks:?}"));
            }
            send();
            std::thread::sleep(Duration::from_millis(20));
        };
        for pair in blocks.windows(2) {
            let (apart, interval) = (pair[1].0 - pair[0].0, pair[1].1);
            assert!(interval > 850_000_000, "{tool}: a block caught up: {blocks:?}");
            assert!(apart > interval / 2, "{tool}: it covers more than there was: {blocks:?}");
        }
        run.finish();
    }
}

/// What this kernel has of what makes programs lose their processor, and of what keeps it.
pub(crate) struct Preemption {
    /// A task may lose it at tracepoints, too.
    at_tracepoints: bool,
    /// Programs can keep it.
    keeps: bool,
}

impl Preemption {
    /// Of the running kernel.
    pub(crate) fn of_kernel() -> Self {
        const GUARD: &str = "class_srcu_fast_notrace_t";
        const MEANS: [&str; 4] =
            ["bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save", "bpf_local_irq_restore"];
        const REAL_TIME: &str = "rt_spin_lock";
        let functions = MEANS.into_iter().chain([REAL_TIME]).map(str::to_owned).collect();
        let wanted = Wanted { functions, typedefs: vec![GUARD.to_owned()], ..Wanted::default() };
        let kernel = btf::read(&wanted).expect("the kernel has BTF");
        // Calls of the kernel's functions are compiled, or there are none.
        let compiled =
            fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|text| text.trim() != "0");
        let at_tracepoints = kernel.has_typedef(GUARD);
        let may = at_tracepoints || kernel.function(REAL_TIME).is_none();
        let has = MEANS.iter().all(|name| kernel.function(name).is_some());
        Self { at_tracepoints, keeps: compiled && may && has }
    }

    /// Whether programs of tracepoints keep the processor here.
    pub(crate) fn keeps_tracepoints(&self) -> bool {
        self.at_tracepoints && self.keeps
    }
}

fn programs_keep_their_processor_where_they_may_lose_it(_: &Case) {
    let kernel = Preemption::of_kernel();
    let mut looked_at = 0;
    // All kinds of programs that there are.
    for tool in ["tcpconnect", "tcplife", "netqtop"] {
        let net = Net::new();
        let run = Launch::new(tool, least(tool)).start(&net);
        for (kind, id) in attached_of(run.pid()) {
            let expected = match kind.as_str() {
                "tracing" => kernel.keeps,
                "raw_tracepoint" => kernel.keeps_tracepoints(),
                _ => false,
            };
            // It keeps its context, `r6 = r1`, and calls one of the kernel's functions.
            let begins = program_begins(id).expect("the tool holds it");
            let keeps = begins[0] == 0x16bf && begins[1] & 0xffff == 0x2085;
            let name = program(id).expect("the tool holds it").name;
            assert_eq!(keeps, expected, "{tool}: {name}, {kind}: {begins:#x?}");
            looked_at += 1;
        }
        run.finish();
    }
    assert!(looked_at > 0, "no link tells what it is");
}
