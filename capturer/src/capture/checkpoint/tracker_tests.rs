//! Positions of streams over acknowledgements, saves and restarts.

use super::super::tests::{file_cursor, mark};
use super::*;
use crate::model::record::Uncovered;

fn key(name: &str) -> StreamKey {
    StreamKey(name.into())
}

fn reload(tracker: &mut Tracker, sinks: &[&str]) -> Tracker {
    Tracker::new(tracker.next_checkpoint(), sinks.iter().copied())
}

/// A run that ends before it came to a log has seen nothing of what happened to it meanwhile.
#[test]
fn a_log_that_was_not_looked_at_keeps_the_time_of_the_last_look() {
    let (seen, unseen) = (key("a"), key("b"));
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    for stream in [&seen, &unseen] {
        tracker.attach(stream, "file", Cursor::Beginning, None);
    }
    tracker.memory_mut().set_now(100_000_000_000);
    let mut second = reload(&mut tracker, &["file"]);
    second.memory_mut().set_now(200_000_000_000);
    second.note_looked(&seen);
    let mut third = reload(&mut second, &["file"]);
    third.memory_mut().set_now(300_000_000_000);
    let fourth = reload(&mut third, &["file"]);
    for (tracker, stream, at_s) in
        [(&second, &unseen, 100), (&third, &unseen, 100), (&third, &seen, 200), (&fourth, &unseen, 100)]
    {
        assert_eq!(tracker.looked_ns(stream), Some(ns(at_s)));
    }
}

#[test]
fn one_sink_resumes_at_its_last_ack_with_its_mark() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    assert_eq!(tracker.resume(&key("a")), None);
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("a.ndjson", 0)));
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(10), Some(mark("a.ndjson", 100)));
    tracker.on_ack(&key("a"), "file", 2, &file_cursor(20), Some(mark("a.ndjson", 200)));
    let mut again = reload(&mut tracker, &["file"]);
    let resume = again.resume(&key("a")).unwrap();
    assert_eq!(resume, Resume { cursor: file_cursor(20), ahead: vec![] });
    assert_eq!(again.next_checkpoint().streams, tracker.next_checkpoint().streams);
    assert_eq!(again.next_checkpoint().outputs["file"]["a.ndjson"].len_bytes, 200);
}

/// What stands in an output behind such a position is that of the last run.
#[test]
fn a_position_is_that_of_the_last_run_until_a_sink_goes_on() {
    let sinks = ["file".to_owned(), "stdout".to_owned()];
    let names = ["file", "stdout"];
    let mut tracker = Tracker::new(Checkpoint::default(), names);
    for sink in names {
        tracker.attach(
            &key("a"),
            sink,
            Cursor::Beginning,
            Some(mark("a.ndjson", 0)).filter(|_| sink == "file"),
        );
    }
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(10), Some(mark("a.ndjson", 100)));
    assert_eq!(tracker.loaded(&key("a"), &sinks), None);
    let mut again = reload(&mut tracker, &names);
    assert_eq!(again.loaded(&key("a"), &sinks[..1]), Some((&file_cursor(10), Some(&"a.ndjson".into()))));
    assert_eq!(again.loaded(&key("a"), &sinks), Some((&Cursor::Beginning, Some(&"a.ndjson".into()))));
    assert_eq!(again.loaded(&key("b"), &sinks), None);
    again.attach(&key("a"), "file", Cursor::Beginning, None);
    assert!(again.loaded(&key("a"), &sinks[..1]).is_some());
    again.on_ack(&key("a"), "file", 1, &file_cursor(20), None);
    assert_eq!(again.loaded(&key("a"), &sinks), None);
}

/// The agent was killed, and the next run left the log before it read it again, for the config did not name it. When it came
/// back, what stood in its output behind the last position came a second time.
#[test]
fn a_log_that_is_left_after_a_crash_finds_what_its_output_has_when_it_is_back() {
    let uncovered = vec![Uncovered { source: 1, file: mark("a", 0).file, from: 50, to: 90, since_s: 1 }];
    let after_crash = OutputMark { uncovered, ..mark("a", 90) };
    for changes_from in [0, CHANGES_FROM] {
        let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
        tracker.attach(&key("a"), "file", file_cursor(10), Some(after_crash.clone()));
        tracker.attach(&key("b"), "file", file_cursor(10), Some(mark("b", 10)));
        tracker.leave(&key("a"));
        tracker.leave(&key("b"));
        // Nobody looks at it for some runs.
        for _ in 0..3 {
            let saved = tracker.next_checkpoint();
            assert_eq!(
                saved.outputs,
                [("file".to_owned(), [("a".into(), after_crash.clone())].into())].into()
            );
            tracker = Tracker::new(saved, ["file"]);
            tracker.save_changes_from(changes_from);
        }
        // It is back, and its sink says the same of its output.
        tracker.attach(&key("a"), "file", file_cursor(10), Some(after_crash.clone()));
        tracker.on_ack(&key("a"), "file", 1, &file_cursor(20), Some(mark("a", 100)));
        let saved = tracker.next_checkpoint();
        assert_eq!(saved.outputs, [("file".to_owned(), [("a".into(), mark("a", 100))].into())].into());
        tracker.leave(&key("a"));
        assert_eq!(tracker.next_checkpoint().outputs, BTreeMap::new());
    }
    // A sink that is gone from the config takes its marks along.
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    tracker.attach(&key("a"), "file", file_cursor(10), Some(after_crash));
    tracker.leave(&key("a"));
    assert_eq!(reload(&mut tracker, &["loki"]).next_checkpoint().outputs, BTreeMap::new());
}

/// Two streams of one name share an output. The second waits for another sink while the first writes: a mark from before
/// that would cut the lines of the first at the next start. Found by the simulation (seed 96).
#[test]
fn a_mark_that_waited_does_not_take_back_what_another_stream_wrote() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("web", 0)));
    let waits = mark("web", 0);
    tracker.on_prepared(&key("b"), "file", &waits);
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(10), Some(mark("web", 100)));
    tracker.attach(&key("b"), "file", Cursor::Beginning, Some(waits));
    assert_eq!(tracker.next_checkpoint().outputs["file"]["web"].len_bytes, 100);

    // A start may leave the output otherwise than it was saved; what is prepared then counts.
    let mut again = reload(&mut tracker, &["file", "loki"]);
    again.on_prepared(&key("a"), "file", &mark("web", 140));
    again.attach(&key("a"), "file", Cursor::Beginning, Some(mark("web", 140)));
    assert_eq!(again.next_checkpoint().outputs["file"]["web"].len_bytes, 140);
    // What is prepared for a stream that goes before it is attached is not kept; what the stream has is.
    again.on_prepared(&key("a"), "file", &mark("other", 1));
    assert!(again.next_checkpoint().outputs["file"].contains_key("other"));
    let dirty = again.dirty_seq();
    again.abandon_prepared(&key("a"), "file", "other");
    assert_eq!(again.dirty_seq(), dirty + 1);
    // Nothing of these is there to give up, so there is nothing to save.
    again.abandon_prepared(&key("a"), "file", "other");
    again.abandon_prepared(&key("a"), "file", "web");
    again.abandon_prepared(&key("b"), "file", "web");
    assert_eq!(again.dirty_seq(), dirty + 1);
    assert_eq!(
        again.next_checkpoint().outputs["file"].keys().map(|path| &**path).collect::<Vec<_>>(),
        ["web"]
    );
}

/// The same, and the first one is renamed before the second is attached: nobody but the second uses the output then, and its
/// mark is still from before. The last lines of the first were cut off at the next start.
#[test]
fn a_mark_that_waited_is_kept_up_when_the_other_stream_leaves() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("web", 0)));
    tracker.on_prepared(&key("b"), "file", &mark("web", 0));
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(10), Some(mark("web", 100)));
    tracker.on_prepared(&key("a"), "file", &mark("other", 0));
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("other", 0)));
    tracker.attach(&key("b"), "file", Cursor::Beginning, Some(mark("web", 0)));
    assert_eq!(tracker.next_checkpoint().outputs["file"]["web"].len_bytes, 100);
}

/// Without this a sink that was down would lose what the other one had already taken.
#[test]
fn the_slowest_sink_decides_through_any_number_of_restarts() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
    for sink in ["file", "loki"] {
        tracker.attach(&key("a"), sink, Cursor::Beginning, None);
    }
    for seq in 1..=8 {
        tracker.on_ack(&key("a"), "file", seq, &file_cursor(seq * 10), None);
    }
    tracker.on_ack(&key("a"), "loki", 1, &file_cursor(10), None);

    let mut tracker = reload(&mut tracker, &["file", "loki"]);
    let resume = tracker.resume(&key("a")).unwrap();
    assert_eq!(resume.cursor, file_cursor(10));
    assert_eq!(resume.ahead, vec![("file".to_owned(), file_cursor(80))]);

    // Loki gets many batches, more than `file` ever had; `file` is held back and stays ahead.
    for sink in ["file", "loki"] {
        tracker.attach(&key("a"), sink, resume.cursor.clone(), None);
    }
    for seq in 1..=50 {
        tracker.on_ack(&key("a"), "loki", seq, &file_cursor(10 + seq), None);
    }
    let tracker2 = reload(&mut tracker, &["file", "loki"]);
    assert_eq!(tracker2.resume(&key("a")).unwrap().cursor, file_cursor(60));

    // The reader reaches the cursor of `file`: from now on both get everything.
    tracker.on_ack(&key("a"), "loki", 51, &file_cursor(80), None);
    tracker.on_ack(&key("a"), "file", 52, &file_cursor(90), None);
    let resume = reload(&mut tracker, &["file", "loki"]).resume(&key("a")).unwrap();
    assert_eq!(resume.cursor, file_cursor(80));
    assert_eq!(resume.ahead, vec![("file".to_owned(), file_cursor(90))]);
}

#[test]
fn a_sink_sent_everything_again_joins_with_its_first_ack() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
    for sink in ["file", "loki"] {
        tracker.attach(&key("a"), sink, Cursor::Beginning, None);
    }
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(100), None);
    let mut tracker = reload(&mut tracker, &["file", "loki"]);
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(50), None);
    assert_eq!(tracker.resume(&key("a")).unwrap().cursor, Cursor::Beginning);
    tracker.on_ack(&key("a"), "loki", 2, &file_cursor(70), None);
    // Repeated for `file`, but not lost: it goes on from what it was last sent.
    assert_eq!(tracker.resume(&key("a")).unwrap().cursor, file_cursor(50));
}

#[test]
fn sinks_may_be_added_and_removed_between_runs() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
    tracker.attach(&key("a"), "loki", file_cursor(5), None);
    tracker.attach(&key("a"), "file", file_cursor(5), Some(mark("a", 0)));
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(100), Some(mark("a", 9)));

    let mut without_loki = reload(&mut tracker, &["file"]);
    assert_eq!(without_loki.resume(&key("a")).unwrap().cursor, file_cursor(100));
    let mut only_new = reload(&mut tracker, &["stdout"]);
    assert_eq!(only_new.resume(&key("a")).unwrap().cursor, file_cursor(5));
    assert!(only_new.next_checkpoint().outputs.is_empty());
    let mut with_new = reload(&mut without_loki, &["file", "stdout"]);
    let start = with_new.resume(&key("a")).unwrap().cursor;
    with_new.attach(&key("a"), "stdout", start, None);
    assert_eq!(with_new.resume(&key("a")).unwrap(), Resume { cursor: file_cursor(100), ahead: vec![] });
}

/// Without this marks of outputs nobody writes would pile up in the checkpoint for ever.
#[test]
fn an_output_goes_with_its_last_stream() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    for name in ["a", "b"] {
        tracker.attach(&key(name), "file", Cursor::Beginning, Some(mark("shared", 0)));
    }
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(1), Some(mark("shared", 10)));
    tracker.leave(&key("a"));
    assert_eq!(tracker.next_checkpoint().outputs["file"]["shared"].len_bytes, 10);
    // Also after a restart in which the streams never came back.
    let mut tracker = reload(&mut tracker, &["file"]);
    tracker.leave(&key("b"));
    let is_empty = |found: Checkpoint| found.streams.is_empty() && found.outputs.is_empty();
    assert!(is_empty(tracker.next_checkpoint()));
    // A late acknowledgement does not bring it back.
    tracker.on_ack(&key("b"), "file", 1, &file_cursor(1), Some(mark("shared", 11)));
    assert!(is_empty(tracker.next_checkpoint()));
}

/// A container renamed out of what is captured and in again, a path on a file system that is mounted late: without
/// this all of it came again.
#[test]
fn who_comes_back_goes_on_where_it_was_left() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    tracker.memory_mut().set_bounds(crate::settings::Remember::default());
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("a", 0)));
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(100), Some(mark("a", 9)));
    tracker.leave(&key("a"));
    let mut tracker = reload(&mut tracker, &["file"]);
    assert_eq!(tracker.streams().count(), 0);
    let resume = tracker.resume_for(&key("a"), &["file".to_owned()]);
    assert_eq!(resume, Some(file_cursor(100)));
    tracker.attach(&key("a"), "file", file_cursor(100), Some(mark("a", 9)));
    assert_eq!(tracker.next_checkpoint().streams.len(), 1);
}

#[test]
fn a_renamed_output_replaces_the_old_one() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    tracker.attach(&key("a"), "file", Cursor::Beginning, Some(mark("old", 0)));
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(1), Some(mark("new", 10)));
    let outputs = &tracker.next_checkpoint().outputs["file"];
    assert_eq!(outputs.keys().map(|path| &**path).collect::<Vec<_>>(), ["new"]);
}

/// Without this a log that was renamed while the agent was away came again under its new path.
#[test]
fn the_file_of_a_saved_position_is_known_by_itself() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    tracker.attach(&key("file:/a"), "file", Cursor::Beginning, None);
    tracker.on_ack(&key("file:/a"), "file", 1, &file_cursor(100), None);
    let tracker = reload(&mut tracker, &["file"]);
    let Cursor::File(position) = file_cursor(100) else { panic!("it is a file's") };
    assert_eq!(tracker.memory().log_of(position.file), Some(&key("file:/a")));
    let sinks = ["file".to_owned()];
    let place = tracker.memory().of(&sinks, true).place_of(position.file);
    assert_eq!(place, Some(position.place()));
}

/// What changed, save by save, leads to what a whole checkpoint would hold at that time.
#[test]
fn changes_add_up_to_the_whole() {
    for seed in 0..200_u64 {
        let mut state = seed * 2 + 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut tracker = Tracker::new(Checkpoint::default(), ["file", "loki"]);
        tracker.save_changes_from(random(3) as usize);
        let mut on_disk = Checkpoint::default();
        for step in 1..400 {
            let key = key(&format!("s{}", random(5)));
            let sink = ["file", "loki"][random(2) as usize];
            let path = format!("o{}", random(4));
            match random(9) {
                0 => tracker.attach(&key, sink, Cursor::Beginning, Some(mark(&path, step))),
                1 => tracker.leave(&key),
                2 => tracker.leave_sinks(&key, &[sink.to_owned()]),
                3 => tracker.on_prepared(&key, sink, &mark(&path, step)),
                6 => tracker.abandon_prepared(&key, sink, &path),
                4 | 5 => tracker.on_ack(&key, sink, step, &file_cursor(step), Some(mark(&path, step))),
                _ => {
                    let seq = tracker.dirty_seq();
                    let mut saved = tracker.next_checkpoint();
                    let whole = tracker.whole();
                    if random(4) == 0 {
                        tracker.on_save_failed();
                    } else {
                        tracker.on_saved(seq);
                        saved.follow(on_disk);
                        assert_eq!(
                            (&saved.streams, &saved.outputs),
                            (&whole.streams, &whole.outputs),
                            "seed {seed}"
                        );
                        on_disk = saved;
                    }
                }
            }
        }
    }
}

#[test]
fn dirty_until_saved() {
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    assert_eq!(tracker.dirty_seq(), tracker.saved_seq());
    tracker.attach(&key("a"), "file", Cursor::Beginning, None);
    let taken = tracker.dirty_seq();
    tracker.on_ack(&key("a"), "file", 1, &file_cursor(1), None);
    tracker.on_saved(taken);
    assert!(tracker.saved_seq() < tracker.dirty_seq());
    tracker.on_saved(tracker.dirty_seq());
    tracker.on_saved(taken);
    assert_eq!(tracker.saved_seq(), tracker.dirty_seq());
}

/// A new file that begins as a log may be its copy. The log may have moved on before that is asked.
#[test]
fn a_log_is_found_by_its_beginning_and_where_it_stood_a_second_ago() {
    let log = StreamKey::file("/app.log");
    let sinks = ["file".to_owned()];
    let at = |offset| match file_cursor(offset) {
        Cursor::File(cursor) => Cursor::File(Arc::new(FileCursor::at(cursor.place()))),
        other => other,
    };
    let mut tracker = Tracker::new(Checkpoint::default(), ["file"]);
    tracker.memory_mut().set_now(100_000_000_000);
    tracker.attach(&log, "file", at(0), None);
    assert_eq!(tracker.memory().begun_so(0xdead_beef).collect::<Vec<_>>(), [&log]);
    for (seq, (now_s, offset)) in
        [(100, 10), (100, 20), (101, 30), (102, 40), (102, 50)].into_iter().enumerate()
    {
        tracker.memory_mut().set_now(now_s * 1_000_000_000);
        tracker.on_ack(&log, "file", seq as u64 + 1, &at(offset), None);
    }
    assert_eq!(tracker.acked_s(&log), 102);
    let earlier: Vec<u64> = tracker.earlier(&log, &sinks).map(|place| place.offset).collect();
    assert_eq!(earlier, [30, 20]);
    let again = reload(&mut tracker, &["file"]);
    assert_eq!(again.memory().begun_so(0xdead_beef).collect::<Vec<_>>(), [&log]);
    assert_eq!(again.memory().begun_so(7).count(), 0);
}
