//! Doors for the fuzz targets (tests/fuzz) to parsers that nobody else may call.
//!
//! Lives here: nothing but calls. Must never live here: a parser, or anything that a run of a tool needs.

use std::ffi::OsString;
use std::fs::File;
use std::io;

use anyhow::Result;

use crate::cli;
use crate::out::journal::Journal;
use crate::sys::btf::{self, Kernel, Wanted};
use crate::sys::{kallsyms, link, machine};
use crate::tool::Entry;
use crate::tools::tcpsubnet;

/// What both ways of reading BTF, from memory and from a file in pieces, make of the same bytes.
pub fn btf(bytes: &[u8], file: &File, wanted: &Wanted) -> [Result<Kernel>; 2] {
    btf::both(bytes, file, wanted)
}

/// Addresses and their names by a text like `/proc/kallsyms`.
pub fn kallsyms(table: impl io::Read, addresses: Vec<u64>) -> io::Result<Vec<(u64, Option<String>)>> {
    kallsyms::name_all(table, addresses)
}

/// tcpsubnet's list: label, whether it is IPv6, bits from the highest on, how many of them, and whether there is an
/// address that comes to this subnet first.
pub fn subnets(list: &str) -> Result<Vec<tcpsubnet::ParsedSubnet>> {
    tcpsubnet::parsed(list)
}

/// The mode in a text like `/sys/kernel/security/lockdown`.
pub fn lockdown(modes: &str) -> Option<&str> {
    machine::chosen(modes)
}

/// Bytes by a line of a text like `/proc/meminfo`.
pub fn memory(text: &str, name: &str) -> Option<u64> {
    machine::kilobytes(text, name)
}

/// Whether netlink messages say that the interface with this index is gone.
pub fn departure(messages: &[u8], index: u32) -> bool {
    link::departure(messages, index).is_some()
}

/// The journal behind this socket.
pub fn journal(path: OsString) -> Result<Journal> {
    Journal::at(path)
}

/// What `netbcc schema` prints of a tool.
pub fn schema(entry: &Entry) -> Result<String> {
    cli::of_tool(entry)
}

/// What becomes of a tool's command line before it runs: the error that its user reads, if there is one.
pub fn command_line(entry: &Entry, words: Vec<OsString>) -> Option<String> {
    cli::refusal(entry, words)
}
