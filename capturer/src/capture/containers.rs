//! What discovery tells becomes streams: found, changed and gone containers. Not here: how they are found (discover/).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Capture, split_path};
use crate::clock::Now;
use crate::cursor::{ApiCursor, Cursor};
use crate::decode::timestamp;
use crate::discover;
use crate::docker::Inspect;
use crate::record::{ContainerMeta, Source, StreamId, StreamKey};
use crate::settings::{FileFormat, Pipeline, ReadFrom, Settings, StartAt, pipeline};
use crate::stream::Kind;
use crate::stream::api::ApiSource;
use crate::stream::chain::Start;
use crate::stream::file::FileSource;
use crate::stream::hold::LogPlace;

/// What an inspect tells that goes into a source.
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
        let wanted = pipeline.iter().flat_map(|pipeline| pipeline.container_labels());
        let pipeline_labels =
            wanted.filter_map(|key| Some((key.to_owned(), label(key)?.to_owned()))).collect();
        ContainerFacts { meta, pipeline, pipeline_labels }
    }
}

impl Capture {
    pub(super) fn on_discovered(&mut self, now: Now, told: discover::Told) {
        if self.stopping.is_some() {
            return;
        }
        match told {
            discover::Told::Container(inspect) => self.on_container(now, *inspect),
            discover::Told::Gone(id) => {
                for stream in self.ids_of(&StreamKey::container(&id)) {
                    self.with_stream(now, stream, |stream, cx| stream.gone("the container was removed", cx));
                }
            }
            discover::Told::Listed => {
                self.listed_once = true;
                self.forget_containers_that_went();
            }
        }
        let containers = self.ids.keys().filter(|key| key.0.starts_with("container:"));
        self.metrics.containers_monitored.set(containers.count() as i64);
    }

    /// Containers that were not listed: what was read of them is remembered, should they come back.
    fn forget_containers_that_went(&mut self) {
        let Some(discovery) = &self.discovery else { return };
        let gone: Vec<StreamKey> = self
            .tracker
            .streams()
            .filter(|key| key.0.strip_prefix("container:").is_some_and(|id| !discovery.is_listed(id)))
            .filter(|key| !self.ids.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.tracker.leave(&key);
        }
    }

    fn on_container(&mut self, now: Now, inspect: Inspect) {
        let key = StreamKey::container(&inspect.id);
        let running = inspect.state.running;
        let exited_at = timestamp::parse(inspect.state.finished_at.as_bytes());
        let known = self.ids_of(&key);
        for id in &known {
            self.rename_if_needed(*id, &inspect);
            // Before its first start it had no log.
            let place = log_place(&inspect);
            self.with_stream(now, *id, |stream, cx| {
                stream.set_files(place, cx);
                stream.set_running(running, exited_at, cx);
            });
        }
        for outlet in self.outlets_without(&key) {
            self.follow_container(now, &inspect, &key, outlet);
        }
    }

    fn follow_container(&mut self, now: Now, inspect: &Inspect, key: &StreamKey, outlet: usize) {
        let running = inspect.state.running;
        let exited_at = timestamp::parse(inspect.state.finished_at.as_bytes());
        let settings = Arc::clone(&self.settings);
        let monitor = &settings.container_monitor;
        let Some((from_file, reason)) = choose_kind(monitor.read_from, inspect) else { return };
        let id = self.next_stream_id();
        let facts = ContainerFacts::new(inspect, &settings);
        let source = Arc::new(Source {
            id,
            key: key.clone(),
            container: Some(facts.meta),
            path: None,
            labels: BTreeMap::new(),
            outlet: self.outlets[outlet].outlet,
            pipeline: facts.pipeline,
            pipeline_labels: facts.pipeline_labels,
        });
        let resume = self.tracker.resume_for(key, &self.outlets[outlet].tracked);
        let at_end = monitor.start_at == StartAt::End && !self.listed_once;
        let line_bytes_max = settings.line_bytes_max as usize;
        let api_cursor = match &resume {
            Some(Cursor::Api(cursor)) => Some(*cursor),
            Some(Cursor::File(cursor)) => Some(cursor.lines).filter(|lines| !lines.is_none()),
            None if at_end => Some(ApiCursor::after(now.unix_ns)),
            None | Some(Cursor::Beginning) => None,
        };
        let mut api =
            ApiSource::new(id, inspect.id.clone(), inspect.config.tty, running, api_cursor, line_bytes_max);
        api = api.with_pipeline(source.pipeline.as_ref());
        if let Some(place) = log_place(inspect) {
            api = api.with_files(place);
        }
        let acked = resume.clone().unwrap_or(Cursor::Beginning);
        let stream = if from_file {
            let start = match resume {
                Some(Cursor::File(cursor)) => Start::Resume(cursor),
                Some(Cursor::Api(cursor)) => Start::After(cursor),
                None if at_end => Start::End,
                None | Some(Cursor::Beginning) => Start::Oldest,
            };
            let (directory, live_name) = split_path(&inspect.log_path);
            let (places, reader) = self.known_of(key, outlet);
            let file = FileSource::new(id, directory, live_name, FileFormat::Docker, start, line_bytes_max)
                .with_pipeline(source.pipeline.as_ref())
                .with_memory(places, reader, Vec::new());
            let kind = Kind::File(Box::new(file));
            let stream = self.new_stream(now, source, kind, reason, acked);
            if monitor.read_from == ReadFrom::Auto {
                stream.with_fallback(api.prefers_files())
            } else {
                stream
            }
        } else {
            self.new_stream(now, source, Kind::Api(Box::new(api)), reason, acked)
        };
        self.add_stream(stream);
        self.with_stream(now, id, |stream, cx| stream.set_running(running, exited_at, cx));
    }

    fn rename_if_needed(&mut self, id: StreamId, inspect: &Inspect) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let facts = ContainerFacts::new(inspect, &self.settings);
        if let Some(attaching) = self.attaching.get_mut(&id) {
            attaching.renamed = Some(facts);
            return;
        }
        if stream.source.container.as_ref() != Some(&facts.meta) {
            self.rename(id, facts);
        }
    }

    pub(super) fn rename(&mut self, id: StreamId, facts: ContainerFacts) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let old = &stream.source;
        let source = Arc::new(Source {
            id,
            key: old.key.clone(),
            container: Some(facts.meta),
            path: old.path.clone(),
            labels: old.labels.clone(),
            outlet: old.outlet,
            pipeline: facts.pipeline,
            pipeline_labels: facts.pipeline_labels,
        });
        stream.replace_source(Arc::clone(&source));
        self.attach(source, Some(Cursor::Beginning));
    }
}

/// From its file, or over the API, and why; `None` = not at all.
fn choose_kind(read_from: ReadFrom, inspect: &Inspect) -> Option<(bool, String)> {
    let driver = inspect.host_config.log_config.driver.as_str();
    let has_file = driver == "json-file" && !inspect.log_path.is_empty();
    match read_from {
        ReadFrom::Api if driver == "none" => None,
        ReadFrom::Api => Some((false, "read_from is api".to_owned())),
        ReadFrom::File | ReadFrom::Auto if has_file => {
            Some((true, format!("driver json-file, its log is {}", inspect.log_path)))
        }
        // Never started: the log is made at its first start, which is an event.
        ReadFrom::File | ReadFrom::Auto if driver == "json-file" => None,
        ReadFrom::Auto if driver != "none" => Some((false, format!("driver {driver} has no json-file"))),
        ReadFrom::File | ReadFrom::Auto => {
            tracing::warn!(container = %inspect.id, driver, "its logging driver leaves nothing that can be read; not captured");
            None
        }
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
