//! `capturer check`: whether the files of keys and certificates that the config names can be read; with `--online` also
//! whether its directories, Engine and Loki can be used. Nothing is changed: a file without a name is made in each
//! directory, the Engine gets a ping, and Loki an empty request.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use crate::commands::ask;
use crate::commands::cli::Exit;
use crate::commands::running::{self, Port, Process};
use crate::commands::tried_dir::{self, Unfit};
use crate::ledger::claims::Claims;
use crate::limits::SOCKET_PATH_BYTES_MAX;
use crate::model::docker::{self, EngineFault};
use crate::settings::Settings;
use crate::shell::checkpoint::store::unwritable;
use crate::shell::privilege;
use crate::sink::loki::by_hand::ByHand;
use crate::sink::loki::client::Client;
use crate::telemetry::docker_words;
use crate::text::terminal::shown;

/// Longest wait for the Engine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries everything and prints a line for each. Returns the exit code.
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
        // Texts may come from outside: their control characters must not reach the terminal.
        let _: io::Result<()> = writeln!(out, "  {word:<6} {what:<10} {}", shown(&text));
    };
    tell("positions", positions(&settings.data_dir));
    if let Some(address) = settings.admin.listen {
        tell("admin", listen(address, &settings.data_dir));
    }
    if let Some(socket) = &settings.admin.socket {
        tell("admin", unusable_socket(socket).map(|()| format!("{} can be made", socket.display())));
    }
    if settings.container_monitor.enabled {
        tell("containers", engine(&settings.container_monitor.socket_path));
    }
    if let Some(sink) = &settings.sinks.local_file {
        tell("local_file", directory(&sink.directory, "sinks.local_file.directory"));
    }
    if let Some(sink) = &settings.sinks.loki {
        tell(
            "loki",
            ByHand::new(sink).map_err(|error| error.to_string()).and_then(|mut by_hand| by_hand.probe()),
        );
    }
    if all_well { Exit::Ok } else { Exit::Unavailable }
}

/// A sentence for each certificate, key or token that the config names and that can't be used on this machine.
/// (`${file:…}` was read with the config.)
pub fn unusable_files(settings: &Settings) -> Vec<String> {
    let admin = settings.admin.tls.as_ref().map(crate::telemetry::admin::server::check_tls);
    let loki = settings.sinks.loki.as_ref().map(|sink| {
        let client = Client::new(sink, Claims::default()).map(drop);
        client.map_err(|error| anyhow::Error::new(error).context("sinks.loki"))
    });
    let errors = admin.into_iter().chain(loki).filter_map(Result::err);
    errors.map(|error| format!("{error:#}")).collect()
}

/// Whether the admin server's socket could be made there. Nothing is made; an agent may already listen on it.
///
/// # Errors
/// Says why it could not.
pub fn unusable_socket(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "{shown} is longer than {SOCKET_PATH_BYTES_MAX} bytes, the most that Linux takes"
        ));
    }
    if !dir.is_dir() {
        return Err(format!("{}, where {shown} would be made, is not a directory", dir.display()));
    }
    if !privilege::is_writable(dir) {
        return Err(format!("{shown} can't be made by this user in {}", dir.display()));
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => Err(format!("{shown} exists and is not a socket")),
        _ => Ok(()),
    }
}

fn positions(data_dir: &Path) -> Result<String, String> {
    let told = directory(data_dir, "data_dir")?;
    match unwritable(data_dir) {
        Some(file) => Err(format!(
            "{} can't be written by this user; give {} and all in it to the agent's user (chown -R)",
            file.display(),
            data_dir.display()
        )),
        None => Ok(told),
    }
}

/// Whether the admin server could listen there. A running agent of this config does so already.
fn listen(address: SocketAddr, data_dir: &Path) -> Result<String, String> {
    match running::port(address, running::agent(data_dir)) {
        Port::Free => Ok(format!("{address} is free")),
        Port::Own => Ok(format!("the agent that runs with this data_dir listens on {address}")),
        Port::Taken(error, _) if error.kind() == io::ErrorKind::PermissionDenied => Err(format!(
            "{address}: {error}; choose a port over 1023 with admin.listen, or give the agent CAP_NET_BIND_SERVICE"
        )),
        Port::Taken(error, holder) => {
            let who =
                holder.map(|Process { id, name }| format!(", by {name} (process {id})")).unwrap_or_default();
            Err(format!(
                "{address}: {error}{who}; end what listens there, or choose another address with admin.listen (\"\" = none)"
            ))
        }
    }
}

/// Whether the directory can be written to, or made, by this user, who may not be the one that runs the agent.
fn directory(dir: &Path, key: &str) -> Result<String, String> {
    let shown = dir.display();
    if dir.exists() && !dir.is_dir() {
        return Err(format!("{shown} is not a directory; name another"));
    }
    let unfit = tried_dir::unfit(dir);
    if !privilege::is_writable(dir) && !unfit.as_ref().is_some_and(Unfit::is_of_the_place) {
        let what = if dir.exists() { "be written to" } else { "be made" };
        return Err(format!("{shown} can't {what} by this user; make it writable, or name another"));
    }
    if let Some(unfit) = unfit {
        let (why, cure) = unfit.told(key);
        return Err(format!("{shown}: {why}. {cure}"));
    }
    Ok(if dir.exists() {
        format!("{shown} can be written to")
    } else {
        format!("{shown} is not there yet; it can be created, and the start creates it")
    })
}

fn engine(socket: &Path) -> Result<String, String> {
    match ask::get_within(PATIENCE, socket, docker::PING) {
        Ok(_) => Ok(format!("{} answers", socket.display())),
        Err(error) => {
            let (socket, fault) = (socket.display().to_string(), EngineFault::of_system(error.kind()));
            Err(format!("{socket}: {error}; {}", docker_words::cure(fault, &socket)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{AdminTls, LocalFile, Loki, LokiAuth};

    #[test]
    fn each_part_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
        settings.container_monitor.socket_path = dir.path().join("none.sock");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        settings.admin.listen = Some(taken.local_addr().unwrap());
        let occupied = dir.path().join("file");
        std::fs::write(&occupied, "").unwrap();
        settings.sinks.local_file = Some(LocalFile { directory: occupied, ..LocalFile::default() });
        let mut out = Vec::new();
        assert_eq!(check(&settings, &mut out), Exit::Unavailable);
        let text = String::from_utf8(out).unwrap();
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
        assert_eq!(
            words,
            [["ok", "positions"], ["FAILED", "admin"], ["FAILED", "containers"], ["FAILED", "local_file"]],
            "{text}"
        );
        let who = format!("(process {}); end what listens there, or choose another", std::process::id());
        assert!(text.contains(&who), "{text}");
        drop(taken);
        let mut out = Vec::new();
        check(&settings, &mut out);
        assert!(String::from_utf8(out).unwrap().contains("ok     admin      127.0.0.1:"), "it is free now");
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["file"], "nothing is made");
    }

    /// A silent Engine and an unavailable one have different cures.
    #[test]
    fn a_silent_engine_is_not_one_that_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let away = engine(&path).unwrap_err();
        assert!(away.contains("no process listens") && !away.contains("restart"), "{away}");
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let silent = engine(&path).unwrap_err();
        assert!(
            silent.contains("no whole answer within 5 s; dockerd is there and does not answer"),
            "{silent}"
        );
    }

    /// `run` would end with an error for each of these.
    #[test]
    fn a_socket_and_positions_that_can_not_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        let _live = std::os::unix::net::UnixListener::bind(at("live")).unwrap();
        let long = "x".repeat(120);
        for (name, expected) in [
            ("new", ""),
            ("live", ""),
            ("file", "not a socket"),
            ("none/admin", "not a directory"),
            (&long, "longer than 107"),
        ] {
            let told = unusable_socket(&at(name)).err().unwrap_or_default();
            assert_eq!(told.is_empty(), expected.is_empty(), "{name}: {told}");
            assert!(told.contains(expected), "{name}: {told}");
        }
        assert!(positions(dir.path()).is_ok());
        let told = positions(Path::new("/proc/x")).unwrap_err();
        assert!(told.contains("/proc/x: no file can be made there") && told.contains("data_dir"), "{told}");
        std::fs::create_dir(at("checkpoint.json")).unwrap();
        let told = positions(dir.path()).unwrap_err();
        assert!(told.contains("checkpoint.json can't be written by this user; give"), "{told}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("cert"), "no PEM").unwrap();
        let mut settings = Settings::default();
        assert_eq!(unusable_files(&settings), Vec::<String>::new());
        settings.admin.tls = Some(AdminTls { cert_file: path("cert"), key_file: path("none") });
        let auth = LokiAuth::BearerFile(path("token"));
        settings.sinks.loki = Some(Loki { auth, ..Loki::default() });
        let told = unusable_files(&settings);
        assert!(told[0].contains("admin.tls_cert") && told[0].contains("/cert"), "{told:?}");
        assert!(told[1].contains("sinks.loki") && told[1].contains("/token"), "{told:?}");
        std::fs::write(path("token"), "secret").unwrap();
        assert_eq!(unusable_files(&settings).len(), 1);
    }
}
