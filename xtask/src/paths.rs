//! The paths of the workspace, its target folder and the Engines in it.

use std::path::PathBuf;

/// The top of the repository that cargo was started in. The compiled-in path only counts without cargo: clones with a
/// common target folder share this program.
pub fn workspace() -> PathBuf {
    let package = set("CARGO_MANIFEST_DIR").unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package.parent().expect("xtask lies in the workspace").to_path_buf()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    set("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Where the Docker Engines are unpacked; `tests/src/engine.rs` looks in the same place.
pub fn engines() -> PathBuf {
    set("CAPTURER_ENGINES_DIR").unwrap_or_else(|| target().join("engines"))
}

/// A Python of our own, with what `tests/loki/decode.py` imports.
pub fn python() -> PathBuf {
    target().join("python/bin/python")
}

fn set(key: &str) -> Option<PathBuf> {
    std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from)
}
