//! A store, a configuration, and a daemon that answers from a file.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use control::show::view::{
    CourseView, EndView, Event, FrameView, LostView, PortRef, ReloadOutcome, Side, StationOrigin,
    TrialView, WatchView,
};
use control::show::{Answer, Feed, Query, Server};
use tempfile::TempDir;

use crate::cli::{self, Exit};

/// Where commands run. Paths in it are shown as those of an installed switch.
pub struct Bed {
    directory: TempDir,
}

impl Bed {
    pub fn new() -> Bed {
        let directory = TempDir::new().expect("a directory for the test");
        let bed = Bed { directory };
        for folder in ["store", "vhost"] {
            fs::create_dir(bed.path(folder)).expect("the directory is empty");
        }
        bed.write_config("viaduct.toml", "");
        bed.write_config("broken.toml", "[workers]\ncores = 1\nspeed = 'high'\n");
        bed.serve();
        bed
    }

    pub fn path(&self, inside: &str) -> std::path::PathBuf {
        self.directory.path().join(inside)
    }

    fn write_config(&self, name: &str, rest: &str) {
        let here = self.directory.path().display();
        let text = format!(
            "host = 'compute-1'\nstore.directory = '{here}/store'\n\
             control.socket = '{here}/viaduct.sock'\nvhost.socket_directory = '{here}/vhost'\n\
             physnets.physnet1 = {{ device = 'net_null0', vlans = ['100-199'] }}\n{rest}"
        );
        fs::write(self.path(name), text).expect("the directory can be written");
    }

    /// Answers every question until the test ends.
    fn serve(&self) {
        let path = self.path("viaduct.sock");
        let (started, when) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut server = Server::bind(&path).expect("the directory can be written");
                started.send(()).expect("the test waits");
                loop {
                    let request = server.next().await;
                    match request.query().clone() {
                        Query::Capture { ports, .. } => {
                            let feed = Box::new(Events(captured()));
                            request.follow(Answer::Capture(WatchView { ports }), feed);
                        }
                        Query::Trace { ports, .. } => {
                            let feed = Box::new(Events(traced()));
                            request.follow(Answer::Trace(WatchView { ports }), feed);
                        }
                        query => request.answer(example(&query)),
                    }
                }
            });
        });
        when.recv().expect("the daemon starts");
    }

    /// Runs a command line and returns all that it prints, and how it ends if not well.
    pub fn run(&self, line: &str) -> String {
        let mut words: Vec<String> = words(line).iter().map(|word| self.real(word)).collect();
        let has = |option: &str| words.iter().any(|word| word == option);
        // `port add` has a `--socket`, too, which is not the daemon's.
        let says_where = match words.get(1).map(String::as_str) {
            Some(
                "show" | "top" | "rebalance" | "reload" | "handover" | "store" | "test-frame"
                | "explain" | "capture" | "trace",
            ) => has("--config") || has("--socket"),
            Some("network" | "port" | "group" | "address-group") => {
                has("--config") || has("--store")
            }
            _ => true,
        };
        if !says_where && !has("--help") {
            words.extend(["--config".to_owned(), self.path("viaduct.toml").display().to_string()]);
        }
        let (exit, printed) = run(words.iter().map(OsString::from));
        let printed = self.shown(&printed);
        match exit {
            Exit::Done => printed,
            failed => format!("{printed}(exit status {})\n", failed as u8),
        }
    }

    /// The path that a word of a transcript stands for.
    fn real(&self, word: &str) -> String {
        let here = self.directory.path().display().to_string();
        match word {
            "viaduct.toml" | "broken.toml" => format!("{here}/{word}"),
            _ => word.replace("/var/lib/viaduct", &format!("{here}/store")),
        }
    }

    fn shown(&self, text: &str) -> String {
        let here = self.directory.path().display().to_string();
        // Help texts have lines of blanks.
        let lines: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        lines
            .replace(&format!("{here}/store"), "/var/lib/viaduct")
            .replace(&format!("{here}/vhost"), "/run/viaduct/vhost")
            .replace(&format!("{here}/viaduct.sock"), "/run/viaduct/viaduct.sock")
            .replace(&format!("{here}/"), "")
    }
}

/// The words of a line, as a shell reads them that knows of quotes only the single ones.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// Runs the program and returns how it ended and all that it printed, to both streams.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> (Exit, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = cli::main(arguments, &mut out, &mut err);
    out.extend(err);
    (exit, String::from_utf8(out).expect("text"))
}

/// Gives some events, and ends.
struct Events(Vec<(Event, Vec<u8>)>);

impl Feed for Events {
    fn fill(&mut self, octets: &mut Vec<u8>, _: bool) -> bool {
        for (event, frame) in self.0.drain(..) {
            octets.extend(serde_json::to_vec(&event).expect("JSON"));
            octets.push(b'\n');
            octets.extend(frame);
        }
        false
    }
}

/// The frames of `example.json` that nobody sent, at noon.
fn tried() -> Vec<TrialView> {
    let tried = answers().into_iter().filter_map(|answer| match answer {
        Answer::Trial(view) if view.from.is_some() => Some(*view),
        _ => None,
    });
    tried.collect()
}

const NOON: u64 = 12 * 3600 * 1_000_000_000 + 123_456_789;

fn end(given: usize, lost: Vec<LostView>) -> (Event, Vec<u8>) {
    let why = "as many as were asked for".to_owned();
    (Event::End(EndView { why, given: given as u64, lost, unread: 0 }), Vec::new())
}

fn octets(trial: &TrialView) -> Vec<u8> {
    let octet = |at: usize| u8::from_str_radix(&trial.octets[at..at + 2], 16);
    let octets = (0..trial.octets.len()).step_by(2).map(octet);
    octets.collect::<Result<_, _>>().expect("digits")
}

/// Each of them from its port, and to where it goes.
fn captured() -> Vec<(Event, Vec<u8>)> {
    let mut events = Vec::new();
    for trial in tried() {
        let octets = octets(&trial);
        let (from, leave) = (trial.from.expect("it has one"), trial.leave.expect("it was judged"));
        let steps = trial.to.into_iter().map(|to| (to.port, Side::Egress, to.judgement));
        let steps = std::iter::once((from.clone(), Side::Ingress, leave)).chain(steps);
        events.extend(steps.map(|(port, side, judgement)| {
            let view = FrameView {
                port,
                side,
                from: from.clone(),
                worker: 0,
                unix_nanoseconds: NOON,
                octets: octets.len() as u32,
                kept: octets.len() as u32,
                reason: judgement.reason,
                help: judgement.help,
            };
            (Event::Frame(view), octets.clone())
        }));
    }
    let Some((Event::Frame(first), _)) = events.first() else { panic!("there are frames") };
    let lost = vec![LostView { port: first.port.clone(), frames: 7 }];
    events.push(end(events.len(), lost));
    events
}

/// Each of them, step by step.
fn traced() -> Vec<(Event, Vec<u8>)> {
    let course = |mut trial: TrialView| {
        trial.frame = control::frame::describe(&octets(&trial));
        let passes = trial.leave.as_ref().is_some_and(|leave| leave.passes);
        let view = CourseView {
            unix_nanoseconds: NOON,
            worker: 0,
            length: trial.octets.len() as u32 / 2,
            destination: passes.then_some(match trial.flooded {
                true => StationOrigin::Group,
                false => StationOrigin::Static,
            }),
            missing: 0,
            trial,
        };
        (Event::Course(Box::new(view)), Vec::new())
    };
    let mut events: Vec<_> = tried().into_iter().map(course).collect();
    events.push(end(events.len(), Vec::new()));
    events
}

fn answers() -> Vec<Answer> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests/example.json");
    let text = fs::read_to_string(file).expect("the example is there");
    serde_json::from_str(&text).expect("the example is answers")
}

/// The answer of `example.json`, narrowed as a daemon does.
fn example(query: &Query) -> Answer {
    let answer = answers().into_iter().find(|answer| match (query, answer) {
        (Query::Trial { from, frame, .. }, Answer::Trial(view)) => {
            (&view.from, &view.frame) == (from, frame)
        }
        (Query::Explain { port }, Answer::Explain(view)) => {
            matches!(view.port, PortRef::Port { uuid, .. } if uuid == *port)
        }
        _ => query.is_answered_by(answer),
    });
    let mut answer = answer.expect("the example has every answer");
    match (query, &mut answer) {
        (Query::Fdb { network: Some(only) }, Answer::Fdb(view)) => {
            view.entries.retain(|entry| entry.network.uuid == *only);
        }
        (Query::Vhost { port: Some(only) }, Answer::Vhost(views)) => {
            let only = only.to_string();
            views.retain(|view| serde_json::to_value(&view.port).expect("JSON")["uuid"] == only);
        }
        (Query::Acl { port, rules }, Answer::Acl(views)) => {
            let is = |named: &PortRef| matches!(named, PortRef::Port { uuid, .. } if Some(*uuid) == *port);
            views.retain(|view| port.is_none() || view.ports.iter().any(is));
            views.iter_mut().filter(|_| !rules).for_each(|view| view.rules = None);
        }
        (Query::Reload { dry_run, partly }, Answer::Reload(view)) => {
            view.outcome = match (dry_run, partly) {
                (_, false) => ReloadOutcome::Refused,
                (true, true) => ReloadOutcome::Possible,
                (false, true) => ReloadOutcome::Partly,
            };
        }
        (Query::Handover { dry_run: true }, Answer::Handover(view)) => {
            (view.dry_run, view.pause_us) = (true, None);
        }
        (Query::Rebalance { dry_run }, Answer::Rebalance(view)) => view.done = !dry_run,
        _ => {}
    }
    answer
}
