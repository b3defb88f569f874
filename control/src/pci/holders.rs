//! Which processes hold a device that vfio-pci has: those that have its group's file open.

use std::fs;
use std::path::Path;

use super::{Host, names, text};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its number.
    pub(crate) pid: u32,
    /// What it is called.
    pub(crate) name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// The processes that have the file of an IOMMU group open, as far as we may look. The kernel lets a
/// group be opened once, so there is one at most, and its children.
pub(crate) fn holders(host: &Host, group: u32) -> Vec<Holder> {
    let file = format!("/dev/vfio/{group}");
    let proc = host.path("proc");
    let pids = names(&proc).into_iter().filter_map(|name| name.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = proc.join(pid.to_string()).join("fd");
        let files = fs::read_dir(files).into_iter().flatten().flatten();
        files
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target == Path::new(&file))
    };
    let holder = |pid: u32| Holder {
        pid,
        name: text(&proc.join(pid.to_string()).join("comm")).unwrap_or_default(),
    };
    pids.filter(holds).map(holder).collect()
}
