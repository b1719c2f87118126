//! A panic of any thread ends the process, with one line that names the thread and the place, and exit code 70.
//!
//! A thread that panics leaves its work undone for ever, while all others continue and health says that all is well. So
//! systemd, or whoever runs it, starts the process again, and it resumes from the saved positions.
//!
//! Standard error may be a full pipe, and the thread that panicked may be the one that writes the log. So another
//! thread writes the last line, and the process ends after [`PATIENCE`] whether the line was written or not.

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, SystemTime};

use super::line::LogLine;
use super::{LOG_THREAD, OwnLog, Shared};

/// How the process ends (EX_SOFTWARE).
const EXIT_CODE: i32 = 70;
/// How long to wait for the last line and those before it to be written.
const PATIENCE: Duration = Duration::from_secs(1);

impl OwnLog {
    /// From now on a panic ends the process. Code that may fail must return errors instead.
    pub fn end_process_on_panic(&self) {
        let shared = Arc::clone(&self.shared);
        std::panic::set_hook(Box::new(move |panic| {
            shared.write_last(last_words(panic));
            std::process::exit(EXIT_CODE);
        }));
    }
}

impl Shared {
    pub(super) fn write_last(self: &Arc<Self>, words: String) {
        let line = LogLine::error(words);
        let on_log_thread = std::thread::current().name() == Some(LOG_THREAD);
        let (done, is_done) = sync_channel(1);
        let shared = Arc::clone(self);
        let write = move || {
            if on_log_thread {
                // Held-back lines are lost with the queue, because nobody takes from it any more.
                let text = line.render(shared.format, SystemTime::now());
                let _ = std::io::stderr().write_all(text.as_bytes());
            } else {
                shared.end_with(line, Instant::now() + PATIENCE);
            }
            let _ = done.send(());
        };
        // Without a thread to write the line, the exit code has to be enough.
        if std::thread::Builder::new().name("last-words".to_owned()).spawn(write).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

fn last_words(panic: &PanicHookInfo) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name").to_owned();
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    format!(
        "a bug in the agent: thread {thread} panicked at {place}: {message}. The process ends with {EXIT_CODE}; the next \
         start resumes from the saved positions. Please report it"
    )
}
