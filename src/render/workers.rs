//! `viaduct show workers` and `viaduct rebalance`.

use control::show::view::{PortRef, RebalanceView, WorkerView};

use super::labels::Labels;
use super::table::Table;
use super::units::{count, mean, percent};

/// Workers, one a line; the last columns are the shares of bursts by the frames in them.
pub fn workers(views: &[WorkerView]) -> String {
    let columns = [
        ">WORKER",
        ">CORE",
        "IDLE",
        ">RXQS",
        ">BUSY",
        ">FRAMES",
        ">CYCLES/FRAME",
        ">BURST",
        ">POLLS",
        ">RESTS",
        ">1",
        ">2-3",
        ">4-7",
        ">8-15",
        ">16-31",
        ">32-63",
        ">64",
    ];
    let mut table = Table::new(&columns, "there are no workers");
    for view in views {
        let work = &view.work;
        let idle = match view.sleep_max_us {
            None => "poll".to_owned(),
            Some(microseconds) => format!("sleep<={microseconds}us"),
        };
        let bursts: u64 = work.bursts.iter().sum();
        let share = |part: &u64| match bursts {
            0 => String::new(),
            _ => percent(*part as f64 * 100.0 / bursts as f64),
        };
        let counts = [
            view.number.to_string(),
            view.core.to_string(),
            idle,
            view.rxqs.len().to_string(),
            percent(view.busy_percent),
            count(work.frames),
            mean(view.cycles_per_frame),
            mean(view.burst_mean),
            count(work.polls),
            count(work.rests),
        ];
        table.row(counts.into_iter().chain(work.bursts.iter().map(share)));
    }
    table.text()
}

/// Receive queues, one a line, by worker and then by what they take of it.
pub fn rxqs(views: &[WorkerView], wide: bool) -> String {
    let labels = Labels::new(wide, views.iter().flat_map(ports), []);
    let columns = [
        ">WORKER",
        ">CORE",
        "PORT",
        ">QUEUE",
        ">LOAD",
        ">CYCLES/FRAME",
        ">BURST",
        ">FRAMES",
        "KEPT-TO",
    ];
    let mut table = Table::new(&columns, "there are no receive queues");
    for view in views {
        let mut rxqs: Vec<_> = view.rxqs.iter().collect();
        rxqs.sort_by(|a, b| b.load_percent.total_cmp(&a.load_percent));
        for rxq in rxqs {
            let cores: Vec<_> = rxq.cores.iter().map(u32::to_string).collect();
            table.row([
                view.number.to_string(),
                view.core.to_string(),
                labels.port(&rxq.port),
                rxq.queue.to_string(),
                percent(rxq.load_percent),
                mean(rxq.cycles_per_frame),
                mean(rxq.burst_mean),
                count(rxq.frames),
                cores.join(","),
            ]);
        }
    }
    table.text()
}

fn ports(view: &WorkerView) -> impl Iterator<Item = &PortRef> {
    view.rxqs.iter().map(|rxq| &rxq.port)
}

/// How receive queues go to other workers, and what comes of it.
pub fn rebalance(view: &RebalanceView) -> String {
    let mut text = format!("by what was received in the last {:.0} s\n\n", view.seconds);
    let mut table = Table::new(&[">WORKER", ">CORE", ">LOAD", ">THEN"], "there are no workers");
    for worker in &view.workers {
        table.row([
            worker.number.to_string(),
            worker.core.to_string(),
            percent(worker.before_percent),
            percent(worker.after_percent),
        ]);
    }
    text += &table.text();
    text.push('\n');
    if view.moves.is_empty() {
        return text + "no queue has to move\n";
    }
    let labels = Labels::new(false, view.moves.iter().map(|it| &it.port), []);
    let columns = ["PORT", ">QUEUE", ">LOAD", ">FROM", ">TO"];
    let mut table = Table::new(&columns, "no queue has to move");
    for it in &view.moves {
        table.row([
            labels.port(&it.port),
            it.queue.to_string(),
            percent(it.load_percent),
            it.from.to_string(),
            it.to.to_string(),
        ]);
    }
    text += &table.text();
    if !view.done {
        text += "\nnothing was done: leave out --dry-run to do it\n";
    }
    text
}
