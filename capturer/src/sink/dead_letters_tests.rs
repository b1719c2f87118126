//! Dead letters while agent and command line take turns, and after a replay that ended early.

use super::*;

fn letter(line: &str) -> Letter {
    Letter {
        sink: "loki".to_owned(),
        reason: "too_old".to_owned(),
        line: line.to_owned(),
        ..Letter::default()
    }
}

fn lines(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|letter| letter.line.as_str()).collect()
}

#[test]
fn what_is_buried_is_read_in_order_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 1 << 20);
    assert_eq!(letters.read().unwrap(), (vec![], 0));
    assert!(letters.take().unwrap().nth(0).is_none());
    for line in ["a\n\"", "b", "\u{0}"] {
        letters.bury(&letter(line)).unwrap();
    }
    assert_eq!(lines(&letters.read().unwrap().0), ["a\n\"", "b", "\u{0}"]);
    let taken = letters.take().unwrap();
    // The agent continues meanwhile; an interrupted replay loses nothing.
    letters.bury(&letter("c")).unwrap();
    drop(taken);
    let taken = letters.take().unwrap();
    assert_eq!(taken.left(), 4);
    assert_eq!(lines(&letters.read().unwrap().0), ["a\n\"", "b", "\u{0}", "c"]);
    taken.remove().unwrap();
    assert_eq!(letters.read().unwrap(), (vec![], 0));
}

/// A replay may be killed at any moment, and be called twice at once.
#[test]
fn a_replay_that_ends_early_leaves_what_it_did_not_send() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 4_000);
    let all: Vec<String> = (0..20).map(|number| format!("line {number}")).collect();
    all.iter().for_each(|line| _ = letters.bury(&letter(line)).unwrap());
    let mut sent = Vec::new();
    while !letters.read().unwrap().0.is_empty() {
        let mut taken = letters.take().unwrap();
        assert!(letters.take().is_err(), "a second one at once");
        for _ in 0..3 {
            sent.extend(taken.nth(0).map(|letter| letter.line.clone()));
            taken.done().unwrap();
        }
        drop(taken);
        assert_eq!(lines(&letters.read().unwrap().0), all[sent.len().min(20)..], "what is left is listed");
    }
    assert_eq!(sent, all, "in order, each once");
    // A new file with the number of one that is gone is sent from its beginning.
    letters.bury(&letter("new")).unwrap();
    assert_eq!(letters.take().unwrap().left(), 1);
}

#[test]
fn what_a_replay_left_counts_and_makes_room_unless_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 10_000);
    let line = "x".repeat(400);
    (0..15).for_each(|_| assert_eq!(letters.bury(&letter(&line)).unwrap(), 0));
    let taken = letters.take().unwrap();
    let kept = letters.bytes().unwrap();
    (0..5).for_each(|_| _ = letters.bury(&letter(&line)).unwrap());
    assert_eq!(taken.left(), 15);
    assert!(letters.bytes().unwrap() > kept, "nothing is taken from a replay that runs");
    drop(taken);
    let dropped: u64 = (0..15).map(|_| letters.bury(&letter(&line)).unwrap()).sum();
    assert!(dropped > 0 && letters.bytes().unwrap() <= 10_000, "{dropped}");
}

/// The agent tries again by itself; a person should not have to.
#[test]
fn the_command_line_waits_for_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 10_000);
    letters.bury(&letter("a")).unwrap();
    let lock = letters.lock().unwrap();
    assert!(letters.bury(&letter("b")).is_err());
    let waiting = letters.clone().patient();
    let other = std::thread::spawn(move || waiting.bury(&letter("b")).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    drop(lock);
    other.join().unwrap();
    assert_eq!(lines(&letters.read().unwrap().0), ["a", "b"]);
}

/// A first day can bring hundreds of thousands: writing them together gives the same files as writing them one by one.
#[test]
fn many_at_once_are_as_one_by_one() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let all: Vec<Letter> =
        (0..500).map(|number| letter(&format!("{number}{}", "x".repeat(number % 90)))).collect();
    let of = |dir: &tempfile::TempDir| DeadLetters::new(dir.path(), 40_000);
    let one_by_one: u64 = all.iter().map(|letter| of(&dirs[0]).bury(letter).unwrap()).sum();
    let together: u64 = all.chunks(60).map(|some| of(&dirs[1]).bury_all(some).unwrap()).sum();
    let kept = dirs.each_ref().map(|dir| of(dir).read().unwrap().0);
    assert_eq!(lines(&kept[0]).last(), lines(&kept[1]).last());
    let bytes = |letters: &[Letter]| -> u64 {
        letters.iter().map(|letter| serde_json::to_vec(letter).unwrap().len() as u64 + 1).sum()
    };
    assert_eq!((bytes(&kept[0]) + one_by_one, bytes(&kept[1]) + together), (bytes(&all), bytes(&all)));
    assert!(bytes(&kept[1]) <= 40_000 && bytes(&kept[1]) > 25_000, "{}", bytes(&kept[1]));
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 20_000);
    let (mut dropped, mut all) = (0, 0);
    for number in 0..200 {
        dropped += letters.bury(&letter(&format!("{number}{}", "x".repeat(300)))).unwrap();
        all += serde_json::to_vec(&letter(&format!("{number}{}", "x".repeat(300)))).unwrap().len() as u64 + 1;
    }
    let (kept, unreadable) = letters.read().unwrap();
    assert_eq!(unreadable, 0);
    assert!(kept.last().unwrap().line.starts_with("199"));
    let kept_bytes: u64 =
        kept.iter().map(|letter| serde_json::to_vec(letter).unwrap().len() as u64 + 1).sum();
    assert!(kept_bytes <= 20_000 && kept_bytes > 10_000, "{kept_bytes}");
    assert_eq!(kept_bytes + dropped, all);
}

#[test]
fn a_torn_letter_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(dir.path(), 1 << 20);
    letters.bury(&letter("a")).unwrap();
    let path = letters.path(1);
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"time\":\"2026\n");
    fs::write(&path, text).unwrap();
    letters.bury(&letter("b")).unwrap();
    let (found, unreadable) = letters.read().unwrap();
    assert_eq!((lines(&found), unreadable), (vec!["a", "b"], 1));
}
