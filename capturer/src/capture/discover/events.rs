//! The connection on which the Engine reports events: opened first, read at once, and opened again after a pause.
//!
//! An event only marks its container as changed. An unreadable one is no loss: the next list names its container.

use super::refused::is_refusal;
use super::{Discovery, DiscoveryEvent, EventsPhase};
use crate::capture::context::{Context, Timer};
use crate::capture::io::{Action, BodyOutcome, HttpAnswer};
use crate::model::docker;
use crate::model::docker::{ContainerEvent, EngineFault, EngineTrouble};
use crate::telemetry::docker_words;
use crate::telemetry::metrics::{Metrics, RequestResult};

/// The longest event line that is accepted. It contains the labels: a container can have 200,000 of them, 3 MB.
pub(super) const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// First pause before the Engine is asked again.
const UNREACHABLE_FIRST_MS: u64 = 200;
/// An event stream that lasted this long was healthy: when it ends, the pauses start over.
const WELL_AFTER_MS: u64 = 10_000;

impl Discovery {
    /// Connects, at first or again.
    pub fn start(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.events, EventsPhase::Waiting(_)) {
            return;
        }
        self.opens(cx);
    }

    fn unreachable(&mut self, error: EngineTrouble, cx: &mut Context<'_>) {
        let is_told = self.is_silent() && matches!(error.fault, EngineFault::Silent { .. });
        let is_other = std::mem::discriminant(&error.fault) != std::mem::discriminant(&self.last_error.fault);
        if (self.reachable || self.failures == 0 || is_other) && !is_told {
            let cure =
                docker_words::cure(error.fault, &cx.settings.container_monitor.socket_path.to_string_lossy());
            tracing::warn!(
                component = "docker",
                "Docker is not reachable: {}; {cure}; trying again",
                error.text
            );
        }
        self.is_away(error, cx);
        self.wait_before_opening(cx);
    }

    /// Longer each time, up to the interval in the config.
    pub(super) fn wait_before_opening(&mut self, cx: &mut Context<'_>) {
        self.failures += 1;
        let max = cx.settings.container_monitor.reconnect_interval.as_millis() as u64;
        let at = cx.now.mono_ms + cx.jitter.back_off(UNREACHABLE_FIRST_MS, self.failures, max);
        self.events = EventsPhase::Waiting(at);
        cx.timers.set_earlier(Timer::Discovery, at);
    }

    /// The events connection was opened, or could not be.
    pub fn on_opened(&mut self, result: HttpAnswer, cx: &mut Context<'_>) {
        let EventsPhase::Opening(conn) = self.events else { return };
        match result {
            Ok((200, _)) => {
                self.is_back(cx);
                self.forget_ping();
                self.opened_at_ms = cx.now.mono_ms;
                self.held.clear();
                self.searched = 0;
                self.skipping = false;
                self.events = EventsPhase::Open { conn, in_flight: false };
                // Nobody reported what happened meanwhile, and a list shows neither a new name nor that a container
                // ended and runs again. So all containers are inspected again.
                self.listed.values_mut().for_each(String::clear);
                self.read_on(cx);
                self.ask_list(cx);
            }
            Ok((status, body)) => {
                let text = format!("asked for events, {}", docker::refusal(status, &body));
                if is_refusal(status) {
                    self.without_events(EngineTrouble { fault: EngineFault::EventsRefused, text }, cx);
                } else {
                    self.unreachable(EngineTrouble::other(text), cx);
                }
            }
            Err(error) => self.unreachable(error.trouble(), cx),
        }
    }

    fn read_on(&mut self, cx: &mut Context<'_>) {
        if let EventsPhase::Open { conn, in_flight: false } = self.events {
            self.events = EventsPhase::Open { conn, in_flight: true };
            cx.act(Action::ReadConn { conn, buffer: std::mem::take(&mut self.held) });
        }
    }

    /// A read of the events connection ended.
    pub fn on_read(
        &mut self,
        outcome: BodyOutcome,
        buffer: Vec<u8>,
        cx: &mut Context<'_>,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        let EventsPhase::Open { conn, in_flight: true } = self.events else { return };
        self.events = EventsPhase::Open { conn, in_flight: false };
        match outcome {
            BodyOutcome::Bytes => {
                self.heard_event(cx);
                self.take_events(buffer, cx.metrics, told);
            }
            BodyOutcome::TimedOut => {
                self.searched = buffer.len();
                self.held = buffer;
                self.listen(cx);
            }
            BodyOutcome::End | BodyOutcome::Broken(_) => {
                if cx.now.mono_ms - self.opened_at_ms >= WELL_AFTER_MS {
                    self.failures = 0;
                }
                self.last_error = EngineTrouble::other("the Engine ended the event stream");
                self.events = EventsPhase::Closing(conn);
                cx.act(Action::CloseConn { conn });
                return;
            }
        }
        self.read_on(cx);
        self.ask_inspects(cx);
    }

    pub(super) fn take_events(
        &mut self,
        mut buffer: Vec<u8>,
        metrics: &Metrics,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        let (mut begin, mut search_from) = (0, std::mem::take(&mut self.searched));
        while let Some(len) = memchr::memchr(b'\n', &buffer[search_from..]) {
            let line = &buffer[begin..search_from + len];
            begin = search_from + len + 1;
            search_from = begin;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let event = serde_json::from_slice::<ContainerEvent>(line).ok();
            let Some(event) = event.filter(|event| docker::is_id(&event.actor.id)) else {
                // The next list makes up for it.
                metrics.docker_request(RequestResult::Invalid);
                tracing::warn!("Docker sent an event that can't be read; the next list makes up for it");
                continue;
            };
            let id = event.actor.id;
            if !self.known.contains(&id) || self.glimpses.is_seen(&id) {
                let facts =
                    || serde_json::from_slice::<docker::EventWithFacts>(line).unwrap_or_default().into();
                self.glimpses.see(&id, &event.action, facts);
            }
            if event.action == "destroy" {
                if self.glimpses.is_destroyed(&id) && self.is_inspected(&id) {
                    // The answer under way may be from before the removal.
                    continue;
                }
                self.forget(&id, told);
            } else {
                self.changed.insert(id);
            }
        }
        buffer.drain(..begin);
        if buffer.len() > EVENT_BYTES_MAX {
            if !self.skipping {
                metrics.docker_request(RequestResult::Invalid);
                tracing::warn!("Docker sent an event of over {EVENT_BYTES_MAX} bytes; it is skipped");
            }
            buffer = Vec::new();
            self.skipping = true;
        }
        self.searched = buffer.len();
        self.held = buffer;
    }

    /// The events connection is closed.
    pub fn on_closed(&mut self, cx: &mut Context<'_>) {
        if self.stopping {
            self.events = EventsPhase::Stopped;
        } else if matches!(self.events, EventsPhase::Closing(_)) {
            let error = std::mem::take(&mut self.last_error);
            self.unreachable(error, cx);
        }
    }
}
