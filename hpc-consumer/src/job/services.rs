//! What lies in `RESULTS_DIR` of instances of services, and what their users find of them.
//!
//! ```text
//! RESULTS_DIR/.services/NAME/
//!   <run>.token      what the instance and its users know, and nobody else
//!   <run>.seen       where it listens, as the keeper on its node has seen it
//!   <job_id>.json    the instance, once it is ready: whole, and written again and again for as long as it is
//! RESULTS_DIR/<job_id>/services/NAME.json      what a user of it finds, while it runs
//! ```
//!
//! Out of scope: whether an instance is ready (`crate::services`), and which one a job gets (`lifecycle`).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use files::Durability;
use lifecycle::Run;
use protocol::{Facts, JobId, ServiceName, Timestamp, WorkPath, limits};
use serde::{Deserialize, Serialize};
use site::Secret;

use super::JobFiles;
use super::files::{Place, SERVICES, is_missing, to_json};
use super::job_dir::JobDir;
use super::results_dir::ResultsDir;
use crate::blocking;
use crate::run::Seen;

/// What an instance and its users know, and nobody else: as a file below `/run/secrets`, and as a variable.
pub(crate) const TOKEN: &str = "SERVICE_TOKEN";

/// Where all of it is.
const DIR: &str = ".services";

/// So many random bytes, of which each becomes two characters.
const TOKEN_BYTES: usize = 32;
const TOKEN_LENGTH: u64 = 2 * TOKEN_BYTES as u64;

/// No file of an instance is larger.
const PUBLISHED_BYTES_MAX: u64 = 2 * limits::ADDRESS_BYTES_MAX;

/// An instance that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) v: u32,
    pub(crate) service: ServiceName,
    /// The id of its job.
    pub(crate) instance: JobId,
    pub(crate) url: String,
    /// Where it is asked on its own node, if that is another address: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) near: Option<String>,
    pub(crate) token: String,
    /// The name of the node that it runs on.
    pub(crate) node: String,
    pub(crate) facts: Facts,
    pub(crate) ready_at: Timestamp,
    /// How often it was looked at and found well. It changes for as long as the daemon looks.
    pub(crate) beats: u64,
}

/// What a user finds of an instance.
#[derive(Serialize)]
struct Found<'a> {
    url: &'a str,
    token: &'a str,
    instance: &'a JobId,
    facts: &'a Facts,
}

impl ResultsDir {
    fn service_dir(&self, service: &ServiceName) -> PathBuf {
        self.path.join(DIR).join(service.as_str())
    }

    fn token_path(&self, service: &ServiceName, run: &Run) -> PathBuf {
        self.service_dir(service).join(format!("{run}.token"))
    }

    /// Where the keeper writes down what it sees of the address of an instance.
    pub(super) fn seen_path(&self, service: &ServiceName, run: &Run) -> PathBuf {
        self.service_dir(service).join(format!("{run}.seen"))
    }

    fn published_path(&self, service: &ServiceName, instance: &JobId) -> PathBuf {
        self.service_dir(service).join(format!("{instance}.json"))
    }

    /// How an instance sees its token.
    pub(super) fn token_of(&self, service: &ServiceName, run: &Run) -> BTreeMap<String, Secret> {
        let (file, variable) = (self.token_path(service, run), Some(TOKEN.to_owned()));
        BTreeMap::from([(TOKEN.to_owned(), Secret { file, variable })])
    }

    fn token(&self, service: &ServiceName, run: &Run) -> io::Result<String> {
        files::read_own_text(&self.token_path(service, run), TOKEN_LENGTH)
    }

    /// Makes the token of an instance, where there is none.
    fn make_token(&self, service: &ServiceName, run: &Run) -> io::Result<()> {
        self.must_be_it()?;
        files::own_dir(&self.path.join(DIR))?;
        files::own_dir(&self.service_dir(service))?;
        let path = self.token_path(service, run);
        // One that is there may be in use.
        if self.token(service, run).is_ok_and(|token| token.len() as u64 == TOKEN_LENGTH) {
            return Ok(());
        }
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        files::replace(&path, token.as_bytes(), Durability::Named).map(drop)
    }

    fn published(&self, service: &ServiceName, instance: &JobId) -> io::Result<Published> {
        let bytes = files::read_own(&self.published_path(service, instance), PUBLISHED_BYTES_MAX)?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    /// Removes all that lies here of an instance, as far as it is there.
    fn forget_instance(&self, service: &ServiceName, run: &Run) -> io::Result<()> {
        let paths =
            [self.published_path(service, &run.job_id), self.seen_path(service, run), self.token_path(service, run)];
        paths.iter().try_for_each(|path| match std::fs::remove_file(path) {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        })
    }

    /// Removes what lies here of instances that have ended: those with a final record.
    fn forget_ended_instances(&self) -> io::Result<()> {
        let services = match std::fs::read_dir(self.path.join(DIR)) {
            Err(error) if is_missing(&error) => return Ok(()),
            done => done?,
        };
        for service in services {
            let Ok(files) = std::fs::read_dir(service?.path()) else { continue };
            for file in files {
                let file = file?;
                let name = file.file_name();
                let name = name.to_string_lossy();
                let Ok(instance) = name.split('.').next().unwrap_or_default().parse::<JobId>() else { continue };
                if self.record_path(&instance).exists() {
                    let _ = std::fs::remove_file(file.path());
                }
            }
        }
        Ok(())
    }
}

impl JobDir {
    /// What its job knows of instances is of use to its run alone, and their tokens are to be nowhere after that.
    pub(super) fn forget_services(&self) -> io::Result<()> {
        self.remove(SERVICES)
    }
}

impl JobFiles {
    /// Makes what an instance of a service needs before it begins.
    pub(crate) async fn prepare_service(self: &Arc<Self>, service: &ServiceName, run: &Run) -> io::Result<()> {
        let (jobs, service, run) = (self.clone(), service.clone(), run.clone());
        blocking(move || jobs.results().make_token(&service, &run)).await
    }

    /// What the keeper has seen of the address of an instance, and its token.
    pub(crate) async fn look_at_service(
        self: &Arc<Self>,
        service: &ServiceName,
        run: &Run,
    ) -> io::Result<(Option<Seen>, String)> {
        let (jobs, service, run) = (self.clone(), service.clone(), run.clone());
        blocking(move || {
            let results = jobs.results();
            Ok((Seen::read(&results.seen_path(&service, &run))?, results.token(&service, &run)?))
        })
        .await
    }

    /// Tells of an instance that is ready, or still is.
    pub(crate) async fn publish_service(self: &Arc<Self>, published: Published) -> io::Result<()> {
        let jobs = self.clone();
        blocking(move || {
            let path = jobs.results().published_path(&published.service, &published.instance);
            files::replace(&path, to_json(&published).as_bytes(), Durability::Cached).map(drop)
        })
        .await
    }

    /// An instance that is ready, or was when it was looked at last.
    pub(crate) async fn published_service(
        self: &Arc<Self>,
        service: &ServiceName,
        instance: &JobId,
    ) -> io::Result<Published> {
        let (jobs, service, instance) = (self.clone(), service.clone(), instance.clone());
        blocking(move || jobs.results().published(&service, &instance)).await
    }

    /// Nobody is to find an instance any more.
    pub(crate) async fn withdraw_service(self: &Arc<Self>, service: &ServiceName, run: &Run) {
        let (jobs, service, run) = (self.clone(), service.clone(), run.clone());
        blocking(move || {
            if let Err(error) = jobs.results().forget_instance(&service, &run) {
                tracing::warn!("what is left of an instance of the service {service} cannot be removed: {error}");
            }
        })
        .await;
    }

    /// Removes what an earlier daemon may have left of instances that have ended.
    pub(crate) async fn clean_services(self: &Arc<Self>) {
        let jobs = self.clone();
        blocking(move || {
            if let Err(error) = jobs.results().forget_ended_instances() {
                tracing::warn!("what is left of instances of services cannot be removed: {error}");
            }
        })
        .await;
    }

    /// Has a job left anything at this path?
    pub(crate) async fn has_left(self: &Arc<Self>, job_id: &JobId, path: &WorkPath) -> io::Result<bool> {
        let (jobs, job_id, path) = (self.clone(), job_id.clone(), path.clone());
        blocking(move || match jobs.results().open_job_dir(&job_id)? {
            Place::Dir(dir) => dir.is_there(path.as_str()),
            Place::Nothing | Place::Foreign => Ok(false),
        })
        .await
    }

    /// Puts into the directory of a job what it is to find of these instances, which are ready.
    pub(crate) async fn place_services(
        self: &Arc<Self>,
        job_id: &JobId,
        services: BTreeMap<ServiceName, JobId>,
    ) -> Result<(), String> {
        let (jobs, job_id) = (self.clone(), job_id.clone());
        blocking(move || {
            let Place::Dir(dir) = jobs.results().open_job_dir(&job_id).map_err(|error| error.to_string())? else {
                return Err("its directory is gone".to_owned());
            };
            let place = |name: &ServiceName, instance: &JobId| -> Result<(), String> {
                let lost = |error: io::Error| format!("the instance {instance} of the service {name} is gone: {error}");
                let Published { url, token, facts, .. } = jobs.results().published(name, instance).map_err(lost)?;
                let found = to_json(&Found { url: &url, token: &token, instance, facts: &facts });
                let within = dir.subdir(SERVICES).map_err(|error| error.to_string())?;
                within.replace(&format!("{name}.json"), &found).map_err(|error| error.to_string())
            };
            // What it has of an earlier attempt leads nowhere.
            dir.forget_services().map_err(|error| error.to_string())?;
            services.iter().try_for_each(|(name, instance)| place(name, instance))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::job::tests::{node, run};

    fn published(instance: &str) -> Published {
        Published {
            v: 1,
            service: "vqpu".parse().unwrap(),
            instance: instance.parse().unwrap(),
            url: "http://n1:8080".to_owned(),
            near: None,
            token: "t".to_owned(),
            node: "n1".to_owned(),
            facts: Facts::new(),
            ready_at: protocol::timestamp_from_millis(0),
            beats: 1,
        }
    }

    #[tokio::test]
    async fn a_user_finds_its_instance_and_what_it_left_of_an_earlier_one_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        let (vqpu, first): (ServiceName, JobId) = ("vqpu".parse().unwrap(), "s-1".parse().unwrap());
        let of_first = Run { job_id: first.clone(), ..run("s-1", 1) };
        node.prepare_service(&vqpu, &of_first).await.unwrap();
        let (seen, token) = node.look_at_service(&vqpu, &of_first).await.unwrap();
        assert!(seen.is_none() && token.len() == 64);
        node.prepare_service(&vqpu, &of_first).await.unwrap();
        assert_eq!(node.look_at_service(&vqpu, &of_first).await.unwrap().1, token, "it may be in use");
        node.publish_service(published("s-1")).await.unwrap();
        for file in std::fs::read_dir(temp.path().join(".services/vqpu")).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }

        let (user, elsewhere) = ("j1".parse().unwrap(), tempfile::tempdir().unwrap());
        node.results().make_job_dir(&user).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), temp.path().join("j1/services")).unwrap();
        node.place_services(&user, BTreeMap::from([(vqpu.clone(), first.clone())])).await.unwrap();
        let found = std::fs::read_to_string(temp.path().join("j1/services/vqpu.json")).unwrap();
        assert_eq!(found, "{\"url\":\"http://n1:8080\",\"token\":\"t\",\"instance\":\"s-1\",\"facts\":{}}\n");
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "no link was followed");

        node.withdraw_service(&vqpu, &of_first).await;
        let gone = node.place_services(&user, BTreeMap::from([(vqpu, first)])).await.unwrap_err();
        assert!(gone.starts_with("the instance s-1 of the service vqpu is gone"), "{gone}");
        assert!(!temp.path().join("j1/services/vqpu.json").exists());
    }

    #[tokio::test]
    async fn what_is_left_of_instances_that_have_ended_goes() {
        let temp = tempfile::tempdir().unwrap();
        let (node, vqpu) = (node(temp.path(), "us"), "vqpu".parse().unwrap());
        for instance in ["s-1", "s-2"] {
            node.prepare_service(&vqpu, &run(instance, 1)).await.unwrap();
            node.publish_service(published(instance)).await.unwrap();
        }
        std::fs::write(temp.path().join("s-1.json"), "{}").unwrap();
        node.clean_services().await;
        assert!(node.published_service(&vqpu, &"s-1".parse().unwrap()).await.is_err());
        assert!(node.look_at_service(&vqpu, &run("s-1", 1)).await.is_err());
        assert!(node.published_service(&vqpu, &"s-2".parse().unwrap()).await.is_ok());
    }
}
