//! The steps themselves: listing a chain of files, and opening one of it. The calling thread may hang in them.
//!
//! Files are opened beneath their directory without following links, and only regular ones: a container's owner who
//! can write there must not make a privileged agent read something else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::aside::{aside, renamed_ns};
use super::beneath::{open_beneath, to_be_read};
use super::listings::{Listing, Listings};
use super::{olddir, unpack};
use crate::capture::io::{Beside, DeniedFile, FileError, FoundFile, NO_DATA, NoFile, OpenedFile};
use crate::decode::damage::{leading_nuls, without_room};
use crate::ledger::Owner;
use crate::ledger::claims::Claims;
use crate::limits::HEAD_BYTES;
use crate::model::cursor::{FileId, TailPrint};
use crate::model::rotated_name;
use crate::model::rotated_name::RotatedName;
use crate::shell::descriptors;
use crate::text::path_text::name_of;

/// After this many NULs the file system is asked where the data continues.
const HOLE_ASKED_BYTES: usize = 64 * 1024;

/// Rank of a file whose name shows none.
const RANK_UNKNOWN: u32 = FoundFile::RANK_UNKNOWN;
/// Most looks at a directory in which files are rotated meanwhile.
const SCANS_MAX: usize = 8;

/// The files of a directory that form one log.
#[derive(Clone, Copy, Default)]
pub struct Chain<'a> {
    /// The directory of the log.
    pub directory: &'a str,
    /// Name of the live file.
    pub live_name: &'a str,
    /// Files that belong to the log whatever their names are now.
    pub wanted: &'a [FileId],
    /// Names that are logs of their own.
    pub apart: &'a [String],
    /// Directories beneath it that may have rotated files of the log, as paths from it.
    pub olddirs: &'a [String],
    /// Where links led to before, if a link has just been changed; else empty.
    pub before: &'a str,
}

impl Chain<'_> {
    fn wants(&self, id: FileId) -> bool {
        self.wanted.iter().any(|wanted| wanted.can_be(id))
    }
}

/// The live file, its rotated files ([`RotatedName`]), compressed or not, and wanted files. Files are looked at one
/// after the other, so a rotation meanwhile can show one file twice and hide another; then the scan is repeated. Also
/// returns what can't be read.
pub(super) fn scan(chain: Chain<'_>, listings: &mut Listings) -> (Result<Vec<FoundFile>, FileError>, Beside) {
    let mut beside = Beside::default();
    let result = scan_till_same(chain, listings, &mut beside);
    (result, beside)
}

fn scan_till_same(
    chain: Chain<'_>,
    listings: &mut Listings,
    beside: &mut Beside,
) -> Result<Vec<FoundFile>, FileError> {
    let live_name = chain.live_name;
    let (dir, is_listable) = open_directory(chain.directory)?;
    let names_now = |listings: &mut Listings, beside: &mut Beside| -> Result<_, FileError> {
        let listing =
            if is_listable { list(&dir, chain, listings)? } else { only_live(&dir, chain, listings) };
        beside.archive = unread_archive(&listing, chain);
        let mut names = names_of(&listing, &olddir::moved(&dir, chain, listings), chain);
        names.append(&mut aside(&dir, &listing, chain));
        Ok(names)
    };
    for _ in 1..SCANS_MAX {
        let names = names_now(listings, beside)?;
        let live = live_id(&dir, live_name);
        let found = scan_once(&dir, chain, &names, listings, beside)?;
        let same_live = live == live_id(&dir, live_name);
        let seen = found.len() + beside.denied.len();
        if same_live && seen == names.len() && names == names_now(listings, beside)? {
            return Ok(found);
        }
    }
    let names = names_now(listings, beside)?;
    scan_once(&dir, chain, &names, listings, beside)
}

fn list(dir: &OwnedFd, chain: Chain<'_>, listings: &mut Listings) -> Result<Arc<Listing>, FileError> {
    listings.news(chain.directory, "", Vec::new());
    listings.list(dir, chain.directory).map_err(|cause| FileError::Other {
        what: format!("listing {}", chain.directory),
        cause: cause_of(&cause),
    })
}

/// An error of the operating system, with what to do about it where that is known.
pub(in crate::shell) fn cause_of(error: &io::Error) -> String {
    let cure = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::IO) => "the disk or its file system is damaged: dmesg says more",
        Some(Errno::STALE) => "the network file system has forgotten the file: mount it again",
        Some(Errno::NAMETOOLONG) => "shorten the name or the path of its directory",
        Some(Errno::NOMEM) => "this machine, or the agent's memory limit, has no memory left",
        Some(Errno::NOTCONN | Errno::HOSTDOWN | Errno::TIMEDOUT) => {
            "see whether its file system's server or process runs"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {cure}")
}

/// In place of the listing of a directory that may be entered but not listed, such as one with mode 0711: whoever knows
/// a file's name may read it.
fn only_live(dir: &OwnedFd, chain: Chain<'_>, listings: &mut Listings) -> Arc<Listing> {
    let Chain { directory, live_name, .. } = chain;
    let text = format!(
        "{directory} can be entered and not listed by this user: {live_name} in it is read, and its rotated files can't be \
         found; give the agent's user the right to list it (chmod o+r, or an ACL)"
    );
    // Of the directory, and not of the names in it.
    for text in listings.news(directory, "", vec![text]) {
        tracing::warn!("{text}");
    }
    let live = live_id(dir, live_name);
    Arc::new(live.map_or_else(Listing::default, |id| Listing::of_one(live_name, id.inode)))
}

/// The live file, if it is still the one of that identity: four system calls, where a listing takes as many for each file
/// and some more.
pub(super) fn still_live(directory: &str, live_name: &str, id: FileId) -> Option<FoundFile> {
    let path = format!("{directory}/{live_name}");
    let file = to_be_read(|flags| rustix::fs::open(&*name_of(&path), flags, Mode::empty())).ok()?;
    let (now, len, modified_ns) = identify(&file).ok()?;
    if now != id {
        return None;
    }
    let mut head = vec![0; HEAD_BYTES.min(len as usize)];
    let read = rustix::io::pread(&file, &mut head, 0).ok()?;
    head.truncate(read);
    head.truncate(without_room(&head).len());
    let name = live_name.to_owned();
    Some(FoundFile { name, rank: 0, compressed: false, id, len, head, unpacked_len: None, modified_ns })
}

/// Every rotation gives the live name to another file.
fn live_id(dir: &OwnedFd, live_name: &str) -> Option<FileId> {
    let stat = rustix::fs::statx(dir, live_name, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED).ok()?;
    Some(FileId::of(&stat))
}

/// Ranks and names, and whether each is compressed, newest first: while files are renamed to older names, one that is
/// looked at before its older neighbour is seen twice instead of not at all.
fn names_of(
    listing: &Listing,
    moved: &[(String, (RotatedName, bool))],
    chain: Chain<'_>,
) -> BTreeSet<(u32, String, bool)> {
    let mut names = BTreeMap::new();
    let is_apart = |name: &str| name != chain.live_name && chain.apart.iter().any(|apart| apart == name);
    let of_log = rotated_name::starts(chain.live_name).flat_map(|start| listing.beginning_with(start));
    for name in of_log.filter(|name| !is_apart(name)) {
        if let Some(rotated) = RotatedName::of(name, chain.live_name) {
            names.insert(name, rotated);
        } else if name.strip_suffix(".gz") == Some(chain.live_name) {
            // A dated log that was compressed in place (logback, winston). Its content shows whether it was this log.
            names.insert(name, (RotatedName::Stranger, true));
        }
    }
    // A number before the ending is often another log's (`a.1.log` beside `a.log`); one behind it never is.
    let is_number = |rotated: &(RotatedName, bool)| matches!(rotated.0, RotatedName::Number(_));
    let is_behind = |name: &str| name.starts_with(chain.live_name);
    if names.iter().any(|(name, rotated)| is_number(rotated) && is_behind(name)) {
        names.retain(|name, rotated| !is_number(rotated) || is_behind(name));
    }
    names.extend(moved.iter().map(|(name, rotated)| (name.as_str(), rotated.clone())));
    for id in chain.wanted {
        for name in listing.of_inode(id.inode) {
            names.entry(name).or_insert((RotatedName::Stranger, false));
        }
    }
    let named =
        |(name, (rotated, compressed)): (&str, (RotatedName, bool))| (name.to_owned(), rotated, compressed);
    ranked(names.into_iter().map(named).collect())
}

/// The newest archive of the log that can't be read: unread lines from before the compression are in it.
fn unread_archive(listing: &Listing, chain: Chain<'_>) -> Option<String> {
    let archives = listing.beginning_with(rotated_name::common_start(chain.live_name)).filter_map(|name| {
        let rotated = RotatedName::of_unread_archive(name, chain.live_name)?;
        Some((name.to_owned(), rotated, true))
    });
    ranked(archives.collect()).into_iter().next().map(|(_, name, _)| name)
}

/// Ranks: 0 is the live file, and a higher rank is older. Dates come after numbers, if there are both.
fn ranked(names: Vec<(String, RotatedName, bool)>) -> BTreeSet<(u32, String, bool)> {
    let number = |rotated: &RotatedName| if let RotatedName::Number(number) = rotated { *number } else { 0 };
    // Rank 0 belongs to the live file.
    let first = u32::from(names.iter().any(|(_, rotated, _)| *rotated == RotatedName::Number(0)));
    let highest = names.iter().map(|(_, rotated, _)| number(rotated) + first).max().unwrap_or(0);
    // A file and its archive have one rank. Of two files with one date (`a.log-20261125`, `a-20261125.log`) each has its own.
    let dated = |name: &str, rotated: &RotatedName| {
        (rotated.date_key(), name.strip_suffix(".gz").unwrap_or(name).to_owned())
    };
    let is_date = |rotated: &RotatedName| matches!(rotated, RotatedName::Date(_));
    let dates = names.iter().filter(|(_, rotated, _)| is_date(rotated));
    let dates: BTreeSet<(Vec<u64>, String)> = dates.map(|(name, rotated, _)| dated(name, rotated)).collect();
    let rank = |name: &str, rotated: &RotatedName| match rotated {
        RotatedName::Live => 0,
        RotatedName::Number(number) => *number + first,
        RotatedName::Date(_) => highest.saturating_add(dates.range(dated(name, rotated)..).count() as u32),
        RotatedName::Stranger => RANK_UNKNOWN,
    };
    names.iter().map(|(name, rotated, compressed)| (rank(name, rotated), name.clone(), *compressed)).collect()
}

/// Where files in an olddir have the ranks of files beside the log, each rank would count once. logrotate began to use that
/// directory, or left off: all that lies in the one place is newer than all in the other, and times tell in which.
fn part_same_ranks(found: &mut [FoundFile]) {
    let is_ranked = |file: &FoundFile| file.rank > 0 && file.rank < FoundFile::RANK_STRANGE;
    let is_beneath = |file: &FoundFile| file.name.contains('/');
    let of = |beneath: bool| found.iter().filter(move |file| is_ranked(file) && is_beneath(file) == beneath);
    let ranks = [false, true].map(|beneath| of(beneath).map(|file| file.rank).collect::<BTreeSet<u32>>());
    if ranks[0].is_disjoint(&ranks[1]) {
        return;
    }
    let newest = [false, true].map(|beneath| of(beneath).map(|file| file.modified_ns).max());
    let is_older_beneath = newest[1] <= newest[0];
    let highest = ranks[usize::from(!is_older_beneath)].last().copied().unwrap_or_default();
    let older = found.iter_mut().filter(|file| is_ranked(file) && is_beneath(file) == is_older_beneath);
    older.for_each(|file| file.rank = file.rank.saturating_add(highest));
}

fn scan_once(
    dir: &OwnedFd,
    chain: Chain<'_>,
    names: &BTreeSet<(u32, String, bool)>,
    listings: &mut Listings,
    beside: &mut Beside,
) -> Result<Vec<FoundFile>, FileError> {
    beside.renamed.clear();
    let (mut found, mut refused, mut in_the_way) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (rank, name, compressed) in names.iter().cloned() {
        match look_at(dir, chain.directory, &name) {
            // Another file has the wanted inode number.
            Ok((id, ..)) if rank == RANK_UNKNOWN && !compressed && !chain.wants(id) => {}
            Ok((id, len, modified_ns, head, unpacked_len)) => {
                if rank == RANK_UNKNOWN {
                    beside.renamed.extend(renamed_ns(dir, &name).map(|at_ns| (id, at_ns)));
                }
                found.push(FoundFile { name, rank, compressed, id, len, head, unpacked_len, modified_ns });
            }
            // Renamed or removed since the listing.
            Err(FileError::Changed(_)) => {}
            // All of them lack one, or will.
            Err(error @ FileError::NoDescriptor { .. }) => return Err(error),
            // A rotated file that can't be read must not hide the live one. Its name shows what it is, without any right to it.
            Err(error) if rank > 0 => match see_by_name(dir, &name, rank, compressed) {
                Some(file) if rank < FoundFile::RANK_STRANGE || chain.wants(file.id) => {
                    refused.insert(name, error);
                    found.push(file);
                }
                _ => in_the_way.push(error.to_string()),
            },
            Err(error) => return Err(error),
        }
    }
    for text in listings.news(chain.directory, chain.live_name, in_the_way) {
        tracing::warn!("{text}; passed over, the files beside it are read");
    }
    if !chain.olddirs.is_empty() {
        part_same_ranks(&mut found);
    }
    turn_if_ascending(&mut found, chain.live_name);
    beside.denied.clear();
    if refused.is_empty() {
        return Ok(found);
    }
    let (readable, rest): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|file| !refused.contains_key(&file.name));
    let of = |found: FoundFile| Some(DeniedFile { error: refused.remove(&found.name)?, found });
    beside.denied.extend(rest.into_iter().filter_map(of));
    Ok(readable)
}

/// A regular file as statx shows it.
fn see_by_name(dir: &OwnedFd, name: &str, rank: u32, compressed: bool) -> Option<FoundFile> {
    let stat = rustix::fs::statx(dir, &*name_of(name), AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED).ok()?;
    let is_regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    is_regular.then(|| FoundFile {
        name: name.to_owned(),
        rank,
        compressed,
        id: FileId::of(&stat),
        len: stat.stx_size,
        head: Vec::new(),
        unpacked_len: None,
        modified_ns: FileId::modified_ns(&stat),
    })
}

/// Numbers that grow with each rotation (log4j2): the highest is the newest. This is so if each file was changed after
/// those with lower numbers. A restored backup looks the same, and so does a program that still writes to its old file;
/// so birth times must not contradict it. Those of a file and of an archive can't be compared, because archives are
/// made late.
fn turn_if_ascending(found: &mut [FoundFile], live_name: &str) {
    let is_numbered = |file: &FoundFile| {
        matches!(RotatedName::of(olddir::name_in(&file.name), live_name), Some((RotatedName::Number(_), _)))
            && file.rank < FoundFile::RANK_STRANGE
    };
    let mut numbered: Vec<&FoundFile> = found.iter().filter(|file| is_numbered(file)).collect();
    // While a file is being compressed both exist, and the archive is incomplete.
    numbered.sort_by_key(|file| (file.rank, file.compressed));
    numbered.dedup_by_key(|file| file.rank);
    let live_birth_ns = found.iter().find(|file| file.rank == 0).map_or(0, |live| live.id.birth_ns);
    let is_up = |older: &FoundFile, newer: &FoundFile| {
        let births = [older, newer].map(|file| file.id.birth_ns);
        let are_births_told = older.compressed == newer.compressed && !births.contains(&0);
        // An archive may be made long after the last line was written.
        let is_late = newer.compressed && !older.compressed;
        !is_late && older.modified_ns <= newer.modified_ns && !(are_births_told && births[0] > births[1])
    };
    let is_before_live =
        |file: &FoundFile| file.compressed || live_birth_ns == 0 || file.id.birth_ns <= live_birth_ns;
    let (Some(first), Some(last)) = (numbered.first(), numbered.last()) else { return };
    let is_ascending = first.modified_ns < last.modified_ns
        && numbered.windows(2).all(|pair| is_up(pair[0], pair[1]))
        && numbered.iter().all(|file| is_before_live(file));
    if is_ascending {
        let both = first.rank + last.rank;
        found.iter_mut().filter(|file| is_numbered(file)).for_each(|file| file.rank = both - file.rank);
    }
}

/// A directory, and whether it may be listed.
fn open_directory(directory: &str) -> Result<(OwnedFd, bool), FileError> {
    let open = |access: OFlags| {
        rustix::fs::open(&*name_of(directory), access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    match open(OFlags::RDONLY | OFlags::NONBLOCK) {
        // This needs no permission on the directory itself.
        Err(Errno::ACCESS) => open(OFlags::PATH).map(|dir| (dir, false)),
        result => result.map(|dir| (dir, true)),
    }
    .map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => FileError::NoDirectory(directory.to_owned()),
        errno => classify(errno, directory, directory),
    })
}

pub(super) fn classify(errno: Errno, shown: &str, what: &str) -> FileError {
    match errno {
        Errno::NOENT => FileError::Changed(shown.to_owned()),
        Errno::LOOP => FileError::NotRegular(shown.to_owned(), NoFile::Link),
        Errno::XDEV => FileError::NotRegular(shown.to_owned(), NoFile::OtherFileSystem),
        Errno::NXIO | Errno::NODEV => FileError::NotRegular(shown.to_owned(), NoFile::Special),
        Errno::ISDIR => FileError::NotRegular(shown.to_owned(), NoFile::Directory),
        Errno::ACCESS | Errno::PERM => FileError::Denied(shown.to_owned()),
        Errno::MFILE | Errno::NFILE => FileError::NoDescriptor { what: what.to_owned(), len: None },
        errno => FileError::Other { what: format!("opening {what}"), cause: cause_of(&errno.into()) },
    }
}

type Looked = (FileId, u64, i64, Vec<u8>, Option<u32>);

fn look_at(dir: &OwnedFd, directory: &str, name: &str) -> Result<Looked, FileError> {
    let file = open_beneath(dir, directory, name)?;
    let (id, len, modified_ns) = identify(&file).map_err(|errno| classify(errno, name, name))?;
    let unpacked_len = if name.ends_with(".gz") { unpacked_len(&file, len) } else { None };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let file = std::fs::File::from(file);
    let read = if name.ends_with(".gz") {
        unpack::Decoder::new(file).take(HEAD_BYTES as u64).read_to_end(&mut head)
    } else {
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)
    };
    // A damaged archive is recognized by what can be read of its head; opening it reports the damage.
    match read {
        Err(error) if !name.ends_with(".gz") => {
            Err(FileError::Other { what: format!("reading {directory}/{name}"), cause: cause_of(&error) })
        }
        _ => {
            // Not for an archive that ends in padding or in an empty member (bgzip).
            let unpacked_len = unpacked_len.filter(|len| *len as usize >= head.len());
            head.truncate(without_room(&head).len());
            Ok((id, len, modified_ns, head, unpacked_len))
        }
    }
}

/// The last four bytes of a gzip file: the length of its content, or of its last member's (RFC 1952: ISIZE).
fn unpacked_len(file: &OwnedFd, len: u64) -> Option<u32> {
    let mut trailer = [0; 4];
    let read = rustix::io::pread(file, &mut trailer, len.checked_sub(4)?).ok()?;
    (read == 4).then(|| u32::from_le_bytes(trailer))
}

/// Identity and length of an open file, and when it was last changed.
fn identify(file: &OwnedFd) -> rustix::io::Result<(FileId, u64, i64)> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, FileId::ASKED)?;
    Ok((FileId::of(&stat), stat.stx_size, FileId::modified_ns(&stat)))
}

/// Opens a file that a scan found, if it is still the same one, and checks whether it has the expected bytes. `beat` is
/// called during long work.
pub fn open(
    directory: &str,
    found: &FoundFile,
    expected: &TailPrint,
    claims: &Claims,
    beat: &dyn Fn(),
) -> Result<(OwnedFd, OpenedFile), FileError> {
    let (dir, _) = open_directory(directory)?;
    let file = open_beneath(&dir, directory, &found.name)?;
    if !descriptors::may_keep(file.as_fd()) {
        let len = identify(&file).ok().map(|(_, len, _)| len).filter(|_| !found.compressed);
        return Err(FileError::NoDescriptor { what: found.name.clone(), len });
    }
    let (id, len, _) = identify(&file).map_err(|errno| classify(errno, &found.name, &found.name))?;
    if id != found.id {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    // Measuring may take minutes; the stream claims the file once it has it.
    let file = claims.hold(std::fs::File::from(file), Owner::Discovery);
    let shown = |errno| classify(errno, &found.name, &found.name);
    // Without a birth time, the first bytes alone show what it is. It may have more of them than when it was listed.
    let is_to_be_shown = !found.compressed && id.birth_ns == 0;
    let mut head = vec![0; if is_to_be_shown { HEAD_BYTES } else { found.head.len() }];
    let (mut opened, read) = if found.compressed {
        let mut tail = vec![0; expected.len_bytes as usize];
        let kept = unpack::Kept { at: expected.begin(), bytes: &mut tail };
        let (len, damaged) =
            unpack::measure(&file, &mut [unpack::Kept { at: 0, bytes: &mut head }, kept], beat);
        let as_expected = expected.is_none() || len >= expected.end && expected.is_of(&tail);
        (OpenedFile { len, damaged, lane: None, as_expected, head: Vec::new() }, head.len().min(len as usize))
    } else {
        let read = rustix::io::pread(&*file, &mut head, 0).map_err(shown)?;
        let as_expected = expected.is_none() || stands_in(&*file, expected).map_err(shown)?;
        (OpenedFile { len, damaged: false, lane: None, as_expected, head: Vec::new() }, read)
    };
    head.truncate(read);
    // The number alone does not distinguish it from a later file with the same number.
    let is_it = if is_to_be_shown { head.starts_with(&found.head) } else { head == found.head };
    if !is_it {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    if is_to_be_shown {
        opened.head = head;
    }
    Ok((file.unclaimed().into(), opened))
}

/// Where a file's data continues, if what was read at `offset` ends in NULs and a hole follows; [`NO_DATA`] if the hole
/// reaches to its end.
pub fn data_behind(file: impl AsFd, offset: u64, read: &[u8]) -> Option<u64> {
    // Reading a few NULs is cheaper than asking about them.
    let end = read.len().checked_sub(HOLE_ASKED_BYTES)?;
    if read.last() != Some(&0) || leading_nuls(&read[end..]) < HOLE_ASKED_BYTES {
        return None;
    }
    let behind = offset + read.len() as u64;
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(behind)) {
        Ok(at) => (at > behind).then_some(at),
        Err(Errno::NXIO) => Some(NO_DATA),
        Err(_) => None,
    }
}

fn stands_in(file: impl AsFd, expected: &TailPrint) -> rustix::io::Result<bool> {
    let mut bytes = vec![0; expected.len_bytes as usize];
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[read..], expected.begin() + read as u64)? {
            0 => return Ok(false),
            count => read += count,
        }
    }
    Ok(expected.is_of(&bytes))
}

/// Length of an open file now.
pub fn length(file: impl AsFd) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files are read from the oldest to the live one, so a wrong order would repeat or skip whole files.
    #[test]
    fn the_latest_date_is_the_newest() {
        let ranks = |names: &[&str]| {
            let rotated = |name: &&str| {
                RotatedName::of(name, "0.log").map(|(rotated, gz)| ((*name).to_owned(), rotated, gz))
            };
            let ranks = ranked(names.iter().filter_map(rotated).collect()).into_iter();
            ranks.map(|(rank, name, _)| (rank, name)).collect::<Vec<_>>()
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

    /// One of the two had no rank of its own, and was not read.
    #[test]
    fn two_files_of_one_date_are_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let all = ["a.log", "a.log-20261125", "a-20261125.log", "a.log.2026-11-25", "a.log-20261124"];
        for name in all {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let mut ranks: Vec<u32> = scan(directory, "a.log").unwrap().iter().map(|file| file.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3, 4]);
    }

    /// Numbers from 0, for rank 0 is the live file's; and a number before the ending, which may be another log's.
    #[test]
    fn numbers_from_zero_and_numbers_of_other_logs() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let ranks = || {
            let mut found = scan(directory, "a.log").unwrap();
            found.sort_by_key(|file| file.rank);
            found.into_iter().map(|file| (file.rank, file.name)).collect::<Vec<_>>()
        };
        let make = |name: &str| std::fs::write(dir.path().join(name), name).unwrap();
        let named = |expected: &[(u32, &str)]| {
            expected.iter().map(|(rank, name)| (*rank, (*name).to_owned())).collect::<Vec<_>>()
        };
        ["a.log", "a.1.log"].into_iter().for_each(make);
        assert_eq!(ranks(), named(&[(0, "a.log"), (1, "a.1.log")]));
        ["a.log.0", "a.log.1"].into_iter().for_each(make);
        assert_eq!(ranks(), named(&[(0, "a.log"), (1, "a.log.0"), (2, "a.log.1")]));
    }

    /// Names, when each file was changed, and when it was made.
    fn order_of(files: &[(&str, i64, i64)]) -> Vec<String> {
        let file = |(name, modified_ns, birth_ns): &(&str, i64, i64)| {
            let (rotated, compressed) = RotatedName::of(name, "l").unwrap();
            let rank = if let RotatedName::Number(number) = rotated { number } else { 0 };
            let id = FileId { device: 1, inode: *birth_ns as u64, birth_ns: *birth_ns };
            let (name, modified_ns) = ((*name).to_owned(), *modified_ns);
            FoundFile { name, rank, compressed, id, len: 1, head: vec![1], unpacked_len: None, modified_ns }
        };
        let mut found: Vec<FoundFile> = files.iter().map(file).collect();
        turn_if_ascending(&mut found, "l");
        found.sort_by_key(|file| (std::cmp::Reverse(file.rank), file.compressed));
        found.into_iter().map(|file| file.name).collect()
    }

    /// Oldest first: what logrotate, savelog, log4j2, a backup and a careless program make.
    #[test]
    fn numbers_go_up_only_if_times_do() {
        let check = |files: &[(&str, i64, i64)], expected: &[&str]| {
            assert_eq!(order_of(files), expected, "{files:?}");
        };
        check(&[("l", 9, 9), ("l.1", 8, 5), ("l.2", 5, 2)], &["l.2", "l.1", "l"]);
        check(&[("l", 9, 9), ("l.1.gz", 8, 8), ("l.2.gz", 5, 6)], &["l.2.gz", "l.1.gz", "l"]);
        check(&[("l", 9, 9), ("l.1", 3, 2), ("l.2", 5, 4)], &["l.1", "l.2", "l"]);
        check(&[("l", 9, 6), ("l.1.gz", 3, 4), ("l.3.gz", 5, 7)], &["l.1.gz", "l.3.gz", "l"]);
        check(&[("l", 9, 6), ("l.1.gz", 3, 4), ("l.2", 5, 5)], &["l.1.gz", "l.2", "l"]);
        check(
            &[("l", 9, 6), ("l.1.gz", 3, 4), ("l.2", 5, 5), ("l.2.gz", 7, 7)],
            &["l.1.gz", "l.2", "l.2.gz", "l"],
        );
        // Compressed late.
        check(&[("l", 9, 9), ("l.1", 5, 4), ("l.2.gz", 6, 6)], &["l.2.gz", "l.1", "l"]);
        // Copied, the live one first.
        check(&[("l", 6, 6), ("l.1", 7, 7), ("l.2", 8, 8)], &["l.2", "l.1", "l"]);
        // A program that still writes to a file after two rotations.
        check(&[("l", 9, 8), ("l.1", 7, 6), ("l.2", 9, 4)], &["l.2", "l.1", "l"]);
        // Neither rising nor falling.
        check(&[("l", 9, 9), ("l.1", 4, 1), ("l.2", 7, 2), ("l.3", 5, 3)], &["l.3", "l.2", "l.1", "l"]);
    }

    fn scan(directory: &str, live_name: &str) -> Result<Vec<FoundFile>, FileError> {
        let chain = Chain { directory, live_name, ..Chain::default() };
        super::scan(chain, &mut Listings::default()).0
    }

    /// As [`super::open`], with nothing expected.
    fn open(directory: &str, found: &FoundFile) -> Result<(OwnedFd, OpenedFile), FileError> {
        super::open(directory, found, &TailPrint::default(), &Claims::default(), &|| ())
    }

    /// A file rotated to an unknown name is still the same file.
    #[test]
    fn what_is_wanted_is_found_under_any_name_and_what_is_apart_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        for name in ["l", "l.1", "l.2", "other"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let first = scan(directory, "l").unwrap().into_iter().find(|file| file.name == "l.2").unwrap();
        std::fs::rename(dir.path().join("l.2"), dir.path().join("moved")).unwrap();
        let chain = Chain {
            directory,
            live_name: "l",
            wanted: &[first.id],
            apart: &["l.1".to_owned(), "l".to_owned()],
            ..Chain::default()
        };
        let (found, beside) = super::scan(chain, &mut Listings::default());
        let found = found.unwrap();
        let renamed: Vec<_> = beside.renamed.iter().map(|(id, at_ns)| (*id, *at_ns >= id.birth_ns)).collect();
        assert_eq!(renamed, [(first.id, true)]);
        let names: Vec<_> = found.iter().map(|file| (file.name.as_str(), file.rank)).collect();
        assert_eq!(names, [("l", 0), ("moved", RANK_UNKNOWN)]);
        assert_eq!(found[1].id, first.id);
    }

    #[test]
    fn an_archive_with_nothing_but_its_ending_may_be_the_log_itself() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"one\ntwo\n").unwrap();
        let packed = encoder.finish().unwrap();
        std::fs::write(dir.path().join("a-2026-11-25.log.gz"), &packed).unwrap();
        std::fs::write(dir.path().join("a-2026-11-26.log.gz"), &packed).unwrap();
        let found = scan(directory, "a-2026-11-25.log").unwrap();
        let files: Vec<_> =
            found.iter().map(|file| (file.name.as_str(), file.rank, file.compressed)).collect();
        assert_eq!(files, [("a-2026-11-25.log.gz", RANK_UNKNOWN, true)]);
        assert_eq!((found[0].head.as_slice(), found[0].unpacked_len), (b"one\ntwo\n".as_slice(), Some(8)));
    }

    #[test]
    fn an_opening_tells_whether_what_is_expected_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("l"), "one two three").unwrap();
        let found = scan(directory, "l").unwrap().remove(0);
        for (bytes, end, expected) in
            [("two", 7, true), ("TWO", 7, false), ("two", 8, false), ("three", 14, false)]
        {
            let tail = TailPrint::of(bytes.as_bytes(), end);
            let (_, opened) = super::open(directory, &found, &tail, &Claims::default(), &|| ()).unwrap();
            assert_eq!(opened.as_expected, expected, "{bytes} before {end}");
        }
    }

    #[test]
    fn the_newest_archive_that_is_not_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let chain = Chain { directory, live_name: "l", ..Chain::default() };
        for (name, expected) in [
            ("l", None),
            ("l.1.gz", None),
            ("l.2.zst", Some("l.2.zst")),
            ("l.1.zst", Some("l.1.zst")),
            ("l.10.xz", Some("l.1.zst")),
        ] {
            std::fs::write(dir.path().join(name), "x").unwrap();
            let (_, beside) = super::scan(chain, &mut Listings::default());
            assert_eq!(beside.archive.as_deref(), expected, "with {name}");
        }
    }

    /// A container's owner who can write beside the log must not make the agent read another file.
    #[test]
    fn only_regular_files_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("l.1"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path("l")).unwrap();
        std::fs::create_dir(path("l.2")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("l.3"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let directory = dir.path().to_str().unwrap();
        let refused = |expected: NoFile| {
            let result = scan(directory, "l");
            assert!(matches!(result, Err(FileError::NotRegular(_, what)) if what == expected), "{result:?}");
        };
        refused(NoFile::Link);
        std::fs::remove_file(path("l")).unwrap();
        std::fs::create_dir(path("l")).unwrap();
        refused(NoFile::Directory);
        std::fs::remove_dir(path("l")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(path("l")).unwrap();
        refused(NoFile::Special);
        drop(socket);
        std::fs::remove_file(path("l")).unwrap();
        std::fs::rename(path("l.3"), path("l")).unwrap();
        refused(NoFile::Special);
        std::fs::rename(path("l"), path("l.3")).unwrap();
        std::fs::write(path("l"), "live").unwrap();
        let mut found: Vec<_> = scan(directory, "l").unwrap();
        found.sort_by_key(|file| file.rank);
        let names: Vec<_> =
            found.iter().map(|file| (file.name.as_str(), file.len, file.head.len())).collect();
        assert_eq!(names, [("l", 4, 4), ("l.1", 1, 1)]);
        assert!(matches!(scan("/nonexistent", "l"), Err(FileError::NoDirectory(_))));
    }

    #[test]
    fn errors_of_the_system_are_told_with_what_helps() {
        for (errno, cure) in [
            (Errno::IO, "; the disk or its file system is damaged: dmesg says more"),
            (Errno::STALE, "; the network file system has forgotten the file: mount it again"),
            (Errno::NAMETOOLONG, "; shorten the name or the path of its directory"),
            (Errno::OVERFLOW, ""),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(cause_of(&error), format!("{error}{cure}"));
        }
    }

    #[test]
    fn a_file_replaced_since_the_scan_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("l"), "one").unwrap();
        let found = scan(directory, "l").unwrap().remove(0);
        assert_eq!(
            open(directory, &found).unwrap().1,
            OpenedFile { len: 3, damaged: false, lane: None, as_expected: true, head: Vec::new() }
        );
        std::fs::rename(dir.path().join("l"), dir.path().join("l.1")).unwrap();
        std::fs::write(dir.path().join("l"), "two").unwrap();
        assert!(matches!(open(directory, &found), Err(FileError::Changed(_))));
        // The same inode with other content, as a reused number looks without birth times.
        let found = scan(directory, "l").unwrap().into_iter().find(|file| file.rank == 0).unwrap();
        std::fs::write(dir.path().join("l"), "three").unwrap();
        assert!(matches!(open(directory, &found), Err(FileError::Changed(_))));
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
            assert_eq!(found.unpacked_len == Some(content.len() as u32), !damaged);
            let (_, opened) = open(directory, &found).unwrap();
            assert_eq!(opened.damaged, damaged);
            assert!(if damaged { opened.len > 100_000 } else { opened.len == content.len() as u64 });
        }
    }
}
