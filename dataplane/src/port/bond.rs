//! Several devices of one wire as one port: a bond.
//!
//! A bond has one port number, so what is learned is learned at the bond, whichever member it came
//! by. Which member carries what is a few words that the control thread writes and workers read when
//! they send and receive: a member that is lost is left within the next burst, and nobody waits for
//! anybody. What a frame costs here is paid by frames to and from the wire alone.
//!
//! Either one member carries everything and what comes by the others is ignored: switches flood
//! frames to all their ports, so that each would come twice. Or all of them carry, each its share of
//! the flows, as towards a switch that takes the links for one (a static link aggregation). Or those
//! carry that the switch has agreed to by LACP, whose frames are taken out of what members receive
//! ([`slow`]).

pub mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use vhost::{Burst, Frames, Sent, Source, Staged};

use super::{TxPort, own};
use slow::{SlowBox, SlowFrame};

/// The most members of a bond.
pub const MEMBERS_MAX: usize = 8;

/// Classes that flows are told apart in.
const CLASSES: usize = 256;

/// No member carries anything.
const NOBODY: u8 = u8::MAX;

/// The members carry a share each.
const SHARED: u8 = u8::MAX - 1;

/// Who carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriers {
    /// No member: what is to be sent is dropped.
    Nobody,
    /// One member, by its number. What comes by others is ignored.
    One(usize),
    /// The members whose bits are set, each its share of the flows. What comes by any is taken.
    Shared(u8),
    /// What was agreed to by LACP.
    Agreed {
        /// The members that send, a bit for each: each its share of the flows.
        send: u8,
        /// The members by which what comes is taken.
        hear: u8,
    },
}

impl Carriers {
    /// The members that send, a bit for each.
    pub fn senders(self) -> u8 {
        match self {
            Carriers::Nobody => 0,
            Carriers::One(member) => 1 << member,
            Carriers::Shared(send) | Carriers::Agreed { send, .. } => send,
        }
    }
}

/// Who carries what. See the [module's head](self).
pub struct Bond {
    members: Box<[Member]>,
    /// The number of the member that carries everything, [`NOBODY`] or [`SHARED`].
    carrier: AtomicU8,
    /// The member that carries each class of flows, where it is shared.
    classes: Box<[AtomicU8; CLASSES]>,
    /// Slow protocols are spoken: their frames are for [`slow`](Bond::slow).
    speaks: AtomicBool,
}

struct Member {
    /// Whether what comes by it is taken.
    heard: AtomicBool,
    /// Frames that came by it and were ignored.
    ignored: AtomicU64,
    /// Frames of slow protocols that came by it.
    slow: SlowBox,
}

/// The transmit side of a bond, by the members whose devices are open. One that is opened or closed makes
/// another of it, which is published as that of any port: a device is closed when no worker sends by it.
pub struct BondPort {
    bond: Arc<Bond>,
    members: Box<[Option<Arc<dyn TxPort>>]>,
}

/// The receive side of a member.
pub struct BondSource {
    bond: Arc<Bond>,
    member: usize,
    source: Box<dyn Source>,
    /// What was taken out of a burst, up to its release.
    withdrawn: Burst,
}

impl Bond {
    /// A bond of as many members, none of which carries anything.
    ///
    /// # Panics
    /// If they are none, or more than [`MEMBERS_MAX`].
    pub fn new(members: usize) -> Arc<Self> {
        assert!((1..=MEMBERS_MAX).contains(&members), "a bond of {members} members");
        let member = || Member {
            heard: AtomicBool::new(false),
            ignored: AtomicU64::new(0),
            slow: SlowBox::default(),
        };
        Arc::new(Self {
            members: (0..members).map(|_| member()).collect(),
            carrier: AtomicU8::new(NOBODY),
            classes: Box::new(std::array::from_fn(|_| AtomicU8::new(0))),
            speaks: AtomicBool::new(false),
        })
    }

    /// Says who carries frames from now on. Frames of a flow whose member stays the same are not
    /// affected, not even in their order.
    pub fn steer(&self, carriers: Carriers) {
        let (carrier, heard) = match carriers {
            Carriers::Nobody => (NOBODY, 0),
            Carriers::One(member) => (member as u8, 1_u8 << member),
            // A switch that takes the links for one sends each frame by one of them.
            Carriers::Shared(mask) => (self.share_out(mask), u8::MAX),
            Carriers::Agreed { send, hear } => (self.share_out(send), hear),
        };
        for (number, member) in self.members.iter().enumerate() {
            member.heard.store(heard >> number & 1 == 1, Ordering::Relaxed);
        }
        self.carrier.store(carrier, Ordering::Release);
    }

    /// Gives each class of flows one of the members of `mask`. Returns who carries then.
    fn share_out(&self, mask: u8) -> u8 {
        for (class, carrier) in self.classes.iter().enumerate() {
            let chosen = share(class, self.members.len(), mask);
            carrier.store(chosen.map_or(NOBODY, |it| it as u8), Ordering::Relaxed);
        }
        if mask == 0 { NOBODY } else { SHARED }
    }

    /// Says whether frames of slow protocols are kept for [`slow`](Self::slow). Else they are what
    /// they are to any bridge: not to be forwarded.
    pub fn speak(&self, speaks: bool) {
        self.speaks.store(speaks, Ordering::Relaxed);
    }

    /// The next frame of slow protocols that came by a member.
    pub fn slow(&self, member: usize) -> Option<SlowFrame> {
        self.members[member].slow.take()
    }

    /// Frames of slow protocols that came by a member faster than they were taken, and were dropped.
    pub fn slow_lost(&self, member: usize) -> u64 {
        self.members[member].slow.lost()
    }

    /// Frames that came by a member while it was none to be heard.
    pub fn ignored(&self, member: usize) -> u64 {
        self.members[member].ignored.load(Ordering::Relaxed)
    }
}

impl BondPort {
    /// The transmit sides of the bond's members, in their order; none of a member that is not open.
    pub fn new(bond: Arc<Bond>, members: Box<[Option<Arc<dyn TxPort>>]>) -> Self {
        Self { bond, members }
    }

    /// Sends frames of this host's own as those of guests: [`own::send`] says what is asked of them.
    pub fn announce(&self, lane: usize, frames: &[Vec<u8>]) -> u64 {
        own::send(self, lane, frames)
    }

    /// Sends a frame of this host's own by one member, whoever carries frames, before all that is given
    /// to its queue from now on: see [`TxPort::send_first`].
    pub fn send_first(&self, member: usize, lane: usize, frame: &[u8]) -> bool {
        let egress = self.members.get(member).and_then(Option::as_ref);
        egress.is_some_and(|egress| egress.send_first(lane, frame))
    }

    /// Sends a frame of this host's own by one member, whoever carries frames, in its turn. Returns
    /// whether it was sent.
    pub fn send_by_member(&self, member: usize, lane: usize, frame: &[u8]) -> bool {
        let egress = self.members.get(member).and_then(Option::as_ref);
        egress.is_some_and(|egress| own::send(egress.as_ref(), lane, &[frame]) == 1)
    }

    #[inline]
    fn send_by(
        &self,
        member: u8,
        worker: usize,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        sent: &mut Sent,
    ) {
        match self.members.get(usize::from(member)) {
            Some(Some(egress)) => egress.send(worker, frames, staged, sent),
            _ => sent.down += staged.len() as u64,
        }
    }

    /// Each frame by the member of its flow's class. A member gets its frames in their order.
    fn send_shared(&self, worker: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        let mut parts = [0_u64; MEMBERS_MAX];
        let mut left = staged.frames();
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let class = frames.frame(index).flow() >> 24;
            let chosen = self.bond.classes[class as usize % CLASSES].load(Ordering::Relaxed);
            match parts.get_mut(usize::from(chosen)) {
                Some(part) => *part |= 1 << index,
                // The last member was lost while this was going on.
                None => sent.down += 1,
            }
        }
        for (member, part) in (0..).zip(parts).filter(|(_, part)| *part != 0) {
            self.send_by(member, worker, frames, &staged.only(part), sent);
        }
    }
}

impl TxPort for BondPort {
    #[inline]
    fn send(&self, worker: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        match self.bond.carrier.load(Ordering::Acquire) {
            SHARED => self.send_shared(worker, frames, staged, sent),
            member => self.send_by(member, worker, frames, staged, sent),
        }
    }
}

/// The member of `members` that carries a class, of those whose bits are set in `usable`.
///
/// Each class has an order of its own in which it prefers the members, and takes the first that is
/// usable: so a member that is lost takes along no class but its own, and gets these back later.
fn share(class: usize, members: usize, usable: u8) -> Option<usize> {
    let home = class % members;
    let others = members - 1;
    let turn = class / members;
    let other = |at: usize| (home + 1 + (turn + at) % others.max(1)) % members;
    std::iter::once(home).chain((0..others).map(other)).find(|at| usable >> at & 1 == 1)
}

impl BondSource {
    /// What a member of the bond receives by `source`.
    pub fn new(bond: Arc<Bond>, member: usize, source: Box<dyn Source>) -> Self {
        Self { bond, member, source, withdrawn: Burst::default() }
    }

    /// Takes the frames of slow protocols out of a burst that has some.
    #[cold]
    fn take_slow(&mut self, burst: &mut Burst) {
        let mut at = 0;
        while at < burst.len() {
            if slow::is_slow(burst.head(at)) {
                self.bond.members[self.member].slow.put(burst.head(at));
                burst.withdraw(at, &mut self.withdrawn);
            } else {
                at += 1;
            }
        }
        self.source.release(&mut self.withdrawn);
        self.withdrawn.clear();
    }
}

impl Source for BondSource {
    #[inline]
    fn fill(&mut self, burst: &mut Burst) {
        self.source.fill(burst);
        let speaks = self.bond.speaks.load(Ordering::Relaxed);
        if speaks && (0..burst.len()).any(|at| slow::is_slow(burst.head(at))) {
            self.take_slow(burst);
        }
        let member = &self.bond.members[self.member];
        if !burst.is_empty() && !member.heard.load(Ordering::Relaxed) {
            // One worker has the queue, and nobody else adds.
            let ignored = member.ignored.load(Ordering::Relaxed) + burst.len() as u64;
            member.ignored.store(ignored, Ordering::Relaxed);
            self.source.release(burst);
            burst.clear();
        }
    }

    #[inline]
    fn release(&mut self, burst: &mut Burst) {
        self.source.release(burst);
    }
}

#[cfg(test)]
mod tests;
