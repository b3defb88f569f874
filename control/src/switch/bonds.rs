//! What `viaduct show bonds` gets to see.

use super::Switch;
use super::uplinks::Uplink;
use crate::bond::Link;
use crate::model::PhysnetName;
use crate::show::view::{BondMemberView, BondView, LinkView};

impl Switch {
    /// All bonds.
    pub(crate) fn bond_views(&self) -> Vec<BondView> {
        self.uplinks.iter().filter_map(|(name, uplink)| self.bond_view(name, uplink)).collect()
    }

    fn bond_view(&self, name: &PhysnetName, uplink: &Uplink) -> Option<BondView> {
        let config = self.config.physnets.get(name)?.bond.as_ref()?;
        let (bond, links) = (uplink.bond()?, uplink.links());
        let primary = config.primary_at();
        let members = uplink.members().iter().zip(&links.members).enumerate();
        let members = members.map(|(at, (member, link))| {
            let stats = member.wire().ok().and_then(|wire| wire.stats()).unwrap_or_default();
            BondMemberView {
                device: member.device().to_string(),
                link: match link.link {
                    Some(Link::Up) => LinkView::Up,
                    Some(Link::Down) => LinkView::Down,
                    Some(Link::Absent) => LinkView::Absent,
                    None => LinkView::Unknown,
                },
                since_seconds: link.since.as_secs(),
                speed_mbps: link.speed_mbps,
                carries: link.carries,
                primary: primary == Some(at),
                losses: link.losses,
                received_frames: stats.rx_frames,
                sent_frames: stats.tx_frames,
                ignored_frames: bond.ignored(at),
                reason: member.wire().err().map(str::to_owned),
            }
        });
        Some(BondView {
            physnet: name.clone(),
            mode: config.mode.word().to_owned(),
            up_delay_ms: config.up_delay_ms,
            monitor_ms: config.monitor_ms,
            since_seconds: links.since.as_secs(),
            failovers: links.failovers,
            outages: links.outages,
            members: members.collect(),
        })
    }
}
