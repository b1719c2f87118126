//! Rotated files that logrotate's `olddir` moved to a directory below that of their log, where a pattern matches them.
//! They are read with the log.
//!
//! ```text
//! /var/log/app.log ◀── /var/log/old/app.log.1 ◀── /var/log/old/app.log.2.gz
//! ```
//! A file belongs to a log above only if no log of its name is beside it, and if all such files are in one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Capture, split_path};
use super::HeldAnswer;
use crate::capture::io::FoundPath;
use crate::model::clock::Now;
use crate::model::record::StreamKey;
use crate::model::rotated_name;

/// How many directories below a log's are checked for its rotated files.
const OLDDIRS_MAX: usize = 64;

impl Capture {
    /// Notes where the first answers of all entries have rotated files of logs that the same entry or one before it matches.
    pub(super) fn note_olddirs(&mut self, answers: &BTreeMap<usize, HeldAnswer>) {
        let mut all: BTreeSet<Arc<str>> = BTreeSet::new();
        for HeldAnswer { found, .. } in answers.values() {
            all.extend(found.iter().map(|found| Arc::clone(&found.path)));
            let moved = found.iter().filter_map(|found| self.moved_from(&found.path, &all));
            for (_, log, olddir) in moved.collect::<Vec<_>>() {
                self.paths.olddirs.entry(log.clone()).or_default().insert(olddir);
                self.paths.live_with_olddir.insert(split_path(&log).1);
            }
        }
    }

    /// Removes files that belong to a log above, and returns the logs that have such files. Those logs look for them
    /// from now on.
    pub(super) fn without_moved(
        &mut self,
        now: Now,
        mut paths: BTreeSet<Arc<str>>,
        found: &[FoundPath],
    ) -> (BTreeSet<Arc<str>>, BTreeSet<String>) {
        let moved: Vec<(Arc<str>, String, String)> =
            paths.iter().filter_map(|path| self.moved_from(path, &paths)).collect();
        for (_, log, olddir) in &moved {
            self.paths.olddirs.entry(log.clone()).or_default().insert(olddir.clone());
            self.paths.live_with_olddir.insert(split_path(log).1);
        }
        let mut logs = BTreeSet::new();
        if moved.is_empty() {
            return (paths, logs);
        }
        let found: BTreeMap<&str, &FoundPath> = found.iter().map(|found| (&*found.path, found)).collect();
        for (path, log, olddir) in moved {
            let is_sure = self.paths.olddirs.get(&log).is_some_and(|olddirs| olddirs.len() == 1);
            if !is_sure && !path.ends_with(".gz") {
                continue;
            }
            paths.remove(&path);
            // inotify reports nothing of what is written there.
            let is_news = found.get(&*path).is_some_and(|found| self.paths.tell(&path, found.id, found.len));
            let readers = if is_news { self.ids_of(&StreamKey::file(&log)) } else { Vec::new() };
            for reader in readers {
                self.with_file(now, reader, |file, cx, _| file.on_moved_found(&olddir, cx));
            }
            logs.insert(log);
        }
        (paths, logs)
    }

    /// The log that a path was moved from, with the path from its directory to this path's.
    fn moved_from(&self, path: &Arc<str>, paths: &BTreeSet<Arc<str>>) -> Option<(Arc<str>, String, String)> {
        let is_archive = path.ends_with(".gz");
        let is_followed = |path: &str| paths.contains(path) || self.ids.contains_key(&StreamKey::file(path));
        if !is_archive && (self.ids.contains_key(&StreamKey::file(path)) || self.is_named(path)) {
            return None;
        }
        let (directory, name) = split_path(path);
        let beside = rotated_name::live_names(&name).map(|live| format!("{directory}/{live}"));
        if beside.into_iter().any(|log| is_followed(&log) || self.tracker.knows(&StreamKey::file(&log))) {
            return None;
        }
        // An archive is never a log of its own.
        let is_log = |log: &str| is_followed(log) || is_archive && self.entry_of(log).is_some();
        let (log, olddir) = rotated_name::logs_above(path).find(|(log, _)| is_log(log))?;
        Some((Arc::clone(path), log, olddir.to_owned()))
    }

    /// Directories beneath this one in which a pattern looks for files.
    pub(super) fn looked_into_beneath(&self, directory: &str) -> impl Iterator<Item = &str> {
        let beneath = format!("{directory}/");
        let named = self.paths.looked_into.range(beneath.clone()..).map(String::as_str);
        named.take_while(move |at| at.starts_with(&beneath)).take(OLDDIRS_MAX)
    }

    /// Where logrotate may move rotated files of a log: directories where they were found, and where a pattern looks for them.
    pub(super) fn olddirs_of(&mut self, path: &str) -> Vec<String> {
        let (directory, name) = split_path(path);
        let mut olddirs = self.paths.olddirs.get(path).cloned().unwrap_or_default();
        let beneath = format!("{directory}/");
        for at in self.looked_into_beneath(&directory) {
            let rotated = ["1", "1.gz"].map(|end| format!("{at}/{name}.{end}"));
            let dated = ["", ".gz"].map(|end| format!("{at}/{name}-20260102{end}"));
            let is_of_it = |rotated: &String| {
                self.entry_of(rotated).is_some()
                    && rotated_name::logs_above(rotated).any(|(log, _)| log == path)
            };
            if rotated.iter().chain(&dated).any(is_of_it) {
                olddirs.insert(at[beneath.len()..].to_owned());
            }
        }
        if !olddirs.is_empty() {
            self.paths.live_with_olddir.insert(name);
        }
        olddirs.into_iter().collect()
    }
}
