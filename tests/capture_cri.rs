//! Logs as container runtimes write them for Kubernetes, rotated like kubelet does: parts of long lines, on both
//! channels and across rotations, an agent that is killed meanwhile, and a container that exits in the middle of a
//! line.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use capturer_tests::agent::{Home, assert_same_lines};
use capturer_tests::rand::Rand;
use capturer_tests::wait::{PATIENCE, wait_until};

const CHANNELS: [&str; 2] = ["stdout", "stderr"];

/// `/var/log/pods/<pod>/<container>/0.log`, and its content.
struct PodLog {
    path: PathBuf,
    live: File,
    rotations: u32,
    /// By channel: what was printed; a line may be open.
    printed: [String; 2],
    lines: u32,
    records: u32,
    chance: Rand,
}

impl PodLog {
    fn create(dir: &Path, chance: Rand) -> Result<PodLog> {
        fs::create_dir_all(dir)?;
        let path = dir.join("0.log");
        let live = File::create(&path)?;
        Ok(PodLog { path, live, rotations: 0, printed: Default::default(), lines: 0, records: 0, chance })
    }

    /// Writes this many records, whole lines and parts, independently for each channel; the last may be a part.
    fn print(&mut self, records: u64) -> Result<()> {
        for _ in 0..records {
            let channel = self.chance.index(0..2);
            let part = self.chance.chance(1, 3);
            let text = format!("line {} {}", self.lines, "é <".repeat(self.chance.index(0..40)));
            self.record(channel, &text, part)?;
        }
        Ok(())
    }

    fn record(&mut self, channel: usize, text: &str, part: bool) -> Result<()> {
        self.records += 1;
        let (time, tag) = (format!("2026-11-25T10:00:00.{:09}Z", self.records), if part { "P" } else { "F" });
        self.live.write_all(format!("{time} {} {tag} {text}\n", CHANNELS[channel]).as_bytes())?;
        self.printed[channel] += text;
        if !part {
            self.printed[channel].push('\n');
            self.lines += 1;
        }
        Ok(())
    }

    fn end_lines(&mut self) -> Result<()> {
        (0..2).try_for_each(|channel| self.record(channel, "its end", false))
    }

    /// The previous file is compressed, as kubelet does it: the newest of the older ones may still be written to.
    fn rotate(&mut self) -> Result<()> {
        let name = |rotation: u32| {
            PathBuf::from(format!("{}.20261125-{:06}", self.path.display(), 100_000 + rotation))
        };
        fs::rename(&self.path, name(self.rotations))?;
        self.live = File::create(&self.path)?;
        if let Some(before) = self.rotations.checked_sub(1).map(name) {
            let with = |ending: &str| PathBuf::from(format!("{}{ending}", before.display()));
            let (packed, unfinished) = (with(".gz"), with(".tmp"));
            let mut encoder =
                flate2::write::GzEncoder::new(File::create(&unfinished)?, flate2::Compression::fast());
            encoder.write_all(&fs::read(&before)?)?;
            encoder.finish()?;
            fs::rename(unfinished, packed)?;
            fs::remove_file(before)?;
        }
        self.rotations += 1;
        Ok(())
    }
}

/// What was written out of a channel.
fn written(home: &Home, channel: usize) -> Result<String> {
    let records = home.records()?.into_values().flatten();
    Ok(records
        .filter(|record| record.stream == CHANNELS[channel])
        .map(|record| record.message + "\n")
        .collect())
}

fn assert_all_written(home: &Home, log: &PodLog) -> Result<()> {
    for (channel, name) in CHANNELS.into_iter().enumerate() {
        // A time-out is not a failure yet: the comparison says what is missing.
        let _ = wait_until("every line", PATIENCE, || {
            let (got, expected) = (written(home, channel)?.len(), log.printed[channel].len());
            ensure!(got >= expected, "{got} of {expected} bytes");
            Ok(())
        });
        let got = written(home, channel)?;
        assert_same_lines(name, got.as_bytes(), log.printed[channel].as_bytes());
    }
    Ok(())
}

#[test]
fn parts_rotations_and_kills_lose_nothing_and_repeat_nothing() -> Result<()> {
    let home = Home::new()?;
    let mut chance = Rand::from_env_or(4);
    let dir = home.path().join("pods/shop_web_1/web");
    let mut log = PodLog::create(&dir, chance.fork())?;
    // Nothing but the file's first line tells its format.
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/pods/*/*/*.log\"]}}]}}\n",
        home.path().display()
    ));
    for _kill in 0..6 {
        let agent = home.start(&config)?;
        let before = home.output_bytes();
        wait_until("output after a start", PATIENCE, || {
            log.print(chance.within(1..40))?;
            if chance.chance(1, 10) {
                log.rotate()?;
            }
            ensure!(home.output_bytes() > before + 20_000, "{} bytes", home.output_bytes());
            anyhow::Ok(())
        })?;
        // Before its first position is saved, a new path is only known by its live file.
        wait_until("a saved position", PATIENCE, || {
            fs::read_to_string(home.path().join("data/checkpoint.json"))
                .is_ok_and(|text| text.contains("\"kind\":\"file\""))
        })?;
        agent.kill()?;
        // The agent does not run meanwhile.
        log.print(chance.within(1..400))?;
        log.rotate()?;
        log.print(chance.within(1..100))?;
    }
    log.end_lines()?;
    let agent = home.start(&config)?;
    assert_all_written(&home, &log)?;
    println!("{} records, {} lines, {} rotations", log.records, log.lines, log.rotations);
    ensure!(log.rotations >= 6 && log.lines > 1_000, "{} rotations, {} lines", log.rotations, log.lines);
    // The container exits within a line, and its file stays.
    log.record(1, "panic: no newline", true)?;
    log.printed[1].push('\n');
    assert_all_written(&home, &log)?;
    for reason in ["record_damaged", "file_gone_unread"] {
        let lost = agent.metric(&format!("lost_bytes_total{{reason=\"{reason}\"}}"));
        ensure!(lost.as_ref().is_ok_and(|lost| *lost == 0.0), "{reason}: {lost:?}");
    }
    agent.stop()
}
