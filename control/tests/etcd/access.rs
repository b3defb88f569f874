//! Who is let in: certificates, users, roles.

use std::path::Path;

use etcd_client::{Client, Permission};
use serde_json::json;

use super::etcd::Pki;
use super::*;

#[test]
fn servers_and_clients_trust_one_another_by_certificates() {
    if !runs_here() {
        return;
    }
    let pki = Pki::new();
    let mut config = config(&[]);
    config.servers.ca = Some(pki.file("ca.pem"));
    config.servers.certificate = Some(pki.file("client.pem"));
    config.servers.key = Some(pki.file("client.key"));
    let files = config.servers.clone();
    let (other_ca, stranger) = (pki.file("other-ca.pem"), pki.file("stranger.pem"));
    let (copy, stranger_key) = (files.clone(), pki.file("stranger.key"));
    // The cluster has a copy of the files; these stay for the store.
    let etcd = Etcd::start_with(1, &[], Some(pki.copy()));
    config.servers.endpoints =
        etcd.endpoints().iter().map(|it| it.parse().expect("an endpoint")).collect();
    let endpoints = config.servers.endpoints.clone();

    runtime().block_on(async {
        let store = EtcdStore::new(config.clone());
        store.put(&key(&format!("networks/{NET}")), &json!({})).await.expect("it is let in");
        let (mut watch, _) = follow(&store).await;
        etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), "1");
        until(&mut watch, |it| it.values.len() == 1).await;

        let refused = async |change: &dyn Fn(&mut Servers)| {
            let mut config = config.clone();
            config.servers = Servers { endpoints: endpoints.clone(), ..copy.clone() };
            change(&mut config.servers);
            let error = EtcdStore::new(config).list().await.map(drop);
            error.expect_err("it is not let in").to_string()
        };
        let said = refused(&|servers| servers.ca = Some(other_ca.clone())).await;
        assert!(said.contains("is not trusted") && said.contains("certificate"), "{said}");
        let said = refused(&|servers| {
            servers.certificate = Some(stranger.clone());
            servers.key = Some(stranger_key.clone());
        })
        .await;
        assert!(said.contains("does not trust us"), "{said}");
        let said = refused(&|servers| (servers.certificate, servers.key) = (None, None)).await;
        assert!(said.contains("does not trust us"), "{said}");
        for (field, change) in [
            ("ca", &(|it: &mut Servers| it.ca = Some("/no/ca".into())) as &dyn Fn(&mut Servers)),
            ("certificate", &|it| it.certificate = Some("/no/certificate".into())),
            ("key", &|it| it.key = Some("/no/key".into())),
        ] {
            let said = refused(change).await;
            let named = format!("reading {field} /no/{field} failed: No such file or directory");
            assert!(said.contains(&named), "{said}");
        }
    });
}

/// Makes root, and a user with the least that a host needs, as docs/control-plane.md lists it.
fn enable_users(etcd: &mut Etcd) {
    etcd.call(async |client: Client| {
        let mut auth = client.auth_client();
        auth.user_add("root", "root", None).await?;
        auth.role_add("root").await?;
        auth.user_grant_role("root", "root").await?;
        auth.role_add("host-h").await?;
        let folders =
            ["networks/", "security-groups/", "address-groups/", "group-members/", "nodes/h/"];
        for folder in folders {
            let read = Permission::read(format!("{ROOT}{folder}")).with_prefix();
            auth.role_grant_permission("host-h", read).await?;
        }
        let write = Permission::read_write(format!("{ROOT}state/h/")).with_prefix();
        auth.role_grant_permission("host-h", write).await?;
        auth.user_add("h", "secret", None).await?;
        auth.user_grant_role("h", "host-h").await?;
        auth.auth_enable().await.map(drop)
    });
    etcd.log_in_as("root", "root");
}

fn user(etcd: &Etcd, password: &Path) -> EtcdStore {
    let mut config = config(&etcd.endpoints());
    config.servers.user = Some("h".to_owned());
    config.servers.password_file = Some(password.to_owned());
    EtcdStore::new(config)
}

#[test]
fn a_user_may_what_its_role_says_and_is_told_what_not() {
    let Some(mut etcd) = cluster(1) else { return };
    enable_users(&mut etcd);
    etcd.put(&format!("{ROOT}nodes/h/ports/{A}"), &port(&[A]));
    etcd.put(&format!("{ROOT}networks/{NET}"), "{}");
    let directory = tempfile::TempDir::new().expect("a directory for the test");
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\nnot this\n").expect("it can be written");
    runtime().block_on(async {
        // What a daemon does.
        let its = user(&etcd, &password);
        let (mut watch, first) = follow(&its).await;
        assert_eq!(first.values.len(), 2);
        etcd.put(
            &format!("{ROOT}security-groups/{A}"),
            &group(&[from_members(B), from_addresses(C)]),
        );
        etcd.put(&format!("{ROOT}group-members/{B}/{C}"), "{}");
        etcd.put(&format!("{ROOT}address-groups/{C}"), "{}");
        until(&mut watch, |it| it.values.len() == 5).await;
        etcd.wipe(&format!("{ROOT}nodes/h/"));
        until(&mut watch, |it| it.values.is_empty() && !it.void).await;
        let mut claim = its.claim(&host("h")).await.expect("its own state");
        claim.report(&Default::default()).await.expect("its own state");
        claim.withdraw().await.expect("its own state");

        // What it does not.
        let network = key(&format!("networks/{NET}"));
        let said = its.put(&network, &json!({})).await.expect_err("forbidden").to_string();
        assert!(
            said.contains(&format!("writing {ROOT}networks/{NET} (2 octets) is not permitted"))
                && said.contains("grant the user's role"),
            "{said}"
        );
        let said = its.claim(&host("g")).await.map(drop).expect_err("forbidden").to_string();
        assert!(said.contains("state/g/alive is not permitted"), "{said}");
        let said = its.list().await.map(drop).expect_err("forbidden").to_string();
        assert!(said.contains(&format!("reading {ROOT} is not permitted")), "{said}");

        std::fs::write(&password, "wrong").expect("it can be written");
        let wrong = user(&etcd, &password);
        let said = wrong.follow(&host("h")).await.map(drop).expect_err("wrong").to_string();
        assert!(said.contains("refuses the login") && said.contains("`password_file`"), "{said}");
        let missing = user(&etcd, Path::new("/no/password"));
        let said = missing.follow(&host("h")).await.map(drop).expect_err("missing").to_string();
        assert!(said.contains("reading password_file /no/password failed"), "{said}");
        let nobody = store(&etcd.endpoints());
        let said = nobody.follow(&host("h")).await.map(drop).expect_err("no user").to_string();
        assert!(said.contains("wants a user who is logged in"), "{said}");
    });
}

#[test]
fn a_login_that_has_run_out_is_made_anew_with_the_password_of_now() {
    if !runs_here() {
        return;
    }
    let mut etcd = Etcd::start_with(1, &["--auth-token-ttl", "2"], None);
    enable_users(&mut etcd);
    let its = format!("{ROOT}nodes/h/ports/{A}");
    etcd.put(&its, &port(&[]));
    etcd.put(&format!("{ROOT}networks/{NET}"), "{}");
    etcd.put(&format!("{ROOT}security-groups/{A}"), &group(&[]));
    let directory = tempfile::TempDir::new().expect("a directory for the test");
    let password = directory.path().join("password");
    std::fs::write(&password, "secret").expect("it can be written");
    runtime().block_on(async {
        let store = user(&etcd, &password);
        let (mut watch, first) = follow(&store).await;
        assert_eq!(first.values.len(), 2);
        let mut claim = store.claim(&host("h")).await.expect("its own state");
        // All its tokens are revoked by a new password, too.
        etcd.call(async |client: Client| {
            client.auth_client().user_change_password("h", "new secret").await.map(drop)
        });
        std::fs::write(&password, "new secret").expect("it can be written");
        tokio::time::sleep(Duration::from_secs(5)).await;
        // What it names now has to be read, and watched on a stream that was opened with the old one.
        etcd.put(&its, &port(&[A]));
        until(&mut watch, |it| it.values.len() == 3).await;
        etcd.put(&format!("{ROOT}security-groups/{A}"), "1");
        let one = until(&mut watch, |it| texts(it).values().any(|text| text == "1")).await;
        assert_eq!(one.problems, []);
        claim.report(&Default::default()).await.expect("it logs in again");
        assert!(etcd.value(&format!("{ROOT}state/h/alive")).is_some());

        // What it may not read any more is told once it has to be read, and what it has is kept.
        etcd.call(async |client: Client| {
            client.auth_client().user_revoke_role("h", "host-h").await.map(drop)
        });
        etcd.put(&its, &port(&[A, B]));
        let told = until(&mut watch, |it| !it.problems.is_empty()).await;
        assert!(told.problems[0].what.contains("is not permitted"), "{:?}", told.problems);
        // The port's new value comes with the group that it names, or not at all.
        assert_eq!(texts(&told)[&format!("nodes/h/ports/{A}")], port(&[A]));
        assert_eq!(told.values.len(), 3);
    });
}
