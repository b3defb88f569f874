//! What the two ways to lay out a ring differ in.
//!
//! The split ring (virtio 1.2 §2.7) keeps a table of descriptors, a ring of chains that the driver
//! made available and a ring of those that the device used; the packed ring (§2.8) keeps all of it
//! in one ring of descriptors. How bursts are moved, how buffers are found and copied and what is
//! counted is the same for both, and is written once, in [`Ring`](super::ring::Ring), over this
//! trait. It is bound at compile time: no call through a table is made for a frame.
//!
//! Chains are named by places. A place is where a chain begins in what the driver made available,
//! as 16 bits that only the layout understands.

use super::Violation;
use super::chain::{Chain, Descriptor, Head};
use super::seat::Bell;

/// A layout, with its ring's areas and the place that was reached in them. Who makes one vouches
/// that the areas stay mapped for as long as it lives.
pub(super) trait Layout {
    /// Descriptors are linked by their order alone: those of a chain follow each other in the ring
    /// as long as NEXT is set, and an indirect table, which cannot be part of a longer chain, is
    /// read from front to end.
    const POSITIONAL: bool;

    /// A descriptor's fields, from its two words.
    fn descriptor(words: [u64; 2]) -> Descriptor;

    /// Entries.
    fn size(&self) -> u16;

    /// Where the next chain to be taken begins.
    fn next(&self) -> u16;

    /// What is behind `places` places from `place` on, see [`Chain::places`]. They are not more
    /// than the ring has.
    fn after(&self, place: u16, places: u16) -> u16;

    /// What changes when the driver makes something available, if nothing is now that was not taken.
    /// It may ring for nothing, if the driver broke the rules.
    fn bell(&self) -> Bell;

    /// How many chains the driver has made available that were not taken; at most the ring's size,
    /// whatever the driver wrote. Not for every burst.
    fn waiting(&self) -> u16;

    /// Looks for chains and has what belongs to them fetched, for buffers of `direction`: to be
    /// read (0), then any number of them will do, or to be written ([`WRITE`](super::chain::WRITE)),
    /// then `most` are needed. `ahead` chains, all of one descriptor, are between the next one and
    /// the first that is looked for. Returns how many there can be, not more than `most`; it and
    /// `ahead` are at most a burst together.
    fn scout(&mut self, ahead: usize, most: usize, direction: u16) -> Result<usize, Violation>;

    /// Has what will be written to use the next `chains` chains, which are available, brought over.
    /// `direction` as above.
    fn prepare(&self, chains: usize, direction: u16);

    /// The head of one of the chains that [`scout`](Self::scout) found and that were not taken
    /// since; none if there is no chain at this place after all.
    fn scouted(&self, place: u16) -> Result<Option<Head>, Violation>;

    /// The head of the chain at `place`, which is `ahead` chains from the next one; none if the
    /// driver has not made it available.
    fn head(&mut self, place: u16, ahead: u16) -> Result<Option<Head>, Violation>;

    /// The descriptor that follows `descriptor` in a chain at `place`, of which `steps`
    /// descriptors are behind.
    fn linked(
        &self,
        place: u16,
        steps: u16,
        descriptor: Descriptor,
    ) -> Result<Descriptor, Violation>;

    /// The chain that begins with `head` and ends, after `descriptors` in the ring, with `last`.
    fn chain(head: Head, last: Descriptor, descriptors: u16) -> Chain;

    /// Takes the next chain, to be given back by [`complete`](Self::complete). Not more than a
    /// burst of them are taken at a time.
    fn take(&mut self, chain: Chain);

    /// As [`take`](Self::take), of so many chains of one descriptor as there are ids.
    fn take_singles(&mut self, ids: impl ExactSizeIterator<Item = u16>);

    /// How many chains were taken and not given back.
    fn taken(&self) -> usize;

    /// Uses all chains that were taken, in order. Nothing was written to their buffers.
    fn complete(&mut self);

    /// Leaves word of the chains that were taken where the next back-end looks for it, should this
    /// one die before it gives them back: their frames may have been delivered. See
    /// [`resume`](super::resume).
    fn mark(&mut self);

    /// How many chains from the next one on an earlier back-end marked and did not give back, if
    /// the guest tells the truth; at most a burst.
    fn marked(&self) -> usize;

    /// Takes the next chain and uses it at once, with `bytes` bytes written to its buffers.
    fn use_next(&mut self, chain: Chain, bytes: u32);

    /// The same for the chain that is `ahead` behind the next one, of one descriptor as all before
    /// it, which were used so. [`pass`](Self::pass) must follow.
    fn use_single(&mut self, ahead: usize, id: u16, bytes: u32);

    /// Goes on behind the next `chains` chains, which were all used by
    /// [`use_single`](Self::use_single).
    fn pass(&mut self, chains: usize);

    /// Makes the driver see what was used. Returns where it was up to before, or nothing if that
    /// did not change.
    fn publish(&mut self) -> Option<u16>;

    /// Whether the driver wants to be interrupted because of what was published since `from`.
    fn wants_call(&self, from: u16) -> bool;

    /// Where the next chain will be taken from, and where it will be used.
    fn position(&self) -> (u16, u16);
}
