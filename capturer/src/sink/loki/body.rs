//! The body of a push: protobuf with snappy, or JSON with gzip for proxies that look into bodies. Pure.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::parcel::Parcel;
use super::push::{PushRequest, read_label_text};
use crate::settings::LokiFormat;

/// A body, and the headers that describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// What is sent.
    pub bytes: Bytes,
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// `Content-Encoding`. snappy has none: it belongs to the type, and Loki knows no such encoding.
    pub content_encoding: Option<&'static str>,
}

/// Packs a request.
///
/// # Errors
/// The bytes are no encoded request.
pub fn pack(format: LokiFormat, request: &Parcel) -> io::Result<Body> {
    match format {
        LokiFormat::Protobuf => Ok(Body {
            bytes: request.block(),
            content_type: "application/x-protobuf",
            content_encoding: None,
        }),
        LokiFormat::Json => {
            let request = PushRequest::decode(&*request.request()).map_err(io::Error::other)?;
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&encode(&request))?;
            let bytes = packed.finish()?.into();
            Ok(Body { bytes, content_type: "application/json", content_encoding: Some("gzip") })
        }
    }
}

/// `{"streams":[{"stream":{…},"values":[["<ns>","<line>",{…}],…]},…]}`.
fn encode(request: &PushRequest) -> Vec<u8> {
    let streams: Vec<Value> = request
        .streams
        .iter()
        .map(|stream| {
            let labels = read_label_text(&stream.labels).unwrap_or_default().into_iter();
            let labels: Map<String, Value> =
                labels.map(|(name, value)| (name, Value::String(value))).collect();
            let values: Vec<Value> = stream
                .entries
                .iter()
                .map(|entry| {
                    let time = entry.timestamp.unwrap_or_default().to_ns().to_string();
                    let metadata = entry.structured_metadata.iter();
                    let metadata: Map<String, Value> =
                        metadata.map(|pair| (pair.name.clone(), Value::String(pair.value.clone()))).collect();
                    if metadata.is_empty() {
                        json!([time, entry.line])
                    } else {
                        json!([time, entry.line, metadata])
                    }
                })
                .collect();
            json!({"stream": labels, "values": values})
        })
        .collect();
    json!({"streams": streams}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::push::{EntryAdapter, LabelPairAdapter, StreamAdapter, Timestamp};
    use super::*;

    #[test]
    fn as_documented() {
        let pair = LabelPairAdapter { name: "image".to_owned(), value: "a\"b".to_owned() };
        let entry = EntryAdapter {
            timestamp: Some(Timestamp::from_ns(1_763_772_768_162_820_305)),
            line: "hi\n".to_owned(),
            structured_metadata: vec![pair],
        };
        let plain = EntryAdapter { structured_metadata: Vec::new(), ..entry.clone() };
        let labels = r#"{a="x", b="\"\n"}"#.to_owned();
        let request = PushRequest { streams: vec![StreamAdapter { labels, entries: vec![entry, plain] }] };
        let expected = r#"{"streams":[{"stream":{"a":"x","b":"\"\n"},"values":[["1763772768162820305","hi\n",{"image":"a\"b"}],["1763772768162820305","hi\n"]]}]}"#;
        assert_eq!(String::from_utf8(encode(&request)).unwrap(), expected);
    }
}
