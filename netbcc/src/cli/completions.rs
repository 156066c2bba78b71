//! `netbcc completions`: scripts for shells, from the command lines themselves.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Arg, ArgAction, Command};
use clap_complete::{Shell, generate};

use super::args::{parse_args, print as answer};
use super::verbs;
use crate::tool::Entry;

/// `netbcc completions SHELL [TOOL]`.
pub(super) fn print(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = parse_args(verbs::completions(tools), args)? else { return Ok(()) };
    let shell = match matches.get_one::<String>("shell").map_or("", String::as_str) {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut command = match verbs::tool(&matches, tools) {
        Some(entry) => (entry.command)(),
        None => verbs::netbcc(tools),
    };
    if shell != Shell::Zsh {
        command = json_as_a_flag(command);
    }
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    answer(String::from_utf8(script)?)
}

/// The same command for shells whose scripts would offer the value of `--json=FORM` as a word of its own, which it is not.
fn json_as_a_flag(command: Command) -> Command {
    let command = command.mut_args(|arg| match (arg.is_require_equals_set(), arg.get_long()) {
        (true, Some("json")) => {
            let flag = Arg::new("json").long("json").action(ArgAction::SetTrue);
            flag.help(arg.get_help().cloned().unwrap_or_default())
        }
        _ => arg,
    });
    command.mut_subcommands(json_as_a_flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::TOOLS;

    #[test]
    fn no_shell_offers_what_is_no_word() {
        for command in [(TOOLS[0].command)(), verbs::netbcc(TOOLS)] {
            for shell in [Shell::Bash, Shell::Fish] {
                let mut script = Vec::new();
                generate(shell, &mut json_as_a_flag(command.clone()), "x", &mut script);
                let script = String::from_utf8(script).unwrap();
                assert!(script.contains("json") && !script.contains("lines"), "{script}");
            }
        }
    }
}
