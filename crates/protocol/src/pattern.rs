//! Patterns of files below a job's directory: what a job leaves and its user wants, and what a person fetches of it.
//!
//! `*` and `?` stand for anything but `/`, `**` for any number of directories, and a directory for all that is in it.
//! They are followed name by name as somebody walks through the directories, so that none is entered in vain, and what
//! that costs has a bound, whatever the patterns are.

use crate::WorkPath;

/// Some patterns.
#[derive(Debug, Clone)]
pub struct Patterns(Vec<Vec<Part>>);

/// What stands for one name of a path, or for any number of them.
#[derive(Debug, Clone)]
enum Part {
    /// `**`
    Any,
    /// A name, perhaps with `*` and `?` in it.
    Name(Vec<char>),
}

/// How far a path from the job's directory on fits patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit(Vec<Stand>);

/// So many parts of this pattern are behind us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stand {
    pattern: u16,
    part: u16,
    /// All of the pattern is.
    is_end: bool,
}

impl Patterns {
    /// These patterns, at most [`crate::limits::OUTPUT_PATTERNS_MAX`] of them.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a WorkPath>) -> Self {
        let part = |part: &str| if part == "**" { Part::Any } else { Part::Name(part.chars().collect()) };
        let parts = |pattern: &WorkPath| pattern.as_str().split('/').map(part).collect();
        Self(patterns.into_iter().take(usize::from(u16::MAX)).map(parts).collect())
    }

    /// At the job's directory.
    pub fn start(&self) -> Fit {
        let numbers = 0..u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        self.fit_of(numbers.map(|pattern| (pattern, 0)))
    }

    /// What is called so in the place that is reached.
    pub fn enter(&self, reach: &Fit, name: &str) -> Fit {
        let name: Vec<char> = name.chars().collect();
        let next = reach.0.iter().filter_map(|&Stand { pattern, part, is_end }| {
            if is_end {
                return Some((pattern, part));
            }
            match self.0.get(usize::from(pattern))?.get(usize::from(part))? {
                Part::Any => Some((pattern, part)),
                Part::Name(glob) => fits(glob, &name).then_some((pattern, part + 1)),
            }
        });
        self.fit_of(next)
    }

    /// Does one of them stand for this path?
    pub fn match_path(&self, path: &WorkPath) -> bool {
        path.as_str().split('/').fold(self.start(), |reach, name| self.enter(&reach, name)).is_meant()
    }

    fn fit_of(&self, stands: impl Iterator<Item = (u16, u16)>) -> Fit {
        let mut reached = Vec::new();
        for (pattern, mut part) in stands {
            let Some(parts) = self.0.get(usize::from(pattern)) else { continue };
            // Any number of directories may be none.
            loop {
                let is_end = usize::from(part) == parts.len();
                reached.push(Stand { pattern, part, is_end });
                match parts.get(usize::from(part)) {
                    Some(Part::Any) => part += 1,
                    _ => break,
                }
            }
        }
        reached.sort_unstable();
        reached.dedup();
        Fit(reached)
    }
}

impl Fit {
    /// Is it what a pattern stands for, or in such a directory?
    pub fn is_meant(&self) -> bool {
        self.0.iter().any(|stand| stand.is_end)
    }

    /// Can anything in it be meant, should it be a directory?
    pub fn leads_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Which patterns stand for it, by their numbers from 0.
    pub fn meant_by(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().filter(|stand| stand.is_end).map(|stand| usize::from(stand.pattern))
    }
}

/// Does a part of a pattern stand for this name?
fn fits(glob: &[char], name: &[char]) -> bool {
    let (mut g, mut n) = (0, 0);
    // Where the last `*` is, and from where on the rest is tried for now.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (g, n) = (g + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (g, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fit(pattern: &str, path: &str) -> bool {
        Patterns::new([&pattern.parse().unwrap()]).match_path(&path.parse().unwrap())
    }

    #[test]
    fn patterns_stand_for_what_they_say() {
        for (pattern, path, fits) in [
            ("plots/*.png", "plots/a.png", true),
            ("plots/*.png", "plots/.png", true),
            ("plots/*.png", "plots/deep/a.png", false),
            ("plots/*.png", "a.png", false),
            ("*.png", "plots/a.png", false),
            ("plots", "plots/deep/a.png", true),
            ("plots", "plots2/a.png", false),
            ("pl?ts/a", "plöts/a", true),
            ("pl?ts/a", "plts/a", false),
            ("**/*.png", "a.png", true),
            ("**/*.png", "a/b/c.png", true),
            ("**/*.png", "a/b/c.txt", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c/z/below", true),
            ("a/**/z", "b/a/z", false),
            ("a/**/b/**/c", "a/x/b/y/y/c", true),
            ("a/**/b/**/c", "a/x/c/y/y/b", false),
            ("a/**", "a/b/c", true),
            ("**", "anything/at/all", true),
            ("**.png", "a/b.png", false),
            ("**.png", "ab.png", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("[a]", "a", false),
            ("[a]", "[a]", true),
        ] {
            assert_eq!(fit(pattern, path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn a_directory_is_entered_only_if_something_in_it_can_be_meant() {
        let patterns = ["a/*/c", "b/**/x", "d"].map(|pattern| pattern.parse::<WorkPath>().unwrap());
        let patterns = Patterns::new(&patterns);
        let leads = |path: &str| {
            let reach = path.split('/').fold(patterns.start(), |reach, name| patterns.enter(&reach, name));
            (reach.leads_on(), reach.meant_by().collect::<Vec<_>>())
        };
        for (path, on, by) in [
            ("a", true, vec![]),
            ("a/b", true, vec![]),
            ("a/b/d", false, vec![]),
            ("b/1/2/3", true, vec![]),
            ("b/1/x", true, vec![1]),
            ("c", false, vec![]),
            ("d/deep", true, vec![2]),
        ] {
            assert_eq!(leads(path), (on, by), "{path}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let stars = "*a".repeat(120) + "b";
        assert!(!fit(&stars, &"a".repeat(255)));
        let deep = vec!["**/*"; 200].join("/");
        assert!(!fit(&format!("{deep}/b"), &vec!["a"; 500].join("/")));
    }

    /// The same, as one would say it without a care for time.
    fn means(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            // The directory that is meant, or something in it.
            (None, _) => true,
            (Some((&"**", rest)), None) => means(rest, path),
            (Some((&"**", rest)), Some((_, below))) => means(rest, path) || means(pattern, below),
            (Some(_), None) => false,
            (Some((part, rest)), Some((name, below))) => means_name(part, name) && means(rest, below),
        }
    }

    fn means_name(glob: &str, name: &str) -> bool {
        match (glob.chars().next(), name.chars().next()) {
            (None, None) => true,
            (Some('*'), None) => means_name(&glob[1..], name),
            (Some('*'), Some(_)) => means_name(&glob[1..], name) || means_name(glob, &name[1..]),
            (Some('?'), Some(_)) => means_name(&glob[1..], &name[1..]),
            (Some(g), Some(n)) => g == n && means_name(&glob[1..], &name[1..]),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn the_walk_finds_what_a_pattern_says(
            pattern in "([ab*?]{1,3}|\\*\\*)(/([ab*?]{1,3}|\\*\\*)){0,4}",
            path in "[ab]{1,3}(/[ab]{1,3}){0,4}",
        ) {
            let (parts, names): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
            prop_assert_eq!(fit(&pattern, &path), means(&parts, &names));
        }
    }
}
