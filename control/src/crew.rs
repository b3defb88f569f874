//! The workers' threads: one pinned to each core, started with the daemon and stopped with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::Clock;
use dataplane::counters::WorkerCounters;
use dataplane::dpdk::Eal;
use dataplane::fdb::Fdb;
use dataplane::idle::IdlePolicy;
use dataplane::mailbox::{Mail, Postman, Returned, mailbox};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{Plan, PortId};
use dataplane::worker::Worker;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How often the control thread looks whether workers have done what it asked.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long workers may take before the log says so.
const SLOW: Duration = Duration::from_secs(1);

/// The workers. See the [module's head](self).
pub(crate) struct Crew {
    members: Vec<Member>,
    publisher: Publisher<Plan>,
    stop: Arc<AtomicBool>,
}

/// One worker, as the control thread sees it.
struct Member {
    core: u32,
    postman: Postman,
    counters: Arc<WorkerCounters>,
    thread: JoinHandle<()>,
    /// The port of each receive queue that it was given.
    queues: Vec<PortId>,
}

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting the worker on core {core}: {reason}")]
pub struct CrewError {
    core: u32,
    reason: String,
}

impl Crew {
    /// Starts a worker on each of `cores`. All of them run, or none.
    pub(crate) fn start(
        eal: &'static Eal,
        cores: &[u32],
        idle: IdlePolicy,
        fdb: &Arc<Fdb>,
        clock: Clock,
    ) -> Result<Self, CrewError> {
        let (publisher, readers) = Publisher::new(Plan::default(), cores.len());
        let stop = Arc::new(AtomicBool::new(false));
        let mut members = Vec::new();
        for (number, (&core, plans)) in cores.iter().zip(readers).enumerate() {
            let (postman, mailbox) = mailbox();
            let counters = Arc::new(WorkerCounters::default());
            let (fdb, of_worker) = (Arc::clone(fdb), Arc::clone(&counters));
            let worker = Worker::new(number, plans, mailbox, fdb, clock, of_worker);
            let thread = spawn(eal, number, core, worker, idle, Arc::clone(&stop));
            let thread = thread.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            members.push(Member { core, postman, counters, thread, queues: Vec::new() });
        }
        Ok(Self { members, publisher, stop })
    }

    /// Gives a receive queue to the worker that has the fewest.
    ///
    /// Waits while that worker's box is full.
    pub(crate) async fn attach(&mut self, rxq: Rxq) {
        let member = self.members.iter_mut().min_by_key(|member| member.queues.len());
        let member = member.expect("a crew has workers");
        member.queues.push(rxq.port);
        let mut mail = Mail::Attach(rxq);
        while let Err(back) = member.postman.send(mail) {
            mail = back;
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Takes all receive queues of a port back and drops them, here and not on a worker.
    pub(crate) async fn detach(&mut self, port: PortId) {
        for member in self.members.iter_mut().filter(|member| member.queues.contains(&port)) {
            let mut mail = Mail::Detach(port);
            while let Err(back) = member.postman.send(mail) {
                mail = back;
                tokio::time::sleep(PATIENCE).await;
            }
            let mut slow = Slow::new("give back a queue");
            loop {
                match member.postman.collect() {
                    Some(Returned::Detached(done)) if done == port => break,
                    Some(Returned::Queue(queue)) => drop(queue),
                    Some(Returned::Detached(_)) => {}
                    None => slow.wait(|| format!("worker on core {}", member.core)).await,
                }
            }
            member.queues.retain(|of| *of != port);
        }
    }

    /// Publishes a plan and waits until every worker switches by it and none by an older one.
    pub(crate) async fn publish(&mut self, plan: Plan) {
        self.publisher.publish(plan);
        let mut slow = Slow::new("take a new plan");
        while !self.publisher.settle() {
            let laggard = self.publisher.laggard().and_then(|(at, _)| self.members.get(at));
            let name = || laggard.map_or(String::new(), |member| format!("core {}", member.core));
            slow.wait(name).await;
        }
    }

    /// Each worker's core, counters and receive queues.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (u32, &WorkerCounters, &[PortId])> {
        self.members.iter().map(|member| (member.core, &*member.counters, &*member.queues))
    }

    /// Stops the workers. They drop their queues.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for member in self.members {
            if member.thread.join().is_err() {
                tracing::error!(core = member.core, "the worker had panicked");
            }
        }
    }
}

/// Says so in the log when workers are slow, and waits meanwhile.
struct Slow {
    what: &'static str,
    since: tokio::time::Instant,
    warned: bool,
}

impl Slow {
    fn new(what: &'static str) -> Self {
        Self { what, since: tokio::time::Instant::now(), warned: false }
    }

    async fn wait(&mut self, who: impl FnOnce() -> String) {
        if !self.warned && self.since.elapsed() > SLOW {
            self.warned = true;
            let (who, what) = (who(), self.what);
            tracing::warn!(who, "a worker takes over a second to {what}; is its core shared?");
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

fn spawn(
    eal: &'static Eal,
    number: usize,
    core: u32,
    worker: Worker,
    idle: IdlePolicy,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, CrewError> {
    let failed = |reason: String| CrewError { core, reason };
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            // Registered threads have caches in DPDK's pools; the guard ends with the thread.
            let registered =
                pin(core).and_then(|()| eal.register_thread().map_err(|error| error.to_string()));
            let _registered = match registered {
                Ok(registered) => registered,
                Err(reason) => return started.send(Err(reason)).unwrap_or(()),
            };
            let _ = started.send(Ok(()));
            worker.run(idle, &stop);
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
