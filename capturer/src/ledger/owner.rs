//! Who holds a descriptor: the noun that claims, metrics, alarms and pages share.

use std::fmt;

use crate::model::record::StreamKey;

/// The part of the program that holds a descriptor. Its class is the label `owner` of metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// One captured stream: its connection or its files.
    Stream(StreamKey),
    /// Finding containers and files: events, lists, inotify, archives while they are unpacked.
    Discovery,
    /// The checkpoint's lock.
    Checkpoint,
    /// A sink, by name.
    Sink(String),
    /// The admin server and its connections.
    Admin,
    /// The witness itself: its maps, programs and attachments.
    Probe,
    /// What was open at start, rings, wakers, the log.
    Runtime,
    /// Nobody claims it.
    Unknown,
}

impl Owner {
    /// Every class, as the label `owner` has it.
    pub const CLASSES: [&str; 8] =
        ["stream", "discovery", "checkpoint", "sink", "admin", "probe", "runtime", "unknown"];

    /// The owner without the stream's or sink's name: a closed set, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Owner::Stream(_) => "stream",
            Owner::Discovery => "discovery",
            Owner::Checkpoint => "checkpoint",
            Owner::Sink(_) => "sink",
            Owner::Admin => "admin",
            Owner::Probe => "probe",
            Owner::Runtime => "runtime",
            Owner::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Stream(key) => write!(f, "stream:{}", key.0),
            Owner::Sink(name) => write!(f, "sink:{name}"),
            _ => f.write_str(self.class()),
        }
    }
}
