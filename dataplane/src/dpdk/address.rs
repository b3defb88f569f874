//! The MAC addresses that a device has: its own, and others that it takes frames for.
//!
//! DPDK keeps a copy of what a device was told, and tells it again whenever the device is started. So
//! one whose address somebody else has changed behind its driver has to be told of that before it is
//! started, or the former one would come back.

use std::mem::MaybeUninit;

use dpdk_sys::rte_ether_addr;

use super::EthDev;
use super::error::EthError;
use super::ethdev::control;

impl EthDev {
    /// Its MAC address. A VF may not notice that the host has changed it.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn mac(&self) -> Result<[u8; 6], EthError> {
        let mut address = MaybeUninit::zeroed();
        let call = || {
            // SAFETY: DPDK writes the structure that it is given.
            unsafe { dpdk_sys::rte_eth_macaddr_get(self.device.port(), address.as_mut_ptr()) }
        };
        self.device.call("reading its MAC address", call)?;
        // SAFETY: zeroes are a valid value, and DPDK has written over them.
        Ok(unsafe { address.assume_init() }.addr_bytes)
    }

    /// Has it use another MAC address.
    ///
    /// # Errors
    /// The driver has no such call or refuses, as one of a VF does whose host allows no other address.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), EthError> {
        let mut address = rte_ether_addr { addr_bytes: mac };
        let _control = control();
        // SAFETY: DPDK copies the structure that it is given.
        let call = || unsafe {
            dpdk_sys::rte_eth_dev_default_mac_addr_set(self.device.port(), &mut address)
        };
        self.device.call("changing its MAC address", call)
    }

    /// Has it receive frames to one more address. One that it receives already is no error.
    ///
    /// # Errors
    /// The driver has no such call, has no room, or refuses: a virtual function may have as many as its
    /// card lets it.
    pub fn add_mac(&self, mac: [u8; 6]) -> Result<(), EthError> {
        let mut address = rte_ether_addr { addr_bytes: mac };
        let _control = control();
        // SAFETY: DPDK copies the structure that it is given.
        let call =
            || unsafe { dpdk_sys::rte_eth_dev_mac_addr_add(self.device.port(), &mut address, 0) };
        self.device.call("adding a MAC address", call)
    }

    /// Has it receive frames to that address no more, which is not its own.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn remove_mac(&self, mac: [u8; 6]) -> Result<(), EthError> {
        let mut address = rte_ether_addr { addr_bytes: mac };
        let _control = control();
        // SAFETY: DPDK reads the structure that it is given.
        let call =
            || unsafe { dpdk_sys::rte_eth_dev_mac_addr_remove(self.device.port(), &mut address) };
        self.device.call("removing a MAC address", call)
    }
}
