//! The Loki sink's requests, decoded by an implementation that shares no code with it (tests/loki/decode.py: Google's
//! protobuf from the published messages, and a snappy of its own), equal the records. Batches are random.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use capturer::testing::{
    Batch, BufferKind, Changes, ContainerMeta, Cursor, Extra, Failed, Gathered, Labels, Loki, LokiFormat,
    MessageForm, Parcel, Record, Source, SourceHead, StdType, StreamId, StreamKey, Value as Field, body,
    encode, label_text, timestamp,
};
use capturer_tests::rand::Rand;
use serde_json::{Value, json};

const BODIES: usize = 300;

/// Text with many characters that are special in JSON, UTF-8 and label strings.
fn text(rand: &mut Rand, len_max: u64) -> String {
    const PARTS: [&str; 10] = ["a", "\"", "\\", "\n", "\u{1}", "é", "€", "🦀", "\u{2028}", "<&>"];
    (0..rand.within(0..len_max + 1)).map(|_| *rand.pick(&PARTS)).collect()
}

fn source(rand: &mut Rand) -> Arc<Source> {
    let container = rand.chance(2, 3).then(|| ContainerMeta {
        id: format!("{:064x}", rand.number()),
        name: text(rand, 30),
        image: text(rand, 20),
        labels: [("com.docker.compose.project".to_owned(), text(rand, 9))].into(),
    });
    Arc::new(Source {
        path: container.is_none().then(|| format!("/var/log/{}", text(rand, 20)).into()),
        container: container.map(Box::new),
        ..Source::new(StreamId(1), StreamKey("test".into()))
    })
}

/// Records of both forms and channels, and what each says.
fn batch(rand: &mut Rand, source: &Arc<Source>) -> (Batch, Vec<(StdType, i64, String)>) {
    let mut batch = Batch {
        source: Arc::clone(source),
        seq: 1,
        read: Vec::new(),
        made: Vec::new(),
        records: Vec::new(),
        read_time: timestamp::format(1_763_772_768_000_000_000),
        end: Cursor::Beginning,
        source_bytes: 0,
        last: false,
        changes: None,
    };
    let mut said = Vec::new();
    let mut time_ns = 1_763_772_768_162_820_305;
    for _ in 0..rand.within(0..40) {
        time_ns += 1 + rand.within(0..1_000_000) as i64;
        let std_type = *rand.pick(&StdType::ALL);
        let line = text(rand, 60);
        let (form, bytes, line) = match rand.within(0..3) {
            0 => {
                let json = serde_json::to_string(&line).expect("a string");
                (MessageForm::JsonEscaped, json.as_bytes()[1..json.len() - 1].to_vec(), line)
            }
            1 => (MessageForm::Raw, line.clone().into_bytes(), line),
            _ => {
                let bytes = [line.as_bytes(), b"\xff\xc3(", line.as_bytes()].concat();
                let lossy = String::from_utf8_lossy(&bytes).into_owned();
                (MessageForm::Raw, bytes, lossy)
            }
        };
        let time = timestamp::format(time_ns);
        batch.records.push(Record {
            time_start: batch.read.len() as u32,
            time_len: time.len() as u8,
            message_start: (batch.read.len() + time.len()) as u32,
            message_len: bytes.len() as u32,
            std_type,
            form,
            place: BufferKind::Read,
            truncated: false,
            partial: false,
            continued: false,
        });
        batch.read.extend_from_slice(time.as_bytes());
        batch.read.extend_from_slice(&bytes);
        said.push((std_type, time_ns, line));
    }
    (batch, said)
}

/// The same, after a pipeline that only adds to records.
fn with_extras(rand: &mut Rand, batch: Batch) -> Batch {
    let extra = |_| {
        let mut extra = Extra::default();
        if rand.chance(1, 2) {
            let _ = extra.fields.set("user.id", Field::Number("17"));
            let (level, text) = (*rand.pick(&["info", "warn"]), text(rand, 20));
            let _ = extra.fields.set("text", Field::Text(&text));
            extra.labels = Some(Arc::new(Labels::from([("level".to_owned(), level.to_owned())])));
        }
        if rand.chance(1, 8) {
            extra.repeated = 3;
            extra.failed.add(Failed::PARSE);
        }
        extra
    };
    let extras = (0..batch.records.len()).map(extra).collect();
    let original = Arc::new(batch);
    Batch {
        source: Arc::clone(&original.source),
        seq: original.seq,
        read: Vec::new(),
        made: Vec::new(),
        records: original.records.clone(),
        read_time: original.read_time.clone(),
        end: original.end.clone(),
        source_bytes: original.source_bytes,
        last: original.last,
        changes: Some(Box::new(Changes { original, bytes: Vec::new(), extras })),
    }
}

/// The names of a record's fields in Loki.
const FIELDS: [(&str, &str); 2] = [("user.id", "user_id"), ("text", "text")];

fn expected(config: &Loki, batch: &Batch, said: &[(StdType, i64, String)]) -> BTreeMap<String, Vec<Value>> {
    let source = &batch.source;
    let container = source.container.as_ref();
    let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (index, (std_type, time_ns, line)) in said.iter().enumerate() {
        let extra = batch.extra(index).cloned().unwrap_or_default();
        let level = extra.labels.as_ref().map_or("", |labels| labels["level"].as_str());
        let field = |name: &str| extra.fields.get(name).map(|value| value.as_str()).unwrap_or_default();
        let repeated = if extra.repeated > 0 { extra.repeated.to_string() } else { String::new() };
        let failed = if extra.failed.has(Failed::PARSE) { "parse" } else { "" };
        let name = container.map(|container| container.name.as_str()).unwrap_or_default();
        let path = source.path.as_deref().unwrap_or_default();
        let labels = [
            ("container_name", name),
            ("host", "box"),
            ("job", "capturer"),
            ("level", level),
            ("path", path),
            ("stream", std_type.as_str()),
        ];
        let labels = label_text(labels.into_iter().filter(|(_, value)| !value.is_empty()));
        let project =
            container.and_then(|container| container.labels.values().next()).map_or("", String::as_str);
        let metadata = [
            ("compose_project", project),
            ("container_id", container.map_or("", |container| container.id.as_str())),
            ("image", container.map_or("", |container| container.image.as_str())),
            ("repeated", &repeated),
            ("failed", failed),
        ];
        let metadata = metadata.into_iter().chain(FIELDS.map(|(name, shown)| (shown, field(name))));
        let metadata: BTreeMap<&str, &str> = metadata.filter(|(_, value)| !value.is_empty()).collect();
        assert!(line.len() as u64 <= config.line_bytes_max);
        streams.entry(labels).or_default().push(json!([time_ns, line, metadata]));
    }
    streams
}

/// Must-show 1 of "Deliver".
#[test]
fn bodies_decoded_by_others_equal_the_records() -> Result<()> {
    let mut rand = Rand::from_env_or(1);
    let python = std::env::var_os("CAPTURER_PYTHON").context(
        "CAPTURER_PYTHON names a Python with protobuf; `cargo xtask test` makes one and sets this",
    )?;
    let dir = tempfile::tempdir()?;
    let mut all_expected = Vec::new();
    for number in 0..BODIES {
        let config = Loki {
            batch_bytes: 1024 + rand.within(0..20_000),
            batch_lines: 1 + rand.index(0..50),
            ..Loki::default()
        };
        let source = source(&mut rand);
        let (mut batch, said) = batch(&mut rand, &source);
        if rand.chance(1, 2) {
            batch = with_extras(&mut rand, batch);
        }
        let head = SourceHead::new(&config, &source, "box");
        // Assembled as the delivery does it.
        let mut gathered = Gathered::default();
        encode(&config, &head, &batch, &mut gathered);
        let chunks = std::iter::from_fn(|| gathered.pop());
        let bodies: Vec<u8> = chunks.flat_map(|chunk| [chunk.head(), chunk.entries].concat()).collect();
        let body = body::pack(LokiFormat::Protobuf, &Parcel::plain(bodies))?;
        fs::write(dir.path().join(format!("{number:04}.body")), &body.bytes)?;
        all_expected.push((body.bytes.len(), expected(&config, &batch, &said)));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("loki/decode.py");
    let output = Command::new(python).arg(script).arg(dir.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut decoded, mut lines) = (0, 0);
    for (text, (bytes, expected)) in String::from_utf8(output.stdout)?.lines().zip(&all_expected) {
        let found: Value = serde_json::from_str(text)?;
        assert_eq!(found["bytes"], json!(bytes));
        let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for stream in found["streams"].as_array().context("streams")? {
            let entries = stream[1].as_array().context("entries")?;
            lines += entries.len();
            streams
                .entry(stream[0].as_str().context("labels")?.to_owned())
                .or_default()
                .extend(entries.clone());
        }
        assert_eq!(&streams, expected, "body {}", found["body"]);
        decoded += 1;
    }
    assert_eq!(decoded, BODIES);
    println!("{decoded} bodies with {lines} lines decoded by Python equal their records");
    Ok(())
}
