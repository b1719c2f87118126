//! Outlets: groups of sinks that share streams, and what each group has of its own.
//!
//! A network sink has an outlet to itself, so that an outage of the network holds up no other sink; all other sinks
//! share one. Each source has a stream per outlet, with its own position, buffers and place in line. Reading twice
//! costs a copy out of the page cache, and what a slow sink has not read yet stays in the log file, which is the queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::capture::context::Credit;
use crate::limits::{FILE_READS_MAX, READ_BYTES};
use crate::model::record::{Outlet, SinkId, StreamId};

/// A sink as the core knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkFacts {
    /// Its name in checkpoint and metrics.
    pub name: String,
    /// The sink has streams of its own, which read at its pace.
    pub own_pace: bool,
}

/// What the core knows of one outlet.
#[derive(Debug)]
pub(super) struct OutletState {
    pub(super) outlet: Outlet,
    /// Names of its sinks.
    pub(super) names: Arc<[String]>,
    /// Names of those whose position is kept.
    pub(super) tracked: Arc<[String]>,
    pub(super) credit: Credit,
    /// Streams that wait for room to read.
    pub(super) hungry: Hungry,
}

impl OutletState {
    /// The next stream that can read now. It leaves the line, and joins it again if it has more to read.
    pub(super) fn next_fed(&mut self) -> Option<StreamId> {
        if !self.credit.has_room(READ_BYTES) {
            return None;
        }
        // A connection only needs room; a file also needs one of the few file reads. So each kind waits in its own
        // line: while no read is free, the line of files is not searched.
        let conns_first = std::mem::replace(&mut self.hungry.files_last, false);
        let file = |hungry: &mut Hungry, credit: &Credit| {
            let next = if credit.has_file_read() { hungry.files.pop() } else { None };
            hungry.files_last = next.is_some();
            next
        };
        if conns_first {
            return self.hungry.conns.pop().or_else(|| file(&mut self.hungry, &self.credit));
        }
        file(&mut self.hungry, &self.credit).or_else(|| self.hungry.conns.pop())
    }
}

/// Streams that wait for room, each listed once.
#[derive(Debug, Default)]
pub(super) struct Hungry {
    files: WaitingLine,
    conns: WaitingLine,
    /// A file was next last time, so connections come first now.
    files_last: bool,
}

impl Hungry {
    /// A stream joins the line of files or of connections, unless it is already in it.
    pub(super) fn push(&mut self, stream: StreamId, reads_files: bool) {
        if reads_files { self.files.push(stream) } else { self.conns.push(stream) }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.files.order.len() + self.conns.order.len()
    }
}

#[derive(Debug, Default)]
struct WaitingLine {
    order: VecDeque<StreamId>,
    waiting: BTreeSet<StreamId>,
}

impl WaitingLine {
    fn push(&mut self, stream: StreamId) {
        if self.waiting.insert(stream) {
            self.order.push_back(stream);
        }
    }

    fn pop(&mut self) -> Option<StreamId> {
        let stream = self.order.pop_front()?;
        self.waiting.remove(&stream);
        Some(stream)
    }
}

/// Sorts the sinks, which are numbered in this order, into outlets. The room for buffers is shared out evenly.
pub(super) fn sort(sinks: &[SinkFacts], buffer_bytes_max: u64) -> Vec<OutletState> {
    let numbered = || sinks.iter().enumerate().map(|(index, sink)| (SinkId(index as u8), sink));
    let shared: Vec<_> = numbered().filter(|(_, sink)| !sink.own_pace).collect();
    let alone = numbered().filter(|(_, sink)| sink.own_pace).map(|sink| vec![sink]);
    let groups: Vec<Vec<_>> =
        std::iter::once(shared).chain(alone).filter(|group| !group.is_empty()).collect();
    let count = groups.len();
    let outlet = |(index, group): (usize, Vec<(SinkId, &SinkFacts)>)| {
        let names: Vec<String> = group.iter().map(|(_, sink)| sink.name.clone()).collect();
        OutletState {
            outlet: Outlet::new(index as u8, group.iter().map(|(id, _)| *id)),
            tracked: tracked(&names).into(),
            names: names.into(),
            credit: Credit::new(buffer_bytes_max / count as u64, FILE_READS_MAX / count),
            hungry: Hungry::default(),
        }
    };
    groups.into_iter().enumerate().map(outlet).collect()
}

/// Standard output keeps nothing, so its position means nothing, unless there is no other sink to go by.
fn tracked(names: &[String]) -> Vec<String> {
    let only = names.len() == 1;
    names.iter().filter(|name| only || *name != "stdout").cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sinks: &[(&str, bool)], expected: &[(&[&str], &[&str])]) {
        let facts: Vec<SinkFacts> = sinks
            .iter()
            .map(|(name, own_pace)| SinkFacts { name: (*name).to_owned(), own_pace: *own_pace })
            .collect();
        let outlets = sort(&facts, 1 << 20);
        let found: Vec<(Vec<&str>, Vec<&str>)> = outlets
            .iter()
            .map(|outlet| {
                let text =
                    |names: &'_ [String]| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                (vec![text(&outlet.names).leak() as &str], vec![text(&outlet.tracked).leak() as &str])
            })
            .collect();
        let expected: Vec<(Vec<&str>, Vec<&str>)> =
            expected.iter().map(|(names, tracked)| (names.to_vec(), tracked.to_vec())).collect();
        assert_eq!(found, expected);
        for (index, facts) in facts.iter().enumerate() {
            let of = outlets.iter().filter(|outlet| outlet.outlet.contains(SinkId(index as u8)));
            assert!(
                of.clone().count() == 1 && of.into_iter().all(|outlet| outlet.names.contains(&facts.name))
            );
        }
    }

    /// With a thousand waiting files and all reads in use, each event once walked past all of them.
    #[test]
    fn who_waits_is_named_once_and_files_only_while_a_read_is_free() {
        let facts = [SinkFacts { name: "local_file".to_owned(), own_pace: false }];
        let mut outlet = sort(&facts, 64 * READ_BYTES as u64).remove(0);
        for number in [1, 2, 1] {
            outlet.hungry.push(StreamId(number), true);
            outlet.hungry.push(StreamId(10 + number), false);
        }
        assert_eq!(outlet.hungry.len(), 4);
        let named: Vec<u32> = std::iter::from_fn(|| outlet.next_fed()).map(|stream| stream.0).collect();
        assert_eq!(named, [1, 11, 2, 12], "in turn, and in order");
        while outlet.credit.file_read(READ_BYTES).is_some() {}
        outlet.hungry.push(StreamId(1), true);
        outlet.hungry.push(StreamId(11), false);
        assert_eq!(
            (outlet.next_fed(), outlet.next_fed(), outlet.hungry.len()),
            (Some(StreamId(11)), None, 1)
        );
    }

    /// Without an outlet of its own, an unavailable Loki would stop the files, too.
    #[test]
    fn network_sinks_stand_alone() {
        check(&[("local_file", false)], &[(&["local_file"], &["local_file"])]);
        check(&[("stdout", false)], &[(&["stdout"], &["stdout"])]);
        check(&[("loki", true)], &[(&["loki"], &["loki"])]);
        check(
            &[("local_file", false), ("loki", true), ("stdout", false)],
            &[(&["local_file stdout"], &["local_file"]), (&["loki"], &["loki"])],
        );
        check(&[("loki", true), ("stdout", false)], &[(&["stdout"], &["stdout"]), (&["loki"], &["loki"])]);
    }
}
