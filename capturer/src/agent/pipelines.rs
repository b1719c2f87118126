//! Notes on pipelines that drop every line, take no source, or have a step that fails on nearly every line. Each may be what
//! somebody wants, and so is no fault. But it is more often a mistake in the config, and nothing else would show it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::outcome::RATE_LIMIT;
use crate::settings::Settings;
use crate::telemetry::metrics::{Drops, Work};
use crate::text::counted::counted;

/// How far back `look` compares.
const WINDOW_MS: u64 = 5 * 60_000;
/// A pipeline must have dropped everything for at least this long before the note names it.
const LEAST_MS: u64 = 60_000;
/// How often a mark is added to the window.
const MARK_EVERY_MS: u64 = 10_000;
/// A step must have failed on at least so many lines, and on at least [`FAILING_PERCENT`] of those it looked at.
const FAILING_LEAST: u64 = 10;
const FAILING_PERCENT: u64 = 90;

/// Counts of each pipeline at earlier moments.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    marks: BTreeMap<String, VecDeque<CountsAt>>,
    /// Counts of each pipeline's kinds of step at earlier moments.
    work: BTreeMap<(String, String), VecDeque<WorkAt>>,
    /// What each kind of step had done when this run began.
    work_before: BTreeMap<(String, String), Work>,
    /// Lines that each pipeline's rate limit had dropped when this run began, and the pipelines reported since.
    limited: BTreeMap<String, u64>,
    told_limited: BTreeSet<String>,
}

/// A pipeline's counts at one moment.
#[derive(Clone, Copy, Debug)]
struct CountsAt {
    at_ms: u64,
    came: u64,
    dropped: u64,
}

/// What a kind of step had done at one moment.
#[derive(Clone, Copy, Debug)]
struct WorkAt {
    at_ms: u64,
    work: Work,
}

/// What health says of pipelines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// At least one pipeline lets nothing through, or has a step that fails.
    pub note: bool,
    /// A sentence with every pipeline.
    pub text: String,
}

impl Pipelines {
    /// `drops` are the counts at the beginning of the run.
    pub(super) fn new(drops: &BTreeMap<String, Drops>) -> Pipelines {
        let limited = drops.iter().map(|(name, drops)| (name.clone(), by_limit(drops))).collect();
        let steps = |(name, drops): (&String, &Drops)| {
            let name = name.clone();
            let work = drops.work.clone().into_iter();
            work.map(move |(step, work)| ((name.clone(), step), work))
        };
        let work_before = drops.iter().flat_map(steps).collect();
        Pipelines { limited, work_before, ..Pipelines::default() }
    }

    /// A sentence for each pipeline whose rate limit drops its first line of this run.
    pub(super) fn begin_to_limit(&mut self, drops: &BTreeMap<String, Drops>) -> Vec<String> {
        let mut told = Vec::new();
        for (name, drops) in drops {
            let before = self.limited.get(name).copied().unwrap_or(0);
            if by_limit(drops) > before && self.told_limited.insert(name.clone()) {
                told.push(format!(
                    "pipeline {name}: its rate_limit drops lines (over: drop), which pipeline_lines_total counts; with \
                     over: wait they would stay in their log until there is room"
                ));
            }
        }
        told
    }

    /// `drops` count since the process began and only grow.
    pub(super) fn look(&mut self, now_ms: u64, drops: &BTreeMap<String, Drops>) -> Said {
        self.marks.retain(|name, _| drops.contains_key(name));
        let (mut silent, mut others) = (Vec::new(), Vec::new());
        for (name, now) in drops {
            let mark = CountsAt { at_ms: now_ms, came: now.came, dropped: now.dropped };
            match self.nothing_since(name, mark) {
                Some(before) => {
                    let lines = now.came - before.came;
                    let seconds = (now_ms - before.at_ms) / 1000;
                    silent.push(format!(
                        "{name} dropped {} of the last {seconds} s ({})",
                        if lines == 1 { "the one line".to_owned() } else { format!("all {lines} lines") },
                        by_step(now)
                    ));
                }
                None => {
                    let all = counted(now.came, "line");
                    others.push(format!("{name} dropped {} of {all} in this run", now.dropped));
                }
            }
        }
        let failing = self.failing(now_ms, drops);
        let note = !silent.is_empty() || !failing.is_empty();
        let mut text = silent.join("; ");
        if !silent.is_empty() {
            text += "; if that is not intended, capturer try shows which step drops a line, and capturer check warns of \
                      fields that no step makes";
        }
        if !failing.is_empty() {
            text += if text.is_empty() { "" } else { "; " };
            text += &failing.join("; ");
            text += "; those lines went on without what the step should have made of them; capturer tap shows such lines, and \
                      capturer try what each step does to them";
        }
        for other in others {
            text += if text.is_empty() { "" } else { "; " };
            text += &other;
        }
        Said { note, text }
    }

    /// A clause for each pipeline and kind of step that fails on nearly every line.
    fn failing(&mut self, now_ms: u64, drops: &BTreeMap<String, Drops>) -> Vec<String> {
        let is_there =
            |(name, step): &(String, String)| drops.get(name).is_some_and(|it| it.work.contains_key(step));
        self.work.retain(|key, _| is_there(key));
        let mut failing = Vec::new();
        for (name, of_pipeline) in drops {
            for (step, work) in &of_pipeline.work {
                let key = (name.clone(), step.clone());
                let before = self.work_before.get(&key).copied().unwrap_or_default();
                let begun = || VecDeque::from([WorkAt { at_ms: now_ms, work: before }]);
                let marks = self.work.entry(key).or_insert_with(begun);
                let Some(before) = worked_since(marks, WorkAt { at_ms: now_ms, work: *work }) else {
                    continue;
                };
                let (failed, all) = (work.failed - before.work.failed, work.lines() - before.work.lines());
                if failed >= FAILING_LEAST && failed * 100 >= all * FAILING_PERCENT {
                    let lines = if failed == all {
                        format!("all of its last {all} lines")
                    } else {
                        format!("{failed} of its last {all} lines")
                    };
                    failing.push(format!("pipeline {name}: {step} failed on {lines}"));
                }
            }
        }
        failing
    }

    /// The mark since which lines came and none passed, if it is at least [`LEAST_MS`] old.
    fn nothing_since(&mut self, name: &str, now: CountsAt) -> Option<CountsAt> {
        let marks = self.marks.entry(name.to_owned()).or_default();
        if marks.back().is_none_or(|last| now.at_ms >= last.at_ms + MARK_EVERY_MS) {
            marks.push_back(now);
        }
        while marks.len() > 1 && marks[1].at_ms + WINDOW_MS <= now.at_ms {
            marks.pop_front();
        }
        // Lines that wait in a step, as in dedup, have come and are not dropped: they pass later.
        let passed = |mark: &CountsAt| mark.came.saturating_sub(mark.dropped);
        let first = marks.iter().find(|mark| passed(mark) == passed(&now))?;
        (now.at_ms >= first.at_ms + LEAST_MS && now.dropped > first.dropped).then_some(*first)
    }
}

/// The mark with which to compare: at least [`LEAST_MS`] old, and not older than the window, unless too few lines came
/// since.
fn worked_since(marks: &mut VecDeque<WorkAt>, now: WorkAt) -> Option<WorkAt> {
    let is_due = |last: &WorkAt| now.at_ms >= last.at_ms + MARK_EVERY_MS && now.work != last.work;
    if marks.back().is_none_or(is_due) {
        marks.push_back(now);
    }
    let is_enough = |mark: &WorkAt| {
        mark.at_ms + WINDOW_MS <= now.at_ms && now.work.lines() - mark.work.lines() >= FAILING_LEAST
    };
    while marks.len() > 1 && is_enough(&marks[1]) {
        marks.pop_front();
    }
    marks.front().copied().filter(|mark| now.at_ms >= mark.at_ms + LEAST_MS)
}

fn by_limit(drops: &Drops) -> u64 {
    drops.by_step.get(RATE_LIMIT).copied().unwrap_or(0)
}

fn by_step(drops: &Drops) -> String {
    let steps = drops.by_step.iter().map(|(step, lines)| format!("{step}: {lines} in this run"));
    steps.collect::<Vec<_>>().join(", ")
}

/// Pipelines that take no source. Lines that such a pipeline was meant to redact or drop are delivered unchanged.
#[derive(Debug, Default)]
pub(super) struct Unused {
    /// Since when all sources have been listed.
    since_ms: Option<u64>,
    /// When each pipeline was reported, by its name.
    told: BTreeMap<String, u64>,
}

/// What the log and health say of unused pipelines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnusedSaid {
    /// A sentence per unused pipeline.
    pub texts: Vec<String>,
    /// The sentences that are new.
    pub begin: Vec<String>,
    /// Pipelines that take a source now, with how many seconds they took none.
    pub end: Vec<(String, u64)>,
}

impl Unused {
    /// Call this once all sources have been listed.
    pub(super) fn look(
        &mut self,
        now_ms: u64,
        settings: &Settings,
        is_used: impl Fn(&str) -> bool,
    ) -> UnusedSaid {
        let mut said = UnusedSaid::default();
        let since_ms = self.since_ms.get_or_insert(now_ms);
        if now_ms < *since_ms + LEAST_MS {
            return said;
        }
        for pipeline in &settings.pipelines {
            let name = &pipeline.name;
            if is_used(name) {
                let told = self.told.remove(name);
                said.end.extend(told.map(|since_ms| (name.clone(), now_ms.saturating_sub(since_ms) / 1000)));
            } else if !pipeline.may_be_unused(&settings.file_monitor.files) {
                let text = format!(
                    "pipeline {name} takes nothing: its match fits no source that is followed, or a pipeline before it takes them \
                     all; capturer check shows what the patterns match"
                );
                if self.told.insert(name.clone(), *since_ms).is_none() {
                    said.begin.push(text.clone());
                }
                said.texts.push(text);
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::settings::pipeline::Match;
    use crate::settings::{FileSet, PathPattern, Pipeline};

    /// Otherwise a typo in `match` would be silent, and lines meant to be redacted would be delivered as they are.
    #[test]
    fn one_whose_match_fits_nothing_is_told_after_a_minute() {
        let pipeline = |name: &str, matches: Match| {
            Arc::new(Pipeline { name: name.to_owned(), matches, ..Pipeline::default() })
        };
        let of = |path: &str| Match { paths: vec![PathPattern::new(path).unwrap()], ..Match::default() };
        let mut settings = Settings {
            pipelines: vec![pipeline("pay", of("/logs/*")), pipeline("all", Match::default())],
            ..Settings::default()
        };
        let mut unused = Unused::default();
        assert_eq!(unused.look(1_000, &settings, |_| false), UnusedSaid::default());
        assert_eq!(unused.look(60_999, &settings, |_| false), UnusedSaid::default());
        let said = unused.look(61_000, &settings, |_| false);
        assert!(said.texts.len() == 1 && said.texts[0].contains("pipeline pay takes nothing"), "{said:?}");
        assert_eq!((said.begin.len(), said.end.len()), (1, 0));
        let said = unused.look(62_000, &settings, |_| false);
        assert_eq!((said.texts.len(), said.begin.len(), said.end.len()), (1, 0, 0), "the log has it once");
        let said = unused.look(63_000, &settings, |name| name == "pay");
        assert_eq!(said, UnusedSaid { end: vec![("pay".to_owned(), 62)], ..UnusedSaid::default() });
        assert_eq!(unused.look(64_000, &settings, |name| name == "pay"), UnusedSaid::default());
        // The config allows its files to be missing (`may_be_empty`).
        let paths = vec![PathPattern::new("/logs/*").unwrap()];
        let files = vec![FileSet { paths, may_be_empty: true, ..FileSet::default() }];
        settings.file_monitor.files = files;
        assert_eq!(unused.look(65_000, &settings, |_| false), UnusedSaid::default());
    }

    fn drops(came: u64, dropped: u64) -> BTreeMap<String, Drops> {
        let by_step = BTreeMap::from([("keep".to_owned(), dropped)]);
        BTreeMap::from([("web".to_owned(), Drops { came, dropped, by_step, ..Drops::default() })])
    }

    fn parsed(done: u64, failed: u64) -> BTreeMap<String, Drops> {
        let work = BTreeMap::from([("parse".to_owned(), Work { done, failed })]);
        BTreeMap::from([("web".to_owned(), Drops { came: done + failed, work, ..Drops::default() })])
    }

    /// The usual mistake of a first config: the lines go on, but without level, labels and time.
    #[test]
    fn a_step_that_fails_on_every_line_is_told_after_a_minute() {
        let mut pipelines = Pipelines::default();
        assert!(!pipelines.look(0, &parsed(0, 100)).note);
        assert!(!pipelines.look(50_000, &parsed(0, 200)).note, "not for long yet");
        let said = pipelines.look(61_000, &parsed(0, 246));
        assert!(
            said.note && said.text.contains("pipeline web: parse failed on all of its last 246 lines"),
            "{said:?}"
        );
        // What failed in an earlier run is not held against a corrected config.
        let mut corrected = Pipelines::new(&parsed(0, 246));
        assert!(
            !corrected.look(62_000, &parsed(0, 246)).note && !corrected.look(200_000, &parsed(40, 246)).note
        );
        // As long as nothing else comes, nothing has changed.
        assert!(pipelines.look(3_600_000, &parsed(0, 246)).note);
        assert!(!pipelines.look(3_600_100, &parsed(100, 246)).note, "{said:?}");
    }

    #[test]
    fn a_step_that_fails_on_some_lines_is_not_told() {
        let mut pipelines = Pipelines::default();
        for second in 0..2_000u64 {
            let said = pipelines.look(second * 1_000, &parsed(second * 2, second * 8));
            assert!(!said.note, "at {second}: {said:?}");
        }
        // From here on it fails on all: the window forgets what went well.
        let told = (2_000..2_400u64)
            .find(|second| pipelines.look(second * 1_000, &parsed(4_000, second * 10 - 4_000)).note);
        assert!(told.is_some_and(|second| second > 2_060), "{told:?}");
        assert!(pipelines.work.values().all(|marks| marks.len() < 60), "bounded");
    }

    #[test]
    fn few_lines_are_no_evidence() {
        let mut pipelines = Pipelines::default();
        assert!(!pipelines.look(0, &parsed(0, 2)).note);
        assert!(!pipelines.look(120_000, &parsed(0, 9)).note);
        // A line in ten minutes is a slow log, not a healthy one.
        let told = (1..30u64).find(|ten| pipelines.look(ten * 600_000, &parsed(0, 9 + ten)).note);
        assert_eq!(told, Some(1));
    }

    #[test]
    fn one_that_lets_nothing_through_is_told() {
        let mut pipelines = Pipelines::default();
        assert!(!pipelines.look(0, &drops(0, 0)).note);
        assert!(!pipelines.look(30_000, &drops(10, 10)).note, "not for long yet");
        let said = pipelines.look(61_000, &drops(20, 20));
        assert!(said.note && said.text.contains("web dropped all 20 lines of the last 61 s"), "{said:?}");
        assert!(said.text.contains("keep: 20 in this run"), "{said:?}");
        let said = pipelines.look(62_000, &drops(21, 20));
        assert_eq!(said, Said { note: false, text: "web dropped 20 of 21 lines in this run".to_owned() });
        // After the next mark the pipeline has a minute again.
        assert!(!pipelines.look(100_000, &drops(30, 29)).note);
        assert!(pipelines.look(170_000, &drops(40, 39)).note);
    }

    #[test]
    fn a_rate_limit_that_drops_is_told_once_in_a_run() {
        let limited = |lines: u64| {
            let by_step = BTreeMap::from([("rate_limit".to_owned(), lines)]);
            BTreeMap::from([(
                "web".to_owned(),
                Drops { came: 100, dropped: lines, by_step, ..Drops::default() },
            )])
        };
        let mut pipelines = Pipelines::new(&limited(5));
        assert!(pipelines.begin_to_limit(&limited(5)).is_empty(), "that was the run before");
        assert_eq!(pipelines.begin_to_limit(&limited(6)).len(), 1);
        assert!(pipelines.begin_to_limit(&limited(7)).is_empty());
        assert!(Pipelines::default().begin_to_limit(&drops(5, 5)).is_empty(), "another step dropped them");
    }

    #[test]
    fn one_that_is_given_nothing_is_not() {
        let mut pipelines = Pipelines::default();
        for second in 0..1_000 {
            assert!(!pipelines.look(second * 1_000, &drops(0, 0)).note);
        }
        // What was dropped long ago does not count now.
        pipelines.look(1_000_000, &drops(5, 5));
        assert!(pipelines.look(1_070_000, &drops(5, 5)).note);
        for second in 1_070..1_400 {
            pipelines.look(second * 1_000, &drops(5, 5));
        }
        assert!(!pipelines.look(1_400_000, &drops(5, 5)).note);
        assert!(pipelines.marks["web"].len() < 40, "bounded");
    }
}
