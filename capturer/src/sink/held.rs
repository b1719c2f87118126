//! Messages that wait for blocked outputs: a queue for each output, so that no other waits with it. It only reads the
//! clock to plan the next attempt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SinkError;
use crate::model::cause::Cause;
use crate::model::record::{Batch, Source, StreamId};
use crate::pipeline::Processed;
use crate::telemetry::fault::Fault;
use crate::text::age::age_text;
use crate::text::disk_room;

/// At most this many reasons for blocked outputs are named.
pub(super) const NAMED_MAX: usize = 3;

/// A message for one stream that a sink has to handle.
pub(super) enum Job {
    Attach(Arc<Source>),
    Batch {
        batch: Arc<Batch>,
        /// The pipeline's result, once it ran.
        made: Option<Box<Option<Processed>>>,
    },
    Detach(StreamId),
}

impl Job {
    pub(super) fn stream(&self) -> StreamId {
        match self {
            Job::Attach(source) => source.id,
            Job::Batch { batch, .. } => batch.source.id,
            Job::Detach(stream) => *stream,
        }
    }

    /// Bytes of its buffers.
    pub(super) fn buffer_bytes(&self) -> u64 {
        match self {
            Job::Batch { batch, .. } => (batch.read.capacity() + batch.made.capacity()) as u64,
            Job::Attach(_) | Job::Detach(_) => 0,
        }
    }
}

/// The queues of one sink.
#[derive(Default)]
pub(super) struct HeldMessages {
    outputs: BTreeMap<Arc<str>, Output>,
    /// Streams with a message in a queue, and which queue. All their later messages go there, too, to stay in order.
    streams: BTreeMap<StreamId, Arc<str>>,
}

struct Output {
    queue: VecDeque<Job>,
    failures: u32,
    attempt_at: Instant,
    since: Instant,
    /// The complete reason.
    trouble: Arc<str>,
    fault: Fault,
    cause: Option<Cause>,
    said: Said,
}

/// Why an output is blocked, in parts.
#[derive(Default)]
struct Said {
    /// The part that others in its directory may share; `None` = the output is no file.
    alike: Option<Alike>,
    /// What was tried, and on which file.
    tried: String,
    name: String,
    cure: Option<String>,
}

/// Outputs for which all of these are equal share a sentence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    /// The system's error message.
    error: String,
    directory: PathBuf,
    is_disk_full: bool,
}

impl Said {
    fn of(error: &SinkError) -> Said {
        let alike = error.directory().map(|directory| Alike {
            error: error.source.to_string(),
            directory: directory.to_owned(),
            is_disk_full: error.is_disk_full,
        });
        let name = error.path.as_deref().and_then(Path::file_name).unwrap_or_default();
        Said { alike, tried: error.tried(), name: name.to_string_lossy().into_owned(), cure: error.cure() }
    }
}

impl Alike {
    /// How much room there is, if a full disk is the trouble.
    fn room(&self) -> String {
        let room = self.is_disk_full.then(|| disk_room::room(&self.directory)).flatten();
        room.map(|room| format!(" ({room} in {})", self.directory.display())).unwrap_or_default()
    }
}

impl HeldMessages {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Whether a message of a stream waits.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// The queue that a message must go to, if its output is blocked or its stream already waits.
    pub(super) fn queue_for(&self, job: &Job, output: Option<&Arc<str>>) -> Option<Arc<str>> {
        let waits = self.streams.get(&job.stream()).cloned();
        waits.or_else(|| output.filter(|output| self.outputs.contains_key(*output)).cloned())
    }

    /// An attempt failed; the next one is made after `pause`. Returns whether the reason is new.
    pub(super) fn block(&mut self, output: Arc<str>, error: &SinkError, pause: Duration) -> bool {
        let trouble = error.to_string();
        let attempt_at = Instant::now() + pause;
        let held = self.outputs.entry(output).or_insert_with(|| Output {
            queue: VecDeque::new(),
            failures: 0,
            attempt_at,
            since: Instant::now(),
            trouble: Arc::from(""),
            fault: Fault::Usual,
            cause: None,
            said: Said::default(),
        });
        held.failures += 1;
        held.attempt_at = attempt_at;
        let differs = *held.trouble != *trouble;
        if differs {
            held.said = Said::of(error);
            (held.fault, held.cause) = (error.fault(), error.cause());
            held.trouble = trouble.into();
        }
        differs
    }

    pub(super) fn failures(&self, output: &str) -> u32 {
        self.outputs.get(output).map_or(0, |held| held.failures)
    }

    /// Why an output is blocked.
    pub(super) fn trouble(&self, output: &str) -> Option<Arc<str>> {
        self.outputs.get(output).map(|held| Arc::clone(&held.trouble))
    }

    /// The same in few words, where there are some.
    pub(super) fn short(&self, output: &str) -> Option<Cause> {
        self.outputs.get(output).and_then(|held| held.cause.clone())
    }

    /// What is wrong, in the order in which [`HeldMessages::outputs`] tells it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.groups().into_iter().flat_map(|group| group.into_iter().map(|held| held.fault)).collect()
    }

    /// Why outputs are blocked, each reason once.
    pub(super) fn reasons(&self) -> BTreeSet<String> {
        let reason = |held: &Output| match &held.said.alike {
            Some(alike) => format!("{} in {}", alike.error, alike.directory.display()),
            None => held.trouble.to_string(),
        };
        self.outputs.values().map(reason).collect()
    }

    /// Outputs that are told of together, most of them first.
    fn groups(&self) -> Vec<Vec<&Output>> {
        let mut groups: BTreeMap<(Option<&Alike>, &str), Vec<&Output>> = BTreeMap::new();
        for held in self.outputs.values() {
            let alike = held.said.alike.as_ref();
            let alone = if alike.is_some() { "" } else { &*held.trouble };
            groups.entry((alike, alone)).or_default().push(held);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|of_group| std::cmp::Reverse(of_group.len()));
        groups
    }

    /// Adds a job. Returns whether it is the first of its stream.
    pub(super) fn push(&mut self, output: &Arc<str>, job: Job) -> bool {
        let Some(held) = self.outputs.get_mut(output) else { return false };
        let first = self.streams.insert(job.stream(), Arc::clone(output)).is_none();
        held.queue.push_back(job);
        first
    }

    pub(super) fn pop(&mut self, output: &str) -> Option<Job> {
        self.outputs.get_mut(output)?.queue.pop_front()
    }

    pub(super) fn put_back(&mut self, output: &str, job: Job) {
        if let Some(held) = self.outputs.get_mut(output) {
            held.queue.push_front(job);
        }
    }

    /// Forgets an output once nothing waits for it. Returns the streams that waited.
    pub(super) fn freed(&mut self, output: &Arc<str>) -> Vec<StreamId> {
        if self.outputs.get(output).is_none_or(|held| !held.queue.is_empty()) {
            return Vec::new();
        }
        self.outputs.remove(output);
        let (freed, still): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.streams).into_iter().partition(|(_, waits_for)| waits_for == output);
        self.streams = still;
        freed.into_keys().collect()
    }

    /// When to make the next attempt.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.outputs.values().map(|held| held.attempt_at).min()
    }

    /// Outputs to try now.
    pub(super) fn due(&self, now: Instant) -> Vec<Arc<str>> {
        let due = self.outputs.iter().filter(|(_, held)| held.attempt_at <= now);
        due.map(|(output, _)| Arc::clone(output)).collect()
    }

    /// Makes all attempts due now.
    pub(super) fn all_due(&mut self) {
        let now = Instant::now();
        self.outputs.values_mut().for_each(|held| held.attempt_at = now);
    }

    /// Which outputs are blocked, and why; `None` = none is. A full disk blocks hundreds for one reason, which is said
    /// once. With `now` it also says for how long.
    pub(super) fn outputs(&self, now: Option<Instant>) -> Option<String> {
        let groups = self.groups();
        if groups.is_empty() {
            return None;
        }
        let (named, rest) = groups.split_at(groups.len().min(NAMED_MAX));
        let told: Vec<String> = named.iter().map(|of_group| tell(of_group, now)).collect();
        let more = match rest.iter().map(Vec::len).sum::<usize>() {
            0 => String::new(),
            more => format!("; and {more} more outputs for other reasons"),
        };
        Some(format!("{}{more}; outputs blocked: {}", told.join("; "), self.outputs.len()))
    }

    /// What that means.
    pub(super) fn consequence(&self) -> String {
        format!(
            "sources that wait for them: {}; no line is lost while their log files are kept; other outputs are not \
             affected",
            self.streams.len()
        )
    }
}

/// What several outputs have in common. How full a disk is goes with the time: both change by themselves.
fn tell(outputs: &[&Output], now: Option<Instant>) -> String {
    let [first, others @ ..] = outputs else { return String::new() };
    let Some(now) = now else {
        return match (&first.said.alike, others) {
            (Some(alike), [_, ..]) => format!(
                "{} in {}: {} outputs wait, such as {}",
                alike.error,
                alike.directory.display(),
                outputs.len(),
                first.said.name
            ),
            _ => first.trouble.to_string(),
        };
    };
    let since = outputs.iter().map(|held| held.since).min().unwrap_or(now);
    let age = now.saturating_duration_since(since).as_secs();
    let for_how_long = if age == 0 { String::new() } else { format!(" for {}", age_text(age)) };
    let cure = first.said.cure.as_deref().map(|cure| format!("; {cure}")).unwrap_or_default();
    let Some(alike) = &first.said.alike else { return format!("{}{for_how_long}{cure}", first.said.tried) };
    let room = alike.room();
    if others.is_empty() {
        return format!("{}{room}{for_how_long}{cure}", first.said.tried);
    }
    let (error, directory, name) = (&alike.error, alike.directory.display(), &first.said.name);
    let count = outputs.len();
    let room = if room.is_empty() { format!(" in {directory}") } else { room };
    format!("{error}{room}{for_how_long}: {count} outputs wait, such as {name}{cure}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn block(held: &mut HeldMessages, path: &Path, kind: io::ErrorKind) {
        let error = SinkError::of_file("writing", path.to_owned(), "sinks.local_file.directory", kind.into());
        held.block(path.display().to_string().into(), &error, Duration::ZERO);
    }

    /// Three hundred outputs on one full disk were once reported as three names and a number, which hid the extent.
    /// Later the directory was missing, and how full it was.
    #[test]
    fn a_full_disk_is_said_once_and_named() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let mut held = HeldMessages::default();
        assert_eq!(held.outputs(None), None);
        block(&mut held, &dir.join("a b.log"), io::ErrorKind::StorageFull);
        let one = held.outputs(None).unwrap();
        let shown = dir.display();
        assert!(
            one.starts_with(&format!("no storage space writing {shown}/a b.log: free some room")),
            "{one}"
        );
        assert!(one.ends_with("; outputs blocked: 1"), "{one}");
        let told = held.outputs(Some(Instant::now())).unwrap();
        assert!(
            told.contains(&format!("a b.log ({}", "")) && told.contains(&format!("free in {shown})")),
            "{told}"
        );
        assert!(told.contains(&format!("; free some room on the disk of {shown} (df -h {shown}")), "{told}");
        assert!(told.contains("with sinks.local_file.directory; outputs blocked: 1"), "{told}");
        assert_eq!((held.faults(), held.reasons().len()), (vec![Fault::NoRoom], 1));
        assert_eq!(held.short(&format!("{shown}/a b.log")), Some(Cause::NoRoom));
        for number in 0..299 {
            block(&mut held, &dir.join(format!("{number}.log")), io::ErrorKind::StorageFull);
        }
        assert_eq!(held.reasons().len(), 1, "one more is no other reason");
        block(&mut held, Path::new("/p/x.log"), io::ErrorKind::StorageFull);
        block(&mut held, &dir.join("y.log"), io::ErrorKind::PermissionDenied);
        let faults = held.faults();
        assert_eq!((faults[0], held.reasons().len()), (Fault::NoRoom, 3));
        assert!(faults.contains(&Fault::Denied), "{faults:?}");
        let later = Instant::now() + Duration::from_secs(180);
        let told = held.outputs(Some(later)).unwrap();
        assert!(
            told.starts_with("no storage space (")
                && told.contains(&format!("free in {shown}) for 3 min: 300 outputs wait, such as ")),
            "{told}"
        );
        assert!(told.contains("writing /p/x.log for 3 min; free some room"), "{told}");
        assert!(told.contains("y.log for 3 min; give the agent the right"), "{told}");
        assert!(told.ends_with("; outputs blocked: 302"), "{told}");
        // The log gets a line when this changes, and passing time alone is no change.
        assert_eq!(held.outputs(None), held.outputs(None));
    }

    /// Common parts were once parsed out of the sentence: an error with a slash in it, or a name with a colon, made
    /// wrong groups.
    #[test]
    fn the_words_of_an_error_make_no_groups() {
        let mut held = HeldMessages::default();
        for (name, words) in [("a: b.log", "odd /x: y"), ("c.log", "odd /x: y"), ("d.log", "other")] {
            let error =
                SinkError::of_file("writing", Path::new("/o").join(name), "", io::Error::other(words));
            held.block(name.into(), &error, Duration::ZERO);
        }
        let told = held.outputs(None).unwrap();
        assert!(
            told.starts_with("odd /x: y in /o: 2 outputs wait, such as a: b.log; other writing /o/d.log;"),
            "{told}"
        );
    }
}
