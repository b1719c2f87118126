//! A container's log that somebody removes or replaces while the container prints: `sed -i`, an editor, logrotate. dockerd
//! opens the log once and keeps writing to that file, even if another file has the log's name by now. The agent keeps the file
//! with the newest record open, and reads it until a newer record stands in another file: then dockerd rotated the log, or the
//! container was started again. `docker logs` opens the log by name and shows none of this, so health says what to do.

use super::FileSource;
use crate::capture::stream::chain::{Link, Parked};
use crate::capture::stream::delivered::SkipDelivered;
use crate::decode::{DecodeError, Step, json_line, timestamp};
use crate::model::cursor::FileId;
use crate::model::rare::{Begins, Rare};
use crate::settings::FileFormat;

/// When Docker rotates, what it writes first to the new file may be listed a little later than the file.
const REPLACED_AFTER_MS: u64 = 10_000;

/// Where dockerd writes. Followed paths do not have it.
pub(super) type Writer = Rare<Newest>;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Newest {
    /// The file in which the newest record stood. `None` = no record was read in this run.
    newest_in: Option<FileId>,
    /// Time of that record, nanoseconds since 1970.
    newest_ns: i64,
    /// Since when another file has had its name.
    since_ms: Option<u64>,
    /// It was written to since.
    grew: bool,
}

impl Begins for Newest {
    const BEGINNING: &'static Newest = &Newest { newest_in: None, newest_ns: 0, since_ms: None, grew: false };
}

impl FileSource {
    /// A log of the Engine, which is written by dockerd alone.
    pub(super) fn is_of_container(&self) -> bool {
        self.format == FileFormat::Docker && !self.renamed_while_written
    }

    /// Time of the newest record that was read.
    fn newest_ns(&self) -> i64 {
        self.lines.channels.iter().map(|mark| mark.time_ns).fold(self.writer.newest_ns, i64::max)
    }

    /// Whether dockerd may still write to this file, which is no longer the live one.
    pub(super) fn may_be_written_by_docker(&self, link: &Link) -> bool {
        let has_newest = self.writer.newest_in.is_none_or(|file| file == link.found.id);
        if !self.is_of_container() || !has_newest {
            return false;
        }
        // What follows is not read yet. Docker writes to a file that it made as soon as it has made it.
        let next = self.chain.links.iter().find(|next| next.found.id != link.found.id);
        let is_newer = |next: &Link| first_ns(&next.found.head).is_some_and(|first| first > self.newest_ns());
        !next.is_some_and(|next| next.found.rank > 0 || next.found.compressed || is_newer(next))
    }

    /// These records were read of the first file. Only the last of them is looked at.
    pub(super) fn note_newest(&mut self, records: &[u8]) {
        if !self.is_of_container() {
            return;
        }
        let newest_ns = last_ns(records).filter(|last_ns| *last_ns > self.newest_ns());
        let (Some(newest_ns), Some(front)) = (newest_ns, self.chain.links.front()) else { return };
        self.writer.newest_ns = newest_ns;
        self.writer.grew |= front.late;
        let file = front.found.id;
        if self.writer.newest_in != Some(file) {
            self.writer = Newest { newest_in: Some(file), newest_ns, ..Newest::default() }.into();
            // Nobody writes to those any more: a last look.
            self.chain.parked.iter_mut().for_each(|parked| parked.due_ms = Some(0));
        }
    }

    /// The first file is read from its beginning. If somebody shortened the log, in place or by another file, what was kept is
    /// older than what was read, and is not delivered again.
    pub(super) fn begin_repeated(&mut self, offset: u64, bytes: &[u8], now_ns: i64) {
        let passes_what_the_api_gave = !self.skip.is_over() && !self.skip.has_end();
        if offset > 0 || !self.is_of_container() || passes_what_the_api_gave {
            return;
        }
        let position = self.chain.position();
        let is_held = |parked: &Parked| self.may_be_written_by_docker(&parked.link);
        let is_beside_another = self.chain.parked.iter().any(is_held);
        let newest_ns = self.newest_ns();
        let Some(front) = self.chain.links.front_mut() else { return };
        let may_repeat = std::mem::take(&mut front.rewritten) || front.found.rank == 0 && is_beside_another;
        let is_older = match json_line::next_record(bytes, false) {
            Step::Item(..) => first_ns(bytes).is_some_and(|first_ns| first_ns <= newest_ns),
            // The rest of a record that was cut.
            Step::Reject(DecodeError::TornRecord, _) => true,
            Step::Reject(..) | Step::NeedMore => false,
        };
        // If the clock was set back, what is new is older than what was read.
        if may_repeat && is_older && newest_ns <= now_ns {
            *self.skip = SkipDelivered::again(&self.lines, position.wrapping_add(front.len));
        }
    }

    /// Whether the container's log was removed or replaced for a while, and dockerd writes to the file that it has open.
    pub fn is_replaced(&self, now_ms: u64) -> bool {
        let Some((held, live)) = self.held_for_docker() else { return false };
        let is_away = held.deleted || held.missing || held.packed || live.is_none();
        let is_empty = live.is_none_or(|live| live.len == 0);
        let is_long = self.writer.since_ms.is_some_and(|since_ms| now_ms >= since_ms + REPLACED_AFTER_MS);
        is_long && (self.writer.grew || is_away && is_empty)
    }

    /// To be called now and then.
    pub fn note_replaced(&mut self, now_ms: u64) {
        let is_held = self.held_for_docker().is_some();
        let since_ms = is_held.then(|| self.writer.since_ms.unwrap_or(now_ms));
        if self.writer.since_ms != since_ms {
            self.writer.since_ms = since_ms;
        }
    }

    /// Whether what dockerd writes to may be another file than the live one.
    pub fn may_be_replaced(&self) -> bool {
        self.held_for_docker().is_some()
    }

    /// The file that dockerd writes to although it is not the live one, and the live one.
    fn held_for_docker(&self) -> Option<(&Link, Option<&Link>)> {
        let live = self.chain.links.back().filter(|link| link.found.rank == 0 && !link.deleted);
        let is_live = |link: &Link| live.is_some_and(|live| live.found.id == link.found.id);
        let has_newest = |link: &&Link| self.writer.newest_in == Some(link.found.id);
        let held = self.chain.in_hand().find(has_newest)?;
        let is_held = !is_live(held) && !self.has_exited_since() && self.may_be_written_by_docker(held);
        is_held.then_some((held, live))
    }

    /// The container exited after the newest record: dockerd has closed its log.
    pub(super) fn has_exited_since(&self) -> bool {
        self.exits.at_ns.is_some_and(|exited_ns| exited_ns > self.newest_ns())
    }
}

/// Time of the last record.
fn last_ns(records: &[u8]) -> Option<i64> {
    let last = records.strip_suffix(b"\n")?;
    let begins = memchr::memrchr(b'\n', last).map_or(0, |before| before + 1);
    let piece = json_line::whole_record(&last[begins..])?;
    timestamp::parse(&last[begins..][piece.time])
}

/// Time of the first record, if all of it is there.
fn first_ns(head: &[u8]) -> Option<i64> {
    match json_line::next_record(head, false) {
        Step::Item(piece, _) => timestamp::parse(&head[piece.time]),
        Step::Reject(..) | Step::NeedMore => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing_tests::live_file;
    use super::*;
    use crate::capture::core::bench::Bench;
    use crate::capture::io::{FoundFile, OpenedFile};
    use crate::capture::stream::SourceEvent;
    use crate::capture::stream::chain::{Handle, Start};
    use crate::limits::READ_BYTES;
    use crate::model::record::StreamId;

    fn records(seconds: std::ops::Range<u32>) -> Vec<u8> {
        let record = |second| {
            format!(
                "{{\"log\":\"{second}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-29T02:00:{second:02}.5Z\"}}\n"
            )
        };
        seconds.map(record).collect::<String>().into_bytes()
    }

    fn found(name: &str, rank: u32, inode: u64, text: &[u8]) -> FoundFile {
        let id = FileId { device: 1, inode, birth_ns: inode as i64 };
        FoundFile {
            name: name.to_owned(),
            rank,
            id,
            len: text.len() as u64,
            head: text.to_vec(),
            ..live_file()
        }
    }

    /// Lists that twice, opens what is to be opened, and reads what is to be read. `texts`: by inode. Returns how many lines
    /// came.
    fn list(
        source: &mut FileSource,
        all: &[FoundFile],
        texts: &[(u64, Vec<u8>)],
        bench: &mut Bench,
    ) -> usize {
        let mut told = Vec::new();
        for _ in 0..2 {
            source.on_scanned(Ok(all.to_vec()), &mut bench.cx(), &mut told);
        }
        go_on(source, texts, &mut told, bench);
        lines(&told)
    }

    fn go_on(
        source: &mut FileSource,
        texts: &[(u64, Vec<u8>)],
        told: &mut Vec<SourceEvent>,
        bench: &mut Bench,
    ) {
        let text = |inode| texts.iter().find(|(of, _)| *of == inode).map_or(&[][..], |(_, text)| text);
        for _ in 0..8 {
            let opening = source.chain.in_hand().find_map(|link| match link.handle {
                Handle::Opening(file) => Some((file, text(link.found.id.inode).len())),
                _ => None,
            });
            if let Some((file, len)) = opening {
                let opened = OpenedFile::plain(len as u64);
                source.on_file_opened(file, Ok(opened), &mut bench.cx(), told);
                continue;
            }
            source.read_on(&mut bench.cx());
            let Some(reading) = &source.reading else { break };
            let (from, text) =
                (reading.offset as usize - reading.again, text(source.chain.links[0].found.id.inode));
            let mut buffer = Vec::with_capacity(READ_BYTES);
            buffer.extend_from_slice(text.get(from..).unwrap_or_default());
            let count = buffer.len();
            source.on_read(Ok(count), buffer, Some(text.len() as u64), None, &mut bench.cx(), told);
        }
    }

    fn lines(told: &[SourceEvent]) -> usize {
        let count = |told: &SourceEvent| match told {
            SourceEvent::Lines { lines, .. } => lines.records.len(),
            _ => 0,
        };
        told.iter().map(count).sum()
    }

    fn held(source: &FileSource) -> Vec<u64> {
        source.chain.parked.iter().map(|parked| parked.link.found.id.inode).collect()
    }

    /// A log of ten records that was read to its end.
    fn read_to_end(bench: &mut Bench) -> FileSource {
        let (directory, name) = ("/d".to_owned(), "a.log".to_owned());
        bench.now.unix_ns = timestamp::parse(b"2026-11-29T02:01:00Z").expect("a time");
        let mut source =
            FileSource::new(StreamId(1), directory, name, FileFormat::Docker, Start::Oldest, 64 * 1024);
        source.open(&mut bench.cx());
        let live = found("a.log", 0, 2, &records(10..20));
        assert_eq!(list(&mut source, &[live], &[(2, records(10..20))], bench), 10);
        source
    }

    /// All that the container printed from then on was lost, and nobody was told.
    #[test]
    fn what_docker_writes_to_a_log_that_was_replaced_is_read() {
        let old = records(10..20);
        let packed = FoundFile {
            compressed: true,
            unpacked_len: Some(old.len() as u32),
            ..found("a.log.1.gz", 1, 8, &old)
        };
        let empty = found("a.log", 0, 7, b"");
        let cases = [
            ("removed, and made again", vec![empty.clone()]),
            ("renamed, and made again", vec![found("a.log.1", 1, 2, &old), empty.clone()]),
            ("renamed and packed", vec![packed, empty]),
            ("shortened", vec![found("a.log", 0, 7, &records(13..20))]),
        ];
        for (case, all) in cases {
            let mut bench = Bench::new(1);
            let mut source = read_to_end(&mut bench);
            let live = all.last().map(|live| (7, live.head.clone())).expect("a live file");
            let mut texts = vec![live, (2, old.clone())];
            // What was kept is not delivered again.
            assert_eq!(list(&mut source, &all, &texts, &mut bench), 0, "{case}");
            assert_eq!(held(&source), [2], "{case}");
            assert!(source.may_be_replaced(), "{case}");
            // It prints little: a minute later there is more.
            bench.now.mono_ms += 60_000;
            texts[1].1 = records(10..22);
            if all[0].name == "a.log.1" {
                source.on_rotated_grew(&mut bench.cx(), &mut Vec::new());
            }
            let mut told = Vec::new();
            source.on_timer(crate::capture::context::Purpose::LateWriter, &mut bench.cx(), &mut told);
            go_on(&mut source, &texts, &mut told, &mut bench);
            assert_eq!(lines(&told), 2, "{case}");
            source.note_replaced(bench.now.mono_ms);
            assert!(source.is_replaced(bench.now.mono_ms + 10_000), "{case}");
            // It was started again, and writes to the file with the log's name.
            texts[0].1.extend(records(30..31));
            source.on_grew(&mut bench.cx());
            bench.now.mono_ms += 1_000;
            go_on(&mut source, &texts, &mut Vec::new(), &mut bench);
            assert_eq!(held(&source), [] as [u64; 0], "{case}");
            assert!(!source.may_be_replaced() && !source.is_replaced(bench.now.mono_ms + 20_000), "{case}");
        }
    }

    /// `tail -n 5 LOG > t; cat t > LOG`, `truncate -s 100 LOG`: what was kept came again, and what was cut off counted as lost.
    #[test]
    fn what_is_kept_of_a_log_that_is_shortened_in_place_is_not_delivered_again() {
        let torn = [records(10..11), records(11..12)[..30].to_vec(), records(20..22)].concat();
        let only_torn = [records(10..11)[..30].to_vec(), records(20..22)].concat();
        let set_back = records(5..8);
        for (case, text, now, expected) in [
            ("tail", records(15..22), "2026-11-29T02:01:00Z", 2),
            ("truncate", torn, "2026-11-29T02:01:00Z", 2),
            ("truncate within a record", only_torn, "2026-11-29T02:01:00Z", 2),
            ("the clock was set back", set_back, "2026-11-29T02:00:08Z", 3),
        ] {
            let mut bench = Bench::new(1);
            let mut source = read_to_end(&mut bench);
            bench.now.unix_ns = timestamp::parse(now.as_bytes()).expect("a time");
            let texts = [(2, text.clone())];
            source.on_grew(&mut bench.cx());
            let mut told = Vec::new();
            go_on(&mut source, &texts, &mut told, &mut bench);
            let came = list(&mut source, &[found("a.log", 0, 2, &text)], &texts, &mut bench);
            assert_eq!(lines(&told) + came, expected, "{case}");
            let losses = bench.cx().metrics.take_source_losses();
            assert!(losses.iter().all(|lost| lost.possible), "{case}: {losses:?}");
        }
    }

    /// Docker rotates: nothing is held, also if the new file was empty when it was listed.
    #[test]
    fn what_docker_rotated_is_closed() {
        for listed in [records(20..21), Vec::new()] {
            let mut bench = Bench::new(1);
            let mut source = read_to_end(&mut bench);
            let all = [found("a.log.1", 1, 2, &records(10..20)), found("a.log", 0, 7, &listed)];
            let texts = [(2, records(10..20)), (7, records(20..22))];
            assert_eq!(list(&mut source, &all, &texts, &mut bench), 2);
            assert_eq!((held(&source), source.chain.links.len()), (vec![], 1));
            assert!(!source.may_be_replaced());
        }
    }
}
