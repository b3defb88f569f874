//! Places in tables that need no look whether they are there, as who made the table has looked.
#![allow(unsafe_code)]

/// What stands at a place.
///
/// # Safety
/// `place` must be below the table's length.
#[inline(always)]
pub(super) unsafe fn at<T>(table: &[T], place: usize) -> &T {
    debug_assert!(place < table.len(), "who made the table has looked");
    // SAFETY: the caller vouches for it.
    unsafe { table.get_unchecked(place) }
}
