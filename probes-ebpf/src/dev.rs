//! Network interfaces: `struct net_device`.

use core::marker::PhantomData;

use netbcc_common::kernel::Field;

use crate::mem::{Access, field, field_ptr, offset};

/// A `struct net_device *`, never null.
#[derive(Clone, Copy)]
pub struct Dev<A> {
    at: *const u8,
    how: PhantomData<A>,
}

impl<A: Access> Dev<A> {
    /// The interface at `at`, unless it is null.
    #[inline(always)]
    pub fn new(at: *const u8) -> Option<Self> {
        (!at.is_null()).then_some(Self { at, how: PhantomData })
    }

    /// Its number, which other namespaces have as well.
    #[inline(always)]
    pub fn index(self) -> u32 {
        // SAFETY: `at` is a net_device.
        unsafe { field::<A, u32>(self.at, Field::DevIfindex) }
    }

    /// Address of its network namespace: identifies that while it lives.
    #[inline(always)]
    pub fn net(self) -> u64 {
        // SAFETY: as above.
        unsafe { field_ptr::<A>(self.at, Field::DevNet) as u64 }
    }

    /// Inode number of its network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let (Some(net), Some(common)) = (offset(Field::DevNet), offset(Field::NetCommon)) else { return 0 };
        // SAFETY: `at` is a struct net_device, as `Dev::new` asks; an interface keeps its namespace alive, and the offsets are those of the structs passed.
        unsafe {
            let net = A::load_ptr(self.at.wrapping_add(net));
            field::<A, u32>(net.wrapping_add(common), Field::NsInum)
        }
    }
}
