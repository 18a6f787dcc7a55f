//! Who keeps a program running.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who keeps a program running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// systemd, by a unit of the user.
    Systemd,
    /// launchd of macOS, by an agent of the user.
    Launchd,
    /// A detached start, and two lines of the user's crontab.
    Cron,
    /// A line of `scrontab`: Slurm starts it as a job of its own.
    Scrontab,
    /// A detached start, and a person.
    Detached,
}

impl Way {
    /// All of them, by their names.
    pub const ALL: [(&str, Self); 5] = [
        ("systemd", Self::Systemd),
        ("launchd", Self::Launchd),
        ("cron", Self::Cron),
        ("scrontab", Self::Scrontab),
        ("detached", Self::Detached),
    ];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, way)| way == self).map_or("", |(name, _)| name))
    }
}

/// No such way.
#[derive(Debug, thiserror::Error)]
#[error("it is systemd, cron, scrontab or detached")]
pub struct UnknownWay;

impl FromStr for Way {
    type Err = UnknownWay;

    fn from_str(text: &str) -> Result<Self, UnknownWay> {
        // launchd is of macOS, where nobody chooses.
        let found = Self::ALL.iter().find(|(name, way)| *name == text && *way != Self::Launchd);
        found.map(|(_, way)| *way).ok_or(UnknownWay)
    }
}

/// What was seen of the service managers of a Linux machine: for each, whether it can be used by this user, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A systemd manager of this user answers.
    pub systemd: Result<(), String>,
    /// The crontab of this user can be read, and a cron daemon runs.
    pub cron: Result<(), String>,
    /// The `scrontab` of this user can be read.
    pub scrontab: Result<(), String>,
}

impl Seen {
    /// The best way here, and what is to be said of the others, the best first.
    ///
    /// With Slurm's the daemon lives in an allocation that ends, and its jobs with it: so cron goes before it.
    pub fn best(&self) -> (Way, Vec<String>) {
        let ways = [(Way::Systemd, &self.systemd), (Way::Cron, &self.cron), (Way::Scrontab, &self.scrontab)];
        let mut passed_over = Vec::new();
        for (way, found) in ways {
            match found {
                Ok(()) => return (way, passed_over),
                Err(why) => passed_over.push(format!("not {way}: {why}")),
            }
        }
        (Way::Detached, passed_over)
    }

    /// Why this one cannot be used.
    pub fn refuses(&self, way: Way) -> Option<&str> {
        let found = match way {
            Way::Systemd => &self.systemd,
            Way::Cron => &self.cron,
            Way::Scrontab => &self.scrontab,
            Way::Launchd => return Some("launchd is of macOS"),
            Way::Detached => return None,
        };
        found.as_ref().err().map(String::as_str)
    }
}

/// Do services of the user go on when the user logs out?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lingering {
    /// Yes.
    On,
    /// No.
    Off,
    /// It is not told.
    Unknown,
}

impl Lingering {
    /// What `loginctl show-user --property=Linger` says.
    pub fn told(answer: Option<&str>) -> Self {
        match answer.and_then(|text| text.lines().find_map(|line| line.strip_prefix("Linger="))) {
            Some("yes") => Self::On,
            Some("no") => Self::Off,
            _ => Self::Unknown,
        }
    }

    /// What a person has to know of it.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::On => None,
            Self::Off => Some(
                "lingering is off: when your last session here ends, systemd ends your services and all that they have \
                 started, jobs included, and it starts none when the machine starts; `loginctl enable-linger` sets it, \
                 where the site allows that",
            ),
            Self::Unknown => Some(
                "whether lingering is on cannot be told: without it, systemd ends your services, jobs included, when \
                 your last session here ends; `loginctl enable-linger` sets it, where the site allows that",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(systemd: bool, cron: bool, scrontab: bool) -> Seen {
        let of = |there: bool| if there { Ok(()) } else { Err("why".to_owned()) };
        Seen { systemd: of(systemd), cron: of(cron), scrontab: of(scrontab) }
    }

    #[test]
    fn the_first_that_can_be_used_is_chosen_and_the_others_are_told() {
        assert_eq!(seen(true, true, true).best(), (Way::Systemd, vec![]));
        assert_eq!(seen(false, true, true).best(), (Way::Cron, vec!["not systemd: why".into()]));
        let passed = vec!["not systemd: why".to_owned(), "not cron: why".to_owned()];
        assert_eq!(seen(false, false, true).best(), (Way::Scrontab, passed));
        assert_eq!(seen(false, false, false).best().0, Way::Detached);
        assert_eq!(seen(false, true, true).refuses(Way::Systemd), Some("why"));
        assert_eq!(seen(false, false, false).refuses(Way::Detached), None);
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (name, way) in Way::ALL {
            assert_eq!(way.to_string(), name);
            assert_eq!(name.parse::<Way>().ok(), Some(way).filter(|way| *way != Way::Launchd));
        }
    }

    #[test]
    fn lingering_is_what_loginctl_says() {
        assert_eq!(Lingering::told(Some("Linger=yes\n")), Lingering::On);
        assert_eq!(Lingering::told(Some("Linger=no\n")), Lingering::Off);
        assert_eq!(Lingering::told(Some("")), Lingering::Unknown);
        assert_eq!(Lingering::told(None), Lingering::Unknown);
        assert!(Lingering::On.advice().is_none() && Lingering::Off.advice().is_some());
    }
}
