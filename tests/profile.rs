//! `/debug/profile` of a working agent: it names our own functions, in both forms, in the users' build; and a refused
//! request is told why.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::wait::{PATIENCE, wait_until};
use prost::Message;

/// The parts of github.com/google/pprof/proto/profile.proto that a reader needs.
#[derive(Clone, PartialEq, Message)]
struct Pprof {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

fn config(home: &Home, profile: bool) -> String {
    let path = home.path().display();
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}]}}\n"
    ));
    config.replacen("\"127.0.0.1:0\"", &format!("\"127.0.0.1:0\", profile: {profile}"), 1)
}

/// Status, head and body.
fn ask(agent: &Agent, path: &str) -> Result<(u16, String, Vec<u8>)> {
    let mut stream = send(agent, path)?;
    answer(&mut stream)
}

fn send(agent: &Agent, path: &str) -> Result<TcpStream> {
    let mut stream = agent.connect()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> Result<(u16, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the head")?;
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, head, bytes[end + 4..].to_vec()))
}

/// Prints into a file until it is told to end: a busy machine may take long over the rest.
fn print(path: &Path, is_over: &AtomicBool) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let line = format!("{}\n", "what a program prints while somebody looks at the agent ".repeat(3));
    let lines = line.repeat(1_000);
    let mut written = 0_usize;
    while !is_over.load(Ordering::Relaxed) {
        file.write_all(lines.as_bytes())?;
        written += lines.len();
        // The disk is not tested here: pages that were read are no longer needed.
        if written % (64 << 20) < lines.len() {
            file.set_len(0)?;
        }
    }
    Ok(())
}

/// A profile without our names is useless, and whoever takes one has a problem to solve.
#[test]
fn a_busy_agent_shows_what_it_does() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    let log = home.path().join("in/busy.log");
    let config =
        config(&home, true).replacen("max_size: 0", "max_size: 32MiB, max_files: 1, compress: none", 1);
    let agent = home.start(&config)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let printing = scope.spawn(|| print(&log, &is_over));
        let outcome = look(&agent);
        is_over.store(true, Ordering::Relaxed);
        printing.join().expect("no panic")?;
        outcome
    })?;
    // It works as before.
    ensure!(agent.get("/readyz")?.contains("ready"));
    agent.stop()
}

fn look(agent: &Agent) -> Result<()> {
    // However little processor time it got.
    wait_until("a function of ours in a flame graph", PATIENCE, || {
        let (status, head, body) = ask(agent, "/debug/profile?seconds=2")?;
        let svg = String::from_utf8(body)?;
        ensure!(status == 200 && head.contains("content-type: image/svg+xml"), "{head}\n{svg}");
        ensure!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        ensure!(
            svg.contains("<title>capturer::") && svg.contains("for each second of processor time"),
            "{svg}"
        );
        // The thread that writes outputs, down to our call that writes.
        ensure!(svg.contains("capturer::sink::"), "{svg}");
        anyhow::Ok(())
    })?;
    wait_until("the same for pprof", PATIENCE, || {
        let (status, head, body) = ask(agent, "/debug/profile?seconds=2&format=pprof")?;
        ensure!(status == 200 && body.starts_with(&[0x1f, 0x8b]), "{head}");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut bytes)?;
        let profile = Pprof::decode(&*bytes)?;
        let text = |number: i64| profile.strings.get(number as usize).map_or("", String::as_str);
        ensure!(profile.strings.first().is_some_and(String::is_empty), "the first string is empty");
        let types: Vec<_> = profile.sample_type.iter().map(|of| (text(of.kind), text(of.unit))).collect();
        ensure!(types == [("samples", "count"), ("cpu", "nanoseconds")], "{types:?}");
        ensure!(profile.duration_nanos >= 2_000_000_000 && profile.period > 0, "{profile:?}");
        let mut ours = 0;
        for sample in &profile.sample {
            ensure!(sample.values.len() == 2 && !sample.locations.is_empty(), "{sample:?}");
            let mut is_ours = false;
            for id in &sample.locations {
                let location = profile.location.iter().find(|location| location.id == *id);
                let line = location.and_then(|location| location.lines.first()).context("no location")?;
                let function = profile.function.iter().find(|function| function.id == line.function);
                is_ours |= text(function.context("no function")?.name).contains("capturer::");
            }
            ours += if is_ours { sample.values[0] } else { 0 };
        }
        let all: i64 = profile.sample.iter().map(|sample| sample.values[0]).sum();
        ensure!(all > 0 && ours * 2 > all, "only {ours} of {all} samples lead to us");
        anyhow::Ok(())
    })?;

    // Only one at a time; the other gets that answer at once.
    let mut first = send(agent, "/debug/profile?seconds=60")?;
    wait_until("a second one to be refused", PATIENCE, || {
        // If this one came first the long one is refused.
        let (status, _, body) = ask(agent, "/debug/profile?seconds=1")?;
        if status == 200 {
            first = send(agent, "/debug/profile?seconds=60")?;
        }
        let said = String::from_utf8_lossy(&body).into_owned();
        ensure!(status == 409 && said.contains("Only one is taken at a time"), "{status}");
        anyhow::Ok(())
    })?;
    // A client that disconnects ends it.
    drop(first);
    wait_until("the next one to be taken", PATIENCE, || {
        let (status, ..) = ask(agent, "/debug/profile?seconds=1")?;
        ensure!(status == 200, "{status}");
        anyhow::Ok(())
    })?;
    for wrong in ["seconds=0", "seconds=61", "seconds=x", "seconds", "format=png", "color=red"] {
        let (status, _, body) = ask(agent, &format!("/debug/profile?{wrong}"))?;
        ensure!(status == 400 && !body.is_empty(), "{wrong}: {status}");
    }
    Ok(())
}

#[test]
fn it_is_off_unless_somebody_wants_it() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    let agent = home.start(&config(&home, false))?;
    let (status, body) = agent.ask("/debug/profile")?;
    ensure!(status == 403 && body.contains("admin: {profile: true}") && body.contains("restart"), "{body}");
    agent.stop()
}
