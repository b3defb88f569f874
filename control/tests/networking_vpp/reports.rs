//! What is reported: the keys by which the driver binds ports, and knows that they are plugged.

use std::time::Duration;

use control::model::{ActualState, PhysnetState, PortState, Status};
use control::store::{Store, StoreError};
use serde_json::{Value, json};

use crate::{Bed, HOST, SOON, eventually, open};

const PORT: &str = "18626f6b-7ea5-4e7f-9441-3c3496caffba";
const OTHER: &str = "4ff81e35-5afe-451e-a7a0-a97a56108b46";
const STATE: &str = "/networking-vpp/state/compute1";

/// Two physnets, one of which has no device, and ports.
fn state(ports: &[(&str, Status)]) -> ActualState {
    let mut state = ActualState::default();
    for (name, status) in [("physnet1", Status::Down), ("physnet2", Status::Failed)] {
        let since = "2026-01-01T00:00:00Z".parse().expect("a time");
        let physnet = PhysnetState {
            status,
            reason: None,
            device: "x".to_owned(),
            mac: None,
            mtu: 1500,
            link_mbps: None,
            filters: None,
            since,
        };
        state.physnets.insert(name.parse().expect("a name"), physnet);
    }
    for (port, status) in ports {
        let mut report = PortState::new(*status, None);
        report.mac = "fa:16:3e:98:02:81".parse().ok();
        report.socket = Some(format!("/var/run/vpp-vhost/{port}").into());
        state.ports.insert(port.parse().expect("a UUID"), report);
    }
    state
}

fn at(part: &str) -> String {
    format!("{STATE}/{part}")
}

#[tokio::test]
async fn a_port_is_plugged_exactly_while_it_is_ready() {
    let bed = Bed::new();
    bed.write_recorded();
    let mut reporter = bed.store.claim(bed.host()).await.expect("nobody else does");
    // Nothing is said before it is known what should be.
    reporter.report(&state(&[(PORT, Status::Ready)])).await.expect("etcd runs");
    assert_eq!(bed.etcd.keys(STATE), [at("daemon")]);
    for part in ["nodes/compute1/ports", "nodes/compute1/trunks", "state/compute1/physnets"] {
        let node = bed.etcd.node(&format!("/networking-vpp/{part}")).expect("a directory");
        assert_eq!(node["dir"], true);
    }

    let _follow = bed.follow().await;
    eventually("it is alive", || bed.etcd.value(&at("alive")).is_some()).await;
    let ready = [at("alive"), at("daemon"), at("physnets/physnet1"), at(&format!("ports/{PORT}"))];
    eventually("all is said", || bed.etcd.keys(STATE) == ready).await;
    let alive = bed.etcd.node(&at("alive")).expect("it is there");
    assert_eq!(alive["value"], "1");
    assert!((100..=180).contains(&alive["ttl"].as_u64().expect("it ends")), "{alive}");
    let port = bed.etcd.value(&at(&format!("ports/{PORT}"))).expect("it is ready");
    assert_eq!(
        serde_json::from_str::<Value>(&port).expect("JSON"),
        json!({
            "path": format!("/var/run/vpp-vhost/{PORT}"), "bind_type": "vhostuser",
            "mac": "fa:16:3e:98:02:81",
            "net_data": {"physnet": "physnet1", "network_type": "vlan", "segmentation_id": 165},
        })
    );

    // The same again writes nothing, as each write makes the driver work.
    let index =
        bed.etcd.node(&at(&format!("ports/{PORT}"))).expect("it is there")["modifiedIndex"].clone();
    assert_eq!(reporter.report(&state(&[(PORT, Status::Ready)])).await.expect("etcd runs"), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = bed.etcd.node(&at(&format!("ports/{PORT}"))).expect("it is there");
    assert_eq!(now["modifiedIndex"], index, "through three beats");

    for status in [Status::Waiting, Status::Down, Status::Refused, Status::Failed] {
        reporter.report(&state(&[(PORT, Status::Ready), (OTHER, status)])).await.expect("etcd");
        assert_eq!(bed.etcd.keys(STATE), ready, "{status:?}");
    }
    reporter.report(&state(&[(PORT, Status::Waiting)])).await.expect("etcd runs");
    assert_eq!(bed.etcd.keys(STATE), ready[..3]);
    reporter.report(&state(&[(PORT, Status::Ready)])).await.expect("etcd runs");
    reporter.withdraw().await.expect("etcd runs");
    assert_eq!(bed.etcd.keys(STATE), [""; 0], "nothing is bound here any more");
}

#[tokio::test]
async fn what_changes_is_reported_between_beats() {
    let bed = Bed::new();
    bed.write_recorded();
    let usual = control::store::networking_vpp::Pace::USUAL;
    assert!(usual.beat > SOON);
    let store = open(&bed.config).at_pace(usual);
    let mut reporter = store.claim(bed.host()).await.expect("nobody else does");
    let mut watch = store.follow(bed.host()).await.expect("etcd runs");
    watch.next().await.expect("there is something");
    for status in [Status::Waiting, Status::Ready, Status::Waiting, Status::Ready] {
        let reported = state(&[(PORT, status)]);
        let report = tokio::time::timeout(SOON, reporter.report(&reported));
        report.await.expect("at once").expect("etcd runs");
        let plugged = bed.etcd.value(&at(&format!("ports/{PORT}"))).is_some();
        assert_eq!(plugged, status == Status::Ready);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let withdrawn = tokio::time::timeout(SOON, reporter.withdraw()).await;
    withdrawn.expect("at once").expect("etcd runs");
    assert_eq!(bed.etcd.keys(STATE), [""; 0]);
}

#[tokio::test]
async fn what_others_delete_is_written_again() {
    let bed = Bed::new();
    bed.write_recorded();
    let mut reporter = bed.store.claim(bed.host()).await.expect("nobody else does");
    let _follow = bed.follow().await;
    reporter.report(&state(&[(PORT, Status::Ready)])).await.expect("etcd runs");
    let all = bed.etcd.keys(STATE);
    assert_eq!(all.len(), 4, "{all:?}");
    // As when its time has run out.
    bed.etcd.delete(&at("alive"));
    eventually("it is alive again", || bed.etcd.keys(STATE) == all).await;
    bed.etcd.delete(&at(&format!("ports/{PORT}")));
    bed.etcd.set(&at(&format!("ports/{OTHER}")), "1");
    eventually("what is true", || bed.etcd.keys(STATE) == all).await;
    bed.etcd.delete_folder(STATE);
    eventually("all of it", || bed.etcd.keys(STATE) == all).await;
}

#[tokio::test]
async fn only_what_is_out_of_date_goes_at_a_start() {
    let bed = Bed::new();
    bed.write_recorded();
    let gone = at("ports/11111111-1111-4111-8111-111111111111");
    let (mine, other) = (at(&format!("ports/{PORT}")), at(&format!("ports/{OTHER}")));
    for key in [&gone, &mine, &other] {
        bed.etcd.set(key, "1");
    }
    bed.etcd.set(&at("physnets/renamed"), "1");
    let kept = |key: &str| bed.etcd.node(key).map(|node| node["modifiedIndex"].clone());
    let before = kept(&mine);

    let store = open(&bed.config).at_pace(control::store::networking_vpp::Pace {
        grace: Duration::from_secs(2),
        beat: Duration::from_millis(300),
        ..control::store::networking_vpp::Pace::USUAL
    });
    let mut reporter = store.claim(bed.host()).await.expect("nobody else does");
    let _watch = store.follow(bed.host()).await.expect("etcd runs");
    // Their sockets are not connected yet.
    let waiting = state(&[(PORT, Status::Waiting), (OTHER, Status::Waiting)]);
    reporter.report(&waiting).await.expect("etcd runs");
    assert_eq!(kept(&gone), None, "it is no port of this host");
    assert_eq!(kept(&at("physnets/renamed")), None);
    assert_eq!(kept(&mine), before, "it was not touched");
    // One is, and the other does not come.
    let ready = state(&[(PORT, Status::Ready), (OTHER, Status::Waiting)]);
    reporter.report(&ready).await.expect("etcd runs");
    assert_ne!(bed.etcd.value(&mine).as_deref(), Some("1"));
    assert!(kept(&other).is_some(), "it may still come");
    eventually("it did not come", || kept(&other).is_none()).await;
}

#[tokio::test]
async fn one_process_reports_for_a_host() {
    let bed = Bed::new();
    let reporter = bed.store.claim(bed.host()).await.expect("nobody else does");
    let Err(error) = open(&bed.config).claim(bed.host()).await else { panic!("two report") };
    assert!(matches!(error, StoreError::Claimed { .. }));
    let said = error.to_string();
    let holder = format!("process {} of this machine", std::process::id());
    assert!(
        said.starts_with(&format!("{STATE}/daemon: viaduct ")) && said.contains(&holder),
        "{said}"
    );
    assert!(said.contains(&format!("already runs for host `{HOST}` on this store")), "{said}");
    reporter.withdraw().await.expect("etcd runs");

    // One that was killed is succeeded at once …
    let mut holder: Value = {
        let reporter = bed.store.claim(bed.host()).await.expect("nobody else does");
        let holder = bed.etcd.value(&at("daemon")).expect("it is said");
        reporter.withdraw().await.expect("etcd runs");
        serde_json::from_str(&holder).expect("JSON")
    };
    holder["started_ticks"] = json!(1);
    bed.etcd.set_json(&at("daemon"), &holder);
    let reporter = bed.store.claim(bed.host()).await.expect("its process is gone");
    reporter.withdraw().await.expect("etcd runs");

    // … and one of another machine once the host is not alive any more.
    holder["machine"] = json!("another-boot pid:[1]");
    holder["machine_id"] = json!("11111111-1111-4111-8111-111111111111");
    bed.etcd.set_json(&at("daemon"), &holder);
    bed.etcd.done("PUT", &at("alive"), &[("value", "1"), ("ttl", "2")]);
    let Err(error) = bed.store.claim(bed.host()).await else { panic!("two report") };
    assert!(error.to_string().contains(" of another machine"), "{error}");
    eventually("it ends", || bed.etcd.value(&at("alive")).is_none()).await;
    let mut reporter = bed.store.claim(bed.host()).await.expect("nobody renews it");

    // Who lost the claim says no more, and takes nothing back.
    let _follow = bed.follow().await;
    let ready = state(&[(PORT, Status::Ready)]);
    reporter.report(&ready).await.expect("it has the claim");
    bed.etcd.set_json(&at("daemon"), &holder);
    let refused = async {
        loop {
            match reporter.report(&ready).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        }
    };
    let refused = tokio::time::timeout(SOON, refused).await.expect("it is noticed");
    assert!(matches!(refused, StoreError::Claimed { .. }), "{refused}");
    let before = bed.etcd.keys(STATE);
    reporter.withdraw().await.expect("there is nothing to do");
    assert_eq!(bed.etcd.keys(STATE), before);
}
