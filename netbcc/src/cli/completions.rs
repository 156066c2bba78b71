//! `netbcc completions`: scripts for shells, from the command lines themselves.

use std::ffi::OsString;

use anyhow::Result;
use clap_complete::{Shell, generate};

use super::verbs;
use crate::tool::Entry;

/// `netbcc completions SHELL [TOOL]`.
pub(super) fn print(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = super::parse_args(verbs::completions(tools), args)? else { return Ok(()) };
    let shell = match matches.get_one::<String>("shell").map_or("", String::as_str) {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut command = match verbs::tool(&matches, tools) {
        Some(entry) => (entry.command)(),
        None => verbs::netbcc(tools),
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    super::print(String::from_utf8(script)?)
}
