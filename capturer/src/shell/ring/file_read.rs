//! A read of a regular file on a local file system, at a position. It has no timer: the kernel can't cancel a file
//! read, and on local file systems it does not hang. Files elsewhere (FUSE, NFS, CIFS) do not come here (files/lane.rs).

use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use io_uring::{opcode, types};

use super::operation;
use super::outcome::ReadError;

/// Reads up to `buffer`'s spare capacity at `offset`, appending. 0 bytes = the end of the file as it is now.
pub async fn file_read(
    file: &Rc<impl AsFd + 'static>,
    mut buffer: Vec<u8>,
    offset: u64,
) -> (Result<usize, ReadError>, Vec<u8>) {
    let spare = buffer.spare_capacity_mut();
    assert!(!spare.is_empty(), "a read into a full buffer would look like the end of the file");
    let entry =
        opcode::Read::new(types::Fd(file.as_fd().as_raw_fd()), spare.as_mut_ptr().cast(), spare.len() as u32)
            .offset(offset)
            .build();
    let kept: Rc<dyn AsFd> = file.clone();
    // SAFETY: `entry` points into `buffer`'s heap allocation and names `file`; both are kept with it.
    let (result, mut buffer) = unsafe { operation::submit(entry, buffer, Some(kept)) }.await;
    if result < 0 {
        return (Err(ReadError(-result)), buffer);
    }
    // SAFETY: the kernel wrote `result` bytes at the start of the spare capacity it was given.
    unsafe { buffer.set_len(buffer.len() + result as usize) };
    (Ok(result as usize), buffer)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn reads_at_a_position_and_appends() {
        crate::shell::ring::start(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, "0123456789").unwrap();
            let file = Rc::new(OwnedFd::from(std::fs::File::open(&path).unwrap()));
            let mut buffer = Vec::with_capacity(16);
            buffer.extend_from_slice(b"ab");
            let (result, buffer) = file_read(&file, buffer, 4).await;
            assert_eq!((result, &buffer[..]), (Ok(6), &b"ab456789"[..]));
            let (result, _) = file_read(&file, Vec::with_capacity(16), 10).await;
            assert_eq!(result, Ok(0));
        })
        .unwrap();
    }
}
