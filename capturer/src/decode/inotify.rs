//! The events of an inotify descriptor: `struct inotify_event { int wd; u32 mask, cookie, len; char name[len] }`, see
//! inotify(7). The kernel never returns part of an event.

/// One event as inotify writes it.
#[derive(Debug, PartialEq, Eq)]
pub struct InotifyEvent<'a> {
    /// Watch descriptor; −1 for an overflow.
    pub watch: i32,
    /// What happened, as `IN_*` bits.
    pub mask: u32,
    /// Name within the watched directory, without padding; empty for the directory itself.
    pub name: &'a [u8],
}

/// `IN_MODIFY`: the file was written or truncated.
pub const MODIFY: u32 = 0x2;
/// `IN_ATTRIB`: rights, owner or times of the file changed.
pub const ATTRIB: u32 = 0x4;
/// `IN_Q_OVERFLOW`: events were lost; look at everything again.
pub const OVERFLOW: u32 = 0x4000;
/// `IN_IGNORED`: the watch is gone.
pub const IGNORED: u32 = 0x8000;
/// `IN_CREATE`: something was made in the directory.
pub const CREATE: u32 = 0x100;
/// `IN_DELETE`: a name was removed from the directory.
pub const DELETE: u32 = 0x200;
/// `IN_MOVED_TO`: something got a name in the directory.
pub const MOVED_TO: u32 = 0x80;
/// `IN_MOVED_FROM`: something was renamed or moved away; its new name comes next, if it is in a watched directory.
pub const MOVED_FROM: u32 = 0x40;
/// `IN_MOVE_SELF`: the directory itself was renamed.
pub const MOVE_SELF: u32 = 0x800;
/// `IN_ISDIR`: the name is a directory's.
pub const IS_DIRECTORY: u32 = 0x4000_0000;

const HEADER_BYTES: usize = 16;

/// The events in what one read returned. Stops at the first thing that is not an event.
pub fn events(mut bytes: &[u8]) -> impl Iterator<Item = InotifyEvent<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let len = u32::from_ne_bytes(word(12)) as usize;
        let name = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?)?;
        let end = memchr::memchr(0, name).unwrap_or(name.len());
        let event = InotifyEvent {
            watch: i32::from_ne_bytes(word(0)),
            mask: u32::from_ne_bytes(word(4)),
            name: &name[..end],
        };
        bytes = &bytes[HEADER_BYTES + len..];
        Some(event)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(watch: i32, mask: u32, name: &[u8], padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&watch.to_ne_bytes());
        out.extend_from_slice(&mask.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&((name.len() + padding) as u32).to_ne_bytes());
        out.extend_from_slice(name);
        out.extend(std::iter::repeat_n(0, padding));
        out
    }

    #[test]
    fn events_with_and_without_names_and_garbage() {
        let mut bytes = encode(3, MODIFY, b"a.log", 11);
        bytes.extend(encode(-1, OVERFLOW, b"", 0));
        let whole: Vec<_> = events(&bytes).collect();
        assert_eq!(
            whole,
            [
                InotifyEvent { watch: 3, mask: MODIFY, name: b"a.log" },
                InotifyEvent { watch: -1, mask: OVERFLOW, name: b"" }
            ]
        );
        for cut in 0..bytes.len() {
            assert!(events(&bytes[..cut]).count() <= 1, "cut at {cut}");
        }
        let mut long = encode(1, 1, b"", 0);
        long[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(events(&long).count(), 0);
    }
}
