//! What power each tool needs, and that it keeps none: every check for every tool.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use netbcc::sys::btf::{self, Wanted};
use netbcc::sys::confine::confine;
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, least};
use netbcc_tests::net::Net;
use netbcc_tests::raw::Map;
use netbcc_tests::run::{Copy, Launch, PATIENCE, Run};

pub(crate) const CHECKS: &[Check] =
    checks![once_it_runs_it_has_no_power, an_ordinary_user_needs_the_power_of_two_file_capabilities];

/// Neither capabilities nor a way to get them back, in any thread. One that ended already may take its time to go.
fn has_no_power(run: &Run<'_>) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(power) = power_of(run.pid()) {
        if Instant::now() > deadline {
            run.fail(&power);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a thread of the process can do, if there is one that can.
fn power_of(pid: u32) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let [none, least] = [0, least_power()].map(|capabilities| format!("{capabilities:016x}"));
    statuses.into_iter().find(|status| {
        [("CapInh", &*none), ("CapPrm", &least), ("CapEff", &least), ("CapAmb", &none), ("NoNewPrivs", "1")]
            .iter()
            .any(|(name, value)| !status.lines().any(|line| line == format!("{name}:\t{value}")))
    })
}

/// The capabilities that a tool has to keep: before 5.19 the kernel wants one to read a map.
fn least_power() -> u64 {
    const BPF: u64 = 1 << 39;
    static LEAST: LazyLock<u64> = LazyLock::new(|| {
        let map = Map::hash(8).expect("we may");
        let uses = thread::spawn(move || {
            confine(None, || true).expect("whoever may more, may less");
            map.insert(1)
        });
        if uses.join().expect("no panic in there").is_ok() { 0 } else { BPF }
    });
    *LEAST
}

/// Whether tables are locked memory to this kernel (before 5.11), of which an ordinary user has too little.
fn counts_tables() -> bool {
    const COUNTED: &str = "bpf_map_memory";
    let wanted = Wanted { structs: vec![COUNTED.to_owned()], ..Wanted::default() };
    btf::read(&wanted).expect("the kernel has BTF").has_struct(COUNTED)
}

/// Ends well, after having printed what is to be seen, and with the last look at what was lost.
fn works(case: &Case, run: Run<'_>, net: &Net) {
    let client = net.peer("client");
    client.refused(net.v4(80));
    if ["tcpconnect", "tcplife"].contains(&case.tool) {
        run.rows(1).are("PID", &[client.pid()]);
    }
    let ended = run.stop();
    ended.code(0);
    assert!(!ended.stderr.contains("denied") && !ended.stderr.contains("permitted"), "{}", ended.stderr);
}

fn once_it_runs_it_has_no_power(case: &Case) {
    let net = Net::new();
    let run = case.launch(least(case.tool)).start(&net);
    has_no_power(&run);
    works(case, run, &net);
}

fn an_ordinary_user_needs_the_power_of_two_file_capabilities(case: &Case) {
    /// Bits of the upper word (include/uapi/linux/capability.h).
    const PERFMON: u32 = 1 << (38 - 32);
    const BPF: u32 = 1 << (39 - 32);
    let net = Net::new();
    let copy = Copy::new();
    let launch = || Launch::new(case.tool, least(case.tool)).program(copy.path()).user(65_534);
    for (capabilities, missing) in [(BPF, "CAP_PERFMON is missing"), (PERFMON, "CAP_BPF is missing")] {
        copy.grant(capabilities);
        launch().ends().code(1).one_line(case.tool, &[missing, "cap_bpf,cap_perfmon=ep"]);
    }
    copy.grant(BPF | PERFMON);
    // Nor may it take more memory of the kernel than the tool itself does.
    let greedy = Launch::new(case.tool, &format!("{} --x-ring-bytes 1073741824", least(case.tool)));
    greedy
        .program(copy.path())
        .user(65_534)
        .ends()
        .code(2)
        .one_line(case.tool, &["--x-ring-bytes", "root only"]);
    if counts_tables() {
        launch().ends().code(1).one_line(case.tool, &["locked memory", "CAP_SYS_RESOURCE", "ulimit -l"]);
        return;
    }
    let run = launch().start(&net);
    // The user cannot trace it: what /proc shows of it belongs to root.
    assert_eq!(fs::metadata(format!("/proc/{}/status", run.pid())).expect("it runs").uid(), 0);
    has_no_power(&run);
    works(case, run, &net);
}
