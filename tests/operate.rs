//! The operators' tools, tried on a running agent: a real Prometheus scrapes it and evaluates the alert rules, the
//! runbooks' commands are run, and deliberate faults raise their alert and are shown by the first command of its
//! runbook.
//!
//! The rules are those of alerts/, with minutes turned into seconds; that they fire after the right time is tested with
//! promtool (catalog.rs).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, program};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fake_docker::FakeDocker;
use capturer_tests::loki::{Mood, POISON, TestLoki};
use capturer_tests::reference::{names, top};
use capturer_tests::scene::{self, Reading};
use capturer_tests::wait::wait_until;
use capturer_tests::{one_engine, skipped};
use rustix::process::Signal;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

/// A Prometheus of this test's own; ends with it.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    fn start(folder: &Path, agent: &str) -> Result<Prometheus> {
        let rules = fs::read_to_string(top().join("alerts/capturer.rules.yml"))?;
        fs::write(folder.join("rules.yml"), in_seconds(&rules))?;
        let config = format!(
            "global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}\nrule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: capturer, static_configs: [{{targets: [\"{agent}\"]}}]}}]\n"
        );
        fs::write(folder.join("prometheus.yml"), config)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = File::create(folder.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting prometheus")?;
        Ok(Prometheus { child, address })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        Ok(serde_json::from_str::<Value>(body)?["data"].clone())
    }

    fn scraped(&self) -> Result<BTreeSet<String>> {
        let names = self.ask("/api/v1/label/__name__/values")?;
        let names = names.as_array().context("no names")?.iter().filter_map(Value::as_str);
        Ok(names.filter(|name| name.starts_with("log_capturer_")).map(str::to_owned).collect())
    }

    fn await_alert(&self, name: &str) -> Result<Value> {
        wait_until(&format!("alert {name}"), DEADLINE, || self.alert(name))
    }

    /// If it fires.
    fn alert(&self, name: &str) -> Result<Value> {
        self.alert_with(name, |_| true)
    }

    /// If it fires with such labels.
    fn alert_with(&self, name: &str, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        let alerts = self.ask("/api/v1/alerts")?;
        let all = alerts["alerts"].as_array().context("no alerts")?;
        let fires = |alert: &&Value| {
            let labels = &alert["labels"];
            labels["alertname"] == name && alert["state"] == "firing" && is_meant(labels)
        };
        all.iter().find(fires).cloned().with_context(|| format!("{all:?}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `[10m]` → `[10s]`, `for: 1h` → `for: 10s`.
fn in_seconds(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (from, to) in [("[1h]", "[60s]"), ("[2h]", "[120s]"), ("for: 1h", "for: 10s"), ("2m", "3s")] {
        text = text.replace(from, to);
    }
    for minutes in [5, 10, 15, 40] {
        text = text.replace(&format!("{minutes}m"), &format!("{minutes}s"));
    }
    text
}

/// A folder with a `capturer` that knows this agent and its config.
fn shims(home: &Home, agent: &str) -> Result<PathBuf> {
    let folder = home.path().join("bin");
    fs::create_dir(&folder)?;
    let (program, config) = (program(), home.path().join("config.yaml"));
    let (program, config) = (program.display(), config.display());
    let script = format!(
        "#!/bin/sh\nname=$1; shift 2>/dev/null\ncase $name in\n\
         top|tap) exec {program} $name --admin {agent} \"$@\" ;;\n\
         dead-letters) sub=$1; shift; exec {program} $name $sub -c {config} \"$@\" ;;\n\
         check|positions|try) exec {program} $name -c {config} \"$@\" ;;\n\
         *) exec {program} $name \"$@\" ;;\nesac\n"
    );
    let shim = folder.join("capturer");
    fs::write(&shim, script)?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// A runbook's commands with their expected output.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            commands.push((command.to_owned(), String::new()));
        } else if let (true, Some((_, output))) = (inside, commands.last_mut()) {
            *output += &format!("{line}\n");
        }
    }
    commands
}

struct Desk {
    home: Home,
    bin: PathBuf,
    address: String,
}

impl Desk {
    /// Status and what it printed.
    fn type_in(&self, command: &str) -> Result<(Option<i32>, String)> {
        let command = command.replace("127.0.0.1:8001", &self.address);
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", &command])
            .env("PATH", path)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// The first command of a runbook shows the cause.
    fn first_command_shows(&self, runbook: &str, cause: &str) -> Result<()> {
        let page = fs::read_to_string(top().join(format!("docs/runbooks/{runbook}.md")))?;
        let (command, _) = commands(&page).into_iter().next().context("no command")?;
        wait_until(&format!("{command} to show {cause}"), DEADLINE, || {
            let (_, output) = self.type_in(&command)?;
            ensure!(output.contains(cause), "{output}");
            Ok(())
        })
    }
}

fn config(home: &Home, docker: &FakeDocker, loki: &TestLoki) -> String {
    let (path, socket, url) = (home.path().display(), docker.socket(), loki.url());
    let socket = socket.display();
    format!(
        "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
         container_monitor:\n  socket_path: unix://{socket}\n  read_from: api\n  read_timeout: 2s\n  \
         stream_rotation: {{interval: 2s, idle_interval: 2s, pause_between_rotations: 10ms}}\n\
         file_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}, {{paths: [\"{path}/in/*.json\"], format: docker}}]}}\n\
         pipelines:\n  - name: quiet\n    match: {{paths: [\"{path}/in/quiet.log\"]}}\n    \
         steps: [{{drop: {{matches: debug}}}}]\n\
         sinks:\n  local_file: {{directory: {path}/out, file: all.ndjson}}\n  \
         loki: {{enabled: true, url: \"{url}\", batch_timeout: 100ms, backoff: {{min: 100ms, max: 2s}}}}\n\
         resource_monitoring: {{check_interval: 1s}}\n"
    )
}

fn commands_of_all_runbooks_work(desk: &Desk) -> Result<()> {
    let mut bad = Vec::new();
    for entry in fs::read_dir(top().join("docs/runbooks"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let commands = commands(&fs::read_to_string(&path)?);
        if name != "README.md" && commands.len() != 3 {
            bad.push(format!("{name}: {} commands, there should be three", commands.len()));
        }
        for (command, expected) in commands {
            let (status, output) = desk.type_in(&command)?;
            // A command that finds something wrong may say so by its exit code.
            let is_diagnosis = command.starts_with("capturer doctor") || command.contains("--online");
            if status != Some(0) && !is_diagnosis || output.trim().is_empty() {
                bad.push(format!("{name}: {command}: status {status:?}: {output}"));
            }
            let families = capturer_tests::reference::mentioned(&expected);
            let missing = families.iter().filter(|family| !output.contains(*family));
            bad.extend(missing.map(|family| format!("{name}: {command} does not print {family}")));
            // A reader compares the words between the varying parts. That page shows a wrong config.
            if command.starts_with("capturer check") && name != "config-refused.md" {
                let words = expected.split(['…', '\n']).map(str::trim).filter(|words| !words.is_empty());
                let missing = words.filter(|words| !output.contains(*words));
                bad.extend(
                    missing.map(|words| format!("{name}: {command} does not print {words:?}: {output}")),
                );
            }
        }
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(())
}

#[test]
fn prometheus_alerts_and_runbooks_see_what_happens() -> Result<()> {
    if Command::new("prometheus").arg("--version").output().is_err() {
        skipped!("no prometheus: apt-get install prometheus brings it");
        return Ok(());
    }
    let (home, loki, docker) = (Home::new()?, TestLoki::start()?, FakeDocker::start()?);
    let id = docker.add("web");
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    let append = |name: &str, bytes: &[u8]| -> Result<()> {
        let mut file = File::options().create(true).append(true).open(input.join(name))?;
        Ok(file.write_all(bytes)?)
    };
    append("quiet.log", b"debug this\nkeep this\n")?;
    append("a.log", b"one\ntwo\n")?;
    docker.print(&id, b"hello\n");
    let config = config(&home, &docker, &loki);
    let agent = home.start(&config)?;
    let address = agent.address().to_owned();
    let prometheus = Prometheus::start(home.path(), &address)?;
    let bin = shims(&home, &address)?;
    let desk = Desk { home, bin, address };

    wait_until("a rotation", DEADLINE, || {
        ensure!(agent.get("/metrics")?.contains("container_stream_rotations_total{"));
        Ok(())
    })?;
    all_names_are_scraped(&prometheus)?;
    commands_of_all_runbooks_work(&desk)?;

    loki.set(Mood::Unavailable);
    append("a.log", b"while Loki is away\n")?;
    prometheus.await_alert("CapturerPushesRefused")?;
    desk.first_command_shows("pushes-refused", "503")?;
    let alert = prometheus.await_alert("CapturerComponentUnhealthy")?;
    ensure!(alert["labels"]["component"] == "sink_loki_delivery", "{alert}");
    loki.set(Mood::Well);

    append("a.log", format!("{POISON} of Loki\n").as_bytes())?;
    prometheus.await_alert("CapturerDeadLetters")?;
    desk.first_command_shows("dead-letters", POISON)?;

    append("d.json", b"{\"log\":\"torn\n")?;
    append("d.json", b"{\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:49.1Z\"}\n")?;
    prometheus.await_alert("CapturerLosses")?;
    desk.first_command_shows("losses", "d.json")?;

    docker.set_silent(true);
    docker.break_connections();
    docker_alert(&prometheus)?;
    desk.first_command_shows("component-unhealthy", "docker")?;
    docker.set_silent(false);

    desk.home.write_config(&config.replace("read_timeout: 2s", "read_timeout: soon"))?;
    agent.signal(Signal::HUP);
    prometheus.await_alert("CapturerConfigRefused")?;
    desk.first_command_shows("config-refused", "read_timeout")?;
    desk.home.write_config(&config)?;

    agent.kill()?;
    prometheus.await_alert("CapturerAbsent")?;
    Ok(())
}

/// Faults in the agent itself, or in its destinations, which last until they are seen: a Loki that is not running, a
/// leaked descriptor, a connection that does not close, an output that can't be written while its source grows.
#[test]
fn faults_that_stay_raise_their_alerts() -> Result<()> {
    if Command::new("prometheus").arg("--version").output().is_err() {
        skipped!("no prometheus: apt-get install prometheus brings it");
        return Ok(());
    }
    let faulty = PathBuf::from(std::env::var_os("CAPTURER_FAULTY_BIN").context(
        "CAPTURER_FAULTY_BIN names the agent with faults; `cargo xtask test` builds it and sets this",
    )?);
    let (home, loki, docker) = (Home::new()?, TestLoki::start()?, FakeDocker::start()?);
    let id = docker.add("web");
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    let log = input.join("a.log");
    let append = |bytes: &[u8]| -> Result<()> {
        Ok(File::options().create(true).append(true).open(&log)?.write_all(bytes)?)
    };
    append(b"one\n")?;
    docker.print(&id, b"hello\n");
    let faults = home.path().join("faults");
    fs::write(&faults, "")?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let config = config(&home, &docker, &loki).replace(&loki.url(), &format!("http://{nobody}"));
    let agent = home.launch_program(&config, &faulty, &[("CAPTURER_FAULTS", &faults)])?;
    let address = agent.address().to_owned();
    let prometheus = Prometheus::start(home.path(), &address)?;
    let bin = shims(&home, &address)?;
    let desk = Desk { home, bin, address };

    let alert = prometheus.await_alert("CapturerLokiUnreachable")?;
    ensure!(alert["labels"]["reason"] == "unreachable", "{alert}");
    desk.first_command_shows("loki-unreachable", &nobody)?;

    fs::write(&faults, "forget-descriptor")?;
    let alert = prometheus.await_alert("CapturerLeak")?;
    ensure!(alert["labels"]["resource"] == "file_descriptors", "{alert}");
    desk.first_command_shows("leak", "component: leak_detector, runbook: leak")?;

    fs::write(&faults, "hold-close")?;
    prometheus.await_alert("CapturerRotationStuck")?;
    desk.first_command_shows("rotation-stuck", "error_type=\"rotation_stuck\"} 1")?;
    fs::write(&faults, "")?;

    // A directory has the output's name.
    let output = desk.home.output_dir().join("all.ndjson");
    fs::rename(&output, output.with_extension("moved"))?;
    fs::create_dir(&output)?;
    let lines = "what a busy service prints while its output can't be written\n".repeat(16 * 1024);
    for _ in 0..60 {
        append(lines.as_bytes())?;
    }
    wait_until("alert CapturerLagGrowing", DEADLINE, || {
        append(&lines.as_bytes()[..lines.len() / 64])?;
        prometheus.alert("CapturerLagGrowing")
    })?;
    desk.first_command_shows("lag-growing", "all.ndjson")?;
    prometheus.await_alert("CapturerSinkFailing")?;
    desk.first_command_shows("sink-failing", "all.ndjson")?;
    fs::remove_dir(&output)?;
    agent.kill()
}

/// A start once hung for minutes, and its log ended with "capturer starts". Whatever a start waits for, such as a disk that
/// does not answer, is named, and so is its end.
#[test]
fn a_start_that_waits_says_for_what() -> Result<()> {
    let faulty = PathBuf::from(std::env::var_os("CAPTURER_FAULTY_BIN").context(
        "CAPTURER_FAULTY_BIN names the agent with faults; `cargo xtask test` builds it and sets this",
    )?);
    let home = Home::new()?;
    let (path, log) = (home.path().display().to_string(), home.path().join("agent.log"));
    fs::create_dir(home.path().join("in"))?;
    fs::write(home.path().join("in/a.log"), "one\n")?;
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}]}}\n"
    ));
    home.write_config(&config)?;
    let faults = home.path().join("faults");
    fs::write(&faults, "hold-start")?;
    let mut child = Command::new(&faulty)
        .args(["run", "-c"])
        .arg(home.path().join("config.yaml"))
        .env("CAPTURER_FAULTS", &faults)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()?;
    let said = |words: &[&str]| -> Result<()> {
        let text = fs::read_to_string(&log)?;
        let is_said = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(is_said, "{words:?}: {text}");
        Ok(())
    };
    let what = "starting the witness";
    let seen = wait_until("the start to say what it waits for", DEADLINE, || {
        said(&["ERROR", "the start waits and captures nothing yet", what])
    })
    .and_then(|()| {
        fs::write(&faults, "")?;
        wait_until("its end, and lines", DEADLINE, || {
            said(&["over after ", "the start waited", what])?;
            said(&["capturing 1 file"])
        })
    });
    let _ = child.kill();
    let _ = child.wait();
    seen
}

/// The config is read before there is a log, and a pipe in its place hangs as a dead network file system does. SIGTERM was
/// not answered, and nothing was said.
#[test]
fn a_start_that_hangs_in_its_config_is_named_and_can_be_told_to_stop() -> Result<()> {
    let home = Home::new()?;
    let (config, log) = (home.path().join("config.yaml"), home.path().join("agent.log"));
    ensure!(Command::new("mkfifo").arg(&config).status()?.success());
    let start = || -> Result<std::process::Child> {
        let mut command = Command::new(program());
        command.args(["run", "-c"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command.stderr(File::create(&log)?).spawn()?)
    };
    let ends = |child: &mut std::process::Child| {
        wait_until("the process to end", DEADLINE, || child.try_wait()?.context("it runs"))
    };
    let is_said = |words: &str| -> Result<()> {
        let text = fs::read_to_string(&log)?;
        ensure!(text.contains(words), "{words}: {text}");
        Ok(())
    };
    let mut child = start()?;
    let tried = wait_until("the start to say what it waits for", DEADLINE, || {
        is_said("capturer: the start waits and captures nothing yet: reading the config (")
    })
    .and_then(|()| {
        let pid = rustix::process::Pid::from_raw(child.id() as i32).context("no pid")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        let status = ends(&mut child)?;
        ensure!(status.code() == Some(0), "{status}");
        is_said("told to stop while the start waits; ending without it")
    });
    let _ = child.kill();
    let _ = child.wait();
    tried
}

one_engine! { V28_5:
    a_frozen_dockerd_raises_its_alert => frozen_dockerd;
}

/// A real dockerd, stopped by SIGSTOP. Health says that it does not answer, and the alert fires. When dockerd continues, both
/// end, and what the container printed meanwhile arrives.
fn frozen_dockerd(version: EngineVersion) -> Result<()> {
    if Command::new("prometheus").arg("--version").output().is_err() {
        skipped!("no prometheus: apt-get install prometheus brings it");
        return Ok(());
    }
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&scene::config(&home, &engine, Reading::API))?;
    let address = agent.address().to_owned();
    let prometheus = Prometheus::start(home.path(), &address)?;
    let bin = shims(&home, &address)?;
    let desk = Desk { home, bin, address };
    let script = "n=0; while [ ! -e /stop ]; do n=$((n+1)); echo line $n; sleep 0.2; done";
    engine.run(&RunSpec::sh(script).name("web"))?;
    wait_until("lines", DEADLINE, || ensure_some(&desk.home.records_of("web")?))?;

    engine.freeze()?;
    let seen = docker_alert(&prometheus).and_then(|alert| {
        ensure!(alert["labels"]["instance"] == desk.address.as_str(), "{alert}");
        desk.first_command_shows("component-unhealthy", "component: docker")?;
        desk.first_command_shows("component-unhealthy", "no answer")
    });
    engine.thaw()?;
    seen?;
    wait_until("the alert to end", DEADLINE, || {
        let alerts = prometheus.ask("/api/v1/alerts")?;
        let all = alerts["alerts"].as_array().context("no alerts")?;
        ensure!(!all.iter().any(|alert| alert["labels"]["component"] == "docker"), "{alerts}");
        agent.get("/health")
    })?;
    engine.touch("web", "/stop")?;
    engine.wait("web")?;
    scene::assert_equal_to_docker_logs(&desk.home, &engine, &["web".to_owned()])?;
    agent.stop()
}

fn ensure_some<T>(all: &[T]) -> Result<()> {
    ensure!(!all.is_empty(), "there is none yet");
    Ok(())
}

fn docker_alert(prometheus: &Prometheus) -> Result<Value> {
    wait_until("the alert on component docker", DEADLINE, || docker_alert_now(prometheus))
}

fn docker_alert_now(prometheus: &Prometheus) -> Result<Value> {
    prometheus.alert_with("CapturerComponentUnhealthy", |labels| labels["component"] == "docker")
}

/// Every metric of the catalog exists in a real Prometheus.
fn all_names_are_scraped(prometheus: &Prometheus) -> Result<()> {
    wait_until("every name of the catalog to be scraped", DEADLINE, || {
        let scraped = prometheus.scraped()?;
        let is_there = |name: &String| {
            // A histogram has no sample of its own name.
            scraped.contains(name) || scraped.contains(&format!("{name}_bucket"))
        };
        let missing: Vec<String> = names().into_iter().filter(|name| !is_there(name)).collect();
        ensure!(missing.is_empty(), "never scraped: {missing:?}");
        let unknown: Vec<&String> = scraped.iter().filter(|name| !names().contains(*name)).collect();
        ensure!(unknown.is_empty(), "in no catalog: {unknown:?}");
        Ok(())
    })
}

/// Over the network, access needs the token and TLS; on the host it goes by the socket, as in `capturer top`.
/// What listens there may be anything. A command that asks it ends by itself, and holds no more than a line.
#[test]
fn a_peer_that_never_ends_its_answer_holds_up_no_command() -> Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    const PAUSE: Duration = Duration::from_millis(200);
    let peers: [(&str, &[u8], &[u8], &str); 4] = [
        ("top", b"", b"H", "gives no answer"),
        ("top", HEAD, b" ", "gives no answer"),
        ("tap", b"", b"H", "gives no answer"),
        ("tap", HEAD, &[b'y'; 1 << 16], "is not capturer"),
    ];
    for (word, head, piece, says) in peers {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        std::thread::scope(|scope| {
            // It ends when the command does, which is what this test waits for.
            scope.spawn(|| -> Result<()> {
                let mut peer = listener.accept()?.0;
                peer.set_read_timeout(Some(PAUSE))?;
                peer.write_all(head)?;
                while peer.write_all(piece).is_ok() {
                    // One that drips waits for more of the question, which does not come.
                    let _ = if piece.len() == 1 { peer.read(&mut [0; 512]) } else { Ok(0) };
                }
                Ok(())
            });
            let asked = Command::new(program()).args([word, "--admin", &address]).output()?;
            let said = String::from_utf8_lossy(&asked.stderr);
            ensure!(!asked.status.success() && said.contains(says), "{word}: {}: {said}", asked.status);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_server_that_is_open_to_others_is_locked() -> Result<()> {
    let home = Home::new()?;
    let path = home.path().display().to_string();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    fs::write(home.path().join("cert.pem"), certified.cert.pem())?;
    fs::write(home.path().join("key.pem"), certified.signing_key.serialize_pem())?;
    fs::create_dir(home.path().join("in"))?;
    fs::write(home.path().join("in/a.log"), "one\n")?;
    let token = "0123456789abcdef";
    let admin = format!(
        "admin: {{listen: \"127.0.0.1:0\", token: {token}, tls_cert: {path}/cert.pem, tls_key: {path}/key.pem, \
         socket: {path}/admin.sock, tap: false}}"
    );
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}]}}\n"
    ));
    let config = config.replacen("admin: {listen: \"127.0.0.1:0\"}", &admin, 1);
    let agent = home.launch(&config)?;
    let curl = |scheme: &str, more: &[&str], path: &str| -> Result<String> {
        let url = format!("{scheme}://{}{path}", agent.address());
        let common = ["-s", "--cacert", "cert.pem", "-w", "\n%{http_code}"];
        let output =
            Command::new("curl").args(common).args(more).arg(&url).current_dir(home.path()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let https = |more: &[&str], path: &str| curl("https", more, path);
    let bearer = format!("Authorization: Bearer {token}");
    wait_until("the agent to be ready", DEADLINE, || {
        let answer = https(&["-H", &bearer], "/readyz")?;
        ensure!(answer.ends_with("200"), "{answer}");
        Ok(())
    })?;
    ensure!(https(&[], "/metrics")?.ends_with("401"));
    ensure!(https(&["-u", &format!("me:{token}")], "/metrics")?.contains("log_capturer_build_info"));
    ensure!(https(&["-H", &bearer], "/api/v1/tap")?.ends_with("403"), "tap is switched off");
    let plain = curl("http", &["-H", &bearer], "/metrics")?;
    ensure!(!plain.contains("log_capturer_"), "told without TLS: {plain}");
    let words = ["top", "--once", "-c", "config.yaml"];
    let output = Command::new(program()).args(words).current_dir(home.path()).output()?;
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(shown.contains(" lines/s, unread ") && shown.contains("a.log"), "by the socket: {shown}");
    agent.stop()
}
