//! Outlets: which sinks are read for together, and what each outlet has of its own.
//!
//! A network sink has an outlet to itself, so that an outage of the network holds back nobody else; all others share
//! one. Each source has a stream per outlet, with a position, buffers and a place in line of its own: reading twice
//! costs a copy out of the page cache, and what a slow sink has not read yet stays in the log file, which is the queue.

use std::collections::VecDeque;

use super::support::Credit;
use crate::limits::FILE_READS_MAX;
use crate::record::{Outlet, SinkId, StreamId};

/// A sink as the core knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkFacts {
    /// Its name in checkpoint and metrics.
    pub name: String,
    /// It is read for at its own pace.
    pub own_pace: bool,
}

/// One outlet.
#[derive(Debug)]
pub(super) struct OutletState {
    pub(super) outlet: Outlet,
    /// Names of its sinks.
    pub(super) names: Vec<String>,
    /// Names of those whose position is kept.
    pub(super) tracked: Vec<String>,
    pub(super) credit: Credit,
    /// Streams that would read if there were room, in line.
    pub(super) hungry: VecDeque<StreamId>,
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
            tracked: tracked(&names),
            names,
            credit: Credit::new(buffer_bytes_max / count as u64, FILE_READS_MAX / count),
            hungry: VecDeque::new(),
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

    /// Without an outlet of its own, a Loki that is away would stop the files too.
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
