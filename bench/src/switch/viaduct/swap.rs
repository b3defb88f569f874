//! Replaces a port's rules again and again while frames flow.
//!
//! The next set is one of the others by lot: a switch that only looks at every second swap, as it has
//! not done with the one before, would find the same set each time if two took turns.
//!
//! The sets are written beforehand; a swap is a link and a rename, so that it takes next to
//! nothing from the generator's core, which is the only one left for it on a small machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use super::super::Bed;
use super::store;
use crate::frame::mix;
use crate::rules::{Policy, SEEDS};
use crate::scenario::SWAP_INTERVAL;

/// The port whose rules are replaced: A's, which frames leave by.
const PORT: u16 = 0;

/// Swaps while it runs. Dropping it ends that.
#[derive(Debug)]
pub struct Swapper {
    sets: [PathBuf; 3],
    /// Where a link waits to take the group's place.
    next: PathBuf,
    group: PathBuf,
    /// Swaps so far; [`set_after`] tells which set the group is.
    swaps: Arc<AtomicU64>,
    /// The thread, and what ends it when dropped.
    running: Option<(Sender<()>, JoinHandle<Result<()>>)>,
}

impl Swapper {
    /// Writes all sets and makes the first the group; the store's other files must be there.
    pub fn prepare(bed: &Bed<'_>) -> Result<Self> {
        let sets = [0, 1, 2].map(|set| bed.directory.join(format!("set{set}.json")));
        for (path, seed) in sets.iter().zip(SEEDS) {
            let value = store::group(&Policy::of(bed.scenario, PORT, seed));
            fs::write(path, value.to_string())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        let (next, group) = (bed.directory.join("next.json"), store::group_file(bed, PORT));
        put_in_place(&sets[0], &next, &group)?;
        Ok(Self { sets, next, group, swaps: Arc::default(), running: None })
    }

    /// Begins to swap.
    pub fn start(&mut self) -> Result<()> {
        let (stop, stopped) = mpsc::channel();
        let (sets, next, group) = (self.sets.clone(), self.next.clone(), self.group.clone());
        let swaps = Arc::clone(&self.swaps);
        let swap = move || -> Result<()> {
            let mut set = set_after(swaps.load(Ordering::Relaxed));
            while stopped.recv_timeout(SWAP_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let count = swaps.load(Ordering::Relaxed) + 1;
                set = successor(set, count);
                put_in_place(&sets[set], &next, &group)?;
                swaps.store(count, Ordering::Relaxed);
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("swap".to_owned()).spawn(swap)?;
        self.running = Some((stop, thread));
        Ok(())
    }

    /// Ends it, if it runs. Fails if a set could not be put in place.
    pub fn stop(&mut self) -> Result<()> {
        let Some((stop, thread)) = self.running.take() else { return Ok(()) };
        drop(stop);
        thread.join().map_err(|_| anyhow!("the thread that replaces rules ended badly"))?
    }

    /// How often the rules were replaced so far.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("replacing rules failed: {error:#}");
        }
    }
}

/// Which set the group is after so many swaps.
pub fn set_after(swaps: u64) -> usize {
    (1..=swaps).fold(0, successor)
}

/// Which set follows another by the swap of that number: one of the other two.
fn successor(set: usize, swap: u64) -> usize {
    (set + 1 + (mix(swap) & 1) as usize) % SEEDS.len()
}

fn put_in_place(set: &Path, next: &Path, group: &Path) -> Result<()> {
    fs::hard_link(set, next)
        .and_then(|()| fs::rename(next, group))
        .with_context(|| format!("putting {} in place of {}", set.display(), group.display()))
}
