//! Words of maps that several CPUs change at once. `core` has no such operations for this target, whose instructions are
//! given here (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").

use core::arch::asm;

/// Adds `delta` to `word` (modulo 2^64). Without order: who sees the sum sees nothing else by it.
///
/// # Safety
/// `word` must be in a map's value, aligned, and changed by atomic operations only.
#[inline(always)]
pub unsafe fn add(word: *mut u64, delta: u64) {
    // SAFETY: the caller promises that it is an aligned word of a map, changed by atomic operations only.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {delta}", word = in(reg) word, delta = in(reg) delta) };
}

/// Adds `delta` to `word` (modulo 2^64) and answers what was there. Since 5.12.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, delta: u64) -> u64 {
    let mut delta = delta;
    // SAFETY: the caller promises that it is an aligned word of a map, changed by atomic operations only.
    unsafe {
        asm!("{delta} = atomic_fetch_add((u64 *)({word} + 0), {delta})", word = in(reg) word, delta = inout(reg) delta);
    }
    delta
}

/// Writes `value` into `word`. Who reads it sees everything that was written before it. Since 5.12.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn publish(word: *mut u64, value: u64) {
    // SAFETY: the caller promises that it is an aligned word of a map, changed by atomic operations only.
    unsafe {
        asm!("{value} = xchg_64({word} + 0, {value})", word = in(reg) word, value = inout(reg) value => _);
    }
}
