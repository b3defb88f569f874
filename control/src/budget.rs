//! The pool as a budget: how many of its buffers each device may hold, and whether there are as many.
//!
//! A buffer is held by a receive queue that waits for a frame, by a transmit queue that is sending
//! one, and by each worker's cache. A pool that runs dry takes frames from all devices at once, and
//! nobody can tell whose fault it was. So the most that a device can hold is set aside when it is
//! opened, and one for which too little is left is refused, with what it would take.

use std::fmt;

use dataplane::dpdk::{Applied, DESCRIPTORS, Mempool};

use crate::config::{Config, Dpdk};
use crate::model::{Attachment, Desired, Devargs};

/// The most buffers that a device holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) receive: u32,
    pub(crate) transmit: u32,
}

/// What of the pool is not set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) frames: u32,
    /// What there is in all.
    dpdk: Amount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amount {
    pool_frames: u32,
    frame_bytes: u16,
    memory_mib: u32,
}

impl Holding {
    /// What a device holds with these queues. Devices that are programs (`virtual`) copy what they
    /// send, or hand it on at once.
    pub(crate) fn of(applied: &Applied, is_virtual: bool) -> Holding {
        let sum = |queues: u16, descriptors: u16| u32::from(queues) * u32::from(descriptors);
        Holding {
            receive: sum(applied.rxqs, applied.rx_descriptors),
            transmit: if is_virtual { 0 } else { sum(applied.txqs, applied.tx_descriptors) },
        }
    }

    /// What a device is taken to hold before it is asked: drivers differ.
    fn expected(device: &Devargs, workers: usize) -> Holding {
        let descriptors = u32::from(DESCRIPTORS);
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let transmit = if device.is_virtual() { 0 } else { descriptors.saturating_mul(workers) };
        Holding { receive: descriptors, transmit }
    }

    pub(crate) fn sum(self) -> u32 {
        self.receive.saturating_add(self.transmit)
    }
}

/// Buffers that the workers' caches hold.
pub(crate) fn caches(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX).saturating_mul(Mempool::CACHED_MAX)
}

impl Left {
    /// What is left besides the caches of the workers, and `held` by devices.
    pub(crate) fn new(config: &Config, held: u32) -> Left {
        let Dpdk { pool_frames, frame_bytes, memory_mib, .. } = config.dpdk;
        let taken = caches(config.workers.cores.len()).saturating_add(held);
        let dpdk = Amount { pool_frames, frame_bytes, memory_mib };
        Left { frames: pool_frames.saturating_sub(taken), dpdk }
    }

    /// Sets aside what a device holds.
    ///
    /// # Errors
    /// It is more than there is, as a sentence with what would do.
    pub(crate) fn take(&mut self, holding: Holding) -> Result<(), String> {
        let needed = holding.sum();
        match self.frames.checked_sub(needed) {
            Some(left) => {
                self.frames = left;
                Ok(())
            }
            None => {
                let Left { frames, dpdk } = *self;
                let Amount { pool_frames, frame_bytes, memory_mib } = dpdk;
                let enough = pool_frames.saturating_add(needed - frames);
                let mib = Dpdk::pool_mib(enough, frame_bytes);
                let memory = if mib > u64::from(memory_mib) {
                    format!(" and dpdk.memory_mib = {}", mib + 32)
                } else {
                    String::new()
                };
                let Holding { receive, transmit } = holding;
                Err(format!(
                    "it needs {needed} buffers of the pool ({receive} to receive, {transmit} to \
                     send), and {frames} of {pool_frames} are left; set dpdk.pool_frames = \
                     {enough}{memory} and restart, or remove another device"
                ))
            }
        }
    }
}

/// What a configuration and desired state make of memory, before anything is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Buffers of the pool, and their memory in MiB.
    pool: (u32, u64),
    /// MiB of DPDK.
    memory_mib: u32,
    /// Huge pages of 2 MiB: for DPDK, and for the FDB.
    pages: (u64, u64),
    workers: usize,
    /// Each device, what it holds, and the MiB that this is.
    devices: Vec<(String, Holding, u64)>,
}

impl Budget {
    /// The budget of this host. What devices hold is their drivers' to say: until they are opened, 1024
    /// descriptors a queue are expected.
    pub fn new(config: &Config, desired: &Desired) -> Budget {
        let Dpdk { pool_frames, frame_bytes, memory_mib, .. } = config.dpdk;
        let workers = config.workers.cores.len();
        let device = |name: String, holding: Holding| {
            (name, holding, Dpdk::pool_mib(holding.sum(), frame_bytes))
        };
        let uplinks = config.physnets.iter().flat_map(|(name, physnet)| {
            // Control sends by a bond too.
            let senders = workers + usize::from(physnet.bond.is_some());
            let devices = physnet.devices().iter();
            devices
                .map(move |its| device(format!("physnet {name}"), Holding::expected(its, senders)))
        });
        let ports = desired.ports.iter().filter_map(|(uuid, port)| {
            let holding = match &port.attachment {
                Attachment::VhostUser { .. } | Attachment::VfDirect(_) => return None,
                Attachment::Ethdev { device, .. } => Holding::expected(device, workers),
                Attachment::Tap { .. } => {
                    Holding { receive: crate::wire::TAP_DESCRIPTORS.into(), transmit: 0 }
                }
            };
            let name = port.name.as_ref().map_or_else(|| uuid.to_string(), ToString::to_string);
            Some(device(format!("port {name}"), holding))
        });
        Budget {
            pool: (pool_frames, Dpdk::pool_mib(pool_frames, frame_bytes)),
            memory_mib,
            pages: crate::setup::hugepages_needed(config),
            workers,
            devices: uplinks.chain(ports).collect(),
        }
    }

    /// Buffers that are taken in all: by devices, and by the workers' caches.
    fn taken(&self) -> u32 {
        let devices = self.devices.iter().map(|(_, holding, _)| holding.sum());
        devices.fold(caches(self.workers), u32::saturating_add)
    }
}

/// A line each: what is there, who takes it, and what is left.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dpdk, fdb) = self.pages;
        writeln!(f, "huge pages: {} of 2 MiB, {dpdk} for DPDK, {fdb} for the FDB", dpdk + fdb)?;
        let (frames, mib) = self.pool;
        writeln!(f, "pool: {frames} buffers, {mib} of DPDK's {} MiB", self.memory_mib)?;
        writeln!(f, "workers: {} buffers in {} caches", caches(self.workers), self.workers)?;
        for (name, Holding { receive, transmit }, mib) in &self.devices {
            let sum = receive + transmit;
            writeln!(
                f,
                "{name}: {sum} buffers ({receive} to receive, {transmit} to send), {mib} MiB"
            )?;
        }
        match frames.checked_sub(self.taken()) {
            Some(left) => write!(f, "left: {left} buffers"),
            None => write!(
                f,
                "over: {} buffers more are needed than there are; the last devices would be refused",
                self.taken() - frames
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pool_frames: u32, held: u32) -> Left {
        let dpdk = Amount { pool_frames, frame_bytes: 2048, memory_mib: 64 };
        Left { frames: pool_frames - held, dpdk }
    }

    #[test]
    fn a_device_takes_what_is_left_or_is_told_what_would_do() {
        let mut few = left(4096, 1000);
        assert_eq!(few.take(Holding { receive: 1024, transmit: 2048 }), Ok(()));
        assert_eq!(few.frames, 24);
        let refused = few.take(Holding { receive: 1024, transmit: 0 });
        assert_eq!(
            refused.expect_err("24 are left"),
            "it needs 1024 buffers of the pool (1024 to receive, 0 to send), and 24 of 4096 are \
             left; set dpdk.pool_frames = 5096 and restart, or remove another device"
        );
        assert_eq!(few.frames, 24, "who is refused takes nothing");
        let mut many = left(28_000, 28_000);
        let refused = many.take(Holding { receive: 1024, transmit: 1024 });
        let said = "set dpdk.pool_frames = 30048 and dpdk.memory_mib = 100 and restart";
        assert!(refused.clone().expect_err("nothing is left").contains(said), "{refused:?}");
    }

    #[test]
    fn memory_is_told_before_anything_is_started() {
        let folder = tempfile::TempDir::new().expect("a directory for the test");
        let file = folder.path().join("viaduct.toml");
        let text = "host = 'h'\nworkers.cores = [1, 2]\ndpdk.pool_frames = 8191\n\
                    physnets.p.device = '0000:01:00.0'\nphysnets.q.device = 'net_null0'\n";
        std::fs::write(&file, text).expect("the directory can be written");
        let mut config = Config::read(&file).unwrap_or_else(|errors| panic!("{errors}"));
        let told = |config: &Config| Budget::new(config, &Desired::default()).to_string();
        assert_eq!(
            told(&config),
            "huge pages: 129 of 2 MiB, 128 for DPDK, 1 for the FDB\n\
             pool: 8191 buffers, 19 of DPDK's 256 MiB\n\
             workers: 768 buffers in 2 caches\n\
             physnet p: 3072 buffers (1024 to receive, 2048 to send), 7 MiB\n\
             physnet q: 1024 buffers (1024 to receive, 0 to send), 3 MiB\n\
             left: 3327 buffers"
        );
        config.dpdk.pool_frames = 4095;
        let over = told(&config);
        assert!(over.ends_with("over: 769 buffers more are needed than there are; the last devices would be refused"), "{over}");
    }
}
