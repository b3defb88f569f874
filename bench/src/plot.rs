//! The ratios as a picture: a row for each scenario, a dot for each switch, the reference at 1.
//!
//! An SVG that follows the reader's light or dark colours. It is drawn from what `--json` holds as
//! well as from what was just measured. Numbers stand beside the dots, so that nobody has to guess.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use svg::Document;
use svg::node::element::{Circle, Group, Line, Rectangle, Style, Text, Title};

use crate::outcome::{REFERENCE, State, Summary};
use crate::report::GENERATOR_BOUND;

const TITLE: &str = "Throughput from guest to guest, as ratio to testpmd";

// All lengths are in the picture's own units, pixels where nobody scales it.

const MARGIN: f64 = 16.0;
/// Where the axis begins, right of the scenarios' names.
const PLOT_LEFT: f64 = 196.0;
const PLOT_WIDTH: f64 = 430.0;
/// Between two lines of the grid, as ratios: the first that needs no more steps than this.
const STEPS: [f64; 5] = [0.5, 1.0, 2.0, 5.0, 10.0];
const MOST_STEPS: f64 = 8.0;
/// One of the columns of numbers at the right, one for each switch.
const COLUMN: f64 = 100.0;
/// What it has room for.
const NAME_CHARS: usize = 13;
/// Title, note and headings.
const HEADER: f64 = 92.0;
/// The axis' numbers.
const FOOTER: f64 = 40.0;
/// Between the dots of a scenario, one below the other so that none hides another.
const LANE: f64 = 9.0;
/// Above and below the dots of a scenario.
const ROW_PADDING: f64 = 8.0;
const DOT_RADIUS: f64 = 4.0;

/// Light colours, and dark ones where the reader prefers them; a viewer without media queries shows
/// the light ones. Who sees no hue can tell the switches by their order.
const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.faint { fill: #59636e; }
.right { text-anchor: end; font-variant-numeric: tabular-nums; }
.middle { text-anchor: middle; }
.ground { fill: #ffffff; }
.stripe { fill: #f6f8fa; }
.grid { stroke: #d1d9e0; }
.reference { stroke: #1f2328; stroke-width: 1.5; stroke-dasharray: 5 3; }
.whisker { stroke-width: 2; stroke-linecap: round; }
.s0 { fill: #818b98; stroke: #818b98; }
.s1 { fill: #0550ae; stroke: #0550ae; }
.s2 { fill: #d4720b; stroke: #d4720b; }
.s3 { fill: #8250df; stroke: #8250df; }
.s4 { fill: #1a7f37; stroke: #1a7f37; }
.s5 { fill: #bf3989; stroke: #bf3989; }
.s6 { fill: #0e7c86; stroke: #0e7c86; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
.faint { fill: #9198a1; }
.ground { fill: #0d1117; }
.stripe { fill: #151b23; }
.grid { stroke: #3d444d; }
.reference { stroke: #f0f6fc; }
.s0 { fill: #9198a1; stroke: #9198a1; }
.s1 { fill: #58a6ff; stroke: #58a6ff; }
.s2 { fill: #ffa657; stroke: #ffa657; }
.s3 { fill: #be8fff; stroke: #be8fff; }
.s4 { fill: #56d364; stroke: #56d364; }
.s5 { fill: #ff80c8; stroke: #ff80c8; }
.s6 { fill: #39c5cf; stroke: #39c5cf; }
}
";
/// How many of the colours there are.
const COLOURS: usize = 7;

/// What a dot is drawn from: a part of a [`Summary`], as `--json` holds it.
#[derive(Clone, Debug, Deserialize)]
pub struct Point {
    scenario: String,
    switch: String,
    state: State,
    runs: usize,
    /// Lower quartile, median, upper quartile.
    ratio: [f64; 3],
    generator_idle: f64,
}

impl From<&Summary> for Point {
    fn from(summary: &Summary) -> Self {
        let Summary { state, runs, ratio, generator_idle, .. } = *summary;
        let (scenario, switch) = (summary.scenario.clone(), summary.switch.clone());
        Self { scenario, switch, state, runs, ratio, generator_idle }
    }
}

/// Reads the points out of a report that `--json` wrote.
pub fn load(path: &Path) -> Result<Vec<Point>> {
    #[derive(Deserialize)]
    struct Saved {
        summaries: Vec<Point>,
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let saved: Saved = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report that --json wrote", path.display()))?;
    Ok(saved.summaries)
}

/// Draws the points and writes the picture.
pub fn save(points: &[Point], path: &Path) -> Result<()> {
    let rows = rows(points);
    ensure!(!rows.is_empty(), "nothing to draw: no switch was compared with {REFERENCE}");
    let mut text = Chart::of(&rows).draw(&rows).to_string();
    text.push('\n');
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A scenario in the state of the machine in which most of it ran, as only what ran in one state
/// can be compared.
#[derive(Debug)]
struct Row<'a> {
    scenario: &'a str,
    state: State,
    points: Vec<&'a Point>,
}

fn rows(points: &[Point]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for point in points {
        if rows.iter().any(|row| row.scenario == point.scenario) {
            continue;
        }
        let within = |state: State| -> Vec<&Point> {
            let counts = |one: &&Point| {
                one.scenario == point.scenario && one.state == state && one.switch != REFERENCE
            };
            points.iter().filter(counts).collect()
        };
        let best = State::ALL
            .into_iter()
            .map(|state| Row { scenario: &point.scenario, state, points: within(state) })
            .filter(|row| !row.points.is_empty())
            // The most switches, then the most runs, and better a state than a change.
            .max_by_key(|row| {
                let runs: usize = row.points.iter().map(|point| point.runs).sum();
                (row.points.len(), row.state != State::Mixed, runs)
            });
        rows.extend(best);
    }
    rows
}

/// The picture's measures.
#[derive(Debug)]
struct Chart<'a> {
    /// In the order of the columns, of the dots from above, and of the colours.
    switches: Vec<&'a str>,
    width: f64,
    row_height: f64,
    /// Where the rows end.
    bottom: f64,
    /// Between two lines of the grid, as a ratio.
    step: f64,
    /// How many steps the axis has.
    steps: u32,
}

impl<'a> Chart<'a> {
    fn of(rows: &[Row<'a>]) -> Self {
        let mut switches: Vec<&str> = Vec::new();
        for point in rows.iter().flat_map(|row| &row.points) {
            if !switches.contains(&point.switch.as_str()) {
                switches.push(&point.switch);
            }
        }
        let count = switches.len() as f64;
        let highest = rows.iter().flat_map(|row| &row.points).map(|point| point.ratio[2]);
        // The reference's line and a little more are there in any case.
        let highest = highest.fold(1.2, f64::max);
        let step = STEPS.into_iter().find(|step| highest / step <= MOST_STEPS);
        let step = step.unwrap_or(highest / MOST_STEPS);
        let row_height = (count * LANE + 2.0 * ROW_PADDING).max(26.0);
        Self {
            switches,
            width: PLOT_LEFT + PLOT_WIDTH + COLUMN * count + MARGIN,
            row_height,
            bottom: HEADER + row_height * rows.len() as f64,
            step,
            steps: (highest / step).ceil() as u32,
        }
    }

    /// Where a ratio lies on the axis.
    fn x(&self, ratio: f64) -> f64 {
        round(PLOT_LEFT + PLOT_WIDTH * ratio / (f64::from(self.steps) * self.step))
    }

    /// The right edge of a switch's numbers.
    fn column(&self, switch: usize) -> f64 {
        PLOT_LEFT + PLOT_WIDTH + COLUMN * (switch as f64 + 1.0)
    }

    fn top(&self, row: usize) -> f64 {
        HEADER + self.row_height * row as f64
    }

    fn draw(&self, rows: &[Row<'_>]) -> Document {
        let height = self.bottom + FOOTER;
        // What is drawn later hides what was before: dots hide lines, and nothing hides a dot.
        let mut document = Document::new()
            .set("viewBox", (0, 0, self.width, height))
            .set("role", "img")
            .add(Title::new(TITLE))
            .add(Style::new(STYLE))
            .add(rectangle(0.0, self.width, height, "ground"));
        for row in (0..rows.len()).step_by(2) {
            let stripe = rectangle(self.top(row), self.width, self.row_height, "stripe");
            document = document.add(stripe);
        }
        document = document.add(self.header()).add(self.axis());
        for (index, row) in rows.iter().enumerate() {
            document = document.add(self.row(self.top(index), row));
        }
        document
    }

    fn header(&self) -> Group {
        let note = "Dots: median of the runs. Lines: what half of them lie within. \
                    *: the load generator was the limit, not the switch.";
        let names = HEADER - 12.0;
        let mut group = Group::new()
            .add(text(MARGIN, 28.0, "title", TITLE))
            .add(text(MARGIN, 48.0, "faint", note))
            .add(text(MARGIN, names, "faint", "scenario"))
            .add(text(PLOT_LEFT - 12.0, names, "faint right", "cores"))
            .add(text(self.x(1.0), names, "faint middle", REFERENCE));
        for (index, switch) in self.switches.iter().enumerate() {
            let (right, y) = (self.column(index), HEADER - 6.0);
            let key = line((right - 44.0, y), (right, y), &format!("whisker {}", colour(index)));
            group = group.add(text(right, names, "right", &shortened(switch))).add(key);
        }
        group
    }

    fn axis(&self) -> Group {
        let mut group = Group::new();
        for step in 0..=self.steps {
            let ratio = f64::from(step) * self.step;
            let x = self.x(ratio);
            group = group.add(line((x, HEADER), (x, self.bottom), "grid")).add(text(
                x,
                self.bottom + 18.0,
                "faint middle",
                &ratio.to_string(),
            ));
        }
        let one = self.x(1.0);
        group.add(line((one, HEADER - 4.0), (one, self.bottom), "reference"))
    }

    fn row(&self, top: f64, row: &Row<'_>) -> Group {
        let baseline = round(top + self.row_height / 2.0 + 4.0);
        let mut group = Group::new().add(text(MARGIN, baseline, "", row.scenario)).add(text(
            PLOT_LEFT - 12.0,
            baseline,
            "faint right",
            row.state.name(),
        ));
        let first = top + (self.row_height - self.switches.len() as f64 * LANE) / 2.0;
        for (lane, switch) in self.switches.iter().enumerate() {
            let Some(point) = row.points.iter().find(|point| point.switch == *switch) else {
                continue;
            };
            let y = round(first + LANE * (lane as f64 + 0.5));
            let [low, median, high] = point.ratio.map(|ratio| self.x(ratio));
            let whisker = format!("whisker {}", colour(lane));
            let dot = Circle::new().set("cx", median).set("cy", y).set("r", DOT_RADIUS);
            let number = format!("{:.2}", point.ratio[1]);
            group = group
                .add(line((low, y), (high, y), &whisker))
                .add(dot.set("class", colour(lane)))
                .add(text(self.column(lane), baseline, "right", &number));
            if point.generator_idle < GENERATOR_BOUND {
                // Behind the column's edge, so that the numbers stay in line.
                group = group.add(text(self.column(lane) + 2.0, baseline, "", "*"));
            }
        }
        group
    }
}

/// A switch's name, as far as its column has room for it.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS - 1).chain(['…']).collect()
}

/// The class of a switch's colour.
fn colour(switch: usize) -> String {
    format!("s{}", switch % COLOURS)
}

/// To a tenth of a unit, which is all that can be seen.
fn round(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

fn text(x: f64, y: f64, class: &str, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("class", class)
}

fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Line {
    let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
    line.set("class", class)
}

/// As wide as the picture.
fn rectangle(y: f64, width: f64, height: f64, class: &str) -> Rectangle {
    let rectangle = Rectangle::new().set("x", 0).set("y", y);
    rectangle.set("width", width).set("height", height).set("class", class)
}

#[cfg(test)]
mod tests {
    use svg::node::Attributes;
    use svg::parser::Event;

    use super::*;

    fn point(scenario: &str, switch: &str, state: State, runs: usize, ratio: [f64; 3]) -> Point {
        let (scenario, switch) = (scenario.to_owned(), switch.to_owned());
        Point { scenario, switch, state, runs, ratio, generator_idle: 0.5 }
    }

    /// Two scenarios, two switches and the reference; the first scenario in two states.
    fn points() -> Vec<Point> {
        vec![
            point("64", REFERENCE, State::Near, 9, [1.0; 3]),
            point("64", "copy", State::Near, 4, [1.4, 1.5, 2.0]),
            point("64", "copy", State::Far, 2, [1.0; 3]),
            point("64", "x<y", State::Near, 4, [0.9, 1.0, 1.1]),
            point("512", "copy", State::Mixed, 9, [3.0; 3]),
            point("512", "copy", State::Far, 1, [1.25; 3]),
        ]
    }

    /// The attributes of all elements of a kind, and whatever text there is.
    fn drawn(points: &[Point], kind: &str) -> (Vec<Attributes>, Vec<String>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("plot.svg");
        save(points, &path).expect("a file that can be written");
        let (mut elements, mut texts) = (Vec::new(), Vec::new());
        let mut content = String::new();
        for event in svg::open(&path, &mut content).expect("it was written") {
            match event {
                Event::Tag(name, _, attributes) if name == kind && !attributes.is_empty() => {
                    elements.push(attributes);
                }
                Event::Text(text) => texts.push(text.trim().to_owned()),
                Event::Error(error) => panic!("not well formed: {error}"),
                _ => {}
            }
        }
        (elements, texts)
    }

    fn number(attributes: &Attributes, name: &str) -> f64 {
        attributes[name].parse().expect("a number")
    }

    #[test]
    fn a_row_shows_one_state_and_each_switch_on_a_line_of_its_own() {
        let points = points();
        let (circles, texts) = drawn(&points, "circle");
        assert_eq!(circles.len(), 3, "two of 64 near, one of 512 far");
        let heights: Vec<f64> = circles.iter().map(|circle| number(circle, "cy")).collect();
        assert!(heights[1] - heights[0] >= 2.0 * DOT_RADIUS, "{heights:?} overlap");
        assert!(heights[2] > heights[1]);
        for text in ["64", "512", "near", "far", "1.50", "1.00", "1.25", "x&lt;y"] {
            assert!(texts.iter().any(|one| one == text), "{text} in {texts:?}");
        }
        assert!(!texts.iter().any(|text| text == "3.00" || text == "mixed"), "{texts:?}");
    }

    #[test]
    fn dots_and_whiskers_lie_where_the_ratios_are() {
        let points = points();
        let (circles, _) = drawn(&points, "circle");
        let (lines, _) = drawn(&points, "line");
        let of = |class: &str| -> Vec<&Attributes> {
            lines.iter().filter(|line| &*line["class"] == class).collect()
        };
        let one = number(of("reference")[0], "x1");
        assert_eq!(number(&circles[1], "cx"), one, "a ratio of 1 lies on the reference's line");
        let (zero, half) = (number(of("grid")[0], "x1"), number(of("grid")[1], "x1"));
        assert!((one - zero - 2.0 * (half - zero)).abs() < 0.3);
        // The first is the key beside the switch's name.
        let whisker = of("whisker s0")[1];
        let place = |ratio: f64| zero + (one - zero) * ratio;
        for (end, ratio) in [("x1", 1.4), ("x2", 2.0)] {
            assert!((number(whisker, end) - place(ratio)).abs() < 0.3, "{ratio}");
        }
        assert!(number(of("grid")[4], "x1") >= number(whisker, "x2"), "the axis is long enough");
    }

    #[test]
    fn the_axis_numbers_never_come_close() {
        for highest in [0.5, 3.9, 4.1, 9.0, 33.0, 79.0, 200.0] {
            let points = [point("64", "copy", State::Near, 1, [highest; 3])];
            let (lines, _) = drawn(&points, "line");
            let grid = lines.iter().filter(|line| &*line["class"] == "grid");
            let places: Vec<f64> = grid.map(|line| number(line, "x1")).collect();
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 45.0), "{places:?}");
            let dot = number(&drawn(&points, "circle").0[0], "cx");
            assert!(places.last().is_some_and(|last| dot <= *last), "{highest} fits");
        }
    }

    #[test]
    fn what_the_generator_bounds_is_marked() {
        let mut points = points();
        assert!(!drawn(&points, "text").1.contains(&"*".to_owned()));
        points[1].generator_idle = 0.01;
        assert_eq!(drawn(&points, "text").1.iter().filter(|text| *text == "*").count(), 1);
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("testpmd-again"), "testpmd-again");
        assert_eq!(shortened("a-very-long-name"), "a-very-long-…");
    }

    #[test]
    fn nothing_to_compare_is_nothing_to_draw() {
        let reference = [point("64", REFERENCE, State::Near, 9, [1.0; 3])];
        let error = save(&reference, Path::new("/nonexistent")).expect_err("no switch");
        assert!(error.to_string().contains("nothing to draw"), "{error}");
    }
}
