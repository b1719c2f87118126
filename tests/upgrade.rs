//! An upgrade: what an old agent left is taken over, each line once and in order; what a newer agent left is refused.
//!
//! ```text
//! upgrade/make.py: the old agent runs ─▶ stopped/, killed/: logs, outputs, checkpoint ─▶ the same files here
//!                          more lines, rotations ─▶ this agent starts ─▶ more lines, rotations ─▶ each line once
//! ```
//! The old agent is that of commit 9935078. Its checkpoints are of version 1: without prints of what stands before
//! a position, without a table of files read, and without the time of the save.
//!
//! Not here: the spool of Loki, containers, and positions over the API.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail, ensure};
use capturer_tests::agent::{Agent, Home, assert_same_lines, program};
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// Bytes of the path under which everything lies, as in make.py: it stands in every record, and the checkpoint has the
/// lengths of the outputs.
const HOME_BYTES: usize = 100;
/// What Docker writes at a time of a long line.
const PIECE_BYTES: usize = 16 * 1024;
/// When the line of that piece began: all of a line's pieces have that time.
const PIECE_TIME: &str = "2026-11-28T12:00:00.000000003Z";
/// Of a record's time.
const TIME_BYTES: usize = 30;
/// The logs with their rotated files, in the order in which they were made.
const LOGS: [&str; 12] = [
    "done.log",
    "turned.log.1",
    "copied.log",
    "open.log",
    "trace.log",
    "json.log",
    "turned.log",
    "copied.log.1",
    "behind.log",
    "rotated.log.1",
    "later.log",
    "rotated.log",
];
const SOURCES: [&str; 9] =
    ["done", "behind", "rotated", "later", "turned", "copied", "open", "trace", "json"];
/// Of these the killed agent wrote records that its checkpoint does not know.
const AHEAD: [&str; 2] = ["done", "json"];

// ---- what the old agent left

/// The directory of an old agent.
struct Left {
    home: Home,
    root: PathBuf,
    config: String,
}

impl Left {
    /// Makes it from the data of a scene.
    fn by(scene: &str) -> Result<Left> {
        let home = Home::new()?;
        let len = home.path().as_os_str().len() + 1;
        let fill = HOME_BYTES.checked_sub(len).filter(|fill| *fill > 0);
        let fill = fill.with_context(|| format!("{} is too long", home.path().display()))?;
        let root = home.path().join("x".repeat(fill));
        let config = data("config.yaml")?.replace("{home}", &root.display().to_string());
        let left = Left { home, root, config };
        for directory in ["in", "out", "data"] {
            fs::create_dir_all(left.root.join(directory))?;
        }
        let outputs = SOURCES.map(|source| format!("out/{source}.ndjson"));
        let files: Vec<String> = LOGS.iter().map(|log| format!("in/{log}")).chain(outputs).collect();
        let (mut born_ns, mut time) = (0, String::new());
        for name in &files {
            if name.starts_with("out") && time.is_empty() {
                time = now()?;
            }
            let text = left.text(scene, name)?.replace("{time}", &time);
            // Each has a time of birth of its own, as it had. The kernel's clock for them ticks slowly.
            wait_until("a later time of birth", PATIENCE, || {
                let path = left.root.join(name);
                fs::write(&path, &text)?;
                let identity = Identity::of(&path)?;
                if identity.birth_ns == born_ns && born_ns > 0 {
                    fs::remove_file(&path)?;
                    bail!("{born_ns}");
                }
                born_ns = identity.birth_ns;
                Ok(())
            })?;
        }
        for name in ["checkpoint.json", "checkpoint.json.previous"] {
            let mut text = left.text(scene, &format!("data/{name}"))?;
            for file in &files {
                let identity = Identity::of(&left.root.join(file))?.written();
                text = text.replace(&format!("\"is\":\"{file}\""), &identity);
            }
            ensure!(!text.contains("\"is\":"), "{name} names another file:\n{text}");
            let (header, body) = text.split_once('\n').context("no header")?;
            ensure!(header.starts_with("capturer-checkpoint v1 "), "{header}");
            fs::write(left.checkpoint(name), with_header(1, body))?;
        }
        Ok(left)
    }

    /// A file of the scene.
    fn text(&self, scene: &str, name: &str) -> Result<String> {
        let text = data(&format!("{scene}/{name}"))?;
        Ok(text
            .replace("{home}", &self.root.display().to_string())
            .replace("{piece}", &"p".repeat(PIECE_BYTES)))
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root.join("in").join(name)
    }

    fn start(&self) -> Result<Agent> {
        self.home.start(&self.config)
    }
}

/// As records have it. What they say was read cannot be older than the file it was read from.
fn now() -> Result<String> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output()?;
    let time = String::from_utf8(date.stdout)?.trim_end().to_owned();
    ensure!(time.len() == TIME_BYTES, "{time}");
    Ok(time)
}

fn data(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// How a checkpoint names a file.
struct Identity {
    device: u64,
    inode: u64,
    birth_ns: u128,
}

impl Identity {
    fn of(path: &Path) -> Result<Identity> {
        let metadata = fs::metadata(path)?;
        // A file system without a disk of its own has no number that lasts.
        let device = if rustix::fs::major(metadata.dev()) == 0 { 0 } else { metadata.dev() };
        // Not every file system tells it.
        let birth_ns = metadata
            .created()
            .map_or(Ok(0), |at| at.duration_since(UNIX_EPOCH).map(|since| since.as_nanos()))?;
        Ok(Identity { device, inode: metadata.ino(), birth_ns })
    }

    fn written(&self) -> String {
        let Identity { device, inode, birth_ns } = self;
        format!("\"device\":{device},\"inode\":{inode},\"birth_ns\":{birth_ns}")
    }
}

/// The checkpoint with a body.
fn with_header(version: u32, body: &str) -> String {
    let mut sum = flate2::Crc::new();
    sum.update(format!("v{version} bytes={}\n", body.len()).as_bytes());
    sum.update(body.as_bytes());
    format!("capturer-checkpoint v{version} crc32={:08x} bytes={}\n{body}", sum.sum(), body.len())
}

// ---- what happens to it

impl Left {
    fn append(&self, source: &str, text: &str) -> Result<()> {
        let path = self.log(&format!("{source}.log"));
        Ok(File::options().create(true).append(true).open(path)?.write_all(text.as_bytes())?)
    }

    fn append_json(&self, channel: &str, text: &str) -> Result<()> {
        self.append_json_of("2026-11-28T12:01:00.000000001Z", channel, text)
    }

    fn append_json_of(&self, time: &str, channel: &str, text: &str) -> Result<()> {
        self.append("json", &format!("{{\"log\":\"{text}\",\"stream\":\"{channel}\",\"time\":\"{time}\"}}\n"))
    }

    /// The rotated files of a source get the next number each.
    fn make_room(&self, source: &str) -> Result<()> {
        let name = |number: u32| self.log(&format!("{source}.log.{number}"));
        let taken = (1..).take_while(|number| name(*number).exists()).count() as u32;
        for number in (1..=taken).rev() {
            fs::rename(name(number), name(number + 1))?;
        }
        Ok(())
    }

    fn rotate(&self, source: &str) -> Result<()> {
        self.make_room(source)?;
        Ok(fs::rename(self.log(&format!("{source}.log")), self.log(&format!("{source}.log.1")))?)
    }

    fn copy_and_truncate(&self, source: &str) -> Result<()> {
        self.make_room(source)?;
        let log = self.log(&format!("{source}.log"));
        fs::copy(&log, self.log(&format!("{source}.log.1")))?;
        Ok(File::options().write(true).open(log)?.set_len(0)?)
    }

    /// While no agent runs.
    fn go_on(&self) -> Result<()> {
        self.append("done", "done goes on\n")?;
        self.append("behind", "behind goes on\n")?;
        for source in ["rotated", "later", "turned"] {
            self.append(source, &format!("{source} goes on\n"))?;
            self.rotate(source)?;
            self.append(source, &format!("{source} begins again\n"))?;
        }
        self.append("copied", "copied goes on\n")?;
        self.copy_and_truncate("copied")?;
        self.append("copied", "copied begins again\n")?;
        self.append("open", " end but now\nopen goes on\n")?;
        self.append("trace", "  at b\nfault 3\n  at a\n")?;
        self.append_json("stderr", "json err goes on\\n")?;
        self.append_json_of(PIECE_TIME, "stdout", " is long\\n")?;
        self.append_json("stdout", "json out goes on\\n")
    }

    /// With or without an agent.
    fn one_more_each(&self, number: u32) -> Result<()> {
        for source in SOURCES.iter().filter(|source| **source != "json") {
            self.append(source, &format!("{source} has one more: {number}\n"))?;
        }
        self.append_json("stdout", &format!("json out has one more: {number}\\n"))?;
        self.append_json("stderr", &format!("json err has one more: {number}\\n"))
    }
}

// ---- what must come

/// What was printed on both channels; followed files have the first only.
type Printed = [String; 2];

fn index_of(channel: &str) -> usize {
    usize::from(channel == "stderr")
}

impl Left {
    /// What stands in the logs of a source, oldest first.
    fn printed(&self, source: &str) -> Result<Printed> {
        let rotated = (1..).map(|number| self.log(&format!("{source}.log.{number}")));
        let rotated: Vec<PathBuf> = rotated.take_while(|path| path.exists()).collect();
        let mut text = String::new();
        for path in rotated.iter().rev().chain([&self.log(&format!("{source}.log"))]) {
            text += &fs::read_to_string(path)?;
        }
        if source != "json" {
            return Ok([text, String::new()]);
        }
        let mut printed = Printed::default();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line)?;
            printed[index_of(member(&record, "stream")?)] += member(&record, "log")?;
        }
        Ok(printed)
    }

    /// What the outputs have of a source. A joined record counts as the lines it was made of.
    fn came(&self, source: &str) -> Result<Printed> {
        let mut came = Printed::default();
        for line in fs::read_to_string(self.output(source))?.lines() {
            let record: Value = serde_json::from_str(line).with_context(|| format!("{source}: {line}"))?;
            let channel = &mut came[index_of(member(&record, "stream")?)];
            *channel += member(&record, "message")?;
            channel.push('\n');
        }
        Ok(came)
    }

    fn output(&self, source: &str) -> PathBuf {
        self.root.join("out").join(format!("{source}.ndjson"))
    }

    /// Every line of the logs came once, and in order.
    fn assert_all_came(&self, when: &str) -> Result<()> {
        for source in SOURCES {
            let printed = self.printed(source)?;
            let len = |printed: &Printed| printed.iter().map(String::len).sum::<usize>();
            // Not a failure yet if they never come: the comparison says which are missing.
            let _ = wait_until("every line", PATIENCE, || {
                let came = self.came(source)?;
                ensure!(len(&came) >= len(&printed), "{} of {} bytes", len(&came), len(&printed));
                Ok(())
            });
            let came = self.came(source)?;
            for (came, printed) in came.iter().zip(&printed) {
                assert_same_lines(&format!("{source}, {when}"), came.as_bytes(), printed.as_bytes());
            }
        }
        Ok(())
    }

    /// A new agent starts on it: twice, with rotations before, between and in the middle.
    fn take_over(&self) -> Result<()> {
        self.go_on()?;
        let agent = self.start()?;
        self.assert_all_came("after the upgrade")?;
        // What is there twice may come late.
        self.one_more_each(1)?;
        ["rotated", "turned", "done"].iter().try_for_each(|source| self.rotate(source))?;
        self.one_more_each(2)?;
        self.assert_all_came("while the new agent runs")?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
        self.one_more_each(3)?;
        self.rotate("later")?;
        self.one_more_each(4)?;
        let agent = self.start()?;
        self.assert_all_came("after its restart")?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
        self.assert_all_came("at the end")
    }

    fn assert_said(&self, part: &str) -> Result<()> {
        let log = fs::read_to_string(self.home.path().join("agent.log"))?;
        ensure!(log.contains(part), "{part:?} is not in:\n{log}");
        Ok(())
    }
}

fn member<'a>(record: &'a Value, key: &str) -> Result<&'a str> {
    record[key].as_str().with_context(|| format!("no {key} in {record}"))
}

// ---- the tests

#[test]
fn what_a_stopped_agent_left_is_taken_over() -> Result<()> {
    Left::by("stopped")?.take_over()
}

/// It had written records that its checkpoint does not know.
#[test]
fn what_a_killed_agent_left_is_taken_over() -> Result<()> {
    let left = Left::by("killed")?;
    left.take_over()?;
    for source in AHEAD {
        left.assert_said(&format!("{} holds", left.output(source).display()))?;
    }
    // Its first lines were read by the old agent and not delivered: they wait for those that continue them.
    let records = fs::read_to_string(left.output("trace"))?;
    ensure!(records.contains(r#""message":"fault 2\n  at a\n  at b""#), "not joined:\n{records}");
    Ok(())
}

/// The checkpoint before is older, and as good.
#[test]
fn the_checkpoint_before_serves_as_well() -> Result<()> {
    let left = Left::by("killed")?;
    fs::write(left.checkpoint("checkpoint.json"), "damaged")?;
    left.take_over()?;
    left.assert_said("checkpoint.json.previous is used instead")
}

/// Without positions it would deliver everything again, so it must not begin; and it must not spoil them for the agent that
/// can read them.
#[test]
fn a_newer_checkpoint_is_refused_with_a_cure() -> Result<()> {
    let left = Left::by("stopped")?;
    left.go_on()?;
    let agent = left.start()?;
    left.assert_all_came("after the upgrade")?;
    agent.stop()?;
    let path = left.checkpoint("checkpoint.json");
    let ours = fs::read_to_string(&path)?;
    let (header, body) = ours.split_once('\n').context("no header")?;
    let version = header.strip_prefix("capturer-checkpoint v").and_then(|rest| rest.split(' ').next());
    let version: u32 = version.context("no version")?.parse()?;
    ensure!(with_header(version, body) == ours, "made otherwise than here: {header}");
    let newer = with_header(version + 1, body);
    fs::write(&path, &newer)?;
    left.one_more_each(1)?;
    let outputs = SOURCES.map(|source| fs::read(left.output(source)).unwrap_or_default());

    let (code, said) = left.run_to_its_end()?;
    ensure!(code == Some(69), "{code:?}: {said}");
    for part in [
        &format!("written in format v{}", version + 1),
        &format!("this program reads v{version}"),
        "a newer capturer made it",
        &format!("{}: move it away to begin without it", path.display()),
    ] {
        ensure!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    ensure!(fs::read_to_string(&path)? == newer, "the checkpoint was changed");
    let after = SOURCES.map(|source| fs::read(left.output(source)).unwrap_or_default());
    ensure!(after == outputs, "outputs were changed");

    // Back to the agent that made it.
    fs::write(&path, &ours)?;
    let agent = left.start()?;
    left.assert_all_came("after all")?;
    agent.assert_nothing_lost()?;
    agent.stop()
}

impl Left {
    /// Exit code and standard error of an agent that does not come far.
    fn run_to_its_end(&self) -> Result<(Option<i32>, String)> {
        let said = self.home.path().join("refused.log");
        let config = self.home.path().join("config.yaml");
        let mut command = Command::new(program());
        command.args(["run", "-c"]).arg(config).stdin(Stdio::null()).stderr(File::create(&said)?);
        let mut child = command.spawn()?;
        let ended = wait_until("the agent to end", PATIENCE, || child.try_wait().ok().flatten());
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let text = fs::read_to_string(&said)?;
        Ok((ended.with_context(|| text.clone())?.code(), text))
    }
}
