//! What is shown of ports' filters: compiled rules and their hits.

use dataplane::acl::{Acl, Direction, Entry, Family, Part};

use super::Switch;
use crate::filters::{Compiled, PortFilter};
use crate::model::{GroupNames as _, PortUuid, Protocol, Remote, Rule, SecurityGroupUuid};
use crate::show::view::{
    AclRulesView, AclView, GroupRef, NamedRule, PortSecurity, RuleView, SideView,
};

impl From<&PortFilter> for PortSecurity {
    fn from(filter: &PortFilter) -> Self {
        match filter {
            PortFilter::Open => Self::Open,
            PortFilter::Closed(_) => Self::Closed,
            PortFilter::Filtered(_) => Self::Filtered,
        }
    }
}

impl Switch {
    /// The compiled rules of one port or of all, with each of them if that is wanted.
    pub(crate) fn acl_views(&self, only: Option<PortUuid>, rules: bool) -> Vec<AclView> {
        let wanted = only.map(|uuid| self.desired.ports.get(&uuid));
        let view = |(groups, compiled): (&[SecurityGroupUuid], &Compiled)| {
            let has =
                |port: &crate::model::Port| port.port_security && port.security_groups == groups;
            if !wanted.is_none_or(|port| port.is_some_and(has)) {
                return None;
            }
            let ports = self.desired.ports.iter().filter(|(_, port)| has(port));
            let acl = compiled.acl();
            let size = acl.map(|acl| acl.size()).unwrap_or_default();
            Some(AclView {
                groups: groups.iter().map(|group| self.group_ref(*group)).collect(),
                ports: ports.map(|(uuid, _)| self.port_ref(*uuid)).collect(),
                entries: size.rules as u64,
                memory_bytes: size.bytes as u64,
                lines_read: size.lines_read as u64,
                compile_seconds: compiled.took.as_secs_f64(),
                waits_for: compiled.waits_for().map(ToString::to_string),
                refusal: compiled.refusal.clone(),
                rules: acl.filter(|_| rules).map(|acl| self.rules_view(compiled, acl)),
            })
        };
        self.filters.all().filter_map(view).collect()
    }

    /// The rules of a set of groups, with their hits.
    pub(super) fn rules_view(&self, compiled: &Compiled, acl: &Acl) -> AclRulesView {
        let side = |direction| {
            let (hits, unmatched) = acl.hits(direction);
            let mut rules: Vec<RuleView> = Vec::new();
            for (entry, hits) in acl.entries(direction).iter().zip(hits) {
                let rule = self.named_rule(compiled, entry);
                // A rule for both versions of IP is compiled for each, and answers of ICMP for each
                // type. No frame is fit by two of these, so their order means nothing.
                let label = (rule.group.uuid, rule.number);
                let beside =
                    |known: &&mut RuleView| (known.rule.group.uuid, known.rule.number) == label;
                let mut beside = rules.iter_mut().rev().take_while(beside);
                match beside.find(|known| known.rule.answer == rule.answer) {
                    Some(known) => known.hits += hits,
                    None => rules.push(RuleView { rule, hits }),
                }
            }
            SideView { rules, unmatched }
        };
        AclRulesView { ingress: side(Direction::Ingress), egress: side(Direction::Egress) }
    }

    /// A compiled rule.
    pub(super) fn named_rule(&self, compiled: &Compiled, entry: &Entry) -> NamedRule {
        let (group, number, rule) = compiled.origin(entry);
        NamedRule {
            group: self.group_ref(group),
            number: number as u32,
            line: rule.named(&self.desired).to_string(),
            answer: entry.answer.then(|| self.answer_text(entry, rule)),
        }
    }

    /// What of the traffic that answers a rule an entry is about.
    fn answer_text(&self, entry: &Entry, rule: &Rule) -> String {
        let family = entry.rule.family;
        if entry.is_error() {
            return match family {
                Family::V4 => "icmp errors: types 3, 11, 12".to_owned(),
                Family::V6 => "icmpv6 errors: types 1 to 4".to_owned(),
            };
        }
        if family == Family::V4
            && rule.icmp_type.is_none()
            && matches!(entry.rule.part, Part::Icmp(..))
        {
            let remote = self.remote_clause(entry, rule);
            return format!("icmp answers: types 0, 14, 16, 18{remote}");
        }
        let protocol = Protocol::new(entry.rule.protocol.unwrap_or_default());
        let what = match entry.rule.part {
            Part::Ports(first, last) if first == last => format!(" from port {first}"),
            Part::Ports(first, last) => format!(" from ports {first}-{last}"),
            Part::Icmp(kind, _) => format!(" {kind}"),
            Part::All => String::new(),
        };
        let flags = if protocol == Protocol::TCP { " with ACK or RST" } else { "" };
        format!("{protocol}{what}{flags}{}", self.remote_clause(entry, rule))
    }

    /// The other end, for an entry in its own direction.
    fn remote_clause(&self, entry: &Entry, rule: &Rule) -> String {
        let Some(remote) = rule.remote else { return String::new() };
        let way = match entry.rule.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let name = self.desired.name(remote);
        match remote {
            Remote::Prefix(prefix) => format!(" {way} {prefix}"),
            Remote::Group(id) => {
                format!(" {way} group {}", name.unwrap_or_else(|| id.to_string()))
            }
            Remote::AddressGroup(id) => {
                format!(" {way} address-group {}", name.unwrap_or_else(|| id.to_string()))
            }
        }
    }

    pub(super) fn group_ref(&self, uuid: SecurityGroupUuid) -> GroupRef {
        let group = self.desired.security_groups.get(&uuid);
        GroupRef { uuid, name: group.and_then(|group| group.name.clone()) }
    }
}
