//! `capturer try`: what each step of a pipeline makes of lines, shown one below the other, so that a pipeline is right before it
//! runs. The steps are the agent's own; each is given what the one before let through.
//!
//! A step may keep things from line to line (dedup, sample, limits of labels), so there is one pipeline for each number of
//! steps, and each is fed all lines. Not tried: `rate_limit`, whose outcome depends on how fast lines come.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::commands::cli;
use crate::commands::cli::{Exit, TryArgs};
use crate::decode::assemble::{Assembler, Lines};
use crate::decode::{Piece, timestamp};
use crate::model::cursor::Cursor;
use crate::model::outcome::{Outcome, Tally};
use crate::model::record::{Batch, ContainerMeta, MessageForm, Source, StdType, StreamId, StreamKey};
use crate::pipeline::Pipelines;
use crate::settings::pipeline::{for_container, for_path};
use crate::settings::{Pipeline, Settings};
use crate::sink::ndjson::{SourcePrefix, encode};
use crate::text::counted::counted;

/// How much of standard input or of the file is tried.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Stands for an ID that nobody knows.
const NO_ID: &str = "?";

/// Runs the command.
pub fn run(arguments: &TryArgs, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let settings = match cli::load(&arguments.config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    let tried = choose(arguments, &settings).and_then(|pipeline| {
        let text = read(arguments)?;
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        Trial::new(&pipeline, arguments, &settings, now_ns).show(&text, out);
        Ok(())
    });
    match tried {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let _ = writeln!(err, "error: {error:#}");
            Exit::Usage
        }
    }
}

fn choose(arguments: &TryArgs, settings: &Settings) -> anyhow::Result<Arc<Pipeline>> {
    let pipelines = &settings.pipelines;
    let names = || pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!pipelines.is_empty(), "the config has no pipelines, so lines go on as they are");
    if let Some(name) = &arguments.pipeline {
        let found = pipelines.iter().find(|pipeline| pipeline.name == *name);
        return found
            .cloned()
            .with_context(|| format!("no pipeline is called {name}; there are {}", names()));
    }
    if let Some(path) = &arguments.path {
        return for_path(pipelines, path).with_context(|| format!("no pipeline takes the file {path}"));
    }
    if let Some(name) = &arguments.container {
        let found = for_container(pipelines, name, "", |_| None);
        return found.with_context(|| {
            format!("no pipeline takes a container of this name alone (images and labels are not known here): {name}")
        });
    }
    match pipelines.as_slice() {
        [only] => Ok(Arc::clone(only)),
        _ => anyhow::bail!("there are several pipelines: choose one with --pipeline: {}", names()),
    }
}

fn read(arguments: &TryArgs) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    match &arguments.file {
        Some(path) => {
            let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
            file.take(INPUT_BYTES_MAX).read_to_end(&mut text).with_context(|| path.display().to_string())?;
        }
        None => {
            io::stdin().take(INPUT_BYTES_MAX).read_to_end(&mut text).context("reading standard input")?;
        }
    }
    Ok(text)
}

/// The pipeline with all of its steps, with none, and with all numbers between.
struct Trial {
    name: String,
    joins: Option<Arc<Pipeline>>,
    steps: Vec<Stage>,
    /// Without a pipeline.
    plain: Arc<Source>,
    prefix: SourcePrefix,
    line_bytes_max: usize,
    now_ns: i64,
}

struct Stage {
    /// `parse`, and so on.
    kind: &'static str,
    source: Arc<Source>,
    prefix: SourcePrefix,
    pipelines: Pipelines,
}

impl Trial {
    fn new(pipeline: &Arc<Pipeline>, arguments: &TryArgs, settings: &Settings, now_ns: i64) -> Trial {
        let stage = |count: usize| {
            let part = Pipeline {
                steps: pipeline.steps[..count].to_vec(),
                rate_limit: None,
                ..Pipeline::clone(pipeline)
            };
            let source = Arc::new(source(arguments, Arc::new(part)));
            Stage {
                kind: count.checked_sub(1).map_or("", |last| pipeline.steps[last].kind()),
                prefix: SourcePrefix::new(&source),
                source,
                pipelines: Pipelines::default(),
            }
        };
        let plain = Arc::new(source(arguments, Arc::new(Pipeline::default())));
        Trial {
            prefix: SourcePrefix::new(&plain),
            plain,
            name: pipeline.name.clone(),
            joins: pipeline.multiline.is_some().then(|| Arc::clone(pipeline)),
            steps: (1..=pipeline.steps.len()).map(stage).collect(),
            line_bytes_max: settings.line_bytes_max as usize,
            now_ns,
        }
    }

    /// A reader that went away (`| head`) is no error of ours.
    fn show(&mut self, text: &[u8], out: &mut dyn Write) {
        let (mut failed, mut kept) = (0, 0);
        let messages = self.messages(text);
        let mut numbers = Numbers::new(text);
        for (index, (message, lines)) in messages.iter().enumerate() {
            let first = numbers.of(message);
            let which = match lines {
                1 => format!("line {first}"),
                _ => format!("lines {first} to {} ({lines} lines joined)", first + lines - 1),
            };
            let _ = writeln!(out, "{which}: {}", String::from_utf8_lossy(message));
            let untouched = Arc::new(batch(&self.plain, message, false, self.now_ns));
            let mut before = shown(&untouched, &self.prefix);
            let mut goes_on = true;
            for (number, stage) in self.steps.iter_mut().enumerate() {
                let last = index + 1 == messages.len();
                let (tally, records) = stage.run(message, last, self.now_ns);
                if !goes_on {
                    continue;
                }
                let told = tell(stage.kind, &tally, &records, &before);
                failed += u64::from(told.starts_with("FAILED"));
                let _ = writeln!(out, "  {}. {:<10} {told}", number + 1, stage.kind);
                goes_on = !records.is_empty();
                before = records;
            }
            kept += u64::from(goes_on);
        }
        let all = messages.len();
        let _ = writeln!(
            out,
            "\npipeline {}: {}, {kept} delivered; a step failed on one {}",
            self.name,
            counted(all as u64, "record"),
            counted(failed, "time")
        );
    }

    /// Lines as the capture thread joins them, with how many each is made of.
    fn messages(&self, text: &[u8]) -> Vec<(Vec<u8>, usize)> {
        let mut assembler = Assembler::new(self.line_bytes_max).with_pipeline(self.joins.as_ref());
        let (mut lines, mut messages, mut at) = (Lines::default(), Vec::new(), 0);
        let mut take = |lines: &mut Lines| {
            for record in std::mem::take(&mut lines.records) {
                let from =
                    if record.place == crate::model::record::Place::Made { &lines.made[..] } else { text };
                let start = record.message_start as usize;
                let message = from[start..][..record.message_len as usize].to_vec();
                let count = message.iter().filter(|byte| **byte == b'\n').count() + 1;
                messages.push((message, count));
            }
            lines.made.clear();
        };
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let end = line.len() - usize::from(line.ends_with(b"\n"));
            let piece = Piece {
                text: at..at + end,
                time: 0..0,
                form: MessageForm::Raw,
                decoded_len: end,
                std_type: StdType::Stdout,
                complete: true,
            };
            assembler.push(text, &piece, at as u64, true, &mut lines);
            at += line.len();
            take(&mut lines);
        }
        assembler.end_group(StdType::Stdout, &mut lines);
        assembler.close_all(&mut lines);
        take(&mut lines);
        messages
    }
}

/// Which line of the input a message begins with. Joined lines are one message, and empty lines behind a trace none at all, so
/// messages can't be counted.
struct Numbers<'t> {
    lines: Vec<&'t [u8]>,
    /// Lines that messages were found in.
    passed: usize,
}

impl<'t> Numbers<'t> {
    fn new(text: &'t [u8]) -> Numbers<'t> {
        Numbers { lines: text.split(|byte| *byte == b'\n').collect(), passed: 0 }
    }

    /// Counted from 1. To be asked in order.
    fn of(&mut self, message: &[u8]) -> usize {
        let mut parts = message.split(|byte| *byte == b'\n');
        let first = parts.next().unwrap_or_default();
        // The message may have been cut, or lack a carriage return.
        let begins = |line: &&[u8]| line.starts_with(first) && (first.is_empty() == line.is_empty());
        let ahead = self.lines.iter().skip(self.passed).position(begins).unwrap_or(0);
        let number = self.passed + ahead + 1;
        self.passed = number + parts.count();
        number
    }
}

impl Stage {
    /// What its last step counted, and the records that go on.
    fn run(&mut self, message: &[u8], last: bool, now_ns: i64) -> (Tally, String) {
        let batch = Arc::new(batch(&self.source, message, last, now_ns));
        let processed = self.pipelines.process(&batch, now_ns);
        let (made, tally) = processed.map_or((None, Tally::new()), |made| (made.batch, made.tally));
        (tally, shown(made.as_ref().unwrap_or(&batch), &self.prefix))
    }
}

/// Records as NDJSON has them, without what is the same in all that are tried here.
fn shown(batch: &Batch, prefix: &SourcePrefix) -> String {
    let mut out = Vec::new();
    encode(batch, prefix, 0, usize::MAX, &mut out);
    let time = format!("\"time\":\"{}\",", batch.read_time);
    let text = String::from_utf8_lossy(&out).replace(&time, "").replace("\"stream\":\"stdout\",", "");
    text.replace(&format!("\"container_id\":\"{NO_ID}\","), "").trim_end().to_owned()
}

/// In a few words, and what the record is now.
fn tell(kind: &'static str, tally: &Tally, records: &str, before: &str) -> String {
    let has = |outcome| tally.contains_key(&(kind, outcome));
    let word = if records.is_empty() && has(Outcome::Dropped) {
        return "dropped: it goes no further".to_owned();
    } else if records.is_empty() {
        return "held back until the next line (dedup)".to_owned();
    } else if has(Outcome::Failed) && !before.contains("\"failed\"") {
        "FAILED, the line goes on marked:"
    } else if has(Outcome::Limited) {
        "a bound bit:"
    } else if before == records {
        return "unchanged".to_owned();
    } else {
        "→"
    };
    format!("{word} {records}")
}

fn source(arguments: &TryArgs, pipeline: Arc<Pipeline>) -> Source {
    let container = arguments.container.as_ref().map(|name| ContainerMeta {
        id: NO_ID.to_owned(),
        name: name.clone(),
        image: String::new(),
        labels: BTreeMap::new(),
    });
    Source {
        container,
        path: arguments.path.as_deref().map(Into::into),
        pipeline: Some(pipeline),
        ..Source::new(StreamId(1), StreamKey("try".into()))
    }
}

fn batch(source: &Arc<Source>, message: &[u8], last: bool, now_ns: i64) -> Batch {
    let record = crate::model::record::Record {
        message_start: 0,
        message_len: message.len() as u32,
        time_start: 0,
        time_len: 0,
        std_type: StdType::Stdout,
        form: MessageForm::Raw,
        place: crate::model::record::Place::Read,
        truncated: false,
        partial: false,
        continued: false,
    };
    Batch {
        source: Arc::clone(source),
        seq: 1,
        read: message.to_vec(),
        made: Vec::new(),
        records: vec![record],
        read_time: timestamp::format(now_ns),
        end: Cursor::Beginning,
        source_bytes: 0,
        last,
        changes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_as_they_stand_in_the_input() {
        let mut numbers = Numbers::new(b"a\n\nb\n\tat x\n\n\nc\nc\n");
        let of = ["a", "", "b\n\tat x", "c", "c"].map(|message| numbers.of(message.as_bytes()));
        assert_eq!(of, [1, 2, 3, 7, 8]);
        let mut numbers = Numbers::new(b"long line\r\nnext");
        assert_eq!([numbers.of(b"long"), numbers.of(b"next")], [1, 2]);
    }
    use crate::settings::file::{Outside, parse};

    fn check(pipeline: &str, input: &str, expected: &[&str]) {
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let text = format!("pipelines: [{{name: p, {pipeline}}}]");
        let settings = parse("c.yaml", &text, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
        let arguments = TryArgs {
            config: cli::ConfigArgs::default(),
            file: None,
            pipeline: None,
            container: Some("web".to_owned()),
            path: None,
        };
        let chosen = choose(&arguments, &settings).unwrap();
        let mut out = Vec::new();
        Trial::new(&chosen, &arguments, &settings, 0).show(input.as_bytes(), &mut out);
        let shown = String::from_utf8(out).unwrap();
        let mut rest = shown.as_str();
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not in what is left of\n{shown}"));
            rest = &rest[at + part.len()..];
        }
    }

    #[test]
    fn each_step_shows_what_it_makes_of_a_line() {
        check(
            "steps: [{parse: {format: json, message: msg}}, {drop: {field: level, matches: debug}}, {strip_ansi: {}}]",
            "{\"level\":\"info\",\"msg\":\"hi\"}\n{\"level\":\"debug\"}\nno JSON\n",
            &[
                "line 1: {\"level\"",
                "1. parse      → {",
                "\"fields\":{\"level\":\"info\"},\"message\":\"hi\"}",
                "2. drop       unchanged",
                "3. strip_ansi unchanged",
                "line 2:",
                "2. drop       dropped",
                "line 3: no JSON",
                "1. parse      FAILED",
                "pipeline p: 3 records, 2 delivered; a step failed on one 1 time",
            ],
        );
    }

    #[test]
    fn lines_are_joined_first() {
        check(
            "multiline: {preset: java}, steps: [{keep: {matches: Exception}}]",
            "java.lang.Exception: x\n\tat a.B.c(B.java:1)\nafter\n",
            &["lines 1 to 2 (2 lines joined): java.lang.Exception", "line 3: after", "1. keep       dropped"],
        );
    }

    #[test]
    fn what_steps_keep_goes_from_line_to_line() {
        let expected = ["line 1", "unchanged", "line 2", "dropped", "line 3", "unchanged", "2 delivered"];
        check("steps: [{sample: {keep_one_in: 2}}]", "a\nb\nc\n", &expected);
    }
}
