//! VFs that are given to guests: which of their settings differ, who changed them, and what of it the
//! driver does not take.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::keeper::{VfOrder, VfStatus, find};
use super::link::{NicLink, NicLinks, Refusal};
use super::quirks::quirks;
use super::settings::{VfSetting, VfSettings};
use super::sysfs::{Sysfs, VfPlace};
use crate::model::{InterfaceName, PortUuid};

/// The VFs that are ours. See the [module's head](self).
#[derive(Default)]
pub(super) struct Vfs {
    held: BTreeMap<PortUuid, Held>,
}

/// A VF that was set.
struct Held {
    place: VfPlace,
    /// The PF's interface had this index then; none while the PF or the VF is not there.
    index: Option<u32>,
    /// What was wanted of it then.
    wanted: VfSettings,
    /// As it was when it was seen last.
    seen: VfSettings,
    /// The PF's wire was alive then.
    carrier: bool,
    /// What the driver did not take.
    refused: BTreeMap<VfSetting, Refused>,
    restored: u64,
    renewed: u64,
}

/// A setting that the driver did not take.
struct Refused {
    /// The VF as it was then. As long as it is so, the driver is not asked again for the same …
    seen: VfSettings,
    /// … unless it would say something else the next time.
    again: bool,
    trouble: String,
}

type Pfs = BTreeMap<InterfaceName, Result<NicLink, String>>;

impl Vfs {
    /// Sets what is not as it should be, and resets VFs that are nobody's any more. Those that are
    /// `taken` are devices of the switch itself.
    pub(super) async fn keep(
        &mut self,
        wanted: &BTreeMap<PortUuid, VfOrder>,
        taken: &BTreeMap<VfPlace, &String>,
        links: &NicLinks,
        sysfs: &Sysfs,
    ) -> BTreeMap<PortUuid, VfStatus> {
        let places: BTreeMap<PortUuid, Result<VfPlace, String>> =
            wanted.iter().map(|(port, order)| (*port, sysfs.place(&order.vf))).collect();
        self.release(&places, links).await;
        let mut pfs = Pfs::new();
        let mut owners = BTreeMap::new();
        let mut statuses = BTreeMap::new();
        for (port, order) in wanted {
            let place = match &places[port] {
                Ok(place) => place,
                Err(trouble) => {
                    // It may be the same VF that comes again.
                    if let Some(held) = self.held.get_mut(port) {
                        held.index = None;
                    }
                    statuses.insert(*port, self.troubled(*port, trouble.clone()));
                    continue;
                }
            };
            let address = sysfs.address(place);
            let status = match (owners.insert(place.clone(), *port), taken.get(place)) {
                (Some(other), _) => {
                    owners.insert(place.clone(), other);
                    self.troubled(*port, format!(
                        "VF {} of `{}` is that of port {other} by another name; choose another VF",
                        place.number, place.pf
                    ))
                }
                (None, Some(holder)) => self.troubled(
                    *port,
                    format!(
                        "VF {} of `{}` is the device of {holder}; choose another VF",
                        place.number, place.pf
                    ),
                ),
                (None, None) => self.keep_one(*port, order, place, links, sysfs, &mut pfs).await,
            };
            let place = Some((place.pf.clone(), place.number));
            statuses.insert(*port, VfStatus { place, address, ..status });
        }
        statuses
    }

    /// Resets the VFs that no port has any more.
    async fn release(
        &mut self,
        places: &BTreeMap<PortUuid, Result<VfPlace, String>>,
        links: &NicLinks,
    ) {
        let wanted: BTreeSet<&VfPlace> = places.values().flatten().collect();
        let gone = |port: &PortUuid, held: &Held| match places.get(port) {
            None => true,
            Some(Ok(place)) => *place != held.place,
            Some(Err(_)) => false,
        };
        let gone: Vec<PortUuid> = self
            .held
            .iter()
            .filter(|(port, held)| gone(port, held))
            .map(|(port, _)| *port)
            .collect();
        for port in gone {
            let Some(Held { place, .. }) = self.held.remove(&port) else { continue };
            if wanted.contains(&place) {
                continue;
            }
            // A PF that is gone has nothing to be reset.
            let Ok(Some(link)) = links.find(&place.pf).await else { continue };
            let Some(actual) = link.vf(place.number) else { continue };
            for setting in VfSettings::UNUSED.differences(actual) {
                let unused = &VfSettings::UNUSED;
                if let Err(refusal) = links.set_vf(link.index, place.number, unused, setting).await
                {
                    tracing::debug!(pf = %place.pf, vf = place.number, "{}", refusal.sentence);
                }
            }
            tracing::info!(%port, pf = %place.pf, vf = place.number, "reset the VF");
        }
    }

    /// The status of a VF that cannot even be looked at.
    fn troubled(&self, port: PortUuid, trouble: String) -> VfStatus {
        let held = self.held.get(&port);
        let (restored, renewed) = held.map_or((0, 0), |held| (held.restored, held.renewed));
        VfStatus { trouble: Some(trouble), restored, renewed, ..VfStatus::default() }
    }

    async fn keep_one(
        &mut self,
        port: PortUuid,
        order: &VfOrder,
        place: &VfPlace,
        links: &NicLinks,
        sysfs: &Sysfs,
        pfs: &mut Pfs,
    ) -> VfStatus {
        if !pfs.contains_key(&place.pf) {
            pfs.insert(place.pf.clone(), find(links, &place.pf).await);
        }
        let found = match &pfs[&place.pf] {
            Ok(link) => match link.vf(place.number) {
                Some(actual) => Ok((link, *actual)),
                None => Err(no_such_vf(place, link, sysfs)),
            },
            Err(trouble) => Err(trouble.clone()),
        };
        let (link, actual) = match found {
            Ok((link, actual)) => (link.clone(), actual),
            Err(trouble) => {
                if let Some(held) = self.held.get_mut(&port) {
                    held.index = None;
                }
                return self.troubled(port, trouble);
            }
        };
        let taken_newly = self.held.get(&port).is_none_or(|held| held.wanted != order.settings);
        let held = self.held.entry(port).or_insert_with(|| Held {
            place: place.clone(),
            index: Some(link.index),
            wanted: order.settings,
            seen: order.settings,
            carrier: link.carrier,
            refused: BTreeMap::new(),
            restored: 0,
            renewed: 0,
        });
        let differences = order.settings.differences(&actual);
        if held.index != Some(link.index) {
            held.index = Some(link.index);
            held.refused.clear();
            held.renewed += 1;
            tracing::warn!(%port, pf = %place.pf, vf = place.number, "the VF was made again; set anew");
        } else if !taken_newly {
            held.count_meddling(port, place, &actual, &differences);
        }
        // Drivers refuse more than the link has, and while it is down it has nothing.
        if taken_newly || held.carrier != link.carrier {
            held.refused.clear();
        }
        (held.wanted, held.carrier) = (order.settings, link.carrier);
        let mut asked = false;
        for setting in &differences {
            let refused = held.refused.get(setting);
            if refused.is_some_and(|refused| refused.seen == actual && !refused.again) {
                continue;
            }
            let known = held.refused.remove(setting);
            asked = true;
            let answer = links.set_vf(link.index, place.number, &order.settings, *setting).await;
            if let Err(refusal) = answer {
                let driver = sysfs.driver(&place.pf);
                let trouble = words(&order.settings, *setting, place, driver.as_deref(), &refusal);
                if known.is_none_or(|known| known.trouble != trouble) {
                    tracing::error!(%port, "{trouble}");
                }
                let again = passes(&refusal);
                held.refused.insert(*setting, Refused { seen: actual, again, trouble });
            }
        }
        let now = match asked {
            true => find(links, &place.pf).await.map(|link| link.vf(place.number).copied()),
            false => Ok(Some(actual)),
        };
        let Ok(Some(now)) = now else {
            held.index = None;
            return self.troubled(port, format!("VF {} of `{}` is going", place.number, place.pf));
        };
        held.judge(&order.settings, &now, place);
        held.seen = now;
        VfStatus {
            trouble: held.trouble(),
            actual: Some(now),
            carrier: link.up && link.carrier,
            restored: held.restored,
            renewed: held.renewed,
            doubt: doubt(&order.settings, sysfs.driver(&place.pf).as_deref()),
            ..VfStatus::default()
        }
    }
}

impl Held {
    /// Counts settings that were as they should be, and that somebody else has changed.
    fn count_meddling(
        &mut self,
        port: PortUuid,
        place: &VfPlace,
        actual: &VfSettings,
        differences: &[VfSetting],
    ) {
        let before = self.wanted.differences(&self.seen);
        for setting in differences.iter().filter(|setting| !before.contains(setting)) {
            self.restored += 1;
            tracing::warn!(
                %port, pf = %place.pf, vf = place.number,
                "somebody has set {}; it is put back to {}",
                actual.words(*setting), self.wanted.words(*setting)
            );
        }
    }

    /// Keeps of what was refused that which still differs, and adds what the driver has taken without
    /// a word and not done.
    fn judge(&mut self, wanted: &VfSettings, now: &VfSettings, place: &VfPlace) {
        let differences = wanted.differences(now);
        self.refused.retain(|setting, _| differences.contains(setting));
        for setting in differences {
            let trouble = format!(
                "VF {} of `{}` has {} and not {}, which its PF's driver took without an error",
                place.number,
                place.pf,
                now.words(setting),
                wanted.words(setting)
            );
            let refused = Refused { seen: *now, again: false, trouble };
            // What was refused in words stays so. It is compared with what is seen the next time.
            self.refused.entry(setting).or_insert(refused).seen = *now;
        }
    }

    fn trouble(&self) -> Option<String> {
        let sentences: Vec<&str> =
            self.refused.values().map(|refused| refused.trouble.as_str()).collect();
        (!sentences.is_empty()).then(|| sentences.join(". "))
    }
}

/// What the driver is known not to do, as sentences.
fn doubt(wanted: &VfSettings, driver: Option<&str>) -> Option<String> {
    let words = quirks(driver?, wanted).into_iter();
    let words =
        words.map(|(setting, what, remedy)| format!("{}: {what}; {remedy}", setting.field()));
    Some(words.collect::<Vec<_>>().join(". ")).filter(|words| !words.is_empty())
}

/// Whether the driver may say something else the next time.
fn passes(refusal: &Refusal) -> bool {
    // i40e: a VF that is being reset takes no settings for a moment.
    matches!(refusal.errno, None | Some(Errno::EAGAIN | Errno::EBUSY))
}

fn no_such_vf(place: &VfPlace, link: &NicLink, sysfs: &Sysfs) -> String {
    let VfPlace { pf, number } = place;
    let has = match link.vfs.len() {
        0 => format!("PF `{pf}` has no VFs"),
        1 => format!("PF `{pf}` has VF 0 alone"),
        count => format!("PF `{pf}` has VFs 0 to {} and no VF {number}", count - 1),
    };
    let file = format!("/sys/class/net/{pf}/device/sriov_numvfs");
    match sysfs.vfs_total(pf) {
        Some(total) if *number < total => {
            format!("{has}; have it make {} or more: write the number to {file}", number + 1)
        }
        Some(total) => format!("{has}, and can have {total}; choose a VF below {total}"),
        None => format!("{has}; choose the interface of a PF, and a VF that it has"),
    }
}

/// Why a setting is not in force, and what to do.
fn words(
    wanted: &VfSettings,
    setting: VfSetting,
    place: &VfPlace,
    driver: Option<&str>,
    refusal: &Refusal,
) -> String {
    let VfPlace { pf, number } = place;
    let driver = driver.map_or("its driver".to_owned(), |name| format!("its driver {name}"));
    let (wants, field) = (wanted.words(setting), setting.field());
    match refusal.errno {
        Some(Errno::EOPNOTSUPP | Errno::ENOSYS) => format!(
            "PF `{pf}` cannot give VF {number} {wants}: {driver} has no such setting; remove \
             `{field}`, or choose a VF of another NIC"
        ),
        Some(Errno::EPERM) => refusal.sentence.clone(),
        Some(Errno::EAGAIN | Errno::EBUSY) => format!(
            "PF `{pf}` does not take settings of VF {number} now; it is tried again every few seconds"
        ),
        Some(errno) => format!(
            "PF `{pf}` cannot give VF {number} {wants}: {driver} refuses it ({}); change `{field}`",
            errno.desc()
        ),
        None => refusal.sentence.clone(),
    }
}
