//! The client against a server that misbehaves on purpose.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::*;

fn ours() -> (&'static Claims, Owner) {
    static CLAIMS: std::sync::LazyLock<Claims> = std::sync::LazyLock::new(Claims::default);
    (&CLAIMS, Owner::Discovery)
}

struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Accepts one connection, reads the request's head, and leaves the rest to `answer`.
    fn new(answer: impl FnOnce(UnixStream) + Send + 'static) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
            answer(stream);
        });
        Server { _dir: dir, path, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn run<T>(
    server: &Server,
    timeout_ms: u64,
    test: impl AsyncFnOnce(Result<(u16, Connection), RequestError>) -> T,
) -> T {
    let result = ring::start(async {
        let opened = Connection::get(
            &server.path,
            "/x",
            Duration::from_millis(timeout_ms),
            &Cancel::default(),
            ours(),
        )
        .await;
        let result = test(opened).await;
        assert_eq!(ring::operations_in_flight(), 0, "operations left in flight");
        result
    });
    result.unwrap()
}

#[test]
fn a_whole_answer() {
    let server = Server::new(|mut stream| {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    });
    run(&server, 5_000, async |opened| {
        let (status, mut connection) = opened.unwrap();
        assert_eq!((status, connection.whole_body(10, &Semaphore::new(1)).await), (404, Ok(b"abc".to_vec())));
        connection.close().await;
    });
}

/// An idle follow: its reads end by their timer, again and again, and it still delivers afterwards.
#[test]
fn ticks_then_bytes_then_a_clean_end() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let server = Server::new(move |mut stream| {
        stream.write_all(CHUNKED).unwrap();
        wait.recv().unwrap();
        stream.write_all(b"2\r\nhi\r\n0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0]);
    });
    // Also the time that a busy machine has for the head of the answer.
    run(&server, 500, async |opened| {
        let (_, mut connection) = opened.unwrap();
        let mut buffer = Vec::new();
        for _ in 0..5 {
            assert_eq!(connection.read(&mut buffer, 100).await, BodyOutcome::TimedOut);
        }
        go.send(()).unwrap();
        loop {
            match connection.read(&mut buffer, 100).await {
                BodyOutcome::TimedOut => {}
                BodyOutcome::Bytes => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(buffer, b"hi");
        assert_eq!(connection.read(&mut buffer, 100).await, BodyOutcome::End);
        connection.close().await;
    });
}

/// dockerd killed: no last chunk. It must not look like a clean end.
#[test]
fn an_end_without_last_chunk_is_broken() {
    let server = Server::new(|mut stream| {
        stream.write_all(CHUNKED).unwrap();
        stream.write_all(b"2\r\nhi\r\n").unwrap();
    });
    run(&server, 5_000, async |opened| {
        let (_, mut connection) = opened.unwrap();
        let mut buffer = Vec::new();
        assert_eq!(connection.read(&mut buffer, 100).await, BodyOutcome::Bytes);
        assert!(matches!(connection.read(&mut buffer, 100).await, BodyOutcome::Broken(_)));
        connection.close().await;
    });
}

#[test]
fn a_silent_daemon_a_garbled_one_and_none() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let silent = Server::new(move |_stream| wait.recv().unwrap());
    run(&silent, 30, async |opened| {
        let error = opened.err().unwrap();
        assert_eq!(error.to_string(), "no answer to GET /x within 0 s");
    });
    go.send(()).unwrap();
    let garbled = Server::new(|mut stream| stream.write_all(b"\0\xff garbage\r\n\r\n").unwrap());
    run(&garbled, 5_000, async |opened| {
        assert!(matches!(opened.err().unwrap(), RequestError::Broken { .. }));
    });
    let nobody = PathBuf::from("/nonexistent/docker.sock");
    ring::start(async {
        let error = Connection::get(&nobody, "/x", Duration::from_secs(1), &Cancel::default(), ours())
            .await
            .err()
            .unwrap();
        assert!(matches!(error, RequestError::Connect { errno: 2, .. }), "{error}");
    })
    .unwrap();
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let server = Server::new(|mut stream| {
        stream.write_all(CHUNKED).unwrap();
        while stream.write_all(b"10\r\n0123456789abcdef\r\n").is_ok() {}
    });
    run(&server, 5_000, async |opened| {
        let (_, mut connection) = opened.unwrap();
        assert!(matches!(
            connection.whole_body(1000, &Semaphore::new(1)).await,
            Err(RequestError::TooLarge { .. })
        ));
        connection.close().await;
    });
}

/// Closing with a receive in flight must end it at once, long before its timer, and the peer must see the end.
#[test]
fn closing_ends_the_receive_and_the_peer_sees_it() {
    let server = Server::new(|mut stream| {
        stream.write_all(CHUNKED).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the peer sees no end");
    });
    let began = std::time::Instant::now();
    run(&server, 60_000, async |opened| {
        let (_, mut connection) = opened.unwrap();
        let mut buffer = Vec::new();
        let read = connection.read(&mut buffer, 10);
        let pending = tokio::time::timeout(Duration::from_millis(20), read).await;
        assert!(pending.is_err());
        assert!(ring::operations_in_flight() > 0);
        connection.close().await;
    });
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(30), "closing waited for the timer");
}
