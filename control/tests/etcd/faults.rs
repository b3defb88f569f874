//! What a watch lives through.

use super::proxy::Proxy;
use super::*;

/// Whether the listing tells of an outage.
fn away(listing: &Listing) -> bool {
    listing.problems.iter().any(|it| it.what.contains("what was read last stays in force"))
}

fn value(listing: &Listing) -> Option<String> {
    texts(listing).remove(&format!("nodes/h/ports/{A}"))
}

fn its_port() -> String {
    format!("{ROOT}nodes/h/ports/{A}")
}

#[test]
fn an_outage_changes_nothing_and_is_told_once() {
    let Some(mut etcd) = cluster(1) else { return };
    etcd.put(&its_port(), "1");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        assert_eq!(value(&first).as_deref(), Some("1"));
        etcd.kill(0);
        let told = until(&mut watch, away).await;
        assert_eq!(value(&told).as_deref(), Some("1"));
        let said = told.problems[0].to_string();
        assert!(said.contains(&etcd.endpoints()[0]) && said.contains("start etcd"), "{said}");
        // Some attempts later, nothing else is said.
        let more = timeout(Duration::from_secs(5), watch.next()).await;
        assert!(more.is_err(), "{more:?}");

        etcd.launch(0);
        etcd.wait();
        etcd.put(&its_port(), "2");
        let over = until(&mut watch, |it| !away(it) && value(it).as_deref() == Some("2")).await;
        assert!(over.revision > told.revision);
        // And it goes on as ever.
        etcd.put(&its_port(), "3");
        until(&mut watch, |it| value(it).as_deref() == Some("3")).await;
    });
}

#[test]
fn a_frozen_server_is_an_outage_too() {
    let Some(mut etcd) = cluster(1) else { return };
    etcd.put(&its_port(), "1");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, _) = follow(&store).await;
        etcd.stop(0);
        let told = until(&mut watch, away).await;
        assert_eq!(value(&told).as_deref(), Some("1"));
        etcd.cont(0);
        etcd.put(&its_port(), "2");
        until(&mut watch, |it| !away(it) && value(it).as_deref() == Some("2")).await;
    });
}

#[test]
fn a_cluster_lives_through_what_its_members_do() {
    let Some(mut etcd) = cluster(3) else { return };
    etcd.put(&its_port(), "0");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, _) = follow(&store).await;
        let mut round = 0;
        let mut changes = async |etcd: &mut Etcd, watch: &mut Watch| {
            round += 1;
            etcd.wait();
            etcd.put(&its_port(), &round.to_string());
            let text = round.to_string();
            until(watch, |it| value(it).as_ref() == Some(&text)).await;
        };
        // One after the other dies; two are always there.
        for member in 0..3 {
            etcd.kill(member);
            changes(&mut etcd, &mut watch).await;
            etcd.launch(member);
            changes(&mut etcd, &mut watch).await;
        }
        // One after the other freezes.
        for member in 0..3 {
            etcd.stop(member);
            changes(&mut etcd, &mut watch).await;
            etcd.cont(member);
        }
        etcd.wait();
        etcd.move_leader();
        changes(&mut etcd, &mut watch).await;
        // All freeze, which is an outage; then all go on.
        (0..3).for_each(|member| etcd.stop(member));
        let told = until(&mut watch, away).await;
        assert!(value(&told).is_some());
        (0..3).for_each(|member| etcd.cont(member));
        changes(&mut etcd, &mut watch).await;
        until_healthy(&mut watch, &etcd).await;
    });
}

/// Waits for a listing without an outage, after a change that brings one.
async fn until_healthy(watch: &mut Watch, etcd: &Etcd) {
    etcd.put(&its_port(), "healthy");
    until(watch, |it| value(it).as_deref() == Some("healthy") && !away(it)).await;
}

#[test]
fn a_watch_goes_on_where_it_was_and_reads_nothing_twice() {
    let Some(etcd) = cluster(1) else { return };
    let large = "x".repeat(1 << 20);
    etcd.put(&its_port(), "1");
    etcd.put(&format!("{ROOT}nodes/h/ports/{B}"), &large);
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let store = store(&[proxy.endpoint()]);
    runtime().block_on(async {
        let (mut watch, _) = follow(&store).await;
        proxy.close();
        until(&mut watch, away).await;
        etcd.put(&its_port(), "2");
        etcd.delete(&format!("{ROOT}nodes/h/ports/{C}"));
        etcd.put(&format!("{ROOT}nodes/h/ports/{C}"), "3");
        let before = proxy.received();
        proxy.open();
        let now = until(&mut watch, |it| value(it).as_deref() == Some("2") && !away(it)).await;
        let now = if now.values.len() == 3 {
            now
        } else {
            until(&mut watch, |it| it.values.len() == 3).await
        };
        assert_eq!(texts(&now)[&format!("nodes/h/ports/{B}")], large);
        let read = proxy.received() - before;
        assert!(read < 100_000, "{read} octets for two small changes");
    });
}

#[test]
fn a_watch_that_sees_nothing_keeps_up_with_what_is_compacted() {
    if !runs_here() {
        return;
    }
    let notify = ["--experimental-watch-progress-notify-interval", "500ms"];
    let etcd = Etcd::start_with(1, &notify, None);
    etcd.put(&its_port(), &"x".repeat(1 << 20));
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let store = store(&[proxy.endpoint()]);
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        for number in 0..10 {
            etcd.put("/elsewhere", &number.to_string());
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        etcd.compact();
        proxy.close();
        until(&mut watch, away).await;
        let before = proxy.received();
        proxy.open();
        etcd.put(&format!("{ROOT}nodes/h/ports/{B}"), "1");
        let now = until(&mut watch, |it| it.values.len() == 2).await;
        assert_eq!(value(&now), value(&first));
        let read = proxy.received() - before;
        assert!(read < 100_000, "{read} octets for one small change");
    });
}

#[test]
fn history_that_is_gone_is_read_anew_and_nothing_is_lost() {
    let Some(etcd) = cluster(1) else { return };
    let net = format!("{ROOT}networks/{NET}");
    etcd.put(&its_port(), &port(&[A]));
    etcd.put(&net, "1");
    etcd.put(&format!("{ROOT}security-groups/{A}"), &group(&[from_members(B)]));
    etcd.put(&format!("{ROOT}group-members/{B}/{A}"), "1");
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let store = store(&[proxy.endpoint()]);
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;

        // Nothing of ours is different afterwards: then nothing is said but that it is over.
        proxy.close();
        until(&mut watch, away).await;
        for number in 0..10 {
            etcd.put("/elsewhere", &number.to_string());
        }
        etcd.compact();
        proxy.open();
        let over = timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on");
        assert!(!away(&over));
        assert_eq!(over.values, first.values);
        let more = timeout(Duration::from_secs(1), watch.next()).await;
        assert!(more.is_err(), "{more:?}");

        // All kinds of changes in the gap.
        proxy.close();
        until(&mut watch, away).await;
        etcd.put(&net, "2");
        etcd.delete(&format!("{ROOT}group-members/{B}/{A}"));
        etcd.put(&format!("{ROOT}group-members/{B}/{C}"), "2");
        etcd.put(&format!("{ROOT}nodes/h/ports/{C}"), &port(&[]));
        etcd.compact();
        proxy.open();
        let expected = [
            &format!("networks/{NET}"),
            &format!("nodes/h/ports/{A}"),
            &format!("nodes/h/ports/{C}"),
            &format!("security-groups/{A}"),
            &format!("group-members/{B}/{C}"),
        ];
        let expected = expected.map(String::as_str);
        let now = until(&mut watch, |it| same_keys(it, &expected) && !away(it)).await;
        assert_eq!(texts(&now)[&format!("networks/{NET}")], "2");

        // And the new watches watch.
        etcd.put(&net, "3");
        until(&mut watch, |it| texts(it)[&format!("networks/{NET}")] == "3").await;
    });
}

#[test]
fn a_cluster_that_went_back_in_time_is_read_anew() {
    let Some(mut etcd) = cluster(1) else { return };
    let directory = tempfile::TempDir::new().expect("a directory for the test");
    let backup = directory.path().join("backup");
    etcd.put(&its_port(), "old");
    etcd.save(&backup);
    for number in 0..50 {
        etcd.put(&its_port(), &format!("lost {number}"));
    }
    etcd.put(&format!("{ROOT}nodes/h/ports/{B}"), "lost");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        assert_eq!(value(&first).as_deref(), Some("lost 49"));
        etcd.kill(0);
        etcd.restore(&backup);
        etcd.launch(0);
        etcd.wait();
        let old = until(&mut watch, |it| value(it).as_deref() == Some("old")).await;
        assert_eq!(old.values.len(), 1);
        assert!(old.revision > first.revision, "ours does not go back");
        // Its revisions are below those that were seen, and watched all the same.
        etcd.put(&its_port(), "new");
        until(&mut watch, |it| value(it).as_deref() == Some("new")).await;
    });
}

#[test]
fn a_server_that_is_away_at_first_is_an_error_with_its_name() {
    let store = store(&["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()]);
    runtime().block_on(async {
        let host = host("h");
        for error in [
            store.list().await.map(drop).expect_err("nobody is there"),
            store.follow(&host).await.map(drop).expect_err("nobody is there"),
            store.claim(&host).await.map(drop).expect_err("nobody is there"),
            store.delete(&key(&format!("networks/{NET}"))).await.map(drop).expect_err("nobody"),
        ] {
            let said = error.to_string();
            assert!(
                said.starts_with("etcd http://127.0.0.1:1, http://127.0.0.1:2: http://127.0.0.1:")
                    && said.contains(" does not answer: ")
                    && said.contains("refused"),
                "{said}"
            );
        }
    });
}
