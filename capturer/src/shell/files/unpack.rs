//! Reads a rotated log that was compressed. It is decompressed as it is read: nothing goes to the disk, and memory only
//! has the bytes of the last read, so the length of the content costs time but no room. An archive that nobody has read
//! from takes no memory: a start with thousands of containers opens several archives of each.
//!
//! Reads come in order, or go back to within the last one (an incomplete record is read again). A read that goes
//! further back starts again at the archive's beginning.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use flate2::bufread::GzDecoder;

use crate::ledger::claims::Claimed;

const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of an archive's content to keep while it is measured: from `at` on, as many as there is room for.
pub(super) struct Kept<'a> {
    /// Offset in the content.
    pub at: u64,
    /// Where they go; bytes beyond the content's end are left unchanged.
    pub bytes: &'a mut [u8],
}

impl Kept<'_> {
    fn meet(&mut self, chunk_at: u64, chunk: &[u8]) {
        let from = self.at.max(chunk_at);
        let to = (self.at + self.bytes.len() as u64).min(chunk_at + chunk.len() as u64);
        if from < to {
            let part = &chunk[(from - chunk_at) as usize..(to - chunk_at) as usize];
            self.bytes[(from - self.at) as usize..][..part.len()].copy_from_slice(part);
        }
    }
}

/// The length of an archive's content, and whether it is damaged behind that.
pub(super) fn measure(archive: impl AsFd, kept: &mut [Kept<'_>], beat: &dyn Fn()) -> (u64, bool) {
    let mut decoder = Decoder::new(archive);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut len = 0;
    let damaged = loop {
        match decoder.read(&mut chunk) {
            Ok(0) => break false,
            Ok(count) => {
                kept.iter_mut().for_each(|kept| kept.meet(len, &chunk[..count]));
                len += count as u64;
                beat();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break true,
        }
    };
    (len, damaged)
}

/// An archive that is being read.
pub(super) struct Unpacker {
    archive: Arc<Claimed<OwnedFd>>,
    /// The length that [`measure`] found.
    len: u64,
    /// Takes some 75 KiB, so it is made at the first read.
    decoder: Option<Decoder<Arc<Claimed<OwnedFd>>>>,
    /// How much was decompressed.
    at: u64,
    /// The last of the decompressed bytes.
    latest: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new(archive: Claimed<OwnedFd>, len: u64) -> Unpacker {
        Unpacker { archive: Arc::new(archive), len, decoder: None, at: 0, latest: Vec::new() }
    }

    /// Length of the content.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills the spare room of `buffer` with the content at `offset`.
    pub(super) fn read(&mut self, offset: u64, buffer: &mut Vec<u8>, beat: &dyn Fn()) -> io::Result<usize> {
        if offset + (self.latest.len() as u64) < self.at {
            (self.decoder, self.at) = (None, 0);
            self.latest.clear();
        }
        let room = buffer.capacity() - buffer.len();
        let begins = self.at - self.latest.len() as u64;
        if offset >= self.at {
            self.latest.clear();
            self.pass_over(offset.min(self.len) - self.at, beat)?;
        } else {
            self.latest.drain(..(offset - begins) as usize);
        }
        let wanted = room.saturating_sub(self.latest.len()).min((self.len - self.at) as usize);
        let had = self.latest.len();
        self.latest.resize(had + wanted, 0);
        decoder(&mut self.decoder, &self.archive).read_exact(&mut self.latest[had..])?;
        self.at += wanted as u64;
        let count = room.min(self.latest.len());
        buffer.extend_from_slice(&self.latest[..count]);
        Ok(count)
    }

    fn pass_over(&mut self, bytes: u64, beat: &dyn Fn()) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(CHUNK_BYTES as u64) as usize;
            decoder(&mut self.decoder, &self.archive).read_exact(&mut chunk[..part])?;
            left -= part as u64;
            beat();
        }
        self.at += bytes;
        Ok(())
    }
}

/// The present decoder, or a new one at the archive's beginning.
fn decoder<'a>(
    decoder: &'a mut Option<Decoder<Arc<Claimed<OwnedFd>>>>,
    archive: &Arc<Claimed<OwnedFd>>,
) -> &'a mut Decoder<Arc<Claimed<OwnedFd>>> {
    decoder.get_or_insert_with(|| Decoder::new(Arc::clone(archive)))
}

/// Decompresses one member after the other and, like gzip, treats zeros behind the last one as padding.
pub(super) struct Decoder<F> {
    /// `None` = at the end, or behind damage.
    member: Option<GzDecoder<BufReader<Bytes<F>>>>,
}

impl<F: AsFd> Decoder<F> {
    pub(super) fn new(archive: F) -> Decoder<F> {
        Decoder { member: Some(GzDecoder::new(BufReader::new(Bytes { file: archive, at: 0 }))) }
    }
}

impl<F: AsFd> Read for Decoder<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.member.take() {
            let result = member.read(into);
            if into.is_empty() || !matches!(result, Ok(0)) {
                let goes_on =
                    result.as_ref().err().is_none_or(|error| error.kind() == io::ErrorKind::Interrupted);
                self.member = Some(member).filter(|_| goes_on);
                return result;
            }
            let mut archive = member.into_inner();
            if !skip_zeros(&mut archive)? {
                self.member = Some(GzDecoder::new(archive));
            }
        }
        Ok(0)
    }
}

/// Returns whether nothing follows the zeros.
fn skip_zeros(archive: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = archive.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        if bytes.is_empty() || zeros < bytes.len() {
            let is_end = bytes.is_empty();
            archive.consume(zeros);
            return Ok(is_end);
        }
        archive.consume(zeros);
    }
}

/// Reads a file with a position of its own, so that several readers need only one descriptor.
struct Bytes<F> {
    file: F,
    at: u64,
}

impl<F: AsFd> Read for Bytes<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = rustix::io::pread(&self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
