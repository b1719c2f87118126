//! The last part of `cargo xtask test`: what tests left on the machine is taken away, and is a failure.
//!
//! Engines of a test process that was killed are on record (`tests/src/sweep.rs`). What has no record is only named, be it
//! a folder or an agent that a test started and forgot: nothing says for sure that it is ours to end.

use std::fs;

use anyhow::{Result, bail};

use crate::paths;
use crate::sweep::{ROOT_PREFIX, Swept, all_processes, mounts_beneath, start_ticks, stat_fields, sweep_dead};

/// Takes away what earlier runs left, before anything is tested.
pub fn before() {
    let swept = sweep();
    for what in &swept.removed {
        println!("taken away, left by a test that was killed: {what}");
    }
    for why in &swept.failed {
        println!("could not be taken away: {why}");
    }
}

/// Takes away what this run left; fails if there was anything.
pub fn after() -> Result<()> {
    let swept = sweep();
    let mut left: Vec<String> = swept.removed.iter().map(|what| format!("{what} (taken away now)")).collect();
    left.extend(swept.failed);
    left.extend(unrecorded());
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
    sweep_dead(&paths::engine_records())
}

/// Folders, and processes with mounts in them, of dead test processes. A living one cleans up after itself.
fn unrecorded() -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(ROOT_PREFIX) else { continue };
        let owner = rest.split('-').next().and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| start_ticks(pid).is_some()) {
            continue;
        }
        let path = entry.path();
        let users: Vec<i32> = all_processes()
            .into_iter()
            .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| names(&line, &name)))
            .collect();
        left.push(format!(
            "{}, of no living test; named by processes {users:?}; {} mounts in it",
            path.display(),
            mounts_beneath(&path).len()
        ));
    }
    left
}

/// Agents of this tree that were started since we were, and that no test or chore is waiting for.
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

/// Parent, grandparent, and so on.
fn ancestors(pid: i32) -> Vec<i32> {
    let parent = |pid: i32| stat_fields(pid)?.get(1)?.parse().ok().filter(|&parent: &i32| parent > 0);
    std::iter::successors(parent(pid), |&pid| parent(pid)).collect()
}

fn names(command_line: &[u8], name: &str) -> bool {
    String::from_utf8_lossy(command_line).contains(name)
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
