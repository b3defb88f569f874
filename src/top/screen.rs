//! Draws a view.
//!
//! From top to bottom: the daemon at a glance, workers, ports, why most frames die, and the keys. A
//! small terminal shows fewer ports and narrower lines; nothing wraps.

use control::model::Status;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::rates::{PortRates, Rates, WorkerRates};
use super::view::View;
use crate::render::labels::Labels;
use crate::render::table::plain;
use crate::render::units::{count, mean, percent, time};

/// Columns of a sparkline.
const SPARK: usize = 20;

/// Lines of reasons why frames die.
const REASONS: u16 = 3;

/// Draws the view into all of the terminal.
pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let workers = view.rates.as_ref().map_or(1, |rates| rates.workers.len() as u16 + 1);
    // Many workers leave room for ports.
    let workers = workers.min(frame.area().height / 3);
    let [head, state, of_workers, _, of_ports, _, of_drops, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(workers),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
        Constraint::Length(REASONS + 1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(glance(view), head);
    frame.render_widget(daemon_state(view), state);
    match &view.rates {
        None => frame.render_widget(Paragraph::new("reading for the first time").dim(), of_ports),
        Some(rates) => {
            frame.render_widget(worker_table(view, rates), of_workers);
            frame.render_widget(drop_lines(rates), of_drops);
            draw_ports(frame, view, of_ports);
        }
    }
    frame.render_widget(key_line(view), keys);
}

fn glance(view: &View) -> Paragraph<'static> {
    let summary = view.summary();
    let ports = &summary.ports;
    let text = format!(
        "viaduct {} on {}, up {}   {} of {} ports ready   {}",
        summary.version,
        summary.host,
        time(summary.uptime_seconds),
        ports.ready,
        ports.total(),
        match summary.errors {
            0 => "no error".to_owned(),
            1 => "1 error: viaduct show errors".to_owned(),
            errors => format!("{errors} errors: viaduct show errors"),
        }
    );
    Paragraph::new(plain(&text)).bold()
}

fn daemon_state(view: &View) -> Paragraph<'static> {
    if let Some((since, why)) = &view.away {
        let text =
            format!("the daemon is away since {} ago: {why}", time(since.elapsed().as_secs()));
        return Paragraph::new(plain(&text)).fg(Color::Red);
    }
    let interval = view.rates.as_ref().map(|rates| format!("every {:.1} s", rates.seconds));
    let paused = if view.paused { ", PAUSED" } else { "" };
    Paragraph::new(format!("{}{paused}", interval.unwrap_or_default())).dim()
}

fn worker_table(view: &View, rates: &Rates) -> Table<'static> {
    let row = |rates: &WorkerRates| {
        let busy = view.history_of_worker(rates.core);
        let color = if rates.busy_percent > 95.0 { Color::Red } else { Color::Green };
        Row::new([
            right(rates.number.to_string()),
            right(rates.core.to_string()),
            right(rates.rxqs.to_string()),
            right(percent(rates.busy_percent)),
            Cell::from(spark(&busy, Some(100))).fg(color),
            right(whole(rates.frames)),
            right(mean(rates.cycles_per_frame)),
            right(mean(rates.burst_mean)),
            right(whole(rates.rests)),
        ])
    };
    let widths = [6, 4, 4, 6, SPARK as u16, 8, 12, 6, 8].map(Constraint::Length);
    let header = [
        right("WORKER".to_owned()),
        right("CORE".to_owned()),
        right("RXQS".to_owned()),
        right("BUSY".to_owned()),
        Cell::from(""),
        right("FRAMES/S".to_owned()),
        right("CYCLES/FRAME".to_owned()),
        right("BURST".to_owned()),
        right("RESTS/S".to_owned()),
    ];
    Table::new(rates.workers.iter().map(row), widths)
        .header(Row::new(header).bold())
        .column_spacing(2)
}

fn draw_ports(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let ports = view.ports();
    let shown = usize::from(area.height.saturating_sub(1));
    let above = view.above.min(ports.len().saturating_sub(shown));
    let refs = ports.iter().map(|port| &port.port);
    let labels = Labels::new(false, refs, ports.iter().filter_map(|port| port.network.as_ref()));
    let row = |port: &&PortRates| {
        let frames = view.history_of_port(&port.port);
        let network = port.network.as_ref().map(|network| labels.network(network));
        let dying = if port.dropped_frames > 0.0 { Color::Red } else { Color::Reset };
        Row::new([
            Cell::from(plain(&labels.port(&port.port))),
            Cell::from(plain(&network.unwrap_or_default())),
            Cell::from(port.status.word()).fg(match port.status {
                Status::Ready => Color::Green,
                Status::Waiting | Status::Down => Color::Yellow,
                Status::Refused | Status::Failed => Color::Red,
            }),
            right(whole(port.received_frames)),
            right(whole(port.sent_frames)),
            right(whole(port.received_bits)),
            right(whole(port.sent_bits)),
            Cell::from(spark(&frames, None)).fg(Color::Cyan),
            right(whole(port.dropped_frames)).fg(dying),
            Cell::from(port.reason.clone().unwrap_or_default()).fg(dying),
        ])
    };
    let rows: Vec<_> = ports.iter().skip(above).take(shown).map(row).collect();
    let widths = [
        Constraint::Length(16),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(SPARK as u16),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let header = [
        Cell::from("PORT"),
        Cell::from("NETWORK"),
        Cell::from("STATUS"),
        right("RX/S".to_owned()),
        right("TX/S".to_owned()),
        right("RX-BIT/S".to_owned()),
        right("TX-BIT/S".to_owned()),
        Cell::from("FRAMES"),
        right("DROPS/S".to_owned()),
        Cell::from("REASON"),
    ];
    let table = Table::new(rows, widths).header(Row::new(header).bold()).column_spacing(2);
    frame.render_widget(table, area);
    view.above = above;
}

/// Why most frames die, and what that means.
fn drop_lines(rates: &Rates) -> Paragraph<'static> {
    let refs = rates.drops.iter().map(|rate| &rate.port);
    let labels = Labels::new(false, refs, []);
    let line = |rate: &super::rates::DropRate| {
        let text =
            format!("{}/s  {} at {}", whole(rate.frames), rate.reason, labels.port(&rate.port));
        Line::from(vec![
            Span::from(plain(&text)).fg(Color::Red),
            Span::from(format!("  {}", plain(&rate.help))).dim(),
        ])
    };
    let title = if rates.drops.is_empty() { "no frame is dropped" } else { "most frames die of" };
    let lines = rates.drops.iter().take(usize::from(REASONS)).map(line);
    Paragraph::new(std::iter::once(Line::from(title).bold()).chain(lines).collect::<Vec<_>>())
}

fn key_line(view: &View) -> Paragraph<'static> {
    let text = match (view.typing, view.filter.is_empty()) {
        (true, _) => format!("filter: {}_   enter: done   esc: all ports", plain(&view.filter)),
        (false, true) => keys(view, "/ filter"),
        (false, false) => keys(view, &format!("/ filter [{}]", plain(&view.filter))),
    };
    Paragraph::new(text).style(Style::new().reversed())
}

fn keys(view: &View, filter: &str) -> String {
    format!("q quit   s sort [{}]   {filter}   p pause   up/down scroll", view.sort.name())
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

/// A rate, as a count.
pub fn whole(rate: f64) -> String {
    // What is not nothing does not look like it.
    if rate > 0.0 && rate < 0.5 { "<1".to_owned() } else { count(rate.round() as u64) }
}

/// The newest values as bars, the highest of them or `most` as a full one.
fn spark(values: &[u64], most: Option<u64>) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest = &values[values.len().saturating_sub(SPARK)..];
    let most = most.or_else(|| newest.iter().copied().max()).unwrap_or(0).max(1);
    let bar = |value: &u64| {
        let height = (u128::from(*value) * 8).div_ceil(u128::from(most)).min(8);
        BARS[height as usize]
    };
    let bars: String = newest.iter().map(bar).collect();
    format!("{bars:>SPARK$}")
}
