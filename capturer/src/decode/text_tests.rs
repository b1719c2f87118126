//! Marks and encodings by example; the table of encodings, line ends and chunk borders is the fuzz entry
//! (`tests/decoders.rs` runs it).

use super::*;

fn lines(name: &str, bytes: &[u8]) -> Vec<String> {
    let encoding = Encoding::named(name).expect("a known name");
    let (mut at, mut found) = (0, Vec::new());
    let shown = |text: &[u8]| {
        let mut out = Vec::new();
        let invalid = encoding.decode(text, &mut out);
        format!("{}{}", String::from_utf8(out).unwrap(), if invalid { "!" } else { "" })
    };
    while at < bytes.len() {
        match encoding.next_line(&bytes[at..], false) {
            Step::Item(line, took) => {
                found.push(shown(&bytes[at..][line.text]));
                at += took;
            }
            Step::Reject(error, took) => {
                found.push(format!("{error:?} {took}"));
                at += took;
            }
            Step::NeedMore => {
                found.push(format!("…{}", shown(&bytes[at..])));
                break;
            }
        }
    }
    found
}

#[test]
fn encodings() {
    let table: [(&str, &[u8], &[&str]); 8] = [
        ("utf-16le", b"a\0\n\0\x0a\x0a\n\0", &["a", "\u{a0a}"]),
        ("utf-16be", b"\0a\0\n\x0a\x0a\0\nx", &["a", "\u{a0a}", "…\u{fffd}!"]),
        ("utf-16le", b"\0\0\0\0a\0\n\0", &["NulHole 4", "a"]),
        ("utf-16be", b"\0\0\0a\0\n", &["NulHole 2", "a"]),
        ("latin1", b"caf\xe9 \x80\n", &["café €"]),
        ("shift_jis", b"\x83\x65\x83\x58\x83\x67\n", &["テスト"]),
        ("gbk", b"\xc4\xe3\xba\xc3\nx", &["你好", "…x"]),
        ("euc-kr", b"\xff\n", &["\u{fffd}!"]),
    ];
    for (name, bytes, expected) in table {
        assert_eq!(lines(name, bytes), expected, "{name}");
    }
    assert_eq!(Encoding::named("utf-7"), None);
    assert_eq!(Encoding::named("replacement"), None);
    assert_eq!(Encoding::named("iso-2022-jp"), None);
}

#[test]
fn marks() {
    let utf16 = |name| Encoding::named(name).expect("known");
    let table: [(&[u8], bool, Mark); 10] = [
        (b"", false, Mark::None),
        (b"abc", false, Mark::None),
        (b"\xef\xbb", false, Mark::NeedMore),
        (b"\xef\xbb", true, Mark::None),
        (b"\xef\xbb\xbfa", false, Mark::Of(Encoding::default(), 3)),
        (b"\xff\xfe", false, Mark::NeedMore),
        (b"\xff\xfea\0", false, Mark::Of(utf16("utf-16le"), 2)),
        (b"\xfe\xff", false, Mark::Of(utf16("utf-16be"), 2)),
        (b"\xff\xfe\0\0", false, Mark::Utf32),
        (b"\0\0\0\0", false, Mark::None),
    ];
    for (head, at_end, expected) in table {
        assert_eq!(mark(head, at_end), expected, "{head:?}");
    }
}

/// A line longer than the bound is cut between characters, and the line after it is whole again.
#[test]
fn long_lines_are_cut_between_pairs() {
    let encoding = Encoding::named("utf-16le").expect("known");
    let text = "x".to_owned() + &"𝄞".repeat(LINE_PIECE_BYTES / 4 + 10);
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let Step::Item(line, took) = encoding.next_line(&bytes, false) else { panic!("a piece") };
    assert_eq!((line.complete, took, line.text.len()), (false, LINE_PIECE_BYTES - 2, LINE_PIECE_BYTES - 2));
    let mut out = Vec::new();
    assert!(!encoding.decode(&bytes[line.text], &mut out));
}
