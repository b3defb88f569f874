//! Giving a device to vfio-pci and back, as the kernel's Documentation/ABI/testing/sysfs-bus-pci says.

use std::fs;
use std::io;

use super::{Host, link_name};

/// The driver that gives devices to processes.
pub(super) const VFIO: &str = "vfio-pci";

/// Gives a device to vfio-pci, whoever has it; back to its own driver if vfio-pci does not take it. The
/// error is a sentence.
pub(crate) fn give_to_vfio(host: &Host, address: &str) -> Result<(), String> {
    if !host.driver(VFIO).exists() {
        return Err("the kernel's module vfio-pci is not loaded: modprobe vfio-pci".to_owned());
    }
    let device = host.device(address);
    let choose = |driver: &str| fs::write(device.join("driver_override"), driver);
    let probe = || fs::write(host.path("sys/bus/pci/drivers_probe"), address);
    choose(VFIO).map_err(failed("choosing vfio-pci"))?;
    if device.join("driver").exists()
        && let Err(error) = fs::write(device.join("driver/unbind"), address)
    {
        let _ = choose("\n");
        return Err(failed("taking its driver away")(error));
    }
    let probed = probe();
    if link_name(&device.join("driver")).is_some_and(|driver| driver == VFIO) {
        return Ok(());
    }
    // An empty line chooses none. Nothing better can be done should this fail as well.
    let _ = choose("\n").and_then(|()| probe());
    let why = probed.err().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("vfio-pci did not take it{why}: the kernel's log says why"))
}

/// Takes a device from vfio-pci and gives it to the driver that it had, if it had one. Waits until the
/// last who uses it has let go, so that nobody may. The error is a sentence.
pub(super) fn take_from_vfio(
    host: &Host,
    address: &str,
    driver: Option<&str>,
) -> Result<(), String> {
    let device = host.device(address);
    fs::write(device.join("driver_override"), "\n").map_err(failed("choosing no driver"))?;
    fs::write(host.driver(VFIO).join("unbind"), address)
        .map_err(failed("taking it from vfio-pci"))?;
    let Some(driver) = driver else { return Ok(()) };
    fs::write(host.driver(driver).join("bind"), address)
        .map_err(failed("giving it back to its driver"))
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{doing} failed: {error}")
}
