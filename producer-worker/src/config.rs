//! What the operator has set: secrets and variables of the Worker.

use std::rc::Rc;
use std::time::Duration;

use edge::files::{self, Store};
use edge::hub::Settings;
use edge::{Callbacks, Config, Secret, SigningSecret};
use worker::{Env, console_error};

use crate::hub;

thread_local! {
    /// It is the same for all requests of one deployment, and each setting is a call into JavaScript.
    static CONFIG: std::cell::OnceCell<Rc<Config>> = const { std::cell::OnceCell::new() };
}

/// What the edge needs to know of itself.
pub(crate) fn config(env: &Env) -> Rc<Config> {
    CONFIG.with(|config| Rc::clone(config.get_or_init(|| Rc::new(read(env)))))
}

fn read(env: &Env) -> Config {
    Config {
        api_key: setting(env, "API_KEY").and_then(|key| Secret::new(&key)),
        site_key: setting(env, "SITE_KEY").and_then(|key| Secret::new(&key)),
        hub: hub::object(env).is_some(),
        files: store(env),
        callbacks: callbacks(env),
        cors_origins: origins(env, "CORS_ORIGINS"),
    }
}

/// What the hub needs to know.
pub(crate) fn of_hub(env: &Env) -> Settings {
    let files = store(env).map(|store| files::Settings {
        store,
        keep_for: setting(env, "FILES_KEEP_DAYS").and_then(keep_days).unwrap_or(files::Settings::KEEP_FOR),
        bytes_max: setting(env, "FILES_BYTES_MAX").and_then(bytes_max).unwrap_or(files::Settings::BYTES_MAX),
    });
    Settings { callbacks: callbacks(env), files, ..Settings::default() }
}

/// Where files are.
fn store(env: &Env) -> Option<Store> {
    let names = ["FILES_ENDPOINT", "FILES_BUCKET", "FILES_ACCESS_KEY_ID", "FILES_SECRET_ACCESS_KEY"];
    let region = setting(env, "FILES_REGION");
    let store = Store::named(names.map(|name| setting(env, name)), region.as_deref().unwrap_or("auto"));
    store.inspect_err(|error| console_error!("there is no store of files: {error}")).ok().flatten()
}

fn keep_days(text: String) -> Option<Duration> {
    let days = text.parse().ok().filter(|days| (1..=36_500).contains(days));
    if days.is_none() {
        console_error!("FILES_KEEP_DAYS cannot be used: it must be a number of days from 1 to 36500");
    }
    days.map(|days: u32| Duration::from_hours(24) * days)
}

fn bytes_max(text: String) -> Option<u64> {
    let bytes = protocol::size::parse_or_bytes(&text);
    if bytes.is_none() {
        console_error!("FILES_BYTES_MAX cannot be used: it must be a number of bytes, or a text such as 500GB");
    }
    bytes
}

/// Who may be called. The network of Workers reaches nothing but the Internet: none is allowed besides.
fn callbacks(env: &Env) -> Callbacks {
    let secret = setting(env, "CALLBACK_SECRET").and_then(|text| {
        let secret = SigningSecret::parse(&text);
        secret.inspect_err(|error| console_error!("CALLBACK_SECRET cannot be used: {error}")).ok()
    });
    Callbacks { secret, allowed: origins(env, "CALLBACK_ALLOW") }
}

/// Several, with commas.
fn origins(env: &Env, name: &str) -> Vec<String> {
    let text = setting(env, name).unwrap_or_default();
    let origins = text.split(',').map(|origin| origin.trim().trim_end_matches('/').to_owned());
    origins.filter(|origin| !origin.is_empty()).collect()
}

/// A secret or a variable; to a Worker they are the same. One that was never set is a missing binding.
fn setting(env: &Env, name: &str) -> Option<String> {
    env.var(name).ok().map(|value| value.to_string()).filter(|text| !text.is_empty())
}
