//! A burst for a guest with several queues, sorted by the queue that each frame's flow goes to.

use crate::burst::{Frames, Staged};
use crate::device::PAIRS_MAX;

/// See the [module's head](self). Within each queue the frames keep their order.
pub(crate) struct Spread {
    /// The queue pairs to choose from, of which there are `pairs_len`.
    pairs: [u8; PAIRS_MAX as usize],
    pairs_len: usize,
    /// The frames of each, a bit for each frame.
    lanes: [u64; PAIRS_MAX as usize],
}

impl Spread {
    /// Sorts frames over the pairs in `open`, a bit each.
    #[inline]
    pub(crate) fn new(open: u64, frames: Frames<'_>, staged: &Staged<'_>) -> Self {
        let mut pairs = [0; PAIRS_MAX as usize];
        let mut pairs_len = 0;
        let mut left = open;
        while left != 0 {
            pairs[pairs_len] = left.trailing_zeros() as u8;
            pairs_len += 1;
            left &= left - 1;
        }
        let mut lanes = [0; PAIRS_MAX as usize];
        let mut left = staged.frames();
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let flow = frames.frame(index).flow();
            // The upper part of a product: below `pairs_len`, without a division.
            let choice = (u64::from(flow) * pairs_len as u64) >> 32;
            lanes[choice as usize] |= 1_u64 << index;
        }
        Self { pairs, pairs_len, lanes }
    }

    /// Each pair that gets any frames, with these.
    #[inline]
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (usize, u64)> {
        let lanes = self.pairs.iter().zip(&self.lanes).take(self.pairs_len);
        lanes.filter(|(_, lane)| **lane != 0).map(|(pair, lane)| (usize::from(*pair), *lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::{BURST_MAX, Burst, Received, Source};

    /// Frames of as many flows, each head ending in its flow's number.
    struct Flows(Vec<u16>);

    impl Source for Flows {
        fn fill(&mut self, burst: &mut Burst) {
            for flow in &self.0 {
                let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0];
                frame.extend(flow.to_be_bytes());
                frame.extend([0x08, 0x06]);
                assert!(burst.push_private(&frame));
            }
        }

        fn release(&mut self, _burst: &mut Burst) {}
    }

    fn spread(open: u64, flows: &[u16]) -> Vec<(usize, Vec<u8>)> {
        let mut source = Flows(flows.to_vec());
        let mut burst = Burst::default();
        let received = Received::take(&mut source, &mut burst);
        let staged = Staged::new(received.frames().all());
        let spread = Spread::new(open, received.frames(), &staged);
        let indexes = |lane| staged.only(lane).iter().map(|frame| frame.index).collect();
        spread.lanes().map(|(pair, lane)| (pair, indexes(lane))).collect()
    }

    #[test]
    fn every_frame_is_in_one_lane_in_order() {
        let flows: Vec<u16> = (0..BURST_MAX as u16).map(|at| at % 13).collect();
        for open in [0b11, 0b101, 0b1_0000_0110, u64::MAX, 1 << 63 | 1] {
            let lanes = spread(open, &flows);
            assert!(lanes.iter().all(|(pair, _)| open & 1 << pair != 0), "{lanes:?}");
            let mut all: Vec<u8> = lanes.iter().flat_map(|(_, lane)| lane.clone()).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..BURST_MAX as u8), "{lanes:?}");
            for (_, lane) in &lanes {
                assert!(lane.is_sorted(), "{lane:?}");
            }
        }
    }

    #[test]
    fn a_flow_is_on_one_queue_whatever_comes_with_it() {
        let place = |flows: &[u16], wanted: u16| {
            let lanes = spread(0b1111, flows);
            let with = |lane: &[u8]| lane.iter().any(|at| flows[usize::from(*at)] == wanted);
            lanes.iter().filter(|(_, lane)| with(lane)).map(|(pair, _)| *pair).collect::<Vec<_>>()
        };
        for flow in 0..50 {
            let alone = place(&[flow], flow);
            assert_eq!(alone.len(), 1);
            let among: Vec<u16> = (0..60).map(|at| if at % 3 == 0 { flow } else { at }).collect();
            assert_eq!(place(&among, flow), alone);
        }
    }

    #[test]
    fn many_flows_use_every_queue() {
        let flows: Vec<u16> = (0..64).collect();
        assert_eq!(spread(0b1111, &flows).len(), 4);
    }
}
