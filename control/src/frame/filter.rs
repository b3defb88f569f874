//! A filter as one line: `tcp port 80 and not host 10.0.0.1`.
//!
//! It says which frames are captured or traced. Its words are those that capture programs have, as far
//! as they are needed here. The grammar:
//!
//! ```text
//! FILTER   PART [and PART…] | PART [or PART…]             either, or parentheses
//! PART     TERM…  | not PART | ( FILTER )                 terms side by side all have to hold
//! TERM     arp | ip | ip6 | PROTOCOL | protocol NUMBER | ethertype NUMBER
//!          [src | dst] [host] ADDRESS | [src | dst] net ADDRESS/LENGTH
//!          [src | dst] port NUMBER | [src | dst] mac MAC
//!          vlan [NUMBER]
//! ```

use std::fmt;
use std::iter::Peekable;
use std::net::IpAddr;
use std::str::FromStr;
use std::vec::IntoIter;

use dataplane::headers::Mac;
use dataplane::packet::ethertype;
use dataplane::watch::{End, Filter, Op, Test};
use ipnet::IpNet;

use super::parse::mac;
use crate::model::Protocol;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

const EXAMPLE: &str = FrameFilter::REMEDY;

/// Parentheses and denials that may stand within each other.
const DEPTH_MAX: usize = 16;

type Words = Peekable<IntoIter<String>>;

/// A filter, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFilter {
    text: String,
    filter: Filter,
}

text_type!(
    FrameFilter,
    "Which frames, in words such as `tcp port 80 and not host 10.0.0.1`.",
    "^[^\\x00-\\x1f]*$",
    "write a filter such as `tcp port 80 and host 10.0.0.1`"
);

impl FrameFilter {
    /// What workers ask of frames.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

impl FromStr for FrameFilter {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        Ok(Self { filter: filter(text)?, text: text.to_owned() })
    }
}

impl fmt::Display for FrameFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a filter; one that is empty matches all frames.
pub fn filter(text: &str) -> Result<Filter, Misfit> {
    let spaced = text.to_ascii_lowercase();
    let spaced = spaced.replace('(', " ( ").replace(')', " ) ").replace('!', " not ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.into_iter().peekable();
    let mut ops = Vec::new();
    if words.peek().is_some() {
        whole(&mut words, &mut ops, 0)?;
    }
    if let Some(word) = words.next() {
        return Err(Misfit::new(format!("{} is not understood there", quoted(&word)), EXAMPLE));
    }
    Filter::new(ops).map_err(|error| Misfit::new(error.to_string(), "ask for less"))
}

fn whole(words: &mut Words, ops: &mut Vec<Op>, depth: usize) -> Result<(), Misfit> {
    if depth > DEPTH_MAX {
        let remedy = "write fewer parentheses and `not`";
        return Err(Misfit::new("it is nested too deeply", remedy));
    }
    part(words, ops, depth)?;
    let mut joint = None;
    while let Some(word) = words.next_if(|word| matches!(word.as_str(), "and" | "&&" | "or" | "||"))
    {
        let op = if matches!(word.as_str(), "and" | "&&") { Op::And } else { Op::Or };
        if joint.is_some_and(|joint| joint != op) {
            return Err(Misfit::new(
                "`and` and `or` stand side by side",
                "say by parentheses what belongs together: `tcp and (port 80 or port 443)`",
            ));
        }
        joint = Some(op);
        part(words, ops, depth)?;
        ops.push(op);
    }
    Ok(())
}

fn part(words: &mut Words, ops: &mut Vec<Op>, depth: usize) -> Result<(), Misfit> {
    match words.peek().map(String::as_str) {
        Some("not") => {
            words.next();
            if depth >= DEPTH_MAX {
                return Err(Misfit::new("it is nested too deeply", "write fewer `not`"));
            }
            part(words, ops, depth + 1)?;
            ops.push(Op::Not);
        }
        Some("(") => {
            words.next();
            whole(words, ops, depth + 1)?;
            if words.next().as_deref() != Some(")") {
                return Err(Misfit::new("a parenthesis is not closed", "write `)`"));
            }
        }
        _ => {
            ops.push(Op::Test(term(words)?));
            let ends = ["and", "&&", "or", "||", "not", "(", ")"];
            while words.peek().is_some_and(|word| !ends.contains(&word.as_str())) {
                ops.extend([Op::Test(term(words)?), Op::And]);
            }
        }
    }
    Ok(())
}

fn term(words: &mut Words) -> Result<Test, Misfit> {
    let mut word = words.next().ok_or_else(|| Misfit::new("something is lacking", EXAMPLE))?;
    let end = match word.as_str() {
        "src" | "from" => End::Source,
        "dst" | "to" => End::Destination,
        _ => End::Any,
    };
    if end != End::Any {
        let lacking = || Misfit::new(format!("nothing stands after {}", quoted(&word)), EXAMPLE);
        word = words.next().ok_or_else(lacking)?;
    }
    Ok(match word.as_str() {
        "host" => {
            let word = words.next().unwrap_or_default();
            prefix(end, word.parse::<IpAddr>().ok().map(IpNet::from), &word)?
        }
        "net" => {
            let word = words.next().unwrap_or_default();
            prefix(end, word.parse::<IpNet>().ok(), &word)?
        }
        "port" => Test::Port(end, number("port", 0xffff, words)?),
        "mac" => Test::Mac(end, Mac::new(mac(&words.next().unwrap_or_default())?)),
        address if address.parse::<IpAddr>().is_ok() => {
            prefix(end, address.parse::<IpAddr>().ok().map(IpNet::from), address)?
        }
        other if end != End::Any => {
            let what = format!("{} has no sender or receiver", quoted(other));
            return Err(Misfit::new(what, "write `host`, `net`, `port` or `mac` there"));
        }
        "arp" => Test::Ethertype(ethertype::ARP),
        "ip" => Test::Ethertype(ethertype::IPV4),
        "ip6" => Test::Ethertype(ethertype::IPV6),
        "icmp6" => Test::Protocol(Protocol::ICMPV6.number()),
        "ethertype" => Test::Ethertype(number("ethertype", 0xffff, words)?),
        "protocol" => Test::Protocol(number("protocol", 0xff, words)? as u8),
        "vlan" => {
            let digits =
                words.peek().is_some_and(|word| word.starts_with(|it: char| it.is_ascii_digit()));
            Test::Vlan(digits.then(|| number("vlan", 4095, words)).transpose()?)
        }
        name => {
            let named = name.parse::<Protocol>().ok();
            let named = named.filter(|_| !name.starts_with(|it: char| it.is_ascii_digit()));
            let misfit = || Misfit::new(format!("{} is not understood", quoted(name)), EXAMPLE);
            Test::Protocol(named.ok_or_else(misfit)?.number())
        }
    })
}

fn prefix(end: End, prefix: Option<IpNet>, word: &str) -> Result<Test, Misfit> {
    let misfit = || {
        let what = format!("{} is neither an address nor a prefix, as asked for", quoted(word));
        Misfit::new(what, "write `host 10.0.0.1` or `net 10.0.0.0/8`, of IPv4 or IPv6")
    };
    Ok(match prefix.ok_or_else(misfit)?.trunc() {
        IpNet::V4(net) => Test::V4(end, net.network().into(), net.prefix_len()),
        IpNet::V6(net) => Test::V6(end, net.network().into(), net.prefix_len()),
    })
}

fn number(after: &str, most: u16, words: &mut Words) -> Result<u16, Misfit> {
    let word = words.next().unwrap_or_default();
    let value = match word.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    let plain = word.starts_with(|it: char| it.is_ascii_digit());
    value.filter(|value| plain && *value <= most).ok_or_else(|| {
        let said = format!("{} stands after `{after}`", quoted(&word));
        Misfit::new(said, format!("write a number from 0 to {most}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Sketch;

    fn matches(text: &str, frame: &str) -> bool {
        let filter = filter(text).unwrap_or_else(|misfit| panic!("{text}: {misfit}"));
        let sketch: Sketch = frame.parse().expect(frame);
        filter.matches(&sketch.bytes([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]))
    }

    #[test]
    fn filters_say_what_they_mean() {
        let web = "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn";
        let dns = "udp 10.0.0.1:1234 > 10.0.0.2:53 vlan 7";
        let six = "icmpv6 128 2001:db8::1 > 2001:db8::2";
        let arp = "arp who-has 10.0.0.2 tell 10.0.0.1";
        let all = [web, dns, six, arp];
        for (text, met) in [
            ("", &all[..]),
            ("tcp", &[web]),
            ("tcp port 80", &[web]),
            ("port 80 or port 53", &[web, dns]),
            ("dst port 1234", &[]),
            ("src port 1234 and not udp", &[web]),
            ("! udp", &[web, six, arp]),
            ("host 10.0.0.2", &[web, dns, arp]),
            ("10.0.0.2 and ip", &[web, dns]),
            ("src 10.0.0.2", &[]),
            ("net 10.0.0.0/30 and (arp or tcp)", &[web, arp]),
            ("net 2001:db8::/32", &[six]),
            ("ip6 icmp6", &[six]),
            ("icmpv6", &[six]),
            ("vlan", &[dns]),
            ("vlan 7 udp", &[dns]),
            ("vlan 8", &[]),
            ("dst mac 02:00:00:00:00:02", &[web, dns, six]),
            ("ethertype 0x806", &[arp]),
            ("protocol 17", &[dns]),
            ("tcp dst port 80 or udp dst port 53", &[web, dns]),
            ("not (tcp or udp)", &[six, arp]),
            ("not not tcp", &[web]),
        ] {
            let found: Vec<_> = all.into_iter().filter(|frame| matches(text, frame)).collect();
            assert_eq!(found, met, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let deep = format!("{}tcp{}", "(".repeat(20), ")".repeat(20));
        let long = ["tcp"; 40].join(" and ");
        for (text, said) in [
            ("tcq", "`tcq` is not understood"),
            ("tcp and", "something is lacking"),
            ("tcp and udp or arp", "stand side by side"),
            ("host 10.0.0", "neither an address nor a prefix"),
            ("src tcp", "`tcp` has no sender or receiver"),
            ("src", "nothing stands after `src`"),
            ("port 70000", "stands after `port`"),
            ("port +80", "stands after `port`"),
            ("(tcp", "not closed"),
            ("tcp )", "not understood there"),
            ("6", "`6` is not understood"),
            (deep.as_str(), "nested too deeply"),
            (&"not ".repeat(40), "nested too deeply"),
            (long.as_str(), "more than 64 things"),
        ] {
            let misfit = filter(text).expect_err(text).to_string();
            assert!(misfit.contains(said), "{text}: {misfit}");
        }
    }
}
