//! Which containers the config selects: include and exclude lists of names, images and labels.

use std::collections::BTreeMap;

use super::glimpses::Missed;
use crate::model::docker::{EventFacts, Inspect};
use crate::settings::Select;

/// Whether a container that was missed would have been captured.
pub fn would_select(select: &Select, missed: &Missed) -> bool {
    let facts = &missed.facts;
    selects(select, &facts.name, &facts.image, Some(&facts.labels))
}

pub(super) fn is_selected(select: &Select, inspect: &Inspect) -> bool {
    let labels = inspect.config.labels.as_ref();
    selects(select, plain_name(&inspect.name), &inspect.config.image, labels)
}

fn selects(select: &Select, name: &str, image: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let any = |patterns: &[glob::Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
    let included = (select.include_names.is_empty() || any(&select.include_names, name))
        && (select.include_images.is_empty() || any(&select.include_images, image))
        && select
            .include_labels
            .iter()
            .all(|(key, value)| label(key).is_some_and(|text| value.matches(text)));
    let excluded = any(&select.exclude_names, name)
        || any(&select.exclude_images, image)
        || select
            .exclude_labels
            .iter()
            .any(|(key, value)| label(key).is_some_and(|text| value.matches(text)));
    included && !excluded
}

/// Docker's name without its slash.
pub fn plain_name(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

pub(super) fn facts_of(inspect: &Inspect) -> EventFacts {
    EventFacts {
        name: plain_name(&inspect.name).to_owned(),
        image: inspect.config.image.clone(),
        labels: inspect.config.labels.clone().unwrap_or_default(),
    }
}
