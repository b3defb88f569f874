//! The decision: where a frame goes, or why it is dropped. Pure but for what the FDB learns.

use crate::counters::DropReason;
use crate::fdb::{Learner, Place};
use crate::headers::{Headers, Tag};
use crate::snapshot::{Attachment, Domain, Port, PortId, Snapshot};

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
pub enum Egress<'a> {
    /// To one port.
    Port(PortId, &'a Domain),
    /// To every port of the domain but the one it came from.
    Flood(&'a Domain),
}

/// Decides what becomes of one frame that came in by `port`, whose number is `ingress`. What the port
/// may send, and what the ports may be sent that the frame goes to, their policies say.
#[inline(always)]
pub fn decide<'a>(
    headers: &Headers,
    ingress: PortId,
    port: &Port,
    snapshot: &'a Snapshot,
    fdb: &mut Learner<'_>,
) -> Result<Egress<'a>, DropReason> {
    let domain = accept(headers, port, snapshot)?;
    learn(fdb.place(domain.id, headers.source), ingress, domain, snapshot, fdb);
    find(fdb.place(domain.id, headers.destination), ingress, domain, snapshot, fdb)
}

/// Takes note of where an address of a domain was heard. One that desired state has given to a port is
/// not learned, wherever it is heard: it is where it was configured, whoever claims it.
#[inline(always)]
pub fn learn(
    source: Place,
    ingress: PortId,
    domain: &Domain,
    snapshot: &Snapshot,
    fdb: &mut Learner<'_>,
) {
    if domain.learning && snapshot.stations().find(source).is_none() {
        fdb.learn(source, ingress);
    }
}

/// Whether a frame may come in by `port`, and to which domain.
#[inline(always)]
pub fn accept<'a>(
    headers: &Headers,
    port: &Port,
    snapshot: &'a Snapshot,
) -> Result<&'a Domain, DropReason> {
    let domain = classify(port, headers.tag, snapshot)?;
    if headers.source.is_group() || headers.source.bits() == 0 {
        return Err(DropReason::BadSource);
    }
    if headers.destination.is_reserved() {
        return Err(DropReason::ReservedGroup);
    }
    if headers.bytes > domain.frame_bytes_max(headers.tag.is_some()) {
        return Err(DropReason::OverMtu);
    }
    Ok(domain)
}

/// Where a frame of a domain goes that is for the address of this place. Nothing is learned.
#[inline(always)]
pub fn find<'a>(
    destination: Place,
    ingress: PortId,
    domain: &'a Domain,
    snapshot: &'a Snapshot,
    fdb: &Learner<'_>,
) -> Result<Egress<'a>, DropReason> {
    if destination.mac().is_group() {
        return flood(domain);
    }
    let mut known = snapshot.stations().find(destination);
    if known.is_none() {
        // The FDB only hints where to; membership in the snapshot decides whether.
        known = fdb.lookup(destination).filter(|port| snapshot.is_member(*port, domain));
    }
    match known {
        Some(port) if port == ingress => Err(DropReason::Hairpin),
        Some(port) => Ok(Egress::Port(port, domain)),
        None if domain.flooding => flood(domain),
        None => Err(DropReason::NoFlooding),
    }
}

/// Has fetched what [`decide`] will look up in the FDB for a frame that came in by `port`.
#[inline(always)]
pub fn foresee(headers: &Headers, port: &Port, snapshot: &Snapshot, fdb: &Learner<'_>) {
    if let Ok(domain) = classify(port, headers.tag, snapshot) {
        fdb.prefetch(fdb.place(domain.id, headers.source));
        fdb.prefetch(fdb.place(domain.id, headers.destination));
    }
}

/// Which bridge domain a frame with this first tag belongs to when it comes in by `port`.
#[inline(always)]
fn classify<'a>(
    port: &Port,
    tag: Option<Tag>,
    snapshot: &'a Snapshot,
) -> Result<&'a Domain, DropReason> {
    if !port.up {
        return Err(DropReason::PortDown);
    }
    let (domain, missing) = match (&port.attachment, tag) {
        (Attachment::Access(domain), None) => (Some(*domain), DropReason::PortDown),
        // A tag without a VLAN carries a priority and leaves the frame untagged (802.1Q §6.9.1).
        (Attachment::Access(domain), Some(tag)) if tag.vid() == 0 && !tag.service => {
            (Some(*domain), DropReason::PortDown)
        }
        (Attachment::Access(_), Some(_)) => (None, DropReason::TaggedOnAccess),
        (Attachment::Uplink(uplink), None) => (uplink.untagged(), DropReason::Untagged),
        (Attachment::Uplink(_), Some(tag)) if tag.service => (None, DropReason::UnknownVlan),
        (Attachment::Uplink(uplink), Some(tag)) if tag.vid() == 0 => {
            (uplink.untagged(), DropReason::Untagged)
        }
        (Attachment::Uplink(uplink), Some(tag)) => {
            (uplink.tagged(tag.vid()), DropReason::UnknownVlan)
        }
    };
    domain.and_then(|domain| snapshot.domain(domain)).ok_or(missing)
}

#[inline(always)]
fn flood(domain: &Domain) -> Result<Egress<'_>, DropReason> {
    // The frame's own port is a member, so it takes two.
    if domain.members.len() < 2 { Err(DropReason::NoListener) } else { Ok(Egress::Flood(domain)) }
}
