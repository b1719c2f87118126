//! `capturer tap` and `capturer top` beside an agent at work: what they show, and that nobody who watches holds it up.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::lateness::Lateness;
use capturer_tests::loki::TestLoki;
use capturer_tests::wait::{PATIENCE, pass, wait_until};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Follows `in/*.log` of the home.
fn config(home: &Home) -> Result<String> {
    fs::create_dir_all(home.path().join("in"))?;
    let path = home.path().display();
    Ok(home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/*.log\"], format: raw}}]}}\n"
    )))
}

/// Appends numbered lines to a file until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(home: &Home, name: &str, burst: u64) -> Result<Writer> {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut file = File::options().create(true).append(true).open(home.path().join("in").join(name))?;
        let (stopped, count, name) = (Arc::clone(&stop), Arc::clone(&written), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut from = 0;
            while !stopped.load(Ordering::Relaxed) {
                let lines: String = (from..from + burst).map(|n| format!("{name} line {n}\n")).collect();
                if file.write_all(lines.as_bytes()).is_err() {
                    return;
                }
                from += burst;
                count.store(from, Ordering::Relaxed);
                pass(Duration::from_millis(10));
            }
        });
        Ok(Writer { stop, written, thread: Some(thread) })
    }

    /// Lines written so far.
    fn lines(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn end(mut self) -> u64 {
        self.finish();
        self.lines()
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Running {
    child: Child,
    out: std::path::PathBuf,
}

impl Running {
    fn start(home: &Home, words: &[&str]) -> Result<Running> {
        let out = home.path().join(format!("out-of-{}", words[0]));
        let child = Command::new(program())
            .args(words)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Running { child, out })
    }

    fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.out)?)
    }

    fn interrupt(&mut self) -> Result<Option<i32>> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process")?;
        kill_process(pid, Signal::INT)?;
        let child = &mut self.child;
        Ok(wait_until("the command to end", PATIENCE, || child.try_wait().ok().flatten())?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(program()).args(words).stdin(Stdio::null()).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// How many lines of a file are in the output.
fn delivered(home: &Home, name: &str) -> Result<u64> {
    let outputs = fs::read_dir(home.output_dir()).into_iter().flatten().flatten();
    let own = |path: &Path| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}~")))
    };
    let texts = outputs.map(|entry| entry.path()).filter(|path| own(path)).map(fs::read);
    let mut count = 0;
    for text in texts {
        count += text?.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    Ok(count)
}

#[test]
fn tap_shows_what_passes_its_filters() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&config(&home)?)?;
    let writers = [Writer::start(&home, "a.log", 10)?, Writer::start(&home, "b.log", 10)?];
    let words =
        ["tap", "--json", "--container", "a.log", "--grep", "line [0-9]*7$", "--admin", agent.address()];
    let mut tap = Running::start(&home, &words)?;
    let text = wait_until("ten lines", PATIENCE, || {
        let text = tap.text()?;
        ensure!(text.lines().count() >= 10, "{text}");
        Ok(text)
    })?;
    for line in text.lines().take(10) {
        let record: Value = serde_json::from_str(line)?;
        let message = record["message"].as_str().context("no message")?;
        ensure!(message.starts_with("a.log line ") && message.ends_with('7'), "{line}");
    }
    assert_eq!(tap.interrupt()?, Some(0), "Ctrl-C is how it ends");
    wait_until("the view to end", PATIENCE, || {
        let watchers = agent.metric("tap_watchers")?;
        ensure!(watchers == 0.0, "{watchers}");
        Ok(())
    })?;
    let words =
        ["tap", "-c", &home.path().join("config.yaml").display().to_string(), "--admin", agent.address()];
    let mut tap = Running::start(&home, &words)?;
    wait_until("both files", PATIENCE, || {
        let text = tap.text()?;
        ensure!(text.contains(" | a.log line ") && text.contains(" | b.log line "), "{text}");
        Ok(())
    })?;
    // It ends with the agent, and says so by its code.
    drop(writers);
    agent.stop()?;
    let child = &mut tap.child;
    let status = wait_until("the command to end", PATIENCE, || child.try_wait().ok().flatten())?;
    assert_eq!(status.code(), Some(69));
    Ok(())
}

/// Clients that never read: the agent goes on, answers others at once, bounds what it keeps for them, and ends them.
#[test]
fn whoever_watches_and_does_not_read_holds_up_nothing() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&config(&home)?)?;
    let writer = Writer::start(&home, "a.log", 500)?;
    let mut clients = Vec::new();
    for number in 0..6 {
        let mut client = agent.connect()?;
        client.write_all(b"GET /api/v1/tap HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut status = [0; 12];
        client.read_exact(&mut status)?;
        assert_eq!(&status[9..], if number < 4 { b"200" } else { b"503" }, "a few may watch");
        clients.push(client);
    }
    assert_eq!(agent.metric("tap_watchers")?, 4.0);
    wait_until("lines to be skipped", PATIENCE, || {
        let skipped = agent.metric("tap_skipped_lines_total")?;
        ensure!(skipped > 10_000.0, "{skipped}");
        Ok(())
    })?;
    let (mut slowest, lateness) = (Duration::ZERO, Lateness::watch());
    wait_until("the views to be ended", PATIENCE, || {
        let asked = Instant::now();
        agent.get("/healthz")?;
        slowest = slowest.max(asked.elapsed());
        let watchers = agent.metric("tap_watchers")?;
        ensure!(watchers == 0.0, "{watchers} still watch");
        Ok(())
    })?;
    println!("slowest /healthz {slowest:?}");
    ensure!(slowest < lateness.allow(Duration::from_millis(100)), "/healthz took {slowest:?}");
    let written = writer.end();
    wait_until("every line", PATIENCE, || {
        let got = delivered(&home, "a.log")?;
        ensure!(got == written, "{got} of {written}");
        Ok(())
    })?;
    // A stop does not wait for who watches.
    let mut client = agent.connect()?;
    client.write_all(b"GET /api/v1/tap HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    client.read_exact(&mut [0; 12])?;
    let began = Instant::now();
    agent.stop()?;
    let took = began.elapsed();
    ensure!(took < lateness.allow(Duration::from_secs(3)), "the stop took {took:?}");
    Ok(())
}

#[test]
fn what_is_wrong_is_said_with_the_address() -> Result<()> {
    // Bound for as long as the test runs, so that no other agent gets it; nobody listens there.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let free = SocketAddrV4::try_from(rustix::net::getsockname(&socket)?)?.to_string();
    for command in ["tap", "top"] {
        let mut words = vec![command, "--admin", &free];
        words.extend((command == "top").then_some("--once"));
        let (code, said) = finish(&words)?;
        ensure!(code == Some(69) && said.contains(&free) && said.contains("--admin"), "{code:?}: {said}");
    }
    let (code, said) = finish(&["tap", "--admin", &free, "--grep", "("])?;
    ensure!(code == Some(64) && said.contains("--grep"), "{code:?}: {said}");
    let (code, said) = finish(&["tap", "--admin", ""])?;
    ensure!(code == Some(64) && said.contains("admin.listen"), "{code:?}: {said}");
    Ok(())
}

fn top(agent: &Agent, more: &[&str]) -> Result<String> {
    let words: Vec<&str> =
        ["top", "--admin", agent.address()].into_iter().chain(more.iter().copied()).collect();
    let (code, said) = finish(&words)?;
    ensure!(code == Some(0), "{code:?}: {said}");
    Ok(said)
}

#[test]
fn top_shows_every_stream_with_its_rate() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&config(&home)?)?;
    let writers = [Writer::start(&home, "a.log", 10)?, Writer::start(&home, "b.log", 1)?];
    wait_until("two streams", PATIENCE, || {
        let count = agent.streams()?.len();
        ensure!(count == 2, "{count}");
        Ok(())
    })?;
    // A look that met a pause of the writers, or of the agent, is made again.
    wait_until("rates as the writers have them", PATIENCE, || {
        let (before, began) = (writers.each_ref().map(Writer::lines), Instant::now());
        let seen: Value = serde_json::from_str(&top(&agent, &["--json"])?)?;
        let seconds = began.elapsed().as_secs_f64();
        let rows = seen["streams"].as_array().context("no streams")?;
        ensure!(rows.len() == 2 && seen["healthy"] == true, "{seen}");
        // The busiest first.
        for ((row, name), (writer, before)) in
            rows.iter().zip(["a.log", "b.log"]).zip(writers.iter().zip(before))
        {
            let written = (writer.lines() - before) as f64 / seconds;
            let rate = row["lines_per_second"].as_f64().context("no rate")?;
            ensure!(row["name"].as_str().is_some_and(|own| own.ends_with(name)), "{seen}");
            ensure!(row["state"] == "following" && row["mode"] == "file", "{row}");
            ensure!((0.5..2.0).contains(&(rate / written)), "{written} lines/s are written: {row}");
        }
        let sum: f64 = rows.iter().filter_map(|row| row["lines_per_second"].as_f64()).sum();
        let total = seen["lines_per_second"].as_f64().context("no total")?;
        ensure!((0.5..2.0).contains(&(total / sum)), "{seen}");
        Ok(())
    })?;
    let table = top(&agent, &["--once"])?;
    for part in ["SOURCE", "STATE", "LINES/S", "a.log", "b.log", "follows", "2 sources", "local_file"] {
        ensure!(table.contains(part), "{part} is not in\n{table}");
    }
    ensure!(!table.contains('\u{1b}'), "no terminal, no escapes");
    drop(writers);
    agent.stop()
}

#[test]
fn top_counts_a_line_once_however_many_sinks_take_it() -> Result<()> {
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let config = config(&home)?;
    let sink = format!("  loki: {{enabled: true, url: \"{}\", batch_timeout: 100ms}}\n", loki.url());
    let config = config.replacen("container_monitor:", &format!("{sink}container_monitor:"), 1);
    let agent = home.start(&config)?;
    let writer = Writer::start(&home, "a.log", 10)?;
    wait_until("lines for both sinks", PATIENCE, || {
        let streams = agent.streams()?;
        ensure!(
            streams.len() == 2 && streams.iter().all(|row| row["lines"].as_u64() > Some(0)),
            "{streams:?}"
        );
        Ok(())
    })?;
    // If one of the two sinks was behind just now, the look is made again.
    wait_until("half of what the rows have", PATIENCE, || {
        let seen: Value = serde_json::from_str(&top(&agent, &["--json"])?)?;
        let rows = seen["streams"].as_array().context("no streams")?;
        let sum: f64 = rows.iter().filter_map(|row| row["lines_per_second"].as_f64()).sum();
        let total = seen["lines_per_second"].as_f64().context("no total")?;
        ensure!(sum > 0.0 && (0.3..0.7).contains(&(total / sum)), "{seen}");
        Ok(())
    })?;
    let table = top(&agent, &["--once"])?;
    ensure!(table.contains("\n1 source, ") && table.contains(" lines/s, "), "{table}");
    drop(writer);
    agent.stop()
}
