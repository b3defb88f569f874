//! A guest's memory, as its VMM handed it over by file descriptors.
//!
//! A [`GuestMemory`] is a table of mapped regions that never changes: a new table from the VMM is
//! a new value. Regions are shared between tables by `Arc`, so adding or removing one slot leaves
//! the others mapped where they were.
//!
//! An address that comes from the guest is an allegation. [`GuestMemory::translate`] is the only
//! way from it to a pointer, and a pointer that it gave is good for as long as the table lives.
//! Nothing here ever makes a Rust reference into guest memory: the guest writes to it at any time.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use serde::{Deserialize, Serialize};

/// The most regions that one guest may have. QEMU asks with `GET_MAX_MEM_SLOTS` how many we take.
pub const REGIONS_MAX: usize = 64;

/// One region, as a front-end describes it (vhost-user: "Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSpec {
    /// Where the guest sees it.
    pub guest_address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where the VMM sees it; ring addresses are given in this space.
    pub user_address: u64,
    /// Where it begins in the file.
    pub mmap_offset: u64,
}

/// Why a memory table was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// More regions than [`REGIONS_MAX`].
    #[error("{0} memory regions, at most {REGIONS_MAX} are supported")]
    TooMany(usize),
    /// A region of no bytes, or one whose end passes 2^64 in one of its address spaces.
    #[error("memory region at guest address {:#x} with {:#x} bytes is empty or wraps", .0.guest_address, .0.bytes)]
    Bounds(RegionSpec),
    /// Two regions claim the same guest addresses.
    #[error("memory regions at guest addresses {:#x} and {:#x} overlap", .0.guest_address, .1.guest_address)]
    Overlap(RegionSpec, RegionSpec),
    /// The file ends before the region does; touching the rest would raise SIGBUS.
    #[error("memory region at guest address {:#x} needs {needed:#x} bytes of its file, which has {file:#x}", .spec.guest_address)]
    BeyondFile {
        /// The region.
        spec: RegionSpec,
        /// Bytes that the file would need.
        needed: u64,
        /// Bytes that it has.
        file: u64,
    },
    /// The kernel refused to map it.
    #[error("mapping the memory region at guest address {:#x}: {source}", .spec.guest_address)]
    Map {
        /// The region.
        spec: RegionSpec,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A region to be removed is not in the table.
    #[error("no memory region at guest address {:#x} with {:#x} bytes is mapped", .0.guest_address, .0.bytes)]
    Unknown(RegionSpec),
}

/// A guest's memory table, mapped. See the [module's head](self).
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Arc<Region>>,
    /// What a lookup reads, beside each other: by guest address, ascending.
    windows: Vec<Window>,
}

#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    map: MmapRaw,
    /// Kept for another process to map, see [`GuestMemory::files`].
    file: File,
    /// Bytes in the mapping before the region begins.
    lead: usize,
}

/// A region, as addresses in it are translated: a copy, which a loop over many addresses has in registers.
/// What it says is good as long as the table that it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    guest: u64,
    bytes: u64,
    host: *mut u8,
}

// SAFETY: `host` points into a mapping that is owned by a `Region` of the same table and is only
// ever used by raw copies; nothing about it is bound to a thread.
unsafe impl Send for Window {}
// SAFETY: as above; a shared `Window` is only read.
unsafe impl Sync for Window {}

impl GuestMemory {
    /// Maps a whole table (vhost-user: `SET_MEM_TABLE`). All of it or nothing.
    pub fn map(regions: Vec<(RegionSpec, OwnedFd)>) -> Result<Self, MemoryError> {
        let mapped = regions
            .into_iter()
            .map(|(spec, file)| Region::map(spec, file).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Self::assemble(mapped)
    }

    /// This table and one region more (vhost-user: `ADD_MEM_REG`).
    pub fn with_region(&self, spec: RegionSpec, file: OwnedFd) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        regions.push(Arc::new(Region::map(spec, file)?));
        Self::assemble(regions)
    }

    /// This table without one region (vhost-user: `REM_MEM_REG`, which identifies it by guest
    /// address, user address and size).
    pub fn without_region(&self, spec: &RegionSpec) -> Result<Self, MemoryError> {
        let same = |region: &Arc<Region>| {
            region.spec.guest_address == spec.guest_address
                && region.spec.user_address == spec.user_address
                && region.spec.bytes == spec.bytes
        };
        let mut regions = self.regions.clone();
        let at = regions.iter().position(same).ok_or(MemoryError::Unknown(*spec))?;
        regions.remove(at);
        Self::assemble(regions)
    }

    /// The regions, by guest address.
    pub fn regions(&self) -> impl Iterator<Item = RegionSpec> {
        self.regions.iter().map(|region| region.spec)
    }

    /// The regions with copies of their files' descriptors, for a process that goes on with the guest.
    pub fn files(&self) -> io::Result<Vec<(RegionSpec, OwnedFd)>> {
        let copy = |region: &Arc<Region>| Ok((region.spec, region.file.try_clone()?.into()));
        self.regions.iter().map(copy).collect()
    }

    fn assemble(mut regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        if regions.len() > REGIONS_MAX {
            return Err(MemoryError::TooMany(regions.len()));
        }
        regions.sort_by_key(|region| region.spec.guest_address);
        for pair in regions.windows(2) {
            let (low, high) = (pair[0].spec, pair[1].spec);
            if low.guest_address + low.bytes > high.guest_address {
                return Err(MemoryError::Overlap(low, high));
            }
        }
        let windows = regions.iter().map(|region| region.window()).collect();
        Ok(Self { regions, windows })
    }

    /// Where `bytes` bytes at guest address `address` lie in our memory, if all of them are in one
    /// region. `hint` is the caller's guess of the region and is updated; any value is safe.
    #[inline(always)]
    pub(crate) fn translate(&self, address: u64, bytes: u64, hint: &mut usize) -> Option<*mut u8> {
        if let Some(window) = self.windows.get(*hint)
            && let Some(host) = window.host(address, bytes)
        {
            return Some(host);
        }
        self.translate_anywhere(address, bytes, hint)
    }

    /// The region that `hint` guesses, for who translates many addresses that are likely in one; if there is
    /// none, one that has no address.
    #[inline(always)]
    pub(crate) fn guess(&self, hint: usize) -> Window {
        let nowhere = Window { guest: 0, bytes: 0, host: std::ptr::null_mut() };
        self.windows.get(hint).copied().unwrap_or(nowhere)
    }

    #[cold]
    fn translate_anywhere(&self, address: u64, bytes: u64, hint: &mut usize) -> Option<*mut u8> {
        for (index, window) in self.windows.iter().enumerate() {
            if let Some(host) = window.host(address, bytes) {
                *hint = index;
                return Some(host);
            }
        }
        None
    }

    /// Splits a range of guest addresses that may cross from one region into the next into pieces
    /// that do not, in order. `false` when a part of it lies outside of all regions.
    pub(crate) fn pieces(
        &self,
        address: u64,
        bytes: u64,
        mut piece: impl FnMut(*mut u8, u64),
    ) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let mut at = address;
        while at < end {
            let Some((host, here)) = self.windows.iter().find_map(|window| {
                let offset =
                    at.checked_sub(window.guest).filter(|offset| *offset < window.bytes)?;
                // In bounds of the mapping: `offset` is smaller than the region.
                Some((window.host.wrapping_add(offset as usize), window.bytes - offset))
            }) else {
                return false;
            };
            let take = here.min(end - at);
            piece(host, take);
            at += take;
        }
        true
    }

    /// As [`translate`](Self::translate), for an address in the VMM's own space, in which
    /// vhost-user gives the rings' addresses ("Vring address description").
    pub(crate) fn translate_user(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.spec.user_address)?;
            region.window().host(region.spec.guest_address.checked_add(offset)?, bytes)
        })
    }
}

impl Region {
    fn map(spec: RegionSpec, file: OwnedFd) -> Result<Self, MemoryError> {
        let in_bounds = spec.bytes > 0
            && spec.guest_address.checked_add(spec.bytes).is_some()
            && spec.user_address.checked_add(spec.bytes).is_some();
        if !in_bounds {
            return Err(MemoryError::Bounds(spec));
        }
        let needed = spec.mmap_offset.checked_add(spec.bytes).ok_or(MemoryError::Bounds(spec))?;
        let map_error = |source| MemoryError::Map { spec, source };

        let file = File::from(file);
        let status = nix::sys::stat::fstat(&file).map_err(|errno| map_error(errno.into()))?;
        let file_bytes = u64::try_from(status.st_size).unwrap_or(0);
        if needed > file_bytes {
            return Err(MemoryError::BeyondFile { spec, needed, file: file_bytes });
        }
        // A file on hugetlbfs maps and unmaps in whole huge pages; its block size is theirs.
        let page = u64::try_from(status.st_blksize).unwrap_or(0).max(4096).next_power_of_two();
        let start = spec.mmap_offset & !(page - 1);
        let end = needed.checked_next_multiple_of(page).ok_or(MemoryError::Bounds(spec))?;
        let (Ok(len), Ok(lead)) =
            (usize::try_from(end - start), usize::try_from(spec.mmap_offset - start))
        else {
            return Err(MemoryError::Bounds(spec));
        };
        let map = MmapOptions::new().offset(start).len(len).map_raw(&file).map_err(map_error)?;
        // The guest's memory is not ours to show in a core dump.
        // SAFETY: the range is exactly the mapping that was just made and that this value owns;
        // the advice changes nothing about its contents.
        unsafe { libc::madvise(map.as_mut_ptr().cast(), len, libc::MADV_DONTDUMP) };
        Ok(Self { spec, map, file, lead })
    }

    fn window(&self) -> Window {
        // In bounds: the mapping holds `lead + spec.bytes` bytes, see `map`.
        let host = self.map.as_mut_ptr().wrapping_add(self.lead);
        Window { guest: self.spec.guest_address, bytes: self.spec.bytes, host }
    }
}

impl Window {
    /// Where `bytes` bytes at guest address `address` lie in our memory, if all of them are in this region.
    #[inline(always)]
    pub(crate) fn host(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        let offset = address.wrapping_sub(self.guest);
        let inside = offset < self.bytes && bytes <= self.bytes - offset;
        inside.then(|| self.host.wrapping_add(offset as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd(bytes: u64) -> OwnedFd {
        let name = c"viaduct-test";
        let fd =
            nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, i64::try_from(bytes).unwrap()).unwrap();
        fd
    }

    fn spec(guest: u64, bytes: u64) -> RegionSpec {
        RegionSpec { guest_address: guest, bytes, user_address: guest + (1 << 40), mmap_offset: 0 }
    }

    fn table(parts: &[(u64, u64)]) -> GuestMemory {
        let regions = parts.iter().map(|&(at, bytes)| (spec(at, bytes), memfd(bytes))).collect();
        GuestMemory::map(regions).unwrap()
    }

    #[test]
    fn addresses_are_found_only_inside_one_region() {
        let memory = table(&[(0x1000, 0x2000), (0x10_0000, 0x1000)]);
        let mut hint = 0;
        let start = memory.translate(0x1000, 1, &mut hint).unwrap();
        assert_eq!(memory.translate(0x1800, 0x1800, &mut hint), Some(start.wrapping_add(0x800)));
        assert!(memory.translate(0x1800, 0x1801, &mut hint).is_none(), "one byte too long");
        assert!(memory.translate(0xfff, 1, &mut hint).is_none());
        assert!(memory.translate(0x3000, 0, &mut hint).is_none(), "one past the end");
        assert!(memory.translate(u64::MAX, 2, &mut hint).is_none());
        assert!(memory.translate(0x1000, u64::MAX, &mut hint).is_none());
        assert!(memory.translate(0x10_0000, 0x1000, &mut hint).is_some());
        assert_eq!(hint, 1);
        hint = usize::MAX;
        assert!(memory.translate(0x1000, 1, &mut hint).is_some(), "any hint is safe");
    }

    #[test]
    fn ranges_across_neighbours_are_split() {
        let memory = table(&[(0x1000, 0x1000), (0x2000, 0x1000)]);
        let mut pieces = Vec::new();
        assert!(memory.pieces(0x1f00, 0x200, |_, bytes| pieces.push(bytes)));
        assert_eq!(pieces, [0x100, 0x100]);
        assert!(!memory.pieces(0x2f00, 0x200, |_, _| ()));
        assert!(!memory.pieces(u64::MAX, 2, |_, _| ()));
    }

    #[test]
    fn user_addresses_are_another_space() {
        let memory = table(&[(0x1000, 0x1000)]);
        assert!(memory.translate_user(0x1000, 1).is_none());
        assert!(memory.translate_user((1 << 40) + 0x1fff, 1).is_some());
        assert!(memory.translate_user((1 << 40) + 0x1fff, 2).is_none());
    }

    #[test]
    fn bad_tables_are_refused_with_a_reason() {
        let refused = |regions: Vec<(RegionSpec, OwnedFd)>| {
            GuestMemory::map(regions).unwrap_err().to_string()
        };
        assert_eq!(
            refused(vec![(spec(0x1000, 0), memfd(4096))]),
            "memory region at guest address 0x1000 with 0x0 bytes is empty or wraps"
        );
        assert!(
            refused(vec![(spec(u64::MAX - 10 - (1 << 40), 100), memfd(4096))]).contains("wraps")
        );
        assert_eq!(
            refused(vec![(spec(0x1000, 0x2000), memfd(0x1000))]),
            "memory region at guest address 0x1000 needs 0x2000 bytes of its file, which has 0x1000"
        );
        assert_eq!(
            refused(vec![
                (spec(0x1000, 0x2000), memfd(0x2000)),
                (spec(0x2000, 0x1000), memfd(0x1000))
            ]),
            "memory regions at guest addresses 0x1000 and 0x2000 overlap"
        );
        let many = (0..=REGIONS_MAX as u64).map(|i| (spec(i << 20, 4096), memfd(4096))).collect();
        assert_eq!(refused(many), "65 memory regions, at most 64 are supported");
    }

    #[test]
    fn slots_come_and_go_and_the_others_stay_where_they_are() {
        let memory = table(&[(0x1000, 0x1000)]);
        let mut hint = 0;
        let before = memory.translate(0x1000, 1, &mut hint);
        let more = memory.with_region(spec(0x8000, 0x1000), memfd(0x1000)).unwrap();
        assert_eq!(more.translate(0x1000, 1, &mut hint), before);
        let fewer = more.without_region(&spec(0x1000, 0x1000)).unwrap();
        assert!(fewer.translate(0x1000, 1, &mut hint).is_none());
        assert!(fewer.translate(0x8000, 1, &mut hint).is_some());
        assert!(fewer.without_region(&spec(0x1000, 0x1000)).is_err());
    }
}
