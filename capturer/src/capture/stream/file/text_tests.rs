//! Any text, in any encoding, with any line ends, that comes in any parts and at any times, to an agent that is killed now
//! and then: what is delivered, put together again, is what a slow and obvious decoder makes of the whole file.

use super::*;
use crate::capture::core::bench::Bench;
use crate::capture::io::OpenedFile;
use crate::decode::binary::Seems;
use crate::limits::{HEAD_BYTES, LINE_PIECE_BYTES};
use crate::model::cursor::FileCursor;
use crate::settings::file::{Outside, parse as parse_config};
use crate::settings::{Binary, Settings, TextRules};
use crate::sink::testing::Rng;

/// What an output has of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    message: Vec<u8>,
    partial: bool,
    continued: bool,
    truncated: bool,
}

/// One file, and an agent that reads it.
struct Host {
    bytes: Vec<u8>,
    bench: Bench,
    source: FileSource,
    rules: TextRules,
    format: FileFormat,
    pipeline: Option<Arc<Pipeline>>,
    got: Vec<Got>,
    /// Positions that were told: when, and how many records came before.
    told: Vec<(u64, usize, Arc<FileCursor>)>,
    /// What was delivered behind the position that an agent began with, and must come again just so.
    again: Vec<Got>,
    /// Bytes that were read from the file.
    read_bytes: u64,
}

const LINE_BYTES_MAX: usize = 1 << 20;
/// A checkpoint holds what was told so long ago.
const SAVED_MS: u64 = 1_500;

impl Host {
    fn new(rules: TextRules, format: FileFormat) -> Host {
        Host::with_pipeline(rules, format, None)
    }

    fn with_pipeline(rules: TextRules, format: FileFormat, pipeline: Option<Arc<Pipeline>>) -> Host {
        let mut bench = Bench::new(1);
        let source = source(Start::Oldest, rules, format).with_pipeline(pipeline.as_ref());
        bench.actions();
        let mut host = Host {
            bytes: Vec::new(),
            bench,
            source,
            rules,
            format,
            pipeline,
            got: Vec::new(),
            told: Vec::new(),
            again: Vec::new(),
            read_bytes: 0,
        };
        host.source.open(&mut host.bench.cx());
        host.settle();
        host
    }

    fn found(&self) -> FoundFile {
        FoundFile {
            name: "a.log".to_owned(),
            rank: 0,
            compressed: false,
            id: FileId { device: 1, inode: 2, birth_ns: 3 },
            len: self.bytes.len() as u64,
            head: self.bytes[..self.bytes.len().min(HEAD_BYTES)].to_vec(),
            unpacked_len: None,
            modified_ns: 0,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.source.on_grew(&mut self.bench.cx());
        self.settle();
    }

    /// Time goes by.
    fn wait(&mut self, ms: u64) {
        let until = self.bench.now.mono_ms + ms;
        while self.bench.now.mono_ms < until {
            let step = (until - self.bench.now.mono_ms).min(250);
            self.bench.now.mono_ms += step;
            self.bench.now.unix_ns += step as i64 * 1_000_000;
            for purpose in self.bench.due() {
                let mut told = Vec::new();
                self.source.on_timer(purpose, &mut self.bench.cx(), &mut told);
                self.take(told);
                self.settle();
            }
        }
    }

    /// Killed, and started from what its checkpoint holds.
    fn kill(&mut self) {
        let saved_ms = self.bench.now.mono_ms.saturating_sub(SAVED_MS);
        let saved = self.told.iter().rposition(|(at_ms, ..)| *at_ms <= saved_ms);
        let (records, start) = match saved.map(|at| self.told[at].clone()) {
            Some((_, records, cursor)) => (records, Start::Resume(cursor)),
            None => (0, Start::Oldest),
        };
        assert!(self.again.is_empty(), "killed before all of it came again");
        self.again = self.got.split_off(records);
        self.told.retain(|(_, before, _)| *before <= records);
        self.source = source(start, self.rules, self.format).with_pipeline(self.pipeline.as_ref());
        self.bench.actions();
        self.source.open(&mut self.bench.cx());
        self.settle();
        // Parts of lines wait for their time, as before.
        self.wait(2 * self.rules.unfinished_line_after.as_millis() as u64);
    }

    fn settle(&mut self) {
        loop {
            self.source.read_on(&mut self.bench.cx());
            let actions = self.bench.actions();
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.carry_out(action));
        }
    }

    fn carry_out(&mut self, action: Action) {
        let mut told = Vec::new();
        let found = self.found();
        let cx = &mut self.bench.cx();
        match action {
            Action::Scan { .. } => self.source.on_scanned(Ok(vec![found]), cx, &mut told),
            Action::OpenFile { file, .. } => {
                let opened = OpenedFile::plain(found.len);
                self.source.on_file_opened(file, Ok(opened), cx, &mut told);
            }
            Action::ReadFile { offset, mut buffer, .. } => {
                let from = (offset as usize).min(self.bytes.len());
                let count = (self.bytes.len() - from).min(buffer.capacity());
                buffer.extend_from_slice(&self.bytes[from..from + count]);
                self.read_bytes += count as u64;
                assert!(self.read_bytes < 1 << 30, "it reads for ever");
                let len = (count < buffer.capacity()).then_some(found.len);
                self.source.on_read(Ok(count), buffer, len, None, cx, &mut told);
            }
            _ => {}
        }
        self.take(told);
    }

    fn take(&mut self, told: Vec<SourceEvent>) {
        for one in told {
            let SourceEvent::Lines { lines, read, end, .. } = one else { continue };
            for record in &lines.records {
                let from =
                    if record.place == crate::model::record::BufferKind::Read { &read } else { &lines.made };
                let message = from[record.message_start as usize..][..record.message_len as usize].to_vec();
                let got = Got {
                    message,
                    partial: record.partial,
                    continued: record.continued,
                    truncated: record.truncated,
                };
                if !self.again.is_empty() {
                    assert_eq!(got, self.again.remove(0), "it came otherwise before the kill");
                }
                self.got.push(got);
            }
            if let Cursor::File(cursor) = end {
                self.told.push((self.bench.now.mono_ms, self.got.len(), cursor));
            }
            if read.capacity() > 0 {
                self.bench.cx().credit.give_back(read, 0);
            }
        }
    }

    /// The file is deleted: what stands at its end is whole.
    fn end(&mut self) {
        let mut told = Vec::new();
        self.source.gone(&mut self.bench.cx(), &mut told);
        self.take(told);
        self.settle();
        // A line is just being split, perhaps.
        self.wait(2_500);
        assert!(self.source.drained && self.again.is_empty());
    }

    /// Lines, put together from their parts.
    fn lines(&self) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut is_open = false;
        for got in &self.got {
            assert!(!got.truncated);
            match lines.last_mut().filter(|_| got.continued) {
                Some(line) => {
                    assert!(is_open, "the rest of what? {got:?}");
                    line.extend_from_slice(&got.message);
                }
                None => lines.push(got.message.clone()),
            }
            is_open = got.partial;
        }
        lines
    }
}

fn source(start: Start, rules: TextRules, format: FileFormat) -> FileSource {
    let (directory, name) = ("/d".to_owned(), "a.log".to_owned());
    FileSource::new(StreamId(1), directory, name, format, start, LINE_BYTES_MAX).with_text(rules)
}

fn rules(encoding: Option<&str>) -> TextRules {
    TextRules {
        encoding: encoding.map(|name| crate::text::encoding::Encoding::named(name).expect("known")),
        keep_cr: false,
        unfinished_line_after: std::time::Duration::from_secs(5),
        binary: Binary::Read,
    }
}

/// Words of text that each encoding has.
const WORDS: [(&str, &[&str]); 8] = [
    ("utf-8", &["a", "é", "€uro", "𝄞", " ", "\u{1b}[1m", "\r", "0123456789", "{", "2026-"]),
    ("utf-16le", &["a", "é", "€uro", "𝄞", " ", "\u{a0a}", "\u{d0a}", "\r", "ਊ"]),
    ("utf-16be", &["a", "é", "€uro", "𝄞", " ", "\u{a0a}", "\u{a0d}", "\r", "ਊ"]),
    ("windows-1252", &["a", "é", "€uro", "ß", "\r", " "]),
    ("shift_jis", &["a", "テスト", "ソ", "ｱ", "\r", " "]),
    ("gb18030", &["a", "你好", "𝄞", "€", "\r", " "]),
    ("euc-jp", &["a", "テスト", "ｱ", "\r", " "]),
    ("big5", &["a", "功能", "許", "\r", " "]),
];
const LINE_ENDS: [&str; 4] = ["\n", "\r\n", "\r\r\n", "mixed"];

fn encoded(name: &str, text: &str) -> Vec<u8> {
    match name {
        "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "utf-16be" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        _ => {
            let encoding = encoding_rs::Encoding::for_label(name.as_bytes()).expect("known");
            let (bytes, _, replaced) = encoding.encode(text);
            assert!(!replaced, "{name} has no {text:?}");
            bytes.into_owned()
        }
    }
}

fn random_text(words: &[&str], line_end: &str, rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.below(12) {
        // Now and then one that comes in pieces.
        let words_of_line =
            if rng.below(12) == 0 { LINE_PIECE_BYTES / 3 + rng.below(40) } else { rng.below(8) };
        (0..words_of_line).for_each(|_| text += words[rng.below(words.len())]);
        text += match line_end {
            "mixed" => LINE_ENDS[rng.below(3)],
            end => end,
        };
    }
    if rng.below(2) == 0 {
        text += "its end is missing";
    }
    text
}

/// Lines of the whole text at once.
fn lines_slowly(text: &str) -> Vec<Vec<u8>> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    lines.iter().map(|line| line.trim_end_matches('\r').as_bytes().to_vec()).collect()
}

#[test]
fn any_text_in_any_encoding_comes_as_it_was_written() {
    let seed = std::env::var("CAPTURER_SEED").ok().and_then(|seed| seed.parse().ok());
    let rounds = if seed.is_some() { 1 } else { 12 };
    for round in 0..rounds {
        for (name, words) in WORDS {
            for line_end in LINE_ENDS {
                let seed = seed.unwrap_or(round);
                let case = format!("{name}, {line_end:?}, seed {seed}");
                let seen = std::panic::catch_unwind(|| one_text(name, words, line_end, seed));
                assert!(seen.is_ok(), "{case}: see above. CAPTURER_SEED={seed} tries it again");
            }
        }
    }
}

fn one_text(name: &str, words: &[&str], line_end: &str, seed: u64) {
    let mut rng = Rng::seeded(seed);
    let text = random_text(words, line_end, &mut rng);
    let marked = rng.below(2) == 0 && name.starts_with("utf");
    let bytes = encoded(name, &if marked { format!("\u{feff}{text}") } else { text.clone() });
    let format = [FileFormat::Auto, FileFormat::Raw][rng.below(2)];
    let mut host = Host::new(rules((!marked).then_some(name)), format);
    let mut at = 0;
    let parts = 1 + rng.below(12);
    while at < bytes.len() {
        let len =
            if rng.below(3) == 0 { 1 + rng.below(3) } else { 1 + rng.below(2 * bytes.len() / parts + 1) };
        let end = (at + len).min(bytes.len());
        host.append(&bytes[at..end]);
        at = end;
        host.wait([0, 10, 1_000, 4_000, 5_500, 11_000][rng.below(6)]);
        if rng.below(4) == 0 {
            host.kill();
        }
    }
    host.end();
    let show = |lines: &[Vec<u8>]| -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    };
    assert_eq!(show(&host.lines()), show(&lines_slowly(&text)));
}

/// Its end may come byte by byte: it was read from its beginning each time.
#[test]
fn a_line_that_grows_slowly_is_read_about_once() {
    let mut host = Host::new(rules(None), FileFormat::Raw);
    let step = 4_096;
    for _ in 0..200 {
        host.append(&vec![b'x'; step]);
    }
    host.append(b"\n");
    assert_eq!(host.lines(), [vec![b'x'; 200 * step]]);
    // Less than a piece is read again at each growth, and not the line.
    let once = 200 * step as u64;
    assert!(host.read_bytes < 10 * once, "{} bytes read of {once}", host.read_bytes);
}

#[test]
fn an_unfinished_line_comes_in_marked_parts() {
    let part = |message: &[u8], partial, continued| Got {
        message: message.to_vec(),
        partial,
        continued,
        truncated: false,
    };
    let mut host = Host::new(rules(None), FileFormat::Auto);
    host.append(b"one\npass");
    host.wait(2_500);
    assert_eq!(host.got, [part(b"one", false, false)]);
    host.append(b"word");
    host.wait(4_500);
    assert_eq!(host.got.len(), 1, "it grew");
    // What comes just now is a part of its own, for the split was told.
    host.append(b": ");
    host.wait(1_000);
    assert_eq!(host.got[1..], [part(b"password", true, false)]);
    host.wait(6_000);
    host.append(b"x\ntwo\n");
    assert_eq!(host.got[2..], [part(b": ", true, true), part(b"x", false, true), part(b"two", false, false)]);
    // Its end alone is no line.
    host.append(b"three");
    host.wait(6_000);
    host.append(b"\r\nfour\r\n");
    assert_eq!(host.got[5..], [part(b"three", true, false), part(b"four", false, false)]);
    let never = TextRules { unfinished_line_after: std::time::Duration::ZERO, ..rules(None) };
    let mut host = Host::new(never, FileFormat::Auto);
    host.append(b"one");
    host.wait(60_000);
    assert!(host.got.is_empty());
    host.end();
    assert_eq!(host.got, [part(b"one", false, false)]);
}

fn joins_java() -> Settings {
    let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
    parse_config("c.yaml", "pipelines: [{name: p, multiline: {preset: java}}]", &[], &outside)
        .expect("a good config")
}

/// A program that is killed leaves a trace without its last newline, and the group of lines before it waits for that line.
#[test]
fn a_trace_has_its_last_line_without_a_newline_too() {
    let settings = joins_java();
    let host = || Host::with_pipeline(rules(None), FileFormat::Auto, settings.pipelines.first().cloned());
    let got = |message: &str, partial, continued| Got {
        message: message.as_bytes().to_vec(),
        partial,
        continued,
        truncated: false,
    };
    let trace = "ERROR x\njava.lang.Error: x\n\tat a.B.c(B.java:1)";
    for killed_after_ms in [0, 3_500, 4_500, 5_100, 6_500, 9_000] {
        let mut host = host();
        host.append(b"INFO before\n");
        host.append(trace.as_bytes());
        host.wait(killed_after_ms);
        if killed_after_ms > 0 {
            host.kill();
        }
        host.wait(9_000);
        assert_eq!(
            host.got,
            [got("INFO before", false, false), got(trace, true, false)],
            "{killed_after_ms}"
        );
        host.append(b" rest\nnext\n");
        host.wait(3_000);
        assert_eq!(
            host.got[2..],
            [got(" rest", false, true), got("next", false, false)],
            "{killed_after_ms}"
        );
    }
    // Its end came between a kill and the next start.
    let mut late = host();
    late.append(trace.as_bytes());
    late.wait(9_000);
    late.bytes.extend_from_slice(b" rest\n");
    late.kill();
    late.wait(3_000);
    assert_eq!(late.got, [got(trace, true, false), got(" rest", false, true)]);
    // A line that grows and grows holds nothing up.
    let mut growing = host();
    growing.append(b"ERROR x\n.");
    for _ in 0..12 {
        growing.wait(1_000);
        growing.append(b".");
    }
    assert_eq!(growing.got, [got("ERROR x", false, false)]);
    // Nor does one whose end is never waited for.
    let never = TextRules { unfinished_line_after: std::time::Duration::ZERO, ..rules(None) };
    let mut never = Host::with_pipeline(never, FileFormat::Auto, settings.pipelines.first().cloned());
    never.append(b"ERROR x\npart");
    never.wait(3_000);
    assert_eq!(never.got, [got("ERROR x", false, false)]);
}

/// Other agents and applications use Docker's keys, and more.
/// A writer made room for more than a read brings: what it filled of that later was never read.
#[test]
fn room_of_any_length_is_waited_for_and_a_hole_passed_over() {
    const ROOM: usize = 3 * READ_BYTES + 1000;
    let mut host = Host::new(rules(None), FileFormat::Raw);
    host.append(&[b"line 0\n".to_vec(), vec![0; ROOM]].concat());
    let (mut at, mut expected) = (7, vec![b"line 0".to_vec()]);
    for number in 1..20 {
        let line = format!("line {number}\n");
        // A line may be half written when it is looked at.
        let half = line.len() / 2;
        for part in [&line.as_bytes()[..half], &line.as_bytes()[half..]] {
            host.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
            host.wait(1_500);
        }
        expected.push(line.trim_end().as_bytes().to_vec());
    }
    host.wait(60_000);
    assert_eq!(host.lines().len(), expected.len());
    let before = host.read_bytes;
    host.wait(600_000);
    let looks = (host.read_bytes - before) / READ_BYTES as u64;
    assert!(looks <= 40, "{looks} buffers were read of a file that nobody wrote to");
    // The writer skips that room and writes behind it. Nobody fills it any more.
    host.append(b"behind the hole\n");
    expected.push(b"behind the hole".to_vec());
    assert_eq!(host.lines().len(), expected.len());
    host.append(&[0; 2 * ROOM]);
    host.wait(60_000);
    host.end();
    assert_eq!(host.lines(), expected);
}

/// Half a record, a hole longer than a read, and whole ones behind it.
#[test]
fn a_hole_behind_half_a_record_is_passed_over() {
    let record = |text: &str| {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-28T10:00:00.1Z\"}}\n")
    };
    for hole in [70_000, READ_BYTES - 10, 3 * READ_BYTES] {
        let mut host = Host::new(rules(None), FileFormat::Docker);
        let torn = &record("torn")[..20];
        let bytes =
            [record("one").as_bytes(), torn.as_bytes(), &vec![0; hole], record("two").as_bytes()].concat();
        host.append(&[&bytes[..], record("three").as_bytes()].concat());
        host.end();
        let lines: Vec<String> =
            host.lines().iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(lines, ["one", "two", "three"], "{hole}");
    }
}

#[test]
fn of_a_line_that_is_no_record_nothing_is_thrown_away() {
    let time = "2026-11-28T10:00:00.1Z";
    let record = format!(r#"{{"log":"paid\n","stream":"stderr","attrs":{{"tag":"shop"}},"time":"{time}"}}"#);
    let own = format!(r#"{{"time":"{time}","stream":"stdout","log":"failed","order":4711}}"#);
    for lines in [[&own, &record, &own], [&record, &own, &record]] {
        let mut host = Host::new(rules(None), FileFormat::Auto);
        lines.iter().for_each(|line| host.append(format!("{line}\n").as_bytes()));
        let expected = lines.map(|line| if *line == record { b"paid" } else { line.as_bytes() });
        assert_eq!(host.lines(), expected);
    }
    let mut host = Host::new(rules(None), FileFormat::Docker);
    host.append(format!("{own}\n{record}\n").as_bytes());
    host.end();
    assert_eq!(host.lines(), [&b"failed"[..], b"paid"]);
}

/// What may be half of a record, of a line's end, of a hole or of a character waits.
#[test]
fn halves_wait_for_their_other_half() {
    for (format, bytes) in [
        (FileFormat::Auto, &b"{\"log\":\"a"[..]),
        (FileFormat::Auto, b"{\"lo"),
        (FileFormat::Docker, b"{\"log\":\"a"),
        (FileFormat::Cri, b"2026-11-25T10:00:00.1Z stdout F a"),
        (FileFormat::Auto, b"2026-11-25T10:00:00.1Z stdout F a"),
        (FileFormat::Raw, b"\r"),
        (FileFormat::Raw, b"\xe2\x82"),
    ] {
        let mut host = Host::new(rules(None), format);
        host.append(bytes);
        host.wait(20_000);
        assert!(host.got.is_empty(), "{format:?} {bytes:?}: {:?}", host.got);
    }
    let mut host = Host::new(rules(None), FileFormat::Raw);
    host.append(b"a\0\0");
    host.wait(6_000);
    host.append(&[0; 100]);
    host.append(b"next\n");
    assert_eq!(host.lines(), [&b"a"[..], b"next"]);
}

#[test]
fn files_that_are_not_text_are_left_out_where_the_config_says_so() {
    let binary = [7, 0, 1, 2].repeat(500);
    let is_of = |host: &Host| host.source.not_text().map(|(not_text, _)| not_text);
    for (rule, comes, said) in [
        (Binary::Skip, false, Some(NotText::Binary)),
        (Binary::Auto, true, Some(NotText::ReadAllTheSame(None))),
        (Binary::Read, true, None),
    ] {
        let mut host = Host::new(TextRules { binary: rule, ..rules(None) }, FileFormat::Auto);
        host.append(&binary);
        host.append(b"\n");
        assert_eq!(!host.got.is_empty(), comes, "{rule:?}");
        assert_eq!(is_of(&host), said, "{rule:?}");
        assert!(comes || host.source.unread_bytes().0 == 0);
        let read_bytes = host.read_bytes;
        host.append(&binary);
        assert_eq!(host.read_bytes > read_bytes, comes, "{rule:?}");
    }
    let mut host = Host::new(rules(None), FileFormat::Auto);
    host.append(b"\xff\xfe\0\0a\0\0\0\n\0\0\0");
    assert!(host.got.is_empty());
    assert_eq!(is_of(&host), Some(NotText::Utf32));

    // Somebody's log, unlike what is just binary: health says how to have it.
    let mut host = Host::new(TextRules { binary: Binary::Skip, ..rules(None) }, FileFormat::Auto);
    let utf16: Vec<u8> = "a line of a log\n".repeat(100).encode_utf16().flat_map(u16::to_le_bytes).collect();
    host.append(&utf16);
    assert!(host.got.is_empty());
    let seems = NotText::SeemsEncoded(Seems::Utf16Le);
    assert_eq!(is_of(&host), Some(seems));
    assert!(seems.text("/x").contains("set `encoding: utf-16le`"));
    let named = NotText::ReadAllTheSame(Some(Seems::Utf16Be)).text("/x");
    assert!(named.contains("looks like utf-16be, so set `encoding: utf-16be`"), "{named}");
    let mut host = Host::new(TextRules { binary: Binary::Skip, ..rules(None) }, FileFormat::Auto);
    host.append(&encoding_rs::KOI8_R.encode(&"журнал программы\n".repeat(100)).0);
    assert!(host.got.is_empty());
    assert_eq!(is_of(&host), Some(NotText::SeemsEncoded(Seems::Ascii)));
}

/// Health names the cure. Whoever applies it finds the whole log.
#[test]
fn what_was_left_out_comes_once_the_config_says_how_to_read_it() {
    let bytes = encoding_rs::WINDOWS_1251.encode(&"журнал программы\n".repeat(100)).0.into_owned();
    let left_out = TextRules { binary: Binary::Skip, ..rules(None) };
    let decoded = TextRules { binary: Binary::Skip, ..rules(Some("windows-1251")) };
    for cure in [decoded, TextRules { binary: Binary::Read, ..rules(None) }] {
        let mut host = Host::new(left_out, FileFormat::Auto);
        host.append(&bytes);
        host.append(&bytes);
        host.wait(20_000);
        host.kill();
        assert!(host.got.is_empty() && host.source.is_left_out());
        assert_eq!(host.source.unread_bytes().0, 0);
        host.wait(20_000);
        host.rules = cure;
        host.kill();
        assert_eq!(host.got.len(), 200, "{cure:?}");
    }
}
