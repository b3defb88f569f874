//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Parser;

use crate::contest::Plan;
use crate::guest::Pages;
use crate::machine::Cores;
use crate::scenario::Scenario;
use crate::switch::{Contender, OVS, OVS_CONNTRACK, OVS_RULES, VIADUCT};

/// The scenarios in which latency is measured where none is named: half a minute each.
const LATENCY_SCENARIOS: [&str; 2] = ["64", "1500"];

/// Guest to guest throughput and latency of vhost-user switches, as ratios to dpdk-testpmd, taken in one run.
#[derive(Debug, Parser)]
#[command(version, name = "viaduct-bench")]
pub struct Arguments {
    /// Lists the scenarios and switches, and does nothing.
    #[arg(long)]
    pub list: bool,

    /// A scenario to run; may be repeated. Without, all of them.
    #[arg(long, value_name = "NAME")]
    pub scenario: Vec<String>,

    /// Few scenarios and short runs: shows that everything works, not how fast it is.
    #[arg(long)]
    pub quick: bool,

    /// Measures latency too, in every scenario that is run. Where none is named, it is measured in
    /// `64` and `1500` anyhow.
    #[arg(long)]
    pub latency: bool,

    /// Measures nothing but how long guests on so many ports hear nothing when Viaduct is stopped and
    /// started again, and when it is killed; `--rounds` times each.
    #[arg(long, value_name = "PORTS", conflicts_with_all = ["scenario", "switch", "quick", "latency"])]
    pub restart: Option<u16>,

    /// Measures nothing but how long guests on so many ports hear nothing when a new process takes over
    /// from the one that runs; `--rounds` times.
    #[arg(long, value_name = "PORTS", conflicts_with_all = ["restart", "scenario", "switch", "quick", "latency"])]
    pub handover: Option<u16>,

    /// Writes everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draws the ratios to testpmd in this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Measures nothing, and draws what an earlier run wrote with --json.
    #[arg(long, value_name = "JSON", requires = "svg", conflicts_with = "json")]
    pub from: Option<PathBuf>,

    /// A switch to compare with testpmd; may be repeated. NAME=PATH is the Viaduct in that program,
    /// so that several can be compared. Without, `copy`, and `viaduct`, `ovs`, `ovs-rules` and
    /// `ovs-conntrack` if their programs are given; the last two stand in for `ovs` in scenarios with
    /// rules.
    #[arg(long, value_name = "NAME[=PATH]")]
    pub switch: Vec<String>,

    /// Viaduct's program.
    #[arg(long, value_name = "PATH")]
    pub viaduct: Option<PathBuf>,

    /// Where Open vSwitch's packages are unpacked, or / if they are installed.
    #[arg(long, value_name = "DIRECTORY")]
    pub ovs: Option<PathBuf>,

    /// Runs of each switch in each scenario.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,

    /// The core that both guests run on.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub generator_core: usize,

    /// The core that the switches run on.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub switch_core: usize,

    /// What backs the guests' memory.
    #[arg(long, value_enum, default_value_t = Pages::Auto)]
    pub pages: Pages,

    /// A scenario of your own: the frames' length in bytes.
    #[arg(long, value_name = "BYTES")]
    pub frame_bytes: Option<usize>,

    /// … frames of 64, 590 and 1514 bytes, seven to four to one.
    #[arg(long, conflicts_with = "frame_bytes")]
    pub imix: bool,

    /// … the number of flows in each direction.
    #[arg(long, value_name = "NUMBER")]
    pub flows: Option<u32>,

    /// … the number of MAC addresses of each guest; more than one exclude port security.
    #[arg(long, value_name = "NUMBER")]
    pub addresses: Option<u32>,

    /// … the number of rules in each direction at each busy port.
    #[arg(long, value_name = "NUMBER")]
    pub rules: Option<u32>,

    /// … IP addresses and ports of each flow drawn at random.
    #[arg(long)]
    pub random: bool,

    /// … both guests send.
    #[arg(long)]
    pub both_ways: bool,

    /// … the number of frames that a guest sends at once.
    #[arg(long, value_name = "NUMBER")]
    pub burst: Option<u16>,

    /// … the number of ports, two of which are busy.
    #[arg(long, value_name = "NUMBER")]
    pub ports: Option<u16>,

    /// … the number of descriptors in each ring.
    #[arg(long, value_name = "NUMBER")]
    pub ring: Option<u16>,

    /// … receive buffers that hold a frame in one piece.
    #[arg(long)]
    pub large_buffers: bool,

    /// … without mergeable receive buffers.
    #[arg(long)]
    pub no_mergeable: bool,
}

impl Arguments {
    /// The scenarios to run, checked.
    pub fn scenarios(&self) -> Result<Vec<Scenario>> {
        let standard = Scenario::standard();
        let mut chosen = Vec::new();
        for name in &self.scenario {
            match standard.iter().find(|scenario| scenario.name == *name) {
                Some(scenario) => chosen.push(scenario.clone()),
                None => bail!("there is no scenario {name:?}: --list tells their names"),
            }
        }
        if let Some(own) = self.own_scenario() {
            own.check()?;
            chosen.push(own);
        }
        if chosen.is_empty() {
            chosen = if self.quick { Scenario::quick() } else { standard };
        }
        Ok(chosen)
    }

    /// Whether latency is measured in a scenario.
    pub fn measures_latency(&self, scenario: &Scenario) -> bool {
        let none_named = self.scenario.is_empty() && self.own_scenario().is_none();
        self.latency || none_named && LATENCY_SCENARIOS.contains(&scenario.name.as_str())
    }

    /// How to run them, checked.
    pub fn plan(&self) -> Result<Plan> {
        let cores = Cores { generator: self.generator_core, switch: self.switch_core };
        cores.check()?;
        let mut contenders = self.switch.clone();
        if contenders.is_empty() {
            contenders.push("copy".to_owned());
            contenders.extend(self.viaduct.as_ref().map(|_| VIADUCT.to_owned()));
            let peers = [OVS, OVS_RULES, OVS_CONNTRACK].map(str::to_owned);
            contenders.extend(peers.into_iter().filter(|_| self.ovs.is_some()));
        }
        let contenders = contenders
            .iter()
            .map(|text| Contender::new(text, self.viaduct.as_deref(), self.ovs.as_deref()))
            .collect::<Result<Vec<_>>>()?;
        for (index, contender) in contenders.iter().enumerate() {
            let name = &contender.name;
            let twice = contenders[..index].iter().any(|other| other.name == *name);
            ensure!(!twice, "two switches are called {name}: give them different names");
        }
        let make = if self.quick { Plan::quick } else { Plan::thorough };
        let mut plan = make(contenders, cores, self.pages);
        plan.rounds = self.rounds.unwrap_or(plan.rounds);
        Ok(plan)
    }

    /// The scenario that the options spell out, if any of them is given.
    fn own_scenario(&self) -> Option<Scenario> {
        let base = Scenario::one_way("own", 64);
        let addresses = self.addresses.unwrap_or(base.addresses);
        let own = Scenario {
            frame_bytes: self.frame_bytes.unwrap_or(base.frame_bytes),
            imix: self.imix,
            // Each address needs a flow to be seen.
            flows: self.flows.unwrap_or(base.flows.max(addresses)),
            addresses,
            port_security: addresses == 1,
            rules: self.rules.unwrap_or(base.rules),
            random: self.random,
            both_ways: self.both_ways,
            burst: self.burst.unwrap_or(base.burst),
            ports: self.ports.unwrap_or(base.ports),
            ring: self.ring.unwrap_or(base.ring),
            large_buffers: self.large_buffers,
            mergeable: !self.no_mergeable,
            ..base
        };
        let given = self.frame_bytes.is_some()
            || self.imix
            || self.flows.is_some()
            || self.addresses.is_some()
            || self.rules.is_some()
            || self.random
            || self.both_ways
            || self.burst.is_some()
            || self.ports.is_some()
            || self.ring.is_some()
            || self.large_buffers
            || self.no_mergeable;
        given.then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Arguments {
        let words = std::iter::once("viaduct-bench").chain(words.iter().copied());
        Arguments::try_parse_from(words).expect("a right command line")
    }

    fn names(words: &[&str]) -> Vec<String> {
        let scenarios = parse(words).scenarios().expect("possible scenarios");
        scenarios.into_iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn scenarios_are_all_or_some_or_ones_own() {
        assert_eq!(names(&[]).len(), Scenario::standard().len());
        assert_eq!(names(&["--quick"]).len(), Scenario::quick().len());
        assert_eq!(names(&["--scenario", "512", "--scenario", "64"]), ["512", "64"]);
        assert_eq!(names(&["--flows", "7"]), ["own"]);
        assert_eq!(names(&["--scenario", "64", "--ring", "256"]), ["64", "own"]);
    }

    #[test]
    fn latency_is_measured_in_two_scenarios_or_where_asked_for() {
        let measured = |words: &[&str]| {
            let arguments = parse(words);
            let scenarios = arguments.scenarios().expect("possible scenarios");
            let measured = scenarios.into_iter().filter(|one| arguments.measures_latency(one));
            measured.map(|scenario| scenario.name).collect::<Vec<_>>()
        };
        assert_eq!(measured(&[]), LATENCY_SCENARIOS);
        assert_eq!(measured(&["--latency"]).len(), Scenario::standard().len());
        assert_eq!(measured(&["--quick"]), ["64"]);
        assert!(measured(&["--scenario", "64"]).is_empty());
        assert_eq!(measured(&["--scenario", "512", "--latency"]), ["512"]);
        assert!(measured(&["--flows", "7"]).is_empty());
        assert_eq!(measured(&["--flows", "7", "--latency"]), ["own"]);
    }

    #[test]
    fn addresses_bring_their_flows() {
        let scenarios = parse(&["--addresses", "50"]).scenarios().expect("possible");
        assert_eq!((scenarios[0].addresses, scenarios[0].flows), (50, 50));
        assert!(!scenarios[0].port_security);
        let scenarios = parse(&["--rules", "500", "--random"]).scenarios().expect("possible");
        assert!(scenarios[0].port_security && scenarios[0].random && scenarios[0].rules == 500);
    }

    #[test]
    fn several_programs_of_viaduct_can_be_compared() {
        let switches = |words: &[&str]| {
            let plan = parse(words).plan()?;
            anyhow::Ok(plan.contenders.into_iter().map(|one| one.name).collect::<Vec<_>>())
        };
        let named = switches(&["--switch", "old=/a", "--switch", "copy", "--switch", "new=/b"]);
        assert_eq!(named.expect("three names"), ["old", "copy", "new"]);
        assert_eq!(switches(&["--viaduct", "/a"]).expect("the default"), ["copy", "viaduct"]);
        let all = switches(&["--viaduct", "/a", "--ovs", "/"]);
        let expected = ["copy", "viaduct", "ovs", "ovs-rules", "ovs-conntrack"];
        assert_eq!(all.expect("the default"), expected);
        assert!(switches(&["--switch", "ovs"]).is_err());
        let both = switches(&["--viaduct", "/a", "--switch", "viaduct", "--switch", "old=/b"]);
        assert_eq!(both.expect("two names"), ["viaduct", "old"]);
        for wrong in ["copy=/a", "testpmd=/a", "=/a", "new="] {
            assert!(switches(&["--switch", wrong]).is_err(), "{wrong}");
        }
        let twice = switches(&["--switch", "new=/a", "--switch", "new=/b"]).expect_err("one name");
        assert!(twice.to_string().contains("new"), "{twice}");
    }

    #[test]
    fn drawing_an_earlier_run_needs_a_file_to_draw_in() {
        let parses = |words: &[&str]| {
            let words = std::iter::once("viaduct-bench").chain(words.iter().copied());
            Arguments::try_parse_from(words).is_ok()
        };
        assert!(parses(&["--svg", "a.svg"]) && parses(&["--svg", "a.svg", "--from", "b.json"]));
        assert!(!parses(&["--from", "b.json"]));
        assert!(!parses(&["--svg", "a.svg", "--from", "b.json", "--json", "c.json"]));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let unknown = parse(&["--scenario", "65"]).scenarios().expect_err("no such scenario");
        assert!(unknown.to_string().contains("\"65\""), "{unknown}");
        let unknown = parse(&["--switch", "vpp"]).plan().expect_err("no such switch");
        assert!(unknown.to_string().contains("\"vpp\""), "{unknown}");
        let same = parse(&["--switch-core", "0"]).plan().expect_err("one core for two");
        assert!(same.to_string().contains("a core each"), "{same}");
        assert!(parse(&["--ring", "1000"]).scenarios().is_err());
    }
}
