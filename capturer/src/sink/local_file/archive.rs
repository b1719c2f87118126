//! Compresses older files and deletes those past the bounds, on a thread of its own: a sink that compressed 100 MiB
//! itself would stop reading meanwhile.
//!
//! ```text
//! sink ── an output, and the newest of its older files that is safe to touch ─▶ compress each ─▶ delete the oldest
//! ```
//! A visit may be made long after it was requested. Files rotated since then are newer than the named one, and a
//! restart may need them as they are.
//!
//! A compressed file is made under another name, synced and renamed; then the original is deleted. Unfinished ones left
//! by a crash (`.tmp`) are deleted at the next visit. Failures are logged and tried again: the next rotation may need
//! the room that a visit makes. The original stays until its compressed twin is complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, OFlags};

use super::beneath::{open_file, open_parent};
use super::generations::{self, Generation, UNFINISHED};
use super::root::Root;
use crate::settings::{Compress, LocalFile};
use crate::text::over::over;

/// A visit that failed is tried again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The thread checks whether the agent stops each time it has compressed this many bytes.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Bounds on an output's older files, each independent of the others; `None` = no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// How many older files are kept.
    files_max: Option<usize>,
    /// Bytes on disk of all older files together.
    bytes_max: Option<u64>,
    /// Age since the rotation.
    age_max: Option<Duration>,
}

impl Keep {
    /// As configured, where 0 means no bound.
    pub(super) fn new(settings: &LocalFile) -> Keep {
        Keep {
            // The one being written counts among `max_files`.
            files_max: (settings.max_files > 0).then(|| settings.max_files - 1),
            bytes_max: (settings.max_bytes > 0).then_some(settings.max_bytes),
            age_max: (!settings.max_age.is_zero()).then_some(settings.max_age),
        }
    }
}

/// One visit to an output's older files.
#[derive(Debug)]
struct Visit {
    /// The output, relative to the directory.
    path: String,
    /// Stamp of the newest older file that no restart needs unchanged; none needs the earlier ones either.
    through: String,
}

/// The running thread. Ends when dropped, even in the middle of a file.
#[derive(Debug)]
pub(super) struct Archive {
    sender: Option<Sender<Visit>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archive {
    /// Starts the thread.
    pub(super) fn start(root: Arc<Root>, packing: Compress, keep: Keep) -> io::Result<Archive> {
        let (sender, visits) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker { root, packing, keep, again_after: AGAIN_AFTER, stopping: stopping.clone() };
        let thread =
            std::thread::Builder::new().name("archive".to_owned()).spawn(move || worker.run(&visits))?;
        Ok(Archive { sender: Some(sender), stopping, thread: Some(thread) })
    }

    /// Requests a visit. There is at most one per rotation and output, so the queue stays short.
    pub(super) fn visit(&self, path: &str, through: String) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Visit { path: path.to_owned(), through });
        }
    }
}

#[cfg(test)]
impl Archive {
    /// Makes all requested visits, then ends.
    pub(super) fn finish(mut self) {
        self.sender = None;
        self.thread.take().expect("it runs").join().expect("no visit panics");
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Visits that failed.
#[derive(Default)]
struct Failed {
    /// By output. A newer visit covers an older one.
    waiting: BTreeMap<String, Visit>,
    again_at: Option<Instant>,
    /// Visits that are due again.
    due: Vec<Visit>,
    /// Since when an output's visits have failed, until one succeeds: the log gets each once.
    told: BTreeMap<String, Instant>,
}

impl Failed {
    /// The next visit: a failed one that is due, or a requested one. `None` = the end.
    fn next(&mut self, asked: &Receiver<Visit>) -> Option<Visit> {
        loop {
            if let Some(visit) = self.due.pop() {
                return Some(visit);
            }
            let Some(again_at) = self.again_at else { return asked.recv().ok() };
            match asked.recv_timeout(again_at.saturating_duration_since(Instant::now())) {
                Ok(visit) => return Some(visit),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.due = std::mem::take(&mut self.waiting).into_values().collect();
                    self.again_at = None;
                }
            }
        }
    }

    /// Returns whether this is news.
    fn note(&mut self, visit: Visit, again_after: Duration) -> bool {
        self.again_at.get_or_insert_with(|| Instant::now() + again_after);
        let is_news = !self.told.contains_key(&visit.path);
        self.told.entry(visit.path.clone()).or_insert_with(Instant::now);
        self.waiting.insert(visit.path.clone(), visit);
        is_news
    }

    /// Returns since when it had failed, if it had.
    fn forget(&mut self, path: &str) -> Option<Instant> {
        self.waiting.remove(path);
        self.told.remove(path)
    }
}

struct Worker {
    root: Arc<Root>,
    packing: Compress,
    keep: Keep,
    again_after: Duration,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, visits: &Receiver<Visit>) {
        let mut failed = Failed::default();
        while let Some(visit) = failed.next(visits) {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let output = self.root.path().join(&visit.path).display().to_string();
            match self.visit(&visit) {
                Ok(()) => {
                    if let Some(since) = failed.forget(&visit.path) {
                        let what = "its older files could not be compressed or deleted";
                        tracing::info!(%output, "{}", over(since.elapsed().as_secs(), what));
                    }
                }
                Err(error) => {
                    if failed.note(visit, self.again_after) {
                        tracing::warn!(
                            %output,
                            "compressing or deleting its older files: {error}; tried again every {} s",
                            self.again_after.as_secs()
                        );
                    }
                }
            }
        }
    }

    fn visit(&self, visit: &Visit) -> io::Result<()> {
        let (dir, live) = open_parent(&self.root.fd(), &visit.path, false)?;
        self.delete_unfinished(&dir, live)?;
        let mut older = generations::list(&dir, live)?;
        older.retain(|generation| generation.stamp <= visit.through);
        self.delete_what_is_over(&dir, &mut older)?;
        if self.packing != Compress::None {
            for generation in older.iter_mut().filter(|generation| !generation.packed) {
                if !self.pack(&dir, generation)? {
                    return Ok(());
                }
            }
        }
        // Listed again: the bound in bytes counts what is on disk now.
        self.delete_what_is_over(&dir, &mut older)
    }

    fn delete_unfinished(&self, dir: &OwnedFd, live: &str) -> io::Result<()> {
        for name in generations::names(dir)? {
            let whole = name.strip_suffix(UNFINISHED);
            if whole.and_then(|whole| generations::parse(live, whole)).is_some_and(|found| found.packed) {
                rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// False = the agent stops.
    fn pack(&self, dir: &OwnedFd, generation: &mut Generation) -> io::Result<bool> {
        let packed = format!("{}{}", generation.name, generations::packed_ending(self.packing));
        let unfinished = format!("{packed}{UNFINISHED}");
        let original = File::from(open_file(dir, &generation.name, OFlags::empty(), 0)?);
        let mode = rustix::fs::fstat(&original)?.st_mode & 0o777;
        let target = File::from(open_file(dir, &unfinished, OFlags::CREATE | OFlags::EXCL, mode)?);
        let done = self.compress(original, &target).and_then(|whole| {
            if whole {
                target.sync_all()?;
                rustix::fs::renameat(dir, &unfinished, dir, &packed)?;
                rustix::fs::unlinkat(dir, &generation.name, AtFlags::empty())?;
            }
            Ok(whole)
        });
        if !matches!(done, Ok(true)) {
            let _ = rustix::fs::unlinkat(dir, &unfinished, AtFlags::empty());
        } else {
            *generation = Generation { stamp: generation.stamp.clone(), name: packed, packed: true };
        }
        done
    }

    fn compress(&self, original: File, target: &File) -> io::Result<bool> {
        match self.packing {
            Compress::None => Ok(true),
            Compress::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
                let whole = self.copy(original, &mut encoder)?;
                encoder.finish().map(|_| whole)
            }
            Compress::Zstd => {
                let mut encoder = zstd::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                let whole = self.copy(original, &mut encoder)?;
                encoder.finish().map(|_| whole)
            }
        }
    }

    fn copy(&self, mut from: File, to: &mut impl Write) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match from.read(&mut chunk)? {
                0 => return Ok(true),
                count => to.write_all(&chunk[..count])?,
            }
        }
    }

    fn delete_what_is_over(&self, dir: &OwnedFd, older: &mut Vec<Generation>) -> io::Result<()> {
        let mut lengths = Vec::new();
        for generation in older.iter() {
            lengths
                .push(rustix::fs::statat(dir, &generation.name, AtFlags::SYMLINK_NOFOLLOW)?.st_size as u64);
        }
        let (count, bound) = self.keep.over(older, &lengths, SystemTime::now());
        for generation in older.drain(..count) {
            rustix::fs::unlinkat(dir, &generation.name, AtFlags::empty())?;
            tracing::info!(archive = %generation.name, directory = %self.root.path().display(), "deleted, as {bound} asks for");
        }
        Ok(())
    }
}

impl Keep {
    /// How many of the oldest are past the bounds, and the setting that asks for most; `older` has them oldest first, with
    /// their lengths.
    fn over(&self, older: &[Generation], lengths: &[u64], now: SystemTime) -> (usize, &'static str) {
        let by_count = self.files_max.map_or(0, |max| older.len().saturating_sub(max));
        let by_bytes = self.bytes_max.map_or(0, |max| {
            let mut sum = 0_u64;
            let kept = lengths.iter().rev().take_while(|len| {
                sum = sum.saturating_add(**len);
                sum <= max
            });
            older.len() - kept.count()
        });
        let by_age = self.age_max.map_or(0, |max| {
            let since = now.checked_sub(max).unwrap_or(SystemTime::UNIX_EPOCH);
            let millis = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            let oldest_kept = generations::stamp(millis);
            older.iter().take_while(|generation| generation.stamp < oldest_kept).count()
        });
        [(by_age, "max_age"), (by_bytes, "max_bytes"), (by_count, "max_files")]
            .into_iter()
            .max_by_key(|(count, _)| *count)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::ledger::claims::Claims;

    fn older(days: &[u64]) -> Vec<Generation> {
        days.iter().filter_map(|day| generations::parse("x.ndjson", &name(*day))).collect()
    }

    fn name(day: u64) -> String {
        generations::name("x.ndjson", &generations::stamp(day * 86_400_000))
    }

    #[test]
    fn each_bound_takes_the_oldest() {
        let now = UNIX_EPOCH + Duration::from_secs(10 * 86_400);
        let check = |keep: Keep, expected: usize| {
            let (count, _) = keep.over(&older(&[1, 2, 8, 9]), &[10, 20, 30, 40], now);
            assert_eq!(count, expected, "{keep:?}");
        };
        check(Keep::default(), 0);
        check(Keep { files_max: Some(4), ..Keep::default() }, 0);
        check(Keep { files_max: Some(1), ..Keep::default() }, 3);
        check(Keep { files_max: Some(0), ..Keep::default() }, 4);
        check(Keep { bytes_max: Some(100), ..Keep::default() }, 0);
        check(Keep { bytes_max: Some(89), ..Keep::default() }, 2);
        check(Keep { bytes_max: Some(39), ..Keep::default() }, 4);
        check(Keep { age_max: Some(Duration::from_secs(3 * 86_400)), ..Keep::default() }, 2);
        check(Keep { age_max: Some(Duration::from_secs(100 * 86_400)), ..Keep::default() }, 0);
        let all = Keep { files_max: Some(3), bytes_max: Some(75), age_max: Some(Duration::from_secs(1)) };
        check(all, 4);
        let by_count =
            Keep { files_max: Some(1), age_max: Some(Duration::from_secs(3 * 86_400)), ..Keep::default() };
        assert_eq!(by_count.over(&older(&[1, 2, 8, 9]), &[10, 20, 30, 40], now), (3, "max_files"));
    }

    fn worker(dir: &tempfile::TempDir, packing: Compress, keep: Keep) -> Worker {
        let root = Arc::new(Root::open(dir.path(), &Claims::default()).unwrap());
        Worker { root, packing, keep, again_after: Duration::from_millis(10), stopping: Arc::default() }
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn packs_what_it_may_touch_and_nothing_else() {
        for (packing, ending) in [(Compress::Zstd, "zst"), (Compress::Gzip, "gz")] {
            let dir = tempfile::tempdir().unwrap();
            let text: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
            let [first, second] = [1, 2].map(name);
            for name in [&first, &second, "x.ndjson", "y~19700102T000000.000Z.ndjson"] {
                fs::write(dir.path().join(name), &text).unwrap();
            }
            fs::write(dir.path().join(format!("{first}.zst.tmp")), "left by a crash").unwrap();
            // The second may have been rotated after the visit was requested.
            let visit = Visit { path: "x.ndjson".to_owned(), through: generations::stamp(86_400_000) };
            worker(&dir, packing, Keep::default()).visit(&visit).unwrap();
            let packed = format!("{first}.{ending}");
            let expected = ["x.ndjson", packed.as_str(), &second, "y~19700102T000000.000Z.ndjson"];
            assert_eq!(names(&dir), expected);
            let bytes = fs::read(dir.path().join(&packed)).unwrap();
            assert!(bytes.len() < text.len() / 2);
            let mut unpacked = String::new();
            match packing {
                Compress::Gzip => {
                    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap()
                }
                _ => zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut unpacked).unwrap(),
            };
            assert!(unpacked == text, "what was packed comes out again");
        }
    }

    fn wait_for(what: &str, is_so: &dyn Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < until, "waited for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// On a full disk no rotation would request it again.
    #[test]
    fn what_failed_is_tried_again_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name(0)), "text").unwrap();
        let other = name(0).replace('x', "y");
        fs::write(dir.path().join(&other), "text").unwrap();
        // A directory has the name of the file to be made.
        let in_the_way = dir.path().join(format!("{}.zst", name(0)));
        fs::create_dir_all(in_the_way.join("full")).unwrap();
        let worker = worker(&dir, Compress::Zstd, Keep::default());
        let (sender, visits) = channel();
        std::thread::scope(|scope| {
            let worker = &worker;
            scope.spawn(move || worker.run(&visits));
            for path in ["x.ndjson", "y.ndjson"] {
                sender.send(Visit { path: path.to_owned(), through: generations::stamp(0) }).unwrap();
            }
            // Visits are made in order: by then the first has failed.
            wait_for("the second", &|| dir.path().join(format!("{other}.zst")).is_file());
            fs::remove_dir_all(&in_the_way).unwrap();
            wait_for("another attempt", &|| in_the_way.is_file());
            drop(sender);
        });
        assert_eq!(names(&dir), [format!("{}.zst", name(0)), format!("{other}.zst")]);
    }

    #[test]
    fn a_stop_leaves_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let name = name(0);
        fs::write(dir.path().join(&name), "text").unwrap();
        let worker = worker(&dir, Compress::Zstd, Keep::default());
        worker.stopping.store(true, Ordering::Relaxed);
        worker.visit(&Visit { path: "x.ndjson".to_owned(), through: generations::stamp(0) }).unwrap();
        assert_eq!(names(&dir), [name]);
    }
}
