//! Kernel stacks.

use core::arch::asm;
use core::ptr::read_volatile;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_snprintf};

/// As many addresses as nearly every stack has: to leave zeroes in the rest of a large room costs as much as two frames.
const MOST: usize = 64;

/// Writes the addresses that led here, innermost first, and zeroes up to a multiple of eight behind them; answers how many
/// addresses those are, 0 if they cannot be told. What lies behind that may be of an older stack.
#[inline(always)]
pub fn take<const N: usize>(ctx: &impl EbpfContext, room: &mut [u64; N]) -> u32 {
    const { assert!(MOST.is_multiple_of(8) && MOST < N) }
    if let Some(first) = room.first_chunk_mut::<MOST>() {
        let taken = take_all(ctx, first);
        if taken < MOST as u32 {
            return taken;
        }
    }
    take_all(ctx, room)
}

/// Writes the addresses that led here, innermost first, and zeroes behind them; answers how many addresses those are, 0 if
/// they cannot be told.
#[inline(always)]
fn take_all<const N: usize>(ctx: &impl EbpfContext, room: &mut [u64; N]) -> u32 {
    let bytes = size_of::<[u64; N]>() as u32;
    // SAFETY: the context of this program, and exactly the room.
    let taken = unsafe { bpf_get_stack(ctx.as_ptr(), room.as_mut_ptr().cast(), bytes, 0) };
    if taken > 0 { taken as u32 / size_of::<u64>() as u32 } else { 0 }
}

/// A number for the first `depth` addresses, never 0, and how many of them count: 64 bits, so that two stacks never
/// share one in practice. The first address of the `bytes` from `first` on, through which interrupts come into the
/// kernel, is the last that counts. What lies behind it, and the zeroes that [`take`] leaves, are zeroes in the number:
/// it looks at eight at a time, as the verifier counts each turn.
#[inline(always)]
pub fn number<const N: usize>(frames: &[u64; N], depth: u32, first: u64, bytes: u64) -> (u64, u32) {
    let mut sum = Sum { hash: 0, counts: unbranched(1), counted: 0, first, bytes };
    let (blocks, rest) = frames.as_chunks::<8>();
    for (nth, block) in blocks.iter().enumerate() {
        if 8 * nth as u32 >= depth || sum.counts == 0 {
            return sum.end(depth);
        }
        for frame in block {
            sum.add(frame);
        }
    }
    for frame in rest {
        sum.add(frame);
    }
    sum.end(depth)
}

struct Sum {
    hash: u64,
    /// 1 until an interrupt's entry was seen, then 0. A factor rather than a branch, or a mask of all bits or none: the
    /// verifier would follow each way out of a branch, and since 6.12 both values of such a mask.
    counts: u64,
    counted: u32,
    first: u64,
    bytes: u64,
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, frame: &u64) {
        // SAFETY: a reference. Volatile, because the verifier must see single loads at known places.
        let frame = unsafe { read_volatile(frame) };
        self.hash = mixed(self.hash, frame.wrapping_mul(self.counts));
        self.counted = self.counted.wrapping_add(self.counts as u32);
        // The sign: of `from` if it lies before the entries, of the difference if it does not lie behind them.
        let from = frame.wrapping_sub(self.first);
        let inside = unbranched((!from & from.wrapping_sub(self.bytes)) >> 63);
        self.counts &= inside ^ 1;
    }

    #[inline(always)]
    fn end(self, depth: u32) -> (u64, u32) {
        (self.hash | 1, self.counted.min(depth))
    }
}

/// Has the kernel write the names of the first `depth` addresses, `A` at a time, as `format` says, which has `A` places
/// and ends with a zero; answers whether it did.
#[inline(always)]
pub fn write_names<const N: usize, const A: usize, const B: usize, const S: usize, const F: usize>(
    frames: &[u64; N],
    depth: u32,
    format: &'static [u8; F],
    to: &mut [[u8; B]; S],
) -> bool {
    const { assert!(N == A * S) }
    let mut all = true;
    for (nth, to) in to.iter_mut().enumerate() {
        if (nth * A) as u32 >= depth {
            break;
        }
        // SAFETY: exactly this room, and `A` addresses from a place at least so far from their end.
        let written = unsafe {
            let from = frames.as_ptr().add(nth * A).cast_mut();
            bpf_snprintf(to.as_mut_ptr().cast(), B as u32, format.as_ptr().cast(), from, (8 * A) as u32)
        };
        // The kernel has room for a few at a time per CPU, and whom we interrupted may have it all.
        if written < 0 {
            // No names, rather than those of an older event.
            to[0] = 0;
            all = false;
        }
    }
    all
}

/// What was just written there.
#[inline(always)]
pub fn unknown(number: &u32) -> u32 {
    // SAFETY: a reference. Volatile, because the compiler knows what it is.
    unsafe { read_volatile(number) }
}

/// This very bit. The compiler must not see that it is 0 or 1: it would branch on it.
#[inline(always)]
fn unbranched(bit: u64) -> u64 {
    let mut bit = bit;
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(reg) bit, options(pure, nomem, nostack, preserves_flags)) };
    bit
}

#[inline(always)]
fn mixed(hash: u64, frame: u64) -> u64 {
    // Multiplication carries upwards only; the shift brings what it mixed down again.
    let hash = (hash ^ frame).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}
