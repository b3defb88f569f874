//! `viaduct show workers`.

use control::show::view::WorkerView;

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
