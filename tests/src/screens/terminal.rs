//! A terminal of 80 × 24, which is tmux's, and what a program shows on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::wait::{PATIENCE, pass, wait_until};

/// A screen is drawn within this.
const DRAWN: Duration = Duration::from_millis(200);

/// One with a program; both end when it is dropped.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts the program on it. `folder` has room for tmux's socket.
    pub fn start(folder: &Path, program: &Path, arguments: &[&str]) -> Result<Terminal> {
        let terminal = Terminal { socket: folder.join("tmux.sock") };
        let words = ["new-session", "-d", "-x", "80", "-y", "24", "--"].map(OsStr::new).into_iter();
        let words = words.chain([program.as_os_str()]).chain(arguments.iter().map(OsStr::new));
        terminal.tmux(words)?;
        Ok(terminal)
    }

    /// Waits until what it shows is as wanted, and returns it. It is looked at twice: a program that draws anew has written a
    /// part of it at any moment, and a row of before once stood below those of now.
    pub fn wait_for(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait_until(what, PATIENCE, || {
            let shown = self.shown()?;
            ensure!(is_wanted(&shown), "\n{shown}");
            pass(DRAWN);
            let again = self.shown()?;
            ensure!(again == shown, "it was being drawn:\n{shown}\n{again}");
            Ok(shown)
        })
    }

    fn shown(&self) -> Result<String> {
        let output = self.tmux(["capture-pane", "-p"])?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned() + "\n")
    }

    fn tmux(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        // -u: what it runs may print more than ASCII, whatever the locale here is.
        let output = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(&self.socket)
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .context("starting tmux")?;
        ensure!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(["kill-server"]);
    }
}
