//! Metrics of bonds of uplinks.

use std::fmt;

use super::families::{Figures, flag, with};
use super::page::{Labels, Page};
use crate::show::view::{BondMemberView, BondView, LinkView};

impl Figures {
    pub(super) fn bonds(&self, page: &mut Page<'_>) -> fmt::Result {
        let bond = |view: &BondView| -> Labels { vec![("physnet", view.physnet.to_string())] };
        let bonds =
            |value: fn(&BondView) -> u64| self.bonds.iter().map(move |it| (bond(it), value(it)));
        let members = || {
            let of = |view: &BondView, member: &BondMemberView| {
                with(bond(view), "device", member.device.clone())
            };
            self.bonds.iter().flat_map(move |view| {
                view.members.iter().map(move |member| (of(view, member), member))
            })
        };
        page.counters(
            "bond_failovers",
            "Times that another member of the physnet's bond took over.",
            bonds(|view| view.failovers),
        )?;
        page.counters(
            "bond_outages",
            "Times that no member of the bond was left.",
            bonds(|view| view.outages),
        )?;
        page.gauges(
            "bond_member_up",
            "1 if the member's link is up.",
            members().map(|(labels, member)| (labels, flag(member.link == LinkView::Up))),
        )?;
        page.gauges(
            "bond_member_carries",
            "1 if the member carries frames.",
            members().map(|(labels, member)| (labels, flag(member.carries))),
        )?;
        page.counters(
            "bond_member_link_losses",
            "Times that the member's link was lost.",
            members().map(|(labels, member)| (labels, member.losses)),
        )?;
        let frames = members().flat_map(|(labels, member)| {
            let ways = [
                ("received", member.received_frames),
                ("sent", member.sent_frames),
                ("ignored", member.ignored_frames),
            ];
            ways.map(|(way, frames)| (with(labels.clone(), "direction", way), frames))
        });
        page.counters(
            "bond_member_frames",
            "Frames that the member's device received and sent, by its own count, and those received \
             that were ignored, as it carried nothing.",
            frames,
        )?;
        let lacp =
            || members().filter_map(|(labels, member)| Some((labels, member.lacp.as_ref()?)));
        page.gauges(
            "bond_member_lacp_partner",
            "1 if the member's partner speaks LACP, where that is configured.",
            lacp().map(|(labels, lacp)| (labels, flag(lacp.partner.is_some()))),
        )?;
        let frames = lacp().flat_map(|(labels, lacp)| {
            let kinds = [
                ("received", lacp.received),
                ("sent", lacp.sent),
                ("markers", lacp.markers),
                ("malformed", lacp.malformed),
                ("lost", lacp.lost),
            ];
            kinds.map(|(kind, frames)| (with(labels.clone(), "kind", kind), frames))
        });
        page.counters(
            "bond_member_lacp_frames",
            "LACPDUs that the member received and sent, markers that it answered, and frames that made \
             no sense or came faster than they were read.",
            frames,
        )
    }
}
