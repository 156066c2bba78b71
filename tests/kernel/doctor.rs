//! `netbcc doctor`: what it says is what the tools find.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, Rung, least, refusal_of};
use netbcc_tests::net::Net;
use netbcc_tests::run::{Copy, Launch};
use serde_json::Value;

use crate::engine::tools;

/// Alone, for all tools are loaded on all rungs: seconds of work where a processor is emulated.
pub(crate) const CHECKS: &[Check] = checks![
    it_names_the_way_that_each_tool_goes: alone,
    the_summary_has_a_line_per_tool: alone,
    the_details_have_a_line_per_way: alone,
    one_tool_can_be_asked_for: alone,
];

/// What depends on the kernel.
pub(crate) const ANY: &[Check] = checks![
    a_way_works_if_the_tool_can_be_forced_to_it: alone,
    an_ordinary_user_is_told_what_cannot_be_seen: alone,
];

/// The tools that this kernel cannot run. 5.10 has kprobes only: its other programs keep nothing with a socket, and tcpwhy has no
/// other way.
fn lacking() -> &'static [&'static str] {
    if std::env::var("NETBCC_EXPECT_RUNGS").is_ok_and(|rungs| rungs == "kprobe,uprobe") {
        &["tcpwhy"]
    } else {
        &[]
    }
}

/// Doctor's exit code where it is asked for these tools.
fn code(mut tools: impl Iterator<Item = &'static str>) -> i32 {
    tools.any(|tool| lacking().contains(&tool)).into()
}

/// What doctor says of everything, asked once.
fn everything() -> &'static Value {
    static EVERYTHING: LazyLock<Value> =
        LazyLock::new(|| parsed(Launch::new("doctor", "--json").ends().code(code(tools()))));
    &EVERYTHING
}

fn parsed(ended: &Ended) -> Value {
    let [line] = &ended.stdout[..] else { ended.fail("JSON is one line") };
    serde_json::from_str(line).unwrap_or_else(|error| ended.fail(&error.to_string()))
}

/// The items of an array.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or_else(|| panic!("no array: {value}"), |items| &items[..])
}

/// Name of a tool, what is seen, name of a way, its state.
fn ways(answer: &Value) -> Vec<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let mut ways = Vec::new();
    for tool in items(&answer["tools"]) {
        for hooks in items(&tool["hooks"]).iter().filter(|hooks| hooks["optional"] == false) {
            for way in items(&hooks["ways"]) {
                ways.push((text(&tool["tool"]), text(&hooks["sees"]), text(&way["by"]), text(&way["state"])));
            }
        }
    }
    ways
}

fn it_names_the_way_that_each_tool_goes(_: &Case) {
    let ended = Launch::new("doctor", "--json").ends();
    ended.code(code(tools()));
    let told: Vec<String> =
        lacking().iter().map(|tool| format!("netbcc: {tool} does not run here")).collect();
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), told);
    let answer = parsed(&ended);
    assert_eq!(answer["runs"], lacking().is_empty());
    assert_eq!(answer["machine"]["btf"], true);
    let said: BTreeMap<(String, String), String> = ways(&answer)
        .into_iter()
        .filter(|(.., state)| state == "used")
        .map(|(tool, sees, by, _)| ((tool, sees), by))
        .collect();
    let mut found = BTreeMap::new();
    for tool in tools().filter(|tool| !lacking().contains(tool)) {
        let net = Net::new();
        let run = Launch::new(tool, least(tool)).env("NETBCC_LOG", "debug").start(&net);
        for line in run.stop().stderr.lines() {
            let words = line.strip_prefix(&format!("{tool}: ")).unwrap_or_default();
            if let Some((sees, by)) = words.split_once(": attached by ") {
                found.insert((tool.to_owned(), sees.to_owned()), by.to_owned());
            }
        }
    }
    assert_eq!(said, found);
    // Its option -d, too, also under lockdown.
    let tools_said = items(&answer["tools"]);
    let tcpconnect = tools_said.iter().find(|tool| tool["tool"] == "tcpconnect").expect("it is one");
    for hooks in items(&tcpconnect["hooks"]) {
        assert!(items(&hooks["ways"]).iter().any(|way| way["state"] == "used"), "{hooks}");
    }
    // An error has a name or a number; the kernel's own, such as ENOTSUPP, too.
    assert!(!ended.stdout[0].contains("os error 0"), "{}", ended.stdout[0]);
    for tool in items(&answer["tools"]) {
        if lacking().iter().any(|lacking| tool["tool"] == *lacking) {
            continue;
        }
        let bytes = tool["kernel_bytes"].as_u64().expect("a number");
        assert!((4096..64 << 20).contains(&bytes), "{tool}");
    }
}

fn a_way_works_if_the_tool_can_be_forced_to_it(_: &Case) {
    let ways = ways(everything());
    for tool in tools() {
        for rung in [Rung::Fexit, Rung::Kprobe, Rung::Tracepoint, Rung::RawTp, Rung::Uprobe] {
            // Each of the tool's hooks must have it.
            let mut hooks = BTreeMap::new();
            for (_, sees, by, state) in ways.iter().filter(|way| way.0 == tool) {
                let works = by == rung.name() && (state == "used" || state == "works");
                *hooks.entry(sees).or_insert(false) |= works;
            }
            let works = !hooks.is_empty() && hooks.values().all(|works| *works);
            let refusal = refusal_of(Case { tool, rung });
            assert_eq!(works, refusal.is_none(), "{tool} by {}: {refusal:?}", rung.name());
        }
    }
}

fn the_summary_has_a_line_per_tool(_: &Case) {
    let ended = Launch::new("doctor", "").ends();
    ended.code(code(tools()));
    let count = tools().count();
    if !ended.stdout[0].starts_with(&format!("{} of {count} tools run here", count - lacking().len())) {
        ended.fail("the first line says how many run");
    }
    for tool in tools().filter(|tool| !lacking().contains(tool)) {
        let lines = ended.stdout.iter().filter(|line| line.starts_with(&format!("{tool} ")));
        if !lines.clone().all(|line| line.contains(" runs")) || lines.count() != 1 {
            ended.fail(&format!("one line says that {tool} runs"));
        }
    }
    if let Some(long) = ended.stdout.iter().find(|line| line.chars().count() > 80 || line.contains('\x1b')) {
        ended.fail(&format!("not for a pipe: {long:?}"));
    }
}

fn the_details_have_a_line_per_way(_: &Case) {
    let ended = Launch::new("doctor", "-v").ends();
    ended.code(code(tools()));
    let answer = everything();
    let (mut tool, mut sees) = ("", "");
    let mut told = Vec::new();
    for line in &ended.stdout {
        if let Some(words) = line.strip_prefix("    ").filter(|words| !words.starts_with(' ')) {
            told.push((tool, sees, words));
        } else if let Some(words) = line.strip_prefix("  ").filter(|words| !words.starts_with(' ')) {
            sees = words.split([',', ':']).next().unwrap_or_default();
        } else if let Some(name) = tools().find(|name| line.starts_with(&format!("{name}  "))) {
            tool = name;
        }
    }
    for (tool, sees, by, state) in ways(answer) {
        let state = if state == "lacks" { "no: " } else { &state };
        let fits = |(a, b, words): &&(&str, &str, &str)| {
            *a == tool && *b == sees && words.starts_with(&by) && words.contains(state)
        };
        if !told.iter().any(|entry| fits(&entry)) {
            ended.fail(&format!("no line says that {tool} sees {sees} by {by}: {state}"));
        }
    }
    if let Some(long) = ended.stdout.iter().find(|line| line.chars().count() > 80) {
        ended.fail(&format!("more than 80 columns: {long:?}"));
    }
}

fn one_tool_can_be_asked_for(_: &Case) {
    for tool in tools() {
        let ended = Launch::new("doctor", &format!("{tool} --json")).ends();
        let answer = parsed(ended.code(code([tool].into_iter())));
        let [only] = items(&answer["tools"]) else { ended.fail("one tool") };
        assert_eq!(only["tool"], tool);
    }
}

fn an_ordinary_user_is_told_what_cannot_be_seen(_: &Case) {
    let copy = Copy::new();
    let all = everything();
    let ended = Launch::new("doctor", "--json").program(copy.path()).user(65_534).ends();
    ended.code(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let answer = parsed(&ended);
    assert_eq!(answer["runs"], false);
    for tool in items(&answer["tools"]) {
        assert_eq!(tool["lacks"][0], "CAP_BPF and CAP_PERFMON are missing", "{tool}");
        assert!(!items(&tool["hooks"]).is_empty(), "{tool}");
    }
    let (known, seen) = (ways(all), ways(&answer));
    assert_eq!(known.len(), seen.len());
    for (way, user) in known.iter().zip(&seen) {
        // Nothing is claimed, and nothing that works is denied.
        assert!(user.3 == "unseen" || user.3 == "lacks", "{user:?}");
        assert!(user.3 == "unseen" || way.3 == "lacks", "{way:?} and {user:?}");
    }
    // What is missing without doubt is seen by anybody.
    if answer["machine"]["kprobes"] == false {
        // A rung of iterators alone is there without them.
        let by_kprobe = known.iter().zip(&seen).filter(|(way, _)| way.2 == "kprobe" && way.3 == "lacks");
        assert!(by_kprobe.clone().next().is_some());
        for (_, user) in by_kprobe {
            assert_eq!(user.3, "lacks", "{user:?}");
        }
    }
}
