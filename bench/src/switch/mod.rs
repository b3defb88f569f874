//! The switches under test: how each is started, attached, paused and ended.
//!
//! A switch is a process with sockets (or, for the bound, a thread without). To add one, implement
//! [`Switch`] and name it in [`Contender`].

mod copy;
mod ovs;
mod process;
mod testpmd;
mod viaduct;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::front_end::{FrontEnd, Listener};
use crate::guest::Guest;
use crate::machine::Cores;
use crate::outcome::{BOUND, REFERENCE};
use crate::scenario::{Guests, Scenario};

pub use copy::Copy;
pub use ovs::{OVS, OVS_CONNTRACK, OVS_RULES, Ovs, Pipeline};
pub use process::Process;
pub use testpmd::Testpmd;
pub use viaduct::{SWAPPING, Viaduct};

/// How long a switch may take to open or to answer its sockets.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a switch is started, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Bed<'a> {
    /// A directory for sockets, configuration and logs, the switch's own, gone afterwards.
    pub directory: &'a Path,
    /// Which cores to use.
    pub cores: Cores,
    /// The load to come.
    pub scenario: &'a Scenario,
    /// How many ports to make, one for each guest.
    pub ports: u16,
}

impl Bed<'_> {
    /// The socket of a port, counted from 0.
    pub fn socket(&self, port: u16) -> PathBuf {
        self.directory.join(format!("port{port}.sock"))
    }

    /// The devargs of a guest's uplink, counted from 0: a memif in this process, whose other end is
    /// the other guest's.
    pub fn uplink(&self, guest: u16) -> String {
        let role = if guest == 0 { "server" } else { "client" };
        let socket = self.directory.join("memif.sock");
        format!("net_memif{guest},role={role},socket={},socket-abstract=no", socket.display())
    }

    /// One listener for each port, for a switch that connects.
    fn listen(&self) -> Result<Vec<Listener>> {
        (0..self.ports).map(|port| Listener::bind(&self.socket(port))).collect()
    }

    /// Starts each guest's rings over the connection that the switch makes.
    fn accept(&self, listeners: &[Listener], guests: &Guests) -> Result<Vec<FrontEnd>> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        listeners
            .iter()
            .zip(guests.all())
            .map(|(listener, guest)| started(listener.accept(deadline)?, guest))
            .collect()
    }

    /// Connects to each port's socket, for a switch that listens, and starts each guest's rings.
    fn connect(&self, guests: &Guests) -> Result<Vec<FrontEnd>> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        (0..self.ports)
            .zip(guests.all())
            .map(|(port, guest)| started(FrontEnd::connect(&self.socket(port), deadline)?, guest))
            .collect()
    }
}

fn started(mut front_end: FrontEnd, guest: &Guest) -> Result<FrontEnd> {
    front_end.start(guest)?;
    Ok(front_end)
}

/// A switch under test. Dropping it ends it.
pub trait Switch {
    /// What the report calls it.
    fn name(&self) -> &str;

    /// How many ports it is given for a scenario; one that cannot switch between more takes two.
    fn ports(&self, scenario: &Scenario) -> u16 {
        scenario.ports
    }

    /// Whether it has what the scenario's frames pass through.
    fn has_path(&self, _: &Scenario) -> bool {
        true
    }

    /// Whether segments arrive as they were sent. DPDK's vhost library computes the sum of the
    /// pseudo-header anew and leaves the length out of it.
    fn keeps_sums(&self) -> bool {
        true
    }

    /// How often its rules were replaced so far, if that is what is measured of it.
    fn swaps(&self) -> Option<u64> {
        None
    }

    /// Starts it on its core and attaches the guests. The sessions live as long as the guests are
    /// attached; a switch without sockets has none.
    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>>;

    /// Stops it from using its core, until [`Self::resume`]. Does nothing when it is not running.
    fn pause(&mut self) -> Result<()>;

    /// Lets it go on.
    fn resume(&mut self) -> Result<()>;

    /// Fails, with the end of its log, if it has died.
    fn check(&mut self) -> Result<()>;

    /// How it was started, for the report.
    fn command(&self) -> String;

    /// The end of its log, for errors; empty for a switch without one.
    fn log_end(&self) -> String {
        String::new()
    }
}

/// The names that [`Contender::new`] knows, all switches but the reference.
pub const CONTENDERS: [&str; 6] = [BOUND, VIADUCT, OVS, OVS_RULES, OVS_CONNTRACK, testpmd::AGAIN];

/// Those of [`CONTENDERS`] that take part only in scenarios with rules.
pub const WITH_RULES_ONLY: [&str; 2] = [OVS_RULES, OVS_CONNTRACK];

/// The name of Viaduct's program of the command line.
pub const VIADUCT: &str = "viaduct";

/// A switch to compare with the reference; not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contender {
    /// What the report calls it.
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Copy,
    TestpmdAgain,
    Viaduct { program: PathBuf },
    Ovs { root: PathBuf, pipeline: Pipeline },
}

impl Contender {
    /// The switch that `text` means: a name of [`CONTENDERS`], or `NAME=PATH`, which calls the
    /// Viaduct in that program so. `viaduct` is the path of the program without a name of its own,
    /// `ovs` the directory with Open vSwitch, if there is one.
    pub fn new(text: &str, viaduct: Option<&Path>, ovs: Option<&Path>) -> Result<Self> {
        if let Some((name, program)) = text.split_once('=') {
            ensure!(
                !name.is_empty() && !program.is_empty(),
                "switch {text:?}: write NAME=PATH, with a name of your own for the program"
            );
            ensure!(
                name == VIADUCT || (name != REFERENCE && !CONTENDERS.contains(&name)),
                "switch {text:?}: {name} is another switch's name; choose one of your own"
            );
            return Ok(Self::viaduct(name, Path::new(program)));
        }
        let kind = match text {
            BOUND => Kind::Copy,
            testpmd::AGAIN => Kind::TestpmdAgain,
            VIADUCT => {
                let program =
                    viaduct.context("switch viaduct: give its program with --viaduct PATH")?;
                return Ok(Self::viaduct(VIADUCT, program));
            }
            OVS | OVS_RULES | OVS_CONNTRACK => {
                let root = ovs.with_context(|| {
                    format!("switch {text}: give Open vSwitch's directory with --ovs DIRECTORY")
                })?;
                let pipeline = match text {
                    OVS_RULES => Pipeline::Rules,
                    OVS_CONNTRACK => Pipeline::Conntrack,
                    _ => Pipeline::Normal,
                };
                Kind::Ovs { root: root.to_owned(), pipeline }
            }
            _ => bail!("there is no switch {text:?}: choose from {}", CONTENDERS.join(", ")),
        };
        Ok(Self { name: text.to_owned(), kind })
    }

    fn viaduct(name: &str, program: &Path) -> Self {
        Self { name: name.to_owned(), kind: Kind::Viaduct { program: program.to_owned() } }
    }

    /// What takes part in a scenario: the switch if it has what it needs for that, and where rules are
    /// replaced under way, the switch once with that and once without.
    pub fn switches(&self, scenario: &Scenario) -> Vec<Box<dyn Switch>> {
        let mut switches: Vec<Box<dyn Switch>> = vec![match &self.kind {
            Kind::Copy => Box::new(Copy::new()),
            Kind::TestpmdAgain => Box::new(Testpmd::again()),
            Kind::Ovs { root, pipeline } => Box::new(Ovs::new(root.clone(), *pipeline)),
            Kind::Viaduct { program } => Box::new(Viaduct::new(self.name.clone(), program.clone())),
        }];
        if let (Kind::Viaduct { program }, true) = (&self.kind, scenario.swaps) {
            let viaduct = Viaduct::new(self.name.clone(), program.clone());
            switches.push(Box::new(viaduct.swapping()));
        }
        switches.retain(|switch| switch.has_path(scenario));
        switches
    }
}
