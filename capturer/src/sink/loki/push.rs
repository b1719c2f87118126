//! The messages of Loki's push API, field numbers as published (Loki: pkg/push/push.proto), and how label sets are
//! written in them. What only Loki itself uses (`hash`, `parsed`, `format`) is left out.

use std::fmt::Write as _;

/// One push: lines of one or more label sets. Two encoded requests, one behind the other, are one request with the
/// streams of both: so requests are put together without being taken apart.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushRequest {
    /// Each with its lines.
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<StreamAdapter>,
}

/// Lines of one label set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamAdapter {
    /// `{name="value", …}`.
    #[prost(string, tag = "1")]
    pub labels: String,
    /// Lines, in the order in which they were written.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<EntryAdapter>,
}

/// One line with its time and metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EntryAdapter {
    /// When it was printed.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// The text of the line.
    #[prost(string, tag = "2")]
    pub line: String,
    /// What else is kept with it.
    #[prost(message, repeated, tag = "3")]
    pub structured_metadata: Vec<LabelPairAdapter>,
}

/// A name with a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelPairAdapter {
    /// Letters, digits and `_`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value, which may be any text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Whole seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 … 999,999,999, also before 1970.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub fn from_ns(ns: i64) -> Timestamp {
        Timestamp { seconds: ns.div_euclid(1_000_000_000), nanos: ns.rem_euclid(1_000_000_000) as i32 }
    }

    /// To nanoseconds since 1970.
    pub fn to_ns(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }
}

impl PushRequest {
    /// Lines of all streams.
    pub fn lines(&self) -> usize {
        self.streams.iter().map(|stream| stream.entries.len()).sum()
    }

    /// Cuts it behind that many lines, order kept.
    pub fn split_at(mut self, lines: usize) -> (PushRequest, PushRequest) {
        let mut keep = lines;
        let mut second = PushRequest::default();
        for stream in &mut self.streams {
            let rest = stream.entries.split_off(keep.min(stream.entries.len()));
            keep -= stream.entries.len();
            if !rest.is_empty() {
                second.streams.push(StreamAdapter { labels: stream.labels.clone(), entries: rest });
            }
        }
        self.streams.retain(|stream| !stream.entries.is_empty());
        (self, second)
    }
}

/// A label set as Loki reads it: PromQL's strings, so that nothing in a value can end it early.
pub fn label_text<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = "{".to_owned();
    for (name, value) in labels {
        if text.len() > 1 {
            text.push_str(", ");
        }
        let _ = write!(text, "{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                c if c.is_control() => {
                    let _ = write!(text, "\\u{:04x}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// Reads [`label_text`] back; `None` for what it would not have written.
pub fn read_label_text(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = tail.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    'u' => {
                        let hex: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        value.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                    }
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &tail[end + 1..];
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::super::testing::Rng;
    use super::*;

    fn request(sizes: &[usize]) -> PushRequest {
        let mut line = 0..;
        let stream = |(index, size): (usize, &usize)| StreamAdapter {
            labels: format!("{{s=\"{index}\"}}"),
            entries: (0..*size)
                .map(|_| EntryAdapter { line: line.next().unwrap_or(0).to_string(), ..Default::default() })
                .collect(),
        };
        PushRequest { streams: sizes.iter().enumerate().map(stream).collect() }
    }

    fn lines(request: &PushRequest) -> Vec<String> {
        request.streams.iter().flat_map(|stream| &stream.entries).map(|entry| entry.line.clone()).collect()
    }

    #[test]
    fn both_parts_hold_all_lines_in_order() {
        for sizes in [&[2][..], &[1, 1], &[3, 1, 5], &[1, 7], &[20]] {
            let whole = request(sizes);
            for at in 0..=whole.lines() {
                let (first, second) = whole.clone().split_at(at);
                assert_eq!(first.lines(), at);
                assert_eq!([lines(&first), lines(&second)].concat(), lines(&whole), "{sizes:?}");
                assert!(first.streams.iter().chain(&second.streams).all(|stream| !stream.entries.is_empty()));
            }
        }
    }

    /// The spool hands out encoded requests, which are sent together without being decoded.
    #[test]
    fn encoded_requests_behind_each_other_are_one() {
        let (a, b) = (request(&[2, 1]), request(&[3]));
        let both = [a.encode_to_vec(), b.encode_to_vec()].concat();
        let read = PushRequest::decode(both.as_slice()).unwrap();
        assert_eq!(read.streams, [a.streams, b.streams].concat());
    }

    #[test]
    fn times_before_and_after_1970() {
        for ns in [0, 1, -1, 1_763_772_768_162_820_305, -1_500_000_000, i64::MAX, i64::MIN + 1_000_000_000] {
            let time = Timestamp::from_ns(ns);
            assert!((0..1_000_000_000).contains(&time.nanos));
            assert_eq!(time.to_ns(), ns);
        }
    }

    /// Without the escapes a container's name could end the string and bring labels of its own.
    #[test]
    fn label_texts_can_be_read_back_whatever_is_in_them() {
        assert_eq!(
            label_text([("a", "x"), ("b", "\"\\\n\u{1}")].into_iter()),
            r#"{a="x", b="\"\\\n\u0001"}"#
        );
        let mut rng = Rng::from_env();
        for _ in 0..2_000 {
            let values: Vec<(String, String)> =
                (0..rng.below(4)).map(|index| (format!("l{index}"), rng.text(60))).collect();
            let text = label_text(values.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            assert_eq!(read_label_text(&text), Some(values), "{text}");
        }
    }
}
