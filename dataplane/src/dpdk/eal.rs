//! Starting DPDK's environment layer (EAL).
//!
//! EAL is a set of globals in C: it starts once in a process and never ends before it. [`Eal`] is
//! the proof that it runs; whoever needs it asks for one.
//!
//! EAL is started on a thread of its own, which ends at once. EAL makes its caller the *main
//! lcore*: it pins that thread and gives it a cache in every memory pool. Nobody here wants either
//! by accident; threads that want the cache ask for it ([`Eal::register_thread`]). EAL's own helper
//! threads run where the caller of [`Eal::start`] may run, so start it from the control thread,
//! once that has been kept off the workers' cores.
//!
//! Devices are probed by name, later. At start EAL would take hold of every PCI device that one of
//! its drivers knows, network cards that the host uses included, so it is given an allow-list of
//! devices that do not exist.

use std::env;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::Pid;

use super::error::EalError;
use super::{RegisteredThread, errno_name, event, log, thread as registration};

/// Proof that EAL runs in this process.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

/// How EAL starts.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// Take memory from the kernel's huge pages. Without, ordinary pages are taken: enough for
    /// tests and virtual devices, and it needs no privilege.
    pub hugepages: bool,
    /// Memory for frames and DPDK's own tables, in MiB. With huge pages DPDK takes more when it
    /// needs more; without, this is all there ever is.
    pub memory_mib: u32,
    /// Names this process among DPDK's on the machine. No files carry it: none are made.
    pub file_prefix: String,
    /// More of EAL's arguments, as on the command line of any DPDK program; they follow ours.
    pub extra_args: Vec<String>,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            hugepages: true,
            memory_mib: 512,
            file_prefix: "viaduct".to_owned(),
            extra_args: Vec::new(),
        }
    }
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts EAL, for the rest of the process. Takes 0.1 to 0.3 s.
    ///
    /// The calling thread keeps its CPU affinity and is not registered. DPDK's logs go to `tracing`
    /// (target `dpdk`) from here on, those of a failing start included.
    ///
    /// # Errors
    /// An option is unusable, EAL refuses, or EAL was started before (also without success: EAL
    /// leaves globals behind).
    pub fn start(options: &EalOptions) -> Result<Self, EalError> {
        let args = options.args()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        ignore_sigio();
        if !log::redirect() {
            return Err(options.refusal(libc::ENOMEM, "no stream for logs".to_owned()));
        }

        let starter = thread::Builder::new().name("dpdk-start".to_owned());
        let outcome = starter.spawn(move || log::listen(|| init(args)));
        match outcome.map(|thread| thread.join()) {
            Ok(Ok((Ok(()), _))) => {
                event::listen();
                Ok(Self(()))
            }
            Ok(Ok((Err(errno), said))) => Err(options.refusal(errno, said)),
            Ok(Err(_)) => Err(options.refusal(libc::EFAULT, "the starting thread died".to_owned())),
            Err(error) => Err(options.refusal(error.raw_os_error().unwrap_or(0), String::new())),
        }
    }

    /// Registers the calling thread with DPDK until the guard is dropped.
    ///
    /// A registered thread has a cache in every memory pool, which spares it the ring that all
    /// threads share. Pin the thread first: DPDK notes its NUMA node here.
    ///
    /// # Errors
    /// The thread is registered already, or as many threads are as DPDK was built for (128).
    pub fn register_thread(&self) -> Result<RegisteredThread, EalError> {
        RegisteredThread::new()
    }

    /// The same until the calling thread ends.
    ///
    /// # Errors
    /// As of [`register_thread`](Self::register_thread).
    pub fn register_for_life(&self) -> Result<(), EalError> {
        registration::keep(RegisteredThread::new()?);
        Ok(())
    }
}

/// Keeps the process alive when frames come faster than their signals are taken.
///
/// The driver of tap interfaces has the kernel send a real-time signal with each frame. When as many
/// wait as may, the kernel sends SIGIO instead (fcntl(2), F_SETSIG), which ends a process that has not
/// provided for it. Nothing is lost by ignoring it: signals that wait make the driver look.
fn ignore_sigio() {
    // SAFETY: no handler is installed, and none was that anybody here relies on.
    let ignored = unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) };
    if let Err(errno) = ignored {
        tracing::warn!("ignoring SIGIO: {}", errno.desc());
    }
}

/// Calls `rte_eal_init`; the error is its `rte_errno`.
fn init(args: Vec<CString>) -> Result<(), i32> {
    // EAL keeps pointers to some of its arguments and permutes the array: both live for ever.
    let args: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(args.len()).map_err(|_| libc::E2BIG)?;
    let array = Vec::leak([args.as_slice(), &[std::ptr::null_mut()]].concat());
    // SAFETY: `array` holds `count` C strings and a final null, as argv does, and is never freed.
    // STARTED lets one call through in the life of the process.
    let result = unsafe { dpdk_sys::viaduct_eal_init(count, array.as_mut_ptr()) };
    // SAFETY: reads a thread-local of the calling thread, which is the one that called before.
    let errno = unsafe { dpdk_sys::viaduct_errno() };
    remove_runtime_directory();
    if result >= 0 { Ok(()) } else { Err(errno) }
}

/// Removes the directory that EAL makes even when it is told to share nothing, and leaves empty.
fn remove_runtime_directory() {
    // SAFETY: EAL's path, fixed while it parses its arguments and empty before.
    let path = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    // If it is not empty, another process with this prefix uses it; then it is not ours to remove.
    let _ = fs::remove_dir(OsStr::from_bytes(path.to_bytes()));
}

impl EalOptions {
    /// EAL's command line.
    fn args(&self) -> Result<Vec<CString>, EalError> {
        self.check()?;
        let mut args = vec!["viaduct".to_owned()];
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));

        add(&["--file-prefix", &self.file_prefix, "-m", &self.memory_mib.to_string()]);
        // No directory under /run, no telemetry socket, no files on hugetlbfs: nothing is left
        // behind by a process that is killed.
        if self.hugepages {
            add(&["--in-memory", "--no-telemetry"]);
        } else {
            add(&["--no-huge", "--no-shconf", "--no-telemetry"]);
        }
        if let Some(lcores) = main_lcore() {
            add(&["--lcores", &lcores]);
        }
        // PCI: the last function of the last bus of the last domain, where no machine has a device.
        // Auxiliary (mlx5 sub-functions): the empty name stands for none, by that bus's own rule.
        if has_plugin("librte_bus_pci.so") && machine_has_pci() {
            add(&["-a", "ffff:ff:1f.7"]);
        } else {
            add(&["--no-pci"]);
        }
        if has_plugin("librte_bus_auxiliary.so") {
            add(&["-a", "auxiliary:"]);
        }
        args.extend(self.extra_args.iter().cloned());

        let to_c = |arg: String| {
            let reason = format!("{arg:?} has a zero byte inside, remove it");
            CString::new(arg).map_err(|_| EalError::Option { field: "extra_args", reason })
        };
        args.into_iter().map(to_c).collect()
    }

    fn check(&self) -> Result<(), EalError> {
        let refuse = |field, reason: String| Err(EalError::Option { field, reason });
        if self.memory_mib == 0 {
            return refuse("memory_mib", "0 MiB is too little, give 64 or more".to_owned());
        }
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=32).contains(&self.file_prefix.len()) || !self.file_prefix.bytes().all(fit) {
            let reason = format!("{:?} is not 1 to 32 letters, digits or -_.", self.file_prefix);
            return refuse("file_prefix", reason);
        }
        for arg in &self.extra_args {
            // EAL prints its help and ends the process, which a daemon must not do for a typo.
            if arg == "-h" || (arg.len() > 3 && "--help".starts_with(arg.as_str())) {
                return refuse("extra_args", format!("{arg:?} would end the process, remove it"));
            }
        }
        Ok(())
    }

    /// Puts a failed start into words.
    fn refusal(&self, errno: i32, said: String) -> EalError {
        let remedy = match errno {
            libc::ENOMEM | libc::EACCES if self.hugepages => format!(
                "see that {} MiB of huge pages are free (`grep Huge /proc/meminfo`; allocate with \
                 `sysctl vm.nr_hugepages=N`), or set dpdk.hugepages = false",
                self.memory_mib
            ),
            libc::ENOMEM => {
                format!("lower dpdk.memory_mib, now {}, or free memory", self.memory_mib)
            }
            libc::EINVAL | libc::ENODEV if !self.extra_args.is_empty() => {
                format!("check dpdk.extra_args, now {:?}", self.extra_args)
            }
            _ => "the log, target `dpdk`, has the details".to_owned(),
        };
        EalError::Start { reason: errno_name(errno), said, remedy }
    }
}

/// EAL's `--lcores` for one lcore that may run wherever the calling thread may.
///
/// Without it EAL makes a thread for every CPU, and puts its helpers on what the calling thread
/// leaves over, which is where workers are. None if the affinity cannot be read.
fn main_lcore() -> Option<String> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let cpus: Vec<usize> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    // Its number decides on which NUMA node DPDK believes it to be, so a CPU of the set lends it.
    let first = *cpus.first()?;
    let lcore = if first < dpdk_sys::VIADUCT_MAX_LCORES as usize { first } else { 0 };
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    Some(format!("{lcore}@({})", list.join(",")))
}

/// Whether the machine has a PCI bus, without which EAL would not start if it were told to scan it.
fn machine_has_pci() -> bool {
    // DPDK looks elsewhere if this variable says so.
    let path = env::var_os("SYSFS_PCI_DEVICES").unwrap_or_else(|| "/sys/bus/pci/devices".into());
    Path::new(&path).is_dir()
}

/// Where the installed DPDK looks for its drivers.
pub(super) fn plugin_directory() -> &'static str {
    CStr::from_bytes_until_nul(dpdk_sys::RTE_EAL_PMD_PATH)
        .ok()
        .and_then(|path| path.to_str().ok())
        .unwrap_or_default()
}

/// Whether a driver's library is installed; `name` is without the version that follows.
fn has_plugin(name: &str) -> bool {
    let Ok(entries) = fs::read_dir(plugin_directory()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &EalOptions) -> Vec<String> {
        let args = options.args().expect("usable options");
        args.into_iter().map(|arg| arg.into_string().expect("ASCII")).collect()
    }

    #[test]
    fn no_files_are_made_and_nothing_is_probed() {
        let huge = words(&EalOptions::default());
        assert!(huge.contains(&"--in-memory".to_owned()));
        assert!(!huge.contains(&"--no-huge".to_owned()));
        let small = words(&EalOptions { hugepages: false, ..EalOptions::default() });
        assert!(small.contains(&"--no-shconf".to_owned()));
        assert!(small.contains(&"--no-huge".to_owned()));
        // DPDK refuses the two together.
        assert!(!small.contains(&"--in-memory".to_owned()));
        for args in [huge, small] {
            assert!(args.iter().any(|arg| arg == "--no-pci" || arg == "ffff:ff:1f.7"));
        }
    }

    #[test]
    fn the_main_lcore_may_run_where_its_caller_may() {
        let lcores = main_lcore().expect("the affinity can be read");
        let (lcore, cpus) = lcores.split_once('@').expect("an explicit set");
        assert!(cpus.trim_matches(['(', ')']).split(',').any(|cpu| cpu == lcore));
    }

    #[test]
    fn unusable_options_are_named() {
        let good = EalOptions::default();
        let cases = [
            (EalOptions { memory_mib: 0, ..good.clone() }, "memory_mib"),
            (EalOptions { file_prefix: String::new(), ..good.clone() }, "file_prefix"),
            (EalOptions { file_prefix: "a/b".to_owned(), ..good.clone() }, "file_prefix"),
            (EalOptions { extra_args: vec!["-h".to_owned()], ..good.clone() }, "extra_args"),
            (EalOptions { extra_args: vec!["--hel".to_owned()], ..good.clone() }, "extra_args"),
            (EalOptions { extra_args: vec!["a\0b".to_owned()], ..good }, "extra_args"),
        ];
        for (options, at) in cases {
            match options.args() {
                Err(EalError::Option { field, .. }) => assert_eq!(field, at),
                other => panic!("{options:?} gave {other:?}"),
            }
        }
    }
}
