//! Tests of the harness: private Engines of every version start, work, restart, and leave nothing behind.
//!
//! Otherwise a test could pass on an Engine other than the one it asked for, or fill the machine with daemons, mounts
//! and folders, which then fail other tests in misleading ways.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use capturer_tests::agent::Home;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fuse::HungMount;
use capturer_tests::sweep::{
    FOLDER_PREFIXES, Traces, folder_prefix, mounts_beneath, start_ticks, sweep_dead,
};
use capturer_tests::wait::{PATIENCE, wait_until};

const BOTH_CHANNELS: &str = "for i in $(seq 100); do echo out $i; echo err $i >&2; done";

fn expected(channel: &str) -> String {
    (1..=100).map(|i| format!("{channel} {i}\n")).collect()
}

fn assert_logs(engine: &Engine, container: &str) -> Result<()> {
    let logs = engine.logs(container)?;
    assert_eq!(String::from_utf8(logs.stdout)?, expected("out"));
    assert_eq!(String::from_utf8(logs.stderr)?, expected("err"));
    Ok(())
}

fn assert_gone(traces: &Traces) {
    assert_eq!(traces.processes(), Vec::<i32>::new(), "processes are left");
    assert_eq!(mounts_beneath(&traces.root), Vec::<std::path::PathBuf>::new(), "mounts are left");
    assert!(!traces.root.exists(), "{} is left", traces.root.display());
    let cgroup = Path::new("/sys/fs/cgroup/memory").join(&traces.cgroup);
    assert!(!cgroup.exists(), "{} is left", cgroup.display());
}

fn whole_life(version: EngineVersion) -> Result<()> {
    let mut engine = Engine::start(version)?;
    let server = engine.docker(&["version", "--format", "{{.Server.Version}}"])?;
    assert!(server.stdout.starts_with(version.label().as_bytes()), "{:?} answered", server.stdout);

    let id =
        engine.run(&RunSpec::sh(BOTH_CHANNELS).name("both").label("a", "b").log_opt("max-size", "1m"))?;
    assert_eq!(engine.wait(&id)?, 0);
    assert_logs(&engine, "both")?;
    assert_eq!(engine.inspect(&id)?["Config"]["Labels"]["a"], "b");
    assert!(engine.log_path(&id).is_file());

    let first = engine.dockerd_pid();
    engine.restart_daemon()?;
    assert_ne!(engine.dockerd_pid(), first);
    assert_logs(&engine, &id)?;
    engine.rm(&id)?;
    assert!(engine.inspect(&id).is_err(), "it was removed");

    // The hardest things to remove: a shell as process 1 that ignores SIGTERM, and a paused container.
    engine.run(&RunSpec::command(&["sleep", "1000"]))?;
    let paused = engine.run(&RunSpec::sh("while :; do sleep 1; done").log_driver("local").tty().rm())?;
    engine.pause(&paused)?;
    let traces = engine.traces().clone();
    assert!(
        traces.processes().len() >= 6,
        "two daemons, two shims, two containers: {:?}",
        traces.processes()
    );
    engine.close()?;
    assert_gone(&traces);
    Ok(())
}

#[test]
fn engine_20_10_lives_and_leaves_nothing() -> Result<()> {
    whole_life(EngineVersion::V20_10)
}

#[test]
fn engine_28_5_lives_and_leaves_nothing() -> Result<()> {
    whole_life(EngineVersion::V28_5)
}

/// Otherwise tests that run at the same time could see each other's containers, or end each other's daemons.
#[test]
fn engines_of_one_and_of_several_versions_run_side_by_side() -> Result<()> {
    let [old, new] = EngineVersion::ALL;
    let engines = [Engine::start(old)?, Engine::start(old)?, Engine::start(new)?, Engine::start(new)?];
    for (i, engine) in engines.iter().enumerate() {
        engine.run(&RunSpec::sh(&format!("echo {i}; sleep 1000")).name("same-name"))?;
    }
    for (i, engine) in engines.iter().enumerate() {
        let line = format!("{i}\n").into_bytes();
        wait_until("the container's line", PATIENCE, || {
            engine.logs("same-name").is_ok_and(|logs| logs.stdout == line)
        })?;
    }
    let [first, others @ ..] = engines;
    first.close()?;
    for engine in &others {
        assert_eq!(engine.docker(&["ps", "--quiet"])?.stdout.iter().filter(|&&b| b == b'\n').count(), 1);
    }
    others.into_iter().try_for_each(Engine::close)
}

/// dockerd is looked at, frozen, killed and started again from outside, as the agent's tests do.
#[test]
fn the_daemon_can_be_measured_frozen_and_killed() -> Result<()> {
    for version in EngineVersion::ALL {
        let mut engine = Engine::start_with(version, &["--live-restore"])?;
        assert!(engine.cpu_seconds()? > 0.0);
        assert!(engine.fd_count()? > 5);
        let id = engine.run(&RunSpec::sh("echo before; sleep 1000"))?;

        wait_until("what it prints", PATIENCE, || {
            let printed = engine.logs(&id)?.stdout;
            ensure!(printed == b"before\n", "{}", printed.escape_ascii());
            Ok(())
        })?;

        engine.freeze()?;
        engine.thaw()?;
        assert_eq!(engine.logs(&id)?.stdout, b"before\n");

        engine.kill()?;
        engine.start_daemon()?;
        assert_eq!(engine.inspect(&id)?["State"]["Running"], true, "live-restore keeps it on {version:?}");
        // Dropped while frozen: SIGTERM alone would wait for ever.
        engine.freeze()?;
        let traces = engine.traces().clone();
        drop(engine);
        assert_gone(&traces);
    }
    Ok(())
}

/// A test that fails must clean up as well as one that passes.
#[test]
fn a_panicking_test_leaves_nothing() {
    let traces = std::sync::Mutex::new(None);
    let outcome = std::panic::catch_unwind(|| {
        let engine = Engine::start(EngineVersion::V28_5).unwrap();
        engine.run(&RunSpec::command(&["sleep", "1000"])).unwrap();
        *traces.lock().unwrap() = Some(engine.traces().clone());
        panic!("on purpose");
    });
    assert!(outcome.is_err());
    assert_gone(&traces.into_inner().unwrap().unwrap());
}

/// Set for the second process of a test, which is to be killed.
const VICTIM: &str = "CAPTURER_TEST_VICTIM";

/// A second process of a test, with a private place for temporary files.
fn victim(test: &str, temp: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", test]).envs([(VICTIM, "1".as_ref()), ("TMPDIR", temp.as_os_str())]);
    Ok(command)
}

fn kill_when_ready(test: &str, temp: &Path) -> Result<()> {
    let mut victim = victim(test, temp)?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let is_ready = wait_until("the victim to be ready", PATIENCE, || temp.join("ready").exists());
    victim.kill()?;
    victim.wait()?;
    is_ready
}

const FILES: &str =
    "container_monitor: {enabled: false}\nfile_monitor: {files: [{paths: [\"/nonexistent/*.log\"]}]}\n";

/// The same holds for its folder, and for the agent that it had started from there.
#[test]
fn a_killed_tests_folder_is_swept_with_its_agent() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        let home = Home::new()?;
        let agent = home.start(&home.config(FILES))?;
        fs::write(std::env::temp_dir().join("ready"), agent.pid().to_string())?;
        // Ends by the signal; or, should its parent be gone, by this.
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let temp = tempfile::Builder::new().prefix(&folder_prefix(FOLDER_PREFIXES[0])).tempdir()?;
    kill_when_ready("a_killed_tests_folder_is_swept_with_its_agent", temp.path())?;
    let pid: i32 = fs::read_to_string(temp.path().join("ready"))?.parse()?;
    ensure!(start_ticks(pid).is_some(), "the agent outlives its test, or there is nothing to see here");
    let swept = sweep_dead(temp.path());
    ensure!(swept.removed.len() == 1 && swept.failed.is_empty(), "{swept:?}");
    // It has closed its program, and will be reaped in a moment.
    wait_until("the agent to go", PATIENCE, || start_ticks(pid).is_none())?;
    let left: Vec<_> = fs::read_dir(temp.path())?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left == ["ready"], "{left:?}");
    Ok(())
}

/// The agent's log is the first thing to look at, whichever way a test fails.
#[test]
fn a_test_that_gives_an_error_shows_the_agents_log() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        let home = Home::new()?;
        let _agent = home.start(&home.config(FILES))?;
        bail!("on purpose");
    }
    let temp = tempfile::Builder::new().prefix(&folder_prefix(FOLDER_PREFIXES[0])).tempdir()?;
    let ended = victim("a_test_that_gives_an_error_shows_the_agents_log", temp.path())?.output()?;
    let said = String::from_utf8_lossy(&ended.stdout);
    ensure!(!ended.status.success() && said.contains("on purpose"), "{said}");
    ensure!(said.contains("the agent's log") && said.contains("admin server listens"), "{said}");
    Ok(())
}

/// Leftovers of a killed test were found by nobody if its tree had been removed, and disturbed later tests. So this
/// test kills a second process of itself, which has a private place for temporary files, while everything that an
/// Engine makes exists, with a mount on top.
#[test]
fn a_killed_test_is_swept_by_the_next() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        let engine = Engine::start(EngineVersion::V28_5)?;
        let id = engine.run(&RunSpec::command(&["sleep", "1000"]))?;
        let directory = engine.log_path(&id).parent().context("a log without a directory")?.to_owned();
        let _mount = HungMount::new(&directory, &directory)?;
        fs::write(std::env::temp_dir().join("ready"), "")?;
        // Ends by the signal; or, should its parent be gone, by this.
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    // Short, for an Engine's sockets are in it.
    let temp = tempfile::tempdir()?;
    kill_when_ready("a_killed_test_is_swept_by_the_next", temp.path())?;
    let roots: Vec<_> = fs::read_dir(temp.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    let [root] = &roots[..] else { bail!("its Engine is the only folder there: {roots:?}") };
    let traces = Traces::load(root)?.context("no record")?;
    ensure!(!traces.processes().is_empty() && traces.mounts().len() >= 3, "{:?}", traces.mounts());

    let swept = sweep_dead(temp.path());
    ensure!(swept.removed.len() == 1 && swept.failed.is_empty(), "{swept:?}");
    assert_gone(&traces);
    Ok(())
}
