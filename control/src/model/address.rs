//! IP addresses and prefixes as people write them for ports and groups.
//!
//! Each has one spelling and one meaning: host bits in a prefix, and IPv4 hidden in IPv6, are refused
//! with what was probably meant, since a filter that quietly covers more or less than its author
//! believes is worse than none.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// An address or prefix: `10.0.0.5`, `10.0.0.0/8`, `2001:db8::/32`. Its host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

/// The address of one station: no group, no prefix, nobody's and not the station's own loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationAddress(IpAddr);

text_type!(
    Prefix,
    "An IP address or prefix, IPv4 or IPv6.",
    "^[0-9a-fA-F:.]{2,45}(/[0-9]{1,3})?$",
    "write an address such as 10.0.0.5, or a prefix such as 10.0.0.0/8 or 2001:db8::/32"
);
text_type!(
    StationAddress,
    "The IP address of one station, IPv4 or IPv6.",
    "^[0-9a-fA-F:.]{2,45}$",
    "write an address such as 10.0.0.5 or 2001:db8::5"
);

impl Prefix {
    /// The prefix as a network. A single address is one of full length.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether it is one of IPv6, and not of IPv4.
    pub fn is_ipv6(self) -> bool {
        matches!(self.0, IpNet::V6(_))
    }

    /// The one address that this is, if it is a single one.
    fn single(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }
}

impl StationAddress {
    /// The address itself.
    pub fn address(self) -> IpAddr {
        self.0
    }
}

impl From<StationAddress> for Prefix {
    fn from(address: StationAddress) -> Prefix {
        Prefix(address.0.into())
    }
}

impl FromStr for Prefix {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Prefix, Misfit> {
        let misfit = || {
            let what = format!("{} is not an IP address or prefix", quoted(text));
            Misfit::new(what, Prefix::REMEDY)
        };
        let net = match text.split_once('/') {
            None => IpNet::from(text.parse::<IpAddr>().map_err(|_| misfit())?),
            // The parser of prefixes takes `/+8` and `/08`, which would be further spellings.
            Some((_, length)) if !is_number(length) => return Err(misfit()),
            Some(_) => text.parse().map_err(|_| misfit())?,
        };
        if let Some(plain) = unmapped(net) {
            return Err(hidden(text, Prefix(plain)));
        }
        if net.addr() != net.network() {
            let covering = net.trunc();
            return Err(Misfit::new(
                format!("{} has bits set beyond its length", quoted(text)),
                format!("write {covering} for the prefix, or {} for the address", net.addr()),
            ));
        }
        Ok(Prefix(net))
    }
}

impl FromStr for StationAddress {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<StationAddress, Misfit> {
        let Ok(address) = text.parse::<IpAddr>() else {
            let what = format!("{} is not an IP address", quoted(text));
            // People and APIs write the length of the subnet with an address.
            let remedy = match text.parse::<IpNet>() {
                Ok(net) => format!("write {}, without the length of a prefix", net.addr()),
                Err(_) => StationAddress::REMEDY.to_owned(),
            };
            return Err(Misfit::new(what, remedy));
        };
        if let Some(plain) = unmapped(address.into()) {
            return Err(hidden(text, Prefix(plain)));
        }
        let broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
        let flaw = if address.is_multicast() || broadcast {
            "is the address of a group and cannot belong to one port"
        } else if address.is_unspecified() {
            "is nobody's address"
        } else if address.is_loopback() {
            "is everybody's own address and is not seen on a network"
        } else {
            return Ok(StationAddress(address));
        };
        Err(Misfit::new(format!("{address} {flaw}"), StationAddress::REMEDY))
    }
}

/// Whether the text is a number without a sign or leading zeros.
fn is_number(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text.len() == 1 || !text.starts_with('0'))
}

/// The IPv4 prefix that an IPv4-mapped one (RFC 4291 §2.5.5.2) stands for. No frame carries such
/// addresses, so the prefix as written would never match.
fn unmapped(net: IpNet) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(six) = net else { return None };
    let four = Ipv6Addr::to_ipv4_mapped(&six.addr())?;
    let length = six.prefix_len().checked_sub(MAPPED_BITS)?;
    IpNet::new(four.into(), length).ok().map(|net| net.trunc())
}

fn hidden(text: &str, plain: Prefix) -> Misfit {
    let what = format!("{} is IPv4 in the form of IPv6, which no frame has", quoted(text));
    Misfit::new(what, format!("write {plain}"))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => address.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Display for StationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_one_spelling() {
        for (text, printed) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5/32", "10.0.0.5"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("fe80::1/128", "fe80::1"),
            ("224.0.0.0/4", "224.0.0.0/4"),
        ] {
            let prefix: Prefix = text.parse().expect(text);
            assert_eq!(prefix.to_string(), printed);
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }

    #[test]
    fn bad_prefixes_are_refused_with_what_was_probably_meant() {
        let not = |text: &str| {
            format!("`{text}` is not an IP address or prefix; {}", <Prefix as Text>::REMEDY)
        };
        for (text, message) in [
            ("", not("")),
            ("10.0.0", not("10.0.0")),
            ("10.0.0.0/", not("10.0.0.0/")),
            ("10.0.0.0/33", not("10.0.0.0/33")),
            ("10.0.0.0/+8", not("10.0.0.0/+8")),
            ("10.0.0.0/08", not("10.0.0.0/08")),
            ("10.0.0.0/255.0.0.0", not("10.0.0.0/255.0.0.0")),
            ("010.0.0.1", not("010.0.0.1")),
            ("fe80::1%eth0", not("fe80::1%eth0")),
            ("any", not("any")),
            (
                "10.0.0.5/24",
                "`10.0.0.5/24` has bits set beyond its length; write 10.0.0.0/24 for the prefix, \
                 or 10.0.0.5 for the address"
                    .to_owned(),
            ),
            (
                "2001:db8::1/64",
                "`2001:db8::1/64` has bits set beyond its length; write 2001:db8::/64 for the \
                 prefix, or 2001:db8::1 for the address"
                    .to_owned(),
            ),
            (
                "::ffff:10.0.0.0/104",
                "`::ffff:10.0.0.0/104` is IPv4 in the form of IPv6, which no frame has; write \
                 10.0.0.0/8"
                    .to_owned(),
            ),
            (
                "::ffff:10.0.0.1",
                "`::ffff:10.0.0.1` is IPv4 in the form of IPv6, which no frame has; write 10.0.0.1"
                    .to_owned(),
            ),
        ] {
            assert_eq!(text.parse::<Prefix>().expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn a_station_has_an_address_of_its_own() {
        for good in ["10.0.0.5", "2001:db8::5", "fe80::1", "169.254.1.1", "100.64.0.0"] {
            assert_eq!(good.parse::<StationAddress>().expect(good).to_string(), good);
        }
        let such = "write an address such as 10.0.0.5 or 2001:db8::5";
        let group = "is the address of a group and cannot belong to one port";
        for (text, message) in [
            ("x", format!("`x` is not an IP address; {such}")),
            (
                "10.0.0.5/24",
                "`10.0.0.5/24` is not an IP address; write 10.0.0.5, without the length of a prefix"
                    .to_owned(),
            ),
            ("224.0.0.1", format!("224.0.0.1 {group}; {such}")),
            ("255.255.255.255", format!("255.255.255.255 {group}; {such}")),
            ("ff02::1", format!("ff02::1 {group}; {such}")),
            ("0.0.0.0", format!("0.0.0.0 is nobody's address; {such}")),
            ("::", format!(":: is nobody's address; {such}")),
            (
                "127.0.0.1",
                format!("127.0.0.1 is everybody's own address and is not seen on a network; {such}"),
            ),
            (
                "::ffff:10.0.0.1",
                "`::ffff:10.0.0.1` is IPv4 in the form of IPv6, which no frame has; write 10.0.0.1"
                    .to_owned(),
            ),
        ] {
            assert_eq!(text.parse::<StationAddress>().expect_err(text).to_string(), message);
        }
    }
}
