//! The programs that building and testing need: checked, and installed if missing.
//!
//! Little is needed: a linker for cargo, and a cgroup hierarchy for containers. Docker is not: tests bring their own
//! Engines ([`crate::engines`]), and unpack them with the tools of every Debian.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::debian::run;
use crate::paths;

/// A Debian package, and how to tell that its contents are installed, however they came.
struct Needed {
    package: &'static str,
    what_for: &'static str,
    is_here: fn() -> bool,
}

/// What building needs.
const LINKER: [Needed; 2] = [
    Needed { package: "gcc", what_for: "`cc`, by which rustc links", is_here: || on_path("cc") },
    Needed {
        package: "libc6-dev",
        what_for: "the C library's startup files, for linking",
        is_here: || Path::new("/usr/include/stdlib.h").exists(),
    },
];

/// What the usual tests need.
const NEEDED: [Needed; 7] = [
    Needed {
        package: "cgroupfs-mount",
        what_for: "a cgroup hierarchy, for containers; this machine has none mounted",
        is_here: || cgroups_are_mounted() || on_path("cgroupfs-mount"),
    },
    Needed {
        package: "e2fsprogs",
        what_for: "`mkfs.ext4`, for a disk that tests freeze",
        is_here: || on_path("mkfs.ext4"),
    },
    Needed {
        package: "prometheus",
        what_for: "`promtool` and a real Prometheus, which judge alert rules, dashboard and scrapes",
        is_here: || on_path("promtool") && on_path("prometheus"),
    },
    Needed {
        package: "logrotate",
        what_for: "what rotates log files on most hosts, for tests to rotate with",
        is_here: || on_path("logrotate"),
    },
    Needed {
        package: "faketime",
        what_for: "days that pass at once: logrotate's `dateext` rotates once a day",
        is_here: || on_path("faketime"),
    },
    Needed { package: "curl", what_for: "the commands of the runbooks", is_here: || on_path("curl") },
    Needed {
        package: "python3-venv",
        what_for: "a Python that decodes what is sent to Loki, without any code of ours",
        is_here: || {
            Command::new("python3")
                .args(["-c", "import ensurepip, venv"])
                .output()
                .is_ok_and(|o| o.status.success())
        },
    },
];

/// What `cargo xtask count` needs.
const CALLGRIND: Needed = Needed {
    package: "valgrind",
    what_for: "callgrind, which counts instructions",
    is_here: || on_path("valgrind"),
};

/// What `cargo xtask vm` needs.
const EMULATOR: Needed = Needed {
    package: "qemu-system-x86",
    what_for: "a machine for other kernels",
    is_here: || on_path("qemu-system-x86_64"),
};

/// What only the part `walks` needs.
const ROTATORS: [Needed; 2] = [
    Needed {
        package: "runit",
        what_for: "`svlogd`, which writes and rotates logs",
        is_here: || on_path("svlogd"),
    },
    Needed {
        package: "daemontools",
        what_for: "`multilog`, which does too",
        is_here: || on_path("multilog"),
    },
];

/// What only `cargo xtask screens` needs.
const BROWSER: [Needed; 5] = [
    Needed {
        package: "chromium",
        what_for: "the status page as people see it",
        is_here: || on_path("chromium"),
    },
    Needed {
        package: "fonts-dejavu-core",
        what_for: "a font for it",
        is_here: || Path::new("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").exists(),
    },
    Needed { package: "pngquant", what_for: "small pictures", is_here: || on_path("pngquant") },
    Needed { package: "tmux", what_for: "a terminal for `capturer top`", is_here: || on_path("tmux") },
    Needed {
        package: "iproute2",
        what_for: "`ip`, which brings the pictures' own network up",
        is_here: || on_path("ip"),
    },
];

/// What only `cargo xtask fuzz` needs.
const CPP: [Needed; 1] =
    [Needed { package: "g++", what_for: "`c++`, which builds libFuzzer", is_here: || on_path("c++") }];
/// What `tests/loki/decode.py` imports: Google's protobuf with its compiler, and a snappy of its own.
const PYTHON_PACKAGES: [&str; 3] = ["protobuf==7.36.2", "grpcio-tools==1.85.1", "cramjam==2.14.0"];

/// Installs what building needs and is missing. Uses no network if nothing is.
pub fn install_linker() -> Result<()> {
    bring(&LINKER)?;
    for component in ["fmt", "clippy"] {
        run(cargo().args([component, "--version"])).with_context(|| {
            format!("the toolchain has no {component}: rustup component add rustfmt clippy brings it")
        })?;
    }
    Ok(())
}

/// Installs what the usual tests need and is missing. Uses no network if nothing is.
pub fn install() -> Result<()> {
    bring(&NEEDED)?;
    // Without root the parts that use them say so themselves.
    if is_root() {
        bring(&[CALLGRIND, EMULATOR])?;
    }
    make_python()?;
    if !cgroups_are_mounted() {
        if !is_root() {
            bail!("no cgroup hierarchy is mounted, which containers need: as root, run cgroupfs-mount");
        }
        run(&mut Command::new("cgroupfs-mount")).context("mounting the cgroup hierarchies")?;
        println!("mounted the cgroup hierarchies");
    }
    Ok(())
}

/// Installs callgrind, if it is missing.
pub fn install_callgrind() -> Result<()> {
    bring(&[CALLGRIND])
}

/// Installs the emulator, if it is missing.
pub fn install_emulator() -> Result<()> {
    bring(&[EMULATOR])
}

/// Installs programs that rotate logs, if they are missing.
pub fn install_rotators() -> Result<()> {
    bring(&ROTATORS)
}

/// Installs a browser and what else pictures are taken with, if it is missing.
pub fn install_browser() -> Result<()> {
    bring(&BROWSER)
}

/// Installs a C++ compiler, if it is missing.
pub fn install_cpp() -> Result<()> {
    bring(&CPP)
}

/// Why there is no emulator and none can be installed; `None` = there is one.
pub fn no_emulator() -> Option<String> {
    let cant = !is_root() && !(EMULATOR.is_here)();
    cant.then(|| format!("no {0}: as root, run apt-get install {0}", EMULATOR.package))
}

fn bring(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&Needed> = needed.iter().filter(|needed| !(needed.is_here)()).collect();
    if missing.is_empty() {
        println!("nothing to install");
        return Ok(());
    }
    install_packages(&missing)
}

/// A virtual environment in target/, so that the machine keeps nothing of it.
fn make_python() -> Result<()> {
    let python = paths::python();
    let works = Command::new(&python).args(["-c", "import google.protobuf, grpc_tools, cramjam"]).output();
    if works.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("making a Python with {}", PYTHON_PACKAGES.join(", "));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(paths::target().join("python")))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))
        .context("installing Python packages")?;
    Ok(())
}

/// Whether this process may mount, and start dockerd.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The running cargo, so that `cargo +toolchain xtask` stays with its toolchain; but without the variables that it has
/// set for us.
///
/// Build scripts name some of those variables as dependencies (ring's all of `CARGO_PKG_…`), so with them cargo rebuilt
/// rustls and everything above it whenever a build from here followed one from a shell.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os().filter(|(key, _)| is_set_by_cargo(&key.to_string_lossy())) {
        command.env_remove(key);
    }
    command
}

/// The variables that cargo sets for a program that it runs:
/// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>.
fn is_set_by_cargo(key: &str) -> bool {
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    of_package.iter().any(|start| key.starts_with(start))
        || ["CARGO", "CARGO_PRIMARY_PACKAGE", "RUST_RECURSION_COUNT"].contains(&key)
}

fn install_packages(missing: &[&Needed]) -> Result<()> {
    for needed in missing {
        println!("missing: {} ({})", needed.package, needed.what_for);
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    if !is_root() {
        bail!(
            "not root, so not installed; as root, run: apt-get update && apt-get {} {}",
            install.join(" "),
            packages.join(" ")
        );
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    };
    // Debian images have no package lists, and old lists name files that are gone. Either way the first attempt shows
    // it.
    if run(apt().args(install).args(&packages)).is_err() {
        println!("reading the package lists");
        run(apt().args(["update", "--quiet"])).context("reading Debian's package lists")?;
        run(apt().args(install).args(&packages)).context("installing what is missing")?;
    }
    println!("installed {}", packages.join(", "));
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn cgroups_are_mounted() -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(2)).any(|kind| kind == "cgroup" || kind == "cgroup2")
}
