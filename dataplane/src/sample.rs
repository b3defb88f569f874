//! Which frames are counted at their rules: a sample where there are many, as looking for the rule costs
//! as much as all else that is done for several frames.

use vhost::BURST_MAX;

/// See the [module's head](self). What it chooses follows no order that traffic could fall in with.
#[derive(Debug)]
pub(crate) struct Sampler {
    state: u64,
}

/// A frame of a burst that stands for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its index in the burst.
    pub index: usize,
    /// For how many frames it stands, itself among them.
    pub weight: u64,
}

/// Of bursts of so many frames and more, not each is sampled.
const MANY: usize = BURST_MAX / 2;

/// Of those one in eight is, as the logarithm.
const MANY_SHIFT: u32 = 3;

impl Default for Sampler {
    fn default() -> Self {
        Self { state: 1 }
    }
}

impl Sampler {
    /// Chooses a frame of a burst of so many, which must not be none. A frame that comes alone is always
    /// chosen, and stands for itself.
    #[inline(always)]
    pub fn choose(&mut self, frames: usize) -> Option<Choice> {
        // With Knuth's factor for a generator of this kind; the highest bits are the best.
        let state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.state = state;
        let shift = if frames < MANY { 0 } else { MANY_SHIFT };
        if state >> 32 & ((1 << shift) - 1) != 0 {
            return None;
        }
        let index = ((state >> 40) as usize).checked_rem(frames)?;
        Some(Choice { index, weight: (frames as u64) << shift })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_short_bursts_is_counted_to_the_last_frame() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.choose(0), None);
        for frames in (1..MANY).chain([1; 100]) {
            let choice = sampler.choose(frames).expect("each of them is sampled");
            assert_eq!(choice.weight, frames as u64);
            assert!(choice.index < frames);
        }
    }

    #[test]
    fn each_frame_of_long_bursts_stands_for_as_many_on_average() {
        let bursts = 100_000_u64;
        for (frames, every) in [(MANY, 1), (40, 1), (BURST_MAX, 1), (BURST_MAX, 2), (BURST_MAX, 3)]
        {
            let mut sampler = Sampler::default();
            let mut weights = vec![0; frames];
            for _ in 0..bursts {
                // Others come between, always as many.
                for _ in 1..every {
                    let _ = sampler.choose(BURST_MAX);
                }
                if let Some(Choice { index, weight }) = sampler.choose(frames) {
                    weights[index] += weight;
                }
            }
            // Within five times the deviation that chance has.
            let close = |counted: u64, expected: u64, weight: f64| {
                let deviation = (expected as f64 * weight).sqrt();
                (counted as f64 - expected as f64).abs() < 5.0 * deviation
            };
            let weight = (frames << MANY_SHIFT) as f64;
            assert!(weights.iter().all(|counted| close(*counted, bursts, weight)), "{weights:?}");
            assert!(close(weights.iter().sum(), bursts * frames as u64, weight), "{weights:?}");
        }
    }
}
