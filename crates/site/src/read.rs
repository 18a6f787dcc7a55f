//! Reading tables of TOML, with everything that is wrong told: what is asked for is what a table may have, and what
//! nobody has asked for is unknown.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use protocol::duration::{self, Unit};
use protocol::{Memory, PoolName, size};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Found, meant};

/// A table while it is read.
pub(crate) struct Table<'t> {
    /// Its name with those of all around it: `pool.cpu.slot`.
    pub(crate) name: String,
    /// Where its name stands.
    pub(crate) at: Range<usize>,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

/// A key of any name, with its value.
pub(crate) struct Entry<'t> {
    /// The key.
    pub(crate) key: &'t str,
    /// With the names of all tables around it.
    pub(crate) name: String,
    /// Where the key stands.
    pub(crate) key_at: Range<usize>,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    /// The whole file.
    pub(crate) fn root(table: &'t Spanned<DeTable<'t>>) -> Self {
        Self { name: String::new(), at: 0..0, table: table.get_ref(), known: Vec::new() }
    }

    /// Is there such a key, right or wrong?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries().any(|entry| entry.key == key)
    }

    /// The value of a key, right or wrong.
    pub(crate) fn value(&self, key: &str) -> Option<&'t DeValue<'t>> {
        self.entries().find(|entry| entry.key == key).map(|entry| entry.value())
    }

    /// Where a key stands; the table, where it is missing.
    pub(crate) fn key_at(&self, key: &str) -> Range<usize> {
        self.entries().find(|entry| entry.key == key).map_or(self.at.clone(), |entry| entry.key_at)
    }

    /// Where the value of a key stands; the table, where it is missing.
    pub(crate) fn value_at(&self, key: &str) -> Range<usize> {
        self.entries().find(|entry| entry.key == key).map_or(self.at.clone(), |entry| entry.value.span())
    }

    /// The name of a key with those of all tables around it.
    pub(crate) fn name_of(&self, key: &str) -> String {
        let key = if is_bare(key) { key.to_owned() } else { format!("\"{key}\"") };
        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) }
    }

    /// All keys, whatever they are.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'t>> {
        self.table.iter().map(|(key, value)| Entry {
            key: key.get_ref(),
            name: self.name_of(key.get_ref()),
            key_at: key.span(),
            value,
        })
    }

    fn entry(&mut self, key: &'static str) -> Option<Entry<'t>> {
        self.known.push(key);
        self.entries().find(|entry| entry.key == key)
    }

    /// A value, where it is there and right. What is wrong with it is the end of a sentence that begins with its name.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        found: &mut Found<'_>,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        self.entry(key)?.read(found, parse)
    }

    /// A list, without those of its items that are wrong.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        found: &mut Found<'_>,
        parse: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let entry = self.entry(key)?;
        let DeValue::Array(items) = entry.value.get_ref() else {
            let example =
                format!("`{}` must be a list, as [\"…\", \"…\"]; it is {}", entry.name, kind(entry.value.get_ref()));
            found.say(&entry.value.span(), example);
            return None;
        };
        let read = |item: &Spanned<DeValue<'t>>| match parse(item.get_ref()) {
            Ok(item) => Some(item),
            Err(problem) => {
                found.say(&item.span(), format!("an item of `{}` {problem}", entry.name));
                None
            }
        };
        Some(items.iter().filter_map(read).collect())
    }

    /// A table within this one.
    pub(crate) fn table(&mut self, key: &'static str, found: &mut Found<'_>) -> Option<Table<'t>> {
        self.entry(key)?.table(found)
    }

    /// Tells of all keys that nobody has asked for.
    pub(crate) fn finish(&self, found: &mut Found<'_>) {
        for entry in self.entries().filter(|entry| !self.known.contains(&entry.key)) {
            let advice = match meant(entry.key, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            found.say(&entry.key_at, format!("`{}` is no key; {advice}", entry.name));
        }
    }
}

impl<'t> Entry<'t> {
    pub(crate) fn read<T>(
        &self,
        found: &mut Found<'_>,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.value.get_ref()) {
            Ok(value) => Some(value),
            Err(problem) => {
                found.say(&self.value.span(), format!("`{}` {problem}", self.name));
                None
            }
        }
    }

    pub(crate) fn table(&self, found: &mut Found<'_>) -> Option<Table<'t>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            let problem = format!(
                "`{}` must be a table, as [{}] or {{ … }}; it is {}",
                self.name,
                self.name,
                kind(self.value.get_ref())
            );
            found.say(&self.value.span(), problem);
            return None;
        };
        Some(Table { name: self.name.clone(), at: self.key_at.clone(), table, known: Vec::new() })
    }

    pub(crate) fn value(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    pub(crate) fn value_at(&self) -> Range<usize> {
        self.value.span()
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A text that is not empty, and on one line.
pub(crate) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if text.is_empty() => Err("is empty".to_owned()),
        DeValue::String(text) if text.chars().any(char::is_control) => {
            Err("has a control character, as a line break; it must be on one line".to_owned())
        }
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("must be a text between quotes; it is {}", kind(other))),
    }
}

/// Any text that a process can be given.
pub(crate) fn any_text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if text.contains('\0') => {
            Err("has a zero byte, which no process can be given".to_owned())
        }
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("must be a text between quotes; it is {}", kind(other))),
    }
}

/// A text that is one of these.
pub(crate) fn one_of<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let given = text(value)?;
        words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("is \"{given}\"; it must be {}", names.join(" or "))
        })
    }
}

pub(crate) fn yes_or_no(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, without quotes; it is {}", kind(value)))
}

pub(crate) fn whole(allowed: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        let number = value.as_integer().and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
        number.filter(|number| allowed.contains(number)).ok_or_else(|| {
            format!("must be a whole number from {} to {}, without quotes", allowed.start(), allowed.end())
        })
    }
}

pub(crate) fn memory(value: &DeValue<'_>) -> Result<Memory, String> {
    // A number without its unit is refused as well, and by the same sentence.
    value.as_str().unwrap_or_default().parse().map_err(|error: protocol::InvalidMemory| error.to_string())
}

pub(crate) fn bytes(allowed: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let bytes = value.as_str().and_then(size::parse).filter(|bytes| allowed.contains(bytes));
        bytes.ok_or_else(|| {
            let (least, most) = (size::shown(*allowed.start()), size::shown(*allowed.end()));
            format!("must be a size with its unit, as \"64KB\" or \"16MiB\", from {least} to {most}")
        })
    }
}

/// A length of time with its unit: a plain number could count anything.
pub(crate) fn time(allowed: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let text = value.as_str().filter(|text| text.trim().parse::<f64>().is_err());
        let time = text.and_then(|text| duration::parse(text, Unit::Seconds, allowed.clone()).ok());
        time.ok_or_else(|| {
            let bounds = match (duration::shown(*allowed.start()), *allowed.end()) {
                (least, Duration::MAX) => format!("at least {least}"),
                (least, most) => format!("from {least} to {}", duration::shown(most)),
            };
            format!("must be a length of time with its unit, as \"90s\", \"15m\", \"1h30m\" or \"2d\", {bounds}")
        })
    }
}

pub(crate) fn pool_name(value: &DeValue<'_>) -> Result<PoolName, String> {
    text(value)?.parse().map_err(|error: protocol::InvalidPoolName| error.to_string())
}
