//! The directory of the outputs, which may be removed, moved away or mounted over while the agent runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::NAME;
use super::beneath::identify;
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::model::cursor::FileId;

/// Shared by the sink and its archive thread.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    claims: Claims,
    open: Mutex<(Arc<Claimed<OwnedFd>>, FileId)>,
}

impl Root {
    /// Makes the directory if need be.
    pub(super) fn open(path: &Path, claims: &Claims) -> io::Result<Root> {
        Ok(Root { path: path.to_owned(), claims: claims.clone(), open: Mutex::new(make(path, claims)?) })
    }

    /// The configured path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> Arc<Claimed<OwnedFd>> {
        Arc::clone(&self.open.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether the path still leads to the open directory.
    pub(super) fn is_current(&self) -> bool {
        let id = self.open.lock().unwrap_or_else(PoisonError::into_inner).1;
        rustix::fs::statx(CWD, &self.path, AtFlags::empty(), FileId::ASKED)
            .is_ok_and(|stat| FileId::of(&stat) == id)
    }

    /// Opens the directory that the path leads to now, or makes it.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let made = make(&self.path, &self.claims)?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }
}

fn make(path: &Path, claims: &Claims) -> io::Result<(Arc<Claimed<OwnedFd>>, FileId)> {
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let (id, _) = identify(&fd)?;
    Ok((Arc::new(claims.hold(fd, Owner::Sink(NAME.to_owned()))), id))
}
