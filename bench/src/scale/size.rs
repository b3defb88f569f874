//! How large the installation is that is measured: one host in detail, others around it.

/// Ports of each other host.
pub const OTHER_PORTS: usize = 50;
/// Security groups that each port of the measured host has beside the one that all have.
pub const GROUPS_OF_PORT: usize = 5;

/// Numbers of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Ports of the measured host.
    pub ports: usize,
    /// Security groups that these have, all of them in use.
    pub groups: usize,
    /// Rules of each of these groups.
    pub rules: usize,
    /// Security groups that rules name as the other end.
    pub remote_groups: usize,
    /// Members of these, ports of other hosts.
    pub members: usize,
    /// Other hosts in the same etcd.
    pub others: usize,
}

impl Size {
    /// The host of 200 ports that is to be carried.
    pub const FULL: Size = Size {
        ports: 200,
        groups: 1000,
        rules: 100,
        remote_groups: 100,
        members: 10_000,
        others: 1000,
    };

    /// A host with a tenth of the ports, groups and members, and groups of the same size, among as
    /// many others: what differs from [`Size::FULL`] is what grows with the host.
    pub const TENTH: Size =
        Size { ports: 20, groups: 100, remote_groups: 10, members: 1000, ..Size::FULL };

    /// The same host in an etcd with a tenth of the others: what differs from [`Size::TENTH`] is what
    /// grows with the others.
    pub const LONELY: Size = Size { others: 100, ..Size::TENTH };

    /// For people.
    pub fn describe(&self) -> String {
        format!(
            "{} ports, {} groups, {} rules, {} members in {} remote groups, among {} hosts",
            self.ports,
            self.groups,
            self.groups * self.rules,
            self.members,
            self.remote_groups,
            self.others
        )
    }

    /// The groups that a port of the measured host has, by number; the first is common to all ports.
    pub fn groups_of(&self, port: usize) -> Vec<usize> {
        let own = (0..GROUPS_OF_PORT).map(|turn| (port * GROUPS_OF_PORT + turn) % self.groups);
        std::iter::once(0).chain(own.filter(|group| *group != 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_used() {
        for size in [Size::FULL, Size::TENTH] {
            let used: std::collections::BTreeSet<usize> =
                (0..size.ports).flat_map(|port| size.groups_of(port)).collect();
            assert_eq!(used.len(), size.groups);
        }
    }
}
