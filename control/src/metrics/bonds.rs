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
        )
    }
}
