//! Values that users type, checked before anything is loaded.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::out::Rotation;
use crate::words::words;

/// A list of ports without duplicates, in the order given. Empty means: no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<u16>);

impl Ports {
    /// What several lists name together, as an option that is given more than once.
    pub fn together(lists: &[Self]) -> Self {
        let mut all = Vec::new();
        for port in lists.iter().flat_map(|list| &list.0) {
            if !all.contains(port) {
                all.push(*port);
            }
        }
        Self(all)
    }

    /// The ports.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    /// Whether there is nothing to filter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Several words of one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// What several lists name together, as an option that is given more than once.
    pub fn together(lists: &[Self]) -> impl Iterator<Item = &str> + Clone {
        lists.iter().flat_map(|list| list.0.iter().map(String::as_str))
    }
}

/// Takes a comma list apart.
pub fn word_list(text: &str) -> Result<Words, Infallible> {
    Ok(Words(words(text).map(Into::into).collect()))
}

/// Parses a path. An empty one is kept; [`given`] tells it from others.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The path of an option that is not empty: an empty one counts as not given.
pub fn given(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}

/// The word for all ports, as if no list were given.
const ALL_PORTS: &str = "all";

/// Parses a comma list of ports, as BCC does: blanks around numbers are fine, and an empty list is no filter.
pub fn ports(text: &str) -> Result<Ports, String> {
    let mut ports = Vec::new();
    if text != ALL_PORTS {
        for word in words(text) {
            let port = word.parse().map_err(|_| format!("'{word}' is not a port, which is 0 to 65535"))?;
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    Ok(Ports(ports))
}

/// The least that a file of rows may hold.
const LEAST_FILE: u64 = 4096;

/// The most older files that are kept.
const MOST_FILES: u32 = 1000;

/// Parses the size of a file in bytes, KiB, MiB or GiB, and how many older ones are kept: `64M,4`.
pub(super) fn rotation(text: &str) -> Result<Rotation, String> {
    let (size, files) = text.split_once(',').unwrap_or((text, "4"));
    let (digits, shift) = match size.strip_suffix(|unit: char| unit.is_ascii_alphabetic()) {
        Some(digits) => match size.as_bytes()[digits.len()].to_ascii_uppercase() {
            b'K' => (digits, 10),
            b'M' => (digits, 20),
            b'G' => (digits, 30),
            _ => return Err(format!("the unit of '{size}' is none of K, M and G")),
        },
        None => (size, 0),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse::<u64>().ok().filter(|_| is_number(digits));
    let bytes = bytes.and_then(|number| number.checked_mul(1 << shift)).filter(|&bytes| bytes >= LEAST_FILE);
    let Some(bytes) = bytes else {
        return Err(format!(
            "'{size}' is no size of a file, which is {LEAST_FILE} bytes or more, as 64K, 10M, 1G"
        ));
    };
    let files = files.parse().ok().filter(|count: &NonZeroU32| is_number(files) && count.get() <= MOST_FILES);
    let files = files.ok_or_else(|| format!("the number of older files is 1 to {MOST_FILES}"))?;
    Ok(Rotation { bytes, files })
}

/// Parses a whole number of at least 1.
pub fn positive(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("not a whole number from 1 to {}", u32::MAX))
}

/// Parses a process id.
fn pid(text: &str) -> Result<NonZeroU32, String> {
    match text.parse::<NonZeroU32>() {
        Ok(pid) if i32::try_from(pid.get()).is_ok() => Ok(pid),
        _ => Err(format!("not a process id, which is 1 to {}", i32::MAX)),
    }
}

/// Parses a process id, or 0 for all.
pub fn pid_or_all(text: &str) -> Result<u32, String> {
    if text == "0" { Ok(0) } else { pid(text).map(NonZeroU32::get) }
}

/// Parses the number of a CPU that this machine has.
pub fn cpu(text: &str) -> Result<u32, String> {
    let cpu: u32 = text.parse().map_err(|_| "not the number of a CPU".to_owned())?;
    let exists = std::fs::exists(format!("/sys/devices/system/cpu/cpu{cpu}")).is_ok_and(|exists| exists);
    if exists { Ok(cpu) } else { Err("this machine has no such CPU".to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_as_people_type_them() {
        assert_eq!(ports("80, 443 ,80").unwrap().as_slice(), [80, 443]);
        assert_eq!(ports("0,65535").unwrap().as_slice(), [0, 65535]);
        assert!(ports("all").unwrap().is_empty());
        for none in ["", " "] {
            assert!(ports(none).unwrap().is_empty(), "{none:?}");
        }
        for junk in [",", "80,", "65536", "-1", "x", "8 0", "ALL"] {
            assert!(ports(junk).is_err(), "{junk:?}");
        }
    }

    #[test]
    fn sizes_of_files_have_units_and_bounds() {
        let parsed = |text| rotation(text).map(|rotation| (rotation.bytes, rotation.files.get()));
        for (text, bytes, files) in
            [("4096", 4096, 4), ("64K", 64 << 10, 4), ("10M,1", 10 << 20, 1), ("1g,1000", 1 << 30, 1000)]
        {
            assert_eq!(parsed(text), Ok((bytes, files)), "{text}");
        }
        let size = "' is no size of a file, which is 4096 bytes or more, as 64K, 10M, 1G";
        for junk in ["", "4095", "3K", "K", "+9999", "-1", "1 M", "99999999999G", "1MM"] {
            assert_eq!(parsed(junk), Err(format!("'{junk}{size}")), "{junk:?}");
        }
        assert_eq!(parsed("10T"), Err("the unit of '10T' is none of K, M and G".to_owned()));
        for junk in ["1M,", "1M,0", "1M,1001", "1M,+2", "1M,2,3", "1M, 2"] {
            assert_eq!(parsed(junk), Err("the number of older files is 1 to 1000".to_owned()), "{junk:?}");
        }
    }

    #[test]
    fn lists_add_up_and_empty_ones_add_nothing() {
        let lists = ["80, 443", "", "all", "443,22"].map(|text| ports(text).unwrap());
        assert_eq!(Ports::together(&lists).as_slice(), [80, 443, 22]);
        let lists = ["A, b", " ", "c"].map(|text| word_list(text).unwrap());
        assert_eq!(Words::together(&lists).collect::<Vec<_>>(), ["A", "b", "c"]);
        assert_eq!(words("a,,b").collect::<Vec<_>>(), ["a", "", "b"]);
        assert_eq!(given(Some(&PathBuf::new())), None);
        assert_eq!(given(Some(&"/x".into())), Some(Path::new("/x")));
    }

    #[test]
    fn process_ids() {
        assert_eq!(pid("2147483647").map(NonZeroU32::get), Ok(i32::MAX.unsigned_abs()));
        assert!(pid("2147483648").is_err() && pid("").is_err() && pid(" 1").is_err());
        assert_eq!(pid_or_all("0"), Ok(0));
        assert!(pid_or_all("-1").is_err());
    }

    proptest! {
        #[test]
        fn any_list_of_ports_reads_back(list in proptest::collection::vec(any::<u16>(), 1..20)) {
            let text = list.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            let mut seen = std::collections::HashSet::new();
            let unique: Vec<u16> = list.into_iter().filter(|&port| seen.insert(port)).collect();
            let ports = ports(&text).unwrap();
            prop_assert_eq!(ports.as_slice(), unique);
        }

        #[test]
        fn junk_never_panics(text: String) {
            let _ = (ports(&text), pid(&text), pid_or_all(&text), positive(&text));
        }
    }
}
