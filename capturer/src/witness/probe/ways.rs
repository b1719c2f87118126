//! Every way in which this program's descriptors can come and go: tried by the self-test at start, and by
//! tests/probe.rs on each kernel.
//!
//! A way makes descriptors and returns them as values that close themselves. What else it needs (a peer, a ring) is
//! made beforehand, in [`Workbench`], so that nothing but the way itself happens between two looks.

#![allow(unsafe_code)] // io_uring's entries and close_range(2), for which rustix has no call: each with its reason.

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags, inotify, memfd_create, openat, openat2};
use rustix::io::{DupFlags, dup, dup2, dup3, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, accept_with, bind,
    connect, getsockname, listen, recvmsg, sendmsg, socket, socket_with, socketpair,
};
use rustix::pipe::{PipeFlags, pipe, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

/// Can be opened without side effects on every Linux.
const NULL: &CStr = c"/dev/null";

/// Makes one or two descriptors.
pub type Make = fn(&mut Workbench) -> Result<Vec<OwnedFd>>;
/// Releases a descriptor together with its number.
pub type Release = fn(&mut Workbench, OwnedFd) -> Result<()>;

/// A way to make descriptors, or to release one.
#[derive(Clone, Copy)]
pub struct Way<F> {
    /// Its name in the table of docs/probe.md.
    pub name: &'static str,
    /// Tries it once.
    pub go: F,
    /// Whether it uses io_uring, which a kernel may forbid.
    pub by_ring: bool,
}

/// What the ways need.
pub struct Workbench {
    ring: Option<IoUring>,
    /// An open file to be duplicated or replaced.
    file: OwnedFd,
    listener: OwnedFd,
    /// A connected pair: descriptors are sent from the first to the second.
    pair: (OwnedFd, OwnedFd),
}

const fn way<F>(name: &'static str, go: F) -> Way<F> {
    Way { name, go, by_ring: false }
}

const fn ring_way<F>(name: &'static str, go: F) -> Way<F> {
    Way { name, go, by_ring: true }
}

/// Every way to make descriptors.
pub const MAKING: [Way<Make>; 24] = [
    way("openat", |bench| one(openat(&bench.file, NULL, OFlags::CLOEXEC, Mode::empty())?)),
    way("openat2", |bench| {
        one(openat2(&bench.file, NULL, OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())?)
    }),
    way("socket", |_| one(socket(AddressFamily::UNIX, SocketType::STREAM, None)?)),
    way("socketpair", |_| Ok(stream_pair()?.into())),
    way("socket, connect, accept", |bench| {
        let client = bench.connected()?;
        Ok(vec![client, accept(&bench.listener)?])
    }),
    way("accept4", |bench| {
        let client = bench.connected()?;
        Ok(vec![client, accept_with(&bench.listener, SocketFlags::CLOEXEC)?])
    }),
    way("dup", |bench| one(dup(&bench.file)?)),
    way("dup2 over another", |bench| {
        let mut over = openat(&bench.file, NULL, OFlags::CLOEXEC, Mode::empty())?;
        dup2(&bench.file, &mut over)?;
        one(over)
    }),
    way("dup3 over another", |bench| {
        let mut over = openat(&bench.file, NULL, OFlags::CLOEXEC, Mode::empty())?;
        dup3(&bench.file, &mut over, DupFlags::CLOEXEC)?;
        one(over)
    }),
    way("fcntl F_DUPFD_CLOEXEC", |bench| one(fcntl_dupfd_cloexec(&bench.file, 0)?)),
    way("pipe2", |_| Ok(<[OwnedFd; 2]>::from(pipe_with(PipeFlags::CLOEXEC)?).into())),
    way("pipe", |_| Ok(<[OwnedFd; 2]>::from(pipe()?).into())),
    way("eventfd", |_| one(eventfd(0, EventfdFlags::CLOEXEC)?)),
    way("epoll_create1", |_| one(epoll::create(epoll::CreateFlags::CLOEXEC)?)),
    way("inotify_init1", |_| one(inotify::init(inotify::CreateFlags::CLOEXEC)?)),
    way("timerfd_create", |_| one(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?)),
    way("memfd_create", |_| one(memfd_create(c"capturer-probe", MemfdFlags::CLOEXEC)?)),
    way("pidfd_open", |_| one(pidfd_open(getpid(), PidfdFlags::empty())?)),
    way("SCM_RIGHTS", |bench| one(bench.received()?)),
    way("io_uring_setup", |_| {
        let ring = IoUring::new(1)?;
        let fd = ring.as_raw_fd();
        // SAFETY: dup keeps the ring's file; the ring closes its own descriptor and unmaps its memory when it goes.
        one(dup(unsafe { BorrowedFd::borrow_raw(fd) })?)
    }),
    ring_way("io_uring openat", |bench| {
        let directory = types::Fd(bench.file.as_raw_fd());
        let entry = opcode::OpenAt::new(directory, NULL.as_ptr()).flags(libc::O_CLOEXEC).build();
        one(bench.made_by_ring(&entry)?)
    }),
    ring_way("io_uring openat, by a worker", |bench| {
        let directory = types::Fd(bench.file.as_raw_fd());
        let entry = opcode::OpenAt::new(directory, NULL.as_ptr()).flags(libc::O_CLOEXEC).build();
        one(bench.made_by_ring(&entry.flags(squeue::Flags::ASYNC))?)
    }),
    ring_way("io_uring openat2", |bench| {
        let how = types::OpenHow::new().flags(libc::O_CLOEXEC as u64);
        let directory = types::Fd(bench.file.as_raw_fd());
        one(bench.made_by_ring(&opcode::OpenAt2::new(directory, NULL.as_ptr(), &raw const how).build())?)
    }),
    ring_way("io_uring accept", |bench| {
        let client = bench.connected()?;
        let listener = types::Fd(bench.listener.as_raw_fd());
        let entry = opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut()).build();
        Ok(vec![client, bench.made_by_ring(&entry)?])
    }),
];

/// Every way to release one.
pub const RELEASING: [Way<Release>; 7] = [
    way("close", |_, fd| {
        drop(fd);
        Ok(())
    }),
    way("close_range", |_, fd| {
        let number = fd.into_raw_fd();
        // SAFETY: the one descriptor in the range was just given up by its owner.
        let result = unsafe { libc::syscall(libc::SYS_close_range, number, number, 0) };
        ensure!(result == 0, "close_range: {}", std::io::Error::last_os_error());
        Ok(())
    }),
    // The replacement is closed at once when its new owner is dropped: the number must be free afterwards.
    way("dup2 over it", |bench, mut fd| Ok(dup2(&bench.file, &mut fd)?)),
    way("dup3 over it", |bench, mut fd| Ok(dup3(&bench.file, &mut fd, DupFlags::CLOEXEC)?)),
    way("dup2 of itself over it", |_, mut fd| {
        let same = dup(&fd)?;
        Ok(dup2(&same, &mut fd)?)
    }),
    ring_way("io_uring close", |bench, fd| {
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
        bench.done_by_ring(&entry).map(drop)
    }),
    ring_way("io_uring close, by a worker", |bench, fd| {
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
        bench.done_by_ring(&entry.flags(squeue::Flags::ASYNC)).map(drop)
    }),
];

impl Workbench {
    /// Makes what the ways need.
    pub fn new() -> Result<Workbench> {
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The kernel chooses a free abstract name, which is in no directory.
        bind(&listener, &SocketAddrUnix::new_unnamed()).context("binding a socket without a name")?;
        listen(&listener, 8)?;
        Ok(Workbench {
            ring: IoUring::new(4).ok(),
            file: openat(rustix::fs::CWD, NULL, OFlags::CLOEXEC, Mode::empty())
                .context("opening /dev/null")?,
            listener,
            pair: stream_pair()?.into(),
        })
    }

    /// Whether io_uring is allowed here.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Closes a socket while a ring's receive waits on it: the descriptor goes, the file stays. Calls `before` with the
    /// number before the closing and `between` after it, and then ends the wait.
    pub fn close_while_in_use(&mut self, before: impl FnOnce(i32), between: impl FnOnce(i32)) -> Result<()> {
        let [socket, peer] = stream_pair()?;
        let mut byte = [0_u8; 1];
        let number = socket.as_raw_fd();
        let entry = opcode::Recv::new(types::Fd(number), byte.as_mut_ptr(), 1).build();
        let ring = self.ring.as_mut().context("io_uring is not allowed here")?;
        // SAFETY: `byte` lives until the completion is taken below.
        unsafe { ring.submission().push(&entry) }.context("the ring is full")?;
        ring.submit()?;
        before(number);
        drop(socket);
        between(number);
        drop(peer);
        ring.submit_and_wait(1)?;
        ring.completion().next().map(drop).context("the wait did not end")
    }

    /// Closes a descriptor and opens another file under its number, in one chain of the ring.
    pub fn replace_by_ring(&mut self, fd: OwnedFd) -> Result<OwnedFd> {
        let number = fd.into_raw_fd();
        let close = opcode::Close::new(types::Fd(number)).build().flags(squeue::Flags::IO_LINK);
        let directory = types::Fd(self.file.as_raw_fd());
        let open = opcode::OpenAt::new(directory, NULL.as_ptr()).flags(libc::O_CLOEXEC).build();
        let ring = self.ring.as_mut().context("io_uring is not allowed here")?;
        // SAFETY: the path is static.
        unsafe { ring.submission().push_multiple(&[close, open]) }.context("the ring is full")?;
        ring.submit_and_wait(2)?;
        let results: Vec<i32> = ring.completion().map(|entry| entry.result()).collect();
        match results[..] {
            // SAFETY: the kernel just made it for us.
            [0, opened] if opened >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(opened) }),
            _ => bail!("close and openat ended with {results:?}"),
        }
    }

    /// Registers a file with the ring and closes its descriptor: a "fixed" descriptor remains, which is in no table.
    pub fn register(&mut self, fd: OwnedFd) -> Result<()> {
        let ring = self.ring.as_ref().context("io_uring is not allowed here")?;
        ring.submitter().register_files(&[fd.as_raw_fd()]).context("registering a file")
    }

    /// Undoes [`Workbench::register`].
    pub fn unregister(&mut self) -> Result<()> {
        let ring = self.ring.as_ref().context("io_uring is not allowed here")?;
        ring.submitter().unregister_files().context("unregistering files")
    }

    /// Runs `act` on a thread with a descriptor table of its own, as `unshare(CLONE_FILES)` makes one.
    pub fn in_a_table_of_its_own(act: impl FnOnce() + Send) -> Result<()> {
        let thread = || -> rustix::io::Result<()> {
            // SAFETY: this thread owns no descriptor that another would close, and ends at once.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }?;
            act();
            Ok(())
        };
        let ended = std::thread::scope(|scope| scope.spawn(thread).join());
        ended.map_err(|_| anyhow::anyhow!("the thread panicked"))?.context("making a table of its own")
    }

    fn connected(&self) -> Result<OwnedFd> {
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&client, &getsockname(&self.listener)?).context("connecting to a socket of our own")?;
        Ok(client)
    }

    fn received(&self) -> Result<OwnedFd> {
        let sent = [self.file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(control.push(SendAncillaryMessage::ScmRights(&sent)), "no room for one descriptor");
        sendmsg(&self.pair.0, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&self.pair.1, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                return fds.next().context("a message without a descriptor");
            }
        }
        bail!("no descriptor came")
    }

    fn made_by_ring(&mut self, entry: &squeue::Entry) -> Result<OwnedFd> {
        let number = self.done_by_ring(entry)?;
        // SAFETY: the kernel just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn done_by_ring(&mut self, entry: &squeue::Entry) -> Result<i32> {
        let ring = self.ring.as_mut().context("io_uring is not allowed here")?;
        // SAFETY: what the entry points to lives in the caller until this function returns, and the operation ends
        // before that.
        unsafe { ring.submission().push(entry) }.context("the ring is full")?;
        ring.submit_and_wait(1)?;
        let done: cqueue::Entry = ring.completion().next().context("no completion came")?;
        match done.result() {
            error if error < 0 => Err(std::io::Error::from_raw_os_error(-error).into()),
            result => Ok(result),
        }
    }
}

fn one(fd: OwnedFd) -> Result<Vec<OwnedFd>> {
    Ok(vec![fd])
}

fn stream_pair() -> Result<[OwnedFd; 2]> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?.into())
}
