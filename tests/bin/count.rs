//! The data path over a small input that is always the same, so that `cargo xtask count` can count its instructions:
//! three logs are decoded, two of them pass a pipeline, and all are encoded for files and for Loki, including spool
//! blocks.
//!
//! It is not the agent: no ring, no thread, no file. Those can't run under callgrind, which does not know io_uring, and
//! their cost is mostly the kernel's work. Only instructions below [`measured`] are counted.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use capturer::testing::data_path::{
    Assembler, Join, Known, Lines, Outside, Piece, Pipelines, SourcePrefix, SpoolRecord, Step, encode_ndjson,
    encode_spool, is_clean, next_cri, next_docker, next_line, parse_config,
};
use capturer::testing::{
    Batch, ContainerMeta, Cursor, Gathered, Loki, Pipeline, Source, SourceHead, StreamId, StreamKey, encode,
    timestamp,
};
use capturer_tests::rand::Rand;

/// Lines of each log.
const LINES: usize = 3_000;
/// The lines of a batch have at most this many bytes: one read of the agent.
const BATCH_BYTES: usize = 256 * 1024;
/// 2026-11-22T00:52:48Z, the time of the first line.
const FIRST_NS: i64 = 1_795_308_768_000_000_000;
const PIPELINE: &str = r#"
pipelines:
  - name: web
    steps:
      - parse: {format: json}
      - drop: {field: level, matches: debug}
      - redact: {presets: [email, bearer_token], patterns: [{pattern: "customer-(\\d+)", with: "customer-*"}]}
      - labels: {from_fields: {level: level}}
"#;

/// How a log's lines are framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Docker,
    Cri,
    Plain,
}

/// Counts over the results of all logs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    records: u64,
    ndjson_bytes: usize,
    spool_bytes: usize,
}

fn main() -> Result<()> {
    let pipeline = pipeline()?;
    let logs = [Format::Docker, Format::Cri, Format::Plain].map(|format| (format, log(format)));
    let sources = logs.each_ref().map(|(format, _)| source(*format, &pipeline));
    let mut sum = Sum::default();
    for ((format, log), source) in logs.into_iter().zip(sources) {
        measured(format, &log, &source, &mut sum);
    }
    println!("{sum:?}");
    // A change that makes it cheap by delivering nothing must fail.
    ensure!(sum.records == 3 * LINES as u64, "{sum:?}");
    ensure!(sum.ndjson_bytes > 0 && sum.spool_bytes > 0, "{sum:?}");
    Ok(())
}

/// The function whose instructions callgrind counts.
#[inline(never)]
fn measured(format: Format, log: &[u8], source: &Arc<Source>, sum: &mut Sum) {
    let mut pipelines = Pipelines::default();
    let (prefix, config) = (SourcePrefix::new(source), Loki::default());
    let head = SourceHead::new(&config, source, "host");
    let (mut gathered, mut seq) = (Gathered::default(), 0);
    let (mut ndjson, mut spool) = (Vec::new(), Vec::new());
    for part in parts(log) {
        seq += 1;
        let batch = Arc::new(decode(format, part.to_vec(), source, seq));
        sum.records += batch.records.len() as u64;
        let processed = pipelines.process(&batch, FIRST_NS).and_then(|processed| processed.batch);
        let batch = processed.as_ref().unwrap_or(&batch);
        encode_ndjson(batch, &prefix, 0, usize::MAX, &mut ndjson);
        encode(&config, &head, batch, &mut gathered);
    }
    while let Some(chunk) = gathered.pop() {
        let payload = (&*chunk.head(), &*chunk.entries);
        let record = SpoolRecord::new(chunk.label_set, 0, chunk.tenant.clone(), chunk.lines, payload);
        encode_spool(&record, &mut spool);
    }
    sum.ndjson_bytes += black_box(&ndjson).len();
    sum.spool_bytes += black_box(&spool).len();
}

/// Whole lines, as many as one read returns.
fn parts(log: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = log;
    while rest.len() > BATCH_BYTES {
        let end = rest[..BATCH_BYTES].iter().rposition(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (part, behind) = rest.split_at(end);
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts
}

fn decode(format: Format, read: Vec<u8>, source: &Arc<Source>, seq: u64) -> Batch {
    let mut assembler = Assembler::new(1 << 20).strip_cr(format == Format::Plain);
    assembler.join(match format {
        Format::Docker => Join::Docker,
        Format::Cri => Join::Tag,
        Format::Plain => Join::Newline,
    });
    let mut lines = Lines::default();
    let clean = is_clean(&read);
    let mut at = 0;
    while at < read.len() {
        let rest = &read[at..];
        let step = match format {
            Format::Docker => next_docker(rest, clean),
            Format::Cri => next_cri(rest, false),
            Format::Plain => next_line(rest, Known::default()),
        };
        let Step::Item(piece, took) = step else { break };
        let Piece { text, time, .. } = &piece;
        let piece =
            Piece { text: text.start + at..text.end + at, time: time.start + at..time.end + at, ..piece };
        assembler.push(&read, &piece, at as u64, true, &mut lines);
        at += took;
    }
    Batch {
        source: Arc::clone(source),
        seq,
        made: lines.made,
        records: lines.records,
        read_time: timestamp::format(FIRST_NS),
        end: Cursor::Beginning,
        source_bytes: read.len() as u64,
        read,
        last: false,
        changes: None,
    }
}

fn pipeline() -> Result<Arc<Pipeline>> {
    let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
    let settings = parse_config("count.yaml", PIPELINE, &[], &outside)?;
    settings.pipelines.first().cloned().context("a config with a pipeline")
}

/// The CRI log has no pipeline, so that the cost of unchanged lines is counted, too.
fn source(format: Format, pipeline: &Arc<Pipeline>) -> Arc<Source> {
    let number = format as u32 + 1;
    let container = (format == Format::Docker).then(|| ContainerMeta {
        id: format!("{number:064x}"),
        name: "web".to_owned(),
        image: "registry.example.org/web:1.2".to_owned(),
        labels: BTreeMap::from([("com.docker.compose.project".to_owned(), "shop".to_owned())]),
    });
    Arc::new(Source {
        path: container.is_none().then(|| format!("/var/log/{number}.log").into()),
        container: container.map(Box::new),
        pipeline: (format != Format::Cri).then(|| Arc::clone(pipeline)),
        ..Source::new(StreamId(number), StreamKey(format!("count:{number}").into()))
    })
}

fn log(format: Format) -> Vec<u8> {
    let mut rand = Rand::new(format as u64 + 1);
    let mut log = Vec::new();
    for number in 0..LINES {
        let time = timestamp::format(FIRST_NS + number as i64 * 1_000_003);
        let (text, channel) = (message(&mut rand), if rand.chance(1, 5) { "stderr" } else { "stdout" });
        let line = match format {
            Format::Docker => {
                let log = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t");
                format!("{{\"log\":\"{log}\\n\",\"stream\":\"{channel}\",\"time\":\"{time}\"}}\n")
            }
            // One line in twenty comes in two parts.
            Format::Cri if rand.chance(1, 20) => {
                let (one, other) = text.split_at(text.len() / 2);
                format!("{time} {channel} P {one}\n{time} {channel} F {other}\n")
            }
            Format::Cri => format!("{time} {channel} F {text}\n"),
            Format::Plain => format!("{text}\n"),
        };
        log.extend_from_slice(line.as_bytes());
    }
    log
}

/// Lines as they are seen on hosts. ASCII, so that a line may be cut anywhere.
fn message(rand: &mut Rand) -> String {
    let number = rand.within(0..1_000_000);
    match rand.within(0..10) {
        0..4 => format!(
            "10.0.{}.{} - - [22/Nov/2026:00:52:48 +0000] \"GET /shop/item/{number}?ref=list HTTP/1.1\" {} {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"",
            rand.within(0..256),
            rand.within(0..256),
            rand.pick(&[200, 200, 304, 404, 500]),
            rand.within(100..60_000)
        ),
        4..7 => format!(
            "{{\"level\":\"{}\",\"ts\":{number}.25,\"msg\":\"request done for customer-{number}\",\"user\":\"u{number}@example.org\",\"took_ms\":{}}}",
            rand.pick(&["info", "info", "warn", "debug"]),
            rand.within(1..2_000)
        ),
        7 => format!("INFO worker-{} finished job {number} of queue mail", number % 16),
        8 => format!("tick {number}"),
        _ => format!("\tat org.example.shop.Repository.find(Repository.java:{number})")
            .repeat(1 + number as usize % 8),
    }
}
