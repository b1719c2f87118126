//! The stdout sink: records on standard output, for a pipe or a person.
//!
//! A reader that goes away (`capturer run | head`) ends the sink, [`SinkErrorKind::Closed`]; nobody comes back to a
//! pipe. A reader that is only slow is waited for a second at a time, so that the thread can still notice a Stop.
//!
//! How a write can't block for ever: standard output is somebody else's open file, shared with the shell and its other
//! programs, so O_NONBLOCK must not be set on it. A pipe or terminal is opened once more through /proc/self/fd, which
//! gives an open file of our own. If that is refused (a socket, a pipe of another user), each write waits until there
//! is room and takes at most PIPE_BUF bytes, which then do not block.
//!
//! Not here: marks. Written lines can't be taken back, so after a crash those that no checkpoint has come again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::outbox::{Outbox, SourceFacts};
use super::{Delivered, Sink, SinkError, SinkErrorKind};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::model::record::{Batch, OutputMark, Source, StreamId};
use crate::settings::OutputFormat;

const NAME: &str = "stdout";
/// Bytes that a pipe with room takes without blocking.
const PIPE_BUF: usize = 4096;
/// How long one attempt waits for the reader.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The sink; see the head of this file.
pub struct StdoutSink {
    output: Output,
    facts: BTreeMap<StreamId, (Arc<Source>, SourceFacts)>,
    outbox: Outbox,
}

enum Output {
    /// An open file of our own, O_NONBLOCK.
    Own(Claimed<OwnedFd>),
    /// Somebody else's open file that may block: small writes after a poll.
    Shared(Claimed<OwnedFd>),
    /// A regular file: writes do not wait for a reader.
    File(Claimed<OwnedFd>),
}

impl StdoutSink {
    /// On the process's standard output.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn new(format: OutputFormat, claims: &Claims) -> io::Result<StdoutSink> {
        StdoutSink::on(rustix::stdio::stdout(), format, claims)
    }

    fn on(fd: BorrowedFd<'_>, format: OutputFormat, claims: &Claims) -> io::Result<StdoutSink> {
        let shared = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
        let hold = |fd| claims.hold(fd, Owner::Sink(NAME.to_owned()));
        let output = match FileType::from_raw_mode(rustix::fs::fstat(&shared)?.st_mode) {
            FileType::RegularFile => Output::File(hold(shared)),
            _ => match reopen(&shared) {
                Ok(own) => Output::Own(hold(own)),
                Err(_) => Output::Shared(hold(shared)),
            },
        };
        let outbox = Outbox::new(format).coloured(rustix::termios::isatty(fd));
        Ok(StdoutSink { output, facts: BTreeMap::new(), outbox })
    }
}

fn reopen(shared: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", shared.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Output {
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(fd) => Ok(rustix::io::write(fd, bytes)?),
            Output::Own(fd) => match rustix::io::write(fd, bytes) {
                Err(Errno::AGAIN) => {
                    wait_for_room(fd)?;
                    Ok(rustix::io::write(fd, bytes)?)
                }
                result => Ok(result?),
            },
            Output::Shared(fd) => {
                wait_for_room(fd)?;
                Ok(rustix::io::write(fd, &bytes[..bytes.len().min(PIPE_BUF)])?)
            }
        }
    }
}

fn wait_for_room(fd: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
    match poll(&mut fds, Some(&PATIENCE))? {
        0 => Err(io::Error::new(io::ErrorKind::WouldBlock, "the reader takes nothing")),
        _ => Ok(()),
    }
}

impl Sink for StdoutSink {
    fn name(&self) -> &str {
        NAME
    }

    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        self.facts.insert(source.id, (source.clone(), self.outbox.facts(source)));
        Ok(None)
    }

    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        let source = &batch.source;
        let outbox = &self.outbox;
        let (known, facts) =
            self.facts.entry(source.id).or_insert_with(|| (source.clone(), outbox.facts(source)));
        if !Arc::ptr_eq(known, source) {
            *known = source.clone();
            *facts = outbox.facts(source);
        }
        match self.outbox.push(batch, facts, |bytes| self.output.put(bytes)) {
            Ok(counts) => Ok(Delivered { mark: None, counts }),
            Err(source) => {
                let gone = source.kind() == io::ErrorKind::BrokenPipe;
                let kind = if gone { SinkErrorKind::Closed } else { SinkErrorKind::Retry };
                Err(SinkError { kind, ..SinkError::retry("writing standard output", source) })
            }
        }
    }

    fn detach(&mut self, stream: StreamId) {
        self.facts.remove(&stream);
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};

    use super::super::testing::{batch, container, messages};
    use super::*;

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|line| format!("{line} {}", "x".repeat(100))).collect()
    }

    fn batch_of(texts: &[String]) -> Batch {
        let lines: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        batch(&container(1, "web"), &lines)
    }

    /// Delivers more than the pipe holds while a reader empties it slowly.
    fn check_through(output: Output, mut reader: File) {
        let mut sink =
            StdoutSink { output, facts: BTreeMap::new(), outbox: Outbox::new(OutputFormat::Ndjson) };
        let texts = texts(20_000);
        let batch = batch_of(&texts);
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        sink.attach(&batch.source).unwrap();
        while let Err(error) = sink.deliver(&batch) {
            assert_eq!(error.kind, SinkErrorKind::Retry);
        }
        drop(sink);
        assert_eq!(messages(&reading.join().unwrap()), texts);
    }

    #[test]
    fn through_a_pipe_opened_anew() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let sink = StdoutSink::on(write.as_fd(), OutputFormat::Ndjson, &Claims::default()).unwrap();
        assert!(matches!(sink.output, Output::Own(_)));
        let shared = rustix::fs::fcntl_getfl(&write).unwrap();
        assert!(!shared.contains(OFlags::NONBLOCK), "the shell's own open file is left as it is");
        drop(write);
        check_through(sink.output, read.into());
    }

    #[test]
    fn through_a_socket_or_a_pipe_that_can_not_be_opened_anew() {
        let (read, write) = std::os::unix::net::UnixStream::pair().unwrap();
        let sink = StdoutSink::on(write.as_fd(), OutputFormat::Ndjson, &Claims::default()).unwrap();
        assert!(matches!(sink.output, Output::Shared(_)));
        drop(write);
        check_through(sink.output, OwnedFd::from(read).into());
        let (read, write) = rustix::pipe::pipe().unwrap();
        let shared = Claims::default().hold(write, Owner::Sink(NAME.to_owned()));
        check_through(Output::Shared(shared), read.into());
    }

    #[test]
    fn into_a_file_behind_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"{\"message\":\"before\"}\n").unwrap();
        let mut sink = StdoutSink::on(file.as_fd(), OutputFormat::Ndjson, &Claims::default()).unwrap();
        sink.deliver(&batch_of(&texts(1))).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(messages(&bytes).len(), 2);
    }

    #[test]
    fn a_reader_that_is_gone_ends_it() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut sink = StdoutSink::on(write.as_fd(), OutputFormat::Ndjson, &Claims::default()).unwrap();
        drop(read);
        let error = sink.deliver(&batch_of(&texts(1))).unwrap_err();
        assert_eq!(error.kind, SinkErrorKind::Closed);
    }

    /// Every wait ends: a reader that sleeps costs a second at a time, and loses and repeats nothing.
    #[test]
    fn a_reader_that_sleeps_is_an_error_to_retry() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut sink = StdoutSink::on(write.as_fd(), OutputFormat::Ndjson, &Claims::default()).unwrap();
        let texts = texts(2_000);
        let batch = batch_of(&texts);
        let error = sink.deliver(&batch).unwrap_err();
        assert_eq!((error.kind, error.source.kind()), (SinkErrorKind::Retry, io::ErrorKind::WouldBlock));
        drop(write);
        let mut reader = File::from(read);
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        while sink.deliver(&batch).is_err() {}
        drop(sink);
        assert_eq!(messages(&reading.join().unwrap()), texts);
    }
}
