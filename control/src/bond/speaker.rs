//! LACP as a bond speaks it: frames that its members received and are to send, counted, and told of in
//! the log.

use std::time::{Duration, Instant};

use dataplane::port::bond::Bond;
use dataplane::port::bond::slow::{FRAMES_MAX, SlowFrame};

use super::lacp::{Lacp, LacpRecord, LacpRules, LacpStatus, Look, Malformed, SlowPdu, Why};
use crate::model::{Devargs, PhysnetName};

/// How long a member has carried nothing for one reason before that is told: as they begin, two ends
/// go through some of these.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a member has received, as much as its box holds: who sends faster than that is read keeps
/// nobody busy.
pub(super) fn letters(bond: &Bond, member: usize) -> impl Iterator<Item = SlowFrame> {
    (0..FRAMES_MAX).map_while(move |_| bond.slow(member))
}

/// Where a frame's source address stands.
const SOURCE: std::ops::Range<usize> = 6..12;

/// See the [module's head](self).
pub(super) struct Speaker {
    lacp: Lacp,
    members: Vec<Member>,
    /// Answers to markers, by the members' numbers.
    answers: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Member {
    counts: Counts,
    why: Option<Why>,
    since: Instant,
    told: bool,
}

/// Frames of slow protocols of a member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Markers that were answered.
    pub(crate) markers: u64,
    pub(crate) malformed: u64,
    /// What was wrong with the last of these.
    pub(crate) fault: Option<Malformed>,
}

impl Speaker {
    pub(super) fn new(rules: LacpRules, members: usize, now: Instant) -> Speaker {
        let member = Member { counts: Counts::default(), why: None, since: now, told: true };
        let members = vec![member; members];
        Speaker { lacp: Lacp::new(rules, members.len(), now), members, answers: Vec::new() }
    }

    pub(super) fn lacp(&mut self) -> &mut Lacp {
        &mut self.lacp
    }

    pub(super) fn resume(&mut self, record: &LacpRecord, now: Instant) {
        self.lacp.resume(record, now);
    }

    pub(super) fn status(&self, now: Instant) -> LacpStatus {
        self.lacp.status(now)
    }

    pub(super) fn record(&self, now: Instant) -> Option<LacpRecord> {
        self.lacp.record(now)
    }

    pub(super) fn counts(&self, member: usize) -> Counts {
        self.members[member].counts
    }

    /// Takes what has come, and does what follows of it, of the links and of time.
    pub(super) fn run(&mut self, bond: &Bond, now: Instant, looks: &[Look]) {
        // A frame speaks of a link that is up, so this is known first.
        self.lacp.run(now, looks);
        for (at, member) in self.members.iter_mut().enumerate() {
            let counts = &mut member.counts;
            for frame in letters(bond, at) {
                match SlowPdu::parse(frame.bytes()) {
                    Ok(SlowPdu::Lacp(pdu)) => {
                        counts.received += 1;
                        self.lacp.hear(at, &pdu, now);
                    }
                    Ok(SlowPdu::Marker(answer)) => self.answers.push((at, answer.to_vec())),
                    Ok(SlowPdu::MarkerResponse) => {}
                    Err(fault) => {
                        counts.malformed += 1;
                        counts.fault = Some(fault);
                    }
                }
            }
        }
        self.lacp.run(now, looks);
    }

    /// Sends what is due, from the members' own addresses: LACPDUs by `first`, before all data, and
    /// what answers a marker by `turn`. What is not taken is sent anew the next time, as it is then.
    pub(super) fn speak(
        &mut self,
        now: Instant,
        sources: &[Option<[u8; 6]>],
        first: impl Fn(usize, &[u8]) -> bool,
        turn: impl Fn(usize, &[u8]) -> bool,
    ) {
        let source = |at: usize| sources.get(at).copied().flatten();
        for (at, mut answer) in std::mem::take(&mut self.answers) {
            let Some(source) = source(at).or(self.lacp.mac()) else { continue };
            answer[SOURCE].copy_from_slice(&source);
            self.members[at].counts.markers += u64::from(turn(at, &answer));
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            let Some(source) = source(at).or(self.lacp.mac()) else { continue };
            let Some(pdu) = self.lacp.due(at, now) else { continue };
            if first(at, &pdu.frame(source)) {
                self.lacp.sent(at, now);
                member.counts.sent += 1;
            }
        }
    }

    /// Tells of members that carry nothing though their links are up.
    pub(super) fn tell(&mut self, physnet: &PhysnetName, devices: &[Devargs], now: Instant) {
        for (at, member) in self.members.iter_mut().enumerate() {
            let why = self.lacp.why(at);
            if why != member.why {
                (member.why, member.since, member.told) = (why, now, false);
            }
            if member.told || now.duration_since(member.since) < PATIENCE {
                continue;
            }
            member.told = true;
            let device = &devices[at];
            match &member.why {
                Some(why) if !why.passes() => {
                    tracing::warn!(%physnet, %device, "the member carries nothing by LACP: {why}");
                }
                _ => {}
            }
        }
    }
}
