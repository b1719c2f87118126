//! What the machines of the core share: timers, the credit for buffers, and the context they are called with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::counted::ReadCounts;
use super::io::{Action, ConnId, FileNo, LaneId, RequestId};
use super::open_files::OpenFiles;
use super::owners::Owners;
use super::texts::Texts;
use crate::capture::checkpoint::memory::Table;
use crate::limits::{FILE_READS_MAX, READ_BYTES, SINK_BATCHES_MAX};
use crate::model::clock::Now;
use crate::model::record::StreamId;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A stream, for this purpose.
    Stream(StreamId, Purpose),
    /// Discovery: list, reconnect.
    Discovery,
    /// Quiet API streams give their slots to waiting ones, while there are more streams than slots.
    Pool,
    /// The file patterns are looked at again.
    Paths,
    /// Files that may be copies are decided.
    Doubts,
    /// Quiet files are closed, and others opened.
    OpenFiles,
    /// A checkpoint is due.
    Checkpoint,
    /// The time allowed for stopping is over.
    StopDeadline,
}

/// The purpose of a stream's deadline. Deadlines at the same moment are handled in this order; keep the first one
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A new attempt after a failure, or the next poll.
    Retry,
    /// The rate limit has let through what it allows; more may be read now.
    RateLimit,
    /// A look at a file for which inotify reports nothing.
    Look,
    /// An older file was written to: list the directory.
    LookAtRotated,
    /// A look at a renamed file whose writer may still write to it, or its closing.
    LateWriter,
    /// A line without its end is delivered as it is.
    Unfinished,
    /// Space at a file's end may have been filled.
    Room,
    /// A look at the head of a file that was written to.
    Head,
    /// An open group of lines, or a part of a line, has waited long enough. After everything that may bring the next
    /// line.
    Groups,
    /// A listing of an API stream's files, to know whether the stream missed something.
    RotationGuard,
    /// The latest time for a connection to have closed.
    Close,
    /// A planned reconnect.
    Rotate,
    /// Lines that arrive slowly over a connection have gathered.
    Trickle,
}

impl Purpose {
    /// Whether it is about reading a file, which pauses while the stream waits for another attempt.
    pub fn is_of_reading_a_file(self) -> bool {
        use Purpose::{Head, LateWriter, Look, LookAtRotated, Room, Unfinished};
        matches!(self, Look | LookAtRotated | LateWriter | Unfinished | Room | Head)
    }
}

/// Deadlines. Each [`Timer`] has at most one; setting it again moves it.
#[derive(Debug, Default)]
pub struct Timers {
    by_due: BTreeSet<(u64, Timer)>,
    due_of: BTreeMap<Timer, u64>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, due_ms: u64) {
        self.cancel(timer);
        self.by_due.insert((due_ms, timer));
        self.due_of.insert(timer, due_ms);
    }

    /// Sets a deadline unless an earlier one is set.
    pub fn set_earlier(&mut self, timer: Timer, due_ms: u64) {
        if self.due_of.get(&timer).is_none_or(|due| due_ms < *due) {
            self.set(timer, due_ms);
        }
    }

    /// Removes a deadline.
    pub fn cancel(&mut self, timer: Timer) {
        if let Some(due) = self.due_of.remove(&timer) {
            self.by_due.remove(&(due, timer));
        }
    }

    /// Removes all deadlines of a stream.
    pub fn cancel_all(&mut self, stream: StreamId) {
        let is_of_it = |timer: &&Timer| matches!(timer, Timer::Stream(id, _) if *id == stream);
        let from = self.due_of.range(Timer::Stream(stream, Purpose::Retry)..).map(|(timer, _)| timer);
        let all: Vec<Timer> = from.take_while(is_of_it).copied().collect();
        all.into_iter().for_each(|timer| self.cancel(timer));
    }

    fn is_set(&self, timer: Timer) -> bool {
        self.due_of.contains_key(&timer)
    }

    /// The next deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Takes a timer that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        let (due, timer) = *self.by_due.first()?;
        if due > now_ms {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

/// Buffers and batches in use, bounded. When the credit is used up, reading waits: the log file is the queue.
#[derive(Debug)]
pub struct Credit {
    bytes_max: u64,
    bytes_out: u64,
    batches_out: usize,
    file_reads: usize,
    file_reads_max: usize,
    /// Returned buffers of [`READ_BYTES`], kept for the next reads.
    spare: Vec<Vec<u8>>,
}

impl Credit {
    /// At most `bytes_max` bytes of buffers and `file_reads_max` file reads are in use; one read is always possible.
    pub fn new(bytes_max: u64, file_reads_max: usize) -> Credit {
        let file_reads_max = file_reads_max.clamp(1, FILE_READS_MAX);
        Credit { bytes_max, bytes_out: 0, batches_out: 0, file_reads: 0, file_reads_max, spare: Vec::new() }
    }

    /// Bytes of buffers in use, and the bound.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_out, self.bytes_max)
    }

    /// A buffer for a file read, if there is room.
    pub fn file_read(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if !self.has_file_read() {
            return None;
        }
        let buffer = self.buffer(capacity)?;
        self.file_reads += 1;
        Some(buffer)
    }

    /// Whether one more file read may begin.
    pub fn has_file_read(&self) -> bool {
        self.file_reads < self.file_reads_max
    }

    /// A file read has ended; its buffer is still in use.
    pub fn file_read_done(&mut self) {
        self.file_reads -= 1;
    }

    /// A file read hangs: its buffer must not keep others from reading.
    pub fn set_aside(&mut self, bytes: u64) {
        self.file_reads -= 1;
        self.bytes_out = self.bytes_out.saturating_sub(bytes);
    }

    /// A file read that was set aside has ended: its buffer counts again.
    pub fn take_back(&mut self, bytes: u64) {
        self.file_reads += 1;
        self.bytes_out += bytes;
    }

    /// A batch waits for an output that takes nothing, and must not keep other streams from reading.
    pub fn set_batch_aside(&mut self, bytes: u64) {
        self.batches_out = self.batches_out.saturating_sub(1);
        self.bytes_out = self.bytes_out.saturating_sub(bytes);
    }

    /// A batch that was set aside counts again.
    pub fn take_batch_back(&mut self, bytes: u64) {
        self.batches_out += 1;
        self.bytes_out += bytes;
    }

    /// A buffer, if there is room for it and for the batch it will become.
    pub fn buffer(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if !self.has_room(capacity) {
            return None;
        }
        let buffer = match self.spare.pop() {
            Some(buffer) if capacity == READ_BYTES => buffer,
            Some(other) => {
                self.spare.push(other);
                Vec::with_capacity(capacity)
            }
            None => Vec::with_capacity(capacity),
        };
        self.bytes_out += buffer.capacity() as u64;
        Some(buffer)
    }

    /// Whether there is room for a buffer of this size.
    pub fn has_room(&self, capacity: usize) -> bool {
        let fits = self.bytes_out == 0 || self.bytes_out + capacity as u64 <= self.bytes_max;
        fits && self.batches_out < SINK_BATCHES_MAX - FILE_READS_MAX
    }

    /// Buffers in use have grown (a batch's made text, a larger buffer).
    pub fn grow(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Takes buffers back.
    pub fn give_back(&mut self, mut buffer: Vec<u8>, other_bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_sub(buffer.capacity() as u64 + other_bytes);
        // A few are enough: an idle agent should not keep what a busy one needed.
        if buffer.capacity() == READ_BYTES && self.spare.len() < 4 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A batch goes to the sinks.
    pub fn batch_out(&mut self) {
        self.batches_out += 1;
    }

    /// All sinks have acknowledged a batch.
    pub fn batch_back(&mut self) {
        self.batches_out -= 1;
    }

    /// How many batches are with the sinks.
    pub fn batches_out(&self) -> usize {
        self.batches_out
    }
}

/// The slots of api streams. A stream that finds none waits in line, and gets the next slot that is returned.
#[derive(Debug)]
pub struct Pool {
    slots_max: usize,
    used: usize,
    line: VecDeque<StreamId>,
    granted: Vec<StreamId>,
    next_rotation_ms: u64,
    contended: bool,
    /// The Engine is not there or does not answer: the log has it, once for all streams.
    pub engine_is_away: bool,
}

impl Pool {
    /// At most this many connections follow at once.
    pub fn new(slots_max: usize) -> Pool {
        Pool {
            slots_max,
            used: 0,
            line: VecDeque::new(),
            granted: Vec::new(),
            next_rotation_ms: 0,
            contended: false,
            engine_is_away: false,
        }
    }

    /// Takes a slot for this stream. If there is none, the stream waits in line until [`Pool::take_granted`] names it.
    pub fn take(&mut self, stream: StreamId) -> bool {
        if self.used < self.slots_max && self.line.is_empty() {
            self.used += 1;
            return true;
        }
        self.contended = true;
        if !self.line.contains(&stream) {
            self.line.push_back(stream);
        }
        false
    }

    /// Returns a slot.
    pub fn release(&mut self) {
        match self.line.pop_front() {
            Some(next) => self.granted.push(next),
            None => self.used -= 1,
        }
    }

    /// A stream no longer wants a slot.
    pub fn forget(&mut self, stream: StreamId) {
        self.line.retain(|waiting| *waiting != stream);
    }

    /// Whether any stream waits in line.
    pub fn anyone_waits(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many streams wait in line.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Whether there are more streams than slots, as far as known, so that quiet ones should give up theirs.
    pub fn is_contended(&self) -> bool {
        self.contended
    }

    /// Sets how many streams want a slot. Returns whether that is more than there are.
    pub fn set_wanted(&mut self, streams: usize) -> bool {
        self.contended = streams > self.slots_max;
        self.contended
    }

    /// Streams that got a slot since the last call.
    pub fn take_granted(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.granted)
    }

    /// Used share of the slots, 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.used as f64 / self.slots_max.max(1) as f64
    }

    /// The earliest time for the next rotation, so that streams don't reopen together.
    pub fn next_rotation_ms(&self, now_ms: u64) -> u64 {
        self.next_rotation_ms.max(now_ms)
    }

    /// A rotation began; the next may begin then.
    pub fn rotated(&mut self, next_ms: u64) {
        self.next_rotation_ms = next_ms;
    }
}

/// Turns to read on file systems that may hang: on each, one file is read at a time, so that a hung one holds only one
/// buffer.
#[derive(Debug, Default)]
pub struct ReadTurns {
    reading: BTreeSet<LaneId>,
    lines: BTreeMap<LaneId, VecDeque<StreamId>>,
    freed: BTreeSet<LaneId>,
}

impl ReadTurns {
    /// Takes the turn if it is free; otherwise the stream waits in line until [`ReadTurns::next_in_line`] names it. Call it
    /// once until then.
    pub fn take(&mut self, lane: LaneId, stream: StreamId) -> bool {
        let free = self.reading.insert(lane);
        if !free {
            self.lines.entry(lane).or_default().push_back(stream);
        }
        free
    }

    /// A read has ended or was not begun.
    pub fn release(&mut self, lane: LaneId) {
        self.reading.remove(&lane);
        if self.lines.contains_key(&lane) {
            self.freed.insert(lane);
        }
    }

    /// The next stream that may try. If it does not take the turn, the next one is named.
    pub fn next_in_line(&mut self) -> Option<StreamId> {
        while let Some(lane) = self.freed.first().copied() {
            let free = !self.reading.contains(&lane);
            if let Some(stream) = self.lines.get_mut(&lane).filter(|_| free).and_then(VecDeque::pop_front) {
                return Some(stream);
            }
            self.freed.remove(&lane);
            self.lines.retain(|_, line| !line.is_empty());
        }
        None
    }
}

/// A small deterministic generator for jitter: the same seed gives the same run.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// A value between `ms` × 3/4 and `ms` × 5/4.
    pub fn around(&mut self, ms: u64) -> u64 {
        // xorshift64; quality does not matter here.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ms - ms / 4 + self.0 % (ms / 2 + 1)
    }

    /// As [`back_off_ms`], with jitter, and never more than `max_ms`.
    pub fn back_off(&mut self, first_ms: u64, failures: u32, max_ms: u64) -> u64 {
        // Jitter adds up to a quarter.
        self.around(back_off_ms(first_ms, failures, max_ms / 5 * 4))
    }
}

/// What a part of the core is called with.
pub struct Context<'a> {
    /// The time of the event.
    pub now: Now,
    /// The settings of this run.
    pub settings: &'a Settings,
    /// The counters to add to.
    pub metrics: &'a Metrics,
    /// Where actions are added.
    pub actions: &'a mut Vec<Action>,
    /// Room for buffers of the stream's outlet.
    pub credit: &'a mut Credit,
    /// Deadlines of all parts.
    pub timers: &'a mut Timers,
    /// Slots of api streams.
    pub pool: &'a mut Pool,
    /// Turns on file systems that may hang.
    pub lanes: &'a mut ReadTurns,
    /// Jitter for back-offs.
    pub jitter: &'a mut Jitter,
    /// Who reads which file.
    pub owners: &'a mut Owners,
    /// How many files are open.
    pub open_files: &'a mut OpenFiles,
    /// What was read of each source.
    pub counted: &'a mut ReadCounts,
    /// Texts that many streams share.
    pub texts: &'a mut Texts,
    /// The table of files read.
    pub memory: &'a Table,
    /// The last number given to a stream, connection, request or file.
    pub last_number: &'a mut u64,
}

/// The pause after so many failures in a row: the first pause, doubled with each further failure, at most 65,536 times
/// as long.
fn back_off_ms(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    (first_ms << failures.saturating_sub(1).min(16)).min(max_ms)
}

/// The parts of a context that are the same for every part of the core.
#[derive(Debug)]
pub struct Shared {
    /// See [`Context`] for this and the other fields.
    pub actions: Vec<Action>,
    pub timers: Timers,
    pub pool: Pool,
    pub lanes: ReadTurns,
    pub jitter: Jitter,
    pub owners: Owners,
    pub open_files: OpenFiles,
    pub counted: ReadCounts,
    texts: Texts,
    last_number: u64,
}

impl Shared {
    /// `seed` is for jitter.
    pub fn new(settings: &Settings, counted: ReadCounts, seed: u64) -> Shared {
        let close_idle_after_ms = settings.file_monitor.close_idle_after.as_millis() as u64;
        Shared {
            actions: Vec::new(),
            timers: Timers::default(),
            pool: Pool::new(settings.container_monitor.rotation.max_concurrent_streams),
            lanes: ReadTurns::default(),
            jitter: Jitter::new(seed),
            owners: Owners::default(),
            open_files: OpenFiles::new(settings.file_monitor.max_open, close_idle_after_ms),
            counted,
            texts: Texts::default(),
            last_number: 0,
        }
    }

    /// A context for a part whose buffers come from this credit.
    pub fn context<'a>(
        &'a mut self,
        now: Now,
        settings: &'a Settings,
        metrics: &'a Metrics,
        credit: &'a mut Credit,
        memory: &'a Table,
    ) -> Context<'a> {
        Context {
            now,
            settings,
            metrics,
            actions: &mut self.actions,
            credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            lanes: &mut self.lanes,
            jitter: &mut self.jitter,
            owners: &mut self.owners,
            open_files: &mut self.open_files,
            counted: &mut self.counted,
            texts: &mut self.texts,
            memory,
            last_number: &mut self.last_number,
        }
    }
}

impl Context<'_> {
    /// Gives an order.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Calls the stream at that moment for that purpose, instead of at an earlier set one.
    pub fn wake(&mut self, stream: StreamId, purpose: Purpose, at_ms: u64) {
        self.timers.set(Timer::Stream(stream, purpose), at_ms);
    }

    /// As `wake`, unless it will be called sooner.
    pub fn wake_by(&mut self, stream: StreamId, purpose: Purpose, at_ms: u64) {
        self.timers.set_earlier(Timer::Stream(stream, purpose), at_ms);
    }

    /// Whether the stream will be called for that purpose.
    pub fn will_wake(&self, stream: StreamId, purpose: Purpose) -> bool {
        self.timers.is_set(Timer::Stream(stream, purpose))
    }

    /// Cancels the deadline for that purpose.
    pub fn let_sleep(&mut self, stream: StreamId, purpose: Purpose) {
        self.timers.cancel(Timer::Stream(stream, purpose));
    }

    fn number(&mut self) -> u64 {
        *self.last_number += 1;
        *self.last_number
    }

    /// A new connection's number.
    pub fn new_conn(&mut self) -> ConnId {
        ConnId(self.number())
    }

    /// A new request's number.
    pub fn new_request(&mut self) -> RequestId {
        RequestId(self.number())
    }

    /// A new file's number.
    pub fn new_file(&mut self) -> FileNo {
        FileNo(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_one_deadline() {
        let mut timers = Timers::default();
        timers.set(Timer::Paths, 10);
        timers.set(Timer::Paths, 20);
        timers.set(Timer::Checkpoint, 15);
        timers.set_earlier(Timer::Checkpoint, 18);
        assert_eq!((timers.next_ms(), timers.pop_due(14)), (Some(15), None));
        assert_eq!(timers.pop_due(15), Some(Timer::Checkpoint));
        assert_eq!(
            (timers.pop_due(19), timers.pop_due(20), timers.pop_due(99)),
            (None, Some(Timer::Paths), None)
        );
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = [0, 1, 2, 3, 8, 100, u32::MAX].map(|failures| back_off_ms(200, failures, 30_000));
        assert_eq!(pauses, [200, 200, 400, 800, 25_600, 30_000, 30_000]);
        assert_eq!(back_off_ms(200, u32::MAX, u64::MAX), 200 * 65_536);
    }

    #[test]
    fn a_stream_that_is_gone_has_no_deadlines() {
        let mut timers = Timers::default();
        let all = [Purpose::Retry, Purpose::Room, Purpose::Trickle];
        for stream in [StreamId(1), StreamId(2), StreamId(3)] {
            all.iter().for_each(|purpose| timers.set(Timer::Stream(stream, *purpose), 10));
        }
        timers.set(Timer::Discovery, 10);
        timers.cancel_all(StreamId(2));
        let mut left = Vec::new();
        while let Some(timer) = timers.pop_due(10) {
            left.push(timer);
        }
        let of = |stream| all.map(|purpose| Timer::Stream(StreamId(stream), purpose));
        assert_eq!(left, [&of(1)[..], &of(3), &[Timer::Discovery]].concat());
    }

    #[test]
    fn credit_bounds_bytes_and_reads_but_never_stops_the_only_one() {
        let mut credit = Credit::new(2 * READ_BYTES as u64, FILE_READS_MAX);
        let first = credit.file_read(READ_BYTES).unwrap();
        let _second = credit.file_read(READ_BYTES).unwrap();
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.file_read_done();
        credit.give_back(first, 0);
        assert!(credit.file_read(READ_BYTES).is_some());
        let mut tiny = Credit::new(1, FILE_READS_MAX);
        assert!(tiny.buffer(READ_BYTES).is_some());
    }

    /// A hung file system must not use up the others' room.
    #[test]
    fn a_hung_read_is_set_aside_and_comes_back() {
        let mut credit = Credit::new(1, FILE_READS_MAX);
        let hung = credit.file_read(READ_BYTES).unwrap();
        let bytes = hung.capacity() as u64;
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.set_aside(bytes);
        let other = credit.file_read(READ_BYTES).unwrap();
        credit.file_read_done();
        credit.give_back(other, 0);
        credit.take_back(bytes);
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.file_read_done();
        credit.give_back(hung, 0);
        assert!(credit.file_read(READ_BYTES).is_some());
    }

    #[test]
    fn a_lane_has_one_reader_and_a_line() {
        let (mut lanes, [one, two, three]) = (ReadTurns::default(), [1, 2, 3].map(StreamId));
        assert!(lanes.take(LaneId(1), one) && lanes.take(LaneId(2), one));
        assert!(!lanes.take(LaneId(1), two) && !lanes.take(LaneId(1), three));
        assert_eq!(lanes.next_in_line(), None);
        lanes.release(LaneId(1));
        // The first does not want it any more, the second does.
        assert_eq!(lanes.next_in_line(), Some(two));
        assert_eq!(lanes.next_in_line(), Some(three));
        assert!(lanes.take(LaneId(1), three));
        assert_eq!(lanes.next_in_line(), None);
        lanes.release(LaneId(1));
        assert_eq!(lanes.next_in_line(), None);
        assert!(lanes.take(LaneId(1), two));
    }

    #[test]
    fn jitter_stays_around() {
        let mut jitter = Jitter::new(7);
        for _ in 0..1000 {
            assert!((75..=125).contains(&jitter.around(100)));
        }
        assert_eq!(jitter.around(0), 0);
        for _ in 0..1000 {
            assert!((150..=250).contains(&jitter.back_off(200, 1, 20_000)));
            assert!((12_000..=20_000).contains(&jitter.back_off(200, 100, 20_000)));
        }
    }
}
