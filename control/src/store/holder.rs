//! Who reports for a host, and whether that process still runs.
//!
//! A lease outlives a daemon that was killed. So that the next one need not wait for its end, what a
//! daemon says of itself tells where it runs closely enough for a process of the same kernel and the
//! same namespace of process ids to see that it is gone. From anywhere else, only the lease tells.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use crate::model::AliveState;

/// What this process says of itself.
pub(super) fn this_process() -> AliveState {
    let pid = std::process::id();
    AliveState {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid,
        machine: this_machine(),
        started_ticks: started_ticks(pid),
        since: Timestamp::now(),
    }
}

/// Whether the process that said this is surely gone.
pub(super) fn is_gone(holder: &AliveState) -> bool {
    let (Some(machine), Some(started)) = (&holder.machine, holder.started_ticks) else {
        return false;
    };
    this_machine().as_ref() == Some(machine) && started_ticks(holder.pid) != Some(started)
}

/// The process, for people.
pub(super) fn described(holder: &AliveState) -> String {
    let AliveState { version, pid, since, .. } = holder;
    let place = if holder.machine.is_some() && holder.machine == this_machine() {
        "of this machine"
    } else {
        "of another machine"
    };
    format!("viaduct {version}, process {pid} {place}, since {since},")
}

/// The kernel's boot and the namespace of process ids.
fn this_machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// When a process started, if it runs: field 22 of proc_pid_stat(5).
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // A zombie runs no more, though it has a number until its parent has looked.
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_process_of_this_machine_can_be_seen_to_be_gone() {
        let me = this_process();
        assert!(!is_gone(&me));
        assert!(is_gone(&AliveState { started_ticks: Some(1), ..me.clone() }), "another of my id");
        let elsewhere = AliveState { machine: Some("x".to_owned()), ..me.clone() };
        assert!(!is_gone(&AliveState { started_ticks: Some(1), ..elsewhere }));
        assert!(!is_gone(&AliveState { machine: None, started_ticks: None, ..me.clone() }));

        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep is there");
        let its = started_ticks(child.id());
        let other = AliveState { pid: child.id(), started_ticks: its, ..me };
        assert!(!is_gone(&other));
        child.kill().expect("a child of ours");
        // Killed and not waited for, it is a zombie or about to be one.
        while started_ticks(other.pid).is_some() {
            std::thread::yield_now();
        }
        assert!(is_gone(&other));
        child.wait().expect("a child of ours");
        assert!(is_gone(&other));
    }
}
