//! Real workerd with a Worker in it, in front of `local-edge`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::env_file::EnvFile;
use crate::processes::Process;

/// The folder of the hub's tables, within that of workerd.
const HUB_DIR: &str = "hub";

/// workerd, up and listening. Dropping it stops it.
pub(crate) struct Workerd {
    process: Process,
    /// The port of each socket, by its name in the configuration.
    ports: BTreeMap<String, u16>,
}

impl Workerd {
    /// Starts workerd in `folder`, with copies of the modules and a configuration made of `template`.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        modules: &[PathBuf],
        template: &str,
        edge: &EnvFile,
    ) -> anyhow::Result<Self> {
        // Copies: a build may replace the originals while workerd reads them.
        for module in modules {
            let name = module.file_name().with_context(|| format!("{} is no module", module.display()))?;
            fs::copy(module, folder.join(name)).with_context(|| format!("cannot copy {}", module.display()))?;
        }
        let hub = folder.join(HUB_DIR);
        fs::create_dir_all(&hub).with_context(|| format!("cannot create {}", hub.display()))?;
        let config = folder.join("workerd.capnp");
        let sockets = template.matches("@LISTEN@").count();
        fs::write(&config, filled_in(template, edge, &hub)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(program);
        command.args(["serve", "--control-fd=1"]).arg(&config);
        let mut process = Process::start("workerd", &mut command, folder)?;
        let ports = process.wait_for("it listens", Duration::from_secs(30), |process| {
            let ports = ports_in(&process.log());
            (ports.len() >= sockets).then_some(ports)
        })?;
        Ok(Self { process, ports })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The address of a socket, as a URL.
    pub(crate) fn url(&self, socket: &str) -> anyhow::Result<String> {
        let port = self.ports.get(socket).with_context(|| format!("workerd opened no socket {socket}"))?;
        Ok(format!("http://127.0.0.1:{port}"))
    }
}

/// The configuration, with free ports, with the settings of the local edge, and with the folder of the hub.
fn filled_in(template: &str, edge: &EnvFile, hub: &Path) -> anyhow::Result<String> {
    let url = edge.get("CF_API_BASE_URL")?;
    let address = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .with_context(|| format!("CF_API_BASE_URL is {url}, and not an http:// address of local-edge"))?;
    let mut text = template.replace("@LISTEN@", "127.0.0.1:0").replace("@WORKER_DIR@", ".");
    for (word, value) in [
        ("@EDGE_ADDRESS@", address),
        ("@TOKEN@", edge.get("CF_QUEUES_API_TOKEN")?),
        ("@API_KEY@", edge.get("API_KEY")?),
        ("@SITE_KEY@", edge.get("SITE_KEY")?),
        ("@CALLBACK_SECRET@", edge.get("CALLBACK_SECRET")?),
        ("@HUB_DIR@", hub.to_str().with_context(|| format!("{} is not UTF-8", hub.display()))?),
    ] {
        if value.contains(['"', '\\', '@']) {
            bail!("the value for {word} holds a character that does not fit into workerd's configuration");
        }
        text = text.replace(word, value);
    }
    Ok(text)
}

/// The ports that workerd announced on its control channel, one JSON object a line.
fn ports_in(log: &str) -> BTreeMap<String, u16> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events
        .filter(|event| event["event"] == "listen")
        .filter_map(|event| Some((event["socket"].as_str()?.to_owned(), u16::try_from(event["port"].as_u64()?).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_filled_in() {
        let mut edge = EnvFile::default();
        edge.set("CF_API_BASE_URL", "http://127.0.0.1:8787/client/v4");
        edge.set("CF_QUEUES_API_TOKEN", "secret");
        edge.set("API_KEY", "key");
        edge.set("SITE_KEY", "site");
        edge.set("CALLBACK_SECRET", "whsec_secret");
        for template in [
            include_str!("../../producer-worker/workerd.capnp.in"),
            include_str!("../bench/workerd.capnp.in"),
            include_str!("../bench/hub.capnp.in"),
        ] {
            let text = filled_in(template, &edge, Path::new("/tmp/hub")).unwrap();
            assert!(text.contains("address = \"127.0.0.1:8787\"") && text.contains("Bearer secret"), "{text}");
            assert!(text.contains("text = \"key\"") && text.contains("embed \"./index.js\""), "{text}");
            assert!(!text.contains('@'), "{text}");
        }
        edge.set("API_KEY", "a\"b");
        assert!(filled_in("", &edge, Path::new("/tmp/hub")).is_err());
    }

    #[test]
    fn announced_ports_are_read_among_other_lines() {
        let log =
            "warning: something\n{\"event\":\"listen\",\"socket\":\"http\",\"port\":36307}\n{\"event\":\"other\"}\n";
        assert_eq!(ports_in(log), BTreeMap::from([("http".to_owned(), 36307)]));
    }
}
