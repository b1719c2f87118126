//! Which files are found: links that are changed, directories that appear later, names that are no text, and reports
//! about files that are not found. The whole agent on a real file system.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::skipped;
use capturer_tests::wait::wait_until;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);
/// The interval of these agents' sweep: what is seen earlier was reported by inotify.
const SWEEP: Duration = Duration::from_secs(600);

struct Host {
    home: Home,
    config: String,
    expected: Vec<String>,
}

impl Host {
    /// `more` are further keys of the entry.
    fn new(patterns: &[&str], more: &str) -> Result<Host> {
        let home = Home::new()?;
        fs::create_dir(home.path().join("logs"))?;
        let config = config(&home, patterns, more, SWEEP);
        Ok(Host { home, config, expected: Vec::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("logs").join(name)
    }

    /// Appends a new line; makes directories as needed.
    fn write(&mut self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a file in a directory")?)?;
        self.write_at(&path)
    }

    fn write_at(&mut self, path: &Path) -> Result<()> {
        let line = format!("line {} of {}", self.expected.len(), path.display());
        writeln!(OpenOptions::new().append(true).create(true).open(path)?, "{line}")?;
        self.expected.push(line);
        Ok(())
    }

    fn link(&self, target: &str, name: &str) -> Result<()> {
        let (new, name) = (self.path(".new-link"), self.path(name));
        symlink(target, &new)?;
        Ok(fs::rename(new, name)?)
    }

    /// Waits until every written line has been delivered, each once.
    fn all_came(&self) -> Result<()> {
        self.home.assert_all_came_once(&self.expected)
    }
}

fn config(home: &Home, patterns: &[&str], more: &str, sweep: Duration) -> String {
    let logs = home.path().join("logs");
    let paths: Vec<String> = patterns.iter().map(|name| format!("'{}'", logs.join(name).display())).collect();
    home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{sweep_interval: {}s, files: [{{paths: [{}], format: \
         raw{more}}}]}}\n",
        sweep.as_secs(),
        paths.join(", ")
    ))
}

fn await_health(agent: &Agent, ok: bool, words: &[&str]) -> Result<()> {
    wait_until("the health of files", DEADLINE, || {
        let (is, message) = agent.health_of("files")?;
        ensure!(is == ok && words.iter().all(|word| message.contains(word)), "{is}: {message}");
        anyhow::Ok(())
    })
}

/// While a pattern has matched nothing yet, the log told the end of another fault twice.
#[test]
fn the_end_of_a_fault_is_said_once() -> Result<()> {
    let mut host = Host::new(&["a.log", "none-*.log"], "")?;
    host.write("a.log")?;
    let path = host.path("a.log");
    let allow = |mode: u32| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
    allow(0o600)?;
    let agent = host.home.start_without_rights(&host.config)?;
    await_health(&agent, false, &["no permission"])?;
    allow(0o644)?;
    host.all_came()?;
    await_health(&agent, true, &["matches no file yet"])?;
    let ends = || Ok(agent.log_text()?.lines().filter(|line| line.contains("over after ")).count());
    wait_until("the end in the log", DEADLINE, || {
        let ends: Result<usize> = ends();
        ensure!(ends? > 0, "not yet");
        anyhow::Ok(())
    })?;
    // The loop answers after what it was at.
    agent.streams()?;
    let ends: Result<usize> = ends();
    ensure!(ends? == 1, "{}", agent.log_text()?);
    agent.stop()
}

/// Like capistrano and many others: a link to a directory is changed to the next release.
#[test]
fn a_link_that_is_changed_is_followed_and_the_file_before_is_read_to_its_end() -> Result<()> {
    for (pattern, name) in [("current/app.log", "app.log"), ("current/*.log", "app.log"), ("current", "")] {
        let mut host = Host::new(&[pattern], "")?;
        let file =
            |release: &str| if name.is_empty() { release.to_owned() } else { format!("{release}/{name}") };
        host.write(&file("r1"))?;
        host.link("r1", "current")?;
        let agent = host.home.start(&host.config)?;
        host.all_came()?;
        for (old, new) in [("r1", "r2"), ("r2", "r3")] {
            host.write(&file(new))?;
            host.write(&file(old))?;
            host.link(new, "current")?;
            host.all_came()?;
            // A program that has it open continues for a while.
            host.write(&file(old))?;
            host.write(&file(new))?;
            host.all_came()?;
        }
        // The name is the one in the config.
        let paths: Vec<String> = agent.streams()?.iter().map(|row| row["name"].to_string()).collect();
        assert!(paths.len() == 1 && paths[0].contains("current"), "{paths:?}");
        agent.stop()?;
        // Changed and changed back unobserved: nothing is repeated, and nothing is skipped.
        host.write(&file("r3"))?;
        host.write(&file("r4"))?;
        host.link("r4", "current")?;
        let agent = host.home.start(&host.config)?;
        host.all_came()?;
        host.write(&file("r4"))?;
        host.all_came()?;
        host.link("r1", "current")?;
        host.write(&file("r1"))?;
        host.all_came()?;
        let lost = agent.get("/metrics")?;
        let lost: Vec<&str> = lost
            .lines()
            .filter(|line| line.starts_with("log_capturer_losses_total{") && !line.ends_with(" 0"))
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        agent.stop()?;
    }
    Ok(())
}

/// A file to which a link leads again is followed again, even if the agent still has it as a file that was left.
#[test]
fn a_link_that_is_changed_back_is_followed_back() -> Result<()> {
    for (pattern, name) in [("current/app.log", "/app.log"), ("current/*.log", "/app.log"), ("current", "")] {
        let mut host = Host::new(&[pattern], "")?;
        host.write(&format!("r1{name}"))?;
        host.link("r1", "current")?;
        let agent = host.home.start(&host.config)?;
        host.all_came()?;
        for release in ["r2", "r1", "r2", "r1"] {
            host.write(&format!("{release}{name}"))?;
            host.link(release, "current")?;
            host.all_came()?;
            host.write(&format!("{release}{name}"))?;
            host.all_came()?;
        }
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn a_link_may_dangle_become_a_file_and_a_link_again() -> Result<()> {
    let mut host = Host::new(&["a.log"], "")?;
    host.link("d/target", "a.log")?;
    let agent = host.home.start(&host.config)?;
    host.write("d/target")?;
    host.all_came()?;
    fs::remove_file(host.path("a.log"))?;
    host.write("a.log")?;
    host.all_came()?;
    host.link("d/other", "a.log")?;
    host.write("d/other")?;
    host.all_came()?;
    agent.stop()
}

/// A directory for each pod, job or release; all ways in which one can appear.
#[test]
fn directories_that_come_later_are_seen_at_once() -> Result<()> {
    let mut host = Host::new(&["*/app.log", "deep/**/x.log", "later/on/*.log"], "")?;
    host.write("old/app.log")?;
    let agent = host.home.start(&host.config)?;
    host.write("new/app.log")?;
    host.all_came()?;
    host.write("deep/a/b/c/d/x.log")?;
    host.all_came()?;
    host.write("deep/a/b2/x.log")?;
    host.write("later/on/1.log")?;
    host.all_came()?;
    // Renamed into place, with a file in it.
    host.write(".t/sub/app.log")?;
    fs::rename(host.path(".t/sub"), host.path("renamed"))?;
    host.all_came()?;
    // Removed and made again, also within a moment.
    for _ in 0..3 {
        fs::remove_dir_all(host.path("later"))?;
        host.write("later/on/1.log")?;
        host.all_came()?;
    }
    // Renamed away, and another made in its place.
    fs::rename(host.path("later"), host.path("later.old"))?;
    host.write("later/on/1.log")?;
    host.all_came()?;
    agent.stop()
}

#[test]
fn files_that_live_for_a_second_are_read() -> Result<()> {
    let mut host = Host::new(&["jobs/*/*.log"], "")?;
    fs::create_dir(host.path("jobs"))?;
    let agent = host.home.start(&host.config)?;
    for number in 0..20 {
        let directory = format!("jobs/{number}");
        host.write(&format!("{directory}/out.log"))?;
        let born = Instant::now();
        wait_until("its second to pass", DEADLINE, || {
            ensure!(born.elapsed() >= Duration::from_secs(1), "not yet");
            Ok(())
        })?;
        fs::remove_dir_all(host.path(&directory))?;
    }
    host.all_came()?;
    agent.stop()
}

/// A hard link, links to one file, and the file itself: each line once.
#[test]
fn several_ways_to_a_file_bring_its_lines_once() -> Result<()> {
    let mut host = Host::new(&["**/*.log", "named"], ", follow_links: true")?;
    host.write("real/a.log")?;
    host.link("real/a.log", "one.log")?;
    host.link("one.log", "named")?;
    host.link("..", "real/up")?;
    fs::hard_link(host.path("real/a.log"), host.path("real/b.log"))?;
    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    host.link("real", "way")?;
    host.link("real/a.log", "another.log")?;
    host.write("real/a.log")?;
    host.write("elsewhere.txt")?;
    host.link("elsewhere.txt", "third.log")?;
    host.all_came()?;
    host.write("real/b.log")?;
    host.write("elsewhere.txt")?;
    host.all_came()?;
    agent.stop()
}

#[test]
fn names_that_are_no_text_are_followed() -> Result<()> {
    let mut host = Host::new(&["*"], "")?;
    let name = |bytes: &[u8]| host.path("").join(OsStr::from_bytes(bytes));
    let (file, rotated) = (name(b"caf\xE9.log"), name(b"caf\xE9.log.1"));
    host.write_at(&file)?;
    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    host.write_at(&file)?;
    fs::rename(&file, rotated)?;
    host.write_at(&file)?;
    host.all_came()?;
    let names: Vec<String> = agent.streams()?.iter().map(|row| row["name"].to_string()).collect();
    assert!(names.iter().any(|name| name.contains("caf\\\\xE9.log")), "{names:?}");
    agent.stop()?;
    let agent = host.home.start(&host.config)?;
    host.write_at(&file)?;
    host.all_came()?;
    agent.stop()
}

/// Skipped files are in the metrics at once, and a pattern that matches nothing is in health and log after a minute.
#[test]
fn what_is_not_found_is_said() -> Result<()> {
    let mut host = Host::new(&["*.log", "mistyped/*.log"], "")?;
    host.write("a.txt")?;
    host.expected.clear();
    host.link("a.txt", "link.log")?;
    host.write("gone.log.1.gz")?;
    host.expected.clear();
    let agent = host.home.start(&host.config)?;
    assert_eq!(agent.metric("paths_passed_over{reason=\"link\"}")?, 1.0);
    await_health(
        &agent,
        false,
        &["2 patterns", "mistyped/*.log", "link.log", "follow_links", "may_be_empty"],
    )?;
    assert_eq!(agent.metric("patterns_unmatched")?, 2.0);
    host.write("mistyped/b.log")?;
    host.write("b.log")?;
    host.all_came()?;
    await_health(&agent, true, &[])?;
    assert_eq!(agent.metric("patterns_unmatched")?, 0.0);
    // Health tells it at once, the log within a second.
    wait_until("both to be said in the log", DEADLINE, || {
        let log = agent.log_text()?;
        let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        ensure!((count("matches no file"), count("over after ")) == (2, 2), "{log}");
        anyhow::Ok(())
    })?;
    agent.stop()?;
    // Where that may be intended, nobody is told.
    let home = Home::new()?;
    let config = config(&home, &["*.log"], ", may_be_empty: true", SWEEP);
    let agent = home.start(&config)?;
    let since = Instant::now();
    wait_until("more than a minute", DEADLINE, || {
        let (ok, message) = agent.health_of("files")?;
        assert!(ok, "{message}");
        ensure!(since.elapsed() > Duration::from_secs(63), "not yet");
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// Otherwise each of its lines would produce another one.
#[test]
fn what_the_agent_writes_is_never_followed() -> Result<()> {
    let mut host =
        Host::new(&["*.txt", "../out/*", "../data/**", "../agent.log", "own"], ", follow_links: true")?;
    host.link("../data/checkpoint.json", "own")?;
    host.write("a.txt")?;
    let agent = host.home.start(&host.config)?;
    for _ in 0..5 {
        host.write("a.txt")?;
        host.all_came()?;
    }
    // The output may come after the first look.
    wait_until("all of them to be passed over", DEADLINE, || {
        let own = agent.metric("paths_passed_over{reason=\"own\"}")?;
        ensure!(own >= 4.0, "{own}");
        anyhow::Ok(())
    })?;
    // An operator's logrotate has taken one away.
    let output = fs::read_dir(host.home.output_dir())?.next().context("no output")??.path();
    let before = agent.metric("paths_passed_over{reason=\"own\"}")?;
    let rotated = format!("{}.1", output.display());
    fs::copy(&output, &rotated)?;
    wait_until("it to be passed over", DEADLINE, || {
        let own = agent.metric("paths_passed_over{reason=\"own\"}")?;
        ensure!(own > before, "{own}");
        anyhow::Ok(())
    })?;
    // Its records would count as there twice.
    fs::remove_file(rotated)?;
    // Its own log, too: it still writes to the old one, so the new one is anybody's, until it starts again and writes there.
    let log = host.home.path().join("agent.log");
    fs::rename(&log, host.home.path().join("agent.log.1"))?;
    File::create(&log)?;
    let is_it = |row: &Value| row["key"].as_str().is_some_and(|key| key.ends_with("/agent.log"));
    let is_followed = |agent: &Agent| anyhow::Ok(agent.streams()?.iter().any(is_it));
    wait_until("the new file to be followed", DEADLINE, || {
        ensure!(is_followed(&agent)?, "not yet");
        anyhow::Ok(())
    })?;
    host.write("a.txt")?;
    host.all_came()?;
    // Its last words are in a file that this test has moved.
    agent.kill()?;
    let agent = host.home.start(&host.config)?;
    for _ in 0..5 {
        host.write("a.txt")?;
        host.all_came()?;
    }
    let read = agent.streams()?.into_iter().find(is_it);
    ensure!(read.as_ref().is_none_or(|row| row["lines"] == 0), "{read:?}");
    agent.stop()
}

/// Starts the agent in namespaces of its own, after some lines of shell.
fn start_within(home: &Home, config: &str, options: &str, before: &str) -> Result<Option<Agent>> {
    let possible = Command::new("unshare").args(options.split(' ')).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let wrapper = home.path().join("within");
    let agent = program();
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec unshare {options} sh -c '{before}\nexec \"$0\" \"$@\"' {} \"$@\"\n",
            agent.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let agent = home.launch_program(config, &wrapper, &[])?;
    wait_until("the agent to be ready", DEADLINE, || agent.get("/readyz"))?;
    Ok(Some(agent))
}

/// inotify has a limit per user: directories without a watch are swept, and that is reported.
#[test]
fn without_watches_the_sweep_takes_over() -> Result<()> {
    for (limit, words) in
        [("max_inotify_watches", "max_user_watches"), ("max_inotify_instances", "max_user_instances")]
    {
        let mut host = Host::new(&["*/a.log"], "")?;
        host.config = config(&host.home, &["*/a.log"], "", Duration::from_secs(1));
        for number in 0..10 {
            host.write(&format!("{number}/a.log"))?;
        }
        let low = if limit == "max_inotify_watches" { 3 } else { 0 };
        let before = format!("echo {low} > /proc/sys/user/{limit}");
        let Some(agent) = start_within(&host.home, &host.config, "-Ur", &before)? else {
            skipped!("user namespaces can't be made");
            return Ok(());
        };
        await_health(&agent, false, &["not watched", words])?;
        host.all_came()?;
        // Each once, though a walk and the file's stream want it: ten directories and the four above them.
        let unwatched = agent.metric("directories_unwatched")?;
        assert!((1.0..=14.0).contains(&unwatched), "{unwatched} directories");
        for number in 0..15 {
            host.write(&format!("{number}/a.log"))?;
        }
        host.all_came()?;
        fs::rename(host.path("3/a.log"), host.path("3/a.log.1"))?;
        host.write("3/a.log")?;
        host.all_came()?;
        agent.stop()?;
    }
    Ok(())
}

/// The kubelet's links lead over two hops to logs of pods; a link there to anything else is not followed.
#[test]
fn links_of_the_kubelet_are_followed_to_logs_of_pods() -> Result<()> {
    let home = Home::new()?;
    let config = home.config(
        "container_monitor: {enabled: false}\nfile_monitor: {files: [{paths: [/var/log/containers/*.log], format: raw}]}\n",
    );
    let before = "mount -t tmpfs none /var/log; mount -t tmpfs none /var/lib/docker 2>/dev/null \
                  || { mkdir -p /var/lib/docker; mount -t tmpfs none /var/lib/docker; }\n\
                  mkdir -p /var/log/containers /var/log/pods/p_1/web /var/log/pods/p_2/db /var/lib/docker/containers/c1\n\
                  echo of docker > /var/lib/docker/containers/c1/c1-json.log\n\
                  ln -s /var/lib/docker/containers/c1/c1-json.log /var/log/pods/p_1/web/0.log\n\
                  echo of containerd > /var/log/pods/p_2/db/0.log\n\
                  ln -s /var/log/pods/p_1/web/0.log /var/log/containers/web.log\n\
                  ln -s /var/log/pods/p_2/db/0.log /var/log/containers/db.log\n\
                  ln -s /etc/passwd /var/log/containers/evil.log";
    let Some(agent) = start_within(&home, &config, "-m", before)? else {
        skipped!("mount namespaces can't be made");
        return Ok(());
    };
    wait_until("both lines", DEADLINE, || {
        let mut got: Vec<String> =
            home.records()?.into_values().flatten().map(|record| record.message).collect();
        got.sort();
        ensure!(got == ["of containerd", "of docker"], "{got:?}");
        anyhow::Ok(())
    })?;
    assert_eq!(agent.metric("paths_passed_over{reason=\"out_of_roots\"}")?, 1.0);
    agent.stop()
}

/// The log of one entry, and its rotated files matched by another: these were dropped as the log's, and the log was read
/// from its own beginning, so that nobody read them. Of two with the same number or date one was left out as well.
#[test]
fn rotated_files_that_another_entry_matches_are_read_with_their_log() -> Result<()> {
    let mut host = Host::new(&[], "")?;
    let logs = host.path("");
    let entry = |pattern: &str| format!("{{paths: ['{}{pattern}'], format: raw}}", logs.display());
    host.config = host.home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{sweep_interval: 600s, files: [{}, {}, {}]}}\n",
        entry("app.log"),
        entry("*"),
        entry("old/*")
    ));
    let rotated =
        ["app-20261124.log", "app.log-20261124", "old/app.log.2", "old/app.log.1", "app.log.2", "app.log.1"];
    for name in rotated.iter().chain(&["app.log", "web.log"]) {
        host.write(name)?;
    }
    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    assert_eq!(agent.metric("paths_passed_over{reason=\"rotated\"}")?, rotated.len() as f64);
    host.write("app.log")?;
    fs::rename(host.path("app.log.2"), host.path("app.log.3"))?;
    fs::rename(host.path("app.log.1"), host.path("app.log.2"))?;
    fs::rename(host.path("app.log"), host.path("app.log.1"))?;
    host.write("app.log")?;
    host.all_came()?;
    agent.assert_nothing_lost()?;
    agent.stop()?;
    let agent = host.home.start(&host.config)?;
    host.write("app.log")?;
    host.all_came()?;
    agent.stop()
}

/// Days before now.
fn set_age(path: &Path, days: u64) -> Result<()> {
    let at = SystemTime::now() - Duration::from_secs(days * 86_400);
    Ok(OpenOptions::new().append(true).open(path)?.set_modified(at)?)
}

/// Lines of old files are skipped, and reported as skipped; lines added to them are delivered, whether the agent runs,
/// is down or is killed, and whether the file is rotated meanwhile. A file that was read before is continued at any
/// age.
#[test]
fn old_files_are_passed_over_and_read_on_when_they_grow() -> Result<()> {
    let mut host = Host::new(&["*"], ", ignore_older: 2d")?;
    for (name, days) in [("quiet.log", 10), ("quiet.log.1", 20), ("down.log", 5), ("turned.log", 4)] {
        host.write(name)?;
        host.write(name)?;
        set_age(&host.path(name), days)?;
    }
    host.write("live.log.1")?;
    set_age(&host.path("live.log.1"), 3)?;
    host.expected.clear();
    host.write("live.log.2")?;
    fs::rename(host.path("live.log.2"), host.path("other.log"))?;
    host.write("live.log")?;

    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    let older = "paths_passed_over{reason=\"older\"}";
    wait_until("the old files to be counted", DEADLINE, || {
        let count = agent.metric(older)?;
        ensure!(count == 3.0, "{count}");
        anyhow::Ok(())
    })?;
    await_health(&agent, true, &[])?;
    let log = agent.log_text()?;
    let said: Vec<&str> = log.lines().filter(|line| line.contains("ignore_older")).collect();
    assert!(said.len() == 1 && said[0].contains("files=5") && said[0].contains("oldest 20 d ago"), "{log}");
    let rows = agent.streams()?;
    let left_out = rows.iter().filter(|row| row["left_out"] == "older than ignore_older");
    assert_eq!(left_out.count(), 3, "{rows:?}");
    let check =
        Command::new(program()).args(["check", "-c"]).arg(host.home.path().join("config.yaml")).output()?;
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    for words in ["quiet.log (10 d ago)", "down.log (5 d ago)", "turned.log (4 d ago)", "ignore_older"] {
        assert!(check.contains(words), "{words} is missing in {check}");
    }

    // It grows while the agent runs, and while it is rotated.
    host.write("quiet.log")?;
    host.all_came()?;
    host.write("turned.log")?;
    fs::rename(host.path("turned.log"), host.path("turned.log.1"))?;
    host.write("turned.log")?;
    host.all_came()?;
    wait_until("the one that is left to be counted", DEADLINE, || {
        let count = agent.metric(older)?;
        ensure!(count == 1.0, "{count}");
        anyhow::Ok(())
    })?;
    agent.stop()?;
    // It grows while the agent is down; and one that was read gets old.
    host.write("down.log")?;
    set_age(&host.path("live.log"), 9)?;
    set_age(&host.path("other.log"), 9)?;
    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    agent.kill()?;
    host.write("live.log")?;
    set_age(&host.path("live.log"), 9)?;
    let agent = host.home.start(&host.config)?;
    host.all_came()?;
    for name in ["live.log", "other.log", "down.log", "quiet.log", "turned.log"] {
        host.write(name)?;
    }
    host.all_came()?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// Its lines are nowhere else, and they were declared lost for another reason while they were there.
#[test]
fn a_rotated_file_that_may_not_be_read_is_named_and_read_once_it_may_be() -> Result<()> {
    let mut host = Host::new(&["a.log"], "")?;
    let allow =
        |host: &Host, mode| fs::set_permissions(host.path("a.log.1"), fs::Permissions::from_mode(mode));
    let denied = ["no permission", "a.log.1"];
    host.write("a.log")?;
    let agent = host.home.start_without_rights(&host.config)?;
    host.all_came()?;
    agent.stop()?;
    // While nobody looks, a line comes, and the log is rotated.
    host.write("a.log")?;
    fs::rename(host.path("a.log"), host.path("a.log.1"))?;
    allow(&host, 0o600)?;
    host.write("a.log")?;
    for _ in 0..2 {
        let agent = host.home.start_without_rights(&host.config)?;
        await_health(&agent, false, &denied)?;
        ensure!(agent.metric("sources_unreadable{reason=\"permission\"}")? == 1.0);
        ensure!(agent.metric("paths_passed_over{reason=\"denied\"}")? == 1.0);
        wait_until("the lines of the live file", DEADLINE, || host.home.count() == 2)?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    let agent = host.home.start_without_rights(&host.config)?;
    await_health(&agent, false, &denied)?;
    allow(&host, 0o644)?;
    host.all_came()?;
    await_health(&agent, true, &[])?;
    wait_until("the end in the log", DEADLINE, || {
        agent.log_text().is_ok_and(|log| log.contains("over after"))
    })?;
    agent.assert_nothing_lost()?;
    agent.stop()?;
    // The next one is removed before it could be read.
    host.write("a.log")?;
    let lost = host.expected.pop().context("a line")?;
    fs::rename(host.path("a.log"), host.path("a.log.1"))?;
    allow(&host, 0o600)?;
    host.write("a.log")?;
    let agent = host.home.start_without_rights(&host.config)?;
    await_health(&agent, false, &denied)?;
    host.all_came()?;
    agent.stop()?;
    fs::remove_file(host.path("a.log.1"))?;
    let agent = host.home.start_without_rights(&host.config)?;
    wait_until("the loss", DEADLINE, || {
        let bytes = agent.metric("lost_bytes_total{reason=\"file_unreadable\"}")?;
        ensure!(bytes == (lost.len() + 1) as f64, "{bytes} bytes");
        anyhow::Ok(())
    })?;
    ensure!(agent.metric("possible_losses_total{reason=\"file_gone_unread\"}")? == 0.0);
    await_health(&agent, true, &[])?;
    agent.stop()
}
