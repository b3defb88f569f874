//! The Internet checksum (RFC 1071).

/// A sum of 16-bit words in one's complement, over pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    sum: u64,
    /// An odd number of bytes has been added, so the next one is the lower half of a word.
    odd: bool,
}

impl Sum {
    /// Adds one word.
    pub(super) fn word(&mut self, word: u16) {
        debug_assert!(!self.odd, "words stand at even places");
        self.sum += u64::from(word);
    }

    /// Adds what follows.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        // The order of bytes in a word does not matter to the sum as long as it is the same for
        // all (RFC 1071 §2 (B)), so they are added in twos, in the order that is the machine's.
        let mut sum = 0_u64;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let rest = words.remainder();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
        let word = u16::from_be(fold(sum));
        self.sum += u64::from(if self.odd { word.swap_bytes() } else { word });
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum; its complement is the checksum.
    pub(super) fn fold(self) -> u16 {
        fold(self.sum)
    }
}

fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As RFC 1071 §1 defines it, without any cleverness.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let mut sum = Sum::default();
        sum.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    proptest! {
        #[test]
        fn pieces_make_the_sum_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(0_usize..400, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut sum, mut from) = (Sum::default(), 0);
            for cut in cuts {
                sum.bytes(&bytes[from..cut]);
                from = cut;
            }
            let (sum, plain) = (sum.fold(), plain(&bytes));
            // Zero has two forms in one's complement.
            prop_assert!(sum == plain || sum % 0xffff == plain % 0xffff);
        }
    }
}
