//! Bonds of uplinks: a lost link is left, nothing comes twice, flows keep their order, switches and
//! guests are told.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Builder, Daemon, SOON, guest_port, network_key, port_key, uuid};
use crate::common::front_end::{FrontEnd, Waiting};
use crate::common::namespace::{self, Namespace};
use crate::common::process::{self, Process, eventually};
use crate::common::wire::Wire;
use crate::skip;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const IP: [u8; 4] = [10, 0, 0, 1];
pub const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub const VLAN: u8 = 100;
/// An ethertype for experiments (802.1Q table 9-3).
const NUMBERED: [u8; 2] = [0x88, 0xb5];

/// Whether this machine lets us make interfaces; says so if not.
pub fn possible() -> bool {
    if !geteuid().is_root() {
        skip("making interfaces needs root");
    }
    geteuid().is_root()
}

/// A switch with a guest, and a bond of two wires whose far ends are the test.
pub struct Bed {
    pub switch: Daemon,
    pub names: [String; 2],
    pub wires: [Wire; 2],
    pub guest: FrontEnd,
}

impl Bed {
    pub fn start(label: char, rules: &[(&str, &str)]) -> Bed {
        let bed = Bed::start_unheard(label, rules);
        bed.wait_carriers(&[true, rules.contains(&("mode", "'balance'"))]);
        bed
    }

    /// The same, whoever carries.
    pub fn start_unheard(label: char, rules: &[(&str, &str)]) -> Bed {
        let names = ['a', 'b'].map(|end| format!("vb{}{label}{end}", std::process::id()));
        let wires = names.each_ref().map(|name| Wire::new(name));
        let builder = bond(Daemon::builder(), &names, rules);
        let switch = builder.start();
        let network = json!({"type": "vlan", "physnet": "w", "vlan": VLAN});
        switch.put(&network_key("n"), &network);
        let waiting = Waiting::new(&switch.socket("p"));
        let mut port = guest_port("p", "n", "52:54:00:00:00:01");
        port["fixed_ips"] = json!(["10.0.0.1"]);
        switch.put(&port_key("p"), &port);
        let mut guest = waiting.connect(1);
        guest.start();
        switch.wait_ready("p");
        Bed { switch, names, wires, guest }
    }

    /// Loses the link of a member, or has it back.
    fn carrier(&self, member: usize, word: &str) {
        ip(&format!("link set {} carrier {word}", self.names[member]));
    }

    /// The same, without waiting for it.
    fn carrier_meanwhile(&self, member: usize, word: &str) -> Process {
        let mut command = Command::new("ip");
        Process::start(command.args(["link", "set", &self.names[member], "carrier", word]))
    }

    fn members(&self, field: &str) -> Vec<Value> {
        let bonds = self.switch.show("bonds");
        let members = bonds[0]["members"].as_array().expect("members").clone();
        members.iter().map(|member| member[field].clone()).collect()
    }

    #[track_caller]
    fn wait_carriers(&self, expected: &[bool]) {
        eventually(&format!("carriers are {expected:?}"), SOON, || {
            self.members("carries") == expected
        });
    }

    /// All numbered frames that have come out by a wire.
    fn numbers(&self, member: usize) -> Vec<(u16, u32)> {
        let receive = || self.wires[member].receive(Duration::ZERO);
        std::iter::from_fn(receive).filter_map(|frame| number(&frame)).collect()
    }
}

/// The configuration of a bond of two interfaces as physnet `w`.
pub fn bond(builder: Builder, names: &[String; 2], rules: &[(&str, &str)]) -> Builder {
    let [a, b] = names;
    let members = format!("['net_af_packet0,iface={a}', 'net_af_packet1,iface={b}']");
    let set = |builder: Builder, (key, value): &(&str, &str)| {
        builder.set(&format!("physnets.w.bond.{key}"), value)
    };
    rules.iter().fold(builder.set("physnets.w.bond.members", &members), set)
}

#[track_caller]
pub fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    process::run(command.args(arguments.split_whitespace()), SOON).success();
}

/// UDP of the guest's to a station on the wire: its flow is its source port.
pub fn numbered(flow: u16, serial: u32) -> Vec<u8> {
    let mut frame = [&STATION[..], &MAC, &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([IP, [10, 0, 0, 9]].concat());
    frame.extend(flow.to_be_bytes());
    frame.extend([0, 80, 0, 14, 0, 0]);
    frame.extend(serial.to_be_bytes());
    frame.extend(NUMBERED);
    frame
}

/// Flow and number of such a frame, as it is on the wire with its tag.
pub fn number(frame: &[u8]) -> Option<(u16, u32)> {
    let udp = frame.get(38..)?;
    let ours = frame[12..18] == [0x81, 0, 0, VLAN, 8, 0] && udp.get(12..14)? == NUMBERED;
    let flow = u16::from_be_bytes([udp[0], udp[1]]);
    ours.then(|| (flow, u32::from_be_bytes([udp[8], udp[9], udp[10], udp[11]])))
}

/// Whether this is the guest's address announced by gratuitous ARP, with the network's tag.
fn announces(frame: &[u8]) -> bool {
    let Some(arp) = frame.get(18..46) else { return false };
    frame[..6] == [0xff; 6]
        && frame[6..18] == [&MAC[..], &[0x81, 0, 0, VLAN, 8, 6]].concat()
        && arp[8..14] == MAC
        && arp[14..18] == IP
        && arp[24..28] == IP
}

/// A broadcast of a station's on the wire.
fn flooded(serial: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &STATION, &[0x81, 0, 0, VLAN], &NUMBERED].concat();
    frame.resize(64, serial);
    frame
}

#[test]
fn a_lost_link_is_left_for_the_other_and_returned_to() {
    if !possible() {
        return;
    }
    let rules = [("up_delay_ms", "200"), ("monitor_ms", "5")];
    let names = format!("'net_af_packet0,iface=vb{}aa'", std::process::id());
    let rules = [rules[0], rules[1], ("primary", names.as_str())];
    let mut bed = Bed::start('a', &rules);

    // Numbered frames, through the loss of the primary and its return.
    let mut seen: [Vec<u32>; 2] = Default::default();
    let (mut serial, mut cut, mut over, mut announced) = (0, None, None, [false; 2]);
    let mut back_from = None;
    let (begin, mut tools) = (Instant::now(), Vec::new());
    loop {
        serial += 1;
        bed.guest.send(0, &numbered(7, serial));
        std::thread::sleep(Duration::from_micros(500));
        eventually("the switch has taken it", SOON, || bed.guest.untaken(0) == 0);
        for member in 0..2 {
            while let Some(frame) = bed.wires[member].receive(Duration::ZERO) {
                announced[member] |= announces(&frame);
                seen[member].extend(number(&frame).map(|(_, serial)| serial));
            }
        }
        match (cut, over, back_from) {
            (None, ..) if seen[0].len() > 200 => {
                assert!(seen[1].is_empty(), "the backup carried {:?}", seen[1]);
                assert_eq!(announced, [false; 2], "nothing has moved yet");
                cut = Some(Instant::now());
                tools.push(bed.carrier_meanwhile(0, "off"));
            }
            (Some(cut), None, _) if !seen[1].is_empty() => {
                over = Some(cut.elapsed());
            }
            (_, Some(_), None) if seen[1].len() > 200 => {
                back_from = Some(seen[0].len());
                tools.push(bed.carrier_meanwhile(0, "on"));
            }
            (_, _, Some(from)) if seen[0].len() > from + 200 && announced == [true; 2] => break,
            _ => {}
        }
        assert!(begin.elapsed() < SOON, "{cut:?} {over:?} {back_from:?} {announced:?}");
    }
    tools.into_iter().for_each(|tool| drop(tool.finish(SOON).success()));
    let (first, last) = (seen[1][0], *seen[1].last().expect("some"));
    println!(
        "{:?} after a tool was started to cut the link the other one carried; of {serial} frames in \
         {:?}, {} were lost",
        over.expect("it did"),
        begin.elapsed(),
        first - seen[0].iter().filter(|serial| **serial < first).max().expect("some") - 1,
    );
    assert!(seen.iter().all(|seen| seen.is_sorted_by(|one, next| one < next)), "{seen:?}");
    let apart = |serial: &u32| *serial < first || *serial > last;
    assert!(seen[0].iter().all(apart), "both links carried at once: {seen:?}");

    let bond = &bed.switch.show("bonds")[0];
    assert_eq!((&bond["failovers"], &bond["outages"]), (&json!(2), &json!(0)), "{bond:#}");
    assert_eq!(bed.members("losses"), [1, 0]);
    assert!(bed.switch.viaduct(&["show", "bonds"]).success().contains("active-backup"));
    bed.switch.stop();
}

#[test]
fn what_is_flooded_to_both_links_comes_once_and_is_learned_at_the_bond() {
    if !possible() {
        return;
    }
    let mut bed = Bed::start('f', &[("monitor_ms", "5")]);
    let drops = |bed: &Bed| {
        let drops = bed.switch.show("drops");
        let drops = drops.as_array().expect("a list").iter();
        let mut ignored = drops.filter(|drop| drop["reason"] == "inactive-member");
        ignored.next().map_or(0, |drop| drop["frames"].as_u64().expect("a count"))
    };
    for (round, carrier) in [(0_u8, 0), (1, 1)] {
        if round == 1 {
            bed.carrier(0, "off");
            bed.wait_carriers(&[false, true]);
        }
        for serial in 0..20 {
            for wire in &bed.wires {
                wire.send(&flooded(round * 20 + serial));
            }
        }
        // What the guest sends comes back by the other link too, where a switch floods it.
        bed.guest.send(0, &numbered(1, 1));
        let out = bed.wires[carrier].find(SOON, |frame| number(frame).is_some());
        bed.wires[1 - carrier].send(&out.expect("it is flooded"));
        let ignored = u64::from(round + 1) * 21;
        eventually("the other link's are ignored", SOON, || drops(&bed) == ignored);
        for serial in 0..20 {
            let frame = bed.guest.receives(|frame| frame[12..14] == NUMBERED);
            assert_eq!(frame[14..], flooded(round * 20 + serial)[18..], "each once, in order");
        }
        assert_eq!(bed.guest.receive(Duration::from_millis(50)), None, "a frame came twice");
    }
    let fdb = bed.switch.show("fdb");
    assert_eq!(fdb["statistics"]["moved"], 0, "{fdb:#}");
    let entry = |mac: &str| {
        let entries = fdb["entries"].as_array().expect("a list").iter();
        entries.clone().find(|entry| entry["mac"] == mac).expect("it is known").clone()
    };
    assert_eq!(entry("02:00:00:00:00:09")["port"]["physnet"], "w");
    assert_eq!(entry("52:54:00:00:00:01")["port"]["uuid"], uuid("p"));
    bed.switch.stop();
}

#[test]
fn flows_keep_their_order_and_only_a_lost_links_move() {
    if !possible() {
        return;
    }
    let rules = [("mode", "'balance'"), ("up_delay_ms", "100"), ("monitor_ms", "5")];
    let mut bed = Bed::start('l', &rules);
    const FLOWS: u16 = 24;
    // Frames from this number on are sent while a link is being lost. A packet socket may keep some of
    // them for as long as the link is down, and send them when it is back.
    const LOSS: u32 = 1000;
    let mut serial = 0;
    let mut play = |bed: &mut Bed, rounds: u32| -> [BTreeMap<u16, Vec<u32>>; 2] {
        let mut seen: [BTreeMap<u16, Vec<u32>>; 2] = Default::default();
        let mut collect = |bed: &Bed| {
            for (member, flows) in seen.iter_mut().enumerate() {
                let numbers = bed.numbers(member).into_iter();
                for (flow, serial) in numbers.filter(|(_, serial)| *serial < LOSS) {
                    flows.entry(flow).or_default().push(serial);
                }
            }
            seen.iter().flat_map(BTreeMap::values).map(Vec::len).sum::<usize>()
        };
        for round in 1..=rounds {
            serial += 1;
            (0..FLOWS).for_each(|flow| bed.guest.send(0, &numbered(4000 + flow, serial)));
            let sent = usize::from(FLOWS) * round as usize;
            eventually("all have come out", SOON, || collect(bed) == sent);
        }
        for flows in &seen {
            assert!(flows.values().all(|them| them.is_sorted_by(|one, next| one < next)));
        }
        seen
    };
    let places = |seen: &[BTreeMap<u16, Vec<u32>>; 2]| -> BTreeMap<u16, usize> {
        let at = |member: usize| seen[member].keys().map(move |flow| (*flow, member));
        assert_eq!(seen[0].len() + seen[1].len(), usize::from(FLOWS), "each by one link: {seen:?}");
        at(0).chain(at(1)).collect()
    };
    let whole = places(&play(&mut bed, 20));
    assert!(whole.values().any(|at| *at == 0) && whole.values().any(|at| *at == 1), "{whole:?}");

    // A flow on the link that stays loses nothing; of the lost one's, what was under way.
    let (mut sent, begin) = (LOSS, Instant::now());
    let stays: Vec<u16> = whole.iter().filter(|(_, at)| **at == 1).map(|(flow, _)| *flow).collect();
    let mut seen: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    bed.carrier(0, "off");
    while seen.len() < usize::from(FLOWS) {
        sent += 1;
        (0..FLOWS).for_each(|flow| bed.guest.send(0, &numbered(4000 + flow, sent)));
        eventually("the switch has taken them", SOON, || bed.guest.untaken(0) == 0);
        for (flow, serial) in bed.numbers(1) {
            seen.entry(flow).or_default().push(serial);
        }
        assert!(begin.elapsed() < SOON, "{seen:?}");
    }
    bed.wait_carriers(&[false, true]);
    for flow in &stays {
        let complete: Vec<u32> = (LOSS + 1..).take(seen[flow].len()).collect();
        assert_eq!(seen[flow], complete, "flow {flow} was disturbed");
    }
    assert!(seen.values().all(|them| them.is_sorted_by(|one, next| one < next)), "{seen:?}");
    let _ = (bed.numbers(0), bed.numbers(1));
    let without = places(&play(&mut bed, 5));
    assert!(without.values().all(|at| *at == 1), "{without:?}");

    bed.carrier(0, "on");
    bed.wait_carriers(&[true, true]);
    assert_eq!(places(&play(&mut bed, 5)), whole, "all are back where they were");
    bed.switch.stop();
}

#[test]
fn guests_are_told_when_nothing_can_leave() {
    if !possible() {
        return;
    }
    let bed = Bed::start('g', &[("up_delay_ms", "0"), ("monitor_ms", "5")]);
    let Bed { mut switch, names, guest, .. } = bed;
    let tap = format!("vb{}gt", std::process::id());
    let tap_port = json!({"network": uuid("n"), "kind": "tap", "interface": tap});
    switch.put(&port_key("t"), &tap_port);
    switch.wait_ready("t");
    let has_carrier = || {
        let path = format!("/sys/class/net/{tap}/carrier");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    };
    let all = |word: &str| names.iter().for_each(|it| ip(&format!("link set {it} carrier {word}")));
    let physnet = || switch.show("ports")[0].clone();
    eventually("the interface has its carrier", SOON, has_carrier);

    // Not where the network does not ask for it.
    all("off");
    eventually("the physnet is down", SOON, || physnet()["status"] == "down");
    assert_eq!(switch.show("bonds")[0]["outages"], 1);
    std::thread::sleep(Duration::from_millis(300));
    assert!(has_carrier() && !guest.is_connected_again());
    assert_eq!(switch.show_port("ports", "p")["status"], "ready");

    let network = json!({"type": "vlan", "physnet": "w", "vlan": VLAN, "follow_uplink": true});
    switch.put(&network_key("n"), &network);
    let told = "nothing can leave by its network's physnet: its link is down too";
    assert_eq!(switch.wait_status("p", "waiting")["reason"], told);
    assert_eq!(switch.wait_status("t", "down")["reason"], told);
    assert!(!has_carrier(), "the interface was not told");

    all("on");
    switch.wait_ready("t");
    eventually("the interface has its carrier again", SOON, has_carrier);
    let mut guest = guest;
    guest.reconnect();
    switch.wait_ready("p");
    guest.send(0, &numbered(1, 77));
    let out = |wire: &Wire| wire.find(Duration::from_millis(5), |it| number(it) == Some((1, 77)));
    eventually("it can send again", SOON, || bed.wires.iter().any(|wire| out(wire).is_some()));
    switch.stop();
}

#[test]
fn the_link_is_that_of_what_the_device_stands_on() {
    if !possible() {
        return;
    }
    if let Err(reason) = namespace::requirements() {
        return skip(&reason);
    }
    let space = Namespace::new("bl");
    let name = |end: &str| format!("vb{}{end}", std::process::id());
    for (outside, inside) in [("x", "xi"), ("y", "yi")] {
        space.veth(&name(outside), inside);
    }
    let (packet, tap) = (format!("net_af_packet0,iface={}", name("x")), name("z"));
    let xdp = format!("net_af_xdp0,iface={}", name("y"));
    let mut switch = Daemon::builder()
        .physnet("packet", &packet)
        .physnet("xdp", &xdp)
        .physnet("tap", &format!("net_tap0,iface={tap}"))
        .start();
    let down = |switch: &Daemon, physnet: &str, expected: &str| {
        eventually(&format!("{physnet} is {expected}"), SOON, || {
            let ports = switch.show("ports");
            let mut ports = ports.as_array().expect("a list").iter();
            ports.any(|port| port["physnet"] == physnet && port["status"] == expected)
        });
    };
    for physnet in ["packet", "xdp", "tap"] {
        down(&switch, physnet, "ready");
    }
    space.run("ip link set xi down; ip link set yi down", SOON).success();
    ip(&format!("link set {tap} carrier off"));
    for physnet in ["packet", "xdp", "tap"] {
        down(&switch, physnet, "down");
    }
    space.run("ip link set xi up; ip link set yi up", SOON).success();
    ip(&format!("link set {tap} carrier on"));
    for physnet in ["packet", "xdp", "tap"] {
        down(&switch, physnet, "ready");
    }
    switch.stop();
}

#[test]
fn a_bond_lives_with_one_member_and_takes_the_other_when_it_comes() {
    if !possible() {
        return;
    }
    let names = ['a', 'b'].map(|end| format!("vb{}o{end}", std::process::id()));
    let _first = Wire::new(&names[0]);
    let mut switch = bond(Daemon::builder(), &names, &[("monitor_ms", "5")]).start();
    let member = |at: usize, field: &str| switch.show("bonds")[0]["members"][at][field].clone();
    eventually("the first carries", SOON, || member(0, "carries") == true);
    assert_eq!(member(1, "link"), "absent");
    let errors = switch.errors();
    let [error] = &errors[..] else { panic!("{errors:#?}") };
    assert_eq!(error["field"], "bond.members[1]", "{error:#}");
    let uplink = switch.show("ports")[0].clone();
    assert_eq!(uplink["status"], "ready", "{uplink:#}");

    let _second = Wire::new(&names[1]);
    eventually("the second is there", SOON, || member(1, "link") == "up");
    assert_eq!((member(0, "carries"), member(1, "carries")), (json!(true), json!(false)));
    ip(&format!("link set {} carrier off", names[0]));
    eventually("the second carries", SOON, || member(1, "carries") == true);

    // Rules change while it runs; members do not.
    let file = switch.folder().join("viaduct.toml");
    let text = std::fs::read_to_string(&file).expect("our own folder");
    std::fs::write(&file, format!("physnets.w.bond.mode = 'balance'\n{text}")).expect("ours");
    ip(&format!("link set {} carrier on", names[0]));
    switch.viaduct(&["reload"]).success();
    let both = || (member(0, "carries"), member(1, "carries")) == (json!(true), json!(true));
    eventually("both carry", SOON, both);
    let text = std::fs::read_to_string(&file).expect("our own folder");
    let other = text.replace("net_af_packet1", "net_af_packet2");
    std::fs::write(&file, other).expect("our own folder");
    let refused = switch.viaduct(&["reload"]);
    assert!(refused.text.contains("physnets.w.bond.members"), "{}", refused.text);
    assert_eq!(refused.status, 1);
    switch.stop();
}

#[test]
fn a_driver_that_tells_its_link_is_asked_again_and_again() {
    if !possible() {
        return;
    }
    // No event of the kernel's is heard for these: they are looked at by their driver alone.
    let names = ['a', 'b'].map(|end| format!("vb{}t{end}", std::process::id()));
    let [a, b] = &names;
    let members = format!("['net_tap0,iface={a}', 'net_tap1,iface={b}']");
    let mut switch = Daemon::builder().set("physnets.w.bond.members", &members).start();
    let carries = |switch: &Daemon| {
        let bonds = switch.show("bonds");
        [0, 1].map(|at: usize| bonds[0]["members"][at]["carries"] == true)
    };
    eventually("the first carries", SOON, || carries(&switch) == [true, false]);
    ip(&format!("link set {a} carrier off"));
    eventually("the second carries", SOON, || carries(&switch) == [false, true]);
    assert_eq!(
        switch.show("ports")[0]["reason"],
        format!("the link of `net_tap0,iface={a}` is down")
    );
    ip(&format!("link set {b} down"));
    eventually("nobody carries", SOON, || carries(&switch) == [false, false]);
    assert_eq!(switch.show("ports")[0]["status"], "down");
    ip(&format!("link set {b} up"));
    eventually("the second carries again", SOON, || carries(&switch) == [false, true]);
    switch.stop();
}
