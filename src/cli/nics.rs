//! `viaduct nics`: the network cards of this host, by the kernel, and by the daemon if one answers.

use std::io::Write;

use control::nics::nics as listed;
use control::show::view::{PortRef, PortView};
use control::show::{Answer, Query};

use super::arguments::NicsArguments;
use super::failure::Failure;
use super::place;
use super::show::{Daemon, Page};
use crate::render;

/// Lists them.
pub fn nics(arguments: &NicsArguments, out: &mut dyn Write) -> Result<(), Failure> {
    // Without a daemon there are no ports, which is no failure: cards are looked at before it starts.
    let daemon = place::socket(&arguments.daemon).map(|socket| Daemon { socket });
    let ports = match daemon.and_then(|daemon| daemon.ask(Query::Ports {})) {
        Ok(Answer::Ports(views)) => views.iter().flat_map(devices).collect(),
        _ => Vec::new(),
    };
    Page { json: arguments.json, out }.print(&listed(&ports), |views| render::nics(views))
}

/// A port's devices as they are configured, each with what the port is called. A bond has several.
fn devices(view: &PortView) -> Vec<(String, String)> {
    let name = match &view.port {
        PortRef::Uplink { physnet } => physnet.to_string(),
        PortRef::Port { uuid, name } => {
            name.as_ref().map_or_else(|| uuid.to_string(), ToString::to_string)
        }
    };
    let devices = view.device.iter().flat_map(|devices| devices.split(' '));
    devices.map(|device| (device.to_owned(), name.clone())).collect()
}
