//! A workbench for the shell alone: a test gives the orders that the core would give, a peer behaves as told, and what
//! comes of it are the core's events. Once with the real shell and ring ([`RealBench`]), once with the simulated one
//! ([`crate::world::bench::SimBench`]), so that a case shows that both keep the same promises.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use capturer::capture::io::{Action, Event};
use capturer::files::Files;
use capturer::ledger::claims::Claims;
use capturer::shell::Shell;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::wait::PATIENCE;

/// Path of an answer that the peer gives and fills as told.
pub const STREAM_PATH: &str = capturer::docker::EVENTS;
/// Path that the peer answers with 404 and [`REFUSAL`].
pub const UNKNOWN_PATH: &str = "/containers/unknown/json";
/// The body of that answer.
pub const REFUSAL: &[u8] = br#"{"message":"No such container"}"#;

/// What the peer does.
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

/// See the module's head.
#[allow(async_fn_in_trait, reason = "used on one thread, by functions that are generic over it")]
pub trait Bench {
    /// An order of the core.
    fn order(&mut self, action: Action);
    /// The peer does something, to the connection opened last.
    fn peer(&mut self, deed: Deed);
    /// The next event; nothing if none comes for a while.
    async fn event(&mut self) -> Option<Event>;
}

/// So long it is waited for what should not come.
const QUIET: Duration = Duration::from_millis(100);

/// How often the peer looks whether its connection still stands.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The real shell, on a ring, with a peer on a Unix socket.
pub struct RealBench {
    shell: Shell,
    events: VecDeque<Event>,
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
    /// On the ring that the caller is in. Every read gets this time-out.
    pub fn new(read_timeout: Duration) -> Result<RealBench> {
        let dir = tempfile::tempdir()?;
        let socket = socket_in(&dir);
        let claims = Claims::default();
        let files = Files::start(None, Vec::new(), dir.path().join("data"), claims.clone(), |_| {})?;
        let shell =
            Shell::new(&socket, read_timeout, files, None, Vec::new(), Duration::from_secs(1), claims)?;
        let listener = UnixListener::bind(&socket).context("binding the peer's socket")?;
        let (deeds, orders) = channel();
        let mood = Arc::<Mood>::default();
        let peer = Peer { listener, orders, mood: Arc::clone(&mood) };
        std::thread::spawn(move || peer.run());
        Ok(RealBench { shell, events: VecDeque::new(), deeds, mood, dir })
    }

    /// Ends what is under way; the operations that are left all the same.
    pub async fn wind_up(mut self) -> u64 {
        self.shell.wind_up(PATIENCE).await
    }
}

fn socket_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("peer.sock")
}

impl Bench for RealBench {
    fn order(&mut self, action: Action) {
        self.shell.start(action);
    }

    fn peer(&mut self, deed: Deed) {
        match deed {
            Deed::Freeze => self.mood.frozen.store(true, Ordering::SeqCst),
            Deed::Die => std::fs::remove_file(socket_in(&self.dir)).expect("the peer dies once"),
            deed => self.deeds.send(deed).expect("the peer lives as long as the bench"),
        }
    }

    async fn event(&mut self) -> Option<Event> {
        let patience = if self.shell.operations() > 0 { PATIENCE } else { QUIET };
        let deadline = tokio::time::Instant::now() + patience;
        while self.events.is_empty() {
            match tokio::time::timeout_at(deadline, self.shell.next()).await {
                Ok(events) => self.events.extend(events),
                Err(_) => return None,
            }
        }
        self.events.pop_front()
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
