//! The end of a run, in order: nothing new is read ▸ connections close, batches are acknowledged ▸ a last checkpoint ▸
//! sinks flush and end ▸ finished. Each step waits for the one before; the whole is bounded by `shutdown_timeout`.

use super::Capture;
use crate::capture::context::Timer;
use crate::capture::io::Action;
use crate::capture::stream::{Kind, Stream};
use crate::model::clock::Now;
use crate::model::record::{SinkId, StreamId};
use crate::text::counted::counted;

/// How far stopping has come.
#[derive(Debug)]
pub(super) struct Stopping {
    sinks_running: usize,
    sinks_told: bool,
    finished: bool,
    /// A stream that was not at rest at the last look. Only when it is are all streams looked at again.
    waits_for: Option<StreamId>,
    /// A sink ended by itself and will not acknowledge anything more.
    sink_ended: bool,
    /// Its name, if there are other sinks, which are stopped as well.
    ended: Option<String>,
}

impl Capture {
    pub(super) fn on_stop(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        let timeout = self.settings.shutdown_timeout.as_millis() as u64;
        self.shared.timers.set(Timer::StopDeadline, now.mono_ms + timeout);
        // So that the next run knows that nothing was delivered after the last save.
        self.tracker.save_again();
        self.stopping = Some(Stopping {
            sinks_running: self.sinks.len(),
            sinks_told: false,
            finished: false,
            waits_for: None,
            sink_ended: false,
            ended: None,
        });
        self.with_discovery(now, |discovery, cx, _| discovery.stop(cx));
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.with_stream(now, id, |stream, cx| stream.stop(cx));
        }
    }

    /// If no sink was told to stop, the reader has closed standard output. If that is the only sink, nobody is left to
    /// write for.
    pub(super) fn on_sink_stopped(&mut self, now: Now, sink: SinkId) {
        if self.stopping.is_none() {
            let name = self.sinks[usize::from(sink.0)].clone();
            let is_only_one = self.sinks.len() == 1;
            if is_only_one {
                tracing::info!("{name} has ended; stopping");
            } else {
                tracing::error!(
                    "{name} has ended: nobody reads it any more. Sinks on this host advance together, so the agent stops; \
                     start it again with a reader, or without sinks.{name}"
                );
            }
            self.on_stop(now);
            if let Some(stopping) = &mut self.stopping {
                stopping.sink_ended = true;
                stopping.ended = (!is_only_one).then(|| format!("{name}, which nobody reads any more"));
            }
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.sinks_running = stopping.sinks_running.saturating_sub(1);
        }
    }

    pub(super) fn go_on_stopping(&mut self, now: Now) {
        if self.stopping.as_ref().is_none_or(|stopping| stopping.finished) || self.is_anything_left() {
            return;
        }
        if self.tracker.dirty_seq() > self.tracker.saved_seq() {
            self.save(now);
            return;
        }
        let Some(stopping) = &mut self.stopping else { return };
        if !stopping.sinks_told {
            stopping.sinks_told = true;
            self.shared.actions.push(Action::StopSinks);
        } else if stopping.sinks_running == 0 {
            stopping.finished = true;
            let mut left = self.what_hangs();
            left.extend(self.what_is_held());
            left.extend(self.what_goes_with_us());
            // A supervisor then starts the agent again.
            left.extend(self.stopping.as_mut().and_then(|stopping| stopping.ended.take()));
            self.shared.actions.push(Action::Finished { left });
        }
    }

    /// Whether the run is over, so that nothing more is delivered.
    pub(super) fn is_at_rest(&self) -> bool {
        let left = [Self::what_is_left, Self::what_hangs, Self::what_is_held];
        self.stopping.is_some() && left.iter().all(|left| left(self).is_empty())
    }

    /// Whether [`Capture::what_is_left`] names anything, without looking at all streams for each event.
    fn is_anything_left(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let last = stopping.waits_for.take();
        let is_left = |stream: &Stream| self.waits_for(stream);
        let last = last.filter(|id| self.streams.get(id).is_some_and(|stream| is_left(stream)));
        let waits_for = last
            .or_else(|| self.streams.values().find(|stream| is_left(stream)).map(|stream| stream.source.id));
        if let Some(stopping) = &mut self.stopping {
            stopping.waits_for = waits_for;
        }
        waits_for.is_some()
            || self.saving.is_under_way()
            || self.discovery.as_ref().is_some_and(|discovery| !discovery.is_at_rest())
    }

    /// Whether the last checkpoint waits for this stream.
    fn waits_for(&self, stream: &Stream) -> bool {
        let sink_ended = self.stopping.as_ref().is_some_and(|stopping| stopping.sink_ended);
        let is_over = sink_ended && stream.reads_nothing();
        !stream.is_at_rest() && !self.is_held(stream) && !is_over
    }

    /// What must end before the last checkpoint, by name.
    fn what_is_left(&self) -> Vec<String> {
        let streams = self.streams.values().filter(|stream| self.waits_for(stream));
        let mut left: Vec<String> = streams.map(|stream| stream.source.key.0.to_string()).collect();
        if self.discovery.as_ref().is_some_and(|discovery| !discovery.is_at_rest()) {
            left.push("discovery".to_owned());
        }
        if self.saving.is_under_way() {
            left.push("checkpoint".to_owned());
        }
        left
    }

    /// Reads of files that nobody can end. They are not waited for: what they would have read is still behind the
    /// position.
    fn what_hangs(&self) -> Vec<String> {
        self.streams.values().filter_map(|stream| stream.hung_read()).collect()
    }

    /// Deleted files that only this process has open, with unread lines. These are lost, and the next run can report at
    /// most one of them per log.
    fn what_goes_with_us(&self) -> Vec<String> {
        let files = self.streams.values().filter_map(|stream| match &stream.kind {
            Kind::File(file) => Some(file),
            Kind::Api(_) => None,
        });
        let deleted = files.flat_map(|file| file.deleted_unread());
        deleted
            .map(|(path, bytes)| {
                format!("{path}, which was deleted (lost with this stop: {} unread)", counted(bytes, "byte"))
            })
            .collect()
    }

    /// Unread parts of files may be gone at the next start. Notes how long the files are now, because positions were
    /// made when their lines were read.
    pub(super) fn note_lengths(&mut self) {
        for stream in self.streams.values() {
            if let Kind::File(file) = &stream.kind {
                self.tracker.note_lengths(&stream.source.key, |id| file.len_of(id));
            }
        }
    }

    pub(super) fn on_stop_deadline(&mut self) {
        let mut left = self.what_is_left();
        left.extend(self.what_hangs());
        left.extend(self.what_is_held());
        left.extend(self.what_goes_with_us());
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.sinks_running > 0 {
            left.push("sinks".to_owned());
        }
        stopping.finished = true;
        self.shared.actions.push(Action::Finished { left });
    }
}
