//! A disk that is full, or no longer full.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags};

/// A small file system of its own, mounted for one test.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it.
    pub fn mount(path: &Path, kib: u32) -> Result<Disk> {
        fs::create_dir_all(path)?;
        let options = std::ffi::CString::new(format!("size={kib}k"))?;
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting a tmpfs on {}", path.display()))?;
        Ok(Disk(path.to_owned()))
    }

    /// Gives it another size.
    pub fn resize(&self, kib: u32) -> Result<()> {
        Ok(rustix::mount::mount_remount(&self.0, MountFlags::empty(), format!("size={kib}k"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}
