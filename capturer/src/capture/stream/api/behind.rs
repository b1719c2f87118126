//! A follow that falls behind. dockerd (20.10 as well as 28.5) then goes on with the newest file of the log and skips those that
//! were rotated meanwhile, and nothing in its answer shows it. An answer without follow skips nothing: it is made of the files as
//! they were when it was asked for. So is the beginning of each follow.
//!
//! ```text
//! follow ─▶ a line whose time lies a file's length behind the one before it, and one of the two came late?
//!            └ it is not taken ─▶ ask without follow, from the line before it, as long as that takes long ─▶ follow again
//! ```
//! Nothing is taken in another order, and positions are what they always are. What the Engine has no more is declared when that
//! answer does not reach back.
//!
//! Not seen: a skip where no line came late, which needs a dockerd that writes a whole file while it does not come to send a line.

use super::{ApiSource, Then};
use crate::capture::context::Context;
use crate::capture::stream::rotation_guard::RotationGuard;
use crate::decode::timestamp;
use crate::telemetry::metrics::LossReason;

/// No dockerd writes a byte of a log in less time: a file that was skipped lasts so long at least.
const NS_PER_BYTE: i64 = 1;
/// A follow that is later than so much per byte of a file may have fallen behind by a file. Between bounds, so that neither a large
/// file hides a skip nor a small one makes each busy moment one.
const LATE_NS_PER_BYTE: i64 = 5;
const LATE_NS: std::ops::RangeInclusive<i64> = 10_000_000..=100_000_000;
/// Lines that are later by this than the least late one are never taken for usual.
const LATE_MAX_NS: i64 = 1_000_000_000;
/// A record of a json-file is at most so many times as long as the line that the Engine sends of it: a letter may become six.
const RECORD_PER_LINE: u64 = 8;
/// Lines in the first answer of a log of which a whole file may be missing.
const TAIL_BEHIND: u32 = 256_000;
/// The same of the follow after it.
const TAIL_AFTER: u32 = 16_000;
/// While an answer without follow takes so long and has so many new lines, the next is one, too: so much is printed meanwhile that
/// a follow would soon be behind again.
const LONG_MS: u64 = 1_000;
const MANY_LINES: u64 = 1_000;

/// Lines that may have been skipped.
#[derive(Debug)]
struct Doubt {
    /// The last line before them, and the first behind them.
    after_ns: i64,
    before_ns: i64,
    /// So many of them came now.
    found: u64,
    /// The first behind them came as well.
    is_passed: bool,
    /// The answer that shows it has come.
    is_settled: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Size at which a file is rotated; `None` = never.
    file_bytes: Option<u64>,
    /// What came since the log's beginning; `None` = it was not read from there in this run.
    whole_bytes: Option<u64>,
    /// Later than this is late. It doubles each time that nothing was skipped.
    late_ns: i64,
    /// How late the least late line came, if one came: the Engine's clock may be another one.
    least_ns: Option<i64>,
    /// Of the present answer: a jump of so much is one.
    jump_ns: i64,
    /// When it was asked for: what was printed before is in it.
    asked_ns: i64,
    asked_ms: u64,
    /// When its present bytes came.
    came_ns: i64,
    /// Its newest line, and when that came.
    newest_ns: i64,
    newest_came_ns: i64,
    doubt: Option<Doubt>,
}

impl Behind {
    /// Of a log whose files are rotated at this size, read from its beginning or from elsewhere.
    pub(super) fn new(file_bytes: Option<u64>, from_beginning: bool) -> Behind {
        let mut behind = Behind { file_bytes, ..Behind::default() };
        behind.whole_bytes = from_beginning.then_some(0);
        behind.late_ns = behind.late_at_least();
        behind
    }

    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.file_bytes
    }

    fn late_at_least(&self) -> i64 {
        let bytes = self.file_bytes.map_or(0, |bytes| bytes.min(1 << 40) as i64);
        (bytes * LATE_NS_PER_BYTE).clamp(*LATE_NS.start(), *LATE_NS.end())
    }

    /// An answer is asked for.
    fn begin_answer(&mut self, follow: bool, unix_ns: i64, mono_ms: u64) {
        self.jump_ns = match self.file_bytes {
            Some(bytes) if follow => bytes.min(1 << 60) as i64 * NS_PER_BYTE,
            _ => i64::MAX,
        };
        (self.asked_ns, self.asked_ms, self.came_ns) = (unix_ns, mono_ms, unix_ns);
        (self.newest_ns, self.newest_came_ns) = (0, unix_ns);
    }

    /// Bytes of it came.
    pub(super) fn came(&mut self, bytes: usize, unix_ns: i64) {
        if self.newest_ns > self.asked_ns && self.newest_came_ns == self.came_ns {
            let late = (self.came_ns - self.newest_ns).max(0);
            self.least_ns = Some(self.least_ns.map_or(late, |least| least.min(late)));
        }
        self.came_ns = unix_ns;
        self.whole_bytes = self.whole_bytes.map(|whole| whole + bytes as u64);
    }

    /// A line begins. Whether others may have been skipped right before it; then it is not counted as come.
    pub(super) fn is_behind(&mut self, time_ns: i64) -> bool {
        let after = self.newest_ns.max(self.asked_ns);
        let jumps = time_ns.saturating_sub(after) >= self.jump_ns;
        if jumps && self.least_ns.is_none() {
            // Nothing shows yet what is usual.
            self.least_ns = Some(self.came_ns.saturating_sub(time_ns).max(0));
        }
        if jumps && self.late(time_ns, after) >= self.late_ns && self.may_have_rotated() {
            return true;
        }
        self.take(time_ns);
        false
    }

    pub(super) fn take(&mut self, time_ns: i64) {
        if time_ns > self.newest_ns {
            (self.newest_ns, self.newest_came_ns) = (time_ns, self.came_ns);
        }
    }

    /// How late the later of the two lines came.
    fn late(&self, time_ns: i64, after: i64) -> i64 {
        let late = self.came_ns.saturating_sub(time_ns).max(self.newest_came_ns.saturating_sub(after));
        late - self.least_ns.unwrap_or(0)
    }

    /// What came fills a file, as far as is known.
    fn may_have_rotated(&self) -> bool {
        let file = self.file_bytes.unwrap_or(u64::MAX);
        self.whole_bytes.is_none_or(|whole| whole.saturating_mul(RECORD_PER_LINE) >= file)
    }

    /// A line is delivered.
    pub(super) fn delivered(&mut self, time_ns: i64) {
        if let Some(doubt) = &mut self.doubt {
            // What comes behind it may be older, but is of the other channel.
            doubt.is_passed |= time_ns >= doubt.before_ns;
            doubt.found += u64::from(!doubt.is_passed && time_ns > doubt.after_ns);
        }
    }

    /// An answer without follow has ended. Returns what was skipped and came now, with its bounds, the first time.
    fn settle(&mut self) -> Option<(u64, i64, i64)> {
        let doubt = self.doubt.as_mut().filter(|doubt| !doubt.is_settled)?;
        doubt.is_settled = true;
        let told = (doubt.found, doubt.after_ns, doubt.before_ns);
        self.late_ns = match told.0 {
            0 => (self.late_ns * 2).min(LATE_MAX_NS),
            _ => self.late_at_least(),
        };
        (told.0 > 0).then_some(told)
    }

    /// Time has passed: what was usual then may be no more.
    pub(super) fn relax(&mut self) {
        self.late_ns = (self.late_ns / 2).max(self.late_at_least());
    }
}

impl ApiSource {
    /// Its log's files are rotated at this size; `None` = never.
    pub fn with_rotation(mut self, file_bytes: Option<u64>) -> ApiSource {
        self.behind = Behind::new(file_bytes, self.cursor.is_beginning());
        self
    }

    pub(super) fn note_asked(&mut self, follow: bool, cx: &Context<'_>) {
        self.behind.begin_answer(follow, cx.now.unix_ns, cx.now.mono_ms);
    }

    /// The answer has begun. A follow begins with all there is, so it brings what another skipped.
    pub(super) fn note_begun(&mut self) {
        if self.answer.follow {
            self.behind.doubt = None;
            self.is_whole = false;
        }
    }

    /// Lines may have been skipped before the one with this time: whether to ask for them. Where the files can be read, they show
    /// it; of a container that is gone there is nothing to ask.
    pub(super) fn asks_for_skipped(&mut self, time_ns: i64, cx: &Context<'_>) -> bool {
        if self.gone {
            cx.metrics.possibly_lost(LossReason::EngineSkippedRotation);
        } else if !self.guard.as_ref().is_some_and(RotationGuard::is_readable) {
            let after_ns = self.behind.newest_ns.max(self.behind.asked_ns);
            let doubt = Doubt { after_ns, before_ns: time_ns, found: 0, is_passed: false, is_settled: false };
            self.behind.doubt = Some(doubt);
            return true;
        }
        self.behind.take(time_ns);
        false
    }

    /// The follow is left, and what it may have skipped is asked for.
    pub(super) fn ask_for_skipped(&mut self, cx: &mut Context<'_>) {
        self.tail = self.tail.map(|tail| tail.max(TAIL_BEHIND));
        self.close(Then::CatchUp, cx);
    }

    /// An answer without follow has ended, which was asked for because of a follow that was behind. Returns whether all is done
    /// about its end.
    pub(super) fn follow_again(&mut self, cx: &mut Context<'_>) -> bool {
        if self.answer.follow {
            return false;
        }
        if let Some((lines, after_ns, before_ns)) = self.behind.settle() {
            tracing::info!(
                container = %self.container_id,
                lines,
                after = %timestamp::format(after_ns),
                before = %timestamp::format(before_ns),
                "the Engine's follow fell behind and skipped lines of a rotated log: another answer brought them"
            );
        }
        if self.behind.doubt.is_none() || !self.running || self.gone {
            // Nothing more is printed: what all ends are followed by is enough.
            self.behind.doubt = None;
            return false;
        }
        let took_ms = cx.now.mono_ms - self.behind.asked_ms;
        let goes_on = took_ms >= LONG_MS && self.answer.new_lines >= MANY_LINES;
        self.tail = Some(TAIL_AFTER);
        let then = match goes_on {
            // Its place in the line is given up, as at each rotation.
            _ if cx.pool.anyone_waits() => Then::Rotate,
            true => Then::CatchUp,
            false => Then::Open,
        };
        if then != Then::CatchUp {
            self.behind.doubt = None;
        }
        self.close(then, cx);
        true
    }

    /// Its container can't be asked any more. What it may have skipped is not known.
    pub(super) fn leave_doubt(&mut self, cx: &Context<'_>) {
        if let Some(doubt) = self.behind.doubt.take().filter(|doubt| !doubt.is_settled) {
            cx.metrics.possibly_lost(LossReason::EngineSkippedRotation);
            tracing::debug!(
                container = %self.container_id,
                after = %timestamp::format(doubt.after_ns),
                before = %timestamp::format(doubt.before_ns),
                "the Engine's follow fell behind, and its container is gone: what it skipped may be lost"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const MIB: u64 = 1024 * 1024;

    /// Whether the last of these lines, with the times at which they came, shows that the follow is behind. It was asked for at
    /// 1,000 ms.
    fn shows(file_bytes: Option<u64>, whole_bytes: Option<usize>, lines: &[(i64, i64)]) -> bool {
        let mut behind = Behind::new(file_bytes, whole_bytes.is_some());
        behind.begin_answer(true, 1_000 * MS, 1_000);
        behind.came(whole_bytes.unwrap_or(0), 1_000 * MS);
        let (last, before) = lines.split_last().expect("a line");
        for (time, came) in before {
            behind.came(0, came * MS);
            assert!(!behind.is_behind(time * MS), "{time}");
        }
        behind.came(0, last.1 * MS);
        behind.is_behind(last.0 * MS)
    }

    #[test]
    fn a_follow_is_behind_where_a_late_line_jumps() {
        let file = Some(20 * MIB);
        for (what, lines, expected) in [
            ("the line before it came late", &[(2_000, 2_001), (2_010, 4_000), (3_900, 4_000)][..], true),
            ("it came late itself", &[(2_000, 2_001), (3_000, 3_001), (3_900, 4_100)], true),
            ("none came late", &[(2_000, 2_001), (3_000, 3_001), (3_900, 3_901)], false),
            ("late, and no jump", &[(2_000, 2_001), (2_010, 4_000), (2_020, 4_010)], false),
            ("what was printed before it was asked for", &[(100, 1_001), (900, 1_400)], false),
            ("the first behind that, which took long", &[(100, 1_001), (900, 1_400), (1_300, 1_450)], true),
            ("after a long silence", &[(100, 1_001), (90_000, 90_001)], false),
            ("the Engine's clock is late", &[(2_000, 5_000), (3_000, 6_000), (3_900, 6_910)], false),
            ("the clock was set back", &[(2_000, 2_001), (1_500, 2_500)], false),
        ] {
            assert_eq!(shows(file, None, lines), expected, "{what}");
            assert!(!shows(None, None, lines), "a log that is not rotated: {what}");
        }
        let jump = [(2_000, 2_001), (2_010, 4_000), (3_900, 4_000)];
        assert!(!shows(file, Some(1_000), &jump), "what was printed so far fills no file");
        assert!(shows(file, Some(20 << 20), &jump));
        assert!(
            shows(Some(64 * 1024), None, &[(2_000, 2_001), (3_000, 3_005), (3_001, 3_016)]),
            "a small file"
        );
    }

    #[test]
    fn what_is_usual_is_not_late() {
        let mut behind = Behind::new(Some(20 * MIB), false);
        let doubt = || Doubt { after_ns: 1, before_ns: 5, found: 0, is_passed: false, is_settled: false };
        for late_ms in [200, 400, 800, 1_000, 1_000] {
            behind.doubt = Some(doubt());
            behind.delivered(5);
            behind.delivered(3); // of the other channel
            assert_eq!((behind.settle(), behind.late_ns), (None, late_ms * MS));
            assert_eq!(behind.settle(), None);
        }
        behind.relax();
        assert_eq!(behind.late_ns, 500 * MS);
        behind.doubt = Some(doubt());
        (1..=6).for_each(|time| behind.delivered(time));
        assert_eq!((behind.settle(), behind.late_ns), (Some((3, 1, 5)), 100 * MS));
        behind.relax();
        assert_eq!(behind.late_ns, 100 * MS);
    }
}
