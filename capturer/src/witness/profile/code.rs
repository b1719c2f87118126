//! Which code this process has loaded: turns a sample into the addresses on its stack, and those into names.
//!
//! Both need the files from which the code was loaded. Walking a stack needs `.eh_frame`, which every program has.
//! Names need debug information or, without it, the symbol table; for a program with neither only the program is named.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use addr2line::gimli::{Dwarf, EndianSlice, NativeEndian};
use anyhow::Context as _;
use framehop::{
    CacheNative, ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, UnwindRegsNative, Unwinder as _,
    UnwinderNative,
};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, SegmentFlags, SymbolMap, SymbolMapName};
use procfs::process::{MMPermissions, MMapPath, Process};

use crate::telemetry::profile::Frame;
use crate::witness::probe::sampling::{Mapped, Sample, copy_own};

/// Functions of a stack; deeper stacks are cut off.
const FRAMES_MAX: usize = 256;
/// Stands for the missing rest of a stack that is cut off.
const CUT_OFF: &str = "(stack cut off here)";

type Unwinder = UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;

/// Addresses on a stack, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    addresses: Vec<u64>,
    is_whole: bool,
}

/// The code of this process; see the head of this file.
pub struct Code {
    files: Vec<Loaded>,
    unwinder: Unwinder,
    cache: CacheNative<MayAllocateDuringUnwind>,
}

/// A file with loaded code.
struct Loaded {
    /// Last part of its path.
    name: Arc<str>,
    addresses: Range<u64>,
    /// Memory addresses less addresses in the file.
    bias: u64,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mapped),
    Copied(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(bytes) => bytes,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

impl Code {
    /// Reads the code as it is loaded now. A file that can't be read or parsed is skipped: its functions then have no
    /// names, and stacks below them may be cut off.
    pub fn load() -> anyhow::Result<Code> {
        let mut code = Code { files: Vec::new(), unwinder: Unwinder::new(), cache: CacheNative::new() };
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        for map in Process::myself()?.maps()?.iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        {
            let addresses = map.address.0..map.address.1;
            let opened = match &map.pathname {
                // This path works even if the program's own path leads to a newer file.
                MMapPath::Path(path) if *path == program => mapped("/proc/self/exe".as_ref()),
                MMapPath::Path(path) => mapped(path),
                MMapPath::Vdso => Ok(copied(&addresses)),
                _ => continue,
            };
            let name = match &map.pathname {
                MMapPath::Path(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                _ => "the kernel's vDSO".to_owned(),
            };
            let added = opened.and_then(|bytes| code.add(&name, addresses, map.offset, bytes));
            if let Err(error) = added {
                tracing::debug!("profile: {name} is left out: {error:#}");
            }
        }
        Ok(code)
    }

    fn add(&mut self, name: &str, addresses: Range<u64>, offset: u64, bytes: Bytes) -> anyhow::Result<()> {
        let elf = object::File::parse(bytes.get())?;
        let is_here = |segment: &object::Segment<'_, '_>| {
            let (from, len) = segment.file_range();
            // The segment's first page may hold the end of the previous one, which is loaded elsewhere.
            let SegmentFlags::Elf { p_flags } = segment.flags() else { return false };
            if p_flags & object::elf::PF_X == 0 {
                return false;
            }
            // A mapping begins at a page, which may be before its segment.
            offset + (addresses.end - addresses.start) > from && offset < from + len
        };
        let segment = elf.segments().find(is_here).context("no segment of it is loaded there")?;
        // Where the mapping begins, as an address in the file.
        let start = (segment.address() + offset).wrapping_sub(segment.file_range().0);
        let bias = addresses.start.wrapping_sub(start);
        let data = |name: &str| Some(elf.section_by_name(name)?.data().ok()?.to_vec());
        let range = |name: &str| {
            let section = elf.section_by_name(name)?;
            Some(section.address()..section.address() + section.size())
        };
        let sections = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: range(".text"),
            text: data(".text"),
            got_svma: range(".got"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        };
        self.unwinder.add_module(Module::new(name.to_owned(), addresses.clone(), bias, sections));
        self.files.push(Loaded { name: name.into(), addresses, bias, bytes });
        Ok(())
    }

    /// The addresses on the stack of a sample.
    pub fn unwind(&mut self, sample: &Sample) -> Seen {
        let [instruction, stack, frame, link] = sample.registers;
        #[cfg(target_arch = "x86_64")]
        let registers = UnwindRegsNative::new(instruction, stack, frame + link);
        #[cfg(target_arch = "aarch64")]
        let registers = UnwindRegsNative::new(link, stack, frame);
        let mut read = |address| sample.word(address).ok_or(());
        let mut frames = self.unwinder.iter_frames(instruction, registers, &mut self.cache, &mut read);
        let mut seen = Seen { addresses: Vec::new(), is_whole: false };
        while seen.addresses.len() < FRAMES_MAX {
            match frames.next() {
                Ok(Some(frame)) => seen.addresses.push(frame.address_for_lookup()),
                Ok(None) => {
                    seen.is_whole = true;
                    break;
                }
                Err(_) => break,
            }
        }
        seen
    }

    /// Resolves addresses to names.
    pub fn names(&self) -> Names<'_> {
        let files = self.files.iter().map(NamedFile::new).collect();
        Names { files, known: RefCell::default() }
    }
}

fn mapped(path: &Path) -> anyhow::Result<Bytes> {
    Ok(Bytes::Mapped(Mapped::new(&File::open(path)?)?))
}

/// Copies bytes from memory as if they were read from a file.
fn copied(addresses: &Range<u64>) -> Bytes {
    let mut bytes = vec![0; (addresses.end - addresses.start) as usize];
    let len = copy_own(addresses.start, &mut bytes);
    bytes.truncate(len);
    Bytes::Copied(bytes)
}

type Slice<'a> = EndianSlice<'a, NativeEndian>;

struct NamedFile<'a> {
    file: &'a Loaded,
    lines: Option<addr2line::Context<Slice<'a>>>,
    symbols: Option<SymbolMap<SymbolMapName<'a>>>,
}

impl<'a> NamedFile<'a> {
    fn new(file: &'a Loaded) -> NamedFile<'a> {
        let elf = object::File::parse(file.bytes.get()).ok();
        let lines = elf.as_ref().filter(|elf| elf.has_debug_symbols()).and_then(|elf| {
            let section = |id: addr2line::gimli::SectionId| {
                let section = elf.section_by_name(id.name());
                let data = section.and_then(|section| section.data().ok()).unwrap_or_default();
                Ok::<_, addr2line::gimli::Error>(EndianSlice::new(data, NativeEndian))
            };
            addr2line::Context::from_dwarf(Dwarf::load(section).ok()?).ok()
        });
        NamedFile { file, lines, symbols: elf.map(|elf| elf.symbol_map()) }
    }

    /// The functions at an address, innermost first: inlined functions, then the function they are in.
    fn frames(&self, address: u64) -> Vec<Frame> {
        let probe = address.wrapping_sub(self.file.bias);
        let mut frames = Vec::new();
        if let Some(lines) = &self.lines
            && let Ok(mut found) = lines.find_frames(probe).skip_all_loads()
        {
            while let Ok(Some(frame)) = found.next() {
                let name = frame.function.as_ref().and_then(|function| function.demangle().ok());
                let Some(name) = name else { continue };
                let location = frame.location.as_ref();
                let file = location.and_then(|location| location.file).unwrap_or_default();
                frames.push(Frame {
                    name: qualified(&name, file).into(),
                    file: file.into(),
                    line: location.and_then(|location| location.line).unwrap_or_default(),
                });
            }
        }
        let symbol = self.symbols.as_ref().and_then(|symbols| symbols.containing(probe));
        let symbol = symbol.map(|symbol| addr2line::demangle_auto(symbol.name().into(), None));
        match (frames.last_mut(), symbol) {
            // The function that was called has a symbol with its whole path.
            (Some(called), Some(name)) => called.name = (*name).into(),
            (Some(_), None) => {}
            (None, Some(name)) => frames.push(Frame { name: (*name).into(), ..Frame::default() }),
            (None, None) => frames.push(Frame { name: Arc::clone(&self.file.name), ..Frame::default() }),
        }
        frames
    }
}

/// The debug information in releases names an inlined function without its path. In Rust the file's path mostly gives
/// it: `/x/hyper-1.6.0/src/proto/h1/io.rs` is `hyper::proto::h1::io`.
fn qualified(name: &str, file: &str) -> String {
    let plain = name.split(['<', '{']).next().unwrap_or_default();
    let module = || {
        let (package, path) = file.strip_suffix(".rs")?.rsplit_once("/src/")?;
        let package = package.rsplit('/').next()?;
        let is_version = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        let package =
            package.rsplit_once('-').filter(|(_, rest)| is_version(rest)).map_or(package, |at| at.0);
        let parts = path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main"));
        Some(std::iter::once(package).chain(parts).collect::<Vec<_>>().join("::").replace('-', "_"))
    };
    match module() {
        Some(module) if !plain.contains("::") => format!("{module}::{name}"),
        _ => name.to_owned(),
    }
}

/// Resolves addresses; see [`Code::names`].
pub struct Names<'a> {
    files: Vec<NamedFile<'a>>,
    known: RefCell<HashMap<u64, Vec<Frame>>>,
}

impl Names<'_> {
    /// The functions on a stack, outermost first.
    pub fn of(&self, seen: &Seen) -> Vec<Frame> {
        let mut known = self.known.borrow_mut();
        let mut frames = Vec::new();
        for address in &seen.addresses {
            frames.extend_from_slice(known.entry(*address).or_insert_with(|| self.at(*address)));
        }
        if !seen.is_whole {
            frames.push(Frame { name: CUT_OFF.into(), ..Frame::default() });
        }
        frames.reverse();
        frames
    }

    fn at(&self, address: u64) -> Vec<Frame> {
        match self.files.iter().find(|named| named.file.addresses.contains(&address)) {
            Some(named) => named.frames(address),
            None => vec![Frame { name: "(not in any file)".into(), ..Frame::default() }],
        }
    }

    /// What the program lacks for better profiles; empty = nothing.
    pub fn note(&self) -> String {
        // The first file is the program itself.
        let Some(program) = self.files.first() else { return "no file of code could be read".to_owned() };
        let has_symbols = program.symbols.as_ref().is_some_and(|symbols| !symbols.symbols().is_empty());
        match (&program.lines, has_symbols) {
            (Some(_), _) => String::new(),
            (None, true) => {
                "this program has no debug information: inlined functions are not shown".to_owned()
            }
            (None, false) => "this program was stripped: use one with its symbols to see names".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_where_its_functions_are() {
        for (name, file, expected) in [
            ("run", "capturer/src/sink/runtime.rs", "capturer::sink::runtime::run"),
            ("run", "/a/capturer/src/agent/mod.rs", "capturer::agent::run"),
            ("poll<a::B>", "/r/hyper-1.6.0/src/proto/h1/io.rs", "hyper::proto::h1::io::poll<a::B>"),
            ("{closure#0}", "/r/tokio-util-0.7.1/src/lib.rs", "tokio_util::{closure#0}"),
            ("a::b", "/r/hyper-1.6.0/src/proto.rs", "a::b"),
            ("malloc", "/glibc/malloc/malloc.c", "malloc"),
            ("x", "", "x"),
        ] {
            assert_eq!(qualified(name, file), expected);
        }
    }
}
