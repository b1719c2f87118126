//! What a private Docker Engine leaves on a machine, and how to take it away again.
//!
//! Used twice: by `engine.rs` when a test ends, and by `cargo xtask test` for tests that were killed before
//! they could clean up (it includes this file and `wait.rs` by path, so that both clean in the same way). So nothing in here
//! knows how an Engine is started; it works from the [`Traces`] that were written down before the start.
//!
//! An Engine's traces, in the order they must go:
//! ```text
//! containers, in cgroups beneath one parent       killed; a paused one must be thawed to die
//! dockerd, containerd, shims, docker commands     killed; known by program file and by the folder they name
//! shims' sockets in /run/containerd/s             the one thing containerd puts outside our folder
//! mounts: overlay, netns, data-root onto itself   detached, newest first
//! cgroups, in each hierarchy                      removed, inner ones first
//! the temporary folder, the record itself         removed
//! ```
//! A process is only ever killed if it is one this Engine started; other Engines on the machine are not touched.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::wait::wait_until;

/// How the temporary folder of every Engine begins; the owner's process id follows. `xtask`'s last part looks for it.
pub const ROOT_PREFIX: &str = "capturer-engine-";
/// A killed process is gone within milliseconds; a cgroup of it within some more. This is for a very busy machine.
const GONE_DEADLINE: Duration = Duration::from_secs(15);

/// All that must be known to find everything of one Engine. Written down before the Engine's first process starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The test process that the Engine belongs to.
    pub owner_pid: i32,
    /// When that process started, in clock ticks since boot: process ids come back.
    pub owner_start_ticks: u64,
    /// The folder of the Engine's programs, free of symbolic links, as /proc/*/exe shows it.
    pub programs: PathBuf,
    /// The Engine's temporary folder.
    pub root: PathBuf,
    /// The cgroup its containers are made in, without a leading slash.
    pub cgroup: String,
}

impl Traces {
    /// The traces of an Engine that this process is about to start.
    pub fn of_this_process(programs: PathBuf, root: PathBuf, cgroup: String) -> Result<Self> {
        let owner_pid = getpid().as_raw_nonzero().get();
        let owner_start_ticks = start_ticks(owner_pid).context("this process's own start time")?;
        Ok(Self { owner_pid, owner_start_ticks, programs, root, cgroup })
    }

    /// Writes the record beneath `run_dir`, whole or not at all; answers its path.
    pub fn save(&self, run_dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(run_dir).with_context(|| format!("making {}", run_dir.display()))?;
        let name = self.root.file_name().context("an Engine's folder without a name")?.to_string_lossy();
        let path = run_dir.join(format!("{name}.json"));
        let text = json!({
            "owner_pid": self.owner_pid,
            "owner_start_ticks": self.owner_start_ticks,
            "programs": self.programs.to_string_lossy(),
            "root": self.root.to_string_lossy(),
            "cgroup": self.cgroup,
        });
        let draft = path.with_extension("new");
        fs::write(&draft, format!("{text:#}\n")).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("renaming {}", draft.display()))?;
        Ok(path)
    }

    /// Reads a record back.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let value: Value =
            serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
        let string = |key: &str| -> Result<String> {
            Ok(value[key].as_str().with_context(|| format!("{}: no {key}", path.display()))?.to_owned())
        };
        let number = |key: &str| value[key].as_u64().with_context(|| format!("{}: no {key}", path.display()));
        let traces = Self {
            owner_pid: i32::try_from(number("owner_pid")?)?,
            owner_start_ticks: number("owner_start_ticks")?,
            programs: string("programs")?.into(),
            root: string("root")?.into(),
            cgroup: string("cgroup")?,
        };
        // The folder is removed with all that is in it: refuse a record that names anything but one of ours.
        let name = traces.root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        ensure!(
            name.starts_with(ROOT_PREFIX),
            "{}: {} is no Engine's folder",
            path.display(),
            traces.root.display()
        );
        ensure!(
            traces.cgroup.starts_with(ROOT_PREFIX),
            "{}: not our cgroup: {}",
            path.display(),
            traces.cgroup
        );
        Ok(traces)
    }

    /// Whether the test process that the Engine belongs to still runs.
    pub fn owner_is_alive(&self) -> bool {
        start_ticks(self.owner_pid) == Some(self.owner_start_ticks)
    }

    /// Every process of this Engine and of its containers.
    pub fn processes(&self) -> Vec<i32> {
        all_processes().into_iter().filter(|&pid| self.is_ours(pid)).collect()
    }

    /// Every mount beneath the Engine's folder, oldest first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_beneath(&self.root)
    }

    /// Kills what runs in containers, so that dockerd's own stop need not wait 10 s for each that ignores SIGTERM.
    pub fn kill_containers(&self) {
        self.thaw_containers();
        for pid in all_processes().into_iter().filter(|&pid| self.is_contained(pid)) {
            kill(pid, |pid| self.is_contained(pid));
        }
    }

    /// Takes everything away and makes sure that it is gone. May be called again, and on half of an Engine.
    pub fn sweep(&self) -> Result<()> {
        self.thaw_containers();
        until_gone("processes", || {
            let left = self.processes();
            for &pid in &left {
                kill(pid, |pid| self.is_ours(pid));
            }
            left.iter().map(|&pid| describe(pid)).collect()
        })?;
        self.remove_shim_sockets();
        until_gone("mounts", || {
            let left = self.mounts();
            for mount in left.iter().rev() {
                // An error shows in the next look at the table.
                let _ = unmount(mount, UnmountFlags::DETACH);
            }
            left.iter().map(|m| m.display().to_string()).collect()
        })?;
        until_gone("cgroups", || {
            let left = self.cgroups();
            left.iter().for_each(|dir| remove_cgroup(dir));
            left.iter().map(|d| d.display().to_string()).collect()
        })?;
        match fs::remove_dir_all(&self.root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("removing {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }

    fn is_ours(&self, pid: i32) -> bool {
        self.is_daemon(pid) || self.is_contained(pid)
    }

    /// dockerd, containerd, a shim, runc, a docker command: a program of this Engine that names this Engine's folder.
    /// One of the two would not do: other Engines run the same programs, and an editor may show our log.
    fn is_daemon(&self, pid: i32) -> bool {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
        program.starts_with(&self.programs)
            && ["cmdline", "environ"].iter().any(|file| {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                contains(&text, self.root.as_os_str().as_bytes())
            })
    }

    fn is_contained(&self, pid: i32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
            // A process in a cgroup namespace of its own still shows its whole path to us. `/..` prefixes come
            // when we ourselves are in one.
            path.split('/').any(|part| part == self.cgroup)
        })
    }

    /// The Engine's cgroup in each hierarchy: /sys/fs/cgroup/X in v2, /sys/fs/cgroup/memory/X in v1.
    fn cgroups(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = std::iter::once(base.to_path_buf())
            .chain(hierarchies)
            .map(|hierarchy| hierarchy.join(&self.cgroup))
            .filter_map(|dir| dir.canonicalize().ok())
            .collect();
        // cpu and cpuacct are often two names of one hierarchy.
        found.sort();
        found.dedup();
        found
    }

    fn thaw_containers(&self) {
        fn thaw(dir: &Path) {
            // Only one of the two files exists, and only in a hierarchy that can freeze.
            for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if dir.join(file).exists() {
                    let _ = fs::write(dir.join(file), word);
                }
            }
            inner_dirs(dir).iter().for_each(|inner| thaw(inner));
        }
        self.cgroups().iter().for_each(|dir| thaw(dir));
    }

    /// A shim that was killed leaves its socket in /run/containerd/s, whatever the Engine's own folders are.
    fn remove_shim_sockets(&self) {
        let bundles = self.root.join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
        for bundle in inner_dirs(&bundles) {
            // containerd 1 writes the bare address, containerd 2 a JSON object with it in.
            for file in ["address", "bootstrap.json"] {
                let text = fs::read_to_string(bundle.join(file)).unwrap_or_default();
                let address = text.split("unix://").nth(1).and_then(|rest| rest.split(['"', '\n']).next());
                if let Some(path) = address.filter(|path| path.starts_with("/run/containerd/s/")) {
                    let _ = fs::remove_file(path);
                }
            }
        }
    }
}

/// What [`sweep_dead`] found, one sentence for each Engine.
#[derive(Debug, Default)]
pub struct Swept {
    /// Engines of dead test processes that were taken away.
    pub removed: Vec<String>,
    /// Engines whose test process still runs: left alone.
    pub alive: Vec<String>,
    /// What could not be taken away, and why.
    pub failed: Vec<String>,
}

/// Takes away the Engines recorded in `run_dir` whose test process is dead.
pub fn sweep_dead(run_dir: &Path) -> Swept {
    let mut swept = Swept::default();
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        match sweep_record(&path) {
            Ok((true, what)) => swept.removed.push(what),
            Ok((false, what)) => swept.alive.push(what),
            Err(error) => swept.failed.push(format!("{}: {error:#}", path.display())),
        }
    }
    swept
}

fn sweep_record(path: &Path) -> Result<(bool, String)> {
    let traces = Traces::load(path)?;
    let what = format!("{} of process {}", traces.root.display(), traces.owner_pid);
    if traces.owner_is_alive() {
        return Ok((false, what));
    }
    traces.sweep()?;
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    Ok((true, what))
}

/// Every mount beneath `root`, as this process sees them, oldest first.
pub fn mounts_beneath(root: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Field 5 is the mount point. Its spaces are written \040, but our own folders have none.
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(root)).collect()
}

/// When the process started, in clock ticks since boot; nothing if it is gone or a zombie.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    (fields.first()? != "Z").then(|| fields.get(19)?.parse().ok())?
}

/// The fields of /proc/PID/stat from the third (state) on. The second is the program's name in parentheses, which may
/// itself hold spaces and parentheses.
pub fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Every process of the machine, threads not counted.
pub fn all_processes() -> Vec<i32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Kills the process if it is still `wanted` once it is held by a descriptor: between looking and killing, its id may
/// have gone to another.
fn kill(pid: i32, wanted: impl Fn(i32) -> bool) {
    let Some(pid_typed) = Pid::from_raw(pid) else { return };
    let Ok(held) = pidfd_open(pid_typed, PidfdFlags::empty()) else { return };
    if wanted(pid) {
        let _ = pidfd_send_signal(&held, Signal::KILL);
    }
}

fn describe(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = text.split(|&b| b == 0).take(4).map(String::from_utf8_lossy).collect();
    format!("{pid} ({})", words.join(" "))
}

/// Acts until nothing is left.
fn until_gone(what: &str, mut act: impl FnMut() -> Vec<String>) -> Result<()> {
    wait_until(&format!("{what} to go"), GONE_DEADLINE, || {
        let left = act();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
}

fn remove_cgroup(dir: &Path) {
    inner_dirs(dir).iter().for_each(|inner| remove_cgroup(inner));
    // EBUSY while the last process is being buried: the caller tries again.
    let _ = fs::remove_dir(dir);
}

fn inner_dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(root: &Path) -> Traces {
        Traces::of_this_process("/nowhere/programs".into(), root.into(), format!("{ROOT_PREFIX}selftest"))
            .unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = traces(&dir.path().join(format!("{ROOT_PREFIX}1-x")));
        let path = written.save(dir.path()).unwrap();
        assert_eq!(Traces::load(&path).unwrap(), written);
    }

    /// A damaged record must not make us remove somebody's folder.
    #[test]
    fn a_record_of_another_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = traces(&dir.path().join("precious")).save(dir.path()).unwrap();
        assert!(Traces::load(&path).unwrap_err().to_string().contains("no Engine's folder"));
    }

    /// Without the start time, a new process with the dead owner's id would keep its Engine for ever.
    #[test]
    fn a_process_id_that_came_back_is_not_the_owner() {
        let mut ours = traces(Path::new("/nowhere"));
        assert!(ours.owner_is_alive());
        ours.owner_start_ticks += 1;
        assert!(!ours.owner_is_alive());
    }

    #[test]
    fn an_engine_of_a_living_test_is_left_alone_and_one_of_a_dead_test_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(format!("{ROOT_PREFIX}1-x"));
        fs::create_dir_all(root.join("data")).unwrap();
        let mut ours = traces(&root);
        ours.save(dir.path()).unwrap();
        assert_eq!(sweep_dead(dir.path()).alive.len(), 1);
        assert!(root.exists());

        ours.owner_start_ticks += 1;
        let record = ours.save(dir.path()).unwrap();
        assert_eq!(sweep_dead(dir.path()).removed.len(), 1);
        assert!(!root.exists() && !record.exists());
    }
}
