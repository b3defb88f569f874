//! What `viaduct show bonds` gets to see.

use super::Switch;
use super::uplinks::Uplink;
use crate::bond::{Counts, LacpStatus, Link, PortStatus, mac};
use crate::model::PhysnetName;
use crate::show::view::{
    BondMemberView, BondView, LacpMemberView, LacpPartnerView, LacpView, LinkView,
};

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
            let lacp = links.lacp.as_ref().and_then(|lacp| lacp.ports.get(at));
            let why = || lacp?.why.as_ref().map(ToString::to_string);
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
                reason: member.wire().err().map(str::to_owned).or_else(why),
                lacp: lacp.map(|port| lacp_member(port, &link.slow, bond.slow_lost(at))),
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
            lacp: links.lacp.as_ref().map(lacp),
            members: members.collect(),
        })
    }
}

fn lacp(status: &LacpStatus) -> LacpView {
    LacpView {
        system: status.system.map(|system| mac(system.mac)),
        system_priority: status.system_priority,
        rate: if status.fast { "fast" } else { "slow" }.to_owned(),
        fallback: status.fallback,
    }
}

fn lacp_member(port: &PortStatus, counts: &Counts, lost: u64) -> LacpMemberView {
    let words = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
    let partner = port.partner.map(|partner| LacpPartnerView {
        system: mac(partner.system.mac),
        system_priority: partner.system.priority,
        key: partner.key,
        port: partner.port,
        port_priority: partner.port_priority,
        state: words(partner.state.words()),
    });
    LacpMemberView {
        mux: port.mux.word().to_owned(),
        actor: words(port.actor.state.words()),
        port: port.actor.port,
        key: port.actor.key,
        partner,
        heard_ms: port.heard.map(|heard| u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)),
        received: counts.received,
        sent: counts.sent,
        markers: counts.markers,
        malformed: counts.malformed,
        fault: counts.fault.map(|fault| fault.to_string()),
        lost,
    }
}
