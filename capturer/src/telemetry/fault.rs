//! What can be wrong with a component, as a kind. Whoever finds a fault names its kind; its title and its runbook go by that.
//! Words of a sentence decide nothing: a server's answer, a path or a name may have any of them.

use crate::telemetry::losses::SHOWN_MS;
use crate::telemetry::metrics::PushFailure;

/// See the module's head. One that many components can have is titled by the component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// The one that its component usually has.
    #[default]
    Usual,
    /// The beginning of the sentence is its title, with its number.
    Said,
    /// Lines were lost.
    Lost,
    /// The agent holds a descriptor that it should have closed.
    LeaksDescriptor,
    /// The same of several.
    LeaksDescriptors,
    /// dockerd holds more and more.
    DockerdLeaks,
    /// dockerd may not be asked.
    DockerDenied,
    /// No dockerd is there.
    DockerAway,
    /// Docker's events may not be asked for.
    EventsRefused,
    /// Docker is asked in vain, or some of its answers can't be used.
    DockerFails,
    /// What an ended container printed last can't be read.
    LastLinesUnread,
    /// The log to which Docker writes has no name any more; it is read as long as the agent runs.
    LogReplaced,
    /// Somebody removed data_dir, and the agent made it again.
    DataDirRemoved,
    /// The new config is good, and the agent could not start with it.
    ConfigNotStarted,
    /// A reload can't go on before the previous run has ended.
    ReloadWaits,
    /// No container has a name that the config names.
    NoContainerMatches,
    /// dockerd has no room to write its logs.
    DockerDiskFull,
    /// A directory can't be listed.
    DirectoryUnlistable,
    /// The same of several.
    DirectoriesUnlistable,
    /// Directories can't be watched: inotify's limit.
    NotWatched,
    /// Directories can't be watched for want of a right.
    NotWatchedDenied,
    /// A disk, or who reads, does not answer.
    Silent,
    /// A disk is full.
    NoRoom,
    /// This user's share of a disk is used up.
    QuotaUsed,
    /// A path may not be written to.
    Denied,
    /// A disk is mounted read-only.
    ReadOnly,
    /// The spool has as much as it may have.
    SpoolFull,
    /// A label set has as much of the spool as it may have.
    SpoolShareFull,
    /// Somebody removed the spool.
    SpoolRemoved,
    /// How far the spool was delivered can't be saved.
    SpoolUnsaved,
    /// Lines in the spool were given up.
    SpoolLost,
    /// Loki refused lines, which are kept.
    Refused,
    /// The user, password or token for Loki can't be read.
    LoginUnreadable,
    /// A request to Loki failed.
    Push(PushFailure),
}

/// What is to be known of the end of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// Health goes on telling of it for so long after it ended.
    pub told_ms: u64,
    /// What its end does not mean.
    pub but: &'static str,
}

impl Fault {
    /// What is to be known of its end, where that does not make all well.
    pub fn after(self) -> After {
        let after = |told_ms, but| After { told_ms, but };
        match self {
            Fault::Lost => after(SHOWN_MS, "; no more for 10 minutes, and those lines do not come back"),
            Fault::SpoolLost => after(0, "; no more for two minutes, and those lines do not come back"),
            Fault::Refused => after(
                0,
                "; no line was refused for two minutes, or all of them were replayed (capturer dead-letters list shows what is kept)",
            ),
            Fault::SpoolRemoved | Fault::DataDirRemoved => after(SHOWN_MS, ""),
            _ => after(0, ""),
        }
    }

    /// Names it in few words; `None` = the beginning of the sentence does, up to one of these.
    pub fn title(self, component: &str) -> Result<&'static str, &'static [char]> {
        Ok(match self {
            Fault::Usual => usual(component),
            Fault::Said => return Err(&[':', ';']),
            Fault::Lost => return Err(&[',', ';']),
            Fault::LeaksDescriptor => "The agent leaks a file descriptor",
            Fault::LeaksDescriptors => "The agent leaks file descriptors",
            Fault::DockerdLeaks => "dockerd seems to leak",
            Fault::DockerDenied => "No permission to use Docker",
            Fault::DockerAway => "Docker is not running here",
            Fault::EventsRefused => "Docker's events are refused",
            Fault::DockerFails => "Requests to Docker fail",
            Fault::LastLinesUnread => "Last lines of ended containers cannot be read",
            Fault::LogReplaced => "A container's log was removed or replaced",
            Fault::DataDirRemoved => "Somebody removed data_dir",
            Fault::ConfigNotStarted => "The new config could not be started",
            Fault::ReloadWaits => "A reload waits for the previous run",
            Fault::NoContainerMatches => "No container matches a pattern",
            Fault::DockerDiskFull => "Docker's disk is full: lines are being lost",
            Fault::DirectoryUnlistable => "A directory cannot be listed",
            Fault::DirectoriesUnlistable => "Directories cannot be listed",
            Fault::NotWatched => "inotify is at its limit",
            Fault::NotWatchedDenied => "Directories cannot be watched",
            Fault::Silent => match component {
                "files" => "A file system does not answer",
                "sink_stdout" => "Standard output takes nothing",
                "sink_loki" => "The disk of the spool does not answer",
                _ => "The disk of an output does not answer",
            },
            Fault::NoRoom => match component {
                "sink_loki" => "Disk full: lines for Loki wait",
                "sink_stdout" => "Disk full: standard output cannot be written",
                _ => "Disk full: outputs cannot be written",
            },
            Fault::QuotaUsed => match component {
                "sink_loki" => "Quota used up: lines for Loki wait",
                _ => "Quota used up: outputs cannot be written",
            },
            Fault::Denied => match component {
                "sink_loki" => "No permission to write the spool",
                _ => "No permission to write outputs",
            },
            Fault::ReadOnly => match component {
                "sink_loki" => "Read-only disk: lines for Loki wait",
                _ => "Read-only disk: outputs cannot be written",
            },
            Fault::SpoolFull => "The spool is full",
            Fault::SpoolShareFull => "A label set has filled its share of the spool",
            Fault::SpoolRemoved => "Somebody removed the spool",
            Fault::SpoolUnsaved => "Positions in the spool cannot be saved",
            Fault::SpoolLost => "Lines for Loki were lost",
            Fault::Refused => "Lines were refused and are kept as dead letters",
            Fault::LoginUnreadable => "The login for Loki cannot be read",
            Fault::Push(failure) => of_push(failure),
        })
    }

    /// The page in docs/runbooks that helps.
    pub fn runbook(self, component: &str) -> &'static str {
        match (component, self) {
            ("losses", _) | (_, Fault::DockerDiskFull) => "losses",
            ("leak_detector", _) => "leak",
            ("capture_loop", _) => "capture-stalled",
            ("checkpoint", _) => "checkpoint-failing",
            ("streams", _) => "stuck-stream",
            ("descriptors", _) => "descriptors-exhausted",
            ("config", _) => "config-refused",
            ("files" | "containers", _) => "sources-unreadable",
            ("sink_local_file" | "sink_stdout", _) => "sink-failing",
            ("sink_loki", _) => "spool-filling",
            ("sink_loki_delivery", Fault::Refused) => "dead-letters",
            ("sink_loki_delivery", Fault::SpoolLost | Fault::SpoolRemoved) => "losses",
            ("sink_loki_delivery", Fault::SpoolUnsaved) => "checkpoint-failing",
            ("sink_loki_delivery", Fault::Push(failure)) => runbook_of_push(failure),
            ("sink_loki_delivery", _) => "pushes-refused",
            ("pipelines", _) => "pipelines",
            ("probe", _) => "probe-degraded",
            _ => "component-unhealthy",
        }
    }
}

fn usual(component: &str) -> &'static str {
    match component {
        "losses" => "Lines may be lost",
        "leak_detector" => "The agent leaks: logs still arrive",
        "capture_loop" => "The capture loop is stuck",
        "checkpoint" => "Positions cannot be saved",
        "streams" => "Streams are stuck",
        "descriptors" => "File descriptors are running out",
        "config" => "The new config was refused",
        "docker" => "Docker does not answer",
        "files" => "Files need attention",
        "containers" => "Containers are not captured",
        "sink_local_file" => "An output cannot be written",
        "sink_stdout" => "Standard output cannot be written",
        "sink_loki" => "The spool cannot be written",
        "sink_loki_delivery" => "Lines for Loki wait",
        _ => "",
    }
}

fn of_push(failure: PushFailure) -> &'static str {
    match failure {
        PushFailure::Unreachable => "Loki cannot be reached",
        PushFailure::TimedOut => "Loki does not answer",
        PushFailure::BrokenAnswer => "Loki's answers break off",
        PushFailure::Tls => "No secure connection to Loki (TLS)",
        PushFailure::Unauthorized => "Loki refuses the login (401)",
        PushFailure::Forbidden => "Loki refuses access",
        PushFailure::NotFound => "No Loki at this URL (404)",
        PushFailure::Unexpected => "No Loki at this URL",
        PushFailure::RateLimited | PushFailure::StreamRateLimited => "Loki limits the rate (429)",
        PushFailure::StreamLimit => "Loki takes no more label sets (429)",
        PushFailure::ServerError => "Loki has an internal error",
        PushFailure::TenantBlocked => "Loki takes nothing of this tenant",
        PushFailure::MetadataDisallowed => "Loki takes no structured metadata",
        PushFailure::DeadLettersUnwritable => "Refused lines cannot be kept as dead letters",
    }
}

fn runbook_of_push(failure: PushFailure) -> &'static str {
    match failure {
        PushFailure::Unreachable
        | PushFailure::TimedOut
        | PushFailure::NotFound
        | PushFailure::Unexpected => "loki-unreachable",
        PushFailure::DeadLettersUnwritable => "dead-letters",
        // As the alerts have it: they tell apart what was answered.
        PushFailure::Tls
        | PushFailure::BrokenAnswer
        | PushFailure::Unauthorized
        | PushFailure::Forbidden
        | PushFailure::RateLimited
        | PushFailure::StreamRateLimited
        | PushFailure::StreamLimit
        | PushFailure::ServerError
        | PushFailure::TenantBlocked
        | PushFailure::MetadataDisallowed => "pushes-refused",
    }
}
