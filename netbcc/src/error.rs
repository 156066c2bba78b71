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
    if is_broken_pipe(err) {
        EXIT_OK
    } else if any(err, &|cause| cause.is::<Usage>()) {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    }
}

/// Whether the reader of our output went away: a normal end.
pub fn is_broken_pipe(err: &Error) -> bool {
    any(err, &|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
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
        let pipe = || Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(exit_code(&anyhow!("x")), EXIT_FAILURE);
        assert_eq!(exit_code(&usage("x").context("y")), EXIT_USAGE);
        assert_eq!(exit_code(&pipe().context("write")), EXIT_OK);
        assert_eq!(exit_code(&hinted(pipe(), "x").context("write")), EXIT_OK);
        assert_eq!(exit_code(&hinted(usage("x"), "y")), EXIT_USAGE);
    }

    #[test]
    fn other_io_errors_are_no_broken_pipe() {
        assert!(!is_broken_pipe(&Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("write")));
        let lost: anyhow::Result<()> = Err(io::Error::from(io::ErrorKind::NotFound)).context("open");
        assert!(!is_broken_pipe(&lost.unwrap_err()));
    }
}
