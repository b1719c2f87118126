//! An agent that has more to read than it may open: it answers, saves positions, says what to raise, and continues by
//! itself when descriptors are free again. And sources that it may not read: each is named, and the others continue.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::fuse::HungMount;
use capturer_tests::wait::wait_until;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);
/// More than may be open under a limit of 256, and less than twice as many.
const FILES: usize = 250;
/// The user that may read nothing that is not open to all.
const NOBODY: u32 = 65_534;

/// A config that follows `in/*.log` into one output.
fn config(home: &Home) -> Result<String> {
    let path = home.path().display();
    fs::create_dir_all(home.path().join("in"))?;
    Ok(format!(
        "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
         container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/**/*.log\"]}}]}}\n\
         sinks:\n  local_file: {{directory: {path}/out, file: all.ndjson}}\n"
    ))
}

/// The agent under a limit that it can't raise.
fn limited(home: &Home, limits: &str) -> Result<PathBuf> {
    let script = home.path().join("limited");
    fs::write(&script, format!("#!/bin/sh\n{limits}\nexec {} \"$@\"\n", program().display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

fn delivered(home: &Home) -> usize {
    let text = fs::read(home.output_dir().join("all.ndjson")).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// What health says about a component, and whether it is healthy.
fn health(agent: &Agent, component: &str) -> Result<(bool, String)> {
    let body: Value = serde_json::from_str(&agent.ask("/health")?.1)?;
    let health = &body["components"][component];
    let message = health["message"].as_str().with_context(|| format!("no {component}: {body}"))?;
    Ok((health["ok"] == true, message.to_owned()))
}

fn await_health(agent: &Agent, component: &str, ok: bool, words: &[&str]) -> Result<()> {
    wait_until(&format!("health of {component}: {words:?}"), DEADLINE, || {
        let (is_ok, message) = health(agent, component)?;
        ensure!(is_ok == ok && words.iter().all(|word| message.contains(word)), "{is_ok} {message}");
        Ok(())
    })
}

/// Quiet files give up their descriptors to others, however many are followed.
#[test]
fn more_quiet_files_than_descriptors() -> Result<()> {
    let home = Home::new()?;
    let config = config(&home)?;
    let file = |number: usize| home.path().join(format!("in/{number}.log"));
    for number in 0..FILES {
        // Every tenth is still empty.
        let text = if number % 10 == 0 { String::new() } else { format!("line of {number}\n") };
        fs::write(file(number), text)?;
    }
    let agent = home.launch_program(&config, &limited(&home, "ulimit -n 256")?, &[])?;
    let all_of = |what: &str, count: usize| {
        wait_until(what, DEADLINE, || {
            let got = delivered(&home);
            ensure!(got == count, "{got} of {count}: {:?}", health(&agent, "descriptors")?);
            Ok(())
        })
    };
    all_of("a line of each that has one", FILES - FILES / 10)?;
    await_health(&agent, "descriptors", true, &["of at most 256", "enough are free"])?;
    // The agent notices when closed ones grow.
    for number in 0..FILES {
        writeln!(File::options().append(true).open(file(number))?, "another of {number}")?;
    }
    all_of("another of each", 2 * FILES - FILES / 10)?;
    await_health(&agent, "descriptors", true, &["enough are free"])?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// The kernel answers a write over the file size limit with a signal that ends the process, unless it is handled.
#[test]
fn a_limit_of_file_sizes_is_named() -> Result<()> {
    let home = Home::new()?;
    let text: String = (0..4_000).map(|number| format!("line {number} {}\n", "x".repeat(100))).collect();
    let config = config(&home)?;
    fs::write(home.path().join("in/a.log"), text)?;
    // In units of 1,024 bytes, or of 512 in some shells.
    let agent = home.launch_program(&config, &limited(&home, "ulimit -S -f 256")?, &[])?;
    await_health(&agent, "sink_local_file", false, &["raise the file size limit"])?;
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(Pid::from_raw(agent.pid()), Resource::Fsize, Rlimit { current: maximum, maximum })?;
    wait_until("all lines", DEADLINE, || {
        let got = delivered(&home);
        ensure!(got == 4_000, "{got} of 4000");
        Ok(())
    })?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// Each file has an output of its own, which must not take the descriptors that files wait for.
#[test]
fn more_outputs_than_descriptors() -> Result<()> {
    let home = Home::new()?;
    let config = config(&home)?.replace("all.ndjson", "\"{path}.ndjson\"");
    for number in 0..FILES {
        fs::write(home.path().join(format!("in/{number}.log")), format!("line of {number}\n"))?;
    }
    let agent = home.launch_program(&config, &limited(&home, "ulimit -n 120")?, &[])?;
    wait_until("a line of each", DEADLINE, || {
        let outputs = fs::read_dir(home.output_dir())?.collect::<std::io::Result<Vec<_>>>()?;
        let full = outputs.iter().filter(|entry| entry.metadata().is_ok_and(|of| of.len() > 0)).count();
        ensure!(full == FILES, "{full} of {FILES}: {:?}", health(&agent, "descriptors")?);
        Ok(())
    })?;
    await_health(&agent, "descriptors", true, &["of at most 120", "enough are free"])?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// Files on a file system that may hang are not closed, as opening them again may hang: the others wait and are named
/// with the cure, which works.
#[test]
fn more_files_that_stay_open_than_descriptors() -> Result<()> {
    let home = Home::new()?;
    let config = config(&home)?;
    for number in 0..FILES {
        fs::write(home.path().join(format!("in/{number}.log")), format!("line of {number}\n"))?;
    }
    let real = home.path().join("in");
    let _mount = HungMount::new(&real, &real)?;
    let agent = home.launch_program(&config, &limited(&home, "ulimit -n 256")?, &[])?;
    await_health(
        &agent,
        "descriptors",
        false,
        &["wait until another is closed", "LimitNOFILE=", "256 file descriptors"],
    )?;
    wait_until("the first lines", DEADLINE, || delivered(&home) >= 100)?;
    // The row of a waiting file once said that 0 bytes are unread, and not what it waits for. They grow while they
    // wait.
    for number in 0..FILES {
        let mut file = File::options().append(true).open(home.path().join(format!("in/{number}.log")))?;
        file.write_all(format!("{}\n", "more ".repeat(1_000)).as_bytes())?;
    }
    wait_until("each row that waits to say how much and for what", DEADLINE, || {
        let streams = agent.streams()?;
        let waiting: Vec<_> = streams.iter().filter(|row| row["lines"] == 0).collect();
        ensure!(!waiting.is_empty(), "none waits");
        for row in waiting {
            ensure!(row["says"] == "waits: no file descriptor is free" && row["attention"] == 2, "{row:?}");
            ensure!(row["lag_bytes"].as_u64() > Some(5_000), "{row:?}");
        }
        Ok(())
    })?;
    await_health(&agent, "checkpoint", true, &[])?;
    agent.stop()?;
    let agent = home.launch_program(&config, &limited(&home, "ulimit -n 512")?, &[])?;
    wait_until("all lines, once", DEADLINE, || {
        let got = delivered(&home);
        ensure!(got == 2 * FILES, "{got} of 2 × {FILES}");
        Ok(())
    })?;
    await_health(&agent, "descriptors", true, &["of at most 512", "enough are free"])?;
    agent.stop()
}

/// All logs are rotated at once, again and again, while the agent may open fewer files than there are logs: those with
/// open live files waited for the rotated ones, and for each other, until a restart.
#[test]
fn more_rotations_at_once_than_descriptors() -> Result<()> {
    const LOGS: usize = 60;
    const ROUNDS: usize = 6;
    let home = Home::new()?;
    let config = config(&home)?;
    let path = |number: usize, ending: &str| home.path().join(format!("in/{number}.log{ending}"));
    let write = |number: usize, round: usize| {
        let mut file = fs::File::options().append(true).create(true).open(path(number, ""))?;
        writeln!(file, "line {round} of {number}")
    };
    for number in 0..LOGS {
        write(number, 0)?;
    }
    // A little more than the least that the agent accepts: it needs most of them itself.
    let agent = home.launch_program(&config, &limited(&home, "ulimit -n 100")?, &[])?;
    wait_until("the first lines", DEADLINE, || delivered(&home) == LOGS)?;
    for round in 1..=ROUNDS {
        for number in 0..LOGS {
            write(number, round)?;
            for rank in (1..round).rev() {
                fs::rename(path(number, &format!(".{rank}")), path(number, &format!(".{}", rank + 1)))?;
            }
            fs::rename(path(number, ""), path(number, ".1"))?;
            write(number, round)?;
        }
    }
    let all = LOGS * (1 + 2 * ROUNDS);
    wait_until("all lines, once", DEADLINE, || {
        let got = delivered(&home);
        ensure!(got == all, "{got} of {all}: {:?}", health(&agent, "descriptors")?);
        Ok(())
    })?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// The soft limit of a shell is mostly 1,024, the hard one a thousand times as much.
#[test]
fn the_soft_limit_is_raised() -> Result<()> {
    let home = Home::new()?;
    let config = config(&home)?;
    for number in 0..FILES {
        fs::write(home.path().join(format!("in/{number}.log")), "line\n")?;
    }
    let agent = home.launch_program(&config, &limited(&home, "ulimit -Sn 256\nulimit -Hn 4096")?, &[])?;
    wait_until("all lines", DEADLINE, || delivered(&home) == FILES)?;
    assert_eq!(agent.metric("file_descriptors_limit")?, 4096.0);
    await_health(&agent, "descriptors", true, &["4096"])?;
    agent.stop()
}

/// Permissions are taken from a file and a directory; the neighbour continues, each is named, and read again once they
/// are given back.
#[test]
fn what_may_not_be_read_is_named() -> Result<()> {
    let home = Home::new()?;
    let config = config(&home)?;
    let (shut, closed) = (home.path().join("in/shut.log"), home.path().join("in/closed"));
    fs::create_dir(&closed)?;
    fs::write(closed.join("hidden.log"), "hidden\n")?;
    fs::write(&shut, "shut\n")?;
    fs::write(home.path().join("in/open.log"), "open\n")?;
    let rights = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    rights(&shut, 0o000)?;
    rights(&closed, 0o000)?;
    // Root may read everything: the agent runs as nobody.
    let agent = home.launch_as_nobody(&config)?;
    wait_until("the neighbour's line", DEADLINE, || delivered(&home) == 1)?;
    await_health(
        &agent,
        "files",
        false,
        &["shut.log", "permission", "in/closed", "can't be listed", "CAP_DAC_READ_SEARCH"],
    )?;
    assert_eq!(agent.metric("sources_unreadable{reason=\"permission\"}")?, 1.0);
    assert_eq!(agent.metric("sources_unreadable{reason=\"unlistable\"}")?, 1.0);
    assert_eq!(agent.metric("paths_passed_over{reason=\"denied\"}")?, 1.0);
    assert_eq!(agent.metric("files_monitored")?, 1.0);
    // Tried again and again, told once.
    let log = agent.log_text()?;
    let loud = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert_eq!(loud.filter(|line| line.contains("no permission to read")).count(), 1, "{log}");
    // `doctor`, run as the same user, says the same.
    let doctor = || -> Result<String> {
        let mut command = Command::new(program());
        command.args(["doctor", "-c"]).arg(home.path().join("config.yaml")).uid(NOBODY).gid(NOBODY);
        let output = command.output()?;
        let text = String::from_utf8(output.stdout)?;
        let at = text.find(" file_monitor ").with_context(|| text.clone())?;
        Ok(text[at..].split_whitespace().take(80).collect::<Vec<_>>().join(" "))
    };
    let told = doctor()?;
    for words in [
        "2 files matched",
        "1 can't be read:",
        "shut.log",
        "1 directory can't be listed",
        "in/closed",
        "exclude",
    ] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    rights(&shut, 0o644)?;
    rights(&closed, 0o755)?;
    wait_until("all lines", DEADLINE, || delivered(&home) == 3)?;
    await_health(&agent, "files", true, &[])?;
    let told = doctor()?;
    ensure!(told.contains("3 files matched by the patterns, none unreadable"), "{told}");
    wait_until("the log to say that both are over", DEADLINE, || {
        let log = agent.log_text()?;
        let ends = |words: &str| log.lines().any(|line| line.contains("over after ") && line.contains(words));
        ensure!(ends("could not be read: ") && ends("could not be listed: "), "{log}");
        Ok(())
    })?;
    agent.stop()
}

/// After the permission is given back, lines are read soon, however many attempts have failed before.
#[test]
fn rights_that_are_given_back_late_are_noticed() -> Result<()> {
    let home = Home::new()?;
    let patience = "container_monitor: {enabled: false, reconnect_interval: 1h, circuit_breaker: {failures: 3, pause: 1h}}";
    let config = config(&home)?.replace("container_monitor: {enabled: false}", patience);
    let shut = home.path().join("in/shut.log");
    fs::write(&shut, "shut\n")?;
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000))?;
    let agent = home.launch_as_nobody(&config)?;
    wait_until("some attempts", DEADLINE, || {
        let attempts = agent.metric("container_stream_errors_total{error_type=\"open_failed\"}")?;
        ensure!(attempts >= 7.0, "{attempts}");
        Ok(())
    })?;
    // The next attempt is some ten seconds away, and must not be what ends the wait.
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o644))?;
    wait_until("its line", DEADLINE, || delivered(&home) == 1)?;
    let log = agent.log_text()?;
    ensure!(log.contains("cause=\"its rights changed\""), "{log}");
    assert_eq!(agent.metric("container_stream_errors_total{error_type=\"circuit_open\"}")?, 0.0);
    agent.stop()
}
