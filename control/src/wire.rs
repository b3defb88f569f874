//! An open DPDK device: what a physnet's uplink and an `ethdev` port are alike.
//!
//! A device of PCI is taken for the switch before it is opened, and given back when it has been closed
//! (`pci`). One that is a virtual function is looked after: it can be taken away, and made deaf, by whom
//! its card belongs to.

mod heard;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use dataplane::dpdk::{DeviceEvent, EthConfig, EthDev, EthStats, Link, Mempool, Started};
use dataplane::port::Rxq;
use dataplane::port::eth::{EthPort, EthSource};
use dataplane::snapshot::PortId;
use parking_lot::Mutex;

use self::heard::Heard;
pub(crate) use self::heard::Macs;
use crate::budget::{Holding, Left};
use crate::engine::Engine;
use crate::model::{Devargs, InterfaceName, Mac, PciAddress};
use crate::nic::OwnVfs;
use crate::pci::{self, Claim, PfState, PfWatch, Stay};

/// The largest MTU of DPDK's net_tap: its frames have 1522 octets at most, of which 18 are not payload.
const TAP_MTU_MAX: u16 = 1504;

/// The first number of the net_tap devices that stand for tap ports.
const TAP_NUMBERS: usize = 900_000;

/// Descriptors of a tap interface's receive queue. Each is a buffer that the driver keeps, for the
/// pieces of one frame.
pub(crate) const TAP_DESCRIPTORS: u16 = 16;

/// An open device. Its receive queues must be given back before it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    device: EthDev,
    id: PortId,
    /// How it was started.
    config: EthConfig,
    /// When that was.
    started: Instant,
    /// The address that its card has for it, if its driver does not take that.
    refused_mac: Mutex<Option<Mac>>,
    /// How it is called at its card, if that drops what it sends from other addresses than its own.
    spoofchk: Mutex<Option<String>>,
    /// The card that it is a virtual function of.
    card: Option<PfWatch>,
    /// What has it stay with the switch's driver when it is closed, if it is a device of PCI.
    stay: Option<Stay>,
    /// What its card was asked to give it, if it is a virtual function. Held by who talks to the card:
    /// drivers have one letter box to it, and take each other's answers.
    heard: Option<Mutex<Heard>>,
    mtu: u16,
    /// What is set aside for it.
    holding: Holding,
    /// The MTU that it did not take, if that was the last one.
    refused_mtu: Option<u16>,
    shortfalls: Vec<String>,
}

/// What was heard of devices lately.
pub(crate) struct News {
    /// What they have told themselves.
    pub(crate) events: Vec<DeviceEvent>,
    /// How their cards have those set that are virtual functions.
    pub(crate) own: OwnVfs,
}

/// What is wrong with an open device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ailment {
    /// It is gone, or has to be let go: it is to be closed.
    Removed(String),
    /// Its card has reset it: its driver has to set it up anew.
    Reset(String),
    /// It hears nothing before it is started anew.
    Deaf(String),
    /// Its card has given it this address, and it uses another one.
    Renamed(Mac),
}

impl std::fmt::Display for Ailment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ailment::Removed(why) | Ailment::Reset(why) | Ailment::Deaf(why) => f.write_str(why),
            Ailment::Renamed(mac) => write!(f, "its card has given it the address {mac}"),
        }
    }
}

/// A device that was just opened, and what is to be polled and sent by.
pub(crate) struct Opened {
    pub(crate) wire: Wire,
    pub(crate) rxqs: Vec<Rxq>,
    pub(crate) egress: Arc<EthPort>,
}

impl Wire {
    /// Opens a device as port `id`, with a transmit queue for each worker if it has as many.
    ///
    /// The error is a sentence that says what failed and, where that is known, what to do.
    pub(crate) fn open(
        engine: &Engine,
        device: &Devargs,
        id: PortId,
        mtu: u16,
        workers: usize,
        left: &mut Left,
    ) -> Result<Opened, String> {
        // net_tap refuses to have more transmit queues than receive queues.
        let senders = if device.device().starts_with("net_tap") { 1 } else { workers };
        let config = EthConfig {
            rxqs: 1,
            txqs: u16::try_from(senders).unwrap_or(u16::MAX),
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu,
            promiscuous: true,
            vlan_filter: false,
        };
        let Engine { eal, pool } = engine;
        let host = pci::Host::default();
        let address = pci::address(&host, device).map_err(|misfit| misfit.to_string())?;
        let Some(address) = address else {
            let probed = EthDev::probe(eal, device.as_str()).map_err(|error| error.to_string())?;
            return Self::start(probed, device.is_virtual(), pool, id, config, left);
        };
        let claim = Claim::take(&host, &address).map_err(|misfit| misfit.to_string())?;
        let stay = claim.stay();
        let probed = EthDev::probe(eal, &device.at(&address)).map_err(|error| error.to_string())?;
        let probed = probed.guarded(Box::new(claim));
        // Watched from before it is started, so that nothing is missed.
        let card = PfWatch::of(&host, &address);
        let config = EthConfig { vlan_filter: card.is_some(), ..config };
        let mut opened = Self::start(probed, device.is_virtual(), pool, id, config, left)?;
        (opened.wire.stay, opened.wire.card) = (Some(stay), card);
        Ok(opened)
    }

    /// Makes a tap interface of this host and opens it as port `id`. It is up, and goes when this
    /// value is dropped.
    ///
    /// The error is a sentence, as that of [`open`](Self::open).
    pub(crate) fn open_tap(
        engine: &Engine,
        interface: &InterfaceName,
        mac: Option<Mac>,
        id: PortId,
        mtu: u16,
        left: &mut Left,
    ) -> Result<Opened, String> {
        // One name a port; operators, who number their devices from 0, are out of the way.
        let number = TAP_NUMBERS + id.index();
        let mut device = format!("net_tap{number},iface={interface}");
        if let Some(mac) = mac {
            device += &format!(",mac={mac}");
        }
        let config = EthConfig {
            // The driver has as many transmit queues as receive queues; a service on this host needs
            // no more than one.
            rxqs: 1,
            txqs: 1,
            rx_descriptors: TAP_DESCRIPTORS,
            tx_descriptors: 0,
            mtu: mtu.min(TAP_MTU_MAX),
            // All that the kernel sends arrives in any case. The driver would set the interface so,
            // and the kernel would listen to what is meant for others.
            promiscuous: false,
            vlan_filter: false,
        };
        let Engine { eal, pool } = engine;
        let probed = EthDev::probe(eal, &device).map_err(|error| error.to_string())?;
        Self::start(probed, true, pool, id, config, left)
    }

    fn start(
        mut device: EthDev,
        is_virtual: bool,
        pool: &Mempool,
        id: PortId,
        config: EthConfig,
        left: &mut Left,
    ) -> Result<Opened, String> {
        let plan = device.plan(&config, pool).map_err(|error| error.to_string())?;
        let holding = Holding::of(&plan, is_virtual);
        left.take(holding)?;
        let started =
            device.configure_and_start(&config, pool).map_err(|error| error.to_string())?;
        // Of virtual functions alone that is asked.
        let is_vf = config.vlan_filter;
        let wire = Self {
            device,
            id,
            config,
            started: Instant::now(),
            refused_mac: Mutex::default(),
            spoofchk: Mutex::default(),
            card: None,
            stay: None,
            heard: is_vf.then(|| {
                let vlans = started.applied.vlan_filter.then(BTreeSet::new);
                Mutex::new(Heard { vlans, ..Heard::default() })
            }),
            mtu: started.applied.mtu,
            holding,
            refused_mtu: None,
            shortfalls: started.applied.shortfalls.clone(),
        };
        let (rxqs, egress) = wire.ends(started, pool);
        Ok(Opened { wire, rxqs, egress })
    }

    /// Stops the device and starts it again, since it was reset, has become deaf or has another address.
    /// Its queues must have been given back. The error is a sentence; the device is to be closed then.
    pub(crate) fn restart(
        &mut self,
        pool: &Mempool,
        ailment: &Ailment,
    ) -> Result<(Vec<Rxq>, Arc<EthPort>), String> {
        if let Some(card) = &mut self.card {
            card.started();
        }
        match ailment {
            Ailment::Removed(why) => return Err(why.clone()),
            Ailment::Reset(_) => self.device.reset().map_err(|error| error.to_string())?,
            Ailment::Deaf(_) => {}
            Ailment::Renamed(mac) => {
                // Drivers tell their cards the address again when they are started, and a card that
                // trusts them would go back to the former one. What is refused is tried once more below.
                // It cannot be both its own address and one of the others.
                if self.macs().is_some_and(|macs| macs.present.contains(mac)) {
                    let _ = self.device.remove_mac(mac.octets());
                }
                let _ = self.device.set_mac(mac.octets());
                self.device.reset().map_err(|error| error.to_string())?;
            }
        }
        let started = self.device.configure_and_start(&self.config, pool);
        if let Some(heard) = &mut self.heard {
            heard.get_mut().forget();
        }
        let ends = self.ends(started.map_err(|error| error.to_string())?, pool);
        self.started = Instant::now();
        *self.refused_mac.get_mut() = match ailment {
            Ailment::Renamed(mac) => self.refuses(*mac).then_some(*mac),
            _ => None,
        };
        Ok(ends)
    }

    /// Whether it cannot be brought to use this address, which its card has for it.
    fn refuses(&self, mac: Mac) -> bool {
        if self.mac() == Some(mac) {
            return false;
        }
        if let Err(error) = self.device.set_mac(mac.octets()) {
            tracing::warn!("{error}");
        }
        self.mac() != Some(mac)
    }

    /// What is polled and sent by.
    fn ends(&self, started: Started, pool: &Mempool) -> (Vec<Rxq>, Arc<EthPort>) {
        let source = |(queue, number)| Rxq::new(self.id, number, Box::new(EthSource::new(queue)));
        let egress = EthPort::new(started.txqs, pool.clone(), started.applied.multi_segment_tx)
            .with_offloads(started.applied.tx_offloads);
        (started.rxqs.into_iter().zip(0..).map(source).collect(), Arc::new(egress))
    }

    /// Has the device receive the tagged frames of these VLANs, where it receives none unasked.
    pub(crate) fn hear_vlans(&self, wanted: &BTreeSet<u16>) {
        let Some(mut heard) = self.heard.as_ref().map(Mutex::lock) else { return };
        let Some(heard) = &mut heard.vlans else { return };
        let changes = heard.symmetric_difference(wanted).copied().collect::<Vec<_>>();
        for vlan in changes {
            let hear = wanted.contains(&vlan);
            if let Err(error) = self.device.hear_vlan(vlan, hear) {
                tracing::warn!(vlan, "{error}");
            }
            // Refused once, it is not asked for again before something changes.
            if hear {
                heard.insert(vlan)
            } else {
                heard.remove(&vlan)
            };
        }
    }

    /// Has the device receive frames to these addresses, if it is a virtual function that receives none to
    /// others than its own: whether its card trusts it has to be told.
    pub(crate) fn hear_macs(&self, wanted: &BTreeSet<Mac>, trusted: bool) {
        let Some(mut heard) = self.heard.as_ref().map(Mutex::lock) else { return };
        let own = self.mac();
        let wanted = match pci::needs_filters(self.driver(), trusted) {
            true => wanted.iter().copied().filter(|mac| Some(*mac) != own).collect(),
            false => BTreeSet::new(),
        };
        let newly = heard.macs.keep(&wanted, trusted, |mac, hear| {
            let answer = match hear {
                true => self.device.add_mac(mac.octets()),
                false => self.device.remove_mac(mac.octets()),
            };
            answer.map_err(|error| error.to_string())
        });
        if newly {
            tracing::warn!(
                "{}: {} addresses behind the switch get nothing by it",
                heard.macs.why,
                heard.macs.refused.len()
            );
        }
    }

    /// The addresses that it was asked to receive frames for; none of what is no virtual function.
    pub(crate) fn macs(&self) -> Option<Macs> {
        Some(self.heard.as_ref()?.lock().macs.clone())
    }

    /// The address of a device of PCI.
    pub(crate) fn address(&self) -> Option<PciAddress> {
        PciAddress::parse(self.device.name())
    }

    /// Looks whether the device has to be seen to, by what was heard lately and by its card.
    pub(crate) fn ailment(&self, news: &News) -> Option<Ailment> {
        let (name, port) = (self.device.name(), self.device.port());
        for event in &news.events {
            match event {
                DeviceEvent::Removal(removed) if removed == name => {
                    let why = format!("the host has taken the device {name} away");
                    return Some(Ailment::Removed(why));
                }
                DeviceEvent::Gone(gone) if *gone == port => {
                    return Some(Ailment::Removed(format!("the device {name} is gone")));
                }
                _ => {}
            }
        }
        if news.events.contains(&DeviceEvent::Reset(port)) {
            return Some(Ailment::Reset("its card has reset it".to_owned()));
        }
        let renamed = || self.new_mac(&news.own).map(Ailment::Renamed);
        match self.card.as_ref()?.look() {
            PfState::Returned(card) => renamed()
                .or_else(|| Some(Ailment::Deaf(format!("its card {card} was down, or was reset")))),
            PfState::Well | PfState::NoCarrier(_) => renamed(),
            // It would ask its card, which does not answer.
            PfState::Down(_) => None,
        }
    }

    /// The address that its card has for it, if it uses another one and was not brought to that yet.
    fn new_mac(&self, own: &OwnVfs) -> Option<Mac> {
        // What was seen before it was started may be how another function was set, in its place.
        if own.looked <= self.started {
            return None;
        }
        let (_, _, settings) = own.vfs.get(&self.address()?)?;
        let (given, mac) = (settings.mac?, self.mac()?);
        let mut refused = self.refused_mac.lock();
        if given == mac {
            *refused = None;
        }
        (given != mac && *refused != Some(given)).then_some(given)
    }

    /// Why no frame can pass at the moment, if more is known than that its link is down.
    pub(crate) fn trouble(&self) -> Option<String> {
        let PfState::Down(card) = self.card.as_ref()?.look() else { return None };
        Some(format!(
            "the interface {card} of its card is down, and it hears nothing: ip link set {card} up"
        ))
    }

    /// Has the device stay with the switch's driver when it is closed: another process opens it then.
    pub(crate) fn leave(&self) {
        if let Some(stay) = &self.stay {
            stay.set();
        }
    }

    /// Takes note of whether its card drops what it sends from other addresses than its own: then it is
    /// called so where that can be changed.
    pub(crate) fn checked(&self, name: Option<String>) {
        *self.spoofchk.lock() = name;
    }

    /// What frames do not pass though the link is up, since the device is a virtual function.
    pub(crate) fn limits(&self) -> Option<String> {
        self.card.as_ref()?;
        let limits = pci::limits(self.driver());
        let (Some(given), Some(mac)) = (*self.refused_mac.lock(), self.mac()) else {
            let checked = self.spoofchk.lock().as_ref().map(|name| {
                format!(
                    "; what it sends from other addresses than its own, its card drops (ip link set \
                     {name} spoofchk off)"
                )
            });
            return Some(format!("{limits}{}", checked.unwrap_or_default()));
        };
        Some(format!(
            "its card has given it the address {given}, and its driver stays with {mac}, to which frames \
             may not arrive: set that back (ip link set PF vf N mac {mac}), or restart the switch; {limits}"
        ))
    }

    /// Changes the MTU of a tap interface, as far as its driver can. What was in force stays if the
    /// interface cannot be reached, since it is in a namespace of its own.
    pub(crate) fn limit_tap(&mut self, mtu: u16) {
        let mtu = mtu.min(TAP_MTU_MAX);
        if mtu == self.mtu {
            return;
        }
        match self.device.set_mtu(mtu) {
            Ok(()) => (self.mtu, self.refused_mtu) = (mtu, None),
            Err(error) if self.refused_mtu != Some(mtu) => {
                self.refused_mtu = Some(mtu);
                tracing::warn!("{error}");
            }
            Err(_) => {}
        }
    }

    /// The largest payload of a frame in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The buffers that are set aside for it.
    pub(crate) fn holding(&self) -> Holding {
        self.holding
    }

    /// What of our wishes the device could not meet, a sentence each.
    pub(crate) fn shortfalls(&self) -> &[String] {
        &self.shortfalls
    }

    /// The name of its driver.
    pub(crate) fn driver(&self) -> &str {
        self.device.driver_name()
    }

    /// The state of its link; `None` if the driver does not say, or its card cannot be asked just now. A
    /// virtual function has none while the interface of its card is down, whatever its driver says.
    pub(crate) fn link(&self) -> Option<Link> {
        let _heard = match &self.heard {
            Some(heard) => Some(heard.try_lock()?),
            None => None,
        };
        let link = self.device.link().ok()?;
        Some(Link { up: link.up && self.trouble().is_none(), ..link })
    }

    /// What it has counted; `None` if the driver does not say.
    pub(crate) fn stats(&self) -> Option<EthStats> {
        self.device.stats().ok()
    }

    /// Its MAC address, if it has a usable one.
    pub(crate) fn mac(&self) -> Option<Mac> {
        Mac::new(self.device.mac().ok()?).ok()
    }
}
