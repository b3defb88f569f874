//! Ethernet devices: NICs, their virtual functions, and DPDK's virtual devices.
//!
//! A device is probed by name at any time, configured and started (see `configure`), and taken
//! apart when its last handle is dropped: stopped, closed, removed from its bus, in this order, and
//! only then is its pool let go. Queue handles count, so a device is never stopped under a worker.
//!
//! DPDK leaves serialising of control calls to its user. One lock does it for all devices: drivers
//! share globals among their devices, and nothing here is frequent. Bursts never take it.

use std::any::Any;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{rte_device, rte_eth_dev_info};
use parking_lot::{Mutex, MutexGuard};

use super::devargs::Devargs;
use super::error::{EthError, ProbeError};
use super::queue::receive;
use super::{Eal, Mempool, eal, errno_name, free_bulk, log};

/// A probed device.
#[derive(Debug)]
pub struct EthDev {
    pub(super) device: Arc<Device>,
}

/// What a device and its queues share.
#[derive(Debug)]
pub(super) struct Device {
    port: u16,
    name: String,
    driver: String,
    bus_device: BusDevice,
    /// Receive queues that it was started with; 0 while it is stopped.
    pub(super) started_rxqs: u16,
    /// Pools that its receive queues know: the one they were set up with last, and earlier ones if
    /// setting up failed half-way. A driver may touch them until it is closed.
    pub(super) pools: Vec<Mempool>,
    /// What is dropped when the device is closed.
    guard: Option<Box<dyn Any + Send + Sync>>,
}

/// The device as its bus knows it.
#[derive(Debug)]
struct BusDevice(NonNull<rte_device>);

// SAFETY: used under the control lock only, by whichever thread holds it.
unsafe impl Send for BusDevice {}
// SAFETY: as above.
unsafe impl Sync for BusDevice {}

/// State of a device's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Frames can pass.
    pub up: bool,
    /// Speed in Mbit/s, if the device knows it.
    pub speed_mbps: Option<u32>,
    /// Both directions at a time.
    pub full_duplex: bool,
}

/// What a device has counted since it was probed; what a driver does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames lost because the receive queues were full.
    pub rx_missed: u64,
    /// Frames that arrived broken.
    pub rx_errors: u64,
    /// Times that the pool had no buffer for the device.
    pub rx_no_buffer: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

/// Bursts of 32 that are taken from a receive queue at most before its device is stopped; net_ring
/// holds 1023 frames.
const DRAIN_BURSTS_MAX: usize = 64;

/// Drivers that stand on an interface of the kernel.
const ON_INTERFACES: [&str; 4] = ["net_af_packet", "net_af_xdp", "net_pcap", "net_tap"];

/// Serialises everything but bursts and readings.
static CONTROL: Mutex<()> = Mutex::new(());

pub(super) fn control() -> MutexGuard<'static, ()> {
    CONTROL.lock()
}

impl EthDev {
    /// Probes a device: `net_tap0,iface=x`, `net_af_packet0,iface=y`, `0000:01:10.0` and the like.
    ///
    /// Some drivers take a while (a PCI device tens of milliseconds and more).
    ///
    /// # Errors
    /// The text is not a device's, no such driver is loaded, the device is in use, DPDK has no room
    /// for another, or the driver refuses.
    pub fn probe(_eal: &Eal, devargs: &str) -> Result<Self, ProbeError> {
        let wanted = Devargs::parse(devargs)
            .map_err(|reason| ProbeError::Devargs { devargs: devargs.to_owned(), reason })?;
        let device = wanted.name.clone();

        let _control = control();
        // DPDK answers with success if the device is there already, so look first.
        if find(&wanted.name).is_some() {
            return Err(ProbeError::InUse { device });
        }
        let limit = dpdk_sys::VIADUCT_MAX_PORTS;
        // SAFETY: counts entries of DPDK's table; EAL runs.
        if unsafe { dpdk_sys::rte_eth_dev_count_total() } >= limit {
            return Err(ProbeError::TooMany { device, limit });
        }
        // SAFETY: EAL runs, the text is a C string that DPDK copies, and the lock is held.
        let (status, said) =
            log::listen(|| unsafe { dpdk_sys::rte_dev_probe(wanted.text.as_ptr()) });
        if status != 0 {
            return Err(refusal(&wanted, -status, said));
        }
        let Some((port, info)) = find(&wanted.name) else {
            let remedy = "give one that does".to_owned();
            let reason = "it has no Ethernet port".to_owned();
            return Err(ProbeError::Refused { device, reason, said, remedy });
        };
        let Some(bus_device) = NonNull::new(info.device) else {
            let remedy = "use another driver".to_owned();
            let reason = "it belongs to no bus".to_owned();
            return Err(ProbeError::Refused { device, reason, said, remedy });
        };
        let driver = name_of(info.driver_name);
        tracing::info!(device, port, driver, "device probed");
        let device = Device {
            port,
            name: device,
            driver,
            bus_device: BusDevice(bus_device),
            started_rxqs: 0,
            pools: Vec::new(),
            guard: None,
        };
        Ok(Self { device: Arc::new(device) })
    }

    /// Keeps `guard` until the device has been closed, and drops it then: what gives the device back to
    /// whom it belongs to.
    ///
    /// # Panics
    /// If queues of it are held.
    pub fn guarded(mut self, guard: Box<dyn Any + Send + Sync>) -> Self {
        Arc::get_mut(&mut self.device).expect("it was just probed").guard = Some(guard);
        self
    }

    /// Stops the device, so that it can be configured anew; nothing is done if it is not started.
    ///
    /// # Errors
    /// Queues of it are still held, or the driver refuses.
    pub fn stop(&mut self) -> Result<(), EthError> {
        let queues = Arc::strong_count(&self.device) - 1;
        let Some(device) = Arc::get_mut(&mut self.device) else {
            return Err(EthError::QueuesHeld { device: self.device.name.clone(), queues });
        };
        let _control = control();
        device.stop()?;
        device.started_rxqs = 0;
        Ok(())
    }

    /// Has the driver set the device up anew, as one does that has been reset by whom it belongs to. It
    /// is stopped then, and to be configured. Drivers that have no such call need none.
    ///
    /// # Errors
    /// Queues of it are still held, or the driver refuses.
    pub fn reset(&mut self) -> Result<(), EthError> {
        self.stop()?;
        let _control = control();
        let call = || {
            // SAFETY: the port is ours, stopped, and no queue handle is left.
            let status = unsafe { dpdk_sys::rte_eth_dev_reset(self.device.port) };
            if status == -libc::ENOTSUP { 0 } else { status }
        };
        self.device.call("resetting it", call)
    }

    /// The device's name: the PCI address in full, or the name of the virtual device.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// The name of its driver, such as `net_iavf`.
    pub fn driver_name(&self) -> &str {
        &self.device.driver
    }

    /// Its number in DPDK's table, as tools that look into this process show it.
    pub fn port(&self) -> u16 {
        self.device.port
    }

    /// The NUMA node it is attached to, if it is to one.
    pub fn socket(&self) -> Option<u32> {
        u32::try_from(self.device.socket()).ok()
    }

    /// The state of its link, as the driver knows it at this moment; never waits for it.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn link(&self) -> Result<Link, EthError> {
        let mut link = MaybeUninit::zeroed();
        let call = || {
            // SAFETY: DPDK writes the structure that it is given.
            unsafe { dpdk_sys::rte_eth_link_get_nowait(self.device.port, link.as_mut_ptr()) }
        };
        self.device.call("reading its link", call)?;
        // SAFETY: zeroes are a valid value, and DPDK has written over them.
        let link = unsafe { link.assume_init() };
        let unknown = [dpdk_sys::VIADUCT_SPEED_NONE, dpdk_sys::VIADUCT_SPEED_UNKNOWN];
        Ok(Link {
            up: link.link_status() != 0,
            speed_mbps: Some(link.link_speed).filter(|speed| !unknown.contains(speed)),
            full_duplex: link.link_duplex() != 0,
        })
    }

    /// Changes the largest payload of a frame, in bytes, while the device runs.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), EthError> {
        let _control = control();
        // SAFETY: the port is ours and configured.
        let call = || unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.device.port, mtu) };
        self.device.call("changing its MTU", call)
    }

    /// Has it receive the tagged frames of a VLAN, or no longer, while it runs; for a device that was
    /// started with [`vlan_filter`](super::Applied::vlan_filter).
    ///
    /// # Errors
    /// The driver refuses: a virtual function may have as many as its card lets it.
    pub fn hear_vlan(&self, vlan: u16, hear: bool) -> Result<(), EthError> {
        let _control = control();
        // SAFETY: the port is ours and configured.
        let call = || unsafe {
            dpdk_sys::rte_eth_dev_vlan_filter(self.device.port, vlan, i32::from(hear))
        };
        self.device.call("changing the VLANs that it receives", call)
    }

    /// What it has counted.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn stats(&self) -> Result<EthStats, EthError> {
        let mut stats = MaybeUninit::zeroed();
        let call = || {
            // SAFETY: DPDK writes the structure that it is given.
            unsafe { dpdk_sys::rte_eth_stats_get(self.device.port, stats.as_mut_ptr()) }
        };
        self.device.call("reading its counters", call)?;
        // SAFETY: zeroes are a valid value, and DPDK has written over them.
        let stats = unsafe { stats.assume_init() };
        Ok(EthStats {
            rx_frames: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffer: stats.rx_nombuf,
            tx_frames: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        })
    }
}

impl Device {
    #[inline]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The NUMA node as DPDK counts it, -1 for any.
    pub fn socket(&self) -> i32 {
        // SAFETY: reads DPDK's table; an unused port would only give an error.
        unsafe { dpdk_sys::rte_eth_dev_socket_id(self.port) }
    }

    /// What the driver says of the device.
    pub fn info(&self) -> Result<rte_eth_dev_info, EthError> {
        let mut info = MaybeUninit::zeroed();
        self.call("asking for its abilities", || info_into(self.port, &mut info))?;
        // SAFETY: zeroes are a valid value, and DPDK has written over them.
        Ok(unsafe { info.assume_init() })
    }

    /// Stops the device, if it is started. The caller is the last who has a handle on it.
    fn stop(&self) -> Result<(), EthError> {
        if self.started_rxqs == 0 {
            return Ok(());
        }
        // net_ring loses the frames that wait in it, and their pool would miss them for ever.
        let mut waiting = Vec::with_capacity(32);
        for queue in 0..self.started_rxqs {
            // A device that goes on receiving must not keep us here.
            for _ in 0..DRAIN_BURSTS_MAX {
                // SAFETY: the port is started, the queue one of its own, and no handle is left.
                let received = unsafe { receive(self.port, queue, &mut waiting) };
                free_bulk(&mut waiting);
                if received == 0 {
                    break;
                }
            }
        }
        // SAFETY: the port is ours and started, and no queue handle is left.
        self.call("stopping it", || unsafe { dpdk_sys::rte_eth_dev_stop(self.port) })
    }

    /// Stops, closes and removes the device, which is the end of it.
    fn take_apart(&self) -> Result<(), EthError> {
        self.stop()?;
        // SAFETY: the port is ours, stopped, and not used after this.
        self.call("closing it", || unsafe { dpdk_sys::rte_eth_dev_close(self.port) })?;
        let bus_device = self.bus_device.0.as_ptr();
        // SAFETY: the bus keeps the device until it is removed, which happens here only.
        self.call("removing it", || unsafe { dpdk_sys::rte_dev_remove(bus_device) })
    }

    /// Runs a call that returns 0 or a negative error number, and explains the latter.
    pub fn call(&self, action: &'static str, call: impl FnOnce() -> i32) -> Result<(), EthError> {
        let (status, said) = log::listen(call);
        if status == 0 {
            return Ok(());
        }
        let (device, reason) = (self.name.clone(), errno_name(status));
        Err(EthError::Refused { device, action, reason, said })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _control = control();
        if let Err(error) = self.take_apart() {
            tracing::warn!("{error}; its pools are kept");
            // The driver may still hold buffers, so their memory must never be freed.
            std::mem::forget(std::mem::take(&mut self.pools));
        }
    }
}

/// The port of a device, and what its driver says of it.
fn find(name: &str) -> Option<(u16, rte_eth_dev_info)> {
    let mut port = 0;
    loop {
        // SAFETY: looks through DPDK's table from `port` on.
        port = unsafe { dpdk_sys::rte_eth_find_next(port) };
        if port >= dpdk_sys::VIADUCT_MAX_PORTS {
            return None;
        }
        let mut info = MaybeUninit::zeroed();
        if info_into(port, &mut info) == 0 {
            // SAFETY: zeroes are a valid value, and DPDK has written over them.
            let info = unsafe { info.assume_init() };
            // SAFETY: the bus keeps the device and its name while the port is in the table.
            let is_it = !info.device.is_null()
                && name_of(unsafe { dpdk_sys::rte_dev_name(info.device) }) == name;
            if is_it {
                return Some((port, info));
            }
        }
        port += 1;
    }
}

fn info_into(port: u16, info: &mut MaybeUninit<rte_eth_dev_info>) -> i32 {
    // SAFETY: DPDK checks the port and writes the structure that it is given.
    unsafe { dpdk_sys::rte_eth_dev_info_get(port, info.as_mut_ptr()) }
}

fn name_of(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: DPDK's names are C strings; it is copied at once.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Puts a failed probe into words.
fn refusal(wanted: &Devargs, errno: i32, said: String) -> ProbeError {
    let device = wanted.name.clone();
    let directory = eal::plugin_directory();
    let remedy = match (&wanted.driver, errno) {
        // The bus did not know the name: vdevs are matched by the names of loaded drivers.
        (Some(driver), libc::EFAULT) => {
            let (driver, package) = (driver.clone(), wanted.package());
            return ProbeError::NoDriver { device, driver, package, directory };
        }
        (Some(driver), _) if ON_INTERFACES.contains(&driver.as_str()) => {
            "see that its interface exists, and that this process has CAP_NET_ADMIN and CAP_NET_RAW"
                .to_owned()
        }
        (Some(_), _) => "check its arguments, and that what they name exists".to_owned(),
        (None, libc::ENODEV | libc::EFAULT) => {
            "no device has this address, or no kernel driver holds it (`lspci -Dk` tells); bind it \
             to vfio-pci"
                .to_owned()
        }
        // DPDK looks for the kernel's VFIO once, when it starts.
        (None, _) => format!(
            "bind it to vfio-pci (`dpdk-devbind.py -b vfio-pci {device}`), load that module before \
             Viaduct starts, and see that Debian's package with its driver (librte-net-…23) is \
             installed"
        ),
    };
    // Many drivers return -1 for everything, which is not the EPERM it would read as.
    let reason = if errno == 1 { "its driver refused it".to_owned() } else { errno_name(errno) };
    ProbeError::Refused { device, reason, said, remedy }
}
