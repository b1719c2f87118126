//! The probe: what the kernel says this process holds, to be compared with what the program believes.
//!
//! ```text
//! witness/ ◀── Reading ── Probe ◀── /proc/self (procfs_tier.rs)
//!                             ▲
//!                             └── maps (load.rs) ◀── programs in the kernel
//! claims of all threads ── Owners ─▶ the map by which the kernel knows who holds what
//! ```
//! Tiers differ in how they see the kernel, not in what is done with it. Tier `procfs` reads /proc at an interval,
//! which needs no rights and sees what is open at that moment. For the others the kernel reports every opening and
//! closing as it happens. Which tier is used is decided at start by attaching (load.rs) and by a self-test
//! ([`self_test`]), never by a version number. docs/probe.md says what each tier can see.
//!
//! Not here: when to look (witness/mod.rs), who holds what and what is a leak (ledger/).

mod btf;
pub(crate) mod heap;
mod load;
pub(crate) mod procfs_tier;
pub(crate) mod rights;
pub(crate) mod sampling;
pub(crate) mod self_test;
mod syscalls;
pub(crate) mod ways;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use load::Kernel;
pub use load::Owners;
use procfs_tier::ProcessLook;
use self_test::WayResult;

/// How many descriptors of all watched processes together can be followed; further openings count as missed.
pub const FOLLOWED_MAX: u32 = capturer_ebpf::SLOTS_MAX;

/// How the kernel is observed, best first. Its text is the label `tier` of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Programs at the functions themselves (fentry, fexit).
    Tracing,
    /// The same functions by kprobes.
    Kprobe,
    /// Raw tracepoints of system calls and io_uring, for kernels that allow no more. Does not see files being released.
    Tracepoint,
    /// A look at /proc at an interval.
    Procfs,
}

impl Tier {
    /// Every tier, best first.
    pub const ALL: [Tier; 4] = [Tier::Tracing, Tier::Kprobe, Tier::Tracepoint, Tier::Procfs];

    /// Whether the kernel reports when it releases a file, which may be later than its last descriptor.
    pub fn sees_releases(self) -> bool {
        self <= Tier::Kprobe
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Tracing => "tracing",
            Tier::Kprobe => "kprobe",
            Tier::Tracepoint => "tracepoint",
            Tier::Procfs => "procfs",
        })
    }
}

/// How to start. Only tests change the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tiers to try, best first; `procfs` is used if none of them works.
    pub tiers: Vec<Tier>,
    /// Where the kernel describes itself.
    pub btf: PathBuf,
    /// The programs, best first: the first object that the kernel accepts is used.
    pub objects: Vec<Object<'static>>,
    /// Programs not to attach, so that the self-test has something to find: `filp_close`, `sys_exit`.
    pub left_out: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tiers: Tier::ALL.to_vec(),
            btf: btf::KERNEL_BTF.into(),
            objects: load::OBJECTS.to_vec(),
            left_out: Vec::new(),
        }
    }
}

/// Kernel programs in the form in which they are loaded.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    /// Which kernels they are for, in words.
    pub name: &'static str,
    /// An ELF file.
    pub bytes: Cow<'a, [u8]>,
}

/// The probe at work. Dropping it removes the programs from the kernel.
pub struct Probe {
    kernel: Option<Kernel>,
    refused: Vec<(Tier, String)>,
    self_test: Vec<WayResult>,
    repairs: u64,
}

/// A descriptor as the kernel's programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFd {
    /// Number of the descriptor.
    pub fd: i32,
    /// The address of its file in the kernel: equal for duplicates. Only for comparison.
    pub file: u64,
    /// CLOCK_MONOTONIC. Together with the number it identifies this opening.
    pub opened_ns: u64,
    /// Who claimed it ([`Owners::claim`]); 0 = nobody. Always 0 for other processes.
    pub owner: u64,
}

/// A file whose last descriptor is closed but that the kernel still holds for an operation under way, a mapping, or a
/// duplicate in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreleasedFile {
    /// The address of the file in the kernel.
    pub file: u64,
    /// The descriptor that was closed last.
    pub last_fd: i32,
    /// Milliseconds since that closing.
    pub age_ms: u64,
    /// Who had claimed it ([`Owners::claim`]); 0 = nobody.
    pub owner: u64,
}

/// What the programs counted for one process since its watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Descriptors opened, including those found open at start. `opened - closed` is exactly what is open.
    pub opened: u64,
    /// Descriptors closed since the start.
    pub closed: u64,
    /// Files released; 0 on tiers that can't see it.
    pub released: u64,
    /// Openings that are not followed because a map was full. Not in `opened`.
    pub missed: u64,
}

/// One reading of this process.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// /proc/self, read between the two reads of the maps: what the ledger compares with.
    pub look: ProcessLook,
    /// What the programs know. Empty on tier `procfs`.
    pub live: Vec<LiveFd>,
    /// What they counted; `None` on tier `procfs`.
    pub counts: Option<Counts>,
    /// Closings by the owner who had claimed the descriptor. Read before `live`.
    pub closed_by: BTreeMap<u64, u64>,
    /// Closed and not released. Empty on tiers that can't see it.
    pub unreleased: Vec<UnreleasedFile>,
    /// Descriptors that the programs know and /proc does not, both before and after the look, less those only /proc
    /// knows. If it is not 0, the programs compare with the kernel's table at once, so the next reading should say 0.
    pub drift: i64,
    /// How often that comparison was needed since the start.
    pub repairs: u64,
}

/// Another process's descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchReading {
    /// What the programs know: everything, once the process was active.
    pub live: Vec<LiveFd>,
    /// What they counted.
    pub counts: Counts,
}

/// A process that is watched besides our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    index: u32,
    process: u32,
}

impl Probe {
    /// A look at /proc, without programs in the kernel.
    pub fn procfs() -> Probe {
        Probe { kernel: None, refused: Vec::new(), self_test: Vec::new(), repairs: 0 }
    }

    /// Starts on the best tier that attaches and passes its self-test. Never fails: `procfs` needs nothing.
    ///
    /// Takes some tenths of a second, most of it in the kernel's verifier. Other threads may open and close descriptors
    /// meanwhile.
    pub fn start(options: &Options) -> Probe {
        let mut probe = Probe::procfs();
        let tiers: Vec<Tier> = options.tiers.iter().copied().filter(|tier| *tier != Tier::Procfs).collect();
        if tiers.is_empty() {
            return probe;
        }
        let mut types = match load::kernel_types(&options.btf) {
            Ok(types) => types,
            Err(error) => {
                probe.refused = tiers.into_iter().map(|tier| (tier, format!("{error:#}"))).collect();
                return probe;
            }
        };
        for tier in tiers {
            match attach(tier, &types, options) {
                Ok((kernel, results)) => {
                    probe.self_test = results;
                    probe.kernel = Some(kernel);
                    break;
                }
                Err(error) => probe.refused.push((tier, format!("{error:#}"))),
            }
            types.trim();
        }
        drop(types);
        heap::give_back();
        probe
    }

    /// The tier at work.
    pub fn tier(&self) -> Tier {
        self.kernel.as_ref().map_or(Tier::Procfs, Kernel::tier)
    }

    /// Which kernels the programs at work are for, in words; `None` on tier `procfs`.
    pub fn programs(&self) -> Option<&'static str> {
        self.kernel.as_ref().map(Kernel::object)
    }

    /// Better tiers, each with the reason why it is not used.
    pub fn refused(&self) -> &[(Tier, String)] {
        &self.refused
    }

    /// What the self-test of the tier at work found for each way. Empty on tier `procfs`.
    pub fn self_test(&self) -> &[WayResult] {
        &self.self_test
    }

    /// The probe's own descriptors.
    pub fn own_fds(&self) -> &[i32] {
        self.kernel.as_ref().map_or(&[], Kernel::own_fds)
    }

    /// Tells the kernel's side who holds a descriptor, so that closings are counted by owner and a file that outlives
    /// its descriptor has a name. `None` on tier `procfs`.
    pub fn owners(&self) -> Option<Owners> {
        self.kernel.as_ref().map(Kernel::owners)
    }

    /// The owner with this number is no longer needed: its count is dropped.
    pub fn forget_owner(&mut self, owner: u64) {
        if let Some(kernel) = &mut self.kernel {
            kernel.forget_owner(owner);
        }
    }

    /// Looks at this process.
    pub fn read(&mut self) -> Result<Reading> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(Reading { look: procfs_tier::look()?, ..Reading::default() });
        };
        let before = live(kernel, 0);
        let look = procfs_tier::look()?;
        let closed_by = kernel.closed_by();
        let after = live(kernel, 0);
        let counts = kernel.counts(0)?;
        let drift = drift(&before, &look, &after);
        if drift != (0, 0) {
            self.repairs += 1;
            kernel.compare(0, load::highest(&look))?;
        }
        Ok(Reading {
            counts: Some(counts),
            closed_by,
            unreleased: unreleased(kernel, 0),
            live: after,
            drift: drift.0 - drift.1,
            repairs: self.repairs,
            look,
        })
    }

    /// Follows another process, a daemon, until [`Probe::unwatch`].
    pub fn watch(&mut self, process: i32) -> Result<Watch> {
        let Some(kernel) = &mut self.kernel else { bail!("tier procfs can't watch other processes") };
        let process = u32::try_from(process).context("a process id")?;
        Ok(Watch { index: kernel.watch(process)?, process })
    }

    /// What a watched process holds. Fails if it has ended.
    pub fn read_watch(&mut self, watch: Watch) -> Result<WatchReading> {
        let Some(kernel) = &mut self.kernel else { bail!("tier procfs can't watch other processes") };
        let dir = format!("/proc/{}/fd", watch.process);
        let names = std::fs::read_dir(&dir).with_context(|| format!("listing {dir}"))?;
        let numbers = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        kernel.compare(watch.index, numbers.max().unwrap_or(0))?;
        Ok(WatchReading { live: live(kernel, watch.index), counts: kernel.counts(watch.index)? })
    }

    /// Ends a watch. Required once its process has ended, because the kernel may reuse the address of its table.
    pub fn unwatch(&mut self, watch: Watch) -> Result<()> {
        self.kernel.as_mut().map_or(Ok(()), |kernel| kernel.unwatch(watch.index))
    }
}

fn attach(tier: Tier, types: &load::Types, options: &Options) -> Result<(Kernel, Vec<WayResult>)> {
    let mut kernel = Kernel::attach(tier, types, options)?;
    // On a thread of its own: the kernel's workers for its ring end with it.
    let results = std::thread::scope(|scope| scope.spawn(|| self_test::run(&mut kernel)).join());
    let Ok(results) = results else { bail!("the self-test panicked") };
    let results = results.context("trying the self-test")?;
    match self_test::blindness(&results) {
        Some(why) => bail!(why),
        None => {
            kernel.forget_unreleased();
            Ok((kernel, results))
        }
    }
}

fn live(kernel: &Kernel, watch: u32) -> Vec<LiveFd> {
    let slots = kernel.slots(watch);
    let owners = match watch {
        0 => kernel.owners_of(slots.iter().map(|(fd, _)| *fd)),
        _ => vec![0; slots.len()],
    };
    let known = |((fd, slot), owner): ((u32, capturer_ebpf::Slot), u64)| LiveFd {
        fd: fd as i32,
        file: slot.holds.file(),
        opened_ns: slot.opened_ns,
        owner,
    };
    slots.into_iter().zip(owners).map(known).collect()
}

fn unreleased(kernel: &Kernel, watch: u32) -> Vec<UnreleasedFile> {
    if !kernel.tier().sees_releases() {
        return Vec::new();
    }
    let now_ns = self_test::now_ns();
    let files = kernel.files(watch).into_iter().filter(|(_, held)| held.slots <= 0 && held.closed_ns > 0);
    let unreleased = files.map(|(file, held)| UnreleasedFile {
        file,
        last_fd: held.last_fd as i32,
        age_ms: now_ns.saturating_sub(held.closed_ns) / 1_000_000,
        owner: held.owner,
    });
    unreleased.collect()
}

/// How many only the programs know, and how many only /proc.
fn drift(before: &[LiveFd], look: &ProcessLook, after: &[LiveFd]) -> (i64, i64) {
    let (only_programs, only_proc) = differing(before, look, after);
    (only_programs.len() as i64, only_proc.len() as i64)
}

/// Descriptors that only the programs know, and those that only /proc knows: each only if it is so before and after the look.
fn differing(before: &[LiveFd], look: &ProcessLook, after: &[LiveFd]) -> (Vec<i32>, Vec<i32>) {
    let open: BTreeMap<i32, &str> = look.fds.iter().map(|(fd, target)| (*fd, target.as_str())).collect();
    let stays = |fd: &LiveFd| {
        let same = |other: &LiveFd| (other.file, other.opened_ns) == (fd.file, fd.opened_ns);
        before.binary_search_by_key(&fd.fd, |other| other.fd).is_ok_and(|at| same(&before[at]))
    };
    let knows = |list: &[LiveFd], fd: i32| list.binary_search_by_key(&fd, |other| other.fd).is_ok();
    let only_programs =
        after.iter().filter(|fd| stays(fd) && !open.contains_key(&fd.fd)).map(|fd| fd.fd).collect();
    let only_proc = open.into_keys().filter(|fd| !knows(before, *fd) && !knows(after, *fd)).collect();
    (only_programs, only_proc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise each descriptor that comes or goes during a look would raise an alarm.
    #[test]
    fn what_changes_during_a_look_is_no_drift() {
        let fd = |fd, opened_ns| LiveFd { fd, file: 1, opened_ns, owner: 0 };
        let look = |fds: &[i32]| ProcessLook {
            fds: fds.iter().map(|fd| (*fd, String::new())).collect(),
            ..ProcessLook::default()
        };
        type Case<'a> = (&'a [LiveFd], &'a [i32], &'a [LiveFd], (i64, i64));
        let cases: [Case; 6] = [
            (&[fd(3, 1)], &[3], &[fd(3, 1)], (0, 0)),
            (&[fd(3, 1)], &[], &[], (0, 0)),
            (&[], &[3], &[fd(3, 1)], (0, 0)),
            (&[fd(3, 1)], &[], &[fd(3, 2)], (0, 0)),
            (&[fd(3, 1)], &[], &[fd(3, 1)], (1, 0)),
            (&[fd(3, 1)], &[3, 4], &[fd(3, 1)], (0, 1)),
        ];
        for (before, between, after, expected) in cases {
            assert_eq!(drift(before, &look(between), after), expected, "{before:?} {between:?} {after:?}");
        }
    }

    /// The agent starts, whatever the kernel refuses.
    #[test]
    fn without_btf_each_tier_says_so_and_procfs_is_left() {
        let options = Options { btf: "/nowhere/btf".into(), ..Options::default() };
        let mut probe = Probe::start(&options);
        assert_eq!(probe.tier(), Tier::Procfs);
        assert_eq!(probe.refused().len(), 3);
        assert!(probe.refused().iter().all(|(_, why)| why.contains("/nowhere/btf")), "{:?}", probe.refused());
        let reading = probe.read().unwrap();
        assert!(reading.counts.is_none() && reading.drift == 0 && !reading.look.fds.is_empty());
        assert!(probe.own_fds().is_empty() && probe.watch(1).is_err());
    }
}
