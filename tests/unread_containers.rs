//! Containers that run and whose logs can't be read: by their logging driver, or because somebody removed the file. Each is
//! named in health with a cure, has a row, and is not counted as captured.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fake_docker::{
    FakeDocker, Reply, frame, inspect_path, inspection, logs_path, socket_setting,
};
use capturer_tests::one_engine;
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

one_engine! { V28_5:
    drivers_that_leave_nothing => drivers;
    a_log_whose_lines_docker_drops => dropping;
    a_log_that_the_engine_can_not_read_on => damaged;
    a_container_that_restarts_all_the_time => restarting;
}

one_engine! { V20_10:
    a_log_that_somebody_removed => removed;
}

fn config(home: &Home, engine: &Engine, from: &str) -> String {
    let socket = engine.socket().display().to_string();
    home.config(&format!(
        "container_monitor: {{socket_path: \"unix://{socket}\", read_from: {from}, reconnect_interval: 1s}}\n"
    ))
}

const PRINTS: &str = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done";

fn component(agent: &Agent, name: &str) -> Result<(bool, bool, String)> {
    let (_, body) = agent.ask("/health")?;
    let health: Value = serde_json::from_str(&body)?;
    let told = &health["components"][name];
    let message = told["message"].as_str().with_context(|| body.clone())?;
    Ok((told["ok"] == true, told["note"] == true, message.to_owned()))
}

fn wait_for(agent: &Agent, ok: bool, note: bool, words: &[&str]) -> Result<String> {
    wait_until("health of containers to say it", PATIENCE, || {
        let told = component(agent, "containers")?;
        let says = words.iter().all(|word| told.2.contains(word));
        ensure!((told.0, told.1) == (ok, note) && says, "{words:?} in {told:?}");
        Ok(told.2)
    })
}

/// State, and what is said of it, of a container's rows.
fn rows(agent: &Agent, name: &str) -> Result<Vec<(String, String)>> {
    let streams: Value = serde_json::from_str(&agent.get("/api/v1/streams")?)?;
    let rows = streams["streams"].as_array().context("streams")?.iter().filter(|row| row["name"] == name);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows.map(|row| (text(row, "state"), text(row, "cause"))).collect())
}

fn drivers(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    engine.run(&RunSpec::sh(PRINTS).name("good"))?;
    engine.run(&RunSpec::sh(PRINTS).name("quiet").log_driver("none"))?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, "auto"))?;
    let message =
        wait_for(&agent, true, true, &["quiet", "driver is none", "exclude_names", "1 running container "])?;
    ensure!(agent.metric("containers_monitored")? == 1.0, "{message}");
    ensure!(agent.metric("sources_unreadable{reason=\"driver\"}")? == 0.0, "somebody chose it");
    ensure!(rows(&agent, "quiet")?.len() == 1, "a row");
    let log = agent.log_text()?;
    ensure!(
        log.matches("not captured: its logging driver is none").count() <= 2,
        "told once, by name: {log}"
    );

    let syslog = RunSpec::sh(PRINTS).name("remote").log_driver("syslog");
    let syslog = syslog.log_opt("syslog-address", "udp://127.0.0.1:9").log_opt("cache-disabled", "true");
    engine.run(&syslog)?;
    let message =
        wait_for(&agent, false, false, &["remote", "driver syslog", "json-file, local or journald"])?;
    wait_until("the figures", PATIENCE, || {
        ensure!(agent.metric("containers_monitored")? == 1.0, "{message}");
        ensure!(agent.metric("sources_unreadable{reason=\"driver\"}")? == 1.0, "{message}");
        Ok(())
    })?;
    let rows_of_it = rows(&agent, "remote")?;
    ensure!(
        rows_of_it.iter().all(|(state, why)| state == "not captured" && why.contains("syslog")),
        "{rows_of_it:?}"
    );
    engine.docker(&["rm", "-f", "remote", "quiet"])?;
    wait_for(&agent, true, false, &["1 running container is captured"])?;
    agent.stop()?;

    // The Engine can read this one: it is the config that does not let it.
    engine.run(&RunSpec::sh(PRINTS).name("local").log_driver("local"))?;
    let agent = home.start(&config(&home, &engine, "file"))?;
    wait_for(&agent, false, false, &["local", "read_from is file", "to auto"])?;
    ensure!(agent.log_text()?.contains("container=local"), "by its name");
    agent.stop()?;
    // As each of them may, it skips what is rotated.
    let agent = home.start(&config(&home, &engine, "auto"))?;
    wait_for(&agent, true, true, &["driver local: a follow", "2 running containers are captured"])?;
    agent.stop()
}

/// Of 200,000 lines that such a container printed at once, dockerd wrote 78,674, and nothing said so.
fn dropping(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, "auto"))?;
    let fast = RunSpec::sh(PRINTS).name("fast").log_opt("mode", "non-blocking");
    engine.run(&fast.log_opt("max-buffer-size", "64k"))?;
    engine.run(&RunSpec::sh(PRINTS).name("good").log_opt("mode", "blocking"))?;
    let words = [
        "1 container with the log option mode=non-blocking",
        "which lines: fast. Recreate",
        "max-buffer-size",
        "2 running containers are captured",
    ];
    wait_for(&agent, true, true, &words)?;
    engine.docker(&["rm", "-f", "fast"])?;
    wait_for(&agent, true, false, &["1 running container is captured"])?;
    agent.stop()
}

/// A torn record in the json-file, as a crash of the host leaves it: this Engine ends each answer there, and cleanly.
fn damaged(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let id = engine.run(&RunSpec::sh(PRINTS).name("web"))?;
    let home = Home::new()?;
    let text = config(&home, &engine, "api");
    let agent = home.start(&text)?;
    wait_until("lines", PATIENCE, || {
        ensure!(home.records_of("web")?.len() > 3, "few");
        Ok(())
    })?;
    let mut log = fs::File::options().append(true).open(engine.log_path(&id))?;
    std::io::Write::write_all(&mut log, b"{\"log\":\"half\n")?;
    wait_for(&agent, false, false, &["web", "keeps ending its log", "read_from: auto"])?;
    ensure!(agent.metric("sources_unreadable{reason=\"other\"}")? == 1.0, "not counted");
    agent.stop()?;
    // The cure.
    let before = home.records_of("web")?.len();
    let agent = home.start(&config(&home, &engine, "auto"))?;
    wait_until("more lines", PATIENCE, || {
        ensure!(home.records_of("web")?.len() > before + 3, "few");
        Ok(())
    })?;
    wait_for(&agent, true, false, &["1 running container is captured"])?;
    agent.stop()
}

/// The Engine ends each answer at once while the container waits for its next start. Nothing is wrong with its log.
fn restarting(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, "api"))?;
    let words = ["run", "--detach", "--network=none", "--restart=always", "--name=loop", "capturer-test"];
    engine.docker(&[&words[..], &["sh", "-c", "echo begins; exit 1"]].concat())?;
    // The pauses double from 0.1 s: by then one was longer than many attempts to read on.
    wait_until("eight starts", PATIENCE, || {
        let told = component(&agent, "containers")?;
        assert!(told.0, "{told:?}");
        let got = home.records_of("loop")?.len();
        ensure!(got >= 8, "{got}");
        Ok(())
    })?;
    agent.stop()
}

fn removed(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let id = engine.run(&RunSpec::sh(PRINTS).name("web").log_opt("max-size", "10m"))?;
    let home = Home::new()?;
    let text = config(&home, &engine, "file");
    let agent = home.start(&text)?;
    wait_until("lines", PATIENCE, || {
        ensure!(home.records_of("web")?.len() > 3, "few");
        Ok(())
    })?;
    agent.stop()?;
    let log = engine.log_path(&id);
    fs::remove_file(&log)?;
    let agent = home.start(&text)?;
    let path = log.display().to_string();
    wait_for(&agent, false, false, &["web", &path, "restart the container"])?;
    let rows = rows(&agent, "web")?;
    ensure!(rows.iter().all(|(state, _)| state == "not captured"), "{rows:?}");
    wait_until("the figures", PATIENCE, || {
        ensure!(agent.metric("containers_monitored")? == 0.0, "not captured");
        ensure!(agent.metric("sources_unreadable{reason=\"missing\"}")? == 1.0, "missing");
        ensure!(agent.metric("possible_losses_total{reason=\"file_gone_unread\"}")? >= 1.0, "possible loss");
        Ok(())
    })?;
    engine.docker(&["restart", "-t", "0", "web"])?;
    wait_for(&agent, true, false, &["1 running container is captured"])?;
    agent.stop()?;

    // The Engine may skip lines of such a log.
    engine.run(&RunSpec::sh(PRINTS).name("skipped").log_driver("local"))?;
    let agent = home.start(&config(&home, &engine, "auto"))?;
    let words = [
        "skipped",
        "driver local: a follow over Docker's API",
        "--log-driver json-file",
        "2 running containers are captured",
    ];
    wait_for(&agent, true, true, &words)?;
    engine.docker(&["rm", "-f", "skipped"])?;
    wait_for(&agent, true, false, &["1 running container is captured"])?;
    agent.stop()?;

    // The same of a json-file that the agent may not read.
    let home = Home::new()?;
    let agent = home.start_as_nobody(&config(&home, &engine, "auto"), engine.socket())?;
    let words = ["1 container with a json-file", "Docker's API", "still has it: web", "CAP_DAC_READ_SEARCH"];
    wait_for(&agent, true, true, &words)?;
    agent.stop()
}

fn by_api(home: &Home, docker: &FakeDocker) -> Result<Agent> {
    let socket = socket_setting(&docker.socket());
    home.start(&home.config(&format!(
        "container_monitor: {{socket_path: \"{socket}\", read_from: api, reconnect_interval: 1s, list_interval: 1s, \
         circuit_breaker: {{failures: 50}}}}\n"
    )))
}

/// A record that dockerd can't read makes an error of each answer that begins before it, for ever. What was printed behind it
/// can be had by asking for fewer lines.
#[test]
fn what_lies_behind_a_damaged_record_is_read() -> Result<()> {
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    let id = docker.add("web");
    let mut expected: Vec<String> = (0..5).map(|number| format!("before {number}")).collect();
    let agent = by_api(&home, &docker)?;
    let arrives = |expected: &[String]| {
        wait_until("its lines", PATIENCE, || {
            let got: Vec<String> = home.records_of("web")?.into_iter().map(|record| record.message).collect();
            ensure!(got == expected, "{} of {}", got.len(), expected.len());
            Ok(())
        })
    };
    let print = |lines: &[String]| lines.iter().for_each(|line| docker.print(&id, line.as_bytes()));
    print(&expected);
    arrives(&expected)?;
    docker.damage(&id);
    docker.break_connections();
    let behind: Vec<String> = (0..300).map(|number| format!("behind {number}")).collect();
    print(&behind);
    expected.extend(behind);
    arrives(&expected)?;
    let declared = "losses_total{reason=\"record_damaged\"}";
    wait_until("the loss", PATIENCE, || {
        let (_, _, told) = component(&agent, "losses")?;
        ensure!(told.contains("web") && told.contains("record_damaged"), "{told}");
        Ok(())
    })?;
    ensure!(agent.metric(declared)? == 1.0, "once");
    // The next connection finds its place behind the damage, and nothing more is lost.
    docker.break_connections();
    let last = vec!["at last".to_owned()];
    print(&last);
    expected.extend(last);
    arrives(&expected)?;
    ensure!(agent.metric(declared)? == 1.0, "once more");
    agent.stop()
}

/// Nobody looks at a container that has ended: without a word its last lines would be missed by nobody.
#[test]
fn the_last_lines_of_a_container_that_ended_are_missed() -> Result<()> {
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    let id = docker.add_hidden("job", false);
    let mut ended = inspection(&id, "job", false);
    ended["State"] = json!({"Running": false, "FinishedAt": "2026-11-22T00:00:00Z"});
    docker.script(&inspect_path(&id), Reply::json(&ended));
    let error = frame(3, b"unexpected number of bytes");
    docker.script(&logs_path(&id), Reply::chunks([&error[..]]).last_chunk());
    docker.set_state(&id, "exited");
    docker.show(&id);
    let agent = by_api(&home, &docker)?;
    let words =
        ["1 container that has ended", "job", "unexpected number", "damaged", "recreate the container"];
    wait_for(&agent, false, false, &words)?;
    ensure!(agent.metric("sources_unreadable{reason=\"other\"}")? == 1.0, "not counted");
    docker.remove(&id);
    wait_for(&agent, true, false, &["0 running containers are captured"])?;
    agent.stop()
}

/// After some failures health once had another cause for it, with a cure that does nothing.
#[test]
fn a_driver_that_keeps_nothing_stays_named() -> Result<()> {
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    let refusal = "{\"message\":\"configured logging driver does not support reading\"}";
    docker.add_scripted("remote", logs_path, &Reply::status(501, refusal));
    let agent = by_api(&home, &docker)?;
    wait_until("many failures", PATIENCE, || {
        let failures = agent.metric("container_stream_errors_total{error_type=\"driver_unreadable\"}")?;
        ensure!(failures >= 8.0, "{failures}");
        Ok(())
    })?;
    wait_for(&agent, false, false, &["remote", "keeps nothing that the Engine can read"])?;
    ensure!(agent.metric("sources_unreadable{reason=\"driver\"}")? == 1.0, "by its reason");
    agent.stop()
}

/// What refuses one container's log, be it dockerd, a plugin of it or a proxy before its socket: the container runs, its
/// neighbours are captured, and nothing arrives.
#[test]
fn a_log_that_is_refused_is_named_with_the_answer() -> Result<()> {
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    let refusals = [
        (
            "denied",
            403,
            "{\"message\":\"authorization denied by plugin\"}",
            "answered 403: authorization denied by plugin",
        ),
        ("broken", 500, "{\"message\":\"no such thing\"}", "answered 500: no such thing"),
        ("page", 200, "<html><body>Sign in</body></html>", "reading its log over the API failed"),
        ("lost", 404, "{\"message\":\"no such container\"}", "answered 404: no such container"),
    ];
    let mut ids = Vec::new();
    for (name, status, body, _) in refusals {
        ids.push(docker.add_scripted(name, logs_path, &Reply::status(status, body)));
    }
    let good = docker.add("good");
    docker.print(&good, b"hello\n");
    let socket = socket_setting(&docker.socket());
    let agent = home.start(&home.config(&format!(
        "container_monitor: {{socket_path: \"{socket}\", read_from: api, reconnect_interval: 1s, \
         circuit_breaker: {{failures: 50}}}}\n"
    )))?;
    let words: Vec<&str> = refusals.iter().flat_map(|(name, .., words)| [*name, *words]).collect();
    wait_for(&agent, false, false, &[&["4 running containers are not captured"], &words[..]].concat())?;
    wait_until("the figures", PATIENCE, || {
        ensure!(agent.metric("sources_unreadable{reason=\"other\"}")? == 4.0, "not counted");
        ensure!(agent.metric("containers_monitored")? == 1.0, "they are not captured");
        ensure!(home.records_of("good")?.len() == 1, "its neighbour");
        Ok(())
    })?;
    for id in ids {
        docker.heal(&logs_path(&id));
        docker.print(&id, b"at last\n");
    }
    wait_for(&agent, true, false, &["5 running containers are captured"])?;
    agent.stop()
}

/// A socket proxy or a plugin that lets lists through and no events: dockerd itself is fine, and the cure is elsewhere.
#[test]
fn refused_events_are_named() -> Result<()> {
    let (home, docker) = (Home::new()?, FakeDocker::start()?);
    docker.script("/events", Reply::status(403, "<html><body>403 Forbidden</body></html>"));
    let id = docker.add("web");
    let socket = socket_setting(&docker.socket());
    let agent = home.launch(&home.config(&format!(
        "container_monitor: {{socket_path: \"{socket}\", read_from: api, reconnect_interval: 1s}}\n"
    )))?;
    let says = |ok: bool, words: &[&str]| {
        wait_until("health of docker to say it", PATIENCE, || {
            let told = component(&agent, "docker")?;
            ensure!(told.0 == ok && words.iter().all(|word| told.2.contains(word)), "{words:?} in {told:?}");
            Ok(())
        })
    };
    says(false, &["refuses Docker's events", "answered 403", "allow GET /events"])?;
    ensure!(agent.log_text()?.contains("allow GET /events"), "the log has the cure, too");
    docker.heal("/events");
    docker.print(&id, b"at last\n");
    says(true, &["1 running container"])?;
    wait_until("its line", PATIENCE, || {
        ensure!(home.records_of("web")?.len() == 1, "none");
        Ok(())
    })?;
    wait_until("the end of the fault in the log", PATIENCE, || {
        let log = agent.log_text()?;
        let ends =
            log.lines().filter(|line| line.contains("component=docker") && line.contains("over after"));
        let ends = ends.count();
        ensure!(ends == 1, "{ends} ends of one fault: {log}");
        Ok(())
    })?;
    agent.stop()
}

const MANY: usize = 200;

/// Lines of the log that tell of a cause, once one of them has these words.
fn told(agent: &Agent, cause: &str, words: &[&str]) -> Result<Vec<String>> {
    wait_until(&format!("the log to gather what {cause} hits"), PATIENCE, || {
        let log = agent.log_text()?;
        let lines: Vec<String> = log.lines().filter(|line| line.contains(cause)).map(str::to_owned).collect();
        let is_it = |line: &String| words.iter().all(|word| line.contains(word));
        ensure!(lines.iter().any(is_it), "{words:?} in {:?}", lines.iter().take(5).collect::<Vec<_>>());
        Ok(lines)
    })
}

/// Whoever opens the log must see one cause with its cure and not a wall of names: whether they are read from files that
/// are not written, or Docker answers none of them.
#[test]
fn one_cause_of_many_containers_is_told_once() -> Result<()> {
    for (from, cause, cure) in [
        ("file", "its logging driver journald writes no json-file", "set that to auto"),
        ("api", "answered 500", "see what dockerd says: journalctl -u docker"),
    ] {
        let (home, docker) = (Home::new()?, FakeDocker::start()?);
        for number in 0..MANY {
            docker.add_scripted(
                &format!("web-{number:03}"),
                logs_path,
                &Reply::status(500, "{\"message\":\"no\"}"),
            );
        }
        let socket = socket_setting(&docker.socket());
        let agent = home.launch(&home.config(&format!(
            "container_monitor: {{socket_path: \"{socket}\", read_from: {from}, max_concurrent: 50}}\n"
        )))?;
        let lines = told(&agent, cause, &["sources within", "web-", "others)", cure])?;
        // One at once, then one for each ten seconds in which more of them came.
        let warnings = lines.iter().filter(|line| line.contains(" WARN ")).count();
        ensure!(warnings <= 10, "{warnings} lines: {lines:#?}");
        agent.stop()?;
    }
    Ok(())
}

/// The same of files: the mode of a directory's logs was changed.
#[test]
fn one_cause_of_many_files_is_told_once() -> Result<()> {
    let home = Home::new()?;
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    for number in 0..MANY {
        let log = input.join(format!("web-{number:03}.log"));
        fs::write(&log, "a line\n")?;
        fs::set_permissions(&log, fs::Permissions::from_mode(0o600))?;
    }
    for folder in [home.path(), &input] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let path = home.path().display();
    let agent = home.launch_as_nobody(&home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{path}/in/*.log\"]}}]}}\n"
    )))?;
    let lines =
        told(&agent, "can't be read", &["sources can't be read", "web-", " more", "CAP_DAC_READ_SEARCH"])?;
    let errors = lines.iter().filter(|line| line.contains(" ERROR ")).count();
    ensure!(errors <= 10, "{errors} lines: {lines:#?}");
    wait_until("health to count all", PATIENCE, || {
        let (_, health) = agent.ask("/health")?;
        ensure!(health.contains(&format!("{MANY} sources can't be read")), "{health}");
        Ok(())
    })?;
    agent.stop()
}
