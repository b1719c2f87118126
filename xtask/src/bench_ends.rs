//! The two servers of `bench_loads.rs`, on loopback and as cheap as possible, so that they are not what is measured.
//!
//! - [`Loki`] accepts every push, protobuf or JSON, keeps its body and answers 204. Bodies are only parsed when the
//!   agent is done, or when somebody asks how many lines another program has sent.
//! - [`Engine`] lists containers endlessly, and sends each one's log as dockerd does: a chunk for each line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bench_latency::Arrival;
use crate::bench_lines::Lines;

/// The longest head of a push or of a request for a log.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How often an idle Engine checks whether the run is over.
const LOOK: Duration = Duration::from_millis(100);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head of a request, and the length of its body.
fn head(from: &mut impl io::BufRead) -> io::Result<Option<(String, usize)>> {
    let (mut text, mut len) = (String::new(), 0);
    loop {
        let before = text.len();
        if from.take(HEAD_BYTES_MAX as u64).read_line(&mut text)? == 0 {
            return Ok(None);
        }
        let line = text[before..].trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.is_empty() {
            return Ok(Some((text, len)));
        }
    }
}

// ---- Loki

/// A Loki that accepts everything; see the head of this file.
pub struct Loki {
    address: SocketAddr,
    pushes: Arc<Mutex<Vec<Push>>>,
    /// How many pushes have been counted, and how many lines were in them.
    counted: Mutex<(usize, u64)>,
}

/// One push, with the time of its arrival.
struct Push {
    came: Instant,
    is_json: bool,
    body: Vec<u8>,
}

impl Push {
    fn read(&self, lines: &mut Lines) -> Result<()> {
        if self.is_json {
            return read_json_push(&self.body, lines).context("a body that is no push in JSON");
        }
        let plain =
            snap::raw::Decoder::new().decompress_vec(&self.body).context("a body that is not snappy")?;
        read_push(&plain, lines).context("a body that is no push")
    }
}

impl Loki {
    /// Accepts pushes until the process ends.
    pub fn start() -> Result<Loki> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let pushes = Arc::<Mutex<Vec<Push>>>::default();
        let kept = Arc::clone(&pushes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // An error only means that the agent has gone.
                std::thread::spawn(move || take_pushes(client, &kept));
            }
        });
        Ok(Loki { address, pushes, counted: Mutex::default() })
    }

    /// Its address, for the config.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes so far.
    pub fn requests(&self) -> usize {
        locked(&self.pushes).len()
    }

    /// Lines so far. Each body is parsed once.
    pub fn count_lines(&self) -> Result<u64> {
        let mut counted = locked(&self.counted);
        let mut lines = Lines::new();
        for push in &locked(&self.pushes)[counted.0..] {
            push.read(&mut lines)?;
            counted.0 += 1;
        }
        counted.1 += lines.values().map(|lines| lines.len() as u64).sum::<u64>();
        Ok(counted.1)
    }

    /// When each line arrived that names its source and number.
    pub fn arrivals(&self) -> Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        for push in locked(&self.pushes).iter() {
            let mut lines = Lines::new();
            push.read(&mut lines)?;
            for line in lines.values().flatten() {
                let mut words = line.split(' ');
                let n = words.next().and_then(|n| n.parse().ok());
                let source = words.next().and_then(|source| source.strip_prefix('c')?.parse().ok());
                arrivals.extend(n.zip(source).map(|(n, source)| Arrival { source, n, at: push.came }));
            }
        }
        Ok(arrivals)
    }

    /// All lines that arrived, by label set and in their order.
    pub fn lines(&self) -> Result<Lines> {
        let mut lines = Lines::new();
        for push in locked(&self.pushes).iter() {
            push.read(&mut lines)?;
        }
        Ok(lines)
    }
}

fn take_pushes(client: TcpStream, kept: &Mutex<Vec<Push>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from = BufReader::with_capacity(256 * 1024, client.try_clone()?);
    let mut to = client;
    while let Some((head, len)) = head(&mut from)? {
        let is_json = head.to_ascii_lowercase().contains("application/json");
        let mut body = vec![0; len];
        from.read_exact(&mut body)?;
        // An empty push has nothing after its length.
        if body.len() <= 1 {
            let words = "error at least one valid stream is required for ingestion\n";
            write!(to, "HTTP/1.1 422 X\r\nContent-Length: {}\r\n\r\n{words}", words.len())?;
            continue;
        }
        locked(kept).push(Push { came: Instant::now(), is_json, body });
        to.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field: its number, and its bytes if it has a length.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(bytes)?;
    let value = varint(bytes)?;
    if tag & 7 != 2 {
        return Some((tag >> 3, &[]));
    }
    let (field, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
    *bytes = rest;
    Some((tag >> 3, field))
}

/// `{"streams":[{"stream":{…},"values":[["<ns>","<line>"],…]},…]}`, labels as protobuf has them.
fn read_json_push(push: &[u8], lines: &mut Lines) -> Option<()> {
    let push: Value = serde_json::from_slice(push).ok()?;
    for stream in push["streams"].as_array()? {
        let labels: BTreeMap<&String, &Value> = stream["stream"].as_object()?.iter().collect();
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let known = lines.entry(format!("{{{}}}", labels.join(", "))).or_default();
        for value in stream["values"].as_array()? {
            known.push(value[1].as_str()?.to_owned());
        }
    }
    Some(())
}

fn read_push(mut push: &[u8], lines: &mut Lines) -> Option<()> {
    while !push.is_empty() {
        let (_, mut stream) = field(&mut push)?;
        let mut labels = "";
        while !stream.is_empty() {
            match field(&mut stream)? {
                (1, text) => labels = std::str::from_utf8(text).ok()?,
                (2, mut entry) => {
                    while !entry.is_empty() {
                        if let (2, line) = field(&mut entry)? {
                            let line = std::str::from_utf8(line).ok()?.to_owned();
                            match lines.get_mut(labels) {
                                Some(known) => known.push(line),
                                None => drop(lines.insert(labels.to_owned(), vec![line])),
                            }
                        }
                    }
                }
                _ => return None,
            }
        }
    }
    Some(())
}

// ---- the Engine

/// What the containers have printed.
#[derive(Default)]
struct Printed {
    logs: Mutex<Vec<Log>>,
    changed: Condvar,
    over: AtomicBool,
}

/// The part of a container's log that was not sent yet.
#[derive(Clone, Default)]
struct Log {
    bytes: Vec<u8>,
    /// The offsets at which chunks end.
    ends: Vec<usize>,
}

/// A Docker Engine that only has logs; see the head of this file.
pub struct Engine {
    socket: PathBuf,
    printed: Arc<Printed>,
}

impl Engine {
    /// An Engine with this many running containers, whose json-files are in `home`.
    pub fn start(home: &Path, containers: usize) -> Result<Engine> {
        let socket = home.join("docker.sock");
        let listener = UnixListener::bind(&socket)?;
        let printed =
            Arc::new(Printed { logs: Mutex::new(vec![Log::default(); containers]), ..Printed::default() });
        for number in 0..containers {
            let log = log_of(home, number);
            fs::create_dir_all(log.parent().context("a log in a directory")?)?;
            // The agent checks whether this file was rotated, but does not read it.
            fs::write(
                log,
                "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:00:00.000000001Z\"}\n",
            )?;
        }
        let (shared, home) = (Arc::clone(&printed), home.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, home) = (Arc::clone(&shared), home.clone());
                // An error only means that the agent has gone.
                std::thread::spawn(move || answer(client, &home, &shared));
            }
        });
        Ok(Engine { socket, printed })
    }

    /// Its socket, for the config.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A container prints these lines (text and time).
    pub fn print<'a>(&self, container: usize, lines: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut logs = locked(&self.printed.logs);
        for (time, text) in lines {
            let payload = time.len() + 1 + text.len() + 1;
            let Log { bytes, ends } = &mut logs[container];
            let _ = write!(bytes, "{:x}\r\n", payload + 8);
            bytes.extend_from_slice(&[1, 0, 0, 0]);
            bytes.extend_from_slice(&(payload as u32).to_be_bytes());
            let _ = write!(bytes, "{time} {text}\n\r\n");
            ends.push(bytes.len());
        }
        drop(logs);
        self.printed.changed.notify_all();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.printed.over.store(true, Ordering::Relaxed);
        self.printed.changed.notify_all();
    }
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn log_of(home: &Path, number: usize) -> PathBuf {
    let id = id(number);
    home.join("containers").join(&id).join(format!("{id}-json.log"))
}

fn answer(mut client: UnixStream, home: &Path, printed: &Printed) -> io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let Some((head, _)) = head(&mut from)? else { return Ok(()) };
    let path = head.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or_default();
    let containers = locked(&printed.logs).len();
    let of_container = path.strip_prefix("/containers/").and_then(|rest| rest.split_once('/'));
    let body = match (path, of_container) {
        ("/_ping", _) => "OK".to_owned(),
        ("/events", _) => {
            client.write_all(CHUNKED)?;
            while !printed.over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            return Ok(());
        }
        ("/containers/json", _) => {
            let rows = (0..containers).map(|number| json!({"Id": id(number), "State": "running"}));
            Value::from_iter(rows).to_string()
        }
        (_, Some((id, what))) => {
            let number = usize::from_str_radix(id, 16).map_err(io::Error::other)?;
            if what == "logs" {
                return follow(client, number, printed);
            }
            let log = log_of(home, number);
            json!({
                "Id": id, "Name": format!("/c{number}"), "LogPath": log,
                "State": {"Running": true, "FinishedAt": "0001-01-01T00:00:00Z"},
                "Config": {"Tty": false, "Image": "bench:1", "Labels": {}},
                "HostConfig": {"LogConfig": {"Type": "json-file"}},
            })
            .to_string()
        }
        _ => {
            let words = "{\"message\":\"page not found\"}";
            return write!(client, "HTTP/1.1 404 X\r\nContent-Length: {}\r\n\r\n{words}", words.len());
        }
    };
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn follow(mut client: UnixStream, number: usize, printed: &Printed) -> io::Result<()> {
    client.write_all(CHUNKED)?;
    loop {
        let Log { bytes, ends } = {
            let mut logs = locked(&printed.logs);
            let until = Instant::now() + LOOK;
            while logs[number].ends.is_empty() && Instant::now() < until {
                let waited = printed.changed.wait_timeout(logs, LOOK);
                logs = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::take(&mut logs[number])
        };
        if printed.over.load(Ordering::Relaxed) {
            return Ok(());
        }
        // dockerd writes each line by itself.
        let mut at = 0;
        for end in ends {
            client.write_all(&bytes[at..end])?;
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other programs push JSON. An uncounted line would look like one that they lost.
    #[test]
    fn a_push_in_json_is_read() {
        let loki = Loki::start().unwrap();
        let body = r#"{"streams":[{"stream":{"path":"/in/c7.log","job":"bench"},"values":[["1","a"],["2","3 c7 b"]]}]}"#;
        let mut client = TcpStream::connect(loki.address()).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + body).as_bytes()).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        let expected = Lines::from([(
            r#"{job="bench", path="/in/c7.log"}"#.to_owned(),
            vec!["a".to_owned(), "3 c7 b".to_owned()],
        )]);
        assert_eq!((loki.lines().unwrap(), loki.count_lines().unwrap()), (expected, 2));
        assert_eq!(loki.count_lines().unwrap(), 2, "each once");
        let came: Vec<(usize, u64)> =
            loki.arrivals().unwrap().iter().map(|arrival| (arrival.source, arrival.n)).collect();
        assert_eq!(came, [(7, 3)], "of lines that are no load's nothing is known");
    }
}
