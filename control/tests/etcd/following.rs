//! What a host's daemon gets to see.

use etcd_client::{Client, Txn, TxnOp};

use super::etcd::Etcd;
use super::proxy::Proxy;
use super::*;

#[test]
fn a_host_sees_what_concerns_it_as_that_grows_and_shrinks() {
    let Some(etcd) = cluster(1) else { return };
    let put = |key: &str, value: &str| {
        etcd.put(&format!("{ROOT}{key}"), value);
    };
    let (net, a, b) =
        (format!("networks/{NET}"), format!("security-groups/{A}"), format!("security-groups/{B}"));
    let its = format!("nodes/h/ports/{A}");
    let (member_a, member_b) = (format!("group-members/{A}/{C}"), format!("group-members/{B}/{C}"));
    let addresses = format!("address-groups/{C}");
    put(&net, "{}");
    put(&a, &group(&[from_members(B)]));
    put(&b, &group(&[from_addresses(C)]));
    put(&member_a, "{}");
    put(&member_b, "{}");
    put(&addresses, "{}");
    // Of no concern to it.
    put(&format!("networks/{A}"), "{}");
    put(&format!("nodes/g/ports/{B}"), &port(&[B]));
    put(&format!("nodes/h2/ports/{B}"), &port(&[B]));
    put(&format!("security-groups/{C}"), &group(&[from_members(A)]));
    put(&its, &port(&[A]));

    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        assert!(same_keys(&first, &[&its, &net, &a, &member_b]), "{:?}", keys(&first));
        assert!(!first.void);

        // The port and the group that it newly names are seen together, with all that that one names.
        put(&its, &port(&[B]));
        let grown = timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on");
        assert!(same_keys(&grown, &[&its, &net, &b, &addresses]), "{:?}", keys(&grown));
        assert!(grown.revision > first.revision);

        // What the last good value named stays, as that value does.
        put(&its, "{");
        let kept = timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on");
        assert!(same_keys(&kept, &[&its, &net, &b, &addresses]), "{:?}", keys(&kept));
        put(&addresses, "[1]");
        let addressed = until(&mut watch, |it| texts(it)[&addresses] == "[1]").await;
        assert!(same_keys(&addressed, &[&its, &net, &b, &addresses]));

        // What is not watched any more is not seen any more, and seen again when it is named again.
        put(&its, &port(&[]));
        until(&mut watch, |it| same_keys(it, &[&its, &net])).await;
        put(&addresses, "[2]");
        put(&b, &group(&[from_addresses(C), from_members(A)]));
        put(&net, "[3]");
        let one = until(&mut watch, |it| texts(it)[&net] == "[3]").await;
        assert!(same_keys(&one, &[&its, &net]));
        put(&its, &port(&[B]));
        let again = until(&mut watch, |it| it.values.len() > 2).await;
        assert!(same_keys(&again, &[&its, &net, &b, &addresses, &member_a]), "{:?}", keys(&again));
        assert_eq!(texts(&again)[&addresses], "[2]");

        // A group that comes after the port that names it; members that come and go.
        etcd.delete(&format!("{ROOT}{b}"));
        until(&mut watch, |it| same_keys(it, &[&its, &net])).await;
        put(&b, &group(&[from_members(A)]));
        until(&mut watch, |it| same_keys(it, &[&its, &net, &b, &member_a])).await;
        let another = format!("group-members/{A}/{B}");
        put(&another, "{}");
        until(&mut watch, |it| same_keys(it, &[&its, &net, &b, &member_a, &another])).await;
        etcd.wipe(&format!("{ROOT}group-members/{A}/"));
        until(&mut watch, |it| same_keys(it, &[&its, &net, &b])).await;
        etcd.delete(&format!("{ROOT}{its}"));
        let bare = until(&mut watch, |it| it.values.is_empty()).await;
        assert!(!bare.void, "others' values are still there");
        etcd.wipe(ROOT);
        put(&its, &port(&[]));
        until(&mut watch, |it| it.values.len() == 1).await;
        etcd.delete(&format!("{ROOT}{its}"));
        let void = until(&mut watch, |it| it.values.is_empty()).await;
        assert!(void.void, "now nothing is left");
    });
}

#[test]
fn what_is_odd_among_what_concerns_a_host_is_told() {
    let Some(etcd) = cluster(1) else { return };
    let odd = format!("{ROOT}nodes/h/ports/odd");
    etcd.put(&odd, "{}");
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), "\u{0}\u{1}");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        assert_eq!(first.problems.len(), 1);
        assert_eq!(first.problems[0].object, odd);
        assert_eq!(texts(&first)[&format!("nodes/h/ports/{A}")], "\u{0}\u{1}");
        etcd.delete(&odd);
        until(&mut watch, |it| it.problems.is_empty()).await;
    });
}

#[test]
fn two_thousand_groups_are_watched_and_watched_again() {
    let Some(etcd) = cluster(1) else { return };
    let id = |number: u32| format!("{number:08x}-0000-4000-8000-000000000000");
    let ids: Vec<String> = (0..2_000).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), &port(&ids));
    let place = move |number: u32| format!("{ROOT}security-groups/{}", id(number));
    etcd.call(async move |mut client: Client| {
        for begin in (0..2_000).step_by(100) {
            let puts: Vec<TxnOp> =
                (begin..begin + 100).map(|number| TxnOp::put(place(number), "{}", None)).collect();
            client.txn(Txn::new().and_then(puts)).await?;
        }
        Ok(())
    });
    let proxy = Proxy::to(&etcd.endpoints()[0]);
    let store = store(&[proxy.endpoint()]);
    runtime().block_on(async {
        let (mut watch, first) = follow(&store).await;
        assert_eq!(first.values.len(), 1 + 2_000);
        for round in 1..4 {
            for number in [0, 999, 1_999] {
                let text = format!("{round} {number}");
                etcd.put(&place(number), &text);
                until(&mut watch, |it| texts(it).values().any(|it| *it == text)).await;
            }
            proxy.close();
            until(&mut watch, |it| !it.problems.is_empty()).await;
            proxy.open();
        }
    });
}

#[test]
fn a_storm_of_changes_is_seen_as_few() {
    let Some(etcd) = cluster(1) else { return };
    let port = format!("{ROOT}nodes/h/ports/{A}");
    etcd.put(&port, "0");
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, _) = follow(&store).await;
        etcd.call(async move |mut client: Client| {
            for number in 1..=1_000 {
                client.put(port.clone(), number.to_string(), None).await?;
            }
            Ok(())
        });
        let mut seen = 0;
        until(&mut watch, |it| {
            seen += 1;
            texts(it).values().any(|text| text == "1000")
        })
        .await;
        assert!(seen < 500, "{seen} listings of 1000 changes");
    });
}

#[test]
fn messages_of_more_than_four_megabytes_come_through() {
    if !runs_here() {
        return;
    }
    let etcd = Etcd::start_with(1, &["--max-request-bytes", "20000000"], None);
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), &port(&[A]));
    etcd.put(&format!("{ROOT}security-groups/{A}"), &group(&[from_members(B)]));
    let all_at_once = |text: &'static str| {
        etcd.call(async move |mut client: Client| {
            let puts: Vec<TxnOp> = (0..8)
                .map(|number| {
                    let member = format!("{number:08x}-0000-4000-8000-000000000000");
                    let key = format!("{ROOT}group-members/{B}/{member}");
                    TxnOp::put(key, text.repeat(1_000_000), None)
                })
                .collect();
            client.txn(Txn::new().and_then(puts)).await.map(drop)
        });
    };
    let full = |listing: &Listing, text: &str| {
        let texts = texts(listing);
        let large = texts.values().filter(|it| it.len() == 1_000_000 && it.starts_with(text));
        large.count() == 8
    };
    let store = store(&etcd.endpoints());
    runtime().block_on(async {
        let (mut watch, _) = follow(&store).await;
        all_at_once("1");
        until(&mut watch, |it| full(it, "1")).await;
        let (mut other, first) = follow(&store).await;
        assert!(full(&first, "1"));
        all_at_once("2");
        until(&mut watch, |it| full(it, "2")).await;
        until(&mut other, |it| full(it, "2")).await;
    });
}
