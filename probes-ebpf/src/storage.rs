//! State kept per socket. Typed programs keep it with the socket itself: the kernel frees both together, so there
//! is no table to fill and no entry to leak. Kprobes keep it in a table keyed by the socket's address.

use core::ptr;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};

use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap};

use crate::atomic;
use crate::mem::Typed;
use crate::sock::Sock;

/// The flags of [`Inherited`]: `BPF_F_NO_PREALLOC`, as all storage of sockets, and `BPF_F_CLONE`.
const INHERITED: usize = (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize;

/// A map of sockets' storage whose values a listener's new connections inherit. Its fields are what the BTF says of it, in the
/// order that loaders know; no program reads them.
#[repr(C)]
pub struct Inherited<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; INHERITED],
}

// SAFETY: the pointers are null, and nobody follows them.
unsafe impl<T> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    /// The map, which user space creates.
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// A map of sockets' storage.
pub trait OfSockets {
    /// What it keeps for each.
    type Value: 'static;
}

impl<T: 'static> OfSockets for SkStorage<T> {
    type Value = T;
}

impl<T: 'static> OfSockets for Inherited<T> {
    type Value = T;
}

/// The value that `map` keeps for `sk`, if any.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
pub fn get<M: OfSockets>(map: &'static M, sk: Sock<Typed>) -> Option<&'static mut M::Value> {
    // SAFETY: the helper answers null or the socket's own value, which lives at least as long as this program runs.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(map).cast_mut().cast(),
            sk.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            0,
        )
        .cast::<M::Value>()
        .as_mut()
    }
}

/// The value that `map` keeps for `sk`, made (all zero) if there was none. `None`: the kernel had no memory for it,
/// or the socket is about to be freed.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
pub fn get_or_zero<M: OfSockets>(map: &'static M, sk: Sock<Typed>) -> Option<&'static mut M::Value> {
    // SAFETY: a map of this type of value, and a socket that the verifier knows as one.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(map).cast_mut().cast(),
            sk.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast::<M::Value>()
        .as_mut()
    }
}

/// Forgets what `map` keeps for `sk`.
#[inline(always)]
pub fn delete<M: OfSockets>(map: &'static M, sk: Sock<Typed>) {
    // SAFETY: a map of sockets' storage, and a socket that the verifier knows as one.
    let _may_be_none =
        unsafe { bpf_sk_storage_delete(ptr::from_ref(map).cast_mut().cast(), sk.as_ptr().cast_mut().cast()) };
}

/// The entry of `key` in `map`, if any.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
pub fn entry<K, V>(map: &'static HashMap<K, V>, key: K) -> Option<&'static mut V> {
    // SAFETY: what is there stays memory of the map while a program runs; an entry that goes meanwhile may hold another key's
    // words, which are plain numbers. Two CPUs may hold the same entry; what
    // they write are plain words.
    map.get_ptr_mut(key).and_then(|value| unsafe { value.as_mut() })
}

/// The entry of `key` in `map`, if any. Once the table needs its room it is another's.
#[inline(always)]
pub fn lru_entry<K, V: Copy>(map: &'static LruHashMap<K, V>, key: K) -> Option<V> {
    // SAFETY: as above: the memory stays, and what it holds is plain bytes, whoever's they are.
    map.get_ptr(key).and_then(|value| unsafe { value.as_ref() }).copied()
}

/// The entry of `key` in `map`, made (all zero) if there was none. `None`: the table is full.
#[inline(always)]
pub fn entry_or_zero<K: Copy, V: Default>(map: &'static HashMap<K, V>, key: K) -> Option<&'static mut V> {
    if let Some(found) = entry(map, key) {
        return Some(found);
    }
    map.insert(key, V::default(), 0).ok()?;
    entry(map, key)
}

/// Adds `delta` (modulo 2^64) to this CPU's count of `key`, made if there was none. `false`: the table is full.
#[inline(always)]
pub fn add<K: Copy>(map: &'static PerCpuHashMap<K, u64>, key: K, delta: u64) -> bool {
    // Another CPU, or what interrupted this program, may have been faster.
    add_to(map, key, delta)
        || map.insert(key, delta, u64::from(BPF_NOEXIST)).is_ok()
        || add_to(map, key, delta)
}

/// Adds `delta` to this CPU's count of `key`, if there is one.
#[inline(always)]
fn add_to<K: Copy>(map: &'static PerCpuHashMap<K, u64>, key: K, delta: u64) -> bool {
    let Some(count) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a word of a map's value, which is aligned, and which programs change by adding to it only.
    unsafe { atomic::add(count, delta) };
    true
}

/// This CPU's value at `index` of `map`; `None` beyond its end. Other programs that use it may interrupt this one, or have
/// the CPU meanwhile. The kernel runs no program inside itself on one CPU. The second copy of one (ARCHITECTURE.md, D8) may run
/// inside the first, and has a map of its own for what it keeps here while it runs: user space sees to that by
/// `Prog::twice_with_own`, and a test of its `probe/code.rs` looks at all objects, with a list of what both copies change by whole
/// words. So what one program alone writes is its own.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "what the kernel keeps behind the map is shared by nature")]
pub fn slot<T>(map: &'static PerCpuArray<T>, index: u32) -> Option<&'static mut T> {
    // SAFETY: this CPU's own value, which lives as long as the map. What of it only this program writes, changes under no reference:
    // neither it nor a copy of it runs here with the same map before it has ended. What other programs, or a copy, change as well
    // are whole aligned words, any value of which is a valid one.
    map.get_ptr_mut(index).and_then(|value| unsafe { value.as_mut() })
}
