//! The traces that a private Docker Engine leaves on a machine, and how to remove them. Also the folders that tests
//! work in, whose names tell whose they are.
//!
//! Used by `engine.rs` when a test ends, and, for tests that were killed before they could clean up, before the next
//! Engine starts and by `cargo xtask test` (xtask includes this file and `wait.rs` by path, so that all clean in the
//! same way). So nothing in here knows how an Engine is started; it works from the [`Traces`] that were written into
//! the Engine's own folder before the start: whatever happens to the tree that a test was run from, the next test finds
//! them.
//!
//! An Engine's traces, in the order they must go:
//! ```text
//! containers, in cgroups beneath one parent       killed; a paused one must be thawed to die
//! dockerd, containerd, shims, docker commands     killed; known by program file and by the folder they name
//! shims' sockets in /run/containerd/s             the one thing containerd puts outside our folder
//! mounts: overlay, netns, data-root onto itself   detached, newest first
//! cgroups, in each hierarchy                      removed, inner ones first
//! the temporary folder, the record last           removed
//! ```
//! A process is only ever killed if it is one this Engine started, a folder only removed if it is this user's own; other
//! Engines on the machine are not touched.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getpid, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::wait::{PATIENCE, wait_until};

/// How the temporary folder of every Engine begins; the owner's process id follows.
pub const ROOT_PREFIX: &str = "capturer-engine-";
/// How the folders begin that tests work in; the owner's process id and start time follow.
pub const FOLDER_PREFIXES: [&str; 2] = ["capturer-test-", "capturer-fake-"];
/// Where the Engines are unpacked, the file that says what tests found of others and took away.
pub const SWEPT_NOTE: &str = "swept";
/// The traces, within that folder.
const RECORD: &str = "traces.json";

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

    /// Writes the record into the Engine's folder, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let path = self.root.join(RECORD);
        let text = json!({
            "owner_pid": self.owner_pid,
            "owner_start_ticks": self.owner_start_ticks,
            "programs": self.programs.to_string_lossy(),
            "cgroup": self.cgroup,
        });
        let draft = path.with_extension("new");
        fs::write(&draft, format!("{text:#}\n")).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("renaming {}", draft.display()))
    }

    /// Reads the record of an Engine's folder; `None` = there is none.
    pub fn load(root: &Path) -> Result<Option<Self>> {
        let path = root.join(RECORD);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
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
            root: root.to_owned(),
            cgroup: string("cgroup")?,
        };
        // All that runs in it is killed: refuse a record that names anything but one of ours.
        ensure!(
            traces.cgroup.starts_with(ROOT_PREFIX),
            "{}: not our cgroup: {}",
            path.display(),
            traces.cgroup
        );
        Ok(Some(traces))
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
        detach_mounts(&self.root)?;
        until_gone("cgroups", || {
            let left = self.cgroups();
            left.iter().for_each(|dir| remove_cgroup(dir));
            left.iter().map(|d| d.display().to_string()).collect()
        })?;
        remove_root(&self.root)
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

/// What [`sweep_dead`] found, one sentence for each Engine or folder.
#[derive(Debug, Default)]
pub struct Swept {
    /// Those of dead test processes that were taken away.
    pub removed: Vec<String>,
    /// Those whose test process still runs: left alone.
    pub alive: Vec<String>,
    /// What could not be taken away, and why.
    pub failed: Vec<String>,
}

/// Takes away the Engines and folders in the folder for temporary files, `temp`, whose test process is dead.
pub fn sweep_dead(temp: &Path) -> Swept {
    let mut swept = Swept::default();
    for entry in fs::read_dir(temp).into_iter().flatten().flatten() {
        let root = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_engine = name.starts_with(ROOT_PREFIX);
        let owner = folder_owner(&name);
        // Where everybody may write, anybody may have put it.
        let is_ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        let result = match owner {
            _ if !is_ours => continue,
            _ if is_engine => sweep_root(&root),
            Some(owner) => sweep_folder(&root, owner),
            None => continue,
        };
        match result {
            Ok(Some((true, what))) => swept.removed.push(what),
            Ok(Some((false, what))) => swept.alive.push(what),
            Ok(None) => {}
            Err(error) => swept.failed.push(format!("{}: {error:#}", root.display())),
        }
    }
    swept
}

/// Whether it was taken away, and a sentence; `None` = another process does it, or did.
fn sweep_root(root: &Path) -> Result<Option<(bool, String)>> {
    let Ok(folder) = fs::File::open(root) else { return Ok(None) };
    let Some(traces) = Traces::load(root)? else {
        // Its test had not come to start anything, or somebody was in the middle of taking it away.
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let owner = name[ROOT_PREFIX.len()..].split('-').next().and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| start_ticks(pid).is_some()) {
            return Ok(Some((false, format!("{}, still empty", root.display()))));
        }
        detach_mounts(root)?;
        remove_root(root)?;
        return Ok(Some((true, format!("{}, which held no traces", root.display()))));
    };
    let what = format!("{} of process {}", root.display(), traces.owner_pid);
    if traces.owner_is_alive() {
        return Ok(Some((false, what)));
    }
    if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    traces.sweep()?;
    Ok(Some((true, what)))
}

/// How the name of a folder begins that belongs to this process; `kind` is one of [`FOLDER_PREFIXES`].
pub fn folder_prefix(kind: &str) -> String {
    let pid = getpid().as_raw_nonzero().get();
    format!("{kind}{pid}-{}-", start_ticks(pid).unwrap_or_default())
}

/// The process that a folder belongs to, and when that started; `None` = it is none of ours, or does not say.
fn folder_owner(name: &str) -> Option<(i32, u64)> {
    let rest = FOLDER_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let mut parts = rest.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// As [`sweep_root`]. Agents that were started from a config in it go with it.
fn sweep_folder(root: &Path, (pid, started): (i32, u64)) -> Result<Option<(bool, String)>> {
    let what = format!("{} of process {pid}", root.display());
    if start_ticks(pid) == Some(started) {
        return Ok(Some((false, what)));
    }
    let Ok(folder) = fs::File::open(root) else { return Ok(None) };
    if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    until_gone("agents", || {
        let agents = || all_processes().into_iter().filter(|&pid| is_agent_of(root, pid));
        agents().for_each(|pid| kill(pid, |pid| is_agent_of(root, pid)));
        agents().map(describe).collect()
    })?;
    detach_mounts(root)?;
    remove_root(root)?;
    Ok(Some((true, what)))
}

/// A program of ours whose command line names the folder. One of the two would not do: an editor may show its log.
fn is_agent_of(root: &Path, pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    name.starts_with("capturer") && contains(&words, format!("{}/", root.display()).as_bytes())
}

fn detach_mounts(root: &Path) -> Result<()> {
    until_gone("mounts", || {
        let left = mounts_beneath(root);
        for mount in left.iter().rev() {
            // An error shows in the next look at the table.
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
        left.iter().map(|mount| mount.display().to_string()).collect()
    })
}

/// The record last: what could not be removed can be tried again.
fn remove_root(root: &Path) -> Result<()> {
    let removing = |path: &Path, result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    };
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removing(&path, fs::remove_dir_all(&path))?;
        } else if path.file_name().is_some_and(|name| name != RECORD) {
            removing(&path, fs::remove_file(&path))?;
        }
    }
    removing(root, fs::remove_dir_all(root))
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
    wait_until(&format!("{what} to go"), PATIENCE, || {
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

    fn root_in(dir: &tempfile::TempDir, rest: &str) -> PathBuf {
        let root = dir.path().join(format!("{ROOT_PREFIX}{rest}"));
        fs::create_dir_all(root.join("data")).unwrap();
        root
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let root = root_in(&dir, "1-x");
        assert_eq!(Traces::load(&root).unwrap(), None);
        let written = traces(&root);
        written.save().unwrap();
        assert_eq!(Traces::load(&root).unwrap(), Some(written));
    }

    /// A damaged record must not make us end somebody's processes.
    #[test]
    fn a_record_of_another_cgroup_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = root_in(&dir, "1-x");
        Traces { cgroup: "precious".to_owned(), ..traces(&root) }.save().unwrap();
        assert!(Traces::load(&root).unwrap_err().to_string().contains("not our cgroup"));
        assert_eq!(sweep_dead(dir.path()).failed.len(), 1);
        assert!(root.exists());
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
        let root = root_in(&dir, "1-x");
        let mut ours = traces(&root);
        ours.save().unwrap();
        assert_eq!(sweep_dead(dir.path()).alive.len(), 1);
        assert!(root.exists());

        ours.owner_start_ticks += 1;
        ours.save().unwrap();
        assert_eq!(sweep_dead(dir.path()).removed.len(), 1);
        assert!(!root.exists());
    }

    /// A test that was killed before it wrote its record, and one that is about to write it.
    #[test]
    fn without_a_record_the_name_tells_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let living = root_in(&dir, &format!("{}-x", std::process::id()));
        // No process has this number: they are at most 22 bits long.
        let dead = root_in(&dir, "2000000000-x");
        let other = dir.path().join("somebody's");
        fs::create_dir(&other).unwrap();
        let swept = sweep_dead(dir.path());
        assert_eq!((swept.removed.len(), swept.alive.len()), (1, 1), "{swept:?}");
        assert!(living.exists() && other.exists() && !dead.exists());
    }

    /// Each killed test left a folder in /tmp until somebody looked.
    #[test]
    fn a_folder_of_a_dead_test_goes_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.join("in")).unwrap();
            fs::write(path.join("in/a.log"), "line\n").unwrap();
            path
        };
        for kind in FOLDER_PREFIXES {
            let ours = make(&(folder_prefix(kind) + "x"));
            let pid = std::process::id();
            // Its process id came back; and one that nobody has, for they are at most 22 bits long.
            let dead = [make(&format!("{kind}{pid}-1-x")), make(&format!("{kind}2000000000-5-x"))];
            let unknown =
                [make(&format!("{kind}lZp2A4")), make(&format!("{kind}{pid}-x")), make("other-1-1-x")];
            let swept = sweep_dead(dir.path());
            assert_eq!((swept.removed.len(), swept.alive.len(), swept.failed.len()), (2, 1, 0), "{swept:?}");
            assert!(ours.exists() && dead.iter().all(|path| !path.exists()));
            assert!(unknown.iter().all(|path| path.exists()));
            fs::remove_dir_all(ours).unwrap();
        }
    }
}
