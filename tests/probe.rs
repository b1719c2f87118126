//! The witness on the kernel at hand: every way in and out on every tier that attaches, and what it says when it is
//! blinded or has no rights (probe_limits.rs: what a tier can't see). As root. `cargo xtask vm` runs it inside other kernels.
//!
//! `CAPTURER_PROBE_TIERS=tracing,kprobe` names tiers that must attach here: a test that did not see one of them at work fails.
//! Any other may be refused by the kernel, and the test then prints the reason; a tier that attaches must see. A test for
//! which no tier attached was skipped, and says so.
//!
//! Tests take turns, as each counts every descriptor of the process. Attaching is most of what a test takes in an emulated machine,
//! so those that need a tier at work and change nothing of it share one.

mod probe_limits;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capturer::testing::{Object, Options, Probe, Tier, WayOutcome, Workbench};
use capturer_tests::skip;
use capturer_tests::wait::{PATIENCE, wait_until};
use rustix::thread::CapabilitySet;

static TURN: Mutex<Attached> = Mutex::new(BTreeMap::new());

/// Working tiers, or why they don't work.
type Attached = BTreeMap<Tier, Result<Probe, String>>;

const KERNEL_TIERS: [Tier; 3] = [Tier::Tracing, Tier::Kprobe, Tier::Tracepoint];

fn turn() -> MutexGuard<'static, Attached> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs this on each tier that attaches here, while no other test runs. The probe may have been used before: it is
/// correct, and its counts continue.
#[track_caller]
fn on_each_tier(mut test: impl FnMut(Tier, &mut Probe)) {
    let mut attached = turn();
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        // Taken out: a failing test leaves no probe for the next one.
        let known = attached.remove(&tier);
        let is_known = known.is_some();
        let mut tried = known.unwrap_or_else(|| at_work_by(tier, Options::default().objects));
        if let Some(probe) = tiers.try_use(tier, tried.as_mut().map_err(|why| why.clone())) {
            if is_known {
                // A round corrects what happened past the tier's bounds in an earlier test.
                probe.read().unwrap();
                assert_eq!(probe.read().unwrap().drift, 0, "{tier}");
            }
            test(tier, probe);
        }
        attached.insert(tier, tried);
    }
    tiers.judge();
}

/// The same with no other probe attached.
#[track_caller]
fn on_each_tier_alone(mut test: impl FnMut(Tier, Probe)) {
    let mut attached = turn();
    attached.clear();
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        if let Some(probe) = tiers.try_use(tier, at_work_by(tier, Options::default().objects)) {
            test(tier, probe);
        }
    }
    tiers.judge();
}

/// The tiers that a test used, and why it did without the others.
#[derive(Default)]
struct TiersUsed {
    used: Vec<Tier>,
    refused: Vec<String>,
}

impl TiersUsed {
    fn try_use<T>(&mut self, tier: Tier, tried: Result<T, String>) -> Option<T> {
        match tried {
            Ok(probe) => {
                self.used.push(tier);
                Some(probe)
            }
            Err(why) => {
                println!("{tier} is not used here: {why}");
                self.refused.push(format!("{tier}: {why}"));
                None
            }
        }
    }

    /// At the test's end: fails if a required tier was not used, and reports a skip if none was.
    #[track_caller]
    fn judge(&self) {
        let refused = self.refused.join("; ");
        for tier in std::env::var("CAPTURER_PROBE_TIERS").unwrap_or_default().split(',') {
            let is_used = self.used.iter().any(|used| used.to_string() == tier);
            assert!(tier.is_empty() || is_used, "{tier} must work here: {refused}");
        }
        if self.used.is_empty() {
            skip::tell(&test_here(), &format!("no tier attaches: {refused}"));
        }
    }
}

/// The test that runs on this thread. One thread for all tests has no test's name.
fn test_here() -> String {
    let thread = std::thread::current();
    thread.name().filter(|name| *name != "main").unwrap_or("a test of the probe").to_owned()
}

/// The tier at work by the first of these programs that the kernel takes, or why it takes none.
fn at_work_by(tier: Tier, objects: Vec<Object<'static>>) -> Result<Probe, String> {
    let probe = Probe::start(&Options { tiers: vec![tier], objects, ..Options::default() });
    if probe.tier() == tier {
        return Ok(probe);
    }
    let (_, why) = &probe.refused()[0];
    assert!(!why.contains("blind"), "{tier} attaches but does not see: {why}");
    Err(why.clone())
}

/// The table of docs/probe.md. Also by the programs for older kernels, which are not used where the kernel takes others.
#[test]
fn every_way_is_seen_by_each_of_the_programs() {
    let _turn = turn();
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        // The tier that the agent would use: the first that the kernel accepts. It is attached already.
        let mut first = at_work_by(tier, Options::default().objects).ok();
        for object in Options::default().objects {
            let name = object.name;
            let tried = match first.take_if(|probe| probe.programs() == Some(name)) {
                Some(probe) => Ok(probe),
                None => {
                    at_work_by(tier, vec![object]).map_err(|why| format!("by the programs {name}: {why}"))
                }
            };
            let Some(mut probe) = tiers.try_use(tier, tried) else { continue };
            assert_eq!(probe.programs(), Some(name));
            check_ways(tier, &probe);
            let reading = probe.read().unwrap();
            let counts = reading.counts.unwrap();
            assert_eq!(
                (reading.drift, counts.opened - counts.closed),
                (0, reading.live.len() as u64),
                "{tier} by the programs {name}"
            );
        }
        assert!(first.is_none(), "{tier} is at work by none of the programs");
    }
    tiers.judge();
}

fn tiers_and_programs() -> impl Iterator<Item = (Tier, Object<'static>)> {
    KERNEL_TIERS
        .into_iter()
        .flat_map(|tier| Options::default().objects.into_iter().map(move |object| (tier, object)))
}

fn check_ways(tier: Tier, probe: &Probe) {
    for result in probe.self_test() {
        println!(
            "{tier} by the programs {}: {}: {:?}",
            probe.programs().unwrap(),
            result.way,
            result.verdict
        );
        match &result.verdict {
            WayOutcome::Seen => {}
            // A kernel may forbid io_uring as a whole; nothing else here is newer than Linux 5.10.
            WayOutcome::NotHere(why) => assert!(result.way.contains("io_uring"), "{}: {why}", result.way),
            WayOutcome::Blind(why) => panic!("{tier} is blind to {}: {why}", result.way),
        }
    }
}

/// The numbers of an alarm: off by one, which never goes away.
#[test]
fn counts_are_exact() {
    const PAIRS: u64 = 500;
    on_each_tier(|tier, probe| {
        // Reading opens descriptors too: /proc/self and its entries, which are more with more descriptors. They are
        // closed again.
        let first = probe.read().unwrap().counts.unwrap();
        let before = probe.read().unwrap();
        let reading = before.counts.unwrap().opened - first.opened;
        for _ in 0..PAIRS {
            drop(File::open("/dev/null").unwrap());
        }
        let kept = File::open("/dev/null").unwrap();
        let after = probe.read().unwrap();
        let repairs = before.repairs;
        let (before, counts) = (before.counts.unwrap(), after.counts.unwrap());
        let (opened, closed) = (counts.opened - before.opened, counts.closed - before.closed);
        assert_eq!(opened, closed + 1, "{tier}");
        assert!(
            (PAIRS + 1..=PAIRS + 1 + reading + 10).contains(&opened),
            "{tier}: {opened}, {reading} by a look"
        );
        assert_eq!(counts.opened - counts.closed, after.live.len() as u64, "{tier}");
        assert_eq!(
            (after.drift, after.repairs - repairs, counts.missed - before.missed),
            (0, 0, 0),
            "{tier}"
        );
        if tier.sees_releases() {
            assert_eq!(counts.released - before.released, closed, "{tier}");
        }
        let numbers: Vec<i32> = after.live.iter().map(|live| live.fd).collect();
        assert_eq!(numbers, after.look.fds.iter().map(|(fd, _)| *fd).collect::<Vec<_>>(), "{tier}");
        assert!(numbers.contains(&kept.as_raw_fd()));
        assert!(
            !probe.own_fds().is_empty() && probe.own_fds().iter().all(|fd| numbers.contains(fd)),
            "{tier}"
        );
    });
}

/// A leak typical of an io_uring agent: the descriptor is gone and the socket is not.
#[test]
fn a_file_closed_with_its_read_in_flight_is_named_until_it_goes() {
    const OWNER: u64 = 4711;
    on_each_tier(|tier, probe| {
        let mut bench = Workbench::new().unwrap();
        if !bench.has_ring() {
            println!("{tier}: io_uring is not allowed here");
            return;
        }
        let owners = probe.owners().unwrap();
        let mut number = 0;
        let mut unreleased = Vec::new();
        // Mappings of other probes last as long as those.
        let ours = |probe: &mut Probe| {
            let files = probe.read().unwrap().unreleased;
            files.into_iter().filter(|file| file.owner == OWNER).collect::<Vec<_>>()
        };
        // The claim is made between opening and closing, as the agent does.
        bench
            .close_while_in_use(
                |fd| owners.claim(fd, OWNER).unwrap(),
                |fd| {
                    number = fd;
                    unreleased = ours(probe);
                },
            )
            .unwrap();
        if !tier.sees_releases() {
            assert_eq!(unreleased, [], "{tier} was not expected to see files");
            return;
        }
        assert_eq!(unreleased.len(), 1, "{tier}: {unreleased:?}");
        assert_eq!((unreleased[0].last_fd, unreleased[0].owner), (number, OWNER), "{tier}");
        wait_until("the file to go", PATIENCE, || ours(probe).is_empty()).unwrap();
    });
}

/// A probe on a function that the kernel no longer calls: here it is not attached at all, which looks the same.
#[test]
fn a_blinded_tier_is_found_out() {
    let mut attached = turn();
    let ring = Workbench::new().unwrap().has_ring();
    // From Linux 6.6 the one calls the other, so that either is enough.
    let closing: &[&str] = &["filp_close", "filp_flush"];
    let programs: [(Tier, &[&str], &str); 8] = [
        (Tier::Tracing, &["fd_install"], "openat"),
        (Tier::Tracing, &["do_dup2"], "dup2 over another"),
        (Tier::Tracing, closing, "openat: descriptor"),
        (Tier::Tracing, &["fput"], "openat: the file of descriptor"),
        (Tier::Kprobe, closing, "openat: descriptor"),
        (Tier::Kprobe, &["fput"], "openat: the file of descriptor"),
        (Tier::Tracepoint, &["sys_exit"], "openat"),
        (Tier::Tracepoint, &["io_uring_complete"], "io_uring openat"),
    ];
    let mut tiers = TiersUsed::default();
    for tier in KERNEL_TIERS {
        let tried = attached.entry(tier);
        let tried = tried.or_insert_with(|| at_work_by(tier, Options::default().objects));
        tiers.try_use(tier, tried.as_ref().map_err(String::clone));
    }
    for (tier, left_out, blind_to) in programs {
        if !tiers.used.contains(&tier) || (left_out == ["io_uring_complete"] && !ring) {
            continue;
        }
        let options = Options {
            tiers: vec![tier],
            left_out: left_out.iter().map(|name| (*name).to_owned()).collect(),
            ..Options::default()
        };
        let left_out = left_out.join(", ");
        let probe = Probe::start(&options);
        assert_eq!(probe.tier(), Tier::Procfs, "{tier} without {left_out}");
        let (_, why) = &probe.refused()[0];
        println!("{tier} without {left_out}: {why}");
        assert!(why.contains("blind") && why.contains(blind_to), "{tier} without {left_out}: {why}");
    }
    tiers.judge();
}

/// Started without permissions, the agent works and says which tiers it does without, and why.
#[test]
fn without_rights_there_is_procfs() {
    let _turn = turn();
    // Capabilities belong to a thread; this one ends with the test.
    let without = std::thread::spawn(|| {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
        let mut probe = Probe::start(&Options::default());
        (probe.tier(), probe.refused().to_vec(), probe.read().map(|reading| reading.look.fds.len()))
    });
    let (tier, refused, fds) = without.join().unwrap();
    println!("{refused:?}");
    assert_eq!((tier, refused.len()), (Tier::Procfs, 3));
    assert!(refused.iter().all(|(_, why)| why.contains("not permitted")), "{refused:?}");
    assert!(fds.unwrap() > 0);
}

/// A daemon's descriptors, including those from before the watch.
#[test]
fn another_process_is_watched() {
    on_each_tier(|tier, probe| {
        let mut child = Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "opens_and_closes_as_told", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut order = |word: &str| {
            writeln!(orders, "{word}").unwrap();
            while lines.next().unwrap().unwrap() != "done" {}
        };
        let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let repairs = probe.read().unwrap().repairs;
        order("open");
        let watch = probe.watch(child.id() as i32).unwrap();
        for word in ["open", "open", "close"] {
            order(word);
            let reading = probe.read_watch(watch).unwrap();
            assert_eq!(reading.live.len(), open(child.id()), "{tier} after {word}");
        }
        let counts = probe.read_watch(watch).unwrap().counts;
        assert_eq!(counts.opened - counts.closed, open(child.id()) as u64, "{tier}");
        child.kill().unwrap();
        child.wait().unwrap();
        probe.unwatch(watch).unwrap();
        assert!(probe.read_watch(watch).is_err(), "{tier}");
        let reading = probe.read().unwrap();
        assert_eq!((reading.drift, reading.repairs), (0, repairs), "{tier}");
    });
}

/// The opposite of the test above.
#[test]
#[ignore = "run by another_process_is_watched"]
fn opens_and_closes_as_told() {
    let mut held = Vec::new();
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "open" => held.extend((0..7).map(|_| File::open("/dev/null").unwrap())),
            _ => held.truncate(3),
        }
        // On a line of its own: with one processor, libtest has begun the line with the test's name.
        println!("\ndone");
    }
}

/// The numbers of docs/probe.md: `cargo xtask bench probe`. CPU time of this thread, so that other work of the machine
/// counts little; without and with each tier in turn, medians.
#[test]
#[ignore = "a measurement, not a test"]
fn cost() {
    let _turn = turn();
    const ROUNDS: usize = 9;
    const PAIRS: u32 = 20_000;
    let pair_ns = || {
        let begun = cpu_time();
        for _ in 0..PAIRS {
            drop(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap());
        }
        (cpu_time() - begun).as_nanos() as u64 / u64::from(PAIRS)
    };
    // A call that makes no descriptor passes the tracepoint too.
    let other_ns = || {
        let begun = cpu_time();
        for _ in 0..PAIRS {
            let _ = rustix::process::getppid();
        }
        (cpu_time() - begun).as_nanos() as u64 / u64::from(PAIRS)
    };
    let median = |values: &mut Vec<u64>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    pair_ns();
    for (tier, object) in tiers_and_programs() {
        let (mut without, mut with, mut others_without, mut others_with) = (vec![], vec![], vec![], vec![]);
        let mut rest = String::new();
        for _ in 0..ROUNDS {
            without.push(pair_ns());
            others_without.push(other_ns());
            let begun = Instant::now();
            let Ok(mut probe) = at_work_by(tier, vec![object.clone()]) else { break };
            let start = begun.elapsed();
            with.push(pair_ns());
            others_with.push(other_ns());
            let begun = Instant::now();
            let reading = probe.read().unwrap();
            rest = format!(
                "start {start:?}; a read of {} descriptors {:?}",
                reading.live.len(),
                begun.elapsed()
            );
        }
        if with.is_empty() {
            continue;
        }
        println!(
            "{tier} by the programs {}: eventfd and close {} ns without, {} ns with; another call {} ns without, \
             {} ns with; {rest}",
            object.name,
            median(&mut without),
            median(&mut with),
            median(&mut others_without),
            median(&mut others_with)
        );
        println!("  eventfd and close, every round: {without:?} without, {with:?} with");
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
