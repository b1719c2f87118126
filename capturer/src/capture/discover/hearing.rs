//! Whether the Engine answers at all. An idle one and a frozen one look alike on a connection that waits, so it is asked.
//!
//! ```text
//! heard (any answer, any event) ── 10 s of nothing ──▶ /_ping ── 10 s of nothing ──▶ silent ── any answer ──▶ heard
//! ```
//! A slow answer to a list or an inspection proves nothing: a busy Engine takes its time over them and answers a ping
//! meanwhile. While the event stream is being opened, that request is the question.

use super::{Discovery, EventsPhase, Question};
use crate::capture::context::{Context, Timer};
use crate::capture::io::{Action, RequestError};
use crate::model::docker;
use crate::model::docker::{EngineFault, EngineTrouble};
use crate::settings::advice::SILENT_DOCKERD;
use crate::telemetry::docker_words;

/// After this long without an answer or event, the Engine is asked.
const ASK_AFTER_MS: u64 = 10_000;
/// How long it may take to answer.
const ANSWER_WITHIN_MS: u64 = 10_000;

/// A list that is asked for when a ping would be due goes first: its answer, which comes at once, does as well.
pub(super) const LIST_FIRST_MS: u64 = 1_000;

/// When the Engine was asked and heard.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// The last answer, or the last event.
    heard_ms: u64,
    /// When the event stream was asked for.
    pub(super) opening_ms: u64,
    /// When the ping that is under way was sent.
    pub(super) pinged_ms: Option<u64>,
}

impl Discovery {
    /// Asks an Engine of which nothing was heard for a while, and says so if it does not answer.
    pub(super) fn listen(&mut self, cx: &mut Context<'_>) {
        let (asked_ms, path) = match self.events {
            EventsPhase::Opening(_) => (Some(self.hearing.opening_ms), docker::EVENTS),
            EventsPhase::Open { .. } => (self.hearing.pinged_ms, docker::PING),
            EventsPhase::Waiting(_) | EventsPhase::Closing(_) | EventsPhase::Stopped => return,
        };
        let Some(asked_ms) = asked_ms else {
            // A shorter time-out is that of an operator who wants to know sooner.
            let timeout_ms = cx.settings.container_monitor.read_timeout.as_millis() as u64;
            let due_ms = self.hearing.heard_ms + ASK_AFTER_MS.min(timeout_ms);
            return if due_ms <= cx.now.mono_ms {
                self.ask_ping(cx);
            } else {
                cx.timers.set_earlier(Timer::Discovery, due_ms);
            };
        };
        if self.is_silent() {
            return; // The question's answer, or its time-out, is what comes next.
        }
        let due_ms = asked_ms.max(self.hearing.heard_ms) + ANSWER_WITHIN_MS;
        if due_ms > cx.now.mono_ms {
            return cx.timers.set_earlier(Timer::Discovery, due_ms);
        }
        let path = path.split('?').next().unwrap_or_default().to_owned();
        self.does_not_answer(RequestError::NoAnswer { path, timeout_s: ANSWER_WITHIN_MS / 1000 }, cx);
    }

    pub(super) fn ask_ping(&mut self, cx: &mut Context<'_>) {
        if self.hearing.pinged_ms.is_none() {
            self.hearing.pinged_ms = Some(cx.now.mono_ms);
            self.ask(Question::Ping, docker::PING.to_owned(), cx);
            if self.reachable {
                self.listen(cx);
            }
        }
    }

    /// A question has no answer.
    pub(super) fn does_not_answer(&mut self, error: RequestError, cx: &mut Context<'_>) {
        let error = error.trouble();
        let begins = matches!(error.fault, EngineFault::Silent { .. }) && !self.is_silent();
        let is_news = self.reachable || self.last_error.text.is_empty() || begins;
        if is_news {
            let cure = match error.fault {
                EngineFault::Silent { .. } => SILENT_DOCKERD.to_owned(),
                fault => {
                    let socket = cx.settings.container_monitor.socket_path.display();
                    docker_words::cure(fault, &socket.to_string())
                }
            };
            tracing::warn!(component = "docker", "Docker does not answer: {}; {cure}", error.text);
        }
        self.is_away(error, cx);
    }

    /// It can't be asked. One silence keeps its first error, from which health counts the time.
    pub(super) fn is_away(&mut self, error: EngineTrouble, cx: &mut Context<'_>) {
        if !(self.is_silent() && matches!(error.fault, EngineFault::Silent { .. })) {
            self.last_error = error;
        }
        self.reachable = false;
        self.refused = None;
        cx.pool.engine_is_away = true;
    }

    /// Whether the Engine is there and does not answer.
    pub(super) fn is_silent(&self) -> bool {
        !self.reachable && matches!(self.last_error.fault, EngineFault::Silent { .. })
    }

    /// It reported something. That does not show that it can be asked: a dockerd that is ending removes its socket first.
    pub(super) fn heard_event(&mut self, cx: &mut Context<'_>) {
        self.hearing.heard_ms = cx.now.mono_ms;
        if self.is_silent() {
            self.heard(false, cx);
        }
    }

    /// It answered. `listed` = what it answered is the list.
    pub(super) fn heard(&mut self, listed: bool, cx: &mut Context<'_>) {
        self.hearing.heard_ms = cx.now.mono_ms;
        if self.reachable || !matches!(self.events, EventsPhase::Open { .. }) {
            return;
        }
        self.is_back(cx);
        if !listed {
            self.ask_list(cx);
        }
    }

    /// It answers again, or for the first time.
    pub(super) fn is_back(&mut self, cx: &mut Context<'_>) {
        self.hearing.heard_ms = cx.now.mono_ms;
        self.reachable = true;
        self.refused = None;
        self.last_error = EngineTrouble::default();
        cx.pool.engine_is_away = false;
    }

    /// The event stream is asked for.
    pub(super) fn opens(&mut self, cx: &mut Context<'_>) {
        let conn = cx.new_conn();
        self.events = EventsPhase::Opening(conn);
        self.hearing.opening_ms = cx.now.mono_ms;
        cx.act(Action::OpenConn { conn, stream: None, path: docker::EVENTS.to_owned() });
        self.listen(cx);
    }

    /// A ping from before the event stream ended says nothing of the Engine that opened the next.
    pub(super) fn forget_ping(&mut self) {
        self.hearing.pinged_ms = None;
        let pings = self.questions.values_mut().filter(|question| **question == Question::Ping);
        pings.for_each(|question| *question = Question::Outdated);
    }
}
