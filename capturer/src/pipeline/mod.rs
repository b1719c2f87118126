//! Runs the steps of a pipeline over batches, between capture and a sink.
//!
//! ```text
//! batch ─▶ rate_limit (drop) ─▶ steps, line by line ─▶ Processed: a batch of what goes on, and what was counted
//!            (behind the last     │
//!             timestamp step)     │
//!                                 │ dropped              └ None: nothing was changed, the batch goes on as it is
//!                                 └ held back (dedup) ─▶ in front of the batch that ends the run, or in the last one
//! ```
//! Lines keep their order. A line that a step can't process passes, marked. A line that no step changes is not copied.
//! Times are those of the records, so the same lines give the same output in every run; only the bounds of `timestamp`
//! depend on the present.
//!
//! Each sink has its own [`Pipelines`] and so its own state: rate limits, counters, label values and the line that
//! dedup holds. State is bounded, belongs to a stream, and ends with it.
//!
//! Not here: multiline and a `rate_limit` that waits (capture/stream/), which hold lines before they are in a batch.

mod access;
mod ansi;
mod cards;
mod colours;
mod dedup;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod labels;
mod line;
mod lines;
mod parse;
mod rate;
mod redact;
mod secrets;
mod time;
mod tokens;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use dedup::{Dedup, Repeat};
use labels::LabelValues;
use line::{Line, Made};
use parse::{Found, NotThis, parse};
use rate::RateFilter;

use crate::decode::timestamp;
use crate::limits::MATCHED_BYTES_MAX;
use crate::model::fields::{Failed, Fields, Value};
use crate::model::outcome::{Outcome, RATE_LIMIT, Tally};
use crate::model::record::{Batch, Record, Source, StreamId};
use crate::settings::Pipeline;
use crate::settings::pipeline::{
    Condition, LEVEL, Otherwise, Over, Parse, ParseFormat, RateLimit, Redact, Step, Timestamp,
};

/// What the steps made of a batch.
#[derive(Debug)]
pub struct Processed {
    /// What passes; `None` = the whole batch, unchanged.
    pub batch: Option<Batch>,
    /// What was counted.
    pub tally: Tally,
}

/// The state of all pipelines of one sink.
#[derive(Debug, Default)]
pub struct Pipelines {
    streams: BTreeMap<StreamId, StreamState>,
}

impl Pipelines {
    /// Runs a batch through its source's pipeline; `None` = it has none. Call it once for each batch, in order.
    pub fn process(&mut self, batch: &Arc<Batch>, now_unix_ns: i64) -> Option<Processed> {
        let pipeline = batch.source.pipeline.as_ref()?;
        let state = self.streams.entry(batch.source.id).or_insert_with(|| StreamState::new(pipeline));
        if !Arc::ptr_eq(&state.pipeline, pipeline) {
            // The source was renamed and has another pipeline now.
            *state = StreamState::new(pipeline);
        }
        Some(state.process(batch, now_unix_ns))
    }

    /// The stream sends no more batches. Drops lines that are still held back because it had no last batch; the tally
    /// counts them.
    pub fn detach(&mut self, stream: StreamId) -> Option<(Arc<Pipeline>, Tally)> {
        let state = self.streams.remove(&stream)?;
        let held = state.steps.iter().map(StepState::held).sum();
        let mut tally = Tally::new();
        if held > 0 {
            tally.insert(("dedup", Outcome::Dropped), held);
        }
        Some((state.pipeline, tally))
    }
}

/// The state of the steps for one stream.
#[derive(Debug)]
struct StreamState {
    pipeline: Arc<Pipeline>,
    rate_filter: Option<(RateLimit, RateFilter)>,
    /// How many steps come before the rate limit: it goes by the lines' times, which these steps set.
    limit_behind: usize,
    steps: Vec<StepState>,
    /// Whether a step reads messages.
    reads_text: bool,
}

/// State of the step with the same index.
#[derive(Debug)]
enum StepState {
    None,
    /// How many lines the step has seen.
    Sample(u64),
    Labels(LabelValues),
    Dedup(Box<Dedup>),
}

impl StepState {
    fn new(step: &Step, pipeline: &Pipeline) -> StepState {
        match step.inner() {
            Step::Sample { .. } => StepState::Sample(0),
            Step::Labels(_) => StepState::Labels(LabelValues::default()),
            Step::Dedup { .. } => StepState::Dedup(Box::new(Dedup::new(pipeline))),
            _ => StepState::None,
        }
    }

    /// Lines that are held back and not counted yet.
    fn held(&self) -> u64 {
        if let StepState::Dedup(dedup) = self { dedup.held() } else { 0 }
    }
}

/// What all lines of a batch have in common.
struct BatchContext<'a> {
    source: &'a Source,
    now_ns: i64,
    tally: Tally,
}

impl BatchContext<'_> {
    fn count(&mut self, step: &'static str, outcome: Outcome) {
        *self.tally.entry((step, outcome)).or_default() += 1;
    }
}

/// Whether a line goes on to the next step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StepFlow {
    GoesOn,
    Dropped,
    /// The step holds the line, and counts it itself.
    Held,
}

impl StreamState {
    fn new(pipeline: &Arc<Pipeline>) -> StreamState {
        let limit = pipeline.rate_limit.filter(|limit| limit.over == Over::Drop);
        let reads = |step: &Step| match step.inner() {
            Step::Parse(parse) => parse.from.is_none(),
            Step::Keep(condition) | Step::Drop(condition) => condition.field.is_none(),
            Step::Redact(_) | Step::Dedup { .. } | Step::StripAnsi | Step::Terminal => true,
            Step::Timestamp(_) | Step::Sample { .. } | Step::Labels(_) => false,
            Step::Rename(_) | Step::Remove(_) | Step::When(..) => false,
        };
        let asks = |step: &Step| matches!(step, Step::When(condition, _) if condition.field.is_none());
        let sets_time = |step: &Step| limit.is_some() && step.sets_time();
        StreamState {
            limit_behind: pipeline.steps.iter().rposition(sets_time).map_or(0, |last| last + 1),
            rate_filter: limit.map(|limit| (limit, RateFilter::default())),
            steps: pipeline.steps.iter().map(|step| StepState::new(step, pipeline)).collect(),
            reads_text: pipeline.steps.iter().any(|step| reads(step) || asks(step)),
            pipeline: Arc::clone(pipeline),
        }
    }

    fn process(&mut self, batch: &Arc<Batch>, now_ns: i64) -> Processed {
        let mut around = BatchContext { source: &batch.source, now_ns, tally: Tally::new() };
        let mut made = Made::new(batch);
        let mut scratch = Vec::new();
        for record in &batch.records {
            // Before any work on a line that the limit drops.
            if self.limit_behind == 0 && !self.has_room(|| line::time_ns(batch, record), record) {
                around.count(RATE_LIMIT, Outcome::Dropped);
                made.leave_out();
                continue;
            }
            let mut line = Line::new(batch, record, self.reads_text, &mut scratch);
            match self.run(&mut line, &mut made, &mut around) {
                StepFlow::GoesOn => made.push(record, line),
                StepFlow::Dropped | StepFlow::Held => made.leave_out(),
            }
        }
        if batch.last {
            for state in &mut self.steps {
                if let StepState::Dedup(dedup) = state {
                    dedup.end().for_each(|kept| made.push_held(kept));
                }
            }
        }
        Processed { batch: made.into_batch(batch), tally: around.tally }
    }

    /// Whether the rate limit lets a line pass; if so, takes its room.
    fn has_room(&mut self, time_ns: impl FnOnce() -> i64, record: &Record) -> bool {
        self.rate_filter
            .as_mut()
            .is_none_or(|(limit, filter)| filter.takes(*limit, time_ns(), record.message_len))
    }

    fn run(&mut self, line: &mut Line, made: &mut Made, around: &mut BatchContext) -> StepFlow {
        let (before, behind) = (0..self.limit_behind, self.limit_behind..self.steps.len());
        if before.is_empty() {
            return self.run_steps(behind, line, made, around);
        }
        let flow = self.run_steps(before, line, made, around);
        if flow != StepFlow::GoesOn {
            return flow;
        }
        if !self.has_room(|| line.time_ns(), line.record) {
            around.count(RATE_LIMIT, Outcome::Dropped);
            return StepFlow::Dropped;
        }
        self.run_steps(behind, line, made, around)
    }

    fn run_steps(
        &mut self,
        which: Range<usize>,
        line: &mut Line,
        made: &mut Made,
        around: &mut BatchContext,
    ) -> StepFlow {
        let pipeline = Arc::clone(&self.pipeline);
        for (step, state) in pipeline.steps[which.clone()].iter().zip(&mut self.steps[which]) {
            if let Step::When(condition, _) = step
                && !meets(condition, line)
            {
                continue;
            }
            let step = step.inner();
            let flow = match (step, state) {
                (Step::Parse(settings), _) => parse_step(settings, line, around),
                (Step::Timestamp(settings), _) => timestamp_step(settings, line, around),
                (Step::Keep(condition), _) => keep_step(condition, line),
                (Step::Drop(condition), _) if meets(condition, line) => StepFlow::Dropped,
                (Step::Sample { keep_one_in }, StepState::Sample(count)) => {
                    let first = *count % keep_one_in == 0;
                    *count += 1;
                    if first { StepFlow::GoesOn } else { StepFlow::Dropped }
                }
                (Step::Redact(rules), _) => redact_step(rules, line, around),
                (Step::StripAnsi, _) => set_if_changed(ansi::stripped(line.text()), line, around),
                (Step::Terminal, _) => set_if_changed(ansi::shown(line.text()), line, around),
                (Step::Rename(names), _) => rename_step(names, line, around),
                (Step::Remove(names), _) => remove_step(names, line, around),
                (Step::Labels(settings), StepState::Labels(values)) => {
                    let told = values.apply(settings, around.source, line);
                    if told.limited {
                        around.count("labels", Outcome::Limited);
                    }
                    if told.changed {
                        around.count("labels", Outcome::Changed);
                    }
                    StepFlow::GoesOn
                }
                (Step::Dedup { window }, StepState::Dedup(dedup)) => match dedup.next(*window, line) {
                    Repeat::Held { and_dropped } => {
                        if and_dropped {
                            around.count("dedup", Outcome::Dropped);
                        }
                        StepFlow::Held
                    }
                    Repeat::First { before } => {
                        if let Some(before) = before {
                            made.push_held(before);
                        }
                        StepFlow::GoesOn
                    }
                },
                _ => StepFlow::GoesOn,
            };
            match flow {
                StepFlow::GoesOn => {}
                StepFlow::Dropped => {
                    around.count(step.kind(), Outcome::Dropped);
                    return flow;
                }
                StepFlow::Held => return flow,
            }
        }
        StepFlow::GoesOn
    }
}

/// The part of a text that patterns search.
fn beginning(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MATCHED_BYTES_MAX)]
}

fn meets(condition: &Condition, line: &Line) -> bool {
    let found =
        |text: &[u8]| condition.matches.as_ref().is_none_or(|pattern| pattern.is_match(beginning(text)));
    match &condition.field {
        None => found(line.text()),
        Some(name) => line.extra.fields.get(name).is_some_and(|value| found(value.as_str().as_bytes())),
    }
}

/// A line that lacks the field because it could not be parsed is kept, so that nothing is dropped for not being
/// understood. So is a line whose level must match but is unknown. A condition that only asks whether there is a level
/// decides as it says.
fn keep_step(condition: &Condition, line: &Line) -> StepFlow {
    let not_understood = condition.field.as_ref().is_some_and(|name| {
        let is_level = condition.is_of_level && condition.matches.is_some();
        (is_level && line.level_unknown)
            || (line.extra.failed.has(Failed::PARSE) && line.extra.fields.get(name).is_none())
    });
    if not_understood || meets(condition, line) { StepFlow::GoesOn } else { StepFlow::Dropped }
}

/// Remembers of a step that looked for a level whether it is known now, and forgets it once another step sets one.
fn note_level(settings: &Parse, found: &Fields, line: &mut Line) {
    if found.get(LEVEL).is_some() {
        line.level_unknown = false;
    } else if settings.format == ParseFormat::Level {
        // The text that the step could not read may be in that very field.
        line.level_unknown =
            settings.from.as_deref() == Some(LEVEL) || line.extra.fields.get(LEVEL).is_none();
    }
}

fn parse_step(settings: &Parse, line: &mut Line, around: &mut BatchContext) -> StepFlow {
    let mut found = Found::new(settings.message.as_deref());
    let result = match &settings.from {
        None => parse_text(&settings.format, line.text(), &mut found),
        Some(name) => match line.extra.fields.get(name) {
            Some(value) if settings.format == ParseFormat::Level => {
                parse::level_of_value(value.as_str(), &mut found);
                Ok(())
            }
            Some(value) => parse_text(&settings.format, value.as_str().as_bytes(), &mut found),
            // Not every line has the field.
            None => {
                note_level(settings, &found.fields, line);
                return StepFlow::GoesOn;
            }
        },
    };
    if result.is_err() {
        line.extra.failed.add(Failed::PARSE);
        around.count("parse", Outcome::Failed);
        return StepFlow::GoesOn;
    }
    if found.mended {
        around.count("parse", Outcome::Mended);
    }
    let mut limited = found.limited;
    let changed = !found.fields.is_empty() || found.message.is_some();
    note_level(settings, &found.fields, line);
    if line.extra.fields.is_empty() {
        line.extra.fields = found.fields;
    } else {
        for (name, value) in found.fields.iter() {
            limited |= !line.extra.fields.set(name, value);
        }
    }
    if let Some(message) = found.message {
        line.set_text(message);
    }
    if changed {
        around.count("parse", Outcome::Changed);
    }
    if limited {
        around.count("parse", Outcome::Limited);
    }
    StepFlow::GoesOn
}

fn set_if_changed(text: Option<Vec<u8>>, line: &mut Line, around: &mut BatchContext) -> StepFlow {
    if let Some(text) = text {
        line.set_text(text);
        around.count("strip_ansi", Outcome::Changed);
    }
    StepFlow::GoesOn
}

/// All at once, because a field may get the name that another one had. If two would get the same name, none is renamed:
/// one of them would be lost.
fn rename_step(names: &BTreeMap<String, String>, line: &mut Line, around: &mut BatchContext) -> StepFlow {
    let fields = &mut line.extra.fields;
    let is_there = |name: &str| fields.get(name).is_some();
    let is_taken = |(from, to): (&String, &String)| {
        let rival = |(other, name): (&String, &String)| name == to && other != from && is_there(other);
        let stays = is_there(to) && names.get(to).is_none_or(|name| name == to);
        from != to && is_there(from) && (stays || names.iter().any(rival))
    };
    if names.iter().any(is_taken) {
        line.extra.failed.add(Failed::RENAME);
        around.count("rename", Outcome::Failed);
        return StepFlow::GoesOn;
    }
    let (mut renamed, mut limited) = (Fields::default(), false);
    for (from, _) in names.iter().filter(|(from, to)| from != to) {
        if let Some(value) = fields.get(from) {
            limited |= !renamed.set(from, value);
            fields.remove(from);
        }
    }
    for (from, value) in renamed.iter() {
        limited |= names.get(from).is_some_and(|to| !fields.set(to, value));
    }
    if !renamed.is_empty() {
        around.count("rename", Outcome::Changed);
    }
    if limited {
        around.count("rename", Outcome::Limited);
    }
    StepFlow::GoesOn
}

fn remove_step(names: &[String], line: &mut Line, around: &mut BatchContext) -> StepFlow {
    let mut changed = false;
    for name in names {
        changed |= line.extra.fields.get(name).is_some();
        line.extra.fields.remove(name);
    }
    if changed {
        around.count("remove", Outcome::Changed);
    }
    StepFlow::GoesOn
}

/// Formats that only have a head to parse are parsed at any length, the others up to a bound.
fn parse_text(format: &ParseFormat, text: &[u8], found: &mut Found) -> Result<(), NotThis> {
    let by_head = matches!(format, ParseFormat::Cri | ParseFormat::Syslog | ParseFormat::Level);
    if !by_head && text.len() > MATCHED_BYTES_MAX {
        return Err(NotThis);
    }
    parse(format, text, found)
}

fn timestamp_step(settings: &Timestamp, line: &mut Line, around: &mut BatchContext) -> StepFlow {
    let value = line.extra.fields.get(&settings.field);
    let Some(time) = value.and_then(|value| time::parse(settings, value.as_str(), around.now_ns)) else {
        // A line without fields, because it could not be parsed, has been counted before.
        if value.is_some() || !line.extra.failed.has(Failed::PARSE) {
            line.extra.failed.add(Failed::TIMESTAMP);
            around.count("timestamp", Outcome::Failed);
        }
        return StepFlow::GoesOn;
    };
    let bound = |length: std::time::Duration| i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
    let (too_old, future) = (bound(settings.too_old), bound(settings.future));
    let earliest = if too_old == 0 { 0 } else { around.now_ns.saturating_sub(too_old).max(0) };
    let latest = if future == 0 { i64::MAX } else { around.now_ns.saturating_add(future) };
    let within = time.clamp(earliest, latest.max(earliest));
    if within == time {
        line.set_time(time);
        around.count("timestamp", Outcome::Changed);
        return StepFlow::GoesOn;
    }
    if settings.otherwise == Otherwise::Reject {
        return StepFlow::Dropped;
    }
    around.count("timestamp", Outcome::Limited);
    if settings.otherwise == Otherwise::Clamp {
        line.set_time(within);
    }
    StepFlow::GoesOn
}

fn redact_step(rules: &Redact, line: &mut Line, around: &mut BatchContext) -> StepFlow {
    let (mut changed, mut limited) = (false, false);
    let mut clean = |name: &str, text: &str| {
        if redact::is_secret_field(rules, name) {
            return (text != redact::redacted()).then(redact::redacted);
        }
        let (text, done) = redact::redact(rules, text.as_bytes());
        limited |= done.limited;
        done.changed.then(|| String::from_utf8_lossy(&text).into_owned())
    };
    changed |= line.extra.fields.replace(&mut clean);
    if let Some(labels) = &line.extra.labels {
        let cleaned: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(name, value)| clean(name, value).map(|value| (name.clone(), value)))
            .collect();
        if !cleaned.is_empty() {
            changed = true;
            let mut labels = (**labels).clone();
            labels.extend(cleaned);
            line.extra.labels = Some(Arc::new(labels));
        }
    }
    let (text, done) = redact::redact(rules, line.text());
    let text = done.changed.then(|| text.into_owned());
    limited |= done.limited;
    if let Some(text) = text {
        line.set_text(text);
        changed = true;
    }
    if changed {
        around.count("redact", Outcome::Changed);
    }
    if limited {
        around.count("redact", Outcome::Limited);
    }
    StepFlow::GoesOn
}

/// A field's value as text, for labels.
fn label_of(line: &Line, field: &str) -> Option<String> {
    line.extra.fields.get(field).map(|value: Value| value.as_str().to_owned())
}

/// A record's time in its new form.
fn written(time_ns: i64) -> String {
    timestamp::format(time_ns)
}

/// The record of a message that the pipeline made.
fn changed_record(record: &Record) -> Record {
    Record { place: crate::model::record::BufferKind::Changed, ..*record }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
