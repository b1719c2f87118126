//! Pipelines on a sink's thread: the clock they need, and the counting of what they did.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::outcome::Tally;
use crate::model::record::{Amount, Batch, StreamId};
use crate::pipeline::{Pipelines, Processed};
use crate::telemetry::metrics::Metrics;

/// The pipelines of one sink.
pub(super) struct Steps {
    sink: String,
    pipelines: Pipelines,
    metrics: Arc<Metrics>,
}

impl Steps {
    pub(super) fn new(sink: &str, metrics: Arc<Metrics>) -> Steps {
        Steps { sink: sink.to_owned(), pipelines: Pipelines::default(), metrics }
    }

    /// Runs a batch through the pipeline of its source; `None` = it has none, and nothing was done.
    pub(super) fn run(&mut self, batch: &Arc<Batch>) -> Option<Processed> {
        batch.source.pipeline.as_ref()?;
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        self.pipelines.process(batch, now_ns)
    }

    /// Counts what happened to a delivered batch. Returns how much of it was delivered, if the pipeline changed it.
    pub(super) fn count(&self, batch: &Batch, processed: Processed) -> Option<Amount> {
        if let Some(pipeline) = &batch.source.pipeline {
            let came = self.metrics.pipeline_lines_in_total.with_label_values(&[&self.sink, &pipeline.name]);
            came.inc_by(batch.records.len() as u64);
            self.add(&pipeline.name, &processed.tally);
        }
        processed.batch.as_ref().map(Amount::of)
    }

    /// The stream is over.
    pub(super) fn detach(&mut self, stream: StreamId) {
        if let Some((pipeline, tally)) = self.pipelines.detach(stream) {
            self.add(&pipeline.name, &tally);
        }
    }

    fn add(&self, pipeline: &str, tally: &Tally) {
        for ((step, outcome), lines) in tally {
            let labels = [self.sink.as_str(), pipeline, step, outcome.as_str()];
            self.metrics.pipeline_lines_total.with_label_values(&labels).inc_by(*lines);
        }
    }
}
