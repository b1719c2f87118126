//! What the admin server shows of streams: a row for each.

use std::sync::Arc;

use super::look::SINK_WAITS_MS;
use super::{Capture, READ_BYTES};
use crate::capture::discover::Discovery;
use crate::capture::stream::{Kind, State, Stream};
use crate::model::cause::Cause;
use crate::model::clock::Now;
use crate::model::docker::{EngineFault, EngineTrouble};
use crate::telemetry::status::{Snapshot, StreamRow};
use crate::telemetry::stream_row::Blocked;

impl Capture {
    /// Everything the admin server shows.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut streams = Vec::with_capacity(self.streams.len());
        streams.extend(self.streams.values().map(|stream| self.row(stream, now)));
        streams.extend(self.rows_without_stream());
        Snapshot {
            taken_at_ms: now.mono_ms,
            all_listed: self.is_ready(),
            streams,
            docker: self
                .discovery
                .as_ref()
                .map(|d| d.row(self.settings.container_monitor.socket_path.display().to_string()))
                .unwrap_or_default(),
            operations: 0,
        }
    }

    fn row(&self, stream: &Stream, now: Now) -> StreamRow {
        let sinks = Arc::clone(&self.outlets[usize::from(stream.source.outlet.index)].names);
        let mut row = StreamRow { sinks, ..stream.row(now.mono_ms) };
        // The connection is still open and delivers again when the daemon answers. Until then the stream waits.
        let silent = self.discovery.as_ref().and_then(Discovery::silence);
        let silent =
            silent.filter(|_| matches!(stream.kind, Kind::Api(_)) && stream.state() == State::Following);
        if let Some(EngineTrouble { fault, text }) = silent {
            row.state = State::Waiting.as_str();
            row.cause = format!("Docker does not answer: {text}").into();
            row.now.blocked = Some(match fault {
                EngineFault::Silent { waited_s } => Blocked::Docker { waited_s: *waited_s },
                EngineFault::Denied => Blocked::NoDocker(
                    text.as_str().into(),
                    Some(Cause::NoPermission(
                        self.settings.container_monitor.socket_path.display().to_string(),
                    )),
                ),
                EngineFault::Away => Blocked::NoDocker(text.as_str().into(), Some(Cause::NoDocker)),
                _ => Blocked::NoDocker(text.as_str().into(), None),
            });
        }
        if let Some(held_up) = self.held_up(stream, now) {
            row.now.held_up = held_up;
        }
        if let Some((_, why)) = self.no_log(now, stream) {
            row.state = "not captured";
            row.cause = why.into();
        }
        if let Some(cause) = self.held.cause(stream.source.id) {
            row.cause = format!("its output is blocked: {cause}").into();
            row.now.blocked = Some(Blocked::Output(cause.into(), self.held.short(stream.source.id)));
            if !row.now.held_up.is_empty() {
                row.now.held_up.clear();
            }
        }
        row
    }

    /// Why its lines wait, if a sink takes nothing. The sink itself reports the cause.
    fn held_up(&self, stream: &Stream, now: Now) -> Option<String> {
        let outlet = &self.outlets[usize::from(stream.source.outlet.index)];
        let sinks = || outlet.names.join(", ");
        let sent_ms = stream.oldest_sent_ms().map_or(0, |sent| now.mono_ms.saturating_sub(sent));
        if sent_ms >= SINK_WAITS_MS {
            let seconds = sent_ms / 1000;
            // A network sink takes lines into its spool; whether its server accepts them is another matter.
            let where_to = if outlet.outlet.index > 0 { "put them into its spool" } else { "write them" };
            return Some(format!("{} has had lines for {seconds} s and could not {where_to}", sinks()));
        }
        let is_behind = stream.state() == State::Following && stream.unread_bytes().0 > 0;
        (is_behind && !outlet.credit.has_room(READ_BYTES)).then(|| {
            format!("{} has not accepted the lines of other sources, and the buffer is full", sinks())
        })
    }
}
