//! Whether files can be made in a directory. The rights alone don't tell: root may write to `/proc` and to a full disk. A
//! file without a name is made and written to, so nothing is left and nobody sees it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// So much must fit: a first checkpoint is smaller.
const TRIED_BYTES: usize = 64 * 1024;

/// Why files can't be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its disk, or the quota, has no room.
    Full,
    /// The kernel makes up what it shows there.
    NoFiles(&'static str),
    /// It is mounted so.
    ReadOnly,
    /// The path, or a part of it, is a symbolic link that leads nowhere.
    Dangling(PathBuf),
    /// In the system's words.
    Refused(String),
}

impl Unfit {
    /// What is wrong, and what to do; `key` names the directory in the config.
    pub fn told(&self, key: &str) -> (String, String) {
        match self {
            Unfit::Full => (
                format!("its disk has no {} KiB free", TRIED_BYTES >> 10),
                match key {
                    "data_dir" => {
                        "Free some room there, or stop the agent, copy it with cp -a, and name the copy on \
                                   another disk with data_dir."
                            .to_owned()
                    }
                    _ => format!("Free some room there, or name a directory on another disk with {key}."),
                },
            ),
            Unfit::NoFiles(kind) => (
                format!("no file can be made there, it is {kind}"),
                format!("Name another directory with {key}."),
            ),
            Unfit::ReadOnly => (
                "its file system is read-only".to_owned(),
                format!("Mount it writable, or name another directory with {key}."),
            ),
            Unfit::Dangling(link) => (
                format!("{} is a symbolic link to something that does not exist", link.display()),
                format!("Make what it leads to, or name another directory with {key}."),
            ),
            Unfit::Refused(error) => (
                format!("no file can be made there: {error}"),
                format!("Repair its disk, or name another directory with {key}."),
            ),
        }
    }

    /// Whether no right would help.
    pub fn is_of_the_place(&self) -> bool {
        matches!(self, Unfit::ReadOnly | Unfit::Dangling(_))
    }
}

/// Tries it where the directory is, or would be made. `None` = nothing speaks against it.
pub fn unfit(dir: &Path) -> Option<Unfit> {
    let named = dir.ancestors().find(|path| path.symlink_metadata().is_ok());
    if let Some(link) = named.filter(|path| path.is_symlink() && !path.exists()) {
        return Some(Unfit::Dangling(link.to_owned()));
    }
    let there = dir.ancestors().find(|path| path.exists());
    // The last ancestor of a relative path is empty: it is where we are.
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, there, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::NOSPC | Errno::DQUOT) => return Some(Unfit::Full),
        // Not all have such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
            return made_up(there).map(Unfit::NoFiles);
        }
        // Some refuse these, and others only these: what the rights say was asked before.
        Err(Errno::ROFS) => return Some(Unfit::ReadOnly),
        Err(error @ Errno::IO) => return Some(Unfit::Refused(error.to_string())),
        Err(_) => return made_up(there).map(Unfit::NoFiles),
    };
    match File::from(file).write_all(&[0; TRIED_BYTES]) {
        Ok(()) => None,
        Err(error) if crate::sink::spool::is_disk_full(&error) => Some(Unfit::Full),
        Err(error) => Some(Unfit::Refused(error.to_string())),
    }
}

/// File systems without files of ours, by the magic numbers of include/uapi/linux/magic.h.
fn made_up(path: &Path) -> Option<&'static str> {
    let kinds = [
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
        (0x0027_e0eb, "cgroup"),
        (0x6367_7270, "cgroup2"),
        (0x6462_6720, "debugfs"),
        (0x7472_6163, "tracefs"),
        (0x7363_6673, "securityfs"),
        (0x1cd1, "devpts"),
        (0xcafe_4a11, "bpf"),
        (0x6265_6570, "configfs"),
        (0x6165_676c, "pstore"),
        (0xde5e_81e4, "efivarfs"),
        (0xf97c_ff8c, "selinuxfs"),
    ];
    let magic = rustix::fs::statfs(path).map_or(0, |stat| stat.f_type as u64 & 0xffff_ffff);
    kinds.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kernels_own_and_of_a_plain_directory() {
        let home = tempfile::tempdir().unwrap();
        for path in [home.path().to_owned(), home.path().join("a/b"), "not-there-yet".into()] {
            assert_eq!(unfit(&path), None, "{}", path.display());
        }
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none(), "nothing is left");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path().join("nowhere/b"), &link).unwrap();
        for path in [link.clone(), link.join("data")] {
            assert_eq!(unfit(&path), Some(Unfit::Dangling(link.clone())), "{}", path.display());
        }
        for (path, kind) in [("/proc", "proc"), ("/proc/x/y", "proc"), ("/sys/x", "sysfs")] {
            assert_eq!(unfit(Path::new(path)), Some(Unfit::NoFiles(kind)), "{path}");
            let (why, cure) = Unfit::NoFiles(kind).told("data_dir");
            assert!(why.contains(kind) && cure.contains("another directory with data_dir"), "{why} {cure}");
        }
    }
}
