//! Other programs that carry logs, for `cargo xtask bench NAME --peer PROGRAM`: each is a small file in tests/bench/peers.
//!
//! ```text
//! # what it is, and what was chosen for it                 comments
//! program = rsyslogd                                       a name on PATH
//! arguments = -n -f @config@ -i @data@/rsyslogd.pid
//! version = -v                                             what makes it say its version
//! loads = file many idle live                              what it can do; `none` and why, in `cannot`
//! tried = yes                                              or no: written from its manual alone
//! ready = file @data@/rsyslogd.pid                         or `at once`
//! writes = lines                                           or `json KEY`: the message is a value of each line
//! --- files                                                the config for loads into files
//! …
//! --- loki                                                 and for those to Loki
//! …
//! ```
//! Words between @ are replaced: `home`, `data` (a folder of its own), `config`, `inputs` (a path or a pattern),
//! `sources` (the number of those files), `out` (a folder: the lines of a file go to one whose name contains that
//! file's name without `.log`), `loki`, `loki_host` and `loki_port`. A load over many files to Loki has the label
//! `path`.
//! A peer ends by SIGTERM. Nothing is installed and no service is started here.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::Running;
use crate::bench_ends::Loki;
use crate::paths;
use crate::wait::wait_until;

/// Loads that a peer can be compared in.
pub const LOADS: [&str; 7] = ["file", "many", "idle", "live", "growth", "live-loki", "loki"];
/// For a peer to be ready.
const DEADLINE: Duration = Duration::from_secs(120);

/// A parsed description.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The file's name without its ending.
    pub name: String,
    /// Nobody has run the peer with this description yet.
    pub untried: bool,
    program: String,
    arguments: Vec<String>,
    version: Vec<String>,
    loads: Vec<String>,
    cannot: String,
    ready: Option<String>,
    json_key: Option<String>,
    files: Option<String>,
    loki: Option<String>,
}

/// Where a peer runs, and what it reads.
pub struct Places<'a> {
    /// The folder of the run.
    pub home: &'a Path,
    /// A path or a pattern.
    pub inputs: &'a str,
    /// Files that match.
    pub sources: usize,
    /// `None` = lines go to files.
    pub loki: Option<&'a Loki>,
}

impl Places<'_> {
    fn values(&self) -> Vec<(&'static str, String)> {
        let home = self.home.display();
        let (url, host, port) = self.loki.map_or_else(Default::default, |loki| {
            let address = loki.address();
            (loki.url(), address.ip().to_string(), address.port().to_string())
        });
        vec![
            ("home", home.to_string()),
            ("data", format!("{home}/data")),
            ("config", format!("{home}/peer.conf")),
            ("inputs", self.inputs.to_owned()),
            ("sources", self.sources.to_string()),
            ("out", format!("{home}/out")),
            ("loki", url),
            ("loki_host", host),
            ("loki_port", port),
        ]
    }
}

/// The peers that the arguments name, which must be installed and able to run the load.
pub fn named(names: &[String], load: &str) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for name in names {
        let known = all()?;
        let list = known.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>().join(", ");
        let peer = known.iter().find(|peer| peer.name == *name);
        let peer = peer.with_context(|| format!("no peer {name:?}; those described are {list}"))?.clone();
        peer.ensure_can(load)?;
        let mut asked = Command::new(&peer.program);
        let answer = asked.args(&peer.version).stdin(Stdio::null()).output();
        let answer = answer.with_context(|| format!("{} is not on PATH", peer.program))?;
        let version = String::from_utf8_lossy(&answer.stdout).lines().next().unwrap_or_default().to_owned();
        let note = if peer.untried { " (this description was never tried)" } else { "" };
        eprintln!("{}: {version}{note}", peer.name);
        peers.push(peer);
    }
    Ok(peers)
}

/// Reads all descriptions.
pub fn all() -> Result<Vec<Peer>> {
    let folder = paths::workspace().join("tests/bench/peers");
    let mut peers = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        peers.push(Peer::parse(&name, &text).with_context(|| path.display().to_string())?);
    }
    peers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(peers)
}

impl Peer {
    fn parse(name: &str, text: &str) -> Result<Peer> {
        let mut peer = Peer { name: name.to_owned(), ..Peer::default() };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut section: Option<&mut String> = None;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("--- ") {
                let place = match title.trim() {
                    "files" => &mut peer.files,
                    "loki" => &mut peer.loki,
                    other => bail!("no section is called {other:?}"),
                };
                ensure!(place.is_none(), "two sections {title:?}");
                section = Some(place.insert(String::new()));
            } else if let Some(section) = &mut section {
                section.push_str(line);
                section.push('\n');
            } else if !line.trim().is_empty() && !line.starts_with('#') {
                let (key, value) = line.split_once('=').with_context(|| format!("no `=` in {line:?}"))?;
                let value = value.trim();
                match key.trim() {
                    "program" => peer.program = value.to_owned(),
                    "arguments" => peer.arguments = words(value),
                    "version" => peer.version = words(value),
                    "loads" if value == "none" => {}
                    "loads" => peer.loads = words(value),
                    "cannot" => peer.cannot = value.to_owned(),
                    "tried" => peer.untried = value != "yes",
                    "ready" => peer.ready = value.strip_prefix("file ").map(str::to_owned),
                    "writes" => peer.json_key = value.strip_prefix("json ").map(str::to_owned),
                    other => bail!("no key is called {other:?}"),
                }
            }
        }
        ensure!(!peer.program.is_empty(), "`program` is missing");
        ensure!(
            peer.loads.is_empty() != peer.cannot.is_empty(),
            "either `loads`, or `cannot` that says why there are none"
        );
        for load in &peer.loads {
            ensure!(LOADS.contains(&load.as_str()), "no load for peers is called {load:?}");
            let section = if load.ends_with("loki") { &peer.loki } else { &peer.files };
            ensure!(section.is_some(), "no section for the load {load}");
        }
        Ok(peer)
    }

    fn ensure_can(&self, load: &str) -> Result<()> {
        let name = &self.name;
        ensure!(!self.loads.is_empty(), "{name} can do none of the loads: {}", self.cannot);
        ensure!(
            self.loads.iter().any(|other| other == load),
            "{name} has no description for {load}, only for {}",
            self.loads.join(", ")
        );
        Ok(())
    }

    fn config(&self, places: &Places) -> Result<String> {
        let section = if places.loki.is_some() { &self.loki } else { &self.files };
        render(section.as_ref().context("no section for this load")?, &places.values())
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self, places: &Places) -> Result<Running> {
        for folder in ["data", "out"] {
            fs::create_dir_all(places.home.join(folder))?;
        }
        let values = places.values();
        fs::write(places.home.join("peer.conf"), self.config(places)?)?;
        let words: Result<Vec<String>> = self.arguments.iter().map(|word| render(word, &values)).collect();
        let mut command = Command::new(&self.program);
        command.args(words?).current_dir(places.home).stdin(Stdio::null());
        // Its messages help whoever writes its description.
        let said = File::create(places.home.join("peer.said"))?;
        command.stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().with_context(|| format!("starting {}", self.program))?;
        let mut running = Running(child);
        if let Some(ready) = &self.ready {
            let file = PathBuf::from(render(ready, &values)?);
            wait_until(&format!("{} to be ready", self.name), DEADLINE, || {
                file.exists() || running.0.try_wait().is_ok_and(|ended| ended.is_some())
            })?;
        }
        if let Some(status) = running.0.try_wait()? {
            let said = fs::read_to_string(places.home.join("peer.said")).unwrap_or_default();
            bail!("{} ended with {status}; it said:\n{said}", self.name);
        }
        Ok(running)
    }

    /// The message of a line that the peer wrote.
    pub fn message(&self, line: String) -> Result<String> {
        let Some(key) = &self.json_key else { return Ok(line) };
        let record: serde_json::Value = serde_json::from_str(&line)?;
        Ok(record[key].as_str().with_context(|| format!("no {key} in {line}"))?.to_owned())
    }
}

/// Replaces words between @ by values.
fn render(text: &str, values: &[(&'static str, String)]) -> Result<String> {
    let mut parts = text.split('@');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut is_word = true;
    for part in parts {
        let value = values.iter().find(|(word, _)| *word == part).filter(|_| is_word);
        let looks_like_one =
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        match value {
            Some((_, value)) => {
                out.push_str(value);
                is_word = false;
            }
            None if is_word && looks_like_one => bail!("nothing is called @{part}@"),
            None => {
                if is_word {
                    out.push('@');
                }
                out.push_str(part);
                is_word = true;
            }
        }
    }
    Ok(out)
}

/// Counts the lines in a folder's files as they grow.
#[derive(Debug, Default)]
pub struct LineCounter {
    files: std::collections::BTreeMap<PathBuf, u64>,
    lines: u64,
}

impl LineCounter {
    /// Lines so far.
    pub fn look(&mut self, folder: &Path) -> Result<u64> {
        // Before the first line the folder may not exist.
        let Ok(entries) = fs::read_dir(folder) else { return Ok(self.lines) };
        let mut buffer = vec![0; 256 * 1024];
        for entry in entries {
            let path = entry?.path();
            let read = self.files.entry(path.clone()).or_default();
            if fs::metadata(&path)?.len() <= *read {
                continue;
            }
            let mut file = File::open(&path)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(*read))?;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                *read += count as u64;
                self.lines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64;
            }
        }
        Ok(self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a typing error would only be found on the day of the measurement.
    #[test]
    fn every_description_parses_and_renders() {
        let peers = all().unwrap();
        assert!(peers.len() >= 4, "{peers:?}");
        let loki = Loki::start().unwrap();
        for peer in &peers {
            let places = |loki| Places { home: Path::new("/h"), inputs: "/h/in/*.log", sources: 5, loki };
            for (load, words) in
                [("live", vec!["/h/in/*.log", "/h/out"]), ("live-loki", vec!["/h/in/*.log", "path"])]
            {
                if peer.ensure_can(load).is_err() {
                    continue;
                }
                let to_loki = load.ends_with("loki").then_some(&loki);
                let config = peer.config(&places(to_loki)).unwrap();
                assert!(words.iter().all(|word| config.contains(word)), "{}: {config}", peer.name);
                let port = loki.address().port().to_string();
                assert!(to_loki.is_none() || config.contains(&port), "{}: {config}", peer.name);
            }
            for argument in &peer.arguments {
                render(argument, &places(None).values()).unwrap();
            }
        }
        let can =
            |name: &str, load| peers.iter().any(|peer| peer.name == name && peer.ensure_can(load).is_ok());
        assert!(can("rsyslogd", "file") && can("rsyslogd", "live") && !can("rsyslogd", "loki"));
        assert!(!can("vlagent", "live"));
    }

    #[test]
    fn slips_are_named() {
        let error = |text: &str| format!("{:#}", Peer::parse("p", text).unwrap_err());
        assert!(error("program = p\nloads = dance\n--- files\n").contains("\"dance\""));
        assert!(error("program = p\nload = live\n").contains("\"load\""));
        assert!(error("program = p\nloads = live\n--- loki\n").contains("no section"));
        assert!(error("program = p\n").contains("cannot"));
        assert!(error("loads = live\n--- files\n").contains("program"));
        assert!(render("a @nothing@ b", &[]).unwrap_err().to_string().contains("@nothing@"));
    }

    #[test]
    fn only_words_between_ats_are_replaced() {
        let values = [("out", "/o".to_owned())];
        let cases = [
            ("x", "x"),
            ("@out@/a", "/o/a"),
            ("@out@@out@", "/o/o"),
            ("me@Example.org @out@", "me@Example.org /o"),
            ("@@", "@@"),
            ("a@", "a@"),
        ];
        for (text, expected) in cases {
            assert_eq!(render(text, &values).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_once() {
        let home = tempfile::tempdir().unwrap();
        let mut counter = LineCounter::default();
        assert_eq!(counter.look(&home.path().join("not there")).unwrap(), 0);
        fs::write(home.path().join("a"), "1\n2\n").unwrap();
        assert_eq!(counter.look(home.path()).unwrap(), 2);
        fs::write(home.path().join("a"), "1\n2\n3\nun").unwrap();
        fs::write(home.path().join("b"), "1\n").unwrap();
        assert_eq!(counter.look(home.path()).unwrap(), 4);
        assert_eq!(counter.look(home.path()).unwrap(), 4);
    }
}
