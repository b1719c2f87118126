//! The ledger: which part of the program claims which descriptor, compared with the descriptors that are open. Pure.
//!
//! ```text
//! parts ── Claims::hold(fd, owner) … dropped ─▶ claims.rs ─▶ Ledger ◀── View ── witness/ ◀── kernel
//!                                                              └─▶ LedgerReport ─▶ leaks.rs, metrics, /api/v1/fds
//!
//!              claimed                 not claimed
//! open         fine                    a stray: a leak, or somebody forgot to claim
//! not open     missing: closed behind  —
//!              the owner's back
//! ```
//! A look takes time while the program works on, so one look proves nothing: a descriptor opened, claimed and closed
//! during it may seem a stray or missing. It counts only if it does so, unchanged, in every look for longer than the
//! interval given.
//!
//! What an owner opened and closed is counted twice. Claims and their ends are counted here, which is only what the
//! program believes. Where programs in the kernel count ([`View::closed_by`]), the report shows their numbers: an owner's
//! closings as the kernel saw them, and as openings those plus what the kernel still has open under that owner. What was
//! closed before the programs were attached is counted as the claims have it.
//!
//! A number that is claimed while it is still claimed was closed without a release. One whose socket, pipe or anonymous
//! inode changed under a claim was closed and given to another file. Both count at once, since no race causes them: a
//! look is only compared with claims older than it.
//!
//! Not here: where the open descriptors come from (witness/probe/), and what is a leak (leaks.rs).

pub(crate) mod claims;
pub(crate) mod leaks;
pub(crate) mod owner;
pub(crate) mod table;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::clock::Now;
use crate::model::packed::Pack;
use crate::model::rare::{Begins, Rare};
use crate::model::record::StreamKey;
pub use leaks::Resource;
pub use owner::Owner;

/// Totals are kept for this many ended streams, the ones that ended last.
const ENDED_KEPT: usize = 256;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Ledger {
    claims: BTreeMap<i32, Claim>,
    /// Descriptors that are open and not claimed, with when they were first seen so.
    strangers: BTreeMap<i32, Stranger>,
    rows: BTreeMap<u64, Row>,
    numbers: BTreeMap<Owner, u64>,
    last_number: u64,
    last_serial: u64,
    /// Numbers of streams that ended, the latest last.
    ended: Vec<u64>,
    /// Totals of forgotten owners, by class.
    forgotten: BTreeMap<&'static str, Totals>,
    slips: u64,
}

#[derive(Debug)]
struct Row {
    owner: Owner,
    /// Totals as the claims count them.
    claimed: Totals,
    /// Totals at the last look: the kernel's where it counts, else the claims'.
    seen: Totals,
    /// What its claims had closed when the kernel began to count.
    closed_before: u64,
}

#[derive(Debug)]
struct Claim {
    number: u64,
    serial: u64,
    more: Rare<ClaimMore>,
}

/// What most claims do not need.
#[derive(Debug, Default, PartialEq)]
struct ClaimMore {
    /// What /proc said it was when last seen open, if that identifies it.
    target: Option<String>,
    /// When a look first missed it, if every look since did.
    missing_since_ms: Option<u64>,
    /// Claimed by [`Ledger::adopt`] because nobody else had: a part's own claim replaces this one, and it may be closed
    /// without a release.
    adopted: bool,
}

impl Begins for ClaimMore {
    const BEGINNING: &'static ClaimMore = &ClaimMore { target: None, missing_since_ms: None, adopted: false };
}

impl Pack for Ledger {
    fn pack(&mut self) {
        self.claims.pack();
        self.rows.pack();
        self.numbers.pack();
    }
}

#[derive(Debug)]
struct Stranger {
    target: String,
    opened_ns: u64,
    since_ms: u64,
}

/// Counts of one owner since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Descriptors opened so far.
    pub opened: u64,
    /// Descriptors closed so far.
    pub closed: u64,
}

/// An open descriptor as a look finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFd {
    /// Number of the descriptor.
    pub fd: i32,
    /// What /proc says it is.
    pub target: String,
    /// What the kernel's programs know of it, if anything.
    pub kernel: Option<KernelFd>,
}

/// What the kernel's programs know of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFd {
    /// CLOCK_MONOTONIC. Together with the number it identifies this opening.
    pub opened_ns: u64,
    /// The owner's number as noted in the kernel; 0 = nobody.
    pub owner: u64,
}

/// What one look sees.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Every open descriptor.
    pub open: &'a [OpenFd],
    /// Closings that the kernel counted, by owner's number. `None` = it does not count.
    pub closed_by: Option<&'a BTreeMap<u64, u64>>,
    /// [`Ledger::newest_claim`] before the look began. For a number claimed later, the look may show the previous
    /// owner.
    pub newest_claim: u64,
}

/// What one look showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Open descriptors by owner; unclaimed ones under [`Owner::Unknown`].
    pub open: BTreeMap<Owner, u64>,
    /// All open descriptors.
    pub open_count: u64,
    /// Open and claimed by nobody for longer than the interval.
    pub strays: Vec<Stray>,
    /// Claimed and not open for longer than the interval.
    pub missing: Vec<(i32, Owner)>,
    /// Closings since the start that were not reported: a number claimed twice, or one that became another file.
    pub slips: u64,
    /// Missing less strays; 0 = the ledger is right. Below zero: a leak. Above: something was closed although its owner
    /// believes it open.
    pub drift: i64,
}

/// A descriptor nobody claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Number of the descriptor.
    pub fd: i32,
    /// What /proc says it is.
    pub target: String,
    /// How long ago it was first seen as a stray.
    pub age_ms: u64,
    /// Who had claimed this opening and believes it closed, if the kernel remembers; else [`Owner::Unknown`].
    pub owner: Owner,
}

impl Ledger {
    /// Records that `owner` opened `fd`, right after the opening. Returns the claim's serial number for
    /// [`Ledger::release`].
    pub fn claim(&mut self, fd: i32, owner: Owner) -> u64 {
        self.note(fd, owner, false)
    }

    fn note(&mut self, fd: i32, owner: Owner, adopted: bool) -> u64 {
        let number = self.number_of(owner);
        if let Some(row) = self.rows.get_mut(&number) {
            row.claimed.opened += 1;
        }
        self.ended.retain(|ended| *ended != number);
        self.last_serial += 1;
        let serial = self.last_serial;
        let more = ClaimMore { adopted, ..ClaimMore::default() }.into();
        if let Some(before) = self.claims.insert(fd, Claim { number, serial, more }) {
            self.slips += u64::from(!before.more.adopted);
            self.count_closed(before.number);
        }
        self.strangers.remove(&fd);
        serial
    }

    /// Records that `fd` is about to be closed. Call it before closing: afterwards the number may belong to another
    /// file.
    pub fn release(&mut self, fd: i32, serial: u64) {
        match self.claims.get(&fd) {
            Some(claim) if claim.serial == serial => {
                let number = claim.number;
                self.claims.remove(&fd);
                self.count_closed(number);
            }
            // The number has been claimed anew meanwhile, and that counted as a slip then.
            Some(_) => {}
            None => self.slips += 1,
        }
    }

    /// Claims every open and unclaimed descriptor for `owner`: called once, when the program is built up and before it
    /// works. Returns their numbers.
    pub fn adopt(&mut self, open: &[OpenFd], owner: &Owner) -> Vec<i32> {
        let unclaimed = open.iter().map(|open| open.fd).filter(|fd| !self.claims.contains_key(fd));
        let unclaimed: Vec<i32> = unclaimed.collect();
        for fd in &unclaimed {
            self.note(*fd, owner.clone(), true);
        }
        unclaimed
    }

    /// The stream has ended: nothing may be open under it any more. Its totals are kept for a while; a later claim
    /// begins it anew.
    pub fn stream_ended(&mut self, key: &StreamKey) {
        if let Some(number) = self.numbers.get(&Owner::Stream(key.clone())) {
            self.ended.retain(|ended| ended != number);
            self.ended.push(*number);
        }
    }

    /// From here on the kernel counts what is closed. Answers what is claimed now: number of the descriptor, and of its owner.
    pub fn kernel_counts(&mut self) -> Vec<(i32, u64)> {
        for row in self.rows.values_mut() {
            row.closed_before = row.claimed.closed;
        }
        self.claims.iter().map(|(fd, claim)| (*fd, claim.number)).collect()
    }

    /// An owner's number, by which the kernel knows it.
    pub fn number_of(&mut self, owner: Owner) -> u64 {
        if let Some(number) = self.numbers.get(&owner) {
            return *number;
        }
        self.last_number += 1;
        self.numbers.insert(owner.clone(), self.last_number);
        let row = Row { owner, claimed: Totals::default(), seen: Totals::default(), closed_before: 0 };
        self.rows.insert(self.last_number, row);
        self.last_number
    }

    /// The owner with this number.
    pub fn owner(&self, number: u64) -> Owner {
        self.rows.get(&number).map_or(Owner::Unknown, |row| row.owner.clone())
    }

    /// Who claims a descriptor now, with the claim's serial number.
    pub fn claimant(&self, fd: i32) -> Option<(&Owner, u64)> {
        let claim = self.claims.get(&fd)?;
        Some((&self.rows.get(&claim.number)?.owner, claim.serial))
    }

    /// The serial number of the newest claim.
    pub fn newest_claim(&self) -> u64 {
        self.last_serial
    }

    /// Whether a stream has ended.
    pub fn has_ended(&self, owner: &Owner) -> bool {
        self.numbers.get(owner).is_some_and(|number| self.ended.contains(number))
    }

    /// How many claims an owner holds now.
    pub fn held_by(&self, owner: &Owner) -> u64 {
        let row = self.numbers.get(owner).and_then(|number| self.rows.get(number));
        row.map_or(0, |row| row.claimed.opened - row.claimed.closed)
    }

    /// How many claims all streams hold now.
    pub fn held_by_streams(&self) -> u64 {
        let rows = self.rows.values().filter(|row| matches!(row.owner, Owner::Stream(_)));
        rows.map(|row| row.claimed.opened - row.claimed.closed).sum()
    }

    /// Claims that each owner made and ended since the start: what the program believes.
    pub fn claimed(&self) -> BTreeMap<&Owner, Totals> {
        self.rows.values().map(|row| (&row.owner, row.claimed)).collect()
    }

    /// Each owner's totals at the last look: the kernel's where it counts.
    pub fn seen(&self) -> BTreeMap<&Owner, Totals> {
        self.rows.values().map(|row| (&row.owner, row.seen)).collect()
    }

    /// As [`Ledger::seen`] by class, including owners that were forgotten.
    pub fn seen_by_class(&self) -> BTreeMap<&'static str, Totals> {
        let mut classes: BTreeMap<&'static str, Totals> =
            Owner::CLASSES.iter().map(|class| (*class, Totals::default())).collect();
        let rows = self.rows.values().map(|row| (row.owner.class(), row.seen));
        for (class, totals) in rows.chain(self.forgotten.iter().map(|(class, totals)| (*class, *totals))) {
            let sum = classes.entry(class).or_default();
            sum.opened += totals.opened;
            sum.closed += totals.closed;
        }
        classes
    }

    fn count_closed(&mut self, number: u64) {
        if let Some(row) = self.rows.get_mut(&number) {
            row.claimed.closed += 1;
        }
    }

    /// Compares the claims with what is open. `settle_ms`: how long a mismatch must stand to count.
    pub fn observe(&mut self, view: View<'_>, now: Now, settle_ms: u64) -> LedgerReport {
        let mut report = LedgerReport::default();
        let open: BTreeSet<i32> = view.open.iter().map(|open| open.fd).collect();
        self.strangers.retain(|fd, _| open.contains(fd));
        for OpenFd { fd, target, kernel } in view.open {
            report.open_count += 1;
            let owner = if let Some(claim) = self.claims.get_mut(fd) {
                if claim.serial <= view.newest_claim {
                    let target = telling(target);
                    if claim.more.target.is_some() && claim.more.target.as_deref() != target {
                        self.slips += 1;
                    }
                    let adopted = claim.more.adopted;
                    claim.more =
                        ClaimMore { target: target.map(str::to_owned), missing_since_ms: None, adopted }
                            .into();
                }
                let number = claim.number;
                self.owner(number)
            } else {
                let opened_ns = kernel.map_or(0, |kernel| kernel.opened_ns);
                let new = || Stranger { target: target.clone(), opened_ns, since_ms: now.mono_ms };
                let stranger = self.strangers.entry(*fd).or_insert_with(new);
                if stranger.target != *target || stranger.opened_ns != opened_ns {
                    *stranger = new();
                }
                let age_ms = now.mono_ms.saturating_sub(stranger.since_ms);
                if age_ms > settle_ms {
                    let owner = self.owner(kernel.map_or(0, |kernel| kernel.owner));
                    report.strays.push(Stray { fd: *fd, target: target.clone(), age_ms, owner });
                }
                Owner::Unknown
            };
            *report.open.entry(owner).or_default() += 1;
        }
        self.look_for_missing(&open, view.newest_claim, now, settle_ms, &mut report);
        self.note_totals(view);
        self.forget_ended();
        report.slips = self.slips;
        report.drift = report.missing.len() as i64 - report.strays.len() as i64;
        report
    }

    fn look_for_missing(
        &mut self,
        open: &BTreeSet<i32>,
        newest_claim: u64,
        now: Now,
        settle_ms: u64,
        report: &mut LedgerReport,
    ) {
        let mut gone = Vec::new();
        let is_missing =
            |(fd, claim): &(&i32, &mut Claim)| claim.serial <= newest_claim && !open.contains(fd);
        for (fd, claim) in self.claims.iter_mut().filter(is_missing) {
            if claim.more.adopted {
                gone.push((*fd, claim.number));
                continue;
            }
            let since_ms = *claim.more.missing_since_ms.get_or_insert(now.mono_ms);
            if now.mono_ms.saturating_sub(since_ms) > settle_ms {
                let owner = self.rows.get(&claim.number).map_or(Owner::Unknown, |row| row.owner.clone());
                report.missing.push((*fd, owner));
            }
        }
        for (fd, number) in gone {
            self.claims.remove(&fd);
            self.count_closed(number);
        }
    }

    fn note_totals(&mut self, view: View<'_>) {
        let totals: Vec<Totals> = self.totals_of(view).into_iter().map(|(_, totals)| totals).collect();
        for (row, totals) in self.rows.values_mut().zip(totals) {
            row.seen = totals;
        }
    }

    /// Each owner's totals in a view: the kernel's where it counts, else the claims'.
    pub fn totals_of(&self, view: View<'_>) -> Vec<(&Owner, Totals)> {
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for kernel in view.open.iter().filter_map(|open| open.kernel) {
            *live.entry(kernel.owner).or_default() += 1;
        }
        let totals = |(number, row): (&u64, &Row)| {
            let Some(closed_by) = view.closed_by else { return row.claimed };
            let of = |map: &BTreeMap<u64, u64>| map.get(number).copied().unwrap_or(0);
            // Neither goes back; the live set and the counts are not read at the same moment.
            let closed = row.seen.closed.max(row.closed_before + of(closed_by));
            Totals { opened: row.seen.opened.max(closed + of(&live)), closed }
        };
        self.rows.iter().map(|entry| (&entry.1.owner, totals(entry))).collect()
    }

    pub fn slips(&self) -> u64 {
        self.slips
    }

    /// Forgets the streams that ended longest ago beyond the bound, unless something of theirs is open.
    fn forget_ended(&mut self) {
        while self.ended.len() > ENDED_KEPT {
            let empty = |number: &&u64| {
                self.rows.get(*number).is_none_or(|row| {
                    row.claimed.opened == row.claimed.closed && row.seen.opened == row.seen.closed
                })
            };
            let Some(number) = self.ended.iter().find(empty).copied() else { return };
            self.ended.retain(|ended| *ended != number);
            if let Some(row) = self.rows.remove(&number) {
                self.numbers.remove(&row.owner);
                let sum = self.forgotten.entry(row.owner.class()).or_default();
                sum.opened += row.seen.opened;
                sum.closed += row.seen.closed;
            }
        }
    }

    /// Whether an owner has this number: the kernel need not count for others.
    pub fn knows(&self, number: u64) -> bool {
        self.rows.contains_key(&number)
    }
}

/// The part of a descriptor's target that stays the same while it is open: `socket:[4711]`. A file's path does not, as
/// a rotation renames it.
fn telling(target: &str) -> Option<&str> {
    (!target.starts_with('/')).then_some(target)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
