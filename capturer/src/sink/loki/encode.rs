//! Batches to push requests. Pure.
//!
//! ```text
//! batch ─▶ per channel: label set (rendered once per source) + lines ─▶ Chunk: an encoded request of one label set
//! ```
//! Lines whose labels a pipeline set are a label set of their own. A chunk holds no more lines and bytes than one request may, so chunks are only ever put together, never cut.
//!
//! Two lines of a batch with the same time get times a nanosecond apart, in their order: Loki drops a line that equals
//! another one of its stream in time and text, and a file without times of its own gives all lines of a read the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message as _;

use super::push::{EntryAdapter, LabelPairAdapter, PushRequest, StreamAdapter, Timestamp, label_text};
use super::unescape::unescape;
use crate::decode::timestamp;
use crate::limits::LOKI_LABEL_VALUE_BYTES;
use crate::model::fields::{Extra, Labels};
use crate::model::record::{Batch, MessageForm, Record, Source, StdType};
use crate::settings::{Loki, TENANT_BYTES_MAX, is_tenant_char};
use crate::sink::Counts;
use crate::text::terminal::shown;

/// Name of the metadata that marks a line that was cut.
const TRUNCATED: &str = "truncated";
const PARTIAL: &str = "partial";
const CONTINUED: &str = "continued";

/// Lines of one label set, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Equal for equal tenants and label sets: what must stay in order.
    pub lane: u64,
    /// Empty = no tenant.
    pub tenant: String,
    /// Lines.
    pub lines: u32,
    /// An encoded [`PushRequest`].
    pub body: Vec<u8>,
}

/// What a source's lines carry, by channel; rendered once.
#[derive(Clone, Debug)]
pub struct SourceHead {
    channels: [ChannelHead; 2],
}

#[derive(Clone, Debug)]
struct ChannelHead {
    lane: u64,
    tenant: String,
    /// As text; made of `pairs`.
    labels: String,
    pairs: BTreeMap<String, String>,
    metadata: Vec<LabelPairAdapter>,
}

impl SourceHead {
    /// Renders the config's templates for a source.
    pub fn new(config: &Loki, source: &Source, host: &str) -> SourceHead {
        SourceHead { channels: StdType::ALL.map(|std_type| ChannelHead::new(config, source, std_type, host)) }
    }

    /// What is odd about the tenant of these lines, for the log.
    pub fn tenant_note(&self, config: &Loki, source: &Source, host: &str) -> Option<String> {
        let asked = config.tenant.as_ref()?.render(source, StdType::Stdout, host);
        let tenant = &self.channels[0].tenant;
        if asked.is_empty() {
            let goes = match tenant.as_str() {
                "" => "they go without one, which a Loki with tenants refuses: set sinks.loki.tenant_default or give it the label".to_owned(),
                tenant => format!("they go to tenant_default, {tenant}"),
            };
            return Some(format!(
                "its lines have no tenant (sinks.loki.tenant_id is empty for them); {goes}"
            ));
        }
        (asked != *tenant).then(|| {
            let asked = shown(&shortened(asked, TENANT_BYTES_MAX));
            format!("Loki takes no tenant \"{asked}\"; its lines go to the tenant {tenant}")
        })
    }
}

impl ChannelHead {
    fn new(config: &Loki, source: &Source, std_type: StdType, host: &str) -> ChannelHead {
        let pairs = |map: &std::collections::BTreeMap<String, crate::settings::LabelTemplate>| {
            let rendered =
                map.iter().map(|(name, value)| (name.clone(), value.render(source, std_type, host)));
            rendered.filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>()
        };
        let mut labels = pairs(&config.labels);
        if labels.is_empty() {
            // Loki wants one; without it the line could go nowhere.
            labels.push(("job".to_owned(), "capturer".to_owned()));
        }
        let pairs_of = |(name, value)| (name, shortened(value, LOKI_LABEL_VALUE_BYTES));
        let label_pairs: BTreeMap<String, String> = labels.into_iter().map(pairs_of).collect();
        let metadata = pairs(&config.structured_metadata).into_iter();
        let metadata = metadata
            .map(|(name, value)| LabelPairAdapter { name, value: shortened(value, LOKI_LABEL_VALUE_BYTES) })
            .collect();
        let asked = config.tenant.as_ref().map(|tenant| tenant.render(source, std_type, host));
        let tenant = match asked.unwrap_or_default() {
            none if none.is_empty() => config.tenant_default.clone(),
            asked => tenant_id(&asked),
        };
        let mut head = ChannelHead { lane: 0, tenant, labels: String::new(), pairs: label_pairs, metadata };
        head.name_lane();
        head
    }

    /// The same with labels of a record's own.
    fn with(&self, own: &Labels) -> ChannelHead {
        let mut head = self.clone();
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        head.pairs.extend(
            own.map(|(name, value)| (name.clone(), shortened(value.clone(), LOKI_LABEL_VALUE_BYTES))),
        );
        head.name_lane();
        head
    }

    fn name_lane(&mut self) {
        self.labels = label_text(self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut hasher = DefaultHasher::new();
        (&self.tenant, &self.labels).hash(&mut hasher);
        self.lane = hasher.finish();
    }
}

/// A tenant's name as Loki takes it. Nothing is left out, or two tenants could become one unsaid: what Loki does not take
/// is written as `_` and two hexadecimal digits a byte.
fn tenant_id(asked: &str) -> String {
    let mut tenant = String::new();
    for c in asked.chars() {
        if is_tenant_char(c) {
            tenant.push(c);
        } else {
            let mut bytes = [0; 4];
            let escapes = c.encode_utf8(&mut bytes).bytes().map(|byte| format!("_{byte:02X}"));
            tenant.extend(escapes);
        }
    }
    if matches!(tenant.as_str(), "." | "..") {
        tenant = tenant.replace('.', "_2E");
    }
    // All of these are one byte long.
    tenant.truncate(TENANT_BYTES_MAX);
    tenant
}

/// Cuts at a character; what is longer ends in `…`.
fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - "…".len()));
        text.push('…');
    }
    text
}

/// All lines of a batch, and what was counted on the way (`bytes` are bytes of encoded requests).
pub fn encode(config: &Loki, head: &SourceHead, batch: &Batch) -> (Vec<Chunk>, Counts) {
    let (mut chunks, mut counts) = (Vec::new(), Counts::default());
    for std_type in StdType::ALL {
        let channel = &head.channels[std_type.index()];
        if batch.changes.is_none() {
            let records = batch.records.iter().enumerate();
            let records = records.filter(|(_, record)| record.std_type == std_type);
            put_chunks(config, channel, batch, records, &mut chunks, &mut counts);
            continue;
        }
        for (channel, records) in &by_label_set(channel, batch, std_type) {
            let records = records.iter().map(|index| (*index, &batch.records[*index]));
            put_chunks(config, channel, batch, records, &mut chunks, &mut counts);
        }
    }
    counts.records = batch.records.len() as u64;
    counts.bytes = chunks.iter().map(|chunk| chunk.body.len() as u64).sum();
    (chunks, counts)
}

/// Records by what their labels are in the end: lines of one label set must stay in order, however they came by it.
fn by_label_set(channel: &ChannelHead, batch: &Batch, std_type: StdType) -> Vec<(ChannelHead, Vec<usize>)> {
    let mut sets: Vec<(ChannelHead, Vec<usize>)> = Vec::new();
    let mut by_own: BTreeMap<Option<&Labels>, usize> = BTreeMap::new();
    let mut by_text: BTreeMap<String, usize> = BTreeMap::new();
    let records = batch.records.iter().enumerate().filter(|(_, record)| record.std_type == std_type);
    for (index, _) in records {
        let own = batch.extra(index).and_then(|extra| extra.labels.as_deref());
        let set = *by_own.entry(own).or_insert_with(|| {
            let head = own.map_or_else(|| channel.clone(), |own| channel.with(own));
            *by_text.entry(head.labels.clone()).or_insert_with(|| {
                sets.push((head, Vec::new()));
                sets.len() - 1
            })
        });
        sets[set].1.push(index);
    }
    sets
}

fn put_chunks<'b>(
    config: &Loki,
    channel: &ChannelHead,
    batch: &'b Batch,
    records: impl Iterator<Item = (usize, &'b Record)>,
    chunks: &mut Vec<Chunk>,
    counts: &mut Counts,
) {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut times = Times::default();
    for (index, record) in records {
        let entry = entry(config, channel, batch, (index, record), &mut times, counts);
        let size = entry.encoded_len();
        let full = bytes + size as u64 > config.batch_bytes || entries.len() >= config.batch_lines;
        if full && !entries.is_empty() {
            chunks.push(chunk(channel, std::mem::take(&mut entries)));
            bytes = 0;
        }
        bytes += size as u64;
        entries.push(entry);
    }
    if !entries.is_empty() {
        chunks.push(chunk(channel, entries));
    }
}

fn chunk(channel: &ChannelHead, entries: Vec<EntryAdapter>) -> Chunk {
    let lines = entries.len() as u32;
    let request = PushRequest { streams: vec![StreamAdapter { labels: channel.labels.clone(), entries }] };
    Chunk { lane: channel.lane, tenant: channel.tenant.clone(), lines, body: request.encode_to_vec() }
}

fn entry(
    config: &Loki,
    channel: &ChannelHead,
    batch: &Batch,
    (index, record): (usize, &Record),
    times: &mut Times,
    counts: &mut Counts,
) -> EntryAdapter {
    let message = batch.message(record);
    let mut bytes = Vec::with_capacity(message.len());
    match record.form {
        MessageForm::JsonEscaped => unescape(message, &mut bytes),
        MessageForm::Raw => bytes.extend_from_slice(message),
    }
    let mut line = String::from_utf8(bytes).unwrap_or_else(|error| {
        counts.invalid_utf8 +=
            error.as_bytes().utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count() as u64;
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    });
    let too_long = line.len() as u64 > config.line_bytes_max;
    if too_long {
        line.truncate(line.floor_char_boundary(config.line_bytes_max as usize));
    }
    let mut structured_metadata = channel.metadata.clone();
    if let Some(extra) = batch.extra(index).filter(|_| !config.structured_metadata.is_empty()) {
        metadata_of(extra, &mut structured_metadata);
    }
    let truncated = too_long || record.truncated;
    counts.truncated += u64::from(truncated);
    for (is_set, mark) in [(truncated, TRUNCATED), (record.partial, PARTIAL), (record.continued, CONTINUED)] {
        if is_set {
            structured_metadata.push(LabelPairAdapter { name: mark.to_owned(), value: "true".to_owned() });
        }
    }
    let own = timestamp::parse(batch.time(record));
    let time = own.or_else(|| timestamp::parse(batch.read_time.as_bytes())).unwrap_or_default();
    EntryAdapter { timestamp: Some(Timestamp::from_ns(times.next(time))), line, structured_metadata }
}

/// What a pipeline added to a line, under names that Loki takes. The config's own names come first: a field of the same
/// name is left out.
fn metadata_of(extra: &Extra, metadata: &mut Vec<LabelPairAdapter>) {
    let mut put = |name: &str, value: String| {
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut name: String = name.chars().map(allowed).collect();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            name.insert(0, '_');
        }
        if !value.is_empty() && !metadata.iter().any(|pair| pair.name == name) {
            metadata.push(LabelPairAdapter { name, value });
        }
    };
    for (name, value) in extra.fields.iter() {
        put(name, value.as_str().to_owned());
    }
    if extra.repeated > 0 {
        put("repeated", extra.repeated.to_string());
    }
    if !extra.failed.is_empty() {
        put("failed", extra.failed.names().collect::<Vec<_>>().join(","));
    }
}

/// See the module's head.
#[derive(Debug, Default)]
struct Times {
    last_own: Option<i64>,
    last_given: i64,
}

impl Times {
    fn next(&mut self, own: i64) -> i64 {
        let again = self.last_own == Some(own);
        self.last_given = if again { self.last_given.saturating_add(1) } else { own };
        self.last_own = Some(own);
        self.last_given
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
