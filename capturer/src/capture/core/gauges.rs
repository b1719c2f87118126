//! Gauges that are sums over all streams. They are updated as streams change, so their cost depends on what happens and
//! not on how many files are followed.

use std::collections::{BTreeMap, BTreeSet};

use super::Capture;
use crate::capture::io::FileNo;
use crate::capture::stream::file::FileSource;
use crate::capture::stream::{Kind, State, Stream};
use crate::model::clock::Now;
use crate::model::record::{StreamId, StreamKey};

#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Streams with unread bytes, as far as known, or with unacknowledged batches.
    busy: BTreeSet<StreamId>,
    /// Followed streams of containers, each counted once however many outlets read it.
    following: i64,
    /// Followed paths, counted likewise. Skipped files that are not text do not count.
    files: i64,
    /// Streams of the Engine's API.
    api: u64,
    /// Streams whose file is not text, one for each source.
    not_text: BTreeSet<StreamId>,
}

/// What one stream adds to the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    follows: bool,
    file: bool,
    api: bool,
}

impl Counted {
    pub(super) fn of(stream: &Stream) -> Counted {
        let first = stream.source.outlet.index == 0;
        let follows = first && stream.source.container.is_some() && stream.state() == State::Following;
        let file = first && stream.source.path.is_some() && !stream.is_left_out();
        Counted { follows, file, api: matches!(stream.kind, Kind::Api(_)) }
    }
}

impl Sums {
    /// Streams with something to read or to be acknowledged.
    pub(super) fn busy(&self) -> impl Iterator<Item = &StreamId> {
        self.busy.iter()
    }

    pub(super) fn is_busy(&self, stream: StreamId) -> bool {
        self.busy.contains(&stream)
    }

    /// Streams whose file is not text; if several outlets read it, one of them.
    pub(super) fn not_text(&self) -> impl Iterator<Item = &StreamId> {
        self.not_text.iter()
    }

    pub(super) fn added(&mut self, stream: &Stream) {
        self.api += u64::from(Counted::of(stream).api);
        self.files += i64::from(Counted::of(stream).file);
        self.following += i64::from(Counted::of(stream).follows);
        self.note_busy(stream);
    }

    /// A stream has changed.
    pub(super) fn changed(&mut self, stream: &Stream, before: Counted) {
        let now = Counted::of(stream);
        self.following += i64::from(now.follows) - i64::from(before.follows);
        self.files += i64::from(now.file) - i64::from(before.file);
        // A container's log that can't be read from its file any more is read from the API.
        self.api = self.api + u64::from(now.api) - u64::from(before.api);
        self.note_busy(stream);
    }

    pub(super) fn removed(&mut self, stream: &Stream) {
        self.files -= i64::from(Counted::of(stream).file);
        self.following -= i64::from(Counted::of(stream).follows);
        self.api -= u64::from(Counted::of(stream).api);
        self.busy.remove(&stream.source.id);
        self.not_text.remove(&stream.source.id);
    }

    fn note_busy(&mut self, stream: &Stream) {
        let waits = stream.oldest_sent_ms().is_some() || stream.unmeasured().next().is_some();
        if waits || stream.unread_bytes() != (0, 0) {
            self.busy.insert(stream.source.id);
        } else {
            self.busy.remove(&stream.source.id);
        }
        if stream.source.outlet.index == 0 && matches!(&stream.kind, Kind::File(file) if !file.is_text()) {
            self.not_text.insert(stream.source.id);
        } else {
            self.not_text.remove(&stream.source.id);
        }
    }
}

impl Capture {
    /// Sets the gauges; the loop calls it once a second. What several outlets have to read counts once, for the outlet that
    /// is furthest behind.
    pub fn refresh_gauges(&self, now: Now) {
        self.check_sums();
        let mut behind = vec![(0, 0); self.outlets.len()];
        let mut oldest = now.mono_ms;
        for stream in self.sums.busy().filter_map(|id| self.streams.get(id)) {
            let outlet = usize::from(stream.source.outlet.index);
            behind[outlet].0 += stream.lag_bytes().unwrap_or(0);
            behind[outlet].1 += stream.unread_bytes().1;
            oldest = oldest.min(stream.oldest_sent_ms().unwrap_or(oldest));
        }
        let lag = behind.iter().map(|(lag, _)| *lag).max().unwrap_or(0);
        let deleted = behind.iter().map(|(_, held)| *held).max().unwrap_or(0);
        self.metrics.capture_lag_bytes.set(lag as i64);
        self.metrics.deleted_open_bytes.set(deleted as i64);
        self.metrics.containers_monitored.set(self.captured_containers(now) as i64);
        self.metrics.container_streams_active.set(self.sums.following);
        self.metrics.files_monitored.set(self.sums.files - self.unreadable_files() as i64);
        self.metrics.capture_lag_seconds.set((now.mono_ms - oldest) as f64 / 1000.0);
        self.metrics.container_stream_pool_utilization.set(self.shared.pool.utilization());
        let buffers = self.outlets.iter().map(|outlet| outlet.credit.bytes());
        let (used, limit) = buffers.fold((0, 0), |(used, limit), (out, max)| (used + out, limit + max));
        self.metrics.buffer_bytes.set(used as i64);
        self.metrics.buffer_limit_bytes.set(limit as i64);
        for outlet in &self.outlets {
            let waiting = outlet.credit.batches_out() as i64;
            for sink in outlet.names.iter() {
                self.metrics.sink_batches_waiting.with_label_values(&[sink]).set(waiting);
            }
        }
    }

    /// Open files that may have grown while their streams don't read. Their lengths are wanted, now and then, for
    /// [`Capture::measured`]: without a look the agent would say that it is not behind just when it is.
    pub fn unmeasured(&self) -> Vec<(StreamId, FileNo)> {
        let streams = self.sums.busy().filter_map(|id| self.streams.get(id));
        streams.flat_map(|stream| stream.unmeasured().map(|file| (stream.source.id, file))).collect()
    }

    /// A file was measured. That changes what is reported of the stream, now and if the file is emptied or deleted, but not
    /// what the stream does.
    pub fn measured(&mut self, stream: StreamId, file: FileNo, len: u64) {
        self.note_of_file(stream, |source| source.measured(file, len));
    }

    /// The opening of a file waits for a descriptor. That changes what is reported of the stream, and not what it does.
    pub(super) fn file_waits(&mut self, stream: StreamId, file: FileNo, len: Option<u64>) {
        self.note_of_file(stream, |source| source.waits_for_descriptor(file, len));
    }

    /// Notes what was learnt of a stream's files. It may have something to read by that, as far as is known.
    fn note_of_file(&mut self, stream: StreamId, note: impl FnOnce(&mut FileSource)) {
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        if let Kind::File(source) = &mut stream.kind {
            note(source);
            self.sums.note_busy(stream);
        }
    }

    /// How many streams there are.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Streams, those of them that follow the Engine's API, and containers.
    pub fn counts(&self) -> (u64, u64, u64) {
        let from = StreamKey::container("");
        let containers = self.ids.range(&from..).take_while(|(key, _)| key.0.starts_with(&*from.0));
        (self.streams.len() as u64, self.sums.api, containers.count() as u64)
    }

    /// Names of containers, by the keys of their streams.
    pub fn container_names(&self) -> BTreeMap<StreamKey, String> {
        let from = StreamKey::container("");
        let containers = self.ids.range(&from..).take_while(|(key, _)| key.0.starts_with(&*from.0));
        let named = containers.filter_map(|(key, streams)| {
            let container = self.streams.get(streams.first()?)?.source.container.as_ref()?;
            Some((key.clone(), container.name.clone()))
        });
        named.collect()
    }

    /// The sums are what counting all streams would give. The simulation calls this after each event.
    pub fn check_sums(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut sums = Sums::default();
        self.streams.values().for_each(|stream| sums.added(stream));
        let all =
            |sums: &Sums| (sums.busy.clone(), sums.not_text.clone(), sums.following, sums.files, sums.api);
        assert_eq!(all(&self.sums), all(&sums), "a stream changed behind the core's back");
    }
}
