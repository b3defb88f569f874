//! What ports and networks are called in a table.
//!
//! A name says most to people; what has none is called by the first digits of its UUID, as many as
//! tell the UUIDs of the table apart. In a wide table all are called by their whole UUID.

use control::show::view::{NetworkRef, PortRef};

/// The lengths that a UUID is cut to: where its groups of digits end.
const LENGTHS: [usize; 5] = [8, 13, 18, 23, 36];

/// How to call what is in one table.
pub struct Labels {
    wide: bool,
    length: usize,
}

impl Labels {
    /// Labels for a table in which these are called.
    pub fn new<'a>(
        wide: bool,
        ports: impl IntoIterator<Item = &'a PortRef>,
        networks: impl IntoIterator<Item = &'a NetworkRef>,
    ) -> Labels {
        if wide {
            return Labels { wide, length: 36 };
        }
        let ports = ports.into_iter().filter_map(|port| match port {
            PortRef::Port { uuid, .. } => Some(uuid.to_string()),
            PortRef::Uplink { .. } => None,
        });
        let mut uuids: Vec<String> =
            ports.chain(networks.into_iter().map(|network| network.uuid.to_string())).collect();
        uuids.sort_unstable();
        uuids.dedup();
        let apart =
            |length: &usize| uuids.windows(2).all(|pair| pair[0][..*length] != pair[1][..*length]);
        Labels { wide, length: LENGTHS.into_iter().find(apart).unwrap_or(36) }
    }

    /// A UUID, as much of it as is shown.
    pub fn uuid(&self, uuid: impl ToString) -> String {
        let mut uuid = uuid.to_string();
        uuid.truncate(self.length);
        uuid
    }

    /// What a port is called.
    pub fn port(&self, port: &PortRef) -> String {
        match port {
            PortRef::Port { name: Some(name), .. } if !self.wide => name.to_string(),
            PortRef::Port { uuid, .. } => self.uuid(uuid),
            PortRef::Uplink { physnet } => physnet.to_string(),
        }
    }

    /// What a network is called.
    pub fn network(&self, network: &NetworkRef) -> String {
        match &network.name {
            Some(name) if !self.wide => name.to_string(),
            _ => self.uuid(network.uuid),
        }
    }
}

/// The UUID and the name of a port, as far as it has them.
pub fn identity(port: &PortRef, labels: &Labels) -> (String, String) {
    match port {
        PortRef::Port { uuid, name } => {
            (labels.uuid(uuid), name.as_ref().map(ToString::to_string).unwrap_or_default())
        }
        PortRef::Uplink { physnet } => (String::new(), physnet.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(uuid: &str, name: Option<&str>) -> PortRef {
        PortRef::Port {
            uuid: uuid.parse().expect("a UUID"),
            name: name.map(|name| name.parse().expect("a name")),
        }
    }

    #[test]
    fn uuids_are_as_short_as_they_stay_apart() {
        let (a, b, c) = (
            port("6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d", None),
            port("6f1c0f5e-8a3b-4c58-9d52-000000000000", None),
            port("77777777-8a3b-4c58-9d52-0c7f0b1f2e3d", Some("web")),
        );
        let nobody: [&NetworkRef; 0] = [];
        let labels = Labels::new(false, [&a, &c, &a], nobody);
        assert_eq!([labels.port(&a), labels.port(&c)], ["6f1c0f5e", "web"]);
        let labels = Labels::new(false, [&a, &b, &c], nobody);
        assert_eq!(labels.port(&b), "6f1c0f5e-8a3b-4c58-9d52-000000000000");
        let labels = Labels::new(true, [&a, &c], nobody);
        assert_eq!(labels.port(&c), "77777777-8a3b-4c58-9d52-0c7f0b1f2e3d");
    }
}
