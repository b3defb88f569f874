//! What a front-end asks, decoded.

use std::os::fd::OwnedFd;

use super::fields::{REGION_BYTES, Reader, exactly, put_region};
use super::{
    Code, DESCRIPTORS_MAX, Header, Message, MessageError, VringAddresses, VringDescriptor,
    VringState,
};
use crate::memory::RegionSpec;

/// A well-formed request that this back-end serves, in the order of the specification's numbers.
#[derive(Debug)]
pub enum Request {
    /// Which device features are offered?
    GetFeatures,
    /// These were accepted.
    SetFeatures(u64),
    /// A session begins.
    SetOwner,
    /// All rings shall be disabled (deprecated).
    ResetOwner,
    /// All of the guest's memory, each region with its file.
    SetMemTable(Vec<(RegionSpec, OwnedFd)>),
    /// A ring's size.
    SetVringNum(VringState),
    /// Where a ring is.
    SetVringAddr(VringAddresses),
    /// Where to go on in a ring.
    SetVringBase(VringState),
    /// A ring shall stop and tell where it stands. The number has no meaning: virtio-user leaves
    /// in it what happened to be there.
    GetVringBase(VringState),
    /// A ring is ready; what its driver kicks, if it does.
    SetVringKick(VringDescriptor),
    /// What interrupts a ring's driver.
    SetVringCall(VringDescriptor),
    /// What tells that a ring is broken.
    SetVringErr(VringDescriptor),
    /// Which protocol features are offered?
    GetProtocolFeatures,
    /// These were accepted.
    SetProtocolFeatures(u64),
    /// How many queue pairs can there be?
    GetQueueNum,
    /// A ring is enabled (1) or disabled (0).
    SetVringEnable(VringState),
    /// Announce this address for the guest.
    SendRarp([u8; 6]),
    /// The MTU that the guest is told.
    NetSetMtu(u64),
    /// Stop everything, forget the driver.
    ResetDevice,
    /// How many memory regions can there be?
    GetMaxMemSlots,
    /// One region more.
    AddMemReg(RegionSpec, OwnedFd),
    /// One region less.
    RemMemReg(RegionSpec),
    /// The device status that the driver wrote (virtio 1.2 §2.1).
    SetStatus(u64),
    /// The device status as we have it.
    GetStatus,
}

impl Request {
    /// Takes a message apart. Descriptors that do not belong to it are closed.
    pub fn decode(message: Message) -> Result<Self, MessageError> {
        let Message { header, payload, descriptors } = message;
        let code = Code::try_from(header.code)?;
        if header.reply {
            let (found, wanted) = ("reply", "request");
            return Err(MessageError::Direction { code: header.code, found, wanted });
        }
        if let Some(feature) = code.unoffered_feature() {
            return Err(MessageError::NotOffered { code, feature });
        }
        let payload = payload.as_slice();
        match code {
            Code::SetMemTable => return table(code, payload, descriptors),
            Code::AddMemReg => {
                let region = slot(code, payload)?;
                let file = exactly(code, descriptors, 1)?.remove(0);
                return Ok(Self::AddMemReg(region, file));
            }
            Code::RemMemReg => {
                // Front-ends exist that send the region's file along. It may be accepted and must
                // be closed (vhost-user: `REM_MEM_REG`).
                let expected = descriptors.len().min(1);
                exactly(code, descriptors, expected)?;
                return Ok(Self::RemMemReg(slot(code, payload)?));
            }
            Code::SetVringKick => {
                return VringDescriptor::decode(code, payload, descriptors).map(Self::SetVringKick);
            }
            Code::SetVringCall => {
                return VringDescriptor::decode(code, payload, descriptors).map(Self::SetVringCall);
            }
            Code::SetVringErr => {
                return VringDescriptor::decode(code, payload, descriptors).map(Self::SetVringErr);
            }
            _ => exactly(code, descriptors, 0)?,
        };
        let nothing = |request| Reader::new(code, payload, 0).map(|_| request);
        let number = || Reader::new(code, payload, 8).map(|mut reader| reader.u64());
        let state = || VringState::decode(code, payload);
        match code {
            Code::GetFeatures => nothing(Self::GetFeatures),
            Code::SetFeatures => number().map(Self::SetFeatures),
            Code::SetOwner => nothing(Self::SetOwner),
            Code::ResetOwner => nothing(Self::ResetOwner),
            Code::SetVringNum => state().map(Self::SetVringNum),
            Code::SetVringAddr => VringAddresses::decode(code, payload).map(Self::SetVringAddr),
            Code::SetVringBase => state().map(Self::SetVringBase),
            Code::GetVringBase => state().map(Self::GetVringBase),
            Code::GetProtocolFeatures => nothing(Self::GetProtocolFeatures),
            Code::SetProtocolFeatures => number().map(Self::SetProtocolFeatures),
            Code::GetQueueNum => nothing(Self::GetQueueNum),
            Code::SetVringEnable => state().map(Self::SetVringEnable),
            Code::SendRarp => {
                // The address is the first six bytes, whatever the machine's byte order.
                let [a, b, c, d, e, f, _, _] = number()?.to_ne_bytes();
                Ok(Self::SendRarp([a, b, c, d, e, f]))
            }
            Code::NetSetMtu => number().map(Self::NetSetMtu),
            Code::ResetDevice => nothing(Self::ResetDevice),
            Code::GetMaxMemSlots => nothing(Self::GetMaxMemSlots),
            Code::SetStatus => number().map(Self::SetStatus),
            Code::GetStatus => nothing(Self::GetStatus),
            // The rest was dealt with above: taken apart there, or not offered.
            _ => Err(MessageError::Unknown(header.code)),
        }
    }

    /// Its number and name.
    pub fn code(&self) -> Code {
        match self {
            Self::GetFeatures => Code::GetFeatures,
            Self::SetFeatures(_) => Code::SetFeatures,
            Self::SetOwner => Code::SetOwner,
            Self::ResetOwner => Code::ResetOwner,
            Self::SetMemTable(_) => Code::SetMemTable,
            Self::SetVringNum(_) => Code::SetVringNum,
            Self::SetVringAddr(_) => Code::SetVringAddr,
            Self::SetVringBase(_) => Code::SetVringBase,
            Self::GetVringBase(_) => Code::GetVringBase,
            Self::SetVringKick(_) => Code::SetVringKick,
            Self::SetVringCall(_) => Code::SetVringCall,
            Self::SetVringErr(_) => Code::SetVringErr,
            Self::GetProtocolFeatures => Code::GetProtocolFeatures,
            Self::SetProtocolFeatures(_) => Code::SetProtocolFeatures,
            Self::GetQueueNum => Code::GetQueueNum,
            Self::SetVringEnable(_) => Code::SetVringEnable,
            Self::SendRarp(_) => Code::SendRarp,
            Self::NetSetMtu(_) => Code::NetSetMtu,
            Self::ResetDevice => Code::ResetDevice,
            Self::GetMaxMemSlots => Code::GetMaxMemSlots,
            Self::AddMemReg(..) => Code::AddMemReg,
            Self::RemMemReg(_) => Code::RemMemReg,
            Self::SetStatus(_) => Code::SetStatus,
            Self::GetStatus => Code::GetStatus,
        }
    }

    /// The message that [`decode`](Self::decode) takes apart. With `need_reply` its sender waits
    /// for an acknowledgement.
    pub fn encode(self, need_reply: bool) -> Message {
        let code = self.code();
        let mut descriptors = Vec::new();
        let payload = match self {
            Self::GetFeatures
            | Self::SetOwner
            | Self::ResetOwner
            | Self::GetProtocolFeatures
            | Self::GetQueueNum
            | Self::ResetDevice
            | Self::GetMaxMemSlots
            | Self::GetStatus => Vec::new(),
            Self::SetFeatures(number)
            | Self::SetProtocolFeatures(number)
            | Self::NetSetMtu(number)
            | Self::SetStatus(number) => number.to_ne_bytes().to_vec(),
            Self::SetVringNum(state)
            | Self::SetVringBase(state)
            | Self::GetVringBase(state)
            | Self::SetVringEnable(state) => state.encode(),
            Self::SetVringAddr(addresses) => addresses.encode(),
            Self::SetVringKick(ring) | Self::SetVringCall(ring) | Self::SetVringErr(ring) => {
                let (payload, descriptor) = ring.encode();
                descriptors = descriptor;
                payload
            }
            Self::SendRarp([a, b, c, d, e, f]) => vec![a, b, c, d, e, f, 0, 0],
            Self::SetMemTable(regions) => {
                let mut payload = [(regions.len() as u32).to_ne_bytes(), [0; 4]].concat();
                for (region, file) in regions {
                    put_region(&mut payload, &region);
                    descriptors.push(file);
                }
                payload
            }
            Self::AddMemReg(region, file) => {
                descriptors.push(file);
                encode_slot(&region)
            }
            Self::RemMemReg(region) => encode_slot(&region),
        };
        let payload_bytes = payload.len();
        let header = Header { code: code as u32, reply: false, need_reply, payload_bytes };
        Message { header, payload, descriptors }
    }
}

/// vhost-user: "Multiple Memory regions description". One file for each region, in their order.
fn table(code: Code, payload: &[u8], descriptors: Vec<OwnedFd>) -> Result<Request, MessageError> {
    let bytes = payload.len();
    let (count, regions) = payload.split_at_checked(8).unwrap_or((payload, &[]));
    let count = Reader::new(code, count, 8)
        .map_err(|_| MessageError::PayloadBytes { code, bytes, expected: 8 + REGION_BYTES })?
        .u32();
    if count as usize > DESCRIPTORS_MAX {
        return Err(MessageError::Regions { code, regions: count });
    }
    let count = count as usize;
    let mut reader = Reader::new(code, regions, REGION_BYTES * count).map_err(|_| {
        MessageError::PayloadBytes { code, bytes, expected: 8 + REGION_BYTES * count }
    })?;
    let files = exactly(code, descriptors, count)?;
    Ok(Request::SetMemTable(files.into_iter().map(|file| (reader.region(), file)).collect()))
}

/// vhost-user: "Single memory region description", behind eight bytes of padding.
fn slot(code: Code, payload: &[u8]) -> Result<RegionSpec, MessageError> {
    let mut reader = Reader::new(code, payload, 8 + REGION_BYTES)?;
    reader.u64();
    Ok(reader.region())
}

fn encode_slot(region: &RegionSpec) -> Vec<u8> {
    let mut payload = vec![0; 8];
    put_region(&mut payload, region);
    payload
}
