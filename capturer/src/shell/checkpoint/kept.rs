//! The data_dir of this process: its lock, and the files of the last save, held open. Somebody may remove the directory
//! while the agent runs. Without the lock's name a second agent could start, and without the checkpoint a kill would
//! repeat everything. So the thread that saves checks about once a second whether the lock still has its name. If not,
//! it takes the lock again and copies back the files that it has open.
//!
//! Not here: the spool, which checks its own files (sink/spool/names.rs).

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::{self, DirLock, StoreError};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::telemetry::fault::Fault;
use crate::telemetry::losses::SHOWN_MS;

/// How long health reports that the directory was removed: as long as it reports a loss.
const GONE_SHOWN: Duration = Duration::from_millis(SHOWN_MS);

/// The data_dir; see the head of this file.
pub struct DataDir {
    path: PathBuf,
    claims: Claims,
    held: Mutex<Held>,
    /// Never locked while a thread waits for a disk.
    trouble: Mutex<Option<Trouble>>,
}

struct Held {
    lock: Claimed<DirLock>,
    files: Vec<(&'static str, Claimed<File>)>,
    /// Not all files could be copied back.
    is_incomplete: bool,
}

struct Trouble {
    fault: Fault,
    text: String,
    /// Until when it is reported; `None` = for as long as it lasts.
    until: Option<Instant>,
}

impl DataDir {
    /// Creates the directory if needed and locks it; the error says who holds the lock.
    ///
    /// # Errors
    /// As [`DirLock::acquire`].
    pub fn acquire(path: &Path, claims: &Claims) -> Result<DataDir, StoreError> {
        let lock = claims.hold(DirLock::acquire(path)?, Owner::Checkpoint);
        Ok(DataDir {
            path: path.to_owned(),
            claims: claims.clone(),
            held: Mutex::new(Held { lock, files: Vec::new(), is_incomplete: false }),
            trouble: Mutex::new(None),
        })
    }

    /// The present fault, for health: its kind, and a sentence.
    pub fn trouble(&self) -> Option<(Fault, String)> {
        let mut trouble = lock(&self.trouble);
        trouble.take_if(|trouble| trouble.until.is_some_and(|until| until <= Instant::now()));
        trouble.as_ref().map(|trouble| (trouble.fault, trouble.text.clone()))
    }

    /// Opens the files of the last save, so that they can be copied back.
    pub fn keep(&self) {
        let mut held = lock(&self.held);
        store::with_saved(&self.path, |opened| {
            let hold = |(name, file)| (name, self.claims.hold(file, Owner::Checkpoint));
            held.files = opened.into_iter().map(hold).collect();
        });
    }

    /// Checks whether the lock still has its name, and restores lock and files if not.
    ///
    /// # Errors
    /// When they can't be restored: then nothing may be saved there.
    pub fn look(&self) -> Result<(), StoreError> {
        let mut held = lock(&self.held);
        let is_there = has_name(&held.lock, &self.path);
        if is_there && !held.is_incomplete {
            return Ok(());
        }
        let taken = if is_there { Ok(None) } else { DirLock::acquire(&self.path).map(Some) };
        let back = taken.and_then(|taken| {
            // The old lock has no name any more, and keeps nobody out.
            if let Some(taken) = taken {
                held.lock = self.claims.hold(taken, Owner::Checkpoint);
            }
            store::put_back(&self.path, held.files.iter().map(|(name, file)| (*name, &**file)))
        });
        held.is_incomplete = back.is_err();
        let (fault, text, until) = match &back {
            Ok(()) => (
                Fault::DataDirRemoved,
                format!(
                    "somebody removed {} or the lock in it while the agent ran; the agent recreated it with the last \
                     checkpoint; leave it alone while the agent runs",
                    self.path.display()
                ),
                Some(Instant::now() + GONE_SHOWN),
            ),
            Err(error) => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
                (
                    Fault::Usual,
                    format!(
                        "somebody removed {} or the lock in it while the agent ran, and it can't be recreated: {error}{}; \
                         no position is saved, and a restart would repeat lines: stop the other agent, or repair the \
                         directory",
                        self.path.display(),
                        cause.unwrap_or_default()
                    ),
                    None,
                )
            }
        };
        let mut trouble = lock(&self.trouble);
        if trouble.as_ref().is_none_or(|before| before.text != text) || until.is_some() {
            tracing::error!("{text}");
        }
        *trouble = Some(Trouble { fault, text, until });
        back
    }
}

fn has_name(lock: &DirLock, dir: &Path) -> bool {
    let there = std::fs::symlink_metadata(dir.join(store::LOCK)).map(|there| (there.dev(), there.ino()));
    // A directory that can't be looked at is not known to be gone.
    match (there, lock.id()) {
        (Ok(there), Ok(held)) => there == held,
        (Err(error), _) => error.kind() != std::io::ErrorKind::NotFound,
        (Ok(_), Err(_)) => true,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only whole values are written under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::checkpoint::{Checkpoint, encode};

    /// Otherwise a second agent could start beside this one, and a kill would repeat everything.
    #[test]
    fn a_removed_directory_is_made_anew_with_lock_and_checkpoint() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data");
        let dir = DataDir::acquire(&path, &Claims::default()).unwrap();
        let saved = Checkpoint { seq: 7, ..Checkpoint::default() };
        store::save(&path, &encode(&saved)).unwrap();
        dir.keep();
        dir.look().unwrap();
        assert_eq!(dir.trouble(), None);
        std::fs::remove_dir_all(&path).unwrap();
        dir.look().unwrap();
        let (fault, text) = dir.trouble().unwrap();
        assert!(
            fault == Fault::DataDirRemoved && text.contains("somebody removed"),
            "positions are saved: {text}"
        );
        assert_eq!(store::peek(&path).unwrap(), saved);
        assert!(matches!(DirLock::acquire(&path), Err(StoreError::Locked { .. })));
        // The lock alone.
        std::fs::remove_file(path.join(store::LOCK)).unwrap();
        dir.look().unwrap();
        assert!(matches!(DirLock::acquire(&path), Err(StoreError::Locked { .. })));
    }

    /// Two agents that save to one checkpoint would undo each other's saves.
    #[test]
    fn nothing_is_saved_where_another_agent_is_by_now() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data");
        let dir = DataDir::acquire(&path, &Claims::default()).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let other = DirLock::acquire(&path).unwrap();
        assert!(matches!(dir.look(), Err(StoreError::Locked { .. })));
        assert!(dir.trouble().unwrap().1.contains("is in use by process"));
        drop(other);
        dir.look().unwrap();
        assert!(dir.trouble().unwrap().1.contains("recreated it"));
    }
}
