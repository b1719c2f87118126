//! Which outputs are used by which streams. A mark is kept as long as somebody uses its output. It is also kept if the output
//! has records that no position covers (`OutputMark::uncovered`): their log was left before it was read again, and may
//! come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tracker;
use crate::model::record::{OutputMark, StreamKey};

#[derive(Debug)]
pub(super) struct Output {
    pub(super) mark: OutputMark,
    /// Streams whose records go there, in order. The mark goes when the last of them is forgotten, unless it is still needed.
    users: Vec<StreamKey>,
}

impl Tracker {
    /// A sink has prepared an output for a stream, and this is its mark now. The stream uses it from here on, however long
    /// [`Tracker::attach`] has to wait for other sinks: another stream may write there meanwhile, and then leave it.
    pub fn on_prepared(&mut self, stream: &StreamKey, sink: &str, mark: &OutputMark) {
        let known = self.outputs.get(sink).and_then(|outputs| outputs.get(&mark.path));
        if known.is_none_or(|output| output.mark != *mark) {
            self.touch_output(sink, &mark.path);
        }
        use_output(&mut self.outputs, sink, mark.clone(), stream);
    }

    /// A stream is gone before it was attached: it will not use the output that was prepared for it.
    pub fn abandon_prepared(&mut self, stream: &StreamKey, sink: &str, path: &str) {
        let used =
            self.position(stream, sink).is_some_and(|position| position.output.as_deref() == Some(path));
        if !used && self.leave_output(stream, sink, Some(path)) {
            self.dirty_seq += 1;
        }
    }

    pub(super) fn set_output(&mut self, stream: &StreamKey, sink: &str, mark: Option<OutputMark>) {
        let Some(mark) = mark else { return };
        let position = self.position(stream, sink).expect("the caller looked it up");
        if position.output.as_deref() == Some(&*mark.path) {
            // The usual case, once per batch: no search for users, no copy of the path.
            if let Some(output) = self.outputs.get_mut(sink).and_then(|outputs| outputs.get_mut(&mark.path)) {
                if !self.whole_due {
                    self.changed.output(sink, &mark.path);
                }
                output.mark = mark;
                return;
            }
        }
        let position = self.position(stream, sink).expect("the caller looked it up");
        let before = position.output.replace(mark.path.clone());
        if before.as_deref() != Some(&*mark.path) {
            self.leave_output(stream, sink, before.as_deref());
        }
        self.touch_output(sink, &mark.path);
        use_output(&mut self.outputs, sink, mark, stream);
    }

    /// A stream no longer uses an output. Returns whether it was the last that did: then the mark is gone.
    pub(super) fn leave_output(&mut self, stream: &StreamKey, sink: &str, path: Option<&str>) -> bool {
        let (Some(path), Some(outputs)) = (path, self.outputs.get_mut(sink)) else { return false };
        let mut mark_went = false;
        if let Some(output) = outputs.get_mut(path) {
            if let Ok(at) = output.users.binary_search(stream) {
                output.users.remove(at);
            }
            if output.users.is_empty() && output.mark.uncovered.is_empty() {
                mark_went = true;
                outputs.remove(path);
                if !self.whole_due {
                    self.changed.output(sink, path);
                }
            }
        }
        if outputs.is_empty() {
            self.outputs.remove(sink);
        }
        mark_went
    }
}

/// Takes up a mark that an earlier run kept though nobody used its output.
pub(super) fn keep_uncovered(
    outputs: &mut BTreeMap<String, BTreeMap<Arc<str>, Output>>,
    sink: &str,
    mark: OutputMark,
) {
    if !mark.uncovered.is_empty() {
        let outputs = outputs.entry(sink.to_owned()).or_default();
        outputs.entry(mark.path.clone()).or_insert(Output { mark, users: Vec::new() });
    }
}

pub(super) fn use_output(
    outputs: &mut BTreeMap<String, BTreeMap<Arc<str>, Output>>,
    sink: &str,
    mark: OutputMark,
    stream: &StreamKey,
) {
    let outputs = outputs.entry(sink.to_owned()).or_default();
    let output =
        outputs.entry(mark.path.clone()).or_insert_with(|| Output { mark: mark.clone(), users: Vec::new() });
    output.mark = mark;
    if let Err(at) = output.users.binary_search(stream) {
        if output.users.is_empty() {
            output.users.reserve_exact(1);
        }
        output.users.insert(at, stream.clone());
    }
}
