//! `viaduct test-frame` says what a worker does: frames that nobody sent, and the same frames sent.
//!
//! Each line is a frame as people write it. It is judged first, which must change nothing, and then
//! received by a real worker from a port; what each port was sent and every counter must be as judged.
//! So must be what becomes of it with each of its first octets changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use control::frame::Sketch;
use dataplane::acl::{
    AddressSet, Budget, Compiler, Direction, Family, Part, Remote, Rule, RuleLabel,
};
use dataplane::clock::{Clock, cycles};
use dataplane::counters::{DropReason, PortTotals, Side, WorkerCounters};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::headers::Mac;
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::policy::{Guard, Policy, Station};
use dataplane::port::{Rxq, TxPort};
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, Snapshot, SnapshotBuilder, Vid};
use dataplane::trial::Trial;
use dataplane::worker::Worker;
use vhost::mock::Guest;
use vhost::{Burst, Device, Frames, Sent, Source, Staged};

/// Ports 1 and 2 with policies, 3 without, 4 that is down, and the wire.
const PORTS: std::ops::RangeInclusive<usize> = 1..=4;
const WIRE: usize = 5;

/// Frames, from port 1 or as they come: among them one at least for each verdict on each ground.
const FRAMES: &[&str] = &[
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn",
    "tcp 10.0.0.1:1234 > 10.0.0.2:81 syn",
    "tcp 10.0.0.1:80 > 10.0.0.2:81 ack",
    "tcp 10.0.0.1:80 > 10.0.0.2:81 syn",
    "tcp 10.0.0.9:1234 > 10.0.0.2:80 syn",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn mac 02:00:00:00:00:09",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 fragment first",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 fragment 8",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 fragment 1480",
    "udp 10.0.0.1:1234 > 10.0.0.2:53 fragment 1480",
    "udp 10.0.0.1:1234 > 10.0.0.2:53",
    "udp 10.0.0.1:1234 > 192.0.2.7:53",
    "udp 10.0.0.1:67 > 10.0.0.2:68",
    "udp 0.0.0.0:68 > 255.255.255.255:67",
    "icmp 8/0 10.0.0.1 > 10.0.0.2",
    "icmp 3/1 10.0.0.1 > 10.0.0.2",
    "gre 10.0.0.1 > 10.0.0.2",
    "arp who-has 10.0.0.2 tell 10.0.0.1",
    "arp who-has 10.0.0.2 tell 10.0.0.9",
    "arp 10.0.0.1 is-at 02:00:00:00:00:01",
    "tcp [2001:db8::1]:1234 > [2001:db8::2]:80 syn",
    "tcp [2001:db8::1]:1234 > [2001:db8::2]:80 fragment 1232",
    "tcp [2001:db8::9]:1234 > [2001:db8::2]:80 syn",
    "tcp [fe80::77]:1234 > [fe80::2]:80 syn",
    "icmpv6 135 :: > ff02::1:ff00:1 target 2001:db8::1",
    "icmpv6 135 2001:db8::1 > ff02::1:ff00:2 target 2001:db8::2",
    "icmpv6 136 2001:db8::1 > ff02::1 target 2001:db8::2",
    "icmpv6 135 2001:db8::1 > ff02::1:ff00:2 fragment first",
    "icmpv6 134 fe80::1 > ff02::1",
    "icmpv6 128 2001:db8::1 > 2001:db8::2",
    "udp [fe80::1]:547 > [fe80::2]:546",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn mac > 02:00:00:00:00:77",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn mac > 02:00:00:00:00:01",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn vlan 100",
    "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn vlan 0",
    "raw ffffffffffff 020000000001 88cc 0102",
    "raw ffffffffffff 020000000001 88b5 0102",
    "raw 0180c2000000 020000000001 88cc",
    "raw 020000000002 020000000001 0800 4500",
    "raw 020000000002 0200",
];

/// Gives a worker the frames that are put into it.
struct Given(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Source for Given {
    fn fill(&mut self, burst: &mut Burst) {
        let mut waiting = self.0.lock().expect("no thread panicked");
        while let Some(frame) = waiting.pop_front() {
            assert!(burst.push_private(&frame), "frames of the tests are short");
        }
    }

    fn release(&mut self, _: &mut Burst) {}
}

/// Takes all that it is sent.
#[derive(Default)]
struct Taken;

impl TxPort for Taken {
    fn send(&self, _: usize, _: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        sent.frames += staged.len() as u64;
    }
}

struct Bed {
    worker: Worker,
    postman: Postman,
    counters: Arc<WorkerCounters>,
    fdb: Arc<Fdb>,
    clock: Clock,
    given: BTreeMap<usize, Arc<Mutex<VecDeque<Vec<u8>>>>>,
    /// The tables, made a second time as the command makes them.
    snapshot: Snapshot,
    _publisher: Publisher<Plan>,
}

fn port(number: usize) -> PortId {
    PortId::new(number).expect("few ports")
}

fn mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, number as u8]
}

/// Both sides may ask for web pages and answer; 2 may be asked by 1, and by port 80 of 10/8 for all;
/// nobody may speak to 192.0.2.0/24.
fn policy(number: usize) -> Arc<Policy> {
    let rule = |direction, family, protocol, part, remote, permit| Rule {
        direction,
        family,
        protocol,
        part,
        remote,
        permit,
        priority: if permit { 0 } else { 9 },
        returns: true,
        label: RuleLabel { group: 0, rule: 0 },
    };
    let (tcp, both) = (Some(6), [Family::V4, Family::V6]);
    let denied = Remote::Prefix("192.0.2.0/24".parse().expect("a prefix"));
    let mut rules = vec![rule(Direction::Egress, Family::V4, None, Part::All, denied, false)];
    for family in both {
        let (web, remote) = (Part::Ports(80, 80), Remote::Set(1));
        rules.push(rule(Direction::Ingress, family, tcp, web, remote.clone(), true));
        rules.push(rule(Direction::Egress, family, tcp, Part::All, Remote::Any, true));
        let echo = Part::Icmp(if family == Family::V4 { 8 } else { 128 }, None);
        let icmp = Some(family.icmp());
        rules.push(rule(Direction::Egress, family, icmp, echo, Remote::Any, true));
        let dns = Part::Ports(53, 53);
        rules.push(rule(Direction::Egress, family, Some(17), dns, remote, true));
    }
    let set = ["10.0.0.0/24", "2001:db8::/64"].map(|prefix| prefix.parse().expect("a prefix"));
    let sets = BTreeMap::from([(1, AddressSet { prefixes: set.into() })]);
    let budget = Budget { rules: 1000, bytes: 1 << 20 };
    let acl = Compiler::default().compile(&rules, &sets, budget).expect("within the budget");
    let own = [format!("10.0.0.{number}/32"), format!("2001:db8::{number}/128")];
    let own = own.map(|prefix| prefix.parse().expect("a prefix"));
    let guard = Guard::new(vec![Station::new(Mac::new(mac(number)), &own)], &[0x88cc]);
    Arc::new(Policy { guard, acl: Arc::new(acl) })
}

fn snapshot(fdb: &Fdb, policies: &[Arc<Policy>; 2]) -> Snapshot {
    let mut builder = SnapshotBuilder::default();
    builder.uplink(port(WIRE), true);
    let domain = DomainId::new(0).expect("one domain");
    let uplink = Some((port(WIRE), Vid::new(100)));
    let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink };
    builder.domain(domain, spec);
    for number in PORTS {
        let policy = policies.get(number - 1).map(Arc::clone);
        builder.access(port(number), number != 4, domain, &[Mac::new(mac(number))], policy);
    }
    builder.build(fdb.hash())
}

impl Bed {
    fn new() -> Self {
        let options = FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 5,
        };
        let (fdb, clock) = (Arc::new(Fdb::new(options)), Clock::calibrate());
        let (mut publisher, mut readers) = Publisher::new(Plan::default(), 1);
        let (postman, mailbox) = mailbox();
        let counters = Arc::new(WorkerCounters::default());
        let reader = readers.remove(0);
        let (its, table) = (Arc::clone(&counters), Arc::clone(&fdb));
        let mut worker = Worker::new(0, reader, mailbox, table, clock, its);
        let policies = [policy(1), policy(2)];
        let mut plan =
            Plan { snapshot: snapshot(&fdb, &policies), egress: vec![None], ..Plan::default() };
        let mut given = BTreeMap::new();
        for number in PORTS.chain([WIRE]) {
            plan.egress.push(Some(Arc::new(Taken)));
            let frames = Arc::<Mutex<VecDeque<Vec<u8>>>>::default();
            let source = Box::new(Given(Arc::clone(&frames)));
            let mail = Mail::Attach(Rxq::new(port(number), 0, source));
            postman.send(mail).expect("room for a letter");
            given.insert(number, frames);
        }
        publisher.publish(plan);
        worker.poll();
        let snapshot = snapshot(&fdb, &policies);
        Self { worker, postman, counters, fdb, clock, given, snapshot, _publisher: publisher }
    }

    fn totals(&self) -> Vec<PortTotals> {
        (0..=WIRE).map(|number| self.counters.port(port(number))).collect()
    }

    /// What is counted when the frame comes in by a port, if it is as judged; and by which ground.
    fn judged(&self, from: usize, frame: &[u8]) -> Vec<PortTotals> {
        let mut totals = vec![PortTotals::default(); WIRE + 1];
        totals[from].received_frames = 1;
        totals[from].received_bytes = frame.len() as u64;
        let learner = self.fdb.learner(self.clock.seconds(cycles()));
        let trial = Trial::new(frame);
        let course = trial
            .as_ref()
            .map_err(|reason| *reason)
            .and_then(|trial| trial.run(port(from), &self.snapshot, &learner));
        match course {
            Err(reason) => {
                assert_eq!(reason.side(), Side::Ingress, "{reason:?}");
                totals[from].drops[reason as usize] += 1;
            }
            Ok(course) => {
                totals[from].flooded = u64::from(course.flooded);
                for (to, entered) in course.to {
                    match entered {
                        Ok(_) => totals[to.index()].sent_frames += 1,
                        Err(reason) => totals[to.index()].drops[reason as usize] += 1,
                    }
                }
            }
        }
        totals
    }

    /// Judges a frame and has it received; returns what was counted.
    fn agree(&mut self, from: usize, frame: &[u8], what: &str) -> Vec<PortTotals> {
        let waiting = Arc::clone(&self.given[&from]);
        let give = |frame: &[u8]| {
            waiting.lock().expect("no thread panicked").push_back(frame.to_vec());
        };
        self.agree_by(from, frame, what, give)
    }

    /// The same, of a frame that is given to the worker by `give`.
    fn agree_by(
        &mut self,
        from: usize,
        frame: &[u8],
        what: &str,
        give: impl FnOnce(&[u8]),
    ) -> Vec<PortTotals> {
        let before = (self.totals(), self.fdb.statistics());
        let judged = self.judged(from, frame);
        assert_eq!((self.totals(), self.fdb.statistics()), before, "judging changed something");
        give(frame);
        assert_eq!(self.worker.poll(), 1, "{what}");
        let now = self.totals();
        let moved: Vec<_> = now.iter().zip(&before.0).map(|(now, old)| now.since(old)).collect();
        assert_eq!(moved, judged, "port {from}: {what}\n{:02x?}", &frame[..frame.len().min(128)]);
        moved
    }
}

/// Each frame from each port, and from the wire.
fn each(mut act: impl FnMut(usize, &str, Vec<u8>)) {
    for line in FRAMES {
        let sketch: Sketch = line.parse().unwrap_or_else(|misfit| panic!("{line}: {misfit}"));
        let frame = sketch.bytes(mac(1), mac(2));
        PORTS.chain([WIRE]).for_each(|from| act(from, line, frame.clone()));
    }
}

#[test]
fn a_frame_that_nobody_sent_is_judged_as_one_that_was() {
    let mut bed = Bed::new();
    let mut met = std::collections::BTreeSet::new();
    let (mut sent, mut flooded) = (0, 0);
    each(|from, line, frame| {
        for totals in bed.agree(from, &frame, line) {
            let reasons = DropReason::ALL.iter().filter(|reason| totals.dropped(**reason) > 0);
            met.extend(reasons.map(|reason| reason.name()));
            (sent, flooded) = (sent + totals.sent_frames, flooded + totals.flooded);
        }
    });
    // A table that met only a few of them would prove little.
    for reason in [
        "runt",
        "port-down",
        "reserved-group",
        "tagged-on-access",
        "untagged",
        "spoof-mac",
        "spoof-ip",
        "spoof-arp",
        "spoof-nd",
        "nd-fragment",
        "router-advertisement",
        "dhcp-server",
        "ethertype",
        "truncated-header",
        "tiny-fragment",
        "acl-egress",
        "acl-egress-fragment",
        "hairpin",
        "acl-ingress",
        "acl-ingress-fragment",
        "acl-ingress-malformed",
        "acl-ingress-ethertype",
    ] {
        assert!(met.contains(reason), "no frame was dropped for {reason}: {met:?}");
    }
    assert!(sent > 50 && flooded > 10, "{sent} sent, {flooded} flooded");
}

#[test]
fn so_is_one_with_any_octet_changed() {
    let mut bed = Bed::new();
    each(|from, line, frame| {
        for at in 0..frame.len().min(60) {
            for change in [0x01, 0x80, 0xff] {
                let mut frame = frame.clone();
                frame[at] ^= change;
                bed.agree(from, &frame, line);
            }
        }
    });
}

#[test]
fn so_is_one_that_is_longer_than_what_is_looked_at() {
    let mut bed = Bed::new();
    let (device, mut guest) = (Device::new(1), Guest::new(64));
    device.start_ring(1, guest.ring());
    let rxq = Rxq::new(port(1), 1, Box::new(device.rxq(0)));
    bed.postman.send(Mail::Attach(rxq)).expect("room for a letter");
    let frames = [
        ("tcp 10.0.0.1:1234 > 10.0.0.2:80", 1514, None),
        ("tcp 10.0.0.1:1234 > 10.0.0.2:80", 1515, Some(DropReason::OverMtu)),
        ("tcp 10.0.0.9:1234 > 10.0.0.2:80", 1514, Some(DropReason::SpoofIp)),
        ("tcp 10.0.0.9:1234 > 10.0.0.2:80", 1515, Some(DropReason::OverMtu)),
        ("tcp 10.0.0.1:1234 > 10.0.0.2:80 vlan 100", 1519, Some(DropReason::TaggedOnAccess)),
    ];
    for (index, (line, bytes, reason)) in (0..).zip(frames) {
        let mut frame = line.parse::<Sketch>().expect(line).bytes(mac(1), mac(2));
        frame.resize(bytes, 0);
        let moved = bed.agree_by(1, &frame, line, |frame| guest.transmit(index, frame));
        match reason {
            Some(reason) => assert_eq!(moved[1].dropped(reason), 1, "{line}, {bytes} octets"),
            None => assert_eq!(moved[2].sent_frames, 1, "{line}, {bytes} octets"),
        }
    }
}
