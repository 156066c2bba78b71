//! The current task.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
    bpf_get_current_uid_gid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use netbcc_common::Comm;
use netbcc_common::kernel::Field;

use crate::mem::{Access, Probed, Typed, field, field_ptr, is_locked, offset};

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

/// Writes the thread's name.
#[inline(always)]
pub fn comm(to: &mut Comm) {
    // SAFETY: exactly the 16 bytes of `to`.
    unsafe { bpf_get_current_comm(to.as_mut_ptr().cast(), size_of::<Comm>() as u32) };
}

/// The thread's name as the kernel has it: equal words are equal names, but behind a name's end anything may be. For
/// typed programs, to which this costs less than [`comm`].
#[inline(always)]
pub fn raw_comm() -> [u64; 2] {
    let Some(offset) = offset(Field::TaskComm) else { return [0; 2] };
    // SAFETY: the helper answers the current `struct task_struct`, whose type the verifier knows; two words are the 16
    // bytes of the name.
    unsafe {
        let at = (bpf_get_current_task_btf() as *const u8).wrapping_add(offset);
        [Typed::load(at), Typed::load(at.wrapping_add(size_of::<u64>()))]
    }
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
