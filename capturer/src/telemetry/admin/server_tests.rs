//! The server from outside, over raw sockets: what it answers, and that no client can block it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::model::cursor::Cursor;
use crate::telemetry::fault::Fault;
use crate::telemetry::profile;
use crate::telemetry::reload_requests::ReloadOutcome;
use crate::telemetry::status::{DockerRow, HealthState, Snapshot, StreamRow};

struct Server {
    handle: AdminHandle,
    status: Arc<Status>,
}

fn server() -> Server {
    server_with(Admin::default())
}

fn server_with(admin: Admin) -> Server {
    server_of(admin, Claims::default())
}

fn server_of(admin: Admin, claims: Claims) -> Server {
    let status = Arc::new(Status::default());
    status.beat_capture();
    let metrics = Arc::new(Metrics::new(10).expect("metrics"));
    let any = Admin { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), ..admin };
    let handle = start(&any, Early::default(), Arc::clone(&status), metrics, claims).expect("a free port");
    let handle = handle.expect("there is an address");
    Server { handle, status }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.addr).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        stream
    }

    /// Sends bytes and reads to the end; a reset counts as the end.
    fn send(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        read_all(&mut stream)
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
        (head[9..12].parse().expect("status"), body.to_owned())
    }

    fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.get(path).1).expect("JSON")
    }
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn snapshot(name: &str) -> Snapshot {
    let position = Some(Cursor::Api(Box::default()));
    let row =
        StreamRow { id: 1, key: "container:a".into(), name: name.into(), position, ..StreamRow::default() };
    Snapshot {
        streams: vec![row],
        docker: DockerRow { enabled: true, ..DockerRow::default() },
        ..Snapshot::default()
    }
}

/// Asks for a reload, with more headers.
fn reload(server: &Server, headers: &str) -> String {
    server.send(
        format!("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{headers}\r\n")
            .as_bytes(),
    )
}

#[test]
fn a_reload_is_asked_for_by_post_and_answered_by_the_loop() {
    let server = server();
    let answer = server.send(b"GET /-/reload HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: POST\r\n"), "{answer}");
    assert!(reload(&server, "").starts_with("HTTP/1.1 503"), "nobody reloads here");
    let status = Arc::downgrade(&server.status);
    let answers = std::sync::Mutex::new(vec![
        ReloadOutcome::Failed("could not".to_owned()),
        ReloadOutcome::Refused("c.yaml:1:2: no".to_owned()),
        ReloadOutcome::Applied("done".to_owned()),
    ]);
    // A loop that answers at once.
    server.status.reload_requests.open(Box::new(move || {
        let status = status.upgrade().expect("alive");
        let outcome = answers.lock().expect("answers").pop().expect("asked three times");
        status.reload_requests.answer(status.reload_requests.unanswered().expect("asked"), outcome);
    }));
    assert!(reload(&server, "Origin: http://elsewhere\r\n").starts_with("HTTP/1.1 403"));
    for (status, body) in [("200", "done"), ("400", "c.yaml:1:2: no"), ("500", "could not")] {
        let answer = reload(&server, "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}\n")), "{answer}");
    }
}

/// A drain takes seconds; health must be answered meanwhile.
#[test]
fn others_are_answered_while_a_reload_is_under_way() {
    let server = server();
    server.status.reload_requests.open(Box::new(|| {}));
    let mut waiting = server.connect();
    waiting
        .write_all(b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .expect("write");
    while server.status.reload_requests.unanswered().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(server.get("/healthz").0, 200);
    assert!(server.status.reload_requests.unanswered().is_some(), "it still waits");
    server.status.reload_requests.close();
    assert!(read_all(&mut waiting).starts_with("HTTP/1.1 503"));
}

/// Otherwise whoever requests it would keep a connection for ever.
#[test]
fn a_page_that_is_never_made_is_given_up() {
    let server = server_with(Admin { profile: true, ..Admin::default() });
    let orders = Arc::<Mutex<Vec<profile::Order>>>::default();
    let taken = Arc::clone(&orders);
    server.status.profiles.open(Box::new(move |order| taken.lock().expect("orders").push(order)));
    let (code, body) = server.get("/debug/profile?seconds=1");
    assert_eq!((code, body.contains("could not be made within 12 s")), (503, true), "{body}");
    assert!(orders.lock().expect("orders")[0].answer.is_closed(), "its taker knows that nobody waits");
}

/// The page refers to the agent's answers by these names.
#[test]
fn the_page_and_its_answers_agree() {
    let server = server();
    server.status.publish(snapshot("web"));
    let full = "the spool is full (4 MiB); get Loki running again";
    server.status.set_faults("sink_loki", HealthState::Bad, &[Fault::SpoolFull], full);
    server.status.set_note("pipelines", "one drops all");
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&server.get(path).1).expect("JSON");
    let health = json("/health");
    let told = &health["components"]["sink_loki"]["told"];
    assert_eq!(told["title"], "The spool is full");
    assert_eq!(told["lines"], serde_json::json!(["The spool is full (4 MiB)", "Get Loki running again"]));
    assert!(health["components"]["pipelines"]["told"]["lines"].is_array(), "a note is shown, too");
    assert!(health["components"]["capture_loop"].get("told").is_none(), "nobody reads what is well in lines");
    let row = json("/api/v1/streams")["streams"][0].clone();
    let page = server.get("/page.js").1;
    for name in ["says", "attention", "waits", "unknown"] {
        assert!(row.get(name).is_some() && page.contains(&format!(".{name}")), "{name}: {row}");
    }
    for name in ["title", "lines", "all", "runbook"] {
        assert!(page.contains(&format!("told.{name}")), "{name}");
    }
}

#[test]
fn paths() {
    let server = server();
    assert_eq!(server.get("/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(server.get("/").0, 200);
    assert!(
        server.get("/page.js").1.contains("textContent") && !server.get("/page.js").1.contains("innerHTML")
    );
    assert_eq!(server.get("/page.css").0, 200);
    for icon in ["ok", "bad", "warning", "unknown"] {
        assert_eq!(server.get(&format!("/icon-{icon}.svg")).0, 200, "{icon}");
    }
    let page = server.get("/").1;
    assert!(!page.contains("(unknown)") && !page.contains('{'), "{page}");
    let (status, body) = server.get("/nope");
    assert!(status == 404 && body.contains("/api/v1/streams"), "{body}");
    assert_eq!(server.get("/healthz?x=1").0, 200);
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("log_capturer_component_health{component=\"capture_loop\"} 1\n"), "{metrics}");
}

#[test]
fn methods_and_bodies() {
    let server = server();
    let head = server.send(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = server.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    }
    let answer = server.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer =
        server.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn pages_carry_a_strict_policy() {
    let answer = server().send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self';",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "content-type: text/html; charset=utf-8",
        "connection: close",
    ] {
        assert!(answer.contains(header), "{header}\n{answer}");
    }
    // The policy forbids inline script and style, so the page must have none.
    assert!(!answer.contains("<style") && !answer.contains("onclick") && !answer.contains("style="));
}

#[test]
fn readiness_comes_with_sources_and_sinks() {
    let server = server();
    server.status.expect_sink("local_file");
    let (status, body) = server.get("/readyz");
    assert_eq!((status, body.lines().count()), (503, 3), "{body}");
    server.status.sources_ready.store(true, Ordering::Relaxed);
    server.status.sink_accepted("local_file");
    assert_eq!(server.get("/readyz"), (200, "ready\n".to_owned()));
}

#[test]
fn health_names_the_component() {
    let server = server();
    assert_eq!(server.get("/health").0, 200);
    server.status.set_health("docker", false, "no socket at /x");
    let (status, body) = server.get("/health");
    assert_eq!(status, 503);
    let health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(health["ok"], false);
    assert_eq!(health["components"]["docker"]["message"], "no socket at /x");
    assert!(server.get("/metrics").1.contains("component_health{component=\"docker\"} 0\n"));
}

#[test]
fn streams_and_positions() {
    let server = server();
    let status = Arc::downgrade(&server.status);
    let hostile = "<script>alert(1)</script>\u{1b}\n";
    server.status.on_ask(Box::new(move || status.upgrade().expect("alive").publish(snapshot(hostile))));
    let streams = server.json("/api/v1/streams");
    assert_eq!(streams["fresh"], true);
    assert_eq!(streams["streams"][0]["name"], hostile);
    assert_eq!(streams["docker"]["enabled"], true);
    let positions = server.json("/api/v1/positions");
    assert_eq!(positions["positions"][0]["key"], "container:a");
    assert_eq!(positions["positions"][0]["position"]["kind"], "api");
}

/// The server's first duty: the health check of this agent's predecessor hung with everything else.
#[test]
fn it_answers_while_the_capture_loop_is_stuck() {
    let server = server();
    server.status.publish(snapshot("web"));
    server.status.on_ask(Box::new(|| {}));
    let began = Instant::now();
    let mut waiting: Vec<TcpStream> = (0..16).map(|_| server.connect()).collect();
    for stream in &mut waiting {
        stream.write_all(b"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("write");
    }
    assert_eq!(server.get("/healthz").0, 200);
    for stream in &mut waiting {
        let answer = read_all(stream);
        assert!(answer.contains("\"fresh\":false") && answer.contains("\"name\":\"web\""), "{answer}");
    }
    // One after the other would take 16 times 200 ms.
    assert!(began.elapsed() < Duration::from_millis(2500), "all waited at once: {:?}", began.elapsed());
}

#[test]
fn nonsense_gets_an_error_or_a_closed_connection() {
    let server = server();
    let huge = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(1 << 20));
    let requests: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n\x00\xff\xfe",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        huge.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
    ];
    for request in requests {
        let answer = server.send(request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }
    assert_eq!(server.get("/healthz").0, 200);
}

/// Slow clients end by their deadline, and keep out nobody meanwhile.
#[test]
fn silent_clients_are_closed_and_keep_nobody_out() {
    let server = server();
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for stream in &mut silent {
        let _ = stream.write_all(b"GET /healthz HT");
    }
    let last = silent.last_mut().expect("a hundred");
    let answer = server.get("/healthz");
    assert_eq!(answer.0, 200);
    let patience = began.elapsed();
    assert!(patience < Duration::from_secs(3), "before any silent client's deadline: {patience:?}");
    read_all(last);
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
}

/// While the loop is stuck an answer takes longer than a new client waits for a slot: a client that sent a request
/// keeps its slot.
#[test]
fn who_waits_for_an_answer_is_not_closed_for_who_says_nothing() {
    let server = server();
    server.status.publish(snapshot("web"));
    server.status.on_ask(Box::new(|| {}));
    let ask = |_| {
        let mut client = server.connect();
        client.write_all(b"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("write");
        client
    };
    let clients: Vec<TcpStream> = (0..CONNECTIONS_MAX - 1).map(ask).collect();
    let mut silent: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    for mut client in clients {
        assert!(read_all(&mut client).starts_with("HTTP/1.1 200"));
    }
    let last = silent.last_mut().expect("ten");
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("write");
    assert!(read_all(last).starts_with("HTTP/1.1 200"), "the newest keeps its slot");
}

#[test]
fn a_hundred_clients_at_once_are_all_answered() {
    let server = server();
    // Each client sends its request as soon as it is connected, as normal clients do. Clients that connect and send
    // nothing are closed for newer ones on purpose, and on a busy machine any pause between connecting and sending
    // would be long enough for that.
    let mut clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut client = server.connect();
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("write");
            client
        })
        .collect();
    for client in &mut clients {
        assert!(read_all(client).starts_with("HTTP/1.1 200"));
    }
}

/// A claim that outlives its descriptor looks like a closing behind its owner's back, once another part has the number.
#[test]
fn a_connection_is_closed_after_its_claim_has_ended() {
    let claims = Claims::default();
    let server = server_of(Admin::default(), claims.clone());
    let ended = AtomicBool::new(false);
    let answers: Vec<String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                drop(claims.hold(std::fs::File::open("/dev/null").expect("it opens"), Owner::Discovery));
            }
        });
        let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let ask = |_| {
            TcpStream::connect(server.handle.addr).map(|mut stream| {
                let _ = stream.write_all(request);
                read_all(&mut stream)
            })
        };
        let answers = (0..500).filter_map(|number| ask(number).ok()).collect();
        ended.store(true, Ordering::Relaxed);
        answers
    });
    assert!(answers.len() == 500 && answers.iter().all(|answer| answer.starts_with("HTTP/1.1 ")));
    assert_eq!(claims.with(|ledger| ledger.slips()), 0);
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let server = server();
    let metrics = Arc::new(Metrics::new(1).expect("metrics"));
    let taken = Admin { listen: Some(server.handle.addr), ..Admin::default() };
    let error = start(&taken, Early::default(), Arc::default(), metrics, Claims::default())
        .err()
        .expect("the port is taken");
    let expected =
        format!("admin server on {}: another process listens there; change admin.listen", server.handle.addr);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn it_stops_at_once_and_frees_its_port() {
    let server = server();
    let mut silent = server.connect();
    let addr = server.handle.addr;
    let began = Instant::now();
    server.handle.stop();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(read_all(&mut silent), "");
    assert!(TcpStream::connect(addr).is_err());
}

/// A foreign page whose name has our address must not read log lines.
#[test]
fn a_stranger_is_not_answered() {
    let server = server();
    for path in ["/api/v1/tap", "/metrics", "/healthz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example:8001\r\n\r\n");
        let answer = server.send(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 421") && answer.contains("admin.hosts"), "{answer}");
    }
    let address = server.handle.addr;
    let answer = server.send(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.send(b"GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
}

/// Whoever reaches the address sees names and lines; with a token set, only `/healthz` is answered without it.
#[test]
fn without_the_token_nothing_is_told() {
    let token = "0123456789abcdef";
    let server = server_with(Admin { token: Some(crate::settings::Secret::new(token)), ..Admin::default() });
    for path in ["/", "/metrics", "/health", "/readyz", "/api/v1/streams", "/api/v1/tap", "/nothing"] {
        let (status, body) = server.get(path);
        assert!(status == 401 && body.contains("admin.token"), "{path}: {status} {body}");
    }
    assert_eq!(server.get("/healthz").0, 200);
    assert!(reload(&server, "").starts_with("HTTP/1.1 401"));
    let with = |header: &str| {
        server.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n").as_bytes())
    };
    assert!(with(&format!("Authorization: Bearer {token}")).starts_with("HTTP/1.1 200"));
    assert!(with("Authorization: Bearer 0123456789abcdeF").starts_with("HTTP/1.1 401"));
}

#[test]
fn watching_lines_can_be_switched_off() {
    let server = server_with(Admin { tap: false, ..Admin::default() });
    assert_eq!(server.get("/api/v1/tap").0, 403);
    assert_eq!(server.get("/healthz").0, 200);
}

/// Its permissions decide who may use it, so no token is needed; the server removes it when it ends.
#[test]
fn a_unix_socket_answers_without_a_token_and_goes_with_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    // A socket left by a killed agent does not matter.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let token = Some(crate::settings::Secret::new("0123456789abcdef"));
    let server = server_with(Admin { socket: Some(path.clone()), token, ..Admin::default() });
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.handle.stop();
    assert!(!path.exists());
}
