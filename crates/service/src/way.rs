//! Who keeps a program running.

use std::fmt;

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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is {0}")]
pub struct UnknownWay(String);

impl Way {
    /// The one of this name, if it is one of these.
    pub fn among(text: &str, ways: &[Self]) -> Result<Self, UnknownWay> {
        let found = ways.iter().find(|way| way.to_string() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<String> = ways.iter().map(ToString::to_string).collect();
            let (last, before) = names.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
            UnknownWay(format!("{} or {last}", before.join(", ")))
        })
    }
}

/// What was seen of the service managers of a machine: for each, whether it can be used by this user, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// launchd has a session of this user.
    pub launchd: Result<(), String>,
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
        // Where it is, there is nothing else; and where it is not, nobody would look for it.
        if self.launchd.is_ok() {
            return (Way::Launchd, Vec::new());
        }
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
            Way::Launchd => &self.launchd,
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

    /// What a person has to know of it. `off` says what it means for the program that it is off.
    pub fn advice(self, off: &str) -> Option<String> {
        match self {
            Self::On => None,
            Self::Off => Some(format!("lingering is off: {off}")),
            Self::Unknown => Some(format!("whether lingering is on cannot be told; without it, {off}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(systemd: bool, cron: bool, scrontab: bool) -> Seen {
        let of = |there: bool| if there { Ok(()) } else { Err("why".to_owned()) };
        Seen { launchd: of(false), systemd: of(systemd), cron: of(cron), scrontab: of(scrontab) }
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
        let mac = Seen { launchd: Ok(()), ..seen(false, true, false) };
        assert_eq!(mac.best(), (Way::Launchd, vec![]));
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (name, way) in Way::ALL {
            assert_eq!(way.to_string(), name);
            assert_eq!(Way::among(name, &[Way::Cron, Way::Systemd]).is_ok(), [Way::Cron, Way::Systemd].contains(&way));
            assert_eq!(Way::among(name, &[way]), Ok(way));
        }
        let told = Way::among("docker", &[Way::Systemd, Way::Cron, Way::Detached]).unwrap_err();
        assert_eq!(told.to_string(), "it is systemd, cron or detached");
    }

    #[test]
    fn lingering_is_what_loginctl_says() {
        assert_eq!(Lingering::told(Some("Linger=yes\n")), Lingering::On);
        assert_eq!(Lingering::told(Some("Linger=no\n")), Lingering::Off);
        assert_eq!(Lingering::told(Some("")), Lingering::Unknown);
        assert_eq!(Lingering::told(None), Lingering::Unknown);
        assert_eq!(Lingering::On.advice("it ends"), None);
        assert_eq!(Lingering::Off.advice("it ends").as_deref(), Some("lingering is off: it ends"));
        assert!(Lingering::Unknown.advice("it ends").is_some_and(|advice| advice.ends_with("without it, it ends")));
    }
}
