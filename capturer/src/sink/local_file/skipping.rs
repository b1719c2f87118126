//! Which records of a batch the outputs already have from the last run, and are not written again: the part of that which
//! touches no file. The sink puts what it finds in its files in here, the simulation what its outputs hold
//! (tests/src/world/sinks.rs), so both decide the same way.

use std::io;
use std::sync::Arc;

use super::super::outbox::{Outbox, SourceFacts};
use super::keys;
use super::overhang::{Overhangs, Part, Plan, Segment};
use crate::model::cursor::{Cursor, FileId};
use crate::model::record::{Batch, Continued, Source, StreamKey, Uncovered};
use crate::settings::OutputFormat;

/// See the head of this file.
pub struct Skipping {
    pub(super) format: OutputFormat,
    pub(super) overhangs: Overhangs,
}

/// How the records of a stream look in its output, and how those looked that it continues.
#[derive(Debug)]
pub struct Looks {
    pub(super) facts: SourceFacts,
    /// The key of its records in an overhang.
    hash: u64,
    /// The same for the sources that this one continues.
    continues: Box<[(u64, SourceFacts)]>,
}

impl Skipping {
    /// Nothing is left of the last run.
    pub fn new(format: OutputFormat) -> Skipping {
        Skipping { format, overhangs: Overhangs::default() }
    }

    /// Takes up the records of a text that begins at an offset of an output with one source; only those of an earlier part, if
    /// asked to.
    pub fn take_up(
        &mut self,
        path: &Arc<str>,
        file: FileId,
        (from, text): (u64, &[u8]),
        only: Option<&Uncovered>,
        now_s: u64,
    ) {
        let to = from + text.len() as u64;
        let segment = self.overhangs.add_segment(Segment { path: Arc::clone(path), file, to });
        let part = Part {
            format: self.format,
            segment,
            nameless: keys::source_hash(&[path.as_bytes()]),
            until_ns: 0,
            mixed: false,
            since_s: only.map_or(now_s, |only| only.since_s),
            only: only.map(|only| only.source),
        };
        let (end, _) = self.overhangs.add_lines(&part, text, from);
        self.overhangs.end_segment(segment, end);
    }

    /// The parts of this output that no source came back for yet.
    pub fn uncovered(&mut self, path: &str) -> Vec<Uncovered> {
        self.overhangs.uncovered(path)
    }

    /// How the records of a source look that is written to `path`.
    pub fn looks(&self, source: &Source, path: &str, path_of: impl Fn(&Source) -> Arc<str>) -> Looks {
        let outbox = Outbox::new(self.format);
        let facts = outbox.facts(source);
        let hash = self.hash_of(&facts, path);
        let before = if self.overhangs.is_empty() { &[] } else { source.continues.as_slice() };
        let looked = before.iter().map(|before| {
            let Continued { path, output } = before;
            let was = match path {
                Some(path) => {
                    Source { path: Some(Arc::clone(path)), key: StreamKey::file(path), ..source.clone() }
                }
                None => source.clone(),
            };
            let output = output.clone().unwrap_or_else(|| path_of(&was));
            let facts = outbox.facts(&was);
            (self.hash_of(&facts, &output), facts)
        });
        // In some formats only the name in them tells records of one output apart.
        let differs = |(before, was): &(u64, SourceFacts)| *before != hash || was.name != facts.name;
        Looks { continues: looked.filter(differs).collect(), facts, hash }
    }

    /// The key of a source's records in an overhang.
    fn hash_of(&self, facts: &SourceFacts, path: &str) -> u64 {
        keys::source_of(self.format, facts, keys::source_hash(&[path.as_bytes()]))
    }

    /// Which records of a batch to write; `None` = all of them.
    pub fn plan(&self, looks: &Looks, batch: &Batch) -> Option<Plan> {
        if self.overhangs.is_empty() {
            return None;
        }
        let born_ns = match &batch.end {
            Cursor::File(cursor) if !cursor.is_copy => cursor.file.birth_ns,
            _ => 0,
        };
        let (format, mut text) = (self.format, Vec::new());
        let continues = looks.continues.iter().map(|(hash, facts)| (*hash, facts));
        let sources = continues.chain([(looks.hash, &looks.facts)]);
        self.overhangs.plan(sources, batch.records.len(), born_ns, |facts, index, keys| {
            keys::of_record(format, batch, facts, &batch.records[index], &mut text, keys);
        })
    }

    /// The batch of this plan was written.
    pub fn apply(&mut self, plan: Plan) {
        self.overhangs.apply(plan);
    }

    /// What is written of a batch.
    ///
    /// # Errors
    /// None: memory takes every byte.
    pub fn encode(
        &self,
        looks: &Looks,
        batch: &Batch,
        plan: Option<&Plan>,
        text: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut outbox = Outbox::new(self.format);
        let put = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        match plan {
            None => outbox.push(batch, &looks.facts, put),
            Some(plan) => outbox.push_some(batch, &plan.kept, &looks.facts, put),
        }
        .map(drop)
    }
}
