//! Turns facts into lines: what works, what does not, and how to fix it. Pure. Every cure is tested with the facts that
//! need it.
//!
//! The lines are in the order in which `run` would fail, so the first failure says how `run` would end.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::thread::CapabilitySet;

use super::facts::{
    ConfigFact, ContainerFact, DirectoryFact, DirectoryState, DockerFact, EngineFact, Facts, LimitsFact,
    Refusal, RunningFact, Unread, Wanted, WitnessFact,
};
use crate::commands::cli::Exit;
use crate::settings::{ReadFrom, advice};
use crate::shell::files::listing::Access;
use crate::shell::{descriptors, privilege};
use crate::text::counted::{counted, named, which};
use crate::witness::probe::Tier;

/// With less free space than this, positions and output soon have none.
const FREE_BYTES_MIN: u64 = 100 << 20;
/// Memory for the ring with its queues, and on the oldest kernels for the witness's maps.
const LOCKED_BYTES_MIN: u64 = 64 << 20;
/// Descriptors for each container that is read from files: its live log and a rotated one.
const FILES_PER_CONTAINER: u64 = 2;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// All is well.
    Ok,
    /// The agent runs, but with less than it could have.
    Warn,
    /// The agent does not run; the exit code of `run`.
    Fail(Exit),
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLine {
    /// Its name, on which scripts may depend: judge_tests.rs has the list.
    pub check: &'static str,
    pub status: CheckStatus,
    /// What was found.
    pub message: String,
    /// How to fix it; always there unless all is well.
    pub cure: Option<String>,
}

/// Judges the facts: a line for each check.
pub fn judge(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = vec![config(&facts.config), kernel(&facts.release), ring(facts.ring.as_ref())];
    if let Some(wanted) = &facts.wanted {
        lines.extend(wanted.directories.iter().map(directory));
        lines.extend(wanted.loki.as_deref().map(loki));
        lines.extend(admin(wanted));
        lines.extend(wanted.followed.as_ref().map(|followed| file_monitor(followed, facts.container)));
        if let Some(found) = &wanted.docker {
            lines.push(docker(found, facts.container));
            if let Ok(engine) = &found.answer {
                lines.push(logs(found.read_from, engine, facts.container));
                lines.extend(engine.running.as_ref().map(containers));
            }
        }
    }
    lines.push(capabilities(facts.capabilities, facts.container));
    lines.push(btf(facts.has_btf));
    lines.push(lockdown(facts.lockdown.as_deref()));
    lines.push(witness(&facts.witness, facts));
    lines.push(files(&facts.limits, facts.wanted.as_ref(), facts.container));
    lines.push(locked_memory(facts));
    lines.push(inotify(&facts.limits));
    lines
}

/// The exit code of `run`: that of the first failure.
pub fn exit(lines: &[CheckLine]) -> Exit {
    let failed = lines.iter().find_map(|line| match line.status {
        CheckStatus::Fail(exit) => Some(exit),
        _ => None,
    });
    failed.unwrap_or(Exit::Ok)
}

fn ok(check: &'static str, message: impl Into<String>) -> CheckLine {
    CheckLine { check, status: CheckStatus::Ok, message: message.into(), cure: None }
}

fn warn(check: &'static str, message: impl Into<String>, cure: impl Into<String>) -> CheckLine {
    CheckLine { check, status: CheckStatus::Warn, message: message.into(), cure: Some(cure.into()) }
}

fn fail(check: &'static str, exit: Exit, message: impl Into<String>, cure: impl Into<String>) -> CheckLine {
    CheckLine { check, status: CheckStatus::Fail(exit), message: message.into(), cure: Some(cure.into()) }
}

fn config(fact: &ConfigFact) -> CheckLine {
    let see = "Fix what it names; configs/config.yaml shows every key with its meaning.";
    match fact {
        ConfigFact::Good(origin) => ok("config", format!("good: {origin}")),
        ConfigFact::Bad(problems) => fail("config", Exit::Config, problems.trim_end(), see),
        ConfigFact::Denied(problems) => fail(
            "config",
            Exit::NoPermission,
            problems.trim_end(),
            "Give the agent's user the right to read it: chgrp and chmod 640, or run as its owner.",
        ),
    }
}

fn kernel(release: &str) -> CheckLine {
    let what = format!("Linux {release}");
    if older_than(release, [5, 10]) {
        return warn("kernel", what, "5.10 is the oldest kernel it is tested on: install a newer one.");
    }
    ok("kernel", what)
}

fn older_than(release: &str, series: [u32; 2]) -> bool {
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|word| word.parse().ok()).take(2).collect();
    numbers.as_slice() < &series[..]
}

fn ring(refusal: Option<&(String, String)>) -> CheckLine {
    match refusal {
        None => ok("io_uring", "a ring was created and used, with every operation that is needed"),
        Some((cause, cure)) => fail("io_uring", Exit::Unavailable, cause, cure),
    }
}

fn directory(fact: &DirectoryFact) -> CheckLine {
    let check = if fact.key == "data_dir" { "data_dir" } else { "local_file" };
    let (key, path) = (fact.key, fact.path.display());
    let denied = |place: String, first: String| {
        fail(
            check,
            Exit::NoPermission,
            format!("{path}: no permission to write in {place}"),
            format!(
                "{first} to the agent's user (chown; in a unit: StateDirectory, ReadWritePaths), or name another \
                 directory with {key}."
            ),
        )
    };
    match &fact.state {
        DirectoryState::Silent => fail(
            check,
            Exit::Unavailable,
            format!("{path} does not answer: a network file system that hangs"),
            format!("Bring the file server back, or choose a local directory with {key}."),
        ),
        DirectoryState::Other => fail(
            check,
            Exit::Unavailable,
            format!("{path} is not a directory, or is below something that is not"),
            format!("Move it away, or name another directory with {key}."),
        ),
        DirectoryState::Holds { file } => fail(
            check,
            Exit::NoPermission,
            format!("{}: this user can't write it", file.display()),
            format!(
                "Give {path} and all in it to the agent's user (chown -R); move away what is not a file."
            ),
        ),
        DirectoryState::Unfit(unfit) => {
            let (why, cure) = unfit.told(key);
            fail(check, Exit::Unavailable, format!("{path}: {why}"), cure)
        }
        DirectoryState::Missing { place, writable: false, .. } => {
            denied(place.display().to_string(), format!("Make {path} and give it"))
        }
        DirectoryState::There { writable: false, .. } => denied("it".to_owned(), format!("Give {path}")),
        DirectoryState::Missing { may_hang: Some(kind), .. }
        | DirectoryState::There { may_hang: Some(kind), .. } => warn(
            check,
            format!("{path} is on {kind}, which may hang; writes then hang too"),
            format!("Name a directory on a local file system with {key}."),
        ),
        DirectoryState::Missing { free_bytes, .. } | DirectoryState::There { free_bytes, .. } => {
            let free = size(*free_bytes);
            let place = match &fact.state {
                DirectoryState::Missing { place, .. } => Some(place.display()),
                _ => None,
            };
            if *free_bytes < FREE_BYTES_MIN {
                return warn(
                    check,
                    match place {
                        Some(place) => format!("{path} will be created in {place}: {free} free"),
                        None => format!("{path}: {free} free"),
                    },
                    format!(
                        "Make room, or name another directory with {key}; when it is full, reading waits."
                    ),
                );
            }
            match place {
                Some(place) => ok(check, format!("{path} will be created in {place}: {free} free")),
                None => ok(check, format!("{path}: writable, {free} free")),
            }
        }
    }
}

/// Whether it takes lines is for the command that may wait for it.
fn loki(url: &str) -> CheckLine {
    ok("loki", format!("{url}: not asked here; capturer check --online asks whether it takes lines"))
}

fn admin(wanted: &Wanted) -> Option<CheckLine> {
    let (address, free) = wanted.admin.as_ref()?;
    if let (Some(why), None) = (&wanted.socket, wanted.running) {
        return Some(fail(
            "admin",
            Exit::Unavailable,
            format!("admin.socket: {why}"),
            "Name another path with admin.socket, in a directory that is there and belongs to the agent's user.",
        ));
    }
    if let (Some(exposure), true) = (&wanted.exposure, wanted.running.is_some() || free.is_ok()) {
        let (said, cure) = exposure.split_once(": set ").unwrap_or((exposure, ""));
        return Some(warn("admin", said.to_owned(), format!("Set {cure}.")));
    }
    Some(match (wanted.running, free) {
        (Some(process), Ok(())) => {
            ok("admin", format!("capturer runs with this data_dir, as process {process}"))
        }
        (Some(process), Err(Refusal { why, .. })) => fail(
            "admin",
            Exit::Unavailable,
            format!(
                "capturer runs with this data_dir, as process {process}, and does not listen on {address}: {why}"
            ),
            "End what listens there, or choose another address with admin.listen (\"\" = none); then restart the agent.",
        ),
        (None, Ok(())) => ok("admin", format!("{address} is free")),
        (None, Err(Refusal { why, denied: true, .. })) => fail(
            "admin",
            Exit::NoPermission,
            format!("listening on {address}: {why}"),
            "Choose a port over 1023 with admin.listen, or give the agent CAP_NET_BIND_SERVICE.",
        ),
        (None, Err(Refusal { why, .. })) => fail(
            "admin",
            Exit::Unavailable,
            format!("listening on {address}: {why}"),
            "End what listens there, or choose another address with admin.listen (\"\" = none).",
        ),
    })
}

fn docker(fact: &DockerFact, container: Option<ContainerFact>) -> CheckLine {
    let socket = fact.socket.display();
    match &fact.answer {
        Ok(engine) => ok(
            "docker",
            format!(
                "Engine {} answers on {socket}: {}",
                engine.version,
                counted(engine.containers, "container")
            ),
        ),
        Err(Refusal { why, denied: true, .. }) if container.is_some() => warn(
            "docker",
            format!("{socket}: {why}"),
            "Start the container with the group of the host's socket: --group-add $(stat -c %g /var/run/docker.sock), or as \
             root.",
        ),
        Err(Refusal { why, denied: true, .. }) => warn(
            "docker",
            format!("{socket}: {why}"),
            "Add the agent's user to the socket's group (usermod -aG docker USER; in a unit: \
             SupplementaryGroups=docker), or run as root.",
        ),
        Err(Refusal { why, silent: true, .. }) => warn(
            "docker",
            format!("{socket}: {why}"),
            format!(
                "dockerd is there and does not answer: {}. json-file logs of known containers are still read.",
                advice::SILENT_DOCKERD
            ),
        ),
        Err(Refusal { why, .. }) if container.is_some() => warn(
            "docker",
            format!("{socket}: {why}"),
            "Start the container with the host's socket: -v /var/run/docker.sock:/var/run/docker.sock; without Docker set \
             container_monitor.enabled: false.",
        ),
        Err(Refusal { why, .. }) => warn(
            "docker",
            format!("{socket}: {why}"),
            "Start dockerd, or name its socket with container_monitor.socket_path; without Docker on this host set \
             container_monitor.enabled: false.",
        ),
    }
}

fn logs(read_from: ReadFrom, engine: &EngineFact, container: Option<ContainerFact>) -> CheckLine {
    let (driver, logs) = (&engine.driver, engine.logs.display());
    if read_from == ReadFrom::Api {
        return ok(
            "logs",
            format!("driver {driver}; read over the API, as container_monitor.read_from says"),
        );
    }
    if driver == "none" {
        return warn(
            "logs",
            "the Engine's driver is none: containers that set no other driver keep no log",
            "Set \"log-driver\": \"json-file\" in /etc/docker/daemon.json and recreate the containers.",
        );
    }
    match &engine.logs_readable {
        Ok(()) => ok("logs", format!("driver {driver}; json-file logs are readable in {logs}")),
        Err(Refusal { why, denied: true, .. }) => warn(
            "logs",
            format!("driver {driver}; {logs}: {why}; {}", instead(read_from)),
            if container.is_some() {
                "Start the container with --cap-add DAC_READ_SEARCH, or as root."
            } else {
                "Give the agent CAP_DAC_READ_SEARCH (in a unit: AmbientCapabilities), or run as root."
            },
        ),
        Err(Refusal { why, .. }) => warn(
            "logs",
            format!("driver {driver}; {logs}: {why}; {}", instead(read_from)),
            "Run the agent where the Engine keeps its files (in a container: mount that directory read-only at the same \
             path), or set container_monitor.read_from: api.",
        ),
    }
}

/// Files and directories that the patterns of file_monitor match and that this user may not read, by name.
fn file_monitor(access: &Access, container: Option<ContainerFact>) -> CheckLine {
    let Access { files, denied, unlistable, unmatched, looked_at, silent } = access;
    let followed = format!("{} matched by the patterns", counted(*files as u64, "file"));
    let mut notes = String::new();
    if looked_at < files {
        notes += &format!("; only the first {looked_at} were tried");
    }
    let mut faults = Vec::new();
    if !denied.is_empty() {
        faults.push(format!("{} can't be read: {}", denied.len(), named(denied.iter().cloned())));
    }
    if !unlistable.is_empty() {
        let are = which(
            unlistable.len() as u64,
            "directory can't be listed, and what is in it",
            "directories can't be listed, and what is in them",
        );
        faults.push(format!("{} {are} is not read: {}", unlistable.len(), named(unlistable.iter().cloned())));
    }
    if *silent {
        faults.push("a file system that they lead to does not answer".to_owned());
    }
    // A pattern can't match what is in a directory that can't be listed. That is the fault then.
    let directories = unlistable.iter().map(|told| told.split(": ").next().unwrap_or(told));
    let is_hidden = |pattern: &&String| directories.clone().any(|directory| looks_into(pattern, directory));
    let unmatched: Vec<&String> = unmatched.iter().filter(|pattern| !is_hidden(pattern)).collect();
    let matches = which(unmatched.len() as u64, "pattern matches", "patterns match");
    let unmatched = (!unmatched.is_empty()).then(|| {
        format!(
            "{} {matches} no file: {}",
            unmatched.len(),
            named(unmatched.iter().map(|pattern| (*pattern).clone()))
        )
    });
    if faults.is_empty() {
        return match unmatched {
            None => ok("file_monitor", format!("{followed}, none unreadable{notes}")),
            Some(unmatched) => warn(
                "file_monitor",
                format!("{followed}; {unmatched}{notes}"),
                "Correct it, or set may_be_empty: true where that is expected; capturer check says what each pattern passes over.",
            ),
        };
    }
    faults.extend(unmatched);
    let cure = match (denied.is_empty() && unlistable.is_empty(), container.is_some()) {
        (true, _) => "Bring the file server back; the log of the agent and /health name it.",
        (false, true) => {
            "Start the container with --cap-add DAC_READ_SEARCH, or as root; or leave them out with exclude."
        }
        (false, false) => {
            "Give the agent's user the right to read them (a group that they belong to, an ACL, or AmbientCapabilities=\
             CAP_DAC_READ_SEARCH in the unit), or leave them out with exclude."
        }
    };
    warn("file_monitor", format!("{followed}; {}{notes}", faults.join("; ")), cure)
}

/// Whether a pattern may match something in this directory or beneath it, by the names before its first wildcard.
fn looks_into(pattern: &str, directory: &str) -> bool {
    let wild = pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len());
    let fixed = Path::new(pattern[..wild].rfind('/').map_or("", |slash| &pattern[..slash]));
    fixed.starts_with(directory) || Path::new(directory).starts_with(fixed)
}

/// Running containers that can't be fully read, by name.
fn containers(fact: &RunningFact) -> CheckLine {
    if fact.count == 0 && fact.others > 0 {
        let those = which(fact.others as u64, "the one container that runs", "the containers that run");
        return warn(
            "containers",
            format!("container_monitor selects none of {those} ({})", fact.others),
            "Compare its include and exclude lists with docker ps; in their patterns * stands for any text.",
        );
    }
    // Docker keeps nothing of those without a log.
    let captured = fact.count.saturating_sub(fact.no_log.len());
    let running = format!("{} to be captured", counted(captured as u64, "running container"));
    let mut notes = String::new();
    if !fact.no_log.is_empty() {
        let (are, names) =
            (counted(fact.no_log.len() as u64, "container"), named(fact.no_log.iter().cloned()));
        notes += &format!("; Docker keeps no log of {are} with the driver none: {names}");
    }
    if fact.looked_at < fact.count {
        notes += &format!("; there was only time to check {}", fact.looked_at);
    }
    let (mut faults, mut cures) = (Vec::new(), BTreeSet::new());
    if !fact.unread.is_empty() {
        let each = named(fact.unread.iter().map(|unread| format!("{}: {}", unread.name, unread.why.text())));
        faults.push(format!("{} can't be read: {each}", fact.unread.len()));
        cures.extend(fact.unread.iter().map(|unread| unread.why.cure()));
    }
    if !fact.local.is_empty() {
        let (are, names) = (counted(fact.local.len() as u64, "container"), named(fact.local.iter().cloned()));
        faults.push(advice::skipped_by_docker(&are, &names));
        cures.insert(advice::SKIPPED_BY_DOCKER);
    }
    if !fact.may_drop.is_empty() {
        let (are, names) =
            (counted(fact.may_drop.len() as u64, "container"), named(fact.may_drop.iter().cloned()));
        faults.push(advice::dropped_by_docker(&are, &names));
        cures.insert(advice::DROPPED_BY_DOCKER);
    }
    if faults.is_empty() {
        return ok("containers", format!("{running}, none unreadable{notes}"));
    }
    let cures: Vec<&str> = cures.into_iter().collect();
    warn("containers", format!("{running}, {}{notes}", faults.join("; ")), cures.join(" "))
}

impl Unread {
    fn text(&self) -> String {
        match self {
            Unread::Driver(driver) => format!("its driver {driver} keeps nothing that can be read"),
            Unread::NotAFile(driver) => format!("its driver {driver} writes no json-file"),
            Unread::Missing(path) => format!("its log {} is not there", path.display()),
            Unread::Refused(path, why) => format!("its log {}: {why}", path.display()),
        }
    }

    fn cure(&self) -> &'static str {
        match self {
            Unread::Driver(_) => {
                "Recreate it with --log-driver json-file, local or journald, or leave it out with \
                 container_monitor.exclude_names."
            }
            Unread::NotAFile(_) => "Set container_monitor.read_from: auto, which reads it over the API.",
            Unread::Missing(_) => {
                "Restart the container: Docker writes to a file that was removed. Free space by log-opts (max-size), not by \
                 removing files."
            }
            Unread::Refused(..) => {
                "Give the agent CAP_DAC_READ_SEARCH, or set container_monitor.read_from: auto."
            }
        }
    }
}

fn instead(read_from: ReadFrom) -> &'static str {
    if read_from == ReadFrom::File { "nothing is captured from it" } else { "read over the API instead" }
}

fn capabilities(set: CapabilitySet, container: Option<ContainerFact>) -> CheckLine {
    let has = |one| set.contains(one);
    let reads = has(CapabilitySet::DAC_READ_SEARCH) || has(CapabilitySet::DAC_OVERRIDE);
    let witness = has(CapabilitySet::SYS_ADMIN) || has(CapabilitySet::BPF | CapabilitySet::PERFMON);
    let shown = privilege::shown(set);
    let mut lacking = Vec::new();
    if !reads {
        lacking.push(("CAP_DAC_READ_SEARCH", "to read other users' logs"));
    }
    if !witness {
        for (one, name) in [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::PERFMON, "CAP_PERFMON")] {
            if !has(one) {
                lacking.push((name, "for the witness in the kernel"));
            }
        }
    }
    if lacking.is_empty() {
        return ok("capabilities", shown);
    }
    let words: Vec<String> = lacking.iter().map(|(name, why)| format!("{name} {why}")).collect();
    let names: Vec<&str> = lacking.iter().map(|(name, _)| *name).collect();
    let message = format!("{shown}; lacking {}", words.join(", "));
    if container.is_some() {
        let added = names.iter().map(|name| format!("--cap-add {}", name.trim_start_matches("CAP_")));
        let added: Vec<String> = added.collect();
        return warn(
            "capabilities",
            message,
            format!("Start the container with {} (cap_add in Compose), and as root.", added.join(" ")),
        );
    }
    warn(
        "capabilities",
        message,
        format!(
            "In a unit: AmbientCapabilities={0}; by hand: setpriv --ambient-caps with --inh-caps, or run as root.",
            names.join(" ")
        ),
    )
}

fn btf(has_btf: bool) -> CheckLine {
    if has_btf {
        return ok("btf", "the kernel describes its types");
    }
    warn(
        "btf",
        "no /sys/kernel/btf/vmlinux: the witness needs it for its programs in the kernel",
        "Use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian, Ubuntu and Fedora are; in a container, \
         mount /sys.",
    )
}

fn lockdown(mode: Option<&str>) -> CheckLine {
    match mode {
        None => ok("lockdown", "the kernel does not say (securityfs is not mounted)"),
        Some("confidentiality") => warn(
            "lockdown",
            "confidentiality: eBPF programs may not read kernel memory",
            "Boot with lockdown=integrity, if your rules allow it; otherwise the witness reads /proc.",
        ),
        Some(mode) => ok("lockdown", mode),
    }
}

fn witness(fact: &WitnessFact, facts: &Facts) -> CheckLine {
    let mut message = if fact.tier == Tier::Procfs {
        "procfs: reads /proc/self from time to time".to_owned()
    } else {
        format!("{}: its self-test saw {} ways to open and close descriptors", fact.tier, fact.seen)
    };
    if let Some(programs) = fact.programs {
        message += &format!(", by the programs {programs}");
    }
    if fact.not_here > 0 {
        message += &format!(", {} are not available here", fact.not_here);
    }
    for (tier, why) in &fact.refused {
        message += &format!(". Not {tier}: {why}");
    }
    if fact.tier.sees_releases() {
        return ok("witness", message);
    }
    let rights = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let may_load =
        facts.capabilities.contains(rights) || facts.capabilities.contains(CapabilitySet::SYS_ADMIN);
    let own_pids = facts.container.is_some_and(|container| container.own_pids);
    let cure = if !may_load && own_pids {
        "Start the container with --pid host (pid: host in Compose), too, and with the capabilities named above."
    } else if !may_load {
        "Give the agent the capabilities named above."
    } else if own_pids {
        "Start the container with --pid host (pid: host in Compose): programs in the kernel know this process by its \
             number on the host."
    } else if !facts.has_btf {
        "Use a kernel with BTF, as said above."
    } else {
        "Only another kernel helps (CONFIG_KPROBES, no lockdown); docs/probe.md says what each tier sees."
    };
    warn("witness", message, cure)
}

fn files(limits: &LimitsFact, wanted: Option<&Wanted>, container: Option<ContainerFact>) -> CheckLine {
    let Some(limit) = limits.files else { return ok("files", "no limit on open files") };
    let engine = wanted.and_then(|wanted| wanted.docker.as_ref()?.answer.as_ref().ok());
    let containers = engine.map_or(0, |engine| engine.containers);
    let needed = wanted.map_or(0, |wanted| wanted.files) + FILES_PER_CONTAINER * containers;
    let message = format!("{limit} open files allowed, {needed} may be needed");
    if needed > limit {
        let enough = raised(needed, 65_536);
        let how = if container.is_some() {
            format!("start the container with --ulimit nofile={enough}")
        } else {
            format!("LimitNOFILE={enough} in the unit, or ulimit -Hn")
        };
        if limit < descriptors::NEEDED {
            let message =
                format!("{limit} open files allowed; the agent itself needs {}", descriptors::NEEDED);
            return fail("files", Exit::Unavailable, message, format!("Raise the limit: {how}."));
        }
        let cure = format!(
            "Raise the limit: {how}; or lower container_monitor.stream_rotation.max_concurrent_streams."
        );
        return warn("files", message, cure);
    }
    ok("files", message)
}

/// What the kernel did with the ring says more than its release. Before 5.12 the witness's maps are charged, too.
fn locked_memory(facts: &Facts) -> CheckLine {
    let free = CapabilitySet::IPC_LOCK | CapabilitySet::SYS_RESOURCE;
    let shown = facts.limits.locked_bytes.map_or_else(|| "no limit".to_owned(), size);
    let cure = if facts.container.is_some() {
        "Raise the limit: start the container with --ulimit memlock=-1."
    } else {
        "Raise the limit: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited."
    };
    if facts.lacks_locked_memory {
        let message = format!(
            "{shown} of locked memory; this kernel charges the ring to it and refused it (io_uring above)"
        );
        return warn("locked_memory", message, cure);
    }
    if facts.ring.is_some() {
        return ok(
            "locked_memory",
            format!("{shown} of locked memory; not tried, because no ring can be made"),
        );
    }
    let enough = facts.limits.locked_bytes.is_none_or(|bytes| bytes >= LOCKED_BYTES_MIN);
    if enough || facts.capabilities.contains(free) || !older_than(&facts.release, [5, 12]) {
        return ok("locked_memory", format!("{shown} of locked memory is enough"));
    }
    warn(
        "locked_memory",
        format!("{shown} of locked memory; this kernel charges the ring and the witness's maps to it"),
        cure,
    )
}

fn inotify(limits: &LimitsFact) -> CheckLine {
    let (Some((instances_max, instances)), Some((watches_max, watches))) =
        (limits.inotify_instances, limits.inotify_watches)
    else {
        return warn(
            "inotify",
            "the kernel does not show the inotify limits",
            "Use a kernel with CONFIG_INOTIFY_USER, and mount /proc; without inotify, files are polled every 2 s.",
        );
    };
    let message = format!(
        "{instances} of {instances_max} instances and {watches} of {watches_max} watches in use by this user"
    );
    let mut scarce = Vec::new();
    if instances >= instances_max {
        scarce.push(format!("fs.inotify.max_user_instances={}", raised(instances_max, 1024)));
    }
    if watches >= watches_max - watches_max / 10 {
        scarce.push(format!("fs.inotify.max_user_watches={}", raised(watches_max, 1_048_576)));
    }
    if scarce.is_empty() {
        return ok("inotify", message);
    }
    let cure =
        format!("Raise the limit: sysctl -w {}; otherwise files are polled every 2 s.", scarce.join(" "));
    warn("inotify", message, cure)
}

/// What to raise an insufficient limit to: at least this much, and always more than now.
fn raised(now: u64, at_least: u64) -> u64 {
    if now < at_least { at_least } else { now.saturating_mul(2) }
}

/// In the largest unit with a digit before the point.
fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
