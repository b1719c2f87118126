//! How long a line of a live load takes from being written to arriving in its output.
//!
//! ```text
//! the bench writes line n of source s at T ─▶ agent ─▶ file: a thread looks at some outputs every millisecond
//!                                                   └▶ Loki: each push is stamped as it comes
//! ```
//! Lines name their source and number, so no texts are kept. Only [`WATCHED`] outputs in files are checked: checking
//! all of them would cost more than some of the programs that are measured. Lines of the warm-up don't count.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench_lines::source_of;

/// How many outputs in files are watched: the first ones.
pub const WATCHED: usize = 5;
/// How often they are checked.
const LOOK: Duration = Duration::from_millis(1);

/// The arrival of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its source.
    pub source: usize,
    /// Its number in that source.
    pub n: u64,
    /// When it was seen.
    pub at: Instant,
}

/// When each line was written, by source.
#[derive(Debug, Default)]
pub struct Written(Vec<Vec<Instant>>);

impl Written {
    /// For this many sources.
    pub fn new(sources: usize) -> Written {
        Written(vec![Vec::new(); sources])
    }

    /// Call this right before the next line of a source is written.
    pub fn note(&mut self, source: usize) {
        self.0[source].push(Instant::now());
    }

    /// Latencies of the lines written from `since` on.
    pub fn latencies(&self, arrivals: &[Arrival], since: Instant) -> Latency {
        let of = |arrival: &Arrival| {
            let written = *self.0.get(arrival.source)?.get(usize::try_from(arrival.n).ok()?)?;
            (written >= since).then(|| arrival.at.saturating_duration_since(written).as_secs_f64() * 1000.0)
        };
        let mut ms: Vec<f64> = arrivals.iter().filter_map(of).collect();
        ms.sort_by(f64::total_cmp);
        Latency::of(&ms)
    }
}

/// Milliseconds from writing to output; zeros if nothing was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Half of the lines took at most this long.
    pub p50_ms: f64,
    /// One line in a hundred took longer.
    pub p99_ms: f64,
    /// The slowest line.
    pub max_ms: f64,
}

impl Latency {
    fn of(sorted_ms: &[f64]) -> Latency {
        let at = |share: f64| {
            let index = (sorted_ms.len() as f64 * share).ceil() as usize;
            sorted_ms.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Latency { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// Watches the first outputs until `ended`; returns the arrivals.
pub fn watch_files(folder: &Path, sources: usize, ended: &AtomicBool) -> Result<Vec<Arrival>> {
    let mut outputs = Outputs::new(sources);
    while !ended.load(Ordering::Relaxed) {
        outputs.look(folder)?;
        std::thread::sleep(LOOK);
    }
    outputs.look(folder)?;
    Ok(outputs.arrivals)
}

/// The watched outputs, and how far each was read.
struct Outputs {
    /// By source; the bytes are an unfinished line.
    files: Vec<Option<(File, Vec<u8>)>>,
    arrivals: Vec<Arrival>,
    buffer: Vec<u8>,
}

impl Outputs {
    fn new(sources: usize) -> Outputs {
        let files = (0..sources.min(WATCHED)).map(|_| None).collect();
        Outputs { files, arrivals: Vec::new(), buffer: vec![0; 64 * 1024] }
    }

    fn look(&mut self, folder: &Path) -> Result<()> {
        if self.files.iter().any(Option::is_none) {
            self.open_new(folder)?;
        }
        for (source, output) in self.files.iter_mut().enumerate() {
            let Some((file, rest)) = output else { continue };
            loop {
                let count = file.read(&mut self.buffer)?;
                if count == 0 {
                    break;
                }
                let at = Instant::now();
                rest.extend_from_slice(&self.buffer[..count]);
                let Some(end) = memchr::memrchr(b'\n', rest) else { continue };
                for line in rest[..end].split(|byte| *byte == b'\n') {
                    self.arrivals.extend(number(line, source).map(|n| Arrival { source, n, at }));
                }
                rest.drain(..=end);
            }
        }
        Ok(())
    }

    fn open_new(&mut self, folder: &Path) -> Result<()> {
        // Before the first line the folder may not exist.
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = source_of(&name).strip_prefix('c').and_then(|number| number.parse::<usize>().ok());
            let output = number.and_then(|number| self.files.get_mut(number));
            if let Some(output @ None) = output {
                *output = Some((File::open(entry.path())?, Vec::new()));
            }
        }
        Ok(())
    }
}

/// The number of a line of this source, whatever is around it: `…12 c7 …`.
pub fn number(line: &[u8], source: usize) -> Option<u64> {
    let at = memchr::memmem::find(line, format!(" c{source} ").as_bytes())?;
    let start = line[..at].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    std::str::from_utf8(&line[start..at]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_lines::text;

    #[test]
    fn a_line_says_its_number_in_any_frame() {
        let line = text(7, 123);
        for frame in [format!("{{\"path\":\"/in/c7.log\",\"message\":\"{line}\"}}"), line] {
            assert_eq!(
                (number(frame.as_bytes(), 7), number(frame.as_bytes(), 8)),
                (Some(123), None),
                "{frame}"
            );
        }
        assert_eq!(number(b"x c7 y", 7), None);
    }

    #[test]
    fn percentiles_are_of_lines_that_were_written_in_time() {
        let begin = Instant::now();
        let written = Written(vec![(0..200).map(|ms| begin + Duration::from_millis(ms)).collect()]);
        let took = |n: u64| if n >= 199 { 90 } else { n % 2 + 1 };
        let arrival = |n| Arrival { source: 0, n, at: begin + Duration::from_millis(n + took(n)) };
        let arrivals: Vec<Arrival> = (0..201).map(arrival).collect();
        let all = written.latencies(&arrivals, begin);
        assert_eq!(all, Latency { p50_ms: 1.0, p99_ms: 2.0, max_ms: 90.0 });
        let last = written.latencies(&arrivals, begin + Duration::from_millis(199));
        assert_eq!(last, Latency { p50_ms: 90.0, p99_ms: 90.0, max_ms: 90.0 });
        assert_eq!(written.latencies(&[], begin), Latency::default());
    }

    /// An output may end in the middle of a line.
    #[test]
    fn outputs_are_seen_as_they_grow() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("in_c0.log~ab.ndjson");
        let mut outputs = Outputs::new(2);
        outputs.look(&home.path().join("not there")).unwrap();
        fs::write(&out, text(0, 0) + "\n" + &text(0, 1)[..3]).unwrap();
        outputs.look(home.path()).unwrap();
        assert_eq!(outputs.arrivals.len(), 1);
        fs::write(&out, text(0, 0) + "\n" + &text(0, 1) + "\n").unwrap();
        outputs.look(home.path()).unwrap();
        outputs.look(home.path()).unwrap();
        assert_eq!(outputs.arrivals.iter().map(|arrival| arrival.n).collect::<Vec<_>>(), [0, 1]);
    }
}
