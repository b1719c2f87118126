//! `cargo xtask engines`: the Docker Engines that tests run privately, unpacked from Debian packages.
//!
//! ```text
//! target/engines/20.10/{usr,bin,…}   the packages, as `dpkg -x` lays them out
//!                     /libraries     libraries of those programs that the machine lacks, if any
//!                     /image.tar     the root of the test image: busybox and its links
//!                     /STAMP         written last; says by which recipe
//! target/engines/debian/<suite>      apt's state and the downloaded packages
//! target/engines/swept               what tests found of killed ones and took away (tests/src/sweep.rs)
//! ```
//! Starting one is the business of `tests/src/engine.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::debian::{Suite, run};
use crate::paths;

/// Raise this when the steps below change in another way than by package names.
const RECIPE: u32 = 2;

/// One Engine: its version, and the packages that make it up.
struct Engine {
    label: &'static str,
    packages: &'static [(&'static str, &'static [&'static str])],
}

const ENGINES: [Engine; 2] = [
    Engine {
        label: "20.10",
        packages: &[("bookworm", &["docker.io", "containerd", "runc", "busybox-static"])],
    },
    Engine {
        label: "28.5",
        // sid's runc needs a newer glibc than Debian 12 has; its other programs do not.
        packages: &[
            ("sid", &["docker.io", "docker-cli", "containerd"]),
            ("bookworm", &["runc", "busybox-static"]),
        ],
    },
];

/// Programs whose libraries must be found.
const PROGRAMS: [&str; 5] = [
    "usr/sbin/dockerd",
    "usr/bin/docker",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/sbin/runc",
];

/// Where to get a library that a bare machine may lack. From bookworm: these run with every newer glibc as well.
const LIBRARIES: [(&str, &str); 11] = [
    ("libsystemd.so.0", "libsystemd0"),
    ("libdevmapper.so.1.02.1", "libdevmapper1.02.1"),
    ("libseccomp.so.2", "libseccomp2"),
    ("libcap.so.2", "libcap2"),
    ("libgcrypt.so.20", "libgcrypt20"),
    ("libgpg-error.so.0", "libgpg-error0"),
    ("libselinux.so.1", "libselinux1"),
    ("libpcre2-8.so.0", "libpcre2-8-0"),
    ("libudev.so.1", "libudev1"),
    ("liblz4.so.1", "liblz4-1"),
    ("libzstd.so.1", "libzstd1"),
];
const LIBRARY_SUITE: &str = "bookworm";
/// The folder of those libraries; `tests/src/engine.rs` names it in LD_LIBRARY_PATH.
const LIBRARIES_DIR: &str = "libraries";

/// Unpacks every Engine that is missing.
pub fn unpack_all() -> Result<()> {
    let dir = paths::engines();
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    // Two test runs in one tree would unpack over each other.
    let lock = File::create(dir.join("lock")).context("making the lock file")?;
    flock(&lock, FlockOperation::LockExclusive).context("locking target/engines")?;
    let mut suites = Suites { dir: dir.join("debian"), open: BTreeMap::new() };
    for engine in &ENGINES {
        let home = dir.join(engine.label);
        if fs::read_to_string(home.join("STAMP")).is_ok_and(|stamp| stamp == engine.stamp()) {
            println!("Docker Engine {}: {} (unpacked before)", engine.label, home.display());
            continue;
        }
        println!("Docker Engine {}:", engine.label);
        engine
            .unpack(&home, &mut suites)
            .with_context(|| format!("unpacking Docker Engine {} into {}", engine.label, home.display()))?;
        println!("  unpacked in {}", home.display());
    }
    Ok(())
}

impl Engine {
    fn stamp(&self) -> String {
        format!("recipe {RECIPE}\n{:?}\n", self.packages)
    }

    fn unpack(&self, home: &Path, suites: &mut Suites) -> Result<()> {
        // Unpacked elsewhere and then moved into place, so that an existing folder is complete.
        let draft = home.with_file_name(format!("{}.draft", self.label));
        for old in [&draft, home] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        fs::create_dir_all(&draft).with_context(|| format!("making {}", draft.display()))?;
        for (suite, packages) in self.packages {
            for package in *packages {
                suites.get(suite)?.unpack(package, &draft)?;
            }
        }
        add_missing_libraries(&draft, suites)?;
        let dockerd = draft.join("usr/sbin/dockerd");
        let version =
            run(Command::new(&dockerd).arg("--version").env("LD_LIBRARY_PATH", draft.join(LIBRARIES_DIR)))?;
        if !version.contains(&format!(" {}.", self.label)) {
            bail!(
                "the suite now carries {:?} in place of {}: tests of that version would prove nothing; \
                 choose another suite in xtask/src/engines.rs, or name the version anew there and in tests/src/engine.rs",
                version.trim(),
                self.label
            );
        }
        make_image(&draft)?;
        fs::write(draft.join("STAMP"), self.stamp()).context("writing STAMP")?;
        fs::rename(&draft, home).with_context(|| format!("renaming {}", draft.display()))
    }
}

/// The suites in use, each opened once.
struct Suites {
    dir: PathBuf,
    open: BTreeMap<String, Suite>,
}

impl Suites {
    fn get(&mut self, name: &str) -> Result<&Suite> {
        if !self.open.contains_key(name) {
            let suite = Suite::open(name, &self.dir.join(name))?;
            self.open.insert(name.to_owned(), suite);
        }
        Ok(&self.open[name])
    }
}

/// Libraries may need libraries, so this is repeated after each round.
fn add_missing_libraries(home: &Path, suites: &mut Suites) -> Result<()> {
    let lib = home.join(LIBRARIES_DIR);
    fs::create_dir_all(&lib).with_context(|| format!("making {}", lib.display()))?;
    let mut fetched = Vec::new();
    loop {
        let missing = missing_libraries(home, &lib)?;
        let Some(library) = missing.first() else { return Ok(()) };
        let package = LIBRARIES.iter().find(|(name, _)| name == library).map(|(_, package)| *package);
        let package = package.with_context(|| {
            format!(
                "the machine lacks {library}, and xtask/src/engines.rs names no package for it in LIBRARIES"
            )
        })?;
        ensure!(!fetched.contains(&package), "package {package} brought no usable {library}");
        let unpacked = home.join("libraries.draft");
        suites.get(LIBRARY_SUITE)?.unpack(package, &unpacked)?;
        fetched.push(package);
        copy_libraries(&unpacked, &lib)?;
        fs::remove_dir_all(&unpacked).context("removing the unpacked libraries")?;
    }
}

fn missing_libraries(home: &Path, lib: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        let listed = run(Command::new("ldd").arg(home.join(program)).env("LD_LIBRARY_PATH", lib))?;
        missing.extend(
            listed.lines().filter_map(|line| Some(line.strip_suffix("=> not found")?.trim().to_owned())),
        );
    }
    Ok(missing)
}

/// Every `lib*.so*` of a package, whatever folder it is in. Links become files: programs ask for their names, and the
/// targets come along under those.
fn copy_libraries(from: &Path, lib: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            copy_libraries(&path, lib)?;
        } else if name.starts_with("lib") && name.contains(".so") && path.exists() {
            fs::copy(&path, lib.join(&name)).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// The root folder of the test image, as `docker import` takes it: busybox under the name of each of its commands.
fn make_image(home: &Path) -> Result<()> {
    let root = home.join("image");
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(dir)).context("making the image's folders")?;
    }
    let busybox =
        ["bin/busybox", "usr/bin/busybox"].map(|path| home.join(path)).into_iter().find(|path| path.exists());
    let busybox = busybox.context("package busybox-static has no bin/busybox")?;
    fs::copy(&busybox, root.join("bin/busybox")).context("copying busybox")?;
    for command in run(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(command)).with_context(|| format!("linking {command}"))?;
    }
    let tar = home.join("image.tar");
    let fixed = ["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "--sort=name"];
    run(Command::new("tar")
        .args(fixed)
        .arg("--create")
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .arg(&root)
        .arg("."))?;
    fs::remove_dir_all(&root).context("removing the image's folder")
}
