//! The local_file sink: NDJSON files beneath one directory.
//!
//! ```text
//! attach:   template ─▶ path ─▶ open beneath the directory, no links ─▶ mark (path, device, inode, length)
//! deliver:  look (at most once a second) whether the name still is our file ─▶ one pwrite per batch ─▶ mark
//! restart:  file with the mark's device and inode ─▶ cut to the mark's length ─▶ nothing is there twice
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

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::file_name::Template;
use super::ndjson::SourcePrefix;
use super::outbox::Outbox;
use super::{Delivered, Sink, SinkError};
use crate::limits::OUTPUT_FILES_OPEN_MAX;
use crate::record::{Batch, OutputMark, Source, StreamId};

/// How often, at most, a name is looked at while its file is being written.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's head.
pub struct LocalFileSink {
    /// As configured, for messages.
    directory: PathBuf,
    root: OwnedFd,
    template: Template,
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
}

struct Stream {
    source: Arc<Source>,
    prefix: SourcePrefix,
    path: Arc<str>,
}

struct Output {
    /// `None` = closed to make room for others.
    file: Option<OwnedFd>,
    id: FileKey,
    /// Bytes written; where the next go.
    len: u64,
    /// Streams that write here.
    users: usize,
    /// Key in `open`, while `file` is there.
    used_at: u64,
    checked_at: Instant,
}

struct Partial {
    path: Arc<str>,
    /// Length of the file before the batch.
    start_len: u64,
}

/// What a file is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKey {
    device: u64,
    inode: u64,
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
    pub fn open(
        directory: &Path,
        template: Template,
        marks: &BTreeMap<String, OutputMark>,
    ) -> Result<(LocalFileSink, Restored), SinkError> {
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
        let sink = LocalFileSink {
            directory: directory.to_owned(),
            root,
            template,
            streams: BTreeMap::new(),
            outputs: BTreeMap::new(),
            open: BTreeMap::new(),
            tick: 0,
            outbox: Outbox::default(),
            partial: None,
            check_interval: CHECK_INTERVAL,
            open_max: OUTPUT_FILES_OPEN_MAX,
        };
        let restored = sink.restore(marks)?;
        Ok((sink, restored))
    }

    fn restore(&self, marks: &BTreeMap<String, OutputMark>) -> Result<Restored, SinkError> {
        let mut restored = Restored::default();
        for mark in marks.values() {
            let path = &mark.path;
            let shown = self.shown(path);
            let file = match open_beneath(&self.root, path, OFlags::empty()) {
                Ok(file) => file,
                Err(error) => {
                    restored.notes.push(format!(
                        "{shown} can't be gone on with ({error}); {} bytes were in it",
                        mark.len_bytes
                    ));
                    continue;
                }
            };
            let (id, len) = identify(&file).map_err(|source| self.failed("looking at", path, source))?;
            if id != (FileKey { device: mark.device, inode: mark.inode }) {
                restored.notes.push(format!(
                    "{shown} is another file than before; its content stays and is appended to"
                ));
                continue;
            }
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

    fn shown(&self, path: &str) -> String {
        self.directory.join(path).display().to_string()
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
        let (file, id, len) =
            self.open_output(path).map_err(|source| self.failed("opening", path, source))?;
        self.make_room();
        self.tick += 1;
        self.open.insert(self.tick, path.clone());
        let users = self.outputs.get(path).map_or(0, |output| output.users);
        let output = Output { file: Some(file), id, len, users, used_at: self.tick, checked_at: now };
        self.outputs.insert(path.clone(), output);
        Ok(())
    }

    /// The file at its end, with a whole line before it: what a crash tore is closed off, so that it costs only itself.
    fn open_output(&self, path: &str) -> io::Result<(OwnedFd, FileKey, u64)> {
        let file = open_beneath(&self.root, path, OFlags::CREATE)?;
        let (id, mut len) = identify(&file)?;
        let mut last = [b'\n'];
        if len > 0 {
            rustix::io::pread(&file, &mut last, len - 1)?;
        }
        if last != [b'\n'] {
            len += rustix::io::pwrite(&file, b"\n", len)? as u64;
        }
        Ok((file, id, len))
    }

    fn is_unchanged(&self, path: &str, output: &Output) -> bool {
        rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            output.id == (FileKey { device: stat.st_dev, inode: stat.st_ino })
                && output.len == stat.st_size as u64
        })
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

    fn mark(&self, path: &Arc<str>) -> Option<OutputMark> {
        let output = self.outputs.get(path)?;
        Some(OutputMark {
            path: path.to_string(),
            device: output.id.device,
            inode: output.id.inode,
            len_bytes: output.len,
        })
    }
}

impl Sink for LocalFileSink {
    fn name(&self) -> &str {
        "local_file"
    }

    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        let path: Arc<str> = self.template.render(source).into();
        self.ready(&path)?;
        if let Some(output) = self.outputs.get_mut(&path) {
            output.users += 1;
        }
        // After the new use is counted, so that an attach to the same file does not close it.
        self.detach(source.id);
        let stream = Stream { source: source.clone(), prefix: SourcePrefix::new(source), path: path.clone() };
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
            stream.prefix = SourcePrefix::new(&batch.source);
        }
        let path = stream.path.clone();
        self.ready(&path)?;
        let (Some(stream), Some(output)) = (self.streams.get(&id), self.outputs.get_mut(&path)) else {
            unreachable!("both were made above")
        };
        let partial =
            self.partial.get_or_insert_with(|| Partial { path: path.clone(), start_len: output.len });
        assert!(partial.path == path, "another batch came before {} was whole", partial.path);
        let Output { file: Some(file), len, .. } = output else { unreachable!("ready opened it") };
        let result = self.outbox.push(batch, &stream.prefix, |bytes| {
            let written = rustix::io::pwrite(&*file, bytes, *len)?;
            *len += written as u64;
            Ok(written)
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

    fn flush(&mut self) -> Result<(), SinkError> {
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

fn identify(file: &OwnedFd) -> io::Result<(FileKey, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((FileKey { device: stat.st_dev, inode: stat.st_ino }, stat.st_size as u64))
}

/// Opens a regular file by a relative path, one component at a time and through no link, so that it is beneath `root`
/// whatever stands there. (openat2's RESOLVE_BENEATH does the same in one call but makes no directories, which have
/// to be made one by one anyway.) With O_CREAT in `extra` what is missing is made.
fn open_beneath(root: &OwnedFd, path: &str, extra: OFlags) -> io::Result<OwnedFd> {
    // The template makes no such path, but a checkpoint edited by hand could hold one.
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path beneath the directory"));
    }
    let (parents, name) = path.rsplit_once('/').map_or((None, path), |(parents, name)| (Some(parents), name));
    let mut dir: Option<OwnedFd> = None;
    for part in parents.iter().flat_map(|parents| parents.split('/')) {
        let above = dir.as_ref().unwrap_or(root);
        if extra.contains(OFlags::CREATE) {
            match rustix::fs::mkdirat(above, part, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = Some(rustix::fs::openat(above, part, flags, Mode::empty())?);
    }
    // O_NONBLOCK: a FIFO under the name must be refused, not waited for.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
    let file = rustix::fs::openat(dir.as_ref().unwrap_or(root), name, flags, Mode::from_raw_mode(0o640))?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
#[path = "local_file_tests.rs"]
mod tests;
