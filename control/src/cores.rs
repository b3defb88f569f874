//! Lists of CPUs: as a configuration or an object has them, and as the kernel writes them.

use std::collections::BTreeSet;

use crate::fields::Fields;

/// The CPUs that the field lists: each once, and one at least. None, with no fault, if it is absent.
pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Vec<u32>> {
    let cores: Vec<u32> =
        fields.list("cores", |fields, name, value| fields.number_from(name, value, 0..=65_535))?;
    if cores.is_empty() {
        fields.fault("cores", "no CPU is listed", "list at least one, or remove the line");
    }
    for (index, core) in cores.iter().enumerate() {
        if cores[..index].contains(core) {
            let what = format!("CPU {core} is listed twice");
            fields.fault(&format!("cores[{index}]"), what, "list each CPU once");
        }
    }
    Some(cores)
}

/// Those of `cores` at which no worker of `workers` runs, with their places in the list. Of workers
/// that are not known nothing can be said.
pub(crate) fn strangers<'a>(
    cores: &'a [u32],
    workers: &'a [u32],
) -> impl Iterator<Item = (usize, u32)> + 'a {
    let unknown = workers.is_empty();
    let cores = cores.iter().copied().enumerate();
    cores.filter(move |(_, core)| !unknown && !workers.contains(core))
}

/// What is said of a CPU without a worker, and what to do about it.
pub(crate) fn stranger_fault(core: u32, workers: &[u32]) -> (String, &'static str) {
    let list: Vec<_> = workers.iter().map(u32::to_string).collect();
    let what =
        format!("CPU {core} has no worker on this host; there are workers on {}", list.join(", "));
    (what, "choose among these, or add it to workers.cores in the configuration and reload it")
}

/// Reads the kernel's form of a set of CPUs: `0-3,8`.
pub(crate) fn parse_cpus(list: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // The bound keeps nonsense from filling the memory; CPU_SETSIZE is 1024.
        if first > last || last > 65_535 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The same, written.
pub(crate) fn print_list(cpus: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

/// The CPUs that the kernel leaves alone unless a thread is put there: those of `isolcpus`. None where
/// the kernel does not tell.
pub(crate) fn isolated() -> BTreeSet<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    parse_cpus(list.trim()).unwrap_or_default()
}
