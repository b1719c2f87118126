//! What is done to files by name: listing a chain, opening, watching, matching patterns. A thread of its own does it,
//! because every step of a path may hang (FUSE, NFS) and nothing in the kernel can end such a call; the loop only sends
//! a request and takes the answer when it comes.
//!
//! Files are opened beneath their directory without following links, and only regular ones: a container's owner who
//! can write there must not make a privileged agent read something else.
//!
//! Not here: reads (ring/), and what a listing means (stream/chain.rs).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use flate2::read::MultiGzDecoder as GzDecoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::capture::io::{FileError, FileNo, FoundFile, OpenedFile};
use crate::checkpoint::{self, Checkpoint};
use crate::cursor::FileId;
use crate::limits::HEAD_BYTES;
use crate::record::StreamId;
use crate::settings::FileSet;

/// Most bytes of an archive's content that are read; Docker makes them from files of `max-size`.
const UNPACKED_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Watch the directory and list a chain.
    Scan {
        /// Whose.
        stream: StreamId,
        /// Absolute path.
        directory: String,
        /// Name of the live file.
        live_name: String,
    },
    /// Open a file of a chain.
    Open {
        /// Whose.
        stream: StreamId,
        /// Its number.
        file: FileNo,
        /// Absolute path of its directory.
        directory: String,
        /// As the scan found it.
        found: FoundFile,
    },
    /// Match the patterns of an entry and watch the directories they name.
    FindPaths {
        /// Index of the entry.
        set: usize,
    },
    /// Save a checkpoint.
    Save {
        /// Its number.
        seq: u64,
        /// What to save.
        checkpoint: Checkpoint,
    },
}

/// What the thread answers.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Scan`].
    Scanned {
        /// Whose.
        stream: StreamId,
        /// The directory and its watch; `None` where inotify has none left.
        watch: Option<i32>,
        /// The files.
        result: Result<Vec<FoundFile>, FileError>,
    },
    /// To [`Request::Open`].
    Opened {
        /// Whose.
        stream: StreamId,
        /// Its number.
        file: FileNo,
        /// The file.
        result: Result<(OwnedFd, OpenedFile), FileError>,
    },
    /// To [`Request::FindPaths`].
    PathsFound {
        /// Index of the entry.
        set: usize,
        /// Watches of the directories.
        watches: Vec<i32>,
        /// Matches.
        paths: Vec<String>,
    },
    /// To [`Request::Save`].
    Saved {
        /// Its number.
        seq: u64,
        /// Why not.
        result: Result<(), String>,
    },
}

/// Sends requests to the thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Files {
    requests: Sender<Request>,
}

impl Files {
    /// Starts the thread. `inotify` is the loop's one instance; `None` = there is none, nothing is watched.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        inotify: Option<Arc<OwnedFd>>,
        sets: Vec<FileSet>,
        data_dir: PathBuf,
        answer: impl Fn(Answer) + Send + 'static,
    ) -> io::Result<Files> {
        let (requests, inbox) = channel();
        let worker = Worker { inotify, sets, data_dir };
        std::thread::Builder::new().name("files".to_owned()).spawn(move || worker.run(&inbox, &answer))?;
        Ok(Files { requests })
    }

    /// Sends a request. Each is answered once.
    pub fn ask(&self, request: Request) {
        // The thread ends only with this sender.
        let _ = self.requests.send(request);
    }
}

struct Worker {
    inotify: Option<Arc<OwnedFd>>,
    sets: Vec<FileSet>,
    data_dir: PathBuf,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Request>, answer: &impl Fn(Answer)) {
        while let Ok(request) = inbox.recv() {
            answer(match request {
                Request::Scan { stream, directory, live_name } => {
                    // First the watch, then the list: what happens between them is seen twice, not missed.
                    let watch = self.watch(Path::new(&directory));
                    Answer::Scanned { stream, watch, result: scan(&directory, &live_name) }
                }
                Request::Open { stream, file, directory, found } => {
                    Answer::Opened { stream, file, result: open(&directory, &found, &self.data_dir) }
                }
                Request::FindPaths { set } => {
                    let (directories, paths) = find_paths(&self.sets[set]);
                    let watches = directories.iter().filter_map(|directory| self.watch(directory)).collect();
                    Answer::PathsFound { set, watches, paths }
                }
                Request::Save { seq, checkpoint } => {
                    let bytes = checkpoint::encode(&checkpoint);
                    let result = checkpoint::store::save(&self.data_dir, &bytes);
                    Answer::Saved {
                        seq,
                        result: result.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
                    }
                }
            });
        }
    }

    fn watch(&self, directory: &Path) -> Option<i32> {
        use rustix::fs::inotify::{WatchFlags, add_watch};
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        add_watch(self.inotify.as_ref()?, directory, flags).ok()
    }
}

/// The live file and its rotated kin: `name`, `name.N`, `name.N.gz`.
fn scan(directory: &str, live_name: &str) -> Result<Vec<FoundFile>, FileError> {
    let dir = open_directory(directory)?;
    let other = |cause: io::Error| FileError::Other {
        what: format!("listing {directory}"),
        cause: cause.to_string(),
    };
    let names: Vec<_> = rustix::fs::Dir::read_from(&dir)
        .map_err(|errno| other(errno.into()))?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_str().ok()?.to_owned();
            rank_of(&name, live_name).map(|(rank, compressed)| (name, rank, compressed))
        })
        .collect();
    let mut found = Vec::new();
    for (name, rank, compressed) in names {
        match look_at(&dir, directory, &name) {
            Ok((id, len, head)) => found.push(FoundFile { name, rank, compressed, id, len, head }),
            // Renamed or removed since the listing: inotify tells, and the next scan sees it.
            Err(FileError::Changed(_)) => {}
            // A rotated sibling that can't be read must not hide the live file.
            Err(error) if rank > 0 => tracing::warn!("{error}; passed over"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn rank_of(name: &str, live_name: &str) -> Option<(u32, bool)> {
    let rest = name.strip_prefix(live_name)?;
    if rest.is_empty() {
        return Some((0, false));
    }
    let rest = rest.strip_prefix('.')?;
    let (digits, compressed) = rest.strip_suffix(".gz").map_or((rest, false), |digits| (digits, true));
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let rank = digits.parse().ok().filter(|rank| plain && *rank > 0)?;
    Some((rank, compressed))
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
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, mask)?;
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let birth = stat.stx_btime;
    let birth_ns = if has_birth { birth.tv_sec * 1_000_000_000 + i64::from(birth.tv_nsec) } else { 0 };
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Ok((FileId { device, inode: stat.stx_ino, birth_ns }, stat.stx_size))
}

fn open(directory: &str, found: &FoundFile, data_dir: &Path) -> Result<(OwnedFd, OpenedFile), FileError> {
    let dir = open_directory(directory)?;
    let file = open_beneath(&dir, directory, &found.name)?;
    let (id, len) = identify(&file).map_err(|errno| classify(errno, &found.name, &found.name))?;
    if id != found.id {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    let (file, opened) = if found.compressed {
        decompress(file, data_dir, &format!("{directory}/{}", found.name))?
    } else {
        (file, OpenedFile { len, damaged: false })
    };
    // Without birth times the number alone does not tell it from a file that got the same one since.
    let mut head = vec![0; found.head.len()];
    let read =
        rustix::io::pread(&file, &mut head, 0).map_err(|errno| classify(errno, &found.name, &found.name))?;
    if head[..read] != found.head {
        return Err(FileError::Changed(format!("{directory}/{}", found.name)));
    }
    Ok((file, opened))
}

/// Unpacks an archive into a nameless file of the data directory, which then is read like any other. What is damaged
/// is read as far as it goes.
fn decompress(archive: OwnedFd, data_dir: &Path, shown: &str) -> Result<(OwnedFd, OpenedFile), FileError> {
    let other = |what: &str, cause: io::Error| FileError::Other {
        what: format!("{what} {shown}"),
        cause: cause.to_string(),
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let unpacked = rustix::fs::open(data_dir, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| other("making room to unpack", errno.into()))?;
    let mut unpacked = std::fs::File::from(unpacked);
    let mut decoder = GzDecoder::new(std::fs::File::from(archive)).take(UNPACKED_BYTES_MAX);
    let mut chunk = vec![0; 64 * 1024];
    let (mut len, mut damaged) = (0, false);
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                unpacked.write_all(&chunk[..count]).map_err(|error| other("unpacking", error))?;
                len += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                damaged = true;
                break;
            }
        }
    }
    let damaged = damaged || len >= UNPACKED_BYTES_MAX;
    Ok((unpacked.into(), OpenedFile { len, damaged }))
}

/// Length of an open file now; asked when a read brought nothing, to see a truncation. Local files only: does not hang.
pub fn length(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_size as u64)
}

/// The directories an entry's patterns lead to, and the regular files that match.
fn find_paths(set: &FileSet) -> (BTreeSet<PathBuf>, Vec<String>) {
    let (mut directories, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for pattern in &set.paths {
        if let Some(parent) = Path::new(pattern.as_str()).parent() {
            let parents = glob::glob(&parent.to_string_lossy()).into_iter().flatten().flatten();
            directories.extend(parents.filter(|parent| parent.is_dir()));
        }
        for path in glob::glob(pattern.as_str()).into_iter().flatten().flatten() {
            let regular = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
            let Some(text) = path.to_str().filter(|_| regular) else { continue };
            if !set.exclude.iter().any(|exclude| exclude.matches(text)) {
                paths.insert(text.to_owned());
            }
        }
    }
    (directories, paths.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_names() {
        let table = [
            ("l", Some((0, false))),
            ("l.1", Some((1, false))),
            ("l.12.gz", Some((12, true))),
            ("l.0", None),
            ("l.1.gz.tmp", None),
            ("l.gz", None),
            ("l.x", None),
            ("l.+1", None),
            ("m", None),
            ("lo", None),
            ("l.99999999999", None),
        ];
        for (name, expected) in table {
            assert_eq!(rank_of(name, "l"), expected, "{name}");
        }
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
        assert_eq!(open(directory, &found, dir.path()).unwrap().1, OpenedFile { len: 3, damaged: false });
        std::fs::rename(dir.path().join("l"), dir.path().join("l.1")).unwrap();
        std::fs::write(dir.path().join("l"), "two").unwrap();
        assert!(matches!(open(directory, &found, dir.path()), Err(FileError::Changed(_))));
        // The same inode with another content, as a reused number looks where there are no birth times.
        let found = scan(directory, "l").unwrap().into_iter().find(|file| file.rank == 0).unwrap();
        std::fs::write(dir.path().join("l"), "three").unwrap();
        assert!(matches!(open(directory, &found, dir.path()), Err(FileError::Changed(_))));
    }

    #[test]
    fn an_archive_is_read_like_a_file_and_a_damaged_one_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        let content: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        let packed = encoder.finish().unwrap();
        for (len, damaged) in [(packed.len(), false), (packed.len() / 2, true)] {
            std::fs::write(dir.path().join("l.1.gz"), &packed[..len]).unwrap();
            let found = scan(directory, "l").unwrap().remove(0);
            assert!(found.compressed && found.head == content[..HEAD_BYTES]);
            let (file, opened) = open(directory, &found, dir.path()).unwrap();
            assert_eq!(opened.damaged, damaged);
            let mut unpacked = vec![0; opened.len as usize];
            rustix::io::pread(&file, &mut unpacked, 0).unwrap();
            assert!(content.starts_with(&unpacked) && (damaged || unpacked.len() == content.len()));
            assert!(unpacked.len() > content.len() / 4);
        }
    }

    #[test]
    fn patterns_match_regular_files_and_name_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.log", "c.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("d.log")).unwrap();
        let pattern = |name: &str| glob::Pattern::new(dir.path().join(name).to_str().unwrap()).unwrap();
        let set =
            FileSet { paths: vec![pattern("*.log")], exclude: vec![pattern("b*")], ..FileSet::default() };
        let (directories, paths) = find_paths(&set);
        assert_eq!(directories, BTreeSet::from([dir.path().to_owned()]));
        assert_eq!(paths, [dir.path().join("a.log").to_str().unwrap()]);
    }
}
