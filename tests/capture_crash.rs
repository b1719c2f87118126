//! kill -9 of the agent, restarts and freezes of dockerd: nothing lost, nothing repeated, nothing torn.

use std::time::Duration;

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::both_engines;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::rand::Rand;
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::wait_until;

both_engines! {
    killed_twenty_times_by_file => |version| killed(version, Reading::FILE);
    killed_twenty_times_by_api => |version| killed(version, Reading::API);
    dockerd_stopped_and_started => dockerd_stopped;
    dockerd_frozen_by_file => |version| dockerd_frozen(version, Reading::FILE);
    dockerd_frozen_by_api => |version| dockerd_frozen(version, Reading::API);
}

/// Prints for as long as the test needs: about 1,000 lines a second on each channel.
const STEADY: &str = "a=1; while [ ! -e /stop ]; do z=$((a+99)); \
    seq $a $z | sed 's/^/out line /'; seq $a $z | sed 's/^/err line /' >&2; a=$((z+1)); sleep 0.1; done";

fn start_steady(engine: &Engine, count: usize) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("steady-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(STEADY).name(name))?;
    }
    Ok(names)
}

fn stop_steady(engine: &Engine, names: &[String]) -> Result<()> {
    for name in names {
        engine.docker(&["exec", name, "touch", "/stop"])?;
    }
    for name in names {
        engine.wait(name)?;
    }
    Ok(())
}

fn killed(version: EngineVersion, reading: Reading) -> Result<()> {
    let mut rand = Rand::from_env_or(20);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, reading);
    let names = start_steady(&engine, 3)?;
    for _ in 0..20 {
        let agent = home.launch(&config)?;
        // A random moment, counted in output, not in time: so that it means the same on a busy machine.
        let goal = home.output_bytes() + rand.within(0..120_000);
        wait_until("some output", Duration::from_secs(30), || home.output_bytes() >= goal)?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    stop_steady(&engine, &names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

fn more_output(home: &Home) -> Result<()> {
    let before = home.output_bytes();
    wait_until("more output", Duration::from_secs(30), || home.output_bytes() > before + 50_000)
}

/// With live-restore containers outlive their daemon; what they print meanwhile waits in their pipes.
fn dockerd_stopped(version: EngineVersion) -> Result<()> {
    for reading in [Reading::FILE, Reading::API] {
        let mut engine = Engine::start_with(version, &["--live-restore"])?;
        let home = Home::new()?;
        let agent = home.start(&config(&home, &engine, reading))?;
        let names = start_steady(&engine, 3)?;
        more_output(&home)?;
        engine.stop()?;
        wait_until("the agent to say that Docker is away", Duration::from_secs(20), || {
            let (status, body) = agent.ask("/health")?;
            ensure!(status == 503 && body.contains("docker"), "{status} {body}");
            Ok(())
        })?;
        engine.start_daemon()?;
        wait_until("the agent to say that Docker is back", Duration::from_secs(20), || agent.get("/health"))?;
        more_output(&home)?;
        stop_steady(&engine, &names)?;
        assert_equal_to_docker_logs(&home, &engine, &names)?;
        agent.stop()?;
    }
    Ok(())
}

fn dockerd_frozen(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let names = start_steady(&engine, 3)?;
    more_output(&home)?;
    engine.freeze()?;
    let said = wait_until("the agent to say that Docker does not answer", Duration::from_secs(30), || {
        let (status, body) = agent.ask("/health")?;
        ensure!(status == 503 && body.contains("no answer"), "{status} {body}");
        Ok(())
    });
    engine.thaw()?;
    said?;
    wait_until("the agent to say that Docker is back", Duration::from_secs(30), || agent.get("/health"))?;
    more_output(&home)?;
    stop_steady(&engine, &names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}
