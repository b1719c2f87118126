//! The local_file sink: NDJSON files beneath one directory.
//!
//! ```text
//! attach:   template ─▶ path ─▶ open beneath the directory, no links ─▶ mark (path, identity, length, prints)
//! deliver:  check that the name is still our file, as long as we left it ─▶ one appending write per batch ─▶ mark
//! rotation: full or old ─▶ renamed (generations.rs) ─▶ a new file, a new mark ─▶ once no checkpoint that could be
//!           loaded needs it any more: compressed, and the oldest deleted, by a thread of its own (archive.rs)
//! restart:  records after the mark stay (restore.rs) ─▶ when they are read again from their source, they are skipped
//!           (overhang.rs, skipping.rs) ─▶ nothing is there twice, and nothing is cut off that may exist nowhere else
//! ```
//! A batch is written whole or not at all: the rest of a failed write is removed, and the same batch is delivered
//! again.
//!
//! People move, delete and empty log files while they are written. So the name is checked before each batch: a file
//! that was moved or deleted is left alone and a new one begun; one that was emptied or appended to is continued at its
//! new end. Files are open for appending, so that one that is emptied between check and write gets no hole.
//!
//! Several streams may share a file. Acknowledgements of an output leave this thread in the order of its writes, so its
//! newest mark always fits all cursors acknowledged so far.
//!
//! Not here: durability of each batch against a power cut. Data reaches the disk when the kernel writes it back, and
//! at shutdown; a file found shorter than its mark after such a cut is reported as lost output.

mod archive;
mod beneath;
mod generations;
mod keys;
mod outputs;
mod overhang;
mod restore;
mod root;
pub(crate) mod skipping;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::file_name;
use super::outbox::Outbox;
use super::{Counts, Delivered, Sink, SinkError};
use crate::ledger::claims::Claims;
use crate::limits::OUTPUT_FILES_OPEN_MAX;
use crate::model::record::{Batch, OutputMark, SavedMarks, Source, StreamId};
use crate::settings::{Fsync, LocalFile};

use archive::{Archive, Keep};
use outputs::{OlderFiles, Output, Pending};
use overhang::Plan;
use root::Root;
use skipping::{Looks, Skipping};

const NAME: &str = "local_file";
/// The key of the config that says where outputs are.
const DIRECTORY_KEY: &str = "sinks.local_file.directory";
/// How often, at most, the path of the directory is checked while outputs are written.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A file nobody wrote to for this long is closed until it is needed again.
const IDLE_AFTER: Duration = Duration::from_secs(300);
/// For this long a checkpoint says which records of the last run no source came back for. Files that hold them stay
/// unchanged meanwhile, so this must end.
const UNCOVERED_TOLD: Duration = Duration::from_secs(600);
/// The checkpoint and the one before it: either may be loaded by the next start.
const CHECKPOINTS_KEPT: u32 = 2;

/// The sink; see the head of this file.
pub struct LocalFileSink {
    settings: LocalFile,
    /// There was no checkpoint, and no existing output was reported yet.
    knows_none: bool,
    root: Arc<Root>,
    root_checked_at: Option<Instant>,
    claims: Claims,
    /// `None` once the sink was flushed: its last call.
    archive: Option<Archive>,
    /// Older files that a checkpoint may still name, by path, oldest first.
    pending: BTreeMap<Arc<str>, OlderFiles>,
    /// Names in the directories when each was listed.
    left: generations::Left,
    streams: BTreeMap<StreamId, Box<Stream>>,
    /// By path relative to the directory.
    outputs: BTreeMap<Arc<str>, Box<Output>>,
    /// Outputs with an open file, by the tick of their last use.
    open: BTreeMap<u64, Arc<str>>,
    tick: u64,
    outbox: Outbox,
    /// What the last run wrote without saving a checkpoint about it.
    skipping: Skipping,
    began_at: Instant,
    /// Nanoseconds since 1970: a file made later was made by this run, or by somebody else during it.
    began_ns: i64,
    check_interval: Duration,
    open_max: usize,
    /// Milliseconds since 1970.
    unix_ms: fn() -> u64,
}

struct Stream {
    source: Arc<Source>,
    looks: Looks,
    path: Arc<str>,
}

/// What became of the outputs of the last run.
#[derive(Debug, Default)]
pub struct Restored {
    /// Outputs as they are now; to replace those of the loaded checkpoint.
    pub marks: BTreeMap<Arc<str>, OutputMark>,
    /// Notes for the operator, one sentence each.
    pub notes: Vec<String>,
}

impl LocalFileSink {
    /// Makes the directory if need be, and checks what the last run's outputs hold beyond its checkpoint (`marks`).
    ///
    /// # Errors
    /// If the directory can't be made or opened.
    pub fn open(
        settings: &LocalFile,
        marks: &BTreeMap<Arc<str>, OutputMark>,
        claims: Claims,
    ) -> Result<(LocalFileSink, Restored), SinkError> {
        let directory = &settings.directory;
        let failed = |what: &'static str| {
            move |source: io::Error| SinkError::of_file(what, directory.clone(), DIRECTORY_KEY, source)
        };
        let root = Arc::new(Root::open(directory, &claims).map_err(failed("opening directory"))?);
        let archive = Archive::start(Arc::clone(&root), settings.compress, Keep::new(settings))
            .map_err(failed("starting the thread that compresses files in"))?;
        let ways = restore::Ways {
            format: settings.format,
            shared: !settings.file.names_source(),
            directory,
            now_s: unix_ms() / 1000,
        };
        let (restored, overhangs) = restore::restore(&root.fd(), ways, marks);
        let sink = LocalFileSink {
            settings: settings.clone(),
            knows_none: false,
            root,
            root_checked_at: None,
            claims,
            archive: Some(archive),
            pending: BTreeMap::new(),
            left: generations::Left::default(),
            streams: BTreeMap::new(),
            outputs: BTreeMap::new(),
            open: BTreeMap::new(),
            tick: 0,
            outbox: Outbox::new(settings.format),
            skipping: Skipping { format: settings.format, overhangs },
            began_at: Instant::now(),
            began_ns: (unix_ms() as i64).saturating_mul(1_000_000),
            check_interval: CHECK_INTERVAL,
            open_max: OUTPUT_FILES_OPEN_MAX,
            unix_ms,
        };
        Ok((sink, restored))
    }

    /// There is no checkpoint: outputs that already have lines are reported.
    pub fn without_checkpoint(mut self, without: bool) -> LocalFileSink {
        self.knows_none = without;
        self
    }

    /// At most so many outputs are open at once.
    pub fn limit_open(mut self, most: usize) -> LocalFileSink {
        self.open_max = most.clamp(1, OUTPUT_FILES_OPEN_MAX);
        self
    }

    fn shown(&self, path: impl AsRef<Path>) -> String {
        self.settings.directory.join(path).display().to_string()
    }

    fn failed(&self, what: &str, path: &str, source: io::Error) -> SinkError {
        SinkError::of_file(what, self.settings.directory.join(path), DIRECTORY_KEY, source)
    }

    fn write(&mut self, stream: StreamId, batch: &Batch, plan: Option<&Plan>) -> io::Result<Counts> {
        let stream = self.streams.get(&stream).ok_or(io::ErrorKind::NotFound)?;
        let output = self.outputs.get_mut(&stream.path).ok_or(io::ErrorKind::NotFound)?;
        let start_len = output.len;
        let put = |bytes: &[u8]| output.put(bytes);
        let result = match plan {
            None => self.outbox.push(batch, &stream.looks.facts, put),
            Some(plan) => self.outbox.push_some(batch, &plan.kept, &stream.looks.facts, put),
        };
        let result = result.and_then(|counts| match self.settings.fsync {
            Fsync::Batch => output.sync().map(|()| counts),
            _ => Ok(counts),
        });
        if result.is_err() {
            // The whole batch is delivered again.
            self.outbox.reset();
            output.take_back(start_len);
        }
        result
    }

    fn mark(&mut self, path: &Arc<str>) -> Option<OutputMark> {
        let output = self.outputs.get(path)?;
        Some(OutputMark {
            path: Arc::clone(path),
            file: output.id,
            len_bytes: output.len,
            print: Some(output.print()),
            uncovered: self.skipping.uncovered(path),
        })
    }

    fn path_of(&self, source: &Source) -> Arc<str> {
        file_name::render(&self.settings.file, source).into()
    }
}

impl Sink for LocalFileSink {
    fn name(&self) -> &str {
        NAME
    }

    fn output_of(&self, source: &Source, after_attach: bool) -> Option<Arc<str>> {
        let known = self.streams.get(&source.id).filter(|_| !after_attach);
        let known = known.map(|stream| Arc::clone(&stream.path));
        Some(known.unwrap_or_else(|| self.path_of(source)))
    }

    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        let path = self.path_of(source);
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
        let looks = self.skipping.looks(source, &path, |source| self.path_of(source));
        let stream = Stream { source: source.clone(), looks, path: path.clone() };
        self.streams.insert(source.id, Box::new(stream));
        Ok(self.mark(&path))
    }

    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        let id = batch.source.id;
        if !self.streams.contains_key(&id) {
            self.attach(&batch.source)?;
        }
        let Some(stream) = self.streams.get_mut(&id) else { unreachable!("just attached") };
        if !Arc::ptr_eq(&stream.source, &batch.source) {
            // Renamed or relabelled: records show it at once, the file changes with the next attach.
            stream.source = batch.source.clone();
            stream.looks.facts = self.outbox.facts(&batch.source);
        }
        let path = stream.path.clone();
        if batch.records.is_empty() && self.outputs.get(&path).is_some_and(|output| output.withdrawn) {
            return Ok(Delivered { mark: self.mark(&path), counts: Counts::default() });
        }
        self.ready(&path)?;
        self.rotate_if_due(&path)?;
        let plan = self.streams.get(&id).and_then(|stream| self.skipping.plan(&stream.looks, batch));
        let counts =
            self.write(id, batch, plan.as_ref()).map_err(|source| self.failed("writing", &path, source))?;
        if let Some(plan) = plan {
            self.skipping.apply(plan);
        }
        Ok(Delivered { mark: self.mark(&path), counts })
    }

    fn detach(&mut self, stream: StreamId) {
        let Some(Stream { path, .. }) = self.streams.remove(&stream).map(|stream| *stream) else { return };
        let Some(output) = self.outputs.get_mut(&path) else { return };
        output.users = output.users.saturating_sub(1);
        if output.users == 0 {
            self.close(&path);
            self.outputs.remove(&path);
        }
    }

    fn withdraw(&mut self, stream: StreamId) {
        if let Some(path) = self.streams.get(&stream).map(|stream| Arc::clone(&stream.path)) {
            self.remove_empty(&path);
        }
    }

    fn saved(&mut self, marks: &SavedMarks) -> bool {
        if self.began_at.elapsed() >= UNCOVERED_TOLD {
            self.skipping.overhangs.tell_no_more();
        }
        let mut visits = Vec::new();
        self.pending.retain(|path, pending| {
            if let Some(mark) = marks.of(NAME, path) {
                // Files older than the first that the checkpoint names; all, if it names a later one or none.
                let named = |older: &Pending| mark.is_some_and(|mark| mark.names(older.id));
                pending.unnamed = pending.files.iter().position(named).unwrap_or(pending.files.len());
            }
            pending.files[..pending.unnamed].iter_mut().for_each(|older| older.saves += 1);
            let kept = pending.files.partition_point(|older| older.saves >= CHECKPOINTS_KEPT);
            if let Some(newest) = pending.files.drain(..kept).next_back() {
                visits.push((path.clone(), newest.stamp));
            }
            pending.unnamed = pending.unnamed.saturating_sub(kept);
            !pending.files.is_empty()
        });
        if let Some(archive) = &self.archive {
            visits.into_iter().for_each(|(path, through)| archive.visit(&path, through));
        }
        self.close_idle();
        // On a full disk, writing may only continue once these files are gone, which takes another checkpoint: so one
        // is requested.
        self.pending.values().any(|older| older.unnamed > 0)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.archive = None;
        for path in self.open.values() {
            let Some(output) = self.outputs.get(path) else { continue };
            output.sync().map_err(|source| self.failed("syncing", path, source))?;
        }
        Ok(())
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
