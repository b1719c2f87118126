//! The pace of a stream over the API: when its connection is read, when it is opened again, and whether it has one.
//!
//! ```text
//! follow ─┬ interval over ─▶ close, open again                 a busy container
//!         ├ interval over, few lines ─▶ put off                a quiet one; not any more once it prints again
//!         └ few lines, and others wait for slots ─▶ close      a quiet one gives its slot away
//! ask for all there is, without follow ◀── every so often ─┘   and is asked now and then, for a moment each time
//! ```
//! So slots are for containers that print. A container whose habits are unknown is polled first, if others wait.
//!
//! Not here: the line for slots ([`crate::capture::context::Pool`]), and what an answer brings (`lines.rs`).

use super::{ApiSource, Phase, SourceEvent, Then, rotation_guard};
use crate::capture::context::{Context, Purpose, Timer};
use crate::settings::Settings;
use crate::telemetry::metrics::StreamError;

/// Lines a minute below which a container counts as quiet.
const QUIET_LINES_PER_MINUTE: u64 = 10;
/// A connection that takes longer to close counts as stuck. Closing shuts down the socket, which ends its read.
const CLOSE_PATIENCE_MS: u64 = 10_000;
/// Bounds of the pause between two polls of a quiet container.
const POLL_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

/// Bytes of a follow that may gather between two reads: some sixty lines. The socket takes two hundred small writes
/// before dockerd waits, and a follow that waits may skip what is rotated away.
const GATHERED_BYTES_MAX: u64 = 8 * 1024;
/// Pauses between two reads. All streams that pause resume together, so that one turn of the loop reads many of them.
const PAUSES_MS: [u64; 4] = [rotation_guard::PAUSE_MS, 50, 20, 10];

/// Lets slowly arriving lines gather in the socket: a read for each line would cost a turn of the loop, a batch and an
/// acknowledgement each. Their listing would make them wait as long anyway.
#[derive(Debug, Default)]
pub(super) struct Trickle {
    /// When something last came.
    last_ms: u64,
    /// Nothing is read before this time.
    until_ms: Option<u64>,
}

impl Trickle {
    /// This many bytes came since `since_ms` or the last call. They decide how long the next ones may gather.
    pub fn came(&mut self, bytes: usize, since_ms: u64, now_ms: u64) {
        let passed_ms = (now_ms - self.last_ms.max(since_ms)).max(1);
        self.last_ms = now_ms;
        // Assumes that the pause brings as much as came before, in proportion to its length.
        let is_small = |pause: &u64| bytes as u64 * *pause / passed_ms < GATHERED_BYTES_MAX;
        let pause =
            if bytes as u64 >= GATHERED_BYTES_MAX { None } else { PAUSES_MS.into_iter().find(is_small) };
        self.until_ms = pause.map(|pause| rotation_guard::next_tick_ms(now_ms, pause));
    }

    /// The time before which nothing should be read.
    pub fn until(&mut self, now_ms: u64) -> Option<u64> {
        self.until_ms = self.until_ms.filter(|until| *until > now_ms);
        self.until_ms
    }

    /// Reading may resume as soon as there is room.
    pub fn is_over(&self) -> bool {
        self.until_ms.is_none()
    }
}

/// Pause between two polls of a quiet container, while there are more containers than slots.
pub fn poll_ms(settings: &Settings) -> u64 {
    let interval = settings.container_monitor.rotation.interval.as_millis() as u64;
    (interval / 10).clamp(*POLL_MS.start(), *POLL_MS.end())
}

/// A stream waits for a slot: quiet ones will be asked for theirs.
pub(super) fn look_for_slots(cx: &mut Context<'_>) {
    let at = cx.now.mono_ms + poll_ms(cx.settings);
    cx.timers.set_earlier(Timer::Pool, at);
}

fn is_few(lines: u64, since_ms: u64, now_ms: u64) -> bool {
    lines * 60_000 < QUIET_LINES_PER_MINUTE * now_ms.saturating_sub(since_ms).max(1)
}

impl ApiSource {
    /// With a slot: follows, or polls.
    pub(super) fn request_anew(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let now = cx.now.mono_ms;
        let quiet = self.activity.is_none_or(|(since, lines)| is_few(lines, since, now));
        self.answer.polled = self.running && quiet && cx.pool.is_contended();
        let interval = cx.settings.container_monitor.rotation.interval.as_millis() as u64;
        if self.answer.polled || self.activity.is_none_or(|(since, _)| since + interval <= now) {
            self.activity = Some((now, 0));
        }
        self.request(self.running && !self.answer.polled, cx, told);
    }

    /// Others wait: gives up the slot if the container is quiet. Returns whether it does.
    pub fn yield_slot(&mut self, cx: &mut Context<'_>) -> bool {
        let follows = matches!(self.phase, Phase::Reading { .. }) && self.answer.follow;
        let now = cx.now.mono_ms;
        let long_enough = |since: u64| since + poll_ms(cx.settings) <= now;
        let quiet =
            self.activity.is_some_and(|(since, lines)| long_enough(since) && is_few(lines, since, now));
        let held = self.guard.as_ref().is_some_and(|guard| guard.held() > 0);
        if !follows || !quiet || held || self.gone || self.stopping {
            return false;
        }
        self.activity = Some((now, 0));
        self.close(Then::Yield, cx);
        true
    }

    /// Something came: the next read may wait for more. Only if the files can show whether a follow that waited has
    /// skipped something.
    pub(super) fn gather(&mut self, bytes: usize, cx: &mut Context<'_>) {
        if self.answer.follow && self.guard.as_ref().is_some_and(|guard| guard.is_readable()) {
            self.answer.trickle.came(bytes, self.answer.opened_at_ms, cx.now.mono_ms);
        }
    }

    pub(super) fn tell_polled(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let pause = cx.jitter.around(poll_ms(cx.settings));
        told.push(SourceEvent::Polled { again_at_ms: cx.now.mono_ms + pause });
    }

    pub(super) fn plan_rotation(&mut self, cx: &mut Context<'_>) {
        let rotation = &cx.settings.container_monitor.rotation;
        if !self.answer.follow {
            return;
        }
        // Jitter only to the early side: fifty streams must not reopen together, and none may be late.
        let interval = rotation.interval.as_millis() as u64;
        let at = cx.now.mono_ms + cx.jitter.around(interval).min(interval);
        self.answer.rotate_at_ms = Some(at);
        cx.wake(self.stream, Purpose::Rotate, at);
    }

    /// A deadline has come.
    pub fn on_timer(&mut self, purpose: Purpose, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        match purpose {
            Purpose::Groups => self.end_groups(cx, told),
            Purpose::RotationGuard => {
                if let Some(guard) = &mut self.guard {
                    guard.on_timer(cx);
                }
            }
            Purpose::Close => self.tell_that_it_does_not_close(cx),
            Purpose::Rotate => self.rotate_if_due(cx, told),
            // It reads on, if it may.
            Purpose::Trickle => {}
            // A deadline of the stream, or of the files that were read before.
            _ => {}
        }
    }

    fn tell_that_it_does_not_close(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Closing(..)) {
            return;
        }
        cx.metrics.stream_error(StreamError::RotationStuck);
        tracing::warn!(
            container = %self.container_id,
            "its connection has not closed for {} s; no other is opened meanwhile",
            CLOSE_PATIENCE_MS / 1000
        );
    }

    pub(super) fn note_closing(&mut self, cx: &mut Context<'_>) {
        let at = cx.now.mono_ms + CLOSE_PATIENCE_MS;
        cx.wake(self.stream, Purpose::Close, at);
    }

    fn rotate_if_due(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let Some(at) = self.answer.rotate_at_ms else { return };
        if !matches!(self.phase, Phase::Reading { .. }) {
            return;
        }
        let idle_until = self.idle_until(cx);
        self.answer.put_off = at <= cx.now.mono_ms && idle_until > cx.now.mono_ms;
        let at = at.max(idle_until).max(cx.pool.next_rotation_ms(cx.now.mono_ms));
        if at > cx.now.mono_ms {
            cx.wake(self.stream, Purpose::Rotate, at);
            return;
        }
        let rotation = &cx.settings.container_monitor.rotation;
        if !rotation.enabled && !cx.pool.anyone_waits() {
            // Without rotation a connection lives on, but not while others wait for its slot.
            return self.plan_rotation(cx);
        }
        cx.pool.rotated(cx.now.mono_ms + rotation.pause_between_rotations.as_millis() as u64);
        self.answer.rotate_at_ms = None;
        self.rotations += 1;
        self.behind.relax();
        told.push(SourceEvent::Rotating);
        if self.waits_in_vain() {
            // A rotation comes before a read can time out.
            self.catch_up(cx);
        } else {
            self.close(Then::Rotate, cx);
        }
    }

    /// A quiet container's connection may live longer.
    fn idle_until(&self, cx: &Context<'_>) -> u64 {
        let (lines, since) = (self.answer.new_lines, self.answer.opened_at_ms);
        let rotation = &cx.settings.container_monitor.rotation;
        let idle = is_few(lines, since, cx.now.mono_ms);
        if idle { since + rotation.idle_interval.as_millis() as u64 } else { 0 }
    }

    /// Its rotation was put off because it was quiet, which it no longer is.
    pub(super) fn rotate_if_busy_again(&mut self, cx: &mut Context<'_>) {
        if self.answer.put_off && self.idle_until(cx) == 0 {
            self.answer.put_off = false;
            cx.wake(self.stream, Purpose::Rotate, cx.now.mono_ms);
        }
    }

    /// The connection brings nothing while the log grows. The files have the missing lines.
    pub(super) fn stalled(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        cx.metrics.stream_error(StreamError::Stalled);
        tracing::warn!(
            container = %self.container_id,
            "its connection brings nothing while its log grows; reading the files instead"
        );
        self.go_to_files(cx, told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trickles_gathers_and_what_flows_does_not() {
        // Bytes, when something last came, now, and until when it pauses.
        let table = [
            (120, 0, 1_005, Some(1_100)), // the first line
            (240, 1_000, 1_100, Some(1_200)),
            (7_000, 1_000, 1_100, Some(1_200)),
            (7_000, 1_050, 1_100, Some(1_150)),
            (7_000, 1_090, 1_100, Some(1_110)),
            (7_000, 1_099, 1_100, None), // as fast as dockerd writes
            (8_192, 0, 1_100, None),     // there may be more behind it
        ];
        for (bytes, last_ms, now_ms, expected) in table {
            let mut trickle = Trickle { last_ms, until_ms: None };
            trickle.came(bytes, 0, now_ms);
            assert_eq!(trickle.until(now_ms), expected, "{bytes} bytes after {last_ms}");
            assert_eq!(trickle.is_over(), expected.is_none());
            assert_eq!(trickle.until(expected.unwrap_or_default()), None);
        }
        // Bytes right after the answer's head show how fast it comes, however long there was nothing before.
        let mut trickle = Trickle::default();
        trickle.came(4_000, 1_099, 1_100);
        assert_eq!(trickle.until(1_100), None);
    }
}
