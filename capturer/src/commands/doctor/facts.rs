//! What is known of the machine, as plain values: what gather.rs finds and judge.rs judges. No judgement here.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::commands::tried_dir::Unfit;
use crate::settings::ReadFrom;
use crate::shell::files::listing::Access;
use crate::witness::probe::Tier;

/// Everything that is looked at. A part is absent if the config forbids looking or could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What became of reading the config.
    pub config: ConfigFact,
    /// `6.1.0-50-cloud-amd64`, as uname says it.
    pub release: String,
    /// Why there is no ring: cause and cure; `None` = one was made and used.
    pub ring: Option<(String, String)>,
    /// The kernel describes its types.
    pub has_btf: bool,
    /// `none`, `integrity`, `confidentiality`; `None` = the kernel does not say.
    pub lockdown: Option<String>,
    /// Capabilities in effect for this process.
    pub capabilities: CapabilitySet,
    /// How the witness can ask the kernel.
    pub witness: WitnessFact,
    /// The container that this runs in, if it is in one.
    pub container: Option<ContainerFact>,
    /// Limits of the process and the host that matter to the agent.
    pub limits: LimitsFact,
    /// What needs a good config.
    pub wanted: Option<Wanted>,
}

/// What became of reading the config.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigFact {
    /// Where it comes from.
    Good(String),
    /// It, or a file it names, may not be read.
    Denied(String),
    /// It was refused, for all these problems.
    Bad(String),
}

/// What is known of the container that this runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerFact {
    /// It counts processes for itself (no `--pid host`).
    pub own_pids: bool,
}

/// The witness as it started here and now.
#[derive(Clone, Debug, PartialEq)]
pub struct WitnessFact {
    /// Which tier is at work.
    pub tier: Tier,
    /// Which kernels the programs at work are for, in words; none on tier `procfs`.
    pub programs: Option<&'static str>,
    /// Better ones, each with why not.
    pub refused: Vec<(Tier, String)>,
    /// Ways by which descriptors come and go that the self-test saw, and those the kernel does not offer.
    pub seen: usize,
    /// Ways that this kernel does not offer.
    pub not_here: usize,
}

/// Limits of the process, and of its user.
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

/// What the config asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Descriptors it may need besides two for each container.
    pub files: u64,
    /// A capturer that runs with this data_dir.
    pub running: Option<u32>,
    /// data_dir first, then the sinks' directories, each with the key that names it.
    pub directories: Vec<DirectoryFact>,
    /// The admin server's address, and why it is not available.
    pub admin: Option<(SocketAddr, Result<(), Refusal>)>,
    /// Why its Unix socket can't be made.
    pub socket: Option<String>,
    /// Whether the files of file_monitor can be read; `None` = there are no patterns.
    pub followed: Option<Access>,
    /// What of it is open to others, and what to do.
    pub exposure: Option<String>,
    /// Docker, unless it is not to be asked.
    pub docker: Option<DockerFact>,
}

/// Why something is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in words.
    pub why: String,
    /// A right is missing.
    pub denied: bool,
    /// Somebody is there and gives no answer.
    pub silent: bool,
}

/// A directory the agent writes in.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryFact {
    /// The key of the config.
    pub key: &'static str,
    /// Path of the directory.
    pub path: PathBuf,
    /// What is there.
    pub state: DirectoryState,
}

/// What is where a directory should be.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectoryState {
    /// No answer in time: a network file system that hangs.
    Silent,
    /// Something else than a directory.
    Other,
    /// Nothing; `place` is the directory that it will be made in.
    Missing {
        /// The nearest directory that exists.
        place: PathBuf,
        /// Whether something can be made there.
        writable: bool,
    },
    /// The directory exists, and a file of an earlier run in it can't be written.
    Holds {
        /// The file.
        file: PathBuf,
    },
    /// The rights are there, and no file can be made all the same.
    Unfit(Unfit),
    /// The directory exists.
    There {
        /// Whether it can be written in.
        writable: bool,
        /// Free for us.
        free_bytes: u64,
        /// Name of a file system kind that may hang.
        may_hang: Option<&'static str>,
    },
}

/// What is known of Docker.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerFact {
    /// Path of its socket.
    pub socket: PathBuf,
    /// How containers are to be read.
    pub read_from: ReadFrom,
    /// What came of asking.
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
    /// Where their logs lie.
    pub logs: PathBuf,
    /// Whether they can be read there.
    pub logs_readable: Result<(), Refusal>,
    /// Its running containers that are to be captured; `None` = not all could be asked for.
    pub running: Option<RunningFact>,
}

/// What is known of the running containers that the config selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningFact {
    /// How many there are.
    pub count: usize,
    /// How many were looked at before the time was over.
    pub looked_at: usize,
    /// Those of which nothing can be read.
    pub unread: Vec<UnreadFact>,
    /// Names of those whose driver is `none`, which somebody chose.
    pub no_log: Vec<String>,
    /// Names of those whose driver is `local`.
    pub local: Vec<String>,
}

/// A running container of which nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadFact {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Unread,
}

/// Why nothing of a container can be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unread {
    /// Its logging driver keeps nothing that the Engine can read.
    Driver(String),
    /// Its logging driver writes no json-file, and only those are to be read.
    NotAFile(String),
    /// Its json-file is not there.
    Missing(PathBuf),
    /// Its json-file can't be opened, and only files are to be read.
    Refused(PathBuf, String),
}
