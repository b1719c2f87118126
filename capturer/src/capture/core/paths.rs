//! Followed paths: what the patterns of `file_monitor` match becomes streams, and what no longer matches drains.

mod doubts;
mod follow;
mod olddir;
mod rotated;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::{Capture, split_path};
use crate::capture::checkpoint::memory::{LiveFile, View};
use crate::capture::context::Timer;
use crate::capture::io::{Action, FileError, FoundFile, FoundPath, LaneId};
use crate::capture::owners::Group;
use crate::capture::stream::Kind;
use crate::capture::stream::chain::Remembers;
use crate::capture::stream::file::{FileSource, Reader};
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FileId, FilePlace, HeadPrint};
use crate::model::record::{StreamId, StreamKey};
use crate::model::rotated_name;
use crate::settings::FileSet;
use crate::telemetry::metrics::LossReason;

/// How long to rest after a look at the patterns, in multiples of the time the look took: new files never keep a thread busy.
const LOOK_REST: u64 = 4;
/// The longest rest.
const LOOK_REST_MS_MAX: u64 = 10_000;
/// A look takes some microseconds per file, and more per directory. So for each path found, looks are this much further
/// apart: above a thousand files they get rarer, and cost no more.
const LOOK_INTERVAL_MS_PER_PATH: u64 = 30;
/// Looks are never rarer than this.
const LOOK_INTERVAL_MS_MAX: u64 = 600_000;
/// An answer that equals the last one is handled this often all the same, because the table of files read forgets what it
/// does not see.
const SETTLED_MS: u64 = 12 * 60 * 60 * 1000;
/// Names of which it is remembered that somebody was told of them; then they are told once more.
const TOLD_MAX: usize = 10_000;
/// A path that is missing for this long is gone. Shorter gaps are rotations: renamed away, not yet made again.
const GONE_AFTER_MS: u64 = 10_000;

/// What is known of the patterns.
#[derive(Debug)]
pub(super) struct Paths {
    /// By index in `file_monitor.files`: the last answer of each part of an entry. A part is a file system that may
    /// hang, or `None` for all that may not. A part that hangs keeps its last answer.
    found: Vec<BTreeMap<Option<LaneId>, PartFiles>>,
    /// First answers, by entry, until all entries have one: where the rotated files of a log are may be known by a later
    /// entry alone, and a log that is begun can't go back to them.
    held: BTreeMap<usize, HeldAnswer>,
    /// By entry: why its paths are read from files, as rows of streams have it.
    reasons: Vec<Arc<str>>,
    /// By entry: the file systems that may hang to which it leads.
    lanes: Vec<Vec<LaneId>>,
    /// Paths that no longer match.
    missing: BTreeMap<String, Missing>,
    /// By entry: when it was first looked at, nanoseconds since 1970.
    since_ns: Vec<i64>,
    /// Directories that patterns name, and in which files are searched for.
    looked_into: BTreeSet<String>,
    /// By log: directories below its own in which its rotated files were found, as paths from there.
    olddirs: BTreeMap<String, BTreeSet<String>>,
    /// Names of logs whose rotated files may be in a directory below.
    live_with_olddir: BTreeSet<String>,
    /// Paths of files that another stream reads, and that it was told of. With the length of those that inotify does
    /// not watch, otherwise 0.
    told: BTreeSet<(String, FileId, u64)>,
    looking: Vec<Looking>,
    /// Files that may be copies of logs that are followed.
    doubts: BTreeMap<StreamId, doubts::DoubtedFile>,
    /// By entry: hash of its last local answer, if all that it named is followed.
    settled: Vec<Option<Settled>>,
    /// When to look at all patterns even if no change was reported.
    sweep_ms: u64,
    /// Directory of the last followed path, which the next one mostly shares.
    directory: Arc<str>,
}

/// A local answer that waits for those of other entries.
#[derive(Debug)]
struct HeldAnswer {
    lanes: Vec<LaneId>,
    found: Vec<FoundPath>,
}

/// The state of the looks at an entry's patterns.
#[derive(Clone, Debug, Default)]
struct Looking {
    /// When the look under way began.
    since_ms: Option<u64>,
    /// Something has changed since then, which the look under way may have missed.
    again: bool,
    /// No look begins before this time.
    rest_until_ms: u64,
}

/// The last answer of a part.
#[derive(Clone, Debug)]
struct PartFiles {
    at_ms: u64,
    paths: BTreeSet<Arc<str>>,
    /// How many are rotated files of other logs, and are read with those.
    rotated: usize,
}

/// A local answer, all of which is followed.
#[derive(Clone, Copy, Debug)]
struct Settled {
    hash: u64,
    at_ms: u64,
}

/// How a path was found.
#[derive(Clone, Copy, Debug, Default)]
struct Look<'a> {
    /// In the first look at its patterns.
    is_first: bool,
    /// Its identity; `None` = unknown.
    id: Option<FileId>,
    /// The patterns match rotated files of it, too.
    with_rotated: bool,
    /// Where the links on its way lead.
    target: Option<&'a str>,
}

/// A path that no part of any entry named in its last answer.
#[derive(Debug)]
struct Missing {
    since_ms: u64,
    /// The part that named it last; `None` = before this run, any part may have.
    part: Option<Option<LaneId>>,
}

impl Missing {
    fn due_ms(&self) -> u64 {
        self.since_ms + GONE_AFTER_MS
    }
}

/// A hash of a look's answer.
fn hash_of(found: &[FoundPath]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for FoundPath { path, id, target, .. } in found {
        (path, target, id.device, id.inode, id.birth_ns).hash(&mut hasher);
    }
    hasher.finish()
}

impl Paths {
    pub(super) fn new(files: &[FileSet]) -> Paths {
        let sets = files.len();
        let patterns = files.iter().flat_map(|set| &set.paths);
        Paths {
            found: vec![BTreeMap::new(); sets],
            held: BTreeMap::new(),
            reasons: (0..sets).map(|set| format!("matches file_monitor.files[{set}]").into()).collect(),
            lanes: vec![Vec::new(); sets],
            missing: BTreeMap::new(),
            since_ns: vec![i64::MAX; sets],
            looked_into: patterns.flat_map(|pattern| pattern.directories()).collect(),
            olddirs: BTreeMap::new(),
            live_with_olddir: BTreeSet::new(),
            told: BTreeSet::new(),
            looking: vec![Looking::default(); sets],
            doubts: BTreeMap::new(),
            sweep_ms: 0,
            directory: Arc::default(),
            settled: vec![None; sets],
        }
    }

    /// Paths that patterns match and that are read as rotated files of others.
    pub(super) fn rotated(&self) -> usize {
        self.found.iter().flatten().map(|(_, answer)| answer.rotated).sum()
    }

    /// Notes that a stream is told of this file's name and length. Returns whether this is new.
    fn tell(&mut self, path: &str, file: FileId, len: u64) -> bool {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert((path.to_owned(), file, len))
    }

    pub(super) fn all_found(&self) -> bool {
        self.found.iter().all(|parts| parts.contains_key(&None))
    }

    /// Whether an answer equals the last one, and everything in that is followed.
    fn is_settled(&self, set: usize, hash: u64, now_ms: u64) -> bool {
        self.settled[set].is_some_and(|last| last.hash == hash && now_ms < last.at_ms + SETTLED_MS)
    }

    /// A path's stream has ended. What its entry finds must be followed again, even if it is the same as before.
    pub(super) fn unsettle(&mut self) {
        self.settled.fill(None);
    }

    /// Whether the path has been missing for long enough, and its part has confirmed that. Parts answer one by one, and
    /// other parts never name it. A part that hangs keeps only its own paths.
    fn is_gone(&self, missing: &Missing, now_ms: u64) -> bool {
        let mut parts = self.found.iter().flatten();
        let concerns = |part: &Option<LaneId>| missing.part.is_none_or(|own| own == *part);
        missing.due_ms() <= now_ms
            && parts.all(|(part, answer)| !concerns(part) || answer.at_ms >= missing.due_ms())
    }

    /// Whether file systems that may hang have answered, too.
    fn everything_found(&self) -> bool {
        let answered = |(parts, lanes): (&BTreeMap<_, _>, &Vec<LaneId>)| {
            lanes.iter().all(|lane| parts.contains_key(&Some(*lane)))
        };
        self.all_found() && self.found.iter().zip(&self.lanes).all(answered)
    }
}

impl Remembers for View<'_> {
    fn place_of(&self, file: FileId) -> Option<FilePlace> {
        View::place_of(self, file)
    }

    fn any_head(&self, is_it: &dyn Fn(&HeadPrint) -> bool) -> bool {
        View::any_head(self, is_it)
    }

    fn moved(&self, file: &FoundFile, is_here: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace> {
        // The length tells it from others that begin alike. An archive gives it modulo 4 GiB.
        let fits = |place: &FilePlace| match file.compressed {
            true => file.unpacked_len.is_none_or(|len| len >= place.offset as u32),
            false => file.len >= place.offset,
        };
        View::moved(self, &file.head, |place| place.file != file.id && fits(place), is_here)
    }

    fn moved_live(
        &self,
        file: &FoundFile,
        is_here: &dyn Fn(&FilePlace) -> Option<bool>,
    ) -> Option<FilePlace> {
        let FoundFile { id, len, head, modified_ns, .. } = file;
        View::moved_live(self, LiveFile { id: *id, len: *len, head, modified_ns: *modified_ns }, is_here)
    }
}

impl Capture {
    /// Looks at the patterns of an entry as soon as that is allowed.
    pub(super) fn find_paths(&mut self, now: Now, set: usize) {
        let looking = &mut self.paths.looking[set];
        if looking.since_ms.is_some() {
            looking.again = true;
        } else if now.mono_ms < looking.rest_until_ms {
            looking.again = true;
            self.shared.timers.set_earlier(Timer::Paths, looking.rest_until_ms);
        } else {
            looking.since_ms = Some(now.mono_ms);
            looking.again = false;
            self.shared.actions.push(Action::FindPaths { set });
        }
    }

    /// Looks at all patterns.
    pub(super) fn find_all_paths(&mut self, now: Now) {
        (0..self.settings.file_monitor.files.len()).for_each(|set| self.find_paths(now, set));
    }

    fn end_look(&mut self, now: Now, set: usize) {
        let looking = &mut self.paths.looking[set];
        let took_ms = looking.since_ms.take().map_or(0, |since_ms| now.mono_ms - since_ms);
        looking.rest_until_ms = now.mono_ms + (took_ms * LOOK_REST).min(LOOK_REST_MS_MAX);
        if looking.again && self.stopping.is_none() {
            self.find_paths(now, set);
        }
    }

    pub(super) fn plan_paths_look(&mut self, now: Now) {
        if self.settings.file_monitor.files.is_empty() {
            return;
        }
        // A path whose time is over waits for its part, which may hang. Looking again at once would spin.
        let due = self.paths.missing.values().map(Missing::due_ms).filter(|due_ms| *due_ms > now.mono_ms);
        self.paths.sweep_ms = due.min().unwrap_or(u64::MAX).min(now.mono_ms + self.sweep_interval_ms());
        self.set_paths_timer();
    }

    /// How often to look at the patterns, besides when inotify reports something new in their directories.
    pub fn sweep_interval_ms(&self) -> u64 {
        let set_ms = self.settings.file_monitor.sweep_interval.as_millis() as u64;
        // Files that another host makes are only found by a look.
        if self.paths.lanes.iter().any(|lanes| !lanes.is_empty()) {
            return set_ms;
        }
        let paths: usize = self.paths.found.iter().flatten().map(|(_, answer)| answer.paths.len()).sum();
        set_ms.max((paths as u64 * LOOK_INTERVAL_MS_PER_PATH).min(LOOK_INTERVAL_MS_MAX))
    }

    fn set_paths_timer(&mut self) {
        let waiting = self.paths.looking.iter().filter(|looking| looking.again && looking.since_ms.is_none());
        let soonest = waiting.map(|looking| looking.rest_until_ms).min().unwrap_or(u64::MAX);
        self.shared.timers.set(Timer::Paths, self.paths.sweep_ms.min(soonest));
    }

    pub(super) fn on_paths_timer(&mut self, now: Now) {
        if now.mono_ms >= self.paths.sweep_ms {
            // Not plan_paths_look: the answer drops paths that have been missing for long; until then their time is
            // over.
            self.paths.sweep_ms = now.mono_ms + self.sweep_interval_ms();
            self.find_all_paths(now);
        } else {
            let again = |set: &usize| self.paths.looking[*set].again;
            let waiting: Vec<usize> = (0..self.paths.looking.len()).filter(again).collect();
            waiting.into_iter().for_each(|set| self.find_paths(now, set));
        }
        self.set_paths_timer();
    }

    pub(super) fn on_paths_found(
        &mut self,
        now: Now,
        set: usize,
        lane: Option<LaneId>,
        lanes: &[LaneId],
        found: Vec<FoundPath>,
    ) {
        if lane.is_none() {
            self.end_look(now, set);
        }
        if self.stopping.is_some() {
            return;
        }
        if lane.is_none() && !self.paths.all_found() {
            self.paths.since_ns[set] = self.paths.since_ns[set].min(now.unix_ns);
            self.paths.held.insert(set, HeldAnswer { lanes: lanes.to_vec(), found });
            if self.paths.held.len() == self.settings.file_monitor.files.len() {
                let held = std::mem::take(&mut self.paths.held);
                self.note_olddirs(&held);
                for (set, HeldAnswer { lanes, found }) in held {
                    self.take_answer(now, set, None, &lanes, found);
                }
            }
            return;
        }
        self.take_answer(now, set, lane, lanes, found);
    }

    fn take_answer(
        &mut self,
        now: Now,
        set: usize,
        lane: Option<LaneId>,
        lanes: &[LaneId],
        found: Vec<FoundPath>,
    ) {
        let hash = hash_of(&found);
        if lane.is_none() && self.paths.is_settled(set, hash, now.mono_ms) && self.paths.lanes[set] == lanes {
            if let Some(answer) = self.paths.found[set].get_mut(&lane) {
                answer.at_ms = now.mono_ms;
            }
            self.drop_missing(now);
            return self.plan_paths_look(now);
        }
        let named = found.len();
        let first_look = !self.paths.found[set].contains_key(&lane);
        let first_of_all = !self.paths.everything_found();
        self.tracker.memory_mut().see(found.iter().map(|found| (found.id, found.len)));
        let older = self.older(now, set, &found);
        let mut ids = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for FoundPath { path, id, target, .. } in &found {
            targets.extend(target.clone().map(|target| (Arc::clone(path), target)));
            ids.insert(Arc::clone(path), *id);
        }
        let (paths, mut with_rotated) = self.without_rotated(ids.keys().cloned().collect());
        let (paths, mut with_moved) = self.without_moved(now, paths, &found);
        with_rotated.append(&mut with_moved);
        let rotated = ids.len() - paths.len();
        let paths = self.without_others(now, paths, &ids, &targets, first_of_all);
        self.tell_older(now, set, &older, &paths);
        for path in &paths {
            let came_back = self.paths.missing.remove(&**path).is_some();
            let target = targets.get(path).map(String::as_str);
            for id in self.ids_of(&StreamKey::file(path)) {
                self.with_file(now, id, |file, cx, told| {
                    file.on_path_found(came_back || ids.get(path).is_some_and(|id| !file.reads(*id)), cx);
                    file.lead_to(target.unwrap_or(path), cx, told);
                });
            }
            let id = ids.get(path).copied();
            let look =
                Look { is_first: first_look, id, with_rotated: with_rotated.contains(&**path), target };
            self.follow_path(now, set, path, look);
        }
        if lane.is_none() {
            // A file that another stream reads may become free.
            let settled = Settled { hash, at_ms: now.mono_ms };
            self.paths.settled[set] = (paths.len() == named).then_some(settled);
        }
        let parts = &mut self.paths.found[set];
        let answer = PartFiles { at_ms: now.mono_ms, paths, rotated };
        let mut before: Vec<(Option<LaneId>, PartFiles)> =
            parts.insert(lane, answer).map(|answer| (lane, answer)).into_iter().collect();
        if lane.is_none() {
            self.paths.lanes[set] = lanes.to_vec();
            // Where the patterns no longer lead, a file system was unmounted.
            let leads_to = |part: &Option<LaneId>| part.is_none_or(|part| lanes.contains(&part));
            before.extend(parts.extract_if(.., |part, _| !leads_to(part)));
        }
        let mut shown: Option<BTreeSet<FileId>> = None;
        for (part, answer) in before {
            for path in answer.paths {
                if !self.is_matched(&path) {
                    let missing = Missing { since_ms: now.mono_ms, part: Some(part) };
                    self.paths.missing.entry(path.to_string()).or_insert(missing);
                    // What it held may be found in a copy, as when its directory was moved to another file system.
                    let shown = shown.get_or_insert_with(|| ids.values().copied().collect());
                    self.tracker.miss(&StreamKey::file(&path), |file| shown.contains(&file));
                }
            }
        }
        if shown.is_some() {
            self.plan_save(now);
        }
        if first_of_all && self.paths.everything_found() {
            self.tracker.all_seen(now.unix_ns);
            self.follow_what_went(now);
        }
        self.drop_missing(now);
        self.plan_paths_look(now);
    }

    /// A file came and went between two looks. Nobody knows whether it had any lines.
    pub(super) fn on_file_vanished(&mut self, now: Now, set: usize, name: &str, path: Option<&str>) {
        // Its path was found: if its stream finds nothing there, that is this very loss.
        let ids = path.map_or_else(Vec::new, |path| self.ids_of(&StreamKey::file(path)));
        for id in ids {
            self.with_file(now, id, |file, _, _| file.vanish_is_counted());
        }
        // A copy of a log that was compressed at once is read from its archive, and the log knows what it misses.
        if rotated_name::live_names(name).any(|live| self.paths.live_with_olddir.contains(&live)) {
            return;
        }
        self.metrics.possibly_lost(LossReason::FileNeverOpened);
        self.note_losses(now, &format!("file_monitor.files[{set}]"), &self.sinks.join(", "), false);
        tracing::debug!(
            set,
            name,
            "a file was removed before it could be opened; what stood in it is not read"
        );
    }

    /// Tells streams about files that another stream no longer reads.
    pub(super) fn tell_released(&mut self, now: Now) {
        for id in self.shared.owners.take_released() {
            self.with_file(now, id, |file, cx, _| file.on_chain_changed(cx));
        }
        if self.shared.owners.take_paths_released() {
            self.find_all_paths(now);
        }
    }

    pub(super) fn file(&self, id: StreamId) -> Option<&FileSource> {
        match &self.streams.get(&id)?.kind {
            Kind::File(file) => Some(file),
            Kind::Api(_) => None,
        }
    }

    fn group(&self, outlet: usize) -> Group {
        Group { outlet: self.outlets[outlet].outlet.index, of_paths: true }
    }

    /// What is known of a log for an outlet, and which stream reads it there.
    pub(super) fn known_of(&self, key: &StreamKey, outlet: usize) -> (Vec<FilePlace>, Reader) {
        let sinks = self.outlets[outlet].tracked.clone();
        let group = Group { of_paths: key.0.starts_with("file:"), ..self.group(outlet) };
        let memory = self.tracker.memory().of(&sinks, group.of_paths);
        let mut places = Vec::new();
        if let Some(path) = key.0.strip_prefix("file:") {
            // Its name may be that of a copy of a log that is gone. Then that log's positions count here.
            let (directory, name) = split_path(path);
            let logs =
                rotated_name::live_names(&name).map(|live| StreamKey::file(&format!("{directory}/{live}")));
            places.extend(logs.flat_map(|log| memory.places(&log)));
        }
        places.extend(memory.places(key));
        (places, Reader { group, sinks })
    }

    /// Positions that count for a listing besides those of its stream: its live file may be a copy that was not read
    /// yet.
    pub(super) fn known_of_copies(
        &self,
        stream: StreamId,
        found: &Result<Vec<FoundFile>, FileError>,
    ) -> Vec<FilePlace> {
        let live = found.as_ref().ok().and_then(|found| found.iter().find(|file| file.rank == 0));
        let (Some(live), Some(file)) = (live, self.file(stream)) else { return Vec::new() };
        let is_path = self.streams.get(&stream).is_some_and(|stream| stream.source.path.is_some());
        if is_path && !file.reads(live.id) {
            self.copied_from(&file.path(), file.sinks())
        } else {
            Vec::new()
        }
    }

    /// Where the logs were left that may have been copied to this path, in a directory below theirs (logrotate's
    /// `olddir`): the positions that all sinks have acknowledged.
    fn copied_from(&self, path: &str, sinks: &[String]) -> Vec<FilePlace> {
        let memory = self.tracker.memory().of(sinks, true);
        let mut places = Vec::new();
        for (log, _) in rotated_name::logs_above(path) {
            let log = StreamKey::file(&log);
            places.extend(memory.places(&log));
            if let Some(Cursor::File(left)) = self.tracker.resume_for(&log, sinks) {
                places.push(FilePlace { skip: [0; 2], ..left.place() });
            }
        }
        places
    }

    fn is_matched(&self, path: &str) -> bool {
        self.paths.found.iter().flatten().any(|(_, answer)| answer.paths.contains(path))
    }

    fn drop_missing(&mut self, now: Now) {
        let gone: Vec<String> = self
            .paths
            .missing
            .iter()
            .filter(|(_, missing)| self.paths.is_gone(missing, now.mono_ms))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.paths.missing.remove(&path);
            for id in self.ids_of(&StreamKey::file(&path)) {
                self.with_stream(now, id, |stream, cx| stream.gone("the file is gone", cx));
            }
        }
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
