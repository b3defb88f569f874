//! A session's rings: what each was told, and starting, stopping and rebuilding it.
//!
//! A [`Vring`] never changes. Whatever changes about a running ring, the ring is taken from the
//! device, with the position that it had, and built anew. That takes microseconds and makes no
//! frame come twice or out of order.

use std::sync::Arc;

use super::{Session, SessionError};
use crate::features::device;
use crate::message::{Code, VringAddresses, VringDescriptor, VringState};
use crate::offload::Offloads;
use crate::vring::{Call, RingLayout, Vring, VringConfig};

/// What a session knows of a ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<VringAddresses>,
    /// Where it goes on when it starts, as the front-end writes it; see `RingPosition::base`.
    pub(super) base: u32,
    pub(super) call: Option<Arc<Call>>,
    pub(super) error: Option<Call>,
    /// The front-end wants it to run (`SET_VRING_KICK`, until `GET_VRING_BASE`).
    pub(super) kicked: bool,
    pub(super) enabled: bool,
    /// It was enabled at some time since it was kicked off.
    pub(super) opened: bool,
    /// The device has it.
    pub(super) running: bool,
}

impl Ring {
    /// Forgets what the driver set. The descriptors are the front-end's and stay.
    pub(super) fn reset(&mut self) {
        let (call, error) = (self.call.take(), self.error.take());
        *self = Self { call, error, ..Self::default() };
    }

    /// What the ring lacks to run, of what is its own.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        if self.size.is_none() {
            Some("SET_VRING_NUM")
        } else if self.addresses.is_none() {
            Some("SET_VRING_ADDR")
        } else if !self.opened && !self.enabled {
            Some("SET_VRING_ENABLE")
        } else {
            None
        }
    }
}

impl Session {
    pub(super) fn set_size(&mut self, request: VringState) -> Result<(), SessionError> {
        let queue = self.stopped_queue(Code::SetVringNum, request.queue)?;
        let size = request.number;
        // Before the layout is known, any will do that one of them allows.
        let layout = self.layout().unwrap_or(RingLayout::Packed);
        let fits = u16::try_from(size).ok().filter(|size| layout.allows(*size));
        let rule = layout.size_rule();
        let fits = fits.ok_or(SessionError::RingSize { queue, size, rule })?;
        let before = self.rings[queue].size.replace(fits);
        let outcome = self.start(Code::SetVringNum, queue);
        if outcome.is_err() {
            self.rings[queue].size = before;
        }
        outcome
    }

    pub(super) fn set_addresses(&mut self, request: VringAddresses) -> Result<(), SessionError> {
        let queue = self.queue(Code::SetVringAddr, request.queue)?;
        if request.flags != 0 {
            return Err(SessionError::RingFlags { queue, flags: request.flags });
        }
        let before = self.rings[queue].addresses.replace(request);
        let outcome = self.restart(Code::SetVringAddr, queue);
        if outcome.is_err() {
            self.rings[queue].addresses = before;
            self.start(Code::SetVringAddr, queue)?;
        }
        outcome
    }

    pub(super) fn set_base(&mut self, request: VringState) -> Result<(), SessionError> {
        let queue = self.stopped_queue(Code::SetVringBase, request.queue)?;
        let base = request.number;
        if self.layout() == Some(RingLayout::Split) && base > u32::from(u16::MAX) {
            return Err(SessionError::RingBase { queue, base });
        }
        self.rings[queue].base = base;
        Ok(())
    }

    /// `GET_VRING_BASE`: stops the ring and tells where it goes on.
    pub(super) fn stop(&mut self, queue: u32) -> Result<u32, SessionError> {
        let queue = self.queue(Code::GetVringBase, queue)?;
        self.pause(queue);
        let ring = &mut self.rings[queue];
        (ring.kicked, ring.opened) = (false, false);
        Ok(ring.base)
    }

    /// `SET_VRING_KICK`. Rings are polled, so the descriptor has nothing to tell and is closed, and
    /// the driver's first kick is not waited for. But a ring that was never enabled since does not
    /// start: it would throw away what its driver sent, such as all that waits in it when a
    /// front-end connects again and enables its rings one message after it kicked them off.
    pub(super) fn kick_off(&mut self, request: VringDescriptor) -> Result<(), SessionError> {
        let queue = self.queue(Code::SetVringKick, u32::from(request.queue))?;
        let before = std::mem::replace(&mut self.rings[queue].kicked, true);
        let outcome = self.start(Code::SetVringKick, queue);
        if outcome.is_err() {
            self.rings[queue].kicked = before;
        }
        outcome
    }

    pub(super) fn set_call(&mut self, request: VringDescriptor) -> Result<(), SessionError> {
        let code = Code::SetVringCall;
        let queue = self.queue(code, u32::from(request.queue))?;
        self.rings[queue].call = event(code, queue, request)?.map(Arc::new);
        self.restart(code, queue)
    }

    pub(super) fn set_error(&mut self, request: VringDescriptor) -> Result<(), SessionError> {
        let code = Code::SetVringErr;
        let queue = self.queue(code, u32::from(request.queue))?;
        self.rings[queue].error = event(code, queue, request)?;
        Ok(())
    }

    pub(super) fn enable(&mut self, request: VringState) -> Result<(), SessionError> {
        let queue = self.queue(Code::SetVringEnable, request.queue)?;
        let enabled = match request.number {
            0 => false,
            1 => true,
            value => return Err(SessionError::RingEnable { queue, value }),
        };
        let before = std::mem::replace(&mut self.rings[queue].enabled, enabled);
        if before == enabled {
            return Ok(());
        }
        let outcome = self.restart(Code::SetVringEnable, queue);
        if outcome.is_err() {
            self.rings[queue].enabled = before;
        }
        outcome
    }

    /// Disables all rings.
    pub(super) fn disable_rings(&mut self) -> Result<(), SessionError> {
        for queue in 0..self.rings.len() {
            self.rings[queue].enabled = false;
            self.restart(Code::ResetOwner, queue)?;
        }
        Ok(())
    }

    /// Tells the front-end, if it wants to know, that a ring is broken (vhost-user:
    /// `SET_VRING_ERR`). For a violation that a worker found, before the session is dropped.
    pub fn signal_error(&self, queue: usize) {
        if let Some(error) = self.rings.get(queue).and_then(|ring| ring.error.as_ref()) {
            error.ring();
        }
    }

    /// Starts every ring that waits and can run.
    pub(super) fn start_all(&mut self, code: Code) -> Result<(), SessionError> {
        (0..self.rings.len()).try_for_each(|queue| self.start(code, queue))
    }

    /// Starts a ring if it shall run, does not, and has all that it needs.
    pub(super) fn start(&mut self, code: Code, queue: usize) -> Result<(), SessionError> {
        if self.rings[queue].running {
            return Ok(());
        }
        let Some(config) = self.config(code, queue) else { return Ok(()) };
        self.build(code, queue, config)
    }

    /// What a ring is to be built of, if it shall run and has all that it needs.
    fn config(&self, code: Code, queue: usize) -> Option<VringConfig> {
        let ring = &self.rings[queue];
        let (features, layout) = (self.features?, self.layout()?);
        let (size, addresses) = (ring.size?, ring.addresses?);
        // Without any memory a ring waits for some, unless none is what it was just given.
        let waits = self.memory.regions().next().is_none() && code != Code::SetMemTable;
        if !ring.kicked || ring.lacks().is_some() || waits {
            return None;
        }
        Some(VringConfig {
            layout,
            size,
            descriptors: addresses.descriptors,
            available: addresses.available,
            used: addresses.used,
            base: ring.base,
            event_idx: features & device::RING_EVENT_IDX != 0,
            in_order: features & device::IN_ORDER != 0,
            mergeable: features & device::MRG_RXBUF != 0,
            version_1: features & device::VERSION_1 != 0,
            left: Offloads::left_by(features),
            accepted: Offloads::accepted_by(features),
            enabled: ring.enabled,
            call: ring.call.clone(),
        })
    }

    /// Puts a ring into the device, in place of the one that it may have, from whose position it
    /// goes on. Workers find the old one or the new one, so no frame is lost over it.
    fn build(
        &mut self,
        code: Code,
        queue: usize,
        mut config: VringConfig,
    ) -> Result<(), SessionError> {
        let Self { device, memory, rings, .. } = self;
        let ring = &mut rings[queue];
        let built = device.rebuild_ring(queue, |position| {
            if let Some(position) = position {
                config.base = position.base();
                ring.base = config.base;
            }
            Vring::new(Arc::clone(memory), &config).map(Some)
        });
        ring.running = built.is_ok();
        built.map_err(|source| SessionError::Ring { code, queue, source })?;
        ring.opened = true;
        // Whoever drove this ring before us may have used buffers and died before it interrupted
        // the driver, which would wait for ever. An interrupt too many is harmless.
        if let Some(call) = config.call {
            call.ring();
        }
        Ok(())
    }

    /// Takes a ring from the device, if it has it, and keeps its position. Says whether it had.
    pub(super) fn pause(&mut self, queue: usize) -> bool {
        if let Some(position) = self.device.stop_ring(queue) {
            self.rings[queue].base = position.base();
        }
        std::mem::take(&mut self.rings[queue].running)
    }

    /// Builds a ring anew, or starts it, or stops it if it lacks something now.
    fn restart(&mut self, code: Code, queue: usize) -> Result<(), SessionError> {
        match self.config(code, queue) {
            Some(config) => self.build(code, queue, config),
            None => {
                self.pause(queue);
                Ok(())
            }
        }
    }

    /// How the rings lie in memory, once that is known.
    pub(super) fn layout(&self) -> Option<RingLayout> {
        let packed = self.features? & device::RING_PACKED != 0;
        Some(if packed { RingLayout::Packed } else { RingLayout::Split })
    }

    fn queue(&self, code: Code, queue: u32) -> Result<usize, SessionError> {
        let queues = self.rings.len();
        let index = usize::try_from(queue).ok().filter(|queue| *queue < queues);
        index.ok_or(SessionError::NoQueue { code, queue, queues })
    }

    /// As [`queue`](Self::queue), for what cannot change while the ring runs.
    fn stopped_queue(&self, code: Code, queue: u32) -> Result<usize, SessionError> {
        let queue = self.queue(code, queue)?;
        if self.rings[queue].running {
            return Err(SessionError::RingRuns { code, queue });
        }
        Ok(queue)
    }
}

fn event(code: Code, queue: usize, request: VringDescriptor) -> Result<Option<Call>, SessionError> {
    let event = request.descriptor.map(Call::new).transpose();
    event.map_err(|source| SessionError::Descriptor { code, queue, source })
}
