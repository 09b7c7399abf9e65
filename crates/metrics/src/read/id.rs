//! Ids, which some files have as integers and some as strings.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The id of a question or an image, as its file has it. Ids are equal if they are written with the same characters,
/// because results may have as strings what the references have as integers.
#[derive(Debug, Clone)]
pub struct Id {
    text: String,
    integer: bool,
}

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Id {
    /// An id that is a string.
    fn from(text: &str) -> Id {
        Id { text: text.to_owned(), integer: false }
    }
}

impl From<i64> for Id {
    /// An id that is an integer.
    fn from(id: i64) -> Id {
        Id { text: id.to_string(), integer: true }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Id) -> bool {
        self.text == other.text
    }
}

impl Eq for Id {}

impl PartialEq<str> for Id {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<&str> for Id {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for Id {
    /// An integer if it is one in its file, otherwise a string.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match (self.integer, self.text.parse::<i64>(), self.text.parse::<u64>()) {
            (true, Ok(id), _) => to.serialize_i64(id),
            (true, _, Ok(id)) => to.serialize_u64(id),
            _ => to.serialize_str(&self.text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an id: a string or an integer")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id { text: id.to_string(), integer: true })
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(id.into())
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(id.into())
            }
        }
        from.deserialize_any(Visitor)
    }
}
