//! What a user is told: exit codes and messages of the program itself, run as a user runs it.
//!
//! Otherwise a service manager might restart for ever what only a person can mend, without telling how.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, program};
use capturer_tests::disk::Disk;
use capturer_tests::skipped;
use capturer_tests::wait::{PATIENCE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// A command that ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn assert(&self, code: i32, parts: &[&str]) {
        let text = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}

/// Runs it to its end; a command that does not end is killed and fails the test.
fn finish(command: &mut Command) -> Result<Ended> {
    let home = tempfile::tempdir()?;
    let (out, err) = (home.path().join("out"), home.path().join("err"));
    let child = command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?).spawn();
    let mut child = Killed(child.with_context(|| format!("starting {command:?}"))?);
    let status = child.ended()?;
    Ok(Ended {
        code: status.code(),
        out: String::from_utf8_lossy(&fs::read(out)?).into_owned(),
        err: String::from_utf8_lossy(&fs::read(err)?).into_owned(),
    })
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Killed {
    fn ended(&mut self) -> Result<ExitStatus> {
        wait_until("the command to end", PATIENCE, || self.0.try_wait().ok().flatten())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn capturer(words: &[&str]) -> Result<Ended> {
    finish(Command::new(program()).args(words))
}

/// `capturer run` on this config.
fn run(home: &Home, config: &str) -> Result<Ended> {
    finish(&mut run_command(home, config)?)
}

fn run_command(home: &Home, config: &str) -> Result<Command> {
    let mut command = Command::new(program());
    command.args(["run", "-c"]).arg(write_config(home, config)?);
    Ok(command)
}

fn write_config(home: &Home, text: &str) -> Result<PathBuf> {
    let path = home.path().join("c.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// A config that follows `home/in/*.log`, with no Docker.
fn follows_files(home: &Home) -> String {
    let more = format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/in/*.log\"]}}]}}\n",
        home.path().display()
    );
    home.config(&more)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_config_that_is_wrong_is_78_and_says_where() -> Result<()> {
    let home = Home::new()?;
    let table = [
        ("data_dir: [\n", &["c.yaml:"][..]),
        (
            "log: {level: info}\ncontainer_monitr: {}\n",
            &["c.yaml:2:1", "container_monitr", "container_monitor"],
        ),
        ("log:\n  levl: info\n", &["c.yaml:2:3", "log.levl", "level"]),
        ("shutdown_timeout: 5\n", &["c.yaml:1:19", "shutdown_timeout", "5s"]),
        ("log: [info]\n", &["c.yaml:1:6", "log"]),
        ("sinks:\n  local_file: {directory: {a: b}}\n", &["c.yaml:2:27", "sinks.local_file.directory"]),
        (
            "sinks:\n  local_file:\n    file: \"{date}.ndjson\"\n",
            &["c.yaml:3:11", "sinks.local_file.file", "{date} is unknown", "rotate_every to 24h"],
        ),
        ("container_monitor: {include_names: web}\n", &["c.yaml:1:36", "container_monitor.include_names"]),
        ("admin: {listen: 8001}\n", &["c.yaml:1:17", "admin.listen"]),
        ("log: {level: info}\nlog: {level: warn}\n", &["c.yaml:2:1", "log"]),
        ("\u{0}\u{1}", &["c.yaml:"]),
        ("sinks: {local_file: {enabled: false}}\n", &["sinks", "none is enabled"]),
        ("container_monitor: {enabled: false}\n", &["there is nothing to capture"]),
        ("data_dir: ${CAPTURER_TEST_NOT_SET}\n", &["c.yaml:1:11", "CAPTURER_TEST_NOT_SET"]),
    ];
    for (text, parts) in table {
        run(&home, text)?.assert(78, parts);
        let path = home.path().join("c.yaml");
        finish(Command::new(program()).args(["check", "-c"]).arg(&path))?.assert(78, parts);
        finish(Command::new(program()).args(["positions", "-c"]).arg(&path))?.assert(78, parts);
    }
    capturer(&["run", "-c", "/nonexistent/c.yaml"])?.assert(78, &["/nonexistent/c.yaml", "No such file"]);
    capturer(&["check", "--set", "log.levl=debug"])?.assert(78, &["--set", "log.levl", "level"]);
    Ok(())
}

#[test]
fn wrong_usage_is_64() -> Result<()> {
    capturer(&[])?.assert(64, &["Usage: capturer <COMMAND>"]);
    capturer(&["chekc"])?.assert(64, &["'check'"]);
    capturer(&["run", "--nonsense"])?.assert(64, &["--nonsense"]);
    capturer(&["quickstart", "--seconds", "soon"])?.assert(64, &["--seconds"]);
    capturer(&["quickstart", "--socket", "tcp://127.0.0.1:2375"])?.assert(64, &["tcp:// is not supported"]);
    Ok(())
}

#[test]
fn every_help_is_there() -> Result<()> {
    let help = capturer(&["--help"])?;
    help.assert(0, &["Exit codes:"]);
    let commands = help.out.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let commands: Vec<&str> = commands
        .context("no list of commands")?
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    ensure!(commands.contains(&"run") && commands.contains(&"positions"), "{commands:?}");
    for command in commands {
        capturer(&["help", command])?.assert(0, &["Usage: "]);
        if command != "help" {
            capturer(&[command, "--help"])?.assert(0, &[&format!("Usage: capturer {command}")]);
        }
    }
    capturer(&["--version"])?.assert(0, &["capturer "]);
    Ok(())
}

#[test]
fn the_completion_is_a_script() -> Result<()> {
    let script = capturer(&["completion", "bash"])?;
    script.assert(0, &["quickstart"]);
    let home = tempfile::tempdir()?;
    let path = home.path().join("capturer.bash");
    fs::write(&path, script.out)?;
    finish(Command::new("bash").arg("-n").arg(&path))?.assert(0, &[]);
    Ok(())
}

/// An empty report looked like a good one: each printed nothing to a full disk and ended with 0.
#[test]
fn an_answer_that_can_not_be_written_is_74() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("data"))?;
    let config = write_config(&home, &follows_files(&home))?;
    let config = config.to_str().context("not UTF-8")?;
    let commands = "--help;--version;help tap;completion bash;check -c C;positions -c C;positions --json -c C;\
                    dead-letters list -c C;dead-letters purge -c C";
    for words in commands.split(';') {
        let write_to = |out: Stdio| -> Result<(Option<i32>, String)> {
            let err = home.path().join("err");
            let mut command = Command::new(program());
            let words = words.split(' ').map(|word| if word == "C" { config } else { word });
            command.args(words).stdin(Stdio::null()).stdout(out).stderr(File::create(&err)?);
            let mut child = Killed(command.spawn()?);
            drop(command);
            Ok((child.ended()?.code(), fs::read_to_string(err)?))
        };
        let full = File::options().write(true).open("/dev/full")?;
        let (code, err) = write_to(full.into())?;
        assert_eq!(code, Some(74), "{words:?}: {err}");
        let said = "capturer: standard output could not be written: No space left on device (os error 28)\n";
        assert_eq!(err, said, "{words:?}");
        // `| head`: whoever closed the pipe has seen enough.
        let (reader, pipe) = std::io::pipe()?;
        drop(reader);
        assert_eq!(write_to(pipe.into())?, (Some(0), String::new()), "{words:?}");
    }
    Ok(())
}

/// Checking must not create anything: as root it would leave directories that the agent's user can't use.
#[test]
fn commands_that_look_change_nothing() -> Result<()> {
    let home = Home::new()?;
    let config = write_config(&home, &follows_files(&home))?;
    finish(Command::new(program()).args(["check", "-c"]).arg(&config))?.assert(0, &["is good"]);
    let positions = finish(Command::new(program()).args(["positions", "-c"]).arg(&config))?;
    positions.assert(69, &["no positions in", "there is no such directory"]);
    let online = finish(Command::new(program()).args(["check", "--online", "-c"]).arg(&config))?;
    online.assert(0, &["is not there yet; it can be created"]);
    let left: Vec<_> =
        fs::read_dir(home.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(left, ["c.yaml"]);
    Ok(())
}

/// The permissions are fine and still no file can be made: `check` reports it before a start does, and each names the
/// cure.
#[test]
fn a_directory_that_takes_no_file_is_named() -> Result<()> {
    let home = Home::new()?;
    let full = home.path().join("full");
    let _disk = Disk::mount(&full, 64)?;
    fs::write(full.join("fills"), vec![0; 1 << 16])?;
    let text =
        home.config("container_monitor: {enabled: false}\nfile_monitor: {files: [{paths: [/none/a.log]}]}\n");
    let own = home.path().join("data").display().to_string();
    for (data_dir, why) in [
        (full.join("data"), "disk has no 64 KiB free"),
        (PathBuf::from("/proc/x"), "it is proc"),
        (PathBuf::from("/sys"), "it is sysfs"),
    ] {
        let config = home.path().join("c.yaml");
        fs::write(&config, text.replace(&own, &data_dir.display().to_string()))?;
        let run = |words: &[&str]| finish(Command::new(program()).args(words).arg("-c").arg(&config));
        run(&["check", "--online"])?.assert(69, &["FAILED positions", why, "with data_dir"]);
        run(&["doctor"])?.assert(69, &["fail  data_dir", "it would exit with 69"]);
        let ended = run(&["run"])?;
        assert!(ended.code != Some(0) && ended.err.contains("data_dir"), "{:?} {}", ended.code, ended.err);
    }
    Ok(())
}

/// Problems that only a start would meet are reported by `check` too; and an empty secret must not open what it protects.
#[test]
fn keys_and_tokens_are_read_by_check() -> Result<()> {
    let home = Home::new()?;
    let config = write_config(&home, &follows_files(&home))?;
    let empty = home.path().join("empty");
    fs::write(&empty, "\n")?;
    let check = |more: &[String]| {
        let set = more.iter().flat_map(|set| ["--set".to_owned(), set.clone()]);
        finish(Command::new(program()).args(["check", "-c"]).arg(&config).args(set))
    };
    let empty = empty.display();
    let files = [format!("admin.tls_cert={empty}"), "admin.tls_key=/none".to_owned()];
    check(&files)?.assert(69, &["FAILED: admin.tls_cert", "the agent would not start with this config"]);
    let loki = ["sinks.loki.enabled=true".to_owned(), "sinks.loki.url=http://127.0.0.1:9".to_owned()];
    let with_loki = |more: &str| [&loki[..], &[more.to_owned()]].concat();
    check(&with_loki(&format!("sinks.loki.auth.bearer_token_file={empty}")))?
        .assert(69, &["FAILED: sinks.loki", "the file is empty"]);
    check(&with_loki("sinks.loki.auth.username=me"))?.assert(78, &["sinks.loki.auth.password", "is missing"]);
    check(&[format!("admin.token=${{file:{empty}}}")])?
        .assert(78, &["admin.token", "stands for 0 characters"]);
    check(&["container_monitor.include_names=[\"^web-.*$\"]".to_owned()])?.assert(0, &["regular expression"]);
    Ok(())
}

#[test]
fn positions_after_a_run() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    fs::write(home.path().join("in/a.log"), "one\ntwo\n")?;
    let config = follows_files(&home);
    let agent = home.start(&config)?;
    wait_until("both lines", PATIENCE, || Ok::<_, anyhow::Error>(lines_of(&home)?.len() == 2).and_then(yes))?;
    agent.stop()?;
    let config = write_config(&home, &config)?;
    let positions =
        |more: &[&str]| finish(Command::new(program()).args(["positions", "-c"]).arg(&config).args(more));
    positions(&[])?.assert(0, &["STREAM", "in/a.log", "local_file", "byte 8 of inode "]);
    let json: Value = serde_json::from_str(&positions(&["--json"])?.out)?;
    let key = format!("file:{}/in/a.log", home.path().display());
    assert_eq!(json["streams"][&key]["local_file"]["cursor"]["offset"], 8, "{json}");
    Ok(())
}

fn yes(there: bool) -> Result<()> {
    ensure!(there, "not yet");
    Ok(())
}

/// All messages written, sorted.
fn lines_of(home: &Home) -> Result<Vec<String>> {
    let mut lines: Vec<String> =
        home.records()?.into_values().flatten().map(|record| record.message).collect();
    lines.sort();
    Ok(lines)
}

/// The README's promise about a crash: records after the last checkpoint stay in the output, and are skipped when they
/// are read again, so nothing is missing and nothing is there twice.
#[test]
fn a_crash_repeats_nothing() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    let mut log = File::create(home.path().join("in/a.log"))?;
    let config = follows_files(&home);
    let mut number = 0;
    for _round in 0..5 {
        let agent = home.start(&config)?;
        let before = home.output_bytes();
        // Written while it is read, so that the end comes in the middle of something.
        wait_until("some output", PATIENCE, || {
            let lines: String = (number..number + 500).map(|n| format!("line {n:07}\n")).collect();
            log.write_all(lines.as_bytes())?;
            number += 500;
            yes(home.output_bytes() > before + 100_000)
        })?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    let expected: Vec<String> = (0..number).map(|n| format!("line {n:07}")).collect();
    // Not a failure yet if it never comes: the comparison says what is missing.
    let _ = wait_until("all lines", PATIENCE, || yes(lines_of(&home)?.len() >= expected.len()));
    let got = lines_of(&home)?;
    assert!(got == expected, "{} lines, {} expected", got.len(), expected.len());
    agent.stop()
}

/// Without positions everything is read again: whoever lost data_dir must learn why lines are there twice.
#[test]
fn a_lost_data_dir_is_told_where_outputs_have_lines() -> Result<()> {
    let home = Home::new()?;
    let input = home.path().join("in.log");
    fs::write(&input, "one\n")?;
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"]}}]}}\n",
        input.display()
    ));
    let told = |lines: u64| -> Result<bool> {
        let before = home.output_bytes();
        let agent = home.start(&config)?;
        wait_until("a line", PATIENCE, || home.output_bytes() > before)?;
        ensure!(lines_of(&home)?.len() as u64 == lines, "{:?}", lines_of(&home)?);
        let told = agent.log_text()?.contains("there is no checkpoint in data_dir");
        agent.stop()?;
        Ok(told)
    };
    ensure!(!told(1)?, "the first run was told of outputs from before");
    fs::remove_dir_all(home.path().join("data"))?;
    ensure!(told(2)?, "nobody was told why a line is there twice");
    Ok(())
}

/// `capturer quickstart | head -1`: a reader that goes away must not end the capture.
#[test]
fn a_quickstart_whose_reader_went_away_ends_well() -> Result<()> {
    let home = Home::new()?;
    let (reader, pipe) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(program());
    command.args(["quickstart", "--seconds", "5", "--admin", "", "--socket", "/nonexistent/docker.sock"]);
    command.arg("--directory").arg(home.output_dir()).stdin(Stdio::null()).stdout(pipe);
    let mut child = Killed(command.spawn()?);
    drop(command);
    assert_eq!(child.ended()?.code(), Some(0));
    let files = fs::read_dir(home.output_dir())?.flatten();
    let written = files.filter(|file| file.path().extension().is_some_and(|end| end == "ndjson"));
    ensure!(written.count() == 3, "the demonstration's three logs were not captured");
    Ok(())
}

#[test]
fn a_port_in_use_is_69() -> Result<()> {
    let home = Home::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let config = follows_files(&home).replace("127.0.0.1:0", &address);
    run(&home, &config)?.assert(69, &[&address, "another process listens there", "admin.listen"]);
    Ok(())
}

/// Whatever collects JSON lines would drop a plain one, and it is the one that says why the agent ended.
#[test]
fn the_reason_of_an_end_is_json_where_the_log_is() -> Result<()> {
    let home = Home::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let config = follows_files(&home).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let ended = run(&home, &config.replace("log: {", "log: {format: json, "))?;
    ended.assert(69, &["the agent ends: ", "another process listens there"]);
    for line in ended.err.lines() {
        let record: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        ensure!(record["level"].is_string(), "{line}");
    }
    Ok(())
}

/// With a handful of descriptors it panicked somewhere in a library, in another place for each number.
#[test]
fn too_few_descriptors_are_69_and_name_the_limit() -> Result<()> {
    let home = Home::new()?;
    let config = write_config(&home, &follows_files(&home))?;
    for limit in [4, 6, 22, 42, 95] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(program()).args(["run", "-c"]).arg(&config);
        finish(&mut command)?.assert(69, &[&format!("may have {limit} file descriptors"), "LimitNOFILE="]);
    }
    Ok(())
}

#[test]
fn a_data_dir_in_use_is_69_and_names_the_other() -> Result<()> {
    let home = Home::new()?;
    let config = follows_files(&home);
    let agent = home.start(&config)?;
    run(&home, &config)?.assert(69, &[&format!("in use by process {}", agent.pid()), "one data_dir"]);
    agent.stop()
}

#[test]
fn a_data_dir_that_can_not_be_made_is_69() -> Result<()> {
    let home = Home::new()?;
    fs::write(home.path().join("data"), "a file")?;
    run(&home, &follows_files(&home))?.assert(69, &["data directory", "/data", "data_dir"]);
    Ok(())
}

/// Root may do anything, so it becomes nobody first.
#[test]
fn a_missing_right_is_77() -> Result<()> {
    let home = Home::new()?;
    let closed = home.path().join("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(if is_root() { 0o700 } else { 0o500 }))?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    // The build may be in a directory that nobody else may enter.
    let copy = home.path().join("capturer");
    fs::copy(program(), &copy)?;
    let as_nobody = |config: &str| -> Result<Ended> {
        let mut command = Command::new(&copy);
        command.args(["run", "-c"]).arg(write_config(&home, config)?);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        finish(&mut command)
    };
    let open = home.path().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777))?;
    let config = follows_files(&home);
    let (data, out) = (format!("{}/data", home.path().display()), format!("{}/out", home.path().display()));
    let inside = |directory: &Path, name: &str| directory.join(name).display().to_string();
    let no_data = config.replace(&data, &inside(&closed, "data")).replace(&out, &inside(&open, "out"));
    as_nobody(&no_data)?.assert(77, &["data directory", "ermission denied", "data_dir"]);
    let no_output = config.replace(&data, &inside(&open, "data")).replace(&out, &inside(&closed, "out"));
    as_nobody(&no_output)?.assert(77, &["sinks.local_file", "ermission denied"]);

    let config = write_config(&home, &config)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o000))?;
    let mut command = Command::new(&copy);
    command.args(["check", "-c"]).arg(&config);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    finish(&mut command)?.assert(77, &["c.yaml", "ermission denied"]);
    Ok(())
}

/// A socket without permission is no reason to end, for permissions may be mended while the agent runs; but it is
/// reported.
#[test]
fn a_socket_without_a_right_is_named() -> Result<()> {
    if !is_root() {
        skipped!("only root can become a user without the right");
        return Ok(());
    }
    let home = Home::new()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777))?;
    let copy = home.path().join("capturer");
    fs::copy(program(), &copy)?;
    let socket = home.path().join("docker.sock");
    let _engine = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let config =
        home.config(&format!("container_monitor: {{socket_path: \"unix://{}\"}}\n", socket.display()));
    let log = home.path().join("agent.log");
    let mut command = Command::new(&copy);
    command.args(["run", "-c"]).arg(write_config(&home, &config)?).uid(NOBODY).gid(NOBODY);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut child = Killed(command.spawn()?);
    wait_until("the agent to say it", PATIENCE, || {
        let text = fs::read_to_string(&log)?;
        let said = ["Docker is not reachable", &socket.display().to_string(), "ermission denied"];
        ensure!(said.iter().all(|part| text.contains(part)), "{text}");
        Ok(())
    })?;
    child.signal(Signal::TERM)?;
    assert_eq!(child.ended()?.code(), Some(0));
    Ok(())
}

/// CRC-32 as in zlib, slow and obvious.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

/// Starting without it would deliver everything again, and overwriting it would lose the newer version's positions.
#[test]
fn a_checkpoint_of_a_newer_version_is_refused_and_kept() -> Result<()> {
    let home = Home::new()?;
    let path = home.path().join("data/checkpoint.json");
    fs::create_dir(home.path().join("data"))?;
    let body = "{\"of\": \"the future\"}\n";
    let sum = crc32(format!("v3 bytes={}\n{body}", body.len()).as_bytes());
    let newer = format!("capturer-checkpoint v3 crc32={sum:08x} bytes={}\n{body}", body.len());
    fs::write(&path, &newer)?;
    run(&home, &follows_files(&home))?.assert(69, &["checkpoint.json", "v3", "newer", "move it away"]);
    assert_eq!(fs::read_to_string(&path)?, newer);
    Ok(())
}

/// A blocked sink keeps a stop waiting for `shutdown_timeout`; a second signal ends it at once.
#[test]
fn a_second_signal_ends_it_at_once() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    fs::write(home.path().join("in/a.log"), "a line that fills the pipe\n".repeat(100_000))?;
    let config =
        follows_files(&home).replace("sinks:\n", "shutdown_timeout: 1h\nsinks:\n  stdout: {enabled: true}\n");
    let (_nobody_reads, pipe) = std::io::pipe()?;
    let log = home.path().join("agent.log");
    let mut command = run_command(&home, &config)?;
    command.stdin(Stdio::null()).stdout(pipe).stderr(File::create(&log)?);
    let mut child = Killed(command.spawn()?);
    drop(command);
    // A pipe holds 64 KiB: once local_file has that much, standard output is stuck.
    wait_until("a full pipe", PATIENCE, || home.output_bytes() > 200_000)?;
    child.signal(Signal::TERM)?;
    // Another signal than the first: two of a kind may arrive as one.
    child.signal(Signal::INT)?;
    let status = child.ended()?;
    let text = fs::read_to_string(&log)?;
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("a second time"), "{text}");
    Ok(())
}

/// It may be stopped as soon as its log says that it listens: it used to be ended by the signal then, not by itself.
#[test]
fn a_signal_behind_its_first_lines_ends_it_well() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    let config = follows_files(&home);
    for round in 0..20 {
        let log = home.path().join(format!("agent-{round}.log"));
        let mut command = run_command(&home, &config)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut child = Killed(command.spawn()?);
        let text = || fs::read_to_string(&log);
        while !text()?.contains("admin server listens") {
            assert!(child.0.try_wait()?.is_none(), "{}", text()?);
        }
        child.signal(Signal::TERM)?;
        assert_eq!(child.ended()?.code(), Some(0), "round {round}: {}", text()?);
    }
    Ok(())
}

/// `systemctl reload` right after a start: the signal ended the agent, which systemd takes for a clean end.
#[test]
fn a_reload_during_the_start_does_not_end_it() -> Result<()> {
    let home = Home::new()?;
    fs::create_dir(home.path().join("in"))?;
    let config = follows_files(&home);
    for round in 0..10 {
        let log = home.path().join(format!("agent-{round}.log"));
        let mut command = run_command(&home, &config)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut child = Killed(command.spawn()?);
        let text = || fs::read_to_string(&log);
        wait_until("its first line", PATIENCE, || {
            ensure!(text()?.contains("capturer starts"), "{}", text()?);
            Ok(())
        })?;
        child.signal(Signal::HUP)?;
        let reloaded = "nothing has changed in the config";
        wait_until("the reload", PATIENCE, || {
            ensure!(child.0.try_wait()?.is_some() || text()?.contains(reloaded), "{}", text()?);
            Ok(())
        })?;
        child.signal(Signal::TERM)?;
        assert_eq!(child.ended()?.code(), Some(0), "round {round}: {}", text()?);
    }
    Ok(())
}

/// Sinks advance together. Without a reader of standard output all of them stop, and a supervisor must notice that.
#[test]
fn a_reader_that_goes_away_is_no_clean_end_beside_other_sinks() -> Result<()> {
    for (others, code) in [(true, 69), (false, 0)] {
        let home = Home::new()?;
        fs::create_dir(home.path().join("in"))?;
        fs::write(home.path().join("in/a.log"), "one\n")?;
        let mut config = follows_files(&home).replace("sinks:\n", "sinks:\n  stdout: {enabled: true}\n");
        if !others {
            config = config.replace("local_file: {", "local_file: {enabled: false, ");
        }
        let (mut reader, pipe) = std::io::pipe()?;
        let log = home.path().join("agent.log");
        let mut command = run_command(&home, &config)?;
        command.stdin(Stdio::null()).stdout(pipe).stderr(File::create(&log)?);
        let mut child = Killed(command.spawn()?);
        drop(command);
        let mut first = [0; 1];
        reader.read_exact(&mut first)?;
        drop(reader);
        File::options().append(true).open(home.path().join("in/a.log"))?.write_all(b"two\n")?;
        let status = child.ended()?;
        let text = fs::read_to_string(&log)?;
        assert_eq!(status.code(), Some(code), "{text}");
        // It does not wait for lines that nobody will take.
        assert!(!text.contains("did not wait for file"), "{text}");
        assert_eq!(text.contains("stdout, which nobody reads any more"), others, "{text}");
    }
    Ok(())
}

/// Runs a program with io_uring_setup refused, as container runtimes do it. perl, because it is on every Debian and
/// can make a system call by number.
fn without_io_uring(errno: u32) -> Option<Command> {
    let prctl = match std::env::consts::ARCH {
        "x86_64" => 157,
        "aarch64" => 167,
        _ => return None,
    };
    // Load the call's number; is it io_uring_setup (425)? Then this error, else allowed.
    let script = format!(
        "my $code = pack('SCCL' x 4, 0x20,0,0,0, 0x15,0,1,425, 6,0,0,0x00050000|{errno}, 6,0,0,0x7fff0000);\
         my $program = pack('Sx6P', 4, $code);\
         syscall({prctl}, 38, 1, 0, 0, 0) == 0 or die \"no_new_privs: $!\";\
         syscall({prctl}, 22, 2, $program, 0, 0) == 0 or die \"seccomp: $!\";\
         exec @ARGV or die $!;"
    );
    Command::new("perl").arg("-e1").status().ok().filter(ExitStatus::success)?;
    let mut command = Command::new("perl");
    command.args(["-e", &script]);
    Some(command)
}

#[test]
fn without_io_uring_it_is_69_with_cause_and_cure() -> Result<()> {
    const EPERM: u32 = 1;
    const ENOSYS: u32 = 38;
    let home = Home::new()?;
    let config = write_config(&home, &follows_files(&home))?;
    for (errno, parts) in [
        (EPERM, ["io_uring is not available", "seccomp profile", "seccomp=unconfined"]),
        (ENOSYS, ["io_uring is not available", "older than 5.1", "Linux 5.10 or newer"]),
    ] {
        let Some(mut command) = without_io_uring(errno) else {
            skipped!("no perl, or a processor whose system calls have other numbers");
            return Ok(());
        };
        let ended = finish(command.arg(program()).args(["run", "-c"]).arg(&config))?;
        ended.assert(69, &parts);
        // One sentence for a person, not a page.
        assert!(ended.err.lines().filter(|line| line.starts_with("capturer:")).count() == 1, "{}", ended.err);
        assert!(!home.path().join("data").exists(), "it made something before it knew that it can't run");
    }
    Ok(())
}

/// `capturer doctor --json`: the exit code, and status and cure of each check.
fn doctor(command: &mut Command) -> Result<(Option<i32>, Value)> {
    let ended = finish(command.arg("--json"))?;
    let report: Value =
        serde_json::from_str(&ended.out).with_context(|| format!("{}{}", ended.out, ended.err))?;
    assert_eq!(report["exit_code"], ended.code.unwrap_or(-1), "{report}");
    let checks = report["checks"].as_array().context("no checks")?;
    for check in checks {
        let well = check["status"] == "ok";
        ensure!(check["cure"].is_null() == well && check["message"].is_string(), "{check}");
    }
    Ok((ended.code, report))
}

fn check_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().into_iter().flatten();
    checks.into_iter().find(|check| check["check"] == name).unwrap_or(&Value::Null)
}

#[test]
fn doctor_says_what_is_amiss_and_changes_nothing() -> Result<()> {
    let home = Home::new()?;
    let config = home.config("container_monitor: {socket_path: \"unix:///nonexistent/docker.sock\"}\n");
    let config = write_config(&home, &config)?;
    let ask = || {
        let mut command = Command::new(program());
        command.args(["doctor", "-c"]).arg(&config);
        command
    };
    let (code, report) = doctor(&mut ask())?;
    assert_eq!(code, Some(0), "{report}");
    for name in ["config", "io_uring", "data_dir", "local_file", "admin"] {
        assert_eq!(check_of(&report, name)["status"], "ok", "{report}");
    }
    let docker = check_of(&report, "docker");
    assert_eq!(docker["status"], "warn");
    assert!(docker["cure"].as_str().is_some_and(|cure| cure.contains("Start dockerd")), "{docker}");
    let left: Vec<_> =
        fs::read_dir(home.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(left, ["c.yaml"]);

    let table = finish(&mut ask())?;
    table.assert(0, &["ok    io_uring", "warn  docker", "> Start dockerd", "capturer can run here"]);
    ensure!(table.out.lines().all(|line| line.chars().count() <= 80), "{}", table.out);
    ensure!(!table.out.contains('\x1b'), "colours in a file");

    fs::write(&config, "log: {levl: info}\n")?;
    let (code, report) = doctor(&mut ask())?;
    assert_eq!((code, &check_of(&report, "config")["status"]), (Some(78), &"fail".into()), "{report}");
    Ok(())
}

#[test]
fn doctor_of_nobody_is_77_and_names_the_rights() -> Result<()> {
    if !is_root() {
        skipped!("only root may become nobody");
        return Ok(());
    }
    let home = Home::new()?;
    let copy = home.path().join("capturer");
    fs::copy(program(), &copy)?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let config = write_config(&home, &follows_files(&home))?;
    let mut command = Command::new(&copy);
    command.args(["doctor", "-c"]).arg(&config).uid(NOBODY).gid(NOBODY);
    let (code, report) = doctor(&mut command)?;
    assert_eq!(code, Some(77), "{report}");
    assert_eq!(check_of(&report, "data_dir")["status"], "fail");
    let rights = check_of(&report, "capabilities").to_string();
    ensure!(rights.contains("AmbientCapabilities=CAP_DAC_READ_SEARCH CAP_BPF CAP_PERFMON"), "{rights}");
    Ok(())
}

#[test]
fn doctor_without_io_uring_is_69() -> Result<()> {
    let home = Home::new()?;
    let config = write_config(&home, &follows_files(&home))?;
    let Some(mut command) = without_io_uring(1) else {
        skipped!("no perl, or a processor whose system calls have other numbers");
        return Ok(());
    };
    let (code, report) = doctor(command.arg(program()).args(["doctor", "-c"]).arg(&config))?;
    let ring = check_of(&report, "io_uring").to_string();
    ensure!(code == Some(69) && ring.contains("seccomp=unconfined"), "{report}");
    Ok(())
}

/// Beside a running agent its port and its data_dir are in use, which is right.
#[test]
fn doctor_knows_a_running_agent() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&follows_files(&home))?;
    let config = home.path().join("config.yaml");
    let (code, report) = doctor(Command::new(program()).args(["doctor", "-c"]).arg(&config))?;
    let admin = check_of(&report, "admin").to_string();
    ensure!(code == Some(0) && admin.contains(&format!("as process {}", agent.pid())), "{report}");
    agent.stop()
}
