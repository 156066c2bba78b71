//! Real traffic on a real kernel: every check of every tool on every rung.
//!
//! Trials are made at run time and named `tool::rung::sentence`. What this kernel or machine lacks is skipped and
//! said; `NETBCC_EXPECT_RUNGS=fexit,kprobe,tracepoint,raw_tp,uprobe` makes the absence of a rung a failure instead.
//! `NETBCC_WHOLE=any,tcptop::fexit` takes the first check only of every list that is not named, and none of `netbcc`, which
//! depends on no kernel; `NETBCC_WHOLE=smoke` takes the first one of each tool's rungs and nothing else: for machines that
//! are slow. `-doctor` among the names leaves that file out.

use std::process::ExitCode;

use libtest_mimic::{Arguments, ColorSetting, Trial};
use netbcc_tests::hidden::Canaries;
use netbcc_tests::kernel::{
    Rung, collect_panics, say, tell_notes, trials, trials_of_group, trials_of_netbcc, watch_with,
};
use netbcc_tests::run::binary;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

mod bindsnoop;
mod doctor;
mod engine;
mod file;
mod flood;
mod gethostlatency;
mod hardirqs;
mod netqtop;
mod owner;
mod pairs;
mod power;
mod samplers;
mod select;
mod softirqs;
mod softirqslower;
mod solisten;
mod tcpaccept;
mod tcpcong;
mod tcpconnect;
mod tcpconnlat;
mod tcpdrop;
mod tcplife;
mod tcppktlat;
mod tcpreset;
mod tcpretrans;
mod tcprtt;
mod tcpstates;
mod tcpsubnet;
mod tcpsynbl;
mod tcptop;
mod tcptracer;
mod tcpwhy;
mod terminal;
mod verifier;

fn main() -> ExitCode {
    if let Some(code) = netbcc_tests::peer_main() {
        return code;
    }
    let mut args = Arguments::from_args();
    // A guest's console is a terminal, too, but what reads it is a program.
    args.color.get_or_insert(ColorSetting::Never);
    if !args.list {
        if !nix::unistd::geteuid().is_root() {
            say("SKIP every test of the kernel tier: only root may load programs into the kernel");
            return if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        if !binary().exists() {
            say(&format!("there is no {} to test: build it, or say NETBCC_BIN=PATH", binary().display()));
            return ExitCode::FAILURE;
        }
    }
    collect_panics();
    if !args.list {
        // Before 5.11 the tables that checks make are locked memory. In a container root may not, and newer kernels do not ask.
        let _as_far_as_we_may = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        watch_with(Canaries::start());
    }
    let all: Vec<Trial> = [
        trials_of_netbcc("doctor", doctor::CHECKS),
        trials("doctor", &[Rung::Any], doctor::ANY),
        trials_of_netbcc("engine", engine::CHECKS),
        trials_of_netbcc("file", file::CHECKS),
        trials_of_netbcc("flood", flood::ANY),
        trials("gethostlatency", &[Rung::Uprobe], gethostlatency::CHECKS),
        trials("hardirqs", &[Rung::Any], hardirqs::ANY),
        trials("hardirqs", &[Rung::Tracepoint, Rung::RawTp], hardirqs::CHECKS),
        trials("netqtop", &[Rung::Any], netqtop::ANY),
        trials("netqtop", &[Rung::Tracepoint, Rung::RawTp], netqtop::CHECKS),
        trials_of_netbcc("terminal", terminal::CHECKS),
        trials_of_netbcc("select", select::ONCE),
        trials("verifier", &[Rung::Any], verifier::CHECKS),
        trials("softirqs", &[Rung::Tracepoint], softirqs::CHECKS),
        trials("softirqs", &[Rung::Any], softirqs::ANY),
        trials("softirqslower", &[Rung::Tracepoint], softirqslower::CHECKS),
        trials("bindsnoop", &Rung::FORCED, bindsnoop::CHECKS),
        trials("solisten", &[Rung::Any], solisten::ANY),
        trials("solisten", &Rung::FORCED, solisten::CHECKS),
        trials("tcpaccept", &[Rung::Any], tcpaccept::ANY),
        trials("tcpaccept", &Rung::FORCED, tcpaccept::CHECKS),
        trials("tcpcong", &[Rung::Any], tcpcong::ANY),
        trials("tcpcong", &[Rung::Tracepoint], tcpcong::CHECKS),
        trials("tcpconnect", &[Rung::Any], tcpconnect::ANY),
        trials("tcplife", &[Rung::Any], tcplife::ANY),
        trials("tcplife", &[Rung::Any], owner::ANY),
        trials("tcpconnect", &Rung::FORCED, tcpconnect::CHECKS),
        trials("tcpconnlat", &[Rung::Any], tcpconnlat::ANY),
        trials("tcpconnlat", &Rung::FORCED, tcpconnlat::CHECKS),
        trials("tcpdrop", &[Rung::Any], tcpdrop::CHECKS),
        trials("tcpdrop", &[Rung::Any], tcpdrop::WAYS),
        trials("tcplife", &Rung::FORCED, tcplife::CHECKS),
        trials("tcplife", &[Rung::Kprobe], tcplife::KPROBES),
        trials("tcplife", &[Rung::Fexit, Rung::Tracepoint], tcplife::TYPED),
        trials("tcppktlat", &[Rung::Any], tcppktlat::ANY),
        trials("tcppktlat", &Rung::FORCED, tcppktlat::CHECKS),
        trials("tcpreset", &[Rung::Any], tcpreset::ANY),
        trials("tcpreset", &Rung::FORCED, tcpreset::CHECKS),
        trials("tcpretrans", &[Rung::Any], tcpretrans::ANY),
        trials("tcpretrans", &Rung::FORCED, tcpretrans::CHECKS),
        trials("tcprtt", &[Rung::Any], tcprtt::ANY),
        trials("tcprtt", &Rung::FORCED, tcprtt::CHECKS),
        trials("tcpstates", &[Rung::Any], tcpstates::ANY),
        trials("tcpstates", &Rung::FORCED, tcpstates::CHECKS),
        trials("tcpsubnet", &[Rung::Any], tcpsubnet::ANY),
        trials("tcpsubnet", &Rung::FORCED, tcpsubnet::CHECKS),
        trials("tcpsynbl", &[Rung::Any], tcpsynbl::ANY),
        trials("tcpsynbl", &Rung::FORCED, tcpsynbl::CHECKS),
        trials("tcptop", &[Rung::Any], tcptop::ANY),
        trials("tcptop", &Rung::FORCED, tcptop::CHECKS),
        trials("tcptracer", &[Rung::Any], tcptracer::ANY),
        trials("tcptracer", &Rung::FORCED, tcptracer::CHECKS),
        trials("tcpwhy", &[Rung::Any], tcpwhy::ANY),
        trials("tcpwhy", &[Rung::Tracepoint], tcpwhy::CHECKS),
    ]
    .into_iter()
    .chain(engine::tools().map(|tool| trials_of_netbcc(tool, power::CHECKS)))
    .chain(pairs::tools().map(|tool| trials(tool, &[Rung::Any], pairs::checks())))
    .chain(samplers::tools().map(|tool| trials(tool, &[Rung::Any], samplers::checks())))
    .chain(select::TOOLS.map(|(tool, rungs)| trials_of_group("select", tool, rungs, select::CHECKS)))
    .chain(owner::TOOLS_AND_CHECKS.map(|(tool, rungs, checks)| trials(tool, rungs, checks)))
    .chain(
        select::TOOLS_OF_ENDS
            .map(|(tool, rungs)| trials_of_group("select", tool, rungs, select::CHECKS_OF_ENDS)),
    )
    .chain(flood::flooded().map(|tool| trials_of_netbcc(tool, flood::CHECKS)))
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&args, all);
    tell_notes();
    conclusion.exit_code()
}
