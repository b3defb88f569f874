//! VFs that are devices of the switch itself, as their PFs' drivers have them set.
//!
//! A VF's own driver learns how it is set when it starts, and of what is changed later only where its
//! card tells it. The kernel tells whoever asks.

use std::collections::BTreeMap;
use std::time::Instant;

use super::keeper::find;
use super::link::NicLinks;
use super::settings::VfSettings;
use super::sysfs::{Sysfs, VfPlace};
use crate::model::{InterfaceName, PciAddress};

/// Such VFs, as they were a moment ago.
#[derive(Clone, Debug)]
pub(crate) struct OwnVfs {
    /// When that was: not before this.
    pub(crate) looked: Instant,
    /// Each, with the interface of its PF and its number there.
    pub(crate) vfs: BTreeMap<PciAddress, (InterfaceName, u32, VfSettings)>,
}

impl OwnVfs {
    /// Asks for the VFs at these places. What is not there is left out.
    pub(super) async fn look<'a>(
        places: impl Iterator<Item = &'a VfPlace>,
        links: &NicLinks,
        sysfs: &Sysfs,
    ) -> OwnVfs {
        let looked = Instant::now();
        let mut pfs = BTreeMap::new();
        let mut vfs = BTreeMap::new();
        for place in places {
            if !pfs.contains_key(&place.pf) {
                pfs.insert(&place.pf, find(links, &place.pf).await);
            }
            let settings = pfs[&place.pf].as_ref().ok().and_then(|link| link.vf(place.number));
            if let (Some(settings), Some(address)) = (settings, sysfs.address(place)) {
                vfs.insert(address, (place.pf.clone(), place.number, *settings));
            }
        }
        OwnVfs { looked, vfs }
    }
}

impl Default for OwnVfs {
    fn default() -> Self {
        OwnVfs { looked: Instant::now(), vfs: BTreeMap::new() }
    }
}
