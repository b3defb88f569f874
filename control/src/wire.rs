//! An open DPDK device: what a physnet's uplink and an `ethdev` port are alike.

use std::sync::Arc;

use dataplane::dpdk::{EthConfig, EthDev, EthStats, Link, Mempool};
use dataplane::port::Rxq;
use dataplane::port::eth::{EthPort, EthSource};
use dataplane::snapshot::PortId;

use dataplane::dpdk::Eal;

use crate::budget::{Holding, Left};
use crate::model::{Devargs, InterfaceName, Mac};

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
    mtu: u16,
    /// What is set aside for it.
    holding: Holding,
    /// The MTU that it did not take, if that was the last one.
    refused_mtu: Option<u16>,
    shortfalls: Vec<String>,
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
        eal: &'static Eal,
        pool: &Mempool,
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
        };
        Self::start(eal, pool, (device.as_str(), device.is_virtual()), id, &config, left)
    }

    /// Makes a tap interface of this host and opens it as port `id`. It is up, and goes when this
    /// value is dropped.
    ///
    /// The error is a sentence, as that of [`open`](Self::open).
    pub(crate) fn open_tap(
        eal: &'static Eal,
        pool: &Mempool,
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
        };
        Self::start(eal, pool, (&device, true), id, &config, left)
    }

    fn start(
        eal: &'static Eal,
        pool: &Mempool,
        (device, is_virtual): (&str, bool),
        id: PortId,
        config: &EthConfig,
        left: &mut Left,
    ) -> Result<Opened, String> {
        let mut opened = EthDev::probe(eal, device).map_err(|error| error.to_string())?;
        let plan = opened.plan(config, pool).map_err(|error| error.to_string())?;
        let holding = Holding::of(&plan, is_virtual);
        left.take(holding)?;
        let started =
            opened.configure_and_start(config, pool).map_err(|error| error.to_string())?;
        let source = |(queue, number)| Rxq::new(id, number, Box::new(EthSource::new(queue)));
        let egress = EthPort::new(started.txqs, pool.clone(), started.applied.multi_segment_tx)
            .with_offloads(started.applied.tx_offloads);
        Ok(Opened {
            wire: Self {
                device: opened,
                mtu: started.applied.mtu,
                holding,
                refused_mtu: None,
                shortfalls: started.applied.shortfalls,
            },
            rxqs: started.rxqs.into_iter().zip(0..).map(source).collect(),
            egress: Arc::new(egress),
        })
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

    /// The state of its link; `None` if the driver does not say.
    pub(crate) fn link(&self) -> Option<Link> {
        self.device.link().ok()
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
