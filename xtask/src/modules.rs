//! Kernel modules: which of them a guest gets, and the tables by which its `modprobe` finds them.
//!
//! A guest loads a module when the kernel first asks for it (`ip link add type veth` does). To load them all at boot
//! would cost seconds, for emulated processors are slow.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::elf::Elf;

/// What a guest can load: devices and queueing for the tests' networks, and packet filtering so that a test can drop
/// or refuse packets, with the checksum that packet filtering asks some kernels for by its name.
const WANTED: [&str; 35] = [
    "act_gact",
    "act_mirred",
    "bridge",
    "cls_bpf",
    "cls_flower",
    "cls_matchall",
    "cls_u32",
    "crc32c_generic",
    "dummy",
    "ifb",
    "mptcp_diag",
    "nf_tables",
    "nft_chain_nat",
    "nft_connlimit",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_quota",
    "nft_redir",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "sch_fq",
    "sch_htb",
    "sch_ingress",
    "sch_multiq",
    "sch_netem",
    "sch_prio",
    "sch_tbf",
    "tcp_diag",
    "tun",
    "veth",
];

/// Parameters: these two would make devices that nobody asked for.
pub(crate) const OPTIONS: &str = "options dummy numdummies=0\noptions ifb numifbs=0\n";

/// A module ready to be put into a guest.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its name, as the kernel shows it.
    pub(crate) name: String,
    /// The module itself, not compressed.
    pub(crate) data: Vec<u8>,
    /// What it needs directly.
    needs: Vec<String>,
    /// The names by which the kernel asks for it.
    aliases: Vec<String>,
}

/// The wanted modules of the tree below `dir` and all that they need, each after its needs. One that the kernel does
/// not have as a module (built in, or gone) is left out.
///
/// # Errors
/// A file cannot be read or unpacked, a needed module is missing, or modules need each other.
pub(crate) fn collect(dir: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(dir, &mut files)?;
    let mut order = Vec::new();
    for name in WANTED {
        if files.contains_key(name) {
            add(name, &files, &mut order, 0)?;
        }
    }
    Ok(order)
}

/// The text of `modules.dep`: each module's file and the files of all that it needs, the last to load first.
pub(crate) fn dep_table(modules: &[Module]) -> String {
    let mut text = String::new();
    for (i, module) in modules.iter().enumerate() {
        write!(text, "{}.ko:", module.name).expect("a String takes all");
        // The list is in load order, so whatever is needed, also indirectly, comes before.
        let mut needed = module.needs.clone();
        for earlier in modules[..i].iter().rev() {
            if needed.contains(&earlier.name) {
                write!(text, " {}.ko", earlier.name).expect("a String takes all");
                needed.extend(earlier.needs.iter().cloned());
            }
        }
        text.push('\n');
    }
    text
}

/// The text of `modules.alias`.
pub(crate) fn alias_table(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        for alias in &module.aliases {
            writeln!(text, "alias {alias} {}", module.name).expect("a String takes all");
        }
    }
    text
}

fn add(name: &str, files: &HashMap<String, PathBuf>, order: &mut Vec<Module>, depth: usize) -> Result<()> {
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if depth > 20 {
        bail!("the module {name} needs itself");
    }
    let file = files.get(name).with_context(|| format!("the module {name} is needed but not there"))?;
    let data = read(file)?;
    let info = Elf::new(&data)?.section(".modinfo")?.unwrap_or_default();
    let needs: Vec<String> = values(info, "depends")
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect();
    let aliases = values(info, "alias");
    for needed in &needs {
        add(needed, files, order, depth + 1)?;
    }
    order.push(Module { name: name.to_owned(), data, needs, aliases });
    Ok(())
}

/// Every module file below `dir`, by its name (the kernel writes `-` as `_`).
fn index(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|ext| ext == "xz") {
        let out = Command::new("xz").args(["-dc"]).arg(file).output().context("start xz")?;
        if !out.status.success() {
            bail!("xz cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&out.stderr).trim());
        }
        return Ok(out.stdout);
    }
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// The values that `.modinfo` has for a key: it is a row of NUL-terminated `key=value` strings.
fn values(modinfo: &[u8], key: &str) -> Vec<String> {
    let entries = modinfo.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    entries.filter_map(|entry| Some(entry.strip_prefix(key)?.strip_prefix('=')?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_is_keys_and_values() {
        let info =
            b"license=GPL\0alias=a b\0depends=nf_tables,nf-conntrack\0alias=nft-expr-ct\0\0name=nft_ct\0";
        assert_eq!(values(info, "alias"), ["a b", "nft-expr-ct"]);
        assert_eq!(values(info, "depends"), ["nf_tables,nf-conntrack"]);
        assert!(values(info, "firmware").is_empty());
        assert!(values(b"", "alias").is_empty());
    }

    #[test]
    fn tables_name_indirect_needs_and_aliases() {
        let module = |name: &str, needs: &[&str], aliases: &[&str]| Module {
            name: name.to_owned(),
            data: Vec::new(),
            needs: needs.iter().map(|name| (*name).to_owned()).collect(),
            aliases: aliases.iter().map(|name| (*name).to_owned()).collect(),
        };
        let modules = [
            module("nfnetlink", &[], &[]),
            module("crc", &[], &[]),
            module("nf_tables", &["nfnetlink", "crc"], &["nfnetlink-subsys-10"]),
            module("veth", &[], &["rtnl-link-veth"]),
            module("nft_ct", &["nf_tables"], &["nft-expr-ct"]),
        ];
        let deps = dep_table(&modules);
        assert!(deps.contains("\nnft_ct.ko: nf_tables.ko crc.ko nfnetlink.ko\n"), "{deps}");
        assert!(deps.contains("\nveth.ko:\n"), "{deps}");
        assert!(alias_table(&modules).contains("alias rtnl-link-veth veth\n"));
    }

    #[test]
    fn a_tree_that_is_not_there_is_an_error() {
        assert!(collect(&std::env::temp_dir().join("no such folder")).is_err());
    }
}
