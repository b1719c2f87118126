//! The README, followed as a stranger would: in a fresh clone, its first command, and every other that it shows.
//!
//! The clone has committed files only: a file that was forgotten is missing for a stranger too. It has a fixed place in
//! the target folder and shares that folder, so that only the workspace's own packages are built anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, program};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::skipped;
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// The first command builds a release.
const BUILD_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// How long each quickstart runs: long enough to start and to read what is there on a machine that does other things too.
const SECONDS: &str = "10";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// `<target>/release/capturer` → `<target>`.
fn target() -> Result<PathBuf> {
    let program = program().canonicalize().context("CAPTURER_BIN")?;
    let target = program.parent().and_then(Path::parent).context("CAPTURER_BIN lies in no target folder")?;
    Ok(target.to_path_buf())
}

/// A fresh clone. Tests use it one after the other, each without earlier output.
struct FreshClone {
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl FreshClone {
    fn take() -> Result<FreshClone> {
        static TURN: Mutex<()> = Mutex::new(());
        static CLONED: OnceLock<()> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // `cargo xtask test` has made one, and built the release agent in it.
        let made = std::env::var_os("CAPTURER_CLONE").map(PathBuf::from);
        let dir = made.clone().map_or_else(|| Ok(target()?.join("fresh-clone")), anyhow::Ok)?;
        if made.is_none() && CLONED.get().is_none() {
            clone(&dir)?;
            let _ = CLONED.set(());
        }
        remove(&dir.join("captured"))?;
        Ok(FreshClone { dir, _turn: turn })
    }

    fn readme(&self) -> Result<Readme> {
        Ok(Readme { text: fs::read_to_string(self.dir.join("README.md"))? })
    }

    /// Runs a command line of the README here, with extra arguments.
    fn run(&self, line: &str, more: &[&str], deadline: Duration) -> Result<String> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{line} \"$@\"")).arg("sh").args(more).current_dir(&self.dir);
        command.env("CARGO_TARGET_DIR", target()?);
        let bin = program().canonicalize()?.parent().context("no folder of programs")?.to_path_buf();
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&paths));
        command.env("PATH", std::env::join_paths(paths)?);
        // Set by the cargo that runs this test; a stranger's shell has none of these.
        for (key, _) in std::env::vars_os().filter(|(key, _)| is_of_cargo(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        finish(command, deadline).with_context(|| format!("{line} {}", more.join(" ")))
    }
}

fn is_of_cargo(key: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE"];
    (key.starts_with("CARGO") && !kept.contains(&key))
        || ["RUST_RECURSION_COUNT", "RUSTC_BOOTSTRAP"].contains(&key)
}

fn clone(dir: &Path) -> Result<()> {
    remove(dir)?;
    let home = tempfile::tempdir()?;
    // The tree may belong to another user than the one who tests it; git refuses that unless told.
    let config = home.path().join("gitconfig");
    fs::write(&config, "[safe]\n    directory = *\n")?;
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", &config).args(["clone", "--quiet"]).arg(workspace()).arg(dir);
    finish(git, PATIENCE).context("git clone (a tree without .git can't show what a fresh clone does)")?;
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it printed; it must end with 0.
fn finish(mut command: Command, deadline: Duration) -> Result<String> {
    let home = tempfile::tempdir()?;
    let (out, err) = (home.path().join("out"), home.path().join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let mut child = Killed(command.spawn()?);
    let ended = wait_until("the command to end", deadline, || child.0.try_wait().ok().flatten());
    let text = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (out, err) = (text(&out)?, text(&err)?);
    let status = ended.with_context(|| format!("it printed:\n{out}{err}"))?;
    ensure!(status.success(), "ended with {status}:\n{out}{err}");
    Ok(out)
}

/// The README, parsed.
struct Readme {
    text: String,
}

impl Readme {
    /// Fenced blocks: what stands behind the fence, and the lines.
    fn blocks(&self) -> Vec<(String, String)> {
        let mut blocks: Vec<(String, String)> = Vec::new();
        let mut inside = false;
        for line in self.text.lines() {
            match line.strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(kind) => {
                    inside = true;
                    blocks.push((kind.to_owned(), String::new()));
                }
                None if inside => {
                    if let Some((_, text)) = blocks.last_mut() {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                None => {}
            }
        }
        blocks
    }

    fn block(&self, kind: &str) -> Result<String> {
        let found = self.blocks().into_iter().find(|(own, _)| own == kind);
        Ok(found.with_context(|| format!("no block of {kind} in the README"))?.1)
    }

    /// The first row of each table row that begins with a code word: "| `x` | …" → "x".
    fn first_cells(&self) -> Vec<String> {
        let cells = self.text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        cells.map(|cell| cell.trim_matches('`').to_owned()).collect()
    }
}

/// The output of quickstart, by file: the records in their order. Every file must have been named.
fn captured(clone: &FreshClone, said: &str) -> Result<BTreeMap<String, Vec<Value>>> {
    ensure!(said.contains("captured, in ./captured/ with"), "it does not say where the records are:\n{said}");
    let mut all = BTreeMap::new();
    let mut count = 0;
    for entry in fs::read_dir(clone.dir.join("captured"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            continue;
        }
        ensure!(said.contains(&format!("./captured/{name}")), "{name} is not named:\n{said}");
        let text = fs::read_to_string(entry.path())?;
        let records: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        count += records.len();
        all.insert(name, records);
    }
    ensure!(said.contains(&format!("\n{count} records captured,")), "{count} records are there:\n{said}");
    Ok(all)
}

fn first_command(clone: &FreshClone) -> Result<String> {
    let text = clone.readme()?.block("sh")?;
    let line = text.lines().next().context("an empty block")?;
    assert_eq!(line, "cargo run --release -- quickstart", "the README's first command");
    Ok(line.to_owned())
}

fn quickstart(clone: &FreshClone, socket: &Path) -> Result<String> {
    let socket = socket.display().to_string();
    let more = ["--seconds", SECONDS, "--admin", "", "--socket", &socket];
    clone.run(&first_command(clone)?, &more, BUILD_DEADLINE)
}

#[test]
fn without_docker() -> Result<()> {
    let clone = FreshClone::take()?;
    let said = quickstart(&clone, &clone.dir.join("no-docker.sock"))?;
    ensure!(said.contains("Docker: not on "), "{said}");
    let captured = captured(&clone, &said)?;
    assert_eq!(captured.len(), 3, "three logs of its own: {said}");
    for (name, records) in captured {
        let messages: Vec<_> = records.iter().map(|record| record["message"].clone()).collect();
        let expected: Vec<_> = (1..=messages.len()).map(|number| format!("demo line {number}")).collect();
        assert!(messages == expected && !messages.is_empty(), "{name}: {messages:?}");
    }
    Ok(())
}

/// On one Engine: other tests check that others are found as well.
#[test]
fn with_docker() -> Result<()> {
    let engine = Engine::start(EngineVersion::V28_5)?;
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; exec sleep 600";
    for name in ["first", "second"] {
        engine.run(&RunSpec::sh(script).name(name))?;
    }
    let clone = FreshClone::take()?;
    let said = quickstart(&clone, engine.socket())?;
    ensure!(said.contains("Docker: answers on "), "{said}");
    let captured = captured(&clone, &said)?;
    let names: Vec<_> = captured.keys().map(String::as_str).collect();
    assert_eq!(names, ["first.ndjson", "second.ndjson"], "{said}");
    let expected: Vec<_> = (1..=2000).map(|number| format!("line {number}")).collect();
    for (name, records) in &captured {
        let messages: Vec<_> = records.iter().map(|record| record["message"].clone()).collect();
        assert!(messages == expected, "{name}: {} records, 2000 lines were printed", messages.len());
    }
    engine.close()
}

/// The second command is what runs this test, so only its beginning is run here.
#[test]
fn the_second_command_exists() -> Result<()> {
    let clone = FreshClone::take()?;
    let block = clone.readme()?.block("sh")?;
    assert_eq!(block.lines().nth(1), Some("cargo xtask test"));
    let parts = clone.run("cargo xtask test", &["--list"], BUILD_DEADLINE)?;
    ensure!(parts.contains("quickstart"), "{parts}");
    Ok(())
}

#[test]
fn every_command_marked_as_runnable_runs() -> Result<()> {
    let clone = FreshClone::take()?;
    let text = clone.readme()?.block("sh run")?;
    // As after the first run.
    fs::create_dir_all(clone.dir.join("captured/.capturer"))?;
    for line in text.lines() {
        clone.run(line, &[], PATIENCE)?;
    }
    Ok(())
}

#[test]
fn commands_in_tables_exist() -> Result<()> {
    let clone = FreshClone::take()?;
    let cells = clone.readme()?.first_cells();
    let named: Vec<&String> = cells.iter().filter(|cell| cell.starts_with("capturer ")).collect();
    let help = clone.run("capturer --help", &[], PATIENCE)?;
    let listed =
        help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    let listed =
        listed.lines().filter_map(|line| line.trim().split(' ').next()).filter(|name| *name != "help");
    assert_eq!(
        listed.map(|name| format!("capturer {name}")).collect::<Vec<_>>(),
        named.iter().map(|n| n.as_str()).collect::<Vec<_>>()
    );
    for command in named {
        clone.run(command, &["--help"], PATIENCE)?;
    }
    let code = |cell: &String| cell.parse::<u32>().ok().filter(|code| *code != 130);
    for code in cells.iter().filter_map(code) {
        ensure!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))),
            "{code}: {help}"
        );
    }
    Ok(())
}

#[test]
fn pages_in_tables_answer() -> Result<()> {
    let clone = FreshClone::take()?;
    let home = Home::new()?;
    let nothing = format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*.log\"]}}]}}\n",
        home.path().display()
    );
    let agent = home.start(&home.config(&nothing))?;
    let cells = clone.readme()?.first_cells();
    let paths: Vec<&String> = cells.iter().filter(|cell| cell.starts_with('/')).collect();
    ensure!(paths.len() >= 7, "{paths:?}");
    for path in paths {
        if path == "/debug/profile" {
            ensure!(agent.ask(path)?.0 == 403, "it is off unless somebody wants it");
            continue;
        }
        if path == "/api/v1/tap" {
            // It never ends, so its head must do.
            let mut stream = agent.connect()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut first = String::new();
            BufReader::new(stream).read_line(&mut first)?;
            ensure!(first.starts_with("HTTP/1.1 200 "), "{path} answered {first:?}");
            continue;
        }
        agent.get(path)?;
    }
    agent.stop()
}

#[test]
fn the_config_shown_is_good() -> Result<()> {
    let clone = FreshClone::take()?;
    let home = tempfile::tempdir()?;
    let path = home.path().join("c.yaml");
    for page in ["README.md", "docs/migrate.md"] {
        let page = Readme { text: fs::read_to_string(clone.dir.join(page))? };
        fs::write(&path, page.block("yaml")?)?;
        clone.run("capturer check -c", &[&path.to_string_lossy()], PATIENCE)?;
    }
    Ok(())
}

/// The commands for an installation make the shipped config write where the README says, and where the unit permits it.
#[test]
fn installed_as_shown_it_writes_where_the_readme_says() -> Result<()> {
    let clone = FreshClone::take()?;
    let readme = clone.readme()?.text;
    let edit = readme.lines().find_map(|line| line.strip_prefix("sudo sed ")).context("no sed")?;
    let home = tempfile::tempdir()?;
    let config = home.path().join("config.yaml");
    fs::copy(clone.dir.join("configs/config.yaml"), &config)?;
    let config = config.to_string_lossy();
    clone.run(&format!("sed {}", edit.replace("/etc/capturer/config.yaml", &config)), &[], PATIENCE)?;
    let said = clone.run("capturer check -c", &[&config], PATIENCE)?;
    ensure!(said.contains("  output      /srv/logs/{container_name}.ndjson"), "{said}");
    ensure!(
        readme.contains("Records are then in `/srv/logs`") && readme.contains("ReadWritePaths=-/srv/logs")
    );
    Ok(())
}

#[test]
fn the_record_shown_has_the_keys_of_a_record() -> Result<()> {
    let clone = FreshClone::take()?;
    let text = clone.readme()?.block("json")?;
    let shown: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    // A test of the encoder checks this table.
    let page = fs::read_to_string(clone.dir.join("docs/outputs.md"))?;
    for key in shown.keys() {
        ensure!(page.contains(&format!("\n| `{key}` |")), "{key}");
    }
    Ok(())
}

#[test]
fn the_systemd_unit_shown_is_the_one_shipped() -> Result<()> {
    let clone = FreshClone::take()?;
    assert_eq!(
        clone.readme()?.block("ini")?,
        fs::read_to_string(clone.dir.join("packaging/capturer.service"))?
    );
    Ok(())
}

#[test]
fn the_systemd_unit_is_good() -> Result<()> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skipped!("no systemd-analyze on this machine");
        return Ok(());
    }
    let clone = FreshClone::take()?;
    let home = tempfile::tempdir()?;
    let path = home.path().join("capturer.service");
    // systemd checks that the program exists.
    let unit = clone.readme()?.block("ini")?.replace("/usr/local/bin/capturer", &program().to_string_lossy());
    fs::write(&path, unit)?;
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("capturer.service")).collect();
    ensure!(ours.is_empty(), "{said}");
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let clone = FreshClone::take()?;
    let mut pages = ["README.md", "CONTRIBUTING.md", "capturer/ARCHITECTURE.md"].map(PathBuf::from).to_vec();
    for folder in ["docs", "docs/runbooks"] {
        for entry in fs::read_dir(clone.dir.join(folder))? {
            pages.push(entry?.path());
        }
    }
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let page = clone.dir.join(page);
        let text = fs::read_to_string(&page)?;
        let beside = page.parent().context("no folder")?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let there = link.is_empty() || link.starts_with("http") || beside.join(link).exists();
            ensure!(there, "{}: {link} is not there", page.display());
        }
    }
    Ok(())
}
