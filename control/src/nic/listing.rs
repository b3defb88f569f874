//! How the VFs of cards are set, for who has no daemon: asked once, and waited for.

use std::collections::BTreeMap;

use super::link::NicLinks;
use super::settings::VfSettings;
use crate::model::InterfaceName;

/// How the VFs are set of the PFs with these interfaces, by the PF's interface and the VF's number. Of
/// one that the kernel does not tell there is nothing.
///
/// It is asked on a thread of its own, since the caller's may be one of an asynchronous runtime.
pub(crate) fn settings_of(pfs: &[InterfaceName]) -> BTreeMap<(String, u32), VfSettings> {
    if pfs.is_empty() {
        return BTreeMap::new();
    }
    std::thread::scope(|scope| scope.spawn(|| ask(pfs)).join().unwrap_or_default())
}

fn ask(pfs: &[InterfaceName]) -> BTreeMap<(String, u32), VfSettings> {
    let mut all = BTreeMap::new();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return all;
    };
    runtime.block_on(async {
        let Ok((links, _events)) = NicLinks::connect() else { return };
        for pf in pfs {
            let Ok(Some(link)) = links.find(pf).await else { continue };
            all.extend(link.vfs.iter().map(|(vf, set)| ((pf.to_string(), *vf), *set)));
        }
    });
    all
}
