//! kill -9 of the agent, restarts and freezes of dockerd: nothing lost, nothing repeated, nothing torn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use capturer_tests::agent::{Agent, Home, assert_same_lines};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::lateness::Lateness;
use capturer_tests::rand::Rand;
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};
use serde_json::Value;

both_engines! {
    killed_twenty_times_by_api => |version| killed(version, Reading::API);
    dockerd_stopped_and_started => dockerd_stopped;
    dockerd_frozen_by_api => |version| dockerd_frozen(version, Reading::API);
}

one_engine! { V20_10:
    killed_while_a_log_rotates_by_api => killed_while_a_log_rotates;
}

one_engine! { V28_5:
    killed_twenty_times_by_file => |version| killed(version, Reading::FILE);
    killed_while_outputs_rotate => killed_while_outputs_rotate;
    dockerd_frozen_by_file => |version| dockerd_frozen(version, Reading::FILE);
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
        engine.touch(name, "/stop")?;
    }
    engine.wait_for_all(names)
}

fn killed(version: EngineVersion, reading: Reading) -> Result<()> {
    let mut rand = Rand::from_env_or(20);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, reading);
    let names = start_steady(&engine, 3)?;
    for _ in 0..20 {
        let agent = home.launch(&config)?;
        // A random moment, counted in output instead of time, so that it means the same on a busy machine.
        let goal = home.output_bytes() + rand.within(0..120_000);
        wait_until("some output", PATIENCE, || home.output_bytes() >= goal)?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    stop_steady(&engine, &names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

/// The old Engine's follow skips lines of a log that rotates, so the agent switches to the files. Output after the last
/// checkpoint then came over the API, and is read again from a file, which escapes it differently.
fn killed_while_a_log_rotates(version: EngineVersion) -> Result<()> {
    const ODD: &str = "n=0; while [ $n -lt 500 ]; do n=$((n+1)); printf \"$n <b> & \\001 \\033[1m \\377\\376\\n\"; \
        head -c 3000 /dev/zero | tr '\\0' '>'; echo \" $n\"; usleep 15000; done";
    let mut rand = Rand::from_env_or(22);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading { rotation: "1h", ..Reading::API });
    let names: Vec<String> = (0..3).map(|number| format!("odd-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(ODD).name(name).log_opt("max-size", "100k").log_opt("max-file", "200"))?;
    }
    for _ in 0..10 {
        let agent = home.launch(&config)?;
        let goal = home.output_bytes() + rand.within(100_000..400_000);
        wait_until("some output", PATIENCE, || home.output_bytes() >= goal)?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    engine.wait_for_all(&names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

/// A crash between two checkpoints may fall before, within or after a rotation of the output itself.
fn killed_while_outputs_rotate(version: EngineVersion) -> Result<()> {
    let mut rand = Rand::from_env_or(21);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let more = format!("container_monitor: {{socket_path: \"unix://{}\"}}\n", engine.socket().display());
    let config = home.config_with_output("max_size: 32KiB, max_files: 0, compress: none", &more);
    let names = start_steady(&engine, 2)?;
    for _ in 0..12 {
        let agent = home.launch(&config)?;
        let before = agent.metric("logs_processed_total")?;
        let goal = rand.within(0..4_000) as f64;
        wait_until("some records", PATIENCE, || {
            let read = agent.metric("logs_processed_total")? - before;
            ensure!(read >= goal, "{read} of {goal}");
            Ok(())
        })?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    stop_steady(&engine, &names)?;
    for name in &names {
        let expected = engine.logs(name)?;
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        let all = lines(&expected.stdout) + lines(&expected.stderr);
        let records = wait_until("all records", PATIENCE, || {
            let records = home.records_with_older(name)?;
            ensure!(records.len() == all, "{} of {all}", records.len());
            Ok(records)
        })?;
        for (channel, expected) in [("stdout", &expected.stdout), ("stderr", &expected.stderr)] {
            let messages = records.iter().filter(|record| record.stream == channel);
            let got: String = messages.map(|record| record.message.clone() + "\n").collect();
            assert_same_lines(&format!("{name} {channel}"), got.as_bytes(), expected);
        }
    }
    agent.stop()
}

fn more_output(home: &Home) -> Result<()> {
    let before = home.output_bytes();
    wait_until("more output", PATIENCE, || home.output_bytes() > before + 50_000)
}

/// With live-restore containers outlive their daemon; their output waits in pipes meanwhile.
fn dockerd_stopped(version: EngineVersion) -> Result<()> {
    for reading in [Reading::FILE, Reading::API] {
        let mut engine = Engine::start_with(version, &["--live-restore"])?;
        let home = Home::new()?;
        let agent = home.start(&config(&home, &engine, reading))?;
        let names = start_steady(&engine, 3)?;
        more_output(&home)?;
        engine.stop()?;
        wait_until("the agent to say that Docker is away", PATIENCE, || {
            let (status, body) = agent.ask("/health")?;
            ensure!(status == 503 && body.contains("docker"), "{status} {body}");
            Ok(())
        })?;
        engine.start_daemon()?;
        wait_until("the agent to say that Docker is back", PATIENCE, || agent.get("/health"))?;
        more_output(&home)?;
        stop_steady(&engine, &names)?;
        assert_equal_to_docker_logs(&home, &engine, &names)?;
        agent.stop()?;
    }
    Ok(())
}

/// Longer than any read may take, so every read times out; yet no stream is forgotten, and nobody has to wait.
fn dockerd_frozen(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let names = start_steady(&engine, 3)?;
    more_output(&home)?;
    // One that the agent has not heard of yet could not wait for a frozen Engine.
    wait_until("a stream for each container", PATIENCE, || {
        let known = agent.streams()?.len();
        ensure!(known == names.len(), "{known} of {}", names.len());
        Ok(())
    })?;
    engine.freeze()?;
    let (mut admin, lateness) = (Latencies::default(), Lateness::watch());
    let said = wait_until("the agent to say that Docker does not answer", PATIENCE, || {
        let (status, body) = admin.ask(&agent, "/health")?;
        ensure!(status == 503 && body.contains("no answer"), "{status} {body}");
        Ok(())
    });
    let seen = said.and_then(|()| match reading.from {
        "api" => every_stream_waits(&agent, names.len(), &mut admin),
        _ => Ok(()),
    });
    engine.thaw()?;
    seen?;
    wait_until("the agent to say that Docker is back", PATIENCE, || agent.get("/health"))?;
    admin.assert_quick(&lateness);
    more_output(&home)?;
    stop_steady(&engine, &names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

/// Each stream's read or open has ended by its timer, and the stream was shown as waiting, with that reason.
fn every_stream_waits(agent: &Agent, count: usize, admin: &mut Latencies) -> Result<()> {
    let mut waited = BTreeMap::new();
    wait_until("every stream to be shown as waiting, with the reason", PATIENCE, || {
        let (_, body) = admin.ask(agent, "/api/v1/streams")?;
        let page: Value = serde_json::from_str(&body)?;
        for row in page["streams"].as_array().into_iter().flatten() {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let deadline_ms = row["operation_deadline_ms"].as_u64().unwrap_or(0);
            assert!(deadline_ms <= 1_000, "an operation without an end in sight: {row}");
            if text("state") == "waiting" && text("cause").contains("no answer") {
                waited.insert(text("name"), text("cause"));
            }
        }
        admin.ask(agent, "/metrics")?;
        ensure!(waited.len() == count, "{waited:?} of {page}");
        Ok(())
    })?;
    println!("frozen: {waited:?}");
    Ok(())
}

/// How long the admin server took to answer.
#[derive(Default)]
struct Latencies(Vec<Duration>);

impl Latencies {
    fn ask(&mut self, agent: &Agent, page: &str) -> Result<(u16, String)> {
        let asked = Instant::now();
        let answer = agent.ask(page);
        self.0.push(asked.elapsed());
        answer
    }

    /// Nineteen of twenty answers under 100 ms and each under 2 s, if the machine allows it.
    fn assert_quick(mut self, lateness: &Lateness) {
        self.0.sort_unstable();
        let (count, last) = (self.0.len(), self.0[self.0.len() - 1]);
        let (median, most) = (self.0[count / 2], self.0[count * 19 / 20]);
        println!(
            "frozen: {count} answers of the admin server: median {median:?}, 95 % {most:?}, slowest {last:?}"
        );
        assert!(most <= lateness.allow(Duration::from_millis(100)), "95 % took up to {most:?}");
        assert!(last <= lateness.allow(Duration::from_secs(2)), "one took {last:?}");
    }
}
