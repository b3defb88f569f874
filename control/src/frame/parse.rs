//! From a line to a frame, or to what is wrong with the line.

use std::iter::Peekable;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::vec::IntoIter;

use super::{Content, MacBytes, Sketch, Transport};
use crate::model::Protocol;
use crate::problem::{Misfit, quoted};

const EXAMPLE: &str = "write a frame such as `tcp 10.0.0.1:1234 > 10.0.0.2:80 syn`";

/// TCP's flags (RFC 9293 §3.1), and what may be written to have none of them.
pub(super) const FLAGS: [(&str, u8); 7] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("none", 0),
];

const SYN: u8 = 0x02;

type Words = Peekable<IntoIter<String>>;

impl FromStr for Sketch {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Sketch, Misfit> {
        let spaced = text.to_ascii_lowercase().replace('>', " > ");
        let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        let mut words = words.into_iter().peekable();
        let first = words.next().ok_or_else(|| Misfit::new("the frame is empty", EXAMPLE))?;
        let content = match first.as_str() {
            "raw" => Content::Raw(raw(&mut words)?),
            "arp" => arp(&mut words)?,
            _ => packet(&first, &mut words)?,
        };
        let mut sketch =
            Sketch { content, source_mac: None, destination_mac: None, vlan: None, fragment: None };
        while let Some(option) = words.next() {
            sketch.option(&option, &mut words)?;
        }
        Ok(sketch)
    }
}

impl Sketch {
    fn option(&mut self, option: &str, words: &mut Words) -> Result<(), Misfit> {
        match (option, &mut self.content) {
            ("mac", _) => {
                if let Some(source) = words.next_if(|word| word != ">") {
                    self.source_mac = Some(mac(&source)?);
                }
                if words.next_if(|word| word == ">").is_some()
                    && let Some(destination) = words.next_if(|word| word.contains(':'))
                {
                    self.destination_mac = Some(mac(&destination)?);
                }
            }
            ("vlan", _) => {
                self.vlan = Some(number(option, "a VLAN from 0 to 4095", 4095, words)?);
            }
            ("fragment", Content::Packet { .. }) => {
                if words.next_if(|word| word == "first").is_some() {
                    self.fragment = Some(0);
                    return Ok(());
                }
                let what = "`first`, or where it begins in its packet: a multiple of 8 up to 65528";
                let offset = number(option, what, 65_528, words)?;
                if !offset.is_multiple_of(8) || offset == 0 {
                    let said = format!("no fragment begins {offset} octets into its packet");
                    return Err(Misfit::new(said, format!("write {what}")));
                }
                self.fragment = Some(offset);
            }
            (
                "target",
                Content::Packet { transport: Transport::Icmp { target, .. }, protocol, .. },
            ) if *protocol == Protocol::ICMPV6.number() => {
                let word = words.next().unwrap_or_default();
                *target = Some(word.parse().map_err(|_| {
                    let what = format!("{} is not an IPv6 address", quoted(&word));
                    Misfit::new(what, "write the address that is asked for, such as 2001:db8::2")
                })?);
            }
            _ => {
                return Err(Misfit::new(
                    format!("{} is not understood there", quoted(option)),
                    "write `mac`, `vlan` or `fragment`, and flags only after tcp",
                ));
            }
        }
        Ok(())
    }
}

fn raw(words: &mut Words) -> Result<Vec<u8>, Misfit> {
    let digits: String = words.collect::<Vec<_>>().concat();
    let remedy = "write each octet as two hexadecimal digits, with or without blanks between";
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Misfit::new(format!("{} are not octets", quoted(&digits)), remedy));
    }
    let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
    let octets: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(octet).collect();
    octets.map_err(|_| Misfit::new(format!("{} are not octets", quoted(&digits)), remedy))
}

fn arp(words: &mut Words) -> Result<Content, Misfit> {
    let written: [Option<String>; 4] = std::array::from_fn(|index| {
        // `is-at` has three words, `who-has` four; options follow.
        (index < 3 || words.peek().is_some_and(|word| four(word).is_ok()))
            .then(|| words.next())
            .flatten()
    });
    let written = written.each_ref().map(|word| word.as_deref().unwrap_or_default());
    match written {
        ["who-has", target, "tell", sender] => {
            Ok(Content::Asks { target: four(target)?, sender: four(sender)? })
        }
        [address, "is-at", sender, ""] => {
            Ok(Content::Tells { address: four(address)?, sender: mac(sender)? })
        }
        _ => Err(Misfit::new(
            format!("{} is not ARP", quoted(written.join(" ").trim())),
            "write `arp who-has 10.0.0.2 tell 10.0.0.1` or `arp 10.0.0.1 is-at 52:54:00:00:00:01`",
        )),
    }
}

fn packet(first: &str, words: &mut Words) -> Result<Content, Misfit> {
    let name = match first {
        "protocol" => words.next().unwrap_or_default(),
        name => name.to_owned(),
    };
    let mut protocol: Protocol = name.parse().map_err(|misfit: Misfit| {
        Misfit::new(misfit.what, format!("{}; {EXAMPLE}", misfit.remedy))
    })?;
    let kind = if protocol.is_icmp() { Some(icmp_type(words)?) } else { None };
    let source = end(protocol, words.next())?;
    let arrow = words.next().unwrap_or_default();
    if arrow != ">" {
        let what = format!("{} stands where `>` should", quoted(&arrow));
        return Err(Misfit::new(what, EXAMPLE));
    }
    let destination = end(protocol, words.next())?;
    if source.0.is_ipv4() != destination.0.is_ipv4() {
        let what = format!("{} and {} are not of one version of IP", source.0, destination.0);
        return Err(Misfit::new(what, "write two addresses of the same"));
    }
    if protocol.is_icmp() {
        let right = if source.0.is_ipv6() { Protocol::ICMPV6 } else { Protocol::ICMP };
        if protocol == Protocol::ICMPV6 && right != protocol {
            return Err(Misfit::new("`icmpv6` is not sent over IPv4", "write `icmp`"));
        }
        protocol = right;
    }
    let transport = match (kind, source.1, destination.1) {
        (Some((kind, code)), ..) => Transport::Icmp { kind, code, target: None },
        (None, Some(source), Some(destination)) => {
            let flags = if protocol == Protocol::TCP { flags(words) } else { 0 };
            Transport::Ports { source, destination, flags }
        }
        (None, ..) => Transport::Other,
    };
    let (source, destination) = (source.0, destination.0);
    Ok(Content::Packet { source, destination, protocol: protocol.number(), transport })
}

/// The flags that are written, or SYN if there are none: with it a connection begins.
fn flags(words: &mut Words) -> u8 {
    let flag = |word: &str| FLAGS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit);
    let mut written = None;
    while let Some(word) = words.next_if(|word| word.split(',').all(|one| flag(one).is_some())) {
        let bits = word.split(',').filter_map(flag).fold(0, |bits, bit| bits | bit);
        written = Some(written.unwrap_or(0) | bits);
    }
    written.unwrap_or(SYN)
}

fn icmp_type(words: &mut Words) -> Result<(u8, u8), Misfit> {
    let word = words.next().unwrap_or_default();
    let (kind, code) = word.split_once('/').unwrap_or((&word, "0"));
    match (octet(kind), octet(code)) {
        (Some(kind), Some(code)) => Ok((kind, code)),
        _ => Err(Misfit::new(
            format!("{} is not a type and code of ICMP", quoted(&word)),
            "write these first: `icmp 8/0 10.0.0.1 > 10.0.0.2`",
        )),
    }
}

fn octet(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// An address, with a port if the protocol has ports.
fn end(protocol: Protocol, word: Option<String>) -> Result<(IpAddr, Option<u16>), Misfit> {
    let word = word.unwrap_or_default();
    let plain = |text: &str| -> Option<IpAddr> {
        match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(inside) => inside.parse().ok().filter(IpAddr::is_ipv6),
            None => text.parse().ok(),
        }
    };
    if !protocol.has_ports() {
        let misfit = || {
            let what = format!("{} is not an address, as {protocol} has it", quoted(&word));
            Misfit::new(what, "write an address such as 10.0.0.1 or 2001:db8::1")
        };
        return plain(&word).map(|address| (address, None)).ok_or_else(misfit);
    }
    let misfit = || {
        let what = format!("{} is not an address with a port", quoted(&word));
        Misfit::new(what, "write one such as 10.0.0.1:80 or [2001:db8::1]:80")
    };
    let (address, port) = word.rsplit_once(':').ok_or_else(misfit)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or_else(misfit)?;
    // Without brackets nobody can tell where an address of IPv6 ends.
    let address = plain(address).filter(|it| it.is_ipv4() || address.starts_with('['));
    Ok((address.ok_or_else(misfit)?, Some(port)))
}

fn four(word: &str) -> Result<Ipv4Addr, Misfit> {
    word.parse().map_err(|_| {
        let what = format!("{} is not an IPv4 address", quoted(word));
        Misfit::new(what, "write an address such as 10.0.0.1")
    })
}

/// Any MAC address: also a group's, or nobody's, as frames may have.
pub(super) fn mac(word: &str) -> Result<MacBytes, Misfit> {
    let parts: Option<Vec<u8>> = word
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+'))
        })
        .collect();
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(|| {
        let what = format!("{} is not a MAC address", quoted(word));
        Misfit::new(what, "write six pairs of digits, such as 52:54:00:12:34:56")
    })
}

fn number(option: &str, what: &str, most: u16, words: &mut Words) -> Result<u16, Misfit> {
    let word = words.next().unwrap_or_default();
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|number| digits && *number <= most).ok_or_else(|| {
        let said = format!("{} stands after `{option}`", quoted(&word));
        Misfit::new(said, format!("write {what}"))
    })
}
