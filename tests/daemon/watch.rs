//! Frames followed on their way: captured at ports, and traced step by step.
//!
//! The frames are real ones, of guests' processes without a guest; who reads what is captured is the
//! format's own reader, and tcpdump where it is installed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use control::frame::Sketch;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, guest_port, port_key, uuid};
use crate::common::front_end::{FrontEnd, Waiting};
use crate::common::process::{self, Process, eventually};
use crate::skip;

/// `web` and `db` on one network: `db` may be asked for tcp 80 only, and all else is permitted.
struct Bed {
    switch: Daemon,
    web: FrontEnd,
    db: FrontEnd,
}

impl Bed {
    fn start() -> Bed {
        let switch = Daemon::builder().start();
        switch.local_network("n");
        let all = json!([{"direction": "ingress"}, {"direction": "egress"}]);
        let some = json!([
            {"direction": "ingress", "protocol": "tcp", "ports": 80},
            {"direction": "egress"},
        ]);
        for (name, number, rules) in [("web", 1, all), ("db", 2, some)] {
            let group = json!({"name": name, "rules": rules});
            switch.put(&format!("security-groups/{}", uuid(name)), &group);
            let mut port = guest_port(name, "n", &format!("52:54:00:00:00:{number:02x}"));
            port["port_security"] = json!(true);
            port["fixed_ips"] = json!([format!("10.0.0.{number}")]);
            port["security_groups"] = json!([uuid(name)]);
            switch.put(&port_key(name), &port);
        }
        let [web, db] = ["web", "db"].map(|name| {
            let mut guest = Waiting::new(&switch.socket(name)).connect(1);
            guest.start();
            switch.wait_ready(name);
            guest
        });
        Bed { switch, web, db }
    }

    /// A frame from `web` to `db`, or the other way round.
    fn frame(from: u8, words: &str) -> Vec<u8> {
        let mac = |number| [0x52, 0x54, 0, 0, 0, number];
        words.parse::<Sketch>().expect(words).bytes(mac(from), mac(3 - from))
    }

    /// Has `web` send a frame, and waits until the switch has taken it.
    #[track_caller]
    fn web_sends(&mut self, words: &str) -> Vec<u8> {
        let frame = Bed::frame(1, words);
        self.web.send(0, &frame);
        eventually("the switch takes it", SOON, || self.web.untaken(0) == 0);
        frame
    }

    /// Starts a command that follows frames, and waits until it does.
    #[track_caller]
    fn follow(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
        command.args(arguments).arg("--config").arg(self.switch.folder().join("viaduct.toml"));
        let process = Process::start(&mut command);
        eventually("it follows", SOON, || process.text().contains("Ctrl-C ends it"));
        process
    }

    /// Asks by the socket itself, and returns the connection and the answer.
    fn ask(&self, query: &Value) -> (BufReader<UnixStream>, Value) {
        let socket = self.switch.folder().join("viaduct.sock");
        let mut stream = UnixStream::connect(socket).expect("the daemon listens");
        stream.write_all(format!("{query}\n").as_bytes()).expect("it reads");
        let mut stream = BufReader::with_capacity(512, stream);
        let mut line = String::new();
        stream.read_line(&mut line).expect("it answers");
        (stream, serde_json::from_str(&line).expect("JSON"))
    }
}

fn capture_query(ports: &Value, snaplen: u32) -> Value {
    json!({"query": "capture", "ports": ports, "drops": false, "filter": "", "snaplen": snaplen})
}

/// What a captured frame is: its interface, its direction, its comment, and itself.
type Captured = (String, u32, Option<String>, Vec<u8>);

/// All frames of a file; and what its statistics say was delivered and dropped, of each interface.
fn read(file: &Path) -> (Vec<Captured>, Vec<(String, u64, u64)>) {
    let mut reader = PcapNgReader::new(File::open(file).expect("it is there")).expect("pcapng");
    let (mut names, mut frames, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(block) => {
                names.extend(block.options.iter().filter_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                }));
            }
            Block::EnhancedPacket(block) => {
                let flags = block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Flags(flags) => Some(*flags),
                    _ => None,
                });
                let comment = block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                });
                assert_eq!(block.original_len as usize, block.data.len());
                let name = names[block.interface_id as usize].clone();
                frames.push((name, flags.expect("a direction"), comment, block.data.to_vec()));
            }
            Block::InterfaceStatistics(block) => {
                let (mut delivered, mut dropped) = (None, None);
                for option in &block.options {
                    match option {
                        InterfaceStatisticsOption::IsbUsrDeliv(frames) => delivered = Some(*frames),
                        InterfaceStatisticsOption::IsbIfDrop(frames) => dropped = Some(*frames),
                        _ => {}
                    }
                }
                let name = names[block.interface_id as usize].clone();
                statistics.push((
                    name,
                    delivered.expect("it is told"),
                    dropped.expect("so is this"),
                ));
            }
            _ => {}
        }
    }
    (frames, statistics)
}

#[test]
fn a_capture_has_what_comes_and_goes_and_why_it_is_dropped() {
    let mut bed = Bed::start();
    let file = bed.switch.folder().join("web.pcapng");
    let path = file.to_str().expect("a path of ours");
    let mut capture =
        bed.follow(&["capture", "--port", "web", "--filter", "ip or arp", "-w", path]);
    let drops_file = bed.switch.folder().join("drops.pcapng");
    let drops_path = drops_file.to_str().expect("a path of ours");
    let mut drops = bed.follow(&["capture", "--drops", "--filter", "tcp", "-w", drops_path]);

    let asks = bed.web_sends("tcp 10.0.0.1:4000 > 10.0.0.2:80 syn");
    let refused = bed.web_sends("tcp 10.0.0.1:4000 > 10.0.0.2:81 syn");
    let spoofed = bed.web_sends("tcp 10.0.0.9:4000 > 10.0.0.2:80 syn");
    let who_has = bed.web_sends("arp who-has 10.0.0.2 tell 10.0.0.1");
    let answers = Bed::frame(2, "tcp 10.0.0.2:80 > 10.0.0.1:4000 syn,ack");
    bed.db.send(0, &answers);
    bed.web.receives(|frame| frame == answers);
    bed.db.receives(|frame| frame == who_has);

    for process in [&mut capture, &mut drops] {
        process.signal(libc::SIGINT);
    }
    let told = capture.finish(SOON).success();
    assert!(told.contains("6 frames; it was asked for"), "{told}");
    drops.finish(SOON).success();

    let (frames, statistics) = read(&file);
    let found: BTreeSet<_> = frames.into_iter().collect();
    let (inbound, outbound) = (1, 2);
    let spoof = "dropped, spoof-ip: Port security: the source IP address is none of the port's.";
    let denied = "dropped, acl-ingress: No rule permits the port to be sent it, or one denies it. \
                  It came from web.";
    let row = |port: &str, flags, comment: Option<&str>, frame: &[u8]| -> Captured {
        (port.to_owned(), flags, comment.map(str::to_owned), frame.to_vec())
    };
    let expected = [
        row("web", inbound, None, &asks),
        row("web", inbound, None, &refused),
        row("db", outbound, Some(denied), &refused),
        row("web", inbound, Some(spoof), &spoofed),
        row("web", inbound, None, &who_has),
        row("web", outbound, None, &answers),
    ];
    assert_eq!(found, BTreeSet::from(expected));
    let statistics: BTreeSet<_> = statistics.into_iter().collect();
    assert_eq!(statistics, BTreeSet::from([("db".to_owned(), 1, 0), ("web".to_owned(), 5, 0)]));

    let (dropped, _) = read(&drops_file);
    let expected =
        [row("db", outbound, Some(denied), &refused), row("web", inbound, Some(spoof), &spoofed)];
    assert_eq!(BTreeSet::from_iter(dropped), BTreeSet::from(expected));

    // What it costs when it has ended: nothing is watched any more, and frames pass as before.
    let again = bed.web_sends("tcp 10.0.0.1:4001 > 10.0.0.2:80 syn");
    bed.db.receives(|frame| frame == again);

    // By a pipe as in the manual, live.
    let probe = Command::new("tcpdump").arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("there is no tcpdump");
    }
    let config = bed.switch.folder().join("viaduct.toml");
    let pipe = format!(
        "{} capture --port web --filter 'dst port 80' --count 1 -w - --config {} | tcpdump -nr -",
        env!("CARGO_BIN_EXE_viaduct"),
        config.display()
    );
    let piped = Process::start(Command::new("sh").args(["-c", &pipe]));
    eventually("it follows", SOON, || piped.text().contains("Ctrl-C ends it"));
    bed.web_sends("tcp 10.0.0.1:4002 > 10.0.0.2:80 syn");
    let text = piped.finish(SOON).success();
    assert!(text.contains("10.0.0.1.4002 > 10.0.0.2.80: Flags [S]"), "{text}");
    let text = process::run(Command::new("tcpdump").args(["-nr", path]), SOON).success();
    assert_eq!(text.lines().filter(|line| line.contains("10.0.0.")).count(), 6, "{text}");
    bed.switch.stop();
}

#[test]
fn a_trace_says_what_the_worker_did_and_that_is_what_would_be_done_again() {
    let mut bed = Bed::start();
    let frames = [
        "tcp 10.0.0.1:4000 > 10.0.0.2:80 syn",
        "tcp 10.0.0.1:4000 > 10.0.0.2:81 syn",
        "tcp 10.0.0.9:4000 > 10.0.0.2:80 syn",
        "arp who-has 10.0.0.2 tell 10.0.0.1",
        "udp 10.0.0.1:68 > 255.255.255.255:67",
        "udp 10.0.0.1:4000 > 10.0.0.2:53 fragment 1480",
    ];
    let filter = "ip or arp";
    let trace =
        bed.follow(&["trace", "--port", "web", "--filter", filter, "--count", "6", "--json"]);
    for words in frames {
        bed.web_sends(words);
    }
    let text = trace.finish(SOON).success();
    let courses = text.lines().filter(|line| line.starts_with('{'));
    let courses: Vec<Value> =
        courses.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(courses.len(), frames.len(), "{text}");
    for (words, course) in frames.iter().zip(&courses) {
        let frame = course["frame"].as_str().expect("words");
        assert!(frame.starts_with(&words[..12]), "{words}: {frame}");
        let output = bed.switch.viaduct(&["test-frame", "--port", "web", "--json", frame]);
        let judged: Value = serde_json::from_str(&output.text).expect("JSON");
        for field in ["octets", "from", "network", "leave", "flooded", "to", "passes"] {
            assert_eq!(course[field], judged[field], "{field} of {words}");
        }
        assert_eq!(course["missing"], 0);
    }
    let destinations: Vec<_> = courses.iter().map(|course| &course["destination"]).collect();
    let expected = [json!("static"), json!("static"), Value::Null];
    assert_eq!(destinations[..3], expected.iter().collect::<Vec<_>>());
    assert_eq!(courses[1]["to"][0]["reason"], "acl-ingress");
    assert_eq!(courses[2]["leave"]["reason"], "spoof-ip");
    assert_eq!(
        (&courses[3]["flooded"], &courses[3]["destination"]),
        (&json!(true), &json!("group"))
    );

    // In words, and only what matches.
    let trace = bed.follow(&["trace", "--filter", "dst port 80", "--count", "1"]);
    bed.web_sends(frames[1]);
    bed.web_sends(frames[0]);
    let text = trace.finish(SOON).success();
    assert!(text.contains("tcp 10.0.0.1:4000 > 10.0.0.2:80 syn"), "{text}");
    assert!(text.contains("to db     passes: rule 0 of group db: ingress tcp 80"), "{text}");
    assert!(!text.contains(":81"), "{text}");
    bed.switch.stop();
}

#[test]
fn who_reads_slowly_loses_frames_and_is_told_how_many() {
    const FRAMES: u64 = 6000;
    let mut bed = Bed::start();
    let web = json!([{"uuid": uuid("web"), "name": "web"}]);
    let (mut stream, answer) = bed.ask(&capture_query(&web, 2048));
    assert_eq!(answer["answer"]["capture"]["ports"], web, "{answer}");
    let received = |switch: &Daemon| {
        switch.show_port("ports", "web")["received_frames"].as_u64().expect("a number")
    };
    let before = received(&bed.switch);
    // Nothing of this is read; each frame is recorded once, as it goes no further.
    let mut frame = Bed::frame(1, "tcp 10.0.0.9:4000 > 10.0.0.2:80 syn");
    frame.resize(1000, 0);
    for _ in 0..FRAMES {
        while bed.web.untaken(0) > 32 {
            std::thread::yield_now();
        }
        bed.web.send(0, &frame);
    }
    eventually("the switch takes all of them", SOON, || received(&bed.switch) - before == FRAMES);

    // Who asks for the end gets what there is, and the count of the rest.
    stream.get_ref().shutdown(Shutdown::Write).expect("it is open");
    let (mut read, mut line, mut octets) = (0, String::new(), Vec::new());
    let end = loop {
        line.clear();
        stream.read_line(&mut line).expect("it goes on");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        if !event["end"].is_null() {
            break event["end"].clone();
        }
        let view = &event["frame"];
        assert_eq!(view["reason"], "spoof-ip", "{view}");
        octets.resize(view["kept"].as_u64().expect("a number") as usize, 0);
        stream.read_exact(&mut octets).expect("they follow");
        assert!(octets == frame, "it is the frame as it was");
        read += 1;
    };
    assert_eq!(stream.read_line(&mut line).expect("it is over"), 0);
    let lost = end["lost"][0]["frames"].as_u64().expect("frames were lost");
    assert_eq!(end["lost"][0]["port"], web[0]);
    assert!(lost > 0 && read > 0, "{end}");
    assert_eq!((read + lost, &end["given"]), (FRAMES, &json!(read)));
    bed.switch.stop();
}

#[test]
fn there_is_room_for_a_few() {
    let mut bed = Bed::start();
    let mut open: Vec<_> = (0..4).map(|_| bed.ask(&capture_query(&json!([]), 100))).collect();
    assert!(open.iter().all(|(_, answer)| !answer["answer"].is_null()));
    let refused = bed.switch.viaduct(&["trace", "--seconds", "1"]);
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("which is the most: end one of them"), "{}", refused.text);

    // One that is left without a word makes room, and a port that is taken away ends what is about it.
    drop(open.pop());
    eventually("there is room", SOON, || {
        bed.switch.viaduct(&["trace", "--seconds", "1"]).status == 0
    });
    let capture = bed.follow(&["capture", "--port", "db"]);
    bed.switch.delete(&port_key("db"));
    let text = capture.finish(SOON).success();
    assert!(text.contains("the port was taken away"), "{text}");

    let wrong = bed.switch.viaduct(&["capture", "--filter", "tcq"]);
    assert_eq!(wrong.status, 2);
    assert!(wrong.text.contains("`tcq` is not understood"), "{}", wrong.text);
    bed.switch.stop();
}
