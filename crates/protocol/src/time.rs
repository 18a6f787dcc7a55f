//! How instants are written: with three decimals, always, so that their texts sort as they do.
//!
//! Out of scope: reading, which takes any number of decimals; other versions wrote none to three.

use serde::{Serialize, Serializer};

use crate::Timestamp;

pub(crate) fn write<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

pub(crate) fn write_if_any<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| format!("{time:.3}")).serialize(serializer)
}
