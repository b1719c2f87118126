//! Requests to the test Loki, read from the connection: HTTP, and pushes in either encoding.

use std::io::{self, Read};

use anyhow::{Context as _, Result, bail, ensure};
use capturer::testing::{EntryAdapter, PushRequest, StreamAdapter, Timestamp, label_text};
use prost::Message as _;
use serde_json::Value;

pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(of).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

pub(super) fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Option<Request>> {
    let mut chunk = vec![0; 64 * 1024];
    let mut fill = |buffer: &mut Vec<u8>| -> io::Result<usize> {
        let count = stream.read(&mut chunk)?;
        buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    };
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if fill(buffer)? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer.drain(..head_len).collect())?;
    let mut request = Request { head, body: Vec::new() };
    let len: usize = request.header("content-length").context("no length")?.parse()?;
    while buffer.len() < len {
        ensure!(fill(buffer)? > 0, "closed within a body");
    }
    request.body = buffer.drain(..len).collect();
    Ok(Some(request))
}

/// Both forms that Loki documents.
pub(super) fn read_push(request: &Request) -> Result<PushRequest> {
    match request.header("content-type") {
        Some("application/x-protobuf") => {
            let body = snap::raw::Decoder::new().decompress_vec(&request.body)?;
            Ok(PushRequest::decode(body.as_slice())?)
        }
        Some("application/json") => {
            ensure!(request.header("content-encoding") == Some("gzip"), "JSON comes with gzip");
            let json: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&request.body[..]))?;
            let streams = json["streams"].as_array().context("no streams")?;
            Ok(PushRequest { streams: streams.iter().map(read_stream).collect::<Result<_>>()? })
        }
        other => bail!("Content-Type {other:?}"),
    }
}

fn read_stream(stream: &Value) -> Result<StreamAdapter> {
    let labels = stream["stream"].as_object().context("no labels")?;
    let labels =
        label_text(labels.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())));
    let values = stream["values"].as_array().context("no values")?;
    let entry = |value: &Value| {
        let time_ns: i64 = value[0].as_str().context("no time")?.parse()?;
        let line = value[1].as_str().context("no line")?.to_owned();
        Ok(EntryAdapter {
            timestamp: Some(Timestamp::from_ns(time_ns)),
            line,
            structured_metadata: Vec::new(),
        })
    };
    Ok(StreamAdapter { labels, entries: values.iter().map(entry).collect::<Result<_>>()? })
}
