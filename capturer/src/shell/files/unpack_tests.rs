//! An archive is read like the file it was made from, in pieces of any size.

use std::io::Write as _;

use super::*;
use crate::ledger::Owner;
use crate::ledger::claims::Claims;

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn file_of(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

fn opened(bytes: &[u8]) -> (Unpacker, bool) {
    let file = Claims::default().hold(file_of(bytes), Owner::Discovery);
    let (len, damaged) = measure(&file, &mut [], &|| ());
    (Unpacker::new(file, len), damaged)
}

fn read(unpacker: &mut Unpacker, offset: u64, room: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(room);
    let room = buffer.capacity();
    let count = unpacker.read(offset, &mut buffer, &|| ()).unwrap();
    assert!(count == buffer.len() && count <= room);
    buffer
}

/// Reading on, again, from further back and beyond the end returns the right bytes.
#[test]
fn any_order_of_reads() {
    let content: Vec<u8> = (0..400_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    // Two archives in a row, as logrotate makes them by appending.
    let bytes = [packed(&content[..700_001]), packed(&content[700_001..])].concat();
    let (mut unpacker, damaged) = opened(&bytes);
    assert_eq!((unpacker.len(), damaged), (content.len() as u64, false));
    let mut rng = crate::sink::testing::Rng::from_env();
    let mut at = 0_usize;
    for _ in 0..200 {
        let room = 1 + rng.below(50_000);
        let got = read(&mut unpacker, at as u64, room);
        let expected = &content[at.min(content.len())..];
        assert!(expected.starts_with(&got) && (got.len() >= room.min(expected.len())), "{room} at {at}");
        at = match rng.below(8) {
            0 => rng.below(content.len() + 10),
            1 => at,
            2 => at + got.len() / 2,
            _ => at + got.len(),
        };
    }
}

/// Memory does not grow with the content.
#[test]
fn what_unpacks_to_much_takes_no_room() {
    let content = vec![0; 64 << 20];
    let (mut unpacker, _) = opened(&packed(&content));
    let mut at = 0;
    while at < content.len() as u64 {
        at += read(&mut unpacker, at, 256 * 1024).len() as u64;
        assert!(unpacker.latest.capacity() <= 1 << 20);
    }
    assert_eq!(read(&mut unpacker, at, 100), b"");
}

/// Archives are opened ahead, before their stream may read them: 2,000 containers with four archives each once held 600
/// MiB.
#[test]
fn one_that_is_only_open_takes_no_room() {
    let content = b"a line\n".repeat(1_000);
    let (mut unpacker, _) = opened(&packed(&content));
    assert!(unpacker.decoder.is_none() && unpacker.latest.capacity() == 0);
    assert_eq!(read(&mut unpacker, 7, 6), b"a line");
    assert!(unpacker.decoder.is_some());
    assert_eq!(read(&mut unpacker, 0, 7_000), content, "from the beginning once more");
}

#[test]
fn a_damaged_one_is_read_as_far_as_it_goes() {
    let content: Vec<u8> =
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let bytes = packed(&content);
    let (mut unpacker, damaged) = opened(&bytes[..bytes.len() / 2]);
    assert!(damaged && unpacker.len() > 100_000);
    let got = read(&mut unpacker, 0, content.len());
    assert_eq!(got.len() as u64, unpacker.len());
    assert!(content.starts_with(&got));
}

/// What gzip accepts as complete: bgzip ends with an empty member, a tape's block with zeros.
#[test]
fn padding_and_an_empty_member_are_no_damage() {
    let content = b"a line\n".repeat(1_000);
    let whole = packed(&content);
    for (behind, damaged) in [
        (vec![], false),
        (packed(b""), false),
        (vec![0; 1], false),
        (vec![0; 100_000], false),
        ([vec![0; 512], packed(b"")].concat(), false),
        (b"x".to_vec(), true),
        ([vec![0; 512], b"x".to_vec()].concat(), true),
    ] {
        let (mut unpacker, is_damaged) = opened(&[whole.clone(), behind.clone()].concat());
        assert_eq!((unpacker.len(), is_damaged), (content.len() as u64, damaged), "{} behind", behind.len());
        assert_eq!(read(&mut unpacker, 0, 7_000), content);
    }
}
