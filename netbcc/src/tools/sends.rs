//! What tools of sent bytes share.

use netbcc_common::sends::SendCalls;
use nix::libc;

/// The system calls that send, for kernels where nothing else tells.
pub(super) fn calls() -> SendCalls {
    let number = |call: libc::c_long| call.cast_unsigned();
    SendCalls {
        first: [libc::SYS_write, libc::SYS_writev, libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendfile]
            .map(number),
        splice: number(libc::SYS_splice),
        sendmmsg: number(libc::SYS_sendmmsg),
    }
}
