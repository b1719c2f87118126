//! One request to the Engine, on the calling thread and with bounds: for commands that look around (`doctor`,
//! `quickstart`). The agent itself asks over the ring (shell/http.rs).

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::limits::ANSWER_BYTES_MAX;

/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body of an answer with status 200.
///
/// # Errors
/// When nobody listens, access is denied, the answer is not complete in time, or its status is not 200.
pub fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    // A plain connect to a socket with a full queue waits for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?)?;
    let mut connection = UnixStream::from(connection);
    connection.set_nonblocking(false)?;
    connection.set_write_timeout(Some(PATIENCE))?;
    // In HTTP/1.0 the answer has no chunks and ends with the connection.
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
    let answer = read_all(&mut connection)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = end.map_or((&*answer, &b""[..]), |at| (&answer[..at], &answer[at + 4..]));
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    match (head.starts_with(b"HTTP/1."), status) {
        (true, b"200") => Ok(body.to_vec()),
        (true, status) => {
            Err(io::Error::other(format!("{path} was answered {}", String::from_utf8_lossy(status))))
        }
        _ => Err(io::Error::other("what answers is not a Docker Engine")),
    }
}

/// The deadline is for the whole answer, so that a peer that sends a byte a second can't hold us up.
fn read_all(connection: &mut UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let late = || {
        let text = format!("no whole answer within {} s", PATIENCE.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    let mut answer = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        connection.set_read_timeout(Some(left))?;
        match connection.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(bytes) => answer.extend_from_slice(&part[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is larger than this command accepts"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The result of a request to a peer that answers with these bytes. The peer keeps the connection until the request
    /// is over.
    fn asked(answer: &'static [u8], hangs: bool) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            let peer = scope.spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                let mut question = [0; 128];
                let bytes = connection.read(&mut question).unwrap();
                connection.write_all(answer).unwrap();
                if hangs {
                    // Ends when the client has given up.
                    let _ = connection.read(&mut question);
                }
                question[..bytes].to_vec()
            });
            let got = get(&socket, "/_ping").map_err(|error| error.to_string());
            assert!(peer.join().unwrap().starts_with(b"GET /_ping HTTP/1.0\r\n"));
            got
        })
    }

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(asked(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nOK", false), Ok(b"OK".to_vec()));
        assert!(asked(b"HTTP/1.0 503 X\r\n\r\n", false).unwrap_err().contains("answered 503"));
        assert!(asked(b"SSH-2.0\r\n", false).unwrap_err().contains("not a Docker Engine"));
        assert!(asked(b"", false).unwrap_err().contains("not a Docker Engine"));
        assert!(asked(b"HTTP/1.0 200 OK\r\n\r\nO", true).unwrap_err().contains("within 2 s"));
    }

    #[test]
    fn nobody_there_is_said() {
        let error = get(Path::new("/nonexistent/docker.sock"), "/_ping").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
