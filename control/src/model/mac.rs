//! The address of one station: never a group address, never zero.
//!
//! Parsing is strict (six pairs of hexadecimal digits, colons between) so that an address has one
//! spelling. The type of the data plane is another one: there, addresses come from frames and may be
//! anything.

use std::fmt;
use std::str::FromStr;

use super::PortUuid;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// A unicast MAC address, printed in lower case: `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

text_type!(
    Mac,
    "A unicast MAC address: six pairs of hexadecimal digits with colons between.",
    "^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$",
    "write a unicast MAC address such as 52:54:00:12:34:56"
);

impl Mac {
    /// The address made of these octets, in the order of transmission.
    pub fn new(octets: [u8; 6]) -> Result<Mac, Misfit> {
        let mac = Mac(octets);
        // IEEE 802-2014 §8.2.2: the lowest bit of the first octet marks a group address.
        if octets[0] & 1 != 0 {
            let what = format!("{mac} is a group address and cannot belong to one port");
            return Err(Misfit::new(what, "write an address whose first octet is even"));
        }
        if octets == [0; 6] {
            return Err(Misfit::new(format!("{mac} is nobody's address"), Mac::REMEDY));
        }
        Ok(mac)
    }

    /// The address of a port for which nobody chose one: locally administered, and always the same
    /// for one UUID. Of random UUIDs it takes 40 bits.
    pub fn for_port(port: PortUuid) -> Mac {
        let bytes = port.uuid().into_bytes();
        // 0x02: unicast, locally administered (IEEE 802-2014 §8.4).
        Mac([0x02, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// The octets in the order of transmission.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Mac, Misfit> {
        let misfit = || Misfit::new(format!("{} is not a MAC address", quoted(text)), Mac::REMEDY);
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(misfit)?;
            // from_str_radix would also take a sign.
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(misfit());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| misfit())?;
        }
        if parts.next().is_some() {
            return Err(misfit());
        }
        Mac::new(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_print_in_lower_case() {
        for (text, printed) in [
            ("52:54:00:12:34:56", "52:54:00:12:34:56"),
            ("FA:16:3E:AB:CD:EF", "fa:16:3e:ab:cd:ef"),
            ("00:00:00:00:00:01", "00:00:00:00:00:01"),
        ] {
            assert_eq!(text.parse::<Mac>().expect(text).to_string(), printed);
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_the_remedy() {
        let not = |text: &str| {
            format!(
                "`{text}` is not a MAC address; write a unicast MAC address such as \
                 52:54:00:12:34:56"
            )
        };
        for (text, message) in [
            ("", not("")),
            ("52:54:00:12:34", not("52:54:00:12:34")),
            ("52:54:00:12:34:56:78", not("52:54:00:12:34:56:78")),
            ("52-54-00-12-34-56", not("52-54-00-12-34-56")),
            ("525400123456", not("525400123456")),
            ("52:54:00:12:34:5", not("52:54:00:12:34:5")),
            ("52:54:00:12:34:+5", not("52:54:00:12:34:+5")),
            ("52:54:00:12:34:ſ", not("52:54:00:12:34:ſ")),
            (
                "33:33:00:00:00:01",
                "33:33:00:00:00:01 is a group address and cannot belong to one port; write an \
                 address whose first octet is even"
                    .to_owned(),
            ),
            (
                "ff:ff:ff:ff:ff:ff",
                "ff:ff:ff:ff:ff:ff is a group address and cannot belong to one port; write an \
                 address whose first octet is even"
                    .to_owned(),
            ),
            (
                "00:00:00:00:00:00",
                "00:00:00:00:00:00 is nobody's address; write a unicast MAC address such as \
                 52:54:00:12:34:56"
                    .to_owned(),
            ),
        ] {
            assert_eq!(text.parse::<Mac>().expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn a_derived_address_is_valid_and_stable() {
        let port: PortUuid = "ffffffff-ffff-4fff-bfff-ffffffffffff".parse().expect("a UUID");
        assert_eq!(Mac::for_port(port).to_string(), "02:ff:ff:ff:ff:ff");
        assert_eq!(Mac::new(Mac::for_port(port).octets()), Ok(Mac::for_port(port)));
    }
}
