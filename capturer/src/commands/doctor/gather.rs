//! Looks at the machine and changes nothing: makes no directory, takes no lock, raises no limit.
//!
//! Paths may be on a network file system that hangs, so they are looked at by a thread that is left behind if it does
//! not answer. Not here: what the facts mean (judge.rs).

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde::Deserialize;

use super::facts::{
    ConfigFact, ContainerFact, DirectoryFact, DirectoryState, DockerFact, EngineFact, Facts, LimitsFact,
    Refusal, RunningFact, Unread, UnreadFact, Wanted, WitnessFact,
};
use crate::commands::ask;
use crate::commands::cli;
use crate::commands::cli::ConfigArgs;
use crate::commands::http::connect_unix;
use crate::commands::online::unusable_socket;
use crate::commands::running;
use crate::commands::running::{Port, Process};
use crate::commands::tried_dir::{Unfit, unfit};
use crate::limits;
use crate::model::docker;
use crate::model::docker::{EngineFault, EventFacts, Inspect, ListRowWithFacts};
use crate::settings::{ContainerMonitor, ReadFrom, Settings, shown_url};
use crate::shell::checkpoint::store::unwritable;
use crate::shell::files::listing;
use crate::shell::{privilege, ring};
use crate::witness::probe::self_test::WayOutcome;
use crate::witness::probe::{Options, Probe};

/// Longest wait for anything that may hang.
const PATIENCE: Duration = Duration::from_secs(3);
/// Descriptors beyond those counted for containers and files: ring, witness, sockets of the admin server.
const FILES_RESERVE: u64 = 128;

/// Gathers all facts.
pub fn gather(arguments: &ConfigArgs) -> Facts {
    let witness = witness();
    let (config, settings) = match cli::load(arguments) {
        Ok((settings, origin)) => (ConfigFact::Good(origin), Some(settings)),
        Err(error) if error.permission_denied => (ConfigFact::Denied(error.to_string()), None),
        Err(error) => (ConfigFact::Bad(error.to_string()), None),
    };
    let refused = ring::check().err();
    let lacks_locked_memory = refused.as_ref().is_some_and(ring::RingUnavailable::lacks_locked_memory);
    let ring = refused.map(|refused| (refused.cause().to_owned(), refused.cure().to_owned()));
    let sets = rustix::thread::capabilities(None);
    Facts {
        config,
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        ring,
        lacks_locked_memory,
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        lockdown: read("/sys/kernel/security/lockdown").and_then(|text| lockdown(&text)),
        capabilities: sets.map_or(CapabilitySet::empty(), |sets| sets.effective),
        witness,
        container: container(),
        limits: limits(),
        wanted: settings.map(|settings| wanted(&settings)),
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// `none [integrity] confidentiality`: the word in brackets is the current one.
fn lockdown(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The kernel's first PID namespace (PROC_PID_INIT_INO of include/linux/proc_ns.h).
const FIRST_PIDS: &str = "pid:[4026531836]";

/// The file system of containers' roots (OVERLAYFS_SUPER_MAGIC of include/uapi/linux/magic.h).
const OVERLAY: u64 = 0x794c_7630;

fn container() -> Option<ContainerFact> {
    let own_pids = std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link != Path::new(FIRST_PIDS));
    // Docker and Podman each leave a mark. It remains in a machine made from an image, but such a machine's root is a
    // disk.
    let is_marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
    let is_overlay = || rustix::fs::statfs("/").is_ok_and(|stat| stat.f_type as u64 == OVERLAY);
    (own_pids || is_marked && is_overlay()).then_some(ContainerFact { own_pids })
}

fn witness() -> WitnessFact {
    let probe = Probe::start(&Options::default());
    let count = |wanted: fn(&WayOutcome) -> bool| {
        probe.self_test().iter().filter(|result| wanted(&result.verdict)).count()
    };
    WitnessFact {
        tier: probe.tier(),
        programs: probe.programs(),
        refused: probe.refused().to_vec(),
        seen: count(|verdict| matches!(verdict, WayOutcome::Seen)),
        not_here: count(|verdict| matches!(verdict, WayOutcome::NotHere(_))),
    }
}

fn limits() -> LimitsFact {
    let (instances, watches) = inotify_in_use(rustix::process::geteuid().as_raw());
    LimitsFact {
        files: getrlimit(Resource::Nofile).maximum,
        locked_bytes: getrlimit(Resource::Memlock).current,
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances").map(|max| (max, instances)),
        inotify_watches: number("/proc/sys/fs/inotify/max_user_watches").map(|max| (max, watches)),
    }
}

/// Instances and watches of a user's processes, as far as this process may look into them.
fn inotify_in_use(user: u32) -> (u64, u64) {
    let (mut instances, mut watches) = (0, 0);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()) {
        if process.metadata().map(|metadata| metadata.uid()).ok() != Some(user) {
            continue;
        }
        let fds = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for fd in fds {
            if std::fs::read_link(fd.path()).is_ok_and(|target| target == Path::new("anon_inode:inotify")) {
                instances += 1;
                let info = std::fs::read_to_string(process.path().join("fdinfo").join(fd.file_name()));
                let lines = info.unwrap_or_default();
                watches += lines.lines().filter(|line| line.starts_with("inotify wd:")).count() as u64;
            }
        }
    }
    (instances, watches)
}

fn wanted(settings: &Settings) -> Wanted {
    let container = &settings.container_monitor;
    let mut directories = vec![("data_dir", settings.data_dir.clone())];
    directories.extend(
        settings.sinks.local_file.iter().map(|sink| ("sinks.local_file.directory", sink.directory.clone())),
    );
    let streams = container.rotation.max_concurrent_streams + container.max_concurrent;
    let directories = directories.into_iter().map(|(key, path)| {
        let looked_at = path.clone();
        let look = move || tried(directory(&looked_at), &looked_at, key == "data_dir");
        let state = within(PATIENCE, look).unwrap_or(DirectoryState::Silent);
        DirectoryFact { key, path, state }
    });
    let directories: Vec<DirectoryFact> = directories.collect();
    // If the directory hangs, so does the lock in it.
    let silent = directories[0].state == DirectoryState::Silent;
    let running = if silent { None } else { running::agent(&settings.data_dir) };
    Wanted {
        files: (streams + limits::OUTPUT_FILES_OPEN_MAX) as u64 + FILES_RESERVE,
        running,
        directories,
        admin: settings.admin.listen.map(|address| {
            let state = match running::port(address, running) {
                Port::Free | Port::Own => Ok(()),
                Port::Taken(error, None) => Err(refusal(&error)),
                Port::Taken(error, Some(Process { id, name })) => {
                    let refusal = refusal(&error);
                    Err(Refusal { why: format!("{}, by {name} (process {id})", refusal.why), ..refusal })
                }
            };
            (address, state)
        }),
        followed: (!settings.file_monitor.files.is_empty()).then(|| listing::access(settings)),
        socket: settings.admin.socket.as_deref().and_then(socket_trouble),
        loki: settings.sinks.loki.as_ref().map(|sink| shown_url(&sink.url)),
        exposure: settings.admin.exposure().or_else(|| settings.admin.exposed_profile()),
        docker: container.enabled.then(|| docker_fact(container)),
    }
}

/// Why the admin server's socket can't be made; only if no agent of this config runs.
fn socket_trouble(path: &Path) -> Option<String> {
    let in_use = || format!("another process listens on {}", path.display());
    let is_in_use = || match connect_unix(path) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    unusable_socket(path).err().or_else(|| is_in_use().then(in_use))
}

/// The result, if it comes in time; otherwise the thread ends with the process.
fn within<T: Send + 'static>(patience: Duration, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(look())));
    answer.recv_timeout(patience).ok()
}

fn refusal(error: &io::Error) -> Refusal {
    let silent = matches!(EngineFault::of_system(error.kind()), EngineFault::Silent { .. });
    Refusal { why: error.to_string(), denied: error.kind() == ErrorKind::PermissionDenied, silent }
}

fn directory(path: &Path) -> DirectoryState {
    let mut place = path;
    loop {
        match std::fs::metadata(place) {
            Ok(metadata) if !metadata.is_dir() => return DirectoryState::Other,
            Ok(_) if place == path => return there(path),
            Ok(_) => {
                let (writable, (free_bytes, may_hang)) = (privilege::is_writable(path), disk_of(place));
                return DirectoryState::Missing { place: place.to_owned(), writable, free_bytes, may_hang };
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => return DirectoryState::Other,
            // A directory that can't be entered can't be written in either.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let (free_bytes, may_hang) = disk_of(place);
                return DirectoryState::Missing {
                    place: place.to_owned(),
                    writable: false,
                    free_bytes,
                    may_hang,
                };
            }
            Err(_) => {}
        }
        // The last ancestor of a relative path is empty: the working directory.
        place = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
}

/// Tries what the permissions promise. A full disk under an output is no reason not to start, because reading waits.
fn tried(state: DirectoryState, path: &Path, is_data_dir: bool) -> DirectoryState {
    let writable = matches!(
        state,
        DirectoryState::There { writable: true, .. } | DirectoryState::Missing { writable: true, .. }
    );
    match unfit(path).filter(|unfit| writable || unfit.is_of_the_place()) {
        Some(unfit) if is_data_dir || unfit != Unfit::Full => DirectoryState::Unfit(unfit),
        _ if writable && is_data_dir => unwritable(path).map_or(state, |file| DirectoryState::Holds { file }),
        _ => state,
    }
}

fn there(path: &Path) -> DirectoryState {
    let (free_bytes, may_hang) = disk_of(path);
    DirectoryState::There { writable: privilege::is_writable(path), free_bytes, may_hang }
}

/// How much is free there, and the kind of its file system if it may hang.
fn disk_of(path: &Path) -> (u64, Option<&'static str>) {
    let free_bytes = rustix::fs::statvfs(path).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
    let kind = rustix::fs::statfs(path).map_or(0, |stat| stat.f_type as u64 & 0xffff_ffff);
    (free_bytes, may_hang(kind))
}

/// File systems whose answers come from elsewhere, by the magic numbers of include/uapi/linux/magic.h.
fn may_hang(magic: u64) -> Option<&'static str> {
    let kinds = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xfe53_4d42, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0x6573_5546, "FUSE"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x7375_7245, "Coda"),
    ];
    kinds.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

/// `GET /info`, as far as it is needed.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    server_version: String,
    logging_driver: String,
    containers: u64,
    docker_root_dir: PathBuf,
}

fn docker_fact(settings: &ContainerMonitor) -> DockerFact {
    let info = ask::get(&settings.socket_path, "/info").map_err(|error| refusal(&error));
    let answer = info.and_then(|body| {
        let info: Info = serde_json::from_slice(&body).map_err(|error| Refusal {
            why: format!("not an answer from a Docker Engine: {error}"),
            denied: false,
            silent: false,
        })?;
        let logs = info.docker_root_dir.join("containers");
        let looked_in = logs.clone();
        let listed = within(PATIENCE, move || readable(&looked_in));
        let why = "no answer; a file system that hangs".to_owned();
        let silent = || Err(Refusal { why, denied: false, silent: true });
        let are_files_seen = matches!(listed, Some(Ok(())));
        Ok(EngineFact {
            running: running_containers(settings, are_files_seen),
            version: info.server_version,
            driver: info.logging_driver,
            containers: info.containers,
            logs_readable: listed.unwrap_or_else(silent),
            logs,
        })
    });
    DockerFact { socket: settings.socket_path.clone(), read_from: settings.read_from, answer }
}

/// Looks at each running container that the config selects. Without `are_files_seen` it skips their files, because the
/// same fault affects all of them.
fn running_containers(settings: &ContainerMonitor, are_files_seen: bool) -> Option<RunningFact> {
    let ask = |path: &str| ask::get(&settings.socket_path, path);
    let rows = ask("/containers/json").ok()?;
    let rows: Vec<ListRowWithFacts> = serde_json::from_slice(&rows).ok()?;
    let mut fact = RunningFact::default();
    let begun = Instant::now();
    for row in rows {
        let id = row.id.clone();
        let facts = EventFacts::from(row);
        if !settings.select.selects(&facts.name, &facts.image, &facts.labels) {
            fact.others += 1;
            continue;
        }
        fact.count += 1;
        if begun.elapsed() >= PATIENCE {
            continue;
        }
        // The container is gone, or the answer is none that an Engine gives.
        let Ok(body) = ask(&docker::inspect(&id)) else { continue };
        let Ok(inspect) = serde_json::from_slice::<Inspect>(&body) else { continue };
        fact.looked_at += 1;
        let name = facts.name;
        let log_config = inspect.host_config.log_config;
        if log_config.may_drop() && log_config.driver != "none" {
            fact.may_drop.push(name.clone());
        }
        let driver = log_config.driver;
        match driver.as_str() {
            "none" => fact.no_log.push(name),
            "json-file" => {
                let why = unread_file(settings.read_from, are_files_seen, inspect.log_path.into());
                fact.unread.extend(why.map(|why| UnreadFact { name, why }));
            }
            _ if settings.read_from == ReadFrom::File => {
                fact.unread.push(UnreadFact { name, why: Unread::NotAFile(driver) });
            }
            _ => {
                if driver == "local" {
                    fact.local.push(name.clone());
                }
                let logs = ask(&format!("/containers/{id}/logs?stdout=1&stderr=1&tail=0"));
                // 501: the driver can't be read from.
                if logs.is_err_and(|error| error.to_string().ends_with("answered 501")) {
                    fact.unread.push(UnreadFact { name, why: Unread::Driver(driver) });
                }
            }
        }
    }
    Some(fact)
}

fn unread_file(read_from: ReadFrom, are_files_seen: bool, log: PathBuf) -> Option<Unread> {
    if !are_files_seen || log.as_os_str().is_empty() {
        return None;
    }
    let path = log.clone();
    // `logs` reports a directory that hangs.
    let error = within(PATIENCE, move || std::fs::File::open(path).map(drop).err())??;
    match error.kind() {
        ErrorKind::NotFound => Some(Unread::Missing(log)),
        _ if read_from == ReadFrom::File => Some(Unread::Refused(log, error.to_string())),
        // The container is read over the API instead.
        _ => None,
    }
}

/// Whether the directory can be listed, and a log in it, if there is one, can be opened.
fn readable(logs: &Path) -> Result<(), Refusal> {
    let entries = std::fs::read_dir(logs).map_err(|error| refusal(&error))?;
    let names: BTreeSet<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    for name in names {
        let log = logs.join(&name).join(format!("{}-json.log", name.to_string_lossy()));
        match std::fs::File::open(&log) {
            // A container with another driver, or one that never started: the next may have a log.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result.map(drop).map_err(|error| refusal(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_kernel_are_read() {
        assert_eq!(lockdown("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(lockdown(""), None);
        assert_eq!((may_hang(0x6969), may_hang(0xef53)), (Some("NFS"), None));
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let (_sender, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || never.recv()), None);
        assert_eq!(within(PATIENCE, || 7), Some(7));
    }

    #[test]
    fn directories_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        assert!(matches!(directory(home), DirectoryState::There { writable: true, .. }));
        let place_of = |path: &Path| match directory(path) {
            DirectoryState::Missing { place, writable, free_bytes, .. } if free_bytes < u64::MAX => {
                Some((place, writable))
            }
            _ => None,
        };
        assert_eq!(place_of(&home.join("a/b")), Some((home.to_owned(), true)));
        std::fs::write(home.join("file"), "").unwrap();
        assert_eq!(directory(&home.join("file")), DirectoryState::Other);
        assert_eq!(directory(&home.join("file/a")), DirectoryState::Other);
        let here = (PathBuf::from("."), privilege::is_writable(Path::new(".")));
        assert_eq!(place_of(Path::new("not-there-yet/a")), Some(here));
    }

    #[test]
    fn our_own_inotify_is_counted() {
        let user = rustix::process::geteuid().as_raw();
        let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
        rustix::fs::inotify::add_watch(&inotify, "/", rustix::fs::inotify::WatchFlags::CREATE).unwrap();
        let (instances, watches) = inotify_in_use(user);
        assert!(instances >= 1 && watches >= 1, "{instances} {watches}");
    }
}
