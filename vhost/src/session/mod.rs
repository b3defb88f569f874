//! One front-end's session: what it asked for, and what of the guest runs because of it.
//!
//! [`Session::handle`] takes a message and gives the reply that is due, without any I/O of its own.
//! It decides when a ring may be used: rings are handed to the [`Device`] when all that they need
//! has come, taken back before anything that they rest on changes, and all of them are taken back
//! when the session is dropped, before the guest's memory is unmapped.
//!
//! Requests are served in whatever order they come. A ring starts when it has been kicked off by
//! `SET_VRING_KICK` and enabled, has a size and addresses, the driver's features are known and
//! there is memory; until then it waits, and [`Session::summary`] says for what.
//!
//! A request that cannot be served changes nothing. If a correct front-end can run into that (see
//! [`SessionError::is_refusal`]) and waits for an acknowledgement, it is told and the session goes
//! on; otherwise the session ends with the error as its reason. Requests of a protocol feature that
//! was offered are served whether or not it was acknowledged: the specification asks for the offer
//! here and for the acknowledgement there, and nobody is harmed.

mod error;
mod image;
mod memory;
mod rings;
mod summary;

#[cfg(test)]
mod tests;

pub use error::SessionError;
pub use image::{ImageError, SessionImage, Side};
pub use summary::{RingState, RingSummary, SessionSummary};

use std::sync::Arc;

use crate::device::Device;
use crate::features;
use crate::memory::{GuestMemory, REGIONS_MAX};
use crate::message::{Code, Message, Reply, ReplyBody, Request, VringState};
use rings::Ring;

/// The least MTU that a device may report (virtio 1.2 §5.1.4.1).
const MTU_MIN: u16 = 68;

/// What the switch wants of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionOptions {
    /// The largest MTU that the guest may be told, which is its network's; any if not given.
    pub mtu_max: Option<u16>,
}

/// A session's state. See the [module's head](self).
#[derive(Debug)]
pub struct Session {
    device: Arc<Device>,
    options: SessionOptions,
    /// Device features that were accepted; none before `SET_FEATURES`.
    features: Option<u64>,
    protocol_features: u64,
    /// The device status that the driver wrote (virtio 1.2 §2.1).
    status: u8,
    mtu: Option<u16>,
    memory: Arc<GuestMemory>,
    rings: Vec<Ring>,
    /// What was refused last while the session went on.
    refusal: Option<String>,
}

impl Session {
    /// A session in which nothing was said yet. One device has one session at a time.
    pub fn new(device: Arc<Device>, options: SessionOptions) -> Self {
        let rings = (0..2 * usize::from(device.pairs_max())).map(|_| Ring::default()).collect();
        // What a worker found wrong with an earlier session's rings is not this one's fault.
        device.take_violation();
        Self {
            device,
            options,
            features: None,
            protocol_features: 0,
            status: 0,
            mtu: None,
            memory: Arc::default(),
            rings,
            refusal: None,
        }
    }

    /// Serves a message. After an error the session is to be dropped; the error is the reason.
    pub fn handle(&mut self, message: Message) -> Result<Option<Reply>, SessionError> {
        let need_reply = message.header.need_reply;
        let code = Code::try_from(message.header.code)?;
        let outcome =
            Request::decode(message).map_err(SessionError::from).and_then(|it| self.serve(it));
        // Asked afterwards, since the request may have been the one that negotiates it.
        let acknowledge = need_reply
            && !code.has_reply()
            && self.protocol_features & features::protocol::REPLY_ACK != 0;
        match outcome {
            Ok(None) if acknowledge => Ok(Some(Reply::acknowledge(code, true))),
            Ok(reply) => Ok(reply),
            Err(error) if acknowledge && error.is_refusal() => {
                self.refusal = Some(error.to_string());
                Ok(Some(Reply::acknowledge(code, false)))
            }
            Err(error) => Err(error),
        }
    }

    /// Changes [`SessionOptions::mtu_max`]. What the guest was told before it goes on believing.
    pub fn limit_mtu(&mut self, max: Option<u16>) {
        self.options.mtu_max = max;
    }

    /// The device that it drives.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether at least one queue pair moves frames both ways.
    pub fn is_ready(&self) -> bool {
        let moves = |ring: &Ring| ring.running && ring.enabled;
        self.rings.chunks_exact(2).any(|pair| pair.iter().all(moves))
    }

    /// Queue pairs up to the last one of which the front-end wants a ring to run.
    pub fn pairs_used(&self) -> u16 {
        let last = self.rings.iter().rposition(|ring| ring.kicked);
        last.map_or(0, |queue| (queue / 2 + 1) as u16)
    }

    /// The MTU that the guest is told, if the front-end said.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// What was refused last while the session went on, and why.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn serve(&mut self, request: Request) -> Result<Option<Reply>, SessionError> {
        let code = request.code();
        match request {
            Request::GetFeatures => {
                return Ok(Some(Reply::number(code, self.device_offer())));
            }
            Request::SetFeatures(features) => self.accept_features(features)?,
            // Tells nothing that the connection itself did not.
            Request::SetOwner => {}
            // Deprecated; "use it to disable all rings", says the specification.
            Request::ResetOwner => self.disable_rings()?,
            Request::SetMemTable(regions) => self.replace_table(regions)?,
            Request::SetVringNum(ring) => self.set_size(ring)?,
            Request::SetVringAddr(ring) => self.set_addresses(ring)?,
            Request::SetVringBase(ring) => self.set_base(ring)?,
            Request::GetVringBase(ring) => {
                let number = self.stop(ring.queue)?;
                let body = ReplyBody::Vring(VringState { queue: ring.queue, number });
                return Ok(Some(Reply { code, body }));
            }
            Request::SetVringKick(ring) => self.kick_off(ring)?,
            Request::SetVringCall(ring) => self.set_call(ring)?,
            Request::SetVringErr(ring) => self.set_error(ring)?,
            Request::GetProtocolFeatures => {
                return Ok(Some(Reply::number(code, self.protocol_offer())));
            }
            Request::SetProtocolFeatures(features) => self.accept_protocol_features(features)?,
            // In pairs: see `features::protocol_offer`.
            Request::GetQueueNum => {
                return Ok(Some(Reply::number(code, u64::from(self.device.pairs_max()))));
            }
            Request::SetVringEnable(ring) => self.enable(ring)?,
            Request::SendRarp(mac) => self.device.announce(mac),
            Request::NetSetMtu(mtu) => self.set_mtu(mtu)?,
            Request::ResetDevice => self.reset(),
            Request::GetMaxMemSlots => return Ok(Some(Reply::number(code, REGIONS_MAX as u64))),
            Request::AddMemReg(region, file) => self.add_region(region, file)?,
            Request::RemMemReg(region) => self.remove_region(region)?,
            Request::SetStatus(status) => self.set_status(status)?,
            Request::GetStatus => return Ok(Some(Reply::number(code, u64::from(self.status)))),
        }
        Ok(None)
    }

    fn device_offer(&self) -> u64 {
        features::device_offer(self.device.pairs_max())
    }

    fn protocol_offer(&self) -> u64 {
        features::protocol_offer(self.device.pairs_max())
    }

    fn accept_features(&mut self, features: u64) -> Result<(), SessionError> {
        let strange = features & !self.device_offer();
        if strange != 0 {
            let names = features::device_names(strange).join(", ");
            return Err(SessionError::FeaturesNotOffered { code: Code::SetFeatures, names });
        }
        // A front-end with several queue pairs repeats itself for each of them.
        if self.features != Some(features)
            && let Some(queue) = self.rings.iter().position(|ring| ring.running)
        {
            return Err(SessionError::RingRuns { code: Code::SetFeatures, queue });
        }
        self.features = Some(features);
        if features & features::device::PROTOCOL_FEATURES == 0 {
            // No `SET_VRING_ENABLE` will come (vhost-user: "Ring states").
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        self.start_all(Code::SetFeatures)
    }

    fn accept_protocol_features(&mut self, features: u64) -> Result<(), SessionError> {
        let strange = features & !self.protocol_offer();
        if strange != 0 {
            let names = features::protocol_names(strange).join(", ");
            return Err(SessionError::FeaturesNotOffered {
                code: Code::SetProtocolFeatures,
                names,
            });
        }
        self.protocol_features = features;
        Ok(())
    }

    fn set_mtu(&mut self, mtu: u64) -> Result<(), SessionError> {
        let max = self.options.mtu_max.unwrap_or(u16::MAX);
        let fits = u16::try_from(mtu).ok().filter(|mtu| (MTU_MIN..=max).contains(mtu));
        self.mtu = Some(fits.ok_or(SessionError::Mtu { mtu, max })?);
        Ok(())
    }

    /// The status is kept for `GET_STATUS` and for show; nothing follows from it. A driver that
    /// writes 0 resets its device, but then its front-end stops the rings by `GET_VRING_BASE`.
    fn set_status(&mut self, status: u64) -> Result<(), SessionError> {
        self.status = u8::try_from(status).map_err(|_| SessionError::Status { status })?;
        Ok(())
    }

    /// `RESET_DEVICE`: forgets the driver. Memory, protocol features and descriptors stay: they
    /// are the front-end's, which does not send them again (QEMU keeps account of its slots).
    fn reset(&mut self) {
        for queue in 0..self.rings.len() {
            self.pause(queue);
            self.rings[queue].reset();
        }
        self.features = None;
        self.status = 0;
        self.mtu = None;
    }
}

impl Drop for Session {
    /// Takes all rings back, and with the last reference unmaps the guest's memory.
    fn drop(&mut self) {
        for queue in 0..self.rings.len() {
            self.pause(queue);
        }
    }
}
