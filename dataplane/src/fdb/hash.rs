//! The hash of (domain, address) keys: seeded, so that no guest can aim at a bucket.

use crate::headers::Mac;
use crate::snapshot::DomainId;

/// Domain in the upper 16 bits, address in the lower 48. Never 0 for an address that is not zero.
#[inline(always)]
pub(crate) fn address_key(domain: DomainId, mac: Mac) -> u64 {
    (domain.index() as u64) << 48 | mac.bits()
}

/// A seeded hash: one wide multiplication whose halves are folded together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash {
    add: u64,
    multiply: u64,
}

impl Hash {
    pub(crate) fn new(seed: u64) -> Self {
        // Any two well mixed numbers will do; splitmix64's constants mix the seed.
        let mix = |value: u64| {
            let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^ value >> 31
        };
        let add = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self { add, multiply: mix(add.wrapping_add(seed)) | 1 }
    }

    #[inline(always)]
    pub(crate) fn of(&self, key: u64) -> u64 {
        let product = u128::from(key ^ self.add) * u128::from(self.multiply);
        (product >> 64) as u64 ^ product as u64
    }
}
