//! Listings of directories, kept for as long as a directory stays as it is: thousands of logs in one directory are each
//! looked for in it, and to list all of it for each would take time with the square of their number.
//!
//! A directory's change time tells whether a listing still holds, but not at once: the kernel takes it from a clock that
//! ticks every 1 to 10 ms, some file systems keep whole seconds, and so two changes may leave the same time. A listing is
//! kept only if it began well after the last change; then whatever comes later leaves another time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::text::path_text::text_of_bytes;

/// Between the last change of a directory and a listing that is kept.
const SETTLED_NS: i128 = 100_000_000;
/// The same where the file system seems to keep whole seconds. FAT keeps every other.
const SETTLED_COARSE_NS: i128 = 2_100_000_000;
/// A smaller directory is listed as fast as it is asked whether it changed.
const ENTRIES_MIN: usize = 32;
/// Directories of which listings are kept.
const KEPT_MAX: usize = 4;
/// Entries that are kept of all together: some 10 MiB.
const ENTRIES_KEPT_MAX: usize = 200_000;

/// Files that can't be looked at and of which the log is told.
const TOLD_MAX: usize = 1_000;

/// The names of a directory, as they are written (path_text.rs).
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// With their inode numbers.
    by_name: BTreeMap<Box<str>, u64>,
    /// The same, for those who look for a file under any name. Ordered by inode.
    by_inode: Vec<(u64, Box<str>)>,
}

impl Listing {
    fn read(dir: &OwnedFd) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in rustix::fs::Dir::read_from(dir)?.flatten() {
            let name: Box<str> = text_of_bytes(entry.file_name().to_bytes()).into();
            listing.by_name.insert(name.clone(), entry.ino());
            listing.by_inode.push((entry.ino(), name));
        }
        listing.by_inode.sort_unstable();
        Ok(listing)
    }

    /// As if there were nothing else.
    pub(super) fn of_one(name: &str, inode: u64) -> Listing {
        Listing { by_name: BTreeMap::from([(name.into(), inode)]), by_inode: vec![(inode, name.into())] }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Names that begin like this, in order.
    pub(super) fn beginning_with<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        let names =
            self.by_name.range::<str, _>((Bound::Included(start), Bound::Unbounded)).map(|(name, _)| &**name);
        names.take_while(move |name| name.starts_with(start))
    }

    /// Names of files with this inode number.
    pub(super) fn of_inode(&self, inode: u64) -> impl Iterator<Item = &str> {
        let from = self.by_inode.partition_point(|(other, _)| *other < inode);
        self.by_inode[from..].iter().take_while(move |(other, _)| *other == inode).map(|(_, name)| &**name)
    }
}

/// What a directory is, and when it last changed.
type State = (u64, u64, i128, i128);

#[derive(Debug)]
struct Kept {
    directory: String,
    state: State,
    listing: Arc<Listing>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// Used last at the end.
    kept: Vec<Kept>,
    /// What the log was told of files that can't be looked at: directories are listed again and again.
    told: BTreeSet<String>,
}

impl Listings {
    /// What is in a directory now.
    ///
    /// # Errors
    /// When it can't be listed.
    pub(super) fn list(&mut self, dir: &OwnedFd, directory: &str) -> io::Result<Arc<Listing>> {
        let state = state_of(dir)?;
        if let Some(at) = self.kept.iter().position(|kept| kept.directory == directory) {
            let kept = self.kept.remove(at);
            if kept.state == state {
                let listing = Arc::clone(&kept.listing);
                self.kept.push(kept);
                return Ok(listing);
            }
        }
        let began_ns = now_ns();
        let listing = Arc::new(Listing::read(dir)?);
        let entries = listing.by_inode.len();
        if (ENTRIES_MIN..=ENTRIES_KEPT_MAX).contains(&entries)
            && has_settled(state, began_ns)
            && state_of(dir)? == state
        {
            self.keep(Kept { directory: directory.to_owned(), state, listing: Arc::clone(&listing) });
        }
        Ok(listing)
    }

    /// Whether the log was not told of this yet.
    pub(super) fn is_news(&mut self, text: &str) -> bool {
        self.told.len() < TOLD_MAX && self.told.insert(text.to_owned())
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
        let entries = |kept: &[Kept]| kept.iter().map(|kept| kept.listing.by_inode.len()).sum::<usize>();
        while self.kept.len() > KEPT_MAX || entries(&self.kept) > ENTRIES_KEPT_MAX {
            self.kept.remove(0);
        }
    }

    /// Nothing was asked for a while: what is kept would only take room.
    pub(super) fn forget(&mut self) {
        self.kept = Vec::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

fn state_of(dir: &OwnedFd) -> io::Result<State> {
    let stat = rustix::fs::fstat(dir)?;
    let ns = |seconds, nanos| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let changed_ns = ns(stat.st_ctime, stat.st_ctime_nsec as i64);
    Ok((stat.st_dev, stat.st_ino, ns(stat.st_mtime, stat.st_mtime_nsec as i64), changed_ns))
}

fn has_settled((_, _, modified_ns, changed_ns): State, now_ns: i128) -> bool {
    let last_ns = modified_ns.max(changed_ns);
    let coarse = modified_ns % 1_000_000_000 == 0;
    last_ns + if coarse { SETTLED_COARSE_NS } else { SETTLED_NS } <= now_ns
}

fn now_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    fn has_name(listing: &Listing, name: &str) -> bool {
        listing.beginning_with(name).next().is_some()
    }

    /// A file that is made right after a listing must be in the next one, however the clock ticks.
    #[test]
    fn a_listing_is_never_older_than_the_last_change() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, directory) = (open(dir.path()), dir.path().to_str().unwrap());
        for number in 0..ENTRIES_MIN {
            std::fs::write(dir.path().join(format!("f{number}")), "").unwrap();
        }
        let mut listings = Listings::default();
        let mut kept = 0;
        let end = Instant::now() + Duration::from_millis(600);
        for number in 0.. {
            let name = format!("new{number}-");
            let before = listings.list(&fd, directory).unwrap();
            assert!(!has_name(&before, &name));
            kept += usize::from(!listings.is_empty());
            if number % 50 == 49 {
                while listings.is_empty() && Instant::now() < end {
                    std::thread::yield_now();
                    let _ = listings.list(&fd, directory).unwrap();
                }
            }
            std::fs::write(dir.path().join(&name), "").unwrap();
            assert!(has_name(&listings.list(&fd, directory).unwrap(), &name));
            if Instant::now() > end {
                break;
            }
        }
        assert!(kept < 600, "only a directory at rest is kept");
    }

    #[test]
    fn a_directory_at_rest_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, directory) = (open(dir.path()), dir.path().to_str().unwrap());
        for number in 0..ENTRIES_MIN {
            std::fs::write(dir.path().join(format!("f{number}")), "").unwrap();
        }
        let mut listings = Listings::default();
        let end = Instant::now() + Duration::from_secs(60);
        while listings.is_empty() && Instant::now() < end {
            let _ = listings.list(&fd, directory).unwrap();
        }
        let (one, two) = (listings.list(&fd, directory).unwrap(), listings.list(&fd, directory).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        let names: Vec<&str> = one.beginning_with("f3").collect();
        assert_eq!(names, ["f3", "f30", "f31"]);
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(dir.path().join("f7")).unwrap());
        assert_eq!(one.of_inode(inode).collect::<Vec<_>>(), ["f7"]);
    }

    /// What came within the same tick, or the same second where no more is kept, would be missed.
    #[test]
    fn a_listing_soon_after_a_change_is_not_kept() {
        const SECOND: i128 = 1_000_000_000;
        let at = |ns| (1, 1, ns, ns);
        assert!(!has_settled(at(5 * SECOND + 7), 5 * SECOND + 50_000_000));
        assert!(has_settled(at(5 * SECOND + 7), 5 * SECOND + 200_000_000));
        assert!(!has_settled(at(5 * SECOND), 7 * SECOND));
        assert!(has_settled(at(5 * SECOND), 8 * SECOND));
        assert!(!has_settled(at(9 * SECOND + 7), 5 * SECOND), "the clock was set back");
    }
}
