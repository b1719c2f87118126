//! `capturer check --online`: whether what the config names is there and lets us in. It writes and removes a file in
//! each directory, asks the Engine for a ping, and pushes nothing but an empty request.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::settings::Settings;
use crate::settings::cli::Exit;
use crate::sink::loki::by_hand::ByHand;

/// How long the Engine may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries everything, a line each. The answer is how to exit.
pub fn check(settings: &Settings, out: &mut dyn Write) -> Exit {
    let mut all_well = true;
    let mut tell = |what: &str, result: Result<String, String>| {
        let (word, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => {
                all_well = false;
                ("FAILED", text)
            }
        };
        // Texts of others come along: no control character reaches the terminal.
        let _: io::Result<()> = writeln!(out, "  {word:<6} {what:<10} {}", text.escape_debug());
    };
    tell("positions", directory(&settings.data_dir));
    if settings.container_monitor.enabled {
        tell("containers", engine(&settings.container_monitor.socket_path));
    }
    if let Some(sink) = &settings.sinks.local_file {
        tell("local_file", directory(&sink.directory));
    }
    if let Some(sink) = &settings.sinks.loki {
        tell(
            "loki",
            ByHand::new(sink).map_err(|error| error.to_string()).and_then(|mut by_hand| by_hand.probe()),
        );
    }
    if all_well { Exit::Ok } else { Exit::Unavailable }
}

/// Makes it if need be, as `run` does, and writes to it.
fn directory(dir: &Path) -> Result<String, String> {
    let probe = dir.join(format!(".capturer-check-{}", std::process::id()));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?.write_all(b"check\n")?;
        fs::remove_file(&probe)
    };
    match write() {
        Ok(()) => Ok(format!("{} can be written to", dir.display())),
        Err(error) => {
            let _ = fs::remove_file(&probe);
            Err(format!(
                "{error} writing to {}; make it writable for this user or name another",
                dir.display()
            ))
        }
    }
}

fn engine(socket: &Path) -> Result<String, String> {
    let ping = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    match ping() {
        Ok(answer) if answer.ends_with(" 200") => Ok(format!("{} answers", socket.display())),
        Ok(answer) => Err(format!("{} answers {answer}, which is no Docker Engine", socket.display())),
        Err(error) => Err(format!(
            "{error} at {}; check that dockerd runs and that this user may use it",
            socket.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::LocalFile;

    #[test]
    fn each_part_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
        settings.container_monitor.socket_path = dir.path().join("none.sock");
        let occupied = dir.path().join("file");
        fs::write(&occupied, "").unwrap();
        settings.sinks.local_file = Some(LocalFile { directory: occupied, ..LocalFile::default() });
        let mut out = Vec::new();
        assert_eq!(check(&settings, &mut out), Exit::Unavailable);
        let text = String::from_utf8(out).unwrap();
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
        assert_eq!(
            words,
            [["ok", "positions"], ["FAILED", "containers"], ["FAILED", "local_file"]],
            "{text}"
        );
        assert!(fs::read_dir(&settings.data_dir).unwrap().next().is_none(), "nothing is left behind");
    }
}
