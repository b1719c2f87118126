//! A stream read over the Engine's API: `GET /containers/{id}/logs`.
//!
//! ```text
//! slot ─▶ open (follow if it runs) ─▶ read ─▶ frames ─▶ pieces ─▶ seen before? ─▶ lines
//!              ▲        │ rotation due: close, open again from the position
//!              └────────┤ end: every end is suspect: read once more without follow until nothing new comes
//!                       └ error: back-off
//! ```
//! The Engine can't be asked for "what comes after this line". It is asked from two seconds before the newest line
//! delivered, and what was delivered is dropped by channel, time and occurrence: within a channel the Engine's times
//! never go back, and lines of equal time keep their order. Two seconds, because the two channels are not ordered
//! against each other (11 ms were seen).
//!
//! A bare `since` makes dockerd scan the whole log (3.3 s of CPU for 143 MB), so the answer is cut to the newest
//! lines (`tail`), and it must begin with a line that was delivered; if not, the tail is widened.

use super::Told;
use super::seen::{Key, Seen};
use crate::capture::io::{Action, Answer as HttpAnswer, BodyOutcome, ConnId, RequestError};
use crate::capture::support::{Context, Timer};
use crate::cursor::{ApiCursor, Cursor};
use crate::decode::assemble::{Assembler, Lines};
use crate::decode::stdcopy::{self, FrameKind};
use crate::decode::{Piece, Step, timestamp, tty};
use crate::docker;
use crate::limits::API_GATHER_BYTES;
use crate::metrics::{SkipReason, StreamError};
use crate::record::{MessageForm, StdType, StreamId};
use crate::status::StreamRow;

/// How far before the newest line to ask: the channels are not ordered against each other.
const OVERLAP_NS: i64 = 2_000_000_000;
/// First try of a resume, in lines.
const TAIL_FIRST: u32 = 1_000;
/// Each further try asks for so many times more.
const TAIL_FACTOR: u32 = 16;
/// Beyond this the whole log is asked for.
const TAIL_MAX: u32 = 1_000_000;
/// Lines a minute below which a container counts as idle.
const IDLE_LINES_PER_MINUTE: u64 = 10;
/// Catch-up reads in a row that still bring something new, before the rest is left to the next opening.
const CATCH_UPS_MAX: u32 = 5;

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Waiting for a slot of the pool.
    Queued,
    Opening(ConnId),
    Reading {
        conn: ConnId,
        in_flight: bool,
    },
    Closing(ConnId, Then),
}

/// What follows when a connection is closed.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Then {
    /// Nothing: whoever closed it has told why.
    Rest,
    /// Open again.
    Open,
    Rotate,
    /// Read once more without follow.
    CatchUp,
    /// Ask again with a larger tail.
    Widen,
    Stop,
}

/// See the module's head.
#[derive(Debug)]
pub struct ApiSource {
    stream: StreamId,
    container_id: String,
    tty: bool,
    running: bool,
    /// When the container last exited.
    exited_at_ns: Option<i64>,
    gone: bool,
    stopping: bool,
    phase: Phase,
    has_slot: bool,
    /// What was delivered.
    cursor: ApiCursor,
    seen: [Seen; 2],
    assembler: Assembler,
    rotations: u64,
    read_timeouts: u64,
    answer: Answer,
    /// Lines to ask for; `None` = all.
    tail: Option<u32>,
    catch_ups: u32,
}

/// What is known of the answer being read.
#[derive(Debug, Default)]
struct Answer {
    follow: bool,
    /// The exit that was known when it was asked for.
    exited_at_ns: Option<i64>,
    opened_at_ms: u64,
    rotate_at_ms: Option<u64>,
    /// Received and not yet a whole frame.
    held: Vec<u8>,
    /// Per channel: the line begun last, and whether it is new.
    begun: [Option<(Key, bool)>; 2],
    /// The first line was looked at: the answer reaches back far enough.
    overlaps: bool,
    /// Lines that were new.
    new_lines: u64,
    /// It came to its end by itself.
    read_deadline_ms: u64,
}

impl ApiSource {
    /// A source that does nothing until [`ApiSource::open`].
    pub fn new(
        stream: StreamId,
        container_id: String,
        tty: bool,
        running: bool,
        cursor: Option<ApiCursor>,
        line_bytes_max: usize,
    ) -> ApiSource {
        ApiSource {
            stream,
            container_id,
            tty,
            running,
            exited_at_ns: None,
            gone: false,
            stopping: false,
            phase: Phase::Idle,
            has_slot: false,
            cursor: cursor.unwrap_or_default(),
            seen: Default::default(),
            assembler: Assembler::new(line_bytes_max),
            rotations: 0,
            read_timeouts: 0,
            answer: Answer::default(),
            tail: Some(TAIL_FIRST),
            catch_ups: 0,
        }
    }

    /// Begins, or begins again.
    pub fn open(&mut self, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        self.catch_ups = 0;
        if let Phase::Closing(conn, Then::Rest) = self.phase {
            // Told to go on while the last connection still closes: as soon as it has.
            self.phase = Phase::Closing(conn, Then::Open);
        }
        if self.stopping || self.phase != Phase::Idle {
            return;
        }
        if !self.has_slot && !cx.pool.take(self.stream) {
            self.phase = Phase::Queued;
            cx.metrics.stream_error(StreamError::PoolFull);
            return;
        }
        self.has_slot = true;
        self.request(self.running, cx, told);
    }

    /// The pool gave this stream a slot.
    pub fn on_slot(&mut self, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        if self.phase != Phase::Queued || self.stopping {
            cx.pool.release();
            return;
        }
        self.phase = Phase::Idle;
        self.has_slot = true;
        self.request(self.running, cx, told);
    }

    fn request(&mut self, follow: bool, cx: &mut Context<'_>, _told: &mut Vec<Told>) {
        let conn = cx.new_conn();
        self.phase = Phase::Opening(conn);
        self.note_open_lines();
        self.assembler.reset();
        self.seen.iter_mut().for_each(Seen::begin_answer);
        self.answer = Answer { follow, exited_at_ns: self.exited_at_ns, ..Answer::default() };
        cx.act(Action::OpenConn { conn, path: self.path(follow) });
    }

    fn path(&self, follow: bool) -> String {
        let id = &self.container_id;
        let follow = u8::from(follow);
        let mut path = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1&follow={follow}");
        if let Some(since) = self.since() {
            path += &format!("&since={}", timestamp::to_since(since));
            if let Some(tail) = self.tail {
                path += &format!("&tail={tail}");
            }
        }
        path
    }

    /// From when to ask; `None` = from the beginning.
    fn since(&self) -> Option<i64> {
        let open_since = self.cursor.open_since_ns();
        if self.cursor.is_beginning() {
            return open_since;
        }
        let mut since = self.cursor.last_ns - OVERLAP_NS;
        if self.cursor.older_ns > 0 {
            since = since.min(self.cursor.older_ns);
        }
        Some(since.min(open_since.unwrap_or(i64::MAX)))
    }

    fn owns(&self, conn: ConnId) -> bool {
        match self.phase {
            Phase::Opening(own) | Phase::Reading { conn: own, .. } | Phase::Closing(own, _) => own == conn,
            Phase::Idle | Phase::Queued => false,
        }
    }

    /// Where it begins.
    pub fn cursor(&self) -> Cursor {
        if self.cursor == ApiCursor::default() { Cursor::Beginning } else { Cursor::Api(self.cursor) }
    }

    /// The connection this source waits for, if any.
    pub fn conn(&self) -> Option<ConnId> {
        match self.phase {
            Phase::Opening(conn) | Phase::Reading { conn, .. } | Phase::Closing(conn, _) => Some(conn),
            Phase::Idle | Phase::Queued => None,
        }
    }

    /// The answer's head came, or not.
    pub fn on_opened(
        &mut self,
        conn: ConnId,
        result: HttpAnswer,
        cx: &mut Context<'_>,
        told: &mut Vec<Told>,
    ) {
        if !self.owns(conn) {
            return;
        }
        match result {
            Ok((200, _)) => {
                self.phase = Phase::Reading { conn, in_flight: false };
                self.answer.opened_at_ms = cx.now.mono_ms;
                self.plan_rotation(cx);
                told.push(Told::Opened);
            }
            Ok((status, body)) => {
                self.phase = Phase::Idle;
                self.leave_slot(cx);
                let text = docker::refusal(status, &body);
                match status {
                    404 | 409 if self.gone => self.drain(told),
                    404 | 409 => told.push(Told::Ended { cause: text, again: self.running }),
                    501 => told.push(Told::Failed(StreamError::DriverUnreadable, text)),
                    _ => told.push(Told::Failed(StreamError::ApiError, text)),
                }
            }
            Err(error) => {
                self.phase = Phase::Idle;
                self.leave_slot(cx);
                if self.gone {
                    self.drain(told);
                }
                told.push(Told::Failed(error_type(&error), error.to_string()));
            }
        }
    }

    fn plan_rotation(&mut self, cx: &mut Context<'_>) {
        let rotation = &cx.settings.container_monitor.rotation;
        if !self.answer.follow || !rotation.enabled {
            return;
        }
        // Jitter only to the early side: fifty streams must not reopen together, and none may be late.
        let interval = rotation.interval.as_millis() as u64;
        let at = cx.now.mono_ms + cx.jitter.around(interval).min(interval);
        self.answer.rotate_at_ms = Some(at);
        cx.timers.set_earlier(Timer::Stream(self.stream), at);
    }

    /// A deadline may have come.
    pub fn on_timer(&mut self, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        let Some(at) = self.answer.rotate_at_ms else { return };
        if !matches!(self.phase, Phase::Reading { .. }) {
            return;
        }
        let at = at.max(self.idle_until(cx)).max(cx.pool.next_rotation_ms(cx.now.mono_ms));
        if at > cx.now.mono_ms {
            cx.timers.set_earlier(Timer::Stream(self.stream), at);
            return;
        }
        let rotation = &cx.settings.container_monitor.rotation;
        cx.pool.rotated(cx.now.mono_ms + rotation.pause_between_rotations.as_millis() as u64);
        self.answer.rotate_at_ms = None;
        self.rotations += 1;
        told.push(Told::Rotating);
        self.close(Then::Rotate, cx);
    }

    /// An idle container's connection may live longer.
    fn idle_until(&self, cx: &Context<'_>) -> u64 {
        let age_ms = (cx.now.mono_ms - self.answer.opened_at_ms).max(1);
        let rotation = &cx.settings.container_monitor.rotation;
        let idle = self.answer.new_lines * 60_000 < IDLE_LINES_PER_MINUTE * age_ms;
        if idle { self.answer.opened_at_ms + rotation.idle_interval.as_millis() as u64 } else { 0 }
    }

    fn close(&mut self, then: Then, cx: &mut Context<'_>) {
        let conn = match self.phase {
            Phase::Opening(conn) => conn,
            Phase::Reading { conn, .. } => {
                let age_ms = cx.now.mono_ms - self.answer.opened_at_ms;
                cx.metrics.container_stream_age_seconds.observe(age_ms as f64 / 1000.0);
                conn
            }
            Phase::Idle | Phase::Queued | Phase::Closing(..) => return,
        };
        self.phase = Phase::Closing(conn, then);
        cx.act(Action::CloseConn { conn });
    }

    /// A connection is closed.
    pub fn on_closed(&mut self, conn: ConnId, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        let Phase::Closing(own, then) = self.phase else { return };
        if own != conn {
            return;
        }
        self.phase = Phase::Idle;
        self.answer.held = Vec::new();
        if self.stopping {
            self.leave_slot(cx);
            return;
        }
        match then {
            Then::Stop | Then::Rest => self.leave_slot(cx),
            Then::Rotate => {
                // Whoever waits for a slot gets this one; then it is our turn to wait.
                if cx.pool.anyone_waits() {
                    self.leave_slot(cx);
                }
                self.tail = Some(TAIL_FIRST);
                self.open(cx, told);
            }
            Then::Open => self.open(cx, told),
            Then::CatchUp => self.request(false, cx, told),
            Then::Widen => {
                self.tail = self.tail.map(|tail| tail * TAIL_FACTOR).filter(|tail| *tail <= TAIL_MAX);
                let follow = self.answer.follow;
                self.request(follow, cx, told);
            }
        }
    }

    fn leave_slot(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.has_slot) {
            cx.pool.release();
        }
    }

    /// Arms the next read, if one is due and there is room.
    pub fn read_on(&mut self, cx: &mut Context<'_>, _told: &mut Vec<Told>) {
        let Phase::Reading { conn, in_flight: false } = self.phase else { return };
        if !cx.credit.has_room(API_GATHER_BYTES) {
            return;
        }
        self.phase = Phase::Reading { conn, in_flight: true };
        self.answer.read_deadline_ms =
            cx.now.mono_ms + cx.settings.container_monitor.read_timeout.as_millis() as u64;
        cx.act(Action::ReadConn { conn, buffer: std::mem::take(&mut self.answer.held) });
    }

    /// Whether it would read on if there were room.
    pub fn is_hungry(&self) -> bool {
        matches!(self.phase, Phase::Reading { in_flight: false, .. })
    }

    /// A read ended.
    pub fn on_read(
        &mut self,
        conn: ConnId,
        outcome: BodyOutcome,
        buffer: Vec<u8>,
        cx: &mut Context<'_>,
        told: &mut Vec<Told>,
    ) {
        if self.phase != (Phase::Reading { conn, in_flight: true }) {
            return;
        }
        self.phase = Phase::Reading { conn, in_flight: false };
        match outcome {
            BodyOutcome::Bytes => self.decode(buffer, false, cx, told),
            BodyOutcome::TimedOut => {
                self.read_timeouts += 1;
                cx.metrics.stream_read_timeouts_total.inc();
                self.answer.held = buffer;
                if self.gone {
                    self.close(Then::Stop, cx);
                    self.drain(told);
                }
            }
            BodyOutcome::End => {
                self.decode(buffer, true, cx, told);
                self.on_end(cx, told);
            }
            BodyOutcome::Broken(cause) => {
                self.close(Then::Rest, cx);
                if self.gone {
                    self.drain(told);
                }
                told.push(Told::Failed(StreamError::DaemonGone, format!("the stream broke: {cause}")));
            }
        }
    }

    /// A clean end of the answer. Never believed: dockerd ends streams cleanly with their last lines missing.
    fn on_end(&mut self, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        if !matches!(self.phase, Phase::Reading { .. }) {
            return; // decoding gave it up already
        }
        // An exit that came to be known meanwhile may have left lines behind what was answered.
        let known = self.answer.exited_at_ns == self.exited_at_ns;
        let caught_up = !self.answer.follow && self.answer.new_lines == 0 && known;
        if caught_up || self.catch_ups >= CATCH_UPS_MAX {
            self.close(Then::Rest, cx);
            if self.gone {
                self.drain(told);
            }
            let cause =
                if self.running { "the Engine ended the stream" } else { "the container does not run" };
            told.push(Told::Ended { cause: cause.to_owned(), again: self.running });
        } else {
            self.catch_ups += 1;
            self.tail = Some(TAIL_FIRST);
            self.close(Then::CatchUp, cx);
        }
    }

    fn decode(&mut self, buffer: Vec<u8>, at_end: bool, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        let mut lines = Lines::default();
        let mut at = 0;
        let mut verdict = None;
        while verdict.is_none() && at < buffer.len() {
            let (step, took) = self.next_piece(&buffer[at..], at_end);
            match step {
                Found::Piece(mut piece) => {
                    piece.text = piece.text.start + at..piece.text.end + at;
                    piece.time = piece.time.start + at..piece.time.end + at;
                    verdict = self.on_piece(&buffer, &piece, &mut lines, cx);
                }
                Found::Nothing => {}
                Found::NeedMore => break,
                Found::Skip(reason) => cx.metrics.skipped(reason, 1),
                Found::GiveUp(reason, text) => {
                    cx.metrics.skipped(reason, 1);
                    verdict = Some(Verdict::GiveUp(text));
                }
            }
            at += took;
        }
        if at_end && verdict.is_none() {
            self.close_open_lines(&mut lines);
        }
        if verdict.is_none() {
            self.answer.held = buffer[at.min(buffer.len())..].to_vec();
        }
        if !lines.records.is_empty() {
            let end = self.end_cursor();
            cx.credit.grow(buffer.capacity() as u64);
            told.push(Told::Lines { lines, read: buffer, end, source_bytes: at as u64 });
        }
        match verdict {
            Some(Verdict::Widen) => self.close(Then::Widen, cx),
            Some(Verdict::GiveUp(text)) => {
                self.close(Then::Rest, cx);
                told.push(Told::Failed(StreamError::ApiError, text));
            }
            None => {}
        }
    }

    fn next_piece(&self, bytes: &[u8], at_end: bool) -> (Found, usize) {
        if self.tty {
            return match tty::next_piece(bytes, at_end) {
                Step::Item(piece, took) => (Found::Piece(piece), took),
                Step::NeedMore => (Found::NeedMore, 0),
                Step::Reject(_, took) => (Found::Skip(SkipReason::RecordInvalid), took),
            };
        }
        let (frame, took) = match stdcopy::next_frame(bytes) {
            Step::Item(frame, took) => (frame, took),
            Step::NeedMore => return (Found::NeedMore, 0),
            Step::Reject(error, took) => {
                return (Found::GiveUp(SkipReason::FrameInvalid, format!("the Engine sent {error}")), took);
            }
        };
        let payload = &bytes[frame.payload.clone()];
        let std_type = match frame.kind {
            FrameKind::Output(std_type) => std_type,
            FrameKind::DaemonError => {
                let text: String = String::from_utf8_lossy(payload).chars().take(300).collect();
                let text = format!("the Engine reports an error in the stream: {}", text.trim_end());
                return (Found::GiveUp(SkipReason::DaemonErrorFrame, text), took);
            }
        };
        if payload.is_empty() {
            return (Found::Nothing, took);
        }
        let Some((time, text, complete)) = stdcopy::split_time(payload) else {
            return (Found::Skip(SkipReason::RecordInvalid), took);
        };
        let start = frame.payload.start;
        let piece = Piece {
            decoded_len: text.len(),
            text: text.start + start..text.end + start,
            time: time.start + start..time.end + start,
            form: MessageForm::Raw,
            std_type,
            complete,
        };
        (Found::Piece(piece), took)
    }

    fn on_piece(
        &mut self,
        buffer: &[u8],
        piece: &Piece,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> Option<Verdict> {
        let Some(time_ns) = timestamp::parse(&buffer[piece.time.clone()]) else {
            cx.metrics.skipped(SkipReason::RecordInvalid, 1);
            return None;
        };
        let channel = piece.std_type.index();
        let mut deliver = true;
        if self.assembler.begins_line(buffer, piece) {
            if !self.answer.overlaps {
                if !self.reaches_back(time_ns) {
                    return Some(Verdict::Widen);
                }
                self.answer.overlaps = true;
            }
            if self.assembler.close(piece.std_type, lines) {
                // The line before was left open at an exit; it is whole now.
                self.complete(channel);
            }
            let key = Key::new(time_ns, &buffer[piece.text.clone()]);
            deliver = self.seen[channel].is_new(key, &self.cursor.channels[channel]);
            self.answer.begun[channel] = Some((key, deliver));
            if time_ns >= self.cursor.open_ns[channel] {
                self.cursor.open_ns[channel] = 0;
            }
            if !deliver {
                cx.metrics.duplicates_dropped_total.inc();
            }
        }
        let completed = self.assembler.push(buffer, piece, time_ns as u64, deliver, lines);
        if completed.this {
            self.complete(channel);
        }
        None
    }

    /// Whether the answer, whose first line has this time, reaches back to what was delivered.
    fn reaches_back(&self, time_ns: i64) -> bool {
        let last = self.cursor.last_ns;
        if self.tail.is_none() || last == 0 {
            return true;
        }
        let open_is_there = self.cursor.open_since_ns().is_none_or(|open| time_ns < open);
        // With no older line known, the last is the first of the log.
        let bound = if self.cursor.older_ns > 0 { last - 1 } else { last };
        open_is_there && time_ns <= bound
    }

    /// The line begun last on a channel is complete: remember it, if it was new.
    fn complete(&mut self, channel: usize) {
        self.cursor.open_ns[channel] = 0;
        let Some((key, true)) = self.answer.begun[channel].take() else { return };
        self.answer.new_lines += 1;
        self.seen[channel].delivered(key, &mut self.cursor.channels[channel]);
        if key.time_ns > self.cursor.last_ns {
            self.cursor.older_ns = self.cursor.last_ns;
        }
        self.cursor.last_ns = key.time_ns;
        if self.cursor.older_ns >= key.time_ns {
            // The clock was set back: what was older is not any more.
            self.cursor.older_ns = 0;
        }
    }

    /// The answer is at its end: lines open since before the container exited are whole.
    fn close_open_lines(&mut self, lines: &mut Lines) {
        let bound = if self.gone { Some(i64::MAX) } else { self.exited_at_ns };
        let Some(bound) = bound else { return };
        let closed = self.assembler.close_begun_by(bound, lines);
        for (channel, _) in closed.iter().enumerate().filter(|(_, closed)| **closed) {
            self.complete(channel);
        }
    }

    fn end_cursor(&mut self) -> Cursor {
        self.note_open_lines();
        Cursor::Api(self.cursor)
    }

    /// Lines that are open now. One that was open on an earlier connection and did not come again yet stays noted.
    fn note_open_lines(&mut self) {
        for std_type in StdType::ALL {
            if let Some(open) = self.assembler.open_on(std_type) {
                self.cursor.open_ns[std_type.index()] = open as i64;
            }
        }
    }

    /// The container began or ceased to run.
    pub fn set_running(&mut self, running: bool, exited_at_ns: Option<i64>) {
        self.running = running;
        self.exited_at_ns = exited_at_ns.or(self.exited_at_ns);
    }

    /// The container was removed: what the connection still brings is taken, then it is over.
    pub fn gone(&mut self, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        self.gone = true;
        self.running = false;
        if self.phase == Phase::Queued {
            cx.pool.forget(self.stream);
            self.phase = Phase::Idle;
        }
        if self.phase == Phase::Idle {
            self.drain(told);
        }
    }

    fn drain(&mut self, told: &mut Vec<Told>) {
        told.push(Told::Drained);
    }

    /// The agent stops: close what is open.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        self.stopping = true;
        if self.phase == Phase::Queued {
            cx.pool.forget(self.stream);
            self.phase = Phase::Idle;
        }
        self.close(Then::Stop, cx);
    }

    /// Nothing of it is in flight.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Queued)
    }

    /// Fills its part of a row of `/api/v1/streams`.
    pub fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        row.mode = "api".to_owned();
        row.rotations = self.rotations;
        row.read_timeouts = self.read_timeouts;
        let operation = match self.phase {
            Phase::Idle => "",
            Phase::Queued => {
                "waiting for a slot (pool_full)".clone_into(&mut row.cause);
                ""
            }
            Phase::Opening(_) => "opening a connection",
            Phase::Reading { .. } => "read of a connection",
            Phase::Closing(..) => "closing a connection",
        };
        operation.clone_into(&mut row.operation);
        if matches!(self.phase, Phase::Reading { .. } | Phase::Closing(..)) {
            row.age_ms = now_ms.saturating_sub(self.answer.opened_at_ms);
        }
        if matches!(self.phase, Phase::Reading { in_flight: true, .. }) {
            row.operation_deadline_ms = Some(self.answer.read_deadline_ms.saturating_sub(now_ms));
        }
    }
}

enum Found {
    Piece(Piece),
    Nothing,
    NeedMore,
    Skip(SkipReason),
    GiveUp(SkipReason, String),
}

enum Verdict {
    Widen,
    GiveUp(String),
}

fn error_type(error: &RequestError) -> StreamError {
    match error {
        RequestError::Connect { .. } | RequestError::Broken { .. } => StreamError::DaemonGone,
        RequestError::NoAnswer { .. } => StreamError::ReadTimeout,
        RequestError::TooLarge { .. } => StreamError::ApiError,
    }
}
