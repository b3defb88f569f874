//! The same for groups: their rules, their sets, and their members.
//!
//! A rule or an address is part of its group's value, so to add one is to read the value, change it
//! and write it whole. A value that cannot be read is not written over.

use std::collections::BTreeMap;

use super::{EditError, add, field, find, put, stored};
use crate::key::Key;
use crate::model::{
    AddressGroup, AddressGroupUuid, GroupMember, PortUuid, Prefix, RawValue, SecurityGroup,
    SecurityGroupUuid, Site, json,
};
use crate::store::Store;

/// Adds a security group, under a new UUID if none is given. Returns its key.
pub async fn add_security_group(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: Option<SecurityGroupUuid>,
    group: &SecurityGroup,
) -> Result<Key, EditError> {
    let key = Key::SecurityGroup(id.unwrap_or_else(SecurityGroupUuid::random));
    add(store, site.into(), key, json(group)).await
}

/// Adds an address group, under a new UUID if none is given. Returns its key.
pub async fn add_address_group(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: Option<AddressGroupUuid>,
    group: &AddressGroup,
) -> Result<Key, EditError> {
    let key = Key::AddressGroup(id.unwrap_or_else(AddressGroupUuid::random));
    let mut group = group.clone();
    order(&mut group.addresses);
    add(store, site.into(), key, json(&group)).await
}

/// Makes a port, of whatever host, a member of a security group with these addresses, whether or not
/// it was one. Returns its key.
pub async fn set_member(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    group: SecurityGroupUuid,
    port: PortUuid,
    member: &GroupMember,
) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    let mut member = member.clone();
    order(&mut member.addresses);
    put(store, site.into(), values, Key::GroupMember { group, port }, json(&member)).await
}

/// Changes a security group. Returns what the change does.
pub async fn change_security_group<T>(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: SecurityGroupUuid,
    change: impl FnOnce(&Key, &mut SecurityGroup) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let values = store.list().await?.values;
    let key = Key::SecurityGroup(id);
    let mut group = stored(&values, &key, "security group", SecurityGroup::from_json)?;
    let done = change(&key, &mut group)?;
    put(store, site.into(), values, key, json(&group)).await?;
    Ok(done)
}

/// Changes an address group. Returns what the change does.
pub async fn change_address_group<T>(
    store: &dyn Store,
    site: impl Into<Site<'_>>,
    id: AddressGroupUuid,
    change: impl FnOnce(&Key, &mut AddressGroup) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let values = store.list().await?.values;
    let key = Key::AddressGroup(id);
    let mut group = stored(&values, &key, "address group", AddressGroup::from_json)?;
    let done = change(&key, &mut group)?;
    order(&mut group.addresses);
    put(store, site.into(), values, key, json(&group)).await?;
    Ok(done)
}

/// Takes addresses out of an address group, all of them or none.
pub fn leave_address_group(
    key: &Key,
    group: &mut AddressGroup,
    addresses: &[Prefix],
) -> Result<(), EditError> {
    for address in addresses {
        let before = group.addresses.len();
        group.addresses.retain(|its| its != address);
        if group.addresses.len() == before {
            let (group, what) = (key.clone(), address.to_string());
            let remedy = "`viaduct address-group list` prints what is";
            return Err(EditError::NotIn { group, what, remedy });
        }
    }
    Ok(())
}

/// Deletes a security group by UUID or name, unless ports or rules name it or members are listed.
/// Returns its key.
pub async fn delete_security_group(store: &dyn Store, name: &str) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    let id = find_security_group(&values, name)?;
    let wanted = id.to_string();
    let names = |key: &Key, raw: &RawValue| match key {
        Key::Port { .. } => lists(raw, "security_groups", &wanted),
        // What the group says of itself goes with it.
        Key::SecurityGroup(other) => *other != id && has_rule(raw, "remote_group", &wanted),
        Key::GroupMember { group, .. } => *group == id,
        _ => false,
    };
    delete(store, &values, Key::SecurityGroup(id), names).await
}

/// Deletes an address group by UUID or name, unless rules name it. Returns its key.
pub async fn delete_address_group(store: &dyn Store, name: &str) -> Result<Key, EditError> {
    let values = store.list().await?.values;
    let id = find_address_group(&values, name)?;
    let wanted = id.to_string();
    let names = |key: &Key, raw: &RawValue| {
        matches!(key, Key::SecurityGroup(_)) && has_rule(raw, "remote_address_group", &wanted)
    };
    delete(store, &values, Key::AddressGroup(id), names).await
}

/// Ends the membership of a port. Returns its key.
pub async fn delete_member(
    store: &dyn Store,
    group: SecurityGroupUuid,
    port: PortUuid,
) -> Result<Key, EditError> {
    let key = Key::GroupMember { group, port };
    match store.delete(&key).await? {
        true => Ok(key),
        false => Err(EditError::NotIn {
            group: Key::SecurityGroup(group),
            what: format!("port {port}"),
            remedy: "`viaduct group member list` prints what is",
        }),
    }
}

/// The security group that is called so, by UUID or by name, whether or not it is good.
pub fn find_security_group(
    values: &BTreeMap<Key, RawValue>,
    name: &str,
) -> Result<SecurityGroupUuid, EditError> {
    find(values, "security group", name, |key| match key {
        Key::SecurityGroup(group) => Some(*group),
        _ => None,
    })
}

/// The address group that is called so, by UUID or by name, whether or not it is good.
pub fn find_address_group(
    values: &BTreeMap<Key, RawValue>,
    name: &str,
) -> Result<AddressGroupUuid, EditError> {
    find(values, "address group", name, |key| match key {
        Key::AddressGroup(group) => Some(*group),
        _ => None,
    })
}

/// The place in the list of the rule that is called so, by number or by name.
pub fn rule_number(key: &Key, group: &SecurityGroup, rule: &str) -> Result<usize, EditError> {
    let named: Vec<usize> = (group.rules.iter().enumerate())
        .filter(|(_, its)| its.name.as_ref().is_some_and(|name| name.as_str() == rule))
        .map(|(number, _)| number)
        .collect();
    let number = rule.parse().ok().filter(|number| *number < group.rules.len());
    match (number, &named[..]) {
        // A number is one, whatever a rule may be called.
        (Some(number), _) | (None, &[number]) => Ok(number),
        (None, []) => Err(EditError::NoRule { group: key.clone(), rule: rule.to_owned() }),
        (None, _) => {
            let name = rule.to_owned();
            Err(EditError::SeveralRules { group: key.clone(), name, numbers: named })
        }
    }
}

async fn delete(
    store: &dyn Store,
    values: &BTreeMap<Key, RawValue>,
    group: Key,
    names: impl Fn(&Key, &RawValue) -> bool,
) -> Result<Key, EditError> {
    let by: Vec<Key> =
        values.iter().filter(|(key, raw)| names(key, raw)).map(|(key, _)| key.clone()).collect();
    if !by.is_empty() {
        return Err(EditError::Named { group, by });
    }
    store.delete(&group).await?;
    Ok(group)
}

/// Addresses as they are written: sorted, and each once.
fn order(addresses: &mut Vec<Prefix>) {
    addresses.sort_unstable();
    addresses.dedup();
}

/// Whether a list of texts, of a value that need not be good otherwise, has this one.
fn lists(raw: &RawValue, name: &str, wanted: &str) -> bool {
    let list = field(raw, name);
    let list = list.as_ref().and_then(|list| list.as_array());
    list.is_some_and(|list| list.iter().any(|item| item.as_str() == Some(wanted)))
}

/// Whether a rule, of a group that need not be good otherwise, has this text in a field.
fn has_rule(raw: &RawValue, name: &str, wanted: &str) -> bool {
    let rules = field(raw, "rules");
    let rules = rules.as_ref().and_then(|rules| rules.as_array());
    let has = |rule: &serde_json::Value| rule.get(name).and_then(|it| it.as_str()) == Some(wanted);
    rules.is_some_and(|rules| rules.iter().any(has))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::config::Vhost;
    use crate::model::HostName;
    use crate::store::directory::Directory;

    const GROUP: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";
    const OTHER: &str = "dddddddd-dddd-4ddd-8ddd-dddddddddddd";
    const PORT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";

    #[tokio::test]
    async fn groups_are_changed_and_deleted_once_nobody_names_them() {
        let directory = TempDir::new().expect("a directory for the test");
        let store = Directory::new(directory.path());
        let host: HostName = "h".parse().expect("a name");
        let vhost = Vhost::default();
        let site = Site { host: &host, physnets: None, vhost: &vhost, cores: &[] };
        let (group, other): (SecurityGroupUuid, SecurityGroupUuid) =
            (GROUP.parse().expect("a UUID"), OTHER.parse().expect("a UUID"));
        let port: PortUuid = PORT.parse().expect("a UUID");
        let addresses: AddressGroupUuid = OTHER.parse().expect("a UUID");

        let mut web = SecurityGroup { name: "web".parse().ok(), ..SecurityGroup::default() };
        add_security_group(&store, site, Some(group), &web).await.expect("nothing is against it");
        add_security_group(&store, site, Some(other), &SecurityGroup::default())
            .await
            .expect("nothing is against it");

        // A rule that waits for something is not written.
        let waiting = format!("ingress any from address-group {addresses}");
        let add_rule = |rule: &str| {
            let rule = rule.parse().expect("a rule");
            change_security_group(&store, site, group, move |_, group| {
                group.rules.push(rule);
                Ok(group.rules.len())
            })
        };
        assert_eq!(
            add_rule(&waiting).await.expect_err("no such group").to_string(),
            format!(
                "security-groups/{GROUP}: rules[0].remote_address_group: address-groups/{OTHER} is \
                 not there; correct the UUID, or add that group; until then nothing passes the \
                 ports of this group"
            )
        );
        let bad = AddressGroup { name: "bad".parse().ok(), ..AddressGroup::default() };
        add_address_group(&store, site, Some(addresses), &bad).await.expect("a good group");
        let changed = change_address_group(&store, site, addresses, |key, group| {
            let address = |text: &str| -> Prefix { text.parse().expect("an address") };
            group.addresses = ["::1", "10.0.0.1", "10.0.0.0/8", "::1"].map(address).to_vec();
            leave_address_group(key, group, &[address("10.0.0.1")])
        });
        changed.await.expect("it was in it");
        let values = store.list().await.expect("it can be read").values;
        let desired = crate::model::Desired::build(&values, site);
        let group_addresses = &desired.address_groups[&addresses].addresses;
        assert_eq!(crate::model::json(group_addresses), json!(["10.0.0.0/8", "::1"]));
        assert_eq!(add_rule(&waiting).await.expect("it is there now"), 1);
        let named = format!("ingress tcp 80 from group {other} name http");
        assert_eq!(add_rule(&named).await.expect("nothing is against it"), 2);
        let member = GroupMember { addresses: vec!["10.0.0.7".parse().expect("an address")] };
        set_member(&store, site, other, port, &member).await.expect("nothing is against it");

        // Ports of other hosts count, and need not be good.
        let elsewhere = format!("nodes/other/ports/{PORT}").parse().expect("a key");
        store.put(&elsewhere, &json!({"security_groups": [GROUP, 5]})).await.expect("written");
        let refused = |result: Result<Key, EditError>| result.expect_err("it is named").to_string();
        let first = "it is named by others; delete or change these first";
        assert_eq!(
            refused(delete_security_group(&store, "web").await),
            format!("security-groups/{GROUP}: {first}: {elsewhere}")
        );
        assert_eq!(
            refused(delete_security_group(&store, OTHER).await),
            format!(
                "security-groups/{OTHER}: {first}: security-groups/{GROUP}, \
                 group-members/{OTHER}/{PORT}"
            )
        );
        assert_eq!(
            refused(delete_address_group(&store, "bad").await),
            format!("address-groups/{OTHER}: {first}: security-groups/{GROUP}")
        );

        let delete_rule = |rule: &'static str| {
            change_security_group(&store, site, group, move |key, group| {
                let number = rule_number(key, group, rule)?;
                Ok(group.rules.remove(number).to_string())
            })
        };
        assert_eq!(delete_rule("http").await.expect("by name"), named);
        assert_eq!(
            delete_rule("1").await.expect_err("there is one").to_string(),
            format!(
                "security-groups/{GROUP}: it has no rule `1`; `viaduct group rule list` numbers \
                 them"
            )
        );
        assert_eq!(delete_rule("0").await.expect("by number"), waiting);
        delete_member(&store, other, port).await.expect("it is one");
        assert_eq!(
            delete_member(&store, other, port).await.expect_err("it is none").to_string(),
            format!(
                "security-groups/{OTHER}: port {PORT} is not in it; `viaduct group member list` prints what is"
            )
        );
        store.delete(&elsewhere).await.expect("it is there");
        for name in ["web", OTHER] {
            delete_security_group(&store, name).await.expect("nobody names it");
        }
        delete_address_group(&store, "bad").await.expect("nobody names it");
        assert!(store.list().await.expect("it can be read").values.is_empty());

        web.rules = vec!["egress any name x".parse().expect("a rule"); 2];
        let key = Key::SecurityGroup(group);
        assert_eq!(
            rule_number(&key, &web, "x").expect_err("which?").to_string(),
            format!("{key}: several rules are called `x`; name one by its number: 0, 1")
        );
        // What cannot be read is not written over.
        store.put(&key, &json!({"rules": 5})).await.expect("written");
        assert_eq!(
            add_rule("egress any").await.expect_err("it is bad").to_string(),
            format!("{key}: rules: 5 is not a list; write a list in square brackets")
        );
    }
}
