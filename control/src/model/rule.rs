//! One rule of a security group: which frames, from or to whom, and whether they may pass.
//!
//! What a rule leaves open is filled in as it is read where the rest of it decides: a prefix is of one
//! IP version, `icmp` is ICMPv6 where the rule is about IPv6. So a rule in memory means the same
//! whoever looks at it, however it was written.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AddressGroupUuid, Name, PortRange, Prefix, Protocol, SecurityGroupUuid};
use crate::fields::Fields;

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema, Hash)]
#[schemars(deny_unknown_fields)]
pub struct Rule {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Which way the frames go, as the port's owner sees it.
    pub direction: Direction,
    /// The version of IP. Default: that of the prefix or of ICMP, where the rule has one; else both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<Ethertype>,
    /// The protocol. Default: any. `icmp` with `ethertype` `ipv6` is ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The destination ports, of a protocol that has ports. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// The type of ICMP or ICMPv6, 0 to 255. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// The code of that type, 0 to 255. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Who is at the other end. Default: anybody.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// What becomes of the frames.
    #[serde(default)]
    pub action: Action,
    /// Rules of higher priority are looked at first; at the same priority, deny wins.
    #[serde(default)]
    pub priority: u16,
}

/// Which way a frame goes, as the port's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the port's owner.
    Ingress,
    /// From the port's owner.
    Egress,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ethertype {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Who is at the other end: the source of what comes in, the destination of what goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub enum Remote {
    /// Whoever has an address in this prefix.
    #[serde(rename = "remote_prefix")]
    Prefix(Prefix),
    /// The members of this security group.
    #[serde(rename = "remote_group")]
    Group(SecurityGroupUuid),
    /// Whoever has an address in this address group.
    #[serde(rename = "remote_address_group")]
    AddressGroup(AddressGroupUuid),
}

/// What becomes of a frame that a rule is about.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    #[default]
    Permit,
    /// It is dropped.
    Deny,
}

impl Rule {
    /// A rule that permits all frames of one direction.
    pub fn new(direction: Direction) -> Rule {
        Rule {
            name: None,
            direction,
            ethertype: None,
            protocol: None,
            ports: None,
            icmp_type: None,
            icmp_code: None,
            remote: None,
            action: Action::Permit,
            priority: 0,
        }
    }

    /// The version of IP that the rest of the rule decides, without a word of it.
    pub(super) fn implied_ethertype(&self) -> Option<Ethertype> {
        match (self.remote, self.protocol) {
            (Some(Remote::Prefix(prefix)), _) => Some(Ethertype::of(prefix)),
            (_, Some(Protocol::ICMP)) => Some(Ethertype::Ipv4),
            (_, Some(Protocol::ICMPV6)) => Some(Ethertype::Ipv6),
            _ => None,
        }
    }

    /// Fills in what the rest of the rule decides. To be called once, on a rule as written.
    pub(super) fn complete(mut self) -> Rule {
        self.ethertype = self.ethertype.or(self.implied_ethertype());
        if self.ethertype == Some(Ethertype::Ipv6) && self.protocol == Some(Protocol::ICMP) {
            self.protocol = Some(Protocol::ICMPV6);
        }
        self
    }

    /// What is wrong with the rule as a whole, as field, what and remedy, before it is completed.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let Rule { ethertype, protocol, remote, .. } = self;
        let shown = protocol.map(|protocol| format!("`{protocol}`"));
        let said = shown.as_deref().map_or("the rule names no protocol", |shown| shown);
        let prefix = match remote {
            Some(Remote::Prefix(prefix)) => Some(*prefix),
            _ => None,
        };
        if let (Some(ethertype), Some(prefix)) = (*ethertype, prefix)
            && ethertype != Ethertype::of(prefix)
        {
            let right = Ethertype::of(prefix).word();
            found.push((
                "ethertype",
                format!("{prefix} is not of `{}`", ethertype.word()),
                format!("write `{right}`, or leave it out: the prefix says it"),
            ));
        }
        let version = prefix.map(Ethertype::of).or(*ethertype);
        if *protocol == Some(Protocol::ICMPV6) && version == Some(Ethertype::Ipv4) {
            let what = "`icmpv6` is not a protocol of `ipv4`";
            found.push(("protocol", what.to_owned(), "write `icmp`, or `ipv6`".to_owned()));
        }
        if self.ports.is_some() && !protocol.is_some_and(Protocol::has_ports) {
            let what = match &shown {
                Some(shown) => format!("{shown} has no ports"),
                None => said.to_owned(),
            };
            let remedy = "name tcp, udp, sctp, dccp or udplite as the protocol, or leave ports out";
            found.push(("ports", what, remedy.to_owned()));
        }
        for (field, value) in [("icmp_type", self.icmp_type), ("icmp_code", self.icmp_code)] {
            if value.is_some() && !protocol.is_some_and(Protocol::is_icmp) {
                let what = match &shown {
                    Some(shown) => format!("{shown} has no types and codes"),
                    None => said.to_owned(),
                };
                let remedy = "name icmp or icmpv6 as the protocol, or leave type and code out";
                found.push((field, what, remedy.to_owned()));
            }
        }
        if self.icmp_code.is_some() && self.icmp_type.is_none() {
            let what = "a code means nothing without its type";
            found.push(("icmp_code", what.to_owned(), "add icmp_type".to_owned()));
        }
        found
    }

    pub(super) fn read(mut fields: Fields<'_>) -> Option<Rule> {
        let name = fields.text("name");
        let need = "write `ingress` (towards the port's owner) or `egress` (from it)";
        fields.require("direction", need);
        let direction = fields
            .choice("direction", &[("ingress", Direction::Ingress), ("egress", Direction::Egress)]);
        let ethertype =
            fields.choice("ethertype", &[("ipv4", Ethertype::Ipv4), ("ipv6", Ethertype::Ipv6)]);
        let protocol = fields.value("protocol").map(|value| {
            Protocol::from_value(&value)
                .map_err(|misfit| fields.fault("protocol", misfit.what, misfit.remedy))
        });
        let ports = PortRange::read(&mut fields);
        let icmp_type = fields.number("icmp_type", 0..=u8::MAX.into());
        let icmp_code = fields.number("icmp_code", 0..=u8::MAX.into());
        let remote = Remote::read(&mut fields);
        let actions = [("permit", Action::Permit), ("deny", Action::Deny)];
        let action = fields.choice("action", &actions).unwrap_or_default();
        let priority = fields.number("priority", 0..=u16::MAX.into()).unwrap_or_default();
        let rule = Rule {
            name,
            // Of a rule without direction, the rest is judged all the same.
            direction: direction.unwrap_or(Direction::Ingress),
            ethertype,
            protocol: protocol.and_then(Result::ok),
            ports,
            icmp_type,
            icmp_code,
            remote,
            action,
            priority,
        };
        // A protocol that could not be read may be any: nothing can be said against what goes with it.
        if !matches!(protocol, Some(Err(()))) {
            for (field, what, remedy) in rule.contradictions() {
                fields.fault(field, what, remedy);
            }
        }
        fields.finish();
        direction.map(|_| rule.complete())
    }
}

impl Ethertype {
    /// The version that a prefix is of.
    pub fn of(prefix: Prefix) -> Ethertype {
        if prefix.is_ipv6() { Ethertype::Ipv6 } else { Ethertype::Ipv4 }
    }

    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            Ethertype::Ipv4 => "ipv4",
            Ethertype::Ipv6 => "ipv6",
        }
    }
}

impl Direction {
    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

impl Remote {
    fn read(fields: &mut Fields<'_>) -> Option<Remote> {
        const FIELDS: [&str; 3] = ["remote_prefix", "remote_group", "remote_address_group"];
        let given = FIELDS.map(|field| fields.has(field));
        let [first, ..] = FIELDS;
        let chosen = given.iter().position(|given| *given).map_or(first, |index| FIELDS[index]);
        for (field, _) in
            FIELDS.iter().zip(given).filter(|(field, given)| *given && **field != chosen)
        {
            let what = format!("stands beside {chosen}, and a rule has one remote");
            fields.fault(field, what, "leave one out; for either of two, write two rules");
        }
        let remotes = [
            fields.text("remote_prefix").map(Remote::Prefix),
            fields.text("remote_group").map(Remote::Group),
            fields.text("remote_address_group").map(Remote::AddressGroup),
        ];
        remotes.into_iter().flatten().next()
    }
}
