//! The structures that payloads are made of, in the machine's byte order.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::{Code, MessageError};
use crate::memory::RegionSpec;

/// Bits 0 to 7 of a ring's descriptor message are the ring's number.
const RING_MASK: u64 = 0xff;
/// Bit 8 says that no descriptor comes with it.
const NO_DESCRIPTOR: u64 = 1 << 8;

/// Bytes of a memory region's description.
pub(super) const REGION_BYTES: usize = 32;

/// A number for one ring (vhost-user: "A vring state description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// The ring.
    pub queue: u32,
    /// Its size, base, or whether it is enabled.
    pub number: u32,
}

/// Where a ring's areas are, in the front-end's address space (vhost-user: "A vring address
/// description").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VringAddresses {
    /// The ring.
    pub queue: u32,
    /// Bit 0: log writes to the used ring.
    pub flags: u32,
    /// The descriptor table.
    pub descriptors: u64,
    /// The used ring.
    pub used: u64,
    /// The available ring.
    pub available: u64,
    /// Where writes to the used ring are logged, a guest address.
    pub log: u64,
}

/// A descriptor for one ring, or that there is none (vhost-user: `SET_VRING_KICK` and its likes).
#[derive(Debug)]
pub struct VringDescriptor {
    /// The ring.
    pub queue: u8,
    /// The descriptor; none means polling.
    pub descriptor: Option<OwnedFd>,
}

/// Takes a payload apart. Its length was checked, so taking as much as was asked for cannot fail.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        code: Code,
        payload: &'a [u8],
        expected: usize,
    ) -> Result<Self, MessageError> {
        if payload.len() != expected {
            return Err(MessageError::PayloadBytes { code, bytes: payload.len(), expected });
        }
        Ok(Self { rest: payload })
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.rest.split_first_chunk().expect("`new` was told all that is read");
        self.rest = rest;
        *bytes
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    pub(super) fn region(&mut self) -> RegionSpec {
        RegionSpec {
            guest_address: self.u64(),
            bytes: self.u64(),
            user_address: self.u64(),
            mmap_offset: self.u64(),
        }
    }
}

pub(super) fn put_region(payload: &mut Vec<u8>, region: &RegionSpec) {
    for field in [region.guest_address, region.bytes, region.user_address, region.mmap_offset] {
        payload.extend(field.to_ne_bytes());
    }
}

impl VringState {
    pub(super) const BYTES: usize = 8;

    pub(super) fn decode(code: Code, payload: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(code, payload, Self::BYTES)?;
        Ok(Self { queue: reader.u32(), number: reader.u32() })
    }

    pub(super) fn encode(self) -> Vec<u8> {
        [self.queue.to_ne_bytes(), self.number.to_ne_bytes()].concat()
    }
}

impl VringAddresses {
    pub(super) const BYTES: usize = 40;

    pub(super) fn decode(code: Code, payload: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(code, payload, Self::BYTES)?;
        Ok(Self {
            queue: reader.u32(),
            flags: reader.u32(),
            descriptors: reader.u64(),
            used: reader.u64(),
            available: reader.u64(),
            log: reader.u64(),
        })
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut payload = [self.queue.to_ne_bytes(), self.flags.to_ne_bytes()].concat();
        for field in [self.descriptors, self.used, self.available, self.log] {
            payload.extend(field.to_ne_bytes());
        }
        payload
    }
}

impl VringDescriptor {
    pub(super) fn decode(
        code: Code,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, MessageError> {
        let value = Reader::new(code, payload, 8)?.u64();
        if value & !(RING_MASK | NO_DESCRIPTOR) != 0 {
            let allowed = "only bits 0 to 8 have a meaning";
            return Err(MessageError::Field { code, field: "the ring", value, allowed });
        }
        let expected = usize::from(value & NO_DESCRIPTOR == 0);
        let descriptor = exactly(code, descriptors, expected)?.into_iter().next();
        Ok(Self { queue: (value & RING_MASK) as u8, descriptor })
    }

    pub(super) fn encode(self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mark = if self.descriptor.is_none() { NO_DESCRIPTOR } else { 0 };
        let payload = (u64::from(self.queue) | mark).to_ne_bytes().to_vec();
        (payload, self.descriptor.into_iter().collect())
    }
}

/// The descriptors, if there are as many as there must be; otherwise they are closed.
pub(super) fn exactly(
    code: Code,
    descriptors: Vec<OwnedFd>,
    expected: usize,
) -> Result<Vec<OwnedFd>, MessageError> {
    if descriptors.len() != expected {
        return Err(MessageError::Descriptors { code, found: descriptors.len(), expected });
    }
    Ok(descriptors)
}
