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
    /// How often links are looked at.
    pub(crate) interval: Duration,
}

struct Inner {
    state: BondState,
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
            hinterland: Mutex::default(),
            inner: Mutex::new(Inner {
                state: BondState::new(settings.rules, devices.len(), now),
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
            }
        };
        let members = inner.state.members().iter().zip(&inner.members).enumerate();
        let looked = inner.state.members().iter().any(|member| member.link.is_some());
        WireStatus {
            members: members.map(member).collect(),
            since: inner.since.elapsed(),
            failovers: inner.failovers,
            outages: inner.outages,
            dead: looked && carriers == Carriers::Nobody,
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
            let interval = self.settings.lock().interval;
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
        let rules = self.settings.lock().rules;
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
        inner.state.set_rules(rules);
        let after = inner.state.look(now, &links);
        if before == after {
            return;
        }
        if let Some(reach) = &self.bond {
            reach.bond.steer(after);
        }
        let took_over = match (before, after) {
            (_, Carriers::One(member)) => inner.last.is_some_and(|last| last != member),
            (Carriers::Shared(before), Carriers::Shared(after)) => before & !after != 0,
            _ => false,
        };
        // Not at the start: switches have not heard of anybody yet.
        let again = before != Carriers::Nobody || inner.outages > 0;
        if let Carriers::One(member) = after {
            inner.last = Some(member);
        }
        inner.since = now;
        inner.failovers += u64::from(took_over);
        inner.outages += u64::from(after == Carriers::Nobody);
        drop(inner);
        self.note_carriers(after);
        let moved = match after {
            Carriers::One(_) => again,
            Carriers::Shared(_) => again && before == Carriers::Nobody,
            Carriers::Nobody => false,
        };
        if moved {
            self.announce();
        }
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
            Carriers::Nobody => tracing::error!(%physnet, "no member of the bond has a link"),
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
    match carriers {
        Carriers::Nobody => false,
        Carriers::One(one) => one == member,
        Carriers::Shared(mask) => mask >> member & 1 == 1,
    }
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
