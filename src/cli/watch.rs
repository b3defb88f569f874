//! `viaduct capture` and `viaduct trace`: frames as they pass.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use control::frame::filter;
use control::show::view::{EndView, Event, FrameView};
use control::show::{Following, Query, follow};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{CaptureArguments, TraceArguments};
use super::failure::Failure;
use super::pcapng::Pcapng;
use super::place;
use super::show::Daemon;
use crate::render;

/// Who reads a capture is nobody's business but the owner's: it has what guests say.
const MODE: u32 = 0o600;

/// Captures frames.
pub fn capture(
    arguments: &CaptureArguments,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    check(&arguments.filter)?;
    let to_output = arguments.write.as_deref() == Some(Path::new("-"));
    if to_output && io::stdout().is_terminal() {
        let why =
            "a terminal cannot show pcapng: pipe it, `-w - | tcpdump -nr -`, or leave `-w` out";
        return Err(Failure::Wrong(why.to_owned()));
    }
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let query = Query::Capture {
        ports: arguments.ports.iter().map(|port| daemon.port(port)).collect::<Result<_, _>>()?,
        drops: arguments.drops,
        filter: arguments.filter.clone(),
        snaplen: arguments.snaplen,
        count: arguments.count,
        seconds: arguments.seconds,
    };
    let end = match &arguments.write {
        None => {
            let print = |view: FrameView, octets: &[u8]| match arguments.json {
                true => json(&view),
                false => Ok(render::frame(&view, &control::frame::describe(octets))),
            };
            watch(&daemon, &query, err, &mut Lines { out, print })?
        }
        Some(_) if to_output => watch(&daemon, &query, err, &mut Pcapng::begin(out, arguments)?)?,
        Some(file) => {
            let mut options = OpenOptions::new();
            let opened = options.write(true).create(true).truncate(true).mode(MODE).open(file);
            let failed = |error| Failure::Failed(format!("writing {}: {error}", file.display()));
            let mut opened = opened.map_err(failed)?;
            watch(&daemon, &query, err, &mut Pcapng::begin(&mut opened, arguments)?)?
        }
    };
    // Where this cannot be written there is nobody to tell it to.
    let _ = err.write_all(render::end(&end, "frames").as_bytes());
    Ok(())
}

/// Traces frames.
pub fn trace(
    arguments: &TraceArguments,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    check(&arguments.filter)?;
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let query = Query::Trace {
        ports: arguments.ports.iter().map(|port| daemon.port(port)).collect::<Result<_, _>>()?,
        filter: arguments.filter.clone(),
        count: arguments.count,
        seconds: arguments.seconds,
    };
    let end = watch(&daemon, &query, err, &mut Courses { out, json: arguments.json })?;
    let _ = err.write_all(render::end(&end, "frames").as_bytes());
    Ok(())
}

fn check(text: &str) -> Result<(), Failure> {
    filter(text).map(drop).map_err(|misfit| Failure::Wrong(format!("the filter: {misfit}")))
}

/// Where events go.
pub(super) trait Sink {
    /// Takes the next one, with the octets of a frame.
    fn take(&mut self, event: &Event, octets: &[u8]) -> Result<(), Failure>;

    /// There is nothing more at the moment.
    fn pause(&mut self) -> Result<(), Failure>;
}

/// Lines about frames.
struct Lines<'a, P> {
    out: &'a mut dyn Write,
    print: P,
}

impl<P: Fn(FrameView, &[u8]) -> Result<String, Failure>> Sink for Lines<'_, P> {
    fn take(&mut self, event: &Event, octets: &[u8]) -> Result<(), Failure> {
        let Event::Frame(view) = event else { return Ok(()) };
        Ok(self.out.write_all((self.print)(view.clone(), octets)?.as_bytes())?)
    }

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// Frames with their steps.
struct Courses<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Sink for Courses<'_> {
    fn take(&mut self, event: &Event, _: &[u8]) -> Result<(), Failure> {
        let Event::Course(view) = event else { return Ok(()) };
        let text = if self.json { json(view)? } else { render::course(view) };
        Ok(self.out.write_all(text.as_bytes())?)
    }

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n").map_err(|error| Failure::Failed(format!("writing JSON: {error}")))
}

/// Hands on all that is seen, until there is enough.
fn watch(
    daemon: &Daemon,
    query: &Query,
    err: &mut dyn Write,
    sink: &mut dyn Sink,
) -> Result<EndView, Failure> {
    let (_, mut following) = follow(&daemon.socket, query)?;
    end_by_signal(&following)?;
    let _ = err.write_all(b"following; Ctrl-C ends it\n");
    let mut octets = Vec::new();
    loop {
        if !following.has_more() {
            sink.pause()?;
        }
        let event = following.next(&mut octets)?;
        sink.take(&event, &octets)?;
        if let Event::End(end) = event {
            sink.pause()?;
            return Ok(end);
        }
    }
}

/// Has SIGINT and SIGTERM ask for the end, so that the file gets one; the second ends the program, as
/// somebody may not read what is written.
fn end_by_signal(following: &Following) -> Result<(), Failure> {
    let end = following.ender().map_err(|error| Failure::Failed(format!("the socket: {error}")))?;
    std::thread::spawn(move || {
        let waited = super::block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            for turn in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                match turn {
                    0 => end(),
                    _ => std::process::exit(1),
                }
            }
        });
        // Without the event loop signals do what they always do.
        drop(waited);
    });
    Ok(())
}
