//! A file system that hangs when told to: a FUSE mount that shows the files of one directory, which may be written too.
//!
//! It speaks the kernel's protocol itself (include/uapi/linux/fuse.h), because here it must not answer, which no
//! library offers. The shown directory is held open, so the mount may be on top of it: then a program that has a file
//! open there keeps writing, and whoever opens it later meets the mount.
//!
//! Dropping it closes the connection, upon which the kernel ends all that hangs, and unmounts. If the test process is
//! killed the kernel closes it all the same, and the mount is swept with the folder it is in (sweep.rs).

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const UNLINK: u32 = 10;
const RENAME: u32 = 12;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Bytes of a request's head and of an answer's.
const HEAD_BYTES: usize = 40;
/// The kernel wants to know that its largest request fits.
const REQUEST_BYTES_MAX: usize = 1 << 20;
const ROOT: u64 = 1;
/// How often the thread checks whether it is to end.
const PAUSE: Duration = Duration::from_millis(50);

/// Which requests are not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// Everything is answered.
    Nothing,
    /// Reads of files are accepted and kept.
    Reads,
    /// Writes to files are accepted and kept.
    Writes,
    /// Opens of files are accepted and kept.
    Opens,
    /// Every name lookup is accepted and kept.
    Lookups,
    /// Listings of the directory are accepted and kept.
    Listings,
    /// No request is even accepted, as when the serving program is frozen.
    All,
}

impl Hang {
    fn keeps(self, opcode: u32) -> bool {
        match self {
            Hang::Nothing | Hang::All => false,
            Hang::Reads => opcode == READ,
            Hang::Writes => opcode == WRITE,
            Hang::Opens => opcode == OPEN || opcode == CREATE,
            Hang::Lookups => opcode == LOOKUP,
            Hang::Listings => opcode == OPENDIR || opcode == READDIR,
        }
    }
}

/// The mount.
#[derive(Debug)]
pub struct HungMount {
    point: PathBuf,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    knob: Mutex<Knob>,
    turned: Condvar,
}

#[derive(Debug)]
struct Knob {
    hang: Hang,
    /// When the first request since then was kept, or not taken.
    hangs_since: Option<Instant>,
    ends: bool,
}

impl Shared {
    fn knob(&self) -> MutexGuard<'_, Knob> {
        self.knob.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HungMount {
    /// Shows `directory` at `point`, which may be the same.
    pub fn new(directory: &Path, point: &Path) -> Result<HungMount> {
        let shown =
            rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("opening {}", directory.display()))?;
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .context("opening /dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount("capturer-test", point, "fuse", MountFlags::empty(), CString::new(options)?.as_c_str())
            .with_context(|| format!("mounting on {}", point.display()))?;
        let knob = Knob { hang: Hang::Nothing, hangs_since: None, ends: false };
        let shared = Arc::new(Shared { knob: Mutex::new(knob), turned: Condvar::new() });
        let mut server = Server {
            device: File::from(device),
            shown,
            names: BTreeMap::new(),
            open: BTreeMap::new(),
            kept: Vec::new(),
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn(move || server.run());
        Ok(HungMount { point: point.to_owned(), shared, thread: Some(thread) })
    }

    /// Turns the knob. [`Hang::Nothing`] answers all kept requests.
    pub fn set(&self, hang: Hang) {
        let mut knob = self.shared.knob();
        (knob.hang, knob.hangs_since) = (hang, None);
        self.shared.turned.notify_all();
    }

    /// For how long somebody has been waiting since the knob was turned.
    pub fn hangs_for(&self) -> Option<Duration> {
        self.shared.knob().hangs_since.map(|since| since.elapsed())
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        let mut knob = self.shared.knob();
        knob.ends = true;
        self.shared.turned.notify_all();
        drop(knob);
        // Its end closes the connection; then nothing hangs that an unmount would wait for.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}

struct Server {
    device: File,
    shown: OwnedFd,
    /// Name last seen of each node; a node's number is its inode's.
    names: BTreeMap<u64, OsString>,
    open: BTreeMap<u64, File>,
    kept: Vec<Vec<u8>>,
    shared: Arc<Shared>,
}

type Reply = Result<Vec<u8>, Errno>;

impl Server {
    fn run(&mut self) {
        let mut buffer = vec![0; REQUEST_BYTES_MAX + 4096];
        while let Some(hang) = self.wait_for_request() {
            if !matches!(hang, Hang::All) && self.is_readable() {
                // ENODEV: unmounted. EINTR and ENOENT: the request was taken back.
                match self.device.read(&mut buffer) {
                    Ok(len) => self.take(&buffer[..len], hang),
                    Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return,
                    Err(_) => {}
                }
            }
        }
    }

    /// The knob's position when there is something to do; `None` at the end.
    fn wait_for_request(&mut self) -> Option<Hang> {
        loop {
            let readable = self.is_readable();
            let mut knob = self.shared.knob();
            if knob.ends {
                return None;
            }
            if knob.hang == Hang::Nothing && !self.kept.is_empty() {
                drop(knob);
                for request in std::mem::take(&mut self.kept) {
                    self.serve(&request);
                }
                continue;
            }
            if readable && knob.hang != Hang::All {
                return Some(knob.hang);
            }
            if readable {
                knob.hangs_since.get_or_insert_with(Instant::now);
                // Until the knob is turned.
                drop(self.shared.turned.wait_timeout(knob, PAUSE));
            }
        }
    }

    /// Waits a little for a request.
    fn is_readable(&self) -> bool {
        let pause = rustix::time::Timespec::try_from(PAUSE).ok();
        poll(&mut [PollFd::new(&self.device, PollFlags::IN)], pause.as_ref()).is_ok_and(|ready| ready > 0)
    }

    fn take(&mut self, request: &[u8], hang: Hang) {
        if hang.keeps(u32_at(request, 4)) {
            self.shared.knob().hangs_since.get_or_insert_with(Instant::now);
            self.kept.push(request.to_owned());
        } else {
            self.serve(request);
        }
    }

    fn serve(&mut self, request: &[u8]) {
        let (opcode, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let body = &request[HEAD_BYTES..];
        let reply = match opcode {
            // Not answered.
            FORGET | BATCH_FORGET | INTERRUPT => return,
            INIT => Ok(init(body)),
            LOOKUP => self.look_up(body),
            GETATTR => self.attributes(node, body),
            OPEN => self.open(node),
            CREATE => self.create(body),
            READ => self.read(body),
            WRITE => self.write(body),
            SETATTR => self.set_attributes(node, body),
            UNLINK => self.unlink(body),
            RENAME => self.rename(body),
            FSYNC => Ok(Vec::new()),
            OPENDIR => Ok(vec![0; 16]),
            READDIR => self.list(body),
            RELEASE => {
                self.open.remove(&u64_at(body, 0));
                Ok(Vec::new())
            }
            RELEASEDIR => Ok(Vec::new()),
            // FLUSH among them, as of most such programs: else each closing would wait, the one at a process's end too.
            _ => Err(Errno::NOSYS),
        };
        let (error, body) = match reply {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let mut answer = Vec::with_capacity(16 + body.len());
        answer.extend(((16 + body.len()) as u32).to_ne_bytes());
        answer.extend(error.to_ne_bytes());
        answer.extend(unique.to_ne_bytes());
        answer.extend(body);
        // ENOENT: whoever asked is gone.
        let _ = self.device.write_all(&answer);
    }

    fn look_up(&mut self, body: &[u8]) -> Reply {
        let name = OsString::from_vec(body[..body.len() - 1].to_vec());
        let stat = rustix::fs::statat(&self.shown, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.names.insert(stat.st_ino, name);
        let mut reply = Vec::new();
        // Node and generation; neither the name nor the attributes may be kept.
        [stat.st_ino, 0, 0, 0, 0].iter().for_each(|word| reply.extend(word.to_ne_bytes()));
        push_attributes(&mut reply, stat.st_ino, &stat);
        Ok(reply)
    }

    fn attributes(&self, node: u64, body: &[u8]) -> Reply {
        const BY_HANDLE: u32 = 1;
        let stat = match self.open.get(&u64_at(body, 8)) {
            Some(file) if u32_at(body, 0) & BY_HANDLE != 0 => rustix::fs::fstat(file)?,
            _ if node == ROOT => rustix::fs::fstat(&self.shown)?,
            _ => rustix::fs::statat(&self.shown, self.name(node)?, AtFlags::SYMLINK_NOFOLLOW)?,
        };
        let mut reply = vec![0; 16];
        push_attributes(&mut reply, node, &stat);
        Ok(reply)
    }

    fn name(&self, node: u64) -> Result<&OsString, Errno> {
        self.names.get(&node).ok_or(Errno::NOENT)
    }

    fn open(&mut self, node: u64) -> Reply {
        let open = |flags| {
            let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&self.shown, self.name(node)?, flags, Mode::empty())
        };
        let file = open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY))?;
        Ok(self.keep_open(file))
    }

    fn keep_open(&mut self, file: OwnedFd) -> Vec<u8> {
        let handle = self.open.last_key_value().map_or(1, |(last, _)| last + 1);
        self.open.insert(handle, file.into());
        [handle, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn create(&mut self, body: &[u8]) -> Reply {
        let name = &body[16..];
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let name_text = OsString::from_vec(name[..name.len() - 1].to_vec());
        let mode = Mode::from_raw_mode(u32_at(body, 4) & 0o777);
        let file = rustix::fs::openat(&self.shown, &name_text, flags, mode)?;
        let mut reply = self.look_up(name)?;
        reply.extend(self.keep_open(file));
        Ok(reply)
    }

    fn write(&self, body: &[u8]) -> Reply {
        let file = self.open.get(&u64_at(body, 0)).ok_or(Errno::BADF)?;
        let len = u32_at(body, 16);
        let bytes = &body[40..40 + len as usize];
        file.write_all_at(bytes, u64_at(body, 8)).map_err(|error| errno(&error))?;
        Ok([len, 0].iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    fn set_attributes(&self, node: u64, body: &[u8]) -> Reply {
        const SIZE: u32 = 1 << 3;
        if u32_at(body, 0) & SIZE != 0 {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&self.shown, self.name(node)?, flags, Mode::empty())?;
            rustix::fs::ftruncate(file, u64_at(body, 16))?;
        }
        // By name: the handle is in another place here.
        self.attributes(node, &[0; 16])
    }

    fn unlink(&self, body: &[u8]) -> Reply {
        let name = OsString::from_vec(body[..body.len() - 1].to_vec());
        rustix::fs::unlinkat(&self.shown, name, AtFlags::empty())?;
        Ok(Vec::new())
    }

    fn rename(&mut self, body: &[u8]) -> Reply {
        let mut names = body[8..].split(|byte| *byte == 0).map(|name| OsString::from_vec(name.to_vec()));
        let (Some(old), Some(new)) = (names.next(), names.next()) else { return Err(Errno::INVAL) };
        rustix::fs::renameat(&self.shown, &old, &self.shown, &new)?;
        self.names.values_mut().filter(|name| **name == old).for_each(|name| name.clone_from(&new));
        Ok(Vec::new())
    }

    fn read(&self, body: &[u8]) -> Reply {
        let file = self.open.get(&u64_at(body, 0)).ok_or(Errno::BADF)?;
        let mut bytes = vec![0; u32_at(body, 16) as usize];
        let len = file.read_at(&mut bytes, u64_at(body, 8)).map_err(|error| errno(&error))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn list(&self, body: &[u8]) -> Reply {
        let (from, room) = (u64_at(body, 8), u32_at(body, 16) as usize);
        let mut reply = Vec::new();
        for (entry, next) in Dir::read_from(self.shown.as_fd())?.skip(from as usize).zip(from + 1..) {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let len = (24 + name.len()).next_multiple_of(8);
            if reply.len() + len > room {
                break;
            }
            let end = reply.len() + len;
            reply.extend(entry.ino().to_ne_bytes());
            reply.extend(next.to_ne_bytes());
            reply.extend((name.len() as u32).to_ne_bytes());
            let kind = if entry.file_type() == FileType::Directory { 4_u32 } else { 8 };
            reply.extend(kind.to_ne_bytes());
            reply.extend(name);
            reply.resize(end, 0);
        }
        Ok(reply)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Protocol 7.31: old enough for every kernel that is tested, and what is not said stays off.
fn init(body: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    let read_ahead = u32_at(body, 8);
    [7, 31, read_ahead, 0, 0, 64 * 1024, 1].iter().for_each(|word: &u32| reply.extend(word.to_ne_bytes()));
    reply.resize(64, 0);
    reply
}

fn push_attributes(reply: &mut Vec<u8>, node: u64, stat: &Stat) {
    let seconds = [stat.st_atime, stat.st_mtime, stat.st_ctime].map(|second| second as u64);
    let wide = [node, stat.st_size as u64, stat.st_blocks as u64];
    wide.iter().chain(&seconds).for_each(|word| reply.extend(word.to_ne_bytes()));
    let narrow: [u32; 10] = [
        stat.st_atime_nsec as u32,
        stat.st_mtime_nsec as u32,
        stat.st_ctime_nsec as u32,
        stat.st_mode,
        stat.st_nlink as u32,
        stat.st_uid,
        stat.st_gid,
        0,
        4096,
        0,
    ];
    narrow.iter().for_each(|word| reply.extend(word.to_ne_bytes()));
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
