//! The switch and real SR-IOV: cards with virtual functions, their kernel driver, vfio-pci and DPDK's
//! driver, in a machine of QEMU's in which the program runs as it is installed.
//!
//! The card is emulated (an 82576), and does what that card does with addresses and VLANs. Nothing
//! here tells how fast anything is.

mod bed;
mod bonds;
#[path = "../common/mod.rs"]
mod common;
mod filters;
mod lacp;
mod machine;
mod uplink;
mod vfs;
mod wire;
