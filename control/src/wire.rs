//! An open DPDK device: what a physnet's uplink and an `ethdev` port are alike.

use std::sync::Arc;

use dataplane::dpdk::{EthConfig, EthDev, Link, Mempool};
use dataplane::port::Rxq;
use dataplane::port::eth::{EthPort, EthSource};
use dataplane::snapshot::PortId;

use dataplane::dpdk::Eal;

use crate::model::{Devargs, Mac};

/// An open device. Its receive queues must be given back before it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    device: EthDev,
    mtu: u16,
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
    ) -> Result<Opened, String> {
        let mut opened = EthDev::probe(eal, device.as_str()).map_err(|error| error.to_string())?;
        let config = EthConfig {
            rxqs: 1,
            txqs: u16::try_from(workers).unwrap_or(u16::MAX),
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu,
            promiscuous: true,
        };
        let started =
            opened.configure_and_start(&config, pool).map_err(|error| error.to_string())?;
        let source = |(queue, number)| Rxq::new(id, number, Box::new(EthSource::new(queue)));
        let egress = EthPort::new(started.txqs, pool.clone(), started.applied.multi_segment_tx)
            .with_offloads(started.applied.tx_offloads);
        Ok(Opened {
            wire: Self {
                device: opened,
                mtu: started.applied.mtu,
                shortfalls: started.applied.shortfalls,
            },
            rxqs: started.rxqs.into_iter().zip(0..).map(source).collect(),
            egress: Arc::new(egress),
        })
    }

    /// The largest payload of a frame in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
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

    /// Its MAC address, if it has a usable one.
    pub(crate) fn mac(&self) -> Option<Mac> {
        Mac::new(self.device.mac().ok()?).ok()
    }
}
