//! Desired state: what a Neutron wrote, as values of our own model.

use std::collections::BTreeMap;

use control::key::Key;
use control::model::{PortUuid, Segment};
use control::store::{Store, StoreError};
use serde_json::Value;

use crate::{Bed, HOST, recorded};

const GPE: &str = "f7247143-9cf1-4973-95cb-fee314bf813c";
const TRUNK: &str = "7a84fb6c-aba6-4ea2-b0a7-76f57e8e0bd6";
const DHCP: &str = "8e991f77-deed-4d00-bfbd-c37ffcd7dfa2";

/// The ports of a host, by what was recorded up to a step; and those of GPE, which are not supported.
#[derive(Default)]
struct Recorded(BTreeMap<(String, String), Value>);

impl Recorded {
    fn play(&mut self, step: &Value) {
        for event in step["events"].as_array().expect("a list") {
            let key = event["key"].as_str().expect("a key");
            let parts: Vec<&str> = key.split('/').collect();
            let ["", "networking-vpp", "nodes", host, "ports", port] = parts[..] else { continue };
            let place = (host.to_owned(), port.to_owned());
            match event["action"].as_str() {
                Some("set") => drop(self.0.insert(place, event["value"].clone())),
                _ => drop(self.0.remove(&place)),
            }
        }
    }

    fn ports_of(&self, host: &str) -> BTreeMap<String, Value> {
        let of_host = self.0.iter().filter(|((its, _), _)| its == host);
        let supported = of_host.filter(|(_, value)| value["network_type"] != "gpe");
        supported.map(|((_, port), value)| (port.clone(), value.clone())).collect()
    }
}

#[tokio::test]
async fn what_a_neutron_wrote_is_in_force() {
    let bed = Bed::new();
    bed.write_recorded();
    let follow = bed.follow().await;
    let desired = follow.desired();

    assert!(desired.problems.is_empty(), "{:#?}", desired.problems);
    assert!(desired.warnings.is_empty(), "all groups are there: {:#?}", desired.warnings);
    let port = |uuid: &str| &desired.ports[&uuid.parse::<PortUuid>().expect("a UUID")];
    let segment = |uuid: &str| &desired.networks[&port(uuid).network].segment;
    let web = "18626f6b-7ea5-4e7f-9441-3c3496caffba";
    assert_eq!(port(web).fixed_ips.len(), 2);
    assert_eq!(port(web).allowed_address_pairs.len(), 2);
    assert!(port(web).port_security);
    assert_eq!(
        port(web).socket_path(&bed.config.vhost.socket_directory),
        Some(format!("/var/run/vpp-vhost/{web}").into())
    );
    let Segment::Vlan { physnet, vlan } = segment(web) else { panic!("{:?}", segment(web)) };
    assert_eq!((physnet.as_str(), u16::from(*vlan)), ("physnet1", 165));
    assert_eq!(desired.networks[&port(web).network].mtu, 9000);
    let physnet2 = segment("80cab8b7-0410-42ac-99d9-0525e436e881");
    assert_eq!(physnet2.physnet().expect("a wire").as_str(), "physnet2");
    let flat = segment("2ce5dd0e-efd1-44d1-8380-92a44da5c8f1");
    assert!(matches!(flat, Segment::Flat { .. }), "{flat:?}");
    assert!(!port("4ff81e35-5afe-451e-a7a0-a97a56108b46").port_security);
    let alone = port("5c24e1dd-6c0e-4e14-b89a-6878938a1abf");
    assert!(alone.port_security && alone.security_groups.is_empty());
    assert_eq!(desired.networks.len(), 3, "one for each segment");

    // Members of any host: two of one group, five of the other.
    let members: Vec<usize> = desired.group_members.values().map(BTreeMap::len).collect();
    assert_eq!(members, [5, 2]);

    // What is not supported is told at its key, once each.
    let unsupported = [
        (GPE, "the network type `gpe` is not supported"),
        (TRUNK, "trunks are not supported, and nothing is done about this key"),
        (
            "376782ab-8885-46dc-aed4-eb6642b56c4e",
            "floating IPs are not supported, and nothing is done about this key",
        ),
    ];
    let problems = follow.problems();
    for (key, what) in unsupported {
        let found = problems.iter().filter(|(its, _)| its == key).collect::<Vec<_>>();
        assert_eq!(found, [&(key.to_owned(), what.to_owned())], "{problems:#?}");
    }
    let routers = problems.iter().filter(|(_, what)| what.starts_with("routers are not"));
    assert_eq!((routers.count(), problems.len()), (2, 5), "{problems:#?}");
    assert!(desired.ports.contains_key(&TRUNK.parse().expect("a UUID")), "the parent works");
}

#[tokio::test]
async fn a_dhcp_port_is_a_tap() {
    let bed = Bed::new();
    bed.write_recorded();
    let follow = bed.follow().await;
    let key: Key = format!("nodes/{HOST}/ports/{DHCP}").parse().expect("a key");
    let control::model::RawValue::Json(text) = &follow.listing.values[&key] else {
        panic!("it can be read")
    };
    let value: Value = serde_json::from_slice(text).expect("JSON");
    assert_eq!(value["kind"], "tap");
    assert_eq!(value["interface"], "vpp8e991f77-de");
    assert_eq!(
        value["bridge"],
        serde_json::json!({"name": "br-8e991f77-de", "member": "tap8e991f77-de"})
    );
    let port = &follow.desired().ports[&DHCP.parse::<PortUuid>().expect("a UUID")];
    assert_eq!(port.attachment.kind(), "tap");
    assert!(!port.port_security, "its frames are the cloud's own");
}

#[tokio::test]
async fn all_hosts_are_listed_for_commands_and_none_is_edited() {
    let bed = Bed::new();
    bed.write_recorded();
    let listing = bed.store.list().await.expect("etcd runs");
    let ports: Vec<&Key> =
        listing.values.keys().filter(|key| matches!(key, Key::Port { .. })).collect();
    assert_eq!(ports.len(), 8, "of two hosts: {ports:#?}");
    assert!(!listing.void);

    for error in [
        bed.store.put(ports[0], &Value::Null).await.expect_err("it is Neutron's"),
        bed.store.delete(ports[0]).await.expect_err("it is Neutron's"),
    ] {
        assert!(matches!(error, StoreError::Remote { .. }));
        let said = error.to_string();
        assert!(said.ends_with("whose driver writes this store; change it in Neutron"), "{said}");
    }
    let before = bed.etcd.keys("/networking-vpp");
    assert_eq!(before.len(), 22, "nothing was written: {before:#?}");
}

#[tokio::test]
async fn steps_of_a_neutron_are_followed() {
    for recording in [
        include_str!("recordings/ports.json"),
        include_str!("recordings/groups-and-migration.json"),
    ] {
        let bed = Bed::new();
        let mut follow = bed.follow().await;
        let mut so_far = Recorded::default();
        for step in recorded(recording) {
            bed.play(&step);
            so_far.play(&step);
            let name = step["step"].as_str().expect("a name");
            // In one way of migrating, the driver leaves the port where it was.
            let mut expected = so_far.ports_of(HOST);
            if name.starts_with("multiple port bindings") {
                expected.remove("7a4dd7f3-2d09-4b44-a8cb-2a9c96e7e972").expect("it is left there");
            }
            let wanted: Vec<String> =
                expected.keys().map(|port| format!("nodes/{HOST}/ports/{port}")).collect();
            let of_ports = |listing: &control::store::Listing| {
                let mut keys = crate::keys(listing);
                keys.retain(|key| key.starts_with("nodes/"));
                keys
            };
            follow.until(name, |listing| of_ports(listing) == wanted).await;
            check_groups(&bed, &mut follow, name, &expected).await;
        }
        // From the beginning, it is the same; but that of what migrated and was then deleted, etcd
        // has nothing any more but what the driver left behind.
        let mut anew = bed.follow().await.keys();
        anew.retain(|key| !key.ends_with("7a4dd7f3-2d09-4b44-a8cb-2a9c96e7e972"));
        assert_eq!(anew, follow.keys());
    }
}

/// The groups that ports have, and what their rules name, are listed as etcd has them now.
async fn check_groups(
    bed: &Bed,
    follow: &mut crate::Follow<'_>,
    step: &str,
    ports: &BTreeMap<String, Value>,
) {
    let mut wanted = std::collections::BTreeSet::new();
    for port in ports.values().filter(|port| port["port_security_enabled"] == true) {
        for group in port["security_groups"].as_array().expect("a list") {
            let group = group.as_str().expect("a UUID");
            let key = format!("/networking-vpp/global/secgroups/{group}");
            let Some(text) = bed.etcd.value(&key) else { continue };
            wanted.insert(format!("security-groups/{group}"));
            let value: Value = serde_json::from_str(&text).expect("JSON");
            for rule in value["ingress_rules"].as_array().expect("a list") {
                let Some(named) = rule["remote_group_id"].as_str() else { continue };
                let folder = format!("/networking-vpp/global/remote_group/{named}");
                for member in bed.etcd.keys(&folder) {
                    let port = member.rsplit('/').next().expect("a UUID");
                    wanted.insert(format!("group-members/{named}/{port}"));
                }
            }
        }
    }
    follow
        .until(step, |listing| {
            let mut keys = crate::keys(listing);
            keys.retain(|key| !key.starts_with("nodes/"));
            keys.into_iter().collect::<std::collections::BTreeSet<_>>() == wanted
        })
        .await;
}

#[tokio::test]
async fn a_port_that_migrated_is_not_forwarded_for_and_comes_back() {
    let bed = Bed::new();
    bed.write_recorded();
    let port = "18626f6b-7ea5-4e7f-9441-3c3496caffba";
    let (here, there) = (
        format!("/networking-vpp/nodes/{HOST}/ports/{port}"),
        format!("/networking-vpp/nodes/compute2/ports/{port}"),
    );
    let value = bed.etcd.value(&here).expect("it is there");
    let key: Key = format!("nodes/{HOST}/ports/{port}").parse().expect("a key");
    let mut follow = bed.follow().await;
    assert!(follow.listing.values.contains_key(&key));

    bed.etcd.set(&there, &value);
    follow.until("it is gone from here", |now| !now.values.contains_key(&key)).await;
    let told = (
        port.to_owned(),
        "the port is on host `compute2` now, where it was written later".to_owned(),
    );
    assert!(follow.problems().contains(&told), "{:#?}", follow.problems());

    // One that was not watching at the time finds out.
    let mut later = bed.follow().await;
    later.until("it is gone from here", |now| !now.values.contains_key(&key)).await;
    assert!(later.problems().contains(&told), "{:#?}", later.problems());

    bed.etcd.set(&here, &value);
    for follow in [&mut follow, &mut later] {
        follow.until("it is back", |now| now.values.contains_key(&key)).await;
        assert!(!follow.problems().contains(&told), "{:#?}", follow.problems());
    }
}
