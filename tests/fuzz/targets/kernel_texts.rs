//! Small texts and messages of the kernel: lockdown, memory, interfaces that leave.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netbcc::fuzzing;
use netbcc_fuzz::{is_harmless, take};

/// Whether a message of this interface's end is among these, by the lengths that they have.
fn departure(mut messages: &[u8], index: u32) -> bool {
    const RTM_DELLINK: u16 = 17;
    while messages.len() >= 32 {
        let length = u32::from_ne_bytes(take(&mut &messages[..4])) as usize;
        let kind = u16::from_ne_bytes(take(&mut &messages[4..6]));
        if kind == RTM_DELLINK
            && messages[16] == 0
            && u32::from_ne_bytes(take(&mut &messages[20..24])) == index
        {
            return true;
        }
        // Whole words, and at least the header: a shorter one says nothing of where the next begins.
        let length = length.div_ceil(4) * 4;
        messages = messages.get(length.max(16)..).unwrap_or_default();
    }
    false
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let index = u32::from_ne_bytes(take(&mut rest));
    assert_eq!(fuzzing::departure(rest, index), departure(rest, index));
    let text = String::from_utf8_lossy(data);
    if let Some(mode) = fuzzing::lockdown(&text) {
        assert!(text.contains(&format!("[{mode}]")));
    }
    if let Some(bytes) = fuzzing::memory(&text, "MemTotal:") {
        assert_eq!(bytes % 1024, 0);
        assert!(text.contains(&(bytes / 1024).to_string()));
    }
    is_harmless(&format!("{}\n", netbcc::out::escaped(data)), 1);
});
