//! Labels of the record. Values taken from lines could be any number, and each costs an index such as Loki's a stream.
//! So there is a bound, and one value that stands for all beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::label_of;
use super::line::Line;
use crate::limits::FIELD_LABEL_BYTES_MAX;
use crate::model::fields::Labels as Set;
use crate::model::record::Source;
use crate::settings::pipeline::Labels;

/// Values seen so far in one stream.
#[derive(Debug, Default)]
pub(super) struct LabelValues {
    /// By label; at most `values_max` of at most [`FIELD_LABEL_BYTES_MAX`] each.
    seen: BTreeMap<String, BTreeSet<String>>,
    /// Labels of the last line, because those of the next are mostly the same.
    last: Option<Arc<Set>>,
}

/// The effect on a line.
#[derive(Debug, Default)]
pub(super) struct LabelsOutcome {
    pub(super) changed: bool,
    /// A value was replaced by the one that stands for all beyond the bound.
    pub(super) limited: bool,
}

impl LabelValues {
    pub(super) fn apply(&mut self, settings: &Labels, source: &Source, line: &mut Line) -> LabelsOutcome {
        let mut told = LabelsOutcome::default();
        let mut labels = line.extra.labels.as_deref().cloned().unwrap_or_default();
        for (label, value) in &settings.set {
            labels.insert(label.clone(), value.clone());
        }
        for (label, key) in &settings.from_container_labels {
            if let Some(value) = source.pipeline_labels.get(key) {
                labels.insert(label.clone(), value.clone());
            }
        }
        for (label, field) in &settings.from_fields {
            let Some(value) = label_of(line, field).filter(|value| !value.is_empty()) else { continue };
            let value = self.bounded(settings, label, value).unwrap_or_else(|| {
                told.limited = true;
                settings.overflow.clone()
            });
            labels.insert(label.clone(), value);
        }
        if labels.is_empty() {
            return told;
        }
        told.changed = true;
        let last = self.last.take().filter(|last| **last == labels);
        let labels = last.unwrap_or_else(|| Arc::new(labels));
        self.last = Some(Arc::clone(&labels));
        line.extra.labels = Some(labels);
        told
    }

    /// `None` = the value is too long, or one too many.
    fn bounded(&mut self, settings: &Labels, label: &str, value: String) -> Option<String> {
        if value.len() > FIELD_LABEL_BYTES_MAX {
            return None;
        }
        let seen = match self.seen.get_mut(label) {
            Some(seen) => seen,
            None => self.seen.entry(label.to_owned()).or_default(),
        };
        if !seen.contains(&value) {
            if seen.len() >= settings.values_max {
                return None;
            }
            seen.insert(value.clone());
        }
        Some(value)
    }
}
