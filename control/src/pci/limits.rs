//! What a virtual function does not hear, by its driver: the card gives it less than a whole wire.
//!
//! Told at the port, since the symptom (broadcasts arrive, frames to one guest do not) leads nobody
//! there. What each family of cards does is in docs/sriov.md.

/// Whether a virtual function with this driver receives frames to other addresses than its own only by a
/// filter for each; `trusted` is whether its card trusts it. Not of drivers of which that is not known.
pub(crate) fn needs_filters(driver: &str, trusted: bool) -> bool {
    match driver {
        // Linux's ixgbe lets a VF take all only on later cards, and while the PF takes all.
        "net_e1000_igb_vf" | "net_ixgbe_vf" => true,
        // Their cards let one that is trusted take all.
        "net_iavf" | "mlx5_pci" => !trusted,
        _ => false,
    }
}

/// What is said of a virtual function with DPDK's driver of this name.
pub(crate) fn limits(driver: &str) -> &'static str {
    match driver {
        // Linux's igb grants promiscuity for groups only, and DPDK's driver sets no filters for VLANs.
        "net_e1000_igb_vf" => {
            "as a virtual function it receives frames to its own address and to groups only, and \
             untagged ones only"
        }
        "net_iavf" | "net_ixgbe_vf" | "mlx5_pci" => {
            "as a virtual function it receives frames to other addresses than its own only while its \
             card trusts it (ip link set PF vf N trust on)"
        }
        _ => "as a virtual function it may receive frames to its own address and to groups only",
    }
}
