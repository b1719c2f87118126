//! Tells the agent which commit it is built from, for `build_info` and the status page.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    // A packager who builds without git says it by this variable.
    println!("cargo::rerun-if-env-changed=CAPTURER_COMMIT");
    let named = std::env::var("CAPTURER_COMMIT").ok().filter(|commit| !commit.is_empty());
    // Only a release names its commit. A development build would be compiled again after each commit.
    if std::env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        println!("cargo::rustc-env=CAPTURER_COMMIT={}", named.as_deref().unwrap_or("unknown"));
        return;
    }
    let commit = named.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=CAPTURER_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // It grows with each commit, whatever branch that is on.
    match git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        Some(log) => println!("cargo::rerun-if-changed={log}"),
        None => println!("cargo::rerun-if-changed=build.rs"),
    }
}
