//! The kernel fields that probes read. Their offsets come from the running kernel's BTF at start and reach the
//! probes as the read-only global `OFFSETS`; nothing about a kernel's layout is compiled in.

/// Offset of a field that this kernel does not have.
pub const MISSING: u16 = u16::MAX;

/// What a field is called in the kernel, and how wide the probes read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// `struct` that holds it.
    pub of: &'static str,
    /// Member name; members of anonymous structs and unions count as the struct's own.
    pub member: &'static str,
    /// Bytes that a probe reads; a member of another size is refused. 0: an aggregate, any size. [`LOW_BITS`]: a byte, or the
    /// lowest bits of one. [`BIT`]: a bit-field.
    pub bytes: u8,
}

/// In place of a field's size: kernels differ in whether it is a byte or the lowest bits of one, which begin where the byte
/// does on both architectures. A probe reads the byte and masks what it does not want.
pub const LOW_BITS: u8 = u8::MAX;

/// In place of a field's size: a bit-field, of which a probe reads the lowest bit. Its offset counts bits.
pub const BIT: u8 = u8::MAX - 1;

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $of:literal . $member:literal : $bytes:expr,)*) => {
        /// A field of a kernel struct, and its index in the global `OFFSETS`.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Field { $($(#[$doc])* $name,)* }

        /// Every [`Field`] in order of its index.
        pub const FIELDS: &[(Field, FieldSpec)] =
            &[$((Field::$name, FieldSpec { of: $of, member: $member, bytes: $bytes }),)*];
    };
}

// The one place that names kernel fields. A macro, because an enum and its table in two lists would drift apart.
fields! {
    /// Address family.
    SkFamily = "sock_common"."skc_family": 2,
    /// TCP state.
    SkState = "sock_common"."skc_state": 1,
    /// Local port in host order; 0 once the port is released.
    SkNum = "sock_common"."skc_num": 2,
    /// Remote port in network order.
    SkDport = "sock_common"."skc_dport": 2,
    /// Local IPv4 address.
    SkRcvSaddr = "sock_common"."skc_rcv_saddr": 4,
    /// Remote IPv4 address.
    SkDaddr = "sock_common"."skc_daddr": 4,
    /// Both ports as one word, to compare connections by.
    SkPortpair = "sock_common"."skc_portpair": 4,
    /// Both IPv4 addresses as one word, to compare connections by.
    SkAddrpair = "sock_common"."skc_addrpair": 8,
    /// Local IPv6 address. Absent from kernels without IPv6.
    SkV6RcvSaddr = "sock_common"."skc_v6_rcv_saddr": 16,
    /// Remote IPv6 address. Absent from kernels without IPv6.
    SkV6Daddr = "sock_common"."skc_v6_daddr": 16,
    /// IPPROTO_*, 262 for MPTCP (a bit-field before 5.6, which is refused by its size).
    SkProtocol = "sock"."sk_protocol": 2,
    /// Local port in network order; stays when the port is released.
    InetSport = "inet_sock"."inet_sport": 2,
    /// Source address of packets; 0 where the socket is bound to a multicast or broadcast address.
    InetSaddr = "inet_sock"."inet_saddr": 4,
    /// What was switched on or off for a socket, a bit each, whose numbers an enum has. Since 6.6.
    InetFlags = "inet_sock"."inet_flags": 8,
    /// `IP_FREEBIND`. Before 6.6.
    InetFreebind = "inet_sock"."freebind": BIT,
    /// `IP_TRANSPARENT`. Before 6.6.
    InetTransparent = "inet_sock"."transparent": BIT,
    /// `IP_BIND_ADDRESS_NO_PORT`. Before 6.6.
    InetNoPort = "inet_sock"."bind_address_no_port": BIT,
    /// `SO_REUSEADDR`: `SK_CAN_REUSE` or `SK_FORCE_REUSE`, of which the lowest bit is the option.
    SkReuse = "sock_common"."skc_reuse": BIT,
    /// `SO_REUSEPORT`.
    SkReuseport = "sock_common"."skc_reuseport": BIT,
    /// Number of the interface that the socket is bound to; 0: none.
    SkBoundDevIf = "sock_common"."skc_bound_dev_if": 4,
    /// Bytes that the peer acknowledged (RFC 4898 tcpEStatsAppHCThruOctetsAcked), SYN and FIN included.
    TcpBytesAcked = "tcp_sock"."bytes_acked": 8,
    /// Bytes received in order (RFC 4898 tcpEStatsAppHCThruOctetsReceived), FIN included.
    TcpBytesReceived = "tcp_sock"."bytes_received": 8,
    /// Sequence number of the first byte that no reader took yet.
    TcpCopiedSeq = "tcp_sock"."copied_seq": 4,
    /// Sequence number of the first byte that no sender wrote yet.
    TcpWriteSeq = "tcp_sock"."write_seq": 4,
    /// Sequence number of the first byte that did not come yet.
    TcpRcvNxt = "tcp_sock"."rcv_nxt": 4,
    /// How many threads wait for room to send.
    SkWritePending = "sock"."sk_write_pending": 4,
    /// Where the memory of a message is.
    MsgIter = "msghdr"."msg_iter": 0,
    /// How many bytes of it are left.
    IterCount = "iov_iter"."count": 8,
    /// Segments handed to IP by this socket since it was last disconnected.
    TcpSegsOut = "tcp_sock"."segs_out": 4,
    /// Segments that came for this socket, without the SYN of an accepted one.
    TcpSegsIn = "tcp_sock"."segs_in": 4,
    /// The shortest round trips of late.
    TcpRttMin = "tcp_sock"."rtt_min": 0,
    /// In there: three samples, the shortest first.
    MinmaxS = "minmax"."s": 0,
    /// In a sample: the value.
    SampleV = "minmax_sample"."v": 4,
    /// Segments that were sent again.
    TcpTotalRetrans = "tcp_sock"."total_retrans": 4,
    /// Bytes of data that were sent again.
    TcpBytesRetrans = "tcp_sock"."bytes_retrans": 8,
    /// Segments that were taken for lost, also by mistake.
    TcpLost = "tcp_sock"."lost": 4,
    /// Segments that came out of order.
    TcpRcvOoopack = "tcp_sock"."rcv_ooopack": 4,
    /// Jiffies during which there was something to send, the receiver's window was full, or the send buffer was.
    TcpChronoStat = "tcp_sock"."chrono_stat": 0,
    /// Jiffies when the one of these that runs began.
    TcpChronoStart = "tcp_sock"."chrono_start": 4,
    /// Which of these runs: from 1 on; 0: none.
    TcpChronoType = "tcp_sock"."chrono_type": LOW_BITS,
    /// The error that the next call will be told, positive.
    SkErr = "sock"."sk_err": 4,
    /// `SHUTDOWN_MASK`: which directions were shut down.
    SkShutdown = "sock"."sk_shutdown": 1,
    /// `enum sock_flags`, a bit each.
    SkFlags = "sock_common"."skc_flags": 8,
    /// The file's side of the socket; null before accept and after close.
    SkSocket = "sock"."sk_socket": 8,
    /// The network namespace.
    SkNet = "sock_common"."skc_net": 8,
    /// Whether this is a subflow of an MPTCP connection. Absent from kernels without MPTCP.
    TcpIsMptcp = "tcp_sock"."is_mptcp": 1,
    /// What the layer above keeps with a socket: of a subflow, its `mptcp_subflow_context`.
    IcskUlpData = "inet_connection_sock"."icsk_ulp_data": 8,
    /// The MPTCP socket of a subflow. Absent from kernels without MPTCP.
    SubflowConn = "mptcp_subflow_context"."conn": 8,
    /// The first subflow of an MPTCP socket; of one that listens, the TCP listener. Absent from kernels without MPTCP.
    MptcpFirst = "mptcp_sock"."first": 8,
    /// `PF_*` of a task.
    TaskFlags = "task_struct"."flags": 4,
    /// The common part of a network namespace.
    NetCommon = "net"."ns": 0,
    /// Name of a thread: up to a NUL, behind which anything may be.
    TaskComm = "task_struct"."comm": 0,
    /// The first thread of a process, from each of its threads.
    TaskGroupLeader = "task_struct"."group_leader": 8,
    /// Process of a task, as the initial PID namespace counts.
    TaskTgid = "task_struct"."tgid": 4,
    /// A task's own number, as the initial PID namespace counts.
    TaskPid = "task_struct"."pid": 4,
    /// Open files of a task.
    TaskFiles = "task_struct"."files": 8,
    /// The table of open files.
    FilesFdt = "files_struct"."fdt": 8,
    /// Length of the table.
    FdtMaxFds = "fdtable"."max_fds": 4,
    /// The files, by descriptor.
    FdtFd = "fdtable"."fd": 8,
    /// What a file is of: a `struct socket`, if it is one's.
    FilePrivateData = "file"."private_data": 8,
    /// The file of a socket.
    SocketFile = "socket"."file": 8,
    /// The protocol's side of a socket.
    SocketSk = "socket"."sk": 8,
    /// x86: number of the system call that a thread is in.
    RegsOrigAx = "pt_regs"."orig_ax": 8,
    /// arm64: number of the system call that a thread is in.
    RegsSyscallno = "pt_regs"."syscallno": 4,
    /// What the architecture keeps of a thread.
    TaskThreadInfo = "task_struct"."thread_info": 0,
    /// x86: `TS_COMPAT` in it tells a 32-bit system call.
    ThreadStatus = "thread_info"."status": 4,
    /// arm64: `TIF_32BIT` in it tells a 32-bit program.
    ThreadFlags = "thread_info"."flags": 8,
    /// `SOCK_*`.
    SkType = "sock"."sk_type": 2,
    /// The backlog of a listener.
    SkMaxAckBacklog = "sock"."sk_max_ack_backlog": 4,
    /// How many connections wait for accept().
    SkAckBacklog = "sock"."sk_ack_backlog": 4,
    /// Packets that were dropped because of what the socket had no room for.
    SkDrops = "sock"."sk_drops": 0,
    /// Settings below net.core of a namespace.
    NetCore = "net"."core": 0,
    /// net.core.somaxconn.
    CoreSomaxconn = "netns_core"."sysctl_somaxconn": 4,
    /// x86: first argument of a system call.
    RegsDi = "pt_regs"."di": 8,
    /// x86: second argument of a system call.
    RegsSi = "pt_regs"."si": 8,
    /// arm64: first argument of a system call. Its register holds the result in the end.
    RegsOrigX0 = "pt_regs"."orig_x0": 8,
    /// arm64: the registers; the other arguments of a system call are in the second one and on.
    RegsRegs = "pt_regs"."regs": 0,
    /// x86: third argument of a system call.
    RegsDx = "pt_regs"."dx": 8,
    /// Namespaces of a task.
    TaskNsproxy = "task_struct"."nsproxy": 8,
    /// Mount namespace.
    NsproxyMntNs = "nsproxy"."mnt_ns": 8,
    /// In there: the network namespace.
    NsproxyNetNs = "nsproxy"."net_ns": 8,
    /// The common part of a mount namespace.
    MntNsCommon = "mnt_namespace"."ns": 0,
    /// Inode number of a namespace.
    NsInum = "ns_common"."inum": 4,
    /// Owner of a packet on its way out.
    SkbSk = "sk_buff"."sk": 8,
    /// Start of the packet's buffer.
    SkbHead = "sk_buff"."head": 8,
    /// Start of what is not yet consumed.
    SkbData = "sk_buff"."data": 8,
    /// Offset of the end of the linear part from `head`; the shared info follows.
    SkbEnd = "sk_buff"."end": 4,
    /// Bytes in all.
    SkbLen = "sk_buff"."len": 4,
    /// Bytes outside of the linear part.
    SkbDataLen = "sk_buff"."data_len": 4,
    /// Next packet in a list.
    SkbNext = "sk_buff"."next": 8,
    /// Offset of the transport header from `head`.
    SkbTransportHeader = "sk_buff"."transport_header": 2,
    /// Offset of the network header from `head`.
    SkbNetworkHeader = "sk_buff"."network_header": 2,
    /// EtherType in network order.
    SkbProtocol = "sk_buff"."protocol": 2,
    /// Fragments that are packets of their own (a reassembled datagram).
    ShinfoFragList = "skb_shared_info"."frag_list": 8,
    /// What the protocol that has the packet keeps in it.
    SkbCb = "sk_buff"."cb": 0,
    /// In there, for TCP: sequence number of the first byte, host order.
    TcpSkbCbSeq = "tcp_skb_cb"."seq": 4,
    /// In there, for TCP: sequence number behind the last byte, a SYN and a FIN included, host order.
    TcpSkbCbEndSeq = "tcp_skb_cb"."end_seq": 4,
    /// In there, for TCP: how many segments the packet has.
    TcpSkbCbGsoSegs = "tcp_skb_cb"."tcp_gso_segs": 2,
    /// Sequence number of the SYN-ACK, of a connection that is not complete yet.
    RequestSntIsn = "tcp_request_sock"."snt_isn": 4,
    /// What a timer calls.
    TimerFunction = "timer_list"."function": 8,
    /// The timer of retransmissions and probes. Up to 6.18.
    IcskRetransmitTimer = "inet_connection_sock"."icsk_retransmit_timer": 0,
    /// That timer where it lies in the socket itself. Newer kernels.
    SkRetransmitTimer = "sock"."tcp_retransmit_timer": 0,
    /// What that timer is for: `ICSK_TIME_*`.
    IcskPending = "inet_connection_sock"."icsk_pending": 1,
    /// When it is due, in jiffies; the timer itself may be early. Absent where the timer is never early.
    IcskTimeout = "inet_connection_sock"."icsk_timeout": 8,
    /// The interface that a packet came in by.
    SkbDev = "sk_buff"."dev": 8,
    /// Number of the interface that it came in by; 0 for what this host sends.
    SkbIif = "sk_buff"."skb_iif": 4,
    /// TX: the queue; RX: one more than the queue, 0 where the driver does not tell.
    SkbQueueMapping = "sk_buff"."queue_mapping": 2,
    /// Number of an interface in its namespace.
    DevIfindex = "net_device"."ifindex": 4,
    /// Network namespace of an interface.
    DevNet = "net_device"."nd_net": 8,
    /// The name of a handler of interrupts.
    ActionName = "irqaction"."name": 8,
    /// An error that may pass, such as an ICMP message on a connection.
    SkErrSoft = "sock"."sk_err_soft": 4,
    /// How long close() waits for the peer (`SO_LINGER`), in jiffies.
    SkLingertime = "sock"."sk_lingertime": 8,
    /// How often the timer sent again without an answer.
    IcskRetransmits = "inet_connection_sock"."icsk_retransmits": 1,
    /// The state of congestion control, in the lowest five bits.
    IcskCaState = "inet_connection_sock"."icsk_ca_state": LOW_BITS,
    /// Probes of a zero window, or of a silent peer (keepalive), without an answer.
    IcskProbesOut = "inet_connection_sock"."icsk_probes_out": 1,
    /// `TCP_USER_TIMEOUT`, in milliseconds.
    IcskUserTimeout = "inet_connection_sock"."icsk_user_timeout": 4,
    /// Bytes sent, those that were sent again among them.
    TcpBytesSent = "tcp_sock"."bytes_sent": 8,
    /// Segments with data that were sent.
    TcpDataSegsOut = "tcp_sock"."data_segs_out": 4,
    /// Segments that are taken for lost.
    TcpLostOut = "tcp_sock"."lost_out": 4,
    /// Segments that the peer says came twice.
    TcpDsackDups = "tcp_sock"."dsack_dups": 4,
    /// Smoothed round trip, in eighths of a microsecond.
    TcpSrttUs = "tcp_sock"."srtt_us": 4,
    /// When the last data was sent, in jiffies.
    TcpLsndtime = "tcp_sock"."lsndtime": 4,
    /// When the flight that is being measured began, in microseconds.
    TcpFirstTxMstamp = "tcp_sock"."first_tx_mstamp": 8,
    /// When the last packet came or left, in microseconds.
    TcpMstamp = "tcp_sock"."tcp_mstamp": 8,
    /// The window that the peer offers.
    TcpSndWnd = "tcp_sock"."snd_wnd": 4,
    /// The window that we offer.
    TcpRcvWnd = "tcp_sock"."rcv_wnd": 4,
    /// Sequence number of the first byte that the peer did not acknowledge.
    TcpSndUna = "tcp_sock"."snd_una": 4,
    /// Sequence number of the first byte that was not sent yet.
    TcpSndNxt = "tcp_sock"."snd_nxt": 4,
    /// The cgroup of a socket: that of the task that made it, or of the listener from which it was accepted.
    SkCgrpData = "sock"."sk_cgrp_data": 0,
    /// In there: its address. Since 5.15.
    SockCgroup = "sock_cgroup_data"."cgroup": 8,
    /// In there: its address, or other things where one of the lowest two bits is set. Before 5.15.
    SockCgroupVal = "sock_cgroup_data"."val": 8,
    /// The listener of a connection that is not complete yet.
    SkListener = "sock_common"."skc_listener": 8,
    /// How deep a cgroup lies; the root has 0.
    CgroupLevel = "cgroup"."level": 4,
    /// The cgroups that it is in, by level, itself included. Since 6.1.
    CgroupAncestors = "cgroup"."ancestors": 0,
    /// The numbers of the cgroups that it is in, by level, itself included. Before 6.1.
    CgroupAncestorIds = "cgroup"."ancestor_ids": 0,
    /// The folder of a cgroup.
    CgroupKn = "cgroup"."kn": 8,
    /// The number of a folder, which is a cgroup's.
    KernfsId = "kernfs_node"."id": 8,
    /// The number that the kernel gave a socket (`SO_COOKIE`); 0: none yet.
    SkCookie = "sock_common"."skc_cookie": 8,
    /// What a process may do, and for whom it does it.
    TaskRealCred = "task_struct"."real_cred": 8,
    /// In there: the real user.
    CredUid = "cred"."uid": 4,
    /// When a task started: `CLOCK_MONOTONIC`, ns.
    TaskStartTime = "task_struct"."start_time": 8,
    /// The cgroups of a task.
    TaskCgroups = "task_struct"."cgroups": 8,
    /// In there: that of version 2.
    CssSetDflCgrp = "css_set"."dfl_cgrp": 8,
    /// The state that a socket in TIME_WAIT stands for.
    TwSubstate = "inet_timewait_sock"."tw_substate": 1,
    /// Sixteen bytes of any kind. Its struct is what packets are read through where the kernel forbids the helper.
    In6 = "in6_addr"."in6_u": 16,
}

/// How many fields there are; the length of the global `OFFSETS`.
pub const FIELD_COUNT: usize = FIELDS.len();

/// Number of a helper that no kernel has: where a program calls it, with a pointer and the BTF id of what that points
/// to, user space puts a call of the kernel's `bpf_rdonly_cast` (since 6.2), or a move where the kernel has none.
///
/// What is read through its result is for reading only, and that is why: for each pointer that a program loads
/// through a trusted one, newer verifiers look for a type `STRUCT__safe_*`, of which there are several, by name among
/// all types of the kernel, at a millisecond each.
pub const CAST: usize = 0x6e65_7462;

macro_rules! funcs {
    ($($(#[$doc:meta])* $name:ident = $of:literal,)*) => {
        /// A function or tracepoint whose number of arguments is asked for: a typed program finds the return value
        /// behind them, so each count has its own program.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Func { $($(#[$doc])* $name,)* }

        /// Every [`Func`] in order of its index, with the kernel's name; a tracepoint's is that of its typedef.
        pub const FUNCS: &[(Func, &str)] = &[$((Func::$name, $of),)*];
    };
}

funcs! {
    /// 5 arguments since 5.19 and 4 since 6.18, the flags being the fourth; 6 before 5.19, and they are the fifth.
    TcpRecvmsg = "tcp_recvmsg",
    /// The tracepoint: (sk, skb), and since 6.17 the error as well.
    TcpRetransmitSkb = "btf_trace_tcp_retransmit_skb",
    /// The function: 3 since 4.7.
    TcpRetransmitSkbFunction = "tcp_retransmit_skb",
    /// The tracepoint: (skb, location) up to 5.16, then the reason as well, since 6.11 the receiving socket as well.
    KfreeSkb = "btf_trace_kfree_skb",
    /// The tracepoint: 1; since 5.13.
    InetSkErrorReport = "btf_trace_inet_sk_error_report",
    /// The tracepoint: (sk, skb), and since 6.10 the reason as well.
    TcpSendReset = "btf_trace_tcp_send_reset",
    /// 3.
    TcpV4Connect = "tcp_v4_connect",
    /// 3.
    TcpV6Connect = "tcp_v6_connect",
    /// 1; absent from kernels without MPTCP.
    MptcpTokenDestroy = "mptcp_token_destroy",
    /// 3.
    InetBind = "inet_bind",
    /// 3; absent from kernels without IPv6.
    Inet6Bind = "inet6_bind",
    /// 3; absent from kernels without MPTCP.
    MptcpBind = "mptcp_bind",
}

/// How many there are.
pub const FUNC_COUNT: usize = FUNCS.len();
