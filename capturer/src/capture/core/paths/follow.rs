//! How a path becomes streams: where reading begins, and what is known of its files.

use std::sync::Arc;

use super::super::{Capture, split_path};
use super::{Look, Missing};
use crate::capture::stream::Kind;
use crate::capture::stream::chain::Start;
use crate::capture::stream::file::FileSource;
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FileId};
use crate::model::record::{Continued, Source, StreamKey};
use crate::settings::{StartAt, pipeline};

impl Capture {
    /// Handles paths that vanished while the agent did not run as if they had vanished now: it reads what their rotated
    /// files still have, then forgets them.
    pub(super) fn follow_what_went(&mut self, now: Now) {
        let went: Vec<String> = self
            .tracker
            .streams()
            .filter(|key| !self.ids.contains_key(*key))
            .filter_map(|key| key.0.strip_prefix("file:").map(str::to_owned))
            .collect();
        for path in went {
            if let Some(set) = self.entry_of(&path) {
                self.follow_path(now, set, &path.as_str().into(), Look::default());
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

    /// The entry that would follow a path if it existed.
    pub(super) fn entry_of(&self, path: &str) -> Option<usize> {
        self.settings.file_monitor.files.iter().position(|files| files.takes(path))
    }

    pub(super) fn follow_path(&mut self, now: Now, set: usize, path: &Arc<str>, look: Look<'_>) {
        for outlet in self.outlets_without(&StreamKey::file(path)) {
            self.follow_path_for(now, set, path, look, outlet);
        }
    }

    fn follow_path_for(&mut self, now: Now, set: usize, path: &Arc<str>, look: Look<'_>, outlet: usize) {
        let entry = &self.settings.file_monitor.files[set];
        let (format, labels) = (entry.format, entry.labels.clone());
        let changed_since_ns = entry.changed_since_ns(now.unix_ns);
        let mut rules = entry.text;
        rules.binary = rules.binary.of_path(|| self.is_named(path));
        // Nobody has seen it, nor what it was rotated to since the last run.
        let unseen_since_ns = look.id.and_then(|id| self.tracker.unseen_since_ns(id.birth_ns));
        let at_end = entry.start_at == StartAt::End && look.is_first && unseen_since_ns.is_none();
        let key = StreamKey::file(path);
        let resume = self.tracker.resume_for(&key, &self.outlets[outlet].tracked);
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let start = match resume {
            Some(Cursor::File(cursor)) => Start::Resume(cursor),
            None if at_end => Start::End,
            _ if look.with_rotated => Start::Oldest,
            // Of those a look at another entry tells, and that one may come later.
            _ if look.is_first && look.target.is_none() && self.is_rotated_elsewhere(set, path) => {
                Start::Oldest
            }
            _ if look.is_first => unseen_since_ns.map_or(Start::Live, Start::Since),
            // It may have been rotated after it was made and before it was found.
            _ => Start::Since(self.paths.since_ns[set]),
        };
        let (places, reader) = self.known_of(&key, outlet);
        let looked_ns = self.tracker.looked_ns(&key).unwrap_or(i64::MAX);
        // Links may have changed since: then the file they led to is read to its end first.
        let target = look.target.unwrap_or(path);
        let read_at = match &start {
            Start::Resume(cursor) if !cursor.at.is_empty() => cursor.at.to_string(),
            _ => target.to_owned(),
        };
        let apart = self.set_apart(now, &read_at);
        let olddirs = self.olddirs_of(&read_at);
        let id = self.next_stream_id();
        let continues = self.continued_by(&key, &start, look.id, outlet);
        let outlet = self.outlets[outlet].outlet;
        let source = Arc::new(Source {
            path: Some(Arc::clone(path)),
            continues: continues.into(),
            labels: labels.into(),
            outlet,
            pipeline: pipeline::for_path(&self.settings.pipelines, path),
            ..Source::new(id, key)
        });
        let (directory, live_name) = split_path(&read_at);
        if *self.paths.directory != *directory {
            self.paths.directory = directory.into();
        }
        let directory = Arc::clone(&self.paths.directory);
        let line_bytes_max = self.settings.line_bytes_max as usize;
        let file = FileSource::new(id, directory, live_name, format, start, line_bytes_max);
        let file = file.with_text(rules);
        let file = file.rotated_while_written(looked_ns).with_pipeline(source.pipeline.as_ref());
        let file = file
            .with_memory(places, reader, apart)
            .with_olddirs(olddirs)
            .named(source.path.clone().unwrap_or_default(), target)
            .found_as(look.id);
        let mut file = file.ignoring_before(changed_since_ns);
        // A log that was moved here. Whoever looks for it at its old path must know that it is not gone.
        let log = look.id.and_then(|id| self.tracker.memory().log_of(id).filter(|log| **log != source.key));
        if let Some(moved) = look.id.filter(|_| log.is_some()) {
            file.claim_at_once(moved, &mut self.shared.owners);
        }
        let reason = Arc::clone(&self.paths.reasons[set]);
        let stream = self.new_stream(now, source, Kind::File(Box::new(file)), reason, acked);
        self.add_stream(stream);
    }

    /// Followed paths that the last run left exactly where this one begins, because its file had those names then.
    /// Whatever was read of it behind that place is read again here.
    fn continued_by(
        &self,
        key: &StreamKey,
        start: &Start,
        found: Option<FileId>,
        outlet: usize,
    ) -> Vec<Continued> {
        let sinks = &self.outlets[outlet].tracked;
        let memory = self.tracker.memory();
        let place = match start {
            Start::Resume(cursor) => Some((cursor.file, cursor.offset)),
            _ => found.and_then(|id| memory.of(sinks, true).place_of(id)).map(|at| (at.file, at.offset)),
        };
        let Some((file, offset)) = place.filter(|(file, _)| file.birth_ns != 0) else { return Vec::new() };
        let left_there = |log: &StreamKey| {
            let (left, output) = self.tracker.loaded(log, sinks)?;
            let is_there = matches!(left, Cursor::File(left) if left.file == file && left.offset == offset);
            let path = log.0.strip_prefix("file:").filter(|_| is_there && log != key)?;
            Some(Continued { path: Some(path.into()), output: output.cloned() })
        };
        memory.logs_of(file).filter_map(left_there).collect()
    }
}
