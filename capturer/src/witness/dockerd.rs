//! dockerd's own descriptors, with `resource_monitoring.watch_dockerd`: each stream over its API costs it some, and the
//! agent must not make it leak any.
//!
//! Its process is found by asking its socket who listens (SO_PEERCRED). If systemd listens for it, the file in which it
//! notes its process id names it. If it has ended, the next look searches again.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use procfs::process::Process;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Doing;
use crate::ledger::Resource;
use crate::ledger::leaks::ResourceUse;
use crate::ledger::table::{DockerdRow, kind};
use crate::witness::probe::procfs_tier;
use crate::witness::probe::{Probe, Watch};

/// Where a dockerd that systemd starts notes its process id.
const PID_FILE: &str = "/var/run/docker.pid";
const NAME: &str = "dockerd";
/// Descriptors that a stream over the API costs dockerd: its connection, the log file, an inotify instance; doubled,
/// because one stream may be closing while the next is opened.
const PER_STREAM: u64 = 6;
/// Descriptors that a running container costs dockerd, whoever reads its log.
const PER_CONTAINER: u64 = 16;
/// Descriptors of dockerd's other clients, which come and go.
const SLACK: u64 = 64;

/// The watch on dockerd; see the head of this file.
pub(super) struct Dockerd {
    socket: PathBuf,
    found: Option<Found>,
}

struct Found {
    process: i32,
    /// Start time of the process: together with the process id it identifies the process.
    started: u64,
    watch: Option<Watch>,
    /// What it held when it was found, beyond what was explained.
    base: u64,
}

impl Dockerd {
    pub(super) fn new(socket: &Path) -> Dockerd {
        Dockerd { socket: socket.to_owned(), found: None }
    }

    /// How many descriptors it holds now.
    pub(super) fn look(&mut self, probe: &mut Probe, doing: &Doing) -> DockerdRow {
        self.try_look(probe, doing).unwrap_or_else(|error| {
            self.leave(probe);
            DockerdRow { problem: format!("{error:#}"), ..DockerdRow::default() }
        })
    }

    fn try_look(&mut self, probe: &mut Probe, doing: &Doing) -> Result<DockerdRow> {
        if self.found.as_ref().is_some_and(|found| started(found.process).ok() != Some(found.started)) {
            self.leave(probe);
        }
        let costs = PER_STREAM * doing.connections + PER_CONTAINER * doing.containers;
        if self.found.is_none() {
            let process = find(&self.socket)?;
            let open: u64 = by_kind(process)?.values().sum();
            // Tier procfs can't watch other processes; then only what is open now is known.
            let watch = probe.watch(process).ok();
            let base = open.saturating_sub(costs);
            self.found = Some(Found { process, started: started(process)?, watch, base });
        }
        let Some(found) = &self.found else { bail!("not found") };
        let counts = match found.watch {
            Some(watch) => Some(probe.read_watch(watch).context("reading what dockerd holds")?.counts),
            None => None,
        };
        Ok(DockerdRow {
            pid: found.process,
            open: by_kind(found.process)?,
            opened: counts.map(|counts| counts.opened),
            closed: counts.map(|counts| counts.closed),
            explained: found.base + costs + SLACK,
            problem: String::new(),
        })
    }

    fn leave(&mut self, probe: &mut Probe) {
        if let Some(watch) = self.found.take().and_then(|found| found.watch)
            && let Err(error) = probe.unwatch(watch)
        {
            tracing::warn!("no longer watching a dockerd that has ended: {error:#}");
        }
    }
}

impl DockerdRow {
    /// The amount for the leak detector; `None` if nothing is known.
    pub(super) fn amount(&self) -> Option<ResourceUse> {
        let value: u64 = self.open.values().sum();
        let of = format!("dockerd (process {})", self.pid);
        self.problem.is_empty().then_some(ResourceUse {
            resource: Resource::DockerdDescriptors,
            of,
            value,
            explained: self.explained,
        })
    }
}

/// dockerd's process id.
fn find(socket: &Path) -> Result<i32> {
    let what = || format!("asking {} who listens there", socket.display());
    // Non-blocking: if the queue is full, the next look tries again.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).with_context(what)?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket).with_context(what)?).with_context(what)?;
    let peer = rustix::net::sockopt::socket_peercred(connection.as_fd()).with_context(what)?;
    let listener = peer.pid.as_raw_nonzero().get();
    if name(listener).is_ok_and(|name| name == NAME) {
        return Ok(listener);
    }
    let noted = std::fs::read_to_string(PID_FILE).with_context(|| {
        format!("process {listener} listens for dockerd, and {PID_FILE} does not say which it is")
    })?;
    let process = noted.trim().parse().with_context(|| format!("reading {PID_FILE}"))?;
    match name(process) {
        Ok(name) if name == NAME => Ok(process),
        _ => bail!("process {process} of {PID_FILE} is not {NAME}"),
    }
}

fn name(process: i32) -> Result<String> {
    Ok(Process::new(process)?.stat()?.comm)
}

fn started(process: i32) -> Result<u64> {
    Ok(Process::new(process)?.stat()?.starttime)
}

fn by_kind(process: i32) -> Result<BTreeMap<String, u64>> {
    let look = procfs_tier::look_at(&Process::new(process).context("looking at dockerd")?)
        .context("looking at dockerd's descriptors; that is for root, or CAP_SYS_PTRACE")?;
    let mut kinds = BTreeMap::new();
    for (_, target) in look.fds {
        *kinds.entry(kind(&target).to_owned()).or_default() += 1;
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::probe::{Options, Tier};

    /// Without a daemon the look says so and does not fail; a daemon that starts later is found.
    #[test]
    fn who_listens_is_asked_again_until_it_is_dockerd() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let mut probe = Probe::start(&Options { tiers: vec![Tier::Procfs], ..Options::default() });
        let mut dockerd = Dockerd::new(&socket);
        let row = dockerd.look(&mut probe, &Doing::default());
        assert!(row.problem.contains("docker.sock") && row.amount().is_none(), "{}", row.problem);
        // This test's process listens, and is not dockerd.
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let row = dockerd.look(&mut probe, &Doing::default());
        assert!(!row.problem.is_empty() && row.pid == 0, "{row:?}");
    }

    #[test]
    fn more_streams_explain_more_and_the_rest_is_an_alarm() {
        let row = |open: u64, explained| DockerdRow {
            open: [("socket".to_owned(), open)].into(),
            explained,
            ..DockerdRow::default()
        };
        let amount = row(100, 99).amount().unwrap();
        assert!(amount.value > amount.explained);
        let amount = row(100, 100).amount().unwrap();
        assert!(amount.value <= amount.explained);
    }
}
