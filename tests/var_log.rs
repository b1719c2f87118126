//! A Debian host's own `/var/log`, followed as `/var/log/**`: text complete, rotated and compressed files with their logs,
//! what is not text left out and named, and next to no work once it is quiet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::rand::Rand;
use capturer_tests::skipped;
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// How long it is watched when nothing happens.
const QUIET: Duration = Duration::from_secs(20);
const ROUNDS: usize = 5;
/// Files of the host itself that are taken as they are, if they are there.
const OF_HOST: &[&str] =
    &["alternatives.log", "dpkg.log", "fontconfig.log", "apt/history.log", "apt/term.log"];
/// Files that every Debian host has, and that are not text.
const BINARY: &[&str] = &["lastlog", "wtmp", "btmp", "journal/0123456789abcdef/system.journal"];
/// What Debian's packages give logrotate, with `@` for the root.
const LOGROTATE: &str = "\
@/var/log/apt/term.log { rotate 12\nmonthly\ncompress\nmissingok\nnotifempty\n }
@/var/log/apt/history.log { rotate 12\nmonthly\ncompress\nmissingok\nnotifempty\n }
@/var/log/dpkg.log { monthly\nrotate 12\ncompress\ndelaycompress\nmissingok\nnotifempty\ncreate 644 root root\n }
@/var/log/alternatives.log { monthly\nrotate 12\ncompress\ndelaycompress\nmissingok\nnotifempty\ncreate 644 root root\n }
@/var/log/btmp { missingok\nmonthly\ncreate 0660 root utmp\nrotate 1\n }
@/var/log/wtmp { missingok\nmonthly\ncreate 0664 root utmp\nrotate 1\n }
@/var/log/syslog @/var/log/auth.log { rotate 12\nweekly\nmissingok\nnotifempty\ncompress\ndelaycompress\nsharedscripts\n }
";

struct Host {
    home: Home,
    log: PathBuf,
    /// By file: its lines, those of its rotated files included, oldest first.
    lines: BTreeMap<String, Vec<String>>,
    written: usize,
}

impl Host {
    fn new() -> Result<Host> {
        let home = Home::new()?;
        let log = home.path().join("root/var/log");
        for directory in ["apt", "journal/0123456789abcdef", "private"] {
            fs::create_dir_all(log.join(directory))?;
        }
        let mut host = Host { home, log, lines: BTreeMap::new(), written: 0 };
        for name in OF_HOST {
            // A last line without its end would be waited for.
            let mut bytes = fs::read(Path::new("/var/log").join(name)).unwrap_or_default();
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(whole);
            let text = String::from_utf8(bytes).with_context(|| format!("/var/log/{name}"))?;
            fs::write(host.log.join(name), &text)?;
            host.lines.insert((*name).to_owned(), text.lines().map(str::to_owned).collect());
        }
        for name in ["syslog", "auth.log"] {
            for rotated in [format!("{name}.3.gz"), format!("{name}.2.gz"), format!("{name}.1")] {
                let text = host.some_lines(name, 200);
                let mut file = File::create(host.log.join(&rotated))?;
                if rotated.ends_with(".gz") {
                    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                    packed.write_all(text.as_bytes())?;
                    packed.finish()?;
                } else {
                    file.write_all(text.as_bytes())?;
                }
            }
            host.append(name, 200)?;
        }
        let mut rand = Rand::from_env_or(1);
        for name in BINARY {
            let mut bytes = vec![0; 384 * 20];
            for record in bytes.chunks_mut(384) {
                rand.fill(&mut record[..40]);
            }
            if name.ends_with(".journal") {
                bytes[..8].copy_from_slice(b"LPKSHHRH");
            }
            let mut file = File::create(host.log.join(name))?;
            // Most of it is a hole, as for a host with high user numbers.
            if *name == "lastlog" {
                file.set_len(292 * 100_000)?;
            }
            file.write_all(&bytes)?;
        }
        File::create(host.log.join("faillog"))?;
        std::os::unix::fs::symlink("../../usr/share/doc/systemd/README.logs", host.log.join("README"))?;
        Ok(host)
    }

    fn some_lines(&mut self, name: &str, count: usize) -> String {
        let first = self.written;
        self.written += count;
        let of = self.lines.entry(name.to_owned()).or_default();
        let lines =
            (first..self.written).map(|n| format!("Nov 27 12:00:00 host prog[{n}]: line {n} of {name}"));
        let lines: Vec<String> = lines.collect();
        of.extend(lines.iter().cloned());
        lines.join("\n") + "\n"
    }

    fn append(&mut self, name: &str, count: usize) -> Result<()> {
        let text = self.some_lines(name, count);
        let mut file = File::options().create(true).append(true).open(self.log.join(name))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    fn config(&self, pattern: &str) -> String {
        self.home.config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/{pattern}\"]}}]}}\n",
            self.log.display()
        ))
    }

    fn rotate(&self) -> Result<()> {
        let (config, state) =
            (self.home.path().join("logrotate.conf"), self.home.path().join("logrotate.state"));
        let root = self.home.path().join("root").display().to_string();
        fs::write(&config, LOGROTATE.replace('@', &root))?;
        let output =
            Command::new("logrotate").arg("--force").arg("--state").args([&state, &config]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "logrotate: {said}");
        Ok(())
    }

    /// By file: what was delivered.
    fn delivered(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(self.home.output_dir())? {
            let mut text = String::new();
            File::open(entry?.path())?.read_to_string(&mut text)?;
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let record: Value = serde_json::from_str(line)?;
                let path = Path::new(record["path"].as_str().context("no path")?);
                let name = path.strip_prefix(&self.log)?.display().to_string();
                all.entry(name).or_default().push(record["message"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(all)
    }

    /// Each line of each log came once, in its order, and nothing else.
    fn await_all(&self) -> Result<()> {
        let expected: BTreeMap<&String, Vec<&str>> = self
            .lines
            .iter()
            .filter(|(_, lines)| !lines.is_empty())
            .map(|(name, lines)| (name, lines.iter().map(|line| line.trim_end_matches('\r')).collect()))
            .collect();
        wait_until("every line of every log", PATIENCE, || {
            let delivered = self.delivered()?;
            for (name, lines) in &expected {
                let got = delivered.get(*name).map_or(&[][..], Vec::as_slice);
                let same = got.iter().zip(lines).take_while(|(got, line)| got == *line).count();
                let (got, expected) = (got.get(same), lines.get(same));
                ensure!(
                    got.is_none() && expected.is_none(),
                    "{name}, line {same}: {got:?}, not {expected:?}"
                );
            }
            let others: Vec<_> = delivered.keys().filter(|name| !expected.contains_key(name)).collect();
            ensure!(others.is_empty(), "also {others:?}");
            Ok(())
        })
    }
}

/// Seconds of processor time while nothing happens. Measured from outside: a question to the agent would cost more.
fn quiet_cpu(agent: &Agent) -> Result<f64> {
    let (cpu, began) = (agent.cpu_seconds()?, Instant::now());
    wait_until("a quiet while", PATIENCE, || began.elapsed() >= QUIET)?;
    Ok(agent.cpu_seconds()? - cpu)
}

#[test]
fn a_debian_host() -> Result<()> {
    if Command::new("logrotate").arg("--version").output().is_err() {
        skipped!("no logrotate; cargo xtask test tools installs it");
        return Ok(());
    }
    // What an agent uses that follows one small file. Its pattern does not match the rotated ones that were there before.
    let quiet = Host::new()?;
    let agent = quiet.home.start(&quiet.config("auth.log"))?;
    wait_until("its lines", PATIENCE, || {
        let count = quiet.delivered()?.values().flatten().count();
        ensure!(count == 200, "{count}");
        Ok(())
    })?;
    let least = quiet_cpu(&agent)?;
    agent.stop()?;

    let mut host = Host::new()?;
    let agent = host.home.start(&host.config("**"))?;
    host.await_all()?;
    for round in 0..ROUNDS {
        for name in ["syslog", "auth.log", "dpkg.log", "alternatives.log", "apt/history.log", "apt/term.log"]
        {
            host.append(name, 300)?;
        }
        // The agent need not be done with a file when it is rotated.
        if round % 2 == 0 {
            host.await_all()?;
        }
        host.rotate()?;
    }
    host.append("syslog", 10)?;
    host.await_all()?;
    agent.assert_nothing_lost()?;

    let (ok, said) = agent.health_of("files")?;
    ensure!(ok && said.contains("not text"), "{said}");
    let check =
        Command::new(program()).args(["check", "-c"]).arg(host.home.path().join("config.yaml")).output()?;
    let check = String::from_utf8(check.stdout)? + &String::from_utf8(check.stderr)?;
    for name in BINARY {
        let path = host.log.join(name).display().to_string();
        // An empty one that logrotate has just made is no longer binary; its older one is.
        let is_empty = fs::metadata(&path)?.len() == 0;
        ensure!(is_empty || said.contains(&path), "health does not name {path}: {said}");
        ensure!(is_empty || check.contains(&path), "check does not name {path}: {check}");
    }

    let used = quiet_cpu(&agent)?;
    println!(
        "in {QUIET:?} without a new line: {used:.2} s of processor time, {least:.2} s with one small file"
    );
    ensure!(used <= 2.0 * least + 0.1, "{used:.2} s, {least:.2} s with one small file");
    agent.stop()
}
