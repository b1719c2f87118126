//! A small Docker Engine on a unix socket, for faults that the real one can't be made to show: names that no Engine
//! would give, answers cut anywhere, a daemon that accepts and never answers.
//!
//! ```text
//! connection ─▶ GET path ─▶ scripted for this path? ─▶ those bytes, then hold or close
//!                               └ no ─▶ a well-behaved Engine with the containers that were added
//! ```
//! A thread accepts, and each connection has one of its own; all end with the [`FakeDocker`]. Nothing of the agent is
//! used here, so a mistake in its reading of the API does not show up on both sides.
//!
//! Not here: an Engine that behaves. `engine` has the real ones, `world` a simulated one for the core alone.

mod answering;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::sweep::{FOLDER_PREFIXES, folder_prefix};
use answering::Answering;

/// How often a waiting connection checks whether its client left or the fake ended.
const LOOK: Duration = Duration::from_millis(10);
/// 2026-11-22T00:52:48Z; the first line printed has this time.
const FIRST_LINE_S: u64 = 1_795_308_768;

/// A part of a scripted answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// These bytes, as they are.
    Bytes(Vec<u8>),
    /// These bytes again and again until the client leaves.
    Endless(Vec<u8>),
    /// These bytes one by one, with a pause after each.
    Trickle(Vec<u8>, Duration),
    /// Nothing for so long: what comes next is another read's.
    Pause(Duration),
    /// Nothing more, but the connection stays until the client leaves.
    Hold,
}

/// What a path answers with: its parts in order, then the connection is closed.
#[derive(Clone, Debug, Default)]
pub struct Reply(Vec<Part>);

impl Reply {
    /// These bytes instead of HTTP.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
        Reply(vec![Part::Bytes(bytes.into())])
    }

    /// A whole answer with this status.
    pub fn status(status: u16, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Reply::raw([head.as_bytes(), body].concat())
    }

    /// 200 with this JSON.
    pub fn json(value: &Value) -> Reply {
        Reply::status(200, value.to_string())
    }

    /// 200 with a chunked body, without its last chunk.
    pub fn chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Reply {
        let mut bytes = HEAD_CHUNKED.to_vec();
        chunks.into_iter().for_each(|chunk| push_chunk(&mut bytes, chunk));
        Reply::raw(bytes)
    }

    /// Nothing, ever.
    pub fn silence() -> Reply {
        Reply(vec![Part::Hold])
    }

    /// Then this.
    pub fn then(mut self, part: Part) -> Reply {
        self.0.push(part);
        self
    }

    /// Then the last chunk.
    pub fn last_chunk(self) -> Reply {
        self.then(Part::Bytes(LAST_CHUNK.to_vec()))
    }
}

/// Head of a chunked answer.
pub const HEAD_CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
/// The clean end of one.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends one chunk; an empty one would be the last, so it is left out.
pub fn push_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    if !chunk.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
}

/// A stdcopy frame: type, three zeros, length.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame of under 4 GiB");
    [&[kind, 0, 0, 0][..], &length.to_be_bytes(), payload].concat()
}

/// A line as the Engine sends it with `timestamps=1`; `number` makes its time, a millisecond for each.
pub fn timed(number: u64, text: &[u8]) -> Vec<u8> {
    timed_at(time(number), text)
}

fn time(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_LINE_S) + Duration::from_millis(number)
}

fn timed_at(at: SystemTime, text: &[u8]) -> Vec<u8> {
    [humantime::format_rfc3339_nanos(at).to_string().as_bytes(), b" ", text, b"\n"].concat()
}

/// A container.
#[derive(Clone, Debug)]
struct Container {
    name: String,
    tty: bool,
    listed: bool,
    /// As the list has it.
    state: &'static str,
    log: Vec<Line>,
    /// So many lines of it, the oldest, can't be read.
    damaged: usize,
}

#[derive(Clone, Debug)]
struct Line {
    at_ns: u128,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, Container>,
    scripted: BTreeMap<String, VecDeque<Reply>>,
    asked: BTreeMap<String, usize>,
    lines: u64,
    silent: bool,
    /// Connections that began when this was lower are broken off.
    breaks: u64,
    ended: bool,
    threads: Vec<JoinHandle<()>>,
}

impl State {
    fn next_scripted(&mut self, path: &str) -> Option<Reply> {
        let replies = self.scripted.get_mut(path)?;
        if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
    }

    fn print(&mut self, id: &str, text: &[u8], at: SystemTime) {
        let container = self.containers.get_mut(id).expect("a container that was added");
        let line = timed_at(at, text);
        let bytes = if container.tty { line } else { frame(1, &line) };
        let at_ns = at.duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_nanos();
        container.log.push(Line { at_ns, bytes });
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake; see the head of this file.
pub struct FakeDocker {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeDocker {
    /// One without containers.
    pub fn start() -> Result<FakeDocker> {
        let dir = tempfile::Builder::new().prefix(&folder_prefix(FOLDER_PREFIXES[1])).tempdir()?;
        let listener =
            UnixListener::bind(dir.path().join("docker.sock")).context("binding the fake's socket")?;
        let shared = Arc::<Shared>::default();
        let accepted = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &accepted));
        Ok(FakeDocker { dir, shared, accepting: Some(accepting) })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Adds a running container without a TTY and returns its ID.
    pub fn add(&self, name: &str) -> String {
        self.add_with(name, false)
    }

    /// Adds a running container with or without a TTY and returns its ID.
    pub fn add_with(&self, name: &str, tty: bool) -> String {
        let id = self.add_hidden(name, tty);
        self.show(&id);
        id
    }

    /// Adds a container that no list names before [`FakeDocker::show`]: so that its paths can be scripted first.
    pub fn add_hidden(&self, name: &str, tty: bool) -> String {
        let mut state = self.shared.lock();
        let id = format!("fa{:06x}{}", state.containers.len(), "0".repeat(56));
        let container = Container {
            name: name.to_owned(),
            tty,
            listed: false,
            state: "running",
            log: Vec::new(),
            damaged: 0,
        };
        state.containers.insert(id.clone(), container);
        id
    }

    /// The list names it from now on.
    pub fn show(&self, id: &str) {
        self.shared.lock().containers.get_mut(id).expect("a container that was added").listed = true;
    }

    /// Removes it: the list no longer names it, and whoever asks for it is told that there is none.
    pub fn remove(&self, id: &str) {
        for path in [inspect_path(id), logs_path(id)] {
            self.script(&path, Reply::status(404, r#"{"message":"No such container"}"#));
        }
        self.shared.lock().containers.get_mut(id).expect("a container that was added").listed = false;
    }

    /// The list says this of its state from now on, so that it is inspected once more.
    pub fn set_state(&self, id: &str, state: &'static str) {
        self.shared.lock().containers.get_mut(id).expect("a container that was added").state = state;
    }

    /// Adds a container that does not behave: this path of it answers with this from the beginning.
    pub fn add_scripted(&self, name: &str, path: fn(&str) -> String, reply: &Reply) -> String {
        let id = self.add_hidden(name, false);
        self.script(&path(&id), reply.clone());
        self.show(&id);
        id
    }

    /// Breaks every connection off that is open now.
    pub fn break_connections(&self) {
        self.shared.lock().breaks += 1;
        self.shared.changed.notify_all();
    }

    /// The container prints a line on stdout, a millisecond after the one before of any container.
    pub fn print(&self, id: &str, text: &[u8]) {
        let mut state = self.shared.lock();
        state.lines += 1;
        let at = time(state.lines);
        state.print(id, text, at);
        self.shared.changed.notify_all();
    }

    /// The same, now.
    pub fn print_now(&self, id: &str, text: &[u8]) {
        self.shared.lock().print(id, text, SystemTime::now());
        self.shared.changed.notify_all();
    }

    /// The same, at this time.
    pub fn print_at(&self, id: &str, text: &[u8], at: SystemTime) {
        self.shared.lock().print(id, text, at);
        self.shared.changed.notify_all();
    }

    /// What it printed until now can't be read: an answer that would begin there has only the daemon's error.
    pub fn damage(&self, id: &str) {
        let mut state = self.shared.lock();
        let container = state.containers.get_mut(id).expect("a container that was added");
        container.damaged = container.log.len();
    }

    /// From now on this path (without its query) answers with this.
    pub fn script(&self, path: &str, reply: Reply) {
        self.script_each(path, [reply]);
    }

    /// From now on this path answers with each of these once, and with the last for ever.
    pub fn script_each(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().scripted.insert(path.to_owned(), replies.into_iter().collect());
    }

    /// This path behaves again.
    pub fn heal(&self, path: &str) {
        self.shared.lock().scripted.remove(path);
    }

    /// While silent it accepts, reads the request, and never answers; what is open stays so and brings
    /// nothing meanwhile.
    pub fn set_silent(&self, silent: bool) {
        self.shared.lock().silent = silent;
        self.shared.changed.notify_all();
    }

    /// How often this path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.shared.lock().asked.get(path).copied().unwrap_or(0)
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // Wakes the accept.
        let _ = UnixStream::connect(self.socket());
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let threads = std::mem::take(&mut self.shared.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Paths of one container.
pub fn inspect_path(id: &str) -> String {
    format!("/containers/{id}/json")
}

/// See [`inspect_path`].
pub fn logs_path(id: &str) -> String {
    format!("/containers/{id}/logs")
}

/// What a well-behaved Engine says of a container; the base of what a hostile one says.
pub fn inspection(id: &str, name: &str, tty: bool) -> Value {
    json!({
        "Id": id,
        "Name": format!("/{name}"),
        "LogPath": "",
        "State": {"Running": true, "FinishedAt": "0001-01-01T00:00:00Z"},
        "Config": {"Tty": tty, "Image": "fake:1", "Labels": {}},
        "HostConfig": {"LogConfig": {"Type": "journald"}},
    })
}

/// For the socket in a config.
pub fn socket_setting(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let mut state = shared.lock();
        if state.ended {
            return;
        }
        let Ok(client) = client else { continue };
        let mine = Arc::clone(shared);
        state.threads.retain(|thread| !thread.is_finished());
        let began_at = state.breaks;
        state.threads.push(std::thread::spawn(move || {
            // An error only means that the client has gone.
            let _ = Answering { client, began_at, shared: mine }.serve();
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn ask(fake: &FakeDocker, target: &str) -> String {
        let mut client = UnixStream::connect(fake.socket()).unwrap();
        write!(client, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Otherwise the tests could pass without a working Engine.
    #[test]
    fn it_behaves_unless_told_otherwise() {
        let fake = FakeDocker::start().unwrap();
        let id = fake.add("web");
        for text in ["one", "two", "three"] {
            fake.print(&id, text.as_bytes());
        }
        assert!(ask(&fake, "/_ping").ends_with("OK"));
        assert!(ask(&fake, "/containers/json?all=1").contains(&id));
        assert!(ask(&fake, &inspect_path(&id)).contains("\"/web\""));
        assert!(ask(&fake, &inspect_path("x")).starts_with("HTTP/1.1 404"));
        let logs = |query: &str| ask(&fake, &format!("{}?{query}", logs_path(&id)));
        let all = logs("follow=0");
        assert!(all.contains(":48.001000000Z one\n") && all.ends_with(" three\n\r\n0\r\n\r\n"), "{all}");
        let two = logs("follow=0&tail=2");
        assert!(!two.contains("one") && two.contains("two"), "{two}");
        let last = logs("follow=0&since=1795308768.003000000");
        assert!(!last.contains("two") && last.contains("three"), "{last}");
        fake.script("/_ping", Reply::status(500, "no"));
        assert!(ask(&fake, "/_ping").starts_with("HTTP/1.1 500"));
        fake.heal("/_ping");
        assert!(ask(&fake, "/_ping").ends_with("OK"));
        assert_eq!(fake.asked("/_ping"), 3);
    }
}
