//! Files that a link led to between two looks: glog's `app.INFO`, `rotatelogs -L`, `current/app.log` of releases. The link
//! shows only where it leads now. Files that are named like that one and like the one before but for digits, and were made
//! between the two, are those that it led to meanwhile. They are read if they were written one after the other, as one log
//! is; else they may be logs of their own, and are named as possible losses. So are those in other directories, because only
//! one directory is read at a time.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType};

use super::aside::{GRACE_NS, LOOKED_AT_MAX, Seen, TOLD_MAX, digits_alike, see};
use super::listings::Listing;
use super::look::Chain;
use crate::capture::io::FoundFile;
use crate::model::cursor::FileId;
use crate::model::rotated_name::RotatedName;
use crate::text::path_text::name_of;

/// When the newest file that was read and the live one were made; `None` = nobody knows, or nothing lies between.
fn span(chain: Chain<'_>, live: FileId) -> Option<(i64, i64)> {
    let read = chain.wanted.iter().filter(|id| !id.can_be(live));
    let from_ns = read.map(|id| id.birth_ns).max().filter(|birth_ns| *birth_ns != 0)?;
    (from_ns < live.birth_ns).then_some((from_ns, live.birth_ns))
}

/// Those in the directory of the live file. As names_of in look.rs: ranks, names, and whether each is compressed.
pub(super) fn led_to(
    dir: &OwnedFd,
    listing: &Listing,
    chain: Chain<'_>,
    live: &Seen,
) -> BTreeSet<(u32, String, bool)> {
    let none = BTreeSet::new();
    let Some((directory, before)) = chain.before.rsplit_once('/') else { return none };
    let Some((from_ns, to_ns)) = span(chain, live.id) else { return none };
    let kind = digits_alike(chain.live_name);
    if digits_alike(before) != kind {
        return none;
    }
    let first_digit = chain.live_name.find(|char: char| char.is_ascii_digit());
    let start = &chain.live_name[..first_digit.unwrap_or(chain.live_name.len())];
    let is_apart = |name: &str| chain.apart.iter().any(|apart| apart == name);
    let is_one = |name: &&str| {
        let is_other = *name != chain.live_name && !is_apart(name) && digits_alike(name) == kind;
        is_other && RotatedName::of(name, chain.live_name).is_none()
    };
    let names: Vec<&str> = listing.beginning_with(start).filter(is_one).collect();
    let mut between = Vec::new();
    // Dates and numbers grow, so the newest come last.
    for name in names.into_iter().rev().take(LOOKED_AT_MAX) {
        let Some(seen) = see(dir, name) else { continue };
        let is_wanted = chain.wanted.iter().any(|wanted| wanted.can_be(seen.id));
        if !is_wanted && (from_ns + 1..to_ns).contains(&seen.id.birth_ns) {
            between.push((seen.id.birth_ns, name, seen.modified_ns));
        }
    }
    between.sort_unstable();
    let ends = Some(before).filter(|_| directory == chain.directory).and_then(|name| see(dir, name));
    let ends = ends.map(|seen| seen.modified_ns).into_iter();
    let ends = ends.chain(between.iter().map(|(.., modified_ns)| *modified_ns));
    let mut ends: Vec<i64> = ends.collect();
    let mut begins: Vec<i64> = between.iter().map(|(birth_ns, ..)| *birth_ns).chain([to_ns]).collect();
    ends.reverse();
    begins.reverse();
    let is_one_log = ends.iter().zip(&begins).all(|(end_ns, next_ns)| *end_ns <= next_ns + GRACE_NS);
    let (rank, count) = match is_one_log {
        true => (FoundFile::RANK_BY_BIRTH, between.len()),
        false => (FoundFile::RANK_STRANGE, TOLD_MAX),
    };
    between.into_iter().rev().take(count).map(|(_, name, _)| (rank, name.to_owned(), false)).collect()
}

/// Those in directories that are named like that of the live file but for digits. They are told.
pub(super) fn in_other_directories(chain: Chain<'_>, found: &[FoundFile]) -> Vec<FoundFile> {
    let live = found.iter().find(|file| file.rank == 0).filter(|_| !chain.before.is_empty());
    let Some((from_ns, to_ns)) = live.and_then(|live| span(chain, live.id)) else { return Vec::new() };
    let path = format!("{}/{}", chain.directory, chain.live_name);
    let parts = [chain.before, &path].map(|path| path.split('/').collect::<Vec<&str>>());
    let [before, now] = &parts;
    let mut differ = (0..now.len()).filter(|at| before.get(*at) != now.get(*at));
    let Some(at) = differ.next().filter(|at| before.len() == now.len() && at + 1 < now.len()) else {
        return Vec::new();
    };
    let kind = digits_alike(now[at]);
    if differ.next().is_some() || digits_alike(before[at]) != kind {
        return Vec::new();
    }
    let (parent, rest) = (now[..at].join("/"), now[at + 1..].join("/"));
    // From the directory of the live file to the one in which the names differ.
    let up = "../".repeat(now.len() - 1 - at);
    let Ok(entries) = std::fs::read_dir(&*name_of(&format!("{parent}/"))) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| digits_alike(name) == kind && name != now[at]).collect();
    names.sort_unstable();
    let mut told = Vec::new();
    for name in names.into_iter().rev().take(LOOKED_AT_MAX) {
        let path = format!("{parent}/{name}/{rest}");
        let stat = rustix::fs::statx(CWD, &*name_of(&path), AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED);
        let is_regular = |mode: u16| FileType::from_raw_mode(mode.into()) == FileType::RegularFile;
        let Some(stat) = stat.ok().filter(|stat| is_regular(stat.stx_mode)) else { continue };
        let id = FileId::of(&stat);
        let is_wanted = chain.wanted.iter().any(|wanted| wanted.can_be(id));
        if stat.stx_size > 0 && !is_wanted && (from_ns + 1..to_ns).contains(&id.birth_ns) {
            told.push(FoundFile {
                name: format!("{up}{name}/{rest}"),
                rank: FoundFile::RANK_STRANGE,
                compressed: false,
                id,
                len: stat.stx_size,
                head: Vec::new(),
                unpacked_len: None,
                modified_ns: FileId::modified_ns(&stat),
            });
        }
    }
    told.sort_by_key(|file| std::cmp::Reverse(file.id.birth_ns));
    told.truncate(TOLD_MAX);
    told
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::shell::files::listings::Listings;
    use crate::shell::files::look::scan;

    const READ: u32 = FoundFile::RANK_BY_BIRTH;
    const TOLD: u32 = FoundFile::RANK_STRANGE;

    fn id(path: &Path) -> FileId {
        FileId::of(&rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED).unwrap())
    }

    /// Makes these files one after the other; the first was read, and the link leads to the last. `late`: this one is still
    /// written to. Returns what is found between.
    fn found(paths: &[&str], late: &str) -> Vec<(String, u32)> {
        let root = tempfile::tempdir().unwrap();
        let path_of = |name: &str| root.path().join(name);
        for name in paths {
            let path = path_of(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            // Birth times are as coarse as the kernel's ticks.
            let probe = path_of("probe");
            while std::fs::write(&probe, "").is_ok() && id(&probe).birth_ns <= id(&path).birth_ns {
                std::fs::remove_file(&probe).unwrap();
            }
            std::fs::remove_file(&probe).unwrap();
        }
        if !late.is_empty() {
            let later = FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(60));
            std::fs::File::options().append(true).open(path_of(late)).unwrap().set_times(later).unwrap();
        }
        let wanted = [id(&path_of(paths[0]))];
        let (before, live) = (path_of(paths[0]), path_of(paths[paths.len() - 1]));
        let chain = Chain {
            directory: live.parent().unwrap().to_str().unwrap(),
            live_name: live.file_name().unwrap().to_str().unwrap(),
            wanted: &wanted,
            before: before.to_str().unwrap(),
            ..Chain::default()
        };
        let of = |chain: Chain<'_>| {
            let mut found = scan(chain, &mut Listings::default()).0.unwrap();
            found.append(&mut in_other_directories(chain, &found));
            found.retain(|file| file.rank > 0 && file.id != wanted[0]);
            found.sort_by_key(|file| file.id.birth_ns);
            found.into_iter().map(|file| (file.name, file.rank)).collect::<Vec<_>>()
        };
        assert!(
            of(Chain { before: "", ..chain }).iter().all(|(_, rank)| *rank == TOLD),
            "no link was changed"
        );
        of(chain)
    }

    fn check(paths: &[&str], late: &str, expected: &[(&str, u32)]) {
        let found = found(paths, late);
        let found: Vec<_> = found.iter().map(|(name, rank)| (name.as_str(), *rank)).collect();
        assert_eq!(found, expected, "{paths:?}");
    }

    /// What a link led to between two looks was neither read nor told.
    #[test]
    fn files_named_alike_and_made_in_between_are_those_it_led_to() {
        let glog = ["a.INFO.20261130-100000.9", "a.INFO.20261130-110000.9", "a.INFO.20261130-120000.12"];
        check(&glog, "", &[(glog[1], READ)]);
        check(&["log.9", "log.10", "log.11", "log.12"], "", &[("log.10", READ), ("log.11", READ)]);
        check(&["log.9", "log.10"], "", &[]);
        // Made before the one that was read.
        check(&["log.9", "other", "log.12"], "", &[]);
        // Another month has another directory.
        check(&["11/log.30", "12/log.01", "12/log.02"], "", &[("log.01", READ)]);
    }

    /// They may be logs of their own.
    #[test]
    fn files_that_were_written_at_the_same_time_are_told() {
        let shards = ["shard-1", "shard-2", "shard-3", "shard-4"];
        let told = [("shard-2", TOLD), ("shard-3", TOLD)];
        check(&shards, "shard-1", &told);
        check(&shards, "shard-2", &told);
        check(&shards, "shard-3", &told);
        check(&shards, "shard-4", &[("shard-2", READ), ("shard-3", READ)]);
        check(&["shard-1", "part-2", "web.log"], "", &[]);
    }

    #[test]
    fn releases_in_between_are_told() {
        let told = [("../2/app.log", TOLD), ("../3/app.log", TOLD)];
        check(&["r/1/app.log", "r/2/app.log", "r/3/app.log", "r/4/app.log"], "", &told);
        check(
            &["r/1/log/app.log", "r/2/log/app.log", "r/3/log/app.log"],
            "",
            &[("../../2/log/app.log", TOLD)],
        );
        check(&["r/1/app.log", "r/2/web.log", "r/x/app.log", "r/3/app.log"], "", &[]);
        check(&["r/1/app.log", "s/2/app.log", "s/3/app.log"], "", &[]);
    }
}
