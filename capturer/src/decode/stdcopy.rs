//! Docker's stdcopy frames: an 8-byte header (type, three zeros, big-endian length) before each message of a container
//! without a TTY. Source of the format: moby, api/pkg/stdcopy/stdcopy.go.
//!
//! The daemon promises no bound on a frame; 49,183 bytes were seen. More than [`FRAME_BYTES_MAX`] is refused: such
//! bytes are not frames at all, and the caller closes the connection.

use std::ops::Range;

use super::{DecodeError, Step};
use crate::limits::FRAME_BYTES_MAX;
use crate::model::record::StdType;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Output of the container.
    Output(StdType),
    /// Type 3: the daemon's own error after it answered 200. Never a log line.
    DaemonError,
}

/// One frame; the payload as offsets into the caller's buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the bytes come from: stdout, stderr, or the Engine itself.
    pub kind: FrameKind,
    /// Where the payload is in the buffer.
    pub payload: Range<usize>,
}

/// The first frame of `bytes`.
pub fn next_frame(bytes: &[u8]) -> Step<Frame> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Step::NeedMore;
    };
    let kind = match header[0] {
        1 => FrameKind::Output(StdType::Stdout),
        2 => FrameKind::Output(StdType::Stderr),
        3 => FrameKind::DaemonError,
        _ => return Step::Reject(DecodeError::FrameInvalid, bytes.len()),
    };
    let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if header[1..4] != [0, 0, 0] || len > FRAME_BYTES_MAX {
        return Step::Reject(DecodeError::FrameInvalid, bytes.len());
    }
    let end = HEADER_BYTES + len;
    if bytes.len() < end {
        return Step::NeedMore;
    }
    Step::Item(Frame { kind, payload: HEADER_BYTES..end }, end)
}

/// Splits a payload requested with `timestamps=1` into time and message: `<RFC 3339> <message>\n`. `None` if it does
/// not begin with a time.
pub fn split_time(payload: &[u8]) -> Option<(Range<usize>, Range<usize>, bool)> {
    let space = memchr::memchr(b' ', &payload[..payload.len().min(super::timestamp::TIME_BYTES_MAX + 1)])?;
    let complete = payload.last() == Some(&b'\n');
    let end = payload.len() - usize::from(complete);
    Some((0..space, (space + 1).min(end)..end, complete))
}

/// Makes a frame; for tests and fakes.
pub fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_their_refusal() {
        let bytes = encode(2, b"hello");
        assert_eq!(
            next_frame(&bytes),
            Step::Item(Frame { kind: FrameKind::Output(StdType::Stderr), payload: 8..13 }, 13)
        );
        for cut in 0..13 {
            assert_eq!(next_frame(&bytes[..cut]), Step::NeedMore, "cut at {cut}");
        }
        for bad in [
            &b"\x00\0\0\0\0\0\0\x01x"[..],
            b"\x04\0\0\0\0\0\0\x01x",
            b"\x01\0\x01\0\0\0\0\x01x",
            b"\x01\0\0\0\xff\xff\xff\xff",
        ] {
            assert_eq!(next_frame(bad), Step::Reject(DecodeError::FrameInvalid, bad.len()), "{bad:?}");
        }
    }

    #[test]
    fn times_are_split_off() {
        type Expected = Option<(&'static str, &'static str, bool)>;
        let table: [(&[u8], Expected); 6] = [
            (b"2026-11-22T00:52:48.162820305Z hi\n", Some(("2026-11-22T00:52:48.162820305Z", "hi", true))),
            (b"2026-11-22T00:52:48.162820305Z hi", Some(("2026-11-22T00:52:48.162820305Z", "hi", false))),
            (b"2026-11-22T00:52:48.162820305Z \n", Some(("2026-11-22T00:52:48.162820305Z", "", true))),
            (b"2026-11-22T00:52:48.162820305Z ", Some(("2026-11-22T00:52:48.162820305Z", "", false))),
            (b"", None),
            (b"0123456789012345678901234567890123456789 x", None),
        ];
        for (payload, expected) in table {
            let text = |r: Range<usize>| std::str::from_utf8(&payload[r]).unwrap();
            let got =
                split_time(payload).map(|(time, message, complete)| (text(time), text(message), complete));
            assert_eq!(got, expected);
        }
    }
}
