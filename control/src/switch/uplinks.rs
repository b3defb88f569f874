//! Physnets: the devices by which networks leave this host. Opened at start, and tried again as
//! long as they cannot be.

use std::sync::Arc;
use std::time::Instant;

use dataplane::port::TxPort;
use dataplane::port::eth::EthPort;
use dataplane::snapshot::PortId;

use super::{RETRY, Switch};
use crate::wire::{Opened, Wire};

/// A physnet's uplink.
pub(super) struct Uplink {
    id: PortId,
    state: State,
}

enum State {
    Open { wire: Wire, egress: Arc<EthPort> },
    Waiting { reason: String, again: Instant },
}

impl Uplink {
    pub(super) fn id(&self) -> PortId {
        self.id
    }

    pub(super) fn egress(&self) -> Option<Arc<dyn TxPort>> {
        match &self.state {
            State::Open { egress, .. } => Some(Arc::clone(egress) as Arc<dyn TxPort>),
            State::Waiting { .. } => None,
        }
    }

    /// The open device, or why it is not open.
    pub(super) fn wire(&self) -> Result<&Wire, &str> {
        match &self.state {
            State::Open { wire, .. } => Ok(wire),
            State::Waiting { reason, .. } => Err(reason),
        }
    }
}

impl Switch {
    /// Gives each configured physnet a number that has none yet.
    pub(super) fn add_uplinks(&mut self) {
        for name in self.config.physnets.keys() {
            if self.uplinks.contains_key(name) {
                continue;
            }
            let Some(id) = self.port_numbers.take().and_then(PortId::new) else {
                tracing::error!(physnet = %name, "no port number is left for the physnet");
                continue;
            };
            let state = State::Waiting { reason: String::new(), again: Instant::now() };
            self.uplinks.insert(name.clone(), Uplink { id, state });
        }
    }

    /// Opens uplinks whose time has come. Returns whether any was opened.
    pub(super) async fn open_uplinks(&mut self) -> bool {
        let mut any = false;
        for (name, uplink) in &mut self.uplinks {
            let State::Waiting { reason: before, again } = &uplink.state else { continue };
            if *again > Instant::now() {
                continue;
            }
            let physnet = &self.config.physnets[name];
            let workers = self.config.workers.cores.len();
            let id = uplink.id;
            match Wire::open(self.eal, &self.pool, &physnet.device, id, physnet.mtu, workers) {
                Ok(Opened { wire, rxqs, egress }) => {
                    tracing::info!(physnet = %name, device = %physnet.device, driver = wire.driver(), "opened the uplink");
                    for shortfall in wire.shortfalls() {
                        tracing::warn!(physnet = %name, "{shortfall}");
                    }
                    for rxq in rxqs {
                        self.crew.attach(rxq).await;
                    }
                    uplink.state = State::Open { wire, egress };
                    self.attached.uplinks.insert(name.clone(), id);
                    any = true;
                }
                Err(reason) => {
                    if *before != reason {
                        tracing::error!(physnet = %name, "{reason}");
                    }
                    uplink.state = State::Waiting { reason, again: Instant::now() + RETRY };
                }
            }
        }
        any
    }
}
