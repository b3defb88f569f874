//! What the switch tells who started it as a service: when it is ready, that it lives, that it ends.
//! The test plays systemd's part, by the socket that systemd names in the environment.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde_json::json;

use crate::SilentGuest;
use crate::common::daemon::{Builder, Daemon, SOON, guest_port, network_key, port_key};
use crate::common::skip;

/// The time after which the watchdog of these tests would bite. It is fed four times in it.
const LIMIT: Duration = Duration::from_secs(1);

/// Who is told.
struct Systemd(UnixDatagram);

impl Systemd {
    /// Has a switch tell this one.
    fn of(builder: Builder) -> (Systemd, Builder) {
        let path = builder.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a folder of our own");
        let place = format!("NOTIFY_SOCKET={}", path.display());
        let limit = format!("WATCHDOG_USEC={}", LIMIT.as_micros());
        (Systemd(socket), builder.under(&["env", &place, &limit]))
    }

    /// The next message, if one comes in time.
    fn next(&self, timeout: Duration) -> Option<String> {
        let mut message = [0; 1024];
        self.0.set_read_timeout(Some(timeout)).expect("a timeout");
        match self.0.recv(&mut message) {
            Ok(length) => Some(String::from_utf8_lossy(&message[..length]).trim().to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message that begins like this, and returns those before it.
    #[track_caller]
    fn wait(&self, beginning: &str) -> Vec<String> {
        let (mut before, deadline) = (Vec::new(), Instant::now() + SOON);
        while Instant::now() < deadline {
            match self.next(SOON) {
                Some(message) if message.starts_with(beginning) => return before,
                message => before.extend(message),
            }
        }
        panic!("nothing begins with {beginning}: {before:?}");
    }
}

/// A switch with two ports in its store before it starts, of which neither has a guest.
fn with_two_ports(builder: &Builder) {
    for (key, value) in [
        (network_key("n"), json!({"type": "local"})),
        (port_key("p"), guest_port("p", "n", "52:54:00:00:00:01")),
        (port_key("q"), guest_port("q", "n", "52:54:00:00:00:02")),
    ] {
        let file = builder.folder().join("store").join(format!("{key}.json"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder of our own");
        fs::write(file, value.to_string()).expect("a folder of our own");
    }
}

#[test]
fn it_is_ready_when_desired_state_is_in_force_and_says_how_it_is_until_it_ends() {
    let (systemd, builder) = Systemd::of(Daemon::builder());
    with_two_ports(&builder);
    let mut switch = builder.start();
    let before = systemd.wait("READY=1");
    // The status is told first, so that nobody sees a service that runs and has none.
    assert_eq!(before.last().expect("a status"), "STATUS=0 of 2 ports ready, 0 of 0 uplinks ready");
    assert_eq!(switch.show("ports").as_array().expect("ports").len(), 2);

    systemd.wait("WATCHDOG=1");
    systemd.wait("WATCHDOG=1");
    let _guest = SilentGuest::start(&switch, "p");
    systemd.wait("STATUS=1 of 2 ports ready");
    switch.stop();
    let after = systemd.wait("STOPPING=1");
    assert!(!after.iter().any(|message| message == "READY=1"), "it is ready once: {after:?}");
}

#[test]
fn after_a_handover_it_hears_the_new_process() {
    let (systemd, builder) = Systemd::of(Daemon::builder());
    with_two_ports(&builder);
    let mut switch = builder.start();
    systemd.wait("READY=1");
    let handed = switch.hand_over();
    // The former process names the new one, which is not heard before.
    systemd.wait(&format!("MAINPID={}", handed["pid"]));
    let before = systemd.wait("READY=1");
    assert_eq!(before.last().expect("a status"), "STATUS=0 of 2 ports ready, 0 of 0 uplinks ready");
    assert!(!before.iter().any(|message| message == "STOPPING=1"), "it ends: {before:?}");
    systemd.wait("WATCHDOG=1");
    systemd.wait("WATCHDOG=1");
    switch.stop();
    systemd.wait("STOPPING=1");
}

#[test]
fn a_store_that_does_not_answer_keeps_no_service_from_being_ready() {
    // The port of the discard service, where nobody listens.
    let builder = Daemon::builder().etcd(&["http://127.0.0.1:9".to_owned()]);
    let (systemd, builder) = Systemd::of(builder);
    let _switch = builder.start();
    let before = systemd.wait("READY=1");
    let last = before.last().expect("a status");
    assert!(last.starts_with("STATUS=the store is away"), "{before:?}");
}

#[test]
fn a_worker_that_hangs_stops_the_feeding_of_the_watchdog() {
    if !geteuid().is_root() {
        return skip("stopping one thread of another process needs root");
    }
    let (systemd, builder) = Systemd::of(Daemon::builder());
    let switch = builder.start();
    systemd.wait("READY=1");
    systemd.wait("WATCHDOG=1");

    let worker = Stopped::thread(switch.pid(), "worker-0");
    // One may be under way; after that there is none, however long systemd would wait.
    let deadline = Instant::now() + 3 * LIMIT;
    let mut fed = 0;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        fed += usize::from(
            systemd.next(left.max(Duration::from_millis(1))).as_deref() == Some("WATCHDOG=1"),
        );
    }
    assert!(fed <= 1, "the watchdog was fed {fed} times while a worker hung");
    // The control thread itself was well: it tells who hangs, and answers.
    assert!(switch.log().contains("the worker has stopped to poll"), "{}", switch.log());
    switch.show("ports");

    drop(worker);
    systemd.wait("WATCHDOG=1");
    assert!(switch.log().contains("the worker polls again"), "{}", switch.log());
}

/// A thread that does nothing until this is dropped: it is traced, and stopped, by this one.
struct Stopped(libc::pid_t);

impl Stopped {
    #[track_caller]
    fn thread(process: u32, name: &str) -> Stopped {
        let named = |thread: &fs::DirEntry| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let mut threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
        let thread = threads.find(named).unwrap_or_else(|| panic!("there is no thread {name}"));
        let thread: libc::pid_t = thread.file_name().to_string_lossy().parse().expect("a number");
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: ptrace with these requests, and waitpid without a status, write no memory of ours.
        // The thread is of a process of this test, which has not been waited for.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, null, null), 0, "seized");
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, null, null), 0, "interrupted");
            assert_eq!(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL), thread);
        }
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; a thread that has ended meanwhile makes it fail, which does no harm.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null, null) };
    }
}
