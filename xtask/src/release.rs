//! The release agent, built once: in a fresh clone, as a user of the README builds it. Tests against Engines run it, and
//! tests/quickstart.rs finds it built.
//!
//! A clone has the committed state. While the tree has uncommitted changes, the agent is built from the tree, and the
//! clone is left for tests/quickstart.rs to build.
//!
//! The clone has a target folder of its own. In a shared one cargo takes the sources of the clone, which lie in that
//! folder, for those of the package: a build in the tree then finds nothing to do and leaves the clone's program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use crate::debian::run;
use crate::test::stream::check;
use crate::{paths, tools};

/// The program.
pub fn program() -> PathBuf {
    target().join("release/capturer")
}

/// Where cargo puts it.
fn target() -> PathBuf {
    if is_committed() { paths::target().join("of-clone") } else { paths::target() }
}

/// Whether the tree had no changes when this was first asked. If git does not tell, there is no clone either.
fn is_committed() -> bool {
    static IS_COMMITTED: OnceLock<bool> = OnceLock::new();
    *IS_COMMITTED.get_or_init(|| {
        let status = git()
            .and_then(|mut git| run(git.args(["status", "--porcelain"]).current_dir(paths::workspace())));
        status.is_ok_and(|changed| changed.trim().is_empty())
    })
}

/// The clone.
pub fn clone_dir() -> PathBuf {
    paths::target().join("fresh-clone")
}

/// Brings the clone to the committed state and builds the agent.
pub fn build() -> Result<()> {
    update_clone()?;
    let from = if is_committed() {
        println!("in a fresh clone: {}", clone_dir().display());
        clone_dir()
    } else {
        println!("in the tree, which has changes that are not committed");
        paths::workspace()
    };
    check(
        tools::cargo()
            .args(["build", "--release", "--package", "capturer"])
            .env("CARGO_TARGET_DIR", target())
            .current_dir(from),
    )
}

/// An old clone is updated rather than made again: cargo then builds only what changed.
fn update_clone() -> Result<()> {
    let (clone, workspace) = (clone_dir(), paths::workspace());
    if clone.join(".git").exists() {
        let steps: [&[&str]; 3] = [
            &["fetch", "--quiet", "origin", "HEAD"],
            &["checkout", "--quiet", "--force", "FETCH_HEAD"],
            &["clean", "-fdxq"],
        ];
        if steps.iter().all(|step| git().and_then(|mut git| run(git.args(*step).current_dir(&clone))).is_ok())
        {
            return Ok(());
        }
        fs::remove_dir_all(&clone).with_context(|| format!("removing {}", clone.display()))?;
    }
    fs::create_dir_all(paths::target()).context("making the target folder")?;
    run(git()?.args(["clone", "--quiet"]).arg(&workspace).arg(&clone))
        .context("git clone (a tree without .git can't show what a fresh clone does)")?;
    Ok(())
}

/// A git command that works on a tree of any user. git obeys `safe.directory` in a file, but passes no option on to the
/// other end of a clone.
fn git() -> Result<Command> {
    let config = paths::target().join("gitconfig");
    fs::create_dir_all(paths::target()).context("making the target folder")?;
    write_if_other(&config, "[safe]\n    directory = *\n")?;
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", config);
    Ok(git)
}

fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
