//! What crosses the border between the kernel side and user space: events, map keys and values, configuration.
//!
//! Lives here: `repr(C)` types without padding (checked by zerocopy's derives) and the table of kernel fields.
//! Must never live here: logic beyond accessors. Start reading at the tool that interests you: one file per tool.
//!
//! Every record in the ring begins with `ts_ns: u64`, the kernel's `CLOCK_MONOTONIC` at the event: user space
//! orders a batch by it without knowing the tool.
#![no_std]

pub mod addr;
pub mod bindsnoop;
pub mod filter;
pub mod gethostlatency;
pub mod hardirqs;
pub mod kernel;
pub mod loss;
pub mod mptcp;
pub mod netqtop;
pub mod sends;
pub mod socket;
pub mod softirqs;
pub mod softirqslower;
pub mod solisten;
pub mod tcpaccept;
pub mod tcpcong;
pub mod tcpconnect;
pub mod tcpconnlat;
pub mod tcpdrop;
pub mod tcplife;
pub mod tcppktlat;
pub mod tcpreset;
pub mod tcpretrans;
pub mod tcprtt;
pub mod tcpstates;
pub mod tcpsubnet;
pub mod tcpsynbl;
pub mod tcptop;
pub mod tcptracer;
pub mod tcpwhy;

/// A task's name as the kernel keeps it: NUL-terminated, 15 bytes at most, any bytes.
pub type Comm = [u8; 16];

/// Runtime fact for tests: the length that user space must see at the start of every record.
pub const TS_BYTES: usize = 8;
