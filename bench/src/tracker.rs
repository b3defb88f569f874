//! Which frames of a stream have arrived: finds loss, duplicates and reordering.
//!
//! A bitmap of the last 65 536 sequence numbers, so that a frame that comes late is told from one
//! that comes twice. A switch may change the order between flows (switches that sort a burst by
//! flow do), never within one, so only the latter is counted. It does not know what was sent: what
//! is missing at the end is the sender's count minus [`Tracker::arrived`].

const WORDS: usize = 1024;
const WINDOW: u64 = WORDS as u64 * 64;

/// What has been seen of one stream since it began.
#[derive(Debug)]
pub struct Tracker {
    seen: Box<[u64; WORDS]>,
    /// The sequence number after the highest seen.
    next: u64,
    /// The highest word (by sequence number / 64) whose bits belong to the present window.
    top_word: u64,
    flows: u64,
    /// Frames that came for the first time.
    pub arrived: u64,
    /// Frames that had come before.
    pub duplicated: u64,
    /// Frames that came after a later frame of their own flow.
    pub reordered: u64,
    /// Frames so late (65 536 behind) that it is not known whether they came before.
    pub stale: u64,
}

impl Tracker {
    /// A tracker for a stream in which sequence number `n` belongs to flow `n % flows`.
    pub fn new(flows: u32) -> Self {
        Self {
            seen: Box::new([0; WORDS]),
            next: 0,
            top_word: 0,
            flows: u64::from(flows),
            arrived: 0,
            duplicated: 0,
            reordered: 0,
            stale: 0,
        }
    }

    /// Notes the arrival of a frame. Returns whether it came for the first time.
    #[inline(always)]
    pub fn record(&mut self, sequence: u64) -> bool {
        if sequence < self.next {
            return self.record_late(sequence);
        }
        let word = sequence / 64;
        if word != self.top_word {
            self.advance(word);
        }
        self.seen[word as usize % WORDS] |= 1 << (sequence % 64);
        self.next = sequence + 1;
        self.arrived += 1;
        true
    }

    /// Moves the window's upper end to `word` and forgets what the window leaves behind.
    fn advance(&mut self, word: u64) {
        let fresh = (word - self.top_word).min(WORDS as u64);
        for offset in 0..fresh {
            self.seen[(word - offset) as usize % WORDS] = 0;
        }
        self.top_word = word;
    }

    #[cold]
    fn record_late(&mut self, sequence: u64) -> bool {
        if self.top_word - sequence / 64 >= WORDS as u64 {
            self.stale += 1;
            return false;
        }
        if self.has(sequence) {
            self.duplicated += 1;
            return false;
        }
        self.seen[(sequence / 64) as usize % WORDS] |= 1 << (sequence % 64);
        self.arrived += 1;
        let mut successor = sequence + self.flows;
        while successor < self.next && successor < sequence + WINDOW {
            if self.has(successor) {
                self.reordered += 1;
                break;
            }
            successor += self.flows;
        }
        true
    }

    fn has(&self, sequence: u64) -> bool {
        self.seen[(sequence / 64) as usize % WORDS] & 1 << (sequence % 64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(flows: u32, sequences: impl IntoIterator<Item = u64>) -> [u64; 4] {
        let mut tracker = Tracker::new(flows);
        for sequence in sequences {
            let arrived = tracker.arrived;
            let first = tracker.record(sequence);
            assert_eq!(u64::from(first), tracker.arrived - arrived, "frame {sequence}");
        }
        [tracker.arrived, tracker.duplicated, tracker.reordered, tracker.stale]
    }

    #[test]
    fn order_is_kept_over_many_windows() {
        assert_eq!(counts(1, 0..3 * WINDOW + 17), [3 * WINDOW + 17, 0, 0, 0]);
    }

    #[test]
    fn gaps_leave_arrivals_short() {
        assert_eq!(counts(1, (0..10_000).filter(|n| n % 100 != 99)), [9_900, 0, 0, 0]);
    }

    #[test]
    fn the_same_number_twice_is_a_duplicate() {
        assert_eq!(counts(1, [0, 1, 1, 2, 0, 3]), [4, 2, 0, 0]);
    }

    #[test]
    fn an_exchange_within_a_flow_is_reordering() {
        assert_eq!(counts(1, [0, 2, 1, 3]), [4, 0, 1, 0]);
        assert_eq!(counts(3, [0, 1, 2, 6, 3, 4, 5]), [7, 0, 1, 0]);
    }

    #[test]
    fn an_exchange_between_flows_is_not() {
        assert_eq!(counts(3, [0, 2, 1, 4, 3, 5]), [6, 0, 0, 0]);
    }

    #[test]
    fn a_frame_before_the_window_is_stale() {
        assert_eq!(counts(1, [1, 2, WINDOW + 64, 0]), [3, 0, 0, 1]);
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_all_of_it() {
        let far = 5 * WINDOW + 3;
        assert_eq!(counts(1, (0..100).chain([far, far - 100])), [102, 0, 1, 0]);
    }
}
