//! The end of what writes a log: a container exits or is removed, a path is gone.

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::stream::SourceEvent;
use crate::decode::assemble::Lines;
use crate::model::rare::Begins;

/// Exits of a container; a followed path has none.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// One that was reported. It counts once the files were listed again, since a rotation may have come before it.
    pub(super) told_ns: Option<i64>,
    /// When it last exited: a line open since before will not be continued.
    pub(super) at_ns: Option<i64>,
}

impl Begins for Exits {
    const BEGINNING: &'static Exits = &Exits { told_ns: None, at_ns: None };
}

impl FileSource {
    /// When the container last exited.
    pub fn set_exited(&mut self, at_ns: Option<i64>, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        if at_ns.is_some() && at_ns != self.exits.told_ns {
            self.exits.told_ns = at_ns;
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
        } else if let Some(exited_at) = self.exits.at_ns {
            self.assembler.close_begun_by(exited_at, lines);
        }
    }
}
