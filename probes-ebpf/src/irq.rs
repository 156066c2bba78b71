//! Handlers of hard interrupts: `struct irqaction`.

use core::marker::PhantomData;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use netbcc_common::kernel::Field;

use crate::mem::{Access, copy, field_ptr, is_locked};

/// A `struct irqaction *`, never null.
#[derive(Clone, Copy)]
pub struct Action<A> {
    at: *const u8,
    how: PhantomData<A>,
}

impl<A: Access> Action<A> {
    /// The handler at `at`, unless it is null.
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self { at, how: PhantomData })
    }

    /// Its address, which is another's once it was freed.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at as u64
    }

    /// Where its name is.
    #[inline(always)]
    pub fn name_at(self) -> u64 {
        // SAFETY: `at` is a struct irqaction, as `Action::new` asks.
        unsafe { field_ptr::<A>(self.at, Field::ActionName) as u64 }
    }
}

/// Writes the name at `at`, as far as there is room: text up to a NUL, behind which anything may be; zeroes where it cannot be
/// read.
#[inline(always)]
pub fn name<const N: usize>(at: u64, to: &mut [u8; N]) {
    if is_locked() {
        *to = copy(at);
    } else {
        *to = [0; N];
        // SAFETY: exactly the bytes of `to`; the helper copes with any source, and reads nothing behind the NUL.
        unsafe { bpf_probe_read_kernel_str(to.as_mut_ptr().cast(), N as u32, at as *const _) };
    }
}
