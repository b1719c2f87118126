//! Fuzz entries of the decoders. Numbers in comments are those of the properties in [`crate::fuzz`].

pub(crate) mod assemble;
pub(crate) mod cri;
pub(crate) mod json_line;
pub(crate) mod text;
pub(crate) mod work;

use crate::decode::damage::HOLE_BYTES_MIN;
use crate::decode::line::Known;
use crate::decode::stdcopy::{FrameKind, HEADER_BYTES};
use crate::decode::{self, DecodeError, Piece, Step};
use crate::fuzz::{Found, decode_in_any_parts};
use crate::limits::{FRAME_BYTES_MAX, PIECE_BYTES, RECORD_BYTES_MAX};
use crate::model::record::StdType;

/// A buffer with NULs.
const KNOWN: Known = Known { nuls: true, within: false };

pub fn line(bytes: &[u8]) {
    let (found, held) =
        decode_in_any_parts(bytes, RECORD_BYTES_MAX - 1, |part, _| decode::line::next_line(part, KNOWN));
    let mut fast = Vec::new();
    for one in &found {
        match one {
            Found::Item { at, item, .. } => fast.push(&bytes[*at..][item.text.clone()]),
            Found::Rejected { at, took, error } => {
                assert_eq!(*error, DecodeError::NulHole);
                assert!(bytes[*at..at + took].iter().all(|byte| *byte == 0));
            }
        }
    }
    fast.extend(decode::line::last_line(&bytes[bytes.len() - held..]).map(|_| &bytes[bytes.len() - held..]));
    assert_eq!(fast, lines_slowly(bytes));
    if !bytes.contains(&0) {
        let (same, _) = decode_in_any_parts(bytes, RECORD_BYTES_MAX - 1, |part, _| {
            decode::line::next_line(part, Known::default())
        });
        assert_eq!(same, found);
    }
}

/// NULs at a line's beginning are skipped, and many NULs within a line end it.
fn lines_slowly(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    loop {
        while let [0, rest @ ..] = bytes {
            bytes = rest;
        }
        if bytes.is_empty() {
            return lines;
        }
        let is_hole =
            |at: usize| bytes.get(at..at + HOLE_BYTES_MIN).is_some_and(|run| run == [0; HOLE_BYTES_MIN]);
        let end = (0..bytes.len()).find(|at| bytes[*at] == b'\n' || is_hole(*at)).unwrap_or(bytes.len());
        lines.push(&bytes[..end]);
        bytes = bytes[end..].strip_prefix(b"\n").unwrap_or(&bytes[end..]);
    }
}

/// Frames of the Engine's API, and the times in their payloads.
pub fn stdcopy(bytes: &[u8]) {
    let (found, held) = decode_in_any_parts(bytes, HEADER_BYTES + FRAME_BYTES_MAX, |bytes, _| {
        decode::stdcopy::next_frame(bytes)
    });
    let (slow, slow_end) = frames_slowly(bytes);
    let mut fast = Vec::new();
    let mut end = Ok(held);
    for one in &found {
        match one {
            Found::Item { at, took, item } => {
                assert_eq!(*took, HEADER_BYTES + item.payload.len());
                fast.push((item.kind, &bytes[*at..][item.payload.clone()]));
            }
            Found::Rejected { .. } => end = Err(()),
        }
    }
    assert_eq!((&fast, end), (&slow, slow_end));
    for (_, payload) in slow {
        time_in_front(payload);
    }
    time_in_front(bytes);

    let kinds = [(1, FrameKind::Output(StdType::Stdout)), (3, FrameKind::DaemonError)];
    let (number, kind) = kinds[bytes.len() % 2];
    let frame = decode::stdcopy::encode(number, bytes);
    let Step::Item(again, took) = decode::stdcopy::next_frame(&frame) else { panic!("no frame: {frame:?}") };
    assert_eq!((again.kind, &frame[again.payload], took), (kind, bytes, frame.len()));
}

type Frames<'b> = Vec<(FrameKind, &'b [u8])>;

/// The frames, and how many bytes are left or that something is no frame.
fn frames_slowly(mut bytes: &[u8]) -> (Frames<'_>, Result<usize, ()>) {
    let mut frames = Vec::new();
    while let [kind, x, y, z, a, b, c, d, rest @ ..] = bytes {
        let len = ((usize::from(*a) * 256 + usize::from(*b)) * 256 + usize::from(*c)) * 256 + usize::from(*d);
        let kind = match kind {
            1 => FrameKind::Output(StdType::Stdout),
            2 => FrameKind::Output(StdType::Stderr),
            3 => FrameKind::DaemonError,
            _ => return (frames, Err(())),
        };
        if x | y | z != 0 || len > FRAME_BYTES_MAX {
            return (frames, Err(()));
        }
        if rest.len() < len {
            break;
        }
        frames.push((kind, &rest[..len]));
        bytes = &rest[len..];
    }
    (frames, Ok(bytes.len()))
}

/// Time, blank, message and newline are all there is in a payload.
fn time_in_front(payload: &[u8]) {
    let blank = payload.iter().take(decode::timestamp::TIME_BYTES_MAX + 1).position(|byte| *byte == b' ');
    let split = decode::stdcopy::split_time(payload);
    assert_eq!(split.as_ref().map(|(time, ..)| time.end), blank);
    if let Some((time, text, complete)) = split {
        let newline: &[u8] = if complete { b"\n" } else { b"" };
        assert_eq!([&payload[time], b" ", &payload[text], newline].concat(), payload);
        assert!(complete || !payload.ends_with(b"\n"));
    }
}

/// What a TTY container's log looks like over the API. A byte 0xFF in the input stands for nearly a whole piece.
pub fn tty(bytes: &[u8]) {
    let bytes = &with_long_runs(bytes)[..];
    let held_max = decode::tty::WITHOUT_TIME_BYTES_MAX - 1;
    let (found, held) = decode_in_any_parts(bytes, held_max, decode::tty::next_piece);
    assert_eq!(held, 0, "at the end all is taken");
    assert_eq!(found, tty_slowly(bytes));
    for one in &found {
        // 3: a time, a blank, the text, perhaps a newline.
        if let Found::Item { took, item, .. } = one {
            assert_eq!(*took, item.time.len() + 1 + item.text.len() + usize::from(item.complete));
        }
    }
    // 2: what Docker would send for these lines.
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut sent = Vec::new();
    for line in &lines {
        let mut rest = *line;
        loop {
            sent.extend_from_slice(b"2026-11-22T00:52:48.162820305Z ");
            let len = rest.len().min(PIECE_BYTES);
            sent.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            if len < PIECE_BYTES {
                sent.push(b'\n');
                break;
            }
        }
    }
    let (found, _) = decode_in_any_parts(&sent, held_max, decode::tty::next_piece);
    let (mut again, mut open) = (Vec::new(), Vec::new());
    for one in found {
        let Found::Item { at, item, .. } = one else { panic!("rejected what Docker would send: {one:?}") };
        open.extend_from_slice(&sent[at..][item.text]);
        if item.complete {
            again.push(std::mem::take(&mut open));
        }
    }
    assert_eq!(again, lines);
}

fn tty_slowly(bytes: &[u8]) -> Vec<Found<Piece>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let line = bytes[at..].split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let blank = text.iter().position(|byte| *byte == b' ');
        let took = match blank.filter(|blank| *blank <= decode::timestamp::TIME_BYTES_MAX) {
            None => {
                let took = line.len().min(decode::tty::WITHOUT_TIME_BYTES_MAX);
                found.push(Found::Rejected { at, took, error: DecodeError::NoTime });
                took
            }
            Some(blank) => {
                let is_long = text.len() - blank - 1 > PIECE_BYTES;
                let end =
                    if is_long { blank + 1 + full_piece_slowly(&text[blank + 1..]) } else { text.len() };
                let took = if is_long { end } else { line.len() };
                let piece = Piece {
                    text: blank + 1..end,
                    time: 0..blank,
                    form: crate::model::record::MessageForm::Raw,
                    decoded_len: end - blank - 1,
                    std_type: StdType::Stdout,
                    complete: took > end,
                };
                found.push(Found::Item { at, took, item: piece });
                took
            }
        };
        at += took;
    }
    found
}

/// A piece is cut after so many bytes of what was printed. Each of these that is not UTF-8 is three bytes now.
fn full_piece_slowly(text: &[u8]) -> usize {
    let replaced_in = |text: &[u8]| text.windows(3).filter(|three| *three == "\u{fffd}".as_bytes()).count();
    let has_time_at = |at: usize| {
        let mut parts = text.get(at..).unwrap_or_default().splitn(2, |byte| *byte == b' ');
        let (time, rest) = (parts.next().unwrap_or_default(), parts.next());
        rest.is_some() && decode::timestamp::parse(time).is_some()
    };
    let lens = (PIECE_BYTES..=decode::tty::FULL_BYTES_MAX).step_by(2);
    let may_be = |len: &usize| len - PIECE_BYTES <= 2 * replaced_in(&text[..text.len().min(*len)]);
    lens.take_while(may_be).find(|len| has_time_at(*len)).unwrap_or(PIECE_BYTES)
}

fn with_long_runs(bytes: &[u8]) -> Vec<u8> {
    const RUNS_MAX: usize = 3;
    let (mut out, mut runs) = (Vec::new(), 0);
    for byte in bytes {
        if *byte == 0xFF && runs < RUNS_MAX {
            out.resize(out.len() + PIECE_BYTES - 1, b'x');
            runs += 1;
        } else {
            out.push(*byte);
        }
    }
    out
}

/// RFC 3339 times.
pub fn timestamp(bytes: &[u8]) {
    use decode::timestamp::{format, parse, to_since};
    let text = std::str::from_utf8(bytes).unwrap_or("");
    let slow = time_slowly(text);
    assert_eq!(parse(bytes), slow, "{text:?}");

    let mut number = [0; 8];
    number.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    // 2: up to the end of 2261.
    let ns = (u64::from_le_bytes(number) % 9_214_646_400_000_000_000) as i64;
    assert_eq!(parse(format(ns).as_bytes()), Some(ns));
    let since = to_since(ns);
    let (seconds, nanos) = since.split_once('.').expect("seconds and nanoseconds");
    assert_eq!(nanos.len(), 9);
    assert_eq!(seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanos.parse::<i64>().unwrap(), ns);
}

/// humantime accepts no offsets from UTC, any year, any number of digits of a fraction, and anything behind a `Z` or
/// within what looks like an offset.
fn time_slowly(text: &str) -> Option<i64> {
    if text.len() > decode::timestamp::TIME_BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let (utc, offset_s) = match text.strip_suffix('Z') {
        Some(utc) => (utc, 0),
        None => {
            let (utc, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = offset[1..].split_once(':')?;
            let number = |text: &str| {
                let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| text.parse::<i64>().ok())?
            };
            let seconds = number(hours)? * 3600 + number(minutes)? * 60;
            match &offset[..1] {
                "+" => (utc, seconds),
                "-" => (utc, -seconds),
                _ => return None,
            }
        }
    };
    let year: i64 = utc.get(..4)?.parse().ok()?;
    if !(1970..=2261).contains(&year) {
        return None;
    }
    let fraction = utc.get(19..)?;
    let is_fraction = fraction.strip_prefix('.').is_some_and(|digits| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !fraction.is_empty() && !is_fraction {
        return None;
    }
    let time = humantime::parse_rfc3339(&format!("{utc}Z")).ok()?;
    let since_1970 = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let ns = i64::try_from(since_1970.as_nanos()).ok()?;
    // Here a leap second is the first of the next minute; humantime makes it the last of its own.
    let leap = i64::from(utc.get(17..19) == Some("60"));
    ns.checked_sub((offset_s - leap) * 1_000_000_000)
}

/// Cutting and repairing UTF-8.
pub fn utf8(bytes: &[u8]) {
    let mut mended = Vec::new();
    let was_invalid = decode::utf8::push_lossy(&mut mended, bytes);
    assert_eq!(mended, String::from_utf8_lossy(bytes).as_bytes());
    assert_eq!(was_invalid, std::str::from_utf8(bytes).is_err());
    for max in (0..=bytes.len() + 1).take(64).chain([bytes.len() / 2, bytes.len(), usize::MAX]) {
        let end = decode::utf8::cut(bytes, max);
        let slow = match std::str::from_utf8(bytes) {
            Ok(text) => text.floor_char_boundary(max),
            Err(_) => {
                let begins = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
                let longest = max.min(bytes.len());
                (longest.saturating_sub(3)..=longest).rev().find(begins).unwrap_or(longest)
            }
        };
        assert_eq!(end, slow, "cut at {max}");
    }
}

/// Events of an inotify descriptor.
pub fn inotify(bytes: &[u8]) {
    let shown = |bytes: &[u8]| -> Vec<(i32, u32, Vec<u8>)> {
        decode::inotify::events(bytes).map(|event| (event.watch, event.mask, event.name.to_vec())).collect()
    };
    let whole = shown(bytes);
    let mut slow = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let len = u64::from(word(12));
        if len > rest.len() as u64 - 16 {
            break;
        }
        let (name, behind) = rest[16..].split_at(len as usize);
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        slow.push((word(0) as i32, word(4), name));
        rest = behind;
    }
    assert_eq!(whole, slow);
    // The kernel returns only whole events; of a truncated read the decoder returns whole events only.
    for end in (0..bytes.len()).take(64) {
        assert!(whole.starts_with(&shown(&bytes[..end])), "cut at {end}");
    }
    let name: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    let padded = name.len().next_multiple_of(16);
    let mut event = [&7_i32.to_ne_bytes()[..], &2_u32.to_ne_bytes(), &[0; 4]].concat();
    event.extend_from_slice(&(padded as u32).to_ne_bytes());
    event.extend_from_slice(&name);
    event.resize(16 + padded, 0);
    assert_eq!(shown(&event), [(7, 2, name)]);
}
