//! Opening a followed file: beneath its directory, without following links, and only a regular one.
//!
//! Its access time stays as it was where the kernel allows that (the agent's user owns the file, or has CAP_FOWNER). Else a
//! file that is written to all the time gets a new one with nearly every read, and each is a change of its inode.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::look::classify;
use super::olddir;
use crate::capture::io::{FileError, NoFile};
use crate::text::path_text::name_of;

/// How files are opened. Non-blocking, so that opening a named pipe that was put there can't hang; for regular files it means
/// nothing.
const FOR_READING: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens a file with the flags for reading; where its access time may not be left alone, without that.
pub(super) fn to_be_read(
    open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    match open(FOR_READING | OFlags::NOATIME) {
        // The kernel says EPERM to who does not own the file; servers of network file systems may say the others.
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => open(FOR_READING),
        result => result,
    }
}

pub(super) fn open_beneath(dir: &OwnedFd, directory: &str, name: &str) -> Result<OwnedFd, FileError> {
    let is_beneath = name.contains('/');
    let here = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let resolve = if is_beneath { olddir::BENEATH } else { here };
    let shown = format!("{directory}/{name}");
    let name = name_of(name);
    let file = match to_be_read(|flags| rustix::fs::openat2(dir, &*name, flags, Mode::empty(), resolve)) {
        // A seccomp profile may not allow openat2; a plain name can't lead out of the directory either.
        Err(Errno::NOSYS | Errno::PERM) if !is_beneath => {
            to_be_read(|flags| rustix::fs::openat(dir, &*name, flags, Mode::empty()))
        }
        result => result,
    };
    let file = file.map_err(|errno| classify(errno, &shown, &shown))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| classify(errno, &shown, &shown))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(FileError::NotRegular(shown, NoFile::Directory)),
        _ => Err(FileError::NotRegular(shown, NoFile::Special)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn reading_a_file_leaves_its_access_time_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.log"), "a line\n").unwrap();
        let accessed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = std::fs::File::options().write(true).open(dir.path().join("app.log")).unwrap();
        // Older than the last write: with the usual `relatime` the next read sets it.
        file.set_times(std::fs::FileTimes::new().set_accessed(accessed)).unwrap();
        let opened = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let mut file =
            std::fs::File::from(open_beneath(&opened, &dir.path().display().to_string(), "app.log").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.metadata().unwrap().atime()), ("a line\n", 1_000_000_000));
    }

    #[test]
    fn a_file_of_somebody_else_is_opened_all_the_same() {
        let asked = std::cell::RefCell::new(Vec::new());
        let opened = to_be_read(|flags| {
            asked.borrow_mut().push(flags.contains(OFlags::NOATIME));
            if flags.contains(OFlags::NOATIME) {
                return Err(Errno::PERM);
            }
            rustix::fs::open("/dev/null", flags, Mode::empty())
        });
        assert!(opened.is_ok());
        assert_eq!(*asked.borrow(), [true, false]);
    }

    #[test]
    fn what_is_not_there_is_asked_for_once() {
        let asked = std::cell::Cell::new(0);
        let opened = to_be_read(|_| {
            asked.set(asked.get() + 1);
            Err(Errno::NOENT)
        });
        assert_eq!((opened.err(), asked.get()), (Some(Errno::NOENT), 1));
    }
}
