//! The second copy of a program at `inet_sock_set_state` (ARCHITECTURE.md, D8): notes by which it knows what the first did.
//!
//! The kernel skips a program that is running on that CPU already, in a task that was interrupted. The copy is another program,
//! so each sees what interrupts the other. Both run for one change right after each other, and in between nothing else happens
//! to the socket: whoever changes its state holds its lock.

use core::cell::UnsafeCell;

use crate::mem::Typed;
use crate::sock::Sock;

/// How many places there are. Where two changes at once share one, the second copy may look at what was seen before.
const PLACES: usize = 4096;

/// A change of state that the first copy did and the second has not seen yet: the socket, and both states.
type Note = [u64; 2];

/// Notes, each at the place that its ports make: not by CPU, because between both copies a task may lose its processor, and
/// come back on another. Memory of the object itself, which programs get at without asking for a map.
pub struct Notes(UnsafeCell<[Note; PLACES]>);

// SAFETY: words of a map, which programs of all CPUs read and write whole.
unsafe impl Sync for Notes {}

impl Notes {
    /// No notes.
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([[0; 2]; PLACES]))
    }

    /// The place of what `sk` does now.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
    fn place(&'static self, sk: Sock<Typed>) -> &'static mut Note {
        /// The best mixed bits of the product are its upper ones, of 32.
        const SHIFT: u32 = u32::BITS - PLACES.ilog2();
        let spread = u64::from(sk.portpair()).wrapping_mul(0x9e37_79b1);
        let nth = (spread >> SHIFT) as usize % PLACES;
        // SAFETY: within the array. Others may write these words meanwhile: what is read then is no change of `sk`.
        unsafe { &mut *self.0.get().cast::<Note>().add(nth) }
    }

    /// The first copy did this change.
    #[inline(always)]
    pub fn done(&'static self, sk: Sock<Typed>, old: u64, new: u64) {
        *self.place(sk) = [sk.id(), states(old, new)];
    }

    /// Whether the first copy did this change; the note is taken away, because the socket may do the same again.
    #[inline(always)]
    pub fn was_done(&'static self, sk: Sock<Typed>, old: u64, new: u64) -> bool {
        let note = self.place(sk);
        let ours = sk.is_at(&note[0]) && note[1] == states(old, new);
        if ours {
            *note = [0; 2];
        }
        ours
    }
}

/// Both states as one word.
#[inline(always)]
fn states(old: u64, new: u64) -> u64 {
    old << 32 | new
}
