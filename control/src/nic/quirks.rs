//! Settings of VFs that drivers of PFs do not do, or not as they are meant, though they say nothing.
//!
//! By the drivers' sources, which docs/sriov.md names. What a driver takes without an error and then does not
//! show either is found by looking; here is what looking does not find, and what is known before it
//! is tried.

use super::settings::{VfSetting, VfSettings};
use super::sysfs::Sysfs;
use crate::key::Key;
use crate::model::{Attachment, Desired, HostName};
use crate::problem::Problem;

/// What a PF's driver of this name makes of these settings, if not what they say: each with what it does
/// and the remedy.
pub(super) fn quirks(driver: &str, wanted: &VfSettings) -> Vec<(VfSetting, String, &'static str)> {
    use crate::model::LinkState;

    /// The step of bounds in Mbit/s: I40E_BW_CREDIT_DIVISOR.
    const STEP: u32 = 50;
    let mut quirks = Vec::new();
    match driver {
        "igb" if wanted.link_state != LinkState::Auto => quirks.push((
            VfSetting::LinkState,
            "the driver igb has no such setting".to_owned(),
            "remove it, or choose a VF of another NIC",
        )),
        "ixgbe" => {
            if wanted.link_state == LinkState::Enable {
                quirks.push((
                    VfSetting::LinkState,
                    "the driver ixgbe takes `enable` and does nothing".to_owned(),
                    "write `auto`",
                ));
            }
            if wanted.spoofchk && wanted.trust {
                quirks.push((
                    VfSetting::SpoofCheck,
                    "the driver ixgbe switches the spoof check of a trusted VF off, and still shows it \
                     as on, once the guest's driver asks for a filter"
                        .to_owned(),
                    "set `trust` to false, unless the guest may send from any address",
                ));
            }
        }
        "i40e" if !wanted.max_rate_mbps.is_multiple_of(STEP) => {
            let bound = (wanted.max_rate_mbps / STEP * STEP).max(STEP);
            quirks.push((
                VfSetting::Rate,
                format!(
                    "the driver i40e bounds the rate in steps of {STEP} Mbit/s, here to {bound}"
                ),
                "write a multiple of 50",
            ));
        }
        _ => {}
    }
    quirks
}

/// What is doubtful about the VFs of this host that are to be given to guests, as warnings, by the drivers
/// that their PFs have now.
pub(crate) fn doubts(desired: &Desired, host: &HostName) -> Vec<Problem> {
    doubts_by(&Sysfs::default(), desired, host)
}

pub(super) fn doubts_by(sysfs: &Sysfs, desired: &Desired, host: &HostName) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (uuid, port) in &desired.ports {
        let Attachment::VfDirect(vf) = &port.attachment else { continue };
        let Some(driver) = sysfs.place(&vf.vf).ok().and_then(|place| sysfs.driver(&place.pf))
        else {
            continue;
        };
        let wanted = VfSettings::wanted(vf, None);
        for (setting, what, remedy) in quirks(&driver, &wanted) {
            let key = Key::Port { host: host.clone(), port: *uuid };
            let mut problem = Problem::whole(key, what, remedy).warning();
            problem.field = setting.field().to_owned();
            problems.push(problem);
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented::assert_documented;
    use crate::model::LinkState;

    #[test]
    fn what_drivers_make_of_settings_is_known_before() {
        let usual = VfSettings { max_rate_mbps: 100, ..VfSettings::UNUSED };
        let (enable, odd) = (
            VfSettings { link_state: LinkState::Enable, ..usual },
            VfSettings { max_rate_mbps: 120, ..usual },
        );
        let trusted = VfSettings { trust: true, ..usual };
        let told = |driver: &str, wanted: &VfSettings| {
            quirks(driver, wanted).into_iter().map(|(setting, ..)| setting).collect::<Vec<_>>()
        };
        for driver in ["igb", "ixgbe", "i40e", "mlx5_core"] {
            assert_eq!(told(driver, &usual), [], "{driver}");
        }
        assert_eq!(told("igb", &enable), [VfSetting::LinkState]);
        assert_eq!(told("ixgbe", &enable), [VfSetting::LinkState]);
        assert_eq!(told("ixgbe", &trusted), [VfSetting::SpoofCheck]);
        assert_eq!(told("i40e", &odd), [VfSetting::Rate]);
        assert!(quirks("i40e", &odd)[0].1.ends_with("here to 100"));
        let all = [("igb", &enable), ("ixgbe", &enable), ("ixgbe", &trusted), ("i40e", &odd)];
        for (_, what, remedy) in all.into_iter().flat_map(|(driver, set)| quirks(driver, set)) {
            assert_documented(&Problem::whole("nodes/h/ports", what, remedy));
        }
        for (driver, wanted) in [("i40e", &enable), ("igb", &trusted), ("mlx5_core", &odd)] {
            assert_eq!(told(driver, wanted), [], "{driver}");
        }
    }
}
