//! The FDB's memory: huge pages if there are any free, ordinary ones if not.
//!
//! A lookup touches one random line of the table; on 4 KiB pages it would often miss the TLB too.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::path::Path;
use std::ptr::NonNull;

/// A type for which memory of all zeros is a value.
///
/// # Safety
/// That must be true, and the type must need no drop.
pub(crate) unsafe trait Zeroed: Sync {}

/// A slice on huge pages where possible, zeroed at first.
#[derive(Debug)]
pub(crate) struct Table<T: Zeroed> {
    start: NonNull<T>,
    len: usize,
    huge: bool,
}

// SAFETY: the table owns its memory alone, and hands out shared references only to `T: Sync`.
unsafe impl<T: Zeroed> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for Table<T> {}

impl<T: Zeroed> Table<T> {
    /// A table of `len` zeroed entries.
    ///
    /// # Panics
    /// If `len` is 0 or no memory could hold it.
    pub(crate) fn new(len: usize) -> Self {
        assert!(len > 0 && size_of::<T>() > 0, "a table has entries");
        let layout = Self::layout(len);
        // The crate asks the kernel for its huge page size and panics where there is none.
        let supported = Path::new("/sys/kernel/mm/hugepages").exists();
        let huge = if supported {
            // SAFETY: the layout's size is not zero. The memory is zeroed, as a fresh anonymous
            // mapping is, and the kernel reserved its pages, so that touching it cannot fail.
            NonNull::new(unsafe { hugepage_rs::alloc(layout) })
        } else {
            None
        };
        let start = huge
            // SAFETY: the layout's size is not zero.
            .or_else(|| NonNull::new(unsafe { alloc_zeroed(layout) }))
            .unwrap_or_else(|| handle_alloc_error(layout));
        Self { start: start.cast(), len, huge: huge.is_some() }
    }

    /// Whether it lies on huge pages.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len).expect("a table fits the address space")
    }
}

impl<T: Zeroed> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` got memory for `len` entries, all zeros, which `T: Zeroed` says are values.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> Drop for Table<T> {
    fn drop(&mut self) {
        let (start, layout) = (self.start.as_ptr().cast(), Self::layout(self.len));
        // SAFETY: the memory came from that very allocator with that very layout, and `T: Zeroed`
        // needs no drop.
        unsafe {
            if self.huge { hugepage_rs::dealloc(start, layout) } else { dealloc(start, layout) }
        }
    }
}
