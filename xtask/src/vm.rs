//! `cargo xtask vm 5.10 6.1 6.12`: tests inside other kernels, on an emulated machine.
//!
//! ```text
//! Debian's kernel package of a suite ─▶ vmlinuz ──────────────┐
//! tests/probe.rs, ring tests ─▶ static binaries ┐             ├▶ qemu, its serial line is our output
//! busybox, init script ─────────────────────────┴▶ initramfs ─┘
//! ```
//! Emulated, not virtualized: that works on every machine, also on one that is virtual itself. The whole of it runs in
//! memory and as root of its own; nothing of this machine is mounted into it.
//!
//! Not here: what is tested (tests/probe.rs, capturer/src/ring).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian::{Suite, run};
use crate::{paths, tools};

/// A kernel by the series tests ask for, and the suite of Debian that has it.
struct Kernel {
    series: &'static str,
    suite: &'static str,
}

const KERNELS: [Kernel; 4] = [
    Kernel { series: "5.10", suite: "bullseye" },
    Kernel { series: "6.1", suite: "bookworm" },
    Kernel { series: "6.12", suite: "bookworm-backports" },
    // The newest: not among those that must hold, as it changes every week.
    Kernel { series: "7.2", suite: "sid" },
];
/// What runs if none is named.
const USUAL: [&str; 3] = ["5.10", "6.1", "6.12"];

/// The tests that run inside: package, what cargo calls the binary, name in the machine, arguments.
const TESTS: [(&str, &[&str], &str, &str); 2] = [
    ("capturer-tests", &["--test", "probe"], "probe", "--test-threads=1 --nocapture"),
    ("capturer", &["--lib"], "ring", "--test-threads=1 ring::"),
];
/// Both must attach on each of the kernels above.
const TIERS: &str = "tracing,kprobe,tracepoint";

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// A kernel that hangs ends here. Booting takes some 10 s, the tests some 60 s, on an idle machine.
const DEADLINE: Duration = Duration::from_secs(600);
/// How the init script says its result on the serial line.
const RESULT: &str = "tests ended with ";

/// Runs the tests in each kernel; fails if one failed in one.
pub fn run_in(kernels: &[String]) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the machines are x86-64, and so must be the tests built here");
    let named: Vec<&str> =
        if kernels.is_empty() { USUAL.to_vec() } else { kernels.iter().map(String::as_str).collect() };
    let chosen: Result<Vec<&Kernel>> = named
        .into_iter()
        .map(|series| {
            let known = || KERNELS.map(|kernel| kernel.series).join(", ");
            let kernel = KERNELS.iter().find(|kernel| kernel.series == series);
            kernel.with_context(|| format!("no kernel {series:?} is known here, but {}", known()))
        })
        .collect();
    let chosen = chosen?;
    run(Command::new("qemu-system-x86_64").arg("--version"))
        .context("qemu is needed: as root, run apt-get install --no-install-recommends qemu-system-x86")?;

    let dir = paths::target().join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let initramfs = dir.join("initramfs.cpio");
    fs::write(&initramfs, pack(&dir)?).context("writing the initramfs")?;
    let mut failed = Vec::new();
    for kernel in chosen {
        let image = kernel.image(&dir)?;
        println!("Linux {}: {}", kernel.series, image.display());
        let begun = Instant::now();
        match boot(kernel.series, &image, &initramfs) {
            Ok(()) => println!("Linux {}: passed in {} s", kernel.series, begun.elapsed().as_secs()),
            Err(error) => {
                println!("Linux {}: failed: {error:#}", kernel.series);
                failed.push(kernel.series);
            }
        }
    }
    ensure!(failed.is_empty(), "failed in Linux {}", failed.join(", "));
    Ok(())
}

impl Kernel {
    /// The kernel's image, unpacked from the newest package of its series.
    fn image(&self, dir: &Path) -> Result<PathBuf> {
        let suite = Suite::open(self.suite, &dir.join("debian").join(self.suite))?;
        // Debian moved the image itself into a package of another name with 7.x.
        let mut names = suite.names(&format!("linux-binary-{}", self.series))?;
        if names.is_empty() {
            names = suite.names(&format!("linux-image-{}", self.series))?;
        }
        let package = newest(&names).with_context(|| {
            format!("Debian {} has no cloud kernel of series {} (any more)", self.suite, self.series)
        })?;
        let home = dir.join("kernels").join(&package);
        if !home.exists() {
            // Under another name until it is whole.
            let draft = dir.join("kernels.draft");
            fs::create_dir_all(dir.join("kernels")).context("making a folder for kernels")?;
            if draft.exists() {
                fs::remove_dir_all(&draft).context("removing half a kernel")?;
            }
            suite.unpack(&package, &draft)?;
            fs::rename(&draft, &home).context("putting a kernel in its place")?;
        }
        // boot/vmlinuz-6.1.0-…, or usr/lib/modules/7.2.13…/vmlinuz
        let entries = |dir: &str| fs::read_dir(home.join(dir)).into_iter().flatten().flatten();
        let in_boot = entries("boot").map(|entry| entry.path());
        let by_modules = entries("usr/lib/modules").map(|entry| entry.path().join("vmlinuz"));
        let is_image = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"))
        };
        let image = in_boot.filter(is_image).chain(by_modules).find(|path| path.exists());
        image.with_context(|| format!("{package} has no vmlinuz"))
    }
}

/// The cloud kernel with the highest numbers. One is enough of the signed and the unsigned; which there is differs.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
    };
    let is_kernel =
        |name: &&String| name.ends_with("-cloud-amd64-unsigned") || name.ends_with("-cloud-amd64");
    names.iter().filter(is_kernel).max_by_key(|name| (numbers(name), name.ends_with("-unsigned"))).cloned()
}

/// Everything the machine has, as one archive.
fn pack(dir: &Path) -> Result<Vec<u8>> {
    let bookworm = Suite::open("bookworm", &dir.join("debian/bookworm"))?;
    let unpacked = dir.join("busybox");
    if !unpacked.exists() {
        bookworm.unpack("busybox-static", &unpacked)?;
    }
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
    let busybox = busybox.iter().find(|path| path.exists()).context("busybox-static has no busybox")?;

    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(busybox).context("reading busybox")?);
    let mut script = String::from(INIT);
    for (package, target, name, arguments) in TESTS {
        let binary = build(package, target)?;
        let bytes = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
        archive.add(&format!("bin/{name}"), 0o100_755, &bytes);
        script +=
            &format!("echo \"# {name}\"\nCAPTURER_PROBE_TIERS={TIERS} /bin/{name} {arguments} || worst=$?\n");
    }
    script += &format!("echo \"{RESULT}$worst\"\n/bin/busybox poweroff -f\n");
    archive.add("init", 0o100_755, script.as_bytes());
    Ok(archive.end())
}

/// Runs as the machine's first process.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t tracefs trace /sys/kernel/tracing
worst=0
";

/// Builds a test binary that needs no file but itself.
fn build(package: &str, target: &[&str]) -> Result<PathBuf> {
    println!("building {package} {}", target.join(" "));
    let mut command = Command::new(tools::cargo());
    command.args(["test", "--no-run", "--package", package]).args(target);
    command.args(["--profile", "vm", "--target", TRIPLE, "--message-format=json-render-diagnostics"]);
    // With an explicit target these are not for build scripts, which can't be static.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(paths::workspace());
    let output = command.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "building {package} for the machine failed");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    // The one that was asked for comes last.
    executables.collect::<Vec<_>>().pop().context("cargo named no executable")
}

/// Boots the kernel and reads its serial line until it powers off.
fn boot(series: &str, image: &Path, initramfs: &Path) -> Result<()> {
    let mut machine = Command::new("qemu-system-x86_64");
    // Without cmpxchg16b: qemu 7.2 was seen to leave the low half of RAX in the flags after it, which ended Linux 6.12
    // in its allocator with a double fault, in three boots of four.
    machine
        .args([
            "-accel",
            "tcg",
            "-cpu",
            "max,cx16=off",
            "-m",
            "768",
            "-nographic",
            "-no-reboot",
            "-net",
            "none",
        ])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut machine = Machine(machine.spawn().context("starting qemu")?);
    let serial = machine.0.stdout.take().context("qemu's output")?;
    let (sender, lines) = mpsc::channel();
    // Ends with qemu, which the guard above ends.
    std::thread::spawn(move || {
        let mut serial = BufReader::new(serial);
        let mut line = Vec::new();
        while serial.by_ref().take(64 << 10).read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    let deadline = Instant::now() + DEADLINE;
    let mut result = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("[{series}] {line}");
                std::io::stdout().flush().context("printing")?;
                if let Some(code) = line.strip_prefix(RESULT) {
                    result = Some(code.to_owned());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("nothing was over after {} s", DEADLINE.as_secs()),
        }
    }
    match result.as_deref() {
        Some("0") => Ok(()),
        Some(code) => bail!("a test ended with {code}"),
        None => bail!("the machine ended before its tests did"),
    }
}

/// A running qemu; ended with its owner.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An archive as kernels unpack it at boot (cpio, format "newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let length = u32::try_from(content.len()).expect("a file of a machine that has 768 MiB");
        let name_length = u32::try_from(name.len()).expect("a short name") + 1;
        // inode, mode, user, group, links, time, length, device (2), special device (2), name's length, checksum
        let fields = [self.files, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_found_by_its_numbers() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases: [(&[&str], Option<&str>); 4] = [
            (
                &["linux-image-5.10.0-9-cloud-amd64-unsigned", "linux-image-5.10.0-32-cloud-amd64-unsigned"],
                Some("linux-image-5.10.0-32-cloud-amd64-unsigned"),
            ),
            (
                &["linux-image-7.2.13+deb14-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64-dbg"],
                Some("linux-image-7.2.13+deb14-cloud-amd64"),
            ),
            (
                &["linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64-unsigned"],
                Some("linux-image-6.1.0-50-cloud-amd64-unsigned"),
            ),
            (&["linux-image-6.1.0-50-amd64"], None),
        ];
        for (list, expected) in cases {
            assert_eq!(newest(&names(list)).as_deref(), expected);
        }
    }

    #[test]
    fn archives_are_as_cpio_writes_them() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"hello");
        let bytes = archive.end();
        assert!(bytes.len().is_multiple_of(4));
        assert_eq!(
            &bytes[..22],
            b"0707010000000100008 1a4".iter().filter(|b| **b != b' ').copied().collect::<Vec<_>>()
        );
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"hello");
    }
}
