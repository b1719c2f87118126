//! How much of each resource is explained by what the program has to do.
//!
//! The bounds come from how the program is built: the loop has no task per stream; a stream's descriptors are checked
//! one by one, so no bound covers them; every other part has a known number of descriptors. A slack on top covers what
//! one look may catch in passing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use crate::ledger::Resource;
use crate::ledger::leaks::ResourceUse;
use crate::ledger::{LedgerReport, Owner};
use crate::model::record::StreamKey;
use crate::witness::probe::Reading;

/// Operations of one connection or future: a receive and a send, each with its timer.
const OPERATIONS_EACH: u64 = 4;
/// Things that come and go and that one look may catch.
const SLACK: u64 = 16;
/// Threads beyond those at the first look: the kernel's workers for file reads, and replacements for hung threads.
const THREADS_SLACK: u64 = 32;
/// Memory beyond the configured buffers: per stream (open lines, what was seen lately), and in all.
const STREAM_BYTES: u64 = 512 * 1024;
const MEMORY_SLACK_BYTES: u64 = 128 * 1024 * 1024;

/// What the loop's tables say at the moment of a look.
#[derive(Clone, Debug, Default)]
pub struct Doing {
    /// Streams that are not closed.
    pub streams: u64,
    /// Of those, the ones that follow the Engine's API.
    pub connections: u64,
    /// Running containers that are captured.
    pub containers: u64,
    /// Descriptors of streams that are in the loop's tables.
    pub reachable: BTreeSet<RawFd>,
    /// Descriptors of an earlier run that a hung file system keeps open.
    pub left_behind: BTreeSet<RawFd>,
    /// Futures under way and idle connections: each may have operations in the kernel.
    pub operations_base: u64,
    /// Operations in the kernel.
    pub operations: u64,
    /// Tasks of the loop's runtime.
    pub tasks: u64,
    /// Number of sinks.
    pub sinks: u64,
    /// Names of containers by their streams' keys, because people know them by name.
    pub names: BTreeMap<StreamKey, String>,
}

/// Numbers at the first look, when every part had started and nothing had leaked.
#[derive(Debug)]
pub(super) struct Start {
    tasks: u64,
    threads: u64,
    rss_bytes: u64,
    by_class: BTreeMap<&'static str, u64>,
}

impl Start {
    pub(super) fn of(reading: &Reading, doing: &Doing, report: &LedgerReport) -> Start {
        Start {
            tasks: doing.tasks,
            threads: reading.look.threads,
            rss_bytes: reading.look.rss_bytes,
            by_class: by_class(report),
        }
    }

    /// Every amount with its bound.
    pub(super) fn amounts(
        &self,
        reading: &Reading,
        doing: &Doing,
        report: &LedgerReport,
        buffer_bytes_max: u64,
    ) -> Vec<ResourceUse> {
        let amount = |resource, of: &str, value, explained| ResourceUse {
            resource,
            of: of.to_owned(),
            value,
            explained,
        };
        let mut amounts = vec![
            amount(Resource::Tasks, "capture loop", doing.tasks, self.tasks),
            amount(
                Resource::Operations,
                "capture loop",
                doing.operations,
                OPERATIONS_EACH * doing.operations_base + SLACK,
            ),
            amount(Resource::Threads, "process", reading.look.threads, self.threads + THREADS_SLACK),
            amount(
                Resource::Memory,
                "process",
                reading.look.rss_bytes,
                // Buffers count twice: what was read, and what is made of it.
                self.rss_bytes + 2 * buffer_bytes_max + STREAM_BYTES * doing.streams + MEMORY_SLACK_BYTES,
            ),
        ];
        for (class, value) in by_class(report) {
            let explained = match class {
                // The witness checks these one by one.
                "stream" => continue,
                // One file per stream for each sink, and what the sink itself works with.
                "sink" => doing.sinks * (doing.streams + SLACK) + self.began_with(class),
                // Requests to the Engine are among the futures. The admin server bounds its connections itself.
                "discovery" => doing.operations_base + 2 * SLACK,
                "admin" => self.began_with(class) + 3 * SLACK,
                _ => self.began_with(class) + SLACK,
            };
            amounts.push(amount(Resource::FileDescriptors, class, value, explained));
        }
        amounts
    }

    fn began_with(&self, class: &str) -> u64 {
        self.by_class.get(class).copied().unwrap_or(0)
    }
}

fn by_class(report: &LedgerReport) -> BTreeMap<&'static str, u64> {
    let mut classes = BTreeMap::new();
    for (owner, count) in &report.open {
        *classes.entry(Owner::class(owner)).or_default() += *count;
    }
    classes
}
