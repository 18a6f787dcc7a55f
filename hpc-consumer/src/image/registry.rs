//! Asking a registry for the digest of what has a tag now: the `HEAD` of a manifest, as the OCI distribution
//! specification has it, and the token that many registries want for it, also of who is nobody in particular.
//!
//! Invariant: a password goes to the registry whose it is, and to where that one says that tokens are had; without TLS
//! only to a listener of this user on this machine.

use queues::{Address, PlainHttp, transport_text};
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use site::{Reference, is_digest};

use crate::run::Credentials;

/// Manifests of one image, and lists of those for several kinds of processors.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// The header in which a registry tells a digest.
const DIGEST: &str = "docker-content-digest";

/// The most that is read of an answer with a token.
const TOKEN_BYTES_MAX: usize = 1_000_000;

/// What a registry wants to know of who asks.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// By either name; some registries say both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The digest of the image that the reference names now. The text says why it cannot be told.
pub(crate) async fn digest(reference: &Reference, who: Option<&Credentials>) -> Result<String, String> {
    let address =
        Address::parse(&reference.address(), "", PlainHttp::OwnListener).map_err(|error| error.to_string())?;
    let client = queues::http_client(&address).map_err(|error| format!("cannot set up HTTPS: {error}"))?;
    let mut path = vec!["v2"];
    path.extend(reference.name.split('/'));
    path.extend(["manifests", reference.which.as_str()]);
    let manifest = address.below(path);
    let head = || client.head(manifest.url().clone()).header(ACCEPT, MANIFESTS);
    let mut answer = send(&manifest, head()).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let again = match challenges.filter_map(challenge).next() {
            Some(Challenge::Basic) => who.map(|who| head().basic_auth(&who.user, Some(&who.password))),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", reference.name));
                let token = token(&client, &manifest, &realm, service.as_deref(), &scope, who).await?;
                token.map(|token| head().bearer_auth(token))
            }
            None => None,
        };
        if let Some(again) = again {
            answer = send(&manifest, again).await?;
        }
    }
    let (host, status) = (&reference.host, answer.status());
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            let whom = match who {
                Some(who) => format!("to {}", who.user),
                None => "to somebody who is not logged in".to_owned(),
            };
            return Err(format!(
                "{host} shows no {reference} {whom} (HTTP status {}): correct its name; or, where it is not for \
                 everybody, `apptainer registry login --username YOU docker://{host}`",
                status.as_u16()
            ));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            return Err(format!("{host} says that it was asked too often (HTTP status 429); try again later"));
        }
        other => return Err(format!("{host} does not answer as a registry does: HTTP status {}", other.as_u16())),
    }
    let told = answer.headers().get(DIGEST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if is_digest(told) {
        Ok(told.to_owned())
    } else {
        Err(format!("{host} does not tell the digest of {reference} (there is no header {DIGEST})"))
    }
}

/// A token for this, if the registry's word for where it is had can be followed, and it gives one.
async fn token(
    client: &Client,
    registry: &Address,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    who: Option<&Credentials>,
) -> Result<Option<String>, String> {
    let place = registry.elsewhere(realm).map_err(|error| format!("where {registry} has tokens: {error}"))?;
    let mut url = place.url().clone();
    url.query_pairs_mut().extend_pairs(service.map(|service| ("service", service))).append_pair("scope", scope);
    let mut request = client.get(url);
    if let Some(who) = who {
        request = request.basic_auth(&who.user, Some(&who.password));
    }
    let mut answer = send(&place, request).await?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| transport_text(&place, &error))? {
        text.extend_from_slice(&chunk);
        if text.len() > TOKEN_BYTES_MAX {
            return Err(format!("{place} answers with more than a token"));
        }
    }
    let read: Option<Token> = serde_json::from_slice(&text).ok();
    let token = read.and_then(|read| read.token.or(read.access_token));
    token.map(Some).ok_or_else(|| format!("{place} does not answer with a token"))
}

async fn send(to: &Address, request: RequestBuilder) -> Result<Response, String> {
    to.check().map_err(|error| error.to_string())?;
    request.send().await.map_err(|error| transport_text(to, &error))
}

/// Reads `Bearer realm="…",service="…"` or `Basic realm="…"`.
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let place = match name.trim().to_ascii_lowercase().as_str() {
            "realm" => Some(&mut realm),
            "service" => Some(&mut service),
            "scope" => Some(&mut scope),
            _ => None,
        };
        if let Some(place) = place {
            *place = Some(value.to_owned());
        }
        rest = next.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_wants_to_know_is_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let text = |text: &str| text.to_owned();
            Some(Challenge::Bearer { realm: text(realm), service: service.map(text), scope: scope.map(text) })
        };
        for (header, read) in [
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull""#,
                bearer("https://ghcr.io/token", Some("ghcr.io"), Some("repository:a/b:pull")),
            ),
            (
                r#"bearer realm="https://a/t", scope="repository:a/b:pull,push", error="invalid_token""#,
                bearer("https://a/t", None, Some("repository:a/b:pull,push")),
            ),
            ("Bearer realm=https://a/t,service=x", bearer("https://a/t", Some("x"), None)),
            (r#"Bearer realm="https://a"#, None),
            ("Bearer service=x", None),
            ("Negotiate abc", None),
            ("", None),
        ] {
            assert_eq!(challenge(header), read, "{header}");
        }
    }
}
