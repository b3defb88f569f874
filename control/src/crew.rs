//! The workers' threads: one pinned to each core, started with the daemon and stopped with it, or
//! when cores come and go; and which of them polls which receive queue.
//!
//! A new queue goes to the worker that has the fewest. What queues cost is known only when they are
//! used, so later an operator may ask for a balance by what they did cost ([`Crew::plan`]), and
//! ports may be kept to some cores by configuration.

mod load;
mod member;
mod pause;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::clock::Clock;
use dataplane::counters::WorkerCounters;
use dataplane::dpdk::{Eal, EalError};
use dataplane::fdb::Fdb;
use dataplane::idle::{IdlePolicy, Orders};
use dataplane::mailbox::{Mail, mailbox};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{Plan, PortId};
use dataplane::worker::Worker;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::balance;
use crate::notify::Heart;
pub(crate) use load::Load;
use member::{Member, Slow};

/// How often the control thread looks whether workers have done what it asked.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long the control thread looks for an answer without a pause.
const PROMPT: Duration = Duration::from_micros(500);

/// The workers. See the [module's head](self).
pub(crate) struct Crew {
    /// DPDK, as soon as it runs.
    eal: Option<Eal>,
    fdb: Arc<Fdb>,
    clock: Clock,
    idle: IdlePolicy,
    members: Vec<Member>,
    publisher: Publisher<Plan>,
    /// Counters of workers that have ended, by their numbers: what they counted of ports counts on,
    /// and the next worker of a number goes on with its counters.
    retired: BTreeMap<usize, Arc<WorkerCounters>>,
    /// The cores that ports are kept to, where they are.
    pins: Pins,
    /// Queues that workers get when they begin, while they wait for that.
    held: Option<Vec<Rxq>>,
}

/// Ports that only the workers on some cores may poll.
pub(crate) type Pins = BTreeMap<PortId, Vec<u32>>;

/// A receive queue that a worker has.
pub(crate) struct Assigned {
    pub(crate) port: PortId,
    /// Its number among the port's queues.
    pub(crate) queue: u16,
    /// What it has cost.
    pub(crate) load: Load,
}

/// A receive queue that is to go to another worker. Workers are given by their place in the crew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) port: PortId,
    pub(crate) queue: u16,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// What it took of its worker's core lately.
    pub(crate) share: f64,
}

/// Who should poll what, see [`Crew::plan`].
#[derive(Debug)]
pub(crate) struct Rota {
    /// What each worker's queues took of its core lately.
    pub(crate) before: Vec<f64>,
    /// The same, had the queues been where they will be.
    pub(crate) after: Vec<f64>,
    pub(crate) transfers: Vec<Transfer>,
}

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting the worker on core {core}: {reason}")]
pub struct CrewError {
    core: u32,
    reason: String,
}

impl Crew {
    /// Starts a worker on each of `cores`. All of them run, or none. If they are `held`, they wait for
    /// [`begin`](Self::begin) before they do anything.
    pub(crate) fn start(
        eal: Option<Eal>,
        cores: &[u32],
        idle: IdlePolicy,
        fdb: &Arc<Fdb>,
        clock: Clock,
        held: bool,
    ) -> Result<Self, CrewError> {
        let (publisher, _) = Publisher::new(Plan::default(), 0);
        let mut crew = Self {
            eal,
            fdb: Arc::clone(fdb),
            clock,
            idle,
            members: Vec::new(),
            publisher,
            retired: BTreeMap::new(),
            pins: Pins::new(),
            held: held.then(Vec::new),
        };
        crew.enlist(cores)?;
        Ok(crew)
    }

    /// Starts a worker on each of these cores, which have none. All of them run, or none. They get
    /// new queues, and others by [`transfer`](Self::transfer).
    pub(crate) fn enlist(&mut self, cores: &[u32]) -> Result<(), CrewError> {
        let before = self.members.len();
        for &core in cores {
            if let Err(error) = self.enlist_one(core) {
                for member in self.members.drain(before..).rev() {
                    self.retired.insert(member.number, Arc::clone(&member.counters));
                    member.stop();
                    self.publisher.forget(self.publisher.readers() - 1);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn enlist_one(&mut self, core: u32) -> Result<(), CrewError> {
        let free = |number: &usize| self.members.iter().all(|member| member.number != *number);
        let number = (0..).find(free).expect("there are more numbers than members");
        let (postman, mailbox) = mailbox();
        let counters = self.retired.remove(&number).unwrap_or_default();
        let orders = Arc::new(match self.held {
            Some(_) => Orders::paused(),
            None => Orders::new(self.idle),
        });
        let (fdb, of_worker) = (Arc::clone(&self.fdb), Arc::clone(&counters));
        let plans = self.publisher.join();
        let worker = Worker::new(number, plans, mailbox, fdb, self.clock, of_worker);
        match spawn(self.eal, number, core, worker, Arc::clone(&orders)) {
            Ok(thread) => {
                let queues = Vec::new();
                self.members.push(Member {
                    number,
                    core,
                    orders,
                    postman,
                    counters,
                    thread,
                    queues,
                });
                Ok(())
            }
            Err(error) => {
                self.publisher.forget(self.publisher.readers() - 1);
                self.retired.insert(number, counters);
                Err(error)
            }
        }
    }

    /// Has all workers use DPDK, which runs now, before they are given anything of it.
    pub(crate) async fn register(&mut self, eal: Eal) -> Result<(), CrewError> {
        for member in &self.members {
            let failed =
                |error: EalError| CrewError { core: member.core, reason: error.to_string() };
            member.register(eal).await.map_err(failed)?;
        }
        self.eal = Some(eal);
        Ok(())
    }

    /// Ends the workers on these cores, once others have their queues. One worker at least must be
    /// left.
    pub(crate) async fn dismiss(&mut self, cores: &[u32]) {
        let leaves = |member: &Member| cores.contains(&member.core);
        for from in 0..self.members.len() {
            if !leaves(&self.members[from]) {
                continue;
            }
            let queues = self.members[from].queues.iter();
            let queues: Vec<_> = queues.map(|it| (it.port, it.queue)).collect();
            for (port, queue) in queues {
                let stays = |at: &usize| !leaves(&self.members[*at]);
                let allowed = self.allowed(port).into_iter().filter(stays);
                let fewest = allowed.min_by_key(|at| self.members[*at].queues.len());
                // A port that is kept to cores of which none is left is polled by anybody.
                let to = fewest.or_else(|| (0..self.members.len()).find(stays));
                let to = to.expect("a worker is left");
                self.transfer(Transfer { port, queue, from, to, share: 0.0 }).await;
            }
        }
        for at in (0..self.members.len()).rev() {
            if leaves(&self.members[at]) {
                let member = self.members.remove(at);
                self.retired.insert(member.number, Arc::clone(&member.counters));
                member.stop();
                self.publisher.forget(at);
            }
        }
    }

    /// Lets all workers be idle like this from now on.
    pub(crate) fn idle(&mut self, idle: IdlePolicy) {
        self.idle = idle;
        self.members.iter().for_each(|member| member.orders.idle(idle));
    }

    /// Gives a receive queue to the worker that has the fewest, of those that may have it.
    pub(crate) async fn attach(&mut self, rxq: Rxq) {
        if let Some(held) = &mut self.held {
            return held.push(rxq);
        }
        let allowed = self.allowed(rxq.port);
        let fewest = allowed.into_iter().min_by_key(|at| self.members[*at].queues.len());
        let member = &mut self.members[fewest.expect("a crew has workers")];
        let load = Load::new(Arc::clone(&rxq.counters));
        member.queues.push(Assigned { port: rxq.port, queue: rxq.queue, load });
        member.send(Mail::Attach(rxq)).await;
    }

    /// Takes all receive queues of a port back and drops them, here and not on a worker.
    pub(crate) async fn detach(&mut self, port: PortId) {
        self.detach_queue(port, None).await;
    }

    /// The same for one of its queues, or for all if none is named.
    pub(crate) async fn detach_queue(&mut self, port: PortId, queue: Option<u16>) {
        let is_it = |its: &Assigned| its.port == port && queue.is_none_or(|it| its.queue == it);
        for member in &mut self.members {
            if member.queues.iter().any(is_it) {
                drop(member.take_back(port, queue).await);
                member.queues.retain(|its| !is_it(its));
            }
        }
    }

    /// Keeps ports to cores from now on. Queues that are elsewhere go to where they may be.
    pub(crate) async fn keep(&mut self, pins: Pins) {
        if self.pins == pins {
            return;
        }
        self.pins = pins;
        for from in 0..self.members.len() {
            let mut strays = Vec::new();
            for assigned in &self.members[from].queues {
                let allowed = self.allowed(assigned.port);
                if !allowed.contains(&from) {
                    strays.push((assigned.port, assigned.queue, allowed));
                }
            }
            for (port, queue, allowed) in strays {
                let fewest = allowed.into_iter().min_by_key(|at| self.members[*at].queues.len());
                let to = fewest.expect("a port may be polled by somebody");
                self.transfer(Transfer { port, queue, from, to, share: 0.0 }).await;
            }
        }
    }

    /// The cores that a port is kept to; none if any will do.
    pub(crate) fn kept_to(&self, port: PortId) -> &[u32] {
        self.pins.get(&port).map_or(&[], Vec::as_slice)
    }

    /// The numbers of the workers that may poll a port, one at least.
    fn allowed(&self, port: PortId) -> Vec<usize> {
        let cores = self.kept_to(port);
        let all = 0..self.members.len();
        let allowed: Vec<_> =
            all.clone().filter(|at| cores.contains(&self.members[*at].core)).collect();
        // Desired state with cores that have no worker is refused; should one come all the same, the
        // port had better be polled by anybody than by nobody.
        if allowed.is_empty() { all.collect() } else { allowed }
    }

    /// Takes note of what queues cost, every now and then.
    pub(crate) fn observe(&mut self, now: u64, rate: u64) {
        for assigned in self.members.iter_mut().flat_map(|member| &mut member.queues) {
            assigned.load.observe(now, rate);
        }
    }

    /// Who should poll what, by what each queue cost lately. Changes nothing.
    pub(crate) fn plan(&self, now: u64) -> Rota {
        let assigned = || {
            let members = self.members.iter().enumerate();
            members.flat_map(|(at, member)| member.queues.iter().map(move |it| (at, it)))
        };
        let mut queues: Vec<_> = assigned()
            .map(|(worker, it)| {
                let share = it.load.recent(now).share();
                balance::Queue { worker, share, allowed: self.allowed(it.port) }
            })
            .collect();
        let workers = self.members.len();
        let before = balance::shares(workers, &queues);
        balance::balance(workers, &mut queues);
        let transfers = assigned().zip(&queues).filter(|((from, _), queue)| *from != queue.worker);
        let transfers = transfers.map(|((from, it), queue)| Transfer {
            port: it.port,
            queue: it.queue,
            from,
            to: queue.worker,
            share: queue.share,
        });
        let transfers = transfers.collect();
        Rota { before, after: balance::shares(workers, &queues), transfers }
    }

    /// Gives a queue to another worker. What comes meanwhile waits in it.
    pub(crate) async fn transfer(&mut self, transfer: Transfer) {
        let Transfer { port, queue, from, to, .. } = transfer;
        let mut rxqs = self.members[from].take_back(port, Some(queue)).await;
        let asked = |assigned: &Assigned| (assigned.port, assigned.queue) == (port, queue);
        let at = self.members[from].queues.iter().position(asked);
        if let (Some(rxq), Some(at)) = (rxqs.pop(), at) {
            let assigned = self.members[from].queues.swap_remove(at);
            self.members[to].queues.push(assigned);
            self.members[to].send(Mail::Attach(rxq)).await;
        }
    }

    /// Publishes a plan and waits until every worker switches by it and none by an older one.
    pub(crate) async fn publish(&mut self, plan: Plan) {
        self.publisher.publish(plan);
        if self.held.is_none() {
            self.settle().await;
        }
    }

    /// Waits until every worker switches by the plan that was published last.
    async fn settle(&mut self) {
        let mut slow = Slow::new("take a new plan");
        let prompt = Instant::now() + PROMPT;
        while !self.publisher.settle() {
            if Instant::now() < prompt {
                std::thread::yield_now();
                continue;
            }
            let laggard = self.publisher.laggard().and_then(|(at, _)| self.members.get(at));
            let name = || laggard.map_or(String::new(), |member| format!("core {}", member.core));
            slow.wait(name).await;
        }
    }

    /// Each worker's number, core, counters and receive queues.
    pub(crate) fn workers(
        &self,
    ) -> impl Iterator<Item = (usize, u32, &WorkerCounters, &[Assigned])> {
        let members = self.members.iter();
        members.map(|it| (it.number, it.core, &*it.counters, &*it.queues))
    }

    /// What workers have counted, those that have ended among them.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        let members = self.members.iter().map(|member| &*member.counters);
        members.chain(self.retired.values().map(|counters| &**counters))
    }

    /// What shows that the workers live.
    pub(crate) fn hearts(&self) -> Vec<Heart> {
        let heart = |it: &Member| Heart { core: it.core, counters: Arc::clone(&it.counters) };
        self.members.iter().map(heart).collect()
    }

    /// Stops the workers. They drop their queues.
    pub(crate) fn stop(self) {
        self.members.iter().for_each(|member| member.orders.stop());
        self.members.into_iter().for_each(Member::stop);
    }
}

fn spawn(
    eal: Option<Eal>,
    number: usize,
    core: u32,
    worker: Worker,
    orders: Arc<Orders>,
) -> Result<JoinHandle<()>, CrewError> {
    let failed = |reason: String| CrewError { core, reason };
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            // A tap interface's driver has a signal come with each frame, which any thread may get.
            // A mask that covers what the kernel never masks is no error.
            let _ = SigSet::all().thread_block();
            let register = |eal: Eal| eal.register_for_life().map_err(|error| error.to_string());
            let ready = pin(core).and_then(|()| eal.map_or(Ok(()), register));
            let runs = ready.is_ok();
            let _ = started.send(ready);
            if runs {
                worker.run(&orders);
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    let outcome = outcome.recv().unwrap_or_else(|_| Err("it ended at once".to_owned()));
    outcome.map_err(failed)?;
    Ok(thread)
}

fn pin(core: u32) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core as usize)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| format!("pinning to the core: {}", errno.desc()))
}
