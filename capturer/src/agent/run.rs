//! Opens what a run works with, so that errors show before the first event: positions, inotify and the threads of
//! files, sinks. If a later step fails, whatever was opened is closed again, because another run may be opened in its
//! place.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::turn::{ActiveRun, LOOK_MS, unix_ns};
use crate::capture::checkpoint::Checkpoint;
use crate::capture::core::Capture;
use crate::capture::core::outlets::SinkFacts;
use crate::capture::discover::OwnContainer;
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::model::delivery::FromSink;
use crate::model::record::{OutputMark, SinkId};
use crate::settings::{LocalFile, Settings};
use crate::shell::checkpoint::kept::DataDir;
use crate::shell::checkpoint::store;
use crate::shell::files;
use crate::shell::files::Files;
use crate::shell::files::mounts::Mounts;
use crate::shell::{Shell, descriptors};
use crate::sink::apart::{Apart, FileSystem};
use crate::sink::local_file::LocalFileSink;
use crate::sink::loki::{self, LokiSink};
use crate::sink::stdout::StdoutSink;
use crate::sink::{self, Sink, SinkHandle};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;

/// A message from another thread of the run.
pub(super) enum FromThread {
    Files(files::FilesAnswer),
    Sink(FromSink),
}

/// An opened run that has no loop yet.
pub(super) struct Run {
    pub settings: Arc<Settings>,
    pub capture: Capture,
    sinks: Vec<(String, SinkHandle)>,
    files: Files,
    inotify: Option<Arc<Claimed<OwnedFd>>>,
    inbox: UnboundedReceiver<FromThread>,
}

impl Run {
    /// Opens a run on the positions that the last one left.
    ///
    /// # Errors
    /// What was tried, why it failed, what to do. Then nothing of the run stays open.
    pub fn open(
        settings: Arc<Settings>,
        data_dir: &Arc<DataDir>,
        status: &Arc<Status>,
        metrics: &Arc<Metrics>,
        claims: &Claims,
    ) -> anyhow::Result<Run> {
        let mut loaded = store::load(&settings.data_dir).context("loading the checkpoint")?;
        tell_damage(status, &std::mem::take(&mut loaded.notes));
        let (sender, inbox) = unbounded_channel();
        let inotify = open_inotify().map(|fd| Arc::new(claims.hold(fd, Owner::Discovery)));
        let answer = sender.clone();
        let held = Some(Arc::clone(data_dir));
        let files = Files::start(inotify.clone(), &settings, held, claims.clone(), move |from| {
            drop(answer.send(FromThread::Files(from)))
        })
        .context("starting the files threads")?;
        let (sinks, facts) = open_sinks(&settings, &mut loaded.checkpoint, status, metrics, claims, &sender)?;
        let seed = u64::from(std::process::id()) ^ unix_ns() as u64;
        let mut capture =
            Capture::new(Arc::clone(&settings), Arc::clone(metrics), facts, loaded.checkpoint, seed);
        capture.leave_out(own_container());
        capture.limit_open_files(descriptors::for_files());
        Ok(Run { settings, capture, sinks, files, inotify, inbox })
    }

    /// Gives the run its loop.
    ///
    /// # Errors
    /// When a descriptor is not available.
    pub fn begin(self, claims: &Claims) -> std::io::Result<ActiveRun> {
        let Run { settings, capture, sinks, files, inotify, inbox } = self;
        let container = &settings.container_monitor;
        let shell = Shell::new(
            &container.socket_path,
            container.read_timeout,
            files,
            inotify,
            sinks.iter().map(|(_, sink)| sink.sender.clone()).collect(),
            settings.shutdown_timeout,
            claims.clone(),
        );
        // From here on the shell alone holds the sinks' senders.
        let threads = sinks.into_iter().map(|(name, sink)| (name, sink.thread)).collect();
        match shell {
            Ok(shell) => Ok(ActiveRun { settings, capture, shell, inbox, threads }),
            Err(error) => {
                threads.into_iter().for_each(|(_, thread): (String, std::thread::JoinHandle<()>)| {
                    drop(thread.join());
                });
                Err(error)
            }
        }
    }
}

pub(super) fn make_data_dir(settings: &Settings) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = &settings.data_dir;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::ReadOnlyFilesystem => {
                "its file system is read-only: mount it writable, or name another directory"
            }
            ErrorKind::AlreadyExists => {
                "a symbolic link that leads nowhere, or a file, stands there: name another directory"
            }
            ErrorKind::PermissionDenied => "run as a user who may create it, or name another directory",
            _ => "name another directory",
        };
        anyhow::Error::new(error)
            .context(format!("creating the data directory {}; {cure} with data_dir", dir.display()))
    })
}

/// The container that this process runs in, if any.
fn own_container() -> OwnContainer {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    OwnContainer::new(&mountinfo, &host_name)
}

/// One inotify instance for all directories: dockerd uses one of root's few instances for each follow.
fn open_inotify() -> Option<OwnedFd> {
    match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
        Ok(inotify) => Some(inotify),
        Err(errno) => {
            tracing::warn!(
                "inotify is not available ({errno}): files are looked at every {} s instead; raise fs.inotify.max_user_instances",
                LOOK_MS / 1000
            );
            None
        }
    }
}

type Opened = (Vec<(String, SinkHandle)>, Vec<SinkFacts>);

fn open_sinks(
    settings: &Settings,
    loaded: &mut Checkpoint,
    status: &Arc<Status>,
    metrics: &Arc<Metrics>,
    claims: &Claims,
    sender: &UnboundedSender<FromThread>,
) -> anyhow::Result<Opened> {
    let mut sinks: Vec<(Box<dyn Sink>, Option<Apart>)> = Vec::new();
    let made = make_sinks(settings, loaded, status, metrics, claims, &mut sinks);
    if let Err(error) = made {
        // Flushing ends the threads that some sinks have.
        sinks.iter_mut().for_each(|(sink, _)| drop(sink.flush()));
        return Err(error);
    }
    let mut handles: Vec<(String, SinkHandle)> = Vec::new();
    let mut facts = Vec::new();
    for (index, (made, apart)) in sinks.into_iter().enumerate() {
        let name = made.name().to_owned();
        let is_network = made.is_network();
        metrics.expect_sink(&name);
        metrics.expect_pipelines(&name, &settings.pipelines);
        let report = sender.clone();
        let report = Box::new(move |from| drop(report.send(FromThread::Sink(from))));
        let id = SinkId(index as u8);
        let handle = match sink::spawn(id, made, apart, report, Arc::clone(status), Arc::clone(metrics)) {
            Ok(handle) => handle,
            Err(error) => {
                for (_, SinkHandle { sender, thread, .. }) in handles {
                    drop(sender);
                    let _ = thread.join();
                }
                return Err(error).with_context(|| format!("starting the sink {name}"));
            }
        };
        // A file or standard output that could be opened accepts lines; without a container nothing else would show it.
        // A network sink reports its own state.
        if !is_network {
            status.sink_accepted(&name);
        }
        handles.push((name.clone(), handle));
        facts.push(SinkFacts { name, own_pace: is_network });
    }
    Ok((handles, facts))
}

fn make_sinks(
    settings: &Settings,
    loaded: &mut Checkpoint,
    status: &Arc<Status>,
    metrics: &Arc<Metrics>,
    claims: &Claims,
    sinks: &mut Vec<(Box<dyn Sink>, Option<Apart>)>,
) -> anyhow::Result<()> {
    if let Some(local) = &settings.sinks.local_file {
        let is_first = loaded.seq == 0;
        let (marks, there, apart) = apart(local, loaded.outputs.remove("local_file"), is_first, claims);
        let (sink, restored) =
            LocalFileSink::open(local, &marks, claims.clone()).context("sinks.local_file")?;
        for note in restored.notes {
            tracing::info!("local_file: {note}");
        }
        let marks = restored.marks.into_iter().chain(there).collect();
        loaded.outputs.insert("local_file".to_owned(), marks);
        let sink = sink.limit_open(descriptors::for_outputs()).without_checkpoint(is_first);
        sinks.push((Box::new(sink), Some(apart)));
    }
    if let Some(config) = &settings.sinks.loki {
        let had_lines = loaded.has_lines_for(loki::NAME);
        let place = (settings.data_dir.as_path(), had_lines);
        let sink = LokiSink::open(config, place, metrics, status, claims).context("sinks.loki")?;
        sinks.push((Box::new(sink), None));
    }
    if settings.sinks.stdout {
        let stdout = StdoutSink::new(settings.sinks.stdout_format, claims);
        sinks.push((Box::new(stdout.context("sinks.stdout")?), None));
    }
    Ok(())
}

/// Reports damage of the saved positions in the log and in health: whoever asks later why lines came twice does not see
/// a log line from the start.
fn tell_damage(status: &Status, notes: &[String]) {
    for note in notes {
        tracing::warn!("checkpoint: {note}");
    }
    if notes.is_empty() {
        status.forget_health("positions");
    } else {
        let text =
            format!("when this run began: {} (shown until the next start or reload)", notes.join(". "));
        status.set_note("positions", text);
    }
}

type Marks = BTreeMap<Arc<str>, OutputMark>;

/// Splits the marks into those of outputs on local disks and those on other file systems, with who writes the latter.
/// The threads of those file systems look at them, so that a start does not wait for one that hangs.
fn apart(local: &LocalFile, loaded: Option<Marks>, is_first: bool, claims: &Claims) -> (Marks, Marks, Apart) {
    let directory = std::path::absolute(&local.directory).unwrap_or_else(|_| local.directory.clone());
    let (mut mounts, beneath) = (Mounts::new(), directory.clone());
    let mut place_of = move |output: &str| {
        mounts.refresh();
        let at = beneath.join(output);
        let mount = mounts.on_the_way(at.parent().unwrap_or(&beneath))?;
        Some(FileSystem { id: mount.lane.0, what: mount.describe(), cure: mount.cure() })
    };
    let (mut here, mut there) = (Marks::new(), BTreeMap::<u64, Marks>::new());
    for (path, mark) in loaded.unwrap_or_default() {
        let marks = place_of(&path).map_or(&mut here, |place| there.entry(place.id).or_default());
        marks.insert(path, mark);
    }
    let all_there = there.values().flatten().map(|(path, mark)| (path.clone(), mark.clone())).collect();
    let (local, claims) = (local.clone(), claims.clone());
    let open = move |place: u64| {
        let none = Marks::new();
        let marks = there.get(&place).unwrap_or(&none);
        let (sink, restored) = LocalFileSink::open(&local, marks, claims.clone())?;
        for note in restored.notes {
            tracing::info!("local_file: {note}");
        }
        let sink = sink.limit_open(descriptors::for_outputs()).without_checkpoint(is_first);
        Ok(Box::new(sink) as Box<dyn Sink>)
    };
    (here, all_there, Apart { directory, place_of: Box::new(place_of), open: Arc::new(open) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads health only later must still learn why lines came twice.
    #[test]
    fn health_has_a_note_of_damaged_positions_until_the_next_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let status = Status::default();
        for name in ["checkpoint.json", "checkpoint.json.previous"] {
            std::fs::write(dir.path().join(name), b"garbage").expect("written");
        }
        tell_damage(&status, &store::load(dir.path()).expect("loaded").notes);
        let told = status.health().remove("positions").expect("a note");
        assert!(told.ok && told.note, "{told:?}");
        assert!(
            told.message.contains("no intact checkpoint is left") && told.message.contains("again"),
            "{told:?}"
        );
        tell_damage(&status, &store::load(dir.path()).expect("loaded").notes);
        assert!(!status.health().contains_key("positions"));
    }
}
