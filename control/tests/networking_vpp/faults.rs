//! What etcd and its users do wrong: none of it changes what is in force, unless it says so.

use std::net::TcpListener;
use std::time::Duration;

use control::key::Key;
use control::store::{Store, StoreError};
use serde_json::json;
use tempfile::TempDir;

use crate::etcd_v2::{EtcdV2, certificates};
use crate::{Bed, HOST, open, recorded};

const PORT: &str = "18626f6b-7ea5-4e7f-9441-3c3496caffba";

fn port_key(port: &str) -> Key {
    format!("nodes/{HOST}/ports/{port}").parse().expect("a key")
}

fn at(port: &str) -> String {
    format!("/networking-vpp/nodes/{HOST}/ports/{port}")
}

/// More changes than etcd remembers.
fn forget(etcd: &EtcdV2) {
    for count in 0..1010 {
        etcd.set("/elsewhere", &count.to_string());
    }
}

#[tokio::test]
async fn an_outage_changes_nothing_and_loses_nothing() {
    let mut bed = Bed::new();
    bed.write_recorded();
    let watch = bed.store.follow(bed.host()).await.expect("etcd runs");
    let mut follow = crate::Follow { bed: &Bed::new(), watch, listing: Default::default() };
    follow.next().await;
    let before = follow.listing.clone();

    bed.etcd.kill();
    follow.until("the outage is told", |now| now.problems.len() > before.problems.len()).await;
    assert_eq!(follow.listing.values, before.values);
    let outages = follow
        .listing
        .problems
        .iter()
        .filter(|problem| problem.object.starts_with("etcd v2 at http://127"));
    let outages: Vec<_> = outages.collect();
    assert_eq!(outages.len(), 1, "one outage is one problem: {outages:#?}");
    assert!(outages[0].what.ends_with("; what was read last stays in force"), "{}", outages[0]);

    bed.etcd.launch();
    bed.etcd.wait();
    bed.etcd.delete(&at(PORT));
    follow.until("it is over", |now| now.problems == before.problems).await;
    follow.until("and followed", |now| !now.values.contains_key(&port_key(PORT))).await;

    // In an outage there is nothing to begin with.
    bed.etcd.kill();
    let error = open(&bed.config).follow(bed.host()).await.expect_err("etcd is away");
    assert!(matches!(error, StoreError::Remote { .. }), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_watch_that_fell_behind_reads_all_anew() {
    let mut bed = Bed::new();
    bed.write_recorded();
    let watch = bed.store.follow(bed.host()).await.expect("etcd runs");
    let other = Bed::new();
    let mut follow = crate::Follow { bed: &other, watch, listing: Default::default() };
    follow.next().await;
    let before = follow.listing.problems.clone();
    let ports = |now: &control::store::Listing| {
        now.values.keys().filter(|key| matches!(key, Key::Port { .. })).count()
    };
    let count = ports(&follow.listing);
    // While nobody can watch, more happens than etcd remembers.
    let back = bed.etcd.hide();
    let away = |now: &control::store::Listing| now.problems != before;
    follow.until("the outage is told", away).await;
    bed.etcd.delete(&at(PORT));
    forget(&bed.etcd);
    back(&mut bed.etcd);
    follow.until("what changed is seen", |now| ports(now) == count - 1).await;
    follow.until("nothing is wrong", |now| now.problems == before).await;
    // And it goes on.
    bed.etcd.delete(&at("4ff81e35-5afe-451e-a7a0-a97a56108b46"));
    follow.until("it is watched", |now| ports(now) == count - 2).await;
}

#[tokio::test]
async fn an_idle_watch_does_not_fall_behind() {
    let bed = Bed::new();
    bed.write_recorded();
    let store = open(&bed.config).at_pace(control::store::networking_vpp::Pace {
        poll: Duration::from_millis(200),
        ..control::store::networking_vpp::Pace::USUAL
    });
    let mut watch = store.follow(bed.host()).await.expect("etcd runs");
    watch.next().await.expect("there is something");
    // A tenth of what etcd remembers falls into each poll.
    for _ in 0..12 {
        for count in 0..100 {
            bed.etcd.set("/elsewhere", &count.to_string());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    bed.etcd.delete(&at(PORT));
    let next = tokio::time::timeout(crate::SOON, watch.next()).await.expect("in time");
    assert!(!next.expect("it goes on").values.contains_key(&port_key(PORT)));
}

#[tokio::test]
async fn another_store_at_the_same_place_is_read_anew() {
    let mut bed = Bed::new();
    bed.write_recorded();
    forget(&bed.etcd);
    let watch = bed.store.follow(bed.host()).await.expect("etcd runs");
    let other = Bed::new();
    let mut follow = crate::Follow { bed: &other, watch, listing: Default::default() };
    follow.next().await;
    bed.etcd.kill();
    bed.etcd.lose_data();
    bed.etcd.launch();
    bed.etcd.wait();
    follow.until("it is empty", |now| now.void && now.values.is_empty()).await;
    bed.write_recorded();
    follow.until("it is full", |now| now.values.contains_key(&port_key(PORT))).await;
    assert!(!follow.listing.void);
}

#[tokio::test]
async fn directories_go_with_all_that_is_in_them() {
    let bed = Bed::new();
    bed.write_recorded();
    let mut follow = bed.follow().await;
    let all = follow.listing.values.len();
    // As when a group is deleted.
    let group = "bcff0641-52e8-421b-a95c-f8d9377793d1";
    bed.etcd.delete_folder(&format!("/networking-vpp/global/remote_group/{group}"));
    follow.until("its members are gone", |now| now.values.len() == all - 5).await;
    bed.etcd.delete_folder(&format!("/networking-vpp/nodes/{HOST}"));
    follow.until("its ports are gone", |now| now.values.is_empty()).await;
    assert!(!follow.listing.void, "another host has ports");
    bed.etcd.delete_folder("/networking-vpp");
    follow.until("all is gone", |now| now.void).await;
    bed.write_recorded();
    follow.until("all is back", |now| now.values.len() == all).await;
}

#[tokio::test]
async fn garbage_is_told_at_its_key_and_what_was_stays() {
    let bed = Bed::new();
    bed.write_recorded();
    let mut follow = bed.follow().await;
    let before = follow.desired();
    let (problems, values) = (follow.listing.problems.len(), follow.listing.values.len());
    bed.etcd.set(&at(PORT), "{\"mac_address\": 5");
    let unreadable = |now: &control::store::Listing| {
        matches!(now.values.get(&port_key(PORT)), Some(control::model::RawValue::Unreadable(_)))
    };
    follow.until("it is told", unreadable).await;
    let after = before.rebuild(&follow.listing.values, &bed.config);
    assert_eq!((&after.ports, &after.networks), (&before.ports, &before.networks));
    let told = &after.problems[&port_key(PORT)][0];
    assert!(told.what.starts_with(&format!("{}: is not JSON", at(PORT))), "{told}");
    assert!(told.remedy.ends_with("(the value read before stays in force)"), "{told}");

    let large = "x".repeat(1_200_000);
    for (key, value) in [
        ("nodes/compute1/ports/not-a-uuid", "{}"),
        ("nodes/compute1/ports/11111111-1111-4111-8111-111111111111", &*large),
        ("global/secgroups/X", "{}"),
        ("global/secgroups/bcff0641-52e8-421b-a95c-f8d9377793d1", "[]"),
    ] {
        bed.etcd.set(&format!("/networking-vpp/{key}"), value);
    }
    follow.until("keys are told", |now| now.problems.len() == problems + 2).await;
    follow.until("values are told", |now| now.values.len() == values + 1).await;
    let last = after.rebuild(&follow.listing.values, &bed.config);
    assert_eq!((&last.ports, &last.security_groups), (&before.ports, &before.security_groups));
    assert_eq!(last.problems.len(), before.problems.len() + 3, "{:#?}", last.problems);
}

#[tokio::test]
async fn what_is_not_carried_out_is_told_and_its_ports_work() {
    let bed = Bed::new();
    let mut follow = bed.follow().await;
    let mut told = 0;
    for step in recorded(include_str!("recordings/routers-and-trunks.json")) {
        bed.play(&step);
        let keys = bed.etcd.keys(&format!("/networking-vpp/nodes/{HOST}"));
        let unsupported =
            keys.iter().filter(|key| key.contains("/routers/") || key.contains("/trunks/")).count();
        told = told.max(unsupported);
        let ports = keys.iter().filter(|key| key.contains("/ports/")).count();
        let name = step["step"].as_str().expect("a name");
        follow
            .until(name, |now| {
                let found = now.values.keys().filter(|key| matches!(key, Key::Port { .. })).count();
                now.problems.len() == unsupported && found == ports
            })
            .await;
        assert_eq!(follow.desired().problems.len(), 0, "{name}");
    }
    assert_eq!(told, 3);
}

#[tokio::test]
async fn one_server_of_several_may_be_away_or_silent() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let silent = silent.local_addr().expect("it is bound");
    let etcd = EtcdV2::start();
    let lines = format!("endpoints = ['http://127.0.0.1:1', 'http://{silent}', '{}']", etcd.url());
    let bed = Bed::with(etcd, &lines);
    bed.write_recorded();
    let mut follow = bed.follow().await;
    bed.etcd.delete(&at(PORT));
    follow.until("it is followed", |now| !now.values.contains_key(&port_key(PORT))).await;
    assert!(!follow.listing.problems.iter().any(|it| it.object.contains("etcd v2")));
}

#[tokio::test]
async fn a_user_logs_in_with_each_request() {
    let mut etcd = EtcdV2::start();
    // root:secret, and compute:secret who may read all, and write this host's state.
    let (root, compute) = ("cm9vdDpzZWNyZXQ=", "Y29tcHV0ZTpzZWNyZXQ=");
    let role = json!({"role": "compute", "permissions": {"kv": {
        "read": ["/networking-vpp/nodes*", "/networking-vpp/global*", "/networking-vpp/state/compute1/*"],
        "write": ["/networking-vpp/state/compute1/*"]}}});
    for (path, body) in [
        ("users/root", json!({"user": "root", "password": "secret"})),
        ("roles/compute", role),
        ("users/compute", json!({"user": "compute", "password": "secret", "roles": ["compute"]})),
    ] {
        let (status, said) = etcd.api("PUT", &format!("/v2/auth/{path}"), &body.to_string());
        assert!((200..=201).contains(&status), "{path}: {status} {said}");
    }
    etcd.log_in(root);
    // Otherwise everybody may do everything.
    assert_eq!(etcd.api("PUT", "/v2/auth/enable", "").0, 200);
    let guest = json!({"role": "guest", "revoke": {"kv": {"read": ["/*"], "write": ["/*"]}}});
    let (status, said) = etcd.api("PUT", "/v2/auth/roles/guest", &guest.to_string());
    assert_eq!(status, 200, "{said}");

    let passwords = TempDir::new().expect("a directory for the test");
    let file = passwords.path().join("password");
    std::fs::write(&file, "wrong\n").expect("it is ours");
    let lines = format!("user = 'compute'\npassword_file = '{}'", file.display());
    let bed = Bed::with(etcd, &lines);
    bed.write_recorded();
    let error = bed.store.follow(bed.host()).await.expect_err("it is wrong");
    assert!(error.to_string().ends_with("give the user a role that may do that"), "{error}");
    std::fs::write(&file, "secret\n").expect("it is ours");
    let follow = bed.follow().await;
    assert!(follow.listing.values.contains_key(&port_key(PORT)));
    let reporter = bed.store.claim(bed.host()).await.expect("it may write that");
    reporter.withdraw().await.expect("and delete it");
    assert_ne!(root, compute);
}

#[tokio::test]
async fn servers_and_we_show_certificates() {
    let folder = TempDir::new().expect("a directory for the test");
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, pem, key) = (path("ca.pem"), path("one.pem"), path("one.key"));
    let options =
        ["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &pem, "--key-file", &key];
    let etcd = EtcdV2::start_with("https", &options);
    let with = |lines: &str| Bed::with_url(&etcd.url(), lines);
    let config = with(&format!("ca = '{ca}'\ncertificate = '{pem}'\nkey = '{key}'"));
    let follows = async || open(&config).follow(&config.host).await;
    let up = async {
        while follows().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::SOON, up).await.expect("etcd comes up");

    // Neither without ours, nor with a server that nobody vouches for.
    for lines in [format!("ca = '{ca}'"), format!("certificate = '{pem}'\nkey = '{key}'")] {
        let config = with(&lines);
        let error = open(&config).follow(&config.host).await.expect_err("one of us is a stranger");
        assert!(matches!(error, StoreError::Remote { .. }), "{error}");
    }
}
