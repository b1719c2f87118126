//! Names of output files: the config's template and what a container calls itself become a path that can't leave
//! the directory.
//!
//! ```text
//! "{image}/{container_name}.ndjson" ── "nginx:1.27", "web-1" ─▶ "nginx_1.27~8f3a61c09b/web-1.ndjson"
//! ```
//! A value keeps letters, digits, `_`, `-` and `.`; anything else becomes `_`. So that two values that become equal do
//! not share a file, a changed value gets `~` and a hash of the original. `~` is not in the alphabet, so nobody can
//! choose a name equal to another's changed name.
//!
//! There is no `{stream}` placeholder: one file for both channels keeps their order, and each record says its channel.

use crate::limits::{FILE_NAME_BYTES_MAX, FILE_NAME_VALUE_BYTES_MAX};
use crate::model::record::Source;
use crate::settings::{FileTemplate, NamePart};

/// The path of a source's output, relative to the directory.
pub fn render(template: &FileTemplate, source: &Source) -> String {
    let components: Vec<String> = template.components().map(|parts| component(parts, source)).collect();
    components.join("/")
}

fn component(parts: &[NamePart], source: &Source) -> String {
    let mut name = String::new();
    for part in parts {
        match part {
            NamePart::Literal(literal) => name.push_str(literal),
            NamePart::ContainerName => name.push_str(&container_name(source)),
            NamePart::ContainerId => name.push_str(&container_id(source)),
            NamePart::Image => name.push_str(&image(source)),
            NamePart::Label(key) => name.push_str(&label(source, key)),
            NamePart::Path => name.push_str(&followed_path(source).unwrap_or_else(|| container_name(source))),
        }
    }
    // Several placeholders may be too long together. A value can't consist of dots alone, see `safe`.
    if name.len() > FILE_NAME_BYTES_MAX {
        let end = name.floor_char_boundary(FILE_NAME_BYTES_MAX - SUFFIX_BYTES);
        let suffix = suffix(&name);
        name.truncate(end);
        name.push_str(&suffix);
    }
    name
}

/// Falls back to what best names the source: its ID, its path, its key.
fn container_name(source: &Source) -> String {
    match &source.container {
        Some(container) if !container.name.is_empty() => safe(&container.name),
        _ => container_id(source),
    }
}

fn container_id(source: &Source) -> String {
    match &source.container {
        Some(container) if !container.id.is_empty() => safe(&container.id),
        _ => followed_path(source).unwrap_or_else(|| safe(&source.key.0)),
    }
}

fn image(source: &Source) -> String {
    match &source.container {
        Some(container) if !container.image.is_empty() => safe(&container.image),
        _ => "no-image".to_owned(),
    }
}

/// A label that goes into records; those of the config's `record_labels` and of a file_monitor entry.
fn label(source: &Source, key: &str) -> String {
    let of_container = source.container.as_ref().and_then(|container| container.labels.get(key));
    match of_container.or_else(|| source.labels.get(key)).filter(|value| !value.is_empty()) {
        Some(value) => safe(value),
        None => "no-label".to_owned(),
    }
}

/// The last part of a followed path, and always a hash of all of it: many directories have an `error.log`.
fn followed_path(source: &Source) -> Option<String> {
    let path = source.path.as_deref().filter(|path| !path.is_empty())?;
    let last = path.rsplit('/').next().unwrap_or_default();
    Some(with_suffix(&alphabet(last), path))
}

/// A value as part of a file name: at most [`FILE_NAME_VALUE_BYTES_MAX`] bytes of the alphabet, never empty, and beginning
/// neither with a dot (hidden, `..`) nor with a dash (an option to whoever handles the file).
fn safe(value: &str) -> String {
    let name = alphabet(value);
    if name == value && name.len() <= FILE_NAME_VALUE_BYTES_MAX && !name.is_empty() {
        name
    } else {
        with_suffix(&name, value)
    }
}

fn alphabet(value: &str) -> String {
    let mut name: String = value
        .chars()
        // More is cut anyway; a name may have 60,000 bytes.
        .take(FILE_NAME_VALUE_BYTES_MAX + 1)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' })
        .collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    name
}

const SUFFIX_BYTES: usize = 11;

fn with_suffix(name: &str, value: &str) -> String {
    let end = name.len().min(FILE_NAME_VALUE_BYTES_MAX - SUFFIX_BYTES);
    format!("{}{}", &name[..end], suffix(value))
}

/// `~` and 40 bits of FNV-1a, which is stable across versions and machines, unlike the standard library's hash. It
/// separates names that differ by accident; somebody who forges a collision only writes records, which name him, to
/// another's file.
fn suffix(value: &str) -> String {
    let hash = value
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("~{:010x}", (hash ^ (hash >> 40)) & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::testing::{Rng, container, followed};
    use super::*;
    use crate::model::record::{ContainerMeta, StreamId, StreamKey};

    fn check(template: &str, source: &Arc<Source>, expected: &str) {
        assert_eq!(render(&FileTemplate::parse(template).unwrap(), source), expected);
    }

    #[test]
    fn names_as_a_user_expects_them() {
        let web = container(1, "web-1");
        check("{container_name}.ndjson", &web, "web-1.ndjson");
        check("all.ndjson", &web, "all.ndjson");
        check("{container_id}/{container_name}", &web, &format!("{:064x}/web-1", 1));
        check("{image}.log", &web, &format!("nginx_1.27{}.log", suffix("nginx:1.27")));
        check("{path}.ndjson", &web, "web-1.ndjson");
        let log = followed(2, "/var/log/app/error.log");
        let named = format!("error.log{}", suffix("/var/log/app/error.log"));
        check("{container_name}.ndjson", &log, &format!("{named}.ndjson"));
        check("{container_id}-{path}", &log, &format!("{named}-{named}"));
        check("{image}", &log, "no-image");
        check("{label:team}/x", &web, "no-label/x");
        let mut labelled = Arc::try_unwrap(container(1, "web")).expect("the only one");
        labelled.labels.insert("team".to_owned(), "../shop".to_owned());
        check("{label:team}", &Arc::new(labelled), &format!("_._shop{}", suffix("../shop")));
        check("{container_name}", &container(7, ""), &format!("{:064x}", 7));
        // The file's name is a promise: a new version of the program must continue the same file.
        assert_eq!(suffix("nginx:1.27").len(), SUFFIX_BYTES);
        assert_eq!(suffix(""), "~e484e9d1b9");
    }

    /// Without this a container could write beside or above the directory, or into a neighbour's file.
    #[test]
    fn no_name_leaves_the_directory_or_meets_another() {
        let mut rng = Rng::from_env();
        let templates = [
            "{container_name}.ndjson",
            "{container_name}",
            "..{container_name}",
            "{image}{path}/{container_id}",
        ];
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut values: Vec<String> =
            ["..", ".", "../x", ".hidden", "-rf", "a/b", "a:b", "a_b", "", "/", "\0"]
                .map(str::to_owned)
                .to_vec();
        values.push("x".repeat(60_000));
        values.push(format!("{}y", "x".repeat(59_999)));
        values.push(safe("a/b"));
        values.extend((0..500).map(|_| rng.text(400)));
        for value in &values {
            let source = Source {
                container: Some(Box::new(ContainerMeta {
                    id: value.clone(),
                    name: value.clone(),
                    image: value.clone(),
                    labels: BTreeMap::new(),
                })),
                path: Some(value.as_str().into()),
                ..Source::new(StreamId(1), StreamKey::container("x"))
            };
            for template in templates {
                let path = render(&FileTemplate::parse(template).unwrap(), &source);
                for part in path.split('/') {
                    assert!(!matches!(part, "" | "." | "..") && part.len() <= FILE_NAME_BYTES_MAX, "{path}");
                    assert!(
                        part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.~".contains(&b)),
                        "{path}"
                    );
                    assert!(template.starts_with('.') || !part.starts_with(['.', '-']), "{path}");
                }
            }
            if let Some(other) = seen.insert(safe(value), value.clone()) {
                assert_eq!(&other, value, "two values, one file name {}", safe(value));
            }
        }
    }
}
