//! Live views of records: who watches, and how pieces of lines reach them. A sink's thread offers pieces, the admin
//! server passes them on. A reader that is too slow misses records and is told so: nothing here waits or keeps a batch.
//!
//! Not here: which lines are shown (sink/tap.rs), and over which connection (admin/).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use regex::bytes::{Regex, RegexBuilder};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::limits::{TAP_PATTERN_BYTES_MAX, TAP_PIECES_MAX, TAPS_MAX};

/// Memory that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Shorter prefixes of an ID match too many containers.
pub const ID_CHARS_MIN: usize = 4;

/// What a watcher wants to see; everything if nothing is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A container's name or the beginning of its ID, a followed path or its last part.
    pub source: Option<String>,
    /// Matched against the message.
    pub pattern: Option<Regex>,
}

/// Compiles a pattern within bounds; the error says what is wrong with it.
pub fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > TAP_PATTERN_BYTES_MAX {
        return Err(format!("the pattern is longer than {TAP_PATTERN_BYTES_MAX} bytes"));
    }
    RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).build().map_err(|error| error.to_string())
}

/// Those who watch records at this moment; usually nobody.
#[derive(Default)]
pub struct Taps {
    count: AtomicUsize,
    watchers: Mutex<Vec<Arc<Watcher>>>,
    closed: AtomicBool,
    /// Records that watchers missed, since the last call of `take_skipped`.
    skipped: AtomicU64,
}

/// A watcher, as the offering side and the connection's keeper see it.
pub struct Watcher {
    /// What it wants.
    pub filter: Filter,
    /// `None` once the agent stops, which ends the view.
    pieces: Mutex<Option<Sender<Bytes>>>,
    /// Records it missed and was not told of yet.
    skipped: AtomicU64,
    taken: AtomicU64,
}

/// A watcher, as the reading side sees it. Dropping it ends the view.
pub struct Watch {
    taps: Arc<dyn AsRef<Taps> + Send + Sync>,
    watcher: Arc<Watcher>,
    pieces: Receiver<Bytes>,
    /// Waits behind the message about missed records.
    next: Option<Bytes>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only whole values are written under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taps {
    /// Whether anybody watches.
    pub fn are_watched(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// How many watchers there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The present watchers.
    pub fn watchers(&self) -> Vec<Arc<Watcher>> {
        lock(&self.watchers).clone()
    }

    /// Begins a view; `None` = there are as many as allowed, or the agent is stopping. `taps` leads here.
    pub fn watch(taps: Arc<dyn AsRef<Taps> + Send + Sync>, filter: Filter) -> Option<Watch> {
        let this: &Taps = (*taps).as_ref();
        let mut watchers = lock(&this.watchers);
        if watchers.len() >= TAPS_MAX || this.closed.load(Ordering::Relaxed) {
            return None;
        }
        let (sender, pieces) = channel(TAP_PIECES_MAX);
        let (skipped, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        let watcher = Arc::new(Watcher { filter, pieces: Mutex::new(Some(sender)), skipped, taken });
        watchers.push(Arc::clone(&watcher));
        this.count.store(watchers.len(), Ordering::Relaxed);
        drop(watchers);
        Some(Watch { taps, watcher, pieces, next: None })
    }

    /// The agent is stopping: views end once they have read what waits, and no new one begins.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.watchers).iter().for_each(|watcher| *lock(&watcher.pieces) = None);
    }

    /// Counts records that a watcher missed.
    pub fn skip(&self, watcher: &Watcher, records: u64) {
        watcher.skipped.fetch_add(records, Ordering::Relaxed);
        self.skipped.fetch_add(records, Ordering::Relaxed);
    }

    /// Records skipped since the last call.
    pub fn take_skipped(&self) -> u64 {
        self.skipped.swap(0, Ordering::Relaxed)
    }

    fn leave(&self, watcher: &Arc<Watcher>) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        self.count.store(watchers.len(), Ordering::Relaxed);
    }
}

impl Watcher {
    /// Whether there is room for a piece.
    pub fn has_room(&self) -> bool {
        lock(&self.pieces).as_ref().is_some_and(|pieces| pieces.capacity() > 0)
    }

    /// Passes it whole lines; false = there is no room.
    pub fn offer(&self, piece: Bytes) -> bool {
        lock(&self.pieces).as_ref().is_some_and(|pieces| pieces.try_send(piece).is_ok())
    }

    /// How many pieces were taken, and whether some wait: if the number stands still while some wait, nobody reads.
    pub fn progress(&self) -> (u64, bool) {
        let waits = lock(&self.pieces).as_ref().is_some_and(|pieces| pieces.capacity() < TAP_PIECES_MAX);
        (self.taken.load(Ordering::Relaxed), waits)
    }
}

impl Watch {
    /// For whoever checks that the view is read.
    pub fn watcher(&self) -> Arc<Watcher> {
        Arc::clone(&self.watcher)
    }

    /// The next piece, whole lines of NDJSON; `None` = the end. Missed records are reported before the next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.next.take() {
            return Poll::Ready(Some(piece));
        }
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        self.watcher.taken.fetch_add(1, Ordering::Relaxed);
        let skipped = self.watcher.skipped.swap(0, Ordering::Relaxed);
        if skipped == 0 || piece.is_none() {
            return Poll::Ready(piece);
        }
        self.next = piece;
        Poll::Ready(Some(format!("{{\"skipped\":{skipped}}}\n").into()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        (*self.taps).as_ref().leave(&self.watcher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Holder(Taps);
    impl AsRef<Taps> for Holder {
        fn as_ref(&self) -> &Taps {
            &self.0
        }
    }

    fn next(watch: &mut Watch) -> Poll<Option<Bytes>> {
        watch.poll_piece(&mut Context::from_waker(std::task::Waker::noop()))
    }

    /// A reader that does not read costs a bounded amount of memory, and is told what it missed.
    #[test]
    fn what_finds_no_room_is_skipped_and_told() {
        let holder = Arc::new(Holder(Taps::default()));
        let taps = &holder.0;
        let mut watch = Taps::watch(holder.clone(), Filter::default()).expect("room");
        let watcher = watch.watcher();
        let mut taken = 0;
        while watcher.offer(Bytes::from_static(b"{}\n")) {
            taken += 1;
        }
        assert_eq!((taken, watcher.has_room(), watcher.progress()), (TAP_PIECES_MAX, false, (0, true)));
        taps.skip(&watcher, 7);
        assert_eq!(next(&mut watch), Poll::Ready(Some(Bytes::from_static(b"{\"skipped\":7}\n"))));
        for _ in 0..TAP_PIECES_MAX {
            assert_eq!(next(&mut watch), Poll::Ready(Some(Bytes::from_static(b"{}\n"))));
        }
        assert!(next(&mut watch).is_pending());
        assert_eq!((taps.take_skipped(), taps.take_skipped()), (7, 0));
        taps.close();
        assert_eq!(next(&mut watch), Poll::Ready(None));
    }

    #[test]
    fn views_are_few_and_leave_nothing_behind() {
        let holder = Arc::new(Holder(Taps::default()));
        let views: Vec<Watch> =
            (0..TAPS_MAX).filter_map(|_| Taps::watch(holder.clone(), Filter::default())).collect();
        assert_eq!((views.len(), holder.0.count()), (TAPS_MAX, TAPS_MAX));
        assert!(Taps::watch(holder.clone(), Filter::default()).is_none());
        drop(views);
        assert!(!holder.0.are_watched());
        assert!(Taps::watch(holder.clone(), Filter::default()).is_some());
        assert!(
            pattern("(").is_err()
                && pattern(&"x".repeat(2_000)).is_err()
                && pattern("a{1000}{1000}").is_err()
        );
    }
}
