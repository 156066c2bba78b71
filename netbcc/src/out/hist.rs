//! BCC's log2 histogram.
//!
//! Slot `i` counts values of `i` bits: slot 1 holds 0 and 1, slot 2 holds 2 and 3, slot 3 holds 4 to 7.
//! Must never live here: where the counts come from.

use std::io::Write as _;

use super::Out;

/// The slot of a value.
pub fn slot(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).max(1) as usize
}

/// The smallest and the largest value of a slot.
pub fn bounds(slot: usize) -> (u64, u64) {
    match slot {
        0 | 1 => (0, 1),
        2..=63 => (1 << (slot - 1), (1 << slot) - 1),
        _ => (1 << 63, u64::MAX),
    }
}

/// Prints the slots up to the last one that is not empty, header first; nothing if all are empty. Text only.
pub fn print(out: &mut Out, unit: &str, slots: &[u64]) {
    let last = slots.iter().rposition(|&count| count > 0).unwrap_or(0);
    let max = u128::from(slots.iter().skip(1).copied().max().unwrap_or(0));
    if last == 0 || max == 0 || out.format() != super::Format::Text {
        return;
    }
    // BCC widens the columns where numbers of 32 bits are not enough, and shortens the bars.
    let (indent, head, digits, stars) = if last <= 32 { (5, 19, 10, 40) } else { (15, 29, 20, 20) };
    let buf = out.raw();
    // Writing to memory does not fail.
    let _ = writeln!(buf, "{:indent$}{unit:<head$} : count     distribution", "");
    for (slot, &count) in slots.iter().enumerate().take(last + 1).skip(1) {
        let (low, high) = bounds(slot);
        let bar = usize::try_from(stars as u128 * u128::from(count) / max).unwrap_or(0);
        let _ = writeln!(
            buf,
            "{low:>digits$} -> {high:<digits$} : {count:<8} |{:<stars$}|",
            &"****************************************"[..bar]
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::{Clock, Format};

    fn printed(slots: &[u64]) -> String {
        let mut out = Out::memory(Format::Text, Clock::fixed(0, 0));
        print(&mut out, "usecs", slots);
        out.take()
    }

    #[test]
    fn the_specs_example_comes_out_byte_for_byte() {
        assert_eq!(
            printed(&[0, 5, 80, 0, 12, 0, 0]),
            "     usecs               : count     distribution
         0 -> 1          : 5        |**                                      |
         2 -> 3          : 80       |****************************************|
         4 -> 7          : 0        |                                        |
         8 -> 15         : 12       |******                                  |
"
        );
    }

    #[test]
    fn values_fall_into_the_slots_that_print_them() {
        assert_eq!([0, 1, 2, 3, 4, 1023, 1024, u64::MAX].map(slot), [1, 1, 2, 2, 3, 10, 11, 64]);
        for value in [0, 1, 2, 3, 4, 7, 8, 511, 512, 1023, 1 << 63, u64::MAX] {
            let (low, high) = bounds(slot(value));
            assert!((low..=high).contains(&value), "{value}");
        }
    }

    #[test]
    fn from_33_bits_on_the_form_is_wide() {
        let mut slots = [0; 34];
        slots[33] = 1;
        let text = printed(&slots);
        assert_eq!(text.lines().count(), 34);
        assert_eq!(
            text.lines().next(),
            Some("               usecs                         : count     distribution")
        );
        assert_eq!(
            text.lines().last(),
            Some("          4294967296 -> 8589934591           : 1        |********************|")
        );
    }

    #[test]
    fn bars_are_floored_and_empty_histograms_print_nothing() {
        let bar = |count, max| printed(&[0, count, max]).lines().nth(1).unwrap_or("").matches('*').count();
        assert_eq!([bar(1, 41), bar(1, 40), bar(39, 40)], [0, 1, 39]);
        assert_eq!(printed(&[0, 0, 0]), "");
        assert_eq!(printed(&[]), "");
        // The slot that no value falls into.
        assert_eq!(printed(&[7]), "");
    }
}
