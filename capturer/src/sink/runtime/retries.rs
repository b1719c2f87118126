//! How a sink handles a blocked output: its messages wait, and are tried again after growing pauses.
//!
//! A failure of a single output delays only that output (held.rs). If the sink itself fails, everything waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::super::backoff;
use super::super::held::Job;
use super::super::{Sink, SinkError, SinkErrorKind};
use super::Worker;
use crate::limits::SINK_RETRY_MS_MAX;
use crate::model::delivery::{FromSink, ToSink};
use crate::model::record::Ack;

/// First pause after a failure; doubled until [`SINK_RETRY_MS_MAX`].
pub(super) const RETRY_MS_MIN: u64 = 100;

/// The log is told again when so many times as many outputs are blocked.
const BLOCKED_NEWS: usize = 10;

impl Worker {
    pub(super) fn hold(&mut self, output: Arc<str>, job: Job) -> Option<()> {
        let cause = self.held.trouble(&output).filter(|_| !matches!(job, Job::Detach(_)));
        if let Some(cause) = cause {
            let (stream, bytes) = (job.stream(), job.buffer_bytes());
            let short = self.held.short(&output);
            (self.report)(FromSink::Held { sink: self.id, stream, bytes, cause, short });
        }
        if self.held.push(&output, job) {
            self.tell_held();
        }
        Some(())
    }

    /// Retries messages for blocked outputs that are due. `None` = the sink has ended.
    pub(super) fn retry_held(&mut self) -> Option<()> {
        if self.held.is_empty() {
            return Some(());
        }
        let due = self.held.due(Instant::now());
        let was_tried = !due.is_empty();
        for output in due {
            while let Some(job) = self.held.pop(&output) {
                let Err(failed) = self.attempt(job) else { continue };
                let (job, error) = *failed;
                self.count_failure();
                self.held.put_back(&output, job);
                let failures = self.held.failures(&output);
                self.held.block(Arc::clone(&output), &error, retry_pause(failures));
                if error.kind == SinkErrorKind::Closed {
                    return None;
                }
                break;
            }
            for stream in self.held.freed(&output) {
                (self.report)(FromSink::Freed { sink: self.id, stream });
            }
        }
        // Reported even if nothing changed, since the text says for how long.
        if was_tried {
            self.tell_held();
        }
        Some(())
    }

    /// Handles a message, or returns it with the error.
    pub(super) fn attempt(&mut self, job: Job) -> Result<(), Box<(Job, SinkError)>> {
        let beat = Arc::clone(&self.beat);
        let step = beat.step();
        match job {
            Job::Attach(source) => {
                let attached = self.sink.attach(&source);
                drop(step);
                let mark = attached.map_err(|error| Box::new((Job::Attach(Arc::clone(&source)), error)))?;
                self.on_success();
                (self.report)(FromSink::Attached { sink: self.id, stream: source.id, mark });
            }
            Job::Batch { batch, made } => {
                // Only once, however many attempts the delivery takes.
                let made = made.map_or_else(|| self.steps.run(&batch), |made| *made);
                let out = made.as_ref().and_then(|made| made.batch.as_ref()).unwrap_or(&batch);
                let delivered = self.sink.deliver(out);
                drop(step);
                let delivered = match delivered {
                    Ok(delivered) => delivered,
                    Err(error) => {
                        let made = Some(Box::new(made));
                        return Err(Box::new((Job::Batch { batch, made }, error)));
                    }
                };
                self.on_success();
                self.metrics.invalid_utf8_replaced_total.inc_by(delivered.counts.invalid_utf8);
                if delivered.counts.invalid_utf8 > 0 {
                    self.tell_not_utf8(&batch.source);
                }
                // In its delivered form: redacted if that is configured.
                self.show(out);
                // Before the acknowledgement, which must return the only reference to the batch.
                let amount = made.and_then(|made| self.steps.count(&batch, made));
                // What could not be committed stays unacknowledged, as at a Stop; commit() has reported that.
                let _ =
                    self.acknowledge(Ack { sink: self.id, batch, mark: delivered.mark, delivered: amount });
            }
            Job::Detach(stream) => {
                self.steps.detach(stream);
                self.not_utf8.remove(&stream);
                self.sink.detach(stream);
            }
        }
        Ok(())
    }

    /// Retries a message until it works; `None` = the output is closed, or the deadline of a Stop has passed.
    pub(super) fn insist(&mut self, mut job: Job, mut error: SinkError) -> Option<()> {
        let mut failures = 0;
        loop {
            self.on_failure(&error);
            self.acknowledge_safe();
            if error.kind == SinkErrorKind::Closed || !self.pause(retry_pause(failures)) {
                return None;
            }
            failures += 1;
            (job, error) = match self.attempt(job) {
                Ok(()) => return Some(()),
                Err(again) => *again,
            };
        }
    }

    /// Tries until it works; `None` = the output is closed, or the deadline of a Stop has passed.
    pub(super) fn persist<T>(
        &mut self,
        mut attempt: impl FnMut(&mut dyn Sink) -> Result<T, SinkError>,
    ) -> Option<T> {
        let mut failures = 0;
        loop {
            let step = self.beat.step();
            let outcome = attempt(&mut *self.sink);
            drop(step);
            match outcome {
                Ok(value) => {
                    self.on_success();
                    return Some(value);
                }
                Err(error) => {
                    self.on_failure(&error);
                    self.acknowledge_safe();
                    let again = error.kind != SinkErrorKind::Closed && self.pause(retry_pause(failures));
                    if !again {
                        return None;
                    }
                    failures += 1;
                }
            }
        }
    }

    /// Waits. Returns false if a Stop's deadline passed or all senders are gone.
    fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let now = Instant::now();
            if self.give_up_at.is_some_and(|give_up_at| give_up_at <= now) {
                return false;
            }
            if until <= now {
                return true;
            }
            let wake_at = self.give_up_at.map_or(until, |give_up_at| give_up_at.min(until));
            match self.inbox.recv_timeout(wake_at - now) {
                Ok(message) => {
                    if let ToSink::Stop { give_up_at } = message {
                        self.give_up_at = Some(give_up_at);
                    }
                    self.set_aside.push_back(message);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.give_up_at.is_none() => return false,
                // A deadline was given, and no senders are left: try until then.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wake_at - now),
            }
        }
    }

    pub(super) fn count_failure(&self) {
        self.metrics.sink_errors_total.with_label_values(&[self.sink.name()]).inc();
    }

    /// Reports which outputs are blocked, and when none is any more.
    fn tell_held(&mut self) {
        let Some(outputs) = self.held.outputs(None) else {
            self.blocked_told = (BTreeSet::new(), 0);
            self.of_all.troubles.set_outputs(self.part, 0);
            return self.on_success();
        };
        let with_age = self.held.outputs(Some(Instant::now())).unwrap_or_default();
        let message = format!("{with_age}, {}", self.held.consequence());
        // One more or one less is no news: as a full disk gets room again, they go on one after the other.
        let (reasons, count) = (self.held.reasons(), self.held.len());
        let (told, told_count) = &self.blocked_told;
        if !reasons.is_subset(told) || count >= told_count.saturating_mul(BLOCKED_NEWS) {
            tracing::warn!(component = %self.component, "{message}");
            self.blocked_told = (reasons, count);
        }
        self.trouble = Some(outputs);
        self.of_all.troubles.set(self.part, Some((message, self.held.faults())), self.held.len());
    }

    pub(super) fn on_failure(&mut self, error: &SinkError) {
        self.count_failure();
        let consequence = match error.kind {
            SinkErrorKind::Retry | SinkErrorKind::RetryAll => {
                "reading waits, and lines stay in the log files as long as those are kept"
            }
            SinkErrorKind::Closed => "this sink has ended",
        };
        let message = format!("{error}; {consequence}");
        if self.trouble.as_ref() != Some(&message) {
            tracing::warn!(component = %self.component, "{message}");
            let told = format!("{}; {consequence}", error.with_room());
            let wrong = (told, vec![error.fault()]);
            self.of_all.troubles.set(self.part, Some(wrong), self.held.len());
            self.trouble = Some(message);
        }
    }

    fn on_success(&mut self) {
        if self.held.is_empty() && self.trouble.take().is_some() {
            self.of_all.troubles.set(self.part, None, 0);
        }
        if !self.accepted && self.held.is_empty() {
            self.accepted = true;
            if self.sink.is_network() {
                self.of_all.troubles.say_well("takes records into its spool");
            } else {
                self.of_all.troubles.say_well("accepts records");
                self.status.sink_accepted(self.sink.name());
            }
        }
    }
}

/// The pause of a blocked output, or of the sink, after so many failures.
pub(super) fn retry_pause(failures: u32) -> Duration {
    let (min, max) = (Duration::from_millis(RETRY_MS_MIN), Duration::from_millis(SINK_RETRY_MS_MAX));
    backoff::pause(failures, min, max, backoff::chance())
}
