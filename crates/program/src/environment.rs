//! The environment of this process. Nothing else in this crate reads it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Those of these variables that are set, as they are. It is for what another program is to have of the environment,
/// and for what is said in it by who has started us; settings are read as such.
pub fn variables(names: &[&str]) -> Vec<(OsString, OsString)> {
    names.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))).collect()
}

/// Variables by name. One that is empty sets nothing, as `NAME=` in a unit or a template means it.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn of_this_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    /// The names of what is set and has this in front.
    pub(crate) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter_map(|name| name.to_str()).filter(move |name| name.starts_with(prefix))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        let is_blank = |value: &OsStr| value.to_str().is_some_and(|text| text.trim().is_empty());
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !is_blank(value))
    }
}
