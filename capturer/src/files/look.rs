//! The steps themselves: listing a chain of files, opening one of it. Whatever thread calls it may hang in it.
//!
//! Files are opened beneath their directory without following links, and only regular ones: a container's owner who
//! can write there must not make a privileged agent read something else.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use flate2::read::MultiGzDecoder as GzDecoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::unpack;
use crate::capture::io::{FileError, FoundFile, NO_ROOM, OpenedFile};
use crate::cursor::FileId;
use crate::decode::damage::leading_nuls;
use crate::descriptors;
use crate::kin::Kin;
use crate::ledger::Owner;
use crate::ledger::claims::Claims;
use crate::limits::HEAD_BYTES;

/// So much must have been NULs before a file is asked where its data goes on.
const HOLE_ASKED_BYTES: usize = 64 * 1024;

/// Looks at a directory that is rotated meanwhile at most so often.
const SCANS_MAX: usize = 8;

/// The live file and its rotated kin ([`Kin`]), compressed or not. Files are looked at one after the other, so a
/// rotation may come between and show one file twice and another not at all. Then it is done again.
pub fn scan(directory: &str, live_name: &str) -> Result<Vec<FoundFile>, FileError> {
    let dir = open_directory(directory)?;
    for _ in 1..SCANS_MAX {
        let names = names_of(&dir, directory, live_name)?;
        let live = live_id(&dir, directory, live_name);
        let found = scan_once(&dir, directory, &names)?;
        let same_live = live == live_id(&dir, directory, live_name);
        if same_live && found.len() == names.len() && names == names_of(&dir, directory, live_name)? {
            return Ok(found);
        }
    }
    scan_once(&dir, directory, &names_of(&dir, directory, live_name)?)
}

/// Every rotation gives the live name to another file.
fn live_id(dir: &OwnedFd, directory: &str, live_name: &str) -> Option<FileId> {
    let file = open_beneath(dir, directory, live_name).ok()?;
    identify(&file).ok().map(|(id, _)| id)
}

/// Names, ranks, and whether each is compressed.
fn names_of(
    dir: &OwnedFd,
    directory: &str,
    live_name: &str,
) -> Result<BTreeSet<(String, u32, bool)>, FileError> {
    let other = |cause: io::Error| FileError::Other {
        what: format!("listing {directory}"),
        cause: cause.to_string(),
    };
    let entries = rustix::fs::Dir::read_from(dir).map_err(|errno| other(errno.into()))?;
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_str().ok()?.to_owned();
        let (kin, compressed) = Kin::of(&name, live_name)?;
        Some((name, kin, compressed))
    });
    Ok(ranked(names.collect()))
}

/// Ranks: 0 is the live file, a higher one is older. Dates come behind numbers, if ever there are both.
fn ranked(names: Vec<(String, Kin, bool)>) -> BTreeSet<(String, u32, bool)> {
    let number = |kin: &Kin| if let Kin::Number(number) = kin { *number } else { 0 };
    let highest = names.iter().map(|(_, kin, _)| number(kin)).max().unwrap_or(0);
    let dates: BTreeSet<&Kin> =
        names.iter().map(|(_, kin, _)| kin).filter(|kin| matches!(kin, Kin::Date(_))).collect();
    let rank = |kin: &Kin| match kin {
        Kin::Live => 0,
        Kin::Number(number) => *number,
        Kin::Date(_) => highest.saturating_add(dates.iter().filter(|date| **date >= kin).count() as u32),
    };
    names.iter().map(|(name, kin, compressed)| (name.clone(), rank(kin), *compressed)).collect()
}

fn scan_once(
    dir: &OwnedFd,
    directory: &str,
    names: &BTreeSet<(String, u32, bool)>,
) -> Result<Vec<FoundFile>, FileError> {
    let mut found = Vec::new();
    for (name, rank, compressed) in names.iter().cloned() {
        match look_at(dir, directory, &name) {
            Ok((id, len, head)) => found.push(FoundFile { name, rank, compressed, id, len, head }),
            // Renamed or removed since the listing.
            Err(FileError::Changed(_)) => {}
            // A rotated sibling that can't be read must not hide the live file.
            Err(error) if rank > 0 => tracing::warn!("{error}; passed over"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn open_directory(directory: &str) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => FileError::NoDirectory(directory.to_owned()),
        errno => classify(errno, directory, directory),
    })
}

fn classify(errno: Errno, shown: &str, what: &str) -> FileError {
    match errno {
        Errno::NOENT => FileError::Changed(shown.to_owned()),
        Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ISDIR => FileError::NotRegular(shown.to_owned()),
        Errno::ACCESS | Errno::PERM => FileError::Denied(shown.to_owned()),
        Errno::MFILE | Errno::NFILE => {
            FileError::Other { what: format!("opening {what}"), cause: NO_ROOM.to_owned() }
        }
        errno => {
            FileError::Other { what: format!("opening {what}"), cause: io::Error::from(errno).to_string() }
        }
    }
}

fn open_beneath(dir: &OwnedFd, directory: &str, name: &str) -> Result<OwnedFd, FileError> {
    // Non-blocking, so that a named pipe put there can't hang the opening; it means nothing for regular files.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let shown = format!("{directory}/{name}");
    let file = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        // A seccomp profile may not know openat2; a plain name can't lead out of the directory either.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        result => result,
    };
    let file = file.map_err(|errno| classify(errno, &shown, &shown))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| classify(errno, &shown, &shown))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular(shown));
    }
    Ok(file)
}

fn look_at(dir: &OwnedFd, directory: &str, name: &str) -> Result<(FileId, u64, Vec<u8>), FileError> {
    let file = open_beneath(dir, directory, name)?;
    let (id, len) = identify(&file).map_err(|errno| classify(errno, name, name))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let file = std::fs::File::from(file);
    let read = if name.ends_with(".gz") {
        GzDecoder::new(file).take(HEAD_BYTES as u64).read_to_end(&mut head)
    } else {
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)
    };
    // A damaged archive is known by what of its head can be read; its opening says what is wrong with it.
    match read {
        Err(error) if !name.ends_with(".gz") => {
            Err(FileError::Other { what: format!("reading {directory}/{name}"), cause: error.to_string() })
        }
        _ => Ok((id, len, head)),
    }
}

/// Identity and length of an open file.
fn identify(file: &OwnedFd) -> rustix::io::Result<(FileId, u64)> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, FileId::ASKED)?;
    Ok((FileId::of(&stat), stat.stx_size))
}

/// Opens a file that a scan found, if it is still that one. `beat` is called while something long goes on.
pub fn open(
    directory: &str,
    found: &FoundFile,
    claims: &Claims,
    beat: &dyn Fn(),
) -> Result<(OwnedFd, OpenedFile), FileError> {
    let dir = open_directory(directory)?;
    let file = open_beneath(&dir, directory, &found.name)?;
    if !descriptors::may_keep(file.as_fd()) {
        return Err(classify(Errno::MFILE, directory, &found.name));
    }
    let (id, len) = identify(&file).map_err(|errno| classify(errno, &found.name, &found.name))?;
    if id != found.id {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    // Measuring may take minutes; the stream claims the file once it has it.
    let file = claims.hold(std::fs::File::from(file), Owner::Discovery);
    let mut head = vec![0; found.head.len()];
    let (opened, read) = if found.compressed {
        let (len, damaged, read) = unpack::measure(&file, &mut head, beat);
        (OpenedFile { len, damaged, lane: None }, read)
    } else {
        let read = rustix::io::pread(&*file, &mut head, 0)
            .map_err(|errno| classify(errno, &found.name, &found.name))?;
        (OpenedFile { len, damaged: false, lane: None }, read)
    };
    // Without birth times the number alone does not tell it from a file that got the same one since.
    if head[..read] != found.head {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    Ok((file.unclaimed().into(), opened))
}

/// Where a file goes on with data, if what was read of it at `offset` is nothing but NULs and a hole follows.
pub fn data_behind(file: impl AsFd, offset: u64, read: &[u8]) -> Option<u64> {
    // A few NULs are cheaper read than asked about.
    if read.len() < HOLE_ASKED_BYTES || leading_nuls(read) < read.len() {
        return None;
    }
    let behind = offset + read.len() as u64;
    let at = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(behind)).ok()?;
    (at > behind).then_some(at)
}

/// Length of an open file now.
pub fn length(file: impl AsFd) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position goes from the oldest to the live file, so an order that is wrong repeats or passes over whole files.
    #[test]
    fn the_latest_date_is_the_newest() {
        let ranks = |names: &[&str]| {
            let kin = |name: &&str| Kin::of(name, "0.log").map(|(kin, gz)| ((*name).to_owned(), kin, gz));
            let mut ranks: Vec<(u32, String)> = ranked(names.iter().filter_map(kin).collect())
                .into_iter()
                .map(|(name, rank, _)| (rank, name))
                .collect();
            ranks.sort();
            ranks
        };
        let (older, newer) = ("0.log.20251231-235959", "0.log.20260101-000000");
        let packed = format!("{older}.gz");
        let expected = [(0, "0.log"), (1, newer), (2, older), (2, &packed)];
        assert_eq!(
            ranks(&[older, &packed, "0.log", newer]),
            expected.map(|(rank, name)| (rank, name.to_owned()))
        );
        let expected = [(1, "0.log.1"), (3, "0.log.3"), (4, "0.log-20261125")];
        assert_eq!(
            ranks(&["0.log-20261125", "0.log.3", "0.log.1"]),
            expected.map(|(rank, name)| (rank, name.to_owned()))
        );
    }

    /// A container's owner who can write beside the log must not make the agent read something else.
    #[test]
    fn only_regular_files_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("l.1"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path("l")).unwrap();
        std::fs::create_dir(path("l.2")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("l.3"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let directory = dir.path().to_str().unwrap();
        assert!(matches!(scan(directory, "l"), Err(FileError::NotRegular(_))));
        std::fs::remove_file(path("l")).unwrap();
        std::fs::write(path("l"), "live").unwrap();
        let mut found: Vec<_> = scan(directory, "l").unwrap();
        found.sort_by_key(|file| file.rank);
        let names: Vec<_> =
            found.iter().map(|file| (file.name.as_str(), file.len, file.head.len())).collect();
        assert_eq!(names, [("l", 4, 4), ("l.1", 1, 1)]);
        assert!(matches!(scan("/nonexistent", "l"), Err(FileError::NoDirectory(_))));
    }

    #[test]
    fn a_file_replaced_since_the_scan_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("l"), "one").unwrap();
        let found = scan(directory, "l").unwrap().remove(0);
        assert_eq!(
            open(directory, &found, &Claims::default(), &|| ()).unwrap().1,
            OpenedFile { len: 3, damaged: false, lane: None }
        );
        std::fs::rename(dir.path().join("l"), dir.path().join("l.1")).unwrap();
        std::fs::write(dir.path().join("l"), "two").unwrap();
        assert!(matches!(open(directory, &found, &Claims::default(), &|| ()), Err(FileError::Changed(_))));
        // The same inode with another content, as a reused number looks where there are no birth times.
        let found = scan(directory, "l").unwrap().into_iter().find(|file| file.rank == 0).unwrap();
        std::fs::write(dir.path().join("l"), "three").unwrap();
        assert!(matches!(open(directory, &found, &Claims::default(), &|| ()), Err(FileError::Changed(_))));
    }

    #[test]
    fn an_archive_is_known_by_its_content_and_measured() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let content: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &content).unwrap();
        let packed = encoder.finish().unwrap();
        for (len, damaged) in [(packed.len(), false), (packed.len() / 2, true)] {
            std::fs::write(dir.path().join("l.1.gz"), &packed[..len]).unwrap();
            let found = scan(directory, "l").unwrap().remove(0);
            assert!(found.compressed && found.head == content[..HEAD_BYTES]);
            let opened = open(directory, &found, &Claims::default(), &|| ()).unwrap().1;
            assert_eq!(opened.damaged, damaged);
            assert!(if damaged { opened.len > 100_000 } else { opened.len == content.len() as u64 });
        }
    }
}
