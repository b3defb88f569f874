//! How what is shown is made of the control side's own values.

use super::view::{
    Counts, ErrorView, PortKind, RxqView, SegmentView, Severity, SocketModeView, Work, WorkerView,
};
use crate::model::{Attachment, Segment, SocketMode, Status};
use crate::problem::{self, Problem};

impl From<&Attachment> for PortKind {
    fn from(attachment: &Attachment) -> PortKind {
        match attachment {
            Attachment::VhostUser { .. } => PortKind::VhostUser,
            Attachment::Ethdev { .. } => PortKind::Ethdev,
            Attachment::Tap { .. } => PortKind::Tap,
            Attachment::VfDirect(_) => PortKind::VfDirect,
        }
    }
}

impl From<&Segment> for SegmentView {
    fn from(segment: &Segment) -> SegmentView {
        match segment {
            Segment::Vlan { physnet, vlan } => {
                SegmentView::Vlan { physnet: physnet.clone(), vlan: vlan.number() }
            }
            Segment::Flat { physnet } => SegmentView::Flat { physnet: physnet.clone() },
            Segment::Local => SegmentView::Local,
        }
    }
}

impl From<SocketMode> for SocketModeView {
    fn from(mode: SocketMode) -> SocketModeView {
        match mode {
            SocketMode::Client => SocketModeView::Client,
            SocketMode::Server => SocketModeView::Server,
        }
    }
}

impl From<&Problem> for ErrorView {
    fn from(problem: &Problem) -> ErrorView {
        let Problem { object, line, field, what, remedy, severity } = problem.clone();
        let severity = match severity {
            problem::Severity::Error => Severity::Error,
            problem::Severity::Warning => Severity::Warning,
        };
        ErrorView { object, line, field, what, remedy, severity }
    }
}

impl WorkerView {
    /// A worker with these counts, and the shares and means that they make.
    pub fn new(
        number: u16,
        core: u32,
        sleep_max_us: Option<u32>,
        rxqs: Vec<RxqView>,
        work: Work,
    ) -> WorkerView {
        let ratio =
            |part: u64, whole: u64| (whole > 0).then(|| rounded(part as f64 / whole as f64));
        WorkerView {
            number,
            core,
            sleep_max_us,
            rxqs,
            busy_percent: ratio(work.busy_cycles.saturating_mul(100), work.cycles).unwrap_or(0.0),
            cycles_per_frame: ratio(work.busy_cycles, work.frames),
            burst_mean: ratio(work.frames, work.bursts.iter().sum()),
            work,
        }
    }
}

/// Two places behind the point: what more there is comes from the moment of asking.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Counts {
    /// Counts one more object.
    pub fn add(&mut self, status: Status) {
        *match status {
            Status::Ready => &mut self.ready,
            Status::Waiting => &mut self.waiting,
            Status::Down => &mut self.down,
            Status::Refused => &mut self.refused,
            Status::Failed => &mut self.failed,
        } += 1;
    }

    /// How many were counted.
    pub fn total(&self) -> u32 {
        self.ready + self.waiting + self.down + self.refused + self.failed
    }
}

impl FromIterator<Status> for Counts {
    fn from_iter<I: IntoIterator<Item = Status>>(statuses: I) -> Counts {
        let mut counts = Counts::default();
        statuses.into_iter().for_each(|status| counts.add(status));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_what_was_counted() {
        let work = Work {
            cycles: 1_000,
            busy_cycles: 333,
            polls: 50,
            busy_polls: 4,
            frames: 9,
            rests: 0,
            bursts: [1, 0, 2, 0, 0, 0, 0],
        };
        let view = WorkerView::new(0, 1, None, Vec::new(), work);
        assert_eq!(view.busy_percent, 33.3);
        assert_eq!((view.cycles_per_frame, view.burst_mean), (Some(37.0), Some(3.0)));

        let view = WorkerView::new(0, 1, None, Vec::new(), Work::default());
        assert_eq!(view.busy_percent, 0.0);
        assert_eq!((view.cycles_per_frame, view.burst_mean), (None, None));
    }

    #[test]
    fn each_status_is_counted_apart() {
        let counts: Counts = [
            Status::Ready,
            Status::Ready,
            Status::Waiting,
            Status::Down,
            Status::Refused,
            Status::Failed,
        ]
        .into_iter()
        .collect();
        let expected = Counts { ready: 2, waiting: 1, down: 1, refused: 1, failed: 1 };
        assert_eq!((counts, counts.total()), (expected, 6));
    }
}
