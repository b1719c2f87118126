//! Faults made on purpose, to see that the leak detector names them and that a panic of any thread ends the process.
//! Only with the cargo feature `test-faults`, which no build for users has; tests/witness.rs runs
//! `capturer-with-faults`.
//!
//! The file named by `CAPTURER_FAULTS` says in words which faults are on; it is read once a second. A fault that is
//! no longer on lets go of what it holds.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static FAULTS: RefCell<Faults> = RefCell::default();
}

#[derive(Default)]
struct Faults {
    words: String,
    forgotten: Vec<Rc<dyn Any>>,
    task: Option<tokio::task::JoinHandle<()>>,
    /// A connection's closing is being held up.
    holds: bool,
}

/// Once a second: reads which faults are on.
pub fn turn() {
    here();
    let words = words();
    FAULTS.with_borrow_mut(|faults| {
        if !words.contains("forget-descriptor") {
            faults.forgotten.clear();
        }
        if words.contains("endless-task") {
            faults.task.get_or_insert_with(|| tokio::spawn(std::future::pending()));
        } else if let Some(task) = faults.task.take() {
            task.abort();
        }
        faults.words = words;
    });
}

/// Called in each turn of a long-lived thread: `panic:NAME` makes the thread of that name panic, `panic:NAME*` any
/// whose name begins so.
pub fn here() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let planted = |word: &str| match word.strip_prefix("panic:")?.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning).then_some(()),
        None => (word == format!("panic:{name}")).then_some(()),
    };
    if words().split_whitespace().any(|word| planted(word).is_some()) {
        panic!("planted in {name}");
    }
}

fn words() -> String {
    let path = std::env::var_os("CAPTURER_FAULTS");
    path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

/// A step of a start: `hold-start` holds it up, as a disk does that does not answer.
pub fn start() {
    while words().contains("hold-start") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A connection is about to be closed: `forget-descriptor` keeps the first one's descriptor.
pub fn on_close(connection: Rc<dyn Any>) {
    FAULTS.with_borrow_mut(|faults| {
        if faults.words.contains("forget-descriptor") && faults.forgotten.is_empty() {
            faults.forgotten.push(connection);
        }
    });
}

/// A connection is being closed: `hold-close` holds the first one up, as a kernel would that does not end its receive.
pub async fn closing() {
    let is_on = || FAULTS.with_borrow(|faults| faults.words.contains("hold-close"));
    if !is_on() || FAULTS.with_borrow_mut(|faults| std::mem::replace(&mut faults.holds, true)) {
        return;
    }
    while is_on() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    FAULTS.with_borrow_mut(|faults| faults.holds = false);
}
