//! The current task.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
    bpf_get_current_uid_gid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use netbcc_common::Comm;
use netbcc_common::kernel::Field;

use crate::mem::{Access, Probed, Typed, field, field_ptr, is_locked, offset, offset_if_any};

/// Now: `CLOCK_MONOTONIC`, ns.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Process (tgid) in the upper half, thread (tid) in the lower; both of the initial pid namespace.
#[inline(always)]
pub fn pid_tid() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

/// Process (tgid).
#[inline(always)]
pub fn pid() -> u32 {
    (pid_tid() >> 32) as u32
}

/// The CPU that this runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_get_smp_processor_id() }) as u32
}

/// Real uid in the initial user namespace.
#[inline(always)]
pub fn uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_uid_gid() as u32 }
}

/// Whether the current task is a thread of the kernel.
#[inline(always)]
pub fn is_kernel<A: Access>() -> bool {
    /// `PF_KTHREAD` (include/linux/sched.h).
    const KTHREAD: u32 = 0x0020_0000;
    // SAFETY: it is the current `struct task_struct`.
    unsafe { field::<A, u32>(A::current_task(), Field::TaskFlags) & KTHREAD != 0 }
}

/// What the names of the threads begin with that work for a process's rings of io_uring: `iou-wrk-` and `iou-sqp-`.
const RING: u32 = u32::from_ne_bytes(*b"iou-");

/// Writes the thread's name; that of its process's first thread where the kernel made the thread, to work for a ring of
/// io_uring.
#[inline(always)]
pub fn comm(to: &mut Comm) {
    // SAFETY: exactly the 16 bytes of `to`, the first of which are there to be read after that.
    let head = unsafe {
        bpf_get_current_comm(to.as_mut_ptr().cast(), size_of::<Comm>() as u32);
        to.as_ptr().cast::<u32>().read_unaligned()
    };
    if head == RING {
        ring_owner_comm(to);
    }
}

/// Writes what [`comm`] writes, by two loads where the program may do so. Anything may be behind the name's end.
#[inline(always)]
pub fn comm_by<A: Access>(to: &mut Comm) {
    if A::IS_TYPED {
        // SAFETY: two words are the 16 bytes of `to`.
        unsafe { to.as_mut_ptr().cast::<[u64; 2]>().write_unaligned(raw_comm()) };
    } else {
        comm(to);
    }
}

/// Writes the name of the process's first thread, if the current thread works for a ring of io_uring. Anybody may have the
/// name of such a thread, so the kernel's own mark decides, or that the thread ends. Once per object: there are dozens of places where a name is read.
#[inline(never)]
fn ring_owner_comm(to: &mut Comm) {
    // By the helper where it is allowed, as programs of all kinds ask.
    let name = if is_locked() { ring_owner_comm_by::<Typed>() } else { ring_owner_comm_by::<Probed>() };
    if let Some(name) = name {
        // SAFETY: two words are the 16 bytes of `to`.
        unsafe { to.as_mut_ptr().cast::<[u64; 2]>().write_unaligned(name) };
    }
}

#[inline(always)]
fn ring_owner_comm_by<A: Access>() -> Option<[u64; 2]> {
    /// `PF_IO_WORKER` (include/linux/sched.h).
    const IO_WORKER: u32 = 0x10;
    /// `PF_EXITING`: a worker loses the mark (`io_worker_exit`, io_uring/io-wq.c) before it closes the files of a process of
    /// which it is the last thread.
    const EXITING: u32 = 0x4;
    let leader = offset_if_any(Field::TaskGroupLeader)?;
    let comm = offset(Field::TaskComm)?;
    // SAFETY: the current `struct task_struct`, and the one whose pointer BTF says is in there; two words are the 16 bytes of
    // the name.
    unsafe {
        let task = A::current_task();
        if field::<A, u32>(task, Field::TaskFlags) & (IO_WORKER | EXITING) == 0 {
            return None;
        }
        let leader = A::load_ptr(A::distrust(task, Field::TaskGroupLeader).wrapping_add(leader));
        Some([A::load(leader.wrapping_add(comm)), A::load(leader.wrapping_add(comm + size_of::<u64>()))])
    }
}

/// What [`comm`] writes, as the kernel has it: equal words are equal names, but behind a name's end anything may be. For
/// typed programs, to which this costs less than [`comm`].
#[inline(always)]
pub fn raw_comm() -> [u64; 2] {
    let Some(offset) = offset(Field::TaskComm) else { return [0; 2] };
    // SAFETY: the helper answers the current `struct task_struct`, whose type the verifier knows; two words are the 16
    // bytes of the name.
    let name: [u64; 2] = unsafe {
        let at = (bpf_get_current_task_btf() as *const u8).wrapping_add(offset);
        [Typed::load(at), Typed::load(at.wrapping_add(size_of::<u64>()))]
    };
    if name[0] as u32 == RING {
        // In memory of its own: a call leaves a name in registers where it is.
        let mut other = [0; 2];
        // SAFETY: two words are the 16 bytes of a name.
        comm(unsafe { &mut *(&raw mut other).cast() });
        return other;
    }
    name
}

/// Id of the cgroup v2 that the task is in.
#[inline(always)]
pub fn cgroup_id() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Inode number of the task's mount namespace; 0 if it has none any more (an exiting task).
#[inline(always)]
pub fn mntns() -> u32 {
    // By the helper where it is allowed, as programs of all kinds ask.
    if is_locked() { mntns_by::<Typed>() } else { mntns_by::<Probed>() }
}

#[inline(always)]
fn mntns_by<A: Access>() -> u32 {
    let Some(common) = offset(Field::MntNsCommon) else { return 0 };
    // SAFETY: each pointer is read from the struct that BTF says holds it; both ways cope with null.
    unsafe {
        let nsproxy = field_ptr::<A>(A::current_task(), Field::TaskNsproxy);
        if nsproxy.is_null() {
            return 0;
        }
        let ns = A::distrust(field_ptr::<A>(nsproxy, Field::NsproxyMntNs), Field::MntNsCommon);
        field::<A, u32>(ns.wrapping_add(common), Field::NsInum)
    }
}
