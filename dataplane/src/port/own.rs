//! Frames of this host's own, which come from no port: they are sent by the control side, as a
//! worker sends those that it has received.

use vhost::{BURST_MAX, Burst, HEAD_MAX, Received, Sent, Source, Staged};

use super::TxPort;

/// Sends frames, complete with their tags, of [`HEAD_MAX`] bytes at most each. `lane` is the number
/// that the control side sends by, as a worker has one. Returns how many were sent. It allocates, and
/// is not for workers.
pub fn send<T: AsRef<[u8]> + Sync>(
    port: &(impl TxPort + ?Sized),
    lane: usize,
    frames: &[T],
) -> u64 {
    let mut burst = Burst::default();
    let mut sent = Sent::default();
    for frames in frames.chunks(BURST_MAX) {
        let mut crier = Crier(frames);
        let received = Received::take(&mut crier, &mut burst);
        let staged = Staged::new(received.frames().all());
        if !staged.is_empty() {
            port.send(lane, received.frames(), &staged, &mut sent);
        }
    }
    sent.frames
}

struct Crier<'a, T>(&'a [T]);

impl<T: AsRef<[u8]> + Sync> Source for Crier<'_, T> {
    fn fill(&mut self, burst: &mut Burst) {
        for frame in self.0 {
            let whole = burst.push_private(frame.as_ref());
            debug_assert!(whole, "at most {HEAD_MAX} bytes, and a burst of them");
        }
    }

    fn release(&mut self, _: &mut Burst) {}
}
