//! What each decoder does with a whole file of bytes, so that tests can compare its work with the file's length
//! ([`crate::fuzz::WORK`]).

use crate::decode::assemble::{Assembler, Lines};
use crate::decode::line::Known;
use crate::decode::{self, Piece, Step};
use crate::limits::LINE_BYTES_CEILING;
use crate::text::encoding::Encoding;

/// Takes everything that `next` finds, as a source does. If `next` gives up, one byte is skipped, so that the decoder
/// does not end at the first invalid item.
fn all<T>(bytes: &[u8], next: impl Fn(&[u8]) -> Step<T>, mut take: impl FnMut(usize, T)) {
    let mut at = 0;
    while at < bytes.len() {
        at += match next(&bytes[at..]) {
            Step::Item(item, took) => {
                take(at, item);
                took
            }
            Step::Reject(decode::DecodeError::FrameInvalid, _) => 1,
            Step::Reject(_, took) => took,
            Step::NeedMore => return,
        };
    }
}

/// Joins pieces to lines, and unescapes them.
fn assembled(bytes: &[u8], next: impl Fn(&[u8]) -> Step<Piece>) {
    let mut assembler = Assembler::new(LINE_BYTES_CEILING as usize).strip_cr(true);
    let mut lines = Lines::default();
    all(bytes, next, |at, mut piece| {
        piece.text = piece.text.start + at..piece.text.end + at;
        piece.time = piece.time.start + at..piece.time.end + at;
        assembler.push(bytes, &piece, at as u64, true, &mut lines);
    });
    assembler.close_all(&mut lines);
    let mut text = Vec::new();
    for record in &lines.records {
        let from = if record.place == crate::model::record::BufferKind::Read { bytes } else { &lines.made };
        let message = &from[record.message_start as usize..][..record.message_len as usize];
        if record.form == crate::model::record::MessageForm::JsonEscaped {
            decode::json_line::unescape(message, &mut text);
        }
    }
}

pub fn json_line(bytes: &[u8]) {
    let clean = decode::json_line::is_clean(bytes);
    assembled(bytes, |rest| decode::json_line::next_record(rest, clean));
}

pub fn cri(bytes: &[u8]) {
    assembled(bytes, |rest| decode::cri::next_record(rest, true));
}

pub fn line(bytes: &[u8]) {
    assembled(bytes, |rest| decode::line::next_line(rest, Known { nuls: true, within: false }));
}

/// Lines in two bytes per character.
pub fn text(bytes: &[u8]) {
    let encoding = Encoding::named("utf-16be").expect("a name");
    let mut out = Vec::new();
    all(
        bytes,
        |rest| encoding.next_line(rest, false),
        |at, line| {
            out.clear();
            encoding.decode(&bytes[at..][line.text], &mut out);
        },
    );
}

pub fn stdcopy(bytes: &[u8]) {
    all(bytes, decode::stdcopy::next_frame, |_, _| ());
}

/// What a TTY container's API sends.
pub fn tty(bytes: &[u8]) {
    assembled(bytes, |rest| decode::tty::next_piece(rest, true));
}

/// Events of inotify.
pub fn inotify(bytes: &[u8]) {
    decode::inotify::events(bytes).for_each(drop);
}

/// Repairing and cutting.
pub fn utf8(bytes: &[u8]) {
    let mut out = Vec::new();
    decode::utf8::push_lossy(&mut out, bytes);
    decode::utf8::cut(bytes, bytes.len() / 2);
}
