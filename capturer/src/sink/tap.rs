//! What live views get of a batch: the lines that pass their filter, as NDJSON. It runs on a sink's thread while
//! somebody watches; a viewer without room costs nothing.

use crate::decode::json_line::unescape;
use crate::limits::TAP_PIECE_BYTES_MAX;
use crate::model::record::{Batch, MessageForm, Record, Source};
use crate::telemetry::taps::{Filter, ID_CHARS_MIN, Taps, Watcher};

use super::Counts;
use super::ndjson::{self, SourcePrefix};

/// Offers the batch to everybody who watches.
pub(super) fn show(taps: &Taps, batch: &Batch) {
    for watcher in taps.watchers() {
        if is_wanted(&watcher.filter, &batch.source) {
            show_to(taps, &watcher, batch);
        }
    }
}

fn show_to(taps: &Taps, watcher: &Watcher, batch: &Batch) {
    if !watcher.has_room() {
        return taps.skip(watcher, batch.records.len() as u64);
    }
    let prefix = SourcePrefix::new(&batch.source);
    let (mut piece, mut text, mut lines) = (Vec::new(), Vec::new(), 0);
    for (index, record) in batch.records.iter().enumerate() {
        if !passes(&watcher.filter, batch, record, &mut text) {
            continue;
        }
        let start = piece.len();
        if (record.message_len as usize) < TAP_PIECE_BYTES_MAX {
            ndjson::encode_one(batch, &prefix, index, record, &mut piece, &mut Counts::default());
        }
        let line = piece.len() - start;
        if line == 0 || line > TAP_PIECE_BYTES_MAX {
            // One very long line would exceed the bound by itself.
            piece.truncate(start);
            taps.skip(watcher, 1);
        } else if piece.len() > TAP_PIECE_BYTES_MAX {
            let rest = piece.split_off(start);
            if !watcher.offer(std::mem::replace(&mut piece, rest).into()) {
                return taps.skip(watcher, lines + (batch.records.len() - index) as u64);
            }
            lines = 1;
        } else {
            lines += 1;
        }
    }
    if lines > 0 && !watcher.offer(piece.into()) {
        taps.skip(watcher, lines);
    }
}

fn is_wanted(filter: &Filter, source: &Source) -> bool {
    let Some(wanted) = filter.source.as_deref() else { return true };
    let of_container = source.container.as_ref().is_some_and(|container| {
        container.name == wanted || (wanted.len() >= ID_CHARS_MIN && container.id.starts_with(wanted))
    });
    let of_path =
        source.path.as_deref().is_some_and(|path| path == wanted || path.rsplit('/').next() == Some(wanted));
    of_container || of_path
}

fn passes(filter: &Filter, batch: &Batch, record: &Record, text: &mut Vec<u8>) -> bool {
    let Some(pattern) = &filter.pattern else { return true };
    let message = batch.message(record);
    match record.form {
        MessageForm::JsonEscaped if memchr::memchr(b'\\', message).is_some() => {
            text.clear();
            unescape(message, text);
            pattern.is_match(text)
        }
        MessageForm::JsonEscaped | MessageForm::Raw => pattern.is_match(message),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::super::testing::{batch, container, push};
    use super::*;
    use crate::telemetry::status::Status;
    use crate::telemetry::taps::pattern;

    fn shown(source: Option<&str>, grep: Option<&str>, batch: &Batch) -> Vec<String> {
        let status = Arc::new(Status::default());
        let filter = Filter {
            source: source.map(str::to_owned),
            pattern: grep.map(|text| pattern(text).expect("a pattern")),
        };
        let mut watch = Taps::watch(status.clone(), filter).expect("room");
        show(&status.taps, batch);
        status.taps.close();
        let mut lines = Vec::new();
        while let Poll::Ready(Some(piece)) = watch.poll_piece(&mut Context::from_waker(Waker::noop())) {
            lines.extend(String::from_utf8(piece.to_vec()).expect("UTF-8").lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn filters_look_at_the_source_and_at_the_message_as_it_was_printed() {
        let source = container(1, "web-1");
        let mut batch = batch(&source, &[b"GET /a", b"POST /b"]);
        push(&mut batch, b"say \\\"c\\\"", MessageForm::JsonEscaped);
        let messages = |source, grep| -> Vec<String> {
            let value = |line: String| serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
            let lines = shown(source, grep, &batch).into_iter().map(value);
            lines.map(|value| value["message"].as_str().expect("a message").to_owned()).collect()
        };
        assert_eq!(messages(None, None), ["GET /a", "POST /b", "say \"c\""]);
        assert_eq!(messages(Some("web-1"), Some("^(GET|POST) /b")), ["POST /b"]);
        assert_eq!(messages(None, Some("\"c\"")), ["say \"c\""]);
        assert!(messages(Some("web"), None).is_empty());
        assert_eq!(messages(source.container.as_ref().map(|container| &container.id[..6]), None).len(), 3);
    }

    /// Short lines grow when they become records: a batch of them is more than one piece.
    #[test]
    fn a_batch_of_many_lines_comes_whole() {
        let texts: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
        let lines: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let shown = shown(None, None, &batch(&container(1, "web"), &lines));
        let bytes: usize = shown.iter().map(String::len).sum();
        assert!(
            shown.len() == 5_000 && bytes > 2 * TAP_PIECE_BYTES_MAX,
            "{} lines, {bytes} bytes",
            shown.len()
        );
        assert!(
            shown.iter().zip(&texts).all(|(line, text)| line.ends_with(&format!("\"message\":\"{text}\"}}")))
        );
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_alone() {
        let long = vec![b'x'; TAP_PIECE_BYTES_MAX + 1];
        let lines = shown(None, None, &batch(&container(1, "web"), &[b"a", &long, b"b"]));
        assert!(lines.len() == 3 && lines[0] == "{\"skipped\":1}", "{} lines", lines.len());
    }
}
