//! The local_file sink: NDJSON files beneath one directory.
//!
//! ```text
//! attach:   template ─▶ path ─▶ open beneath the directory, no links ─▶ mark (path, identity, length)
//! deliver:  look (at most once a second) whether the name still is our file ─▶ one pwrite per batch ─▶ mark
//! rotation: full or old ─▶ renamed (generations.rs) ─▶ a new file, a new mark ─▶ once no checkpoint that could be
//!           loaded needs it any more: compressed, and the oldest deleted, by a thread of its own (archive.rs)
//! restart:  file with the mark's identity, rotated since or not ─▶ back under its name, cut to the mark's
//!           length, what was begun after it deleted ─▶ nothing is there twice
//! ```
//! Each output's length is kept here and written at (no O_APPEND), because that length is what the checkpoint holds
//! and what a restart cuts to. A write that stops in the middle goes on at the next byte.
//!
//! People move, delete and empty log files while they are written. Within a second that is noticed: a moved or deleted
//! file is left alone and a new one begun under the name, an emptied one is gone on with at its new end. Lines
//! written meanwhile went where the file went.
//!
//! Several streams may share a file. Acknowledgements leave this thread in the order of the writes, so the newest
//! mark always fits all cursors acknowledged so far.
//!
//! Not here: durability of each batch against a power cut. Data reaches the disk when the kernel writes it back, and
//! at shutdown; a file found shorter than its mark after such a cut is reported as lost output.

mod archive;
mod beneath;
mod generations;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::file_name;
use super::outbox::{Outbox, SourceFacts};
use super::{Delivered, Sink, SinkError};
use crate::cursor::FileId;
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::limits::OUTPUT_FILES_OPEN_MAX;
use crate::record::{Batch, OutputMark, OutputMarks, Source, StreamId};
use crate::settings::{Fsync, LocalFile};

use archive::{Archive, Keep};
use beneath::{identify, open_file, open_parent};

const NAME: &str = "local_file";
/// How often, at most, a name is looked at while its file is being written.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A file nobody wrote to for so long is closed until it is needed again.
const IDLE_AFTER: Duration = Duration::from_secs(300);
/// The checkpoint and the one before it: either may be loaded by the next start.
const CHECKPOINTS_KEPT: u32 = 2;
/// Bytes by which an older file's name may be longer than that of the output.
pub const ADDED_NAME_BYTES: usize = generations::ADDED_BYTES;

/// See the module's head.
pub struct LocalFileSink {
    settings: LocalFile,
    root: Claimed<OwnedFd>,
    claims: Claims,
    /// `None` once the sink was flushed: its last call.
    archive: Option<Archive>,
    /// Older files that a checkpoint may still name, by path, oldest first.
    pending: BTreeMap<Arc<str>, Vec<Pending>>,
    streams: BTreeMap<StreamId, Stream>,
    /// By path relative to the directory.
    outputs: BTreeMap<Arc<str>, Output>,
    /// Outputs with an open file, by the tick of their last use.
    open: BTreeMap<u64, Arc<str>>,
    tick: u64,
    outbox: Outbox,
    /// Set while a batch is partly written.
    partial: Option<Partial>,
    check_interval: Duration,
    open_max: usize,
    /// Milliseconds since 1970.
    unix_ms: fn() -> u64,
}

struct Stream {
    source: Arc<Source>,
    facts: SourceFacts,
    path: Arc<str>,
}

struct Output {
    /// `None` = closed to make room for others.
    file: Option<Claimed<OwnedFd>>,
    id: FileId,
    /// Bytes written; where the next go.
    len: u64,
    /// Streams that write here.
    users: usize,
    /// Key in `open`, while `file` is there.
    used_at: u64,
    checked_at: Instant,
    /// When the file was made, seconds since 1970.
    born_s: u64,
}

struct Partial {
    path: Arc<str>,
    /// Length of the file before the batch.
    start_len: u64,
}

/// An older file that must stay as it is.
struct Pending {
    id: FileId,
    /// Orders older files, see generations.rs.
    stamp: String,
    /// Checkpoints saved since that name a later file.
    saves: u32,
}

/// What became of the outputs of the last run.
#[derive(Debug, Default)]
pub struct Restored {
    /// Outputs as they are now; to replace those of the loaded checkpoint.
    pub marks: BTreeMap<String, OutputMark>,
    /// What the operator should know, one sentence each.
    pub notes: Vec<String>,
}

impl LocalFileSink {
    /// Makes the directory if need be, and cuts the last run's outputs to what its checkpoint (`marks`) says.
    ///
    /// # Errors
    /// If the directory can't be made or opened, or an output can't be cut.
    pub fn open(
        settings: &LocalFile,
        marks: &BTreeMap<String, OutputMark>,
        claims: Claims,
    ) -> Result<(LocalFileSink, Restored), SinkError> {
        let directory = &settings.directory;
        let failed = |what: &str| {
            let what = format!("{what} {}", directory.display());
            move |source: io::Error| SinkError::retry(what, source)
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .map_err(failed("making directory"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| failed("opening directory")(errno.into()))?;
        let root = claims.hold(root, Owner::Sink(NAME.to_owned()));
        let archive = root
            .try_clone()
            .map(|root| claims.hold(root, Owner::Sink(NAME.to_owned())))
            .and_then(|root| Archive::start(root, directory.clone(), settings.compress, Keep::new(settings)))
            .map_err(failed("starting the thread that compresses files in"))?;
        let sink = LocalFileSink {
            settings: settings.clone(),
            root,
            claims,
            archive: Some(archive),
            pending: BTreeMap::new(),
            streams: BTreeMap::new(),
            outputs: BTreeMap::new(),
            open: BTreeMap::new(),
            tick: 0,
            outbox: Outbox::new(settings.format),
            partial: None,
            check_interval: CHECK_INTERVAL,
            open_max: OUTPUT_FILES_OPEN_MAX,
            unix_ms,
        };
        let restored = sink.restore(marks)?;
        Ok((sink, restored))
    }

    fn restore(&self, marks: &BTreeMap<String, OutputMark>) -> Result<Restored, SinkError> {
        let mut restored = Restored::default();
        for mark in marks.values() {
            let path = &mark.path;
            let shown = self.shown(path);
            let found = self.find_marked(path, mark.file, &mut restored.notes);
            let (file, len) = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    restored.notes.push(format!(
                        "{shown} is another file than before; its content stays and is appended to"
                    ));
                    continue;
                }
                Err(error) => {
                    restored.notes.push(format!(
                        "{shown} can't be gone on with ({error}); {} bytes were in it",
                        mark.len_bytes
                    ));
                    continue;
                }
            };
            let mut mark = mark.clone();
            if len > mark.len_bytes {
                rustix::fs::ftruncate(&file, mark.len_bytes)
                    .map_err(|errno| self.failed("cutting", path, errno.into()))?;
                restored.notes.push(format!(
                    "{shown} was cut by {} bytes, written after the last checkpoint; their source is read again",
                    len - mark.len_bytes
                ));
            } else if len < mark.len_bytes {
                restored.notes.push(format!(
                    "{shown} is {} bytes shorter than at the last checkpoint: lost output, it is not written again",
                    mark.len_bytes - len
                ));
                mark.len_bytes = len;
            }
            restored.marks.insert(mark.path.clone(), mark);
        }
        Ok(restored)
    }

    /// The file of a mark, under the output's name again if it was rotated after that checkpoint. What was begun after
    /// it holds records of which the checkpoint knows nothing: they are read again, so it goes.
    fn find_marked(
        &self,
        path: &str,
        wanted: FileId,
        notes: &mut Vec<String>,
    ) -> io::Result<Option<(OwnedFd, u64)>> {
        let (dir, live) = open_parent(&self.root, path, false)?;
        let opened = open_file(&dir, live, OFlags::empty(), 0);
        if let Ok(file) = &opened {
            let (id, len) = identify(file)?;
            if wanted.can_be(id) {
                return opened.map(|file| Some((file, len)));
            }
        }
        let older = generations::list(&dir, live)?;
        let is_marked = |name: &str| {
            open_file(&dir, name, OFlags::empty(), 0)
                .and_then(|file| identify(&file))
                .is_ok_and(|(id, _)| wanted.can_be(id))
        };
        let Some(at) = older.iter().rposition(|older| !older.packed && is_marked(&older.name)) else {
            // Not there at all is an error that says so; another file is none.
            return opened.map(|_| None);
        };
        for later in older[at + 1..].iter().rev() {
            rustix::fs::unlinkat(&dir, &later.name, AtFlags::empty())?;
        }
        // Takes the place of what stands there.
        rustix::fs::renameat(&dir, &older[at].name, &dir, live)?;
        notes.push(format!(
            "{} was rotated {} times after the last checkpoint; that is undone, and what was written since is read again",
            self.shown(path),
            older.len() - at
        ));
        let file = open_file(&dir, live, OFlags::empty(), 0)?;
        let (_, len) = identify(&file)?;
        Ok(Some((file, len)))
    }

    fn shown(&self, path: &str) -> String {
        self.settings.directory.join(path).display().to_string()
    }

    fn failed(&self, what: &str, path: &str, source: io::Error) -> SinkError {
        SinkError::retry(format!("{what} {}", self.shown(path)), source)
    }

    /// Makes sure that an output's file is open and is the one its name leads to.
    fn ready(&mut self, path: &Arc<str>) -> Result<(), SinkError> {
        let now = Instant::now();
        if let Some(output) = self.outputs.get(path)
            && output.file.is_some()
        {
            let recent = now.duration_since(output.checked_at) < self.check_interval;
            if recent || self.is_unchanged(path, output) {
                self.touch(path, now, !recent);
                return Ok(());
            }
            self.leave(path);
        }
        let (file, id, len, born_s) =
            self.open_output(path).map_err(|source| self.failed("opening", path, source))?;
        self.make_room();
        self.tick += 1;
        self.open.insert(self.tick, path.clone());
        let users = self.outputs.get(path).map_or(0, |output| output.users);
        let file = Some(self.claims.hold(file, Owner::Sink(NAME.to_owned())));
        let output = Output { file, id, len, users, used_at: self.tick, checked_at: now, born_s };
        self.outputs.insert(path.clone(), output);
        Ok(())
    }

    /// The file at its end, with a whole line before it: what a crash tore is closed off, so that it costs only itself.
    fn open_output(&self, path: &str) -> io::Result<(OwnedFd, FileId, u64, u64)> {
        let (dir, name) = open_parent(&self.root, path, true)?;
        let file = open_file(&dir, name, OFlags::CREATE, self.settings.file_mode)?;
        let (id, mut len) = identify(&file)?;
        let mut last = [b'\n'];
        if len > 0 {
            rustix::io::pread(&file, &mut last, len - 1)?;
        }
        if last != [b'\n'] {
            len += rustix::io::pwrite(&file, b"\n", len)? as u64;
        }
        // Where the file system does not say when the file was made, now.
        let born_s =
            if id.birth_ns > 0 { id.birth_ns as u64 / 1_000_000_000 } else { (self.unix_ms)() / 1000 };
        Ok((file, id, len, born_s))
    }

    fn is_unchanged(&self, path: &str, output: &Output) -> bool {
        rustix::fs::statx(&self.root, path, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED)
            .is_ok_and(|stat| output.id == FileId::of(&stat) && output.len == stat.stx_size)
    }

    fn touch(&mut self, path: &Arc<str>, now: Instant, checked: bool) {
        let Some(output) = self.outputs.get_mut(path) else { return };
        self.tick += 1;
        self.open.remove(&output.used_at);
        self.open.insert(self.tick, path.clone());
        output.used_at = self.tick;
        if checked {
            output.checked_at = now;
        }
    }

    /// Somebody moved, deleted, cut or appended to the file. A batch partly in it is taken back as far as that is
    /// possible, and written whole to whatever the name now leads to.
    fn leave(&mut self, path: &Arc<str>) {
        tracing::warn!(output = %self.shown(path), "moved, deleted or changed by somebody else; opened anew");
        self.take_back(path);
        self.close(path);
    }

    fn take_back(&mut self, path: &Arc<str>) {
        let Some(partial) = self.partial.take_if(|partial| partial.path == *path) else { return };
        self.outbox.reset();
        let Some(output) = self.outputs.get_mut(path) else { return };
        if let Some(file) = &output.file
            && identify(file).is_ok_and(|(_, len)| len == output.len)
            && rustix::fs::ftruncate(file, partial.start_len).is_ok()
        {
            output.len = partial.start_len;
        }
    }

    fn close(&mut self, path: &Arc<str>) {
        if let Some(output) = self.outputs.get_mut(path)
            && output.file.take().is_some()
        {
            self.open.remove(&output.used_at);
        }
    }

    fn make_room(&mut self) {
        while self.open.len() >= self.open_max {
            let Some((_, path)) = self.open.pop_first() else { return };
            if let Some(output) = self.outputs.get_mut(&path) {
                output.file = None;
            }
        }
    }

    fn is_due(&self, output: &Output) -> bool {
        let LocalFile { max_size, rotate_every, .. } = self.settings;
        let full = max_size > 0 && output.len >= max_size;
        let every_s = rotate_every.as_secs();
        let old = every_s > 0 && (self.unix_ms)() / 1000 / every_s != output.born_s / every_s;
        output.len > 0 && (full || old)
    }

    /// The output's file becomes an older one, and a new one is begun.
    fn rotate(&mut self, path: &Arc<str>) -> Result<(), SinkError> {
        let result = self.rename_to_generation(path);
        let (id, stamp) = result.map_err(|source| self.failed("rotating", path, source))?;
        self.close(path);
        self.pending.entry(path.clone()).or_default().push(Pending { id, stamp, saves: 0 });
        self.ready(path)
    }

    fn rename_to_generation(&self, path: &Arc<str>) -> io::Result<(FileId, String)> {
        let (dir, live) = open_parent(&self.root, path, false)?;
        let newest = generations::list(&dir, live)?.pop().map(|newest| newest.stamp).unwrap_or_default();
        let stamp = generations::stamp_after(&newest, (self.unix_ms)());
        let name = generations::name(live, &stamp);
        rustix::fs::renameat_with(&dir, live, &dir, &name, RenameFlags::NOREPLACE)?;
        let id = self.outputs.get(path).map(|output| output.id);
        Ok((id.ok_or(io::ErrorKind::NotFound)?, stamp))
    }

    /// Older files from before this run: a checkpoint that the next start may load could still name one.
    fn take_over_generations(&mut self, path: &Arc<str>) -> io::Result<()> {
        let (dir, live) = open_parent(&self.root, path, false)?;
        let mut pending = Vec::new();
        for older in generations::list(&dir, live)?.into_iter().filter(|older| !older.packed) {
            let (id, _) = identify(&open_file(&dir, &older.name, OFlags::empty(), 0)?)?;
            pending.push(Pending { id, stamp: older.stamp, saves: 0 });
        }
        if !pending.is_empty() {
            self.pending.insert(path.clone(), pending);
        }
        Ok(())
    }

    /// Waits until the archive has done what it was asked for.
    #[cfg(test)]
    fn flush_archive(&mut self) {
        let archive = self.archive.take().expect("it runs");
        archive.finish();
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        while let Some(path) = self.open.first_key_value().map(|(_, path)| path.clone()) {
            let idle = |output: &Output| now.duration_since(output.checked_at) >= IDLE_AFTER;
            if !self.outputs.get(&path).is_some_and(idle) {
                return;
            }
            self.close(&path);
        }
    }

    fn mark(&self, path: &Arc<str>) -> Option<OutputMark> {
        let output = self.outputs.get(path)?;
        Some(OutputMark { path: path.to_string(), file: output.id, len_bytes: output.len })
    }
}

impl Sink for LocalFileSink {
    fn name(&self) -> &str {
        NAME
    }

    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        let path: Arc<str> = file_name::render(&self.settings.file, source).into();
        let known = self.outputs.contains_key(&path) || self.pending.contains_key(&path);
        self.ready(&path)?;
        if !known {
            self.take_over_generations(&path)
                .map_err(|source| self.failed("listing the older files of", &path, source))?;
        }
        if let Some(output) = self.outputs.get_mut(&path) {
            output.users += 1;
        }
        // After the new use is counted, so that an attach to the same file does not close it.
        self.detach(source.id);
        let stream = Stream { source: source.clone(), facts: self.outbox.facts(source), path: path.clone() };
        self.streams.insert(source.id, stream);
        Ok(self.mark(&path))
    }

    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        let id = batch.source.id;
        if !self.streams.contains_key(&id) {
            self.attach(&batch.source)?;
        }
        let Some(stream) = self.streams.get_mut(&id) else { unreachable!("just attached") };
        if !Arc::ptr_eq(&stream.source, &batch.source) {
            // Renamed or relabelled: the records say so at once, the file changes with the next attach.
            stream.source = batch.source.clone();
            stream.facts = self.outbox.facts(&batch.source);
        }
        let path = stream.path.clone();
        self.ready(&path)?;
        if self.partial.is_none() && self.outputs.get(&path).is_some_and(|output| self.is_due(output)) {
            self.rotate(&path)?;
        }
        let (Some(stream), Some(output)) = (self.streams.get(&id), self.outputs.get_mut(&path)) else {
            unreachable!("both were made above")
        };
        let partial =
            self.partial.get_or_insert_with(|| Partial { path: path.clone(), start_len: output.len });
        assert!(partial.path == path, "another batch came before {} was whole", partial.path);
        let Output { file: Some(file), len, .. } = output else { unreachable!("ready opened it") };
        let result = self.outbox.push(batch, &stream.facts, |bytes| {
            let written = rustix::io::pwrite(&**file, bytes, *len)?;
            *len += written as u64;
            Ok(written)
        });
        let result = result.and_then(|counts| {
            if self.settings.fsync == Fsync::Batch
                && let Err(errno) = rustix::fs::fdatasync(&**file)
            {
                // Written again as a whole, at the same place.
                rustix::fs::ftruncate(&**file, partial.start_len)?;
                *len = partial.start_len;
                return Err(errno.into());
            }
            Ok(counts)
        });
        let counts = result.map_err(|source| self.failed("writing", &path, source))?;
        self.partial = None;
        Ok(Delivered { mark: self.mark(&path), counts })
    }

    fn detach(&mut self, stream: StreamId) {
        let Some(Stream { path, .. }) = self.streams.remove(&stream) else { return };
        let Some(output) = self.outputs.get_mut(&path) else { return };
        output.users -= 1;
        if output.users == 0 {
            self.close(&path);
            self.outputs.remove(&path);
        }
    }

    fn saved(&mut self, marks: &OutputMarks) {
        let marks = marks.get(self.name());
        let mut visits = Vec::new();
        self.pending.retain(|path, pending| {
            let mark = marks.and_then(|marks| marks.get(&**path));
            // Files before the one that the checkpoint names; all, if it names a later one or none.
            let named = |older: &Pending| mark.is_some_and(|mark| mark.file.can_be(older.id));
            let at = pending.iter().position(named).unwrap_or(pending.len());
            pending[..at].iter_mut().for_each(|older| older.saves += 1);
            let kept = pending.partition_point(|older| older.saves >= CHECKPOINTS_KEPT);
            if let Some(newest) = pending.drain(..kept).next_back() {
                visits.push((path.clone(), newest.stamp));
            }
            !pending.is_empty()
        });
        if let Some(archive) = &self.archive {
            visits.into_iter().for_each(|(path, through)| archive.visit(&path, through));
        }
        self.close_idle();
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.archive = None;
        if let Some(path) = self.partial.as_ref().map(|partial| partial.path.clone()) {
            self.take_back(&path);
        }
        for path in self.open.values() {
            let Some(Output { file: Some(file), .. }) = self.outputs.get(path) else { continue };
            rustix::fs::fdatasync(file).map_err(|errno| self.failed("syncing", path, errno.into()))?;
        }
        Ok(())
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
