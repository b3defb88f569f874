//! The text that names a device to DPDK, checked and brought into one form.
//!
//! `name[,key=value]…`, where the name is a PCI address (`0000:01:10.0`, the domain may be left
//! out), a virtual device (`net_tap0`: its driver's name and whatever tells it from others), or a
//! sub-function (`auxiliary:mlx5_core.sf.4`). DPDK takes many more forms; one form a device is what
//! lets us see that it is in use already, which DPDK answers with success.

use std::ffi::CString;

/// A device's text in its one form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Devargs {
    /// The whole text, for DPDK.
    pub text: CString,
    /// What DPDK will call the device.
    pub name: String,
    /// The driver that the name asks for; `None` for PCI, where the device decides.
    pub driver: Option<String>,
}

impl Devargs {
    /// Checks `given`; the error says what is wrong with it and what would be right.
    pub fn parse(given: &str) -> Result<Self, String> {
        if given.len() > 1024 {
            return Err("longer than 1024 bytes".to_owned());
        }
        if let Some(bad) = given.chars().find(|&c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{bad:?} cannot be part of it"));
        }
        let (name, rest) = match given.split_once(',') {
            Some((name, rest)) => (name, Some(rest)),
            None => (given, None),
        };
        for pair in rest.iter().flat_map(|rest| split_outside_brackets(rest)) {
            match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {}
                _ => return Err(format!("{pair:?} is not of the form key=value")),
            }
        }
        let (name, full, driver) = canonical(name)?;
        if name.len() >= dpdk_sys::VIADUCT_DEVICE_NAME_SIZE as usize {
            let most = dpdk_sys::VIADUCT_DEVICE_NAME_SIZE - 1;
            return Err(format!("the device's name has more than {most} bytes"));
        }
        let text = match rest {
            Some(rest) => format!("{full},{rest}"),
            None => full,
        };
        let text = CString::new(text).map_err(|_| "a zero byte inside".to_owned())?;
        Ok(Self { text, name, driver })
    }

    /// The package that holds the driver, by the rule that Debian's DPDK follows: ABI 23, after a
    /// hyphen where the driver's name ends in a digit.
    pub fn package(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("net_…");
        // Drivers that share a library with another.
        let library = match driver {
            "net_virtio_user" => "net_virtio",
            other => other,
        };
        let hyphen = if library.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
        format!("librte-{}{hyphen}23", library.replace('_', "-"))
    }
}

/// The device's name, the name with its bus where DPDK needs that, and the driver.
fn canonical(name: &str) -> Result<(String, String, Option<String>), String> {
    if let Some(address) = pci_address(name) {
        return Ok((address.clone(), address, None));
    }
    let fit = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if let Some(device) = name.strip_prefix("auxiliary:")
        && device.contains(".sf.")
        && device.chars().all(fit)
    {
        return Ok((device.to_owned(), name.to_owned(), None));
    }
    if name.starts_with("net_") && name.len() > 4 && name.chars().all(fit) {
        let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
        return Ok((name.to_owned(), name.to_owned(), Some(driver.to_owned())));
    }
    Err(format!(
        "{name:?} is neither a PCI address (0000:01:10.0) nor a virtual device (net_tap0) nor a \
         sub-function (auxiliary:mlx5_core.sf.4)"
    ))
}

/// `[domain:]bus:device.function` as sysfs writes it; `None` if it is not of that form.
fn pci_address(name: &str) -> Option<String> {
    let (front, function) = name.rsplit_once('.')?;
    let (front, device) = front.rsplit_once(':')?;
    let (domain, bus) = front.rsplit_once(':').unwrap_or(("0000", front));
    let hex = |digits: &str, least: usize, most: usize| {
        let right = (least..=most).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        right.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    // Domains of Intel's VMD have five digits.
    let (domain, bus) = (hex(domain, 4, 8)?, hex(bus, 2, 2)?);
    let (device, function) = (hex(device, 2, 2)?, hex(function, 1, 1)?);
    (device < 32 && function < 8).then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// Splits at commas, but not at those of a list such as `representor=[0,1]`.
fn split_outside_brackets(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ',' && depth <= 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_brought_into_one() {
        for (given, text, name, driver, package) in [
            ("net_tap0,iface=x", "net_tap0,iface=x", "net_tap0", "net_tap", "librte-net-tap23"),
            ("net_null0", "net_null0", "net_null0", "net_null", "librte-net-null23"),
            ("net_e10000", "net_e10000", "net_e10000", "net_e", "librte-net-e23"),
            (
                "net_af_packet12,iface=eth0,qpairs=2",
                "net_af_packet12,iface=eth0,qpairs=2",
                "net_af_packet12",
                "net_af_packet",
                "librte-net-af-packet23",
            ),
            (
                "net_virtio_user0,path=/run/x.sock",
                "net_virtio_user0,path=/run/x.sock",
                "net_virtio_user0",
                "net_virtio_user",
                "librte-net-virtio23",
            ),
        ] {
            let devargs = Devargs::parse(given).expect(given);
            assert_eq!(devargs.text.to_str(), Ok(text));
            assert_eq!(devargs.name, name);
            assert_eq!(devargs.driver.as_deref(), Some(driver));
            assert_eq!(devargs.package(), package);
        }
        for (given, text, name) in [
            ("0000:01:10.0", "0000:01:10.0", "0000:01:10.0"),
            ("01:10.0", "0000:01:10.0", "0000:01:10.0"),
            ("0000:AF:1F.7,a=[0,1],b=2", "0000:af:1f.7,a=[0,1],b=2", "0000:af:1f.7"),
            ("10000:01:00.0", "10000:01:00.0", "10000:01:00.0"),
            ("auxiliary:mlx5_core.sf.4", "auxiliary:mlx5_core.sf.4", "mlx5_core.sf.4"),
        ] {
            let devargs = Devargs::parse(given).expect(given);
            assert_eq!((devargs.text.to_str(), &*devargs.name), (Ok(text), name));
            assert_eq!(devargs.driver, None);
        }
    }

    #[test]
    fn what_is_not_a_device_is_refused_with_a_reason() {
        let long = format!("net_tap{}", "0".repeat(64));
        for (given, word) in [
            ("", "neither"),
            ("eth0", "neither"),
            ("net_", "neither"),
            ("net_tap0/../x", "neither"),
            ("0000:01:20.0", "neither"),
            ("0000:01:10.8", "neither"),
            ("bus=pci,addr=1", "neither"),
            ("auxiliary:", "neither"),
            ("net_tap0,iface", "key=value"),
            ("net_tap0,iface=", "key=value"),
            ("net_tap0,", "key=value"),
            ("net_tap0, iface=x", "cannot be part"),
            ("net_tap0\0", "cannot be part"),
            (&long, "more than 63"),
            (&"x".repeat(2000), "longer"),
        ] {
            let reason = Devargs::parse(given).expect_err(given);
            assert!(reason.contains(word), "{given}: {reason}");
        }
    }
}
