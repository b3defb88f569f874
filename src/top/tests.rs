//! Readings made of the answers of the commands' example, and the screens that they make.
//!
//! Screens are compared with `screens.txt` beside this file; with `UPDATE_EXPECT=1` it is written anew.

use std::fs;
use std::path::Path;
use std::time::Instant;

use control::show::Answer;
use control::show::view::DropView;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::batch::tables;
use super::rates::Rates;
use super::reading::Reading;
use super::screen;
use super::view::{Sort, Step, View};

/// The reading that the example's answers make.
fn reading() -> Reading {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests/example.json");
    let text = fs::read_to_string(file).expect("the example is there");
    let answers: Vec<Answer> = serde_json::from_str(&text).expect("the example is answers");
    let (mut summary, mut ports, mut workers, mut drops) = (None, None, None, None);
    for answer in answers {
        match answer {
            Answer::Summary(view) => summary = Some(*view),
            Answer::Ports(views) => ports = Some(views),
            Answer::Workers(views) => workers = Some(views),
            Answer::Drops(views) => drops = Some(views),
            _ => {}
        }
    }
    let all = "the example has every answer";
    Reading {
        at: Instant::now(),
        summary: summary.expect(all),
        ports: ports.expect(all),
        workers: workers.expect(all),
        drops: drops.expect(all),
    }
}

/// The reading after it, when the first ports and the first worker have been at work.
fn later(before: &Reading) -> Reading {
    let mut now = before.clone();
    for (port, by) in now.ports.iter_mut().zip([40_000, 30_000]) {
        port.received_frames += by;
        port.received_bytes += by * 100;
        port.sent_frames += by / 2;
        port.sent_bytes += by * 700;
    }
    now.ports[1].dropped_frames += 250;
    let of_web = |view: &&mut DropView| view.reason == "ring-full";
    now.drops.iter_mut().find(of_web).expect("the example has it").frames += 250;
    let worker = &mut now.workers[0].work;
    worker.cycles += 4_000_000_000;
    worker.busy_cycles += 3_000_000_000;
    worker.frames += 70_000;
    worker.bursts[3] += 7_000;
    now
}

/// A view after a few readings.
fn view() -> View {
    let mut view = View::new(reading(), Sort::Frames, String::new());
    let mut before = reading();
    for _ in 0..3 {
        let now = later(&before);
        let rates = Rates::of(&before, &now, 2.0);
        view.follow(now.clone(), rates);
        before = now;
    }
    view
}

/// What a terminal of this size shows.
fn screen(view: &mut View, width: u16, height: u16) -> String {
    let mut terminal =
        Terminal::new(TestBackend::new(width, height)).expect("a terminal for tests");
    terminal.draw(|frame| screen::draw(frame, view)).expect("it draws");
    let buffer = terminal.backend().buffer();
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
}

fn press(view: &mut View, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        assert_eq!(view.press(KeyEvent::new(code, KeyModifiers::NONE)), Step::Go, "{key}");
    }
}

#[test]
fn screens_are_as_they_were() {
    let mut screens = String::new();
    let mut shot = |name: &str, text: String| screens += &format!("--- {name}\n{text}");
    let mut view = view();
    shot("wide", screen(&mut view, 150, 22));
    shot("narrow and low", screen(&mut view, 80, 14));
    press(&mut view, "p/red\ns");
    shot("paused, filtered, sorted", screen(&mut view, 150, 22));
    view.lose("no daemon listens".to_owned());
    shot("away", screen(&mut view, 150, 16));
    let mut first = View::new(reading(), Sort::Drops, String::new());
    press(&mut first, "/we");
    shot("at first", screen(&mut first, 100, 16));
    shot("batch", tables(&Rates::of(&reading(), &later(&reading()), 2.0)));

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/screens.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &screens).expect("it can be written");
        return;
    }
    let stored = fs::read_to_string(&file).expect("it is there");
    assert_eq!(screens, stored, "run the tests with UPDATE_EXPECT=1 and look at what changes");
}

#[test]
fn no_terminal_is_too_small() {
    let mut view = view();
    for (width, height) in [(1, 1), (3, 40), (200, 2), (20, 5)] {
        screen(&mut view, width, height);
    }
}

#[test]
fn rates_are_what_was_counted_in_between() {
    let (before, mut now) = (reading(), later(&reading()));
    let rates = Rates::of(&before, &now, 2.0);
    let web = &rates.ports[1];
    assert_eq!((web.received_frames, web.sent_frames), (15_000.0, 7_500.0));
    assert_eq!((web.received_bits, web.sent_bits), (12_000_000.0, 84_000_000.0));
    assert_eq!((web.dropped_frames, web.reason.as_deref()), (125.0, Some("ring-full")));
    let [drops] = &rates.drops[..] else { panic!("{:?}", rates.drops) };
    assert_eq!((drops.reason.as_str(), drops.frames), ("ring-full", 125.0));
    let worker = &rates.workers[0];
    assert_eq!((worker.busy_percent, worker.frames), (75.0, 35_000.0));
    assert_eq!(worker.burst_mean, Some(10.0));
    assert_eq!(rates.workers[1].cycles_per_frame, None, "it had none");

    // Counters of a port that was attached anew, and those of another process, begin at nothing.
    now.ports[1].received_frames = 10;
    assert_eq!(Rates::of(&before, &now, 2.0).ports[1].received_frames, 5.0);
    now.summary.pid += 1;
    now.ports[0].received_frames = before.ports[0].received_frames + 2;
    let anew = Rates::of(&before, &now, 2.0);
    assert_eq!(anew.ports[0].received_frames, now.ports[0].received_frames as f64 / 2.0);
}

#[test]
fn keys_sort_filter_pause_and_leave() {
    let mut view = view();
    let names = |view: &View| -> Vec<String> {
        let json = |it: &super::rates::PortRates| serde_json::to_value(&it.port).expect("JSON");
        let name = |it: serde_json::Value| match (&it["name"], &it["physnet"]) {
            (serde_json::Value::String(name), _) | (_, serde_json::Value::String(name)) => {
                name.clone()
            }
            _ => "-".to_owned(),
        };
        view.ports().into_iter().map(|it| name(json(it))).collect()
    };
    assert_eq!(names(&view)[..2], ["physnet1", "web"]);
    press(&mut view, "ss");
    assert_eq!(view.sort, Sort::Drops);
    assert_eq!(names(&view)[0], "web");
    press(&mut view, "/WE");
    assert_eq!(names(&view), ["web"]);
    // Keys are letters while a filter is typed.
    press(&mut view, "q");
    assert_eq!(names(&view), [""; 0]);
    view.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    press(&mut view, "\np");
    assert!(view.paused && !view.typing);

    let (shown, before) = (view.rates.clone(), reading());
    view.follow(before.clone(), Rates::of(&before, &before, 1.0));
    assert_eq!(view.rates, shown, "it is paused");
    view.lose("gone".to_owned());
    let since = view.away.clone().expect("it is away").0;
    view.lose("still gone".to_owned());
    assert_eq!(view.away.clone(), Some((since, "still gone".to_owned())));
    view.take(reading());
    assert_eq!(view.away, None);
    for (code, modifiers) in [
        (KeyCode::Char('q'), KeyModifiers::NONE),
        (KeyCode::Esc, KeyModifiers::NONE),
        (KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(view.press(KeyEvent::new(code, modifiers)), Step::Leave);
    }
}
