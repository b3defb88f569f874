//! What the switch uses memory for.

use std::collections::BTreeMap;

use super::Switch;
use super::ports::{Link, LivePort};
use crate::budget::{Left, caches};
use crate::config::Dpdk;
use crate::show::view::{DeviceMemoryView, GuestMemoryView, MemoryView, PoolView, PortRef};
use crate::wire::Wire;

/// Octets of one place of the forwarding database: a key and a value.
const FDB_ENTRY_BYTES: u64 = 16;

impl Switch {
    /// The open devices.
    fn wires(&self) -> impl Iterator<Item = (PortRef, &Wire)> {
        let uplinks = self.uplinks.iter().flat_map(|(name, uplink)| {
            let open = uplink.members().iter().filter_map(|member| member.wire().ok());
            open.map(|wire| (PortRef::Uplink { physnet: name.clone() }, wire))
        });
        let ports = self.ports.iter().filter_map(|(uuid, live)| match LivePort::link(live) {
            Link::Wire { wire, .. } | Link::Tap { wire, .. } => Some((self.port_ref(*uuid), wire)),
            Link::Guest { .. } | Link::Waiting { .. } => None,
        });
        uplinks.chain(ports)
    }

    /// What of the pool is set aside for nobody.
    pub(super) fn left(&self) -> Left {
        let held = self.wires().map(|(_, wire)| wire.holding().sum());
        Left::new(&self.config, held.fold(0, u32::saturating_add))
    }

    /// What memory is used for.
    pub(crate) fn memory_view(&self) -> MemoryView {
        let guests = self.vhost_views(None).into_iter().filter(|view| !view.memory.is_empty());
        let guests = guests.map(|view| GuestMemoryView {
            port: view.port,
            bytes: view.memory.iter().map(|region| region.bytes).sum(),
            regions: view.memory.len() as u32,
        });
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let status = kilobytes(&status);
        let pages = crate::setup::hugepages_needed(&self.config);
        let Dpdk { pool_frames, frame_bytes, .. } = self.config.dpdk;
        let devices = self.wires().map(|(port, wire)| DeviceMemoryView {
            port,
            receive_frames: wire.holding().receive,
            transmit_frames: wire.holding().transmit,
            bytes: Dpdk::pool_mib(wire.holding().sum(), frame_bytes) << 20,
        });
        let bytes = |name: &str| status.get(name).map(|kilobytes| kilobytes * 1024);
        MemoryView {
            resident_bytes: bytes("VmRSS"),
            huge_bytes: bytes("HugetlbPages"),
            pool: PoolView {
                frames: pool_frames,
                free_frames: self.engine.as_ref().map_or(0, |engine| engine.pool.available()),
                frame_bytes,
                cache_frames: caches(self.config.workers.cores.len()),
                unclaimed_frames: self.left().frames,
            },
            hugepages_needed: pages.0 + pages.1,
            devices: devices.collect(),
            fdb_bytes: self.fdb.statistics().capacity as u64 * FDB_ENTRY_BYTES,
            acl_bytes: self.acl_views(None, false).iter().map(|view| view.memory_bytes).sum(),
            guests: guests.collect(),
        }
    }
}

/// The lines of proc_pid_status(5) that are amounts of memory.
fn kilobytes(status: &str) -> BTreeMap<&str, u64> {
    let line = |line: &'_ str| {
        let (name, value) = line.split_once(':')?;
        Some((name.len(), value.trim().strip_suffix(" kB")?.parse().ok()?))
    };
    let lines = status.lines().filter_map(|text| {
        let (name, value): (usize, u64) = line(text)?;
        Some((&text[..name], value))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_all_else_is_passed_over() {
        let status = "Name:\tviaduct\nVmRSS:\t   12345 kB\nHugetlbPages:\t  2048 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(status), BTreeMap::from([("VmRSS", 12345), ("HugetlbPages", 2048)]));
        let own = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
        assert!(kilobytes(&own)["VmRSS"] > 0);
    }
}
