//! Unusable answers, for tests/hostile_daemon.rs: each with what the agent must say and deliver.

use std::time::Duration;

use capturer_tests::fake_docker::{HEAD_CHUNKED, Part, Reply, push_chunk};
use serde_json::json;

/// An unusable answer, and its expected effect.
pub struct Fault {
    /// Part of the container's name.
    pub what: &'static str,
    /// The answer.
    pub reply: Reply,
    /// When it answers a list or an inspection: what health must say.
    pub asked: &'static str,
    /// When it answers a follow.
    pub followed: Followed,
}

/// The expected effect of a fault in the answer to a follow. The lines after it are always delivered.
#[derive(Clone, Copy)]
pub enum Followed {
    /// The stream names it as its last error, in these words.
    Error(&'static str),
    /// It is skipped, and counted by this reason.
    Counted(&'static str),
    /// It looks like a container without lines: no error, and the stream follows.
    Quiet,
}

/// All unusable answers.
pub fn no_answers() -> Vec<Fault> {
    use Followed::{Counted, Error, Quiet};
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let object = "{\"a\":[1,2,3]}";
    let fault = |what, reply, asked, followed| Fault { what, reply, asked, followed };
    let trickle = Part::Trickle(vec![b' '; 1_000_000], Duration::from_millis(300));
    let interim = Part::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let redirect = "HTTP/1.1 301 Moved\r\nLocation: /containers/json\r\nContent-Length: 0\r\n\r\n";
    let raw_chunk = |chunk: &[u8]| Reply::raw([HEAD_CHUNKED, chunk].concat());
    let unreadable = "can't be read";
    vec![
        fault("not HTTP", Reply::raw("SSH-2.0-OpenSSH_9.2p1\r\n"), "invalid HTTP", Error("invalid HTTP")),
        fault("random bytes", Reply::raw((0..=255).rev().collect::<Vec<u8>>()), "GET ", Error("GET ")),
        fault("nothing", Reply::raw(""), "connection closed", Error("connection closed")),
        fault(
            "half a head",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Le"),
            "connection closed",
            Error("connection closed"),
        ),
        fault("a head alone", Reply::raw(head("100")), "end of file", Error("end of file")),
        fault("half a body", Reply::raw(head("100") + object), "end of file", Error("frame")),
        // Less than a frame's header, and a clean end.
        fault("a body longer than said", Reply::raw(head("5") + object), unreadable, Counted("torn_record")),
        fault("a length that is none", Reply::raw(head("-1") + object), "GET ", Error("GET ")),
        fault("a chunk that is cut", Reply::chunks([&b"[{"[..]]), "unexpected EOF", Error("unexpected EOF")),
        fault(
            "a chunk length that is none",
            raw_chunk(b"zz\r\n[]\r\n0\r\n\r\n"),
            "size digit",
            Error("size digit"),
        ),
        fault("a chunk length past 64 bits", raw_chunk(b"fffffffffffffffffff\r\n"), "chunk", Error("chunk")),
        fault("silence", Reply::silence(), "no answer", Error("no answer")),
        fault("a head and silence", Reply::raw(head("100")).then(Part::Hold), "no answer", Quiet),
        fault(
            "a body that trickles for ever",
            Reply::raw(head("1000000")).then(trickle),
            "no answer",
            Error("frame"),
        ),
        fault("interim answers for ever", Reply::default().then(interim), "no answer", Error("no answer")),
        fault(
            "headers for ever",
            Reply::raw("HTTP/1.1 200 OK\r\n").then(Part::Endless(b"X-A: b\r\n".to_vec())),
            "GET ",
            Error("GET "),
        ),
        fault(
            "a body for ever",
            Reply::raw(HEAD_CHUNKED).then(Part::Endless(endless_chunk())),
            "larger than",
            Error("frame"),
        ),
        fault(
            "500",
            Reply::status(500, r#"{"message":"the disk is on fire"}"#),
            "the disk is on fire",
            Error("the disk is on fire"),
        ),
        fault("a redirect to itself", Reply::raw(redirect), "answered 301", Error("answered 301")),
        fault("a page", Reply::status(200, "<html>It works!</html>"), unreadable, Error("frame")),
        fault("the wrong type", Reply::json(&json!("text")), unreadable, Counted("torn_record")),
        fault("nulls", Reply::json(&json!([{"Id": null, "State": null}])), unreadable, Error("frame")),
        fault("arrays in arrays", Reply::status(200, "[".repeat(1_000_000)), unreadable, Error("frame")),
    ]
}

/// A chunk to be sent without end.
pub fn endless_chunk() -> Vec<u8> {
    let mut chunk = Vec::new();
    push_chunk(&mut chunk, &[b' '; 16 * 1024]);
    chunk
}
