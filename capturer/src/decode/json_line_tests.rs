//! Cases and properties of the json-file decoder.

use super::*;
use crate::decode::DecodeError;

const TIME: &str = "2026-11-22T00:52:48.162820305Z";

fn record(log: &str, stream: &str) -> String {
    format!(
        "{{\"log\":{},\"stream\":\"{stream}\",\"time\":\"{TIME}\"}}\n",
        serde_json::to_string(log).unwrap()
    )
}

/// Decodes all of `bytes`: messages unescaped, rejects by name.
fn all(bytes: &[u8]) -> Vec<String> {
    let (mut at, mut out) = (0, Vec::new());
    let clean = is_clean(bytes);
    loop {
        match next_record(&bytes[at..], clean) {
            Step::Item(piece, took) => {
                let mut text = Vec::new();
                unescape(&bytes[at..][piece.text.clone()], &mut text);
                assert_eq!(text.len(), piece.decoded_len);
                let end = if piece.complete { "$" } else { "" };
                out.push(format!("{}:{}{end}", piece.std_type.as_str(), String::from_utf8(text).unwrap()));
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
    check(&record("hi\n", "stdout"), &["stdout:hi$"]);
    check(&record("hi\n", "stderr"), &["stderr:hi$"]);
    check(&record("\n", "stdout"), &["stdout:$"]);
    // Copied through Windows.
    let copied = record("a\n", "stdout").replace('\n', "\r\n").replacen("\\r\\n", "\\n", 1);
    check(&format!("{copied}{copied}"), &["stdout:a$", "stdout:a$"]);
    assert!(
        looks_like_record(copied.as_bytes())
            && whole_record(copied.trim_end_matches('\n').as_bytes()).is_some()
    );
    check(&record("no newline", "stdout"), &["stdout:no newline"]);
    check(&record("a \"q\" \\ / \t \u{1} é € 𝄞\r\n", "stdout"), &["stdout:a \"q\" \\ / \t \u{1} é € 𝄞\r$"]);
    // The backslash is escaped, so `\\n` is no newline.
    check(&record("c:\\new\\n", "stdout"), &["stdout:c:\\new\\n"]);
    check(&record("c:\\\n", "stdout"), &["stdout:c:\\$"]);
}

/// Go escapes what could break out of HTML or JavaScript.
#[test]
fn go_escapes() {
    let line = format!(
        r#"{{"log":"\u003ca\u003e \u0026 \u2028\u2029 \ud834\udd1e\u000a","stream":"stdout","time":"{TIME}"}}"#
    ) + "\n";
    // A newline escaped in hex is a newline in JSON, but Docker never marks a line's end that way: not complete.
    check(&line, &["stdout:<a> & \u{2028}\u{2029} 𝄞\n"]);
}

#[test]
fn other_shapes() {
    let attrs =
        format!(r#"{{"log":"x\n","stream":"stderr","attrs":{{"a":"}}\"{{","tag":"t"}},"time":"{TIME}"}}"#)
            + "\n";
    check(&attrs, &["stderr:x$"]);
    let turned = format!(r#"{{ "time":"{TIME}", "stream":"stdout", "log":"x\n" }}"#) + "\n";
    check(&turned, &["stdout:x$"]);
    let empty = format!(r#"{{"stream":"stdout","time":"{TIME}"}}"#) + "\n";
    check(&empty, &["stdout:"]);
}

/// Fluent Bit and Fluentd write these keys too, with the application's own keys beside them.
#[test]
fn a_line_with_keys_of_its_own_is_only_a_record_where_docker_wrote_it() {
    let own = format!(r#"{{"time":"{TIME}","stream":"stdout","log":"x","order":4711}}"#) + "\n";
    check(&own, &["stdout:x"]);
    assert!(
        matches!(next_record_of_docker(own.as_bytes(), true), Step::Reject(DecodeError::TornRecord, took) if took == own.len())
    );
    assert!(!looks_like_record(own.as_bytes()) && whole_record(own.trim_end().as_bytes()).is_none());
    let behind = format!("torn{}", own.replace("\"time\"", "\"log\":\"y\",\"time\""));
    assert!(
        matches!(next_record_of_docker(behind.as_bytes(), true), Step::Reject(_, took) if took == behind.len())
    );
    for tail in ["", r#","attrs":null"#, r#","attrs":{"tag":"t"}"#] {
        let line = format!(r#"{{"time":"{TIME}","stream":"stdout","log":"x\n"{tail}}}"#) + "\n";
        assert!(looks_like_record(line.as_bytes()), "{line}");
        assert_eq!(next_record_of_docker(line.as_bytes(), true), next_record(line.as_bytes(), true));
    }
}

#[test]
fn damage_costs_only_itself() {
    let (good, other) = (record("good\n", "stdout"), record("other\n", "stderr"));
    // A torn record with a good one glued behind it.
    let torn = &other[..20];
    check(&format!("{torn}{good}{other}"), &["!TornRecord 20", "stdout:good$", "stderr:other$"]);
    let twice = format!("{torn}{torn}{good}");
    check(&twice, &["!TornRecord 40", "stdout:good$"]);
    // Every way to tear a record before a good one.
    for cut in 1..other.len() - 1 {
        let got = all(format!("{}{good}", &other[..cut]).as_bytes());
        assert_eq!(got.last().map(String::as_str), Some("stdout:good$"), "cut at {cut}: {got:?}");
        assert!(got.len() <= 2, "cut at {cut}: {got:?}");
    }
    check(&format!("\0\0\0{good}"), &["!NulHole 3", "stdout:good$"]);
    check(&format!("{torn}\0\0{good}"), &["!TornRecord 22", "stdout:good$"]);
    check(&format!("garbage\n{good}"), &["!TornRecord 8", "stdout:good$"]);
    check(&format!("\n{good}"), &["!TornRecord 1", "stdout:good$"]);
    check("{}\n", &["!TornRecord 3"]);
    check("\0\0", &["!NulHole 2"]);
    check(&good[..10], &["?10"]);
    let stream = good.replace("stdout", "stdlog");
    check(&stream, &[&format!("!TornRecord {}", stream.len())]);
    let time = good.replace('Z', "\\n");
    check(&time, &[&format!("!TornRecord {}", time.len())]);
}

/// A lone surrogate is valid for Docker's reader but would make our own output unreadable.
#[test]
fn lone_surrogates_are_refused() {
    for bad in ["\\ud834", "\\ud834x", "\\udd1e", "\\ud834\\u0041", "\\x", "\\u12"] {
        let line = format!(r#"{{"log":"{bad}","stream":"stdout","time":"{TIME}"}}"#) + "\n";
        assert!(all(line.as_bytes())[0].starts_with("!TornRecord"), "{bad}");
    }
}

/// The cut must never split an escape or a character, and never exceed the limit.
#[test]
fn cutting_escaped_text() {
    let text = "ab\\n\\u20acé\\ud834\\udd1e€z";
    let mut whole = Vec::new();
    unescape(text.as_bytes(), &mut whole);
    for max in 0..=whole.len() + 1 {
        let end = cut_escaped(text.as_bytes(), max);
        let mut part = Vec::new();
        unescape(&text.as_bytes()[..end], &mut part);
        assert!(part.len() <= max && whole.starts_with(&part), "max {max}");
        assert!(part.len() + 4 > max.min(whole.len()), "max {max}: cut too early at {}", part.len());
        String::from_utf8(part).expect("whole characters");
    }
}

/// Agrees with serde_json, the slow obvious decoder, on records mutated at random.
#[test]
fn agrees_with_serde_json_on_mutated_records() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let seeds = [record("a\"b\\c\n", "stdout"), record("é€𝄞\u{1}", "stderr"), record("", "stdout")];
    let alphabet = b"\"\\{}nu0dD8:,a\0\xc3\x28 ";
    for round in 0..200_000 {
        let mut bytes = seeds[random(seeds.len())].clone().into_bytes();
        bytes.pop();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            bytes[at] = alphabet[random(alphabet.len())];
        }
        let slow: Option<(String, String)> =
            serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| {
                let log = v.get("log").map_or(Some(""), |log| log.as_str())?;
                Some((v.get("stream")?.as_str()?.to_owned(), log.to_owned()))
            });
        bytes.push(b'\n');
        if let Step::Item(piece, _) = next_record(&bytes, is_clean(&bytes)) {
            let mut text = Vec::new();
            unescape(&bytes[piece.text.clone()], &mut text);
            if piece.complete {
                text.push(b'\n');
            }
            let fast = (piece.std_type.as_str().to_owned(), String::from_utf8(text).unwrap());
            assert_eq!(Some(fast), slow, "round {round}: {}", String::from_utf8_lossy(&bytes));
        }
    }
}
