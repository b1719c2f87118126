//! When a stream is tried again: after a failure, when it gets a slot, when its container runs, when its file may be
//! read.
//!
//! ```text
//! failed ─▶ waits, twice as long each time, up to container_monitor.reconnect_interval ─▶ tried again from its position
//!    ├─ too often for reasons of its own ─▶ paused (circuit_breaker)
//!    └─ a file that can't be opened ─▶ waits up to circuit_breaker.pause, and is tried when its rights change
//! quiet, and more containers than slots ─▶ asked again after a while (api/pace.rs)
//! ```

use super::{Kind, State, Stream, WELL_AFTER_MS, Why, words};
use crate::capture::context::{Context, Purpose};
use crate::capture::stream::state::Change;
use crate::telemetry::metrics::StreamError;

/// Pause after a change of rights of an unreadable file: whoever changes them rarely changes only one thing.
const RIGHTS_MS: u64 = 100;
/// Time between two attempts for that reason.
const RIGHTS_APART_MS: u64 = 1_000;
/// First pause after a failure.
const FAILED_FIRST_MS: u64 = 200;

/// An Engine that loses its place at a rotation or a restart ends an answer once or twice.
const ENDS_MAX: u32 = 5;
/// So many failures in a row are named by health; the circuit breaker may be set to fewer.
const FAILURES_MAX: usize = 5;

/// Whether the file could not be opened, and whether that may have changed.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// The last failure was a failed opening.
    are_missing: bool,
    /// Rights changed after the present attempt began.
    changed: bool,
    /// When it was last tried because rights changed.
    tried_ms: u64,
}

impl Stream {
    /// A deadline of this stream has come.
    pub fn on_timer(&mut self, purpose: Purpose, cx: &mut Context<'_>) {
        match (purpose, self.retry_at_ms) {
            (Purpose::RateLimit, _) => {
                self.limited_until_ms = None;
                self.pump(cx);
            }
            (Purpose::Retry, Some(_)) => {
                let is_for_rights = self.retry_at_ms == Some(self.rights.tried_ms);
                self.retry(if is_for_rights { "its rights changed" } else { "the wait is over" }, cx);
                self.pump(cx);
            }
            (Purpose::Retry, None) => {}
            (_, Some(at)) if purpose.is_of_reading_a_file() => {
                cx.wake(self.source.id, purpose, at.max(cx.now.mono_ms + 1));
            }
            (_, retry_at_ms) => self.with_source(cx, |kind, cx, told| match kind {
                Kind::File(file) if retry_at_ms.is_some() => file.end_groups(cx, told),
                Kind::File(file) => file.on_timer(purpose, cx, told),
                Kind::Api(api) => api.on_timer(purpose, cx, told),
            }),
        }
    }

    /// A file that could not be opened may be readable now, so it is tried before the next attempt is due. If something
    /// changes its times again and again, it is not tried each time.
    pub fn on_rights_changed(&mut self, cx: &mut Context<'_>) {
        match self.state {
            // The present attempt may be from before the change.
            State::Opening => self.rights.changed = true,
            State::Waiting | State::Draining if self.rights.are_missing => {
                let at = (cx.now.mono_ms + RIGHTS_MS).max(self.rights.tried_ms + RIGHTS_APART_MS);
                if self.retry_at_ms.is_some_and(|due| due > at) {
                    self.rights.tried_ms = at;
                    self.retry_at_ms = Some(at);
                    cx.wake(self.source.id, Purpose::Retry, at);
                }
            }
            _ => {}
        }
    }

    pub(super) fn retry(&mut self, cause: &str, cx: &mut Context<'_>) {
        self.retry_at_ms = None;
        self.polled = false;
        match self.state {
            State::Waiting => {
                self.change(Change::Retry, cause, cx);
                self.open(cx);
            }
            State::Draining => self.pump(cx),
            State::Found | State::Opening | State::Following | State::Closed => {}
        }
    }

    pub(super) fn failed(&mut self, error: StreamError, why: Why, cx: &mut Context<'_>) {
        cx.metrics.stream_error(error);
        // The health of `files` names a file that can't be opened, once.
        let is_file_not_opened = matches!(self.kind, Kind::File(_)) && error == StreamError::OpenFailed;
        self.rights.are_missing = is_file_not_opened;
        if self.state == State::Draining {
            // What is left is still tried, but not at once.
            *self.last_error = why;
            return self.back_off(cx);
        }
        if !matches!(self.state, State::Opening | State::Following) {
            return;
        }
        let is_other = self.last_error.text != why.text;
        let is_news = match error {
            // All of them break when the Engine goes or freezes, and its own line in the log is enough. One that breaks by
            // itself is tried again first.
            StreamError::DaemonGone | StreamError::ReadTimeout if cx.pool.engine_is_away => false,
            StreamError::DaemonGone | StreamError::ReadTimeout => {
                self.failures == 1 || self.failures > 1 && is_other
            }
            _ => self.failures == 0 || is_other,
        };
        let text = why.text.clone();
        *self.last_error = why;
        self.back_off(cx);
        // If the daemon is unavailable all of them fail, and come back with it. A file that can't be opened is not
        // paused: whoever gives back the permission waits for its lines.
        let is_own =
            !is_file_not_opened && !matches!(error, StreamError::DaemonGone | StreamError::ReadTimeout);
        self.own_failures += usize::from(is_own);
        if self.own_failures >= cx.settings.container_monitor.circuit_breaker.failures {
            return self.pause(&text, cx);
        }
        self.change(Change::Failed, &text, cx);
        if std::mem::take(&mut self.rights.changed) {
            self.on_rights_changed(cx);
        }
        words::tell(&self.source, error, is_news && !is_file_not_opened, &format!("{text}; trying again"));
    }

    /// The stream failed too often: it is left alone for a while and then tried once. Its first line ends this.
    fn pause(&mut self, text: &str, cx: &mut Context<'_>) {
        let pause = cx.settings.container_monitor.circuit_breaker.pause.as_millis() as u64;
        let pause_ms = cx.jitter.around(pause);
        let at = cx.now.mono_ms + pause_ms;
        self.retry_at_ms = Some(at);
        cx.wake(self.source.id, Purpose::Retry, at);
        cx.metrics.stream_error(StreamError::CircuitOpen);
        let cause =
            format!("paused for {} s after {} failures in a row: {text}", pause_ms / 1000, self.own_failures);
        self.change(Change::Failed, &cause, cx);
        words::tell(&self.source, StreamError::CircuitOpen, true, &cause);
    }

    pub(super) fn polled(&mut self, again_at_ms: u64, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Opening | State::Following) {
            return;
        }
        self.polled = true;
        self.retry_at_ms = Some(again_at_ms);
        cx.wake(self.source.id, Purpose::Retry, again_at_ms);
        self.change(
            Change::Ended,
            "quiet, and there are more containers than slots: polled from time to time",
            cx,
        );
    }

    /// A clean end. It comes at every stop, restart and removal of a container, and also when dockerd has lost its
    /// place. A container that restarts all the time ends at once each time, hence the pause.
    pub(super) fn ended(&mut self, cause: &str, again: bool, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Opening | State::Following) {
            return;
        }
        if again {
            self.back_off(cx);
        }
        self.ends_in_a_row = if self.running { self.ends_in_a_row + 1 } else { 0 };
        self.change(Change::Ended, cause, cx);
    }

    /// Whether the Engine ends its answers although the container runs, and none of them brings a line.
    pub fn keeps_ending(&self) -> bool {
        self.running && self.ends_in_a_row >= ENDS_MAX && matches!(self.kind, Kind::Api(_))
    }

    /// Why its log could not be read over the API each of the last times, in the words of the last. A time-out, and a daemon
    /// that is away, are not counted: they are the Engine's faults, and said as such.
    pub fn fails_too_often(&self, breaker: usize, now_ms: u64) -> Option<&str> {
        let reads = self.state == State::Following && now_ms >= self.state_since_ms + WELL_AFTER_MS;
        let fails = !reads && matches!(self.kind, Kind::Api(_));
        (fails && self.own_failures >= breaker.min(FAILURES_MAX)).then_some(self.last_error.text.as_ref())
    }

    /// Whether one more failure, or one more end without a line, is one too many.
    pub fn may_fail_too_often(&self, breaker: usize) -> bool {
        self.ends_in_a_row + 1 >= ENDS_MAX || self.own_failures + 1 >= breaker.min(FAILURES_MAX)
    }

    fn back_off(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Following && cx.now.mono_ms - self.state_since_ms >= WELL_AFTER_MS {
            self.failures = 0;
        }
        self.failures += 1;
        let monitor = &cx.settings.container_monitor;
        let max = if self.rights.are_missing {
            // inotify reports when permissions are given back.
            monitor.reconnect_interval.max(monitor.circuit_breaker.pause)
        } else {
            monitor.reconnect_interval
        };
        let pause = cx.jitter.back_off(FAILED_FIRST_MS, self.failures, max.as_millis() as u64);
        let at = cx.now.mono_ms + pause;
        self.retry_at_ms = Some(at);
        cx.wake(self.source.id, Purpose::Retry, at);
    }
}
