//! What all command lines have in common, and what all tools have.

use clap::{Arg, ArgAction, Command};

use super::OUTPUT;
use super::values::{path, rotation};

/// What all of our command lines have in common: argparse's manners, as BCC's users know them.
pub fn manners(command: Command) -> Command {
    // One form of help, the compact one.
    let help = Arg::new("help").short('h').long("help").help("Print this help");
    // No group has this letter, and a script that asks for the version asks the tool that it will call.
    let version = Arg::new("version").short('V').long("version").help("Print the version");
    command
        .version(concat!("(netbcc) ", env!("CARGO_PKG_VERSION")))
        .disable_version_flag(true)
        .arg(version.action(ArgAction::Version).display_order(1001))
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .arg(help.action(ArgAction::HelpShort))
        .infer_long_args(true)
        .args_override_self(true)
        .term_width(79)
}

/// `-o` and `--no-header`: which columns of its rows a tool prints. `--file` and `--rotate`: where.
pub fn output() -> [Arg; 4] {
    let columns =
        Arg::new("output").short('o').long("output").value_name("COLUMNS").action(ArgAction::Append);
    let bare = Arg::new("no-header").long("no-header").action(ArgAction::SetTrue);
    let file = Arg::new("file").long("file").value_name("FILE").value_parser(path());
    let rotate = Arg::new("rotate").long("rotate").value_name("SIZE[,FILES]").value_parser(rotation);
    [
        columns
            .help("Only these columns, or with + before them also these; help lists them")
            .help_heading(OUTPUT),
        bare.help("Print no titles of columns").help_heading(OUTPUT),
        file.help("Append to this file; SIGHUP opens it again").help_heading(OUTPUT),
        rotate.requires("file").help("Files of SIZE (64M), and FILES (4) older ones").help_heading(OUTPUT),
    ]
}
