//! `dpdk-testpmd` forwarding `io` between two `net_vhost` ports: the reference.
//!
//! It looks at no header and decides nothing, so it is the ceiling of every switch that uses DPDK's
//! vhost library, and it is in the distribution, so everybody can repeat it.

use std::process::Command;

use anyhow::{Context, Result};

use super::process::Process;
use super::{Bed, Switch};
use crate::front_end::FrontEnd;
use crate::machine::Description;
use crate::outcome::REFERENCE;
use crate::scenario::{Guests, Scenario};

/// Memory for its frames, in MiB.
const MEMORY_MIB: u64 = 128;
/// Frames that fit in that memory; its default asks for far more.
const FRAMES: u32 = 16_384;

/// The name of [`Testpmd::again`].
pub const AGAIN: &str = "testpmd-again";

/// The reference switch.
#[derive(Debug)]
pub struct Testpmd {
    name: &'static str,
    process: Option<Process>,
}

impl Testpmd {
    /// The reference; not started yet.
    pub fn new() -> Self {
        Self { name: REFERENCE, process: None }
    }

    /// The same once more, as a contender: how far its ratio is from 1 is the bench's own error.
    pub fn again() -> Self {
        Self { name: AGAIN, process: None }
    }
}

impl Switch for Testpmd {
    fn name(&self) -> &str {
        self.name
    }

    fn ports(&self, _: &Scenario) -> u16 {
        // It joins ports in pairs; more of them would be a different measurement.
        2
    }

    fn keeps_sums(&self) -> bool {
        false
    }

    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>> {
        let mut command = Command::new("dpdk-testpmd");
        let cores = bed.cores;
        command
            .args(["-l", &format!("{},{}", cores.generator, cores.switch)])
            // The main thread only waits for input, so it may sit beside the generator.
            .args(["--main-lcore", &cores.generator.to_string()])
            .args(["--no-pci", "--no-telemetry", "-m", &MEMORY_MIB.to_string()]);
        if Description::read().free_huge_pages >= MEMORY_MIB / 2 {
            // No files left behind, and no clash with other DPDK programs.
            command.arg("--in-memory");
        } else {
            command.args(["--no-huge", "--no-shconf"]);
        }
        for port in 0..bed.ports {
            let socket = bed.socket(port);
            let mut device = format!("net_vhost{port},iface={},queues=1", socket.display());
            if bed.scenario.segments {
                // The second has a frame's offloads stay with it when nobody looks at them.
                device += ",tso=1,legacy-ol-flags=1";
            }
            let mut devices = vec![device];
            if bed.scenario.uplinks {
                // It joins the first and the second port, and the third and the fourth.
                let place = if port == 0 { 1 } else { 0 };
                devices.insert(place, bed.uplink(port));
            }
            for device in devices {
                command.args(["--vdev", &device]);
            }
        }
        command.args(["--", "--auto-start", "--forward-mode=io", "--nb-cores=1", "--burst=32"]);
        if bed.scenario.segments {
            // A frame in one buffer: it is several times faster so than in dozens.
            command.args(["--mbuf-size=65408", "--total-num-mbufs=1280"]);
        } else {
            command.arg(format!("--total-num-mbufs={FRAMES}"));
        }
        let process = Process::start(self.name(), command, bed.directory, cores)
            .context("is the package dpdk installed?")?;
        let process = self.process.insert(process);
        bed.connect(guests).with_context(|| process.log_end())
    }

    fn pause(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    fn command(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.command().to_owned())
    }

    fn log_end(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log_end)
    }
}
