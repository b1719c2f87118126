//! A crash at every step of a save, damage to every file, and who may use the directory.

use std::fs;

use super::*;
use crate::capture::checkpoint::encode;
use crate::capture::checkpoint::tests::sample;

/// Records the steps, and stops before one of them as a crash would.
struct Recorder {
    dir: Dir,
    steps: Vec<String>,
    crash_at: usize,
}

impl Recorder {
    fn new(path: &Path, crash_at: usize) -> Recorder {
        Recorder { dir: Dir::open(path).unwrap(), steps: Vec::new(), crash_at }
    }

    fn step(&mut self, name: String) -> Result<(), StoreError> {
        if self.steps.len() == self.crash_at {
            return Err(self.dir.error("crashing before", &name, io::Error::other("crash")));
        }
        self.steps.push(name);
        Ok(())
    }
}

impl Disk for Recorder {
    fn remove(&mut self, name: &'static str) -> Result<(), StoreError> {
        self.step(format!("remove {name}"))?;
        self.dir.remove(name)
    }
    fn create(&mut self, name: &'static str) -> Result<File, StoreError> {
        self.step(format!("create {name}"))?;
        self.dir.create(name)
    }
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> Result<(), StoreError> {
        // A crash during the write leaves part of it.
        if self.steps.len() == self.crash_at {
            self.dir.write(file, &bytes[..bytes.len() / 2])?;
        }
        self.step("write".to_owned())?;
        self.dir.write(file, bytes)
    }
    fn sync_file(&mut self, file: &File) -> Result<(), StoreError> {
        self.step("fsync file".to_owned())?;
        self.dir.sync_file(file)
    }
    fn rename(&mut self, from: &'static str, to: &'static str) -> Result<(), StoreError> {
        self.step(format!("rename {from} {to}"))?;
        self.dir.rename(from, to)
    }
    fn sync_dir(&mut self) -> Result<(), StoreError> {
        self.step("fsync dir".to_owned())?;
        self.dir.sync_dir()
    }
}

const STEPS: [&str; 7] = [
    "remove checkpoint.json.new",
    "create checkpoint.json.new",
    "write",
    "fsync file",
    "rename checkpoint.json checkpoint.json.previous",
    "rename checkpoint.json.new checkpoint.json",
    "fsync dir",
];

/// A checkpoint that differs from those with other numbers.
fn numbered(n: u64) -> Checkpoint {
    let mut checkpoint = sample();
    let marks = checkpoint.outputs.get_mut("local_file").unwrap();
    marks.get_mut("web.ndjson").unwrap().len_bytes = n;
    checkpoint
}

fn number_of(checkpoint: &Checkpoint) -> u64 {
    checkpoint.outputs.get("local_file").map_or(0, |marks| marks["web.ndjson"].len_bytes)
}

fn save_number(dir: &Path, n: u64) {
    save(dir, &encode(&numbered(n))).unwrap();
}

#[test]
fn bytes_reach_the_disk_before_the_name_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Recorder::new(dir.path(), usize::MAX);
    save_on(&mut disk, &encode(&sample())).unwrap();
    assert_eq!(disk.steps, STEPS);
}

#[test]
fn nothing_there_is_empty_and_no_note() {
    let dir = tempfile::tempdir().unwrap();
    let report = load(&dir.path().join("made/anew")).unwrap();
    assert_eq!(report.checkpoint, Checkpoint::default());
    assert!(report.notes.is_empty());
}

#[test]
fn saved_is_loaded_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        save_number(dir.path(), n);
        let report = load(dir.path()).unwrap();
        assert_eq!(number_of(&report.checkpoint), n);
        assert!(report.notes.is_empty());
    }
    let mode = fs::metadata(dir.path().join(CURRENT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join(NEW).exists());
}

/// Crash before each step of the first, second and third save: the start finds the previous or the new checkpoint,
/// never another and never none, and the next save works.
#[test]
fn a_crash_at_any_step_leaves_a_whole_checkpoint() {
    for saves_before in 0..3 {
        for (crash_at, step) in STEPS.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            for n in 1..=saves_before {
                save_number(dir.path(), n);
            }
            let mut disk = Recorder::new(dir.path(), crash_at);
            save_on(&mut disk, &encode(&numbered(saves_before + 1))).unwrap_err();

            let report = load(dir.path()).unwrap();
            let found = number_of(&report.checkpoint);
            let what = format!("{saves_before} saves, crash before {step}");
            assert!(report.notes.is_empty(), "{what}: {:?}", report.notes);
            // Once the current one is moved away, only the new one is right.
            let renamed = if saves_before == 0 { crash_at >= 4 } else { crash_at >= 5 };
            // Without a current one, a complete `.new` that is not synced yet may be found, but need not be.
            let complete = saves_before == 0 && crash_at >= 3;
            if renamed || complete {
                assert_eq!(found, saves_before + 1, "{what}");
            } else {
                assert_eq!(found, saves_before, "{what}");
            }
            save_number(dir.path(), 99);
            assert_eq!(number_of(&load(dir.path()).unwrap().checkpoint), 99, "{what}");
        }
    }
}

fn damaged_loads_previous(damaged: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    save_number(dir.path(), 1);
    save_number(dir.path(), 2);
    fs::write(dir.path().join(CURRENT), damaged).unwrap();
    let report = load(dir.path()).unwrap();
    assert_eq!(number_of(&report.checkpoint), 1);
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    assert!(report.notes[0].contains("checkpoint.json.damaged-1"), "{}", report.notes[0]);
    assert_eq!(fs::read(dir.path().join("checkpoint.json.damaged-1")).unwrap(), damaged);
    // The next load finds the same, and has nothing to report.
    let again = load(dir.path()).unwrap();
    assert_eq!(number_of(&again.checkpoint), 1);
    assert!(again.notes.is_empty());
}

#[test]
fn damage_falls_back_to_the_previous_one() {
    let good = encode(&numbered(2));
    let header = good.iter().position(|byte| *byte == b'\n').unwrap();
    for len in [0, 1, header, header + 1, good.len() / 2, good.len() - 1] {
        damaged_loads_previous(&good[..len]);
    }
    damaged_loads_previous(&vec![0; good.len()]);
    for (index, bit) in [(0, 0), (header, 3), (header + 5, 7), (good.len() - 1, 0)] {
        let mut flipped = good.clone();
        flipped[index] ^= 1 << bit;
        damaged_loads_previous(&flipped);
    }
}

#[test]
fn all_damaged_is_empty_and_said_and_the_damaged_ones_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..CHECKPOINTS_DAMAGED_MAX + 3 {
        fs::write(dir.path().join(CURRENT), b"garbage").unwrap();
        fs::write(dir.path().join(PREVIOUS), b"").unwrap();
        let report = load(dir.path()).unwrap();
        assert_eq!(report.checkpoint, Checkpoint::default());
        assert_eq!(report.notes.len(), 3, "{:?}", report.notes);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count() as u32, CHECKPOINTS_DAMAGED_MAX);
}

#[test]
fn what_is_not_a_plain_file_is_refused() {
    for name in [CURRENT, PREVIOUS] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("target"), encode(&sample())).unwrap();
        std::os::unix::fs::symlink("target", dir.path().join(name)).unwrap();
        assert!(matches!(load(dir.path()), Err(StoreError::NotAFile { .. })), "{name}");

        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        assert!(matches!(load(dir.path()), Err(StoreError::NotAFile { .. })), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join(CURRENT),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(matches!(load(dir.path()), Err(StoreError::NotAFile { .. })));
}

/// A link planted under the name of the temporary file must not lead the write elsewhere.
#[test]
fn save_does_not_write_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("victim"), b"precious").unwrap();
    std::os::unix::fs::symlink("victim", dir.path().join(NEW)).unwrap();
    save_number(dir.path(), 1);
    assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
    assert_eq!(number_of(&load(dir.path()).unwrap().checkpoint), 1);
}

#[test]
fn a_newer_version_stops_the_start_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    save_number(dir.path(), 1);
    let body = b"{}";
    let sum = crate::capture::checkpoint::checksum(3, body);
    let newer = [crate::capture::checkpoint::header(3, sum, 2), body.to_vec()].concat();
    fs::write(dir.path().join(CURRENT), &newer).unwrap();
    assert!(matches!(load(dir.path()), Err(StoreError::Newer { .. })));
    assert_eq!(fs::read(dir.path().join(CURRENT)).unwrap(), newer);
}

#[test]
fn two_agents_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let error = DirLock::acquire(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    DirLock::acquire(dir.path()).unwrap();
}
