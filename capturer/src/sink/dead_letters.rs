//! Lines that the other side of a network sink will never take, kept as NDJSON with the reason, the server's own words
//! and the time, until somebody looks (`capturer dead-letters`).
//!
//! Files are numbered and written one after the other; when all together are too large the oldest goes, counted. Agent
//! and command line take turns by a lock on the directory, for the moment of a write or a rename only. Letters
//! are written many at a time with one sync, and no file is kept open: a file that the command line took away gets
//! nothing more.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Name of the directory beneath `data_dir`.
pub const DIRECTORY: &str = "dead-letters";
/// The dead letters are spread over this many files, so that making room removes little at a time.
const FILES: u64 = 8;

/// One line that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// When it was refused, RFC 3339.
    pub time: String,
    /// By which sink's other side.
    pub sink: String,
    /// Why, by name.
    pub reason: String,
    /// Status of the answer.
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
    /// What else was sent with it.
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
}

impl DeadLetters {
    /// Beneath a data directory; made at the first letter.
    pub fn new(data_dir: &Path, bytes_max: u64) -> DeadLetters {
        DeadLetters { dir: data_dir.join(DIRECTORY), bytes_max }
    }

    /// Keeps a letter. Returns how many bytes of old ones made room for it.
    ///
    /// # Errors
    /// Nothing of it is there then.
    pub fn bury(&self, letter: &Letter) -> io::Result<u64> {
        self.bury_all(std::slice::from_ref(letter))
    }

    /// Keeps letters, in order: one sync a file, however many they are. Returns how many bytes of old ones made room.
    ///
    /// # Errors
    /// What is there of them then may come twice, if they are buried again.
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
        let mut dropped = 0;
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

    fn append(&self, number: u64, text: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(number))?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(text).and_then(|()| file.sync_data()) {
            let _ = file.set_len(before);
            return Err(error);
        }
        Ok(())
    }

    /// How much of them there is, those included that a replay has taken.
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

    /// All letters, oldest first, and how many lines could not be read.
    pub fn read(&self) -> io::Result<(Vec<Letter>, usize)> {
        if !self.dir.exists() {
            return Ok((Vec::new(), 0));
        }
        let _lock = self.lock()?;
        let paths = self.files("ndjson")?.into_iter().map(|(number, _)| self.path(number));
        read_files(&paths.collect::<Vec<_>>())
    }

    /// Takes all letters away from the agent's reach, to be replayed or purged. What an interrupted replay left comes
    /// first.
    pub fn take(&self) -> io::Result<Taken> {
        if !self.dir.exists() {
            return Ok(Taken::default());
        }
        let _lock = self.lock()?;
        for (number, _) in self.files("ndjson")? {
            let path = self.path(number);
            // Beside what an interrupted replay left, not over it.
            let free =
                (0..).map(|try_| number + try_).map(|number| self.dir.join(format!("{number:010}.taken")));
            let taken = free.into_iter().find(|path| !path.exists());
            fs::rename(path, taken.unwrap_or_else(|| self.dir.join("0.taken")))?;
        }
        let names =
            self.files("taken")?.into_iter().map(|(number, _)| self.dir.join(format!("{number:010}.taken")));
        let paths: Vec<PathBuf> = names.collect();
        let (letters, unreadable) = read_files(&paths)?;
        Ok(Taken { letters, unreadable, paths })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.ndjson"))
    }

    fn lock(&self) -> io::Result<Lock> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.dir.join("lock"))?;
        // Not waited for: the agent tries again, a person too.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("the dead letters are in use by another process; try again"))?;
        Ok(Lock(file))
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

/// Unlocks when dropped. Closing the file alone would not do: a child that another thread is starting has it open as well
/// until it executes its program.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // What can't be unlocked is when the last who has it open closes it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Letters that the agent adds nothing to any more.
#[derive(Debug, Default)]
pub struct Taken {
    /// The letters, oldest first.
    pub letters: Vec<Letter>,
    /// Lines that are no letter: torn by a crash, or edited.
    pub unreadable: usize,
    paths: Vec<PathBuf>,
}

impl Taken {
    /// Nobody needs them any more.
    pub fn remove(self) -> io::Result<()> {
        self.paths.iter().try_for_each(fs::remove_file)
    }
}

fn note(files: &mut Vec<(u64, u64)>, number: u64, len: u64) {
    files.retain(|(other, _)| *other != number);
    files.push((number, len));
}

fn read_files(paths: &[PathBuf]) -> io::Result<(Vec<Letter>, usize)> {
    let (mut letters, mut unreadable) = (Vec::new(), 0);
    for path in paths {
        for line in fs::read(path)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(letter) => letters.push(letter),
                Err(_) => unreadable += 1,
            }
        }
    }
    Ok((letters, unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(line: &str) -> Letter {
        Letter {
            sink: "loki".to_owned(),
            reason: "too_old".to_owned(),
            line: line.to_owned(),
            ..Letter::default()
        }
    }

    fn lines(letters: &[Letter]) -> Vec<&str> {
        letters.iter().map(|letter| letter.line.as_str()).collect()
    }

    #[test]
    fn what_is_buried_is_read_in_order_until_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path(), 1 << 20);
        assert_eq!(letters.read().unwrap(), (vec![], 0));
        assert!(letters.take().unwrap().letters.is_empty());
        for line in ["a\n\"", "b", "\u{0}"] {
            letters.bury(&letter(line)).unwrap();
        }
        assert_eq!(lines(&letters.read().unwrap().0), ["a\n\"", "b", "\u{0}"]);
        let taken = letters.take().unwrap();
        // The agent goes on meanwhile; an interrupted replay loses nothing.
        letters.bury(&letter("c")).unwrap();
        drop(taken);
        let taken = letters.take().unwrap();
        assert_eq!(lines(&taken.letters), ["a\n\"", "b", "\u{0}", "c"]);
        taken.remove().unwrap();
        assert_eq!(letters.read().unwrap(), (vec![], 0));
    }

    /// A first day brings hundreds of thousands: together they are as they would be one by one.
    #[test]
    fn many_at_once_are_as_one_by_one() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let all: Vec<Letter> =
            (0..500).map(|number| letter(&format!("{number}{}", "x".repeat(number % 90)))).collect();
        let of = |dir: &tempfile::TempDir| DeadLetters::new(dir.path(), 40_000);
        let one_by_one: u64 = all.iter().map(|letter| of(&dirs[0]).bury(letter).unwrap()).sum();
        let together: u64 = all.chunks(60).map(|some| of(&dirs[1]).bury_all(some).unwrap()).sum();
        let kept = dirs.each_ref().map(|dir| of(dir).read().unwrap().0);
        assert_eq!(lines(&kept[0]).last(), lines(&kept[1]).last());
        let bytes = |letters: &[Letter]| -> u64 {
            letters.iter().map(|letter| serde_json::to_vec(letter).unwrap().len() as u64 + 1).sum()
        };
        assert_eq!((bytes(&kept[0]) + one_by_one, bytes(&kept[1]) + together), (bytes(&all), bytes(&all)));
        assert!(bytes(&kept[1]) <= 40_000 && bytes(&kept[1]) > 25_000, "{}", bytes(&kept[1]));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path(), 20_000);
        let (mut dropped, mut all) = (0, 0);
        for number in 0..200 {
            dropped += letters.bury(&letter(&format!("{number}{}", "x".repeat(300)))).unwrap();
            all += serde_json::to_vec(&letter(&format!("{number}{}", "x".repeat(300)))).unwrap().len() as u64
                + 1;
        }
        let (kept, unreadable) = letters.read().unwrap();
        assert_eq!(unreadable, 0);
        assert!(kept.last().unwrap().line.starts_with("199"));
        let kept_bytes: u64 =
            kept.iter().map(|letter| serde_json::to_vec(letter).unwrap().len() as u64 + 1).sum();
        assert!(kept_bytes <= 20_000 && kept_bytes > 10_000, "{kept_bytes}");
        assert_eq!(kept_bytes + dropped, all);
    }

    #[test]
    fn a_torn_letter_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path(), 1 << 20);
        letters.bury(&letter("a")).unwrap();
        let path = letters.path(1);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"time\":\"2026\n");
        fs::write(&path, text).unwrap();
        letters.bury(&letter("b")).unwrap();
        let (found, unreadable) = letters.read().unwrap();
        assert_eq!((lines(&found), unreadable), (vec!["a", "b"], 1));
    }
}
