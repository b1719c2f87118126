//! Files beneath one directory, whatever somebody put there: each step of a path is opened by itself and through no
//! link, and only regular files are taken.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::model::cursor::FileId;

/// Identity and length in bytes.
pub(super) fn identify(file: &OwnedFd) -> io::Result<(FileId, u64)> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, FileId::ASKED)?;
    Ok((FileId::of(&stat), stat.stx_size))
}

/// The directory that a path's last part is in, and that part. With `make` the directories are made.
///
/// (openat2's RESOLVE_BENEATH does the same in one call but makes no directories, which have to be made one by one
/// anyway.)
pub(super) fn open_parent<'a>(root: &OwnedFd, path: &'a str, make: bool) -> io::Result<(OwnedFd, &'a str)> {
    // The template makes no such path, but a checkpoint edited by hand could hold one.
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path beneath the directory"));
    }
    let (parents, name) = path.rsplit_once('/').map_or((None, path), |(parents, name)| (Some(parents), name));
    let mut dir = root.try_clone()?;
    for part in parents.iter().flat_map(|parents| parents.split('/')) {
        if make {
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, part, flags, Mode::empty())?;
    }
    Ok((dir, name))
}

/// Opens a regular file of a directory for reading and writing; `extra` may hold O_CREAT, O_EXCL and O_TRUNC.
pub(super) fn open_file(dir: &OwnedFd, name: &str, extra: OFlags, mode: u32) -> io::Result<OwnedFd> {
    // O_NONBLOCK: a FIFO under the name must be refused, not waited for.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}
