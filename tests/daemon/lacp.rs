//! A bond that speaks LACP, towards partners that the test plays octet by octet: what they say decides
//! who carries, what they do wrong is told, and what is no LACP harms nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bonds::{Bed, STATION, VLAN, ip, number, numbered, possible};
use crate::common::daemon::{Daemon, SOON};
use crate::common::front_end::FrontEnd;
use crate::common::process::eventually;
use crate::common::wire::Wire;

const SWITCH: [u8; 6] = [2, 0, 0, 0, 1, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 1, 2];
const GROUP: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 2];
const SLOW: [u8; 2] = [0x88, 9];

/// Bits of a state (802.1AX-2020 6.4.2.3).
const SYNC: u8 = 8;
const OPEN: u8 = 0x38;

const MODE: (&str, &str) = ("mode", "'lacp'");
const PROMPT: [(&str, &str); 3] = [MODE, ("up_delay_ms", "0"), ("monitor_ms", "5")];

/// The other ends of the wires: a switch, on a thread of its own.
struct Partner {
    wires: Arc<[Wire; 2]>,
    script: Arc<Mutex<Script>>,
    /// What else has come, and by which wire.
    frames: Receiver<(usize, Vec<u8>)>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Script {
    /// The system and the key that each port says; none if it is silent.
    says: [Option<([u8; 6], u8)>; 2],
    /// LACPDUs that have come, and when.
    heard: [Vec<(Instant, Vec<u8>)>; 2],
}

impl Partner {
    fn start(wires: [Wire; 2], says: [Option<([u8; 6], u8)>; 2]) -> Partner {
        let wires = Arc::new(wires);
        let script = Arc::new(Mutex::new(Script { says, ..Script::default() }));
        let ends = Arc::new(AtomicBool::new(false));
        let (out, frames) = channel();
        let theirs = (Arc::clone(&wires), Arc::clone(&script), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let (wires, script, ends) = theirs;
            let mut spoke = [None::<Instant>; 2];
            while !ends.load(Ordering::Relaxed) {
                for (at, wire) in wires.iter().enumerate() {
                    let mut answers = false;
                    while let Some(frame) = wire.receive(Duration::ZERO) {
                        let lacp = frame[..6] == GROUP && frame[12..15] == [0x88, 9, 1];
                        if lacp {
                            let mut script = script.lock().expect("nobody panics with it");
                            script.heard[at].push((Instant::now(), frame));
                            answers = true;
                        } else if out.send((at, frame)).is_err() {
                            return;
                        }
                    }
                    let due = spoke[at].is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
                    if answers || due {
                        spoke[at] = Some(Instant::now());
                        let said = script.lock().expect("nobody panics with it").say(at);
                        said.into_iter().for_each(|frame| wire.send(&frame));
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Partner { wires, script, frames, ends, thread: Some(thread) }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("nobody panics with it")
    }

    /// All numbered frames that have come out by the wires since this was asked last.
    fn numbers(&self) -> Vec<(usize, u16, u32)> {
        let numbered =
            |(at, frame): (usize, Vec<u8>)| number(&frame).map(|(flow, serial)| (at, flow, serial));
        self.frames.try_iter().filter_map(numbered).collect()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Script {
    /// What a port says: it is in sync with what it has heard, and open if that is in sync too.
    fn say(&self, at: usize) -> Option<Vec<u8>> {
        let (system, key) = self.says[at]?;
        let heard = self.heard[at].last().map(|(_, frame)| frame);
        let mut state = 7;
        if let Some(heard) = heard {
            state |= SYNC;
            state |= if heard[32] & SYNC != 0 { OPEN } else { 0 };
        }
        let mut frame = [&GROUP[..], &system, &SLOW, &[1, 1, 1, 20, 0, 100]].concat();
        frame.extend(system);
        frame.extend([0, key, 0, 128, 0, 7 + at as u8, state, 0, 0, 0, 2, 20]);
        match heard {
            Some(heard) => frame.extend(&heard[18..36]),
            None => frame.extend([0; 18]),
        }
        frame.extend([3, 16]);
        frame.resize(124, 0);
        Some(frame)
    }
}

struct Scene {
    switch: Daemon,
    names: [String; 2],
    guest: FrontEnd,
    partner: Partner,
}

impl Scene {
    fn start(label: char, rules: &[(&str, &str)], says: [Option<([u8; 6], u8)>; 2]) -> Scene {
        let Bed { switch, names, wires, guest } = Bed::start_unheard(label, rules);
        Scene { switch, names, guest, partner: Partner::start(wires, says) }
    }

    fn bond(&self) -> Value {
        self.switch.show("bonds")[0].clone()
    }

    fn member(&self, at: usize) -> Value {
        self.bond()["members"][at].clone()
    }

    #[track_caller]
    fn wait_carriers(&self, expected: [bool; 2]) {
        let carries = || [0, 1].map(|at| self.member(at)["carries"] == true);
        let mut last = [false; 2];
        let begin = Instant::now();
        while last != expected {
            assert!(begin.elapsed() < SOON, "carriers are {last:?}: {:#}", self.bond());
            std::thread::sleep(Duration::from_millis(10));
            last = carries();
        }
    }

    #[track_caller]
    fn wait_reason(&self, at: usize, words: &str) {
        eventually(&format!("member {at} says `{words}`"), SOON, || {
            self.member(at)["reason"].as_str().is_some_and(|reason| reason.contains(words))
        });
    }

    /// Sends some frames of each of 24 flows; each comes out by one wire, in order, and none is lost.
    /// Returns which that is.
    #[track_caller]
    fn places(&mut self) -> BTreeMap<u16, usize> {
        let _ = self.partner.numbers();
        let mut seen: BTreeMap<(u16, usize), Vec<u32>> = BTreeMap::new();
        for serial in 1..=5 {
            for flow in 0..24 {
                self.guest.send(0, &numbered(4000 + flow, serial));
            }
            eventually("all have come out", SOON, || {
                for (at, flow, serial) in self.partner.numbers() {
                    seen.entry((flow, at)).or_default().push(serial);
                }
                seen.values().map(Vec::len).sum::<usize>() == 24 * serial as usize
            });
        }
        assert!(seen.values().all(|serials| *serials == [1, 2, 3, 4, 5]), "{seen:?}");
        seen.into_keys().collect()
    }
}

/// A broadcast of a station's on the wire.
fn broadcast(serial: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &STATION, &[0x81, 0, 0, VLAN, 0x88, 0xb5]].concat();
    frame.resize(64, serial);
    frame
}

#[test]
fn links_carry_as_agreed_and_one_that_falls_silent_is_left() {
    if !possible() {
        return;
    }
    let both = [Some((SWITCH, 5)); 2];
    let mut scene = Scene::start('p', &PROMPT, both);
    scene.wait_carriers([true, true]);
    let bond = scene.bond();
    assert_eq!((&bond["mode"], &bond["lacp"]["rate"]), (&json!("lacp"), &json!("fast")));
    assert_eq!(bond["lacp"]["fallback"], false, "{bond:#}");
    for (at, member) in bond["members"].as_array().expect("members").iter().enumerate() {
        let lacp = &member["lacp"];
        let partner = &lacp["partner"];
        assert_eq!(partner["system"], "02:00:00:00:01:01", "{member:#}");
        assert_eq!((&partner["key"], &partner["port"]), (&json!(5), &json!(7 + at)));
        let state =
            json!(["active", "fast", "aggregatable", "in-sync", "collecting", "distributing"]);
        assert_eq!((&lacp["actor"], &partner["state"]), (&state, &state), "{member:#}");
        assert_eq!((&lacp["malformed"], &lacp["lost"]), (&json!(0), &json!(0)), "{member:#}");
        assert_eq!(member["reason"], json!(null));
    }
    let text = scene.switch.viaduct(&["show", "bonds"]).success();
    assert!(text.contains("02:00:00:00:01:01") && text.contains("distributing"), "{text}");
    // The system's address is the first member's own, and frames come from each member's own.
    let own = scene.names.each_ref().map(|name| {
        std::fs::read_to_string(format!("/sys/class/net/{name}/address")).expect("it is there")
    });
    assert_eq!(bond["lacp"]["system"], own[0].trim());
    let sources =
        scene.partner.script().heard.each_ref().map(|heard| {
            heard.iter().map(|(_, frame)| frame[6..12].to_vec()).collect::<BTreeSet<_>>()
        });
    assert!(sources.iter().all(|from| from.len() == 1) && sources[0] != sources[1], "{sources:?}");

    let whole = scene.places();
    assert!(whole.values().any(|at| *at == 0) && whole.values().any(|at| *at == 1), "{whole:?}");
    // What comes by either is taken, and LACP is not for guests.
    for serial in 0..10 {
        scene.partner.wires[usize::from(serial % 2)].send(&broadcast(serial));
    }
    let mut serials = BTreeSet::new();
    while serials.len() < 10 {
        let frame = scene.guest.receives(|_| true);
        assert_eq!(frame[12..14], [0x88, 0xb5], "a guest was sent {frame:02x?}");
        serials.insert(frame[20]);
    }

    // A port that says nothing any more, and whose link is up.
    scene.partner.script().says[1] = None;
    let begin = Instant::now();
    scene.wait_carriers([true, false]);
    println!("a silent partner was left after {:?}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_millis(1500), "it had spoken just before");
    scene.wait_reason(1, "fallen silent");
    assert_eq!(scene.member(1)["link"], "up");
    assert!(scene.places().values().all(|at| *at == 0));
    eventually("the log tells it", SOON, || scene.switch.log().contains("fallen silent"));
    let uplink = scene.switch.show("ports")[0].clone();
    assert_eq!(uplink["status"], "ready", "{uplink:#}");
    assert!(uplink["reason"].as_str().is_some_and(|it| it.contains("by LACP")), "{uplink:#}");

    // It speaks again, and flows are back where they were.
    scene.partner.script().says = both;
    scene.wait_carriers([true, true]);
    assert_eq!(scene.places(), whole);
    // A lost link is not waited for.
    ip(&format!("link set {} carrier off", scene.names[0]));
    let begin = Instant::now();
    scene.wait_carriers([false, true]);
    println!("a lost link was left {:?} after the tool had cut it", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(2500), "as if it had been silent");
    ip(&format!("link set {} carrier on", scene.names[0]));
    scene.wait_carriers([true, true]);
    assert_eq!(scene.bond()["outages"], 0);
    scene.switch.stop();
}

#[test]
fn links_to_two_switches_are_not_one_and_it_is_said_why() {
    if !possible() {
        return;
    }
    let mut scene = Scene::start('w', &PROMPT, [Some((SWITCH, 5)), None]);
    scene.wait_carriers([true, false]);
    scene.wait_reason(1, "does not speak LACP");
    scene.partner.script().says[1] = Some((OTHER, 5));
    scene.wait_reason(1, "another system (02:00:00:00:01:02) than that of the others");
    assert!(scene.places().values().all(|at| *at == 0));
    // What comes by it is not taken: it may come by the other too.
    let ignored = scene.member(1)["ignored_frames"].as_u64().expect("a count");
    scene.partner.wires[1].send(&broadcast(1));
    eventually("it is ignored", SOON, || {
        scene.member(1)["ignored_frames"].as_u64() == Some(ignored + 1)
    });
    scene.partner.script().says[1] = Some((SWITCH, 6));
    scene.wait_reason(1, "another aggregation (key 6)");
    // The system that carries is lost, and the other one is there.
    scene.partner.script().says[0] = None;
    scene.wait_carriers([false, true]);
    assert!(scene.places().values().all(|at| *at == 1));
    scene.switch.stop();
}

#[test]
fn without_lacp_on_the_other_side_one_member_carries_unless_that_is_unwanted() {
    if !possible() {
        return;
    }
    let mut scene = Scene::start('x', &PROMPT, [None; 2]);
    scene.wait_carriers([true, false]);
    assert_eq!(scene.bond()["lacp"]["fallback"], true);
    scene.wait_reason(0, "its partner does not speak LACP");
    assert!(scene.places().values().all(|at| *at == 0));
    let file = scene.switch.folder().join("viaduct.toml");
    let text = std::fs::read_to_string(&file).expect("our own folder");
    let more = "physnets.w.bond.lacp_fallback = false\nphysnets.w.bond.lacp_rate = 'slow'\n";
    std::fs::write(&file, format!("{more}{text}")).expect("our own folder");
    scene.switch.viaduct(&["reload"]).success();
    scene.wait_carriers([false, false]);
    assert_eq!(scene.bond()["lacp"]["rate"], "slow");
    let uplink = scene.switch.show("ports")[0].clone();
    assert_eq!(uplink["status"], "down", "{uplink:#}");
    // A partner is told of the slow rate, and is agreed with as ever.
    scene.partner.script().says = [Some((SWITCH, 5)); 2];
    scene.wait_carriers([true, true]);
    let last = scene.partner.script().heard[0].last().expect("it was told").1.clone();
    assert_eq!(last[32] & 2, 0, "{last:02x?}");
    scene.places();
    scene.switch.stop();
}

#[test]
fn what_is_no_lacp_is_counted_and_harms_nobody() {
    if !possible() {
        return;
    }
    let mut scene = Scene::start('h', &PROMPT, [Some((SWITCH, 5)); 2]);
    scene.wait_carriers([true, true]);
    let good = scene.partner.script().say(0).expect("it speaks");
    // A marker comes back as its answer, from the member's own address.
    let mut marker = [&GROUP[..], &SWITCH, &SLOW, &[2, 1, 1, 16, 0, 7]].concat();
    marker.extend([&SWITCH[..], &[9, 8, 7, 6]].concat());
    marker.resize(124, 0);
    scene.partner.wires[0].send(&marker);
    let mut answer = None;
    eventually("the marker is answered", SOON, || {
        let mut frames = scene.partner.frames.try_iter();
        answer = frames.find(|(_, frame)| frame[12..15] == [0x88, 9, 2]);
        answer.is_some()
    });
    let (at, answer) = answer.expect("it was found");
    assert_eq!((at, answer[16]), (0, 2));
    assert_eq!(answer[18..], marker[18..]);
    assert_ne!(answer[6..12], SWITCH);

    // Malformed ones, told apart, and none of them taken for a word.
    let spoil = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let wrong = [spoil(16, 7), spoil(17, 3), spoil(36, 9), spoil(20, 0xff), good[..60].to_vec()];
    for frame in &wrong {
        scene.partner.wires[0].send(frame);
    }
    let lacp = |scene: &Scene, field: &str| scene.member(0)["lacp"][field].clone();
    eventually("they are counted", SOON, || lacp(&scene, "malformed") == wrong.len());
    assert_eq!(lacp(&scene, "fault"), "it ends after 60 octets of 124");
    assert_eq!(lacp(&scene, "markers"), 1);

    // A flood of them is lost where it came, and the guest's frames are not.
    let mut serial = 0;
    eventually("some were lost", SOON, || {
        for _ in 0..500 {
            scene.partner.wires[0].send(&spoil(16, 7));
        }
        serial += 1;
        scene.guest.send(0, &numbered(1, serial));
        lacp(&scene, "lost").as_u64() > Some(100)
    });
    let mut seen = Vec::new();
    eventually("the guest's frames are out", SOON, || {
        seen.extend(scene.partner.numbers().into_iter().map(|(.., serial)| serial));
        seen.len() == serial as usize
    });
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(scene.guest.receive(Duration::from_millis(50)), None, "a guest was sent one");
    scene.wait_carriers([true, true]);
    assert_eq!(scene.member(1)["lacp"]["lost"], 0);
    let drops = scene.switch.show("drops");
    let drops = drops.as_array().expect("a list").iter();
    let of_wire = drops.filter(|drop| drop["reason"] == "reserved-group").count();
    assert_eq!(of_wire, 0, "they are for the link, and are not told as drops");
    scene.switch.stop();
}

#[test]
fn a_partner_notices_nothing_of_a_handover_and_little_of_a_restart() {
    if !possible() {
        return;
    }
    let mut scene = Scene::start('q', &PROMPT, [Some((SWITCH, 5)); 2]);
    scene.wait_carriers([true, true]);
    let system = scene.bond()["lacp"]["system"].clone();
    let before = scene.partner.script().heard.each_ref().map(Vec::len);
    let view = scene.switch.hand_over();
    assert_eq!(view["dry_run"], false);
    scene.wait_carriers([true, true]);
    std::thread::sleep(Duration::from_millis(2500));
    for (at, heard) in scene.partner.script().heard.iter().enumerate() {
        let since = &heard[before[at] - 1..];
        assert!(since.len() > 2, "the new process speaks");
        for (_, frame) in since {
            assert_eq!(frame[32] & (OPEN | 0xc0), OPEN, "member {at} said {frame:02x?}");
        }
        let gaps = since.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let longest = gaps.max().expect("some");
        println!("member {at}: the longest silence was {longest:?}");
        assert!(longest < Duration::from_secs(3), "the partner has missed us");
    }
    assert_eq!(scene.bond()["lacp"]["system"], system);
    assert_eq!(scene.bond()["outages"], 0);

    let begin = Instant::now();
    scene.switch.restart();
    let started = begin.elapsed();
    scene.wait_carriers([true, true]);
    println!("carries {:?} after a restart began that took {started:?}", begin.elapsed());
    assert_eq!(scene.bond()["lacp"]["system"], system);
    scene.switch.stop();
}
