//! The ledger's numbers, its patience, and random runs against plain models.

use super::*;
use crate::sink::testing::Rng;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ns: 0 }
}

fn live(fds: &[(i32, &str)]) -> Vec<OpenFd> {
    let open = |(fd, target): &(i32, &str)| OpenFd { fd: *fd, target: (*target).to_owned(), kernel: None };
    fds.iter().map(open).collect()
}

fn observe(ledger: &mut Ledger, open: &[OpenFd], now_ms: u64, settle_ms: u64) -> LedgerReport {
    let newest_claim = ledger.newest_claim();
    ledger.observe(View { open, closed_by: None, newest_claim }, at(now_ms), settle_ms)
}

fn stream(name: &str) -> Owner {
    Owner::Stream(StreamKey(name.into()))
}

#[test]
fn balanced_is_zero_and_split_by_owner() {
    let mut ledger = Ledger::default();
    ledger.adopt(&live(&[(0, "/dev/null"), (1, "pipe:[1]")]), &Owner::Runtime);
    let serial = ledger.claim(7, stream("container:a"));
    let open = live(&[(0, "/dev/null"), (1, "pipe:[1]"), (7, "socket:[9]")]);
    let report = observe(&mut ledger, &open, 0, 1000);
    assert_eq!((report.open[&Owner::Runtime], report.open[&stream("container:a")]), (2, 1));
    assert_eq!((report.open_count, report.drift, report.slips), (3, 0, 0));
    assert_eq!(ledger.held_by_streams(), 1);
    ledger.release(7, serial);
    assert_eq!((ledger.held_by(&stream("container:a")), ledger.held_by_streams()), (0, 0));
    assert_eq!(ledger.claimed()[&stream("container:a")], Totals { opened: 1, closed: 1 });
    assert_eq!(stream("container:a").to_string(), "stream:container:a");
    assert_eq!(Owner::Sink("loki".to_owned()).to_string(), "sink:loki");
}

/// Without this each look that crosses an opening would raise a false alarm.
#[test]
fn a_mismatch_counts_only_if_it_stands() {
    let mut ledger = Ledger::default();
    ledger.claim(5, Owner::Admin);
    let leak = live(&[(9, "socket:[1]")]);
    for (now, drift, strays, missing) in [(0, 0, 0, 0), (1000, 0, 0, 0), (1001, 0, 1, 1)] {
        let report = observe(&mut ledger, &leak, now, 1000);
        assert_eq!((report.drift, report.strays.len(), report.missing.len()), (drift, strays, missing));
    }
    // Another file has the number now, so its age begins anew. Then the claim is found again.
    let report = observe(&mut ledger, &live(&[(5, "socket:[8]"), (9, "socket:[2]")]), 2000, 1000);
    assert_eq!((report.drift, report.strays.len()), (0, 0));
    let report = observe(&mut ledger, &live(&[(5, "socket:[8]"), (9, "socket:[2]")]), 3001, 1000);
    assert_eq!(
        report.strays,
        [Stray { fd: 9, target: "socket:[2]".to_owned(), age_ms: 1001, owner: Owner::Unknown }]
    );
    assert_eq!(report.drift, -1);
}

#[test]
fn closing_without_a_word_is_a_slip() {
    let mut ledger = Ledger::default();
    ledger.claim(5, Owner::Admin);
    ledger.claim(5, Owner::Discovery);
    assert_eq!(ledger.held_by(&Owner::Admin), 0);
    let slips = |ledger: &mut Ledger, target| observe(ledger, &live(&[(5, target)]), 0, 0).slips;
    assert_eq!(slips(&mut ledger, "socket:[1]"), 1);
    assert_eq!(slips(&mut ledger, "socket:[1]"), 1);
    assert_eq!(slips(&mut ledger, "socket:[2]"), 2);
    ledger.release(6, 0);
    assert_eq!(slips(&mut ledger, "socket:[2]"), 3);
    // A rotation renames an open file.
    ledger.claim(5, Owner::Discovery);
    assert_eq!(slips(&mut ledger, "/x.log"), 4);
    assert_eq!(slips(&mut ledger, "/x.log.1 (deleted)"), 4);
}

/// During a look a connection is closed and another gets its number: the look has the old one.
#[test]
fn a_claim_that_is_younger_than_the_look_is_not_compared_with_it() {
    let mut ledger = Ledger::default();
    let old = ledger.claim(5, stream("container:a"));
    let newest_claim = ledger.newest_claim();
    let open = live(&[(5, "socket:[1]")]);
    ledger.release(5, old);
    ledger.claim(5, stream("container:b"));
    ledger.claim(6, stream("container:b"));
    let view = View { open: &open, closed_by: None, newest_claim };
    ledger.observe(view, at(0), 0);
    // Nor is a descriptor missing that was opened after the look.
    let view = View { open: &open, closed_by: None, newest_claim };
    assert_eq!(ledger.observe(view, at(1), 0).missing, []);
    let later = observe(&mut ledger, &live(&[(5, "socket:[2]"), (6, "socket:[3]")]), 2, 0);
    assert_eq!((later.slips, later.drift), (0, 0));
    assert_eq!(observe(&mut ledger, &live(&[(5, "socket:[4]"), (6, "socket:[3]")]), 3, 0).slips, 1);
}

/// Random openings, closings, leaks and closings without the owner's knowledge, against a plain model.
#[test]
fn agrees_with_a_model() {
    #[derive(Clone)]
    struct Slot {
        open: bool,
        owner: Option<(usize, u64)>,
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
                    let serial = ledger.claim(fd as i32, owners[owner].clone());
                    totals[owner].opened += 1;
                    *slot =
                        Slot { open: true, owner: Some((owner, serial)), wrong_since_ms: None, inode: step };
                }
                (0 | 1, _, Some((owner, serial))) => {
                    ledger.release(fd as i32, serial);
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
                        .map(|(fd, slot)| OpenFd {
                            fd,
                            target: format!("socket:[{}]", slot.inode),
                            kernel: None,
                        })
                        .collect();
                    let report = observe(&mut ledger, &live, now, SETTLE_MS);
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
                    assert_eq!(report.strays.iter().map(|u| u.fd).collect::<Vec<_>>(), leaks);
                    assert_eq!(report.missing.iter().map(|(fd, _)| *fd).collect::<Vec<_>>(), missing);
                    assert_eq!(report.drift, missing.len() as i64 - leaks.len() as i64);
                    assert_eq!(report.open_count, live.len() as u64);
                    assert_eq!(report.open.values().sum::<u64>(), live.len() as u64);
                    assert_eq!(report.slips, 0);
                }
            }
            for (owner, totals) in owners.iter().zip(&totals) {
                assert_eq!(ledger.claimed().get(owner).copied().unwrap_or_default(), *totals);
            }
        }
    }
}

/// An agent with programs in the kernel shows the kernel's counts, whatever the claims say. Random openings, closings,
/// descriptors kept after their release and streams that end, against a plain model of the kernel.
#[test]
fn the_kernels_counts_are_shown_and_what_outlives_its_claim_has_a_name() {
    const SETTLE_MS: u64 = 50;
    #[derive(Clone, Copy)]
    struct Slot {
        owner: usize,
        serial: u64,
        opened_ns: u64,
        released_ms: Option<u64>,
        /// When a look first found it open although released.
        seen_ms: Option<u64>,
    }
    let owners = [stream("a"), stream("b"), Owner::Admin];
    let mut rng = Rng::from_env();
    for _ in 0..50 {
        let mut ledger = Ledger::default();
        let numbers: Vec<u64> = owners.iter().map(|owner| ledger.number_of(owner.clone())).collect();
        let mut slots: Vec<Option<Slot>> = vec![None; 10];
        let (mut totals, mut closed_by) = (vec![Totals::default(); owners.len()], BTreeMap::new());
        let mut now = 0;
        for step in 1..400_u64 {
            let fd = rng.below(slots.len());
            now += rng.below(20) as u64;
            match (rng.below(5), slots[fd]) {
                (0 | 1, None) => {
                    let owner = rng.below(owners.len());
                    let serial = ledger.claim(fd as i32, owners[owner].clone());
                    totals[owner].opened += 1;
                    slots[fd] =
                        Some(Slot { owner, serial, opened_ns: step, released_ms: None, seen_ms: None });
                }
                (0 | 1, Some(slot)) => {
                    if slot.released_ms.is_none() {
                        ledger.release(fd as i32, slot.serial);
                    }
                    totals[slot.owner].closed += 1;
                    *closed_by.entry(numbers[slot.owner]).or_default() += 1;
                    slots[fd] = None;
                }
                (2, Some(slot)) if slot.released_ms.is_none() => {
                    ledger.release(fd as i32, slot.serial);
                    slots[fd] = Some(Slot { released_ms: Some(now), ..slot });
                }
                _ => {
                    let open: Vec<OpenFd> = (0..)
                        .zip(&slots)
                        .filter_map(|(fd, slot)| slot.map(|slot| (fd, slot)))
                        .map(|(fd, slot)| OpenFd {
                            fd,
                            target: format!("socket:[{}]", slot.opened_ns),
                            kernel: Some(KernelFd { opened_ns: slot.opened_ns, owner: numbers[slot.owner] }),
                        })
                        .collect();
                    let newest_claim = ledger.newest_claim();
                    let view = View { open: &open, closed_by: Some(&closed_by), newest_claim };
                    let report = ledger.observe(view, at(now), SETTLE_MS);
                    let mut kept = Vec::new();
                    for (fd, slot) in (0..).zip(&mut slots) {
                        let Some(slot) = slot.as_mut().filter(|slot| slot.released_ms.is_some()) else {
                            continue;
                        };
                        let since_ms = *slot.seen_ms.get_or_insert(now);
                        if now - since_ms > SETTLE_MS {
                            kept.push((fd, owners[slot.owner].clone()));
                        }
                    }
                    let named = report.strays.into_iter().map(|stray| (stray.fd, stray.owner));
                    assert_eq!(named.collect::<Vec<_>>(), kept);
                    for (owner, totals) in owners.iter().zip(&totals) {
                        assert_eq!(ledger.seen()[owner], *totals, "{owner}");
                    }
                    let streams = ledger.seen_by_class()["stream"];
                    assert_eq!(streams.opened, totals[0].opened + totals[1].opened);
                }
            }
        }
    }
}

/// Without a bound an agent that runs for years would remember every container it ever saw; without the sums its
/// counters would fall.
#[test]
fn streams_that_ended_are_forgotten_but_for_their_sum_and_never_while_they_hold_something() {
    let mut ledger = Ledger::default();
    let key = |number: usize| StreamKey::container(&number.to_string());
    let kept = ledger.claim(7, Owner::Stream(key(0)));
    ledger.stream_ended(&key(0));
    for number in 1..=2 * ENDED_KEPT {
        let serial = ledger.claim(8, Owner::Stream(key(number)));
        ledger.release(8, serial);
        ledger.stream_ended(&key(number));
    }
    observe(&mut ledger, &live(&[(7, "socket:[1]")]), 0, 0);
    assert!(ledger.has_ended(&Owner::Stream(key(0))) && ledger.held_by_streams() == 1);
    assert_eq!(ledger.claimed().len(), ENDED_KEPT);
    let all = Totals { opened: 2 * ENDED_KEPT as u64 + 1, closed: 2 * ENDED_KEPT as u64 };
    assert_eq!(ledger.seen_by_class()["stream"], all);
    ledger.release(7, kept);
    // A container that is started again has the same stream.
    ledger.claim(9, Owner::Stream(key(0)));
    assert!(!ledger.has_ended(&Owner::Stream(key(0))));
}

/// Nobody has claimed standard error at start. A part that later claims or closes a descriptor that was adopted for the
/// runtime makes no mistake.
#[test]
fn what_was_adopted_may_be_claimed_or_go() {
    let mut ledger = Ledger::default();
    let open = live(&[(2, "/dev/null"), (5, "socket:[1]")]);
    assert_eq!(ledger.adopt(&open, &Owner::Runtime), [2, 5]);
    ledger.claim(5, Owner::Admin);
    let report = observe(&mut ledger, &live(&[(5, "socket:[1]")]), 10_000, 0);
    assert_eq!((report.slips, report.drift, report.missing.len()), (0, 0, 0));
    assert_eq!((ledger.held_by(&Owner::Runtime), ledger.held_by(&Owner::Admin)), (0, 1));
}
