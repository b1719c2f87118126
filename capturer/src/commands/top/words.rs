//! The text of `capturer top`, on a terminal and with `--once`: what is wrong first, then the figures, then a row for
//! each source, in the status page's words. Pure: makes lines of a view.

use std::fmt::Write as _;

use super::fold::{Order, Source, sources};
use super::{View, unread, unread_of_all, wrap};
use crate::text::counted::counted;
use crate::text::shown::duration_text;
use crate::text::terminal::{printable, shorten};

/// Heads of the columns.
pub(super) const HEADS: [&str; 5] = ["SOURCE", " LINES/S", "  UNREAD", "   LAST", "STATE"];
/// Lines of the screen that are not rows: the shell's prompt, the table's own head, how many more there are.
const LINES_KEPT: usize = 3;

/// What a line is about, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Bad,
    Warning,
    Well,
    Note,
    Quiet,
    Plain,
}

/// What is wrong, losses first, each with its cure and runbook. `whole`: uncut.
pub(super) fn head(view: &View, columns: usize, whole: bool) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    let mut add = |tone: Tone, text: &str| {
        lines.extend(wrap(text, columns).into_iter().map(|line| (tone, line)));
    };
    if let Some(silent) = &view.silent {
        add(Tone::Bad, &format!("✗ {silent}"));
    }
    if !view.fresh {
        let age = duration_text(view.age_ms);
        add(Tone::Bad, &format!("✗ the capture loop does not answer: this is what it said {age} ago"));
    }
    let is_well = view.silent.is_none() && view.fresh && view.problems.is_empty();
    for (component, message) in view.problems_by_weight() {
        lines.extend(problem(view, (component, message), columns, whole));
    }
    if is_well {
        lines.push((Tone::Well, "✓ all is well".to_owned()));
    }
    let mut add = |tone: Tone, text: &str| {
        lines.extend(wrap(text, columns).into_iter().map(|line| (tone, line)));
    };
    for (component, message) in &view.notes {
        add(Tone::Note, &format!("note on {component}: {message}"));
    }
    if !view.pipelines.is_empty() && !view.notes.contains_key("pipelines") {
        add(Tone::Plain, &format!("pipelines: {}", view.pipelines));
    }
    lines
}

/// One component that is not well.
fn problem(
    view: &View,
    (component, message): (&String, &String),
    columns: usize,
    whole: bool,
) -> Vec<(Tone, String)> {
    let (sign, tone) =
        if view.warnings.contains(component) { ("!", Tone::Warning) } else { ("✗", Tone::Bad) };
    let told = view.told.get(component);
    let title = told.map_or(component.as_str(), |told| &told.title);
    let message = std::slice::from_ref(message);
    let said = match told {
        None => message,
        Some(told) if whole && !told.all.is_empty() => &told.all,
        Some(told) => &told.lines,
    };
    // A first line that begins with the title makes the title unnecessary.
    let says_title = said.first().is_some_and(|first| first.starts_with(title));
    let head = if says_title { &said[0] } else { title };
    let mut lines: Vec<(Tone, String)> =
        wrap(&format!("{sign} {head}"), columns).into_iter().map(|line| (tone, line)).collect();
    let rest = said.iter().skip(usize::from(says_title)).flat_map(|said| indented(said, columns));
    lines.extend(rest.map(|line| (Tone::Plain, line)));
    let runbook = told.map(|told| told.runbook.as_ref()).filter(|runbook| !runbook.is_empty());
    let more = if !whole && told.is_some_and(|told| !told.all.is_empty()) { "; more: /health" } else { "" };
    if let Some(runbook) = runbook {
        lines.push((Tone::Quiet, format!("  component: {component}, runbook: {runbook}{more}")));
    }
    lines
}

/// Indents each line, so that it is seen to belong to the title above.
fn indented(text: &str, columns: usize) -> Vec<String> {
    let wrapped = wrap(text, columns.saturating_sub(4)).into_iter().enumerate();
    wrapped.map(|(index, line)| format!("{}{line}", if index == 0 { "  " } else { "    " })).collect()
}

/// On as many lines as needed: a number that is cut is another number.
pub(super) fn figures(view: &View, shown: usize, all: usize, columns: usize) -> Vec<String> {
    let sent: Vec<String> = view.sent.iter().map(|(sink, count)| format!("{sink} {count}")).collect();
    let (rate, lag, sent) = (view.lines_per_second, unread_of_all(view), sent.join(", "));
    let sources = counted(all as u64, "source");
    let count =
        if shown == all { format!("{sources},") } else { format!("{shown} of {sources}; all of them:") };
    let spools: String = view.spools.iter().map(|told| format!("; {told}")).collect();
    let losses = view.losses;
    wrap(
        &format!("{count} {rate:.1} lines/s, unread {lag}, losses {losses}; delivered: {sent}{spools}"),
        columns,
    )
}

/// Number columns are as wide as their numbers; name and state share the rest.
pub(super) fn widths(columns: usize) -> (usize, usize) {
    let numbers = 8 + 8 + 7;
    let gaps = 4;
    let rest = columns.saturating_sub(numbers + gaps);
    // Of 80 columns 25: /var/log/nginx/access.log.
    let name = (rest * 12 / 25).clamp(10, 60);
    (name, rest.saturating_sub(name).max(10))
}

/// The cells of a source's row.
pub(super) fn cells(source: &Source, name_width: usize, what_width: usize) -> [String; 5] {
    let last = source.last_ms.map_or("-".to_owned(), duration_text);
    [
        name_in(&source.name, name_width),
        format!("{:>8.1}", source.rate),
        format!("{:>8}", unread(source)),
        format!("{last:>7}"),
        begin_of(&source.what, what_width),
    ]
}

/// The whole output of `--once`. `is_cut`: rows are as wide as the screen. In a pipe, where somebody searches, names
/// and states are not cut.
pub(super) fn page(view: &View, (columns, lines): (usize, usize), is_cut: bool) -> String {
    let rows = sources(&view.streams, "", Order::Trouble);
    let mut text = String::new();
    let mut used = 0;
    let mut add = |line: &str| {
        used += 1;
        let _ = writeln!(text, "{}", line.trim_end());
    };
    head(view, columns, true).iter().for_each(|(_, line)| add(line));
    add(&format!("capturer at {}", view.address));
    figures(view, rows.len(), rows.len(), columns).iter().for_each(|line| add(line));
    let (name_width, what_width) = widths(columns);
    let row = |[name, rate, lag, last, what]: [String; 5]| {
        format!("{name:<name_width$} {rate:>8} {lag:>8} {last:>7} {what}")
    };
    add(&row(HEADS.map(str::to_owned)));
    let room = lines.saturating_sub(used + LINES_KEPT).max(1);
    for source in rows.iter().take(room) {
        let (name_max, what_max) = if is_cut { (name_width, what_width) } else { (usize::MAX, usize::MAX) };
        let _ = writeln!(text, "{}", row(cells(source, name_max, what_max)).trim_end());
    }
    if rows.len() > room {
        let _ = writeln!(text, "… and {} more", rows.len() - room);
    }
    if rows.is_empty() {
        text += "(no source yet)\n";
    }
    text
}

/// A source's name in this many columns. A path keeps its end, because most logs of a host are in the same directories.
pub(super) fn name_in(name: &str, columns: usize) -> String {
    let length = name.chars().count();
    if !name.starts_with('/') || length <= columns {
        return shorten(name, columns);
    }
    let end: String = name.chars().skip(length + 1 - columns).collect();
    format!("…{}", printable(&end))
}

/// A text in this many columns; a cut one ends in `…`.
pub(super) fn begin_of(text: &str, columns: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::screen;
    use super::*;

    /// `--once` once had a form and words of its own.
    #[test]
    fn once_says_what_the_screen_says() {
        let view = screen::tests::view();
        let text = page(&view, (80, usize::MAX), true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        let shown = screen::tests::screen(80, 40, &mut screen::Chosen::default());
        // Everything except the address, the end of the screen and its reversed lines.
        let on_screen = shown.iter().filter(|line| !line.is_empty() && !line.starts_with(" Enter"));
        let once = lines.iter().filter(|line| !line.starts_with("capturer at "));
        assert_eq!(once.collect::<Vec<_>>(), on_screen.collect::<Vec<_>>());
        assert!(lines[0].starts_with("✗ Lines are being lost: 7 bytes"), "{text}");
        assert!(text.contains("  component: docker, runbook: component-unhealthy\n"), "{text}");
        // A search in the output must find whole names and reasons.
        let piped = page(&view, (80, usize::MAX), false);
        let row = piped.lines().find(|line| line.starts_with("web-with")).unwrap();
        assert!(
            row.contains("longer-than-its-column-allows?[2J ") && row.ends_with("follows its file"),
            "{row}"
        );
    }
}
