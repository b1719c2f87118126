//! Names and labels that a container's owner chose to do harm: no file outside the directory, and no forged metric or
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::fake_docker::{FakeDocker, Reply, inspect_path, inspection, socket_setting};
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::Value;

fn config(home: &Home, fake: &FakeDocker, more: &str, file: &str) -> String {
    let monitor = format!(
        "container_monitor: {{socket_path: \"{}\", read_timeout: 1s, reconnect_interval: 1s, {more}}}\n",
        socket_setting(&fake.socket())
    );
    home.config(&monitor).replace("{container_name}.ndjson", file)
}

/// The name is the only property of a container that becomes a path.
#[test]
fn no_name_leads_outside_and_no_two_share_a_file() -> Result<()> {
    let long = "n".repeat(60_000);
    let longer = format!("{long}x");
    let names = [
        "../x",
        "..",
        ".",
        "/",
        "",
        "//",
        "a/b",
        "a_b",
        "a\\b",
        "../../../../tmp/x",
        "web",
        "web.",
        "~",
        "-rf",
        "con:1",
        "nul\0byte",
        "line\nbreak",
        "\u{1b}[31mred",
        "\u{202e}evil",
        "é",
        "e\u{301}",
        "{container_id}",
        "x.ndjson",
        &long,
        &longer,
    ];
    let (home, fake) = (Home::new()?, FakeDocker::start()?);
    let ids: Vec<String> = names.iter().map(|name| fake.add(name)).collect();
    let config = config(&home, &fake, "list_interval: 1s", "{container_name}.ndjson");
    for round in 0..2 {
        let agent = home.start(&config)?;
        for id in &ids {
            fake.print(id, format!("{id} {round}").as_bytes());
        }
        wait_until("a line of each", PATIENCE, || {
            let lines: usize = home.records()?.values().map(Vec::len).sum();
            ensure!(lines >= names.len() * (round + 1), "{lines} lines");
            Ok(())
        })?;
        agent.get("/metrics")?;
        agent.get("/api/v1/streams")?;
        // The agent's log has no names, as far as is known; but it has the Engine's error messages, with the same
        // characters in them.
        let said = serde_json::json!({"message": "\u{1b}[31mred\0 \u{202e}evil"});
        fake.script("/containers/json", Reply::status(500, said.to_string()));
        let log = wait_until("the log to have it", PATIENCE, || {
            let log = agent.log_text()?;
            ensure!(log.contains("[31mred"), "{log}");
            Ok(log)
        })?;
        fake.heal("/containers/json");
        ensure!(!log.contains(['\0', '\u{1b}', '\u{202e}']), "a name's control characters are in the log");
        agent.stop()?;
    }
    let outputs = home.records()?;
    assert_eq!(outputs.len(), names.len(), "{:?}", outputs.keys());
    let mut seen = BTreeSet::new();
    for (file, records) in outputs {
        let id = records[0].message.split(' ').next().context("no ID")?.to_owned();
        let texts: Vec<String> = records.into_iter().map(|record| record.message).collect();
        assert_eq!(texts, [format!("{id} 0"), format!("{id} 1")], "{file}");
        seen.insert(id);
    }
    assert_eq!(seen, ids.into_iter().collect());
    nothing_beside(&home)
}

/// A label's value may be anything of any length, and it goes into records, paths and (by a pipeline) labels.
#[test]
fn no_label_forges_a_record_a_metric_or_a_path() -> Result<()> {
    let long = "v".repeat(10 * 1024);
    let values = [
        "..",
        "../..",
        "a/../../b",
        "/etc/passwd",
        "",
        "\"}\n{\"message\":\"forged\"}",
        "x\",\"message\":\"forged",
        "line\nlog_capturer_lines_forged_total 1\n",
        "quote\" brace} comma, equals=",
        "nul\0 bell\u{7} escape\u{1b}[2J del\u{7f}",
        "\u{202e}drowssap \u{2066}x\u{2069}",
        "back\\slash \\u0041 \\",
        &long,
    ];
    let (home, fake) = (Home::new()?, FakeDocker::start()?);
    let mut expected = BTreeMap::new();
    for (number, value) in values.iter().enumerate() {
        let name = format!("labelled-{number}");
        let id = fake.add_hidden(&name, false);
        let mut facts = inspection(&id, &name, false);
        facts["Config"]["Labels"] = serde_json::json!({"team": value, "a\"b\n": value});
        fake.script(&inspect_path(&id), Reply::json(&facts));
        fake.show(&id);
        fake.print(&id, name.as_bytes());
        expected.insert(name, *value);
    }
    let labels = "record_labels: [team, \"a\\\"b\\n\"]";
    let pipeline = "pipelines: [{name: all, steps: [{labels: {from_container_labels: {group: team}}}]}]\n";
    let agent =
        home.start(&(config(&home, &fake, labels, "{label:team}/{container_name}.ndjson") + pipeline))?;
    let outputs = wait_until("a line of each", PATIENCE, || {
        let outputs = files_beneath(&home.output_dir())?;
        let lines = outputs.iter().map(|path| Ok(fs::read_to_string(path)?.lines().count()));
        let lines: usize = lines.sum::<Result<usize>>()?;
        ensure!(lines >= values.len(), "{lines} lines");
        Ok(outputs)
    })?;
    let mut seen = BTreeSet::new();
    for output in &outputs {
        for line in fs::read_to_string(output)?.lines() {
            let record: Value =
                serde_json::from_str(line).with_context(|| format!("{output:?}: {line:?}"))?;
            let name = record["container_name"].as_str().context("no name")?.to_owned();
            ensure!(record["message"] == name, "{line}");
            let value = expected.get(&name).with_context(|| format!("nobody is called {name}"))?;
            for label in ["team", "a\"b\n", "group"] {
                let got = record["labels"][label].as_str().unwrap_or_default();
                // What is longer than 4 KiB is shortened, and says so.
                let whole = got == *value;
                let shortened = got.strip_suffix('…').is_some_and(|start| value.starts_with(start));
                ensure!(whole || (shortened && value.len() > 4096), "{label} of {name}: {got:?}");
            }
            ensure!(seen.insert(name), "twice: {line}");
        }
    }
    assert_eq!(seen.len(), values.len());
    let exposition = agent.get("/metrics")?;
    for line in exposition.lines() {
        let sample = line.starts_with("log_capturer_") && line.rsplit(' ').next().is_some_and(is_number);
        ensure!(line.starts_with('#') || sample, "a line that is no sample: {line:?}");
    }
    ensure!(!exposition.contains("forged"), "a label's value is in the metrics");
    let log = agent.log_text()?;
    ensure!(!log.contains(['\0', '\u{1b}', '\u{202e}', '\u{2066}']), "control characters are in the log");
    agent.stop()?;
    nothing_beside(&home)
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

fn files_beneath(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files.extend(files_beneath(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    Ok(files)
}

/// The test's folder contains only what the agent was told to make.
fn nothing_beside(home: &Home) -> Result<()> {
    let beside: BTreeSet<_> =
        fs::read_dir(home.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    let expected = ["agent.log", "config.yaml", "data", "out"].map(std::ffi::OsString::from);
    assert_eq!(beside, expected.into_iter().collect());
    Ok(())
}
