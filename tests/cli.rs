//! The command line of the real binary: help, names, links, options and what is wrong with them.
//!
//! Nothing here needs root, and nothing here may get as far as loading a program: what is refused is refused before.

mod docs;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netbcc::options::select;
use netbcc_tests::laws::{Laws, consistent, nanoseconds, now};
use netbcc_tests::run::binary;
use netbcc_tests::schema::Schema;
use nix::time::ClockId;
use serde_json::json;

/// Nothing here takes longer; a tool that runs on has accepted what it should have refused.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command line of netbcc, under a fixed environment.
fn command(program: impl AsRef<OsStr>) -> Command {
    assert!(binary().exists(), "there is no {}: build it, or say NETBCC_BIN=PATH", binary().display());
    let mut command = Command::new(program);
    for name in ["NETBCC_ATTACH", "NETBCC_LOG", "NETBCC_READY_FD", "COLUMNS", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end, or fails.
fn run(command: &mut Command) -> Output {
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    end_of(child, &format!("{command:?}"))
}

fn end_of(mut child: Child, what: &str) -> Output {
    let deadline = Instant::now() + PATIENCE;
    // Meanwhile, for a pipe may hold less than it writes.
    let (stdout, stderr) = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    let is_late = loop {
        if child.try_wait().expect("it is our child").is_some() {
            break false;
        }
        if Instant::now() > deadline {
            child.kill().expect("it is our child");
            break true;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let status = child.wait().expect("it is our child");
    let [stdout, stderr] = [stdout, stderr].map(|pipe| pipe.join().expect("its pipes can be read"));
    let output = Output { status, stdout, stderr };
    assert!(!is_late, "{what}: still runs; {output:?}");
    output
}

/// What comes out of a pipe, if there is one, read by a thread of its own.
fn all_of(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("its pipes can be read");
        }
        bytes
    })
}

fn netbcc(args: &[&str]) -> Output {
    run(command(binary()).args(args))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// What a call prints that must go well.
#[track_caller]
fn prints(args: &[&str]) -> String {
    let output = netbcc(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    assert_eq!(text(&output.stderr), "", "{args:?}");
    text(&output.stdout).to_owned()
}

/// Insists on a refusal: this exit code, nothing on stdout, one line on stderr that starts with this name.
#[track_caller]
fn refused(output: &Output, code: i32, name: &str, what: &str) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{what}");
    assert!(stderr.starts_with(&format!("{name}: ")), "{what}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr:?}");
    assert!(stderr.ends_with('\n'), "{what}: {stderr:?}");
    stderr.to_owned()
}

/// Insists that a tool refuses these arguments as a wrong use.
#[track_caller]
fn wrong_use(tool: &str, args: &[&str]) -> String {
    let words = [&[tool], args].concat();
    refused(&netbcc(&words), 2, tool, &format!("{words:?}"))
}

/// Insists that a tool accepts these arguments. `--ebpf` makes it stop after having read them.
#[track_caller]
fn accepted(tool: &str, args: &[&str]) {
    let words = [&[tool], args, &["--ebpf"]].concat();
    assert!(prints(&words).starts_with(&format!("{tool}: ")), "{words:?}");
}

/// The tools, as the binary lists them.
fn tools() -> Vec<String> {
    prints(&["--list"]).lines().map(Into::into).collect()
}

/// A tool's help when its user calls it by a link of this name.
fn help_by(tool: &str, link: &str) -> String {
    prints(&[tool, "--help"]).replace(&format!("netbcc {tool}"), link)
}

fn fixture(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(tool).join("help.txt")
}

/// Compares with a fixture; `UPDATE_EXPECT=1` makes the fixture say what the binary says.
#[track_caller]
fn matches_fixture(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().expect("fixtures have a folder")).expect("it can be made");
        fs::write(path, actual).expect("the fixture can be written");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs (UPDATE_EXPECT=1 rewrites it)\n---- expected ----\n{expected}\n---- actual ----\n{actual}\n----",
        path.display()
    );
}

#[test]
fn the_help_of_each_tool_is_its_fixture() {
    for tool in tools() {
        let help = prints(&[&tool, "--help"]);
        matches_fixture(&fixture(&tool), &help);
        assert_eq!(prints(&[&tool, "-h"]), help);
        assert_eq!(prints(&["help", &tool]), help);
    }
}

#[test]
fn every_tool_lists_its_columns_and_refuses_others_before_anything_is_loaded() {
    for tool in tools() {
        let list = prints(&[&tool, "-o", "help"]);
        assert_eq!(prints(&[&tool, "--output=help", "--json"]), list);
        assert!(list.lines().any(|line| line.starts_with("ts_ns ")), "{list}");
        assert!(list.lines().all(|line| line.chars().count() < 80 && line.trim_end() == line), "{list}");
        let refused = |words: &str, expected: &str| {
            let output = run(command(binary()).arg(&tool).args(["-o", words]));
            assert_eq!(output.status.code(), Some(2), "{tool} -o {words:?}");
            let said = text(&output.stderr);
            assert!(said.starts_with(&format!("{tool}: -o: ")) && said.contains(expected), "{said}");
            assert_eq!((said.lines().count(), text(&output.stdout)), (1, ""), "{said}");
        };
        refused("ts_n", "did you mean 'ts_ns'?");
        refused("+frobnicate", "no column is called 'frobnicate'; there are ");
        refused("", "the name of a column is empty");
        refused("ts_ns,,", "the name of a column is empty");
    }
    let refused = |words: &[&str], expected: &str| {
        let output = run(command(binary()).args(words));
        assert_eq!(
            (output.status.code(), text(&output.stderr).contains(expected)),
            (Some(2), true),
            "{words:?}"
        );
    };
    refused(&["tcpconnect", "-o", "query"], "column 'query' is not known in this run: add -d");
    refused(&["tcpconnect", "-c", "-o", "comm"], "no column is called 'comm'");
    refused(&["tcpsubnet", "-J", "-o", "bytes"], "has no columns");
    refused(&["softirqs", "-d", "-o", "count"], "has no columns");
    refused(&["tcpcong", "-d", "-o", "count"], "a histogram has no columns: -o is for --json");
    refused(&["tcpsynbl", "-o", "count"], "a histogram has no columns: -o is for --json");
    refused(&["tcprtt", "-o", "count"], "a histogram has no columns: -o is for --json");
    refused(&["tcprtt", "--min", "-o", "min_rtt_us"], "a histogram has no columns: -o is for --json");
}

#[test]
fn help_fits_into_80_columns_and_hides_what_is_not_for_users() {
    for tool in tools() {
        let help = prints(&[&tool, "--help"]);
        for line in help.lines() {
            assert!(line.chars().count() < 80, "{tool}: {line:?}");
            assert_eq!(line.trim_end(), line, "{tool}");
        }
        assert!(!help.contains("--ebpf"), "{tool}");
        assert!(!help.contains('\x1b'), "{tool}");
        assert!(help.contains("Examples:") && help.contains("NETBCC_ATTACH"), "{tool}");
    }
}

#[test]
fn help_does_not_depend_on_the_environment() {
    let mut wide = command(binary());
    let output = run(wide.args(["tcpconnect", "--help"]).env("COLUMNS", "200").env("CLICOLOR_FORCE", "1"));
    assert_eq!(text(&output.stdout), prints(&["tcpconnect", "--help"]));
}

#[test]
fn the_list_names_every_tool_and_what_it_does() {
    let list = prints(&["--list", "-v"]);
    assert_eq!(prints(&["--list", "--verbose"]), list);
    assert_eq!(list.lines().count(), tools().len());
    for line in list.lines() {
        let (tool, about) = line.split_once(' ').expect("a name and what it does");
        assert_eq!(prints(&[tool, "--help"]).lines().next(), Some(about.trim()));
    }
    let tools = tools();
    assert!(tools.is_sorted(), "{tools:?}");
    assert!(tools.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric())), "{tools:?}");
    let json = prints(&["--list", "--json"]);
    let objects: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(
        objects.iter().map(|object| object["tool"].as_str()).eq(tools.iter().map(|name| Some(&name[..])))
    );
    assert!(objects.iter().all(|object| object["about"].is_string()));
    for tool in ["tcpconnect", "tcplife"] {
        assert!(tools.iter().any(|name| name == tool), "{tools:?}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(prints(&["--version"]), format!("netbcc {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(prints(&["-V"]), prints(&["--version"]));
    for tool in tools() {
        let version = format!("{tool} (netbcc) {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(prints(&[&tool, "--version"]), version);
        assert_eq!(prints(&[&tool, "-V"]), version);
    }
}

#[test]
fn netbcc_alone_says_how_it_is_called() {
    let help = prints(&[]);
    assert!(help.contains("Usage: netbcc TOOL"), "{help}");
    assert_eq!(prints(&["--help"]), help);
    assert_eq!(prints(&["-h"]), help);
    assert_eq!(prints(&["help"]), help);
    for verb in VERBS.into_iter().filter(|verb| *verb != "help") {
        let help = prints(&[verb, "--help"]);
        for word in ["help", "-h", "--help"] {
            assert_eq!(prints(&[word, verb]), help);
        }
    }
    for word in ["-h", "--help"] {
        assert_eq!(prints(&[word, "tcplife"]), prints(&["help", "tcplife"]));
    }
}

#[test]
fn help_says_what_its_reader_types() {
    for tool in tools() {
        let help = prints(&[&tool, "--help"]);
        let bare = help.lines().find(|line| line.trim_start().starts_with(&format!("{tool} -")));
        assert_eq!(bare, None, "{tool}");
        assert!(help.contains(&format!("Usage: netbcc {tool} ")), "{help}");
        let line = wrong_use(&tool, &["--frobnicate"]);
        assert!(line.contains(&format!("(try 'netbcc {tool} --help')")), "{line}");
    }
}

#[test]
fn a_link_whose_name_is_no_tools_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, meant) in [("opensnoop", ""), ("tcplif", "tcplife"), ("opensnoop.py", ""), ("netbccx", "")] {
        let link = dir.path().join(name);
        symlink(binary(), &link).expect("a link");
        for args in [&[][..], &["-t"], &["--help"], &["--list"], &["--version"], &["1", "10"]] {
            let said = refused(&run(command(&link).args(args)), 2, "netbcc", name);
            assert!(said.contains(&format!("'{name}'")) && said.contains(meant), "{said}");
        }
    }
}

#[test]
fn a_word_of_netbcc_log_that_means_nothing_is_refused() {
    let level = |level: &str, attach: &str| {
        run(command(binary()).arg("tcplife").env("NETBCC_LOG", level).env("NETBCC_ATTACH", attach))
    };
    let line = refused(&level("foo", ""), 2, "tcplife", "NETBCC_LOG=foo");
    assert!(line.contains("NETBCC_LOG=foo") && line.contains("debug"), "{line}");
    for good in ["", "debug"] {
        // The other variable stops it before it loads anything.
        assert!(!text(&level(good, "magic").stderr).contains("NETBCC_LOG"), "{good}");
    }
}

#[test]
fn a_link_named_after_a_tool_is_that_tool() {
    let dir = tempfile::tempdir().expect("a directory");
    for tool in tools() {
        let help = prints(&[&tool, "--help"]);
        for name in [tool.clone(), format!("netbcc-{tool}"), format!("{tool}-bpfcc"), format!("{tool}.py")] {
            let help = help.replace(&format!("netbcc {tool}"), &name);
            let link = dir.path().join(&name);
            symlink(binary(), &link).expect("a link");
            let absolute = run(command(&link).arg("--help"));
            let relative = run(command(format!("./{name}")).arg("--help").current_dir(dir.path()));
            let by_path = run(command(&name).arg("--help").env("PATH", dir.path()));
            for output in [absolute, relative, by_path] {
                assert_eq!(text(&output.stdout), help, "{name}: {output:?}");
                assert_eq!(output.status.code(), Some(0), "{name}");
            }
        }
    }
}

#[test]
fn a_link_to_a_link_counts_by_its_own_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (dir.path().join("tcpconnect"), dir.path().join("tcplife"));
    symlink(binary(), &first).expect("a link");
    symlink(&first, &second).expect("a link");
    let output = run(command(&second).arg("--help"));
    assert_eq!(text(&output.stdout), help_by("tcplife", "tcplife"));
}

#[test]
fn a_folder_named_after_a_tool_means_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("tcplife");
    fs::create_dir(&folder).expect("a directory");
    let link = folder.join("netbcc");
    symlink(binary(), &link).expect("a link");
    assert_eq!(text(&run(command(&link).arg("--version")).stdout), prints(&["--version"]));
}

#[test]
fn only_whole_names_count() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["mytcplife", "tcplife2", "bcc-tcplife", "tcplif", "netbcc", "nb"] {
        let link = dir.path().join(name);
        symlink(binary(), &link).expect("a link");
        // It is netbcc itself, which takes a tool's name as its first word.
        let output = run(command(&link).args(["tcplife", "--help"]));
        assert_eq!(text(&output.stdout), prints(&["tcplife", "--help"]), "{name}");
    }
}

#[test]
fn an_unknown_tool_names_the_nearest() {
    for (typed, meant) in [("tcpconect", "tcpconnect"), ("tcplive", "tcplife"), ("TCPLIFE", ""), ("ls", "")] {
        let output = netbcc(&[typed, "-t"]);
        let line = refused(&output, 2, "netbcc", typed);
        assert!(line.contains(&format!("'{typed}'")), "{line}");
        assert_eq!(line.contains("did you mean"), !meant.is_empty(), "{line}");
        assert!(line.contains(meant), "{line}");
    }
}

#[test]
fn a_hostile_tool_name_is_escaped() {
    let output = netbcc(&["\x1b[2Jrm", "x\ny"]);
    let line = refused(&output, 2, "netbcc", "a hostile name");
    assert!(line.contains(r"\x1b[2Jrm"), "{line:?}");
    let invalid = run(command(binary()).arg(OsStr::from_bytes(b"\xfftcp")));
    refused(&invalid, 2, "netbcc", "a name that is not UTF-8");
}

#[test]
fn netbcc_refuses_what_it_does_not_know() {
    for args in [&["--lisst"][..], &["--list", "x"], &["--version", "x"], &["help", "nothing"], &["-x"]] {
        refused(&netbcc(args), 2, "netbcc", &format!("{args:?}"));
    }
}

#[test]
fn install_links_makes_a_link_per_tool() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    for _again in 0..2 {
        assert_eq!(netbcc(&["install-links", &at]).status.code(), Some(0));
        for tool in tools() {
            let output = run(command(dir.path().join(&tool)).arg("--help"));
            assert_eq!(text(&output.stdout), help_by(&tool, &tool));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), tools().len());
    }
}

#[test]
fn install_links_takes_a_prefix() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    for (prefix, suffix) in [("netbcc-", ""), ("", ".py"), ("", "-bpfcc")] {
        let words = ["install-links", &at, "--prefix", prefix, "--suffix", suffix];
        assert_eq!(netbcc(&words).status.code(), Some(0), "{words:?}");
        for tool in tools() {
            let name = format!("{prefix}{tool}{suffix}");
            let output = run(command(dir.path().join(&name)).arg("--help"));
            assert_eq!(text(&output.stdout), help_by(&tool, &name));
        }
    }
}

#[test]
fn install_links_touches_nothing_of_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    let file = dir.path().join("tcplife");
    fs::write(&file, "somebody's").expect("a file");
    let output = netbcc(&["install-links", &at]);
    let line = refused(&output, 1, "netbcc", "a file in the way");
    assert!(line.contains("tcplife"), "{line}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "somebody's");
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1, "all links or none");
    fs::remove_file(&file).expect("it is ours");
    symlink("/bin/true", &file).expect("a link");
    refused(&netbcc(&["install-links", &at]), 1, "netbcc", "a foreign link in the way");
    assert_eq!(fs::read_link(&file).expect("a link"), Path::new("/bin/true"));
}

#[test]
fn install_links_makes_its_folder() {
    refused(&netbcc(&["install-links"]), 2, "netbcc", "no directory");
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("a/b");
    assert_eq!(netbcc(&["install-links", &deep.display().to_string()]).status.code(), Some(0));
    assert_eq!(fs::read_dir(&deep).expect("it was made").count(), tools().len());
    refused(&netbcc(&["install-links", "/dev/null"]), 1, "netbcc", "a file");
    refused(&netbcc(&["install-links", "/dev/null/x"]), 1, "netbcc", "below a file");
}

#[test]
fn doctor_knows_its_words() {
    let help = prints(&["doctor", "--help"]);
    assert!(help.contains("Usage: netbcc doctor [OPTIONS] [TOOL]"), "{help}");
    assert!(prints(&[]).contains("netbcc doctor [TOOL] [-v] [--json]"));
    for args in [&["doctor", "tcplive"][..], &["doctor", "tcplife", "x"], &["doctor", "--jsn2"]] {
        refused(&netbcc(args), 2, "netbcc", &format!("{args:?}"));
    }
}

#[test]
fn a_process_id_is_a_positive_number() {
    for tool in ["tcpconnect", "tcplife"] {
        for pid in ["0", "-1", "1.5", "0x10", "12a", "1,,2", "2-1", "2147483648", "99999999999999999999", "١"]
        {
            // As with argparse, `-1` alone would be an option.
            wrong_use(tool, &["-p", pid]);
            let line = wrong_use(tool, &[&format!("--pid={pid}")]);
            assert!(line.contains("--pid"), "{line}");
        }
        wrong_use(tool, &["-p"]);
        for pid in ["1", "4194304", "2147483647", "1,2", "1-9,!2"] {
            accepted(tool, &["-p", pid]);
        }
    }
}

#[test]
fn a_port_list_holds_ports() {
    for (tool, options) in [("tcpconnect", &["-P"][..]), ("tcplife", &["-L", "-D"])] {
        for option in options {
            let junk =
                [",", "80,", ",80", "80,,81", "http", "65536", "-1", "80;81", "80 81", "8.0", "99999999999"];
            for list in junk {
                wrong_use(tool, &[option, list]);
            }
            wrong_use(tool, &[option]);
            for list in ["80", "0", "65535", "80,81", "80, 81", " 80 ,81 ", "80,80", "all", "", " "] {
                accepted(tool, &[option, list]);
                accepted(tool, &[option, list, option, "82"]);
            }
        }
    }
}

#[test]
fn an_empty_value_of_a_filter_counts_as_not_given() {
    for tool in ["tcpaccept", "tcpconnect", "tcptop", "tcptracer"] {
        accepted(tool, &["--cgroupmap", "", "--mntnsmap="]);
    }
    accepted("tcpstates", &["-L", "", "-D", ""]);
    // libbpf-tools' letters.
    for tool in ["tcpconnect", "tcptracer"] {
        accepted(tool, &["-C", "", "-M", ""]);
    }
    for tool in ["tcpconnect", "tcplife", "tcpwhy"] {
        accepted(tool, &["-p", "", "--uid=", "--netns", " ", "--comm=", "--cgroup=", "--container="]);
        accepted(tool, &["--lport=", "--rport=", "--laddr=", "--raddr="]);
    }
    accepted("tcptop", &["-c", ""]);
    accepted("tcpdrop", &["--reason", "", "--not-reason", "QUEUE_PURGE"]);
    let refusals = [
        ("netqtop", &["-n", ""][..], "Please specify a network interface."),
        ("tcpsubnet", &[""], "the list of subnets is empty"),
        ("tcpsubnet", &[" "], "the list of subnets is empty"),
        ("tcpdrop", &["--reason", "3", "--not-reason", "4"], "cannot be used with"),
    ];
    for (tool, args, sentence) in refusals {
        let output = netbcc(&[&[tool], args].concat());
        assert!(!output.status.success(), "{tool} {args:?}");
        assert!(text(&output.stderr).contains(sentence), "{}", text(&output.stderr));
    }
}

#[test]
fn a_user_id_is_a_number() {
    for uid in ["root", "-1", "1.0", "4294967295", "4294967296", "99999999999999999999"] {
        wrong_use("tcpconnect", &["-u", uid]);
        let line = wrong_use("tcpconnect", &[&format!("--uid={uid}")]);
        assert!(line.contains("--uid"), "{line}");
    }
    wrong_use("tcpconnect", &["-u"]);
    for uid in ["0", "", " ", "1000", "4294967294"] {
        accepted("tcpconnect", &["-u", uid]);
    }
}

#[test]
fn a_family_excludes_the_other() {
    for tool in ["tcpconnect", "tcplife"] {
        for args in [&["-4", "-6"][..], &["-46"], &["-64"], &["--ipv4", "--ipv6"], &["-t6", "--ipv4"]] {
            wrong_use(tool, args);
        }
        accepted(tool, &["-4"]);
        accepted(tool, &["-6"]);
    }
}

#[test]
fn count_excludes_dns() {
    for args in [&["-c", "-d"][..], &["-cd"], &["--count", "--dns"]] {
        let line = wrong_use("tcpconnect", args);
        assert!(line.contains("you may not specify -d/--dns with -c/--count"), "{line}");
    }
}

#[test]
fn a_map_must_be_there() {
    for option in ["--cgroupmap", "--mntnsmap"] {
        wrong_use("tcpconnect", &[option]);
        let output = netbcc(&["tcpconnect", option, "/no/such/map"]);
        refused(&output, 1, "tcpconnect", option);
    }
}

#[test]
fn what_is_no_option_is_refused() {
    for tool in ["tcpconnect", "tcplife"] {
        for args in [
            &["-x"][..],
            &["--nonsense"],
            &["5"],
            &["1", "2"],
            &["--"],
            &["--", "x"],
            &["--json=yes"],
            &["-t=1"],
        ] {
            if args == ["--"] {
                accepted_before_end(tool);
                continue;
            }
            wrong_use(tool, args);
        }
        let invalid = run(command(binary()).arg(tool).arg(OsStr::from_bytes(b"-p\xff")));
        refused(&invalid, 2, tool, "bytes that are not UTF-8");
    }
}

/// `--` ends the options, and that is all it does.
#[track_caller]
fn accepted_before_end(tool: &str) {
    assert!(prints(&[tool, "--ebpf", "--"]).starts_with(tool));
}

#[test]
fn hostile_arguments_are_escaped() {
    for tool in ["tcpconnect", "tcplife"] {
        for args in [&["\x1b[2Jrm"][..], &["-p", "1\x1b[2J"], &["--\x1b]0;title\x07"], &["-p", "1\n2"]] {
            let line = wrong_use(tool, args);
            assert!(line.trim_end().chars().all(|c| !c.is_control()), "{line:?}");
        }
    }
}

#[test]
fn unique_prefixes_of_long_options_are_enough() {
    for args in [
        &["--times"][..],
        &["--por", "80"],
        &["--por=80"],
        &["--pi", "1"],
        &["--print"],
        &["--ui", "0"],
        &["--cou"],
        &["--dn"],
        &["--lp"],
        &["--ipv4"],
        &["--js"],
    ] {
        accepted("tcpconnect", args);
    }
    for args in [
        &["--timestamp"][..],
        &["--times"],
        &["--time"],
        &["--wid"],
        &["--cs"],
        &["--loc", "80"],
        &["--rem=80"],
    ] {
        accepted("tcplife", args);
    }
    // A prefix takes the value of the option that it means.
    wrong_use("tcpconnect", &["--por", "junk"]);
}

#[test]
fn ambiguous_prefixes_name_the_candidates() {
    for (tool, typed, candidates) in [
        ("tcpconnect", "--p", &["--pid", "--port", "--print-uid"][..]),
        ("tcpconnect", "--ipv", &["--ipv4", "--ipv6"]),
        ("tcplife", "--ti", &["--time", "--timestamp"]),
    ] {
        let line = wrong_use(tool, &[typed]);
        for candidate in candidates {
            assert!(line.contains(candidate), "{line}");
        }
    }
}

#[test]
fn short_options_bundle() {
    accepted("tcpconnect", &["-tUL"]);
    accepted("tcpconnect", &["-tLp", "181"]);
    accepted("tcpconnect", &["-tp181"]);
    accepted("tcpconnect", &["-dP80,81"]);
    accepted("tcplife", &["-stT"]);
    accepted("tcplife", &["-wTtp", "1"]);
    accepted("tcplife", &["-swtT4", "-L22,80", "-D443"]);
}

#[test]
fn the_last_of_repeated_options_counts() {
    // As argparse does.
    accepted("tcpconnect", &["-p", "1", "-p", "2", "-t", "-t"]);
    wrong_use("tcpconnect", &["-p", "1", "-p", "junk"]);
    accepted("tcptop", &["-p", "1", "-p", "2", "-C", "-C"]);
    // Nobody's scripts rely on what BCC does not have.
    for twice in [&["-r", "1", "-r", "2"][..], &["-s", "sent", "-s", "all"]] {
        let line = wrong_use("tcptop", twice);
        assert!(line.contains("cannot be used multiple times"), "{line}");
    }
}

#[test]
fn help_goes_to_a_closed_pipe_quietly_and_to_a_full_disk_loudly() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = run(command(binary()).args(["tcplife", "--help"]).stdout(writer));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let full: File = OpenOptions::new().write(true).open("/dev/full").expect("there is /dev/full");
    let output = run(command(binary()).args(["tcplife", "--help"]).stdout(full));
    let line = refused(&output, 1, "tcplife", "a full disk");
    assert!(line.contains("No space left on device"), "{line}");
}

/// A pipe that nobody reads any more.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// All that prints and ends, without a look at the kernel.
fn doors() -> Vec<Vec<String>> {
    let mut doors: Vec<String> =
        ["", "--help", "-h", "help", "--version", "-V", "--list", "--list -v", "--list --json", "man"]
            .map(Into::into)
            .into();
    for verb in VERBS {
        doors.extend([format!("{verb} --help"), format!("{verb} --version"), format!("help {verb}")]);
    }
    for shell in ["bash", "zsh", "fish"] {
        doors.push(format!("completions {shell}"));
    }
    for tool in tools() {
        for after in ["--help", "-h", "--version", "-V", "--ebpf"] {
            doors.push(format!("{tool} {after}"));
        }
        for before in ["help", "man", "schema", "completions bash"] {
            doors.push(format!("{before} {tool}"));
        }
    }
    doors.iter().map(|words| words.split_whitespace().map(Into::into).collect()).collect()
}

/// One rule for tools and commands: 0 for a normal end, also when whoever reads has gone; 1 for a failure; 2 for a wrong
/// use. What went wrong is one line.
#[test]
fn every_door_ends_by_one_rule() {
    for words in doors() {
        let ends = |stdout: Stdio| run(command(binary()).args(&words).stdout(stdout));
        let normal = ends(Stdio::piped());
        assert_eq!((normal.status.code(), text(&normal.stderr)), (Some(0), ""), "{words:?}");
        assert!(!normal.stdout.is_empty(), "{words:?}");
        let gone = ends(gone());
        assert_eq!((gone.status.code(), text(&gone.stderr)), (Some(0), ""), "{words:?} into a closed pipe");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("there is /dev/full");
        let full = ends(full.into());
        let said = text(&full.stderr);
        assert_eq!(
            (full.status.code(), said.lines().count()),
            (Some(1), 1),
            "{words:?} into a full disk: {said}"
        );
        assert!(said.contains("No space left on device"), "{words:?}: {said}");
    }
    let wrong = |name: &str, words: &[&str]| {
        refused(&netbcc(words), 2, name, &format!("{words:?}"));
    };
    for verb in VERBS {
        wrong("netbcc", &[verb, "--nonsense"]);
        wrong("netbcc", &[verb, "a", "b", "c", "d"]);
    }
    for tool in tools() {
        wrong(&tool, &[&tool, "--nonsense"]);
        wrong(&tool, &[&tool, "--json=yes"]);
        wrong(&tool, &[&tool, "a", "b", "c", "d"]);
        for variable in ["NETBCC_ATTACH", "NETBCC_LOG"] {
            let interface = if tool == "netqtop" { &["-n", "lo"][..] } else { &[] };
            let output = run(command(binary()).arg(&tool).args(interface).env(variable, "magic"));
            let said = refused(&output, 2, &tool, variable);
            assert!(said.contains(&format!("{variable}=magic")), "{said}");
        }
        // A failure before anything is loaded.
        let interface = if tool == "netqtop" { "-n lo" } else { "" };
        let line = format!("exec \"$0\" {tool} {interface} >&-");
        let closed = run(command("sh").args(["-c", &line]).arg(binary()));
        refused(&closed, 1, &tool, "a closed output");
    }
}

#[test]
fn a_wrong_rung_is_refused() {
    for tool in ["tcpconnect", "tcplife"] {
        let output = run(command(binary()).arg(tool).env("NETBCC_ATTACH", "magic"));
        let line = refused(&output, 2, tool, "NETBCC_ATTACH=magic");
        assert!(line.contains("NETBCC_ATTACH") && line.contains("magic"), "{line}");
    }
}

#[test]
fn tcpstates_has_the_options_of_bcc() {
    let words = [
        "-T",
        "-t",
        "-w",
        "-s",
        "-Y",
        "-4",
        "-6",
        "-v",
        "-stT",
        "-wTt",
        "-YsL22,80",
        "--time",
        "--timestamp",
    ];
    for word in words {
        accepted("tcpstates", &[word]);
    }
    accepted(
        "tcpstates",
        &["--journal", "--csv", "--wide", "--ipv4", "--localport", "0,80", "--remoteport=443"],
    );
    for args in
        [&["-4", "-6"][..], &["-L", "http"], &["-D", "65536"], &["-p", "1"], &["80"], &["-s", "--json"]]
    {
        wrong_use("tcpstates", args);
    }
}

#[test]
fn bindsnoop_has_the_options_of_bcc() {
    accepted("bindsnoop", &["-tUE", "-w", "-p", "181", "-P", "80, 81", "-u", "0", "-v", "--json"]);
    accepted("bindsnoop", &["-tUu0", "--ports", "0,65535", "-x", "--failed"]);
    accepted("bindsnoop", &["--count", "--errors", "--print-uid", "--timestamp", "--wide"]);
    accepted("bindsnoop", &["--cgroupmap", "/sys/fs/bpf/m", "--mntnsmap", "/sys/fs/bpf/n"]);
    for args in [
        &["-p", "x"][..],
        &["-p", "0"],
        &["-P", "70000"],
        &["-P", "80,,81"],
        &["-P", "80x"],
        &["-u", "x"],
        &["-u", "4294967296"],
        &["80"],
        &["--rport", "80"],
        &["--raddr", "::1"],
    ] {
        wrong_use("bindsnoop", args);
    }
}

#[test]
fn solisten_has_the_options_of_bcc() {
    accepted("solisten", &["--show-netns", "-p", "181", "-n", "4026531840", "-t", "-v", "--json"]);
    accepted("solisten", &["--show", "--net", "4026531840", "--pi", "0"]);
    for number in ["x", "-1", "1.5", "4294967296"] {
        wrong_use("solisten", &["-n", number]);
        let line = wrong_use("solisten", &[&format!("--netns={number}")]);
        assert!(line.contains("--netns"), "{line}");
    }
    for args in [&["-p", "x"][..], &["--pid=-1"], &["-4"], &["80"]] {
        wrong_use("solisten", args);
    }
}

#[test]
fn hardirqs_has_the_options_of_bcc() {
    accepted("hardirqs", &["-TNd", "-c", "0", "1", "3", "-v", "--json"]);
    accepted("hardirqs", &["1", "-C", "--timestamp", "--per-cpu"]);
    accepted("hardirqs", &["--distributed", "--nano", "--cpu=0", "-s", "0"]);
    accepted("hardirqs", &["--count", "5", "--vectors"]);
    for args in
        [&["0"][..], &["x"], &["1", "0"], &["1", "2", "3"], &["-1"], &["-c", "x"], &["-c", "-1"], &["-c"]]
    {
        wrong_use("hardirqs", args);
    }
    assert!(wrong_use("hardirqs", &["-c", "999999"]).contains("no such CPU"));
    for args in [["-C", "-d"], ["-C", "-N"], ["-NC", "5"], ["-Cd", "1"]] {
        let output = netbcc(&[&["hardirqs"], &args[..]].concat());
        let line = refused(&output, 2, "hardirqs", &format!("{args:?}"));
        assert!(line.contains("The --count option can't be used with time-based options"), "{line}");
    }
}

#[test]
fn tcpcong_has_the_options_of_bcc() {
    accepted("tcpcong", &["-TuL", "80", "-R", "3000-3006", "1", "10", "-v", "--json", "--open"]);
    accepted(
        "tcpcong",
        &["-d", "-u", "--localport=3006-3000", "--remoteport", "443", "5", "--time", "--micro"],
    );
    accepted("tcpcong", &["--dist", "--cgroup=/", "--lport=80", "--raddr=10.0.0.0/8"]);
    for args in [
        &["0"][..],
        &["x"],
        &["1", "0"],
        &["1", "x"],
        &["1", "2", "3"],
        &["-m"],
        &["-L", "0"],
        &["-R", "65536"],
        &["-4"],
        &["--pid=1"],
    ] {
        wrong_use("tcpcong", args);
    }
    for (args, words) in [
        (["-L", "1-2-3"], "unrecognized local port range"),
        (["-L", "a"], "unrecognized local port range"),
        (["-R", "80-"], "unrecognized remote port range"),
    ] {
        let line = wrong_use("tcpcong", &args);
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn tcpreset_has_its_options() {
    accepted("tcpreset", &["-p", "181", "-P", "80,81", "-L", "1-65535", "-4", "-tTwv", "--sent"]);
    accepted("tcpreset", &["-c", "-i", "10", "--received", "-6", "--json"]);
    accepted("tcpreset", &["--rport=!80", "--lport=80", "--timestamp", "--time", "--wide"]);
    for args in [
        &["x"][..],
        &["-4", "-6"],
        &["--sent", "--received"],
        &["-i", "1"],
        &["-c", "-i", "0"],
        &["-ct"],
        &["-p", "0"],
        &["-P", "0"],
        &["-L", "65536"],
    ] {
        wrong_use("tcpreset", args);
    }
}

#[test]
fn tcppktlat_has_the_options_of_libbpf_tools() {
    accepted("tcppktlat", &["-p", "181", "-t", "184", "-l", "80", "-r", "1-65535", "-T", "-w", "-v", "1000"]);
    accepted(
        "tcppktlat",
        &["--pid=181", "--tid=184", "--lport=80,8080", "--rport=!80", "--timestamp", "--wide"],
    );
    accepted("tcppktlat", &["--first", "--json", "-4", "1"]);
    for args in [
        &["0"][..],
        &["-5"],
        &["1000x"],
        &["1.5"],
        &["1", "2"],
        &["-p", "0"],
        &["-p", "12x"],
        &["-t", "0"],
        &["-t", "-1"],
        &["-l", "abc"],
        &["-l", "0"],
        &["-l", "65616"],
        &["-r", "0"],
        &["-4", "-6"],
        &["-4", "--laddr=::1"],
    ] {
        wrong_use("tcppktlat", args);
    }
}

#[test]
fn tcpsynbl_has_the_options_of_bcc() {
    accepted("tcpsynbl", &["-4"]);
    accepted("tcpsynbl", &["--ipv6", "-T", "1", "10", "-v", "--json"]);
    accepted("tcpsynbl", &["--listeners", "-T6", "--lport=80", "--laddr=::/0", "1", "10"]);
    accepted("tcpsynbl", &["--listeners", "--json", "-o", "pid,refused,container"]);
    accepted("tcpsynbl", &["--timestamp", "5", "--lport=80", "--raddr=10.0.0.0/8", "--cgroup=/"]);
    for args in [
        &["-4", "-6"][..],
        &["0"],
        &["x"],
        &["1.5"],
        &["1", "0"],
        &["1", "x"],
        &["1", "2", "3"],
        &["-t"],
        &["-4", "--laddr=::1"],
        &["--laddr=10.0.0.1", "--raddr=::1"],
        &["--pid=1"],
        &["--comm=x"],
        &["--listeners", "-4", "-6"],
        &["--listeners", "0"],
        &["--listeners", "--raddr=10.0.0.1"],
        &["--listeners", "--rport=80"],
        &["--listeners", "-o", "backlog_max"],
        &["-o", "qmax", "--json"],
    ] {
        wrong_use("tcpsynbl", args);
    }
}

#[test]
fn tcprtt_has_the_options_of_bcc() {
    accepted(
        "tcprtt",
        &["-TmBe", "-i", "1", "-d", "10", "-p", "80", "-P", "443", "-a", "10.0.0.1", "-A", "10.0.0.2", "-4"],
    );
    accepted(
        "tcprtt",
        &["-bD", "-6", "-a", "::1", "--milli", "--interval=3", "--duration=5", "--ext", "--json", "-v"],
    );
    accepted("tcprtt", &["--millisecond", "--lport", "80", "--raddr", "::ffff:10.0.0.1", "--min", "--byr"]);
    accepted(
        "tcprtt",
        &["--min", "--json", "-d", "5", "--cgroup=/", "-a", "10.0.0.0/8", "-A", "::ffff:10.0.0.1"],
    );
    accepted("tcprtt", &["-6", "-a", "10.0.0.1", "-A", "!10.0.0.1"]);
    for args in [
        &["-i", "0"][..],
        &["-i", "abc"],
        &["-d", "0"],
        &["-d", "1.5"],
        &["-p", "x"],
        &["-P", "70000"],
        &["-a", "10.0.0"],
        &["-A", "host"],
        &["-b", "-B"],
        &["-4", "-6"],
        &["-4", "-a", "::1"],
        &["-a", "10.0.0.1", "-A", "::1"],
        &["-a", "::1", "-A", "10.0.0.0/8"],
        &["--min", "--json", "-i", "1"],
        &["--min", "--json", "-B"],
        &["--pid=1"],
        &["--comm=x"],
        &["1"],
    ] {
        wrong_use("tcprtt", args);
    }
}

#[test]
fn softirqs_has_the_options_of_bcc() {
    accepted("softirqs", &["-TNd", "-c", "0", "1", "3", "-v", "--json"]);
    accepted("softirqs", &["1", "-C", "--timestamp"]);
    accepted("softirqs", &["--distributed", "--nano", "--cpu=0"]);
    accepted("softirqs", &["--count", "5"]);
    for args in
        [&["0"][..], &["x"], &["1", "0"], &["1", "2", "3"], &["-1"], &["-c", "x"], &["-c", "-1"], &["-c"]]
    {
        wrong_use("softirqs", args);
    }
    assert!(wrong_use("softirqs", &["-c", "999999"]).contains("no such CPU"));
    for args in [["-C", "-d"], ["-C", "-N"], ["-NC", "5"], ["-Cd", "1"]] {
        let output = netbcc(&[&["softirqs"], &args[..]].concat());
        let line = refused(&output, 2, "softirqs", &format!("{args:?}"));
        assert!(line.contains("The --events option can't be used with time-based options"), "{line}");
    }
}

#[test]
fn gethostlatency_has_the_options_of_bcc() {
    accepted("gethostlatency", &["-vp", "1"]);
    accepted("gethostlatency", &["--pid=1", "--errors", "--failed", "--min-ms", "0.5", "--json"]);
    accepted("gethostlatency", &["-o", "host,latency_ns,error"]);
    for args in [
        &["x"][..],
        &["-p", "0"],
        &["-p", "-1"],
        &["--min-ms", "-1"],
        &["--min-ms", "x"],
        &["-l", "/etc/passwd"],
        &["-l", "/nowhere/at/all"],
        &["--lport", "53"],
        &["--netns", "0"],
    ] {
        wrong_use("gethostlatency", args);
    }
    assert!(wrong_use("gethostlatency", &["-l", "/dev/null"]).contains("no regular file"));
}

#[test]
fn softirqslower_has_the_options_of_bcc() {
    accepted("softirqslower", &["-vc0", "1000", "--json"]);
    accepted("softirqslower", &["--cpu=0", "0", "--softirq", "net_rx, rcu", "--softirq=hi"]);
    accepted("softirqslower", &["1000000000000", "--stage", "run"]);
    accepted("softirqslower", &["--st", "wait", "-o", "cpu,latency_ns,other_ns"]);
    for args in [
        &["x"][..],
        &["-5"],
        &["1.5"],
        &["1", "2"],
        &["1000000000001"],
        &["-c", "x"],
        &["-c", "-1"],
        &["--softirq", ""],
        &["--softirq", "NET_RX"],
        &["--stage", "both"],
        &["--pid", "1"],
        &["--lport", "80"],
    ] {
        wrong_use("softirqslower", args);
    }
    assert!(wrong_use("softirqslower", &["-c", "999999"]).contains("no such CPU"));
    assert!(wrong_use("softirqslower", &["--softirq", "tcp"]).contains("net_tx"));
}

#[test]
fn tcptop_has_the_options_of_bcc() {
    accepted("tcptop", &["-CSp", "181", "1", "10", "-v", "--json"]);
    accepted("tcptop", &["5", "-4", "--cgroupmap", "/x", "--mntnsmap", "/y"]);
    accepted("tcptop", &["-6", "-s", "sent", "-r", "20"]);
    accepted("tcptop", &["--nocl", "--nos", "--sort=received", "--rows", "10240", "-Cp181"]);
    for args in [
        &["0"][..],
        &["x"],
        &["1", "0"],
        &["1", "2", "3"],
        &["-1"],
        &["-4", "-6"],
        &["-p", "abc"],
        &["-s", "x"],
        &["-r", "0"],
        &["-r", "10241"],
    ] {
        wrong_use("tcptop", args);
    }
    let line = refused(&netbcc(&["tcptop", "-c", "/proc"]), 2, "tcptop", "no cgroup");
    assert!(line.starts_with("tcptop: --cgroup: ") && line.contains("cgroup of version 2"), "{line}");
}

#[test]
fn tcpsubnet_has_the_options_of_bcc() {
    accepted("tcpsubnet", &["-J", "-fk", "-i", "5", "-v", "10.0.0.0/8,::/0"]);
    accepted("tcpsubnet", &["127.0.0.1/32", "-JfM", "--interval=2"]);
    accepted("tcpsubnet", &["--json", "--form", "b", "--int", "1"]);
    for args in [
        &["-f", "G"][..],
        &["-f", "Kb"],
        &["-i", "x"],
        &["-i", "1.5"],
        &["-i", "4294967296"],
        &["-i"],
        &["-J", "--json"],
        &["1.1.1.1/8", "2.2.2.2/8"],
        &["-p", "1"],
    ] {
        wrong_use("tcpsubnet", args);
    }
    for (args, sentence) in [
        (&["-i", "0"][..], "Invalid interval, must be > 0. Exiting."),
        (&["-i", "-1"], "Invalid interval, must be > 0. Exiting."),
        (&["10.0.0.0"], "Subnet [10.0.0.0] is invalid, please refer to the examples."),
        (&["x/8"], "Invalid net address in subnet [x/8], please refer to the examples."),
        (&["10.0.0.0/a"], "Invalid mask in subnet [10.0.0.0/a]. Mask must be an int"),
        (&["10.0.0/33"], "Invalid mask in subnet [10.0.0/33]. Must be an int between 0 and 32."),
        (&["-J", "1.1.1.1/1,::/129"], "Invalid mask in subnet [::/129]. Must be an int between 0 and 128."),
        (&["\x1b[2J/8"], "Invalid net address in subnet [\\x1b[2J/8], please refer to the examples."),
    ] {
        let output = netbcc(&[&["tcpsubnet"], args].concat());
        assert_eq!(refused(&output, 2, "tcpsubnet", sentence), format!("tcpsubnet: {sentence}\n"));
    }
}

#[test]
fn netqtop_has_the_options_of_bcc() {
    accepted("netqtop", &["-n", "eth0", "-i", "2", "-t", "-v", "--json"]);
    accepted("netqtop", &["-tn", "lo", "-i.5"]);
    accepted("netqtop", &["--na=lo", "--int", "1e1", "--through"]);
    for args in [&["-i", "x"][..], &["-i", "nan"], &["-i", "inf"], &["-i"], &["-n"], &["lo"], &["-t", "1"]] {
        wrong_use("netqtop", args);
    }
    // In BCC's order and, but for a typing error, in its words.
    for (args, sentence) in [
        (&[][..], "Please specify a network interface."),
        (&["-n", "", "-i", "0"], "Please specify a network interface."),
        (&["-n", "abcdefghijklmnop", "-i", "0"], "NIC name too long"),
        (&["-n", "abcdefghijklmno", "-i", "0"], "print interval must be non-zero"),
        (&["-n", "lo", "-i", "-1"], "print interval must be non-zero"),
        (&["-n", "abcdefghijklmno"], "Net interface abcdefghijklmno does not exist."),
        (&["-n", "lo:1"], "Net interface lo:1 does not exist."),
        (&["-n", "../lo"], "Net interface ../lo does not exist."),
        (&["-n", "\x1b[2J"], "Net interface \\x1b[2J does not exist."),
    ] {
        let output = netbcc(&[&["netqtop"], args].concat());
        // An interface that is not there may come; all else is a wrong use.
        let code = if sentence.starts_with("Net interface") { 1 } else { 2 };
        assert_eq!(refused(&output, code, "netqtop", &format!("{args:?}")), format!("netqtop: {sentence}\n"));
    }
}

/// An option as the help shows it: `-p, --pid <PID>` and the like, without its value; and the sentence about it.
struct Shown {
    names: Vec<String>,
    about: String,
}

/// The options in a help text: lines that begin with a dash under a heading, and what goes on in the lines below.
fn shown(help: &str) -> Vec<Shown> {
    let mut options: Vec<Shown> = Vec::new();
    let (mut inside, mut indent) = (false, 0);
    for line in help.lines() {
        if !line.starts_with(' ') {
            inside = matches!(line, "Options:" | "Output:" | "Filters:");
            continue;
        }
        let text = line.trim_start();
        if inside && text.starts_with('-') && line.len() - text.len() < 8 {
            let (names, about) = text.split_once("  ").unwrap_or((text, ""));
            indent = line.len() - about.trim_start().len();
            let words = names.split([' ', ',', '[']).filter(|word| word.starts_with('-'));
            options.push(Shown { names: words.map(Into::into).collect(), about: about.trim().into() });
        } else if inside && line.len() - text.len() == indent {
            let option = options.last_mut().expect("the help begins with an option");
            option.about = format!("{} {text}", option.about);
        }
    }
    options
}

/// troff's source as words: without fonts and escapes.
fn plain(roff: &str) -> String {
    [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\*(Aq", "'"), ("\\&", ""), ("\\\\", "\\")]
        .iter()
        .fold(roff.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The lines of one section of a manual page's source.
fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let after = page.lines().skip_while(|line| {
        line.trim_matches('"') != format!(".SH {title}") && *line != format!(".SH \"{title}\"")
    });
    after.skip(1).take_while(|line| !line.starts_with(".SH")).collect()
}

#[test]
fn every_tool_has_the_filters_or_says_why_not() {
    for tool in tools() {
        let help = prints(&[&tool, "--help"]);
        // Of the others anything may be a name.
        for name in select::ENDS.iter().chain(&[select::PID, select::UID]) {
            let option = format!("--{name}");
            let has = shown(&help).iter().any(|shown| shown.names.contains(&option));
            let output = netbcc(&[&tool, &format!("{option}=x/y")]);
            let said = refused(&output, 2, &tool, name);
            if has {
                assert!(said.contains("'x/y' for '") && said.contains(&option), "{said}");
            } else {
                let start = format!("{tool}: {option} cannot be used with {tool}: ");
                assert!(
                    said.starts_with(&start) && said.ends_with(&format!(" (try 'netbcc {tool} --help')\n")),
                    "{said}"
                );
            }
        }
    }
    for (args, sentence) in [
        (
            &["tcplife", "-L", "80", "--lport", "81-90"][..],
            "no local port is in both lists of them: there would be no row",
        ),
        (
            &["tcpconnect", "-P80,81", "--rport=!80-81"],
            "no remote port is in both lists of them: there would be no row",
        ),
        (
            &["tcpdrop", "--netns=4026531840", "--netns-id=4026531841"],
            "two network namespaces are asked for: there would be no row",
        ),
        (
            &["tcplife", "--netns=nobody-calls-one-so"],
            "--netns: no network namespace is called 'nobody-calls-one-so'",
        ),
        (
            &["netqtop", "-n", "lo", "--netns=1"],
            "--netns cannot be used with netqtop: an interface is one of the network namespace in which netqtop runs (try 'netbcc netqtop --help')",
        ),
        (&["tcpaccept", "-P80", "--lport=80,!80"], "--lport: the list keeps no port"),
        (
            &["tcpconnect", "--lport", "80"],
            "unexpected argument '80' found; did you mean '--lport=80'? (try 'netbcc tcpconnect --help')",
        ),
        (&["tcplife", "--comm=a,!a"], "--comm: the list keeps no name"),
        (&["tcpaccept", "-p", "7,!1-9"], "--pid: the list keeps nothing"),
        (
            &["softirqs", "--container=x"],
            "--container cannot be used with softirqs: a soft interrupt is of no process (try 'netbcc softirqs --help')",
        ),
        (&["tcptop", "--cgroup=/x", "--container=x"], "--cgroup cannot be used with --container"),
        (
            &["tcptracer", "--uid=root"],
            "invalid value 'root' for '--uid <UIDS>': 'root' is neither a user id, which is 0 to 4294967294, nor a range as 1000-1999; did you mean '0'? (try 'netbcc tcptracer --help')",
        ),
    ] {
        assert_eq!(refused(&netbcc(args), 2, args[0], "both"), format!("{}: {sentence}\n", args[0]));
    }
}

#[test]
fn help_manual_and_completions_say_the_same() {
    for tool in tools() {
        let (help, page) = (prints(&[&tool, "--help"]), plain(&prints(&["man", &tool])));
        let options = shown(&help);
        assert!(options.len() > 3, "{tool}: {help}");
        let manual = section(&page, "OPTIONS");
        // What follows each .TP is an option (or an argument, which has brackets).
        let tags: Vec<&str> = manual
            .windows(2)
            .filter(|pair| pair[0] == ".TP")
            .map(|pair| pair[1])
            .filter(|tag| tag.starts_with('-'))
            .collect();
        assert_eq!(tags.len(), options.len(), "{tool}: {tags:?}");
        let words = manual.join(" ");
        let completed = ["bash", "zsh", "fish"].map(|shell| prints(&["completions", shell, &tool]));
        let mut count = 0;
        for Shown { names, about } in &options {
            assert!(
                tags.iter().any(|tag| tag.starts_with(&names.join(", "))),
                "{tool}: {names:?} in {tags:?}"
            );
            let sentence = about.split(" [").next().expect("a first part");
            assert!(words.contains(sentence), "{tool}: {sentence:?} in {words}");
            count += names.len();
            for name in names {
                let (bash, zsh, fish) = (&completed[0], &completed[1], &completed[2]);
                assert!(bash_options(bash).contains(&name.as_str()), "{tool}: {name} in {bash}");
                let starts = ["[", "=", "+"].map(|next| format!("'{name}{next}"));
                let starts = starts.iter().any(|start| {
                    zsh.contains(start)
                        || [")", "*"].iter().any(|before| zsh.contains(&start.replace('\'', before)))
                });
                assert!(starts, "{tool}: {name} in {zsh}");
                let flag = match name.strip_prefix("--") {
                    Some(long) => format!(" -l {long} "),
                    None => format!(" -s {} ", &name[1..]),
                };
                assert!(fish.contains(&flag), "{tool}: {flag} in {fish}");
            }
        }
        let offered = bash_options(&completed[0]);
        assert_eq!(offered.iter().filter(|word| word.starts_with('-')).count(), count, "{tool}: {offered:?}");
    }
}

/// The words that bash's script offers for the command itself.
fn bash_options(script: &str) -> Vec<&str> {
    let offered =
        script.lines().filter_map(|line| line.trim().strip_prefix("opts=\"")).find(|rest| rest.len() > 1);
    offered.expect("it offers something").trim_end_matches('"').split(' ').collect()
}

#[test]
fn the_synopsis_shows_what_each_option_takes() {
    for tool in tools() {
        let synopsis = section(&plain(&prints(&["man", &tool])), "SYNOPSIS").join(" ");
        let help = prints(&[&tool, "--help"]);
        let mut with_value = 0;
        let mut inside = false;
        for line in help.lines() {
            if !line.starts_with(' ') {
                inside = matches!(line, "Options:" | "Output:" | "Filters:");
            }
            let words = line.trim_start();
            if !inside || !words.starts_with('-') || line.len() - words.len() > 6 {
                continue;
            }
            // Two blanks before what it does.
            let head = words.split("  ").next().expect("a first part");
            if head.contains("--help") || head.contains("--version") {
                continue;
            }
            let shown = head.replace(", ", "|").replace(['<', '>'], "");
            with_value += usize::from(head.contains('<'));
            assert!(synopsis.contains(&format!("[{shown}]")), "{tool}: [{shown}] in {synopsis}");
        }
        assert!(with_value > 0, "{help}");
    }
}

#[test]
fn no_sentence_for_users_says_rung() {
    for words in doors() {
        let text = prints(&words.iter().map(String::as_str).collect::<Vec<_>>()).to_lowercase();
        let mut all = text.split(|c: char| !c.is_alphanumeric());
        assert!(!all.any(|word| word == "rung" || word == "rungs"), "{words:?}");
        // BCC's typing error.
        assert!(!text.contains("not exits"), "{words:?}");
    }
}

#[test]
fn manual_pages_have_all_sections_and_every_field() {
    let titles = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "FIELDS",
        "EXAMPLES",
        "OVERHEAD",
        "EXIT STATUS",
        "DIFFERENCES FROM BCC",
        "HOOKS",
        "ENVIRONMENT",
        "SEE ALSO",
    ];
    for tool in tools() {
        let page = plain(&prints(&["man", &tool]));
        assert!(
            page.contains(&format!(".TH {tool} 8 \"\" \"netbcc {}\" netbcc\n", env!("CARGO_PKG_VERSION"))),
            "{page}"
        );
        for title in titles {
            assert!(!section(&page, title).is_empty(), "{tool}: {title}");
        }
        let fields = section(&page, "FIELDS").join(" ");
        for object in Schema::of(&tool).objects() {
            for (key, says) in object["properties"].as_object().expect("properties") {
                let about = says["description"].as_str().expect("a description");
                assert!(about.ends_with('.'), "{tool}: {key}: {about:?}");
                assert!(fields.contains(about) && fields.contains(key), "{tool}: {key}: {about:?}");
            }
        }
    }
    assert_eq!(prints(&["man"]).matches(".SH").count(), 7);
}

#[test]
fn schemas_know_every_row_by_exactly_one_kind() {
    for tool in tools() {
        let schema = Schema::of(&tool);
        assert_eq!(schema.well_formed(), Ok(()), "{tool}");
        // The schema is the reader's own: no line that lacks a field, or has another one, is a row.
        for line in ["{}", "[]", "null", r#"{"time":"2026-11-22T14:48:38.270339900Z","ts_ns":1}"#, "x"] {
            assert!(schema.check(line).is_err(), "{tool}: {line}");
        }
        assert_eq!(
            schema.objects().iter().filter(|kind| kind["additionalProperties"] == false).count(),
            schema.objects().len()
        );
    }
}

#[test]
fn a_schema_that_is_none_is_told() {
    let start = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","#;
    for (wrong, says) in [
        (r#""type":"text"}"#, "type"),
        (r#""enum":[1,1]}"#, "enum"),
        (r#""required":["a"],"properties":{"b":{}}}"#, "required"),
        (r#""properties":{"b":{"minimum":"0"}}}"#, "b: minimum"),
        (r#""anyOf":[]}"#, "anyOf"),
        (r#""oneOf":[{"items":{"maximum":null}}]}"#, "maximum"),
        (r#""maxContains":1}"#, "maxContains"),
    ] {
        let why = Schema::parse(&format!("{start}{wrong}")).well_formed().expect_err(wrong);
        assert!(why.contains(says), "{wrong}: {why}");
    }
    assert!(Schema::parse(r#"{"type":"string"}"#).well_formed().is_err());
}

/// The lines of `docs/fields.md` about a tool.
fn fields_of(tool: &str) -> String {
    let mut text = format!("\n## {tool}\n");
    let schema = Schema::of(tool);
    for kind in schema.objects() {
        if schema.objects().len() > 1 {
            let title = kind["title"].as_str().expect("a kind of row has a title");
            writeln!(text, "\n{title}").expect("a String takes all");
        }
        text += "\n| field | type | always | OpenTelemetry | meaning |\n| --- | --- | --- | --- | --- |\n";
        let always = kind["required"].as_array().expect("a list");
        for (key, says) in kind["properties"].as_object().expect("properties") {
            let word = |name: &str| says[name].as_str().unwrap_or_default();
            let otel =
                if word("x-otel").is_empty() { String::new() } else { format!("`{}`", word("x-otel")) };
            let always = if always.iter().any(|name| name == key) { "yes" } else { "" };
            let meaning = word("description").replace('|', "\\|");
            writeln!(text, "| `{key}` | {} | {always} | {otel} | {meaning} |", type_of(says))
                .expect("a String takes all");
        }
    }
    text
}

/// What a field's values are, in a word or two.
fn type_of(says: &serde_json::Value) -> String {
    let inner = |list: &serde_json::Value| {
        let kinds: Vec<String> = list.as_array().into_iter().flatten().map(type_of).collect();
        kinds.join(" or ")
    };
    match (says["type"].as_str(), says["format"].as_str()) {
        (_, Some("date-time")) => "time".into(),
        (Some("string"), _) if says["anyOf"].is_array() => "address".into(),
        (Some("array"), _) => format!("list of {}", type_of(&says["items"])),
        (Some(kind), _) => kind.into(),
        (None, _) if says["anyOf"].is_array() => inner(&says["anyOf"]),
        (None, _) => match says["enum"].as_array().and_then(|list| list.first()) {
            Some(value) if value.is_string() => "word".into(),
            _ => "integer".into(),
        },
    }
}

#[test]
fn the_page_of_fields_is_what_the_schemas_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fields.md");
    let page = fs::read_to_string(&path).expect("docs/fields.md");
    // What comes before the first tool was written by hand.
    let intro = page.split("\n## ").next().expect("a first part");
    let fields: String = tools().iter().map(|tool| fields_of(tool)).collect();
    matches_fixture(&path, &format!("{intro}{fields}"));
}

/// A program of this machine, or nothing, which is said. Where CI runs, nothing may be missing.
fn installed(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    assert!(found || std::env::var_os("CI").is_none(), "{name} is not installed");
    found
}

#[test]
fn manual_pages_render_without_a_warning() {
    if !installed("man") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("page.8");
    for tool in tools().into_iter().map(Some).chain([None]) {
        let args: Vec<&str> = ["man"].into_iter().chain(tool.as_deref()).collect();
        fs::write(&file, prints(&args)).expect("a file");
        let mut man = command("man");
        let output = run(man
            .args(["--warnings=w", "-l"])
            .arg(&file)
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80")
            .env("MANPAGER", "cat"));
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let name = tool.as_deref().unwrap_or("netbcc");
        assert!(text(&output.stdout).starts_with(&format!("{name}(8)")), "{output:?}");
    }
}

/// netbcc's own commands.
const VERBS: [&str; 6] = ["completions", "doctor", "help", "install-links", "man", "schema"];

/// The options in the help of a tool, of a command, or of netbcc itself.
fn options_of(words: &[&str]) -> BTreeSet<String> {
    if words == ["help"] {
        // Its help is netbcc's.
        return ["-h", "--help", "-V", "--version"].map(Into::into).into();
    }
    shown(&prints(&[words, &["--help"]].concat())).into_iter().flat_map(|option| option.names).collect()
}

#[test]
fn the_manual_of_netbcc_has_the_options_of_its_commands() {
    let page = plain(&prints(&["man"]));
    let commands = section(&page, "COMMANDS").join("\n");
    for verb in VERBS {
        let part = commands.split(".SS ").find(|part| part.starts_with(&format!("\"netbcc {verb} ")));
        let part = part.unwrap_or_else(|| panic!("{verb}: {commands}"));
        let tags = part.split(".TP\n").skip(1).filter_map(|entry| entry.lines().next());
        let words = tags.flat_map(|tag| tag.split([' ', ',']));
        let told: BTreeSet<String> = words.filter(|word| word.starts_with('-')).map(Into::into).collect();
        assert_eq!(told, options_of(&[verb]), "{verb}");
    }
}

/// Words that begin a command line, and the options that its help has.
type Question = (Vec<String>, BTreeSet<String>);

/// Each tool by its link and by netbcc, each command, and netbcc itself.
fn questions() -> Vec<Question> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut all = vec![(words(&["netbcc"]), options_of(&[]))];
    for tool in tools() {
        let options = options_of(&[&tool]);
        all.push((words(&[&tool]), options.clone()));
        all.push((words(&["netbcc", &tool]), options));
    }
    all.extend(VERBS.iter().map(|verb| (words(&["netbcc", verb]), options_of(&[verb]))));
    all
}

/// Calls the function that bash was told of, as bash does when somebody types a dash and the tab key.
const BASH: &str = r#"
ask() {
    local how; how=$(complete -p "$1") || exit
    how=${how#*-F }
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    "${how%% *}" "$1" - "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "? $*" "${COMPREPLY[@]}"
}
"#;

const FISH: &str = r#"
function ask
    echo "? $argv"
    complete --do-complete "$argv"
end
"#;

/// Types into a zsh of its own, on a terminal of its own: only its line editor asks for completions. The word by which
/// it says that it has done something is never typed as such, for a terminal shows what is typed. It would ask before it lists more
/// than a screen holds.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty typed zsh -f -i
tell() {
    zpty -w typed "$1; print do\"\"ne"
    zpty -r typed all '*done*'
}
tell 'autoload -U compinit; compinit -D -u; PROMPT= ; LISTMAX=1000; stty -echo'
tell 'compadd() { local -a hits; builtin compadd -O hits "$@"; print -rl -- $hits >>answers; builtin compadd "$@" }'
tell 'press() { zle complete-word; BUFFER="print do\"\"ne"; zle accept-line }; zle -N press; bindkey "^I" press'
ask() {
    print -r -- "? $*" >>answers
    zpty -w -n typed "$*"$'\t'
    zpty -r typed all '*done*'
}
"#;

/// What a shell offers for each of the questions.
fn asked(shell: &str, questions: &[Question]) -> Vec<Question> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut script = match shell {
        "bash" => BASH,
        "fish" => FISH,
        _ => ZSH,
    }
    .to_owned();
    for tool in tools().iter().map(Some).chain([None]) {
        let name = tool.map_or("netbcc", String::as_str);
        let args: Vec<&str> = ["completions", shell].into_iter().chain(tool.map(String::as_str)).collect();
        fs::write(dir.path().join(name), prints(&args)).expect("a file");
        let load = format!("source ./{name}");
        let load = if shell == "zsh" { format!("tell '{load}'") } else { load };
        writeln!(script, "{load}").expect("a String takes all");
    }
    for (words, _) in questions {
        writeln!(script, "ask {} -", words.join(" ")).expect("a String takes all");
    }
    if shell == "zsh" {
        script += "zpty -d typed\ncat answers\n";
    }
    fs::write(dir.path().join("script"), script).expect("a file");
    let mut call = command(shell);
    call.args(match shell {
        "bash" => &["--norc", "script"][..],
        "fish" => &["--no-config", "script"],
        _ => &["-f", "script"],
    });
    let output = run(call.current_dir(dir.path()).env("HOME", dir.path()).env("TERM", "dumb"));
    assert_eq!(text(&output.stderr), "", "{shell}");
    let mut answers: Vec<Question> = Vec::new();
    for line in text(&output.stdout).lines() {
        if let Some(words) = line.strip_prefix("? ") {
            let words = words.split(' ').filter(|word| *word != "-").map(Into::into);
            answers.push((words.collect(), BTreeSet::new()));
        } else if line.starts_with('-') {
            // fish says what an option means behind a tab.
            let option = line.split('\t').next().unwrap_or_default();
            answers.last_mut().expect("a question comes first").1.insert(option.to_owned());
        }
    }
    answers
}

#[test]
fn each_shell_offers_the_options_that_the_help_has() {
    let questions = questions();
    for shell in ["bash", "fish", "zsh"] {
        if !installed(shell) {
            continue;
        }
        let answers = asked(shell, &questions);
        assert_eq!(answers.len(), questions.len(), "{shell}: {answers:?}");
        for (answer, question) in answers.iter().zip(&questions) {
            assert_eq!(answer, question, "{shell}");
        }
    }
}

/// The harness looks at every JSON row of the kernel tests by these.
#[test]
fn a_row_that_contradicts_itself_or_the_clocks_is_told() {
    let time = "2026-05-01T12:34:56.123456789Z";
    assert_eq!(nanoseconds(time), Some(1_777_638_896_123_456_789));
    assert_eq!(nanoseconds("2024-02-29T00:00:00.000000001Z"), Some(1_709_164_800_000_000_001));
    assert_eq!(nanoseconds("2026-05-01"), None);
    let from_now = |line: serde_json::Value| Laws::from_now().check(&line.to_string());
    for (ts_ns, why) in [(1, "ts_ns is not between"), (u64::MAX / 2, "ts_ns is not between")] {
        assert!(from_now(json!({ "time": time, "ts_ns": ts_ns })).is_err_and(|told| told.starts_with(why)));
    }
    let mut laws = Laws::from_now();
    let ts_ns = now(ClockId::CLOCK_MONOTONIC);
    let told = laws.check(&json!({ "time": time, "ts_ns": ts_ns }).to_string());
    assert!(told.is_err_and(|told| told.starts_with("time is ")));
    let check = |row: &serde_json::Value| consistent(row, 2_000_001_999, 1_000_001_000);
    for good in [
        json!({ "time_s": 1.0, "time_ns": 1_000_000_999 }),
        json!({ "interval_ns": 250_000_000, "bytes": 1000, "bytes_per_s": 4000.0 }),
        json!({ "low_usecs": 0, "high_usecs": 1 }),
        json!({ "low_nsecs": 2, "high_nsecs": 3 }),
        json!({ "low_nsecs": 1_u64 << 63, "high_nsecs": u64::MAX }),
    ] {
        assert_eq!(check(&good), Ok(()), "{good}");
    }
    for wrong in [
        json!({ "time_s": 2.0 }),
        json!({ "time_ns": 1_000_001_000 }),
        json!({ "interval_ns": 500_000_000, "bytes": 1000, "bytes_per_s": 4000.0 }),
        json!({ "interval_ns": 250_000_000, "packets": 3, "packets_per_s": 12.1 }),
        json!({ "low_usecs": 1, "high_usecs": 1 }),
        json!({ "low_nsecs": 4, "high_nsecs": 15 }),
        json!({ "low_nsecs": 4, "high_nsecs": 8 }),
    ] {
        assert!(check(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn words_that_are_no_tool_or_shell_are_refused() {
    for args in [
        &["man", "ls"][..],
        &["man", "tcplife", "x"],
        &["schema"],
        &["schema", "x"],
        &["completions"],
        &["completions", "ksh"],
        &["completions", "bash", "x"],
    ] {
        refused(&netbcc(args), 2, "netbcc", &format!("{args:?}"));
    }
}

#[test]
fn a_closed_output_is_an_error() {
    for words in ["--help", "--list", "man tcplife", "schema tcplife", "tcplife --help", "tcplife"] {
        let line = format!("exec \"$0\" {words} >&-");
        let output = run(command("sh").args(["-c", &line]).arg(binary()));
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(text(&output.stderr).ends_with("write to standard output: it is closed\n"), "{output:?}");
    }
}
