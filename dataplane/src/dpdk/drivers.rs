//! Loading DPDK's drivers ahead of EAL, on a CPU that has nothing to do yet.
//!
//! EAL loads every driver that is installed, more than a hundred libraries one after the other, which
//! is most of the work that its start takes. What is loaded already costs it next to nothing.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Loads the drivers of a directory on this CPU, and returns when they are. What cannot be loaded, or
/// all of it if the CPU may not be used, is left to EAL, which says what is wrong.
pub(super) fn load_on(cpu: u32, directory: &Path) {
    let libraries = libraries(directory);
    let loader = thread::Builder::new().name("dpdk-load".to_owned()).spawn(move || {
        let mut set = CpuSet::new();
        let moved = set.set(cpu as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        if moved.is_ok() {
            libraries.iter().for_each(|path| load(path));
        }
    });
    if let Ok(loader) = loader {
        // It has nothing to tell, and what it did not load EAL does.
        let _ = loader.join();
    }
}

/// The libraries that EAL would load: those whose names end as those of plugins do.
fn libraries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "so")).collect()
}

fn load(path: &Path) {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: `name` is a C string. The library is one that EAL will load all the same, and is never
    // unloaded; its constructors only enter drivers into lists, which nobody else touches before EAL
    // is started, as `Eal::start` waits for this.
    unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
}

#[cfg(test)]
mod tests {
    use super::super::eal::plugin_directory;
    use super::*;

    #[test]
    fn drivers_are_loaded_if_the_cpu_may_be_used() {
        let loaded = || {
            fs::read_to_string("/proc/self/maps").expect("it is ours").contains("librte_net_ring")
        };
        let directory = Path::new(plugin_directory());
        load_on(u32::MAX, directory);
        assert!(!loaded(), "there is no such CPU");
        load_on(0, Path::new("/nonexistent"));
        assert!(!loaded(), "there is nothing");
        load_on(0, directory);
        assert!(loaded());
    }
}
