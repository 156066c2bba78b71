//! `netbcc doctor`: which tools run on this machine, in which way, and what the other ways lack.
//!
//! Each tool is started as it starts by itself, up to the place where it would begin to trace: there its plan tries
//! every way and takes it back ([`Purpose::Diagnose`]). So nothing is said here that a tool does not find, too.

use std::ffi::OsString;
use std::fmt::Display;

use anyhow::{Error, Result, anyhow};
use clap::{Arg, ArgAction, Command};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::print;
use crate::out::{Clock, Format, Out, escaped, push_json_string};
use crate::probe::{Diagnosis, Hooks, Verdict, Way};
use crate::sys::{btf, machine};
use crate::tool::{Ctx, Entry, Purpose};

/// What a tool must be told to start, if it must be told something.
const LEAST: &[(&str, &[&str])] = &[("netqtop", &["--name", "lo"])];

/// Looks, prints, and fails if a tool does not run.
pub(super) fn examine(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = super::parse_args(command(tools), args)? else { return Ok(()) };
    let asked = super::verbs::tool(&matches, tools).map_or(tools, std::slice::from_ref);
    let facts = facts();
    let found: Vec<Found> =
        asked.iter().map(|entry| Found { name: entry.spec.name, diagnosis: diagnose(entry) }).collect();
    print(if matches.get_flag("json") { json(&facts, &found) } else { text(&facts, &found) })?;
    verdict(&found)
}

/// `netbcc doctor`.
pub(super) fn command(tools: &[Entry]) -> Command {
    super::manners(Command::new("doctor"))
        .bin_name("netbcc doctor")
        .about("Say which tools run on this machine, and in which way")
        .arg(super::verbs::tool_arg(tools).help("This tool only"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("One JSON object"))
        .after_help(
            "Every way to attach is tried and taken back at once; nothing is traced. Without the permission to do that \
             (root, or CAP_BPF and CAP_PERFMON) it says what can be seen without. The exit code is 0 when all tools run, \
             1 otherwise.",
        )
}

/// A tool, and what it found.
struct Found {
    name: &'static str,
    diagnosis: Diagnosis,
}

fn diagnose(entry: &'static Entry) -> Diagnosis {
    let least = LEAST.iter().find(|(name, _)| *name == entry.spec.name).map_or(&[][..], |(_, words)| *words);
    let out = Out::memory(Format::Text, Clock::start());
    let mut cx = Ctx { purpose: Purpose::Diagnose, ..Ctx::new(entry.spec, out) };
    let words = [&[entry.spec.name], least].concat();
    let ran = (entry.command)().try_get_matches_from(words).map_err(Error::new);
    let ended = ran.and_then(|matches| (entry.run)(&matches, &mut cx));
    let error = ended.err().unwrap_or_else(|| anyhow!("it attaches nothing"));
    error
        .downcast()
        .unwrap_or_else(|error| Diagnosis { lacks: vec![format!("{error:#}")], hooks: Vec::new() })
}

/// Insists that all run.
fn verdict(found: &[Found]) -> Result<()> {
    let ill: Vec<&str> =
        found.iter().filter(|found| !found.diagnosis.runs()).map(|found| found.name).collect();
    match ill[..] {
        [] => Ok(()),
        [tool] => Err(anyhow!("{tool} does not run here")),
        _ => Err(anyhow!("{} of {} tools do not run here: {}", ill.len(), found.len(), ill.join(", "))),
    }
}

/// A fact of the machine: its name for people, its key in JSON, and what is known of it.
struct Fact {
    name: &'static str,
    key: &'static str,
    value: Value,
}

enum Value {
    Text(Option<String>),
    Flag(bool),
    Bytes(Option<u64>),
}

fn facts() -> Vec<Fact> {
    let text = |name, key, value| Fact { name, key, value: Value::Text(value) };
    let flag = |name, key, value| Fact { name, key, value: Value::Flag(value) };
    let bytes = |name, key, value| Fact { name, key, value: Value::Bytes(value) };
    let (all, free) = machine::memory().unzip();
    vec![
        text("kernel", "kernel", machine::sysctl("kernel/osrelease")),
        text("architecture", "arch", Some(std::env::consts::ARCH.to_owned())),
        flag("BTF (CONFIG_DEBUG_INFO_BTF)", "btf", std::path::Path::new(btf::VMLINUX).exists()),
        flag("kprobes (CONFIG_KPROBES)", "kprobes", crate::probe::has_kprobes()),
        text("lockdown", "lockdown", machine::lockdown()),
        text("security modules", "lsm", machine::security_modules()),
        text("net.core.bpf_jit_enable", "bpf_jit_enable", machine::sysctl("net/core/bpf_jit_enable")),
        text(
            "kernel.unprivileged_bpf_disabled",
            "unprivileged_bpf_disabled",
            machine::sysctl("kernel/unprivileged_bpf_disabled"),
        ),
        text("kernel.kptr_restrict", "kptr_restrict", machine::sysctl("kernel/kptr_restrict")),
        bytes("memory", "memory_bytes", all),
        bytes("memory to be had", "memory_available_bytes", free),
        bytes("memory that may be locked", "memlock_bytes", machine::lockable()),
    ]
}

/// For people: the machine, then a line per way.
fn text(facts: &[Fact], found: &[Found]) -> String {
    let mut machine = Builder::new();
    for Fact { name, value, .. } in facts {
        let shown = match value {
            Value::Text(Some(text)) => escaped(text),
            Value::Text(None) | Value::Bytes(None) => "not shown".to_owned(),
            Value::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Value::Bytes(Some(u64::MAX)) => "all".to_owned(),
            Value::Bytes(Some(bytes)) => mebibytes(*bytes),
        };
        machine.push_record([(*name).to_owned(), shown]);
    }
    let mut tools = Builder::new();
    tools.push_record(["TOOL", "SEES", "BY", "HERE"]);
    for Found { name, diagnosis } in found {
        let mut line = |sees: &str, by: &str, here: &dyn Display| {
            tools.push_record([*name, sees, by, &escaped(here.to_string())]);
        };
        let runs = if diagnosis.runs() {
            format!("runs, with {} KiB of the kernel's memory", diagnosis.kernel_bytes().div_ceil(1024))
        } else if diagnosis.lacks.is_empty() {
            "does not run: no way works".to_owned()
        } else {
            format!("does not run: {}", diagnosis.lacks.join("; "))
        };
        line("", "", &runs);
        for hooks in &diagnosis.hooks {
            let option = if hooks.optional { " (an option)" } else { "" };
            for way in &hooks.ways {
                let here = match (state(hooks, way), &way.verdict) {
                    (_, Verdict::Lacks(why)) => format!("no: {why}"),
                    (_, Verdict::Unseen) => {
                        "perhaps: the kernel's BTF does not speak against it; to be sure, run this as root"
                            .into()
                    }
                    ("used", _) => match way.less_exact {
                        Some(what) => format!("used; {what}"),
                        None => "used".to_owned(),
                    },
                    (state, _) => state.to_owned(),
                };
                line(&format!("{}{option}", hooks.sees), way.rung.as_str(), &here);
            }
        }
    }
    format!("{}\n{}", plain(machine), plain(tools))
}

/// Columns two blanks apart, no lines.
fn plain(builder: Builder) -> String {
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What a way is here, in one word.
fn state(hooks: &Hooks, way: &Way) -> &'static str {
    match way.verdict {
        Verdict::Works if hooks.used().is_some_and(|used| std::ptr::eq(used, way)) => "used",
        Verdict::Works => "works",
        Verdict::Lacks(_) => "lacks",
        Verdict::Unseen => "unseen",
    }
}

/// For programs: all in one object.
fn json(facts: &[Fact], found: &[Found]) -> String {
    let machine = facts.iter().map(|Fact { key, value, .. }| {
        let value = match value {
            Value::Text(text) => text.as_deref().map_or_else(|| "null".to_owned(), string),
            Value::Flag(flag) => flag.to_string(),
            Value::Bytes(bytes) => bytes.map_or_else(|| "null".to_owned(), |bytes| bytes.to_string()),
        };
        (*key, value)
    });
    let tools = found.iter().map(|Found { name, diagnosis }| {
        object([
            ("tool", string(name)),
            ("runs", diagnosis.runs().to_string()),
            ("kernel_bytes", diagnosis.kernel_bytes().to_string()),
            ("lacks", array(diagnosis.lacks.iter().map(|why| string(why)))),
            ("hooks", array(diagnosis.hooks.iter().map(json_hooks))),
        ])
    });
    let runs = found.iter().all(|found| found.diagnosis.runs());
    object([("runs", runs.to_string()), ("machine", object(machine)), ("tools", array(tools))]) + "\n"
}

fn json_hooks(hooks: &Hooks) -> String {
    let ways = hooks.ways.iter().map(|way| {
        let why = if let Verdict::Lacks(why) = &way.verdict { string(why) } else { "null".to_owned() };
        object([
            ("by", string(way.rung.as_str())),
            ("state", string(state(hooks, way))),
            ("why", why),
            ("less_exact", way.less_exact.map_or_else(|| "null".to_owned(), string)),
        ])
    });
    object([("sees", string(hooks.sees)), ("optional", hooks.optional.to_string()), ("ways", array(ways))])
}

fn object(members: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(key, value)| format!("{}:{value}", string(key))).collect();
    format!("{{{}}}", members.join(","))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn string(text: &str) -> String {
    let mut buf = Vec::new();
    push_json_string(&mut buf, text);
    String::from_utf8(buf).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::hook::RungName;
    use crate::tool::demo;

    fn found() -> Vec<Found> {
        let way = |rung, verdict| Way { rung, less_exact: Some("less"), verdict, kernel_bytes: 3 << 19 };
        let ways = vec![
            way(RungName::Fexit, Verdict::Lacks("no\u{1b}function".into())),
            way(RungName::Kprobe, Verdict::Works),
            way(RungName::Tracepoint, Verdict::Works),
        ];
        let unseen = vec![way(RungName::Tracepoint, Verdict::Unseen)];
        let lacks = vec!["CAP_BPF is missing".to_owned()];
        let hooks = |sees, optional, ways| Hooks { sees, optional, ways };
        vec![
            Found {
                name: "tcpx",
                diagnosis: Diagnosis { lacks: vec![], hooks: vec![hooks("connects", false, ways)] },
            },
            Found { name: "tcpy", diagnosis: Diagnosis { lacks, hooks: vec![hooks("names", true, unseen)] } },
        ]
    }

    #[test]
    fn people_get_a_line_per_way() {
        let facts = [
            Fact { name: "kernel", key: "kernel", value: Value::Text(Some("6.1".into())) },
            Fact { name: "locked", key: "locked", value: Value::Bytes(None) },
        ];
        assert_eq!(
            text(&facts, &found()),
            "kernel  6.1\n\
             locked  not shown\n\
             \n\
             TOOL  SEES               BY          HERE\n\
             tcpx                                 runs, with 1536 KiB of the kernel's memory\n\
             tcpx  connects           fexit       no: no\\x1bfunction\n\
             tcpx  connects           kprobe      used; less\n\
             tcpx  connects           tracepoint  works\n\
             tcpy                                 does not run: CAP_BPF is missing\n\
             tcpy  names (an option)  tracepoint  perhaps: the kernel's BTF does not speak against it; to be sure, \
             run this as root\n"
        );
    }

    #[test]
    fn programs_get_one_object() {
        let facts = [Fact { name: "x", key: "btf", value: Value::Flag(true) }];
        let json: serde_json::Value = serde_json::from_str(&json(&facts, &found())).unwrap();
        assert_eq!(json["runs"], false);
        assert_eq!(json["machine"]["btf"], true);
        let ways = &json["tools"][0]["hooks"][0]["ways"];
        assert_eq!(ways[0]["why"], "no\u{1b}function");
        assert_eq!([&ways[0]["state"], &ways[1]["state"], &ways[2]["state"]], ["lacks", "used", "works"]);
        assert_eq!(json["tools"][1]["lacks"][0], "CAP_BPF is missing");
    }

    #[test]
    fn the_end_names_the_ill() {
        let mut found = found();
        assert_eq!(verdict(&found).unwrap_err().to_string(), "tcpy does not run here");
        found.pop();
        assert!(verdict(&found).is_ok());
    }

    #[test]
    fn a_tool_that_attaches_nothing_does_not_run() {
        let diagnosis = diagnose(&demo::TOOLS[0]);
        assert_eq!(diagnosis.lacks, ["it attaches nothing"]);
    }
}
