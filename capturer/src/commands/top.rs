//! `capturer top`: what is wrong, and a row for each source of a running agent, with its state and how fast lines come.
//! Rates come from two looks a second apart, at what everybody may request (`/api/v1/streams`, `/health`, `/metrics`).
//! On a terminal `screen` draws it and takes keys; `--once` prints the same (words.rs), `--json` everything.
//!
//! A line counts as captured once, however many outlets read it, and the agent's lag is that of the outlet that is
//! furthest behind. So the numbers in the head are not sums over streams.

mod figures;
mod fold;
mod screen;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use figures::{by_sink, captured, losses, spools};
use fold::Source;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use screen::{Chosen, Key};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::commands::agent_client::{AgentClient, NO_ANSWER};
use crate::commands::cli;
use crate::commands::cli::{Exit, TopArgs};
use crate::commands::colours;
use crate::telemetry::health_text::HealthText;
use crate::text::age::age_text;
use crate::text::counted::counted;
use crate::text::shown::bytes_text;
use crate::text::terminal::{Screen, printable};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A source with this much to read counts as behind after [`BEHIND_FOR`].
const BEHIND_BYTES: u64 = 64 * 1024;
const BEHIND_FOR: Duration = Duration::from_secs(10);
/// The size if the terminal does not say, and in a pipe.
const USUAL_SIZE: (usize, usize) = (80, usize::MAX);

/// Shows the table until it is interrupted, or once.
pub fn run(arguments: &TopArgs, err: &mut dyn io::Write) -> Exit {
    let client = match AgentClient::find(&arguments.agent, err) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    match show(client, arguments) {
        Ok(()) => Exit::Ok,
        Err(error) => cli::fail(&error),
    }
}

fn show(client: AgentClient, arguments: &TopArgs) -> anyhow::Result<()> {
    let before = Look::take(&client)?;
    let is_drawn = io::stdout().is_terminal() && io::stdin().is_terminal() && !colours::is_dumb();
    if is_drawn && !arguments.once && !arguments.json {
        return interact(&client, before);
    }
    std::thread::sleep(LOOK_EVERY);
    let view = View::of(&client, &before, &Look::take(&client)?.after(&before));
    let terminal = io::stdout().is_terminal();
    // `watch` cuts lines wider than the screen, and passes the width in this variable.
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|_| !terminal);
    let size = if terminal { size() } else { (columns.unwrap_or(USUAL_SIZE.0), USUAL_SIZE.1) };
    let is_cut = terminal || columns.is_some();
    let text = if arguments.json {
        serde_json::to_string_pretty(&view)? + "\n"
    } else {
        words::page(&view, size, is_cut)
    };
    // Standard output remembers its errors (text/output.rs).
    let _ = Screen::default().draw(&text, terminal);
    Ok(())
}

/// Runs until the user leaves. If the agent is unavailable, as during a restart, it waits.
fn interact(client: &AgentClient, mut before: Look) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("the terminal can't be drawn on; try --once")?;
    let mut view = View::of(client, &before, &before);
    let plain = !colours::are_wanted(true);
    let (mut chosen, mut looked_at) = (Chosen { plain, ..Chosen::default() }, Instant::now());
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| screen::draw(frame, &view, &mut chosen)) {
            break Err(error.into());
        }
        match next_key(LOOK_EVERY.saturating_sub(looked_at.elapsed())) {
            Ok(Some(key)) if !chosen.press(key) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error.into()),
        }
        if looked_at.elapsed() >= LOOK_EVERY {
            looked_at = Instant::now();
            match Look::take(client) {
                Ok(now) => {
                    let now = now.after(&before);
                    view = View::of(client, &before, &now);
                    before = now;
                }
                Err(error) => view.silent = Some(silence(client, before.at.elapsed(), &error)),
            }
        }
    };
    ratatui::restore();
    outcome
}

/// The rows are old, and the user must see that at once.
fn silence(client: &AgentClient, since: Duration, error: &anyhow::Error) -> String {
    let since = age_text(since.as_secs());
    let error = format!("{error:#}");
    let why = if error.contains(NO_ANSWER) { String::new() } else { format!(" ({error})") };
    format!(
        "The agent at {} has not answered for {since}{why}; below is what it said then; no line is lost while log files are kept; \
         look with systemctl status capturer",
        client.address
    )
}

/// The next key that means something, if one comes in time. Ctrl-C leaves, as everywhere.
fn next_key(patience: Duration) -> io::Result<Option<Key>> {
    if !event::poll(patience)? {
        return Ok(None);
    }
    let Event::Key(pressed) = event::read()? else { return Ok(None) };
    if pressed.kind == KeyEventKind::Release {
        return Ok(None);
    }
    Ok(match pressed.code {
        KeyCode::Char('c') if pressed.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Leave),
        KeyCode::Char(c) => Some(Key::Char(c)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Back),
        _ => None,
    })
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL_SIZE,
    }
}

/// `None`: an older agent sends none.
fn health_text(health: &Value) -> Option<HealthText> {
    serde_json::from_value(health["told"].clone()).ok()
}

/// The agent's answers at one moment.
struct Look {
    at: Instant,
    rows: Vec<Map<String, Value>>,
    /// False = its loop did not answer in time.
    fresh: bool,
    age_ms: u64,
    /// Since when rows have been behind, by number.
    behind_since: BTreeMap<u64, Instant>,
    /// Messages of components that are not well.
    problems: BTreeMap<String, String>,
    /// Components among these whose fault neither loses nor delays a line.
    warnings: BTreeSet<String>,
    /// Messages of components that are well but have something to read.
    notes: BTreeMap<String, String>,
    told: BTreeMap<String, HealthText>,
    /// What pipelines dropped, as a sentence.
    pipelines: String,
    /// Records read from all sources, each counted once.
    captured: u64,
    /// Losses declared in this run.
    losses: u64,
    /// Records delivered, by sink.
    sent: BTreeMap<String, u64>,
    /// What waits in spools: a sentence for each sink.
    spools: Vec<String>,
}

impl Look {
    fn take(client: &AgentClient) -> anyhow::Result<Look> {
        let json = |path: &str| -> anyhow::Result<Value> {
            let (_, body) = client.get(path)?;
            serde_json::from_slice(&body)
                .with_context(|| format!("the agent at {} answered {path} with no JSON", client.address))
        };
        let (streams, health) = (json("/api/v1/streams")?, json("/health")?);
        let metrics = String::from_utf8_lossy(&client.get("/metrics")?.1).into_owned();
        let rows = streams["streams"].as_array().cloned().unwrap_or_default();
        let components = health["components"].as_object().cloned().unwrap_or_default();
        let said = |health: &Value| health["message"].as_str().unwrap_or_default().to_owned();
        let pipelines = components.get("pipelines").map(said).unwrap_or_default();
        let warnings = components.iter().filter(|(_, health)| health["warning"] == true);
        let warnings = warnings.map(|(name, _)| name.clone()).collect();
        let of = |wanted: fn(&Value) -> bool| {
            let some = components.iter().filter(|(_, health)| wanted(health));
            some.map(|(name, health)| (name.clone(), said(health))).collect()
        };
        let told = components.iter().filter_map(|(name, health)| Some((name.clone(), health_text(health)?)));
        let waits_for = |sink: &str| {
            let health = components.get(&format!("sink_{sink}_delivery"))?;
            health["waits_for"].as_str()
        };
        Ok(Look {
            at: Instant::now(),
            behind_since: BTreeMap::new(),
            told: told.collect(),
            rows: rows.into_iter().filter_map(|row| row.as_object().cloned()).collect(),
            fresh: streams["fresh"] == true,
            age_ms: streams["age_ms"].as_u64().unwrap_or(0),
            problems: of(|health| health["ok"] == false),
            warnings,
            notes: of(|health| health["note"] == true),
            pipelines,
            captured: captured(&metrics),
            losses: losses(&metrics),
            sent: by_sink(&metrics),
            spools: spools(&metrics, &waits_for),
        })
    }
}

impl Look {
    /// Adds what only several looks can show. A source that is read as it grows always has some unread bytes; it is
    /// behind if there are many, or if they are not read.
    fn after(mut self, before: &Look) -> Look {
        let lines_before: BTreeMap<u64, u64> =
            before.rows.iter().map(|row| (number(row, "id"), number(row, "lines"))).collect();
        let is_behind = |row: &&Map<String, Value>| {
            let stands = lines_before.get(&number(row, "id")) == Some(&number(row, "lines"));
            number(row, "lag_bytes") >= BEHIND_BYTES || (stands && number(row, "lag_bytes") > 0)
        };
        let behind = self.rows.iter().filter(is_behind).map(|row| number(row, "id"));
        self.behind_since =
            behind.map(|id| (id, before.behind_since.get(&id).copied().unwrap_or(self.at))).collect();
        self
    }
}

/// What is shown: the later of two looks, with the rates between them.
#[derive(Serialize)]
struct View {
    address: String,
    healthy: bool,
    problems: BTreeMap<String, String>,
    /// Components in `problems` whose fault neither loses nor delays a line.
    warnings: BTreeSet<String>,
    /// Messages of components that are well but have something to read.
    notes: BTreeMap<String, String>,
    /// What pipelines dropped; empty = there are none.
    pipelines: String,
    /// Records delivered, by sink.
    sent: BTreeMap<String, u64>,
    /// What waits in spools: a sentence for each sink.
    spools: Vec<String>,
    /// Lines captured per second, each counted once however many sinks take it.
    lines_per_second: f64,
    /// Lag of the group of sinks that is furthest behind.
    lag_bytes: u64,
    /// Sources of which nobody knows how much is unread, and all sources.
    unread_unknown: usize,
    sources: usize,
    /// Losses declared in this run.
    losses: u64,
    #[serde(skip)]
    told: BTreeMap<String, HealthText>,
    /// The agent does not answer, and everything here is old.
    #[serde(skip)]
    silent: Option<String>,
    /// False = the agent's loop did not answer, and these are its last words.
    fresh: bool,
    age_ms: u64,
    /// The busiest first. As in `/api/v1/streams`, with `lines_per_second` added.
    streams: Vec<Map<String, Value>>,
}

impl View {
    /// Includes doubts about which agent was asked: text printed before is hidden by the screen.
    fn of(client: &AgentClient, before: &Look, now: &Look) -> View {
        let mut view = View::new(client.address.to_string(), before, now);
        view.notes.extend(client.doubt.iter().map(|doubt| ("config".to_owned(), doubt.clone())));
        view
    }

    fn new(address: String, before: &Look, now: &Look) -> View {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let lines = |row: &Map<String, Value>| number(row, "lines");
        let lines_before: BTreeMap<u64, u64> =
            before.rows.iter().map(|row| (number(row, "id"), lines(row))).collect();
        let with_rate = |row: &Map<String, Value>| {
            // A new row has no rate yet.
            let base = lines_before.get(&number(row, "id")).copied().unwrap_or(lines(row));
            let rate = lines(row).saturating_sub(base) as f64 / seconds;
            let mut row = row.clone();
            row.insert("lines_per_second".to_owned(), tenths(rate).into());
            let since = now.behind_since.get(&number(&row, "id"));
            if since.is_some_and(|since| now.at.duration_since(*since) >= BEHIND_FOR) {
                row.insert(fold::BEHIND.to_owned(), true.into());
            }
            row
        };
        let mut streams: Vec<Map<String, Value>> = now.rows.iter().map(with_rate).collect();
        streams.sort_by(|a, b| {
            let order = rate(b).total_cmp(&rate(a)).then(lines(b).cmp(&lines(a)));
            order.then_with(|| text(a, "name").cmp(text(b, "name")))
        });
        let captured = now.captured.saturating_sub(before.captured) as f64 / seconds;
        View {
            address,
            healthy: now.problems.is_empty(),
            problems: now.problems.clone(),
            warnings: now.warnings.clone(),
            notes: now.notes.clone(),
            pipelines: now.pipelines.clone(),
            sent: now.sent.clone(),
            spools: now.spools.clone(),
            lines_per_second: tenths(captured),
            lag_bytes: furthest_behind(&now.rows),
            unread_unknown: keys(&now.rows, |row| row.get("unknown").is_some_and(|is| *is == true)),
            sources: keys(&now.rows, |_| true),
            losses: now.losses,
            told: now.told.clone(),
            silent: None,
            fresh: now.fresh,
            age_ms: now.age_ms,
            streams,
        }
    }

    /// Losses first; faults that neither lose nor delay a line last.
    fn problems_by_weight(&self) -> Vec<(&String, &String)> {
        let weight = |name: &String| (name != "losses", self.warnings.contains(name));
        let mut problems: Vec<_> = self.problems.iter().collect();
        problems.sort_by_key(|(name, _)| weight(name));
        problems
    }
}

/// Unread bytes in a source's log.
fn unread(source: &Source) -> String {
    if source.unknown { "?".to_owned() } else { bytes(source.lag) }
}

/// Bytes in all logs that are not taken yet, and that this is not all where nobody knows of some.
fn unread_of_all(view: &View) -> String {
    match view.unread_unknown {
        0 => bytes(Some(view.lag_bytes)),
        unknown if unknown == view.sources => "?".to_owned(),
        unknown => {
            format!("{} + ? ({} not known)", bytes(Some(view.lag_bytes)), counted(unknown as u64, "source"))
        }
    }
}

/// How many sources have such a row.
fn keys(rows: &[Map<String, Value>], is_meant: impl Fn(&Map<String, Value>) -> bool) -> usize {
    rows.iter().filter(|row| is_meant(row)).map(fold::key_of).collect::<BTreeSet<_>>().len()
}

/// A sentence over several lines: its end is where the cure stands.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let text = printable(text);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        let width = line.chars().count();
        if width > 0 && width + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            *line += if width > 0 { " " } else { "" };
            *line += word;
        }
    }
    lines
}

/// Each outlet reads all sources for itself.
fn furthest_behind(rows: &[Map<String, Value>]) -> u64 {
    let mut by_sinks: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        let sinks = row.get("sinks").map(Value::to_string).unwrap_or_default();
        *by_sinks.entry(sinks).or_default() += number(row, "lag_bytes");
    }
    by_sinks.into_values().max().unwrap_or(0)
}

fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn number(row: &Map<String, Value>, key: &str) -> u64 {
    row.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn text<'a>(row: &'a Map<String, Value>, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn rate(row: &Map<String, Value>) -> f64 {
    row.get("lines_per_second").and_then(Value::as_f64).unwrap_or(0.0)
}

fn bytes(count: Option<u64>) -> String {
    count.map_or("-".to_owned(), bytes_text)
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
