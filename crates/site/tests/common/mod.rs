//! What the tests of this crate share.
#![allow(dead_code)] // Not each of them needs all of it.

use std::path::Path;
use std::time::Duration;

use protocol::JobSpec;
use site::{Defaults, Problems, Site, SiteFile};

pub(crate) fn defaults() -> Defaults {
    Defaults {
        time_limit: Duration::from_hours(168),
        grace: Duration::from_secs(10),
        log_max: 16 << 20,
        network: true,
        cpus: 8,
    }
}

pub(crate) fn parse(text: &str) -> Result<SiteFile, Problems> {
    SiteFile::parse(text, Path::new("/site"), &defaults())
}

pub(crate) fn file(text: &str) -> SiteFile {
    parse(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

pub(crate) fn site(text: &str) -> Site {
    file(text).site
}

pub(crate) fn job(text: &str) -> JobSpec {
    JobSpec::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file with a bit of everything.
pub(crate) const WHOLE: &str = include_str!("../../../../fuzz/seeds/site_file/whole");
