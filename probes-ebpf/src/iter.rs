//! Iterators: programs that the kernel runs for each object of a kind, when user space asks it to go through them. They run in
//! our own process, so the current task tells nothing.

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use netbcc_common::Comm;
use netbcc_common::kernel::Field;

use crate::mem::{Access as _, Typed, field, field_ptr, offset};
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

impl OverFiles {
    /// The process and the socket that its file is of; `None`: another file, or the last call.
    ///
    /// # Safety
    /// `ctx` is what the program was called with.
    #[inline(always)]
    pub unsafe fn get(ctx: *const Self) -> Option<(Holder, Sock<Typed>)> {
        // SAFETY: the caller promises it.
        let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
        if task.is_null() || file.is_null() {
            return None;
        }
        // SAFETY: a `struct file *`, as the helper asks.
        let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
        Some((Holder(task), socket_sk::<Typed>(socket.cast())?))
    }
}

impl Holder {
    /// Its number (tgid), in the initial PID namespace.
    #[inline(always)]
    pub fn pid(self) -> u32 {
        // SAFETY: a `struct task_struct *` of the kernel's own.
        unsafe { field::<Typed, u32>(self.0, Field::TaskTgid) }
    }

    /// Its real user, in the initial user namespace.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        // SAFETY: as above, and the credentials that its BTF says are in there.
        unsafe { field::<Typed, u32>(field_ptr::<Typed>(self.0, Field::TaskRealCred), Field::CredUid) }
    }

    /// Writes its name.
    #[inline(always)]
    pub fn comm(self, to: &mut Comm) {
        let Some(comm) = offset(Field::TaskComm) else { return };
        let at = self.0.wrapping_add(comm);
        // SAFETY: as above; two words are the 16 bytes of the name, and of `to`.
        unsafe {
            let name: [u64; 2] = [Typed::load(at), Typed::load(at.wrapping_add(size_of::<u64>()))];
            to.as_mut_ptr().cast::<[u64; 2]>().write_unaligned(name);
        }
    }
}
