//! A profile in pprof's format, gzipped: for `go tool pprof`, speedscope and profile stores. The fields are those of
//! github.com/google/pprof/proto/profile.proto; empty ones are omitted.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::{Frame, HERTZ, Profile};

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Numbers values in the order of their first use, from 0.
struct Numbers<T>(BTreeMap<T, u64>);

impl<T: Ord> Numbers<T> {
    fn of(&mut self, thing: T) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(thing).or_insert(next)
    }

    fn in_order(self) -> Vec<T> {
        let mut all: Vec<(T, u64)> = self.0.into_iter().collect();
        all.sort_by_key(|(_, number)| *number);
        all.into_iter().map(|(thing, _)| thing).collect()
    }
}

/// The gzipped profile; see the head of this file.
pub(crate) fn pprof(profile: &Profile) -> Vec<u8> {
    let bytes = file(profile).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = gzip.write_all(&bytes);
    gzip.finish().unwrap_or_default()
}

fn file(profile: &Profile) -> File {
    let mut texts = Numbers(BTreeMap::new());
    let mut text = |text: &str| texts.of(text.to_owned()) as i64;
    // The first string must be empty: 0 means none.
    text("");
    let (count, cpu) = (
        ValueType { kind: text("samples"), unit: text("count") },
        ValueType { kind: text("cpu"), unit: text("nanoseconds") },
    );
    let period = 1_000_000_000 / i64::from(HERTZ);
    let mut frames = Numbers(BTreeMap::<&Frame, u64>::new());
    let mut sample = Vec::new();
    for (stack, samples) in &profile.stacks {
        let samples = i64::try_from(*samples).unwrap_or(i64::MAX);
        sample.push(Sample {
            // Numbers in the file begin with 1.
            location_id: stack.frames.iter().rev().map(|frame| frames.of(frame) + 1).collect(),
            value: vec![samples, samples.saturating_mul(period)],
            label: vec![Label { key: text("thread"), text: text(&stack.thread) }],
        });
    }
    let mut functions = Numbers(BTreeMap::<(&str, &str), u64>::new());
    let mut location = Vec::new();
    for (frame, id) in frames.in_order().into_iter().zip(1..) {
        let function_id = functions.of((&*frame.name, &*frame.file)) + 1;
        location.push(Location { id, line: vec![Line { function_id, line: frame.line.into() }] });
    }
    let function = |(index, (name, file)): (usize, (&str, &str))| {
        let name = text(name);
        Function { id: index as u64 + 1, name, system_name: name, filename: text(file) }
    };
    let function = functions.in_order().into_iter().enumerate().map(function).collect();
    let comment = if profile.note.is_empty() { Vec::new() } else { vec![text(&profile.note)] };
    File {
        sample_type: vec![count, cpu],
        sample,
        location,
        function,
        string_table: texts.in_order(),
        time_nanos: profile.began_ns,
        duration_nanos: i64::try_from(profile.time.as_nanos()).unwrap_or(i64::MAX),
        period_type: Some(cpu),
        period,
        comment,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::Stack;
    use super::*;

    #[test]
    fn every_number_leads_to_its_name() {
        let frame = |name: &str, line| Frame { name: name.into(), file: "a.rs".into(), line };
        let stacks = [
            (Stack { thread: "sink".into(), frames: vec![frame("main", 1), frame("write", 7)] }, 3),
            (Stack { thread: "admin".into(), frames: vec![frame("main", 1), frame("write", 9)] }, 2),
        ];
        let profile = Profile { stacks: stacks.into(), note: "cut".into(), ..Profile::default() };
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*pprof(&profile)).read_to_end(&mut bytes).expect("gzip");
        let file = File::decode(&*bytes).expect("pprof");
        let text = |number: i64| file.string_table[number as usize].as_str();
        assert_eq!(text(0), "");
        let types: Vec<_> = file.sample_type.iter().map(|of| (text(of.kind), text(of.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!(file.comment.iter().map(|number| text(*number)).collect::<Vec<_>>(), ["cut"]);
        assert_eq!(file.function.len(), 2, "one for each name");
        let mut seen = Vec::new();
        for sample in &file.sample {
            let thread = text(sample.label[0].text);
            for id in &sample.location_id {
                let location = file.location.iter().find(|location| location.id == *id).expect("a location");
                let line = location.line[0];
                let function = file.function.iter().find(|of| of.id == line.function_id).expect("a function");
                seen.push((thread, text(function.name), text(function.filename), line.line, sample.value[0]));
            }
        }
        let expected = [
            ("admin", "write", "a.rs", 9, 2),
            ("admin", "main", "a.rs", 1, 2),
            ("sink", "write", "a.rs", 7, 3),
            ("sink", "main", "a.rs", 1, 3),
        ];
        assert_eq!(seen, expected);
        assert_eq!(file.sample[0].value[1], 2 * file.period);
    }
}
