//! Rotated files that logrotate's `olddir` moved to a directory below that of their log. They are read with the log, as
//! if they were beside it. The patterns tell where these directories are (capture/core/paths/olddir.rs).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::listings::Listings;
use super::look::Chain;
use crate::model::rotated_name::{RotatedName, common_start};
use crate::text::path_text::name_of;

/// The last component of a path from a log's directory.
pub(super) fn name_in(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// How to open a file in a directory below a log's. A mount there may hang, and logrotate does not move files across
/// mounts.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Rotated files of the log: paths from its directory, how their names relate to its name, and whether they are
/// compressed. Empty if two directories have some, because these belong to different logs.
pub(super) fn moved(
    dir: &OwnedFd,
    chain: Chain<'_>,
    listings: &mut Listings,
) -> Vec<(String, (RotatedName, bool))> {
    let found = chain.olddirs.iter().map(|olddir| moved_to(dir, olddir, chain, listings));
    let mut found = found.filter(|files| !files.is_empty());
    let first = found.next().unwrap_or_default();
    if found.next().is_some() { Vec::new() } else { first }
}

fn moved_to(
    dir: &OwnedFd,
    olddir: &str,
    chain: Chain<'_>,
    listings: &mut Listings,
) -> Vec<(String, (RotatedName, bool))> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(dir, &*name_of(olddir), flags, Mode::empty(), BENEATH);
    let path = format!("{}/{olddir}", chain.directory);
    let listing = opened.ok().and_then(|opened| listings.list(&opened, &path).ok());
    // A log with that name in the directory has them for itself.
    let Some(listing) = listing.filter(|listing| !listing.has(chain.live_name)) else { return Vec::new() };
    let file = |name: &str| {
        let (rotated, is_archive) = RotatedName::of(name, chain.live_name)?;
        // `a.1.log` may be a log of its own. While a file is being compressed both exist, and the archive is
        // incomplete.
        let is_of_another = matches!(rotated, RotatedName::Number(_)) && !name.starts_with(chain.live_name);
        let is_half = is_archive && name.strip_suffix(".gz").is_some_and(|plain| listing.has(plain));
        (!is_half && !is_of_another).then(|| (format!("{olddir}/{name}"), (rotated, is_archive)))
    };
    listing.beginning_with(common_start(chain.live_name)).filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::shell::files::look;

    fn names(directory: &str, olddirs: &[String]) -> Vec<(u32, String)> {
        let chain = Chain { directory, live_name: "a.log", olddirs, ..Chain::default() };
        let found = look::scan(chain, &mut Listings::default()).0.expect("a listing");
        found.into_iter().map(|file| (file.rank, file.name)).collect()
    }

    /// Files in `olddir` count as if they were beside the log.
    #[test]
    fn rotated_files_beneath_the_log_are_listed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().to_str().unwrap();
        fs::create_dir_all(dir.path().join("old/web")).unwrap();
        let all =
            ["a.log", "old/a.log.1.gz", "old/a.log.3.gz", "old/a.log.2", "old/a.log.2.gz", "old/b.log.1.gz"];
        for name in all.iter().chain(&["old/a.1.log.gz", "old/web/a.log.1.gz"]) {
            fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("old", dir.path().join("link")).unwrap();
        let listed = |olddirs: &[&str]| {
            let olddirs: Vec<String> = olddirs.iter().map(|name| (*name).to_owned()).collect();
            names(directory, &olddirs)
        };
        let expected = |names: &[(u32, &str)]| -> Vec<(u32, String)> {
            names.iter().map(|(rank, name)| (*rank, (*name).to_owned())).collect()
        };
        let of_old =
            expected(&[(0, "a.log"), (1, "old/a.log.1.gz"), (2, "old/a.log.2"), (3, "old/a.log.3.gz")]);
        assert_eq!(listed(&["old"]), of_old);
        assert_eq!(listed(&["old/web"]), expected(&[(0, "a.log"), (1, "old/web/a.log.1.gz")]));
        let only_the_log = expected(&[(0, "a.log")]);
        for olddirs in [&[][..], &["link"], &["missing"], &["../old"], &["old", "old/web"]] {
            assert_eq!(listed(olddirs), only_the_log, "{olddirs:?}");
        }
        // Those beside the log and those in the directory have the same numbers: whichever came second was not read.
        let set = |name: &str, age_s: u64| {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            std::io::Write::write_all(&mut &file, name.as_bytes()).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
        };
        let by_rank = || {
            let mut found = names(directory, &["both".to_owned()]);
            found.sort();
            found.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
        };
        fs::create_dir(dir.path().join("both")).unwrap();
        let (beside, beneath) =
            (["a.log.1", "a.log.2"], ["both/a.log.1", "both/a.log.2", "both/a.log-20261125"]);
        for newer_beneath in [true, false] {
            let age_s = |beneath: bool| if beneath == newer_beneath { 100 } else { 10_000 };
            beside.iter().zip(0..).for_each(|(name, at)| set(name, age_s(false) + at));
            beneath.iter().zip(0..).for_each(|(name, at)| set(name, age_s(true) + at));
            let groups = if newer_beneath { [&beneath[..], &beside] } else { [&beside[..], &beneath] };
            assert_eq!(by_rank(), [&["a.log"][..], groups[0], groups[1]].concat(), "{newer_beneath}");
        }
        beside.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
        fs::write(dir.path().join("old/a.log"), "another log").unwrap();
        assert_eq!(listed(&["old"]), only_the_log);
    }
}
