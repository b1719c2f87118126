//! One connection to the fake Engine: reads requests, and answers as it is told to or as the Engine would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HEAD_CHUNKED, LAST_CHUNK, LOOK, Part, Reply, Shared, frame, inspection, push_chunk};

/// One connection: one request, one answer.
pub(super) struct Answering {
    pub(super) client: UnixStream,
    pub(super) began_at: u64,
    pub(super) shared: Arc<Shared>,
}

impl Answering {
    pub(super) fn serve(mut self) -> std::io::Result<()> {
        // Bounds every wait of this thread: it looks up again, and ends with the fake.
        self.client.set_read_timeout(Some(LOOK))?;
        self.client.set_write_timeout(Some(LOOK))?;
        let Some((path, query)) = self.request()? else { return Ok(()) };
        let reply = {
            let mut state = self.shared.lock();
            *state.asked.entry(path.clone()).or_default() += 1;
            if state.silent { Some(Reply::silence()) } else { state.next_scripted(&path) }
        };
        match reply {
            Some(Reply(parts)) => parts.into_iter().try_for_each(|part| self.part(part)),
            None => self.behave(&path, &query),
        }
    }

    /// Path and query, once the head is there. The client sends no body.
    fn request(&mut self) -> std::io::Result<Option<(String, String)>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 1024];
            match self.client.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(count) => head.extend_from_slice(&bytes[..count]),
                Err(error) if is_time_out(&error) => self.still_wanted()?,
                Err(error) => return Err(error),
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next());
        Ok(target.map(|target| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            (path.to_owned(), query.to_owned())
        }))
    }

    fn still_wanted(&self) -> std::io::Result<()> {
        let state = self.shared.lock();
        let over = state.ended || state.breaks > self.began_at;
        if over { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn part(&mut self, part: Part) -> std::io::Result<()> {
        match part {
            Part::Bytes(bytes) => self.write(&bytes),
            Part::Endless(bytes) => loop {
                self.write(&bytes)?;
            },
            Part::Trickle(bytes, pause) => bytes.iter().try_for_each(|byte| {
                self.write(&[*byte])?;
                self.pause(pause)
            }),
            Part::Pause(pause) => self.pause(pause),
            Part::Hold => loop {
                self.wait(LOOK)?;
            },
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match self.client.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_time_out(&error) => self.still_wanted()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// So long; an error as soon as the client left or the fake ended.
    fn pause(&mut self, pause: Duration) -> std::io::Result<()> {
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.wait(left.min(LOOK))?;
        }
        Ok(())
    }

    /// Until this time is over or something changed; an error if the client left or the fake ended.
    fn wait(&mut self, pause: Duration) -> std::io::Result<()> {
        drop(self.shared.changed.wait_timeout(self.shared.lock(), pause));
        self.still_wanted()?;
        self.client.set_nonblocking(true)?;
        // A client that asked says nothing more: 0 is its end, everything else is "not yet".
        let left = matches!(self.client.read(&mut [0; 1]), Ok(0));
        self.client.set_nonblocking(false)?;
        if left { Err(ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    // ---- a well-behaved Engine

    fn behave(&mut self, path: &str, query: &str) -> std::io::Result<()> {
        let container = path.strip_prefix("/containers/").and_then(|rest| rest.split_once('/'));
        match (path, container) {
            ("/_ping", _) => self.reply(Reply::status(200, "OK")),
            ("/events", _) => self.reply(Reply::raw(HEAD_CHUNKED).then(Part::Hold)),
            ("/containers/json", _) => {
                let state = self.shared.lock();
                let listed = state.containers.iter().filter(|(_, container)| container.listed);
                let rows =
                    listed.map(|(id, container)| json!({"Id": id, "State": container.state})).collect();
                drop(state);
                self.reply(Reply::json(&Value::Array(rows)))
            }
            (_, Some((id, what @ ("json" | "logs")))) => {
                let Some(found) = self.shared.lock().containers.get(id).cloned() else {
                    return self.reply(Reply::status(404, r#"{"message":"No such container"}"#));
                };
                if what == "json" {
                    return self.reply(Reply::json(&inspection(id, &found.name, found.tty)));
                }
                self.logs(id, query)
            }
            _ => self.reply(Reply::status(404, r#"{"message":"page not found"}"#)),
        }
    }

    fn reply(&mut self, Reply(parts): Reply) -> std::io::Result<()> {
        parts.into_iter().try_for_each(|part| self.part(part))
    }

    /// `tail` first, then `since`, then what is printed from now on, as the real Engine does it.
    fn logs(&mut self, id: &str, query: &str) -> std::io::Result<()> {
        let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let since = value("since").and_then(since_ns).unwrap_or(0);
        let tail = value("tail").and_then(|tail| tail.parse().ok()).unwrap_or(usize::MAX);
        self.write(HEAD_CHUNKED)?;
        let mut next = None;
        loop {
            let bytes = {
                let state = self.shared.lock();
                if state.silent {
                    drop(state);
                    self.wait(LOOK)?;
                    continue;
                }
                let log = state.containers.get(id).map(|container| &container.log[..]).unwrap_or_default();
                let from = next.unwrap_or(log.len().saturating_sub(tail));
                let damaged = state.containers.get(id).map_or(0, |container| container.damaged);
                let mut bytes = Vec::new();
                if next.is_none() && from < damaged {
                    drop(state);
                    push_chunk(&mut bytes, &frame(3, b"error finding file position to start log tailing"));
                    return self.write(&[&bytes[..], LAST_CHUNK].concat());
                }
                next = Some(log.len());
                log[from..]
                    .iter()
                    .filter(|line| line.at_ns >= since)
                    .for_each(|line| push_chunk(&mut bytes, &line.bytes));
                bytes
            };
            self.write(&bytes)?;
            if value("follow") != Some("1") {
                return self.write(LAST_CHUNK);
            }
            self.wait(LOOK)?;
        }
    }
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// `seconds.nanoseconds`.
fn since_ns(text: &str) -> Option<u128> {
    let (seconds, nanos) = text.split_once('.')?;
    Some(seconds.parse::<u128>().ok()? * 1_000_000_000 + nanos.parse::<u128>().ok()?)
}
