//! Addresses that desired state gives: where a guest's own address is needs no learning, and no
//! other guest can take it over by claiming it.

use crate::fdb::{Hash, Place, domain_of};
use crate::headers::Mac;
use crate::snapshot::{DomainId, PortId};

/// An immutable hash table from (domain, address) to port. Open addressing, at most a quarter full:
/// most answers, and most misses, take one look.
#[derive(Debug)]
pub struct Stations {
    mask: usize,
    /// 0 stands for an empty place: no key is zero.
    entries: Box<[(u64, PortId)]>,
}

impl Default for Stations {
    fn default() -> Self {
        Self::build(&[], Hash::new(0))
    }
}

impl Stations {
    /// The table of these addresses. Of an address that occurs twice in a domain the first counts.
    pub fn build(addresses: &[(DomainId, Mac, PortId)], hash: Hash) -> Self {
        let places = (4 * addresses.len()).next_power_of_two().max(2);
        let nobody = PortId::new(0).expect("there can be a port 0");
        let mut table =
            Self { mask: places - 1, entries: vec![(0, nobody); places].into_boxed_slice() };
        for &(domain, mac, port) in addresses {
            let Place { key, hash } = hash.place(domain, mac);
            let mut at = hash as usize & table.mask;
            while table.entries[at].0 != 0 && table.entries[at].0 != key {
                at = (at + 1) & table.mask;
            }
            if table.entries[at].0 == 0 {
                table.entries[at] = (key, port);
            }
        }
        table
    }

    /// The port that the address is behind, if desired state says so. The place must come from the
    /// hash that the table was built with.
    #[inline(always)]
    pub fn find(&self, place: Place) -> Option<PortId> {
        let mut at = place.hash as usize & self.mask;
        // Ends: most of the places are empty.
        loop {
            let (entry, port) = self.entries[at];
            if entry == place.key {
                return Some(port);
            }
            if entry == 0 {
                return None;
            }
            at = (at + 1) & self.mask;
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (DomainId, Mac, PortId)> {
        self.entries
            .iter()
            .filter(|(key, _)| *key != 0)
            .filter_map(|&(key, port)| Some((domain_of(key)?, Mac::from_bits(key), port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_their_domain_only() {
        let domain = |number| DomainId::new(number).unwrap();
        let port = |number| PortId::new(number).unwrap();
        let all: Vec<_> =
            (0..500).map(|n| (domain(n % 7), Mac::from_bits(n as u64 / 7 + 1), port(n))).collect();
        for seed in [0, 1, u64::MAX] {
            let hash = Hash::new(seed);
            let stations = Stations::build(&all, hash);
            for &(domain, mac, port) in &all {
                assert_eq!(stations.find(hash.place(domain, mac)), Some(port));
            }
            assert_eq!(stations.find(hash.place(domain(7), Mac::from_bits(1))), None);
            assert_eq!(stations.iter().count(), all.len());
        }
        // The least address of the first domain is nobody's, and no place that is empty.
        let table = Stations::build(&all, Hash::new(0));
        assert_eq!(table.find(Hash::new(0).place(domain(0), Mac::from_bits(0))), None);
        assert_eq!(
            Stations::default().find(Hash::new(0).place(domain(0), Mac::from_bits(1))),
            None
        );
    }
}
