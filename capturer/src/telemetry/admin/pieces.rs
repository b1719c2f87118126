//! Text in pieces of one size, for writing and sending answers. A growing string is copied into one twice as long, and
//! the allocator keeps what that takes for a moment: with hundreds of sources this was most of what looking at the
//! agent cost.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::Bytes;

/// Size of all pieces but the last.
const PIECE_BYTES: usize = 32 * 1024;

/// Written at its end, read from its beginning.
#[derive(Default)]
pub(super) struct Pieces {
    full: VecDeque<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.full.iter().map(Bytes::len).sum::<usize>() + self.last.len()
    }

    /// The next piece.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let last = || Some(Bytes::from(std::mem::take(&mut self.last))).filter(|last| !last.is_empty());
        self.full.pop_front().or_else(last)
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Pieces {
        let full = Some(whole).filter(|whole| !whole.is_empty()).into_iter().collect();
        Pieces { full, last: Vec::new() }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() == PIECE_BYTES {
            let full = std::mem::replace(&mut self.last, Vec::with_capacity(PIECE_BYTES));
            self.full.push_back(full.into());
        }
        let taken = &bytes[..bytes.len().min(PIECE_BYTES - self.last.len())];
        self.last.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mut pieces: Pieces) -> Vec<Bytes> {
        std::iter::from_fn(|| pieces.take()).collect()
    }

    #[test]
    fn what_is_written_comes_out_in_pieces_without_spare_room() {
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES / 2] {
            let text: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for step in [7, 1_000, 3 * PIECE_BYTES] {
                let mut pieces = Pieces::default();
                text.chunks(step).for_each(|chunk| pieces.write_all(chunk).expect("memory"));
                assert_eq!(pieces.len(), len);
                let taken = taken(pieces);
                assert_eq!(taken.concat(), text);
                assert!(taken.iter().all(|piece| (1..=PIECE_BYTES).contains(&piece.len())));
                assert_eq!(taken.len(), len.div_ceil(PIECE_BYTES));
            }
        }
        assert_eq!(taken(Bytes::from_static(b"ok").into()), ["ok"]);
        assert!(taken(Bytes::new().into()).is_empty());
    }
}
