//! Streams: one for each captured container and followed path.
//!
//! [`state`] is the life of a stream as a table. [`Stream`] holds its state, and turns what its source reports into
//! changes of state and batches. There are two kinds of source: [`file::FileSource`] (a chain of files, [`chain`]) and
//! [`api::ApiSource`] (the Engine's log endpoint). Nothing here waits, reads a clock or touches the kernel.

pub(crate) mod api;
pub(crate) mod chain;
mod delivered;
pub(crate) mod file;
mod groups;
mod rate_limiter;
mod retrying;
pub(crate) mod rotation_guard;
mod seen;
pub(crate) mod state;
mod tally;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, ConnId, FileError, RequestError};
use crate::decode::assemble::Lines;
use crate::decode::timestamp;
use crate::limits::{READ_BYTES, STREAM_BATCHES_MAX};
use crate::model::cause::Cause;
use crate::model::cursor::{ApiCursor, Cursor, FileId};
use crate::model::rare::{Begins, Rare};
use crate::model::record::{Batch, Source};
use crate::settings::FileFormat;
use crate::telemetry::metrics::StreamError;
use crate::telemetry::metrics::furthest::Read;
use crate::telemetry::row_words::PLANNED;

use chain::Start;
use file::FileSource;
use rate_limiter::RateLimiter;
pub use state::{Change, State};
use tally::Tally;

/// Where a stream's lines come from.
#[derive(Debug)]
pub enum Kind {
    /// Files on disk.
    File(Box<file::FileSource>),
    /// The Engine's API.
    Api(Box<api::ApiSource>),
}

/// Why a source failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// The whole reason, for the log and for `/api/v1/streams`.
    pub text: String,
    /// In few, where there are some.
    pub short: Option<Cause>,
}

impl Begins for Why {
    const BEGINNING: &'static Why = &Why { text: String::new(), short: None };
}

impl From<String> for Why {
    fn from(text: String) -> Why {
        Why { text, short: None }
    }
}

impl From<&RequestError> for Why {
    fn from(error: &RequestError) -> Why {
        Why { text: error.to_string(), short: error.cause() }
    }
}

impl From<&FileError> for Why {
    fn from(error: &FileError) -> Why {
        let short = match error {
            FileError::Denied(path) => Some(Cause::NoPermission(path.clone())),
            _ => None,
        };
        Why { text: error.to_string(), short }
    }
}

/// What a source tells its stream.
#[derive(Debug)]
// Nearly all events are lines, one event per batch.
#[allow(clippy::large_enum_variant)]
pub enum SourceEvent {
    /// It is open and delivers.
    Opened,
    /// It failed; try again after a back-off.
    Failed(StreamError, Why),
    /// Its files can't be read at all: not here, or no right.
    Unreadable(Why),
    /// There is nothing more for now.
    Ended {
        /// Why it ended.
        cause: String,
        /// The container is believed to run: look again after a pause. If false, wait until it runs.
        again: bool,
    },
    /// A planned reconnect begins.
    Rotating,
    /// Everything there was is read. The container is quiet and others wait for slots: it will be polled again.
    Polled {
        /// Milliseconds on the monotonic clock.
        again_at_ms: u64,
    },
    /// Lines to deliver.
    Lines {
        lines: Lines,
        /// The buffer they point into.
        read: Vec<u8>,
        /// Where to resume behind them.
        end: Cursor,
        /// Bytes of the source they account for.
        source_bytes: u64,
    },
    /// The API may skip what comes next: continue from the files.
    ToFiles {
        /// Where they are.
        place: rotation_guard::LogPlace,
        /// What was delivered.
        from: ApiCursor,
        /// The live file that had the last of it, if known.
        delivered_from: Option<FileId>,
    },
    /// The source is gone, and nothing is left to read.
    Drained,
}

/// There is one for each followed file (file.rs), so what few need is boxed.
const _: () = assert!(size_of::<Stream>() <= 304);

/// A captured source and the state of its life.
#[derive(Debug)]
pub struct Stream {
    /// The facts of the source.
    pub source: Arc<Source>,
    /// Where its lines come from.
    pub kind: Kind,
    /// Why its lines come from there.
    pub kind_reason: Arc<str>,
    state: State,
    state_since_ms: u64,
    cause: Arc<str>,
    /// When the container last exited, as far as is known.
    exited_at_ns: Option<i64>,
    running: bool,
    /// When it is tried again: opened in [`State::Waiting`], read on in [`State::Draining`].
    retry_at_ms: Option<u64>,
    failures: u32,
    /// Failures in a row that are caused by the stream and not by the daemon, without a line between them.
    own_failures: usize,
    /// Clean ends in a row while its container ran, without a line between them.
    ends_in_a_row: u32,
    /// It waits because it is quiet and others want slots.
    polled: bool,
    last_error: Rare<Why>,
    /// Of its file.
    rights: retrying::Rights,
    /// Number of the last batch sent.
    seq: u64,
    /// Batches not yet acknowledged by all sinks.
    batches_out: usize,
    tally: Tally,
    acked: Cursor,
    /// The source is gone and drained; only acknowledgements are missing.
    drained: bool,
    /// Its last batch was sent: see [`Stream::send_last`].
    last_sent: bool,
    /// The source went away before its outputs were ready: it drains once they are.
    gone_early: bool,
    /// The agent is stopping: nothing new is read.
    stopped: bool,
    /// Its new output is being prepared: batches wait.
    preparing: bool,
    /// Its output takes nothing: it reads no further meanwhile.
    held: bool,
    /// Batches of a read that was under way meanwhile.
    waiting: Rare<Vec<WaitingBatch>>,
    /// Unacknowledged batches, oldest first.
    sent: VecDeque<Sent>,
    /// The source to use if the files can't be read (`read_from: auto`).
    fallback: Option<Box<api::ApiSource>>,
    /// Applies the pipeline's rate limit to reading.
    rate_limiter: Option<Box<RateLimiter>>,
    /// More than the rate limit allows was read: nothing is read before this time.
    limited_until_ms: Option<u64>,
}

/// A batch that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at_ms: u64,
    source_bytes: u64,
}

/// A batch that waits for its output.
#[derive(Debug)]
struct WaitingBatch {
    lines: Lines,
    read: Vec<u8>,
    end: Cursor,
    source_bytes: u64,
}

/// A batch of at most this many bytes is copied out of its read buffer.
const SMALL_BATCH_BYTES: usize = READ_BYTES / 16;
/// A stream that has delivered for this long is healthy again.
const WELL_AFTER_MS: u64 = 10_000;

impl Stream {
    /// A new stream in [`State::Found`], which begins when [`Stream::begin`] says so.
    pub fn new(
        source: Arc<Source>,
        kind: Kind,
        kind_reason: Arc<str>,
        acked: Cursor,
        cx: &mut Context<'_>,
    ) -> Stream {
        let rate_limiter = source
            .pipeline
            .as_ref()
            .and_then(|pipeline| RateLimiter::of(pipeline, cx.now.mono_ms))
            .map(Box::new);
        let mut stream = Stream {
            source,
            kind,
            kind_reason,
            state: State::Found,
            state_since_ms: cx.now.mono_ms,
            cause: cx.texts.share("its outputs are being prepared"),
            exited_at_ns: None,
            running: false,
            retry_at_ms: None,
            failures: 0,
            own_failures: 0,
            ends_in_a_row: 0,
            polled: false,
            last_error: Rare::default(),
            rights: retrying::Rights::default(),
            seq: 0,
            batches_out: 0,
            tally: Tally::default(),
            acked,
            drained: false,
            last_sent: false,
            gone_early: false,
            stopped: false,
            preparing: false,
            held: false,
            waiting: Rare::default(),
            sent: VecDeque::new(),
            fallback: None,
            rate_limiter,
            limited_until_ms: None,
        };
        if let Kind::File(file) = &mut stream.kind {
            file.open(cx);
        }
        stream
    }

    /// Reads over the API if the files turn out to be unreadable.
    pub fn with_fallback(mut self, api: api::ApiSource) -> Stream {
        self.fallback = Some(Box::new(api));
        self
    }

    /// The state of the stream's life.
    pub fn state(&self) -> State {
        self.state
    }

    fn may_read(&self) -> bool {
        let reads = match self.state {
            State::Following => true,
            State::Draining => self.retry_at_ms.is_none(),
            State::Found | State::Opening | State::Waiting | State::Closed => false,
        };
        let held = match &self.kind {
            Kind::File(_) => 0,
            Kind::Api(api) => api.batches_held(),
        };
        let ready = !self.stopped && !self.preparing && !self.held && self.limited_until_ms.is_none();
        reads && ready && self.batches_out + held < STREAM_BATCHES_MAX
    }

    /// Whether it would read on at once if there were room for buffers.
    pub fn is_hungry(&self) -> bool {
        self.may_read()
            && match &self.kind {
                Kind::File(file) => file.is_hungry(),
                Kind::Api(api) => api.is_hungry(),
            }
    }

    /// A new name or other facts: `source` applies to batches from now on, which are held back until
    /// [`Stream::release`], because its output must be prepared and known to a checkpoint first.
    pub fn replace_source(&mut self, source: Arc<Source>) {
        self.source = source;
        self.preparing = true;
    }

    /// Batches may be sent again.
    pub fn release(&mut self, cx: &mut Context<'_>) {
        self.preparing = false;
        for WaitingBatch { lines, read, end, source_bytes } in self.waiting.take() {
            self.send(lines, read, end, source_bytes, cx);
        }
        self.pump(cx);
        self.close_if_drained(cx);
    }

    /// The agent is stopping: reads nothing new, and closes what is open.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        self.stopped = true;
        self.retry_at_ms = None;
        self.with_source(cx, |kind, cx, told| match kind {
            Kind::File(file) => file.end_all_groups(told),
            Kind::Api(api) => api.stop(cx, told),
        });
    }

    /// Whether neither an operation nor a batch of it is under way.
    pub fn is_at_rest(&self) -> bool {
        self.batches_out == 0 && self.reads_nothing()
    }

    /// Whether no operation of it is under way.
    pub fn reads_nothing(&self) -> bool {
        match &self.kind {
            Kind::File(file) => file.is_at_rest(),
            Kind::Api(api) => api.is_at_rest(),
        }
    }

    /// Its output takes nothing, or takes records again.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The position it begins with, for its first checkpoint, if known.
    pub fn initial_cursor(&mut self) -> Option<Cursor> {
        match &mut self.kind {
            Kind::File(file) => file.first_position(),
            Kind::Api(api) => Some(api.cursor()),
        }
    }

    /// A file operation has taken longer than it should.
    pub fn on_hung(&mut self, place: &str, operation: &str, cx: &mut Context<'_>) {
        let Kind::File(file) = &mut self.kind else { return };
        if file.on_hung(place, operation, cx) {
            let container = self.source.container.as_ref().map_or("", |container| container.name.as_str());
            let path = file.path();
            tracing::warn!(
                stream = %self.source.key.0, container, path,
                "set aside: {place} does not answer ({operation}); reading resumes from the saved position when it answers"
            );
        }
    }

    /// The read that hangs, in words.
    pub fn hung_read(&self) -> Option<String> {
        let Kind::File(file) = &self.kind else { return None };
        file.hung_read()
            .map(|place| format!("{} (a read of {} on {place} hangs)", self.source.key.0, file.path()))
    }

    /// The connection it waits for.
    pub fn conn(&self) -> Option<ConnId> {
        match &self.kind {
            Kind::File(_) => None,
            Kind::Api(api) => api.conn(),
        }
    }

    /// Known unread bytes, and how many of them are in deleted files that are held open.
    pub fn unread_bytes(&self) -> (u64, u64) {
        match &self.kind {
            Kind::File(file) => file.unread_bytes(),
            Kind::Api(_) => (0, 0),
        }
    }

    /// The acknowledged position.
    pub fn acked(&self) -> &Cursor {
        &self.acked
    }

    /// Whether its container runs or has run.
    pub fn has_run(&self) -> bool {
        self.running || self.exited_at_ns.is_some()
    }

    /// Whether its container runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether it delivered lines in this run.
    pub fn has_lines(&self) -> bool {
        self.tally.has_lines()
    }

    /// Whether it reads no more because of what comes behind it: sinks that have not taken what was read, an output
    /// that takes nothing, a rate limit, outputs that are being prepared, or a stop.
    pub fn waits_for_sinks(&self) -> bool {
        let paused = self.stopped || self.preparing || self.held || self.limited_until_ms.is_some();
        paused || self.state == State::Found || self.batches_out >= STREAM_BATCHES_MAX
    }

    /// When the oldest unacknowledged batch was sent.
    pub fn oldest_sent_ms(&self) -> Option<u64> {
        self.sent.front().map(|sent| sent.at_ms)
    }

    /// Every sink has prepared the output, and a checkpoint knows it.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        if self.state != State::Found {
            return;
        }
        self.change(Change::Begin, "outputs are ready", cx);
        self.with_source(cx, |kind, cx, told| match kind {
            Kind::File(file) => file.begin(cx, told),
            Kind::Api(api) => api.open(cx, told),
        });
        if std::mem::take(&mut self.gone_early) {
            self.gone("it was removed", cx);
        }
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        self.with_source(cx, |kind, cx, told| match kind {
            Kind::File(file) => file.open(cx),
            Kind::Api(api) => api.open(cx, told),
        });
    }

    /// The source is gone (container removed, path vanished): the rest is read, then the stream closes.
    pub fn gone(&mut self, cause: &str, cx: &mut Context<'_>) {
        if self.state == State::Found {
            self.gone_early = true;
        }
        if matches!(self.state, State::Found | State::Draining | State::Closed) {
            return;
        }
        self.change(Change::Gone, cause, cx);
        self.with_source(cx, |kind, cx, told| match kind {
            Kind::File(file) => file.gone(cx, told),
            Kind::Api(api) => api.gone(cx, told),
        });
        self.close_if_drained(cx);
    }

    /// The config now leaves it out: as [`Stream::gone`], but its container may still print.
    pub fn leave(&mut self, cause: &str, cx: &mut Context<'_>) {
        self.gone(cause, cx);
        self.with_source(cx, |kind, cx, _| {
            if let Kind::Api(api) = kind {
                api.leave(cx);
            }
        });
    }

    /// The container has started or stopped; with when it last exited, if it ever did.
    pub fn set_running(&mut self, running: bool, exited_at_ns: Option<i64>, cx: &mut Context<'_>) {
        // It may have run and exited between two looks: then nothing runs, but there is something new to read.
        self.running = running;
        let ran = std::mem::replace(&mut self.exited_at_ns, exited_at_ns) != exited_at_ns;
        let may_restart = self.retry_at_ms.is_none() || (self.polled && ran);
        let restart = (running || ran) && self.state == State::Waiting && may_restart;
        self.with_source(cx, |kind, cx, told| match kind {
            Kind::File(file) => file.set_exited(exited_at_ns, cx, told),
            Kind::Api(api) => api.set_running(running, exited_at_ns),
        });
        if restart {
            self.retry(if running { "the container runs" } else { "the container ran" }, cx);
        }
    }

    /// Where its json-file log is, if it has one.
    pub fn set_files(&mut self, place: Option<rotation_guard::LogPlace>, cx: &mut Context<'_>) {
        if let (Kind::Api(api), Some(place), None) = (&mut self.kind, place, &self.fallback) {
            api.set_files(place, cx);
        }
    }

    /// All sinks have acknowledged the oldest batch; `acked` is the position that is safe now.
    pub fn on_acked(&mut self, acked: &Cursor, cx: &mut Context<'_>) {
        self.batches_out -= 1;
        self.sent.pop_front();
        if self.sent.is_empty() {
            // Most streams are quiet, and an empty queue would keep room for four.
            self.sent = VecDeque::new();
        }
        self.acked.clone_from(acked);
        let done = self.acked.take_done();
        if let Kind::File(file) = &mut self.kind {
            file.on_acked(done, cx);
        }
        self.pump(cx);
        self.close_if_drained(cx);
    }

    /// Tries to read on, if it wants to and there is room.
    pub fn pump(&mut self, cx: &mut Context<'_>) {
        self.with_source(cx, |_, _, _| {});
    }

    /// Runs `handler` on the source, then lets the source read on if there is room, then acts on what it reported.
    pub fn with_source(
        &mut self,
        cx: &mut Context<'_>,
        handler: impl FnOnce(&mut Kind, &mut Context<'_>, &mut Vec<SourceEvent>),
    ) {
        let mut told = Vec::new();
        handler(&mut self.kind, cx, &mut told);
        self.act_on(told, cx);
        let mut told = Vec::new();
        let may_read = self.may_read();
        match &mut self.kind {
            Kind::File(file) if may_read => {
                file.tell_position(&mut told);
                file.read_on(cx);
            }
            Kind::Api(api) if may_read => api.read_on(cx, &mut told),
            _ => {}
        }
        self.act_on(told, cx);
        if self.stopped && self.is_at_rest() {
            self.send_last(cx);
        }
    }

    fn act_on(&mut self, told: Vec<SourceEvent>, cx: &mut Context<'_>) {
        for told in told {
            match told {
                SourceEvent::Opened => {
                    if self.state == State::Opening {
                        self.rights = retrying::Rights::default();
                        self.change(Change::Opened, "delivering", cx);
                    }
                }
                SourceEvent::Failed(error, why) => self.failed(error, why, cx),
                SourceEvent::Unreadable(why) => self.unreadable(why, cx),
                SourceEvent::Ended { cause, again } => self.ended(&cause, again, cx),
                SourceEvent::Rotating => {
                    // Counted once, however many outlets read it.
                    if let Some(container) = &self.source.container
                        && self.source.outlet.index == 0
                    {
                        cx.metrics.rotation(&container.id, &container.name);
                    }
                    if self.state == State::Following {
                        self.change(Change::Rotate, PLANNED, cx);
                    }
                }
                SourceEvent::Polled { again_at_ms } => self.polled(again_at_ms, cx),
                // Sinks that were told to stop answer nothing more, and a position without lines can wait.
                SourceEvent::Lines { lines, read, .. }
                    if self.stopped && lines.records.is_empty() && read.is_empty() => {}
                SourceEvent::Lines { lines, read, end, source_bytes } => {
                    self.send(lines, read, end, source_bytes, cx)
                }
                SourceEvent::ToFiles { place, from, delivered_from } => {
                    self.go_to_files(place, from, delivered_from, cx);
                }
                SourceEvent::Drained => self.drained = true,
            }
        }
        self.close_if_drained(cx);
    }

    /// Whether it wants a slot of the pool.
    pub fn wants_slot(&self) -> bool {
        let alive = matches!(self.state, State::Opening | State::Following | State::Waiting);
        alive && self.running && matches!(self.kind, Kind::Api(_))
    }

    fn unreadable(&mut self, why: Why, cx: &mut Context<'_>) {
        let Some(mut api) = self.fallback.take() else {
            return self.failed(StreamError::OpenFailed, why, cx);
        };
        tracing::info!(stream = %self.source.key.0, "{}; reading over the API instead", why.text);
        if let Kind::File(file) = &self.kind {
            for file in file.open_files() {
                cx.act(Action::CloseFile { file });
            }
            if let Some(lines) = file.lines() {
                api.go_on_from(lines);
            }
        }
        cx.act(Action::Unwatch { stream: self.source.id });
        api.set_running(self.running, self.exited_at_ns);
        self.kind = Kind::Api(api);
        self.kind_reason = why.text.into();
        if self.state == State::Opening {
            self.open(cx);
        }
    }

    /// Changes from the API to the files, at the same line.
    fn go_to_files(
        &mut self,
        place: rotation_guard::LogPlace,
        from: ApiCursor,
        delivered_from: Option<FileId>,
        cx: &mut Context<'_>,
    ) {
        let Kind::Api(api) = &self.kind else { return };
        let line_bytes_max = cx.settings.line_bytes_max as usize;
        let pipeline = self.source.pipeline.clone();
        let strips_cr = api.strips_cr();
        let fallback = api.anew(from, line_bytes_max, pipeline.as_ref());
        let (id, exited_at_ns) = (self.source.id, self.exited_at_ns);
        let rotation_guard::LogPlace { directory, live_name } = place;
        self.kind_reason = format!(
            "read from {directory}/{live_name}: a follow of a log that was rotated or emptied may skip lines"
        )
        .into();
        tracing::info!(stream = %self.source.key.0, "its log was rotated or emptied; going on from the files");
        let start = if from.is_none() { Start::Oldest } else { Start::After(from) };
        let file = FileSource::new(id, directory, live_name, FileFormat::Docker, start, line_bytes_max)
            .with_pipeline(pipeline.as_ref())
            .strip_cr(strips_cr)
            .delivered_from(delivered_from);
        self.kind = Kind::File(Box::new(file));
        self.fallback = Some(Box::new(fallback));
        let cause = "going over to the files";
        match self.state {
            State::Following => self.change(Change::Rotate, cause, cx),
            State::Waiting => {
                self.retry_at_ms = None;
                self.change(Change::Retry, cause, cx);
            }
            State::Found | State::Opening | State::Draining | State::Closed => {}
        }
        self.with_source(cx, |kind, cx, told| {
            if let Kind::File(file) = kind {
                file.set_exited(exited_at_ns, cx, told);
                file.open(cx);
            }
        });
    }

    fn send(&mut self, lines: Lines, read: Vec<u8>, end: Cursor, source_bytes: u64, cx: &mut Context<'_>) {
        if self.preparing {
            self.waiting.push(WaitingBatch { lines, read, end, source_bytes });
            return;
        }
        let read = in_its_own_size(read, cx);
        self.seq += 1;
        self.batches_out += 1;
        self.sent.push_back(Sent { at_ms: cx.now.mono_ms, source_bytes });
        if !lines.records.is_empty() {
            self.own_failures = 0;
            self.ends_in_a_row = 0;
        }
        if self.state == State::Following && cx.now.mono_ms - self.state_since_ms >= WELL_AFTER_MS {
            self.failures = 0;
        }
        let message_bytes: u64 = lines.records.iter().map(|record| u64::from(record.message_len)).sum();
        self.tally.read(lines.records.len() as u64, message_bytes, cx.now.mono_ms);
        if let Some(rate_limiter) = &mut self.rate_limiter
            && let Some(until) = rate_limiter.take(lines.records.len() as u64, message_bytes, cx.now.mono_ms)
        {
            cx.metrics.rate_limit_waits_total.inc_by(u64::from(self.limited_until_ms.is_none()));
            self.limited_until_ms = Some(until);
            cx.wake(self.source.id, Purpose::RateLimit, until);
        }
        let (records, truncated) = (lines.records.len() as u64, lines.truncated);
        let more = Read { lines: records, bytes: message_bytes, truncated };
        let news = cx.counted.read(&self.source.key, self.source.outlet.index, more);
        cx.metrics.logs_processed_total.inc_by(news.lines);
        cx.metrics.log_bytes_processed_total.inc_by(news.bytes);
        cx.metrics.lines_truncated_total.inc_by(news.truncated);
        cx.credit.grow(lines.made.capacity() as u64);
        cx.credit.batch_out();
        cx.act(Action::Send(Arc::new(Batch {
            source: Arc::clone(&self.source),
            seq: self.seq,
            read,
            made: lines.made,
            records: lines.records,
            read_time: timestamp::format(cx.now.unix_ns),
            end,
            source_bytes,
            last: self.last_sent,
            changes: None,
        })));
    }

    /// Sends an empty batch behind all others, where a pipeline may hold lines back: only the sinks know whether it
    /// does. Its acknowledgements bring the outputs' marks into the last checkpoint, so that a restart knows these
    /// lines. Returns false if it was sent before, or is not needed.
    fn send_last(&mut self, cx: &mut Context<'_>) -> bool {
        let may_hold =
            self.seq > 0 && self.source.pipeline.as_ref().is_some_and(|pipeline| pipeline.holds_back());
        if !may_hold || self.last_sent || self.preparing || !self.waiting.is_empty() {
            return false;
        }
        self.last_sent = true;
        let end = self.acked.clone();
        self.send(Lines::default(), Vec::new(), end, 0, cx);
        true
    }

    fn close_if_drained(&mut self, cx: &mut Context<'_>) {
        let at_end =
            self.state == State::Draining && self.drained && self.batches_out == 0 && self.waiting.is_empty();
        if at_end && !self.send_last(cx) {
            self.change(Change::Drained, "all of it is acknowledged", cx);
        }
    }

    fn change(&mut self, change: Change, cause: &str, cx: &mut Context<'_>) {
        match state::next(self.state, change) {
            Ok(state) => {
                tracing::debug!(stream = %self.source.key.0, from = self.state.as_str(), to = state.as_str(), cause);
                self.state = state;
                self.state_since_ms = cx.now.mono_ms;
                self.cause = cx.texts.share(cause);
            }
            Err(error) => panic!("{}: {error} ({cause})", self.source.key.0),
        }
    }
}

/// A few lines should not occupy the buffer of a whole read until they are acknowledged, which may take long.
fn in_its_own_size(read: Vec<u8>, cx: &mut Context<'_>) -> Vec<u8> {
    if read.len() > SMALL_BATCH_BYTES || read.capacity() < READ_BYTES {
        return read;
    }
    let small = read.as_slice().to_vec();
    cx.credit.grow(small.capacity() as u64);
    cx.credit.give_back(read, 0);
    small
}
