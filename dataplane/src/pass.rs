//! One burst of one port on its way through the tables: each frame to lanes or a counter.

use vhost::{BURST_MAX, FrameRef, Frames};

use crate::acl::Direction;
use crate::counters::{DropReason, WorkerCounters};
use crate::decide::{Egress, accept, decide, find, foresee, learn};
use crate::exits::Exits;
use crate::fdb::{Learner, Place};
use crate::headers::{ETHERNET_BYTES, Headers, Mac, bytes_of, is_tagged};
use crate::outbox::Outbox;
use crate::packet::{Looks, Packet};
use crate::policy::Left;
use crate::sample::Choice;
use crate::snapshot::{Attachment, Domain, Port, PortId, Snapshot};
use crate::watch::Witness;

/// See the [module's head](self).
pub(crate) struct Pass<'a> {
    pub ingress: PortId,
    pub attached: Option<&'a Port>,
    pub snapshot: &'a Snapshot,
    pub learner: Learner<'a>,
    pub counters: &'a WorkerCounters,
}

/// What is the same for all frames of a burst that have no tag and came in by a port of one domain.
#[derive(Clone, Copy)]
pub(crate) struct Home<'a> {
    domain: &'a Domain,
    /// The longest frame.
    bytes_max: usize,
    /// Where the port's own address is need not be learned.
    pub settled: bool,
}

/// Where the frames of a burst are from and for, by their indexes.
#[derive(Debug)]
pub(crate) struct Ends([(Place, Place); BURST_MAX]);

impl Default for Ends {
    fn default() -> Self {
        let nowhere = Place { key: 0, hash: 0 };
        Self([(nowhere, nowhere); BURST_MAX])
    }
}

impl Home<'_> {
    /// Where such a frame is for, if it may come in.
    #[inline(always)]
    fn destination(&self, frame: FrameRef<'_>) -> Result<Mac, DropReason> {
        let bytes = bytes_of(frame)?;
        let destination = Mac::destination(frame.fixed_head().0);
        if destination.is_group() && destination.is_reserved() {
            return Err(DropReason::ReservedGroup);
        }
        if bytes > self.bytes_max {
            return Err(DropReason::OverMtu);
        }
        Ok(destination)
    }

    /// Where a frame is from and for, if it may come in. None if it has a tag or ends too early.
    #[inline(always)]
    fn ends(&self, frame: FrameRef<'_>) -> Result<Option<(Mac, Mac)>, DropReason> {
        let (head, bytes) = frame.fixed_head();
        if bytes < ETHERNET_BYTES || is_tagged(head) {
            return Ok(None);
        }
        let source = Mac::source(head);
        if source.is_group() || source.bits() == 0 {
            // Unless it cannot be read at all, which tells more.
            bytes_of(frame)?;
            return Err(DropReason::BadSource);
        }
        Ok(Some((source, self.destination(frame)?)))
    }
}

impl<'a> Pass<'a> {
    /// Has fetched what the FDB will be asked for a burst whose frames may be of several domains.
    #[inline(never)]
    pub fn foresee(&self, frames: Frames<'_>) {
        let Some(port) = self.attached else { return };
        for headers in frames.iter().filter_map(|frame| Headers::parse(frame).ok()) {
            foresee(&headers, port, self.snapshot, &self.learner);
        }
    }

    /// Where frames without a tag are, if the port is on one domain.
    #[inline(always)]
    pub fn home(&self) -> Option<Home<'a>> {
        match self.attached {
            Some(Port { up: true, settled, attachment: Attachment::Access(domain), .. }) => {
                let domain = self.snapshot.domain(*domain)?;
                let bytes_max = domain.frame_bytes_max(false);
                Some(Home { domain, bytes_max, settled: *settled })
            }
            _ => None,
        }
    }

    /// Looks at the packets of the burst, as policies will ask for them, and drops what the port may
    /// not send. Returns which frames are left. Those that cannot come in at all, such
    /// as tagged ones, are left to be dropped as such: that tells more than what a policy says of them.
    #[inline(never)]
    pub fn inspect(&self, frames: Frames<'_>, looks: &mut Looks, witness: &mut Witness) -> Left {
        match self.attached {
            Some(port @ Port { up: true, policy: Some(policy), .. }) => {
                let counters = self.counters.of(self.ingress);
                let accept = |headers: &Headers| accept(headers, port, self.snapshot).is_ok();
                policy.leave_burst(frames, looks, accept, |index, reason| {
                    counters.dropped(reason, 1);
                    witness.note(index, reason);
                })
            }
            _ => {
                looks.read(frames, |_, _| true);
                Left::ALL
            }
        }
    }

    /// Decides about the frame with this index in the burst, and puts it into the lanes of the ports
    /// that it goes to.
    #[inline(always)]
    pub fn frame(
        &mut self,
        index: u8,
        frame: FrameRef<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(frame)?;
        let attached = self.attached.ok_or(DropReason::PortDown)?;
        let egress = decide(&headers, self.ingress, attached, self.snapshot, &mut self.learner)?;
        let tag = headers.tag;
        let edit = |domain: &Domain, to| domain.tag_edit(tag, to);
        self.exits().stage(index, egress, outbox, edit);
        Ok(())
    }

    /// As [`frame`](Self::frame), of the frames of a burst that are plain and from the port's own
    /// address, a bit for each: they have no tag, and of their sender all is known. Tells of each that is
    /// dropped why.
    ///
    /// A function of its own, in whose registers is what it needs.
    #[inline(never)]
    pub fn plain_frames(
        &self,
        frames: Frames<'_>,
        plain: u64,
        home: Home<'_>,
        outbox: &mut Outbox,
        dropped: impl FnMut(usize, DropReason),
    ) {
        if self.learner.is_large() {
            let mut rest = plain;
            while rest != 0 {
                let (head, _) = frames.frame(rest.trailing_zeros() as usize).fixed_head();
                rest &= rest - 1;
                self.learner.prefetch(self.learner.place(home.domain.id, Mac::destination(head)));
            }
        }
        let decide = |index| {
            let destination = home.destination(frames.frame(index))?;
            let destination = self.learner.place(home.domain.id, destination);
            find(destination, self.ingress, home.domain, self.snapshot, &self.learner)
        };
        self.exits().stage_untagged(plain, home.domain, outbox, decide, dropped);
    }

    /// As [`frame`](Self::frame), of those `wanted` frames of a burst, a bit for each, that have no tag.
    /// Tells of each that is dropped why, and returns the others, which so are decided about after these:
    /// what they teach is known a burst later.
    ///
    /// All are read before any is looked up, so that what is known of them is fetched meanwhile.
    #[inline(never)]
    pub fn untagged_frames(
        &mut self,
        frames: Frames<'_>,
        wanted: u64,
        home: Home<'_>,
        ends: &mut Ends,
        outbox: &mut Outbox,
        mut dropped: impl FnMut(usize, DropReason),
    ) -> u64 {
        let Home { domain, .. } = home;
        let large = self.learner.is_large();
        let (mut rest, mut others) = (wanted, 0);
        let mut read = 0;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            match home.ends(frames.frame(index)) {
                Ok(Some((source, destination))) => {
                    let place = |mac| self.learner.place(domain.id, mac);
                    let both = (place(source), place(destination));
                    if large {
                        self.learner.prefetch(both.0);
                        self.learner.prefetch(both.1);
                    }
                    ends.0[index % BURST_MAX] = both;
                    read |= bit;
                }
                Ok(None) => others |= bit,
                Err(reason) => dropped(index, reason),
            }
        }
        let (exits, ingress, snapshot) = (self.exits(), self.ingress, self.snapshot);
        let decide = |index: usize| {
            let (source, destination) = ends.0[index % BURST_MAX];
            learn(source, ingress, domain, snapshot, &mut self.learner);
            find(destination, ingress, domain, snapshot, &self.learner)
        };
        exits.stage_untagged(read, domain, outbox, decide, dropped);
        others
    }

    fn exits(&self) -> Exits<'a> {
        Exits { ingress: self.ingress, counters: self.counters }
    }

    /// Counts at its rules a frame of the burst, for all that it stands for. `left` are those that the port
    /// may send.
    #[inline(never)]
    pub fn count_hits(&self, frames: Frames<'_>, looks: &Looks, left: Left, choice: Choice) {
        let Some(port) = self.attached else { return };
        let Choice { index, weight } = choice;
        let frame = frames.frame(index);
        match self.home() {
            Some(home @ Home { settled: true, .. }) if left.plain >> index & 1 != 0 => {
                let Ok(destination) = home.destination(frame) else { return };
                let look = looks.of(index as u8);
                let hit = |port: &Port, direction: Direction| {
                    if let Some(policy) = &port.policy {
                        let verdict = policy.acl.plain(direction).judge(look);
                        policy.acl.hit(direction, verdict, weight);
                    }
                };
                hit(port, Direction::Egress);
                self.receivers(destination, home.domain, |to| hit(to, Direction::Ingress));
            }
            _ => {
                let Ok(headers) = Headers::parse(frame) else { return };
                self.count_hit(port, frame, &headers, weight);
            }
        }
    }

    /// The same of a frame that is anything.
    fn count_hit(&self, port: &Port, frame: FrameRef<'_>, headers: &Headers, weight: u64) {
        let packet = Packet::parse(frame.head(), headers);
        let hit = |port: &Port, direction: Direction| {
            if let (Some(policy), Packet::V4(_) | Packet::V6(_)) = (&port.policy, packet) {
                policy.acl.hit(direction, policy.acl.judge(direction, &packet), weight);
            }
        };
        let Ok(domain) = accept(headers, port, self.snapshot) else { return };
        if let Some(policy) = &port.policy {
            // What anti-spoofing stops, rules are not asked about.
            match policy.leave(frame.head(), headers, &packet) {
                Ok(()) => hit(port, Direction::Egress),
                Err(DropReason::AclOut | DropReason::FragmentOut) => {
                    return hit(port, Direction::Egress);
                }
                Err(_) => return,
            }
        }
        self.receivers(headers.destination, domain, |to| hit(to, Direction::Ingress));
    }

    /// Tells of the ports that a frame goes to which is for this address.
    fn receivers(&self, destination: Mac, domain: &Domain, see: impl Fn(&Port)) {
        let destination = self.learner.place(domain.id, destination);
        match find(destination, self.ingress, domain, self.snapshot, &self.learner) {
            Ok(Egress::Port(to, _)) => self.snapshot.port(to).into_iter().for_each(see),
            Ok(Egress::Flood(domain)) => {
                let others = domain.members.iter().filter(|to| **to != self.ingress);
                others.filter_map(|to| self.snapshot.port(*to)).for_each(see);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;
    use vhost::{Burst, Received, Source};

    use super::*;
    use crate::acl::{Budget, Compiler, Family, Rule};
    use crate::fdb::{Fdb, FdbOptions};
    use crate::policy::{Guard, Policy, Station};
    use crate::snapshot::{DomainId, DomainSpec, SnapshotBuilder, Vid};

    const OWN: Mac = Mac::from_bits(0x0200_0000_0001);
    const NEIGHBOUR: Mac = Mac::from_bits(0x0200_0000_0002);
    const FAR: Mac = Mac::from_bits(0x0200_0000_0003);
    const OWN_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// Frames in private memory.
    struct Private(Vec<Vec<u8>>);

    impl Source for Private {
        fn fill(&mut self, burst: &mut Burst) {
            assert!(self.0.iter().all(|frame| burst.push_private(frame)));
        }

        fn release(&mut self, _: &mut Burst) {}
    }

    fn port(number: usize) -> PortId {
        PortId::new(number).expect("few ports")
    }

    /// Permits all, to a port whose address is [`OWN`].
    fn policy() -> Policy {
        let own = IpNet::from(Ipv4Net::from(OWN_IP));
        let rules = [Direction::Ingress, Direction::Egress].map(|way| Rule::any(way, Family::V4));
        let budget = Budget { rules: 10, bytes: 1 << 20 };
        let acl = Compiler::default().compile(&rules, &BTreeMap::new(), budget);
        let acl = Arc::new(acl.expect("two rules are few"));
        Policy { guard: Guard::new(vec![Station::new(OWN, [&own])], &[]), acl }
    }

    /// With a tag that only carries a priority, or without.
    fn udp(destination: Mac, bytes: usize, tagged: bool) -> Vec<u8> {
        let mut frame = [destination.bytes(), OWN.bytes()].concat();
        if tagged {
            frame.extend([0x81, 0x00, 0x60, 0x00]);
        }
        frame.extend([0x08, 0x00, 0x45, 0x00]);
        frame.extend((bytes as u16 - 14).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([OWN_IP.octets(), [10, 0, 0, 2]].concat());
        frame.extend([0, 80, 0, 90]);
        frame.resize(bytes + 4 * usize::from(tagged), 0);
        frame
    }

    proptest! {
        #[test]
        fn the_short_way_leads_where_the_long_one_does(
            sent in proptest::collection::vec((
                prop_oneof![
                    Just(OWN), Just(NEIGHBOUR), Just(FAR), Just(Mac::from_bits(0x0200_0000_0004)),
                    Just(Mac::from_bits(0xffff_ffff_ffff)), Just(Mac::from_bits(0x0180_c200_0000)),
                    Just(Mac::from_bits(0x0180_c200_0010)), Just(Mac::from_bits(0)),
                ],
                54usize..=120,
                any::<bool>(),
            ), 1..9),
            mtu in 40u16..=114,
            (flooding, learning, alone) in any::<(bool, bool, bool)>(),
            vlan in proptest::option::of(1u16..4095),
        ) {
            let fdb = Fdb::new(FdbOptions {
                entries: 16, ageing_seconds: 300, port_quota: 9, domain_quota: 9, seed: 7,
            });
            let domain = DomainId::new(0).expect("few domains");
            let mut builder = SnapshotBuilder::default();
            let uplink = (!alone).then(|| {
                builder.uplink(port(3), true);
                (port(3), vlan.and_then(Vid::new))
            });
            builder.domain(domain, DomainSpec { mtu, learning, flooding, uplink });
            builder.access(port(1), true, domain, &[OWN], Some(Arc::new(policy())));
            if !alone {
                builder.access(port(2), true, domain, &[NEIGHBOUR], None);
            }
            let snapshot = builder.build(fdb.hash());
            let counters = WorkerCounters::default();
            let mut learner = fdb.learner(0);
            learner.learn(learner.place(domain, FAR), port(3));
            let attached = snapshot.port(port(1));
            let mut pass =
                Pass { ingress: port(1), attached, snapshot: &snapshot, learner, counters: &counters };

            let frames = sent.iter().map(|(to, bytes, tagged)| udp(*to, *bytes, *tagged));
            let (mut burst, mut source) = (Burst::default(), Private(frames.collect()));
            let received = Received::take(&mut source, &mut burst);
            let frames = received.frames();
            let (mut looks, mut witness) = (Looks::default(), Witness::default());
            let left = pass.inspect(frames, &mut looks, &mut witness);
            let untagged = (0..).zip(&sent).filter(|(_, (_, _, tagged))| !tagged);
            let untagged = untagged.fold(0, |untagged, (index, _)| untagged | 1 << index);
            prop_assert_eq!(left.plain, untagged);

            let (mut long, mut short) = (Outbox::default(), Outbox::default());
            let frame = |index: usize| (index as u8, frames.frame(index));
            let expected: Vec<_> = (0..sent.len())
                .map(frame)
                .map(|(index, frame)| pass.frame(index, frame, &mut long))
                .collect();
            let home = pass.home().expect("the port's own address is known");
            let mut results = vec![Ok(()); sent.len()];
            let dropped = |index: usize, reason| results[index] = Err(reason);
            pass.plain_frames(frames, left.plain, home, &mut short, dropped);
            for (index, frame) in (0..sent.len()).map(frame) {
                if left.plain >> index & 1 == 0 {
                    results[usize::from(index)] = pass.frame(index, frame, &mut short);
                }
            }
            prop_assert_eq!(results, expected);
            let sorted = |outbox: &Outbox| {
                let mut all = outbox.all();
                all.sort_by_key(|(port, _)| port.index());
                all
            };
            prop_assert_eq!(sorted(&short), sorted(&long));
            prop_assert_eq!(fdb.entries(0).len(), 1, "a known address is not learned");
        }
    }

    #[test]
    fn what_is_for_no_address_stays_in_its_network() {
        let options = FdbOptions {
            entries: 16,
            ageing_seconds: 300,
            port_quota: 9,
            domain_quota: 9,
            seed: 7,
        };
        let fdb = Fdb::new(options);
        let domain = |number| DomainId::new(number).expect("few domains");
        let mut builder = SnapshotBuilder::default();
        for number in [0, 1] {
            let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None };
            builder.domain(domain(number), spec);
        }
        builder.access(port(0), true, domain(1), &[FAR], None);
        builder.access(port(1), true, domain(0), &[OWN], None);
        builder.access(port(2), true, domain(0), &[NEIGHBOUR], None);
        let snapshot = builder.build(fdb.hash());
        let counters = WorkerCounters::default();
        let (attached, learner) = (snapshot.port(port(1)), fdb.learner(0));
        let mut pass =
            Pass { ingress: port(1), attached, snapshot: &snapshot, learner, counters: &counters };
        let frame = ethernet(Mac::from_bits(0), OWN, &[8, 0], 60);
        let (mut burst, mut source) = (Burst::default(), Private(vec![frame]));
        let received = Received::take(&mut source, &mut burst);
        let mut outbox = Outbox::default();
        let result = pass.frame(0, received.frames().frame(0), &mut outbox);
        assert_eq!(result, Ok(()));
        let lanes: Vec<_> = outbox.all().into_iter().map(|(port, _)| port).collect();
        assert_eq!(lanes, [port(2)]);
    }

    /// A frame of any kind, of these bytes behind its addresses.
    fn ethernet(to: Mac, from: Mac, rest: &[u8], bytes: usize) -> Vec<u8> {
        let mut frame = [&to.bytes()[..], &from.bytes(), rest].concat();
        frame.resize(bytes, 0);
        frame
    }

    fn some_mac() -> impl Strategy<Value = Mac> {
        prop_oneof![
            3 => Just(NEIGHBOUR), 3 => Just(FAR), 3 => (4u64..90).prop_map(|n| Mac::from_bits(0x0200_0000_0000 | n)),
            1 => Just(OWN), 1 => Just(Mac::from_bits(0xffff_ffff_ffff)), 1 => Just(Mac::from_bits(0)),
            1 => Just(Mac::from_bits(0x0180_c200_0000)), 1 => Just(Mac::from_bits(0x0180_c200_0010)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_ahead_goes_where_it_would_alone(
            sent in proptest::collection::vec((
                some_mac(), some_mac(),
                prop_oneof![
                    4 => Just([0x08, 0x00, 0x45, 0x00]), 1 => Just([0x81, 0x00, 0x00, 0x00]),
                    1 => Just([0x81, 0x00, 0x00, 0x07]), 1 => Just([0x88, 0xa8, 0x00, 0x00]),
                ],
                prop_oneof![4 => 60usize..=120, 1 => 1usize..20],
            ), 1..BURST_MAX),
            mtu in 40u16..=114,
            (flooding, learning, alone, large) in any::<(bool, bool, bool, bool)>(),
            uplink in proptest::option::of(proptest::option::of(1u16..4095)),
        ) {
            let domain = DomainId::new(0).expect("few domains");
            let mut builder = SnapshotBuilder::default();
            let uplink = uplink.map(|vlan| {
                builder.uplink(port(4), true);
                (port(4), vlan.and_then(Vid::new))
            });
            builder.domain(domain, DomainSpec { mtu, learning, flooding, uplink });
            builder.access(port(1), true, domain, &[OWN], None);
            if !alone {
                builder.access(port(2), true, domain, &[NEIGHBOUR], None);
                builder.access(port(3), true, domain, &[], None);
            }
            let options = FdbOptions {
                entries: 1024, ageing_seconds: 300, port_quota: 999, domain_quota: 999, seed: 7,
            };
            let (one, other) = (Fdb::new(options), Fdb::new(options));
            let snapshot = builder.build(one.hash());
            let counters = WorkerCounters::default();
            let fill = |fdb: &Fdb| {
                let others = if large { 0x0200_0001_0000..0x0200_0001_0100u64 } else { 0..0 };
                for mac in others.map(Mac::from_bits).chain([FAR]) {
                    let mut learner = fdb.learner(0);
                    learner.learn(learner.place(domain, mac), port(3));
                }
            };
            fill(&one);
            fill(&other);
            let pass = |fdb| Pass {
                ingress: port(1),
                attached: snapshot.port(port(1)),
                snapshot: &snapshot,
                learner: Fdb::learner(fdb, 0),
                counters: &counters,
            };
            let frames = sent.iter().map(|(to, from, rest, bytes)| ethernet(*to, *from, rest, *bytes));
            let (mut burst, mut source) = (Burst::default(), Private(frames.collect()));
            let received = Received::take(&mut source, &mut burst);
            let frames = received.frames();

            let (mut alone, mut ahead) = (Outbox::default(), Outbox::default());
            let mut singly = pass(&one);
            // Those with a tag are decided about last.
            let mut order: Vec<_> = (0..sent.len()).collect();
            order.sort_by_key(|index| {
                let (_, _, rest, bytes) = &sent[*index];
                *bytes < ETHERNET_BYTES || rest[0] != 0x08
            });
            let mut expected = vec![Ok(()); sent.len()];
            for index in order {
                expected[index] = singly.frame(index as u8, frames.frame(index), &mut alone);
            }
            let mut results = vec![Ok(()); sent.len()];
            let mut together = pass(&other);
            let home = together.home().expect("it is on one network");
            let dropped = |index: usize, reason| results[index] = Err(reason);
            let mut rest = together.untagged_frames(
                frames, frames.all(), home, &mut Ends::default(), &mut ahead, dropped,
            );
            while rest != 0 {
                let index = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                results[index] = together.frame(index as u8, frames.frame(index), &mut ahead);
            }
            prop_assert_eq!(results, expected);
            let sorted = |outbox: &Outbox| {
                let mut all = outbox.all();
                all.sort_by_key(|(port, _)| port.index());
                all
            };
            prop_assert_eq!(sorted(&ahead), sorted(&alone));
            let known = |fdb: &Fdb| {
                let mut known = fdb.entries(0);
                known.sort_by_key(|entry| entry.mac);
                known
            };
            prop_assert_eq!(known(&other), known(&one));
        }
    }

    #[test]
    fn what_would_have_to_be_learned_is_known() {
        let fdb = Fdb::new(FdbOptions {
            entries: 16,
            ageing_seconds: 300,
            port_quota: 9,
            domain_quota: 9,
            seed: 7,
        });
        let domain = DomainId::new(0).expect("few domains");
        let mut builder = SnapshotBuilder::default();
        let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None };
        builder.domain(domain, spec);
        builder.access(port(1), true, domain, &[], Some(Arc::new(policy())));
        builder.access(port(2), true, domain, &[OWN], None);
        let snapshot = builder.build(fdb.hash());
        let counters = WorkerCounters::default();
        for number in [1, 2] {
            let (ingress, learner) = (port(number), fdb.learner(0));
            let attached = snapshot.port(ingress);
            let pass =
                Pass { ingress, attached, snapshot: &snapshot, learner, counters: &counters };
            assert!(!pass.home().expect("it is on one network").settled, "port {number}");
        }
    }
}
