//! The swarm: each seed turns some faults off and others up, so that every pair of them meets in some seed. Rates are
//! in thousandths; times in microseconds, the longest.

use crate::rand::Rand;

/// When the Engine, or what stands before it, refuses to report events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventsRefused {
    #[default]
    Never,
    /// Every other minute.
    Often,
    /// To the end of the seed.
    Always,
}

/// What goes wrong in one seed, and how often.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Reads of files bring less than there is.
    pub short_reads: u64,
    /// Reads of files fail.
    pub read_errors: u64,
    /// Reads of files take long.
    pub reads_slow_us: u64,
    /// The files thread (scans, openings, saves) takes long, and its answers lie about.
    pub files_slow_us: u64,
    /// How many times a file system hangs.
    pub hangs: u64,
    /// Checkpoints can't be saved.
    pub save_fails: u64,
    /// inotify tells late.
    pub inotify_late_us: u64,
    /// inotify drops what it has and says so.
    pub inotify_overflow: u64,
    /// Sinks take long.
    pub sinks_slow_us: u64,
    /// The core's deadlines are served late.
    pub ticks_late_us: u64,
    /// How many times the agent dies.
    pub crashes: u64,
    /// How many times the agent is stopped and started.
    pub stops: u64,
    /// The Engine answers late.
    pub engine_slow_us: u64,
    /// How many times the Engine is frozen (SIGSTOP).
    pub freezes: u64,
    /// How many times the Engine dies and comes back.
    pub engine_deaths: u64,
    /// Requests are refused (500).
    pub refusals: u64,
    /// Events get lost in the Engine.
    pub events_lost: u64,
    /// Events are refused (403).
    pub events_refused: EventsRefused,
    /// Connections break without a last chunk, per piece of a body.
    pub breaks: u64,
    /// Log answers end cleanly with their last lines missing.
    pub early_ends: u64,
    /// A follow skips lines of a file that is rotated, in thousandths of rotations.
    pub skips: u64,
    /// `read_from` changes between runs.
    pub switches: bool,
    /// The Engine reports an error inside a log answer (frame type 3).
    pub error_frames: u64,
    /// Lines are sent again around a rotation.
    pub resends: u64,
    /// A follow brings nothing any more, per piece of its body.
    pub stalls: u64,
    /// Reads of connections end by their timer though bytes wait.
    pub timer_races: u64,
    /// Bodies are cut at any byte.
    pub splits: bool,
    /// Records that a full disk tore.
    pub torn_records: u64,
    /// So few files may be open at once, to the end; 0 = any number. Openings beyond wait.
    pub descriptors: u64,
    /// Every other file that is renamed may not be read for up to 20 s.
    pub denies_rotated: bool,
}

impl Faults {
    /// What this seed gets.
    pub fn swarm(rand: &mut Rand) -> Faults {
        let mut knob = |max: u64| if rand.chance(1, 2) { 0 } else { rand.within(1..max + 1) };
        let mut faults = Faults {
            short_reads: knob(300),
            read_errors: knob(20),
            reads_slow_us: knob(2_000_000),
            files_slow_us: knob(1_000_000),
            hangs: knob(4),
            save_fails: knob(300),
            inotify_late_us: knob(3_000_000),
            inotify_overflow: knob(50),
            sinks_slow_us: knob(5_000_000),
            ticks_late_us: knob(500_000),
            crashes: knob(6),
            stops: knob(3),
            engine_slow_us: knob(3_000_000),
            freezes: knob(3),
            engine_deaths: knob(3),
            refusals: knob(200),
            events_lost: knob(200),
            events_refused: EventsRefused::Never,
            breaks: knob(30),
            early_ends: knob(500),
            skips: knob(1_000),
            switches: knob(1) > 0,
            error_frames: knob(20),
            resends: knob(500),
            stalls: knob(10),
            timer_races: knob(100),
            splits: knob(1) > 0,
            torn_records: knob(10),
            // Fewer are held by files that the agent may not close; it asks for 96 in all.
            descriptors: match (knob(1), knob(8)) {
                (0, _) | (_, 0) => 0,
                (_, few) => few + 2,
            },
            denies_rotated: false,
        };
        // Without a draw that would change all seeds.
        faults.denies_rotated = faults.files_slow_us % 3 == 1;
        // Without a draw that would change all seeds.
        faults.events_refused = match faults.events_lost % 8 {
            3 => EventsRefused::Often,
            7 => EventsRefused::Always,
            _ => EventsRefused::Never,
        };
        faults
    }
}
