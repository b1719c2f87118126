//! Tests that can't run on this machine say so in a form that is counted: otherwise an early return would count as
//! passed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names the file that collects skipped tests: a line each, name, tab, reason.
pub const LOG: &str = "CAPTURER_SKIP_LOG";

/// Records that the calling test was skipped, and why; the test then returns.
///
/// ```
/// fn a_test() {
///     capturer_tests::skipped!("only root may become nobody");
/// }
/// ```
#[macro_export]
macro_rules! skipped {
    ($($reason:tt)*) => {{
        fn here() {}
        $crate::skip::tell($crate::skip::test_name(std::any::type_name_of_val(&here)), &format!($($reason)*));
    }};
}

/// `cli::doctor_of_nobody::{{closure}}::here` → `doctor_of_nobody`, as the test runner names it.
pub fn test_name(place: &str) -> &str {
    let place = place.strip_suffix("::here").unwrap_or(place);
    let place = place.split_once("::").map_or(place, |(_, inside)| inside);
    place.split_once("::{{").map_or(place, |(test, _)| test)
}

/// Prints it past the test runner's capture, and adds it to the log if there is one.
pub fn tell(test: &str, reason: &str) {
    let reason = reason.replace(['\n', '\t'], " ");
    // On a line of its own: the runner may have begun one with the test's name. In one write, for other tests print too.
    let line = format!("\nSKIPPED {test}: {reason}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("standard output is open");
    if let Some(path) = std::env::var_os(LOG) {
        let line = format!("{test}\t{reason}\n");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let written = log.and_then(|mut log| log.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{LOG} names {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_as_the_runner_names_it() {
        assert_eq!(test_name("cli::doctor_of_nobody::here"), "doctor_of_nobody");
        assert_eq!(test_name("cli::some::test::{{closure}}::{{closure}}::here"), "some::test");
        fn here() {}
        assert_eq!(
            test_name(std::any::type_name_of_val(&here)),
            "skip::tests::a_test_is_named_as_the_runner_names_it"
        );
    }
}
