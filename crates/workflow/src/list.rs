//! Lists of a document, which end before they take all the memory that there is: three bytes of a document can be a
//! text of twenty-four.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list of so many entries at the most; a longer one is an error.
#[derive(Debug)]
pub(crate) struct List<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MAX {
                        let problem = format!("a list has more than {MAX} entries; make several workflows of it");
                        return Err(A::Error::custom(problem));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// The names of the fields of an object, the first of them.
#[derive(Debug, Default)]
pub(crate) struct Keys(pub(crate) Vec<String>);

/// More than any object has that can be used.
const KEYS_MAX: usize = 64;

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if keys.len() < KEYS_MAX {
                        keys.push(key);
                    }
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_at_its_bound() {
        let read = serde_json::from_str::<List<u8, 2>>;
        assert_eq!(read("[1,2]").unwrap().0, [1, 2]);
        assert!(read("[1,2,3]").unwrap_err().to_string().starts_with("a list has more than 2 entries"));
        assert!(read("{}").unwrap_err().to_string().contains("expected a list"));
    }

    #[test]
    fn of_many_fields_the_first_are_named() {
        let object: Vec<String> = (0..KEYS_MAX * 2).map(|number| format!("\"{number}\":[{{}}]")).collect();
        let keys: Keys = serde_json::from_str(&format!("{{{}}}", object.join(","))).unwrap();
        assert_eq!((keys.0.len(), keys.0[1].as_str()), (KEYS_MAX, "1"));
    }
}
