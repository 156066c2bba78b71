//! What an error carries beyond its sentence: a hint for the user, and the exit code.
//!
//! Lives here: wrappers around `anyhow::Error` that leave its chain of causes as it is. Must never live here:
//! printing (that is `out/`) or ending the process (that is `main`).

use std::error::Error as StdError;
use std::fmt;
use std::io;

use anyhow::Error;

/// Everything went as asked, or the reader of our output went away.
pub const EXIT_OK: u8 = 0;
/// What was asked for could not be done.
pub const EXIT_FAILURE: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;

/// Adds a hint: what the user can do about it. Printed behind the error, or below it if it has several lines.
pub fn hinted(err: Error, hint: impl Into<String>) -> Error {
    Error::new(Hinted { inner: err, hint: hint.into() })
}

/// The first hint in the chain.
pub fn hint_of(err: &Error) -> Option<&str> {
    err.chain().find_map(|cause| cause.downcast_ref::<Hinted>()).map(|hinted| hinted.hint.as_str())
}

/// A wrong use of options that only the tool itself can see.
pub fn usage(what: impl Into<String>) -> Error {
    Error::new(Usage(what.into()))
}

/// The exit code that an error deserves.
pub fn exit_code(err: &Error) -> u8 {
    if is_reader_gone(err) {
        EXIT_OK
    } else if any(err, &|cause| cause.is::<Usage>()) {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    }
}

/// Why standard output, or the file in its place that `target` names, took nothing any more.
pub fn not_written(error: io::Error, target: &str) -> Error {
    let what = format!("write to {target}");
    if error.kind() == io::ErrorKind::BrokenPipe {
        Error::new(ReaderGone(error)).context(what)
    } else {
        Error::new(error).context(what)
    }
}

/// The reader of standard output went away, which was seen before the next row.
pub fn reader_gone() -> Error {
    not_written(io::ErrorKind::BrokenPipe.into(), "standard output")
}

/// Whether the reader of our output went away: a normal end. A pipe of another purpose that nobody reads is none.
pub fn is_reader_gone(err: &Error) -> bool {
    any(err, &|cause| cause.is::<ReaderGone>())
}

/// Whether `test` holds for an error of the chain, also for one that a hint stands in for.
fn any(err: &Error, test: &dyn Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    err.chain()
        .any(|cause| test(cause) || cause.downcast_ref::<Hinted>().is_some_and(|h| any(&h.inner, test)))
}

/// Stands in the chain for the error that it wraps: shows its sentence, goes on with its cause.
#[derive(Debug)]
struct Hinted {
    inner: Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

impl StdError for Hinted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source()
    }
}

/// Stands in the chain for the error of a write to standard output.
#[derive(Debug)]
struct ReaderGone(io::Error);

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for ReaderGone {}

#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Usage {}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_hint_leaves_the_chain_as_it_is() {
        let err = hinted(anyhow!("refused").context("load the program"), "run it as root").context("attach");
        assert_eq!(format!("{err:#}"), "attach: load the program: refused");
        assert_eq!(hint_of(&err), Some("run it as root"));
        assert_eq!(hint_of(&anyhow!("x")), None);
    }

    #[test]
    fn exit_codes() {
        let pipe = reader_gone;
        assert_eq!(exit_code(&anyhow!("x")), EXIT_FAILURE);
        assert_eq!(exit_code(&usage("x").context("y")), EXIT_USAGE);
        assert_eq!(exit_code(&pipe().context("write")), EXIT_OK);
        assert_eq!(exit_code(&hinted(pipe(), "x").context("write")), EXIT_OK);
        assert_eq!(exit_code(&hinted(usage("x"), "y")), EXIT_USAGE);
    }

    #[test]
    fn no_other_error_says_that_the_reader_is_gone() {
        let full = not_written(io::ErrorKind::StorageFull.into(), "standard output");
        assert!(!is_reader_gone(&full) && format!("{full:#}").starts_with("write to standard output: "));
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::BrokenPipe] {
            let other: anyhow::Result<()> = Err(io::Error::from(kind)).context("write to another pipe");
            let other = other.unwrap_err();
            assert!(!is_reader_gone(&other) && exit_code(&other) == EXIT_FAILURE, "{other:#}");
        }
    }
}
