//! A place for an agent: its config, its positions and its output, which survive restarts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::records::{Record, parse_records, read_records};
use super::{Agent, program};
use crate::sweep::{FOLDER_PREFIXES, folder_prefix};
use crate::wait::{PATIENCE, wait_until};

/// A place for an agent: its config, positions and output survive its restarts.
pub struct Home {
    /// Removed when this is dropped.
    dir: Option<tempfile::TempDir>,
}

impl Drop for Home {
    /// A test that leaves its folder behind fails itself, instead of the last part of the run. The obstacle is usually
    /// a mount or a process that is dropped after its home.
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let path = dir.path().to_owned();
        if let Err(error) = dir.close()
            && !std::thread::panicking()
        {
            panic!("{} can't be removed: {error}", path.display());
        }
    }
}

impl Home {
    /// A new, empty one.
    pub fn new() -> Result<Home> {
        let dir = tempfile::Builder::new().prefix(&folder_prefix(FOLDER_PREFIXES[0])).tempdir()?;
        Ok(Home { dir: Some(dir) })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it is not dropped").path()
    }

    /// Where records go.
    pub fn output_dir(&self) -> PathBuf {
        self.path().join("out")
    }

    /// A config with this home's directories, a free admin port, and more sections of YAML. Outputs are not rotated, so
    /// that each is one file.
    pub fn config(&self, more: &str) -> String {
        self.config_with_output("max_size: 0", more)
    }

    /// The same with settings of the output, as they stand between braces.
    pub fn config_with_output(&self, output: &str, more: &str) -> String {
        let home = self.path().display();
        format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
             sinks:\n  local_file: {{directory: {home}/out, file: \"{{container_name}}.ndjson\", {output}}}\n{more}"
        )
    }

    /// Starts an agent and waits until it is ready.
    pub fn start(&self, config: &str) -> Result<Agent> {
        let agent = self.launch(config)?;
        wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz"))?;
        Ok(agent)
    }

    /// Like [`Home::start`], but the agent runs as nobody, who can't read Docker's files. The Engine's socket is opened
    /// to everybody for that.
    pub fn start_as_nobody(&self, config: &str, socket: &Path) -> Result<Agent> {
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(socket, 0o666)?;
        for parent in socket.ancestors().skip(1).filter(|parent| parent.starts_with("/tmp/")) {
            open(parent, 0o755)?;
        }
        self.start_without_rights(config)
    }

    /// Like [`Home::start`], but the agent runs as nobody, who can read what everybody can.
    pub fn start_without_rights(&self, config: &str) -> Result<Agent> {
        for directory in [self.path().to_owned(), self.path().join("data"), self.output_dir()] {
            fs::create_dir_all(&directory)?;
            chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        let agent = self.launch_as(config, &program(), &[], Some(NOBODY))?;
        wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz"))?;
        Ok(agent)
    }

    /// Writes the config that the next reload, or the next start of a command, reads.
    pub fn write_config(&self, config: &str) -> Result<()> {
        // Atomically, for it may be read at this moment.
        let (new, file) = (self.path().join("config.new"), self.path().join("config.yaml"));
        fs::write(&new, config)?;
        Ok(fs::rename(new, file)?)
    }

    /// Starts an agent and waits only until its admin server answers.
    pub fn launch(&self, config: &str) -> Result<Agent> {
        self.launch_program(config, &program(), &[])
    }

    /// The same with another program, and variables in its environment.
    pub fn launch_program(
        &self,
        config: &str,
        program: &Path,
        environment: &[(&str, &Path)],
    ) -> Result<Agent> {
        self.launch_as(config, program, environment, None)
    }

    /// The same as user nobody, who may only read what everybody may.
    pub fn launch_as_nobody(&self, config: &str) -> Result<Agent> {
        for directory in [self.path().to_owned(), self.path().join("data"), self.output_dir()] {
            fs::create_dir_all(&directory)?;
            chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        self.launch_as(config, &program(), &[], Some(NOBODY))
    }

    fn launch_as(
        &self,
        config: &str,
        program: &Path,
        environment: &[(&str, &Path)],
        user: Option<u32>,
    ) -> Result<Agent> {
        let file = self.path().join("config.yaml");
        fs::write(&file, config)?;
        let log = self.path().join("agent.log");
        let from = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = Command::new(program);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let child = command
            .args(["run", "-c"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut agent = Agent { child, log, address: String::new(), ended: false };
        let (address, text) =
            wait_until("the agent to say where its admin server listens", PATIENCE, || {
                // Checked first: by then the log has what it said before it ended.
                let has_ended = agent.child.try_wait()?.is_some();
                let text = agent.log_text()?;
                let text = text.get(from as usize..).unwrap_or_default();
                let line = text.lines().find(|line| line.contains("admin server listens"));
                let address = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
                ensure!(has_ended || address.is_some(), "its log:\n{text}");
                Ok((address.map(str::to_owned), text.to_owned()))
            })?;
        agent.address = address.with_context(|| format!("the agent ended at once; its log:\n{text}"))?;
        Ok(agent)
    }

    /// All records written, by output file, in the order they stand there. Every line must be a whole record.
    pub fn records(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        self.by_output(read_records)
    }

    /// The same without a last line that has no end: the agent was killed, or is in the middle of a write.
    pub fn whole_records(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        self.by_output(|path| {
            let text = fs::read(path)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            parse_records(path, &text[..whole])
        })
    }

    fn by_output(
        &self,
        read: impl Fn(&Path) -> Result<Vec<Record>>,
    ) -> Result<BTreeMap<String, Vec<Record>>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(self.output_dir()).into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.insert(name, read(&path)?);
        }
        Ok(all)
    }

    /// Records of one container; none if it has no output yet.
    pub fn records_of(&self, container: &str) -> Result<Vec<Record>> {
        let path = self.output_of(container);
        if path.exists() { read_records(&path) } else { Ok(Vec::new()) }
    }

    /// Records of one container, those in older files of its output included, oldest first. Compressed ones are not read.
    pub fn records_with_older(&self, container: &str) -> Result<Vec<Record>> {
        let mut older = Vec::new();
        for entry in fs::read_dir(self.output_dir())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Named by time, so by name is by age.
            if name.starts_with(&format!("{container}~")) && name.ends_with(".ndjson") {
                older.push(path);
            }
        }
        older.sort();
        let mut records = Vec::new();
        for path in older {
            records.extend(read_records(&path)?);
        }
        records.extend(self.records_of(container)?);
        Ok(records)
    }

    /// The output of one container.
    pub fn output_of(&self, container: &str) -> PathBuf {
        self.output_dir().join(format!("{container}.ndjson"))
    }

    /// These lines came, each once and nothing else, in whatever order and outputs.
    pub fn assert_all_came_once(&self, lines: &[String]) -> Result<()> {
        let mut expected = lines.to_vec();
        expected.sort();
        // Not a failure yet if they never come: the comparison says which are missing. What comes twice comes late.
        let _ = wait_until("every line", PATIENCE, || {
            let got = self.count();
            ensure!(got >= expected.len(), "{got} of {} lines", expected.len());
            Ok(())
        });
        let mut got: Vec<String> =
            self.records()?.into_values().flatten().map(|record| record.message).collect();
        got.sort();
        let missing: Vec<_> = expected.iter().filter(|line| got.binary_search(line).is_err()).collect();
        let twice: Vec<_> = got.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(missing.is_empty() && twice.is_empty(), "missing {missing:?}, twice {twice:?}");
        assert_eq!(got, expected);
        Ok(())
    }

    /// How many records one container has; cheap, for waiting.
    pub fn count_of(&self, container: &str) -> usize {
        lines_in(&self.output_of(container))
    }

    /// How many records there are in all outputs; cheap, for waiting.
    pub fn count(&self) -> usize {
        let entries = fs::read_dir(self.output_dir()).into_iter().flatten().flatten();
        entries.map(|entry| lines_in(&entry.path())).sum()
    }

    /// Messages of one container, by channel, each with its newline: as `docker logs` prints them.
    pub fn printed(&self, container: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for record in self.records_of(container)? {
            let channel = if record.stream == "stdout" { &mut stdout } else { &mut stderr };
            channel.extend_from_slice(record.message.as_bytes());
            channel.push(b'\n');
        }
        Ok((stdout, stderr))
    }

    /// Bytes of all outputs; cheap, for waiting.
    pub fn output_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.output_dir()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

/// Lines of a file that have their end; none if it is not there.
fn lines_in(path: &Path) -> usize {
    let text = fs::read(path).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// A user without rights, as Debian numbers it.
const NOBODY: u32 = 65_534;
