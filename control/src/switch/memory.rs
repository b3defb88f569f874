//! What the switch uses memory for.

use std::collections::BTreeMap;

use super::Switch;
use crate::show::view::{GuestMemoryView, MemoryView, PoolView};

/// Octets of one place of the forwarding database: a key and a value.
const FDB_ENTRY_BYTES: u64 = 16;

impl Switch {
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
        let bytes = |name: &str| status.get(name).map(|kilobytes| kilobytes * 1024);
        MemoryView {
            resident_bytes: bytes("VmRSS"),
            huge_bytes: bytes("HugetlbPages"),
            pool: PoolView {
                frames: self.pool.capacity(),
                free_frames: self.pool.available(),
                frame_bytes: self.pool.data_room(),
            },
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
