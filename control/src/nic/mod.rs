//! NICs as the kernel has them: PFs, their VFs, and what both let pass.
//!
//! A VF that is a device of DPDK's is a [`Wire`](crate::wire::Wire) like any other; here is what only
//! the kernel's driver of the PF can do for it, and for VFs that are given to guests.

mod filters;
mod keeper;
mod link;
mod listing;
mod own;
mod quirks;
mod settings;
mod sysfs;
mod vfs;

pub(crate) use keeper::{FilterOrder, Overflow, VfKeeper, VfOrder, VfStatus, Wanted};
pub(crate) use listing::settings_of;
pub(crate) use own::OwnVfs;
pub(crate) use quirks::doubts;
pub(crate) use settings::VfSettings;
