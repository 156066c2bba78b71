//! What a process has in the kernel: the memory of BPF maps, programs and buffers of perf events, and the time of programs.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// The number of the ring buffer among kinds of maps. Kernels before 6.6 count none of its bytes.
const RING_BUFFER: u64 = 27;

/// Bytes of the kernel's memory that a process's BPF objects and perf buffers take.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub(super) fn kernel_bytes(pid: u32) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("its mappings")?;
    Ok(sum(pid, object)? + perf_buffers(&maps))
}

/// Nanoseconds that a process's programs have run, as far as the kernel counted.
///
/// # Errors
/// As [`kernel_bytes`].
pub(super) fn program_ns(pid: u32) -> Result<u64> {
    sum(pid, |fdinfo| {
        Some((field(fdinfo, "prog_id:")?.to_owned(), field(fdinfo, "run_time_ns:")?.parse().ok()?))
    })
}

/// The sum of what its descriptors say, each object's once: several descriptors may be of one.
fn sum(pid: u32, told: impl Fn(&str) -> Option<(String, u64)>) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut objects = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
        // A descriptor may have been closed meanwhile.
        objects.extend(fs::read_to_string(entry?.path()).ok().and_then(|text| told(&text)));
    }
    Ok(objects.values().sum())
}

fn field<'t>(fdinfo: &'t str, name: &str) -> Option<&'t str> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The number of the map or program of a descriptor, and its bytes.
fn object(fdinfo: &str) -> Option<(String, u64)> {
    let number = |name: &str| field(fdinfo, name).and_then(|value| value.parse::<u64>().ok());
    let id = ["map_id:", "prog_id:"]
        .into_iter()
        .find_map(|name| Some(format!("{name}{}", field(fdinfo, name)?)))?;
    let counted = number("memlock:")?;
    let ring = if number("map_type:") == Some(RING_BUFFER) { number("max_entries:")? } else { 0 };
    Some((id, counted.max(ring)))
}

/// The bytes of the buffers that the kernel shares with the process.
fn perf_buffers(maps: &str) -> u64 {
    let sizes = maps.lines().filter(|line| line.ends_with("anon_inode:[perf_event]")).filter_map(|line| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_its_bytes_and_a_ring_its_size() {
        let hash = "pos:\t0\nmap_type:\t1\nkey_size:\t4\nmax_entries:\t1024\nmemlock:\t81920\nmap_id:\t7\nfrozen:\t0\n";
        assert_eq!(object(hash), Some(("map_id:7".to_owned(), 81_920)));
        let ring = "map_type:\t27\nmax_entries:\t262144\nmemlock:\t0\nmap_id:\t8\n";
        assert_eq!(object(ring), Some(("map_id:8".to_owned(), 262_144)));
        let program = "prog_type:\t26\nmemlock:\t4096\nprog_id:\t3\n";
        assert_eq!(object(program), Some(("prog_id:3".to_owned(), 4096)));
        assert_eq!(object("pos:\t0\nflags:\t02\n"), None);
        // A link names its program, whose bytes are counted there.
        assert_eq!(object("link_type:\ttracing\nlink_id:\t1\nprog_id:\t3\n"), None);
    }

    #[test]
    fn buffers_are_what_is_mapped() {
        let maps = "7f00-7f10 r--p 0 00:00 1 /lib/libc.so\n\
                    7f0000000000-7f0000041000 rw-s 00000000 00:0e 9 anon_inode:[perf_event]\n";
        assert_eq!(perf_buffers(maps), 0x41000);
    }
}
