//! Lines as they are in outputs, compared with a slow encoder that is obviously right.

use std::sync::Arc;

use super::super::testing::{Rng, TIME, batch, container, followed, in_local_time, push};
use super::*;
use crate::model::fields::{Changes, Failed};
use crate::model::record::{BufferKind, ContainerMeta, StreamId, StreamKey};

fn encode_all(batch: &Batch) -> (Vec<u8>, Counts) {
    let mut out = Vec::new();
    let (next, counts) = encode(batch, &SourcePrefix::new(&batch.source), 0, usize::MAX, &mut out);
    assert_eq!(next, batch.records.len());
    assert_eq!(counts.bytes as usize, out.len());
    (out, counts)
}

#[test]
fn keys_in_order_and_absent_when_empty() {
    let mut source = Arc::into_inner(container(1, "web-1")).unwrap();
    let key = "com.docker.compose.project".to_owned();
    source.container.as_mut().unwrap().labels.insert(key, "shop".to_owned());
    let mut all = batch(&Arc::new(source), &[b"hi \"you\"", b""]);
    all.records[1].truncated = true;
    all.records[1].std_type = StdType::Stderr;
    all.records[1].time_len = 0;
    let (out, counts) = encode_all(&all);
    let id = format!("{:064x}", 1);
    let rest = format!(
        "\"container_id\":\"{id}\",\"container_name\":\"web-1\",\"image\":\"nginx:1.27\",\
         \"labels\":{{\"com.docker.compose.project\":\"shop\"}},"
    );
    let first = format!("{{\"time\":\"{TIME}\",\"stream\":\"stdout\",{rest}\"message\":\"hi \\\"you\\\"\"}}");
    let second = format!(
        "{{\"time\":\"1970-01-01T00:00:00Z\",\"stream\":\"stderr\",{rest}\"truncated\":true,\"message\":\"\"}}"
    );
    assert_eq!(String::from_utf8(out).unwrap(), format!("{first}\n{second}\n"));
    assert_eq!(counts, Counts { records: 2, truncated: 1, invalid_utf8: 0, bytes: counts.bytes });

    let (out, _) = encode_all(&batch(&followed(2, "/var/log/x.log"), &[b"m"]));
    let line = format!(
        "{{\"time\":\"{TIME}\",\"stream\":\"stdout\",\"path\":\"/var/log/x.log\",\"message\":\"m\"}}\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), line);
}

/// The page that lists the keys promises it: all keys, in this order.
#[test]
fn the_table_of_keys_is_what_is_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/outputs.md");
    let page = std::fs::read_to_string(path).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Keys of a record")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let named: Vec<&str> = rows.map(|(key, _)| key).collect();

    let mut source = Arc::into_inner(container(1, "web")).unwrap();
    source.path = Some("/x".into());
    source.labels.insert("env".to_owned(), "dev".to_owned());
    let source = Arc::new(source);
    let original = Arc::new(batch(&source, &[b"m"]));
    let mut made = batch(&source, &[]);
    (made.records, made.read) = (original.records.clone(), Vec::new());
    let record = &mut made.records[0];
    (record.truncated, record.partial, record.continued) = (true, true, true);
    let mut extra = Extra { repeated: 3, ..Extra::default() };
    assert!(extra.fields.set("status", Value::Number("200")));
    extra.failed.add(Failed::PARSE);
    made.changes = Some(Box::new(Changes { original, bytes: Vec::new(), extras: vec![extra] }));
    let line = String::from_utf8(encode_all(&made).0).unwrap();
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
    let position = |key: &&str| line.find(&format!("\"{key}\":"));
    assert!(named.iter().all(|key| object.contains_key(*key)), "{named:?} but {line}");
    assert_eq!(named.len(), object.len(), "{named:?} but {line}");
    assert!(named.iter().map(position).is_sorted(), "{named:?} but {line}");
}

/// What a pipeline added is in its place, and only in the record that it belongs to.
#[test]
fn what_a_pipeline_added() {
    use crate::model::fields::Fields;
    let mut source = Arc::into_inner(followed(2, "/x")).unwrap();
    source.labels.insert("env".to_owned(), "dev".to_owned());
    let source = Arc::new(source);
    let original = Arc::new(batch(&source, &[b"a", b"b"]));
    let mut made = batch(&source, &[]);
    (made.records, made.read) = (original.records.clone(), Vec::new());
    made.records[0].truncated = true;
    let mut fields = Fields::default();
    assert!(fields.set("q\"", Value::Text("\n")) && fields.set("n", Value::Number("-1.5")));
    assert!(fields.set("b", Value::Bool(false)));
    let mut extra = Extra { fields, repeated: 3, ..Extra::default() };
    extra.labels = Some(Arc::new(Labels::from([("env".to_owned(), "prod".to_owned())])));
    extra.failed.add(Failed::PARSE);
    extra.failed.add(Failed::TIMESTAMP);
    let extras = vec![extra, Extra::default()];
    made.changes = Some(Box::new(Changes { original, bytes: Vec::new(), extras }));
    let (out, counts) = encode_all(&made);
    let head = format!("{{\"time\":\"{TIME}\",\"stream\":\"stdout\",");
    let expected = format!(
        "{head}\"labels\":{{\"env\":\"prod\"}},\"path\":\"/x\",\"fields\":{{\"q\\\"\":\"\\n\",\"n\":-1.5,\"b\":false}},\
         \"repeated\":3,\"failed\":[\"parse\",\"timestamp\"],\"truncated\":true,\"message\":\"a\"}}\n\
         {head}\"labels\":{{\"env\":\"dev\"}},\"path\":\"/x\",\"message\":\"b\"}}\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(counts.truncated, 1);
    // A piece that begins with the second record finds that one's own.
    let mut second = Vec::new();
    encode(&made, &SourcePrefix::new(&source), 1, usize::MAX, &mut second);
    assert!(expected.ends_with(std::str::from_utf8(&second).unwrap()) && !second.is_empty());
}

/// The slow, obvious encoder.
fn reference(batch: &Batch) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let source = &batch.source;
    let record = |record: &crate::model::record::Record| {
        let mut map = serde_json::Map::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                map.insert(key.to_owned(), value.into());
            }
        };
        add("time", std::str::from_utf8(batch.time(record)).unwrap());
        add("stream", record.std_type.as_str());
        let container = source.container.as_ref().unwrap();
        add("container_id", &container.id);
        add("container_name", &container.name);
        add("image", &container.image);
        add("path", source.path.as_deref().unwrap_or(""));
        if !container.labels.is_empty() {
            map.insert("labels".to_owned(), serde_json::to_value(&container.labels).unwrap());
        }
        if record.partial {
            map.insert("partial".to_owned(), true.into());
        }
        if record.continued {
            map.insert("continued".to_owned(), true.into());
        }
        if record.truncated {
            map.insert("truncated".to_owned(), true.into());
        }
        let bytes = batch.message(record);
        let text = match record.form {
            MessageForm::Raw => String::from_utf8_lossy(bytes).into_owned(),
            MessageForm::JsonEscaped => serde_json::from_slice(&[b"\"", bytes, b"\""].concat()).unwrap(),
        };
        map.insert("message".to_owned(), text.into());
        map
    };
    batch.records.iter().map(record).collect()
}

#[test]
fn any_bytes_agree_with_the_slow_encoder_and_stay_one_line() {
    let mut rng = Rng::from_env();
    for _ in 0..300 {
        let mut labels = BTreeMap::new();
        for _ in 0..rng.below(4) {
            labels.insert(rng.text(20), rng.text(60));
        }
        let source = Source {
            container: Some(Box::new(ContainerMeta {
                id: rng.text(64),
                name: rng.text(80),
                image: rng.text(80),
                labels,
            })),
            path: (rng.below(2) == 0).then(|| rng.text(80).into()),
            ..Source::new(StreamId(1), StreamKey::container("x"))
        };
        let mut batch = batch(&Arc::new(source), &[]);
        for _ in 0..rng.below(20) {
            if rng.below(2) == 0 {
                push(&mut batch, &rng.bytes(300), MessageForm::Raw);
            } else {
                let quoted = serde_json::to_vec(&rng.text(300)).unwrap();
                push(&mut batch, &quoted[1..quoted.len() - 1], MessageForm::JsonEscaped);
            }
            let record = batch.records.last_mut().unwrap();
            record.truncated = rng.below(5) == 0;
            record.partial = rng.below(5) == 0;
            record.continued = rng.below(5) == 0;
            record.std_type = StdType::ALL[rng.below(2)];
        }
        if rng.below(2) == 0 {
            batch.made = std::mem::take(&mut batch.read);
            batch.records.iter_mut().for_each(|record| record.place = BufferKind::Made);
        }
        let (out, counts) = encode_all(&batch);
        let lines: Vec<&[u8]> = out.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), batch.records.len());
        let expected = reference(&batch);
        for (line, expected) in lines.iter().zip(&expected) {
            let found: serde_json::Map<_, _> = serde_json::from_slice(line).unwrap();
            assert_eq!(&found, expected);
        }
        let raw = batch.records.iter().filter(|record| record.form == MessageForm::Raw);
        let replaced: usize = raw
            .map(|record| {
                let chunks = batch.message(record).utf8_chunks();
                chunks.filter(|chunk| !chunk.invalid().is_empty()).count()
            })
            .sum();
        assert_eq!(counts.invalid_utf8 as usize, replaced);

        // Cut into any pieces it is the same output.
        let (mut pieces, mut next) = (Vec::new(), 0);
        let prefix = SourcePrefix::new(&batch.source);
        while next < batch.records.len() {
            let mut piece = Vec::new();
            (next, _) = encode(&batch, &prefix, next, 1 + rng.below(2000), &mut piece);
            pieces.append(&mut piece);
        }
        assert_eq!(pieces, out);
    }
}

#[test]
fn every_byte_alone_and_at_every_place_of_a_block() {
    for byte in 0..=255u8 {
        for at in 0..70 {
            let mut message = vec![b'x'; 70];
            message[at] = byte;
            let mut out = b"\"".to_vec();
            escape_raw(&message, &mut out);
            out.push(b'"');
            let text: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(text, String::from_utf8_lossy(&message), "byte {byte} at {at}");
        }
    }
}

#[test]
fn a_huge_name_is_shortened_at_a_character() {
    let name = format!("x{}", "€".repeat(20_000));
    let (out, _) = encode_all(&batch(&container(1, &name), &[b"m"]));
    assert!(out.len() < META_STRING_BYTES_MAX + 500);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(value["container_name"].as_str().unwrap().ends_with("€…"));
}

/// podman writes them.
#[test]
fn local_times_are_written_in_utc() {
    let mut local = batch(&container(1, "web"), &[b"m"]);
    let (utc, _) = encode_all(&local);
    in_local_time(&mut local);
    assert_eq!(encode_all(&local).0, utc);
}

#[test]
fn a_time_can_not_forge_a_key() {
    let mut batch = batch(&container(1, "web"), &[b"m"]);
    batch.records[0].time_len = 0;
    batch.read_time = "x\",\"message\":\"forged\n".to_owned();
    let (out, _) = encode_all(&batch);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["message"], "m");
}
