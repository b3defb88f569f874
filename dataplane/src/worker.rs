//! The heart: a worker polls its receive queues and sends on what it finds.

use std::sync::Arc;

use vhost::{Burst, Received};

use crate::clock::{Clock, cycles};
use crate::counters::{WorkerCounters, count};
use crate::fdb::Fdb;
use crate::idle::{Idle, Order, Orders};
use crate::mailbox::{Mail, Mailbox, Returned};
use crate::outbox::{Outbox, Unseen};
use crate::packet::Looks;
use crate::pass::{Ends, Pass};
use crate::policy::Left;
use crate::port::Rxq;
use crate::publish::Reader;
use crate::sample::Sampler;
use crate::snapshot::Plan;
use crate::turns::Turns;
use crate::watch::{WatchedBurst, Witness};

/// One poll-mode worker. One thread runs it, pinned to a core of its own.
pub struct Worker {
    number: usize,
    rxqs: Vec<Rxq>,
    turns: Turns,
    plans: Reader<Plan>,
    mailbox: Mailbox,
    fdb: Arc<Fdb>,
    clock: Clock,
    counters: Arc<WorkerCounters>,
    burst: Burst,
    outbox: Outbox,
    looks: Box<Looks>,
    ends: Box<Ends>,
    sampler: Sampler,
    witness: Box<Witness>,
}

/// Queues that one worker can poll.
const RXQS_MAX: usize = 4 * crate::snapshot::PORTS_MAX;

impl Worker {
    /// A worker without queues; they come by mail.
    pub fn new(
        number: usize,
        plans: Reader<Plan>,
        mailbox: Mailbox,
        fdb: Arc<Fdb>,
        clock: Clock,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        Self {
            number,
            rxqs: Vec::with_capacity(RXQS_MAX),
            turns: Turns::default(),
            plans,
            mailbox,
            fdb,
            clock,
            counters,
            burst: Burst::default(),
            outbox: Outbox::default(),
            looks: Box::default(),
            ends: Box::default(),
            sampler: Sampler::default(),
            witness: Box::default(),
        }
    }

    /// One iteration: take the burst of each receive queue, decide about its frames, send; and some more
    /// where much waits while other queues are quiet. Returns how many frames there were.
    pub fn poll(&mut self) -> usize {
        if !self.mailbox.is_empty() {
            self.take_mail();
        }
        let Self {
            number,
            rxqs,
            turns,
            plans,
            fdb,
            clock,
            counters,
            burst,
            outbox,
            looks,
            ends,
            sampler,
            witness,
            ..
        } = self;
        let plan = plans.load();
        let watched = plan.is_watched();
        let start = cycles();
        let now = clock.seconds(start);
        let mut total = 0;
        let mut reached = start;

        let (mut queue, mut bursts) = (0, 0);
        while let Some(Rxq { port: ingress, source, counters: load, .. }) = rxqs.get_mut(queue) {
            let received = Received::take(source.as_mut(), burst);
            let frames = received.frames();
            if frames.is_empty() {
                (queue, bursts) = (queue + 1, 0);
                continue;
            }
            let port = counters.of(*ingress);
            let snapshot = &plan.snapshot;
            let (attached, learner) = (snapshot.port(*ingress), fdb.learner(now));
            let mut pass = Pass { ingress: *ingress, attached, snapshot, learner, counters };
            if watched {
                witness.forget();
            }
            let filters = snapshot.filters();
            let left = if filters { pass.inspect(frames, looks, witness) } else { Left::ALL };
            let mut rest = left.passed & frames.all();
            let mut dropped = |index: usize, reason| {
                port.dropped(reason, 1);
                witness.note(index, reason);
            };
            match pass.home() {
                Some(home) => {
                    if home.settled && left.plain != 0 {
                        pass.plain_frames(frames, left.plain, home, outbox, &mut dropped);
                        rest &= !left.plain;
                    }
                    if rest != 0 {
                        let untagged = rest;
                        rest = pass.untagged_frames(
                            frames,
                            untagged,
                            home,
                            ends,
                            outbox,
                            &mut dropped,
                        );
                    }
                }
                None if fdb.is_large() => pass.foresee(frames),
                None => {}
            }
            while rest != 0 {
                let index = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                if let Err(reason) = pass.frame(index as u8, frames.frame(index), outbox) {
                    dropped(index, reason);
                }
            }
            if filters && let Some(choice) = sampler.choose(frames.len()) {
                pass.count_hits(frames, looks, left, choice);
            }

            if watched {
                let burst =
                    WatchedBurst { worker: *number, plan, counters, frames, from: *ingress };
                let mut sight = witness.look(burst, reached, outbox);
                outbox.flush(*number, plan, frames, looks, counters, &mut sight);
            } else {
                outbox.flush(*number, plan, frames, looks, counters, &mut Unseen);
            }
            port.received(frames.len() as u64, frames.bytes());
            counters.burst(frames.len());
            total += frames.len();
            let before = std::mem::replace(&mut reached, cycles());
            load.burst(frames.len(), reached.wrapping_sub(before));
            bursts += 1;
            if !turns.goes_on(bursts, frames) {
                (queue, bursts) = (queue + 1, 0);
            }
        }
        turns.end(rxqs.len());

        count(&counters.polls, 1);
        if total > 0 {
            count(&counters.busy_polls, 1);
            count(&counters.busy_cycles, reached.wrapping_sub(start));
            count(&counters.frames, total as u64);
        }
        total
    }

    /// Polls until it is ordered to stop.
    pub fn run(mut self, orders: &Orders) {
        loop {
            let order = orders.load();
            let policy = match Orders::read(order) {
                Order::Work(policy) => policy,
                Order::Pause => {
                    orders.wait();
                    continue;
                }
                Order::Stop => return,
            };
            let mut idle = Idle::new(policy);
            idle.prepare_thread();
            while orders.load() == order {
                let frames = self.poll();
                if idle.after_poll(frames) {
                    count(&self.counters.rests, 1);
                }
            }
        }
    }

    #[cold]
    fn take_mail(&mut self) {
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Attach(rxq) if self.rxqs.len() < RXQS_MAX => self.rxqs.push(rxq),
                Mail::Attach(rxq) => self.mailbox.give_back(Returned::Queue(rxq)),
                #[cfg(feature = "dpdk")]
                Mail::Register(eal) => {
                    self.mailbox.give_back(Returned::Registered(eal.register_for_life()));
                }
                Mail::Detach { port, queue } => {
                    let asked = |rxq: &Rxq| {
                        rxq.port == port && queue.is_none_or(|queue| rxq.queue == queue)
                    };
                    while let Some(at) = self.rxqs.iter().position(asked) {
                        let rxq = self.rxqs.swap_remove(at);
                        self.mailbox.give_back(Returned::Queue(rxq));
                    }
                    // What quiet queues left may have been theirs.
                    self.turns = Turns::default();
                    self.mailbox.give_back(Returned::Detached(port));
                }
            }
        }
    }
}
