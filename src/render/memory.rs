//! `viaduct show memory`.

use control::show::view::MemoryView;

use super::labels::Labels;
use super::table::Table;
use super::units::memory as size;

/// Uses of memory, one a line, and below what is mapped of each guest.
pub fn memory(view: &MemoryView, wide: bool) -> String {
    let MemoryView { resident_bytes, huge_bytes, pool, fdb_bytes, acl_bytes, guests } = view;
    let known = |bytes: &Option<u64>| bytes.map_or_else(|| "not known".to_owned(), size);
    let guest_bytes: u64 = guests.iter().map(|guest| guest.bytes).sum();
    let room = u64::from(pool.frames) * u64::from(pool.frame_bytes);
    let free = format!("{} of {} frames free", pool.free_frames, pool.frames);
    let lines = [
        ("process", format!("{}, {} on huge pages", known(resident_bytes), known(huge_bytes))),
        ("pool", format!("{}, {free}", size(room))),
        ("fdb", size(*fdb_bytes)),
        ("acl", size(*acl_bytes)),
        ("guests", format!("{} mapped", size(guest_bytes))),
    ];
    let lines = lines.map(|(use_, text)| format!("{use_:<10}{text}\n")).concat();
    let labels = Labels::new(wide, guests.iter().map(|guest| &guest.port), []);
    let mut table = Table::new(&["PORT", ">MAPPED", ">REGIONS"], "no guest's memory is mapped");
    for guest in guests {
        let port = labels.port(&guest.port);
        table.row([port, size(guest.bytes), guest.regions.to_string()]);
    }
    format!("{lines}\n{}", table.text())
}
