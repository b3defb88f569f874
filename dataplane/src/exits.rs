//! From decisions to lanes: where it was decided that the frames of a burst go.

use vhost::{BURST_MAX, TagEdit};

use crate::counters::{DropReason, WorkerCounters};
use crate::decide::Egress;
use crate::outbox::Outbox;
use crate::snapshot::{Domain, PortId};

/// See the [module's head](self). Of the frames that came in by one port.
#[derive(Clone, Copy)]
pub(crate) struct Exits<'a> {
    pub ingress: PortId,
    pub counters: &'a WorkerCounters,
}

impl Exits<'_> {
    /// Puts a frame into the lanes of the ports that it goes to. `edit` says what happens there to its
    /// tag.
    #[inline(always)]
    pub fn stage(
        &self,
        index: u8,
        egress: Egress<'_>,
        outbox: &mut Outbox,
        edit: impl Fn(&Domain, PortId) -> TagEdit,
    ) {
        match egress {
            Egress::Port(to, domain) => outbox.push(to, index, edit(domain, to)),
            Egress::Flood(domain) => {
                self.counters.of(self.ingress).flooded();
                outbox.flood(index);
                for to in domain.members.iter().filter(|to| **to != self.ingress) {
                    outbox.push(*to, index, edit(domain, *to));
                }
            }
        }
    }

    /// Asks `decide` about each of the `wanted` frames of a domain, a bit for each by its index, none of
    /// which has a tag, and puts them into lanes. Tells of each that is dropped why.
    #[inline(always)]
    pub fn stage_untagged<'a>(
        &self,
        wanted: u64,
        domain: &Domain,
        outbox: &mut Outbox,
        mut decide: impl FnMut(usize) -> Result<Egress<'a>, DropReason>,
        mut dropped: impl FnMut(usize, DropReason),
    ) {
        let (mut ports, mut others) = ([0; BURST_MAX], 0);
        let mut rest = wanted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            match decide(index) {
                Ok(Egress::Port(to, _)) => {
                    ports[index] = to.index() as u16;
                    continue;
                }
                Ok(flood) => self.stage(index as u8, flood, outbox, |_, _| TagEdit::Keep),
                Err(reason) => dropped(index, reason),
            }
            others |= 1 << index;
        }
        outbox.push_all(wanted & !others, &ports);
        // All of them get the same tag, and at one port only.
        if let Some((uplink, _)) = domain.uplink {
            let tag = domain.tag_edit(None, uplink);
            if tag != TagEdit::Keep {
                outbox.edit(uplink, wanted, tag);
            }
        }
    }
}
