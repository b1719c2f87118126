//! Lines that the server behind a network sink will never accept, kept as NDJSON with the reason, the server's own
//! words and the time, until somebody looks at them (`capturer dead-letters`).
//!
//! Files are numbered and written one after the other; when they are too large together, the oldest is removed and
//! counted. Agent and command line take turns by a lock on the directory, only for the moment of a write or a rename.
//! Many letters are written with one sync, and no file is kept open: a file that the command line has taken gets no
//! more letters.
//!
//! ```text
//! 0000000003.ndjson   written by the agent
//! 0000000001.taken    being replayed, or left by an interrupted replay: listed, and the next replay begins with it
//! 0000000001.sent     how many of its bytes are done, so that nothing is sent twice
//! lock, replay.lock   for a moment; for as long as a replay or a purge runs
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Name of the directory beneath `data_dir`.
pub const DIRECTORY: &str = "dead-letters";
/// The dead letters are spread over this many files, so that making room removes few of them at a time.
const FILES: u64 = 8;
/// How long the command line waits for its turn: the agent's writes are short.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it tries meanwhile, so that it finds a gap even if the agent writes all the time.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// One line that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// When it was refused, RFC 3339.
    pub time: String,
    /// The sink whose server refused it.
    pub sink: String,
    /// The reason's name.
    pub reason: String,
    /// Status code of the answer.
    pub status: u16,
    /// The server's own words.
    pub answer: String,
    /// Empty = none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Its label set, as it was sent.
    pub labels: String,
    /// When it was printed, nanoseconds since 1970.
    pub line_time_ns: i64,
    /// The line's structured metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The line that was refused.
    pub line: String,
}

/// The directory of dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    dir: PathBuf,
    bytes_max: u64,
    patience: Duration,
}

impl DeadLetters {
    /// In a data directory; made at the first letter.
    pub fn new(data_dir: &Path, bytes_max: u64) -> DeadLetters {
        DeadLetters { dir: data_dir.join(DIRECTORY), bytes_max, patience: Duration::ZERO }
    }

    /// Makes it wait for the lock; the agent tries again later instead.
    pub fn patient(self) -> DeadLetters {
        DeadLetters { patience: PATIENCE, ..self }
    }

    /// Keeps a letter.
    #[cfg(test)]
    pub fn bury(&self, letter: &Letter) -> io::Result<u64> {
        self.bury_all(std::slice::from_ref(letter))
    }

    /// Keeps letters, in order, with one sync per file. Returns how many bytes of old letters were removed to make
    /// room.
    ///
    /// # Errors
    /// Some of them may have been written; they are there twice if they are buried again.
    pub fn bury_all(&self, letters: &[Letter]) -> io::Result<u64> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let _lock = self.lock()?;
        let mut files = self.files("ndjson")?;
        let file_bytes_max = self.bytes_max / FILES;
        let (mut number, mut len) = files.last().copied().unwrap_or((1, 0));
        let mut text = Vec::new();
        for letter in letters {
            let mut line = serde_json::to_vec(letter)?;
            line.push(b'\n');
            let so_far = len + text.len() as u64;
            if so_far > 0 && so_far + line.len() as u64 > file_bytes_max {
                self.append(number, &text)?;
                note(&mut files, number, len + text.len() as u64);
                text.clear();
                (number, len) = (number + 1, 0);
            }
            text.extend_from_slice(&line);
        }
        self.append(number, &text)?;
        note(&mut files, number, len + text.len() as u64);
        let mut total: u64 = files.iter().map(|(_, len)| len).sum();
        let mut dropped = self.drop_taken(&mut total)?;
        for (oldest, len) in files.into_iter().filter(|(file, _)| *file != number) {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(self.path(oldest))?;
            total -= len;
            dropped += len;
        }
        Ok(dropped)
    }

    /// Makes room by removing files left by a replay, unless one is running. Adds the length of the others to `total`.
    fn drop_taken(&self, total: &mut u64) -> io::Result<u64> {
        let taken = self.files("taken")?;
        *total += taken.iter().map(|(_, len)| len).sum::<u64>();
        if *total <= self.bytes_max || taken.is_empty() || self.lock_replay().is_err() {
            return Ok(0);
        }
        let mut dropped = 0;
        for (number, len) in taken {
            if *total <= self.bytes_max {
                break;
            }
            *total -= len;
            dropped += len.saturating_sub(self.sent(number));
            self.remove_taken(number)?;
        }
        Ok(dropped)
    }

    fn append(&self, number: u64, text: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(number))?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(text).and_then(|()| file.sync_data()) {
            let _ = file.set_len(before);
            return Err(error);
        }
        Ok(())
    }

    /// Bytes of all letters, including those that a replay has taken.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn bytes(&self) -> io::Result<u64> {
        if !self.dir.exists() {
            return Ok(0);
        }
        let (kept, taken) = (self.files("ndjson")?, self.files("taken")?);
        Ok(kept.iter().chain(&taken).map(|(_, len)| len).sum())
    }

    /// All letters, oldest first, including those that a replay has taken and not sent; and how many lines could not be
    /// read.
    pub fn read(&self) -> io::Result<(Vec<Letter>, usize)> {
        if !self.dir.exists() {
            return Ok((Vec::new(), 0));
        }
        let _lock = self.lock()?;
        let (mut letters, mut unreadable) = (Vec::new(), 0);
        let taken = self.files("taken")?.into_iter();
        let taken = taken.map(|(number, _)| (self.taken_path(number), self.sent(number)));
        let kept = self.files("ndjson")?.into_iter().map(|(number, _)| (self.path(number), 0));
        for (path, sent) in taken.chain(kept) {
            match read_file(&path, sent) {
                Ok(file) => {
                    letters.extend(file.letters.into_iter().map(|(letter, _)| letter));
                    unreadable += file.unreadable;
                }
                // A running replay has sent all of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((letters, unreadable))
    }

    /// Takes all letters out of the agent's reach, to replay or purge them, those left by an interrupted replay first.
    /// Nobody else can take them until the result is dropped.
    pub fn take(&self) -> io::Result<Taken> {
        if !self.dir.exists() {
            return Ok(Taken::default());
        }
        let replaying = self.lock_replay()?;
        let _lock = self.lock()?;
        // After those left by an interrupted replay.
        let last = self.files("taken")?.last().map_or(0, |(number, _)| *number);
        for (number, _) in self.files("ndjson")? {
            let free = last + number;
            // It belongs to a file that is gone, and says nothing about this one.
            fs::remove_file(self.sent_path(free)).or_else(gone_is_fine)?;
            fs::rename(self.path(number), self.taken_path(free))?;
        }
        let mut taken = Taken { letters: Some(self.clone()), replaying: Some(replaying), ..Taken::default() };
        for (number, _) in self.files("taken")? {
            let file = read_file(&self.taken_path(number), self.sent(number))?;
            taken.unreadable += file.unreadable;
            taken.files.push_back((number, file.letters));
        }
        Ok(taken)
    }

    /// How many bytes of a taken file are done.
    fn sent(&self, number: u64) -> u64 {
        let text = fs::read_to_string(self.sent_path(number)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn remove_taken(&self, number: u64) -> io::Result<()> {
        // In this order: a `.sent` file without its `.taken` is harmless.
        fs::remove_file(self.taken_path(number)).or_else(gone_is_fine)?;
        fs::remove_file(self.sent_path(number)).or_else(gone_is_fine)
    }

    fn taken_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.taken"))
    }

    fn sent_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.sent"))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.ndjson"))
    }

    fn lock(&self) -> io::Result<Lock> {
        let until = Instant::now() + self.patience;
        loop {
            let lock = self.try_lock("lock")?;
            match lock {
                Some(lock) => return Ok(lock),
                None if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
                None => {
                    return Err(io::Error::other(
                        "the dead letters are in use by another process; try again",
                    ));
                }
            }
        }
    }

    fn lock_replay(&self) -> io::Result<Lock> {
        let busy = || io::Error::other("another replay or purge of the dead letters is running; try again");
        self.try_lock("replay.lock")?.ok_or_else(busy)
    }

    /// `None` = somebody else has it.
    fn try_lock(&self, name: &str) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.dir.join(name))?;
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Lock(file)))
    }

    /// Numbers and lengths of the files with this ending, oldest first.
    fn files(&self, ending: &str) -> io::Result<Vec<(u64, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((number, end)) = name.split_once('.')
                && let (Ok(number), true) = (number.parse(), end == ending)
            {
                files.push((number, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Unlocks when dropped. Closing the file would not be enough: a child process that another thread is starting shares
/// the open file until it executes its program.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // If this fails, the lock ends when the last holder closes the file.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Taken letters, to which the agent adds nothing any more.
#[derive(Debug, Default)]
pub struct Taken {
    /// Lines that are no letter: torn by a crash, or edited.
    pub unreadable: usize,
    /// By number, oldest first: the rest of each file, and where each letter ends in it.
    files: VecDeque<(u64, VecDeque<(Letter, u64)>)>,
    /// `None` = there were no letters.
    letters: Option<DeadLetters>,
    #[expect(dead_code, reason = "held, not read")]
    replaying: Option<Lock>,
}

impl Taken {
    /// A remaining letter, counted from the oldest.
    pub fn nth(&self, number: usize) -> Option<&Letter> {
        self.files.iter().flat_map(|(_, letters)| letters).nth(number).map(|(letter, _)| letter)
    }

    /// How many letters remain.
    pub fn left(&self) -> usize {
        self.files.iter().map(|(_, letters)| letters.len()).sum()
    }

    /// The first letter is done. A kill right after this repeats nothing.
    pub fn done(&mut self) -> io::Result<()> {
        let Some(letters) = &self.letters else { return Ok(()) };
        self.files.retain(|(number, left)| !left.is_empty() || letters.remove_taken(*number).is_err());
        let Some((number, left)) = self.files.front_mut() else { return Ok(()) };
        let Some((_, end)) = left.pop_front() else { return Ok(()) };
        if left.is_empty() {
            return letters.remove_taken(*number);
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(letters.sent_path(*number))?;
        file.write_all_at(format!("{end:020}\n").as_bytes(), 0)
    }

    /// All letters are done.
    pub fn remove(self) -> io::Result<()> {
        let Some(letters) = &self.letters else { return Ok(()) };
        self.files.iter().try_for_each(|(number, _)| letters.remove_taken(*number))
    }
}

fn note(files: &mut Vec<(u64, u64)>, number: u64, len: u64) {
    files.retain(|(other, _)| *other != number);
    files.push((number, len));
}

/// What a file holds.
#[derive(Default)]
struct Content {
    /// Each letter with the place where it ends.
    letters: VecDeque<(Letter, u64)>,
    unreadable: usize,
}

/// Reads a file from this offset on.
fn read_file(path: &Path, from: u64) -> io::Result<Content> {
    let (mut content, mut end) = (Content::default(), 0);
    for line in fs::read(path)?.split_inclusive(|byte| *byte == b'\n') {
        end += line.len() as u64;
        let line = line.trim_ascii_end();
        if end <= from || line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(letter) => content.letters.push_back((letter, end)),
            Err(_) => content.unreadable += 1,
        }
    }
    Ok(content)
}

#[cfg(test)]
#[path = "dead_letters_tests.rs"]
mod tests;
