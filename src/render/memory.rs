//! `viaduct show memory`.

use control::show::view::{DeviceMemoryView, MemoryView, PoolView};

use super::labels::Labels;
use super::table::Table;
use super::units::memory as size;

/// Uses of memory, one a line; below, what is set aside for each device, and mapped of each guest.
pub fn memory(view: &MemoryView, wide: bool) -> String {
    let MemoryView { resident_bytes, huge_bytes, pool, fdb_bytes, acl_bytes, guests, .. } = view;
    let known = |bytes: &Option<u64>| bytes.map_or_else(|| "not known".to_owned(), size);
    let guest_bytes: u64 = guests.iter().map(|guest| guest.bytes).sum();
    let room = u64::from(pool.frames) * u64::from(pool.frame_bytes);
    let free = format!("{} of {} frames free", pool.free_frames, pool.frames);
    let lines = [
        ("process", format!("{}, {} on huge pages", known(resident_bytes), known(huge_bytes))),
        ("pool", format!("{}, {free}", size(room))),
        ("budget", budget(view)),
        ("fdb", size(*fdb_bytes)),
        ("acl", size(*acl_bytes)),
        ("guests", format!("{} mapped", size(guest_bytes))),
    ];
    let lines = lines.map(|(use_, text)| format!("{use_:<10}{text}\n")).concat();
    let refs = guests.iter().map(|guest| &guest.port);
    let labels = Labels::new(wide, refs.chain(view.devices.iter().map(|it| &it.port)), []);
    let mut devices =
        Table::new(&["DEVICE", ">RECEIVE", ">TRANSMIT", ">MEMORY"], "no device is open");
    for it in &view.devices {
        devices.row([
            labels.port(&it.port),
            it.receive_frames.to_string(),
            it.transmit_frames.to_string(),
            size(it.bytes),
        ]);
    }
    let mut table = Table::new(&["PORT", ">MAPPED", ">REGIONS"], "no guest's memory is mapped");
    for guest in guests {
        let port = labels.port(&guest.port);
        table.row([port, size(guest.bytes), guest.regions.to_string()]);
    }
    format!("{lines}\n{}\n{}", devices.text(), table.text())
}

/// Who may take how many of the pool's buffers.
fn budget(view: &MemoryView) -> String {
    let claimed =
        |it: &DeviceMemoryView| u64::from(it.receive_frames) + u64::from(it.transmit_frames);
    let devices: u64 = view.devices.iter().map(claimed).sum();
    let PoolView { cache_frames, unclaimed_frames, .. } = view.pool;
    format!(
        "{devices} frames for devices, {cache_frames} for workers' caches, {unclaimed_frames} left; \
         {} huge pages configured",
        view.hugepages_needed
    )
}
