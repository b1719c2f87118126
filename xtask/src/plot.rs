//! `cargo xtask plot RESULTS.json…`: plots for docs/bench from what `cargo xtask bench --json` printed.
//!
//! ```text
//! cpu.svg      processor time on each way, by program, a panel for each unit
//! latency.svg  how long lines took to their output: half of them, and all but one in a hundred
//! growth.svg   what a line costs by the number of files
//! memory.svg   resident memory by the number of files, and by the size of a log
//! ```
//! A file has one JSON object a line, from any number of runs of the bench; other lines are skipped. A plot without
//! measurements is not written. Nothing is measured here, and no number is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

use crate::paths;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
const BAR: i32 = 18;
const LEFT: i32 = 250;
const RIGHT: i32 = 190;
/// Colours that people who see few colours can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What to draw, and where.
#[derive(clap::Args)]
pub struct PlotArgs {
    /// What `cargo xtask bench --json` printed
    #[arg(required = true, value_name = "RESULTS.json")]
    results: Vec<PathBuf>,
    /// Where the plots go; without it docs/bench
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Reads and draws.
pub fn plot(arguments: &PlotArgs) -> Result<()> {
    let mut text = String::new();
    for path in &arguments.results {
        text += &fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        text.push('\n');
    }
    let out = arguments.out.clone().unwrap_or_else(|| paths::workspace().join("docs/bench"));
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let results = read(&text);
    ensure!(!results.is_empty(), "no result of cargo xtask bench --json is in these files");
    for name in draw(&results, &out)? {
        println!("{}", out.join(name).display());
    }
    Ok(())
}

/// One program's row.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    /// The load.
    what: String,
    /// What was measured, in the words next to its bar.
    row: String,
    program: String,
    unit: String,
    cpu: f64,
    rss_mib: Option<f64>,
    streams: Option<f64>,
    mib: Option<f64>,
    latency_ms: Option<(f64, f64)>,
    exact: bool,
}

fn read(text: &str) -> Vec<Outcome> {
    let values: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let agents = values.iter().filter(|value| is_agent(value)).filter_map(|value| value["program"].as_str());
    let agents: BTreeSet<&str> = agents.map(file_name).collect();
    values.iter().filter_map(|value| outcome(value, agents.len() > 1)).collect()
}

fn is_agent(value: &Value) -> bool {
    value["peer"] == false && value["program"] != "plain loop"
}

/// Some rows of the bench have a program's name, others its whole path.
fn file_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// `by_name`: there are several agents, told apart by their file's names.
fn outcome(value: &Value, by_name: bool) -> Option<Outcome> {
    let what = value["what"].as_str()?.to_owned();
    let mut row = value["row"].as_str().map_or(what.clone(), |row| format!("{what}: {row}"));
    let rotations = value["rotations_per_s"].as_f64().unwrap_or_default();
    if rotations > 0.0 {
        row += &format!(", {rotations} rotations/s");
    }
    let mib = value["mib"].as_f64();
    if let Some(mib) = mib {
        row += &format!(", {mib} MiB");
    }
    let program = value["program"].as_str()?;
    let program = if is_agent(value) && !by_name { "capturer" } else { file_name(program) };
    let latency = &value["latency_ms"];
    Some(Outcome {
        row,
        program: program.to_owned(),
        unit: value["unit"].as_str()?.to_owned(),
        cpu: value["cpu"].as_f64()?,
        rss_mib: value["rss_mib"].as_f64(),
        streams: value["streams"].as_f64(),
        mib,
        latency_ms: latency["p50"].as_f64().zip(latency["p99"].as_f64()),
        exact: value["exact"].as_bool().unwrap_or(true),
        what,
    })
}

/// Draws each plot for which there are numbers; returns the names of the files.
fn draw(results: &[Outcome], out: &Path) -> Result<Vec<&'static str>> {
    let mut drawn = Vec::new();
    let colours = colours(results);
    // If a log has several sizes, the largest: in a small one nearly all is the agent's start.
    let largest = |what: &str| {
        let sizes = results.iter().filter(|outcome| outcome.what == what).filter_map(|outcome| outcome.mib);
        sizes.fold(0.0, f64::max)
    };
    let is_way = |outcome: &&Outcome| {
        outcome.streams.is_none() && outcome.mib.is_none_or(|mib| mib >= largest(&outcome.what))
    };
    let ways: Vec<&Outcome> = results.iter().filter(is_way).collect();
    let mut panels = BTreeMap::<&str, Vec<Bar>>::new();
    for outcome in &ways {
        panels.entry(&outcome.unit).or_default().push(Bar::new(outcome, &outcome.row, outcome.cpu));
    }
    let panels: Vec<Panel> = panels
        .into_iter()
        .map(|(unit, bars)| Panel { title: format!("processor time, {unit}"), bars })
        .collect();
    if bars(&out.join("cpu.svg"), &panels, &colours)? {
        drawn.push("cpu.svg");
    }

    let mut latencies = Vec::new();
    for (title, index) in
        [("half of the lines took no longer than, ms", 0), ("99 % of the lines took no longer than, ms", 1)]
    {
        let bar = |outcome: &&&Outcome| {
            let (p50, p99) = outcome.latency_ms?;
            Some(Bar::new(outcome, &outcome.row, [p50, p99][index]))
        };
        let bars: Vec<Bar> = ways.iter().filter_map(|outcome| bar(&outcome)).collect();
        if !bars.is_empty() {
            latencies.push(Panel { title: title.to_owned(), bars });
        }
    }
    if bars(&out.join("latency.svg"), &latencies, &colours)? {
        drawn.push("latency.svg");
    }

    let by = |x: fn(&Outcome) -> Option<f64>, y: fn(&Outcome) -> Option<f64>| {
        let mut lines = Lines::new();
        for outcome in results {
            // A logarithmic axis has no place for zero, which is what a program gets that stopped working.
            if let (Some(x), Some(y)) = (x(outcome), y(outcome))
                && x > 0.0
                && y > 0.0
            {
                lines.entry(outcome.program.clone()).or_default().push((x, y));
            }
        }
        lines.values_mut().for_each(|line| line.sort_by(|one, other| one.0.total_cmp(&other.0)));
        lines
    };
    let streams = |outcome: &Outcome| outcome.streams;
    let growth =
        [Chart { title: "CPU µs a line", x: "files", lines: by(streams, |outcome| Some(outcome.cpu)) }];
    if charts(&out.join("growth.svg"), &growth, &colours)? {
        drawn.push("growth.svg");
    }
    let memory = [
        Chart { title: "resident MiB", x: "files", lines: by(streams, |outcome| outcome.rss_mib) },
        Chart {
            title: "resident MiB at most, json-file log into a file",
            x: "MiB of log",
            lines: by(|outcome| outcome.mib.filter(|_| outcome.what == "file"), |outcome| outcome.rss_mib),
        },
    ];
    if charts(&out.join("memory.svg"), &memory, &colours)? {
        drawn.push("memory.svg");
    }
    Ok(drawn)
}

/// A program has one colour in all plots.
fn colours(results: &[Outcome]) -> BTreeMap<String, RGBColor> {
    let mut programs: Vec<&str> = Vec::new();
    for outcome in results {
        if !programs.contains(&outcome.program.as_str()) {
            programs.push(&outcome.program);
        }
    }
    programs.sort_by_key(|program| *program != "capturer");
    programs.into_iter().map(str::to_owned).zip(COLOURS.into_iter().cycle()).collect()
}

// ---- bars

struct Panel {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    row: String,
    program: String,
    value: f64,
    exact: bool,
}

impl Bar {
    fn new(outcome: &Outcome, row: &str, value: f64) -> Bar {
        Bar { row: row.to_owned(), program: outcome.program.clone(), value, exact: outcome.exact }
    }
}

fn style(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK)
}

/// Returns whether there was anything to draw. Bars are horizontal, so that their names can be read.
fn bars(file: &Path, panels: &[Panel], colours: &BTreeMap<String, RGBColor>) -> Result<bool> {
    if panels.is_empty() {
        return Ok(false);
    }
    let rows: usize = panels.iter().map(|panel| panel.bars.len() + 3).sum();
    let height = rows as i32 * BAR + 10;
    let area = SVGBackend::new(file, (WIDTH, height as u32)).into_drawing_area();
    let drawing = |error: DrawingAreaErrorKind<_>| anyhow!("drawing {}: {error}", file.display());
    area.fill(&WHITE).map_err(drawing)?;
    let mut top = 10;
    for panel in panels {
        area.draw(&Text::new(panel.title.clone(), (10, top), style(15))).map_err(drawing)?;
        top += 2 * BAR - 8;
        let largest = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let mut last = "";
        for bar in &panel.bars {
            let width = (f64::from(WIDTH as i32 - LEFT - RIGHT) * bar.value / largest).round() as i32;
            let colour = colours.get(&bar.program).copied().unwrap_or(BLACK);
            let ends = [(LEFT, top + 2), (LEFT + width.max(1), top + BAR - 2)];
            area.draw(&Rectangle::new(ends, colour.filled())).map_err(drawing)?;
            let name = if bar.row == last { String::new() } else { bar.row.clone() };
            last = &bar.row;
            area.draw(&Text::new(name, (10, top + 3), style(12))).map_err(drawing)?;
            let lost = if bar.exact { "" } else { " (not exact)" };
            let said = format!("{} {}{lost}", shown(bar.value), bar.program);
            area.draw(&Text::new(said, (LEFT + width + 6, top + 3), style(12))).map_err(drawing)?;
            top += BAR;
        }
        top += BAR;
    }
    area.present().map_err(drawing)?;
    Ok(true)
}

/// Three digits are enough.
fn shown(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

// ---- lines

/// Points by program.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

struct Chart {
    title: &'static str,
    x: &'static str,
    lines: Lines,
}

/// Returns whether there was anything to draw. Both axes are logarithmic: the values span several powers of ten.
fn charts(file: &Path, charts: &[Chart], colours: &BTreeMap<String, RGBColor>) -> Result<bool> {
    // One point shows no growth.
    let with_points = |chart: &&Chart| chart.lines.values().any(|line| line.len() > 1);
    let charts: Vec<&Chart> = charts.iter().filter(with_points).collect();
    if charts.is_empty() {
        return Ok(false);
    }
    let area = SVGBackend::new(file, (WIDTH, 360 * charts.len() as u32)).into_drawing_area();
    let drawing = |error: DrawingAreaErrorKind<_>| anyhow!("drawing {}: {error}", file.display());
    area.fill(&WHITE).map_err(drawing)?;
    for (part, chart) in area.split_evenly((charts.len(), 1)).iter().zip(charts) {
        lines(part, chart, colours).with_context(|| format!("drawing {}", file.display()))?;
    }
    area.present().map_err(drawing)?;
    Ok(true)
}

fn lines(area: &Area, chart: &Chart, colours: &BTreeMap<String, RGBColor>) -> Result<()> {
    let points = || chart.lines.values().flatten();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let least = points().map(of).fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
        let most = points().map(of).fold(f64::MIN_POSITIVE, f64::max);
        (least / 1.3)..(most * 1.5)
    };
    let said = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, style(16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(range(|point| point.0).log_scale(), range(|point| point.1).log_scale())
        .map_err(said)?;
    let number = |value: &f64| format!("{}", (value * 1000.0).round() / 1000.0);
    context
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(6)
        .y_labels(6)
        .x_desc(chart.x)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(style(12))
        .draw()
        .map_err(said)?;
    for (program, line) in &chart.lines {
        let colour = colours.get(program).copied().unwrap_or(BLACK);
        let drawn = context.draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        drawn.map_err(said)?.label(program).legend(legend);
        let dots = line.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        context.draw_series(dots).map_err(said)?;
    }
    let mut legend = context.configure_series_labels();
    let place = legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).label_font(style(12));
    place.draw().map_err(said)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the bench prints them, among other lines of a terminal.
    const RESULTS: &str = r#"
rsyslogd: rsyslogd  8.2302.0
{"what":"live","program":"target/release/capturer","peer":false,"unit":"% of a core","cpu":8.5,"rss_mib":15.0,"exact":true,"latency_ms":{"p50":8.0,"p99":26.0,"max":42.0},"rotations_per_s":12.5}
{"what":"live","program":"rsyslogd","peer":true,"unit":"% of a core","cpu":11.8,"rss_mib":41.0,"exact":false,"latency_ms":{"p50":2.0,"p99":58.0,"max":68.0},"rotations_per_s":12.5}
{"what":"growth","program":"target/release/capturer","peer":false,"unit":"CPU µs a line","cpu":4.0,"rss_mib":15.0,"streams":1}
{"what":"growth","program":"target/release/capturer","peer":false,"unit":"CPU µs a line","cpu":9.0,"rss_mib":150.0,"streams":10000}
{"what":"growth","program":"rsyslogd","peer":true,"unit":"CPU µs a line","cpu":0.0,"rss_mib":150.0,"streams":10000}
{"what":"file","program":"plain loop","peer":false,"unit":"CPU-s/GiB","cpu":1.0,"rss_mib":4.0,"mib":1}
{"what":"file","program":"plain loop","peer":false,"unit":"CPU-s/GiB","cpu":0.77,"rss_mib":4.0,"mib":64}
"#;

    #[test]
    fn results_are_read_and_other_lines_passed_over() {
        let results = read(RESULTS);
        assert_eq!(results.len(), 7);
        assert_eq!(
            (&*results[0].program, &*results[1].program, &*results[5].program),
            ("capturer", "rsyslogd", "plain loop")
        );
        assert_eq!((&*results[0].row, results[0].latency_ms), ("live, 12.5 rotations/s", Some((8.0, 26.0))));
        assert_eq!((results[1].exact, results[3].streams), (false, Some(10_000.0)));
        let two = RESULTS.to_owned() + &RESULTS.replace("target/release/capturer", "/tmp/capturer-before");
        let names: BTreeSet<String> = read(&two).into_iter().map(|outcome| outcome.program).collect();
        let expected = ["capturer", "capturer-before", "plain loop", "rsyslogd"];
        assert_eq!(names, expected.map(str::to_owned).into());
        let one = RESULTS.replace("target/release/capturer", "/tmp/capturer-before");
        assert_eq!(read(&one)[0].program, "capturer", "the only agent");
    }

    /// A plot that lacks the results' numbers would show something else.
    #[test]
    fn plots_are_drawn_of_what_there_is() {
        let home = tempfile::tempdir().unwrap();
        let drawn = draw(&read(RESULTS), home.path()).unwrap();
        assert_eq!(drawn, ["cpu.svg", "latency.svg", "growth.svg", "memory.svg"]);
        let text = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
        let (cpu, latency) = (text("cpu.svg"), text("latency.svg"));
        assert!(cpu.starts_with("<svg") && cpu.trim_end().ends_with("</svg>"));
        for words in
            ["11.8 rsyslogd (not exact)", "8.50 capturer", "0.77 plain loop", "processor time, % of a core"]
        {
            assert!(cpu.contains(words), "{words}: {cpu}");
        }
        assert!(!cpu.contains("1.00 plain loop"), "the smaller log: {cpu}");
        assert!(latency.contains("26.0 capturer") && latency.contains("2.00 rsyslogd"), "{latency}");
        assert!(text("growth.svg").contains("polyline"));
        let some = draw(&read(RESULTS)[..1], &home.path().join(".")).unwrap();
        assert_eq!(some, ["cpu.svg", "latency.svg"]);
    }
}
