//! The Engine's answers to a list, an inspect or a ping, and when to ask again.

use std::collections::{BTreeMap, BTreeSet};

use super::selection::{facts_of, is_selected, plain_name};
use super::{Discovery, DiscoveryEvent, EventsPhase, Question, absence};
use crate::capture::context::{Context, Timer};
use crate::capture::io::{Action, HttpAnswer, RequestError, RequestId};
use crate::model::docker;
use crate::model::docker::{Inspect, ListRow, ListRowWithFacts};
use crate::telemetry::metrics::RequestResult;

/// First pause before the list is requested again after an unusable answer; doubles up to the interval of lists.
const LIST_AGAIN_FIRST_MS: u64 = 1_000;
/// How long to wait before a silent Engine is asked again.
const PING_PAUSE_MS: u64 = 1_000;

/// Why an answer could not be used.
enum Odd {
    /// There was none, or an error status: counted already.
    Failed(String),
    /// It is not what the API promises.
    Invalid(String),
}

impl Odd {
    fn counted(self, cx: &Context<'_>) -> String {
        match self {
            Odd::Failed(text) => text,
            Odd::Invalid(text) => {
                cx.metrics.docker_request(RequestResult::Invalid);
                format!("Docker's answer can't be read: {text}")
            }
        }
    }
}

fn body_of<T: serde::de::DeserializeOwned>(result: &HttpAnswer) -> Result<T, Odd> {
    match result {
        Ok((200, body)) => serde_json::from_slice(body).map_err(|error| Odd::Invalid(error.to_string())),
        Ok((status, body)) => Err(Odd::Failed(docker::refusal(*status, body))),
        Err(error) => Err(Odd::Failed(error.to_string())),
    }
}

fn request_result(result: &HttpAnswer) -> RequestResult {
    match result {
        Ok((200..=299, _)) => RequestResult::Ok,
        Ok((404, _)) => RequestResult::NotFound,
        Ok(_) => RequestResult::Refused,
        Err(RequestError::NoAnswer { .. }) => RequestResult::TimedOut,
        Err(RequestError::TooLarge { .. }) => RequestResult::Invalid,
        Err(RequestError::Connect { .. } | RequestError::Broken { .. }) => RequestResult::Unreachable,
    }
}

/// Whether inspect calls a container of this listed state running.
fn runs(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}

impl Discovery {
    pub(super) fn ask_list(&mut self, cx: &mut Context<'_>) {
        self.list_at_ms = cx.now.mono_ms + self.list_every_ms(cx);
        cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
        if !self.questions.values().any(|question| *question == Question::List) {
            self.found_since.clear();
            self.ask(Question::List, docker::LIST.to_owned(), cx);
        }
    }

    /// Requests as many inspects as may be under way at once.
    pub(super) fn ask_inspects(&mut self, cx: &mut Context<'_>) {
        if !self.may_ask() {
            return;
        }
        while self.questions.len() < cx.settings.container_monitor.max_concurrent.max(1) {
            // One at a time per container. The answer may be older than the last event; then another inspect follows.
            let Some(id) = self.changed.iter().find(|id| !self.is_inspected(id)).cloned() else { return };
            self.changed.remove(&id);
            self.ask(Question::Inspect(id.clone()), docker::inspect(&id), cx);
        }
    }

    pub(super) fn ask(&mut self, question: Question, path: String, cx: &mut Context<'_>) {
        let request = cx.new_request();
        self.questions.insert(request, question);
        cx.act(Action::Get { request, path });
    }

    /// A request ended.
    pub fn on_answer(
        &mut self,
        request: RequestId,
        result: HttpAnswer,
        cx: &mut Context<'_>,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        let Some(question) = self.questions.remove(&request) else { return };
        cx.metrics.docker_request(request_result(&result));
        if result.is_ok() {
            self.heard(question == Question::List, cx);
        }
        match (question, result) {
            (Question::Ping, result) if matches!(self.events, EventsPhase::Open { .. }) => {
                self.on_ping(result, cx)
            }
            (Question::Ping | Question::Outdated, _) => {}
            (Question::List, result) => match body_of::<Vec<ListRow>>(&result) {
                Ok(rows) => {
                    // The list is parsed again only if it names containers that nobody knows.
                    let facts = || body_of(&result).unwrap_or_default();
                    self.on_list(rows, facts, cx.now.mono_ms, told);
                }
                Err(error) => self.on_odd_list(error, cx),
            },
            (Question::Inspect(id), Ok((404, body))) if docker::is_no_such_container(&body) => {
                self.on_not_found(&id, cx, told);
            }
            (Question::Inspect(id), result) => match body_of::<Inspect>(&result) {
                Ok(inspect) if inspect.id == id => self.on_inspect(inspect, cx, told),
                Ok(_) => self.on_odd_inspect(id, Odd::Invalid("it is of another container".to_owned()), cx),
                Err(error) => self.on_odd_inspect(id, error, cx),
            },
        }
        self.ask_inspects(cx);
    }

    fn on_ping(&mut self, result: HttpAnswer, cx: &mut Context<'_>) {
        self.hearing.pinged_ms = None;
        // Whatever the status, somebody answers.
        let Err(error) = result else { return self.listen(cx) };
        self.does_not_answer(error, cx);
        // It is asked again while the event stream is open. When that ends, `unreachable` takes over.
        cx.timers.set_earlier(Timer::Discovery, cx.now.mono_ms + PING_PAUSE_MS);
    }

    pub(super) fn on_list(
        &mut self,
        rows: Vec<ListRow>,
        facts: impl FnOnce() -> Vec<ListRowWithFacts>,
        now_ms: u64,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        self.list_error.clear();
        self.names.on_list(now_ms);
        if !std::mem::take(&mut self.odd_since_list) {
            self.odd_rounds = 0;
        }
        let (mut listed, mut unseen) = (BTreeMap::new(), BTreeSet::new());
        for row in rows.into_iter().filter(|row| docker::is_id(&row.id)) {
            if self.listed.get(&row.id) != Some(&row.state) {
                self.changed.insert(row.id.clone());
                if !self.known.contains(&row.id) && row.state != "created" {
                    unseen.insert(row.id.clone());
                }
            }
            self.absence.listed(&row.id);
            listed.insert(row.id, row.state);
        }
        let is_missing = |id: &&String| !listed.contains_key(*id) && !self.found_since.contains(*id);
        let missing: Vec<String> = self.known.iter().filter(is_missing).cloned().collect();
        for id in missing {
            if self.absence.not_listed(&id, now_ms) {
                self.forget(&id, told);
            } else {
                self.changed.insert(id);
            }
        }
        self.uninspected.retain(|id| listed.contains_key(id));
        // Containers that events named before the list are new.
        self.at_first
            .get_or_insert_with(|| listed.keys().filter(|id| !self.glimpses.is_seen(id)).cloned().collect());
        self.listed = listed;
        if !unseen.is_empty() {
            let rows = facts().into_iter().filter(|row| unseen.contains(&row.id));
            rows.for_each(|row| self.glimpses.list(&row.id.clone(), row.into()));
        }
        told.push(DiscoveryEvent::Listed);
    }

    fn on_inspect(&mut self, inspect: Inspect, cx: &Context<'_>, told: &mut Vec<DiscoveryEvent>) {
        let was_destroyed = self.glimpses.is_destroyed(&inspect.id);
        if inspect.has_run() {
            self.glimpses.looked_at(&inspect.id);
        } else {
            self.glimpses.has_not_run(&inspect.id, || facts_of(&inspect));
        }
        self.uninspected.remove(&inspect.id);
        self.absence.found(&inspect.id);
        // It changed since the list. The next list must not find it unchanged, because events can be lost.
        let ran = self.listed.get(&inspect.id).map(|state| runs(state));
        if ran.is_some_and(|ran| ran != inspect.state.running) {
            self.listed.insert(inspect.id.clone(), String::new());
        }
        let monitor = &cx.settings.container_monitor;
        let labels = inspect.config.labels.as_ref();
        self.names.see(&monitor.select, plain_name(&inspect.name), &inspect.config.image, labels);
        let id = inspect.id.clone();
        if is_selected(&monitor.select, &inspect) && !self.is_left_out(&inspect, monitor.include_self) {
            if self.known.insert(id.clone()) {
                self.found_since.insert(id.clone());
            }
            if inspect.is_running() {
                self.running.insert(id.clone());
            } else {
                self.running.remove(&id);
            }
            let was_there = self.at_first.as_ref().is_some_and(|first| first.contains(&id));
            told.push(DiscoveryEvent::Container { inspect: Box::new(inspect), was_there });
        } else if self.known.remove(&id) {
            self.running.remove(&id);
            told.push(DiscoveryEvent::Deselected(id.clone()));
        }
        if was_destroyed {
            self.forget(&id, told);
        }
    }

    fn on_not_found(&mut self, id: &str, cx: &mut Context<'_>, told: &mut Vec<DiscoveryEvent>) {
        if self.glimpses.is_destroyed(id) || self.absence.not_found(id, cx.now.mono_ms) {
            self.forget(id, told);
        } else {
            cx.timers.set_earlier(Timer::Discovery, cx.now.mono_ms + absence::INSPECTS_APART_MS);
        }
    }

    fn on_odd_list(&mut self, odd: Odd, cx: &mut Context<'_>) {
        let error = format!("can't get the list of containers: {}", odd.counted(cx));
        // The health of `docker` has it as long as it lasts. Of an Engine that does not answer all that is said already.
        if self.list_error != error && self.reachable {
            tracing::warn!("{error}; trying again");
        }
        self.list_error = error;
        self.list_again(cx);
    }

    fn on_odd_inspect(&mut self, id: String, odd: Odd, cx: &mut Context<'_>) {
        self.inspect_error = format!("container {}: {}", &id[..12], odd.counted(cx));
        if self.reachable {
            tracing::warn!("inspecting {}; trying again", self.inspect_error);
        } else {
            tracing::debug!("inspecting {}; trying again", self.inspect_error);
        }
        // While it exists, the next list names it again, and then as changed.
        self.listed.remove(&id);
        self.uninspected.insert(id);
        self.list_again(cx);
    }

    /// Soon at first, then less and less often: an answer that is wrong now is usually wrong later.
    fn list_again(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.odd_since_list, true) {
            self.odd_rounds += 1;
        }
        let max = self.list_every_ms(cx);
        let at = cx.now.mono_ms + cx.jitter.back_off(LIST_AGAIN_FIRST_MS, self.odd_rounds, max);
        self.list_at_ms = self.list_at_ms.min(at);
        cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
    }

    fn is_left_out(&mut self, inspect: &Inspect, include_self: bool) -> bool {
        let is_left_out = !include_self && self.own.is(inspect);
        if is_left_out && !std::mem::replace(&mut self.own_told, true) {
            tracing::info!(
                container = plain_name(&inspect.name),
                "the agent runs in this container and leaves it out; container_monitor.include_self: true captures it too"
            );
        }
        is_left_out
    }
}
