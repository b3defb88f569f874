//! What is shown, and what keys make of it. Knows no terminal.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use control::show::view::{PortRef, Summary};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{PortRates, Rates};
use super::reading::Reading;

/// Rates that sparklines show at most.
const HISTORY: usize = 60;

/// What ports are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Frames received and sent
    #[default]
    Frames,
    /// Bits received and sent
    Bits,
    /// Frames dropped
    Drops,
    /// Their names
    Name,
}

/// See the [module's head](self).
pub struct View {
    /// The newest reading.
    newest: Reading,
    /// What happened until then; none before the second reading.
    pub rates: Option<Rates>,
    pub sort: Sort,
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub paused: bool,
    /// Ports that are scrolled past.
    pub above: usize,
    /// Since when the daemon is away, and why.
    pub away: Option<(Instant, String)>,
    /// Frames a second, by port.
    ports: BTreeMap<PortRef, VecDeque<u64>>,
    /// Busy shares in percent, by core.
    workers: BTreeMap<u32, VecDeque<u64>>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To go on.
    Go,
    /// To leave.
    Leave,
}

impl View {
    /// The view of a first reading.
    pub fn new(first: Reading, sort: Sort, filter: String) -> View {
        View {
            newest: first,
            rates: None,
            sort,
            filter,
            typing: false,
            paused: false,
            above: 0,
            away: None,
            ports: BTreeMap::new(),
            workers: BTreeMap::new(),
        }
    }

    /// Takes a new reading. While paused, only what sparklines show goes on.
    pub fn take(&mut self, reading: Reading) {
        let rates = Rates::between(&self.newest, &reading);
        self.follow(reading, rates);
    }

    /// The same, with rates that are known.
    pub fn follow(&mut self, reading: Reading, rates: Rates) {
        let here = |port: &PortRef| rates.ports.iter().any(|rates| rates.port == *port);
        self.ports.retain(|port, _| here(port));
        for port in &rates.ports {
            let history = self.ports.entry(port.port.clone()).or_default();
            push(history, (port.received_frames + port.sent_frames) as u64);
        }
        self.workers.retain(|core, _| rates.workers.iter().any(|rates| rates.core == *core));
        for worker in &rates.workers {
            let history = self.workers.entry(worker.core).or_default();
            push(history, worker.busy_percent.round() as u64);
        }
        self.away = None;
        self.newest = reading;
        if !self.paused {
            self.rates = Some(rates);
        }
    }

    /// Takes note that the daemon does not answer. What is shown stays.
    pub fn lose(&mut self, why: String) {
        let since = self.away.take().map_or_else(Instant::now, |(since, _)| since);
        self.away = Some((since, why));
    }

    /// What a key does.
    pub fn press(&mut self, key: KeyEvent) -> Step {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Step::Leave,
            _ if self.typing => self.type_filter(key.code),
            KeyCode::Char('q') | KeyCode::Esc => return Step::Leave,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Down | KeyCode::Char('j') => self.above += 1,
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above += 10,
            KeyCode::PageUp => self.above = self.above.saturating_sub(10),
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        Step::Go
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.above = 0;
    }

    /// The daemon at a glance.
    pub fn summary(&self) -> &Summary {
        &self.newest.summary
    }

    /// The ports to show, in their order.
    pub fn ports(&self) -> Vec<&PortRates> {
        let Some(rates) = &self.rates else { return Vec::new() };
        chosen(rates, self.sort, &self.filter)
    }

    /// The frames a second of a port, lately.
    pub fn history_of_port(&self, port: &PortRef) -> Vec<u64> {
        self.ports.get(port).map(|all| all.iter().copied().collect()).unwrap_or_default()
    }

    /// The busy share of a worker in percent, lately.
    pub fn history_of_worker(&self, core: u32) -> Vec<u64> {
        self.workers.get(&core).map(|all| all.iter().copied().collect()).unwrap_or_default()
    }
}

impl Sort {
    /// The one after it.
    fn next(self) -> Sort {
        match self {
            Sort::Frames => Sort::Bits,
            Sort::Bits => Sort::Drops,
            Sort::Drops => Sort::Name,
            Sort::Name => Sort::Frames,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Frames => "frames",
            Sort::Bits => "bits",
            Sort::Drops => "drops",
            Sort::Name => "name",
        }
    }
}

/// The ports that a filter leaves, sorted.
pub fn chosen<'a>(rates: &'a Rates, sort: Sort, filter: &str) -> Vec<&'a PortRates> {
    let filter = filter.to_lowercase();
    let fits = |port: &&PortRates| {
        let network = port.network.as_ref().map(|it| (it.uuid.to_string(), name_of(&it.name)));
        let (uuid, name) = match &port.port {
            PortRef::Port { uuid, name } => (uuid.to_string(), name_of(name)),
            PortRef::Uplink { physnet } => (physnet.to_string(), String::new()),
        };
        let (network, of_network) = network.unwrap_or_default();
        [uuid, name, network, of_network].iter().any(|it| it.to_lowercase().contains(&filter))
    };
    let mut ports: Vec<_> = rates.ports.iter().filter(fits).collect();
    let key = |port: &PortRates| match sort {
        Sort::Frames => port.received_frames + port.sent_frames,
        Sort::Bits => port.received_bits + port.sent_bits,
        Sort::Drops => port.dropped_frames,
        Sort::Name => 0.0,
    };
    let name = |port: &PortRates| match &port.port {
        PortRef::Port { uuid, name } => (name_of(name), uuid.to_string()),
        PortRef::Uplink { physnet } => (physnet.to_string(), String::new()),
    };
    ports.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| name(a).cmp(&name(b))));
    ports
}

fn name_of(name: &Option<impl ToString>) -> String {
    name.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}
