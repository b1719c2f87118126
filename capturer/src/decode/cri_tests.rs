//! Cases and properties of the decoder of container runtimes' logs.

use super::*;
use crate::limits::RECORD_BYTES_MAX;

const TIME: &str = "2026-11-25T10:00:00.123456789Z";

/// Decodes all of `bytes`: messages with a mark where a line ends, rejects by name.
fn all(bytes: &[u8]) -> Vec<String> {
    let (mut at, mut out) = (0, Vec::new());
    loop {
        match next_record(&bytes[at..], true) {
            Step::Item(piece, took) => {
                assert_eq!(piece.text.len(), piece.decoded_len);
                let text = String::from_utf8_lossy(&bytes[at..][piece.text]);
                let end = if piece.complete { "$" } else { "" };
                out.push(format!("{}:{text}{end}", piece.std_type.as_str()));
                at += took;
            }
            Step::Reject(error, took) => {
                assert!(took > 0);
                out.push(format!("!{error:?} {took}"));
                at += took;
            }
            Step::NeedMore => {
                if at < bytes.len() {
                    out.push(format!("?{}", bytes.len() - at));
                }
                return out;
            }
        }
    }
}

fn check(input: &str, expected: &[&str]) {
    assert_eq!(all(input.as_bytes()), expected, "{input:?}");
}

#[test]
fn ordinary_records() {
    check(&format!("{TIME} stdout F hi\n"), &["stdout:hi$"]);
    check(&format!("{TIME} stderr P hi\n"), &["stderr:hi"]);
    check(&format!("{TIME} stdout F  a  b \r\n"), &["stdout: a  b \r$"]);
    check(&format!("{TIME} stdout F \n{TIME} stdout F\n"), &["stdout:$", "stdout:$"]);
    check(&format!("{TIME} stdout F:x:y=1 hi\n{TIME} stdout P: hi\n"), &["stdout:hi$", "stdout:hi"]);
    // CRI-O writes the host's own zone.
    check("2026-11-25T12:00:00.1+02:00 stdout F x\n", &["stdout:x$"]);
    check(&format!("{TIME} stdout F {TIME} stderr P x\n"), &[&format!("stdout:{TIME} stderr P x$")]);
    let Step::Item(piece, _) = next_record(format!("{TIME} stdout F x\n").as_bytes(), false) else {
        panic!("one")
    };
    assert_eq!((piece.time, piece.form), (0..TIME.len(), MessageForm::Raw));
}

#[test]
fn what_is_none() {
    let long = "F:".to_owned() + &"x".repeat(TAG_BYTES_MAX);
    for bad in [
        "",
        "x",
        TIME,
        &format!("{TIME} stdout"),
        &format!("{TIME} stdin F x"),
        &format!("{TIME} STDOUT F x"),
        &format!("{TIME} stdout f x"),
        &format!("{TIME} stdout FP x"),
        &format!("{TIME} stdout x:F x"),
        &format!("{TIME}  stdout F x"),
        &format!("{TIME} stdout {long} x"),
        "2026-11-25 10:00:00 stdout F x",
        "2026-13-25T10:00:00Z stdout F x",
        "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-25T10:00:00Z\"}",
    ] {
        check(&format!("{bad}\n"), &[&format!("!TornRecord {}", bad.len() + 1)]);
        assert!(!looks_like_record(format!("{bad}\n").as_bytes()), "{bad}");
    }
    assert!(looks_like_record(format!("{TIME} stderr P x\n").as_bytes()));
}

#[test]
fn damage_costs_only_itself() {
    let (good, other) = (format!("{TIME} stdout F good\n"), format!("{TIME} stderr F other\n"));
    // Every way to tear a head before a good record.
    for cut in 1..TIME.len() + " stderr".len() {
        let got = all(format!("{}{good}", &other[..cut]).as_bytes());
        assert_eq!(got, [format!("!TornRecord {cut}"), "stdout:good$".to_owned()], "cut at {cut}");
    }
    check(&format!("\0\0\0{good}{other}"), &["!NulHole 3", "stdout:good$", "stderr:other$"]);
    check(&format!("2026-1\0\0{good}"), &["!TornRecord 8", "stdout:good$"]);
    check(&format!("2026-1\0\0\n{good}"), &["!TornRecord 9", "stdout:good$"]);
    check(&format!("garbage\n{good}"), &["!TornRecord 8", "stdout:good$"]);
    check(&format!(" {good}"), &["!TornRecord 1", "stdout:good$"]);
    check(&format!("\n{good}"), &["!TornRecord 1", "stdout:good$"]);
    let hole = "\0".repeat(100);
    // A torn message, a hole, and what was written behind it.
    let torn = &other[..other.len() - 3];
    let skipped = torn.len() + hole.len();
    check(&format!("{torn}{hole}{good}"), &[&format!("!TornRecord {skipped}"), "stdout:good$"]);
    check(
        &format!("{good}{torn}{hole}\n{good}"),
        &["stdout:good$", &format!("!TornRecord {}", skipped + 1), "stdout:good$"],
    );
    check("\0\0", &["!NulHole 2"]);
    check(&good[..10], &["?10"]);
    let endless = vec![b'x'; RECORD_BYTES_MAX];
    assert_eq!(all(&endless), [format!("!RecordTooLong {RECORD_BYTES_MAX}")]);
    assert_eq!(all(&endless[1..]), [format!("?{}", RECORD_BYTES_MAX - 1)]);
}

/// Agrees with a regular expression, the slow obvious decoder, on records mutated at random.
#[test]
fn agrees_with_a_pattern_on_mutated_records() {
    let slow =
        regex::bytes::Regex::new(r"(?-u)^([^ \n]+) (stdout|stderr) ([FP])(:[^ \n]{0,61})?(?: ([^\n]*))?\n")
            .unwrap();
    let mut rng = crate::sink::testing::Rng::from_env();
    let seeds =
        [format!("{TIME} stdout F a b\n"), format!("{TIME} stderr P:x é\n"), format!("{TIME} stdout F\n")];
    let alphabet = b" :FPTZstdouer0129-+.\0\xc3\n";
    let (mut taken, mut refused) = (0, 0);
    for round in 0..100_000 {
        let mut bytes = seeds[rng.below(seeds.len())].clone().into_bytes();
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = alphabet[rng.below(alphabet.len())];
        }
        bytes.push(b'\n');
        let found = slow.captures(&bytes).filter(|found| timestamp::parse(&found[1]).is_some());
        let shown = String::from_utf8_lossy(&bytes);
        match (next_record(&bytes, true), found) {
            (Step::Item(piece, took), Some(found)) => {
                let text = found.get(5).map_or(&b""[..], |text| text.as_bytes());
                assert_eq!(&bytes[piece.text], text, "round {round}: {shown}");
                assert_eq!(&bytes[piece.time], &found[1], "round {round}: {shown}");
                assert_eq!(piece.std_type.as_str().as_bytes(), &found[2], "round {round}: {shown}");
                assert_eq!(
                    (piece.complete, took),
                    (&found[3] == b"F", found[0].len()),
                    "round {round}: {shown}"
                );
                taken += 1;
            }
            (Step::Reject(..), None) => refused += 1,
            (step, found) => panic!("round {round}: {step:?} instead of {found:?}: {shown}"),
        }
    }
    assert!(taken > 10_000 && refused > 10_000, "{taken} records, {refused} of none");
}
