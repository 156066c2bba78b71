//! What this kernel offers, how a check is skipped, and how checks become trials.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use crate::hidden::Canaries;
use crate::net::Net;
use crate::run::Launch;

/// One way to attach a tool's hooks, or `Any` for checks that do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// fentry and fexit trampolines.
    Fexit,
    /// kprobes and kretprobes.
    Kprobe,
    /// tracepoints, raw or typed.
    Tracepoint,
    /// tracepoints without types.
    RawTp,
    /// breakpoints in programs.
    Uprobe,
    /// Whatever the tool chooses by itself.
    Any,
}

impl Rung {
    /// The rungs that most tools can be forced to.
    pub const FORCED: [Self; 3] = [Self::Fexit, Self::Kprobe, Self::Tracepoint];

    /// The name in test names and in `NETBCC_ATTACH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::RawTp => "raw_tp",
            Self::Uprobe => "uprobe",
            Self::Any => "any",
        }
    }

    /// Whether `NETBCC_EXPECT_RUNGS` says that this kernel has this rung.
    fn is_expected(self) -> bool {
        std::env::var("NETBCC_EXPECT_RUNGS")
            .is_ok_and(|list| list.split(',').any(|rung| rung.trim() == self.name()))
    }
}

/// A check on one rung of one tool.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The tool's name.
    pub tool: &'static str,
    /// The rung that the tool is forced to.
    pub rung: Rung,
}

impl Case {
    /// The tool with these arguments (separated by blanks), on this case's rung.
    pub fn launch(&self, args: &str) -> Launch {
        Launch::new(self.tool, args).rung(self.rung)
    }
}

impl Case {
    /// The ways in which rows come about on this rung: with the local port, the tracepoint rung waits for the SYN's timer.
    pub fn variants(&self) -> &'static [&'static str] {
        if self.rung == Rung::Tracepoint { &["", "-L"] } else { &[""] }
    }

    /// What the tool says on stderr when all is well: which hooks are less exact here.
    pub fn notes(&self, args: &str) -> String {
        self.launch(args).start(&Net::new()).finish().said()
    }
}

/// A check: its name, which is a sentence, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The sentence.
    pub name: &'static str,
    /// The body; panics when the sentence is false.
    pub body: fn(&Case),
    /// Whether it needs the machine for itself, because it floods every tool that runs or has much to do.
    pub alone: bool,
}

/// Names the functions of a module as its checks.
#[macro_export]
macro_rules! checks {
    ($($name:ident $(: $alone:ident)?),* $(,)?) => {
        &[$($crate::kernel::Check {
            name: stringify!($name),
            body: $name,
            alone: $crate::checks!(@alone $($alone)?),
        }),*]
    };
    (@alone alone) => { true };
    (@alone) => { false };
}

/// Trials of `tool`: every check on every rung. `NETBCC_WHOLE` may name the rungs (`any` for checks that need none) whose
/// checks all run, or one tool's (`tcptop::fexit`); on the other rungs it is the first one of the list, by convention the
/// tool's plainest rows, and none of the lists that belong to no rung. It leaves out all lists of a tool that it names with a minus (`-doctor`).
pub fn trials(tool: &'static str, rungs: &'static [Rung], checks: &'static [Check]) -> Vec<Trial> {
    rungs.iter().flat_map(|&rung| trials_of(tool, rung, rung.name(), checks)).collect()
}

/// The value of `NETBCC_WHOLE` that leaves nothing but the first check of each list that belongs to a rung.
const SMOKE: &str = "smoke";

/// Of these the first check runs everywhere: a tool that chooses its rung by itself, what says which rungs there are, and the
/// verifier's table, but this one not in a smoke test.
const WITHOUT_RUNG: [&str; 3] = ["doctor", "tcpdrop", VERIFIER];

const VERIFIER: &str = "verifier";

/// The list of what does not depend on the kernel.
const NETBCC: &str = "netbcc";

/// Trials of what netbcc does in the same way on every kernel: where `NETBCC_WHOLE` is set, it must name them.
pub fn trials_of_netbcc(tool: &'static str, checks: &'static [Check]) -> Vec<Trial> {
    trials_of(tool, Rung::Any, NETBCC, checks)
}

/// Trials that take long in a guest, of a rung's list: where `NETBCC_WHOLE` is set, it must name this group and that rung
/// (`select::fexit`); all of them run without it.
pub fn trials_of_group(
    group: &str,
    tool: &'static str,
    rungs: &'static [Rung],
    checks: &'static [Check],
) -> Vec<Trial> {
    let whole = std::env::var("NETBCC_WHOLE").ok();
    let is_chosen = |rung: &&Rung| {
        let name = format!("{group}::{}", rung.name());
        whole.as_ref().is_none_or(|whole| whole.split(',').any(|word| *word == name))
    };
    rungs.iter().filter(is_chosen).flat_map(|&rung| all_of(tool, rung, checks)).collect()
}

fn all_of(tool: &'static str, rung: Rung, checks: &'static [Check]) -> Vec<Trial> {
    let trial = |&check: &Check| {
        let name = format!("{tool}::{}::{}", rung.name(), check.name);
        let case = Case { tool, rung };
        Trial::ignorable_test(name.clone(), move || run(&name, case, check))
    };
    checks.iter().map(trial).collect()
}

fn trials_of(tool: &'static str, rung: Rung, list: &str, checks: &'static [Check]) -> Vec<Trial> {
    let (is_whole, is_smoke) = match std::env::var("NETBCC_WHOLE") {
        Ok(whole) if whole.split(',').any(|word| word.strip_prefix('-') == Some(tool)) => return Vec::new(),
        Ok(whole) => {
            let is_whole = whole.split(',').any(|word| match word.split_once("::") {
                Some((of, rung)) => of == tool && rung == list,
                None => word == list,
            });
            (is_whole, whole == SMOKE)
        }
        Err(_) => (true, false),
    };
    let needs_no_rung = rung == Rung::Any && !WITHOUT_RUNG.contains(&tool);
    let is_left_out =
        if is_smoke { needs_no_rung || tool == VERIFIER } else { needs_no_rung || list == NETBCC };
    let checks = match (is_whole, is_left_out) {
        (true, _) => checks,
        (false, true) => &[],
        (false, false) => checks.get(..1).unwrap_or(checks),
    };
    all_of(tool, rung, checks)
}

/// Ends the running check as skipped: this machine lacks `what`.
pub fn skip(what: impl Into<String>) -> ! {
    panic::panic_any(Skip(what.into()))
}

/// What a kernel says that has fentry, but makes no trampoline for this function, which has six arguments: Debian's 6.1.
const NO_TRAMPOLINE: &str = "attach tcp_v4_syn_recv_sock: the kernel does not support it (ENOTSUPP)";

/// Ends the running check as skipped if the kernel does not have the rung, as failed if it should.
pub fn lacks_rung(rung: Rung, why: &str) -> ! {
    let is_excused = rung == Rung::Fexit && why.contains(NO_TRAMPOLINE);
    assert!(!rung.is_expected() || is_excused, "NETBCC_EXPECT_RUNGS names {}, but: {why}", rung.name());
    skip(why)
}

struct Skip(String);

/// Checks run side by side, except those that need the machine alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// What a panicking thread said, kept for the report of its trial.
static PANICS: Mutex<Option<HashMap<ThreadId, String>>> = Mutex::new(None);

/// Makes panics of checks go into the report of their trial rather than between other lines on stderr.
pub fn collect_panics() {
    panic::set_hook(Box::new(|info| {
        if info.payload().is::<Skip>() {
            return;
        }
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let text = format!("{}\n  at {place}", message(info.payload()));
        PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default()
            .entry(thread::current().id())
            .or_insert(text);
    }));
}

/// Whether the check of this thread has failed; one that is skipped has not.
pub(crate) fn has_failed() -> bool {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.as_ref().is_some_and(|panics| panics.contains_key(&thread::current().id()))
}

/// Adds to what the check of this thread said when it failed, before the output that it goes with, which is long.
pub(crate) fn also_said(text: &str) {
    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(told) = panics.as_mut().and_then(|panics| panics.get_mut(&thread::current().id())) {
        match told.find("---- ") {
            Some(at) => told.insert_str(at, &format!("{text}\n")),
            None => told.extend(["\n", text]),
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without a message".into())
}

/// How often a check may run before it has failed, where the kernel may be the one to blame. It skips a kprobe that
/// hits while another one runs on the same CPU, as when an interrupt brings packets in the middle of one: a row in a
/// hundred on an emulated processor. Kernels before 6.6 do not even count that, so nobody can tell such a failure from
/// another. Other programs are skipped far less often, and always counted: then the tool said so when its check had
/// failed.
const RUNS: u32 = 3;

/// How often it may run where the kernel hid events from all programs ([`hidden`](crate::hidden)), which is known of each run:
/// it may hide some every few seconds.
const HIDDEN_RUNS: u32 = 6;

/// What the kernel hides while checks run, if it is watched.
static CANARIES: OnceLock<Canaries> = OnceLock::new();

/// Has checks that fail while the kernel hides events run again.
pub fn watch_with(canaries: Canaries) {
    CANARIES.set(canaries).expect("it is done once");
}

fn hidden() -> usize {
    CANARIES.get().map_or(0, Canaries::hidden)
}

thread_local! {
    /// How many events the kernel had hidden when the check of this thread began.
    static HIDDEN_BEFORE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Whether the kernel has hidden events from all programs since the check of this thread began: one that fails runs again.
pub(crate) fn kernel_hid_events() -> bool {
    hidden() > HIDDEN_BEFORE.get()
}

/// Runs a check; again if it failed and the kernel may be why, which is said.
fn run(name: &str, case: Case, check: Check) -> Result<Completion, Failed> {
    let mut nth = 1;
    loop {
        let before = hidden();
        let outcome = run_once(name, case, check);
        let Err(failed) = &outcome else { return outcome };
        let hidden = hidden().saturating_sub(before);
        let report = failed.message().unwrap_or_default();
        let skipped = report.contains(" the kernel skipped ");
        let most = match hidden {
            0 if case.rung == Rung::Kprobe || skipped => RUNS,
            0 => 1,
            _ => HIDDEN_RUNS,
        };
        if nth >= most {
            return outcome;
        }
        let why = report.lines().next().unwrap_or_default();
        let meanwhile = match hidden {
            0 if skipped => " (the kernel skipped runs meanwhile)".to_owned(),
            0 => String::new(),
            events => format!(" (the kernel ran no program for {events} events meanwhile)"),
        };
        note(format!("AGAIN {name}: run {nth} of at most {most} failed{meanwhile}: {why}"));
        nth += 1;
    }
}

/// Runs a check in a thread of its own, because checks change the namespaces of their thread.
fn run_once(name: &str, case: Case, check: Check) -> Result<Completion, Failed> {
    let guards = if check.alone {
        (None, Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
    } else {
        (Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner)), None)
    };
    let body = move || {
        HIDDEN_BEFORE.set(hidden());
        panic::catch_unwind(AssertUnwindSafe(|| {
            require_rung(case);
            (check.body)(&case);
        }))
        .map_err(|payload| match payload.downcast::<Skip>() {
            Ok(skip) => Verdict::Skipped(skip.0),
            Err(payload) => {
                let told = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                let told = told.as_ref().and_then(|panics| panics.get(&thread::current().id()).cloned());
                Verdict::Failed(told.unwrap_or_else(|| message(&*payload)))
            }
        })
    };
    let since = Instant::now();
    let outcome = thread::Builder::new().name("check".into()).spawn(body)?.join();
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((since.elapsed(), name.to_owned()));
    drop(guards);
    match outcome {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(Verdict::Skipped(reason))) => {
            note(format!("SKIP {name}: {reason}"));
            Ok(Completion::ignored_with(reason))
        }
        Ok(Err(Verdict::Failed(report))) => Err(report.into()),
        Err(_) => Err("the thread of the check died".into()),
    }
}

enum Verdict {
    Skipped(String),
    Failed(String),
}

/// What is to be said about trials. Not while they run: the harness prints its own lines in pieces.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a line for the end.
pub fn note(line: String) {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// How long each trial took, not counting its wait for others.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Says which trials were skipped and which ran again, and why; and which took longest, as they are most of a run.
pub fn tell_notes() {
    const TOLD: usize = 20;
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable_by(|a, b| b.cmp(a));
    for (time, name) in took.iter().take(TOLD) {
        say(&format!("SLOW {name}: {:.1} s", time.as_secs_f64()));
    }
    for line in NOTES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        say(&line);
    }
}

/// One line to whoever watches the tests.
pub fn say(line: &str) {
    use std::io::Write as _;
    // Nobody is left to be told if stdout is closed.
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

/// Why this kernel cannot run the case's tool on its rung, if it says so. The tool is asked once: a start takes an emulated
/// processor seconds.
pub fn refusal_of(case: Case) -> Option<String> {
    type Refusals = HashMap<(&'static str, Rung), Option<String>>;
    static KNOWN: Mutex<Option<Refusals>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .get_or_insert_default()
        .entry((case.tool, case.rung))
        .or_insert_with(|| {
            case.launch(least(case.tool)).refusal().inspect(|why| doctor_says_so_too(case, why))
        })
        .clone()
}

/// The least that a tool is to be told.
pub fn least(tool: &str) -> &'static str {
    if tool == "netqtop" { "-n lo" } else { "" }
}

/// Ends the running check as skipped if this kernel does not offer the case's rung.
fn require_rung(case: Case) {
    if case.rung == Rung::Any {
        return;
    }
    if let Some(why) = refusal_of(case) {
        lacks_rung(case.rung, &why);
    }
}

/// Insists that doctor refuses what the tool refuses, for the same reasons.
fn doctor_says_so_too(case: Case, refusal: &str) {
    let ended = Launch::new("doctor", &format!("{} --json", case.tool)).ends();
    let text = ended.stdout.join("");
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| ended.fail(&error.to_string()));
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let hooks = items(&answer["tools"][0]["hooks"]);
    let refuses = |hooks: &&Value| {
        let ways = items(&hooks["ways"]);
        let mut ways = ways.iter().filter(|way| way["by"] == case.rung.name());
        hooks["optional"] == false
            && ways.all(|way| way["why"].as_str().is_some_and(|why| refusal.contains(why)))
    };
    if !hooks.iter().any(|hooks| refuses(&hooks)) {
        ended.fail(&format!("doctor does not say what the tool says: {refusal}"));
    }
}
