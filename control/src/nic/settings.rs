//! What a PF's driver can be told about one of its VFs, and what it says back.
//!
//! Each setting is a request of its own: of a whole that is refused the kernel says an errno and not
//! which part it was, and a driver that lacks one setting has the others.

use std::fmt;

use netlink_packet_route::link::{
    LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust,
    VfInfoVlan, VfLinkState, VfVlan, VfVlanInfo, VlanProtocol,
};

use crate::model::{LinkState, Mac, VfActual, VfDirect};

/// All settings of one VF: as it is, or as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VfSettings {
    /// Its address; none if the PF has not set one, and the VF has a random one or its own.
    pub(crate) mac: Option<Mac>,
    /// The VLAN that its frames are tagged with on the wire; 0 for none.
    pub(crate) vlan: u16,
    /// The priority in that tag, 0 to 7 (802.1Q §6.9.3).
    pub(crate) qos: u8,
    /// Whether that tag is a service tag (802.1ad) and not a customer's (802.1Q).
    pub(crate) service_tag: bool,
    /// Whether frames from other addresses than its own are dropped.
    pub(crate) spoofchk: bool,
    /// Whether its driver may change what is the host's otherwise: its address, filters, promiscuity.
    pub(crate) trust: bool,
    /// What it is told of the link.
    pub(crate) link_state: LinkState,
    /// The most that it sends, in Mbit/s; 0 for no bound.
    pub(crate) max_rate_mbps: u32,
    /// What it may always send, in Mbit/s; 0 for nothing.
    pub(crate) min_rate_mbps: u32,
}

/// One of them. The order is that in which they are set: an address before what is checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VfSetting {
    Mac,
    Vlan,
    SpoofCheck,
    Trust,
    LinkState,
    Rate,
}

impl VfSettings {
    /// A VF that belongs to nobody: as drivers have it when they make it.
    pub(crate) const UNUSED: VfSettings = VfSettings {
        mac: None,
        vlan: 0,
        qos: 0,
        service_tag: false,
        spoofchk: true,
        trust: false,
        link_state: LinkState::Auto,
        max_rate_mbps: 0,
        min_rate_mbps: 0,
    };

    /// How a VF that is given to a guest should be set, but for whether its port is up; on a network with
    /// this VLAN, if it has one.
    pub(crate) fn wanted(vf: &VfDirect, vlan: Option<u16>) -> VfSettings {
        VfSettings {
            mac: Some(vf.mac),
            vlan: vlan.unwrap_or(0),
            qos: vlan.map_or(0, |_| vf.qos),
            spoofchk: vf.spoofchk,
            trust: vf.trust,
            link_state: vf.link_state,
            max_rate_mbps: vf.max_rate_mbps.unwrap_or(0),
            ..VfSettings::UNUSED
        }
    }

    /// The settings that differ, in the order in which they are set.
    pub(crate) fn differences(&self, actual: &VfSettings) -> Vec<VfSetting> {
        let tag = |it: &VfSettings| (it.vlan, it.qos, it.service_tag);
        let rate = |it: &VfSettings| (it.max_rate_mbps, it.min_rate_mbps);
        let differ = [
            (VfSetting::Mac, self.mac != actual.mac),
            (VfSetting::Vlan, tag(self) != tag(actual)),
            (VfSetting::SpoofCheck, self.spoofchk != actual.spoofchk),
            (VfSetting::Trust, self.trust != actual.trust),
            (VfSetting::LinkState, self.link_state != actual.link_state),
            (VfSetting::Rate, rate(self) != rate(actual)),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(setting, _)| setting).collect()
    }

    /// One setting, as the kernel is told.
    pub(super) fn info(&self, vf: u32, setting: VfSetting) -> VfInfo {
        match setting {
            VfSetting::Mac => {
                let mac = self.mac.map_or([0; 6], Mac::octets);
                VfInfo::Mac(VfInfoMac::new(vf, &mac))
            }
            // Drivers that know nothing of service tags know the old form alone.
            VfSetting::Vlan if !self.service_tag => {
                VfInfo::Vlan(VfInfoVlan::new(vf, self.vlan.into(), self.qos.into()))
            }
            VfSetting::Vlan => {
                let tag = VfVlanInfo::new(
                    vf,
                    self.vlan.into(),
                    self.qos.into(),
                    VlanProtocol::Ieee8021Ad,
                );
                VfInfo::VlanList(vec![VfVlan::Info(tag)])
            }
            VfSetting::SpoofCheck => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, self.spoofchk)),
            VfSetting::Trust => VfInfo::Trust(VfInfoTrust::new(vf, self.trust)),
            VfSetting::LinkState => {
                let state = match self.link_state {
                    LinkState::Auto => VfLinkState::Auto,
                    LinkState::Enable => VfLinkState::Enable,
                    LinkState::Disable => VfLinkState::Disable,
                };
                VfInfo::LinkState(VfInfoLinkState::new(vf, state))
            }
            VfSetting::Rate => {
                VfInfo::Rate(VfInfoRate::new(vf, self.min_rate_mbps, self.max_rate_mbps))
            }
        }
    }

    /// A VF as the kernel tells of it, with its number. What a driver does not tell (it lacks the
    /// setting) is as in a VF that belongs to nobody, but for the spoof check, which it then has not.
    pub(super) fn read(info: &LinkVfInfo) -> Option<(u32, VfSettings)> {
        let mut number = None;
        let mut settings = VfSettings { spoofchk: false, ..VfSettings::UNUSED };
        for part in &info.0 {
            match part {
                VfInfo::Mac(mac) => {
                    number = Some(mac.vf_id);
                    settings.mac = mac.mac.first_chunk().and_then(|mac| Mac::new(*mac).ok());
                }
                VfInfo::Vlan(tag) => {
                    settings.vlan = tag.vlan_id as u16;
                    settings.qos = tag.qos as u8;
                }
                VfInfo::VlanList(tags) => {
                    for tag in tags {
                        if let VfVlan::Info(tag) = tag {
                            settings.service_tag =
                                tag.vlan_id != 0 && tag.protocol == VlanProtocol::Ieee8021Ad;
                        }
                    }
                }
                VfInfo::SpoofCheck(check) => settings.spoofchk = check.enabled,
                VfInfo::Trust(trust) => settings.trust = trust.enabled,
                VfInfo::LinkState(link) => {
                    settings.link_state = match link.state {
                        VfLinkState::Enable => LinkState::Enable,
                        VfLinkState::Disable => LinkState::Disable,
                        _ => LinkState::Auto,
                    };
                }
                VfInfo::Rate(rate) => {
                    settings.max_rate_mbps = rate.max_tx_rate;
                    settings.min_rate_mbps = rate.min_tx_rate;
                }
                _ => {}
            }
        }
        Some((number?, settings))
    }

    /// One setting in words: `VLAN 100 with priority 3`.
    pub(crate) fn words(&self, setting: VfSetting) -> String {
        let on = |on: bool| if on { "on" } else { "off" };
        match setting {
            VfSetting::Mac => match self.mac {
                Some(mac) => format!("MAC {mac}"),
                None => "no MAC".to_owned(),
            },
            VfSetting::Vlan => match (self.vlan, self.qos) {
                (0, _) => "no VLAN".to_owned(),
                (vlan, 0) => format!("VLAN {vlan}"),
                (vlan, qos) => format!("VLAN {vlan} with priority {qos}"),
            },
            VfSetting::SpoofCheck => format!("spoofchk {}", on(self.spoofchk)),
            VfSetting::Trust => format!("trust {}", on(self.trust)),
            VfSetting::LinkState => format!("link state `{}`", self.link_state),
            VfSetting::Rate => format!("a rate of {} Mbit/s", self.max_rate_mbps),
        }
    }
}

impl From<VfSettings> for VfActual {
    fn from(settings: VfSettings) -> VfActual {
        VfActual {
            mac: settings.mac,
            vlan: settings.vlan,
            qos: settings.qos,
            spoofchk: settings.spoofchk,
            trust: settings.trust,
            link_state: settings.link_state,
            max_rate_mbps: settings.max_rate_mbps,
        }
    }
}

impl VfSetting {
    /// The port's field that the setting comes from.
    pub(crate) fn field(self) -> &'static str {
        match self {
            VfSetting::Mac => "mac",
            VfSetting::Vlan => "network",
            VfSetting::SpoofCheck => "spoofchk",
            VfSetting::Trust => "trust",
            VfSetting::LinkState => "link_state",
            VfSetting::Rate => "max_rate_mbps",
        }
    }
}

impl fmt::Display for VfSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VfSetting::Mac => "MAC address",
            VfSetting::Vlan => "VLAN",
            VfSetting::SpoofCheck => "spoof check",
            VfSetting::Trust => "trust",
            VfSetting::LinkState => "link state",
            VfSetting::Rate => "rate",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> VfSettings {
        VfSettings {
            mac: "52:54:00:00:00:01".parse().ok(),
            vlan: 100,
            qos: 3,
            service_tag: false,
            spoofchk: false,
            trust: true,
            link_state: LinkState::Disable,
            max_rate_mbps: 200,
            min_rate_mbps: 50,
        }
    }

    const ALL: [VfSetting; 6] = [
        VfSetting::Mac,
        VfSetting::Vlan,
        VfSetting::SpoofCheck,
        VfSetting::Trust,
        VfSetting::LinkState,
        VfSetting::Rate,
    ];

    #[test]
    fn what_is_told_is_what_is_read() {
        for wanted in [wanted(), VfSettings { service_tag: true, ..wanted() }, VfSettings::UNUSED] {
            let info = LinkVfInfo(ALL.map(|setting| wanted.info(7, setting)).to_vec());
            // The kernel tells the tag in both forms.
            let (vf, mut read) = VfSettings::read(&info).expect("a VF");
            if wanted.service_tag {
                (read.vlan, read.qos) = (wanted.vlan, wanted.qos);
            }
            assert_eq!((vf, read), (7, wanted));
        }
    }

    #[test]
    fn only_what_differs_is_set_and_the_address_first() {
        assert_eq!(wanted().differences(&wanted()), []);
        assert_eq!(wanted().differences(&VfSettings::UNUSED), ALL);
        let other = VfSettings { qos: 0, ..wanted() };
        assert_eq!(wanted().differences(&other), [VfSetting::Vlan]);
    }

    #[test]
    fn a_driver_that_tells_nothing_has_no_spoof_check() {
        // Drivers that lack a setting: the kernel tells -1, which is neither on nor off.
        let info = LinkVfInfo(vec![VfInfo::Mac(VfInfoMac::new(0, &[0; 6]))]);
        let (_, read) = VfSettings::read(&info).expect("a VF");
        assert_eq!(VfSettings::UNUSED.differences(&read), [VfSetting::SpoofCheck]);
        assert_eq!(VfSettings::read(&LinkVfInfo(Vec::new())), None);
    }
}
