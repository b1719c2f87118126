//! Whether a command colours its output and draws over it: not with `NO_COLOR` (no-color.org), and not on a terminal that
//! obeys nothing (`TERM=dumb`), as in an editor or a CI job.

use std::ffi::OsString;

/// Whether output to a terminal is coloured.
pub(super) fn are_wanted(is_terminal: bool) -> bool {
    is_terminal && of(&|name| std::env::var_os(name))
}

/// Whether a terminal only shows text.
pub(super) fn is_dumb() -> bool {
    dumb(&|name| std::env::var_os(name))
}

fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty()) && !dumb(variable)
}

fn dumb(variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|value| value == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_and_the_terminal_decide() {
        for (no_color, term, coloured) in [
            (None, None, true),
            (None, Some("xterm"), true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (None, Some("dumb"), false),
        ] {
            let variable = |name: &str| {
                let value = if name == "NO_COLOR" { no_color } else { term };
                value.map(OsString::from)
            };
            assert_eq!(of(&variable), coloured, "{no_color:?} {term:?}");
        }
        assert!(!are_wanted(false), "not in a pipe");
    }
}
