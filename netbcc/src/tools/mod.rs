//! One file per tool: module doc, options, hooks, columns, rows. A tool never imports another; `registry.rs` lists
//! them all.

pub mod bindsnoop;
mod conn;
pub mod gethostlatency;
pub mod hardirqs;
pub mod netqtop;
mod sends;
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
mod vectors;

/// Embeds a tool's BPF object.
macro_rules! object {
    ($name:literal) => {{
        // The build script leaves it there, without DWARF, and packed.
        crate::packed::Packed::new(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".o.packed")))
    }};
}
use object;
