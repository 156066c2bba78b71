//! How standard output was when this process began.
//!
//! Rust's runtime opens /dev/null in place of a closed descriptor 0, 1 or 2 before `main` runs. A tool whose output was
//! closed (`>&-`) would then trace for ever and print nothing. So the question is asked before the runtime starts.
#![expect(
    unsafe_code,
    reason = "the loader calls a function before the runtime starts; nothing is dereferenced"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime, as every function whose address is in this section.
///
/// SAFETY: the C runtime calls each address in `.init_array` as a C function, and passes arguments that may be ignored
/// (System V ABI, "Initialization and Termination Functions"). The function makes one system call about the number 1 and
/// stores a flag: it needs nothing of the runtime, and no handle of the standard library.
#[used]
#[unsafe(link_section = ".init_array")]
static ASK: extern "C" fn() = ask;

extern "C" fn ask() {
    let closed = fcntl(rustix::stdio::stdout(), FcntlArg::F_GETFD).is_err();
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Whether the process was started with its standard output closed.
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}
