//! The names of rotated log files, and which of them the agent reads.

/// Whether a rotated file's name stays, or moves on with each rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// `.1` becomes `.2`.
    Shifts,
    /// By date, time or a number that only grows.
    Stays,
}

/// One way of naming rotated files.
#[derive(Debug)]
struct Named {
    /// How a walk's text calls it.
    key: &'static str,
    order: Order,
    /// Documented as a rotated file of its log: it is read with the log although no pattern matches it.
    kin: bool,
}

/// A way of naming rotated files, as an index into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scheme(usize);

const fn named(key: &'static str, order: Order, kin: bool) -> Named {
    Named { key, order, kin }
}

/// The keys are the names that `app.log` gets, with `N` for a number and `D` for a day.
const SCHEMES: &[Named] = &[
    named("app.log.N", Order::Shifts, true),           // logrotate, dockerd
    named("app.log-D", Order::Stays, true),            // logrotate's dateext
    named("app.log-Dh", Order::Stays, true),           // the same, hourly
    named("app.log.D-time", Order::Stays, true),       // Kubernetes
    named("app.log.D", Order::Stays, true),            // logrotate with dateformat .%Y%m%d
    named("app.log.y-m-d", Order::Stays, false),       // log4j, Python's TimedRotatingFileHandler
    named("app.log.y-m-d_h-m-s", Order::Stays, false), // the same by the second
    named("app.log-y-m-d", Order::Stays, false),       // logrotate with dateformat -%Y-%m-%d
    named("app.N.log", Order::Shifts, false),          // logback, Java's own FileHandler
    named("app-N.log", Order::Shifts, false),          // log4j2
    named("app-y-m-dTh-m-s.ms.log", Order::Stays, false), // lumberjack
    named("app-y-m-d.log", Order::Stays, false),       // logback by day
    named("app.y-m-d.log", Order::Stays, false),       // winston and others
    named("app-y-m-d-1.log", Order::Stays, false),     // log4j2 by day and size
    named("app.y-m-d.1.log", Order::Stays, false),     // logback by day and size
    named("app_D.log", Order::Stays, false),
    named("D-app.log", Order::Stays, false),
    named("app.log.old", Order::Stays, false),
    named("app.log.bak", Order::Stays, false),
    named("app.log.unix", Order::Stays, false), // seconds since 1970: Tomcat's and Apache's rotatelogs
    named("@tai64n.s", Order::Stays, false),    // svlogd, multilog
    named("old/app.log.N", Order::Shifts, false), // logrotate's olddir
];

impl Scheme {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Scheme> {
        (0..SCHEMES.len()).map(Scheme)
    }

    /// Those of documented names.
    pub fn kin() -> impl Iterator<Item = Scheme> {
        Scheme::all().filter(|scheme| scheme.is_kin())
    }

    /// Whether a file named so is read with its log.
    pub fn is_kin(self) -> bool {
        SCHEMES[self.0].kin
    }

    /// Whether older files are renamed when a new one comes.
    pub fn shifts(self) -> bool {
        SCHEMES[self.0].order == Order::Shifts
    }

    /// How a walk's text calls it.
    pub fn key(self) -> &'static str {
        SCHEMES[self.0].key
    }

    /// The scheme of this key.
    pub fn of(key: &str) -> Option<Scheme> {
        Scheme::all().find(|scheme| scheme.key() == key)
    }

    /// The rotated file `index` of `app.log` with `app` for the stem; an index is the N, or a day.
    pub fn name(self, stem: &str, index: u32) -> String {
        let (month, day) = (1 + index / 28 % 12, 1 + index % 28);
        let dense = format!("2026{month:02}{day:02}");
        let dashed = format!("2026-{month:02}-{day:02}");
        let live = live_name(stem);
        match self.key() {
            "app.log.N" => format!("{live}.{index}"),
            "app.log-D" => format!("{live}-{dense}"),
            "app.log-Dh" => format!("{live}-{dense}10"),
            "app.log.D-time" => format!("{live}.{dense}-100000"),
            "app.log.D" => format!("{live}.{dense}"),
            "app.log.y-m-d" => format!("{live}.{dashed}"),
            "app.log.y-m-d_h-m-s" => format!("{live}.{dashed}_10-00-00"),
            "app.log-y-m-d" => format!("{live}-{dashed}"),
            "app.N.log" => format!("{stem}.{index}.log"),
            "app-N.log" => format!("{stem}-{index}.log"),
            "app-y-m-dTh-m-s.ms.log" => format!("{stem}-{dashed}T10-00-00.000.log"),
            "app-y-m-d.log" => format!("{stem}-{dashed}.log"),
            "app.y-m-d.log" => format!("{stem}.{dashed}.log"),
            "app-y-m-d-1.log" => format!("{stem}-{dashed}-1.log"),
            "app.y-m-d.1.log" => format!("{stem}.{dashed}.1.log"),
            "app_D.log" => format!("{stem}_{dense}.log"),
            "D-app.log" => format!("{dense}-{live}"),
            // A second one of these takes the place of the first.
            "app.log.old" => format!("{live}.old"),
            "app.log.bak" => format!("{live}.bak"),
            "app.log.unix" => format!("{live}.{}", 1_795_000_000 + 86_400 * u64::from(index)),
            "@tai64n.s" => {
                let nanoseconds = stem.bytes().fold(0, |sum, byte| sum * 31 + u32::from(byte));
                format!("@400000006a{index:06x}{nanoseconds:08x}.s")
            }
            "old/app.log.N" => format!("old/{live}.{index}"),
            key => unreachable!("{key} has no name"),
        }
    }
}

/// The stems of the logs that a walk writes.
pub const STEMS: [&str; 3] = ["app", "web", "db-1"];

/// The file that is being written.
pub fn live_name(stem: &str) -> String {
    format!("{stem}.log")
}

/// What the agent is told to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each log by its name.
    Exact,
    /// `*.log`
    Log,
    /// `*.log*`
    LogAndMore,
    /// `*`
    All,
}

impl Pattern {
    /// All of them, with how a walk's text calls them.
    pub const ALL: [(Pattern, &str); 4] = [
        (Pattern::Exact, "exact"),
        (Pattern::Log, "*.log"),
        (Pattern::LogAndMore, "*.log*"),
        (Pattern::All, "*"),
    ];

    /// How a walk's text calls it.
    pub fn key(self) -> &'static str {
        Pattern::ALL.iter().find(|(pattern, _)| *pattern == self).map_or("", |(_, key)| key)
    }

    /// The last parts of the paths in the config.
    pub fn globs(self) -> Vec<String> {
        match self {
            Pattern::Exact => STEMS.iter().map(|stem| live_name(stem)).collect(),
            _ => vec![self.key().to_owned()],
        }
    }

    /// Whether a file of this name, in the folder of the logs, is followed.
    pub fn matches(self, name: &str) -> bool {
        !name.contains('/')
            && match self {
                Pattern::Exact => STEMS.iter().any(|stem| live_name(stem) == name),
                Pattern::Log => name.ends_with(".log"),
                Pattern::LogAndMore => name.contains(".log"),
                Pattern::All => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two schemes or two rotations that met in one name would overwrite each other unseen.
    #[test]
    fn names_are_apart() {
        let mut names = BTreeSet::new();
        for scheme in Scheme::all() {
            assert_eq!(Scheme::of(scheme.key()), Some(scheme));
            let fixed = matches!(scheme.key(), "app.log.old" | "app.log.bak");
            for stem in STEMS {
                for index in 1..if fixed { 2 } else { 40 } {
                    let name = scheme.name(stem, index);
                    assert!(names.insert(name.clone()), "{name} twice");
                }
            }
        }
    }

    #[test]
    fn patterns_match_as_globs_do() {
        for (pattern, _) in Pattern::ALL {
            let globs: Vec<glob::Pattern> =
                pattern.globs().iter().map(|text| glob::Pattern::new(text).unwrap()).collect();
            for name in Scheme::all().map(|scheme| scheme.name("app", 3)).chain([live_name("web")]) {
                let one_folder = !name.contains('/');
                let expected = one_folder && globs.iter().any(|glob| glob.matches(&name));
                assert_eq!(pattern.matches(&name), expected, "{pattern:?} {name}");
            }
        }
    }
}
