//! A wait that always ends: a read, receive or send with a linked timeout.
//!
//! The contract of the pair:
//! 1. Both entries enter in one submission. A chain ends where a submission ends, and tokio-uring submits by itself
//!    when its queue is full; [`crate::limits::RING_ENTRIES`] leaves room for all that one turn can arm.
//! 2. Buffer, descriptor and timespec belong to the operations until both completions came, also when the future is
//!    dropped. (A dropped future does not cancel anything; the timer bounds how long the kernel still works on it.)
//! 3. Two completions, always; the outcome is judged only then.
//!
//! Only for what can wait and be cancelled: sockets, pipes, inotify. Nothing can cancel a read on a hung file system
//! (Linux answers EALREADY); such files are read by their lane (files/lane.rs).

use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{opcode, squeue, types};

use super::outcome::{ReadOutcome, TimerState, outcome};
use super::{COUNTS, operation};

/// `MSG_NOSIGNAL`: a send to a closed socket is an error, not a signal.
const MSG_NOSIGNAL: i32 = 0x4000;

/// Reads from a pipe, an inotify or another descriptor without a position, appending to `buffer`'s spare capacity.
pub async fn timed_read(
    descriptor: &Rc<impl AsFd + 'static>,
    buffer: Vec<u8>,
    timeout: Duration,
) -> (ReadOutcome, Vec<u8>) {
    into_spare_capacity(descriptor, buffer, timeout, |fd, start, len| {
        // No position: the descriptor's own.
        opcode::Read::new(fd, start, len).offset(u64::MAX).build()
    })
    .await
}

/// Receives from a socket, appending to `buffer`'s spare capacity.
pub async fn timed_receive(
    socket: &Rc<impl AsFd + 'static>,
    buffer: Vec<u8>,
    timeout: Duration,
) -> (ReadOutcome, Vec<u8>) {
    into_spare_capacity(socket, buffer, timeout, |fd, start, len| opcode::Recv::new(fd, start, len).build())
        .await
}

/// Sends `buffer` to a socket; as with send(2), fewer bytes may go than were given.
pub async fn timed_send(
    socket: &Rc<impl AsFd + 'static>,
    buffer: Vec<u8>,
    timeout: Duration,
) -> (ReadOutcome, Vec<u8>) {
    let entry =
        opcode::Send::new(types::Fd(socket.as_fd().as_raw_fd()), buffer.as_ptr(), buffer.len() as u32)
            .flags(MSG_NOSIGNAL)
            .build();
    let (result, buffer) = pair(entry, buffer, socket, timeout).await;
    (result, buffer)
}

async fn into_spare_capacity(
    descriptor: &Rc<impl AsFd + 'static>,
    mut buffer: Vec<u8>,
    timeout: Duration,
    entry: impl FnOnce(types::Fd, *mut u8, u32) -> squeue::Entry,
) -> (ReadOutcome, Vec<u8>) {
    let spare = buffer.spare_capacity_mut();
    assert!(!spare.is_empty(), "a read into a full buffer would look like the end of the source");
    let entry =
        entry(types::Fd(descriptor.as_fd().as_raw_fd()), spare.as_mut_ptr().cast(), spare.len() as u32);
    let (result, mut buffer) = pair(entry, buffer, descriptor, timeout).await;
    if let ReadOutcome::Bytes(n) = result {
        // SAFETY: the kernel wrote `n` bytes at the start of the spare capacity it was given, and `n` is at most that
        // capacity.
        unsafe { buffer.set_len(buffer.len() + n) };
    }
    (result, buffer)
}

async fn pair(
    entry: squeue::Entry,
    buffer: Vec<u8>,
    descriptor: &Rc<impl AsFd + 'static>,
    timeout: Duration,
) -> (ReadOutcome, Vec<u8>) {
    let timespec = Box::new(types::Timespec::from(timeout));
    let timer_entry = opcode::LinkTimeout::new(&*timespec).build();
    // SAFETY: `entry` points into `buffer`'s heap allocation, which moving the Vec leaves in place, and names
    // `descriptor`, which is kept with it.
    let read = unsafe {
        let descriptor: Rc<dyn AsFd> = descriptor.clone();
        operation::submit(entry.flags(squeue::Flags::IO_LINK), buffer, Some(descriptor))
    };
    // SAFETY: the timer points to the boxed timespec, which is kept with it.
    let timer = unsafe { operation::submit(timer_entry, timespec, None) };

    let (read_result, buffer) = read.await;
    let (timer_result, _timespec) = timer.await;
    let (outcome, timer_state) = outcome(read_result, timer_result);
    if timer_state == TimerState::Refused {
        COUNTS.with(|counts| counts.timer_refused.set(counts.timer_refused.get() + 1));
    }
    (outcome, buffer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::shell::ring;

    fn sockets() -> (Rc<OwnedFd>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Rc::new(OwnedFd::from(ours)), theirs)
    }

    fn on_ring<F: Future>(future: F) -> F::Output {
        ring::start(future).expect("this machine has io_uring")
    }

    /// The predecessor's bug: a read of a silent connection that nothing could end.
    #[test]
    fn a_silent_socket_ends_by_the_timer_again_and_again() {
        on_ring(async {
            let (socket, _peer) = sockets();
            let mut buffer = Vec::with_capacity(64);
            for _ in 0..20 {
                let (outcome, back) = timed_receive(&socket, buffer, Duration::from_millis(5)).await;
                assert_eq!(outcome, ReadOutcome::TimedOut);
                assert_eq!(ring::operations_in_flight(), 0);
                buffer = back;
            }
            assert_eq!(ring::timers_refused(), 0);
        });
    }

    #[test]
    fn bytes_come_as_they_are_and_the_end_is_seen() {
        on_ring(async {
            let (socket, mut peer) = sockets();
            peer.write_all(b"hello").unwrap();
            let (outcome, buffer) =
                timed_receive(&socket, Vec::with_capacity(64), Duration::from_secs(5)).await;
            assert_eq!((outcome, &buffer[..]), (ReadOutcome::Bytes(5), &b"hello"[..]));
            drop(peer);
            let (outcome, _) = timed_receive(&socket, Vec::with_capacity(64), Duration::from_secs(5)).await;
            assert_eq!(outcome, ReadOutcome::End);
        });
    }

    /// Numbered bytes under tiny timers: a race between data and timer must not lose any.
    #[test]
    fn no_byte_is_lost_between_data_and_timer() {
        on_ring(async {
            let (socket, mut peer) = sockets();
            let sent: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
            let to_send = sent.clone();
            let writer = std::thread::spawn(move || {
                for chunk in to_send.chunks(7) {
                    peer.write_all(chunk).unwrap();
                }
            });
            let mut got = Vec::new();
            loop {
                let (outcome, bytes) =
                    timed_receive(&socket, Vec::with_capacity(13), Duration::from_micros(20)).await;
                got.extend_from_slice(&bytes);
                match outcome {
                    ReadOutcome::Bytes(_) | ReadOutcome::TimedOut => {}
                    ReadOutcome::End => break,
                    ReadOutcome::Failed(error) => panic!("{error}"),
                }
            }
            writer.join().unwrap();
            assert!(got == sent, "{} of {} bytes, or altered", got.len(), sent.len());
            assert_eq!(ring::operations_in_flight(), 0);
        });
    }

    /// A dropped future leaves its buffer with the driver; the timer bounds for how long, and the count shows it.
    #[test]
    fn a_dropped_read_is_counted_until_its_timer_ends_it() {
        on_ring(async {
            let (socket, _peer) = sockets();
            let read = timed_receive(&socket, Vec::with_capacity(64), Duration::from_millis(20));
            let mut read = Box::pin(read);
            std::future::poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            drop(read);
            assert_eq!(ring::operations_in_flight(), 2);
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while ring::operations_in_flight() > 0 {
                assert!(std::time::Instant::now() < deadline, "the timer did not end the read");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// 400 pairs armed in one turn must enter unsplit: the kernel must not refuse a single timer.
    #[test]
    fn a_full_turn_of_pairs_is_never_split() {
        on_ring(async {
            let sockets: Vec<_> = (0..400).map(|_| sockets()).collect();
            let mut reads: futures_util::stream::FuturesUnordered<_> = sockets
                .iter()
                .map(|(socket, _)| timed_receive(socket, Vec::with_capacity(16), Duration::from_millis(50)))
                .collect();
            let mut ended = 0;
            while let Some((outcome, _)) = futures_util::StreamExt::next(&mut reads).await {
                assert_eq!(outcome, ReadOutcome::TimedOut);
                ended += 1;
            }
            assert_eq!((ended, ring::timers_refused(), ring::operations_in_flight()), (400, 0, 0));
        });
    }

    #[test]
    fn a_closed_peer_fails_a_send_instead_of_killing_the_process() {
        on_ring(async {
            let (socket, peer) = sockets();
            drop(peer);
            let (outcome, _) = timed_send(&socket, b"x".to_vec(), Duration::from_secs(1)).await;
            assert_eq!(outcome, ReadOutcome::Failed(super::super::outcome::ReadError(32)));
        });
    }
}
