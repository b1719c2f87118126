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

#[cfg(test)]
pub(crate) mod bench;
mod containers;
mod gauges;
mod held;
pub(crate) mod look;
pub(crate) mod no_log;
mod older;
pub mod outlets;
mod paths;
mod quiet_files;
mod saving;
mod shown;
mod stopping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::capture::checkpoint::Checkpoint;
use crate::capture::checkpoint::tracker::Tracker;
use crate::capture::discover;
use crate::capture::discover::{Discovery, OwnContainer};
use crate::capture::stream::api::{ApiSource, pace};
use crate::capture::stream::file::FileSource;
use crate::capture::stream::{Kind, State, Stream};
use crate::limits::{API_GATHER_BYTES, READ_BYTES};
use crate::model::clock::Now;
use crate::model::cursor::Cursor;
use crate::model::delivery::FromSink;
use crate::model::record::{Ack, Amount, OutputMark, SinkId, Source, StreamId, StreamKey};
use crate::settings::Settings;
use crate::telemetry::losses::{Loss, Losses};
use crate::telemetry::metrics::Metrics;

use crate::capture::context::{Context, Jitter, Lanes, Pool, Timer, Timers};
use crate::capture::counted::ReadCounts;
use crate::capture::io::{Action, ConnId, Event};
use crate::capture::open_files::OpenFiles;
use crate::capture::owners::Owners;
use look::{Progress, Unreadable};
use outlets::{OutletState, SinkFacts};
use paths::Paths;
use saving::Saving;
use stopping::Stopping;

/// The core: all parts that decide, and what they share.
pub struct Capture {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    sinks: Vec<String>,
    outlets: Vec<OutletState>,
    tracker: Tracker,
    discovery: Option<Discovery>,
    paths: Paths,
    streams: BTreeMap<StreamId, Stream>,
    /// One for each outlet.
    ids: BTreeMap<StreamKey, Vec<StreamId>>,
    conns: BTreeMap<ConnId, StreamId>,
    attaching: BTreeMap<StreamId, Attaching>,
    /// Those of them that may be ready for the checkpoint.
    to_place: BTreeSet<StreamId>,
    /// Those that begin when the tracker's state of this number is saved.
    to_begin: BTreeMap<u64, Vec<StreamId>>,
    /// Streams that closed during the event being handled.
    closed: Vec<StreamId>,
    saving: Saving,
    held: held::HeldStreams,
    /// What was lost lately.
    losses: Losses,
    /// Sources that can't be read.
    unreadable: Unreadable,
    /// Whether streams read what there is to read.
    progress: Progress,
    /// Containers that the config leaves out by now: their streams end, their positions stay.
    deselected: BTreeSet<StreamKey>,
    /// Containers that were followed when the last run ended, and that no list has named since.
    unlisted: BTreeSet<StreamKey>,
    /// Streams whose log could be opened when that was tried last.
    opened: BTreeSet<StreamId>,
    /// Containers whose logs can't be read.
    no_logs: no_log::NoLogs,
    /// The first list came: what is found from now on is new.
    listed_once: bool,
    stopping: Option<Stopping>,
    actions: Vec<Action>,
    timers: Timers,
    pool: Pool,
    lanes: Lanes,
    jitter: Jitter,
    owners: Owners,
    open_files: OpenFiles,
    sums: gauges::Sums,
    counted: ReadCounts,
    last_number: u64,
    last_stream: u32,
}

/// A stream whose outputs are being prepared.
#[derive(Debug)]
struct Attaching {
    /// Where it begins; `None` = its files must be listed first, or a crash would leave lines in an output of files that no
    /// checkpoint names.
    initial: Option<Cursor>,
    /// What the sinks answered.
    marks: Vec<(SinkId, Option<OutputMark>)>,
    sinks_missing: usize,
    /// The tracker's state that must be saved; set when all sinks have answered.
    saved_at: Option<u64>,
    /// The container was renamed meanwhile.
    renamed: Option<containers::ContainerFacts>,
}

impl Attaching {
    /// All sinks have answered, and no checkpoint has it yet.
    fn is_prepared(&self) -> bool {
        self.sinks_missing == 0 && self.saved_at.is_none()
    }
}

impl Capture {
    /// `sinks` by [`SinkId`]; `loaded` is the checkpoint of the last run; `seed` is for jitter.
    pub fn new(
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        sinks: Vec<SinkFacts>,
        loaded: Checkpoint,
        seed: u64,
    ) -> Capture {
        let outlets = outlets::sort(&sinks, settings.buffer_bytes_max - api_reserve(&settings));
        let tracked = outlets.iter().flat_map(|outlet| &outlet.tracked).map(String::as_str);
        let mut tracker = Tracker::new(loaded, tracked);
        tracker.memory_mut().set_bounds(settings.remember);
        Capture {
            tracker,
            counted: ReadCounts::new(outlets.iter().map(|outlet| outlet.names.clone()).collect()),
            sinks: sinks.into_iter().map(|sink| sink.name).collect(),
            outlets,
            discovery: settings.container_monitor.enabled.then(Discovery::new),
            paths: Paths::new(settings.file_monitor.files.len()),
            streams: BTreeMap::new(),
            ids: BTreeMap::new(),
            conns: BTreeMap::new(),
            attaching: BTreeMap::new(),
            to_place: BTreeSet::new(),
            to_begin: BTreeMap::new(),
            closed: Vec::new(),
            saving: Saving::default(),
            held: held::HeldStreams::default(),
            losses: Losses::default(),
            unreadable: Unreadable::default(),
            progress: Progress::default(),
            deselected: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            opened: BTreeSet::new(),
            no_logs: no_log::NoLogs::default(),
            listed_once: false,
            stopping: None,
            actions: Vec::new(),
            timers: Timers::default(),
            pool: Pool::new(settings.container_monitor.rotation.max_concurrent_streams),
            lanes: Lanes::default(),
            jitter: Jitter::new(seed),
            owners: Owners::default(),
            open_files: OpenFiles::new(
                settings.file_monitor.max_open,
                settings.file_monitor.close_idle_after.as_millis() as u64,
            ),
            sums: gauges::Sums::default(),
            last_number: 0,
            last_stream: 0,
            settings,
            metrics,
        }
    }

    /// The container that the agent runs in is left out, unless the config says otherwise.
    pub fn leave_out(&mut self, own: OwnContainer) {
        if let Some(discovery) = &mut self.discovery {
            discovery.leave_out(own);
        }
    }

    /// What each outlet has read of each source, for the next run.
    pub fn take_read_counts(&mut self) -> ReadCounts {
        std::mem::take(&mut self.counted)
    }

    /// Counts on where an earlier run of this process ended.
    pub fn count_on(&mut self, before: &ReadCounts) {
        self.counted.go_on_from(before);
    }

    /// Numbers streams on from an earlier run of this process, whose last was this one.
    pub fn number_streams_after(&mut self, last: u32) {
        self.last_stream = last;
    }

    /// With fewer streams than that every checkpoint is saved whole; for the simulation.
    pub fn save_changes_from(&mut self, streams: usize) {
        self.tracker.save_changes_from(streams);
    }

    /// Number of the newest stream.
    pub fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether there is a stream of this container.
    pub fn knows_container(&self, id: &str) -> bool {
        self.ids.contains_key(&StreamKey::container(id))
    }

    /// Takes one event.
    pub fn on_event(&mut self, now: Now, event: Event) {
        self.tracker.memory_mut().set_now(now.unix_ns);
        self.dispatch(now, event);
        self.place_attached();
        self.begin_attached(now);
        self.tell_released(now);
        self.grant_slots(now);
        self.grant_lanes(now);
        self.feed_hungry(now);
        self.drop_closed(now);
        self.share_open_files(now);
        self.save_if_urgent(now);
        self.go_on_stopping(now);
    }

    /// The actions ordered since the last call, in order.
    pub fn drain_actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// When the next [`Event::Tick`] is wanted.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    fn dispatch(&mut self, now: Now, event: Event) {
        self.look_at(now, &event);
        self.look_at_log(now, &event);
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
                if result.as_ref().is_ok_and(|found| !found.is_empty())
                    && let Some(stream) = self.streams.get(&stream)
                {
                    self.tracker.note_looked(&stream.source.key);
                }
                self.with_stream(now, stream, |stream, cx| {
                    stream.with_source(cx, |kind, cx, told| match kind {
                        Kind::File(file) => file.on_scanned(result, cx, told),
                        Kind::Api(api) => api.on_scanned(&result, cx, told),
                    });
                });
                self.bound_deleted(now, stream);
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
            Event::FileRead { stream, file: _, result, buffer, file_len, data_at } => {
                self.with_file(now, stream, |file, cx, told| {
                    file.on_read(result, buffer, file_len, data_at, cx, told)
                });
            }
            Event::FileGrew { stream } => {
                self.with_file(now, stream, |file, cx, _| file.on_grew(cx));
                // It may have been written to by another of its names.
                for reader in self.owners.readers_for(stream) {
                    self.with_file(now, reader, |file, cx, told| {
                        file.on_grew(cx);
                        file.on_rotated_grew(cx, told);
                    });
                }
            }
            Event::RotatedGrew { stream } => {
                self.with_file(now, stream, |file, cx, told| file.on_rotated_grew(cx, told))
            }
            Event::ChainChanged { stream } => {
                self.with_file(now, stream, |file, cx, _| file.on_chain_changed(cx));
            }
            Event::LookAtAll => self.look_at_all(now),
            Event::FileHung { stream, place, operation } => {
                self.with_stream(now, stream, |stream, cx| stream.on_hung(&place, &operation, cx));
            }
            Event::PathsFound { set, lane, lanes, paths } => {
                self.on_paths_found(now, set, lane, &lanes, paths)
            }
            Event::PathsChanged { set } => self.find_paths(now, set),
            Event::Sink(FromSink::Attached { sink, stream, mark }) => self.on_attached(sink, stream, mark),
            Event::Sink(FromSink::Ack(ack)) => self.on_ack(now, ack),
            Event::Sink(FromSink::Held { stream, bytes, cause, .. }) => {
                self.on_held(now, stream, bytes, cause);
            }
            Event::Sink(FromSink::Freed { stream, .. }) => self.on_freed(now, stream),
            Event::Sink(FromSink::Stopped(sink)) => self.on_sink_stopped(now, sink),
            Event::CheckpointSaved { seq, result } => self.on_saved(now, seq, result),
            Event::Stop => self.on_stop(now),
        }
    }

    /// Bounds how many bytes of deleted files each outlet holds open.
    fn bound_deleted(&mut self, now: Now, changed: StreamId) {
        let held = |stream: &Stream| stream.unread_bytes().1;
        let Some(outlet) = self.streams.get(&changed).filter(|stream| held(stream) > 0) else { return };
        let outlet = outlet.source.outlet;
        let max = self.settings.deleted_open_bytes_max;
        let of_outlet = self.streams.iter().filter(|(_, stream)| stream.source.outlet == outlet);
        let mut by_stream: Vec<(u64, StreamId)> = of_outlet.map(|(id, stream)| (held(stream), *id)).collect();
        let total: u64 = by_stream.iter().map(|(bytes, _)| bytes).sum();
        let mut excess = total.saturating_sub(max);
        by_stream.sort_unstable_by_key(|(bytes, id)| (std::cmp::Reverse(*bytes), *id));
        for (_, id) in by_stream {
            if excess == 0 {
                return;
            }
            self.with_file(now, id, |file, cx, told| {
                excess = excess.saturating_sub(file.give_up_deleted(excess, cx, told));
            });
        }
    }

    fn on_started(&mut self, now: Now) {
        self.with_discovery(now, |discovery, cx, _| discovery.start(cx));
        self.find_all_paths(now);
        self.plan_paths_look(now);
    }

    fn on_tick(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.mono_ms) {
            match timer {
                Timer::Stream(id) => self.with_stream(now, id, |stream, cx| stream.on_timer(cx)),
                Timer::Pool => self.share_slots(now),
                Timer::Discovery => self.with_discovery(now, |discovery, cx, _| discovery.on_timer(cx)),
                Timer::Paths => self.on_paths_timer(now),
                // Each event checks this.
                Timer::OpenFiles => {}
                Timer::Checkpoint => self.save(now),
                Timer::StopDeadline => self.on_stop_deadline(),
            }
        }
    }

    /// Any file may have grown, any chain may have changed.
    fn look_at_all(&mut self, now: Now) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.with_file(now, id, |file, cx, told| {
                file.on_grew(cx);
                file.on_rotated_grew(cx, told);
                file.on_chain_changed(cx);
            });
        }
        self.find_all_paths(now);
    }

    // ---- streams

    fn ids_of(&self, key: &StreamKey) -> Vec<StreamId> {
        self.ids.get(key).cloned().unwrap_or_default()
    }

    /// Those that have no stream of this key: all, or the ones that came to its end before others.
    fn outlets_without(&self, key: &StreamKey) -> Vec<usize> {
        let ids = self.ids_of(key);
        let has = |outlet: &usize| {
            let streams = ids.iter().filter_map(|id| self.streams.get(id));
            streams.into_iter().any(|stream| usize::from(stream.source.outlet.index) == *outlet)
        };
        (0..self.outlets.len()).filter(|outlet| !has(outlet)).collect()
    }

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
        let outlet = usize::from(source.outlet.index);
        Stream::new(source, kind, reason, acked, &mut self.context(now, outlet))
    }

    fn add_stream(&mut self, stream: Stream) {
        let source = Arc::clone(&stream.source);
        let tracked = &self.outlets[usize::from(source.outlet.index)].tracked;
        let resume =
            self.tracker.resume_for(&source.key, tracked).filter(|cursor| *cursor != Cursor::Beginning);
        self.ids.entry(source.key.clone()).or_default().push(source.id);
        self.sums.added(&stream);
        self.streams.insert(source.id, stream);
        self.attach(source, resume);
    }

    fn attach(&mut self, source: Arc<Source>, initial: Option<Cursor>) {
        let sinks_missing = self.outlets[usize::from(source.outlet.index)].names.len();
        let attaching =
            Attaching { initial, marks: Vec::new(), sinks_missing, saved_at: None, renamed: None };
        self.attaching.insert(source.id, attaching);
        self.actions.push(Action::Attach(source));
    }

    fn on_attached(&mut self, sink: SinkId, stream: StreamId, mark: Option<OutputMark>) {
        let Some(attaching) = self.attaching.get_mut(&stream) else { return };
        if let (Some(mark), Some(stream)) = (&mark, self.streams.get(&stream)) {
            self.tracker.on_prepared(&stream.source.key, &self.sinks[usize::from(sink.0)], mark);
        }
        attaching.marks.push((sink, mark));
        attaching.sinks_missing -= 1;
        if attaching.is_prepared() {
            self.to_place.insert(stream);
        }
    }

    /// Streams of which all sinks have prepared the outputs, and which know where they begin, go into the checkpoint.
    fn place_attached(&mut self) {
        for id in std::mem::take(&mut self.to_place) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let attaching = self.attaching.get_mut(&id).filter(|attaching| attaching.is_prepared());
            let Some(attaching) = attaching else { continue };
            let Some(initial) = attaching.initial.clone().or_else(|| stream.initial_cursor()) else {
                continue;
            };
            for (sink, mark) in std::mem::take(&mut attaching.marks) {
                let name = &self.sinks[usize::from(sink.0)];
                if self.outlets.iter().any(|outlet| outlet.tracked.contains(name)) {
                    self.tracker.attach(&stream.source.key, name, initial.clone(), mark);
                }
            }
            let seq = self.tracker.dirty_seq();
            attaching.saved_at = Some(seq);
            self.to_begin.entry(seq).or_default().push(id);
        }
    }

    fn drop_closed(&mut self, now: Now) {
        for id in std::mem::take(&mut self.closed) {
            let Some(stream) = self.streams.remove(&id) else { continue };
            self.sums.removed(&stream);
            self.open_files.forget(id);
            let key = &stream.source.key;
            if let Some(ids) = self.ids.get_mut(key) {
                ids.retain(|other| *other != id);
            }
            if self.ids_of(key).is_empty() {
                self.ids.remove(key);
                self.counted.forget(key);
            }
            let key = key.clone();
            let prepared = self.attaching.remove(&id).into_iter().flat_map(|attaching| attaching.marks);
            for (sink, mark) in prepared {
                if let Some(mark) = mark {
                    self.tracker.abandon_prepared(&key, &self.sinks[usize::from(sink.0)], &mark.path);
                }
            }
            self.held.forget(id);
            self.note_never_opened(now, &stream);
            let tracked = &self.outlets[usize::from(stream.source.outlet.index)].tracked;
            self.tracker.leave_sinks(&key, tracked);
            self.unreadable.forget(id);
            self.progress.forget(id);
            self.no_logs.forget_stream(id);
            self.take_up_again(now, &key);
            self.timers.cancel(Timer::Stream(id));
            self.plan_save(now);
            if let Kind::File(file) = &stream.kind {
                file.let_go(&mut self.owners);
                for file in file.open_files() {
                    self.actions.push(Action::CloseFile { file });
                }
            }
            if stream.source.path.is_some() {
                self.paths.unsettle();
                // Its file may go on under another path.
                self.find_all_paths(now);
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
                // It may have ended meanwhile, or have gone over to the files.
                let mut taken = false;
                self.with_api(now, id, |api, cx, told| {
                    taken = true;
                    api.on_slot(cx, told);
                });
                if !taken {
                    self.pool.release();
                }
            }
        }
    }

    /// While there are more streams than slots: quiet ones give theirs to those that wait.
    fn share_slots(&mut self, now: Now) {
        let wanted = self.streams.values().filter(|stream| stream.wants_slot()).count();
        if self.stopping.is_some() || !self.pool.set_wanted(wanted) {
            return;
        }
        let mut waiting = self.pool.waiting();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if waiting == 0 {
                break;
            }
            self.with_api(now, id, |api, cx, _| waiting -= usize::from(api.yield_slot(cx)));
        }
        self.timers.set_earlier(Timer::Pool, now.mono_ms + pace::poll_ms(&self.settings));
    }

    /// Turns on file systems that may hang go to who is next in line.
    fn grant_lanes(&mut self, now: Now) {
        while let Some(id) = self.lanes.next_in_line() {
            self.with_file(now, id, |file, _, _| file.on_turn());
        }
    }

    /// Room for buffers came back: streams that wait for it read on, one after the other, each in its turn.
    fn feed_hungry(&mut self, now: Now) {
        for outlet in 0..self.outlets.len() {
            for _ in 0..self.outlets[outlet].hungry.len() {
                let Some(id) = self.outlets[outlet].next_fed() else { break };
                self.with_stream(now, id, Stream::pump);
            }
        }
    }

    // ---- sinks

    fn on_ack(&mut self, now: Now, ack: Ack) {
        let Ack { sink, batch, mark, delivered } = ack;
        let name = &self.sinks[usize::from(sink.0)];
        let Amount { lines, bytes } = delivered.unwrap_or_else(|| Amount::of(&batch));
        self.metrics.logs_sent_total.with_label_values(&[name]).inc_by(lines);
        self.metrics.log_bytes_sent_total.with_label_values(&[name]).inc_by(bytes);
        if self.outlets.iter().any(|outlet| outlet.tracked.contains(name)) {
            if mark.is_none() {
                self.saving.count_repeatable(batch.source.id, bytes);
            }
            self.saving.note_end(&batch.end);
            self.tracker.on_ack(&batch.source.key, name, batch.seq, &batch.end, mark);
            self.plan_save(now);
        }
        // The last sink's acknowledgement brings the only reference left.
        let Ok(batch) = Arc::try_unwrap(batch) else { return };
        let outlet = usize::from(batch.source.outlet.index);
        self.count_again(batch.source.id, outlet);
        let credit = &mut self.outlets[outlet].credit;
        credit.batch_back();
        credit.give_back(batch.read, batch.made.capacity() as u64);
        self.with_stream(now, batch.source.id, |stream, cx| stream.on_acked(&batch.end, cx));
    }

    /// Streams whose outputs are ready and in a checkpoint on disk begin. That may be so as soon as the last sink has
    /// answered: one whose position is not kept changes nothing that would have to be saved.
    fn begin_attached(&mut self, now: Now) {
        let saved = self.tracker.saved_seq();
        while let Some(entry) = self.to_begin.first_entry().filter(|entry| *entry.key() <= saved) {
            let (seq, ids) = entry.remove_entry();
            ids.into_iter().for_each(|id| self.begin(now, id, seq));
        }
    }

    fn begin(&mut self, now: Now, id: StreamId, seq: u64) {
        // If it was renamed since, another output is being prepared for it.
        if self.attaching.get(&id).is_some_and(|attaching| attaching.saved_at == Some(seq)) {
            let renamed = self.attaching.remove(&id).and_then(|attaching| attaching.renamed);
            if self.stopping.is_some() {
                return;
            }
            self.with_stream(now, id, |stream, cx| {
                stream.begin(cx);
                stream.release(cx);
            });
            let name = self.streams.get(&id).and_then(|stream| stream.source.container.as_ref());
            if let Some(facts) = renamed.filter(|facts| name.is_some_and(|name| *name != facts.meta)) {
                self.rename(id, facts);
            }
        }
    }

    // ---- plumbing: each runs a part with a context and handles the events it returned

    fn context(&mut self, now: Now, outlet: usize) -> Context<'_> {
        Context {
            now,
            settings: &self.settings,
            metrics: &self.metrics,
            actions: &mut self.actions,
            credit: &mut self.outlets[outlet].credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            lanes: &mut self.lanes,
            jitter: &mut self.jitter,
            owners: &mut self.owners,
            open_files: &mut self.open_files,
            counted: &mut self.counted,
            memory: self.tracker.memory(),
            last_number: &mut self.last_number,
        }
    }

    fn with_stream(&mut self, now: Now, id: StreamId, handler: impl FnOnce(&mut Stream, &mut Context<'_>)) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = gauges::Counted::of(stream);
        let outlet = usize::from(stream.source.outlet.index);
        let mut cx = Context {
            now,
            settings: &self.settings,
            metrics: &self.metrics,
            actions: &mut self.actions,
            credit: &mut self.outlets[outlet].credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            lanes: &mut self.lanes,
            jitter: &mut self.jitter,
            owners: &mut self.owners,
            open_files: &mut self.open_files,
            counted: &mut self.counted,
            memory: self.tracker.memory(),
            last_number: &mut self.last_number,
        };
        handler(stream, &mut cx);
        let lost = self.metrics.take_source_losses();
        if let Some(conn) = stream.conn() {
            self.conns.insert(conn, id);
        }
        if stream.state() == State::Closed {
            self.closed.push(id);
        } else if stream.is_hungry() {
            self.outlets[outlet].hungry.push(id, matches!(stream.kind, Kind::File(_)));
        }
        self.sums.changed(stream, before);
        let (open, quiet, wants) = quiet_files::standing(stream);
        self.open_files.note(id, open, quiet, wants, now.mono_ms);
        if self.attaching.get(&id).is_some_and(Attaching::is_prepared) {
            self.to_place.insert(id);
        }
        if !lost.is_empty() {
            self.note_losses_of(now, id, lost);
        }
    }

    fn with_file(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut FileSource, &mut Context<'_>, &mut Vec<crate::capture::stream::SourceEvent>),
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
        handler: impl FnOnce(&mut ApiSource, &mut Context<'_>, &mut Vec<crate::capture::stream::SourceEvent>),
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
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::DiscoveryEvent>),
    ) {
        let Some(mut discovery) = self.discovery.take() else { return };
        let mut told = Vec::new();
        handler(&mut discovery, &mut self.context(now, 0), &mut told);
        self.discovery = Some(discovery);
        for told in told {
            self.on_discovered(now, told);
        }
    }

    fn with_events(
        &mut self,
        now: Now,
        conn: ConnId,
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::DiscoveryEvent>),
    ) {
        if self.discovery.as_ref().and_then(Discovery::conn) == Some(conn) {
            self.with_discovery(now, handler);
        }
    }

    // ---- for people

    /// Why the last checkpoint could not be saved, if saving it failed.
    pub fn checkpoint_trouble(&self) -> Option<&str> {
        self.saving.error()
    }

    /// What keeps containers from being found, if anything does; `None` if they are not monitored.
    pub fn docker_trouble(&self) -> Option<Option<String>> {
        Some(self.discovery.as_ref()?.trouble())
    }

    /// Whether all sources were listed once: containers and file patterns.
    pub fn is_ready(&self) -> bool {
        (self.discovery.is_none() || self.listed_once) && self.paths.all_found()
    }
}

/// What every connection that follows may bring at once. It is not known beforehand which of them will, and a silent one
/// must not hold up the others: so it is kept apart for all of them.
fn api_reserve(settings: &Settings) -> u64 {
    let slots = if settings.container_monitor.enabled {
        settings.container_monitor.rotation.max_concurrent_streams as u64
    } else {
        0
    };
    (slots * API_GATHER_BYTES as u64).min(settings.buffer_bytes_max / 2)
}

fn split_path(path: &str) -> (String, String) {
    match path.rsplit_once('/') {
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None => (".".to_owned(), path.to_owned()),
    }
}
