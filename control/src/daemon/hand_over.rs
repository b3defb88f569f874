//! Handing all over to a new process of the program that is installed, see [`handover`].
//!
//! Until the new process has taken the guests this one goes on whatever happens to that one: what is
//! prepared there costs nothing here but the time that its processor takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Daemon;
use crate::handover::{
    ChannelError, FORMAT, Hello, Message, Offered, Same, Successor, Word, stranger,
};
use crate::model::PortUuid;
use crate::show::view::HandoverView;
use crate::show::{Answer, HANDOVER_TIME, Request};
use crate::switch::Given;

/// How long the new process may take to say that it has taken over: no frame moves meanwhile.
const TAKE_TIME: Duration = Duration::from_millis(1000);

/// How long it may take to say that frames move again. Nothing depends on it here.
const FLOW_TIME: Duration = Duration::from_secs(5);

/// How long who has asked for it may take to read the answer.
const READ_TIME: Duration = Duration::from_secs(1);

/// A handover under way.
pub(super) struct Handing {
    successor: Successor,
    request: Option<Request>,
    dry_run: bool,
    version: String,
    /// What the new process knows of each guest.
    told: BTreeMap<PortUuid, u64>,
    /// Those that are connected.
    connected: BTreeSet<PortUuid>,
    since: Instant,
    prepared: Duration,
}

/// What a word of the new process leads to.
enum Next {
    /// More is to come.
    Wait,
    /// It was a dry run, and it could have been.
    Possible,
    /// The new process has all.
    Done,
}

/// The next word of the new process; never, if there is none.
pub(super) async fn next_word(handing: &mut Option<Handing>) -> Result<Word, ChannelError> {
    match handing {
        Some(Handing { successor, since, .. }) => {
            let word = timeout_at(*since + HANDOVER_TIME, successor.next()).await;
            word.unwrap_or(Err(ChannelError::Late(HANDOVER_TIME)))
        }
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Starts the new process.
    pub(super) fn begin_handover(&mut self, request: Request, dry_run: bool) {
        if self.handing.is_some() {
            return request.refuse("a handover is under way: wait for its end");
        }
        let program = self.origin.line.program().display().to_string();
        match Successor::start(&self.origin.line, &self.origin.machine.allowed) {
            Ok(successor) => {
                tracing::info!(process = successor.pid(), program, "started the next process");
                self.handing = Some(Handing {
                    successor,
                    request: Some(request),
                    dry_run,
                    version: String::new(),
                    told: BTreeMap::new(),
                    connected: BTreeSet::new(),
                    since: Instant::now(),
                    prepared: Duration::ZERO,
                });
            }
            Err(error) => {
                let why = format!("starting {program}: {error}; is the package installed whole?");
                tracing::error!("nothing is handed over: {why}");
                request.refuse(why);
            }
        }
    }

    /// Does what a word of the new process asks for. Returns the handover if that process has all now.
    pub(super) async fn hand_on(&mut self, word: Result<Word, ChannelError>) -> Option<Handing> {
        let mut handing = self.handing.take()?;
        let next = match word {
            Ok(Word::Hello(hello)) => self.offer(&mut handing, hello).await,
            Ok(Word::Message(Message::Ready {})) => self.commit(&mut handing).await,
            Ok(Word::Message(Message::Refused { why })) => Err(why),
            Ok(Word::Message(_)) => Err("it speaks out of turn".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match next {
            Ok(Next::Wait) => self.handing = Some(handing),
            Ok(Next::Done) => return Some(handing),
            Ok(Next::Possible) => {
                tracing::info!(process = handing.successor.pid(), "a handover would be possible");
                let answer = handing.answer(None);
                if let Some(request) = handing.request.take() {
                    request.answer(answer);
                }
                // Who is told that it is enough ends by itself.
                let _ = handing.successor.tell(&Message::Enough {}, Vec::new()).await;
                handing.successor.leave_to_end();
            }
            Err(why) => {
                let ended = handing.successor.end();
                tracing::error!(ended, "nothing is handed over, all goes on here: {why}");
                if let Some(request) = handing.request.take() {
                    request.refuse(format!(
                        "nothing is handed over, and the daemon goes on as before: {why}"
                    ));
                }
            }
        }
        None
    }

    /// Tells the new process of all guests, and gives it what they gave to this one.
    async fn offer(&mut self, handing: &mut Handing, hello: Hello) -> Result<Next, String> {
        let config = self.switch.config();
        let ours = Same {
            host: config.host.clone(),
            socket_directory: config.vhost.socket_directory.clone(),
            control_socket: config.control.socket.clone(),
        };
        if hello.format != FORMAT {
            return Err(stranger(&hello));
        }
        if hello.same.as_ref() != Some(&ours) {
            return Err("its configuration has another `host`, `vhost.socket_directory` or \
                        `control.socket`, which needs a restart"
                .to_owned());
        }
        handing.version = hello.version;
        self.tell_guests(handing).await?;
        let failed = |error: ChannelError| error.to_string();
        let learned = Message::Learned(self.switch.learned());
        handing.successor.tell(&learned, Vec::new()).await.map_err(failed)?;
        let mut sockets = vec![self.server.descriptor().map_err(|error| error.to_string())?];
        let metrics = self.metrics.as_ref().and_then(|metrics| metrics.descriptor());
        let listen = self.switch.config().metrics.listen.as_ref();
        let offered = Offered {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metrics: listen.filter(|_| metrics.is_some()).map(ToString::to_string),
        };
        sockets.extend(metrics);
        let offered = Message::Offered(offered);
        handing.successor.tell(&offered, sockets).await.map_err(failed)?;
        Ok(Next::Wait)
    }

    /// Tells the new process of guests of which it does not know all.
    async fn tell_guests(&self, handing: &mut Handing) -> Result<(), String> {
        let given = self.switch.give(&handing.told).map_err(|it| format!("a guest: {it}"))?;
        for Given { changes, record, descriptors } in given {
            handing.told.insert(record.port, changes);
            match record.is_connected() {
                true => handing.connected.insert(record.port),
                false => handing.connected.remove(&record.port),
            };
            let guest = Message::Guest(Box::new(record));
            handing.successor.tell(&guest, descriptors).await.map_err(|it| it.to_string())?;
        }
        Ok(())
    }

    /// Stops, tells where everything stands, and waits for the word that it is taken. If that does not
    /// come, goes on.
    async fn commit(&mut self, handing: &mut Handing) -> Result<Next, String> {
        handing.prepared = handing.since.elapsed();
        if handing.dry_run {
            return Ok(Next::Possible);
        }
        self.server.accept(false);
        let halted = self.switch.halt().await;
        let taken = match halted {
            Ok((since, rings)) => self.wait_taken(handing, Message::Halted { rings, since }).await,
            Err(core) => Err(format!(
                "the worker on core {core} does not stop; is its core taken by another thread?"
            )),
        };
        match taken {
            Ok(()) => Ok(Next::Done),
            Err(why) => {
                self.switch.go_on();
                self.server.accept(true);
                Err(why)
            }
        }
    }

    async fn wait_taken(&self, handing: &mut Handing, halted: Message) -> Result<(), String> {
        let failed = |error: ChannelError| error.to_string();
        self.tell_guests(handing).await?;
        handing.successor.tell(&halted, Vec::new()).await.map_err(failed)?;
        match handing.successor.next_within(TAKE_TIME).await {
            Ok(Message::Taken {}) => Ok(()),
            Ok(Message::Refused { why }) => Err(why),
            Ok(_) => Err("it speaks out of turn".to_owned()),
            Err(late @ ChannelError::Late(_)) => {
                // It may say so at this moment. Once it has ended it says no more.
                handing.successor.kill();
                match handing.successor.next_within(Duration::from_millis(1)).await {
                    Ok(Message::Taken {}) => {
                        tracing::error!("the next process took over too late and was ended");
                        // What it did with the rings is not known: it is as if this process had been
                        // killed, and guests connect again.
                        std::process::exit(1)
                    }
                    _ => Err(late.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends, as the new process has all: closes the devices, which that one opens then, and answers who
    /// has asked for it.
    pub(super) async fn leave(self, mut handing: Handing) {
        let Handing { ref mut successor, .. } = handing;
        successor.leave();
        self.notify.hand_over(successor.pid());
        let bonds = self.switch.leave();
        // Who has taken over goes on whatever becomes of this process.
        let _ = successor.tell(&Message::Released { bonds }, Vec::new()).await;
        let flowing = successor.next_within(FLOW_TIME).await;
        let pause_us = match flowing {
            Ok(Message::Flowing { pause_us, guests }) => Some((pause_us, guests)),
            _ => None,
        };
        tracing::info!(process = successor.pid(), "handed over");
        let answer = handing.answer(pause_us);
        if let Some(request) = handing.request.take() {
            request.answer(answer);
        }
        if let Some(metrics) = self.metrics {
            metrics.leave();
        }
        self.server.leave(READ_TIME).await;
        // Before the socket to the new process is closed, which that one takes for the end of the claim.
        self.reports.leave().await;
        drop(handing);
    }
}

impl Handing {
    fn answer(&self, flowing: Option<(u64, u32)>) -> Answer {
        Answer::Handover(HandoverView {
            dry_run: self.dry_run,
            pid: self.successor.pid(),
            version: self.version.clone(),
            guests: flowing.map_or(self.connected.len() as u32, |(_, guests)| guests),
            prepared_ms: self.prepared.as_millis() as u64,
            pause_us: flowing.map(|(pause_us, _)| pause_us),
        })
    }
}
