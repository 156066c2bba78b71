//! Calls under way that move bytes over a TCP socket, for kprobes.
//!
//! These calls sleep. A kretprobe has room for ten calls under way, or for twice as many as there are CPUs: it does not see
//! the ends of those beyond, and kernels before 6.6 do not count that. So what a call moved is told at the entry of
//! `release_sock`, where it lets go of the socket: until then nobody else moves anything there. The caller's
//! `struct msghdr` says how much is left of what was asked for. Where there is none, or where the bytes do not go through
//! it, the socket's sequence numbers say how far it came, but never more than was asked for.
//!
//! A call that waits lets go of the socket, too, and goes on. `sk_wait_data` announces that of a receive, and a socket on
//! which a send waits says so itself.

use aya_ebpf::maps::HashMap;

use netbcc_common::kernel::Field;

use crate::mem::{Access as _, Probed, offset};
use crate::sock::{Sock, ToTcp as _};
use crate::{storage, task};

/// Flags of a receive that takes nothing out of the socket's queue: `MSG_PEEK` and `MSG_ERRQUEUE`.
pub const TAKES_NOTHING: i32 = 0x2 | 0x2000;

/// `MSG_TRUNC`: a receive that takes bytes out and copies none.
const COPIES_NOTHING: i32 = 0x20;

/// Asked for so much that a splice reads until it lets go of the socket.
const ALL: u64 = u64::MAX;

/// The calls under way, by thread. In each direction a thread has one: while it copies what it received it may have to
/// send, as where the memory is a file's on a network disk.
pub type Table = HashMap<u32, Calls>;

/// The calls of a thread.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Calls {
    receive: Call,
    send: Call,
}

/// A call; with no socket there is none.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Call {
    /// Address of the socket.
    sk: u64,
    /// Address of its `struct msghdr`; 0: the socket's sequence number tells.
    message: u64,
    /// How many bytes are left of what was asked for.
    left: u64,
    /// The sequence number until which bytes are counted.
    seq: u32,
    /// Of a receive, 1: it will let go of the socket, and go on.
    waits: u32,
}

impl Call {
    /// In the place of a call that is not to be counted.
    const NONE: Self = Self { sk: 0, message: 0, left: 0, seq: 0, waits: 0 };

    /// A call with `message`.
    #[inline(always)]
    fn of_message(sk: Sock<Probed>, message: u64) -> Self {
        let left = left_of(message);
        if left == 0 { Self::NONE } else { Self { sk: sk.id(), message, left, seq: 0, waits: 0 } }
    }

    /// A call for `left` bytes, with the socket at `seq`.
    #[inline(always)]
    fn from_seq(sk: Sock<Probed>, seq: u32, left: u64) -> Self {
        Self { sk: sk.id(), message: 0, left, seq, waits: 0 }
    }

    /// How many bytes it moved since it was last asked, with the socket at `seq`.
    #[inline(always)]
    fn moved(&mut self, seq: impl FnOnce() -> u32) -> u64 {
        let moved = if self.message == 0 {
            let seq = seq();
            let came = u64::from(seq.wrapping_sub(self.seq));
            self.seq = seq;
            if came < self.left { came } else { self.left }
        } else {
            self.left.saturating_sub(left_of(self.message))
        };
        if self.left != ALL {
            self.left -= moved;
        }
        moved
    }
}

/// How many bytes are left of what `message`, a `struct msghdr`, is for.
#[inline(always)]
fn left_of(message: u64) -> u64 {
    let (Some(iter), Some(count)) = (offset(Field::MsgIter), offset(Field::IterCount)) else { return 0 };
    // SAFETY: the helper copes with any pointer.
    unsafe { Probed::load((message as *const u8).wrapping_add(iter + count)) }
}

/// The sequence number until which `sk` was read. One that came with a FIN counts as no byte.
#[inline(always)]
fn read_until(sk: Sock<Probed>) -> u32 {
    let Some(tcp) = Probed::tcp(sk) else { return 0 };
    tcp.copied_seq().wrapping_sub(u32::from(tcp.is_read_to_the_fin()))
}

#[inline(always)]
fn written_until(sk: Sock<Probed>) -> u32 {
    Probed::tcp(sk).map_or(0, |tcp| tcp.write_seq())
}

/// `tcp_sendmsg` begins. `None`: with nothing to be counted. `false`: there is no room to remember it.
#[inline(always)]
#[must_use]
pub fn send_begins(table: &'static Table, call: Option<(Sock<Probed>, u64)>) -> bool {
    let call = call.map_or(Call::NONE, |(sk, message)| Call::of_message(sk, message));
    begins(table, call, |calls| &mut calls.send)
}

/// `tcp_sendpage` begins, for `size` bytes. `None`: with nothing to be counted. `false`: there is no room to remember it.
#[inline(always)]
#[must_use]
pub fn page_begins(table: &'static Table, call: Option<(Sock<Probed>, u64)>) -> bool {
    let call = call.map_or(Call::NONE, |(sk, size)| Call::from_seq(sk, written_until(sk), size));
    begins(table, call, |calls| &mut calls.send)
}

/// `tcp_recvmsg` begins, with a message for `size` bytes and with `flags`. `None`: with nothing to be counted. `false`: there
/// is no room to remember it.
#[inline(always)]
#[must_use]
pub fn receive_begins(table: &'static Table, call: Option<(Sock<Probed>, u64, u64, i32)>) -> bool {
    let call = call.map_or(Call::NONE, |(sk, message, size, flags)| {
        if flags & TAKES_NOTHING != 0 {
            Call::NONE
        } else if flags & COPIES_NOTHING != 0 {
            Call::from_seq(sk, read_until(sk), size)
        } else {
            Call::of_message(sk, message)
        }
    });
    begins(table, call, |calls| &mut calls.receive)
}

/// The current thread holds `sk`, and is about to read from it into a pipe. `false`: there is no room to remember it.
#[inline(always)]
#[must_use]
pub fn splices(table: &'static Table, sk: Sock<Probed>) -> bool {
    let known =
        storage::entry(table, task::pid_tid() as u32).is_some_and(|calls| calls.receive.sk == sk.id());
    known || begins(table, Call::from_seq(sk, read_until(sk), ALL), |calls| &mut calls.receive)
}

/// Remembers a call, in place of what was remembered. It is no `Option`: of that, compilers load the call before they look
/// whether there is one, and kernels before 6.3 let no program read what it did not write.
#[inline(always)]
fn begins(table: &'static Table, call: Call, slot: impl Fn(&mut Calls) -> &mut Call) -> bool {
    let tid = task::pid_tid() as u32;
    if let Some(calls) = storage::entry(table, tid) {
        *slot(calls) = call;
        return true;
    }
    if call.sk == 0 {
        return true;
    }
    let mut calls = Calls::default();
    *slot(&mut calls) = call;
    table.insert(tid, calls, 0).is_ok()
}

/// The current thread is about to wait for data, and to let go of `sk` for that.
#[inline(always)]
pub fn waits(table: &'static Table, sk: Sock<Probed>) {
    if let Some(calls) = storage::entry(table, task::pid_tid() as u32)
        && calls.receive.sk == sk.id()
        && calls.receive.left != ALL
    {
        calls.receive.waits = 1;
    }
}

/// How many bytes a thread moved.
#[derive(Clone, Copy, Default)]
pub struct Moved {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// The current thread lets go of `sk`: what it moved since it took it.
#[inline(always)]
pub fn released(table: &'static Table, sk: Sock<Probed>) -> Moved {
    let mut moved = Moved::default();
    let tid = task::pid_tid() as u32;
    let Some(calls) = storage::entry(table, tid) else { return moved };
    let call = &mut calls.receive;
    if call.sk == sk.id() {
        moved.received = call.moved(|| read_until(sk));
        if call.waits == 0 || call.left == 0 {
            call.sk = 0;
        }
        call.waits = 0;
    }
    let call = &mut calls.send;
    if call.sk == sk.id() {
        moved.sent = call.moved(|| written_until(sk));
        if call.left == 0 || sk.write_pending() == 0 {
            call.sk = 0;
        }
    }
    if calls.receive.sk | calls.send.sk == 0 {
        let _gone_already = table.remove(tid);
    }
    moved
}
