//! What a host reports, and who may.

use control::model::{ActualState, PhysnetState, PortState, PortUuid, Status};
use control::store::{Reporter, StoreError};
use etcd_client::{Client, PutOptions};

use super::etcd::Found;
use super::process::eventually;
use super::proxy::Proxy;
use super::*;

const STATE: &str = "/viaduct/v1/state/h/";

/// A state of so many ports, and of one wire.
fn state(ports: u32, reason: &str) -> ActualState {
    let since = "2024-05-01T10:00:00Z".parse().expect("a time");
    let port = |number: u32| {
        let uuid = format!("{number:08x}-0000-4000-8000-000000000000");
        let uuid: PortUuid = uuid.parse().expect("a UUID");
        let mut state = PortState::new(Status::Waiting, Some(reason.to_owned()));
        state.since = since;
        (uuid, state)
    };
    let wire = PhysnetState {
        status: Status::Ready,
        reason: None,
        device: "net_tap0".to_owned(),
        mac: None,
        mtu: 1500,
        link_mbps: None,
        filters: None,
        since,
    };
    ActualState {
        ports: (0..ports).map(port).collect(),
        physnets: BTreeMap::from([("p".parse().expect("a name"), wire)]),
    }
}

async fn claim(store: &EtcdStore) -> Box<dyn Reporter> {
    store.claim(&host("h")).await.expect("nobody else has it")
}

fn alive(etcd: &Etcd) -> Option<Found> {
    etcd.value(&format!("{STATE}alive"))
}

fn revoke(etcd: &Etcd, lease: i64) {
    etcd.call(async move |client: Client| client.lease_client().revoke(lease).await.map(drop));
}

/// Lets the tasks of the runtime go on until the condition holds.
async fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

#[test]
fn what_is_reported_stands_there_and_nothing_is_written_twice() {
    let Some(etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    // Left by an earlier daemon, and by nobody knows whom.
    etcd.put(&format!("{STATE}ports/{B}"), "{}");
    etcd.put(&format!("{STATE}odd/key"), "{}");
    let other = "/viaduct/v1/state/h2/alive";
    etcd.put(other, "{}");
    runtime().block_on(async {
        let mut claim = claim(&store).await;
        let me = alive(&etcd).expect("it says that it lives");
        assert!(me.lease != 0 && me.value.contains(&format!("\"pid\":{}", std::process::id())));

        // More than a transaction takes.
        let ports = 300;
        assert_eq!(claim.report(&state(ports, "x")).await.expect("etcd answers"), 300 + 1 + 2);
        let found = etcd.list(STATE);
        assert_eq!(found.len(), 1 + 300 + 1);
        for found in &found {
            let leased = !found.key.starts_with(&format!("{STATE}ports/"));
            assert_eq!(found.lease, if leased { me.lease } else { 0 }, "{}", found.key);
        }
        assert_eq!(claim.report(&state(ports, "x")).await.expect("etcd answers"), 0);
        assert_eq!(etcd.list(STATE), found, "not even written again");
        assert_eq!(claim.report(&state(ports - 1, "x")).await.expect("etcd answers"), 1);
        assert_eq!(claim.report(&state(2, "y")).await.expect("etcd answers"), 299);

        claim.withdraw().await.expect("etcd answers");
        assert_eq!(etcd.list(STATE), []);
        assert!(etcd.value(other).is_some(), "the other host's is its own");
        let lease = me.lease;
        let left = etcd.call(async move |client: Client| {
            client.lease_client().time_to_live(lease, None).await.map(|it| it.ttl())
        });
        assert!(left <= 0, "the lease lives on: {left}");
    });
}

#[test]
fn equal_values_of_an_earlier_daemon_are_left_as_they_are() {
    let Some(etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let mut first = claim(&store).await;
        first.report(&state(3, "x")).await.expect("etcd answers");
        let ports = etcd.list(&format!("{STATE}ports/"));
        // It dies: its lease runs out, what it said of ports stays.
        drop(first);
        soon("the claim ends", || alive(&etcd).is_none()).await;
        assert_eq!(etcd.list(STATE), ports);
        let mut second = claim(&store).await;
        assert_eq!(second.report(&state(3, "x")).await.expect("etcd answers"), 1, "the wire");
        assert_eq!(etcd.list(&format!("{STATE}ports/")), ports);
    });
}

#[test]
fn one_daemon_reports_for_a_host() {
    let Some(etcd) = cluster(1) else { return };
    let (one, two) = (store(&etcd.endpoints()), store(&etcd.endpoints()));
    runtime().block_on(async {
        let claim = claim(&one).await;
        let before = etcd.list(STATE);
        let host = host("h");
        let error = two.claim(&host).await.map(drop).expect_err("it is taken");
        let StoreError::Claimed { place, .. } = &error else { panic!("{error}") };
        assert_eq!(*place, format!("{STATE}alive"));
        let said = error.to_string();
        for part in ["host `h`", "of this machine", &format!("process {}", std::process::id())] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(etcd.list(STATE), before);
        // Of many who come at once, one wins.
        claim.withdraw().await.expect("etcd answers");
        let stores: Vec<_> = (0..8).map(|_| store(&etcd.endpoints())).collect();
        let mut claims = Vec::new();
        for store in stores {
            let host = host.clone();
            claims.push(tokio::spawn(async move { store.claim(&host).await }));
        }
        let mut won = Vec::new();
        for claim in claims {
            won.extend(claim.await.expect("no panic").ok());
        }
        assert_eq!(won.len(), 1);
    });
}

#[test]
fn a_daemon_that_was_killed_is_succeeded_at_once() {
    let Some(etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let mut killed = claim(&store).await;
        killed.report(&state(1, "x")).await.expect("etcd answers");
        let me = alive(&etcd).expect("it says that it lives");
        let wire = etcd.value(&format!("{STATE}physnets/p")).expect("it was reported");
        killed.withdraw().await.expect("etcd answers");

        // As one that was killed a moment ago leaves it, with most of a long lease to come.
        let put = |alive: serde_json::Value| {
            let (alive, wire) = (alive.to_string(), wire.value.clone());
            etcd.call(async move |mut client: Client| {
                let lease = client.lease_client().grant(600, None).await?.id();
                let options = || Some(PutOptions::new().with_lease(lease));
                client.put(format!("{STATE}alive"), alive, options()).await?;
                client.put(format!("{STATE}physnets/p"), wire, options()).await?;
                Ok(lease)
            })
        };
        let mut gone: serde_json::Value = serde_json::from_str(&me.value).expect("JSON");
        gone["started_ticks"] = 1.into();
        let old = put(gone.clone());
        let mut claim = claim(&store).await;
        claim.report(&state(1, "x")).await.expect("etcd answers");
        // The value is the same, but went with the old lease unless it stands under the new one.
        revoke(&etcd, old);
        assert!(etcd.value(&format!("{STATE}physnets/p")).is_some());
        assert!(alive(&etcd).is_some());
        claim.withdraw().await.expect("etcd answers");

        // From another machine, nobody can see whether it is gone.
        gone["machine"] = "another".into();
        put(gone);
        let host = host("h");
        let error = store.claim(&host).await.map(drop).expect_err("it may live");
        assert!(error.to_string().contains("of another machine"), "{error}");
        // What stands there without a lease is nobody's claim.
        etcd.put(&format!("{STATE}alive"), "nonsense");
        store.claim(&host).await.expect("it is free");
    });
}

#[test]
fn what_is_lost_comes_back_by_itself() {
    let Some(etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let mut claim = claim(&store).await;
        claim.report(&state(2, "x")).await.expect("etcd answers");
        let values = |etcd: &Etcd| -> Vec<(String, String)> {
            etcd.list(STATE).into_iter().map(|it| (it.key, it.value)).collect()
        };
        let all = values(&etcd);
        assert_eq!(all.len(), 4);
        let back = |what| soon(what, || values(&etcd) == all);

        let lease = alive(&etcd).expect("it lives").lease;
        revoke(&etcd, lease);
        assert_eq!(etcd.list(STATE).len(), 2, "what is said of ports stays");
        back("a lost lease").await;
        assert_ne!(alive(&etcd).expect("it lives").lease, lease);

        etcd.wipe(STATE);
        back("what was deleted").await;
        etcd.put(&all[1].0, "altered");
        back("what was altered").await;
        etcd.put(&format!("{STATE}alive"), "altered");
        back("what was altered of its life").await;
        etcd.put(&format!("{STATE}ports/{B}"), "added");
        back("what was added").await;
        assert_ne!(alive(&etcd).expect("it lives").lease, 0);
        // And it stays under a lease that is kept: longer than its time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(values(&etcd), all);
    });
}

#[test]
fn a_report_that_was_cut_off_is_made_good() {
    let Some(etcd) = cluster(1) else { return };
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let store = store(&[proxy.endpoint()]);
    runtime().block_on(async {
        let mut claim = claim(&store).await;
        claim.report(&state(2, "x")).await.expect("etcd answers");
        proxy.close();
        let error = claim.report(&state(200, "y")).await.expect_err("the way is closed");
        assert!(error.to_string().contains("does not answer"), "{error}");
        // Longer than the lease, so that all that stands under it is gone.
        soon("the lease runs out", || alive(&etcd).is_none()).await;
        claim.report(&state(3, "z")).await.expect_err("the way is closed");
        proxy.open();
        soon("all comes back without a word", || etcd.list(STATE).len() == 1 + 3 + 1).await;
        soon("it can be reported again", || {
            // The keeper's success is what ends the failure.
            etcd.list(STATE).iter().filter(|it| it.value.contains("\"z\"")).count() == 3
        })
        .await;
        let again = timeout(PATIENCE, async {
            loop {
                match claim.report(&state(3, "z")).await {
                    Ok(written) => return written,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        assert_eq!(again.await.expect("in time"), 0);
    });
}

#[test]
fn who_was_away_too_long_does_not_fight_its_successor() {
    let Some(etcd) = cluster(1) else { return };
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let (frozen, successor) = (store(&[proxy.endpoint()]), store(&etcd.endpoints()));
    runtime().block_on(async {
        let mut old = claim(&frozen).await;
        old.report(&state(1, "old")).await.expect("etcd answers");
        proxy.close();
        soon("the lease runs out", || alive(&etcd).is_none()).await;
        let mut new = claim(&successor).await;
        new.report(&state(1, "new")).await.expect("etcd answers");
        let its = etcd.list(STATE);
        proxy.open();
        let refused = timeout(PATIENCE, async {
            loop {
                match old.report(&state(1, "old")).await {
                    Err(error @ StoreError::Claimed { .. }) => return error,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Ok(_) => panic!("it wrote over what its successor reports"),
                }
            }
        });
        refused.await.expect("in time");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(etcd.list(STATE), its);
        // When that one has gone, it is needed again.
        new.withdraw().await.expect("etcd answers");
        soon("it reports again", || etcd.list(STATE).iter().any(|it| it.value.contains("\"old\"")))
            .await;
    });
}

#[test]
fn a_frozen_cluster_loses_no_claim_for_ever() {
    let Some(mut etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let mut claim = claim(&store).await;
        claim.report(&state(1, "x")).await.expect("etcd answers");
        etcd.kill(0);
        claim.report(&state(1, "y")).await.expect_err("nobody is there");
        tokio::time::sleep(Duration::from_secs(4)).await;
        etcd.launch(0);
        etcd.wait();
        soon("all is as it should be", || {
            let found = etcd.list(STATE);
            found.len() == 3 && found.iter().any(|it| it.value.contains("\"y\""))
        })
        .await;
    });
    eventually("nothing is left", PATIENCE, || etcd.list(STATE).iter().all(|it| it.lease == 0));
}
