//! What the admin server shows of streams: a row for each.

use super::Capture;
use crate::capture::discover::Discovery;
use crate::capture::stream::{Kind, State, Stream};
use crate::model::clock::Now;
use crate::telemetry::status::{Snapshot, StreamRow};

impl Capture {
    /// Everything the admin server shows.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        Snapshot {
            taken_at_ms: now.mono_ms,
            all_listed: self.is_ready(),
            streams: self.streams.values().map(|stream| self.row(stream, now)).collect(),
            docker: self
                .discovery
                .as_ref()
                .map(|d| d.row(self.settings.container_monitor.socket_path.display().to_string()))
                .unwrap_or_default(),
            operations: 0,
        }
    }

    fn row(&self, stream: &Stream, now: Now) -> StreamRow {
        let sinks = self.outlets[usize::from(stream.source.outlet.index)].names.clone();
        let mut row = StreamRow { sinks, ..stream.row(now.mono_ms) };
        // The connection is still open, and delivers again when the daemon answers. Until then the stream waits.
        let silent = self.discovery.as_ref().and_then(Discovery::silence);
        let silent =
            silent.filter(|_| matches!(stream.kind, Kind::Api(_)) && stream.state() == State::Following);
        if let Some(error) = silent {
            State::Waiting.as_str().clone_into(&mut row.state);
            row.cause = format!("Docker does not answer: {error}");
        }
        if let Some(cause) = self.held.cause(stream.source.id) {
            row.cause = format!("its output is blocked: {cause}");
        }
        row
    }
}
