//! The end of what writes a log: a container exits or is removed, a path is gone.

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::stream::SourceEvent;
use crate::decode::assemble::Lines;

impl FileSource {
    /// When the container last exited.
    pub fn set_exited(&mut self, at_ns: Option<i64>, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        if at_ns.is_some() && at_ns != self.exit_told_ns {
            self.exit_told_ns = at_ns;
            self.scan(cx);
        }
        self.go_on(cx, told);
    }

    /// The container or path is gone.
    pub fn gone(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.gone = true;
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        for link in self.chain.links.iter_mut().chain(parked) {
            link.unread = true;
        }
        // One more look: a file may have been made and not yet seen.
        self.scan(cx);
        self.go_on(cx, told);
    }

    /// A line left open is whole when nothing can follow it: not when a rotation fell into its middle.
    pub(super) fn close_open_lines(&mut self, lines: &mut Lines) {
        if self.chain.links.len() > 1 {
            return;
        }
        if self.gone {
            self.assembler.close_all(lines);
        } else if let Some(exited_at) = self.exited_at_ns {
            self.assembler.close_begun_by(exited_at, lines);
        }
    }
}
