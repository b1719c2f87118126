//! The report for people and for scripts. Pure. docs/doctor.md describes both.

use serde::Serialize;

use super::judge::{CheckLine, CheckStatus};
use crate::commands::cli::Exit;

/// The width if the terminal's is not known, and the least width.
const COLUMNS: usize = 80;
/// Wider lines are hard to read.
const COLUMNS_MAX: usize = 120;
/// Where the text begins: `warn  locked_memory  `.
const INDENT: usize = 21;

/// One line per check, wrapped at the terminal's width, each with its cure below unless all is well.
pub fn table(lines: &[CheckLine], exit: Exit, columns: usize, colours: bool) -> String {
    let columns = if columns == 0 { COLUMNS } else { columns.clamp(COLUMNS, COLUMNS_MAX) };
    let mut text = String::new();
    for line in lines {
        let word = word(line.status);
        let (before, after) = if colours { (colour(line.status), "\x1b[0m") } else { ("", "") };
        let mut rows = wrap(&line.message, columns - INDENT).into_iter();
        let first = rows.next().unwrap_or_default();
        text += &format!("{before}{word:<4}{after}  {:<13}  {first}\n", line.check);
        let cure = line.cure.iter().flat_map(|cure| {
            let rows = wrap(cure, columns - INDENT - 2).into_iter().enumerate();
            rows.map(|(row, text)| format!("{}{text}", if row == 0 { "> " } else { "  " }))
        });
        for row in rows.chain(cure) {
            text += &format!("{:INDENT$}{row}\n", "");
        }
    }
    let count = |wanted: fn(CheckStatus) -> bool| lines.iter().filter(|line| wanted(line.status)).count();
    let warnings = count(|status| status == CheckStatus::Warn);
    let failed = count(|status| matches!(status, CheckStatus::Fail(_)));
    text += &match exit {
        Exit::Ok => format!("\ncapturer can run here; {warnings} to improve.\n"),
        exit => format!(
            "\ncapturer can't run here: {failed} to fix, {warnings} to improve; it would exit with {}.\n",
            exit as u8
        ),
    };
    text
}

/// One object; see docs/doctor.md.
pub fn json(lines: &[CheckLine], exit: Exit) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        capturer: &'static str,
        exit_code: u8,
        checks: Vec<Row<'a>>,
    }
    #[derive(Serialize)]
    struct Row<'a> {
        check: &'static str,
        status: &'static str,
        message: &'a str,
        cure: Option<&'a str>,
    }
    let rows = lines.iter().map(|line| Row {
        check: line.check,
        status: word(line.status),
        message: &line.message,
        cure: line.cure.as_deref(),
    });
    let report =
        Report { capturer: env!("CARGO_PKG_VERSION"), exit_code: exit as u8, checks: rows.collect() };
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

fn word(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Ok => "ok",
        CheckStatus::Warn => "warn",
        CheckStatus::Fail(_) => "fail",
    }
}

fn colour(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Ok => "\x1b[32m",
        CheckStatus::Warn => "\x1b[33m",
        CheckStatus::Fail(_) => "\x1b[31m",
    }
}

/// Wraps at this many characters, at blanks where there are any. Paths and the Engine's words come from outside: their
/// control characters must not reach the terminal.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for paragraph in text.lines() {
        let mut row = String::new();
        for word in paragraph.split_whitespace() {
            let word: Vec<char> = word.chars().flat_map(shown).collect();
            let length = row.chars().count();
            if length > 0 && length + 1 + word.len() > columns {
                rows.push(std::mem::take(&mut row));
            }
            if !row.is_empty() {
                row.push(' ');
            }
            for part in word.chunks(columns) {
                if row.chars().count() + part.len() > columns {
                    rows.push(std::mem::take(&mut row));
                }
                row.extend(part);
            }
        }
        rows.push(row);
    }
    rows
}

fn shown(c: char) -> Vec<char> {
    if c.is_control() { c.escape_debug().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<CheckLine> {
        let line = |check, status, message: &str, cure: Option<&str>| CheckLine {
            check,
            status,
            message: message.to_owned(),
            cure: cure.map(str::to_owned),
        };
        vec![
            line("kernel", CheckStatus::Ok, "Linux 6.1", None),
            line(
                "docker",
                CheckStatus::Warn,
                &format!("{}\x1b[31m{}", "a word ".repeat(20), "y".repeat(200)),
                Some(&"do this ".repeat(12)),
            ),
            line("locked_memory", CheckStatus::Fail(Exit::Unavailable), "no\nneither", Some("fix it")),
        ]
    }

    #[test]
    fn the_table_fits() {
        for (columns, most) in [(0, 80), (20, 80), (80, 80), (100, 100), (500, 120)] {
            let text = table(&lines(), Exit::Unavailable, columns, false);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(most) && longest > Some(most - 12), "{columns}: {longest:?}\n{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
    }

    #[test]
    fn it_reads_like_this() {
        let mut lines = lines();
        lines.remove(1);
        let expected = "\
ok    kernel         Linux 6.1
fail  locked_memory  no
                     neither
                     > fix it

capturer can't run here: 1 to fix, 0 to improve; it would exit with 69.
";
        assert_eq!(table(&lines, Exit::Unavailable, 80, false), expected);
        assert!(table(&lines, Exit::Unavailable, 80, true).starts_with("\x1b[32mok  \x1b[0m  kernel"));
    }

    #[test]
    fn scripts_get_an_object() {
        let value: serde_json::Value = serde_json::from_str(&json(&lines(), Exit::Unavailable)).unwrap();
        assert_eq!(value["exit_code"], 69);
        assert_eq!(value["checks"][0]["cure"], serde_json::Value::Null);
        assert_eq!(
            (&value["checks"][2]["check"], &value["checks"][2]["status"]),
            (&"locked_memory".into(), &"fail".into())
        );
    }
}
