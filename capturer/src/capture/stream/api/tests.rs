//! One stream over the API and the slots, without Engine and loop: what must not be forgotten on any way out.

use super::*;
use crate::capture::core::bench::Bench;
use crate::limits::PIECE_BYTES;
use crate::model::clock::Now;
use crate::model::cursor::ChannelMark;

const LINE_BYTES_MAX: usize = 64 * 1024;
/// When the container exited, in tests with an exit.
const EXIT_NS: i64 = 900_000_000_000;

fn source(number: u32) -> ApiSource {
    ApiSource::new(StreamId(number), format!("{number:064}"), false, true, None, LINE_BYTES_MAX)
}

/// The connection that the source has just requested, and its path.
fn asked(bench: &mut Bench) -> (ConnId, String) {
    let opened = bench.actions().into_iter().find_map(|action| match action {
        Action::OpenConn { conn, path, .. } => Some((conn, path)),
        _ => None,
    });
    opened.expect("a connection is asked for")
}

/// Opened, answered with 200, and reading.
fn follow(source: &mut ApiSource, bench: &mut Bench) -> ConnId {
    source.open(&mut bench.cx(), &mut Vec::new());
    let (conn, path) = asked(bench);
    assert!(path.contains("follow=1"), "{path}");
    source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
    source.read_on(&mut bench.cx(), &mut Vec::new());
    conn
}

fn close(source: &mut ApiSource, conn: ConnId, bench: &mut Bench) {
    source.on_closed(conn, &mut bench.cx(), &mut Vec::new());
}

fn failed() -> HttpAnswer {
    Err(RequestError::Broken { path: "/x".to_owned(), cause: "reset".to_owned() })
}

/// Docker 20.10 omits rotated files from an answer behind a time, as soon as an older compressed one lies before it.
#[test]
fn all_of_a_log_is_asked_for_without_a_time() {
    let mut source = source(1);
    source.cursor = ApiCursor::after(5_000_000_000_000);
    for (tail, words) in [(Some(TAIL_FIRST), true), (None, false)] {
        source.tail = tail;
        let path = source.path(true);
        assert_eq!((path.contains("since="), path.contains("tail=")), (words, words), "{path}");
    }
}

/// What is printed after the clock was set back is older than what was delivered: the Engine would leave it out. Only the order
/// of the lines shows what is new, so the answer must have a line that is known to be delivered.
#[test]
fn a_newest_line_in_the_future_is_no_time_to_ask_from() {
    let second = 1_000_000_000;
    let mark = ChannelMark { time_ns: 2_000 * second, count: 1 };
    let cursor = ApiCursor { channels: [mark; 2], last_ns: mark.time_ns, ..ApiCursor::default() };
    let mut bench = Bench::new(1);
    let mut source = ApiSource::new(StreamId(1), "0".repeat(64), false, true, Some(cursor), LINE_BYTES_MAX);
    source.open(&mut bench.cx(), &mut Vec::new());
    let (conn, path) = asked(&mut bench);
    assert!(!path.contains("since=") && path.contains("tail=1000"), "{path}");
    source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
    source.read_on(&mut bench.cx(), &mut Vec::new());
    let frame = stdcopy::encode(1, format!("{} x\n", timestamp::format(999 * second)).as_bytes());
    source.on_read(conn, BodyOutcome::Bytes, frame, &mut bench.cx(), &mut Vec::new());
    assert!(matches!(source.phase, Phase::Closing(_, Then::Widen)), "{:?}", source.phase);
}

/// Since the clock was set back so much was printed that the newest delivered line was rotated away: the rest was once taken for
/// older than that.
#[test]
fn a_log_without_its_newest_line_is_all_new_after_a_step() {
    let second = 1_000_000_000;
    let mark = ChannelMark { time_ns: 2_000 * second, count: 1 };
    for (present_s, is_new) in [(999, true), (2_000, false)] {
        let cursor = ApiCursor { channels: [mark; 2], last_ns: mark.time_ns, ..ApiCursor::default() };
        let mut bench = Bench::new(1);
        let mut source =
            ApiSource::new(StreamId(1), "0".repeat(64), false, false, Some(cursor), LINE_BYTES_MAX);
        source.tail = None;
        source.open(&mut bench.cx(), &mut Vec::new());
        let (conn, path) = asked(&mut bench);
        assert!(!path.contains("since=") && !path.contains("tail="), "{path}");
        source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
        source.read_on(&mut bench.cx(), &mut Vec::new());
        let frame = stdcopy::encode(1, format!("{} x\n", timestamp::format(present_s * second)).as_bytes());
        source.on_read(conn, BodyOutcome::Bytes, frame, &mut bench.cx(), &mut Vec::new());
        source.read_on(&mut bench.cx(), &mut Vec::new());
        source.on_read(conn, BodyOutcome::End, Vec::new(), &mut bench.cx(), &mut Vec::new());
        assert_eq!(source.cursor.is_beginning(), is_new, "{:?}", source.phase);
        assert_eq!(matches!(source.phase, Phase::Closing(_, Then::CatchUp)), is_new);
    }
}

/// An answer that was asked for from a later time brings nothing until that time has come again, and says nothing of it.
#[test]
fn after_a_clock_set_back_an_open_answer_is_asked_for_again() {
    for (unix_s, again) in [(1_000, false), (800, true)] {
        let mut bench = Bench::new(1);
        let mut source = source(1);
        let conn = follow(&mut source, &mut bench);
        source.on_read(conn, BodyOutcome::Bytes, printed(3), &mut bench.cx(), &mut Vec::new());
        bench.now.unix_ns = unix_s * 1_000_000_000;
        source.on_clock_set_back(&mut bench.cx());
        assert_eq!(matches!(source.phase, Phase::Closing(_, Then::Open)), again, "{unix_s}");
        if again {
            // By then the clock may have passed the newest line.
            bench.now.unix_ns = 2_000_000_000_000;
            bench.actions();
            close(&mut source, conn, &mut bench);
            let (_, path) = asked(&mut bench);
            assert!(!path.contains("since="), "{path}");
        }
    }
}

/// Docker 20.10 loses its place in a damaged log: of some numbers of lines its answer has none, and ends well. That was once taken
/// for the end of the log.
#[test]
fn an_empty_answer_of_a_damaged_log_is_not_its_end() {
    let mark = ChannelMark { time_ns: EXIT_NS, count: 1 };
    let cursor = ApiCursor { channels: [mark; 2], last_ns: EXIT_NS, ..ApiCursor::default() };
    let mut bench = Bench::new(1);
    let mut source = ApiSource::new(StreamId(1), "0".repeat(64), false, false, Some(cursor), LINE_BYTES_MAX);
    let answer = |source: &mut ApiSource, bench: &mut Bench, outcome: BodyOutcome, bytes: Vec<u8>| {
        let (conn, path) = asked(bench);
        source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
        source.read_on(&mut bench.cx(), &mut Vec::new());
        source.on_read(conn, outcome, bytes, &mut bench.cx(), &mut Vec::new());
        bench.actions();
        close(source, conn, bench);
        path.split("tail=").nth(1).map(str::to_owned)
    };
    for _ in 0..5 {
        source.open(&mut bench.cx(), &mut Vec::new());
        let error = stdcopy::encode(3, b"unexpected number of bytes");
        assert_eq!(answer(&mut source, &mut bench, BodyOutcome::Bytes, error).as_deref(), Some("1000"));
    }
    for lines in ["500", "250", "125"] {
        let tail = answer(&mut source, &mut bench, BodyOutcome::End, Vec::new());
        assert_eq!(tail.as_deref(), Some(lines));
    }
}

/// A slot that is not returned is lost for ever; with all of them lost, no container is read any more.
#[test]
fn a_slot_comes_back_on_every_way_out() {
    type Way = (&'static str, fn(&mut ApiSource, &mut Bench));
    let ways: [Way; 8] = [
        ("refused", |source, bench| {
            source.open(&mut bench.cx(), &mut Vec::new());
            let (conn, _) = asked(bench);
            source.on_opened(conn, Ok((404, b"{}".to_vec())), &mut bench.cx(), &mut Vec::new());
        }),
        ("no answer", |source, bench| {
            source.open(&mut bench.cx(), &mut Vec::new());
            let (conn, _) = asked(bench);
            source.on_opened(conn, failed(), &mut bench.cx(), &mut Vec::new());
        }),
        ("stopped before the answer", |source, bench| {
            source.open(&mut bench.cx(), &mut Vec::new());
            let (conn, _) = asked(bench);
            source.stop(&mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
        ("stopped while it reads", |source, bench| {
            let conn = follow(source, bench);
            source.stop(&mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
        ("broken off", |source, bench| {
            let conn = follow(source, bench);
            let broken = BodyOutcome::Broken("reset".to_owned());
            source.on_read(conn, broken, Vec::new(), &mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
        ("garbage", |source, bench| {
            let conn = follow(source, bench);
            source.on_read(conn, BodyOutcome::Bytes, vec![0xff; 64], &mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
        ("removed while it reads", |source, bench| {
            let conn = follow(source, bench);
            source.gone(&mut bench.cx(), &mut Vec::new());
            source.on_read(conn, BodyOutcome::TimedOut, Vec::new(), &mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
        ("ended, and nothing new in what is asked for then", |source, bench| {
            let conn = follow(source, bench);
            source.on_read(conn, BodyOutcome::End, Vec::new(), &mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
            let (conn, path) = asked(bench);
            assert!(path.contains("follow=0"), "{path}");
            source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
            source.read_on(&mut bench.cx(), &mut Vec::new());
            source.on_read(conn, BodyOutcome::End, Vec::new(), &mut bench.cx(), &mut Vec::new());
            close(source, conn, bench);
        }),
    ];
    for (what, go) in ways {
        let mut bench = Bench::new(1);
        let mut source = source(1);
        go(&mut source, &mut bench);
        assert!(source.is_at_rest() && !source.has_slot, "{what}");
        assert_eq!(bench.shared.pool.utilization(), 0.0, "{what}");
    }
}

#[test]
fn a_slot_goes_to_the_next_in_line() {
    let mut bench = Bench::new(1);
    let [mut first, mut second, mut third] = [1, 2, 3].map(source);
    let conn = follow(&mut first, &mut bench);
    bench.actions();
    for waiting in [&mut second, &mut third] {
        waiting.open(&mut bench.cx(), &mut Vec::new());
        assert_eq!(waiting.phase, Phase::Queued);
    }
    assert!(bench.actions().is_empty(), "no connection without a slot");
    first.stop(&mut bench.cx(), &mut Vec::new());
    close(&mut first, conn, &mut bench);
    assert_eq!(bench.shared.pool.take_granted(), [StreamId(2)]);
    // Stopped at that very moment: it passes on the slot that it was granted.
    second.stopping = true;
    second.on_slot(&mut bench.cx(), &mut Vec::new());
    assert_eq!(bench.shared.pool.take_granted(), [StreamId(3)]);
    bench.actions();
    third.on_slot(&mut bench.cx(), &mut Vec::new());
    let (conn, _) = asked(&mut bench);
    assert_eq!((third.conn(), bench.shared.pool.utilization()), (Some(conn), 1.0));
}

/// A removed or stopped container that stood in line would be given a slot that nobody uses.
#[test]
fn who_leaves_the_line_is_granted_nothing() {
    type Leave = fn(&mut ApiSource, &mut Context<'_>);
    let ways: [Leave; 2] =
        [|source, cx| source.stop(cx, &mut Vec::new()), |source, cx| source.gone(cx, &mut Vec::new())];
    for leave in ways {
        let mut bench = Bench::new(1);
        let (mut first, mut second) = (source(1), source(2));
        let conn = follow(&mut first, &mut bench);
        second.open(&mut bench.cx(), &mut Vec::new());
        leave(&mut second, &mut bench.cx());
        assert!(!bench.shared.pool.anyone_waits() && second.is_at_rest());
        first.stop(&mut bench.cx(), &mut Vec::new());
        close(&mut first, conn, &mut bench);
        assert!(bench.shared.pool.take_granted().is_empty());
        assert_eq!(bench.shared.pool.utilization(), 0.0);
    }
}

/// The phase after a silent connection that brought these bytes, of a container that exited at [`EXIT_NS`] or not.
fn after_silence(bytes: Vec<u8>, tty: bool, exited: bool) -> Phase {
    let mut bench = Bench::new(1);
    let mut source = source(1);
    source.tty = tty;
    let conn = follow(&mut source, &mut bench);
    source.on_read(conn, BodyOutcome::Bytes, bytes, &mut bench.cx(), &mut Vec::new());
    source.set_running(true, exited.then_some(EXIT_NS));
    bench.actions();
    source.read_on(&mut bench.cx(), &mut Vec::new());
    let [Action::ReadConn { buffer, .. }] = &mut bench.actions()[..] else { panic!("a read is armed") };
    let kept = std::mem::take(buffer);
    source.on_read(conn, BodyOutcome::TimedOut, kept, &mut bench.cx(), &mut Vec::new());
    source.phase
}

/// A line without its end before an exit: only an answer that ends shows that there is no more of it. A silent
/// container is no other reason to open a connection.
#[test]
fn only_a_line_from_before_an_exit_is_waited_for_in_vain() {
    let timed = |time_ns: i64, text: &str| format!("{} {text}", timestamp::format(time_ns)).into_bytes();
    let frame = |time_ns: i64, text: &str| stdcopy::encode(1, &timed(time_ns, text));
    // Docker cuts lines into pieces of this length; a shorter one is a line's end, with or without a newline.
    let long = "x".repeat(PIECE_BYTES);
    let (before, after) = (EXIT_NS, EXIT_NS + 1);
    let ended_by_next_run = [frame(before, &long), frame(after, "hello\n")].concat();
    for (what, bytes, tty, exited, again) in [
        ("open before an exit", frame(before, &long), false, true, true),
        ("open, no exit", frame(before, &long), false, false, false),
        ("open since the exit", frame(after, &long), false, true, false),
        ("ended by the next run's line", ended_by_next_run, false, true, false),
        ("short, so whole", frame(before, "last words"), false, true, false),
        ("whole", frame(before, "last words\n"), false, true, false),
        ("nothing", Vec::new(), false, true, false),
        ("a terminal's last words", timed(before, "last words"), true, true, true),
        ("a terminal's prompt", timed(after, "> "), true, true, false),
        ("a terminal's line", timed(before, "last words\r\n"), true, true, false),
    ] {
        let phase = after_silence(bytes, tty, exited);
        match phase {
            Phase::Closing(_, Then::CatchUp) => assert!(again, "{what}"),
            Phase::Reading { in_flight: false, .. } => assert!(!again, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// On a busy machine a line gets into the log long after its time. The rest of a burst was once taken for delivered:
/// the answer, cut to its newest lines, began with a line that was older than the newest delivered one, but of the
/// other channel and behind it.
#[test]
fn an_answer_reaches_back_only_by_its_own_channels_mark() {
    let second = 1_000_000_000;
    let frame = |kind: u8, time_ns: i64, text: &str| {
        stdcopy::encode(kind, format!("{} {text}\n", timestamp::format(time_ns)).as_bytes())
    };
    let mark = |time_ns| ChannelMark { time_ns, count: 1 };
    let cursor = ApiCursor {
        channels: [mark(100 * second), mark(200 * second)],
        last_ns: 200 * second,
        older_ns: 199 * second,
        open_ns: [0, 0],
    };
    for (what, kind, time_ns, widened) in [
        ("delivered, by its channel", 1, 100 * second - 1, false),
        ("older than the last, and behind its own channel's mark", 1, 101 * second, true),
        ("it may be another line of that very time", 1, 100 * second, true),
        ("delivered, by the other channel", 2, 150 * second, false),
        ("new", 2, 201 * second, true),
    ] {
        let mut bench = Bench::new(1);
        let mut source =
            ApiSource::new(StreamId(1), "0".repeat(64), false, true, Some(cursor), LINE_BYTES_MAX);
        let conn = follow(&mut source, &mut bench);
        let bytes = frame(kind, time_ns, "x");
        source.on_read(conn, BodyOutcome::Bytes, bytes, &mut bench.cx(), &mut Vec::new());
        assert_eq!(matches!(source.phase, Phase::Closing(_, Then::Widen)), widened, "{what}");
    }
}

/// A line is open, and the next answer ends before it. With nothing but known lines of its channel it was once
/// forgotten, and the following answer was not requested from its beginning (seed 1096802889 of the simulation).
#[test]
fn an_answer_that_ends_before_an_open_line_does_not_close_it() {
    let second = 1_000_000_000;
    let mark = |time_ns| ChannelMark { time_ns, count: 1 };
    let cursor = ApiCursor {
        channels: [mark(300 * second), mark(100 * second)],
        last_ns: 300 * second,
        older_ns: 299 * second,
        open_ns: [0, 200 * second],
    };
    // Lines on the open line's channel, and whether it is still open after them.
    for (times, is_open) in [(vec![98, 99], true), (vec![99, 200], false), (vec![99, 201], false)] {
        let mut bench = Bench::new(1);
        let mut source =
            ApiSource::new(StreamId(1), "0".repeat(64), false, true, Some(cursor), LINE_BYTES_MAX);
        let conn = follow(&mut source, &mut bench);
        let frame =
            |time: &i64| stdcopy::encode(2, format!("{} x\n", timestamp::format(time * second)).as_bytes());
        let bytes = times.iter().flat_map(frame).collect();
        source.on_read(conn, BodyOutcome::Bytes, bytes, &mut bench.cx(), &mut Vec::new());
        let expected = if is_open { 200 * second } else { 0 };
        assert_eq!(source.cursor.open_ns[1], expected, "{times:?}");
    }
}

/// In how many milliseconds a source asks again after it was told to share.
fn polled_in(told: &[SourceEvent], bench: &Bench) -> Option<u64> {
    told.iter().find_map(|told| match told {
        SourceEvent::Polled { again_at_ms } => Some(again_at_ms - bench.now.mono_ms),
        _ => None,
    })
}

#[test]
fn a_quiet_stream_gives_its_slot_away_and_is_asked_now_and_then() {
    let mut bench = Bench::new(1);
    let [mut first, mut second] = [1, 2].map(source);
    let conn = follow(&mut first, &mut bench);
    second.open(&mut bench.cx(), &mut Vec::new());
    assert_eq!(second.phase, Phase::Queued);
    assert!(!first.yield_slot(&mut bench.cx()), "nothing is known of it yet");
    bench.now.mono_ms += 30_000;
    assert!(first.yield_slot(&mut bench.cx()));
    let mut told = Vec::new();
    first.on_closed(conn, &mut bench.cx(), &mut told);
    let pause = polled_in(&told, &bench).expect("it is asked again");
    assert!((22_500..=37_500).contains(&pause), "{pause}");
    assert!(first.is_at_rest() && !first.has_slot);

    // A stream whose habits are unknown is polled first, and gives back the slot at once.
    assert_eq!(bench.shared.pool.take_granted(), [StreamId(2)]);
    bench.actions();
    second.on_slot(&mut bench.cx(), &mut Vec::new());
    let (conn, path) = asked(&mut bench);
    assert!(path.contains("follow=0"), "{path}");
    second.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
    second.read_on(&mut bench.cx(), &mut Vec::new());
    second.on_read(conn, BodyOutcome::End, Vec::new(), &mut bench.cx(), &mut Vec::new());
    let mut told = Vec::new();
    second.on_closed(conn, &mut bench.cx(), &mut told);
    assert!(polled_in(&told, &bench).is_some() && !second.has_slot);
    assert_eq!(bench.shared.pool.utilization(), 0.0);

    // Once there are slots for all, it follows again.
    assert!(!bench.shared.pool.set_wanted(1));
    bench.actions();
    follow(&mut second, &mut bench);
}

/// This many lines, a nanosecond apart.
fn printed(lines: i64) -> Vec<u8> {
    let frame = |line| stdcopy::encode(1, format!("{} x\n", timestamp::format(EXIT_NS + line)).as_bytes());
    (0..lines).flat_map(frame).collect()
}

/// A container that brought something new at each poll, and exited after the last answer: its last lines were once
/// given up with the series of catch-up reads (seed 1833 of the simulation).
#[test]
fn an_exit_within_many_catch_ups_is_looked_behind() {
    let mut bench = Bench::new(1);
    let mut source = source(1);
    let mut conn = follow(&mut source, &mut bench);
    let mut ends = Vec::new();
    for lines in 1.. {
        source.on_read(conn, BodyOutcome::Bytes, printed(lines), &mut bench.cx(), &mut Vec::new());
        source.read_on(&mut bench.cx(), &mut Vec::new());
        source.set_running(lines <= i64::from(CATCH_UPS_MAX), None);
        let mut told = Vec::new();
        source.on_read(conn, BodyOutcome::End, Vec::new(), &mut bench.cx(), &mut told);
        ends.extend(told.iter().filter_map(|told| match told {
            SourceEvent::Ended { again, .. } => Some(*again),
            _ => None,
        }));
        bench.actions();
        close(&mut source, conn, &mut bench);
        if !ends.is_empty() {
            break;
        }
        let path;
        (conn, path) = asked(&mut bench);
        assert!(path.contains("follow=0"), "{path}");
        source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
        source.read_on(&mut bench.cx(), &mut Vec::new());
    }
    assert_eq!(ends, [true], "it is to be asked once more");
}

/// A container that prints keeps its connection until its rotation, whoever waits.
#[test]
fn a_stream_that_prints_keeps_its_slot() {
    let mut bench = Bench::new(1);
    let [mut first, mut second] = [1, 2].map(source);
    let conn = follow(&mut first, &mut bench);
    second.open(&mut bench.cx(), &mut Vec::new());
    first.on_read(conn, BodyOutcome::Bytes, printed(6), &mut bench.cx(), &mut Vec::new());
    bench.now.mono_ms += 30_000;
    // Twelve lines a minute.
    assert!(!first.yield_slot(&mut bench.cx()));
    bench.now.mono_ms += 30_000;
    // Six lines a minute.
    assert!(first.yield_slot(&mut bench.cx()));
}

/// A container that was quiet keeps its connection for `idle_interval`, but not once it prints again.
#[test]
fn a_rotation_that_was_put_off_comes_with_the_lines() {
    let mut bench = Bench::new(1);
    let mut source = source(1);
    let conn = follow(&mut source, &mut bench);
    // rotation.interval is five minutes, idle_interval fifteen.
    bench.now.mono_ms += 6 * 60_000;
    assert_eq!(bench.due(), [Purpose::Rotate]);
    source.on_timer(Purpose::Rotate, &mut bench.cx(), &mut Vec::new());
    assert!(matches!(source.phase, Phase::Reading { .. }), "it was quiet");
    source.on_read(conn, BodyOutcome::Bytes, printed(61), &mut bench.cx(), &mut Vec::new());
    assert_eq!(bench.due(), [Purpose::Rotate], "at once");
    let mut told = Vec::new();
    source.on_timer(Purpose::Rotate, &mut bench.cx(), &mut told);
    assert!(matches!(source.phase, Phase::Closing(_, Then::Rotate)), "{:?}", source.phase);
    assert!(told.iter().any(|told| matches!(told, SourceEvent::Rotating)));
}

/// Lines of one channel with these times, in milliseconds after second 1,000.
fn lines_at(times_ms: &[i64]) -> Vec<u8> {
    let line = |ms: &i64| {
        let time = timestamp::format(1_000_000_000_000 + ms * 1_000_000);
        stdcopy::encode(1, format!("{time} line at {ms}\n").as_bytes())
    };
    times_ms.iter().flat_map(line).collect()
}

fn times_of(told: &[SourceEvent]) -> Vec<i64> {
    let mut times = Vec::new();
    for told in told {
        let SourceEvent::Lines { lines, read, .. } = told else { continue };
        for record in &lines.records {
            let start = record.time_start as usize;
            let time_ns = timestamp::parse(&read[start..start + usize::from(record.time_len)]);
            times.push((time_ns.expect("a time") - 1_000_000_000_000) / 1_000_000);
        }
    }
    times
}

/// dockerd skips what was rotated while its follow was behind: 655,362 of 1,000,000 lines, and nobody said it.
#[test]
fn what_a_follow_behind_skipped_is_read_again() {
    let mut bench = Bench::new(1);
    let mut source = source(1);
    source.behind = behind::Behind::new(Some(20 << 20), false);
    let conn = follow(&mut source, &mut bench);
    let mut told = Vec::new();
    let at = |bench: &mut Bench, ms: u64| {
        bench.now = Now { mono_ms: 1_000_000 + ms, unix_ns: 1_000_000_000_000 + ms as i64 * 1_000_000 };
        bench.actions();
    };
    at(&mut bench, 20);
    source.on_read(conn, BodyOutcome::Bytes, lines_at(&[10, 11]), &mut bench.cx(), &mut told);
    source.read_on(&mut bench.cx(), &mut told);
    at(&mut bench, 800);
    source.on_read(conn, BodyOutcome::Bytes, lines_at(&[12, 13, 700, 701]), &mut bench.cx(), &mut told);
    assert_eq!(times_of(&told), [10, 11, 12, 13], "what lies behind the jump is not taken");
    assert!(matches!(source.phase, Phase::Closing(_, Then::CatchUp)), "{:?}", source.phase);

    // A snapshot has the skipped lines. It takes long and has many, so another follows.
    let many: Vec<i64> = (13..=1_500).collect();
    for (took_ms, lines, tail, then) in
        [(1_500, many, "256000", Then::CatchUp), (50, vec![1_500, 1_550], "16000", Then::Open)]
    {
        bench.actions();
        source.on_closed(source.conn().unwrap(), &mut bench.cx(), &mut told);
        let (conn, path) = asked(&mut bench);
        assert!(path.contains("follow=0") && path.ends_with(&format!("tail={tail}")), "{path}");
        source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut told);
        source.read_on(&mut bench.cx(), &mut told);
        let now_ms = bench.now.mono_ms - 1_000_000;
        at(&mut bench, now_ms + took_ms);
        source.on_read(conn, BodyOutcome::End, lines_at(&lines), &mut bench.cx(), &mut told);
        assert!(matches!(source.phase, Phase::Closing(_, next) if next == then), "{:?}", source.phase);
    }
    let expected: Vec<i64> = (10..=1_500).chain([1_550]).collect();
    assert_eq!(times_of(&told), expected);
    bench.actions();
    source.on_closed(source.conn().unwrap(), &mut bench.cx(), &mut told);
    let (_, path) = asked(&mut bench);
    assert!(path.contains("follow=1"), "{path}");
    assert!(!told.iter().any(|told| matches!(told, SourceEvent::Ended { .. } | SourceEvent::Failed(..))));
}

/// dockerd removes a container while its last lines are asked for. Nothing said that they were not read.
#[test]
fn a_container_removed_before_its_last_answer_ended_is_cut_off() {
    type Way = (&'static str, bool, fn(&mut ApiSource, &mut Bench));
    let refuse = |source: &mut ApiSource, bench: &mut Bench| {
        if let Some(conn) = source.conn() {
            bench.actions();
            close(source, conn, bench);
            if source.conn().is_some() {
                let (conn, _) = asked(bench);
                source.on_opened(conn, Ok((409, b"{}".to_vec())), &mut bench.cx(), &mut Vec::new());
            }
        }
        source.gone(&mut bench.cx(), &mut Vec::new());
    };
    let ways: [Way; 5] = [
        ("an answer behind its exit ended", false, |source, bench| {
            source.set_running(false, Some(EXIT_NS));
            source.open(&mut bench.cx(), &mut Vec::new());
            let (conn, _) = asked(bench);
            source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
            source.read_on(&mut bench.cx(), &mut Vec::new());
            source.on_read(conn, BodyOutcome::End, printed(3), &mut bench.cx(), &mut Vec::new());
        }),
        ("the follow ended", false, |source, bench| {
            let conn = follow(source, bench);
            source.on_read(conn, BodyOutcome::End, printed(3), &mut bench.cx(), &mut Vec::new());
        }),
        ("the follow broke", true, |source, bench| {
            let conn = follow(source, bench);
            source.on_read(conn, BodyOutcome::Bytes, printed(3), &mut bench.cx(), &mut Vec::new());
            source.read_on(&mut bench.cx(), &mut Vec::new());
            let broken = BodyOutcome::Broken("reset".to_owned());
            source.on_read(conn, broken, Vec::new(), &mut bench.cx(), &mut Vec::new());
        }),
        ("it was not known to run, and printed on", true, |source, bench| {
            source.set_running(false, None);
            source.open(&mut bench.cx(), &mut Vec::new());
            let (conn, _) = asked(bench);
            source.on_opened(conn, Ok((200, Vec::new())), &mut bench.cx(), &mut Vec::new());
            source.read_on(&mut bench.cx(), &mut Vec::new());
            source.on_read(conn, BodyOutcome::End, printed(3), &mut bench.cx(), &mut Vec::new());
        }),
        ("it runs again", true, |source, bench| {
            let conn = follow(source, bench);
            source.on_read(conn, BodyOutcome::End, printed(3), &mut bench.cx(), &mut Vec::new());
            source.set_running(false, Some(EXIT_NS));
            source.set_running(true, Some(EXIT_NS));
        }),
    ];
    for (what, is_cut_off, go) in ways {
        let mut bench = Bench::new(1);
        let mut source = source(1);
        go(&mut source, &mut bench);
        refuse(&mut source, &mut bench);
        assert_eq!(source.is_cut_off(), is_cut_off, "{what}");
    }
}
