//! One output and its file: opened, checked before each batch, rotated.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath::{identify, open_file, open_parent};
use super::restore::print_of;
use super::{DIRECTORY_KEY, IDLE_AFTER, LocalFileSink, NAME, generations};
use crate::ledger::Owner;
use crate::ledger::claims::Claimed;
use crate::limits::OUTPUT_PRINT_BYTES;
use crate::model::cursor::{FileId, HeadPrint};
use crate::model::rare::{Begins, Rare};
use crate::model::record::OutputPrint;
use crate::settings::LocalFile;
use crate::sink::SinkError;

/// An output that can't be rotated is written on, and rotation is tried again after this long.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Output {
    /// `None` = closed to make room for others.
    pub(super) file: Option<Claimed<OwnedFd>>,
    pub(super) id: FileId,
    /// Bytes in the file; the next are written here.
    pub(super) len: u64,
    /// Streams that write here.
    pub(super) users: usize,
    /// Key in `open`, while `file` is there.
    used_at: u64,
    checked_at: Instant,
    /// When the file was made, seconds since 1970.
    pub(super) born_s: u64,
    head: HeadPrint,
    /// The last bytes, as many as a print covers.
    tail: Vec<u8>,
    /// Its file was empty and not needed, and is gone until a record arrives.
    pub(super) withdrawn: bool,
    trouble: Rare<Trouble>,
}

/// State that hardly any of tens of thousands of outputs has.
#[derive(Default)]
struct Trouble {
    /// A batch that could be neither written nor taken back begins here.
    torn_at: Option<u64>,
    /// It can't be rotated, and this is the next attempt.
    rotate_at: Option<Instant>,
}

impl Begins for Trouble {
    const BEGINNING: &'static Trouble = &Trouble { torn_at: None, rotate_at: None };
}

/// Older files of an output that a checkpoint may still name, oldest first.
#[derive(Default)]
pub(super) struct OlderFiles {
    pub(super) files: Vec<Pending>,
    /// How many of them, from the oldest on, the last saved checkpoint does not name.
    pub(super) unnamed: usize,
}

/// An older file that must stay as it is.
pub(super) struct Pending {
    pub(super) id: FileId,
    /// Orders older files, see generations.rs.
    pub(super) stamp: String,
    /// Checkpoints saved since that name a later file.
    pub(super) saves: u32,
}

impl Output {
    /// Appends; returns how many bytes were written.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let written = rustix::io::write(&**file, bytes)?;
        let taken = &bytes[..written];
        self.add_to_head(taken);
        let newest = &taken[taken.len().saturating_sub(OUTPUT_PRINT_BYTES)..];
        let excess = (self.tail.len() + newest.len()).saturating_sub(OUTPUT_PRINT_BYTES);
        self.tail.drain(..excess);
        // Most outputs hold little; a busy one has its full buffer from its second batch on.
        let is_first = self.tail.is_empty();
        self.tail.reserve_exact(if is_first { newest.len() } else { OUTPUT_PRINT_BYTES - self.tail.len() });
        self.tail.extend_from_slice(newest);
        self.len += written as u64;
        Ok(written)
    }

    fn add_to_head(&mut self, bytes: &[u8]) {
        let missing = OUTPUT_PRINT_BYTES - self.head.len_bytes as usize;
        let more = &bytes[..bytes.len().min(missing)];
        if !more.is_empty() {
            let mut hasher =
                crc32fast::Hasher::new_with_initial_len(self.head.crc32, u64::from(self.head.len_bytes));
            hasher.update(more);
            self.head =
                HeadPrint { len_bytes: self.head.len_bytes + more.len() as u32, crc32: hasher.finalize() };
        }
    }

    pub(super) fn print(&self) -> OutputPrint {
        let tail = HeadPrint { len_bytes: self.tail.len() as u32, crc32: crc32fast::hash(&self.tail) };
        OutputPrint { head: self.head, tail }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| Ok(rustix::fs::fdatasync(&**file)?))
    }

    /// Removes what was written since the file had this length, unless somebody else wrote to it.
    pub(super) fn take_back(&mut self, start_len: u64) {
        if self.len > start_len {
            self.trouble.torn_at = Some(start_len);
        }
        self.mend();
    }

    fn mend(&mut self) {
        let (Some(start_len), Some(file)) = (self.trouble.torn_at, &self.file) else { return };
        let is_ours = identify(file).is_ok_and(|(_, len)| len == self.len);
        if is_ours
            && rustix::fs::ftruncate(&**file, start_len).is_ok()
            && self.look_at_ends(start_len).is_ok()
        {
            self.trouble.torn_at = None;
        }
    }

    fn look_at_ends(&mut self, len: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let print = print_of(file, len)?;
        let mut tail = vec![0; print.tail.len_bytes as usize];
        let at = len - tail.len() as u64;
        let count = rustix::io::pread(&**file, &mut tail, at)?;
        tail.truncate(count);
        (self.head, self.tail, self.len) = (print.head, tail, len);
        Ok(())
    }
}

impl LocalFileSink {
    /// Makes sure that an output's file is open, is the one its name leads to, and ends where we left it.
    pub(super) fn ready(&mut self, path: &Arc<str>) -> Result<(), SinkError> {
        let now = Instant::now();
        self.check_root(now)?;
        if let Some(output) = self.outputs.get_mut(path)
            && output.file.is_some()
        {
            output.mend();
            if output.trouble.torn_at.is_none() && self.is_unchanged(path) {
                self.touch(path, now);
                return Ok(());
            }
            self.leave(path);
        }
        let (file, id, len) =
            self.open_output(path).map_err(|source| self.failed("opening", path, source))?;
        self.tell_if_unknown(path, id, len);
        self.make_room();
        self.tick += 1;
        self.open.insert(self.tick, path.clone());
        let (users, rotate_at) =
            self.outputs.get(path).map_or((0, None), |output| (output.users, output.trouble.rotate_at));
        // The time now, if the file system does not say when the file was made.
        let born_s =
            if id.birth_ns > 0 { id.birth_ns as u64 / 1_000_000_000 } else { (self.unix_ms)() / 1000 };
        let mut output = Output {
            file: Some(self.claims.hold(file, Owner::Sink(NAME.to_owned()))),
            id,
            len,
            users,
            used_at: self.tick,
            checked_at: now,
            born_s,
            head: HeadPrint::default(),
            tail: Vec::new(),
            withdrawn: false,
            trouble: Rare::default(),
        };
        if rotate_at.is_some() {
            output.trouble.rotate_at = rotate_at;
        }
        let looked = output.look_at_ends(len);
        self.outputs.insert(path.clone(), Box::new(output));
        looked.map_err(|source| self.failed("reading", path, source))
    }

    /// Without a checkpoint logs are read from their beginning, even if outputs already have their lines. Reported
    /// once, and not for an output that this run made for another container of the same name.
    fn tell_if_unknown(&mut self, path: &Arc<str>, id: FileId, len: u64) {
        let is_from_before = len > 0 && id.birth_ns < self.began_ns && !self.outputs.contains_key(path);
        if is_from_before && std::mem::take(&mut self.knows_none) {
            tracing::warn!(
                output = %self.shown(&**path),
                bytes = len,
                "has lines from before, and there is no checkpoint in data_dir: what the logs still have is read again and comes \
                 twice, here and in other outputs (with start_at: end, what came while the agent was down is left out instead); \
                 if data_dir was emptied, moved or mistyped, stop the agent and put it right"
            );
        }
    }

    /// The directory may have been removed, moved or mounted over: outputs are written where its path leads.
    fn check_root(&mut self, now: Instant) -> Result<(), SinkError> {
        let recent = |at: Instant| now.duration_since(at) < self.check_interval;
        if self.root_checked_at.is_some_and(recent) {
            return Ok(());
        }
        if !self.root.is_current() {
            self.root.reopen().map_err(|source| {
                SinkError::of_file(
                    "opening directory",
                    self.settings.directory.clone(),
                    DIRECTORY_KEY,
                    source,
                )
            })?;
            tracing::warn!(
                directory = %self.settings.directory.display(),
                "removed, moved or replaced by somebody; outputs continue in the one that is there now"
            );
            let open: Vec<Arc<str>> = self.open.values().cloned().collect();
            open.iter().for_each(|path| self.close(path));
            self.pending.clear();
            self.left.forget();
        }
        self.root_checked_at = Some(now);
        Ok(())
    }

    /// Opens the file for appending after a whole line: a line that a crash tore is ended, so that it costs only
    /// itself.
    fn open_output(&mut self, path: &str) -> io::Result<(OwnedFd, FileId, u64)> {
        let opened = open_parent(&self.root.fd(), path, true).and_then(|(dir, name)| {
            open_file(&dir, name, OFlags::CREATE | OFlags::APPEND, self.settings.file_mode)
        });
        let file = opened.inspect_err(|_| {
            // The directory may have been replaced: the next attempt checks that.
            self.root_checked_at = None;
        })?;
        let (id, mut len) = identify(&file)?;
        let mut last = [b'\n'];
        if len > 0 {
            rustix::io::pread(&file, &mut last, len - 1)?;
        }
        if last != [b'\n'] {
            len += rustix::io::write(&file, b"\n")? as u64;
        }
        Ok((file, id, len))
    }

    fn is_unchanged(&self, path: &str) -> bool {
        let Some(output) = self.outputs.get(path) else { return false };
        rustix::fs::statx(&**self.root.fd(), path, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED)
            .is_ok_and(|stat| output.id == FileId::of(&stat) && output.len == stat.stx_size)
    }

    fn touch(&mut self, path: &Arc<str>, now: Instant) {
        let Some(output) = self.outputs.get_mut(path) else { return };
        self.tick += 1;
        self.open.remove(&output.used_at);
        self.open.insert(self.tick, path.clone());
        output.used_at = self.tick;
        output.checked_at = now;
    }

    /// Somebody moved, deleted, cut or appended to the file.
    fn leave(&mut self, path: &Arc<str>) {
        let stat = rustix::fs::statx(&**self.root.fd(), &**path, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED);
        if stat.is_err_and(|error| error != rustix::io::Errno::NOENT) {
            // Nobody knows whether somebody did. It is opened anew, and what fails then is told.
            return self.close(path);
        }
        tracing::warn!(
            output = %self.shown(&**path),
            "moved, deleted, emptied or appended to by somebody; writing continues at the end of what is there now"
        );
        self.close(path);
    }

    pub(super) fn close(&mut self, path: &Arc<str>) {
        if let Some(output) = self.outputs.get_mut(path)
            && output.file.take().is_some()
        {
            self.open.remove(&output.used_at);
        }
    }

    /// Removes an output's file if it is empty, is still the one that was made, and nobody else writes to it.
    pub(super) fn remove_empty(&mut self, path: &Arc<str>) {
        let is_unused = self.outputs.get(path).is_some_and(|output| output.len == 0 && output.users <= 1);
        if !is_unused || self.pending.contains_key(path) || !self.is_unchanged(path) {
            return;
        }
        let removed = open_parent(&self.root.fd(), path, false)
            .and_then(|(dir, name)| Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?));
        self.close(path);
        if let (Ok(()), Some(output)) = (removed, self.outputs.get_mut(path)) {
            output.withdrawn = true;
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

    pub(super) fn close_idle(&mut self) {
        let now = Instant::now();
        while let Some(path) = self.open.first_key_value().map(|(_, path)| path.clone()) {
            let idle = |output: &Output| now.duration_since(output.checked_at) >= IDLE_AFTER;
            if !self.outputs.get(&path).is_some_and(|output| idle(output)) {
                return;
            }
            self.close(&path);
        }
    }

    fn is_due(&self, output: &Output) -> bool {
        let LocalFile { max_size, rotate_every, .. } = self.settings;
        let full = max_size > 0 && output.len >= max_size;
        let every_s = rotate_every.as_secs();
        let old = every_s > 0 && (self.unix_ms)() / 1000 / every_s != output.born_s / every_s;
        output.len > 0 && (full || old)
    }

    /// Makes the output's file an older one and begins a new one. A file that can't be rotated is written on: its lines
    /// matter more than its size.
    pub(super) fn rotate_if_due(&mut self, path: &Arc<str>) -> Result<(), SinkError> {
        let Some(output) = self.outputs.get(path).filter(|output| self.is_due(output)) else { return Ok(()) };
        if output.trouble.rotate_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        match self.rename_to_generation(path) {
            Ok((id, stamp)) => {
                self.close(path);
                self.pending.entry(path.clone()).or_default().files.push(Pending { id, stamp, saves: 0 });
                if let Some(output) = self.outputs.get_mut(path) {
                    output.trouble = Rare::default();
                }
                self.ready(path)
            }
            Err(error) => {
                tracing::warn!(
                    output = %self.shown(&**path),
                    "can't be rotated and keeps growing: {error}; retrying in {} s", ROTATE_AGAIN_AFTER.as_secs()
                );
                if let Some(output) = self.outputs.get_mut(path) {
                    output.trouble.rotate_at = Some(Instant::now() + ROTATE_AGAIN_AFTER);
                }
                Ok(())
            }
        }
    }

    fn rename_to_generation(&self, path: &Arc<str>) -> io::Result<(FileId, String)> {
        let (dir, live) = open_parent(&self.root.fd(), path, false)?;
        let newest = generations::list(&dir, live)?.pop().map(|newest| newest.stamp).unwrap_or_default();
        let stamp = generations::stamp_after(&newest, (self.unix_ms)());
        let name = generations::name(live, &stamp);
        let renamed = rustix::fs::renameat_with(&dir, live, &dir, &name, RenameFlags::NOREPLACE);
        rename_without_flags(renamed, &dir, live, &name)?;
        let id = self.outputs.get(path).map(|output| output.id);
        Ok((id.ok_or(io::ErrorKind::NotFound)?, stamp))
    }

    /// Older files from before this run: the checkpoint that the next start loads could still name one.
    pub(super) fn take_over_generations(&mut self, path: &Arc<str>) -> io::Result<()> {
        let (dir, live) = open_parent(&self.root.fd(), path, false)?;
        let mut pending = Vec::new();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        for older in self.left.of(&dir, parent, live)?.into_iter().filter(|older| !older.packed) {
            let file = match open_file(&dir, &older.name, OFlags::empty(), 0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let (id, _) = identify(&file)?;
            pending.push(Pending { id, stamp: older.stamp, saves: 0 });
        }
        if !pending.is_empty() {
            self.pending.insert(path.clone(), OlderFiles { files: pending, unnamed: 0 });
        }
        Ok(())
    }
}

/// NFS, CIFS, 9p and most of FUSE have no flag that keeps a rename from replacing a file. Nobody else makes such a
/// name, so checking first is as good.
fn rename_without_flags(renamed: Result<(), Errno>, dir: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    match renamed {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return Ok(other?),
    }
    match rustix::fs::statat(dir, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST.into()),
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(dir, from, dir, to)?),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_the_flag_renames_too_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let file = |name: &str| dir.path().join(name);
        for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP] {
            std::fs::write(file("live"), "new").unwrap();
            std::fs::write(file("taken"), "old").unwrap();
            assert!(rename_without_flags(Err(errno), &fd, "live", "taken").is_err());
            assert_eq!(std::fs::read_to_string(file("taken")).unwrap(), "old");
            rename_without_flags(Err(errno), &fd, "live", "free").unwrap();
            assert_eq!(std::fs::read_to_string(file("free")).unwrap(), "new");
            std::fs::remove_file(file("free")).unwrap();
        }
        assert!(rename_without_flags(Err(Errno::ACCESS), &fd, "taken", "free").is_err());
    }
}
