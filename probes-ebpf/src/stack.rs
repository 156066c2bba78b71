//! Kernel stacks.

use core::ptr::read_volatile;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_kernel};

/// Writes the addresses that led here, innermost first; answers how many those are, 0 if they cannot be told.
#[inline(always)]
pub fn take<const N: usize>(ctx: &impl EbpfContext, room: &mut [u64; N]) -> u32 {
    let bytes = size_of::<[u64; N]>() as u32;
    // SAFETY: the context of this program, and exactly the room.
    let taken = unsafe { bpf_get_stack(ctx.as_ptr(), room.as_mut_ptr().cast(), bytes, 0) };
    if taken > 0 { taken as u32 / size_of::<u64>() as u32 } else { 0 }
}

/// A number for the first `depth` addresses, never 0: 64 bits, so that two stacks never share one in practice. What
/// [`take`] left behind them, zeroes, may be part of it: it looks at eight at a time, as the verifier counts each turn.
#[inline(always)]
pub fn name<const N: usize>(frames: &[u64; N], depth: u32) -> u64 {
    let mut hash = u64::from(depth);
    let (blocks, rest) = frames.as_chunks::<8>();
    for (nth, block) in blocks.iter().enumerate() {
        if 8 * nth as u32 >= depth {
            return hash | 1;
        }
        for frame in block {
            hash = mixed(hash, frame);
        }
    }
    for frame in rest {
        hash = mixed(hash, frame);
    }
    hash | 1
}

#[inline(always)]
fn mixed(hash: u64, frame: &u64) -> u64 {
    // SAFETY: a reference. Volatile, because the verifier must see single loads at known places.
    let frame = unsafe { read_volatile(frame) };
    // Multiplication carries upwards only; the shift brings what it mixed down again.
    let hash = (hash ^ frame).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// Copies a stack to where it leaves.
#[inline(always)]
pub fn copy<const N: usize>(from: &[u64; N], to: &mut [u64; N]) {
    let bytes = size_of::<[u64; N]>() as u32;
    // SAFETY: both are exactly as long. A helper, because a copy in instructions is a hundred loads and stores.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), bytes, from.as_ptr().cast()) };
}
