//! Unicast filters of PFs for addresses behind the switch.
//!
//! VFs of one NIC reach each other, and the PF, through the NIC's own switch, which knows addresses
//! only by what it was told. A frame of a VF to a guest behind the PF is told to nobody but the wire
//! unless the PF has a filter for the guest's address: broadcast arrives, and unicast does not.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::keeper::{FilterOrder, Overflow, PfFilters, find};
use super::link::NicLinks;
use super::sysfs::Sysfs;
use crate::model::{InterfaceName, Mac};

/// The filters that are ours. See the [module's head](self).
#[derive(Default)]
pub(super) struct Filters {
    held: BTreeMap<InterfaceName, Held>,
}

/// What was done to a PF.
#[derive(Default)]
struct Held {
    /// The PF's interface had this index then.
    index: u32,
    /// Addresses for which we added a filter, or would have if it had not been there.
    macs: BTreeSet<Mac>,
    /// We set it promiscuous.
    promiscuous: bool,
    /// What was wrong when it was looked at last.
    trouble: Option<String>,
}

impl Filters {
    /// Adds filters that are missing, and removes ours that nobody wants any more.
    pub(super) async fn keep(
        &mut self,
        wanted: &BTreeMap<InterfaceName, FilterOrder>,
        links: &NicLinks,
        sysfs: &Sysfs,
    ) -> BTreeMap<InterfaceName, PfFilters> {
        let gone: Vec<InterfaceName> =
            self.held.keys().filter(|pf| !wanted.contains_key(*pf)).cloned().collect();
        for pf in gone {
            let Some(mut held) = self.held.remove(&pf) else { continue };
            if let Ok(Some(link)) = links.find(&pf).await
                && link.index == held.index
            {
                held.withdraw(links, &pf, |_| false).await;
                held.set_promiscuous(links, &pf, false).await;
            }
        }
        let mut statuses = BTreeMap::new();
        for (pf, order) in wanted {
            let held = self.held.entry(pf.clone()).or_default();
            let status = held.keep(pf, order, links, sysfs).await.unwrap_or_else(|trouble| {
                PfFilters { trouble: Some(trouble), ..PfFilters::default() }
            });
            if status.trouble != held.trouble {
                if let Some(trouble) = &status.trouble {
                    tracing::error!(%pf, "{trouble}");
                }
                held.trouble.clone_from(&status.trouble);
            }
            statuses.insert(pf.clone(), status);
        }
        statuses
    }
}

impl Held {
    async fn keep(
        &mut self,
        pf: &InterfaceName,
        order: &FilterOrder,
        links: &NicLinks,
        sysfs: &Sysfs,
    ) -> Result<PfFilters, String> {
        let link = find(links, pf).await?;
        if link.index != self.index {
            *self = Held { index: link.index, ..Held::default() };
        }
        // Without VFs there is nobody whom the NIC would keep from a guest.
        let wanted = match link.vfs.is_empty() {
            true => BTreeSet::new(),
            false => order.macs.clone(),
        };
        self.withdraw(links, pf, |mac| wanted.contains(&mac)).await;
        if wanted.is_empty() {
            self.set_promiscuous(links, pf, false).await;
            return Ok(PfFilters::default());
        }
        let mut present: BTreeSet<Mac> = links.filters(self.index).await?.into_iter().collect();
        let mut status = PfFilters::default();
        for mac in wanted {
            if present.contains(&mac) {
                self.macs.insert(mac);
                continue;
            }
            match links.add_filter(self.index, mac).await {
                Ok(()) => {
                    self.macs.insert(mac);
                    present.insert(mac);
                }
                Err(refusal) if matches!(refusal.errno, Some(Errno::ENOMEM | Errno::ENOSPC)) => {
                    status.refused.insert(mac);
                }
                Err(refusal) => {
                    let driver = sysfs.driver(pf).unwrap_or_else(|| "no driver".to_owned());
                    return Err(format!(
                        "VFs of `{pf}` ({driver}) do not reach guests of the switch: {}",
                        refusal.sentence
                    ));
                }
            }
        }
        if !status.refused.is_empty() {
            status.trouble = Some(format!(
                "PF `{pf}` has {} unicast filters and no room for {} more; put fewer addresses behind \
                 it, or make fewer VFs",
                present.len(),
                status.refused.len()
            ));
        }
        let promiscuous = !status.refused.is_empty() && order.overflow == Overflow::Promiscuous;
        // Who set it so first will want it to stay so.
        if self.promiscuous || !link.promiscuous {
            self.set_promiscuous(links, pf, promiscuous).await;
        }
        status.total = present.len();
        status.present = present.intersection(&self.macs).copied().collect();
        status.promiscuous = promiscuous && (self.promiscuous || link.promiscuous);
        Ok(status)
    }

    /// Removes our filters but those that are to stay.
    async fn withdraw(
        &mut self,
        links: &NicLinks,
        pf: &InterfaceName,
        stays: impl Fn(Mac) -> bool,
    ) {
        let leaving: Vec<Mac> = self.macs.iter().copied().filter(|mac| !stays(*mac)).collect();
        for mac in leaving {
            match links.remove_filter(self.index, mac).await {
                Ok(()) => drop(self.macs.remove(&mac)),
                Err(refusal) => tracing::warn!(%pf, "{}", refusal.sentence),
            }
        }
    }

    async fn set_promiscuous(&mut self, links: &NicLinks, pf: &InterfaceName, on: bool) {
        if self.promiscuous == on {
            return;
        }
        match links.set_promiscuous(self.index, on).await {
            Ok(()) => self.promiscuous = on,
            Err(refusal) => tracing::warn!(%pf, "{}", refusal.sentence),
        }
    }
}
