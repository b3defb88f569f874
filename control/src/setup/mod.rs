//! What a host must have before a switch can run on it as configured, and what of it is lacking.
//!
//! The facts are gathered first ([`Host`]) and judged after ([`judge`]), so that the judgement can be
//! tested with hosts that are not there. What is lacking is of three kinds: what can be had at once
//! ([`Remedy::Now`], done by [`prepare`]), what takes a boot with other parameters of the kernel, and
//! what is not for a program to decide. Preparing a host twice changes nothing the second time.

mod apply;
mod host;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::problem::Problem;

pub use self::host::Host;
pub use self::judge::{hugepages_needed, judge};

/// The user that the switch runs as when it is a service, and that user's group.
pub const USER: &str = "viaduct";

/// The group of QEMU's processes on Debian and Ubuntu, which make and connect to guests' sockets.
pub const GUEST_GROUP: &str = "kvm";

/// One thing that a host must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is about, in a word or two.
    pub part: String,
    /// What there is of it.
    pub found: String,
    /// What is lacking of it.
    pub lack: Option<Lack>,
}

/// What is lacking, and how it is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What to do, in words.
    pub words: String,
    /// What kind of thing that is.
    pub remedy: Remedy,
}

/// How something that is lacking is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Now, by a program that may.
    Now(Action),
    /// By these parameters of the kernel, at the next boot.
    Boot(BTreeSet<String>),
    /// By who is responsible for the host.
    Hand,
}

/// What can be done at once. Each sets a state, so that doing it again does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have the kernel hold so many huge pages of 2 MiB in all.
    Hugepages(u64),
    /// Load a module of the kernel.
    LoadModule(&'static str),
    /// Take a PCI device, by address, from the driver that has it, if any, and give it to vfio-pci.
    Bind(String),
    /// Make a directory and those above it, or let an existing file be of this user and group.
    Own {
        /// Its path.
        path: PathBuf,
        /// The user's number.
        user: u32,
        /// The group's number.
        group: u32,
        /// Permissions.
        mode: u32,
        /// Whether it is a directory to be made.
        make: bool,
    },
    /// Make the service's user and group.
    AddUser,
    /// Put the service's user into a group.
    JoinGroup(String),
}

/// What a host is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A switch.
    Start,
    /// A switch, and a second one that takes over from it: for that time each has memory of its own.
    Handover,
}

/// What became of a need, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What it is about.
    pub part: String,
    /// How it stands.
    pub state: State,
    /// What there is of it.
    pub found: String,
    /// What to do about what is lacking; empty if nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Parameters of the kernel that the remedy takes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub kernel_parameters: BTreeSet<String>,
}

/// How a need stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was there.
    Ok,
    /// It was lacking and is there now.
    Done,
    /// It is lacking, and `viaduct setup` can do it: it was only to tell, or it could not.
    Lacking,
    /// It takes a boot.
    Boot,
    /// Somebody has to do it.
    Hand,
}

/// How often the host is looked at again: the user is needed before its directories, a driver before
/// its devices.
const ROUNDS: usize = 4;

/// Tells what a host lacks for a configuration, and changes nothing.
pub fn tell(config: &Config, purpose: Purpose) -> Result<Vec<Outcome>, Problem> {
    let needs = judge(config, &Host::here(config)?, purpose);
    Ok(needs.into_iter().map(|need| Outcome::of(need, false)).collect())
}

/// Does what can be done at once about what a host lacks, and tells what became of each.
pub fn prepare(config: &Config, purpose: Purpose) -> Result<Vec<Outcome>, Problem> {
    let before = judge(config, &Host::here(config)?, purpose);
    let lacked = |need: &Need| {
        let same = |it: &&Need| it.part == need.part;
        before.iter().find(same).is_none_or(|it| it.lack.is_some())
    };
    let mut needs = before.clone();
    let mut failures = Vec::new();
    for _ in 0..ROUNDS {
        let mut any = false;
        failures.clear();
        for need in &needs {
            let Some(Lack { remedy: Remedy::Now(action), .. }) = &need.lack else { continue };
            match apply::apply(action) {
                Ok(()) => any = true,
                Err(why) => failures.push((need.part.clone(), why)),
            }
        }
        if !any {
            break;
        }
        needs = judge(config, &Host::here(config)?, purpose);
    }
    let outcomes = needs.into_iter().map(|need| {
        let failure = failures.iter().find(|(part, _)| *part == need.part);
        let mut outcome = Outcome::of(need.clone(), lacked(&need));
        if let Some((_, why)) = failure.filter(|_| need.lack.is_some()) {
            outcome.remedy = format!("{why}; {}", outcome.remedy);
        }
        outcome
    });
    Ok(outcomes.collect())
}

impl Outcome {
    fn of(need: Need, lacked: bool) -> Outcome {
        let Need { part, found, lack } = need;
        let (state, remedy, kernel_parameters) = match lack {
            None if lacked => (State::Done, String::new(), BTreeSet::new()),
            None => (State::Ok, String::new(), BTreeSet::new()),
            Some(Lack { words, remedy }) => match remedy {
                Remedy::Now(_) => (State::Lacking, words, BTreeSet::new()),
                Remedy::Boot(parameters) => (State::Boot, words, parameters),
                Remedy::Hand => (State::Hand, words, BTreeSet::new()),
            },
        };
        Outcome { part, state, found, remedy, kernel_parameters }
    }

    /// Whether nothing is lacking.
    pub fn is_well(&self) -> bool {
        matches!(self.state, State::Ok | State::Done)
    }
}
