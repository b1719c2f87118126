//! Fuzz entry of output file names: see [`crate::fuzz`]. A name is made, never read back.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::file_name;
use crate::limits::{FILE_NAME_BYTES_MAX, FILE_NAME_VALUE_BYTES_MAX};
use crate::model::record::{ContainerMeta, Source, StreamId, StreamKey};
use crate::settings::FileTemplate;

/// The config's template in the first line, the container's names after it.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, value) = text.split_once('\n').unwrap_or(("{container_name}", &text));
    let source = source(value);
    if let Ok(template) = FileTemplate::parse(template) {
        is_confined(&file_name::render(&template, &source));
    }
    let render =
        |template: &str| file_name::render(&FileTemplate::parse(template).expect("a template"), &source);
    for template in ["{container_name}", "{container_id}.ndjson", "{image}{path}", "..{path}/{image}"] {
        let path = render(template);
        is_confined(&path);
        assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.~".contains(&byte)), "{path}");
    }
    let name = render("{container_name}");
    assert!(!name.starts_with(['.', '-']), "{name}");
    // 6: a name of the alphabet is kept, any other gets a mark that the alphabet does not have.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_kept = (1..=FILE_NAME_VALUE_BYTES_MAX).contains(&value.len())
        && value.chars().all(is_plain)
        && !value.starts_with(['.', '-']);
    assert_eq!(name == value, is_kept, "{name} from {value:?}");
    assert_eq!(name.contains('~'), !is_kept, "{name} from {value:?}");
}

/// Each part is a valid name, and none leads out of the directory.
fn is_confined(path: &str) {
    for part in path.split('/') {
        assert!(!matches!(part, "" | "." | ".."), "{path:?}");
        assert!(part.len() <= FILE_NAME_BYTES_MAX && !part.contains('\0'), "{path:?}");
    }
    assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
}

fn source(value: &str) -> Source {
    Source {
        container: Some(Box::new(ContainerMeta {
            id: value.to_owned(),
            name: value.to_owned(),
            image: value.to_owned(),
            labels: BTreeMap::new(),
        })),
        path: Some(value.into()),
        ..Source::new(StreamId(1), StreamKey::container("x"))
    }
}
