//! Every decoder under any bytes: the list of fuzz entries, and what they share. Compiled with feature `fuzz` only.
//!
//! ```text
//! tests/fuzz (libFuzzer, `cargo xtask fuzz`) ───────────┐
//! tests/decoders.rs (corpus, and mutations of it) ──────┴─▶ TARGETS ─▶ an entry beside its decoder
//! ```
//! An entry takes any bytes and panics if a property does not hold:
//!
//! 1. any split of the input gives the same items: whole, byte by byte, by chance,
//! 2. what is encoded is decoded again, made from the same bytes,
//! 3. bytes in = bytes of items + skipped + held,
//! 4. what is held stays below the decoder's limit,
//! 5. nothing panics, overflows or runs for ever,
//! 6. a slow and obvious decoder finds the same.
//!
//! A property that means nothing for a decoder is left out there: the bytes of a time, say, do not arrive in parts.

use std::fmt::Debug;

use crate::capture::{checkpoint, discover};
use crate::decode::{DecodeError, Step};
use crate::settings::pipeline::ParseFormat;
use crate::{decode, pipeline, settings, sink};

/// A decoder's name, and the entry that checks it under any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. Each has a folder of its name in tests/fuzz/corpus and a file in tests/fuzz/fuzz_targets.
pub const TARGETS: [Target; 15] = [
    ("assemble", decode::fuzz::assemble::check),
    ("checkpoint", checkpoint::fuzz::check),
    ("config", settings::fuzz::check),
    ("cri", decode::fuzz::cri::check),
    ("docker", discover::fuzz::check),
    ("file_name", sink::fuzz::check),
    ("inotify", decode::fuzz::inotify),
    ("json_line", decode::fuzz::json_line::check),
    ("line", decode::fuzz::line),
    ("pipeline", pipeline::fuzz::check),
    ("stdcopy", decode::fuzz::stdcopy),
    ("text", decode::fuzz::text::check),
    ("timestamp", decode::fuzz::timestamp),
    ("tty", decode::fuzz::tty),
    ("utf8", decode::fuzz::utf8),
];

/// Runs the entry of this name: what a file of tests/fuzz/fuzz_targets calls.
pub fn check(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, check) = target.unwrap_or_else(|| panic!("no target is called {name}"));
    check(bytes);
}

/// Everything that reads bytes chosen by others, run once over all of them, for tests that compare its work with their
/// number: a line of the greatest length, or a file of lines. A pipeline's steps get each line whole.
pub const WORK: [Target; 17] = [
    ("assemble and json_line", decode::fuzz::work::json_line),
    ("assemble and cri", decode::fuzz::work::cri),
    ("assemble and line", decode::fuzz::work::line),
    ("assemble and tty", decode::fuzz::work::tty),
    ("inotify", decode::fuzz::work::inotify),
    ("multiline", pipeline::fuzz::multiline),
    ("parse json", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Json, bytes)),
    ("parse logfmt", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Logfmt, bytes)),
    ("parse syslog", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Syslog, bytes)),
    ("parse combined", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Combined, bytes)),
    ("parse nginx", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Nginx, bytes)),
    ("parse apache_error", |bytes| pipeline::fuzz::parse_as(&ParseFormat::ApacheError, bytes)),
    ("parse level", |bytes| pipeline::fuzz::parse_as(&ParseFormat::Level, bytes)),
    ("redact", pipeline::fuzz::redact_all),
    ("stdcopy", decode::fuzz::work::stdcopy),
    ("text", decode::fuzz::work::text),
    ("utf8", decode::fuzz::work::utf8),
];

/// What a decoder found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// An item that takes `took` bytes from `at` on.
    Item { at: usize, took: usize, item: T },
    /// This many bytes from `at` on that were skipped.
    Rejected { at: usize, took: usize, error: DecodeError },
}

/// Everything a decoder finds in `bytes`, however they are split, and how many bytes it leaves at the end. Checks
/// properties 1, 3, 4 and 5. `next` gets the bytes so far, and whether they are all.
pub(crate) fn decode_in_any_parts<T: Debug + PartialEq>(
    bytes: &[u8],
    held_max: usize,
    next: impl Fn(&[u8], bool) -> Step<T>,
) -> (Vec<Found<T>>, usize) {
    let whole = decode_in_parts(bytes, &[bytes.len()], held_max, &next);
    for ends in splits(bytes) {
        let parts = decode_in_parts(bytes, &ends, held_max, &next);
        assert_eq!(parts, whole, "parts that end at {ends:?} give something else than the whole");
    }
    whole
}

/// Everything a decoder finds in `bytes` when they come in parts that end at `ends`.
pub(crate) fn decode_in_parts<T>(
    bytes: &[u8],
    ends: &[usize],
    held_max: usize,
    next: impl Fn(&[u8], bool) -> Step<T>,
) -> (Vec<Found<T>>, usize) {
    let (mut at, mut found) = (0, Vec::new());
    for &end in ends {
        loop {
            let took = match next(&bytes[at..end], end == bytes.len()) {
                Step::NeedMore => break,
                Step::Item(item, took) => {
                    found.push(Found::Item { at, took, item });
                    took
                }
                // The stream gives up the connection, so what follows is not decoded.
                Step::Reject(DecodeError::FrameInvalid, _) => {
                    let took = bytes.len() - at;
                    found.push(Found::Rejected { at, took, error: DecodeError::FrameInvalid });
                    return (found, 0);
                }
                Step::Reject(error, took) => {
                    reject(&mut found, at, took, error);
                    took
                }
            };
            assert!(took > 0 && took <= end - at, "{took} of {} bytes taken", end - at);
            at += took;
        }
        assert!(end - at <= held_max, "{} bytes held, the limit is {held_max}", end - at);
    }
    (found, bytes.len() - at)
}

/// Holes are skipped as they come, in as many steps as there are parts. Adjacent steps count as one.
fn reject<T>(found: &mut Vec<Found<T>>, at: usize, took: usize, error: DecodeError) {
    match found.last_mut() {
        Some(Found::Rejected { took: before, error: DecodeError::NulHole, .. })
            if error == DecodeError::NulHole =>
        {
            *before += took;
        }
        _ => found.push(Found::Rejected { at, took, error }),
    }
}

/// Where parts end: before and behind newlines, at every byte if that is not too much work, and at some places drawn
/// from the bytes themselves.
pub(crate) fn splits(bytes: &[u8]) -> Vec<Vec<usize>> {
    const BYTE_BY_BYTE_MAX: usize = 256;
    let newlines = memchr::memchr_iter(b'\n', bytes).take(100);
    let mut splits: Vec<Vec<usize>> =
        vec![newlines.flat_map(|at| [at, at + 1]).chain([bytes.len()]).collect()];
    if bytes.len() <= BYTE_BY_BYTE_MAX {
        splits.push((1..=bytes.len()).collect());
    }
    let mut state = u64::from(crc32fast::hash(bytes));
    for part_max in [7, 300, 20_000] {
        let (mut ends, mut end) = (Vec::new(), 0);
        while end < bytes.len() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            end = (end + 1 + (state >> 33) as usize % part_max).min(bytes.len());
            ends.push(end);
        }
        // Held bytes are looked at again with each part: more parts of a long line cost much and find nothing new.
        if ends.len() <= 1_000 {
            splits.push(ends);
        }
    }
    splits.retain(|ends| !ends.is_empty());
    splits
}
