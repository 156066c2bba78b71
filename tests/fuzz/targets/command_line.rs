//! Command lines: any words are taken or refused, and a refusal is one harmless line.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use libfuzzer_sys::fuzz_target;
use netbcc::cli::multicall::{Call, pick};
use netbcc::registry::TOOLS;
use netbcc::{fuzzing, options};
use netbcc_fuzz::is_harmless;

fuzz_target!(|data: &[u8]| {
    // NUL ends an argument; the kernel hands over no other.
    let words: Vec<OsString> =
        data.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    if let Some(text) = words.first().and_then(|word| word.to_str()) {
        values(text);
    }
    let (name, rest) = words.split_first().expect("there is one word at least");
    match pick(name, rest, TOOLS) {
        Call::Tool { entry, args: words, .. } => {
            if let Some(sentence) = fuzzing::command_line(entry, words) {
                is_harmless(&format!("{sentence}\n"), 1);
            }
        }
        Call::Unknown { name, nearest } => assert!(nearest != Some(&name)),
        _ => {}
    }
});

/// What options take.
fn values(text: &str) {
    if let Ok(ports) = options::ports(text) {
        let again: Vec<String> = ports.as_slice().iter().map(ToString::to_string).collect();
        assert_eq!(options::ports(&again.join(",")), Ok(ports));
    }
    if let Ok(number) = options::positive(text) {
        assert_eq!(text.trim_start_matches('+').trim_start_matches('0'), number.to_string());
    }
    if let Ok(pid) = options::pid_or_all(text) {
        assert!(i32::try_from(pid).is_ok());
    }
    // A list says nothing of what it holds: it is enough that each is taken or refused.
    let _processes = options::select::pid_list(text);
    let _users = options::select::uid_list(text);
    let _names = options::select::name_list(text);
    let _places = options::select::place_list(text);
    let _inode = options::select::namespace(text);
}
