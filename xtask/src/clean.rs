//! The last part of `cargo xtask test`: removes what tests left on the machine, and fails if there was anything.
//!
//! Engines of a dead test process are removed by the records in their folders (`tests/src/sweep.rs`), here and by each
//! test that starts another one; those tests take note of it, so that it also counts here. The folders in which such a
//! process worked are removed by their names, with the agents it had started from there. Leftovers of an earlier run
//! are removed before anything is tested, and are no failure of this run. An agent that a test started and forgot is
//! only named: nothing proves that it is ours to end.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::paths;
use crate::sweep::{SWEPT_NOTE, Swept, all_processes, start_ticks, stat_fields, sweep_dead};

/// Removes the leftovers of earlier runs, before anything is tested.
pub fn before() {
    let swept = sweep();
    for what in &swept.removed {
        println!("taken away, left by an earlier run: {what}");
    }
    for why in &swept.failed {
        println!("could not be taken away: {why}");
    }
    // Its messages are about earlier runs.
    let _ = fs::remove_file(note());
}

/// Removes the leftovers of this run; fails if there were any.
pub fn after() -> Result<()> {
    let noted = fs::read_to_string(note()).unwrap_or_default();
    let swept = sweep();
    let mut left: Vec<String> = noted.lines().map(|what| format!("{what} (seen by a later test)")).collect();
    left.extend(swept.removed.iter().map(|what| format!("{what} (taken away now)")));
    left.extend(swept.failed);
    left.extend(forgotten_agents());
    if !swept.alive.is_empty() {
        println!("of tests that still run, and so left alone: {}", swept.alive.join(", "));
    }
    if left.is_empty() {
        println!("no process, mount or folder of a test is left");
        return Ok(());
    }
    bail!("tests left something behind:\n  {}", left.join("\n  "));
}

fn sweep() -> Swept {
    sweep_dead(&std::env::temp_dir())
}

fn note() -> PathBuf {
    paths::engines().join(SWEPT_NOTE)
}

/// Agents of this tree that were started after this process, and that no test or chore waits for.
fn forgotten_agents() -> Vec<String> {
    let program_of = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let target = paths::target();
    let target = target.canonicalize().unwrap_or(target);
    let we_started = start_ticks(rustix::process::getpid().as_raw_nonzero().get());
    let forgotten = |pid: &i32| {
        let program = program_of(*pid);
        let is_agent =
            program.starts_with(&target) && program.file_name().is_some_and(|name| name == "capturer");
        is_agent
            && start_ticks(*pid) >= we_started
            && !ancestors(*pid).into_iter().any(|p| program_of(p).starts_with(&target))
    };
    let pids = all_processes().into_iter().filter(forgotten);
    pids.map(|pid| format!("process {pid}, {}, which no test waits for", program_of(pid).display())).collect()
}

/// Its parent, grandparent, and so on.
fn ancestors(pid: i32) -> Vec<i32> {
    let parent = |pid: i32| stat_fields(pid)?.get(1)?.parse().ok().filter(|&parent: &i32| parent > 0);
    std::iter::successors(parent(pid), |&pid| parent(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_ancestors_end_at_the_first_process() {
        let ours = ancestors(rustix::process::getpid().as_raw_nonzero().get());
        assert!(
            ours.contains(&rustix::process::getppid().expect("we have a parent").as_raw_nonzero().get()),
            "{ours:?}"
        );
        assert!(ours.windows(2).all(|pair| pair[0] != pair[1]), "{ours:?}");
    }
}
