//! What the tools' probes share in the kernel: reading sockets, packets and tasks, filtering, emitting, losing.
//!
//! Lives here: the only `unsafe` of the kernel side, and the maps and globals that every tool has. Must never live
//! here: a table that one tool needs (it would sit in every object) or anything that knows a tool. Start reading
//! at [`mem`], then [`sock`].
#![no_std]
// The kernel's atomic instructions: `core` has only loads and stores for this target.
#![feature(asm_experimental_arch)]

pub mod answer;
pub mod atomic;
pub mod calls;
pub mod dev;
pub mod emit;
pub mod filter;
pub mod irq;
pub mod iter;
pub mod mem;
pub mod mptcp;
pub mod owner;
pub mod segment;
pub mod skb;
pub mod sock;
pub mod stack;
pub mod storage;
pub mod syscall;
pub mod task;
pub mod timer;
pub mod twice;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no program that can get here.
    loop {}
}

/// The licence that the kernel asks for: GPL-only helpers (`bpf_probe_read_kernel`, `bpf_get_func_ret`) are used.
/// The sources are offered under MIT as well; this states compatibility.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
