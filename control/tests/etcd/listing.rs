//! What commands read and write.

use control::store::{Store, StoreError};
use etcd_client::{Client, Txn, TxnOp};
use serde_json::json;

use super::etcd::Etcd;
use super::*;

#[test]
fn a_listing_is_what_stands_under_the_prefix_and_all_that_is_odd() {
    let Some(etcd) = cluster(1) else { return };
    let store = store(&etcd.endpoints());
    let empty = runtime().block_on(store.list()).expect("etcd answers");
    assert_eq!(empty.values.len() + empty.problems.len(), 0);

    etcd.put(&format!("{ROOT}networks/{NET}"), "1");
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), "not JSON");
    etcd.put(&format!("{ROOT}nodes/g/ports/{A}"), "");
    etcd.put(&format!("{ROOT}group-members/{A}/{B}"), "3");
    // What hosts report, and what is somebody else's, does not count; not even if it looks alike.
    etcd.put(&format!("{ROOT}state/h/alive"), "{}");
    etcd.put(&format!("{ROOT}state/h/nonsense"), "{}");
    etcd.put(&format!("/viaduct/v2/networks/{NET}"), "{}");
    etcd.put("/viaduct/v1", "{}");
    etcd.put("/viaduct/v10/x", "{}");
    // Odd.
    etcd.put(&format!("{ROOT}networks/blue"), "{}");
    etcd.put(&format!("{ROOT}states/h"), "{}");
    etcd.call(async |mut client: Client| {
        client.put(b"/viaduct/v1/networks/\xff\xfe".to_vec(), "{}", None).await
    });

    let listing = runtime().block_on(store.list()).expect("etcd answers");
    let expected: BTreeMap<String, String> = [
        (format!("networks/{NET}"), "1"),
        (format!("nodes/h/ports/{A}"), "not JSON"),
        (format!("nodes/g/ports/{A}"), ""),
        (format!("group-members/{A}/{B}"), "3"),
    ]
    .map(|(key, text)| (key, text.to_owned()))
    .into();
    assert_eq!(texts(&listing), expected);
    let said: Vec<String> = listing.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("/viaduct/v1/networks/blue: `blue` is not a UUID; "), "{said:?}");
    assert!(said[1].contains("is not a UUID"), "{said:?}");
    assert!(said[2].starts_with("/viaduct/v1/states/h: `states` is not known "), "{said:?}");
}

#[test]
fn values_are_put_and_deleted_one_by_one() {
    let Some(etcd) = cluster(1) else { return };
    let mut elsewhere = config(&etcd.endpoints());
    elsewhere.prefix = "/site/two/".parse().expect("a prefix");
    let elsewhere = EtcdStore::new(elsewhere);
    let store = store(&etcd.endpoints());
    let network = key(&format!("networks/{NET}"));
    runtime().block_on(async {
        store.put(&network, &json!({"type": "local"})).await.expect("it is written");
        assert!(!elsewhere.delete(&network).await.expect("prefixes are apart"));
        elsewhere.put(&network, &json!(2)).await.expect("it is written");
        assert_eq!(store.list().await.expect("etcd answers").values.len(), 1);
        assert!(store.delete(&network).await.expect("it is deleted"));
        assert!(!store.delete(&network).await.expect("it is not there"));
        let report = key("state/h/alive");
        for refused in [
            store.put(&report, &json!(1)).await.expect_err("a report is no wish"),
            store.delete(&report).await.map(drop).expect_err("a report is no wish"),
        ] {
            assert!(matches!(refused, StoreError::NotDesired(_)), "{refused}");
        }
        let error = store.put(&network, &json!("x".repeat(2 << 20))).await.expect_err("2 MiB");
        let said = error.to_string();
        assert!(
            said.contains(&format!(
                "writing {ROOT}networks/{NET} (2097154 octets) failed: it is more"
            )) && said.contains("raise etcd's --max-request-bytes"),
            "{said}"
        );
        let error = store.put(&network, &json!("x".repeat(5 << 20))).await.expect_err("5 MiB");
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    });
    let found: Vec<_> = etcd.list("/").into_iter().map(|it| (it.key, it.value)).collect();
    assert_eq!(found, [(format!("/site/two/networks/{NET}"), "2".to_owned())]);
}

#[test]
fn five_megabytes_are_read_in_pages_of_one_revision_though_history_is_compacted() {
    let Some(etcd) = cluster(1) else { return };
    let name = |number: u32| format!("{ROOT}networks/{number:08x}-0000-4000-8000-000000000000");
    etcd.call(async move |mut client: Client| {
        for begin in (0..5_000).step_by(100) {
            let puts: Vec<TxnOp> = (begin..begin + 100)
                .map(|number| TxnOp::put(name(number), "x".repeat(1_024), None))
                .collect();
            client.txn(Txn::new().and_then(puts)).await?;
        }
        Ok(())
    });
    // The first and the last of them always have the same value, for whom reads one revision.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                round += 1;
                etcd.call(async move |mut client: Client| {
                    let both =
                        [name(0), name(4_999)].map(|it| TxnOp::put(it, round.to_string(), None));
                    let done = client.txn(Txn::new().and_then(both)).await?;
                    let revision = done.header().map_or(0, |header| header.revision());
                    // All history now and then; a reading takes longer than the time between.
                    if round % 40 == 0 {
                        client.compact(revision, None).await.map(drop)
                    } else {
                        Ok(())
                    }
                });
            }
        });
        let store = store(&etcd.endpoints());
        runtime().block_on(async {
            for _ in 0..5 {
                let listing = store.list().await.expect("however often it begins again");
                assert_eq!(listing.values.len(), 5_000);
                let texts = texts(&listing);
                let of = |number| &texts[&name(number)[ROOT.len()..]];
                assert_eq!(of(0), of(4_999));
            }
        });
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn a_value_beyond_the_bound_is_named_and_stops_nothing() {
    if !runs_here() {
        return;
    }
    let etcd = Etcd::start_with(1, &["--max-request-bytes", "20000000"], None);
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), &"x".repeat(5_000_000));
    etcd.put(&format!("{ROOT}nodes/h/ports/{B}"), "1");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let listing = store.list().await.expect("one bad value is no failure");
        let (_, first) = follow(&store).await;
        for listing in [&listing, &*first] {
            let texts = texts(listing);
            assert!(
                texts[&format!("nodes/h/ports/{A}")]
                    .starts_with("unreadable: is larger than 4194304"),
            );
            assert_eq!(texts[&format!("nodes/h/ports/{B}")], "1");
        }
    });
}

#[test]
fn a_full_database_is_told_with_what_to_do() {
    if !runs_here() {
        return;
    }
    let etcd = Etcd::start_with(1, &["--quota-backend-bytes", "4000000"], None);
    let store = store(&etcd.endpoints());
    let network = key(&format!("networks/{NET}"));
    runtime().block_on(async {
        let mut refused = None;
        for number in 0..20 {
            let value = json!(format!("{number}{}", "x".repeat(1 << 20)));
            refused = store.put(&network, &value).await.err();
            if refused.is_some() {
                break;
            }
        }
        let said = refused.expect("20 MiB do not fit into 4").to_string();
        assert!(said.contains("the database of etcd is full; compact and defragment"), "{said}");
        // What there is can be read.
        assert_eq!(store.list().await.expect("etcd answers").values.len(), 1);
    });
}
