//! What the commands that add, change and delete objects do to a store.
//!
//! They work on the store alone, with or without a daemon. Before a value is written, the whole set with
//! it is judged as the daemon will judge it; what the daemon would report, the command refuses in the
//! same words. Two commands at the same moment may still pass each other: what then does not go
//! together, the daemon reports; of two changes to one group, the later one stands.

mod groups;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub use self::groups::{
    add_address_group, add_security_group, change_address_group, change_security_group,
    delete_address_group, delete_member, delete_security_group, find_address_group,
    find_security_group, leave_address_group, rule_number, set_member,
};

use crate::key::Key;
use crate::model::{Desired, HostName, Network, NetworkUuid, Port, PortUuid, RawValue, Site, json};
use crate::problem::{Fault, Problem, quoted};
use crate::store::{Store, StoreError};

/// Why a store was not edited. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// With this value the set would not be good. These are the problems it would bring.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
    /// There is an object of this UUID already.
    #[error("{0}: is there already; delete it first, or leave the UUID out to have a new one")]
    Exists(Key),
    /// No object is called so.
    #[error("there is no {kind} {}; `viaduct check` lists what is wrong in the store", quoted(.name))]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// The name or UUID given.
        name: String,
    },
    /// Several objects are called so.
    #[error("several {kind}s are called {}; name one by UUID: {}", quoted(.name), list(.found))]
    Ambiguous {
        /// What was looked for.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The objects of that name.
        found: Vec<Key>,
    },
    /// Ports are on the network.
    #[error("{network}: ports are on it; delete these first: {}", list(.ports))]
    InUse {
        /// The network to be deleted.
        network: Key,
        /// The ports on it, on all hosts.
        ports: Vec<Key>,
    },
    /// Ports or rules name the group, or it has members.
    #[error("{group}: it is named by others; delete or change these first: {}", list(.by))]
    Named {
        /// The group to be deleted.
        group: Key,
        /// What names it, on all hosts.
        by: Vec<Key>,
    },
    /// The group has no such rule.
    #[error("{group}: it has no rule {}; `viaduct group rule list` numbers them", quoted(.rule))]
    NoRule {
        /// The group.
        group: Key,
        /// The number or name given.
        rule: String,
    },
    /// Several rules of the group are called so.
    #[error("{group}: several rules are called {}; name one by its number: {}", quoted(.name), list(.numbers))]
    SeveralRules {
        /// The group.
        group: Key,
        /// The name given.
        name: String,
        /// The numbers of the rules of that name.
        numbers: Vec<usize>,
    },
    /// What should leave a group is not in it.
    #[error("{group}: {what} is not in it; {remedy}")]
    NotIn {
        /// The group.
        group: Key,
        /// The address or port.
        what: String,
        /// Where to see what is.
        remedy: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// Adds a network, under a new UUID if none is given. Returns its key.
pub async fn add_network(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: Option<NetworkUuid>,
    network: &Network,
) -> Result<Key, EditError> {
    let key = Key::Network(id.unwrap_or_else(NetworkUuid::random));
    add(store, site.into(), key, json(network)).await
}

/// Adds a port to the site's host, under a new UUID if none is given. Returns its key.
pub async fn add_port(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: Option<PortUuid>,
    port: &Port,
) -> Result<Key, EditError> {
    let site = site.into();
    let key = Key::Port { host: site.host.clone(), port: id.unwrap_or_else(PortUuid::random) };
    add(store, site, key, json(port)).await
}

/// Changes a port of the site's host. Its value is written whole, and one that cannot be read is not
/// written over.
pub async fn change_port(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: PortUuid,
    change: impl FnOnce(&mut Port),
) -> Result<Key, EditError> {
    let site = site.into();
    let values = store.list().await?.values;
    let key = Key::Port { host: site.host.clone(), port: id };
    let mut port = stored(&values, &key, "port", Port::from_json)?;
    change(&mut port);
    put(store, site, values, key, json(&port)).await
}

/// Deletes a network by UUID or name, unless ports are on it. Returns its key.
pub async fn delete_network(store: &dyn Store, name: &str) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    let network = find_network(&values, name)?;
    let key = Key::Network(network);
    let on_it = |raw: &RawValue| field(raw, "network") == Some(network.to_string().into());
    let ports: Vec<Key> = values
        .iter()
        .filter(|(key, raw)| matches!(key, Key::Port { .. }) && on_it(raw))
        .map(|(key, _)| key.clone())
        .collect();
    if !ports.is_empty() {
        return Err(EditError::InUse { network: key, ports });
    }
    store.delete(&key).await?;
    Ok(key)
}

/// Deletes a port of a host by UUID or name. Returns its key.
pub async fn delete_port(store: &dyn Store, host: &HostName, name: &str) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    let key = Key::Port { host: host.clone(), port: find_port(&values, host, name)? };
    store.delete(&key).await?;
    Ok(key)
}

/// The network that is called so, by UUID or by name, whether or not it is good.
pub fn find_network(
    values: &BTreeMap<Key, RawValue>,
    name: &str,
) -> Result<NetworkUuid, EditError> {
    let id = |key: &Key| match key {
        Key::Network(network) => Some(*network),
        _ => None,
    };
    find(values, "network", name, id)
}

/// The port of a host that is called so, by UUID or by name, whether or not it is good.
pub fn find_port(
    values: &BTreeMap<Key, RawValue>,
    host: &HostName,
    name: &str,
) -> Result<PortUuid, EditError> {
    let id = |key: &Key| match key {
        Key::Port { host: its, port } if its == host => Some(*port),
        _ => None,
    };
    find(values, "port", name, id)
}

async fn add(store: &dyn Store, site: Site<'_>, key: Key, value: Value) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    if values.contains_key(&key) {
        return Err(EditError::Exists(key));
    }
    put(store, site, values, key, value).await
}

/// The object at a key, to be changed.
fn stored<T>(
    values: &BTreeMap<Key, RawValue>,
    key: &Key,
    kind: &'static str,
    read: fn(&[u8]) -> Result<T, Vec<Fault>>,
) -> Result<T, EditError> {
    let refused = |faults: Vec<Fault>| {
        let problems: Vec<Problem> = faults.into_iter().map(|fault| fault.at(key)).collect();
        EditError::Refused(problems)
    };
    match values.get(key) {
        Some(RawValue::Json(bytes)) => read(bytes).map_err(refused),
        Some(RawValue::Unreadable(misfit)) => Err(refused(vec![Fault::misfit("", misfit.clone())])),
        None => Err(EditError::NotFound { kind, name: key.to_string() }),
    }
}

/// Writes a value among `values`, which the store holds, unless something is wrong with it.
async fn put(
    store: &dyn Store,
    site: Site<'_>,
    mut values: BTreeMap<Key, RawValue>,
    key: Key,
    value: Value,
) -> Result<Key, EditError> {
    let before = Desired::build(&values, site);
    values.insert(key.clone(), RawValue::Json(value.to_string().into_bytes().into()));
    // What is there keeps what it has: all that the new value brings about, it is refused for.
    let after = before.rebuild(&values, site);
    let said = |desired: &Desired| -> Vec<Problem> {
        desired.problems.values().chain(desired.warnings.values()).flatten().cloned().collect()
    };
    let known: BTreeSet<Problem> = said(&before).into_iter().collect();
    let new: Vec<Problem> = said(&after).into_iter().filter(|it| !known.contains(it)).collect();
    if !new.is_empty() {
        return Err(EditError::Refused(new));
    }
    store.put(&key, &value).await?;
    Ok(key)
}

fn find<I: Copy + ToString>(
    values: &BTreeMap<Key, RawValue>,
    kind: &'static str,
    name: &str,
    id: impl Fn(&Key) -> Option<I>,
) -> Result<I, EditError> {
    let mut named = Vec::new();
    for (key, raw) in values {
        let Some(id) = id(key) else { continue };
        if id.to_string() == name {
            return Ok(id);
        }
        if field(raw, "name").is_some_and(|its| its.as_str() == Some(name)) {
            named.push((key.clone(), id));
        }
    }
    match named[..] {
        [] => Err(EditError::NotFound { kind, name: name.to_owned() }),
        [(_, id)] => Ok(id),
        _ => {
            let found = named.into_iter().map(|(key, _)| key).collect();
            Err(EditError::Ambiguous { kind, name: name.to_owned(), found })
        }
    }
}

/// A field of a value that need not be good otherwise.
fn field(raw: &RawValue, name: &str) -> Option<Value> {
    let RawValue::Json(bytes) = raw else { return None };
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    value.get_mut(name).map(Value::take)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::config::Vhost;
    use crate::model::{Attachment, Segment, SocketMode};
    use crate::store::directory::Directory;

    const NET: &str = "11111111-1111-4111-8111-111111111111";
    const PORT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";

    fn guest(network: NetworkUuid, socket: &str, mac: &str) -> Port {
        let attachment = Attachment::VhostUser {
            mac: mac.parse().expect("a MAC"),
            socket: socket.parse().expect("a socket"),
            mode: SocketMode::Client,
            queues: 1,
        };
        Port { name: "web".parse().ok(), ..Port::new(network, attachment) }
    }

    #[tokio::test]
    async fn what_is_added_can_be_found_and_deleted_in_order() {
        let directory = TempDir::new().expect("a directory for the test");
        let store = Directory::new(directory.path());
        let host: HostName = "h".parse().expect("a name");
        let vhost = Vhost::default();
        let physnets = BTreeMap::new();
        let site = Site { host: &host, physnets: Some(&physnets), vhost: &vhost, cores: &[] };
        let id = NET.parse().ok();

        let mut network = Network::new(Segment::Local);
        network.name = "blue".parse().ok();
        let key = add_network(&store, site, id, &network).await.expect("nothing is against it");
        assert_eq!(key.to_string(), format!("networks/{NET}"));
        let again = add_network(&store, site, id, &network).await.expect_err("it is there");
        assert_eq!(
            again.to_string(),
            format!(
                "networks/{NET}: is there already; delete it first, or leave the UUID out to have \
                 a new one"
            )
        );

        let values = store.list().await.expect("it can be read").values;
        let network = find_network(&values, "blue").expect("by name");
        assert_eq!(find_network(&values, NET).expect("by UUID"), network);
        let port = guest(network, "a.sock", "52:54:00:00:00:01");
        let port_key =
            add_port(&store, site, PORT.parse().ok(), &port).await.expect("nothing is against it");
        assert_eq!(port_key.to_string(), format!("nodes/h/ports/{PORT}"));
        let desired = Desired::build(&store.list().await.expect("it can be read").values, site);
        assert_eq!(desired.ports.values().collect::<Vec<_>>(), [&port]);
        assert!(desired.problems.is_empty());

        // A port of another host counts too, and need not be good.
        let other =
            "nodes/other/ports/bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb".parse().expect("a key");
        store.put(&other, &json!({"network": NET})).await.expect("it can be written");
        let refused = delete_network(&store, "blue").await.expect_err("ports are on it");
        assert_eq!(
            refused.to_string(),
            format!("networks/{NET}: ports are on it; delete these first: {port_key}, {other}")
        );
        store.delete(&other).await.expect("it can be deleted");
        assert_eq!(delete_port(&store, &host, "web").await.expect("by name"), port_key);
        assert_eq!(delete_network(&store, NET).await.expect("by UUID"), key);
        let gone = delete_network(&store, NET).await.expect_err("it is gone").to_string();
        assert_eq!(
            gone,
            format!(
                "there is no network `{NET}`; `viaduct check` lists what is wrong in the store"
            )
        );
    }

    #[tokio::test]
    async fn what_the_daemon_would_report_is_refused_in_its_words() {
        let directory = TempDir::new().expect("a directory for the test");
        let store = Directory::new(directory.path());
        let host: HostName = "h".parse().expect("a name");
        let vhost = Vhost::default();
        let physnets = BTreeMap::new();
        let site = Site { host: &host, physnets: Some(&physnets), vhost: &vhost, cores: &[] };
        // What is wrong already is not held against what is added.
        let bad = "networks/00000000-0000-4000-8000-000000000000".parse().expect("a key");
        store.put(&bad, &json!({"type": "vxlan"})).await.expect("it can be written");

        let local = Network::new(Segment::Local);
        let id: NetworkUuid = NET.parse().expect("a UUID");
        add_network(&store, site, Some(id), &local).await.expect("nothing is against it");
        let port = guest(id, "a.sock", "52:54:00:00:00:01");
        let first = add_port(&store, site, None, &port).await.expect("nothing is against it");

        let new: PortUuid = "00000000-0000-4000-8000-00000000000a".parse().expect("a UUID");
        let refused = add_port(&store, site, Some(new), &port).await.expect_err("two of one");
        let key = format!("nodes/h/ports/{new}");
        assert_eq!(
            refused.to_string(),
            format!(
                "{key}: socket: `/run/viaduct/vhost/a.sock` is the socket of {first}, which stays \
                 in force; choose another socket, or delete one of the two ports\n\
                 {key}: mac: 52:54:00:00:00:01 is on this network already, as the address of \
                 {first}, which stays in force; choose another address, or another network, or \
                 delete one of the two ports"
            )
        );
        // Even what would be a mere warning to the daemon.
        let wire = Segment::Flat { physnet: "p".parse().expect("a name") };
        let refused =
            add_network(&store, site, Some(NetworkUuid::from(new.uuid())), &Network::new(wire))
                .await
                .expect_err("no such physnet");
        assert_eq!(
            refused.to_string(),
            format!(
                "networks/{new}: physnet: physnet `p` is not configured on this host, which has \
                 none; correct the name, or add [physnets.p] to the configuration and reload it"
            )
        );
        let values = store.list().await.expect("it can be read").values;
        assert_eq!(values.len(), 3, "nothing was written: {values:?}");

        let mut blue = local;
        blue.name = "blue".parse().ok();
        let one = add_network(&store, site, None, &blue).await.expect("nothing is against it");
        let two = add_network(&store, site, None, &blue).await.expect("names may repeat");
        let (one, two) = (one.clone().min(two.clone()), one.max(two));
        assert_eq!(
            delete_network(&store, "blue").await.expect_err("which?").to_string(),
            format!("several networks are called `blue`; name one by UUID: {one}, {two}")
        );
    }
}
