//! The first day on a host: fifty sources with two weeks of logs, and one fault of each kind among them. All
//! deliverable lines are delivered, live ones within a minute; each fault affects only itself, and `/health` and
//! `capturer top` name its own cause. The agent runs as nobody, so it follows containers over the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use capturer::testing::timestamp;
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::loki::{Limits, TestLoki};
use capturer_tests::wait::wait_until;
use serde_json::Value;

/// How late a live line may be.
const LATE_MAX: Duration = Duration::from_secs(60);
/// For everything else.
const PATIENCE: Duration = Duration::from_secs(120);
const DAY_SECS: i64 = 86_400;
/// Lines that each old source holds, and over how many days they are spread.
const OLD_LINES: i64 = 700;
const OLD_DAYS: i64 = 14;
const CONTAINERS: usize = 10;
const JSON_FILES: usize = 15;
const PODS: usize = 15;
const PLAIN_FILES: usize = 4;
const ROUNDS: usize = 4;

/// How a source's lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Cri,
    Plain,
}

/// A followed file, and the lines written to it.
struct Source {
    path: PathBuf,
    form: Form,
    /// With each line's age when it was written.
    lines: Vec<(i64, String)>,
}

impl Source {
    fn new(path: PathBuf, form: Form) -> Result<Source> {
        fs::create_dir_all(path.parent().context("a directory")?)?;
        File::create(&path)?;
        Ok(Source { path, form, lines: Vec::new() })
    }

    fn append(&mut self, lines: impl Iterator<Item = (i64, String)>) -> Result<()> {
        let mut text = String::new();
        for (age_secs, line) in lines {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64;
            let time = timestamp::format(now - age_secs * 1_000_000_000);
            text += &match self.form {
                Form::Json => {
                    format!("{{\"log\":\"{line}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
                }
                Form::Cri => format!("{time} stdout F {line}\n"),
                Form::Plain => format!("{line}\n"),
            };
            self.lines.push((age_secs, line));
        }
        self.raw(text.as_bytes())
    }

    fn raw(&self, bytes: &[u8]) -> Result<()> {
        Ok(File::options().append(true).open(&self.path)?.write_all(bytes)?)
    }

    /// Two weeks of lines, oldest first.
    fn grow_old(&mut self) -> Result<()> {
        let span = OLD_DAYS * DAY_SECS;
        self.append((0..OLD_LINES).map(|number| (span - number * span / OLD_LINES, format!("old {number}"))))
    }

    fn live(&mut self, text: &str) -> Result<()> {
        self.append([(0, text.to_owned())].into_iter())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// All delivered lines, by source.
#[derive(Debug, Default)]
struct Arrived(BTreeMap<String, Vec<String>>);

impl Arrived {
    fn add(&mut self, source: &str, text: &str) {
        self.0.entry(source.to_owned()).or_default().push(text.to_owned());
    }

    fn in_loki(loki: &TestLoki) -> Result<Arrived> {
        let mut arrived = Arrived::default();
        for (labels, lines) in &loki.ledger().lines {
            let labels: BTreeMap<String, String> =
                capturer::testing::read_label_text(labels).context("labels")?.into_iter().collect();
            let source = labels.get("path").or(labels.get("container_name")).context("no source")?;
            lines.iter().for_each(|line| arrived.add(source, &line.text));
        }
        Ok(arrived)
    }

    fn in_files(home: &Home) -> Result<Arrived> {
        let mut arrived = Arrived::default();
        for entry in fs::read_dir(home.output_dir())? {
            let path = entry?.path();
            // One of them is a directory on purpose.
            let text = if path.is_file() { fs::read_to_string(&path)? } else { String::new() };
            // The last may be incomplete.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
                let text = |key: &str| record[key].as_str();
                let source = text("path").or(text("container_name")).context("no source")?;
                arrived.add(source, text("message").context("no message")?);
            }
        }
        Ok(arrived)
    }

    fn of(&self, source: &str) -> &[String] {
        self.0.get(source).map_or(&[], Vec::as_slice)
    }

    fn has(&self, source: &str, text: &str) -> bool {
        self.of(source).iter().any(|line| line == text)
    }
}

/// These lines were delivered from a source, each once, in this order, and no others.
fn same(place: &str, arrived: &Arrived, source: &str, expected: &[String]) -> Result<()> {
    let got = arrived.of(source);
    let at = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    ensure!(
        got == expected,
        "{place}, {source}: {} lines of {}, equal up to {at}: {:?}, expected {:?}",
        got.len(),
        expected.len(),
        got.get(at),
        expected.get(at)
    );
    Ok(())
}

/// The unhealthy components of `/health`.
fn problems(agent: &Agent) -> Result<BTreeMap<String, String>> {
    let health: Value = serde_json::from_str(&agent.ask("/health")?.1)?;
    let components = health["components"].as_object().context("no components")?;
    let wrong = components.iter().filter(|(_, told)| told["ok"] == false);
    Ok(wrong
        .map(|(name, told)| (name.clone(), told["message"].as_str().unwrap_or_default().to_owned()))
        .collect())
}

fn top(agent: &Agent, more: &[&str]) -> Result<String> {
    let output =
        Command::new(program()).args(["top", "--once", "--admin", agent.address()]).args(more).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn docker_kill(engine: &Engine, names: &[String]) -> Result<()> {
    let mut words = vec!["kill", "--signal=USR1"];
    words.extend(names.iter().map(String::as_str));
    engine.docker(&words).map(drop)
}

/// Prints a numbered line for each SIGUSR1.
const PRINTER: &str = "n=0; trap 'echo live $n; n=$((n+1))' USR1; echo ready; while :; do sleep 0.05; done";

/// Lines in a format that no runtime writes, and how many of them are still lines.
fn hostile() -> Vec<u8> {
    let now = "2026-11-25T10:00:00.000000000Z";
    let mut bytes = Vec::new();
    for line in [
        "not a record",
        "",
        "2026-99-99T99:99:99Z stdout F no such time",
        &format!("{now} stdwhat F no such channel"),
        &format!("{now} stdout"),
        "\u{1b}[31m\u{1b}]0;title\u{7}",
        &"9".repeat(100_000),
    ] {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(&[0; 4096]);
    bytes.extend_from_slice(b"\xff\xfe\x00\x01\n");
    bytes
}

struct Host {
    home: Home,
    engine: Engine,
    loki: TestLoki,
    good: Vec<Source>,
    containers: Vec<String>,
    noisy: Source,
    untenanted: Source,
    blocked: Source,
    secret: Source,
    hostile: Source,
}

impl Host {
    fn new() -> Result<Host> {
        let home = Home::new()?;
        let engine = Engine::start(EngineVersion::V28_5)?;
        let loki = TestLoki::start()?;
        let stream_rate = Some(("noisy.log".to_owned(), 2_000));
        loki.limit(Limits { wants_tenant: true, stream_rate, ..Limits::default() });
        let dir = home.path().to_owned();
        let mut good = Vec::new();
        for number in 0..JSON_FILES {
            good.push(Source::new(dir.join(format!("in/{number}.json")), Form::Json)?);
        }
        for number in 0..PODS {
            good.push(Source::new(pod(&dir, &format!("web-{number}")), Form::Cri)?);
        }
        good.iter_mut().try_for_each(Source::grow_old)?;
        for number in 0..PLAIN_FILES {
            good.push(Source::new(dir.join(format!("in/plain-{number}.log")), Form::Plain)?);
        }
        let plain = |name: &str| Source::new(dir.join(name), Form::Plain);
        let secret = plain("in/secret.log")?;
        secret.raw(b"nobody reads this\n")?;
        fs::set_permissions(&secret.path, fs::Permissions::from_mode(0o600))?;
        let mut hostile_pod = Source::new(pod(&dir, "hostile"), Form::Cri)?;
        hostile_pod.grow_old()?;
        Ok(Host {
            good,
            containers: (0..CONTAINERS).map(|number| format!("box-{number}")).collect(),
            noisy: plain("in/noisy.log")?,
            untenanted: plain("in/untenanted/a.log")?,
            blocked: plain("in/blocked.log")?,
            secret,
            hostile: hostile_pod,
            home,
            engine,
            loki,
        })
    }

    fn config(&self) -> String {
        let dir = self.home.path().display();
        let team = "labels: {team: web}";
        self.home.config(&format!(
            "  loki: {{enabled: true, url: \"{}\", batch_timeout: 200ms, backoff: {{min: 100ms, max: 2s}}, \
               tenant_id: \"{{label:team}}\"}}\n\
             container_monitor: {{socket_path: \"unix://{}\", read_timeout: 1s, reconnect_interval: 1s, \
               record_labels: [team]}}\n\
             file_monitor:\n  files:\n\
             \x20   - {{paths: [\"{dir}/in/*.json\"], format: docker, {team}}}\n\
             \x20   - {{paths: [\"{dir}/pods/*/*/*.log\"], format: cri, {team}}}\n\
             \x20   - {{paths: [\"{dir}/in/*.log\"], format: raw, {team}}}\n\
             \x20   - {{paths: [\"{dir}/in/untenanted/*.log\"], format: raw}}\n",
            self.loki.url(),
            self.engine.socket().display(),
        ))
    }

    /// An agent that follows only this file, and knows nothing of the others, tells the name of its output.
    fn block_output(&self) -> Result<PathBuf> {
        let config = self.home.config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"], format: raw}}]}}\n",
            self.blocked.path.display()
        ));
        let agent = self.home.launch_as_nobody(&config.replacen("/data\n", "/data-before\n", 1))?;
        let name = wait_until("the output that is to be blocked", PATIENCE, || {
            let entries = fs::read_dir(self.home.output_dir())?.flatten();
            let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.find(|name| name.starts_with("blocked.log")).context("not yet")
        })?;
        agent.stop()?;
        let output = self.home.output_dir().join(name);
        fs::remove_file(&output)?;
        fs::create_dir(&output)?;
        Ok(output)
    }

    /// Every healthy source has this line, and how late the last one was.
    fn await_live(&self, text: &str, began: Instant) -> Result<Duration> {
        let names: Vec<String> =
            self.good.iter().map(Source::name).chain(self.containers.iter().cloned()).collect();
        let missing = |place: &str, arrived: &Arrived| {
            let missing: Vec<&String> = names.iter().filter(|name| !arrived.has(name, text)).collect();
            (!missing.is_empty()).then(|| format!("{place} lacks {text:?} of {missing:?}"))
        };
        // The deadline is for the lines, however late the machine lets this check them.
        wait_until("a live line of each source", LATE_MAX.saturating_sub(began.elapsed()), || {
            let places =
                [("Loki", Arrived::in_loki(&self.loki)?), ("the files", Arrived::in_files(&self.home)?)];
            let lacks: Vec<String> =
                places.iter().filter_map(|(place, arrived)| missing(place, arrived)).collect();
            ensure!(lacks.is_empty(), "{lacks:?}");
            Ok(())
        })?;
        Ok(began.elapsed())
    }
}

fn pod(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("pods/shop_{name}_0a1b/{name}/0.log"))
}

#[test]
fn each_fault_costs_itself_and_is_named() -> Result<()> {
    let mut host = Host::new()?;
    for name in &host.containers {
        host.engine.run(&RunSpec::sh(PRINTER).name(name).label("team", "web"))?;
    }
    host.blocked.live("before")?;
    let blocked_output = host.block_output()?;

    let agent = host.home.start_as_nobody(&host.config(), host.engine.socket())?;
    let mut lags = Vec::new();
    for round in 0..ROUNDS {
        let text = format!("live {round}");
        let began = Instant::now();
        host.noisy
            .append((0..3_000).map(|number| (0, format!("{} {round} {number}", "noise".repeat(20)))))?;
        host.hostile.raw(&hostile())?;
        for source in [&mut host.untenanted, &mut host.blocked, &mut host.hostile] {
            source.live(&text)?;
        }
        host.good.iter_mut().try_for_each(|source| source.live(&text))?;
        docker_kill(&host.engine, &host.containers)?;
        lags.push(host.await_live(&text, began)?);
    }
    println!("until a live line of each of {} sources had arrived: {lags:?}", host.good.len() + CONTAINERS);

    // Each fault is named by its own cause, and there is no other.
    let named: [(&str, &[&str]); 4] = [
        ("files", &["secret.log", "ermission", "CAP_DAC_READ_SEARCH"]),
        ("losses", &["hostile", "record_damaged"]),
        ("sink_local_file", &["blocked.log", "directory"]),
        (
            "sink_loki_delivery",
            &["noisy.log", "rate limit", "without a tenant", "tenant_default", "refused as too_old"],
        ),
    ];
    let wrong = wait_until("health to name each fault", PATIENCE, || {
        let wrong = problems(&agent)?;
        for (component, words) in named {
            let said = wrong.get(component).with_context(|| format!("{component} is well; {wrong:?}"))?;
            ensure!(words.iter().all(|word| said.contains(word)), "{words:?} in {said:?}");
        }
        let components: BTreeSet<&str> = wrong.keys().map(String::as_str).collect();
        ensure!(components == named.iter().map(|(name, _)| *name).collect(), "{wrong:?}");
        Ok(wrong)
    })?;
    for (component, said) in &wrong {
        println!("{component}: {said}");
        let innocent = host.good.iter().filter(|source| source.form == Form::Plain);
        let innocent: Vec<String> = innocent.map(Source::name).chain(host.containers.clone()).collect();
        ensure!(!innocent.iter().any(|name| said.contains(name)), "{component} accuses others: {said}");
    }
    let shown = top(&agent, &[])?;
    println!("{shown}");
    // A sentence continues on the next line.
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    for (component, words) in named {
        ensure!(shown.contains(component), "top does not show {component}: {shown}");
        ensure!(words.iter().all(|word| shown.contains(&word.to_lowercase())), "{words:?} in {shown}");
    }
    ensure!(agent.ask("/readyz")?.0 == 200, "nothing of this keeps the agent from being ready");

    // All deliverable lines were delivered.
    let now_old = |age: i64| age > 7 * DAY_SECS;
    wait_until("the lines of all sources that are well", PATIENCE, || {
        let (loki, files) = (Arrived::in_loki(&host.loki)?, Arrived::in_files(&host.home)?);
        for source in host.good.iter().chain([&host.hostile]) {
            let all: Vec<String> = source.lines.iter().map(|(_, text)| text.clone()).collect();
            same("files", &files, &source.name(), &all)?;
            let mut young = source.lines.iter().filter(|(age, _)| !now_old(*age)).map(|(_, text)| text);
            let arrived = loki.of(&source.name());
            let first = arrived.first().context("nothing in Loki")?;
            // Time goes on meanwhile: the eldest of them may have been too old by then.
            young.by_ref().take(2).find(|text| *text == first).with_context(|| first.clone())?;
            same("Loki", &loki, &source.name(), &[vec![first.clone()], young.cloned().collect()].concat())?;
        }
        for name in &host.containers {
            let printed: Vec<String> =
                std::iter::once("ready".to_owned()).chain((0..ROUNDS).map(|n| format!("live {n}"))).collect();
            same("files", &files, name, &printed)?;
            same("Loki", &loki, name, &printed)?;
        }
        // A fault of one output does not affect the others.
        let texts = |source: &Source| source.lines.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        for source in [&host.noisy, &host.untenanted] {
            same("files", &files, &source.name(), &texts(source))?;
        }
        same("Loki", &loki, &host.blocked.name(), &texts(&host.blocked))?;
        ensure!(loki.of(&host.untenanted.name()).is_empty() && loki.of(&host.secret.name()).is_empty());
        ensure!(!loki.of(&host.noisy.name()).is_empty(), "what is within the limit goes through");
        Ok(())
    })?;

    // Once the causes are mended, waiting lines are delivered.
    fs::remove_dir(&blocked_output)?;
    host.loki.limit(Limits { wants_tenant: true, ..Limits::default() });
    fs::set_permissions(&host.secret.path, fs::Permissions::from_mode(0o644))?;
    wait_until("what waited", PATIENCE, || {
        let (loki, files) = (Arrived::in_loki(&host.loki)?, Arrived::in_files(&host.home)?);
        let blocked: Vec<String> = host.blocked.lines.iter().map(|(_, text)| text.clone()).collect();
        same("files", &files, &host.blocked.name(), &blocked)?;
        let noise: Vec<String> = host.noisy.lines.iter().map(|(_, text)| text.clone()).collect();
        same("Loki", &loki, &host.noisy.name(), &noise)?;
        same("Loki", &loki, &host.secret.name(), &["nobody reads this".to_owned()])?;
        same("files", &files, &host.secret.name(), &["nobody reads this".to_owned()])
    })?;
    // The log reports the end of each, in the usual form.
    for what in ["secret.log", "An output cannot be written"] {
        wait_until(&format!("the end of {what} in the log"), PATIENCE, || {
            let log = agent.log_text()?;
            let ends = log.lines().any(|line| line.contains("over after ") && line.contains(what));
            ensure!(ends, "{log}");
            Ok(())
        })?;
    }
    agent.stop()?;
    host.engine.close()
}
