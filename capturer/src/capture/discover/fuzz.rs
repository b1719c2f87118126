//! Fuzz entry for what the Engine says of containers (event lines, list, inspect, errors): see [`crate::fuzz`].

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::events::EVENT_BYTES_MAX;
use super::selection::{is_selected, plain_name};
use super::{Discovery, DiscoveryEvent};
use crate::fuzz::splits;
use crate::model::docker;
use crate::model::docker::{Inspect, ListRow};
use crate::settings::Select;
use crate::telemetry::metrics::Metrics;

/// Containers that the fuzzed input can name in a few bytes: [`with_ids`] puts them in for `@1` and `@2`.
const IDS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
];

/// Bytes in place of the Engine's answers.
pub fn check(bytes: &[u8]) {
    let bytes = &with_ids(bytes)[..];
    events(bytes);
    let refusal = docker::refusal(500, bytes);
    assert!(refusal.chars().count() <= "the Engine answered 500: ".len() + 300, "{refusal}");
    list(bytes);
    inspect(bytes);
}

fn with_ids(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'@', rest) {
        out.extend_from_slice(&rest[..at]);
        let id = match rest.get(at + 1) {
            Some(b'1') => IDS[0],
            Some(b'2') => IDS[1],
            _ => "@",
        };
        out.extend_from_slice(id.as_bytes());
        rest = &rest[(at + if id == "@" { 1 } else { 2 })..];
    }
    out.extend_from_slice(rest);
    out
}

/// Nobody reads these counts.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new(0).expect("the names are distinct"));

/// Changed containers, removed containers, and the bytes held of an incomplete event.
type Heard = (BTreeSet<String>, Vec<String>, Vec<u8>);

fn hear(bytes: &[u8], ends: &[usize]) -> Heard {
    let mut discovery = Discovery::new();
    discovery.known.extend(IDS.map(str::to_owned));
    let (mut at, mut told) = (0, Vec::new());
    for &end in ends {
        let mut buffer = std::mem::take(&mut discovery.held);
        buffer.extend_from_slice(&bytes[at..end]);
        discovery.take_events(buffer, &METRICS, &mut told);
        assert!(discovery.held.len() <= EVENT_BYTES_MAX && !discovery.held.contains(&b'\n'));
        at = end;
    }
    let gone = told.into_iter().filter_map(|told| match told {
        DiscoveryEvent::Gone(id) => Some(id),
        DiscoveryEvent::Missed(missed) => {
            assert!(docker::is_id(&missed.id));
            None
        }
        other => panic!("an event tells {other:?}"),
    });
    let gone = gone.collect();
    (discovery.changed, gone, discovery.held)
}

fn events(bytes: &[u8]) {
    let whole = hear(bytes, &[bytes.len()]);
    for ends in splits(bytes) {
        assert_eq!(hear(bytes, &ends), whole, "parts that end at {ends:?}");
    }
    assert!(bytes.ends_with(&whole.2));
    assert!(whole.0.iter().chain(&whole.1).all(|id| docker::is_id(id)));
    // 6: what a plain reading of each line finds is found. (With a duplicate key it takes the last value, and it
    // refuses deep nesting; the decoder refuses the former and skips the latter.)
    let mut destroyed = BTreeSet::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
        if event["Action"] == "destroy" && event["Actor"]["ID"].is_string() {
            destroyed.insert(event["Actor"]["ID"].as_str().unwrap_or_default().to_owned());
        }
    }
    let written_twice = String::from_utf8_lossy(bytes);
    if IDS.iter().all(|id| written_twice.matches(id).count() < 2) && whole.2.is_empty() {
        let once = |key: &str| written_twice.matches(key).count() < 2;
        for id in IDS.iter().filter(|id| destroyed.contains(**id) && once("Action") && once("Actor")) {
            assert!(whole.1.iter().any(|gone| gone == id), "{written_twice}");
        }
    }
    // 2: an event is recognized, whatever came before it.
    let text = String::from_utf8_lossy(bytes);
    let event = json!({"Action": "start", "Actor": {"ID": IDS[0], "Attributes": {"name": text}}});
    let stream = [bytes, b"\n", event.to_string().as_bytes(), b"\n"].concat();
    let (changed, _, held) = hear(&stream, &[bytes.len(), stream.len()]);
    assert!(changed.contains(IDS[0]) && held.is_empty(), "{}", stream.escape_ascii());
}

fn list(bytes: &[u8]) {
    if let Ok(rows) = serde_json::from_slice::<Vec<ListRow>>(bytes) {
        let mut discovery = Discovery::new();
        let mut told = Vec::new();
        let ids: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
        discovery.on_list(rows, Vec::new, 0, &mut told);
        assert!(matches!(told[..], [DiscoveryEvent::Listed]));
        assert!(ids.iter().all(|id| discovery.is_listed(id) == docker::is_id(id)));
    }
    let rows = json!([{"Id": IDS[0], "State": String::from_utf8_lossy(bytes)}]);
    let rows: Vec<ListRow> = serde_json::from_value(rows).expect("a list");
    assert_eq!((&*rows[0].id, &*rows[0].state), (IDS[0], &*String::from_utf8_lossy(bytes)));
}

fn inspect(bytes: &[u8]) {
    if let Ok(inspect) = serde_json::from_slice::<Inspect>(bytes) {
        assert!(is_selected(&Select::default(), &inspect), "nothing is asked for, so all is wanted");
        assert!(plain_name(&inspect.name).len() + 1 >= inspect.name.len());
    }
    let text = String::from_utf8_lossy(bytes);
    let inspect = json!({
        "Id": IDS[1], "Name": format!("/{text}"), "Config": {"Labels": {&*text: text}, "Tty": true},
    });
    let inspect: Inspect = serde_json::from_value(inspect).expect("an inspect answer");
    assert_eq!((plain_name(&inspect.name), inspect.config.tty), (&*text, true));
    assert_eq!(inspect.config.labels.expect("labels").into_iter().next().expect("one").1, text);
}
