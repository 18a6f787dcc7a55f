//! The settings of the link to the hub of the edge.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use program::Origins;
use protocol::SiteName;
use reqwest::header::HeaderValue;

use super::{DAY, POLL_INTERVAL_MIN, seconds};
use crate::link::Target;

/// The hub of the edge, through which people see and cancel jobs from anywhere.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hub")]
pub(super) struct LinkSettings {
    /// The address of the edge, whose hub is told what this daemon does; of local-edge it may be unix:/PATH
    ///
    /// Without it PRODUCER_URL is taken. There is a link only where SITE_KEY is set.
    #[arg(long, env = "EDGE_URL", value_name = "URL")]
    edge_url: Option<String>,
    /// The address of the edge, by the name that laptop-consumer has for it
    #[arg(long, env = "PRODUCER_URL", value_name = "URL")]
    producer_url: Option<String>,
    /// The key that the edge asks sites for
    #[arg(long, env = "SITE_KEY", hide_env_values = true, value_name = "KEY")]
    site_key: Option<String>,
    /// The file whose only line is that key: other users of the machine can see flags
    #[arg(long = "site-key-file", env = "SITE_KEY_FILE", value_name = "FILE")]
    _site_key_file: Option<PathBuf>,
    /// What people call this site, the same for all its daemons [default: the first part of the name of the host]
    #[arg(long, env = "SITE_NAME", value_name = "NAME")]
    site_name: Option<SiteName>,
    /// Between two looks at the empty queue while the hub is linked, which tells when there is something
    #[arg(long, env = "LINKED_POLL_INTERVAL_SECONDS", default_value = "600", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, POLL_INTERVAL_MIN..=DAY))]
    pub(super) linked_poll_interval_seconds: Duration,
}

impl LinkSettings {
    /// Where the hub is, if there is to be a link.
    pub(super) fn target(&self, plain_http: queues::PlainHttp, origins: &Origins) -> anyhow::Result<Option<Target>> {
        let Some(key) = &self.site_key else { return Ok(None) };
        let (url, setting) = match (&self.edge_url, &self.producer_url) {
            (Some(url), _) => (url, "EDGE_URL"),
            (None, Some(url)) => (url, "PRODUCER_URL"),
            (None, None) => bail!(
                "{} is set, and where the edge is is not: set EDGE_URL to its address, for example https://hpc-queue-producer.you.workers.dev",
                origins.named("SITE_KEY")
            ),
        };
        let url_origin = origins.named(setting);
        let edge = queues::Address::parse(url, "", plain_http).with_context(|| url_origin.clone())?;
        if edge.has_credentials() {
            return Err(queues::UnusableUrl::Credentials).with_context(|| url_origin.clone());
        }
        let key_origin = origins.named("SITE_KEY");
        let mut key = HeaderValue::from_str(key)
            .map_err(|_| anyhow!("{key_origin} holds a character that no HTTP header can carry"))?;
        key.set_sensitive(true);
        let site = match &self.site_name {
            Some(site) => site.clone(),
            None => site_name(&crate::host())
                .with_context(|| "no name of a site can be made of the name of this host; set SITE_NAME")?,
        };
        Ok(Some(Target { edge, key, url_origin, key_origin, site }))
    }
}

/// A name for a site: the first part of that of a host, in the letters that it may have.
fn site_name(host: &str) -> Option<SiteName> {
    let first = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let plain: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.trim_matches('-').chars().take(SiteName::LENGTH_MAX).collect::<String>().parse().ok()
}
