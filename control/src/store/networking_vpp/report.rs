//! What is reported: `state/<host>/alive`, `physnets/<name>` and `ports/<uuid>`, where the driver
//! looks.
//!
//! That a key exists is what the driver goes by: a host that is alive and has the physnet can be given
//! ports, and a port whose key appears is plugged, so that Nova lets its guest run. So a port's key
//! exists exactly while the port is ready, and `alive` only once desired state was read. What is lost
//! there is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::claim::{self, Claim};
use super::v2::{Client, Failure, Refusal};
use super::{Backoff, Desired, Neutron, Pace, Placement, Ports, place};
use crate::model::{ActualState, HostName, PortState, PortUuid, Status};
use crate::store::{AbortOnDrop, Pending, Reporter, StoreError};

/// Seconds after which a host that says nothing is not given ports any more, as networking-vpp's
/// agent has it.
const ALIVE_SECONDS: &str = "180";

/// The right to report, and the task that keeps true what was reported.
pub(super) struct Reports {
    writer: Arc<Mutex<Writer>>,
    _beat: AbortOnDrop,
}

/// Who writes.
struct Writer {
    client: Arc<Client>,
    host: HostName,
    pace: Pace,
    desired: Desired,
    /// What there is to report, once there is anything.
    state: Option<ActualState>,
    /// What stands at `state/<host>/daemon` while the claim is ours.
    claim: String,
    /// What stands below `ports` and `physnets`, as far as is known.
    written: BTreeMap<String, String>,
    /// Ports of which an earlier process said that they are ready, and of which that may be true still.
    inherited: BTreeSet<PortUuid>,
    began: Instant,
    alive: bool,
    /// Whether another process has taken the claim.
    lost: bool,
}

impl Reports {
    /// Claims to report for the host. Nothing is reported until desired state was read.
    pub async fn begin(store: &Neutron, host: &HostName) -> Result<Reports, StoreError> {
        let Claim { value, mut found } = Claim::take(&store.client, host).await?;
        found.retain(|key, _| is_report(host, key));
        let ports = found.keys().filter_map(|key| place::port_of_state(host, key)).collect();
        let writer = Arc::new(Mutex::new(Writer {
            client: Arc::clone(&store.client),
            host: host.clone(),
            pace: store.pace,
            desired: Arc::clone(&store.desired),
            state: None,
            claim: value,
            written: found,
            inherited: ports,
            began: Instant::now(),
            alive: false,
            lost: false,
        }));
        let beat = beat(Arc::clone(&writer), Arc::clone(&store.desired), store.pace);
        Ok(Reports { writer, _beat: AbortOnDrop(tokio::spawn(beat)) })
    }
}

impl Reporter for Reports {
    fn report<'a>(&'a mut self, state: &'a ActualState) -> Pending<'a, usize> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            writer.state = Some(state.clone());
            writer.round(false).await
        })
    }

    fn withdraw(self: Box<Self>) -> Pending<'static, ()> {
        let Reports { writer, _beat } = *self;
        Box::pin(async move {
            // Ended between two steps, or waiting for one of them at most.
            drop(_beat);
            writer.lock().await.withdraw().await
        })
    }
}

/// Looks now and then whether what was reported stands there, and says that the host is alive; and
/// reports when desired state was read, if actual state was known before.
async fn beat(writer: Arc<Mutex<Writer>>, desired: Desired, pace: Pace) {
    let mut desired = desired.subscribe();
    let mut next = Instant::now();
    let mut backoff = Backoff::default();
    let mut complaint = None;
    loop {
        let due = next <= Instant::now();
        // Not in the `match` itself, which would hold the lock to its end.
        let done = writer.lock().await.round(due).await;
        match done {
            Ok(_) => {
                if due {
                    next = Instant::now() + pace.beat;
                }
                backoff = Backoff::default();
                complaint = None;
                // The sender is the store's, which this task would outlive only for nothing.
                if let Ok(Err(_)) = timeout_at(next, desired.changed()).await {
                    return;
                }
            }
            Err(error) => {
                let error = error.to_string();
                if complaint.as_ref() != Some(&error) {
                    tracing::error!("reporting actual state: {error}");
                    complaint = Some(error);
                }
                next = Instant::now();
                backoff.wait().await;
            }
        }
    }
}

impl Writer {
    /// Writes what differs, and returns how many values that took. If `due`, looks first at what
    /// stands there, and says that the host is alive.
    async fn round(&mut self, due: bool) -> Result<usize, StoreError> {
        let (Some(ports), Some(state)) = (self.desired.borrow().clone(), self.state.clone()) else {
            return Ok(0);
        };
        if due {
            self.look().await?;
        }
        if self.lost {
            return Err(self.claimed());
        }
        let inherited = self.inherited_in(&ports, &state);
        let mut changes = self.reconcile(&self.wanted(&state, &ports, inherited)).await?;
        if due || !self.alive {
            changes += usize::from(!self.alive);
            self.say_alive().await?;
        }
        Ok(changes)
    }

    /// Reads what stands there. Fails if another process has the claim.
    async fn look(&mut self) -> Result<(), StoreError> {
        let mut found = claim::found(&self.client, &self.host).await?;
        let key = place::daemon(&self.host);
        self.lost = found.get(&key).is_some_and(|value| *value != self.claim);
        match found.get(&key) {
            Some(_) if self.lost => return Err(self.claimed()),
            Some(_) => {}
            // Somebody wiped it.
            None => self.put(&key, &[("value", &self.claim), ("prevExist", "false")]).await?,
        }
        found.retain(|key, _| is_report(&self.host, key));
        self.written = found;
        if self.began.elapsed() > self.pace.grace {
            self.inherited.clear();
        }
        Ok(())
    }

    fn claimed(&self) -> StoreError {
        let (host, holder) = (self.host.clone(), "another process".to_owned());
        StoreError::Claimed { host, holder, place: place::daemon(&self.host) }
    }

    /// What an earlier process said and what may be true still, by key: of ports that are desired, and
    /// not known to be ready or refused yet.
    fn inherited_in(&mut self, ports: &Ports, state: &ActualState) -> BTreeMap<String, String> {
        self.inherited.retain(|port| {
            let status = state.ports.get(port).map(|state| state.status);
            ports.contains_key(port) && matches!(status, None | Some(Status::Waiting))
        });
        let keys = self.inherited.iter().map(|port| place::port_state(&self.host, *port));
        keys.filter_map(|key| Some((key.clone(), self.written.get(&key)?.clone()))).collect()
    }

    /// What shall stand below `state/<host>`, beside that the host is alive.
    fn wanted(
        &self,
        state: &ActualState,
        ports: &Ports,
        inherited: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut wanted = inherited;
        for (name, physnet) in &state.physnets {
            // A link that is down may be up in a moment; a device that cannot be opened carries
            // nothing.
            if physnet.status != Status::Failed {
                wanted.insert(place::physnet_state(&self.host, name), "1".to_owned());
            }
        }
        for (port, report) in &state.ports {
            if report.status != Status::Ready {
                continue;
            }
            let key = place::port_state(&self.host, *port);
            let value = match (ports.get(port), self.written.get(&key)) {
                // About to go, or in force although etcd lost it: what was said of it stays.
                (None, Some(written)) => written.clone(),
                (placement, _) => port_value(*port, report, placement).to_string(),
            };
            wanted.insert(key, value);
        }
        wanted
    }

    async fn reconcile(&mut self, wanted: &BTreeMap<String, String>) -> Result<usize, StoreError> {
        let gone: Vec<String> =
            self.written.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        let mut changes = gone.len();
        for key in gone {
            self.delete(&key, &[]).await?;
            self.written.remove(&key);
        }
        for (key, value) in wanted {
            if self.written.get(key) != Some(value) {
                self.put(key, &[("value", value)]).await?;
                self.written.insert(key.clone(), value.clone());
                changes += 1;
            }
        }
        Ok(changes)
    }

    /// Says that the host is alive, for the next three minutes. To renew it wakes nobody who watches;
    /// once it has gone, it is written anew.
    async fn say_alive(&mut self) -> Result<(), StoreError> {
        let key = place::alive(&self.host);
        let renewal = [("refresh", "true"), ("prevExist", "true"), ("ttl", ALIVE_SECONDS)];
        match self.client.put(&key, &renewal).await {
            Ok(_) => {}
            Err(Failure::Refused(Refusal { code: Refusal::NOT_FOUND, .. })) => {
                self.put(&key, &[("value", "1"), ("ttl", ALIVE_SECONDS)]).await?;
            }
            Err(failure) => return Err(failure.into_error(&self.client)),
        }
        self.alive = true;
        Ok(())
    }

    /// Deletes all that was reported, and the claim last. The host is not alive first: nothing is to be
    /// bound here any more.
    async fn withdraw(&mut self) -> Result<(), StoreError> {
        if self.lost {
            return Ok(());
        }
        if self.alive {
            self.delete(&place::alive(&self.host), &[]).await?;
        }
        while let Some((key, _)) = self.written.pop_first() {
            self.delete(&key, &[]).await?;
        }
        let claim = [("prevValue", self.claim.as_str())];
        self.delete(&place::daemon(&self.host), &claim).await
    }

    async fn put(&self, key: &str, parameters: &[(&str, &str)]) -> Result<(), StoreError> {
        let put = self.client.put(key, parameters).await;
        put.map(|_| ()).map_err(|failure| failure.into_error(&self.client))
    }

    async fn delete(&self, key: &str, parameters: &[(&str, &str)]) -> Result<(), StoreError> {
        let deleted = self.client.delete(key, parameters).await;
        deleted.map_err(|failure| failure.into_error(&self.client))
    }
}

/// Whether a key is one of those that are compared with what is wanted.
fn is_report(host: &HostName, key: &str) -> bool {
    let state = place::state(host);
    ["ports", "physnets"].iter().any(|part| place::below(key, &format!("{state}/{part}")).is_some())
}

/// What is said of a port that is ready, as far as networking-vpp's agent says it too. The driver goes
/// by the key alone; only what does not change is in it, as each write makes the driver work.
fn port_value(port: PortUuid, report: &PortState, placement: Option<&Placement>) -> Value {
    let mut value = json!({});
    if let Some(socket) = &report.socket {
        value["path"] = json!(socket);
    }
    if let Some(mac) = report.mac {
        value["mac"] = json!(mac);
    }
    // What is in force although etcd lost it has no place in the driver's words.
    let Some(Placement { binding, network_type, physnet, vlan, .. }) = placement else {
        return value;
    };
    value["bind_type"] = json!(binding);
    value["net_data"] = json!({
        "physnet": physnet,
        "network_type": network_type,
        "segmentation_id": vlan.map(u16::from),
    });
    if *binding == "tap" {
        let short: String = port.to_string().chars().take(11).collect();
        value["bridge_name"] = json!(format!("br-{short}"));
        value["int_tap_name"] = json!(format!("vpp{short}"));
        value["ext_tap_name"] = json!(format!("tap{short}"));
    }
    value
}
