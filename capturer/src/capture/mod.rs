//! The core: everything that decides. Events go in ([`Capture::on_event`]), actions come out
//! ([`Capture::drain_actions`]); it does not wait, read a clock or touch the kernel, so the same code runs on the real
//! ring and in the simulation.
//!
//! This file hands each part's output to the next and owns them all:
//!
//! ```text
//! discover ─▶ streams ─▶ batches ─▶ sinks
//!                ▲                     │ acks
//!                └──── tracker ◀───────┘ ─▶ checkpoint
//! ```
//! A stream's first batch waits until all sinks have prepared its output and a checkpoint with both is on disk
//! (`Attaching`).

pub mod io;
mod paths;
mod stopping;
pub mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::tracker::Tracker;
use crate::clock::Now;
use crate::cursor::{ApiCursor, ChannelMark, Cursor};
use crate::decode::timestamp;
use crate::discover::{self, Discovery};
use crate::docker::Inspect;
use crate::limits::READ_BYTES;
use crate::metrics::Metrics;
use crate::record::{Ack, ContainerMeta, SinkId, Source, StreamId, StreamKey};
use crate::settings::{FileFormat, ReadFrom, Settings, StartAt};
use crate::sink::FromSink;
use crate::status::Snapshot;
use crate::stream::api::ApiSource;
use crate::stream::chain::Start;
use crate::stream::file::FileSource;
use crate::stream::{Kind, State, Stream};

use io::{Action, ConnId, Event};
use paths::Paths;
use stopping::Stopping;
use support::{Context, Credit, Jitter, Pool, Timer, Timers};

/// A checkpoint is saved at most so long after a position moved.
const CHECKPOINT_INTERVAL_MS: u64 = 1_000;

/// The whole.
pub struct Capture {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    sinks: Vec<String>,
    tracker: Tracker,
    discovery: Option<Discovery>,
    paths: Paths,
    streams: BTreeMap<StreamId, Stream>,
    ids: BTreeMap<StreamKey, StreamId>,
    conns: BTreeMap<ConnId, StreamId>,
    attaching: BTreeMap<StreamId, Attaching>,
    /// Streams that closed during the event being handled.
    closed: Vec<StreamId>,
    /// Streams that would read if there were room, in line.
    hungry: VecDeque<StreamId>,
    saving: Option<u64>,
    /// The first list came: what is found from now on is new.
    listed_once: bool,
    stopping: Option<Stopping>,
    actions: Vec<Action>,
    timers: Timers,
    credit: Credit,
    pool: Pool,
    jitter: Jitter,
    last_number: u64,
    last_stream: u32,
}

/// A stream whose outputs are being prepared.
#[derive(Debug)]
struct Attaching {
    initial: Cursor,
    sinks_missing: usize,
    /// The tracker's state that must be saved; set when all sinks have answered.
    saved_at: Option<u64>,
}

impl Capture {
    /// `sinks` by [`SinkId`]; `loaded` is the checkpoint of the last run; `seed` is for jitter.
    pub fn new(
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        sinks: Vec<String>,
        loaded: Checkpoint,
        seed: u64,
    ) -> Capture {
        let tracker = Tracker::new(loaded, tracked_sinks(&sinks));
        Capture {
            tracker,
            sinks,
            discovery: settings.container_monitor.enabled.then(Discovery::new),
            paths: Paths::new(settings.file_monitor.files.len()),
            streams: BTreeMap::new(),
            ids: BTreeMap::new(),
            conns: BTreeMap::new(),
            attaching: BTreeMap::new(),
            closed: Vec::new(),
            hungry: VecDeque::new(),
            saving: None,
            listed_once: false,
            stopping: None,
            actions: Vec::new(),
            timers: Timers::default(),
            credit: Credit::new(settings.buffer_bytes_max),
            pool: Pool::new(settings.container_monitor.rotation.max_concurrent_streams),
            jitter: Jitter::new(seed),
            last_number: 0,
            last_stream: 0,
            settings,
            metrics,
        }
    }

    /// Takes a fact.
    pub fn on_event(&mut self, now: Now, event: Event) {
        self.dispatch(now, event);
        self.grant_slots(now);
        self.feed_hungry(now);
        self.drop_closed(now);
        self.save_if_urgent();
        self.go_on_stopping(now);
    }

    /// Orders given since the last call, in order.
    pub fn drain_actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// When the next [`Event::Tick`] is wanted.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    fn dispatch(&mut self, now: Now, event: Event) {
        match event {
            Event::Started => self.on_started(now),
            Event::Tick => self.on_tick(now),
            Event::Answered { request, result } => {
                self.with_discovery(now, |discovery, cx, told| {
                    discovery.on_answer(request, result, cx, told)
                });
            }
            Event::ConnOpened { conn, result } => match self.conns.get(&conn) {
                Some(stream) => {
                    self.with_api(now, *stream, |api, cx, told| api.on_opened(conn, result, cx, told))
                }
                None => self.with_events(now, conn, |discovery, cx, _| discovery.on_opened(result, cx)),
            },
            Event::ConnRead { conn, outcome, buffer } => match self.conns.get(&conn) {
                Some(stream) => {
                    self.with_api(now, *stream, |api, cx, told| api.on_read(conn, outcome, buffer, cx, told));
                }
                None => self.with_events(now, conn, |discovery, cx, told| {
                    discovery.on_read(outcome, buffer, cx, told)
                }),
            },
            Event::ConnClosed { conn } => match self.conns.remove(&conn) {
                Some(stream) => self.with_api(now, stream, |api, cx, told| api.on_closed(conn, cx, told)),
                None => self.with_events(now, conn, |discovery, cx, _| discovery.on_closed(cx)),
            },
            Event::Scanned { stream, result } => {
                self.with_file(now, stream, |file, cx, told| file.on_scanned(result, cx, told));
            }
            Event::FileOpened { stream, file: number, result } => {
                if self.streams.contains_key(&stream) {
                    self.with_file(now, stream, |file, cx, told| {
                        file.on_file_opened(number, result, cx, told)
                    });
                } else if result.is_ok() {
                    self.actions.push(Action::CloseFile { file: number });
                }
            }
            Event::FileRead { stream, file: _, result, buffer, file_len } => {
                self.with_file(now, stream, |file, cx, told| {
                    file.on_read(result, buffer, file_len, cx, told)
                });
            }
            Event::FileGrew { stream } => self.with_file(now, stream, |file, _, _| file.on_grew()),
            Event::ChainChanged { stream } => {
                self.with_file(now, stream, |file, cx, _| file.on_chain_changed(cx));
            }
            Event::WatchOverflow => self.on_watch_overflow(now),
            Event::PathsFound { set, paths } => self.on_paths_found(now, set, paths),
            Event::PathsChanged { set } => self.find_paths(set),
            Event::Sink(FromSink::Attached { sink, stream, mark }) => self.on_attached(sink, stream, mark),
            Event::Sink(FromSink::Ack(ack)) => self.on_ack(now, ack),
            Event::Sink(FromSink::Stopped(sink)) => self.on_sink_stopped(now, sink),
            Event::CheckpointSaved { seq, result } => self.on_saved(now, seq, result),
            Event::Stop => self.on_stop(now),
        }
    }

    fn on_started(&mut self, now: Now) {
        self.with_discovery(now, |discovery, cx, _| discovery.start(cx));
        for set in 0..self.settings.file_monitor.files.len() {
            self.find_paths(set);
        }
        self.plan_paths_look(now);
    }

    fn on_tick(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.mono_ms) {
            match timer {
                Timer::Stream(id) => self.with_stream(now, id, |stream, cx| stream.on_timer(cx)),
                Timer::Discovery => self.with_discovery(now, |discovery, cx, _| discovery.on_timer(cx)),
                Timer::Paths => self.on_paths_timer(now),
                Timer::Checkpoint => self.save(),
                Timer::StopDeadline => self.on_stop_deadline(),
            }
        }
    }

    /// inotify dropped events: any file may have grown, any chain may have changed.
    fn on_watch_overflow(&mut self, now: Now) {
        tracing::warn!("inotify lost events; looking at every file");
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.with_file(now, id, |file, cx, _| {
                file.on_grew();
                file.on_chain_changed(cx);
            });
        }
        for set in 0..self.settings.file_monitor.files.len() {
            self.find_paths(set);
        }
    }

    // ---- containers

    fn on_discovered(&mut self, now: Now, told: discover::Told) {
        if self.stopping.is_some() {
            return;
        }
        match told {
            discover::Told::Container(inspect) => self.on_container(now, *inspect),
            discover::Told::Gone(id) => {
                if let Some(stream) = self.ids.get(&StreamKey::container(&id)) {
                    self.with_stream(now, *stream, |stream, cx| stream.gone("the container was removed", cx));
                }
            }
            discover::Told::Listed => {
                self.listed_once = true;
                self.forget_containers_that_went();
            }
        }
        let containers = self.streams.values().filter(|stream| stream.source.container.is_some());
        self.metrics.containers_monitored.set(containers.count() as i64);
    }

    /// Containers removed while the agent did not run: their logs went with them.
    fn forget_containers_that_went(&mut self) {
        let Some(discovery) = &self.discovery else { return };
        let gone: Vec<StreamKey> = self
            .tracker
            .streams()
            .filter(|key| key.0.strip_prefix("container:").is_some_and(|id| !discovery.is_listed(id)))
            .filter(|key| !self.ids.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.tracker.forget(&key);
        }
    }

    fn on_container(&mut self, now: Now, inspect: Inspect) {
        let key = StreamKey::container(&inspect.id);
        let running = inspect.state.running;
        let exited_at = timestamp::parse(inspect.state.finished_at.as_bytes());
        if let Some(id) = self.ids.get(&key).copied() {
            self.rename_if_needed(id, &inspect);
            self.with_stream(now, id, |stream, cx| stream.set_running(running, exited_at, cx));
            return;
        }
        let settings = Arc::clone(&self.settings);
        let monitor = &settings.container_monitor;
        let Some((from_file, reason)) = choose_kind(monitor.read_from, &inspect) else { return };
        let id = self.next_stream_id();
        let source = Arc::new(Source {
            id,
            key: key.clone(),
            container: Some(container_meta(&inspect, &monitor.record_labels)),
            path: None,
            labels: BTreeMap::new(),
        });
        let resume = self.tracker.resume(&key).map(|resume| resume.cursor);
        let at_end = monitor.start_at == StartAt::End && !self.listed_once;
        let line_bytes_max = settings.line_bytes_max as usize;
        let api_cursor = match &resume {
            Some(Cursor::Api(cursor)) => Some(*cursor),
            Some(Cursor::File(_)) if !from_file => {
                tracing::warn!(container = %inspect.id, "was read from its file before; over the API its log is read from its beginning");
                None
            }
            None if at_end => Some(api_cursor_at(now.unix_ns)),
            _ => None,
        };
        let api =
            ApiSource::new(id, inspect.id.clone(), inspect.config.tty, running, api_cursor, line_bytes_max);
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let stream = if from_file {
            let start = match resume {
                Some(Cursor::File(cursor)) => Start::Resume(cursor),
                None if at_end => Start::End,
                _ => Start::Oldest,
            };
            let (directory, live_name) = split_path(&inspect.log_path);
            let file = FileSource::new(id, directory, live_name, FileFormat::Docker, start, line_bytes_max);
            let kind = Kind::File(Box::new(file));
            let stream = self.new_stream(now, source, kind, reason, acked);
            if monitor.read_from == ReadFrom::Auto { stream.with_fallback(api) } else { stream }
        } else {
            self.new_stream(now, source, Kind::Api(Box::new(api)), reason, acked)
        };
        self.add_stream(stream);
        self.with_stream(now, id, |stream, cx| stream.set_running(running, exited_at, cx));
    }

    fn rename_if_needed(&mut self, id: StreamId, inspect: &Inspect) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let meta = container_meta(inspect, &self.settings.container_monitor.record_labels);
        if stream.source.container.as_ref() == Some(&meta) || self.attaching.contains_key(&id) {
            return;
        }
        let old = &stream.source;
        let source = Arc::new(Source {
            id,
            key: old.key.clone(),
            container: Some(meta),
            path: old.path.clone(),
            labels: old.labels.clone(),
        });
        stream.replace_source(Arc::clone(&source));
        self.attach(source, Cursor::Beginning);
    }

    // ---- streams

    fn next_stream_id(&mut self) -> StreamId {
        self.last_stream += 1;
        StreamId(self.last_stream)
    }

    fn new_stream(
        &mut self,
        now: Now,
        source: Arc<Source>,
        kind: Kind,
        reason: String,
        acked: Cursor,
    ) -> Stream {
        Stream::new(source, kind, reason, acked, &mut self.context(now))
    }

    fn add_stream(&mut self, stream: Stream) {
        let source = Arc::clone(&stream.source);
        let initial =
            self.tracker.resume(&source.key).map_or_else(|| stream.initial_cursor(), |resume| resume.cursor);
        self.ids.insert(source.key.clone(), source.id);
        self.streams.insert(source.id, stream);
        self.attach(source, initial);
    }

    fn attach(&mut self, source: Arc<Source>, initial: Cursor) {
        let sinks_missing = self.sinks.len();
        self.attaching.insert(source.id, Attaching { initial, sinks_missing, saved_at: None });
        self.actions.push(Action::Attach(source));
    }

    fn on_attached(&mut self, sink: SinkId, stream: StreamId, mark: Option<crate::record::OutputMark>) {
        let (Some(attaching), Some(source)) =
            (self.attaching.get_mut(&stream), self.streams.get(&stream).map(|stream| &stream.source))
        else {
            return;
        };
        let name = &self.sinks[usize::from(sink.0)];
        if tracked_sinks(&self.sinks).any(|tracked| tracked == name) {
            self.tracker.attach(&source.key, name, attaching.initial.clone(), mark);
        }
        attaching.sinks_missing -= 1;
        if attaching.sinks_missing == 0 {
            attaching.saved_at = Some(self.tracker.dirty_seq());
        }
    }

    fn drop_closed(&mut self, now: Now) {
        for id in std::mem::take(&mut self.closed) {
            let Some(stream) = self.streams.remove(&id) else { continue };
            self.ids.remove(&stream.source.key);
            self.attaching.remove(&id);
            self.tracker.forget(&stream.source.key);
            self.timers.cancel(Timer::Stream(id));
            self.timers.set_earlier(Timer::Checkpoint, now.mono_ms + CHECKPOINT_INTERVAL_MS);
            if let Kind::File(file) = &stream.kind {
                for file in file.open_files() {
                    self.actions.push(Action::CloseFile { file });
                }
            }
            if let Some(container) = &stream.source.container {
                self.metrics.forget_container(&container.id);
            }
            self.actions.push(Action::Unwatch { stream: id });
            self.actions.push(Action::Detach(id));
        }
    }

    fn grant_slots(&mut self, now: Now) {
        loop {
            let granted = self.pool.take_granted();
            if granted.is_empty() {
                return;
            }
            for id in granted {
                if self.streams.contains_key(&id) {
                    self.with_api(now, id, |api, cx, told| api.on_slot(cx, told));
                } else {
                    self.pool.release();
                }
            }
        }
    }

    /// Room for buffers came back: streams that wait for it read on, one after the other, each in its turn.
    fn feed_hungry(&mut self, now: Now) {
        for _ in 0..self.hungry.len() {
            if !self.credit.has_room(READ_BYTES) {
                return;
            }
            let Some(id) = self.hungry.pop_front() else { return };
            self.with_stream(now, id, Stream::pump);
        }
    }

    // ---- sinks and checkpoint

    fn on_ack(&mut self, now: Now, ack: Ack) {
        let Ack { sink, batch, mark } = ack;
        let name = &self.sinks[usize::from(sink.0)];
        self.metrics.logs_sent_total.with_label_values(&[name]).inc_by(batch.records.len() as u64);
        let bytes: u64 = batch.records.iter().map(|record| u64::from(record.message_len)).sum();
        self.metrics.log_bytes_sent_total.with_label_values(&[name]).inc_by(bytes);
        if tracked_sinks(&self.sinks).any(|tracked| tracked == name) {
            self.tracker.on_ack(&batch.source.key, name, batch.seq, &batch.end, mark);
            self.timers.set_earlier(Timer::Checkpoint, now.mono_ms + CHECKPOINT_INTERVAL_MS);
        }
        // The last sink's acknowledgement brings the only reference left.
        let Ok(batch) = Arc::try_unwrap(batch) else { return };
        self.credit.batch_back();
        self.credit.give_back(batch.read, batch.made.capacity() as u64);
        self.with_stream(now, batch.source.id, |stream, cx| stream.on_acked(&batch.end, cx));
    }

    fn save_if_urgent(&mut self) {
        let saved = self.tracker.saved_seq();
        if self.attaching.values().any(|attaching| attaching.saved_at.is_some_and(|seq| seq > saved)) {
            self.save();
        }
    }

    fn save(&mut self) {
        if self.saving.is_none() && self.tracker.dirty_seq() > self.tracker.saved_seq() {
            let seq = self.tracker.dirty_seq();
            self.saving = Some(seq);
            self.actions.push(Action::SaveCheckpoint { seq, checkpoint: self.tracker.to_checkpoint() });
        }
    }

    fn on_saved(&mut self, now: Now, seq: u64, result: Result<(), String>) {
        self.saving = None;
        match result {
            Ok(()) => {
                self.metrics.checkpoint_saves_total.inc();
                self.tracker.on_saved(seq);
            }
            Err(error) => {
                self.metrics.checkpoint_save_failures_total.inc();
                tracing::error!(
                    "the checkpoint could not be saved, a crash now would repeat records: {error}"
                );
                self.timers.set_earlier(Timer::Checkpoint, now.mono_ms + CHECKPOINT_INTERVAL_MS);
                return;
            }
        }
        if self.tracker.dirty_seq() > seq {
            self.timers.set_earlier(Timer::Checkpoint, now.mono_ms + CHECKPOINT_INTERVAL_MS);
        }
        let ready: Vec<StreamId> = self
            .attaching
            .iter()
            .filter(|(_, attaching)| attaching.saved_at.is_some_and(|at| at <= seq))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.attaching.remove(&id);
            if self.stopping.is_none() {
                self.with_stream(now, id, |stream, cx| {
                    stream.begin(cx);
                    stream.release(cx);
                });
            }
        }
    }

    // ---- plumbing: each runs a part with a context and hands on what it told

    fn context(&mut self, now: Now) -> Context<'_> {
        Context {
            now,
            settings: &self.settings,
            metrics: &self.metrics,
            actions: &mut self.actions,
            credit: &mut self.credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            jitter: &mut self.jitter,
            last_number: &mut self.last_number,
        }
    }

    fn with_stream(&mut self, now: Now, id: StreamId, handler: impl FnOnce(&mut Stream, &mut Context<'_>)) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut cx = Context {
            now,
            settings: &self.settings,
            metrics: &self.metrics,
            actions: &mut self.actions,
            credit: &mut self.credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            jitter: &mut self.jitter,
            last_number: &mut self.last_number,
        };
        handler(stream, &mut cx);
        if let Some(conn) = stream.conn() {
            self.conns.insert(conn, id);
        }
        if stream.state() == State::Closed {
            self.closed.push(id);
        } else if stream.is_hungry() && !self.hungry.contains(&id) {
            self.hungry.push_back(id);
        }
    }

    fn with_file(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut FileSource, &mut Context<'_>, &mut Vec<crate::stream::Told>),
    ) {
        self.with_stream(now, id, |stream, cx| {
            stream.with_source(cx, |kind, cx, told| {
                if let Kind::File(file) = kind {
                    handler(file, cx, told);
                }
            });
        });
    }

    fn with_api(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut ApiSource, &mut Context<'_>, &mut Vec<crate::stream::Told>),
    ) {
        self.with_stream(now, id, |stream, cx| {
            stream.with_source(cx, |kind, cx, told| {
                if let Kind::Api(api) = kind {
                    handler(api, cx, told);
                }
            });
        });
    }

    fn with_discovery(
        &mut self,
        now: Now,
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::Told>),
    ) {
        let Some(mut discovery) = self.discovery.take() else { return };
        let mut told = Vec::new();
        handler(&mut discovery, &mut self.context(now), &mut told);
        self.discovery = Some(discovery);
        for told in told {
            self.on_discovered(now, told);
        }
    }

    fn with_events(
        &mut self,
        now: Now,
        conn: ConnId,
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::Told>),
    ) {
        if self.discovery.as_ref().and_then(Discovery::conn) == Some(conn) {
            self.with_discovery(now, handler);
        }
    }

    // ---- for people

    /// Everything the admin server shows.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        Snapshot {
            taken_at_ms: now.mono_ms,
            streams: self.streams.values().map(|stream| stream.row(now.mono_ms)).collect(),
            docker: self
                .discovery
                .as_ref()
                .map(|d| d.row(self.settings.container_monitor.socket_path.display().to_string()))
                .unwrap_or_default(),
            operations: 0,
        }
    }

    /// Sets the gauges that are sums over all streams; the loop calls it once a second.
    pub fn refresh_gauges(&self, now: Now) {
        let (mut lag, mut deleted, mut active, mut files, mut oldest) = (0, 0, 0, 0, now.mono_ms);
        for stream in self.streams.values() {
            let (unread, held) = stream.unread_bytes();
            lag += unread;
            deleted += held;
            active += i64::from(stream.source.container.is_some() && stream.state() == State::Following);
            files += i64::from(stream.source.path.is_some());
            oldest = oldest.min(stream.oldest_sent_ms().unwrap_or(oldest));
        }
        self.metrics.capture_lag_bytes.set(lag as i64);
        self.metrics.deleted_open_bytes.set(deleted as i64);
        self.metrics.container_streams_active.set(active);
        self.metrics.files_monitored.set(files);
        self.metrics.capture_lag_seconds.set((now.mono_ms - oldest) as f64 / 1000.0);
        self.metrics.container_stream_pool_utilization.set(self.pool.utilization());
        for sink in &self.sinks {
            let waiting = self.credit.batches_out() as i64;
            self.metrics.sink_batches_waiting.with_label_values(&[sink]).set(waiting);
        }
    }

    /// Whether the Engine answers; `None` if containers are not monitored.
    pub fn docker_reachable(&self) -> Option<(bool, String)> {
        let row = self.discovery.as_ref()?.row(String::new());
        Some((row.reachable, row.error))
    }

    /// All sources were listed once: containers, and file patterns.
    pub fn is_ready(&self) -> bool {
        (self.discovery.is_none() || self.listed_once) && self.paths.all_found()
    }
}

/// Standard output keeps nothing, so its position means nothing, unless there is no other sink.
fn tracked_sinks(sinks: &[String]) -> impl Iterator<Item = &str> {
    let only = sinks.len() == 1;
    sinks.iter().map(String::as_str).filter(move |name| only || *name != "stdout")
}

/// From its file, or over the API, and why; `None` = not at all.
fn choose_kind(read_from: ReadFrom, inspect: &Inspect) -> Option<(bool, String)> {
    let driver = inspect.host_config.log_config.driver.as_str();
    let has_file = driver == "json-file" && !inspect.log_path.is_empty();
    match read_from {
        ReadFrom::Api if driver == "none" => None,
        ReadFrom::Api => Some((false, "read_from is api".to_owned())),
        ReadFrom::File | ReadFrom::Auto if has_file => {
            Some((true, format!("driver json-file, its log is {}", inspect.log_path)))
        }
        // Never started: the log is made at its first start, which is an event.
        ReadFrom::File | ReadFrom::Auto if driver == "json-file" => None,
        ReadFrom::Auto if driver != "none" => Some((false, format!("driver {driver} has no json-file"))),
        ReadFrom::File | ReadFrom::Auto => {
            tracing::warn!(container = %inspect.id, driver, "its logging driver leaves nothing that can be read; not captured");
            None
        }
    }
}

fn container_meta(inspect: &Inspect, record_labels: &[String]) -> ContainerMeta {
    let labels = inspect.config.labels.as_ref();
    let chosen = record_labels.iter().filter_map(|key| {
        labels.and_then(|labels| labels.get(key)).map(|value| (key.clone(), value.clone()))
    });
    ContainerMeta {
        id: inspect.id.clone(),
        name: discover::plain_name(&inspect.name).to_owned(),
        image: inspect.config.image.clone(),
        labels: chosen.collect(),
    }
}

fn api_cursor_at(unix_ns: i64) -> ApiCursor {
    let mark = ChannelMark { time_ns: unix_ns, count: 0 };
    ApiCursor { channels: [mark; 2], last_ns: unix_ns, ..ApiCursor::default() }
}

fn split_path(path: &str) -> (String, String) {
    match path.rsplit_once('/') {
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None => (".".to_owned(), path.to_owned()),
    }
}
