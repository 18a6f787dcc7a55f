//! Cloudflare, as far as its management of queues goes: tokens with and without a permission, plans, pages of lists,
//! queues, and what reads them. It keeps what it is told, and refuses what the real one refuses, with its codes.
//!
//! Out of scope: messages. Where it is stricter than what is documented: a body with a field that nobody has documented
//! is refused, so that a misspelled one is not passed over.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::http::{RUNTIME, block_on};

/// The only account.
const ACCOUNT: &str = "0acc0acc0acc0acc0acc0acc0acc0acc";

/// So few queues on a page, so that two of them are met.
const PAGE: usize = 2;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Queues: Edit
    Edit,
    /// Queues: Read
    Read,
    /// Something else.
    None,
}

/// What is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Messages are kept for a day.
    Free,
    /// They are kept for four days, and for as many as fourteen.
    Paid,
}

/// The server.
#[derive(Debug)]
pub struct Cloudflare {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    state: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    queues: Vec<Queue>,
    /// Every request so far that changes something, as `POST /queues`.
    changes: Vec<String>,
    ids: u32,
}

#[derive(Debug, Clone)]
struct Queue {
    id: String,
    name: String,
    retention: u64,
    paused: bool,
    consumer: Option<Value>,
}

/// A refusal: status, code, text.
type Refused = (u16, i64, String);

impl Permission {
    /// The token that has it.
    pub fn token(self) -> &'static str {
        match self {
            Self::Edit => "token-that-may-edit",
            Self::Read => "token-that-may-read",
            Self::None => "token-of-something-else",
        }
    }
}

impl Cloudflare {
    /// Starts one with an account without queues.
    pub fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared { plan, state: Mutex::default() });
        let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port can be had");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = RUNTIME.spawn(async move {
            axum::serve(listener, router).await.expect("serving ends only with the task");
        });
        Self { address, shared, task }
    }

    /// The settings that lead to it, without those of queues.
    pub fn settings(&self, token: Permission) -> String {
        let (address, token) = (&self.address, token.token());
        format!("CF_API_BASE_URL=http://{address}/client/v4\nCF_ACCOUNT_ID={ACCOUNT}\nCF_QUEUES_API_TOKEN={token}\n")
    }

    /// Makes a queue, with this as its consumer if anything.
    pub fn add(&self, name: &str, consumer: Option<Value>) -> String {
        let mut state = self.shared.state();
        let id = state.make(name, self.shared.plan);
        let consumer_id = state.id();
        if let (Some(consumer), Some(queue)) = (consumer, state.queues.last_mut()) {
            let mut consumer = consumer;
            consumer["consumer_id"] = consumer_id.into();
            queue.consumer = Some(consumer);
        }
        id
    }

    /// Stops the delivery of a queue, as a person does.
    pub fn pause(&self, name: &str) {
        let mut state = self.shared.state();
        let queue = state.queues.iter_mut().find(|queue| queue.name == name);
        queue.unwrap_or_else(|| panic!("no queue {name}")).paused = true;
    }

    /// A queue as the service tells of it.
    pub fn queue(&self, name: &str) -> Option<Value> {
        self.shared.state().queues.iter().find(|queue| queue.name == name).map(Queue::shown)
    }

    /// Every request so far that has changed something, or was to.
    pub fn changes(&self) -> Vec<String> {
        self.shared.state().changes.clone()
    }
}

impl Drop for Cloudflare {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Account> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl Account {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:032x}", 0xabc_0000_0000_u64 + u64::from(self.ids))
    }

    fn make(&mut self, name: &str, plan: Plan) -> String {
        let (id, retention) = (self.id(), if plan == Plan::Free { 86_400 } else { 345_600 });
        self.queues.push(Queue { id: id.clone(), name: name.to_owned(), retention, paused: false, consumer: None });
        id
    }
}

impl Queue {
    fn shown(&self) -> Value {
        let consumers: Vec<&Value> = self.consumer.iter().collect();
        json!({
            "queue_id": self.id,
            "queue_name": self.name,
            "settings": {
                "delivery_delay": 0, "delivery_paused": self.paused, "message_retention_period": self.retention,
            },
            "producers": [],
            "producers_total_count": 0,
            "consumers_total_count": consumers.len(),
            "consumers": consumers,
        })
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1_000_000).await.unwrap_or_default();
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let answered = shared.answered(&parts.method, parts.uri.path(), query, header, &body);
    let (status, body) = match answered {
        Ok(result) => (200, json!({"success": true, "errors": [], "messages": [], "result": result})),
        Err((status, code, message)) => {
            let errors = json!([{"code": code, "message": message}]);
            (status, json!({"success": false, "errors": errors, "messages": [], "result": null}))
        }
    };
    let status = StatusCode::from_u16(status).expect("the statuses here are right");
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn refused<T>(status: u16, code: i64, message: impl Into<String>) -> Result<T, Refused> {
    Err((status, code, message.into()))
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Shared {
    fn answered(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        authorization: &str,
        body: &[u8],
    ) -> Result<Value, Refused> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let ["client", "v4", "accounts", account, "queues", rest @ ..] = segments.as_slice() else {
            return refused(404, 7003, format!("Could not route to {path}"));
        };
        let permissions = [Permission::Edit, Permission::Read, Permission::None];
        let known = |permission: &Permission| authorization == format!("Bearer {}", permission.token());
        let Some(permission) = permissions.into_iter().find(known) else {
            return refused(401, 10000, "Authentication error");
        };
        if !is_id(account) {
            return refused(
                404,
                7003,
                format!("Could not route to {path}, perhaps your object identifier is invalid?"),
            );
        }
        let reads = *method == Method::GET;
        if *account != ACCOUNT || permission == Permission::None || (permission == Permission::Read && !reads) {
            return refused(403, 10000, "Authentication error");
        }
        let mut state = self.state();
        let settles = rest.last() == Some(&"ack");
        if !reads && !settles {
            state.changes.push(format!("{method} /{}", rest.join("/")));
        }
        let body: Map<String, Value> = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_) if reads => Map::new(),
            Err(error) => return refused(400, 10208, format!("JSONRequestBodyMalformed: {error}")),
        };
        if rest.is_empty() {
            return match method.as_str() {
                "GET" => Ok(page(&state, query)),
                "POST" => self.create(&mut state, &body),
                _ => refused(405, 10405, "Method not allowed"),
            };
        }
        let taken: Vec<String> = state.queues.iter().map(|queue| queue.name.clone()).collect();
        let new_id = state.id();
        if !is_id(rest[0]) {
            return refused(400, 10107, "QueueIDMalformed");
        }
        let Some(queue) = state.queues.iter_mut().find(|queue| queue.id == rest[0]) else {
            return refused(404, 11000, "Queue not found");
        };
        match (method.as_str(), &rest[1..]) {
            ("GET", []) => Ok(queue.shown()),
            ("PATCH", []) => self.edit(queue, &body),
            ("GET", ["metrics"]) => {
                Ok(json!({"backlog_count": 0, "backlog_bytes": 0, "oldest_message_timestamp_ms": 0}))
            }
            ("GET", ["consumers"]) => Ok(queue.consumer.iter().cloned().collect()),
            ("POST", ["consumers"]) if queue.consumer.is_some() => refused(400, 11004, "Queue already has a consumer"),
            ("POST", ["consumers"]) => {
                let consumer = consumer(new_id, queue, &body)?;
                queue.consumer = Some(consumer.clone());
                self.has_dead_letters(&mut state, &taken, &consumer);
                Ok(consumer)
            }
            ("PUT", ["consumers", id]) => {
                let consumer = consumer((*id).to_owned(), queue, &body)?;
                queue.consumer = Some(consumer.clone());
                self.has_dead_letters(&mut state, &taken, &consumer);
                Ok(consumer)
            }
            ("POST", ["messages", "ack"]) => Ok(json!({"ackCount": 0, "retryCount": 0, "warnings": {}})),
            _ => refused(404, 7003, format!("Could not route to {path}")),
        }
    }

    fn create(&self, state: &mut Account, body: &Map<String, Value>) -> Result<Value, Refused> {
        only(body, &["queue_name", "settings", "jurisdiction"], 10026)?;
        let name = body.get("queue_name").and_then(Value::as_str).unwrap_or_default();
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(is_plain) {
            return refused(400, 11003, "Queue name is invalid");
        }
        if state.queues.iter().any(|queue| queue.name == name) {
            return refused(409, 11009, "Queue name is already taken");
        }
        state.make(name, self.plan);
        let queue = state.queues.last_mut().expect("it was just made");
        if body.contains_key("settings") { self.edit(queue, body) } else { Ok(queue.shown()) }
    }

    fn edit(&self, queue: &mut Queue, body: &Map<String, Value>) -> Result<Value, Refused> {
        only(body, &["queue_name", "settings", "jurisdiction"], 10026)?;
        let Some(settings) = body.get("settings").and_then(Value::as_object) else { return Ok(queue.shown()) };
        only(settings, &["delivery_delay", "delivery_paused", "message_retention_period"], 100_128)?;
        if let Some(retention) = settings.get("message_retention_period") {
            let most = if self.plan == Plan::Free { 86_400 } else { 1_209_600 };
            queue.retention = within(retention, 60, most, 100_128)?;
        }
        if let Some(paused) = settings.get("delivery_paused").and_then(Value::as_bool) {
            queue.paused = paused;
        }
        Ok(queue.shown())
    }

    /// A dead letter queue that is not there is made.
    fn has_dead_letters(&self, state: &mut Account, taken: &[String], consumer: &Value) {
        let name = consumer["dead_letter_queue"].as_str().unwrap_or_default();
        if !name.is_empty() && !taken.iter().any(|taken| taken == name) {
            state.make(name, self.plan);
        }
    }
}

/// A page of the queues.
fn page(state: &Account, query: &str) -> Value {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("page="));
    let page = asked.and_then(|page| page.parse::<usize>().ok()).unwrap_or(1).max(1);
    state.queues.iter().skip((page - 1) * PAGE).take(PAGE).map(Queue::shown).collect()
}

/// A consumer as it is told of. What is not said has its default: nothing of an earlier one stays.
fn consumer(id: String, queue: &Queue, body: &Map<String, Value>) -> Result<Value, Refused> {
    only(body, &["type", "dead_letter_queue", "settings"], 10026)?;
    if body.get("type").and_then(Value::as_str) != Some("http_pull") {
        return refused(400, 10026, "`type` must be http_pull");
    }
    let none = Map::new();
    let settings = body.get("settings").and_then(Value::as_object).unwrap_or(&none);
    let bounds = [
        ("batch_size", 5, 1, 100),
        ("max_retries", 3, 0, 100),
        ("retry_delay", 0, 0, 86_400),
        ("visibility_timeout_ms", 30_000, 1, 43_200_000),
    ];
    only(settings, &bounds.map(|(name, ..)| name), 100_127)?;
    let mut told = Map::new();
    for (name, default, min, max) in bounds {
        let value = settings.get(name).map_or(Ok(default), |value| within(value, min, max, 100_127))?;
        told.insert(name.to_owned(), value.into());
    }
    let dead_letters = body.get("dead_letter_queue").and_then(Value::as_str).unwrap_or_default();
    if dead_letters == queue.name {
        return refused(400, 100_127, "a queue cannot be its own dead letter queue");
    }
    Ok(json!({
        "consumer_id": id, "queue_name": queue.name, "type": "http_pull", "dead_letter_queue": dead_letters,
        "settings": told,
    }))
}

fn only(body: &Map<String, Value>, names: &[&str], code: i64) -> Result<(), Refused> {
    match body.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => refused(400, code, format!("unknown field {name}")),
        None => Ok(()),
    }
}

fn within(value: &Value, min: u64, max: u64, code: i64) -> Result<u64, Refused> {
    match value.as_u64().filter(|number| (min..=max).contains(number)) {
        Some(number) => Ok(number),
        None => refused(400, code, format!("{value} is not within {min} and {max}")),
    }
}
