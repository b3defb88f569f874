//! Rates as tables, or as JSON, for scripts.

use std::io::Write;

use super::rates::{PortRates, Rates};
use super::screen::whole;
use super::view::chosen;
use super::{Wishes, sampler};
use crate::render::labels::Labels;
use crate::render::table::Table;
use crate::render::units::{mean, percent};

/// Writes what happened, this many times. `json`: an object a line.
///
/// # Errors
/// The daemon does not answer, or nobody reads.
pub fn batch(
    wishes: &Wishes,
    times: u32,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), BatchError> {
    let read = || sampler::read_now(&wishes.socket).map_err(BatchError::NoDaemon);
    let mut before = read()?;
    for time in 0..times {
        std::thread::sleep(wishes.interval);
        let now = read()?;
        let mut rates = Rates::between(&before, &now);
        rates.ports = chosen(&rates, wishes.sort, &wishes.filter).into_iter().cloned().collect();
        if json {
            let line = serde_json::to_string(&rates).map_err(std::io::Error::other)?;
            writeln!(out, "{line}")?;
        } else {
            let gap = if time > 0 { "\n" } else { "" };
            write!(out, "{gap}{}", tables(&rates))?;
        }
        out.flush()?;
        before = now;
    }
    Ok(())
}

/// Why there is no more.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The daemon does not answer.
    #[error("{0}")]
    NoDaemon(String),
    /// The output.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

/// Workers, ports and drops, a line each.
pub fn tables(rates: &Rates) -> String {
    let columns =
        [">WORKER", ">CORE", ">RXQS", ">BUSY", ">FRAMES/S", ">CYCLES/FRAME", ">BURST", ">RESTS/S"];
    let mut workers = Table::new(&columns, "there are no workers");
    for it in &rates.workers {
        workers.row([
            it.number.to_string(),
            it.core.to_string(),
            it.rxqs.to_string(),
            percent(it.busy_percent),
            whole(it.frames),
            mean(it.cycles_per_frame),
            mean(it.burst_mean),
            whole(it.rests),
        ]);
    }
    let refs = rates.ports.iter().map(|port| &port.port);
    let networks = rates.ports.iter().filter_map(|port| port.network.as_ref());
    let labels = Labels::new(false, refs.chain(rates.drops.iter().map(|it| &it.port)), networks);
    let columns = [
        "PORT",
        "NETWORK",
        "STATUS",
        ">RX/S",
        ">TX/S",
        ">RX-BIT/S",
        ">TX-BIT/S",
        ">DROPS/S",
        "REASON",
    ];
    let mut ports = Table::new(&columns, "no port");
    for it in &rates.ports {
        let PortRates { port, network, reason, .. } = it;
        ports.row([
            labels.port(port),
            network.as_ref().map(|network| labels.network(network)).unwrap_or_default(),
            it.status.word().to_owned(),
            whole(it.received_frames),
            whole(it.sent_frames),
            whole(it.received_bits),
            whole(it.sent_bits),
            whole(it.dropped_frames),
            reason.clone().unwrap_or_default(),
        ]);
    }
    let mut drops = Table::new(&[">DROPS/S", "PORT", "REASON", "HELP"], "no frame is dropped");
    for it in &rates.drops {
        drops.row([whole(it.frames), labels.port(&it.port), it.reason.clone(), it.help.clone()]);
    }
    format!("{}\n{}\n{}", workers.text(), ports.text(), drops.text())
}
