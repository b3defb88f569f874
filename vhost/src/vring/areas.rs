//! Finding a ring's areas in the guest's memory.

use super::VringError;
use crate::memory::GuestMemory;

/// The memory in which the areas of a ring lie.
#[derive(Clone, Copy)]
pub(super) struct Areas<'a> {
    memory: &'a GuestMemory,
}

impl<'a> Areas<'a> {
    pub(super) fn of(memory: &'a GuestMemory) -> Self {
        Self { memory }
    }

    /// Where an area of `bytes` bytes at `address`, in the front-end's own space, lies in ours. It
    /// is aligned to `align` in both.
    pub(super) fn find(
        &self,
        area: &'static str,
        address: u64,
        bytes: u64,
        align: u64,
    ) -> Result<*mut u8, VringError> {
        if !address.is_multiple_of(align) {
            return Err(VringError::Unaligned { area, address, align });
        }
        let host = self.memory.translate_user(address, bytes);
        let host = host.ok_or(VringError::Outside { area, address, bytes })?;
        // A region may be mapped at an odd offset of its file.
        if !(host.addr() as u64).is_multiple_of(align) {
            return Err(VringError::Unaligned { area, address, align });
        }
        Ok(host)
    }
}
