//! `viaduct show mirrors`.

use control::show::view::{MirrorView, PortView};

use super::labels::{Labels, identity};
use super::table::Table;
use super::units::count;

/// Ports with a mirror, one a line.
pub fn mirrors(views: &[PortView], wide: bool) -> String {
    let mirrors = views.iter().filter_map(|view| Some((view, view.mirror.as_ref()?)));
    let ports = mirrors.clone().flat_map(|(view, mirror)| [&view.port, &mirror.to]);
    let labels = Labels::new(wide, ports, []);
    let columns = ["PORT", "NAME", "FRAMES", ">RECEIVED", ">SENT", "COPIED-TO", "FILTER", "REASON"];
    let nothing = "there are no mirrors; make one by `viaduct port mirror`";
    let mut table = Table::new(&columns, nothing);
    for (view, mirror) in mirrors {
        let (uuid, name) = identity(&view.port, &labels);
        table.row(vec![
            uuid,
            name,
            frames(mirror).to_owned(),
            count(view.received_frames),
            count(view.sent_frames),
            labels.port(&mirror.to),
            mirror.filter.clone().unwrap_or_default(),
            mirror.missing.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

fn frames(mirror: &MirrorView) -> &'static str {
    match (mirror.ingress, mirror.egress) {
        (true, false) => "ingress",
        (false, true) => "egress",
        _ => "both",
    }
}
