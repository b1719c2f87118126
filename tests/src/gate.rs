//! Writers in containers that wait for the agent, so that a test of rotation under load means the same on a machine
//! where the agent gets little time: otherwise it would show how much a log of a few files can hold, and fail by
//! chance.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::agent::Home;
use crate::wait::pass;

/// How often the agent's progress is checked.
const LOOK: Duration = Duration::from_millis(10);

/// A door that scripts in containers wait at: `: < /shared/NAME`. Nobody asks again and again, which would cost a process each
/// time: opening a named pipe waits until somebody writes to it.
pub struct Door {
    path: PathBuf,
    /// A reader that comes later passes, too.
    writer: Option<File>,
}

impl Door {
    /// A closed one.
    pub fn new(path: PathBuf) -> Result<Door> {
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
        Ok(Door { path, writer: None })
    }

    /// Lets all through, until it is dropped.
    pub fn open(&mut self) -> Result<()> {
        // Open for reading as well: it waits for no reader.
        self.writer = Some(File::options().read(true).write(true).open(&self.path)?);
        Ok(())
    }
}

/// A folder with a file for each container: up to which line it may print.
pub struct Gate(tempfile::TempDir);

impl Gate {
    /// One that lets nobody through before [`Gate::keep`].
    pub fn new() -> Result<Gate> {
        Ok(Gate(tempfile::Builder::new().prefix("capturer-test-gate-").tempdir()?))
    }

    /// For [`RunSpec::argument`](crate::engine::RunSpec::argument).
    pub fn volume(&self) -> String {
        format!("--volume={}:/gate:ro", self.0.path().display())
    }

    /// A script that prints lines which end in 1, 2, …, 200 at a time, some 2,000 a second.
    pub fn script(&self, name: &str, lines: u64) -> String {
        format!(
            "a=1; n=0; while [ $a -le {lines} ]; do \
             until [ $a -le $n ]; do [ -e /gate/{name} ] && read n < /gate/{name}; [ $a -le $n ] || sleep 0.02; done; \
             z=$((a+199)); seq $a $z | sed 's/^/line of some length /'; a=$((z+1)); sleep 0.1; done"
        )
    }

    /// While `work` is done, each container may be so many lines ahead of what was delivered of it.
    pub fn keep<T>(&self, home: &Home, leads: &[(&str, u64)], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (name, lead) in leads {
                let (file, ended) = (self.0.path().join(name), &ended);
                let mut output = Output { path: home.output_of(name), read: 0, lines: 0 };
                let mut told = None;
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        // What can't be read is not there yet.
                        let _ = output.read_on();
                        let most = output.lines + lead;
                        if told != Some(most) && replace(&file, &format!("{most}\n")).is_ok() {
                            told = Some(most);
                        }
                        pass(LOOK);
                    }
                });
            }
            // Also when it panics, or the threads would be waited for for ever.
            let _ends = Ends(&ended);
            work()
        })
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Never seen half written.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, file)
}

struct Output {
    path: PathBuf,
    read: u64,
    lines: u64,
}

impl Output {
    fn read_on(&mut self) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += file.read_to_end(&mut bytes)? as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(())
    }
}
