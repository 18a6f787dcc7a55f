//! `setup`: five questions, and a file of settings with the answers; then what the doctor says of them.

use std::path::Path;

use ::doctor::look::ids;
use ::doctor::queue::Role;
use anyhow::Context as _;
use program::{Exit, Question, Questions, say, write_settings};
use queues::{Client, is_id};

use super::service;
use crate::cli::SetupArgs;
use crate::config::{CommonArgs, QueueArgs, http_client};

pub(super) async fn run(common: &CommonArgs, args: &SetupArgs) -> anyhow::Result<Exit> {
    let (edge, queue) = (args.edge.told(), args.queue.told());
    let mut questions = Questions::new(5, &common.origins);
    let mut ask = |setting, flag, text, known: Option<&str>, secret, check: &dyn Fn(&str) -> Result<(), String>| {
        let (known, optional) = (known.map(str::to_owned), false);
        let answer = questions.ask(&Question { setting, flag, text, known, optional, secret }, check)?;
        anyhow::Ok(answer.unwrap_or_default())
    };
    let fine = |_: &str| Ok(());
    let text = "The address of the edge, as https://hpc-queue-producer.you.workers.dev";
    let url = ask("PRODUCER_URL", "--producer-url", text, edge.url, false, &|url| common.check_edge(url))?;
    let key = ask("API_KEY", "--api-key-file", "The key that it asks for, its API_KEY", edge.key, true, &fine)?;
    let text = "The id of the Cloudflare account, which `npx wrangler whoami` shows";
    let account = ask("CF_ACCOUNT_ID", "--cf-account-id", text, queue.account, false, &check_id)?;
    let text = "An API token of it with the permission Queues: Edit";
    let token = ask("CF_QUEUES_API_TOKEN", "--token-file", text, queue.token, true, &fine)?;
    let found = found(common, &args.queue, &account, &token).await;
    let text = "The id of the queue hpc-results, which `npx wrangler queues list` shows";
    let known = queue.id.map(str::to_owned).or(found);
    let id = ask("CF_RESULTS_QUEUE_ID", "--cf-results-queue-id", text, known.as_deref(), false, &check_id)?;

    let mut settings = vec![
        ("PRODUCER_URL", url),
        ("API_KEY", key),
        ("CF_ACCOUNT_ID", account),
        ("CF_QUEUES_API_TOKEN", token),
        ("CF_RESULTS_QUEUE_ID", id),
    ];
    if common.origins.of("CF_API_BASE_URL").is_some() {
        settings.push(("CF_API_BASE_URL", queue.base_url.to_owned()));
    }
    if !write_settings(&args.file, &settings, args.force)? {
        return Ok(Exit::Unexpected);
    }
    let file = absolute(&args.file)?;
    say("what the doctor says of it:");
    let well = service::tried(&["doctor", "--env-file", &file]).await? == Some(0);
    // A file of this name, here, is found by itself.
    let named = if args.file == Path::new(".env") { String::new() } else { format!(" --env-file {file}") };
    say(&match well {
        true => format!("next: laptop-consumer submit{named} --task echo --input '{{\"hello\":\"cluster\"}}' --wait"),
        false => format!("next: what the first failure says; then laptop-consumer doctor{named}"),
    });
    Ok(if well { Exit::Ok } else { Exit::Unexpected })
}

fn check_id(text: &str) -> Result<(), String> {
    if is_id(text) { Ok(()) } else { Err("is no id of Cloudflare, which has 32 hexadecimal digits".to_owned()) }
}

/// The id of the queue of results, by its name. Where it cannot be had, a person is asked, and the doctor says why.
async fn found(common: &CommonArgs, queue: &QueueArgs, account: &str, token: &str) -> Option<String> {
    let endpoint = queue.endpoint_of(common, account, token);
    endpoint.check_token().ok()?;
    let http = http_client(&endpoint.address().ok()?).ok()?;
    let client = Client::new(http, &endpoint).ok()?;
    match ids(&client, &[Role::Results]).await {
        Ok(mut ids) => ids.pop().flatten(),
        Err(error) => {
            say(&format!("the queue cannot be looked up: {error}"));
            None
        }
    }
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    path.into_os_string().into_string().ok().context("the name of the file is no text in UTF-8; use another one")
}
