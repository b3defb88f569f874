//! `viaduct explain port`: what may enter and leave, in words.

use control::show::view::{
    ExplainView, GroupRef, PortRef, PortSecurity, ReturnTrafficView, StatementView,
};

use super::table::plain;

const SENT_WITHOUT_RULE: &str =
    "  ARP, and neighbour solicitations and advertisements of its own addresses
  router solicitations, multicast listener reports
  DHCP and DHCPv6 of a client
";

const NEVER_SENT: &str = "  from other addresses, 0.0.0.0 and :: excepted where DHCP and duplicate address detection need them
  answers of DHCP and DHCPv6 servers, router advertisements, redirects
  neighbour discovery in fragments
  packets that hide their transport header: tiny first fragments, later ones that could overlap
    it, truncated headers, more than 8 IPv6 extension headers
";

const RECEIVED_WITHOUT_RULE: &str =
    "  ARP, neighbour solicitations and advertisements, router advertisements
  multicast listener queries
  DHCP and DHCPv6 of a server
";

const FRAGMENTS: &str = "  A first fragment with its transport header is judged as a whole packet. A later one has no ports:
  it passes by rules for all of its protocol, not by those that name ports or types, and any rule
  that denies some of its protocol holds against it.
";

/// What may enter and leave a port.
pub fn explain(view: &ExplainView) -> String {
    let network = view.network.name.as_ref().map(ToString::to_string);
    let network = network.unwrap_or_else(|| view.network.uuid.to_string());
    let head = format!("{} on network {network}: ", name(&view.port));
    let text = match view.port_security {
        PortSecurity::Open => {
            head + "port security is off\n\nIt may send and be sent all frames of its network, from \
                    whatever address.\n"
        }
        PortSecurity::Closed => {
            let reason = view.reason.as_deref().unwrap_or("its groups are not known");
            format!("{head}it is closed\n\nNothing passes: {reason}.\n")
        }
        PortSecurity::Filtered => head + "port security is on\n\n" + &filtered(view),
    };
    text.lines().map(|line| plain(line) + "\n").collect()
}

fn filtered(view: &ExplainView) -> String {
    let mut text = String::new();
    if let Some(reason) = &view.reason {
        text += &format!("The newest rules are not in force: {reason}.\n\n");
    }
    text += "It sends only from these addresses, and link-local ones of the same MAC address:\n";
    for station in &view.stations {
        let addresses = match &station.addresses[..] {
            [] => "none but link-local".to_owned(),
            some => some.join(", "),
        };
        text += &format!("  {}  {addresses}\n", station.mac);
    }
    let others: Vec<String> = view.ethertypes.iter().map(|it| format!("{it:#06x}")).collect();
    let others = match others.is_empty() {
        true => "  frames that are neither IP nor ARP, or have the tag of a VLAN\n".to_owned(),
        false => format!(
            "  frames that are neither IP nor ARP nor of ethertype {}, or have the tag of a VLAN\n",
            others.join(", ")
        ),
    };
    text += &format!("\nIt never sends, whatever the rules:\n{NEVER_SENT}{others}");
    text += &format!("\nIt sends without a rule:\n{SENT_WITHOUT_RULE}");
    text += &rules("It sends by rules, in the order in which they hold:", &view.egress);
    text += &format!("\nIt is sent without a rule:\n{RECEIVED_WITHOUT_RULE}");
    text += &rules("It is sent by rules, in the order in which they hold:", &view.ingress);
    text += "\nAnswers to what rules permit:\n";
    for group in &view.groups {
        let mode = match group.return_traffic {
            ReturnTrafficView::Established => {
                "established: TCP segments with ACK or RST, never a bare SYN; of UDP what comes \
                 from the one port that a rule names; ICMP answers and errors"
            }
            ReturnTrafficView::None => "none: only what rules of that direction permit",
        };
        text += &format!("  {}  {mode}\n", label(&group.group));
    }
    if view.groups.is_empty() {
        text += "  it has no groups, hence no rules\n";
    }
    text += &format!("\nFragments:\n{FRAGMENTS}");
    text
}

fn rules(title: &str, statements: &[StatementView]) -> String {
    let mut text = format!("\n{title}\n");
    let words: Vec<String> = statements
        .iter()
        .map(|it| if it.permits { it.words.clone() } else { format!("not {}", it.words) })
        .collect();
    let width = words.iter().map(|words| words.chars().count()).max().unwrap_or(0);
    for (words, statement) in words.iter().zip(statements) {
        let rule = &statement.rule;
        let by = if rule.answer.is_some() { "answers rule" } else { "rule" };
        let group = label(&rule.group);
        text += &format!("  {words:<width$}  ({by} {} of {group})\n", rule.number);
    }
    if statements.is_empty() {
        text += "  nothing\n";
    }
    text
}

fn label(group: &GroupRef) -> String {
    group.name.as_ref().map_or_else(|| group.uuid.to_string(), ToString::to_string)
}

fn name(port: &PortRef) -> String {
    match port {
        PortRef::Port { uuid, name: Some(name) } => format!("{name}, {uuid},"),
        PortRef::Port { uuid, name: None } => uuid.to_string(),
        PortRef::Uplink { physnet } => physnet.to_string(),
    }
}
