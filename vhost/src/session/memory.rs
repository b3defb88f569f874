//! The guest's memory: a new table, a region more, a region less, with rings that keep running.
//!
//! Rings hold the table that they were built on. So a change builds the new table beside the old
//! one, moves every ring over, and only then lets the old one go: a worker is never without memory
//! under its hands, and what stayed is mapped where it was.
//!
//! Adding what is there and removing what is not are no errors. QEMU 7.2 with several queue pairs
//! keeps account for each pair and tells us each change once for each of them; taken by their
//! outcome, the repetitions are harmless.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Session, SessionError};
use crate::memory::{GuestMemory, MemoryError, RegionSpec};
use crate::message::Code;
use crate::vring::VringError;

impl Session {
    /// `SET_MEM_TABLE`: all of the memory anew. No running ring may be left outside.
    pub(super) fn replace_table(
        &mut self,
        regions: Vec<(RegionSpec, OwnedFd)>,
    ) -> Result<(), SessionError> {
        let code = Code::SetMemTable;
        let memory =
            GuestMemory::map(regions).map_err(|source| SessionError::Memory { code, source })?;
        self.move_rings(code, memory)
    }

    /// `ADD_MEM_REG`.
    pub(super) fn add_region(
        &mut self,
        region: RegionSpec,
        file: OwnedFd,
    ) -> Result<(), SessionError> {
        let code = Code::AddMemReg;
        if self.memory.regions().any(|present| present == region) {
            return Ok(());
        }
        let memory = self.memory.with_region(region, file);
        self.move_rings(code, memory.map_err(|source| SessionError::Memory { code, source })?)
    }

    /// `REM_MEM_REG`. A front-end that changes a region takes it away and adds it again, so a ring
    /// that lay in it waits for it to come back.
    pub(super) fn remove_region(&mut self, region: RegionSpec) -> Result<(), SessionError> {
        let code = Code::RemMemReg;
        match self.memory.without_region(&region) {
            Ok(memory) => self.move_rings(code, memory),
            Err(MemoryError::Unknown(_)) => Ok(()),
            Err(source) => Err(SessionError::Memory { code, source }),
        }
    }

    fn move_rings(&mut self, code: Code, memory: GuestMemory) -> Result<(), SessionError> {
        let old = std::mem::replace(&mut self.memory, Arc::new(memory));
        let running: Vec<usize> =
            (0..self.rings.len()).filter(|&queue| self.pause(queue)).collect();
        let moved = (0..self.rings.len()).try_for_each(|queue| match self.start(code, queue) {
            // By regions, memory comes and goes piece by piece.
            Err(SessionError::Ring { source: VringError::Outside { .. }, .. })
                if code != Code::SetMemTable =>
            {
                Ok(())
            }
            outcome => outcome,
        });
        if moved.is_err() {
            for queue in 0..self.rings.len() {
                self.pause(queue);
            }
            self.memory = old;
            for queue in running {
                self.start(code, queue)?;
            }
        }
        moved
    }
}
