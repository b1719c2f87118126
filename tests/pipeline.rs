//! Pipelines as users run them: every example of docs/pipeline.md, the counts of what happened to lines, and a crash.
//! Files are followed; no Engine is needed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, program};
use capturer_tests::wait::{PATIENCE, pass, wait_until};

/// An example of the document.
struct Example {
    line: usize,
    config: String,
    input: String,
    output: String,
}

/// The blocks of the document that belong together: yaml, input, output; and configs without input.
fn examples() -> Result<(Vec<Example>, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pipeline.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (mut examples, mut blocks, mut open): (Vec<Example>, Vec<(String, String)>, Option<usize>) =
        (Vec::new(), Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(kind), None) => {
                blocks.push((kind.to_owned(), String::new()));
                open = Some(number + 1);
            }
            (Some(_), Some(begun)) => {
                open = None;
                if let [.., (yaml, config), (input, lines), (output, records)] = &blocks[..]
                    && (yaml.as_str(), input.as_str(), output.as_str()) == ("yaml", "input", "output")
                {
                    let [config, input, output] = [config, lines, records].map(Clone::clone);
                    examples.push(Example { line: begun, config, input, output });
                    blocks.truncate(blocks.len() - 3);
                }
            }
            (None, Some(_)) => {
                let (_, block) = blocks.last_mut().context("a block is open")?;
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "a block of {} does not end", path.display());
    ensure!(blocks.iter().all(|(kind, _)| kind == "yaml"), "input or output that belongs to no config");
    Ok((examples, blocks.into_iter().map(|(_, config)| config).collect()))
}

/// The output of `capturer check` for a valid config.
fn checked(home: &Home, config: &str) -> Result<String> {
    let path = home.path().join("c.yaml");
    fs::write(&path, config)?;
    let ended = Command::new(program()).args(["check", "-c"]).arg(&path).output()?;
    ensure!(ended.status.success(), "{config}\n{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8(ended.stdout)?)
}

/// Follows `in/NAME` with a pipeline that has these keys, as they stand at the first column.
fn config(home: &Home, names: &[&str], pipeline: &str) -> String {
    let inputs: Vec<String> = names
        .iter()
        .map(|name| format!("{{paths: [\"{}/in/{name}\"], format: raw}}", home.path().display()))
        .collect();
    let indented: String = pipeline.lines().map(|line| format!("    {line}\n")).collect();
    home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{}]}}\npipelines:\n  - name: tested\n{indented}",
        inputs.join(", ")
    ))
}

fn write_input(home: &Home, name: &str, text: &str) -> Result<PathBuf> {
    let path = home.path().join("in").join(name);
    fs::create_dir_all(home.path().join("in"))?;
    fs::write(&path, text)?;
    Ok(path)
}

/// The lines of the only output, without parts that differ in each run or are the same in all.
fn output(home: &Home, with_time: bool) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(home.output_dir())? {
        lines.extend(fs::read_to_string(entry?.path())?.lines().map(|line| shown(line, with_time)));
    }
    Ok(lines)
}

fn shown(line: &str, with_time: bool) -> String {
    let mut line = line.to_owned();
    for key in ["time", "stream", "path"] {
        if key == "time" && with_time {
            continue;
        }
        let Some(start) = line.find(&format!("\"{key}\":\"")) else { continue };
        let value = start + key.len() + 4;
        let end = value + line[value..].find('"').unwrap_or_default() + 2;
        line.replace_range(start..end, "");
    }
    line
}

/// Every example of the document, exactly: keys, their order, and nothing more.
#[test]
fn the_document_tells_the_truth() -> Result<()> {
    let (examples, _) = examples()?;
    ensure!(examples.len() >= 16, "{} examples: the document is read wrongly", examples.len());
    let mut wrong = Vec::new();
    for example in examples {
        let home = Home::new()?;
        write_input(&home, "x.log", &example.input)?;
        let agent = home.start(&config(&home, &["x.log"], &example.config))?;
        let expected: Vec<&str> = example.output.lines().collect();
        let with_time = expected.iter().any(|line| line.starts_with("{\"time\""));
        let _ = wait_until("the records", PATIENCE, || {
            ensure!(output(&home, with_time)?.len() >= expected.len(), "not all yet");
            Ok(())
        });
        agent.stop()?;
        let found = output(&home, with_time)?;
        if found != expected {
            wrong.push(format!(
                "line {}:\n{}\nis, but the document has\n{}",
                example.line,
                found.join("\n"),
                expected.join("\n")
            ));
        }
    }
    ensure!(wrong.is_empty(), "docs/pipeline.md:\n{}", wrong.join("\n\n"));
    Ok(())
}

/// A pipeline with every step.
const EVERY_STEP: &str = r#"
match: {paths: ["/**/in/a.log"]}
rate_limit: {lines: 1000000, burst: 1s, over: drop}
steps:
  - parse: {format: json, message: msg}
  - timestamp: {field: ts, format: unix}
  - drop: {matches: healthz}
  - keep: {field: level}
  - labels: {set: {env: test}, from_fields: {level: level}, values_max: 2, overflow: other}
  - redact: {presets: [key_secret]}
  - sample: {keep_one_in: 2}
  - dedup: {window: 1m}
"#;

fn metric(agent: &Agent, step: &str, outcome: &str) -> Result<u64> {
    let labels = format!("outcome=\"{outcome}\",pipeline=\"tested\",sink=\"local_file\",step=\"{step}\"");
    Ok(agent.metric(&format!("pipeline_lines_total{{{labels}}}"))? as u64)
}

#[test]
fn every_step_and_the_account_of_it() -> Result<()> {
    let home = Home::new()?;
    let record =
        |level: &str, msg: &str| format!("{{\"ts\":1795308768,\"level\":\"{level}\",\"msg\":\"{msg}\"}}\n");
    let mut text = String::new();
    for (level, msg) in [
        ("info", "password=a"), // kept
        ("info", "sampled out"),
        ("warn", "GET /healthz"), // dropped
        ("warn", "same"),         // kept
        ("warn", "sampled out"),
        ("warn", "same"), // held
        ("warn", "sampled out"),
        ("warn", "same"), // held
        ("warn", "sampled out"),
        ("odd", "last"), // kept, and overflows
    ] {
        text.push_str(&record(level, msg));
    }
    text.push_str("{\"msg\":\"no level\"}\n");
    write_input(&home, "a.log", &text)?;
    write_input(&home, "b.log", "password=stays\n")?;
    let agent = home.start(&config(&home, &["a.log", "b.log"], EVERY_STEP))?;
    let head = |level: &str| {
        format!(
            "{{\"time\":\"2026-11-22T00:52:48.000000000Z\",\"labels\":{{\"env\":\"test\",\"level\":\"{level}\"}},"
        )
    };
    let expected = [
        format!(
            "{}\"fields\":{{\"ts\":1795308768,\"level\":\"info\"}},\"message\":\"password=[redacted]\"}}",
            head("info")
        ),
        format!("{}\"fields\":{{\"ts\":1795308768,\"level\":\"warn\"}},\"message\":\"same\"}}", head("warn")),
        format!(
            "{}\"fields\":{{\"ts\":1795308768,\"level\":\"warn\"}},\"repeated\":2,\"message\":\"same\"}}",
            head("warn")
        ),
        format!("{}\"fields\":{{\"ts\":1795308768,\"level\":\"odd\"}},\"message\":\"last\"}}", head("other")),
    ];
    let of_a = || -> Result<Vec<String>> {
        Ok(output(&home, true)?.into_iter().filter(|line| !line.contains("stays")).collect())
    };
    let _ = wait_until("the records", PATIENCE, || {
        ensure!(output(&home, true)?.len() > expected.len(), "not all yet");
        Ok(())
    });
    ensure!(of_a()? == expected, "{:#?}\ninstead of\n{expected:#?}", of_a()?);
    let other = output(&home, false)?;
    ensure!(
        other.contains(&"{\"message\":\"password=stays\"}".to_owned()),
        "the other file has no pipeline: {other:?}"
    );

    // The number of lines in equals those sent and dropped, to a line.
    let table = [
        ("drop", "dropped", 1),
        ("keep", "dropped", 1),
        ("sample", "dropped", 4),
        ("dedup", "dropped", 1),
        ("rate_limit", "dropped", 0),
        ("parse", "changed", 11),
        ("timestamp", "changed", 10),
        ("timestamp", "failed", 1),
        ("labels", "limited", 1),
        ("redact", "changed", 1),
    ];
    wait_until("the account", PATIENCE, || {
        for (step, outcome, expected) in table {
            let is = metric(&agent, step, outcome)?;
            ensure!(is == expected, "{step} {outcome}: {is} instead of {expected}");
        }
        let dropped = 7.0;
        let sent = agent.metric("logs_sent_total{sink=\"local_file\"}")?;
        let processed = agent.metric("logs_processed_total")?;
        ensure!(
            processed == 12.0 && sent + dropped == processed,
            "{processed} came, {sent} sent, {dropped} dropped"
        );
        Ok(())
    })?;
    agent.stop()?;
    Ok(())
}

/// Lines held back by dedup are delivered at a stop, and the next start does not remove them; the same when their
/// source is gone.
#[test]
fn a_repeat_that_is_held_goes_out_at_the_end() -> Result<()> {
    let home = Home::new()?;
    let input = write_input(&home, "x.log", "a\na\na\n")?;
    let config = config(&home, &["x.log"], "steps: [{dedup: {window: 1m}}]");
    let agent = home.start(&config)?;
    wait_until("all to be read", PATIENCE, || {
        let processed = agent.metric("logs_processed_total")?;
        ensure!(processed == 3.0 && output(&home, false)?.len() == 1, "{processed}");
        Ok(())
    })?;
    agent.stop()?;
    let mut expected =
        vec!["{\"message\":\"a\"}".to_owned(), "{\"repeated\":2,\"message\":\"a\"}".to_owned()];
    ensure!(output(&home, false)? == expected, "{:?}", output(&home, false)?);
    let agent = home.start(&config)?;
    // Held lines are after the last position, but still part of the output.
    ensure!(output(&home, false)? == expected, "{:?}", output(&home, false)?);
    // After a fresh start it is another run of lines.
    File::options().append(true).open(&input)?.write_all(b"a\na\n")?;
    expected.push(expected[0].clone());
    wait_until("the next run", PATIENCE, || {
        let (lines, processed) = (output(&home, false)?, agent.metric("logs_processed_total")?);
        ensure!(lines == expected && processed == 2.0, "{lines:?}, {processed}");
        Ok(())
    })?;
    fs::remove_file(input)?;
    expected.push(expected[0].clone());
    wait_until("what was held of a file that is gone", PATIENCE, || {
        let lines = output(&home, false)?;
        ensure!(lines == expected, "{lines:?}");
        Ok(())
    })?;
    agent.stop()?;
    ensure!(output(&home, false)? == expected, "{:?}", output(&home, false)?);
    Ok(())
}

/// Killed again and again while its log is written. A line's time of reading then differs, and it must be recognized
/// without it.
#[test]
fn a_killed_agent_repeats_nothing_of_a_log_that_grows() -> Result<()> {
    const LINES: usize = 600;
    let home = Home::new()?;
    let input = write_input(&home, "x.log", "")?;
    let steps = "steps: [{redact: {presets: [email]}}]";
    let config = config(&home, &["x.log"], steps);
    let write = || -> Result<()> {
        let mut file = File::options().append(true).open(&input)?;
        for number in 0..LINES {
            writeln!(file, "{number} of a@b.example")?;
            pass(Duration::from_millis(10));
        }
        Ok(())
    };
    let agent = std::thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(write);
        for share in 1..5 {
            let agent = home.start(&config)?;
            wait_until("some of the lines", PATIENCE, || {
                let there = output(&home, false).map_or(0, |lines| lines.len());
                ensure!(there >= LINES * share / 5, "{there}");
                Ok(())
            })?;
            agent.kill()?;
        }
        writer.join().expect("the writer ends")?;
        home.start(&config)
    })?;
    let line = |number| format!("{{\"message\":\"{number} of [redacted: email]\"}}");
    let expected: Vec<String> = (0..LINES).map(line).collect();
    wait_until("all of the lines", PATIENCE, || {
        let found = output(&home, false)?;
        let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
        ensure!(found.len() >= LINES, "{} of {LINES}, {same} as expected", found.len());
        Ok(())
    })?;
    agent.stop()?;
    ensure!(output(&home, false)? == expected, "{:?}", output(&home, false)?);
    Ok(())
}

/// Killed again and again while a pipeline drops every third line: the others are there once, in order.
#[test]
fn a_killed_agent_repeats_nothing() -> Result<()> {
    const LINES: usize = 300_000;
    let home = Home::new()?;
    let text: String =
        (0..LINES).map(|number| format!("{} line {number:07}\n", ["a", "b", "drop"][number % 3])).collect();
    write_input(&home, "x.log", &text)?;
    let config = config(
        &home,
        &["x.log"],
        "steps: [{drop: {matches: '^drop'}}, {redact: {patterns: [{pattern: '^b', with: c}]}}]",
    );
    let mut kills = 0;
    for share in 1..4 {
        let agent = home.start(&config)?;
        let enough = LINES * 2 / 3 * share / 5;
        wait_until("some of the lines", PATIENCE, || {
            let there = output(&home, false).map_or(0, |lines| lines.len());
            ensure!(there >= enough, "{there} of {enough}");
            Ok(())
        })?;
        agent.kill()?;
        kills += 1;
    }
    let agent = home.start(&config)?;
    let expected: Vec<String> = (0..LINES)
        .filter(|number| number % 3 != 2)
        .map(|number| format!("{{\"message\":\"{} line {number:07}\"}}", ["a", "c"][number % 3]))
        .collect();
    let _ = wait_until("all of the lines", PATIENCE, || {
        let there = output(&home, false)?.len();
        ensure!(there >= expected.len(), "{there} of {}", expected.len());
        Ok(())
    });
    agent.stop()?;
    let found = output(&home, false)?;
    let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
    ensure!(
        found == expected,
        "{kills} kills: {} of {} lines; from {same} on {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(same),
        expected.get(same)
    );
    Ok(())
}

/// A pipeline that lets nothing through is reported: check names the missing field, health counts.
#[test]
fn one_that_drops_everything_is_told() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir_all(home.path().join("in"))?;
    fs::write(home.path().join("in/a.log"), "one\ntwo\nthree\n")?;
    let config = config(&home, &["a.log"], "steps:\n  - keep: {field: level, matches: error}\n");
    let text = checked(&home, &config)?;
    ensure!(
        text.contains("asks for the field \"level\"") && text.contains("so it drops every line"),
        "{text}"
    );
    let agent = home.start(&config)?;
    wait_until("health to count them", PATIENCE, || {
        let health: serde_json::Value = serde_json::from_str(&agent.ask("/health")?.1)?;
        let said = &health["components"]["pipelines"];
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(said["ok"] == true && message.contains("tested dropped 3 of 3 lines"), "{said}");
        anyhow::Ok(())
    })?;
    let came = agent.metric("pipeline_lines_in_total{pipeline=\"tested\",sink=\"local_file\"}")?;
    ensure!(came == 3.0, "{came}");
    agent.stop()
}

/// `capturer check` shows the result, and no pattern.
#[test]
fn check_shows_pipelines() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir_all(home.path().join("in"))?;
    let text = checked(&home, &config(&home, &["a.log"], EVERY_STEP))?;
    let line = "  pipeline    tested: path /**/in/a.log: rate_limit (drop), parse, timestamp, drop, keep, labels, redact, sample, dedup\n";
    ensure!(text.contains(line), "{text}");
    Ok(())
}

/// Configs that only show something are valid, too.
#[test]
fn configs_that_stand_alone_are_good() -> Result<()> {
    let (_, mut configs) = examples()?;
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    configs.extend(blocks.filter(|block| block.starts_with("pipelines:")).map(str::to_owned));
    ensure!(configs.len() == 2, "{} configs", configs.len());
    for config in configs {
        let text = checked(&Home::new()?, &config)?;
        ensure!(text.contains("  pipeline  "), "{text}");
    }
    Ok(())
}
