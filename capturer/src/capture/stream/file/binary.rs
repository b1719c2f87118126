//! Files that are not text, or not text that can be decoded. They are skipped if the config says so. Either way health
//! names them.

use super::FileSource;
use crate::capture::context::Context;
use crate::decode::binary::{self, Content, Kind, Seems, kind};
use crate::model::cursor::{FileId, TailPrint};
use crate::settings::{Binary, FileFormat};
use crate::telemetry::metrics::UnreadableReason;

/// How often a skipped file that is written to is looked at.
const LEFT_OUT_LOOK_MS: u64 = 10_000;

/// The content of the file being read.
#[derive(Debug, Default)]
pub(super) struct JudgedContent {
    /// Which file that is.
    file: Option<FileId>,
    verdict: Option<Content>,
    /// What it seems to be.
    seems: Option<Seems>,
}

/// What a file holds instead of text that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotText {
    /// It is left out, whatever the config says.
    Utf32,
    /// It is left out, and is somebody's log if it has the encoding that it seems to have.
    SeemsEncoded(Seems),
    /// It is left out, as it should be.
    Binary,
    /// It is read because it is named, or because the config says so.
    ReadAllTheSame(Option<Seems>),
}

impl NotText {
    pub fn reason(self) -> UnreadableReason {
        match self {
            NotText::Utf32 | NotText::ReadAllTheSame(_) => UnreadableReason::Undecodable,
            NotText::SeemsEncoded(_) | NotText::Binary => UnreadableReason::Binary,
        }
    }

    /// What health says of it, with the cure.
    pub fn text(self, path: &str) -> String {
        match self {
            NotText::Utf32 => {
                format!("{path} is UTF-32, which is not decoded, and is left out: write it as UTF-8")
            }
            NotText::SeemsEncoded(seems) => format!(
                "{path} is not text in UTF-8 and is left out: it looks like {}, so {}, or name it in `exclude`",
                seems.text(),
                seems.cure()
            ),
            NotText::Binary => format!(
                "{path} is not text and is left out: name it in `exclude`, or set `encoding` or `binary: read` to read it"
            ),
            NotText::ReadAllTheSame(seems) => {
                let cure = match seems {
                    Some(seems) => format!("it looks like {}, so {}", seems.text(), seems.cure()),
                    None => "set its `encoding`".to_owned(),
                };
                format!(
                    "{path} is read because it is named, but most of it is not UTF-8: {cure}, or `binary: skip` or \
                     `binary: read` if it has none"
                )
            }
        }
    }
}

impl FileSource {
    /// Whether the file being read is skipped; `buffer` was just read from it.
    pub(super) fn leaves_out(&mut self, buffer: &[u8]) -> bool {
        let holds_text = matches!(self.format, FileFormat::Auto | FileFormat::Raw);
        let Some(front) = self.chain.links.front().filter(|_| holds_text) else { return false };
        // What is read from its beginning may be another, rewritten in the same file.
        if self.judged.file != Some(front.found.id) || front.offset == 0 {
            self.judged = JudgedContent { file: Some(front.found.id), ..JudgedContent::default() };
        }
        if self.judged.verdict.is_none() {
            // For a file that is resumed, its beginning shows what it is.
            let head = &front.found.head;
            let first = if front.offset > 0 && kind(head) != Kind::Unknown { head } else { buffer };
            let is_known = self.text.rules.encoding.is_some() || self.text.rules.binary == Binary::Read;
            (self.judged.verdict, self.judged.seems) = (binary::judge(first, is_known), binary::seems(first));
        }
        self.is_left_out()
    }

    /// The verdict on the file that would be read now.
    fn verdict(&self) -> Option<Content> {
        let front = self.chain.links.front()?;
        self.judged.verdict.filter(|_| self.judged.file == Some(front.found.id))
    }

    /// Whether the file that would be read is skipped.
    pub fn is_left_out(&self) -> bool {
        match self.verdict() {
            Some(Content::Binary) => self.text.rules.binary == Binary::Skip,
            Some(Content::Utf32) => true,
            Some(Content::Text) | None => false,
        }
    }

    /// A skipped file was written to. It may have been emptied and be text now: a listing shows that.
    pub(super) fn look_later_at_left_out(&mut self, cx: &mut Context<'_>) {
        let due_ms = (self.rotated_looked_ms + LEFT_OUT_LOOK_MS).max(cx.now.mono_ms);
        self.look_at_rotated_by(due_ms, cx);
    }

    /// A skipped file is judged again if it is another one by now.
    pub(super) fn judge_left_out_anew(&mut self) {
        if self.is_left_out() && self.chain.links.front().is_some_and(|front| front.left_out.is_none()) {
            self.judged = JudgedContent::default();
        }
    }

    /// Why the file is skipped, if it is, in a few words.
    pub(super) fn left_out(&self) -> Option<&'static str> {
        match self.verdict()? {
            Content::Binary if self.is_left_out() => Some("binary, not text"),
            Content::Utf32 => Some("UTF-32, which is not decoded"),
            Content::Binary | Content::Text => None,
        }
    }

    /// As far as is known by now.
    pub fn is_text(&self) -> bool {
        matches!(self.verdict(), None | Some(Content::Text))
    }

    /// What to report of a file that is not text, with its path.
    pub fn not_text(&self) -> Option<(NotText, String)> {
        let name = &self.chain.links.front()?.found.name;
        let not_text = match (self.verdict()?, self.is_left_out(), self.judged.seems) {
            (Content::Text, ..) => return None,
            (Content::Utf32, ..) => NotText::Utf32,
            (Content::Binary, true, Some(seems)) => NotText::SeemsEncoded(seems),
            (Content::Binary, true, None) => NotText::Binary,
            (Content::Binary, false, seems) => NotText::ReadAllTheSame(seems),
        };
        Some((not_text, format!("{}/{name}", self.directory)))
    }

    /// Skips everything in the file, at least up to `end`. Its saved position stays where it is: if the config says later
    /// how to read the file, none of it is missing.
    pub(super) fn pass_over_front(&mut self, end: u64) {
        if let Some(front) = self.chain.links.front_mut() {
            front.left_out.get_or_insert(front.offset);
            front.len = front.len.max(end);
            (front.offset, front.tail) = (front.len, TailPrint::default());
        }
    }
}
