//! `viaduct show fdb`.

use control::show::view::{FdbOrigin, FdbView};

use super::labels::Labels;
use super::table::Table;
use super::units::{count, time};

/// Addresses, one a line, and below how full the table is and what happened to it.
pub fn fdb(view: &FdbView, wide: bool) -> String {
    let entries = &view.entries;
    let ports = entries.iter().map(|entry| &entry.port);
    let labels = Labels::new(wide, ports, entries.iter().map(|entry| &entry.network));
    let columns = ["NETWORK", "MAC", "PORT", ">AGE", "ORIGIN"];
    let mut table = Table::new(&columns, "no address is known");
    for entry in entries {
        table.row([
            labels.network(&entry.network),
            entry.mac.to_string(),
            labels.port(&entry.port),
            entry.age_seconds.map(|seconds| time(seconds.into())).unwrap_or_default(),
            match entry.origin {
                FdbOrigin::Learned => "learned".to_owned(),
                FdbOrigin::Static => "static".to_owned(),
            },
        ]);
    }
    let statistics = &view.statistics;
    let pages = if statistics.huge_pages { "huge pages" } else { "small pages" };
    let mut text = table.text();
    text +=
        &format!("\n{} of {} places taken, on {pages}\n", statistics.entries, statistics.capacity);
    let counts = [
        ("learned", statistics.learned),
        ("moved", statistics.moved),
        ("aged", statistics.aged),
        ("evicted", statistics.evicted),
        ("over-quota", statistics.over_quota),
        ("no-room", statistics.no_room),
        ("deferred", statistics.deferred),
        ("damped", statistics.damped),
    ];
    let counts = counts.map(|(name, number)| format!("{name} {}", count(number)));
    text + &counts.join(", ") + "\n"
}
