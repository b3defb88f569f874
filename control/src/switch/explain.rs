//! What may enter and leave a port, for people.

use std::collections::BTreeMap;

use super::Switch;
use crate::filters::PortFilter;
use crate::model::{Action, Mac, Port, PortUuid, ReturnTraffic};
use crate::show::view::{
    ExplainView, GroupModeView, PortSecurity, ReturnTrafficView, SideView, StatementView,
    StationView,
};
use crate::show::words;

impl Switch {
    /// What may enter and leave a port, if it is in force.
    pub(crate) fn explain_view(&self, uuid: PortUuid) -> Option<ExplainView> {
        let port = self.desired.ports.get(&uuid)?;
        let filter = self.filters.port(uuid)?;
        let mut view = ExplainView {
            port: self.port_ref(uuid),
            network: self.network_ref(port.network),
            port_security: PortSecurity::from(filter),
            reason: None,
            stations: Vec::new(),
            ethertypes: Vec::new(),
            groups: Vec::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
        };
        let policy = match filter {
            PortFilter::Open => return Some(view),
            PortFilter::Closed(reason) => {
                view.reason = Some(reason.clone());
                return Some(view);
            }
            PortFilter::Filtered(policy) => policy,
        };
        let compiled = self.filters.of(port)?;
        view.reason = compiled.refusal.clone();
        view.stations = stations(port);
        view.ethertypes = self.config.acl.permitted_ethertypes.clone();
        view.groups = compiled
            .groups()
            .map(|(uuid, group)| GroupModeView {
                group: self.group_ref(uuid),
                return_traffic: match group.return_traffic {
                    ReturnTraffic::Established => ReturnTrafficView::Established,
                    ReturnTraffic::None => ReturnTrafficView::None,
                },
            })
            .collect();
        let rules = self.rules_view(compiled, &policy.acl);
        let statements = |side: SideView| -> Vec<StatementView> {
            let statement = |rule| self.statement(compiled, rule);
            side.rules.into_iter().map(|it| it.rule).filter_map(statement).collect()
        };
        view.ingress = statements(rules.ingress);
        view.egress = statements(rules.egress);
        Some(view)
    }

    fn statement(
        &self,
        compiled: &crate::filters::Compiled,
        named: crate::show::view::NamedRule,
    ) -> Option<StatementView> {
        let (_, group) = compiled.groups().find(|(uuid, _)| *uuid == named.group.uuid)?;
        let rule = group.rules.get(named.number as usize)?;
        let words = match &named.answer {
            None => words::rule(rule, &self.desired),
            Some(answer) => answer.clone(),
        };
        Some(StatementView { permits: rule.action == Action::Permit, words, rule: named })
    }
}

/// What a port may send from.
fn stations(port: &Port) -> Vec<StationView> {
    let Some(own) = port.mac() else { return Vec::new() };
    let mut others: BTreeMap<Mac, Vec<String>> = BTreeMap::new();
    let mut addresses: Vec<String> =
        port.fixed_ips.iter().map(|ip| ip.address().to_string()).collect();
    for pair in &port.allowed_address_pairs {
        match pair.mac.filter(|mac| *mac != own) {
            Some(mac) => others.entry(mac).or_default().push(pair.ip.to_string()),
            None => addresses.push(pair.ip.to_string()),
        }
    }
    let own = StationView { mac: own, addresses };
    let others = others.into_iter().map(|(mac, addresses)| StationView { mac, addresses });
    std::iter::once(own).chain(others).collect()
}
