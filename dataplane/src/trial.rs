//! What would become of a frame: the worker's own steps, one by one, with nothing learned, counted or
//! sent. A worker takes them burst by burst (`pass`, `outbox`), with the same outcome.

use vhost::{HEAD_MAX, TagEdit};

use crate::counters::DropReason;
use crate::decide::{Egress, accept, find};
use crate::fdb::Learner;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::snapshot::{Domain, Port, PortId, Snapshot};

/// A frame that nobody sent.
#[derive(Debug)]
pub struct Trial<'a> {
    head: &'a [u8],
    headers: Headers,
    packet: Packet,
}

/// Where a frame that came in would go.
#[derive(Debug)]
pub struct Course<'a> {
    /// The bridge domain that it is in.
    pub domain: &'a Domain,
    /// Whether it goes to all other ports of it.
    pub flooded: bool,
    /// Each port, with what happens to the frame's tag there, or why the port is not sent it.
    pub to: Vec<(PortId, Result<TagEdit, DropReason>)>,
}

impl<'a> Trial<'a> {
    /// Of these octets, complete as they are.
    pub fn new(frame: &'a [u8]) -> Result<Self, DropReason> {
        let head = &frame[..frame.len().min(HEAD_MAX)];
        let headers = Headers::parse_head(head, frame.len())?;
        let packet = Packet::parse(head, &headers);
        Ok(Self { head, headers, packet })
    }

    /// The packet in it.
    pub fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Decides about the frame as one that came in by `ingress`.
    pub fn run<'s>(
        &self,
        ingress: PortId,
        snapshot: &'s Snapshot,
        fdb: &Learner<'_>,
    ) -> Result<Course<'s>, DropReason> {
        let port = snapshot.port(ingress).ok_or(DropReason::PortDown)?;
        let domain = accept(&self.headers, port, snapshot)?;
        if let Some(policy) = &port.policy {
            policy.leave(self.head, &self.headers, &self.packet)?;
        }
        let enter = |to: PortId| {
            let tag = domain.tag_edit(self.headers.tag, to);
            (to, self.enter(to, snapshot).map(|()| tag))
        };
        let destination = fdb.place(domain.id, self.headers.destination);
        Ok(match find(destination, ingress, domain, snapshot, fdb)? {
            Egress::Port(to, _) => Course { domain, flooded: false, to: vec![enter(to)] },
            Egress::Flood(_) => {
                let others = domain.members.iter().copied().filter(|to| *to != ingress);
                Course { domain, flooded: true, to: others.map(enter).collect() }
            }
        })
    }

    /// Whether `to` may be sent the frame, wherever it came from.
    pub fn enter(&self, to: PortId, snapshot: &Snapshot) -> Result<(), DropReason> {
        match snapshot.port(to) {
            Some(Port { up: true, policy: Some(policy), .. }) => policy.enter(&self.packet),
            Some(Port { up: true, policy: None, .. }) => Ok(()),
            _ => Err(DropReason::PortDown),
        }
    }
}
