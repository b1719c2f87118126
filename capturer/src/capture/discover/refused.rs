//! An Engine that answers but refuses its events, mostly because of what stands before it: a socket proxy, an
//! authorization plugin. Containers are then found by lists that follow each other closely, and events are tried again.
//!
//! A list shows neither a new name nor that a container ended and runs again, so all are inspected now and then. One
//! that lives shorter than the time between two lists is never seen: health says so.

use super::{Discovery, EventsPhase};
use crate::capture::context::{Context, Timer};
use crate::model::docker::EngineTrouble;
use crate::telemetry::docker_words;

/// The longest time between two lists while nothing else finds a container.
const LIST_WITHOUT_EVENTS_MS: u64 = 5_000;

/// Whether this status says that events are not allowed or not known, and not that something broke.
pub(super) fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) || status == 501
}

/// Events are refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was answered.
    pub(super) error: EngineTrouble,
    /// When all containers were last marked to be inspected.
    inspected_ms: u64,
}

impl Discovery {
    /// The Engine answered that it does not report events.
    pub(super) fn without_events(&mut self, error: EngineTrouble, cx: &mut Context<'_>) {
        let now = cx.now.mono_ms;
        let before = self.refused.take().map(|refused| refused.inspected_ms);
        if before.is_none() {
            let socket = cx.settings.container_monitor.socket_path.to_string_lossy();
            let cure = docker_words::cure(error.fault, &socket);
            tracing::warn!(component = "docker", "{}; {cure}; trying again", error.text);
        }
        self.is_back(cx);
        let interval_ms = cx.settings.container_monitor.list_interval.as_millis() as u64;
        let due = before.is_none_or(|inspected_ms| now >= inspected_ms + interval_ms);
        self.refused = Some(Refused { error, inspected_ms: before.filter(|_| !due).unwrap_or(now) });
        self.wait_before_opening(cx);
        if due {
            self.listed.values_mut().for_each(String::clear);
            self.ask_list(cx);
        }
        self.list_without_events(cx);
    }

    /// Whether the Engine may be asked for containers: events tell of changes, or are refused.
    pub(super) fn may_ask(&self) -> bool {
        match self.events {
            EventsPhase::Open { .. } => true,
            EventsPhase::Waiting(_) | EventsPhase::Opening(_) => self.refused.is_some() && !self.stopping,
            EventsPhase::Closing(_) | EventsPhase::Stopped => false,
        }
    }

    /// Requests the list, if it is due and events are refused.
    pub(super) fn list_without_events(&mut self, cx: &mut Context<'_>) {
        if self.refused.is_none() {
            return;
        }
        if self.list_at_ms <= cx.now.mono_ms {
            self.ask_list(cx);
        }
        cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
    }

    /// Time between two lists.
    pub(super) fn list_every_ms(&self, cx: &Context<'_>) -> u64 {
        let interval_ms = cx.settings.container_monitor.list_interval.as_millis() as u64;
        if self.refused.is_some() { interval_ms.min(LIST_WITHOUT_EVENTS_MS) } else { interval_ms }
    }
}
