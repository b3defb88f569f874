//! How a DPDK device is named: by its PCI address, as a function of a card, or as a virtual device, with
//! arguments.
//!
//! Only the grammar stands here, and the identity that two spellings share. Whether there is such a
//! device, and what its arguments mean, only DPDK knows when it probes it.

use std::fmt;
use std::str::FromStr;

use super::InterfaceName;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// DPDK devargs: `0000:01:10.0`, or a virtual device such as `net_af_packet0,iface=eth1`. What DPDK has
/// no name for is a virtual function by the interface of its card and its number: `ens1f0/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devargs(String);

text_type!(
    Devargs,
    "A DPDK device: a PCI address, a virtual function by the interface of its card, a slash and its \
     number, or the name of a virtual device, then arguments after commas.",
    "^[A-Za-z0-9_:.@-]+(/[0-9]+)?(,[!-~]+)?$",
    "write a PCI address such as 0000:01:10.0, a virtual function such as ens1f0/3, or a virtual \
     device such as net_af_packet0,iface=eth1"
);

impl Devargs {
    /// Octets that DPDK keeps for a device's name, less the final zero (`RTE_DEV_NAME_MAX_LEN`).
    const NAME_LENGTH_MAX: usize = 63;

    /// The whole text, as DPDK reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the device is a program, and not on a bus.
    pub fn is_virtual(&self) -> bool {
        !self.device().contains([':', '/'])
    }

    /// The virtual function that is meant, where it is named by its card's interface: that interface, and
    /// its number.
    pub fn virtual_function(&self) -> Option<(InterfaceName, u16)> {
        let (interface, number) = self.name().split_once('/')?;
        Some((interface.parse().ok()?, number.parse().ok()?))
    }

    /// The same for the device at this PCI address, with the arguments that there are.
    pub fn at(&self, address: &str) -> String {
        format!("{address}{}", &self.0[self.name().len()..])
    }

    fn name(&self) -> &str {
        self.0.split(',').next().unwrap_or_default()
    }

    /// The device without its arguments, one spelling a device: what two ports cannot share.
    pub fn device(&self) -> String {
        let name = self.name();
        let name = name.strip_prefix("pci:").or(name.strip_prefix("vdev:")).unwrap_or(name);
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let parts: Vec<&str> = name.split([':', '.']).collect();
        match parts[..] {
            [bus, device, function] if [bus, device, function].into_iter().all(hex) => {
                format!("0000:{name}").to_ascii_lowercase()
            }
            [domain, bus, device, function]
                if [domain, bus, device, function].into_iter().all(hex) =>
            {
                name.to_ascii_lowercase()
            }
            _ => name.to_owned(),
        }
    }

    /// The kernel's interface that the device stands on, where its driver does not tell that
    /// interface's link: net_af_packet, net_af_xdp and net_pcap say that it is up as long as they run.
    pub fn kernel_interface(&self) -> Option<InterfaceName> {
        const SILENT: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];
        let device = self.device();
        let mut arguments = self.0.split(',').skip(1);
        let interface = arguments.find_map(|argument| argument.strip_prefix("iface="))?;
        let silent = SILENT.iter().any(|driver| device.starts_with(driver));
        silent.then(|| interface.parse().ok()).flatten()
    }

    /// Whether it can be told when the link of the device is lost: not where there is none.
    pub fn tells_link(&self) -> bool {
        let device = self.device();
        !["net_null", "net_ring"].iter().any(|driver| device.starts_with(driver))
    }

    /// The card that the device is on: its PCI address without its function. None of virtual devices.
    pub fn card(&self) -> Option<String> {
        let device = self.device();
        let (card, function) = device.split_once('.')?;
        let is_pci = card.split(':').count() == 3 && !function.is_empty();
        is_pci.then(|| card.to_owned())
    }
}

impl FromStr for Devargs {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let misfit = || {
            let what = format!("{} does not name a DPDK device", quoted(text));
            Err(Misfit::new(what, Devargs::REMEDY))
        };
        let (name, arguments) = match text.split_once(',') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (text, None),
        };
        if let Some((interface, number)) = name.split_once('/') {
            // One spelling a number.
            let number_fits = number.parse::<u16>().is_ok_and(|it| it.to_string() == number);
            if interface.parse::<InterfaceName>().is_err() || !number_fits {
                return misfit();
            }
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.@-/".contains(&byte);
        // A leading dash would be read as an option where devargs become arguments of EAL.
        if name.is_empty()
            || name.starts_with('-')
            || name.len() > Devargs::NAME_LENGTH_MAX
            || !name.bytes().all(fits)
        {
            return misfit();
        }
        match arguments {
            Some("") => misfit(),
            Some(arguments) if !arguments.bytes().all(|byte| byte.is_ascii_graphic()) => misfit(),
            _ => Ok(Devargs(text.to_owned())),
        }
    }
}

impl fmt::Display for Devargs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_device_are_one_device() {
        for (text, device) in [
            ("0000:01:10.0", "0000:01:10.0"),
            ("01:10.0", "0000:01:10.0"),
            ("pci:0000:0A:10.0,foo=1", "0000:0a:10.0"),
            ("net_tap0,iface=x", "net_tap0"),
            ("vdev:net_tap0", "net_tap0"),
            ("net_af_packet0,iface=eth1,qpairs=2", "net_af_packet0"),
            ("ens1f0/3,a=1", "ens1f0/3"),
        ] {
            assert_eq!(text.parse::<Devargs>().expect(text).device(), device);
        }
    }

    #[test]
    fn a_virtual_function_has_a_card_and_a_number() {
        let device: Devargs = "ens1f0.8/12,a=1".parse().expect("a virtual function");
        let (card, number) = device.virtual_function().expect("it is one");
        assert_eq!((card.as_str(), number), ("ens1f0.8", 12));
        assert_eq!(device.at("0000:01:10.0"), "0000:01:10.0,a=1");
        let other: Devargs = "0000:01:10.0".parse().expect("an address");
        assert_eq!(other.virtual_function(), None);
    }

    #[test]
    fn devices_on_an_interface_of_the_kernel_name_it() {
        for (text, interface) in [
            ("net_af_packet0,iface=ens1f0,qpairs=2", Some("ens1f0")),
            ("net_af_xdp0,start_queue=0,iface=ens1f0", Some("ens1f0")),
            ("net_tap0,iface=ens1f0", None),
            ("0000:01:10.0", None),
        ] {
            let found = text.parse::<Devargs>().expect(text).kernel_interface();
            assert_eq!(found.as_ref().map(InterfaceName::as_str), interface);
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let long = "x".repeat(64);
        let bad = ["", ",iface=x", "net_tap0,", "net tap0", "-l", "net_tap0,a b", "a\nb", &long];
        let vfs =
            ["eth0/", "/1", "eth0/x", "eth0/01", "eth0/-1", "eth0/70000", "eth0/1/2", "a:b/1"];
        for bad in bad.into_iter().chain(vfs) {
            let message = bad.parse::<Devargs>().expect_err(bad).to_string();
            assert!(
                message.ends_with(
                    " does not name a DPDK device; write a PCI address such as 0000:01:10.0, a \
                     virtual function such as ens1f0/3, or a virtual device such as \
                     net_af_packet0,iface=eth1"
                ),
                "{message}"
            );
        }
    }
}
