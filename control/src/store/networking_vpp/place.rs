//! The grammar of networking-vpp's keys, as far as an agent of it reads and writes them.
//!
//! All stand under `/networking-vpp`, which that driver has built in. No other file here puts a key
//! together or takes one apart.

use crate::model::{HostName, PhysnetName, PortUuid, SecurityGroupUuid};
use crate::problem::Misfit;

/// Where all hosts' ports stand.
pub const NODES: &str = "/networking-vpp/nodes";

/// Where that stands which is the same for all hosts.
pub const GLOBAL: &str = "/networking-vpp/global";

/// What a key is of, given that it is below [`NODES`] or [`GLOBAL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `nodes/<host>/ports/<uuid>`.
    Port {
        /// The host, as written.
        host: String,
        /// The port.
        port: PortUuid,
    },
    /// `global/secgroups/<uuid>`.
    Group(SecurityGroupUuid),
    /// `global/remote_group/<group>/<port>`.
    Member(SecurityGroupUuid, PortUuid),
    /// Something of a node that an agent of networking-vpp can carry out and this one cannot, in
    /// words.
    Unsupported(&'static str),
    /// Written for others, or for agents' own use.
    Foreign,
}

impl Place {
    /// What a key is of; a misfit if a part of it is not what stands there.
    pub fn of(key: &str) -> Result<Place, Misfit> {
        if let Some(rest) = below(key, NODES) {
            let parts: Vec<&str> = rest.split('/').collect();
            return match parts[..] {
                [host, "ports", port] => {
                    Ok(Place::Port { host: host.to_owned(), port: port.parse()? })
                }
                // The keepalived script of networking-vpp's own routers.
                [_, "routers", "ha"] => Ok(Place::Foreign),
                [_, "routers", "floatingip", _] => Ok(Place::Unsupported("floating IPs")),
                [_, "routers", ..] => Ok(Place::Unsupported("routers")),
                [_, "trunks", _] => Ok(Place::Unsupported("trunks")),
                [_, "taas_service" | "taas_flow", _] => Ok(Place::Unsupported("tap services")),
                _ => Ok(Place::Foreign),
            };
        }
        let Some(rest) = below(key, GLOBAL) else { return Ok(Place::Foreign) };
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            ["secgroups", group] => Ok(Place::Group(group.parse()?)),
            ["remote_group", group, port] => Ok(Place::Member(group.parse()?, port.parse()?)),
            _ => Ok(Place::Foreign),
        }
    }

    /// Whether a change below `nodes` is of this host.
    pub fn is_of_host(key: &str, host: &HostName) -> bool {
        below(key, NODES).and_then(|rest| rest.split('/').next()) == Some(host.as_str())
    }
}

/// What is right of `parent/` in a key.
pub fn below<'a>(key: &'a str, parent: &str) -> Option<&'a str> {
    key.strip_prefix(parent)?.strip_prefix('/')
}

/// What stands at `nodes/<host>`.
pub fn node(host: &str) -> String {
    format!("{NODES}/{host}")
}

/// The key of a port.
pub fn port(host: &str, port: PortUuid) -> String {
    format!("{NODES}/{host}/ports/{port}")
}

/// The key of a security group.
#[cfg(test)]
pub fn group(group: SecurityGroupUuid) -> String {
    format!("{GLOBAL}/secgroups/{group}")
}

/// The key of a member of a security group.
#[cfg(test)]
pub fn member(group: SecurityGroupUuid, port: PortUuid) -> String {
    format!("{GLOBAL}/remote_group/{group}/{port}")
}

/// Where a host reports.
pub fn state(host: &HostName) -> String {
    format!("/networking-vpp/state/{host}")
}

/// That the host can be given ports.
pub fn alive(host: &HostName) -> String {
    format!("{}/alive", state(host))
}

/// Which process reports for the host. Viaduct's own: the driver passes it over.
pub fn daemon(host: &HostName) -> String {
    format!("{}/daemon", state(host))
}

/// That a physnet can be given networks on this host.
pub fn physnet_state(host: &HostName, physnet: &PhysnetName) -> String {
    format!("{}/physnets/{physnet}", state(host))
}

/// That a port is plugged.
pub fn port_state(host: &HostName, port: PortUuid) -> String {
    format!("{}/ports/{port}", state(host))
}

/// Where all that stands which a host reports: keys, and directories of keys.
pub fn reports(host: &HostName) -> [String; 4] {
    let state = state(host);
    [alive(host), daemon(host), format!("{state}/physnets"), format!("{state}/ports")]
}

/// The port whose state stands at a key.
pub fn port_of_state(host: &HostName, key: &str) -> Option<PortUuid> {
    below(key, &format!("{}/ports", state(host)))?.parse().ok()
}

/// The directories that networking-vpp's agent makes, and that its driver may look into.
pub fn folders(host: &HostName) -> [String; 7] {
    let (node, state) = (node(host.as_str()), state(host));
    [
        format!("{node}/ports"),
        format!("{node}/routers"),
        format!("{node}/trunks"),
        format!("{state}/ports"),
        format!("{state}/physnets"),
        format!("{GLOBAL}/secgroups"),
        format!("{GLOBAL}/remote_group"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";

    #[test]
    fn keys_are_told_apart() {
        let port: PortUuid = UUID.parse().expect("a UUID");
        let group: SecurityGroupUuid = UUID.parse().expect("a UUID");
        let host = || "h".to_owned();
        for (key, place) in [
            (super::port("h", port), Place::Port { host: host(), port }),
            (super::group(group), Place::Group(group)),
            (super::member(group, port), Place::Member(group, port)),
            (format!("{NODES}/h/trunks/{UUID}"), Place::Unsupported("trunks")),
            (format!("{NODES}/h/routers/{UUID}/{UUID}"), Place::Unsupported("routers")),
            (format!("{NODES}/h/routers/floatingip/{UUID}"), Place::Unsupported("floating IPs")),
            (format!("{NODES}/h/routers/ha"), Place::Foreign),
            (format!("{NODES}/h/taas_flow/{UUID}"), Place::Unsupported("tap services")),
            (format!("{GLOBAL}/networks/gpe/5/h/10.0.0.1"), Place::Foreign),
            ("/networking-vpp/election/kick-journal".to_owned(), Place::Foreign),
            ("/networking-vpp/nodesx/h".to_owned(), Place::Foreign),
        ] {
            assert_eq!(Place::of(&key), Ok(place), "{key}");
        }
        for key in [format!("{NODES}/h/ports/x"), format!("{GLOBAL}/remote_group/{UUID}/x")] {
            assert_eq!(Place::of(&key).expect_err(&key).what, "`x` is not a UUID");
        }
        let host: HostName = "h".parse().expect("a name");
        assert!(Place::is_of_host(&super::port("h", port), &host));
        assert!(!Place::is_of_host(&super::port("h2", port), &host));
        assert_eq!(port_of_state(&host, &port_state(&host, port)), Some(port));
    }
}
