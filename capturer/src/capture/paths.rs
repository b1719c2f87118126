//! Followed paths: what the patterns of `file_monitor` match becomes streams, and what no longer matches drains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::io::{Action, LaneId};
use super::support::Timer;
use super::{Capture, split_path};
use crate::clock::Now;
use crate::cursor::Cursor;
use crate::kin;
use crate::record::{Source, StreamKey};
use crate::settings::{FileSet, StartAt, pipeline};
use crate::stream::Kind;
use crate::stream::chain::Start;
use crate::stream::file::FileSource;

/// Patterns are looked at again so often, besides when inotify tells of something new in their directories.
const LOOK_INTERVAL_MS: u64 = 30_000;
/// A path that is missing for so long is gone. Shorter gaps are rotations: renamed away, not yet made again.
const GONE_AFTER_MS: u64 = 10_000;

/// What is known of the patterns.
#[derive(Debug)]
pub(super) struct Paths {
    /// By index in `file_monitor.files`: what each part of an entry answered last. A part is a file system that may hang,
    /// or `None` for all that may not. One that hangs keeps what it had.
    found: Vec<BTreeMap<Option<LaneId>, Answer>>,
    /// File systems that may hang, to which each entry leads.
    lanes: Vec<Vec<LaneId>>,
    /// Paths that ceased to match.
    missing: BTreeMap<String, Missing>,
    looking: Vec<bool>,
}

/// The last answer of a part.
#[derive(Clone, Debug)]
struct Answer {
    at_ms: u64,
    paths: BTreeSet<String>,
}

/// How a path was found.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// When its patterns were looked at for the first time.
    is_first: bool,
    /// They match rotated files of it too.
    with_kin: bool,
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

impl Paths {
    pub(super) fn new(sets: usize) -> Paths {
        Paths {
            found: vec![BTreeMap::new(); sets],
            lanes: vec![Vec::new(); sets],
            missing: BTreeMap::new(),
            looking: vec![false; sets],
        }
    }

    pub(super) fn all_found(&self) -> bool {
        self.found.iter().all(|parts| parts.contains_key(&None))
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

impl Capture {
    pub(super) fn find_paths(&mut self, set: usize) {
        if !std::mem::replace(&mut self.paths.looking[set], true) {
            self.actions.push(Action::FindPaths { set });
        }
    }

    pub(super) fn plan_paths_look(&mut self, now: Now) {
        if !self.settings.file_monitor.files.is_empty() {
            // What is past waits for its part's answer, which may hang: to look at once again would be to spin.
            let due = self.paths.missing.values().map(Missing::due_ms).filter(|due_ms| *due_ms > now.mono_ms);
            let soonest = due.min().unwrap_or(u64::MAX);
            self.timers.set(Timer::Paths, soonest.min(now.mono_ms + LOOK_INTERVAL_MS));
        }
    }

    pub(super) fn on_paths_timer(&mut self, now: Now) {
        for set in 0..self.settings.file_monitor.files.len() {
            self.find_paths(set);
        }
        // Not plan_paths_look: a path missing for long is dropped by the answer, and until then its time is past.
        self.timers.set(Timer::Paths, now.mono_ms + LOOK_INTERVAL_MS);
    }

    pub(super) fn on_paths_found(
        &mut self,
        now: Now,
        set: usize,
        lane: Option<LaneId>,
        lanes: &[LaneId],
        paths: Vec<String>,
    ) {
        if lane.is_none() {
            self.paths.looking[set] = false;
        }
        if self.stopping.is_some() {
            return;
        }
        let first_look = !self.paths.found[set].contains_key(&lane);
        let first_of_all = !self.paths.everything_found();
        let (paths, with_kin) = self.without_kin(paths.into_iter().collect());
        for path in &paths {
            let came_back = self.paths.missing.remove(path).is_some();
            for id in self.ids_of(&StreamKey::file(path)) {
                self.with_file(now, id, |file, cx, _| file.on_path_found(came_back, cx));
            }
            self.follow_path(
                now,
                set,
                path,
                Look { is_first: first_look, with_kin: with_kin.contains(path) },
            );
        }
        let parts = &mut self.paths.found[set];
        let answer = Answer { at_ms: now.mono_ms, paths };
        let mut before: Vec<(Option<LaneId>, Answer)> =
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
    fn without_kin(&self, mut paths: BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
        let is_followed = |path: &str| self.ids.contains_key(&StreamKey::file(path));
        let mut with_kin = BTreeSet::new();
        let all = paths.clone();
        paths.retain(|path| {
            let (directory, name) = split_path(path);
            let live = kin::live_names(&name).map(|live| format!("{directory}/{live}"));
            // One that is followed alone, for the other was not there, goes on so.
            let of = live.filter(|_| !is_followed(path)).find(|live| all.contains(live) || is_followed(live));
            let stays = of.is_none();
            with_kin.extend(of);
            stays
        });
        (paths, with_kin)
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
                let any = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(&path));
                any(&files.paths) && !any(&files.exclude)
            };
            if let Some(set) = self.settings.file_monitor.files.iter().position(matches) {
                self.follow_path(now, set, &path, Look::default());
                self.paths.missing.insert(path, Missing { since_ms: now.mono_ms, part: None });
            } else {
                tracing::info!(
                    path,
                    "no pattern of file_monitor names it any more: its position is forgotten"
                );
                self.tracker.forget(&StreamKey::file(&path));
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

    fn follow_path(&mut self, now: Now, set: usize, path: &str, look: Look) {
        for outlet in self.outlets_without(&StreamKey::file(path)) {
            self.follow_path_for(now, set, path, look, outlet);
        }
    }

    fn follow_path_for(&mut self, now: Now, set: usize, path: &str, look: Look, outlet: usize) {
        let entry = &self.settings.file_monitor.files[set];
        let (format, labels) = (entry.format, entry.labels.clone());
        let (encoding, keep_cr) = (entry.encoding, entry.keep_cr);
        let at_end = entry.start_at == StartAt::End && look.is_first;
        let key = StreamKey::file(path);
        let resume = self.tracker.resume_for(&key, &self.outlets[outlet].tracked);
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let start = match resume {
            Some(Cursor::File(cursor)) => Start::Resume(cursor),
            None if at_end => Start::End,
            _ if look.with_kin => Start::Oldest,
            _ => Start::Live,
        };
        let id = self.next_stream_id();
        let outlet = self.outlets[outlet].outlet;
        let source = Arc::new(Source {
            id,
            key,
            container: None,
            path: Some(path.to_owned()),
            labels,
            outlet,
            pipeline: pipeline::for_path(&self.settings.pipelines, path),
            pipeline_labels: BTreeMap::new(),
        });
        let (directory, live_name) = split_path(path);
        let line_bytes_max = self.settings.line_bytes_max as usize;
        let file = FileSource::new(id, directory, live_name, format, start, line_bytes_max);
        let file = file.with_text(encoding, keep_cr);
        let file = file.renamed_while_written().with_pipeline(source.pipeline.as_ref());
        let reason = format!("matches file_monitor.files[{set}]");
        let stream = self.new_stream(now, source, Kind::File(Box::new(file)), reason, acked);
        self.add_stream(stream);
    }
}
