//! Encoded push requests without taking them apart: joined, and looked at for their labels and oldest time. A batch of
//! thousands of lines passes here each second, so nothing is allocated per line. Pure.
//!
//! ```text
//! request = 0A len ( 0A len labels ) ( 12 len ( 0A len ( 08 seconds, 10 nanos ) 12 len line … ) )*
//! ```
//! That is how prost writes what we give it. Whatever is written otherwise is decoded instead.

use prost::Message as _;

use super::push::{PushRequest, StreamAdapter, Timestamp};

/// A request of one label set: its labels and its entries, both as they are encoded.
struct OneStream<'a> {
    labels: &'a str,
    entries: &'a [u8],
}

/// A length that was read off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The field's bytes, if the next field has this tag.
fn field<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (first, mut rest) = bytes.split_first()?;
    if *first != tag {
        return None;
    }
    let len = usize::try_from(varint(&mut rest)?).ok()?;
    let (field, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(field)
}

fn one_stream(mut body: &[u8]) -> Option<OneStream<'_>> {
    let mut stream = field(&mut body, 0x0a)?;
    let labels = std::str::from_utf8(field(&mut stream, 0x0a)?).ok()?;
    body.is_empty().then_some(OneStream { labels, entries: stream })
}

/// What stands before the encoded entries of a request of one label set.
pub fn head(labels: &str, entries_len: usize) -> Vec<u8> {
    let labels_len = 1 + prost::length_delimiter_len(labels.len()) + labels.len();
    let mut head = Vec::with_capacity(labels_len + 12);
    let mut put = |len: usize| {
        head.push(0x0a);
        // A vector takes whatever comes.
        let _ = prost::encode_length_delimiter(len, &mut head);
    };
    put(labels_len + entries_len);
    put(labels.len());
    head.extend_from_slice(labels.as_bytes());
    head
}

/// The labels in a [`head`] of which the first byte was taken off.
pub fn read_head(mut bytes: &[u8]) -> Option<&str> {
    varint(&mut bytes)?;
    let labels = field(&mut bytes, 0x0a)?;
    if bytes.is_empty() { std::str::from_utf8(labels).ok() } else { None }
}

/// One request of several of the same label set. Loki answers for the last stream of a request only, so it must be one
/// stream, and not several with equal labels.
pub fn join<B: AsRef<[u8]>>(bodies: &[B]) -> Vec<u8> {
    if let [only] = bodies {
        return only.as_ref().to_vec();
    }
    let streams: Option<Vec<OneStream>> = bodies.iter().map(|body| one_stream(body.as_ref())).collect();
    let Some(streams) =
        streams.filter(|streams| streams.windows(2).all(|two| two[0].labels == two[1].labels))
    else {
        return join_decoded(bodies);
    };
    let Some(first) = streams.first() else { return Vec::new() };
    let entries_len = streams.iter().map(|stream| stream.entries.len()).sum();
    let mut joined = head(first.labels, entries_len);
    joined.reserve_exact(entries_len);
    streams.iter().for_each(|stream| joined.extend_from_slice(stream.entries));
    joined
}

fn join_decoded<B: AsRef<[u8]>>(bodies: &[B]) -> Vec<u8> {
    let mut joined: Vec<StreamAdapter> = Vec::new();
    let requests = bodies.iter().map(|body| PushRequest::decode(body.as_ref()).unwrap_or_default());
    for stream in requests.flat_map(|request| request.streams) {
        match joined.iter_mut().find(|known| known.labels == stream.labels) {
            Some(known) => known.entries.extend(stream.entries),
            None => joined.push(stream),
        }
    }
    PushRequest { streams: joined }.encode_to_vec()
}

/// The labels of a request's first stream.
pub fn labels(body: &[u8]) -> String {
    match one_stream(body) {
        Some(stream) => stream.labels.to_owned(),
        None => {
            let request = PushRequest::decode(body).unwrap_or_default();
            request.streams.into_iter().next().map(|stream| stream.labels).unwrap_or_default()
        }
    }
}

/// The oldest time of any line in it; `None` = it has no line.
pub fn oldest_ns(body: &[u8]) -> Option<i64> {
    let scan = || {
        let mut entries = one_stream(body)?.entries;
        let mut oldest = i64::MAX;
        while !entries.is_empty() {
            let mut entry = field(&mut entries, 0x12)?;
            oldest = oldest.min(time(field(&mut entry, 0x0a)?)?);
        }
        Some(oldest)
    };
    let decoded = || {
        let request = PushRequest::decode(body).unwrap_or_default();
        let entries = request.streams.iter().flat_map(|stream| &stream.entries);
        entries.map(|entry| entry.timestamp.unwrap_or_default().to_ns()).min()
    };
    scan().map_or_else(decoded, |oldest| (oldest < i64::MAX).then_some(oldest))
}

/// Zeros are left out when a message is encoded.
fn time(mut bytes: &[u8]) -> Option<i64> {
    let mut time = Timestamp::default();
    while let Some((tag, mut rest)) = bytes.split_first() {
        let value = varint(&mut rest)?;
        bytes = rest;
        match tag {
            0x08 => time.seconds = value as i64,
            0x10 => time.nanos = i32::try_from(value).ok()?,
            _ => return None,
        }
    }
    Some(time.to_ns())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Rng;
    use super::super::push::EntryAdapter;
    use super::*;

    fn request(rng: &mut Rng, labels: &str) -> PushRequest {
        let entry = |rng: &mut Rng| EntryAdapter {
            timestamp: Some(Timestamp::from_ns(match rng.below(4) {
                0 => 0,
                1 => -(rng.below(1 << 40) as i64),
                2 => rng.below(1 << 30) as i64 * 1_000_000_000,
                _ => rng.next() as i64 >> 2,
            })),
            line: rng.text(300),
            ..Default::default()
        };
        let entries = (0..1 + rng.below(5)).map(|_| entry(rng)).collect();
        PushRequest { streams: vec![StreamAdapter { labels: labels.to_owned(), entries }] }
    }

    /// The short way says what the long way says.
    #[test]
    fn as_if_it_were_decoded() {
        let mut rng = Rng::from_env();
        for _ in 0..500 {
            let labels_text = format!("{{a={:?}}}", rng.text(200));
            let requests: Vec<PushRequest> =
                (0..1 + rng.below(4)).map(|_| request(&mut rng, &labels_text)).collect();
            let bodies: Vec<Vec<u8>> = requests.iter().map(prost::Message::encode_to_vec).collect();
            let entries: Vec<EntryAdapter> =
                requests.iter().flat_map(|request| request.streams[0].entries.clone()).collect();
            let whole = join(&bodies);
            let read = PushRequest::decode(whole.as_slice()).unwrap();
            assert_eq!(read.streams.len(), 1, "one stream");
            assert_eq!((&read.streams[0].labels, &read.streams[0].entries), (&labels_text, &entries));
            assert_eq!(whole, join_decoded(&bodies));
            assert_eq!(labels(&whole), labels_text);
            let oldest = entries.iter().map(|entry| entry.timestamp.unwrap().to_ns()).min();
            assert_eq!(oldest_ns(&whole), oldest);
        }
        assert_eq!((join::<Vec<u8>>(&[]), oldest_ns(&[]), labels(&[])), (Vec::new(), None, String::new()));
    }

    #[test]
    fn other_bytes_are_decoded_or_nothing() {
        let mut rng = Rng::from_env();
        let two = PushRequest {
            streams: [request(&mut rng, "{a=\"1\"}"), request(&mut rng, "{a=\"2\"}")]
                .into_iter()
                .flat_map(|request| request.streams)
                .collect(),
        };
        let body = two.encode_to_vec();
        assert_eq!(labels(&body), "{a=\"1\"}");
        let entries = two.streams.iter().flat_map(|stream| &stream.entries);
        assert_eq!(oldest_ns(&body), entries.map(|entry| entry.timestamp.unwrap().to_ns()).min());
        for _ in 0..2_000 {
            let bytes = rng.bytes(60);
            (labels(&bytes), oldest_ns(&bytes), join(&[bytes.clone(), bytes])).0.clear();
        }
    }
}
