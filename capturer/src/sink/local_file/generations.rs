//! The older files of an output: their names, and how to find them.
//!
//! ```text
//! web.ndjson                                   being written
//! web~20261125T034118.123Z.ndjson              rotated then (UTC)
//! web~20261124T120000.000Z.ndjson.zst          rotated and compressed
//! ```
//! A name never changes but for the ending of a compressed one, so nothing races with a renaming. `~` is not in the
//! alphabet of container names (file_name.rs), and the hash behind a changed name has neither `T` nor `Z`: no
//! container can choose a name that another's older file has.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, UNIX_EPOCH};

use crate::limits::FILE_NAME_BYTES_MAX;
use crate::settings::Compress;

/// Bytes of the longest addition to an output's name: `~`, the time, `.zst`, and `.tmp` while that is made.
const ADDED_BYTES: usize = 1 + STAMP_BYTES + 4 + 4;
const STAMP_BYTES: usize = "20261125T034118.123Z".len();
// An output's name leaves room for this: names in Linux have at most 255 bytes.
const _: () = assert!(FILE_NAME_BYTES_MAX + ADDED_BYTES <= 255);

/// What a compressed file's name ends in.
pub(super) fn packed_ending(compress: Compress) -> &'static str {
    match compress {
        Compress::None => "",
        Compress::Gzip => ".gz",
        Compress::Zstd => ".zst",
    }
}

/// Suffix of a compressed file that is not complete yet.
pub(super) const UNFINISHED: &str = ".tmp";

/// One older file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    /// When it was rotated; orders generations.
    pub(super) stamp: String,
    /// Its name in the directory.
    pub(super) name: String,
    /// Whether it is compressed already.
    pub(super) packed: bool,
}

/// The name of an older file with this stamp.
pub(super) fn name(live: &str, stamp: &str) -> String {
    let (stem, ending) = split(live);
    format!("{stem}~{stamp}{ending}")
}

/// The stamp of a file rotated at this time, milliseconds since 1970. At least one millisecond later than the newest
/// existing one, even if the clock stands still or was set back.
pub(super) fn stamp_after(newest: &str, unix_ms: u64) -> String {
    let wanted = stamp(unix_ms);
    if wanted.as_str() > newest {
        return wanted;
    }
    stamp(millis(newest).map_or(unix_ms, |millis| millis + 1))
}

/// A time in the form by which generations are ordered.
pub(super) fn stamp(unix_ms: u64) -> String {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string();
    time.replace(['-', ':'], "")
}

fn millis(stamp: &str) -> Option<u64> {
    let part = |from, to| stamp.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, rest) = (part(9, 11)?, part(11, 13)?, part(13, STAMP_BYTES)?);
    let time = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{rest}")).ok()?;
    let millis = time.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64;
    // humantime accepts some texts that it would never write.
    (self::stamp(millis) == stamp).then_some(millis)
}

/// The older file of `live` that has this name, if it is one.
pub(super) fn parse(live: &str, name: &str) -> Option<Generation> {
    let (stem, ending) = split(live);
    let rest = name.strip_prefix(stem)?.strip_prefix('~')?;
    let stamp = rest.get(..STAMP_BYTES)?;
    let behind = rest[STAMP_BYTES..].strip_prefix(ending)?;
    let packed = match behind {
        "" => false,
        ".gz" | ".zst" => true,
        _ => return None,
    };
    millis(stamp)?;
    Some(Generation { stamp: stamp.to_owned(), name: name.to_owned(), packed })
}

fn split(live: &str) -> (&str, &str) {
    match live.rfind('.') {
        Some(at) if at > 0 => live.split_at(at),
        _ => (live, ""),
    }
}

/// The older files of an output, oldest first.
pub(super) fn list(dir: &OwnedFd, live: &str) -> io::Result<Vec<Generation>> {
    let mut found: Vec<Generation> = names(dir)?.iter().filter_map(|name| parse(live, name)).collect();
    found.sort();
    Ok(found)
}

/// Directories with fewer names are listed again, as listing them costs no more than a look-up.
const NAMES_KEPT_MIN: usize = 32;

/// Older files left by earlier runs, from one listing of each directory: one listing for each of ten thousand outputs
/// would take quadratic time. Older files of this run are known to those who made them.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Directory, beginning of the output's name, names of older files.
    directories: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Left {
    /// The older files of an output in `dir`, which is called `path`, oldest first. Some may have gone since the
    /// listing.
    pub(super) fn of(&mut self, dir: &OwnedFd, path: &str, live: &str) -> io::Result<Vec<Generation>> {
        let (stem, _) = split(live);
        let listed;
        let by_stem = match self.directories.get(path) {
            Some(by_stem) => by_stem,
            None => {
                let names = names(dir)?;
                let keep = names.len() >= NAMES_KEPT_MIN;
                let mut by_stem = BTreeMap::<String, Vec<String>>::new();
                for name in names {
                    if let Some((stem, _)) = name.rsplit_once('~') {
                        by_stem.entry(stem.to_owned()).or_default().push(name);
                    }
                }
                if keep {
                    self.directories.entry(path.to_owned()).or_insert(by_stem)
                } else {
                    listed = by_stem;
                    &listed
                }
            }
        };
        let names = by_stem.get(stem).into_iter().flatten();
        let mut found: Vec<Generation> = names.filter_map(|name| parse(live, name)).collect();
        found.sort();
        Ok(found)
    }

    /// Forgets the listings: the directories were replaced.
    pub(super) fn forget(&mut self) {
        self.directories.clear();
    }
}

/// All names in a directory that are UTF-8, as ours are.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_795_578_078_123;

    #[test]
    fn names_and_what_they_say() {
        assert_eq!(name("web.ndjson", &stamp(MS)), "web~20261125T034118.123Z.ndjson");
        assert_eq!(name("a.b", &stamp(0)), "a~19700101T000000.000Z.b");
        assert_eq!(name("web", &stamp(MS)), "web~20261125T034118.123Z");
        assert_eq!(name(".x", &stamp(MS)), ".x~20261125T034118.123Z");
        for (live, found, expected) in [
            ("web.ndjson", "web~20261125T034118.123Z.ndjson", Some(false)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.zst", Some(true)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.gz", Some(true)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.zst.tmp", None),
            ("web.ndjson", "web.ndjson", None),
            ("web.ndjson", "web2~20261125T034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261325T034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261125x034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261125T034118Z123Z.ndjson", None),
            ("web.ndjson", "web~e484e9d1b9.ndjson", None),
            ("web.ndjson", "web~", None),
            ("web.ndjson", "web~20261125T034118.12€Z", None),
            ("web", "web~20261125T034118.123Z", Some(false)),
        ] {
            assert_eq!(parse(live, found).map(|found| found.packed), expected, "{found}");
        }
        assert!(
            name("web.ndjson", &stamp(MS)).len() + 4 + UNFINISHED.len() <= "web.ndjson".len() + ADDED_BYTES
        );
    }

    #[test]
    fn what_earlier_runs_left_is_found_by_one_listing() {
        let dir = tempfile::tempdir().unwrap();
        let fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let write = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        (0..NAMES_KEPT_MIN).for_each(|number| write(&format!("o{number}.ndjson")));
        for name in ["a~b.ndjson", "a.ndjson", "b"] {
            write(&self::name(name, &stamp(MS + 5)));
            write(&format!("{}.zst", self::name(name, &stamp(MS))));
        }
        let mut left = Left::default();
        for name in ["a~b.ndjson", "a.ndjson", "b", "o1.ndjson", "c"] {
            let found = left.of(&fd, "", name).unwrap();
            assert_eq!(found, list(&fd, name).unwrap(), "{name}");
        }
        write(&self::name("c", &stamp(MS)));
        assert_eq!(left.of(&fd, "", "c").unwrap(), [], "it was not there when the directory was listed");
        left.forget();
        assert_eq!(left.of(&fd, "", "c").unwrap().len(), 1);
    }

    /// Generations are ordered by name alone: a clock that stands still or goes back must not confuse them.
    #[test]
    fn the_next_stamp_is_always_later() {
        let mut newest = String::new();
        for unix_ms in [MS, MS, MS - 10_000, 0, MS + 5] {
            let next = stamp_after(&newest, unix_ms);
            let found = parse("x.log", &name("x.log", &next)).expect("a name of ours");
            assert_eq!(found.stamp, next);
            assert!(next > newest, "{next} after {newest}");
            newest = next;
        }
    }
}
