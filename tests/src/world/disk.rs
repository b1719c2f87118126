//! A simulated disk: names, inodes and open files. An inode without name and open file is freed, and its number comes
//! back with the next file, as it does on real file systems; the lines in it are then gone from the host.
//!
//! Not here: who writes (writers.rs, paths.rs) and who reads (shell.rs).

use std::collections::{BTreeMap, BTreeSet};

use capturer::testing::limits::HEAD_BYTES;
use capturer::testing::{DeniedFile, FileError, FileId, FoundFile, FoundPath};

use crate::checker::LineId;

/// A file whatever its name and number: never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(u64);

#[derive(Debug)]
pub(super) struct File {
    inode: u64,
    birth_ns: i64,
    /// Of an archive: the content it unpacks to.
    pub(super) content: Vec<u8>,
    compressed: bool,
    name: Option<String>,
    opens: u32,
    /// Lines with a piece in it, in order of writing.
    pub(super) lines: Vec<LineId>,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    files: BTreeMap<Node, File>,
    names: BTreeMap<String, Node>,
    directories: BTreeSet<String>,
    free_inodes: Vec<u64>,
    last: u64,
    /// Files that the agent may not read.
    pub(super) denied: BTreeSet<Node>,
    /// statx tells no birth times here.
    pub(super) no_birth_times: bool,
}

impl Disk {
    pub(super) fn make_directory(&mut self, directory: &str) {
        self.directories.insert(directory.to_owned());
    }

    pub(super) fn remove_directory(&mut self, directory: &str) {
        self.directories.remove(directory);
    }

    pub(super) fn has_directory(&self, directory: &str) -> bool {
        self.directories.contains(directory)
    }

    pub(super) fn create(&mut self, path: &str, now_ns: i64) -> Node {
        assert!(!self.names.contains_key(path), "{path} is there already");
        self.last += 1;
        let node = Node(self.last);
        let inode = self.free_inodes.pop().unwrap_or(1_000 + self.last);
        let birth_ns = if self.no_birth_times { 0 } else { now_ns };
        let file = File {
            inode,
            birth_ns,
            content: Vec::new(),
            compressed: false,
            name: Some(path.to_owned()),
            opens: 0,
            lines: Vec::new(),
        };
        self.files.insert(node, file);
        self.names.insert(path.to_owned(), node);
        node
    }

    /// The archive of a file's content, which the lines move into.
    pub(super) fn create_archive(&mut self, of: Node, path: &str, now_ns: i64) {
        let node = self.create(path, now_ns);
        let Some(original) = self.files.get_mut(&of) else { return };
        let (content, lines) = (original.content.clone(), std::mem::take(&mut original.lines));
        let Some(archive) = self.files.get_mut(&node) else { return };
        (archive.content, archive.lines, archive.compressed) = (content, lines, true);
    }

    pub(super) fn node(&self, path: &str) -> Option<Node> {
        self.names.get(path).copied()
    }

    /// Where it is now.
    pub(super) fn path(&self, node: Node) -> Option<String> {
        self.files.get(&node).and_then(|file| file.name.clone())
    }

    pub(super) fn file(&self, node: Node) -> &File {
        &self.files[&node]
    }

    pub(super) fn file_mut(&mut self, node: Node) -> &mut File {
        self.files.get_mut(&node).expect("a node in use is on the disk")
    }

    /// Returns lines that are gone with what stood at `to`.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Vec<LineId> {
        let Some(node) = self.names.remove(from) else { return Vec::new() };
        let gone = self.unlink(to);
        self.names.insert(to.to_owned(), node);
        self.file_mut(node).name = Some(to.to_owned());
        gone
    }

    /// Returns lines that are gone with it.
    pub(super) fn unlink(&mut self, path: &str) -> Vec<LineId> {
        let Some(node) = self.names.remove(path) else { return Vec::new() };
        self.file_mut(node).name = None;
        self.free_if_unused(node)
    }

    /// Cuts to nothing; returns the lines that were in it.
    pub(super) fn truncate(&mut self, node: Node) -> Vec<LineId> {
        let file = self.file_mut(node);
        file.content.clear();
        std::mem::take(&mut file.lines)
    }

    pub(super) fn open(&mut self, node: Node) {
        self.file_mut(node).opens += 1;
    }

    pub(super) fn close(&mut self, node: Node) -> Vec<LineId> {
        self.file_mut(node).opens -= 1;
        self.free_if_unused(node)
    }

    fn free_if_unused(&mut self, node: Node) -> Vec<LineId> {
        let file = &self.files[&node];
        if file.name.is_some() || file.opens > 0 {
            return Vec::new();
        }
        let file = self.files.remove(&node).expect("just looked at");
        self.free_inodes.push(file.inode);
        file.lines
    }

    pub(super) fn found(&self, path: &str, rank: u32, compressed: bool) -> Option<FoundFile> {
        let file = &self.files[self.names.get(path)?];
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let len = file.content.len();
        Some(FoundFile {
            name: name.to_owned(),
            rank,
            compressed,
            id: FileId { device: 7, inode: file.inode, birth_ns: file.birth_ns },
            len: if file.compressed { len / 3 + 20 } else { len } as u64,
            head: file.content[..len.min(HEAD_BYTES)].to_vec(),
            unpacked_len: file.compressed.then_some(len as u32),
            modified_ns: file.birth_ns,
        })
    }

    /// The live file, its rotated kin, and what is wanted whatever its name.
    pub(super) fn scan(&self, directory: &str, live_name: &str, wanted: &[FileId]) -> Vec<FoundFile> {
        let (within, live) = (format!("{directory}/"), format!("{directory}/{live_name}"));
        let names = self.names.range(within.clone()..).take_while(|(path, _)| path.starts_with(&within));
        names
            .filter_map(|(path, _)| match path.strip_prefix(&live).and_then(rank_of) {
                Some((rank, compressed)) => self.found(path, rank, compressed),
                None => self
                    .found(path, FoundFile::RANK_UNKNOWN, false)
                    .filter(|file| wanted.iter().any(|id| id.can_be(file.id))),
            })
            .collect()
    }

    /// Takes those out that the agent may not read.
    pub(super) fn take_denied(&self, directory: &str, found: &mut Vec<FoundFile>) -> Vec<DeniedFile> {
        let path = |file: &FoundFile| format!("{directory}/{}", file.name);
        let is_denied = |file: &mut FoundFile| {
            file.rank > 0 && self.node(&path(file)).is_some_and(|node| self.denied.contains(&node))
        };
        let taken = found.extract_if(.., is_denied);
        let denied = |file: FoundFile| DeniedFile {
            error: FileError::Denied(path(&file)),
            found: FoundFile { head: Vec::new(), unpacked_len: None, ..file },
        };
        taken.map(denied).collect()
    }

    /// Files directly in a directory with this ending.
    pub(super) fn matching(&self, directory: &str, ending: &str) -> Vec<FoundPath> {
        let within = |path: &&String| {
            path.rsplit_once('/').is_some_and(|(parent, name)| parent == directory && name.ends_with(ending))
        };
        let found = |path: &String| {
            let FoundFile { id, len, modified_ns, .. } = self.found(path, 0, false)?;
            Some(FoundPath { path: path.as_str().into(), id, target: None, len, modified_ns })
        };
        self.names.keys().filter(within).filter_map(found).collect()
    }
}

/// What follows the live file's name: nothing, `.N` or `.N.gz`.
fn rank_of(ending: &str) -> Option<(u32, bool)> {
    if ending.is_empty() {
        return Some((0, false));
    }
    let digits = ending.strip_prefix('.')?;
    let (digits, compressed) = digits.strip_suffix(".gz").map_or((digits, false), |digits| (digits, true));
    Some((digits.parse().ok()?, compressed))
}
