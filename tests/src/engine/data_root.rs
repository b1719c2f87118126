//! An Engine's data in another place.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Engine;

impl Engine {
    /// Copies the data of a stopped Engine, which goes on in the copy. The old data is kept, as `cp -a` leaves it.
    ///
    /// # Panics
    /// If it runs.
    pub fn copy_data_root(&mut self) -> Result<()> {
        assert!(self.daemon.is_none(), "dockerd of {} runs", self.root().display());
        let copy = self.root().join("copied-data");
        let mut command = Command::new("cp");
        let status = command.arg("-a").arg(&self.data_root).arg(&copy).status().context("starting cp")?;
        ensure!(status.success(), "cp ended with {status}");
        self.data_root = copy;
        Ok(())
    }
}
