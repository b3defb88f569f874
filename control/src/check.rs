//! What `viaduct check` does: all that is wrong with a store, and with a configuration, without a
//! daemon.
//!
//! It judges with the daemon's own code, and looks at the network cards that are configured. What it
//! cannot know is what only trying shows: whether a socket can be bound.

use std::collections::BTreeSet;
use std::path::Path;

use crate::budget::Budget;
use crate::config::{Config, Vhost};
use crate::key::Key;
use crate::model::{Desired, HostName, Site};
use crate::nics;
use crate::problem::Problem;
use crate::store::Store;

/// All problems of a configuration, if one is given, and of the desired state in a store.
///
/// With a configuration that can be loaded, the state is judged for its host, and ports of other hosts
/// are told as warnings, unless the store is there for many. Without, it is judged for every host in
/// it, but for what depends on physnets.
pub async fn check(store: &dyn Store, configuration: Option<&Path>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let config = match configuration.map(Config::load) {
        Some(Ok(config)) => {
            problems.extend(config.warnings.iter().cloned());
            problems
                .extend(configuration.map(|path| nics::doubts(&config, path)).unwrap_or_default());
            Some(config)
        }
        Some(Err(errors)) => {
            problems.extend(errors.problems);
            None
        }
        None => None,
    };
    let listing = match store.list().await {
        Ok(listing) => listing,
        Err(error) => {
            problems.push(error.problem());
            return problems;
        }
    };
    problems.extend(listing.problems);

    let mut hosts: BTreeSet<&HostName> = listing.values.keys().filter_map(Key::host).collect();
    // Networks are judged even where there is no port.
    let nobody: HostName = "nobody".parse().expect("letters are a host name");
    let mut found: BTreeSet<Problem> = BTreeSet::new();
    match &config {
        Some(config) => {
            let desired = Desired::build(&listing.values, config);
            found.extend(judged(&desired));
            found.extend(crate::nic::doubts(&desired, &config.host));
            hosts.remove(&config.host);
            hosts.retain(|_| !store.is_shared());
            found.extend(hosts.into_iter().map(|other| elsewhere(other, &config.host)));
        }
        None => {
            hosts.extend(hosts.is_empty().then_some(&nobody));
            let vhost = Vhost::default();
            let mut desired = Desired::default();
            for host in hosts {
                let site = Site { host, physnets: None, vhost: &vhost, cores: &[] };
                desired = desired.cleared().rebuild(&listing.values, site);
                found.extend(judged(&desired));
            }
        }
    }
    problems.extend(found);
    problems
}

/// The memory that a configuration takes, with the devices of its host in a store; none if either cannot
/// be read.
pub async fn budget(store: &dyn Store, configuration: &Path) -> Option<Budget> {
    let config = Config::load(configuration).ok()?;
    let listing = store.list().await.ok()?;
    Some(Budget::new(&config, &Desired::build(&listing.values, &config)))
}

/// All that is said about a set of objects.
fn judged(desired: &Desired) -> impl Iterator<Item = Problem> {
    desired.problems.values().chain(desired.warnings.values()).flatten().cloned()
}

/// That ports of another host do nothing here: the usual cause is a host by another name.
fn elsewhere(other: &HostName, host: &HostName) -> Problem {
    Problem::whole(
        Key::ports_of(other),
        format!("these ports are of host `{other}`, and this one is `{host}`"),
        format!("rename the folder to `{host}` if they are meant for this host"),
    )
    .warning()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::documented::assert_documented;
    use crate::store::directory::Directory;

    const NET: &str = "networks/11111111-1111-4111-8111-111111111111";
    const PORT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";

    fn write(directory: &Path, file: &str, text: &str) {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    fn check(directory: &Path, configuration: Option<&Path>) -> Vec<Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime for the test");
        runtime.block_on(super::check(&Directory::new(directory), configuration))
    }

    fn said(directory: &Path, problems: &[Problem]) -> Vec<String> {
        let directory = directory.display().to_string();
        let said = problems.iter().inspect(|problem| assert_documented(problem));
        said.map(|problem| problem.to_string().replace(&directory, "DIR")).collect()
    }

    #[test]
    fn a_directory_is_checked_with_and_without_a_configuration() {
        let directory = TempDir::new().expect("a directory for the test");
        let directory = directory.path();
        let port = r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"vhost-user",
                       "socket":"a","mac":"52:54:00:00:00:01"}"#;
        write(directory, &format!("{NET}.json"), r#"{"type":"vlan","physnet":"p","vlan":100}"#);
        write(directory, &format!("nodes/h/ports/{PORT}.json"), port);
        write(directory, &format!("nodes/g/ports/{PORT}.json"), "{}");
        write(directory, "viaduct.toml", "");
        write(directory, "networks/odd.json", "{}");
        let odd = "DIR/networks/odd.json: `odd` is not a UUID; write a UUID such as \
                   6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";

        let g = format!("nodes/g/ports/{PORT}");
        assert_eq!(
            said(directory, &check(directory, None)),
            [
                odd.to_owned(),
                format!(
                    "{g}: kind: is missing; write `vhost-user`, `ethdev`, `tap` or `vf-direct`"
                ),
                format!(
                    "{g}: network: is missing; write the UUID of the network that the port is on"
                ),
            ]
        );

        let file = directory.join("viaduct.toml");
        let config = "host = 'h'\nstore.directory = 'DIR'\ncontrol.socket = 'DIR/c'\n\
                      vhost.socket_directory = 'DIR'\nworkers.idle = 'sleep'\n";
        let config = config.replace("DIR", &directory.display().to_string());
        fs::write(&file, &config).expect("it can be written");
        let found = check(directory, Some(&file));
        // On a machine with one CPU, control has to share it.
        let found: Vec<_> = found.into_iter().filter(|p| p.field != "workers.cores").collect();
        assert_eq!(
            said(directory, &found),
            [
                odd.to_owned(),
                format!(
                    "{NET}: physnet: physnet `p` is not configured on this host, which has none; \
                     correct the name, or add [physnets.p] to the configuration and reload it"
                ),
                "nodes/g/ports: these ports are of host `g`, and this one is `h`; rename the \
                 folder to `h` if they are meant for this host"
                    .to_owned(),
                format!(
                    "nodes/h/ports/{PORT}: network: {NET} is not in force; correct what is \
                     reported for that network"
                ),
            ]
        );

        fs::write(&file, format!("{config}\n[physnets.p]\ndevice = 5\n"))
            .expect("it can be written");
        let found = said(directory, &check(directory, Some(&file)));
        assert!(found[0].starts_with("DIR/viaduct.toml:8: physnets.p.device: 5 is not text; "));
        assert_eq!(found[1], odd, "what is in the directory is told all the same");
    }

    #[test]
    fn groups_are_checked_and_those_that_are_missing_are_warned_of() {
        let directory = TempDir::new().expect("a directory for the test");
        let directory = directory.path();
        let (group, missing) =
            ("cccccccc-cccc-4ccc-8ccc-cccccccccccc", "dddddddd-dddd-4ddd-8ddd-dddddddddddd");
        let port = format!(
            r#"{{"network":"11111111-1111-4111-8111-111111111111","kind":"vhost-user",
                "socket":"a","mac":"52:54:00:00:00:01",
                "security_groups":["{group}","{missing}"]}}"#
        );
        write(directory, &format!("{NET}.json"), r#"{"type":"local"}"#);
        // The ports of two hosts, which have the same groups.
        for host in ["g", "h"] {
            write(directory, &format!("nodes/{host}/ports/{PORT}.json"), &port);
        }
        let rules = r#"{"rules":[{"direction":"ingress","ports":80}]}"#;
        write(directory, &format!("security-groups/{missing}.json"), rules);
        let rules =
            format!(r#"{{"rules":[{{"direction":"egress","remote_address_group":"{missing}"}}]}}"#);
        write(directory, &format!("security-groups/{group}.json"), &rules);
        write(directory, &format!("group-members/{group}/{PORT}.json"), r#"{"addresses":["x"]}"#);

        let found = check(directory, None);
        assert_eq!(found.iter().filter(|problem| problem.is_error()).count(), 2);
        let waits = |host: &str| {
            format!(
                "nodes/{host}/ports/{PORT}: security_groups[1]: security-groups/{missing} is not \
                 in force; correct what is reported for that group; until then nothing passes this \
                 port"
            )
        };
        assert_eq!(
            said(directory, &found),
            [
                format!(
                    "group-members/{group}/{PORT}: addresses[0]: `x` is not an IP address or \
                     prefix; write an address such as 10.0.0.5, or a prefix such as 10.0.0.0/8 or \
                     2001:db8::/32"
                ),
                waits("g"),
                waits("h"),
                format!(
                    "security-groups/{group}: rules[0].remote_address_group: \
                     address-groups/{missing} is not there; correct the UUID, or add that group; \
                     until then nothing passes the ports of this group"
                ),
                format!(
                    "security-groups/{missing}: rules[0].ports: the rule names no protocol; name \
                     tcp, udp, sctp, dccp or udplite as the protocol, or leave ports out"
                ),
            ]
        );
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let found: Vec<String> =
            check(Path::new("/nowhere"), None).iter().map(Problem::to_string).collect();
        assert_eq!(
            found,
            ["/nowhere: the store's directory is not there; make it: mkdir -p /nowhere"]
        );
    }
}
