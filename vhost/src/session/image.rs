//! A session as it stands, for another process to go on with: the front-end and its guest notice
//! nothing but a pause.
//!
//! What the front-end said is in the [`SessionImage`] as numbers; what it sent as descriptors goes
//! beside it, in an order that both ends know. Where rings stand is told apart, at the last moment,
//! since all else can be prepared while they run ([`Session::resume`], then [`Session::halt`] there and
//! [`Session::go_on`] here).
//!
//! The image comes from a process of ours, but perhaps of another version: it is checked as if the
//! front-end had said it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rings::Ring;
use super::{Session, SessionError, SessionOptions};
use crate::device::Device;
use crate::features;
use crate::memory::{GuestMemory, MemoryError, RegionSpec};
use crate::message::{Code, VringAddresses};
use crate::vring::{Call, CallError};

/// A session's state, without its descriptors and without the positions of its rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionImage {
    features: Option<u64>,
    protocol_features: u64,
    status: u8,
    mtu: Option<u16>,
    memory: Vec<RegionSpec>,
    /// Those that the front-end has said anything about.
    rings: Vec<RingImage>,
}

/// What a front-end has said of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingImage {
    queue: usize,
    size: Option<u16>,
    addresses: Option<VringAddresses>,
    /// Whether these descriptors come beside.
    call: bool,
    error: bool,
    kicked: bool,
    enabled: bool,
    opened: bool,
}

/// Which of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those that the guest receives from: even numbers (virtio 1.2 §5.1.2).
    Receive,
    /// Those that it transmits to.
    Transmit,
}

/// Why a session cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// This version does not offer what was agreed on.
    #[error("its guest uses features that this version does not offer: {0}")]
    Features(String),
    /// The device has fewer rings.
    #[error("it has a queue {queue}, and the device has {queues}")]
    NoQueue {
        /// The ring.
        queue: usize,
        /// How many there are.
        queues: usize,
    },
    /// The ring's size is none.
    #[error("its queue {queue} cannot have {size} entries")]
    RingSize {
        /// The ring.
        queue: usize,
        /// What it says.
        size: u16,
    },
    /// There are more or fewer descriptors than the image says.
    #[error("{0} file descriptors are missing or too many")]
    Descriptors(usize),
    /// The memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What came as an eventfd is none.
    #[error("queue {queue}: {source}")]
    Event {
        /// The ring.
        queue: usize,
        /// Why.
        source: CallError,
    },
}

impl Session {
    /// The session as it stands, with copies of its descriptors: of the memory's files, then for each
    /// ring the one for interrupts and the one for errors.
    pub fn image(&self) -> io::Result<(SessionImage, Vec<OwnedFd>)> {
        let (memory, mut descriptors): (Vec<_>, Vec<_>) = self.memory.files()?.into_iter().unzip();
        let mut rings = Vec::new();
        for (queue, ring) in self.rings.iter().enumerate().filter(|(_, ring)| ring.is_known()) {
            let Ring { size, addresses, kicked, enabled, opened, .. } = *ring;
            let events = [ring.call.as_deref(), ring.error.as_ref()];
            for event in events.into_iter().flatten() {
                descriptors.push(event.copy()?);
            }
            let [call, error] = events.map(|event| event.is_some());
            rings.push(RingImage { queue, size, addresses, call, error, kicked, enabled, opened });
        }
        let Self { features, protocol_features, status, mtu, .. } = *self;
        Ok((SessionImage { features, protocol_features, status, mtu, memory, rings }, descriptors))
    }

    /// Goes on with a session of another process, all but its rings: they wait for
    /// [`go_on`](Self::go_on).
    pub fn resume(
        device: Arc<Device>,
        options: SessionOptions,
        image: &SessionImage,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, ImageError> {
        let mut session = Self::new(device, options);
        let strange = image.features.unwrap_or(0) & !session.device_offer();
        if strange != 0 {
            return Err(ImageError::Features(features::device_names(strange).join(", ")));
        }
        let strange = image.protocol_features & !session.protocol_offer();
        if strange != 0 {
            return Err(ImageError::Features(features::protocol_names(strange).join(", ")));
        }
        session.features = image.features;
        session.protocol_features = image.protocol_features;
        (session.status, session.mtu) = (image.status, image.mtu);

        let events =
            image.rings.iter().map(|ring| usize::from(ring.call) + usize::from(ring.error));
        let wanted = image.memory.len() + events.sum::<usize>();
        if wanted != descriptors.len() {
            return Err(ImageError::Descriptors(wanted.abs_diff(descriptors.len())));
        }
        let mut descriptors = descriptors.into_iter();
        let files = descriptors.by_ref().take(image.memory.len());
        let regions = image.memory.iter().copied().zip(files).collect();
        session.memory = Arc::new(GuestMemory::map(regions)?);
        for ring in &image.rings {
            session.take_ring(ring, &mut descriptors)?;
        }
        Ok(session)
    }

    fn take_ring(
        &mut self,
        image: &RingImage,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<(), ImageError> {
        let (queue, queues) = (image.queue, self.rings.len());
        let layout = self.layout();
        let ring = self.rings.get_mut(queue).ok_or(ImageError::NoQueue { queue, queues })?;
        if let (Some(size), Some(layout)) = (image.size, layout)
            && !layout.allows(size)
        {
            return Err(ImageError::RingSize { queue, size });
        }
        let mut event = |present: bool| {
            let event = descriptors.by_ref().take(usize::from(present)).next();
            event.map(Call::new).transpose().map_err(|source| ImageError::Event { queue, source })
        };
        let (call, error) = (event(image.call)?.map(Arc::new), event(image.error)?);
        let &RingImage { size, addresses, kicked, enabled, opened, .. } = image;
        let (base, running) = (0, false);
        *ring = Ring { size, addresses, base, call, error, kicked, enabled, opened, running };
        Ok(())
    }

    /// Stops all rings and tells where each goes on, as another process is to do. What the front-end
    /// wants of them does not change.
    pub fn halt(&mut self) -> Vec<u32> {
        for queue in 0..self.rings.len() {
            self.pause(queue);
        }
        self.rings.iter().map(|ring| ring.base).collect()
    }

    /// Where rings go on that do not run, as [`halt`](Self::halt) told of them.
    pub fn place(&mut self, bases: &[u32]) {
        for (ring, base) in self.rings.iter_mut().zip(bases).filter(|(ring, _)| !ring.running) {
            ring.base = *base;
        }
    }

    /// Starts the rings of a side that are to run. Those that guests receive from go first, of all
    /// guests: so no frame is dropped because its receiver comes after its sender.
    pub fn go_on(&mut self, side: Side) -> Result<(), SessionError> {
        let first = usize::from(side == Side::Transmit);
        let mut queues = (first..self.rings.len()).step_by(2);
        queues.try_for_each(|queue| self.start(Code::SetVringKick, queue))
    }
}

impl Ring {
    /// Whether the front-end has said anything about it.
    fn is_known(&self) -> bool {
        let told = self.size.is_some() || self.addresses.is_some() || self.kicked || self.enabled;
        told || self.call.is_some() || self.error.is_some()
    }
}
