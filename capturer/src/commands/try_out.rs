//! `capturer try`: shows what each step of a pipeline makes of lines, one below the other, so that a pipeline is right
//! before it runs. It reads lines as the agent does (capture/tried.rs) and runs the agent's own steps. Each step gets
//! what passed the one before.
//!
//! A step may keep state from line to line (dedup, sample, limits of labels), so there is one pipeline for each number
//! of steps, and each of them gets all lines. Not tried: `rate_limit`, whose effect depends on how fast lines come.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::capture::tried::{self, Rules, TriedLine};
use crate::commands::cli;
use crate::commands::cli::{Exit, TryArgs};
use crate::decode::assemble::{Assembler, Join, Lines};
use crate::decode::{Piece, timestamp};
use crate::model::cursor::Cursor;
use crate::model::outcome::{Outcome, Tally};
use crate::model::record::{
    Batch, BufferKind, ContainerMeta, MessageForm, Record, Source, StdType, StreamId, StreamKey,
};
use crate::pipeline::Pipelines;
use crate::settings::pipeline::{for_name, for_path};
use crate::settings::{Pipeline, Settings};
use crate::sink::ndjson::{SourcePrefix, encode};
use crate::telemetry::metrics::Metrics;
use crate::text::counted::{counted, which};

/// How much of standard input or of the file is tried.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Stands for an unknown ID.
const NO_ID: &str = "?";

/// Runs the command.
pub fn run(arguments: &TryArgs, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let settings = match cli::load(&arguments.config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    let tried = choose(arguments, &settings).and_then(|(pipeline, doubt)| {
        if let Some(doubt) = doubt {
            let _ = writeln!(err, "note: {doubt}");
        }
        let text = input(arguments)?;
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        Trial::new(&pipeline, arguments, &settings, now_ns).show(&text, out)
    });
    match tried {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let _ = writeln!(err, "error: {error:#}");
            Exit::Usage
        }
    }
}

/// The pipeline, and why it may be another than the agent would choose.
fn choose(arguments: &TryArgs, settings: &Settings) -> anyhow::Result<(Arc<Pipeline>, Option<String>)> {
    let pipelines = &settings.pipelines;
    let names = || pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!pipelines.is_empty(), "the config has no pipelines, so lines go on as they are");
    if let Some(name) = &arguments.pipeline {
        let found = pipelines.iter().find(|pipeline| pipeline.name == *name);
        return found
            .map(|found| (Arc::clone(found), None))
            .with_context(|| format!("no pipeline is called {name}; there are {}", names()));
    }
    if let Some(path) = &arguments.path {
        let found = for_path(pipelines, path).map(|found| (found, None));
        return found.with_context(|| format!("no pipeline takes the file {path}"));
    }
    if let Some(name) = &arguments.container {
        let (may_take, found) = for_name(pipelines, name);
        let may_take: Vec<&str> = may_take.iter().map(|pipeline| pipeline.name.as_str()).collect();
        let Some(found) = found else {
            let by_others = if may_take.is_empty() {
                String::new()
            } else {
                format!("; if its image or labels match, choose with --pipeline: {}", may_take.join(", "))
            };
            anyhow::bail!(
                "no pipeline takes a container of this name alone (images and labels are not known here): {name}{by_others}"
            );
        };
        let doubt = (!may_take.is_empty()).then(|| {
            format!(
                "pipeline {} is chosen by the name {name} alone; {} {} first if the container's image or labels match, which are \
                 not known here: choose with --pipeline",
                found.name,
                may_take.join(", "),
                which(may_take.len() as u64, "comes", "come")
            )
        });
        return Ok((found, doubt));
    }
    match pipelines.as_slice() {
        [only] => Ok((Arc::clone(only), None)),
        _ => anyhow::bail!("there are several pipelines: choose one with --pipeline: {}", names()),
    }
}

fn input(arguments: &TryArgs) -> anyhow::Result<Vec<u8>> {
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

/// The pipeline with all its steps, with none, and with every number in between.
struct Trial<'s> {
    name: String,
    joins: Option<Arc<Pipeline>>,
    steps: Vec<Stage>,
    /// A source without a pipeline.
    plain: Arc<Source>,
    prefix: SourcePrefix,
    /// The source that the lines are said to be from.
    from: String,
    rules: Rules,
    settings: &'s Settings,
    now_ns: i64,
}

/// What the pipeline gets: a line, or several that were joined.
struct Message {
    /// Number of its first line, from 1.
    number: usize,
    lines: usize,
    std_type: StdType,
    time: Vec<u8>,
    text: Vec<u8>,
    /// Part of it was longer than `line_bytes_max` and was cut.
    truncated: bool,
}

struct Stage {
    /// The step's kind: `parse`, and so on.
    kind: &'static str,
    source: Arc<Source>,
    prefix: SourcePrefix,
    pipelines: Pipelines,
}

impl<'s> Trial<'s> {
    fn new(pipeline: &Arc<Pipeline>, arguments: &TryArgs, settings: &'s Settings, now_ns: i64) -> Trial<'s> {
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
            from: arguments.path.clone().unwrap_or_else(|| "the input".to_owned()),
            rules: match &arguments.path {
                Some(path) => Rules::of_path(path, &settings.file_monitor),
                // Docker's output of a container with a TTY has carriage returns; others rarely print them.
                None => Rules::of_any(settings.container_monitor.tty.keep_cr),
            },
            settings,
            now_ns,
        }
    }

    /// Stops quietly if a reader closed the pipe (`| head`).
    fn show(&mut self, text: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
        let read = tried::read(text, &self.from, self.rules, self.settings, &Metrics::new(1)?);
        if let Some(why) = read.left_out {
            anyhow::bail!("{why}");
        }
        let (mut failed, mut kept) = (0, 0);
        let messages = self.messages(read.lines);
        for (index, message) in messages.iter().enumerate() {
            let first = message.number;
            let which = match message.lines {
                1 => format!("line {first}"),
                lines => format!("lines {first} to {} ({lines} lines joined)", first + lines - 1),
            };
            let _ = writeln!(out, "{which}: {}", String::from_utf8_lossy(&message.text));
            let untouched = Arc::new(batch(&self.plain, message, false, self.now_ns));
            let mut before = shown(&untouched, &self.prefix, message);
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
            // With dedup, a line that was held back may pass together with it.
            kept += if goes_on { before.lines().count() as u64 } else { 0 };
        }
        let all = messages.len();
        let _ = writeln!(
            out,
            "\npipeline {}: {}, {kept} delivered; steps failed {}",
            self.name,
            counted(all as u64, "record"),
            counted(failed, "time")
        );
        if read.skipped > 0 {
            let lines = counted(read.skipped, "line");
            let _ = writeln!(out, "skipped, because they are not records of the entry's format: {lines}");
        }
        Ok(())
    }

    /// Joins lines as the capture thread does.
    fn messages(&self, lines: Vec<TriedLine>) -> Vec<Message> {
        if self.joins.is_none() {
            let message = |line: TriedLine| Message {
                number: line.number,
                lines: 1,
                std_type: line.std_type,
                time: line.time,
                text: line.message,
                truncated: line.truncated,
            };
            return lines.into_iter().map(message).collect();
        }
        let line_bytes_max = self.settings.line_bytes_max as usize;
        let mut assembler = Assembler::new(line_bytes_max).with_pipeline(self.joins.as_ref());
        assembler.join(Join::Newline);
        let mut numbers = StdType::ALL.map(|std_type| Numbers::new(&lines, std_type));
        let (mut joined, mut messages) = (Lines::default(), Vec::new());
        let mut take = |joined: &mut Lines| {
            for record in std::mem::take(&mut joined.records) {
                let text =
                    joined.made[record.message_start as usize..][..record.message_len as usize].to_vec();
                let number = numbers[record.std_type.index()].of(&text);
                let count = text.iter().filter(|byte| **byte == b'\n').count() + 1;
                let of_it = number..number + count;
                let is_cut = |line: &TriedLine| line.truncated && of_it.contains(&line.number);
                messages.push(Message {
                    number,
                    lines: count,
                    truncated: record.truncated || lines.iter().any(is_cut),
                    std_type: record.std_type,
                    time: joined.time(&record, b"").to_vec(),
                    text,
                });
            }
            joined.made.clear();
        };
        for line in &lines {
            let bytes = [&line.time[..], &line.message].concat();
            let piece = Piece {
                text: line.time.len()..bytes.len(),
                time: 0..line.time.len(),
                form: MessageForm::Raw,
                decoded_len: line.message.len(),
                std_type: line.std_type,
                complete: true,
            };
            assembler.push(&bytes, &piece, line.number as u64, true, &mut joined);
            take(&mut joined);
        }
        assembler.close_all(&mut joined);
        take(&mut joined);
        messages
    }
}

/// Finds the line of the input with which a message begins. Messages can't be counted: joined lines are one message,
/// and empty lines behind a trace none.
struct Numbers<'t> {
    /// The lines of one channel.
    lines: Vec<&'t TriedLine>,
    /// How many lines messages have been found in so far.
    passed: usize,
}

impl<'t> Numbers<'t> {
    fn new(lines: &'t [TriedLine], std_type: StdType) -> Numbers<'t> {
        Numbers { lines: lines.iter().filter(|line| line.std_type == std_type).collect(), passed: 0 }
    }

    /// The line's number, from 1. Messages must come in order.
    fn of(&mut self, message: &[u8]) -> usize {
        let mut parts = message.split(|byte| *byte == b'\n');
        let first = parts.next().unwrap_or_default();
        // The message may have been cut.
        let begins = |line: &&TriedLine| {
            line.message.starts_with(first) && (first.is_empty() == line.message.is_empty())
        };
        let ahead = self.lines.iter().skip(self.passed).position(begins).unwrap_or(0);
        let at = self.passed + ahead;
        self.passed = at + 1 + parts.count();
        self.lines.get(at).map_or(0, |line| line.number)
    }
}

impl Stage {
    /// What the last step counted, and the records that pass it.
    fn run(&mut self, message: &Message, last: bool, now_ns: i64) -> (Tally, String) {
        let batch = Arc::new(batch(&self.source, message, last, now_ns));
        let processed = self.pipelines.process(&batch, now_ns);
        let (made, tally) = processed.map_or((None, Tally::new()), |made| (made.batch, made.tally));
        (tally, shown(made.as_ref().unwrap_or(&batch), &self.prefix, message))
    }
}

/// Records as NDJSON, without what is the same in all of them here and without the time that came with the line.
fn shown(batch: &Batch, prefix: &SourcePrefix, message: &Message) -> String {
    let mut out = Vec::new();
    encode(batch, prefix, 0, usize::MAX, &mut out);
    let mut text = String::from_utf8_lossy(&out).into_owned();
    for time in [batch.read_time.as_bytes(), &message.time] {
        let time = timestamp::in_utc(time, |time| String::from_utf8_lossy(time).into_owned());
        text = text.replace(&format!("\"time\":\"{time}\","), "");
    }
    let text = text.replace("\"stream\":\"stdout\",", "");
    text.replace(&format!("\"container_id\":\"{NO_ID}\","), "").trim_end().to_owned()
}

/// What the step did in a few words, and the record after it.
fn tell(kind: &'static str, tally: &Tally, records: &str, before: &str) -> String {
    let has = |outcome| tally.contains_key(&(kind, outcome));
    let word = if records.is_empty() && has(Outcome::Dropped) {
        return "dropped: it goes no further".to_owned();
    } else if records.is_empty() {
        return "held back until the next line (dedup)".to_owned();
    } else if has(Outcome::Failed) && !before.contains("\"failed\"") {
        "FAILED, the line is marked and passed on:"
    } else if has(Outcome::Limited) {
        "a limit applied:"
    } else if before == records {
        return "unchanged".to_owned();
    } else {
        "→"
    };
    format!("{word} {records}")
}

fn source(arguments: &TryArgs, pipeline: Arc<Pipeline>) -> Source {
    let container = arguments.container.as_ref().map(|name| {
        Box::new(ContainerMeta {
            id: NO_ID.to_owned(),
            name: name.clone(),
            image: String::new(),
            labels: BTreeMap::new(),
        })
    });
    Source {
        container,
        path: arguments.path.as_deref().map(Into::into),
        pipeline: Some(pipeline),
        ..Source::new(StreamId(1), StreamKey("try".into()))
    }
}

fn batch(source: &Arc<Source>, message: &Message, last: bool, now_ns: i64) -> Batch {
    let record = Record {
        message_start: message.time.len() as u32,
        message_len: message.text.len() as u32,
        time_start: 0,
        time_len: message.time.len() as u8,
        std_type: message.std_type,
        form: MessageForm::Raw,
        place: BufferKind::Read,
        truncated: message.truncated,
        partial: false,
        continued: false,
    };
    Batch {
        source: Arc::clone(source),
        seq: 1,
        read: [&message.time[..], &message.text].concat(),
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

    use crate::settings::file::{Outside, parse};

    fn check(pipeline: &str, input: &str, expected: &[&str]) {
        let arguments = TryArgs { container: Some("web".to_owned()), ..arguments() };
        let text = format!("pipelines: [{{name: p, {pipeline}}}]");
        found(&shown(&text, &arguments, input.as_bytes()), expected);
    }

    /// Tries lines of `/var/log/a.log`.
    fn check_file(entry: &str, steps: &str, input: &[u8], expected: &[&str]) {
        let arguments = TryArgs { path: Some("/var/log/a.log".to_owned()), ..arguments() };
        let text = format!(
            "pipelines: [{{name: p, {steps}}}]\nfile_monitor: {{files: [{{paths: [/var/log/*.log]{entry}}}]}}"
        );
        found(&shown(&text, &arguments, input), expected);
    }

    fn arguments() -> TryArgs {
        TryArgs {
            config: cli::ConfigArgs::default(),
            file: None,
            pipeline: None,
            container: None,
            path: None,
        }
    }

    fn shown(config: &str, arguments: &TryArgs, input: &[u8]) -> String {
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let settings = parse("c.yaml", config, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
        let (chosen, _) = choose(arguments, &settings).unwrap();
        let mut out = Vec::new();
        match Trial::new(&chosen, arguments, &settings, 0).show(input, &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    fn found(shown: &str, expected: &[&str]) {
        let mut rest = shown;
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not in what is left of\n{shown}"));
            rest = &rest[at + part.len()..];
        }
    }

    /// The agent knows labels and images, and took another pipeline than the one that was tried.
    #[test]
    fn a_pipeline_that_may_come_first_is_named() {
        let pipelines = "pipelines:
  - {name: paths, match: {paths: [/a]}, steps: []}
  - {name: by-label, match: {labels: {app: shop}}, steps: []}
  - {name: others, match: {names: [db], images: [mysql]}, steps: []}
  - {name: by-image, match: {names: ['web*'], images: ['nginx:*']}, steps: []}
  - {name: web, match: {names: [web]}, steps: []}
  - {name: later, match: {labels: {a: b}}, steps: []}
";
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let settings = parse("c.yaml", pipelines, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
        let of = |name: &str| choose(&TryArgs { container: Some(name.to_owned()), ..arguments() }, &settings);
        let (chosen, doubt) = of("web").unwrap();
        let doubt = doubt.unwrap();
        assert_eq!(chosen.name, "web");
        assert!(doubt.contains("; by-label, by-image come first if"), "{doubt}");
        let none = of("x").unwrap_err().to_string();
        assert!(none.ends_with("choose with --pipeline: by-label, later"), "{none}");
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
                "pipeline p: 3 records, 2 delivered; steps failed 1 time",
            ],
        );
    }

    #[test]
    fn what_was_held_back_counts_when_it_goes_on() {
        check(
            "steps: [{dedup: {window: 1m}}]",
            "a\na\na\nb\n",
            &["\"repeated\":2", "4 records, 3 delivered"],
        );
        check("steps: [{dedup: {window: 1m}}]", "a\na\na\n", &["\"repeated\":2", "3 records, 2 delivered"]);
    }

    #[test]
    fn a_line_that_is_cut_is_marked() {
        let config = |multiline: &str| {
            format!(
                "limits: {{line_bytes_max: 1KiB}}\npipelines: [{{name: p, {multiline}steps: [{{labels: {{set: {{a: b}}}}}}]}}]"
            )
        };
        let input = format!("{}\nshort\n", "x".repeat(3000));
        let arguments = TryArgs { container: Some("web".to_owned()), ..arguments() };
        for multiline in ["", "multiline: {preset: java}, "] {
            let shown = shown(&config(multiline), &arguments, input.as_bytes());
            assert_eq!(shown.matches("\"truncated\":true").count(), 1, "{shown}");
        }
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
    fn lines_are_numbered_as_they_stand_in_the_input() {
        let steps = "multiline: {preset: java}, steps: [{strip_ansi: {}}]";
        let numbers = ["line 1: a", "line 2: \n", "lines 3 to 4 (2", "line 7: c", "line 8: c", "5 records"];
        check(steps, "a\n\njava.lang.E: b\n\tat x.y(Z.java:1)\n\n\nc\nc\n", &numbers);
        check(
            "steps: [{strip_ansi: {}}]",
            "long\r\n\nnext",
            &["line 1: long\n", "line 2: \n", "line 3: next\n"],
        );
    }

    /// The agent makes the message `{"a":1}` of each of these.
    #[test]
    fn files_are_read_as_the_agent_reads_them() {
        let json = "steps: [{parse: {format: json}}]";
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let parsed = ["line 1: {\"a\":1}\n", "1. parse", "\"fields\":{\"a\":1}", "1 record, 1 delivered"];
        for (entry, bytes) in [
            ("", b"{\"a\":1}\r\n".to_vec()),
            ("", b"\xef\xbb\xbf{\"a\":1}".to_vec()),
            ("", [&b"\xff\xfe"[..], &utf16("{\"a\":1}\r\n")].concat()),
            (", encoding: utf-16le", utf16("{\"a\":1}\n")),
            ("", br#"{"log":"{\"a\":1}\n","stream":"stdout","time":"2026-11-28T10:00:00Z"}"#.to_vec()),
            ("", b"2026-11-28T10:00:00+01:00 stdout F {\"a\":1}\n".to_vec()),
            (
                ", format: cri",
                b"2026-11-28T10:00:00Z stdout P {\"a\"\n2026-11-28T10:00:00Z stdout F :1}".to_vec(),
            ),
        ] {
            let parsed = if bytes.contains(&b'P') { &parsed[1..] } else { &parsed[..] };
            check_file(entry, json, &bytes, parsed);
        }
        check_file(
            ", keep_cr: true",
            "steps: [{keep: {matches: 'x$'}}]",
            b"x\r\n",
            &["1. keep       dropped"],
        );
        let cafe = ["line 1: café\n", "line 2: b\n"];
        check_file(", encoding: windows-1252", "steps: [{strip_ansi: {}}]", b"caf\xe9\nb\n", &cafe);
        let raw = ["line 1: 2026-11-28T10:00:00Z stdout F x\n"];
        check_file(", format: raw", "steps: [{strip_ansi: {}}]", b"2026-11-28T10:00:00Z stdout F x\n", &raw);
        let skipped = ["line 2: x", "1 record, 1 delivered", "not records of the entry's format: 1 line"];
        check_file(
            ", format: cri",
            "steps: [{strip_ansi: {}}]",
            b"plain\n2026-11-28T10:00:00Z stdout F x\n",
            &skipped,
        );
        check_file("", json, b"\xff\xfe\0\0a\0\0\0", &["/var/log/a.log is UTF-32, which is not decoded"]);
    }

    /// A line on one channel does not split lines that are joined on the other.
    #[test]
    fn records_are_joined_by_channel() {
        let record = |channel: &str, text: &str| format!("2026-11-28T10:00:00Z {channel} F {text}\n");
        let input = [
            record("stderr", "java.lang.E: b"),
            record("stdout", "between"),
            record("stderr", "\tat x.y(Z.java:1)"),
            record("stdout", "next"),
        ];
        let joined =
            ["line 2: between", "lines 1 to 2 (2 lines joined): java.lang.E: b\n\tat x.y", "line 4: next"];
        let steps = "multiline: {preset: java}, steps: [{strip_ansi: {}}]";
        let shown = |part: &str| check_file("", steps, input.concat().as_bytes(), &[part]);
        joined.into_iter().for_each(shown);
        let time = "\"time\":\"2026-11-27T00:00:00.000000000Z\",\"stream\":\"stderr\"";
        let steps = "steps: [{parse: {format: logfmt}}, {timestamp: {field: t, format: rfc3339}}]";
        let line = record("stderr", "t=2026-11-27T00:00:00Z");
        check_file("", steps, line.as_bytes(), &["→ {\"stream\":\"stderr\"", "2. timestamp", time]);
    }

    #[test]
    fn what_steps_keep_goes_from_line_to_line() {
        let expected = ["line 1", "unchanged", "line 2", "dropped", "line 3", "unchanged", "2 delivered"];
        check("steps: [{sample: {keep_one_in: 2}}]", "a\nb\nc\n", &expected);
    }
}
