//! The leak test: descriptors, threads, tasks and operations over many rotations while containers come and go.

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::both_engines;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{Reading, config, held_at_rest, rotated, ticking};
use capturer_tests::wait::{PATIENCE, wait_until};

both_engines! {
    rotations_and_churn_leave_nothing => leave_nothing;
}

const STAYING: usize = 20;
const PASSING: usize = 8;
const ROUNDS: u64 = 6;
/// dockerd's own descriptors come and go with its garbage collector.
const DOCKERD_SLACK: usize = 6;

fn leave_nothing(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { timeout: "30s", ..Reading::API }))?;
    let staying: Vec<String> = (0..STAYING).map(|number| format!("staying-{number}")).collect();
    for name in &staying {
        engine.run(&RunSpec::sh(&ticking("0.5")).name(name))?;
    }
    let mut after_first = None;
    for round in 1..=ROUNDS {
        let names: Vec<String> = (0..PASSING).map(|number| format!("passing-{round}-{number}")).collect();
        for name in &names {
            engine.run(&RunSpec::sh("echo one; sleep 1; echo two").name(name))?;
        }
        for name in &names {
            wait_until(&format!("the lines of {name}"), PATIENCE, || home.count_of(name) == 2)?;
            engine.rm(name)?;
        }
        // Those that stay have rotated a few more times; temporary ones are gone.
        rotated(&agent, STAYING, 3 * round)?;
        let held = held_at_rest(&agent, &home, &engine, &staying)?;
        let (first, first_dockerd) = match after_first {
            Some(first) => first,
            None => *after_first.insert((held, engine.fd_count()?)),
        };
        ensure!(held == first, "after round 1 it held {first:?}, now {held:?}");
        // A leaked one would not disappear; one of a request that is just being answered does.
        let dockerd = wait_until("dockerd to hold what it held", PATIENCE, || {
            let dockerd = engine.fd_count()?;
            ensure!(
                dockerd <= first_dockerd + DOCKERD_SLACK,
                "{dockerd} descriptors, {first_dockerd} before"
            );
            Ok(dockerd)
        })?;
        println!("round {round}: {held:?}, dockerd {dockerd} descriptors");
    }
    agent.stop()
}
