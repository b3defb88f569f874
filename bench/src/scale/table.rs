//! What was measured, as tables: a row for each figure, a column for each size.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::{host, watchers};

/// Of hosts, one column each.
pub fn of_hosts(outcomes: &[host::Outcome]) -> String {
    let mut table = Rows::new();
    table.add("ports", outcomes, |it| it.size.ports.to_string());
    table.add("groups, rules", outcomes, |it| {
        format!("{}, {}", it.size.groups, it.size.groups * it.size.rules)
    });
    table.add("remote members", outcomes, |it| it.size.members.to_string());
    table.add("other hosts", outcomes, |it| it.size.others.to_string());
    for row in 0..outcomes.first().map_or(0, |first| first.times.len()) {
        let name = outcomes[0].times[row].0;
        table.add(name, outcomes, |it| median(&it.times[row].1));
    }
    table.add("in etcd, of this host", outcomes, |it| octets(it.written.0 as f64));
    table.add("in etcd, of all", outcomes, |it| octets(it.written.1 as f64));
    table.add("sent by etcd at the start", outcomes, |it| {
        octets(it.fetched.iter().copied().fold(0.0, f64::max))
    });
    table.add("sent by etcd for a rule changed", outcomes, |it| octets(it.fetched_by_change));
    table.add("sent by etcd after a compaction", outcomes, |it| octets(it.fetched_anew));
    table.add("watches", outcomes, |it| it.watches.to_string());
    table.add("compiled sets of groups", outcomes, |it| it.sets.to_string());
    table.add("memory of compiled rules", outcomes, |it| octets(it.compiled as f64));
    table.add("memory of the daemon", outcomes, |it| octets(it.memory.resident as f64));
    table.add("most of that ever", outcomes, |it| octets(it.memory.peak as f64));
    table.add("huge pages of the daemon", outcomes, |it| octets(it.memory.huge as f64));
    table.add("CPU of the daemon at rest", outcomes, |it| percent(it.idle_cpu));
    table.add("memory of etcd", outcomes, |it| octets(it.etcd.resident));
    table.add("database of etcd", outcomes, |it| octets(it.etcd.database));
    table.text()
}

/// Of many hosts that watch, one column for each number.
pub fn of_watchers(outcomes: &[watchers::Outcome]) -> String {
    let mut table = Rows::new();
    table.add("hosts that watch", outcomes, |it| it.hosts.to_string());
    table.add("watches", outcomes, |it| it.busy.watchers.to_string());
    table.add("until all watch", outcomes, |it| seconds(it.connected));
    table.add("memory of etcd without hosts", outcomes, |it| octets(it.empty.resident));
    table.add("memory of etcd with them", outcomes, |it| octets(it.busy.resident));
    table.add("memory of etcd for each", outcomes, |it| {
        octets((it.busy.resident - it.empty.resident) / it.hosts as f64)
    });
    table.add("CPU of etcd at rest", outcomes, |it| percent(it.idle_cpu));
    table.add("a change, to the one host", outcomes, |it| median(&it.one));
    table.add("a change, to the last of all", outcomes, |it| median(&it.all));
    table.add("CPU of etcd for that", outcomes, |it| {
        seconds(Duration::from_secs_f64(it.all_cpu.max(0.0)))
    });
    table.text()
}

struct Rows(Table);

impl Rows {
    fn new() -> Rows {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN);
        Rows(table)
    }

    fn add<T>(&mut self, name: &str, outcomes: &[T], cell: impl Fn(&T) -> String) {
        let row: Vec<String> =
            std::iter::once(name.to_owned()).chain(outcomes.iter().map(cell)).collect();
        // The sizes are what tells the columns apart.
        if self.0.header().is_none() {
            self.0.set_header(row);
        } else {
            self.0.add_row(row);
        }
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

/// The median, and from where to where.
fn median(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    match times.as_slice() {
        [] => "-".to_owned(),
        [one] => seconds(*one),
        [least, .., most] => {
            let middle = times[times.len() / 2];
            format!("{} ({} to {})", seconds(middle), seconds(*least), seconds(*most))
        }
    }
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn octets(octets: f64) -> String {
    if octets < 1e6 { format!("{:.1} kB", octets / 1e3) } else { format!("{:.1} MB", octets / 1e6) }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_with_its_spread() {
        let times = [30, 10, 20].map(Duration::from_millis);
        assert_eq!(median(&times), "20 ms (10 ms to 30 ms)");
        assert_eq!(median(&times[..1]), "30 ms");
    }
}
