//! Turns what discovery reports into streams: containers found, changed and gone. Not here: how they are found (discover/).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outlets::OutletState;
use super::{Capture, split_path};
use crate::capture::discover;
use crate::capture::stream::api::ApiSource;
use crate::capture::stream::chain::Start;
use crate::capture::stream::file::FileSource;
use crate::capture::stream::rotation_guard::LogPlace;
use crate::capture::stream::{Kind, State};
use crate::decode::timestamp;
use crate::model::clock::Now;
use crate::model::cursor::{ApiCursor, Cursor};
use crate::model::docker::Inspect;
use crate::model::record::{ContainerMeta, Continued, Source, StreamId, StreamKey};
use crate::settings::{FileFormat, Pipeline, ReadFrom, Settings, StartAt, pipeline};
use crate::telemetry::metrics::LossReason;

/// The facts of an inspection that a source needs.
#[derive(Debug)]
pub(super) struct ContainerFacts {
    pub(super) meta: ContainerMeta,
    pipeline: Option<Arc<Pipeline>>,
    pipeline_labels: BTreeMap<String, String>,
}

impl ContainerFacts {
    fn new(inspect: &Inspect, settings: &Settings) -> ContainerFacts {
        let meta = container_meta(inspect, &settings.container_monitor.record_labels);
        let labels = inspect.config.labels.as_ref();
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        let pipeline = pipeline::for_container(&settings.pipelines, &meta.name, &meta.image, label);
        let is_shown = inspect.config.tty && settings.container_monitor.tty.strip_ansi;
        let pipeline = if is_shown { Some(pipeline::as_on_terminal(pipeline)) } else { pipeline };
        let wanted = pipeline.iter().flat_map(|pipeline| pipeline.container_labels());
        let pipeline_labels =
            wanted.filter_map(|key| Some((key.to_owned(), label(key)?.to_owned()))).collect();
        ContainerFacts { meta, pipeline, pipeline_labels }
    }
}

impl Capture {
    pub(super) fn on_discovered(&mut self, now: Now, told: discover::DiscoveryEvent) {
        if self.stopping.is_some() {
            return;
        }
        match told {
            discover::DiscoveryEvent::Container { inspect, was_there } => {
                self.on_container(now, *inspect, was_there)
            }
            discover::DiscoveryEvent::Gone(id) => self.on_container_gone(now, &StreamKey::container(&id)),
            discover::DiscoveryEvent::Deselected(id) => {
                let key = StreamKey::container(&id);
                self.no_logs.forget(&key);
                for stream in self.ids_of(&key) {
                    self.with_stream(now, stream, |stream, cx| stream.leave("the config leaves it out", cx));
                }
                // If it is renamed and captured again, it resumes from here.
                self.deselected.insert(key);
            }
            discover::DiscoveryEvent::Missed(missed) => self.on_missed(now, &missed),
            discover::DiscoveryEvent::Listed => {
                self.listed_once = true;
                self.doubt_unlisted(now);
            }
        }
    }

    fn on_container_gone(&mut self, now: Now, key: &StreamKey) {
        self.deselected.remove(key);
        self.no_logs.forget(key);
        let was_unlisted = self.unlisted.remove(key);
        let streams = self.ids_of(key);
        if streams.is_empty() && self.tracker.knows(key) {
            if was_unlisted {
                self.note_removed_unseen(now, key);
            }
            self.tracker.leave(key);
            self.plan_save(now);
        }
        for stream in streams {
            self.with_stream(now, stream, |stream, cx| stream.gone("the container was removed", cx));
        }
    }

    /// Containers that no list names may have been removed while the agent did not run. Their positions are dropped
    /// once that is known.
    fn doubt_unlisted(&mut self, now: Now) {
        let Some(discovery) = &self.discovery else { return };
        let unlisted: Vec<String> = self
            .tracker
            .streams()
            .filter(|key| !self.ids.contains_key(*key))
            .filter_map(|key| key.0.strip_prefix("container:"))
            .filter(|id| !discovery.is_listed(id))
            .map(str::to_owned)
            .collect();
        self.unlisted.extend(unlisted.iter().map(|id| StreamKey::container(id)));
        self.with_discovery(now, |discovery, cx, _| discovery.doubt(unlisted.into_iter(), cx));
    }

    /// The container was followed when the last run ended, and was removed before this run saw it, with everything it
    /// had printed in between.
    fn note_removed_unseen(&mut self, now: Now, key: &StreamKey) {
        let source =
            format!("container {}", key.0.trim_start_matches("container:").get(..12).unwrap_or_default());
        let mut is_known = false;
        for outlet in 0..self.outlets.len() {
            let OutletState { tracked, names, .. } = &self.outlets[outlet];
            let Some(Cursor::File(cursor)) = self.tracker.resume_for(key, tracked) else { continue };
            let bytes = cursor.len.saturating_sub(cursor.offset);
            if bytes > 0 {
                is_known = true;
                let sinks = names.join(", ");
                self.metrics.lost(LossReason::ContainerGoneUnread, bytes);
                self.note_losses(now, &source, &sinks, false);
            }
        }
        if !is_known {
            self.metrics.possibly_lost(LossReason::ContainerGoneUnread);
            let sinks = self.sinks.join(", ");
            self.note_losses(now, &source, &sinks, false);
            tracing::debug!(
                "{source} was removed while the agent did not run; what it printed since may be lost"
            );
        }
    }

    /// A stream has ended. If its container was selected again meanwhile, it gets a new one.
    pub(super) fn take_up_again(&mut self, now: Now, key: &StreamKey) {
        let Some(id) = key.0.strip_prefix("container:").map(str::to_owned) else { return };
        if self.stopping.is_none() {
            self.with_discovery(now, |discovery, cx, _| discovery.inspect_if_known(id, cx));
        }
    }

    fn on_missed(&mut self, now: Now, missed: &discover::Missed) {
        if !discover::would_select(&self.settings.container_monitor.select, missed) {
            return;
        }
        let (id, name) = (&missed.id[..12], &missed.facts.name);
        let key = StreamKey::container(&missed.id);
        let known = self.ids_of(&key);
        if !known.is_empty() {
            // It was inspected before it ran. When its stream ends, it is known whether its log was opened since.
            known.into_iter().for_each(|id| self.note_ran(now, id, false, Some(now.unix_ns), None));
            return;
        }
        if missed.ran_before {
            let monitor = &self.settings.container_monitor;
            if monitor.start_at == StartAt::Beginning || self.tracker.knows(&key) {
                self.metrics.possibly_lost(LossReason::ContainerGoneUnread);
                let sinks = self.sinks.join(", ");
                self.note_losses(now, &format!("container {name}"), &sinks, false);
                tracing::debug!(
                    container = id,
                    name,
                    "removed before it could be looked at; what it printed may be lost"
                );
            }
            return;
        }
        tracing::debug!(container = id, name, "removed before it could be looked at");
        let sinks = self.sinks.join(", ");
        self.metrics.lost(LossReason::ContainerGoneUnread, 0);
        let source = format!("container {name}");
        self.note_losses(now, &source, &sinks, false);
    }

    fn on_container(&mut self, now: Now, inspect: Inspect, was_there: bool) {
        let key = StreamKey::container(&inspect.id);
        self.deselected.remove(&key);
        self.unlisted.remove(&key);
        let running = inspect.is_running();
        let exited_at = timestamp::parse(inspect.state.finished_at.as_bytes());
        let known = self.ids_of(&key);
        for id in &known {
            self.rename_if_needed(*id, &inspect);
            // Before its first start it had no log.
            let place = log_place(&inspect);
            self.note_ran(now, *id, running, exited_at, place);
        }
        let name = discover::plain_name(&inspect.name);
        self.leave_old_log(now, &key, &inspect, name);
        if !self.no_logs.see(self.settings.container_monitor.read_from, &inspect, name) {
            return;
        }
        for outlet in self.outlets_without(&key) {
            self.follow_container(now, &inspect, &key, was_there, outlet);
        }
    }

    fn note_ran(
        &mut self,
        now: Now,
        id: StreamId,
        running: bool,
        exited_at: Option<i64>,
        place: Option<LogPlace>,
    ) {
        let mut ran_unread = false;
        self.with_stream(now, id, |stream, cx| {
            let had_run = stream.has_run();
            stream.set_files(place, cx);
            stream.set_running(running, exited_at, cx);
            let is_api = matches!(stream.kind, Kind::Api(_));
            ran_unread = is_api && !had_run && stream.has_run() && stream.state() != State::Following;
        });
        if ran_unread {
            // What was opened was the empty log of before.
            self.opened.remove(&id);
        }
    }

    fn follow_container(
        &mut self,
        now: Now,
        inspect: &Inspect,
        key: &StreamKey,
        was_there: bool,
        outlet: usize,
    ) {
        let running = inspect.is_running();
        let exited_at = timestamp::parse(inspect.state.finished_at.as_bytes());
        let settings = Arc::clone(&self.settings);
        let monitor = &settings.container_monitor;
        let Some((from_file, reason)) = choose_kind(monitor.read_from, inspect) else { return };
        let id = self.next_stream_id();
        let facts = ContainerFacts::new(inspect, &settings);
        // It may have been renamed since a crash.
        let output = self.tracker.loaded(key, &self.outlets[outlet].tracked).and_then(|(_, output)| output);
        let continues: Vec<Continued> = output
            .map(|output| Continued { path: None, output: Some(Arc::clone(output)) })
            .into_iter()
            .collect();
        let source = Arc::new(Source {
            container: Some(Box::new(facts.meta)),
            continues: continues.into(),
            outlet: self.outlets[outlet].outlet,
            pipeline: facts.pipeline,
            pipeline_labels: facts.pipeline_labels.into(),
            ..Source::new(id, key.clone())
        });
        let resume = self.tracker.resume_for(key, &self.outlets[outlet].tracked);
        let is_new = timestamp::parse(inspect.created.as_bytes())
            .and_then(|made_ns| self.tracker.unseen_since_ns(made_ns))
            .is_some();
        let at_end = monitor.start_at == StartAt::End && was_there && !is_new;
        let line_bytes_max = settings.line_bytes_max as usize;
        let api_cursor = match &resume {
            Some(Cursor::Api(cursor)) => Some(**cursor),
            Some(Cursor::File(cursor)) => Some(*cursor.lines).filter(|lines| !lines.is_none()),
            None if at_end => Some(ApiCursor::after(now.unix_ns)),
            None | Some(Cursor::Beginning) => None,
        };
        let mut api =
            ApiSource::new(id, inspect.id.clone(), inspect.config.tty, running, api_cursor, line_bytes_max);
        let strips_cr = inspect.config.tty && !monitor.tty.keep_cr;
        api = api.with_pipeline(source.pipeline.as_ref()).strip_cr(strips_cr);
        api = api.with_rotation(inspect.host_config.log_config.rotates_at());
        if let Some(place) = log_place(inspect) {
            api = api.with_files(place);
        }
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let stream = if from_file {
            let start = match resume {
                Some(Cursor::File(cursor)) => Start::Resume(cursor),
                Some(Cursor::Api(cursor)) => Start::After(*cursor),
                None if at_end => Start::End,
                None | Some(Cursor::Beginning) => Start::Oldest,
            };
            let (directory, live_name) = split_path(&inspect.log_path);
            let (places, reader) = self.known_of(key, outlet);
            let file = FileSource::new(id, directory, live_name, FileFormat::Docker, start, line_bytes_max)
                .with_pipeline(source.pipeline.as_ref())
                .strip_cr(strips_cr)
                .with_memory(places, reader, Vec::new());
            let kind = Kind::File(Box::new(file));
            let stream = self.new_stream(now, source, kind, reason.into(), acked);
            if monitor.read_from == ReadFrom::Auto {
                stream.with_fallback(api.prefers_files())
            } else {
                stream
            }
        } else {
            self.new_stream(now, source, Kind::Api(Box::new(api)), reason.into(), acked)
        };
        self.add_stream(stream);
        self.log_facts.made(id, inspect);
        self.with_stream(now, id, |stream, cx| stream.set_running(running, exited_at, cx));
    }

    fn rename_if_needed(&mut self, id: StreamId, inspect: &Inspect) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let facts = ContainerFacts::new(inspect, &self.settings);
        if let Some(attaching) = self.attaching.get_mut(&id) {
            attaching.renamed = Some(Box::new(facts));
            return;
        }
        if stream.source.container.as_deref() != Some(&facts.meta) {
            self.rename(id, facts);
        }
    }

    pub(super) fn rename(&mut self, id: StreamId, facts: ContainerFacts) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let old = &stream.source;
        let source = Arc::new(Source {
            container: Some(Box::new(facts.meta)),
            pipeline: facts.pipeline,
            pipeline_labels: facts.pipeline_labels.into(),
            ..Source::clone(old)
        });
        stream.replace_source(Arc::clone(&source));
        self.note_pipeline(&source);
        self.attach(source, Some(Cursor::Beginning));
    }
}

/// Whether to read from its file or over the API, and why; `None` = not at all.
fn choose_kind(read_from: ReadFrom, inspect: &Inspect) -> Option<(bool, String)> {
    let driver = inspect.host_config.log_config.driver.as_str();
    let has_file = driver == "json-file" && !inspect.log_path.is_empty();
    match read_from {
        ReadFrom::Api => Some((false, "read_from is api".to_owned())),
        ReadFrom::File | ReadFrom::Auto if has_file => {
            Some((true, format!("driver json-file, its log is {}", inspect.log_path)))
        }
        // Never started: the log is made at its first start, which is an event.
        ReadFrom::File | ReadFrom::Auto if driver == "json-file" => None,
        ReadFrom::Auto => Some((false, format!("driver {driver} has no json-file"))),
        // Reported before: see `no_log.rs`.
        ReadFrom::File => None,
    }
}

/// Where its json-file is, if it has one.
fn log_place(inspect: &Inspect) -> Option<LogPlace> {
    if inspect.host_config.log_config.driver != "json-file" || inspect.log_path.is_empty() {
        return None;
    }
    let (directory, live_name) = split_path(&inspect.log_path);
    Some(LogPlace { directory, live_name })
}

fn container_meta(inspect: &Inspect, record_labels: &[String]) -> ContainerMeta {
    let labels = inspect.config.labels.as_ref();
    let chosen = record_labels.iter().filter_map(|key| {
        labels.and_then(|labels| labels.get(key)).map(|value| (key.clone(), value.clone()))
    });
    ContainerMeta {
        id: inspect.id.clone(),
        name: discover::plain_name(&inspect.name).to_owned(),
        image: inspect.config.image.clone(),
        labels: chosen.collect(),
    }
}
