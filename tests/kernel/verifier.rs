//! How much work the verifier has with each program, on each kernel: `fixtures/verifier.txt`.
//!
//! A start waits for the verifier, and a program that grows may be refused by an older kernel one day. So growth is
//! noticed here: more than a fifth over the table fails, and says the lines that the table should have instead. So does
//! less than half of what the table says: what is that far from the truth would let a program double unseen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use netbcc::hook::RungName;
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::Net;
use netbcc_tests::raw;
use netbcc_tests::run::{Launch, programs_of};

pub(crate) const CHECKS: &[Check] = checks![no_program_grows_unnoticed];

/// `KERNEL TOOL RUNG PROGRAM INSTRUCTIONS`, one a line.
const TABLE: &str = include_str!("../fixtures/verifier.txt");

/// What makes a tool load the most programs.
fn most(tool: &str) -> &'static str {
    match tool {
        "netqtop" => "-n lo",
        "hardirqs" | "softirqs" => "-d",
        "tcpconnect" => "-d -L",
        "tcprtt" => "-B",
        "tcpretrans" => "-l --synack",
        _ => "",
    }
}

/// `6.1` of `6.1.0-56-cloud-amd64`.
fn series() -> String {
    let release = nix::sys::utsname::uname().expect("it has a name").release().to_string_lossy().into_owned();
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Whether the table may go on to say this of a program.
fn is_near(insns: u32, told: u32) -> bool {
    let (insns, told) = (u64::from(insns), u64::from(told));
    insns * 5 <= told * 6 && insns * 2 >= told
}

fn no_program_grows_unnoticed(_: &Case) {
    if cfg!(not(target_arch = "x86_64")) {
        // The programs differ in how they read the registers of a kprobe; one table of their growth is enough.
        skip("x86-64, whose kernels fixtures/verifier.txt is about");
    }
    // The last that pass, and the first that do not.
    assert_eq!([50, 120, 49, 121].map(|insns| is_near(insns, 100)), [true, true, false, false]);
    let series = series();
    let mut known = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [kernel, tool, rung, program, insns] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("not a line of the table: {line:?}");
        };
        let insns: u32 = insns.parse().expect("a number");
        if kernel == series {
            known.insert((tool, rung, program.to_owned()), insns);
        }
    }
    let (mut now, mut wrong) = (String::new(), Vec::new());
    for entry in netbcc::registry::TOOLS {
        let tool = entry.spec.name;
        let rungs = || entry.spec.ladders.iter().flat_map(|ladder| ladder.rungs).map(|rung| rung.name);
        for name in RungName::ALL.into_iter().filter(|&name| rungs().any(|rung| rung == name)) {
            let rung = match name {
                RungName::Fexit => Rung::Fexit,
                RungName::Kprobe => Rung::Kprobe,
                RungName::Tracepoint => Rung::Tracepoint,
                RungName::RawTp => Rung::RawTp,
                RungName::Uprobe => Rung::Uprobe,
            };
            let net = Net::new();
            let Ok(run) = Launch::new(tool, most(tool)).rung(rung).start_if_offered(&net) else { continue };
            for id in programs_of(run.pid()) {
                let raw::Program { name: program, verified: insns, .. } =
                    raw::program(id).expect("the tool holds it");
                let _infallible = writeln!(now, "{series} {tool} {} {program} {insns}", name.as_str());
                let told = known.remove(&(tool, name.as_str(), program.clone()));
                if told.is_none_or(|told| !is_near(insns, told)) {
                    wrong.push(format!("{tool} {} {program}: {insns}, was {told:?}", name.as_str()));
                }
            }
            run.finish();
        }
    }
    if !TABLE.lines().any(|line| line.split(' ').next() == Some(&series)) {
        skip(format!("a kernel that fixtures/verifier.txt knows; this one, {series}, would have:\n{now}"));
    }
    wrong.extend(known.keys().map(|(tool, rung, program)| format!("{tool} {rung} {program}: is gone")));
    assert!(wrong.is_empty(), "{wrong:#?}\nthe table should say:\n{now}");
}
