//! `[physnets.<name>.bond]`: several devices on one wire, in place of one.

use schemars::JsonSchema;
use serde::Serialize;

use dataplane::port::bond::MEMBERS_MAX;

use super::Physnet;
use crate::bond::LacpRules;
use crate::fields::Fields;
use crate::model::{Devargs, PhysnetName};
use crate::problem::Fault;

/// Several devices on one wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BondConfig {
    /// The DPDK devices on the wire.
    #[schemars(length(min = 2, max = 8))]
    pub members: Vec<Devargs>,
    /// Which of them carry frames.
    #[serde(default)]
    pub mode: BondMode,
    /// With `active-backup`: the member that carries frames whenever its link is up. Default: none, and
    /// a member carries until its own link is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Devargs>,
    /// Milliseconds for which a link has to be up before its member carries frames, as long as another
    /// one does. A switch that has just started says that its links are up before it forwards.
    #[serde(default = "up_delay")]
    #[schemars(range(max = 600_000))]
    pub up_delay_ms: u32,
    /// Milliseconds between two looks at the links.
    #[serde(default = "monitor")]
    #[schemars(range(min = 5, max = 1_000))]
    pub monitor_ms: u32,
    /// With `lacp`: how often the partner is asked to send. Default: `fast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp_rate: Option<LacpRate>,
    /// With `lacp`: the priority of this end, of which the lower one chooses the links where not all
    /// can be used. Default: 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp_system_priority: Option<u16>,
    /// With `lacp`: whether one member carries frames where no partner speaks LACP. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp_fallback: Option<bool>,
}

/// Which members of a bond carry frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// One of them. The others are there for when its link is lost, and what comes by them is ignored.
    #[default]
    ActiveBackup,
    /// All of them, each its share of the flows. The other side must take them for one link (a static
    /// link aggregation).
    Balance,
    /// Those that the other side has agreed to by LACP (802.1AX), each its share of the flows.
    Lacp,
}

/// How often a partner is asked to send LACPDUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LacpRate {
    /// Every second: one that is silent is left after 3 seconds.
    #[default]
    Fast,
    /// Every 30 seconds: one that is silent is left after 90.
    Slow,
}

impl BondMode {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Balance => "balance",
            BondMode::Lacp => "lacp",
        }
    }
}

/// Milliseconds between two looks at the link of a device that is in no bond.
pub(crate) const MONITOR_ALONE_MS: u32 = 50;

/// Longer between two looks than this, another member does not carry within 100 ms.
const MONITOR_PROMPT_MS: u32 = 50;

fn up_delay() -> u32 {
    1_000
}

fn monitor() -> u32 {
    20
}

impl BondConfig {
    /// The place of the primary among the members.
    pub fn primary_at(&self) -> Option<usize> {
        let primary = self.primary.as_ref()?.device();
        self.members.iter().position(|member| member.device() == primary)
    }

    pub(super) fn read(mut fields: Fields<'_>) -> Option<BondConfig> {
        fields.require("members", "list the devices, as `device` names one");
        let member = |fields: &mut Fields<'_>, name: &str, value: &serde_json::Value| {
            fields.text_from::<Devargs>(name, value)
        };
        let members = fields.list("members", member);
        let words = [
            ("active-backup", BondMode::ActiveBackup),
            ("balance", BondMode::Balance),
            ("lacp", BondMode::Lacp),
        ];
        let rates = [("fast", LacpRate::Fast), ("slow", LacpRate::Slow)];
        let bond = BondConfig {
            members: members.clone().unwrap_or_default(),
            mode: fields.choice("mode", &words).unwrap_or_default(),
            primary: fields.text("primary"),
            up_delay_ms: fields.number("up_delay_ms", 0..=600_000).unwrap_or(up_delay()),
            monitor_ms: fields.number("monitor_ms", 5..=1_000).unwrap_or(monitor()),
            lacp_rate: fields.choice("lacp_rate", &rates),
            lacp_system_priority: fields.number("lacp_system_priority", 0..=65_535),
            lacp_fallback: fields.flag("lacp_fallback"),
        };
        if let Some(members) = &members
            && !(2..=MEMBERS_MAX).contains(&members.len())
        {
            let what =
                format!("a bond has 2 to {MEMBERS_MAX} members, and these are {}", members.len());
            let remedy = match members.len() {
                0 | 1 => "list two devices, or write `device` in place of the bond",
                _ => "leave some out",
            };
            fields.fault("members", what, remedy);
        }
        if let Some(primary) = &bond.primary {
            if bond.mode != BondMode::ActiveBackup {
                let what = "a primary is for mode `active-backup`: in others, all members carry";
                fields.fault("primary", what, "remove the line, or set mode = \"active-backup\"");
            } else if members.is_some() && bond.primary_at().is_none() {
                let what = format!("`{primary}` is no member of the bond");
                fields.fault("primary", what, "write one of the members");
            }
        }
        let of_lacp = [
            ("lacp_rate", bond.lacp_rate.is_some()),
            ("lacp_system_priority", bond.lacp_system_priority.is_some()),
            ("lacp_fallback", bond.lacp_fallback.is_some()),
        ];
        for (field, written) in of_lacp {
            if bond.mode != BondMode::Lacp && written {
                let what = "this is for mode `lacp`: in others, it is not spoken";
                fields.fault(field, what, "remove the line, or set mode = \"lacp\"");
            }
        }
        fields.finish();
        Some(bond)
    }

    /// How LACP is spoken, if it is.
    pub(crate) fn lacp(&self) -> Option<LacpRules> {
        (self.mode == BondMode::Lacp).then(|| LacpRules {
            fast: self.lacp_rate.unwrap_or_default() == LacpRate::Fast,
            system_priority: self.lacp_system_priority.unwrap_or(u16::MAX),
            fallback: self.lacp_fallback.unwrap_or(true),
        })
    }
}

/// What is doubtful about a physnet's devices, though it can be run.
pub(super) fn doubts(name: &PhysnetName, physnet: &Physnet, faults: &mut Vec<Fault>) {
    let Some(bond) = &physnet.bond else { return };
    let mut warn = |field: &str, what: String, remedy: &str| {
        let field = format!("physnets.{name}.bond.{field}");
        faults.push(Fault::new(field, what, remedy).warning());
    };
    for (at, member) in bond.members.iter().enumerate() {
        if !member.tells_link() {
            let what = format!("the driver of `{member}` does not tell when its link is lost");
            let remedy = "use a device of another driver: frames sent by this one may be lost";
            warn(&format!("members[{at}]"), what, remedy);
        }
        if bond.mode == BondMode::Lacp && member.virtual_function().is_some() {
            let what = format!(
                "`{member}` is a virtual function, and cards as a rule give none LACP frames"
            );
            let remedy = "use whole ports of cards, or leave LACP to the host's kernel";
            warn(&format!("members[{at}]"), what, remedy);
        }
        let others = bond.members[..at].iter();
        let same_card = |other: &&Devargs| {
            let (card, of) = (member.card(), other.card());
            card.is_some() && card == of
        };
        if let Some(other) = others.clone().find(same_card) {
            let what =
                format!("`{member}` and `{other}` are on one card, and fail together with it");
            warn(&format!("members[{at}]"), what, "use ports of two cards where there are two");
        }
    }
    if bond.monitor_ms > MONITOR_PROMPT_MS {
        let what = format!(
            "with {} ms between two looks, a lost link is noticed late: frames are lost meanwhile",
            bond.monitor_ms
        );
        warn("monitor_ms", what, "set 50 or less for a failover within 100 ms");
    }
}
