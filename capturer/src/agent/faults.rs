//! Faults of files, in words. Health shows all of them; the log has one line when each begins and one when it ends.

use std::collections::BTreeMap;

use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::UnreadableReason;
use crate::telemetry::status::HealthState;
use crate::text::counted::{counted, which};
use crate::text::over::over;

/// A sentence names this many faults of a kind and counts the rest.
const NAMED_MAX: usize = 5;
/// The log reports the beginning and the end of this many faults; more are only counted.
const TOLD_MAX: usize = 1_000;
/// Up to this many faults of a kind that begin or end at once have a line each; more share one line.
const LINES_MAX: usize = 3;
const CURE_UNREADABLE: &str =
    "give the agent the right to read them (CAP_DAC_READ_SEARCH, a group), or leave them out (exclude)";
const CURE_NO_DIRECTORY: &str =
    "make it, or mount it where the agent runs: it is read as soon as it is there; or leave it out (exclude)";
const CURE_NO_DESCRIPTOR: &str = "raise the limit of open files: component descriptors says how";
const CURE_FAILING: &str = "the agent tries again by itself";
const CURE_NOT_A_FILE: &str = "put a regular file there, or remove it from file_monitor";

/// What can be wrong with a file, directory or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A file system does not answer.
    Hung,
    /// The right to read a source is missing.
    Unreadable,
    /// A source's directory is not there.
    NoDirectory,
    /// No file descriptor is left for a source.
    NoDescriptor,
    /// The system answers with an error, which is told with its own cure where one is known.
    Failing,
    /// The config names a path where no regular file is.
    NotAFile,
    /// A directory can't be listed.
    Unlistable,
    /// A file that the config names is not text, or its encoding is unknown.
    NotText,
    /// A file that a pattern matched is not text and is skipped on purpose: a note, not a fault.
    LeftOut,
    /// A pattern matches nothing.
    Unmatched,
    /// A pattern has matched nothing for less than a minute: a note.
    UnmatchedYet,
    /// inotify is at its limit, so a directory is not watched.
    Unwatched,
    /// A directory can be entered but not listed, so it can't be watched.
    UnwatchedDenied,
}

impl Kind {
    /// Bad: lines are lost, or exist and do not arrive.
    fn state(self) -> HealthState {
        match self {
            Kind::LeftOut | Kind::UnmatchedYet => HealthState::Well,
            // No line waits: there is nothing to read, or polling finds it a little later.
            Kind::Unmatched | Kind::Unwatched => HealthState::Warning,
            Kind::Hung
            | Kind::Unreadable
            | Kind::NoDirectory
            | Kind::NoDescriptor
            | Kind::Failing
            | Kind::NotAFile
            | Kind::Unlistable
            | Kind::NotText
            | Kind::UnwatchedDenied => HealthState::Bad,
        }
    }

    /// What title and runbook go by.
    fn what(self, count: usize) -> Fault {
        match self {
            Kind::Hung => Fault::Silent,
            Kind::Unlistable if count == 1 => Fault::DirectoryUnlistable,
            Kind::Unlistable => Fault::DirectoriesUnlistable,
            Kind::Unwatched => Fault::NotWatched,
            Kind::UnwatchedDenied => Fault::NotWatchedDenied,
            Kind::Unreadable
            | Kind::NoDirectory
            | Kind::NoDescriptor
            | Kind::Failing
            | Kind::NotAFile
            | Kind::NotText
            | Kind::LeftOut
            | Kind::Unmatched
            | Kind::UnmatchedYet => Fault::Said,
        }
    }

    fn sentence(self, count: usize, texts: &str) -> String {
        match self {
            Kind::Hung | Kind::Unwatched | Kind::UnwatchedDenied => texts.to_owned(),
            Kind::Unreadable | Kind::NoDirectory | Kind::NoDescriptor | Kind::Failing | Kind::NotAFile => {
                let cure = self.cure().unwrap_or_default();
                format!("{} can't be read: {texts}; {cure}", counted(count as u64, "source"))
            }
            Kind::UnmatchedYet => format!(
                "{count} {} no file yet: {texts}",
                which(count as u64, "pattern matches", "patterns match")
            ),
            Kind::Unlistable => format!(
                "{count} {} is not read: {texts}; {CURE_UNREADABLE}",
                which(
                    count as u64,
                    "directory can't be listed, and what is in it",
                    "directories can't be listed, and what is in them"
                )
            ),
            Kind::NotText | Kind::LeftOut => {
                format!("{count} {} not text: {texts}", which(count as u64, "file is", "files are"))
            }
            Kind::Unmatched => format!(
                "{count} {} no file: {texts}; correct {}, or set may_be_empty: true \
                 where that is expected (capturer check lists what each matches)",
                which(count as u64, "pattern matches", "patterns match"),
                which(count as u64, "it", "them")
            ),
        }
    }

    /// What helps against it, of sources that can't be read: each cause has its own.
    fn cure(self) -> Option<&'static str> {
        match self {
            Kind::Unreadable => Some(CURE_UNREADABLE),
            Kind::NoDirectory => Some(CURE_NO_DIRECTORY),
            Kind::NoDescriptor => Some(CURE_NO_DESCRIPTOR),
            Kind::Failing => Some(CURE_FAILING),
            Kind::NotAFile => Some(CURE_NOT_A_FILE),
            _ => None,
        }
    }

    /// The kind of a source that can't be read for this reason.
    pub(super) fn of(reason: UnreadableReason) -> Kind {
        match reason {
            UnreadableReason::Permission => Kind::Unreadable,
            UnreadableReason::NotRegular => Kind::NotAFile,
            UnreadableReason::NoDirectory => Kind::NoDirectory,
            UnreadableReason::NoDescriptor => Kind::NoDescriptor,
            _ => Kind::Failing,
        }
    }

    fn begins(self, text: &str) -> String {
        match self {
            Kind::Hung
            | Kind::Unwatched
            | Kind::UnwatchedDenied
            | Kind::NotText
            | Kind::LeftOut
            | Kind::UnmatchedYet => text.to_owned(),
            Kind::Unreadable | Kind::NoDirectory | Kind::NoDescriptor | Kind::Failing | Kind::NotAFile => {
                format!("can't be read: {text}; {}", self.cure().unwrap_or_default())
            }
            Kind::Unlistable => {
                format!("can't be listed, and what is in it is not read: {text}; {CURE_UNREADABLE}")
            }
            Kind::Unmatched => format!(
                "a pattern of file_monitor matches no file: {text}; correct it, or set may_be_empty: true where that is expected"
            ),
        }
    }

    /// The fault in the past tense, for the line that reports its end.
    fn was(self, name: &str) -> String {
        match self {
            Kind::Hung => format!("{name} did not answer"),
            Kind::Unreadable | Kind::NoDirectory | Kind::NoDescriptor | Kind::Failing | Kind::NotAFile => {
                format!("could not be read: {name}")
            }
            Kind::NotText | Kind::LeftOut => format!("not text: {name}"),
            Kind::Unlistable => format!("could not be listed: {name}"),
            Kind::Unmatched | Kind::UnmatchedYet => {
                format!("a pattern of file_monitor matched no file: {name}")
            }
            Kind::Unwatched => "directories were not watched, because inotify was at its limit".to_owned(),
            Kind::UnwatchedDenied => {
                "directories could not be watched, because they may not be listed".to_owned()
            }
        }
    }
}

/// One fault, in words.
#[derive(Debug)]
struct FileFault {
    text: String,
    /// The source's name, if a missing permission is all that is wrong.
    denied: Option<String>,
}

/// All faults of files at this moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by_kind: BTreeMap<Kind, BTreeMap<String, FileFault>>,
    counts: BTreeMap<Kind, usize>,
}

impl Faults {
    /// `name` identifies the fault within its kind.
    pub(super) fn add(&mut self, kind: Kind, name: String, text: String) {
        self.by_kind.entry(kind).or_default().insert(name, FileFault { text, denied: None });
    }

    /// A source that can't be read because a permission is missing.
    pub(super) fn add_denied(&mut self, whose: String, text: String) {
        let of_kind = self.by_kind.entry(Kind::Unreadable).or_default();
        of_kind.insert(text.clone(), FileFault { text, denied: Some(whose) });
    }

    /// The total of a kind, if not all of them are added by name.
    pub(super) fn count(&mut self, kind: Kind, count: usize) {
        self.counts.insert(kind, count);
    }

    /// The total of a kind, named or not.
    fn number(&self, kind: Kind) -> usize {
        let named = self.by_kind.get(&kind).map_or(0, BTreeMap::len);
        self.counts.get(&kind).copied().unwrap_or_default().max(named)
    }

    /// Nothing is wrong, apart from notes.
    pub(super) fn is_well(&self) -> bool {
        self.state() == HealthState::Well
    }

    /// The state of the worst fault.
    pub(super) fn state(&self) -> HealthState {
        self.by_kind.keys().map(|kind| kind.state()).max().unwrap_or(HealthState::Well)
    }

    /// What is wrong as kinds, in the order of [`Faults::health`].
    pub(super) fn kinds(&self) -> Vec<Fault> {
        self.shown().map(|(kind, _)| kind.what(self.number(*kind))).collect()
    }

    /// What is left out as meant would look like one of the faults.
    fn shown(&self) -> impl Iterator<Item = (&Kind, &BTreeMap<String, FileFault>)> {
        let is_well = self.is_well();
        self.by_kind.iter().filter(move |(kind, _)| is_well || **kind != Kind::LeftOut)
    }

    /// All of it in a sentence; `None` = nothing is wrong.
    pub(super) fn health(&self) -> Option<String> {
        let parts = self.shown().map(|(kind, texts)| {
            let count = self.number(*kind);
            if matches!(kind, Kind::Unmatched | Kind::UnmatchedYet) {
                return kind.sentence(count, &patterns(texts));
            }
            let named = texts.values().take(NAMED_MAX);
            let denied: Option<Vec<&str>> = named.clone().map(|fault| fault.denied.as_deref()).collect();
            let is_denied = denied.is_some();
            let first = denied.unwrap_or_else(|| named.map(|fault| fault.text.as_str()).collect());
            let more = and_more(count.saturating_sub(first.len()));
            // Plain names are separated by commas, whole sentences by semicolons.
            let is_names = is_denied || first.iter().all(|text| !text.contains([':', ' ']));
            let gap = if is_names { ", " } else { "; " };
            let sentence = kind.sentence(count, &format!("{}{more}", first.join(gap)));
            if is_denied { sentence.replacen("read:", "read (no permission):", 1) } else { sentence }
        });
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| format!("{}; all other files are read", parts.join("; ")))
    }
}

/// The faults that the log has reported.
#[derive(Debug, Default)]
pub(super) struct FilesSaid {
    /// When each was reported, in milliseconds.
    told: BTreeMap<(Kind, String), u64>,
    /// Per kind, how many faults at the last look were counted but not named in the log.
    unnamed: BTreeMap<Kind, usize>,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum FaultLine {
    Begins(String),
    /// As `Begins`, for a fault that neither loses nor delays a line.
    Warns(String),
    /// As `Begins`, for a note.
    Notes(String),
    Ends(String),
}

impl FilesSaid {
    /// Tells the log what begins and what ends.
    pub(super) fn tell(&mut self, now_ms: u64, faults: &Faults) {
        for line in self.lines(now_ms, faults) {
            match line {
                FaultLine::Begins(text) => tracing::error!(component = "files", "{text}"),
                FaultLine::Warns(text) => tracing::warn!(component = "files", "{text}"),
                FaultLine::Notes(text) => tracing::info!(component = "files", "{text}"),
                FaultLine::Ends(text) => tracing::info!(component = "files", "{text}"),
            }
        }
    }

    fn lines(&mut self, now_ms: u64, faults: &Faults) -> Vec<FaultLine> {
        let is_there = |kind: &Kind, name: &String| {
            faults.by_kind.get(kind).is_some_and(|texts| texts.contains_key(name))
        };
        let mut lines = Vec::new();
        let mut ended: BTreeMap<Kind, Vec<(String, u64)>> = BTreeMap::new();
        for ((kind, name), since_ms) in self.told.extract_if(.., |(kind, name), _| !is_there(kind, name)) {
            ended.entry(kind).or_default().push((name, now_ms.saturating_sub(since_ms) / 1000));
        }
        for (kind, names) in ended {
            if names.len() <= LINES_MAX {
                let told = names.iter().map(|(name, seconds)| over(*seconds, &kind.was(name)));
                lines.extend(told.map(FaultLine::Ends));
            } else {
                let longest = names.iter().map(|(_, seconds)| *seconds).max().unwrap_or(0);
                let named: Vec<&str> = names[..LINES_MAX].iter().map(|(name, _)| name.as_str()).collect();
                let more = names.len() - LINES_MAX;
                let named = format!("{} and {more} more", named.join(", "));
                lines.push(FaultLine::Ends(over(longest, &kind.was(&named))));
            }
        }
        self.unnamed.retain(|kind, _| faults.by_kind.contains_key(kind));
        // A pattern that matches nothing yet may do so within a minute: the log does not report it.
        for (kind, texts) in faults.by_kind.iter().filter(|(kind, _)| **kind != Kind::UnmatchedYet) {
            let mut new = Vec::new();
            for (name, fault) in texts {
                let key = (*kind, name.clone());
                if self.told.len() < TOLD_MAX && !self.told.contains_key(&key) {
                    self.told.insert(key, now_ms);
                    new.push(fault.text.as_str());
                }
            }
            let named = self.told.keys().filter(|(of, _)| of == kind).count();
            let unnamed = faults.number(*kind) - named;
            let before = self.unnamed.insert(*kind, unnamed).unwrap_or_default();
            // A fault that is named now may have been counted without a name before.
            let begun = (new.len() + unnamed).saturating_sub(before);
            let texts: Vec<String> = match begun {
                0 => Vec::new(),
                _ if begun <= new.len() && begun <= LINES_MAX => {
                    new[..begun].iter().map(|text| kind.begins(text)).collect()
                }
                _ => {
                    let first = &new[..new.len().min(LINES_MAX)];
                    let more = begun - first.len();
                    let names = match first {
                        [] => "see /health".to_owned(),
                        first => format!("{}; and {more} more, see /health", first.join("; ")),
                    };
                    vec![kind.sentence(begun, &names)]
                }
            };
            let line = match kind.state() {
                HealthState::Well => FaultLine::Notes,
                HealthState::Warning => FaultLine::Warns,
                HealthState::Bad => FaultLine::Begins,
            };
            lines.extend(texts.into_iter().map(line));
        }
        lines
    }
}

/// ` and N more` for those that are not named; empty = all are named.
fn and_more(count: usize) -> String {
    if count > 0 { format!(" and {count} more") } else { String::new() }
}

/// The names come first, because the number before them counts names; explanations of single patterns follow.
fn patterns(texts: &BTreeMap<String, FileFault>) -> String {
    let names: Vec<&str> = texts.keys().take(NAMED_MAX).map(String::as_str).collect();
    let more = and_more(texts.len() - names.len());
    let said = texts.iter().filter(|(name, fault)| **name != fault.text);
    let said = said.map(|(_, fault)| format!("; {}", fault.text));
    let said: String = said.take(NAMED_MAX).collect();
    format!("{}{more}{said}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status::Health;

    /// Two of four patterns were once missing from the page, and it did not say so.
    #[test]
    fn every_pattern_is_named_or_counted() {
        let mut faults = Faults::default();
        ["/a", "/b", "/c", "/d", "/e", "/f", "/g"].iter().for_each(|name| {
            faults.add(Kind::Unmatched, (*name).to_owned(), (*name).to_owned());
        });
        faults.add(Kind::Unmatched, "/c".to_owned(), "/c is a directory".to_owned());
        let text = faults.health().unwrap();
        assert!(text.contains(" and 2 more; /c is a directory; correct them"), "{text}");
        let expected = "7 patterns match no file: /a, /b, /c, /d, /e and 2 more; ";
        assert!(text.starts_with(expected) && text.ends_with("; all other files are read"), "{text}");
        assert_eq!(faults.kinds(), [Fault::Said]);
        let title = crate::telemetry::health_text::title("files", Fault::Said, &text);
        assert_eq!(title, "7 patterns match no file");
        let told = crate::telemetry::health_text::HealthText::of("files", &Health::new(false, text.as_str()));
        assert!(told.lines[0].contains("and 2 more") && told.all.is_empty(), "{told:?}");
    }

    #[test]
    fn the_log_has_one_line_when_a_fault_begins_and_one_when_it_ends() {
        let mut said = FilesSaid::default();
        let mut lines = |names: &[&str]| {
            let mut faults = Faults::default();
            names.iter().for_each(|name| faults.add(Kind::Unmatched, (*name).to_owned(), (*name).to_owned()));
            let lines = said.lines(1_000, &faults);
            let ends = lines.iter().filter(|line| matches!(line, FaultLine::Ends(_))).count();
            (lines.len() - ends, ends)
        };
        let counts = [&["a"][..], &["a"], &["a", "b"], &["b"], &[], &["b"]].map(&mut lines);
        assert_eq!(counts, [(1, 0), (0, 0), (1, 0), (0, 1), (0, 1), (1, 0)]);
        let many: Vec<String> = (0..500).map(|number| format!("n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(lines(&many), (1, 1), "one of them ends, all others begin together");
        assert_eq!(lines(&many[..3]), (0, 1), "and end together");
    }

    /// No permission helps if a pipe is where the file should be.
    #[test]
    fn what_is_no_file_has_a_cure_of_its_own() {
        let mut faults = Faults::default();
        faults.add(
            Kind::NotAFile,
            "a".to_owned(),
            "file /p: /p is a directory, not a regular file".to_owned(),
        );
        let said = faults.health().expect("a sentence");
        assert!(said.starts_with("1 source can't be read: file /p"), "{said}");
        assert!(said.contains("put a regular file there") && !said.contains("the right to read"), "{said}");
    }

    /// "does not exist" once came with the cure of a missing right.
    #[test]
    fn each_cause_has_its_own_cure() {
        use UnreadableReason as Reason;
        let cures = [
            (Reason::Permission, "the right to read"),
            (Reason::NotRegular, "put a regular file there"),
            (Reason::NoDirectory, "make it, or mount it"),
            (Reason::NoDescriptor, "the limit of open files"),
            (Reason::Other, "tries again by itself"),
        ];
        for (reason, cure) in cures {
            let mut faults = Faults::default();
            faults.add(Kind::of(reason), "a".to_owned(), "file /p: why".to_owned());
            let health = faults.health().expect("a sentence");
            let lines = FilesSaid::default().lines(1_000, &faults);
            let [FaultLine::Begins(line)] = &lines[..] else { panic!("{reason:?}: {lines:?}") };
            for text in [&health, line] {
                let told: Vec<&str> =
                    cures.iter().map(|(_, cure)| *cure).filter(|cure| text.contains(cure)).collect();
                assert_eq!(told, [cure], "{text}");
            }
        }
    }

    /// One directory's mode can make the logs of two hundred containers unreadable.
    #[test]
    fn two_hundred_that_begin_together_are_one_line() {
        let mut faults = Faults::default();
        for number in 0..200 {
            let name = format!("web-{number:03}");
            faults.add(Kind::Unreadable, name.clone(), format!("container {name}: Permission denied"));
        }
        let mut said = FilesSaid::default();
        let lines = said.lines(1_000, &faults);
        let [FaultLine::Begins(text)] = &lines[..] else { panic!("{lines:?}") };
        assert!(
            text.starts_with("200 sources can't be read: container web-000: Permission denied; "),
            "{text}"
        );
        assert!(text.contains("web-002") && !text.contains("web-003"), "{text}");
        assert!(text.contains("and 197 more, see /health; give the agent the right"), "{text}");
        let lines = said.lines(1_000, &Faults::default());
        let [FaultLine::Ends(text)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(text, "over after 0 s: could not be read: web-000, web-001, web-002 and 197 more");
    }

    /// The core names fifty sources; the number counts all of them, and counts none twice.
    #[test]
    fn the_number_is_of_all_that_begin() {
        let mut said = FilesSaid::default();
        let mut begun = |first: usize, count: usize| {
            let mut faults = Faults::default();
            (first..count).take(50).for_each(|at| {
                faults.add(Kind::Unreadable, format!("f{at:03}"), format!("f{at:03}"));
            });
            faults.count(Kind::Unreadable, count - first);
            let lines = said.lines(1_000, &faults);
            let begins = lines.into_iter().filter_map(|line| match line {
                FaultLine::Begins(text) => Some(text.split(" can't").next().unwrap_or_default().to_owned()),
                _ => None,
            });
            begins.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(begun(0, 300), "300 sources");
        assert_eq!(begun(0, 300), "");
        assert_eq!(
            begun(50, 300),
            "",
            "fifty can be read again, and fifty that were counted before have names now"
        );
        assert_eq!(begun(51, 300), "");
        assert_eq!(begun(51, 800), "500 sources", "none of them is named");
        assert_eq!(begun(800, 800), "");
        assert_eq!(
            begun(0, 2),
            "can't be read: f000; give the agent the right to read them (CAP_DAC_READ_SEARCH, a group), or leave them out (exclude); can't be read: f001; give the agent the right to read them (CAP_DAC_READ_SEARCH, a group), or leave them out (exclude)"
        );
    }

    /// wtmp and the journal are in every /var/log: a pattern that matches them is not a mistake.
    #[test]
    fn what_is_left_out_as_meant_is_a_note() {
        let mut faults = Faults::default();
        faults.add(Kind::LeftOut, "wtmp".to_owned(), "wtmp is not text and is left out".to_owned());
        assert!(faults.is_well() && faults.health().is_some_and(|text| text.contains("wtmp")));
        let told = FilesSaid::default().lines(1_000, &faults);
        assert!(matches!(&told[..], [FaultLine::Notes(_)]), "{told:?}");
        faults.add(Kind::Unreadable, "a".to_owned(), "a".to_owned());
        assert!(!faults.is_well());
        assert!(faults.health().is_some_and(|text| !text.contains("wtmp")), "no note among faults");
    }

    #[test]
    fn a_missing_permission_is_said_once() {
        let mut faults = Faults::default();
        for name in ["/a", "/b"] {
            faults.add_denied(format!("file {name}"), format!("file {name}: no permission to read {name}"));
        }
        let text = faults.health().unwrap();
        assert!(
            text.starts_with("2 sources can't be read (no permission): file /a, file /b; give"),
            "{text}"
        );
    }

    /// Bad is for lines that are lost or do not arrive. A pattern that matches no file was once shown as bad.
    #[test]
    fn it_is_as_bad_as_the_worst_of_it() {
        let state = |kinds: &[Kind]| {
            let mut faults = Faults::default();
            kinds.iter().for_each(|kind| faults.add(*kind, "x".to_owned(), "x".to_owned()));
            faults.state()
        };
        assert_eq!(state(&[]), HealthState::Well);
        assert_eq!(state(&[Kind::LeftOut, Kind::UnmatchedYet]), HealthState::Well);
        assert_eq!(state(&[Kind::LeftOut, Kind::Unmatched, Kind::Unwatched]), HealthState::Warning);
        assert_eq!(state(&[Kind::Unmatched, Kind::Unreadable]), HealthState::Bad);
        assert_eq!(state(&[Kind::UnwatchedDenied]), HealthState::Bad);
    }

    /// Every kind begins and ends, and every end has the form that the log uses for all faults.
    #[test]
    fn the_end_of_every_kind_has_one_form() {
        for kind in [
            Kind::Hung,
            Kind::Unreadable,
            Kind::NoDirectory,
            Kind::NoDescriptor,
            Kind::Failing,
            Kind::NotAFile,
            Kind::Unlistable,
            Kind::NotText,
            Kind::LeftOut,
            Kind::Unmatched,
            Kind::Unwatched,
            Kind::UnwatchedDenied,
        ] {
            let mut faults = Faults::default();
            faults.add(kind, "x".to_owned(), "x".to_owned());
            let mut said = FilesSaid::default();
            assert_eq!(said.lines(1_000, &faults).len(), 1, "{kind:?}");
            let ended = said.lines(13_000, &Faults::default());
            let [FaultLine::Ends(text)] = &ended[..] else { panic!("{kind:?}: {ended:?}") };
            assert!(text.starts_with("over after 12 s: "), "{kind:?}: {text}");
        }
    }

    #[test]
    fn health_names_the_first_and_counts_all() {
        let mut faults = Faults::default();
        assert_eq!(faults.health(), None);
        (0..7).for_each(|number| faults.add(Kind::Unreadable, number.to_string(), format!("f{number}")));
        faults.count(Kind::Unreadable, 100);
        let text = faults.health().unwrap();
        assert!(
            text.starts_with("100 sources can't be read: f0, f1, f2, f3, f4 and 95 more; give"),
            "{text}"
        );
    }
}
