//! One request to the Engine with a bound on the whole of it: for commands that look around (`doctor`, `quickstart`). The
//! agent itself asks over the ring (`shell/http.rs`).

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::commands::http::{self, Connection, Failure, Patience};
use crate::limits::ANSWER_BYTES_MAX;

/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body of an answer with status 200.
///
/// # Errors
/// When nobody listens, access is denied, the answer is not complete in time, or its status is not 200.
pub fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    get_within(PATIENCE, socket, path)
}

/// As [`get`], but with another wait.
///
/// # Errors
/// As [`get`].
pub fn get_within(patience: Duration, socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let ask = || -> Result<(u16, Vec<u8>), Failure> {
        let mut connection = Connection::unix(socket, patience)?;
        connection.set_patience(Patience::Until(Instant::now() + patience));
        let answer = http::get(connection, "docker", path, "")?;
        Ok((answer.status, answer.read_all(ANSWER_BYTES_MAX)?))
    };
    match ask() {
        Ok((200, body)) => Ok(body),
        Ok((status, _)) => Err(io::Error::other(format!("{path} was answered {status}"))),
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            let text = format!("no whole answer within {} s", patience.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        Err(Failure::Io(error)) => Err(error),
        Err(Failure::Tls | Failure::NotHttp) => Err(io::Error::other("what answers is not a Docker Engine")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
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
