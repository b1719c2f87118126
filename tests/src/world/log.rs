//! What happened in a run, line by line: the last of it is kept for a failure, or all of it goes to a writer.

use std::collections::VecDeque;
use std::io::Write;

/// Last happenings kept to be shown; `CAPTURER_SHOW` says otherwise.
const SHOWN: usize = 60;

/// The log of a run; see the head of this file.
pub(super) enum Log {
    /// The last lines, printed on standard error if the run fails.
    Last { lines: VecDeque<String>, lines_max: usize },
    /// Every line at once.
    All(Box<dyn Write + Send>),
    /// Nothing: whoever runs the seed runs it again with a log if it fails.
    Nothing,
}

impl Log {
    pub(super) fn last() -> Log {
        let shown = std::env::var("CAPTURER_SHOW").ok().and_then(|text| text.parse().ok());
        Log::Last { lines: VecDeque::new(), lines_max: shown.unwrap_or(SHOWN) }
    }

    pub(super) fn line(&mut self, at_us: u64, text: &str) {
        match self {
            Log::Last { lines, lines_max } => {
                if lines.len() >= *lines_max {
                    lines.pop_front();
                }
                lines.push_back(format!("{at_us:>12} µs  {text}"));
            }
            Log::All(writer) => write(writer, &format!("{at_us:>12} µs  {text}")),
            Log::Nothing => {}
        }
    }

    /// The run failed: `state` is how things stood.
    pub(super) fn failed(&mut self, state: &[String]) {
        match self {
            Log::Last { lines, .. } => {
                for line in lines.iter().chain(state) {
                    eprintln!("{line}");
                }
            }
            Log::All(writer) => {
                for line in state {
                    write(writer, line);
                }
                let _ = writer.flush();
            }
            Log::Nothing => {}
        }
    }
}

/// A log that can't be written must not hide why the run failed: it is cut short, which its reader sees.
fn write(writer: &mut Box<dyn Write + Send>, line: &str) {
    let _ = writeln!(writer, "{line}");
}
