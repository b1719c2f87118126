//! Delivery to Loki, with a test Loki (tests/src/loki.rs) and real containers: every line arrives, in order, whatever
//! the network and Loki do; only bad lines become dead letters; and local files are written as if there were no Loki.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::loki::{Ledger, Mood, POISON, POISON_WORDS, TOKEN, TestLoki};
use capturer_tests::rand::Rand;
use capturer_tests::scene::assert_printed;
use capturer_tests::wait::{PATIENCE, pass, wait_until};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

/// A config with files and Loki; `loki` are more keys of the sink.
fn config(home: &Home, engine: &Engine, loki: &str, rest: &str) -> String {
    home.config(&format!(
        "  loki: {{{loki}}}\nshutdown_timeout: 10s\ncontainer_monitor: {{socket_path: \"unix://{}\", read_from: file}}\n{rest}",
        engine.socket().display()
    ))
}

/// Prints about 500 lines a second on each channel until told to stop; now and then a line that Loki will refuse.
fn steady(poison: bool) -> String {
    let bad = if poison { format!("[ $((a % 2000)) -eq 1 ] && echo {POISON} $a;") } else { String::new() };
    format!(
        "a=1; while [ ! -e /stop ]; do z=$((a+99)); seq $a $z | sed 's/^/out line /'; \
         seq $a $z | sed 's/^/err line /' >&2; {bad} a=$((z+1)); sleep 0.2; done"
    )
}

fn start_steady(engine: &Engine, count: usize, poison: bool) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("steady-{number}")).collect();
    names.iter().try_for_each(|name| engine.run(&RunSpec::sh(&steady(poison)).name(name)).map(drop))?;
    Ok(names)
}

fn stop_steady(engine: &Engine, names: &[String]) -> Result<()> {
    for name in names {
        engine.touch(name, "/stop")?;
    }
    names.iter().try_for_each(|name| engine.wait(name).map(drop))
}

/// Every line that `docker logs` prints is in Loki, once, in order for each channel, except lines that Loki refuses.
fn assert_all_in_loki(loki: &TestLoki, engine: &Engine, names: &[String]) -> Result<Ledger> {
    let mut expected = Vec::new();
    for name in names {
        let logs = engine.logs(name)?;
        for (stream, bytes) in [("stdout", logs.stdout), ("stderr", logs.stderr)] {
            let text = String::from_utf8(bytes)?;
            let good: Vec<String> =
                text.lines().filter(|line| !line.contains(POISON)).map(str::to_owned).collect();
            expected.push((name, stream, good));
        }
    }
    let count: usize = expected.iter().map(|(.., lines)| lines.len()).sum();
    // A time-out is not a failure yet: the comparison says which lines are missing.
    let _ = wait_until("all lines in Loki", PATIENCE, || {
        let got = loki.count();
        ensure!(got >= count, "{got} of {count}");
        Ok(())
    });
    let ledger = loki.ledger();
    for (name, stream, lines) in &expected {
        let got: Vec<&str> = ledger.of(name, stream).into_iter().map(|line| line.text.as_str()).collect();
        let same = got.iter().zip(lines).take_while(|(got, expected)| *got == *expected).count();
        ensure!(
            got.len() == lines.len() && same == got.len(),
            "{name} {stream}: {} lines in Loki, {} printed; the first {same} are equal, then {:?} instead of {:?}",
            got.len(),
            lines.len(),
            got.get(same),
            lines.get(same)
        );
    }
    ensure!(ledger.count() == count, "{} lines in Loki, {count} were printed", ledger.count());
    Ok(ledger)
}

/// The lines in the dead letters, as the command line shows them.
fn dead_letters(home: &Home) -> Result<Vec<Value>> {
    shown(home, &["dead-letters", "list", "--json"])?
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// The output of an agent's command with this home.
fn shown(home: &Home, command: &[&str]) -> Result<String> {
    let output =
        Command::new(program()).args(command).arg("-c").arg(home.path().join("config.yaml")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn metric_sum(agent: &Agent, name: &str) -> Result<f64> {
    let text = agent.get("/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with(&format!("log_capturer_{name}{{")));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Must-show 2 of "Deliver".
#[test]
fn a_minute_through_every_fault() -> Result<()> {
    let engine = Engine::start(EngineVersion::V28_5)?;
    let home = Home::new()?;
    let loki = TestLoki::start_guarded()?;
    let (ca, token) = (home.path().join("ca.pem"), home.path().join("token"));
    loki.write_ca(&ca)?;
    fs::write(&token, TOKEN)?;
    let sink = format!(
        "enabled: true, url: \"{}\", batch_timeout: 200ms, request_timeout: 60s, \
         backoff: {{min: 100ms, max: 1s}}, tls: {{ca_file: {}}}, auth: {{bearer_token_file: {}}}",
        loki.url(),
        ca.display(),
        token.display()
    );
    let agent = home.start(&config(&home, &engine, &sink, ""))?;
    let names = start_steady(&engine, 3, true)?;
    let seconds = Duration::from_secs;
    let held = |what: &str| {
        wait_until("the agent to say what holds it", PATIENCE, || {
            let (status, body) = agent.ask("/readyz")?;
            ensure!(status == 503 && body.contains(what), "{status} {body}");
            let metrics = agent.get("/metrics")?;
            ensure!(metrics.contains("component_health{component=\"sink_loki_delivery\"} 0"), "health is 1");
            Ok(())
        })
    };
    let started = Instant::now();
    for (mood, lasts) in [
        (Mood::Well, 4),
        (Mood::Away, 20),
        (Mood::Throttle(2), 4),
        (Mood::Slow(1500), 5),
        (Mood::HalfAnswers, 4),
        (Mood::Resets, 4),
        (Mood::SmallBodies(3_000), 6),
        (Mood::WrongCertificate, 4),
        (Mood::TokenExpired, 4),
        (Mood::Unavailable, 4),
        (Mood::Well, 1),
    ] {
        let began = Instant::now();
        loki.set(mood);
        if mood == Mood::TokenExpired {
            held("sinks.loki.auth")?;
        }
        pass(seconds(lasts).saturating_sub(began.elapsed()));
        // An outage passes by itself and must not cause a restart.
        if mood == Mood::Away {
            agent.get("/readyz")?;
        }
        println!(
            "{:>5.1} s  after {mood:?}: {} lines in Loki",
            started.elapsed().as_secs_f64(),
            loki.count()
        );
    }
    ensure!(started.elapsed() >= MINUTE, "{:?} of load", started.elapsed());
    stop_steady(&engine, &names)?;
    let ledger = assert_all_in_loki(&loki, &engine, &names)?;
    for name in &names {
        let logs = engine.logs(name)?;
        assert_printed(&home, name, &logs.stdout, &logs.stderr)?;
    }
    let mut printed_bad = BTreeSet::new();
    for name in &names {
        let text = String::from_utf8(engine.logs(name)?.stdout)?;
        printed_bad.extend(
            text.lines().filter(|line| line.contains(POISON)).map(|line| (name.clone(), line.to_owned())),
        );
    }
    let letters = dead_letters(&home)?;
    let mut buried = BTreeSet::new();
    for letter in &letters {
        let labels = letter["labels"].as_str().context("labels")?;
        let name = names
            .iter()
            .find(|name| labels.contains(&format!("container_name=\"{name}\"")))
            .context("name")?;
        buried.insert((name.clone(), letter["line"].as_str().context("line")?.to_owned()));
        assert_eq!((letter["reason"].as_str(), letter["status"].as_u64()), (Some("other"), Some(400)));
        assert_eq!(letter["answer"].as_str(), Some(POISON_WORDS));
    }
    assert_eq!(buried, printed_bad, "bad lines, and no others, are in the dead letters");
    assert_eq!(letters.len(), printed_bad.len(), "each once");
    assert_eq!(metric_sum(&agent, "dead_letters_total")? as usize, letters.len());
    assert_eq!(ledger.label_sets_max, 1, "of several label sets in a request Loki answers for the last");
    let (all, lost, refused) = ledger.repeats();
    println!(
        "{} lines stored, {} bad ones in the dead letters; {all} repeats: {lost} of lost answers, {refused} cut out of \
         refused requests; answers {:?}; {} connections",
        ledger.count(),
        letters.len(),
        ledger.answers,
        ledger.connections
    );
    assert_eq!(all, lost + refused, "a line came twice without a reason");
    agent.stop()
}

/// Must-show 3: an unreachable Loki must affect neither the files nor memory.
#[test]
fn loki_away_for_the_whole_run() -> Result<()> {
    const BYTES: u64 = 30_000_000;
    let engine = Engine::start(EngineVersion::V28_5)?;
    // Random, so that it does not compress.
    let noise = format!("head -c {BYTES} /dev/urandom | base64");
    engine.run(&RunSpec::sh(&noise).name("noise"))?;
    engine.wait("noise")?;
    let logs = engine.logs("noise")?;
    let lines = logs.stdout.iter().filter(|byte| **byte == b'\n').count();

    let mut took = Vec::new();
    for with_loki in [false, true] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        loki.set(Mood::Away);
        let sink = format!(
            "enabled: {with_loki}, url: \"{}\", backoff: {{min: 100ms, max: 1s}}, spool: {{max_size: 16MiB}}",
            loki.url()
        );
        let config = config(&home, &engine, &sink, "");
        let started = Instant::now();
        let agent = home.launch(&config)?;
        wait_until("all lines in the file", PATIENCE, || {
            let got = home.count_of("noise");
            ensure!(got == lines, "{got} of {lines}");
            Ok(())
        })?;
        took.push(started.elapsed());
        if !with_loki {
            agent.stop()?;
            continue;
        }
        wait_until("the spool to be full", PATIENCE, || {
            let (_, health) = agent.ask("/health")?;
            ensure!(health.contains("the spool is full (16.0 MiB) and waits for Loki"), "{health}");
            Ok(())
        })?;
        let spool = metric_sum(&agent, "spool_bytes")?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
        let rss_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
            .context("no VmHWM")?;
        assert!(spool <= 16.0 * 1024.0 * 1024.0, "{spool} bytes of spool");
        // 32 MiB for lines under way, 8 MiB of requests (two each of max_in_flight), and the program itself.
        assert!(rss_kib < 128 * 1024, "{rss_kib} KiB resident at most");
        // A restart in the middle of the outage changes nothing.
        agent.kill()?;
        let agent = home.launch(&config)?;
        assert_printed(&home, "noise", &logs.stdout, &logs.stderr)?;
        loki.set(Mood::Well);
        let back = Instant::now();
        let ledger = assert_all_in_loki(&loki, &engine, &["noise".to_owned()])?;
        println!(
            "{lines} lines, {} MB: the file took {:.1} s without Loki in the config, {:.1} s with one that is away; at \
             most {} MiB resident, {:.1} MiB of spool; Loki had all {:.1} s after it came back, {} repeats",
            logs.stdout.len() / 1_000_000,
            took[0].as_secs_f64(),
            took[1].as_secs_f64(),
            rss_kib / 1024,
            spool / 1024.0 / 1024.0,
            back.elapsed().as_secs_f64(),
            ledger.repeats().0
        );
        agent.stop()?;
    }
    // That the file had all lines while Loki was down shows that it does not wait; this shows that it is not slowed
    // down. Other programs may have started between the two.
    assert!(took[1] < took[0] * 10 + Duration::from_secs(30), "the file waited for Loki: {took:?}");
    Ok(())
}

/// Must-show 4: kill -9 at random moments. The file has every line once; Loki has every line, in order, and again only
/// what came since the positions were last saved.
#[test]
fn killed_twenty_times_with_both_sinks() -> Result<()> {
    let mut rand = Rand::from_env_or(4);
    let engine = Engine::start(EngineVersion::V28_5)?;
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let sink = format!("enabled: true, url: \"{}\", batch_timeout: 100ms", loki.url());
    let config = config(&home, &engine, &sink, "");
    let names = start_steady(&engine, 3, false)?;
    let logs: Vec<PathBuf> = names.iter().map(|name| log_of(&engine, name)).collect::<Result<_>>()?;
    for _ in 0..20 {
        let printed = logs.iter().map(|log| Ok(fs::metadata(log)?.len())).collect::<Result<Vec<u64>>>()?;
        let agent = home.launch(&config)?;
        wait_until_saved(&home, &logs, &printed)?;
        // A random moment, counted in output instead of time, so that it means the same on a busy machine.
        let goal = home.output_bytes() + rand.within(0..500_000);
        wait_until("some output", PATIENCE, || home.output_bytes() >= goal)?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    stop_steady(&engine, &names)?;
    let ledger = assert_all_in_loki(&loki, &engine, &names)?;
    for name in &names {
        let logs = engine.logs(name)?;
        assert_printed(&home, name, &logs.stdout, &logs.stderr)?;
    }
    let (repeats, ..) = ledger.repeats();
    let most = ledger.lines.values().flatten().map(|line| line.arrivals).max().unwrap_or(0);
    println!("{} lines, 20 kills, {repeats} repeats in Loki, no line more than {most} times", ledger.count());
    // For the one kill after which a line was not saved: it is read again, and is still in the spool.
    ensure!(most <= 3, "a line came {most} times");
    // A checkpoint is at most a second old, and so is the spool's cursor; lines sent since may be sent again.
    ensure!(repeats as usize <= ledger.count(), "{repeats} repeats of {} lines", ledger.count());
    agent.stop()
}

fn log_of(engine: &Engine, name: &str) -> Result<PathBuf> {
    let id = engine.inspect(name)?["Id"].as_str().context("no id")?.to_owned();
    Ok(engine.log_path(&id))
}

/// Waits until a crash would repeat nothing of the logs up to these lengths: until the positions behind it are saved, and
/// the spool is known to be delivered up to where it ended then.
fn wait_until_saved(home: &Home, logs: &[PathBuf], lengths: &[u64]) -> Result<()> {
    wait_until("positions to be saved", PATIENCE, || {
        let positions: Value = serde_json::from_str(&shown(home, &["positions", "--json"])?)?;
        for (log, length) in logs.iter().zip(lengths) {
            let id = log.parent().and_then(Path::file_name).context("no id")?.display();
            for sink in ["local_file", "loki"] {
                let at = &positions["streams"][format!("container:{id}")][sink]["cursor"]["offset"];
                ensure!(at.as_u64() >= Some(*length), "{sink}: {at} of {length} bytes of {id}");
            }
        }
        Ok(())
    })?;
    let spool = home.path().join("data/spool/loki");
    let mut end = (0, 0);
    for entry in fs::read_dir(&spool)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_string_lossy().strip_suffix(".seg") {
            end = end.max((number.parse()?, entry.metadata()?.len()));
        }
    }
    wait_until("the spool's cursor to be saved", PATIENCE, || {
        let text = fs::read_to_string(spool.join("cursor"))?;
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().context("no number")?.context("no number");
        let cursor = (next()?, next()?);
        ensure!(cursor >= end, "{cursor:?} of {end:?}");
        Ok(())
    })
}

/// Must-show 5: whatever happened to spool and checkpoint, a start succeeds, reports unreadable parts, and continues.
#[test]
fn damaged_spool_and_checkpoint() -> Result<()> {
    let mut rand = Rand::from_env_or(5);
    let engine = Engine::start(EngineVersion::V28_5)?;
    for damage in ["torn", "flipped", "zeroed", "cursor", "checkpoint"] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        loki.set(Mood::Away);
        let sink = format!("enabled: true, url: \"{}\", backoff: {{min: 100ms, max: 500ms}}", loki.url());
        let config = config(&home, &engine, &sink, "");
        let name = format!("before-{damage}");
        engine.run(&RunSpec::sh("seq 1 20000").name(&name))?;
        engine.wait(&name)?;
        let agent = home.launch(&config)?;
        let segment = home.path().join("data/spool/loki/0000000001.seg");
        wait_until("lines in the spool", PATIENCE, || {
            let spooled = metric_sum(&agent, "logs_sent_total")?;
            ensure!(home.count_of(&name) == 20_000 && spooled >= 40_000.0, "{spooled}");
            // Lines are written to the spool a moment after they are counted.
            ensure!(fs::metadata(&segment)?.len() > 0, "the segment is empty");
            Ok(())
        })?;
        agent.kill()?;
        let mut bytes = fs::read(&segment)?;
        let at = rand.index(0..bytes.len());
        match damage {
            "torn" => bytes.truncate(at),
            "flipped" => bytes[at] ^= 0x10,
            "zeroed" => bytes[at..].fill(0),
            "cursor" => fs::write(home.path().join("data/spool/loki/cursor"), "nonsense")?,
            _ => fs::write(home.path().join("data/checkpoint.json"), vec![0; 300])?,
        }
        fs::write(&segment, &bytes)?;
        loki.set(Mood::Well);
        let agent = home.start(&config)?;
        let said = wait_until("the agent to say what was unreadable", PATIENCE, || {
            let log = agent.log_text()?;
            let word = match damage {
                "cursor" => "its cursor was unreadable",
                "checkpoint" => "checkpoint: ",
                _ => "a part of the spool is unreadable",
            };
            let line = log.lines().rev().find(|line| line.contains(word));
            line.map(str::to_owned).with_context(|| format!("{word:?} in:\n{log}"))
        })?;
        let after = format!("after-{damage}");
        engine.run(&RunSpec::sh("echo still here").name(&after))?;
        wait_until("a new line in Loki", PATIENCE, || loki.ledger().of(&after, "stdout").len() == 1)?;
        assert_printed(&home, &name, &engine.logs(&name)?.stdout, b"")?;
        let kept = loki.ledger().of(&name, "stdout").len();
        println!("{damage}: {kept} of 20000 lines came through; {said}");
        ensure!(kept == 20_000 || !matches!(damage, "cursor" | "checkpoint"), "{damage}: {kept}");
        agent.stop()?;
    }
    Ok(())
}

/// The other body format, a tenant from a label, and `check --online`, dead letters sent again and thrown away.
#[test]
fn json_tenants_and_commands() -> Result<()> {
    let engine = Engine::start(EngineVersion::V28_5)?;
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let sink = format!(
        "enabled: true, url: \"{}\", format: json, batch_timeout: 100ms, tenant_id: \"{{label:team}}\"",
        loki.url()
    );
    let config = config(&home, &engine, &sink, "")
        .replace("read_from: file", "read_from: file, record_labels: [team]");
    let script = format!("echo good 1; echo {POISON} 2; echo '\u{fc}\"\\ 3'");
    engine.run(&RunSpec::sh(&script).name("red-1").label("team", "red"))?;
    engine.run(&RunSpec::sh("echo other").name("plain-1"))?;
    let agent = home.start(&config)?;
    let names = ["red-1".to_owned(), "plain-1".to_owned()];
    let ledger = assert_all_in_loki(&loki, &engine, &names)?;
    assert!(ledger.tenants.contains("red"), "{:?}", ledger.tenants);
    wait_until("a dead letter", PATIENCE, || dead_letters(&home).is_ok_and(|letters| letters.len() == 1))?;
    assert_eq!(dead_letters(&home)?[0]["tenant"], "red");

    let file = home.path().join("config.yaml");
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(program()).args(arguments).arg("-c").arg(&file).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    };
    let (code, text) = run(&["check", "--online"])?;
    assert!(code == Some(0) && text.matches("  ok ").count() == 5, "{code:?} {text}");
    let (code, text) = run(&["dead-letters", "replay"])?;
    assert!(code == Some(69) && text.contains("0 delivered, 1 refused again, 1 kept"), "{code:?} {text}");
    assert!(text.contains("still refuses 1 line"), "{text}");
    loki.set(Mood::Unavailable);
    let (code, text) = run(&["dead-letters", "replay"])?;
    assert!(code == Some(69) && text.contains("0 delivered, 0 refused again, 1 kept"), "{code:?} {text}");
    let (code, text) = run(&["check", "--online"])?;
    assert!(code == Some(69) && text.contains("FAILED loki"), "{code:?} {text}");
    let (_, text) = run(&["dead-letters", "list"])?;
    assert!(text.contains("1 refused by loki: other"), "{text}");
    let (code, text) = run(&["dead-letters", "purge"])?;
    assert!(code == Some(0) && text.contains("1 thrown away"), "{code:?} {text}");
    assert!(dead_letters(&home)?.is_empty());
    agent.stop()
}
