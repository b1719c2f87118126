//! A record of the spool as bytes, and how records are found again in a damaged file. Pure.
//!
//! ```text
//! "CSR1" │ block │ payload │ lines │ label set │ time ms │ tenant │ crc32 │ tenant │ block
//!   4    │ len 4 │ len 4   │ 4     │ 8         │ 8       │ len 4  │ 4     │        │ (snappy)      little endian
//! ```
//! The checksum covers everything before and after it. A reader that meets anything else looks for the next magic that
//! begins a record with a right checksum: damage costs the records that it hit and no others.

use bytes::Bytes;
use memchr::memmem;

use super::block;

/// The magic that begins each record.
pub const MAGIC: [u8; 4] = *b"CSR1";
/// Bytes before tenant and payload.
pub const HEAD_BYTES: usize = 40;
/// Longest tenant that a record may name.
pub const TENANT_BYTES_MAX: usize = 1024;

/// What the spool keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The label set, within which order is kept.
    pub label_set: u64,
    /// When it was put in, milliseconds since 1970.
    pub time_ms: u64,
    /// Empty = none.
    pub tenant: String,
    /// Lines in the payload.
    pub lines: u32,
    /// Length of the payload.
    pub payload_len: u32,
    /// The payload as `block.rs` packs it.
    pub block: Bytes,
}

impl Record {
    /// Packs a payload, which is a head and what follows it.
    pub fn new(
        label_set: u64,
        time_ms: u64,
        tenant: String,
        lines: u32,
        (head, rest): (&[u8], &[u8]),
    ) -> Record {
        let payload_len = (head.len() + rest.len()) as u32;
        Record { label_set, time_ms, tenant, lines, payload_len, block: block::pack(head, rest).into() }
    }
}

/// What the bytes at an offset are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A record of this many bytes.
    Record(Record, usize),
    /// An incomplete record, or none: this many bytes are needed to decide.
    NeedMore(usize),
    /// There is no record here.
    Damaged,
}

/// Appends a record.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    let tenant = &record.tenant.as_bytes()[..record.tenant.floor_char_boundary(TENANT_BYTES_MAX)];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(record.block.len() as u32).to_le_bytes());
    out.extend_from_slice(&record.payload_len.to_le_bytes());
    out.extend_from_slice(&record.lines.to_le_bytes());
    out.extend_from_slice(&record.label_set.to_le_bytes());
    out.extend_from_slice(&record.time_ms.to_le_bytes());
    out.extend_from_slice(&(tenant.len() as u32).to_le_bytes());
    let crc = checksum(&out[start..], &[tenant, &record.block]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(tenant);
    out.extend_from_slice(&record.block);
}

fn checksum(head: &[u8], rest: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    rest.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Reads the bytes at the offset of a record. A declared length is not trusted before the checksum was right.
pub fn decode(bytes: &[u8]) -> Step {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Step::Damaged;
    }
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Step::NeedMore(HEAD_BYTES) };
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let (packed_len, tenant_len) = (u32_at(4) as usize, u32_at(32) as usize);
    if tenant_len > TENANT_BYTES_MAX {
        return Step::Damaged;
    }
    let whole = HEAD_BYTES + tenant_len + packed_len;
    let Some(rest) = bytes.get(HEAD_BYTES..whole) else { return Step::NeedMore(whole) };
    if checksum(&head[..36], &[rest]) != u32_at(36) {
        return Step::Damaged;
    }
    let (tenant, block) = rest.split_at(tenant_len);
    let payload_len = u32_at(8);
    // Not unpacked here: the checksum says that it was not altered.
    match (snap::raw::decompress_len(block), std::str::from_utf8(tenant)) {
        (Ok(len), Ok(tenant)) if len == payload_len as usize => {
            let (label_set, time_ms, lines) = (u64_at(16), u64_at(24), u32_at(12));
            let (tenant, block) = (tenant.to_owned(), Bytes::copy_from_slice(block));
            Step::Record(Record { label_set, time_ms, tenant, lines, payload_len, block }, whole)
        }
        _ => Step::Damaged,
    }
}

/// How many bytes of a segment's rest are damaged before the next whole record; all of them if there is none.
pub fn damaged_len(rest: &[u8]) -> usize {
    let places = memmem::find_iter(rest, &MAGIC);
    let mut whole = places.filter(|at| *at > 0 && matches!(decode(&rest[*at..]), Step::Record(..)));
    whole.next().unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Rng;
    use super::*;

    fn any(rng: &mut Rng) -> Record {
        let (head, rest) = (rng.bytes(20), rng.bytes(400));
        Record::new(rng.next(), rng.next(), rng.text(20), rng.next() as u32, (&head, &rest))
    }

    /// All readable records, and how many bytes were skipped.
    fn read(mut bytes: &[u8]) -> (Vec<Record>, usize) {
        let (mut records, mut damaged) = (Vec::new(), 0);
        while !bytes.is_empty() {
            match decode(bytes) {
                Step::Record(record, len) => {
                    records.push(record);
                    bytes = &bytes[len..];
                }
                Step::NeedMore(_) | Step::Damaged => {
                    let skipped = damaged_len(bytes);
                    damaged += skipped;
                    bytes = &bytes[skipped..];
                }
            }
        }
        (records, damaged)
    }

    #[test]
    fn what_was_written_is_read_and_damage_costs_only_itself() {
        let mut rng = Rng::from_env();
        for _ in 0..500 {
            let records: Vec<Record> = (0..1 + rng.below(8)).map(|_| any(&mut rng)).collect();
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for record in &records {
                encode(record, &mut bytes);
                ends.push(bytes.len());
            }
            assert_eq!(read(&bytes), (records.clone(), 0));

            // A cut leaves every record before it, and tells how much is missing from one.
            let cut = rng.below(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(read(&bytes[..cut]), (records[..whole].to_vec(), cut - ends[whole]));

            // A flipped bit, or a run of zeros, only costs the records that it is in.
            let at = rng.below(bytes.len());
            let len = if rng.below(2) == 0 { 1 } else { 1 + rng.below(bytes.len() - at) };
            let mut hurt = bytes.clone();
            if len == 1 {
                hurt[at] ^= 1 << rng.below(8);
            } else {
                hurt[at..at + len].fill(0);
            }
            let span = |index: usize| ends[index]..ends[index + 1];
            let hit = |index: usize| hurt[span(index)] != bytes[span(index)];
            let left: Vec<Record> =
                (0..records.len()).filter(|index| !hit(*index)).map(|index| records[index].clone()).collect();
            let (found, damaged) = read(&hurt);
            if hurt != bytes {
                assert_eq!(found, left);
                let lost: usize = (0..records.len()).filter(|i| hit(*i)).map(|i| span(i).len()).sum();
                assert_eq!(damaged, lost);
            }
        }
    }

    #[test]
    fn a_declared_length_allocates_nothing() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        assert_eq!(decode(&bytes), Step::NeedMore(HEAD_BYTES + u32::MAX as usize));
    }
}
