//! The checkpoint on disk: saved so that a crash at any moment leaves a whole one, and checked when it is loaded. Blocking;
//! called from a worker thread, never from the capture loop.
//!
//! ```text
//! save:  1 checkpoint.json.new written    2 fsync of it     3 checkpoint.json → .previous
//!        4 .new → checkpoint.json         5 fsync of the directory
//! load:  checkpoint.json, else .new (a crash between 3 and 4), else .previous, else empty
//! ```
//! The fsync before the renames is essential: without it the name may reach the disk before the bytes do, and a power
//! cut leaves an empty checkpoint under the right name. A damaged file is set aside as `checkpoint.json.damaged-<n>`;
//! it is never deleted and never a reason not to start. A file that can't be *read* (no permission, an I/O error, a
//! newer version, a symbolic link) is an error: beginning empty would deliver everything again.
//!
//! Not here: what the bytes mean (capture/checkpoint/mod.rs).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::capture::checkpoint::{Checkpoint, CheckpointError, changes, decode, journal, memory};
use crate::limits::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_DAMAGED_MAX};
use crate::settings::Remember;
use crate::shell::privilege;
use crate::text::disk_room::MOVE_DATA_DIR;

const CURRENT: &str = "checkpoint.json";
const NEW: &str = "checkpoint.json.new";
const PREVIOUS: &str = "checkpoint.json.previous";
pub(super) const LOCK: &str = "lock";
const CHANGES: &str = "checkpoint.changes";
const CHANGES_NEW: &str = "checkpoint.changes.new";
const FILES: &str = "files.log";
const FILES_NEW: &str = "files.log.new";
const BACK_NEW: &str = "put-back.new";
/// At most this many bytes of the table of files read are loaded. It is rewritten long before it is that long.
const FILES_BYTES_MAX: usize = 1 << 30;

/// What a start found.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Empty if there was no checkpoint.
    pub checkpoint: Checkpoint,
    /// What an operator should know, one sentence each; empty if nothing was wrong.
    pub notes: Vec<String>,
}

/// Why the checkpoint can't be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{what} {}{}", path.display(), cure(source))]
    Io {
        /// What was tried: "opening", "renaming".
        what: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something other than a regular file has this name.
    #[error("{} is not a regular file; it is not followed: move it away", path.display())]
    NotAFile {
        /// The path of that name.
        path: PathBuf,
    },
    /// There are too many streams.
    #[error("the checkpoint would be {len} bytes, the limit is {CHECKPOINT_BYTES_MAX}")]
    TooLarge {
        /// Bytes it would have.
        len: usize,
    },
    /// A newer program wrote it; starting without it would repeat everything.
    #[error("{}: move it away to begin without it", path.display())]
    Newer {
        /// The path of the checkpoint.
        path: PathBuf,
        source: CheckpointError,
    },
    /// Another agent uses the directory.
    #[error("{} is in use by {holder}: one agent, one data_dir", path.display())]
    Locked {
        /// The path of the directory.
        path: PathBuf,
        /// "process 4711", or "another process".
        holder: String,
    },
}

/// For the reasons that are met: a full disk, what another user left, file systems that can't be used.
fn cure(error: &io::Error) -> String {
    // A lock on NFS whose server runs no lockd, and on some FUSE file systems.
    if error.raw_os_error().is_some_and(|number| number == Errno::NOLCK.raw_os_error()) {
        return format!(" (the file system of data_dir grants no locks: {MOVE_DATA_DIR})");
    }
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(" (the file system of data_dir is read-only: mount it writable, or {MOVE_DATA_DIR})")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!(
                " (the disk of data_dir is full: free some room there, which df -h and du -xh show, or stop the agent and \
                 {MOVE_DATA_DIR})"
            )
        }
        io::ErrorKind::PermissionDenied => {
            " (give data_dir and all in it to the agent's user: chown -R)".to_owned()
        }
        _ => String::new(),
    }
}

/// The first file in `data_dir` that the agent must write but this user can't: another user's, or not a regular file.
pub fn unwritable(data_dir: &Path) -> Option<PathBuf> {
    let files = [LOCK, CURRENT, CHANGES, FILES].map(|name| data_dir.join(name));
    let is_wrong = |path: &PathBuf| {
        let there = std::fs::symlink_metadata(path);
        there.is_ok_and(|there| !there.is_file() || !privilege::is_writable(path))
    };
    files.into_iter().find(is_wrong)
}

/// The file operations of a save, so that a test can record their order and stop at each.
trait Disk {
    fn remove(&mut self, name: &'static str) -> Result<(), StoreError>;
    fn create(&mut self, name: &'static str) -> Result<File, StoreError>;
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), StoreError>;
    fn sync_file(&mut self, file: &File) -> Result<(), StoreError>;
    fn rename(&mut self, from: &'static str, to: &'static str) -> Result<(), StoreError>;
    fn sync_dir(&mut self) -> Result<(), StoreError>;
}

/// Saves the output of [`crate::capture::checkpoint::encode`]. After an error [`load`] still finds the checkpoint
/// before it.
pub fn save(dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() > CHECKPOINT_BYTES_MAX {
        return Err(StoreError::TooLarge { len: bytes.len() });
    }
    save_on(&mut Dir::open(dir)?, bytes)
}

fn save_on(disk: &mut impl Disk, bytes: &[u8]) -> Result<(), StoreError> {
    // A crash may have left the file, and `create` must make it itself.
    disk.remove(NEW)?;
    let mut file = disk.create(NEW)?;
    disk.write(&mut file, bytes)?;
    disk.sync_file(&file)?;
    drop(file);
    disk.rename(CURRENT, PREVIOUS)?;
    disk.rename(NEW, CURRENT)?;
    disk.sync_dir()
}

/// Appends to the table of files read, so that it is on disk before the checkpoint with the same number. Returns the
/// new length.
///
/// # Errors
/// As of [`save`].
pub fn remember(dir: &Path, checkpoint: &Checkpoint) -> Result<u64, StoreError> {
    let line = journal::encode(checkpoint.seq, &checkpoint.memory);
    Dir::open(dir)?.append(FILES, &line)
}

/// Appends a save's changes; `twice` if one damaged sector must not lose them.
///
/// # Errors
/// As of [`save`].
pub fn append_changes(dir: &Path, checkpoint: &Checkpoint, twice: bool) -> Result<(), StoreError> {
    let mut lines = changes::encode(checkpoint);
    if twice {
        lines.extend_from_within(..);
    }
    Dir::open(dir)?.append(CHANGES, &lines).map(drop)
}

/// Whether the file of changes has any.
pub fn has_changes(dir: &Path) -> bool {
    dir.join(CHANGES).exists()
}

/// Removes the changes, because the checkpoints on disk contain them.
///
/// # Errors
/// As of [`save`].
pub fn drop_changes(dir: &Path) -> Result<(), StoreError> {
    Dir::open(dir)?.remove(CHANGES)
}

/// Applies the changes since a checkpoint to it. With `mend`, unusable lines are removed, because the next saves will
/// have their numbers.
fn apply_changes(dir: &mut Dir, report: &mut LoadReport, mend: bool) -> Result<(), StoreError> {
    let Some(bytes) = dir.read_up_to(CHANGES, FILES_BYTES_MAX)? else { return Ok(()) };
    let applied = changes::apply(&bytes, &mut report.checkpoint);
    if mend && applied.damaged + applied.unused > 0 {
        dir.replace(CHANGES_NEW, CHANGES, &bytes[..applied.good_bytes])?;
    }
    // A crash tears only the last line.
    if applied.unused > 0 || applied.damaged > 1 {
        report.notes.push(format!(
            "{}: {} damaged lines; what was delivered after the save before them may be delivered again",
            dir.path_of(CHANGES).display(),
            applied.damaged
        ));
    }
    Ok(())
}

/// Drops superseded lines of the table; the checkpoint with this number and later ones still find theirs. Returns the
/// new length.
///
/// # Errors
/// As of [`save`].
pub fn compact(dir: &Path, up_to: u64, remember: &Remember) -> Result<u64, StoreError> {
    let mut dir = Dir::open(dir)?;
    let bytes = dir.read_up_to(FILES, FILES_BYTES_MAX)?.unwrap_or_default();
    let now_s = unix_s();
    let compacted = journal::compact(&bytes, up_to, |logs| {
        memory::prune(logs, remember, now_s);
    });
    dir.replace(FILES_NEW, FILES, &compacted)?;
    Ok(compacted.len() as u64)
}

/// Opens the saved files for `hold`. Missing or unreadable ones are left out.
pub(super) fn with_saved(dir: &Path, hold: impl FnOnce(Vec<(&'static str, File)>)) {
    let Ok(dir) = Dir::open(dir) else { return };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |name| {
        let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::empty()).ok()?;
        dir.expect_regular(&fd, name).ok()?;
        Some((name, File::from(fd)))
    };
    // In the order in which they are put back: each is useful only with those before it.
    hold([FILES, PREVIOUS, CURRENT, CHANGES].into_iter().filter_map(open).collect());
}

/// Copies files back to their names where these are missing.
///
/// # Errors
/// As of [`save`].
pub(super) fn put_back<'f>(
    dir: &Path,
    files: impl Iterator<Item = (&'static str, &'f File)>,
) -> Result<(), StoreError> {
    let mut dir = Dir::open(dir)?;
    for (name, file) in files {
        if rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            continue;
        }
        dir.remove(BACK_NEW)?;
        let mut copy = dir.create(BACK_NEW)?;
        let mut whole = file;
        whole
            .rewind()
            .and_then(|()| io::copy(&mut whole, &mut copy))
            .and_then(|_| copy.sync_all())
            .map_err(|source| dir.error("copying back", name, source))?;
        dir.rename(BACK_NEW, name)?;
    }
    dir.sync_dir()
}

fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Loads the table of files read into a checkpoint, up to its number.
fn load_memory(dir: &mut Dir, report: &mut LoadReport) -> Result<(), StoreError> {
    let Some(bytes) = dir.read_up_to(FILES, FILES_BYTES_MAX)? else { return Ok(()) };
    let decoded = journal::decode(&bytes, report.checkpoint.seq);
    if decoded.later > 0 || decoded.damaged > 0 {
        // Otherwise a later save could have a number that makes these lines count.
        dir.replace(FILES_NEW, FILES, &journal::encode(report.checkpoint.seq, &decoded.logs))?;
    }
    // A crash tears only the last line.
    if decoded.damaged > 1 {
        let path = dir.path_of(FILES);
        report.notes.push(format!(
            "{}: {} damaged lines; the files named in them may be delivered again if they were renamed or copied since",
            path.display(),
            decoded.damaged
        ));
    }
    report.checkpoint.memory = decoded.logs;
    Ok(())
}

/// The newest intact checkpoint, without changing anything, for use while an agent runs. Empty if there is none.
pub fn peek(dir: &Path) -> Result<Checkpoint, StoreError> {
    let mut dir = Dir::open(dir)?;
    for name in [CURRENT, NEW, PREVIOUS] {
        if let Some(checkpoint) = dir.read(name)?.and_then(|bytes| decode(&bytes).ok()) {
            let mut report = LoadReport { checkpoint, notes: Vec::new() };
            apply_changes(&mut dir, &mut report, false)?;
            return Ok(report.checkpoint);
        }
    }
    Ok(Checkpoint::default())
}

/// Finds the newest intact checkpoint, and its part of the table of files read.
pub fn load(dir: &Path) -> Result<LoadReport, StoreError> {
    let mut dir = Dir::open(dir)?;
    let mut report = load_checkpoint(&mut dir)?;
    apply_changes(&mut dir, &mut report, true)?;
    // Nothing is saved after the last save of a run that ended cleanly.
    if !report.checkpoint.clean {
        report.checkpoint.forget_lengths();
    }
    load_memory(&mut dir, &mut report)?;
    Ok(report)
}

fn load_checkpoint(dir: &mut Dir) -> Result<LoadReport, StoreError> {
    let mut notes = Vec::new();
    for name in [CURRENT, NEW, PREVIOUS] {
        let Some(bytes) = dir.read(name)? else { continue };
        match decode(&bytes) {
            Ok(checkpoint) => {
                if name == NEW {
                    // Completes the save that was cut off; the next save begins by removing this name.
                    dir.rename(NEW, CURRENT)?;
                }
                if name != CURRENT && !notes.is_empty() {
                    notes.push(format!(
                        "{} is used instead; what was delivered after it was saved may be delivered again",
                        dir.path_of(name).display()
                    ));
                }
                return Ok(LoadReport { checkpoint, notes });
            }
            Err(source @ CheckpointError::Version(_)) => {
                return Err(StoreError::Newer { path: dir.path_of(name), source });
            }
            // This save was never completed, and the checkpoint it should replace is still there.
            Err(_) if name == NEW => {}
            Err(error) => {
                let aside = dir.set_aside(name)?;
                notes.push(format!("{}: {error}; set aside as {aside}", dir.path_of(name).display()));
            }
        }
    }
    if !notes.is_empty() {
        notes.push(
            "no intact checkpoint is left: every source begins as if never seen, so what its log still holds is delivered \
             again (where start_at is beginning); check for a full or failing disk"
                .to_owned(),
        );
    }
    Ok(LoadReport { checkpoint: Checkpoint::default(), notes })
}

/// A directory held open, so that all steps happen in the same directory.
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    fn open(path: &Path) -> Result<Dir, StoreError> {
        let io = |what| move |source| StoreError::Io { what, path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("making"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).map_err(io("opening"))?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn error(&self, what: &'static str, name: &str, source: impl Into<io::Error>) -> StoreError {
        StoreError::Io { what, path: self.path_of(name), source: source.into() }
    }

    /// The bytes of a checkpoint, at most one more than allowed; `None` if there is no such file.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read_up_to(name, CHECKPOINT_BYTES_MAX + 1)
    }

    /// Appends and syncs. Returns the new length.
    fn append(&mut self, name: &'static str, bytes: &[u8]) -> Result<u64, StoreError> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags | OFlags::NONBLOCK, Mode::RUSR | Mode::WUSR);
        let fd = fd.map_err(|errno| self.error("opening", name, errno))?;
        self.expect_regular(&fd, name)?;
        let mut file = File::from(fd);
        let before = file.metadata().map_err(|source| self.error("looking at", name, source))?.len();
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if let Err(source) = written {
            // Half a line would spoil the next one.
            let _ = file.set_len(before);
            return Err(self.error("writing", name, source));
        }
        Ok(before + bytes.len() as u64)
    }

    /// Replaces a file atomically.
    fn replace(&mut self, new: &'static str, name: &'static str, bytes: &[u8]) -> Result<(), StoreError> {
        self.remove(new)?;
        let mut file = self.create(new)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.error("writing", new, source))?;
        self.rename(new, name)?;
        self.sync_dir()
    }

    fn read_up_to(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        // O_NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Err(StoreError::NotAFile { path: self.path_of(name) }),
            Err(errno) => return Err(self.error("opening", name, errno)),
        };
        self.expect_regular(&file, name)?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(max as u64)
            .read_to_end(&mut bytes)
            .map_err(|source| self.error("reading", name, source))?;
        Ok(Some(bytes))
    }

    fn expect_regular(&self, file: &OwnedFd, name: &str) -> Result<(), StoreError> {
        let stat = rustix::fs::fstat(file).map_err(|errno| self.error("looking at", name, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::NotAFile { path: self.path_of(name) });
        }
        Ok(())
    }

    /// Renames to the first free `checkpoint.json.damaged-<n>`; if all are taken, the last one is overwritten.
    fn set_aside(&mut self, name: &str) -> Result<String, StoreError> {
        let taken =
            |aside: &String| rustix::fs::statat(&self.fd, aside.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let names: Vec<String> =
            (1..=CHECKPOINTS_DAMAGED_MAX).map(|n| format!("{CURRENT}.damaged-{n}")).collect();
        let aside = names.iter().find(|aside| !taken(aside)).or(names.last()).cloned().unwrap_or_default();
        rustix::fs::renameat(&self.fd, name, &self.fd, aside.as_str())
            .map_err(|errno| self.error("setting aside", name, errno))?;
        Ok(aside)
    }
}

impl Disk for Dir {
    fn remove(&mut self, name: &'static str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("removing", name, errno)),
        }
    }

    fn create(&mut self, name: &'static str) -> Result<File, StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|errno| self.error("making", name, errno))
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), StoreError> {
        file.write_all(bytes).map_err(|source| self.error("writing", NEW, source))
    }

    fn sync_file(&mut self, file: &File) -> Result<(), StoreError> {
        file.sync_all().map_err(|source| self.error("syncing", NEW, source))
    }

    fn rename(&mut self, from: &'static str, to: &'static str) -> Result<(), StoreError> {
        match rustix::fs::renameat(&self.fd, from, &self.fd, to) {
            // The first save has no previous one to keep.
            Err(Errno::NOENT) if from == CURRENT => Ok(()),
            result => result.map_err(|errno| self.error("renaming", from, errno)),
        }
    }

    fn sync_dir(&mut self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.fd).map_err(|errno| self.error("syncing", "", errno))
    }
}

/// Held while an agent uses a data_dir. The kernel releases it with the process, however that ends.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl AsFd for DirLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl DirLock {
    /// Device and inode of the lock file.
    pub(super) fn id(&self) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// Creates the directory if needed and locks it; the error says who holds the lock.
    pub fn acquire(path: &Path) -> Result<DirLock, StoreError> {
        let dir = Dir::open(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&dir.fd, LOCK, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::LOOP) => return Err(StoreError::NotAFile { path: dir.path_of(LOCK) }),
            result => result.map_err(|errno| dir.error("opening", LOCK, errno))?,
        };
        dir.expect_regular(&fd, LOCK)?;
        let file = File::from(fd);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { path: path.to_owned(), holder: holder(&file) });
            }
            Err(errno) => return Err(dir.error("locking", LOCK, errno)),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all_at(pid.as_bytes(), 0))
            .map_err(|source| dir.error("writing", LOCK, source))?;
        Ok(DirLock { file })
    }
}

/// The process named in the lock file. It may be gone; only the lock itself is reliable.
fn holder(file: &File) -> String {
    let mut text = [0; 16];
    let len = file.read_at(&mut text, 0).unwrap_or(0);
    let pid: Option<u32> = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim().parse().ok());
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
