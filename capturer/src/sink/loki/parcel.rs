//! An encoded request as it is stored and sent: in the spool's snappy blocks, so that bytes are compressed only once on
//! their way, or plain if a request was cut up. Cheap to copy. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;

use super::{refusals, wire};
use crate::sink::spool::block;

/// An encoded request; see the head of this file. The default has no line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parcel {
    bytes: Bytes,
    /// Length of the request, if `bytes` are a snappy block of it.
    packed_len: Option<usize>,
}

impl Parcel {
    /// An encoded request.
    pub fn plain(request: Vec<u8>) -> Parcel {
        Parcel { bytes: request.into(), packed_len: None }
    }

    /// A snappy block of an encoded request of this length.
    pub fn packed(block: impl Into<Bytes>, len: usize) -> Parcel {
        Parcel { bytes: block.into(), packed_len: Some(len) }
    }

    /// It has no line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the encoded request.
    pub fn len(&self) -> usize {
        self.packed_len.unwrap_or(self.bytes.len())
    }

    /// The encoded request.
    pub fn request(&self) -> Cow<'_, [u8]> {
        if self.packed_len.is_none() {
            return Cow::Borrowed(&self.bytes);
        }
        let request = snap::raw::Decoder::new().decompress_vec(&self.bytes);
        Cow::Owned(request.unwrap_or_else(|error| {
            // Its checksum was right, so it was packed like that.
            tracing::error!(
                bytes = self.bytes.len(),
                "loki: a request of the spool can't be unpacked: {error}; its lines are lost, which is a bug"
            );
            Vec::new()
        }))
    }

    /// A snappy block of the encoded request.
    pub fn block(&self) -> Bytes {
        if self.packed_len.is_some() { self.bytes.clone() } else { block::pack(&[], &self.bytes).into() }
    }

    /// The labels of its first label set.
    pub fn labels(&self) -> String {
        let parts = self.packed_len.and_then(|_| block::parts(&self.bytes));
        let labels = parts.and_then(|parts| wire::read_head(parts.head).map(str::to_owned));
        labels.unwrap_or_else(|| wire::labels(&self.request()))
    }

    /// The same without structured metadata, which a Loki may refuse.
    pub fn without_metadata(self) -> Parcel {
        let mut request = refusals::decode(&self.request());
        let entries = request.streams.iter_mut().flat_map(|stream| &mut stream.entries);
        let mut had_any = false;
        for entry in entries {
            had_any |= !std::mem::take(&mut entry.structured_metadata).is_empty();
        }
        if had_any { Parcel::plain(request.encode_to_vec()) } else { self }
    }

    /// One request of several of the same label set: put together as they are, if all are packed.
    pub fn join(mut parcels: Vec<Parcel>) -> Parcel {
        if parcels.len() == 1 {
            return parcels.remove(0);
        }
        Parcel::join_packed(&parcels).unwrap_or_else(|| {
            let requests: Vec<_> = parcels.iter().map(Parcel::request).collect();
            Parcel::plain(wire::join(&requests))
        })
    }

    fn join_packed(parcels: &[Parcel]) -> Option<Parcel> {
        let parts = |parcel: &Parcel| {
            let parts = parcel.packed_len.and_then(|_| block::parts(&parcel.bytes));
            parts.map(|parts| {
                (wire::read_head(parts.head).map(str::to_owned), (parts.rest.len(), parts.rest_len))
            })
        };
        let parts: Vec<_> = parcels.iter().map(parts).collect::<Option<_>>()?;
        let labels = parts.first()?.0.as_deref()?;
        if parts.iter().any(|(other, _)| other.as_deref() != Some(labels)) {
            return None;
        }
        let entries_len = parts.iter().map(|(_, (_, len))| len).sum();
        let head = wire::head(labels, entries_len);
        let rests = parcels.iter().zip(&parts);
        let rests = rests.map(|(parcel, (_, (packed, _)))| &parcel.bytes[parcel.bytes.len() - packed..]);
        let len = head.len() + entries_len;
        Some(Parcel::packed(block::join(&head, len, rests), len))
    }
}

#[cfg(test)]
impl Parcel {
    /// A request of one label set as the spool has it.
    pub fn as_in_spool(request: &super::push::PushRequest) -> Parcel {
        let encoded = request.encode_to_vec();
        let entries_len = request.streams[0].entries.iter().fold(0, |len, entry| {
            let entry = entry.encoded_len();
            len + 1 + prost::length_delimiter_len(entry) + entry
        });
        let (head, entries) = encoded.split_at(encoded.len() - entries_len);
        Parcel::packed(block::pack(head, entries), encoded.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Rng;
    use super::super::push::{EntryAdapter, LabelPairAdapter, PushRequest, StreamAdapter, Timestamp};
    use super::*;

    /// As the spool has it; some as an older agent packed it.
    fn parcel(request: &PushRequest, rng: &mut Rng, older: bool) -> Parcel {
        let encoded = request.encode_to_vec();
        match (older, rng.below(3)) {
            (true, 0) => Parcel::plain(encoded),
            (true, 1) => {
                Parcel::packed(snap::raw::Encoder::new().compress_vec(&encoded).unwrap(), encoded.len())
            }
            _ => Parcel::as_in_spool(request),
        }
    }

    /// Whatever is joined, and however it was packed: what Loki unpacks is one stream with all lines in order.
    #[test]
    fn joined_as_if_they_had_been_unpacked() {
        let mut rng = Rng::from_env();
        for round in 0..400 {
            let labels = format!("{{a={:?}}}", rng.text(200));
            let entry = |rng: &mut Rng| EntryAdapter {
                timestamp: Some(Timestamp::from_ns(rng.next() as i64 >> 3)),
                // Much of one line stands in the next one: compressed together they would refer to each other.
                line: "GET /index.html ".repeat(rng.below(9)) + &rng.text(40),
                ..Default::default()
            };
            let requests: Vec<PushRequest> = (0..1 + rng.below(5))
                .map(|_| {
                    let entries = (0..1 + rng.below(40)).map(|_| entry(&mut rng)).collect();
                    PushRequest { streams: vec![StreamAdapter { labels: labels.clone(), entries }] }
                })
                .collect();
            let older = round % 2 == 0;
            let parcels: Vec<Parcel> =
                requests.iter().map(|request| parcel(request, &mut rng, older)).collect();
            let whole = Parcel::join(parcels);
            assert!(older || whole.packed_len.is_some(), "as it is");
            let unpacked = snap::raw::Decoder::new().decompress_vec(&whole.block()).unwrap();
            assert_eq!((&*whole.request(), whole.len()), (&unpacked[..], unpacked.len()));
            let read = PushRequest::decode(unpacked.as_slice()).unwrap();
            let entries = requests.into_iter().flat_map(|request| request.streams[0].entries.clone());
            assert_eq!(read.streams.len(), 1, "Loki answers for the last one only");
            assert_eq!(read.streams[0].labels, labels);
            assert_eq!(read.streams[0].entries, entries.collect::<Vec<_>>());
            assert_eq!(whole.labels(), labels);
        }
    }

    #[test]
    fn metadata_is_taken_off_and_nothing_else() {
        let pair = LabelPairAdapter { name: "q".to_owned(), value: "1".to_owned() };
        let with = |metadata: &[LabelPairAdapter]| EntryAdapter {
            timestamp: Some(Timestamp::from_ns(7)),
            line: "x".to_owned(),
            structured_metadata: metadata.to_vec(),
        };
        let of = |entries| PushRequest {
            streams: vec![StreamAdapter { labels: "{a=\"1\"}".to_owned(), entries }],
        };
        let parcel = Parcel::as_in_spool(&of(vec![with(&[pair]), with(&[])]));
        let stripped = parcel.without_metadata();
        assert_eq!(refusals::decode(&stripped.request()), of(vec![with(&[]), with(&[])]));
        let plain = Parcel::as_in_spool(&of(vec![with(&[])]));
        assert_eq!(plain.clone().without_metadata(), plain, "as it is: it was compressed once");
        assert_eq!(Parcel::default().without_metadata(), Parcel::default());
    }

    #[test]
    fn other_label_sets_and_nothing_at_all() {
        let of = |labels: &str| {
            let entries = vec![EntryAdapter { line: "x".to_owned(), ..Default::default() }];
            let request = PushRequest { streams: vec![StreamAdapter { labels: labels.to_owned(), entries }] };
            Parcel::as_in_spool(&request)
        };
        let both = Parcel::join(vec![of("{a=\"1\"}"), of("{a=\"2\"}")]);
        assert_eq!(PushRequest::decode(&*both.request()).unwrap().streams.len(), 2);
        assert_eq!(Parcel::join(Vec::new()), Parcel::default());
        assert!(Parcel::default().is_empty() && Parcel::default().labels().is_empty());
    }
}
