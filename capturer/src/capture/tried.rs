//! Reads a text like a followed file, for `capturer try`: the file source itself reads it, with the settings of the
//! entry that takes the path. The text is in memory and grows line by line, so that each line has its number.
//!
//! Not here: what is done with the lines (commands/try_out.rs).

use std::borrow::Cow;

use crate::capture::checkpoint::memory::Table;
use crate::capture::context::{Context, Credit, Shared};
use crate::capture::counted::ReadCounts;
use crate::capture::io::{Action, FoundFile, OpenedFile};
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::Start;
use crate::capture::stream::file::FileSource;
use crate::decode::Step;
use crate::decode::json_line::unescape;
use crate::decode::text::{self, Mark};
use crate::limits::{FILE_READS_MAX, HEAD_BYTES};
use crate::model::clock::Now;
use crate::model::cursor::FileId;
use crate::model::record::{BufferKind, MessageForm, StdType, StreamId};
use crate::settings::{Binary, FileFormat, FileMonitor, FileSet, Settings, TextRules};
use crate::telemetry::metrics::{Metrics, SkipReason};

const FILE: FileId = FileId { device: 1, inode: 1, birth_ns: 1 };

/// How a text is read.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    format: FileFormat,
    text: TextRules,
}

impl Rules {
    /// The rules of a followed file. A path that no entry takes has the defaults.
    pub fn of_path(path: &str, files: &FileMonitor) -> Rules {
        let entry = files.files.iter().find(|entry| entry.takes(path));
        let default = FileSet::default();
        let entry = entry.unwrap_or(&default);
        Rules::of(entry.format, entry.text)
    }

    /// The rules for lines of unknown origin: `docker logs` output, or Docker's own file.
    pub fn of_any(keep_cr: bool) -> Rules {
        let default = FileSet::default();
        Rules::of(default.format, TextRules { keep_cr, ..default.text })
    }

    /// Whoever tries a file wants to see its lines, even if it is binary.
    fn of(format: FileFormat, text: TextRules) -> Rules {
        Rules { format, text: TextRules { binary: Binary::Read, ..text } }
    }
}

/// A line, with the pieces of a long one joined.
#[derive(Debug)]
pub struct TriedLine {
    /// Number of the text's line with its end, from 1.
    pub number: usize,
    pub std_type: StdType,
    /// Empty if it has none of its own.
    pub time: Vec<u8>,
    pub message: Vec<u8>,
    /// It was longer than `line_bytes_max`.
    pub truncated: bool,
}

/// What was read of a text.
#[derive(Debug, Default)]
pub struct TriedText {
    pub lines: Vec<TriedLine>,
    /// Lines that are no records, although the format requires them.
    pub skipped: u64,
    /// Why nothing was read.
    pub left_out: Option<String>,
}

/// Reads the whole text. `name` is for messages; `metrics` must be new.
pub fn read(text: &[u8], name: &str, rules: Rules, settings: &Settings, metrics: &Metrics) -> TriedText {
    let mut text = Cow::Borrowed(text);
    // Otherwise a last record would count as torn.
    if matches!(rules.format, FileFormat::Docker | FileFormat::Cri) && !text.ends_with(b"\n") {
        text.to_mut().push(b'\n');
    }
    let mut file = File::new(&text, name, rules, settings, metrics);
    file.open();
    for (number, end) in ends(&text, rules.text) {
        (file.number, file.len) = (number, end);
        file.grow();
    }
    file.end();
    file.read
}

/// Where the lines of a text end, with their numbers. A long line may come in several parts.
fn ends(text: &[u8], rules: TextRules) -> Vec<(usize, usize)> {
    let (encoding, mut at) = match text::mark(text, true) {
        Mark::Of(encoding, bytes) => (encoding, bytes),
        Mark::None | Mark::NeedMore | Mark::Utf32 => (rules.encoding.unwrap_or_default(), 0),
    };
    let (mut number, mut ends) = (1, Vec::new());
    while at < text.len() {
        let (took, is_whole) = match encoding.next_line(&text[at..], false) {
            Step::Item(piece, took) => (took, piece.complete),
            Step::Reject(_, took) => (took, false),
            Step::NeedMore => (text.len() - at, false),
        };
        at += took;
        ends.push((number, at));
        number += usize::from(is_whole);
    }
    ends
}

/// A file in memory, and the source that reads it.
struct File<'t> {
    text: &'t [u8],
    name: &'t str,
    /// How much of it is there.
    len: usize,
    /// Number of the last line that came.
    number: usize,
    source: FileSource,
    read: TriedText,
    settings: &'t Settings,
    metrics: &'t Metrics,
    shared: Shared,
    credit: Credit,
    memory: Table,
}

impl<'t> File<'t> {
    fn new(
        text: &'t [u8],
        name: &'t str,
        rules: Rules,
        settings: &'t Settings,
        metrics: &'t Metrics,
    ) -> File<'t> {
        let max = settings.line_bytes_max as usize;
        let source =
            FileSource::new(StreamId(1), String::new(), name.to_owned(), rules.format, Start::Oldest, max);
        File {
            text,
            name,
            len: 0,
            number: 0,
            source: source.with_text(rules.text),
            read: TriedText::default(),
            metrics,
            shared: Shared::new(settings, ReadCounts::default(), 1),
            credit: Credit::new(settings.buffer_bytes_max, FILE_READS_MAX),
            settings,
            memory: Table::default(),
        }
    }

    /// Calls the source, and carries out its orders until there are none.
    fn call(&mut self, call: impl FnOnce(&mut FileSource, &mut Context<'_>, &mut Vec<SourceEvent>)) {
        self.once(call);
        loop {
            self.once(|source, cx, _| source.read_on(cx));
            let actions = std::mem::take(&mut self.shared.actions);
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.carry_out(action));
        }
    }

    fn once(&mut self, call: impl FnOnce(&mut FileSource, &mut Context<'_>, &mut Vec<SourceEvent>)) {
        // No time passes, so no line is split for lack of its end.
        let now = Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 };
        let mut told = Vec::new();
        let mut cx = self.shared.context(now, self.settings, self.metrics, &mut self.credit, &self.memory);
        call(&mut self.source, &mut cx, &mut told);
        told.into_iter().for_each(|event| self.take(event));
    }

    fn open(&mut self) {
        self.call(|source, cx, _| source.open(cx));
    }

    fn grow(&mut self) {
        self.call(|source, cx, _| source.on_grew(cx));
    }

    /// The file will not grow: its last line is complete.
    fn end(&mut self) {
        let not_text = self.source.not_text().filter(|_| self.read.lines.is_empty());
        self.read.left_out = not_text.map(|(not_text, _)| not_text.text(self.name));
        self.call(|source, cx, told| source.gone(cx, told));
        let torn = &self.metrics.skipped_records_total;
        self.read.skipped = torn.with_label_values(&[SkipReason::TornRecord.as_str()]).get();
    }

    fn carry_out(&mut self, action: Action) {
        let there = &self.text[..self.len];
        let found = FoundFile {
            name: self.name.to_owned(),
            rank: 0,
            compressed: false,
            id: FILE,
            len: self.len as u64,
            head: there[..there.len().min(HEAD_BYTES)].to_vec(),
            unpacked_len: None,
            modified_ns: 0,
        };
        match action {
            Action::Scan { .. } => {
                self.once(|source, cx, told| source.on_scanned(Ok(vec![found]), cx, told));
            }
            Action::OpenFile { file, .. } => {
                let opened = OpenedFile::plain(found.len);
                self.once(|source, cx, told| source.on_file_opened(file, Ok(opened), cx, told));
            }
            Action::ReadFile { offset, mut buffer, .. } => {
                let rest = &there[(offset as usize).min(there.len())..];
                let count = rest.len().min(buffer.capacity());
                buffer.extend_from_slice(&rest[..count]);
                let len = (count < buffer.capacity()).then_some(found.len);
                self.once(|source, cx, told| source.on_read(Ok(count), buffer, len, None, cx, told));
            }
            _ => {}
        }
    }

    fn take(&mut self, event: SourceEvent) {
        let SourceEvent::Lines { lines, read, .. } = event else { return };
        for record in &lines.records {
            let from = if record.place == BufferKind::Read { &read } else { &lines.made };
            let text = &from[record.message_start as usize..][..record.message_len as usize];
            let mut message = Vec::new();
            match record.form {
                MessageForm::Raw => message.extend_from_slice(text),
                MessageForm::JsonEscaped => unescape(text, &mut message),
            }
            let time = lines.time(record, &read).to_vec();
            let (number, std_type, truncated) = (self.number, record.std_type, record.truncated);
            self.read.lines.push(TriedLine { number, std_type, time, message, truncated });
        }
        self.credit.give_back(read, 0);
    }
}
