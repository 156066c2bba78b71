//! The `netbcc` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    netbcc::cli::main(&std::env::args_os().collect::<Vec<_>>(), netbcc::registry::TOOLS)
}
