//! Which file systems may hang, and which of them a path leads into, without touching them.
//!
//! ```text
//! /proc/self/mountinfo ─▶ mount points of file systems that may hang
//! path ─▶ component by component, links followed ─▶ the first such mount point on its way, or none
//! ```
//! Asking a file system about itself (statfs) may hang as well, so only the kernel's table is read. Links are read one
//! component at a time, and never beyond such a mount point.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::capture::io::LaneId;

/// Kinds of file systems that this kernel serves from its own disks or memory. All others may hang: network file
/// systems, FUSE, automounts, and every unknown kind.
const LOCAL: [&str; 40] = [
    "aufs",
    "bcachefs",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "nilfs2",
    "nsfs",
    "ntfs3",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "vfat",
    "xfs",
];
/// As many links as the kernel follows in one path.
const LINKS_MAX: usize = 40;

/// A file system that may hang, at one of the places where it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The same for each place where this file system is mounted.
    pub lane: LaneId,
    /// Its kind, as the kernel calls it: `nfs4`, `fuse.sshfs`.
    pub kind: String,
    /// The mount point.
    pub point: PathBuf,
}

/// The file systems that may hang, kept up to date with the kernel's table.
#[derive(Debug)]
pub struct Mounts {
    /// Polls as changed when the kernel's table has changed.
    source: Option<File>,
    may_hang: BTreeMap<PathBuf, Mount>,
}

impl Mounts {
    /// Reads the table. Without /proc no file system is known to hang.
    pub fn new() -> Mounts {
        let source = File::open("/proc/self/mountinfo").ok();
        if source.is_none() {
            tracing::warn!(
                "/proc/self/mountinfo can't be read: file systems that may hang cannot be distinguished from local \
                 ones; mount /proc"
            );
        }
        let mut mounts = Mounts { source, may_hang: BTreeMap::new() };
        mounts.read();
        mounts
    }

    /// Reads the table again if it has changed.
    pub fn refresh(&mut self) {
        if self.source.as_ref().is_some_and(has_changed) {
            self.read();
        }
    }

    /// The file system of a lane, if it is mounted.
    pub fn by_lane(&self, lane: LaneId) -> Option<&Mount> {
        self.may_hang.values().find(|mount| mount.lane == lane)
    }

    fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        let mut text = Vec::new();
        if source.rewind().and_then(|()| source.read_to_end(&mut text)).is_ok() {
            self.may_hang = parse(&text);
        }
    }

    /// The file system mounted at exactly this path, if it may hang. The path contains no links.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.may_hang.get(path)
    }

    /// The first file system that may hang on the way of a path, or `None`.
    pub fn on_the_way(&self, path: &Path) -> Option<&Mount> {
        if self.may_hang.is_empty() {
            return None;
        }
        let path = std::path::absolute(path).ok()?;
        let mut at = PathBuf::from("/");
        if let Some(mount) = self.may_hang.get(&at) {
            return Some(mount);
        }
        let mut todo: Vec<OsString> = parts(&path);
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == OsStr::new("..") {
                at.pop();
                continue;
            }
            at.push(&part);
            if let Some(mount) = self.may_hang.get(&at) {
                return Some(mount);
            }
            // Not a link, or missing: continue with the next component.
            let Ok(target) = std::fs::read_link(&at) else { continue };
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            todo.extend(parts(&target));
        }
        None
    }
}

/// The components, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

fn has_changed(source: &File) -> bool {
    let mut fds = [PollFd::new(source, PollFlags::PRI)];
    let now = rustix::time::Timespec::try_from(Duration::ZERO).ok();
    rustix::event::poll(&mut fds, now.as_ref()).is_ok_and(|ready| ready > 0)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: each line has the device, the mount point and,
/// behind the dash, the kind. If several are mounted at one point, the last hides the others.
fn parse(text: &[u8]) -> BTreeMap<PathBuf, Mount> {
    let mut may_hang = BTreeMap::new();
    for Entry { lane, point, kind, .. } in entries(text) {
        if LOCAL.contains(&kind) {
            may_hang.remove(&point);
        } else {
            may_hang.insert(point.clone(), Mount { lane, kind: kind.to_owned(), point });
        }
    }
    may_hang
}

/// A line of the table.
struct Entry<'t> {
    lane: LaneId,
    /// The directory within the file system that is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'t str,
}

/// In the kernel's order: of two mounts at one place, the later one hides the other.
fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    text.split(|byte| *byte == b'\n').filter_map(move |line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        Some(Entry {
            lane: device_number(fields.get(2)?)?,
            root: path(fields.get(3)?),
            point: path(fields.get(4)?),
            kind: std::str::from_utf8(fields.get(dash + 1)?).ok()?,
        })
    })
}

/// Other paths that lead to a directory, or into it, because its file system is mounted several times: by a bind mount,
/// or by `-v /:/host` in a container. Each with how many levels below the directory it begins.
pub fn other_ways(mountinfo: &[u8], directory: &Path) -> Vec<(PathBuf, usize)> {
    let mounts: Vec<Entry> = entries(mountinfo).collect();
    let holds = mounts.iter().filter(|mount| directory.starts_with(&mount.point));
    let Some(own) = holds.max_by_key(|mount| mount.point.components().count()) else { return Vec::new() };
    let within = own.root.join(directory.strip_prefix(&own.point).unwrap_or(Path::new("")));
    let others = mounts.iter().filter(|mount| mount.lane == own.lane).filter_map(|mount| {
        if let Ok(beneath) = within.strip_prefix(&mount.root) {
            return Some((mount.point.join(beneath), 0));
        }
        Some((mount.point.clone(), mount.root.strip_prefix(&within).ok()?.components().count()))
    });
    others.filter(|(way, depth)| *depth > 0 || way != directory).collect()
}

fn device_number(field: &[u8]) -> Option<LaneId> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(LaneId(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?)))
}

/// Space, tab, newline and backslash are escaped as `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

impl Mount {
    /// For people: where it is mounted, and its kind.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.point.display(), self.kind)
    }

    /// What an operator can do about it. The directory of a FUSE connection is called by its device's minor number.
    pub fn cure(&self) -> String {
        let point = self.point.display();
        if self.kind == "fuseblk" || self.kind == "fuse" || self.kind.starts_with("fuse.") {
            let connection = rustix::fs::minor(self.lane.0);
            return format!(
                "fix the program that serves it, or abort the mount: echo 1 > \
                 /sys/fs/fuse/connections/{connection}/abort; umount -l {point}"
            );
        }
        format!("fix its server or the network, or unmount it: umount -f -l {point}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /mnt/share rw master:1 shared:2 - nfs4 server:/ rw
41 27 0:51 / /mnt/with\\040space\\134 rw - fuse.sshfs host: rw
42 40 0:22 / /mnt/share/tmp rw - tmpfs none rw
43 27 0:52 / /mnt/hidden rw - cifs //host rw
44 27 0:23 / /mnt/hidden rw - tmpfs none rw
45 27 0:50 /logs /srv/logs rw - nfs4 server:/ rw
46 27 0:60 / /new rw - somethingfs none rw
garbage
";

    fn table(text: &str) -> Mounts {
        Mounts { source: None, may_hang: parse(text.as_bytes()) }
    }

    fn check(mounts: &Mounts, path: &str, expected: Option<u32>) {
        let found = mounts.on_the_way(Path::new(path)).map(|mount| rustix::fs::minor(mount.lane.0));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_path_leads_into_the_first_that_may_hang() {
        let mounts = table(TABLE);
        check(&mounts, "/", None);
        check(&mounts, "/mnt/shared/x", None);
        check(&mounts, "/mnt/share", Some(50));
        check(&mounts, "/mnt/share/deep/er.log", Some(50));
        // This path goes through the other file system.
        check(&mounts, "/mnt/share/tmp/x", Some(50));
        check(&mounts, "/mnt/with space\\/x", Some(51));
        check(&mounts, "/mnt/hidden/x", None);
        // The same file system twice.
        check(&mounts, "/srv/logs/x", Some(50));
        check(&mounts, "/new/x", Some(60));
        check(&mounts, "/mnt/share/../hidden", Some(50));
    }

    /// A link from a local directory must not lead the wrong thread into a hung file system.
    #[test]
    fn links_are_followed_up_to_the_mount_point_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let line = format!("40 27 0:50 / {}/hung rw - fuse x rw\n", root.display());
        let mounts = table(&line);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link("hung", "relative");
        link(root.join("relative/x").to_str().unwrap(), "absolute");
        link("loop", "loop");
        std::fs::create_dir(root.join("d")).unwrap();
        link("../relative", "d/up");
        for (path, expected) in [
            ("relative/a", Some(50)),
            ("absolute", Some(50)),
            ("d/up/a", Some(50)),
            ("d/a", None),
            ("loop/a", None),
            ("missing/a", None),
        ] {
            check(&mounts, root.join(path).to_str().unwrap(), expected);
        }
    }

    #[test]
    fn the_cure_names_the_connection() {
        let mounts = table(TABLE);
        let cure = |path: &str| mounts.on_the_way(Path::new(path)).map(Mount::cure).unwrap_or_default();
        assert!(cure("/mnt/with space\\").contains("/sys/fs/fuse/connections/51/abort"));
        assert!(cure("/mnt/share").contains("umount -f -l /mnt/share"));
    }

    #[test]
    fn this_machine_has_a_table_that_stands_still() {
        let mut mounts = Mounts::new();
        assert!(mounts.source.is_some());
        mounts.refresh();
        assert!(!mounts.may_hang.contains_key(Path::new("/proc")));
    }
}
