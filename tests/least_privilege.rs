//! The agent as packaging/capturer.service runs it: another user than root, the Engine's group, and three capabilities;
//! and root, which gives up what it does not need.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, program};
use capturer_tests::engine::{Engine, EngineVersion};
use capturer_tests::scene::{self, Reading, assert_equal_to_docker_logs, run_numbered};
use capturer_tests::wait::{PATIENCE, wait_until};

/// A user and a group who own nothing else.
const USER: u32 = 47_110;
const GROUP: u32 = 47_111;
/// Bits of the numbers in linux/capability.h.
const DAC_READ_SEARCH: u64 = 1 << 2;
const BPF: u64 = 1 << 39;

/// Ended with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Effective and permitted capabilities, and NoNewPrivs, of every thread.
fn rights(pid: u32) -> Result<Vec<(u64, u64, bool)>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = |key: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(key));
            found.map(str::trim).with_context(|| format!("no {key}"))
        };
        let set = |key| anyhow::Ok(u64::from_str_radix(line(key)?, 16)?);
        all.push((set("CapEff:")?, set("CapPrm:")?, line("NoNewPrivs:")? == "1"));
    }
    Ok(all)
}

/// A copy of the program that any user may run: a build may be in a directory that only its owner may enter.
fn copied(home: &Home) -> Result<PathBuf> {
    let copy = home.path().join("capturer");
    fs::copy(program(), &copy)?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

#[test]
fn three_capabilities_and_the_group_are_enough() -> Result<()> {
    let engine = Engine::start(EngineVersion::V28_5)?;
    let names = run_numbered(&engine, 2, 2_000, 2)?;
    // As `dockerd --group` does it with a group that the machine knows by name.
    chown(engine.socket(), Some(0), Some(GROUP))?;
    fs::set_permissions(engine.socket(), fs::Permissions::from_mode(0o660))?;
    fs::set_permissions(engine.root(), fs::Permissions::from_mode(0o711))?;

    let home = Home::new()?;
    let copy = copied(&home)?;
    for directory in ["data", "out"] {
        let path = home.path().join(directory);
        fs::create_dir(&path)?;
        chown(path, Some(USER), Some(USER))?;
    }
    let config = home.path().join("c.yaml");
    fs::write(&config, scene::config(&home, &engine, Reading::FILE))?;
    let log = fs::File::create(home.path().join("agent.log"))?;
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}")).arg(format!("--groups={GROUP}"));
    let three = "-all,+dac_read_search,+bpf,+perfmon";
    command.args(["--inh-caps", three, "--ambient-caps", three, "--bounding-set", three]);
    command.arg(&copy).args(["run", "-c"]).arg(&config);
    let agent = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);

    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    let said = fs::read_to_string(home.path().join("agent.log"))?;
    ensure!(said.contains("tier=t") || said.contains("tier=kprobe"), "the witness looks at /proc:\n{said}");
    let threads = rights(agent.0.id())?;
    ensure!(threads.len() > 3, "{threads:?}");
    for (effective, permitted, no_new) in threads {
        ensure!(effective == permitted && no_new, "{effective:x} {permitted:x} {no_new}");
        // CAP_BPF only where the kernel lets nobody else read maps; the log's thread needs nothing.
        ensure!([0, DAC_READ_SEARCH, DAC_READ_SEARCH | BPF].contains(&effective), "{effective:x}");
    }
    drop(agent);
    engine.close()
}

/// A user who knows a file's name may read it in a directory with mode 0711, without permission to list the directory.
#[test]
fn a_named_file_is_read_where_its_directory_cannot_be_listed() -> Result<()> {
    let home = Home::new()?;
    let copy = copied(&home)?;
    let input = home.path().join("in");
    for directory in ["in", "data", "out"] {
        fs::create_dir(home.path().join(directory))?;
    }
    fs::set_permissions(&input, fs::Permissions::from_mode(0o711))?;
    for directory in ["data", "out"] {
        chown(home.path().join(directory), Some(USER), Some(USER))?;
    }
    let log = input.join("a.log");
    fs::write(&log, "one\n")?;
    let config = home.path().join("c.yaml");
    let text = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{sweep_interval: 1s, files: [{{paths: [\"{}\"]}}]}}\n",
        log.display()
    ));
    fs::write(&config, text)?;
    let said = home.path().join("agent.log");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}")).arg("--clear-groups");
    command.args(["--inh-caps", "-all", "--ambient-caps", "-all", "--bounding-set", "-all"]);
    command.arg(&copy).args(["run", "-c"]).arg(&config);
    let agent =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&said)?).spawn()?;
    let agent = Process(agent);
    wait_until("the first line", PATIENCE, || home.output_bytes() > 0)?;

    let before = home.output_bytes();
    fs::OpenOptions::new().append(true).open(&log)?.write_all(b"two\n")?;
    wait_until("what is appended", PATIENCE, || home.output_bytes() > before)?;
    let before = home.output_bytes();
    fs::rename(&log, input.join("a.log.1"))?;
    fs::write(&log, "three\n")?;
    wait_until("what is written after a rotation", PATIENCE, || home.output_bytes() > before)?;
    let said = fs::read_to_string(said)?;
    ensure!(said.contains("can be entered and not listed"), "{said}");
    drop(agent);
    Ok(())
}

/// From files on disk that others own, with no permission but to read.
#[test]
fn root_gives_up_what_it_does_not_need() -> Result<()> {
    let home = Home::new()?;
    let input = home.path().join("in");
    fs::create_dir(&input)?;
    fs::write(input.join("a.log"), "one\n")?;
    chown(input.join("a.log"), Some(USER), Some(USER))?;
    fs::set_permissions(input.join("a.log"), fs::Permissions::from_mode(0o600))?;
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*.log\"]}}]}}\n",
        input.display()
    ));
    let agent = home.start(&config)?;
    wait_until("the line", PATIENCE, || home.output_bytes() > 0)?;
    // The thread that attaches the witness has all rights until it ends.
    let threads = wait_until("all threads to have no more than they need", PATIENCE, || {
        let threads = rights(agent.pid() as u32)?;
        for (effective, permitted, no_new) in &threads {
            ensure!(effective == permitted && *no_new, "{threads:x?}");
            ensure!(effective & !(DAC_READ_SEARCH | BPF) == 0, "{threads:x?}");
        }
        Ok(threads)
    })?;
    ensure!(threads.iter().any(|(effective, ..)| effective & DAC_READ_SEARCH != 0), "{threads:x?}");
    agent.stop()?;

    let agent = home.start(&(config + "privileges: keep\n"))?;
    let kept =
        rights(agent.pid() as u32)?.iter().filter(|(effective, ..)| effective.count_ones() > 10).count();
    ensure!(kept > 3, "{kept} threads kept what they had");
    agent.stop()
}

/// A port below 1024 is bound while the right to it is there: `check --online` and `doctor`, which give up nothing, say that it
/// is free.
#[test]
fn root_listens_below_1024_and_gives_up_the_right_to_it() -> Result<()> {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    // A port that nobody has.
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = (600..1024).rev().find(free).context("no port below 1024 is free")?;
    let home = Home::new()?;
    let more = "container_monitor: {enabled: false}\nfile_monitor: {files: [{paths: [/none/a.log]}]}\n";
    let text = home.config(more).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let agent = home.start(&text)?;
    wait_until("all threads to have given it up", PATIENCE, || {
        for (effective, permitted, no_new) in rights(agent.pid() as u32)? {
            ensure!(effective == permitted && no_new && effective & NET_BIND_SERVICE == 0, "{effective:x}");
        }
        Ok(())
    })?;
    agent.stop()
}
