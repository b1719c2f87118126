//! The invariants of a simulation, which hold whatever goes wrong: a ledger of every printed line and of its fate in
//! each sink, and the checks on both. Each invariant is a function; a violation panics with its name.
//!
//! The checker knows nothing of the core's inside: it sees what was written where, acknowledged and saved, and which
//! lines the host no longer has.

mod flow;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::limits::PIECE_BYTES;
use capturer::testing::{Batch, Cursor, MessageForm, Record, StreamKey, timestamp};
pub(crate) use flow::Flow;

/// One line: its origin, channel and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId {
    /// Container or path.
    pub origin: u32,
    /// Index of the channel.
    pub channel: u8,
    /// Number on it.
    pub index: u32,
}

/// A printed line.
#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    /// `None` for plain files.
    time_ns: Option<i64>,
    /// Nothing more is added to it.
    whole: bool,
    /// The host no longer has it, or never had it whole.
    gone: bool,
    /// It was written to a file that had been renamed already: it may come behind lines of the next file.
    late: bool,
}

/// Who prints.
#[derive(Debug)]
struct Origin {
    key: StreamKey,
    lines: [Vec<Line>; 2],
}

/// By origin and channel: how far a sink is.
type Progress = BTreeMap<u32, [Reached; 2]>;

/// How far a sink is on a channel.
#[derive(Clone, Debug, Default)]
struct Reached {
    /// Lines before this number are done.
    next: usize,
    /// But for these, which were written late.
    owed: BTreeSet<usize>,
}

/// What one sink has.
#[derive(Debug, Default)]
struct Delivered {
    /// By origin and channel: which lines it has.
    has: BTreeMap<u32, [Vec<bool>; 2]>,
    /// By origin: the next line that may come.
    next: Progress,
    /// The same as of the acknowledgements that the core has taken.
    acked: Progress,
    /// Batches written whose acknowledgement is under way: stream, number, state behind it.
    under_way: VecDeque<(StreamKey, u64, [Reached; 2])>,
}

/// One sink as the checker knows it.
#[derive(Debug)]
struct Sink {
    name: String,
    /// Its position is in the checkpoint.
    tracked: bool,
    /// It can look at what it wrote before.
    has_outputs: bool,
    delivered: Delivered,
}

/// The state that a checkpoint stands for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(Vec<Progress>);

/// The checker; see the head of this file.
#[derive(Debug)]
pub struct Checker {
    origins: Vec<Origin>,
    by_key: BTreeMap<StreamKey, u32>,
    sinks: Vec<Sink>,
    /// By stream and sink: the position that a checkpoint may hold.
    cursors: BTreeMap<(StreamKey, String), Cursor>,
    line_bytes_max: usize,
    /// A pipeline joins lines by the clock: after a restart it may join others, and a record that differs is written again.
    pub(crate) joins: bool,
    /// Lines written to sinks, twice counted if written twice.
    pub written: u64,
}

fn violated(invariant: &str, what: String) -> ! {
    panic!("invariant broken: {invariant}: {what}");
}

/// What a record says of a line in it besides its text; of the further lines that it joins, nothing.
#[derive(Debug)]
struct Known {
    time: Option<Option<i64>>,
    truncated: Option<bool>,
}

impl Checker {
    /// `sinks` by number: name, and whether its position is in the checkpoint.
    pub fn new(sinks: &[(&str, bool)], line_bytes_max: usize) -> Checker {
        let sink = |(name, tracked): &(&str, bool)| Sink {
            name: (*name).to_owned(),
            tracked: *tracked,
            has_outputs: *name == "local_file",
            delivered: Delivered::default(),
        };
        Checker {
            origins: Vec::new(),
            by_key: BTreeMap::new(),
            sinks: sinks.iter().map(sink).collect(),
            cursors: BTreeMap::new(),
            line_bytes_max,
            joins: false,
            written: 0,
        }
    }

    // ---- the ledger

    /// A container or path.
    pub fn add_origin(&mut self, key: StreamKey) -> u32 {
        let origin = self.origins.len() as u32;
        self.by_key.insert(key.clone(), origin);
        self.origins.push(Origin { key, lines: [Vec::new(), Vec::new()] });
        origin
    }

    /// A line begins.
    pub fn begin_line(&mut self, origin: u32, channel: usize, time_ns: Option<i64>) -> LineId {
        let lines = &mut self.origins[origin as usize].lines[channel];
        lines.push(Line { text: Vec::new(), time_ns, whole: false, gone: false, late: false });
        LineId { origin, channel: channel as u8, index: lines.len() as u32 - 1 }
    }

    /// The number the next line of a channel will have.
    pub fn lines_begun(&self, origin: u32, channel: usize) -> usize {
        self.origins[origin as usize].lines[channel].len()
    }

    fn line_mut(&mut self, id: LineId) -> &mut Line {
        &mut self.origins[id.origin as usize].lines[usize::from(id.channel)][id.index as usize]
    }

    /// More of a line was printed.
    pub fn extend_line(&mut self, id: LineId, text: &[u8]) {
        self.line_mut(id).text.extend_from_slice(text);
    }

    /// Some of it was written to a file that had been renamed already.
    pub fn line_is_late(&mut self, id: LineId) {
        self.line_mut(id).late = true;
    }

    /// It is whole: by its newline, or because nobody will go on with it.
    pub fn end_line(&mut self, id: LineId) {
        self.line_mut(id).whole = true;
    }

    /// The host no longer has these.
    pub fn lines_gone(&mut self, lines: impl IntoIterator<Item = LineId>) {
        for id in lines {
            self.line_mut(id).gone = true;
        }
    }

    // ---- what sinks have

    /// A sink wrote a batch; of its records only the `kept`, as its output already had the others.
    pub fn on_written(&mut self, sink: usize, batch: &Batch, kept: Option<&[usize]>) {
        let Some(origin) = self.by_key.get(&batch.source.key).copied() else {
            violated("no_action_for_the_unknown", format!("a batch of {:?}", batch.source.key))
        };
        for (number, record) in batch.records.iter().enumerate() {
            let is_kept = kept.is_none_or(|kept| kept.binary_search(&number).is_ok());
            let message = decoded(batch, record);
            let time = match record.time_len {
                0 => None,
                _ => timestamp::parse(batch.time(record)),
            };
            let channel = record.std_type.index();
            // No line has a newline in it: one in a record is between two of them.
            let is_joined = message.contains(&b'\n');
            let mut was_owed = true;
            for (number, text) in message.split(|byte| *byte == b'\n').enumerate() {
                let known = Known {
                    time: (number == 0).then_some(time),
                    truncated: (!is_joined).then_some(record.truncated),
                };
                let index = self.find(sink, origin, channel, &known, text, was_owed);
                let line = LineId { origin, channel: channel as u8, index };
                let owed = self.nothing_is_skipped(sink, line);
                let delivered = &mut self.sinks[sink].delivered;
                let reached = &mut delivered.next.entry(origin).or_default()[channel];
                was_owed = reached.owed.remove(&(index as usize));
                if !was_owed {
                    reached.next = index as usize + 1;
                    reached.owed.extend(owed);
                }
                let has = &mut delivered.has.entry(origin).or_default()[channel];
                has.resize(has.len().max(index as usize + 1), false);
                let had = std::mem::replace(&mut has[index as usize], true);
                let may_differ = is_joined || self.is_rest(line, text);
                self.outputs_have_each_line_once(sink, line, is_kept, had, may_differ);
            }
        }
        self.written += batch.records.len() as u64;
        let delivered = &mut self.sinks[sink].delivered;
        let state = delivered.next.get(&origin).cloned().unwrap_or_default();
        delivered.under_way.push_back((batch.source.key.clone(), batch.seq, state));
    }

    /// What an output has from the last run is not written again, and what it lacks is not left out. A sink without outputs
    /// can't know.
    fn outputs_have_each_line_once(
        &self,
        sink: usize,
        line: LineId,
        kept: bool,
        had: bool,
        may_differ: bool,
    ) {
        // After a kill a file that grew may come before what the output has of the next one (docs/delivered.md).
        let is_late = || self.origins[line.origin as usize].lines.iter().flatten().any(|line| line.late);
        let may_differ = || self.joins || may_differ || is_late();
        if self.sinks[sink].has_outputs && kept == had && !(kept && may_differ()) {
            let what = if kept { "came twice" } else { "was left out, but is not there" };
            violated("outputs_have_each_line_once", format!("{}: {line:?} {what}", self.sinks[sink].name));
        }
    }

    /// Whether this is the end of a long line whose beginning is in a file that is gone. The output may have the whole line: it
    /// came over the API before the agent was killed. Nothing shows that the two belong together, so the end comes on its own.
    fn is_rest(&self, line: LineId, text: &[u8]) -> bool {
        let line = &self.origins[line.origin as usize].lines[usize::from(line.channel)][line.index as usize];
        line.gone && text != &line.text[..line.text.len().min(self.line_bytes_max)]
    }

    /// Which line this is: the next one that looks so. Each line's text holds its number; empty ones have a time of
    /// their own, or are in files of which nothing gets lost. `owed`: it may be one of those.
    fn find(
        &self,
        sink: usize,
        origin: u32,
        channel: usize,
        known: &Known,
        message: &[u8],
        owed: bool,
    ) -> u32 {
        let nothing = Reached::default();
        let reached = self.sinks[sink].delivered.next.get(&origin).map_or(&nothing, |next| &next[channel]);
        let next = reached.next;
        let origin = &self.origins[origin as usize];
        let lines = &origin.lines[channel];
        let is_it = |line: &Line| {
            let cut = line.text.len() > self.line_bytes_max;
            let expected = &line.text[..line.text.len().min(self.line_bytes_max)];
            let whole =
                line.whole && known.truncated.is_none_or(|truncated| cut == truncated) && expected == message;
            // Files with some of its pieces are gone: what is left of it is not known from a line.
            let rest = line.gone && line.text.len() >= PIECE_BYTES && is_of_pieces(&line.text, message);
            known.time.is_none_or(|time| line.time_ns == time) && (whole || rest)
        };
        if let Some(at) = reached.owed.iter().filter(|_| owed).find(|at| is_it(&lines[**at])) {
            return *at as u32;
        }
        if let Some(at) = lines[next..].iter().position(is_it) {
            return (next + at) as u32;
        }
        let shown = |text: &[u8]| {
            let start: String = String::from_utf8_lossy(text).chars().take(60).collect();
            format!("{start:?} ({} bytes)", text.len())
        };
        let what = format!(
            "{} channel {channel} of {:?} got {} {known:?}; next expected: {next} {:?}",
            self.sinks[sink].name,
            origin.key,
            shown(message),
            lines.get(next).map(|line| (shown(&line.text), line.time_ns, line.whole, line.gone)),
        );
        match lines[..next].iter().rposition(is_it) {
            Some(at) => violated("order_is_kept_and_no_line_comes_twice", format!("line {at} again: {what}")),
            None => violated("no_line_is_altered", what),
        }
    }

    /// A line passed over never comes again: it must be one that the host has no more, or one that was written late. Returns
    /// the latter.
    fn nothing_is_skipped(&self, sink: usize, line: LineId) -> Vec<usize> {
        let channel = usize::from(line.channel);
        let next = self.sinks[sink].delivered.next.get(&line.origin).map_or(0, |next| next[channel].next);
        let origin = &self.origins[line.origin as usize];
        let mut owed = Vec::new();
        for index in next..line.index as usize {
            let skipped = &origin.lines[channel][index];
            if skipped.late {
                owed.push(index);
            } else if !skipped.gone {
                violated(
                    "no_line_is_lost_that_the_host_still_has",
                    format!(
                        "{}: line {index} of channel {channel} of {:?} was passed over, next came {}: {skipped:?}",
                        self.sinks[sink].name, origin.key, line.index,
                    ),
                );
            }
        }
        owed
    }

    // ---- acknowledgements and checkpoints

    /// The core takes an acknowledgement.
    pub fn on_acked(&mut self, sink: usize, batch: &Batch) {
        let name = self.sinks[sink].name.clone();
        let delivered = &mut self.sinks[sink].delivered;
        let (key, seq, state) =
            delivered.under_way.pop_front().expect("only what was written is acknowledged");
        assert_eq!((&key, seq), (&batch.source.key, batch.seq), "the world acknowledges in order");
        delivered.acked.insert(self.by_key[&key], state);
        let mut end = batch.end.clone();
        drop(end.take_done());
        self.cursors.insert((key, name), end);
    }

    /// The core wants this saved.
    pub(crate) fn checkpoint_is_not_ahead_of_acks(&self, checkpoint: &Checkpoint) -> Snapshot {
        for (key, entry) in &checkpoint.streams {
            for (sink, position) in entry.sinks.iter() {
                let known = self.cursors.get(&(key.clone(), sink.to_string()));
                let expected = known.unwrap_or(&Cursor::Beginning);
                // Before anything is acknowledged it names the file that it begins with.
                let begins = known.is_none_or(|known| *known == Cursor::Beginning)
                    && matches!(&position.cursor, Cursor::File(at) if at.offset == 0);
                if without_length(&position.cursor) != without_length(expected) && !begins {
                    violated(
                        "checkpoint_is_not_ahead_of_acks",
                        format!("{key:?} {sink}: saved {:?}, acknowledged {expected:?}", position.cursor),
                    );
                }
            }
        }
        Snapshot(self.sinks.iter().map(|sink| sink.delivered.acked.clone()).collect())
    }

    /// The agent is gone; a new one will begin with `checkpoint`, which stands for `snapshot`. Sinks have what they have.
    pub(crate) fn on_restart(&mut self, checkpoint: &Checkpoint, snapshot: &Snapshot) {
        self.cursors.clear();
        for (key, entry) in &checkpoint.streams {
            for (sink, position) in entry.sinks.iter() {
                self.cursors.insert((key.clone(), sink.to_string()), position.cursor.clone());
            }
        }
        for (key, log) in &checkpoint.memory {
            for (sink, left) in
                log.sinks.iter().filter_map(|(sink, memory)| Some((sink, memory.left.as_ref()?)))
            {
                self.cursors.entry((key.clone(), sink.clone())).or_insert_with(|| left.2.clone());
            }
        }
        let tracked = self.sinks.iter().position(|sink| sink.tracked).unwrap_or(0);
        for (number, sink) in self.sinks.iter_mut().enumerate() {
            let from = if sink.tracked { number } else { tracked };
            let saved = snapshot.0.get(from).cloned().unwrap_or_default();
            let delivered = &mut sink.delivered;
            if !sink.tracked {
                // It keeps nothing: what it had not printed is not printed again.
                for (origin, next) in &saved {
                    for (channel, has) in delivered.has.entry(*origin).or_default().iter_mut().enumerate() {
                        let Reached { next, owed } = &next[channel];
                        has.resize(has.len().max(*next), false);
                        (0..*next).filter(|at| !owed.contains(at)).for_each(|at| has[at] = true);
                    }
                }
            }
            (delivered.next, delivered.acked) = (saved.clone(), saved);
            delivered.under_way.clear();
        }
    }

    /// After a restart `local_file` holds what its positions say, and not one line less: it would be lost.
    pub(crate) fn outputs_hold_what_positions_say(&self, sink: usize) {
        let sink = &self.sinks[sink];
        for (origin, next) in &sink.delivered.next {
            let nothing = [Vec::new(), Vec::new()];
            let has = sink.delivered.has.get(origin).unwrap_or(&nothing);
            for (channel, Reached { next, owed }) in next.iter().enumerate() {
                let lines = &self.origins[*origin as usize].lines[channel];
                let lacks = |at: &usize| !lines[*at].gone && has[channel].get(*at) != Some(&true);
                if let Some(at) = (0..*next).filter(|at| !owed.contains(at)).find(lacks) {
                    violated(
                        "outputs_hold_what_positions_say",
                        format!(
                            "{}: channel {channel} of {:?} resumes at line {next}, but the output lacks line {at}",
                            sink.name, self.origins[*origin as usize].key
                        ),
                    );
                }
            }
        }
    }

    // ---- at the end

    /// The lines that are still to come, by name; empty = everything has arrived.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for sink in &self.sinks {
            for (number, origin) in self.origins.iter().enumerate() {
                let has = sink.delivered.has.get(&(number as u32));
                for (channel, lines) in origin.lines.iter().enumerate() {
                    let lacks = |index: &usize| has.is_none_or(|has| has[channel].get(*index) != Some(&true));
                    let wanted = (0..lines.len()).filter(|index| !lines[*index].gone).filter(lacks);
                    let wanted: Vec<usize> = wanted.collect();
                    if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
                        missing.push(format!(
                            "{}: {} lines of channel {channel} of {:?}, from {first} to {last} of {}, of {:?}",
                            sink.name,
                            wanted.len(),
                            origin.key,
                            lines.len(),
                            lines[*first].time_ns
                        ));
                    }
                }
            }
        }
        missing
    }

    /// Everything the host still had was delivered.
    pub fn everything_arrived(&self) {
        let missing = self.missing();
        if !missing.is_empty() {
            violated("everything_arrives", missing.join("; "));
        }
    }

    /// Lines printed, and those of them that no sink has: they are really lost.
    pub fn counts(&self) -> (usize, usize) {
        let (mut printed, mut lost) = (0, 0);
        for (number, origin) in self.origins.iter().enumerate() {
            for (channel, lines) in origin.lines.iter().enumerate() {
                printed += lines.len();
                let has = |sink: &Sink, index: usize| {
                    let has = sink.delivered.has.get(&(number as u32));
                    has.is_some_and(|has| has[channel].get(index) == Some(&true))
                };
                lost +=
                    (0..lines.len()).filter(|index| !self.sinks.iter().any(|sink| has(sink, *index))).count();
            }
        }
        (printed, lost)
    }
}

/// How long a file is known to be may be known better than when its line was acknowledged.
fn without_length(cursor: &Cursor) -> Cursor {
    let mut cursor = cursor.clone();
    if let Cursor::File(position) = &mut cursor {
        Arc::make_mut(position).len = 0;
    }
    cursor
}

/// The message is some pieces of a long line, in order: files with others are gone. The last may be cut.
fn is_of_pieces(text: &[u8], message: &[u8]) -> bool {
    let mut left = message;
    for piece in text.chunks(PIECE_BYTES) {
        left = left.strip_prefix(piece).unwrap_or(left);
        if piece.starts_with(left) {
            return true;
        }
    }
    false
}

/// A message as the process printed it.
fn decoded(batch: &Batch, record: &Record) -> Vec<u8> {
    let message = batch.message(record);
    if record.form == MessageForm::Raw || !message.contains(&b'\\') {
        return message.to_vec();
    }
    let quoted = [b"\"", message, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => text.into_bytes(),
        Err(error) => violated("no_line_is_altered", format!("not the inside of a JSON string: {error}")),
    }
}
