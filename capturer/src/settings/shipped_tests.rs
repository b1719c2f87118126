//! The configs that are shipped name every key with its default.

use super::super::*;
use super::{NOTHING, good};

/// The repository's `configs/`.
pub(super) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The known keys, and the keys in a text.
fn keys(text: &str) -> (Vec<String>, Vec<String>) {
    let reader = Reader::new(&NOTHING);
    let (root, problems) = tree(text, &[]).unwrap_or_else(|problem| panic!("{problem:?}"));
    assert_eq!(problems, []);
    reader.root(&root, |section| read_settings(section, &mut Settings::default()));
    (reader.known().into_iter().collect(), reader.given().into_iter().collect())
}

/// Otherwise the shipped file would show wrong defaults, or lack a setting.
#[test]
fn config_yaml_shows_every_key_with_its_default() {
    let text = shipped("config.yaml");
    assert_eq!(good(&text), Settings::default());
    // The keys of a list's items are there as an example in comments: its lines begin with `#- ` and `#  `. What
    // excludes something else in the example is commented out twice.
    let example = text
        .replace("files: []", "files:")
        .replace("pipelines: []", "pipelines:")
        .replace("    #- ", "    - ")
        .replace("    #  ", "      ");
    let settings = good(&example);
    assert_eq!((settings.file_monitor.files.len(), settings.pipelines.len()), (1, 1));
    assert_eq!(settings.pipelines[0].steps.len(), 11, "one of each");
    let excluded = ["start", "continue"].map(|key| format!("pipelines[].multiline.{key}"));
    assert!(example.contains("#start: '") && example.contains("#continue: '"));
    let (mut known, given) = keys(&example);
    known.retain(|path| !excluded.contains(path));
    let any_item = regex::Regex::new(r"\[\d+\]").expect("good");
    let given = given.iter().map(|path| any_item.replace_all(path, "[]").into_owned());
    let mut given: Vec<String> = given.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    given.retain(|path| known.contains(path));
    assert_eq!(known, given);
}

#[test]
fn quickstart_yaml_is_good() {
    let text = shipped("quickstart.yaml");
    assert!(text.lines().count() < 30);
    let settings = good(&text);
    assert!(settings.container_monitor.enabled);
    assert!(settings.sinks.local_file.is_some());
}
