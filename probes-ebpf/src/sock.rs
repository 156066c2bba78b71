//! Sockets: `struct sock` and what stands around it.

use core::marker::PhantomData;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skc_to_tcp_sock};
use netbcc_common::addr::{AF_INET, AF_INET6, Addr, MAPPED_WORD, Tuple};
use netbcc_common::kernel::Field;

use crate::mem::{Access, Probed, Typed, copy, field, field_in6, field_ptr, offset, offset_if_any};

/// `IPPROTO_TCP`. An MPTCP socket raises the same events with 262; its subflows raise their own with 6.
pub const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_MPTCP`.
const IPPROTO_MPTCP: u16 = 262;

/// TCP states (include/net/tcp_states.h), the ones that probes ask for.
pub mod state {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const SYN_RECV: i32 = 3;
    pub const FIN_WAIT1: i32 = 4;
    pub const TIME_WAIT: i32 = 6;
    pub const CLOSE: i32 = 7;
    pub const CLOSE_WAIT: i32 = 8;
    pub const LAST_ACK: i32 = 9;
    pub const LISTEN: i32 = 10;
    pub const NEW_SYN_RECV: i32 = 12;
}

/// A `struct sock *`, never null.
#[derive(Clone, Copy)]
pub struct Sock<A> {
    at: *const u8,
    how: PhantomData<A>,
}

impl<A: Access> Sock<A> {
    /// The socket at `at`, unless it is null (tp_btf arguments may be, on newer kernels).
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self { at, how: PhantomData })
    }

    /// Its address: identifies the socket while it lives.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at as u64
    }

    /// The pointer, for helpers.
    #[inline(always)]
    pub fn as_ptr(self) -> *const u8 {
        self.at
    }

    /// `AF_INET`, `AF_INET6` or another.
    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: `at` is a struct sock, which begins with its sock_common.
        unsafe { field::<A, u16>(self.at, Field::SkFamily) }
    }

    /// TCP state.
    #[inline(always)]
    pub fn state(self) -> i32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        i32::from(unsafe { field::<A, u8>(self.at, Field::SkState) })
    }

    /// How many connections wait for accept(), of a listener.
    #[inline(always)]
    pub fn waiting(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkAckBacklog) }
    }

    /// How many may wait for accept().
    #[inline(always)]
    pub fn most_waiting(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkMaxAckBacklog) }
    }

    /// Packets that were dropped for want of room: of a listener SYNs, and ACKs that would have ended a handshake.
    #[inline(always)]
    pub fn drops(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks; an `atomic_t` is a word.
        unsafe { field::<A, u32>(self.at, Field::SkDrops) }
    }

    /// Whether it is a TCP socket (not the MPTCP socket above it).
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        // SAFETY: `at` is a struct sock.
        unsafe { field::<A, u16>(self.at, Field::SkProtocol) == IPPROTO_TCP }
    }

    /// Whether it is the MPTCP socket above the subflows.
    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u16>(self.at, Field::SkProtocol) == IPPROTO_MPTCP }
    }

    /// The first subflow of an MPTCP socket; of one that listens, the TCP listener.
    #[inline(always)]
    pub fn first_subflow(self) -> Option<Sock<Probed>> {
        let at = offset_if_any(Field::MptcpFirst)?;
        let word: [u8; 8] = copy((self.at as u64).wrapping_add(at as u64));
        Sock::new(u64::from_ne_bytes(word) as *const u8)
    }

    /// Whether `word` is its address.
    #[inline(always)]
    pub fn is_at(self, word: &u64) -> bool {
        // SAFETY: a reference. Volatile, so that the compiler does not compare more than this at once: the verifier
        // allows no arithmetic with pointers for that.
        unsafe { read_volatile(word) == self.at as u64 }
    }

    /// Inode number of its network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let Some(common) = offset(Field::NetCommon) else { return 0 };
        // SAFETY: a socket keeps its namespace alive; the offsets are those of the structs passed.
        unsafe {
            let net = field_ptr::<A>(self.at, Field::SkNet);
            field::<A, u32>(net.wrapping_add(common), Field::NsInum)
        }
    }

    /// Address of its cgroup: that of who made it, of a connection that was accepted the listener's. 0: it is the root, or not
    /// known, as of one in TIME_WAIT.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        let word = |at: u64| u64::from_ne_bytes(copy(at));
        let Some(data) = offset(Field::SkCgrpData) else { return 0 };
        // Both of these are smaller than a socket.
        let sk = match self.state() {
            state::TIME_WAIT => return 0,
            state::NEW_SYN_RECV => {
                offset(Field::SkListener).map_or(0, |listener| word(self.id() + listener as u64))
            }
            _ => self.id(),
        };
        let data = sk.wrapping_add(data as u64);
        if let Some(cgroup) = offset_if_any(Field::SockCgroup) {
            return word(data.wrapping_add(cgroup as u64));
        }
        let Some(val) = offset(Field::SockCgroupVal) else { return 0 };
        let val = word(data.wrapping_add(val as u64));
        // Settings of net_cls or net_prio are in the way (`sock_cgroup_ptr`, include/linux/cgroup.h).
        if val & 3 != 0 { 0 } else { val }
    }

    /// Number of its cgroup: the inode number of the cgroup's folder. 0: nobody knows.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        let word = |at: u64| u64::from_ne_bytes(copy(at));
        let (Some(kn), Some(id)) = (offset(Field::CgroupKn), offset(Field::KernfsId)) else { return 0 };
        let cgroup = self.cgroup();
        if cgroup == 0 { 0 } else { word(word(cgroup.wrapping_add(kn as u64)).wrapping_add(id as u64)) }
    }

    /// Of a socket in TIME_WAIT, the state that it stands for.
    #[inline(always)]
    pub fn substate(self) -> u8 {
        // Its type says that it is a whole socket, which has something else there.
        offset(Field::TwSubstate).map_or(0, |at| copy::<1>(self.id().wrapping_add(at as u64))[0])
    }

    /// The number that the kernel gave it; 0: none yet.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: `at` is a struct sock, which begins with its sock_common.
        unsafe { field::<A, u64>(self.at, Field::SkCookie) }
    }

    /// Address of its network namespace: identifies that while it lives.
    #[inline(always)]
    pub fn net(self) -> u64 {
        // SAFETY: as above.
        unsafe { field_ptr::<A>(self.at, Field::SkNet) as u64 }
    }

    /// Whether a file stands above it: it was accepted, or made by a process, and is not closed yet.
    #[inline(always)]
    pub fn has_file(self) -> bool {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { !field_ptr::<A>(self.at, Field::SkSocket).is_null() }
    }

    /// Whether a program has it open: no socket of the kernel's own.
    #[inline(always)]
    pub fn is_open(self) -> bool {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks; a `struct socket` lies behind the pointer.
        unsafe {
            let socket = field_ptr::<A>(self.at, Field::SkSocket);
            !socket.is_null() && !field_ptr::<A>(socket, Field::SocketFile).is_null()
        }
    }

    /// Whether both directions are shut down, as close() does first of all.
    #[inline(always)]
    pub fn is_shut(self) -> bool {
        /// `SHUTDOWN_MASK` (include/net/sock.h).
        const BOTH: u8 = 3;
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u8>(self.at, Field::SkShutdown) == BOTH }
    }

    /// Whether the kernel is the only one that still holds it.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        /// `SOCK_DEAD` (include/net/sock.h).
        const DEAD: u64 = 1 << 0;
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u64>(self.at, Field::SkFlags) & DEAD != 0 }
    }

    /// Whether the other end closed its direction: a FIN came.
    #[inline(always)]
    pub fn is_done(self) -> bool {
        /// `SOCK_DONE` (include/net/sock.h).
        const DONE: u64 = 1 << 1;
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u64>(self.at, Field::SkFlags) & DONE != 0 }
    }

    /// How many threads wait for room to send, or for the connection to be there so that they can.
    #[inline(always)]
    pub fn write_pending(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkWritePending) }
    }

    /// Whether it is a byte stream: a raw socket may have TCP's protocol number, too.
    #[inline(always)]
    pub fn is_stream(self) -> bool {
        /// `SOCK_STREAM`.
        const STREAM: u16 = 1;
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u16>(self.at, Field::SkType) == STREAM }
    }

    /// The backlog of a listener, as the kernel keeps it.
    #[inline(always)]
    pub fn backlog(self) -> i32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkMaxAckBacklog) as i32 }
    }

    /// net.core.somaxconn of its network namespace.
    #[inline(always)]
    pub fn somaxconn(self) -> u32 {
        let Some(core) = offset(Field::NetCore) else { return 0 };
        // SAFETY: `at` is a struct sock, as `Sock::new` asks, and keeps its network namespace alive; the offset is of a struct net.
        unsafe {
            let net = field_ptr::<A>(self.at, Field::SkNet);
            field::<A, u32>(net.wrapping_add(core), Field::CoreSomaxconn)
        }
    }

    /// Local port in host order while the port is held, else 0.
    #[inline(always)]
    pub fn num(self) -> u16 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u16>(self.at, Field::SkNum) }
    }

    /// Remote port in host order.
    #[inline(always)]
    pub fn rport(self) -> u16 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        u16::from_be(unsafe { field::<A, u16>(self.at, Field::SkDport) })
    }

    /// Both ports as the kernel keeps them, to compare connections by.
    #[inline(always)]
    pub fn portpair(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkPortpair) }
    }

    /// Both IPv4 addresses as the kernel keeps them, to compare connections by. Of IPv6 sockets: those of a v4-mapped
    /// connection, else always the same.
    #[inline(always)]
    pub fn addrpair(self) -> u64 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u64>(self.at, Field::SkAddrpair) }
    }

    /// Whether these are its local and its remote IPv6 address, as words of memory.
    #[inline(always)]
    pub fn is_between_v6(self, laddr: [u64; 2], raddr: [u64; 2]) -> bool {
        let (Some(near), Some(far)) = (offset(Field::SkV6RcvSaddr), offset(Field::SkV6Daddr)) else {
            return true;
        };
        // SAFETY: `at` is a struct sock, as `Sock::new` asks; two words are within the 16 bytes of an address.
        let word =
            |offset: usize, nth: usize| unsafe { A::load::<u64>(self.at.wrapping_add(offset + 8 * nth)) };
        word(far, 1) == raddr[1]
            && word(far, 0) == raddr[0]
            && word(near, 1) == laddr[1]
            && word(near, 0) == laddr[0]
    }

    /// Writes both addresses, read as the socket's own family.
    #[inline(always)]
    pub fn addrs(self, family: u16, to: &mut Tuple) {
        to.family = family;
        to.zero = 0;
        if family == AF_INET6 {
            // SAFETY: `at` is a struct sock, as `Sock::new` asks.
            unsafe {
                field_in6::<A>(self.at, Field::SkV6RcvSaddr, &mut to.laddr);
                field_in6::<A>(self.at, Field::SkV6Daddr, &mut to.raddr);
            }
        } else {
            self.addrs_v4(to);
        }
    }

    /// Writes the local address, read as the socket's own family.
    #[inline(always)]
    pub fn laddr(self, family: u16, to: &mut Addr) {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe {
            if family == AF_INET6 {
                field_in6::<A>(self.at, Field::SkV6RcvSaddr, to);
            } else {
                *to = [field::<A, u32>(self.at, Field::SkRcvSaddr), 0, 0, 0];
            }
        }
    }

    /// Writes the remote address, read as the socket's own family.
    #[inline(always)]
    pub fn raddr(self, family: u16, to: &mut Addr) {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe {
            if family == AF_INET6 {
                field_in6::<A>(self.at, Field::SkV6Daddr, to);
            } else {
                *to = [field::<A, u32>(self.at, Field::SkDaddr), 0, 0, 0];
            }
        }
    }

    /// Writes both addresses as IPv4, whatever the socket's family (a v4-mapped socket has both forms).
    #[inline(always)]
    pub fn addrs_v4(self, to: &mut Tuple) {
        to.family = AF_INET;
        to.zero = 0;
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe {
            to.laddr = [field::<A, u32>(self.at, Field::SkRcvSaddr), 0, 0, 0];
            to.raddr = [field::<A, u32>(self.at, Field::SkDaddr), 0, 0, 0];
        }
    }

    /// Whether the remote end is an IPv4 address in IPv6 form.
    #[inline(always)]
    pub fn is_v4_mapped(self) -> bool {
        let Some(offset) = offset(Field::SkV6Daddr) else { return false };
        let word = |i: usize| {
            // SAFETY: `at` is a struct sock, as `Sock::new` asks; within the 16 bytes of the address.
            unsafe { A::load::<u32>(self.at.wrapping_add(offset + 4 * i)) }
        };
        word(2) == MAPPED_WORD && word(0) == 0 && word(1) == 0
    }

    /// The sequence number of the SYN-ACK, of a request that TCP made (`struct tcp_request_sock` begins with a socket's
    /// common part).
    #[inline(always)]
    pub fn syn_ack_number(self) -> u32 {
        // The type of a tracepoint's argument ends before the field.
        // SAFETY: the helper behind it copes with any pointer.
        unsafe { field::<Probed, u32>(self.at, Field::RequestSntIsn) }
    }
}

/// The `struct sock` of a `struct socket`; `None` before it has one.
#[inline(always)]
pub fn socket_sk<A: Access>(socket: *const u8) -> Option<Sock<A>> {
    let offset = offset(Field::SocketSk)?;
    if socket.is_null() {
        return None;
    }
    // SAFETY: a `struct socket *`, as an argument of the traced function.
    Sock::new(unsafe { A::load_ptr(socket.wrapping_add(offset)) })
}

/// A socket whose `tcp_sock` part can be read too.
#[derive(Clone, Copy)]
pub struct TcpSock<A> {
    at: *const u8,
    how: PhantomData<A>,
}

/// How to get from a `struct sock` to its `tcp_sock`.
pub trait ToTcp: Access {
    /// `None` if the socket is not a full TCP socket.
    fn tcp(sk: Sock<Self>) -> Option<TcpSock<Self>>;
}

impl ToTcp for Typed {
    #[inline(always)]
    fn tcp(sk: Sock<Self>) -> Option<TcpSock<Self>> {
        // The type `struct sock` ends where it ends; the helper checks and hands back the larger type.
        // SAFETY: `at` came from a typed argument.
        let at: *const u8 = unsafe { bpf_skc_to_tcp_sock(sk.at.cast_mut().cast()) }.cast();
        (!at.is_null()).then_some(TcpSock { at, how: PhantomData })
    }
}

impl ToTcp for Probed {
    #[inline(always)]
    fn tcp(sk: Sock<Self>) -> Option<TcpSock<Self>> {
        Some(TcpSock { at: sk.at, how: PhantomData })
    }
}

impl<A: Access> TcpSock<A> {
    /// Local port in host order. Unlike [`Sock::num`] it outlives the release of the port.
    #[inline(always)]
    pub fn sport(self) -> u16 {
        // SAFETY: a tcp_sock begins with its inet_sock.
        u16::from_be(unsafe { field::<A, u16>(self.at, Field::InetSport) })
    }

    /// Source IPv4 address of packets.
    #[inline(always)]
    pub fn saddr(self) -> u32 {
        // SAFETY: `at` is a struct sock, as `Sock::new` asks.
        unsafe { field::<A, u32>(self.at, Field::InetSaddr) }
    }

    /// Bytes that the peer acknowledged, SYN and FIN included.
    #[inline(always)]
    pub fn bytes_acked(self) -> u64 {
        // SAFETY: `at` is a tcp_sock.
        unsafe { field::<A, u64>(self.at, Field::TcpBytesAcked) }
    }

    /// Bytes received in order, FIN included.
    #[inline(always)]
    pub fn bytes_received(self) -> u64 {
        // SAFETY: `at` is a tcp_sock.
        unsafe { field::<A, u64>(self.at, Field::TcpBytesReceived) }
    }

    /// Sequence number of the first byte that no reader took yet.
    #[inline(always)]
    pub fn copied_seq(self) -> u32 {
        // SAFETY: `at` is a tcp_sock.
        unsafe { field::<A, u32>(self.at, Field::TcpCopiedSeq) }
    }

    /// Whether the FIN was taken out of the queue: it has a sequence number of its own.
    #[inline(always)]
    pub fn is_read_to_the_fin(self) -> bool {
        // SAFETY: `at` is a tcp_sock, which begins with its sock.
        Sock::<A> { at: self.at, how: PhantomData }.is_done()
            && unsafe { field::<A, u32>(self.at, Field::TcpRcvNxt) } == self.copied_seq()
    }

    /// Sequence number of the first byte that no sender wrote yet.
    #[inline(always)]
    pub fn write_seq(self) -> u32 {
        // SAFETY: `at` is a tcp_sock.
        unsafe { field::<A, u32>(self.at, Field::TcpWriteSeq) }
    }

    /// Whether it is a subflow of an MPTCP connection.
    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        // SAFETY: `at` is a tcp_sock.
        offset_if_any(Field::TcpIsMptcp).is_some()
            && unsafe { field::<A, u8>(self.at, Field::TcpIsMptcp) != 0 }
    }

    /// The MPTCP socket whose subflow it is, if it is one. To be read through only.
    #[inline(always)]
    pub fn mptcp(self) -> Option<Sock<Probed>> {
        if !self.is_mptcp() {
            return None;
        }
        // SAFETY: a tcp_sock begins with its inet_connection_sock; Probed copes with any pointer.
        unsafe {
            let subflow = field::<A, u64>(self.at, Field::IcskUlpData) as *const u8;
            if subflow.is_null() { None } else { Sock::new(field_ptr::<Probed>(subflow, Field::SubflowConn)) }
        }
    }

    /// Segments handed to IP since the socket was last disconnected.
    #[inline(always)]
    pub fn segs_out(self) -> u32 {
        // SAFETY: `at` is a tcp_sock.
        unsafe { field::<A, u32>(self.at, Field::TcpSegsOut) }
    }

    /// The shortest round-trip time of late, µs; `u32::MAX`: none was measured.
    #[inline(always)]
    pub fn rtt_min_us(self) -> u32 {
        let (Some(at), Some(samples)) = (offset(Field::TcpRttMin), offset(Field::MinmaxS)) else {
            return u32::MAX;
        };
        // SAFETY: `at` is a tcp_sock, in which the samples lie.
        unsafe { field::<A, u32>(self.at.wrapping_add(at + samples), Field::SampleV) }
    }

    /// For how many jiffies it had something to send so far, by what kept it from sending: nothing but the network, the
    /// receiver's window, the send buffer. What `tcp_get_info_chrono_stats` makes of it.
    #[inline(always)]
    pub fn limits(self) -> [u32; 3] {
        /// A kernel has it as a byte, or as two bits.
        const TYPES: u8 = 3;
        let Some(sums) = offset(Field::TcpChronoStat) else { return [0; 3] };
        // SAFETY: `at` is a tcp_sock, in which the three words lie; the helper takes no arguments.
        unsafe {
            let sum = |nth: usize| A::load::<u32>(self.at.wrapping_add(sums + 4 * nth));
            let mut all = [sum(0), sum(1), sum(2)];
            let runs = field::<A, u8>(self.at, Field::TcpChronoType) & TYPES;
            let since = field::<A, u32>(self.at, Field::TcpChronoStart);
            let now = (bpf_jiffies64() as u32).wrapping_sub(since);
            // By its number: an index that is not constant is refused.
            all[0] = all[0].wrapping_add(if runs == 1 { now } else { 0 });
            all[1] = all[1].wrapping_add(if runs == 2 { now } else { 0 });
            all[2] = all[2].wrapping_add(if runs == 3 { now } else { 0 });
            all
        }
    }

    /// Which directions were shut down: 1 to receive, 2 to send.
    #[inline(always)]
    pub fn shutdown(self) -> u8 {
        // SAFETY: a tcp_sock begins with its sock.
        unsafe { field::<A, u8>(self.at, Field::SkShutdown) }
    }
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident: $of:ident as $ty:ty,)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(self) -> $ty {
            // SAFETY: `at` is a tcp_sock, which begins with its inet_connection_sock and its sock.
            unsafe { field::<A, $ty>(self.at, Field::$of) }
        }
    )*};
}

impl<A: Access> TcpSock<A> {
    reads! {
        /// The error that it ended with: an errno, 0 if there is none.
        error: SkErr as i32,
        /// An error that may pass, such as that of an ICMP message on a connection.
        soft_error: SkErrSoft as i32,
        /// How long close() waits for the peer (`SO_LINGER`), in jiffies.
        lingertime: SkLingertime as u64,
        /// How often the timer sent again without an answer.
        timeouts: IcskRetransmits as u8,
        /// Probes without an answer.
        probes: IcskProbesOut as u8,
        /// What its timer is for: `ICSK_TIME_*`.
        pending: IcskPending as u8,
        /// `TCP_USER_TIMEOUT`, in milliseconds.
        user_timeout: IcskUserTimeout as u32,
        /// Segments sent again, SYN and FIN among them.
        total_retrans: TcpTotalRetrans as u32,
        /// Bytes sent again.
        bytes_retrans: TcpBytesRetrans as u64,
        /// Bytes sent, those that were sent again among them.
        bytes_sent: TcpBytesSent as u64,
        /// Segments with data that were sent.
        data_segs_out: TcpDataSegsOut as u32,
        /// Segments that are taken for lost now.
        lost_out: TcpLostOut as u32,
        /// Segments that were taken for lost, also by mistake.
        lost: TcpLost as u32,
        /// Segments that came, without the SYN of an accepted connection.
        segs_in: TcpSegsIn as u32,
        /// Segments that the peer says came twice.
        dsack_dups: TcpDsackDups as u32,
        /// Segments that came out of order.
        ooo_segs: TcpRcvOoopack as u32,
        /// Smoothed round trip, in eighths of a microsecond; 0: none was measured.
        srtt_us_8: TcpSrttUs as u32,
        /// When the last data was sent, in jiffies.
        last_data_sent: TcpLsndtime as u32,
        /// When the flight began that is being measured, in microseconds: the send time of what was acknowledged last.
        first_tx_us: TcpFirstTxMstamp as u64,
        /// When the last packet came or left, in microseconds.
        last_packet_us: TcpMstamp as u64,
        /// The window that the peer offers.
        snd_wnd: TcpSndWnd as u32,
        /// The window that we offer.
        rcv_wnd: TcpRcvWnd as u32,
        /// Sequence number of the first byte that the peer did not acknowledge.
        snd_una: TcpSndUna as u32,
        /// Sequence number of the first byte that was not sent yet.
        snd_nxt: TcpSndNxt as u32,
        /// Sequence number of the first byte that did not come yet.
        rcv_nxt: TcpRcvNxt as u32,
    }

    /// The state of congestion control (`enum tcp_ca_state`).
    #[inline(always)]
    pub fn cong_state(self) -> u32 {
        /// The kernel has other flags above them.
        const BITS: u8 = 0x1f;
        // SAFETY: `at` is a tcp_sock, which begins with its inet_connection_sock.
        u32::from(unsafe { field::<A, u8>(self.at, Field::IcskCaState) } & BITS)
    }

    /// Whether close() is to send a RST: `SO_LINGER` with no time.
    #[inline(always)]
    pub fn lingers_not(self) -> bool {
        /// `SOCK_LINGER` (include/net/sock.h).
        const LINGER: u64 = 1 << 4;
        // SAFETY: `at` is a tcp_sock, which begins with its sock.
        unsafe { field::<A, u64>(self.at, Field::SkFlags) & LINGER != 0 && self.lingertime() == 0 }
    }
}

/// `AF_INET` or `AF_INET6`.
#[inline(always)]
pub fn is_inet(family: u16) -> bool {
    family == AF_INET || family == AF_INET6
}
