//! gethostlatency: one row per name that a program looked up by its C library, with the time that it took.
//!
//! Events: `probes-ebpf/src/bin/gethostlatency.rs`, from the entries and returns of getaddrinfo(), gethostbyname() and
//! gethostbyname2() in each C library that a process has mapped or that lies in a mount namespace, when the tool starts. The hooks
//! belong to the file, so they are there for all processes that have it mapped, also for later ones.
//!
//! BCC: it looks into one C library only, the one of the host. A lookup inside another one takes its time away there.
//!
//! ```text
//! # netbcc gethostlatency --errors
//! TIME      PID     COMM                  LATms ERROR         HOST
//! 09:41:07  4711    curl                  20.36 -             www.example.org
//! 09:41:09  4712    curl                   0.31 NONAME        no.such.name
//! ```

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use clap::Args;
use netbcc_common::gethostlatency::{Config, Event, GETADDRINFO};

use super::{conn, object};
use crate::error::{hinted, usage};
use crate::hook::{Ladder, Rung, RungName, tp_btf, uprobe, uretprobe};
use crate::options::{Json, Pid, Verbose, path, select};
use crate::out::{About, Cell, Format, Kind, Process, Rows, Table, data, escaped, left, right, wall};
use crate::probe::{Batch, Plan};
use crate::sys::library::{self, Found, Library};
use crate::sys::stop;
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Gethostlatency;

/// Parses a number of milliseconds; answers nanoseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    /// A day.
    const MOST: f64 = 86_400_000.0;
    let given = text.parse().ok().filter(|ms: &f64| (0.0..=MOST).contains(ms));
    let given = given.ok_or_else(|| format!("not a number of milliseconds from 0 to {MOST}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was just checked")]
    Ok((given * 1e6).round() as u64)
}

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    pid: Pid,
    /// This file only: a C library, or a program that has the functions
    #[arg(short, long, value_name = "PATH", value_parser = path(), help_heading = "Filters")]
    libc: Option<PathBuf>,
    /// Lookups that failed only; with ERROR
    #[arg(long, help_heading = "Filters")]
    failed: bool,
    /// Lookups that took at least so many milliseconds; fractions are fine
    #[arg(long, value_name = "MS", value_parser = milliseconds, help_heading = "Filters")]
    min_ms: Option<u64>,
    /// Add why it failed (ERROR)
    #[arg(long, help_heading = "Output")]
    errors: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Gethostlatency {
    const SPEC: Spec = Spec {
        name: "gethostlatency",
        about: "Trace lookups of names by C libraries, with their latency",
        description: &[
            "Prints a row for each call of getaddrinfo(), gethostbyname() or gethostbyname2() in a C library, when it \
             returns: who called, how long the call took, and the name. That is the time as the program has it, with \
             /etc/hosts, modules of the name service, search domains, IPv4 and IPv6, and tries after a time-out; it is not \
             the time of one DNS query. A call without a name, as for a socket that will listen, is no row.",
            "At its start the tool looks for C libraries: those that processes have mapped, and those at the usual places \
             of each mount namespace, so also in containers. A process that starts later is seen if its library is one of \
             these files; -v lists them. glibc, musl and uClibc are known. A file that comes later, with a new container or \
             an upgrade, takes a new start of the tool.",
            "Programs with a resolver of their own are not seen: those of Go mostly, static programs, and users of c-ares, \
             res_query() or gethostbyname_r(). A static program whose symbols were not stripped can be named with -l. \
             Programs of 32 bits are not seen. `netbcc tcpconnect -d` reads DNS from packets.",
        ],
        examples: &[
            ("gethostlatency", "all lookups of names"),
            ("gethostlatency -p 181", "process 181 only"),
            ("gethostlatency --errors", "with why a lookup failed"),
            ("gethostlatency --failed", "failed lookups only"),
            ("gethostlatency --min-ms 100", "what took 100 ms or more"),
            ("gethostlatency -l /opt/app/bin/server", "in this file only"),
            ("gethostlatency --json", "JSON Lines"),
        ],
        overhead: "Each lookup meets two breakpoints, a few microseconds in all. Nothing runs elsewhere, but for a few \
                   instructions when a thread ends or a program starts.",
        differences: &[
            "All C libraries are hooked, of containers and of musl as well; BCC and libbpf-tools hook one.",
            "Where a library has not all of the functions, those that it has are hooked; BCC ends.",
            "A call inside another one, as gethostbyname() of musl makes it, is no row of its own, and its time stays that \
             of the outer one.",
            "TIME is when the call returned; BCC shows when the row was printed.",
            "A name that is empty in memory for the moment is read once more at the end of the call.",
        ],
        refuses: &[
            (select::ENDS, "a lookup of a name is of no connection"),
            (&[select::NETNS], "a lookup of a name is of no network namespace"),
        ],
        object: object!("gethostlatency"),
        ladders: &[LOOKUPS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let table = table(&args);
        let Some(libraries) = libraries(&args, cx)? else { return Ok(()) };
        let paths: Vec<Rc<str>> = libraries.iter().map(|library| shown(library).into()).collect();
        let config = Config { min_ns: args.min_ms.unwrap_or_default(), failed: args.failed.into(), zero: 0 };
        let mut plan = Plan::new(cx).ladder(&LOOKUPS).libraries(libraries).global("CONFIG", &config);
        if let Some(entries) = cx.table_entries {
            plan = plan.size("CALLS", entries);
        }
        let mut probe = plan.attach(cx)?;
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for event in batch.events::<Event>() {
                cx.out.row(&table, event.ts_ns, &Row::new(event, &paths));
            }
            Ok(None)
        })
    }
}

/// The functions: a C library has the first one.
const FUNCTIONS: [&str; 3] = ["getaddrinfo", "gethostbyname", "gethostbyname2"];

const LOOKUPS: Ladder = Ladder {
    name: "lookups of names",
    // Nothing else sees what a program does itself.
    rungs: &[Rung {
        name: RungName::Uprobe,
        // The ends first: a call whose beginning was not seen has none.
        programs: &[
            uretprobe("gai_uretprobe", FUNCTIONS[0]),
            uretprobe("ghbn_uretprobe", FUNCTIONS[1]),
            uretprobe("ghbn2_uretprobe", FUNCTIONS[2]),
            tp_btf("exit_tp", "sched_process_exit"),
            tp_btf("exec_tp", "sched_process_exec"),
            uprobe("gai_uprobe", FUNCTIONS[0]),
            uprobe("ghbn_uprobe", FUNCTIONS[1]),
            uprobe("ghbn2_uprobe", FUNCTIONS[2]),
        ],
        less_exact: None,
    }],
};

/// A path for people.
fn shown(library: &Library) -> String {
    escaped(library.path.as_os_str().as_bytes())
}

/// The files to be hooked. `None`: a signal says that the run is to end, before there was one.
fn libraries(args: &Options, cx: &Ctx) -> Result<Option<Vec<Library>>> {
    if let Some(path) = &args.libc {
        let opened = Library::open(path, &FUNCTIONS);
        return match opened {
            Ok(library) => {
                tell(&library, cx);
                Ok(Some(vec![library]))
            }
            Err(why) => Err(usage(format!("-l {}: {why}", escaped(path.as_os_str().as_bytes())))),
        };
    }
    let found = library::search(&FUNCTIONS, &|| stop::waits(cx.out.again().is_none()))
        .context("look for C libraries");
    let Found { libraries, unfit, left_out, not_looked_at, ended } =
        found.map_err(|error| hinted(error, "each C library takes about seven (ulimit -n)"))?;
    if ended {
        return Ok(None);
    }
    for library in &libraries {
        tell(library, cx);
    }
    for (path, why) in &unfit {
        cx.debug(format_args!("not hooked: {}: {why}", escaped(path.as_os_str().as_bytes())));
    }
    cx.debug(format_args!("C libraries: {}", libraries.len()));
    if left_out > 0 {
        cx.warn(format_args!(
            "{left_out} C libraries are left out, because there are more than {}: their lookups are not seen",
            library::MOST_FILES
        ));
    }
    if not_looked_at > 0 {
        cx.warn(format_args!(
            "{not_looked_at} files that are called like C libraries are left out, because there are too many or they are too \
             large together: lookups in them are not seen; name one with -l"
        ));
    }
    Ok(Some(libraries))
}

fn tell(library: &Library, cx: &Ctx) {
    let names: Vec<&str> = library.functions.iter().map(|(name, _)| *name).collect();
    cx.debug(format_args!("to be hooked: {}: {}", shown(library), names.join(" ")));
}

/// What is printed of an event.
pub struct Row {
    event: Event,
    library: Option<Rc<str>>,
    error: String,
}

impl Row {
    /// `paths` are those of the hooked files, in their order.
    pub fn new(event: Event, paths: &[Rc<str>]) -> Self {
        let nth = usize::try_from(event.library).ok().and_then(|library| library.checked_sub(1));
        let library = nth.and_then(|nth| paths.get(nth)).cloned();
        let error = match (error_name(&event), event.ret) {
            (_, 0) => "-".to_owned(),
            (Some(name), _) => name.to_owned(),
            (None, ret) => ret.to_string(),
        };
        Self { event, library, error }
    }

    /// The name that was looked up, if it could be read.
    fn host(&self) -> Option<&[u8]> {
        self.event.host.get(..usize::try_from(self.event.host_len).ok()?)
    }
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Self::new(event, &["/usr/lib/libc.so.6".into()])
    }
}

/// What getaddrinfo() returns (netdb.h of glibc; musl has the same numbers), and the word for a function that returned no
/// pointer.
const ERRORS: [(i32, &str); 15] = [
    (-1, "BADFLAGS"),
    (-2, "NONAME"),
    (-3, "AGAIN"),
    (-4, "FAIL"),
    (-5, "NODATA"),
    (-6, "FAMILY"),
    (-7, "SOCKTYPE"),
    (-8, "SERVICE"),
    (-9, "ADDRFAMILY"),
    (-10, "MEMORY"),
    (-11, "SYSTEM"),
    (-12, "OVERFLOW"),
    (-104, "INTR"),
    (-105, "IDN_ENCODE"),
    (0, NO_POINTER),
];

const NO_POINTER: &str = "NULL";

/// The words of [`ERRORS`].
const ERROR_NAMES: [&str; ERRORS.len()] = {
    let mut names = [""; ERRORS.len()];
    let mut nth = 0;
    while nth < names.len() {
        names[nth] = ERRORS[nth].1;
        nth += 1;
    }
    names
};

/// Why a lookup failed, by its name, if it has one.
fn error_name(event: &Event) -> Option<&'static str> {
    if event.function != GETADDRINFO {
        return (event.ret != 0).then_some(NO_POINTER);
    }
    ERRORS.iter().find(|(ret, _)| *ret == event.ret && *ret != 0).map(|(_, name)| *name)
}

const ERROR: &str = "Why it failed: what getaddrinfo() returned, without EAI_, or its number; NULL: gethostbyname() or \
                     gethostbyname2() returned no pointer. In text with --errors, a dash if it did not fail.";

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col(wall(9).about(About::text("The local time of day at which the call returned.")))
        .col(left("PID", 7, |r: &Row| r.event.pid.into()).about(conn::pid("The process that looked the name up.")))
        .col(data("tid", |r: &Row| r.event.tid.into()).about(About::count("The thread that did.").otel("thread.id")))
        .col(left("COMM", 16, |r: &Row| (&r.event.comm).into()).about(About::text(
            "The name of the thread when it called.",
        )))
        .col(
            right("LATms", 10, |r: &Row| Cell::Float(r.event.latency_ns as f64 / 1e6))
                .precision(2)
                .except(Format::Json)
                .about(About::new(Kind::Number, "How long the call took, in milliseconds.")),
        )
        .col(
            data("latency_ns", |r: &Row| r.event.latency_ns.into())
                .about(About::count("How long the call took, in nanoseconds.")),
        )
        .col(
            data("function", |r: &Row| Cell::Label(function(&r.event)))
                .about(About::new(Kind::Word(&FUNCTIONS), "The function that was called.")),
        )
        .col_if(
            args.errors || args.failed,
            left("ERROR", 13, |r: &Row| Cell::Name(r.error.as_bytes())).except(Format::Json).about(About::text(ERROR)),
        )
        .col(data("error", |r: &Row| error(&r.event)).about(About::new(Kind::WordOrNumber(&ERROR_NAMES), ERROR).or_null()))
        .col(data("ret", |r: &Row| ret(&r.event)).about(
            About::new(Kind::Integer, "What getaddrinfo() returned; null of the others, which return a pointer.").or_null(),
        ))
        .col(
            left("HOST", 0, |r: &Row| r.host().map_or(Cell::Empty, Cell::Name))
                .about(About::text("The name that was looked up, at most 79 bytes of it; null if it could not be read.").or_null()),
        )
        .col(data("libc", |r: &Row| r.library.as_deref().map_or(Cell::Empty, |path| Cell::Name(path.as_bytes()))).about(
            About::text(
                "The file of the function, as the process names it that it was found by; null before Linux 5.15.",
            )
            .or_null(),
        ))
        .col(
            data("mntns", |r: &Row| r.event.mntns.into())
                .about(About::count("The process's mount namespace, by its inode number.")),
        )
        .process(|r| Process::now(r.event.pid).named(&r.event.comm))
}

fn function(event: &Event) -> &'static str {
    usize::try_from(event.function).ok().and_then(|nth| FUNCTIONS.get(nth)).unwrap_or(&FUNCTIONS[0])
}

fn error(event: &Event) -> Cell<'static> {
    match (error_name(event), event.ret) {
        (_, 0) => Cell::Empty,
        (Some(name), _) => Cell::Label(name),
        (None, ret) => ret.into(),
    }
}

fn ret(event: &Event) -> Cell<'static> {
    if event.function == GETADDRINFO { event.ret.into() } else { Cell::Empty }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_checked() {
        assert_eq!(milliseconds("0"), Ok(0));
        assert_eq!(milliseconds("1.5"), Ok(1_500_000));
        assert_eq!(milliseconds("86400000"), Ok(86_400_000_000_000));
        for wrong in ["-1", "", "x", "NaN", "inf", "86400001"] {
            milliseconds(wrong).expect_err(wrong);
        }
    }
}
