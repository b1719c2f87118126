//! The waiting records of one label set, and its cut up request. It holds places in the spool and no lines; lines are
//! read when their turn comes, so a label set that waits takes no memory from others. Pure.

use std::collections::VecDeque;

use super::delivery::{Refused, Trouble};
use super::parcel::Parcel;
use crate::sink::backoff::Backoff;
use crate::sink::spool::Position;

/// How many requests may be refused during the search for a bad line in one request.
pub(super) const TRIES: u32 = 64;

/// A record in the spool that is to be delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub place: Position,
    pub lines: usize,
    pub bytes: usize,
    pub taken_ms: u64,
    /// Lines at its beginning that an earlier run delivered.
    pub done: usize,
}

/// A label set of a tenant.
#[derive(Debug)]
pub(super) struct LabelSet {
    pub tenant: String,
    pub queue: VecDeque<Entry>,
    pub lines: usize,
    pub bytes: usize,
    /// How many lines at the beginning of the first record are done.
    pub skip: usize,
    /// Lines behind those that need nothing more: stored or buried by a request of which others are to be sent again. Their
    /// numbers, in order, counted from the first line of the first record.
    decided: Vec<u32>,
    pub state: LabelSetState,
    /// When it acts without an event.
    pub timer: Option<u64>,
    pub backoff: Backoff,
    /// Most lines of a request: fewer while Loki limits the label set's rate.
    pub lines_max: usize,
    /// Cut up, and waiting for its turn.
    pub kept: Option<Job>,
    pub trouble: Option<LabelSetTrouble>,
    /// How often its tenant had been accepted when it was refused last for what may be a line of its own.
    pub refused_at: Option<u64>,
}

/// Why a label set waits, with its labels for messages.
#[derive(Clone, Debug)]
pub(super) struct LabelSetTrouble {
    pub labels: String,
    pub trouble: Trouble,
    /// When it was refused last.
    pub last_ms: u64,
}

impl LabelSetTrouble {
    /// Whether accepted lines show that it is over.
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.trouble.is_over(self.last_ms, now_ms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelSetState {
    /// Waits for more lines, for a short while.
    Gathering,
    /// Waits for its turn.
    Ready,
    /// Has a request.
    Busy,
    /// Waits before it tries again.
    Waiting,
}

impl LabelSet {
    pub fn new(tenant: String, lines_max: usize) -> LabelSet {
        LabelSet {
            tenant,
            queue: VecDeque::new(),
            lines: 0,
            bytes: 0,
            skip: 0,
            decided: Vec::new(),
            state: LabelSetState::Gathering,
            timer: None,
            backoff: Backoff::default(),
            lines_max,
            kept: None,
            trouble: None,
            refused_at: None,
        }
    }

    pub fn push(&mut self, entry: Entry) {
        self.lines += entry.lines;
        self.bytes += entry.bytes;
        if self.queue.is_empty() {
            self.skip = entry.done;
        }
        self.queue.push_back(entry);
    }

    fn pop(&mut self) {
        let Some(first) = self.queue.pop_front() else { return };
        self.lines -= first.lines;
        self.bytes -= first.bytes;
        self.decided.retain_mut(|number| {
            let of_later = *number as usize >= first.lines;
            *number = number.saturating_sub(first.lines as u32);
            of_later
        });
    }

    fn done_of_first(&self) -> usize {
        self.queue.front().map_or(0, |first| first.done)
    }

    /// Numbers of the lines of its first records that are to be sent, and which lines of a request of those that are there
    /// these are. `there`: for each record, whether it is.
    pub fn to_send(&self, there: &[bool]) -> (Vec<u32>, Vec<bool>) {
        let (mut numbers, mut first) = (Vec::new(), 0);
        for (entry, is_there) in self.queue.iter().zip(there) {
            let behind = first + entry.lines as u32;
            if *is_there {
                numbers.extend(first..behind);
            }
            first = behind;
        }
        let is_left =
            |number: &u32| *number as usize >= self.skip && self.decided.binary_search(number).is_err();
        let left: Vec<bool> = numbers.iter().map(is_left).collect();
        numbers.retain(is_left);
        (numbers, left)
    }

    /// A job is given up, and its lines will be read again: remembers which of them need nothing more.
    pub fn leave(&mut self, job: &Job) {
        let (mut left, mut end) = (Vec::new(), self.skip);
        for part in &job.parts {
            if part.letters.is_empty() {
                left.extend_from_slice(&part.at);
            } else {
                // Which of them the letters are does not matter: they will be made again.
                left.extend(end as u32..(end + part.covers) as u32);
            }
            end += part.covers;
        }
        left.sort_unstable();
        let before = std::mem::take(&mut self.decided);
        let decided = (self.skip as u32..end as u32)
            .filter(|number| left.binary_search(number).is_err() || before.binary_search(number).is_ok());
        // The job before may have had more records.
        let of_later = before.iter().copied().filter(|number| *number >= end as u32);
        self.decided = decided.chain(of_later).collect();
    }

    /// This many lines from the front are done; returns the places of finished records.
    pub fn advance(&mut self, lines: usize, done: &mut Vec<Position>) {
        self.skip += lines;
        while let Some(first) = self.queue.front().copied().filter(|first| first.lines <= self.skip) {
            self.skip -= first.lines;
            done.push(first.place);
            self.pop();
            // A request ends before a record of which lines are done.
            self.skip = self.skip.max(self.done_of_first());
        }
        let skip = self.skip as u32;
        self.decided.retain(|number| *number >= skip);
    }

    /// Gives up its oldest records as long as `wanted` says so, if nothing of it is under way nor cut up: their places, of which
    /// the first may have been delivered in part.
    pub fn give_up(&mut self, mut wanted: impl FnMut(&Entry) -> bool) -> Vec<Position> {
        let rests =
            matches!(self.state, LabelSetState::Waiting | LabelSetState::Ready) && self.kept.is_none();
        let mut given_up = Vec::new();
        // The last stays, so that whoever holds the label set finds something in it.
        while rests
            && self.queue.len() > 1
            && let Some(first) = self.queue.front().copied().filter(|first| wanted(first))
        {
            self.pop();
            self.skip = self.done_of_first();
            given_up.push(first.place);
        }
        given_up
    }

    /// The records of its next request: as many as fit, at least one.
    pub fn next_request(&self, bytes_max: usize) -> Vec<Position> {
        let (mut bytes, mut lines, mut places) = (0, 0, Vec::new());
        for entry in &self.queue {
            bytes += entry.bytes;
            lines += entry.lines;
            if !places.is_empty() && (bytes > bytes_max || lines > self.lines_max || entry.done > 0) {
                break;
            }
            places.push(entry.place);
        }
        places
    }
}

/// Lines that are read for one request, and their state until all of them are gone.
#[derive(Debug)]
pub(super) struct Job {
    pub label_set: u64,
    /// Still to be sent, in order; the first is under way.
    pub parts: VecDeque<Part>,
    /// Refused alone, for no reason that is known, while nothing showed that it was Loki who refused.
    pub doubtful: VecDeque<Part>,
    /// Lines that are done behind a doubtful one.
    pub late: usize,
    /// How often anything had been accepted when the first doubt came.
    pub doubt: Option<u64>,
    /// How many refusals are left before the rest is given up.
    pub tries: u32,
    pub was_cut: bool,
}

/// Some lines of a job.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Lines of the records that are done when this part is.
    pub covers: usize,
    /// To be written to the dead letters before anything else.
    pub letters: Vec<Refused>,
    /// How many lines `body` has.
    pub lines: usize,
    /// Their numbers, counted from the first line of the label set's first record.
    pub at: Vec<u32>,
    /// Empty = nothing to send.
    pub body: Parcel,
    /// Lines that Loki stored or refused: what of them is refused again alone is refused.
    pub sent_again: bool,
    /// How often it was refused, one line alone, by what may be a firewall.
    pub alone: u32,
}

impl Job {
    pub fn new(label_set: u64, parts: VecDeque<Part>) -> Job {
        Job {
            label_set,
            parts,
            doubtful: VecDeque::new(),
            late: 0,
            doubt: None,
            tries: TRIES,
            was_cut: false,
        }
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().chain(&self.doubtful).map(|part| part.body.len()).sum()
    }
}
