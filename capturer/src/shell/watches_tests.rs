//! Which streams hear of what inotify reports, and how long a watch lives.

use super::*;
use crate::model::cursor::FileId;
use crate::settings::PathPattern;
use crate::settings::path_pattern::Part;

fn wild(text: &str) -> Interest {
    let pattern = PathPattern::new(&format!("/{text}")).unwrap();
    let Part::Wild(wild) = pattern.alternatives()[0][0].clone() else { panic!("{text}") };
    Interest::wild(wild)
}

/// A directory is watched before its listing is known here: events in between must not be lost.
#[test]
fn what_comes_while_a_directory_is_listed_is_looked_at_then() {
    let event = |mask, name: &'static str| InotifyEvent { watch: 7, mask, name: name.as_bytes() };
    let check = |mask, name, expected| {
        let mut watches = Watches::default();
        watches.begin_listing();
        watches.on_event(&event(mask, name), &mut Concerned::default());
        let found = watches.set_of_patterns(0, None, vec![(7, Interest::name("a"))]);
        assert_eq!(found, expected, "{name} {mask:x}");
        assert!(!watches.set_of_patterns(0, None, vec![(7, Interest::name("a"))]), "that is known");
        watches.expect(StreamId(1), "a");
        assert!(watches.set(StreamId(1), 7));
        assert!(!watches.set(StreamId(1), 7));
        watches.end_listing();
        watches.expect(StreamId(2), "a");
        assert!(!watches.set(StreamId(2), 7));
    };
    check(CREATE, "a", true);
    check(CREATE, "b", false);
    check(MODIFY, "a", false);
    check(MOVE_SELF, "", true);
}

/// Neither growth nor a new file, but a stream that could not read it may be able to now.
#[test]
fn rights_concern_those_whose_file_it_is() {
    let mut watches = Watches::default();
    watches.expect(StreamId(1), "a.log");
    watches.set(StreamId(1), 7);
    watches.set_rotated(StreamId(1), ["a.log.1"].into_iter());
    let concerned = |watches: &mut Watches, name: &str| {
        let mut told = Concerned::default();
        watches.on_event(&InotifyEvent { watch: 7, mask: ATTRIB, name: name.as_bytes() }, &mut told);
        told
    };
    for name in ["a.log", "a.log.1"] {
        let expected = Concerned { rights: [StreamId(1)].into(), ..Concerned::default() };
        assert_eq!(concerned(&mut watches, name), expected, "{name}");
    }
    assert_eq!(concerned(&mut watches, "b.log"), Concerned::default());
    // A file that could not be read is in no listing.
    let sibling = Concerned { changed: [StreamId(1)].into(), ..Concerned::default() };
    assert_eq!(concerned(&mut watches, "a.log.2"), sibling);
    // The directory's own rights.
    let interest = Interest::name("c.log");
    watches.set_of_patterns(3, None, vec![(7, interest)]);
    let all = Concerned { rights: [StreamId(1)].into(), sets: [3].into(), ..Concerned::default() };
    assert_eq!(concerned(&mut watches, ""), all);
    // Truncated, and another mode at the same time.
    let mut told = Concerned::default();
    watches.on_event(&InotifyEvent { watch: 7, mask: ATTRIB | MODIFY, name: b"a.log" }, &mut told);
    let both = Concerned { rights: [StreamId(1)].into(), grew: [StreamId(1)].into(), ..Concerned::default() };
    assert_eq!(told, both);
}

#[test]
fn only_lost_events_concern_all() {
    let concerned = |mask| {
        let mut told = Concerned::default();
        Watches::default().on_event(&InotifyEvent { watch: -1, mask, name: b"" }, &mut told);
        told
    };
    assert_eq!(concerned(OVERFLOW), Concerned { all: true, ..Concerned::default() });
    for mask in [CREATE, MODIFY, IGNORED, MOVE_SELF] {
        assert_eq!(concerned(mask), Concerned::default());
    }
}

/// What decides whether the next look comes soon (pace.rs), and whether a file that goes at once is counted.
#[test]
fn what_may_go_again_soon_is_in_a_hurry() {
    let mut watches = Watches::default();
    watches.set_of_patterns(0, None, vec![(7, wild("*.log")), (7, Interest::directories(false))]);
    watches.expect(StreamId(1), "a.log");
    watches.set(StreamId(1), 7);
    watches.set_rotated(StreamId(1), ["a.log.1"].into_iter());
    let mut look = |events: &[(u32, &str)]| {
        let mut told = Concerned::default();
        for (mask, name) in events {
            watches.on_event(&InotifyEvent { watch: 7, mask: *mask, name: name.as_bytes() }, &mut told);
        }
        (told.hurried, told.renewed.len(), told.vanished.len())
    };
    // A rotation by renaming and by dates, with an archive made later.
    assert_eq!(look(&[(MOVED_TO, "a.log.1"), (CREATE, "a.log")]), (false, 1, 0));
    assert_eq!(look(&[(MOVED_TO, "a.log-20261125"), (CREATE, "a.log")]), (false, 1, 0));
    assert_eq!(look(&[(CREATE, "a.log.1.gz"), (DELETE, "a.log.1")]), (false, 0, 0));
    assert_eq!(look(&[(MODIFY, "a.log"), (CREATE, "other.txt")]), (false, 0, 0));
    // Two rotations between two looks.
    assert_eq!(look(&[(CREATE, "a.log"), (MOVED_TO, "a.log.1"), (CREATE, "a.log")]), (true, 1, 0));
    assert_eq!(look(&[(DELETE, "a.log")]), (true, 0, 0), "it was removed");
    // An unknown file: made, or renamed to that name when it was complete.
    assert_eq!(look(&[(CREATE, "b.log")]), (true, 0, 0));
    assert_eq!(
        look(&[(MOVED_TO, "c.log"), (DELETE, "c.log")]),
        (true, 0, 0),
        "from where it may have been read"
    );
    let complete = [(CREATE, "c.tmp"), (MOVED_FROM, "c.tmp"), (MOVED_TO, "c.log"), (DELETE, "c.log")];
    assert_eq!(look(&complete), (true, 0, 1));
    let renamed = [(MOVED_FROM, "a.log"), (MOVED_TO, "e.log"), (DELETE, "e.log")];
    assert_eq!(look(&renamed), (true, 0, 0), "it was read as a.log");
    assert_eq!(look(&[(CREATE, "d.log"), (DELETE, "d.log")]), (true, 0, 1));
    assert_eq!(look(&[(CREATE | IS_DIRECTORY, "new")]), (true, 0, 0));
}

#[test]
fn a_renamed_directory_is_looked_for_again() {
    let mut watches = Watches::default();
    watches.set_of_patterns(3, None, vec![(7, Interest::default())]);
    let mut told = Concerned::default();
    watches.on_event(&InotifyEvent { watch: 7, mask: MOVE_SELF, name: b"" }, &mut told);
    assert_eq!(told.sets, BTreeSet::from([3]));
}

#[test]
fn a_stream_may_go_over_to_another_file() {
    let mut watches = Watches::default();
    let grew = |watches: &mut Watches, watch, name: &str| {
        let mut told = Concerned::default();
        watches.on_event(&InotifyEvent { watch, mask: MODIFY, name: name.as_bytes() }, &mut told);
        !told.grew.is_empty()
    };
    watches.expect(StreamId(1), "a");
    watches.set(StreamId(1), 7);
    watches.expect(StreamId(1), "b");
    watches.set(StreamId(1), 8);
    assert!(!grew(&mut watches, 7, "a") && grew(&mut watches, 8, "b"));
    watches.expect(StreamId(1), "c");
    watches.set(StreamId(1), 8);
    assert!(!grew(&mut watches, 8, "b") && grew(&mut watches, 8, "c"));
}

#[test]
fn events_reach_their_streams() {
    let mut watches = Watches::default();
    watches.expect(StreamId(1), "a.log");
    watches.expect(StreamId(2), "b.log");
    watches.set(StreamId(1), 7);
    watches.set(StreamId(2), 7);
    watches.set_of_patterns(0, None, vec![(7, wild("*"))]);
    watches.set_of_patterns(1, None, vec![(7, wild("*.txt")), (7, Interest::name("named"))]);
    watches.set_of_patterns(2, None, vec![(7, Interest::directories(false))]);
    watches.set_rotated(StreamId(1), ["a.log", "a.log.1", "strange"].into_iter());
    let mut rotated_grew = Vec::new();
    let mut check = |name: &str, mask: u32, expected: (&[u32], &[u32], &[usize])| {
        let mut told = Concerned::default();
        let event = InotifyEvent { watch: 7, mask, name: name.as_bytes() };
        watches.on_event(&event, &mut told);
        let ids = |set: BTreeSet<StreamId>| set.into_iter().map(|id| id.0).collect::<Vec<_>>();
        let sets: Vec<_> = told.sets.into_iter().collect();
        assert_eq!((&ids(told.grew)[..], &ids(told.changed)[..], &sets[..]), expected, "{name} {mask:x}");
        rotated_grew.extend(told.rotated_grew.into_iter().map(|id| (name.to_owned(), id.0)));
    };
    check("a.log", MODIFY, (&[1], &[], &[]));
    check("b.log", CREATE, (&[], &[2], &[0]));
    check("a.log.1", MOVED_TO, (&[], &[1], &[0]));
    check("a.log.1.gz", CREATE, (&[], &[1], &[0]));
    check("a.log.20261125-100000", MOVED_TO, (&[], &[1], &[0]));
    check("a.log-20261125.gz", CREATE, (&[], &[1], &[0]));
    check("a-2026-11-25T10-00-00.000.log", MOVED_TO, (&[], &[1], &[0]));
    check("a.log.1", MODIFY, (&[], &[], &[]));
    check("strange", MODIFY, (&[], &[], &[]));
    check("a.log-20261125", MODIFY, (&[], &[], &[]));
    check("other", CREATE, (&[], &[], &[0]));
    check("other.txt", CREATE, (&[], &[], &[0, 1]));
    check("named", MOVED_TO, (&[], &[], &[0, 1]));
    check("directory", CREATE | IS_DIRECTORY, (&[], &[], &[0, 2]));
    check(".directory", CREATE | IS_DIRECTORY, (&[], &[], &[]));
    check("named", MODIFY, (&[], &[], &[]));
    check("", IGNORED, (&[], &[1, 2], &[0, 1, 2]));
    check("a.log", MODIFY, (&[], &[], &[]));
    // A file that no listing showed belongs to no stream.
    assert_eq!(rotated_grew, [("a.log.1".to_owned(), 1), ("strange".to_owned(), 1)]);
}

#[test]
fn a_watch_lives_as_long_as_somebody_needs_it() {
    let mut watches = Watches::default();
    for stream in [1, 2] {
        watches.expect(StreamId(stream), &format!("{stream}"));
        watches.set(StreamId(stream), 3);
    }
    let mut unused_without = |stream| {
        watches.remove(StreamId(stream));
        watches.take_unused()
    };
    assert_eq!([unused_without(1), unused_without(2), unused_without(2)], [vec![], vec![3], vec![]]);
    let at = |watch| vec![(watch, Interest::default())];
    watches.set_of_patterns(0, None, at(4));
    watches.set_of_patterns(1, None, at(4));
    watches.set_of_patterns(0, None, at(5));
    assert_eq!(watches.take_unused(), Vec::<i32>::new());
    watches.set_of_patterns(1, None, at(5));
    assert_eq!(watches.take_unused(), [4]);
}

/// Whether nobody saw a file that came and went.
#[test]
fn files_that_vanish_between_two_looks_are_named() {
    let mut watches = Watches::default();
    watches.expect(StreamId(1), "a.log");
    watches.set(StreamId(1), 7);
    let listed = |watches: &mut Watches| {
        watches.set_of_patterns(4, None, vec![(7, wild("*.log*"))]);
    };
    listed(&mut watches);
    let vanished = |watches: &mut Watches, events: &[(&str, u32)]| {
        let mut told = Concerned::default();
        for (name, mask) in events {
            watches.on_event(&InotifyEvent { watch: 7, mask: *mask, name: name.as_bytes() }, &mut told);
        }
        told.vanished.into_iter().map(|(set, name)| format!("{set} {name}")).collect::<Vec<_>>()
    };
    assert_eq!(vanished(&mut watches, &[("b.log", CREATE), ("b.log", DELETE)]), ["4 b.log"]);
    // Each is reported once.
    assert!(vanished(&mut watches, &[("b.log", DELETE)]).is_empty());
    // It matches nothing, is a directory, or was renamed.
    assert!(vanished(&mut watches, &[("b.txt", CREATE), ("b.txt", DELETE)]).is_empty());
    let directory = CREATE | IS_DIRECTORY;
    assert!(vanished(&mut watches, &[("d.log", directory), ("d.log", DELETE | IS_DIRECTORY)]).is_empty());
    assert!(vanished(&mut watches, &[("c.log", MOVED_TO), ("c.log", DELETE)]).is_empty());
    // logrotate copies the log, compresses the copy and removes it.
    assert!(vanished(&mut watches, &[("a.log.1", CREATE), ("a.log.1", DELETE)]).is_empty());
    // A file that a stream reads by now, and one that a listing has shown.
    assert!(vanished(&mut watches, &[("e.log", CREATE)]).is_empty());
    watches.expect(StreamId(2), "e.log");
    watches.set(StreamId(2), 7);
    assert!(vanished(&mut watches, &[("e.log", DELETE)]).is_empty());
    assert!(vanished(&mut watches, &[("f.log", CREATE)]).is_empty());
    listed(&mut watches);
    assert_eq!(vanished(&mut watches, &[("g.log", CREATE), ("g.log", DELETE)]), ["4 g.log"]);
    listed(&mut watches);
    assert!(vanished(&mut watches, &[("f.log", DELETE)]).is_empty());
    // A link that is made, found and switched: its stream has another name.
    for (link, found) in [("l.log", "/d/l.log"), ("l.log.d", "/d/l.log.d/x")] {
        assert!(vanished(&mut watches, &[(link, CREATE)]).is_empty());
        watches.saw_links(std::iter::once(found));
        assert!(vanished(&mut watches, &[(link, DELETE), (link, CREATE)]).is_empty(), "{link}");
        assert_eq!(vanished(&mut watches, &[(link, DELETE)]), [format!("4 {link}")], "nobody saw it");
    }
    // A link that another one leads over is no file that nobody opened.
    for (link, is_told) in [("/d/second.log", false), ("/e/second.log", true)] {
        assert!(vanished(&mut watches, &[("second.log", CREATE)]).is_empty());
        watches.saw_paths(&[(7, hash_of_directory("/d"))], &[link.to_owned()], &[]);
        let told = vanished(&mut watches, &[("second.log", DELETE)]);
        assert_eq!(told.is_empty(), !is_told, "{link}");
    }
}

/// A job's log that is moved out of the way at once was never read, and nobody said so.
#[test]
fn files_that_are_moved_away_before_a_look_are_named() {
    let listed = |watches: &mut Watches| {
        watches.set_of_patterns(4, None, vec![(7, wild("*.log")), (8, wild("*.log"))]);
        let never =
            watches.saw_paths(&[], &[], &[]).into_iter().map(|(set, name, _)| format!("{set} {name}"));
        never.collect::<Vec<_>>()
    };
    let on = |watches: &mut Watches, events: &[(i32, &str, u32)]| {
        let mut told = Concerned::default();
        for (watch, name, mask) in events {
            watches.on_event(&InotifyEvent { watch: *watch, mask: *mask, name: name.as_bytes() }, &mut told);
        }
        assert!(told.vanished.is_empty());
    };
    let named = |events: &[(i32, &str, u32)]| {
        let mut watches = Watches::default();
        assert!(listed(&mut watches).is_empty());
        on(&mut watches, events);
        // The listing that is under way may miss the file; the next one shows it.
        assert!(listed(&mut watches).is_empty());
        listed(&mut watches)
    };
    let made = (7, "a.log", CREATE);
    let away = (7, "a.log", MOVED_FROM);
    assert_eq!(named(&[made, away]), ["4 a.log"], "to where nobody watches");
    assert_eq!(named(&[made, away, (7, "a.log.done", MOVED_TO)]), ["4 a.log"]);
    // Found under its new name, here or there.
    assert!(named(&[made, away, (7, "b.log", MOVED_TO)]).is_empty());
    assert!(named(&[made, away, (8, "b.log", MOVED_TO)]).is_empty());
    // A log of its name comes, and finds its rotated file.
    assert!(named(&[made, away, (7, "a.log.1", MOVED_TO), made]).is_empty());
    // It was there before, and is read.
    assert!(named(&[away]).is_empty());
    // The listing that was under way has shown the file.
    let mut watches = Watches::default();
    listed(&mut watches);
    on(&mut watches, &[made, away]);
    watches.expect(StreamId(1), "a.log");
    assert!(listed(&mut watches).is_empty() && listed(&mut watches).is_empty());
}

/// How often another file got a log's name. Losses in between are counted by this.
#[test]
fn each_new_live_file_is_counted() {
    let mut watches = Watches::default();
    watches.expect(StreamId(1), "a.log");
    watches.set(StreamId(1), 7);
    let mut renewed = |events: &[(&str, u32)]| {
        let mut told = Concerned::default();
        for (name, mask) in events {
            watches.on_event(&InotifyEvent { watch: 7, mask: *mask, name: name.as_bytes() }, &mut told);
        }
        told.renewed.into_values().sum::<u32>()
    };
    let away = [("a.log", MOVED_FROM), ("a.log.1", MOVED_TO)];
    let back = [("a.log.1", MOVED_FROM), ("a.log", MOVED_TO)];
    assert_eq!(renewed(&[&away[..], &[("a.log", CREATE)], &away, &[("a.log", CREATE)]].concat()), 2);
    // Editors save like this.
    assert_eq!(renewed(&[("a.tmp", CREATE), ("a.tmp", MOVED_FROM), ("a.log", MOVED_TO)]), 1);
    // A rotation that is undone brings no other file.
    assert_eq!(renewed(&[away, back].concat()), 0);
    assert_eq!((renewed(&away), renewed(&back)), (0, 0));
    assert_eq!(renewed(&[("a.log", DELETE), ("a.log", CREATE | IS_DIRECTORY), ("a.log", MODIFY)]), 0);
}

/// What a listing found and somebody follows is not counted here, too, if it is removed at once.
#[test]
fn a_file_that_a_listing_found_is_not_told_as_unseen() {
    for (path, vanished) in [("/d/a.log", false), ("/e/a.log", true)] {
        let mut watches = Watches::default();
        watches.set_of_patterns(3, None, vec![(7, wild("*.log"))]);
        watches.on_event(&InotifyEvent { watch: 7, mask: CREATE, name: b"a.log" }, &mut Concerned::default());
        let found =
            FoundPath { path: path.into(), id: FileId::default(), target: None, len: 0, modified_ns: 0 };
        assert!(watches.saw_paths(&[(7, hash_of_directory("/d"))], &[], &[found]).is_empty());
        let mut told = Concerned::default();
        watches.on_event(&InotifyEvent { watch: 7, mask: DELETE, name: b"a.log" }, &mut told);
        assert_eq!(!told.vanished.is_empty(), vanished, "{path}");
    }
}

/// A directory was watched and listed, and a file in it was removed before either was known here.
#[test]
fn files_that_went_before_their_directory_was_listed_are_named() {
    let found = |path: &str| FoundPath {
        path: path.into(),
        id: FileId::default(),
        target: None,
        len: 0,
        modified_ns: 0,
    };
    let never_listed = |events: &[(&str, u32)], found: &[FoundPath]| {
        let mut watches = Watches::default();
        watches.begin_listing();
        for (name, mask) in events {
            let event = InotifyEvent { watch: 7, mask: *mask, name: name.as_bytes() };
            watches.on_event(&event, &mut Concerned::default());
        }
        watches.set_of_patterns(3, None, vec![(7, wild("*.log"))]);
        watches.end_listing();
        let directories = [(7, hash_of_directory("/d"))];
        let named = watches.saw_paths(&directories, &[], found);
        assert!(watches.saw_paths(&directories, &[], found).is_empty(), "once");
        // From now on the watch is known.
        watches.begin_listing();
        watches.on_event(&InotifyEvent { watch: 7, mask: DELETE, name: b"z.log" }, &mut Concerned::default());
        watches.set_of_patterns(3, None, vec![(7, wild("*.log"))]);
        assert!(watches.saw_paths(&directories, &[], found).is_empty());
        let shown = |path: Option<Arc<str>>| path.map_or(String::new(), |path| format!(" found as {path}"));
        let told = named.into_iter().map(|(set, name, path)| format!("{set} {name}{}", shown(path)));
        told.collect::<Vec<_>>()
    };
    assert_eq!(never_listed(&[("a.log", DELETE), ("", IGNORED)], &[]), ["3 a.log"]);
    assert_eq!(never_listed(&[("a.log", CREATE), ("a.log", DELETE)], &[]), ["3 a.log"]);
    assert!(
        never_listed(&[("a.txt", DELETE), ("d.log", DELETE | IS_DIRECTORY), ("b.log", CREATE)], &[])
            .is_empty()
    );
    // Whoever follows the path is told that its removal was counted.
    let others = [found("/e/a.log"), found("/d/b.log")];
    assert_eq!(never_listed(&[("a.log", DELETE)], &others), ["3 a.log"]);
    assert_eq!(never_listed(&[("a.log", DELETE)], &[found("/d/a.log")]), ["3 a.log found as /d/a.log"]);
}
