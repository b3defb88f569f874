//! The machine under the bench: cores, priority, interruption, and what to write in the report.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use serde::Serialize;

/// The priority of the generator's and the switches' scheduling groups. Below zero, so that other
/// work on the machine yields; far from the lowest, so that the machine stays usable.
const GROUP_NICE: i32 = -15;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Which core does what.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cores {
    /// Runs the load generator, that is, both guests.
    pub generator: usize,
    /// Runs the switch.
    pub switch: usize,
}

impl Cores {
    /// Checks that there are two different cores and that this process may use them.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.generator != self.switch,
            "generator and switch need a core each; both are set to core {}",
            self.switch
        );
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        for core in [self.generator, self.switch] {
            ensure!(
                allowed.is_set(core).unwrap_or(false),
                "core {core} does not exist or is not allowed to this process: choose others with \
                 --generator-core and --switch-core"
            );
        }
        Ok(())
    }

    /// The set of both.
    pub fn both(&self) -> Result<CpuSet> {
        let mut set = CpuSet::new();
        set.set(self.generator).context("the generator's core")?;
        set.set(self.switch).context("the switch's core")?;
        Ok(set)
    }
}

/// What the report says about where it was made.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// The processor's model name.
    pub processor: String,
    /// How many cores are online.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// 2 MiB pages: all.
    pub huge_pages: u64,
    /// 2 MiB pages: free when the bench began.
    pub free_huge_pages: u64,
}

impl Description {
    /// Reads it from the kernel; what cannot be read is left empty.
    pub fn read() -> Self {
        let pages = |name: &str| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
            fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(String::new, |(_, name)| name.to_owned());
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| String::new(), |text| text.trim().to_owned()),
            huge_pages: pages("nr_hugepages"),
            free_huge_pages: pages("free_hugepages"),
        }
    }
}

/// Binds the calling thread to a core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("binding to core {core}"))
}

/// Raises the priority of a process' scheduling group, which is what counts where the kernel groups
/// tasks by session (a task's own nice value only ranks it within its session's group). The process
/// must lead a session of its own, or the group would be somebody else's. Returns why it could not.
pub fn raise_group(process: u32) -> Option<String> {
    let path = format!("/proc/{process}/autogroup");
    fs::write(&path, GROUP_NICE.to_string()).err().map(|error| format!("{path}: {error}"))
}

/// Moves this process to a session of its own and raises that session's priority. Returns why it
/// could not; the results are then more disturbed by other work.
pub fn raise_own_group() -> Option<String> {
    // Fails for the leader of a process group, as a shell makes of every command: then the group is
    // the terminal's, and not ours to raise.
    if let Err(error) = nix::unistd::setsid() {
        return Some(format!("no session of its own ({error})"));
    }
    raise_group(std::process::id())
}

/// How long the calling thread has waited for its core so far, in seconds; 0 where the kernel does
/// not say.
pub fn waited_seconds() -> f64 {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
    nanoseconds.unwrap_or(0) as f64 / 1e9
}

/// Makes SIGINT and SIGTERM end the program by [`check_interrupt`], so that it cleans up.
pub fn catch_interrupts() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        unsafe { sigaction(signal, &action) }.context("catching signals")?;
    }
    Ok(())
}

/// Fails once the user wants the program to end.
#[inline(always)]
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
