//! Numbered lines on their way: the number printed last, by the Engine's own log on disk, and the numbers in the agent's
//! output, one after the other. A number left out is lost, a number that was there is a duplicate.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// How far before the end of a log the last lines of both channels are looked for.
const TAIL_BYTES: u64 = 64 * 1024;

/// Sums over all containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// By the Engine's logs.
    pub printed: u64,
    /// In the agent's output.
    pub delivered: u64,
    /// Numbers left out by what came after them.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicated: u64,
    /// At the end: which containers lack lines, and which.
    pub lacking: Vec<String>,
}

impl Lines {
    pub(super) fn add(&mut self, other: Lines) {
        self.printed += other.printed;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.lacking.extend(other.lacking);
    }
}

/// One container's lines. Channel 0 is stdout (`o 1`, `o 2` …), 1 is stderr (`e 1` …).
pub struct Outlet {
    name: String,
    log: PathBuf,
    output: PathBuf,
    offset: u64,
    /// An incomplete line at the end of what was read.
    held: Vec<u8>,
    printed: [u64; 2],
    channels: [Channel; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    last: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
}

impl Channel {
    fn take(&mut self, number: u64) {
        if number <= self.last {
            self.duplicated += 1;
            return;
        }
        self.delivered += 1;
        self.lost += number - self.last - 1;
        self.last = number;
    }
}

impl Outlet {
    pub(super) fn new(name: &str, log: PathBuf, output: PathBuf) -> Outlet {
        Outlet {
            name: name.to_owned(),
            log,
            output,
            offset: 0,
            held: Vec::new(),
            printed: [0; 2],
            channels: [Channel::default(); 2],
        }
    }

    /// Reads what is new.
    pub(super) fn count(&mut self) -> Result<Lines> {
        self.read_log().with_context(|| format!("reading the log of {}", self.name))?;
        self.read_output().with_context(|| format!("reading the output of {}", self.name))?;
        let sum = |of: fn(&Channel) -> u64| self.channels.iter().map(of).sum();
        Ok(Lines {
            printed: self.printed.iter().sum(),
            delivered: sum(|channel| channel.delivered),
            lost: sum(|channel| channel.lost),
            duplicated: sum(|channel| channel.duplicated),
            lacking: Vec::new(),
        })
    }

    /// What is missing or too much, once nothing more can come.
    pub(super) fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let (printed, name) = (self.printed[index], ["stdout", "stderr"][index]);
            if channel.last != printed || channel.lost > 0 || channel.duplicated > 0 {
                lacking.push(format!(
                    "{} {name}: {printed} printed, the last delivered is {}, {} left out, {} twice",
                    self.name, channel.last, channel.lost, channel.duplicated
                ));
            }
        }
        lacking
    }

    fn read_log(&mut self) -> Result<()> {
        let Some(mut file) = open(&self.log)? else { return Ok(()) };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        // Whole records only: not the first, which the seek may have cut, and not the last without its newline.
        for line in tail.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            if let Some((channel, number)) = numbered(line, b"{\"log\":\"", b"\\n\",\"stream\"") {
                self.printed[channel] = self.printed[channel].max(number);
            }
        }
        Ok(())
    }

    fn read_output(&mut self) -> Result<()> {
        let Some(mut file) = open(&self.output)? else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.read_to_end(&mut self.held)?;
        self.offset += read as u64;
        let whole = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.held[..whole].split_inclusive(|byte| *byte == b'\n') {
            let (channel, number) = numbered(line, b"\"message\":\"", b"\"}\n").with_context(|| {
                format!("a line that no container printed: {}", String::from_utf8_lossy(line))
            })?;
            self.channels[channel].take(number);
        }
        self.held.drain(..whole);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Channel and number of a message like `o 17` that stands between `before` and `after`.
fn numbered(line: &[u8], before: &[u8], after: &[u8]) -> Option<(usize, u64)> {
    let start = line.windows(before.len()).rposition(|part| part == before)? + before.len();
    let rest = &line[start..];
    let digits = rest.get(2..)?;
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !digits[length..].starts_with(after) {
        return None;
    }
    let channel = match &rest[..2] {
        b"o " => 0,
        b"e " => 1,
        _ => return None,
    };
    Some((channel, std::str::from_utf8(&digits[..length]).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_by_channel_and_number() {
        let record = b"{\"log\":\"e 205\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-22T00:52:48Z\"}\n";
        assert_eq!(numbered(record, b"{\"log\":\"", b"\\n\",\"stream\""), Some((1, 205)));
        let output = b"{\"time\":\"t\",\"stream\":\"stdout\",\"message\":\"o 17\"}\n";
        assert_eq!(numbered(output, b"\"message\":\"", b"\"}\n"), Some((0, 17)));
        for wrong in
            ["\"message\":\"x 1\"}\n", "\"message\":\"o 1x\"}\n", "\"message\":\"o", "\"message\":\"o \"}\n"]
        {
            assert_eq!(numbered(wrong.as_bytes(), b"\"message\":\"", b"\"}\n"), None, "{wrong}");
        }
    }

    /// Without this a soak could lose lines and pass.
    #[test]
    fn what_is_left_out_and_what_comes_twice_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (log, output) = (dir.path().join("log"), dir.path().join("output"));
        let mut outlet = Outlet::new("web", log.clone(), output.clone());
        assert_eq!(outlet.count().unwrap(), Lines::default());
        std::fs::write(&log, "{\"log\":\"o 6\\n\",\"stream\":\"stdout\"}\n{\"log\":\"o 7").unwrap();
        let line = |number: u64| format!("{{\"message\":\"o {number}\"}}\n");
        let text: String = [1, 2, 5, 5].map(line).concat();
        std::fs::write(&output, &text.as_bytes()[..text.len() - 3]).unwrap();
        let counted = outlet.count().unwrap();
        assert_eq!((counted.printed, counted.delivered, counted.lost, counted.duplicated), (6, 3, 2, 0));
        std::fs::write(&output, text + &line(6)).unwrap();
        let counted = outlet.count().unwrap();
        assert_eq!((counted.delivered, counted.lost, counted.duplicated), (4, 2, 1));
        assert_eq!(outlet.lacking().len(), 1);
    }
}
