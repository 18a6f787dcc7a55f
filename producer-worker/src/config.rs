//! What the operator has set: secrets and variables of the Worker.

use std::rc::Rc;

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
        files: false,
        callbacks: callbacks(env),
        cors_origins: origins(env, "CORS_ORIGINS"),
    }
}

/// Who may be called. The network of Workers reaches nothing but the Internet: none is allowed besides.
pub(crate) fn callbacks(env: &Env) -> Callbacks {
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
