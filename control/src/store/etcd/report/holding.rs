//! What stands under `state/<host>/`, and whose it is.
//!
//! Every write is made on condition that the claim still is ours, so a daemon that was frozen while
//! another took over cannot write over what that one reports. What became of a write that was cut off
//! is not known; then all is read before the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
};

use super::super::connect::Connection;
use super::super::list::{self, Span};
use super::super::trouble::{Kind, Trouble};
use super::Failure;
use crate::config::Prefix;
use crate::key::Key;
use crate::model::{ActualState, AliveState, HostName, json};
use crate::store::holder;

/// Operations in a transaction. etcd takes 128 by default (--max-txn-ops).
const OPERATIONS_MAX: usize = 128;

/// Octets of values in a transaction, of the 1.5 MiB that etcd takes by default.
const OCTETS_MAX: usize = 1 << 20;

/// How often a claim is tried that others change meanwhile.
const TRIES: u32 = 5;

/// What should stand under `state/<host>/`, but for its being alive.
pub(super) type Wanted = BTreeMap<Key, String>;

/// This state as it should stand there.
pub(super) fn wanted(state: &ActualState, host: &HostName) -> Wanted {
    state.values(host).into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

/// See the [module's head](self).
pub(super) struct Holding {
    connection: Arc<Connection>,
    prefix: Prefix,
    host: HostName,
    lease_seconds: u32,
    /// What we say of ourselves.
    alive: String,
    /// The lease that is ours; whether the claim is, stands in etcd.
    lease: Option<i64>,
    /// What stands there; `None` if it is not known.
    found: Option<Found>,
}

/// What stood there at some revision.
struct Found {
    values: BTreeMap<Vec<u8>, Value>,
    revision: i64,
}

/// A value and the lease under which it stands, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    text: Vec<u8>,
    lease: i64,
}

impl Holding {
    pub fn new(
        connection: Arc<Connection>,
        prefix: Prefix,
        host: HostName,
        lease_seconds: u32,
    ) -> Holding {
        let alive = json(&holder::this_process()).to_string();
        Holding { connection, prefix, host, lease_seconds, alive, lease: None, found: None }
    }

    fn alive_key(&self) -> String {
        Key::Alive { host: self.host.clone() }.in_etcd(&self.prefix)
    }

    /// What stands before all keys of this host's state.
    fn folder(&self) -> String {
        format!("{}{}", self.prefix, Key::state_prefix(&self.host))
    }

    /// That the claim is ours: nobody else's has come since, and ours has not run out.
    fn ours(&self, lease: i64) -> Compare {
        Compare::lease(self.alive_key(), CompareOp::Equal, lease)
    }

    /// Takes the claim, unless it is ours already.
    pub async fn take(&mut self) -> Result<(), Failure> {
        let place = self.alive_key();
        for _ in 0..TRIES {
            let lease = self.lease().await?;
            let doing = format!("reading {place}");
            let read = self.connection.call(&doing, |mut link| {
                let place = place.clone();
                async move { link.kv.get(place, None).await }
            });
            let read = read.await?;
            let standing = read.kvs().first();
            if let Some(standing) = standing {
                if standing.lease() == lease && standing.value() == self.alive.as_bytes() {
                    return Ok(());
                }
                if standing.lease() != lease
                    && let Some(holder) = living(standing.value(), standing.lease())
                {
                    return Err(Failure::Claimed { holder, place });
                }
            }
            // On condition that nobody was faster.
            let revision = standing.map_or(0, |standing| standing.mod_revision());
            let as_read = Compare::mod_revision(place.clone(), CompareOp::Equal, revision);
            let options = PutOptions::new().with_lease(lease);
            let put = TxnOp::put(place.clone(), self.alive.clone(), Some(options));
            self.found = None;
            let doing = format!("writing {place}");
            match self.transact(&doing, as_read, vec![put]).await {
                // It did, or a try before it whose answer was lost: the next look tells.
                Ok(_) => {}
                Err(trouble) if trouble.kind == Kind::NoLease => self.lease = None,
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let what = format!("claiming {place} failed: others write there all the time");
        Err(Trouble::new(Kind::Other, self.connection.location(), what).into())
    }

    /// The lease, granted if there is none.
    async fn lease(&mut self) -> Result<i64, Trouble> {
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let seconds = i64::from(self.lease_seconds);
        let granted = self.connection.call("granting a lease", |mut link| async move {
            link.lease.grant(seconds, None).await
        });
        let lease = granted.await?.id();
        self.lease = Some(lease);
        Ok(lease)
    }

    /// Makes this what stands there: writes what is different, deletes what is too much. Returns how
    /// many values that took.
    pub async fn write(&mut self, wanted: &Wanted) -> Result<usize, Failure> {
        let mut changes = 0;
        for _ in 0..TRIES {
            if self.lease.is_none() || self.found.is_none() {
                self.take().await?;
                self.look().await?;
            }
            let (Some(lease), Some(found)) = (self.lease, &self.found) else { continue };
            let edits = self.edits(wanted, lease, found);
            match self.apply(edits, lease, &mut changes).await {
                Ok(true) => return Ok(changes),
                // The claim is not ours any more, or the key that says so was deleted.
                Ok(false) => self.found = None,
                Err(trouble) if trouble.kind == Kind::NoLease => self.lease = None,
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let what = format!("writing {} failed: others write there all the time", self.folder());
        Err(Trouble::new(Kind::Other, self.connection.location(), what).into())
    }

    /// Reads what stands there.
    async fn look(&mut self) -> Result<(), Trouble> {
        let folder = self.folder();
        let doing = format!("reading {folder}");
        let read = list::spans(&self.connection, &[Span::of_prefix(&folder)], &doing).await?;
        let value = |kv: &etcd_client::KeyValue| {
            (kv.key().to_vec(), Value { text: kv.value().to_vec(), lease: kv.lease() })
        };
        let values = read.found.iter().map(value).collect();
        self.found = Some(Found { values, revision: read.revision });
        Ok(())
    }

    /// What has to be written, and where (`None`: deleted).
    fn edits(&self, wanted: &Wanted, lease: i64, found: &Found) -> Vec<(Vec<u8>, Option<Value>)> {
        let mut values: BTreeMap<Vec<u8>, Value> = wanted
            .iter()
            .map(|(key, text)| {
                // What is said of ports stays when the daemon goes: guests run on.
                let lease = if matches!(key, Key::PortState { .. }) { 0 } else { lease };
                let value = Value { text: text.clone().into_bytes(), lease };
                (key.in_etcd(&self.prefix).into_bytes(), value)
            })
            .collect();
        let alive = Value { text: self.alive.clone().into_bytes(), lease };
        values.insert(self.alive_key().into_bytes(), alive);
        let gone = found.values.keys().filter(|key| !values.contains_key(*key));
        let gone: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
        let new = values.into_iter().filter(|(key, value)| found.values.get(key) != Some(value));
        gone.into_iter().chain(new.map(|(key, value)| (key, Some(value)))).collect()
    }

    /// Carries out edits, as many at a time as etcd takes. Returns whether the claim was ours.
    async fn apply(
        &mut self,
        edits: Vec<(Vec<u8>, Option<Value>)>,
        lease: i64,
        changes: &mut usize,
    ) -> Result<bool, Trouble> {
        let doing = format!("writing {}", self.folder());
        let mut edits = edits.into_iter().peekable();
        while edits.peek().is_some() {
            let (mut some, mut octets) = (Vec::new(), 0);
            let size = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.text.len());
            while let Some((_, value)) = edits.peek()
                && some.len() < OPERATIONS_MAX
                && (some.is_empty() || octets + size(value) <= OCTETS_MAX)
            {
                octets += size(value);
                some.extend(edits.next());
            }
            let operations = some.iter().map(|(key, value)| match value {
                Some(value) => {
                    let options = PutOptions::new().with_lease(value.lease);
                    TxnOp::put(key.clone(), value.text.clone(), Some(options))
                }
                None => TxnOp::delete(key.clone(), None),
            });
            let operations = operations.collect();
            // Until the answer is there, it is not known what stands there.
            let Some(mut found) = self.found.take() else { return Ok(false) };
            let Some(revision) = self.transact(&doing, self.ours(lease), operations).await? else {
                return Ok(false);
            };
            found.revision = revision;
            *changes += some.len();
            for (key, value) in some {
                match value {
                    Some(value) => found.values.insert(key, value),
                    None => found.values.remove(&key),
                };
            }
            self.found = Some(found);
        }
        Ok(true)
    }

    /// Does all of this on a condition. Returns at which revision, if the condition held.
    async fn transact(
        &self,
        doing: &str,
        condition: Compare,
        operations: Vec<TxnOp>,
    ) -> Result<Option<i64>, Trouble> {
        let done = self.connection.call(doing, |mut link| {
            let txn = Txn::new().when([condition.clone()]).and_then(operations.clone());
            async move { link.kv.txn(txn).await }
        });
        let done = done.await?;
        let revision = done.header().map_or(0, |header| header.revision());
        Ok(done.succeeded().then_some(revision))
    }

    /// Tells the cluster that we live, and looks whether something was changed behind our back.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
        if let Some(lease) = self.lease {
            let kept = self.connection.call("keeping the lease alive", |mut link| async move {
                link.lease.keep_alive(lease).await.map(drop)
            });
            match kept.await {
                Ok(()) => {}
                Err(trouble) if trouble.kind == Kind::NoLease => {
                    tracing::warn!(host = %self.host, "the lease has run out: it is made anew");
                    (self.lease, self.found) = (None, None);
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
        if let Some(found) = &self.found {
            let (count, revision) = self.newest().await?;
            if count != found.values.len() as i64 || revision > found.revision {
                self.found = None;
            }
        }
        Ok(())
    }

    /// How many keys there are, and when one changed last. One server's word will do: if it is out of
    /// date, all is read once in vain.
    async fn newest(&self) -> Result<(i64, i64), Trouble> {
        let folder = self.folder();
        let doing = format!("reading {folder}");
        let read = self.connection.call(&doing, |mut link| {
            let options = GetOptions::new()
                .with_prefix()
                .with_keys_only()
                .with_limit(1)
                .with_sort(SortTarget::Mod, SortOrder::Descend)
                .with_serializable();
            let folder = folder.clone();
            async move { link.kv.get(folder, Some(options)).await }
        });
        let read = read.await?;
        Ok((read.count(), read.kvs().first().map_or(0, |newest| newest.mod_revision())))
    }

    /// Deletes all that was reported, and gives up the claim.
    pub async fn withdraw(&mut self) -> Result<(), Failure> {
        let Some(lease) = self.lease else { return Ok(()) };
        let options = DeleteOptions::new().with_prefix();
        let delete = TxnOp::delete(self.folder(), Some(options));
        let doing = format!("deleting {}", self.folder());
        // If the claim is not ours, neither is what stands there.
        self.transact(&doing, self.ours(lease), vec![delete]).await?;
        self.release().await;
        Ok(())
    }

    /// Gives up the lease, with all that stands under it. If that fails, it runs out by itself.
    pub async fn release(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.found = None;
        let revoked = self
            .connection
            .call("revoking the lease", |mut link| async move { link.lease.revoke(lease).await });
        if let Err(trouble) = revoked.await
            && trouble.kind != Kind::NoLease
        {
            tracing::debug!(?trouble, "the lease was not revoked");
        }
    }
}

/// Who has the claim by this value, unless it is nobody who lives.
fn living(value: &[u8], lease: i64) -> Option<String> {
    // A claim always stands under a lease; what does not was written by somebody else.
    if lease == 0 {
        return None;
    }
    match serde_json::from_slice::<AliveState>(value) {
        Ok(alive) if holder::is_gone(&alive) => None,
        Ok(alive) => Some(holder::described(&alive)),
        Err(_) => Some("somebody who does not say who".to_owned()),
    }
}
