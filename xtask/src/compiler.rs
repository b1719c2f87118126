//! The compiler of our own crates, as cargo calls it in the one build (ci_build.rs).
//!
//! ```text
//! cargo, RUSTC_WORKSPACE_WRAPPER ─▶ this program ─▶ clippy-driver, which compiles and lints
//!                                       └─ target/compiled/CRATE.json: the call ─▶ rustdoc, in a later part
//! ```
//! `cargo clippy` and `cargo doc` read every dependency once more, which takes longer than their own work. From what the
//! build has made, both come nearly free.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::paths;

/// Where calls are noted; set means that this program was started in place of the compiler.
const NOTES: &str = "CAPTURER_COMPILED";

/// Lets cargo compile our own crates by this program.
pub fn lint(cargo: &mut Command) -> Result<()> {
    let notes = notes();
    fs::create_dir_all(&notes).with_context(|| format!("making {}", notes.display()))?;
    cargo.env("RUSTC_WORKSPACE_WRAPPER", env::current_exe().context("the path of this program")?);
    cargo.env(NOTES, notes);
    Ok(())
}

fn notes() -> PathBuf {
    paths::target().join("compiled")
}

/// `None` if this program was started by a person. Otherwise it notes the call and becomes the compiler.
pub fn in_place_of_rustc() -> Option<ExitCode> {
    let notes = PathBuf::from(env::var_os(NOTES)?);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (rustc, arguments) = arguments.split_first()?;
    if let Err(error) = note(&notes, arguments) {
        eprintln!("error: noting how a crate is compiled: {error:#}");
        return Some(ExitCode::FAILURE);
    }
    // Beside rustc, or found the same way. It expects the compiler's name first, as cargo gives it to wrappers.
    let driver = Path::new(rustc).with_file_name("clippy-driver");
    let error = Command::new(&driver).arg(rustc).args(arguments).exec();
    eprintln!("error: starting {}: {error}", driver.display());
    Some(ExitCode::FAILURE)
}

/// Notes the call for rustdoc, if it compiles a library or a program. Tests have no documentation.
fn note(notes: &Path, arguments: &[String]) -> Result<()> {
    let Some(name) = documented(arguments) else { return Ok(()) };
    let is_told = |key: &str| key.starts_with("CARGO") || key.starts_with("CAPTURER") || key == "OUT_DIR";
    let environment: BTreeMap<String, String> = env::vars().filter(|(key, _)| is_told(key)).collect();
    let call = json!({
        "arguments": for_rustdoc(arguments), "environment": environment, "directory": env::current_dir()?,
    });
    // Two units of a crate may be compiled at once: the name in its place is always a whole note.
    let draft = notes.join(format!("{name}.{}", std::process::id()));
    fs::write(&draft, call.to_string())?;
    fs::rename(&draft, notes.join(format!("{name}.json")))?;
    Ok(())
}

/// The name and kind of a crate that has documentation.
fn documented(arguments: &[String]) -> Option<String> {
    let after = |key: &str| {
        let at = arguments.iter().position(|argument| argument == key)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let (name, kind) = (after("--crate-name")?, after("--crate-type")?);
    let is_test = arguments.iter().any(|argument| argument == "--test");
    // By the last name cargo asks what the compiler can do.
    (!is_test && !["build_script_build", "___"].contains(&name)).then(|| format!("{name}-{kind}"))
}

/// What rustdoc takes of the compiler's arguments: not what is to be made, where, and how it is reported.
fn for_rustdoc(arguments: &[String]) -> Vec<&String> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--out-dir" => _ = rest.next(),
            other if ["--emit=", "--error-format=", "--json="].iter().any(|key| other.starts_with(key)) => {}
            _ => kept.push(argument),
        }
    }
    kept
}

/// Runs rustdoc with these options on every crate of the build, all at a time.
pub fn document(options: &[&str]) -> Result<()> {
    let mut running = Vec::new();
    for note in fs::read_dir(notes()).context("reading how crates were compiled")? {
        let path = note?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let call: Value = serde_json::from_str(&fs::read_to_string(&path)?)
            .with_context(|| format!("reading {}", path.display()))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let directory = PathBuf::from(text(&call["directory"]));
        let arguments: Vec<String> = call["arguments"].as_array().into_iter().flatten().map(text).collect();
        // The note of a program that is no more.
        if !arguments.iter().any(|argument| argument.ends_with(".rs") && directory.join(argument).exists()) {
            continue;
        }
        let mut rustdoc = Command::new("rustdoc");
        rustdoc.args(arguments).args(options);
        rustdoc.arg("--out-dir").arg(path.with_extension("doc"));
        rustdoc.envs(
            call["environment"].as_object().into_iter().flatten().map(|(key, value)| (key, text(value))),
        );
        rustdoc.current_dir(directory).stdin(Stdio::null());
        // Cargo's job server is gone.
        rustdoc.env_remove("CARGO_MAKEFLAGS");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("rustdoc {name}");
        running.push((name, rustdoc.spawn().context("starting rustdoc")?));
    }
    ensure!(!running.is_empty(), "the build has noted no crate in {}", notes().display());
    let mut failed = Vec::new();
    for (name, mut child) in running {
        if !child.wait().context("waiting for rustdoc")?.success() {
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "rustdoc failed for {}; what it said is above", failed.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn rustdoc_gets_what_says_how_to_read_the_crate() {
        let arguments = call(
            "--crate-name capturer src/lib.rs --error-format=json --json=artifacts --crate-type lib \
             --emit=dep-info,link -C opt-level=1 --out-dir /t --extern a=/t/liba.rmeta",
        );
        assert_eq!(documented(&arguments).as_deref(), Some("capturer-lib"));
        let kept: Vec<&str> = for_rustdoc(&arguments).into_iter().map(String::as_str).collect();
        assert_eq!(
            kept.join(" "),
            "--crate-name capturer src/lib.rs --crate-type lib -C opt-level=1 --extern a=/t/liba.rmeta"
        );
    }

    #[test]
    fn tests_build_scripts_and_questions_are_not_documented() {
        for line in [
            "--crate-name cli tests/cli.rs --crate-type bin --test",
            "--crate-name build_script_build build.rs --crate-type bin",
            "- --crate-name ___ --print=file-names --crate-type bin",
            "-vV",
        ] {
            assert_eq!(documented(&call(line)), None, "{line}");
        }
    }
}
