//! Series of pipelines: by sink, pipeline and step, as the config has them.

use std::sync::Arc;

use prometheus::core::Collector as _;

use super::Metrics;
use crate::pipeline::{self, Outcome};
use crate::settings::Pipeline;
use crate::settings::pipeline::{Over, Step};

impl Metrics {
    /// Creates the series of the pipelines of a sink at zero.
    pub fn expect_pipelines(&self, sink: &str, pipelines: &[Arc<Pipeline>]) {
        for pipeline in pipelines {
            let rate = pipeline.rate_limit.is_some_and(|limit| limit.over == Over::Drop);
            let steps = pipeline.steps.iter().map(Step::kind).chain(rate.then_some(pipeline::RATE_LIMIT));
            for step in steps {
                for outcome in Outcome::possible(step) {
                    let labels = [sink, pipeline.name.as_str(), step, outcome.as_str()];
                    self.pipeline_lines_total.with_label_values(&labels);
                }
            }
        }
    }

    /// Drops the series of sinks and pipelines that are no more.
    pub fn keep_pipelines(&self, sinks: &[&str], pipelines: &[Arc<Pipeline>]) {
        let series = self.pipeline_lines_total.collect();
        for metric in series.iter().flat_map(|family| family.get_metric()) {
            let label = |name| {
                metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
            };
            let [sink, pipeline, step, outcome] = ["sink", "pipeline", "step", "outcome"].map(label);
            let there = pipelines.iter().find(|there| there.name == pipeline);
            let has_step = there.is_some_and(|there| {
                let steps = there.steps.iter().map(Step::kind);
                steps.chain(there.rate_limit.map(|_| pipeline::RATE_LIMIT)).any(|kind| kind == step)
            });
            if !sinks.contains(&sink) || !has_step {
                let _ = self.pipeline_lines_total.remove_label_values(&[sink, pipeline, step, outcome]);
            }
        }
    }
}
