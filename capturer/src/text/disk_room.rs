//! How a message about a full disk describes its directory: how much is free, and what to do. Only text; decides
//! nothing.

use std::path::Path;

use bytesize::ByteSize;

/// `0 B of 20.0 MiB free`; `None` = the kernel does not say.
pub fn room(directory: &Path) -> Option<String> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    let shown = |blocks: u64| ByteSize(blocks.saturating_mul(stat.f_frsize)).display().iec().to_string();
    Some(format!("{} of {} free", shown(stat.f_bavail), shown(stat.f_blocks)))
}

/// As [`room`], if nothing can be written there; `None` = there is room, or the kernel does not say.
pub fn none_left(directory: &Path) -> Option<String> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    // Also what only root may use: the daemons that write there are root's.
    if stat.f_bfree.saturating_mul(stat.f_frsize) < FULL_BYTES {
        return room(directory);
    }
    (stat.f_files > 0 && stat.f_ffree == 0).then(|| format!("all {} inodes are used", stat.f_files))
}

/// Less is no room: some file systems keep the last blocks for themselves.
const FULL_BYTES: u64 = 64 * 1024;

/// What to do where data_dir can't stay. An empty one has no positions: everything would be delivered again.
pub const MOVE_DATA_DIR: &str =
    "copy data_dir to another, local disk (cp -a) and name the copy with data_dir";

/// What to do about a directory whose disk is full; `key` names it in the config.
pub fn cure(directory: &Path, key: &str) -> String {
    let shown = directory.display();
    let move_it = match key {
        "" => String::new(),
        "data_dir" => format!(", or stop the agent and {MOVE_DATA_DIR}"),
        _ => format!(", or name a directory on another disk with {key}"),
    };
    format!(
        "free some room on the disk of {shown} (df -h {shown} shows it, du -xh {shown} | sort -h what takes it){move_it}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_its_room_and_what_to_do_are_named() {
        let told = room(Path::new("/")).expect("a root");
        assert!(told.contains("B of ") && told.ends_with("B free"), "{told}");
        assert_eq!(room(Path::new("/no/such/directory")), None);
        assert_eq!(none_left(Path::new("/dev/shm")), None);
        // No block of it is free.
        assert!(none_left(Path::new("/proc")).is_some_and(|told| told.contains("free")));
        let cure = cure(Path::new("/o"), "data_dir");
        assert!(cure.contains("df -h /o") && cure.ends_with("with data_dir"), "{cure}");
    }
}
