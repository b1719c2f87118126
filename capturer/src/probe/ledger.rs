//! The ledger: who says to hold which descriptor, against which descriptors are open. Pure.
//!
//! ```text
//!              claimed                 not claimed
//! open         fine                    unattributed: a leak, or somebody forgot to claim
//! not open     missing: closed behind  —
//!              the owner's back
//! ```
//! A look takes time and the program goes on meanwhile, so one look proves nothing: a descriptor opened, claimed and
//! closed around it may stand in either wrong corner. It counts only if it stands there, unchanged, in every look for
//! longer than the interval given.
//!
//! A number that is claimed while still claimed was closed without a release, and one whose socket, pipe or anonymous
//! inode changed under a claim was closed and given to somebody else. Both are counted at once: no race makes them.
//!
//! Not here: where the live descriptors come from (a tier), and what to do about a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::clock::Now;
use crate::record::StreamKey;

/// Which part of the program holds a descriptor. Its text is the label `owner` of the metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// One captured stream: its connection or its file.
    Stream(StreamKey),
    /// Finding containers and files: events, lists, inotify.
    Discovery,
    /// The checkpoint, its directory and lock.
    Checkpoint,
    /// A sink, by name.
    Sink(String),
    /// The admin server and its connections.
    Admin,
    /// The witness itself: its maps, programs and attachments.
    Probe,
    /// What was open at start, rings, wakers, the log.
    Runtime,
    /// Nobody says so.
    Unknown,
}

impl Owner {
    /// The owner without which stream it is: a closed set, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Owner::Stream(_) => "stream",
            Owner::Discovery => "discovery",
            Owner::Checkpoint => "checkpoint",
            Owner::Sink(_) => "sink",
            Owner::Admin => "admin",
            Owner::Probe => "probe",
            Owner::Runtime => "runtime",
            Owner::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Stream(key) => write!(f, "stream:{}", key.0),
            Owner::Sink(name) => write!(f, "sink:{name}"),
            _ => f.write_str(self.class()),
        }
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Ledger {
    claims: BTreeMap<i32, Claim>,
    /// Open and not claimed, since when.
    strangers: BTreeMap<i32, Stranger>,
    totals: BTreeMap<Owner, Totals>,
    slips: u64,
}

#[derive(Debug)]
struct Claim {
    owner: Owner,
    /// What it was when last seen open, if that tells files apart.
    target: Option<String>,
    /// First of the looks in a row that did not find it.
    missing_since_ms: Option<u64>,
}

#[derive(Debug)]
struct Stranger {
    target: String,
    since_ms: u64,
}

/// Counts of one owner since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Claims made.
    pub opened: u64,
    /// Claims released, or found to be closed without a release.
    pub closed: u64,
}

/// What one look showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Open descriptors by owner, unclaimed ones under [`Owner::Unknown`].
    pub open: BTreeMap<Owner, u64>,
    /// All open descriptors.
    pub open_count: u64,
    /// Open, claimed by nobody, and so for longer than the interval.
    pub unattributed: Vec<Unattributed>,
    /// Claimed, not open, and so for longer than the interval.
    pub missing: Vec<(i32, Owner)>,
    /// Closings that were never told, since the start: a number claimed twice or that became another file.
    pub slips: u64,
    /// Claims less what is open, both only where they stand for longer than the interval; 0 = the ledger is right.
    /// Below zero: a leak. Above: something was closed that its owner believes to hold.
    pub drift: i64,
}

/// A descriptor nobody claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unattributed {
    /// Its number.
    pub fd: i32,
    /// What /proc says it is.
    pub target: String,
    /// Since it was first seen so.
    pub age_ms: u64,
}

impl Ledger {
    /// `owner` opened `fd`. To be said right after the opening.
    pub fn claim(&mut self, fd: i32, owner: Owner) {
        self.totals.entry(owner.clone()).or_default().opened += 1;
        let claim = Claim { owner, target: None, missing_since_ms: None };
        if let Some(before) = self.claims.insert(fd, claim) {
            self.slips += 1;
            self.totals.entry(before.owner).or_default().closed += 1;
        }
        self.strangers.remove(&fd);
    }

    /// `fd` is about to be closed. To be said before the closing: afterwards the number may be somebody else's.
    pub fn release(&mut self, fd: i32) {
        if let Some(claim) = self.claims.remove(&fd) {
            self.totals.entry(claim.owner).or_default().closed += 1;
        } else {
            self.slips += 1;
        }
    }

    /// Claims for `owner` whatever is open and unclaimed: once, when the program is built up and before it works.
    pub fn adopt(&mut self, live: &[(i32, String)], owner: &Owner) {
        for (fd, _) in live {
            if !self.claims.contains_key(fd) {
                self.claim(*fd, owner.clone());
            }
        }
    }

    /// Claims now held by an owner. Zero for a stream that ended.
    pub fn held_by(&self, owner: &Owner) -> u64 {
        self.totals.get(owner).map_or(0, |totals| totals.opened - totals.closed)
    }

    /// Counts by owner since the start.
    pub fn totals(&self) -> &BTreeMap<Owner, Totals> {
        &self.totals
    }

    /// Drops the counts of an owner that is gone; refused (false) while it holds something.
    pub fn forget(&mut self, owner: &Owner) -> bool {
        let empty = self.held_by(owner) == 0;
        if empty {
            self.totals.remove(owner);
        }
        empty
    }

    /// Sets the claims against what is open now. `settle_ms`: how long a mismatch must stand to count.
    pub fn observe(&mut self, live: &[(i32, String)], now: Now, settle_ms: u64) -> LedgerReport {
        let mut report = LedgerReport::default();
        let open: BTreeSet<i32> = live.iter().map(|(fd, _)| *fd).collect();
        self.strangers.retain(|fd, _| open.contains(fd));
        for (fd, target) in live {
            report.open_count += 1;
            let owner = match self.claims.get_mut(fd) {
                Some(claim) => {
                    claim.missing_since_ms = None;
                    let target = telling(target);
                    if claim.target.is_some() && claim.target.as_deref() != target {
                        self.slips += 1;
                    }
                    claim.target = target.map(str::to_owned);
                    claim.owner.clone()
                }
                None => {
                    let new = || Stranger { target: target.clone(), since_ms: now.mono_ms };
                    let stranger = self.strangers.entry(*fd).or_insert_with(new);
                    if stranger.target != *target {
                        *stranger = new();
                    }
                    let age_ms = now.mono_ms.saturating_sub(stranger.since_ms);
                    if age_ms > settle_ms {
                        report.unattributed.push(Unattributed { fd: *fd, target: target.clone(), age_ms });
                    }
                    Owner::Unknown
                }
            };
            *report.open.entry(owner).or_default() += 1;
        }
        for (fd, claim) in self.claims.iter_mut().filter(|(fd, _)| !open.contains(fd)) {
            let since_ms = *claim.missing_since_ms.get_or_insert(now.mono_ms);
            if now.mono_ms.saturating_sub(since_ms) > settle_ms {
                report.missing.push((*fd, claim.owner.clone()));
            }
        }
        report.slips = self.slips;
        report.drift = report.missing.len() as i64 - report.unattributed.len() as i64;
        report
    }
}

/// The part of a descriptor's target that stays the same as long as it is open: `socket:[4711]`. The path of a file
/// does not, as a rotation renames it.
fn telling(target: &str) -> Option<&str> {
    (!target.starts_with('/')).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::testing::Rng;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ns: 0 }
    }

    fn live(fds: &[(i32, &str)]) -> Vec<(i32, String)> {
        fds.iter().map(|(fd, target)| (*fd, (*target).to_owned())).collect()
    }

    fn stream(name: &str) -> Owner {
        Owner::Stream(StreamKey(name.to_owned()))
    }

    #[test]
    fn balanced_is_zero_and_split_by_owner() {
        let mut ledger = Ledger::default();
        ledger.adopt(&live(&[(0, "/dev/null"), (1, "pipe:[1]")]), &Owner::Runtime);
        ledger.claim(7, stream("container:a"));
        let report =
            ledger.observe(&live(&[(0, "/dev/null"), (1, "pipe:[1]"), (7, "socket:[9]")]), at(0), 1000);
        assert_eq!((report.open[&Owner::Runtime], report.open[&stream("container:a")]), (2, 1));
        assert_eq!((report.open_count, report.drift, report.slips), (3, 0, 0));
        ledger.release(7);
        assert_eq!(ledger.held_by(&stream("container:a")), 0);
        assert_eq!(ledger.totals()[&stream("container:a")], Totals { opened: 1, closed: 1 });
        assert!(ledger.forget(&stream("container:a")) && !ledger.forget(&Owner::Runtime));
        assert_eq!(stream("container:a").to_string(), "stream:container:a");
        assert_eq!(Owner::Sink("loki".to_owned()).to_string(), "sink:loki");
    }

    /// Without this each look that crosses an opening would raise a false alarm.
    #[test]
    fn a_mismatch_counts_only_if_it_stands() {
        let mut ledger = Ledger::default();
        ledger.claim(5, Owner::Admin);
        let leak = live(&[(9, "socket:[1]")]);
        for (now, drift, unattributed, missing) in [(0, 0, 0, 0), (1000, 0, 0, 0), (1001, 0, 1, 1)] {
            let report = ledger.observe(&leak, at(now), 1000);
            assert_eq!(
                (report.drift, report.unattributed.len(), report.missing.len()),
                (drift, unattributed, missing)
            );
        }
        // The number is somebody else's now: its age begins anew. The claim is found again.
        let report = ledger.observe(&live(&[(5, "socket:[8]"), (9, "socket:[2]")]), at(2000), 1000);
        assert_eq!((report.drift, report.unattributed.len()), (0, 0));
        let report = ledger.observe(&live(&[(5, "socket:[8]"), (9, "socket:[2]")]), at(3001), 1000);
        assert_eq!(
            report.unattributed,
            [Unattributed { fd: 9, target: "socket:[2]".to_owned(), age_ms: 1001 }]
        );
        assert_eq!(report.drift, -1);
    }

    #[test]
    fn closing_without_a_word_is_a_slip() {
        let mut ledger = Ledger::default();
        ledger.claim(5, Owner::Admin);
        ledger.claim(5, Owner::Discovery);
        assert_eq!(ledger.held_by(&Owner::Admin), 0);
        let slips = |ledger: &mut Ledger, target| ledger.observe(&live(&[(5, target)]), at(0), 0).slips;
        assert_eq!(slips(&mut ledger, "socket:[1]"), 1);
        assert_eq!(slips(&mut ledger, "socket:[1]"), 1);
        assert_eq!(slips(&mut ledger, "socket:[2]"), 2);
        ledger.release(6);
        assert_eq!(slips(&mut ledger, "socket:[2]"), 3);
        // A rotation renames an open file.
        ledger.claim(5, Owner::Discovery);
        assert_eq!(slips(&mut ledger, "/x.log"), 4);
        assert_eq!(slips(&mut ledger, "/x.log.1 (deleted)"), 4);
    }

    /// Random openings, closings, leaks and closings behind the owner's back, against a plain model.
    #[test]
    fn agrees_with_a_model() {
        #[derive(Clone)]
        struct Slot {
            open: bool,
            owner: Option<usize>,
            wrong_since_ms: Option<u64>,
            /// The kernel gives each socket a number of its own; only by it a look can tell two from one.
            inode: usize,
        }
        const SETTLE_MS: u64 = 50;
        let owners = [Owner::Admin, stream("a"), stream("b"), Owner::Sink("f".to_owned())];
        let mut rng = Rng::from_env();
        for _ in 0..50 {
            let mut ledger = Ledger::default();
            let mut slots = vec![Slot { open: false, owner: None, wrong_since_ms: None, inode: 0 }; 12];
            let mut totals = vec![Totals::default(); owners.len()];
            let mut now = 0;
            for step in 0..400 {
                let fd = rng.below(slots.len());
                let slot = &mut slots[fd];
                match (rng.below(6), slot.open, slot.owner) {
                    (0 | 1, false, None) => {
                        let owner = rng.below(owners.len());
                        ledger.claim(fd as i32, owners[owner].clone());
                        totals[owner].opened += 1;
                        *slot = Slot { open: true, owner: Some(owner), wrong_since_ms: None, inode: step };
                    }
                    (0 | 1, _, Some(owner)) => {
                        ledger.release(fd as i32);
                        totals[owner].closed += 1;
                        *slot = Slot { open: false, owner: None, wrong_since_ms: None, inode: step };
                    }
                    (2, open, None) => {
                        *slot = Slot { open: !open, owner: None, wrong_since_ms: None, inode: step }
                    }
                    (3, true, Some(_)) => slot.open = false,
                    _ => {
                        now += rng.below(40) as u64;
                        let live: Vec<_> = (0..)
                            .zip(&slots)
                            .filter(|(_, slot)| slot.open)
                            .map(|(fd, slot)| (fd, format!("socket:[{}]", slot.inode)))
                            .collect();
                        let report = ledger.observe(&live, at(now), SETTLE_MS);
                        let (mut leaks, mut missing) = (vec![], vec![]);
                        for (fd, slot) in (0..).zip(&mut slots) {
                            if slot.open == slot.owner.is_some() {
                                slot.wrong_since_ms = None;
                                continue;
                            }
                            let since_ms = *slot.wrong_since_ms.get_or_insert(now);
                            if now - since_ms > SETTLE_MS {
                                if slot.open { leaks.push(fd) } else { missing.push(fd) }
                            }
                        }
                        assert_eq!(report.unattributed.iter().map(|u| u.fd).collect::<Vec<_>>(), leaks);
                        assert_eq!(report.missing.iter().map(|(fd, _)| *fd).collect::<Vec<_>>(), missing);
                        assert_eq!(report.drift, missing.len() as i64 - leaks.len() as i64);
                        assert_eq!(report.open_count, live.len() as u64);
                        assert_eq!(report.open.values().sum::<u64>(), live.len() as u64);
                        assert_eq!(report.slips, 0);
                    }
                }
                for (owner, totals) in owners.iter().zip(&totals) {
                    assert_eq!(ledger.totals().get(owner).copied().unwrap_or_default(), *totals);
                }
            }
        }
    }
}
