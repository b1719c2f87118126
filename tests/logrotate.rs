//! Real logrotate, in its modes, forced round after round while the agent is up, down, stopped or killed: every line
//! arrives once, in order, and no loss is declared.
//!
//! `CAPTURER_LOGROTATE_ROUNDS=200` for a long run. Every round is a day later (by libfaketime), for `dateext` rotates once a
//! day and no more. What is left out: modes whose result the agent does not read (`compresscmd` other than gzip), and lines
//! written between copytruncate's copy and its truncation, which logrotate itself loses.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::amount::number;
use capturer_tests::walk::watched::{Watched, While};

/// Rounds of a usual run.
const ROUNDS: u64 = 8;
/// Modes at a time. They mostly wait, but there is a bound on memory that all rings of a user may lock.
const SIDE_BY_SIDE: usize = 8;

/// A way to use logrotate.
struct Mode {
    name: &'static str,
    config: &'static str,
    /// The pattern that the agent follows.
    paths: &'static [&'static str],
    /// The writer reopens its file only some lines after the rename.
    late: bool,
    /// Files are moved to a place that the agent does not watch, perhaps while it is down: it can't know whether it
    /// missed something, so it may report a possible loss.
    is_doubtful: bool,
    /// How many rounds may pass before the agent has read everything. With 0, everything must be read before files are
    /// rotated.
    behind: u64,
}

const MODE: Mode =
    Mode { name: "", config: "", paths: &["app.log"], late: true, is_doubtful: false, behind: 3 };

const MODES: &[Mode] = &[
    Mode { name: "create", config: "rotate 4\ncreate", ..MODE },
    Mode { name: "nocreate", config: "rotate 4\nnocreate", ..MODE },
    Mode { name: "matched", config: "rotate 4\ncreate", paths: &["*.log*"], ..MODE },
    Mode { name: "copytruncate", config: "rotate 4\ncopytruncate", late: false, ..MODE },
    Mode {
        name: "copytruncate, matched",
        config: "rotate 4\ncopytruncate",
        late: false,
        paths: &["*"],
        ..MODE
    },
    Mode { name: "copy", config: "rotate 4\ncopy", late: false, ..MODE },
    Mode { name: "renamecopy", config: "rotate 4\nrenamecopy\ncreate", late: false, behind: 0, ..MODE },
    Mode { name: "dateext", config: "rotate 4\ncreate\ndateext", ..MODE },
    Mode { name: "dateext, matched", config: "rotate 4\ncreate\ndateext", paths: &["app.log*"], ..MODE },
    Mode { name: "dateformat -%Y-%m-%d", config: "rotate 4\ncreate\ndateext\ndateformat -%Y-%m-%d", ..MODE },
    Mode { name: "dateformat -%Y%m%d%H", config: "rotate 4\ncreate\ndateext\ndateformat -%Y%m%d%H", ..MODE },
    Mode {
        name: "dateformat .%Y-%m-%d",
        config: "rotate 4\ncreate\ndateext\ndateformat .%Y-%m-%d",
        paths: &["*.log*"],
        ..MODE
    },
    Mode { name: "compress", config: "rotate 4\ncreate\ncompress", late: false, ..MODE },
    Mode { name: "delaycompress", config: "rotate 4\ncreate\ncompress\ndelaycompress", ..MODE },
    Mode {
        name: "delaycompress, matched",
        config: "rotate 4\ncreate\ncompress\ndelaycompress",
        paths: &["*"],
        ..MODE
    },
    Mode { name: "copytruncate compress", config: "rotate 4\ncopytruncate\ncompress", late: false, ..MODE },
    Mode { name: "dateext compress", config: "rotate 4\ncreate\ndateext\ncompress\ndelaycompress", ..MODE },
    // A kill within a tenth of a second after a rotation, and another rotation: the file of the saved position is gone.
    Mode { name: "rotate 1", config: "rotate 1\ncreate", is_doubtful: true, behind: 0, ..MODE },
    Mode {
        name: "rotate 1 copytruncate",
        config: "rotate 1\ncopytruncate",
        late: false,
        is_doubtful: true,
        behind: 0,
        ..MODE
    },
    // What is removed at once must have been read before.
    Mode { name: "rotate 0", config: "rotate 0\ncreate", late: false, is_doubtful: true, behind: 0, ..MODE },
    Mode {
        name: "rotate 0 copytruncate",
        config: "rotate 0\ncopytruncate",
        late: false,
        is_doubtful: true,
        behind: 0,
        ..MODE
    },
    Mode {
        name: "olddir",
        config: "rotate 4\ncreate\nolddir old",
        late: false,
        is_doubtful: true,
        behind: 0,
        ..MODE
    },
    Mode {
        name: "olddir, matched",
        config: "rotate 4\ncreate\nolddir old",
        paths: &["app.log", "old/app.log*"],
        ..MODE
    },
    Mode {
        name: "olddir compress, matched",
        config: "rotate 4\ncreate\ncompress\nolddir old",
        paths: &["app.log", "old/app.log*"],
        late: false,
        ..MODE
    },
    Mode {
        name: "olddir dateext delaycompress, matched",
        config: "rotate 4\ncreate\ncompress\ndelaycompress\ndateext\nolddir old",
        paths: &["**"],
        late: false,
        ..MODE
    },
    Mode {
        name: "olddir copytruncate compress, matched",
        config: "rotate 4\ncopytruncate\ncompress\nolddir old",
        paths: &["app.log", "old/app.log*"],
        late: false,
        ..MODE
    },
    Mode { name: "extension .log", config: "rotate 4\ncreate\nextension .log", paths: &["*.log"], ..MODE },
    Mode {
        name: "sharedscripts",
        config: "rotate 4\ncreate\nsharedscripts\npostrotate\ntrue\nendscript",
        ..MODE
    },
];

#[test]
fn each_line_comes_once_in_every_mode() -> Result<()> {
    let rounds = number("CAPTURER_LOGROTATE_ROUNDS", ROUNDS)?;
    let only = std::env::var("CAPTURER_LOGROTATE_MODE").unwrap_or_default();
    let modes = MODES.iter().filter(|mode| only.is_empty() || mode.name == only);
    let modes: Vec<&Mode> = modes.collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(mode) = modes.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = run(mode, rounds) {
                failures.push(format!("== {}: {error:#}", mode.name));
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.flatten().collect()
    });
    ensure!(failures.is_empty(), "{} modes failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn run(mode: &Mode, rounds: u64) -> Result<()> {
    let mut watched = Watched::start(mode.paths)?;
    let mut log = Log::new(&watched, mode)?;
    for round in 0..rounds {
        log.print(5, "")?;
        if mode.behind == 0 || round % mode.behind == 0 {
            watched.wait_for(&log.lines)?;
        }
        let state = While::ALL[(round % 4) as usize];
        let in_round = || format!("round {round}, {state:?}");
        watched
            .while_it_is(state, || {
                if mode.behind > 0 {
                    log.print(2, "")?;
                }
                log.rotate(round)?;
                if mode.late {
                    log.print(2, "late ")?;
                }
                log.reopen()?;
                log.print(3, "")
            })
            .with_context(in_round)?;
    }
    watched.finish(&log.lines, |line| line.starts_with("late "), mode.is_doubtful)
}

/// A log, its writer, and how it is rotated.
struct Log {
    path: PathBuf,
    config: PathBuf,
    state: PathBuf,
    open: File,
    lines: Vec<String>,
}

impl Log {
    fn new(watched: &Watched, mode: &Mode) -> Result<Log> {
        let path = watched.logs().join("app.log");
        fs::create_dir_all(watched.logs().join("old"))?;
        let config = watched.path().join("logrotate.conf");
        // As Debian's own: in root's folder, which logrotate insists on. Missing files are no error after `nocreate`.
        let text =
            format!("{} {{\nsu root root\nmissingok\ndaily\nnoshred\n{}\n}}\n", path.display(), mode.config);
        fs::write(&config, text)?;
        let open = append_to(&path)?;
        Ok(Log { path, config, state: watched.path().join("logrotate.state"), open, lines: Vec::new() })
    }

    fn print(&mut self, lines: usize, mark: &str) -> Result<()> {
        for _ in 0..lines {
            let line = format!("{mark}line {:07} of a program that logs", self.lines.len());
            self.open.write_all((line.clone() + "\n").as_bytes())?;
            self.lines.push(line);
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<()> {
        self.open = append_to(&self.path)?;
        Ok(())
    }

    fn rotate(&self, round: u64) -> Result<()> {
        let output = Command::new("faketime")
            .arg(format!("2026-12-01 10:00:00 UTC +{round} days"))
            .args(["logrotate", "--force", "--state"])
            .args([&self.state, &self.config])
            // Files keep their real times: what is not told by names is told by them.
            .env("NO_FAKE_STAT", "1")
            .output()
            .context("running faketime and logrotate; cargo xtask test tools installs them")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("error"), "logrotate: {} {said}", output.status);
        Ok(())
    }
}

fn append_to(path: &PathBuf) -> Result<File> {
    Ok(File::options().create(true).append(true).open(path)?)
}
