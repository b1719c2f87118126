//! A container's json-file directory on a FUSE mount that hangs, beside 20 healthy containers: these continue
//! unaffected, the hung one is named, and none of its lines is lost or repeated once the mount answers again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fuse::{Hang, HungMount};
use capturer_tests::lateness::Lateness;
use capturer_tests::one_engine;
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use rustix::process::Signal;

// A directory of json-files hangs, whoever wrote them.
one_engine! { V28_5:
    a_hung_mount_beside_twenty_healthy_containers => beside_twenty;
    a_stop_does_not_wait_for_a_hung_mount => stop_while_hung;
}

const HEALTHY: usize = 20;
/// A line ten times a second, until it is told to rest.
const TICKS: &str = "i=0; trap 'echo rest; while :; do sleep 1; done' TERM; \
    while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";
/// The promised time, measured from the first operation that hangs; on an idle machine.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// How much later the median line of a healthy container may be beside a hung one, on an idle machine.
const LAG_MORE: Duration = Duration::from_millis(50);

fn healthy() -> Vec<String> {
    (0..HEALTHY).map(|number| format!("healthy-{number}")).collect()
}

/// The Engine with all containers, and the mount over the directory of `victim`.
fn furnish(version: EngineVersion) -> Result<(Engine, HungMount)> {
    let engine = Engine::start(version)?;
    for name in healthy() {
        engine.run(&RunSpec::sh(TICKS).name(&name))?;
    }
    let victim = engine.run(&RunSpec::sh(TICKS).name("victim"))?;
    let log = engine.log_path(&victim);
    let directory = log.parent().context("a log without a directory")?;
    let mount = HungMount::new(directory, directory)?;
    Ok((engine, mount))
}

/// Waits until the agent has named the hung mount everywhere that it should; returns how long somebody had waited by
/// then.
fn named(agent: &Agent, mount: &HungMount) -> Result<Duration> {
    let age = wait_until("health to name the hung mount", PATIENCE, || {
        let (status, body) = agent.ask("/health")?;
        let health: serde_json::Value = serde_json::from_str(&body)?;
        let files = &health["components"]["files"];
        ensure!(status == 503 && files["ok"] == false, "{status} {files}");
        let message = files["message"].as_str().unwrap_or_default();
        ensure!(message.contains("(fuse)") && message.contains("/abort"), "{message}");
        mount.hangs_for().context("nothing hangs")
    })?;
    wait_until("the stream to be set aside", PATIENCE, || {
        let rows = agent.streams()?;
        let aside = |row: &&serde_json::Value| row["set_aside"].as_str().is_some_and(|text| !text.is_empty());
        let names: Vec<_> = rows.iter().filter(aside).map(|row| row["name"].clone()).collect();
        ensure!(names == ["victim"], "{names:?}");
        let row = rows.iter().find(aside).context("just seen")?;
        ensure!(row["operation_age_ms"].as_u64() >= Some(3_000), "{row}");
        ensure!(row["operation"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
        Ok(())
    })?;
    let log = agent.log_text()?;
    ensure!(
        log.lines().any(|line| line.contains("set aside") && line.contains("victim")),
        "not named: {log}"
    );
    Ok(age)
}

fn well(agent: &Agent) -> Result<()> {
    wait_until("health to be well again", PATIENCE, || agent.get("/health").map(drop))
}

/// Time from Docker's stamp of a line to the moment it is in the output, over all healthy containers; the median.
fn lag(home: &Home, positions: &mut BTreeMap<String, u64>) -> Result<(Duration, usize)> {
    let mut lags = Vec::new();
    let began = Instant::now();
    wait_until("lines of every healthy container", PATIENCE, || {
        for name in healthy() {
            let Ok(mut file) = fs::File::open(home.output_of(&name)) else { continue };
            let known = positions.contains_key(&name);
            let at = positions.entry(name).or_insert(file.metadata()?.len());
            if !known {
                continue;
            }
            let mut text = String::new();
            file.seek(SeekFrom::Start(*at))?;
            file.read_to_string(&mut text)?;
            let now = SystemTime::now();
            *at += text.rfind('\n').map_or(0, |end| end + 1) as u64;
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let record: serde_json::Value = serde_json::from_str(line)?;
                let time = record["time"].as_str().context("no time")?;
                let nanos = capturer::testing::timestamp::parse(time.as_bytes()).context("no time")?;
                let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos as u64);
                lags.push(now.duration_since(time).unwrap_or_default());
            }
        }
        // 20 containers × 10 lines a second.
        ensure!(lags.len() >= 600 && began.elapsed() >= Duration::from_secs(3), "{} lines", lags.len());
        Ok(())
    })?;
    lags.sort_unstable();
    Ok((lags[lags.len() / 2], lags.len()))
}

fn beside_twenty(version: EngineVersion) -> Result<()> {
    let (engine, mount) = furnish(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    for name in healthy().into_iter().chain(["victim".to_owned()]) {
        wait_until(&format!("lines of {name}"), PATIENCE, || home.count_of(&name) > 0)?;
    }
    let lateness = Lateness::watch();
    let threads = agent.held()?.threads;
    let mut medians = [Vec::new(), Vec::new()];
    let mut positions = BTreeMap::new();
    for hang in [Hang::Reads, Hang::Lookups, Hang::Listings, Hang::Opens, Hang::All] {
        positions.clear();
        medians[0].push(lag(&home, &mut positions)?.0);
        let lines = home.count_of("victim");
        mount.set(hang);
        let age = named(&agent, &mount)?;
        positions.clear();
        medians[1].push(lag(&home, &mut positions)?.0);
        let held = agent.held()?;
        ensure!(held.threads == threads, "{} threads, {threads} before", held.threads);
        mount.set(Hang::Nothing);
        println!("{hang:?}: named {:.1} s after the first operation hung", age.as_secs_f64());
        ensure!(age <= lateness.allow(NAMED_WITHIN), "named after {age:?}");
        well(&agent)?;
        wait_until("the victim to go on", PATIENCE, || home.count_of("victim") > lines)?;
    }
    let [without, with] = medians.map(|mut lags| {
        lags.sort_unstable();
        lags[lags.len() / 2].as_secs_f64() * 1000.0
    });
    println!(
        "{}: median lag of {HEALTHY} healthy containers {without:.1} ms, beside a hung one {with:.1} ms ({:+.1} %)",
        version.label(),
        (with / without - 1.0) * 100.0
    );
    let most = lateness.allow(LAG_MORE).as_secs_f64() * 1000.0;
    ensure!(with <= 2.0 * without + most, "the healthy ones waited for the hung one: {with:.1} ms");
    ensure!(agent.metric("container_stream_errors_total{error_type=\"file_hung\"}")? >= 5.0, "not counted");
    everything_is_there(&home, &engine)?;
    agent.stop()
}

/// All that was printed is in the output once. The containers rest and do not end: at a container's end dockerd unmounts
/// whatever lies on its directory.
fn everything_is_there(home: &Home, engine: &Engine) -> Result<()> {
    let mut names = healthy();
    names.push("victim".to_owned());
    for name in &names {
        engine.docker(&["kill", "--signal=TERM", name])?;
    }
    for name in &names {
        wait_until(&format!("{name} to rest"), PATIENCE, || {
            let printed = engine.logs(name)?.stdout;
            ensure!(printed.ends_with(b"rest\n"), "it still prints");
            Ok(())
        })?;
    }
    assert_equal_to_docker_logs(home, engine, &names)
}

/// A stop does not wait for operations that nobody can end; it says so, and the next start continues from there. The
/// kernel does not let a process end while a FUSE program has taken one of its requests and not answered, not even by
/// SIGKILL; but the agent has finished its own work by then, and the next one can start beside it.
fn stop_while_hung(version: EngineVersion) -> Result<()> {
    let (engine, mount) = furnish(version)?;
    let home = Home::new()?;
    // Waiting for it would take an hour, which is longer than the test.
    let config = config(&home, &engine, Reading::FILE) + "shutdown_timeout: 1h\n";
    let mut agent = home.start(&config)?;

    begin_to_hang(&home, &mount, Hang::All)?;
    let began = Instant::now();
    let from = terminate(&agent)?;
    let status = agent.ended()?;
    println!("not taken: ended {:.1} s after SIGTERM with {status}", began.elapsed().as_secs_f64());
    ensure!(status.code() == Some(69), "{status}");
    says_what_is_left(&agent, from)?;
    mount.set(Hang::Nothing);

    let mut agent = home.start(&config)?;
    begin_to_hang(&home, &mount, Hang::Reads)?;
    let from = terminate(&agent)?;
    wait_until("the agent to be done", PATIENCE, || says_what_is_left(&agent, from))?;
    // For the next agent the file system hangs from the first access on.
    let next = home.start(&config)?;
    let lines = home.count_of("healthy-0");
    wait_until("a healthy container to go on", PATIENCE, || home.count_of("healthy-0") > lines)?;
    mount.set(Hang::Nothing);
    let status = agent.ended()?;
    ensure!(status.code() == Some(69), "{status}");
    well(&next)?;
    everything_is_there(&home, &engine)?;
    next.stop()
}

fn begin_to_hang(home: &Home, mount: &HungMount, hang: Hang) -> Result<()> {
    let lines = home.count_of("victim");
    wait_until("lines of the victim", PATIENCE, || home.count_of("victim") > lines)?;
    mount.set(hang);
    wait_until("something to hang", PATIENCE, || mount.hangs_for().is_some())
}

/// Sends SIGTERM and returns where in the log it was.
fn terminate(agent: &Agent) -> Result<usize> {
    let from = agent.log_text()?.len();
    agent.signal(Signal::TERM);
    Ok(from)
}

fn says_what_is_left(agent: &Agent, from: usize) -> Result<()> {
    let log = agent.log_text()?;
    let said = log.get(from..).unwrap_or_default();
    ensure!(said.contains("capturer: stopped without waiting for container:"), "{said}");
    ensure!(said.contains("operations=0"), "operations were left in flight: {said}");
    Ok(())
}
