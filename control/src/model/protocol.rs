//! What a rule says of the transport: the protocol, and its destination ports.
//!
//! Names are those that Neutron has, so that its rules can be written down as they are; a number says
//! the same. Which fields go together is the rule's to judge.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::fields::{Fields, shown};
use crate::problem::{Misfit, quoted};

/// The number of an IP protocol, printed by its name where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(u8);

/// Names, and the numbers that IANA gave them. The first name of a number is the one that is printed.
const NAMES: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("dccp", 33),
    ("udplite", 136),
    ("igmp", 2),
    ("ipip", 4),
    ("egp", 8),
    ("ipv6-encap", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ospf", 89),
    ("vrrp", 112),
    ("pgm", 113),
];

const REMEDY: &str = "write a name such as tcp, udp or icmp, or a number from 0 to 255";

impl Protocol {
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// ICMP of IPv4.
    pub const ICMP: Protocol = Protocol(1);
    /// ICMP of IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
    /// DCCP.
    pub const DCCP: Protocol = Protocol(33);
    /// UDP-Lite.
    pub const UDPLITE: Protocol = Protocol(136);

    /// The protocol of this number.
    pub const fn new(number: u8) -> Protocol {
        Protocol(number)
    }

    /// Its number, as the IP header has it.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether its header begins with a source and a destination port.
    pub fn has_ports(self) -> bool {
        let with = [Self::TCP, Self::UDP, Self::SCTP, Self::DCCP, Self::UDPLITE];
        with.contains(&self)
    }

    /// Whether it has ICMP's types and codes.
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }

    /// Whether it is printed by a name.
    pub(super) fn is_named(self) -> bool {
        NAMES.iter().any(|(_, number)| *number == self.0)
    }

    /// Reads a protocol that is written as a name, as a number, or as a number in quotes.
    pub(crate) fn from_value(value: &Value) -> Result<Protocol, Misfit> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| u8::try_from(number).ok());
                number.map(Protocol).ok_or_else(|| misfit(&value.to_string()))
            }
            other => Err(misfit(&shown(other))),
        }
    }
}

fn misfit(shown: &str) -> Misfit {
    Misfit::new(format!("{shown} is not a protocol"), REMEDY)
}

impl FromStr for Protocol {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Protocol, Misfit> {
        let named = |wanted: &str| NAMES.iter().find(|(name, _)| *name == wanted);
        if let Some((_, number)) = named(text) {
            return Ok(Protocol(*number));
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if let (true, Ok(number)) = (digits, text.parse()) {
            return Ok(Protocol(number));
        }
        if let Some((name, _)) = named(&text.to_ascii_lowercase()) {
            let what = format!("{} is not a protocol", quoted(text));
            return Err(Misfit::new(what, format!("write {name}")));
        }
        // What other systems take for "whatever it be".
        if matches!(text, "any" | "all" | "ip") {
            let what = format!("{} is not a protocol", quoted(text));
            return Err(Misfit::new(what, "leave the protocol out to mean any"));
        }
        Err(misfit(&quoted(text)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0),
        }
    }
}

impl JsonSchema for Protocol {
    fn schema_name() -> Cow<'static, str> {
        "Protocol".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        schemars::json_schema!({
            "description": "An IP protocol: its name or its number.",
            "anyOf": [
                { "type": "string", "enum": names },
                { "type": "string", "pattern": "^[0-9]{1,3}$" },
                { "type": "integer", "minimum": 0, "maximum": 255 },
            ],
        })
    }
}

/// Destination ports: all from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

const RANGE_REMEDY: &str = "write a port such as 80 or a range such as \"8000-8999\", within 0 to \
                            65535";

impl PortRange {
    /// The ports from `first` to `last`, both included; `None` if `last` is the smaller one.
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (first <= last).then_some(PortRange { first, last })
    }

    /// The smallest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The largest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Reads the field `ports`.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<PortRange> {
        let value = fields.value("ports")?;
        let range = match &value {
            Value::String(text) => text.parse(),
            Value::Number(number) => match number.as_u64().map(u16::try_from) {
                Some(Ok(port)) => Ok(PortRange { first: port, last: port }),
                _ => Err(not_ports(&number.to_string())),
            },
            Value::Array(_) => Err(Misfit::new(
                "a list is not a port or a range of ports",
                "write one port or range; for several, write a rule for each",
            )),
            other => Err(not_ports(&shown(other))),
        };
        range.map_err(|misfit| fields.fault("ports", misfit.what, misfit.remedy)).ok()
    }
}

fn not_ports(shown: &str) -> Misfit {
    Misfit::new(format!("{shown} is not a port or a range of ports"), RANGE_REMEDY)
}

impl FromStr for PortRange {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<PortRange, Misfit> {
        let port = |part: &str| -> Result<u16, Misfit> {
            // The parser of numbers would also take a sign.
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits).ok_or_else(|| not_ports(&quoted(text)))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        PortRange::new(first, last).ok_or_else(|| {
            let what = format!("{} ends before it begins", quoted(text));
            Misfit::new(what, format!("write \"{last}-{first}\""))
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => serializer.serialize_u16(self.first),
            false => serializer.collect_str(self),
        }
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> Cow<'static, str> {
        "PortRange".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Destination ports: one, or a range such as \"8000-8999\".",
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 65535 },
                { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_names_or_numbers() {
        for (text, number, printed) in [
            ("tcp", 6, "tcp"),
            ("17", 17, "udp"),
            ("ipv6-icmp", 58, "icmpv6"),
            ("vrrp", 112, "vrrp"),
            ("0", 0, "0"),
            ("255", 255, "255"),
        ] {
            let protocol: Protocol = text.parse().expect(text);
            assert_eq!((protocol.number(), protocol.to_string().as_str()), (number, printed));
            assert_eq!(printed.parse(), Ok(protocol));
        }
        for number in 0..=255 {
            let protocol = Protocol::new(number);
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        let such = "write a name such as tcp, udp or icmp, or a number from 0 to 255";
        for (text, message) in [
            ("", format!("`` is not a protocol; {such}")),
            ("256", format!("`256` is not a protocol; {such}")),
            ("+6", format!("`+6` is not a protocol; {such}")),
            ("http", format!("`http` is not a protocol; {such}")),
            ("TCP", "`TCP` is not a protocol; write tcp".to_owned()),
            ("any", "`any` is not a protocol; leave the protocol out to mean any".to_owned()),
        ] {
            assert_eq!(text.parse::<Protocol>().expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn ranges_of_ports_print_as_they_are_written() {
        for (text, first, last) in
            [("80", 80, 80), ("0-65535", 0, 65535), ("8000-8999", 8000, 8999)]
        {
            let range: PortRange = text.parse().expect(text);
            assert_eq!(
                (range.first(), range.last(), range.to_string()),
                (first, last, text.into())
            );
        }
        assert_eq!("80-80".parse(), Ok(PortRange { first: 80, last: 80 }));
        for bad in ["", "-", "80-", "-80", "65536", "1-2-3", "http", "+80", "80 - 90", "80:90"] {
            assert_eq!(
                bad.parse::<PortRange>().expect_err(bad).to_string(),
                format!(
                    "`{bad}` is not a port or a range of ports; write a port such as 80 or a range \
                     such as \"8000-8999\", within 0 to 65535"
                )
            );
        }
        assert_eq!(
            "90-80".parse::<PortRange>().expect_err("backwards").to_string(),
            "`90-80` ends before it begins; write \"80-90\""
        );
    }
}
