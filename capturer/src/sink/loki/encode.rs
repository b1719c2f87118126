//! Batches to push requests. Pure.
//!
//! ```text
//! batches ─▶ per channel: label set (rendered once per source) + lines ─▶ Chunk: an encoded request of one label set
//! ```
//! Lines whose labels a pipeline set are a label set of their own. Lines of several batches gather in a label set's
//! chunk: many quiet sources make few chunks. A chunk holds no more lines and bytes than one request may, so chunks are
//! only ever joined, never cut. Lines are encoded one by one into a buffer, for a message struct per line would cost
//! several allocations each.
//!
//! Lines of a label set with the same time get times a nanosecond apart, in their order (`times.rs`): Loki drops a line that
//! equals another one of its stream in time and text, and a file without times of its own gives all lines of a read the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use prost::{Message as _, encode_length_delimiter, length_delimiter_len};

use super::push::{LabelPairAdapter, Timestamp, label_text};
use super::times::Times;
use super::unescape::unescape;
use super::wire;
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
const REPEATED: &str = "repeated";
const FAILED: &str = "failed";
const MARKS: [&str; 5] = [TRUNCATED, PARTIAL, CONTINUED, REPEATED, FAILED];

/// About what an encoded line takes beside its text.
const ENTRY_BYTES: usize = 24;

/// Lines of one label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Equal for equal tenants and label sets: within it order is kept.
    pub label_set: u64,
    /// Empty = no tenant.
    pub tenant: String,
    /// Number of lines in it.
    pub lines: u32,
    /// The label set as text, as Loki takes it.
    labels: String,
    /// Encoded lines, one behind the other.
    pub entries: Vec<u8>,
}

impl Chunk {
    /// With room for this many bytes of encoded lines.
    fn new(channel: &ChannelHead, room: usize) -> Chunk {
        Chunk {
            label_set: channel.label_set,
            tenant: channel.tenant.clone(),
            lines: 0,
            labels: channel.labels.clone(),
            entries: Vec::with_capacity(room),
        }
    }

    /// The part of the encoded request before the entries.
    pub fn head(&self) -> Vec<u8> {
        wire::head(&self.labels, self.entries.len())
    }
}

/// Lines of several batches by label set.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Chunks that are full.
    full: VecDeque<Chunk>,
    open: BTreeMap<u64, Chunk>,
    bytes: usize,
    /// The times given to lines so far, in all chunks of this run.
    pub times: Times,
}

impl Gathered {
    /// Empty, after lines that were given these times.
    pub fn new(times: Times) -> Gathered {
        Gathered { times, ..Gathered::default() }
    }

    /// Bytes of encoded lines.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next chunk; chunks of one label set come in order.
    pub fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.full.pop_front().or_else(|| Some(self.open.pop_first()?.1))?;
        self.bytes -= chunk.entries.len();
        Some(chunk)
    }
}

/// Labels and metadata of a source's lines, by channel; rendered once.
#[derive(Clone, Debug)]
pub struct SourceHead {
    channels: [ChannelHead; 2],
}

#[derive(Clone, Debug)]
struct ChannelHead {
    label_set: u64,
    tenant: String,
    /// As text; made of `pairs`.
    labels: String,
    pairs: BTreeMap<String, String>,
    /// What the config keeps with each line, encoded.
    encoded_metadata: Vec<u8>,
}

impl SourceHead {
    /// Renders the config's templates for a source.
    pub fn new(config: &Loki, source: &Source, host: &str) -> SourceHead {
        SourceHead { channels: StdType::ALL.map(|std_type| ChannelHead::new(config, source, std_type, host)) }
    }

    /// A problem with the tenant of these lines, for the log.
    pub fn tenant_note(&self, config: &Loki, source: &Source, host: &str) -> Option<String> {
        let asked = config.tenant.as_ref()?.render(source, StdType::Stdout, host);
        let tenant = &self.channels[0].tenant;
        if asked.is_empty() {
            let goes = match tenant.as_str() {
                "" => "they are sent without one, which a multi-tenant Loki refuses: set sinks.loki.tenant_default or give \
                       this source the label"
                    .to_owned(),
                tenant => format!("they go to tenant_default, {tenant}"),
            };
            return Some(format!(
                "its lines have no tenant (sinks.loki.tenant_id is empty for them); {goes}"
            ));
        }
        (asked != *tenant).then(|| {
            let asked = shown(&shortened(asked, TENANT_BYTES_MAX));
            format!("Loki does not accept the tenant \"{asked}\"; its lines go to the tenant {tenant}")
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
            // Loki requires a label; without one the line could not be delivered.
            labels.push(("job".to_owned(), "capturer".to_owned()));
        }
        let pairs_of = |(name, value)| (name, shortened(value, LOKI_LABEL_VALUE_BYTES));
        let label_pairs: BTreeMap<String, String> = labels.into_iter().map(pairs_of).collect();
        let mut encoded_metadata = Vec::new();
        for (name, value) in pairs(&config.structured_metadata) {
            put_pair(&name, &shortened(value, LOKI_LABEL_VALUE_BYTES), &mut encoded_metadata);
        }
        let asked = config.tenant.as_ref().map(|tenant| tenant.render(source, std_type, host));
        let tenant = match asked.unwrap_or_default() {
            none if none.is_empty() => config.tenant_default.clone(),
            asked => tenant_id(&asked),
        };
        let mut head =
            ChannelHead { label_set: 0, tenant, labels: String::new(), pairs: label_pairs, encoded_metadata };
        head.name_label_set();
        head
    }

    /// The same with labels of a record's own.
    fn with(&self, own: &Labels) -> ChannelHead {
        let mut head = self.clone();
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        head.pairs.extend(
            own.map(|(name, value)| (name.clone(), shortened(value.clone(), LOKI_LABEL_VALUE_BYTES))),
        );
        head.name_label_set();
        head
    }

    fn name_label_set(&mut self) {
        self.labels = label_text(self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.label_set = label_set_of(&self.tenant, &self.labels);
    }
}

/// See [`Chunk::label_set`].
pub fn label_set_of(tenant: &str, labels: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (tenant, labels).hash(&mut hasher);
    hasher.finish()
}

/// A tenant's name in Loki's alphabet. Nothing is left out, or two tenants could silently become one: each byte that
/// Loki does not accept is written as `_` and two hexadecimal digits.
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

/// Cuts at a character; a longer text ends in `…`.
fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - "…".len()));
        text.push('…');
    }
    text
}

/// Adds all lines of a batch, and returns the counts (`bytes` are bytes of encoded lines).
pub fn encode(config: &Loki, head: &SourceHead, batch: &Batch, gathered: &mut Gathered) -> Counts {
    let (mut counts, before) = (Counts::default(), gathered.bytes);
    for std_type in StdType::ALL {
        let channel = &head.channels[std_type.index()];
        if batch.changes.is_none() {
            let records = batch.records.iter().enumerate();
            let records = records.filter(|(_, record)| record.std_type == std_type);
            put_lines(config, channel, batch, records, gathered, &mut counts);
            continue;
        }
        for (channel, records) in &by_label_set(channel, batch, std_type) {
            let records = records.iter().map(|index| (*index, &batch.records[*index]));
            put_lines(config, channel, batch, records, gathered, &mut counts);
        }
    }
    counts.records = batch.records.len() as u64;
    counts.bytes = (gathered.bytes - before) as u64;
    counts
}

/// What a batch has of a label set.
pub struct Part<'h> {
    /// See [`Chunk::label_set`].
    pub label_set: u64,
    /// The label set as text, as Loki takes it.
    pub labels: Cow<'h, str>,
    /// Of its messages.
    pub bytes: u64,
}

/// The label sets that lines of a batch belong to.
pub fn label_sets<'h>(head: &'h SourceHead, batch: &Batch) -> Vec<Part<'h>> {
    let mut parts = Vec::new();
    for std_type in StdType::ALL {
        let channel = &head.channels[std_type.index()];
        if batch.changes.is_none() {
            let records = batch.records.iter().filter(|record| record.std_type == std_type);
            let bytes = records.map(|record| u64::from(record.message_len)).sum();
            if bytes > 0 {
                parts.push(Part {
                    label_set: channel.label_set,
                    labels: Cow::Borrowed(&channel.labels),
                    bytes,
                });
            }
            continue;
        }
        parts.extend(by_label_set(channel, batch, std_type).into_iter().map(|(channel, records)| {
            let bytes = records.iter().map(|index| u64::from(batch.records[*index].message_len)).sum();
            Part { label_set: channel.label_set, labels: Cow::Owned(channel.labels), bytes }
        }));
    }
    parts
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

fn put_lines<'b>(
    config: &Loki,
    channel: &ChannelHead,
    batch: &'b Batch,
    records: impl Iterator<Item = (usize, &'b Record)> + Clone,
    gathered: &mut Gathered,
    counts: &mut Counts,
) {
    let mut records = records.peekable();
    if records.peek().is_none() {
        return;
    }
    let mut chunk = gathered.open.remove(&channel.label_set);
    let times = gathered.times.of(channel.label_set);
    let (mut text, mut metadata) = (Vec::new(), Vec::new());
    let sizes = records.clone().map(|(_, record)| record.message_len as usize + ENTRY_BYTES);
    let room = sizes.sum::<usize>().min(config.batch_bytes as usize);
    for (index, record) in records {
        let line = line(config, batch, record, &mut text, counts);
        let metadata = metadata_of(config, channel, batch, (index, record), line.1, &mut metadata);
        let own = timestamp::parse(batch.time(record));
        let time = own.or_else(|| timestamp::parse(batch.read_time.as_bytes())).unwrap_or_default();
        let entry = Entry::new(times.next(time), &line.0, metadata);
        let is_full = |chunk: &mut Chunk| {
            let bytes = (chunk.entries.len() + entry.len) as u64;
            chunk.lines > 0 && (bytes > config.batch_bytes || chunk.lines as usize >= config.batch_lines)
        };
        if let Some(full) = chunk.take_if(is_full) {
            // The next is likely to fill, too: a buffer that grows is copied each time.
            chunk = Some(Chunk::new(channel, full.entries.len()));
            gathered.full.push_back(full);
        }
        let chunk = chunk.get_or_insert_with(|| Chunk::new(channel, room));
        let before = chunk.entries.len();
        entry.put(&mut chunk.entries);
        chunk.lines += 1;
        gathered.bytes += chunk.entries.len() - before;
        counts.truncated += u64::from(line.1);
    }
    gathered.open.extend(chunk.map(|chunk| (channel.label_set, chunk)));
}

/// A record's text for Loki, and whether its end is missing.
fn line<'t>(
    config: &Loki,
    batch: &'t Batch,
    record: &Record,
    text: &'t mut Vec<u8>,
    counts: &mut Counts,
) -> (Cow<'t, str>, bool) {
    let message = batch.message(record);
    let bytes = match record.form {
        MessageForm::JsonEscaped if memchr::memchr(b'\\', message).is_some() => {
            text.clear();
            unescape(message, text);
            &*text
        }
        MessageForm::JsonEscaped | MessageForm::Raw => message,
    };
    let line = std::str::from_utf8(bytes).map_or_else(
        |_| {
            let invalid = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty());
            counts.invalid_utf8 += invalid.count() as u64;
            String::from_utf8_lossy(bytes)
        },
        Cow::Borrowed,
    );
    let line_bytes_max = config.line_bytes_max as usize;
    if line.len() <= line_bytes_max {
        return (line, record.truncated);
    }
    let end = line.floor_char_boundary(line_bytes_max);
    match line {
        Cow::Borrowed(line) => (Cow::Borrowed(&line[..end]), true),
        Cow::Owned(mut line) => {
            line.truncate(end);
            (Cow::Owned(line), true)
        }
    }
}

/// What is kept with a line, encoded: for most the same as for all of the channel.
fn metadata_of<'m>(
    config: &Loki,
    channel: &'m ChannelHead,
    batch: &Batch,
    (index, record): (usize, &Record),
    truncated: bool,
    own: &'m mut Vec<u8>,
) -> &'m [u8] {
    let extra = batch.extra(index).filter(|_| !config.structured_metadata.is_empty());
    let marks = [(truncated, TRUNCATED), (record.partial, PARTIAL), (record.continued, CONTINUED)];
    // A Loki that accepts no metadata accepts no marks either.
    let marks = marks.map(|(is_set, mark)| (is_set && !config.structured_metadata.is_empty(), mark));
    if extra.is_none() && marks.iter().all(|(is_set, _)| !is_set) {
        return &channel.encoded_metadata;
    }
    own.clear();
    own.extend_from_slice(&channel.encoded_metadata);
    if let Some(extra) = extra {
        for pair in added_by(extra, config) {
            put_pair(&pair.name, &pair.value, own);
        }
    }
    for (_, mark) in marks.iter().filter(|(is_set, _)| *is_set) {
        put_pair(mark, "true", own);
    }
    own
}

/// A line to be encoded as prost encodes an `EntryAdapter`.
struct Entry<'a> {
    time: Timestamp,
    line: &'a str,
    /// Structured metadata, encoded.
    metadata: &'a [u8],
    /// Of the message.
    len: usize,
}

impl<'a> Entry<'a> {
    fn new(time_ns: i64, line: &'a str, metadata: &'a [u8]) -> Entry<'a> {
        let time = Timestamp::from_ns(time_ns);
        let line_len = match line.len() {
            // Like every empty field it is left out.
            0 => 0,
            len => 1 + length_delimiter_len(len) + len,
        };
        Entry { time, line, metadata, len: 2 + time.encoded_len() + line_len + metadata.len() }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_len(0x12, self.len, out);
        put_len(0x0a, self.time.encoded_len(), out);
        // A vector takes whatever comes.
        let _ = self.time.encode(out);
        if !self.line.is_empty() {
            put_len(0x12, self.line.len(), out);
            out.extend_from_slice(self.line.as_bytes());
        }
        out.extend_from_slice(self.metadata);
    }
}

/// One of an entry's pairs of structured metadata.
fn put_pair(name: &str, value: &str, out: &mut Vec<u8>) {
    let pair = [(0x0a, name), (0x12, value)].into_iter().filter(|(_, text)| !text.is_empty());
    let len = pair.clone().map(|(_, text)| 1 + length_delimiter_len(text.len()) + text.len()).sum();
    put_len(0x1a, len, out);
    for (tag, text) in pair {
        put_len(tag, text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
}

fn put_len(tag: u8, len: usize, out: &mut Vec<u8>) {
    out.push(tag);
    // A vector takes whatever comes.
    let _ = encode_length_delimiter(len, out);
}

/// A pipeline's fields of a line, under names that Loki accepts. Names of the config and of the marks are never those
/// of a field, whether this line has them or not: a query for them only finds what the agent says. A field whose name
/// is taken gets a number after it, such as `status_2`, so that no value is lost.
fn added_by(extra: &Extra, config: &Loki) -> Vec<LabelPairAdapter> {
    let mut added: Vec<LabelPairAdapter> = Vec::new();
    for (name, value) in extra.fields.iter() {
        let value = value.as_str();
        if value.is_empty() {
            continue;
        }
        let name = name_for_loki(name);
        let is_taken = |name: &str| {
            MARKS.contains(&name)
                || config.structured_metadata.contains_key(name)
                || added.iter().any(|pair| pair.name == name)
        };
        let name = if is_taken(&name) {
            let mut numbered = (2..).map(|number| format!("{name}_{number}"));
            numbered.find(|name| !is_taken(name)).unwrap_or(name)
        } else {
            name
        };
        added.push(LabelPairAdapter { name, value: value.to_owned() });
    }
    let mut mark = |name: &str, value: String| added.push(LabelPairAdapter { name: name.to_owned(), value });
    if extra.repeated > 0 {
        mark(REPEATED, extra.repeated.to_string());
    }
    if !extra.failed.is_empty() {
        mark(FAILED, extra.failed.names().collect::<Vec<_>>().join(","));
    }
    added
}

fn name_for_loki(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let digit = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    digit.into_iter().chain(name.chars().map(allowed)).collect()
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
