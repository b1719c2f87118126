//! What is wrong with a sink, joined from the reports of its threads. Health has one sentence for a sink, and its
//! metric one number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;

/// Which thread reports, and about what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The sink's own thread, about itself.
    Own,
    /// A lane, about its own outputs.
    Lane(u64),
    /// The sink's own thread, about a lane that hangs and so can't report.
    Hung(u64),
}

/// What is wrong with one sink, by who reports it.
pub(super) struct Troubles {
    component: String,
    sink: String,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    parts: Mutex<BTreeMap<Part, (String, usize)>>,
}

impl Troubles {
    pub(super) fn new(
        component: String,
        sink: &str,
        status: &Arc<Status>,
        metrics: &Arc<Metrics>,
    ) -> Troubles {
        Troubles {
            component,
            sink: sink.to_owned(),
            status: Arc::clone(status),
            metrics: Arc::clone(metrics),
            parts: Mutex::default(),
        }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, (String, usize)>> {
        // A panic leaves no value half written.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is wrong with a part and how many of its outputs take nothing; `None` = nothing is wrong any more.
    pub(super) fn set(&self, part: Part, text: Option<String>, outputs: usize) {
        let mut parts = self.parts();
        match text {
            Some(text) => drop(parts.insert(part, (text, outputs))),
            None => drop(parts.remove(&part)),
        }
        self.show(&parts, "works again");
    }

    /// Sets how many outputs of a part are blocked, and leaves what is wrong with it.
    pub(super) fn set_outputs(&self, part: Part, outputs: usize) {
        let mut parts = self.parts();
        if let Some((_, of_part)) = parts.get_mut(&part) {
            *of_part = outputs;
        }
        self.count(&parts);
    }

    /// The caller is healthy. Health says so unless another part is not.
    pub(super) fn say_well(&self, message: &str) {
        self.show(&self.parts(), message);
    }

    fn show(&self, parts: &BTreeMap<Part, (String, usize)>, well: &str) {
        let texts: Vec<&str> = parts.values().map(|(text, _)| text.as_str()).collect();
        let message = if texts.is_empty() { well.to_owned() } else { texts.join(". ") };
        self.status.set_health(&self.component, texts.is_empty(), message);
        self.count(parts);
    }

    fn count(&self, parts: &BTreeMap<Part, (String, usize)>) {
        let outputs: usize = parts.values().map(|(_, outputs)| outputs).sum();
        self.metrics.outputs_blocked.with_label_values(&[self.sink.as_str()]).set(outputs as i64);
    }
}
