//! What is done before there is a switch: rules are compiled, and guests connected meanwhile, up to where
//! a worker is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use vhost::Device;

use crate::config::Config;
use crate::filters::Filters;
use crate::guest::{GuestHandle, GuestOptions, GuestSocket};
use crate::model::{Attachment, Desired, PortUuid, SocketMode};

/// What is ready before the switch is.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(super) filters: Filters,
    pub(super) guests: BTreeMap<PortUuid, (Arc<Device>, GuestHandle)>,
}

impl Ahead {
    /// Compiles the rules of desired state and, to `connect`, serves the sockets of its guests: their
    /// sessions go as far as they like, but no worker polls their rings before their ports are opened.
    pub(crate) async fn of(config: &Config, desired: &Desired, connect: bool) -> Ahead {
        let guests = if connect { connect_all(config, desired) } else { BTreeMap::new() };
        let (desired, limits) = (desired.clone(), config.acl.clone());
        let compiling = spawn_blocking(move || {
            let mut filters = Filters::default();
            filters.update(&desired, &limits);
            filters
        });
        Ahead { filters: compiling.await.expect("compiling ends"), guests }
    }
}

fn connect_all(
    config: &Config,
    desired: &Desired,
) -> BTreeMap<PortUuid, (Arc<Device>, GuestHandle)> {
    let vhost = &config.vhost;
    let guests = desired.ports.iter().filter_map(|(uuid, port)| {
        let Attachment::VhostUser { socket, mode, queues, .. } = &port.attachment else {
            return None;
        };
        let device = Device::new(*queues);
        let options = GuestOptions {
            port: *uuid,
            path: socket.path(&vhost.socket_directory),
            server: *mode == SocketMode::Server,
            mtu: desired.networks.get(&port.network).map(|network| network.mtu),
        };
        let socket = GuestSocket::spawn(options, vhost, Arc::clone(&device), false);
        Some((*uuid, (device, socket)))
    });
    guests.collect()
}
