//! The same cases on the real ring and on the simulated one: what the simulation proves about the core holds only if
//! the real shell keeps the promises of the simulated one. Connections are tested here, files in conformance_files.rs.

mod conformance_files;

use std::time::Duration;

use capturer::testing::{Action, BodyOutcome, ConnId, Event, HttpAnswer, RequestError, RequestId, ring};
use capturer_tests::bench::{Bench, Deed, REFUSAL, RealBench, STREAM_PATH, UNKNOWN_PATH};
use capturer_tests::rand::Rand;
use capturer_tests::wait::PATIENCE;
use capturer_tests::world::bench::SimBench;

/// Makes two tests of a case: `name::real_ring` and `name::simulated_ring`. The time-out of reads is that of the real
/// ring; the simulated one lets timers race with data, so many times in a thousand reads.
macro_rules! on_both {
    ($($name:ident(timeout $timeout:expr, races $races:expr);)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn real_ring() {
                ring::start(async {
                    let mut bench = RealBench::new($timeout).expect("a bench");
                    super::$name(&mut bench).await;
                    assert_eq!(bench.wind_up().await, 0, "operations are left in flight");
                })
                .expect("this machine has io_uring");
            }

            #[test]
            fn simulated_ring() {
                ring::start(async {
                    for seed in 0..50 {
                        super::$name(&mut SimBench::new(seed, $timeout, $races)).await;
                    }
                })
                .expect("this machine has io_uring");
            }
        }
    )*};
}

const QUICK: Duration = Duration::from_millis(20);
/// Longer than a step takes on a busy machine.
const LONG: Duration = PATIENCE;

on_both! {
    numbered_bytes_under_tiny_timers(timeout Duration::from_micros(300), races 500);
    a_silent_peer_ends_each_read_by_its_timer(timeout QUICK, races 0);
    what_is_read_stands_behind_what_was_held(timeout LONG, races 0);
    a_clean_end_and_a_broken_one_are_told_apart(timeout LONG, races 0);
    closing_under_a_read_brings_the_close_alone(timeout LONG, races 0);
    closing_while_opening_brings_the_close_alone(timeout LONG, races 0);
    a_refusal_is_an_answer(timeout LONG, races 0);
    nobody_there_is_told_at_once(timeout LONG, races 0);
    no_answer_ends_by_the_timer(timeout QUICK, races 0);
}

const CONN: ConnId = ConnId(1);

async fn opened(bench: &mut impl Bench, path: &str) -> HttpAnswer {
    bench.order(Action::OpenConn { conn: CONN, stream: None, path: path.to_owned() });
    match bench.event().await {
        Some(Event::ConnOpened { conn: CONN, result }) => result,
        other => panic!("opening brought {other:?}"),
    }
}

async fn open(bench: &mut impl Bench) {
    let result = opened(bench, STREAM_PATH).await;
    assert_eq!(result.expect("an answer"), (200, Vec::new()));
}

async fn read(bench: &mut impl Bench, buffer: Vec<u8>) -> (BodyOutcome, Vec<u8>) {
    bench.order(Action::ReadConn { conn: CONN, buffer });
    match bench.event().await {
        Some(Event::ConnRead { conn: CONN, outcome, buffer }) => (outcome, buffer),
        other => panic!("a read brought {other:?}"),
    }
}

async fn close(bench: &mut impl Bench) {
    bench.order(Action::CloseConn { conn: CONN });
    closed(bench).await;
}

async fn closed(bench: &mut impl Bench) {
    match bench.event().await {
        Some(Event::ConnClosed { conn: CONN }) => {}
        other => panic!("closing brought {other:?}"),
    }
    let more = bench.event().await;
    assert!(more.is_none(), "after its end the connection brought {more:?}");
}

/// No byte is lost or altered when data and timer race, and a read that timed out returned none.
async fn numbered_bytes_under_tiny_timers(bench: &mut impl Bench) {
    let mut rand = Rand::new(7);
    // An opening has the same tiny timer: it may have to be tried again.
    let mut tries = 0;
    while let Err(error) = opened(bench, STREAM_PATH).await {
        tries += 1;
        assert!(tries < 10_000, "{error}");
    }
    let sent: Vec<u8> = (0..4_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut rest = &sent[..];
    let (mut got, mut timeouts) = (Vec::new(), 0);
    loop {
        // Some parts at a time, so that reads find nothing, something and much.
        for _ in 0..rand.within(0..3) {
            let (part, left) = rest.split_at(rest.len().min(rand.index(1..40)));
            rest = left;
            if !part.is_empty() {
                bench.peer(Deed::Send(part.to_vec()));
                if rest.is_empty() {
                    bench.peer(Deed::End);
                }
            }
        }
        let (outcome, bytes) = read(bench, Vec::new()).await;
        got.extend_from_slice(&bytes);
        match outcome {
            BodyOutcome::Bytes => assert!(!bytes.is_empty()),
            BodyOutcome::TimedOut => {
                assert!(bytes.is_empty(), "a read that timed out brought {} bytes", bytes.len());
                timeouts += 1;
            }
            BodyOutcome::End => break,
            BodyOutcome::Broken(cause) => panic!("{cause}"),
        }
    }
    assert!(got == sent, "{} of {} bytes, or altered", got.len(), sent.len());
    assert!(timeouts > 0, "no timer fired: nothing raced");
    close(bench).await;
}

async fn a_silent_peer_ends_each_read_by_its_timer(bench: &mut impl Bench) {
    open(bench).await;
    for _ in 0..10 {
        assert_eq!(read(bench, Vec::new()).await, (BodyOutcome::TimedOut, Vec::new()));
    }
    // And the connection is still open.
    bench.peer(Deed::Send(b"after all".to_vec()));
    let mut got = Vec::new();
    while got.len() < 9 {
        got.extend(read(bench, Vec::new()).await.1);
    }
    assert_eq!(got, b"after all");
    close(bench).await;
}

async fn what_is_read_stands_behind_what_was_held(bench: &mut impl Bench) {
    open(bench).await;
    bench.peer(Deed::Send(b"new".to_vec()));
    let (outcome, buffer) = read(bench, b"held".to_vec()).await;
    assert_eq!(outcome, BodyOutcome::Bytes);
    assert!(buffer.len() > 4 && b"heldnew".starts_with(&buffer), "{buffer:?}");
    close(bench).await;
}

/// The one means that the container's log is at its end, the other that the daemon died.
async fn a_clean_end_and_a_broken_one_are_told_apart(bench: &mut impl Bench) {
    for deed in [Deed::End, Deed::Break] {
        let clean = matches!(deed, Deed::End);
        open(bench).await;
        bench.peer(Deed::Send(b"last words".to_vec()));
        bench.peer(deed);
        let mut got = Vec::new();
        let outcome = loop {
            let (outcome, bytes) = read(bench, Vec::new()).await;
            got.extend(bytes);
            if outcome != BodyOutcome::Bytes {
                break outcome;
            }
        };
        assert_eq!(got, b"last words");
        assert!(
            if clean { outcome == BodyOutcome::End } else { matches!(outcome, BodyOutcome::Broken(_)) },
            "{outcome:?}"
        );
        close(bench).await;
    }
}

/// The read does not return, however long its timer: whoever closes has no use for it.
async fn closing_under_a_read_brings_the_close_alone(bench: &mut impl Bench) {
    open(bench).await;
    bench.order(Action::ReadConn { conn: CONN, buffer: Vec::new() });
    close(bench).await;
}

async fn closing_while_opening_brings_the_close_alone(bench: &mut impl Bench) {
    bench.order(Action::OpenConn { conn: CONN, stream: None, path: STREAM_PATH.to_owned() });
    close(bench).await;
}

/// Not an error, and nothing needs closing.
async fn a_refusal_is_an_answer(bench: &mut impl Bench) {
    let result = opened(bench, UNKNOWN_PATH).await;
    assert_eq!(result.expect("an answer"), (404, REFUSAL.to_vec()));
    bench.order(Action::Get { request: RequestId(2), path: UNKNOWN_PATH.to_owned() });
    match bench.event().await {
        Some(Event::Answered { request: RequestId(2), result }) => {
            assert_eq!(result.expect("an answer"), (404, REFUSAL.to_vec()));
        }
        other => panic!("a request brought {other:?}"),
    }
    let more = bench.event().await;
    assert!(more.is_none(), "{more:?}");
}

async fn nobody_there_is_told_at_once(bench: &mut impl Bench) {
    bench.peer(Deed::Die);
    let result = opened(bench, STREAM_PATH).await;
    assert!(matches!(result, Err(RequestError::Connect { .. })), "{result:?}");
}

async fn no_answer_ends_by_the_timer(bench: &mut impl Bench) {
    bench.peer(Deed::Freeze);
    let result = opened(bench, STREAM_PATH).await;
    assert!(matches!(result, Err(RequestError::NoAnswer { .. })), "{result:?}");
    let more = bench.event().await;
    assert!(more.is_none(), "{more:?}");
}
