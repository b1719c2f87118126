//! Followed paths: what the patterns of `file_monitor` match becomes streams, and what no longer matches drains.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::{Capture, split_path};
use crate::capture::checkpoint::memory::View;
use crate::capture::context::Timer;
use crate::capture::io::{Action, FoundPath, LaneId};
use crate::capture::owners::Group;
use crate::capture::stream::Kind;
use crate::capture::stream::chain::{Remembers, Start};
use crate::capture::stream::file::{FileSource, Reader};
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FileId, FilePlace, HeadPrint};
use crate::model::record::{Source, StreamId, StreamKey};
use crate::model::rotated_name;
use crate::model::rotated_name::RotatedName;
use crate::settings::{FileSet, StartAt, pipeline};

/// The rest after a look at the patterns, in multiples of the time that the look took: new files never keep a thread busy.
const LOOK_REST: u64 = 4;
/// The longest rest.
const LOOK_REST_MS_MAX: u64 = 10_000;
/// A look takes some microseconds for each file, and more for a directory: so much time is between two looks for each that
/// was found. Above a thousand files looks get rarer, and cost no more.
const LOOK_INTERVAL_MS_PER_PATH: u64 = 30;
/// Looks are never rarer than this.
const LOOK_INTERVAL_MS_MAX: u64 = 600_000;
/// An answer like the last one is looked at this often all the same: the table of files read keeps what it sees.
const SETTLED_MS: u64 = 12 * 60 * 60 * 1000;
/// Names of which it is remembered that somebody was told of them; then they are told once more.
const TOLD_MAX: usize = 10_000;
/// Followed paths that begin alike and are looked at, for one that is found.
const ALIKE_MAX: usize = 256;
/// A path that is missing for this long is gone. Shorter gaps are rotations: renamed away, not yet made again.
const GONE_AFTER_MS: u64 = 10_000;

/// What is known of the patterns.
#[derive(Debug)]
pub(super) struct Paths {
    /// By index in `file_monitor.files`: what each part of an entry answered last. A part is a file system that may hang,
    /// or `None` for all that may not. One that hangs keeps what it had.
    found: Vec<BTreeMap<Option<LaneId>, PartFiles>>,
    /// File systems that may hang, to which each entry leads.
    lanes: Vec<Vec<LaneId>>,
    /// Paths that ceased to match.
    missing: BTreeMap<String, Missing>,
    /// When each entry was looked at first, nanoseconds since 1970.
    since_ns: Vec<i64>,
    /// Paths of files that others read, who were told of the name.
    told: BTreeSet<(String, FileId)>,
    looking: Vec<Looking>,
    /// By entry: hash of its last local answer, if all that it named is followed.
    settled: Vec<Option<Settled>>,
    /// When all patterns are looked at, though nothing was told of them.
    sweep_ms: u64,
}

/// Looks at the patterns of an entry.
#[derive(Clone, Debug, Default)]
struct Looking {
    /// When the look under way began.
    since_ms: Option<u64>,
    /// Something changed since; this look may have missed it.
    again: bool,
    /// No look begins before this time.
    rest_until_ms: u64,
}

/// The last answer of a part.
#[derive(Clone, Debug)]
struct PartFiles {
    at_ms: u64,
    paths: BTreeSet<String>,
    /// Rotated files of others: read with those.
    rotated: usize,
}

/// A local answer, all of which is followed.
#[derive(Clone, Copy, Debug)]
struct Settled {
    hash: u64,
    at_ms: u64,
}

/// What is known of how a path was found.
#[derive(Clone, Copy, Debug, Default)]
struct Look<'a> {
    /// When its patterns were looked at for the first time.
    is_first: bool,
    /// Which file it is; `None` = nobody looked.
    id: Option<FileId>,
    /// They match rotated files of it too.
    with_rotated: bool,
    /// Where links on its way lead.
    target: Option<&'a str>,
}

/// A path that no part of any entry names.
#[derive(Debug)]
struct Missing {
    since_ms: u64,
    /// The part that named it last; `None` = any may have, before this run.
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
    pub(super) fn new(sets: usize) -> Paths {
        Paths {
            found: vec![BTreeMap::new(); sets],
            lanes: vec![Vec::new(); sets],
            missing: BTreeMap::new(),
            since_ns: vec![i64::MAX; sets],
            told: BTreeSet::new(),
            looking: vec![Looking::default(); sets],
            sweep_ms: 0,
            settled: vec![None; sets],
        }
    }

    /// Paths that patterns match and that are read as rotated files of others.
    pub(super) fn rotated(&self) -> usize {
        self.found.iter().flatten().map(|(_, answer)| answer.rotated).sum()
    }

    pub(super) fn all_found(&self) -> bool {
        self.found.iter().all(|parts| parts.contains_key(&None))
    }

    /// An answer says what the last one said, all of which is followed.
    fn is_settled(&self, set: usize, hash: u64, now_ms: u64) -> bool {
        self.settled[set].is_some_and(|last| last.hash == hash && now_ms < last.at_ms + SETTLED_MS)
    }

    /// A path's stream has ended: what its entry finds is to be followed again, also if it is the same as before.
    pub(super) fn unsettle(&mut self) {
        self.settled.fill(None);
    }

    /// Missing for long, and still so by the word of the part it belongs to. Parts answer one by one: another's answer,
    /// which never names it, says nothing. One that hangs keeps its own paths and nobody else's.
    fn is_gone(&self, missing: &Missing, now_ms: u64) -> bool {
        let mut parts = self.found.iter().flatten();
        let concerns = |part: &Option<LaneId>| missing.part.is_none_or(|own| own == *part);
        missing.due_ms() <= now_ms
            && parts.all(|(part, answer)| !concerns(part) || answer.at_ms >= missing.due_ms())
    }

    /// File systems that may hang have answered too.
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
}

impl Capture {
    /// Looks at the patterns of an entry as soon as that is allowed.
    pub(super) fn find_paths(&mut self, now: Now, set: usize) {
        let looking = &mut self.paths.looking[set];
        if looking.since_ms.is_some() {
            looking.again = true;
        } else if now.mono_ms < looking.rest_until_ms {
            looking.again = true;
            self.timers.set_earlier(Timer::Paths, looking.rest_until_ms);
        } else {
            looking.since_ms = Some(now.mono_ms);
            looking.again = false;
            self.actions.push(Action::FindPaths { set });
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
        // What is past waits for its part's answer, which may hang: to look at once again would be to spin.
        let due = self.paths.missing.values().map(Missing::due_ms).filter(|due_ms| *due_ms > now.mono_ms);
        self.paths.sweep_ms = due.min().unwrap_or(u64::MAX).min(now.mono_ms + self.sweep_interval_ms());
        self.set_paths_timer();
    }

    /// Patterns are looked at again so often, besides when inotify tells of something new in their directories.
    pub fn sweep_interval_ms(&self) -> u64 {
        let set_ms = self.settings.file_monitor.sweep_interval.as_millis() as u64;
        // Where another host may write, nothing tells of new files but a look.
        if self.paths.lanes.iter().any(|lanes| !lanes.is_empty()) {
            return set_ms;
        }
        let paths: usize = self.paths.found.iter().flatten().map(|(_, answer)| answer.paths.len()).sum();
        set_ms.max((paths as u64 * LOOK_INTERVAL_MS_PER_PATH).min(LOOK_INTERVAL_MS_MAX))
    }

    fn set_paths_timer(&mut self) {
        let waiting = self.paths.looking.iter().filter(|looking| looking.again && looking.since_ms.is_none());
        let soonest = waiting.map(|looking| looking.rest_until_ms).min().unwrap_or(u64::MAX);
        self.timers.set(Timer::Paths, self.paths.sweep_ms.min(soonest));
    }

    pub(super) fn on_paths_timer(&mut self, now: Now) {
        if now.mono_ms >= self.paths.sweep_ms {
            // Not plan_paths_look: a path missing for long is dropped by the answer, and until then its time is past.
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
        if first_look && lane.is_none() {
            self.paths.since_ns[set] = now.unix_ns;
        }
        self.tracker.memory_mut().see(found.iter().map(|found| found.id));
        let older = self.older(now, set, &found);
        let mut ids = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for FoundPath { path, id, target, .. } in found {
            targets.extend(target.map(|target| (path.clone(), target)));
            ids.insert(path, id);
        }
        let (paths, with_rotated) = self.without_rotated(ids.keys().cloned().collect());
        let rotated = ids.len() - paths.len();
        let paths = self.without_others(now, paths, &ids, &targets);
        self.tell_older(now, set, &older, &paths);
        for path in &paths {
            let came_back = self.paths.missing.remove(path).is_some();
            let target = targets.get(path).map(String::as_str);
            for id in self.ids_of(&StreamKey::file(path)) {
                self.with_file(now, id, |file, cx, told| {
                    file.on_path_found(came_back || ids.get(path).is_some_and(|id| !file.reads(*id)), cx);
                    file.lead_to(target.unwrap_or(path), cx, told);
                });
            }
            let id = ids.get(path).copied();
            let look = Look { is_first: first_look, id, with_rotated: with_rotated.contains(path), target };
            self.follow_path(now, set, path, look);
        }
        if lane.is_none() {
            // What others read, or belongs to another, may be free later.
            let settled = Settled { hash, at_ms: now.mono_ms };
            self.paths.settled[set] = (paths.len() == named).then_some(settled);
        }
        let parts = &mut self.paths.found[set];
        let answer = PartFiles { at_ms: now.mono_ms, paths, rotated };
        let mut before: Vec<(Option<LaneId>, PartFiles)> =
            parts.insert(lane, answer).map(|answer| (lane, answer)).into_iter().collect();
        if lane.is_none() {
            self.paths.lanes[set] = lanes.to_vec();
            // File systems that the patterns no longer lead to are unmounted.
            let leads_to = |part: &Option<LaneId>| part.is_none_or(|part| lanes.contains(&part));
            before.extend(parts.extract_if(.., |part, _| !leads_to(part)));
        }
        for (part, answer) in before {
            for path in answer.paths {
                if !self.is_matched(&path) {
                    let missing = Missing { since_ms: now.mono_ms, part: Some(part) };
                    self.paths.missing.entry(path).or_insert(missing);
                }
            }
        }
        if first_of_all && self.paths.everything_found() {
            self.follow_what_went(now);
        }
        self.drop_missing(now);
        self.plan_paths_look(now);
    }

    /// Without those that are rotated files of another path that is followed: they are read with it, and read alone each
    /// of their lines would come twice. Also which paths have such files, and so are read from the oldest of them.
    fn without_rotated(&self, mut paths: BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
        // Named on its own it is a log of its own, whatever its name looks like.
        let is_followed = |path: &str| self.ids.contains_key(&StreamKey::file(path)) || self.is_named(path);
        let mut with_rotated = BTreeSet::new();
        let all = paths.clone();
        paths.retain(|path| {
            let (directory, name) = split_path(path);
            let live = rotated_name::live_names(&name).map(|live| format!("{directory}/{live}"));
            // One that is followed alone, for the other was not there, goes on so.
            let is_log = |path: &str| all.contains(path) || self.ids.contains_key(&StreamKey::file(path));
            let of = live.filter(|_| !is_followed(path)).find(|live| is_log(live));
            let stays = of.is_none();
            with_rotated.extend(of);
            stays
        });
        (paths, with_rotated)
    }

    /// An entry names this very path, not a pattern that it matches.
    fn is_named(&self, path: &str) -> bool {
        let patterns = self.settings.file_monitor.files.iter().flat_map(|files| &files.paths);
        patterns.into_iter().any(|pattern| pattern.names(path))
    }

    /// Without files that are read as those of another path: a log that was renamed to a name that is followed too, or a
    /// second name of it.
    fn without_others(
        &mut self,
        now: Now,
        paths: BTreeSet<String>,
        ids: &BTreeMap<String, FileId>,
        targets: &BTreeMap<String, String>,
    ) -> BTreeSet<String> {
        let mut own = BTreeSet::new();
        let mut path_of = None;
        for path in paths {
            let key = StreamKey::file(&path);
            let Some(id) = ids.get(&path).filter(|_| !self.ids.contains_key(&key)) else {
                own.insert(path);
                continue;
            };
            let readers: Vec<StreamId> = (0..self.outlets.len())
                .filter_map(|outlet| self.owners.reader_of_path(self.group(outlet), *id))
                .collect();
            let directory = || split_path(targets.get(&path).unwrap_or(&path)).0;
            let log = self.tracker.memory().log_of(*id).filter(|log| **log != key && id.birth_ns != 0);
            if log.is_none() && self.was_rotated_unseen(&path, *id, ids, &mut path_of) {
                continue;
            }
            // Its log finds it as long as it is in the same directory and was not left long ago. That log may have been found
            // in this very look.
            let is_there = log.and_then(|log| log.0.strip_prefix("file:")).is_some_and(|of| {
                let of_target = targets.get(of).map_or(of, String::as_str);
                ids.contains_key(of)
                    && !self.ids.contains_key(&StreamKey::file(of))
                    && split_path(of_target).0 == directory()
            });
            let of_log = log.map(|log| self.ids_of(log)).unwrap_or_default();
            let finds =
                |reader: &StreamId| self.file(*reader).is_some_and(|file| file.finds(&directory(), *id));
            let of_log: Vec<StreamId> = of_log.into_iter().filter(finds).collect();
            if readers.is_empty() && of_log.is_empty() && !is_there {
                own.insert(path);
                continue;
            }
            if self.paths.told.len() >= TOLD_MAX {
                self.paths.told.clear();
            }
            // Whoever reads it may not know its new name.
            if self.paths.told.insert((path, *id)) {
                for reader in readers.into_iter().chain(of_log) {
                    self.with_file(now, reader, |file, cx, _| file.on_chain_changed(cx));
                }
            }
        }
        own
    }

    /// Whether a file that nobody knows was rotated from a log which is about to be followed, by a name with a number before
    /// its ending: it is younger than the file in which that log was left, and that one has such a name by now, too.
    fn was_rotated_unseen<'a>(
        &self,
        path: &str,
        id: FileId,
        ids: &'a BTreeMap<String, FileId>,
        path_of: &mut Option<BTreeMap<FileId, &'a str>>,
    ) -> bool {
        let (directory, name) = split_path(path);
        let Some(live) = rotated_name::numbered_live_name(&name) else { return false };
        let log = format!("{directory}/{live}");
        let key = StreamKey::file(&log);
        if !ids.contains_key(&log) || self.ids.contains_key(&key) {
            return false;
        }
        let Some(Cursor::File(left)) = self.tracker.resume(&key).map(|resume| resume.cursor) else {
            return false;
        };
        let path_of =
            path_of.get_or_insert_with(|| ids.iter().map(|(path, id)| (*id, path.as_str())).collect());
        let was_rotated = path_of.get(&left.file).is_some_and(|path| {
            let (of, name) = split_path(path);
            of == directory && rotated_name::numbered_live_name(&name) == Some(live)
        });
        was_rotated && left.file.birth_ns != 0 && id.birth_ns > left.file.birth_ns
    }

    /// Files that another stream has let go are free for those who waited.
    pub(super) fn tell_released(&mut self, now: Now) {
        for id in self.owners.take_released() {
            self.with_file(now, id, |file, cx, _| file.on_chain_changed(cx));
        }
        if self.owners.take_paths_released() {
            self.find_all_paths(now);
        }
    }

    fn file(&self, id: StreamId) -> Option<&FileSource> {
        match &self.streams.get(&id)?.kind {
            Kind::File(file) => Some(file),
            Kind::Api(_) => None,
        }
    }

    fn group(&self, outlet: usize) -> Group {
        Group { outlet: self.outlets[outlet].outlet.index, of_paths: true }
    }

    /// What is known of a log for an outlet, and who reads it there.
    pub(super) fn known_of(&self, key: &StreamKey, outlet: usize) -> (Vec<FilePlace>, Reader) {
        let sinks = self.outlets[outlet].tracked.clone();
        let group = Group { of_paths: key.0.starts_with("file:"), ..self.group(outlet) };
        let memory = self.tracker.memory().of(&sinks, group.of_paths);
        let mut places = Vec::new();
        if let Some(path) = key.0.strip_prefix("file:") {
            // It may be a copy of a log that is gone, by its name: then what was read of that is known here.
            let (directory, name) = split_path(path);
            let logs =
                rotated_name::live_names(&name).map(|live| StreamKey::file(&format!("{directory}/{live}")));
            places.extend(logs.flat_map(|log| memory.places(&log)));
        }
        places.extend(memory.places(key));
        (places, Reader { group, sinks })
    }

    /// Names beside a path that look like its rotated files and are logs of their own. Those logs learn of this one.
    fn set_apart(&mut self, now: Now, path: &str) -> Vec<String> {
        let (directory, name) = split_path(path);
        let named = self.settings.file_monitor.files.iter().flat_map(|files| &files.paths);
        let named = named.filter_map(|pattern| pattern.as_str().strip_prefix(&directory)?.strip_prefix('/'));
        let looks_rotated = |other: &&str| *other != name && RotatedName::of(other, &name).is_some();
        let mut apart: Vec<String> = named.filter(looks_rotated).map(str::to_owned).collect();
        // Followed paths whose names begin alike, in either direction.
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let from = StreamKey::file(&format!("{directory}/{stem}"));
        let alike = self.ids.range(from.clone()..).take_while(|(key, _)| key.0.starts_with(&from.0));
        let followed = alike.filter_map(|(key, _)| key.0.rsplit_once('/').map(|(_, name)| name));
        apart.extend(followed.filter(looks_rotated).map(str::to_owned));
        let stems: Vec<String> = rotated_name::stems(&name).map(str::to_owned).collect();
        for stem in stems {
            let from = StreamKey::file(&format!("{directory}/{stem}"));
            let alike = self
                .ids
                .range(from.clone()..)
                .take_while(|(key, _)| key.0.starts_with(&from.0))
                .take(ALIKE_MAX);
            let is_live = |key: &StreamKey| {
                key.0
                    .rsplit_once('/')
                    .is_some_and(|(_, live)| live != name && RotatedName::of(&name, live).is_some())
            };
            let lives: Vec<StreamId> =
                alike.filter(|(key, _)| is_live(key)).flat_map(|(_, ids)| ids.clone()).collect();
            for id in lives {
                self.with_file(now, id, |file, _, _| file.set_apart(&name));
            }
        }
        apart
    }

    /// Paths that vanished while the agent did not run: what is left of them in rotated files is read, then they are
    /// forgotten, as if they had vanished now.
    fn follow_what_went(&mut self, now: Now) {
        let went: Vec<String> = self
            .tracker
            .streams()
            .filter(|key| !self.ids.contains_key(*key))
            .filter_map(|key| key.0.strip_prefix("file:").map(str::to_owned))
            .collect();
        for path in went {
            let matches = |files: &FileSet| {
                files.paths.iter().any(|pattern| pattern.matches(&path))
                    && !files.exclude.iter().any(|pattern| pattern.covers(&path))
            };
            if let Some(set) = self.settings.file_monitor.files.iter().position(matches) {
                self.follow_path(now, set, &path, Look::default());
                self.paths.missing.insert(path, Missing { since_ms: now.mono_ms, part: None });
            } else {
                tracing::info!(
                    path,
                    "no pattern of file_monitor names it any more; its position is kept for a while"
                );
                self.tracker.leave(&StreamKey::file(&path));
            }
        }
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

    fn follow_path(&mut self, now: Now, set: usize, path: &str, look: Look<'_>) {
        for outlet in self.outlets_without(&StreamKey::file(path)) {
            self.follow_path_for(now, set, path, look, outlet);
        }
    }

    fn follow_path_for(&mut self, now: Now, set: usize, path: &str, look: Look<'_>, outlet: usize) {
        let entry = &self.settings.file_monitor.files[set];
        let (format, labels) = (entry.format, entry.labels.clone());
        let changed_since_ns = entry.changed_since_ns(now.unix_ns);
        let mut rules = entry.text;
        rules.binary = rules.binary.of_path(|| self.is_named(path));
        let is_new = self.tracker.is_made_since(look.id.map(|id| id.birth_ns));
        let at_end = entry.start_at == StartAt::End && look.is_first && !is_new;
        let key = StreamKey::file(path);
        let resume = self.tracker.resume_for(&key, &self.outlets[outlet].tracked);
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let start = match resume {
            Some(Cursor::File(cursor)) => Start::Resume(cursor),
            None if at_end => Start::End,
            _ if look.with_rotated => Start::Oldest,
            _ if look.is_first => Start::Live,
            // It may have been rotated since it was made and before it was found.
            _ => Start::Since(self.paths.since_ns[set]),
        };
        let (places, reader) = self.known_of(&key, outlet);
        let looked_ns = self.tracker.looked_ns(&key).unwrap_or(i64::MAX);
        // Links may have been changed since: then the file that they led to is read to its end first.
        let target = look.target.unwrap_or(path);
        let read_at = match &start {
            Start::Resume(cursor) if !cursor.at.is_empty() => cursor.at.to_string(),
            _ => target.to_owned(),
        };
        let apart = self.set_apart(now, &read_at);
        let id = self.next_stream_id();
        let outlet = self.outlets[outlet].outlet;
        let source = Arc::new(Source {
            path: Some(path.to_owned()),
            labels,
            outlet,
            pipeline: pipeline::for_path(&self.settings.pipelines, path),
            ..Source::new(id, key)
        });
        let (directory, live_name) = split_path(&read_at);
        let line_bytes_max = self.settings.line_bytes_max as usize;
        let file = FileSource::new(id, directory, live_name, format, start, line_bytes_max);
        let file = file.with_text(rules);
        let file = file.rotated_while_written(looked_ns).with_pipeline(source.pipeline.as_ref());
        let file = file.with_memory(places, reader, apart).named(path, target).found_as(look.id);
        let file = file.ignoring_before(changed_since_ns);
        let reason = format!("matches file_monitor.files[{set}]");
        let stream = self.new_stream(now, source, Kind::File(Box::new(file)), reason, acked);
        self.add_stream(stream);
    }
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
