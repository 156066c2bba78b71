//! The option groups that several tools share, one struct per meaning.
//!
//! A group owns a letter only because all of its users agree on it; everything else is the tool's own.
// No doc comments on these structs: flattened, they would replace the command's description.
#![expect(missing_docs, reason = "a doc comment on a flattened Args replaces the command's about")]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use netbcc_common::socket::asked;

use super::select::{IdList, pid_list, pid_list_or_all, uid_list};
use super::values::{Ports, given, path, ports, positive};
use crate::out::Format;

/// The help's section of options that choose rows. Named per option: a heading of a whole group would go on to
/// the options that follow it.
pub const FILTERS: &str = "Filters";
/// The help's section of options that choose the form of rows.
pub const OUTPUT: &str = "Output";

// Sockets of one family only.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Family {
    /// IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = FILTERS)]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long, help_heading = FILTERS)]
    pub ipv6: bool,
}

// Processes, where BCC has a letter for one. The engine reads them (`select.rs`).
#[derive(Args, Clone, Debug, Default)]
pub struct Pid {
    /// These processes only: 181,1000-1999,!1234
    #[arg(short, long, value_name = "PIDS", value_parser = pid_list, help_heading = FILTERS)]
    pub pid: Option<IdList>,
}

// Processes, in the tools where BCC takes 0 for all.
#[derive(Args, Clone, Debug, Default)]
pub struct PidOrAll {
    /// These processes only: 181,1000-1999,!1234; 0 means all
    #[arg(short, long, value_name = "PIDS", value_parser = pid_list_or_all, help_heading = FILTERS)]
    pub pid: Option<IdList>,
}

// Users, where BCC has a letter for one. The engine reads them (`select.rs`).
#[derive(Args, Clone, Debug, Default)]
pub struct Uid {
    /// These users only: 0,1000-1999
    #[arg(short, long, value_name = "UIDS", value_parser = uid_list, help_heading = FILTERS)]
    pub uid: Option<IdList>,
}

// Local and remote ports.
#[derive(Args, Clone, Debug, Default)]
pub struct FlowPorts {
    /// These local ports only, comma-separated
    #[arg(short = 'L', long, value_name = "PORTS", value_parser = ports, help_heading = FILTERS)]
    pub localport: Vec<Ports>,
    /// These remote ports only, comma-separated
    #[arg(short = 'D', long, value_name = "PORTS", value_parser = ports, help_heading = FILTERS)]
    pub remoteport: Vec<Ports>,
}

// The socket's owner, in the tools whose PID is the task on the CPU.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Owner {
    /// PID is the socket's owner, not the task on the CPU
    #[arg(long, help_heading = OUTPUT)]
    pub owner: bool,
}

impl Owner {
    /// What the option asks of sockets, with what a table's columns ask: bits of [`asked`].
    pub fn asks(self, columns: u32) -> u32 {
        columns | if self.owner { asked::OWNER | asked::BY_OWNER } else { 0 }
    }
}

// Connections that are older than the tool.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Existing {
    /// Also older connections, with > before MS
    #[arg(long, help_heading = OUTPUT)]
    pub existing: bool,
}

// Containers, by pinned maps.
#[derive(Args, Clone, Debug, Default)]
pub struct Containers {
    /// Only cgroups in this pinned BPF map
    #[arg(long, value_name = "PATH", value_parser = path(), help_heading = FILTERS)]
    cgroupmap: Option<PathBuf>,
    /// Only mount namespaces in this pinned map
    #[arg(long, value_name = "PATH", value_parser = path(), help_heading = FILTERS)]
    mntnsmap: Option<PathBuf>,
}

impl Containers {
    pub fn cgroupmap(&self) -> Option<&Path> {
        given(self.cgroupmap.as_ref())
    }

    pub fn mntnsmap(&self) -> Option<&Path> {
        given(self.mntnsmap.as_ref())
    }
}

// Seconds since the first row.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Timestamp {
    /// Add the time in seconds since the first row
    #[arg(short = 't', long, help_heading = OUTPUT)]
    pub timestamp: bool,
}

// Time of day.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct WallClock {
    /// Add the time of day (HH:MM:SS)
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    pub time: bool,
}

// BCC's wide and comma-separated forms. For tools that have `Json` as well.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct WideCsv {
    /// Wide columns, with room for IPv6 addresses
    #[arg(short, long, help_heading = OUTPUT)]
    pub wide: bool,
    /// Comma-separated values
    #[arg(short = 's', long, conflicts_with = "json", help_heading = OUTPUT)]
    pub csv: bool,
}

impl WideCsv {
    pub fn format(self, json: Json) -> Format {
        if self.csv { Format::Csv } else { json.format() }
    }
}

// One JSON object per row.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Json {
    /// One JSON object per line; otlp: an OpenTelemetry log
    #[arg(
        long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "lines",
        value_enum, hide_possible_values = true, help_heading = OUTPUT
    )]
    pub json: Option<JsonForm>,
}

/// What an object of JSON is.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// A row, with its fields as keys.
    Lines,
    /// A request of OTLP/JSON with one record of a log.
    Otlp,
}

impl Json {
    pub fn format(self) -> Format {
        if self.json.is_some() { Format::Json } else { Format::Text }
    }
}

// How often a sampler prints, and how many times.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Every {
    /// Seconds between outputs
    #[arg(value_name = "INTERVAL", value_parser = positive)]
    pub interval: Option<NonZeroU32>,
    /// Number of outputs
    #[arg(value_name = "COUNT", value_parser = positive)]
    pub count: Option<NonZeroU32>,
}

// More words on stderr, where the letter is free.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Verbose {
    /// Say on stderr which hooks are used, and why not others
    #[arg(short, long)]
    pub verbose: bool,
}
