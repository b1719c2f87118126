//! Lines as these servers wrote them.

use super::*;

/// The fields, in order, as `name=value`; `None` = it is not such a line.
fn fields(read: impl Fn(&[u8], &mut Found) -> Result<(), NotThis>, line: &str) -> Option<String> {
    let mut found = Found::new(None);
    read(line.as_bytes(), &mut found).ok()?;
    let pairs: Vec<String> =
        found.fields.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect();
    Some(pairs.join(" | "))
}

#[test]
fn access_logs() {
    let combined = |line: &[u8], into: &mut Found| access(line, Behind::Agent, into);
    let common = |line: &[u8], into: &mut Found| access(line, Behind::Nothing, into);
    let table: [(&str, Option<&str>); 11] = [
        // Apache's documentation.
        (
            r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326 "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)""#,
            Some(
                "client=127.0.0.1 | user=frank | time=2000-10-10T13:55:36-0700 | method=GET | path=/apache_pb.gif | \
                 protocol=HTTP/1.0 | status=200 | bytes=2326 | referer=http://www.example.com/start.html | \
                 agent=Mozilla/4.08 [en] (Win98; I ;Nav) | level=info",
            ),
        ),
        // The container nginx:1.27, with its "main" format.
        (
            r#"172.17.0.1 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 615 "-" "curl/8.5.0" "203.0.113.7""#,
            Some(
                "client=172.17.0.1 | time=2026-11-22T00:52:48+0000 | method=GET | path=/ | protocol=HTTP/1.1 | \
                 status=200 | bytes=615 | agent=curl/8.5.0 | forwarded_for=203.0.113.7 | level=info",
            ),
        ),
        // A TLS hello on a plain port, as nginx and as Apache escape it; nothing at all.
        (
            r#"198.51.100.4 - - [22/Nov/2026:00:52:48 +0000] "\x16\x03\x01" 400 157 "-" "-""#,
            Some(
                "client=198.51.100.4 | time=2026-11-22T00:52:48+0000 | request=\u{16}\u{3}\u{1} | status=400 | bytes=157 | \
                 level=warn",
            ),
        ),
        (
            r#"198.51.100.4 - - [22/Nov/2026:00:52:48 +0000] "-" 408 - "-" "-""#,
            Some("client=198.51.100.4 | time=2026-11-22T00:52:48+0000 | status=408 | level=warn"),
        ),
        // Debian's vhost_combined, and a user with a blank.
        (
            r#"www.example.org:443 2001:db8::1 - a b [22/Nov/2026:00:52:48 +0000] "POST /\"x\" y HTTP/2.0" 503 0 "-" "a\\b""#,
            Some(
                "vhost=www.example.org:443 | client=2001:db8::1 | user=a b | time=2026-11-22T00:52:48+0000 | method=POST | \
                 path=/\"x\" y | protocol=HTTP/2.0 | status=503 | bytes=0 | agent=a\\b | level=error",
            ),
        ),
        // What a server adds of its own.
        (
            r#"10.0.0.7 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 1 "-" "-" 0.004 upstream=1"#,
            Some(
                "client=10.0.0.7 | time=2026-11-22T00:52:48+0000 | method=GET | path=/ | protocol=HTTP/1.1 | status=200 | \
                 bytes=1 | level=info",
            ),
        ),
        // What it was forwarded for, logged in place of the client.
        (
            r#"10.0.0.1, 10.0.0.2 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 1 "-" "x""#,
            Some(
                "client=10.0.0.1 | forwarded_for=10.0.0.1, 10.0.0.2 | time=2026-11-22T00:52:48+0000 | method=GET | path=/ | \
                 protocol=HTTP/1.1 | status=200 | bytes=1 | agent=x | level=info",
            ),
        ),
        (
            r#"a.example:80 2001:db8::1, 10.0.0.2, 10.0.0.3 - ann [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 1 "-" "x""#,
            Some(
                "vhost=a.example:80 | client=2001:db8::1 | forwarded_for=2001:db8::1, 10.0.0.2, 10.0.0.3 | user=ann | \
                 time=2026-11-22T00:52:48+0000 | method=GET | path=/ | protocol=HTTP/1.1 | status=200 | bytes=1 | agent=x | \
                 level=info",
            ),
        ),
        (r#"10.0.0.7 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 1"#, None),
        (r#"10.0.0.7 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1 200 1 - -"#, None),
        ("2026-11-22 started [ok]", None),
    ];
    for (line, expected) in table {
        assert_eq!(fields(combined, line).as_deref(), expected, "{line}");
    }
    let line = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326"#;
    assert!(fields(common, line).is_some_and(|fields| fields.contains("status=200 | bytes=2326")));
    assert_eq!(fields(common, &format!("{line} \"-\" \"-\"")), None);
}

/// A virtual host differs from a client by what follows it, and a list of proxies from other text by its addresses.
#[test]
fn who_asked_for_whom() {
    let combined = |line: &[u8], into: &mut Found| access(line, Behind::Agent, into);
    let table: [(&str, &str, Option<&str>); 18] = [
        ("a.example 10.0.0.1 - -", "", Some("vhost=a.example | client=10.0.0.1")),
        ("localhost 2001:db8::2 - bob", "", Some("vhost=localhost | client=2001:db8::2 | user=bob")),
        (
            "a.example 10.0.0.1, 10.0.0.2 - -",
            "",
            Some("vhost=a.example | client=10.0.0.1 | forwarded_for=10.0.0.1, 10.0.0.2"),
        ),
        ("[::1]:80 ::1 - -", "", Some("vhost=[::1]:80 | client=::1")),
        (
            "[2001:db8::1]:443 2001:db8::2 - bob",
            "",
            Some("vhost=[2001:db8::1]:443 | client=2001:db8::2 | user=bob"),
        ),
        ("a.example:443 client.example - -", "", Some("vhost=a.example:443 | client=client.example")),
        ("10.0.0.5:443 10.0.0.1 - -", "", Some("vhost=10.0.0.5:443 | client=10.0.0.1")),
        ("a.example 10.0.0.1 ann", "", Some("client=a.example | user=ann")),
        ("2001:db8::1 - a b", "", Some("client=2001:db8::1 | user=a b")),
        ("client.example - John Doe", "", Some("client=client.example | user=John Doe")),
        // Either could be the client.
        ("10.0.0.1 10.0.0.2 - -", "", None),
        (
            "10.0.0.1 - -",
            " \"203.0.113.7, 10.0.0.2\"",
            Some("client=10.0.0.1 | forwarded_for=203.0.113.7, 10.0.0.2"),
        ),
        (
            "10.0.0.1 - -",
            " \"unknown, [::1]:5, 10.0.0.2:80\"",
            Some("client=10.0.0.1 | forwarded_for=unknown, [::1]:5, 10.0.0.2:80"),
        ),
        ("10.0.0.1 - -", " \"-\"", Some("client=10.0.0.1")),
        ("10.0.0.1 - -", " \"unknown\"", Some("client=10.0.0.1")),
        ("10.0.0.1 - -", " \"www.vhost.example\" sn=\"a\"", Some("client=10.0.0.1")),
        ("10.0.0.1 - -", " \"0.000\" \"-\"", Some("client=10.0.0.1")),
        ("10.0.0.1 - -", " \"up\" \"TLSv1.3\"", Some("client=10.0.0.1")),
    ];
    for (head, tail, expected) in table {
        let line = format!("{head} [22/Nov/2026:00:52:48 +0000] \"-\" 200 - \"-\" \"-\"{tail}");
        let found = fields(combined, &line).map(|fields| {
            let parts = fields.split(" | ").filter(|part| {
                !["time", "status", "level"].contains(&part.split('=').next().unwrap_or_default())
            });
            parts.collect::<Vec<_>>().join(" | ")
        });
        assert_eq!(found.as_deref(), expected, "{line}");
    }
}

#[test]
fn error_logs() {
    let table: [(&str, Option<&str>); 11] = [
        (
            r#"2026/11/22 00:52:48 [notice] 1#1: start worker process 29"#,
            Some("time=2026-11-22 00:52:48 | level=info | pid=1 | tid=1 | message=start worker process 29"),
        ),
        (
            r#"2026/11/22 00:52:48 [error] 29#30: *7 connect() failed (111: Connection refused) while connecting to upstream, client: 10.0.0.7, server: a.example, request: "POST /a, b HTTP/1.1", upstream: "http://10.0.0.9:80/a", host: "a.example""#,
            Some(
                "time=2026-11-22 00:52:48 | level=error | pid=29 | tid=30 | connection=7 | client=10.0.0.7 | server=a.example | \
                 method=POST | path=/a, b | protocol=HTTP/1.1 | upstream=http://10.0.0.9:80/a | host=a.example | \
                 message=connect() failed (111: Connection refused) while connecting to upstream",
            ),
        ),
        // Text of others that looks like nginx's own: an upstream's output, a client's request.
        (
            r#"2026/11/22 00:52:48 [error] 31#31: *5 FastCGI sent in stderr: "PHP message: a, client: b, host: c in /x.php" while reading response header from upstream, client: 10.0.0.1, server: _, request: "GET / HTTP/1.1", host: "x""#,
            Some(
                "time=2026-11-22 00:52:48 | level=error | pid=31 | tid=31 | connection=5 | client=10.0.0.1 | server=_ | method=GET | \
                 path=/ | protocol=HTTP/1.1 | host=x | message=FastCGI sent in stderr: \"PHP message: a, client: b, host: c in /x.php\" \
                 while reading response header from upstream",
            ),
        ),
        (
            r#"2026/11/22 00:52:48 [error] 1#1: *5 x, client: 10.0.0.1, server: _, request: "GET /, client: 1.2.3.4 HTTP/1.1", host: "x""#,
            Some(
                "time=2026-11-22 00:52:48 | level=error | pid=1 | tid=1 | connection=5 | client=10.0.0.1 | server=_ | method=GET | \
                 path=/, client: 1.2.3.4 | protocol=HTTP/1.1 | host=x | message=x",
            ),
        ),
        (
            "2026/11/22 00:52:48 [info] 1#1: *5 a, client: b: done, client: 10.0.0.1, bytes from/to client:0/0",
            Some(
                "time=2026-11-22 00:52:48 | level=info | pid=1 | tid=1 | connection=5 | client=10.0.0.1 | \
                 message=a, client: b: done",
            ),
        ),
        (
            r#"172.17.0.1 - - [22/Nov/2026:00:52:48 +0000] "GET / HTTP/1.1" 200 615 "-" "-" "-""#,
            Some(
                "client=172.17.0.1 | time=2026-11-22T00:52:48+0000 | method=GET | path=/ | protocol=HTTP/1.1 | status=200 | \
                 bytes=615 | level=info",
            ),
        ),
        ("/docker-entrypoint.sh: Configuration complete; ready for start up", None),
        // A referrer, a request or a path that gives another client: nobody can say which is the true one.
        (
            r#"2026/11/22 00:52:48 [error] 1#1: *1 open() "/x" failed (2: No such file or directory), client: 1.2.3.4, server: a, request: "GET /x HTTP/1.1", host: "a", referrer: "http://x", client: 6.6.6.6, server: evil, host: "y""#,
            None,
        ),
        (
            r#"2026/11/22 00:52:48 [error] 1#1: *1 x, client: 1.2.3.4, server: a, request: "GET /", client: 6.6.6.6, y HTTP/1.1", host: "a""#,
            None,
        ),
        (
            r#"2026/11/22 00:52:48 [error] 1#1: *1 open() "/a, client: 6.6.6.6, server: evil" failed (2: No such file or directory), client: 1.2.3.4, server: a, host: "a""#,
            None,
        ),
        (
            r#"2026/11/22 00:52:48 [error] 1#1: *1 x, client: 1.2.3.4, server: a, host: "a", referrer: "http://x"z, client: 6.6.6.6, server: evil, host: "y""#,
            None,
        ),
    ];
    for (line, expected) in table {
        assert_eq!(fields(nginx, line).as_deref(), expected, "{line}");
    }
    let table: [(&str, Option<&str>); 11] = [
        (
            "[Sun Nov 22 00:52:48.435123 2026] [core:error] [pid 4711:tid 139] [client 203.0.113.9:52144] AH00126: Invalid URI in request GET /%%",
            Some(
                "time=2026-11-22T00:52:48.435123 | level=error | module=core | pid=4711 | tid=139 | client=203.0.113.9:52144 | \
                 code=AH00126 | message=AH00126: Invalid URI in request GET /%%",
            ),
        ),
        (
            "[Sun Nov 22 00:52:48.435123 2026] [mpm_event:notice] [pid 1:tid 1] AH00489: Apache/2.4.62 (Unix) configured -- resuming normal operations",
            Some(
                "time=2026-11-22T00:52:48.435123 | level=info | module=mpm_event | pid=1 | tid=1 | code=AH00489 | \
                 message=AH00489: Apache/2.4.62 (Unix) configured -- resuming normal operations",
            ),
        ),
        (
            "[Sun Nov  2 00:52:48 2026] [error] [client 203.0.113.9] File does not exist: /var/www/favicon.ico",
            Some(
                "time=2026-11-02T00:52:48 | level=error | client=203.0.113.9 | \
                 message=File does not exist: /var/www/favicon.ico",
            ),
        ),
        (
            "[Sun Nov 22 00:52:48.1 2026] [php:notice] [pid 9] [client 10.0.0.7:1] [shop] odd",
            Some(
                "time=2026-11-22T00:52:48.1 | level=info | module=php | pid=9 | client=10.0.0.7:1 | message=[shop] odd",
            ),
        ),
        (
            "[Sun Nov 22 00:52:48.1 2026] [core:error] [pid 12:tid 1] (13)Permission denied: [client 1.2.3.4:5] AH00035: access to / denied",
            Some(
                "time=2026-11-22T00:52:48.1 | level=error | module=core | pid=12 | tid=1 | client=1.2.3.4:5 | code=AH00035 | \
                 message=(13)Permission denied: [client 1.2.3.4:5] AH00035: access to / denied",
            ),
        ),
        (
            "[Sun Nov 22 00:52:48.1 2026] [proxy:debug] [pid 12:tid 1] proxy_util.c(2): (111)Connection refused: AH00957: http: no",
            Some(
                "time=2026-11-22T00:52:48.1 | level=debug | module=proxy | pid=12 | tid=1 | code=AH00957 | \
                 message=proxy_util.c(2): (111)Connection refused: AH00957: http: no",
            ),
        ),
        (
            "[Sun Nov 22 00:52:48.1 2026] [core:info] [pid 12:tid 1] [client [::1]:5] AH00128: File does not exist",
            Some(
                "time=2026-11-22T00:52:48.1 | level=info | module=core | pid=12 | tid=1 | client=[::1]:5 | code=AH00128 | \
                 message=AH00128: File does not exist",
            ),
        ),
        ("[Sun Nov 22 00:52:48.1 2026] [core:info] [pid 12]text", None),
        ("[Sun Nov 22 00:52:48 2026] [info]", Some("time=2026-11-22T00:52:48 | level=info | message=")),
        ("[Sun Nov 22 00:52:48 2026] [loud] x", None),
        ("PHP Notice: x", None),
    ];
    for (line, expected) in table {
        assert_eq!(fields(apache_error, line).as_deref(), expected, "{line}");
    }
}
