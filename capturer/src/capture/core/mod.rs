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
mod clock;
mod containers;
mod gauges;
mod held;
mod lifecycle;
mod log_facts;
pub(crate) mod look;
pub(crate) mod no_log;
mod older;
pub(crate) mod outlets;
mod packing;
mod parts;
mod paths;
mod quiet_files;
mod saving;
mod shown;
mod stopping;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus::IntCounter;

use crate::capture::checkpoint::Checkpoint;
use crate::capture::checkpoint::tracker::Tracker;
use crate::capture::discover::{Discovery, OwnContainer};
use crate::capture::stream::{Kind, Stream};
use crate::limits::{API_GATHER_BYTES, READ_BYTES};
use crate::model::clock::Now;
use crate::model::delivery::FromSink;
use crate::model::docker::EngineTrouble;
use crate::model::record::{Ack, Amount, StreamId, StreamKey};
use crate::settings::Settings;
use crate::telemetry::losses::{Loss, Losses};
use crate::telemetry::metrics::Metrics;

use crate::capture::context::{Shared, Timer};
use crate::capture::counted::ReadCounts;
use crate::capture::io::{Action, Beside, ConnId, Event, FileError};
use lifecycle::Attaching;
use look::{Progress, Unreadable};
use outlets::{OutletState, SinkFacts};
use paths::Paths;
use saving::Saving;
use stopping::Stopping;

/// Room for actions that is kept from one event to the next.
const ACTIONS_KEPT: usize = 256;

/// The core: all parts that decide, and what they share.
pub struct Capture {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    sinks: Vec<String>,
    /// Lines and bytes that each sink acknowledged.
    sent: Vec<[IntCounter; 2]>,
    outlets: Vec<OutletState>,
    tracker: Tracker,
    discovery: Option<Discovery>,
    paths: Paths,
    /// Boxed: numbers only rise, so half of each node is empty.
    streams: BTreeMap<StreamId, Box<Stream>>,
    /// One for each outlet.
    ids: BTreeMap<StreamKey, Vec<StreamId>>,
    conns: BTreeMap<ConnId, StreamId>,
    attaching: BTreeMap<StreamId, Attaching>,
    /// Attaching streams that may be ready for the checkpoint.
    to_place: BTreeSet<StreamId>,
    /// Attaching streams that begin once the tracker's state of this number is saved.
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
    /// Containers that the config no longer selects: their streams end, their positions stay.
    deselected: BTreeSet<StreamKey>,
    /// Containers that were followed when the last run ended, and that no list has named since.
    unlisted: BTreeSet<StreamKey>,
    /// Streams whose log could be opened when that was tried last.
    opened: BTreeSet<StreamId>,
    /// By stream: the newest archive of its log that can't be read.
    archives: BTreeMap<StreamId, String>,
    /// Containers whose logs can't be read.
    no_logs: no_log::NoLogs,
    /// What the streams of containers were made for.
    log_facts: log_facts::AllLogFacts,
    /// The first list has come: what is found from now on is new.
    listed_once: bool,
    clock: clock::WallClock,
    stopping: Option<Stopping>,
    /// What its parts are lent.
    shared: Shared,
    sums: gauges::Sums,
    /// Names of the pipelines that took a source in this run.
    used_pipelines: BTreeSet<String>,
    last_stream: u32,
}

impl Capture {
    /// `sinks` by [`SinkId`](crate::model::record::SinkId); `loaded` is the checkpoint of the last run; `seed` is for jitter.
    pub fn new(
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        sinks: Vec<SinkFacts>,
        loaded: Checkpoint,
        seed: u64,
    ) -> Capture {
        let outlets = outlets::sort(&sinks, settings.buffer_bytes_max - api_reserve(&settings));
        let tracked = outlets.iter().flat_map(|outlet| outlet.tracked.iter()).map(String::as_str);
        let mut tracker = Tracker::new(loaded, tracked);
        tracker.memory_mut().set_bounds(settings.remember);
        let names = outlets.iter().map(|outlet| outlet.names.to_vec()).collect();
        let shared = Shared::new(&settings, ReadCounts::new(names), seed);
        let sent = sinks.iter().map(|sink| metrics.sent_by(&sink.name)).collect();
        Capture {
            tracker,
            sent,
            sinks: sinks.into_iter().map(|sink| sink.name).collect(),
            outlets,
            discovery: settings.container_monitor.enabled.then(Discovery::new),
            paths: Paths::new(&settings.file_monitor.files),
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
            archives: BTreeMap::new(),
            no_logs: no_log::NoLogs::default(),
            log_facts: log_facts::AllLogFacts::default(),
            listed_once: false,
            clock: clock::WallClock::default(),
            stopping: None,
            shared,
            sums: gauges::Sums::default(),
            used_pipelines: BTreeSet::new(),
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
        std::mem::take(&mut self.shared.counted)
    }

    /// Continues the counts of an earlier run of this process.
    pub fn count_on(&mut self, before: &ReadCounts) {
        self.shared.counted.go_on_from(before);
    }

    /// Numbers streams after those of an earlier run of this process.
    pub fn number_streams_after(&mut self, last: u32) {
        self.last_stream = last;
    }

    /// With fewer streams than this, every checkpoint is saved whole. For the simulation.
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
        // Finding ten thousand files orders as many openings at once, and nothing later does.
        if self.shared.actions.is_empty() {
            self.shared.actions.shrink_to(ACTIONS_KEPT);
        }
        self.look_at_clock(now);
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
        self.shared.actions.drain(..)
    }

    /// When the next [`Event::Tick`] is wanted.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.shared.timers.next_ms()
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
            Event::Scanned { stream, mut result, beside: Beside { archive, denied, renamed } } => {
                let strange = self.leave_to_others(stream, &mut result);
                match strange.or(archive) {
                    Some(archive) => drop(self.archives.insert(stream, archive)),
                    None => drop(self.archives.remove(&stream)),
                }
                if result.as_ref().is_ok_and(|found| !found.is_empty())
                    && let Some(stream) = self.streams.get(&stream)
                {
                    self.tracker.note_looked(&stream.source.key);
                }
                let places = self.known_of_copies(stream, &result);
                self.with_stream(now, stream, |stream, cx| {
                    stream.with_source(cx, |kind, cx, told| match kind {
                        Kind::File(file) => {
                            file.remember(places);
                            file.note_renamed(&renamed);
                            match &result {
                                Ok(_) => file.set_denied(denied, cx),
                                Err(FileError::NoDirectory(_)) => file.set_denied(Vec::new(), cx),
                                Err(_) => {}
                            }
                            file.on_scanned(result, cx, told);
                        }
                        Kind::Api(api) => api.on_scanned(&result, cx, told),
                    });
                });
                self.end_trouble_of_gone(stream);
                self.note_denied(stream);
                self.bound_deleted(now, stream);
            }
            Event::StillLive { stream, found } => {
                self.with_api(now, stream, |api, cx, told| api.on_scanned(&Ok(vec![found]), cx, told));
            }
            Event::FileOpened { stream, file: number, result } => {
                if self.streams.contains_key(&stream) {
                    let is_open = result.is_ok();
                    self.with_file(now, stream, |file, cx, told| {
                        file.on_file_opened(number, result, cx, told)
                    });
                    if is_open {
                        self.end_trouble_of_gone(stream);
                    }
                } else if result.is_ok() {
                    self.shared.actions.push(Action::CloseFile { file: number });
                }
            }
            Event::FileRead { stream, file: _, result, buffer, file_len, data_at } => {
                self.with_file(now, stream, |file, cx, told| {
                    file.on_read(result, buffer, file_len, data_at, cx, told)
                });
                self.note_doubt(now, stream);
            }
            Event::FileGrew { stream } => {
                self.with_file(now, stream, |file, cx, _| file.on_grew(cx));
                // Somebody may have written to it by another of its names.
                for reader in self.shared.owners.readers_for(stream) {
                    self.with_file(now, reader, |file, cx, told| {
                        file.on_grew(cx);
                        file.on_rotated_grew(cx, told);
                    });
                }
            }
            Event::RotatedGrew { stream } => {
                self.with_file(now, stream, |file, cx, told| file.on_rotated_grew(cx, told))
            }
            Event::LiveMade { stream, files } => {
                self.with_file(now, stream, |file, cx, _| file.on_live_made(files, cx));
            }
            Event::ChainChanged { stream } => {
                self.with_file(now, stream, |file, cx, _| file.on_chain_changed(cx));
            }
            Event::RightsChanged { stream } => {
                self.with_stream(now, stream, |stream, cx| stream.on_rights_changed(cx));
                self.with_file(now, stream, |file, cx, _| file.on_rights_changed(cx));
            }
            Event::LookAtAll => self.look_at_all(now),
            Event::DescriptorsRanOut { files } => self.on_descriptors_ran_out(now, files),
            Event::FileWaits { stream, file, len } => self.file_waits(stream, file, len),
            Event::FileHung { stream, place, operation } => {
                self.with_stream(now, stream, |stream, cx| stream.on_hung(&place, &operation, cx));
            }
            Event::PathsFound { set, lane, lanes, paths } => {
                self.on_paths_found(now, set, lane, &lanes, paths)
            }
            Event::PathsChanged { set } => self.find_paths(now, set),
            Event::FileVanished { set, name, path } => {
                self.on_file_vanished(now, set, &name, path.as_deref());
            }
            Event::Sink(FromSink::Attached { sink, stream, mark }) => self.on_attached(sink, stream, mark),
            Event::Sink(FromSink::Ack(ack)) => self.on_ack(now, ack),
            Event::Sink(FromSink::Held { stream, bytes, cause, short, .. }) => {
                self.on_held(now, stream, bytes, (cause, short));
            }
            Event::Sink(FromSink::Freed { stream, .. }) => self.on_freed(now, stream),
            Event::Sink(FromSink::SaveAgain(_)) => self.save_again(now),
            Event::Sink(FromSink::Stopped(sink)) => self.on_sink_stopped(now, sink),
            Event::CheckpointSaved { seq, result } => self.on_saved(now, seq, result),
            Event::Stop => self.on_stop(now),
        }
    }

    fn on_started(&mut self, now: Now) {
        self.with_discovery(now, |discovery, cx, _| discovery.start(cx));
        self.find_all_paths(now);
        self.plan_paths_look(now);
    }

    fn on_tick(&mut self, now: Now) {
        while let Some(timer) = self.shared.timers.pop_due(now.mono_ms) {
            match timer {
                Timer::Stream(id, purpose) => {
                    self.with_stream(now, id, |stream, cx| stream.on_timer(purpose, cx));
                }
                Timer::Pool => self.share_slots(now),
                Timer::Discovery => self.with_discovery(now, |discovery, cx, _| discovery.on_timer(cx)),
                Timer::Paths => self.on_paths_timer(now),
                Timer::Doubts => self.decide_doubts(now),
                // Checked with every event.
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

    fn on_ack(&mut self, now: Now, ack: Ack) {
        let Ack { sink, batch, mark, delivered } = ack;
        let name = &self.sinks[usize::from(sink.0)];
        let Amount { lines, bytes } = delivered.unwrap_or_else(|| Amount::of(&batch));
        let [sent_lines, sent_bytes] = &self.sent[usize::from(sink.0)];
        sent_lines.inc_by(lines);
        sent_bytes.inc_by(bytes);
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

    /// Why the last checkpoint could not be saved, if saving it failed.
    pub fn checkpoint_trouble(&self) -> Option<&str> {
        self.saving.error()
    }

    /// What keeps containers from being found, if anything does; `None` if they are not monitored.
    pub fn docker_trouble(&self) -> Option<Option<EngineTrouble>> {
        Some(self.discovery.as_ref()?.trouble())
    }

    /// Whether all sources were listed once: containers and file patterns.
    pub fn is_ready(&self) -> bool {
        (self.discovery.is_none() || self.listed_once) && self.paths.all_found()
    }
}

/// What every connection that follows may bring at once. Nobody knows beforehand which of them will, and a silent one must
/// not hold up the others: so room is reserved for all of them.
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
