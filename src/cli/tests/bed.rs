//! A store, a configuration, and a daemon that answers from a file.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use control::show::view::{PortRef, ReloadOutcome};
use control::show::{Answer, Query, Server};
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
                    let answer = example(request.query());
                    request.answer(answer);
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
            Some("show" | "top" | "rebalance" | "reload" | "store" | "test-frame" | "explain") => {
                has("--config") || has("--socket")
            }
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

/// The answer of `example.json`, narrowed as a daemon does.
fn example(query: &Query) -> Answer {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests/example.json");
    let text = fs::read_to_string(file).expect("the example is there");
    let answers: Vec<Answer> = serde_json::from_str(&text).expect("the example is answers");
    let answer = answers.into_iter().find(|answer| match (query, answer) {
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
        (Query::Rebalance { dry_run }, Answer::Rebalance(view)) => view.done = !dry_run,
        _ => {}
    }
    answer
}
