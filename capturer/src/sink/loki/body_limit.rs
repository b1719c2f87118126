//! The largest request that gets through: something on the way, often a proxy, may answer 413 to requests smaller than
//! `sinks.loki.batch_size`. After such a refusal all requests become smaller, until they pass. This must outlast the
//! refused request: its lines may have to be read from the spool again, at their original size. Pure.

use bytesize::ByteSize;

use super::nouns::LEARNED_MS;
use super::parcel::Parcel;
use super::push::PushRequest;
use super::report::short;

/// Requests are not made smaller than this because of a limit: a single line may be this long.
const BYTES_MIN: usize = 1024;

/// The limit; see the head of this file.
#[derive(Debug)]
pub(super) struct BodyLimit {
    /// The configured size.
    set: usize,
    /// Bytes of a request before it is compressed.
    now: usize,
    /// The smallest that the log was told about; 0 = none.
    told: usize,
    /// A request has passed since the last one was refused.
    passes: bool,
    refused: Option<RefusedBody>,
}

/// The last request that was too large.
#[derive(Debug)]
struct RefusedBody {
    at_ms: u64,
    /// Its compressed length.
    sent: usize,
    words: String,
}

impl BodyLimit {
    pub(super) fn new(set: usize) -> BodyLimit {
        BodyLimit { set, now: set, told: 0, passes: false, refused: None }
    }

    /// The most bytes that requests may have, before they are compressed.
    pub(super) fn bytes(&self) -> usize {
        self.now
    }

    /// Whether it is less than the config says.
    pub(super) fn is_lowered(&self) -> bool {
        self.now < self.set
    }

    /// A request of several lines was refused for its size.
    pub(super) fn on_too_large(&mut self, now_ms: u64, body: &Parcel, (code, words): (u16, &str)) {
        self.now = self.now.min((body.len() / 2).max(BYTES_MIN.min(self.set)));
        self.passes = false;
        let words = match words.trim() {
            "" => format!("status {code}"),
            words => format!("status {code}: {}", short(words)),
        };
        self.refused = Some(RefusedBody { at_ms: now_ms, sent: body.block().len(), words });
    }

    /// A request was accepted.
    pub(super) fn on_accepted(&mut self) {
        self.passes = true;
    }

    /// No refusal for a long time: larger requests are tried.
    pub(super) fn on_time(&mut self, now_ms: u64) {
        let Some(refused) = self.refused.as_mut().filter(|refused| now_ms >= refused.at_ms + LEARNED_MS)
        else {
            return;
        };
        refused.at_ms = now_ms;
        if self.now == self.set {
            // Those passed as well.
            (self.refused, self.told) = (None, 0);
        }
        self.now = self.now.saturating_mul(2).min(self.set);
    }

    /// The limit that was found, and which settings to change; `None` = no limit is known.
    pub(super) fn note(&self) -> Option<String> {
        let refused = self.refused.as_ref()?;
        let size = |bytes: usize| ByteSize(bytes as u64).display().iec();
        Some(format!(
            "requests are kept smaller than sinks.loki.batch_size ({}): one of {} was refused ({}), so they have at most {} \
             before they are compressed; set batch_size to that, or raise the limit of the proxy in front of Loki \
             (nginx: client_max_body_size)",
            size(self.set),
            size(refused.sent),
            refused.words,
            size(self.now),
        ))
    }

    /// The same for the log: once, when a request has passed, and again only when the limit is less than half of the
    /// one that the log was told about.
    pub(super) fn take_news(&mut self) -> Option<String> {
        let is_told = self.told != 0 && self.now > self.told / 2;
        if !self.is_lowered() || !self.passes || is_told {
            return None;
        }
        self.told = self.now;
        self.note()
    }
}

/// How many of the first lines of a request fit into one of this many bytes and lines: at least one.
pub(super) fn lines_within(request: &PushRequest, bytes_max: usize, lines_max: usize) -> usize {
    let mut bytes = request.streams.first().map_or(0, |stream| stream.labels.len());
    let entries = request.streams.iter().flat_map(|stream| &stream.entries);
    // Each has a tag and its length before it.
    let fits = |len: usize| {
        bytes += len + 1 + prost::length_delimiter_len(len);
        bytes <= bytes_max
    };
    entries.take(lines_max).map(prost::Message::encoded_len).map(fits).take_while(|fits| *fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::super::push::{EntryAdapter, StreamAdapter};
    use super::*;

    fn request(lines: &[usize]) -> PushRequest {
        let entry = |len: &usize| EntryAdapter { line: "x".repeat(*len), ..Default::default() };
        let entries = lines.iter().map(entry).collect();
        PushRequest { streams: vec![StreamAdapter { labels: "{a=\"1\"}".to_owned(), entries }] }
    }

    #[test]
    fn it_goes_down_to_what_passes_and_up_again_in_time() {
        let mut limit = BodyLimit::new(1 << 20);
        assert!(limit.note().is_none() && !limit.is_lowered());
        // Requests that were in flight together count once.
        for _ in 0..4 {
            limit.on_too_large(5, &Parcel::as_in_spool(&request(&[1 << 19, 1 << 19])), (413, ""));
        }
        assert_eq!(limit.bytes() >> 10, 512);
        limit.on_too_large(6, &Parcel::as_in_spool(&request(&[100, 100])), (413, "too big"));
        assert_eq!(limit.bytes(), BYTES_MIN);
        assert_eq!(limit.take_news(), None, "nobody knows yet where it ends");
        limit.on_accepted();
        let note = limit.take_news().expect("it is told");
        assert!(
            ["413: too big", "batch_size (1.0 MiB)", "at most 1.0 KiB"]
                .iter()
                .all(|part| note.contains(part)),
            "{note}"
        );
        assert_eq!(limit.take_news(), None, "once");
        for (at_ms, kib) in [(600_005, 1), (600_006, 2), (600_007, 2), (1_200_006, 4)] {
            limit.on_time(at_ms);
            assert_eq!(limit.bytes() >> 10, kib, "{at_ms}");
        }
        limit.on_too_large(1_200_007, &Parcel::as_in_spool(&request(&[2000, 2000])), (413, ""));
        limit.on_accepted();
        assert!(limit.bytes() > BYTES_MIN && limit.take_news().is_none(), "it is known");
        for round in 3..20 {
            limit.on_time(round * 1_000_000);
        }
        assert!(limit.note().is_none() && limit.bytes() == 1 << 20, "the limit is gone");
    }

    #[test]
    fn a_config_with_a_smaller_size_is_not_exceeded() {
        let mut limit = BodyLimit::new(500);
        limit.on_too_large(0, &Parcel::as_in_spool(&request(&[300, 300])), (413, ""));
        assert!(limit.bytes() <= 500, "{}", limit.bytes());
    }

    #[test]
    fn lines_that_fit() {
        for (bytes, expected) in [(0, 1), (120, 1), (230, 2), (330, 3), (1 << 20, 4)] {
            assert_eq!(lines_within(&request(&[100; 4]), bytes, 9), expected, "{bytes}");
        }
        let all = request(&[100; 4]);
        assert_eq!(lines_within(&all, 1 << 20, 3), 3);
        let len = prost::Message::encoded_len(&all);
        assert!(
            (all.lines() == lines_within(&all, len, 9)) && lines_within(&request(&[5000, 1]), 100, 9) == 1
        );
    }
}
