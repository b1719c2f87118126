//! One line of `files.log` and `checkpoint.changes`: a checksum, the number of the save, and JSON.
//!
//! ```text
//! 0f1e2d3c 4711 {"file:/var/log/a.log":…}
//! CRC-32 of what follows it, in hexadecimal
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The line of a save, with its end.
pub(super) fn encode(seq: u64, body: &impl Serialize) -> Vec<u8> {
    // Into one buffer, as it can be tens of megabytes: the sum takes its place afterwards.
    let mut line = format!("{:08x} {seq} ", 0).into_bytes();
    // Plain structs of strings and integers into memory: there is nothing that could fail.
    serde_json::to_writer(&mut line, body).expect("a save is plain data");
    let sum = format!("{:08x}", crc32fast::hash(&line[9..]));
    line[..8].copy_from_slice(sum.as_bytes());
    line.push(b'\n');
    line
}

/// The number and content of a line; `None` if it is not whole.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<(u64, T)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, line) = line.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(line.as_bytes()) {
        return None;
    }
    let (seq, body) = line.split_once(' ')?;
    Some((seq.parse().ok()?, serde_json::from_str(body).ok()?))
}
