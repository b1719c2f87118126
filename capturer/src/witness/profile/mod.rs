//! Takes a profile of the running agent: samples of all threads (probe/sampling.rs), each resolved to the names of the
//! functions on its stack (code.rs), and counted.
//!
//! A thread of its own takes the profile and ends with it. Memory for names is held only meanwhile: they are in the
//! program's own file, tens of megabytes of it.
//!
//! Not here: what a profile is and who may request one (telemetry/profile/).

mod code;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::telemetry::profile::{HERTZ, Order, Profile, Stack};
use crate::witness::probe::heap;
use crate::witness::probe::sampling::Sampling;
use code::{Code, Seen};

/// How often samples are looked at: the slots must be enough for this long.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts a thread that takes a profile.
pub fn start(order: Order) {
    let thread = std::thread::Builder::new().name("profile".to_owned());
    let taking = move || {
        let Order { time, answer, turn } = order;
        let profile = take(time, || answer.is_closed());
        heap::give_back();
        // From here on whoever has this profile may request the next one.
        drop(turn);
        let _ = answer.send(profile);
    };
    // Without a thread the order is dropped, which tells whoever waits for it.
    if let Err(error) = thread.spawn(taking) {
        tracing::warn!(%error, "no profile can be taken: its thread could not be started");
    }
}

fn take(time: Duration, is_unwanted: impl Fn() -> bool) -> anyhow::Result<Profile> {
    let mut code = Code::load().context("reading which code is loaded")?;
    let began_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
    let begun = Instant::now();
    let mut seen: BTreeMap<(i32, Seen), u64> = BTreeMap::new();
    let mut threads: HashMap<i32, Arc<str>> = HashMap::new();
    let mut sampling = Sampling::start(HERTZ).context(
        "the kernel refuses the samples (SIGPROF, process_vm_readv); in a container its seccomp profile may",
    )?;
    let mut missed = 0;
    let mut is_last = false;
    while !is_last {
        std::thread::sleep(LOOK_EVERY);
        is_last = begun.elapsed() >= time || is_unwanted();
        if is_last {
            missed = sampling.end();
        }
        sampling.look(|sample| {
            // The name must be read while the thread lives.
            threads.entry(sample.thread).or_insert_with(|| thread_name(sample.thread));
            *seen.entry((sample.thread, code.unwind(sample))).or_default() += 1;
        });
    }
    let time = begun.elapsed();
    drop(sampling);
    let mut stacks = BTreeMap::new();
    let names = code.names();
    for ((thread, seen), count) in seen {
        let stack = Stack { thread: Arc::clone(&threads[&thread]), frames: names.of(&seen) };
        *stacks.entry(stack).or_default() += count;
    }
    Ok(Profile { time, began_ns, stacks, missed, note: names.note() })
}

fn thread_name(thread: i32) -> Arc<str> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    name.map_or_else(|_| "ended".into(), |name| name.trim_end().into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[inline(never)]
    fn a_function_that_works(until: &AtomicBool) -> u64 {
        let mut sum = 0_u64;
        while !until.load(Ordering::Relaxed) {
            for i in 0..10_000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
            }
        }
        sum
    }

    /// All of it, in this very process: timer, handler, unwinding, names.
    #[test]
    fn what_works_is_named() {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("worker".to_owned());
            let worker = thread.spawn_scoped(scope, || a_function_that_works(&ended)).expect("a thread");
            let begun = Instant::now();
            // However little processor time it gets.
            let found = loop {
                let profile = take(Duration::from_millis(300), || false).expect("a profile");
                let is_it = |stack: &&Stack| {
                    let works = |name: &str| name.ends_with("profile::tests::a_function_that_works");
                    &*stack.thread == "worker" && stack.frames.iter().any(|frame| works(&frame.name))
                };
                if let Some(stack) = profile.stacks.keys().find(is_it) {
                    break Ok(stack.clone());
                }
                if begun.elapsed() > Duration::from_secs(60) {
                    break Err(profile);
                }
            };
            ended.store(true, Ordering::Relaxed);
            worker.join().expect("it ends");
            let stack = found.expect("the function is seen");
            // The root is where threads begin, so the stack is complete.
            let names: Vec<&str> = stack.frames.iter().map(|frame| &*frame.name).collect();
            assert!(names.iter().any(|name| name.contains("thread_start")), "{names:?}");
            assert!(stack.frames.iter().any(|frame| frame.file.ends_with("profile/mod.rs")), "{stack:?}");
        });
    }

    #[test]
    fn one_that_nobody_wants_ends_early() {
        let profile = take(Duration::from_secs(3_600), || true).expect("a profile");
        assert!(profile.time < Duration::from_secs(3_600));
    }
}
