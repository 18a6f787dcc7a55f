//! What kept a run from the rest of its node, and what did not: facts, and no judgement.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Word;
use crate::result::if_known;

/// What a probe has seen in a place like that of the run. What is absent was not seen by anybody, or was not asked by
/// the version that wrote it; readers pass over facts that they do not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The network that the task could use.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub network: Option<Word<Network>>,
    /// The filter of system calls.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// By what right the task has namespaces of its own.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Word<Namespaces>>,
    /// What the task sees of `/sys`.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub sys: Option<Word<Sys>>,
    /// Without a container: where the task could write.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub writes: Option<Word<Reach>>,
    /// Without a container: whom the task could signal, and to whose abstract sockets it could connect.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub signals: Option<Word<Reach>>,
    /// The session keyring of the kernel that the task had.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub keyring: Option<Word<SessionKeyring>>,
    /// What held the task to its limit of memory; absent where it had none.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Word<MemoryLimit>>,
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// One of its own in which nothing but itself is to be reached.
    None,
    /// That of its node.
    Host,
    /// One of its own from which others are reached: somebody asked for it.
    Other,
}

/// By what right namespaces were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespaces {
    /// Within a user namespace: nobody had a right that users do not have.
    User,
    /// By a setuid program.
    Setuid,
    /// By root.
    Root,
    /// There are none.
    None,
}

/// What is seen of `/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sys {
    /// Nothing.
    None,
    /// All but what is hidden, and it is mounted so that nobody writes to it.
    ReadOnly,
    /// What its files let this user write can be written.
    ReadWrite,
}

/// How far a task gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// To what is its own, or was named for it.
    Own,
    /// To all that its user gets to.
    All,
}

/// Whose session keyring a task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKeyring {
    /// Its own, which was empty at its begin.
    Own,
    /// One that other tasks of the same user here have as well, and nobody else.
    Shared,
    /// That of the session in which the daemon was started.
    Inherited,
}

/// What holds a task to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLimit {
    /// Somebody looks from time to time, and ends what has passed it.
    Watch,
    /// The kernel, for a control group that only the task is in.
    Cgroup,
}

/// A filter of system calls: `none`, `other`, or `sha256:` and the beginning of the digest of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seccomp(String);

impl Seccomp {
    /// There is no filter.
    pub fn none() -> Self {
        Self("none".to_owned())
    }

    /// There is one that is not ours.
    pub fn other() -> Self {
        Self("other".to_owned())
    }

    /// That of the profile with this digest, in hexadecimal.
    pub fn of_profile(digest: &str) -> Self {
        Self(format!("sha256:{digest}"))
    }

    /// Is there a filter, whosever it is?
    pub fn is_there(&self) -> bool {
        self.0 != "none"
    }
}

impl fmt::Display for Seccomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_isolation_format_unchanged() {
        let facts = Isolation {
            network: Some(Network::None.into()),
            seccomp: Some(Seccomp::of_profile("0123456789abcdef")),
            namespaces: Some(Namespaces::User.into()),
            sys: Some(Sys::ReadOnly.into()),
            writes: Some(Reach::Own.into()),
            signals: Some(Reach::All.into()),
            keyring: Some(SessionKeyring::Own.into()),
            memory: Some(MemoryLimit::Watch.into()),
        };
        let json = r#"{"network":"none","seccomp":"sha256:0123456789abcdef","namespaces":"user","sys":"read_only","writes":"own","signals":"all","keyring":"own","memory":"watch"}"#;
        assert_eq!(serde_json::to_string(&facts).unwrap(), json);
        assert_eq!(serde_json::from_str::<Isolation>(json).unwrap(), facts);
        assert_eq!(serde_json::to_string(&Isolation::default()).unwrap(), "{}");
    }

    #[test]
    fn facts_of_other_versions_are_kept_or_passed_over() {
        let newer = r#"{"network":"overlay","seccomp":{"a":1},"sys":7,"landlock":5}"#;
        let facts: Isolation = serde_json::from_str(newer).unwrap();
        assert_eq!(facts.network, Some(Word::Unknown("overlay".to_owned())));
        assert_eq!((facts.seccomp, facts.namespaces, facts.sys), (None, None, None));
    }
}
