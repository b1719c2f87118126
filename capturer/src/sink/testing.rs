//! Shared by the tests of this folder: random numbers that can be replayed, and batches made from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::cursor::Cursor;
use crate::model::record::{
    Batch, BufferKind, ContainerMeta, MessageForm, Record, Source, StdType, StreamId, StreamKey,
};

/// SplitMix64. All chance of a test comes from one seed, printed first; `CAPTURER_SEED` replays it.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn from_env() -> Rng {
        use std::hash::{BuildHasher as _, RandomState};
        let seed = match std::env::var("CAPTURER_SEED") {
            Ok(text) => text.parse().expect("CAPTURER_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("CAPTURER_SEED={seed}");
        Rng(seed)
    }

    pub(crate) fn seeded(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 … `end` − 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Picks one of these.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Text with many characters that are special in JSON, UTF-8 and file names.
    pub(crate) fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = self.below(len_max + 1);
        while bytes.len() < len {
            match self.below(12) {
                0 => bytes.push(self.next() as u8),
                1 => bytes.push(self.below(0x20) as u8),
                2 => bytes.extend_from_slice(b"\"\\\n"),
                3 => bytes.extend_from_slice("äß€\u{2028}🦀\u{7f}".as_bytes()),
                4 => bytes.extend_from_slice(&"🦀€".as_bytes()[..1 + self.below(6)]),
                5 => bytes.extend_from_slice(b"../.\0}{"),
                _ => bytes.extend(std::iter::repeat_n(b'a' + self.below(26) as u8, self.below(40))),
            }
        }
        bytes
    }

    pub(crate) fn text(&mut self, len_max: usize) -> String {
        String::from_utf8_lossy(&self.bytes(len_max)).into_owned()
    }
}

pub(crate) fn container(id: u32, name: &str) -> Arc<Source> {
    Arc::new(Source {
        container: Some(Box::new(ContainerMeta {
            id: format!("{:064x}", u64::from(id)),
            name: name.to_owned(),
            image: "nginx:1.27".to_owned(),
            labels: BTreeMap::new(),
        })),
        ..Source::new(StreamId(id), StreamKey::container(name))
    })
}

pub(crate) fn followed(id: u32, path: &str) -> Arc<Source> {
    Arc::new(Source { path: Some(path.into()), ..Source::new(StreamId(id), StreamKey::file(path)) })
}

pub(crate) const TIME: &str = "2026-11-22T00:52:48.162820305Z";

/// A batch of raw messages on stdout.
pub(crate) fn batch(source: &Arc<Source>, messages: &[&[u8]]) -> Batch {
    let mut batch = Batch {
        seq: 1,
        source: source.clone(),
        read: TIME.as_bytes().to_vec(),
        made: Vec::new(),
        records: Vec::new(),
        read_time: "1970-01-01T00:00:00Z".to_owned(),
        end: Cursor::Beginning,
        source_bytes: 0,
        last: false,
        changes: None,
    };
    for message in messages {
        push(&mut batch, message, MessageForm::Raw);
    }
    batch
}

/// Appends a record with the time that heads the buffer.
pub(crate) fn push(batch: &mut Batch, message: &[u8], form: MessageForm) {
    batch.records.push(Record {
        message_start: batch.read.len() as u32,
        message_len: message.len() as u32,
        time_start: 0,
        time_len: TIME.len() as u8,
        std_type: StdType::Stdout,
        form,
        place: BufferKind::Read,
        truncated: false,
        partial: false,
        continued: false,
    });
    batch.read.extend_from_slice(message);
}

/// The records have the same time as before, as a host writes it that is ahead of UTC.
pub(crate) fn in_local_time(batch: &mut Batch) {
    let local = "2026-11-22T02:52:48.162820305+02:00";
    for record in &mut batch.records {
        (record.time_start, record.time_len) = (batch.read.len() as u32, local.len() as u8);
    }
    batch.read.extend_from_slice(local.as_bytes());
}

/// The messages in NDJSON output; every line must be whole.
pub(crate) fn messages(output: &[u8]) -> Vec<String> {
    assert!(output.is_empty() || output.ends_with(b"\n"), "torn: {:?}", String::from_utf8_lossy(output));
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");
            value["message"].as_str().expect("a message").to_owned()
        })
        .collect()
}

/// Waits for a condition that another thread brings about.
pub(crate) fn until(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "it did not come about");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
