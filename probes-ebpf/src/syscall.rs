//! System calls: which one a thread is in, the socket that an accept made, and what was sent.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs,
};
use netbcc_common::kernel::Field;
use netbcc_common::loss::Loss;
use netbcc_common::sends::SendCalls;

use crate::emit::lost;
use crate::mem::{Access, Probed, Typed, field, offset, offset_if_any};
use crate::sock::{Sock, is_inet};

/// x86's `TS_COMPAT` (arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 2;
/// arm64's `TIF_32BIT` (arch/arm64/include/asm/thread_info.h).
const TIF_32BIT: u64 = 1 << 22;

/// The registers with which a thread entered the kernel.
#[derive(Clone, Copy)]
pub struct Regs(*const u8);

impl Regs {
    /// The first argument of `sys_exit`.
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self(at))
    }

    /// The registers with which the current thread came into the kernel.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        // SAFETY: no arguments; the second helper takes what the first one answers.
        Self::new(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8)
    }

    /// The number of the system call. A 32-bit program's numbers mean other calls: see [`is_compat`].
    #[inline(always)]
    pub fn call(self) -> u64 {
        // SAFETY: a typed `struct pt_regs *`; only its architecture's field is there.
        unsafe {
            if offset_if_any(Field::RegsOrigAx).is_some() {
                field::<Typed, u64>(self.0, Field::RegsOrigAx)
            } else {
                u64::from(field::<Typed, u32>(self.0, Field::RegsSyscallno))
            }
        }
    }
}

impl Regs {
    /// The first two arguments of the system call.
    #[inline(always)]
    pub fn args(self) -> (u64, u64) {
        // SAFETY: a typed `struct pt_regs *`; only its architecture's fields are there.
        unsafe {
            match offset_if_any(Field::RegsRegs) {
                Some(regs) => (
                    field::<Typed, u64>(self.0, Field::RegsOrigX0),
                    Typed::load::<u64>(self.0.wrapping_add(regs + size_of::<u64>())),
                ),
                None => {
                    (field::<Typed, u64>(self.0, Field::RegsDi), field::<Typed, u64>(self.0, Field::RegsSi))
                }
            }
        }
    }
}

impl Regs {
    /// The third argument of the system call.
    #[inline(always)]
    pub fn third(self) -> u64 {
        // SAFETY: a typed `struct pt_regs *`; only its architecture's field is there.
        unsafe {
            match offset_if_any(Field::RegsRegs) {
                Some(regs) => Typed::load::<u64>(self.0.wrapping_add(regs + 2 * size_of::<u64>())),
                None => field::<Typed, u64>(self.0, Field::RegsDx),
            }
        }
    }
}

/// The TCP socket that a system call gave bytes to, and how many it took. The arguments are those of `sys_exit`, and
/// where the numbers of the calls come from.
#[inline(always)]
pub fn sent(regs: *const u8, result: i64, calls: impl FnOnce() -> SendCalls) -> Option<(Sock<Probed>, i64)> {
    if result <= 0 {
        return None;
    }
    let regs = Regs::new(regs)?;
    // Every system call comes by: look at as little as possible. A 32-bit one's numbers mean other calls.
    let number = regs.call();
    let SendCalls { first: [write, writev, sendto, sendmsg, sendfile], splice, sendmmsg } = calls();
    let first =
        number == write || number == writev || number == sendto || number == sendmsg || number == sendfile;
    let (splice, sendmmsg) = (number == splice, number == sendmmsg);
    if !(first || splice || sendmmsg) || is_compat() {
        return None;
    }
    let (fd, messages) = regs.args();
    let fd = if splice { regs.third() } else { fd };
    let sk = socket(fd as u32)?;
    if !is_inet(sk.family()) || !sk.is_tcp() || !sk.is_stream() {
        return None;
    }
    let bytes = if sendmmsg {
        if result as u64 > MESSAGES {
            lost(Loss::MapFull);
        }
        message_bytes(messages, (result as u64).min(MESSAGES) as u32)
    } else {
        result
    };
    Some((sk, bytes))
}

/// Messages of one sendmmsg that are looked at; more are one lost event.
const MESSAGES: u64 = 64;

/// Bytes that a sendmmsg says it sent of its first `count` messages; `messages` is where they are in the program's
/// memory.
#[inline(always)]
fn message_bytes(messages: u64, count: u32) -> i64 {
    // struct mmsghdr: a struct msghdr of 56 bytes, then how much of it was sent, padded to 8.
    const MESSAGE: u64 = 64;
    const SENT: u64 = 56;
    let mut bytes = 0;
    for nth in 0..MESSAGES as u32 {
        if nth >= count {
            break;
        }
        let mut sent = 0_u32;
        let at = messages + u64::from(nth) * MESSAGE + SENT;
        // SAFETY: the destination is a local of exactly this size; the helper copes with any source.
        unsafe { bpf_probe_read_user((&raw mut sent).cast(), size_of::<u32>() as u32, at as *const _) };
        bytes += i64::from(sent);
    }
    bytes
}

/// Whether the current system call is a 32-bit one.
#[inline(always)]
pub fn is_compat() -> bool {
    let Some(thread) = offset(Field::TaskThreadInfo) else { return false };
    // SAFETY: thread_info lies within the task_struct; each field is there on its architecture only.
    unsafe {
        let thread = (bpf_get_current_task() as *const u8).wrapping_add(thread);
        if offset_if_any(Field::ThreadStatus).is_some() {
            field::<Probed, u32>(thread, Field::ThreadStatus) & TS_COMPAT != 0
        } else {
            field::<Probed, u64>(thread, Field::ThreadFlags) & TIF_32BIT != 0
        }
    }
}

/// The socket behind a descriptor of the current task. `None`: another thread closed it or put something else in
/// its place.
#[inline(always)]
pub fn socket(fd: u32) -> Option<Sock<Probed>> {
    // SAFETY: each pointer is read from the struct that BTF says holds it; Probed copes with any value.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let files = field::<Probed, u64>(task, Field::TaskFiles) as *const u8;
        let table = field::<Probed, u64>(files, Field::FilesFdt) as *const u8;
        if fd >= field::<Probed, u32>(table, Field::FdtMaxFds) {
            return None;
        }
        let slots = field::<Probed, u64>(table, Field::FdtFd) as *const u8;
        let file = Probed::load::<u64>(slots.wrapping_add(fd as usize * size_of::<u64>())) as *const u8;
        if file.is_null() {
            return None;
        }
        socket_of(file as u64)
    }
}

/// The socket behind the `struct file` at this address, if it is a socket's.
#[inline(always)]
pub fn socket_of(file: u64) -> Option<Sock<Probed>> {
    // SAFETY: each pointer is read from the struct that BTF says holds it; Probed copes with any value.
    unsafe {
        let socket = field::<Probed, u64>(file as *const u8, Field::FilePrivateData) as *const u8;
        // Another kind of file keeps something else there, which does not point back.
        if field::<Probed, u64>(socket, Field::SocketFile) != file {
            return None;
        }
        Sock::new(field::<Probed, u64>(socket, Field::SocketSk) as *const u8)
    }
}

/// The socket that the current thread's system call made, if it is one of `accepts` (their numbers) and succeeded with
/// `result`. `None` for a 32-bit program's call, whose numbers mean other calls, too.
#[inline(always)]
pub fn accepted(regs: Regs, result: i64, accepts: [u64; 2]) -> Option<Sock<Probed>> {
    let [accept, accept4] = accepts;
    let call = regs.call();
    if (call != accept && call != accept4) || result < 0 || is_compat() {
        return None;
    }
    socket(result as u32)
}
