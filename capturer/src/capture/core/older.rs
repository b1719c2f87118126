//! Logs which files `ignore_older` skips: one line per pattern, when the files are found. Whether a file is skipped is
//! decided when its log is listed (stream/chain/older.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Capture, split_path};
use crate::capture::io::FoundPath;
use crate::capture::stream::Kind;
use crate::model::clock::Now;
use crate::model::record::StreamKey;
use crate::model::rotated_name;
use crate::text::age::age_text;

/// Files of one pattern.
#[derive(Default)]
struct Sum<'a> {
    files: usize,
    bytes: u64,
    oldest: Option<&'a FoundPath>,
}

impl Capture {
    /// The found files that are older than their entry allows.
    pub(super) fn older(&self, now: Now, set: usize, found: &[FoundPath]) -> Vec<FoundPath> {
        let Some(since_ns) = self.settings.file_monitor.files[set].changed_since_ns(now.unix_ns) else {
            return Vec::new();
        };
        let is_old = |file: &&FoundPath| file.modified_ns < since_ns && !self.is_followed(&file.path);
        found.iter().filter(is_old).cloned().collect()
    }

    /// Logs those that were never read. `paths` will be followed.
    pub(super) fn tell_older(&self, now: Now, set: usize, older: &[FoundPath], paths: &BTreeSet<Arc<str>>) {
        let entry = &self.settings.file_monitor.files[set];
        let mut sums: BTreeMap<&str, Sum<'_>> = BTreeMap::new();
        for file in older {
            let (directory, name) = split_path(&file.path);
            let mut logs = rotated_name::live_names(&name).map(|live| format!("{directory}/{live}"));
            let log = if paths.contains(&file.path) {
                Some(file.path.to_string())
            } else {
                logs.find(|log| paths.contains(log.as_str()))
            };
            // It is not followed, so it is read with another log, which was found before.
            let Some(log) = log.filter(|log| !self.is_followed(log)) else { continue };
            let key = StreamKey::file(&log);
            let was_read = |outlet| self.tracker.resume_for(&key, outlet).is_some();
            if self.outlets.iter().all(|outlet| was_read(&outlet.tracked))
                || self.tracker.memory().log_of(file.id).is_some()
            {
                continue;
            }
            let pattern = entry.paths.iter().find(|pattern| pattern.matches(&file.path));
            let sum = sums.entry(pattern.map_or("", |pattern| pattern.as_str())).or_default();
            sum.files += 1;
            sum.bytes += file.len;
            if sum.oldest.is_none_or(|oldest| file.modified_ns < oldest.modified_ns) {
                sum.oldest = Some(file);
            }
        }
        for (pattern, Sum { files, bytes, oldest }) in sums {
            let Some(oldest) = oldest else { continue };
            let age_s = now.unix_ns.saturating_sub(oldest.modified_ns).max(0) as u64 / 1_000_000_000;
            tracing::info!(
                pattern,
                files,
                bytes,
                oldest = &*oldest.path,
                "skipping files last changed longer ago than ignore_older, the oldest {} ago: what is added to them is \
                 read; capturer check lists them",
                age_text(age_s)
            );
        }
    }

    fn is_followed(&self, path: &str) -> bool {
        self.ids.contains_key(&StreamKey::file(path))
    }

    /// How many logs `ignore_older` skipped in this run that were not written to since.
    pub(super) fn ignored(&self) -> usize {
        if self.settings.file_monitor.files.iter().all(|set| set.ignore_older.is_zero()) {
            return 0;
        }
        let firsts = self.streams.values().filter(|stream| stream.source.outlet.index == 0);
        firsts.filter(|stream| matches!(&stream.kind, Kind::File(file) if file.is_ignored())).count()
    }
}
