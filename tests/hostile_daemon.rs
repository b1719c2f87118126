//! A daemon that lies, babbles, stalls or breaks off (`fake_docker`): a fault in one container or one answer affects
//! only that, is reported in a sentence, and never writes outside the output directory.
//!
//! Beside every fault runs a healthy neighbour, whose lines must arrive exactly.

mod no_answers;

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, Record};
use capturer_tests::fake_docker::{
    FakeDocker, HEAD_CHUNKED, LAST_CHUNK, Part, Reply, frame, inspect_path, inspection, logs_path,
    push_chunk, socket_setting, timed,
};
use capturer_tests::wait::{PATIENCE, wait_until};
use no_answers::{Fault, Followed, endless_chunk, no_answers};
use serde_json::json;

const NEIGHBOUR: &str = "neighbour";
/// The most memory that the agent may use with every hostile body there is. Idle it uses some 20 MiB, and the config
/// bounds its buffers for streams at 64 MiB.
const RSS_MAX: f64 = 200.0 * 1024.0 * 1024.0;

/// An agent on a fake Engine, with a neighbour that must not suffer.
struct Scene {
    agent: Agent,
    home: Home,
    fake: FakeDocker,
    neighbour: String,
    printed: usize,
}

impl Scene {
    fn start(more: &str) -> Result<Scene> {
        let (home, fake) = (Home::new()?, FakeDocker::start()?);
        let neighbour = fake.add(NEIGHBOUR);
        let agent = home.start(&config(&home, &fake, more))?;
        let mut scene = Scene { agent, home, fake, neighbour, printed: 0 };
        scene.neighbour_goes_on()?;
        Ok(scene)
    }

    /// The neighbour prints, and every line that it ever printed is there once and in order.
    fn neighbour_goes_on(&mut self) -> Result<()> {
        for number in self.printed..self.printed + 20 {
            self.fake.print(&self.neighbour, format!("line {number}").as_bytes());
        }
        self.printed += 20;
        let expected: Vec<String> = (0..self.printed).map(|number| format!("line {number}")).collect();
        wait_until("the neighbour's lines", PATIENCE, || {
            let got = self.home.count_of(NEIGHBOUR);
            ensure!(got >= expected.len(), "{got} of {}", expected.len());
            Ok(())
        })?;
        assert_eq!(messages(&self.home, NEIGHBOUR)?, expected);
        Ok(())
    }

    /// `/health` blames Docker with these words.
    fn await_blame(&self, parts: &[&str]) -> Result<()> {
        wait_until("health to say it", PATIENCE, || {
            let (status, body) = self.agent.ask("/health")?;
            let said = body.contains("docker") && parts.iter().all(|part| body.contains(part));
            ensure!(status == 503 && said, "{parts:?} are not in: {status} {body}");
            Ok(())
        })
    }

    fn await_health(&self) -> Result<()> {
        wait_until("health to be well", PATIENCE, || self.agent.get("/health")).map(drop)
    }

    /// The container's row names this as its last error.
    fn await_error(&self, id: &str, part: &str) -> Result<()> {
        wait_until("the stream to say it", PATIENCE, || {
            let row =
                self.agent.streams()?.into_iter().find(|row| row["container_id"] == id).context("no row")?;
            let said = row["last_error"].as_str().unwrap_or_default();
            ensure!(said.contains(part), "{part:?} is not in: {row}");
            Ok(())
        })
    }

    /// The container's stream follows, its reads have been ended by their timer, and it has no error.
    fn await_quiet(&self, id: &str) -> Result<()> {
        wait_until("the stream to follow in silence", PATIENCE, || {
            let rows = self.agent.streams()?;
            let row = rows.iter().find(|row| row["container_id"] == id).context("no row")?;
            ensure!(row["state"] == "following" && row["read_timeouts"].as_u64() >= Some(2), "{row}");
            ensure!(row["last_error"].as_str().is_none_or(str::is_empty), "{row}");
            Ok(())
        })
    }

    fn await_messages(&self, name: &str, expected: &[&str]) -> Result<()> {
        let _ = wait_until("the lines", PATIENCE, || self.home.count_of(name) >= expected.len());
        assert_eq!(messages(&self.home, name)?, expected, "{name}");
        Ok(())
    }

    fn skipped(&self, reason: &str) -> Result<f64> {
        self.agent.metric(&format!("skipped_records_total{{reason=\"{reason}\"}}"))
    }

    /// It exits with success, has used little memory and never panicked.
    fn end(self) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")).context("no VmHWM")?;
        let peak = peak.parse::<f64>()? * 1024.0;
        println!("peak of resident memory: {:.1} MiB", peak / 1024.0 / 1024.0);
        ensure!(peak < RSS_MAX, "{peak} bytes");
        let log = self.agent.log_text()?;
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        self.agent.stop()
    }
}

/// Does this to a daemon and its agent; then the neighbour still continues and the agent exits with success.
fn beside_a_neighbour(more: &str, test: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    let mut scene = Scene::start(more)?;
    test(&mut scene)?;
    scene.neighbour_goes_on()?;
    scene.end()
}

fn config(home: &Home, fake: &FakeDocker, more: &str) -> String {
    home.config(&format!(
        "container_monitor: {{socket_path: \"{}\", read_timeout: 1s, reconnect_interval: 1s, {more}}}\n",
        socket_setting(&fake.socket())
    ))
}

fn messages(home: &Home, name: &str) -> Result<Vec<String>> {
    Ok(home.records_of(name)?.into_iter().map(|record| record.message).collect())
}

// ---- answers

#[test]
fn no_answer_to_the_list() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        for Fault { what, reply, asked, .. } in no_answers() {
            scene.fake.script("/containers/json", reply);
            scene.await_blame(&["can't get the list of containers", asked]).context(what)?;
            scene.neighbour_goes_on().context(what)?;
            scene.fake.heal("/containers/json");
            let name = format!("after-{}", what.replace(' ', "-"));
            let id = scene.fake.add(&name);
            scene.fake.print(&id, b"found");
            scene.await_messages(&name, &["found"]).context(what)?;
            scene.await_health().context(what)?;
        }
        Ok(())
    })
}

#[test]
fn no_answer_to_inspect() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let other = "f".repeat(64);
        let mut table = no_answers();
        table.push(Fault {
            what: "another container",
            reply: Reply::json(&inspection(&other, "other", false)),
            asked: "can't be read",
            followed: Followed::Error("frame"),
        });
        for Fault { what, reply, asked, .. } in table {
            let name = format!("victim-{}", what.replace(' ', "-"));
            let id = scene.fake.add_scripted(&name, inspect_path, &reply);
            scene.await_blame(&["not captured", &id[..12], asked]).context(what)?;
            scene.neighbour_goes_on().context(what)?;
            scene.fake.print(&id, b"after all");
            scene.fake.heal(&inspect_path(&id));
            scene.await_messages(&name, &["after all"]).context(what)?;
            scene.await_health().context(what)?;
        }
        Ok(())
    })
}

#[test]
fn no_answer_to_logs() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        for Fault { what, reply, followed, .. } in no_answers() {
            let name = format!("victim-{}", what.replace(' ', "-"));
            let counted = match followed {
                Followed::Counted(reason) => Some((reason, scene.skipped(reason)?)),
                Followed::Error(_) | Followed::Quiet => None,
            };
            let id = scene.fake.add_scripted(&name, logs_path, &reply);
            match followed {
                Followed::Error(said) => scene.await_error(&id, said).context(what)?,
                Followed::Quiet => scene.await_quiet(&id).context(what)?,
                Followed::Counted(_) => {}
            }
            if let Some((reason, before)) = counted {
                wait_until("it to be counted", PATIENCE, || {
                    let now = scene.skipped(reason)?;
                    ensure!(now > before, "{reason} is {now}");
                    Ok(())
                })
                .context(what)?;
            }
            scene.neighbour_goes_on().context(what)?;
            scene.fake.print(&id, b"after all");
            scene.fake.heal(&logs_path(&id));
            if matches!(followed, Followed::Quiet) {
                scene.fake.break_connections();
            }
            scene.await_messages(&name, &["after all"]).context(what)?;
        }
        Ok(())
    })
}

/// As many hostile bodies at once as may be requested: their bounds must not add up.
#[test]
fn endless_answers_everywhere_stay_small() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let body = Reply::raw(HEAD_CHUNKED).then(Part::Endless(endless_chunk()));
        let ids: Vec<String> = (0..30)
            .map(|number| scene.fake.add_scripted(&format!("victim-{number}"), inspect_path, &body))
            .collect();
        wait_until("every inspection", PATIENCE, || {
            let missing = ids.iter().filter(|id| scene.fake.asked(&inspect_path(id)) < 2).count();
            ensure!(missing == 0, "{missing} were not asked for twice");
            Ok(())
        })?;
        Ok(())
    })
}

// ---- events

/// The list is only requested once an hour here, so new containers are only found by the event stream.
#[test]
fn events_behind_garbage_are_understood() -> Result<()> {
    beside_a_neighbour("list_interval: 1h", |scene| {
        let id = scene.fake.add("new");
        scene.fake.print(&id, b"found");
        let mut chunks = Vec::new();
        for line in [
            &b"garbage\n"[..],
            b"\n\n{}\n[]\nnull\n{\"Action\":7}\n{\"Action\":\"start\",\"Actor\":null}\n",
            b"{\"Action\":\"start\",\"Actor\":{\"ID\":\"../../etc\"}}\n\0\xff\xfe\n",
            &[b'x'; 10 * 1024 * 1024],
            b"\n",
        ] {
            line.chunks(64 * 1024).for_each(|part| push_chunk(&mut chunks, part));
        }
        push_chunk(
            &mut chunks,
            format!("{{\"Action\":\"start\",\"Actor\":{{\"ID\":\"{id}\"}}}}\n").as_bytes(),
        );
        let asked = scene.fake.asked("/events");
        scene.fake.script_each("/events", [Reply::raw([HEAD_CHUNKED, &chunks].concat()).then(Part::Hold)]);
        scene.fake.break_connections();
        wait_until("the event stream to be opened again", PATIENCE, || scene.fake.asked("/events") > asked)?;
        scene.await_messages("new", &["found"])?;
        Ok(())
    })
}

/// Its log is made a moment before it runs; an inspection then shows a container that never ran. Nobody could open the
/// log.
#[test]
fn one_that_was_seen_only_before_it_ran_is_declared() -> Result<()> {
    for read_from in ["file", "api"] {
        beside_a_neighbour("list_interval: 1h", |scene| {
            let log = scene.home.path().join("gone/x-json.log");
            let id = scene.fake.add_hidden("victim", false);
            let mut facts = inspection(&id, "victim", false);
            facts["State"] = json!({"Running": false, "FinishedAt": "0001-01-01T00:00:00Z"});
            if read_from == "file" {
                facts["LogPath"] = json!(log);
                facts["HostConfig"]["LogConfig"]["Type"] = json!("json-file");
            }
            scene.fake.script(&inspect_path(&id), Reply::json(&facts));
            let tell = |actions: &[&str]| {
                let actor = json!({"ID": id, "Attributes": {"name": "victim", "image": "i"}});
                let mut answer = HEAD_CHUNKED.to_vec();
                for action in actions {
                    let event = format!("{}\n", json!({"Action": action, "Actor": actor}));
                    push_chunk(&mut answer, event.as_bytes());
                }
                scene.fake.script_each("/events", [Reply::raw(answer).then(Part::Hold)]);
                scene.fake.break_connections();
            };
            tell(&["create"]);
            wait_until("its stream", PATIENCE, || {
                let rows = scene.agent.streams()?;
                ensure!(rows.iter().any(|row| row["container_id"] == id.as_str()), "{rows:?}");
                Ok(())
            })?;
            let gone = Reply::status(404, format!("{{\"message\":\"No such container: {id}\"}}"));
            scene.fake.script(&inspect_path(&id), gone.clone());
            scene.fake.script(&logs_path(&id), gone);
            tell(&["start", "die", "destroy"]);
            wait_until("the loss to be declared", PATIENCE, || {
                let declared = scene.agent.metric("losses_total{reason=\"container_gone_unread\"}")?;
                ensure!(declared == 1.0, "{read_from}: {declared}");
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// An event stream that ends at once each time must not become a storm of connections.
#[test]
fn an_event_stream_that_always_ends_is_no_storm() -> Result<()> {
    beside_a_neighbour("list_interval: 1h", |scene| {
        for (reply, said) in [
            (Reply::raw([HEAD_CHUNKED, LAST_CHUNK].concat()), "ended the event stream"),
            (Reply::raw("garbage"), "/events"),
            (Reply::status(500, "{}"), "answered 500"),
        ] {
            scene.fake.script("/events", reply);
            scene.fake.break_connections();
            let before = scene.fake.asked("/events");
            // With pauses of 200, 400, 800 ms and then a second, ten openings take over five seconds.
            let started = std::time::Instant::now();
            wait_until("ten openings", PATIENCE, || scene.fake.asked("/events") >= before + 10)?;
            ensure!(started.elapsed() > Duration::from_secs(4), "ten openings in {:?}", started.elapsed());
            scene.await_blame(&[said])?;
            scene.neighbour_goes_on()?;
        }
        scene.fake.heal("/events");
        scene.await_health()?;
        Ok(())
    })
}

/// A socket proxy or an authorization plugin allows everything but events.
#[test]
fn containers_are_found_and_followed_while_events_are_refused() -> Result<()> {
    beside_a_neighbour("list_interval: 1h", |scene| {
        for (status, name) in [(403, "first"), (501, "second")] {
            scene.fake.script("/events", Reply::status(status, r#"{"message":"authorization denied"}"#));
            scene.fake.break_connections();
            scene.await_blame(&["authorization denied", "EVENTS=1", "lives shorter"])?;
            let id = scene.fake.add(name);
            scene.fake.print(&id, b"found");
            scene.await_messages(name, &["found"])?;
            scene.neighbour_goes_on()?;
            scene.fake.heal("/events");
            scene.await_health()?;
        }
        Ok(())
    })
}

/// It accepts, reads, and no longer answers, on old and on new connections.
#[test]
fn a_silent_daemon_is_named_and_taken_up_again() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        scene.fake.set_silent(true);
        scene.await_blame(&["no answer"])?;
        scene.fake.print(&scene.neighbour, b"line 20");
        scene.printed += 1;
        scene.fake.set_silent(false);
        scene.await_health()?;
        Ok(())
    })
}

/// With the default times a frozen daemon was named after 55 s, and its streams said the same once each.
#[test]
fn a_frozen_daemon_is_named_soon_and_once() -> Result<()> {
    const STREAMS: usize = 20;
    let (home, fake) = (Home::new()?, FakeDocker::start()?);
    for number in 0..STREAMS {
        fake.add(&format!("app-{number}"));
    }
    let agent = home.start(&home.config(&format!(
        "container_monitor: {{socket_path: \"{}\", list_interval: 10m, stream_rotation: {{interval: 2s, idle_interval: 2s}}}}\n",
        socket_setting(&fake.socket())
    )))?;
    wait_until("all to follow", PATIENCE, || {
        let rows = agent.streams()?;
        let following = rows.iter().filter(|row| row["state"] == "following").count();
        ensure!(following == STREAMS, "{following}");
        Ok(())
    })?;
    fake.set_silent(true);
    let begun = Instant::now();
    wait_until("health to name it", PATIENCE, || {
        let (is_well, said) = agent.health_of("docker")?;
        ensure!(
            !is_well
                && said.contains("Docker has not answered for 1")
                && said.contains("timeout 5 docker info"),
            "{said}"
        );
        Ok(())
    })?;
    let named = begun.elapsed();
    println!("named after {:.1} s", named.as_secs_f64());
    ensure!(named < Duration::from_secs(30), "{named:?}");
    ensure!(agent.metric("component_health{component=\"docker\"}")? == 0.0);
    // Each rotation opens a connection, whose time-out comes later.
    wait_until("the streams to fail", PATIENCE, || {
        let failed = agent.metric("container_stream_errors_total{error_type=\"read_timeout\"}")?;
        ensure!(failed >= 5.0, "{failed}");
        Ok(())
    })?;
    fake.set_silent(false);
    wait_until("health to be well", PATIENCE, || {
        let (is_well, said) = agent.health_of("docker")?;
        ensure!(is_well, "{said}");
        Ok(())
    })?;
    wait_until("the log to say that it is over", PATIENCE, || {
        let log = agent.log_text()?;
        ensure!(
            log.lines().any(|line| line.contains("over after ") && line.contains("component=docker")),
            "{log}"
        );
        Ok(())
    })?;
    let log = agent.log_text()?;
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    let is_it = |line: &&&str| {
        line.contains("Docker does not answer: no answer to GET /_ping within 10 s; check dockerd")
    };
    ensure!(told.iter().filter(is_it).count() == 1, "{told:#?}");
    ensure!(!told.iter().any(|line| line.contains("no answer") && !is_it(&line)), "{told:#?}");
    agent.stop()
}

/// A dead connection looks like a quiet container: that is what rotation is for.
#[test]
fn a_wedged_connection_lives_until_its_rotation() -> Result<()> {
    beside_a_neighbour("stream_rotation: {interval: 2s, idle_interval: 2s}", |scene| {
        let wedged = Reply::raw(HEAD_CHUNKED).then(Part::Hold);
        let id = scene.fake.add_scripted("victim", logs_path, &wedged);
        wait_until("the connection", PATIENCE, || scene.fake.asked(&logs_path(&id)) > 0)?;
        scene.fake.heal(&logs_path(&id));
        scene.fake.print(&id, b"after all");
        scene.await_messages("victim", &["after all"])?;
        Ok(())
    })
}

/// The log itself shows that such a connection is not a quiet container's, if its file can be read.
#[test]
fn a_wedged_connection_whose_log_grows_is_left_for_the_files() -> Result<()> {
    beside_a_neighbour("read_from: api, list_interval: 1s", |scene| {
        let log = scene.home.path().join("victim-json.log");
        let append = |number: u64| -> Result<()> {
            let time = String::from_utf8(timed(number, b""))?;
            let record =
                json!({"log": format!("line {number}\n"), "stream": "stdout", "time": time.trim_end()});
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
            Ok(writeln!(file, "{record}")?)
        };
        append(0)?;
        let id = scene.fake.add_hidden("victim", false);
        let mut facts = inspection(&id, "victim", false);
        facts["LogPath"] = json!(log);
        facts["HostConfig"]["LogConfig"]["Type"] = json!("json-file");
        scene.fake.script(&inspect_path(&id), Reply::json(&facts));
        scene.fake.script(&logs_path(&id), Reply::raw(HEAD_CHUNKED).then(Part::Hold));
        scene.fake.show(&id);
        let mut written = 1;
        wait_until("the files to be read", PATIENCE, || {
            append(written)?;
            written += 1;
            let got = scene.home.count_of("victim");
            ensure!(
                got > 0,
                "{got} of {written} lines, and {} connections",
                scene.fake.asked(&logs_path(&id))
            );
            Ok(())
        })?;
        let lines: Vec<String> = (0..written).map(|number| format!("line {number}")).collect();
        scene.await_messages("victim", &lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(scene.agent.metric("container_stream_errors_total{error_type=\"stalled\"}")?, 1.0);
        Ok(())
    })
}

/// A container whose log can't be read costs little and is reported; nobody else waits for it.
#[test]
fn a_stream_that_always_fails_is_paused_until_it_brings_a_line() -> Result<()> {
    beside_a_neighbour("circuit_breaker: {failures: 3, pause: 3s}", |scene| {
        let id = scene.fake.add_scripted(
            "victim",
            logs_path,
            &Reply::status(500, "{\"message\": \"no such disk\"}"),
        );
        let row = |scene: &Scene| -> Result<serde_json::Value> {
            let rows = scene.agent.streams()?;
            rows.into_iter().find(|row| row["container_id"] == id).context("no row")
        };
        // It is in a pause: after how many failures? The number of requests by then is read first, so that it can't be
        // higher.
        let paused = |scene: &Scene| -> Result<(usize, u64)> {
            let (asked, row) = (scene.fake.asked(&logs_path(&id)), row(scene)?);
            let cause = row["cause"].as_str().unwrap_or_default();
            let failures = cause.split("after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            let said =
                ["paused for", "failures in a row", "no such disk"].iter().all(|part| cause.contains(part));
            ensure!(row["state"] == "waiting" && said, "{row}");
            Ok((asked, failures.with_context(|| format!("no number: {row}"))?))
        };
        let (asked, first) = wait_until("the pause", PATIENCE, || paused(scene))?;
        ensure!(first >= 3 && asked as u64 <= first, "asked {asked} times, paused after {first} failures");
        scene.neighbour_goes_on()?;
        // Tried once, and paused again.
        let second = wait_until("the next pause", PATIENCE, || {
            let (asked, failures) = paused(scene)?;
            ensure!(failures > first && asked as u64 <= failures, "{failures} failures, asked {asked} times");
            Ok(failures)
        })?;
        let opened = scene.agent.metric("container_stream_errors_total{error_type=\"circuit_open\"}")?;
        ensure!(opened >= (second - 2) as f64, "{opened} pauses were counted, {second} failures");
        scene.fake.print(&id, b"after all");
        scene.fake.heal(&logs_path(&id));
        scene.await_messages("victim", &["after all"])?;
        // The next failure is the first again.
        scene.fake.script(&logs_path(&id), Reply::status(500, "{\"message\": \"no such disk\"}"));
        scene.fake.break_connections();
        wait_until("the pause", PATIENCE, || {
            let failures = paused(scene)?.1;
            ensure!((3..=second).contains(&failures), "{failures} failures, so they were not counted anew");
            Ok(())
        })
    })
}

/// The host's clock was set back: what is printed then is older than what was delivered, and an Engine that is asked for what
/// came after a time leaves it out.
#[test]
fn a_clock_set_back_loses_no_line() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let id = scene.fake.add("victim");
        scene.fake.print_at(&id, b"before", SystemTime::now() + Duration::from_secs(3600));
        scene.await_messages("victim", &["before"])?;
        let after = ["first", "second", "third"];
        for (number, text) in (2..).zip(after) {
            scene.fake.break_connections();
            scene.fake.print_now(&id, text.as_bytes());
            scene.await_messages("victim", &[&["before"], &after[..number - 1]].concat())?;
        }
        Ok(())
    })
}

// ---- frames

#[test]
fn bad_frames_cost_only_what_is_behind_them() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let good = frame(1, &timed(1, b"good"));
        let huge_header = [&[1, 0, 0, 0][..], &[0xff; 4]].concat();
        let table = [
            ("four-gib", huge_header, "frame_invalid", "frame"),
            ("unknown-type", frame(7, b"what"), "frame_invalid", "frame"),
            ("type-zero", frame(0, b"in"), "frame_invalid", "frame"),
            ("dirty-header", vec![1, 2, 3, 4, 0, 0, 0, 1, b'x'], "frame_invalid", "frame"),
            ("garbage", b"2026-11-22 not framed at all\n".to_vec(), "frame_invalid", "frame"),
            ("daemon-error", frame(3, b"disk is gone\n"), "daemon_error_frame", "disk is gone"),
            ("no-time", frame(1, b"a line without a time\n"), "record_invalid", ""),
            ("odd-time", frame(2, b"2026-99-99T99:99:99.000000000Z x\n"), "record_invalid", ""),
        ];
        for (name, bad, reason, said) in table {
            let before = scene.skipped(reason)?;
            let reply = Reply::chunks([&good[..], &bad]).then(Part::Hold);
            let id = scene.fake.add_scripted(name, logs_path, &reply);
            wait_until("it to be counted", PATIENCE, || {
                let now = scene.skipped(reason)?;
                ensure!(now > before, "{reason} is {now}");
                Ok(())
            })
            .context(name)?;
            scene.await_error(&id, said).context(name)?;
            scene.await_messages(name, &["good"])?;
            scene.neighbour_goes_on().context(name)?;
            // Once the Engine works again: delivered lines are not repeated, missing ones arrive.
            let whole = [&good[..], &frame(2, &timed(2, b"rest"))];
            scene.fake.script(&logs_path(&id), Reply::chunks(whole).then(Part::Hold));
            scene.fake.break_connections();
            scene.await_messages(name, &["good", "rest"])?;
        }
        Ok(())
    })
}

fn several_frames() -> (Vec<u8>, [&'static str; 5]) {
    let frames = [
        frame(1, &timed(1, b"one")),
        frame(2, b""),
        frame(2, &timed(2, b"two")),
        frame(1, &timed(3, b"")),
        frame(1, b""),
        frame(1, &timed(4, "dréi".as_bytes())),
        frame(2, &timed(4, b"four")),
    ];
    (frames.concat(), ["one", "two", "", "dréi", "four"])
}

#[test]
fn frames_split_at_every_byte() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let (bytes, expected) = several_frames();
        let names: Vec<String> = (0..bytes.len()).map(|at| format!("split-{at}")).collect();
        for (at, name) in names.iter().enumerate() {
            let (head, rest) = bytes.split_at(at);
            let mut last = Vec::new();
            push_chunk(&mut last, rest);
            let reply =
                Reply::chunks([head]).then(Part::Pause(Duration::from_millis(20))).then(Part::Bytes(last));
            scene.fake.add_scripted(name, logs_path, &reply.last_chunk());
        }
        let mut trickled = Vec::new();
        bytes.iter().for_each(|byte| push_chunk(&mut trickled, &[*byte]));
        let reply =
            Reply::raw(HEAD_CHUNKED).then(Part::Trickle(trickled, Duration::from_millis(1))).last_chunk();
        scene.fake.add_scripted("trickled", logs_path, &reply);
        for name in names.iter().map(String::as_str).chain(["trickled"]) {
            scene.await_messages(name, &expected)?;
        }
        Ok(())
    })
}

/// The connection breaks off at any byte of the answer, head included; the next one is whole.
#[test]
fn an_answer_cut_at_every_byte() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let (bytes, expected) = several_frames();
        let mut whole = HEAD_CHUNKED.to_vec();
        bytes.chunks(40).for_each(|part| push_chunk(&mut whole, part));
        whole.extend_from_slice(LAST_CHUNK);
        let names: Vec<String> = (0..whole.len()).map(|at| format!("cut-{at}")).collect();
        for (at, name) in names.iter().enumerate() {
            let id = scene.fake.add_hidden(name, false);
            scene.fake.script_each(&logs_path(&id), [Reply::raw(&whole[..at]), Reply::raw(whole.clone())]);
            scene.fake.show(&id);
        }
        for name in &names {
            scene.await_messages(name, &expected)?;
        }
        Ok(())
    })
}

/// A clean end in the middle of a frame: the part is unusable, and is counted.
#[test]
fn a_clean_end_within_a_frame_is_counted() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let good = frame(1, &timed(1, b"good"));
        let half = &frame(1, &timed(2, b"torn"))[..20];
        scene.fake.add_scripted("half", logs_path, &Reply::chunks([&good[..], half]).last_chunk());
        wait_until("it to be counted", PATIENCE, || {
            ensure!(scene.skipped("torn_record")? > 0.0, "not yet");
            Ok(())
        })?;
        scene.await_messages("half", &["good"])?;
        Ok(())
    })
}

/// `Config.Tty` decides the framing, never the bytes.
#[test]
fn a_tty_that_prints_frame_headers_is_taken_at_its_word() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let id = scene.fake.add_with("tty", true);
        let lines = [
            "\u{1}\0\0\0\0\0\0\u{5}",
            "\u{3}\0\0\0\0\0\0\u{3}abc",
            "\u{2}\0\0\0\u{7f}\u{7f}\u{7f}\u{7f}",
            "\r",
        ];
        for line in lines {
            scene.fake.print(&id, line.as_bytes());
        }
        // The carriage return is the terminal's, and ends the line.
        scene.await_messages("tty", &[lines[0], lines[1], lines[2], ""])?;
        let records: Vec<Record> = scene.home.records_of("tty")?;
        ensure!(records.iter().all(|record| record.stream == "stdout"), "{records:?}");
        Ok(())
    })
}

/// A TTY's bytes without a time in front are no lines: skipped and counted, using little memory.
#[test]
fn a_tty_without_times_is_passed_over() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let mut chunks = Vec::new();
        push_chunk(&mut chunks, &[b'x'; 20 * 1024 * 1024]);
        push_chunk(&mut chunks, b"\n");
        push_chunk(&mut chunks, &timed(1, b"good"));
        for number in 0..20 {
            let id = scene.fake.add_hidden(&format!("tty-{number}"), true);
            scene.fake.script(&logs_path(&id), Reply::raw([HEAD_CHUNKED, &chunks].concat()).then(Part::Hold));
            scene.fake.show(&id);
        }
        for number in 0..20 {
            scene.await_messages(&format!("tty-{number}"), &["good"])?;
        }
        ensure!(scene.skipped("record_invalid")? > 0.0, "nothing was counted");
        Ok(())
    })
}

/// An answer without containers, or a page that is not found, ends no stream: a proxy in front of the Engine, or an
/// Engine that is starting, answers this way. Nothing is repeated when the Engine names them again.
#[test]
fn an_empty_list_and_a_404_remove_nothing() -> Result<()> {
    beside_a_neighbour("list_interval: 1s", |scene| {
        let (list, inspect) = ("/containers/json", inspect_path(&scene.neighbour));
        for (what, path, reply) in [
            ("an empty list", list, Reply::json(&json!([]))),
            ("a page not found", &*inspect, Reply::status(404, r#"{"message":"page not found"}"#)),
            ("no JSON", &*inspect, Reply::status(404, "<html>not found</html>")),
        ] {
            let asked = scene.fake.asked(path);
            scene.fake.script(path, reply);
            wait_until("it to be asked for", PATIENCE, || {
                scene.fake.asked(path) >= asked + usize::from(path == list) * 5
            })?;
            scene.neighbour_goes_on().context(what)?;
            scene.fake.heal(path);
            scene.neighbour_goes_on().context(what)?;
        }
        let rows = scene.agent.streams()?;
        ensure!(rows.iter().filter(|row| row["name"] == NEIGHBOUR).count() == 1, "{rows:?}");
        Ok(())
    })
}

/// Renamed out of the include list and back, it continues where it was.
#[test]
fn a_container_that_leaves_the_include_list_keeps_its_position() -> Result<()> {
    beside_a_neighbour("list_interval: 1s, include_names: [neighbour, wanted]", |scene| {
        let id = scene.fake.add("wanted");
        scene.fake.print(&id, b"one");
        scene.await_messages("wanted", &["one"])?;
        let streams = |scene: &Scene, count: usize| {
            wait_until("the streams", PATIENCE, || {
                let rows = scene.agent.streams()?;
                ensure!(rows.len() == count, "{rows:?}");
                Ok(())
            })
        };
        scene.fake.script(&inspect_path(&id), Reply::json(&inspection(&id, "other", false)));
        scene.fake.set_state(&id, "paused");
        streams(scene, 1)?;
        scene.fake.print(&id, b"two");
        scene.fake.heal(&inspect_path(&id));
        scene.fake.set_state(&id, "running");
        streams(scene, 2)?;
        scene.fake.print(&id, b"three");
        scene.await_messages("wanted", &["one", "two", "three"])
    })
}

/// A typing error in the include list must not look like a host without containers.
#[test]
fn names_that_match_nothing_are_said() -> Result<()> {
    let (home, fake) = (Home::new()?, FakeDocker::start()?);
    fake.add("web");
    let agent = home.start(&config(&home, &fake, "include_names: [wbe]"))?;
    wait_until("health to name the pattern", PATIENCE, || {
        let (status, body) = agent.ask("/health")?;
        ensure!(status == 503 && body.contains("include_names (wbe)"), "{body}");
        Ok(())
    })?;
    agent.stop()
}
