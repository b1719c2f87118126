//! Lines that dockerd's follow skips when a log is rotated: with the API, they are read from the files instead; if
//! those can't be read, a loss is declared. A follower too slow for its files, whose loss is known to the byte. And a
//! container that is read sometimes from its files, sometimes over the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::gate::Gate;
use capturer_tests::scene::{Reading, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    a_burst_of_300_000_lines_by_api => burst;
    rotation_under_load_by_api => rotation_under_load;
    three_missed_rotations => three_missed_rotations;
    without_the_files_the_loss_is_declared => without_files;
    read_from_changes_between_runs => read_from_changes;
    a_log_that_is_emptied_while_it_is_read_by_api => emptied;
    what_a_follow_behind_skips_of_a_local_log => skipped_local;
    a_burst_of_a_local_log => burst_local;
}

one_engine! { V20_10:
    files_that_a_slow_follower_lets_go_are_counted_to_the_byte => slow_follower;
}

fn spec(name: &str, options: &[(&str, &str)], script: &str) -> RunSpec {
    options.iter().fold(RunSpec::sh(script).name(name), |spec, (key, value)| spec.log_opt(key, value))
}

/// The numbers at the ends of the delivered lines, in order. Each once and rising, or the test fails.
fn numbers(home: &Home, name: &str) -> Result<Vec<u64>> {
    let last_word = |message: &str| message.rsplit(' ').next().unwrap_or_default().parse::<u64>();
    let records = home.records_of(name)?;
    let numbers: Vec<u64> = records
        .iter()
        .map(|record| last_word(&record.message).with_context(|| format!("no number: {:?}", record.message)))
        .collect::<Result<_>>()?;
    for pair in numbers.windows(2) {
        ensure!(pair[0] < pair[1], "{name}: {} came after {}", pair[1], pair[0]);
    }
    Ok(numbers)
}

fn all_of(home: &Home, agent: &Agent, name: &str, lines: u64) -> Result<()> {
    wait_until(&format!("the last line of {name}"), PATIENCE, || {
        let last = numbers(home, name)?.last().copied();
        ensure!(last == Some(lines), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(home, name)?.len() as u64;
    ensure!(got == lines, "{name}: {got} of {lines} lines; {}", losses(agent)?);
    Ok(())
}

fn losses(agent: &Agent) -> Result<String> {
    let text = agent.get("/metrics")?;
    let of_losses = |line: &&str| line.starts_with("log_capturer_los") && !line.ends_with(" 0");
    Ok(text.lines().filter(of_losses).collect::<Vec<_>>().join("\n"))
}

fn mode(agent: &Agent, name: &str) -> Result<String> {
    let streams = agent.streams()?;
    let row = streams.iter().find(|row| row["name"] == name).with_context(|| format!("no stream {name}"))?;
    Ok(row["mode"].as_str().unwrap_or_default().to_owned())
}

/// The Engine's own follow loses a quarter to a half of these lines, without an error.
fn burst(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let script = "seq 1 300000 | sed 's/^/a line of the burst with some more text in it, as lines have /'";
    engine.run(&spec("burst", &[("max-size", "10m"), ("max-file", "3")], script))?;
    engine.wait("burst")?;
    wait_until("the last line", PATIENCE, || {
        let last = numbers(&home, "burst")?.last().copied();
        ensure!(last == Some(300_000), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(&home, "burst")?.len();
    let declared = losses(&agent)?;
    println!("burst: {got} of 300000 lines; {declared}");
    // Files that dockerd removed before the agent could open them are lost, which must have been reported, and nothing
    // else.
    ensure!((got == 300_000) == declared.is_empty(), "{got} of 300000 lines; {declared}");
    agent.stop()
}

/// 30,000 lines at some 2,000 a second through files of 64 KiB: a rotation every half second, in each way that dockerd
/// has.
fn rotation_under_load(version: EngineVersion) -> Result<()> {
    let ways: [(&str, &[(&str, &str)]); 3] = [
        ("unlinked", &[("max-size", "64k"), ("max-file", "1")]),
        ("renamed", &[("max-size", "64k"), ("max-file", "3")]),
        ("compressed", &[("max-size", "64k"), ("max-file", "3"), ("compress", "true")]),
    ];
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let gate = Gate::new()?;
    for (name, options) in ways {
        let spec = spec(name, options, &gate.script(name, 30_000));
        engine.run(&spec.argument(&gate.volume()))?;
    }
    // Two files hold 1,340 lines.
    gate.keep(&home, &ways.map(|(name, _)| (name, 1_200)), || {
        ways.iter().try_for_each(|(name, _)| engine.wait(name).map(drop))
    })?;
    for (name, _) in ways {
        wait_until(&format!("the last line of {name}"), PATIENCE, || {
            let last = numbers(&home, name)?.last().copied();
            ensure!(last == Some(30_000), "the last is {last:?}");
            Ok(())
        })?;
        let got = numbers(&home, name)?.len();
        println!("{name}: {got} of 30000 lines, {}, {}", mode(&agent, name)?, losses(&agent)?);
        if got < 30_000 {
            ensure!(!losses(&agent)?.is_empty(), "{name}: {got} lines, and nothing was said");
        }
        // With a single file its rest is deleted at each rotation, before anybody can open it by name.
        ensure!(got == 30_000 || name == "unlinked", "{name}: {got} of 30000 lines; {}", losses(&agent)?);
    }
    agent.stop()
}

/// The follower is stopped while the log is rotated three times.
fn three_missed_rotations(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    // Each step prints once it is told to; 2,000 lines fill a file of 128 KiB.
    let script = "seq 1 100 | sed 's/^/line of some length /'; until [ -e /go ]; do sleep 0.05; done; \
        seq 101 6500 | sed 's/^/line of some length /'; until [ -e /end ]; do sleep 0.05; done; echo end 6501";
    engine.run(&spec("slow", &[("max-size", "128k"), ("max-file", "8")], script))?;
    wait_until("the first lines", PATIENCE, || home.count_of("slow") == 100)?;
    ensure!(mode(&agent, "slow")? == "api", "it is read over the API until its log is rotated");
    // The lines may have come by a read without follow, made before the container was known to run: opening the next
    // one after the rotations would then miss nothing. Only the read of a follow waits until it times out.
    wait_until("the stream to wait for more", PATIENCE, || {
        let rows = agent.streams()?;
        ensure!(rows.first().and_then(|row| row["read_timeouts"].as_u64()) >= Some(1), "{rows:?}");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::STOP);
    go_on(&engine, "slow", "/go");
    wait_until("the container to have printed", PATIENCE, || {
        let logs = engine.logs("slow")?;
        ensure!(logs.stdout.ends_with(b" 6500\n"), "not yet");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::CONT);
    go_on(&engine, "slow", "/end");
    all_of(&home, &agent, "slow", 6_501)?;
    ensure!(mode(&agent, "slow")? == "file", "it is read from its files after that");
    ensure!(losses(&agent)?.is_empty(), "{}", losses(&agent)?);
    agent.stop()
}

/// A follow that waits while files are rotated goes on with the newest one. Of the driver `local` there are no files to read.
fn skipped_local(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let script = "seq 1 100 | sed 's/^/line of some length /'; until [ -e /go ]; do sleep 0.05; done; \
        seq 101 100000 | sed 's/^/line of some length /'; until [ -e /end ]; do sleep 0.05; done; echo end 100001";
    let options = [("max-size", "256k"), ("max-file", "100")];
    engine.run(&spec("local", &options, script).log_driver("local"))?;
    wait_until("the first lines", PATIENCE, || home.count_of("local") == 100)?;
    wait_until("the stream to wait for more", PATIENCE, || {
        let rows = agent.streams()?;
        ensure!(rows.first().and_then(|row| row["read_timeouts"].as_u64()) >= Some(1), "{rows:?}");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::STOP);
    go_on(&engine, "local", "/go");
    wait_until("the container to have printed", PATIENCE, || {
        let logs = engine.logs("local")?;
        ensure!(logs.stdout.ends_with(b" 100000\n"), "not yet");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::CONT);
    go_on(&engine, "local", "/end");
    all_of(&home, &agent, "local", 100_001)?;
    ensure!(losses(&agent)?.is_empty(), "{}", losses(&agent)?);
    agent.stop()
}

/// The Engine keeps all of it, and its follow skips most of it.
fn burst_local(version: EngineVersion) -> Result<()> {
    const LINES: u64 = 200_000;
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let script = format!(
        "seq 1 {LINES} | sed 's/^/a line of the burst with some more text in it, as lines have /'; sleep 1000"
    );
    let options = [("max-size", "1m"), ("max-file", "50")];
    engine.run(&spec("burst", &options, &script).log_driver("local"))?;
    wait_until("each line", PATIENCE, || {
        let got = numbers(&home, "burst")?.len() as u64;
        ensure!(got >= LINES, "{got} of {LINES} lines; {}", losses(&agent)?);
        Ok(())
    })?;
    let got = numbers(&home, "burst")?;
    ensure!(got.iter().copied().eq(1..=LINES), "{} lines, not each once and in order", got.len());
    ensure!(losses(&agent)?.is_empty(), "{}", losses(&agent)?);
    agent.stop()
}

/// The files can't be read, and the log was rotated away while the agent was stopped.
fn without_files(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading { rotation: "1h", ..Reading::API });
    let script = "seq 1 100 | sed 's/^/line of some length /'; until [ -e /go ]; do sleep 0.05; done; \
        seq 101 9000 | sed 's/^/line of some length /'; until [ -e /end ]; do sleep 0.05; done; echo end 9001";
    engine.run(&spec("hidden", &[("max-size", "64k"), ("max-file", "2")], script))?;
    let agent = home.start_as_nobody(&config, engine.socket())?;
    wait_until("the first lines", PATIENCE, || home.count_of("hidden") == 100)?;
    agent.stop()?;
    go_on(&engine, "hidden", "/go");
    wait_until("the container to have printed", PATIENCE, || {
        let logs = engine.logs("hidden")?;
        ensure!(logs.stdout.ends_with(b" 9000\n"), "not yet");
        Ok(())
    })?;
    let agent = home.start_as_nobody(&config, engine.socket())?;
    go_on(&engine, "hidden", "/end");
    wait_until("the last line", PATIENCE, || {
        let last = numbers(&home, "hidden")?.last().copied();
        ensure!(last == Some(9_001), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(&home, "hidden")?.len();
    ensure!(got < 9_001, "nothing was lost: the test is of no use");
    let declared = losses(&agent)?;
    ensure!(declared.contains("losses_total{reason=\"engine_skipped_rotation\"} 1"), "{declared}");
    let log = agent.log_text()?;
    ensure!(log.contains("the Engine's log begins behind the last line delivered"), "not in its log");
    agent.stop()
}

/// An operator empties the log of a running container, twice. It was not rotated, so nothing was skipped: no loss is
/// declared as certain, and lines that the agent had received by then are delivered.
fn emptied(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::API))?;
    let script = "a=1; while [ $a -le 5 ]; do until [ -e /go$a ]; do sleep 0.05; done; \
        echo line $a; a=$((a+1)); done; sleep 1000";
    let id = engine.run(&spec("emptied", &[], script))?;
    for line in 1..=5 {
        go_on(&engine, "emptied", &format!("/go{line}"));
        all_of(&home, &agent, "emptied", line)?;
        if line == 2 || line == 4 {
            File::options().write(true).truncate(true).open(engine.log_path(&id))?;
        }
    }
    ensure!(losses(&agent)?.is_empty(), "{}", losses(&agent)?);
    agent.stop()
}

/// Bytes that a slow follower may hold open in deleted files.
const HELD_OPEN_BYTES_MAX: f64 = 65_536.0;

/// A follower at half the speed of its container, whose files are removed and may be held open only up to a bound: what
/// it has to give up is counted, and equals to the byte the length of its missing lines in the log.
fn slow_follower(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&format!(
        "{}limits: {{deleted_open_bytes_max: 64KiB}}\npipelines: [{{name: slow, match: {{}}, rate_limit: {{lines: 1000, burst: 1s, over: wait}}}}]\n",
        config(&home, &engine, Reading::FILE)
    ))?;
    let script = "until [ -e /go ]; do sleep 0.05; done; a=1; while [ $a -le 12000 ]; do z=$((a+199)); \
        seq $a $z | sed 's/^/line of some length /'; a=$((z+1)); sleep 0.1; done";
    let id = engine.run(&spec("slow", &[("max-size", "64k"), ("max-file", "2")], script))?;
    wait_until("the stream", PATIENCE, || mode(&agent, "slow").is_ok_and(|mode| mode == "file"))?;

    let directory = engine.log_path(&id).parent().context("a log lies in a directory")?.to_owned();
    let over = AtomicBool::new(false);
    let (printed, largest) = std::thread::scope(|scope| -> Result<_> {
        let keeper = scope.spawn(|| keep_files(&directory, &over));
        let followed = follow_slowly(&engine, &home, &agent);
        over.store(true, Ordering::Relaxed);
        let printed = keeper.join().map_err(|_| anyhow::anyhow!("keeping the files panicked"))?;
        Ok((printed?, followed?))
    })?;
    ensure!(printed.len() == 12_000, "the test itself kept {} of 12000 lines", printed.len());

    let delivered: BTreeSet<u64> = numbers(&home, "slow")?.into_iter().collect();
    let missing = printed.iter().filter(|(number, _)| !delivered.contains(number));
    let missing_bytes: u64 = missing.map(|(_, bytes)| bytes).sum();
    let declared = agent.metric("lost_bytes_total{reason=\"deleted_open_limit\"}")?;
    let lines = 12_000 - delivered.len();
    println!(
        "{lines} lines of {missing_bytes} bytes are missing, {declared} declared; {largest} held open at most"
    );
    // How many files the follower misses depends on the machine; the sum over two shows that they are added up.
    ensure!(missing_bytes > 64 * 1024, "no two files were lost: the test is of no use");
    ensure!(declared == missing_bytes as f64, "{missing_bytes} bytes are missing; {}", losses(&agent)?);
    let others = losses(&agent)?.lines().filter(|line| !line.contains("deleted_open_limit")).count();
    ensure!(others == 0, "something else was declared as well: {}", losses(&agent)?);
    agent.stop()
}

/// Lets the container print, and waits for its last line; returns the most bytes that were held open meanwhile.
fn follow_slowly(engine: &Engine, home: &Home, agent: &Agent) -> Result<f64> {
    go_on(engine, "slow", "/go");
    let mut largest: f64 = 0.0;
    wait_until("the last line of slow", PATIENCE, || {
        largest = largest.max(agent.metric("deleted_open_bytes")?);
        let last = numbers(home, "slow")?.last().copied();
        ensure!(last == Some(12_000), "the last is {last:?}");
        Ok(())
    })?;
    // Seen from outside, between two of its steps: a file that was just removed may be counted for a moment.
    ensure!(largest <= 2.0 * HELD_OPEN_BYTES_MAX, "{largest} bytes in deleted files were held open");
    Ok(largest)
}

/// Opens every file of a log before it is removed; when told, reads them all: each line's number, and its bytes there.
fn keep_files(directory: &Path, over: &AtomicBool) -> Result<BTreeMap<u64, u64>> {
    let mut files: BTreeMap<u64, File> = BTreeMap::new();
    wait_until("the follower's end", PATIENCE, || {
        // Read first, so that the last check is made after the end.
        let is_last = over.load(Ordering::Relaxed);
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let is_log = path.file_name().is_some_and(|name| name.to_string_lossy().contains("-json.log"));
            // One that is renamed between the listing and the opening comes with the next listing.
            let Some(file) = is_log.then(|| File::open(&path).ok()).flatten() else { continue };
            files.entry(file.metadata()?.ino()).or_insert(file);
        }
        ensure!(is_last, "{} files so far", files.len());
        Ok(())
    })?;
    let mut lines = BTreeMap::new();
    for mut file in files.into_values() {
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        for line in text.split_inclusive('\n') {
            let record: serde_json::Value = serde_json::from_str(line)?;
            let number =
                record["log"].as_str().and_then(|log| log.trim_end().rsplit(' ').next()?.parse().ok());
            lines.insert(number.with_context(|| format!("no number: {line:?}"))?, line.len() as u64);
        }
    }
    Ok(lines)
}

/// From the files, over the API, and back, with restarts between: every line once.
fn read_from_changes(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let script = "a=1; while [ ! -e /end ]; do z=$((a+99)); \
        seq $a $z | sed 's/^/line of some length /'; a=$((z+1)); sleep 0.1; done; echo end $a > /last; cat /last";
    engine.run(&spec("both", &[], script))?;
    for from in ["file", "api", "file", "api", "api", "auto"] {
        let agent = home.start(&config(&home, &engine, Reading { from, ..Reading::API }))?;
        let goal = home.count_of("both") + 300;
        wait_until("more lines", PATIENCE, || home.count_of("both") >= goal)?;
        ensure!(mode(&agent, "both")? == if from == "api" { "api" } else { "file" });
        if from == "auto" {
            go_on(&engine, "both", "/end");
            engine.wait("both")?;
            let printed = engine.logs("both")?.stdout;
            let lines = printed.iter().filter(|byte| **byte == b'\n').count() as u64;
            all_of(&home, &agent, "both", lines)?;
        }
        agent.stop()?;
    }
    Ok(())
}

/// Lets a container continue. It may end before the command that told it so, which then fails: what counts is what is
/// waited for next.
fn go_on(engine: &Engine, name: &str, file: &str) {
    let _ = engine.docker(&["exec", name, "touch", file]);
}

/// A possible loss is a state too: health and `top` show it with source, reason and cure, but it raises no alarm.
#[test]
fn what_may_be_lost_is_a_note() -> Result<()> {
    let home = Home::new()?;
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    let agent = home.start(&home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*.log\"], format: raw}}]}}\n",
        input.display()
    )))?;
    let path = input.join("anew.log");
    let mut rounds = 0;
    wait_until("a possible loss", PATIENCE, || {
        rounds += 1;
        fs::write(&path, format!("a line that is read, and read whole, {rounds}\n"))?;
        wait_until("it to be read", PATIENCE, || {
            let lines = home.records()?.into_values().flatten().filter(|record| record.message.len() > 10);
            let (lines, lag) = (lines.count(), agent.metric("capture_lag_bytes")?);
            ensure!(lines >= rounds && lag == 0.0, "{lines} of {rounds} lines, {lag} bytes behind");
            Ok(())
        })?;
        fs::write(&path, format!("{rounds}\n"))?;
        wait_until("that to be read", PATIENCE, || {
            let lines = home.records()?.into_values().flatten().count();
            ensure!(lines >= 2 * rounds, "{lines}");
            Ok(())
        })?;
        ensure!(agent.metric("possible_losses_total{reason=\"file_truncated\"}")? > 0.0, "none yet");
        Ok(())
    })?;
    let words = ["may be lost for local_file", "anew.log", "file_truncated", "rotate by renaming"];
    let said = wait_until("health to have a note", PATIENCE, || {
        let health: serde_json::Value = serde_json::from_str(&agent.ask("/health")?.1)?;
        let losses = &health["components"]["losses"];
        ensure!(losses["ok"] == true && losses["note"] == true, "{losses}");
        let said = losses["message"].as_str().context("no message")?.to_owned();
        ensure!(words.iter().all(|word| said.contains(word)), "{said}");
        Ok(said)
    })?;
    let top = ["top", "--once", "--admin", agent.address()];
    let shown = std::process::Command::new(capturer_tests::agent::program()).args(top).output()?;
    // Wherever it was wrapped.
    let shown = String::from_utf8(shown.stdout)?.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(words.iter().all(|word| shown.contains(word)), "{said}: {shown}");
    let log = agent.log_text()?;
    let told = log.lines().find(|line| line.contains("may be lost for")).context("not in the log")?;
    ensure!(told.contains(" WARN ") && words.iter().all(|word| told.contains(word)), "{told}");
    agent.stop()
}

/// Compressed so that the agent can't read them, the lines are still there: the report of the loss must say where.
#[test]
fn a_loss_names_the_archive_that_may_hold_it() -> Result<()> {
    let home = Home::new()?;
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*.log\"], format: raw}}]}}\n",
        input.display()
    ));
    let path = input.join("packed.log");
    let lines = || -> Result<usize> { Ok(home.records()?.into_values().flatten().count()) };
    fs::write(&path, "read before the stop\n")?;
    let agent = home.start(&config)?;
    wait_until("the first line", PATIENCE, || {
        ensure!(lines()? == 1);
        Ok(())
    })?;
    agent.stop()?;
    // As logrotate without delaycompress does; the agent does not look into it, so any bytes will do.
    fs::write(input.join("packed.log.1.zst"), b"\x28\xb5\x2f\xfd")?;
    fs::remove_file(&path)?;
    fs::write(&path, "written after the rotation\n")?;
    let agent = home.start(&config)?;
    let words = ["may be lost for local_file", "packed.log.1.zst", "delaycompress"];
    wait_until("health to name the archive", PATIENCE, || {
        let health: serde_json::Value = serde_json::from_str(&agent.ask("/health")?.1)?;
        let losses = &health["components"]["losses"];
        let said = losses["message"].as_str().context("no message")?;
        ensure!(words.iter().all(|word| said.contains(word)), "{said}");
        ensure!(lines()? == 2);
        Ok(())
    })?;
    let log = agent.log_text()?;
    let told = log.lines().find(|line| line.contains("may be lost for")).context("not in the log")?;
    ensure!(words.iter().all(|word| told.contains(word)), "{told}");
    agent.stop()
}
