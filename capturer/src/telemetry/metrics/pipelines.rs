//! Series of pipelines: by sink, pipeline and step, as the config has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::Collector as _;
use prometheus::proto::Metric;

use super::Metrics;
use crate::model::outcome;
use crate::model::outcome::Outcome;
use crate::settings::Pipeline;
use crate::settings::pipeline::{Over, Step};

impl Metrics {
    /// Creates the series of a sink's pipelines at zero.
    pub fn expect_pipelines(&self, sink: &str, pipelines: &[Arc<Pipeline>]) {
        for pipeline in pipelines {
            self.pipeline_lines_in_total.with_label_values(&[sink, pipeline.name.as_str()]);
            let rate = pipeline.rate_limit.is_some_and(|limit| limit.over == Over::Drop);
            let steps = pipeline.steps.iter().map(Step::kind).chain(rate.then_some(outcome::RATE_LIMIT));
            for step in steps {
                for outcome in Outcome::possible(step) {
                    let labels = [sink, pipeline.name.as_str(), step, outcome.as_str()];
                    self.pipeline_lines_total.with_label_values(&labels);
                }
            }
        }
    }

    /// Drops the series of sinks and pipelines that no longer exist.
    pub fn keep_pipelines(&self, sinks: &[&str], pipelines: &[Arc<Pipeline>]) {
        for metric in self.pipeline_lines_in_total.collect().iter().flat_map(|family| family.get_metric()) {
            let [pipeline, sink] = ["pipeline", "sink"].map(|name| label_of(metric, name));
            if !sinks.contains(&sink) || pipelines.iter().all(|there| there.name != pipeline) {
                let _ = self.pipeline_lines_in_total.remove_label_values(&[sink, pipeline]);
            }
        }
        let series = self.pipeline_lines_total.collect();
        for metric in series.iter().flat_map(|family| family.get_metric()) {
            let label = |name| label_of(metric, name);
            let [sink, pipeline, step, outcome] = ["sink", "pipeline", "step", "outcome"].map(label);
            let there = pipelines.iter().find(|there| there.name == pipeline);
            let has_step = there.is_some_and(|there| {
                let steps = there.steps.iter().map(Step::kind);
                steps.chain(there.rate_limit.map(|_| outcome::RATE_LIMIT)).any(|kind| kind == step)
            });
            if !sinks.contains(&sink) || !has_step {
                let _ = self.pipeline_lines_total.remove_label_values(&[sink, pipeline, step, outcome]);
            }
        }
    }

    /// For each pipeline, how many lines it got and what its steps did to them, for the sink for which it dropped most.
    pub fn pipeline_drops(&self) -> BTreeMap<String, Drops> {
        let mut by_sink: BTreeMap<(String, String), Drops> = BTreeMap::new();
        let key =
            |metric: &Metric| (label_of(metric, "pipeline").to_owned(), label_of(metric, "sink").to_owned());
        for metric in self.pipeline_lines_in_total.collect().iter().flat_map(|family| family.get_metric()) {
            by_sink.entry(key(metric)).or_default().came += metric.get_counter().get_value() as u64;
        }
        for metric in self.pipeline_lines_total.collect().iter().flat_map(|family| family.get_metric()) {
            let lines = metric.get_counter().get_value() as u64;
            if lines == 0 {
                continue;
            }
            let (step, outcome) = (label_of(metric, "step"), label_of(metric, "outcome"));
            let drops = by_sink.entry(key(metric)).or_default();
            if outcome == Outcome::Dropped.as_str() {
                drops.dropped += lines;
                *drops.by_step.entry(step.to_owned()).or_default() += lines;
            } else if outcome == Outcome::Failed.as_str() {
                drops.work.entry(step.to_owned()).or_default().failed += lines;
            } else if outcome != Outcome::Mended.as_str() {
                // A mended line is counted as changed as well.
                drops.work.entry(step.to_owned()).or_default().done += lines;
            }
        }
        let mut drops: BTreeMap<String, Drops> = BTreeMap::new();
        for ((pipeline, _), of_sink) in by_sink {
            let most = drops.entry(pipeline).or_default();
            if (of_sink.dropped, of_sink.came) > (most.dropped, most.came) {
                *most = of_sink;
            }
        }
        drops
    }
}

/// How many lines a pipeline got, and what it dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Lines that came to it.
    pub came: u64,
    /// How many of them a step dropped.
    pub dropped: u64,
    /// Dropped lines by kind of step.
    pub by_step: BTreeMap<String, u64>,
    /// What the other steps did, by kind of step.
    pub work: BTreeMap<String, Work>,
}

/// Lines on which steps of one kind could do their work, and could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// A step changed them, or one of its bounds applied.
    pub done: u64,
    /// A step could do nothing with them, and they went on as they were.
    pub failed: u64,
}

impl Work {
    /// All lines that such a step looked at.
    pub fn lines(self) -> u64 {
        self.done + self.failed
    }
}

fn label_of<'m>(metric: &'m Metric, name: &str) -> &'m str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}
