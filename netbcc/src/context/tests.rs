use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A /proc of our own.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("netbcc-context-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    /// A process that started `ago` ms ago.
    fn process(&self, pid: u32, comm: &str, ago: i64, state: char) {
        let folder = self.0.join(pid.to_string());
        fs::create_dir_all(folder.join("task").join("1")).unwrap();
        let since = (boot_ns() - ago * 1_000_000) / 10_000_000;
        let stat = format!("{pid} ({comm}) {state} 7 1 1 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 {since} 313 37 1\n");
        for (name, text) in [
            ("stat", &*stat),
            ("comm", &format!("{comm}\n")),
            ("task/1/comm", "worker\n"),
            ("cmdline", if state == 'Z' { "" } else { "/bin/x\0-v\0a b\0" }),
            ("status", &format!("Name:\t{comm}\nUid:\t4000000000\t0\t0\t0\n")),
            ("statm", "700 378 300 5 0 100 0\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.0.join(pid.to_string())).unwrap();
    }

    fn context(&self) -> Context {
        Context::of(&self.0, Fact::ALL.to_vec(), 1 << 22).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn named(comm: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm.as_bytes());
    name
}

fn now() -> (Clock, u64) {
    let clock = Clock::start();
    let now_ns = clock.monotonic_ns();
    (clock, now_ns)
}

fn text(facts: &Facts, fact: Fact) -> Option<String> {
    match facts.get(fact) {
        Value::Unknown => None,
        Value::Number(number) => Some(number.to_string()),
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

fn cmdline(facts: &Facts) -> Option<String> {
    text(facts, Fact::Cmdline)
}

const ARGS: Option<&str> = Some("/bin/x -v a b");

#[test]
fn a_process_that_was_there_is_the_rows() {
    let tree = Tree::new("there");
    tree.process(42, "x", 5000, 'S');
    symlink("/opt/x", tree.0.join("42/exe")).unwrap();
    let mut context = tree.context();
    let (clock, now_ns) = now();
    let facts = context.facts(&Process::now(42), now_ns, &clock);
    let all = Fact::ALL.map(|fact| text(&facts, fact));
    let told = ["4000000000", "7", "/opt/x", "/bin/x -v a b"].map(|text| Some(text.to_owned()));
    assert_eq!(all[..4], told);
    assert!(all[4..].iter().all(Option::is_none), "{all:?}");
    assert_eq!(cmdline(&context.facts(&Process::now(0), now_ns, &clock)), None, "nobody");
    assert_eq!(cmdline(&context.facts(&Process::now(43), now_ns, &clock)), None, "gone");
}

#[test]
fn a_number_that_was_given_again_is_another_process() {
    let tree = Tree::new("again");
    tree.process(42, "x", 5000, 'S');
    let mut context = tree.context();
    let (clock, now_ns) = now();
    let x = named("x");
    let process = Process::now(42).named(&x);
    assert_eq!(cmdline(&context.facts(&process, now_ns, &clock)).as_deref(), ARGS);
    // It ended; the one that has its number now started half a second after the row.
    tree.process(42, "x", -500, 'S');
    fs::write(tree.0.join("42/cmdline"), "other\0").unwrap();
    let later = now_ns + 200_000_000;
    assert_eq!(cmdline(&context.facts(&process, later, &clock)).as_deref(), ARGS, "remembered");
    assert_eq!(cmdline(&context.facts(&Process::now(42), later, &clock)), None, "no name to know it by");
    let y = named("y");
    assert_eq!(cmdline(&context.facts(&process.named(&y), later, &clock)), None, "another name");
    assert_eq!(cmdline(&tree.context().facts(&process, now_ns, &clock)), None, "never seen");
    // A number comes back when all others have been given.
    let much_later = now_ns + context.unique_ns + 1_000_000_000;
    tree.end(42);
    assert_eq!(cmdline(&context.facts(&process, much_later, &clock)), None);
}

#[test]
fn one_that_started_after_it_was_noted_must_have_the_name() {
    let tree = Tree::new("noted");
    tree.process(42, "x", 1000, 'S');
    let (clock, now_ns) = now();
    let (x, worker, y) = (named("x"), named("worker"), named("y"));
    let noted = Process::now(42).noted_before(2_000_000_000);
    for (process, known) in [
        (noted.named(&x), true),
        (noted.named(&worker), true),
        (noted.named(&y), false),
        (noted, false),
        (noted.noted_before(500_000_000), true),
        (noted.noted_before(500_000_000).named(&y), true),
    ] {
        let facts = tree.context().facts(&process, now_ns, &clock);
        assert_eq!(cmdline(&facts).is_some(), known, "{process:?}");
    }
}

#[test]
fn what_is_remembered_is_read_again_and_outlives_the_process() {
    let tree = Tree::new("fresh");
    tree.process(42, "x", 5000, 'S');
    let mut context = tree.context();
    let (clock, now_ns) = now();
    let (x, y) = (named("x"), named("y"));
    let process = Process::now(42).named(&x);
    context.facts(&process, now_ns, &clock);
    let args = tree.0.join("42/cmdline");
    fs::write(&args, "new\0").unwrap();
    assert_eq!(cmdline(&context.facts(&process, now_ns + 50_000_000, &clock)).as_deref(), ARGS);
    assert_eq!(
        cmdline(&context.facts(&process.named(&y), now_ns + 50_000_000, &clock)).as_deref(),
        Some("new")
    );
    fs::write(&args, "newer\0").unwrap();
    let read_ns = clock.monotonic_ns();
    assert_eq!(cmdline(&context.facts(&process, read_ns + 150_000_000, &clock)).as_deref(), Some("newer"));
    // A zombie has no arguments any more.
    let start = fs::read_to_string(tree.0.join("42/stat")).unwrap();
    fs::write(tree.0.join("42/stat"), start.replace(") S", ") Z")).unwrap();
    fs::write(&args, "").unwrap();
    let read_ns = clock.monotonic_ns();
    assert_eq!(cmdline(&context.facts(&process, read_ns + 150_000_000, &clock)).as_deref(), Some("newer"));
    tree.end(42);
    let read_ns = clock.monotonic_ns();
    assert_eq!(cmdline(&context.facts(&process, read_ns + 150_000_000, &clock)).as_deref(), Some("newer"));
}

#[test]
fn a_program_of_the_start_is_known_until_another_one_is_run() {
    let tree = Tree::new("program");
    for pid in 42..45 {
        tree.process(pid, "x", 5000, 'S');
        symlink("/opt/x", tree.0.join(pid.to_string()).join("exe")).unwrap();
    }
    let mut context = tree.context();
    assert_eq!(context.programs.len(), 3);
    for pid in 42..45 {
        fs::remove_file(tree.0.join(pid.to_string()).join("exe")).unwrap();
    }
    let (clock, now_ns) = now();
    // The second has other code and other arguments; the third has changed its arguments only.
    fs::write(tree.0.join("43/statm"), "700 378 300 6 0 100 0\n").unwrap();
    for pid in [43, 44] {
        fs::write(tree.0.join(pid.to_string()).join("cmdline"), "x: idle\0").unwrap();
    }
    for (pid, known) in [(42, true), (43, false), (44, true)] {
        let facts = context.facts(&Process::now(pid), now_ns, &clock);
        assert_eq!(text(&facts, Fact::Exe).is_some(), known, "{pid}");
    }
}

#[test]
fn a_process_has_the_names_that_its_cgroup_and_the_kubelet_give() {
    let tree = Tree::new("cgroup");
    let (id, uid) = ("3f4e9c1d2b5a6978".repeat(4), "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0");
    for pid in 42..46 {
        tree.process(pid, "x", 5000, if pid == 45 { 'Z' } else { 'S' });
    }
    let group = |pid: u32, text: String| fs::write(tree.0.join(format!("{pid}/cgroup")), text).unwrap();
    group(42, format!("0::/system.slice/docker-{id}.scope\n"));
    group(
        43,
        format!("4:memory:/kubepods/pod{uid}/{id}\n1:name=systemd:/system.slice/kubelet.service\n0::/\n"),
    );
    group(44, "0::/system.slice/nginx.service\n".to_owned());
    group(45, "4:memory:/\n1:name=systemd:/\n".to_owned());
    let mut context = tree.context();
    context.pods = Pods::new(&tree.0.join("log"));
    let (clock, now_ns) = now();
    let mut told = |pid: u32| -> Vec<String> {
        let facts = context.facts(&Process::now(pid), now_ns, &clock);
        Fact::ALL[4..].iter().map(|fact| text(&facts, *fact).unwrap_or_default()).collect()
    };
    let (docker, short) = (format!("/system.slice/docker-{id}.scope"), "3f4e9c1d2b5a");
    assert_eq!(told(42), [&docker, "", short, &*id, "", "", ""]);
    assert_eq!(told(44), ["/system.slice/nginx.service", "nginx.service", "", "", "", "", ""]);
    assert_eq!(told(45), [""; 7], "version 1 does not know of the dead");
    // The hierarchy that has the container, though another one comes first.
    fs::create_dir_all(tree.0.join(format!("log/pods/shop_web-7d4_{uid}"))).unwrap();
    fs::create_dir_all(tree.0.join("log/containers")).unwrap();
    fs::write(tree.0.join(format!("log/containers/web-7d4_shop_nginx-{id}.log")), "").unwrap();
    context.pods = Pods::new(&tree.0.join("log"));
    let mut told = |pid: u32| -> Vec<String> {
        let facts = context.facts(&Process::now(pid), now_ns, &clock);
        Fact::ALL[5..].iter().map(|fact| text(&facts, *fact).unwrap_or_default()).collect()
    };
    assert_eq!(told(43), ["", "nginx", &*id, "web-7d4", uid, "shop"]);
}

#[test]
fn memory_is_bounded_however_many_processes_there_are() {
    let tree = Tree::new("bound");
    tree.process(1, "x", 5000, 'S');
    let mut context = tree.context();
    let (clock, now_ns) = now();
    for pid in 2..u32::try_from(MOST_PROCESSES).unwrap() + 500 {
        symlink(tree.0.join("1"), tree.0.join(pid.to_string())).unwrap();
        assert_eq!(cmdline(&context.facts(&Process::now(pid), now_ns, &clock)).as_deref(), ARGS);
        assert!(context.seen.len() <= MOST_PROCESSES);
    }
    fs::write(tree.0.join("1/cmdline"), [b'x'; 5000]).unwrap();
    assert_eq!(cmdline(&context.facts(&Process::now(1), now_ns, &clock)).unwrap().len(), LONGEST);
}

#[test]
fn hidden_processes_are_known_by_the_mount() {
    let mounts = |options: &str| {
        format!("proc /proc proc rw 0 0\nx /x y rw,hidepid=2 0 0\nproc /proc proc {options} 0 0\n")
    };
    for (options, hidden) in [
        ("rw", false),
        ("rw,hidepid=0", false),
        ("rw,hidepid=off", false),
        ("rw,hidepid=2", true),
        ("hidepid=invisible", true),
    ] {
        assert_eq!(hides(&mounts(options)), hidden, "{options}");
    }
}
