//! Followed paths: what the patterns of `file_monitor` match becomes streams, and what no longer matches drains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::io::Action;
use super::support::Timer;
use super::{Capture, split_path};
use crate::clock::Now;
use crate::cursor::Cursor;
use crate::record::{Source, StreamKey};
use crate::settings::StartAt;
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
    /// By index in `file_monitor.files`: paths matched at the last look; `None` before the first.
    found: Vec<Option<BTreeSet<String>>>,
    /// Paths that ceased to match, and when.
    missing: BTreeMap<String, u64>,
    looking: Vec<bool>,
}

impl Paths {
    pub(super) fn new(sets: usize) -> Paths {
        Paths { found: vec![None; sets], missing: BTreeMap::new(), looking: vec![false; sets] }
    }

    pub(super) fn all_found(&self) -> bool {
        self.found.iter().all(Option::is_some)
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
            let soonest = self.paths.missing.values().min().map_or(u64::MAX, |since| since + GONE_AFTER_MS);
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

    pub(super) fn on_paths_found(&mut self, now: Now, set: usize, paths: Vec<String>) {
        self.paths.looking[set] = false;
        if self.stopping.is_some() {
            return;
        }
        let first_look = self.paths.found[set].is_none();
        let paths: BTreeSet<String> = paths.into_iter().collect();
        for path in &paths {
            self.paths.missing.remove(path);
            if !self.ids.contains_key(&StreamKey::file(path)) {
                self.follow_path(now, set, path, first_look);
            }
        }
        let before = self.paths.found[set].replace(paths).unwrap_or_default();
        for path in before {
            if !self.is_matched(&path) {
                self.paths.missing.entry(path).or_insert(now.mono_ms);
            }
        }
        self.drop_missing(now);
        self.plan_paths_look(now);
    }

    fn is_matched(&self, path: &str) -> bool {
        self.paths.found.iter().flatten().any(|found| found.contains(path))
    }

    fn drop_missing(&mut self, now: Now) {
        let gone: Vec<String> = self
            .paths
            .missing
            .iter()
            .filter(|(_, since)| now.mono_ms.saturating_sub(**since) >= GONE_AFTER_MS)
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.paths.missing.remove(&path);
            if let Some(id) = self.ids.get(&StreamKey::file(&path)).copied() {
                self.with_stream(now, id, |stream, cx| stream.gone("the file is gone", cx));
            }
        }
    }

    fn follow_path(&mut self, now: Now, set: usize, path: &str, first_look: bool) {
        let entry = &self.settings.file_monitor.files[set];
        let (format, labels) = (entry.format, entry.labels.clone());
        let at_end = entry.start_at == StartAt::End && first_look;
        let key = StreamKey::file(path);
        let resume = self.tracker.resume(&key).map(|resume| resume.cursor);
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let start = match resume {
            Some(Cursor::File(cursor)) => Start::Resume(cursor),
            None if at_end => Start::End,
            _ => Start::Live,
        };
        let id = self.next_stream_id();
        let source = Arc::new(Source { id, key, container: None, path: Some(path.to_owned()), labels });
        let (directory, live_name) = split_path(path);
        let line_bytes_max = self.settings.line_bytes_max as usize;
        let file = FileSource::new(id, directory, live_name, format, start, line_bytes_max);
        let file = file.renamed_while_written();
        let reason = format!("matches file_monitor.files[{set}]");
        let stream = self.new_stream(now, source, Kind::File(Box::new(file)), reason, acked);
        self.add_stream(stream);
    }
}
