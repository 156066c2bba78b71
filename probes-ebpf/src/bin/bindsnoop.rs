//! bindsnoop: one event per bind() of an IPv4 or IPv6 socket, at the end of the call; counts with `--count`.
//!
//! `inet_bind` and `inet6_bind` are where bind() of all protocols arrives. MPTCP has a function of its own, `mptcp_bind`,
//! which before 6.6 calls the first one for its subflow: what a subflow does is no event.
//!
//! Without either, the end of the system call tells its result, and its descriptor the socket.
//!
//! All is read by the helper: most of it lies in `struct inet_sock`, of which the verifier knows nothing here.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{HashMap, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, Addr};
use netbcc_common::bindsnoop::{Config, Event, Key, option};
use netbcc_common::kernel::Field;
use netbcc_common::loss::Loss;
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::filter::{self, Ends};
use probes_ebpf::mem::{Probed, Typed, offset_if_any, user};
use probes_ebpf::owner::Facts;
use probes_ebpf::sock::{Sock, ToTcp as _, is_inet, socket_sk};
use probes_ebpf::syscall::{self, Regs};
use probes_ebpf::{mem, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config =
    Config { bind: u64::MAX, errors: 0, count: 0, freebind: 0, transparent: 0, no_port: 0, zero: 0 };

/// Calls of threads that are inside a bind, by thread, for kprobes.
#[map]
static CALLS: HashMap<u32, Call> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Binds by address and port, for `--count`.
#[map]
static BINDS: PerCpuHashMap<Key, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// A call under way.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    /// Address of the socket.
    sk: u64,
    /// Address of the kernel's copy of what is asked for, which the caller keeps until the call is over.
    asked: u64,
    /// Its bytes.
    len: u32,
    /// 1: it is MPTCP's, inside of which a subflow's call, that is not noted, may begin and end.
    mptcp: u32,
}

/// Where the address that was asked for lies.
#[derive(Clone, Copy)]
enum At {
    /// In the kernel's memory.
    Kernel(u64),
    /// In the program's.
    User(u64),
}

impl At {
    #[inline(always)]
    fn words<const N: usize>(self) -> [u32; N]
    where
        [u32; N]: Default,
    {
        match self {
            Self::Kernel(at) => {
                // SAFETY: words are plain data, and the helper copes with any address.
                unsafe { <Probed as mem::Access>::load::<[u32; N]>(at as *const u8) }
            }
            Self::User(at) => user(at),
        }
    }
}

/// An address with its port.
#[derive(Clone, Copy)]
struct Place {
    addr: Addr,
    port: u16,
    family: u16,
}

impl Place {
    /// What a `sockaddr` of `len` bytes asks for; nothing if the kernel refuses one as short.
    #[inline(always)]
    fn asked(at: At, len: u64) -> Self {
        /// `struct sockaddr_in`, and `struct sockaddr_in6` without its last field (`SIN6_LEN_RFC2133`).
        const V4_BYTES: u64 = 16;
        const V6_BYTES: u64 = 24;
        let mut place = Self { addr: [0; 4], port: 0, family: AF_INET };
        if len < V4_BYTES {
            return place;
        }
        let head: [u32; 2] = at.words();
        place.port = u16::from_be((head[0] >> 16) as u16);
        if head[0] as u16 == AF_INET6 {
            place.family = AF_INET6;
            if len >= V6_BYTES {
                let [_, _, addr @ ..] = at.words::<6>();
                place.addr = addr;
            }
        } else {
            // AF_UNSPEC with 0.0.0.0 is IPv4, too.
            place.addr[0] = head[1];
        }
        place
    }

    /// Where `sk` is bound.
    #[inline(always)]
    fn of(sk: Sock<Probed>) -> Self {
        let family = sk.family();
        // SAFETY: each socket of these families is an inet_sock.
        let port = unsafe { mem::field::<Probed, u16>(sk.as_ptr(), Field::InetSport) };
        let mut place = Self { addr: [0; 4], port: u16::from_be(port), family };
        sk.laddr(family, &mut place.addr);
        place
    }
}

/// What filters ask of a bind.
#[derive(Clone, Copy)]
struct Bound {
    sk: Sock<Probed>,
    place: Place,
}

impl Ends for Bound {
    #[inline(always)]
    fn lport(self) -> u16 {
        self.place.port
    }
    #[inline(always)]
    fn rport(self) -> u16 {
        0
    }
    #[inline(always)]
    fn family(self) -> u16 {
        self.place.family
    }
    #[inline(always)]
    fn laddr(self, to: &mut Addr) {
        *to = self.place.addr;
    }
    #[inline(always)]
    fn raddr(self, to: &mut Addr) {
        *to = [0; 4];
    }
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        Some(self.sk.netns())
    }
}

/// Whether MPTCP made `sk` for itself.
#[inline(always)]
fn is_subflow(sk: Sock<Probed>) -> bool {
    sk.is_tcp() && sk.is_stream() && Probed::tcp(sk).is_some_and(|tcp| tcp.is_mptcp())
}

/// The options of `sk`: bits of [`option`].
#[inline(always)]
fn options(sk: Sock<Probed>) -> u16 {
    // SAFETY: each socket of these families is an inet_sock.
    let bit = |field| unsafe { mem::bit::<Probed>(sk.as_ptr(), field) };
    let (freebind, transparent, no_port) = if offset_if_any(Field::InetFlags).is_some() {
        // SAFETY: as above.
        let flags = unsafe { mem::field::<Probed, u64>(sk.as_ptr(), Field::InetFlags) };
        let flag = |nth: u32| flags >> (nth & 63) & 1 != 0;
        (flag(setting!(CONFIG.freebind)), flag(setting!(CONFIG.transparent)), flag(setting!(CONFIG.no_port)))
    } else {
        (bit(Field::InetFreebind), bit(Field::InetTransparent), bit(Field::InetNoPort))
    };
    let all = [
        (freebind, option::FREEBIND),
        (transparent, option::TRANSPARENT),
        (no_port, option::NO_PORT),
        (bit(Field::SkReuse), option::REUSEADDR),
        (bit(Field::SkReuseport), option::REUSEPORT),
    ];
    let mut options = 0;
    for (is, mask) in all {
        if is {
            options |= mask;
        }
    }
    options
}

/// The current task's bind() of `sk` to what lies at `at` ended with `error`: 0, or a negative errno.
#[inline(always)]
fn bound(sk: Sock<Probed>, at: At, len: u64, error: i32) {
    if error != 0 && setting!(CONFIG.errors) == 0 || !is_inet(sk.family()) || !filter::keeps_task() {
        return;
    }
    if is_subflow(sk) {
        return;
    }
    let asked = Place::asked(at, len);
    // The kernel takes back where a failed call bound it.
    let place = if error == 0 { Place::of(sk) } else { asked };
    if !filter::keeps_ends(Bound { sk, place }) {
        return;
    }
    if setting!(CONFIG.count) != 0 {
        let key = Key { addr: place.addr, port: place.port, family: place.family };
        if !storage::add(&BINDS, key, 1) {
            lost(Loss::MapFull);
        }
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    let who = task::pid_tid();
    event.ts_ns = task::now_ns();
    event.addr = place.addr;
    event.asked_addr = asked.addr;
    event.pid = (who >> 32) as u32;
    event.tid = who as u32;
    event.uid = task::uid();
    event.netns = sk.netns();
    event.error = error;
    // SAFETY: `sk` is a struct sock, which begins with its sock_common.
    event.ifindex = unsafe { mem::field::<Probed, u32>(sk.as_ptr(), Field::SkBoundDevIf) } as i32;
    event.port = place.port;
    event.asked_port = asked.port;
    event.family = sk.family();
    event.addr_family = place.family;
    event.asked_family = asked.family;
    // SAFETY: `sk` is a struct sock.
    event.protocol = unsafe { mem::field::<Probed, u16>(sk.as_ptr(), Field::SkProtocol) };
    event.options = options(sk);
    event.zero = 0;
    task::comm(&mut event.comm);
}

/// A function of the kernel that binds ends. Its return value lies behind its three arguments.
#[inline(always)]
fn ended(ctx: &FExitContext) {
    if let Some(sk) = socket_sk::<Typed>(ctx.arg(0)).and_then(|sk| Sock::new(sk.as_ptr())) {
        bound(sk, At::Kernel(ctx.arg(1)), u64::from(ctx.arg::<u32>(2)), ctx.arg(3));
    }
}

/// It begins.
#[inline(always)]
fn entered(ctx: &ProbeContext, mptcp: u32) {
    if let (Some(sk), Some(asked), Some(len)) =
        (ctx.arg(0).and_then(socket_sk::<Probed>), ctx.arg::<u64>(1), ctx.arg::<u32>(2))
        && filter::keeps_task()
        && !is_subflow(sk)
    {
        let call = Call { sk: sk.id(), asked, len, mptcp };
        if CALLS.insert(task::pid_tid() as u32, call, 0).is_err() {
            lost(Loss::MapFull);
        }
    }
}

/// It returns.
#[inline(always)]
fn returned(ctx: &RetProbeContext, mptcp: u32) {
    let tid = task::pid_tid() as u32;
    let Some(call) = storage::entry(&CALLS, tid).map(|call| *call) else { return };
    if call.mptcp != mptcp {
        return;
    }
    let _gone_already = CALLS.remove(tid);
    if let Some(sk) = Sock::new(call.sk as *const u8) {
        bound(sk, At::Kernel(call.asked), u64::from(call.len), ctx.ret());
    }
}

// match-proto: int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "inet_bind")]
fn v4_fexit(ctx: FExitContext) -> i32 {
    ended(&ctx);
    0
}

// match-proto: int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "inet6_bind")]
fn v6_fexit(ctx: FExitContext) -> i32 {
    ended(&ctx);
    0
}

// match-proto: static int mptcp_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "mptcp_bind")]
fn mptcp_fexit(ctx: FExitContext) -> i32 {
    ended(&ctx);
    0
}

// match-proto: int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v4_kprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, 0);
    0
}

// match-proto: int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v6_kprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, 0);
    0
}

// match-proto: static int mptcp_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn mptcp_kprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, 1);
    0
}

#[kretprobe]
fn v4_kretprobe(ctx: RetProbeContext) -> u32 {
    returned(&ctx, 0);
    0
}

#[kretprobe]
fn v6_kretprobe(ctx: RetProbeContext) -> u32 {
    returned(&ctx, 0);
    0
}

#[kretprobe]
fn mptcp_kretprobe(ctx: RetProbeContext) -> u32 {
    returned(&ctx, 1);
    0
}

// match-proto: void sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    // Every system call comes by: look at as little as possible. A 32-bit one's numbers mean other calls.
    if let Some(regs) = Regs::new(ctx.arg(0))
        && regs.call() == setting!(CONFIG.bind)
        && !syscall::is_compat()
    {
        let (fd, asked) = regs.args();
        if let Some(sk) = syscall::socket(fd as u32) {
            bound(sk, At::User(asked), regs.third() & 0xffff_ffff, ctx.arg::<i64>(1) as i32);
        }
    }
    0
}
