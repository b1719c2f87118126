//! Records that are in outputs after their marks when the agent starts: it was killed between writing them and saving
//! the checkpoint that would have said so. They stay, for their source may be gone; and when the source is read again
//! from its position, its first records are the same ones, and are skipped instead of written again.
//!
//! ```text
//! output   … r5 │ r6 r7        r6 and r7 are the overhang of their source
//!          mark ┘
//! source   r6 r7 r8 …          ─▶ r6 and r7 are skipped, r8 is written
//! ```
//! Each source has an overhang of its own, whatever outputs it is in. Within it records are expected in their order, by
//! channel. A record with a time of its own may also be found further on: the source no longer has the earlier ones. A
//! record without one is only believed at the expected place or shortly after, since many lines look alike. Several in
//! a row are believed further on: the file that held the lines before them is gone. The first may also differ from
//! before, as lines do that a pipeline joined or split by the clock: the following ones show that.
//!
//! A followed file may come back under another path, if its directory was renamed. Then its records are looked for
//! first under its old path and then under its new one ([`Source::continues`]).
//!
//! Records for which no source came back stay in [`OutputMark::uncovered`], so that a second crash is no worse than the
//! first.
//!
//! [`Source::continues`]: crate::model::record::Source::continues
//! [`OutputMark::uncovered`]: crate::model::record::OutputMark::uncovered

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::outbox::SourceFacts;
use super::keys::{Key, of_line};
use crate::model::cursor::FileId;
use crate::model::record::Uncovered;
use crate::settings::OutputFormat;

/// A record without a time of its own is looked for this far after the expected one.
const WINDOW: usize = 64;
/// After this many records in a row that are not in the overhang, its source continues somewhere else.
const MISSES_MAX: usize = 10_000;
/// At least this many lines in a row, without a time of their own, show where in the overhang their source continues.
const RUN_MIN: usize = 4;
/// At most this many of them are compared.
const RUN_MAX: usize = 64;
/// This many records at the beginning may differ, or come from a source that begins anew, before the search ends.
const FIRST_MISSES_MAX: usize = 16;

/// How many equal lines of a mixed overhang are compared with one record.
const CANDIDATES_MAX: usize = 4_096;

/// A part of an output that holds some of the overhang.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The output, relative to the directory.
    pub(super) path: Arc<str>,
    /// The file that the output had then.
    pub(super) file: FileId,
    /// Where the part ends.
    pub(super) to: u64,
}

/// The overhangs of all sources.
#[derive(Debug, Default)]
pub(super) struct Overhangs {
    by_source: BTreeMap<u64, Overhang>,
    segments: Vec<Segment>,
    /// The result of [`Overhangs::uncovered`], until something changes.
    uncovered: Option<BTreeMap<Arc<str>, Vec<Uncovered>>>,
    /// Checkpoints no longer mention the overhangs.
    untold: bool,
}

/// The overhang of one source.
#[derive(Debug)]
struct Overhang {
    channels: [Expected; 2],
    /// Several sources that can't be told apart share it, so any order is right.
    mixed: bool,
    since_s: u64,
}

/// The expected records of a channel, in order.
#[derive(Debug, Default)]
struct Expected {
    entries: Vec<Entry>,
    /// The first record that has not arrived yet.
    front: usize,
    /// How many records in a row were not among them.
    misses: usize,
    /// At least one has arrived.
    begun: bool,
    /// For a mixed overhang: those that arrived, by index.
    taken: BTreeSet<usize>,
    /// Strong hashes (weak ones for a mixed overhang) with the index of their entry, sorted. Made when first needed.
    index: OnceCell<Vec<(u64, u32)>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    segment: u32,
    /// Where its line begins.
    start: u64,
}

/// What the records of a part of an output have in common.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) format: OutputFormat,
    /// See [`Overhangs::add_segment`].
    pub(super) segment: u32,
    /// The source, where the format does not name it.
    pub(super) nameless: u64,
    /// Without a time of their own they are no younger.
    pub(super) until_ns: i64,
    /// See [`Overhang::mixed`].
    pub(super) mixed: bool,
    pub(super) since_s: u64,
    /// Only those of this source count.
    pub(super) only: Option<u64>,
}

/// What to do with a batch.
#[derive(Debug, Default)]
pub struct Plan {
    /// Records to write, by index.
    pub(super) kept: Vec<usize>,
    /// Progress in the overhang of each source.
    steps: Vec<(u64, [Step; 2])>,
}

/// Progress in a channel by one batch.
#[derive(Debug, Default)]
struct Step {
    front: usize,
    misses: usize,
    begun: bool,
    taken: BTreeSet<usize>,
}

impl Plan {
    /// Records to write, by index, in order.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }
}

impl Step {
    /// Joins the progress of a search for the same entries in another form: the one that found an entry last counts.
    fn join(&mut self, other: Step) {
        if (other.misses, Reverse(other.front)) < (self.misses, Reverse(self.front)) {
            (self.front, self.misses) = (other.front, other.misses);
        }
        self.begun |= other.begun;
        self.taken.extend(other.taken);
    }
}

impl Overhangs {
    pub(super) fn is_empty(&self) -> bool {
        self.by_source.is_empty()
    }

    pub(super) fn add_segment(&mut self, segment: Segment) -> u32 {
        self.segments.push(segment);
        (self.segments.len() - 1) as u32
    }

    /// A segment is shorter than assumed.
    pub(super) fn end_segment(&mut self, segment: u32, to: u64) {
        self.segments[segment as usize].to = to;
    }

    /// Adds the records of the whole lines of a text that begins at `start`. Returns where the last of them ends, and how many
    /// there were.
    pub(super) fn add_lines(&mut self, part: &Part, text: &[u8], start: u64) -> (u64, u64) {
        let (mut at, mut records) = (0, 0);
        while let Some(len) = memchr::memchr(b'\n', &text[at..]) {
            if let Some((source, key)) =
                of_line(part.format, &text[at..at + len], part.nameless, part.until_ns)
                && part.only.is_none_or(|only| only == source)
            {
                self.add(source, key, part.segment, start + at as u64, part.mixed, part.since_s);
                records += 1;
            }
            at += len + 1;
        }
        (start + at as u64, records)
    }

    /// Adds the next record of a source.
    fn add(&mut self, source: u64, key: Key, segment: u32, start: u64, mixed: bool, since_s: u64) {
        let overhang = self.by_source.entry(source).or_insert_with(|| Overhang {
            channels: Default::default(),
            mixed,
            since_s,
        });
        overhang.since_s = overhang.since_s.min(since_s);
        overhang.channels[key.channel].entries.push(Entry { key, segment, start });
    }

    /// Which records of a batch to write; `None` = all, as nothing is known of these sources: the batch's own one and
    /// those that it continues. `key_of` gives the lines of a record as a source would write it, `born_ns` is when the
    /// file that they come from was made (0 = unknown).
    pub(super) fn plan<'a>(
        &self,
        sources: impl Iterator<Item = (u64, &'a SourceFacts)>,
        records: usize,
        born_ns: i64,
        mut key_of: impl FnMut(&SourceFacts, usize, &mut Vec<Key>),
    ) -> Option<Plan> {
        let mut plan: Option<Plan> = None;
        for (source, facts) in sources {
            let Some(overhang) = self.by_source.get(&source) else { continue };
            let plan = plan.get_or_insert_with(|| Plan { kept: (0..records).collect(), steps: Vec::new() });
            let left = std::mem::take(&mut plan.kept);
            let (kept, steps) =
                overhang.plan(left.len(), born_ns, |index, keys| key_of(facts, left[index], keys));
            plan.kept = kept.into_iter().map(|index| left[index]).collect();
            match plan.steps.iter_mut().find(|(known, _)| *known == source) {
                Some((_, known)) => known.iter_mut().zip(steps).for_each(|(one, other)| one.join(other)),
                None => plan.steps.push((source, steps)),
            }
        }
        plan
    }

    /// The batch of this plan was written.
    pub(super) fn apply(&mut self, plan: Plan) {
        for (source, steps) in plan.steps {
            let Some(overhang) = self.by_source.get_mut(&source) else { continue };
            for (expected, step) in overhang.channels.iter_mut().zip(steps) {
                expected.apply(step);
            }
            if overhang.channels.iter().all(Expected::is_over) {
                self.by_source.remove(&source);
            }
        }
        self.uncovered = None;
    }

    /// Records are still skipped, but a second crash would not know of them.
    pub(super) fn tell_no_more(&mut self) {
        self.untold = true;
    }

    /// The parts that are in this output.
    pub(super) fn uncovered(&mut self, path: &str) -> Vec<Uncovered> {
        if self.by_source.is_empty() || self.untold {
            return Vec::new();
        }
        let (by_source, segments) = (&self.by_source, &self.segments);
        let uncovered = self.uncovered.get_or_insert_with(|| {
            let mut by_path: BTreeMap<Arc<str>, Vec<Uncovered>> = BTreeMap::new();
            for (source, overhang) in by_source {
                for (segment, from) in overhang.starts() {
                    let Segment { path, file, to } = &segments[segment as usize];
                    let (source, file, since_s) = (*source, *file, overhang.since_s);
                    let part = Uncovered { source, file, from, to: *to, since_s };
                    by_path.entry(Arc::clone(path)).or_default().push(part);
                }
            }
            by_path
        });
        uncovered.get(path).cloned().unwrap_or_default()
    }
}

impl Overhang {
    /// Which records of a batch to write, and the progress that makes.
    fn plan(
        &self,
        records: usize,
        born_ns: i64,
        mut key_of: impl FnMut(usize, &mut Vec<Key>),
    ) -> (Vec<usize>, [Step; 2]) {
        let (mut kept, mut steps) = (Vec::new(), self.channels.each_ref().map(Expected::step));
        let mut keys = Vec::new();
        for (channel, expected) in self.channels.iter().enumerate() {
            if self.mixed || expected.begun || expected.is_over() {
                continue;
            }
            let mut run: Vec<Key> = Vec::new();
            for record in 0..records {
                key_of(record, &mut keys);
                run.extend(keys.iter().filter(|key| key.channel == channel));
                if run.len() >= RUN_MAX {
                    break;
                }
            }
            if let Some(at) = expected.where_it_goes_on(&run, born_ns) {
                (steps[channel].front, steps[channel].begun) = (at, true);
            }
        }
        for record in 0..records {
            key_of(record, &mut keys);
            let passed = keys.first().is_some_and(|key| {
                let expected = &self.channels[key.channel];
                expected.pass(&mut steps[key.channel], &keys, born_ns, self.mixed)
            });
            if !passed {
                kept.push(record);
            }
        }
        (kept, steps)
    }

    /// For each segment, where the first record begins that has not arrived.
    fn starts(&self) -> BTreeMap<u32, u64> {
        let mut starts = BTreeMap::new();
        for expected in &self.channels {
            let mut rest = &expected.entries[expected.front.min(expected.entries.len())..];
            while let Some(first) = rest.first() {
                let start = starts.entry(first.segment).or_insert(first.start);
                *start = first.start.min(*start);
                rest = &rest[rest.partition_point(|entry| entry.segment == first.segment)..];
            }
        }
        starts
    }
}

impl Expected {
    fn step(&self) -> Step {
        Step { front: self.front, misses: self.misses, begun: self.begun, taken: BTreeSet::new() }
    }

    fn is_over(&self) -> bool {
        self.front >= self.entries.len()
    }

    fn apply(&mut self, step: Step) {
        (self.front, self.misses, self.begun) = (step.front, step.misses, step.begun);
        self.taken.extend(step.taken);
        while self.taken.remove(&self.front) {
            self.front += 1;
        }
        if self.is_over() {
            self.entries = Vec::new();
            (self.front, self.index) = (0, OnceCell::new());
        }
    }

    /// Where these lines are in the overhang, the first of their source since it began again, if not at the expected
    /// place; without lines at the beginning that differ from before. Of several places the last: a line too many is
    /// better than one too few.
    fn where_it_goes_on(&self, run: &[Key], born_ns: i64) -> Option<usize> {
        let is_told_by_order = run.len() >= RUN_MIN && run.iter().all(|key| key.strong == 0);
        let is_expected = self.misses == 0 && self.is_at(self.front, run.get(..1)?, born_ns);
        if !is_told_by_order || is_expected {
            return None;
        }
        let last = self.entries.len().checked_sub(RUN_MIN)?;
        let stands_at = |run: &[Key], at: usize| {
            let len = run.len().min(self.entries.len() - at);
            self.is_at(at, &run[..len], born_ns)
        };
        let mut cuts = 0..=run.len() - RUN_MIN;
        cuts.find_map(|from| {
            // The lines that differ were there, too, so the others can't be far.
            let to = if from == 0 { last } else { last.min(self.front + WINDOW) };
            (self.front..=to).rev().find(|at| stands_at(&run[from..], *at))
        })
    }

    /// Whether the output already has a record.
    fn pass(&self, step: &mut Step, keys: &[Key], born_ns: i64, mixed: bool) -> bool {
        if step.front >= self.entries.len() {
            return false;
        }
        let found =
            if mixed { self.find_anywhere(step, keys, born_ns) } else { self.find(step, keys, born_ns) };
        if let Some(at) = found {
            (step.misses, step.begun) = (0, true);
            if mixed {
                step.taken.extend(at..at + keys.len());
            } else {
                step.front = at + keys.len();
            }
            return true;
        }
        step.misses += 1;
        let misses_max = match keys {
            _ if mixed => MISSES_MAX,
            [Key { strong: 1.., .. }] => MISSES_MAX,
            _ if step.begun => WINDOW,
            _ => FIRST_MISSES_MAX,
        };
        if step.misses > misses_max {
            step.front = self.entries.len();
        }
        false
    }

    fn find(&self, step: &Step, keys: &[Key], born_ns: i64) -> Option<usize> {
        // After a first one that differs, only several in a row are believed.
        let is_told = step.begun || step.misses == 0 || keys.iter().any(|key| key.strong > 0);
        if is_told && self.is_at(step.front, keys, born_ns) {
            return Some(step.front);
        }
        match keys {
            [Key { strong: strong @ 1.., .. }] => self.indices(*strong, step.front, false).next(),
            _ if step.begun => {
                (step.front + 1..step.front + WINDOW).find(|at| self.is_at(*at, keys, born_ns))
            }
            _ => None,
        }
    }

    fn find_anywhere(&self, step: &Step, keys: &[Key], born_ns: i64) -> Option<usize> {
        let free = |at| !self.taken.contains(&at) && !step.taken.contains(&at);
        let weak = keys.first()?.weak;
        let mut likely = self.indices(weak, self.front, true).take(CANDIDATES_MAX);
        likely.find(|at| (*at..*at + keys.len()).all(free) && self.is_at(*at, keys, born_ns))
    }

    /// Entries with this hash from `front` on, in order.
    fn indices(&self, hash: u64, front: usize, weak: bool) -> impl Iterator<Item = usize> {
        let index = self.index.get_or_init(|| {
            let of = |key: &Key| if weak { key.weak } else { key.strong };
            let numbered = self.entries.iter().zip(0_u32..);
            let mut index: Vec<(u64, u32)> = numbered.map(|(entry, at)| (of(&entry.key), at)).collect();
            index.sort_unstable();
            index
        });
        let from = index.partition_point(|entry| *entry < (hash, front as u32));
        index[from..].iter().take_while(move |(other, _)| *other == hash).map(|(_, at)| *at as usize)
    }

    fn is_at(&self, at: usize, keys: &[Key], born_ns: i64) -> bool {
        let is = |(entry, key): (&Entry, &Key)| match (entry.key.strong, key.strong) {
            (1.., 1..) => entry.key.strong == key.strong,
            // A file that was made later can't hold it.
            _ => entry.key.weak == key.weak && !(entry.key.time_ns > 0 && born_ns > entry.key.time_ns),
        };
        self.entries.get(at..at + keys.len()).is_some_and(|entries| entries.iter().zip(keys).all(is))
    }
}
