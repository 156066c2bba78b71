//! `netbcc doctor`: which tools run on this machine, in which way, and what the other ways lack.
//!
//! Each tool is started as it starts by itself, up to the place where it would begin to trace: there its plan tries
//! every way and takes it back ([`Purpose::Diagnose`]). So nothing is said here that a tool does not find, too
//! (ARCHITECTURE.md, D4).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use anyhow::{Error, Result, anyhow};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::args::{parse_args, print};
use super::verbs;
use crate::out::{Clock, Format, Out, escaped, push_json_string};
use crate::probe::{Diagnosis, Hooks, Verdict, Way};
use crate::sys::{btf, machine};
use crate::tool::{Ctx, Entry, Purpose};

/// What a tool must be told to start, if it must be told something.
const LEAST: &[(&str, &[&str])] = &[("netqtop", &["--name", "lo"])];

/// Looks, prints, and fails if a tool does not run.
pub(super) fn examine(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = parse_args(verbs::doctor(tools), args)? else { return Ok(()) };
    let asked = verbs::tool(&matches, tools).map_or(tools, std::slice::from_ref);
    let facts = facts();
    let found: Vec<Found> =
        asked.iter().map(|entry| Found { name: entry.spec.name, diagnosis: diagnose(entry) }).collect();
    let look = Look::of_stdout();
    print(match (matches.get_flag("json"), matches.get_flag("verbose") || asked.len() < tools.len()) {
        (true, _) => json(&facts, &found),
        (false, true) => details(&facts, &found, look),
        (false, false) => summary(&facts, &found, look),
    })?;
    verdict(&found)
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

impl Fact {
    /// Its value, for people.
    fn shown(&self) -> String {
        match &self.value {
            Value::Text(Some(text)) => escaped(text),
            Value::Text(None) | Value::Bytes(None) => "not shown".to_owned(),
            Value::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Value::Bytes(Some(u64::MAX)) => "all".to_owned(),
            Value::Bytes(Some(bytes)) => mebibytes(*bytes),
        }
    }
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

/// How what is for people looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Columns of the terminal.
    width: usize,
    /// Whether words may have a colour.
    colour: bool,
}

impl Look {
    /// That of standard output. What is no terminal gets 80 columns and no colour; `NO_COLOR` takes it from all.
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            // Narrower than that, a word a line would be all that fits.
            width: if columns == 0 { 80 } else { columns.max(40) },
            colour: stdout.is_terminal() && !unwanted,
        }
    }

    /// Whether a tool runs, in words.
    fn verdict(self, runs: bool) -> String {
        let (word, colour) = if runs { ("runs", "32") } else { ("does not run", "31") };
        if self.colour { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
    }

    /// Appends a line: `head`, then `words` with that indent, broken where the terminal ends. The verdict stands before
    /// the words, whose colour has no width.
    fn push(self, text: &mut String, head: &str, indent: usize, verdict: Option<bool>, words: &str) {
        let mut at = head.chars().count().max(indent);
        let _ = write!(text, "{head:indent$}");
        let mut first = true;
        if let Some(runs) = verdict {
            text.push_str(&self.verdict(runs));
            at += if runs { "runs" } else { "does not run" }.len();
            first = words.starts_with([',', ';', ':']);
        }
        for word in words.split_whitespace() {
            let long = word.chars().count();
            if !first && at + 1 + long > self.width {
                text.push('\n');
                text.extend(std::iter::repeat_n(' ', indent));
                at = indent;
                first = true;
            }
            if !first {
                text.push(' ');
                at += 1;
            }
            text.push_str(word);
            at += long;
            first = false;
        }
        text.push('\n');
    }
}

/// For people in a hurry: how many tools run, then a line per tool.
fn summary(facts: &[Fact], found: &[Found], look: Look) -> String {
    let runs = found.iter().filter(|found| found.diagnosis.runs()).count();
    let less = found.iter().filter(|found| found.diagnosis.runs() && !sees_less(&found.diagnosis).is_empty());
    let see_less = match less.count() {
        0 => String::new(),
        1 => "; 1 sees less, see below".to_owned(),
        several => format!("; {several} see less, see below"),
    };
    let kernel = facts.iter().find(|fact| fact.key == "kernel").map_or_else(String::new, Fact::shown);
    let mut text = String::new();
    let first = format!("{runs} of {} tools run here, on kernel {kernel}{see_less}.", found.len());
    look.push(&mut text, "", 0, None, &first);
    text.push('\n');
    let indent = found.iter().map(|found| found.name.len()).max().unwrap_or_default() + 2;
    for Found { name, diagnosis } in found {
        let less = sees_less(diagnosis);
        let words = match why_not(diagnosis) {
            Some(why) => format!(": {why}"),
            None if less.is_empty() => String::new(),
            None => format!(", but sees less: {}", less.join("; ")),
        };
        look.push(&mut text, name, indent, Some(diagnosis.runs()), &escaped(words));
    }
    text.push('\n');
    let more =
        "'netbcc doctor -v' says what each way to attach lacks, 'netbcc doctor TOOL' says it of one tool.";
    look.push(&mut text, "", 0, None, more);
    text
}

/// What the tool does not see in the ways that it goes here. What only an option asks for is left to the details.
fn sees_less(diagnosis: &Diagnosis) -> Vec<&'static str> {
    let used = diagnosis.hooks.iter().filter(|hooks| !hooks.optional).filter_map(Hooks::used);
    used.filter_map(|way| way.less_exact).map(|less| less.short).collect()
}

/// Why a tool does not run.
fn why_not(diagnosis: &Diagnosis) -> Option<String> {
    match () {
        () if diagnosis.runs() => None,
        () if !diagnosis.lacks.is_empty() => Some(diagnosis.lacks.join("; ")),
        () => {
            let stopped = diagnosis.hooks.iter().filter(|hooks| !hooks.optional).find_map(Hooks::stopped);
            Some(stopped.unwrap_or("no way to attach works").to_owned())
        }
    }
}

/// For people who want to know everything: the machine, then each way of each tool.
fn details(facts: &[Fact], found: &[Found], look: Look) -> String {
    let mut machine = Builder::new();
    for fact in facts {
        let mut name = fact.name;
        // A list of security modules is longer than a line.
        for part in fact.shown().split(',').collect::<Vec<_>>().chunks(4) {
            machine.push_record([name.to_owned(), part.join(",")]);
            name = "";
        }
    }
    let mut text = plain(machine);
    for Found { name, diagnosis } in found {
        text.push('\n');
        let words = match why_not(diagnosis) {
            Some(why) => format!(": {why}"),
            None => format!(", with {} KiB of the kernel's memory", diagnosis.kernel_bytes().div_ceil(1024)),
        };
        look.push(&mut text, &format!("{name}  "), 4, Some(diagnosis.runs()), &escaped(words));
        for hooks in &diagnosis.hooks {
            let option = if hooks.optional { ", for an option" } else { "" };
            look.push(&mut text, "", 2, None, &format!("{}{option}, by:", hooks.sees));
            for way in &hooks.ways {
                let here = match (state(hooks, way), &way.verdict) {
                    (_, Verdict::Lacks(why)) => format!("no: {why}"),
                    (_, Verdict::Stops(why)) => format!("no, and the tool ends: {why}"),
                    (_, Verdict::Unseen) => {
                        "perhaps: the kernel's BTF does not speak against it; to be sure, run this as root"
                            .into()
                    }
                    ("used", _) => match way.less_exact {
                        Some(what) => format!("used; less exact: {what}"),
                        None => "used".to_owned(),
                    },
                    (state, _) => state.to_owned(),
                };
                let way = format!("    {}", way.rung.as_str());
                look.push(&mut text, &way, 16, None, &escaped(here));
            }
        }
    }
    text
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
        Verdict::Stops(_) => "stops",
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
        let why = match &way.verdict {
            Verdict::Lacks(why) | Verdict::Stops(why) => string(why),
            Verdict::Works | Verdict::Unseen => "null".to_owned(),
        };
        object([
            ("by", string(way.rung.as_str())),
            ("state", string(state(hooks, way))),
            ("why", why),
            ("less_exact", way.less_exact.map_or_else(|| "null".to_owned(), |less| string(less.short))),
            (
                "less_exact_detail",
                way.less_exact.map_or_else(|| "null".to_owned(), |less| string(less.detail)),
            ),
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
    use crate::demo;
    use crate::hook::{LessExact, RungName};

    fn found() -> Vec<Found> {
        let less = LessExact::new("less").detail("That is few.");
        let way = |rung, verdict| Way { rung, less_exact: Some(less), verdict, kernel_bytes: 3 << 19 };
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

    const PLAIN: Look = Look { width: 60, colour: false };

    fn facts() -> [Fact; 2] {
        [
            Fact { name: "kernel", key: "kernel", value: Value::Text(Some("6.1".into())) },
            Fact { name: "locked", key: "locked", value: Value::Bytes(None) },
        ]
    }

    #[test]
    fn people_get_a_summary_and_a_line_per_tool() {
        let text = summary(&facts(), &found(), PLAIN);
        assert_eq!(
            text,
            "1 of 2 tools run here, on kernel 6.1; 1 sees less, see\n\
             below.\n\
             \n\
             tcpx  runs, but sees less: less\n\
             tcpy  does not run: CAP_BPF is missing\n\
             \n\
             'netbcc doctor -v' says what each way to attach lacks,\n\
             'netbcc doctor TOOL' says it of one tool.\n"
        );
        let coloured = summary(&facts(), &found(), Look { colour: true, ..PLAIN });
        assert!(coloured.contains("tcpx  \x1b[32mruns\x1b[0m, but"), "{coloured:?}");
        assert!(coloured.contains("tcpy  \x1b[31mdoes not run\x1b[0m: CAP"), "{coloured:?}");
        let bare = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(bare, text);
    }

    #[test]
    fn people_who_ask_get_every_way() {
        assert_eq!(
            details(&facts(), &found(), PLAIN),
            "kernel  6.1\n\
             locked  not shown\n\
             \n\
             tcpx  runs, with 1536 KiB of the kernel's memory\n  \
               connects, by:\n    \
                 fexit       no: no\\x1bfunction\n    \
                 kprobe      used; less exact: less. That is few.\n    \
                 tracepoint  works\n\
             \n\
             tcpy  does not run: CAP_BPF is missing\n  \
               names, for an option, by:\n    \
                 tracepoint  perhaps: the kernel's BTF does not speak\n                \
                             against it; to be sure, run this as root\n"
        );
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        let mut found = found();
        let many = "word of a length ".repeat(40);
        found[1].diagnosis.lacks = vec![many];
        for width in [40, 79, 80, 200] {
            for text in [
                summary(&facts(), &found, Look { width, colour: false }),
                details(&facts(), &found, Look { width, colour: false }),
            ] {
                for line in text.lines() {
                    assert!(line.len() <= width && line.trim_end() == line, "{width}: {line:?}");
                }
            }
        }
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
        assert_eq!([&ways[1]["less_exact"], &ways[1]["less_exact_detail"]], ["less", "That is few."]);
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
