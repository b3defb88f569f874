//! What is done while DPDK starts, which takes a fifth of a second and needs nothing of the rest: rules
//! are compiled, and guests connected, up to where a worker is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::clock::Stopwatch;
use dataplane::dpdk::{Eal, EalError, EalOptions};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use vhost::Device;

use super::StartError;
use crate::config::Config;
use crate::filters::Filters;
use crate::guest::{GuestHandle, GuestOptions, GuestSocket};
use crate::model::{Attachment, Desired, PortUuid, SocketMode};

/// DPDK while it starts, on a thread of its own.
pub(crate) struct Ignition {
    starting: JoinHandle<Result<Eal, EalError>>,
    started: Option<Result<Result<Eal, EalError>, JoinError>>,
    stopwatch: Stopwatch,
}

/// What is ready before DPDK is.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(super) filters: Filters,
    pub(super) guests: BTreeMap<PortUuid, (Arc<Device>, GuestHandle)>,
}

impl Ignition {
    /// Begins to start DPDK.
    pub(crate) fn begin(config: &Config) -> Ignition {
        let options = EalOptions {
            hugepages: config.dpdk.hugepages,
            memory_mib: config.dpdk.memory_mib,
            file_prefix: format!("viaduct-{}", std::process::id()),
            extra_args: config.dpdk.args.clone(),
        };
        let stopwatch = Stopwatch::start();
        let starting = spawn_blocking(move || Eal::start(&options));
        Ignition { starting, started: None, stopwatch }
    }

    /// Waits until DPDK runs, or does not. Nothing is lost if the waiting is given up.
    pub(crate) async fn wait(&mut self) {
        if self.started.is_none() {
            self.started = Some((&mut self.starting).await);
        }
    }

    /// DPDK, and what has measured the clock meanwhile.
    pub(super) async fn done(mut self) -> Result<(&'static Eal, Stopwatch), StartError> {
        self.wait().await;
        let started = self.started.take().expect("it was waited for");
        let eal: &'static Eal = Box::leak(Box::new(started.expect("starting ends")?));
        Ok((eal, self.stopwatch))
    }
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
