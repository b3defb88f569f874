//! The claim to report for a host: the key `state/<host>/daemon`, which the driver passes over.
//!
//! networking-vpp's agent says `1` at `state/<host>/alive`, which tells nobody from anybody. So who
//! reports stands beside it: machine, boot and process. A claim counts while its process runs, where that
//! can be seen from here, and else while the host is alive, which ends by itself when nobody renews it.
//! So a daemon that was killed, or went with its machine, is succeeded at once, and a second machine with
//! the same name is refused.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::place;
use super::v2::{Client, Failure, Refusal};
use crate::model::{AliveState, HostName};
use crate::store::{StoreError, holder};

/// Who reports for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The process.
    #[serde(flatten)]
    process: AliveState,
    /// Which machine it is on, whenever that was started.
    machine_id: Uuid,
}

/// A claim that was made.
#[derive(Debug)]
pub struct Claim {
    /// What stands at the key.
    pub value: String,
    /// What an earlier process left below `state/<host>`.
    pub found: BTreeMap<String, String>,
}

impl Claim {
    /// Claims to report for this host, and makes the directories that the driver may look into.
    pub async fn take(client: &Client, host: &HostName) -> Result<Claim, StoreError> {
        for folder in place::folders(host) {
            let made = client.put(&folder, &[("dir", "true"), ("prevExist", "false")]).await;
            match made {
                Ok(_) => {}
                // A user that may write this host's state alone cannot make the driver's directories,
                // and need not.
                Err(failure)
                    if matches!(failure.code(), Some(MADE | DENIED | Refusal::NOT_A_FILE)) => {}
                Err(failure) => return Err(failure.into_error(client)),
            }
        }
        let found = found(client, host).await?;
        let key = place::daemon(host);
        let alive = found.contains_key(&place::alive(host));
        let former = found.get(&key);
        let me = Holder::this_process();
        match former.map(|text| serde_json::from_str::<Holder>(text)) {
            Some(Ok(holder)) if holder.counts(&me, alive) => {
                let holder = holder::described(&holder.process);
                return Err(StoreError::Claimed { host: host.clone(), holder, place: key });
            }
            None if alive => tracing::warn!(
                "{}: an agent of networking-vpp has run for this host within three minutes; it must \
                 not run beside this daemon",
                place::alive(host)
            ),
            _ => {}
        }
        let value = serde_json::to_string(&me).unwrap_or_default();
        let condition = match former {
            Some(former) => ("prevValue", former.as_str()),
            None => ("prevExist", "false"),
        };
        match client.put(&key, &[("value", &value), condition]).await {
            Ok(_) => Ok(Claim { value, found }),
            Err(Failure::Refused(Refusal { code: MADE | Refusal::COMPARE_FAILED, .. })) => {
                let holder = "another process".to_owned();
                Err(StoreError::Claimed { host: host.clone(), holder, place: key })
            }
            Err(failure) => Err(failure.into_error(client)),
        }
    }
}

const MADE: u32 = Refusal::EXISTS;
const DENIED: u32 = Refusal::NOT_PERMITTED;

/// What a host reports, by key.
pub async fn found(
    client: &Client,
    host: &HostName,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut found = BTreeMap::new();
    // Not the whole tree at once: a user who may do all below `state/<host>/` need not be allowed
    // more, as a pattern that covers the directory too would cover those of other hosts.
    for key in place::reports(host) {
        match client.read(&key).await {
            Ok(answer) => {
                answer.event.node.each(&mut |key, value, _| drop(found.insert(key, value)));
            }
            Err(failure) if failure.code() == Some(Refusal::NOT_FOUND) => {}
            Err(failure) => return Err(failure.into_error(client)),
        }
    }
    Ok(found)
}

impl Holder {
    fn this_process() -> Holder {
        // What machine-id(5) has is not to be shown, so that it is hidden in another.
        let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let machine_id = Uuid::new_v5(&MACHINES, id.trim().as_bytes());
        Holder { process: holder::this_process(), machine_id }
    }

    /// Whether this holder's claim counts, to `me`.
    fn counts(&self, me: &Holder, alive: bool) -> bool {
        let rebooted = self.machine_id == me.machine_id && self.boot() != me.boot();
        if rebooted || holder::is_gone(&self.process) {
            return false;
        }
        alive || self.process.machine == me.process.machine
    }

    /// The kernel's boot, without the name space of process ids.
    fn boot(&self) -> Option<&str> {
        self.process.machine.as_deref()?.split(' ').next()
    }
}

/// The name space of machines (RFC 9562 §5.5). Chosen at random, once and for all.
const MACHINES: Uuid = Uuid::from_u128(0x5b7e_91d4_02c8_4a6f_8d35_f1a9_6c40_e2b7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_while_who_made_it_is_there() {
        let me = Holder::this_process();
        assert!(me.counts(&me, false), "this process runs");
        let with = |machine: &str, started: Option<u64>, machine_id: Uuid| {
            let machine = Some(machine.to_owned());
            let process = AliveState { machine, started_ticks: started, ..me.process.clone() };
            Holder { process, machine_id }
        };
        let here = me.process.machine.clone().expect("the kernel tells it");
        let gone = with(&here, Some(1), me.machine_id);
        assert!(!gone.counts(&me, true), "its process id is another's now");
        let rebooted = with("another-boot pid:[1]", me.process.started_ticks, me.machine_id);
        assert!(!rebooted.counts(&me, true));
        let elsewhere = with("another-boot pid:[1]", me.process.started_ticks, Uuid::nil());
        assert!(elsewhere.counts(&me, true));
        assert!(!elsewhere.counts(&me, false), "nobody renews that it is alive");
    }
}
