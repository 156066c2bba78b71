//! TCP's timer of retransmissions and probes.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use netbcc_common::kernel::Field;

use crate::mem::{Probed, Typed, field, offset, offset_if_any};
use crate::sock::Sock;

/// Where the timer lies, from the start of the socket.
#[inline(always)]
fn place() -> Option<usize> {
    offset_if_any(Field::SkRetransmitTimer).or_else(|| offset(Field::IcskRetransmitTimer))
}

/// Address of the function that the timer of `sk` calls, the same for all TCP sockets; 0 if it cannot be known.
#[inline(always)]
pub fn function_of(sk: Sock<Probed>) -> u64 {
    let Some(place) = place() else { return 0 };
    // SAFETY: a TCP socket begins with its inet_connection_sock.
    unsafe { field::<Probed, u64>(sk.as_ptr().wrapping_add(place), Field::TimerFunction) }
}

/// A `struct timer_list *`, an argument of a typed program, never null.
#[derive(Clone, Copy)]
pub struct Timer(*const u8);

impl Timer {
    /// The timer at `at`, unless it is null.
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self(at))
    }

    /// Address of the function that it calls.
    #[inline(always)]
    pub fn function(self) -> u64 {
        // SAFETY: a timer_list; the verifier refuses a program with anything else.
        unsafe { field::<Typed, u64>(self.0, Field::TimerFunction) }
    }

    /// The TCP socket around it, if it is one's.
    #[inline(always)]
    pub fn socket(self) -> Option<Sock<Probed>> {
        Sock::new(self.0.wrapping_sub(place()?))
    }
}

/// Whether the timer of `sk` fires for a tail loss probe now. A timer that was moved to a later time may still fire
/// at the earlier one, and is then only set again.
#[inline(always)]
pub fn is_loss_probe(sk: Sock<Probed>) -> bool {
    /// `ICSK_TIME_LOSS_PROBE`.
    const LOSS_PROBE: u8 = 5;
    // SAFETY: a TCP socket begins with its inet_connection_sock; the helper takes no arguments.
    unsafe {
        if field::<Probed, u8>(sk.as_ptr(), Field::IcskPending) != LOSS_PROBE {
            return false;
        }
        if offset_if_any(Field::IcskTimeout).is_none() {
            return true;
        }
        let due = field::<Probed, u64>(sk.as_ptr(), Field::IcskTimeout);
        bpf_jiffies64().wrapping_sub(due) as i64 >= 0
    }
}
