//! What is wrong with a sink, joined from the reports of its threads. Health has one sentence for a sink, and its
//! metric one number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{HealthState, Status};

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

/// What is wrong with a part.
struct Wrong {
    text: String,
    faults: Vec<Fault>,
    outputs: usize,
}

/// What is wrong with one sink, by who reports it.
pub(super) struct Troubles {
    component: String,
    sink: String,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    parts: Mutex<BTreeMap<Part, Wrong>>,
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

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, Wrong>> {
        // A panic leaves no value half written.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is wrong with a part and how many of its outputs take nothing; `None` = nothing is wrong any more.
    pub(super) fn set(&self, part: Part, wrong: Option<(String, Vec<Fault>)>, outputs: usize) {
        let mut parts = self.parts();
        match wrong {
            Some((text, faults)) => drop(parts.insert(part, Wrong { text, faults, outputs })),
            None => drop(parts.remove(&part)),
        }
        self.show(&parts, "works again");
    }

    /// Sets how many outputs of a part are blocked, and leaves what is wrong with it.
    pub(super) fn set_outputs(&self, part: Part, outputs: usize) {
        let mut parts = self.parts();
        if let Some(wrong) = parts.get_mut(&part) {
            wrong.outputs = outputs;
        }
        self.count(&parts);
    }

    /// The caller is healthy. Health says so unless another part is not.
    pub(super) fn say_well(&self, message: &str) {
        self.show(&self.parts(), message);
    }

    fn show(&self, parts: &BTreeMap<Part, Wrong>, well: &str) {
        let texts: Vec<&str> = parts.values().map(|wrong| wrong.text.as_str()).collect();
        let (state, message) = match texts.is_empty() {
            true => (HealthState::Well, well.to_owned()),
            false => (HealthState::Bad, texts.join(". ")),
        };
        let faults: Vec<Fault> = parts.values().flat_map(|wrong| wrong.faults.iter().copied()).collect();
        self.status.set_faults(&self.component, state, &faults, message);
        self.count(parts);
    }

    fn count(&self, parts: &BTreeMap<Part, Wrong>) {
        let outputs: usize = parts.values().map(|wrong| wrong.outputs).sum();
        self.metrics.outputs_blocked.with_label_values(&[self.sink.as_str()]).set(outputs as i64);
    }
}
