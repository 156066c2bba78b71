//! Iterators: programs that the kernel runs for each object of a kind, when user space asks it to go through them. They run in
//! our own process, so the current task tells nothing.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use netbcc_common::Comm;
use netbcc_common::kernel::Field;

use crate::mem::{Access as _, Probed, Typed, copy, field, field_ptr, offset};
use crate::sock::{Sock, socket_sk};

/// What an iterator over the sockets that a storage map knows is told (`struct bpf_iter__bpf_sk_storage_map`).
#[repr(C)]
pub struct OverSockets {
    meta: *const u8,
    map: *const u8,
    sk: *const u8,
    value: *mut u8,
}

impl OverSockets {
    /// The socket, and what the map has for it, which is a `T`; `None` in the last call, which is of none.
    ///
    /// # Safety
    /// `ctx` is what the program was called with, and `T` the type of the map's values.
    #[inline(always)]
    pub unsafe fn get<T>(ctx: *const Self) -> Option<(Sock<Typed>, &'static mut T)> {
        // SAFETY: the caller promises it; the value lives as long as this program runs.
        let (sk, value) = unsafe { ((*ctx).sk, (*ctx).value) };
        let sk = Sock::new(sk)?;
        // SAFETY: as above. Other programs write it meanwhile: words of their own.
        unsafe { value.cast::<T>().as_mut() }.map(|value| (sk, value))
    }
}

/// What an iterator over open files is told (`struct bpf_iter__task_file`).
#[repr(C)]
pub struct OverFiles {
    meta: *const u8,
    task: *const u8,
    fd: u32,
    zero: u32,
    file: *const u8,
}

/// A process that has a file open.
#[derive(Clone, Copy)]
pub struct Holder(*const u8);

/// A file that is open.
#[derive(Clone, Copy)]
pub struct OpenFile(*const u8);

impl OverFiles {
    /// The process, and its file; `None` in the last call, which is of none.
    #[inline(always)]
    pub fn get(&self) -> Option<(Holder, OpenFile)> {
        // SAFETY: references. Volatile, because the verifier wants each pointer read from its place.
        let (task, file) =
            unsafe { (read_volatile(&raw const self.task), read_volatile(&raw const self.file)) };
        (!task.is_null() && !file.is_null()).then_some((Holder(task), OpenFile(file)))
    }
}

impl OpenFile {
    /// Its address.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0 as u64
    }

    /// The socket that it is of; `None`: it is of something else.
    #[inline(always)]
    pub fn socket(self) -> Option<Sock<Typed>> {
        // SAFETY: a file that the verifier knows as one.
        let socket = unsafe { bpf_sock_from_file(self.0.cast_mut().cast()) };
        socket_sk::<Typed>(socket.cast())
    }
}

impl Holder {
    /// Its number (tgid), in the initial PID namespace.
    #[inline(always)]
    pub fn pid(self) -> u32 {
        // SAFETY: a task that the verifier knows as one.
        unsafe { field::<Typed, u32>(self.0, Field::TaskTgid) }
    }

    /// When it started: `CLOCK_MONOTONIC`, ns.
    #[inline(always)]
    pub fn started_ns(self) -> u64 {
        // SAFETY: a task that the verifier knows as one.
        unsafe { field::<Typed, u64>(self.0, Field::TaskStartTime) }
    }

    /// Its real user, in the initial user namespace.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        // SAFETY: a task that the verifier knows as one, and the credentials that its BTF says are in there.
        unsafe { field::<Typed, u32>(field_ptr::<Typed>(self.0, Field::TaskRealCred), Field::CredUid) }
    }

    /// Address of its cgroup (version 2); 0: it cannot be told.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        let word = |at: u64| u64::from_ne_bytes(copy(at));
        match (offset(Field::TaskCgroups), offset(Field::CssSetDflCgrp)) {
            (Some(cgroups), Some(of_v2)) => {
                word(word(self.0 as u64 + cgroups as u64).wrapping_add(of_v2 as u64))
            }
            _ => 0,
        }
    }

    /// Inode number of its network namespace; 0: it has none any more.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let Some(common) = offset(Field::NetCommon) else { return 0 };
        // SAFETY: Probed copes with any address.
        unsafe {
            let nsproxy = field_ptr::<Probed>(self.0, Field::TaskNsproxy);
            let net = field_ptr::<Probed>(nsproxy, Field::NsproxyNetNs);
            if net.is_null() { 0 } else { field::<Probed, u32>(net.wrapping_add(common), Field::NsInum) }
        }
    }

    /// Writes its name.
    #[inline(always)]
    pub fn comm(self, to: &mut Comm) {
        let Some(at) = offset(Field::TaskComm) else { return };
        let (words, _) = to.as_chunks_mut::<8>();
        for (nth, word) in words.iter_mut().enumerate() {
            // SAFETY: a task that the verifier knows as one; two words are the 16 bytes of its name.
            *word = unsafe { Typed::load::<u64>(self.0.wrapping_add(at + 8 * nth)) }.to_ne_bytes();
        }
    }
}
