//! The format in which container runtimes log for Kubernetes (containerd, CRI-O): a head, then the bytes as they were
//! printed.
//!
//! ```text
//! 2026-11-25T10:00:00.123456789Z stdout F text            a line
//! 2026-11-25T10:00:00.123456789Z stdout P text            a part of one, of any length; the next of its channel goes on
//! ```
//! Source of the format: kubernetes, design-proposals-archive, kubelet-cri-logging.md. Behind a colon the tag may have
//! more (`F:…`), none of which is defined. Each part has its own time, so only the tag shows which parts belong
//! together, and the assembler has to be told ([`super::assemble::Join`]).
//!
//! Damage costs only itself: NUL holes are skipped, and a good record glued to a torn head is found. Glued to a torn
//! message, a record can't be told from the message unless a hole is between them.

use super::{Piece, Step, damage, timestamp, work};
use crate::model::record::{MessageForm, StdType};

/// Longest tag that is believed.
const TAG_BYTES_MAX: usize = 63;
/// `stdout` or `stderr`, and a blank.
const CHANNEL_BYTES: usize = 7;

/// The first record of `bytes`; what it takes includes its newline. `nuls`: the buffer that holds `bytes` has NULs.
pub fn next_record(bytes: &[u8], nuls: bool) -> Step<Piece> {
    // A power cut leaves NULs in place of a torn line's end and the next line's beginning.
    let is_torn = |line: &[u8]| nuls && damage::last_hole_end(line).is_some();
    damage::next_record(bytes, |line| parse(line).filter(|_| !is_torn(line)), good_record_behind)
}

/// Quick test whether a first line is such a record (`format: auto`).
pub fn looks_like_record(line: &[u8]) -> bool {
    parse(line.strip_suffix(b"\n").unwrap_or(line)).is_some()
}

/// Whether an unfinished line that begins with these bytes may be such a record.
pub fn may_begin_record(bytes: &[u8]) -> bool {
    let Some(time_len) = blank(bytes, timestamp::TIME_BYTES_MAX) else {
        return bytes.len() <= timestamp::TIME_BYTES_MAX;
    };
    let behind = &bytes[time_len + 1..];
    let is_channel = |name: &[u8]| behind.starts_with(name) || name.starts_with(behind);
    timestamp::parse(&bytes[..time_len]).is_some() && (is_channel(b"stdout ") || is_channel(b"stderr "))
}

/// The record in a whole line, which has no newline.
pub fn whole_record(line: &[u8]) -> Option<Piece> {
    parse(line)
}

fn parse(line: &[u8]) -> Option<Piece> {
    // Only the head is parsed, however long the line is.
    let time_len = blank(line, timestamp::TIME_BYTES_MAX)?;
    timestamp::parse(&line[..time_len])?;
    let (std_type, rest) = match line[time_len + 1..].split_at_checked(CHANNEL_BYTES)? {
        (b"stdout ", rest) => (StdType::Stdout, rest),
        (b"stderr ", rest) => (StdType::Stderr, rest),
        _ => return None,
    };
    // An empty text may lack its blank.
    let tag_len = blank(rest, TAG_BYTES_MAX).or((rest.len() <= TAG_BYTES_MAX).then_some(rest.len()))?;
    let complete = match &rest[..tag_len] {
        [b'F'] | [b'F', b':', ..] => true,
        [b'P'] | [b'P', b':', ..] => false,
        _ => return None,
    };
    let tag_end = line.len() - rest.len() + tag_len;
    let text = (tag_end + 1).min(line.len())..line.len();
    Some(Piece {
        decoded_len: text.len(),
        text,
        time: 0..time_len,
        form: MessageForm::Raw,
        std_type,
        complete,
    })
}

/// Where the first blank is, if it comes behind at most `max` bytes.
fn blank(text: &[u8], max: usize) -> Option<usize> {
    let head = &text[..text.len().min(max + 1)];
    let at = memchr::memchr(b' ', head);
    work::add(at.unwrap_or(head.len()));
    at
}

/// Where in a damaged line, behind its holes, a record begins: at the time before a channel.
fn good_record_behind(line: &[u8]) -> Option<usize> {
    let mut at = damage::last_hole_end(line).unwrap_or(0);
    while let Some(run) = memchr::memmem::find(&line[at..], b" std") {
        let time_end = at + run;
        work::add(run);
        at = time_end + 1;
        let begin = time_before(&line[..time_end]).filter(|begin| *begin > 0);
        if let Some(begin) = begin.filter(|begin| parse(&line[*begin..]).is_some()) {
            return Some(begin);
        }
    }
    work::add(line.len() - at);
    None
}

/// Where a time begins that ends where `text` ends: the date is before its T.
fn time_before(text: &[u8]) -> Option<usize> {
    const DATE_BYTES: usize = 10;
    let from = text.len().saturating_sub(timestamp::TIME_BYTES_MAX);
    work::add(text.len() - from);
    (from + memchr::memrchr(b'T', &text[from..])?).checked_sub(DATE_BYTES)
}

#[cfg(test)]
#[path = "cri_tests.rs"]
mod tests;
