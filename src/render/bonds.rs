//! `viaduct show bonds`.

use control::show::view::{BondMemberView, BondView, LacpMemberView, LacpPartnerView};

use super::table::Table;
use super::units::{count, time};

/// Members of bonds, one a line, bond after bond; below, how those stand that speak LACP.
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
    let lacp = lacp(views);
    table.text() + &lacp
}

fn lacp(views: &[BondView]) -> String {
    let columns = [
        "PHYSNET", "MEMBER", "LACP", ">HEARD", "OURS", "PARTNER", ">KEY", ">PORT", "THEIRS", ">IN",
        ">OUT", ">BAD",
    ];
    if !views.iter().any(|view| view.lacp.is_some()) {
        return String::new();
    }
    let mut table = Table::new(&columns, "");
    for view in views {
        for BondMemberView { device, lacp, .. } in &view.members {
            let Some(lacp) = lacp else { continue };
            let LacpMemberView { mux, actor, partner, heard_ms, .. } = lacp;
            let theirs =
                |it: fn(&LacpPartnerView) -> String| partner.as_ref().map(it).unwrap_or_default();
            table.row([
                view.physnet.to_string(),
                device.clone(),
                mux.clone(),
                heard_ms
                    .map(|ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100))
                    .unwrap_or_default(),
                actor.join(","),
                theirs(|it| it.system.clone()),
                theirs(|it| it.key.to_string()),
                theirs(|it| it.port.to_string()),
                theirs(|it| it.state.join(",")),
                count(lacp.received),
                count(lacp.sent),
                count(lacp.malformed + lacp.lost),
            ]);
        }
    }
    format!("\n{}", table.text())
}
