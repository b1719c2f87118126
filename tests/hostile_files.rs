//! Files that are damaged, endless or full of anything, full disks, and checkpoints that were tampered with: only
//! damaged lines are lost, counted by reason, and none is repeated.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::disk::Disk;
use capturer_tests::rand::Rand;
use capturer_tests::wait::{PATIENCE, wait_until};

/// Follows these files of the home's `in`, each with its format.
fn follow(home: &Home, files: &[(&str, &str)]) -> Result<String> {
    fs::create_dir_all(home.path().join("in"))?;
    let entry = |(name, format): &(&str, &str)| {
        format!("{{paths: [\"{}/in/{name}\"], format: {format}}}", home.path().display())
    };
    let files: Vec<String> = files.iter().map(entry).collect();
    Ok(home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{}]}}\n",
        files.join(", ")
    )))
}

fn input(home: &Home, name: &str) -> PathBuf {
    home.path().join("in").join(name)
}

/// The messages of one followed file so far; every line of the output must be a whole record.
fn messages(home: &Home, name: &str) -> Result<Vec<String>> {
    let outputs = home.records()?.into_iter().filter(|(file, _)| file.starts_with(&format!("{name}~")));
    Ok(outputs.flat_map(|(_, records)| records).map(|record| record.message).collect())
}

fn await_messages(home: &Home, name: &str, expected: &[String]) -> Result<()> {
    // A time-out is not a failure yet: the comparison says what is missing.
    let _ = wait_until("the lines", PATIENCE, || {
        let got = messages(home, name)?.len();
        ensure!(got >= expected.len(), "{got} of {}", expected.len());
        Ok(())
    });
    let got = messages(home, name)?;
    let same = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    ensure!(
        got == expected,
        "{name}: {} lines, {} expected; from line {same} on {:.200?} instead of {:.200?}",
        got.len(),
        expected.len(),
        got.get(same),
        expected.get(same)
    );
    Ok(())
}

fn lost(agent: &Agent, reason: &str) -> Result<u64> {
    Ok(agent.metric(&format!("lost_bytes_total{{reason=\"{reason}\"}}"))? as u64)
}

fn record(message: &str) -> Vec<u8> {
    let text = serde_json::to_string(message).expect("a string");
    let text = &text[..text.len() - 1];
    format!("{{\"log\":{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}}\n")
        .into_bytes()
}

fn numbered(count: usize) -> (String, Vec<String>) {
    let lines: Vec<String> = (0..count).map(|number| format!("line {number}")).collect();
    (lines.iter().map(|line| format!("{line}\n")).collect(), lines)
}

// ---- damage

/// Damage between good records, and its number of bytes. The bytes after it begin a record.
fn damage(rand: &mut Rand, number: usize) -> Vec<u8> {
    let torn = |rand: &mut Rand| {
        let whole = record(&format!("torn {number} {{\\\"log\\\":\\\"no\\\"}} \u{1}é"));
        // At least its last brace is missing: with that alone it would be a good record.
        whole[..rand.index(1..whole.len() - 1)].to_vec()
    };
    let hole = |rand: &mut Rand| vec![0; *rand.pick(&[1, 7, 4096, 300_000])];
    match rand.index(0..9) {
        0 => torn(rand),
        1 => [torn(rand), torn(rand)].concat(),
        2 => [torn(rand), b"\n".to_vec()].concat(),
        3 => hole(rand),
        4 => [torn(rand), hole(rand)].concat(),
        5 => b"{\"log\":\"lone \\ud800\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48Z\"}\n"
            .to_vec(),
        6 => b"{\"log\":\"bytes \xff\xfe\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48Z\"}\n"
            .to_vec(),
        7 => rand.pick(&[&b"\n"[..], b"{}\n", b"[]\n", b"null\n", b"not JSON\n"]).to_vec(),
        _ => b"{\"log\":\"x\\n\",\"stream\":\"stdin\",\"time\":\"2026-11-22T00:52:48Z\"}\n".to_vec(),
    }
}

/// Good records with damage between them; the messages of the good ones, and the bytes of the damage.
fn damaged(rand: &mut Rand, records: usize) -> (Vec<u8>, Vec<String>, u64) {
    let (mut bytes, mut good, mut lost) = (Vec::new(), Vec::new(), 0);
    for number in 0..records {
        if rand.chance(1, 4) {
            let damage = damage(rand, number);
            // A hole never had content. One after a torn record counts as part of it.
            lost += if damage.iter().all(|byte| *byte == 0) { 0 } else { damage.len() as u64 };
            bytes.extend_from_slice(&damage);
        }
        // A message may look like a record, which is not the beginning of one.
        let message = format!("good {number} {{\"log\":\"x\\n\",\"stream\":\"stdout\"}} é\u{2028}");
        bytes.extend_from_slice(&record(&message));
        good.push(message);
    }
    (bytes, good, lost)
}

#[test]
fn damage_costs_only_the_hurt_record_and_is_declared() -> Result<()> {
    let mut rand = Rand::from_env_or(31);
    let home = Home::new()?;
    let config = follow(&home, &[("damaged.log", "docker"), ("live.log", "docker"), ("well.log", "raw")])?;
    let (whole, good, lost_there) = damaged(&mut rand, 2_000);
    fs::write(input(&home, "damaged.log"), whole)?;
    let (text, lines) = numbered(1_000);
    fs::write(input(&home, "well.log"), text)?;
    let agent = home.start(&config)?;
    await_messages(&home, "damaged.log", &good)?;
    await_messages(&home, "well.log", &lines)?;
    ensure!(
        lost(&agent, "record_damaged")? == lost_there,
        "{} of {lost_there}",
        lost(&agent, "record_damaged")?
    );
    for reason in ["torn_record", "nul_hole"] {
        ensure!(agent.metric(&format!("skipped_records_total{{reason=\"{reason}\"}}"))? > 0.0, "{reason}");
    }
    // The same again while it is written, in parts that end anywhere.
    let (whole, good, lost_live) = damaged(&mut rand, 500);
    let mut live = File::create(input(&home, "live.log"))?;
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rand.index(1..3_000).min(rest.len()));
        live.write_all(part)?;
        rest = behind;
    }
    await_messages(&home, "live.log", &good)?;
    let declared = lost(&agent, "record_damaged")?;
    ensure!(declared == lost_there + lost_live, "{declared}, not {lost_there} + {lost_live}");
    agent.stop()
}

#[test]
fn random_bytes_harm_nobody() -> Result<()> {
    let mut rand = Rand::from_env_or(32);
    let home = Home::new()?;
    let config = follow(
        &home,
        &[("as-docker.log", "docker"), ("as-auto.log", "auto"), ("as-raw.log", "raw"), ("well.log", "raw")],
    )?;
    let mut noise = vec![0; 2 * 1024 * 1024];
    rand.fill(&mut noise);
    noise.push(b'\n');
    for name in ["as-docker.log", "as-auto.log", "as-raw.log"] {
        fs::write(input(&home, name), [&noise[..], &record("behind the noise")].concat())?;
    }
    let (text, lines) = numbered(1_000);
    fs::write(input(&home, "well.log"), text)?;
    let agent = home.start(&config)?;
    await_messages(&home, "well.log", &lines)?;
    await_messages(&home, "as-docker.log", &["behind the noise".to_owned()])?;
    // As plain lines they are all accepted, with U+FFFD for bytes that are no text.
    let newlines = noise.iter().filter(|byte| **byte == b'\n').count();
    for name in ["as-auto.log", "as-raw.log"] {
        wait_until("every line", PATIENCE, || {
            let got = messages(&home, name)?.len();
            ensure!(got == newlines + 1, "{got} of {}", newlines + 1);
            Ok(())
        })?;
    }
    // None of it is a record, but NULs at the beginning of a line are taken for a hole.
    let lines = noise.split(|byte| *byte == b'\n');
    let holes: usize = lines.map(|line| line.iter().take_while(|byte| **byte == 0).count()).sum();
    let (declared, expected) = (lost(&agent, "record_damaged")?, noise.len() - holes);
    ensure!(declared == expected as u64, "{declared} of {expected} bytes");
    agent.stop()
}

/// Longer than a record may be (8 MiB), and for long without an end: cut, marked, counted, and its tail is no line.
#[test]
fn an_endless_line_is_cut_once() -> Result<()> {
    const LINE_BYTES_MAX: usize = 1024 * 1024;
    let home = Home::new()?;
    let config = follow(&home, &[("endless.log", "raw"), ("endless.json", "docker"), ("well.log", "raw")])?;
    let endless = vec![b'x'; 20 * 1024 * 1024];
    let mut raw = File::create(input(&home, "endless.log"))?;
    let mut json = File::create(input(&home, "endless.json"))?;
    raw.write_all(&endless)?;
    json.write_all(&endless)?;
    let (text, lines) = numbered(1_000);
    fs::write(input(&home, "well.log"), text)?;
    let agent = home.start(&config)?;
    await_messages(&home, "well.log", &lines)?;
    // Killed in the middle of the line, which must be read from its beginning again.
    agent.kill()?;
    let agent = home.start(&config)?;
    raw.write_all(b"end\nafter\n")?;
    json.write_all(&[b"end\n", &record("after")[..]].concat())?;
    await_messages(&home, "endless.log", &["x".repeat(LINE_BYTES_MAX), "after".to_owned()])?;
    await_messages(&home, "endless.json", &["after".to_owned()])?;
    ensure!(agent.metric("lines_truncated_total")? == 1.0, "not counted as cut");
    let declared = lost(&agent, "record_too_long")? + lost(&agent, "record_damaged")?;
    ensure!(declared > 0 && declared <= endless.len() as u64 + 4, "{declared} bytes declared");
    agent.stop()
}

// ---- full disks

fn await_blame(agent: &Agent, component: &str) -> Result<()> {
    wait_until("health to say it", PATIENCE, || {
        let (status, body) = agent.ask("/health")?;
        let health: serde_json::Value = serde_json::from_str(&body)?;
        let health = &health["components"][component];
        let message = health["message"].as_str().unwrap_or_default();
        ensure!(
            status == 503 && health["ok"] == false && message.contains("No space left"),
            "{status} {body}"
        );
        Ok(())
    })
}

#[test]
fn a_full_output_disk_loses_repeats_and_tears_nothing() -> Result<()> {
    let home = Home::new()?;
    let config = follow(&home, &[("a.log", "raw"), ("b.log", "raw")])?;
    let disk = Disk::mount(&home.output_dir(), 512)?;
    // Each file is one batch of 1.6 to 2.4 MB of records, as long as its path is.
    let (text, lines) = numbered(20_000);
    for name in ["a.log", "b.log"] {
        fs::write(input(&home, name), &text)?;
    }
    let agent = home.start(&config)?;
    await_blame(&agent, "sink_local_file")?;
    // A little room, several times: a write that does not fit is taken back, and waits until there is room for all of it.
    for (kib, filled) in [(600, 0), (1_000, 0), (3_000, 1_500)] {
        disk.resize(kib)?;
        wait_until("the room to be filled", PATIENCE, || {
            let bytes = home.output_bytes();
            ensure!(bytes >= u64::from(filled * 1024_u32), "{bytes} of {kib} KiB");
            Ok(())
        })?;
        await_blame(&agent, "sink_local_file")?;
    }
    // A crash on the full disk, and a start on it.
    agent.kill()?;
    let agent = home.launch(&config)?;
    await_blame(&agent, "sink_local_file")?;
    disk.resize(64 * 1024)?;
    await_messages(&home, "a.log", &lines)?;
    await_messages(&home, "b.log", &lines)?;
    wait_until("health to be well", PATIENCE, || agent.get("/health"))?;
    agent.stop()
}

/// An output only keeps to its bounds once no checkpoint needs the files that it would delete or compress. A log that
/// is read in one go fills the disk before that, and then no event would cause another checkpoint.
#[test]
fn what_may_be_deleted_or_compressed_makes_room_on_a_full_disk() -> Result<()> {
    for kept in ["max_files: 3, compress: none", "max_files: 0, compress: zstd"] {
        let home = Home::new()?;
        let config = follow(&home, &[("a.log", "raw")])?;
        let config = config.replacen("max_size: 0", &format!("max_size: 200KiB, {kept}"), 1);
        ensure!(config.contains(kept), "{config}");
        let _disk = Disk::mount(&home.output_dir(), 3_000)?;
        // A batch must fit as a whole: short lines would make one of megabytes.
        let lines: Vec<String> =
            (0..20_000).map(|number| format!("line {number} {}", "x".repeat(250))).collect();
        fs::write(input(&home, "a.log"), lines.join("\n") + "\n")?;
        let agent = home.start(&config)?;
        let last = lines.last().expect("there are lines");
        wait_until("the last line", PATIENCE, || {
            let outputs = fs::read_dir(home.output_dir())?.filter_map(|entry| Some(entry.ok()?.path()));
            let mut unpacked =
                outputs.filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
            let has_it = unpacked.any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(last)));
            ensure!(has_it, "{kept}: {:?}", agent.ask("/health"));
            Ok(())
        })?;
        wait_until("health to be well", PATIENCE, || agent.get("/health"))?;
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn a_full_data_disk_is_said_and_repeats_nothing() -> Result<()> {
    let home = Home::new()?;
    let config = follow(&home, &[("a.log", "raw")])?;
    let data = home.path().join("data");
    let _disk = Disk::mount(&data, 256)?;
    let filler = data.join("filler");
    let (text, mut lines) = numbered(1_000);
    let mut log = File::create(input(&home, "a.log"))?;
    log.write_all(text.as_bytes())?;
    let mut agent = home.start(&config)?;
    await_messages(&home, "a.log", &lines)?;
    for round in 0..2 {
        // Uses up the rest; the error at the end is expected.
        let _ = File::create(&filler)?.write_all(&vec![0; 1024 * 1024]);
        let more: Vec<String> = (0..1_000).map(|number| format!("more {round} {number}")).collect();
        log.write_all((more.join("\n") + "\n").as_bytes())?;
        lines.extend(more);
        await_blame(&agent, "checkpoint")?;
        await_messages(&home, "a.log", &lines)?;
        if round == 0 {
            fs::remove_file(&filler)?;
            wait_until("health to be well", PATIENCE, || agent.get("/health"))?;
        } else {
            // The checkpoint lacks the last lines: they are read again, and skipped as the output has them.
            agent.kill()?;
            fs::remove_file(&filler)?;
            agent = home.start(&config)?;
            await_messages(&home, "a.log", &lines)?;
        }
    }
    agent.stop()
}

// ---- checkpoints

/// Two checkpoints, both intact, so that one can be damaged.
fn captured(home: &Home, config: &str) -> Result<Vec<String>> {
    let (text, lines) = numbered(1_000);
    fs::write(input(home, "a.log"), text)?;
    let agent = home.start(config)?;
    await_messages(home, "a.log", &lines)?;
    agent.stop()?;
    ensure!(home.path().join("data/checkpoint.json.previous").exists(), "no previous checkpoint");
    Ok(lines)
}

fn append(home: &Home, lines: &mut Vec<String>) -> Result<()> {
    let mut file = File::options().append(true).open(input(home, "a.log"))?;
    for number in 0..500 {
        lines.push(format!("later {number}"));
        writeln!(file, "later {number}")?;
    }
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_used() -> Result<()> {
    type Damage = fn(&mut Rand, Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit", |rand, mut bytes| {
            let at = rand.index(0..bytes.len());
            bytes[at] ^= 1 << rand.index(0..8);
            bytes
        }),
        ("cut", |rand, bytes| bytes[..rand.index(1..bytes.len())].to_vec()),
        ("empty", |_, _| Vec::new()),
        ("zeros", |_, bytes| vec![0; bytes.len()]),
        ("another file", |_, _| b"{\"streams\": {}}\n".to_vec()),
    ];
    let mut rand = Rand::from_env_or(33);
    for (what, damage) in damages {
        let home = Home::new()?;
        let config = follow(&home, &[("a.log", "raw")])?;
        let mut lines = captured(&home, &config)?;
        let checkpoint = home.path().join("data/checkpoint.json");
        let bytes = damage(&mut rand, fs::read(&checkpoint)?);
        fs::write(&checkpoint, &bytes)?;
        append(&home, &mut lines)?;
        let agent = home.start(&config)?;
        await_messages(&home, "a.log", &lines).context(what)?;
        let log = agent.log_text()?;
        for part in ["checkpoint.json", "set aside as", "checkpoint.json.previous is used instead"] {
            ensure!(log.contains(part), "{what}: {part:?} is not in:\n{log}");
        }
        let aside: Vec<PathBuf> = fs::read_dir(home.path().join("data"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|path| path.display().to_string().contains("damaged"))
            .collect();
        ensure!(aside.len() == 1 && fs::read(&aside[0])? == bytes, "{what}: {aside:?}");
        agent.stop()?;
    }
    Ok(())
}

/// There is no usable checkpoint: everything is delivered, with a warning that it may be a repetition.
#[test]
fn without_any_intact_checkpoint_it_begins_anew_and_says_so() -> Result<()> {
    let home = Home::new()?;
    let config = follow(&home, &[("a.log", "raw")])?;
    let mut lines = captured(&home, &config)?;
    for name in ["checkpoint.json", "checkpoint.json.previous"] {
        fs::write(home.path().join("data").join(name), "damaged")?;
    }
    let before = lines.clone();
    append(&home, &mut lines)?;
    let agent = home.start(&config)?;
    await_messages(&home, "a.log", &[before, lines].concat())?;
    let log = agent.log_text()?;
    ensure!(log.contains("no intact checkpoint is left"), "{log}");
    agent.stop()
}
