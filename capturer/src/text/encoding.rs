//! The encodings that a text file may have, by name. `decode/text.rs` finds lines in them and decodes.

use encoding_rs::UTF_8;

/// How a file's text is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoding(pub(crate) &'static encoding_rs::Encoding);

/// UTF-8, which needs no decoding.
impl Default for Encoding {
    fn default() -> Encoding {
        Encoding(UTF_8)
    }
}

impl std::fmt::Debug for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoding({})", self.name())
    }
}

impl Encoding {
    /// The encoding with one of the WHATWG standard's names: `utf-16le`, `windows-1252`, `latin1`, `shift_jis`, `gbk`.
    pub fn named(name: &str) -> Option<Encoding> {
        let found = encoding_rs::Encoding::for_label_no_replacement(name.as_bytes())?;
        // ISO-2022-JP can change its character set on one line for the next ones, and nothing in a line shows that.
        (found != encoding_rs::ISO_2022_JP).then_some(Encoding(found))
    }

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Lines in it need no decoding.
    pub fn is_utf8(self) -> bool {
        self.0 == UTF_8
    }
}
