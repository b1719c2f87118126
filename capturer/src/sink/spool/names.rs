//! Whether the spool's files still have their names. Somebody may remove data_dir, or the spool in it, while the agent
//! runs: then it writes to files that no start will find. So the writer checks its segment's name at each commit, and
//! the reader about once a second the directory, the cursor and that segment.
//!
//! Files that the agent still has open are copied back under their names, so nothing of them is lost. Undelivered
//! records of other segments are lost, and that is reported at once: after a restart nobody would know.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::writer::gone_is_fine;
use super::{CURSOR_FILE, Reader, Shared};
use crate::ledger::claims::Claimed;

/// Suffix of an unfinished copy.
pub(super) const COPY: &str = "seg-new";
/// Bytes copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What was missing, and how it was handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments that have their names again.
    pub put_back: usize,
    /// Segments that are gone for good.
    pub lost: usize,
    /// Undelivered bytes in them.
    pub lost_bytes: u64,
}

pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Device and inode.
pub(super) fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether a name still leads to this file.
pub(super) fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(id(&there) == id(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies an open file to its lost name, which never leads to an unfinished copy.
fn copy_back(file: &File, path: &Path, sync: bool) -> io::Result<File> {
    let dir = path.parent().unwrap_or(path);
    make_dir(dir)?;
    if path.symlink_metadata().is_ok() {
        let text = format!("another file stands at {}: does a second agent use data_dir?", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let copy = path.with_extension(COPY);
    fs::remove_file(&copy).or_else(gone_is_fine)?;
    let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&copy)?;
    let copied = copy_bytes(file, &new).and_then(|()| if sync { new.sync_all() } else { Ok(()) });
    if let Err(error) = copied.and_then(|()| fs::rename(&copy, path)) {
        // A full disk needs the space back.
        let _ = fs::remove_file(&copy);
        return Err(error);
    }
    if sync {
        File::open(dir)?.sync_all()?;
    }
    Ok(new)
}

fn copy_bytes(from: &File, to: &File) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let count = from.read_at(&mut chunk, at)?;
        if count == 0 {
            return to.set_len(at);
        }
        // Holes stay holes.
        if chunk[..count].iter().any(|byte| *byte != 0) {
            to.write_all_at(&chunk[..count], at)?;
        }
        at += count as u64;
    }
}

impl Shared {
    /// Makes sure that the segment being written has its name.
    pub(super) fn keep_name(&self, current: &mut Option<(u64, Claimed<File>)>) -> io::Result<()> {
        let Some((number, file)) = current else { return Ok(()) };
        let path = self.path(*number);
        if has_name(file, &path)? {
            return Ok(());
        }
        *file = self.hold(copy_back(file, &path, self.config.fsync)?);
        let mut state = self.state();
        state.renewed.insert(*number);
        state.names_lost = true;
        state.put_back += 1;
        Ok(())
    }

    /// Whether the directory is the one that was opened.
    fn has_its_dir(&self) -> io::Result<bool> {
        match fs::metadata(&self.dir) {
            Ok(there) => Ok(Some(id(&there)) == self.state().dir_id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Reader {
    /// Checks all names, and restores those it can. Called about once a second.
    pub fn look(&mut self) -> io::Result<Option<Found>> {
        let shared = self.shared();
        let has_dir = shared.has_its_dir()?;
        let has_cursor = !self.has_saved() || shared.dir.join(CURSOR_FILE).exists();
        let number = match shared.current.try_lock() {
            Ok(mut current) => {
                shared.keep_name(&mut current)?;
                current.as_ref().map(|(number, _)| *number)
            }
            // It is being written to, and the writer checks it.
            Err(_) => return Ok(None),
        };
        if has_dir && has_cursor && !shared.state().names_lost {
            return Ok(None);
        }
        make_dir(&shared.dir)?;
        let mut found = Found::default();
        let numbers: Vec<u64> = shared.state().segments.keys().copied().collect();
        for segment in numbers.into_iter().filter(|segment| Some(*segment) != number) {
            let path = shared.path(segment);
            if path.exists() {
                continue;
            }
            match self.open_file(segment) {
                Some(file) => {
                    let new = copy_back(file, &path, shared.config.fsync)?;
                    *file = shared.hold(new);
                    found.put_back += 1;
                }
                None => {
                    found.lost += 1;
                    found.lost_bytes += self.give_up(segment);
                }
            }
        }
        let dir_id = id(&fs::metadata(&shared.dir)?);
        let mut state = shared.state();
        found.put_back += std::mem::take(&mut state.put_back);
        state.dir_id = Some(dir_id);
        state.names_lost = false;
        drop(state);
        self.forget_saved();
        Ok(Some(found))
    }
}
