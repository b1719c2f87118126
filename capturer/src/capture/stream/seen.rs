//! Which lines of an answer were delivered before. The Engine can't be asked for "what comes after this line", so each
//! answer begins with known lines, and around a rotation Docker 20.10 even sends a whole rotated file again.
//!
//! Within a channel times never decrease, so the newest delivered line (its time, and how many lines had exactly that
//! time) says almost everything, and survives a restart in the cursor. Almost: if a clock is set back, new lines have
//! old times. So the last delivered lines are also remembered by their content, and a line from the past that is not
//! among them is new.
//!
//! ```text
//!            older than the newest, and among the last ─▶ again
//! replaying ─┤ of the newest's time: by count
//!            └ newer, and not among the last ─▶ new; from here on live
//! live ─┬ older than the newest ─┬ among the last ─▶ again, replaying
//!       │                        └ not ─▶ new: the clock was set back, or the Engine had skipped it
//!       ├ newer, but not than all that is remembered, and among the last ─▶ again, replaying
//!       └ of the newest's time ─┬ equal to it, where no two lines have one time ─▶ again, replaying
//!                               └ not ─▶ new
//! ```

use std::collections::VecDeque;

use crate::model::cursor::ChannelMark;

/// Lines remembered per channel, 16 bytes each. Docker 20.10 was seen to send 6,600 again: a whole rotated file of 500 kB.
const REMEMBERED_MAX: usize = 8192;

/// So many lines in a row with different times show that this host's clock distinguishes lines.
const APART_MIN: usize = 16;

/// What identifies a line: its time, and length and CRC-32 of its first piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Length of the first piece in bytes.
    pub len: u32,
    /// CRC-32 of the first piece.
    pub crc32: u32,
}

impl Key {
    /// The key of a line that begins with this piece.
    pub fn new(time_ns: i64, piece: &[u8]) -> Key {
        Key { time_ns, len: piece.len() as u32, crc32: crc32fast::hash(piece) }
    }
}

/// Lines seen on one channel.
#[derive(Debug, Default)]
pub struct Seen {
    last: VecDeque<Key>,
    /// None of the remembered lines is newer.
    newest_ns: i64,
    /// Index behind the last line that came again: repeated lines come in the order in which they were delivered.
    next: usize,
    /// In the current answer: lines were known until a new one came.
    live: bool,
    /// A new line came in this run. Lines from before it are known by the mark and remembered, because they may be sent
    /// again.
    filled: bool,
    /// In the current answer: a line came.
    began: bool,
    /// In the current answer: the time of the last line that began, and how many lines in a row had it.
    begun: (i64, u32),
    /// In the current answer: the clock was set back behind the newest line, so older times say nothing behind that line.
    by_order: bool,
    /// Then: that line came, and what follows it is new unless it is remembered.
    passed: bool,
}

impl Seen {
    /// An answer begins. `by_order`: the clock was set back behind the newest line, so that lines printed since are older.
    pub fn begin_answer(&mut self, by_order: bool) {
        self.by_order = by_order;
        self.passed = false;
        self.live = false;
        self.began = false;
        self.begun = (0, 0);
    }

    /// In an answer judged by its order: the newest delivered line came.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// A line begins; returns whether it is new. `mark` is the newest delivered line.
    pub fn is_new(&mut self, key: Key, mark: &ChannelMark) -> bool {
        let first = !std::mem::replace(&mut self.began, true);
        // While lines come in order, nothing is searched. After a clock that was set back, or lines that Docker 20.10
        // skipped and sends later, delivered lines may come again.
        let is_newest = self.live && key.time_ns == mark.time_ns && key.time_ns == self.newest_ns;
        let at = if is_newest { None } else { self.find(key) };
        self.next = at.map_or(self.next, |at| at + 1);
        let is_known = at.is_some();
        let count = if self.begun.0 == key.time_ns { self.begun.1 + 1 } else { 1 };
        // Of a stream that began at its log's end no line is the newest: there the step itself is looked for.
        self.passed |= self.by_order && mark.count == 0 && key.time_ns < self.begun.0;
        self.begun = (key.time_ns, count);
        let new = if key.time_ns > mark.time_ns {
            !is_known
        } else if key.time_ns == mark.time_ns {
            if self.live { !self.is_last_again(key) } else { count > mark.count }
        } else {
            // The first line of an answer may be the middle of a long one, so its content can't identify it.
            let is_old = !self.live && !self.passed && (!self.filled || self.is_before_all(key));
            !(first || is_known || is_old)
        };
        self.passed |= self.by_order && key.time_ns == mark.time_ns && count >= mark.count;
        self.filled |= new;
        if !self.filled && !is_known {
            self.remember(key);
        }
        self.live = new;
        new
    }

    /// Whether it is the newest line again, and not another one with the same time and text. Docker 20.10 begins the
    /// first file again when a log was just rotated, and that may begin with the newest line.
    fn is_last_again(&self, key: Key) -> bool {
        let times: Vec<i64> = self.last.iter().rev().take(APART_MIN).map(|key| key.time_ns).collect();
        let are_apart = times.len() == APART_MIN && times.windows(2).all(|pair| pair[0] != pair[1]);
        are_apart && self.last.back() == Some(&key)
    }

    /// Whether it is older than all remembered lines; lines with the oldest one's time were forgotten just before it.
    fn is_before_all(&self, key: Key) -> bool {
        self.last.front().is_none_or(|oldest| key.time_ns <= oldest.time_ns)
    }

    /// Whether this line is remembered.
    pub fn remembers(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    /// Index of this line among the remembered ones. All of them are searched only where the clock was set back, and
    /// where lines begin to come again.
    fn find(&self, key: Key) -> Option<usize> {
        if key.time_ns > self.newest_ns {
            return None;
        }
        if self.last.get(self.next) == Some(&key) {
            return Some(self.next);
        }
        self.last.iter().position(|last| *last == key)
    }

    /// This many of the last delivered lines were not delivered after all, and will come again.
    pub fn take_back(&mut self, lines: usize) {
        self.last.truncate(self.last.len().saturating_sub(lines));
    }

    fn remember(&mut self, key: Key) {
        if self.last.len() >= REMEMBERED_MAX {
            let gone = self.last.pop_front();
            self.next = self.next.saturating_sub(1);
            // After a clock was set back, lines are soon newer than all remembered ones.
            if gone.is_some_and(|gone| gone.time_ns == self.newest_ns) {
                self.newest_ns = self.last.iter().map(|key| key.time_ns).max().unwrap_or(0);
            }
        }
        self.newest_ns = self.newest_ns.max(key.time_ns);
        self.last.push_back(key);
    }

    /// A new line is complete: it is delivered, and the newest from now on.
    pub fn delivered(&mut self, key: Key, mark: &mut ChannelMark) {
        self.remember(key);
        mark.count_in(key.time_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as times, one after the other; returns what is new in each. A letter distinguishes lines with equal
    /// times.
    fn new_lines(answers: &[&[(i64, &str)]]) -> Vec<Vec<(i64, String)>> {
        let (mut seen, mut mark) = (Seen::default(), ChannelMark::default());
        let mut out = Vec::new();
        for answer in answers {
            seen.begin_answer(false);
            let mut new = Vec::new();
            for (time, text) in *answer {
                let key = Key::new(*time, text.as_bytes());
                if seen.is_new(key, &mark) {
                    seen.delivered(key, &mut mark);
                    new.push((*time, (*text).to_owned()));
                }
            }
            out.push(new);
        }
        out
    }

    fn check(answers: &[&[(i64, &str)]], expected: &[&[(i64, &str)]]) {
        let expected: Vec<Vec<_>> = expected
            .iter()
            .map(|new| new.iter().map(|(time, text)| (*time, (*text).to_owned())).collect())
            .collect();
        assert_eq!(new_lines(answers), expected);
    }

    #[test]
    fn overlaps_are_dropped() {
        check(
            &[&[(1, "a"), (2, "b")], &[(1, "a"), (2, "b"), (3, "c")]],
            &[&[(1, "a"), (2, "b")], &[(3, "c")]],
        );
        check(&[&[(1, "a"), (2, "b")], &[(2, "b")], &[(9, "z")]], &[&[(1, "a"), (2, "b")], &[], &[(9, "z")]]);
    }

    /// Lines with equal times, even with equal text, are told apart by their number.
    #[test]
    fn equal_times_are_counted() {
        let (one, two, three) = ((5, "x"), (5, "x"), (5, "x"));
        check(&[&[one, two], &[one, two, three]], &[&[one, two], &[three]]);
        check(
            &[&[(4, "a"), one], &[(4, "a"), one, two], &[one, two, three]],
            &[&[(4, "a"), one], &[two], &[three]],
        );
    }

    /// Docker 20.10 goes back within an answer and sends lines again.
    #[test]
    fn lines_sent_again_within_an_answer_are_dropped() {
        let answer = [(1, "a"), (2, "b"), (3, "c"), (2, "b"), (3, "c"), (4, "d")];
        check(&[&answer], &[&[(1, "a"), (2, "b"), (3, "c"), (4, "d")]]);
    }

    /// It may go back by only one line. If the clock is too coarse to tell lines apart, that would be another line.
    #[test]
    fn the_newest_line_sent_again_is_dropped() {
        let texts: Vec<String> = (0..APART_MIN).map(|number| number.to_string()).collect();
        for (step, expected) in [(1, 1), (0, 2)] {
            let mut answer: Vec<(i64, &str)> =
                (0..).zip(&texts).map(|(at, text)| (at * step + 1, text.as_str())).collect();
            let last = *answer.last().expect("there are lines");
            answer.extend([last, (100, "new")]);
            let new = &new_lines(&[&answer])[0];
            let twins = new.iter().filter(|(time, text)| (*time, text.as_str()) == last).count();
            assert_eq!(twins, expected, "{new:?}");
            assert_eq!(new.last().map(|(time, _)| *time), Some(100));
        }
    }

    /// The clock is set back: lines with old times are new, and after a reconnect they are known.
    #[test]
    fn a_clock_set_back_loses_nothing() {
        check(
            &[
                &[(100, "a"), (101, "b"), (50, "c"), (51, "d")],
                &[(101, "b"), (50, "c"), (51, "d"), (52, "e")],
            ],
            &[&[(100, "a"), (101, "b"), (50, "c"), (51, "d")], &[(52, "e")]],
        );
    }

    /// The same while no connection is open, and with a new agent, which knows only the newest line. Nothing was lost but the
    /// first line of an answer: it may be the middle of a long one.
    #[test]
    fn a_clock_set_back_between_two_answers_loses_nothing() {
        let before = [(100, "a"), (101, "b"), (102, "c")];
        let after = [(100, "a"), (101, "b"), (102, "c"), (5, "d"), (6, "e"), (5, "f")];
        for knows in [true, false] {
            let (mut seen, mut mark) = (Seen::default(), ChannelMark::default());
            let mut new = |seen: &mut Seen, answer: &[(i64, &str)], by_order| {
                seen.begin_answer(by_order);
                let mut new = String::new();
                for (time, text) in answer {
                    let key = Key::new(*time, text.as_bytes());
                    if seen.is_new(key, &mark) {
                        seen.delivered(key, &mut mark);
                        new += text;
                    }
                }
                new
            };
            assert_eq!(new(&mut seen, &before, false), "abc");
            if !knows {
                seen = Seen::default();
            }
            assert_eq!(new(&mut seen, &after, true), "def", "{knows}");
            assert_eq!(new(&mut seen, &[&after[..], &[(7, "g")]].concat(), false), "g", "{knows}");
        }
        // It began at the log's end: the first line is from before that.
        let (mut seen, mark) = (Seen::default(), ChannelMark { time_ns: 200, count: 0 });
        seen.begin_answer(true);
        let mut new = |time, text: &str| seen.is_new(Key::new(time, text.as_bytes()), &mark);
        assert_eq!([new(100, "a"), new(101, "b"), new(5, "c"), new(6, "d")], [false, false, true, true]);
    }

    /// With the driver `local`, Docker 20.10 skips lines of a rotating log, sends them later, and then sends again what
    /// it had sent already.
    #[test]
    fn lines_sent_again_behind_skipped_ones_are_dropped() {
        let answer =
            [(1, "a"), (5, "e"), (6, "f"), (2, "b"), (3, "c"), (5, "e"), (6, "f"), (7, "g"), (8, "h")];
        let new = [(1, "a"), (5, "e"), (6, "f"), (2, "b"), (3, "c"), (7, "g"), (8, "h")];
        check(&[&answer, &[(7, "g"), (8, "h"), (9, "i")]], &[&new, &[(9, "i")]]);
    }

    /// Docker 20.10 sends a rotated file of 500 kB with short lines again, from its first line on.
    #[test]
    fn a_rotated_file_sent_again_is_dropped() {
        let texts: Vec<String> = (0..6_600).map(|number| number.to_string()).collect();
        let file: Vec<(i64, &str)> = (1..).zip(&texts).map(|(time, text)| (time, text.as_str())).collect();
        let answer = [&file[..], &file, &[(10_000, "next")]].concat();
        assert_eq!(new_lines(&[&answer])[0].len(), file.len() + 1);
    }

    /// More lines with one time than are remembered: the first of them is still known.
    #[test]
    fn a_line_forgotten_in_the_middle_of_a_time_is_known() {
        let texts: Vec<String> = (0..REMEMBERED_MAX + 2).map(|number| number.to_string()).collect();
        let mut answer: Vec<(i64, &str)> = texts.iter().map(|text| (5, text.as_str())).collect();
        let last = answer.last_mut().expect("there are lines");
        last.0 = 6;
        assert_eq!(new_lines(&[&answer, &answer])[1], []);
    }

    /// After a restart only the mark is known.
    #[test]
    fn a_mark_alone_is_enough_after_a_restart() {
        let (mut seen, mark) = (Seen::default(), ChannelMark { time_ns: 10, count: 2 });
        seen.begin_answer(false);
        let mut new = |time| seen.is_new(Key::new(time, b"x"), &mark);
        assert_eq!([8, 9, 10, 10, 10, 11].map(&mut new), [false, false, false, false, true, true]);
        // Docker 20.10 also sends known lines from before the restart behind an answer that ended too early.
        assert_eq!([8, 9, 10, 12].map(&mut new), [false, false, false, true]);

        let mut seen = Seen::default();
        seen.begin_answer(false);
        assert!(!seen.is_new(Key::new(8, b"x"), &mark));
        seen.begin_answer(false);
        let mut new = |time| seen.is_new(Key::new(time, b"x"), &mark);
        assert_eq!([8, 9, 10, 10, 11, 9].map(&mut new), [false, false, false, false, true, false]);
    }
}
