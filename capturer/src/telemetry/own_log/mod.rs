//! The agent's own log lines, on standard error. Not the logs it captures.
//!
//! Solves four problems once, so that no caller has to think of them:
//! - a fault that repeats a thousand times a second: each place in the code has a budget (`limit`);
//! - one cause that hits two hundred sources: it is one line with their number (`gather`);
//! - text that others control (container names, the Engine's errors): control characters are escaped and long values
//!   cut (`line`);
//! - a standard error that nobody reads: a thread of its own writes, so a full pipe stops this thread and not the
//!   capture loop. What its queue can't take is dropped and counted.

mod gather;
mod limit;
mod line;
mod panic;

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::settings::{Log, LogFormat, LogLevel};
use crate::text::counted::{counted, which};
use gather::Gatherer;
use limit::{Admission, Limiter};
use line::{LogLine, WHO};

/// Name of the writing thread.
const LOG_THREAD: &str = "log";
/// Lines that wait for a slow standard error. If the queue is full, lines are dropped.
const QUEUE_LINES_MAX: usize = 1024;
/// How often the thread checks whether held-back lines are due, while there are any.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last words wait for the lock of the limits.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

/// How long the end of the process waits for a writer that gets nothing done: nobody reads standard error. On a busy machine
/// the thread may not run for a second.
pub const END_PATIENCE: Duration = Duration::from_secs(5);
/// A writer that gets something done now and then is waited for this many times as long.
const PATIENCES_MAX: u32 = 6;
/// How often the wait for the writer looks at what it got done.
const WAIT_SLICE: Duration = Duration::from_millis(100);

/// The log of this process, for a thread that ends the process.
static OF_PROCESS: OnceLock<Arc<Shared>> = OnceLock::new();

/// Sets up logging for the whole process. Call it once.
pub fn init(settings: &Log, on_start: fn()) -> anyhow::Result<(OwnLog, Levels)> {
    let log = OwnLog::new(settings.format, std::io::stderr(), on_start)?;
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let layer = EventLayer { shared: Arc::clone(&log.shared) }.with_filter(filter);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .context("setting up the agent's own log")?;
    let _ = OF_PROCESS.set(Arc::clone(&log.shared));
    Ok((log, Levels(handle)))
}

/// Logs why the process ends, from any thread and at once: after the lines that were held back, and even if the queue
/// is full.
pub fn last_words(words: &str, patience: Duration) {
    match OF_PROCESS.get() {
        Some(shared) => shared.end_with(LogLine::note(words.to_owned()), Instant::now() + patience),
        // The config that says how to log is not read yet.
        None => drop(writeln!(std::io::stderr(), "capturer: {words}")),
    }
}

/// Changes the level of the log while it is in use.
#[derive(Clone)]
pub struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    /// Uses this level from now on.
    pub fn set(&self, level: LogLevel) {
        // The subscriber lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

/// Libraries log only what is wrong: their debug lines are not about captured logs.
fn filter(of: LogLevel) -> Targets {
    let level = level(of);
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("capturer", level)
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// The log of this process.
pub struct OwnLog {
    shared: Arc<Shared>,
}

struct Shared {
    format: LogFormat,
    started: Instant,
    limits: Mutex<Limits>,
    queue: SyncSender<Message>,
    dropped: AtomicU64,
    /// Messages that the writing thread is done with.
    done: Arc<AtomicU64>,
}

/// Decides what is written at once, later, or never.
#[derive(Default)]
struct Limits {
    gatherer: Gatherer,
    limiter: Limiter,
}

impl Limits {
    /// What is due of the held-back lines: one line per cause, and how often each place was silenced.
    fn due(&mut self, now_ms: u64) -> (Vec<LogLine>, Vec<(String, u64)>) {
        (self.gatherer.due(now_ms), self.limiter.due(now_ms))
    }

    fn is_holding(&self) -> bool {
        self.gatherer.is_holding() || self.limiter.is_holding()
    }
}

enum Message {
    Line(String),
    /// Something is held back, which must be written even if nothing else is ever logged.
    Holding,
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl OwnLog {
    fn new(
        format: LogFormat,
        writer: impl Write + Send + 'static,
        on_start: fn(),
    ) -> std::io::Result<OwnLog> {
        let (queue, messages) = sync_channel(QUEUE_LINES_MAX);
        let (started, limits) = (Instant::now(), Mutex::default());
        let done = Arc::<AtomicU64>::default();
        let of_thread = Arc::clone(&done);
        let shared = Arc::new(Shared { format, started, limits, queue, dropped: AtomicU64::new(0), done });
        // Weak: the subscriber, and with it the queue, lives for ever.
        let (done, of_thread) = (of_thread, Arc::downgrade(&shared));
        std::thread::Builder::new().name(LOG_THREAD.to_owned()).spawn(move || {
            on_start();
            write_all(&messages, writer, &of_thread, &done);
        })?;
        Ok(OwnLog { shared })
    }

    /// Writes what is held back, and waits until all lines are written. Gives up when the writer got nothing done for
    /// `patience`. Returns whether all are written. Call it last.
    pub fn flush(&self, patience: Duration) -> bool {
        let mut writer = Writer::new(&self.shared.done, patience, patience * PATIENCES_MAX);
        self.shared.tell_all(&mut writer) && self.shared.flush(&mut writer)
    }
}

/// Writes until the log is dropped.
fn write_all(messages: &Receiver<Message>, mut writer: impl Write, shared: &Weak<Shared>, done: &AtomicU64) {
    let mut is_holding = false;
    loop {
        let message = if is_holding {
            messages.recv_timeout(LOOK_EVERY)
        } else {
            messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        #[cfg(feature = "test-faults")]
        crate::faults::here();
        match message {
            // A failure to write to standard error can't be reported anywhere. A full queue can't take the message that
            // something is held back, so every line is a reason to check.
            Ok(Message::Line(line)) => {
                drop(writer.write_all(line.as_bytes()));
                is_holding = true;
            }
            Ok(Message::Holding) => is_holding = true,
            Err(RecvTimeoutError::Timeout) => {
                // This thread must not wait for the limits: a thread that ends the process may hold them for ever.
                is_holding = shared.upgrade().is_some_and(|shared| shared.report_if_free());
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Message::Flush(answer)) => {
                let _ = writer.flush();
                let _ = answer.try_send(());
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The writing thread, for somebody who waits for it.
struct Writer<'a> {
    done: &'a AtomicU64,
    seen: u64,
    since: Instant,
    patience: Duration,
    until: Instant,
}

impl<'a> Writer<'a> {
    fn new(done: &'a AtomicU64, patience: Duration, in_all: Duration) -> Writer<'a> {
        let (seen, since) = (done.load(Ordering::Relaxed), Instant::now());
        Writer { done, seen, since, patience, until: since + in_all }
    }

    /// Whether it is no use to wait on.
    fn has_stopped(&mut self) -> bool {
        let (now, done) = (Instant::now(), self.done.load(Ordering::Relaxed));
        if done != self.seen {
            (self.seen, self.since) = (done, now);
        }
        now >= self.until || now.duration_since(self.since) >= self.patience
    }
}

impl Shared {
    /// Waits until all lines are written; returns whether they are.
    fn flush(&self, writer: &mut Writer<'_>) -> bool {
        let (answer, answered) = sync_channel(1);
        if !self.put(Message::Flush(answer), writer) {
            return false;
        }
        loop {
            match answered.recv_timeout(WAIT_SLICE.min(writer.patience)) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) if !writer.has_stopped() => {}
                Err(_) => return false,
            }
        }
    }

    /// Puts everything that is held back into the queue, and waits for room.
    fn tell_all(&self, writer: &mut Writer<'_>) -> bool {
        let (gathered, suppressed) = self.limits().due(u64::MAX);
        let suppressed = suppressed.into_iter().map(|(message, count)| suppressed_line(&message, count));
        let lines: Vec<LogLine> = gathered.into_iter().chain(suppressed).collect();
        let mut put =
            |line: &LogLine| self.put(Message::Line(line.render(self.format, SystemTime::now())), writer);
        let all = lines.iter().all(&mut put);
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if !all || dropped > 0 && !put(&dropped_line(dropped)) {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Waits for room; returns whether there was any.
    fn put(&self, mut message: Message, writer: &mut Writer<'_>) -> bool {
        while let Err(TrySendError::Full(unsent)) = self.queue.try_send(message) {
            if writer.has_stopped() {
                return false;
            }
            message = unsent;
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn send(&self, line: LogLine) {
        let queue = |line: &LogLine| {
            self.queue.try_send(Message::Line(line.render(self.format, SystemTime::now()))).is_ok()
        };
        if !queue(&line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 && !queue(&dropped_line(dropped)) {
            // Reported when there is room again.
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn report_suppressed(&self, now_ms: u64) {
        let due = self.limits().due(now_ms);
        self.tell(due);
    }

    /// Reports what is due; returns whether something is still held back.
    fn report_if_free(&self) -> bool {
        let now_ms = self.now_ms();
        let Some((due, is_holding)) =
            self.with_free_limits(|limits| (limits.due(now_ms), limits.is_holding()))
        else {
            return true;
        };
        self.tell(due);
        is_holding
    }

    /// `None` = another thread holds the limits.
    fn with_free_limits<T>(&self, use_them: impl FnOnce(&mut Limits) -> T) -> Option<T> {
        match self.limits.try_lock() {
            Ok(mut limits) => Some(use_them(&mut limits)),
            Err(TryLockError::Poisoned(limits)) => Some(use_them(&mut limits.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Writes everything held back and then a last line, for a thread that ends the process. A thread that panicked may
    /// hold the limits for ever.
    fn end_with(&self, line: LogLine, deadline: Instant) {
        let began = Instant::now();
        while began.elapsed() < LOCK_PATIENCE {
            if let Some(due) = self.with_free_limits(|limits| limits.due(u64::MAX)) {
                self.tell(due);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut writer = Writer::new(&self.done, left, left);
        self.put(Message::Line(line.render(self.format, SystemTime::now())), &mut writer);
        self.flush(&mut writer);
    }

    /// If the queue is full, the lines in it are the reason to check.
    fn say_holding(&self) {
        let _ = self.queue.try_send(Message::Holding);
    }

    fn tell(&self, (gathered, suppressed): (Vec<LogLine>, Vec<(String, u64)>)) {
        gathered.into_iter().for_each(|line| self.send(line));
        for (message, count) in suppressed {
            self.send(suppressed_line(&message, count));
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, event: &Event) {
        let now_ms = self.now_ms();
        self.report_suppressed(now_ms);
        let metadata = event.metadata();
        // Lines of lower levels are written one by one: whoever turned them on is looking for them.
        let may_be_of_source = *metadata.level() <= Level::INFO
            && WHO.iter().any(|name| metadata.fields().field(name).is_some());
        let line = may_be_of_source.then(|| LogLine::of(event));
        let verdict = {
            let mut limits = self.limits();
            let was_holding = limits.is_holding();
            let place = metadata.callsite();
            if line.as_ref().is_some_and(|line| limits.gatherer.holds(place.clone(), line, now_ms)) {
                if !was_holding {
                    self.say_holding();
                }
                return;
            }
            limits.limiter.admit(place, now_ms)
        };
        let line = || line.unwrap_or_else(|| LogLine::of(event));
        match verdict {
            Admission::Admit => self.send(line()),
            Admission::Remember => {
                let message = line().message;
                self.limits().limiter.remember(metadata.callsite(), message);
                self.say_holding();
            }
            Admission::Suppress => {}
        }
    }
}

fn suppressed_line(message: &str, count: u64) -> LogLine {
    LogLine::note(format!("… {count} more suppressed: {message}"))
}

fn dropped_line(count: u64) -> LogLine {
    LogLine::note(format!(
        "{} {} dropped: standard error was not read",
        counted(count, "log line"),
        which(count, "was", "were")
    ))
}

struct EventLayer {
    shared: Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event, _: Context<S>) {
        self.shared.log(event);
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("output").clone()).expect("UTF-8")
        }

        fn wait_for(&self, text: &str) {
            let begun = Instant::now();
            while !self.text().contains(text) {
                assert!(begun.elapsed() < Duration::from_secs(120), "{}", self.text());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("output").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn start(format: LogFormat) -> (Output, OwnLog) {
        let output = Output::default();
        let log = OwnLog::new(format, output.clone(), || ()).expect("thread");
        (output, log)
    }

    impl OwnLog {
        /// Takes what `events` log.
        fn take(&self, events: impl FnOnce()) {
            let layer = EventLayer { shared: Arc::clone(&self.shared) };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        }

        /// Takes a line that is written at once and one that is kept back.
        fn take_two_of_one_cause(&self) {
            self.take(|| {
                for name in ["a", "b"] {
                    tracing::warn!(container = name, "can't be read");
                }
            });
        }
    }

    /// The line for both of them.
    const TWO_OF_ONE_CAUSE: &str = "2 sources within 10 s (a, b): can't be read";

    /// What a run of `events` writes, without the times.
    fn written(format: LogFormat, events: impl FnOnce()) -> String {
        let (output, log) = start(format);
        log.take(events);
        log.flush(Duration::from_secs(5));
        output.text()
    }

    #[test]
    fn a_repeated_message_is_limited_and_the_rest_counted() {
        let text = written(LogFormat::Text, || {
            for index in 0..1000 {
                tracing::warn!(index, "the same trouble");
            }
            tracing::info!("another place has its own budget");
        });
        assert_eq!(text.lines().count() as u64, limit::BUDGET + 2, "{text}");
        assert!(text.contains("another place"), "{text}");
        let last = text.lines().last().expect("lines");
        assert!(
            last.ends_with(&format!("… {} more suppressed: the same trouble", 1000 - limit::BUDGET)),
            "{last}"
        );
    }

    /// The log of a host whose Docker directory became unreadable must show the cause, not a wall of lines.
    #[test]
    fn one_cause_of_two_hundred_sources_is_one_line() {
        let text = written(LogFormat::Text, || {
            for number in 0..200 {
                let (name, path) = (format!("web-{number}"), format!("/c/{number}/json.log"));
                tracing::warn!(container = %name, path, error = "open_failed", "{path} can't be opened: denied; give it the right");
                tracing::warn!(container = "lonely", path = "", error = "other", "something else");
                tracing::debug!(container = %name, "looked at");
            }
        });
        let told: Vec<&str> = text.lines().filter(|line| line.contains("can't be opened")).collect();
        assert_eq!(told.len(), 2, "{text}");
        assert!(
            told[0].contains("WARN  /c/0/json.log can't be opened") && told[0].contains("container=web-0")
        );
        assert!(
            told[1].ends_with(
                "WARN  200 sources within 10 s (web-0, web-1, web-2 and 197 others): … can't be opened: denied; give it the \
                 right error=open_failed"
            ),
            "{text}"
        );
        assert!(
            text.contains("WARN  lonely 199 more times within 10 s: something else error=other\n"),
            "{text}"
        );
        assert!(text.matches("looked at").count() as u64 >= limit::BUDGET, "{text}");
    }

    /// Even if nothing is ever logged again.
    #[test]
    fn a_place_that_was_silenced_is_told_by_itself() {
        let (output, log) = start(LogFormat::Text);
        log.take(|| {
            for _ in 0..limit::BUDGET + 5 {
                tracing::warn!("the same trouble");
            }
        });
        output.wait_for("… 5 more suppressed: the same trouble");
    }

    /// Even if nothing is ever logged again.
    #[test]
    fn what_is_kept_back_is_told_by_itself() {
        let (output, log) = start(LogFormat::Text);
        log.take_two_of_one_cause();
        output.wait_for(TWO_OF_ONE_CAUSE);
    }

    /// A container's name must neither add a line to our log nor control the terminal.
    #[test]
    fn hostile_text_stays_within_its_line() {
        let name = "web\nERROR forged\x1b[2J\u{9b}31m";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = written(format, || tracing::info!(container = %name, "found {name}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        }
    }

    /// Without the queue, a log pipe that nobody reads would stop the capture loop.
    #[test]
    fn a_stuck_standard_error_stops_nobody() {
        let (stuck, log) = stuck_log();
        assert!(log.shared.dropped.load(Ordering::Relaxed) >= 49);
        assert!(!log.flush(Duration::from_millis(20)), "nobody reads");
        stuck.open();
        assert!(log.flush(Duration::from_secs(60)));
        assert!(stuck.output.text().ends_with("dropped: standard error was not read\n"));
    }

    /// The process once waited a second for its last lines, whatever their number and however busy the machine.
    #[test]
    fn the_end_waits_for_a_slow_writer_as_long_as_it_writes() {
        let slow = Slow::default();
        let log = OwnLog::new(LogFormat::Text, slow.clone(), || ()).expect("thread");
        for _ in 0..20 {
            log.shared.send(LogLine::note("x".to_owned()));
        }
        log.take_two_of_one_cause();
        // 20 lines of 20 ms each are longer than the patience of 200 ms for one of them.
        assert!(log.flush(Duration::from_millis(200)), "{}", slow.0.text());
        let text = slow.0.text();
        assert_eq!(text.lines().count(), 22, "{text}");
        assert!(text.contains(TWO_OF_ONE_CAUSE), "{text}");
    }

    #[derive(Clone, Default)]
    struct Slow(Output);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            self.0.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The queue has no room for the message that something is held back.
    #[test]
    fn what_is_kept_back_behind_a_full_queue_is_told_by_itself() {
        let (stuck, log) = stuck_log();
        log.take_two_of_one_cause();
        stuck.open();
        stuck.output.wait_for(TWO_OF_ONE_CAUSE);
    }

    /// Held-back lines come before the last words, even if the thread that panicked held the limits.
    #[test]
    fn the_last_words_come_last() {
        for is_locked in [false, true] {
            let (output, log) = start(LogFormat::Text);
            log.take_two_of_one_cause();
            let guard = is_locked.then(|| log.shared.limits());
            log.shared.write_last("a bug".to_owned());
            // On a busy machine its time may be up first.
            output.wait_for("ERROR a bug");
            drop(guard);
            let text = output.text();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), if is_locked { 2 } else { 3 }, "{text}");
            assert_eq!(is_locked, !text.contains(TWO_OF_ONE_CAUSE), "{text}");
            assert!(lines.last().is_some_and(|last| last.ends_with("ERROR a bug")), "{text}");
        }
    }

    /// A log whose standard error takes nothing and whose queue is full.
    fn stuck_log() -> (Stuck, OwnLog) {
        let stuck = Stuck::default();
        let log = OwnLog::new(LogFormat::Text, stuck.clone(), || ()).expect("thread");
        for _ in 0..QUEUE_LINES_MAX + 50 {
            log.shared.send(LogLine::note("x".to_owned()));
        }
        (stuck, log)
    }

    /// Takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Stuck {
        gate: Arc<(Mutex<bool>, Condvar)>,
        output: Output,
    }

    impl Stuck {
        fn open(&self) {
            *self.gate.0.lock().expect("gate") = true;
            self.gate.1.notify_all();
        }
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let open = self.gate.0.lock().expect("gate");
            drop(self.gate.1.wait_while(open, |open| !*open).expect("gate"));
            self.output.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
