//! Tables, as the hub sees them: statements as text, and rows of plain values. The object in the Worker and the file of
//! `local-edge` both are this.

use serde::Serialize;

/// A value in a row, or one that a statement is given; as JSON it is what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// There is none.
    Null,
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// Where the tables are. All that one [`super::Hub::handle`] does is one transaction: the shell sees to it.
pub trait Database {
    /// Why a statement could not be carried out.
    type Error;

    /// Carries out a statement and returns its rows. Parameters are written `?1`, `?2`, ….
    fn run(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>, Self::Error>;
}

impl Value {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A column of a row as text; empty where it is none.
pub(crate) fn text_at(row: &[Value], column: usize) -> &str {
    row.get(column).and_then(Value::as_text).unwrap_or_default()
}

/// A column of a row as a number; 0 where it is none.
pub(crate) fn integer_at(row: &[Value], column: usize) -> i64 {
    row.get(column).and_then(Value::as_integer).unwrap_or_default()
}
