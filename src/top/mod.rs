//! `viaduct top`: what ports and workers do now.
//!
//! ```text
//! reading  what the daemon answers at a time            sampler  the thread that asks it
//! rates    what is between two readings: pure           view     what is shown, and the keys: pure
//! batch    rates as tables and JSON, for scripts        screen   draws a view
//! ```
//!
//! It reads by the socket of `viaduct show`, so that it costs the workers nothing, and a daemon that
//! goes away is waited for.

mod batch;
mod rates;
mod reading;
mod sampler;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

pub use batch::{BatchError, batch};
pub use view::Sort;

use sampler::{News, Sampler};
use view::{Step, View};

/// How often keys and news are looked for: as soon as a person notices.
const LOOK: Duration = Duration::from_millis(50);

/// What to show, and how.
pub struct Wishes {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The time between two readings.
    pub interval: Duration,
    /// What ports are sorted by.
    pub sort: Sort,
    /// Only ports in whose name, UUID or network this is.
    pub filter: String,
}

/// Why there is no screen.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Output or input is a pipe or a file.
    #[error("this is no terminal; for scripts there is `viaduct top --batch`")]
    NoTerminal,
    /// The daemon does not answer at all.
    #[error("{0}")]
    NoDaemon(String),
    /// The terminal fails.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the screen until it is left. The terminal is as it was afterwards, after a panic too.
pub fn top(wishes: Wishes) -> Result<(), TopError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let first = sampler::read_now(&wishes.socket).map_err(TopError::NoDaemon)?;
    let view = View::new(first, wishes.sort, wishes.filter);
    let sampler = Sampler::start(wishes.socket, wishes.interval)?;
    let mut terminal = ratatui::try_init()?;
    let left = stay(&mut terminal, view, &sampler);
    ratatui::try_restore()?;
    io::stdout().flush()?;
    Ok(left?)
}

/// Follows news and keys until somebody has seen enough.
fn stay(terminal: &mut DefaultTerminal, mut view: View, sampler: &Sampler) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(frame, &mut view))?;
        loop {
            let mut changed = false;
            while let Some(news) = sampler.news() {
                match news {
                    News::Reading(reading) => view.take(*reading),
                    News::Away(why) => view.lose(why),
                    News::End => return Ok(()),
                }
                changed = true;
            }
            if event::poll(LOOK)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => match view.press(key) {
                        Step::Leave => return Ok(()),
                        Step::Go => changed = true,
                    },
                    Event::Resize(..) => changed = true,
                    _ => {}
                }
            }
            if changed {
                break;
            }
        }
    }
}
