//! The leak detector: what was where it should not be at one look and still is at the next. Pure.
//!
//! ```text
//!                                                                                     a leak when it stands
//! a descriptor of a stream that ended                                                 for longer than SETTLE
//! a descriptor of a stream that no table of the loop leads to                         SETTLE
//! a descriptor released by its owner and still open (where the kernel remembers)      SETTLE
//! a file that an operation keeps although its descriptor is closed                    GRACE
//! tasks, threads, operations, memory, descriptors of another owner, dockerd's: more   SETTLE
//!   than what there is to do explains
//! ```
//! SETTLE is somewhat over half of the check interval. So a leak is named at the second look, and what is only there
//! during one look never is. Growth by itself is no leak: more containers mean more streams, which explain more
//! descriptors and memory.
//!
//! Descriptors that nobody claims are shown and counted (`unknown`), but raise an alarm only by their number: a library
//! may have some of its own.

use std::collections::BTreeMap;

use super::Owner;
use crate::model::record::StreamKey;
use crate::text::age::age_text;
use crate::text::label_values::label_values;

label_values! {
    /// The values of the label `resource` of `leak_detection`.
    Resource {
        /// Open file descriptors of this process.
        FileDescriptors = "file_descriptors",
        /// Threads of this process.
        Threads = "threads",
        /// Resident memory of this process.
        Memory = "memory",
        /// Tasks of the capture loop.
        Tasks = "tasks",
        /// Operations in the kernel.
        Operations = "operations",
        /// dockerd's descriptors, if it is watched.
        DockerdDescriptors = "dockerd_descriptors",
    }
}

/// A descriptor that should not be open, as one look found it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suspect {
    /// Its number; of an unreleased file, the number it had.
    pub fd: i32,
    /// Names this opening and no other: a claim's serial number, a time, a file's address.
    pub identity: u64,
    /// Why it should not be open.
    pub fault: LeakFault,
    /// Who holds it.
    pub owner: Owner,
    /// What it points to.
    pub target: String,
    /// How long it has been open, or closed without its file being released.
    pub age_ms: u64,
}

/// Why a descriptor should not be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeakFault {
    /// Its stream has ended.
    StreamEnded,
    /// Its stream goes on but no longer uses it.
    Forgotten,
    /// Its owner believes it closed.
    Released,
    /// It is closed, but the kernel still holds its file.
    Unreleased,
}

impl LeakFault {
    /// The reason as a clause.
    pub fn text(self) -> &'static str {
        match self {
            LeakFault::StreamEnded => "its stream has ended",
            LeakFault::Forgotten => "its stream no longer uses it",
            LeakFault::Released => "its owner believes it closed",
            LeakFault::Unreleased => "its descriptor is closed, and an operation still holds the file",
        }
    }
}

/// How much of a resource there is, and how much of that is explained by what the program has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceUse {
    /// The resource that this is about.
    pub resource: Resource,
    /// Who uses it, for the message: `capture loop`, `sink`.
    pub of: String,
    /// How much there is.
    pub value: u64,
    /// The most that can be explained.
    pub explained: u64,
}

/// A leak, to be reported once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The resource that this is about.
    pub resource: Resource,
    /// The leaked descriptor; `None` = the leak is an amount.
    pub suspect: Option<Suspect>,
    /// One sentence with all of it.
    pub text: String,
}

/// Remembers the suspects of earlier looks.
#[derive(Debug, Default)]
pub struct Detector {
    suspects: BTreeMap<(LeakFault, i32, u64), u64>,
    amounts: BTreeMap<(Resource, String), u64>,
    /// Leaks at the last look by what they are about: since when, and their texts.
    standing: BTreeMap<String, (u64, String)>,
}

/// What a look changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeakReport {
    /// All leaks found.
    pub leaks: Vec<Leak>,
    /// New leaks, each to be reported once.
    pub new: Vec<String>,
    /// Leaks that have gone since the last look, each with how many seconds it stood.
    pub gone: Vec<(u64, String)>,
}

impl Detector {
    /// Judges one look. `settle_ms`: how long something must stand to be a leak. `grace_ms`: how long an operation may
    /// hold a file after its descriptor was closed.
    pub fn look(
        &mut self,
        now_ms: u64,
        suspects: Vec<Suspect>,
        amounts: Vec<ResourceUse>,
        settle_ms: u64,
        grace_ms: u64,
    ) -> LeakReport {
        let mut verdict = LeakReport::default();
        let mut standing = BTreeMap::new();

        let key = |suspect: &Suspect| (suspect.fault, suspect.fd, suspect.identity);
        let before = std::mem::take(&mut self.suspects);
        for suspect in suspects {
            let since_ms = before.get(&key(&suspect)).copied().unwrap_or(now_ms);
            self.suspects.insert(key(&suspect), since_ms);
            let stood_ms = now_ms.saturating_sub(since_ms);
            let is_leak = match suspect.fault {
                LeakFault::Unreleased => suspect.age_ms > grace_ms,
                _ => stood_ms > settle_ms,
            };
            if is_leak {
                let Suspect { fd, identity, fault, owner, target, age_ms } = &suspect;
                let text = format!(
                    "descriptor {fd} of {owner}, {target}, {:.1} s old: {}",
                    *age_ms as f64 / 1000.0,
                    fault.text()
                );
                standing.insert(format!("{fault:?} {fd} {identity}"), text.clone());
                verdict.leaks.push(Leak {
                    resource: Resource::FileDescriptors,
                    suspect: Some(suspect),
                    text,
                });
            }
        }

        let before = std::mem::take(&mut self.amounts);
        for ResourceUse { resource, of, value, explained } in
            amounts.into_iter().filter(|a| a.value > a.explained)
        {
            let key = (resource, of);
            let since_ms = before.get(&key).copied().unwrap_or(now_ms);
            if now_ms.saturating_sub(since_ms) > settle_ms {
                let text = format!(
                    "{} of {}: {value}, of which {explained} are explained",
                    resource.as_str(),
                    key.1
                );
                // The key has no number, so that an amount that changes is not another leak.
                standing.insert(format!("{} of {}", resource.as_str(), key.1), text.clone());
                verdict.leaks.push(Leak { resource, suspect: None, text });
            }
            self.amounts.insert(key, since_ms);
        }

        let fresh = standing.iter().filter(|(about, _)| !self.standing.contains_key(*about));
        verdict.new = fresh.map(|(_, text)| text.clone()).collect();
        let gone = self.standing.iter().filter(|(about, _)| !standing.contains_key(*about));
        let stood = |since_ms: &u64| now_ms.saturating_sub(*since_ms) / 1000;
        verdict.gone = gone.map(|(_, (since_ms, text))| (stood(since_ms), text.clone())).collect();
        let since = |about: &String| self.standing.get(about).map_or(now_ms, |(since_ms, _)| *since_ms);
        self.standing =
            standing.into_iter().map(|(about, text)| (about.clone(), (since(&about), text))).collect();
        verdict
    }
}

/// A message names at most this many owners.
const OWNERS_NAMED_MAX: usize = 2;
/// Longest name in a message: a container's name can be anything of any length.
const NAME_CHARS_MAX: usize = 80;
/// The first thing an operator wants to know, and what to do.
const UNHARMED: &str = "log lines still arrive; report it with what /api/v1/fds shows, then restart the agent when convenient: it \
                        continues where it stopped";

/// What is wrong: descriptors of the agent's, of which so many are known, or dockerd's, or an amount that nobody explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaking {
    /// So many descriptors of the agent.
    Descriptors(usize),
    /// More than is explained.
    Amount,
    /// Descriptors of dockerd, and none of the agent.
    Dockerd,
}

/// See [`Leaking`].
pub fn leaking(leaks: &[Leak]) -> Leaking {
    let held = leaks.iter().filter(|leak| leak.suspect.is_some()).count();
    match leaks.iter().all(|leak| leak.resource == Resource::DockerdDescriptors) {
        _ if held > 0 => Leaking::Descriptors(held),
        true => Leaking::Dockerd,
        false => Leaking::Amount,
    }
}

/// What health says of leaks: whose they are by name, that nothing is lost, what to do, and then all that is known.
pub fn message(leaks: &[Leak], names: &BTreeMap<StreamKey, String>) -> String {
    let held: Vec<&Suspect> = leaks.iter().filter_map(|leak| leak.suspect.as_ref()).collect();
    let of_dockerd = |leak: &&Leak| leak.resource == Resource::DockerdDescriptors;
    let rest = || leaks.iter().filter(|leak| leak.suspect.is_none());
    let amounts: Vec<&str> = rest().filter(|leak| !of_dockerd(leak)).map(|leak| leak.text.as_str()).collect();
    let mut parts = Vec::new();
    if let Some(first) = held.first() {
        let mut owners: Vec<String> = Vec::new();
        for suspect in &held {
            let owner = owner_in_words(&suspect.owner, names);
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        let more = owners.len().saturating_sub(OWNERS_NAMED_MAX);
        owners.truncate(OWNERS_NAMED_MAX);
        let and_more = if more > 0 { format!(" and of {more} more") } else { String::new() };
        let count = match held.len() {
            1 => "a file descriptor".to_owned(),
            count => format!("{count} file descriptors"),
        };
        parts.push(format!("the agent leaks {count} of {}{and_more}", owners.join(" and of ")));
        parts.push(UNHARMED.to_owned());
        let Suspect { fd, target, age_ms, fault, .. } = first;
        let age = age_text(age_ms / 1000);
        parts.push(format!("descriptor {fd}, {target}, is {age} old: {}", fault.text()));
    }
    if !amounts.is_empty() {
        parts.push(format!("more is held than explained: {}", amounts.join(", ")));
        if held.is_empty() {
            parts.push(UNHARMED.to_owned());
        }
    }
    if let Some(leak) = rest().find(of_dockerd) {
        parts.push(format!("dockerd seems to leak: {}; log lines still arrive; upgrade Docker", leak.text));
    }
    parts.join("; ")
}

/// The key of the source that a descriptor is held for: streams for its further outlets have `#` and a number behind
/// that key.
pub fn source_of(owner: &StreamKey) -> StreamKey {
    let is_number = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    match owner.0.rsplit_once('#') {
        Some((source, outlet)) if is_number(outlet) => StreamKey(source.into()),
        _ => owner.clone(),
    }
}

fn owner_in_words(owner: &Owner, names: &BTreeMap<StreamKey, String>) -> String {
    let short = |name: &str| name.chars().take(NAME_CHARS_MAX).collect::<String>();
    match owner {
        Owner::Stream(key) => {
            let key = source_of(key);
            match (names.get(&key), key.0.split_once(':')) {
                (Some(name), _) => format!("container {}", short(name)),
                (None, Some(("file", path))) => format!("file {}", short(path)),
                // The container has been removed, and its name with it.
                (None, Some((_, id))) => format!("container {}", short(id)),
                (None, None) => short(&key.0),
            }
        }
        Owner::Sink(name) => format!("sink {}", short(name)),
        Owner::Unknown => "nobody that is known".to_owned(),
        other => format!("its {} part", other.class()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::testing::Rng;

    const INTERVAL_MS: u64 = 1_000;
    const SETTLE_MS: u64 = 600;
    const GRACE_MS: u64 = 500;

    fn suspect(fd: i32, identity: u64, fault: LeakFault) -> Suspect {
        let owner = Owner::Stream(StreamKey("container:a".into()));
        Suspect { fd, identity, fault, owner, target: "socket:[1]".to_owned(), age_ms: 1_500 }
    }

    fn look(detector: &mut Detector, look: u64, suspects: &[Suspect], amounts: &[ResourceUse]) -> LeakReport {
        detector.look(look * INTERVAL_MS, suspects.to_vec(), amounts.to_vec(), SETTLE_MS, GRACE_MS)
    }

    #[test]
    fn a_descriptor_is_named_at_the_second_look_once_and_until_it_goes() {
        let mut detector = Detector::default();
        let forgotten = [suspect(7, 1, LeakFault::Forgotten)];
        assert_eq!(look(&mut detector, 0, &forgotten, &[]), LeakReport::default());
        let verdict = look(&mut detector, 1, &forgotten, &[]);
        let text = "descriptor 7 of stream:container:a, socket:[1], 1.5 s old: its stream no longer uses it";
        assert_eq!((verdict.leaks.len(), verdict.new.as_slice()), (1, &[text.to_owned()][..]));
        let verdict = look(&mut detector, 2, &forgotten, &[]);
        assert_eq!((verdict.leaks.len(), verdict.new.len(), verdict.gone.len()), (1, 0, 0));
        let verdict = look(&mut detector, 3, &[], &[]);
        assert_eq!((verdict.leaks.len(), verdict.new.len(), verdict.gone.len()), (0, 0, 1));
    }

    /// People know a container by its name, and first ask whether lines are lost.
    #[test]
    fn the_message_names_whose_it_is_and_what_to_do() {
        let names = [(StreamKey("container:a".into()), "web-1".to_owned())].into();
        let leak = |suspect: Suspect| Leak {
            resource: Resource::FileDescriptors,
            suspect: Some(suspect),
            text: String::new(),
        };
        let of = |key: &str, fd| {
            let owner = Owner::Stream(StreamKey(key.into()));
            leak(Suspect { owner, ..suspect(fd, 1, LeakFault::Forgotten) })
        };
        let told = message(&[of("container:a", 7)], &names);
        assert!(told.starts_with("the agent leaks a file descriptor of container web-1; log lines still"));
        assert!(told.contains("restart the agent") && told.contains("descriptor 7, socket:[1], is 1 s old"));
        let four = [
            of("container:a", 7),
            of("container:a#1", 8),
            of("file:/var/log/a", 9),
            of("container:gone", 10),
        ];
        let told = message(&four, &names);
        let expected =
            "the agent leaks 4 file descriptors of container web-1 and of file /var/log/a and of 1 more; ";
        assert!(told.starts_with(expected), "{told}");
        let tasks =
            Leak { resource: Resource::Tasks, suspect: None, text: "tasks of capture loop: 3".to_owned() };
        let told = message(&[tasks], &names);
        assert!(told.starts_with("more is held than explained: tasks of capture loop: 3; log lines still"));
        let dockerd = Leak {
            resource: Resource::DockerdDescriptors,
            suspect: None,
            text: "dockerd_descriptors of dockerd: 900".to_owned(),
        };
        let told = message(&[dockerd], &names);
        assert!(told.starts_with("dockerd seems to leak: dockerd_descriptors of dockerd: 900;"), "{told}");
        assert!(!told.contains("restart the agent"), "{told}");
    }

    /// Rotations close a connection at every look, but never the same one.
    #[test]
    fn what_changes_from_look_to_look_is_no_leak() {
        let mut detector = Detector::default();
        for number in 0..50 {
            let suspects =
                [suspect(7, number, LeakFault::Forgotten), suspect(8, number, LeakFault::Released)];
            assert_eq!(look(&mut detector, number, &suspects, &[]).leaks, [], "look {number}");
        }
    }

    /// The kernel says how long the file has been kept, so no second look is needed.
    #[test]
    fn a_file_kept_past_its_grace_is_a_leak_at_once() {
        let mut detector = Detector::default();
        let kept = suspect(7, 1, LeakFault::Unreleased);
        let young = Suspect { age_ms: GRACE_MS, ..kept.clone() };
        assert_eq!(look(&mut detector, 0, &[young], &[]).leaks, []);
        assert_eq!(look(&mut detector, 0, &[kept], &[]).new.len(), 1);
    }

    /// Random amounts against a plain rule: a leak is what was unexplained at this look and at the one before.
    #[test]
    fn only_what_stays_unexplained_is_a_leak() {
        let mut rng = Rng::from_env();
        let mut detector = Detector::default();
        let mut before = false;
        for number in 0..500 {
            let value = rng.below(4) as u64;
            // More work explains more.
            let explained = rng.below(4) as u64;
            let amount =
                ResourceUse { resource: Resource::Tasks, of: "capture loop".to_owned(), value, explained };
            let verdict = look(&mut detector, number, &[], &[amount]);
            let unexplained = value > explained;
            assert_eq!(verdict.leaks.len(), usize::from(unexplained && before), "look {number}");
            assert!(verdict.new.len() <= 1 && verdict.gone.len() <= 1);
            before = unexplained;
        }
    }
}
