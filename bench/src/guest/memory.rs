//! A guest's memory: a memfd that the switch maps too, and checked windows into it.
//!
//! Every access to shared memory in this crate goes through the types here. Their constructors
//! check place and alignment once; afterwards an index is masked to the window's power-of-two
//! length, so no value that the switch writes can lead outside, and the hot loop has no bound to
//! test. Values in the memory may change at any time (the switch is another process, or another
//! thread): they are read and written volatile or atomically, never borrowed.
//!
//! Guest addresses are unlike our own on purpose, and the buffers lie in a second region with an
//! offset into the file, as in a machine with memory above 4 GiB: a switch that confuses guest
//! addresses, the front-end's addresses and file offsets does not work here.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Both regions' lengths are multiples of the page size of a 2 MiB huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Where the second region begins in guest addresses.
const HIGH_MEMORY: u64 = 4 << 30;

/// Which pages back a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pages {
    /// 2 MiB pages if the machine has enough free ones, else normal ones.
    Auto,
    /// Normal pages.
    Normal,
}

/// One contiguous piece of guest memory, as SET_MEM_TABLE describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where the guest sees it.
    pub guest_address: u64,
    /// Where this process sees it.
    pub user_address: u64,
    /// In bytes.
    pub length: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
}

/// The memory of one guest: a region for rings and a region for buffers, in one file.
#[derive(Debug)]
pub struct GuestMemory {
    file: OwnedFd,
    base: NonNull<u8>,
    length: usize,
    /// Where the second region begins, in bytes from the file's start.
    split: usize,
    huge: bool,
}

// SAFETY: the struct owns a shared mapping that stays until it is dropped; all access to the bytes
// is volatile or atomic through raw pointers, so it may be used and dropped on any thread.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; no method hands out a reference to the bytes, other than to atomics.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Memory with room for rings and for buffers, both in bytes and rounded up to 2 MiB, zeroed.
    pub fn new(ring_bytes: usize, buffer_bytes: usize, pages: Pages) -> Result<Arc<Self>> {
        let split = ring_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let length = split + buffer_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        if pages == Pages::Auto
            && let Ok(memory) = Self::map(split, length, true)
        {
            return Ok(Arc::new(memory));
        }
        let memory = Self::map(split, length, false)
            .with_context(|| format!("guest memory of {} MiB: free some memory", length >> 20))?;
        Ok(Arc::new(memory))
    }

    /// Whether 2 MiB pages back the memory.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// The file to hand to the switch, for every region the same.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The regions, in ascending guest addresses.
    pub fn regions(&self) -> [Region; 2] {
        [(0, self.split), (self.split, self.length)].map(|(from, to)| Region {
            guest_address: self.guest_address(from),
            user_address: self.user_address(from),
            length: (to - from) as u64,
            file_offset: from as u64,
        })
    }

    /// The first byte's offset of the region that holds buffers.
    pub fn buffer_offset(&self) -> usize {
        self.split
    }

    /// What the guest calls the byte at `offset`.
    pub fn guest_address(&self, offset: usize) -> u64 {
        match offset.checked_sub(self.split) {
            None => offset as u64,
            Some(behind) => HIGH_MEMORY + behind as u64,
        }
    }

    /// What this process calls the byte at `offset`.
    pub fn user_address(&self, offset: usize) -> u64 {
        self.base.as_ptr() as u64 + offset as u64
    }

    /// Where `length` bytes at a guest address lie in the file, if they lie within one region.
    #[inline(always)]
    pub fn offset_of(&self, guest_address: u64, length: usize) -> Option<usize> {
        let (start, end, within) = match guest_address.checked_sub(HIGH_MEMORY) {
            Some(within) => (self.split, self.length, within),
            None => (0, self.split, guest_address),
        };
        let room = (end - start) as u64;
        let fits = within <= room && length as u64 <= room - within;
        fits.then_some(start + within as usize)
    }

    /// Copies bytes between two guests, by guest address. False, and nothing done, when either end
    /// is outside its guest's memory.
    #[inline(always)]
    pub fn copy(&self, to: u64, source: &GuestMemory, from: u64, length: usize) -> bool {
        let (Some(to), Some(from)) = (self.offset_of(to, length), source.offset_of(from, length))
        else {
            return false;
        };
        // SAFETY: both ranges were checked to lie within live mappings, which `self` and `source`
        // keep; bytes that another party changes meanwhile are copied torn, which nobody but the
        // frame's receiver sees. `copy` allows the ranges to overlap when both are one guest's.
        unsafe {
            self.base.as_ptr().add(to).copy_from(source.base.as_ptr().add(from), length);
        }
        true
    }

    /// Writes bytes at an offset. The range must lie within the memory.
    #[inline(always)]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        // SAFETY: the range was checked; `bytes` is not guest memory, which is never borrowed.
        unsafe {
            self.base.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Reads bytes at an offset. The range must lie within the memory.
    #[inline(always)]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.length && into.len() <= self.length - offset);
        // SAFETY: the range was checked; `into` is not guest memory, which is never borrowed.
        unsafe {
            into.as_mut_ptr().copy_from_nonoverlapping(self.base.as_ptr().add(offset), into.len());
        }
    }

    /// Writes a value at any offset. It must lie within the memory.
    #[inline(always)]
    pub fn write_value<T: Plain>(&self, offset: usize, value: T) {
        assert!(offset <= self.length && size_of::<T>() <= self.length - offset);
        // SAFETY: the range was checked; `Plain` values have no padding that could leak.
        unsafe { self.base.add(offset).cast().write_unaligned(value) }
    }

    /// Reads a value at any offset. It must lie within the memory.
    #[inline(always)]
    pub fn read_value<T: Plain>(&self, offset: usize) -> T {
        assert!(offset <= self.length && size_of::<T>() <= self.length - offset);
        // SAFETY: the range was checked; `Plain` makes any bytes a valid value, and what another
        // party changes meanwhile is a torn value, which the frame's check word tells.
        unsafe { self.base.add(offset).cast().read_unaligned() }
    }

    /// Asks the processor to fetch the cache line at an offset; outside the memory it does nothing.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        if offset < self.length {
            // SAFETY: the offset was checked to be within the mapping.
            fetch_line(unsafe { self.base.add(offset) }.as_ptr());
        }
    }

    /// Has the line at an offset brought over from another core by a store to the byte there, whose value is
    /// lost. Stores become visible in order,
    /// so one that waits for its line holds up all, but those that wait ask for their lines at once. So it
    /// is best done for all buffers of a burst before any is filled.
    #[inline(always)]
    pub fn claim(&self, offset: usize) {
        assert!(offset < self.length);
        // SAFETY: the offset was checked. Volatile, as it is for nothing but its being done.
        unsafe { self.base.add(offset).write_volatile(0) }
    }

    fn map(split: usize, length: usize, huge: bool) -> Result<Self> {
        let mut flags = MFdFlags::MFD_CLOEXEC;
        if huge {
            flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
        }
        let file = memfd_create("viaduct-bench-guest", flags).context("memfd_create")?;
        nix::unistd::ftruncate(&file, length as i64).context("ftruncate of guest memory")?;
        let size = NonZeroUsize::new(length).context("guest memory must not be empty")?;
        // Populating now keeps page faults out of the measurement, and lets a lack of huge pages
        // show here, as an error, instead of as SIGBUS later.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(None, size, access, flags, &file, 0) }.context("mmap")?.cast();
        Ok(Self { file, base, length, split, huge })
    }

    fn place<T>(&self, offset: usize, count: usize) -> Result<NonNull<T>> {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        ensure!(
            end.is_some_and(|end| end <= self.length) && offset.is_multiple_of(align_of::<T>()),
            "{count} elements at offset {offset} do not lie in {} bytes of guest memory",
            self.length
        );
        // SAFETY: the offset was checked to be within the mapping.
        Ok(unsafe { self.base.add(offset) }.cast())
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: `base` and `length` are this value's own mapping, and every window holds an `Arc`
        // to this value, so none is left. Failure would only leak the mapping.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// Types whose every bit pattern is valid, without padding: what may be read from shared memory.
///
/// # Safety
/// The implementor is `repr(C)` or a primitive integer, and has neither padding nor pointers.
pub unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an array of integers.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: an array of integers.
unsafe impl<const N: usize> Plain for [u64; N] {}

/// An array of 2^n elements in guest memory. Indices wrap.
#[derive(Debug)]
pub struct Table<T> {
    start: NonNull<T>,
    mask: usize,
    /// Keeps the mapping.
    _memory: Arc<GuestMemory>,
}

// SAFETY: a pointer into a shared mapping that the `Arc` keeps; access is volatile.
unsafe impl<T: Plain> Send for Table<T> {}

impl<T: Plain> Table<T> {
    /// The array of `count` elements (a power of two) at an offset that suits their alignment.
    pub fn new(memory: &Arc<GuestMemory>, offset: usize, count: usize) -> Result<Self> {
        ensure!(count.is_power_of_two(), "{count} elements are not a power of two");
        Ok(Self {
            start: memory.place(offset, count)?,
            mask: count - 1,
            _memory: Arc::clone(memory),
        })
    }

    /// The element at `index` modulo the length.
    #[inline(always)]
    pub fn load(&self, index: usize) -> T {
        // SAFETY: `new` checked the whole array and the mask keeps the index within it; `Plain`
        // makes any bytes a valid value.
        unsafe { self.start.add(index & self.mask).read_volatile() }
    }

    /// Fetches the line of an element that is going to be stored.
    #[inline(always)]
    pub fn prefetch_write(&self, index: usize) {
        // SAFETY: as for `load`, so the address is within the mapping.
        own_line(unsafe { self.start.add(index & self.mask) }.as_ptr().cast());
    }

    /// Sets the element at `index` modulo the length.
    #[inline(always)]
    pub fn store(&self, index: usize, value: T) {
        // SAFETY: as for `load`.
        unsafe { self.start.add(index & self.mask).write_volatile(value) }
    }
}

/// Fetches a cache line for reading.
#[inline(always)]
fn fetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes no program state and does not fault, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Fetches a cache line and takes it from all other cores. Stores leave a core in program order, so
/// without this each waits for the line of the one before.
#[inline(always)]
fn own_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for `fetch_line`; processors without the instruction do nothing. The compiler's
    // intrinsic is not used since for the baseline processor it becomes a prefetch for reading.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A 16-bit word in guest memory through which the two sides of a ring synchronise.
#[derive(Debug)]
pub struct Word {
    cell: NonNull<AtomicU16>,
    /// Keeps the mapping.
    _memory: Arc<GuestMemory>,
}

// SAFETY: a pointer to an atomic in a shared mapping that the `Arc` keeps.
unsafe impl Send for Word {}

impl Word {
    /// The word at an even offset.
    pub fn new(memory: &Arc<GuestMemory>, offset: usize) -> Result<Self> {
        Ok(Self { cell: memory.place(offset, 1)?, _memory: Arc::clone(memory) })
    }

    /// Reads the word; what the other side wrote before it stored the word is visible afterwards.
    #[inline(always)]
    pub fn acquire(&self) -> u16 {
        self.atomic().load(Ordering::Acquire)
    }

    /// Writes the word; what was written before is visible to who acquires it.
    #[inline(always)]
    pub fn release(&self, value: u16) {
        self.atomic().store(value, Ordering::Release);
    }

    fn atomic(&self) -> &AtomicU16 {
        // SAFETY: `new` checked place and alignment, the `Arc` keeps the mapping, and every party
        // in this process touches the word only as an atomic.
        unsafe { self.cell.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<GuestMemory> {
        GuestMemory::new(1, HUGE_PAGE_BYTES + 1, Pages::Normal).expect("6 MiB of memory")
    }

    #[test]
    fn addresses_lead_back_to_their_bytes_and_nowhere_else() {
        let memory = memory();
        let [rings, buffers] = memory.regions();
        assert_eq!((rings.length, buffers.length), (2 << 20, 4 << 20));
        assert_eq!(buffers.file_offset, rings.length);
        assert_eq!(memory.offset_of(0, 2 << 20), Some(0));
        assert_eq!(memory.offset_of(1, 2 << 20), None);
        assert_eq!(memory.offset_of(HIGH_MEMORY, 4 << 20), Some(2 << 20));
        assert_eq!(memory.offset_of(HIGH_MEMORY + 1, 4 << 20), None);
        assert_eq!(memory.offset_of(HIGH_MEMORY - 1, 1), None);
        assert_eq!(memory.offset_of(u64::MAX, 1), None);
        assert_eq!(memory.offset_of(u64::MAX, usize::MAX), None);
        for offset in [0, (2 << 20) - 1, 2 << 20, (6 << 20) - 1] {
            assert_eq!(memory.offset_of(memory.guest_address(offset), 1), Some(offset));
        }
    }

    #[test]
    fn copies_reach_the_other_guest_or_do_nothing() {
        let (one, two) = (memory(), memory());
        one.write(100, b"over the bridge");
        assert!(two.copy(HIGH_MEMORY + 5, &one, 100, 15));
        let mut bytes = [0; 15];
        two.read(two.buffer_offset() + 5, &mut bytes);
        assert_eq!(&bytes, b"over the bridge");
        assert!(!two.copy(HIGH_MEMORY + (4 << 20) - 14, &one, 100, 15));
        assert!(!two.copy(0, &one, (2 << 20) - 1, 2));
    }

    #[test]
    fn windows_outside_the_memory_are_refused() {
        let memory = memory();
        assert!(Table::<u16>::new(&memory, 6 << 20, 1).is_err());
        assert!(Table::<u16>::new(&memory, 1, 2).is_err());
        assert!(Table::<u16>::new(&memory, 0, 3).is_err());
        assert!(Word::new(&memory, (6 << 20) - 1).is_err());
        assert!(Word::new(&memory, usize::MAX - 1).is_err());
    }

    #[test]
    fn indices_wrap() {
        let memory = memory();
        let table = Table::<u16>::new(&memory, 64, 4).expect("it fits");
        table.store(5, 77);
        assert_eq!((table.load(1), table.load(9), table.load(0)), (77, 77, 0));
    }
}
