//! A switch with its state in an etcd of its own, a stream of frames through it, and what it reports
//! where nothing happens to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::common::daemon::{Builder, Daemon, HOST, SOON, uuid};
use crate::common::etcd::{Etcd, Found};
use crate::common::process::eventually;
use crate::common::wire::Wire;
use crate::stream::{LEFT, RIGHT, Stream};
use crate::values::{self, ROOT};

/// What the switch of a test, its store and its frames are.
pub struct Bed {
    // Dropped first: it looks at the switch.
    stream: Option<Stream>,
    pub switch: Daemon,
    pub etcd: Etcd,
    wires: Option<(Wire, Wire)>,
    /// The ends of the stream, as they stand in the store.
    ends: [(String, Value); 2],
    clock: PathBuf,
}

/// What is reported, by key, without what differs from run to run.
type Reports = BTreeMap<String, Value>;

/// What a switch reports of [`values::desired`] to which nothing happens.
fn undisturbed() -> &'static Reports {
    static REPORTS: OnceLock<Reports> = OnceLock::new();
    REPORTS.get_or_init(|| {
        let mut bed = Bed::set_up(1, 1, |builder| builder);
        eventually("all is reported", SOON, || {
            let reports = bed.reports();
            let status = |name: &str| reports.get(&format!("ports/{}", uuid(name)));
            let expected = [
                ("left", "ready"),
                ("right", "ready"),
                ("late", "waiting"),
                ("lost", "waiting"),
                ("wrong-mtu", "refused"),
                ("downed", "down"),
            ];
            expected.iter().all(|(name, is)| status(name).is_some_and(|it| it["status"] == *is))
        });
        bed.end_of_stream();
        bed.reports()
    })
}

impl Bed {
    /// A cluster with so many members, a switch on it with all that it should have, and a stream.
    ///
    /// Of several members, the switch knows only the last.
    #[track_caller]
    pub fn start(members: usize) -> Bed {
        undisturbed();
        Bed::set_up(members, 1, |builder| builder)
    }

    /// The same, with a switch that knows all members.
    #[track_caller]
    pub fn knowing_all(members: usize) -> Bed {
        undisturbed();
        Bed::set_up(members, members, |builder| builder)
    }

    /// The same with one member, and a switch with a clock that can be set.
    #[track_caller]
    pub fn with_own_clock() -> Bed {
        undisturbed();
        let bed = Bed::set_up(1, 1, |builder| {
            let clock = builder.folder().join("clock");
            fs::write(&clock, "+0").expect("the folder is ours");
            let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
            let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
            let preload = format!("LD_PRELOAD={library}");
            // The monotonic clock does not jump on any machine.
            let keep = "FAKETIME_DONT_FAKE_MONOTONIC=1";
            builder.under(&["env", &preload, &file, keep, "FAKETIME_NO_CACHE=1"])
        });
        let before = bed.report_time("left");
        bed.set_clock("+3d");
        bed.change_is_followed("10.7.0.1");
        bed.etcd.delete(&values::at_port("late"));
        eventually("the port goes", SOON, || bed.reported(&port("late")).is_none());
        bed.put_desired();
        eventually("the port comes, on a day to come", SOON, || {
            bed.reported(&port("late")).is_some() && bed.report_time("late")[..10] > before[..10]
        });
        bed.set_clock("+0");
        bed
    }

    fn set_up(members: usize, known: usize, with: impl FnOnce(Builder) -> Builder) -> Bed {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let interface = |end: &str| format!("vf{}-{number}{end}", std::process::id());
        // A test writes values that are larger than etcd takes by itself.
        let etcd = Etcd::start_with(members, &["--max-request-bytes=10000000"], None);
        let wires = (Wire::new(&interface("l")), Wire::new(&interface("r")));
        let end = |name: &str, number: u8, (mac, ip): ([u8; 6], [u8; 4])| {
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            let ip = ip.map(|octet| octet.to_string()).join(".");
            let device = format!("net_af_packet{number},iface={}", interface(&name[..1]));
            (values::at_port(name), values::end(name, &device, &mac, &ip))
        };
        let ends = [end("left", 0, LEFT), end("right", 1, RIGHT)];
        let builder = Daemon::builder().etcd(&etcd.endpoints()[members - known..]);
        let clock = builder.folder().join("clock");
        let builder = builder.set("store.etcd.lease_seconds", "5");
        let builder = with(builder.set("store.etcd.timeout_ms", "1000"));
        let mut bed =
            Bed { stream: None, switch: builder.start(), etcd, wires: Some(wires), ends, clock };
        bed.put_desired();
        bed.stream_again();
        bed
    }

    /// Writes all that should be, as it should be.
    #[track_caller]
    pub fn put_desired(&self) {
        for (key, value) in values::desired().iter().chain(&self.ends) {
            self.etcd.put(key, &value.to_string());
        }
    }

    /// Writes the group with rules for these addresses besides.
    #[track_caller]
    pub fn put_group(&self, addresses: &[&str]) {
        let group = values::group(addresses);
        self.etcd.put(&values::at("security-groups", "g"), &group.to_string());
    }

    /// Changes the group, sees the change in force, and changes it back.
    #[track_caller]
    pub fn change_is_followed(&self, address: &str) {
        let in_force = || {
            let explained = self.switch.viaduct(&["explain", "port", "left"]);
            explained.text.contains(address)
        };
        self.put_group(&[address]);
        eventually("the change is in force", SOON, in_force);
        self.put_group(&[]);
        eventually("the change back is in force", SOON, || !in_force());
    }

    /// Listens on the socket of a guest's port and waits for the switch.
    #[track_caller]
    pub fn guest(&self, name: &str) -> (UnixListener, UnixStream) {
        let path = self.switch.socket(name);
        let listener = UnixListener::bind(&path).expect("a socket directory of our own");
        let (stream, _) = listener.accept().expect("the switch connects");
        fs::remove_file(&path).expect("it is there");
        (listener, stream)
    }

    /// All errors that the switch tells, but those that belong to the values of these tests.
    #[track_caller]
    pub fn problems(&self) -> Vec<Value> {
        let mut problems = self.switch.errors();
        let wrong = format!("nodes/{HOST}/ports/{}", uuid("wrong-mtu"));
        problems.retain(|problem| problem["object"] != wrong.as_str());
        problems
    }

    /// Waits until the switch tells of something in these words.
    #[track_caller]
    pub fn says(&self, words: &str) {
        eventually(&format!("it is told: {words}"), SOON, || {
            let told = |it: &Value| it["what"].as_str().is_some_and(|what| what.contains(words));
            self.problems().iter().any(told)
        });
    }

    /// Waits until the switch tells of something wrong with an object, in these words.
    #[track_caller]
    pub fn says_at(&self, object: &str, words: &str) {
        eventually(&format!("{object} is told: {words}"), SOON, || {
            self.switch.errors().iter().any(|it| {
                it["object"].as_str().is_some_and(|its| its.ends_with(object))
                    && it["what"].as_str().is_some_and(|what| what.contains(words))
            })
        });
    }

    /// What is reported at a key below that of the host.
    pub fn reported(&self, key: &str) -> Option<Found> {
        self.etcd.value(&format!("{ROOT}state/{HOST}/{key}"))
    }

    /// What is reported about a port.
    #[track_caller]
    pub fn reported_port(&self, name: &str) -> Value {
        let found = self.reported(&port(name)).expect("it is reported");
        serde_json::from_str(&found.value).expect("JSON")
    }

    fn report_time(&self, name: &str) -> String {
        self.reported_port(name)["since"].as_str().expect("a time").to_owned()
    }

    /// Sets the switch's clock ahead or back.
    pub fn set_clock(&self, offset: &str) {
        fs::write(&self.clock, offset).expect("the folder is ours");
    }

    /// Ends the switch as a crash would, and starts it. The stream ends before.
    #[track_caller]
    pub fn restart_by_kill(&mut self) {
        self.end_of_stream();
        self.switch.kill();
        self.switch.start();
    }

    /// Begins the stream, unless it runs.
    #[track_caller]
    pub fn stream_again(&mut self) {
        if let Some((from, to)) = self.wires.take() {
            self.stream = Some(Stream::begin(from, to));
        }
    }

    /// Ends the stream: no frame of it may have been lost.
    #[track_caller]
    pub fn end_of_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.wires = Some(stream.end());
        }
    }

    /// Waits until the switch reports what an undisturbed one does, and ends the stream.
    #[track_caller]
    pub fn ends_as_undisturbed(&mut self) {
        let expected = undisturbed();
        let mut reports = Reports::new();
        let deadline = std::time::Instant::now() + 2 * SOON;
        while reports != *expected && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(100));
            reports = self.reports();
        }
        assert_eq!(reports, *expected);
        eventually("it is alive", SOON, || {
            self.reported("alive").is_some_and(|alive| alive.lease != 0)
        });
        eventually("no problem is left", SOON, || self.problems().is_empty());
        self.end_of_stream();
        self.switch.stop();
        assert_eq!(self.etcd.list(&format!("{ROOT}state/")), [], "what it reported is left");
    }

    /// What is reported, without what differs from run to run.
    fn reports(&self) -> Reports {
        let prefix = format!("{ROOT}state/{HOST}/");
        let folder = self.switch.folder().display().to_string();
        let of = |found: Found| {
            let key = found.key.strip_prefix(&prefix)?.to_owned();
            if key == "alive" {
                return None;
            }
            let text = found.value.replace(&folder, "DIR");
            let mut value: Value = serde_json::from_str(&text).expect("reports are JSON");
            for varying in ["since", "device"] {
                value.as_object_mut()?.remove(varying);
            }
            Some((key, value))
        };
        self.etcd.list(&prefix).into_iter().filter_map(of).collect()
    }
}

/// Where a port is reported, below the host.
fn port(name: &str) -> String {
    format!("ports/{}", uuid(name))
}
