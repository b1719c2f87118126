//! A workbench for the shell alone: a test gives the core's orders, a peer and a log on disk behave as told, and the
//! results are the core's events. One bench has the real shell and ring ([`RealBench`]), one the simulated ones
//! ([`crate::world::bench::SimBench`]), so that a case shows that both keep the same promises.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use capturer::testing::{Action, Claimed, Claims, Event, Files, FilesAnswer, Owner, Settings, Shell};
use rustix::fs::inotify::CreateFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::wait::PATIENCE;

/// Path of an answer that the peer gives and fills as told.
pub const STREAM_PATH: &str = capturer::testing::docker::EVENTS;
/// Path that the peer answers with 404 and [`REFUSAL`].
pub const UNKNOWN_PATH: &str = "/containers/unknown/json";
/// The body of that answer.
pub const REFUSAL: &[u8] = br#"{"message":"No such container"}"#;

/// What the peer can be told to do.
#[derive(Debug)]
pub enum Deed {
    /// Sends a part of its answer's body.
    Send(Vec<u8>),
    /// Ends the answer as HTTP has it.
    End,
    /// Ends the connection within the answer.
    Break,
    /// Answers nobody who connects from now on.
    Freeze,
    /// Can't be connected to from now on.
    Die,
}

/// The live file of the bench's log.
pub const LIVE_NAME: &str = "c-json.log";

/// What happens to the bench's log, a live file with rotated siblings `.1`, `.2` …
#[derive(Debug)]
pub enum DiskDeed {
    /// A file of the chain is written to at its end, the live one (0) or a rotated one. The live one is made if it is not there.
    Append(u32, Vec<u8>),
    /// As dockerd rotates: each file gets the next number, from the oldest on; then there is a new, empty live file.
    Rotate,
    /// A file of the chain becomes an archive: `.N.gz` is made, then `.N` is removed.
    Pack(u32),
    /// A file of the chain is removed.
    Remove(u32),
}

/// A bench; see the head of this file.
#[allow(async_fn_in_trait, reason = "used on one thread, by functions that are generic over it")]
pub trait Bench {
    /// An order of the core.
    fn order(&mut self, action: Action);
    /// The peer does something, to the connection opened last.
    fn peer(&mut self, deed: Deed);
    /// Something happens to the log.
    fn disk(&mut self, deed: DiskDeed);
    /// The log's directory.
    fn directory(&self) -> String;
    /// The next event; nothing if no operation is running and none comes for a while.
    async fn event(&mut self) -> Option<Event>;
    /// The next event, which inotify must cause: no operation need be running.
    async fn told(&mut self) -> Option<Event>;
}

/// How long to wait for an event that should not come.
const QUIET: Duration = Duration::from_millis(100);

/// How often the peer looks whether its connection still stands.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The real shell, on a ring, with a peer on a Unix socket.
pub struct RealBench {
    shell: Shell,
    events: VecDeque<Event>,
    answers: UnboundedReceiver<FilesAnswer>,
    /// Orders to the files threads that have no answer yet.
    asked: usize,
    /// Operations that are always under way: the read of inotify, if there is one.
    resting: usize,
    siblings: u32,
    deeds: Sender<Deed>,
    mood: Arc<Mood>,
    dir: tempfile::TempDir,
}

/// What the peer knows at once, whatever it is doing.
#[derive(Default)]
struct Mood {
    frozen: AtomicBool,
    over: AtomicBool,
}

impl RealBench {
    /// On the ring that the caller is in, without inotify. Every read gets this time-out.
    pub fn new(read_timeout: Duration) -> Result<RealBench> {
        RealBench::start(read_timeout, None, Claims::default())
    }

    /// The same with inotify.
    pub fn with_inotify(read_timeout: Duration) -> Result<RealBench> {
        let claims = Claims::default();
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let inotify = claims.hold(rustix::fs::inotify::init(flags)?, Owner::Discovery);
        RealBench::start(read_timeout, Some(Arc::new(inotify)), claims)
    }

    fn start(
        read_timeout: Duration,
        inotify: Option<Arc<Claimed<OwnedFd>>>,
        claims: Claims,
    ) -> Result<RealBench> {
        let dir = tempfile::tempdir()?;
        let (socket, data) = (socket_in(&dir), dir.path().join("data"));
        std::fs::create_dir(&data)?;
        std::fs::create_dir(log_directory_in(&dir))?;
        let (answer, answers) = unbounded_channel();
        let settings = Settings { data_dir: data, ..Settings::default() };
        let files = Files::start(inotify.clone(), &settings, None, claims.clone(), move |answered| {
            // Nobody waits for one that comes when the bench is over.
            let _ = answer.send(answered);
        })?;
        let resting = usize::from(inotify.is_some());
        let shell =
            Shell::new(&socket, read_timeout, files, inotify, Vec::new(), Duration::from_secs(1), claims)?;
        let listener = UnixListener::bind(&socket).context("binding the peer's socket")?;
        let (deeds, orders) = channel();
        let mood = Arc::<Mood>::default();
        let peer = Peer { listener, orders, mood: Arc::clone(&mood) };
        std::thread::spawn(move || peer.run());
        let events = VecDeque::new();
        Ok(RealBench { shell, events, answers, asked: 0, resting, siblings: 0, deeds, mood, dir })
    }

    /// Ends what is under way; the operations that are left all the same.
    pub async fn wind_up(mut self) -> u64 {
        self.shell.wind_up(PATIENCE).await
    }

    fn is_busy(&self) -> bool {
        self.asked > 0 || self.shell.operations() > self.resting
    }

    async fn event_within(&mut self, patience: Duration) -> Option<Event> {
        let deadline = tokio::time::Instant::now() + patience;
        while self.events.is_empty() {
            let next = async {
                tokio::select! {
                    events = self.shell.next() => Next::Events(events),
                    Some(answer) = self.answers.recv() => Next::Answer(answer),
                }
            };
            match tokio::time::timeout_at(deadline, next).await {
                Ok(Next::Events(events)) => self.events.extend(events),
                Ok(Next::Answer(answer)) => {
                    // What is asked of a lane about an open file was not counted: most of it goes to the ring.
                    let counted = matches!(answer, FilesAnswer::Scanned { .. } | FilesAnswer::Opened { .. });
                    self.asked -= usize::from(counted);
                    self.events.extend(self.shell.on_files(answer));
                }
                Err(_) => return None,
            }
        }
        self.events.pop_front()
    }

    fn log_file(&self, rank: u32) -> PathBuf {
        let number = if rank == 0 { String::new() } else { format!(".{rank}") };
        log_directory_in(&self.dir).join(format!("{LIVE_NAME}{number}"))
    }

    fn carry_out(&mut self, deed: DiskDeed) -> std::io::Result<()> {
        match deed {
            DiskDeed::Append(rank, bytes) => {
                let file = File::options().create(rank == 0).append(true).open(self.log_file(rank));
                file?.write_all(&bytes)
            }
            DiskDeed::Rotate => {
                for rank in (0..=self.siblings).rev() {
                    std::fs::rename(self.log_file(rank), self.log_file(rank + 1))?;
                }
                self.siblings += 1;
                File::create_new(self.log_file(0)).map(drop)
            }
            DiskDeed::Pack(rank) => {
                let (file, archive) = (self.log_file(rank), self.log_file(rank).with_added_extension("gz"));
                let mut packer =
                    flate2::write::GzEncoder::new(File::create_new(archive)?, flate2::Compression::fast());
                packer.write_all(&std::fs::read(&file)?)?;
                packer.finish()?;
                std::fs::remove_file(file)
            }
            DiskDeed::Remove(rank) => std::fs::remove_file(self.log_file(rank)),
        }
    }
}

/// What the shell or a files thread had to tell.
enum Next {
    Events(Vec<Event>),
    Answer(FilesAnswer),
}

fn log_directory_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("log")
}

fn socket_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("peer.sock")
}

impl Bench for RealBench {
    fn order(&mut self, action: Action) {
        self.asked += usize::from(matches!(action, Action::Scan { .. } | Action::OpenFile { .. }));
        self.shell.start(action);
    }

    fn peer(&mut self, deed: Deed) {
        match deed {
            Deed::Freeze => self.mood.frozen.store(true, Ordering::SeqCst),
            Deed::Die => std::fs::remove_file(socket_in(&self.dir)).expect("the peer dies once"),
            deed => self.deeds.send(deed).expect("the peer lives as long as the bench"),
        }
    }

    fn disk(&mut self, deed: DiskDeed) {
        self.carry_out(deed).expect("a folder of the bench's own");
    }

    fn directory(&self) -> String {
        log_directory_in(&self.dir).to_string_lossy().into_owned()
    }

    async fn event(&mut self) -> Option<Event> {
        let patience = if self.is_busy() { PATIENCE } else { QUIET };
        self.event_within(patience).await
    }

    async fn told(&mut self) -> Option<Event> {
        self.event_within(PATIENCE).await
    }
}

impl Drop for RealBench {
    fn drop(&mut self) {
        self.mood.over.store(true, Ordering::SeqCst);
        // Wakes the peer, if it waits for somebody to connect.
        let _ = UnixStream::connect(socket_in(&self.dir));
    }
}

/// Takes one connection after the other, each when the one before has ended.
struct Peer {
    listener: UnixListener,
    orders: Receiver<Deed>,
    mood: Arc<Mood>,
}

impl Peer {
    fn run(self) {
        let mut unanswered = Vec::new();
        while let Ok((stream, _)) = self.listener.accept() {
            if self.mood.over.load(Ordering::SeqCst) {
                return;
            }
            if self.mood.frozen.load(Ordering::SeqCst) {
                unanswered.push(stream);
            } else {
                // A connection that the agent closed first is no failure.
                let _ = self.serve(stream);
            }
        }
    }

    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if !head.starts_with(format!("GET {STREAM_PATH} ").as_bytes()) {
            write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n", REFUSAL.len())?;
            return stream.write_all(REFUSAL);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            // An empty chunk is the last one.
            let bytes = match self.orders.recv_timeout(LOOK_EVERY) {
                Ok(Deed::Send(bytes)) => bytes,
                Ok(Deed::End) => Vec::new(),
                // An opening that ended by its timer: what is ordered is for the next.
                Err(RecvTimeoutError::Timeout) if is_open(&stream) => continue,
                _ => return Ok(()),
            };
            let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
            stream.write_all(&chunk)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }
}

/// The other side has not closed it. It sends nothing after its request.
fn is_open(stream: &UnixStream) -> bool {
    let mut byte = [0];
    rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
}
