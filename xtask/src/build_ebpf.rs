//! `cargo xtask build-ebpf`: builds the witness's kernel programs as two objects next to their sources, which are
//! committed.
//!
//! ```text
//! capturer-ebpf/src ─▶ rustc of one night, core from source ─▶ bitcode ─▶ bpf-linker of one version ─▶ probe.o
//!                      the same with feature linux-5-15 ─▶ bpf-linker for the third processor ─▶ probe-5.15.o
//! ```
//! So `cargo build` needs no nightly and no linker for BPF. `--check` builds them again and compares every byte. To
//! make that work anywhere, the versions are pinned and no path of the machine gets into the objects.
//!
//! A build takes minutes if the linker must be built first, so an everyday `cargo xtask test` only compares checksums:
//! each build writes SHA256SUMS, which shows without a compiler that a source or object has changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian::run;
use crate::{paths, tidy, tools};

/// The compiler, by its commit: a nightly's version number stays the same for weeks.
const RUSTC: &str = "1.97.0-nightly (e50aa6fba 2026-05-19)";
/// The name of that nightly's toolchain in rustup. A machine may have it as plain `nightly`.
const TOOLCHAINS: [&str; 2] = ["nightly-2026-05-20", "nightly"];
/// It must know the bitcode of that compiler's LLVM (22); later ones want a later.
const LINKER: &str = "0.10.4";

/// The file with checksums of the last build's sources and results.
const SUMS: &str = "SHA256SUMS";

/// One of the objects.
struct Object {
    name: &'static str,
    features: &'static str,
    /// The allowed instructions, by LLVM's name for the set: v3 has compare-and-exchange.
    processor: Option<&'static str>,
}

const OBJECTS: [Object; 2] = [
    Object { name: "probe.o", features: "probe", processor: None },
    Object { name: "probe-5.15.o", features: "probe,linux-5-15", processor: Some("v3") },
];

/// Builds the objects and puts them in place; with `check`, compares them with the committed ones.
pub fn build(check: bool) -> Result<()> {
    let toolchain = toolchain()?;
    let linker = linker()?;
    for object in &OBJECTS {
        let built = fs::read(compile(object, &toolchain, &linker)?).context("reading the built object")?;
        place(object.name, &built, check)?;
    }
    if check {
        return sums_hold();
    }
    fs::write(folder().join(SUMS), sums()?).with_context(|| format!("writing {SUMS}"))
}

/// Whether sources and objects are those of the last build.
pub fn sums_hold() -> Result<()> {
    let noted = fs::read_to_string(folder().join(SUMS)).with_context(|| format!("reading {SUMS}"))?;
    let now = sums()?;
    let differs: Vec<&str> = noted
        .lines()
        .chain(now.lines())
        .filter(|line| {
            !(noted.lines().any(|other| other == *line) && now.lines().any(|other| other == *line))
        })
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    ensure!(
        differs.is_empty(),
        "changed since the kernel programs were built: {}; run cargo xtask build-ebpf and commit what it writes",
        differs.join(", ")
    );
    println!("{} files are those of the last build", now.lines().count());
    Ok(())
}

/// As `sha256sum` prints them, for every file of the folder that is tracked or would be if added.
fn sums() -> Result<String> {
    let files = tidy::list_files(&folder())?;
    let summed = |file: &&String| *file != SUMS && folder().join(file).is_file();
    run(Command::new("sha256sum").arg("--").args(files.iter().filter(summed)).current_dir(folder()))
}

fn folder() -> PathBuf {
    paths::workspace().join("capturer-ebpf")
}

fn place(name: &str, built: &[u8], check: bool) -> Result<()> {
    let place = folder().join(name);
    if !check {
        fs::write(&place, built).with_context(|| format!("writing {}", place.display()))?;
        println!("built capturer-ebpf/{name}, {} bytes", built.len());
        return Ok(());
    }
    let there = fs::read(&place).with_context(|| format!("reading {}", place.display()))?;
    if built != there {
        let differs = built.iter().zip(&there).take_while(|(built, there)| built == there).count();
        bail!(
            "capturer-ebpf/{name} is not what its sources give ({} bytes there, {} built, differing from byte \
             {differs}): run cargo xtask build-ebpf and commit what it writes",
            there.len(),
            built.len()
        );
    }
    println!("capturer-ebpf/{name} is what its sources give, {} bytes", built.len());
    Ok(())
}

/// A toolchain of the pinned nightly with core's sources, installed if need be.
fn toolchain() -> Result<String> {
    let is_pinned = |name: &str| {
        let version = run(rustup("rustc").args(["--version"]).env("RUSTUP_TOOLCHAIN", name));
        version.is_ok_and(|version| version.contains(RUSTC))
    };
    let name = match TOOLCHAINS.iter().find(|name| is_pinned(name)) {
        Some(name) => *name,
        None => {
            let name = TOOLCHAINS[0];
            println!("installing toolchain {name}");
            run(Command::new("rustup").args(["toolchain", "install", name, "--profile", "minimal"]))
                .with_context(|| {
                    format!("the kernel programs are built with rustc {RUSTC}, which is not here")
                })?;
            ensure!(
                is_pinned(name),
                "{name} is not rustc {RUSTC}; change RUSTC in xtask/src/build_ebpf.rs with it"
            );
            name
        }
    };
    let root = run(rustup("rustc").args(["--print", "sysroot"]).env("RUSTUP_TOOLCHAIN", name))?;
    if !Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").exists() {
        println!("installing rust-src for {name}");
        run(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", name]))
            .context("core is built from source, and its source is not here")?;
    }
    Ok(name.to_owned())
}

/// bpf-linker of the pinned version: on the path, or built once in the target folder.
fn linker() -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    let own = tools.join("bin/bpf-linker");
    for candidate in [PathBuf::from("bpf-linker"), own.clone()] {
        let version = run(Command::new(&candidate).arg("--version")).unwrap_or_default();
        if version.split_whitespace().any(|word| word == LINKER) {
            return Ok(candidate);
        }
    }
    println!("building bpf-linker {LINKER}; that takes a minute or two, once");
    // From outside the workspace, whose pinned toolchain and settings don't apply to it.
    run(tools::cargo()
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--root"])
        .arg(&tools)
        .arg("--target-dir")
        .arg(tools.join("build"))
        .current_dir(std::env::temp_dir()))
    .with_context(|| format!("bpf-linker {LINKER} is neither on the path nor could it be built"))?;
    fs::remove_dir_all(tools.join("build")).context("removing what building bpf-linker left")?;
    Ok(own)
}

fn compile(object: &Object, toolchain: &str, linker: &Path) -> Result<PathBuf> {
    let source = folder();
    let target = paths::target().join("ebpf");
    let root = run(rustup("rustc").args(["--print", "sysroot"]).env("RUSTUP_TOOLCHAIN", toolchain))?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"));
    // All paths are mapped to the same on every machine: those in panic messages, and those from which names are
    // hashed.
    let places = [
        (source.display().to_string(), "/capturer-ebpf"),
        (root.trim().to_owned(), "/rustc"),
        (home.context("neither CARGO_HOME nor HOME is set")?, "/cargo"),
    ];
    let mut flags: Vec<String> =
        places.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    flags.push(format!("-Clinker={}", linker.display()));
    if let Some(processor) = object.processor {
        flags.push(format!("-Ctarget-cpu={processor}"));
    }
    run(rustup("cargo")
        .args(["build", "--quiet", "--locked", "--release", "--features", object.features])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .current_dir(&source)
        .env("RUSTUP_TOOLCHAIN", toolchain)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")))
    .context("building the kernel programs")?;
    Ok(target.join("bpfel-unknown-none/release/probe"))
}

/// rustup's own `cargo` or `rustc`, which obeys RUSTUP_TOOLCHAIN, without the variables that the running cargo has set
/// for its children.
fn rustup(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
    {
        command.env_remove(variable);
    }
    command
}
