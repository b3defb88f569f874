//! The file in which learned addresses are kept while no daemon runs, so that after a restart frames
//! to them are not flooded until they are heard again.
//!
//! It is written every now and then and at the end, whole or not at all, and read once at the start. What
//! is in it has aged meanwhile, as far as the clock tells. It only hints, as the forwarding database
//! itself does: a file that is damaged, too long or from the future is worth a warning and nothing
//! else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::{Mac, NetworkUuid, PhysnetName, PortUuid};
use crate::problem::Problem;

/// What an address takes in the file, with all around it; less in truth.
const ADDRESS_BYTES: u64 = 96;

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(crate) struct LearnedFile {
    path: PathBuf,
    bytes_max: u64,
}

/// Learned addresses, by where they were learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Learned {
    /// When this was true, in seconds since 1970.
    written: u64,
    /// What was learned on each network.
    pub(crate) networks: BTreeMap<NetworkUuid, OnNetwork>,
}

/// The addresses of a network. How long ago each was heard is in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnNetwork {
    /// Behind each port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) ports: BTreeMap<PortUuid, BTreeMap<Mac, u32>>,
    /// Behind each wire.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) physnets: BTreeMap<PhysnetName, BTreeMap<Mac, u32>>,
}

impl LearnedFile {
    /// The file at `path`, of a forwarding database with so many places.
    pub(crate) fn new(path: &Path, entries: u32) -> Self {
        Self { path: path.to_owned(), bytes_max: 4096 + u64::from(entries) * ADDRESS_BYTES }
    }

    /// What an earlier daemon kept; nothing if there is no file. Ages are those of now.
    pub(crate) fn load(&self) -> Result<Learned, Problem> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Learned::default()),
            Err(error) => return Err(self.problem(format!("cannot be read: {error}"))),
        };
        let mut text = Vec::new();
        let most = self.bytes_max;
        file.take(most + 1)
            .read_to_end(&mut text)
            .map_err(|error| self.problem(format!("cannot be read: {error}")))?;
        if text.len() as u64 > most {
            return Err(self.problem(format!("has more than the {most} octets that it can have")));
        }
        let kept: Learned = serde_json::from_slice(&text)
            .map_err(|error| self.problem(format!("is not what a daemon keeps: {error}")))?;
        let now = now();
        let Some(passed) = now.checked_sub(kept.written) else {
            let what = format!("was written {} s from now", kept.written - now);
            return Err(self.problem(what));
        };
        Ok(kept.aged(passed))
    }

    /// Keeps these addresses: all of them or what was there before.
    pub(crate) fn save(&self, learned: &Learned) -> Result<(), Problem> {
        let written = serde_json::to_vec(learned).map_err(io::Error::from).and_then(|text| {
            let beside = self.path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(&text)?;
            fs::rename(&beside, &self.path)
        });
        written.map_err(|error| self.problem(format!("cannot be written: {error}")))
    }

    fn problem(&self, what: String) -> Problem {
        let remedy = "see to the file, or remove it; without it addresses are learned anew after a \
                      restart, and frames to them are flooded until then";
        Problem::whole(self.path.display(), what, remedy).warning()
    }
}

impl Learned {
    /// Nothing yet, as of now.
    pub(crate) fn begin() -> Self {
        Self { written: now(), networks: BTreeMap::new() }
    }

    /// With the ages of now, for what another process of this host has told.
    pub(crate) fn aged_until_now(self) -> Self {
        let passed = now().saturating_sub(self.written);
        self.aged(passed)
    }

    fn aged(mut self, passed: u64) -> Self {
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        for network in self.networks.values_mut() {
            let of_ports = network.ports.values_mut();
            for age in of_ports.chain(network.physnets.values_mut()).flat_map(BTreeMap::values_mut)
            {
                *age = age.saturating_add(passed);
            }
        }
        self
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Learned {
        let mut learned = Learned::begin();
        let network = learned.networks.entry(NetworkUuid::random()).or_default();
        let mac = |text: &str| text.parse::<Mac>().expect("a MAC address");
        let of_port = network.ports.entry(PortUuid::random()).or_default();
        of_port.insert(mac("52:54:00:00:00:01"), 3);
        let of_wire = network.physnets.entry("physnet1".parse().expect("a name")).or_default();
        of_wire.insert(mac("52:54:00:00:00:02"), 30);
        learned
    }

    #[test]
    fn what_is_kept_comes_back_older() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = LearnedFile::new(&folder.path().join("fdb.json"), 1024);
        assert_eq!(file.load(), Ok(Learned::default()), "there is none yet");
        let mut kept = some();
        kept.written -= 100;
        file.save(&kept).expect("the folder is ours");
        let loaded = file.load().expect("it was just written");
        let ages = |learned: &Learned| -> Vec<u32> {
            let networks = learned.networks.values();
            let ports = networks.clone().flat_map(|it| it.ports.values());
            let wires = networks.flat_map(|it| it.physnets.values());
            ports.chain(wires).flat_map(|it| it.values().copied()).collect()
        };
        // The clock may have gone on by a second.
        assert!([[103, 130], [104, 131]].contains(&[ages(&loaded)[0], ages(&loaded)[1]]));
        assert_eq!(kept.aged(u64::MAX).networks.len(), 1, "no overflow");
    }

    #[test]
    fn damaged_files_are_named_and_worth_nothing() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("fdb.json");
        let file = LearnedFile::new(&path, 1);
        file.save(&some()).expect("the folder is ours");
        let whole = fs::read_to_string(&path).expect("it was just written");
        let future = Learned { written: now() + 1000, ..some() };
        let future = serde_json::to_string(&future).expect("JSON");
        let group = whole.replace("52:54:00:00:00:01", "53:54:00:00:00:01");
        let long = " ".repeat(file.bytes_max as usize + 1);
        for (text, what) in [
            ("", "is not what a daemon keeps"),
            ("\0\0\0\0", "is not what a daemon keeps"),
            (&whole[..whole.len() / 2], "is not what a daemon keeps"),
            (&group, "is not what a daemon keeps"),
            (&long, "has more than the"),
            (&future, "s from now"),
        ] {
            fs::write(&path, text).expect("the folder is ours");
            let problem = file.load().expect_err(what).to_string();
            assert!(problem.contains(what), "{problem}");
            assert!(problem.contains(&path.display().to_string()), "{problem}");
        }
        fs::remove_file(&path).expect("it is there");
        fs::create_dir(&path).expect("the folder is ours");
        assert!(file.load().is_err() && file.save(&some()).is_err());
    }
}
