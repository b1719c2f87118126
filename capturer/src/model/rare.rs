//! A value that differs from its default in hardly any stream: while it is the default, it takes a pointer's room. Each
//! of tens of thousands of quiet files has some.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads as the default until it is changed.
#[derive(Clone, Debug)]
pub struct Rare<T>(Option<Box<T>>);

/// A type whose default can be lent without making one.
pub trait Begins: Default + 'static {
    /// The default.
    const BEGINNING: &'static Self;
}

impl<T: 'static> Begins for BTreeSet<T> {
    const BEGINNING: &'static BTreeSet<T> = &BTreeSet::new();
}

impl<K: 'static, V: 'static> Begins for BTreeMap<K, V> {
    const BEGINNING: &'static BTreeMap<K, V> = &BTreeMap::new();
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Rare(None)
    }
}

impl Begins for String {
    const BEGINNING: &'static String = &String::new();
}

impl<T: 'static> Begins for Vec<T> {
    const BEGINNING: &'static Vec<T> = &Vec::new();
}

impl<T: Begins + PartialEq> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Rare((value != *T::BEGINNING).then(|| Box::new(value)))
    }
}

impl<T: Begins> Rare<T> {
    /// Takes the value and leaves the default.
    pub fn take(&mut self) -> T {
        self.0.take().map_or_else(T::default, |value| *value)
    }
}

impl<T: Begins> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BEGINNING)
    }
}

impl<T: Begins> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Begins + PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Begins + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<T: Begins + Eq> Eq for Rare<T> {}

impl<'de, T: Begins + PartialEq + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Rare::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Begins for u64 {
        const BEGINNING: &'static u64 = &0;
    }

    #[test]
    fn it_takes_room_once_it_is_changed() {
        let mut rare = Rare::<u64>::default();
        assert!(*rare == 0 && rare.0.is_none());
        assert!(Rare::from(0_u64).0.is_none() && *Rare::from(3_u64) == 3);
        *rare += 7;
        assert!(*rare == 7 && rare.0.is_some());
        assert_eq!((rare.take(), *rare), (7, 0));
        assert!(rare.0.is_none());
    }
}
