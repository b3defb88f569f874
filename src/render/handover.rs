//! `viaduct handover`: what it came to.

use control::show::view::{HandoverView, TakenOverView};

/// A line.
pub fn handover(view: &HandoverView) -> String {
    let HandoverView { dry_run, pid, version, guests, prepared_ms, pause_us } = view;
    let guests = plural(*guests);
    if *dry_run {
        return format!(
            "viaduct {version} could take over {guests}; it was ready after {prepared_ms} ms, and is gone \
             again\n"
        );
    }
    let pause = match pause_us {
        Some(pause_us) => format!("no frame moved for {}", milliseconds(*pause_us)),
        None => "it does not say yet how long no frame moved: viaduct show".to_owned(),
    };
    format!(
        "process {pid}, viaduct {version}, goes on with {guests}; it was ready after {prepared_ms} ms, \
         and {pause}\n"
    )
}

/// What a daemon took over, for `viaduct show`.
pub fn taken_over(view: &TakenOverView) -> String {
    let TakenOverView { pid, version, at, guests, pause_us } = view;
    let (guests, pause) = (plural(*guests), milliseconds(*pause_us));
    format!(
        "{guests} from process {pid}, viaduct {version}, at {at:.0}, no frame moved for {pause}"
    )
}

fn plural(guests: u32) -> String {
    format!("{guests} guest{}", if guests == 1 { "" } else { "s" })
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}
