//! One wire whose links are looked at: of a device, or of the members of a bond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::clock::{Clock, cycles};
use dataplane::fdb::Fdb;
use dataplane::port::bond::{Bond, BondPort, Carriers};
use dataplane::snapshot::PortId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::announce::Hinterland;
use super::lacp::{BEAT, LacpRecord, LacpRules, LacpStatus, Look};
use super::speaker::{Counts, Speaker, letters};
use super::state::{BondState, Link, Rules};
use crate::model::{Devargs, InterfaceName, PhysnetName};
use crate::tap::links::Links;
use crate::wire::Wire;

/// How long after a failover addresses are announced: at once, and again for those whose frame was
/// lost, as by a switch whose port has only just come up.
const ROUNDS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(500)];

/// Announcements that go out at a time.
const CHORUS: usize = 64;

/// The pause between two of these, in which a device sends what it was given.
const BREATH: Duration = Duration::from_millis(1);

/// See the [module's head](self).
pub(crate) struct Watched {
    physnet: PhysnetName,
    devices: Vec<Devargs>,
    bond: Option<Reach>,
    settings: Mutex<Settings>,
    /// The devices that are open. Held while they are asked, so that one is let go at once.
    wires: Mutex<Vec<Option<Arc<Wire>>>>,
    /// The bond's transmit side as it was published last. Held while it is sent by, for the same.
    port: Mutex<Option<Arc<BondPort>>>,
    /// The addresses of the devices that are open.
    macs: Mutex<Vec<Option<[u8; 6]>>>,
    hinterland: Mutex<Hinterland>,
    inner: Mutex<Inner>,
    /// A device was opened or settings changed: there is something to look at now.
    wake: Notify,
}

/// How a bond is reached, and what it has to know.
pub(crate) struct Reach {
    pub(crate) bond: Arc<Bond>,
    pub(crate) port: PortId,
    /// The number by which control sends.
    pub(crate) lane: usize,
    pub(crate) fdb: Arc<Fdb>,
    pub(crate) clock: Clock,
}

/// What can change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    /// With LACP, how that is spoken.
    pub(crate) lacp: Option<LacpRules>,
    /// How often links are looked at.
    pub(crate) interval: Duration,
}

struct Inner {
    state: BondState,
    /// Speaks LACP, with that.
    speaker: Option<Speaker>,
    /// What another process has handed over of it.
    handed: Option<LacpRecord>,
    members: Vec<Known>,
    /// When who carries changed last.
    since: Instant,
    /// The member that carried everything last.
    last: Option<usize>,
    failovers: u64,
    outages: u64,
}

/// What is known of a member beside its state.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    speed_mbps: Option<u32>,
    losses: u64,
}

/// A wire, as it was when it was looked at last.
#[derive(Clone, Debug)]
pub(crate) struct WireStatus {
    pub(crate) members: Vec<MemberStatus>,
    /// How long ago who carries changed.
    pub(crate) since: Duration,
    /// How often another member took over.
    pub(crate) failovers: u64,
    /// How often no member was left.
    pub(crate) outages: u64,
    /// Links were looked at, and no member can carry.
    pub(crate) dead: bool,
    /// With LACP, how that stands.
    pub(crate) lacp: Option<LacpStatus>,
}

/// A member of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberStatus {
    /// Its link, once it was looked at.
    pub(crate) link: Option<Link>,
    /// How long its link has been so.
    pub(crate) since: Duration,
    /// Speed in Mbit/s, if it is up and known.
    pub(crate) speed_mbps: Option<u32>,
    /// It carries frames.
    pub(crate) carries: bool,
    /// How often its link was lost.
    pub(crate) losses: u64,
    /// Frames of LACP, where that is spoken.
    pub(crate) slow: Counts,
}

impl Watched {
    /// A wire none of whose devices is open.
    pub(crate) fn new(
        physnet: PhysnetName,
        devices: Vec<Devargs>,
        bond: Option<Reach>,
        settings: Settings,
    ) -> Arc<Watched> {
        let now = Instant::now();
        Arc::new(Watched {
            physnet,
            wires: Mutex::new(vec![None; devices.len()]),
            port: Mutex::new(None),
            macs: Mutex::default(),
            hinterland: Mutex::default(),
            inner: Mutex::new(Inner {
                state: BondState::new(settings.rules, devices.len(), now),
                speaker: None,
                handed: None,
                members: vec![Known::default(); devices.len()],
                since: now,
                last: None,
                failovers: 0,
                outages: 0,
            }),
            devices,
            bond,
            settings: Mutex::new(settings),
            wake: Notify::new(),
        })
    }

    /// Looks at these devices from now on, by the members' numbers, and announces by this transmit side
    /// of the bond. Workers must send by it already, as frames are steered to a member that is up. Of a
    /// device that is not among them nothing is held here any more.
    pub(crate) fn published(&self, wires: Vec<Option<Arc<Wire>>>, port: Option<Arc<BondPort>>) {
        *self.port.lock() = port;
        let mac = |wire: &Option<Arc<Wire>>| wire.as_ref()?.mac().map(|mac| mac.octets());
        *self.macs.lock() = wires.iter().map(mac).collect();
        let open = |wires: &[Option<Arc<Wire>>]| -> Vec<bool> {
            wires.iter().map(Option::is_some).collect()
        };
        let mut known = self.wires.lock();
        let changed = open(&known) != open(&wires);
        *known = wires;
        if changed {
            self.wake.notify_one();
        }
    }

    /// Lets other settings hold.
    pub(crate) fn set(&self, settings: Settings) {
        if std::mem::replace(&mut *self.settings.lock(), settings) != settings {
            self.wake.notify_one();
        }
    }

    /// Says what is behind the wire on this side.
    pub(crate) fn know(&self, hinterland: Hinterland) {
        *self.hinterland.lock() = hinterland;
    }

    /// What the next process has to know to go on with LACP as if it were this one.
    pub(crate) fn record(&self) -> Option<LacpRecord> {
        self.inner.lock().speaker.as_ref()?.record(Instant::now())
    }

    /// Goes on with LACP as another process did. For before a device is open.
    pub(crate) fn resume(&self, record: LacpRecord) {
        self.inner.lock().handed = Some(record);
    }

    /// What was found last.
    pub(crate) fn status(&self) -> WireStatus {
        let inner = self.inner.lock();
        let carriers = inner.state.carriers();
        let member = |(at, (member, known)): (usize, (&super::state::Member, &Known))| {
            let up = member.link == Some(Link::Up);
            MemberStatus {
                link: member.link,
                since: member.since.elapsed(),
                speed_mbps: known.speed_mbps.filter(|_| up),
                carries: carries(carriers, at),
                losses: known.losses,
                slow: inner.speaker.as_ref().map(|it| it.counts(at)).unwrap_or_default(),
            }
        };
        let members = inner.state.members().iter().zip(&inner.members).enumerate();
        let looked = inner.state.members().iter().any(|member| member.link.is_some());
        WireStatus {
            members: members.map(member).collect(),
            since: inner.since.elapsed(),
            failovers: inner.failovers,
            outages: inner.outages,
            dead: looked && carriers.senders() == 0,
            lacp: inner.speaker.as_ref().map(|speaker| speaker.status(Instant::now())),
        }
    }

    /// Looks at the links again and again.
    pub(super) async fn run(self: Arc<Self>) {
        let interfaces: Vec<_> = self.devices.iter().map(Devargs::kernel_interface).collect();
        let asks_kernel = interfaces.iter().any(Option::is_some);
        let mut kernel: Option<Links> = None;
        loop {
            if asks_kernel && kernel.is_none() {
                kernel = Links::connect().ok();
            }
            let mut carriers = Vec::with_capacity(interfaces.len());
            for interface in &interfaces {
                carriers.push(match interface {
                    Some(interface) => Carrier::Kernel(carrier(interface, &mut kernel).await),
                    None => Carrier::Driver,
                });
            }
            let look = |(wire, carrier): (&Option<Arc<Wire>>, _)| match wire {
                None => (Some(Link::Absent), None),
                Some(wire) => look(wire, carrier),
            };
            let found: Vec<_> = self.wires.lock().iter().zip(carriers).map(look).collect();
            self.take(&found);
            let interval = match *self.settings.lock() {
                Settings { lacp: Some(_), interval, .. } => interval.min(BEAT),
                Settings { interval, .. } => interval,
            };
            tokio::select! {
                () = sleep(interval) => {}
                () = self.wake.notified() => {}
                heard = event(&mut kernel) => if heard.is_none() {
                    // The kernel has closed the connection, which is made anew.
                    kernel = None;
                    sleep(interval).await;
                },
            }
        }
    }

    /// Does what follows of the links; of those that could not be read what was known still holds.
    fn take(self: &Arc<Self>, found: &[(Option<Link>, Option<u32>)]) {
        let settings = *self.settings.lock();
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut links = Vec::with_capacity(found.len());
        for (at, (link, speed)) in found.iter().enumerate() {
            let before = inner.state.members()[at].link;
            let link = link.or(before).unwrap_or(Link::Up);
            links.push(link);
            inner.members[at].speed_mbps = *speed;
            if before != Some(link) {
                self.note_link(at, before, link);
                inner.members[at].losses += u64::from(before == Some(Link::Up));
            }
        }
        let before = inner.state.carriers();
        inner.state.set_rules(settings.rules);
        let after = inner.state.look(now, &links);
        let after = self.negotiate(&mut inner, settings.lacp, now, after);
        let moved = before != after && self.carry(&mut inner, now, before, after);
        // What is said of a member is so by now.
        self.speak(&mut inner, now);
        drop(inner);
        if before != after {
            self.note_carriers(after);
        }
        if moved {
            self.announce();
        }
    }

    /// Who carries by LACP, if that is to be spoken; else those who would `without` it.
    fn negotiate(
        &self,
        inner: &mut Inner,
        rules: Option<LacpRules>,
        now: Instant,
        without: Carriers,
    ) -> Carriers {
        let Some(Reach { bond, .. }) = &self.bond else { return without };
        if rules.is_some() != inner.speaker.is_some() {
            bond.speak(rules.is_some());
            // What is left of an earlier conversation is not news.
            (0..self.devices.len()).for_each(|at| letters(bond, at).for_each(|_| {}));
            inner.speaker = rules.map(|rules| Speaker::new(rules, self.devices.len(), now));
        }
        let (Some(speaker), Some(rules)) = (&mut inner.speaker, rules) else { return without };
        speaker.lacp().set_rules(rules);
        if let Some(record) = inner.handed.take() {
            speaker.resume(&record, now);
        }
        if let Some(mac) = self.macs.lock().iter().flatten().next() {
            speaker.lacp().identify(*mac);
        }
        let look = |member: &super::state::Member| Look {
            up: member.link == Some(Link::Up),
            trusted: member.usable,
        };
        let looks: Vec<_> = inner.state.members().iter().map(look).collect();
        speaker.run(bond, now, &looks);
        let agreed = speaker.lacp().carriers(without);
        inner.state.agree(agreed);
        agreed
    }

    /// Lets others carry. Returns whether switches have to be told where addresses are now.
    fn carry(&self, inner: &mut Inner, now: Instant, before: Carriers, after: Carriers) -> bool {
        if let Some(reach) = &self.bond {
            reach.bond.steer(after);
        }
        let (sent, send) = (before.senders(), after.senders());
        let took_over = match (before, after) {
            (_, Carriers::One(member)) => inner.last.is_some_and(|last| last != member),
            (Carriers::One(_), _) => false,
            _ => send != 0 && sent & !send != 0,
        };
        // Not at the start: switches have not heard of anybody yet.
        let again = before != Carriers::Nobody || inner.outages > 0;
        if let Carriers::One(member) = after {
            inner.last = Some(member);
        }
        inner.since = now;
        inner.failovers += u64::from(took_over);
        inner.outages += u64::from(sent != 0 && send == 0);
        match after {
            Carriers::Nobody => false,
            Carriers::One(_) => again,
            Carriers::Shared(_) => again && before == Carriers::Nobody,
            Carriers::Agreed { .. } => again && send != 0 && sent & send == 0,
        }
    }

    /// Sends what is due of LACP, and tells of it.
    fn speak(&self, inner: &mut Inner, now: Instant) {
        let (Some(Reach { lane, .. }), Some(speaker)) = (&self.bond, &mut inner.speaker) else {
            return;
        };
        if let Some(port) = &*self.port.lock() {
            speaker.speak(
                now,
                &self.macs.lock(),
                |member, frame| port.send_first(member, *lane, frame),
                |member, frame| port.send_by_member(member, *lane, frame),
            );
        }
        speaker.tell(&self.physnet, &self.devices, now);
    }

    fn note_link(&self, member: usize, before: Option<Link>, link: Link) {
        let (physnet, device) = (&self.physnet, &self.devices[member]);
        match (before, link) {
            (_, Link::Absent) | (None, Link::Up) => {}
            (_, Link::Up) => tracing::info!(%physnet, %device, "the link is up"),
            (_, Link::Down) => tracing::warn!(%physnet, %device, "the link is down"),
        }
    }

    fn note_carriers(&self, carriers: Carriers) {
        let physnet = &self.physnet;
        if self.bond.is_none() {
            return;
        }
        let name = |(_, device): (usize, &Devargs)| device.to_string();
        let devices = self.devices.iter().enumerate().filter(|(at, _)| carries(carriers, *at));
        let devices = devices.map(name).collect::<Vec<_>>().join(" ");
        match carriers {
            Carriers::Nobody if self.settings.lock().lacp.is_some() => {
                tracing::error!(%physnet, "no member of the bond carries frames");
            }
            Carriers::Nobody => tracing::error!(%physnet, "no member of the bond has a link"),
            Carriers::Agreed { send: 0, .. } => {}
            _ => tracing::info!(%physnet, %devices, "frames are carried by"),
        }
    }

    /// Tells switches by which link addresses are reached now.
    fn announce(self: &Arc<Self>) {
        let watched = Arc::clone(self);
        tokio::spawn(async move {
            let Some(Reach { port, lane, fdb, clock, .. }) = &watched.bond else { return };
            for pause in ROUNDS {
                sleep(pause).await;
                let learned = fdb.entries(clock.seconds(cycles()));
                let frames = watched.hinterland.lock().frames(*port, &learned);
                let mut sent = 0;
                for frames in frames.chunks(CHORUS) {
                    sent += match &*watched.port.lock() {
                        Some(port) => port.announce(*lane, frames),
                        None => 0,
                    };
                    sleep(BREATH).await;
                }
                let (physnet, of) = (&watched.physnet, frames.len());
                tracing::info!(%physnet, sent, of, "announced the addresses behind the bond");
            }
        });
    }
}

fn carries(carriers: Carriers, member: usize) -> bool {
    carriers.senders() >> member & 1 == 1
}

/// Who tells whether the link of a device is up.
#[derive(Clone, Copy)]
enum Carrier {
    Driver,
    /// The kernel, and what it has told, if it has.
    Kernel(Option<bool>),
}

/// Whether an interface has a carrier; none if that cannot be told now.
async fn carrier(interface: &InterfaceName, kernel: &mut Option<Links>) -> Option<bool> {
    let found = kernel.as_mut()?.find(interface).await.ok()?;
    Some(found.is_some_and(|found| found.carrier))
}

/// A device's link and speed; no link if it cannot be told now.
fn look(wire: &Wire, carrier: Carrier) -> (Option<Link>, Option<u32>) {
    let driver = wire.link();
    let up = match carrier {
        Carrier::Driver => driver.map(|link| link.up),
        Carrier::Kernel(told) => told,
    };
    let link = up.map(|up| if up { Link::Up } else { Link::Down });
    (link, driver.and_then(|link| link.speed_mbps))
}

/// What happens to an interface of the kernel's; never, where nobody asks.
async fn event(kernel: &mut Option<Links>) -> Option<()> {
    match kernel {
        Some(links) => links.event().await.map(drop),
        None => std::future::pending().await,
    }
}
