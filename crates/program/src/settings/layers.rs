//! One setting, looked for in the environment and in the settings file.
//!
//! | goes first | |
//! | --- | --- |
//! | `HPC_QUEUE_NAME` in the environment | no other program uses it |
//! | `NAME` in the environment | unless other programs use that name as well, see [`Shared`] |
//! | `HPC_QUEUE_NAME`, then `NAME`, in the settings file | what a person wrote for us |
//! | `NAME` in the environment, where it is shared | if at all, see [`Bare`] |
//!
//! Flags, which go before all of these, and defaults, which come after, are the parser's.

use std::ffi::OsString;

use super::file::SettingsFile;
use super::names::own;
use super::origin::Origin;
use crate::environment::Environment;

/// A setting whose name other programs use as well. Its variable in the environment may be meant for them, so a line in
/// our settings file goes before it.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    /// The name of the setting.
    pub name: &'static str,
    /// What such a variable means when nothing else sets it.
    pub bare: Bare,
}

/// What the variable of a shared name means to us when nothing else sets it.
#[derive(Debug, Clone, Copy)]
pub enum Bare {
    /// It is our setting.
    Counts,
    /// It is our setting if the variable of this other setting, which is ours alone, stands in the environment beside
    /// it and is what counts. Who sets up one there has set up both.
    Beside(&'static str),
    /// It is none of ours.
    Ignored,
}

/// Where settings are looked for.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) environment: Environment,
    pub(super) file: SettingsFile,
    pub(super) shared: &'static [Shared],
}

/// What was found of a setting.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The value, or why it cannot be understood.
    pub(super) value: Option<Result<(OsString, Origin), String>>,
    /// The variable of a shared name that counts although others may mean something else by it.
    pub(super) taken_bare: bool,
    /// The variable of a shared name that does not count, and is another one than what counts.
    pub(super) passed_over: Option<OsString>,
}

impl Layers {
    /// Looks for a setting. `by_flag` tells which other settings a flag sets.
    pub(super) fn find(&self, name: &str, by_flag: &dyn Fn(&str) -> bool) -> Found {
        let variable = |name: &str| {
            let value = self.environment.get(name)?.to_owned();
            Some(Ok((value, Origin::Environment(name.to_owned()))))
        };
        let line = |name: &str| Some(self.file.get(name)?.map(|(text, origin)| (OsString::from(text), origin)));
        let own = own(name);
        let Some(shared) = self.shared.iter().find(|shared| shared.name == name) else {
            let value = variable(&own).or_else(|| variable(name)).or_else(|| line(&own)).or_else(|| line(name));
            return Found { value, ..Found::default() };
        };
        let bare = variable(name).filter(|_| own != name);
        let counts = match shared.bare {
            Bare::Counts => true,
            Bare::Beside(other) => {
                !by_flag(other) && matches!(self.find(other, by_flag).value, Some(Ok((_, Origin::Environment(_)))))
            }
            Bare::Ignored => false,
        };
        let value = variable(&own).or_else(|| line(&own)).or_else(|| line(name));
        match (value, bare) {
            (None, Some(bare)) if counts => Found { value: Some(bare), taken_bare: true, passed_over: None },
            (value, Some(Ok((bare, _)))) => {
                let same = matches!(&value, Some(Ok((value, _))) if *value == bare);
                Found { value, taken_bare: false, passed_over: (!same).then_some(bare) }
            }
            (value, _) => Found { value, ..Found::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SHARED: &[Shared] = &[
        Shared { name: "APPTAINER_BIND", bare: Bare::Counts },
        Shared { name: "API_KEY", bare: Bare::Beside("PRODUCER_URL") },
    ];

    fn layers(variables: &[(&str, &str)], file: &str) -> Layers {
        let file = SettingsFile::parse(Path::new(".env"), file);
        Layers { environment: Environment::of(variables), file, shared: SHARED }
    }

    fn found(layers: &Layers, name: &str) -> (String, bool, Option<String>) {
        let found = layers.find(name, &|_| false);
        let value = found.value.map(|value| value.expect("it is understood"));
        let text = value.map(|(value, origin)| format!("{} {origin}", value.display())).unwrap_or_default();
        (text, found.taken_bare, found.passed_over.map(|value| value.display().to_string()))
    }

    #[test]
    fn the_environment_goes_before_the_file_and_names_of_our_own_before_others() {
        let file = "RESULTS_DIR=/4\nHPC_QUEUE_RESULTS_DIR=/3\n";
        let own = ("HPC_QUEUE_RESULTS_DIR", "/1");
        for (variables, text) in [
            (&[("RESULTS_DIR", "/2"), own][..], "/1 HPC_QUEUE_RESULTS_DIR from the environment"),
            (&[("RESULTS_DIR", "/2")], "/2 RESULTS_DIR from the environment"),
            (&[("RESULTS_DIR", " ")], "/3 HPC_QUEUE_RESULTS_DIR from .env line 2"),
        ] {
            assert_eq!(found(&layers(variables, file), "RESULTS_DIR").0, text);
        }
        assert_eq!(found(&layers(&[], ""), "RESULTS_DIR").0, "");
        let log = layers(&[("HPC_QUEUE_LOG", "info")], "");
        assert_eq!(found(&log, "HPC_QUEUE_LOG").0, "info HPC_QUEUE_LOG from the environment");
    }

    #[test]
    fn a_shared_name_in_the_environment_comes_after_the_file() {
        let site = ("APPTAINER_BIND", "/site");
        let both = layers(&[site], "APPTAINER_BIND=/mine");
        let expected = ("/mine APPTAINER_BIND from .env line 1".to_owned(), false, Some("/site".to_owned()));
        assert_eq!(found(&both, "APPTAINER_BIND"), expected);
        let own = layers(&[site, ("HPC_QUEUE_APPTAINER_BIND", "/own")], "APPTAINER_BIND=/mine");
        assert!(found(&own, "APPTAINER_BIND").0.starts_with("/own HPC_QUEUE_APPTAINER_BIND"));
        let alone = found(&layers(&[site], ""), "APPTAINER_BIND");
        assert_eq!(alone, ("/site APPTAINER_BIND from the environment".to_owned(), true, None));
        let same = layers(&[site], "APPTAINER_BIND=/site");
        assert_eq!(found(&same, "APPTAINER_BIND").2, None);
    }

    #[test]
    fn a_key_that_merely_lies_in_the_environment_is_nobodys_to_send() {
        let key = ("API_KEY", "theirs");
        let passed_over = (String::new(), false, Some("theirs".to_owned()));
        assert_eq!(found(&layers(&[key], "PRODUCER_URL=https://edge"), "API_KEY"), passed_over);
        let beside = layers(&[key, ("PRODUCER_URL", "https://edge")], "");
        assert_eq!(found(&beside, "API_KEY"), ("theirs API_KEY from the environment".to_owned(), true, None));
        let by_flag = beside.find("API_KEY", &|name| name == "PRODUCER_URL");
        assert_eq!((by_flag.value, by_flag.passed_over), (None, Some("theirs".into())));
        assert_eq!(found(&layers(&[key], "API_KEY=ours"), "API_KEY").0, "ours API_KEY from .env line 1");
    }
}
