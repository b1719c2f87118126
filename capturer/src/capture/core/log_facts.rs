//! What was known of a container's log when its stream was made. Docker may say otherwise later: a dockerd with another
//! data-root writes to another file from the container's next start on, although the old one may still be there. The
//! stream is then read to its end, and a stream with the new facts resumes from there.
//!
//! Not here: how the place is found again in a copy (`stream/chain/resume.rs`).

use std::collections::BTreeMap;

use super::Capture;
use crate::model::clock::Now;
use crate::model::docker::Inspect;
use crate::model::record::{StreamId, StreamKey};

/// What a stream of a container was made for.
#[derive(Debug)]
struct LogFacts {
    driver: String,
    /// Of its json-file; empty before its first start, and with other drivers.
    path: String,
    tty: bool,
    /// It was told to end because they changed.
    is_left: bool,
}

impl LogFacts {
    fn of(inspect: &Inspect) -> LogFacts {
        LogFacts {
            driver: inspect.host_config.log_config.driver.clone(),
            path: inspect.log_path.clone(),
            tty: inspect.config.tty,
            is_left: false,
        }
    }

    /// Why a stream of these can't go on; `None` if it can.
    fn change_to(&self, inspect: &Inspect) -> Option<String> {
        let (driver, path) = (&inspect.host_config.log_config.driver, &inspect.log_path);
        if self.driver != *driver {
            return Some(format!("its logging driver was {} and is {driver}", self.driver));
        }
        if self.tty != inspect.config.tty {
            let change =
                if self.tty { "it had a terminal and has none" } else { "it had no terminal and has one" };
            return Some(change.to_owned());
        }
        let is_moved = !self.path.is_empty() && !path.is_empty() && self.path != *path;
        is_moved.then(|| format!("its log was {} and is {path}", self.path))
    }
}

/// The facts by stream; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct AllLogFacts(BTreeMap<StreamId, LogFacts>);

impl AllLogFacts {
    /// A stream is made.
    pub(super) fn made(&mut self, id: StreamId, inspect: &Inspect) {
        self.0.insert(id, LogFacts::of(inspect));
    }

    pub(super) fn forget(&mut self, id: StreamId) {
        self.0.remove(&id);
    }

    /// It ends only because its log is elsewhere now.
    pub(super) fn is_left(&self, id: StreamId) -> bool {
        self.0.get(&id).is_some_and(|facts| facts.is_left)
    }
}

impl Capture {
    /// Ends the streams of a container that were made for another log. New ones are made when they are closed.
    pub(super) fn leave_old_log(&mut self, now: Now, key: &StreamKey, inspect: &Inspect, name: &str) {
        let mut told = false;
        for id in self.ids_of(key) {
            let Some(facts) = self.log_facts.0.get_mut(&id).filter(|facts| !facts.is_left) else { continue };
            let Some(change) = facts.change_to(inspect) else {
                // Its first start made it.
                facts.path.clone_from(&inspect.log_path);
                continue;
            };
            facts.is_left = true;
            if !std::mem::replace(&mut told, true) {
                tracing::info!(
                    container = name,
                    "{change}; the rest of the old log is read, then the new log from the same line on"
                );
            }
            self.with_stream(now, id, |stream, cx| stream.leave("its log is another one now", cx));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(driver: &str, path: &str, tty: bool) -> Inspect {
        let text = format!(
            "{{\"Id\":\"c\",\"Name\":\"/web\",\"LogPath\":\"{path}\",\"Config\":{{\"Tty\":{tty}}},\
             \"HostConfig\":{{\"LogConfig\":{{\"Type\":\"{driver}\"}}}}}}"
        );
        serde_json::from_str(&text).expect("an inspection")
    }

    #[test]
    fn a_stream_is_left_for_another_log_only() {
        let file = "json-file";
        for (before, now, expected) in [
            ((file, "/a/c.log", false), (file, "/a/c.log", false), ""),
            // Not started yet; and what an Engine says in the middle of a start.
            ((file, "", false), (file, "/a/c.log", false), ""),
            ((file, "/a/c.log", false), (file, "", false), ""),
            (("local", "", false), ("local", "", false), ""),
            ((file, "/a/c.log", false), (file, "/b/c.log", false), "its log was /a/c.log and is /b/c.log"),
            (
                (file, "/a/c.log", false),
                ("local", "", false),
                "its logging driver was json-file and is local",
            ),
            (("journald", "", true), (file, "/a/c.log", true), "its logging driver was journald"),
            ((file, "/a/c.log", false), (file, "/a/c.log", true), "it had no terminal and has one"),
        ] {
            let at = |(driver, path, tty)| inspect(driver, path, tty);
            let change = LogFacts::of(&at(before)).change_to(&at(now)).unwrap_or_default();
            assert!(change.starts_with(expected) && change.is_empty() == expected.is_empty(), "{change:?}");
        }
    }
}
