//! A metric that nothing ever counts is worse than none: its readers believe that all is well. So real agents run here
//! over files, the API and Loki, with the faults of practice, and every family of metrics has to move: a counter to
//! count, a gauge to show something. Those that can't move here are in [`ELSEWHERE`] with their reasons.
//!
//! Not here: every single value of a label. Those of losses, skipped records, refusals and failures are moved one by
//! one in the test of each fault (hostile_files.rs, hostile_daemon.rs, loki.rs, capture_gaps.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fake_docker::{FakeDocker, Reply, inspect_path, inspection};
use capturer_tests::loki::{Mood, POISON, TestLoki};
use capturer_tests::wait::wait_until;
use rustix::process::Signal;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(120);

/// Families that do not move here, and why.
const ELSEWHERE: [(&str, &str); 16] = [
    ("tasks", "the capture loop has none: witness.rs makes one on purpose"),
    ("checkpoint_save_failures_total", "needs a disk that fails: hostile_files.rs"),
    ("sink_errors_total", "needs a disk that fails: hung_sink.rs, hostile_files.rs"),
    ("outputs_blocked", "needs an output that takes nothing: outputs.rs, a_blocked_output_harms_no_other"),
    ("read_timers_refused_total", "a mistake of the agent; no test can make the kernel refuse a timer"),
    ("streams_stuck", "a mistake of the agent; the watchdog has a test in capture/core/look.rs"),
    ("leak_detection", "a mistake of the agent: witness.rs makes leaks on purpose"),
    ("kernel_fd_drift", "a mistake of the agent, or a moment"),
    ("files_waiting_for_descriptors", "needs a lower limit: limits.rs"),
    ("patterns_unmatched", "takes a minute: followed.rs"),
    ("directories_unwatched", "needs a lower limit of inotify: followed.rs"),
    ("sources_unreadable", "needs an agent without rights: limits.rs"),
    ("deleted_open_bytes", "a moment: capture_gaps.rs holds it"),
    ("sources_in_other", "needs more sources than metrics.max_containers: capture_many.rs"),
    ("source_losses_total", "a source with a loss of its own is gone soon: operate.rs"),
    ("tap_skipped_lines_total", "needs a reader that does not read: watching.rs"),
];

/// What the scrapes showed so far.
#[derive(Default)]
struct Seen {
    first: BTreeMap<String, f64>,
    families: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl Seen {
    fn look(&mut self, agent: &Agent) -> Result<()> {
        for line in agent.get("/metrics")?.lines() {
            if let Some(name) = line.strip_prefix("# TYPE log_capturer_") {
                self.families.extend(name.split(' ').next().map(str::to_owned));
            }
            let Some((series, value)) =
                line.strip_prefix("log_capturer_").and_then(|line| line.rsplit_once(' '))
            else {
                continue;
            };
            let value: f64 = value.parse().with_context(|| line.to_owned())?;
            let first = *self.first.entry(series.to_owned()).or_insert(value);
            if value != 0.0 || value != first {
                let name = series.split('{').next().unwrap_or_default();
                let suffixes = ["_bucket", "_sum", "_count"];
                let family = suffixes.iter().find_map(|suffix| {
                    name.strip_suffix(suffix).filter(|family| self.families.contains(*family))
                });
                self.moved.insert(family.unwrap_or(name).to_owned());
            }
        }
        Ok(())
    }

    fn await_moved(&mut self, agent: &Agent, family: &str) -> Result<()> {
        wait_until(&format!("{family} to move"), DEADLINE, || {
            self.look(agent)?;
            ensure!(self.moved.contains(family), "it stands");
            Ok(())
        })
    }
}

fn config(home: &Home, engine: &Engine, loki: &TestLoki) -> String {
    let (path, socket, url) = (home.path().display(), engine.socket().display(), loki.url());
    format!(
        "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
         limits: {{line_bytes_max: 64KiB}}\n\
         container_monitor:\n  socket_path: unix://{socket}\n  read_from: api\n  read_timeout: 1s\n  \
         stream_rotation: {{interval: 3s, idle_interval: 3s, pause_between_rotations: 10ms}}\n\
         file_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}, {{paths: [\"{path}/in/*.json\"], format: docker}}]}}\n\
         pipelines:\n  - name: slow\n    match: {{paths: [\"{path}/in/slow.log\"]}}\n    \
         rate_limit: {{lines: 5, burst: 1s}}\n    steps: [{{drop: {{matches: debug}}}}]\n\
         sinks:\n  local_file: {{directory: {path}/out, file: all.ndjson}}\n  \
         loki: {{enabled: true, url: \"{url}\", batch_timeout: 100ms}}\n\
         resource_monitoring: {{check_interval: 1s}}\n"
    )
}

#[test]
fn every_family_of_metrics_moves() -> Result<()> {
    let mut engine = Engine::start(EngineVersion::V28_5)?;
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    // What a pattern matches and does not follow.
    fs::create_dir(input.join("directory.log"))?;
    for number in 0..3 {
        let name = format!("ticks-{number}");
        engine.run(&RunSpec::sh("while :; do echo tick; sleep 0.05; done").name(&name))?;
    }
    engine.run(&RunSpec::sh("echo once; while :; do sleep 1; done").name("quiet"))?;
    let config = config(&home, &engine, &loki);
    let agent = home.start(&config)?;
    let mut seen = Seen::default();
    seen.look(&agent)?;

    let append = |name: &str, bytes: &[u8]| -> Result<()> {
        let mut file = File::options().create(true).append(true).open(input.join(name))?;
        Ok(file.write_all(bytes)?)
    };
    append("a.log", b"plain\nnot \xff UTF-8\n")?;
    append("a.log", &[&[b'x'; 100_000][..], b"\n"].concat())?;
    append("a.log", format!("{POISON} of Loki\n").as_bytes())?;
    append("slow.log", "debug this\nkeep this\n".repeat(20).as_bytes())?;
    append(
        "docker.json",
        b"{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.1Z\"}\n{\"log\":\"torn\n",
    )?;
    append(
        "docker.json",
        b"{\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:49.1Z\"}\n",
    )?;
    for family in [
        "invalid_utf8_replaced_total",
        "lines_truncated_total",
        "dead_letters_total",
        "rate_limit_waits_total",
        "pipeline_lines_total",
        "pipeline_lines_in_total",
        "skipped_records_total",
        "losses_total",
        "lost_bytes_total",
        "duplicates_dropped_total",
        "container_stream_rotations_total",
        "container_stream_age_seconds",
        "stream_read_timeouts_total",
        "capture_lag_seconds",
        "sink_batches_waiting",
    ] {
        seen.await_moved(&agent, family)?;
    }

    // A file that is rewritten in place: nobody can see whether a line was there in between.
    let mut rounds = 0;
    wait_until("possible_losses_total to move", DEADLINE, || {
        rounds += 1;
        append("anew.log", b"a line that is read\n")?;
        wait_until("it to be read", DEADLINE, || {
            seen.look(&agent)?;
            let lag = agent.metric("capture_lag_bytes")?;
            ensure!(lag == 0.0, "{lag} bytes behind");
            Ok(())
        })?;
        fs::write(input.join("anew.log"), format!("{rounds}\n"))?;
        seen.look(&agent)?;
        ensure!(seen.moved.contains("possible_losses_total"), "it stands");
        Ok(())
    })?;

    engine.restart_daemon()?;
    seen.await_moved(&agent, "container_stream_errors_total")?;

    loki.set(Mood::Unavailable);
    append("a.log", b"while Loki is away\n")?;
    seen.await_moved(&agent, "push_failures_total")?;
    seen.await_moved(&agent, "spool_lag_seconds")?;
    loki.set(Mood::Well);
    seen.await_moved(&agent, "spool_bytes")?;

    let mut tap = agent.connect()?;
    write!(tap, "GET /api/v1/tap HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let _ = tap.read(&mut [0; 64])?;
    seen.await_moved(&agent, "tap_watchers")?;
    drop(tap);

    // A burst is behind for a moment.
    wait_until("a lag", DEADLINE, || {
        append("a.log", "a line that takes its time\n".repeat(200_000).as_bytes())?;
        seen.look(&agent)?;
        ensure!(seen.moved.contains("capture_lag_bytes"), "it stands");
        Ok(())
    })?;
    agent.signal(Signal::HUP);
    seen.await_moved(&agent, "config_reloads_total")?;

    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(family, _)| *family).collect();
    let still: Vec<&String> = seen
        .families
        .iter()
        .filter(|family| !seen.moved.contains(*family) && !elsewhere.contains(family.as_str()))
        .collect();
    ensure!(still.is_empty(), "never moved: {still:?}");
    let unknown: Vec<&&str> = elsewhere.iter().filter(|family| !seen.families.contains(**family)).collect();
    ensure!(unknown.is_empty(), "no such families: {unknown:?}");
    agent.stop()
}

/// All series, without their values.
fn series(agent: &Agent) -> Result<BTreeSet<String>> {
    let metrics = agent.get("/metrics")?;
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    Ok(samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect())
}

/// Hosts that run a container for each job would fill a Prometheus with series that never move again.
#[test]
fn three_hundred_containers_come_and_gone_leave_no_series() -> Result<()> {
    const COUNT: usize = 300;
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    let path = home.path().display();
    let config = format!(
        "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
         container_monitor: {{socket_path: \"unix://{}\", list_interval: 1s}}\n\
         sinks: {{local_file: {{directory: {path}/out, file: all.ndjson}}}}\n\
         resource_monitoring: {{check_interval: 1s}}\n",
        docker.socket().display()
    );
    let agent = home.start(&config)?;
    // Some begin once the kernel has taken the witness's programs.
    let before = wait_until("the first look of the witness", DEADLINE, || {
        let all = series(&agent)?;
        let has = |part: &str| all.iter().any(|one| one.contains(part));
        ensure!(has("probe_tier{") && has("leak_detector"), "{} series", all.len());
        Ok(all)
    })?;
    let mut ids = Vec::new();
    for number in 0..COUNT {
        let name = format!("brief-{number}");
        let id = docker.add_hidden(&name, false);
        let folder = home.path().join(format!("docker/containers/{id}"));
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{id}-json.log"));
        fs::write(&log, "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.1Z\"}\n")?;
        let mut told = inspection(&id, &name, false);
        told["LogPath"] = log.display().to_string().into();
        told["HostConfig"] = json!({"LogConfig": {"Type": "json-file"}});
        docker.script(&inspect_path(&id), Reply::json(&told));
        docker.show(&id);
        ids.push((id, folder));
    }
    let of_sources = |agent: &Agent, family: &str| -> Result<usize> {
        let begins = format!("log_capturer_{family}{{");
        let all = series(agent)?;
        Ok(all.iter().filter(|one| one.starts_with(&begins) && one.contains("brief-")).count())
    };
    wait_until("a series of each", DEADLINE, || {
        let count = of_sources(&agent, "source_lines_total")?;
        ensure!(count == COUNT, "{count}");
        let lines = agent.metric("logs_processed_total")?;
        ensure!(lines == COUNT as f64, "{lines} lines");
        Ok(())
    })?;
    for (id, folder) in &ids {
        docker.remove(id);
        fs::remove_dir_all(folder)?;
    }
    wait_until("nothing of them to be left", DEADLINE, || {
        let now = series(&agent)?;
        let left: Vec<&String> = now.difference(&before).take(5).collect();
        ensure!(left.is_empty(), "{} are left, such as {left:?}", now.difference(&before).count());
        Ok(())
    })?;
    agent.stop()
}
