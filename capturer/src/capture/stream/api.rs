//! A stream read over the Engine's API: `GET /containers/{id}/logs`.
//!
//! ```text
//! slot ─▶ open (follow if it runs) ─▶ read ─▶ frames ─▶ pieces ─▶ seen before? ─▶ lines
//!              ▲        │ rotation due: close, open again from the position
//!              └────────┤ end: every end is suspect: read once more without follow until nothing new comes
//!                       └ error: back-off
//! ```
//! The Engine can't be asked for "what comes after this line". It is asked from two seconds before the newest delivered
//! line, and delivered lines are dropped by channel, time and occurrence: within a channel the Engine's times never
//! decrease, and lines with equal times keep their order. Two seconds, because the two channels are not ordered against
//! each other (11 ms were seen, and on a busy machine enough to skip the rest of a burst).
//!
//! A bare `since` makes dockerd scan the whole log (3.3 s of CPU for 143 MB), so the answer is cut to the newest lines
//! (`tail`). It must begin with a line that was delivered, judging by its channel; if it does not, the tail is widened.

mod behind;
mod damage;
mod lines;
mod order;
pub(crate) mod pace;

use std::collections::VecDeque;
use std::sync::Arc;

use super::SourceEvent;
use super::groups::GroupsDue;
use super::rotation_guard::{self, LogPlace, RotationGuard};
use super::seen::{Key, Seen};
use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, BodyOutcome, ConnId, FileError, FoundFile, HttpAnswer, RequestError};
use crate::decode::assemble::Assembler;
use crate::decode::{stdcopy, timestamp};
use crate::limits::API_GATHER_BYTES;
use crate::model::cursor::{ApiCursor, ChannelMark, Cursor};
use crate::model::docker;
use crate::model::record::StreamId;
use crate::settings::Pipeline;
use crate::telemetry::metrics::StreamError;
use crate::telemetry::status::StreamRow;

/// How far before the newest line to ask: the channels are not ordered against each other.
const OVERLAP_NS: i64 = 2_000_000_000;
/// This long after its time a line is in the log, however busy the machine is.
const LATE_NS: i64 = OVERLAP_NS / 2;
/// Lines in the first attempt of a resume.
const TAIL_FIRST: u32 = 1_000;
/// Each further attempt asks for this many times more.
const TAIL_FACTOR: u32 = 16;
/// Beyond this the whole log is asked for.
const TAIL_MAX: u32 = 1_000_000;
/// At most this many catch-up reads in a row that still bring new lines; then the rest is left to the next opening.
const CATCH_UPS_MAX: u32 = 5;

/// Why a damaged log could not be read, if dockerd does not say it.
const EMPTY: &str = "the Engine's answer has no line of a log in which it can't read a record";

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Waits for a slot of the pool.
    Queued,
    Opening(ConnId),
    Reading {
        conn: ConnId,
        in_flight: bool,
    },
    Closing(ConnId, Then),
}

/// What to do when the connection is closed.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Then {
    /// Nothing: whoever closed it has reported why.
    Rest,
    /// A new connection follows from the same position.
    Open,
    Rotate,
    /// Read once more without follow.
    CatchUp,
    /// Ask again with a larger tail.
    Widen,
    /// Ask again as it was asked, but for the number of lines.
    Again,
    /// Read from the files instead.
    Files,
    /// Give the slot to others, and ask again later.
    Yield,
    Stop,
}

/// A stream over the API; see the head of this file.
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
    /// By channel: when the open group of lines has waited long enough.
    groups_due: GroupsDue,
    /// Per channel: new complete lines that wait in an open group.
    grouped: [VecDeque<Key>; 2],
    /// The newest complete lines: like `cursor`, which is behind them while lines wait in a group.
    whole: [ChannelMark; 2],
    rotations: u64,
    read_timeouts: u64,
    answer: FollowAnswer,
    /// Lines held back until the files show that the log was not rotated before them.
    guard: Option<RotationGuard>,
    /// Where its files are, if nothing is held back yet.
    files: Option<LogPlace>,
    /// Read from the files as soon as they can be read.
    prefers_files: bool,
    /// How many lines to ask for; `None` = all.
    tail: Option<u32>,
    catch_ups: u32,
    /// The clock was set back behind what was delivered: the next answers are judged by their order, until a line comes.
    by_order: bool,
    /// What can be had of a log with a record that dockerd can't read.
    damage: damage::Damage,
    /// Whether a follow has skipped what was rotated.
    behind: behind::Behind,
    /// The last answer ended behind the container's exit: nothing more can come.
    is_whole: bool,
    /// Since when, and how many, lines have been counted to tell whether the container is quiet; `None` = not yet.
    activity: Option<(u64, u64)>,
}

/// The answer being read.
#[derive(Debug, Default)]
struct FollowAnswer {
    follow: bool,
    /// The exit that was known when it was requested.
    exited_at_ns: Option<i64>,
    opened_at_ms: u64,
    rotate_at_ms: Option<u64>,
    /// The rotation was due, but was put off because the container was quiet.
    put_off: bool,
    /// Only the present lines were requested, because others wait for the slot.
    polled: bool,
    /// Received, but not yet a complete frame.
    held: Vec<u8>,
    /// Per channel: the line that began last, and whether it is new.
    begun: [Option<(Key, bool)>; 2],
    /// The first line was checked: the answer reaches back far enough.
    overlaps: bool,
    /// How many lines were new.
    new_lines: u64,
    read_deadline_ms: u64,
    trickle: pace::Trickle,
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
            groups_due: GroupsDue::default(),
            grouped: Default::default(),
            whole: cursor.unwrap_or_default().channels,
            rotations: 0,
            read_timeouts: 0,
            answer: FollowAnswer::default(),
            guard: None,
            files: None,
            prefers_files: false,
            tail: Some(TAIL_FIRST),
            catch_ups: 0,
            by_order: false,
            damage: damage::Damage::default(),
            behind: behind::Behind::new(None, false),
            is_whole: false,
            activity: None,
        }
    }

    /// Joins lines, if the pipeline has `multiline`.
    pub fn with_pipeline(mut self, pipeline: Option<&Arc<Pipeline>>) -> ApiSource {
        self.assembler = self.assembler.with_pipeline(pipeline);
        self
    }

    /// Whether a carriage return before a newline belongs to the line's end.
    pub fn strip_cr(mut self, strips: bool) -> ApiSource {
        self.assembler = self.assembler.strip_cr(strips);
        self
    }

    /// As set by [`ApiSource::strip_cr`].
    pub fn strips_cr(&self) -> bool {
        self.assembler.strips_cr()
    }

    /// Its log is a json-file at this place. If that can be read, gaps are filled from it.
    pub fn with_files(mut self, place: LogPlace) -> ApiSource {
        self.files = Some(place);
        self
    }

    /// As [`ApiSource::with_files`], if the place was not known before. An open connection is opened again.
    pub fn set_files(&mut self, place: LogPlace, cx: &mut Context<'_>) {
        if self.guard.is_some() || self.gone {
            return;
        }
        self.files = Some(place);
        if self.answer.follow && matches!(self.phase, Phase::Opening(_) | Phase::Reading { .. }) {
            self.close(Then::Open, cx);
        }
    }

    /// It is read over the API only because the files could not be read.
    pub fn prefers_files(mut self) -> ApiSource {
        self.prefers_files = true;
        self
    }

    /// Starts, or starts again.
    pub fn open(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.catch_ups = 0;
        if let Phase::Closing(conn, Then::Rest) = self.phase {
            // The last connection is still closing: open again when it has closed.
            self.phase = Phase::Closing(conn, Then::Open);
        }
        if self.stopping || self.phase != Phase::Idle {
            return;
        }
        if !self.has_slot && !cx.pool.take(self.stream) {
            self.phase = Phase::Queued;
            cx.metrics.stream_error(StreamError::PoolFull);
            pace::look_for_slots(cx);
            return;
        }
        self.has_slot = true;
        self.request_anew(cx, told);
    }

    /// The pool gave this stream a slot.
    pub fn on_slot(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        if self.phase != Phase::Queued || self.stopping {
            cx.pool.release();
            return;
        }
        self.phase = Phase::Idle;
        self.has_slot = true;
        self.request_anew(cx, told);
    }

    fn request(&mut self, follow: bool, cx: &mut Context<'_>, _told: &mut Vec<SourceEvent>) {
        if let Some(place) = self.files.take() {
            // Everything reported so far is behind the cursor.
            self.guard = Some(RotationGuard::new(self.stream, place, self.cursor));
        }
        if let Some(guard) = self.guard.as_mut().filter(|guard| guard.must_look_first()) {
            // The listing's result opens the connection.
            return guard.look(cx);
        }
        let conn = cx.new_conn();
        self.phase = Phase::Opening(conn);
        self.note_open_lines();
        self.assembler.reset();
        for (seen, grouped) in self.seen.iter_mut().zip(&mut self.grouped) {
            seen.take_back(grouped.len());
            grouped.clear();
        }
        self.whole = self.cursor.channels;
        self.by_order |= self.is_ahead_of(cx.now.unix_ns);
        self.seen.iter_mut().for_each(|seen| seen.begin_answer(self.by_order));
        let polled = self.answer.polled && !follow;
        self.answer =
            FollowAnswer { follow, polled, exited_at_ns: self.exited_at_ns, ..FollowAnswer::default() };
        self.note_asked(follow, cx);
        cx.act(Action::OpenConn { conn, stream: Some(self.stream), path: self.path(follow) });
    }

    fn path(&self, follow: bool) -> String {
        let id = &self.container_id;
        let follow = u8::from(follow);
        let mut path = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1&follow={follow}");
        let is_whole = self.cursor.is_beginning() && !self.damage.is_searched();
        let Some(tail) = self.tail.filter(|_| !is_whole) else { return path };
        // The whole log is requested without a time: with one, Docker 20.10 omits every rotated file as soon as the
        // oldest compressed one ends before that time.
        if let Some(since) = self.since() {
            path += &format!("&since={}", timestamp::to_since(since));
        }
        path += &format!("&tail={tail}");
        path
    }

    /// Whether its files can show what the Engine skips. Until they were looked at, they are taken to.
    pub fn has_readable_files(&self) -> bool {
        self.files.is_some()
            || self.guard.as_ref().is_some_and(|guard| guard.must_look_first() || guard.is_readable())
    }

    /// Whether the last answer ended with dockerd's error about the log, and no line came since.
    pub fn is_damaged(&self) -> bool {
        self.damage.fails()
    }

    /// The time to ask from; `None` = from the beginning.
    fn since(&self) -> Option<i64> {
        if self.cursor.is_beginning() || self.by_order {
            // No delivered line could show that the answer reaches back to an open one.
            return None;
        }
        let mut since = self.cursor.last_ns - OVERLAP_NS;
        if self.cursor.older_ns > 0 {
            since = since.min(self.cursor.older_ns);
        }
        // A line before the open one shows that the answer has its beginning.
        Some(since.min(self.cursor.open_since_ns().map_or(i64::MAX, |open| open - OVERLAP_NS)))
    }

    fn owns(&self, conn: ConnId) -> bool {
        match self.phase {
            Phase::Opening(own) | Phase::Reading { conn: own, .. } | Phase::Closing(own, _) => own == conn,
            Phase::Idle | Phase::Queued => false,
        }
    }

    /// Where reading resumes.
    pub fn cursor(&self) -> Cursor {
        if self.cursor == ApiCursor::default() {
            Cursor::Beginning
        } else {
            Cursor::Api(Box::new(self.cursor))
        }
    }

    /// The connection this source waits for, if any.
    pub fn conn(&self) -> Option<ConnId> {
        match self.phase {
            Phase::Opening(conn) | Phase::Reading { conn, .. } | Phase::Closing(conn, _) => Some(conn),
            Phase::Idle | Phase::Queued => None,
        }
    }

    /// The answer's head has come, or an error.
    pub fn on_opened(
        &mut self,
        conn: ConnId,
        result: HttpAnswer,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        if !self.owns(conn) {
            return;
        }
        match result {
            Ok((200, _)) => {
                self.phase = Phase::Reading { conn, in_flight: false };
                self.answer.opened_at_ms = cx.now.mono_ms;
                self.note_begun();
                self.plan_rotation(cx);
                told.push(SourceEvent::Opened);
            }
            Ok((status, body)) => {
                self.phase = Phase::Idle;
                self.leave_slot(cx);
                let text = docker::refusal(status, &body);
                match status {
                    404 | 409 if self.gone => self.drain(cx, told),
                    404 | 409 => told.push(SourceEvent::Ended { cause: text, again: self.running }),
                    501 => told.push(SourceEvent::Failed(StreamError::DriverUnreadable, text.into())),
                    _ => told.push(SourceEvent::Failed(StreamError::ApiError, text.into())),
                }
            }
            Err(error) => {
                self.phase = Phase::Idle;
                self.leave_slot(cx);
                if self.gone {
                    self.drain(cx, told);
                }
                told.push(SourceEvent::Failed(error_type(&error), (&error).into()));
            }
        }
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
        self.note_closing(cx);
        cx.act(Action::CloseConn { conn });
    }

    /// A connection is closed.
    pub fn on_closed(&mut self, conn: ConnId, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let Phase::Closing(own, then) = self.phase else { return };
        if own != conn {
            return;
        }
        self.phase = Phase::Idle;
        cx.let_sleep(self.stream, Purpose::Close);
        self.answer.held = Vec::new();
        if self.stopping {
            self.leave_slot(cx);
            return;
        }
        match then {
            Then::Stop | Then::Rest => {
                self.leave_slot(cx);
                if self.gone {
                    self.drain(cx, told);
                }
            }
            Then::Files => self.tell_files(cx, told),
            Then::Yield => {
                self.leave_slot(cx);
                if self.gone { self.drain(cx, told) } else { self.tell_polled(cx, told) }
            }
            Then::Rotate => {
                if let Some(guard) = self.guard.as_mut().filter(|guard| !guard.is_readable()) {
                    // Permissions may have changed.
                    guard.look(cx);
                }
                // A stream that waits for a slot gets this one; then this stream waits.
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
            Then::Again => self.request(self.answer.follow, cx, told),
        }
    }

    /// The files were listed.
    pub fn on_scanned(
        &mut self,
        result: &Result<Vec<FoundFile>, FileError>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        let Some(guard) = &mut self.guard else { return };
        let (first, was_readable) = (guard.must_look_first(), guard.is_readable());
        let verdict = guard.on_scanned(result, cx, told);
        if self.stopping || matches!(self.phase, Phase::Closing(_, Then::Files)) {
            return;
        }
        let can_now = self.prefers_files && !was_readable && !first && guard.is_readable();
        if verdict != rotation_guard::ListingResult::GoOn || can_now {
            self.go_to_files(cx, told);
        } else if first && !guard.must_look_first() {
            self.open(cx, told);
        }
    }

    /// Leaves the API for the files.
    fn go_to_files(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        if self.gone {
            return; // they go as well: what came is all there is
        }
        if self.phase == Phase::Queued {
            cx.pool.forget(self.stream);
            self.phase = Phase::Idle;
        }
        match self.phase {
            Phase::Closing(conn, _) => self.phase = Phase::Closing(conn, Then::Files),
            Phase::Idle | Phase::Queued => self.tell_files(cx, told),
            Phase::Opening(_) | Phase::Reading { .. } => self.close(Then::Files, cx),
        }
    }

    fn tell_files(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.leave_slot(cx);
        let Some(guard) = self.guard.as_mut().filter(|_| !self.gone) else { return self.drain(cx, told) };
        guard.drop_held(cx);
        let (place, from, delivered_from) = (guard.place.clone(), guard.released(), guard.delivered_from());
        told.push(SourceEvent::ToFiles { place, from, delivered_from });
    }

    /// Continues from this position.
    pub fn go_on_from(&mut self, cursor: ApiCursor) {
        self.cursor = cursor;
        self.behind = behind::Behind::new(self.behind.file_bytes(), false);
        if let Some(guard) = &mut self.guard {
            *guard = RotationGuard::new(self.stream, guard.place.clone(), cursor);
        }
    }

    /// The same source from a position, to fall back to if the files turn out to be unreadable.
    pub fn anew(
        &self,
        cursor: ApiCursor,
        line_bytes_max: usize,
        pipeline: Option<&Arc<Pipeline>>,
    ) -> ApiSource {
        let (id, tty, running) = (self.container_id.clone(), self.tty, self.running);
        let source = ApiSource::new(self.stream, id, tty, running, Some(cursor), line_bytes_max);
        let mut source = source.with_pipeline(pipeline).strip_cr(self.strips_cr());
        source.exited_at_ns = self.exited_at_ns;
        source.rotations = self.rotations;
        source.behind = behind::Behind::new(self.behind.file_bytes(), false);
        source
    }

    fn leave_slot(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.has_slot) {
            cx.pool.release();
        }
    }

    /// Starts the next read, if one is due and there is room.
    pub fn read_on(&mut self, cx: &mut Context<'_>, _told: &mut Vec<SourceEvent>) {
        let Phase::Reading { conn, in_flight: false } = self.phase else { return };
        // First, because during a pause that nobody ends it could not join the line of those that wait for room.
        if let Some(until) = self.answer.trickle.until(cx.now.mono_ms) {
            return cx.wake(self.stream, Purpose::Trickle, until);
        }
        if self.guard.as_ref().is_some_and(|guard| !guard.has_room()) || !cx.credit.has_room(API_GATHER_BYTES)
        {
            return;
        }
        self.phase = Phase::Reading { conn, in_flight: true };
        self.answer.read_deadline_ms =
            cx.now.mono_ms + cx.settings.container_monitor.read_timeout.as_millis() as u64;
        cx.act(Action::ReadConn { conn, buffer: std::mem::take(&mut self.answer.held) });
    }

    /// Batches that are held back.
    pub fn batches_held(&self) -> usize {
        self.guard.as_ref().map_or(0, RotationGuard::held)
    }

    /// Whether it would read on if there were room.
    pub fn is_hungry(&self) -> bool {
        matches!(self.phase, Phase::Reading { in_flight: false, .. })
            && self.guard.as_ref().is_none_or(RotationGuard::has_room)
            && self.answer.trickle.is_over()
    }

    /// A read ended.
    pub fn on_read(
        &mut self,
        conn: ConnId,
        outcome: BodyOutcome,
        buffer: Vec<u8>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        if self.phase != (Phase::Reading { conn, in_flight: true }) {
            return;
        }
        self.phase = Phase::Reading { conn, in_flight: false };
        match outcome {
            BodyOutcome::Bytes => {
                if let Some(guard) = &mut self.guard {
                    guard.on_bytes();
                }
                self.gather(buffer.len(), cx);
                self.decode(buffer, false, cx, told);
                self.rotate_if_busy_again(cx);
            }
            BodyOutcome::TimedOut => {
                self.read_timeouts += 1;
                cx.metrics.stream_read_timeouts_total.inc();
                self.answer.held = buffer;
                if self.is_lost_in_damage() {
                    return self.on_damage(EMPTY.to_owned(), cx, told);
                }
                self.damage.is_over();
                if self.gone {
                    self.close(Then::Stop, cx);
                } else if self.answer.follow && self.guard.as_mut().is_some_and(|guard| guard.on_silence(cx))
                {
                    self.stalled(cx, told);
                } else if self.answer.follow && self.lost_its_place() {
                    self.catch_up(cx);
                } else if self.answer.follow && self.waits_in_vain() {
                    // Only an answer that ends shows that the line has no rest: a frozen daemon is just as silent.
                    self.catch_up(cx);
                }
            }
            BodyOutcome::End => {
                self.decode(buffer, true, cx, told);
                self.on_end(cx, told);
            }
            BodyOutcome::Broken(cause) => {
                self.close(Then::Rest, cx);
                told.push(SourceEvent::Failed(
                    StreamError::DaemonGone,
                    format!("the stream broke: {cause}").into(),
                ));
            }
        }
    }

    /// Whether a new line has been open since before the container's last exit, and the next run has printed nothing
    /// that would end it.
    fn waits_in_vain(&self) -> bool {
        let Some(exited_at) = self.exited_at_ns else { return false };
        let open =
            self.answer.begun.iter().flatten().filter(|(_, is_new)| *is_new).map(|(key, _)| key.time_ns);
        open.chain(self.held_since()).any(|time_ns| time_ns <= exited_at)
    }

    /// For a terminal: the time of the text held back until its newline comes, if it is new.
    fn held_since(&self) -> Option<i64> {
        let held = &self.answer.held;
        let (time, ..) = stdcopy::split_time(held).filter(|_| self.tty)?;
        timestamp::parse(&held[time]).filter(|time_ns| *time_ns > self.whole[0].time_ns)
    }

    /// A clean end of the answer, which is never trusted: dockerd ends streams cleanly with their last lines missing.
    fn on_end(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        if !matches!(self.phase, Phase::Reading { .. }) {
            return; // decoding gave it up already
        }
        if self.is_lost_in_damage() {
            return self.on_damage(EMPTY.to_owned(), cx, told);
        }
        self.damage.is_over();
        if !self.answer.follow && self.lost_its_place() {
            self.begin_anew(cx);
            return self.catch_up(cx);
        }
        if self.follow_again(cx) {
            return;
        }
        // dockerd ends a follow when the container does.
        self.is_whole |= self.answer.follow;
        // An exit that became known meanwhile may have left lines that the answer did not have.
        let known = self.answer.exited_at_ns == self.exited_at_ns;
        let caught_up = !self.answer.follow && self.answer.new_lines == 0 && known;
        // Asked for behind the exit, it has all.
        let is_behind_exit = known && self.exited_at_ns.is_some() && !self.running;
        self.is_whole |= !self.answer.follow && (is_behind_exit || caught_up && !self.running);
        if caught_up || self.catch_ups >= CATCH_UPS_MAX {
            if self.answer.polled && self.running && !self.gone {
                return self.close(Then::Yield, cx);
            }
            self.close(Then::Rest, cx);
            let cause =
                if self.running { "the Engine ended the stream" } else { "the container does not run" };
            // Its last lines may still be missing, and for a stopped container nothing else would show that.
            let again = self.running || !caught_up;
            told.push(SourceEvent::Ended { cause: cause.to_owned(), again });
        } else {
            self.catch_ups += 1;
            self.catch_up(cx);
        }
    }

    fn catch_up(&mut self, cx: &mut Context<'_>) {
        self.tail = Some(TAIL_FIRST);
        self.close(Then::CatchUp, cx);
    }

    /// The container started or stopped.
    pub fn set_running(&mut self, running: bool, exited_at_ns: Option<i64>) {
        // It runs again, or has run again since.
        let ran_again =
            exited_at_ns.is_some() && self.exited_at_ns.is_some_and(|at| Some(at) != exited_at_ns);
        self.is_whole &= self.running || !(running || ran_again);
        self.running = running;
        self.exited_at_ns = exited_at_ns.or(self.exited_at_ns);
    }

    /// Its container was removed, and what it printed last may not have been read.
    pub fn is_cut_off(&self) -> bool {
        self.gone && !self.is_whole
    }

    /// The container was removed: what the connection still brings is taken, then the stream is over.
    pub fn gone(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.gone = true;
        self.running = false;
        self.files = None;
        if let Some(mut guard) = self.guard.take() {
            // Its files are removed as well: there is nothing to compare with.
            guard.release(usize::MAX, told);
            if guard.must_look_first() && guard.is_looking() {
                self.open(cx, told);
            }
        }
        if self.phase == Phase::Queued {
            cx.pool.forget(self.stream);
            self.phase = Phase::Idle;
        }
        if self.phase == Phase::Idle {
            self.leave_slot(cx);
            self.drain(cx, told);
        }
    }

    /// The config now leaves out its container, which may print on, so no end is waited for.
    pub fn leave(&mut self, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Opening(_) | Phase::Reading { .. }) {
            self.close(Then::Rest, cx);
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        // Nobody can read them again.
        self.end_all_groups(cx, told);
        self.leave_doubt(cx);
        told.push(SourceEvent::Drained);
    }

    /// The agent is stopping: closes the connection.
    pub fn stop(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.stopping = true;
        self.end_all_groups(cx, told);
        if let Some(guard) = &mut self.guard {
            guard.drop_held(cx);
        }
        if self.phase == Phase::Queued {
            cx.pool.forget(self.stream);
            self.phase = Phase::Idle;
        }
        self.close(Then::Stop, cx);
    }

    /// Whether no operation of it is in flight.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Queued)
    }

    /// Fills its part of a row of `/api/v1/streams`.
    pub fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        row.mode = "api";
        row.counts.rotations = self.rotations;
        row.counts.read_timeouts = self.read_timeouts;
        let operation = match self.phase {
            Phase::Idle => "",
            Phase::Queued => {
                row.cause = "waiting for a slot (pool_full)".into();
                ""
            }
            Phase::Opening(_) => "opening a connection",
            Phase::Reading { .. } => "read of a connection",
            Phase::Closing(..) => "closing a connection",
        };
        if !operation.is_empty() {
            row.now.operation = operation;
        }
        if matches!(self.phase, Phase::Reading { .. } | Phase::Closing(..)) {
            row.age_ms = now_ms.saturating_sub(self.answer.opened_at_ms);
        }
        if matches!(self.phase, Phase::Reading { in_flight: true, .. }) {
            row.now.operation_deadline_ms = Some(self.answer.read_deadline_ms.saturating_sub(now_ms));
        }
    }
}

fn error_type(error: &RequestError) -> StreamError {
    match error {
        RequestError::Connect { .. } | RequestError::Broken { .. } => StreamError::DaemonGone,
        RequestError::NoAnswer { .. } => StreamError::ReadTimeout,
        RequestError::TooLarge { .. } => StreamError::ApiError,
    }
}

#[cfg(test)]
mod tests;
