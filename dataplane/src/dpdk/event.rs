//! What devices make known by themselves: that the host wants one back, and that one has been reset.
//!
//! DPDK calls a thread of its own for it, in which nothing can be done about it: a device is closed by
//! who has its queues. So events are noted, and taken by the control thread when it looks. One that is
//! noted again before it is taken is one event; there are never more of them than devices.

use std::ffi::{CStr, c_char, c_int, c_void};

use parking_lot::Mutex;

use super::Eal;

/// An event of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The host wants the device of this name back, and waits until it is closed; or it is gone already.
    Removal(String),
    /// The device with this number in DPDK's table has been reset, and does nothing before it is
    /// started again.
    Reset(u16),
    /// The device with this number is gone.
    Gone(u16),
}

static NOTED: Mutex<Vec<DeviceEvent>> = Mutex::new(Vec::new());

impl Eal {
    /// What has happened since this was asked last. Never waits.
    pub fn take_events(&self) -> Vec<DeviceEvent> {
        std::mem::take(&mut NOTED.lock())
    }
}

/// Has DPDK tell of events from now on.
pub(super) fn listen() {
    // SAFETY: EAL runs; the functions live as long as the process and take no argument of ours.
    let failed = unsafe {
        let none = std::ptr::null_mut();
        let all = dpdk_sys::VIADUCT_ALL_PORTS;
        let port = Some(on_port as unsafe extern "C" fn(_, _, _, _) -> _);
        [
            dpdk_sys::rte_dev_event_callback_register(std::ptr::null(), Some(on_device), none),
            dpdk_sys::rte_eth_dev_callback_register(
                all,
                dpdk_sys::RTE_ETH_EVENT_INTR_RESET,
                port,
                none,
            ),
            dpdk_sys::rte_eth_dev_callback_register(
                all,
                dpdk_sys::RTE_ETH_EVENT_INTR_RMV,
                port,
                none,
            ),
        ]
    };
    if failed.iter().any(|status| *status != 0) {
        tracing::warn!("DPDK will not tell when a device is removed or reset: {failed:?}");
    }
}

fn note(event: DeviceEvent) {
    let mut noted = NOTED.lock();
    if !noted.contains(&event) {
        noted.push(event);
    }
}

/// Called by DPDK for a device of a bus: vfio's request to let it go.
unsafe extern "C" fn on_device(
    name: *const c_char,
    event: dpdk_sys::rte_dev_event_type,
    _: *mut c_void,
) {
    if event == dpdk_sys::RTE_DEV_EVENT_REMOVE && !name.is_null() {
        // SAFETY: DPDK's names are C strings; it is copied at once.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        note(DeviceEvent::Removal(name));
    }
}

/// Called by drivers for a port.
unsafe extern "C" fn on_port(
    port: u16,
    event: dpdk_sys::rte_eth_event_type,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    match event {
        dpdk_sys::RTE_ETH_EVENT_INTR_RESET => note(DeviceEvent::Reset(port)),
        dpdk_sys::RTE_ETH_EVENT_INTR_RMV => note(DeviceEvent::Gone(port)),
        _ => {}
    }
    0
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    #[test]
    fn an_event_is_noted_once_until_it_is_taken() {
        let removal = || DeviceEvent::Removal("0000:01:10.0".to_owned());
        for _ in 0..3 {
            // SAFETY: as DPDK calls them, with a C string that lives until the call returns.
            unsafe {
                on_device(c"0000:01:10.0".as_ptr(), dpdk_sys::RTE_DEV_EVENT_REMOVE, null_mut());
                on_device(c"0000:01:10.2".as_ptr(), dpdk_sys::RTE_DEV_EVENT_ADD, null_mut());
                on_device(std::ptr::null(), dpdk_sys::RTE_DEV_EVENT_REMOVE, null_mut());
                on_port(3, dpdk_sys::RTE_ETH_EVENT_INTR_RESET, null_mut(), null_mut());
                on_port(3, dpdk_sys::RTE_ETH_EVENT_INTR_LSC, null_mut(), null_mut());
                on_port(4, dpdk_sys::RTE_ETH_EVENT_INTR_RMV, null_mut(), null_mut());
            }
        }
        let taken = std::mem::take(&mut *NOTED.lock());
        assert_eq!(taken, [removal(), DeviceEvent::Reset(3), DeviceEvent::Gone(4)]);
        assert!(NOTED.lock().is_empty());
    }
}
