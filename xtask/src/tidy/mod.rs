//! `cargo xtask tidy`: the repository's rules that no compiler checks, as code.
//!
//! ```text
//! files of the tree ──▶ Source (path, text, code without comments and strings) ──▶ each rule ──▶ findings
//! ```
//! A rule is a function from one file to a list of what is wrong in it; each finding says where, and how to mend it.
//! Rules know paths, not which files exist: a missing folder breaks none.

mod code;
mod figures;
mod layers;
mod rules;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// One file of the repository.
pub struct Source {
    /// Its path from the top of the repository, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// For Rust, the text with comments and strings blanked out, line for line; otherwise empty.
    pub code: String,
}

impl Source {
    /// Makes a file as if it had been read from the tree.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code::code_only(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// A broken rule, or one that soon will be.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and how to mend it.
    pub message: String,
    /// Printed, but not a failure.
    pub warning: bool,
}

impl Finding {
    fn error(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), warning: false }
    }
}

type Rule = fn(&Source) -> Vec<Finding>;

/// Every rule.
const RULES: [Rule; 9] = [
    layers::pure_code_stays_pure,
    layers::imports_lead_down,
    rules::rust_files_say_what_they_are,
    rules::files_are_not_too_long,
    rules::lines_are_clean,
    rules::nothing_is_left_to_do,
    rules::unsafe_code_has_its_places,
    rules::tests_wait_in_one_place,
    rules::no_paths_of_one_machine,
];

/// Checks every file of the tree; fails if a rule is broken.
pub fn check_tree() -> Result<()> {
    let sources = read_tree(&paths::workspace())?;
    let mut errors = 0;
    for source in &sources {
        for finding in RULES.iter().flat_map(|rule| rule(source)) {
            let kind = if finding.warning { "warning" } else { "error" };
            println!("{}:{}: {kind}: {}", source.path, finding.line, finding.message);
            errors += usize::from(!finding.warning);
        }
    }
    print!("{}", figures::figures(&sources));
    println!("{} files looked at", sources.len());
    if errors > 0 {
        bail!("{errors} lines break a rule of the repository; each is named above");
    }
    Ok(())
}

/// Every text file that is tracked or would be if added.
fn read_tree(top: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in list_files(top)? {
        // Deleted but not committed, or not text: no rule concerns those.
        let Ok(bytes) = fs::read(top.join(&path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(&path, &text));
        }
    }
    if sources.is_empty() {
        bail!("no file found beneath {}", top.display());
    }
    Ok(sources)
}

/// Asks git which files belong to the repository; without git (an unpacked archive), takes all but build output.
pub fn list_files(top: &Path) -> Result<Vec<String>> {
    let asked =
        Command::new("git").arg("-C").arg(top).args(["ls-files", "-z", "-co", "--exclude-standard"]).output();
    if let Ok(output) = asked.as_ref()
        && output.status.success()
    {
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        return Ok(names.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut files = Vec::new();
    walk(top, top, &mut files)?;
    files.sort();
    Ok(files)
}

fn walk(top: &Path, dir: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.strip_prefix(top).context("a path outside the tree")?.to_string_lossy().into_owned();
        if [".git", "target", "captured", "capturer-ebpf/target"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            walk(top, &path, files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many errors a rule finds in a file.
    pub fn count(rule: Rule, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).iter().filter(|finding| !finding.warning).count()
    }

    /// Without git the same files must be checked, or an archive would be checked less.
    #[test]
    fn the_tree_is_found_without_git() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("target/debug")).unwrap();
        fs::write(dir.path().join("a/b/c.rs"), "//! x\n").unwrap();
        fs::write(dir.path().join("target/debug/d.rs"), "").unwrap();
        let mut files = Vec::new();
        walk(dir.path(), dir.path(), &mut files).unwrap();
        assert_eq!(files, ["a/b/c.rs"]);
    }
}
