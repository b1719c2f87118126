//! Lines that were read are not read again: under another name, in another directory entry, after some time away, in a
//! copy or an archive. The whole agent on a real file system; each test is a way in which logs are handled on hosts.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::wait::wait_until;
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(120);

/// A directory of logs and an agent that follows `pattern` in it.
struct Host {
    home: Home,
    logs: PathBuf,
    config: String,
    expected: Vec<String>,
}

impl Host {
    fn new(pattern: &str) -> Result<Host> {
        let home = Home::new()?;
        let logs = home.path().join("logs");
        fs::create_dir(&logs)?;
        let paths: Vec<String> =
            pattern.split(' ').map(|name| format!("\"{}\"", logs.join(name).display())).collect();
        let config = home.config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [{}], format: raw}}]}}\n",
            paths.join(", ")
        ));
        Ok(Host { home, logs, config, expected: Vec::new() })
    }

    fn start(&self) -> Result<Agent> {
        self.home.start(&self.config)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// Appends new lines.
    fn write(&mut self, name: &str, lines: usize) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name))?;
        self.write_to(&mut file, lines)
    }

    fn write_to(&mut self, file: &mut File, lines: usize) -> Result<()> {
        let mut text = String::new();
        for _ in 0..lines {
            let line = format!("line {:06} of a program that says something", self.expected.len());
            text += &(line.clone() + "\n");
            self.expected.push(line);
        }
        file.write_all(text.as_bytes())?;
        Ok(())
    }

    fn mv(&self, from: &str, to: &str) -> Result<()> {
        Ok(fs::rename(self.path(from), self.path(to))?)
    }

    /// As [`Host::all_came_once`], whatever the outputs' format: each line of theirs has one line that was written.
    fn came_once(&self) -> Result<()> {
        let _ = wait_until("every line", DEADLINE, || {
            ensure!(self.home.count() >= self.expected.len(), "not yet");
            anyhow::Ok(())
        });
        let outputs = fs::read_dir(self.home.output_dir())?;
        let texts = outputs.map(|entry| fs::read_to_string(entry?.path())).collect::<Result<Vec<_>, _>>()?;
        let text = texts.concat();
        for line in &self.expected {
            let times = text.matches(line.as_str()).count();
            ensure!(times == 1, "{line:?} is there {times} times");
        }
        Ok(())
    }

    /// Everything that was written, once.
    fn all_came_once(&self) -> Result<()> {
        self.home.assert_all_came_once(&self.expected)
    }
}

/// The usual names that logs are rotated to, with the agent running and stopped. Some match the pattern, some do not.
#[test]
fn a_log_is_the_same_under_every_name_it_is_rotated_to() -> Result<()> {
    for (pattern, rotated) in [
        ("*", "app.log.2026-11-26"),
        ("app.log", "app.log.2026-11-26"),
        ("*.log", "app.1.log"),
        ("*.log", "app-2026-11-26T10-00-00.000.log"),
        ("app.log", "app.log.old"),
    ] {
        for away in [false, true] {
            let mut host = Host::new(pattern)?;
            host.write("app.log", 20)?;
            let mut agent = Some(host.start()?);
            host.all_came_once()?;
            if let Some(agent) = agent.take_if(|_| away) {
                agent.stop()?;
                host.write("app.log", 20)?;
            }
            host.mv("app.log", rotated)?;
            host.write("app.log", 20)?;
            let agent = agent.map_or_else(|| host.start(), Ok)?;
            host.all_came_once()?;
            agent.stop()?;
            let again = host.start()?;
            host.write("app.log", 1)?;
            host.all_came_once()?;
            again.assert_nothing_lost()?;
            again.stop()?;
        }
    }
    Ok(())
}

/// Its position is not what a listing shows.
#[test]
fn logs_that_were_away_go_on_where_they_were() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.write("app.log", 50)?;
    let agent = host.start()?;
    host.all_came_once()?;
    agent.stop()?;
    // As before its file system is mounted. The agent gives a path up after ten seconds.
    let away = host.home.path().join("away");
    fs::rename(&host.logs, &away)?;
    let agent = host.start()?;
    wait_until("the path to be given up", DEADLINE, || {
        ensure!(agent.streams()?.is_empty(), "it is still followed");
        anyhow::Ok(())
    })?;
    agent.stop()?;
    fs::rename(&away, &host.logs)?;
    let agent = host.start()?;
    host.write("app.log", 5)?;
    host.all_came_once()?;
    agent.stop()
}

#[test]
fn a_second_name_brings_nothing_again() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.write("app.log", 20)?;
    let agent = host.start()?;
    host.all_came_once()?;
    fs::hard_link(host.path("app.log"), host.path("linked.log"))?;
    host.write("other.log", 1)?;
    host.write("app.log", 5)?;
    host.all_came_once()?;
    agent.stop()
}

/// logrotate's copytruncate, with everything read and with the agent behind; then with the copy compressed while it is
/// stopped.
#[test]
fn a_copy_is_read_on_where_the_log_was_left() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.write("app.log", 50)?;
    let agent = host.start()?;
    host.all_came_once()?;
    for _ in 0..3 {
        agent.signal(Signal::STOP);
        host.write("app.log", 30)?;
        copy_and_truncate(&host)?;
        // It grows past its old length before the agent sees it.
        host.write("app.log", 120)?;
        agent.signal(Signal::CONT);
        host.all_came_once()?;
        copy_and_truncate(&host)?;
        host.write("app.log", 10)?;
        host.all_came_once()?;
    }
    agent.assert_nothing_lost()?;
    agent.stop()?;
    host.write("app.log", 7)?;
    copy_and_truncate(&host)?;
    gzip(&host.path("app.log.1"))?;
    host.write("app.log", 3)?;
    let agent = host.start()?;
    host.all_came_once()?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

fn gzip(path: &Path) -> Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs::read(path)?)?;
    fs::write(format!("{}.gz", path.display()), encoder.finish()?)?;
    Ok(fs::remove_file(path)?)
}

/// `df > disk.log`: shorter, as long and longer than before.
#[test]
fn a_file_that_is_written_anew_is_read_from_its_beginning() -> Result<()> {
    let mut host = Host::new("*.log")?;
    let agent = host.start()?;
    for lines in [5, 5, 9, 3, 3] {
        let mut file = File::create(host.path("disk.log"))?;
        host.write_to(&mut file, lines)?;
        host.all_came_once()?;
    }
    agent.stop()
}

/// A program that is never told about the rotation: its lines are late instead of missing, and nobody waits for them.
#[test]
fn a_late_writer_is_heard_whenever_it_writes() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.write("app.log", 10)?;
    let agent = host.start()?;
    host.all_came_once()?;
    let mut late = OpenOptions::new().append(true).open(host.path("app.log"))?;
    host.mv("app.log", "app.log.1")?;
    host.write("app.log", 3)?;
    host.write_to(&mut late, 1)?;
    host.all_came_once()?;
    let parked = |agent: &Agent| -> Result<usize> {
        let fds = fs::read_dir(format!("/proc/{}/fd", agent.pid()))?;
        let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        Ok(links.filter(|link| link.ends_with("app.log.1")).count())
    };
    wait_until("the renamed file to be closed", DEADLINE, || {
        ensure!(parked(&agent)? == 0, "it is open");
        anyhow::Ok(())
    })?;
    host.write_to(&mut late, 1)?;
    host.all_came_once()?;
    agent.stop()?;
    host.write_to(&mut late, 1)?;
    host.write("app.log", 1)?;
    let agent = host.start()?;
    host.all_came_once()?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// Named one by one they are three logs, whatever their names look like.
#[test]
fn a_path_that_is_named_is_no_sibling() -> Result<()> {
    let mut host = Host::new("w.log w.log.1 w.log.2")?;
    let names = ["w.log", "w.log.1", "w.log.2"];
    names.iter().try_for_each(|name| host.write(name, 2))?;
    let agent = host.start()?;
    host.all_came_once()?;
    for _ in 0..3 {
        names.iter().try_for_each(|name| host.write(name, 1))?;
        host.all_came_once()?;
    }
    agent.stop()
}

/// The live log is deleted while the agent is stopped: its siblings had been read.
#[test]
fn siblings_do_not_come_again_when_the_live_file_is_gone() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.write("app.log", 20)?;
    let agent = host.start()?;
    host.all_came_once()?;
    for _ in 0..2 {
        let _ = host.mv("app.log.1", "app.log.2");
        host.mv("app.log", "app.log.1")?;
        host.write("app.log", 20)?;
        host.all_came_once()?;
    }
    agent.stop()?;
    fs::remove_file(host.path("app.log"))?;
    host.write("app.log", 1)?;
    let agent = host.start()?;
    host.all_came_once()?;
    agent.stop()
}

fn await_followed(agent: &Agent) -> Result<()> {
    wait_until("the log to be followed", DEADLINE, || {
        ensure!(!agent.streams()?.is_empty(), "it is not yet");
        anyhow::Ok(())
    })
}

/// Its old name is made again, and its new one is followed too.
#[test]
fn a_log_that_moves_to_another_followed_directory_is_read_on_there() -> Result<()> {
    for is_made_again in [true, false] {
        let mut host = Host::new("*/app.log")?;
        fs::create_dir(host.path("x"))?;
        fs::create_dir(host.path("y"))?;
        host.write("x/app.log", 20)?;
        let agent = host.start()?;
        host.all_came_once()?;
        host.mv("x/app.log", "y/app.log")?;
        if is_made_again {
            host.write("x/app.log", 5)?;
        }
        host.write("y/app.log", 5)?;
        host.all_came_once()?;
        // Whoever had it open let it go.
        wait_until("the new name to be followed", DEADLINE, || {
            let names: Vec<String> = agent.streams()?.iter().map(|row| row["name"].to_string()).collect();
            ensure!(names.iter().any(|name| name.contains("/y/app.log")), "{names:?}");
            anyhow::Ok(())
        })?;
        host.write("y/app.log", 5)?;
        host.all_came_once()?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
        let agent = host.start()?;
        host.write("y/app.log", 5)?;
        host.all_came_once()?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    Ok(())
}

/// Over the earlier copy, if there is one.
fn copy_and_truncate(host: &Host) -> Result<()> {
    fs::copy(host.path("app.log"), host.path("app.log.1"))?;
    Ok(OpenOptions::new().write(true).open(host.path("app.log"))?.set_len(0)?)
}

/// As logrotate's copytruncate does, which keeps older copies.
fn copytruncate(host: &Host) -> Result<()> {
    for number in (1..5).rev() {
        let older = host.path(&format!("app.log.{number}"));
        if older.exists() {
            fs::rename(older, host.path(&format!("app.log.{}", number + 1)))?;
        }
    }
    copy_and_truncate(host)
}

/// Nothing that was read leads to copies of a log that was empty then, nor to the later ones of several.
#[test]
fn copies_that_nobody_saw_being_made_are_read() -> Result<()> {
    for (before, is_emptied, times) in [(0, false, 1), (30, true, 1), (30, true, 3), (30, false, 3)] {
        for is_stopped in [true, false] {
            let mut host = Host::new("app.log")?;
            File::create(host.path("app.log"))?;
            host.write("app.log", before)?;
            let agent = host.start()?;
            await_followed(&agent)?;
            host.all_came_once()?;
            if is_emptied {
                copytruncate(&host)?;
                agent.assert_nothing_lost()?;
            }
            let agent = if is_stopped {
                agent.stop()?;
                None
            } else {
                agent.signal(Signal::STOP);
                Some(agent)
            };
            for _ in 0..times {
                host.write("app.log", 40)?;
                copytruncate(&host)?;
            }
            host.write("app.log", 3)?;
            let agent = agent.map_or_else(|| host.start(), Ok)?;
            agent.signal(Signal::CONT);
            host.all_came_once()?;
            host.write("app.log", 3)?;
            host.all_came_once()?;
            agent.assert_nothing_lost()?;
            agent.stop()?;
        }
    }
    Ok(())
}

/// `start_at: end` is for content from before the agent started.
#[test]
fn what_is_made_while_the_agent_is_down_is_read_from_its_beginning() -> Result<()> {
    let mut host = Host::new("*.log")?;
    host.config = host.config.replace("format: raw", "format: raw, start_at: end");
    fs::write(host.path("old.log"), "from before\n")?;
    let agent = host.start()?;
    await_followed(&agent)?;
    host.write("old.log", 5)?;
    host.all_came_once()?;
    agent.stop()?;
    host.write("new.log", 5)?;
    host.write("old.log", 5)?;
    let agent = host.start()?;
    host.all_came_once()?;
    agent.stop()
}

/// What an operator types among the logs.
fn sh(host: &Host, script: &str) -> Result<()> {
    let status = Command::new("sh").args(["-ec", script]).current_dir(&host.logs).status()?;
    ensure!(status.success(), "{script}: {status}");
    Ok(())
}

/// Ways to move a log by copying it, and its new name.
const COPIED: [(&str, &str); 4] = [
    ("cp d/app.log d/web.log; rm d/app.log", "d/web.log"),
    ("cp -a d/app.log d/web.log; rm d/app.log", "d/web.log"),
    ("cp -a d e; rm -r d", "e/app.log"),
    ("tar cf x.tar d; rm -r d; mkdir r; tar xf x.tar -C r; rm x.tar", "r/d/app.log"),
];

/// Everything was once repeated, even if nothing is added to the copy before the next start.
#[test]
fn a_log_that_was_copied_and_removed_while_the_agent_was_away_goes_on_in_the_copy() -> Result<()> {
    for (script, copy) in COPIED {
        for is_written_to in [true, false] {
            let mut host = Host::new("**/*.log")?;
            fs::create_dir(host.path("d"))?;
            host.write("d/app.log", 60)?;
            let agent = host.start()?;
            host.all_came_once()?;
            agent.stop()?;
            // Unread lines are in the copy, too.
            host.write("d/app.log", 5)?;
            sh(&host, script)?;
            if is_written_to {
                host.write(copy, 5)?;
            }
            let agent = host.start()?;
            host.all_came_once()?;
            agent.kill()?;
            let agent = host.start()?;
            host.write(copy, 5)?;
            host.all_came_once()?;
            agent.stop()?;
        }
    }
    Ok(())
}

/// The positions are in a checkpoint: what was read is what the outputs have.
fn wait_for_save(host: &Host) -> Result<()> {
    let checkpoint = host.home.path().join("data/checkpoint.json");
    let len = fs::metadata(host.path("d/app.log"))?.len();
    wait_until("the position to be saved", DEADLINE, || {
        let text = fs::read_to_string(&checkpoint)?;
        ensure!(text.contains(&format!("\"offset\":{len},")), "not yet: {text}");
        anyhow::Ok(())
    })
}

/// Another program that writes the same, and a job that writes the same each time: all of it is new.
#[test]
fn what_a_program_writes_again_under_another_name_is_no_copy() -> Result<()> {
    let text: String =
        (0..80).map(|step| format!("step {step:02} of the job that is done each night\n")).collect();
    let host = Host::new("*.log")?;
    let count = |times: usize| {
        wait_until("what the job wrote", DEADLINE, || {
            let got = host.home.count();
            ensure!(got == 80 * times, "{got} lines of {}", 80 * times);
            anyhow::Ok(())
        })
    };
    let agent = host.start()?;
    fs::write(host.path("job-0.log"), &text)?;
    count(1)?;
    // One that is there at the same time.
    fs::write(host.path("job-1.log"), &text)?;
    count(2)?;
    // The previous file is removed before or after, at once or after a while.
    for run in 2..9 {
        let (before, now) =
            (host.path(&format!("job-{}.log", run - 1)), host.path(&format!("job-{run}.log")));
        if run % 2 == 0 {
            fs::remove_file(before)?;
            fs::write(now, &text)?;
        } else {
            fs::write(now, &text)?;
            fs::remove_file(before)?;
        }
        count(run + 1)?;
    }
    agent.stop()?;
    // While the agent is stopped: the previous file stays.
    fs::write(host.path("job-9.log"), &text)?;
    let agent = host.start()?;
    count(10)?;
    agent.stop()?;
    // This text is as short as what programs print when they start.
    let banner = &text[..text.len() / 2];
    fs::write(host.path("a.log"), banner)?;
    let agent = host.start()?;
    wait_until("the banner", DEADLINE, || {
        ensure!(host.home.count() == 80 * 10 + 40, "not yet");
        anyhow::Ok(())
    })?;
    agent.stop()?;
    fs::remove_file(host.path("a.log"))?;
    fs::write(host.path("b.log"), banner)?;
    let agent = host.start()?;
    count(11)?;
    agent.stop()
}

/// Its lines would be lost: the log had been emptied before, or goes on.
#[test]
fn what_is_written_again_beside_a_log_that_was_emptied_or_stays_is_no_copy() -> Result<()> {
    let mut host = Host::new("*.log*")?;
    host.write("app.log", 60)?;
    let agent = host.start()?;
    host.all_came_once()?;
    let text = fs::read(host.path("app.log"))?;
    fs::write(host.path("app.log.bak"), &text)?;
    let count = |expected: usize| {
        wait_until("what was written again", DEADLINE, || {
            let got = host.home.count();
            ensure!(got == expected, "{got} lines of {expected}");
            anyhow::Ok(())
        })
    };
    count(120)?;
    File::create(host.path("app.log"))?;
    wait_until("the agent to notice", DEADLINE, || {
        let noted = agent.get("/metrics")?.contains("possible_losses_total{reason=\"file_truncated\"} 1");
        ensure!(noted, "not yet");
        anyhow::Ok(())
    })?;
    fs::write(host.path("web.log"), &text)?;
    count(180)?;
    agent.stop()
}

/// What was written within the crash's second stood in the outputs of both paths.
#[test]
fn a_log_that_is_renamed_before_the_agent_is_back_from_a_crash_brings_nothing_again() -> Result<()> {
    for (script, name) in [
        ("mv d e", "e/app.log"),
        ("mv d e; mkdir d", "e/app.log"),
        ("mv d/app.log d/web.log", "d/web.log"),
        ("mkdir e; mv d/app.log e/web.log", "e/web.log"),
    ] {
        for format in ["ndjson", "docker"] {
            let mut host = Host::new("**/*.log")?;
            host.config = host.config.replace("max_size: 0", &format!("max_size: 0, format: {format}"));
            fs::create_dir(host.path("d"))?;
            host.write("d/app.log", 20)?;
            let agent = host.start()?;
            host.came_once()?;
            wait_for_save(&host)?;
            // The first of these are saved at once, the others a second later.
            for _ in 0..2 {
                host.write("d/app.log", 5)?;
                host.came_once()?;
            }
            agent.kill()?;
            sh(&host, script)?;
            host.write(name, 5)?;
            let agent = host.start()?;
            host.came_once()?;
            // Twice, before a save says that the first was over.
            agent.kill()?;
            let agent = host.start()?;
            host.write(name, 5)?;
            host.came_once()?;
            agent.stop()?;
        }
    }
    Ok(())
}

/// The position is the end of something whole, and of a file that was emptied there is nothing: the next run found the same
/// file emptied once more.
#[test]
fn a_log_that_is_emptied_is_told_once() -> Result<()> {
    let mut host = Host::new("app.log")?;
    host.write("app.log", 100)?;
    let agent = host.start()?;
    host.came_once()?;
    File::create(host.path("app.log"))?;
    wait_until("the possible loss", DEADLINE, || {
        let told = agent.metric("possible_losses_total{reason=\"file_truncated\"}")?;
        ensure!(told == 1.0, "{told}");
        anyhow::Ok(())
    })?;
    agent.stop()?;
    for _ in 0..2 {
        let agent = host.start()?;
        await_followed(&agent)?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    host.write("app.log", 10)?;
    let agent = host.start()?;
    host.came_once()?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// Nobody has seen its first file, which is one of a log all the same.
#[test]
fn a_log_that_is_made_and_rotated_while_the_agent_is_down_is_read_whole() -> Result<()> {
    for at in ["beginning", "end"] {
        let mut host = Host::new("*.log")?;
        let entry = format!("start_at: {at}, format: raw");
        host.config = host.config.replace("format: raw", &entry);
        let agent = host.start()?;
        host.write("old.log", 10)?;
        host.came_once()?;
        agent.stop()?;
        for name in ["new.log", "1.log"] {
            host.write(name, 30)?;
            host.mv(name, &format!("{name}.20261130-130200"))?;
            host.write(name, 10)?;
        }
        let agent = host.start()?;
        host.came_once()?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    Ok(())
}
