//! The way out: the ring buffer, and the ledger of what did not get through it.

use core::mem::{ManuallyDrop, transmute};
use core::ops::{Deref, DerefMut};

use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use netbcc_common::loss::{LOSSES, Loss};
use netbcc_common::socket::SocketFacts;
use zerocopy::FromBytes;

use crate::atomic;
use crate::owner::{self, Facts};

/// Events on their way to user space. User space sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What was lost, per cause and CPU.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

/// Counts one loss.
#[inline(always)]
pub fn lost(cause: Loss) {
    if let Some(count) = LOST.get_ptr_mut(cause as u32) {
        // SAFETY: a word of a map's value, which is aligned, and which programs change by adding to it only. It is this
        // CPU's own, but another program of this object may interrupt this one here, or have the CPU meanwhile.
        unsafe { atomic::add(count, 1) };
    }
}

/// One event in the ring, to be filled in place. It is sent when it goes out of scope.
pub struct Reserved<T: 'static>(ManuallyDrop<RingBufEntry<T>>);

/// An event, and what follows it.
#[repr(C)]
struct With<T> {
    event: T,
    facts: SocketFacts,
}

/// Room for one event, with `facts` of its socket behind it where any are asked for; else as [`reserve`].
#[inline(always)]
pub fn reserve_with<T: FromBytes + 'static>(facts: Facts) -> Option<Reserved<T>> {
    let entry = reserve_with_if_room(facts);
    if entry.is_none() {
        lost(Loss::RingFull);
    }
    entry
}

/// Room for an event, with `facts` of its socket behind it where any are asked for; `None`: there is none, which is not counted.
#[inline(always)]
pub fn reserve_with_if_room<T: FromBytes + 'static>(facts: Facts) -> Option<Reserved<T>> {
    if !owner::has_facts() {
        return reserve_if_room();
    }
    let mut entry = EVENTS.reserve::<With<T>>(0)?;
    // SAFETY: the ring's memory; the facts lie behind the event, and take any bytes. What begins with an event may be submitted
    // as one: the kernel knows how long it is.
    unsafe {
        facts.write(&mut (*entry.as_mut_ptr()).facts);
        Some(Reserved(ManuallyDrop::new(transmute::<RingBufEntry<With<T>>, RingBufEntry<T>>(entry))))
    }
}

/// Room for one event; `None`, and counted, if the ring is full. Every field must then be set: the room holds what
/// an older event left there. Filter first: what is reserved is sent.
///
/// The kernel wakes the reader only if it had read everything before this event, so once per batch.
#[inline(always)]
pub fn reserve<T: FromBytes + 'static>() -> Option<Reserved<T>> {
    let entry = reserve_if_room();
    if entry.is_none() {
        lost(Loss::RingFull);
    }
    entry
}

/// Room for one event in a ring of its own; `None`, and counted as `full`, if that is full. Every field must then be set.
#[inline(always)]
pub fn reserve_in<T: FromBytes + 'static>(ring: &'static RingBuf, full: Loss) -> Option<Reserved<T>> {
    let entry = ring.reserve::<T>(0);
    if entry.is_none() {
        lost(full);
    }
    Some(Reserved(ManuallyDrop::new(entry?)))
}

/// Room for an event; `None`: there is none, which is not counted, as the event then leaves in a smaller form.
#[inline(always)]
pub fn reserve_if_room<T: FromBytes + 'static>() -> Option<Reserved<T>> {
    Some(Reserved(ManuallyDrop::new(EVENTS.reserve::<T>(0)?)))
}

impl<T> Deref for Reserved<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the bytes are the ring's memory, which is initialised, and T accepts any bytes (FromBytes).
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> DerefMut for Reserved<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the bytes are the ring's memory, which is initialised, and T accepts any bytes (FromBytes). They are this
        // program's alone until they leave.
        unsafe { self.0.assume_init_mut() }
    }
}

impl<T> Drop for Reserved<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        unsafe { ManuallyDrop::take(&mut self.0) }.submit(0);
    }
}
