//! Batches of any shape: what Loki would read is what the records say.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::testing::{Rng, TIME, batch, container, followed, push};
use super::super::push::{EntryAdapter, PushRequest, read_label_text};
use super::*;

fn chunks(config: &Loki, batch: &Batch) -> (Vec<Chunk>, Counts) {
    let mut gathered = Gathered::default();
    let counts = encode(config, &SourceHead::new(config, &batch.source, "box"), batch, &mut gathered);
    (all(gathered), counts)
}

fn all(mut gathered: Gathered) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = std::iter::from_fn(|| gathered.pop()).collect();
    assert_eq!(gathered.bytes(), 0);
    // Label sets come in any order, the chunks of each in theirs.
    chunks.sort_by(|one, other| one.labels.cmp(&other.labels));
    chunks
}

fn requests(chunks: &[Chunk]) -> Vec<PushRequest> {
    let request = |chunk: &Chunk| {
        let body = [chunk.head(), chunk.entries.clone()].concat();
        let request = PushRequest::decode(body.as_slice()).unwrap();
        // What reads requests without decoding them knows prost's way of writing them only.
        assert_eq!(request.encode_to_vec(), body);
        request
    };
    chunks.iter().map(request).collect()
}

/// An independent statement of what a record becomes: label set, time, text.
fn expected(batch: &Batch, record: &Record) -> (StdType, String) {
    let message = batch.message(record);
    let text = match record.form {
        MessageForm::Raw => String::from_utf8_lossy(message).into_owned(),
        MessageForm::JsonEscaped => {
            let quoted = [b"\"", message, b"\""].concat();
            serde_json::from_slice(&quoted).unwrap()
        }
    };
    (record.std_type, text)
}

/// Property: over batches of any bytes, forms, channels and sizes the requests hold the records, in order per channel,
/// within the bounds of a request.
#[test]
fn requests_hold_the_records() {
    let mut rng = Rng::from_env();
    for _ in 0..200 {
        let config = Loki {
            batch_bytes: 1024 + rng.below(8000) as u64,
            batch_lines: 1 + rng.below(30),
            ..Loki::default()
        };
        let source =
            if rng.below(2) == 0 { container(1, &rng.text(60)) } else { followed(2, "/var/log/a.log") };
        let mut all = batch(&source, &[]);
        for _ in 0..rng.below(60) {
            if rng.below(2) == 0 {
                push(&mut all, &rng.bytes(400), MessageForm::Raw);
            } else {
                let json = serde_json::to_string(&rng.text(400)).unwrap();
                push(&mut all, &json.as_bytes()[1..json.len() - 1], MessageForm::JsonEscaped);
            }
            let record = all.records.last_mut().unwrap();
            record.std_type = StdType::ALL[rng.below(2)];
            record.time_len = if rng.below(3) == 0 { 0 } else { record.time_len };
        }
        let (chunks, counts) = chunks(&config, &all);
        assert_eq!(counts.records as usize, all.records.len());
        let mut found: BTreeMap<StdType, Vec<(String, i64)>> = BTreeMap::new();
        for (chunk, request) in chunks.iter().zip(requests(&chunks)) {
            let [stream] = &request.streams[..] else { panic!("one label set a chunk") };
            assert_eq!(chunk.lines as usize, stream.entries.len());
            assert!(stream.entries.len() <= config.batch_lines);
            let bytes: usize = stream.entries.iter().map(prost::Message::encoded_len).sum();
            assert!(stream.entries.len() == 1 || bytes as u64 <= config.batch_bytes);
            let labels: BTreeMap<String, String> =
                read_label_text(&stream.labels).unwrap().into_iter().collect();
            let std_type = *StdType::ALL.iter().find(|one| one.as_str() == labels["stream"]).unwrap();
            assert_eq!(labels["job"], "capturer");
            let lines = found.entry(std_type).or_default();
            for entry in &stream.entries {
                lines.push((entry.line.clone(), entry.timestamp.unwrap().to_ns()));
            }
        }
        for std_type in StdType::ALL {
            let lines = found.remove(&std_type).unwrap_or_default();
            let expected: Vec<String> = all
                .records
                .iter()
                .map(|record| expected(&all, record))
                .filter(|(of, _)| *of == std_type)
                .map(|(_, text)| text)
                .collect();
            assert_eq!(
                lines.iter().map(|(text, _)| text).collect::<Vec<_>>(),
                expected.iter().collect::<Vec<_>>()
            );
            assert!(lines.iter().all(|(_, time)| {
                let near =
                    |text: &str| (0..100).contains(&(time - timestamp::parse(text.as_bytes()).unwrap()));
                near(TIME) || near(&all.read_time)
            }));
        }
    }
}

/// Loki drops a line that equals another in time and text, so equal lines of one moment would become one.
#[test]
fn lines_of_one_moment_get_times_of_their_own() {
    let all = batch(&container(1, "web"), &[b"same", b"same", b"other"]);
    let request = requests(&chunks(&Loki::default(), &all).0).remove(0);
    let first = timestamp::parse(TIME.as_bytes()).unwrap();
    let times: Vec<i64> =
        request.streams[0].entries.iter().map(|entry| entry.timestamp.unwrap().to_ns()).collect();
    assert_eq!(times, [first, first + 1, first + 2]);
}

/// Of a log with times to the second each read is a batch, and a label set has several sources.
#[test]
fn lines_of_one_moment_keep_apart_over_batches_and_sources() {
    let config = Loki { labels: Default::default(), ..Loki::default() };
    let mut gathered = Gathered::default();
    let mut given = std::collections::BTreeSet::new();
    for number in 0..20 {
        let all = batch(&container(1 + number % 2, "web"), &[b"same", b"same"]);
        encode(&config, &SourceHead::new(&config, &all.source, "box"), &all, &mut gathered);
        // Half of them are sent in between.
        let chunk = if number % 2 == 0 { None } else { gathered.pop() };
        for request in requests(chunk.as_slice()) {
            let entries = &request.streams[0].entries;
            given.extend(entries.iter().map(|entry| entry.timestamp.unwrap().to_ns()));
        }
    }
    let first = timestamp::parse(TIME.as_bytes()).unwrap();
    assert_eq!(given.into_iter().collect::<Vec<_>>(), (first..first + 40).collect::<Vec<_>>());
}

#[test]
fn what_is_unknown_has_no_label() {
    let labels =
        |source: &Arc<Source>| requests(&chunks(&Loki::default(), &batch(source, &[b"x"])).0)[0].clone();
    let of_container = labels(&container(7, "web"));
    assert!(of_container.streams[0].labels.contains(r#"container_name="web", "#));
    assert!(!of_container.streams[0].labels.contains("path"));
    let names: Vec<&str> = of_container.streams[0].entries[0]
        .structured_metadata
        .iter()
        .map(|pair| pair.name.as_str())
        .collect();
    assert_eq!(names, ["container_id", "image"]);
    let of_file = labels(&followed(8, "/var/log/a.log"));
    assert_eq!(
        of_file.streams[0].labels,
        r#"{host="box", job="capturer", path="/var/log/a.log", stream="stdout"}"#
    );
    assert!(of_file.streams[0].entries[0].structured_metadata.is_empty());
}

/// Loki's limits, whatever a container's owner chose.
#[test]
fn values_and_lines_stay_within_lokis_limits() {
    let config = Loki { line_bytes_max: 100, ..Loki::default() };
    let all = batch(&container(1, &"€\"".repeat(20_000)), &["é".repeat(80).as_bytes(), b"short"]);
    let (chunks, counts) = chunks(&config, &all);
    let request = requests(&chunks).remove(0);
    let labels = read_label_text(&request.streams[0].labels).unwrap();
    assert!(labels.iter().all(|(_, value)| value.len() <= LOKI_LABEL_VALUE_BYTES));
    assert!(labels.iter().any(|(_, value)| value.ends_with('…')));
    let [long, short] = &request.streams[0].entries[..] else { panic!("two lines") };
    assert_eq!((long.line.as_str(), counts.truncated), ("é".repeat(50).as_str(), 1));
    let marked = |entry: &EntryAdapter| entry.structured_metadata.iter().any(|pair| pair.name == TRUNCATED);
    assert!(marked(long) && !marked(short));
    // One that takes no metadata would refuse the mark, and the line with it, for ever.
    let without = Loki { structured_metadata: Default::default(), ..config };
    let request = requests(&self::chunks(&without, &all).0).remove(0);
    assert!(request.streams[0].entries.iter().all(|entry| entry.structured_metadata.is_empty()));
}

#[test]
fn numbers_are_equal_for_equal_label_sets_only() {
    let label_set =
        |id: u32, name: &str| chunks(&Loki::default(), &batch(&container(id, name), &[b"x"])).0[0].label_set;
    assert_eq!(label_set(1, "web"), label_set(2, "web"), "a container made anew goes on in its label set");
    assert_ne!(label_set(1, "web"), label_set(1, "db"));
}

/// Lines whose labels a pipeline set are label sets of their own, each in one order, also where the pipeline sets what
/// the line has anyway. Fields become metadata under names that Loki takes.
#[test]
fn labels_and_fields_of_a_pipeline() {
    use crate::model::fields::{Changes, Failed, Fields, Value};
    let source = container(1, "web");
    let original = Arc::new(batch(&source, &[b"0", b"1", b"2", b"3", b"4"]));
    let labels = |level: &str| Some(Arc::new(Labels::from([("job".to_owned(), level.to_owned())])));
    let mut fields = Fields::default();
    let set = [
        ("http.status", "500"),
        ("http-status", "404"),
        ("http_status_2", "x"),
        ("1st", "x"),
        ("image", "forged"),
        ("compose_service", "forged"),
        ("failed", "no"),
        ("truncated", "no"),
        ("é", "1"),
        ("ü", "2"),
        ("empty", ""),
    ];
    for (name, value) in set {
        assert!(fields.set(name, Value::Text(value)));
    }
    let mut extras = vec![Extra::default(); 5];
    extras[1] = Extra { labels: labels("error"), fields, repeated: 2, failed: Failed::PARSE };
    extras[2].labels = labels("capturer");
    extras[3].labels = labels("error");
    let mut made = batch(&source, &[]);
    (made.records, made.read) = (original.records.clone(), Vec::new());
    made.changes = Some(Box::new(Changes { original, bytes: Vec::new(), extras }));
    let lines = |config: &Loki| {
        let (chunks, counts) = chunks(config, &made);
        assert_eq!(counts.records, 5);
        let label_sets: Vec<u64> = chunks.iter().map(|chunk| chunk.label_set).collect();
        assert_ne!(label_sets[0], label_sets[1]);
        let line = |entry: &EntryAdapter| entry.line.clone();
        let of = |request: PushRequest| {
            let stream = &request.streams[0];
            let job = read_label_text(&stream.labels).unwrap().into_iter().find(|(name, _)| name == "job");
            (job.unwrap().1, stream.entries.iter().map(line).collect::<Vec<_>>().join(""))
        };
        requests(&chunks).into_iter().map(of).collect::<Vec<_>>()
    };
    let expected =
        [("capturer", "024"), ("error", "13")].map(|(job, text)| (job.to_owned(), text.to_owned()));
    assert_eq!(lines(&Loki::default()), expected);
    let metadata = |config: &Loki| {
        let (chunks, _) = chunks(config, &made);
        let entry = requests(&chunks)[1].streams[0].entries[0].clone();
        let pairs = entry.structured_metadata.into_iter().filter(|pair| pair.name != "container_id");
        pairs.map(|pair| format!("{}={}", pair.name, pair.value)).collect::<Vec<_>>()
    };
    assert_eq!(
        metadata(&Loki::default()),
        [
            "image=nginx:1.27",
            "http_status=500",
            "http_status_2=404",
            "http_status_2_2=x",
            "_1st=x",
            "image_2=forged",
            "compose_service_2=forged",
            "failed_2=no",
            "truncated_2=no",
            "_=1",
            "__2=2",
            "repeated=2",
            "failed=parse",
        ]
    );
    let old = Loki { structured_metadata: BTreeMap::new(), ..Loki::default() };
    assert_eq!(metadata(&old), [] as [&str; 0], "a Loki that takes none gets none");
}

/// Property: lines of several batches come out under their label sets in the order in which they went in, and in no more
/// chunks than they need.
#[test]
fn batches_gather_by_label_set() {
    let mut rng = Rng::from_env();
    for _ in 0..100 {
        let config = Loki { batch_lines: 1 + rng.below(30), ..Loki::default() };
        let sources: Vec<Arc<Source>> =
            (0..1 + rng.below(4)).map(|id| container(id as u32, &format!("c{id}"))).collect();
        let heads: Vec<SourceHead> =
            sources.iter().map(|source| SourceHead::new(&config, source, "box")).collect();
        let (mut gathered, mut expected) = (Gathered::default(), BTreeMap::<u64, Vec<String>>::new());
        for number in 0..rng.below(60) {
            let at = rng.below(sources.len());
            let texts: Vec<String> = (0..rng.below(5)).map(|line| format!("{number} {line}")).collect();
            let lines: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            encode(&config, &heads[at], &batch(&sources[at], &lines), &mut gathered);
            if !texts.is_empty() {
                expected.entry(heads[at].channels[0].label_set).or_default().extend(texts);
            }
        }
        let chunks = all(gathered);
        let mut found = BTreeMap::<u64, Vec<String>>::new();
        for (chunk, request) in chunks.iter().zip(requests(&chunks)) {
            assert_eq!(chunk.lines as usize, request.lines());
            let lines = request.streams[0].entries.iter().map(|entry| entry.line.clone());
            found.entry(chunk.label_set).or_default().extend(lines);
        }
        assert_eq!(found, expected);
        let needed = |lines: &Vec<String>| lines.len().div_ceil(config.batch_lines);
        assert_eq!(chunks.len(), expected.values().map(needed).sum::<usize>());
    }
}
