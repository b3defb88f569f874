//! `viaduct capture` and `viaduct trace`: frames as they passed.

use control::show::view::{CourseView, EndView, FrameView, PortRef, Side, StationOrigin};

use super::table::plain;
use super::trial;

/// A line about a frame, which `words` describe.
pub fn frame(view: &FrameView, words: &str) -> String {
    let way = match view.side {
        Side::Ingress => format!("from {}", port_name(&view.port)),
        Side::Egress => format!("{} to {}", port_name(&view.from), port_name(&view.port)),
    };
    let reason = view.reason.as_ref().map(|reason| format!(", dropped: {reason}"));
    let time = time(view.unix_nanoseconds);
    let line =
        format!("{time}  {way}: {words}, {} octets{}", view.octets, reason.unwrap_or_default());
    format!("{}\n", plain(&line))
}

/// A frame, and the steps that its worker took.
pub fn course(view: &CourseView) -> String {
    let head = format!(
        "{}  worker {}: {}, {} octets",
        time(view.unix_nanoseconds),
        view.worker,
        view.trial.frame,
        view.length
    );
    let mut text = format!("{}\n", plain(&head));
    let known = view.destination.map(|destination| match destination {
        StationOrigin::Static => "the address is a port's own",
        StationOrigin::Learned => "the address was learned",
        StationOrigin::Unknown => "the address is not known: to all others",
        StationOrigin::Group => "the address is of a group: to all others",
    });
    let steps = trial::steps(&view.trial, known);
    text.extend(steps.lines().map(|line| format!("  {line}\n")));
    if view.missing > 0 {
        text += &format!("  what became of it at {} more ports was not recorded\n", view.missing);
    }
    text
}

/// How it ended.
pub fn end(view: &EndView, what: &str) -> String {
    let mut text = format!("{} {what}; {}\n", view.given, view.why);
    for lost in &view.lost {
        text += &format!(
            "{} lost at {}: they came faster than they were read\n",
            lost.frames,
            port_name(&lost.port)
        );
    }
    if view.unread > 0 {
        text += &format!("{} more were not read in time\n", view.unread);
    }
    text
}

/// What people call a port.
pub fn port_name(port: &PortRef) -> String {
    match port {
        PortRef::Port { name: Some(name), .. } => name.to_string(),
        PortRef::Port { uuid, .. } => uuid.to_string(),
        PortRef::Uplink { physnet } => physnet.to_string(),
    }
}

/// The time of the day, of UTC.
fn time(unix_nanoseconds: u64) -> String {
    let (seconds, micros) =
        (unix_nanoseconds / 1_000_000_000, unix_nanoseconds % 1_000_000_000 / 1000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}
