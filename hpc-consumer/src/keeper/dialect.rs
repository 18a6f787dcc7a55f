//! Which version of the messages is spoken between a daemon and a keeper of different builds.
//!
//! A keeper lives for as long as its runs, so a daemon that was replaced meets the keeper of the one before it, and
//! goes on with it. Each side says which versions it speaks, and what is spoken is the newest that both do.
//!
//! Version 1 breaks off when it hears a message that it does not know; it passes over fields that it does not know.
//! From version 2 on a message that is not known is passed over, too. So most of what comes to be needs no new version:
//! a field with a default, or a message that is sent only in version 2 or later. The version is raised where an older
//! side would do harm by not heeding what is new.
//!
//! Version 3 says the same as version 2, over a socket in the directory of the keeper: one that listens on an abstract
//! name is to be replaced when it holds no run, since jobs in containers reach it, too.
//!
//! Version 4 says what a run is kept from, and how much memory it may use. An older keeper begins it without that.
//!
//! Version 5 says which secrets a run sees. An older keeper would not keep them out of what a run has printed, and is
//! given none of these.

use std::fmt;

/// The versions that one side speaks: all from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) oldest: u32,
    pub(super) newest: u32,
}

/// What this program speaks.
pub(super) const OURS: Versions = Versions { oldest: 1, newest: 5 };

/// The first version that has a run confined, and its memory limited.
pub(super) const CONFINES: u32 = 4;

/// The first version that keeps secrets.
pub(super) const KEEPS_SECRETS: u32 = 5;

/// There is no version that both speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    TheyAreOlder,
    TheyAreNewer,
}

impl Versions {
    /// As they are written: version 1 says only which one it is.
    pub(super) fn written(v: u32, oldest: Option<u32>) -> Self {
        Self { oldest: oldest.unwrap_or(v), newest: v }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { oldest, newest } if oldest == newest => write!(f, "version {newest}"),
            Self { oldest, newest } => write!(f, "versions {oldest} to {newest}"),
        }
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TheyAreOlder => "too old for this daemon",
            Self::TheyAreNewer => "too new for this daemon",
        })
    }
}

/// The version that both speak best.
pub(super) fn agree(ours: Versions, theirs: Versions) -> Result<u32, Apart> {
    let best = ours.newest.min(theirs.newest);
    match best {
        _ if best < ours.oldest => Err(Apart::TheyAreOlder),
        _ if best < theirs.oldest => Err(Apart::TheyAreNewer),
        _ => Ok(best),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions(oldest: u32, newest: u32) -> Versions {
        Versions { oldest, newest }
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        assert_eq!(agree(OURS, OURS), Ok(OURS.newest));
        assert_eq!(agree(OURS, Versions::written(1, None)), Ok(1), "what the first release speaks");
        for (ours, theirs, agreed) in [
            (versions(1, 3), versions(2, 5), Ok(3)),
            (versions(2, 5), versions(1, 3), Ok(3)),
            (versions(3, 5), versions(1, 3), Ok(3)),
            (versions(3, 5), versions(1, 2), Err(Apart::TheyAreOlder)),
            (versions(1, 2), versions(3, 5), Err(Apart::TheyAreNewer)),
        ] {
            assert_eq!(agree(ours, theirs), agreed, "{ours} and {theirs}");
        }
        assert_eq!(
            (versions(1, 1).to_string(), versions(1, 2).to_string()),
            ("version 1".into(), "versions 1 to 2".into())
        );
    }

    proptest! {
        #[test]
        fn both_sides_come_to_the_same(ours in any::<(u32, u32)>(), theirs in any::<(u32, u32)>()) {
            let sorted = |(a, b): (u32, u32)| versions(a.min(b), a.max(b));
            let (ours, theirs) = (sorted(ours), sorted(theirs));
            prop_assert_eq!(agree(ours, theirs).ok(), agree(theirs, ours).ok());
            if let Ok(agreed) = agree(ours, theirs) {
                for side in [ours, theirs] {
                    prop_assert!((side.oldest..=side.newest).contains(&agreed));
                }
            }
        }
    }
}
