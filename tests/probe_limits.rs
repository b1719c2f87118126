//! What each tier can't see, as docs/probe.md lists it by name; what happens past its bounds; what follows if a kernel
//! refuses a program; and how the witness names the leak of an io_uring agent.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use capturer::testing::{
    Doing, FOLLOWED_MAX, LeakFault, Metrics, Now, Object, Options, Owner, Probe, RELEASING, Settings, Status,
    StreamKey, Tier, Witness, Workbench,
};
use capturer_tests::wait::{PATIENCE, wait_until};
use rustix::io::{dup, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{KERNEL_TIERS, TiersUsed, at_work_by, on_each_tier, on_each_tier_alone, turn};

/// The leak that an io_uring agent would make, as the agent says it: with the stream that had it, and until it goes.
/// On tier `tracepoint` nobody sees it.
#[test]
fn a_kept_file_is_a_leak_with_the_name_of_its_stream() {
    let _turn = turn();
    let owner = Owner::Stream(StreamKey::container("0123"));
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        let status = Arc::new(Status::default());
        let metrics = Arc::new(Metrics::new(10).unwrap());
        let options = Options { tiers: vec![tier], ..Options::default() };
        let mut witness = Witness::start(&options, &Settings::default(), metrics, Arc::clone(&status));
        let mut bench = Workbench::new().unwrap();
        let attached = witness.tier() == tier && bench.has_ring();
        let tried = attached.then_some(()).ok_or_else(|| status.health()["probe"].message.clone());
        if tiers.try_use(tier, tried).is_none() {
            continue;
        }
        witness.begin();
        let began = Instant::now();
        let claims = witness.claims();
        let look = |witness: &mut Witness, reachable: &[i32]| {
            let now = Now { mono_ms: began.elapsed().as_millis() as u64, unix_ns: 0 };
            let doing = Doing { reachable: reachable.iter().copied().collect(), ..Doing::default() };
            witness.check(now, &doing)
        };
        let mut serial = 0;
        let shared = std::cell::RefCell::new(&mut witness);
        let claim = |fd| {
            serial = claims.claim_number(fd, owner.clone());
            assert_eq!(look(&mut shared.borrow_mut(), &[fd]).leaks, [], "{tier}");
        };
        let named = |fd| {
            if !tier.sees_releases() {
                assert_eq!(
                    look(&mut shared.borrow_mut(), &[]).leaks,
                    [],
                    "{tier} was not expected to see files"
                );
                return;
            }
            let leak = wait_until("the file to be named", PATIENCE, || {
                look(&mut shared.borrow_mut(), &[]).leaks.into_iter().find_map(|leak| leak.suspect)
            });
            let leak = leak.unwrap();
            println!("{tier}: {}", status.health()["leak_detector"].message);
            assert_eq!((leak.fault, leak.fd, &leak.owner), (LeakFault::Unreleased, fd, &owner), "{tier}");
            assert!(leak.target.starts_with("socket:["), "{tier}: {}", leak.target);
            assert!(!status.health()["leak_detector"].ok);
        };
        bench.close_while_in_use(claim, named).unwrap();
        claims.with(|ledger| ledger.release(-1, serial));
        wait_until("the leak to go", PATIENCE, || look(&mut witness, &[]).leaks.is_empty()).unwrap();
        assert!(status.health()["leak_detector"].ok);
    }
    tiers.judge();
}

/// The agent reads while the kernel takes the programs. Whatever comes and goes then, no tier is taken for blind, nothing is a
/// leak, and each owner's account is right from the start.
#[test]
fn what_comes_and_goes_while_a_tier_is_attached_is_accounted_for() {
    let mut attached = turn();
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        // What attaches while nothing else happens must do so here, too.
        let quiet = attached.entry(tier).or_insert_with(|| at_work_by(tier, Options::default().objects));
        if tiers.try_use(tier, quiet.as_ref().map(drop).map_err(Clone::clone)).is_none() {
            continue;
        }
        let status = Arc::new(Status::default());
        let metrics = Arc::new(Metrics::new(10).unwrap());
        let options = Options { tiers: vec![tier], ..Options::default() };
        let mut witness = Witness::start(&options, &Settings::default(), metrics, Arc::clone(&status));
        witness.begin();
        let (claims, owner) = (witness.claims(), Owner::Stream(StreamKey::container("0123")));
        let hold = |owner: &Owner| claims.hold(File::open("/dev/null").unwrap(), owner.clone());
        let held = hold(&owner);
        let (attached, mut count) = (AtomicBool::new(false), 0);
        let at_work = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !attached.load(Ordering::Relaxed) {
                    drop(hold(&Owner::Discovery));
                    count += 1;
                }
            });
            let tier = witness.tier();
            attached.store(true, Ordering::Relaxed);
            tier
        });
        assert_eq!(at_work, tier, "{count} openings meanwhile");
        println!("{tier}: {count} openings meanwhile");
        assert!(count > 0, "{tier}");
        let account = |owner: &Owner| {
            let table = status.fds();
            let row = table.owners.into_iter().find(|row| row.owner == owner.to_string());
            let row = row.unwrap_or_else(|| panic!("{tier}: no account of {owner}"));
            (row.open, row.opened, row.closed)
        };
        assert_eq!(account(&owner), (1, 1, 0), "{tier}");
        // `tracepoint` may take an opening for the one that was closed at the same moment.
        let (open, opened, closed) = account(&Owner::Discovery);
        assert_eq!((open, opened), (0, closed), "{tier}");
        let is_exact = opened == count || tier == Tier::Tracepoint && opened < count;
        assert!(is_exact, "{tier}: {opened} of {count}");
        let doing = Doing { reachable: [held.as_fd().as_raw_fd()].into(), ..Doing::default() };
        for mono_ms in [0, 100_000, 200_000] {
            let report = witness.check(Now { mono_ms, unix_ns: 0 }, &doing);
            assert_eq!(report.leaks, [], "{tier}");
        }
        assert_eq!(status.fds().drift, 0, "{tier}");
        drop(held);
        assert_eq!(account(&owner), (0, 1, 1), "{tier}");
    }
    tiers.judge();
}

/// Full maps: descriptors that are not followed are counted as missed and show as drift; when they are closed, the
/// count is right again.
#[test]
fn past_the_bound_openings_are_counted_as_missed_and_the_account_comes_right_again() {
    const BEYOND: u32 = 500;
    // Others that watch would take three times as long, and be full as well.
    on_each_tier_alone(|tier, mut probe| {
        let _limit = DescriptorLimit::at_least(FOLLOWED_MAX + 2 * BEYOND);
        let kept: Vec<File> = (0..FOLLOWED_MAX + BEYOND).map(|_| File::open("/dev/null").unwrap()).collect();
        let full = probe.read().unwrap();
        let counts = full.counts.unwrap();
        println!("{tier}: {} missed, drift {}", counts.missed, full.drift);
        assert!(counts.missed >= u64::from(BEYOND), "{tier}: {}", counts.missed);
        assert!(full.drift <= -i64::from(BEYOND), "{tier}: {}", full.drift);
        drop(kept);
        // One look to find and repair the rest, one to see that it is right.
        probe.read().unwrap();
        let after = probe.read().unwrap();
        let counts = after.counts.unwrap();
        assert_eq!((after.drift, counts.opened - counts.closed), (0, after.live.len() as u64), "{tier}");
    });
}

/// So many descriptors may be open in this process, until it is dropped. Many systems allow 1,024.
struct DescriptorLimit {
    before: Rlimit,
}

impl DescriptorLimit {
    fn at_least(wanted: u32) -> DescriptorLimit {
        let (before, wanted) = (getrlimit(Resource::Nofile), u64::from(wanted));
        let more = Rlimit {
            current: before.current.map(|current| current.max(wanted)),
            maximum: before.maximum.map(|most| most.max(wanted)),
        };
        setrlimit(Resource::Nofile, more).unwrap();
        DescriptorLimit { before }
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

/// Numbers of 1,024 and above that close_range releases: `tracepoint` finds them at its next look.
#[test]
fn high_numbers_released_by_close_range() {
    const HIGH: u32 = 1_024;
    let file = File::open("/dev/null").unwrap();
    on_each_tier(|tier, probe| {
        let _limit = DescriptorLimit::at_least(HIGH + 1);
        let mut bench = Workbench::new().unwrap();
        let repairs = probe.read().unwrap().repairs;
        let high = fcntl_dupfd_cloexec(&file, HIGH as i32).unwrap();
        let way = RELEASING.iter().find(|way| way.name == "close_range").unwrap();
        (way.go)(&mut bench, high).unwrap();
        assert_mended(probe, repairs, i64::from(tier == Tier::Tracepoint));
    });
}

/// Duplicates of one file past the eighth: `tracing` and `kprobe` find at their next look that they are gone.
#[test]
fn the_ninth_duplicate_of_a_file() {
    const DUPLICATES: usize = 12;
    on_each_tier(|tier, probe| {
        let file = File::open("/dev/null").unwrap();
        let duplicates: Vec<OwnedFd> = (0..DUPLICATES).map(|_| dup(&file).unwrap()).collect();
        let reading = probe.read().unwrap();
        assert_eq!(reading.drift, 0, "{tier}");
        drop(file);
        drop(duplicates);
        let unseen = if tier == Tier::Tracepoint { 0 } else { DUPLICATES as i64 + 1 - 8 };
        assert_mended(probe, reading.repairs, unseen);
    });
}

/// The next look shows `drift`, the one after it shows none; how many repairs there were so far.
fn assert_mended(probe: &mut Probe, repairs: u64, drift: i64) {
    let tier = probe.tier();
    let first = probe.read().unwrap();
    assert_eq!((first.drift, first.repairs), (drift, repairs + u64::from(drift != 0)), "{tier}");
    let second = probe.read().unwrap();
    assert_eq!((second.drift, second.repairs), (0, first.repairs), "{tier}");
}

/// Closed and opened anew within io_uring, in one chain: `tracepoint` may take the two for one. What is open is right
/// all the same, and so is the difference of the counts.
#[test]
fn a_number_used_again_within_io_uring() {
    on_each_tier(|tier, probe| {
        let mut bench = Workbench::new().unwrap();
        if !bench.has_ring() {
            return;
        }
        for _ in 0..20 {
            let file = OwnedFd::from(File::open("/dev/null").unwrap());
            let number = file.as_raw_fd();
            let again = bench.replace_by_ring(file).unwrap();
            assert_eq!(again.as_raw_fd(), number, "the lowest free number");
            let reading = probe.read().unwrap();
            let counts = reading.counts.unwrap();
            assert!(reading.live.iter().any(|live| live.fd == number), "{tier}");
            assert_eq!(
                (reading.drift, counts.opened - counts.closed),
                (0, reading.live.len() as u64),
                "{tier}"
            );
        }
    });
}

/// A file registered with a ring is in no table. Tiers that see files see that it is kept.
#[test]
fn fixed_descriptors_are_in_no_table() {
    on_each_tier(|tier, probe| {
        let mut bench = Workbench::new().unwrap();
        if !bench.has_ring() {
            return;
        }
        let file = OwnedFd::from(File::open("/dev/null").unwrap());
        let number = file.as_raw_fd();
        // Mappings of other probes last as long as those.
        let others: Vec<u64> = probe.read().unwrap().unreleased.iter().map(|file| file.file).collect();
        bench.register(file).unwrap();
        let reading = probe.read().unwrap();
        assert!(reading.drift == 0 && !reading.look.fds.iter().any(|(fd, _)| *fd == number), "{tier}");
        let kept: Vec<i32> = reading.unreleased.iter().map(|file| file.last_fd).collect();
        assert_eq!(kept.contains(&number), tier.sees_releases(), "{tier}: {kept:?}");
        bench.unregister().unwrap();
        wait_until("the file to go", PATIENCE, || {
            probe.read().unwrap().unreleased.iter().all(|file| others.contains(&file.file))
        })
        .unwrap();
    });
}

/// A thread's own table is not followed: neither its new descriptors nor its copies count.
#[test]
fn a_second_table_is_not_followed() {
    const OPENINGS: u64 = 300;
    on_each_tier(|tier, probe| {
        let before = probe.read().unwrap();
        let open = || (0..OPENINGS).for_each(|_| drop(File::open("/dev/null").unwrap()));
        Workbench::in_a_table_of_its_own(open).unwrap();
        let after = probe.read().unwrap();
        let opened = after.counts.unwrap().opened - before.counts.unwrap().opened;
        assert!(opened < OPENINGS, "{tier}: {opened} opened");
        let numbers = |reading: &capturer::testing::Reading| -> BTreeSet<i32> {
            reading.live.iter().map(|live| live.fd).collect()
        };
        assert_eq!((after.drift, numbers(&after)), (0, numbers(&before)), "{tier}");
    });
}

/// What came and went between two looks, files, and other processes: tier `procfs` sees none of these.
#[test]
fn procfs_sees_the_moment_only() {
    let _turn = turn();
    let mut probe = Probe::start(&Options { tiers: vec![Tier::Procfs], ..Options::default() });
    drop(File::open("/dev/null").unwrap());
    let reading = probe.read().unwrap();
    assert!(reading.counts.is_none() && reading.live.is_empty() && reading.unreleased.is_empty());
    assert!(probe.owners().is_none() && probe.watch(std::process::id() as i32).is_err());
}

/// A kernel whose verifier does not take a program: here it is given one that calls what no kernel has.
#[test]
fn what_the_verifier_refuses_is_a_reason() {
    let _turn = turn();
    // Who runs? Every program asks, by bpf_get_current_pid_tgid (14) or bpf_get_current_task_btf (158).
    const CALLS: [[u8; 8]; 2] = [[0x85, 0, 0, 0, 14, 0, 0, 0], [0x85, 0, 0, 0, 158, 0, 0, 0]];
    let mut objects = Options::default().objects;
    for object in &mut objects {
        let bytes = object.bytes.to_mut();
        let is_call = |at: &usize| CALLS.iter().any(|call| bytes[*at..].starts_with(call));
        let places: Vec<usize> = (0..bytes.len() - 8).step_by(8).filter(is_call).collect();
        assert!(!places.is_empty());
        for place in places {
            bytes[place + 5] = 0x77;
        }
    }
    let mut probe = Probe::start(&Options { objects, ..Options::default() });
    assert_eq!((probe.tier(), probe.refused().len()), (Tier::Procfs, 3));
    for (tier, why) in probe.refused() {
        println!("{tier}: {why}");
        // A kernel that forbids tracing programs as such, or has no such function, says so instead.
        let others = ["not permitted", "No such file"].iter().any(|other| why.contains(other));
        assert!(why.contains("verifier") || (*tier != Tier::Tracepoint && others), "{tier}: {why}");
    }
    assert!(!probe.read().unwrap().look.fds.is_empty());
    // What is no object at all is a reason as well.
    let objects = vec![Object { name: "for none", bytes: b"not an object"[..].into() }];
    let probe = Probe::start(&Options { objects, ..Options::default() });
    assert_eq!((probe.tier(), probe.refused().len()), (Tier::Procfs, 3));
}
