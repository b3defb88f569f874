//! `viaduct show ports` and `viaduct show domains`.

use control::show::view::{DomainView, PortKind, PortSecurity, PortView, SegmentView};

use super::labels::{Labels, identity};
use super::table::Table;
use super::units::{bytes, count};

/// Ports and uplinks, one a line.
pub fn ports(views: &[PortView], wide: bool) -> String {
    let networks = views.iter().filter_map(|view| view.network.as_ref());
    let labels = Labels::new(wide, views.iter().map(|view| &view.port), networks);
    let mut columns = vec!["PORT", "NAME", "KIND", "NETWORK", "MAC", "STATUS", "SECURITY"];
    if wide {
        columns.extend(["ADMIN", ">NUMBER", ">QUEUES", "WORKERS", ">LEARNED"]);
    }
    columns.extend([">RECEIVED", ">SENT", ">DROPPED"]);
    if wide {
        columns.extend([
            ">FLOODED",
            ">CHECKSUMS",
            ">SEGMENTS",
            ">RX-BYTES",
            ">TX-BYTES",
            "ATTACHED-TO",
        ]);
    }
    columns.push("REASON");
    let mut table = Table::new(&columns, "there are no ports; add one by `viaduct port add`");
    for view in views {
        let (uuid, name) = identity(&view.port, &labels);
        let network = view.network.as_ref().map(|network| labels.network(network));
        let mut cells = vec![
            uuid,
            name,
            kind(view.kind).to_owned(),
            network.unwrap_or_default(),
            view.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            view.status.word().to_owned(),
            security(view.port_security).to_owned(),
        ];
        if wide {
            let workers: Vec<String> = view.workers.iter().map(ToString::to_string).collect();
            cells.extend([
                if view.admin_up { "up".to_owned() } else { "down".to_owned() },
                view.number.map(|number| number.to_string()).unwrap_or_default(),
                view.queues.to_string(),
                workers.join(","),
                count(view.learned.into()),
            ]);
        }
        cells.extend([
            count(view.received_frames),
            count(view.sent_frames),
            count(view.dropped_frames),
        ]);
        if wide {
            let socket = view.socket.as_ref().map(|socket| socket.display().to_string());
            let interface = view.interface.as_ref().map(ToString::to_string);
            let vf = view.vf.as_ref().map(|vf| vf.name.to_string());
            cells.extend([
                count(view.flooded_frames),
                count(view.software_checksums),
                count(view.software_segments),
                bytes(view.received_bytes),
                bytes(view.sent_bytes),
                socket.or(view.device.clone()).or(interface).or(vf).unwrap_or_default(),
            ]);
        }
        cells.push(view.reason.clone().unwrap_or_default());
        table.row(cells);
    }
    table.text()
}

/// Bridge domains, one a line.
pub fn domains(views: &[DomainView], wide: bool) -> String {
    let members = views.iter().flat_map(|view| &view.members);
    let labels = Labels::new(wide, members, views.iter().map(|view| &view.network));
    let mut columns = vec!["NETWORK", "NAME", "TYPE", "PHYSNET", ">VLAN", ">MTU"];
    columns.extend(["LEARNING", "FLOODING", ">LEARNED"]);
    if wide {
        columns.push(">NUMBER");
    }
    columns.push("PORTS");
    let mut table = Table::new(&columns, "there are no domains: no network has a port here");
    for view in views {
        let (kind, physnet, vlan) = match &view.segment {
            SegmentView::Vlan { physnet, vlan } => ("vlan", physnet.to_string(), vlan.to_string()),
            SegmentView::Flat { physnet } => ("flat", physnet.to_string(), String::new()),
            SegmentView::Local => ("local", String::new(), String::new()),
        };
        let on = |yes: bool| if yes { "on".to_owned() } else { "off".to_owned() };
        let mut cells = vec![
            labels.uuid(view.network.uuid),
            view.network.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            kind.to_owned(),
            physnet,
            vlan,
            view.mtu.to_string(),
            on(view.learning),
            on(view.flooding),
            count(view.learned.into()),
        ];
        if wide {
            cells.push(view.number.map(|number| number.to_string()).unwrap_or_default());
        }
        let members: Vec<String> = view.members.iter().map(|port| labels.port(port)).collect();
        cells.push(members.join(","));
        table.row(cells);
    }
    table.text()
}

fn kind(kind: PortKind) -> &'static str {
    match kind {
        PortKind::VhostUser => "vhost-user",
        PortKind::Ethdev => "ethdev",
        PortKind::Tap => "tap",
        PortKind::VfDirect => "vf-direct",
        PortKind::Uplink => "uplink",
        PortKind::Unknown => "",
    }
}

fn security(security: Option<PortSecurity>) -> &'static str {
    match security {
        Some(PortSecurity::Filtered) => "on",
        Some(PortSecurity::Open) => "open",
        Some(PortSecurity::Closed) => "closed",
        None => "",
    }
}
