//! Listings of directories, kept while a directory does not change. With thousands of logs in one directory each is
//! searched for in it, and listing it for each would take time with the square of their number.
//!
//! A directory's change time shows whether a listing is still valid, but not at once: the kernel takes it from a clock
//! that ticks every 1 to 10 ms, some file systems keep whole seconds, and so two changes may have the same time. A
//! listing is kept only if it began well after the last change; then any later change has another time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::text::path_text::text_of_bytes;

/// Least time between the last change of a directory and a listing that is kept.
const SETTLED_NS: i128 = 100_000_000;
/// The same if the file system seems to keep whole seconds. FAT keeps every other one.
const SETTLED_COARSE_NS: i128 = 2_100_000_000;
/// Listing a smaller directory is as fast as checking whether it changed.
const ENTRIES_MIN: usize = 32;
/// How many directories' listings are kept.
const KEPT_MAX: usize = 4;
/// How many entries are kept in all: some 10 MiB.
const ENTRIES_KEPT_MAX: usize = 200_000;

/// Of how many logs it is kept what was reported, and for each how many texts.
const TOLD_MAX: usize = 1_000;
const TOLD_OF_LOG_MAX: usize = 16;
/// A log that was not looked at for this long may be gone. It makes room for others.
const TOLD_OLD_NS: i128 = 3_600_000_000_000;

/// The names in a directory, as text (text/path_text.rs).
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names with inode numbers.
    by_name: BTreeMap<Box<str>, u64>,
    /// The same sorted by inode, to find a file under any name.
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

    /// A listing with only this name.
    pub(super) fn of_one(name: &str, inode: u64) -> Listing {
        Listing { by_name: BTreeMap::from([(name.into(), inode)]), by_inode: vec![(inode, name.into())] }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Names with this beginning, in order.
    pub(super) fn beginning_with<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        let names =
            self.by_name.range::<str, _>((Bound::Included(start), Bound::Unbounded)).map(|(name, _)| &**name);
        names.take_while(move |name| name.starts_with(start))
    }

    /// Names with this inode number.
    pub(super) fn of_inode(&self, inode: u64) -> impl Iterator<Item = &str> {
        let from = self.by_inode.partition_point(|(other, _)| *other < inode);
        self.by_inode[from..].iter().take_while(move |(other, _)| *other == inode).map(|(_, name)| &**name)
    }
}

/// A directory's identity, and when it last changed.
type State = (u64, u64, i128, i128);

#[derive(Debug)]
struct Kept {
    directory: String,
    state: State,
    listing: Arc<Listing>,
}

/// Kept listings; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// The most recently used one is last.
    kept: Vec<Kept>,
    /// By directory and name of a log: what was wrong at the last look, and when that was. Directories are listed again and
    /// again, and each fault is to be reported once.
    told: BTreeMap<(String, String), (i128, BTreeSet<String>)>,
}

impl Listings {
    /// Lists a directory.
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

    /// Which of what is wrong with a log now was not wrong at the last look. What is over is forgotten, so that it is
    /// reported when it comes again.
    pub(super) fn news(&mut self, directory: &str, live_name: &str, now: Vec<String>) -> Vec<String> {
        if now.is_empty() && self.told.is_empty() {
            return now;
        }
        let of = (directory.to_owned(), live_name.to_owned());
        if now.is_empty() {
            self.told.remove(&of);
            return now;
        }
        let now_ns = now_ns();
        if self.told.len() >= TOLD_MAX && !self.told.contains_key(&of) {
            self.told.retain(|_, (looked_ns, _)| *looked_ns + TOLD_OLD_NS > now_ns);
            if self.told.len() >= TOLD_MAX {
                return Vec::new();
            }
        }
        let wrong: BTreeSet<String> = now.into_iter().take(TOLD_OF_LOG_MAX).collect();
        let (_, before) = self.told.insert(of, (now_ns, wrong.clone())).unwrap_or_default();
        wrong.into_iter().filter(|text| !before.contains(text)).collect()
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
        let entries = |kept: &[Kept]| kept.iter().map(|kept| kept.listing.by_inode.len()).sum::<usize>();
        while self.kept.len() > KEPT_MAX || entries(&self.kept) > ENTRIES_KEPT_MAX {
            self.kept.remove(0);
        }
    }

    /// Forgets listings that were not used for a while, to free their memory.
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

    /// A second fault of the same words was never reported, nor any after a thousand.
    #[test]
    fn a_fault_is_news_whenever_it_begins() {
        let mut listings = Listings::default();
        let mut news = |log: usize, texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            listings.news("/l", &log.to_string(), texts)
        };
        assert_eq!(news(1, &["a", "b"]), ["a", "b"]);
        assert_eq!(news(1, &["b", "c"]), ["c"]);
        assert!(news(2, &[]).is_empty());
        assert_eq!(news(2, &["a"]), ["a"]);
        assert!(news(1, &[]).is_empty());
        assert_eq!(news(1, &["b"]), ["b"], "it is over and comes again");
        for log in 0..2 * TOLD_MAX {
            news(log, &["a"]);
        }
        assert!(listings.told.len() <= TOLD_MAX);
        listings.told.values_mut().take(10).for_each(|(looked_ns, _)| *looked_ns -= 2 * TOLD_OLD_NS);
        let texts = || vec!["a".to_owned()];
        assert_eq!(listings.news("/l", "new", texts()), ["a"], "those that nobody looks at make room");
    }

    /// A file made right after a listing must be in the next one, however the clock ticks.
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

    /// A change within the same tick, or within the same second on coarse file systems, would be missed.
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
