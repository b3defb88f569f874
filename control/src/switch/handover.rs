//! The switch goes on in another process: what this one gives, and what that one takes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dataplane::clock::{Stopwatch, cycles};
use vhost::session::Side;
use vhost::{Device, PAIRS_MAX};

use super::ports::Link;
use super::{Ahead, StartError, Switch};
use crate::bond::LacpRecord;
use crate::config::Config;
use crate::engine::Ignition;
use crate::guest::{GuestHandle, GuestOptions, GuestRecord, GuestSocket};
use crate::learned::Learned;
use crate::model::{Attachment, Desired, PhysnetName, PortUuid, SocketMode};
use crate::pci;
use crate::wire::Wire;

/// A guest that is handed over, and the number of changes that the record knows of.
pub(crate) struct Given {
    pub(crate) changes: u64,
    pub(crate) record: GuestRecord,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What the process gives that has the guests.
impl Switch {
    /// The guests of which something has changed since so many changes were told of them.
    pub(crate) fn give(&self, told: &BTreeMap<PortUuid, u64>) -> io::Result<Vec<Given>> {
        let mut given = Vec::new();
        for (uuid, device, socket) in self.guests() {
            let changes = socket.changes();
            if told.get(&uuid) == Some(&changes) {
                continue;
            }
            let Some(port) = self.desired.ports.get(&uuid) else { continue };
            let path = port.socket_path(&self.config.vhost.socket_directory);
            let (Attachment::VhostUser { mode, .. }, Some(path)) = (&port.attachment, path) else {
                continue;
            };
            let (server, pairs) = (*mode == SocketMode::Server, device.pairs_max());
            if let Some((record, descriptors)) = socket.record(uuid, path, server, pairs)? {
                given.push(Given { changes, record, descriptors });
            }
        }
        Ok(given)
    }

    /// Has the workers send all that they have received and wait, and stops all rings. Returns when that
    /// began, by the time-stamp counter, and where the rings stand of each guest that is connected. The
    /// error names the core of a worker that does not wait; then all goes on.
    pub(crate) async fn halt(&mut self) -> Result<(u64, BTreeMap<PortUuid, Vec<u32>>), u32> {
        let since = cycles();
        self.crew.pause().await?;
        // From here on nothing of what guests say is read, up to `go_on` or to the end.
        self.guests().for_each(|(_, _, socket)| socket.freeze());
        let rings = self.guests().filter_map(|(uuid, _, socket)| Some((uuid, socket.halt()?)));
        Ok((since, rings.collect()))
    }

    /// Goes on after [`halt`](Self::halt), as the other process did not take over.
    pub(crate) fn go_on(&mut self) {
        self.start_rings();
        self.crew.go_on();
        self.guests().for_each(|(_, _, socket)| socket.thaw());
    }

    /// Ends, after the other process has taken over: devices are closed, guests left alone. Returns how
    /// LACP stands on the bonds that speak it, for that process to go on before a partner misses it.
    pub(crate) fn leave(self) -> BTreeMap<PhysnetName, LacpRecord> {
        let Self { crew, ports, uplinks, monitor, .. } = self;
        crew.stop();
        ports.into_values().for_each(super::ports::LivePort::leave);
        monitor.stop();
        let bonds = uplinks.iter();
        let bonds =
            bonds.filter_map(|(name, it)| Some((name.clone(), it.lacp_record()?))).collect();
        let members = uplinks.values().flat_map(|uplink| uplink.members());
        members.filter_map(|member| member.wire().ok()).for_each(Wire::leave);
        drop(uplinks);
        bonds
    }

    fn guests(&self) -> impl Iterator<Item = (PortUuid, &Arc<Device>, &GuestHandle)> {
        self.ports.iter().filter_map(|(uuid, live)| match live.link() {
            Link::Guest { device, socket, .. } => Some((*uuid, device, socket)),
            _ => None,
        })
    }

    /// Starts the rings of all guests, those that they receive from first: so no frame is dropped because
    /// its receiver comes after its sender.
    fn start_rings(&self) {
        for side in [Side::Receive, Side::Transmit] {
            self.guests().for_each(|(_, _, socket)| socket.go_on(side));
        }
    }
}

/// What the process does that takes over.
impl Switch {
    /// As [`start`](Self::start), but DPDK runs before, and nothing begins before [`begin`](Self::begin):
    /// another process has the cores, the guests and the devices.
    pub(crate) async fn hold(
        config: Config,
        stopwatch: Stopwatch,
        ignition: Ignition,
        ahead: Ahead,
    ) -> Result<Self, StartError> {
        let engine = ignition.done().await?;
        Self::begin_with(config, stopwatch, Some(engine), ahead, true).await
    }

    /// Addresses that the other process has learned, for when desired state is applied.
    pub(crate) fn tell(&mut self, learned: Learned) {
        self.told = Some(learned);
    }

    /// Takes a guest, before desired state is applied. One without a port in it is left: whoever has
    /// removed the port meant that. The error is a sentence.
    pub(crate) fn take(
        &mut self,
        desired: &Desired,
        record: &GuestRecord,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let vhost = &self.config.vhost;
        let Some(port) = desired.ports.get(&record.port) else { return Ok(()) };
        let Attachment::VhostUser { mode, .. } = &port.attachment else { return Ok(()) };
        let path = port.socket_path(&vhost.socket_directory);
        if path.as_ref() != Some(&record.path) || (*mode == SocketMode::Server) != record.server {
            return Ok(());
        }
        let failed = |why: String| format!("port {}: {why}", record.port);
        if record.pairs > PAIRS_MAX {
            return Err(failed(format!("it has {} pairs of queues", record.pairs)));
        }
        let device = Device::new(record.pairs);
        let (path, server) = (record.path.clone(), record.server);
        let options = GuestOptions { port: record.port, path, server, mtu: None };
        let socket = GuestSocket::spawn(options, vhost, Arc::clone(&device), true);
        socket.adopt(record, descriptors, &device).map_err(failed)?;
        self.handed.insert(record.port, (device, socket));
        Ok(())
    }

    /// Takes note of what changed of a guest since it was taken.
    pub(crate) fn retake(&self, record: &GuestRecord, descriptors: Vec<OwnedFd>) {
        let known = self.guests().find(|(uuid, ..)| *uuid == record.port);
        let Some((port, device, socket)) = known else { return };
        let adopted = match device.pairs_max() == record.pairs {
            true => socket.adopt(record, descriptors, device),
            false => Err(format!("it has {} pairs of queues now", record.pairs)),
        };
        if let Err(why) = adopted {
            tracing::warn!(%port, "the guest has to connect again: {why}");
            socket.forget();
        }
    }

    /// Begins: rings go on where the other process has stopped them. Returns how many guests have gone on.
    pub(crate) async fn begin(&mut self, rings: &BTreeMap<PortUuid, Vec<u32>>) -> u32 {
        let mut count = 0;
        for (uuid, _, socket) in self.guests() {
            match rings.get(&uuid) {
                Some(bases) if socket.is_connected() => {
                    socket.place(bases);
                    count += 1;
                }
                // It has gone meanwhile, or was in the middle of a word.
                _ => socket.forget(),
            }
        }
        self.handed.clear();
        self.start_rings();
        self.crew.begin().await;
        self.guests().for_each(|(_, _, socket)| {
            socket.own();
            socket.thaw();
        });
        count
    }

    /// Goes on with LACP as the other process did. For before devices are opened.
    pub(crate) fn resume_lacp(&self, bonds: BTreeMap<PhysnetName, LacpRecord>) {
        for (name, record) in bonds {
            if let Some(uplink) = self.uplinks.get(&name) {
                uplink.resume_lacp(record);
            }
        }
    }

    /// Opens devices, which the other process has closed.
    pub(crate) async fn open_devices(&mut self) {
        self.held = false;
        self.want_of_nics();
        self.open_and_publish(true).await;
        // What is not configured any more was left to this process as well.
        pci::return_unheld(&pci::Host::default());
    }
}
