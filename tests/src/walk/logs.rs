//! The logs of a walk on a real disk: their writers, names and content.
//!
//! A file's content is read from the disk whenever it is needed. Only what the disk can't tell is kept here: which name
//! is which file, which line comes next, and what the agent knew of a file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::action::{Length, Log, Setup, Writer};
use super::line::LineId;
use super::names::{STEMS, Scheme, live_name};

/// A file, whatever it is called: an index that is never used again.
pub type FileId = usize;

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The one that is written.
    Live(Log),
    /// A rotated one; the last part says whether it is compressed.
    Rotated(Log, Scheme, u32, bool),
    /// Outside of the folder.
    Aside(Log),
}

/// What is known of a file beside its content.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileInfo {
    /// The content that is written to it.
    text: u16,
    /// A line was begun: so many of its bytes are written.
    part: Option<usize>,
    /// It was in sight when everything in sight had arrived, with at least a line: the agent has read it.
    pub known: bool,
    /// What the agent has read stood in it then, and was not copied since. If it is overwritten, the agent can tell. After a
    /// copytruncate it finds all it knew in the copy: what was written since and is overwritten leaves no trace.
    pub tells_loss: bool,
    /// The agent's run that certainly has it open: it was live when everything in sight had arrived.
    pub open_in: Option<u32>,
    /// The run of the agent that was there when the file came.
    pub born_in: Option<u32>,
    /// The file's log was followed when the file came.
    pub born_followed: bool,
}

/// An open file of a writer.
struct Open {
    handle: File,
    file: FileId,
}

/// All logs of a walk.
pub struct Logs {
    folder: PathBuf,
    away: PathBuf,
    aside: PathBuf,
    setup: Setup,
    /// The folder of the logs is not in its place.
    pub is_away: bool,
    /// Which names there are.
    pub names: BTreeMap<Place, FileId>,
    /// By [`FileId`].
    pub files: Vec<FileInfo>,
    /// The number of the next line, by text.
    next: Vec<u16>,
    live: [Option<Open>; STEMS.len()],
    /// What a writer had open before the last rotation.
    old: [Option<Open>; STEMS.len()],
    /// The last day in a rotated name.
    days: [u32; STEMS.len()],
    /// Each log was seen by the agent, with everything in it.
    pub followed: [bool; STEMS.len()],
    /// The agent's run that would see a new file, if any.
    pub watched_by: Option<u32>,
    /// Lines that were written whole since this was emptied last.
    pub fresh: Vec<LineId>,
    /// Lines that were begun since this was emptied last.
    pub begun: Vec<LineId>,
    /// A line that was begun will never be whole.
    pub broke_a_line: bool,
    /// A file has a hole.
    pub has_hole: bool,
}

impl Logs {
    /// None yet, in `root`.
    pub fn new(root: &Path, setup: Setup) -> Result<Logs> {
        let (folder, aside) = (root.join("logs"), root.join("aside"));
        fs::create_dir_all(folder.join("old"))?;
        fs::create_dir_all(&aside)?;
        Ok(Logs {
            folder,
            aside,
            away: root.join("logs-away"),
            setup,
            is_away: false,
            names: BTreeMap::new(),
            files: Vec::new(),
            next: Vec::new(),
            live: [None, None, None],
            old: [None, None, None],
            days: [0; STEMS.len()],
            followed: [false; STEMS.len()],
            watched_by: None,
            fresh: Vec::new(),
            begun: Vec::new(),
            broke_a_line: false,
            has_hole: false,
        })
    }

    /// The folder that patterns look into.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name without its folder.
    pub fn name(place: Place) -> String {
        match place {
            Place::Live(log) | Place::Aside(log) => live_name(STEMS[log]),
            Place::Rotated(log, scheme, index, compressed) => {
                scheme.name(STEMS[log], index) + if compressed { ".gz" } else { "" }
            }
        }
    }

    fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::Aside(_) => self.aside.join(Logs::name(place)),
            _ if self.is_away => self.away.join(Logs::name(place)),
            _ => self.folder.join(Logs::name(place)),
        }
    }

    /// The whole lines in a file.
    pub fn lines_at(&self, place: Place) -> Result<Vec<LineId>> {
        let mut bytes = fs::read(self.path(place))?;
        if let Place::Rotated(_, _, _, true) = place {
            let packed = std::mem::take(&mut bytes);
            GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
        }
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.split('\n').filter_map(|line| LineId::of(line.trim_start_matches('\0'))).collect())
    }

    /// Whether the agent must look at this name.
    pub fn is_seen(&self, place: Place) -> bool {
        let Place::Rotated(log, scheme, _, compressed) = place else {
            return matches!(place, Place::Live(_)) && !self.is_away;
        };
        if self.is_away {
            return false;
        }
        let matched = self.setup.pattern.matches(&Logs::name(place));
        if matched && !compressed {
            return true;
        }
        // What is only a rotated file of its log is read with that. One that is older than the agent's knowledge of the log
        // is not, unless a pattern matches it.
        let file = &self.files[self.names[&place]];
        let owed = matched
            || file.known
            || file.born_followed
            || (file.born_in.is_some() && file.born_in == self.watched_by);
        scheme.is_kin() && owed && self.names.contains_key(&Place::Live(log))
    }

    fn new_file(&mut self, log: Log, text: Option<u16>) -> FileId {
        let text = text.unwrap_or_else(|| self.new_text());
        let born_in = self.watched_by.filter(|_| !self.is_away);
        self.files.push(FileInfo { text, born_in, born_followed: self.followed[log], ..FileInfo::default() });
        self.files.len() - 1
    }

    fn new_text(&mut self) -> u16 {
        self.next.push(0);
        (self.next.len() - 1) as u16
    }

    /// A copy of a file: what is known of the one is known of the other.
    fn copy_of(&mut self, file: FileId) -> FileId {
        self.files.push(FileInfo { open_in: None, ..self.files[file] });
        self.files.len() - 1
    }

    fn open(&self, place: Place, file: FileId) -> Result<Open> {
        let Place::Live(log) = place else { unreachable!("only live files are opened") };
        let path = self.path(place);
        let handle = if self.setup.writers[log] == Writer::Offset {
            let mut handle = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
            handle.seek(SeekFrom::End(0))?;
            handle
        } else {
            OpenOptions::new().create(true).append(true).open(path)?
        };
        Ok(Open { handle, file })
    }

    /// Makes sure that there is a live file that is open.
    fn open_live(&mut self, log: Log) -> Result<bool> {
        let place = Place::Live(log);
        if self.live[log].is_some() {
            return Ok(true);
        }
        if self.is_away {
            return Ok(false);
        }
        let file = match self.names.get(&place) {
            Some(file) => *file,
            None => self.new_file(log, None),
        };
        self.live[log] = Some(self.open(place, file)?);
        self.names.insert(place, file);
        Ok(true)
    }

    fn write(&mut self, log: Log, old: bool, lines: u32, part: bool) -> Result<()> {
        let slot = if old { &mut self.old[log] } else { &mut self.live[log] };
        let Some(open) = slot else { return Ok(()) };
        let info = &mut self.files[open.file];
        let next = &mut self.next[usize::from(info.text)];
        for _ in 0..lines {
            let id = LineId { text: info.text, number: *next };
            let line = id.line() + "\n";
            let from = info.part.take().unwrap_or(0);
            open.handle.write_all(&line.as_bytes()[from..])?;
            self.fresh.push(id);
            *next += 1;
        }
        if part && info.part.is_none() {
            let id = LineId { text: info.text, number: *next };
            let half = id.line().len() / 2 + 5;
            open.handle.write_all(&id.line().as_bytes()[..half])?;
            info.part = Some(half);
            self.begun.push(id);
        }
        Ok(())
    }

    /// Lines for the live file.
    pub fn append(&mut self, log: Log, lines: u32, part: bool) -> Result<bool> {
        if !self.open_live(log)? {
            return Ok(false);
        }
        self.write(log, false, lines, part)?;
        if self.setup.writers[log] == Writer::Each {
            self.live[log] = None;
        }
        Ok(true)
    }

    /// Lines for the file that was live before the last rotation.
    pub fn late(&mut self, log: Log, lines: u32) -> Result<bool> {
        if self.old[log].is_none() {
            return Ok(false);
        }
        self.write(log, true, lines, false)?;
        Ok(true)
    }

    /// An empty live file.
    pub fn create(&mut self, log: Log) -> Result<bool> {
        if self.is_away || self.names.contains_key(&Place::Live(log)) {
            return Ok(false);
        }
        self.live[log] = None;
        self.append(log, 0, false)
    }

    /// Whether there is a live file in its place, and which.
    fn there(&self, log: Log) -> Option<FileId> {
        if self.is_away { None } else { self.names.get(&Place::Live(log)).copied() }
    }

    /// Frees the rotated name that comes next: older files move on, or the day is the next one.
    fn next_name(&mut self, log: Log, scheme: Scheme) -> Result<Place> {
        if !scheme.shifts() {
            self.days[log] += 1;
            let place = Place::Rotated(log, scheme, self.days[log], false);
            // `app.log.old` takes the place of the one before.
            let same =
                self.names.keys().copied().find(|other| {
                    matches!(other, Place::Rotated(..)) && Logs::name(*other) == Logs::name(place)
                });
            if let Some(same) = same {
                self.forget(same);
            }
            return Ok(place);
        }
        let mut places: Vec<Place> = self.names.keys().copied().collect();
        places.retain(|place| matches!(place, Place::Rotated(l, s, ..) if (*l, *s) == (log, scheme)));
        // The highest number first, so that none is overwritten.
        for place in places.into_iter().rev() {
            let Place::Rotated(log, scheme, index, compressed) = place else { continue };
            self.rename(place, Place::Rotated(log, scheme, index + 1, compressed))?;
        }
        Ok(Place::Rotated(log, scheme, 1, false))
    }

    fn rename(&mut self, from: Place, to: Place) -> Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        if let Some(file) = self.names.remove(&from) {
            self.forget(to);
            self.names.insert(to, file);
        }
        Ok(())
    }

    /// The name is gone from the disk, or another file has it.
    fn forget(&mut self, place: Place) {
        let Some(file) = self.names.remove(&place) else { return };
        if !self.names.values().any(|other| *other == file) {
            self.broke_a_line |= self.files[file].part.is_some();
        }
    }

    /// The live file gets a rotated name.
    pub fn rotate(&mut self, log: Log, scheme: Scheme, create: bool) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        let place = self.next_name(log, scheme)?;
        let open = match self.live[log].take() {
            Some(open) => open,
            None => self.open(Place::Live(log), file)?,
        };
        self.old[log] = Some(open);
        self.rename(Place::Live(log), place)?;
        if create {
            self.create(log)?;
        }
        Ok(true)
    }

    fn copy_to(&mut self, log: Log, file: FileId, to: Place) -> Result<()> {
        fs::copy(self.path(Place::Live(log)), self.path(to))?;
        let copy = self.copy_of(file);
        self.names.insert(to, copy);
        Ok(())
    }

    /// A copy gets a rotated name.
    pub fn copy(&mut self, log: Log, scheme: Scheme) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        // Half a line in the copy is no line. And which of two equal files was first can only be told by who saw one before.
        if self.files[file].part.is_some() || !self.files[file].known {
            return Ok(false);
        }
        let to = self.next_name(log, scheme)?;
        self.copy_to(log, file, to)?;
        Ok(true)
    }

    /// A copy gets a rotated name, and the live file is emptied.
    pub fn copy_truncate(&mut self, log: Log, scheme: Scheme, torn: bool) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        let to = self.next_name(log, scheme)?;
        self.copy_to(log, file, to)?;
        if torn {
            self.append(log, 1, false)?;
        }
        self.files[file].tells_loss = false;
        self.truncate(log)
    }

    /// The live file is emptied. Who has it open writes on where he stood.
    pub fn truncate(&mut self, log: Log) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        let path = self.path(Place::Live(log));
        self.has_hole |= self.setup.writers[log] == Writer::Offset
            && self.live[log].is_some()
            && fs::metadata(&path)?.len() > 0;
        OpenOptions::new().write(true).truncate(true).open(path)?;
        self.new_content(file);
        Ok(true)
    }

    fn new_content(&mut self, file: FileId) {
        let text = self.new_text();
        let info = &mut self.files[file];
        self.broke_a_line |= info.part.take().is_some();
        info.text = text;
    }

    /// A second name for the live file.
    pub fn link(&mut self, log: Log, scheme: Scheme) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        let to = self.next_name(log, scheme)?;
        // As `ln -f`.
        let path = self.path(to);
        let _ = fs::remove_file(&path);
        fs::hard_link(self.path(Place::Live(log)), path)?;
        self.names.insert(to, file);
        Ok(true)
    }

    fn rotated(&self, log: Log) -> Vec<Place> {
        let mut places: Vec<Place> = self.names.keys().copied().collect();
        places.retain(|place| matches!(place, Place::Rotated(l, ..) if *l == log));
        // By the time at which they were made.
        places.sort_by_key(|place| self.names[place]);
        places
    }

    /// As gzip: the new file is whole before the old one goes, and has its time.
    pub fn gzip(&mut self, log: Log) -> Result<bool> {
        let plain =
            self.rotated(log).into_iter().rev().find(|place| !matches!(place, Place::Rotated(.., true)));
        let Some(place @ Place::Rotated(_, scheme, index, _)) = plain.filter(|_| !self.is_away) else {
            return Ok(false);
        };
        let file = self.names[&place];
        // gzip refuses what has other names. And who compresses what is still written loses lines by his own hand.
        if self.names.values().filter(|other| **other == file).count() > 1
            || self.names.contains_key(&Place::Rotated(log, scheme, index, true))
        {
            return Ok(false);
        }
        self.old[log].take_if(|open| open.file == file);
        let from = self.path(place);
        let to = Place::Rotated(log, scheme, index, true);
        let mut encoder = GzEncoder::new(File::create(self.path(to))?, Compression::fast());
        encoder.write_all(&fs::read(&from)?)?;
        encoder.finish()?.set_modified(fs::metadata(&from)?.modified()?)?;
        let copy = self.copy_of(file);
        self.names.insert(to, copy);
        self.remove(place)?;
        Ok(true)
    }

    fn remove(&mut self, place: Place) -> Result<()> {
        fs::remove_file(self.path(place))?;
        self.forget(place);
        Ok(())
    }

    /// The oldest rotated file goes.
    pub fn prune(&mut self, log: Log) -> Result<bool> {
        let Some(place) = self.rotated(log).first().copied().filter(|_| !self.is_away) else {
            return Ok(false);
        };
        let file = self.names[&place];
        self.old[log].take_if(|open| open.file == file);
        self.remove(place)?;
        Ok(true)
    }

    /// The live file goes, and its writer opens another.
    pub fn unlink(&mut self, log: Log) -> Result<bool> {
        if self.there(log).is_none() {
            return Ok(false);
        }
        self.live[log] = None;
        self.remove(Place::Live(log))?;
        Ok(true)
    }

    /// Other content in the same file.
    pub fn rewrite(&mut self, log: Log, length: Length, emptied: bool) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        self.live[log] = None;
        let before = self.lines_at(Place::Live(log))?.len() as u16;
        self.new_content(file);
        let lines = match length {
            Length::Shorter => before / 2,
            Length::Same => before,
            Length::Longer => before + 4,
        };
        let text = self.files[file].text;
        let ids: Vec<LineId> = (0..lines).map(|number| LineId { text, number }).collect();
        let content: String = ids.iter().map(|id| id.line() + "\n").collect();
        let mut handle =
            OpenOptions::new().write(true).truncate(emptied).open(self.path(Place::Live(log)))?;
        handle.write_all(content.as_bytes())?;
        handle.set_len(content.len() as u64)?;
        self.next[usize::from(text)] = lines;
        self.fresh.extend(ids);
        Ok(true)
    }

    /// Another file takes the live one's name, with content of its own or the same.
    pub fn replace(&mut self, log: Log, same: bool) -> Result<bool> {
        let Some(file) = self.there(log) else { return Ok(false) };
        // If the old file stays under another name, there are two with the same lines, and each may be a log of its own.
        let stays = self.names.iter().any(|(place, other)| *place != Place::Live(log) && *other == file);
        if same && stays {
            return Ok(false);
        }
        self.live[log] = None;
        let draft = self.aside.join("draft");
        if same {
            fs::copy(self.path(Place::Live(log)), &draft)?;
        } else {
            File::create(&draft)?;
        }
        fs::rename(draft, self.path(Place::Live(log)))?;
        let new = if same { self.copy_of(file) } else { self.new_file(log, None) };
        if same {
            // It goes on in the copy.
            self.files[file].part = None;
        }
        self.forget(Place::Live(log));
        self.names.insert(Place::Live(log), new);
        Ok(true)
    }

    /// The live file goes where no pattern looks.
    pub fn move_away(&mut self, log: Log) -> Result<bool> {
        if self.there(log).is_none() || self.names.contains_key(&Place::Aside(log)) {
            return Ok(false);
        }
        self.live[log] = None;
        self.rename(Place::Live(log), Place::Aside(log))?;
        Ok(true)
    }

    /// It comes back.
    pub fn move_back(&mut self, log: Log) -> Result<bool> {
        if self.is_away || self.there(log).is_some() || !self.names.contains_key(&Place::Aside(log)) {
            return Ok(false);
        }
        self.rename(Place::Aside(log), Place::Live(log))?;
        Ok(true)
    }

    /// The folder goes, or comes back.
    pub fn move_folder(&mut self, away: bool) -> Result<bool> {
        if self.is_away == away {
            return Ok(false);
        }
        let (from, to) = if away { (&self.folder, &self.away) } else { (&self.away, &self.folder) };
        fs::rename(from, to)?;
        self.is_away = away;
        Ok(true)
    }
}
