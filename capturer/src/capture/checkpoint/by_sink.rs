//! A small map with a value for each sink of a stream. There are one to three sinks; a BTreeMap's node has room for
//! eleven, in each of tens of thousands of streams, and once more in each save.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// By the sink's name. All streams share the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BySink<T>(Vec<(Arc<str>, T)>);

impl<T> Default for BySink<T> {
    fn default() -> Self {
        BySink(Vec::new())
    }
}

impl<T> BySink<T> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub fn get(&self, sink: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| **name == *sink).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, sink: &str) -> Option<&mut T> {
        self.0.iter_mut().find(|(name, _)| **name == *sink).map(|(_, value)| value)
    }

    pub fn or_insert(&mut self, sink: &Arc<str>, value: impl FnOnce() -> T) {
        if self.get(sink).is_none() {
            self.0.reserve_exact(1);
            self.0.push((Arc::clone(sink), value()));
        }
    }

    pub fn remove(&mut self, sink: &str) -> Option<T> {
        let at = self.0.iter().position(|(name, _)| **name == *sink)?;
        Some(self.0.remove(at).1)
    }
}

impl<T> IntoIterator for BySink<T> {
    type Item = (Arc<str>, T);
    type IntoIter = std::vec::IntoIter<(Arc<str>, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// In the order of the names, each once.
impl<T> FromIterator<(Arc<str>, T)> for BySink<T> {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, T)>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        BySink(all)
    }
}

impl<T: Serialize> Serialize for BySink<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BySink<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}
