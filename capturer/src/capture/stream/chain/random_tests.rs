//! Any listings, in any order of events: a directory that lies, names that move from file to file, numbers that come back.
//! The simulation and the walks judge what is read. Here nothing may panic, and a chain that is left alone comes to rest.

use super::*;
use crate::model::cursor::Cursor;
use crate::sink::testing::Rng;

const SEEDS: u64 = 3_000;
const STEPS: usize = 60;
/// Listings of an unchanged directory until the chain asks for no other.
const LISTINGS_MAX: usize = 12;

/// The files that there are, whatever the directory says.
struct Disk {
    births: bool,
    inodes: usize,
    now_ns: i64,
    files: Vec<FoundFile>,
}

impl Disk {
    fn new_file(&mut self, rand: &mut Rng) -> FoundFile {
        self.now_ns += 1;
        let birth_ns = if self.births { self.now_ns } else { 0 };
        let letter = b'a' + rand.below(4) as u8;
        let content = vec![letter; [0, 20, 60, 100][rand.below(4)]];
        let mut file = FoundFile {
            name: String::new(),
            rank: 0,
            compressed: false,
            id: FileId { device: 1, inode: self.free_number(rand), birth_ns },
            len: content.len() as u64,
            head: content,
            unpacked_len: None,
            modified_ns: 0,
        };
        self.rename(&mut file, rand);
        file
    }

    /// Numbers come back soon, as they do.
    fn free_number(&self, rand: &mut Rng) -> u64 {
        let is_taken = |inode: &u64| self.files.iter().any(|file| file.id.inode == *inode);
        let low = 1 + rand.below(self.inodes) as u64;
        (low..).find(|inode| !is_taken(inode)).expect("there are enough")
    }

    fn rename(&self, file: &mut FoundFile, rand: &mut Rng) {
        file.rank = [0, 0, 1, 1, 2, 3, FoundFile::RANK_UNKNOWN][rand.below(7)];
        file.compressed = file.rank != 0 && rand.below(4) == 0;
        file.unpacked_len = file.compressed.then_some(file.head.len() as u32);
        file.name = format!("l.{}", file.rank);
    }

    fn change(&mut self, rand: &mut Rng) {
        if self.files.is_empty() || rand.below(4) == 0 {
            let file = self.new_file(rand);
            return self.files.push(file);
        }
        let at = rand.below(self.files.len());
        let mut file = self.files.swap_remove(at);
        match rand.below(6) {
            0 => return,
            1 => {
                // A copy, or a second name.
                let mut copy = file.clone();
                if rand.below(2) == 0 {
                    copy.id = self.new_file(rand).id;
                }
                self.rename(&mut copy, rand);
                self.files.push(copy);
            }
            2 => {
                let more = vec![b'a' + rand.below(4) as u8; 30];
                file.head.extend(more);
                file.len = file.head.len() as u64;
            }
            3 => {
                // Emptied, or written anew.
                file.head = vec![b'a' + rand.below(4) as u8; [0, 60, 100][rand.below(3)]];
                file.len = file.head.len() as u64;
            }
            _ => self.rename(&mut file, rand),
        }
        self.files.push(file);
    }

    /// What a listing says, into which anything may have fallen.
    fn listing(&self, rand: &mut Rng, is_true: bool) -> Vec<FoundFile> {
        let mut found = self.files.clone();
        if !is_true {
            found.retain(|_| rand.below(5) > 0);
        }
        found
    }
}

/// What the stream does with its chain.
fn act(chain: &mut Chain, disk: &Disk, rand: &mut Rng, next_file: &mut u64) {
    match rand.below(8) {
        0 | 1 => {
            let parked = chain.parked.iter_mut().map(|parked| &mut parked.link);
            for link in chain.links.iter_mut().chain(parked) {
                if link.is_to_be_opened() {
                    *next_file += 1;
                    link.handle = Handle::Opening(FileNo(*next_file));
                    link.doubted = !link.is_proven();
                }
            }
        }
        2 | 3 => {
            let opening = chain.in_hand().find_map(|link| match link.handle {
                Handle::Opening(file) => Some(file),
                Handle::None | Handle::Open(_) => None,
            });
            let Some(file) = opening else { return };
            let parked = chain.parked.iter_mut().map(|parked| &mut parked.link);
            let link = chain.links.iter_mut().chain(parked).find(|link| link.handle == Handle::Opening(file));
            if rand.below(6) == 0 {
                link.expect("it is in hand").handle = Handle::None;
                chain.parked.retain(|parked| parked.link.handle != Handle::None);
            } else {
                link.expect("it is in hand").handle = Handle::Open(file);
                chain.on_opened(file, rand.below(4) > 0, rand.below(300) as u64);
            }
        }
        4 => {
            if chain.parked.is_empty() || rand.below(2) == 0 {
                return;
            }
            let at = rand.below(chain.parked.len());
            if matches!(chain.parked[at].link.handle, Handle::Open(_)) {
                chain.unpark(at);
            }
        }
        _ => read(chain, disk, rand),
    }
}

fn read(chain: &mut Chain, disk: &Disk, rand: &mut Rng) {
    if !chain.may_read() {
        return;
    }
    chain.assume_copy();
    if chain.is_no_copy(rand.below(3) == 0) {
        return;
    }
    let Some(front) = chain.links.front() else { return };
    let Handle::Open(_) = front.handle else { return };
    let is_it = |file: &&FoundFile| file.id == front.found.id;
    let content = disk.files.iter().find(is_it).unwrap_or(&front.found).head.clone();
    let (len, offset) = (content.len() as u64, front.offset);
    if chain.on_short(len) {
        return;
    }
    if rand.below(12) == 0 {
        return chain.begin_anew(len);
    }
    let end = offset.max(len.min(offset + 1 + rand.below(80) as u64));
    chain.saw(offset, content.get(offset as usize..end as usize).unwrap_or_default());
    let Some(front) = chain.links.front_mut() else { return };
    (front.offset, front.len) = (end, front.len.max(len));
    front.tail = TailPrint::of(&content[..(end.min(len)) as usize], end);
    front.unread = end < len;
    match (end >= len && front.settled, rand.below(2)) {
        (true, 0) => drop(chain.finish_front()),
        (true, _) => chain.park_front(5),
        (false, _) => {}
    }
}

fn check(chain: &mut Chain) {
    let mut files: Vec<FileNo> = chain.in_hand().filter_map(Link::open_file).collect();
    let count = files.len();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), count, "one descriptor in two places");
    let position = chain.position();
    let open = Undelivered { starts: vec![position], in_line: false };
    for open in [[open.clone(), Undelivered::default()], Default::default()] {
        if let Cursor::File(cursor) = chain.cursor(&open) {
            assert!(cursor.reached.len() <= crate::limits::PLACES_MAX);
        }
    }
    assert_eq!(chain.position(), position, "asking for a cursor moved it");
}

fn play(seed: u64) {
    let mut rand = Rng::seeded(seed);
    let births = rand.below(3) > 0;
    let mut disk = Disk { births, inodes: 2 + rand.below(6), now_ns: 10, files: Vec::new() };
    let mut chain =
        Chain::new([Start::Oldest, Start::Live, Start::End, Start::Since(12)][rand.below(4)].clone());
    let copies = rand.below(2) == 0;
    let mut next_file = 0;
    for _ in 0..STEPS {
        match rand.below(8) {
            0..3 => disk.change(&mut rand),
            3 => {
                let found = disk.listing(&mut rand, false);
                chain.on_listing(found, rand.below(2) == 0, &|_| None);
            }
            4 if rand.below(6) == 0 => {
                // A stop and a start.
                if let Cursor::File(cursor) = chain.cursor(&Default::default()) {
                    chain = Chain::new(Start::Resume(cursor));
                    if copies {
                        chain.copied_since(disk.now_ns);
                    }
                }
            }
            _ => act(&mut chain, &disk, &mut rand, &mut next_file),
        }
        check(&mut chain);
    }
    for _ in 0..LISTINGS_MAX {
        let found = disk.listing(&mut rand, true);
        if !chain.on_listing(found, true, &|_| None).look_again {
            return check(&mut chain);
        }
    }
    panic!("it asks for ever for another listing: {chain:#?}, {:#?}", disk.files);
}

#[test]
fn no_listing_and_no_order_of_events_is_too_much() {
    let first = std::env::var("CAPTURER_SEED").ok().map(|seed| seed.parse().expect("a number"));
    for seed in first.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        // Printed if it fails.
        println!("again: CAPTURER_SEED={seed}");
        play(seed);
    }
}
