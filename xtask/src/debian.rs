//! Debian packages of any suite, unpacked in a folder: nothing is installed, the machine's own apt state is not touched.
//!
//! ```text
//! the machine's own source of its own suite     its mirror, its key: what the machine trusts and can reach
//!   └ copied with another `Suites:`             DIR/<suite>.sources (or .list, the older format)
//!      └ apt-get update                         DIR/lists: beside the machine's, never in their place
//!         └ apt-get download                    DIR/debs
//!            └ dpkg -x                          wherever the caller wants it
//! ```
//! Dependencies are not followed: a caller names every package it unpacks, as most of what Debian would bring
//! (init scripts, users, services) is the opposite of what a private copy is for.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// One suite of the machine's Debian mirror: `bookworm`, `sid`, `bookworm-backports`.
pub struct Suite {
    name: String,
    dir: PathBuf,
    source: PathBuf,
}

impl Suite {
    /// Opens the suite with its own state in `dir`; fetches the mirror's index unless an earlier call did.
    pub fn open(name: &str, dir: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(folder))
                .with_context(|| format!("making {}/{folder}", dir.display()))?;
        }
        // An empty one: with the machine's, apt would choose the installed version, which the suite may not have.
        fs::write(dir.join("status"), "").context("writing an empty dpkg status")?;
        let (ending, text) = source_for(name, &read_sources()?, &codename()?)?;
        let source = dir.join(format!("{name}.{ending}"));
        fs::write(&source, text).with_context(|| format!("writing {}", source.display()))?;
        let suite = Self { name: name.to_owned(), dir: dir.to_path_buf(), source };
        if !dir.join("updated").exists() {
            suite.update()?;
        }
        Ok(suite)
    }

    /// Downloads a package unless it is here already, and unpacks it into `into`; returns its version.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<String> {
        let deb = match self.download(package) {
            Ok(deb) => deb,
            // A moving suite drops a version as soon as it has the next: an index of last week names files of last week.
            Err(_) => {
                self.update()?;
                self.download(package)?
            }
        };
        run(Command::new("dpkg").arg("-x").arg(&deb.path).arg(into))?;
        Ok(deb.version)
    }

    /// The names of the suite's packages that begin with this.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = run(self.with_own_state(Command::new("apt-cache")).args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn update(&self) -> Result<()> {
        println!("  reading the index of Debian {}", self.name);
        run(self.apt().arg("update").arg("--quiet=2"))?;
        fs::write(self.dir.join("updated"), "").context("noting the update")
    }

    fn download(&self, package: &str) -> Result<Deb> {
        let uris = run(self.apt().args(["download", "--print-uris", package]))?;
        let deb = Deb::parse(&uris, &self.dir.join("debs")).with_context(|| {
            format!("finding package {package} in Debian {}: apt-get answered {uris:?}", self.name)
        })?;
        let here = fs::metadata(&deb.path).is_ok_and(|meta| meta.len() == deb.bytes);
        let mib = deb.bytes as f64 / f64::from(1 << 20);
        let how = if here { "here already" } else { "downloading" };
        println!("  {package} {} of {}, {mib:.1} MiB, {how}", deb.version, self.name);
        if !here {
            run(self.apt().args(["download", package]).current_dir(self.dir.join("debs")))?;
            ensure!(deb.path.exists(), "apt-get downloaded {package} but not as {}", deb.path.display());
        }
        Ok(deb)
    }

    fn apt(&self) -> Command {
        self.with_own_state(Command::new("apt-get"))
    }

    fn with_own_state(&self, mut command: Command) -> Command {
        let dir = self.dir.display();
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            format!("Dir::Etc::sourcelist={}", self.source.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            // The machine's pins only concern the machine.
            "Dir::Etc::preferences=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State={dir}"),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            // User _apt may not be able to write here.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Half of the index is descriptions for graphical shops.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// One line of `apt-get download --print-uris`: `'http://…' name_version_arch.deb 1234 SHA256:…`.
struct Deb {
    path: PathBuf,
    version: String,
    bytes: u64,
}

impl Deb {
    fn parse(uris: &str, dir: &Path) -> Option<Self> {
        let mut words = uris.lines().find(|line| line.starts_with('\''))?.split(' ').skip(1);
        let (file, bytes) = (words.next()?, words.next()?.parse().ok()?);
        let version = file.split('_').nth(1)?.replace("%3a", ":");
        Some(Self { path: dir.join(file), version, bytes })
    }
}

/// Runs a command to its end; returns its standard output, or an error with its messages.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(OsStr::to_string_lossy)
            .filter(|word| word != "-o" && !word.contains('='))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let shown = shown();
    let output = command.output().with_context(|| format!("starting: {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The machine's own suite, as /etc/os-release has it.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = line.context("/etc/os-release names no VERSION_CODENAME: is this Debian?")?;
    Ok(name.trim_matches('"').to_owned())
}

/// Every source file of the machine: (is it deb822?, text).
fn read_sources() -> Result<Vec<(bool, String)>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    let mut texts = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let deb822 = file.extension().is_some_and(|ending| ending == "sources");
        texts
            .push((deb822, fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?));
    }
    Ok(texts)
}

/// The machine's source of its own suite, rewritten for another: (the file's ending, which tells apt its format, text).
///
/// Its own suite's name, whole, is what tells Debian's archive from a vendor's repository, and from the security archive,
/// which has other suites and sometimes another host.
fn source_for(suite: &str, sources: &[(bool, String)], codename: &str) -> Result<(&'static str, String)> {
    for (deb822, text) in sources {
        let found = if *deb822 { stanza_for(suite, text, codename) } else { line_for(suite, text, codename) };
        if let Some(found) = found {
            return Ok((if *deb822 { "sources" } else { "list" }, found));
        }
    }
    bail!(
        "no source of suite {codename} in /etc/apt/sources.list or /etc/apt/sources.list.d; \
         add the one that Debian's installer writes, as its mirror is needed"
    );
}

fn stanza_for(suite: &str, text: &str, codename: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanza = lines.split(|line| line.trim().is_empty()).find(|stanza| {
        let has = |key: &str, word: &str| {
            let values = stanza.iter().filter_map(|line| line.split_once(':'));
            values
                .filter(|(k, _)| k.eq_ignore_ascii_case(key))
                .any(|(_, v)| v.split_whitespace().any(|w| w == word))
        };
        has("Types", "deb") && has("Suites", codename) && has("Components", "main") && !has("Enabled", "no")
    })?;
    let rewritten =
        stanza.iter().map(|line| match line.split_once(':').map(|(key, _)| key.to_ascii_lowercase()) {
            Some(key) if key == "types" => "Types: deb\n".to_owned(),
            Some(key) if key == "suites" => format!("Suites: {suite}\n"),
            Some(key) if key == "components" => "Components: main\n".to_owned(),
            _ => format!("{line}\n"),
        });
    Some(rewritten.collect())
}

fn line_for(suite: &str, text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').map(|(options, rest)| (format!("[{options}] "), rest))?,
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, own, mut components) = (words.next()?, words.next()?, words);
        let ours = own == codename && components.any(|word| word == "main");
        ours.then(|| format!("deb {options}{uri} {suite} main\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(deb822: bool, source: &str, expected: Option<&str>) {
        let got = source_for("sid", &[(deb822, source.to_owned())], "bookworm");
        assert_eq!(got.ok().map(|(_, text)| text).as_deref(), expected);
    }

    #[test]
    fn the_stanza_of_the_own_suite_is_rewritten() {
        let vendor = "Types: deb\nURIs: https://deb.vendor.example\nSuites: nodistro\nComponents: main\n\n";
        let security =
            "Types: deb\nURIs: http://m/debian-security\nSuites: bookworm-security\nComponents: main\n\n";
        let own = "Types: deb deb-src\n# a comment\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\
                   Components: main contrib\nSigned-By: /k.gpg\n";
        let expected =
            "Types: deb\nURIs: http://m/debian\nSuites: sid\nComponents: main\nSigned-By: /k.gpg\n";
        check(true, &format!("{vendor}{security}{own}"), Some(expected));
        check(true, &format!("{vendor}{security}"), None);
    }

    #[test]
    fn the_line_of_the_own_suite_is_rewritten() {
        check(
            false,
            "# x\ndeb http://m/debian bookworm main contrib\n",
            Some("deb http://m/debian sid main\n"),
        );
        let options = "deb [signed-by=/k.gpg arch=amd64] http://m/debian bookworm main";
        check(false, options, Some("deb [signed-by=/k.gpg arch=amd64] http://m/debian sid main\n"));
        check(false, "deb-src http://m/debian bookworm main\ndeb http://m/x bookworm-updates main", None);
    }

    #[test]
    fn a_line_of_print_uris_is_read() {
        let line = "'http://m/a.deb' busybox-static_1%3a1.35.0-4_amd64.deb 928188 SHA256:00\n";
        let deb = Deb::parse(line, Path::new("/d")).unwrap();
        assert_eq!((deb.version.as_str(), deb.bytes), ("1:1.35.0-4", 928_188));
        assert_eq!(deb.path, Path::new("/d/busybox-static_1%3a1.35.0-4_amd64.deb"));
        assert!(Deb::parse("W: something\n", Path::new("/d")).is_none());
    }
}
