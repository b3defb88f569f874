//! `viaduct show bonds`.

use control::show::view::{BondMemberView, BondView};

use super::table::Table;
use super::units::{count, time};

/// Members of bonds, one a line, bond after bond.
pub fn bonds(views: &[BondView]) -> String {
    let columns = [
        "PHYSNET",
        "MODE",
        "MEMBER",
        "LINK",
        ">SINCE",
        ">SPEED",
        "CARRIES",
        "PRIMARY",
        ">LOSSES",
        ">RECEIVED",
        ">SENT",
        ">IGNORED",
        ">FAILOVERS",
        ">OUTAGES",
        "REASON",
    ];
    let mut table = Table::new(&columns, "no physnet has a bond");
    for BondView { physnet, mode, failovers, outages, members, .. } in views {
        for member in members {
            let BondMemberView { device, link, carries, primary, losses, .. } = member;
            let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
            table.row([
                physnet.to_string(),
                mode.clone(),
                device.clone(),
                link.word().to_owned(),
                time(member.since_seconds),
                member.speed_mbps.map(|speed| format!("{speed}M")).unwrap_or_default(),
                word(*carries),
                word(*primary),
                losses.to_string(),
                count(member.received_frames),
                count(member.sent_frames),
                count(member.ignored_frames),
                failovers.to_string(),
                outages.to_string(),
                member.reason.clone().unwrap_or_default(),
            ]);
        }
    }
    table.text()
}
