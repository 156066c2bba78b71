//! Reading kernel memory at the offsets that user space took from the running kernel's BTF.
//!
//! Two ways exist. [`Typed`]: in fentry, fexit and tp_btf programs the verifier knows a pointer's type, so a field
//! is one load instruction. [`Probed`]: in kprobes a pointer is a number, so a field is a call of
//! `bpf_probe_read_kernel`. Code that works both ways is written once, generic over [`Access`].

use core::mem::transmute;
use core::ptr::{addr_of, read_volatile};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};
use netbcc_common::kernel::{CAST, FIELD_COUNT, Field, MISSING};

/// Set by user space before loading. To the verifier these are constants.
#[unsafe(no_mangle)]
pub static OFFSETS: [u16; FIELD_COUNT] = [MISSING; FIELD_COUNT];

/// Set by user space before loading: BTF ids of the structs that have the fields.
#[unsafe(no_mangle)]
pub static OWNERS: [u32; FIELD_COUNT] = [0; FIELD_COUNT];

/// Offsets of fields that a kernel may be without. Set by user space before loading; constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS_IF_ANY: [u16; FIELD_COUNT] = [MISSING; FIELD_COUNT];

/// Set by user space before loading: 1 where the kernel's lockdown keeps its memory from `bpf_probe_read_kernel`, and the
/// kernel can cast.
#[unsafe(no_mangle)]
pub static LOCKED: u32 = 0;

/// Whether [`LOCKED`] is set.
#[inline(always)]
pub fn is_locked() -> bool {
    // SAFETY: a static. Volatile, because user space replaces the value.
    unsafe { read_volatile(&raw const LOCKED) != 0 }
}

/// Copies `N` bytes that have no type, from anywhere in the kernel; zeroes where they cannot be read.
#[inline(always)]
pub fn copy<const N: usize>(from: u64) -> [u8; N] {
    let mut bytes = [0; N];
    if is_locked() {
        for (nth, piece) in bytes.chunks_mut(PIECE).enumerate() {
            copy_piece(from.wrapping_add((nth * PIECE) as u64), piece);
        }
    } else {
        // SAFETY: the destination is a local of exactly this size; the helper copes with any source.
        unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), N as u32, from as *const _) };
    }
    bytes
}

/// What a cast makes readable at a time.
pub const PIECE: usize = size_of::<[u32; 4]>();

/// Copies a piece of at most [`PIECE`] bytes without the helper; zeroes where they cannot be read.
#[inline(always)]
pub fn copy_piece(from: u64, to: &mut [u8]) {
    // SAFETY: `in6_addr` has 16 bytes, which the verifier lets programs load in words of any size; a faulting load is turned
    // into zero by the kernel's exception table, and both architectures load words from any address.
    unsafe {
        let at = Typed::distrust(from as *const u8, Field::In6);
        let (words, rest) = to.as_chunks_mut::<4>();
        let behind = 4 * words.len();
        for (nth, word) in words.iter_mut().enumerate() {
            *word = Typed::load::<u32>(at.wrapping_add(4 * nth)).to_ne_bytes();
        }
        for (nth, byte) in rest.iter_mut().enumerate() {
            *byte = Typed::load::<u8>(at.wrapping_add(behind + nth));
        }
    }
}

/// Where this kernel keeps `field`, in bytes from the start of its struct. A program that may come here is not loaded where
/// the kernel has no such field: user space reads that from its instructions. `None`: a field of IPv6, which the kernel has
/// not got.
#[inline(always)]
pub fn offset(field: Field) -> Option<usize> {
    // SAFETY: in bounds (the enum has FIELD_COUNT members). Volatile, because user space replaces the value.
    let offset = unsafe { read_volatile(addr_of!(OFFSETS).cast::<u16>().add(field as usize)) };
    (offset != MISSING).then_some(offset as usize)
}

/// Where this kernel keeps `field`, in bytes from the start of its struct; `None`: it has no such field, and the program
/// does without.
#[inline(always)]
pub fn offset_if_any(field: Field) -> Option<usize> {
    // SAFETY: a static of the object. Volatile, because user space writes it after the compiler has seen it.
    let offset = unsafe { read_volatile(addr_of!(OFFSETS_IF_ANY).cast::<u16>().add(field as usize)) };
    (offset != MISSING).then_some(offset as usize)
}

/// How memory behind a kernel pointer is read.
pub trait Access: Copy {
    /// Whether the verifier knows the types behind pointers, so that a load costs no call.
    const IS_TYPED: bool;

    /// The `T` at `at`; zero if it cannot be read.
    ///
    /// # Safety
    /// `T` must be plain old data. For [`Typed`], `at` must lie in an object whose type the verifier knows (it
    /// refuses the program otherwise).
    unsafe fn load<T: Copy + Default>(at: *const u8) -> T;

    /// The pointer at `at`; null if it cannot be read. Where types are known, what it points to has its type too, and
    /// helpers take it. Slow to verify: [`field_ptr`] does where it is only read through.
    ///
    /// # Safety
    /// As [`Access::load`].
    unsafe fn load_ptr(at: *const u8) -> *const u8;

    /// `base`, which points to the struct that has `field`, to load pointers through that are only read through.
    ///
    /// # Safety
    /// As [`Access::load`].
    unsafe fn distrust(base: *const u8, field: Field) -> *const u8;

    /// The current `struct task_struct`.
    fn current_task() -> *const u8;
}

/// Plain loads through pointers whose type the verifier knows.
#[derive(Clone, Copy)]
pub struct Typed;

impl Access for Typed {
    const IS_TYPED: bool = true;

    #[inline(always)]
    unsafe fn load<T: Copy + Default>(at: *const u8) -> T {
        // SAFETY: the caller promises what is asked above; a faulting load is turned into zero by the kernel's exception table.
        unsafe { read_volatile(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_ptr(at: *const u8) -> *const u8 {
        // SAFETY: the caller promises that a pointer is there; a faulting load is turned into zero by the kernel's exception table.
        unsafe { read_volatile(at.cast()) }
    }

    #[inline(always)]
    unsafe fn distrust(base: *const u8, field: Field) -> *const u8 {
        // SAFETY: the number of a helper, as the kernel's own are called; see CAST for what becomes of it. The id is
        // in bounds, and volatile, because user space replaces it.
        unsafe {
            let cast: unsafe extern "C" fn(*const u8, u32) -> *const u8 = transmute(CAST);
            cast(base, read_volatile(addr_of!(OWNERS).cast::<u32>().add(field as usize)))
        }
    }

    #[inline(always)]
    fn current_task() -> *const u8 {
        // SAFETY: no arguments.
        (unsafe { bpf_get_current_task_btf() }) as *const u8
    }
}

/// Calls of `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Probed {
    const IS_TYPED: bool = false;

    #[inline(always)]
    unsafe fn load<T: Copy + Default>(at: *const u8) -> T {
        let mut value = T::default();
        // SAFETY: the destination is a local of exactly this size; the helper copes with any source.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, at.cast()) };
        value
    }

    #[inline(always)]
    unsafe fn load_ptr(at: *const u8) -> *const u8 {
        // SAFETY: the caller promises what is asked above.
        unsafe { Self::load::<u64>(at) as *const u8 }
    }

    #[inline(always)]
    unsafe fn distrust(base: *const u8, _: Field) -> *const u8 {
        base
    }

    #[inline(always)]
    fn current_task() -> *const u8 {
        // SAFETY: no arguments.
        (unsafe { bpf_get_current_task() }) as *const u8
    }
}

/// The `T` in `field` of the struct at `base`.
///
/// # Safety
/// As [`Access::load`], and `base` must point to the struct that has `field`.
#[inline(always)]
pub unsafe fn field<A: Access, T: Copy + Default>(base: *const u8, field: Field) -> T {
    match offset(field) {
        // SAFETY: the caller promises what is asked above.
        Some(offset) => unsafe { A::load(base.wrapping_add(offset)) },
        None => T::default(),
    }
}

/// The lowest bit of `field`, a bit-field of the struct at `base`.
///
/// # Safety
/// As [`field`].
#[inline(always)]
pub unsafe fn bit<A: Access>(base: *const u8, field: Field) -> bool {
    // SAFETY: the caller promises what is asked above; the byte that has the bit lies within the struct.
    offset(field)
        .is_some_and(|bits| unsafe { A::load::<u8>(base.wrapping_add(bits / 8)) } >> (bits % 8) & 1 != 0)
}

/// The `T` at `at` in the memory of the current program; zero if it cannot be read.
#[inline(always)]
pub fn user<T: Copy + Default>(at: u64) -> T {
    let mut value = T::default();
    // SAFETY: the destination is a local of exactly this size; the helper copes with any source.
    unsafe { bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, at as *const _) };
    value
}

/// The pointer in `field` of the struct at `base`, to be read through and not to be handed to helpers.
///
/// # Safety
/// As [`field`].
#[inline(always)]
pub unsafe fn field_ptr<A: Access>(base: *const u8, field: Field) -> *const u8 {
    match offset(field) {
        // SAFETY: the caller promises what is asked above.
        Some(offset) => unsafe { A::load_ptr(A::distrust(base, field).wrapping_add(offset)) },
        None => core::ptr::null(),
    }
}

/// The 16 bytes in `member` (an IPv6 address) of the struct at `base`, as four words: the unit that the verifier
/// lets typed programs load.
///
/// # Safety
/// As [`field`].
#[inline(always)]
pub unsafe fn field_in6<A: Access>(base: *const u8, member: Field, to: &mut [u32; 4]) {
    let Some(offset) = offset(member) else {
        *to = [0; 4];
        return;
    };
    for (i, word) in to.iter_mut().enumerate() {
        // SAFETY: the caller promises what is asked above; four words are within the 16 bytes.
        *word = unsafe { A::load(base.wrapping_add(offset + 4 * i)) };
    }
}

/// The value of a field of a configuration global (`setting!(CONFIG.count)`), as user space set it before loading.
#[macro_export]
macro_rules! setting {
    ($($place:tt)+) => {{
        let at = ::core::ptr::addr_of!($($place)+);
        // SAFETY: a plain field of a static. Volatile, because user space replaces the value.
        unsafe { ::core::ptr::read_volatile(at) }
    }};
}
