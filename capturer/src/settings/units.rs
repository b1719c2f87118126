//! Values with units, and closed sets, as the config has them. Each parser says what it expects, so that every message
//! is made in one place ([`super::reader`]).

use std::net::SocketAddr;
use std::path::{Component, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::path_pattern::{self, PathPattern};
use crate::limits::SOCKET_PATH_BYTES_MAX;
use crate::text::encoding::Encoding;

/// A value that is not as expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// `expected …, found "x"`.
    pub expected: String,
    /// How to fix it. May show parts of the value, so it is omitted where the value may be secret.
    pub hint: String,
    /// The value is a secret and is not shown.
    pub is_secret: bool,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<String>) -> Mismatch {
        Mismatch { expected: expected.into(), hint: String::new(), is_secret: false }
    }

    pub(super) fn secret(mut self) -> Mismatch {
        self.is_secret = true;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Mismatch {
        self.hint = hint.into();
        self
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `30s`, `1h30m`, `100ms`, `0`.
pub(super) fn duration(text: &str) -> Result<Duration, Mismatch> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let expected = || Mismatch::new("a duration with its unit, such as 100ms, 30s, 5m or 1h30m");
    if is_number(text) {
        return Err(expected().hint(format!("write {text}s if seconds are meant")));
    }
    humantime::parse_duration(text).map_err(|_| expected())
}

/// `64KiB`, `100MiB`, `1.5GB`, `64k` (1000 each), `0`.
pub(super) fn size(text: &str) -> Result<u64, Mismatch> {
    if text == "0" {
        return Ok(0);
    }
    let expected = || Mismatch::new("a size with its unit, such as 64KiB, 100MiB or 1GB");
    if is_number(text) {
        return Err(expected().hint(format!("write {text}B if bytes are meant")));
    }
    ByteSize::from_str(text).map(|size| size.as_u64()).map_err(|_| expected())
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<usize, Mismatch> {
    let expected = || Mismatch::new("a whole number");
    if !is_number(text) {
        return Err(expected());
    }
    text.parse().map_err(|_| expected())
}

/// `true` or `false`. YAML 1.1's yes, no, on and off are refused.
pub(super) fn flag(text: &str) -> Result<bool, Mismatch> {
    let expected = || Mismatch::new("true or false");
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Err(expected().hint("write true")),
            "false" | "no" | "off" | "0" => Err(expected().hint("write false")),
            _ => Err(expected()),
        },
    }
}

/// Accepts any text.
pub(super) fn text(text: &str) -> Result<String, Mismatch> {
    Ok(text.to_owned())
}

/// A directory: any path that is not empty.
pub(super) fn directory(text: &str) -> Result<PathBuf, Mismatch> {
    if text.is_empty() || text.contains('\0') {
        Err(Mismatch::new("a path"))
    } else {
        Ok(PathBuf::from(text))
    }
}

/// Permission bits of a file, octal: `0640`. The agent itself must be able to read and write it.
pub(super) fn file_mode(text: &str) -> Result<u32, Mismatch> {
    let expected = || Mismatch::new("permission bits in octal, such as \"0640\"");
    let mode = u32::from_str_radix(text, 8).map_err(|_| expected())?;
    if mode > 0o777 || mode & 0o600 != 0o600 {
        return Err(expected().hint("its owner, the agent, must be able to read and write it: 06xx"));
    }
    Ok(mode)
}

/// `127.0.0.1:8001`, or empty for no server.
pub(crate) fn listen(text: &str) -> Result<Option<SocketAddr>, Mismatch> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let expected = Mismatch::new(
            "an IP address with a port, such as 127.0.0.1:8001 or [::1]:8001, or \"\" for no server",
        );
        let port = text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")).unwrap_or(text);
        if port.parse::<u16>().is_ok() {
            expected
                .hint(format!("write 127.0.0.1:{port} for this host only, 0.0.0.0:{port} for every network"))
        } else {
            expected
        }
    })
}

/// `unix:///var/run/docker.sock` or the path alone.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, Mismatch> {
    let expected =
        || Mismatch::new("the path of the Engine's Unix socket, such as unix:///var/run/docker.sock");
    let network = ["tcp://", "http://", "https://", "ssh://", "npipe://", "fd://"];
    if let Some(scheme) = network.iter().find(|scheme| text.starts_with(**scheme)) {
        let why =
            format!("{scheme} is not supported: the agent runs on the host whose containers it captures");
        return Err(expected().hint(why));
    }
    let path = text.strip_prefix("unix://").unwrap_or(text);
    fits_socket(path).map_err(|why| expected().hint(why))?;
    if !path.starts_with('/') {
        return Err(expected().hint("the path must be absolute"));
    }
    Ok(PathBuf::from(path))
}

/// Path of a socket that the agent makes; empty = none.
pub(super) fn own_socket(text: &str) -> Result<Option<PathBuf>, Mismatch> {
    fits_socket(text).map_err(|why| {
        Mismatch::new("the path of a Unix socket, such as /run/capturer/admin.sock").hint(why)
    })?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Refuses what bind(2) and connect(2) refuse.
fn fits_socket(path: &str) -> Result<(), String> {
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    if path.contains('\0') {
        return Err("no path has a NUL in it".to_owned());
    }
    Ok(())
}

/// A glob pattern.
pub(super) fn pattern(text: &str) -> Result<glob::Pattern, Mismatch> {
    glob::Pattern::new(text).map_err(|error| {
        Mismatch::new("a pattern with *, ? or [a-z]").hint(format!(
            "{} at character {}",
            error.msg,
            error.pos + 1
        ))
    })
}

/// A pattern over paths.
pub(super) fn path_pattern(text: &str) -> Result<PathPattern, Mismatch> {
    let expected = || Mismatch::new("an absolute path or pattern, such as /var/log/*.log");
    if !text.starts_with(['/', '^']) {
        return Err(match path_pattern::not_absolute(text) {
            Some(hint) => expected().hint(hint),
            None => expected(),
        });
    }
    PathPattern::new(text).map_err(|why| expected().hint(why))
}

/// A pattern for paths that are left out.
pub(super) fn exclude_pattern(text: &str) -> Result<PathPattern, Mismatch> {
    let expected = || Mismatch::new("an absolute path or pattern, such as /var/log/debug*");
    PathPattern::exclude(text).map_err(|why| expected().hint(why))
}

/// An absolute directory, as the kernel names it.
pub(super) fn root(text: &str) -> Result<PathBuf, Mismatch> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        return Ok(path.components().collect());
    }
    Err(Mismatch::new("an absolute directory without . or .., such as /var/log"))
}

/// An encoding of text; empty = the byte order mark decides.
pub(super) fn encoding(text: &str) -> Result<Option<Encoding>, Mismatch> {
    if text.is_empty() {
        return Ok(None);
    }
    let expected = "an encoding that is known here, such as utf-8, utf-16le, windows-1252, shift_jis or gbk";
    Encoding::named(text).map(Some).ok_or_else(|| Mismatch::new(expected))
}

/// A duration as a person would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// A size as a person would write it.
pub(super) fn show_size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        };
        check("0", Some(0));
        check("0s", Some(0));
        check("100ms", Some(100));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h30m", Some(5_400_000));
        check("1h 30m", Some(5_400_000));
        check("1d", Some(86_400_000));
        for bad in ["", "5", "-5s", "s", "1.s", "5 apples", "999999999999999999999s", "1h30", "∞"] {
            check(bad, None);
        }
        assert_eq!(duration("30").unwrap_err().hint, "write 30s if seconds are meant");
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text).ok(), bytes, "{text}");
        check("0", Some(0));
        check("1B", Some(1));
        check("64k", Some(64_000));
        check("64KiB", Some(65_536));
        check("100 MiB", Some(104_857_600));
        check("1.5GB", Some(1_500_000_000));
        for bad in ["", "5", "MiB", "-1MiB", "1XB", "1..5MB", "ten MB", "0x10B", "∞"] {
            check(bad, None);
        }
        assert_eq!(size("30").unwrap_err().hint, "write 30B if bytes are meant");
    }

    #[test]
    fn flags_and_counts() {
        assert_eq!(flag("true"), Ok(true));
        assert_eq!(flag("false"), Ok(false));
        assert_eq!(flag("no").unwrap_err().hint, "write false");
        assert_eq!(flag("YES").unwrap_err().hint, "write true");
        assert_eq!(count("0"), Ok(0));
        for bad in ["", "-1", "+1", "1.0", "1e3", "99999999999999999999999"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(listen(""), Ok(None));
        assert!(listen("127.0.0.1:8001").unwrap().is_some());
        assert!(listen("[::1]:0").unwrap().is_some());
        for (bad, hint) in
            [(":8001", true), ("8001", true), ("localhost:80", true), ("a.b:80", false), ("::1", false)]
        {
            assert_eq!(!listen(bad).unwrap_err().hint.is_empty(), hint, "{bad}");
        }
    }

    #[test]
    fn sockets() {
        for good in ["unix:///run/docker.sock", "/run/docker.sock"] {
            assert_eq!(socket_path(good), Ok(PathBuf::from("/run/docker.sock")));
        }
        assert!(socket_path("tcp://1.2.3.4:2375").unwrap_err().hint.starts_with("tcp:// is not supported"));
        let long = format!("/{}", "x".repeat(107));
        for bad in ["", "docker.sock", "unix://docker.sock", "unix:/run/docker.sock", "/a\0b", &long] {
            assert!(socket_path(bad).is_err(), "{bad}");
        }
        assert_eq!(own_socket(""), Ok(None));
        assert_eq!(own_socket("/run/a.sock"), Ok(Some(PathBuf::from("/run/a.sock"))));
        for bad in ["/a\0b", &long] {
            assert!(own_socket(bad).is_err(), "{bad}");
        }
    }

    /// A value copied from a message into the config must mean the same.
    #[test]
    fn shown_values_can_be_read_back() {
        for ms in [0, 100, 1000, 90_000, 5_400_000] {
            let value = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
        assert_eq!(show_size(1024 * 1024), "1.0MiB");
    }
}
