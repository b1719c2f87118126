//! Which matched paths are logs of their own, and which are rotated files or second names of another log. Those are
//! read with it; read separately, each of their lines would come twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Capture, split_path};
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FileId};
use crate::model::record::{StreamId, StreamKey};
use crate::model::rotated_name;
use crate::model::rotated_name::RotatedName;
use crate::settings::{FileSet, StartAt};

impl Capture {
    /// Removes rotated files of another followed path, which are read with it. Also returns the paths that have such
    /// files, and so are read from the oldest one.
    pub(super) fn without_rotated(
        &self,
        mut paths: BTreeSet<Arc<str>>,
    ) -> (BTreeSet<Arc<str>>, BTreeSet<String>) {
        // A path that is named itself is a log of its own, whatever its name looks like.
        let is_followed = |path: &str| self.ids.contains_key(&StreamKey::file(path)) || self.is_named(path);
        let mut with_rotated = BTreeSet::new();
        let all = paths.clone();
        paths.retain(|path| {
            let (directory, name) = split_path(path);
            let live = rotated_name::live_names(&name).map(|live| format!("{directory}/{live}"));
            // A rotated name that is followed as a log of its own remains one when its live name appears.
            let is_log = |path: &str| all.contains(path) || self.ids.contains_key(&StreamKey::file(path));
            let of = live.filter(|_| !is_followed(path)).find(|live| is_log(live));
            let stays = of.is_none();
            with_rotated.extend(of);
            stays
        });
        (paths, with_rotated)
    }

    /// Whether another entry's patterns match rotated files of this log, and ask for what they hold. Those are read with the log, so
    /// it has to begin with them.
    pub(super) fn is_rotated_elsewhere(&self, set: usize, path: &str) -> bool {
        let entries = &self.settings.file_monitor.files;
        let own_older = entries[set].ignore_older;
        let asks = |other: &FileSet| {
            other.start_at == StartAt::Beginning
                && (other.ignore_older.is_zero() || other.ignore_older == own_older)
        };
        let others: Vec<&FileSet> = (0..)
            .zip(entries)
            .filter(|(at, other)| *at != set && asks(other))
            .map(|(_, other)| other)
            .collect();
        if others.is_empty() {
            return false;
        }
        let (directory, name) = split_path(path);
        let rotated = rotated_name::examples(&name);
        let found = self.paths.olddirs.get(path).into_iter().flatten();
        let found: Vec<String> = found.map(|olddir| format!("{directory}/{olddir}")).collect();
        let mut directories = std::iter::once(directory.as_str())
            .chain(found.iter().map(String::as_str))
            .chain(self.looked_into_beneath(&directory));
        directories.any(|at| {
            rotated
                .iter()
                .map(|name| format!("{at}/{name}"))
                .any(|path| others.iter().any(|set| set.takes(&path)))
        })
    }

    /// An entry names this very path, not a pattern that it matches.
    pub(super) fn is_named(&self, path: &str) -> bool {
        let patterns = self.settings.file_monitor.files.iter().flat_map(|files| &files.paths);
        patterns.into_iter().any(|pattern| pattern.names(path))
    }

    /// Removes files that are read as those of another path: a log renamed to a name that is followed, too, or its
    /// second name. `is_first`: missing logs of the last run are followed after this look.
    pub(super) fn without_others(
        &mut self,
        now: Now,
        paths: BTreeSet<Arc<str>>,
        ids: &BTreeMap<Arc<str>, FileId>,
        targets: &BTreeMap<Arc<str>, String>,
        is_first: bool,
    ) -> BTreeSet<Arc<str>> {
        let mut own = BTreeSet::new();
        let mut path_of = None;
        for path in paths {
            let key = StreamKey::file(&path);
            let Some(id) = ids.get(&path).filter(|_| !self.ids.contains_key(&key)) else {
                own.insert(path);
                continue;
            };
            let readers: Vec<StreamId> = (0..self.outlets.len())
                .filter_map(|outlet| self.shared.owners.reader_of_path(self.group(outlet), *id))
                .collect();
            let directory = || split_path(targets.get(&path).map_or(&*path, String::as_str)).0;
            let log = self.tracker.memory().log_of(*id).filter(|log| **log != key && id.birth_ns != 0);
            if log.is_none() && self.was_rotated_unseen(&path, *id, ids, &mut path_of) {
                continue;
            }
            // Its log finds it if it is in the same directory and was not left long ago. That log may have been found
            // in this look.
            let is_there = log.and_then(|log| log.0.strip_prefix("file:")).is_some_and(|of| {
                let of_target = targets.get(of).map_or(of, String::as_str);
                ids.contains_key(of)
                    && !self.ids.contains_key(&StreamKey::file(of))
                    && split_path(of_target).0 == directory()
            });
            let is_left_to_log =
                is_first && log.is_some_and(|log| self.goes_on_in(log, *id, &directory(), ids));
            let of_log = log.map(|log| self.ids_of(log)).unwrap_or_default();
            let finds =
                |reader: &StreamId| self.file(*reader).is_some_and(|file| file.finds(&directory(), *id));
            let of_log: Vec<StreamId> = of_log.into_iter().filter(finds).collect();
            if readers.is_empty() && of_log.is_empty() && !is_there && !is_left_to_log {
                own.insert(path);
                continue;
            }
            // The stream that reads it may not know its new name.
            if self.paths.tell(&path, *id, 0) {
                for reader in readers.into_iter().chain(of_log) {
                    self.with_file(now, reader, |file, cx, _| file.on_chain_changed(cx));
                }
            }
        }
        own
    }

    /// Whether a missing log was in this file when the last run ended, and is about to be followed. It continues in the
    /// file under whatever name that has, and its output may have lines of it that no checkpoint knows.
    fn goes_on_in(
        &self,
        log: &StreamKey,
        file: FileId,
        directory: &str,
        ids: &BTreeMap<Arc<str>, FileId>,
    ) -> bool {
        let Some(path) = log.0.strip_prefix("file:") else { return false };
        let is_about_to_be_followed = split_path(path).0 == directory
            && !ids.contains_key(path)
            && !self.ids.contains_key(log)
            && self.entry_of(path).is_some();
        let was_left_in = |cursor: &Cursor| matches!(cursor, Cursor::File(left) if left.file == file);
        is_about_to_be_followed && self.tracker.resume(log).is_some_and(|resume| was_left_in(&resume.cursor))
    }

    /// Whether an unknown file was rotated from a log that is about to be followed, to a name with a number before its
    /// ending: it is younger than the file in which that log was left, and that file has such a name by now, too.
    fn was_rotated_unseen<'a>(
        &self,
        path: &str,
        id: FileId,
        ids: &'a BTreeMap<Arc<str>, FileId>,
        path_of: &mut Option<BTreeMap<FileId, &'a str>>,
    ) -> bool {
        let (directory, name) = split_path(path);
        let Some(live) = rotated_name::numbered_live_name(&name) else { return false };
        let log = format!("{directory}/{live}");
        let key = StreamKey::file(&log);
        if !ids.contains_key(log.as_str()) || self.ids.contains_key(&key) {
            return false;
        }
        let Some(Cursor::File(left)) = self.tracker.resume(&key).map(|resume| resume.cursor) else {
            return false;
        };
        let path_of = path_of.get_or_insert_with(|| ids.iter().map(|(path, id)| (*id, &**path)).collect());
        let was_rotated = path_of.get(&left.file).is_some_and(|path| {
            let (of, name) = split_path(path);
            of == directory && rotated_name::numbered_live_name(&name) == Some(live)
        });
        was_rotated && left.file.birth_ns != 0 && id.birth_ns > left.file.birth_ns
    }

    /// Names beside a path that look like its rotated files but are logs of their own. Those logs learn of this one.
    pub(super) fn set_apart(&mut self, now: Now, path: &str) -> Vec<String> {
        let (directory, name) = split_path(path);
        let named = self.settings.file_monitor.files.iter().flat_map(|files| &files.paths);
        let named = named.filter_map(|pattern| pattern.as_str().strip_prefix(&directory)?.strip_prefix('/'));
        let looks_rotated = |other: &&str| *other != name && RotatedName::of(other, &name).is_some();
        let mut apart: Vec<String> = named.filter(looks_rotated).map(str::to_owned).collect();
        // Followed paths whose names share a beginning with it, in either direction.
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let from = StreamKey::file(&format!("{directory}/{stem}"));
        let alike = self.ids.range(from.clone()..).take_while(|(key, _)| key.0.starts_with(&*from.0));
        let followed = alike.filter_map(|(key, _)| key.0.rsplit_once('/').map(|(_, name)| name));
        apart.extend(followed.filter(looks_rotated).map(str::to_owned));
        let stems: Vec<String> = rotated_name::stems(&name).map(str::to_owned).collect();
        for stem in stems {
            let from = StreamKey::file(&format!("{directory}/{stem}"));
            let alike = self
                .ids
                .range(from.clone()..)
                .take_while(|(key, _)| key.0.starts_with(&*from.0))
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
}

/// How many followed paths with the same beginning are looked at for one found path.
const ALIKE_MAX: usize = 256;
