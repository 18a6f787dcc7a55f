//! Asking the service for its queues. It changes nothing.

use queues::{Address, Client, Endpoint, Fault, transport_text};
use serde::Deserialize;

use crate::queue::{Named, Role, Seen};

/// The description of an edge is smaller.
const DESCRIPTION_BYTES_MAX: usize = 4_000_000;

/// What is there. `account_subject` is the setting that names the account, as a sentence begins with it.
pub async fn look(client: &Client, endpoint: &Endpoint, account_subject: String, named: Vec<Named>) -> Seen {
    let mut queues = Vec::new();
    for named in named {
        let told = match &named.id {
            Some(id) => Some(client.queue(id).await),
            None => None,
        };
        queues.push((named, told));
    }
    let found = queues.iter().find_map(|(named, told)| {
        told.as_ref()?.as_ref().ok()?;
        named.id.as_deref()
    });
    let may_write = match found {
        Some(id) => Some(client.may_write(id).await),
        None => None,
    };
    let is_missing = queues.iter().any(|(_, told)| match told {
        None => true,
        Some(Err(error)) => error.fault == Fault::Place,
        Some(Ok(_)) => false,
    });
    let all = if is_missing { Some(client.queues().await) } else { None };
    Seen {
        url: endpoint.base_url.clone(),
        account: (endpoint.account_id.clone(), account_subject),
        token: endpoint.api_token_origin.clone(),
        queues,
        all,
        may_write,
    }
}

/// The ids of the queues of these roles, by the names that the documentation gives them; `None` where there is no
/// such queue.
pub async fn ids(client: &Client, roles: &[Role]) -> Result<Vec<Option<String>>, queues::Error> {
    let all = client.queues().await?;
    let id = |role: &Role| {
        let queue = all.iter().find(|queue| queue.name.as_deref() == Some(role.usual_name()))?;
        queue.id.clone()
    };
    Ok(roles.iter().map(id).collect())
}

impl Seen {
    /// When the service has answered, by its own clock.
    pub fn answered(&self) -> Option<&str> {
        self.queues.iter().find_map(|(_, told)| told.as_ref()?.as_ref().ok()?.answered.as_deref())
    }

    /// Was this queue found?
    pub fn has(&self, role: Role) -> bool {
        self.queues.iter().any(|(named, told)| named.role == role && matches!(told, Some(Ok(_))))
    }
}

/// The description that an edge gives of itself to anybody.
#[derive(Deserialize)]
struct Description {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    version: String,
}

/// Which version an edge is of. The error is a sentence. `http` is a client for its address.
pub async fn edge_version(http: &reqwest::Client, edge: &Address) -> Result<String, String> {
    let address = edge.clone().below(["openapi.json"]);
    address.check().map_err(|unsent| unsent.to_string())?;
    let broken = |error: &reqwest::Error| transport_text(edge, error);
    let mut response = http.get(address.url().clone()).send().await.map_err(|error| broken(&error))?;
    if !response.status().is_success() {
        return Err(format!("{edge} answered with HTTP status {}", response.status().as_u16()));
    }
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if text.len() + chunk.len() > DESCRIPTION_BYTES_MAX {
            return Err(format!("{edge} answers with more than an edge says of itself"));
        }
        text.extend_from_slice(&chunk);
    }
    let described: Result<Description, _> = serde_json::from_slice(&text);
    described
        .map(|described| described.info.version)
        .map_err(|_| format!("{edge} answers, and is no edge of hpc-queue"))
}
