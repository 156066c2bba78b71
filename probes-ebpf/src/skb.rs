//! Packets: `struct sk_buff`.

use core::marker::PhantomData;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use netbcc_common::kernel::Field;

use crate::dev::Dev;
use crate::mem::{self, Access, Probed, field, field_ptr, offset};
use crate::sock::Sock;

/// EtherType of IPv4 (RFC 7042 appendix B), host order.
pub const ETH_P_IP: u16 = 0x0800;
/// EtherType of IPv6, host order.
pub const ETH_P_IPV6: u16 = 0x86dd;

/// A `struct sk_buff *`, never null.
#[derive(Clone, Copy)]
pub struct Skb<A> {
    at: *const u8,
    how: PhantomData<A>,
}

impl<A: Access> Skb<A> {
    /// The packet at `at`, unless it is null.
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self { at, how: PhantomData })
    }

    /// Its address: identifies the packet while it lives.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at as u64
    }

    /// Its network header. While the kernel has not noted yet where that is, a packet that came in has it where its data
    /// begins (`eth_type_trans`).
    #[inline(always)]
    pub fn network(self) -> Packet {
        // SAFETY: `at` is an sk_buff.
        let (head, header) = unsafe {
            (field::<A, u64>(self.at, Field::SkbHead), field::<A, u16>(self.at, Field::SkbNetworkHeader))
        };
        match header {
            // A new sk_buff has 0 there, which is where its headroom begins; all bits say "none".
            0 | u16::MAX => self.data(),
            _ => Packet(head.wrapping_add(u64::from(header))),
        }
    }

    /// Its transport header.
    #[inline(always)]
    pub fn transport(self) -> Packet {
        // SAFETY: as above.
        let (head, header) = unsafe {
            (field::<A, u64>(self.at, Field::SkbHead), field::<A, u16>(self.at, Field::SkbTransportHeader))
        };
        Packet(head.wrapping_add(u64::from(header)))
    }

    /// The socket that sends it, if any. To be looked at only: helpers do not take it.
    #[inline(always)]
    pub fn sk(self) -> Option<Sock<A>> {
        // SAFETY: `at` is an sk_buff.
        Sock::new(unsafe { field_ptr::<A>(self.at, Field::SkbSk) })
    }

    /// The same packet, to load pointers through that are only read through (see [`Access::distrust`]).
    #[inline(always)]
    pub fn distrusted(self) -> Self {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        Self { at: unsafe { A::distrust(self.at, Field::SkbDev) }, how: PhantomData }
    }

    /// The interface that it came in by. Loaded as it stands: a cast is a dozen instructions that netqtop would pay for
    /// each packet, as it takes away the registers of a call.
    #[inline(always)]
    pub fn dev(self) -> Option<Dev<A>> {
        let offset = offset(Field::SkbDev)?;
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        Dev::new(unsafe { A::load_ptr(self.at.wrapping_add(offset)) })
    }

    /// Whether an interface received it; else this host sends it.
    #[inline(always)]
    pub fn came_in(self) -> bool {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkbIif) != 0 }
    }

    /// Its queue: on the way out; on the way in one more, and 0 where the driver does not tell.
    #[inline(always)]
    pub fn queue_mapping(self) -> u16 {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        unsafe { field::<A, u16>(self.at, Field::SkbQueueMapping) }
    }

    /// Bytes in all.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkbLen) }
    }

    /// Sequence number of the first byte, of a packet that TCP has.
    #[inline(always)]
    pub fn tcp_seq(self) -> u32 {
        let Some(cb) = offset(Field::SkbCb) else { return 0 };
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks; TCP keeps a tcp_skb_cb there.
        unsafe { field::<A, u32>(self.at.wrapping_add(cb), Field::TcpSkbCbSeq) }
    }

    /// Sequence number behind the last byte, of a packet that TCP has: a SYN and a FIN have one, too.
    #[inline(always)]
    pub fn tcp_end_seq(self) -> u32 {
        let Some(cb) = offset(Field::SkbCb) else { return 0 };
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks; TCP keeps a tcp_skb_cb there.
        unsafe { field::<A, u32>(self.at.wrapping_add(cb), Field::TcpSkbCbEndSeq) }
    }

    /// How many segments the packet has, of one that TCP has.
    #[inline(always)]
    pub fn tcp_segments(self) -> u32 {
        let Some(cb) = offset(Field::SkbCb) else { return 0 };
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks; TCP keeps a tcp_skb_cb there.
        u32::from(unsafe { field::<A, u16>(self.at.wrapping_add(cb), Field::TcpSkbCbGsoSegs) })
    }

    /// EtherType in host order.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        u16::from_be(unsafe { field::<A, u16>(self.at, Field::SkbProtocol) })
    }

    /// Start of the data that is not yet consumed.
    #[inline(always)]
    pub fn data(self) -> Packet {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        Packet(unsafe { field::<A, u64>(self.at, Field::SkbData) })
    }

    /// How many bytes follow [`Skb::data`] in the linear part.
    #[inline(always)]
    pub fn linear_bytes(self) -> u32 {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        unsafe {
            field::<A, u32>(self.at, Field::SkbLen).wrapping_sub(field::<A, u32>(self.at, Field::SkbDataLen))
        }
    }

    /// Whether some of it lies outside of the linear part.
    #[inline(always)]
    pub fn has_more(self) -> bool {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        unsafe { field::<A, u32>(self.at, Field::SkbDataLen) != 0 }
    }

    /// The first of the packets that a datagram was reassembled from, after this one.
    #[inline(always)]
    pub fn fragment(self) -> Option<Skb<Probed>> {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks; the shared info begins at the end of the linear buffer (skb_shinfo()). `end` is an
        // offset on 64-bit kernels.
        let at = unsafe {
            let head = field::<A, u64>(self.at, Field::SkbHead);
            let end = field::<A, u32>(self.at, Field::SkbEnd);
            field::<Probed, u64>(head.wrapping_add(u64::from(end)) as *const u8, Field::ShinfoFragList)
        };
        Skb::new(at as *const u8)
    }

    /// The next packet of the same list.
    #[inline(always)]
    pub fn next(self) -> Option<Skb<Probed>> {
        // SAFETY: `at` is a struct sk_buff, as `Skb::new` asks.
        Skb::new(unsafe { field::<A, u64>(self.at, Field::SkbNext) } as *const u8)
    }
}

/// An address within a packet's bytes, which have no type.
#[derive(Clone, Copy)]
pub struct Packet(u64);

impl Packet {
    /// `bytes` further on.
    #[inline(always)]
    pub fn skip(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// How many bytes after `other` this is.
    #[inline(always)]
    pub fn behind(self, other: Self) -> u32 {
        self.0.wrapping_sub(other.0) as u32
    }

    /// Whether this comes after `other`.
    #[inline(always)]
    pub fn is_behind(self, other: Self) -> bool {
        self.0 > other.0
    }

    /// The `N` bytes here; zeroes if they cannot be read.
    #[inline(always)]
    pub fn read<const N: usize>(self) -> [u8; N] {
        mem::copy(self.0)
    }

    /// Copies `len` bytes, at most 4096, to `room[at..]`, with `at` cut to 12 bits. Where the kernel forbids the helper, they
    /// go to its beginning, and up to 15 bytes that mean nothing behind them.
    #[inline(always)]
    pub fn copy_to(self, room: &mut [u8; 8192], at: u32, len: u32) {
        if mem::is_locked() {
            self.copy_pieces(&mut room[..4096], len);
            return;
        }
        // The verifier must see both bounds where they are used. The compiler may know them already and leave them
        // out; a volatile copy makes it forget.
        // SAFETY: locals.
        let (at, len) =
            unsafe { (read_volatile(&raw const at) & 0xfff, read_volatile(&raw const len).min(4096)) };
        // SAFETY: at most 4095 + 4096 bytes, which the verifier checks.
        unsafe { bpf_probe_read_kernel(room.as_mut_ptr().add(at as usize).cast(), len, self.0 as *const _) };
    }

    /// Copies `len` bytes, at most `N`; where the kernel forbids the helper, also up to 15 that mean nothing behind them.
    #[inline(always)]
    pub fn copy<const N: usize>(self, room: &mut [u8; N], len: u32) {
        if mem::is_locked() {
            self.copy_pieces(room, len);
            return;
        }
        // SAFETY: a local; as above.
        let len = unsafe { read_volatile(&raw const len) }.min(N as u32);
        // SAFETY: at most the room.
        unsafe { bpf_probe_read_kernel(room.as_mut_ptr().cast(), len, self.0 as *const _) };
    }

    /// Copies `len` bytes, as far as there is room, in whole pieces.
    #[inline(always)]
    fn copy_pieces(self, room: &mut [u8], len: u32) {
        let mut pieces = room.chunks_exact_mut(mem::PIECE);
        let mut done = 0;
        for piece in &mut pieces {
            if done >= len {
                return;
            }
            mem::copy_piece(self.skip(u64::from(done)).0, piece);
            done += mem::PIECE as u32;
        }
        if done < len {
            mem::copy_piece(self.skip(u64::from(done)).0, pieces.into_remainder());
        }
    }
}
