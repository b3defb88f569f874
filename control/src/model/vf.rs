//! A VF that is given to a guest by PCI passthrough: which one, and what its NIC is to do for it.
//!
//! Its frames never see the switch, so what is a field here is what NICs do by themselves.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressPair, InterfaceName, Mac};
use crate::fields::Fields;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// A VF that is given to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VfDirect {
    /// The guest's address.
    pub mac: Mac,
    /// The VF.
    pub vf: VfName,
    /// The priority in the VLAN tags of its frames (802.1Q §6.9.3). Only on a network that has a VLAN.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = 7))]
    pub qos: u8,
    /// Whether the NIC drops frames that the guest sends from another address than its own.
    #[serde(default = "yes")]
    pub spoofchk: bool,
    /// Whether the guest may have its NIC change its address, take frames to other addresses, and be
    /// promiscuous, as far as the NIC lets it.
    #[serde(default)]
    pub trust: bool,
    /// What the guest is told of the link.
    #[serde(default)]
    pub link_state: LinkState,
    /// The most that the guest may send, in Mbit/s. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rate_mbps: Option<u32>,
}

/// A VF that is given to a guest, as its NIC has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VfState {
    /// The VF, as the port names it.
    pub name: VfName,
    /// The interface of its PF, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pf: Option<InterfaceName>,
    /// Its number on that PF, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Its PCI address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the PF's driver says that is set; none while it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<VfActual>,
    /// Settings that somebody else changed, and that were put back.
    pub restored: u64,
    /// Times that it was set again since it, or its PF, had been made anew.
    pub renewed: u64,
}

/// What is set for a VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VfActual {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The VLAN of its frames on the wire; 0 for none.
    pub vlan: u16,
    /// The priority in that tag.
    pub qos: u8,
    /// Whether frames from other addresses are dropped, as far as the NIC does that.
    pub spoofchk: bool,
    /// Whether the guest's driver may ask for more than the host gave it.
    pub trust: bool,
    /// What it is told of the link.
    pub link_state: LinkState,
    /// The most that it sends, in Mbit/s; 0 for no bound.
    pub max_rate_mbps: u32,
}

/// What a VF is told of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// What the wire says: a dead one is dead for the guest too.
    #[default]
    Auto,
    /// That it is up, whatever the wire says: VFs of one NIC reach each other without it.
    Enable,
    /// That it is down.
    Disable,
}

/// A VF, by its PF and number or by its PCI address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VfName {
    /// `ens1f0/3`.
    OfPf {
        /// The PF's interface.
        pf: InterfaceName,
        /// The VF's number on that PF, from 0.
        number: u16,
    },
    /// `0000:01:10.2`.
    Pci(PciAddress),
}

text_type!(
    VfName,
    "A VF: the interface of its PF, a slash and its number from 0; or its PCI address.",
    "^([A-Za-z0-9_][A-Za-z0-9._-]{0,14}/[0-9]{1,4}|[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7])$",
    "write the interface of its PF and its number, such as ens1f0/3, or its PCI address, such as \
     0000:01:10.2"
);

/// The address of a PCI function: `0000:01:10.2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress(String);

impl VfDirect {
    /// The fields that no other kind has.
    pub(super) const FIELDS: [&'static str; 6] =
        ["vf", "qos", "spoofchk", "trust", "link_state", "max_rate_mbps"];

    /// Why a port of this kind has no port security and no groups.
    pub(super) const ENFORCED: &'static str = "a NIC enforces no rules and no IP addresses: of a VF's frames it checks the source MAC \
         (`spoofchk`), sets the VLAN and bounds the rate";

    /// What to do instead.
    pub(super) const UNSECURED: &'static str =
        "remove it and filter inside the guest, or make the port `vhost-user`";

    /// Address pairs that no NIC has filters for. One with the port's own address needs none: a NIC
    /// does not look at addresses of IP.
    pub(super) fn judge_pairs(&self, fields: &mut Fields<'_>, pairs: &[AddressPair]) {
        for (index, pair) in pairs.iter().enumerate() {
            let Some(other) = pair.mac.filter(|mac| *mac != self.mac && !self.trust) else {
                continue;
            };
            let what = format!(
                "a NIC gives a VF frames to {other} only if the VF is trusted and its driver asks for \
                 them"
            );
            let remedy = "set `trust` to true, or remove the pair";
            fields.fault(&format!("allowed_address_pairs[{index}].mac"), what, remedy);
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<VfDirect> {
        fields.subject.push_str(" of kind `vf-direct`");
        fields.require("mac", "write the guest's MAC address");
        fields.require("vf", VfName::REMEDY);
        let (mac, vf) = (fields.text("mac"), fields.text("vf"));
        let qos = fields.number("qos", 0..=7).unwrap_or(0);
        let spoofchk = fields.flag("spoofchk").unwrap_or(true);
        let trust = fields.flag("trust").unwrap_or(false);
        let states = [
            ("auto", LinkState::Auto),
            ("enable", LinkState::Enable),
            ("disable", LinkState::Disable),
        ];
        let link_state = fields.choice("link_state", &states).unwrap_or_default();
        let max_rate_mbps = fields.number("max_rate_mbps", 1..=1_000_000);
        Some(VfDirect { mac: mac?, vf: vf?, qos, spoofchk, trust, link_state, max_rate_mbps })
    }
}

impl FromStr for VfName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let misfit = || Misfit::new(format!("{} is not a VF", quoted(text)), Self::REMEDY);
        match text.split_once('/') {
            Some((pf, number)) => {
                let digits = (1..=4).contains(&number.len())
                    && number.bytes().all(|byte| byte.is_ascii_digit())
                    && (number == "0" || !number.starts_with('0'));
                let (Ok(pf), Ok(number), true) = (pf.parse(), number.parse(), digits) else {
                    return Err(misfit());
                };
                Ok(VfName::OfPf { pf, number })
            }
            None => PciAddress::parse(text).map(VfName::Pci).ok_or_else(misfit),
        }
    }
}

impl fmt::Display for VfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VfName::OfPf { pf, number } => write!(f, "{pf}/{number}"),
            VfName::Pci(address) => address.fmt(f),
        }
    }
}

impl PciAddress {
    /// The address, if the text is a whole one. One spelling an address: in lower case.
    pub(crate) fn parse(text: &str) -> Option<PciAddress> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let whole = hex(domain, 4) && hex(bus, 2) && hex(device, 2);
        let function_fits = matches!(function.as_bytes(), [b'0'..=b'7']);
        (whole && function_fits).then(|| PciAddress(text.to_ascii_lowercase()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LinkState {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            LinkState::Auto => "auto",
            LinkState::Enable => "enable",
            LinkState::Disable => "disable",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vf_has_one_spelling() {
        for (text, printed) in [
            ("ens1f0/3", "ens1f0/3"),
            ("eth0/0", "eth0/0"),
            ("0000:01:10.2", "0000:01:10.2"),
            ("0000:0A:1F.7", "0000:0a:1f.7"),
        ] {
            assert_eq!(text.parse::<VfName>().expect(text).to_string(), printed);
        }
        let bad =
            ["", "ens1f0", "ens1f0/", "/3", "ens1f0/03", "ens1f0/+3", "ens1f0/12345", "a b/1"];
        for bad in bad.into_iter().chain(["01:10.2", "0000:01:10.8", "0000:01:10", "all/1"]) {
            let message = bad.parse::<VfName>().expect_err(bad).to_string();
            let end = " is not a VF; write the interface of its PF and its number, such as ens1f0/3, \
                       or its PCI address, such as 0000:01:10.2";
            assert!(message.ends_with(end), "{message}");
        }
    }
}
