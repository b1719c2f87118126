//! The HTTP client of the commands: one GET on a connection of its own, on the calling thread, and no wait without an
//! end. `agent_client.rs` asks a running agent with it, `ask.rs` an Engine.
//!
//! It asks in HTTP/1.0, so an answer has no chunks and ends with its connection. It is not hyper, which needs a runtime
//! and does not show the first bytes of a peer that speaks something else; the agent itself asks with hyper
//! (`shell/http.rs`, `sink/loki/client.rs`).

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A longer head is not HTTP.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

const QUEUE_FULL: &str = "whoever listens there accepts no connections: its queue is full";

/// How long reads of an answer may wait. When it is over, a read fails with [`io::ErrorKind::TimedOut`].
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// As long as the peer keeps the connection.
    Endless,
    /// Each read so long.
    EachRead(Duration),
    /// All reads together until then, so that a peer that sends a byte a second does not hold up the command.
    Until(Instant),
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    patience: Patience,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Connects to an address within `patience`, which each read gets too.
    pub fn tcp(address: &SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(address, patience)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { socket: Socket::Tcp(stream), patience: Patience::EachRead(patience) })
    }

    /// Connects to a Unix socket at once or not at all. `patience` is for each read.
    pub fn unix(path: &Path, patience: Duration) -> io::Result<Connection> {
        let stream = connect_unix(path)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { socket: Socket::Unix(stream), patience: Patience::EachRead(patience) })
    }

    /// How long reads may wait from now on.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }
}

/// Connects, unless the queue of the socket is full ([`io::ErrorKind::WouldBlock`]): a plain connect would then wait
/// until its server accepts somebody, and one that hangs never does.
pub fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?).map_err(|error| {
        match io::Error::from(error) {
            full if full.kind() == io::ErrorKind::WouldBlock => io::Error::new(full.kind(), QUEUE_FULL),
            error => error,
        }
    })?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wait = match self.patience {
            Patience::Endless => None,
            Patience::EachRead(wait) => Some(wait),
            Patience::Until(end) => Some(end.saturating_duration_since(Instant::now())),
        };
        // A socket takes a wait of 0 for none.
        if wait.is_some_and(|wait| wait.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let result = match &mut self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(wait).and_then(|()| stream.read(buffer)),
            Socket::Unix(stream) => stream.set_read_timeout(wait).and_then(|()| stream.read(buffer)),
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: BufReader<Connection>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The connection failed, or its peer was too slow.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer speaks TLS.
    #[error("it speaks TLS")]
    Tls,
    /// The peer speaks something else.
    #[error("it does not speak HTTP")]
    NotHttp,
}

/// Asks for `path` and reads the answer as far as its body. Each of the `headers` ends with a line break.
pub fn get(mut connection: Connection, host: &str, path: &str, headers: &str) -> Result<Answer, Failure> {
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{headers}\r\n").as_bytes())?;
    let mut body = BufReader::new(connection);
    // A TLS server answers with an alert, or with a handshake.
    if matches!(body.fill_buf()?, [0x15 | 0x16, 3, ..]) {
        return Err(Failure::Tls);
    }
    let mut head = (&mut body).take(HEAD_BYTES_MAX);
    let mut line = Vec::new();
    head.read_until(b'\n', &mut line)?;
    let status = status(&line).ok_or(Failure::NotHttp)?;
    while !line.trim_ascii_end().is_empty() {
        line.clear();
        if head.read_until(b'\n', &mut line)? == 0 {
            return Err(Failure::NotHttp);
        }
    }
    Ok(Answer { status, body })
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.trim_ascii_end().split(|byte| *byte == b' ').nth(1)?).ok()?.parse().ok()
}

impl Answer {
    /// The whole body.
    ///
    /// # Errors
    /// As the connection's; or it is longer than `bytes_max`.
    pub fn read_all(self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max {
            return Err(io::Error::other("the answer is larger than this command accepts"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Asks a peer that sends these bytes and then waits until it is left.
    fn asked(bytes: &[u8], patience: Duration) -> Result<(u16, io::Result<Vec<u8>>), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut connection = Connection::unix(&socket, patience).unwrap();
        connection.set_patience(Patience::Until(Instant::now() + patience));
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(bytes).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = get(connection, "h", "/", "A: b\r\n");
        // A client that left with bytes unread resets the connection.
        if answer.is_ok() {
            let mut question = [0; 64];
            let len = peer.read(&mut question).unwrap();
            assert_eq!(&question[..len], b"GET / HTTP/1.0\r\nHost: h\r\nA: b\r\n\r\n");
        }
        answer.map(|answer| (answer.status, answer.read_all(4)))
    }

    #[test]
    fn an_answer_has_a_status_and_a_bounded_body() {
        let asked = |bytes: &[u8]| asked(bytes, Duration::from_secs(60));
        let (status, body) = asked(b"HTTP/1.1 503 Busy\r\nA: b\r\n\r\nbody").unwrap();
        assert_eq!((status, body.unwrap()), (503, b"body".to_vec()));
        let (status, body) = asked(b"HTTP/1.0 200\n\nlonger").unwrap();
        assert!(status == 200 && body.unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn another_protocol_is_not_an_answer() {
        let asked = |bytes: &[u8]| asked(bytes, Duration::from_secs(60));
        let endless = [b"HTTP/1.0 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(20_000)].concat();
        for bytes in
            [&b""[..], b"SSH-2.0\r\n", b"HTTP/1.0 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nA: b\r\n", &endless]
        {
            assert!(matches!(asked(bytes), Err(Failure::NotHttp)));
        }
        assert!(matches!(asked(b"\x15\x03\x01\x00\x02\x02\x46"), Err(Failure::Tls)));
    }

    /// A peer that sends something now and then is not waited for longer than one that sends nothing.
    #[test]
    fn all_reads_together_have_an_end() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let end = Instant::now() + Duration::from_millis(50);
        let mut connection = Connection { socket: Socket::Unix(ours), patience: Patience::Until(end) };
        let result = loop {
            peer.write_all(b"x").unwrap();
            if let Err(error) = connection.read_exact(&mut [0]) {
                break error;
            }
        };
        assert!(result.kind() == io::ErrorKind::TimedOut && Instant::now() >= end);
        connection.set_patience(Patience::EachRead(Duration::from_millis(1)));
        while connection.read(&mut [0; 4096]).is_ok() {}
        assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// A plain connect waits here for ever.
    #[test]
    fn a_server_that_accepts_nobody_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = connect_unix(&socket).unwrap();
        assert_eq!(connect_unix(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
