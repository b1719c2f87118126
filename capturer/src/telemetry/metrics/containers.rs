//! Series of rotations by container: an open set, so it is bounded.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{Metrics, OTHER, cap};

/// Which containers have series of their own: id → the name its series carries.
pub(super) struct ContainerSeries {
    pub(super) containers_max: usize,
    pub(super) names: BTreeMap<String, String>,
}

impl Metrics {
    /// A container's stream was rotated.
    pub fn rotation(&self, container_id: &str, container_name: &str) {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        let id = cap(container_id);
        let name = cap(container_name);
        match containers.names.get(id) {
            Some(known) if known == name => {}
            Some(old) => {
                // A renamed container keeps its count under the new name, and its old series is removed.
                let count =
                    self.container_stream_rotations_total.with_label_values(&[id, old.as_str()]).get();
                let _ = self.container_stream_rotations_total.remove_label_values(&[id, old.as_str()]);
                self.container_stream_rotations_total.with_label_values(&[id, name]).inc_by(count);
                containers.names.insert(id.to_owned(), name.to_owned());
            }
            None if containers.names.len() < containers.containers_max => {
                containers.names.insert(id.to_owned(), name.to_owned());
            }
            None => {
                self.container_stream_rotations_total.with_label_values(&[OTHER, OTHER]).inc();
                return;
            }
        }
        self.container_stream_rotations_total.with_label_values(&[id, name]).inc();
    }

    /// Removes the series of all other containers.
    pub fn retain_containers(&self, is_there: impl Fn(&str) -> bool) {
        let known: Vec<String> = {
            let containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
            containers.names.keys().cloned().collect()
        };
        known.iter().filter(|id| !is_there(id)).for_each(|id| self.forget_container(id));
    }

    /// A container is gone: removes its series.
    pub fn forget_container(&self, container_id: &str) {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        let id = cap(container_id);
        if let Some(name) = containers.names.remove(id) {
            let _ = self.container_stream_rotations_total.remove_label_values(&[id, name.as_str()]);
        }
    }
}
