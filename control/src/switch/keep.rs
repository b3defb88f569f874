//! Learned addresses over a restart: what is kept of the forwarding database, and what of it is taken
//! back, see [`learned`](crate::learned).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dataplane::fdb::Fdb;
use dataplane::headers;
use dataplane::snapshot::{DomainId, PortId};
use tokio::task::JoinHandle;

use super::Switch;
use crate::config::Config;
use crate::learned::{Learned, LearnedFile};
use crate::model::{Mac, NetworkUuid, PhysnetName, PortUuid};
use crate::problem::Problem;

/// How old the file may be when the daemon is killed.
const EVERY: Duration = Duration::from_secs(10);

/// The file, if there is to be one, and when it is written next.
pub(super) struct Keeping {
    file: LearnedFile,
    due: Instant,
    writing: Option<JoinHandle<Result<(), Problem>>>,
    problem: Option<Problem>,
    /// The file was read, so it may be replaced.
    loaded: bool,
}

impl Keeping {
    pub(super) fn of(config: &Config) -> Option<Keeping> {
        let file = LearnedFile::new(config.fdb.file.as_deref()?, config.fdb.entries);
        let due = Instant::now() + EVERY;
        Some(Keeping { file, due, writing: None, problem: None, loaded: false })
    }

    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    fn note(&mut self, outcome: Result<(), Problem>) {
        let problem = outcome.err();
        if let Some(problem) = problem.as_ref().filter(|it| Some(*it) != self.problem.as_ref()) {
            tracing::warn!("{problem}");
        }
        self.problem = problem;
    }
}

impl Switch {
    /// Takes back what an earlier daemon had learned on networks, ports and wires that are there again.
    /// When desired state is put in force for the first time, before any of it is published.
    pub(super) fn recall(&mut self) {
        let keeping = self.keeping.as_mut().filter(|keeping| !keeping.loaded);
        let learned = match (self.told.take(), keeping) {
            (Some(told), keeping) => {
                keeping.into_iter().for_each(|keeping| keeping.loaded = true);
                told.aged_until_now()
            }
            (None, Some(keeping)) => {
                keeping.loaded = true;
                match keeping.file.load() {
                    Ok(learned) => learned,
                    Err(problem) => return keeping.note(Err(problem)),
                }
            }
            (None, None) => return,
        };
        let (mut taken, mut left) = (0_u32, 0_u32);
        for (uuid, on_network) in &learned.networks {
            let domain = self.attached.domains.get(uuid).copied();
            let of_ports =
                on_network.ports.iter().map(|(port, macs)| (self.port_on(*port, *uuid), macs));
            let of_wires =
                on_network.physnets.iter().map(|(name, macs)| (self.wire_of(name, *uuid), macs));
            for (port, macs) in of_ports.chain(of_wires) {
                let before = taken;
                if let (Some(domain), Some(port)) = (domain, port) {
                    taken += self.restore(domain, port, macs);
                }
                left += macs.len() as u32 - (taken - before);
            }
        }
        if taken + left > 0 {
            tracing::info!(taken, left, "took back learned addresses");
        }
    }

    /// Writes the file if it is time.
    pub(super) async fn keep_learned(&mut self) {
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.loaded) else { return };
        if let Some(writing) = keeping.writing.take_if(|writing| writing.is_finished()) {
            // It fails only if the runtime ends.
            let outcome = writing.await.unwrap_or(Ok(()));
            keeping.note(outcome);
        }
        if keeping.writing.is_some() || Instant::now() < keeping.due {
            return;
        }
        let learned = self.learned();
        if let Some(keeping) = &mut self.keeping {
            keeping.due = Instant::now() + EVERY;
            let file = keeping.file.clone();
            keeping.writing = Some(tokio::task::spawn_blocking(move || file.save(&learned)));
        }
    }

    /// What is known at the end; to be written by [`keep_last`] when nothing is switched any more.
    pub(super) async fn last_learned(&mut self) -> Option<(Keeping, Learned)> {
        let mut keeping = self.keeping.take().filter(|keeping| keeping.loaded)?;
        if let Some(writing) = keeping.writing.take() {
            // It would replace what is written after it.
            let _ = writing.await;
        }
        Some((keeping, self.learned()))
    }

    /// What is learned now.
    pub(crate) fn learned(&self) -> Learned {
        let mut learned = Learned::begin();
        let networks: BTreeMap<DomainId, NetworkUuid> =
            self.attached.domains.iter().map(|(uuid, id)| (*id, *uuid)).collect();
        let ports: BTreeMap<PortId, PortUuid> =
            self.ports.iter().map(|(uuid, live)| (live.id(), *uuid)).collect();
        let wires: BTreeMap<PortId, &PhysnetName> =
            self.uplinks.iter().map(|(name, uplink)| (uplink.id(), name)).collect();
        let now = self.now();
        for entry in self.fdb.entries(now) {
            let Some(network) = networks.get(&entry.domain) else { continue };
            let Ok(mac) = Mac::new(entry.mac.bytes()) else { continue };
            let network = learned.networks.entry(*network).or_default();
            let macs = match (ports.get(&entry.port), wires.get(&entry.port)) {
                (Some(port), _) => network.ports.entry(*port).or_default(),
                (None, Some(name)) => network.physnets.entry((*name).clone()).or_default(),
                (None, None) => continue,
            };
            macs.insert(mac, now.saturating_sub(entry.seen_seconds));
        }
        learned
    }

    /// The port, if it is on that network now.
    fn port_on(&self, port: PortUuid, network: NetworkUuid) -> Option<PortId> {
        let desired = self.desired.ports.get(&port)?;
        (desired.network == network).then_some(self.ports.get(&port)?.id())
    }

    /// The wire, if it is that network's now.
    fn wire_of(&self, name: &PhysnetName, network: NetworkUuid) -> Option<PortId> {
        let desired = self.desired.networks.get(&network)?;
        (desired.segment.physnet() == Some(name)).then_some(self.uplinks.get(name)?.id())
    }

    fn restore(&self, domain: DomainId, port: PortId, macs: &BTreeMap<Mac, u32>) -> u32 {
        let fdb: &Fdb = &self.fdb;
        let now = self.now();
        let taken = macs.iter().filter(|(mac, age)| {
            let mac = headers::Mac::new(mac.octets());
            let seen = now.checked_sub(**age).filter(|_| **age <= fdb.ageing_seconds());
            seen.is_some_and(|seen| fdb.restore(domain, mac, port, seen))
        });
        taken.count() as u32
    }
}

/// Writes what was known at the end. The process ends, so there is nobody to wait for it.
pub(super) fn keep_last(last: Option<(Keeping, Learned)>) {
    if let Some((mut keeping, learned)) = last {
        let outcome = keeping.file.save(&learned);
        keeping.note(outcome);
    }
}
