//! Docker's API as far as it is used: paths to GET, and the parts of answers that are read. Pure.
//!
//! No version in the paths: the Engine then answers in its newest, and old and new Engines (20.10 to 29) agree on all
//! that is read here.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

/// All containers, running or not.
pub const LIST: &str = "/containers/json?all=1";

/// Answers `OK` at once if an Engine listens.
pub const PING: &str = "/_ping";

/// Container events, from now on. The filter keeps exec and health-check events out: an unread event stream slows the
/// whole daemon.
pub const EVENTS: &str = concat!(
    "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22die%22%2C",
    "%22destroy%22%2C%22rename%22%2C%22restart%22%2C%22pause%22%2C%22unpause%22%5D%7D"
);

/// Why the Engine can't be asked. The agent decides by this and never by the text of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineFault {
    /// Somebody listens and does not answer.
    Silent {
        /// How many seconds the agent waited for the answer.
        waited_s: u64,
    },
    /// This user may not use the socket.
    Denied,
    /// No process listens there.
    Away,
    /// It answers, but refuses its events. Lists find containers meanwhile.
    EventsRefused,
    /// The agent asked, and neither an answer nor an error has come yet.
    NotYet,
    /// Any other fault.
    #[default]
    Other,
}

impl EngineFault {
    /// The fault that an error of connecting or reading shows.
    pub fn of_system(kind: io::ErrorKind) -> EngineFault {
        match kind {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => EngineFault::Silent { waited_s: 0 },
            io::ErrorKind::PermissionDenied => EngineFault::Denied,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => EngineFault::Away,
            _ => EngineFault::Other,
        }
    }
}

/// A fault with the text that people are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineTrouble {
    /// The kind of fault.
    pub fault: EngineFault,
    /// The text; empty = no fault.
    pub text: String,
}

impl EngineTrouble {
    /// A fault without a cure of its own.
    pub fn other(text: impl Into<String>) -> EngineTrouble {
        EngineTrouble { fault: EngineFault::Other, text: text.into() }
    }
}

/// The path to inspect one container.
pub fn inspect(id: &str) -> String {
    format!("/containers/{id}/json")
}

/// A row of [`LIST`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListRow {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `running`, `exited`, …
    #[serde(default)]
    pub state: String,
}

/// A row of [`LIST`] with everything it says of a container, most of which [`ListRow`] leaves out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListRowWithFacts {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's own name with a leading slash, and names that links give it.
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl From<ListRowWithFacts> for EventFacts {
    fn from(row: ListRowWithFacts) -> EventFacts {
        // The name that a link gives it is `/other/alias`.
        let name =
            row.names.into_iter().flatten().find_map(|name| {
                name.strip_prefix('/').filter(|name| !name.contains('/')).map(str::to_owned)
            });
        EventFacts {
            name: name.unwrap_or_default(),
            image: row.image,
            labels: row.labels.unwrap_or_default(),
        }
    }
}

/// What inspect says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspect {
    /// 64 hexadecimal digits.
    pub id: String,
    /// With a leading slash.
    pub name: String,
    /// The json-file log; empty before the first start and for other drivers.
    #[serde(default)]
    pub log_path: String,
    /// RFC 3339; empty if the Engine does not say.
    #[serde(default)]
    pub created: String,
    /// What the container is doing.
    #[serde(default)]
    pub state: InspectState,
    /// The part `Config`.
    #[serde(default)]
    pub config: InspectConfig,
    /// The part `HostConfig`.
    #[serde(default)]
    pub host_config: HostConfig,
    /// Where the container's own layer is. Engines with another image store do not say.
    #[serde(default)]
    pub graph_driver: Option<GraphDriver>,
}

impl Inspect {
    /// It runs. A container that waits for its next restart does not: the Engine ends each answer of its log at once.
    pub fn is_running(&self) -> bool {
        self.state.running && !self.state.restarting
    }

    /// It runs, or has run before.
    pub fn has_run(&self) -> bool {
        let ended = &self.state.finished_at;
        self.state.running || !ended.is_empty() && !ended.starts_with("0001-")
    }
}

/// The part `GraphDriver` of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// For overlay2 this has paths.
    #[serde(default)]
    pub data: Option<GraphDriverData>,
}

/// The part `GraphDriver.Data` of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriverData {
    /// The directory with what the container writes.
    #[serde(default)]
    pub upper_dir: Option<String>,
}

/// The part `State` of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectState {
    /// True also between the restarts of a restarting container.
    #[serde(default)]
    pub running: bool,
    /// Its process ended and will be started again after a pause, which grows to a minute.
    #[serde(default)]
    pub restarting: bool,
    /// RFC 3339; in the year 1 if it never ended.
    #[serde(default)]
    pub finished_at: String,
}

/// The part `Config` of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectConfig {
    /// Decides whether the log answer has frames; its bytes do not show that.
    #[serde(default)]
    pub tty: bool,
    /// Image reference as given.
    #[serde(default)]
    pub image: String,
    /// All labels, up to 200,000 of them.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The part `HostConfig` of an inspection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// How its log is kept.
    #[serde(default)]
    pub log_config: LogConfig,
}

/// The part `HostConfig.LogConfig` of an inspection.
#[derive(Debug, Default, Deserialize)]
pub struct LogConfig {
    /// The driver: `json-file`, `local`, `journald`, `none`, …
    #[serde(default, rename = "Type")]
    pub driver: String,
    /// Its options, as far as they are read.
    #[serde(default, rename = "Config")]
    pub options: Option<LogOptions>,
}

impl LogConfig {
    /// Whether dockerd drops lines when it can't write them as fast as the container prints. Its count of them is told to
    /// nobody.
    pub fn may_drop(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.mode == "non-blocking")
    }

    /// How many bytes a file of its log holds before the Engine rotates it; `None` = it keeps no files, or never rotates them. A
    /// follow that falls behind by a file skips that file, in 20.10 as in 28.5.
    pub fn rotates_at(&self) -> Option<u64> {
        let option = |of: fn(&LogOptions) -> &String| {
            self.options.as_ref().map(of).and_then(|size| parse_size(size.as_str()))
        };
        match self.driver.as_str() {
            "json-file" => option(|options| &options.max_size),
            "local" => Some(option(|options| &options.max_size).unwrap_or(LOCAL_FILE_BYTES)),
            "journald" | "none" => None,
            // The Engine keeps a copy of what these send away.
            _ => Some(option(|options| &options.cache_max_size).unwrap_or(LOCAL_FILE_BYTES)),
        }
    }
}

/// `max-size` of the driver `local`, unless set.
const LOCAL_FILE_BYTES: u64 = 20 * 1024 * 1024;

/// A size as Docker writes it: `20m`, `64k`, `1.5g`, `1000`, `10mb`. `None` = no bound, or no size.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim().chars().next().map(|c| c.to_ascii_lowercase()) {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024f64.powi(power);
    Some(bytes as u64).filter(|bytes| *bytes > 0)
}

/// Options of a logging driver.
#[derive(Debug, Default, Deserialize)]
pub struct LogOptions {
    /// `blocking`, the default, or `non-blocking`.
    #[serde(default)]
    pub mode: String,
    /// Size at which a file of the log is rotated.
    #[serde(default, rename = "max-size")]
    pub max_size: String,
    /// The same of the copy that the Engine keeps for a driver that can't be read.
    #[serde(default, rename = "cache-max-size")]
    pub cache_max_size: String,
}

/// One event of the Engine's stream of events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerEvent {
    /// `start`, `die`, …
    #[serde(default)]
    pub action: String,
    /// The container that the event is about.
    pub actor: Actor,
}

/// The part `Actor` of an event.
#[derive(Debug, Deserialize)]
pub struct Actor {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID", default)]
    pub id: String,
}

/// An event with everything it says of a container, most of which [`ContainerEvent`] leaves out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EventWithFacts {
    #[serde(default)]
    actor: ActorWithFacts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ActorWithFacts {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// What an event or a list says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// Without a slash.
    pub name: String,
    /// Image reference as it was given when the container was made.
    pub image: String,
    /// Labels. In events Docker adds name and image to them.
    pub labels: BTreeMap<String, String>,
}

impl From<EventWithFacts> for EventFacts {
    fn from(event: EventWithFacts) -> EventFacts {
        let mut labels = event.actor.attributes;
        let mut take = |key: &str| labels.remove(key).unwrap_or_default();
        let (name, image) = (take("name"), take("image"));
        EventFacts { name, image, labels }
    }
}

/// Whether a 404 says that there is no such container, rather than no such page: something else may answer in place of
/// the Engine.
pub fn is_no_such_container(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let refusal = serde_json::from_slice::<Refusal>(body);
    refusal.is_ok_and(|refusal| refusal.message.to_ascii_lowercase().contains("no such container"))
}

/// Whether this is a container ID as the Engine writes it. Nothing else may get into a path.
pub fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The Engine's own words, shortened.
pub fn refusal(status: u16, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let text = serde_json::from_slice::<Message>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |message| message.message);
    let text: String = text.trim().chars().take(300).collect();
    format!("the Engine answered {status}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_at_which_a_log_rotates() {
        let mib = 1024 * 1024;
        for (config, bytes) in [
            (r#"{"Type":"json-file"}"#, None),
            (r#"{"Type":"json-file","Config":{}}"#, None),
            (r#"{"Type":"json-file","Config":{"max-size":"-1"}}"#, None),
            (r#"{"Type":"json-file","Config":{"max-size":"10m","max-file":"3"}}"#, Some(10 * mib)),
            (r#"{"Type":"json-file","Config":{"max-size":"64k"}}"#, Some(64 * 1024)),
            (r#"{"Type":"json-file","Config":{"max-size":"1.5MB"}}"#, Some(3 * mib / 2)),
            (r#"{"Type":"json-file","Config":{"max-size":"1000"}}"#, Some(1000)),
            (r#"{"Type":"local"}"#, Some(20 * mib)),
            (r#"{"Type":"local","Config":{"max-size":"1m"}}"#, Some(mib)),
            (r#"{"Type":"journald"}"#, None),
            (r#"{"Type":"none"}"#, None),
            (r#"{"Type":"syslog"}"#, Some(20 * mib)),
            (r#"{"Type":"gelf","Config":{"cache-max-size":"2m"}}"#, Some(2 * mib)),
        ] {
            let config_read: LogConfig = serde_json::from_str(config).unwrap();
            assert_eq!(config_read.rotates_at(), bytes, "{config}");
        }
    }
}
