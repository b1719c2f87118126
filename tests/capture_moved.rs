//! A container's log that is in another place from its next start on: the Engine's data was copied and the old data
//! kept. The old log never grows again, so an agent that only follows it believes that all is well.

use std::path::Path;

use anyhow::{Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    followed_into_a_copy_by_file => |version| into_a_copy(version, Reading::FILE, While::Followed);
}

one_engine! { V28_5:
    followed_into_a_copy_by_api => |version| into_a_copy(version, Reading::API, While::Followed);
    copied_while_the_agent_is_down => |version| into_a_copy(version, Reading::FILE, While::Down);
    running_again_when_the_engine_is => runs_again;
}

/// What the agent does while the data is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum While {
    Followed,
    Down,
}

/// Different lines each time, some in rotated files.
const LINES: &str = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo $(date +%s%N) line $n; done";

fn spec(name: &str) -> RunSpec {
    let options = [("max-size", "12k"), ("max-file", "20")];
    options.iter().fold(RunSpec::sh(LINES).name(name), |spec, (key, value)| spec.log_opt(key, value))
}

fn delivered(home: &Home, name: &str, expected: usize) -> Result<()> {
    wait_until(&format!("{expected} lines of {name}"), PATIENCE, || {
        let got = home.count_of(name);
        ensure!(got == expected, "{got}");
        Ok(())
    })
}

fn says_so(agent: &Agent, old: &Path, new: &Path) -> Result<()> {
    let log = agent.log_text()?;
    let (old, new) = (old.display(), new.display());
    ensure!(log.matches(&format!("its log was {old} and is {new}")).count() == 1, "{log}");
    Ok(())
}

fn into_a_copy(version: EngineVersion, reading: Reading, at_that_time: While) -> Result<()> {
    let mut engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, reading);
    let mut agent = Some(home.start(&config)?);
    let id = engine.run(&spec("moved"))?;
    let old = engine.log_path(&id);
    delivered(&home, "moved", 400)?;
    engine.wait("moved")?;
    if let Some(agent) = agent.take_if(|_| at_that_time == While::Down) {
        agent.stop()?;
    }
    engine.stop()?;
    engine.copy_data_root()?;
    engine.start_daemon()?;
    let agent = agent.map_or_else(|| home.start(&config), Ok)?;
    wait_until("its stream", PATIENCE, || {
        let rows = agent.streams()?;
        ensure!(rows.iter().any(|row| row["name"] == "moved"), "{rows:?}");
        Ok(())
    })?;
    engine.docker(&["start", "moved"])?;
    engine.wait("moved")?;
    ensure!(old.exists() && old != engine.log_path(&id), "the old log must be there");
    assert_equal_to_docker_logs(&home, &engine, &["moved".to_owned()])?;
    says_so(&agent, &old, &engine.log_path(&id))?;
    assert_nothing_lost(&agent)?;
    agent.stop()?;
    // The position is in the copy: nothing is repeated, and later lines are found.
    let agent = home.start(&config)?;
    engine.docker(&["start", "moved"])?;
    engine.wait("moved")?;
    assert_equal_to_docker_logs(&home, &engine, &["moved".to_owned()])?;
    assert_nothing_lost(&agent)?;
    agent.stop()
}

/// The agent does not see the start: the Engine makes it before it answers.
fn runs_again(version: EngineVersion) -> Result<()> {
    let mut engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let script = format!("{LINES}; sleep 600");
    let id = engine.run(&RunSpec::sh(&script).name("always").argument("--restart=always"))?;
    let old = engine.log_path(&id);
    delivered(&home, "always", 400)?;
    engine.stop()?;
    engine.copy_data_root()?;
    engine.start_daemon()?;
    delivered(&home, "always", 800)?;
    assert_equal_to_docker_logs(&home, &engine, &["always".to_owned()])?;
    says_so(&agent, &old, &engine.log_path(&id))?;
    assert_nothing_lost(&agent)?;
    agent.stop()
}

fn assert_nothing_lost(agent: &Agent) -> Result<()> {
    let metrics = agent.get("/metrics")?;
    let lost = |line: &&str| line.contains("losses_total{") && !line.ends_with(" 0");
    let lost: Vec<&str> = metrics.lines().filter(lost).collect();
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}
