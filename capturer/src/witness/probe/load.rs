//! Loads the kernel programs, attaches those of one tier, and reads and fills their maps. The only file that uses aya.
//!
//! ```text
//! BTF ─▶ offsets ─▶ OFFSETS ──────┐
//! first object the kernel takes ──┴▶ kernel: maps, programs ─▶ attached ─▶ compare(own table) ─▶ maps are right from here
//! ```
//! Not here: whether attached programs see what they should (self_test.rs).
//! Everything goes through aya's safe calls. capturer-ebpf/src/lib.rs vouches for what these need: types that may be
//! copied from maps.

mod layout;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{
    FEntry, FExit, KProbe, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _,
};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use capturer_ebpf::{
    COMPARED_AT_ONCE, COMPARED_WORDS, COUNT_CLOSED, COUNT_MISSED, COUNT_OPENED, COUNT_RELEASED,
    COUNTS_STRIDE, Held, Holds, LOW_FDS, ReferenceKey, Slot, SlotKey, Watched,
};

use super::btf::KernelTypes;
use super::procfs_tier::{self, ProcessLook};
use super::{Counts, Object, Options, Tier, syscalls};
pub(super) use layout::{Types, kernel_types};
use layout::{offsets, present};

/// Built by `cargo xtask build-ebpf`; CI builds them again and compares. Best first; the last one is for every kernel.
pub(super) static OBJECTS: [Object<'static>; 2] = [
    Object {
        name: "for Linux 5.15 and later",
        bytes: Cow::Borrowed(aya::include_bytes_aligned!("../../../../capturer-ebpf/probe-5.15.o")),
    },
    Object {
        name: "for Linux 5.10 and later",
        bytes: Cow::Borrowed(aya::include_bytes_aligned!("../../../../capturer-ebpf/probe.o")),
    },
];

struct OwnersMap {
    hashed: HashMap<MapData, SlotKey, u64>,
    /// For descriptors below [`LOW_FDS`], if the object has this map.
    low: Option<Array<MapData, u64>>,
}

/// Notes in the kernel who holds which descriptor of this process. Every thread may use it, while another uses the
/// `Kernel`.
pub struct Owners(Arc<Mutex<OwnersMap>>);

impl Owners {
    /// Notes who holds a descriptor. The note ends with the descriptor.
    pub fn claim(&self, fd: i32, owner: u64) -> Result<()> {
        let Ok(fd) = u32::try_from(fd) else { bail!("{fd} is no descriptor") };
        let owners = &mut *locked(&self.0);
        let noted = match &mut owners.low {
            Some(low) if fd < LOW_FDS => low.set(fd, owner, 0),
            _ => owners.hashed.insert(SlotKey { watch: 0, fd }, owner, 0),
        };
        noted.context("noting an owner")
    }
}

fn locked(owners: &Mutex<OwnersMap>) -> std::sync::MutexGuard<'_, OwnersMap> {
    owners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loaded and attached programs. Dropping it detaches them.
pub(super) struct Kernel {
    programs: Ebpf,
    slots: HashMap<MapData, SlotKey, Slot>,
    /// Of descriptors below [`LOW_FDS`], if the object has this map.
    low: Option<Array<MapData, Slot>>,
    files: HashMap<MapData, u64, Held>,
    references: HashMap<MapData, ReferenceKey, u32>,
    owners: Arc<Mutex<OwnersMap>>,
    closed_by: HashMap<MapData, u64, u64>,
    counts: PerCpuArray<MapData, u64>,
    watched: Array<MapData, Watched>,
    tables: HashMap<MapData, u64, u32>,
    table_of: Array<MapData, u64>,
    open: Array<MapData, u64>,
    tier: Tier,
    object: &'static str,
    own_fds: Vec<i32>,
}

impl Kernel {
    /// Attaches one tier's programs from the first object that the kernel accepts, with this process as watch 0. An
    /// error is the kernel's answer to the last object, which demands the least.
    pub(super) fn attach(tier: Tier, types: &Types, options: &Options) -> Result<Kernel> {
        let mut last = anyhow::anyhow!("there are no programs to load");
        for object in &options.objects {
            match Self::attach_object(object, tier, types, &options.left_out) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => {
                    tracing::debug!("tier {tier}, programs {}: {error:#}", object.name);
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn attach_object(object: &Object<'_>, tier: Tier, types: &Types, left_out: &[String]) -> Result<Kernel> {
        ensure!(tier != Tier::Procfs, "tier procfs has no programs");
        let before = bpf_fds()?;
        let offsets = offsets(tier, &types.facts)?;
        let mut programs = EbpfLoader::new()
            // The object needs no relocation; reading the kernel's types for one would take longer than everything
            // else.
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DEBUG)
            .override_global("OFFSETS", &offsets, true)
            .load(&object.bytes)
            .map_err(|error| refusal("making the maps", &error))?;

        if tier == Tier::Tracepoint {
            // Borrowed, because a program that is loaded later refers to the map by its descriptor.
            let map = programs.map_mut("SYSCALLS").context("the object lacks map SYSCALLS")?;
            let mut kinds: Array<_, u32> = map.try_into().context("map SYSCALLS is of another kind")?;
            for (number, kind) in syscalls::kinds() {
                kinds.set(number, kind, 0).context("noting a system call")?;
            }
        }
        let mut kernel = Kernel {
            slots: taken(&mut programs, "SLOTS")?,
            low: taken_if_there(&mut programs, "LOW")?,
            files: taken(&mut programs, "FILES")?,
            references: taken(&mut programs, "REFERENCES")?,
            owners: Arc::new(Mutex::new(OwnersMap {
                hashed: taken(&mut programs, "OWNERS")?,
                low: taken_if_there(&mut programs, "LOW_OWNERS")?,
            })),
            closed_by: taken(&mut programs, "CLOSED_BY")?,
            counts: taken(&mut programs, "COUNTS")?,
            watched: taken(&mut programs, "WATCHED")?,
            tables: taken(&mut programs, "TABLES")?,
            table_of: taken(&mut programs, "TABLE_OF")?,
            open: taken(&mut programs, "OPEN")?,
            programs,
            tier,
            object: object.name,
            own_fds: Vec::new(),
        };
        kernel.set_watched(0, std::process::id())?;
        match tier {
            Tier::Tracing => kernel.attach_tracing(types, left_out)?,
            Tier::Kprobe => kernel.attach_kprobes(&types.facts, left_out)?,
            _ => kernel.attach_tracepoints(left_out)?,
        }
        // Last, because it costs the verifier most; a tier that is refused is refused before this.
        let compare = kernel.raw("compare")?;
        compare.load().map_err(|error| refusal("loading compare", &error))?;
        kernel.compare(0, highest(&procfs_tier::look()?))?;
        kernel.own_fds = bpf_fds()?.difference(&before).copied().collect();
        Ok(kernel)
    }

    fn attach_tracing(&mut self, types: &Types, left_out: &[String]) -> Result<()> {
        let btf = types.for_attaching()?;
        for function in
            present(&types.facts)?.into_iter().filter(|function| !is_left_out(left_out, function.program))
        {
            let what = format!("attaching to {}", function.name);
            let ending = if function.at_exit { "exit" } else { "entry" };
            let program = self.programs.program_mut(&format!("{}_{ending}", function.program));
            let program = program.context("the object lacks a program")?;
            let done = if function.at_exit {
                let program: &mut FExit = program.try_into().map_err(|error| refusal(&what, &error))?;
                program.load(function.name, btf).and_then(|()| program.attach().map(drop))
            } else {
                let program: &mut FEntry = program.try_into().map_err(|error| refusal(&what, &error))?;
                program.load(function.name, btf).and_then(|()| program.attach().map(drop))
            };
            done.map_err(|error| refusal(&what, &error))?;
        }
        Ok(())
    }

    fn attach_kprobes(&mut self, types: &KernelTypes, left_out: &[String]) -> Result<()> {
        for function in
            present(types)?.into_iter().filter(|function| !is_left_out(left_out, function.program))
        {
            let what = format!("attaching to {}", function.name);
            let program = self.programs.program_mut(&format!("{}_probe", function.program));
            let program: &mut KProbe = program
                .context("the object lacks a program")?
                .try_into()
                .map_err(|error: ProgramError| refusal(&what, &error))?;
            program
                .load()
                .and_then(|()| program.attach(function.name, 0).map(drop))
                .map_err(|error| refusal(&what, &error))?;
        }
        Ok(())
    }

    fn attach_tracepoints(&mut self, left_out: &[String]) -> Result<()> {
        for name in ["sys_exit", "io_uring_complete"].into_iter().filter(|name| !is_left_out(left_out, name))
        {
            let program = self.raw(name)?;
            program
                .load()
                .and_then(|()| program.attach(name).map(drop))
                .map_err(|error| refusal(&format!("attaching to tracepoint {name}"), &error))?;
        }
        Ok(())
    }

    fn raw(&mut self, name: &str) -> Result<&mut RawTracePoint> {
        let program = self.programs.program_mut(name).context("the object lacks a program")?;
        program.try_into().map_err(|error: ProgramError| refusal(name, &error))
    }

    /// Which tier it is.
    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// Which kernels its programs are for.
    pub(super) fn object(&self) -> &'static str {
        self.object
    }

    /// Descriptors of its maps, programs and attachments.
    pub(super) fn own_fds(&self) -> &[i32] {
        &self.own_fds
    }

    /// Lets a program compare the maps with a watched process's own table, for descriptors up to `fd_max`: at start,
    /// and again whenever they differ. A table that no program has seen yet stays unknown, except our own.
    pub(super) fn compare(&mut self, watch: u32, fd_max: u32) -> Result<()> {
        let known = self.slots(watch).last().map_or(0, |(fd, _)| *fd);
        let compare = self.raw("compare")?;
        for first in (0..=fd_max.max(known)).step_by(COMPARED_AT_ONCE as usize) {
            let mut options = RawTracePointRunOptions::new();
            options.args[..2].copy_from_slice(&[u64::from(watch), u64::from(first)]);
            compare.test_run(options).map_err(|error| refusal("running compare", &error))?;
        }
        Ok(())
    }

    /// The descriptors of a watched process, in order.
    pub(super) fn slots(&self, watch: u32) -> Vec<(u32, Slot)> {
        // An entry removed during the iteration ends one step with an error, and the iteration goes on.
        let entries = self.slots.iter().filter_map(Result::ok);
        let mut slots: Vec<(u32, Slot)> =
            entries.filter(|(key, _)| key.watch == watch).map(|(key, slot)| (key.fd, slot)).collect();
        slots.extend(self.low_slots(watch));
        slots.sort_unstable_by_key(|(fd, _)| *fd);
        slots.dedup_by_key(|(fd, _)| *fd);
        slots
    }

    /// The descriptors in the array. Each lookup costs a call, so only those whose bits are set.
    fn low_slots(&self, watch: u32) -> Vec<(u32, Slot)> {
        let mut slots = Vec::new();
        for word in (0..COMPARED_WORDS).filter(|_| self.low.is_some()) {
            let bits = self.open.get(&(watch * COMPARED_WORDS + word), 0).unwrap_or(0);
            let fds = (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * u64::BITS + bit);
            slots.extend(fds.filter_map(|fd| Some((fd, self.low_slot(watch, fd)?))));
        }
        slots
    }

    fn low_slot(&self, watch: u32, fd: u32) -> Option<Slot> {
        let slot = self.low.as_ref()?.get(&(watch * LOW_FDS + fd), 0).ok();
        slot.filter(|slot| slot.holds != Holds::NOTHING)
    }

    /// One descriptor of our own.
    pub(super) fn slot(&self, fd: u32) -> Option<Slot> {
        if self.low.is_some() && fd < LOW_FDS {
            return self.low_slot(0, fd);
        }
        self.slots.get(&SlotKey { watch: 0, fd }, 0).ok()
    }

    /// A file that the kernel has not released.
    pub(super) fn file(&self, file: u64) -> Option<Held> {
        self.files.get(&file, 0).ok()
    }

    /// Files of a watched process that the kernel has not released.
    pub(super) fn files(&self, watch: u32) -> Vec<(u64, Held)> {
        let entries = self.files.iter().filter_map(Result::ok);
        entries.filter(|(_, held)| held.watch == watch).collect()
    }

    /// Forgets files that are closed and not released by now. Attaching makes them: an attachment keeps the perf event
    /// whose descriptor is closed.
    pub(super) fn forget_unreleased(&mut self) {
        for (file, _) in self.files(0).into_iter().filter(|(_, held)| held.slots <= 0) {
            let _ = self.files.remove(&file);
        }
    }

    /// Notes who holds a descriptor of our own.
    pub(super) fn owners(&self) -> Owners {
        Owners(Arc::clone(&self.owners))
    }

    /// Who holds each of these descriptors of our own, as noted in the kernel; 0 = nobody.
    pub(super) fn owners_of(&self, fds: impl Iterator<Item = u32>) -> Vec<u64> {
        let owners = locked(&self.owners);
        let owner = |fd| match &owners.low {
            Some(low) if fd < LOW_FDS => low.get(&fd, 0),
            _ => owners.hashed.get(&SlotKey { watch: 0, fd }, 0),
        };
        fds.map(|fd| owner(fd).unwrap_or(0)).collect()
    }

    /// How many descriptors were closed, by owner.
    pub(super) fn closed_by(&self) -> BTreeMap<u64, u64> {
        self.closed_by.iter().filter_map(Result::ok).collect()
    }

    /// Stops counting for an owner that is no longer needed.
    pub(super) fn forget_owner(&mut self, owner: u64) {
        // There is no count if none of its descriptors was ever closed.
        let _ = self.closed_by.remove(&owner);
    }

    /// What was counted for a watched process since the watch began.
    pub(super) fn counts(&self, watch: u32) -> Result<Counts> {
        let sum = |what: u32| -> Result<u64> {
            let values = self.counts.get(&(watch * COUNTS_STRIDE + what), 0).context("reading a count")?;
            Ok(values.iter().sum())
        };
        Ok(Counts {
            opened: sum(COUNT_OPENED)?,
            closed: sum(COUNT_CLOSED)?,
            released: sum(COUNT_RELEASED)?,
            missed: sum(COUNT_MISSED)?,
        })
    }

    /// Follows another process from now on. Returns the watch's number.
    pub(super) fn watch(&mut self, process: u32) -> Result<u32> {
        let watched = self.watched.get(&0, 0).context("reading who is watched")?;
        let free = watched.iter().skip(1).position(|entry| *entry == 0);
        let watch =
            free.with_context(|| format!("{} processes are watched already", watched.len()))? as u32 + 1;
        self.forget(watch)?;
        self.set_watched(watch, process)?;
        Ok(watch)
    }

    /// Ends a watch begun by [`Kernel::watch`].
    pub(super) fn unwatch(&mut self, watch: u32) -> Result<()> {
        self.set_watched(watch, 0)?;
        self.forget(watch)
    }

    /// Makes a watch follow this process from now on; 0 = none.
    fn set_watched(&mut self, watch: u32, process: u32) -> Result<()> {
        let mut watched = self.watched.get(&0, 0).context("reading who is watched")?;
        watched[watch as usize] = if process == 0 { 0 } else { u64::from(process) << 32 | u64::from(watch) };
        self.watched.set(0, watched, 0).context("setting who is watched")
    }

    /// Clears what is known of a watch that has ended. Its table goes first, so that nothing new is noted meanwhile.
    fn forget(&mut self, watch: u32) -> Result<()> {
        let table = self.table_of.get(&watch, 0).context("reading a table's address")?;
        if table != 0 {
            let _ = self.tables.remove(&table);
        }
        self.table_of.set(watch, 0, 0).context("forgetting a table")?;
        // A program that was still running may have removed the entry.
        for (fd, _) in self.slots(watch) {
            let _ = self.slots.remove(&SlotKey { watch, fd });
        }
        // All of them: a bit may have changed before or after its entry came.
        if let Some(low) = &mut self.low {
            let nothing = Slot { holds: Holds::NOTHING, opened_ns: 0 };
            for fd in 0..LOW_FDS {
                low.set(watch * LOW_FDS + fd, nothing, 0).context("forgetting a descriptor")?;
            }
        }
        for (file, _) in self.files(watch) {
            let _ = self.files.remove(&file);
        }
        let references: Vec<ReferenceKey> =
            self.references.keys().filter_map(Result::ok).filter(|key| key.watch == watch).collect();
        for key in references {
            let _ = self.references.remove(&key);
        }
        for word in 0..COMPARED_WORDS {
            self.open.set(watch * COMPARED_WORDS + word, 0, 0).context("forgetting descriptors")?;
        }
        Ok(())
    }
}

fn taken<T>(programs: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = programs.take_map(name).with_context(|| format!("the object lacks map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name} is of another kind"))
}

fn taken_if_there<T>(programs: &mut Ebpf, name: &str) -> Result<Option<T>>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    programs.map(name).is_some().then(|| taken(programs, name)).transpose()
}

fn is_left_out(left_out: &[String], program: &str) -> bool {
    left_out.iter().any(|name| name == program)
}

/// Makes one sentence of aya's error, whose causes repeat each other. The kernel's verifier gives its reason at the end
/// of its log, before a line of statistics.
fn refusal(what: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
        let log = verifier_log.to_string();
        let minds = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
        let minds = minds.map(|line| format!(" (verifier: {line})")).unwrap_or_default();
        return anyhow::anyhow!("{what}: {io_error}{minds}");
    }
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    anyhow::anyhow!("{what}: {last}")
}

/// Descriptors that may be the probe's: if another part opens something meanwhile, it is not claimed.
fn bpf_fds() -> Result<BTreeSet<i32>> {
    let ours = |target: &str| {
        ["bpf", "perf_event", "btf"].iter().any(|word| target.contains(word))
            && target.starts_with("anon_inode:")
    };
    let look = procfs_tier::look()?;
    Ok(look.fds.into_iter().filter(|(_, target)| ours(target)).map(|(fd, _)| fd).collect())
}

/// The highest descriptor in use.
pub(super) fn highest(look: &ProcessLook) -> u32 {
    look.fds.last().map_or(0, |(fd, _)| fd.unsigned_abs())
}
