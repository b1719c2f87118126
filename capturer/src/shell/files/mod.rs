//! Everything done to files by name: listing a chain, opening, watching, matching patterns; and all work on file
//! systems that may hang. Threads do it, because each step may hang and nothing in the kernel can end it. The loop only
//! sends a request and takes the answer when it comes.
//!
//! ```text
//! request ─▶ "files": where does it lead? (mounts.rs) ─┬─ local: done here (look.rs, patterns.rs); the ring reads
//!                                                      └─ may hang: the thread of that file system (lane.rs),
//!                                                         which also reads and closes what it opened
//! checkpoint ─▶ "checkpoints"
//! ```
//! There is one thread per file system that may hang, started on first use, at most [`LANES_MAX`]. Each notes what it
//! is doing ([`Progress`]), so that a thread that hangs can be named.
//!
//! Not here: reading local files (ring/), and what a listing means (capture/stream/chain.rs).

mod aside;
mod beneath;
mod lane;
mod led;
pub(crate) mod listing;
mod listings;
mod look;
mod messages;
pub(crate) mod mounts;
mod olddir;
mod own;
pub(crate) mod patterns;
pub(crate) mod report;
mod unpack;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use lane::{Hung, Lane, Progress, Walked};
use lane::{Watching, Worker};
use listings::Listings;
use mounts::{Mount, Mounts};
use own::Own;
use waiting::Waiting;

use crate::capture::checkpoint::Checkpoint;
use crate::capture::io::{Beside, FileError, FoundPath, LaneId};
use crate::ledger::claims::{Claimed, Claims};
use crate::limits::LANES_MAX;
use crate::settings::Settings;
use crate::shell::checkpoint::kept::DataDir;
use crate::shell::checkpoint::saver::Saver;
use crate::shell::watches::hash_of_directory;
pub(super) use look::cause_of;
pub use messages::{FilesAnswer, OpenFile, Request, Unwatched};

/// A step on a file system that may hang counts as hung after this long. That is reported within 5 s, because the loop
/// checks once a second.
const LANE_PATIENCE: Duration = Duration::from_secs(3);
/// A step on a busy local disk may take longer.
const LOCAL_PATIENCE: Duration = Duration::from_secs(10);
/// The lane of archives on local disks: the ring can't decompress, and decompressing must not hold up other files.
const ARCHIVES: LaneId = LaneId(u64::MAX);
/// How often the data directory is checked while nothing is saved.
const LOOK_AT_DATA_DIR: Duration = Duration::from_secs(1);
/// What to do if a local disk does not answer.
const LOCAL_CURE: &str = "look for a failing disk: dmesg, iostat -x";

type Answers = Arc<dyn Fn(FilesAnswer) + Send + Sync>;

/// What the threads share with those who watch them.
#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Vec<Arc<Progress>>>,
    lanes: Mutex<BTreeMap<LaneId, Lane>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic leaves neither of them half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by every thread that has files open; nothing is ever sent. The channel closes when the last of them has ended.
type Alive = tokio::sync::mpsc::Sender<()>;

/// Sends requests to the threads. They end when this is dropped, except one that hangs.
#[derive(Debug)]
pub struct Files {
    requests: Sender<Request>,
    local: Arc<Progress>,
    saves: Sender<(u64, Checkpoint)>,
    shared: Arc<Shared>,
    alive: tokio::sync::mpsc::Receiver<()>,
    saver: std::thread::JoinHandle<()>,
}

impl Files {
    /// Starts the threads. `inotify` is the loop's only instance; `None` = nothing is watched. The thread that saves
    /// checks `held`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        inotify: Option<Arc<Claimed<OwnedFd>>>,
        settings: &Settings,
        held: Option<Arc<DataDir>>,
        claims: Claims,
        answer: impl Fn(FilesAnswer) + Send + Sync + 'static,
    ) -> io::Result<Files> {
        let answers: Answers = Arc::new(answer);
        let data_dir = settings.data_dir.clone();
        let shared = Arc::<Shared>::default();
        let local = Progress::new("a local file system".to_owned(), LOCAL_CURE.to_owned(), LOCAL_PATIENCE);
        let place = format!("the data directory {}", data_dir.display());
        let saving = Progress::new(place, LOCAL_CURE.to_owned(), LOCAL_PATIENCE);
        lock(&shared.watched).extend([Arc::clone(&local), Arc::clone(&saving)]);

        let (saves, to_save) = channel();
        let (directory, saved) = (data_dir.clone(), Arc::clone(&answers));
        let saver = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || save_all(&to_save, directory, held.as_deref(), &saving, &saved))?;

        let (requests, inbox) = channel();
        let (of_threads, alive) = tokio::sync::mpsc::channel(1);
        let worker = Worker {
            inotify,
            sets: Arc::new(settings.file_monitor.files.clone()),
            own: Arc::new(Own::of(settings)),
            claims,
            answers,
            progress: Arc::clone(&local),
            lane: None,
            open: BTreeMap::new(),
            waiting: Waiting::default(),
            listings: Listings::default(),
            alive: of_threads,
        };
        let mut router = Router {
            mounts: Mounts::new(),
            worker,
            shared: Arc::clone(&shared),
            last_paths: BTreeMap::new(),
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(move || router.run(&inbox))?;
        Ok(Files { requests, local, saves, shared, alive, saver })
    }

    /// Sends a request. Each is answered once.
    pub fn ask(&self, request: Request) {
        self.local.waits(request.stream());
        // The thread ends only with this sender.
        let _ = self.requests.send(request);
    }

    /// Saves a checkpoint; answered by [`FilesAnswer::Saved`].
    pub fn save(&self, seq: u64, checkpoint: Checkpoint) {
        let _ = self.saves.send((seq, checkpoint));
    }

    /// The lane that opened a file.
    pub fn lane(&self, id: LaneId) -> Option<Lane> {
        lock(&self.shared.lanes).get(&id).cloned()
    }

    /// Threads whose step takes longer than it may.
    pub fn hung(&self) -> Vec<Hung> {
        lock(&self.shared.watched).iter().filter_map(|progress| progress.hung()).collect()
    }

    /// What the last walks of the patterns reported, by entry. Each file system that may hang reports its part.
    pub fn walks(&self) -> BTreeMap<usize, Vec<Arc<Walked>>> {
        let mut all: BTreeMap<usize, Vec<Arc<Walked>>> = BTreeMap::new();
        for progress in lock(&self.shared.watched).iter() {
            progress.walks().into_iter().for_each(|(set, walked)| all.entry(set).or_default().push(walked));
        }
        all
    }

    /// How many files wait to be opened, for lack of a descriptor.
    pub fn without_room(&self) -> usize {
        lock(&self.shared.watched).iter().map(|progress| progress.without_room()).sum()
    }

    /// Ends the threads and waits until everything they had open is closed. This waits for every remaining [`Lane`],
    /// and for ever if a thread hangs. Requests from now on are lost.
    pub async fn end(&mut self) {
        self.close();
        // Nothing is ever sent: this returns when the last sender is dropped.
        let _ = self.alive.recv().await;
    }

    /// Tells the threads to end. Requests from now on are lost.
    pub fn close(&mut self) {
        self.requests = channel().0;
        self.saves = channel().0;
    }

    /// After [`Files::close`]: whether every thread that had files open has closed them.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.alive.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected))
    }

    /// After [`Files::close`]: whether no checkpoint is being saved or will be.
    pub fn saver_has_ended(&self) -> bool {
        self.saver.is_finished()
    }
}

fn save_all(
    to_save: &Receiver<(u64, Checkpoint)>,
    data_dir: PathBuf,
    held: Option<&DataDir>,
    progress: &Progress,
    answers: &Answers,
) {
    let mut saver = Saver::new(data_dir);
    if let Some(held) = held {
        held.keep();
    }
    let look = || held.map_or(Ok(()), DataDir::look);
    loop {
        let (seq, checkpoint) = match to_save.recv_timeout(LOOK_AT_DATA_DIR) {
            Ok(to_save) => to_save,
            Err(RecvTimeoutError::Timeout) => {
                progress.begin("checking that it is still there".to_owned());
                // Health reports what is wrong.
                let _ = look();
                progress.end();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        #[cfg(feature = "test-faults")]
        crate::faults::here();
        progress.begin("saving the checkpoint".to_owned());
        let result = look().and_then(|()| saver.save(checkpoint));
        if let Some(held) = held.filter(|_| result.is_ok()) {
            held.keep();
        }
        progress.end();
        let result = result.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        answers(FilesAnswer::Saved { seq, result });
    }
}

/// The thread "files": it knows where each request belongs, and carries out local ones itself.
struct Router {
    mounts: Mounts,
    worker: Worker,
    shared: Arc<Shared>,
    /// What each entry's patterns matched the last time everything could be looked at.
    last_paths: BTreeMap<usize, Box<[FoundPath]>>,
}

impl Router {
    fn run(&mut self, inbox: &Receiver<Request>) {
        while let Some(request) = self.worker.next(inbox) {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            let stream = request.stream();
            self.mounts.refresh();
            let mount = request
                .directory()
                .and_then(|directory| self.mounts.on_the_way(Path::new(&directory)).cloned());
            match (request, mount) {
                (Request::FindPaths { set }, _) => self.find_paths(set),
                (request, Some(mount)) => match self.lane(&mount) {
                    Ok(lane) => lane.ask(request),
                    Err(error) => self.refuse(request, &error),
                },
                (request @ Request::Open { .. }, None) if request.is_of_archive() => {
                    let place = "archives of a local file system".to_owned();
                    match self.lane_of(ARCHIVES, place, LOCAL_CURE.to_owned(), LOCAL_PATIENCE) {
                        Ok(lane) => lane.ask(request),
                        Err(error) => self.refuse(request, &error),
                    }
                }
                (request, None) => self.worker.carry_out(request),
            }
            self.worker.progress.waits_no_more(stream);
        }
        // A lane ends when its last sender is dropped. The lanes in here would keep each other alive.
        lock(&self.shared.lanes).clear();
    }

    fn find_paths(&mut self, set: usize) {
        let progress = Arc::clone(&self.worker.progress);
        progress.begin(Request::FindPaths { set }.describe());
        let lane_of = |path: &Path| self.mounts.at(path).map(|mount| mount.lane);
        let starts = patterns::starts(&self.worker.sets[set]);
        let (mut found, Watching { watches, directories, .. }) = self.worker.walk(set, starts, &lane_of);
        if !found.failing.is_empty() {
            // What was found before is kept, because this look did not get that far. Health and log tell why.
            for file in self.last_paths.get(&set).into_iter().flatten() {
                found.paths.entry(file.path.clone()).or_insert_with(|| file.clone());
            }
        }
        let elsewhere = std::mem::take(&mut found.elsewhere);
        let (lanes, paths) = (elsewhere.keys().copied().collect(), found.paths());
        if found.failing.is_empty() {
            self.last_paths.insert(set, paths.clone().into());
        }
        progress.end();
        (self.worker.answers)(FilesAnswer::PathsFound {
            set,
            lane: None,
            lanes,
            watches,
            directories,
            links: found.links,
            paths,
        });
        for (id, starts) in elsewhere {
            let Some(mount) = self.mounts.by_lane(id).cloned() else { continue };
            match self.lane(&mount) {
                Ok(lane) => lane.ask(Request::FindRest { set, starts }),
                Err(error) => tracing::warn!("looking for files on {}: {error}", mount.describe()),
            }
        }
    }

    /// The lane of a file system, started if needed. Lanes of file systems that are no longer mounted make room.
    fn lane(&self, mount: &Mount) -> io::Result<Lane> {
        self.lane_of(mount.lane, mount.describe(), mount.cure(), LANE_PATIENCE)
    }

    fn lane_of(&self, id: LaneId, place: String, cure: String, patience: Duration) -> io::Result<Lane> {
        let mut lanes = lock(&self.shared.lanes);
        if let Some(lane) = lanes.get(&id) {
            return Ok(lane.clone());
        }
        lanes.retain(|id, _| *id == ARCHIVES || self.mounts.by_lane(*id).is_some());
        let mut watched = lock(&self.shared.watched);
        // Lanes without senders are gone; one that hangs is kept by its thread.
        watched.retain(|progress| Arc::strong_count(progress) > 1);
        if id != ARCHIVES && lanes.keys().filter(|id| **id != ARCHIVES).count() >= LANES_MAX {
            return Err(io::Error::other(format!(
                "{LANES_MAX} file systems that may hang are read already; {place} is left alone"
            )));
        }
        let progress = Progress::new(place.clone(), cure, patience);
        let worker = Worker {
            inotify: self.worker.inotify.clone(),
            sets: Arc::clone(&self.worker.sets),
            own: Arc::clone(&self.worker.own),
            claims: self.worker.claims.clone(),
            answers: Arc::clone(&self.worker.answers),
            progress: Arc::clone(&progress),
            lane: None,
            open: BTreeMap::new(),
            waiting: Waiting::default(),
            listings: Listings::default(),
            alive: self.worker.alive.clone(),
        };
        let lane = Lane::start(id, worker, Arc::clone(&progress))?;
        if id != ARCHIVES {
            tracing::info!("{place} may hang: a thread of its own does what is done there");
        }
        watched.push(progress);
        lanes.insert(id, lane.clone());
        Ok(lane)
    }

    fn refuse(&self, request: Request, error: &io::Error) {
        let error = FileError::Other { what: "reading logs there".to_owned(), cause: look::cause_of(error) };
        let answer = match request {
            Request::Scan { stream, directory, .. } => FilesAnswer::Scanned {
                stream,
                watch: Err(Unwatched::Other(hash_of_directory(&directory))),
                result: Err(error),
                beside: Beside::default(),
            },
            Request::Open { stream, file, .. } => {
                FilesAnswer::Opened { stream, file, lane: None, result: Err(error) }
            }
            _ => return,
        };
        (self.worker.answers)(answer);
    }
}

/// Where an open local file's data continues, if everything read at `offset` is NUL and a hole follows. Does not hang.
pub fn data_behind(file: BorrowedFd<'_>, offset: u64, read: &[u8]) -> Option<u64> {
    look::data_behind(file, offset, read)
}

/// Length of an open local file; called when a read brought nothing, to notice a truncation. Does not hang.
pub fn length(file: BorrowedFd<'_>) -> Option<u64> {
    look::length(file)
}
