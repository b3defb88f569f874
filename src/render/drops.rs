//! `viaduct show drops`.

use std::cmp::Reverse;

use control::show::view::{DropView, Side};

use super::labels::Labels;
use super::table::Table;
use super::units::count;

/// Drops, one a line for each port and reason, most first.
pub fn drops(views: &[DropView], wide: bool) -> String {
    let labels = Labels::new(wide, views.iter().map(|view| &view.port), []);
    let columns = [">FRAMES", "PORT", "SIDE", "REASON", "HELP"];
    let mut table = Table::new(&columns, "no frame was dropped");
    let mut views: Vec<&DropView> = views.iter().filter(|view| view.frames > 0).collect();
    views.sort_by_key(|view| Reverse(view.frames));
    for view in views {
        let side = match view.side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        table.row([
            count(view.frames),
            labels.port(&view.port),
            side.to_owned(),
            view.reason.clone(),
            view.help.clone(),
        ]);
    }
    table.text()
}
