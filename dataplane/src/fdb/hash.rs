//! The hash of (domain, address) keys: seeded, so that no guest can aim at a bucket.

use crate::headers::Mac;
use crate::snapshot::DomainId;

/// An address in a domain, and its hash: what all tables of addresses are asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The domain's number and one more in the upper 16 bits, the address in the lower 48: never 0, which
    /// stands for an empty place in all tables.
    pub(crate) key: u64,
    pub(crate) hash: u64,
}

impl Place {
    /// The address.
    #[inline(always)]
    pub fn mac(self) -> Mac {
        Mac::from_bits(self.key)
    }
}

/// The domain of a place's key; none for an empty place.
pub(crate) fn domain_of(key: u64) -> Option<DomainId> {
    DomainId::new(((key >> 48) as usize).checked_sub(1)?)
}

/// The tables' seeded hash: one wide multiplication whose halves are folded together.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    add: u64,
    multiply: u64,
}

impl Hash {
    /// The hash that this seed makes.
    pub fn new(seed: u64) -> Self {
        // Any two well mixed numbers will do; splitmix64's constants mix the seed.
        let mix = |value: u64| {
            let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^ value >> 31
        };
        let add = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self { add, multiply: mix(add.wrapping_add(seed)) | 1 }
    }

    /// Where to look for an address of a domain.
    #[inline(always)]
    pub fn place(&self, domain: DomainId, mac: Mac) -> Place {
        self.of(u64::from(domain.successor()) << 48 | mac.bits())
    }

    #[inline(always)]
    pub(super) fn of(&self, key: u64) -> Place {
        let product = u128::from(key ^ self.add) * u128::from(self.multiply);
        Place { key, hash: (product >> 64) as u64 ^ product as u64 }
    }
}
