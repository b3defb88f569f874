//! NUMA nodes: which one a CPU is on, and what memory for devices there is on one.

use super::{Host, names, read};

/// The node that a CPU is on, where there are nodes.
pub(crate) fn node_of(host: &Host, cpu: u32) -> Option<u32> {
    let links = names(&host.path(&format!("sys/devices/system/cpu/cpu{cpu}"))).into_iter();
    links.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

/// The huge pages of 2 MiB that a node has, free or not.
pub(crate) fn hugepages_of(host: &Host, node: u32) -> Option<u64> {
    let folder = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    read(&host.path(&folder).join("nr_hugepages"))
}
