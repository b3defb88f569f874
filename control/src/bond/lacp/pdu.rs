//! LACPDUs and marker PDUs as they are on the wire (802.1AX-2020 §6.4.2, §6.5.3).
//!
//! What comes is a partner's word, or anybody's who can reach the link: it is checked here as a whole,
//! and what does not make sense is refused with the reason.

use dataplane::port::bond::slow::{ETHERTYPE, GROUP};
use serde::{Deserialize, Serialize};

/// Octets of an LACPDU with its Ethernet header, without the check sequence.
pub(crate) const FRAME_BYTES: usize = 124;

/// The subtypes of slow protocols (802.3 table 57A-2).
const LACP: u8 = 1;
const MARKER: u8 = 2;

/// Octets of an Ethernet header.
const HEADER_BYTES: usize = 14;

/// Types and lengths of the fields (§6.4.2.3, §6.5.3.3).
const ACTOR: [u8; 2] = [1, 20];
const PARTNER: [u8; 2] = [2, 20];
const COLLECTOR: [u8; 2] = [3, 16];
const MARKER_INFORMATION: [u8; 2] = [1, 16];
const MARKER_RESPONSE: u8 = 2;

/// A system, as the ends of links tell each other apart: the lower one is the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct System {
    pub(crate) priority: u16,
    pub(crate) mac: [u8; 6],
}

/// A port as one end of its link tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Information {
    pub(crate) system: System,
    /// Ports of a system with the same key can be aggregated.
    pub(crate) key: u16,
    pub(crate) port_priority: u16,
    pub(crate) port: u16,
    pub(crate) state: State,
}

/// The state of a port, a bit for each of its words (§6.4.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State(pub(crate) u8);

impl State {
    /// It sends LACPDUs unasked.
    pub(crate) const ACTIVITY: State = State(1);
    /// It wants one a second, and not one every 30 seconds.
    pub(crate) const TIMEOUT: State = State(1 << 1);
    /// It can be aggregated with others.
    pub(crate) const AGGREGATION: State = State(1 << 2);
    /// It is in the aggregation that it is to be in.
    pub(crate) const SYNCHRONIZATION: State = State(1 << 3);
    /// It takes frames.
    pub(crate) const COLLECTING: State = State(1 << 4);
    /// It sends frames.
    pub(crate) const DISTRIBUTING: State = State(1 << 5);
    /// It has nothing of a partner but what is assumed.
    pub(crate) const DEFAULTED: State = State(1 << 6);
    /// Its partner was not heard for too long.
    pub(crate) const EXPIRED: State = State(1 << 7);

    /// Whether all bits of another are set.
    pub(crate) fn has(self, other: State) -> bool {
        self.0 & other.0 == other.0
    }

    /// With these bits set, or not.
    pub(crate) fn with(self, bits: State, set: bool) -> State {
        State(if set { self.0 | bits.0 } else { self.0 & !bits.0 })
    }

    /// The bits of `mask` that are set.
    pub(crate) fn only(self, mask: State) -> State {
        State(self.0 & mask.0)
    }

    /// The bits in words, as operators of switches know them.
    pub(crate) fn words(self) -> Vec<&'static str> {
        let words = [
            (Self::ACTIVITY, "active"),
            (Self::TIMEOUT, "fast"),
            (Self::AGGREGATION, "aggregatable"),
            (Self::SYNCHRONIZATION, "in-sync"),
            (Self::COLLECTING, "collecting"),
            (Self::DISTRIBUTING, "distributing"),
            (Self::DEFAULTED, "defaulted"),
            (Self::EXPIRED, "expired"),
        ];
        words.into_iter().filter(|(bit, _)| self.has(*bit)).map(|(_, word)| word).collect()
    }
}

/// What both ends of a link know, as one of them tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lacpdu {
    /// Who sends it.
    pub(crate) actor: Information,
    /// What the sender knows of who is to receive it.
    pub(crate) partner: Information,
}

/// A frame of slow protocols that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlowPdu {
    Lacp(Lacpdu),
    /// A marker, and the frame that answers it, but for its source address (§6.5.4).
    Marker([u8; FRAME_BYTES]),
    /// The answer to a marker, which nobody here sends.
    MarkerResponse,
}

/// Why a frame of slow protocols is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it ends after {0} octets of {FRAME_BYTES}")]
    Short(usize),
    #[error("it is of no slow protocol")]
    Stranger,
    #[error("the {0} information is not where version 1 has it")]
    Field(&'static str),
    #[error("it comes from a system without an address of its own")]
    NoSystem,
}

impl Lacpdu {
    /// The frame, from this address.
    pub(crate) fn frame(&self, source: [u8; 6]) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let mut writer = Writer(&mut frame);
        writer.put(&GROUP);
        writer.put(&source);
        writer.put(&ETHERTYPE.to_be_bytes());
        // The subtype, and the version.
        writer.put(&[LACP, 1]);
        for (head, information) in [(ACTOR, &self.actor), (PARTNER, &self.partner)] {
            writer.put(&head);
            writer.information(information);
        }
        // No delay of a collector; the rest is the terminator, and reserved.
        writer.put(&COLLECTOR);
        frame
    }
}

impl SlowPdu {
    /// Reads a frame from its MAC addresses on. Of an LACPDU the version is not looked at: later ones
    /// have all of version 1 where it is in version 1 (§6.4.2.3).
    pub(crate) fn parse(frame: &[u8]) -> Result<SlowPdu, Malformed> {
        let whole: &[u8; FRAME_BYTES] = frame.first_chunk().ok_or(Malformed::Short(frame.len()))?;
        if whole[..6] != GROUP || whole[12..14] != ETHERTYPE.to_be_bytes() {
            return Err(Malformed::Stranger);
        }
        let body = &whole[HEADER_BYTES..];
        match body[0] {
            LACP => {
                let (actor, partner) = (&body[2..22], &body[22..42]);
                if actor[..2] != ACTOR {
                    return Err(Malformed::Field("actor's"));
                }
                if partner[..2] != PARTNER {
                    return Err(Malformed::Field("partner's"));
                }
                let pdu = Lacpdu { actor: information(actor), partner: information(partner) };
                let mac = pdu.actor.system.mac;
                if mac[0] & 1 == 1 || mac == [0; 6] {
                    return Err(Malformed::NoSystem);
                }
                Ok(SlowPdu::Lacp(pdu))
            }
            MARKER => match [body[2], body[3]] {
                MARKER_INFORMATION => {
                    let mut answer = *whole;
                    answer[HEADER_BYTES + 2] = MARKER_RESPONSE;
                    Ok(SlowPdu::Marker(answer))
                }
                [MARKER_RESPONSE, 16] => Ok(SlowPdu::MarkerResponse),
                _ => Err(Malformed::Field("marker's")),
            },
            _ => Err(Malformed::Stranger),
        }
    }
}

/// The fields behind the two octets of type and length.
fn information(field: &[u8]) -> Information {
    let number = |at: usize| u16::from_be_bytes([field[at], field[at + 1]]);
    let mut mac = [0; 6];
    mac.copy_from_slice(&field[4..10]);
    Information {
        system: System { priority: number(2), mac },
        key: number(10),
        port_priority: number(12),
        port: number(14),
        state: State(field[16]),
    }
}

/// The rest of a frame that is written from its front.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.0);
        let (now, later) = rest.split_at_mut(bytes.len());
        now.copy_from_slice(bytes);
        self.0 = later;
    }

    fn information(&mut self, information: &Information) {
        let Information { system, key, port_priority, port, state } = information;
        self.put(&system.priority.to_be_bytes());
        self.put(&system.mac);
        self.put(&key.to_be_bytes());
        self.put(&port_priority.to_be_bytes());
        self.put(&port.to_be_bytes());
        // The state, and three octets that are reserved.
        self.put(&[state.0, 0, 0, 0]);
    }
}
