//! How much a test does: enough for every day, or what a long run asks for in the environment.

use anyhow::{Context as _, Result};

/// The number in the variable `name`, or the usual one.
///
/// # Errors
/// The variable holds something else.
pub fn number(name: &str, usual: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(usual),
    }
}
