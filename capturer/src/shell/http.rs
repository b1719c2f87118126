//! hyper's HTTP/1.1 client over a ring socket: one GET on one connection to the Docker socket.
//!
//! There is no task: whoever wants the next bytes polls the connection ([`Connection::read`]), so a stream is one
//! operation in the loop's set, and nothing is left running when it is dropped. Every receive has a timer; a time-out
//! is a tick for the reader, not the end of the connection.
//!
//! Not here: what the answer means, and methods other than GET.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::Semaphore;

use crate::capture::io::{BodyOutcome, NO_ROOM, RequestError};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::limits::ANSWER_BYTES_USUAL;
use crate::shell::descriptors;
use crate::shell::ring;
use crate::shell::ring::ReadOutcome;

/// Bytes of one receive. dockerd sends each line as an HTTP chunk, so a busy stream fills it.
const RECEIVE_BYTES: usize = 32 * 1024;

/// The error for too many open files.
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();

/// A connection's descriptor, with its owner.
type Socket = Claimed<OwnedFd>;

/// Ends a connection from outside, whatever it is doing: this ends an opening or a read that waits. Linux before 5.19
/// can't cancel by descriptor, but shutting down a socket ends its receives on every kernel.
#[derive(Debug, Default)]
pub struct Cancel {
    socket: RefCell<Option<Rc<Socket>>>,
    cancelled: Cell<bool>,
}

impl Cancel {
    /// Ends the connection.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(socket) = &*self.socket.borrow() {
            let _ = rustix::net::shutdown(&**socket, rustix::net::Shutdown::Both);
        }
    }

    /// The connection's descriptor, once there is one.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.socket.borrow().as_ref().map(|socket| socket.as_fd().as_raw_fd())
    }
}

/// One connection with one answer.
pub struct Connection {
    driver: Option<http1::Connection<RingSocket, Empty<Bytes>>>,
    body: Option<Incoming>,
    shared: Rc<Shared>,
    path: String,
    broken: Option<String>,
    /// Kept so that hyper does not end the connection after the first request.
    _sender: http1::SendRequest<Empty<Bytes>>,
}

struct Shared {
    socket: Rc<Socket>,
    timeout: Cell<Duration>,
    timed_out: Cell<bool>,
}

impl Connection {
    /// Connects, sends `GET path`, and waits for the answer's head. `timeout` bounds each wait from here on; `cancel`
    /// can end it at any time, now or later. `owner` holds the connection.
    ///
    /// # Errors
    /// [`RequestError`]; then the connection is closed.
    pub async fn get(
        socket_path: &Path,
        path: &str,
        timeout: Duration,
        cancel: &Cancel,
        (claims, owner): (&Claims, Owner),
    ) -> Result<(u16, Connection), RequestError> {
        let socket = connect(socket_path)?;
        if matches!(owner, Owner::Stream(_)) && !descriptors::may_keep(socket.as_fd()) {
            let socket = socket_path.display().to_string();
            return Err(RequestError::Connect { socket, cause: NO_ROOM.to_owned(), errno: EMFILE });
        }
        let socket = Rc::new(claims.hold(socket, owner));
        *cancel.socket.borrow_mut() = Some(Rc::clone(&socket));
        if cancel.cancelled.get() {
            cancel.cancel();
        }
        let shared = Rc::new(Shared { socket, timeout: Cell::new(timeout), timed_out: Cell::new(false) });
        let broken = |cause: &dyn std::fmt::Display| RequestError::Broken {
            path: path.to_owned(),
            cause: cause.to_string(),
        };
        let io = RingSocket {
            shared: Rc::clone(&shared),
            receive: None,
            received: Vec::new(),
            taken: 0,
            send: None,
        };
        let (mut sender, mut driver) = http1::handshake(io).await.map_err(|error| broken(&error))?;
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, "docker")
            .header(hyper::header::USER_AGENT, concat!("capturer/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| broken(&error))?;
        let mut response = Box::pin(sender.send_request(request));
        let mut ended = false;
        let answer = std::future::poll_fn(|cx| {
            if !ended && Pin::new(&mut driver).poll(cx).is_ready() {
                ended = true;
            }
            match response.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if shared.timed_out.take() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        drop(response);
        let mut connection = Connection {
            driver: (!ended).then_some(driver),
            body: None,
            shared,
            path: path.to_owned(),
            broken: None,
            _sender: sender,
        };
        match answer {
            Some(Ok(answer)) => {
                let status = answer.status().as_u16();
                connection.body = Some(answer.into_body());
                Ok((status, connection))
            }
            Some(Err(error)) => {
                connection.close().await;
                Err(broken(&describe(&error)))
            }
            None => {
                let timeout_s = timeout.as_secs();
                connection.close().await;
                Err(RequestError::NoAnswer { path: path.to_owned(), timeout_s })
            }
        }
    }

    /// Appends what arrives to `buffer`, up to about `gather` bytes if more is there at once.
    pub async fn read(&mut self, buffer: &mut Vec<u8>, gather: usize) -> BodyOutcome {
        std::future::poll_fn(|cx| self.poll_read(cx, buffer, gather)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>, gather: usize) -> Poll<BodyOutcome> {
        let before = buffer.len();
        loop {
            if let Some(driver) = &mut self.driver {
                match Pin::new(driver).poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(result) => {
                        self.driver = None;
                        self.broken = result.err().map(|error| describe(&error));
                    }
                }
            }
            let Some(body) = &mut self.body else {
                let why = self.broken.clone();
                return Poll::Ready(why.map_or(BodyOutcome::End, BodyOutcome::Broken));
            };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                    if buffer.len() - before >= gather {
                        return Poll::Ready(BodyOutcome::Bytes);
                    }
                }
                // The gathered bytes are returned first; the next read finds the end again.
                Poll::Ready(None) => {
                    self.body = None;
                    if buffer.len() > before {
                        return Poll::Ready(BodyOutcome::Bytes);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    self.broken = Some(describe(&error));
                    if buffer.len() > before {
                        return Poll::Ready(BodyOutcome::Bytes);
                    }
                }
                Poll::Pending if buffer.len() > before => return Poll::Ready(BodyOutcome::Bytes),
                Poll::Pending if self.shared.timed_out.take() => return Poll::Ready(BodyOutcome::TimedOut),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The complete rest of the body. If it grows beyond [`ANSWER_BYTES_USUAL`], it first waits for a permit of
    /// `large`, so that the memory of all answers is bounded; the Engine waits meanwhile.
    ///
    /// # Errors
    /// [`RequestError`], also when it is larger than `max` bytes.
    pub async fn whole_body(&mut self, max: usize, large: &Semaphore) -> Result<Vec<u8>, RequestError> {
        let mut body = Vec::new();
        let mut permit = None;
        loop {
            if permit.is_none() && body.len() > ANSWER_BYTES_USUAL {
                permit = large.acquire().await.ok();
            }
            match self.read(&mut body, RECEIVE_BYTES).await {
                BodyOutcome::End => return Ok(body),
                BodyOutcome::Bytes if body.len() > max => {
                    return Err(RequestError::TooLarge { path: self.path.clone(), max });
                }
                BodyOutcome::Bytes => {}
                BodyOutcome::TimedOut => {
                    let timeout_s = self.shared.timeout.get().as_secs();
                    return Err(RequestError::NoAnswer { path: self.path.clone(), timeout_s });
                }
                BodyOutcome::Broken(cause) => {
                    return Err(RequestError::Broken { path: self.path.clone(), cause });
                }
            }
        }
    }

    /// Ends the connection: shuts down the socket, which ends a receive in flight at once (on 5.10 too, where nothing
    /// can cancel it), waits for that, and only then closes the descriptor. If it were closed first, the socket would
    /// live on with the receive, and the peer would see no end.
    pub async fn close(mut self) {
        let _ = rustix::net::shutdown(&**self.shared.socket, rustix::net::Shutdown::Both);
        self.body = None;
        let Some(driver) = self.driver.take() else { return };
        let mut io = driver.into_parts().io;
        if let Some(receive) = io.receive.take() {
            receive.await;
        }
        if let Some(send) = io.send.take() {
            send.await;
        }
    }
}

/// hyper's message with its cause, which is what says what happened.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn connect(path: &Path) -> Result<OwnedFd, RequestError> {
    let connecting = || -> rustix::io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(path)?;
        // Non-blocking only for the connect: a full backlog answers EAGAIN instead of waiting without a limit.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        // On a non-blocking socket the ring would answer EAGAIN at once instead of waiting for its timer.
        rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::empty())?;
        Ok(socket)
    };
    connecting().map_err(|errno| RequestError::Connect {
        socket: path.display().to_string(),
        cause: match errno {
            rustix::io::Errno::AGAIN => {
                "its queue of connections is full: the daemon does not accept".to_owned()
            }
            errno => io::Error::from(errno).to_string(),
        },
        errno: errno.raw_os_error(),
    })
}

type Transfer = LocalBoxFuture<'static, (ReadOutcome, Vec<u8>)>;

/// The stream that hyper reads from and writes to.
struct RingSocket {
    shared: Rc<Shared>,
    receive: Option<Transfer>,
    /// Received, but not yet read by hyper.
    received: Vec<u8>,
    taken: usize,
    send: Option<Transfer>,
}

impl RingSocket {
    fn start_receive(&mut self) -> &mut Transfer {
        self.receive.get_or_insert_with(|| {
            let shared = Rc::clone(&self.shared);
            let mut buffer = std::mem::take(&mut self.received);
            buffer.clear();
            buffer.reserve(RECEIVE_BYTES);
            self.taken = 0;
            Box::pin(async move { ring::timed_receive(&shared.socket, buffer, shared.timeout.get()).await })
        })
    }
}

impl hyper::rt::Read for RingSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.taken < this.received.len() {
                let count = into.remaining().min(this.received.len() - this.taken);
                into.put_slice(&this.received[this.taken..this.taken + count]);
                this.taken += count;
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready((outcome, buffer)) = this.start_receive().as_mut().poll(cx) else {
                return Poll::Pending;
            };
            this.receive = None;
            this.received = buffer;
            match outcome {
                ReadOutcome::Bytes(_) => {}
                ReadOutcome::End => return Poll::Ready(Ok(())),
                // A tick for the reader. The next receive is armed at once, so that no byte waits for the reader.
                ReadOutcome::TimedOut => this.shared.timed_out.set(true),
                ReadOutcome::Failed(error) => return Poll::Ready(Err(io::Error::from_raw_os_error(error.0))),
            }
        }
    }
}

impl hyper::rt::Write for RingSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let send = this.send.get_or_insert_with(|| {
            let shared = Rc::clone(&this.shared);
            let bytes = bytes.to_vec();
            Box::pin(async move { ring::timed_send(&shared.socket, bytes, shared.timeout.get()).await })
        });
        let Poll::Ready((outcome, _)) = send.as_mut().poll(cx) else { return Poll::Pending };
        this.send = None;
        Poll::Ready(match outcome {
            ReadOutcome::Bytes(count) => Ok(count),
            ReadOutcome::End => Ok(0),
            ReadOutcome::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            ReadOutcome::Failed(error) => Err(io::Error::from_raw_os_error(error.0)),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
