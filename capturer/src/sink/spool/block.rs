//! Snappy blocks that can be put together without being unpacked. Pure.
//!
//! ```text
//! length │ literal: a byte │ literal: the rest of the head │ the rest, compressed by itself
//! varint │                 │                               │ refers to nothing before it
//! ```
//! Any snappy decoder reads this, also in older agents. Copies in snappy are relative, so a part that was compressed by
//! itself may follow anything: several blocks can become one, whose rest is theirs one after the other, under a new
//! head. This is how a request to Loki is made from records of the spool.
//!
//! An encoder writes two literals in a row only where its own blocks of 64 KiB meet. So a literal of one byte followed
//! by another literal, at the beginning, means that [`pack`] wrote the block, and that its rest may be separated from
//! its head.

use std::cell::RefCell;

thread_local! {
    /// Kept for reuse, with the buffer that it writes to: its table is larger than most inputs.
    static ENCODER: RefCell<(snap::raw::Encoder, Vec<u8>)> =
        RefCell::new((snap::raw::Encoder::new(), Vec::new()));
}

/// A block's parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The head without its first byte.
    pub head: &'a [u8],
    /// The rest, compressed.
    pub rest: &'a [u8],
    /// Length of the rest.
    pub rest_len: usize,
}

/// Packs a head and the rest. With a head of fewer than two bytes the result is a plain snappy block.
///
/// # Panics
/// If they are 4 GiB or more.
pub fn pack(head: &[u8], rest: &[u8]) -> Vec<u8> {
    let whole;
    let (head, rest) = match head {
        [] => (head, rest),
        [_] => {
            whole = [head, rest].concat();
            (&[][..], &whole[..])
        }
        _ => (head, rest),
    };
    ENCODER.with_borrow_mut(|(encoder, packed)| {
        let room = snap::raw::max_compress_len(rest.len());
        if packed.len() < room {
            packed.resize(room, 0);
        }
        let len = encoder.compress(rest, packed).expect("shorter than 4 GiB");
        if head.is_empty() {
            return packed[..len].to_vec();
        }
        let elements = &packed[varint_len(rest.len())..len];
        join(head, head.len() + rest.len(), std::iter::once(elements))
    })
}

/// A block with this head and these compressed rests; `len` is the length of all that.
pub fn join<'a>(head: &[u8], len: usize, rests: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let rests_len: usize = rests.clone().map(<[u8]>::len).sum();
    let mut block = Vec::with_capacity(head.len() + rests_len + 16);
    put_varint(len, &mut block);
    let (first, head) = head.split_at(1);
    for part in [first, head] {
        put_literal(part, &mut block);
    }
    rests.for_each(|rest| block.extend_from_slice(rest));
    block
}

/// The parts of a block that was packed with a head; `None` = any other block.
pub fn parts(block: &[u8]) -> Option<Parts<'_>> {
    let mut bytes = block;
    let len = snap::raw::decompress_len(block).ok()?;
    bytes = bytes.get(varint_len(len)..)?;
    if literal(&mut bytes)?.len() != 1 {
        return None;
    }
    let head = literal(&mut bytes)?;
    Some(Parts { head, rest: bytes, rest_len: len.checked_sub(1 + head.len())? })
}

fn varint_len(value: usize) -> usize {
    (1..).find(|bytes| value >> (7 * bytes) == 0).unwrap_or(1)
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_literal(bytes: &[u8], out: &mut Vec<u8>) {
    let len = bytes.len() - 1;
    if len < 60 {
        out.push((len as u8) << 2);
    } else {
        let count = 1 + (usize::BITS - len.leading_zeros() - 1) as usize / 8;
        out.push((59 + count as u8) << 2);
        out.extend_from_slice(&len.to_le_bytes()[..count]);
    }
    out.extend_from_slice(bytes);
}

/// Takes the literal at the front off.
fn literal<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (tag, rest) = bytes.split_first()?;
    if tag & 3 != 0 {
        return None;
    }
    let (len, rest) = match usize::from(tag >> 2) {
        short @ 0..60 => (short, rest),
        long => {
            let (number, rest) = rest.split_at_checked(long - 59)?;
            let mut len = [0; 8];
            len[..number.len()].copy_from_slice(number);
            (u64::from_le_bytes(len) as usize, rest)
        }
    };
    let (literal, rest) = rest.split_at_checked(len.checked_add(1)?)?;
    *bytes = rest;
    Some(literal)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Rng;
    use super::*;

    fn unpack(block: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(block).unwrap()
    }

    /// Text that repeats itself, also across the head's end, and over the 64 KiB that an encoder looks back.
    fn text(rng: &mut Rng) -> Vec<u8> {
        let mut text = Vec::new();
        let words: Vec<Vec<u8>> = (0..1 + rng.below(20)).map(|_| rng.bytes(30)).collect();
        let len = [10, 300, 70_000, 200_000][rng.below(4)];
        while text.len() < len {
            text.extend_from_slice(&words[rng.below(words.len())]);
            text.push(b'\n');
        }
        text
    }

    #[test]
    fn any_decoder_reads_a_block_and_several_that_were_joined() {
        let mut rng = Rng::from_env();
        for _ in 0..200 {
            let plain: Vec<(Vec<u8>, usize)> = (0..1 + rng.below(4))
                .map(|_| {
                    let text = text(&mut rng);
                    let head_len = [2, 40, 61, 62, 300].map(|len| text.len().min(len))[rng.below(5)];
                    (text, head_len)
                })
                .collect();
            let blocks: Vec<Vec<u8>> =
                plain.iter().map(|(text, head_len)| pack(&text[..*head_len], &text[*head_len..])).collect();
            let mut expected = b"another head".to_vec();
            for ((text, head_len), block) in plain.iter().zip(&blocks) {
                assert_eq!(unpack(block), *text);
                let parts = parts(block).unwrap();
                assert_eq!((parts.head, parts.rest_len), (&text[1..*head_len], text.len() - head_len));
                expected.extend_from_slice(&text[*head_len..]);
            }
            let rests = blocks.iter().map(|block| parts(block).unwrap().rest);
            let joined = join(b"another head", expected.len(), rests);
            assert_eq!(unpack(&joined), expected);
            // And again.
            assert_eq!(parts(&joined).unwrap().head, b"nother head");
        }
    }

    /// A block that refers to its own beginning must not lose it.
    #[test]
    fn what_was_packed_otherwise_is_not_taken_apart() {
        let mut rng = Rng::from_env();
        for _ in 0..500 {
            let text = text(&mut rng);
            for cut in [0, 1, 2, text.len()] {
                let block = snap::raw::Encoder::new().compress_vec(&text[..cut]).unwrap();
                assert_eq!(parts(&block), None, "{cut} bytes");
            }
            for cut in [0, 1] {
                let block = pack(&text[..cut], &text[cut..]);
                assert_eq!((unpack(&block), parts(&block)), (text.clone(), None));
            }
            // Any bytes: no length that they declare is believed.
            let _ = parts(&rng.bytes(20));
        }
    }
}
