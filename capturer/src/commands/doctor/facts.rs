//! Facts about the machine as plain values: gather.rs finds them and judge.rs judges them.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::commands::tried_dir::Unfit;
use crate::settings::ReadFrom;
use crate::shell::files::listing::Access;
use crate::witness::probe::Tier;

/// All facts. A part is absent if the config forbids looking at it, or the config could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The result of reading the config.
    pub config: ConfigFact,
    /// `6.1.0-50-cloud-amd64`, as uname says it.
    pub release: String,
    /// Why io_uring does not work, with cause and cure; `None` = a ring was made and used.
    pub ring: Option<(String, String)>,
    /// The ring was refused because the limit of locked memory is too small.
    pub lacks_locked_memory: bool,
    /// Whether the kernel describes its types (BTF).
    pub has_btf: bool,
    /// `none`, `integrity`, `confidentiality`; `None` = the kernel does not say.
    pub lockdown: Option<String>,
    /// Capabilities in effect for this process.
    pub capabilities: CapabilitySet,
    /// The witness's tier and why better ones are refused.
    pub witness: WitnessFact,
    /// The container that this process runs in, if any.
    pub container: Option<ContainerFact>,
    /// Limits of the process and the host that matter to the agent.
    pub limits: LimitsFact,
    /// Facts that depend on the config; `None` = it could not be read.
    pub wanted: Option<Wanted>,
}

/// The result of reading the config.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigFact {
    /// It is valid; where it comes from.
    Good(String),
    /// The config, or a file that it names, may not be read.
    Denied(String),
    /// It was refused for these problems.
    Bad(String),
}

/// The container that this process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerFact {
    /// It has a PID namespace of its own (no `--pid host`).
    pub own_pids: bool,
}

/// The witness as it starts here.
#[derive(Clone, Debug, PartialEq)]
pub struct WitnessFact {
    /// Which tier is at work.
    pub tier: Tier,
    /// Which kernels the programs at work are for, in words; `None` on tier `procfs`.
    pub programs: Option<&'static str>,
    /// Better tiers, each with the reason why it is not used.
    pub refused: Vec<(Tier, String)>,
    /// Ways by which descriptors come and go that the self-test saw.
    pub seen: usize,
    /// Ways that this kernel does not offer.
    pub not_here: usize,
}

/// Limits of the process and its user.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsFact {
    /// Hard RLIMIT_NOFILE, to which the agent raises the soft one; `None` = unlimited, here and below.
    pub files: Option<u64>,
    /// Soft RLIMIT_MEMLOCK in bytes.
    pub locked_bytes: Option<u64>,
    /// fs.inotify.max_user_instances, and how many this user's processes hold.
    pub inotify_instances: Option<(u64, u64)>,
    /// fs.inotify.max_user_watches, and how many this user's processes hold.
    pub inotify_watches: Option<(u64, u64)>,
}

/// What the config needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Descriptors it may need, without the two for each container.
    pub files: u64,
    /// Process id of an agent that runs with this data_dir.
    pub running: Option<u32>,
    /// data_dir first, then the sinks' directories.
    pub directories: Vec<DirectoryFact>,
    /// The admin server's address, and whether it can be used.
    pub admin: Option<(SocketAddr, Result<(), Refusal>)>,
    /// Why the admin server's Unix socket can't be made.
    pub socket: Option<String>,
    /// Which files of file_monitor can't be read; `None` = there are no patterns.
    pub followed: Option<Access>,
    /// Whether the admin server is open to others, and what to do.
    pub exposure: Option<String>,
    /// Where Loki is, as it may be shown.
    pub loki: Option<String>,
    /// Docker, unless the config turns it off.
    pub docker: Option<DockerFact>,
}

/// Why something can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in words.
    pub why: String,
    /// A permission is missing.
    pub denied: bool,
    /// Somebody listens but does not answer.
    pub silent: bool,
}

/// A directory in which the agent writes.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryFact {
    /// The key of the config.
    pub key: &'static str,
    /// Path of the directory.
    pub path: PathBuf,
    /// What is at that path.
    pub state: DirectoryState,
}

/// What is at a directory's path.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectoryState {
    /// No answer in time: a network file system hangs.
    Silent,
    /// Something other than a directory.
    Other,
    /// Nothing; the directory would be made in `place`.
    Missing {
        /// The nearest directory that exists.
        place: PathBuf,
        /// Whether the directory can be made there.
        writable: bool,
        /// Space that this user may fill, in the place.
        free_bytes: u64,
        /// The kind of the place's file system, if it may hang.
        may_hang: Option<&'static str>,
    },
    /// The directory, with a file of an earlier run that can't be written.
    Holds {
        /// The file.
        file: PathBuf,
    },
    /// Permissions are sufficient, but files still can't be made.
    Unfit(Unfit),
    /// The directory.
    There {
        /// Whether files can be made in it.
        writable: bool,
        /// Space that this user may fill.
        free_bytes: u64,
        /// The kind of file system, if it may hang.
        may_hang: Option<&'static str>,
    },
}

/// What is known of Docker.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerFact {
    /// Path of its socket.
    pub socket: PathBuf,
    /// How containers are read.
    pub read_from: ReadFrom,
    /// The Engine's answer.
    pub answer: Result<EngineFact, Refusal>,
}

/// What the Engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFact {
    /// Version of the Engine.
    pub version: String,
    /// The logging driver of containers that name none.
    pub driver: String,
    /// How many containers there are.
    pub containers: u64,
    /// Where the logs of containers are.
    pub logs: PathBuf,
    /// Whether these logs can be read.
    pub logs_readable: Result<(), Refusal>,
    /// Its running containers that the config selects; `None` = not all could be inspected.
    pub running: Option<RunningFact>,
}

/// The running containers that the config selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningFact {
    /// How many there are.
    pub count: usize,
    /// How many others run, which the config does not select.
    pub others: usize,
    /// How many were inspected before the time was up.
    pub looked_at: usize,
    /// Containers of which nothing can be read.
    pub unread: Vec<UnreadFact>,
    /// Names of containers with the driver `none`, which somebody chose.
    pub no_log: Vec<String>,
    /// Names of containers with the driver `local`.
    pub local: Vec<String>,
    /// Names of containers whose lines Docker drops when they come too fast.
    pub may_drop: Vec<String>,
}

/// A running container of which nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadFact {
    /// The container's name.
    pub name: String,
    /// Why nothing can be read.
    pub why: Unread,
}

/// Why nothing of a container can be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unread {
    /// Its logging driver keeps nothing that the Engine can read.
    Driver(String),
    /// Its logging driver writes no json-file, but only files are to be read.
    NotAFile(String),
    /// Its json-file does not exist.
    Missing(PathBuf),
    /// Its json-file can't be opened, but only files are to be read.
    Refused(PathBuf, String),
}
