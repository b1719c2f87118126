//! Every fixed bound of the program in one place, unit last in each name, with the relations between them asserted at
//! compile time. Operators change bounds in the config; these are the ceilings of those.

/// Bytes one read asks for. Large enough that the cost per read vanishes in the cost per line.
pub const READ_BYTES: usize = 256 * 1024;
/// Places that a position names beside its own, for a line that spans as many files.
pub const PLACES_MAX: usize = 8;
/// Files that can't be read and that a position names: more of one log, and a restart forgets where the oldest were left.
pub const DENIED_MAX: usize = 64;
/// Bytes at the beginning of a line that decide whether it continues the lines before it (multiline).
pub const MULTILINE_LOOK_BYTES: usize = 4 * 1024;
/// Longest raw record of a source: a json-file line with its escapes (six bytes for one) and its attributes, which
/// Docker repeats on every record. A longer one is skipped and counted.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A plain line is read in pieces of this size. So a line that grows without end is read once, and not again at each
/// growth, and a shorter line is delivered from the read buffer without a copy.
pub const LINE_PIECE_BYTES: usize = 64 * 1024;
/// Ceiling of `line_bytes_max`.
pub const LINE_BYTES_CEILING: u64 = 16 * 1024 * 1024;
/// Default of `line_bytes_max`.
pub const LINE_BYTES_DEFAULT: u64 = 1024 * 1024;
/// Bytes at the head of a file that its fingerprint covers.
pub const HEAD_BYTES: usize = 1024;

/// First bytes enough to recognize a compressed file: a json-file record has at least as many and includes its time to
/// the nanosecond.
pub const HEAD_BYTES_PROOF: u32 = 50;
/// Bytes before a position that its print covers.
pub const TAIL_BYTES: usize = 1024;
/// Docker's piece size: a longer line arrives in pieces of exactly this many bytes (moby: daemon/logger/copier.go).
pub const PIECE_BYTES: usize = 16 * 1024;
/// Largest stdcopy frame that is believed. Docker promises none; 49,183 bytes were seen.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest body accepted for a container list or inspect answer (an owner can set 200,000 labels: 3 MB).
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An answer that grows beyond this waits for its turn ([`ANSWERS_LARGE_MAX`]): some hundred requests may be under way.
pub const ANSWER_BYTES_USUAL: usize = 256 * 1024;
/// How many answers beyond [`ANSWER_BYTES_USUAL`] may be read at once.
pub const ANSWERS_LARGE_MAX: usize = 2;
/// A whole answer may take this many times `read_timeout`: a daemon that sends a byte now and then is no better than a
/// silent one.
pub const ANSWER_TIMEOUTS_MAX: u32 = 4;
/// File reads under way at once. They can't be cancelled, so there are few; each holds one buffer.
pub const FILE_READS_MAX: usize = 32;
/// File systems that may hang and are read at once. Each has a thread that reads one file at a time. Fewer than
/// [`FILE_READS_MAX`], so that all of them can hang and leave room for other files.
pub const LANES_MAX: usize = 16;
/// Ceiling of `file_monitor.max_open`.
pub const FILES_OPEN_CEILING: usize = 1_000_000;
/// Ceiling of `stream_rotation.max_concurrent_streams`.
pub const API_STREAMS_CEILING: usize = 384;
/// Ceiling of `max_concurrent`: openings and requests under way at once.
pub const OPENINGS_CEILING: usize = 100;
/// Ring entries kept for events, inotify, checkpoint and closing.
pub const RING_RESERVE: usize = 32;
/// Submission queue length. A timed operation takes two entries that must enter in one submission; tokio-uring
/// submits by itself when the queue is full, which would cut a pair (the late timer gets EINVAL and the read
/// waits for ever). So there is room for all that one turn of the loop can arm.
pub const RING_ENTRIES: usize = 2048;
/// Batches a sink may hold unacknowledged before reading waits.
pub const SINK_BATCHES_MAX: usize = 256;
/// Batches of one stream under way at once, so that one busy stream leaves room for others.
pub const STREAM_BATCHES_MAX: usize = 8;
/// Bytes of received data an API read gathers before it is decoded.
pub const API_GATHER_BYTES: usize = 64 * 1024;
/// Largest checkpoint that is written or read: about 100,000 streams.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Damaged checkpoints kept for a look.
pub const CHECKPOINTS_DAMAGED_MAX: u32 = 8;
/// Output files a local_file sink holds open; past it the one unused longest is closed until it is needed again.
pub const OUTPUT_FILES_OPEN_MAX: usize = 72;
/// Bytes at either end of an output by which it is recognized.
pub const OUTPUT_PRINT_BYTES: usize = 256;
/// Bytes behind the marks of all outputs that a start searches for records that need not be written again. Usually
/// these are what was written in the last second; each record takes some 60 bytes of memory until its source was read.
pub const OUTPUT_OVERHANG_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Encoded bytes a sink gathers before it writes. A batch is read in [`READ_BYTES`], so one write takes nearly every
/// batch; the bound is for long names repeated on thousands of short lines.
pub const ENCODED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one name, image, path or label that go into a record; what is longer is cut and ends in `…`.
pub const META_STRING_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a Unix socket's path: unix(7) gives it 108, with the NUL at its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Bytes of one path component of an output file. NAME_MAX is 255, and older files add a time and an ending.
pub const FILE_NAME_BYTES_MAX: usize = 220;
/// Bytes of one placeholder's value within it, so that an ending like `.ndjson` still fits.
pub const FILE_NAME_VALUE_BYTES_MAX: usize = 190;
/// Longest pause of a sink between attempts, milliseconds.
pub const SINK_RETRY_MS_MAX: u64 = 5_000;
/// Loki's default for the longest line, in bytes.
pub const LOKI_LINE_BYTES: u64 = 256 * 1024;
/// Loki's default for the labels of a stream.
pub const LOKI_LABELS: usize = 15;
/// Loki's default for the longest label value, in bytes.
pub const LOKI_LABEL_VALUE_BYTES: usize = 2048;
/// Ceiling of `sinks.loki.max_in_flight`: each holds a connection and a request in memory.
pub const LOKI_IN_FLIGHT_CEILING: usize = 64;
/// Bytes of an answer that are read; Loki's reasons are a few hundred bytes a line.
pub const LOKI_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest pause that a `Retry-After` can ask for, seconds: a proxy's mistake must not stop delivery for a day.
pub const LOKI_RETRY_AFTER_SECS_MAX: u64 = 600;
/// Pipelines in a config. Like steps, they are bounded because each has series of its own.
pub const PIPELINES_MAX: usize = 32;
/// Steps of one pipeline; see [`PIPELINES_MAX`].
pub const PIPELINE_STEPS_MAX: usize = 32;
/// Bytes of a pipeline's name, which stands in metrics.
pub const PIPELINE_NAME_BYTES_MAX: usize = 64;
/// Bytes of a regular expression as it is written.
pub const PATTERN_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a compiled regular expression. The library's own default is ten times as much.
pub const PATTERN_PROGRAM_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a regular expression caches while it searches, at most twice this for each thread that searches.
pub const PATTERN_DFA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a message that keep, drop and the search for a level look at; a longer message is not parsed. Redaction
/// always looks at the whole message.
pub const MATCHED_BYTES_MAX: usize = 64 * 1024;
/// Fields of a record. Loki takes 128 names of metadata with a line.
pub const FIELDS_MAX: usize = 64;
/// Bytes of names and values of a record's fields. Loki takes 64 KiB of metadata with a line.
pub const FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a field's name, including the names of the objects around it.
pub const FIELD_NAME_BYTES_MAX: usize = 128;
/// Bytes of a field's value; what is longer is cut.
pub const FIELD_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Depth of nested objects that become names with dots; deeper ones are left out.
pub const FIELDS_DEPTH_MAX: usize = 8;
/// Bytes of a label's value taken from a field; a longer one counts as one value too many.
pub const FIELD_LABEL_BYTES_MAX: usize = 256;
/// Bytes of the replacement for redacted text, as written in the config.
pub const REPLACEMENT_BYTES_MAX: usize = 64;
/// Live views of records (`/api/v1/tap`) at once.
pub const TAPS_MAX: usize = 4;
/// Pieces that wait for one reader; a piece that finds no room is skipped, and the reader is told.
pub const TAP_PIECES_MAX: usize = 8;
/// Bytes of one such piece: with the two bounds above, at most 8 MiB wait for all readers together.
pub const TAP_PIECE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a pattern that a reader may filter by.
pub const TAP_PATTERN_BYTES_MAX: usize = 1024;

// Each connection may have a timed receive and a timed send under way: two entries each.
const _: () =
    assert!(RING_ENTRIES >= 4 * (API_STREAMS_CEILING + OPENINGS_CEILING) + FILE_READS_MAX + RING_RESERVE);
const _: () = assert!(2 * LANES_MAX <= FILE_READS_MAX);
const _: () = assert!(RING_ENTRIES.is_power_of_two());
const _: () = assert!(ANSWER_BYTES_USUAL < ANSWER_BYTES_MAX && ANSWERS_LARGE_MAX > 0);
// Record offsets are 32-bit.
const _: () = assert!(RECORD_BYTES_MAX + READ_BYTES < u32::MAX as usize);
const _: () = assert!(6 * (PIECE_BYTES * 3) + READ_BYTES < RECORD_BYTES_MAX);
// Pairs of UTF-16 are cut between units.
const _: () = assert!(LINE_PIECE_BYTES.is_multiple_of(2) && LINE_PIECE_BYTES < READ_BYTES);
const _: () = assert!(FRAME_BYTES_MAX <= RECORD_BYTES_MAX);
const _: () = assert!(STREAM_BATCHES_MAX <= SINK_BATCHES_MAX);
const _: () = assert!(ENCODED_BYTES_MAX >= 4 * READ_BYTES);
const _: () = assert!(FILE_NAME_VALUE_BYTES_MAX < FILE_NAME_BYTES_MAX);
const _: () =
    assert!(FIELD_NAME_BYTES_MAX + FIELD_VALUE_BYTES_MAX <= FIELDS_BYTES_MAX && FIELDS_BYTES_MAX < 65_536);
const _: () = assert!(FIELD_LABEL_BYTES_MAX <= LOKI_LABEL_VALUE_BYTES);
