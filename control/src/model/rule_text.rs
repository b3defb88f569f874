//! A rule as one line: `deny ingress tcp 8000-8999 from 10.0.0.0/8 priority 100`.
//!
//! The line is what people type for a command and what they are shown; JSON is what is stored. What
//! is printed parses to the same rule, so a line can be copied from where it is shown to where it is
//! written. The grammar:
//!
//! ```text
//! RULE     [permit | deny] DIRECTION [ipv4 | ipv6] [WHAT] [REMOTE] [priority NUMBER] [name NAME]
//! DIRECTION  ingress | egress
//! WHAT     any | NAME-OF-PROTOCOL [PORTS | TYPE[/CODE]] | protocol NUMBER [PORTS | TYPE[/CODE]]
//! REMOTE   from SET | to SET              from for ingress, to for egress
//! SET      any | PREFIX | group GROUP | address-group GROUP
//! ```
//!
//! Words that have blanks in them are put in double quotes.

use std::fmt;
use std::iter::Peekable;
use std::str::FromStr;

use super::{
    Action, AddressGroupUuid, Direction, Ethertype, Prefix, Protocol, Remote, Rule,
    SecurityGroupUuid,
};
use crate::problem::{Misfit, quoted};
use crate::text::Text;

/// What groups are called where a rule is written or shown.
pub trait GroupNames {
    /// The security group that is called so.
    fn security_group(&self, word: &str) -> Result<SecurityGroupUuid, Misfit>;

    /// The address group that is called so.
    fn address_group(&self, word: &str) -> Result<AddressGroupUuid, Misfit>;

    /// What the group of this remote is called, if not by its UUID.
    fn name(&self, remote: Remote) -> Option<String>;
}

/// Groups are called by their UUIDs.
struct Uuids;

impl GroupNames for Uuids {
    fn security_group(&self, word: &str) -> Result<SecurityGroupUuid, Misfit> {
        word.parse()
    }

    fn address_group(&self, word: &str) -> Result<AddressGroupUuid, Misfit> {
        word.parse()
    }

    fn name(&self, _: Remote) -> Option<String> {
        None
    }
}

impl Rule {
    /// Reads a rule that is written as one line.
    pub fn parse(text: &str, names: &dyn GroupNames) -> Result<Rule, Misfit> {
        let mut words = words(text)?.into_iter().peekable();
        let action = match words.next_if(|word| word == "permit" || word == "deny") {
            Some(word) if word == "deny" => Action::Deny,
            _ => Action::Permit,
        };
        let direction = match words.next().as_deref() {
            Some("ingress") => Direction::Ingress,
            Some("egress") => Direction::Egress,
            Some(other) => return Err(unexpected(other, "`ingress` or `egress`")),
            None => {
                let example = "write a rule such as `ingress tcp 80 from 10.0.0.0/8`";
                return Err(Misfit::new("the rule has no direction", example));
            }
        };
        let mut rule = Rule { action, ..Rule::new(direction) };
        rule.ethertype = match words.next_if(|word| word == "ipv4" || word == "ipv6").as_deref() {
            Some("ipv4") => Some(Ethertype::Ipv4),
            Some(_) => Some(Ethertype::Ipv6),
            None => None,
        };
        rule.read_what(&mut words)?;
        rule.read_rest(&mut words, names)?;
        match rule.contradictions().into_iter().next() {
            // In a line there are no fields to leave out or add; what is wrong says enough.
            Some((_, what, remedy)) => Err(Misfit::new(what, remedy)),
            None => Ok(rule.complete()),
        }
    }

    /// The rule as one line, with groups called by these names.
    pub fn named<'a>(&'a self, names: &'a dyn GroupNames) -> impl fmt::Display + 'a {
        RuleLine { rule: self, names }
    }

    /// The protocol, and what goes with it.
    fn read_what(&mut self, words: &mut Words) -> Result<(), Misfit> {
        if words.next_if(|word| word == "any").is_some() {
            return Ok(());
        }
        let Some(word) = words.next_if(|word| !is_clause(word)) else { return Ok(()) };
        let protocol: Protocol = if word == "protocol" {
            words.next().ok_or_else(|| ends_after(&word, "its number"))?.parse()?
        } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
            // Most who write this mean a port.
            return Err(Misfit::new(
                format!("{} stands where the protocol should", quoted(&word)),
                format!("write `tcp {word}` for a port, or `protocol {word}`"),
            ));
        } else {
            word.parse()?
        };
        self.protocol = Some(protocol);
        let Some(detail) = words.next_if(|word| !is_clause(word)) else { return Ok(()) };
        if protocol.has_ports() {
            self.ports = Some(detail.parse()?);
            return Ok(());
        }
        if !protocol.is_icmp() {
            let what = format!("{} stands after `{protocol}`, which has no ports", quoted(&detail));
            return Err(Misfit::new(what, "leave it out"));
        }
        let (kind, code) = match detail.split_once('/') {
            Some((kind, code)) => (kind, Some(code)),
            None => (detail.as_str(), None),
        };
        let number = |text: &str| -> Result<u8, Misfit> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or_else(|| {
                let what = format!("{} is not a type of ICMP, or type and code", quoted(&detail));
                Misfit::new(what, "write numbers from 0 to 255, such as 8 or 3/4")
            })
        };
        self.icmp_type = Some(number(kind)?);
        self.icmp_code = code.map(number).transpose()?;
        Ok(())
    }

    /// The clauses at the end, in any order, each once at most.
    fn read_rest(&mut self, words: &mut Words, names: &dyn GroupNames) -> Result<(), Misfit> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(clause) = words.next() {
            let way = match self.direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            if seen.contains(&clause) {
                let what = format!("{} stands twice", quoted(&clause));
                return Err(Misfit::new(what, "leave one out"));
            }
            match clause.as_str() {
                "from" | "to" if clause != way => {
                    let what = format!("{} does not go with {}", quoted(&clause), self.direction);
                    return Err(Misfit::new(what, format!("write `{way}`")));
                }
                "from" | "to" => self.remote = read_remote(&clause, words, names)?,
                "priority" => {
                    let word = words.next().ok_or_else(|| ends_after(&clause, "a number"))?;
                    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
                    self.priority = word.parse().ok().filter(|_| digits).ok_or_else(|| {
                        let what = format!("{} is not a priority", quoted(&word));
                        Misfit::new(what, "write a whole number from 0 to 65535")
                    })?;
                }
                "name" => {
                    let word = words.next().ok_or_else(|| ends_after(&clause, "a name"))?;
                    self.name = Some(word.parse()?);
                }
                other => {
                    return Err(unexpected(other, &format!("`{way}`, `priority` or `name`")));
                }
            }
            seen.push(clause);
        }
        Ok(())
    }
}

type Words = Peekable<std::vec::IntoIter<String>>;

fn read_remote(
    way: &str,
    words: &mut Words,
    names: &dyn GroupNames,
) -> Result<Option<Remote>, Misfit> {
    let sets = "a prefix, `group` or `address-group`";
    let word = words.next().ok_or_else(|| ends_after(way, sets))?;
    let mut group = || words.next().ok_or_else(|| ends_after(&word, "the group"));
    Ok(match word.as_str() {
        "any" => None,
        "group" => Some(Remote::Group(names.security_group(&group()?)?)),
        "address-group" => Some(Remote::AddressGroup(names.address_group(&group()?)?)),
        prefix => Some(Remote::Prefix(prefix.parse().map_err(|misfit: Misfit| {
            // Of what looks like no address at all, somebody may have meant a group.
            if misfit.remedy == Prefix::REMEDY {
                let remedy = format!("{}, or `group {word}` for a group", Prefix::REMEDY);
                return Misfit::new(misfit.what, remedy);
            }
            misfit
        })?)),
    })
}

/// Whether a clause begins with this word: then what stands before has come to its end.
fn is_clause(word: &str) -> bool {
    matches!(word, "from" | "to" | "priority" | "name")
}

fn unexpected(word: &str, instead: &str) -> Misfit {
    Misfit::new(format!("{} is not understood there", quoted(word)), format!("write {instead}"))
}

fn ends_after(word: &str, next: &str) -> Misfit {
    Misfit::new(format!("the rule ends after {}", quoted(word)), format!("add {next}"))
}

/// The words of a line. In double quotes, blanks are part of a word, and `\` takes the next character
/// as it is.
fn words(text: &str) -> Result<Vec<String>, Misfit> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|char| char.is_whitespace()).is_some() {}
        match rest.peek() {
            None => return Ok(words),
            Some('"') => {
                rest.next();
                let mut word = String::new();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(rest.next()),
                        Some(other) => word.push(other),
                        None => {
                            let what = "a quoted word does not end";
                            return Err(Misfit::new(what, "add the closing `\"`"));
                        }
                    }
                }
                words.push(word);
            }
            Some(_) => {
                let mut word = String::new();
                while let Some(char) = rest.next_if(|char| !char.is_whitespace()) {
                    word.push(char);
                }
                words.push(word);
            }
        }
    }
}

/// A word as [`words`] reads it back.
fn word(text: &str) -> String {
    let plain = |char: char| !char.is_whitespace() && char != '\\';
    if !text.is_empty() && !text.starts_with('"') && text.chars().all(plain) {
        return text.to_owned();
    }
    let escaped = text.chars().flat_map(|char| {
        let escape = matches!(char, '"' | '\\').then_some('\\');
        escape.into_iter().chain([char])
    });
    format!("\"{}\"", escaped.collect::<String>())
}

impl FromStr for Rule {
    type Err = Misfit;

    /// Reads a rule that is written as one line and calls groups by their UUIDs.
    fn from_str(text: &str) -> Result<Rule, Misfit> {
        Rule::parse(text, &Uuids)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RuleLine { rule: self, names: &Uuids }.fmt(f)
    }
}

struct RuleLine<'a> {
    rule: &'a Rule,
    names: &'a dyn GroupNames,
}

impl fmt::Display for RuleLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { direction, ethertype, protocol, ports, icmp_type, icmp_code, .. } = self.rule;
        if self.rule.action == Action::Deny {
            f.write_str("deny ")?;
        }
        direction.fmt(f)?;
        if let (Some(ethertype), None) = (ethertype, self.rule.implied_ethertype()) {
            write!(f, " {}", ethertype.word())?;
        }
        match protocol {
            None => f.write_str(" any")?,
            Some(protocol) if protocol.is_named() => write!(f, " {protocol}")?,
            Some(protocol) => write!(f, " protocol {protocol}")?,
        }
        if let Some(ports) = ports {
            write!(f, " {ports}")?;
        }
        if let Some(kind) = icmp_type {
            write!(f, " {kind}")?;
        }
        if let Some(code) = icmp_code {
            write!(f, "/{code}")?;
        }
        if let Some(remote) = self.rule.remote {
            let way = match direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            let name = self.names.name(remote).map(|name| word(&name));
            match remote {
                Remote::Prefix(prefix) => write!(f, " {way} {prefix}")?,
                Remote::Group(group) => {
                    write!(f, " {way} group {}", name.unwrap_or_else(|| group.to_string()))?;
                }
                Remote::AddressGroup(group) => {
                    write!(
                        f,
                        " {way} address-group {}",
                        name.unwrap_or_else(|| group.to_string())
                    )?;
                }
            }
        }
        if self.rule.priority != 0 {
            write!(f, " priority {}", self.rule.priority)?;
        }
        if let Some(name) = &self.rule.name {
            write!(f, " name {}", word(name.as_str()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{PortRange, SecurityGroup};

    const GROUP: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";

    /// A group `db`, and an address group `bad ones`.
    struct Named;

    impl GroupNames for Named {
        fn security_group(&self, word: &str) -> Result<SecurityGroupUuid, Misfit> {
            match word {
                "db" => GROUP.parse(),
                _ => Err(Misfit::new("there is no such group", "add it")),
            }
        }

        fn address_group(&self, word: &str) -> Result<AddressGroupUuid, Misfit> {
            match word {
                "bad ones" => GROUP.parse(),
                _ => Err(Misfit::new("there is no such group", "add it")),
            }
        }

        fn name(&self, remote: Remote) -> Option<String> {
            match remote {
                Remote::Prefix(_) => None,
                Remote::Group(_) => Some("db".to_owned()),
                Remote::AddressGroup(_) => Some("bad ones".to_owned()),
            }
        }
    }

    #[test]
    fn lines_are_rules_and_print_in_one_form() {
        for (line, json, printed) in [
            (
                "ingress tcp 80 from 10.0.0.0/8",
                r#"{"direction":"ingress","protocol":"tcp","ports":80,"remote_prefix":"10.0.0.0/8"}"#,
                None,
            ),
            ("egress any", r#"{"direction":"egress"}"#, None),
            ("permit egress", r#"{"direction":"egress"}"#, Some("egress any")),
            ("egress to any", r#"{"direction":"egress"}"#, Some("egress any")),
            (
                "ingress icmp 8/0 from group db",
                r#"{"direction":"ingress","protocol":"icmp","icmp_type":8,"icmp_code":0,
                    "ethertype":"ipv4","remote_group":"cccccccc-cccc-4ccc-8ccc-cccccccccccc"}"#,
                None,
            ),
            (
                "deny ingress udp from address-group \"bad ones\" priority 100 name \"no \\\"x\\\"\"",
                r#"{"direction":"ingress","protocol":"udp","action":"deny","priority":100,
                    "name":"no \"x\"",
                    "remote_address_group":"cccccccc-cccc-4ccc-8ccc-cccccccccccc"}"#,
                None,
            ),
            (
                "  ingress  ipv6 icmp\t128 priority 5 from any",
                r#"{"direction":"ingress","protocol":"icmpv6","icmp_type":128,"priority":5}"#,
                Some("ingress icmpv6 128 priority 5"),
            ),
            (
                "ingress ipv6 tcp 8000-8999",
                r#"{"direction":"ingress","protocol":"tcp","ports":"8000-8999","ethertype":"ipv6"}"#,
                None,
            ),
            (
                "ingress ipv4 any from 10.0.0.1",
                r#"{"direction":"ingress","remote_prefix":"10.0.0.1"}"#,
                Some("ingress any from 10.0.0.1"),
            ),
            (
                "egress protocol 6 443-443 to ::/0",
                r#"{"direction":"egress","protocol":6,"ports":443,"remote_prefix":"::/0"}"#,
                Some("egress tcp 443 to ::/0"),
            ),
            ("ingress protocol 200", r#"{"direction":"ingress","protocol":200}"#, None),
        ] {
            let rule = Rule::parse(line, &Named).expect(line);
            let group = format!(r#"{{"rules":[{json}]}}"#);
            let group = SecurityGroup::from_json(group.as_bytes()).expect(json);
            assert_eq!(rule, group.rules[0], "{line}");
            assert_eq!(rule.named(&Named).to_string(), printed.unwrap_or(line));
        }
    }

    #[test]
    fn lines_that_are_no_rules_are_told_apart() {
        let set = "write an address such as 10.0.0.5, or a prefix such as 10.0.0.0/8 or \
                   2001:db8::/32";
        for (line, message) in [
            (
                "",
                "the rule has no direction; write a rule such as `ingress tcp 80 from 10.0.0.0/8`"
                    .to_owned(),
            ),
            ("tcp 80", "`tcp` is not understood there; write `ingress` or `egress`".to_owned()),
            (
                "ingress 80",
                "`80` stands where the protocol should; write `tcp 80` for a port, or `protocol \
                 80`"
                .to_owned(),
            ),
            (
                "ingress http",
                "`http` is not a protocol; write a name such as tcp, udp or icmp, or a number from \
                 0 to 255"
                    .to_owned(),
            ),
            ("ingress protocol", "the rule ends after `protocol`; add its number".to_owned()),
            (
                "ingress tcp http",
                "`http` is not a port or a range of ports; write a port such as 80 or a range such \
                 as \"8000-8999\", within 0 to 65535"
                    .to_owned(),
            ),
            (
                "ingress gre 80",
                "`80` stands after `gre`, which has no ports; leave it out".to_owned(),
            ),
            (
                "ingress icmp echo",
                "`echo` is not a type of ICMP, or type and code; write numbers from 0 to 255, such \
                 as 8 or 3/4"
                    .to_owned(),
            ),
            (
                "ingress icmp 8/",
                "`8/` is not a type of ICMP, or type and code; write numbers from 0 to 255, such \
                 as 8 or 3/4"
                    .to_owned(),
            ),
            ("ingress tcp 80 to any", "`to` does not go with ingress; write `from`".to_owned()),
            (
                "ingress from",
                "the rule ends after `from`; add a prefix, `group` or `address-group`".to_owned(),
            ),
            ("ingress from group", "the rule ends after `group`; add the group".to_owned()),
            (
                "ingress from db",
                format!(
                    "`db` is not an IP address or prefix; {set}, or `group db` for a group"
                ),
            ),
            (
                "ingress from 10.0.0.1/8",
                "`10.0.0.1/8` has bits set beyond its length; write 10.0.0.0/8 for the prefix, or \
                 10.0.0.1 for the address"
                    .to_owned(),
            ),
            ("ingress from group web", "there is no such group; add it".to_owned()),
            (
                "ingress priority high",
                "`high` is not a priority; write a whole number from 0 to 65535".to_owned(),
            ),
            (
                "ingress priority 1 priority 2",
                "`priority` stands twice; leave one out".to_owned(),
            ),
            (
                "ingress tcp 80 90",
                "`90` is not understood there; write `from`, `priority` or `name`".to_owned(),
            ),
            (
                "ingress ipv4 any from ::/0",
                "::/0 is not of `ipv4`; write `ipv6`, or leave it out: the prefix says it"
                    .to_owned(),
            ),
            (
                "ingress name \"x",
                "a quoted word does not end; add the closing `\"`".to_owned(),
            ),
        ] {
            let misfit = Rule::parse(line, &Named).expect_err(line);
            assert_eq!(misfit.to_string(), message, "{line}");
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let prefix = prop_oneof![
            (any::<u32>(), 0..=32u8).prop_map(|(bits, length)| {
                ipnet::Ipv4Net::new(bits.into(), length).expect("a length").trunc().to_string()
            }),
            (any::<u128>(), 0..=128u8).prop_map(|(bits, length)| {
                ipnet::Ipv6Net::new(bits.into(), length).expect("a length").trunc().to_string()
            }),
        ];
        let uuid = || any::<[u8; 16]>().prop_map(uuid::Uuid::from_bytes);
        let remote = prop_oneof![
            prefix.prop_filter_map("IPv4 in IPv6", |text| text.parse().ok().map(Remote::Prefix)),
            uuid().prop_map(|uuid| Remote::Group(uuid.into())),
            uuid().prop_map(|uuid| Remote::AddressGroup(uuid.into())),
        ];
        let what = (
            prop::option::of(prop_oneof![any::<u8>(), Just(1), Just(6), Just(17), Just(58)]),
            prop::option::of((any::<u16>(), any::<u16>())),
            prop::option::of(any::<u8>()),
            prop::option::of(any::<u8>()),
        );
        let rest = (
            any::<(bool, bool)>(),
            prop::option::of(any::<bool>()),
            prop::option::of(remote),
            prop_oneof![Just(0), any::<u16>()],
            prop::option::of("\\PC{1,20}|[a \"\\\\]{1,5}|from|any"),
        );
        let rules = (what, rest).prop_map(|((protocol, ports, icmp_type, icmp_code), rest)| {
            let ((ingress, permit), ipv6, remote, priority, name) = rest;
            let protocol = protocol.map(Protocol::new);
            let ported = protocol.is_some_and(Protocol::has_ports);
            let icmp_type = icmp_type.filter(|_| protocol.is_some_and(Protocol::is_icmp));
            Rule {
                name: name.and_then(|name| name.parse().ok()),
                direction: if ingress { Direction::Ingress } else { Direction::Egress },
                ethertype: ipv6.map(|six| if six { Ethertype::Ipv6 } else { Ethertype::Ipv4 }),
                protocol,
                ports: (ports.filter(|_| ported))
                    .and_then(|(a, b)| PortRange::new(a.min(b), a.max(b))),
                icmp_type,
                icmp_code: icmp_code.filter(|_| icmp_type.is_some()),
                remote,
                action: if permit { Action::Permit } else { Action::Deny },
                priority,
            }
        });
        rules
            .prop_filter("a rule that contradicts itself", |rule| rule.contradictions().is_empty())
            .prop_map(Rule::complete)
    }

    proptest! {
        #[test]
        fn what_is_printed_is_the_same_rule(rule in any_rule()) {
            let line = rule.to_string();
            prop_assert_eq!(line.parse(), Ok(rule.clone()), "{}", line);
            // So is what is stored.
            let group = SecurityGroup { rules: vec![rule], ..SecurityGroup::default() };
            let text = crate::model::json(&group).to_string();
            prop_assert_eq!(SecurityGroup::from_json(text.as_bytes()), Ok(group));
        }

        #[test]
        fn no_line_panics_and_what_parses_prints_itself(
            line in "\\PC{0,60}|((permit|deny|ingress|egress|ipv4|ipv6|tcp|icmp|any|80|8/0|from|to|\
                     ::/0|10.0.0.0/8|priority|name|\"|protocol) ){0,8}"
        ) {
            if let Ok(rule) = line.parse::<Rule>() {
                let printed = rule.to_string();
                prop_assert_eq!(printed.parse(), Ok(rule.clone()));
                prop_assert_eq!(printed.parse::<Rule>().expect("parsed").to_string(), printed);
            }
        }
    }
}
