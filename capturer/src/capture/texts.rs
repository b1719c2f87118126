//! Texts that thousands of streams have in common, such as why each is in its state: recent ones are shared.

use std::sync::Arc;

/// How many are kept. Streams that are taken up together have three or four.
const KNOWN_MAX: usize = 8;

/// Recent texts, oldest first.
#[derive(Debug, Default)]
pub struct Texts(Vec<Arc<str>>);

impl Texts {
    /// The text, shared with others if it is a recent one.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        if self.0.len() == KNOWN_MAX {
            self.0.remove(0);
        }
        let text: Arc<str> = text.into();
        self.0.push(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_there_once() {
        let mut texts = Texts::default();
        let first = texts.share("0");
        for number in 1..KNOWN_MAX {
            texts.share(&number.to_string());
        }
        assert!(Arc::ptr_eq(&first, &texts.share("0")));
        texts.share("one too many");
        assert_eq!(texts.0.len(), KNOWN_MAX);
        assert!(!Arc::ptr_eq(&first, &texts.share("0")), "the oldest went");
    }
}
