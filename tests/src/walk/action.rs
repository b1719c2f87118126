//! What can happen in a walk, and how it is written down.
//!
//! A walk's text is `pattern=*.log output=path writers=ehe | append a 3; rotate a app.log.N create; kill; start; settle`.
//! Failures print it, `CAPTURER_WALK=` replays it, and `tests/walks.txt` keeps what was found.

use std::fmt::{self, Display};

use anyhow::{Context as _, Result, bail, ensure};

use super::names::{Pattern, STEMS, Scheme};

/// One of the logs, an index into [`STEMS`]; `a`, `b`, `c` in text.
pub type Log = usize;

/// How a log is written. Each is how much software does it, and each rotates differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Opens the file for each write.
    Each,
    /// Holds it open with O_APPEND.
    Held,
    /// Holds it open and writes where it stands: after a truncation there is a hole.
    Offset,
}

impl Writer {
    /// All of them, with their letters.
    pub const ALL: [(Writer, char); 3] = [(Writer::Each, 'e'), (Writer::Held, 'h'), (Writer::Offset, 'o')];
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A file for each followed path.
    Path,
    /// One file for all.
    Shared,
    /// As `Path`, rotated every few lines.
    Rotated,
}

impl Output {
    /// All of them, with how a walk's text calls them.
    pub const ALL: [(Output, &str); 3] =
        [(Output::Path, "path"), (Output::Shared, "shared"), (Output::Rotated, "rotated")];
}

/// What stays the same during a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What the agent follows.
    pub pattern: Pattern,
    /// Where it writes.
    pub output: Output,
    /// How each log is written.
    pub writers: [Writer; STEMS.len()],
}

/// A setup and what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// What stays.
    pub setup: Setup,
    /// What happens, in this order. It begins without an agent.
    pub actions: Vec<Action>,
}

/// How long a file is after it was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Fewer lines.
    Shorter,
    /// As many bytes.
    Same,
    /// More lines.
    Longer,
}

/// What an operator does to the agent's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputAction {
    /// `truncate -s 0`
    Empty,
    /// Renamed out of the folder.
    Move,
    /// Removed.
    Remove,
    /// Copied away, then emptied: logrotate's copytruncate.
    CopyTruncate,
    /// The whole folder is removed.
    RemoveFolder,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// So many lines, each with a write of its own.
    Append(Log, u32),
    /// The first half of a line. What is written next to that file is its second half.
    Part(Log),
    /// The writer did not see the last rotation yet, and writes to the rotated file.
    Late(Log, u32),
    /// The live file, if there is none.
    Create(Log),
    /// The live file gets a rotated name; older ones move on. Then perhaps a new, empty one.
    Rotate(Log, Scheme, bool),
    /// A copy gets a rotated name, the live file is emptied; perhaps a line is written between the two.
    CopyTruncate(Log, Scheme, bool),
    /// A copy gets a rotated name, and that is all: logrotate's `copy`.
    Copy(Log, Scheme),
    /// A second name for the live file.
    Link(Log, Scheme),
    /// The newest rotated file that is not compressed is.
    Gzip(Log),
    /// The oldest rotated file goes.
    Prune(Log),
    /// `> app.log`
    Truncate(Log),
    /// Other content in the same file; emptied first, or written over.
    Rewrite(Log, Length, bool),
    /// The live file goes.
    Unlink(Log),
    /// Another file takes the live one's name.
    Replace(Log),
    /// A copy of the live file takes its name: restored, or saved by an editor.
    Restore(Log),
    /// The live file goes where no pattern looks.
    Away(Log),
    /// It comes back, unless there is another by now.
    Back(Log),
    /// The folder of the logs goes.
    FolderAway,
    /// It comes back.
    FolderBack,
    /// To the agent's outputs.
    Output(OutputAction),
    /// The config is read anew, with the logs in it or without.
    Reload(bool),
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// SIGTERM, to the end.
    Term,
    /// SIGKILL.
    Kill,
    /// The agent is started.
    Start,
    /// Waits until all that must arrive has arrived.
    Settle,
    /// Gives the agent a moment to see that files came or went.
    Notice,
    /// Waits until a checkpoint knows what was delivered.
    Saved,
}

fn letter(log: Log) -> char {
    char::from(b'a' + log as u8)
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Append(log, lines) => write!(f, "append {} {lines}", letter(log)),
            Action::Part(log) => write!(f, "part {}", letter(log)),
            Action::Late(log, lines) => write!(f, "late {} {lines}", letter(log)),
            Action::Create(log) => write!(f, "create {}", letter(log)),
            Action::Rotate(log, scheme, create) => {
                let how = if create { "create" } else { "nocreate" };
                write!(f, "rotate {} {} {how}", letter(log), scheme.key())
            }
            Action::CopyTruncate(log, scheme, torn) => {
                let how = if torn { "torn" } else { "whole" };
                write!(f, "copytruncate {} {} {how}", letter(log), scheme.key())
            }
            Action::Copy(log, scheme) => write!(f, "copy {} {}", letter(log), scheme.key()),
            Action::Link(log, scheme) => write!(f, "link {} {}", letter(log), scheme.key()),
            Action::Gzip(log) => write!(f, "gzip {}", letter(log)),
            Action::Prune(log) => write!(f, "prune {}", letter(log)),
            Action::Truncate(log) => write!(f, "truncate {}", letter(log)),
            Action::Rewrite(log, length, emptied) => {
                let length = match length {
                    Length::Shorter => "shorter",
                    Length::Same => "same",
                    Length::Longer => "longer",
                };
                write!(f, "rewrite {} {length} {}", letter(log), if emptied { "emptied" } else { "over" })
            }
            Action::Unlink(log) => write!(f, "unlink {}", letter(log)),
            Action::Replace(log) => write!(f, "replace {}", letter(log)),
            Action::Restore(log) => write!(f, "restore {}", letter(log)),
            Action::Away(log) => write!(f, "away {}", letter(log)),
            Action::Back(log) => write!(f, "back {}", letter(log)),
            Action::FolderAway => f.write_str("folder-away"),
            Action::FolderBack => f.write_str("folder-back"),
            Action::Output(action) => f.write_str(match action {
                OutputAction::Empty => "output empty",
                OutputAction::Move => "output move",
                OutputAction::Remove => "output remove",
                OutputAction::CopyTruncate => "output copytruncate",
                OutputAction::RemoveFolder => "output remove-folder",
            }),
            Action::Reload(with) => write!(f, "reload {}", if with { "with" } else { "without" }),
            Action::Freeze => f.write_str("freeze"),
            Action::Thaw => f.write_str("thaw"),
            Action::Term => f.write_str("term"),
            Action::Kill => f.write_str("kill"),
            Action::Start => f.write_str("start"),
            Action::Settle => f.write_str("settle"),
            Action::Notice => f.write_str("notice"),
            Action::Saved => f.write_str("saved"),
        }
    }
}

impl Action {
    /// The action that is written so.
    pub fn parse(text: &str) -> Result<Action> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = Words { text, words };
        words.action()
    }

    /// What it does, without on what.
    pub fn verb(&self) -> String {
        self.to_string().split(' ').next().unwrap_or_default().to_owned()
    }
}

/// The words of one action.
struct Words<'a> {
    text: &'a str,
    words: Vec<&'a str>,
}

impl Words<'_> {
    fn word(&self, at: usize) -> Result<&str> {
        self.words.get(at).copied().with_context(|| format!("{:?} lacks its word {}", self.text, at + 1))
    }

    fn log(&self) -> Result<Log> {
        let word = self.word(1)?;
        let found = (0..STEMS.len()).find(|log| word == letter(*log).to_string());
        found.with_context(|| format!("{:?}: no log {word:?}", self.text))
    }

    fn number(&self) -> Result<u32> {
        self.word(2)?.parse().with_context(|| format!("{:?}: how many lines", self.text))
    }

    fn scheme(&self) -> Result<Scheme> {
        Scheme::of(self.word(2)?).with_context(|| format!("{:?}: no such way to name files", self.text))
    }

    /// Which of two words stands there.
    fn either(&self, at: usize, yes: &str, no: &str) -> Result<bool> {
        let word = self.word(at)?;
        ensure!(word == yes || word == no, "{:?}: {yes} or {no}, not {word:?}", self.text);
        Ok(word == yes)
    }

    fn action(&self) -> Result<Action> {
        Ok(match self.word(0)? {
            "append" => Action::Append(self.log()?, self.number()?),
            "part" => Action::Part(self.log()?),
            "late" => Action::Late(self.log()?, self.number()?),
            "create" => Action::Create(self.log()?),
            "rotate" => Action::Rotate(self.log()?, self.scheme()?, self.either(3, "create", "nocreate")?),
            "copytruncate" => {
                Action::CopyTruncate(self.log()?, self.scheme()?, self.either(3, "torn", "whole")?)
            }
            "copy" => Action::Copy(self.log()?, self.scheme()?),
            "link" => Action::Link(self.log()?, self.scheme()?),
            "gzip" => Action::Gzip(self.log()?),
            "prune" => Action::Prune(self.log()?),
            "truncate" => Action::Truncate(self.log()?),
            "rewrite" => {
                let length = match self.word(2)? {
                    "shorter" => Length::Shorter,
                    "same" => Length::Same,
                    "longer" => Length::Longer,
                    other => bail!("{:?}: no length {other:?}", self.text),
                };
                Action::Rewrite(self.log()?, length, self.either(3, "emptied", "over")?)
            }
            "unlink" => Action::Unlink(self.log()?),
            "replace" => Action::Replace(self.log()?),
            "restore" => Action::Restore(self.log()?),
            "away" => Action::Away(self.log()?),
            "back" => Action::Back(self.log()?),
            "folder-away" => Action::FolderAway,
            "folder-back" => Action::FolderBack,
            "output" => Action::Output(match self.word(1)? {
                "empty" => OutputAction::Empty,
                "move" => OutputAction::Move,
                "remove" => OutputAction::Remove,
                "copytruncate" => OutputAction::CopyTruncate,
                "remove-folder" => OutputAction::RemoveFolder,
                other => bail!("{:?}: no such thing to do to an output: {other:?}", self.text),
            }),
            "reload" => Action::Reload(self.either(1, "with", "without")?),
            "freeze" => Action::Freeze,
            "thaw" => Action::Thaw,
            "term" => Action::Term,
            "kill" => Action::Kill,
            "start" => Action::Start,
            "settle" => Action::Settle,
            "notice" => Action::Notice,
            "saved" => Action::Saved,
            other => bail!("no action {other:?}"),
        })
    }
}

impl Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = Output::ALL.iter().find(|(output, _)| *output == self.output).map_or("", |(_, key)| key);
        write!(f, "pattern={} output={output} writers=", self.pattern.key())?;
        for writer in self.writers {
            let letter =
                Writer::ALL.iter().find(|(each, _)| *each == writer).map_or('?', |(_, letter)| *letter);
            write!(f, "{letter}")?;
        }
        Ok(())
    }
}

impl Setup {
    fn parse(text: &str) -> Result<Setup> {
        let value = |key: &str| {
            let found = text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.with_context(|| format!("{text:?} lacks {key}="))
        };
        let pattern = value("pattern")?;
        let pattern = Pattern::ALL.iter().find(|(_, key)| *key == pattern).context("no such pattern")?.0;
        let output = value("output")?;
        let output = Output::ALL.iter().find(|(_, key)| *key == output).context("no such output")?.0;
        let mut writers = [Writer::Each; STEMS.len()];
        for (writer, letter) in writers.iter_mut().zip(value("writers")?.chars()) {
            *writer = Writer::ALL.iter().find(|(_, each)| *each == letter).context("no such writer")?.0;
        }
        Ok(Setup { pattern, output, writers })
    }
}

impl Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} |", self.setup)?;
        for (index, action) in self.actions.iter().enumerate() {
            write!(f, "{} {action}", if index == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

impl Walk {
    /// The walk that is written so.
    pub fn parse(text: &str) -> Result<Walk> {
        let (setup, actions) = text.split_once('|').context("a walk is SETUP | ACTION; ACTION …")?;
        let actions = actions.split(';').map(str::trim).filter(|text| !text.is_empty());
        Ok(Walk { setup: Setup::parse(setup)?, actions: actions.map(Action::parse).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::generate::generate;

    /// A walk that reads otherwise than it was written would be replayed as another one.
    #[test]
    fn a_walk_is_read_as_it_is_written() {
        for seed in 0..300 {
            let walk = generate(seed);
            assert_eq!(Walk::parse(&walk.to_string()).unwrap(), walk, "{walk}");
        }
    }

    #[test]
    fn what_is_no_action_is_refused() {
        for text in ["append d 3", "append a", "rotate a app.log.Q create", "fly", "reload perhaps"] {
            assert!(Action::parse(text).is_err(), "{text}");
        }
    }
}
