//! `cargo xtask vm 5.10 6.12`: tests inside other kernels, on an emulated machine.
//!
//! ```text
//! Debian's kernel package of a suite ─▶ vmlinuz ──────────────┐
//! agent, tests of probe, ring and files, stripped ┐           ├▶ qemu, its serial line is our output
//! busybox, init script ───────────────────────────┴▶ initramfs ─┘
//! ```
//! Emulated, not virtualized: that works on every machine, even a virtual one. All of it runs in memory and as its own
//! root; nothing of this machine is mounted in it.
//!
//! Machines run side by side, one for each processor. Everything downloaded or built stays in target/vm.
//!
//! Not here: what is tested (tests/probe.rs, tests/capture_files.rs, capturer/src/shell/ring), and how its output is read
//! (vm/transcript.rs).

mod transcript;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::debian::{Suite, run};
use crate::{ci_build, paths, tools};
use transcript::{Failure, PROGRAM, RESULT, Transcript};

/// A kernel by its series, and the suite of Debian that has it.
struct Kernel {
    series: &'static str,
    suite: &'static str,
}

const KERNELS: [Kernel; 4] = [
    Kernel { series: "5.10", suite: "bullseye" },
    Kernel { series: "6.1", suite: "bookworm" },
    Kernel { series: "6.12", suite: "bookworm-backports" },
    // The newest: not among those that must pass, as it changes every week.
    Kernel { series: "7.2", suite: "sid" },
];
/// The default: the oldest kernel that must pass and the newest. The others are for `cargo xtask test --long`.
const USUAL: [&str; 2] = ["5.10", "6.12"];

/// The tests that run inside: folder of the package, target and its kind, name in the machine, arguments.
const TESTS: [(&str, &str, &str, &str, &str); 3] = [
    ("capturer", "capturer", "lib", "ring", "--test-threads=1 shell::ring::"),
    ("tests", "capture_files", "test", "capture_files", "--test-threads=1"),
    ("tests", "probe", "test", "probe", "--test-threads=1 --nocapture"),
];
/// Tiers that must attach on each of the kernels above.
const TIERS: &str = "tracing,kprobe,tracepoint";

/// A kernel that hangs is ended after this long. Booting takes some 10 s and the tests some minutes; on an otherwise
/// busy machine they were seen to take ten.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Without cmpxchg16b: qemu 7.2 was seen to leave the low half of RAX in the flags after it, which ended Linux 6.12 in its
/// allocator with a double fault, in three boots of four.
///
/// It also hides that it moves bytes quickly: kernel and C library would otherwise copy and clear memory by `rep movsb`
/// and `rep stosb`, which an emulator does byte by byte.
const CPU: &str = "max,cx16=off,erms=off,fsrm=off";

/// Without its check of the timer: on a busy machine the emulator's timer was seen not to tick in time, which ended Linux
/// 5.10 before its first process ("IO-APIC + timer doesn't work").
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// The results of the machines.
#[derive(Default)]
pub struct Outcome {
    /// Kernels in which every test passed.
    pub passed: u64,
    /// `Linux 6.1: NAME` for each failed test, or why none is named.
    pub failed: Vec<String>,
}

/// Why no machine can run here; `None` = one can.
pub fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the machines are x86-64, and this is not".to_owned());
    }
    tools::no_emulator()
}

/// Runs the tests in each kernel and reports the failed ones once all machines have ended: their output is mixed.
pub fn run_in(kernels: &[String]) -> Result<Outcome> {
    ensure!(cfg!(target_arch = "x86_64"), "the machines are x86-64, and so must be the tests built here");
    let chosen = choose(kernels)?;
    tools::install_emulator()?;
    let dir = home()?;
    let initramfs = dir.join("initramfs.cpio");
    fs::write(&initramfs, pack(&dir)?).context("writing the initramfs")?;
    let images: Result<Vec<PathBuf>> = chosen.iter().map(|kernel| kernel.image(&dir)).collect();
    let machines: Mutex<Vec<(&str, PathBuf)>> =
        Mutex::new(chosen.iter().map(|kernel| kernel.series).zip(images?).rev().collect());
    let ended = Mutex::new(Vec::new());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors.min(chosen.len()) {
            scope.spawn(|| {
                while let Some((series, image)) = next(&machines) {
                    let begun = Instant::now();
                    let failure = boot(series, &image, &initramfs).unwrap_or_else(|error| {
                        Some(Failure { tests: vec![format!("{error:#}")], said: Vec::new() })
                    });
                    let how = if failure.is_none() { "passed" } else { "failed" };
                    println!("Linux {series}: {how} in {} s", begun.elapsed().as_secs());
                    ended.lock().expect("no thread panics with it").push((series, failure));
                }
            });
        }
    });
    let mut outcome = Outcome::default();
    for (series, failure) in ended.into_inner().expect("every thread has ended") {
        let Some(Failure { tests, said }) = failure else {
            outcome.passed += 1;
            continue;
        };
        for test in tests {
            let test = format!("Linux {series}: {test}");
            println!("FAILED in {test}");
            outcome.failed.push(test);
        }
        said.iter().for_each(|line| println!("  {line}"));
    }
    Ok(outcome)
}

/// Brings kernels and what else the machines are made of, so that it is there when they run.
pub fn download(kernels: &[String]) -> Result<()> {
    let dir = home()?;
    busybox(&dir)?;
    choose(kernels)?.iter().try_for_each(|kernel| kernel.image(&dir).map(drop))
}

/// The kernels of these series; if none is named, the usual ones.
fn choose(kernels: &[String]) -> Result<Vec<&'static Kernel>> {
    let named: Vec<&str> =
        if kernels.is_empty() { USUAL.to_vec() } else { kernels.iter().map(String::as_str).collect() };
    let of = |series: &str| {
        let known = || KERNELS.map(|kernel| kernel.series).join(", ");
        let kernel = KERNELS.iter().find(|kernel| kernel.series == series);
        kernel.with_context(|| format!("no kernel {series:?} is known here, but {}", known()))
    };
    named.into_iter().map(of).collect()
}

/// The folder of all that is downloaded or built for them.
fn home() -> Result<PathBuf> {
    let dir = paths::target().join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn next<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    list.lock().expect("no thread panics with it").pop()
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
            // Under another name until it is complete.
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

/// A static busybox.
fn busybox(dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("busybox");
    if !unpacked.exists() {
        Suite::open("bookworm", &dir.join("debian/bookworm"))?.unpack("busybox-static", &unpacked)?;
    }
    let paths = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
    paths.into_iter().find(|path| path.exists()).context("busybox-static has no busybox")
}

/// All files of the machine, as one archive.
fn pack(dir: &Path) -> Result<Vec<u8>> {
    let busybox = busybox(dir)?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(busybox).context("reading busybox")?);
    let agent = ci_build::program("capturer", "capturer", "bin", false)?;
    archive.add("bin/capturer", 0o100_755, &stripped(&agent.path, dir)?);
    let mut script = format!("{INIT}export CAPTURER_PROBE_TIERS={TIERS}\n");
    script += &format!("failed() {{ worst=$2; echo \"{PROGRAM}$1 ended with $2\"; }}\n");
    for (package, target, kind, name, arguments) in TESTS {
        let program = ci_build::program(package, target, kind, true)?;
        archive.add(&format!("bin/{name}"), 0o100_755, &stripped(&program.path, dir)?);
        script += &format!("echo \"# {name}\"\n/bin/{name} {arguments} || failed {name} $?\n");
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
/bin/busybox ifconfig lo 127.0.0.1 up
export CAPTURER_BIN=/bin/capturer
worst=0
";

/// Strips line tables from a program, which would fill the machine's memory.
fn stripped(program: &Path, dir: &Path) -> Result<Vec<u8>> {
    let stripped = dir.join("stripped");
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(program))?;
    fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))
}

/// Boots the kernel and reads its serial line until it powers off. Returns the failure of its tests, if there is one.
fn boot(series: &str, image: &Path, initramfs: &Path) -> Result<Option<Failure>> {
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        .args(["-accel", "tcg", "-cpu", CPU, "-m", "1024", "-nographic", "-no-reboot", "-net", "none"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", KERNEL_LINE])
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
    let mut transcript = Transcript::default();
    let stopped = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("[{series}] {line}");
                std::io::stdout().flush().context("printing")?;
                transcript.read(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("nothing was over after {} s", DEADLINE.as_secs()));
            }
        }
    };
    Ok(transcript.failure(stopped))
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
        let length = u32::try_from(content.len()).expect("a file of a machine that has 1 GiB");
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
