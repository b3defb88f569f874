//! What is measured: the load's shape, by name.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::frame::{Addresses, HEAD_BYTES, LONGEST_FRAME, MOST_ADDRESSES, Stream};
use crate::guest::{Faults, Guest, ORDINARY_STRIDE, PAGE_STRIDE, Pages, Shape, whole_frame_stride};

/// The simple IMIX, twelve frames that repeat: 7 of 64 B, 4 of 590 B and 1 of 1514 B, that is, IP
/// packets of up to 50, 576 and 1500 B; 360 B on average.
const IMIX: [usize; 12] = [64, 590, 64, 64, 590, 64, 1514, 64, 590, 64, 64, 590];

/// Number of descriptors in a bystander's rings: it only waits for frames that should not come.
const BYSTANDER_RING: u16 = 256;

/// The most ports that guests' numbers leave room for.
const MOST_PORTS: u16 = 127;

/// How often rules are replaced, where they are.
pub const SWAP_INTERVAL: Duration = Duration::from_millis(200);

/// One load. Guest A sends to guest B, or both to each other; all other guests only listen.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What it is asked for by.
    pub name: String,
    /// Length of each frame, in bytes, from the destination address to the end of the payload.
    pub frame_bytes: usize,
    /// Whether frames have the lengths of [`IMIX`] instead.
    pub imix: bool,
    /// Flows (UDP port pairs) in each direction.
    pub flows: u32,
    /// MAC and IPv4 addresses of each of the two guests.
    pub addresses: u32,
    /// Whether B sends as well; rates are then sums.
    pub both_ways: bool,
    /// Frames that a guest sends at once.
    pub burst: u16,
    /// Descriptors in each ring.
    pub ring: u16,
    /// Ports of the switch, two of which are busy.
    pub ports: u16,
    /// Whether receive buffers hold any frame in one piece, instead of being merged for long ones.
    pub large_buffers: bool,
    /// Whether mergeable receive buffers are negotiated.
    pub mergeable: bool,
    /// Whether the frames are TCP segments that exceed the MTU, their checksum and segmentation left
    /// to do, in chains of pages.
    pub segments: bool,
    /// Whether the two guests are on networks of their own, each with an uplink, and what one uplink
    /// sends the other receives.
    pub uplinks: bool,
    /// Whether the switch checks what guests send and get, where it can; without rules, everything is
    /// permitted that carries the sender's own addresses.
    pub port_security: bool,
    /// Rules in each direction at each busy port; none means that everything is permitted.
    pub rules: u32,
    /// Whether every flow has IP addresses and ports drawn at random from what the rules permit. A single
    /// flow is made, and may be sent, just so: beside it, many show what it costs that they differ.
    pub random: bool,
    /// Whether the rules at A's port are replaced again and again while frames flow.
    pub swaps: bool,
    /// Whether a third guest sends to a fourth, as fast as the switch takes them, frames that the
    /// rules do not permit.
    pub flood: bool,
}

/// Flows of a scenario with random ones: more than any cache of flows holds.
const RANDOM_FLOWS: u32 = 1 << 20;

/// The fewest rules that leave room for those that permit the load and for others.
const FEWEST_RULES: u32 = 100;
/// The most rules: what is written down for a port stays below 4 MiB.
const MOST_RULES: u32 = 15_000;

impl Scenario {
    /// One way in bursts of 32, one flow, one address each, two ports, rings of 1024.
    pub fn one_way(name: &str, frame_bytes: usize) -> Self {
        Self {
            name: name.to_owned(),
            frame_bytes,
            imix: false,
            flows: 1,
            addresses: 1,
            both_ways: false,
            burst: 32,
            ring: 1024,
            ports: 2,
            large_buffers: false,
            mergeable: true,
            segments: false,
            uplinks: false,
            port_security: true,
            rules: 0,
            random: false,
            swaps: false,
            flood: false,
        }
    }

    /// Frames of 64 B, one flow, through so many rules in each direction at each port.
    fn through_rules(name: &str, rules: u32) -> Self {
        Self { rules, ..Self::one_way(name, 64) }
    }

    /// Frames of 64 B from so many MAC addresses, which are too many to be listed at a port.
    fn from_addresses(name: &str, addresses: u32) -> Self {
        let base = Self::one_way(name, 64);
        Self { flows: addresses, addresses, port_security: false, ..base }
    }

    /// Segments as Linux makes them for an MTU of 1500: 44 times 1460 B, and 54 B of headers.
    fn segments(name: &str) -> Self {
        Self { segments: true, burst: 8, ..Self::one_way(name, 54 + 44 * 1460) }
    }

    /// Every scenario, in the order of the report.
    pub fn standard() -> Vec<Self> {
        let base = Self::one_way;
        let (rules, flows) = (Self::through_rules, RANDOM_FLOWS);
        vec![
            base("64", 64),
            base("512", 512),
            base("1500", 1500),
            base("9000", 9000),
            Self { imix: true, ..base("imix", 64) },
            Self { imix: true, flows: 1_000, both_ways: true, ..base("imix-both", 64) },
            Self { large_buffers: true, ..base("9000-whole", 9000) },
            Self { both_ways: true, ..base("64-both", 64) },
            Self { burst: 64, ..base("64-burst64", 64) },
            Self { both_ways: true, ..base("1500-both", 1500) },
            Self { flows: 1_000, ..base("64-flows1k", 64) },
            Self { flows: 100_000, ..base("64-flows100k", 64) },
            Self::from_addresses("64-addresses1k", 1_000),
            Self::from_addresses("64-addresses10k", 10_000),
            Self::from_addresses("64-addresses100k", 100_000),
            Self { ports: 16, ..base("64-ports16", 64) },
            Self { ports: 64, ..base("64-ports64", 64) },
            Self { ring: 256, ..base("1500-ring256", 1500) },
            Self::segments("64k-tso"),
            Self { both_ways: true, ..Self::segments("64k-tso-both") },
            Self { uplinks: true, ..base("64-nic", 64) },
            Self { uplinks: true, ..base("1500-nic", 1500) },
            Self { port_security: false, ..base("64-insecure", 64) },
            rules("64-rules1k", 1_000),
            rules("64-rules10k", 10_000),
            Self { flows: 10_000, ..rules("64-rules1k-flows10k", 1_000) },
            Self { random: true, flows, ..rules("64-rules1k-random", 1_000) },
            Self { random: true, ..rules("64-rules1k-still", 1_000) },
            Self { random: true, flows, ..rules("64-rules10k-random", 10_000) },
            Self { random: true, ..rules("64-rules10k-still", 10_000) },
            Self { flood: true, ports: 4, ..rules("64-deny", 1_000) },
            Self { swaps: true, ports: 3, ..rules("64-swap", 10_000) },
        ]
    }

    /// The few that `--quick` runs: one of each kind of code path, not of each size.
    pub fn quick() -> Vec<Self> {
        let names = ["64", "9000", "imix-both", "64-addresses1k", "64k-tso", "64-rules1k"];
        Self::standard().into_iter().filter(|one| names.contains(&one.name.as_str())).collect()
    }

    /// Checks every field against what guests and rings can do.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        ensure!(
            (HEAD_BYTES..=LONGEST_FRAME).contains(&self.frame_bytes),
            "scenario {name}: frames have {HEAD_BYTES} to {LONGEST_FRAME} bytes"
        );
        ensure!(
            (1..=MOST_ADDRESSES).contains(&self.addresses),
            "scenario {name}: a guest has 1 to {MOST_ADDRESSES} addresses"
        );
        ensure!(
            self.flows >= self.addresses && self.flows <= 1 << 24,
            "scenario {name}: flows must be at least as many as addresses ({}), at most 2^24",
            self.addresses
        );
        ensure!(
            self.ring.is_power_of_two() && (64..=32_768).contains(&self.ring),
            "scenario {name}: a ring has a power of two of descriptors, 64 to 32768"
        );
        ensure!(
            (1..=self.ring).contains(&self.burst),
            "scenario {name}: a burst has at least one frame, and no more than a ring has descriptors"
        );
        ensure!(
            !self.segments || (self.mergeable && self.burst <= self.ring / 32),
            "scenario {name}: segments need mergeable receive buffers, and a burst of them a ring of \
             32 descriptors for each"
        );
        ensure!(
            !self.uplinks || (self.ports == 2 && !self.segments && self.longest_frame() <= 1514),
            "scenario {name}: uplinks join two guests and carry frames of 1514 B at most"
        );
        ensure!(
            (2..=MOST_PORTS).contains(&self.ports),
            "scenario {name}: a switch has 2 to {MOST_PORTS} ports"
        );
        let has_rules = self.rules > 0;
        ensure!(
            !has_rules || (FEWEST_RULES..=MOST_RULES).contains(&self.rules),
            "scenario {name}: there are {FEWEST_RULES} to {MOST_RULES} rules, or none"
        );
        ensure!(
            self.addresses == 1 || !(self.port_security || has_rules || self.random),
            "scenario {name}: many MAC addresses cannot be listed at a port, so they exclude port \
             security, rules, and random IP addresses"
        );
        ensure!(
            !has_rules || self.port_security && !self.uplinks && !self.segments,
            "scenario {name}: rules need port security, and permit UDP between two ports of a switch"
        );
        ensure!(
            !self.random || !self.segments,
            "scenario {name}: segments are known by their ports, so these cannot be random"
        );
        ensure!(
            !self.swaps || has_rules && self.ports == 3 && !self.flood,
            "scenario {name}: for a swap it takes rules, and a third port to see it"
        );
        ensure!(
            !self.flood || has_rules && self.ports == 4,
            "scenario {name}: for a flood it takes rules that drop it, and four ports"
        );
        ensure!(
            self.mergeable || self.large_buffers || self.longest_frame() + 12 <= ORDINARY_STRIDE,
            "scenario {name}: frames of {} B need mergeable or large receive buffers",
            self.frame_bytes
        );
        Ok(())
    }

    /// The frames' lengths in bytes, which repeat in this order.
    pub fn sizes(&self) -> &[usize] {
        if self.imix { &IMIX } else { std::slice::from_ref(&self.frame_bytes) }
    }

    /// The length of the longest frames, in bytes.
    pub fn longest_frame(&self) -> usize {
        self.sizes().iter().copied().max().unwrap_or(self.frame_bytes)
    }

    /// What a network must carry, in bytes without the Ethernet header: segments are longer.
    pub fn mtu(&self) -> usize {
        if self.segments { 1500 } else { (self.longest_frame() - 14).max(1500) }
    }

    /// The frames' average length, in bytes.
    pub fn mean_frame(&self) -> f64 {
        self.sizes().iter().sum::<usize>() as f64 / self.sizes().len() as f64
    }

    /// In words, for the list.
    pub fn describe(&self) -> String {
        let mut text =
            if self.imix { "IMIX".to_owned() } else { format!("{} B", self.frame_bytes) };
        if self.segments {
            text += " of TCP with offloads";
        }
        text += if self.both_ways { ", both ways" } else { ", one way" };
        if self.flows > 1 {
            text += &format!(", {} flows", self.flows);
        }
        if self.addresses > 1 {
            text += &format!(", {} addresses a side", self.addresses);
        }
        if self.ports > 4 {
            text += &format!(", {} ports", self.ports);
        }
        if self.burst != 32 {
            text += &format!(", bursts of {}", self.burst);
        }
        if self.ring != 1024 {
            text += &format!(", rings of {}", self.ring);
        }
        if self.random && self.flows > 1 {
            text += " with random addresses and ports";
        } else if self.random {
            text += ", one flow, permitted and made as random ones are";
        }
        if self.rules > 0 {
            text += &format!(", {} rules each way at each port", self.rules);
        }
        if !self.port_security {
            text += ", without port security";
        }
        if self.swaps {
            text += &format!(", replaced every {} ms", SWAP_INTERVAL.as_millis());
        }
        if self.flood {
            text += ", beside a flood that they drop";
        }
        if self.uplinks {
            text += ", out by one uplink and in by another";
        }
        if self.large_buffers {
            text += ", a frame in one buffer";
        }
        text
    }

    /// The addresses of the guest on port `port`, counted from 0: A, B, bystanders.
    pub fn addresses_of(&self, port: u16) -> Addresses {
        let count = if port < 2 { self.addresses } else { 1 };
        Addresses::new(port as u8 + 1, count)
    }
}

/// The guests of one switch.
#[derive(Debug)]
pub struct Guests {
    /// Sends.
    pub a: Guest,
    /// Receives, and sends if the scenario goes both ways.
    pub b: Guest,
    /// Attached, but busy with nothing: each frame that one gets was flooded.
    pub bystanders: Vec<Guest>,
    /// Whether the first bystander sends to the second what must not arrive.
    pub floods: bool,
    /// Whether the first bystander sends to A now and then, to see by what arrives which rules are in
    /// force.
    pub probes: bool,
}

impl Guests {
    /// Guests for `ports` ports of a switch. `nonce` marks their frames.
    pub fn new(scenario: &Scenario, ports: u16, nonce: u64, pages: Pages) -> Result<Self> {
        scenario.check()?;
        let stream = |from: u16, to: u16| {
            let (from, to) = (scenario.addresses_of(from), scenario.addresses_of(to));
            let stream = Stream::new(nonce, scenario.sizes(), scenario.flows, from, to);
            match scenario {
                Scenario { segments: true, .. } => stream.of_segments(),
                Scenario { random: true, .. } => stream.scattered(),
                _ => stream,
            }
        };
        let receive_stride = if scenario.large_buffers {
            whole_frame_stride(scenario.longest_frame())
        } else if scenario.segments {
            PAGE_STRIDE
        } else {
            ORDINARY_STRIDE
        };
        let (ring, mergeable) = (scenario.ring, scenario.mergeable);
        let shape = Shape { ring, receive_stride, mergeable, pages };
        let mut a = Guest::new(shape, stream(0, 1), stream(1, 0))?;
        let mut b = Guest::new(shape, stream(1, 0), stream(0, 1))?;
        // A frame that comes back to its sender is a fault of its own kind.
        a.judge.disown(stream(0, 1));
        b.judge.disown(stream(1, 0));
        let mut bystanders = Vec::new();
        let floods = scenario.flood && ports == 4;
        let probes = scenario.swaps && ports == 3;
        if probes {
            a.judge.expect_probes(stream(2, 0));
        }
        for port in 2..ports {
            let shape = Shape { ring: ring.min(BYSTANDER_RING), ..shape };
            let to = if floods && port == 2 { 3 } else { 0 };
            let mut guest = Guest::new(shape, stream(port, to), stream(0, port))?;
            if floods {
                guest.judge.disown(stream(2, 3));
            }
            guest.judge.disown(stream(0, 1));
            guest.judge.disown(stream(1, 0));
            bystanders.push(guest);
        }
        if floods {
            a.judge.disown(stream(2, 3));
            b.judge.disown(stream(2, 3));
        }
        Ok(Self { a, b, bystanders, floods, probes })
    }

    /// Tells the guests that the switch computes segments' sums anew.
    pub fn expect_short_sums(&mut self) {
        self.a.judge.expect_short_sums();
        self.b.judge.expect_short_sums();
    }

    /// All guests, in the order of the switch's ports.
    pub fn all(&self) -> impl Iterator<Item = &Guest> {
        [&self.a, &self.b].into_iter().chain(&self.bystanders)
    }

    /// Everything wrong that was noticed since the guests were made.
    pub fn faults(&self) -> Faults {
        let mut faults = self.a.faults();
        faults += self.b.faults();
        for guest in &self.bystanders {
            let mut theirs = guest.faults();
            if !self.floods {
                // Flooding by the switch is counted apart.
                theirs.misdelivered = 0;
            }
            faults += theirs;
        }
        faults
    }

    /// Frames that came to guests that they were not for because the switch floods. That costs it
    /// time, and breaks nothing.
    pub fn flooded(&self) -> u64 {
        self.bystanders.iter().map(|guest| guest.faults().misdelivered).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_scenario_is_possible_and_named_once() {
        let mut names: Vec<_> = Scenario::standard()
            .into_iter()
            .map(|scenario| {
                scenario.check().expect("a standard scenario");
                scenario.name
            })
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(Scenario::quick().len(), 6);
    }

    #[test]
    fn impossible_loads_are_refused() {
        let base = || Scenario::one_way("x", 64);
        for wrong in [
            Scenario { frame_bytes: 63, ..base() },
            Scenario { frame_bytes: 65_536, ..base() },
            Scenario { addresses: 2, ..base() },
            Scenario { ring: 1000, ..base() },
            Scenario { burst: 0, ..base() },
            Scenario { ring: 256, burst: 257, ..base() },
            Scenario { ports: 1, ..base() },
            Scenario { frame_bytes: 9000, mergeable: false, ..base() },
            Scenario { mergeable: false, large_buffers: true, ..Scenario::segments("x") },
            Scenario { ring: 128, ..Scenario::segments("x") },
            Scenario { uplinks: true, ports: 3, ..base() },
            Scenario { uplinks: true, ..Scenario::one_way("x", 1515) },
            Scenario { flows: 2, addresses: 2, ..base() },
            Scenario { rules: 99, ..base() },
            Scenario { rules: 1_000, port_security: false, ..base() },
            Scenario { rules: 1_000, uplinks: true, ..base() },
            Scenario { random: true, ..Scenario::segments("x") },
            Scenario { swaps: true, ports: 3, ..base() },
            Scenario { rules: 1_000, flood: true, ports: 3, ..base() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
