//! The second copy of a program at `inet_sock_set_state` (ARCHITECTURE.md, D8): notes by which it knows what the first did.
//!
//! The kernel skips a program that is running on that CPU already, in a task that was interrupted. The copy is another program,
//! so each sees what interrupts the other. Both run for one change right after each other, and in between nothing else happens
//! to the socket: whoever changes its state holds its lock.

use aya_ebpf::maps::Array;

use crate::mem::Typed;
use crate::sock::Sock;

/// A change of state that the first copy did and the second has not seen yet: the socket, and both states.
pub type Note = [u64; 2];

/// Notes, each at the place that its ports make: not by CPU, because between both copies a task may lose its processor, and
/// come back on another.
pub type Notes = Array<Note>;

/// How many places there are. Where two changes at once share one, the second copy may look at what was seen before.
const PLACES: u32 = 4096;

/// The table of notes.
pub const fn notes() -> Notes {
    Array::with_max_entries(PLACES, 0)
}

/// The place of what `sk` does now.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
fn place(notes: &'static Notes, sk: Sock<Typed>) -> Option<&'static mut Note> {
    let spread = sk.portpair().wrapping_mul(0x9e37_79b1);
    // SAFETY: words that live as long as the map. Others may write them meanwhile: what is read then is no change of `sk`.
    notes.get_ptr_mut(spread >> (u32::BITS - PLACES.ilog2())).and_then(|note| unsafe { note.as_mut() })
}

/// Both states as one word.
#[inline(always)]
fn states(old: i32, new: i32) -> u64 {
    (old as u64) << 32 | new as u64
}

/// The first copy did this change.
#[inline(always)]
pub fn done(notes: &'static Notes, sk: Sock<Typed>, old: i32, new: i32) {
    if let Some(note) = place(notes, sk) {
        *note = [sk.id(), states(old, new)];
    }
}

/// Whether the first copy did this change; the note is taken away, because the socket may do the same again.
#[inline(always)]
pub fn was_done(notes: &'static Notes, sk: Sock<Typed>, old: i32, new: i32) -> bool {
    let Some(note) = place(notes, sk) else { return false };
    let ours = sk.is_at(&note[0]) && note[1] == states(old, new);
    if ours {
        *note = [0; 2];
    }
    ours
}
