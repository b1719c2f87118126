//! Label sets and tenants that Loki refuses, limits or finds too old, addresses that are not Loki's, and a Loki that
//! hangs: others are not affected, and the agent says what is wrong. Files only, no Engine.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use capturer::testing::timestamp;
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::disk::Disk;
use capturer_tests::loki::{Limits, Mood, POISON, TestLoki};
use capturer_tests::rand::Rand;
use capturer_tests::wait::{pass, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

/// A config with Loki alone, and sets of files; `keys` are more keys of the sink.
fn config(home: &Home, loki: &TestLoki, keys: &str, sets: &str) -> String {
    home.config_with_output(
        "enabled: false",
        &format!(
            "  loki: {{enabled: true, url: \"{}\", batch_timeout: 200ms, backoff: {{min: 100ms, max: 1s}}{keys}}}\n\
             container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{sets}]}}\n",
            loki.url()
        ),
    )
}

fn sets(home: &Home) -> String {
    let dir = home.path().display();
    format!("{{paths: [\"{dir}/in/*.log\"]}}, {{paths: [\"{dir}/in/*.json\"], format: docker}}")
}

fn append(home: &Home, name: &str, lines: &str) -> Result<()> {
    let dir = home.path().join("in");
    fs::create_dir_all(&dir)?;
    Ok(File::options().create(true).append(true).open(dir.join(name))?.write_all(lines.as_bytes())?)
}

/// This many lines of some 200 bytes, which the spool can't compress much.
fn incompressible(rand: &mut Rand, lines: usize) -> String {
    let mut line = |text: String| (0..12).fold(text, |text, _| format!("{text} {:016x}", rand.number()));
    (0..lines).map(|number| line(number.to_string()) + "\n").collect()
}

/// A json-file record so many seconds ago.
fn record(age_secs: i64, text: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let time = timestamp::format((now - age_secs) * 1_000_000_000);
    Ok(format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n"))
}

fn delivery(agent: &Agent) -> Result<(bool, String)> {
    let (_, body) = agent.ask("/health")?;
    let health: Value = serde_json::from_str(&body)?;
    let component = &health["components"]["sink_loki_delivery"];
    let message = component["message"].as_str().with_context(|| body.clone())?;
    Ok((component["ok"].as_bool().context("ok")?, message.to_owned()))
}

/// Waits until health says all of this, and is unhealthy.
fn wait_for_words(agent: &Agent, words: &[&str]) -> Result<String> {
    wait_until("health to say it", MINUTE, || {
        let (ok, message) = delivery(agent)?;
        ensure!(!ok && words.iter().all(|word| message.contains(word)), "{words:?} in {ok} {message}");
        Ok(message)
    })
}

fn letters(home: &Home) -> Result<Vec<Value>> {
    let config = home.path().join("config.yaml");
    let output =
        Command::new(program()).args(["dead-letters", "list", "--json", "-c"]).arg(config).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn metric_sum(agent: &Agent, name: &str) -> Result<f64> {
    let text = agent.get("/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with(&format!("log_capturer_{name}{{")));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// A thousand label sets: one over its rate limit, one with lines that are too old, one whose lines are refused for an
/// unknown reason. The others are as late as without them.
#[test]
fn a_thousand_label_sets_and_three_bad_ones() -> Result<()> {
    const GOOD: usize = 1_000;
    const ROUNDS: usize = 6;
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    loki.limit(Limits { stream_rate: Some(("noisy.log".to_owned(), 2_000)), ..Limits::default() });
    for number in 0..GOOD {
        append(&home, &format!("{number}.log"), "first\n")?;
    }
    for bad in ["noisy.log", "refused.log", "old.json"] {
        append(&home, bad, "")?;
    }
    let agent = home.start(&config(&home, &loki, "", &sets(&home)))?;
    wait_until("the first lines", 2 * MINUTE, || {
        let count = loki.count();
        ensure!(count == GOOD, "{count}");
        Ok(())
    })?;
    let mut lags = [Vec::new(), Vec::new()];
    for (with_bad, lags) in lags.iter_mut().enumerate() {
        for round in 0..ROUNDS {
            if with_bad == 1 {
                append(&home, "noisy.log", &format!("{}\n", "noise ".repeat(15)).repeat(2_000))?;
                append(&home, "refused.log", &format!("{POISON} {round}\n").repeat(50))?;
                let old: String =
                    (0..500).map(|age| record(20 * 86_400 + age, "old")).collect::<Result<_>>()?;
                append(&home, "old.json", &old)?;
            }
            let text = format!("{with_bad} {round}");
            let began = Instant::now();
            for number in 0..GOOD {
                append(&home, &format!("{number}.log"), &format!("{text}\n"))?;
            }
            wait_until("a line of each good one", MINUTE, || {
                let ledger = loki.ledger();
                let count = ledger.lines.values().flatten().filter(|line| line.text == text).count();
                ensure!(count == GOOD, "{count}");
                Ok(())
            })?;
            lags.push(began.elapsed());
        }
        lags.sort();
    }
    let median = lags.each_ref().map(|lags| lags[ROUNDS / 2]);
    println!("until a line of each of {GOOD} label sets had arrived: {lags:?}");
    // Less than a tenth; and half a second for other work of the machine.
    ensure!(median[1] < median[0].mul_f64(1.1) + Duration::from_millis(500), "{median:?}");
    wait_for_words(&agent, &["noisy.log", "rate limit", "refused as too_old", "other label sets go on"])?;
    wait_until("what is refused in the dead letters", MINUTE, || {
        let letters = letters(&home)?;
        let of = |reason: &str| letters.iter().filter(|letter| letter["reason"] == reason).count();
        ensure!((of("too_old"), of("other")) == (500 * ROUNDS, 50 * ROUNDS), "{letters:?}");
        Ok(())
    })?;
    let ledger = loki.ledger();
    ensure!(ledger.label_sets_max == 1, "{} label sets in a request", ledger.label_sets_max);
    ensure!(!ledger.with("noisy.log").is_empty(), "what is within the limit goes through");
    agent.stop()
}

/// The first day on a host: two weeks of old lines. Live lines of others do not wait for them, and most of them are never sent.
#[test]
fn two_weeks_of_old_lines() -> Result<()> {
    const OLD: usize = 40_000;
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let span = 14 * 86_400;
    let text: String = (0..OLD)
        .map(|number| record(span - (number * span as usize / OLD) as i64, &format!("old {number}")))
        .collect::<Result<_>>()?;
    append(&home, "old.json", &text)?;
    append(&home, "live.log", "live 0\n")?;
    let agent = home.start(&config(&home, &loki, ", batch_lines: 1000", &sets(&home)))?;
    for number in 0..5 {
        let text = format!("live {number}");
        if number > 0 {
            append(&home, "live.log", &format!("{text}\n"))?;
        }
        wait_until("a live line", Duration::from_secs(20), || {
            ensure!(loki.ledger().with("live.log").iter().any(|line| line.text == text), "{text}");
            Ok(())
        })?;
    }
    wait_for_words(&agent, &["old.json", "refused as too_old", "reject_old_samples_max_age"])?;
    wait_until("every line to be in Loki or in the dead letters", 2 * MINUTE, || {
        let (stored, buried) = (loki.ledger().with("old.json").len(), letters(&home)?.len());
        ensure!(
            stored + buried == OLD && stored.abs_diff(OLD / 2) < 100,
            "{stored} stored, {buried} dead letters"
        );
        Ok(())
    })?;
    let (_, _, sent_again) = loki.ledger().repeats();
    let requests = loki.ledger().answers;
    println!("{OLD} lines of 14 days: answers {requests:?}, {sent_again} lines sent again");
    ensure!(requests.get(&400).copied().unwrap_or(0) < 20 && sent_again < 100, "{requests:?}");
    agent.stop()
}

/// Tenants by a label: the trial push does not need a tenant that nobody has, a refused tenant affects only itself, a
/// name that Loki does not accept is not silently changed to another, and lines without a tenant are reported.
#[test]
fn tenants_by_label() -> Result<()> {
    for default in ["", "others"] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        let tenants = ["red", "a_2Fb_20_C3_BC", "others"].map(str::to_owned).into();
        loki.limit(Limits { wants_tenant: true, tenants, ..Limits::default() });
        let dir = home.path().display().to_string();
        let mut all = vec![format!("{{paths: [\"{dir}/in/none.log\"]}}")];
        for (team, name) in [("red", "red"), ("banned", "banned"), ("a/b \u{fc}", "odd")] {
            all.push(format!("{{paths: [\"{dir}/in/{name}.log\"], labels: {{team: \"{team}\"}}}}"));
        }
        for name in ["none", "red", "banned", "odd"] {
            append(&home, &format!("{name}.log"), &format!("hello of {name}\n"))?;
        }
        let keys = format!(", tenant_id: \"{{label:team}}\", tenant_default: \"{default}\"");
        let agent = home.start(&config(&home, &loki, &keys, &all.join(", ")))?;
        let expected: &[&str] = if default.is_empty() { &["odd", "red"] } else { &["none", "odd", "red"] };
        wait_until("lines of good tenants", MINUTE, || {
            let ledger = loki.ledger();
            let got: Vec<&str> = ["none", "odd", "red"]
                .into_iter()
                .filter(|name| !ledger.with(&format!("/{name}.log")).is_empty())
                .collect();
            ensure!(got == expected, "{got:?} of {:?}", ledger.tenants);
            Ok(())
        })?;
        let mut words = vec!["tenant banned", "status 403"];
        if default.is_empty() {
            words.extend(["lines without a tenant", "tenant_default"]);
        }
        let message = wait_for_words(&agent, &words)?;
        ensure!(agent.ask("/readyz")?.0 == 200, "one tenant is no reason to be unready: {message}");
        let log = agent.log_text()?;
        ensure!(log.contains("Loki does not accept the tenant") && log.contains("a_2Fb_20_C3_BC"), "{log}");
        ensure!(log.contains("its lines have no tenant"), "{log}");
        agent.stop()?;
    }
    Ok(())
}

/// A server that answers is not always Loki: nothing is delivered to a proxy, and no line becomes a dead letter because
/// of it.
#[test]
fn answers_that_are_not_lokis() -> Result<()> {
    for (mood, first_well, words) in [
        (Mood::NotLoki, false, "HTTPS server"),
        (Mood::NotLoki, true, "HTTPS server"),
        (Mood::LoginPage, false, "Sign in"),
        (Mood::LoginPage, true, "Sign in"),
        (Mood::CutPage, false, "the connection broke"),
        (Mood::CutPage, true, "the connection broke"),
        (Mood::Blocked, true, "ingestion blocked"),
    ] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        append(&home, "a.log", "first\n")?;
        append(&home, "b.log", "first\n")?;
        let config = config(&home, &loki, "", &sets(&home));
        let agent = if first_well {
            let agent = home.start(&config)?;
            wait_until("the first lines", MINUTE, || ensure_count(&loki, 2))?;
            loki.set(mood);
            agent
        } else {
            loki.set(mood);
            home.launch(&config)?
        };
        let lines: String = (0..300).map(|number| format!("line {number}\n")).collect();
        append(&home, "a.log", &lines)?;
        append(&home, "b.log", &lines)?;
        let message = wait_for_words(&agent, &[words])?;
        // A broken connection is an outage, which nobody has to mend here.
        let is_outage = mood == Mood::CutPage && first_well;
        wait_until("the agent not to be ready", MINUTE, || {
            let (status, body) = agent.ask("/readyz")?;
            ensure!(is_outage || status == 503, "{status} {body}; {message}");
            Ok(())
        })?;
        pass(Duration::from_secs(3));
        ensure!(metric_sum(&agent, "dead_letters_total")? == 0.0, "{mood:?}: dead letters");
        ensure!(metric_sum(&agent, "pushed_lines_total")? == if first_well { 2.0 } else { 0.0 }, "{mood:?}");
        loki.set(Mood::Well);
        wait_until("all lines", MINUTE, || ensure_count(&loki, 602))?;
        agent.stop()?;
    }
    Ok(())
}

fn ensure_count(loki: &TestLoki, expected: usize) -> Result<()> {
    let count = loki.count();
    ensure!(count == expected, "{count} of {expected}");
    Ok(())
}

/// A stop while Loki hangs: the lines in the spool are safe, so there is nothing to wait for.
#[test]
fn a_hanging_loki_holds_up_no_stop() -> Result<()> {
    for from_the_start in [true, false] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        append(&home, "a.log", "first\n")?;
        let config = config(&home, &loki, "", &sets(&home));
        let mut agent = if from_the_start {
            loki.set(Mood::Hangs);
            home.launch(&config)?
        } else {
            let agent = home.start(&config)?;
            wait_until("the first line", MINUTE, || ensure_count(&loki, 1))?;
            loki.set(Mood::Hangs);
            append(&home, "a.log", "second\n")?;
            agent
        };
        let lines = if from_the_start { 1.0 } else { 2.0 };
        wait_until("the lines to be in the spool", MINUTE, || {
            let spooled = metric_sum(&agent, "logs_sent_total")?;
            ensure!(spooled == lines, "{spooled}");
            Ok(())
        })?;
        let began = Instant::now();
        agent.signal(Signal::TERM);
        let status = agent.ended()?;
        println!("ended with {status} after {:?}", began.elapsed());
        ensure!(status.code() == Some(0), "{status}");
        ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        loki.set(Mood::Well);
        let agent = home.start(&config)?;
        wait_until("all lines", MINUTE, || ensure_count(&loki, lines as usize))?;
        agent.stop()?;
    }
    Ok(())
}

/// A removed file of the spool is reported and counted.
#[test]
fn a_spool_file_that_is_gone() -> Result<()> {
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    loki.set(Mood::Away);
    append(&home, "a.log", &"some line\n".repeat(1_000))?;
    let config = config(&home, &loki, "", &sets(&home));
    let agent = home.launch(&config)?;
    let spool = home.path().join("data/spool/loki");
    wait_until("the spool's list to know the file", MINUTE, || {
        let cursor = fs::read_to_string(spool.join("cursor"))?;
        ensure!(metric_sum(&agent, "logs_sent_total")? == 1_000.0 && cursor.contains("open 1:"), "{cursor}");
        Ok(())
    })?;
    agent.stop()?;
    fs::remove_file(spool.join("0000000001.seg"))?;
    loki.set(Mood::Well);
    let agent = home.start(&config)?;
    wait_until("the loss to be told", MINUTE, || {
        let log = agent.log_text()?;
        ensure!(log.contains("a file of the spool, or its end, is gone"), "{log}");
        ensure!(agent.metric("lost_bytes_total{reason=\"spool_damaged\"}")? > 0.0, "no bytes");
        Ok(())
    })?;
    append(&home, "a.log", "after\n")?;
    wait_until("the next line", MINUTE, || ensure_count(&loki, 1))?;
    agent.stop()
}

/// Somebody removes the spool, or all of data_dir, while Loki is down. Files that the running agent has open are on
/// disk again before it acknowledges more; those removed while it was down may be lost, which is reported.
#[test]
fn a_spool_that_is_removed() -> Result<()> {
    for (what, live, kill) in [
        ("data", true, false),
        ("data", true, true),
        ("data/spool", true, true),
        ("data/spool", false, false),
    ] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        loki.set(Mood::Away);
        append(&home, "a.log", "first\n")?;
        let config = config(&home, &loki, "", &sets(&home));
        let agent = home.launch(&config)?;
        let spooled = |agent: &Agent, lines: f64| {
            wait_until("the lines to be in the spool", MINUTE, || {
                let spooled = metric_sum(agent, "logs_sent_total")?;
                ensure!(spooled == lines, "{what}: {spooled}");
                Ok(())
            })
        };
        spooled(&agent, 1.0)?;
        let more = (0..50).map(|number| format!("line {number}\n")).collect::<String>();
        if live {
            fs::remove_dir_all(home.path().join(what))?;
            append(&home, "a.log", &more)?;
            spooled(&agent, 51.0)?;
            wait_for_words(
                &agent,
                &["somebody removed the spool", "nothing is lost", "leave data_dir alone"],
            )?;
            if what == "data" {
                wait_until("the checkpoint's health to say it", MINUTE, || {
                    let (ok, said) = agent.health_of("checkpoint")?;
                    ensure!(!ok && said.contains("somebody removed"), "{ok} {said}");
                    Ok(())
                })?;
            }
        }
        // A kill before that would repeat them, which is allowed.
        wait_until("the checkpoint of all lines", MINUTE, || {
            let offset = format!("\"offset\":{}", fs::metadata(home.path().join("in/a.log"))?.len());
            let text = fs::read_to_string(home.path().join("data/checkpoint.json"))?;
            ensure!(text.contains(&offset), "no {offset} in {text}");
            Ok(())
        })?;
        if kill {
            agent.kill()?
        } else {
            agent.stop()?
        }
        if !live {
            fs::remove_dir_all(home.path().join(what))?;
        }
        loki.set(Mood::Well);
        let agent = home.start(&config)?;
        if live {
            wait_until("all lines", MINUTE, || ensure_count(&loki, 51))?;
            let lost = metric_sum(&agent, "losses_total")? + metric_sum(&agent, "possible_losses_total")?;
            ensure!(lost == 0.0, "{what}: {lost} losses");
        } else {
            wait_until("the possible loss to be told", MINUTE, || {
                ensure!(
                    agent.metric("possible_losses_total{reason=\"spool_damaged\"}")? == 1.0,
                    "not counted"
                );
                let (_, said) = agent.health_of("losses")?;
                ensure!(said.contains("undelivered lines in the spool"), "{said}");
                Ok(())
            })?;
        }
        agent.stop()?;
    }
    Ok(())
}

/// The disk of data_dir fills while Loki is down. When Loki is back everything is delivered, once and without a
/// restart.
#[test]
fn a_spool_that_fills_its_disk() -> Result<()> {
    const LINES: usize = 10_000;
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    loki.set(Mood::Away);
    let _disk = Disk::mount(&home.path().join("data"), 1_024)?;
    append(&home, "a.log", &incompressible(&mut Rand::from_env_or(11), LINES))?;
    // A record must fit: it is at most as long as a request.
    let config = config(&home, &loki, ", batch_size: 64KiB", &sets(&home));
    let agent = home.launch(&config)?;
    wait_until("health to say what the disk is full of", MINUTE, || {
        let (ok, said) = agent.health_of("sink_loki")?;
        let words = ["the disk of data_dir is full", "wait for Loki", "free room there, repair Loki"];
        ensure!(!ok && words.iter().all(|word| said.contains(word)), "{ok} {said}");
        Ok(())
    })?;
    // The spool leaves room for checkpoints.
    ensure!(agent.health_of("checkpoint")?.0, "{:?}", agent.health_of("checkpoint")?);
    loki.set(Mood::Well);
    wait_until("all lines", MINUTE, || ensure_count(&loki, LINES))?;
    ensure!(loki.ledger().repeats() == (0, 0, 0), "{:?}", loki.ledger().repeats());
    agent.assert_nothing_lost()?;
    wait_until("health to be well", MINUTE, || agent.get("/health"))?;
    agent.stop()
}

/// Something else has filled the disk of data_dir before: the spool can't start, and Loki accepting lines would not
/// help.
#[test]
fn a_disk_that_has_no_room_for_a_request() -> Result<()> {
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let data = home.path().join("data");
    let _disk = Disk::mount(&data, 1_024)?;
    let ballast = data.join("ballast");
    fs::write(&ballast, vec![1; 800 << 10])?;
    append(&home, "a.log", &incompressible(&mut Rand::from_env_or(12), 2_000))?;
    let agent = home.launch(&config(&home, &loki, ", batch_size: 256KiB", &sets(&home)))?;
    wait_until("health to say that the disk must be freed", MINUTE, || {
        let (ok, said) = agent.health_of("sink_loki")?;
        let words =
            ["the disk of data_dir is full", "the spool has nothing on it", "free enough space there"];
        ensure!(!ok && words.iter().all(|word| said.contains(word)), "{ok} {said}");
        Ok(())
    })?;
    ensure!(loki.count() == 0, "some of it was delivered: the test is of no use");
    fs::remove_file(ballast)?;
    wait_until("all lines", MINUTE, || ensure_count(&loki, 2_000))?;
    agent.assert_nothing_lost()?;
    wait_until("health to be well", MINUTE, || agent.get("/health"))?;
    agent.stop()
}

/// A password in the address is refused with a cure, and shown nowhere.
#[test]
fn a_password_in_the_address() -> Result<()> {
    for url in [
        "http://me:hunter2@127.0.0.1:3100",
        "http://me:hunter2@[::1",
        "me:hunter2@host/x",
        "https://me:hunt er2@h",
    ] {
        let home = Home::new()?;
        let text = home.config(&format!("  loki: {{enabled: true, url: \"{url}\"}}\n"));
        fs::write(home.path().join("config.yaml"), text)?;
        for command in ["check", "run"] {
            let output = Command::new(program())
                .args([command, "-c"])
                .arg(home.path().join("config.yaml"))
                .output()?;
            let text = String::from_utf8([output.stdout, output.stderr].concat())?;
            ensure!(output.status.code() == Some(78) && text.contains("sinks.loki.url"), "{text}");
            ensure!(!text.contains("hunt"), "{text}");
        }
        let output =
            Command::new(program()).args(["check", "--set", &format!("sinks.loki.url={url}")]).output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.code() != Some(0) && !text.contains("hunt"), "{text}");
    }
    Ok(())
}

/// Loki never accepts one of three label sets. It fills its share of a spool that is small compared with its lines, and
/// the others continue in the rest. With `wait` nothing of anybody is lost; with `drop_oldest` the dropped lines are
/// reported as that label set's.
#[test]
fn a_label_set_that_never_gets_through_leaves_the_spool_to_others() -> Result<()> {
    const NOISE: usize = 40_000;
    for when_full in ["wait", "drop_oldest"] {
        let home = Home::new()?;
        let loki = TestLoki::start()?;
        loki.limit(Limits { stream_rate: Some(("noisy.log".to_owned(), 1)), ..Limits::default() });
        let keys =
            format!(", batch_size: 64KiB, spool: {{max_size: 4MiB, fsync: never, when_full: {when_full}}}");
        for name in ["noisy.log", "a.log", "b.log"] {
            append(&home, name, "")?;
        }
        let agent = home.start(&config(&home, &loki, &keys, &sets(&home)))?;
        // Random, so that it does not compress.
        let mut rand = Rand::from_env_or(7);
        let mut line = |text: String| (0..8).fold(text, |text, _| format!("{text} {:016x}", rand.number()));
        let noise: Vec<String> = (0..NOISE).map(|number| line(number.to_string())).collect();
        append(&home, "noisy.log", &format!("{}\n", noise.join("\n")))?;
        if when_full == "wait" {
            wait_until("health to say whose share is full", MINUTE, || {
                let (ok, said) = agent.health_of("sink_loki")?;
                let words = ["share of the spool is full", "noisy.log", "sinks.loki.spool.max_size"];
                ensure!(!ok && words.iter().all(|word| said.contains(word)), "{ok} {said}");
                Ok(())
            })?;
        } else {
            wait_until("what is given up to be said", MINUTE, || {
                let lost = agent.metric("lost_bytes_total{reason=\"spool_full\"}")?;
                let (ok, said) = delivery(&agent)?;
                let words = ["noisy.log", "were over their share of the spool", "sinks.loki.spool.max_size"];
                ensure!(lost > 0.0 && !ok && words.iter().all(|word| said.contains(word)), "{lost} {said}");
                Ok(())
            })?;
        }
        // More than the whole spool of the others' lines.
        let mut expected = Vec::new();
        for round in 0..10 {
            let lines: Vec<String> = (0..1_500).map(|number| line(format!("{round} {number}"))).collect();
            for name in ["a.log", "b.log"] {
                append(&home, name, &format!("{}\n", lines.join("\n")))?;
            }
            expected.extend(lines);
            for name in ["a.log", "b.log"] {
                wait_until("the others' lines", MINUTE, || {
                    let got: Vec<String> =
                        loki.ledger().with(name).iter().map(|line| line.text.clone()).collect();
                    ensure!(got == expected, "{when_full}, {name}: {} of {}", got.len(), expected.len());
                    Ok(())
                })?;
            }
        }
        loki.limit(Limits::default());
        let got = wait_until("the last line of what was held back", 2 * MINUTE, || {
            let got: Vec<String> =
                loki.ledger().with("noisy.log").iter().map(|line| line.text.clone()).collect();
            ensure!(got.last() == noise.last(), "{} of {NOISE}", got.len());
            Ok(got)
        })?;
        if when_full == "wait" {
            ensure!(got == noise, "{} of {NOISE}", got.len());
            agent.assert_nothing_lost()?;
            wait_until("health to be well again", MINUTE, || {
                let (ok, said) = agent.health_of("sink_loki")?;
                ensure!(ok, "{said}");
                Ok(())
            })?;
        } else {
            ensure!(got.len() < NOISE, "something was given up");
        }
        agent.stop()?;
    }
    Ok(())
}

/// The cures that health names also work for waiting lines: lines in the spool are sent without metadata once
/// `structured_metadata` is `{}`, and to a tenant once there is one.
#[test]
fn a_cure_counts_for_the_spool() -> Result<()> {
    let with = ", structured_metadata: {q: \"1\"}";
    for (before, after, limits, words) in [
        (
            with,
            ", structured_metadata: {}",
            Limits { metadata_allowed: false, ..Limits::default() },
            "structured_metadata to {}",
        ),
        (
            "",
            ", tenant_id: red",
            Limits { wants_tenant: true, ..Limits::default() },
            "set sinks.loki.tenant_id",
        ),
        (
            ", tenant_id: \"{label:team}\"",
            ", tenant_id: \"{label:team}\", tenant_default: red",
            Limits { wants_tenant: true, ..Limits::default() },
            "tenant_default",
        ),
    ] {
        for restart in [false, true] {
            let home = Home::new()?;
            let loki = TestLoki::start()?;
            append(&home, "a.log", "")?;
            // A Loki that was well, so that the agent is ready.
            let sets = format!(
                "{}, {{paths: [\"{}/no.x\"], labels: {{team: x}}, may_be_empty: true}}",
                sets(&home),
                home.path().display()
            );
            let mut agent = home.start(&config(&home, &loki, before, &sets))?;
            loki.limit(limits.clone());
            append(&home, "a.log", "one\ntwo\n")?;
            wait_for_words(&agent, &[words])?;
            if restart {
                agent.stop()?;
                agent = home.start(&config(&home, &loki, after, &sets))?;
            } else {
                home.write_config(&config(&home, &loki, after, &sets))?;
                let (status, said) = agent.post("/-/reload")?;
                ensure!(status == 200, "{said}");
            }
            append(&home, "a.log", "three\n")?;
            wait_until("all lines", MINUTE, || ensure_count(&loki, 3))?;
            let ledger = loki.ledger();
            let texts: Vec<&str> = ledger.with("a.log").into_iter().map(|line| line.text.as_str()).collect();
            ensure!(texts == ["one", "two", "three"], "{texts:?}");
            wait_until("health to be well", MINUTE, || {
                let (ok, message) = delivery(&agent)?;
                ensure!(ok, "{message}");
                Ok(())
            })?;
            ensure!(letters(&home)?.is_empty(), "no dead letters");
            agent.stop()?;
        }
    }
    Ok(())
}

/// A firewall in front of Loki refuses a line for its content: it becomes a dead letter, and later lines are delivered.
#[test]
fn a_firewall_refuses_one_line() -> Result<()> {
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    loki.limit(Limits { firewall: Some("etc/passwd".to_owned()), ..Limits::default() });
    append(&home, "a.log", "first\n")?;
    append(&home, "b.log", "first\n")?;
    let agent = home.start(&config(&home, &loki, "", &sets(&home)))?;
    wait_until("the first lines", MINUTE, || ensure_count(&loki, 2))?;
    let behind: String = (0..50).map(|number| format!("behind {number}\n")).collect();
    append(&home, "a.log", &format!("GET /../etc/passwd\n{behind}"))?;
    wait_for_words(&agent, &["status 403", "may write", "firewall"])?;
    append(&home, "b.log", "second\n")?;
    wait_until("all other lines", MINUTE, || ensure_count(&loki, 53))?;
    let message = wait_for_words(&agent, &["refused as forbidden", "dead-letters replay"])?;
    ensure!(agent.ask("/readyz")?.0 == 200, "{message}");
    let letters = letters(&home)?;
    ensure!(letters.len() == 1 && letters[0]["line"] == "GET /../etc/passwd", "{letters:?}");
    agent.stop()
}

/// A proxy that accepts an eighth of `batch_size`, which is less than a record of the spool. Requests were split, split
/// again and then started over at full size, many a second and for ever, without a report.
#[test]
fn a_proxy_that_takes_small_bodies_alone() -> Result<()> {
    let home = Home::new()?;
    let loki = TestLoki::start()?;
    let lines = incompressible(&mut Rand::from_env_or(413), 9_000);
    append(&home, "a.log", "first\n")?;
    let agent = home.start(&config(&home, &loki, "", &sets(&home)))?;
    wait_until("the first line", MINUTE, || ensure_count(&loki, 1))?;
    for limit in [100_000, 3_000] {
        loki.set(Mood::SmallBodies(limit));
        let (before, requests) = (loki.count(), metric_sum(&agent, "push_requests_total")?);
        append(&home, "a.log", &lines)?;
        wait_until("all lines", MINUTE, || ensure_count(&loki, before + 9_000))?;
        let requests = metric_sum(&agent, "push_requests_total")? - requests;
        // What it takes, twice as many since requests are halved, and those in vain.
        let needed = (lines.len() / limit) as f64;
        ensure!(requests < 3.0 * needed + 40.0, "{requests} requests where {needed} are enough");
        wait_until("the limit to be told", MINUTE, || {
            let (ok, message) = delivery(&agent)?;
            ensure!(
                ok && message.contains("batch_size") && message.contains("client_max_body_size"),
                "{message}"
            );
            Ok(())
        })?;
    }
    ensure!(letters(&home)?.is_empty(), "no line is refused");
    let told = agent.log_text()?.matches("client_max_body_size").count();
    ensure!((1..=3).contains(&told), "the log has it {told} times");
    agent.stop()
}
