//! Calls to addresses that submissions have named.
//!
//! This server stands beside other services of its machine and network. Whether an address may be called is
//! `edge::Callbacks`' to say; where its name leads to is looked at here, and the one address that was looked at is
//! connected to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use edge::hub::{Call, Event};
use edge::{Callbacks, is_public};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect};

use crate::http::{client, without_address};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who makes the calls.
#[derive(Clone)]
pub(crate) struct Caller {
    callbacks: Callbacks,
    /// Connects to public addresses only.
    to_public: Client,
    /// Connects to any: the operator has allowed it.
    to_any: Client,
}

impl Caller {
    pub(crate) fn new(callbacks: Callbacks) -> anyhow::Result<Self> {
        // A proxy would be told the name, and would lead it anywhere.
        let any = || Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE);
        let to_public = client(|| any().https_only(true).dns_resolver(OnlyPublic));
        Ok(Self {
            callbacks,
            to_public: to_public.context("cannot make the client for callbacks")?,
            to_any: client(any).context("cannot make the client for callbacks")?,
        })
    }

    /// Makes a call, and tells what came of it.
    pub(super) async fn call(self, call: Call) -> Event {
        let Call { job_id, event, url, headers, body } = call;
        let outcome = match self.callbacks.check(&url) {
            // It was allowed when the job was submitted.
            Err(problem) => Err(format!("the address {problem}")),
            Ok(target) => {
                let client = if target.is_allowed { &self.to_any } else { &self.to_public };
                let headers =
                    headers.into_iter().fold(client.post(url), |request, (name, value)| request.header(name, value));
                let answered = headers.body(body).send().await;
                answered.map(|answer| answer.status().as_u16()).map_err(|error| without_address(&error, PATIENCE))
            }
        };
        tracing::debug!(%job_id, event, ?outcome, "called");
        Event::Called { job_id, event, outcome }
    }
}

/// Resolves names to public addresses only.
struct OnlyPublic;

impl Resolve for OnlyPublic {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("the name leads to no public address of the Internet".into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::post;
    use tokio::net::TcpListener;

    use super::*;

    async fn server() -> String {
        let moved = post(async || Redirect::temporary("http://127.0.0.1:1/"));
        let slow = post(async || tokio::time::sleep(Duration::from_secs(60)).await);
        let router = Router::new().route("/ok", post(async || "ok")).route("/moved", moved).route("/slow", slow);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    async fn outcome(caller: &Caller, url: &str) -> Result<u16, String> {
        let url = url.to_owned();
        let call = Call {
            job_id: "j".parse().unwrap(),
            event: "completed".to_owned(),
            url,
            headers: vec![("webhook-id", "j.completed".to_owned())],
            body: "{}".to_owned(),
        };
        match caller.clone().call(call).await {
            Event::Called { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn only_what_is_public_or_allowed_is_called_and_no_redirect_is_followed() {
        let url = server().await;
        let strict = Caller::new(Callbacks::default()).unwrap();
        assert!(outcome(&strict, &format!("{url}/ok")).await.is_err_and(|problem| problem.contains("https://")));
        // A name that passes for one of the Internet, and leads to this machine.
        let resolved = strict.to_public.post("https://localhost:1/").send().await.unwrap_err();
        assert!(without_address(&resolved, PATIENCE).contains("no public address"), "{resolved:?}");
        let allowing = Caller::new(Callbacks { allowed: vec![url.clone()], ..Callbacks::default() }).unwrap();
        assert_eq!(outcome(&allowing, &format!("{url}/ok")).await, Ok(200));
        assert_eq!(outcome(&allowing, &format!("{url}/moved")).await, Ok(307));
        let none = outcome(&allowing, &format!("{url}/slow")).await;
        assert_eq!(none, Err("no answer within 10 s".to_owned()));
    }
}
