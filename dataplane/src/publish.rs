//! Published values: the first of the two roads into a worker.
//!
//! A [`Publisher`] replaces a value whole. Each worker has a [`Reader`], which looks at a
//! generation number (one load of a line that changes only with the value) and takes the new value
//! when the number moved. It says which generation it has seen; when all have seen the newest, the
//! publisher drops the old ones, on its own thread. No worker ever waits, not even for the
//! publisher: if the slot is just being written, it goes on with the value that it has.
//!
//! There is no unsafe code here and no epoch scheme: the cost of a `load` is what counts, and it
//! is one comparison.

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock, try_lock};

/// Replaces a value that workers read. Belongs to the control thread.
#[derive(Debug)]
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// The generation that each reader has taken; the largest number for readers that ended.
    seen: Vec<Arc<CachePadded<AtomicU64>>>,
    /// Values that a reader may still use, with the generation that replaced each.
    retired: Vec<(u64, Arc<T>)>,
}

/// A worker's view of a published value.
#[derive(Debug)]
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// Where the publisher reads which generation this reader has.
    seen: Arc<CachePadded<AtomicU64>>,
    generation: u64,
    current: Arc<T>,
}

#[derive(Debug)]
struct Shared<T> {
    generation: CachePadded<AtomicU64>,
    slot: Mutex<(u64, Arc<T>)>,
}

impl<T> Publisher<T> {
    /// A publisher of `value` and as many readers of it as asked for.
    pub fn new(value: T, readers: usize) -> (Self, Vec<Reader<T>>) {
        let shared = Arc::new(Shared {
            generation: CachePadded::new(AtomicU64::new(0)),
            slot: Mutex::new((0, Arc::new(value))),
        });
        let mut publisher = Self { shared, seen: Vec::new(), retired: Vec::new() };
        let readers = (0..readers).map(|_| publisher.join()).collect();
        (publisher, readers)
    }

    /// One more reader, which begins with the value that was published last. It has the next number.
    pub fn join(&mut self) -> Reader<T> {
        let slot = lock(&self.shared.slot);
        let (generation, current) = (slot.0, Arc::clone(&slot.1));
        drop(slot);
        let seen = Arc::new(CachePadded::new(AtomicU64::new(generation)));
        self.seen.push(Arc::clone(&seen));
        Reader { shared: Arc::clone(&self.shared), seen, generation, current }
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.seen.len()
    }

    /// Forgets a reader that has ended. Those after it have a number less.
    pub fn forget(&mut self, reader: usize) {
        self.seen.remove(reader);
    }

    /// Replaces the value. Readers take it at their next load; see [`settle`](Self::settle).
    pub fn publish(&mut self, value: T) {
        let mut slot = lock(&self.shared.slot);
        let generation = slot.0 + 1;
        let (_, old) = std::mem::replace(&mut *slot, (generation, Arc::new(value)));
        drop(slot);
        self.shared.generation.store(generation, Ordering::Release);
        self.retired.push((generation, old));
        self.settle();
    }

    /// Drops the old values that no reader uses any more. Returns whether none is left: then every
    /// reader has the value that was published last.
    pub fn settle(&mut self) -> bool {
        let oldest = self.laggard().map_or(u64::MAX, |(_, generation)| generation);
        self.retired.retain(|(replaced_by, _)| *replaced_by > oldest);
        self.retired.is_empty()
    }

    /// The reader that is furthest behind, with its generation, if there is any reader.
    pub fn laggard(&self) -> Option<(usize, u64)> {
        let seen = self.seen.iter().map(|seen| seen.load(Ordering::Acquire));
        seen.enumerate().min_by_key(|(_, generation)| *generation)
    }
}

impl<T> Reader<T> {
    /// The newest value that could be taken without waiting. To call it again is to say that the
    /// value it gave before is no longer in use.
    #[inline(always)]
    pub fn load(&mut self) -> &T {
        if self.shared.generation.load(Ordering::Acquire) != self.generation {
            self.take();
        }
        &self.current
    }

    #[cold]
    fn take(&mut self) {
        let Some(slot) = try_lock(&self.shared.slot) else { return };
        let (generation, value) = (slot.0, Arc::clone(&slot.1));
        drop(slot);
        // Not the last reference: the publisher keeps the old value until `seen` says otherwise.
        self.current = value;
        self.generation = generation;
        self.seen.store(generation, Ordering::Release);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        // The value itself is still held here for a moment, and then freed by whoever is last.
        self.seen.store(u64::MAX, Ordering::Release);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_reader_sees_the_newest_value_and_the_publisher_drops_the_old() {
        let (mut publisher, mut readers) = Publisher::new(Arc::new(1), 2);
        let old = Arc::downgrade(readers[0].load());
        publisher.publish(Arc::new(2));
        assert!(!publisher.settle());
        assert_eq!(**readers[0].load(), 2);
        assert!(!publisher.settle(), "the other reader has not looked");
        assert_eq!(publisher.laggard(), Some((1, 0)));
        assert!(old.upgrade().is_some());
        readers[1].load();
        assert!(publisher.settle());
        assert!(old.upgrade().is_none());
    }

    #[test]
    fn a_reader_that_ended_holds_nothing_up() {
        let (mut publisher, readers) = Publisher::new(1, 1);
        drop(readers);
        publisher.publish(2);
        assert!(publisher.settle());
    }

    #[test]
    fn a_reader_that_joins_begins_with_the_newest_value() {
        let (mut publisher, mut readers) = Publisher::new(1, 1);
        publisher.publish(2);
        let mut late = publisher.join();
        assert_eq!(*late.load(), 2);
        assert!(!publisher.settle(), "the first has not looked");
        readers[0].load();
        assert!(publisher.settle());
        drop(readers);
        publisher.forget(0);
        publisher.publish(3);
        assert_eq!(publisher.laggard(), Some((0, 1)));
        assert_eq!(*late.load(), 3);
        assert!(publisher.settle());
    }

    #[test]
    fn readers_spin_while_values_are_replaced() {
        struct Checked(u64, u64);
        let (mut publisher, readers) = Publisher::new(Checked(0, 0), 2);
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let value = reader.load();
                        assert_eq!(value.0 * 3, value.1);
                        assert!(value.0 >= last, "values never go back");
                        last = value.0;
                    }
                })
            })
            .collect();
        for at in 1..2000 {
            publisher.publish(Checked(at, at * 3));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(publisher.settle());
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;

    /// A value that must be dropped by the publisher's thread, never by a reader's.
    struct Owned(loom::thread::ThreadId);

    impl Drop for Owned {
        fn drop(&mut self) {
            assert_eq!(loom::thread::current().id(), self.0, "dropped by a reader");
        }
    }

    #[test]
    fn the_publisher_alone_drops_values() {
        loom::model(|| {
            let me = loom::thread::current().id();
            let (mut publisher, mut readers) = Publisher::new(Owned(me), 1);
            let mut reader = readers.pop().expect("one reader");
            let thread = loom::thread::spawn(move || {
                reader.load();
                reader.load();
                reader
            });
            publisher.publish(Owned(me));
            publisher.publish(Owned(me));
            let mut reader = thread.join().expect("no panic");
            reader.load();
            assert!(publisher.settle(), "all were seen");
        });
    }

    #[test]
    fn settled_means_that_the_new_value_is_in_use() {
        loom::model(|| {
            let (mut publisher, mut readers) = Publisher::new(0, 1);
            let mut reader = readers.pop().expect("one reader");
            let thread = loom::thread::spawn(move || *reader.load());
            publisher.publish(1);
            let settled = publisher.settle();
            let read = thread.join().expect("no panic");
            // A reader that ended counts as settled whatever it read.
            assert!(settled || read <= 1);
        });
    }
}
