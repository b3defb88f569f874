//! The machine itself: what `scripts/sriov-image` says is in it, and that its wires carry frames.

use std::time::Duration;

use crate::bed::{self, Bed};

/// The address of the first card's own interface.
const PF0: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0];

#[test]
fn it_is_as_its_script_says() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    let vfs = bed.sh("for vf in /sys/class/net/pf[01]/device/virtfn[0-9]; do readlink $vf; done");
    let vfs: Vec<&str> = vfs.lines().filter_map(|line| line.rsplit('/').next()).collect();
    assert_eq!(vfs, ["0000:01:10.0", "0000:01:10.2", "0000:02:10.0", "0000:02:10.2"]);
    for (card, link) in [("pf0", "state UP"), ("pf1", "state UP"), ("pf2", "state DOWN")] {
        let said = bed.sh(&format!("ip link show {card}"));
        assert!(said.contains(link), "{said}");
    }
    let said = bed.sh("ip link show pf1");
    assert!(said.contains("vf 1") && said.contains("52:54:00:aa:01:01"), "{said}");
    assert_eq!(bed.sh("cat /proc/sys/vm/nr_hugepages").trim(), "224");
    let group = |address: &str| {
        bed.sh(&format!("ls -1 /sys/bus/pci/devices/{address}/iommu_group/devices")).lines().count()
    };
    assert_eq!(group("0000:01:10.0"), 1, "virtual functions are alone in their groups");
    bed.sh("echo 1 >/sys/class/net/pf2/device/sriov_numvfs");
    assert!(group("0000:03:10.0") > 1, "behind a port without ACS they are not");
    assert!(bed.sh("viaduct --version").starts_with("viaduct "));

    // The wire ends in the card: its own interface answers.
    bed.sh("ip address add 10.0.0.1/24 dev pf0 && ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev pf0");
    bed.wires[0].reaches(PF0, [10, 0, 0, 1], Duration::from_secs(30));
}
