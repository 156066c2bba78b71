//! What the documents say is checked where a program can check it: that each promise has a test, and that decisions are
//! numbered.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The text in one line: where a document breaks its lines does not matter.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Our sources, with their names below the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the repository") {
            let entry = entry.expect("an entry");
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("a file").is_dir() {
                folders.push(name);
            } else if entry.path().extension().is_some_and(|is| is == "rs") {
                found.push((name.clone(), read(&name)));
            }
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let table = read("docs/promises.md");
    let reliable = read("README.md");
    let reliable = reliable.split("## What you can rely on").nth(1).expect("README has the section");
    let reliable = reliable.split("\n\nWhich test").next().unwrap_or_default();
    for point in reliable.split("\n* ").skip(1).map(flat) {
        let is_promised = |line: &str| {
            let promise = line.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
            point.contains(promise)
        };
        let promised = table.lines().filter(|line| line.starts_with("| ")).any(is_promised);
        assert!(promised, "docs/promises.md has no test of {point:?}");
    }
    let documents = ["README.md", "SECURITY.md"].map(|name| (name, flat(&read(name))));
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise ")) {
        if line.starts_with("| ---") {
            continue;
        }
        rows += 1;
        let cells = line.trim_matches(['|', ' ']).split_once(" | ");
        let (promise, tests) = cells.unwrap_or_else(|| panic!("a promise and its tests: {line}"));
        let promise = flat(promise);
        assert!(
            documents.iter().any(|(_, text)| text.contains(&promise)),
            "no document promises {promise:?}"
        );
        assert!(quoted(tests).count() > 0, "no test: {line}");
        for test in quoted(tests) {
            if test.starts_with("cargo xtask ") {
                continue;
            }
            let (file, name) = test.split_once(' ').unwrap_or_else(|| panic!("a file and a test: {test}"));
            let text = read(file);
            let there = [
                format!("fn {name}("),
                format!("\n{name}() {{"),
                format!("\n{name} = "),
                format!("const {name}:"),
            ];
            assert!(there.iter().any(|form| text.contains(form)), "{file} has no {name}");
        }
    }
    assert!(rows > 30, "{rows} rows");
}

#[test]
fn security_names_all_that_is_taken_from_the_environment() {
    let text = flat(&read("SECURITY.md"));
    let (_, list) = text.split_once("From its environment it takes ").expect("the sentence");
    let (list, _) = list.split_once(" ## ").expect("the part ends");
    // What it says in words.
    let in_words = [("TZ", "the time zone")];
    let said = quoted(list).filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let named = in_words.iter().filter(|(_, words)| list.contains(words)).map(|(name, _)| *name);
    let said: BTreeSet<String> = said.chain(named).map(Into::into).collect();
    let mut taken = BTreeSet::new();
    for (name, text) in sources("netbcc/src") {
        let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for way in ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("] {
            for rest in own.split(way).skip(1) {
                let wanted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (wanted, _) =
                    wanted.unwrap_or_else(|| panic!("{name}: {way} without a name that can be read here"));
                taken.insert(wanted.to_owned());
            }
        }
    }
    assert_eq!(said, taken, "SECURITY.md, and what the sources take");
}

#[test]
fn decisions_are_numbered_and_references_meet_one() {
    let text = read("ARCHITECTURE.md");
    let (_, decisions) = text.split_once("\n## Decisions and why\n").expect("a part of the document");
    let (decisions, _) = decisions.split_once("\n## ").expect("another part");
    let heads: Vec<&str> = decisions.lines().filter_map(|line| line.strip_prefix("**")).collect();
    for (number, head) in (1..).zip(&heads) {
        assert!(head.starts_with(&format!("D{number}. ")), "decision {number} begins with {head:?}");
    }
    let known: BTreeSet<String> = (1..=heads.len()).map(|number| format!("D{number}")).collect();
    let referred = ["netbcc/src", "netbcc-common/src", "probes-ebpf/src", "tests", "xtask/src"];
    let sources = referred.iter().flat_map(|folder| sources(folder));
    let mut count = 0;
    for (name, text) in sources.chain([("ARCHITECTURE.md".to_owned(), format!("ARCHITECTURE.md, {text}"))]) {
        let flat = flat(&text.replace("//!", " ").replace("///", " "));
        for part in flat.split("ARCHITECTURE.md, ").skip(1).filter(|part| part.starts_with('D')) {
            let number: String = part.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(known.contains(&number) || number == "D", "{name} refers to {number}");
            count += 1;
        }
    }
    assert!(count > 5, "{count} references");
}

/// Words for what only those have who wrote netbcc.
const NOT_HERE: [&str; 3] = ["design card", "beyond the card", "its specification"];

#[test]
fn nothing_points_to_what_is_not_in_the_repository() {
    let mut files: Vec<(String, String)> =
        ["Cargo.toml", "netbcc/Cargo.toml", "tests/Cargo.toml", "xtask/Cargo.toml"]
            .map(|name| (name.to_owned(), read(name)))
            .into();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of the repository") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|is| is == "md") {
                files.push((format!("{folder}{name}"), read(&format!("{folder}{name}"))));
            }
        }
    }
    for folder in ["netbcc/src", "netbcc-common/src", "probes-ebpf/src", "xtask/src"] {
        files.extend(sources(folder));
    }
    assert!(files.len() > 100, "{} files", files.len());
    for (name, text) in files {
        let text = flat(&text).to_lowercase();
        for words in NOT_HERE {
            assert!(!text.contains(words), "{name} speaks of {words:?}");
        }
    }
}

/// Ways to talk to other machines, and to start programs.
const FORBIDDEN: [&str; 8] = [
    "process::Command",
    "CommandExt",
    "socket::connect",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "lookup_host",
];

#[test]
fn no_tool_talks_to_the_network_or_starts_a_program() {
    for (name, text) in sources("netbcc/src") {
        // Tests may.
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for word in FORBIDDEN {
            let used =
                product.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(!used, "{name} uses {word}");
        }
        let starts =
            |line: &&str| line.starts_with("use ") && line.contains("process") && line.contains("Command");
        assert_eq!(product.lines().find(starts), None, "{name}");
    }
}

/// How a comment begins that says nothing without the one above it.
const LEANING: [&str; 8] =
    ["the same", "as above", "see above", "as before", "ditto", "likewise", "both of them", "the other one"];

#[test]
fn no_comment_needs_the_one_above_it() {
    for folder in ["netbcc/src", "netbcc-common/src", "probes-ebpf/src", "xtask/src", "tests"] {
        for (name, text) in sources(folder) {
            let mut before = "";
            for (nth, line) in text.lines().map(str::trim).enumerate() {
                let is_first = !before.starts_with("//");
                before = line;
                let Some(words) = line.strip_prefix("//").filter(|_| is_first) else { continue };
                let words = words.trim_start_matches(['/', '!']).trim().to_ascii_lowercase();
                let leans = words.ends_with('.')
                    && words.split(' ').count() <= 4
                    && LEANING.iter().any(|start| words.starts_with(start));
                assert!(!leans, "{name}, line {}: {line:?} says nothing by itself", nth + 1);
            }
        }
    }
}

/// Where each tool has to stand, besides its four files, and what is to be added there.
const PLACES: [(&str, &str); 7] = [
    ("README.md", "its row in the table of tools"),
    ("docs/which-tool.md", "the question that it answers"),
    ("CHANGELOG.md", "a line for its users"),
    ("tests/kernel/main.rs", "its list of checks"),
    ("tests/golden.rs", "its rows, from events made by hand"),
    ("tests/fuzz/targets/events.rs", "its event, for the fuzz target"),
    ("xtask/src/bench/subjects.rs", "its load and its budget"),
];

#[test]
fn every_tool_stands_in_each_place_that_a_tool_needs() {
    let registry = read("netbcc/src/registry.rs");
    let tools =
        registry.lines().filter_map(|line| line.strip_prefix("use crate::tools::")?.split("::").next());
    let mut count = 0;
    for tool in tools {
        count += 1;
        for file in ["netbcc-common/src", "probes-ebpf/src/bin", "netbcc/src/tools", "tests/kernel"] {
            let file = format!("{file}/{tool}.rs");
            assert!(root().join(&file).exists(), "{tool} lacks {file}: see docs/adding-a-tool.md");
        }
        for (file, what) in PLACES {
            let text = read(file);
            let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            assert!(words.any(|word| word == tool), "{file} lacks {tool}: {what}");
        }
    }
    assert_eq!(count, registry.matches("    entry::<").count(), "a tool of the list was not looked at");
}

#[test]
fn imports_go_only_to_rooms_behind() {
    let architecture = read("ARCHITECTURE.md");
    let line = architecture.lines().find(|line| line.starts_with("`registry` ")).expect("the line of rooms");
    let rooms: Vec<&str> = quoted(line).collect();
    let place = |room: &str| {
        let found = rooms.iter().position(|known| *known == room);
        found.unwrap_or_else(|| panic!("ARCHITECTURE.md names no room {room:?}"))
    };
    let mut looked_at = 0;
    for (name, text) in sources("netbcc/src") {
        let room = name.trim_start_matches("netbcc/src/").split(['/', '.']).next().unwrap_or_default();
        // The library's face, and what only tests have.
        if ["lib", "main", "demo"].contains(&room) {
            continue;
        }
        let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = own.lines().filter(|line| !line.trim_start().starts_with("//"));
        for path in code.flat_map(|line| line.split("crate::").skip(1)) {
            let other = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            assert!(other == room || place(room) < place(other), "{name} must not import {other}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 100, "{looked_at} imports");
}
