//! What is made of the bytes of followed files, by the whole agent on real files: lines without an end, holes, encodings,
//! line ends, formats, and files that are no text.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::wait::wait_until;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

/// A directory of logs, and an agent that follows a pattern in it.
struct Host {
    home: Home,
    logs: PathBuf,
    config: String,
}

impl Host {
    /// With more settings of the entry of `file_monitor`.
    fn new(pattern: &str, more: &str) -> Result<Host> {
        let home = Home::new()?;
        let logs = home.path().join("logs");
        fs::create_dir(&logs)?;
        let path = logs.join(pattern);
        let config = home.config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"]{more}}}]}}\n",
            path.display()
        ));
        Ok(Host { home, logs, config })
    }

    fn start(&self) -> Result<Agent> {
        self.home.start(&self.config)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.logs.join(name))?;
        Ok(file.write_all(bytes)?)
    }

    /// Messages as they came, with their marks: `…` before the rest of a line and behind one without its end.
    fn got(&self) -> Result<Vec<String>> {
        let mut got = Vec::new();
        for entry in fs::read_dir(self.home.output_dir()).into_iter().flatten() {
            let text = fs::read(entry?.path())?;
            // The last line may be in the writing.
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let record: Value = serde_json::from_slice(line)?;
                let mark = |key: &str| if record[key] == true { "…" } else { "" };
                let message = record["message"].as_str().unwrap_or_default();
                got.push(format!("{}{message}{}", mark("continued"), mark("partial")));
            }
        }
        Ok(got)
    }

    fn comes(&self, expected: &[&str]) -> Result<()> {
        let seen = wait_until("the lines", DEADLINE, || {
            let got = self.got()?;
            ensure!(got.len() >= expected.len(), "{got:?}");
            anyhow::Ok(got)
        });
        assert_eq!(seen?, expected);
        Ok(())
    }

    fn health(agent: &Agent) -> Result<Value> {
        Ok(serde_json::from_str(&agent.ask("/health")?.1)?)
    }
}

/// Delivered once, whatever happens between: a stop, a kill just behind the delivery, a rotation.
#[test]
fn a_line_without_its_end_comes_in_marked_parts_once() -> Result<()> {
    let host = Host::new("*.log", "")?;
    host.append("app.log", b"one\nPassword: ")?;
    let agent = host.start()?;
    host.comes(&["one", "Password: …"])?;
    // No checkpoint holds the position behind it yet, perhaps.
    agent.kill()?;
    host.append("app.log", b"secret\ntwo")?;
    let agent = host.start()?;
    host.comes(&["one", "Password: …", "…secret", "two…"])?;
    agent.stop()?;
    let agent = host.start()?;
    // Nothing but its end.
    host.append("app.log", b"\nthree\nfour")?;
    host.comes(&["one", "Password: …", "…secret", "two…", "three", "four…"])?;
    fs::rename(host.logs.join("app.log"), host.logs.join("app.log.1"))?;
    host.append("app.log", b"five\n")?;
    host.comes(&["one", "Password: …", "…secret", "two…", "three", "four…", "five"])?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

#[test]
fn a_line_without_its_end_waits_for_it_where_the_config_says_so() -> Result<()> {
    let host = Host::new("*.log", ", unfinished_line_after: 0s")?;
    host.append("app.log", b"one\ntw")?;
    let agent = host.start()?;
    host.comes(&["one"])?;
    host.append("app.log", b"o\nthree")?;
    host.comes(&["one", "two"])?;
    // Nothing follows in a file that is gone, so its end is the line's.
    fs::remove_file(host.logs.join("app.log"))?;
    host.comes(&["one", "two", "three"])?;
    agent.stop()
}

/// Of each format: nothing was ever there, so nothing is lost, and it costs nothing.
#[test]
fn a_hole_of_3_gib_is_passed_over_at_once() -> Result<()> {
    const HOLE: u64 = 3 << 30;
    type Line = fn(&str) -> String;
    let lines: [(&str, Line); 3] = [
        ("raw", |text| format!("{text}\n")),
        ("docker", |text| {
            format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.1Z\"}}\n")
        }),
        ("cri", |text| format!("2026-11-22T00:52:48.1Z stdout F {text}\n")),
    ];
    for (format, line) in lines {
        let host = Host::new("*.log", &format!(", format: {format}"))?;
        let path = host.logs.join("app.log");
        // The writer keeps its place: it has no O_APPEND.
        let mut writer = File::create(&path)?;
        writer.write_all(line("before the hole, long enough to be known by").as_bytes())?;
        writer.seek(SeekFrom::Start(HOLE))?;
        writer.write_all(line("behind it").as_bytes())?;
        let agent = host.start()?;
        host.comes(&["before the hole, long enough to be known by", "behind it"])?;
        agent.assert_nothing_lost()?;
        assert!(agent.cpu_seconds()? < 3.0, "{format}: {} CPU seconds", agent.cpu_seconds()?);
        // An operator's `truncate -s 0` makes another.
        File::options().write(true).open(&path)?.set_len(0)?;
        writer.write_all(line("written on").as_bytes())?;
        host.comes(&["before the hole, long enough to be known by", "behind it", "written on"])?;
        writer.write_all(line("and on").as_bytes())?;
        host.comes(&["before the hole, long enough to be known by", "behind it", "written on", "and on"])?;
        let text = agent.get("/metrics")?;
        let lost = text.lines().filter(|line| line.starts_with("log_capturer_lost_bytes_total{"));
        let lost: Vec<&str> = lost.filter(|line| !line.ends_with(" 0")).collect();
        assert!(lost.is_empty(), "{format}: {lost:?}");
        assert!(agent.cpu_seconds()? < 6.0, "{format}: {} CPU seconds", agent.cpu_seconds()?);
        agent.stop()?;
    }
    Ok(())
}

/// A database under a pattern is left out, and said; text beside it is complete. Named or wanted, it is read.
#[test]
fn files_that_are_no_text_are_left_out_and_named() -> Result<()> {
    let host = Host::new("*", "")?;
    let mut record = vec![0; 384];
    record[0] = 7;
    record[8..13].copy_from_slice(b"pts/0");
    host.append("wtmp", &record.repeat(4))?;
    File::create(host.logs.join("lastlog"))?.write_all_at(&record, 292_000)?;
    host.append("utf16.txt", b"\xff\xfeh\0i\0\n\0")?;
    host.append("syslog", b"a line\n")?;
    let agent = host.start()?;
    wait_until("both texts", DEADLINE, || {
        let mut got = host.got()?;
        got.sort();
        ensure!(got == ["a line", "hi"], "{got:?}");
        anyhow::Ok(())
    })?;
    let health = wait_until("health to name them", DEADLINE, || {
        let files = Host::health(&agent)?["components"]["files"].clone();
        let message = files["message"].as_str().unwrap_or_default().to_owned();
        let is_note = files["ok"] == true && files["note"] == true;
        ensure!(is_note && message.contains("wtmp") && message.contains("lastlog"), "{files}");
        anyhow::Ok(message)
    })?;
    assert!(health.contains("binary: read") && !health.contains("syslog"), "{health}");
    assert_eq!(agent.metric("sources_unreadable{reason=\"binary\"}")?, 2.0);
    assert_eq!(agent.log_text()?.matches("wtmp is not text and is left out").count(), 1);
    // Whoever looks is told the same: here, in the figures, by check. And no empty output stands for them.
    assert_eq!(agent.metric("files_monitored")?, 2.0);
    assert_eq!(agent.metric("paths_passed_over{reason=\"binary\"}")?, 2.0);
    for row in agent.streams()? {
        let name = row["name"].as_str().unwrap_or_default();
        let is_left_out = name.ends_with("wtmp") || name.ends_with("lastlog");
        assert_eq!(row["left_out"].as_str(), is_left_out.then_some("binary, not text"), "{row}");
    }
    wait_until("empty outputs to go", DEADLINE, || {
        let outputs = fs::read_dir(host.home.output_dir())?.map(|entry| Ok(entry?.file_name()));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        ensure!(outputs.len() == 2, "{outputs:?}");
        anyhow::Ok(())
    })?;
    let config = host.home.path().join("config.yaml");
    let checked = std::process::Command::new(program()).args(["check", "-c"]).arg(config).output()?;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("*: 2 files") && checked.contains("passes over 2 (not text"), "{checked}");
    // Records come all the time there; a text beside goes on.
    host.append("wtmp", &record)?;
    host.append("syslog", b"another\n")?;
    wait_until("the next line", DEADLINE, || {
        let got = host.got()?;
        ensure!(got.iter().any(|line| line == "another") && got.len() == 3, "{got:?}");
        anyhow::Ok(())
    })?;
    agent.assert_nothing_lost()?;
    agent.stop()?;
    // Also after a restart.
    let agent = host.start()?;
    host.append("syslog", b"the last\n")?;
    wait_until("the last line", DEADLINE, || {
        let got = host.got()?;
        ensure!(got.iter().any(|line| line == "the last") && got.len() == 4, "{got:?}");
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// Each is a file that people have, and what comes of it.
#[test]
fn texts_of_all_kinds() -> Result<()> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let record = |text: &str| {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.1Z\"}}\n")
    };
    let long = "x".repeat(2 << 20);
    let cut = "x".repeat(1 << 20);
    let table: [(&str, &str, Vec<u8>, Vec<&str>); 9] = [
        ("UTF-16 without a mark", ", encoding: utf-16le", utf16("one\r\ntwo é\n"), vec!["one", "two é"]),
        (
            "mixed line ends",
            "",
            b"one\r\ntwo\nthree\r\r\n\nfour\n".to_vec(),
            vec!["one", "two", "three", "", "four"],
        ),
        ("line ends kept", ", keep_cr: true", b"one\r\ntwo\n".to_vec(), vec!["one\r", "two"]),
        // An old Mac's file, or a progress bar: one line, as long as none is longer.
        ("carriage returns alone", "", b"10%\r20%\rdone\n".to_vec(), vec!["10%\r20%\rdone"]),
        ("Latin-1", ", encoding: latin1", b"caf\xe9\n".to_vec(), vec!["café"]),
        (
            "another encoding in its midst",
            "",
            b"caf\xc3\xa9\ncaf\xe9\nend\n".to_vec(),
            vec!["café", "caf\u{fffd}", "end"],
        ),
        (
            "all formats in one file",
            "",
            [
                "plain\n".to_owned(),
                record("docker"),
                "2026-11-22T00:52:48.1Z stdout F cri\n".to_owned(),
                "{\"an\": \"object\"}\n".to_owned(),
                record("docker again"),
                "2026-11-22 00:52:48 plain again\n".to_owned(),
            ]
            .concat()
            .into_bytes(),
            vec![
                "plain",
                "docker",
                "cri",
                "{\"an\": \"object\"}",
                "docker again",
                "2026-11-22 00:52:48 plain again",
            ],
        ),
        (
            "a record longer than the limit",
            "",
            (record(&long) + &record("next")).into_bytes(),
            vec![&cut, "next"],
        ),
        ("a line longer than the limit", "", format!("{long}\nnext\n").into_bytes(), vec![&cut, "next"]),
    ];
    for (what, more, bytes, expected) in table {
        let host = Host::new("*.log", more)?;
        host.append("app.log", &bytes)?;
        let agent = host.start()?;
        let got = wait_until(what, DEADLINE, || {
            let got = host.got()?;
            ensure!(got.len() >= expected.len(), "{} lines", got.len());
            anyhow::Ok(got)
        })?;
        assert!(got == expected, "{what}: {:.300?}", got);
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    Ok(())
}

/// Each content of a file has a mark of its own, or none.
#[test]
fn a_file_that_is_truncated_may_begin_with_a_mark() -> Result<()> {
    let host = Host::new("*.log", "")?;
    let path = host.logs.join("app.log");
    fs::write(&path, b"one, written long before the others came here\n")?;
    let agent = host.start()?;
    host.comes(&["one, written long before the others came here"])?;
    fs::copy(&path, host.logs.join("app.log.1"))?;
    let file = File::options().write(true).open(&path)?;
    file.set_len(0)?;
    file.write_all_at(b"\xef\xbb\xbftwo\n", 0)?;
    host.comes(&["one, written long before the others came here", "two"])?;
    fs::copy(&path, host.logs.join("app.log.1"))?;
    file.set_len(0)?;
    file.write_all_at(b"\xff\xfe3\0\n\0", 0)?;
    host.comes(&["one, written long before the others came here", "two", "3"])?;
    agent.stop()
}

/// A file that was left out because it was no text is judged again when it is written anew, and so is health.
#[test]
fn what_was_no_text_is_read_when_it_becomes_text() -> Result<()> {
    let host = Host::new("*.log", "")?;
    let binary: Vec<u8> = (0..4096u32).map(|at| (at % 32) as u8).collect();
    host.append("a.log", &binary)?;
    let agent = host.start()?;
    wait_until("the file to be left out", DEADLINE, || {
        let (ok, message) = agent.health_of("files")?;
        ensure!(ok && message.contains("a.log is not text"), "{message}");
        anyhow::Ok(())
    })?;
    for round in ["shorter", "than it was, and much longer than it was by now\n"] {
        let text: String = (0..200).map(|line| format!("{round} {line}\n")).collect();
        fs::write(host.logs.join("a.log"), &text)?;
        wait_until("its lines", DEADLINE, || {
            let got = host.got()?;
            let missing = text.lines().find(|line| !got.iter().any(|one| one == line));
            ensure!(missing.is_none(), "{missing:?} of {}", got.len());
            let (ok, message) = agent.health_of("files")?;
            ensure!(ok, "{message}");
            anyhow::Ok(())
        })?;
        if round == "shorter" {
            fs::write(host.logs.join("a.log"), &binary[..100])?;
            wait_until("the file to be left out again", DEADLINE, || {
                let (ok, message) = agent.health_of("files")?;
                ensure!(ok && message.contains("a.log is not text"), "{message}");
                anyhow::Ok(())
            })?;
        }
    }
    agent.stop()
}
