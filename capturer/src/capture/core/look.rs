//! What to report of sources in trouble: those that can't be read, those that read nothing although there is something, and
//! what was lost. It is asked for once a second; nothing here changes what streams do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Capture, Kind, Loss, Losses, Stream};
use crate::capture::discover::Unmatched;
use crate::capture::io::{Action, Event, FileError, FileNo, FoundFile};
use crate::capture::stream::State;
use crate::capture::stream::file::{FileSource, NotText};
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FileId};
use crate::model::packed::Pack;
use crate::model::record::{Source, StreamId};
use crate::telemetry::metrics::PassedOver;
use crate::telemetry::metrics::{LossReason, Lost, UnreadableReason};

/// A stream that has something to read and read nothing for this long is stuck.
const STUCK_AFTER_MS: u64 = 10_000;
/// A sink that has held a batch for this long takes nothing.
pub(super) const SINK_WAITS_MS: u64 = 5_000;
/// At most this many sources that can't be read are named in the log.
const UNREADABLE_NAMED_MAX: usize = 50;
/// A sentence names at most this many sources.
const NAMED_MAX: usize = 5;

/// What failed. The same step ends the trouble when it succeeds: a file that is open all the while is not opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Listing,
    /// Of this file: that another one can be opened ends nothing.
    Opening(FileId),
    Reading,
}

#[derive(Debug)]
struct Trouble {
    step: Step,
    reason: UnreadableReason,
    text: String,
}

/// Sources that can't be read, and why.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    by_stream: BTreeMap<StreamId, Trouble>,
    /// Rotated files with unread bytes that can't be read, while all else of their streams is: path, kind and words.
    denied: BTreeMap<StreamId, Vec<(String, UnreadableReason, String)>>,
}

impl Unreadable {
    fn set(&mut self, stream: StreamId, step: Step, error: &FileError) {
        let Some(reason) = reason_of(error) else { return };
        self.by_stream.insert(stream, Trouble { step, reason, text: error.to_string() });
    }

    fn is_of(&self, stream: StreamId, step: Step) -> bool {
        self.by_stream.get(&stream).is_some_and(|trouble| trouble.step == step)
    }

    fn is_of_opening(&self, stream: StreamId) -> bool {
        self.by_stream.get(&stream).is_some_and(|trouble| matches!(trouble.step, Step::Opening(_)))
    }

    /// A step succeeded.
    fn end(&mut self, stream: StreamId, step: Step) {
        if self.is_of(stream, step) {
            self.forget(stream);
        }
    }

    /// What to report of a stream.
    pub(super) fn text(&self, stream: StreamId) -> Option<&str> {
        let denied = || Some(self.denied.get(&stream)?.first()?.2.as_str());
        self.by_stream.get(&stream).map(|trouble| trouble.text.as_str()).or_else(denied)
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.by_stream.remove(&stream);
    }

    /// The stream is over.
    pub(super) fn end_all(&mut self, stream: StreamId) {
        self.forget(stream);
        self.denied.remove(&stream);
    }
}

/// `None` = it was renamed, or is not there yet: it is looked for again.
fn reason_of(error: &FileError) -> Option<UnreadableReason> {
    Some(match error {
        FileError::Changed(_) => return None,
        FileError::Denied(_) => UnreadableReason::Permission,
        FileError::NotRegular(..) => UnreadableReason::NotRegular,
        FileError::NoDirectory(_) => UnreadableReason::NoDirectory,
        FileError::NoDescriptor { .. } => UnreadableReason::NoDescriptor,
        FileError::Other { .. } => UnreadableReason::Other,
    })
}

/// When each file stream last read, and how far it was behind then.
#[derive(Debug, Default)]
pub(super) struct Progress {
    by_stream: BTreeMap<StreamId, Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// How far it was behind at the last look when nothing was wrong. A line without its end stays behind; it is not read
    /// again and again.
    behind: u64,
    /// Since when it may read and does not.
    since_ms: u64,
}

impl Pack for Progress {
    fn pack(&mut self) {
        self.by_stream.pack();
    }
}

impl Progress {
    /// A stream has read; `behind` is what is left.
    fn read(&mut self, stream: StreamId, behind: u64, now_ms: u64) {
        self.by_stream.insert(stream, Reading { behind, since_ms: now_ms });
    }

    /// How long it has read nothing although more is there than when it read last; 0 = nothing is wrong.
    fn stuck_ms(&mut self, stream: StreamId, behind: u64, may_read: bool, now_ms: u64) -> u64 {
        let new = Reading { behind: 0, since_ms: now_ms };
        let reading = self.by_stream.entry(stream).or_insert(new);
        if !may_read || behind <= reading.behind {
            reading.since_ms = now_ms;
        }
        now_ms - reading.since_ms
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.by_stream.remove(&stream);
    }
}

/// A source that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableSource {
    /// Why, as a kind.
    pub reason: UnreadableReason,
    /// Which it is.
    pub whose: String,
    /// Why, in words.
    pub why: String,
}

/// How many sources there is something to report of, and a sentence that names the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: usize,
    /// `name: what`, joined.
    pub text: String,
}

impl Named {
    fn add(&mut self, text: &str) {
        self.count += 1;
        if self.count <= NAMED_MAX {
            let separator = if self.text.is_empty() { "" } else { "; " };
            self.text += &format!("{separator}{text}");
        } else if self.count == NAMED_MAX + 1 {
            self.text += "; and others";
        }
    }
}

impl Capture {
    /// Notes what an event tells about a stream's reading.
    pub(super) fn look_at(&mut self, now: Now, event: &Event) {
        match event {
            // The directory is gone, and the followed path with it.
            Event::Scanned { stream, result: Err(FileError::NoDirectory(_)), .. }
                if self.streams.get(stream).is_some_and(|stream| stream.source.path.is_some()) =>
            {
                self.unreadable.forget(*stream);
            }
            Event::Scanned { stream, result: Err(error), .. } => {
                self.set_unreadable(*stream, Step::Listing, error);
            }
            Event::Scanned { stream, result: Ok(found), .. } if found.is_empty() => {
                self.unreadable.forget(*stream)
            }
            Event::Scanned { stream, result: Ok(_), .. } => self.unreadable.end(*stream, Step::Listing),
            Event::FileOpened { stream, file, result: Ok(_) } => {
                let id = self.opening_id(*stream, *file);
                self.unreadable.end(*stream, Step::Opening(id));
                self.opened.insert(*stream);
            }
            Event::FileOpened { stream, file, result: Err(error) } => {
                let id = self.opening_id(*stream, *file);
                self.set_unreadable(*stream, Step::Opening(id), error);
            }
            Event::FileRead { stream, result: Ok(_), .. } => {
                self.unreadable.end(*stream, Step::Reading);
                if let Some(source) = self.streams.get(stream) {
                    self.progress.read(*stream, source.unread_bytes().0, now.mono_ms);
                }
            }
            Event::FileRead { stream, result: Err(error), .. } => {
                self.set_unreadable(*stream, Step::Reading, error);
            }
            Event::ConnOpened { conn, result } => {
                let Some(stream) = self.conns.get(conn) else { return };
                if matches!(result, Ok((200, _))) {
                    self.opened.insert(*stream);
                } else {
                    self.opened.remove(stream);
                }
            }
            _ => {}
        }
    }

    /// A file that could not be opened may be gone, and then no opening will succeed.
    pub(super) fn end_trouble_of_gone(&mut self, id: StreamId) {
        if self.unreadable.is_of_opening(id) && self.file(id).is_some_and(FileSource::has_opened_all) {
            self.unreadable.forget(id);
        }
    }

    /// Which file is being opened under this number.
    fn opening_id(&self, stream: StreamId, file: FileNo) -> FileId {
        self.file(stream).and_then(|source| source.opening_id(file)).unwrap_or_default()
    }

    /// A listing may have shown files that can't be read, or that can be read again.
    pub(super) fn note_denied(&mut self, id: StreamId) {
        let Some(file) = self.file(id) else { return };
        let row = |(path, error): (String, &FileError)| {
            let text = format!("{error}; what it holds and was not read yet is read once it can be");
            Some((path, reason_of(error)?, text))
        };
        let denied: Vec<_> = file.denied().filter_map(row).collect();
        if denied.is_empty() {
            self.unreadable.denied.remove(&id);
        } else {
            self.unreadable.denied.insert(id, denied);
        }
    }

    /// Of streams that read, once however many outlets there are.
    fn denied(&self) -> impl Iterator<Item = (&Source, &(String, UnreadableReason, String))> {
        let of_first = self.unreadable.denied.iter().filter_map(|(id, denied)| {
            let stream = self.streams.get(id)?;
            let reads = stream.state() != State::Draining && stream.source.outlet.index == 0;
            reads.then_some((&*stream.source, denied))
        });
        of_first.flat_map(|(source, denied)| denied.iter().map(move |denied| (source, denied)))
    }

    fn set_unreadable(&mut self, id: StreamId, step: Step, error: &FileError) {
        let known = self.unreadable.text(id).is_some();
        self.unreadable.set(id, step, error);
        let is_new = !known && self.unreadable.text(id).is_some();
        let followed = self.streams.get(&id).filter(|stream| stream.source.path.is_some());
        if followed.is_some_and(|stream| is_new && !stream.has_lines()) {
            self.shared.actions.push(Action::Withdraw(id));
        }
    }

    /// A container's stream has ended. If nothing came, and its log was never opened or not since the container ran, what it
    /// printed is lost. If the Engine refused what is asked for at the end, because the container was removed, its last lines may
    /// be.
    pub(super) fn note_never_opened(&mut self, now: Now, stream: &Stream) {
        let was_opened = self.opened.remove(&stream.source.id);
        let was_left =
            self.deselected.contains(&stream.source.key) || self.log_facts.is_left(stream.source.id);
        let is_new = *stream.acked() == Cursor::Beginning;
        let is_container = stream.source.container.is_some() && stream.has_run();
        // Its files may have said already what is lost, and how many bytes.
        let is_said = stream.has_lines() || stream.has_lost();
        let is_cut_off = matches!(&stream.kind, Kind::Api(api) if api.is_cut_off());
        if was_left || !is_container {
            return;
        }
        if !was_opened && is_new && !is_said {
            self.metrics.lost(LossReason::ContainerGoneUnread, 0);
        } else if is_cut_off {
            self.metrics.possibly_lost(LossReason::ContainerGoneUnread);
        } else {
            return;
        }
        let (source, sinks) = (name_of(&stream.source), self.sinks_of(&stream.source));
        self.note_losses(now, &source, &sinks, false);
    }

    fn sinks_of(&self, source: &Source) -> String {
        self.outlets[usize::from(source.outlet.index)].names.join(", ")
    }

    /// Notes losses that were counted while this stream was at work.
    pub(super) fn note_losses_of(&mut self, now: Now, id: StreamId, lost: Vec<Lost>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let known = lost.iter().filter(|lost| !lost.possible);
        known.for_each(|lost| stream.note_lost(lost.losses, lost.bytes));
        let Some(stream) = self.streams.get(&id) else { return };
        let (source, sinks) = (name_of(&stream.source), self.sinks_of(&stream.source));
        let waits = stream.oldest_sent_ms().is_some_and(|sent| now.mono_ms >= sent + SINK_WAITS_MS);
        let archive = self.archives.get(&id).cloned();
        self.note_all(now, &source, &sinks, waits, archive.as_deref(), lost);
    }

    /// Takes out files whose names do not tell that they are the stream's (shell/files/aside.rs), and which a pattern finds or
    /// leaves out, or which can't hold anything new. Returns the newest of those left that are not read.
    pub(super) fn leave_to_others(
        &self,
        stream: StreamId,
        result: &mut Result<Vec<FoundFile>, FileError>,
    ) -> Option<String> {
        let found = result.as_mut().ok()?;
        let is_aside =
            |file: &FoundFile| matches!(file.rank, FoundFile::RANK_BY_BIRTH | FoundFile::RANK_STRANGE);
        if !found.iter().any(is_aside) {
            return None;
        }
        let of = self.file(stream)?;
        if of.knows_live(found, self.tracker.memory()) {
            found.retain(|file| !is_aside(file));
            return None;
        }
        let is_of_others = |path: &str| {
            let mut sets = self.settings.file_monitor.files.iter();
            sets.any(|set| {
                set.paths.iter().any(|pattern| pattern.matches_hidden(path))
                    || set.exclude.iter().any(|pattern| pattern.covers(path))
            })
        };
        found.retain(|file| !is_aside(file) || !is_of_others(&of.path_of(&file.name)));
        let strange = found.iter().filter(|file| file.rank == FoundFile::RANK_STRANGE);
        strange.max_by_key(|file| file.id.birth_ns).map(|file| file.name.clone())
    }

    /// The same for losses of a source that has no stream.
    pub(super) fn note_losses(&mut self, now: Now, source: &str, sinks: &str, sink_waited: bool) {
        let lost = self.metrics.take_source_losses();
        self.note_all(now, source, sinks, sink_waited, None, lost);
    }

    /// Notes losses within a sink. The core does not know whose lines they were.
    pub fn note_sink_losses(&mut self, now: Now) {
        let lost = self.metrics.take_sink_losses();
        if lost.is_empty() {
            return;
        }
        let network = self
            .outlets
            .iter()
            .filter(|outlet| outlet.outlet.index > 0)
            .flat_map(|outlet| outlet.names.iter());
        let sinks = network.map(String::as_str).collect::<Vec<_>>().join(", ");
        let sinks = if sinks.is_empty() { self.sinks.join(", ") } else { sinks };
        self.note_all(now, "", &sinks, false, None, lost);
    }

    /// Docker's disk has just become full. Nobody knows how much its containers print meanwhile.
    pub fn note_docker_disk_full(&mut self, now: Now) {
        self.metrics.possibly_lost(LossReason::DockerDiskFull);
        let (sinks, lost) = (self.sinks.join(", "), self.metrics.take_source_losses());
        self.note_all(now, "", &sinks, false, None, lost);
    }

    /// The directory that has the directories of Docker's logs, if one of them is read.
    pub fn docker_logs_directory(&self) -> Option<Arc<str>> {
        let mut containers = self.streams.values().filter(|stream| stream.source.container.is_some());
        let log = containers.find_map(|stream| match &stream.kind {
            Kind::File(file) if stream.is_running() => Some(file.path()),
            _ => None,
        })?;
        let (of_container, _) = log.rsplit_once('/')?;
        of_container.rsplit_once('/').map(|(directory, _)| directory.into())
    }

    fn note_all(
        &mut self,
        now: Now,
        source: &str,
        sinks: &str,
        sink_waited: bool,
        archive: Option<&str>,
        lost: Vec<Lost>,
    ) {
        for Lost { reason, possible, losses, bytes } in lost {
            if !possible {
                self.metrics.lost_for(sinks, losses, bytes);
            }
            let archive = archive.filter(|_| reason.may_be_in_an_archive());
            let loss = Loss { source, sinks, reason, possible, losses, bytes, sink_waited, archive };
            self.losses.note(now.mono_ms, loss);
        }
    }

    /// What was lost lately. The next run takes it over.
    pub fn losses(&mut self) -> &mut Losses {
        &mut self.losses
    }

    /// Sources that can't be read: the first of them, and how many there are for each reason.
    pub fn unreadable(&self) -> (Vec<UnreadableSource>, BTreeMap<UnreadableReason, usize>) {
        let (mut first, mut counts) = (Vec::new(), BTreeMap::new());
        for (id, Trouble { reason, text, .. }) in &self.unreadable.by_stream {
            let Some(stream) = self.streams.get(id) else { continue };
            let reads = matches!(stream.kind, Kind::File(_)) && stream.state() != State::Draining;
            // Once, however many outlets read it.
            if reads && stream.source.outlet.index == 0 {
                *counts.entry(*reason).or_default() += 1;
                if first.len() < UNREADABLE_NAMED_MAX {
                    let (whose, why) = (name_of(&stream.source), text.clone());
                    first.push(UnreadableSource { reason: *reason, whose, why });
                }
            }
        }
        for (source, (path, reason, why)) in self.denied() {
            *counts.entry(*reason).or_default() += 1;
            if first.len() < UNREADABLE_NAMED_MAX {
                let whose = match &source.container {
                    Some(container) => format!("container {} ({path})", container.name),
                    None => format!("file {path}"),
                };
                first.push(UnreadableSource { reason: *reason, whose, why: why.clone() });
            }
        }
        (first, counts)
    }

    /// Paths that file_monitor finds and does not read, by reason; `capturer check` uses the same reasons.
    pub fn passed_over(&self) -> BTreeMap<PassedOver, usize> {
        let mut passed = BTreeMap::from([
            (PassedOver::Rotated, self.paths.rotated()),
            (PassedOver::Older, self.ignored()),
        ]);
        for (id, Trouble { reason, .. }) in &self.unreadable.by_stream {
            let stream = self.streams.get(id).filter(|stream| stream.source.path.is_some());
            let is_first = stream.is_some_and(|stream| stream.source.outlet.index == 0);
            if is_first && *reason == UnreadableReason::Permission {
                *passed.entry(PassedOver::Denied).or_default() += 1;
            }
        }
        let denied = self.denied().filter(|(source, (_, reason, _))| {
            source.path.is_some() && *reason == UnreadableReason::Permission
        });
        *passed.entry(PassedOver::Denied).or_default() += denied.count();
        passed
    }

    /// How many files of file_monitor can't be read.
    pub(super) fn unreadable_files(&self) -> usize {
        let streams = self.unreadable.by_stream.keys().filter_map(|id| self.streams.get(id));
        let files = streams.filter(|stream| stream.source.path.is_some() && stream.source.outlet.index == 0);
        files.filter(|stream| !stream.is_left_out()).count()
    }

    /// Files that are not text, or not in a known encoding: a sentence for each of the first, and whether nothing is wrong
    /// with that. With how many there are for each reason, and how many of them are left out.
    pub fn not_text(&self) -> (Vec<(bool, String)>, BTreeMap<UnreadableReason, usize>, usize) {
        let (mut first, mut counts, mut left_out) = (Vec::new(), BTreeMap::new(), 0);
        for stream in self.sums.not_text().filter_map(|id| self.streams.get(id)) {
            let Kind::File(file) = &stream.kind else { continue };
            if let Some((not_text, path)) = file.not_text() {
                *counts.entry(not_text.reason()).or_default() += 1;
                left_out += usize::from(file.is_left_out());
                if first.len() < UNREADABLE_NAMED_MAX {
                    first.push((not_text == NotText::Binary, not_text.text(&path)));
                }
            }
        }
        (first, counts, left_out)
    }

    /// Streams that have something to read, may read, and read nothing. `short`: files wait for a descriptor, which is said
    /// elsewhere, so nothing is expected of those that are not open. `docker_full`: neither of containers, whose logs may end
    /// within a record that dockerd has no room for.
    pub fn stuck(&mut self, now: Now, short: bool, docker_full: bool) -> Named {
        let mut named = Named::default();
        // A quiet stream has nothing to read, so it can't be stuck. Its time starts when it gets something.
        self.progress.by_stream.retain(|id, _| self.sums.is_busy(*id));
        for id in self.sums.busy() {
            let Some(stream) = self.streams.get(id) else { continue };
            let Kind::File(source) = &stream.kind else { continue };
            let waits_to_open = short && !source.has_open_file();
            let waits_for_docker = docker_full && stream.source.container.is_some();
            let outlet = &self.outlets[usize::from(stream.source.outlet.index)];
            let waits_for_sinks = stream.waits_for_sinks() || !outlet.credit.has_room(super::READ_BYTES);
            let may_read = !waits_for_sinks
                && !waits_to_open
                && !waits_for_docker
                && !self.unreadable.by_stream.contains_key(id);
            let behind = stream.unread_bytes().0;
            let stuck_ms = self.progress.stuck_ms(*id, behind, may_read, now.mono_ms);
            if stuck_ms >= STUCK_AFTER_MS {
                let (name, state) = (name_of(&stream.source), stream.state().as_str());
                let seconds = stuck_ms / 1000;
                named.add(&format!(
                    "{name} is {behind} bytes behind and read nothing for {seconds} s ({state})"
                ));
            }
        }
        named
    }

    /// A source came, or has another name: its pipeline takes something.
    pub(super) fn note_pipeline(&mut self, source: &Source) {
        let name = source.pipeline.as_ref().map(|pipeline| pipeline.name.as_str());
        if let Some(name) = name.filter(|name| !self.used_pipelines.contains(*name)) {
            self.used_pipelines.insert(name.to_owned());
        }
    }

    /// Whether a pipeline took any source in this run.
    pub fn is_used(&self, pipeline: &str) -> bool {
        self.used_pipelines.contains(pipeline)
    }

    /// Patterns of the include lists that match no container.
    pub fn unmatched_names(&self, now: Now) -> Option<Unmatched> {
        self.discovery.as_ref()?.unmatched(&self.settings.container_monitor.select, now.mono_ms)
    }
}

/// The name of a source as people see it.
fn name_of(source: &Source) -> String {
    match (&source.container, &source.path) {
        (Some(container), _) => format!("container {}", container.name),
        (None, Some(path)) => format!("file {path}"),
        (None, None) => source.key.0.to_string(),
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod troubles;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: StreamId = StreamId(1);

    #[test]
    fn a_stream_that_falls_behind_and_reads_nothing_is_stuck() {
        let mut progress = Progress::default();
        assert_eq!(progress.stuck_ms(ONE, 0, true, 1_000), 0);
        assert_eq!(progress.stuck_ms(ONE, 500, true, 2_000), 1_000);
        assert_eq!(progress.stuck_ms(ONE, 700, true, 12_000), 11_000);
        progress.read(ONE, 200, 12_500);
        assert_eq!(progress.stuck_ms(ONE, 200, true, 60_000), 0, "a line without its end");
        assert_eq!(progress.stuck_ms(ONE, 201, true, 61_000), 1_000);
    }

    /// If a sink is away, the sink reports that.
    #[test]
    fn one_that_may_not_read_is_not() {
        let mut progress = Progress::default();
        assert_eq!(progress.stuck_ms(ONE, 500, false, 1_000), 0);
        assert_eq!(progress.stuck_ms(ONE, 900, false, 60_000), 0);
        assert_eq!(progress.stuck_ms(ONE, 900, true, 65_000), 5_000);
    }

    #[test]
    fn the_first_are_named_and_all_are_counted() {
        let mut named = Named::default();
        (0..9).for_each(|number| named.add(&number.to_string()));
        assert_eq!(named, Named { count: 9, text: "0; 1; 2; 3; 4; and others".to_owned() });
    }
}
