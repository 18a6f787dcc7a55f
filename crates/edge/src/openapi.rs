//! The description of the API as OpenAPI 3.1, made from the types that serve it. No program makes it: a test does, and
//! holds `openapi.json`, which is served, to it. `SNAPSHOTS=overwrite cargo test -p edge openapi` writes it anew.

use protocol::files::{Complete, JobFiles, Offer, Offered, Place};
use protocol::hub::{CancelAnswer, CancelMany, CancelManyAnswer, JobBrief, JobPage, JobStatus, LogEvent, Pools, Sites};
use protocol::hub::{PAGE_DEFAULT, PAGE_MAX};
use protocol::link::{Download, Upload};
use protocol::{Content, Digest, JobId, JobSpec, JobState, limits};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::admission::{BatchAnswer, Queued};
use crate::hub::Told;
use crate::problem::ProblemBody;
use crate::{Config, Head, Problem, Route, Secret, noetl, route};

/// Where definitions lie.
const SCHEMAS: &str = "#/components/schemas/";

/// How wide a line of the document may be.
const WIDTH: usize = 120;

/// What is served and is no part of the API: a page to look at.
const PAGES: [&str; 1] = ["/"];

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    People,
    Sites,
    Both,
}

/// A body: its content type, and its shape.
type Body = (&'static str, Value);

struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    who: Who,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, &'static str, Vec<Body>)>,
    problems: Vec<Problem>,
}

/// The shapes that were asked for: of what comes, and of what goes, which differ in what may be left out.
struct Shapes {
    coming: SchemaGenerator,
    going: SchemaGenerator,
}

impl Shapes {
    fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            coming: settings().for_deserialize().into_generator(),
            going: settings().for_serialize().into_generator(),
        }
    }

    fn coming<T: JsonSchema>(&mut self) -> Value {
        self.coming.subschema_for::<T>().to_value()
    }

    fn going<T: JsonSchema>(&mut self) -> Value {
        self.going.subschema_for::<T>().to_value()
    }

    fn json<T: JsonSchema>(&mut self) -> Vec<Body> {
        vec![("application/json", self.going::<T>())]
    }
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({"in": "query", "name": name, "schema": schema, "description": description})
}

/// One or more states, with commas.
fn states() -> String {
    let states = JobState::ALL.map(JobState::as_str).join("|");
    format!("({states})(,({states}))*")
}

fn filters() -> Vec<Value> {
    let states = states();
    let states = json!({"type": "string", "pattern": format!("^({states})?$")});
    let text = |name, description| query(name, json!({"type": "string"}), description);
    vec![
        query("state", states, "Only jobs that are so far; several states with commas."),
        text("task", "Only jobs of this task."),
        text("name", "Only jobs of this name."),
        text("pool", "Only jobs in this pool."),
        text("site", "Only jobs that this site holds or held."),
        text("parent", "Only jobs that this job has asked for."),
        query("top", flag(), "Only jobs that no job has asked for."),
    ]
}

fn whole_number() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX})
}

/// An empty parameter is one that was not given, as in forms.
fn flag() -> Value {
    json!({"type": "string", "enum": ["", "0", "1", "false", "true"]})
}

fn job_id(shapes: &mut Shapes) -> Value {
    json!({"in": "path", "name": "job_id", "required": true, "schema": shapes.going::<JobId>()})
}

fn operations(shapes: &mut Shapes) -> Vec<Operation> {
    let asked_for = || Problem::InvalidRequest { field: None, detail: String::new() };
    let malformed = || Problem::MalformedJson { detail: String::new() };
    let submission = || {
        let key = json!({"type": "string", "minLength": 1, "maxLength": limits::IDEMPOTENCY_KEY_BYTES_MAX,
                         "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"});
        let description = "The same key gives the same job ids, so that a request that is sent again is one.";
        vec![json!({"in": "header", "name": "idempotency-key", "schema": key, "description": description})]
    };
    let not_taken = |too_large: Vec<Problem>| {
        let mut problems = vec![
            malformed(),
            Problem::UnsupportedMediaType,
            Problem::InvalidField { field: None, detail: String::new() },
            Problem::QueueFull { retry_after_seconds: 1 },
            Problem::QueueUnavailable { retry_after_seconds: 1 },
            Problem::Internal,
            Problem::request_too_large(None),
            Problem::message_too_large(0),
        ];
        problems.extend(too_large);
        problems
    };
    let batch_limit = |code| Problem::TooLarge { code, what: "", limit: 0, size: None, unit: "" };
    let stream = json!({"type": "string", "enum": ["", "stdout", "stderr"]});
    let log_event = shapes.going::<LogEvent>();
    let events = |of: &str, data: Value| {
        let schema =
            json!({"type": "string", "description": of, "contentMediaType": "text/event-stream", "x-data": data});
        ("text/event-stream", schema)
    };
    let all_events = json!({
        "job": shapes.going::<JobBrief>(), "pools": shapes.going::<Pools>(), "sites": shapes.going::<Sites>(),
    });
    let alive = "A line that begins with `:` says that the stream is alive.";
    let batch = json!({
        "type": "object",
        "required": ["jobs"],
        "additionalProperties": false,
        "properties": {
            "jobs": {"type": "array", "minItems": 1, "maxItems": limits::BATCH_COUNT_MAX,
                     "items": shapes.coming::<JobSpec>(), "description": "Each is taken or refused by itself."},
        },
    });
    let operation = |method, path, id, summary, who| Operation {
        method,
        path,
        id,
        summary,
        who,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        problems: Vec::new(),
    };
    let health = json!({"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}});
    let text = json!({"type": "string", "description": "Control characters are shown as text."});
    let logs = vec![
        ("text/plain", text),
        events(
            &format!(
                "With `follow=1`: `log` for each piece, whose id leads back to where it ends as `last-event-id`; `end` \
                 when no more comes. {alive}"
            ),
            json!({"log": log_event, "end": {"type": "object", "properties": {"state": {"type": "string"}}}}),
        ),
    ];
    vec![
        Operation {
            answers: vec![(200, "It is.", vec![("application/json", health)])],
            ..operation("get", "/health", "isHealthy", "Is the edge there?", Who::Anybody)
        },
        Operation {
            answers: vec![(200, "It is.", Vec::new())],
            ..operation("head", "/health", "isHealthyHead", "Is the edge there?", Who::Anybody)
        },
        Operation {
            answers: vec![(200, "OpenAPI 3.1.", vec![("application/json", json!({"type": "object"}))])],
            ..operation("get", "/openapi.json", "describe", "This description", Who::Anybody)
        },
        Operation {
            answers: vec![(200, "OpenAPI 3.1.", Vec::new())],
            ..operation("head", "/openapi.json", "describeHead", "This description", Who::Anybody)
        },
        Operation {
            parameters: submission(),
            body: Some(shapes.coming::<JobSpec>()),
            answers: vec![(202, "The job is in the queue.", shapes.json::<Queued>())],
            problems: not_taken(Vec::new()),
            ..operation("post", "/jobs", "submit", "Submit a job", Who::People)
        },
        Operation {
            parameters: submission(),
            body: Some(batch),
            answers: vec![
                (202, "At least one job is in the queue.", shapes.json::<BatchAnswer>()),
                // The shape that a problem has as well is told apart by the content type.
                (422, "No job was taken.", shapes.json::<BatchAnswer>()),
            ],
            problems: not_taken(vec![batch_limit("batch_too_large"), batch_limit("batch_too_many")]),
            ..operation("post", "/jobs/batch", "submitBatch", "Submit up to 100 jobs", Who::People)
        },
        Operation {
            parameters: [
                filters(),
                vec![
                    query("after", whole_number(), "Where the page begins: `after` of the answer before."),
                    query(
                        "limit",
                        json!({"type": "integer", "minimum": 0, "maximum": u64::MAX, "default": PAGE_DEFAULT}),
                        &format!("How many jobs the page has at the most, from 1 to {PAGE_MAX}; more count as that."),
                    ),
                ],
            ]
            .concat(),
            answers: vec![(200, "A page of jobs.", shapes.json::<JobPage>())],
            problems: vec![asked_for()],
            ..operation("get", "/jobs", "listJobs", "List jobs, the newest first", Who::People)
        },
        Operation {
            parameters: submission(),
            body: Some(shapes.coming::<noetl::Call<'_>>()),
            answers: vec![
                (200, "The job has ended.", shapes.json::<noetl::Answer<'_>>()),
                (202, "It goes on, and `GET /jobs/ID` tells of it.", shapes.json::<noetl::Answer<'_>>()),
            ],
            problems: not_taken(vec![Problem::UnknownJob, Problem::NoHub, Problem::HubUnavailable, Problem::HubBusy]),
            ..operation("post", noetl::PATH, "executeTask", "The call of NoETL's broker for one task", Who::People)
        },
        Operation {
            body: Some(shapes.coming::<CancelMany>()),
            answers: vec![
                (200, "So many it would be.", shapes.json::<CancelManyAnswer>()),
                (202, "So many are cancelled.", shapes.json::<CancelManyAnswer>()),
            ],
            problems: vec![asked_for(), malformed(), Problem::UnsupportedMediaType, Problem::request_too_large(None)],
            ..operation(
                "post",
                "/jobs/cancel",
                "cancelJobs",
                "Cancel all jobs that fit and have not ended",
                Who::People,
            )
        },
        Operation {
            parameters: vec![
                job_id(shapes),
                query(
                    "wait",
                    json!({"type": "number"}),
                    "Hold the answer until the job has ended, for so many seconds; more than 60 count as 60.",
                ),
            ],
            answers: vec![(200, "All that is known of it.", shapes.json::<JobStatus>())],
            problems: vec![asked_for(), Problem::UnknownJob, Problem::HubBusy],
            ..operation(
                "get",
                "/jobs/{job_id}",
                "getJob",
                "How far a job is, its time line, input and result",
                Who::People,
            )
        },
        Operation {
            parameters: vec![job_id(shapes)],
            answers: vec![
                (200, "It had ended before.", shapes.json::<CancelAnswer>()),
                (202, "It will be ended, or never begin.", shapes.json::<CancelAnswer>()),
            ],
            problems: vec![asked_for(), Problem::UnknownJob],
            ..operation("post", "/jobs/{job_id}/cancel", "cancelJob", "Cancel a job", Who::People)
        },
        Operation {
            parameters: vec![
                job_id(shapes),
                query(
                    "stream",
                    stream,
                    "Where it was printed; when it is not said, both with `follow`, and else `stdout`.",
                ),
                query("follow", flag(), "Go on while the job prints."),
                query("from", whole_number(), "Begin at this byte, or, below 0, so far from the end."),
                json!({"in": "header", "name": "last-event-id", "schema": {"type": "string"},
                       "description": "Go on after this event; goes before `from`."}),
            ],
            answers: vec![(200, "What it has printed.", logs)],
            problems: vec![
                asked_for(),
                Problem::UnknownJob,
                Problem::NoLogs { state: String::new() },
                Problem::HubBusy,
            ],
            ..operation("get", "/jobs/{job_id}/logs", "readLog", "What a job has printed, or prints", Who::People)
        },
        Operation {
            answers: vec![(200, "A stream without end.", vec![events(alive, all_events)])],
            problems: vec![asked_for(), Problem::HubBusy],
            ..operation("get", "/events", "followAll", "What happens, as it does", Who::People)
        },
        Operation {
            parameters: vec![query("history", flag(), "With the last day.")],
            answers: vec![(200, "The pools of all sites.", shapes.json::<Pools>())],
            problems: vec![asked_for()],
            ..operation("get", "/pools", "listPools", "The pools of all sites", Who::People)
        },
        Operation {
            answers: vec![(200, "All sites.", shapes.json::<Sites>())],
            problems: vec![asked_for()],
            ..operation("get", "/sites", "listSites", "Who is linked, and what waits in the queue", Who::People)
        },
        Operation {
            answers: vec![(101, "A WebSocket, with the messages of `crates/protocol/src/link.rs`.", Vec::new())],
            problems: vec![asked_for(), Problem::UpgradeRequired],
            ..operation("get", "/link", "link", "The link of a site", Who::Sites)
        },
        Operation {
            body: Some(shapes.coming::<Upload>()),
            answers: vec![(200, "What there is to say.", shapes.json::<Download>())],
            problems: vec![
                asked_for(),
                malformed(),
                Problem::UnsupportedMediaType,
                Problem::request_too_large(None),
                refused_site("bad_message"),
                refused_site("name_taken"),
                refused_site("too_many_jobs"),
            ],
            ..operation("post", "/report", "report", "What a site says that has no link", Who::Sites)
        },
        Operation {
            body: Some(shapes.coming::<Offer>()),
            answers: vec![(200, "For each content, in the same order.", shapes.json::<Offered>())],
            problems: of_files(vec![
                asked_for(),
                malformed(),
                Problem::UnsupportedMediaType,
                Problem::request_too_large(None),
                batch_limit("too_many_files"),
                batch_limit("file_too_large"),
                Problem::UploadRefused { detail: String::new() },
                Problem::FilesFull { limit: 0, total: 0, size: 0 },
                Problem::HubBusy,
            ]),
            ..operation(
                "post",
                "/files",
                "offerFiles",
                "Put contents into the store: what is missing, and where",
                Who::Both,
            )
        },
        Operation {
            parameters: vec![digest(shapes)],
            answers: vec![(302, "It is there, for a while.", Vec::new())],
            problems: of_files(vec![asked_for(), Problem::UnknownFile]),
            ..operation("get", "/files/{sha256}", "getFile", "A content", Who::Both)
        },
        Operation {
            parameters: vec![digest(shapes)],
            body: Some(shapes.coming::<Complete>()),
            answers: vec![(200, "It is there.", shapes.json::<Place>())],
            problems: of_files(vec![
                asked_for(),
                malformed(),
                Problem::request_too_large(None),
                Problem::UnknownFile,
                Problem::UploadRefused { detail: String::new() },
            ]),
            ..operation("post", "/files/{sha256}/complete", "completeFile", "A content was put", Who::Both)
        },
        Operation {
            parameters: vec![digest(shapes)],
            answers: vec![(202, "Whoever offers it puts it anew.", shapes.json::<Content>())],
            problems: of_files(vec![asked_for(), Problem::UnknownFile]),
            ..operation("post", "/files/{sha256}/wrong", "doubtFile", "A content came as another one", Who::Both)
        },
        Operation {
            parameters: vec![job_id(shapes)],
            answers: vec![(200, "Those that its result lists.", shapes.json::<JobFiles>())],
            problems: of_files(vec![asked_for(), Problem::UnknownJob]),
            ..operation("get", "/jobs/{job_id}/files", "listFiles", "The files that a job has left", Who::People)
        },
    ]
}

fn digest(shapes: &mut Shapes) -> Value {
    json!({"in": "path", "name": "sha256", "required": true, "schema": shapes.going::<Digest>()})
}

/// Those of every question about files, and these.
fn of_files(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.extend([Problem::NoFiles, Problem::StoreUnavailable { detail: String::new() }]);
    problems
}

fn refused_site(code: &'static str) -> Problem {
    Problem::SiteRefused { code, detail: String::new() }
}

impl Operation {
    /// Every refusal: those of who asks, and of the hub, come with each.
    fn all_problems(&self) -> Vec<Problem> {
        let detail = String::new();
        let key = match self.who {
            Who::Anybody => return Vec::new(),
            Who::People => Problem::Unauthorized { given: false },
            // Both refusals say the same.
            Who::Both => Problem::Unauthorized { given: false },
            Who::Sites => Problem::UnauthorizedSite { given: false },
        };
        let mut problems = vec![key, Problem::NotConfigured { detail }];
        if !matches!((self.method, self.path), ("post", "/jobs" | "/jobs/batch" | noetl::PATH)) {
            problems.extend([Problem::NoHub, Problem::HubUnavailable]);
        }
        problems.extend(self.problems.iter().cloned());
        problems
    }

    fn to_json(&self, refusals: &mut Map<String, Value>) -> Value {
        let mut responses = Map::new();
        for (status, description, body) in &self.answers {
            let content = body.iter().map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": schema})));
            let mut answer = json!({"description": description});
            if !body.is_empty() {
                answer["content"] = content.collect::<Map<_, _>>().into();
            }
            responses.insert(status.to_string(), answer);
        }
        let problems = self.all_problems();
        let mut statuses: Vec<u16> = problems.iter().map(Problem::status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let of_status: Vec<&Problem> = problems.iter().filter(|problem| problem.status() == status).collect();
            let (name, refusal) = refusal(&of_status);
            let entry = refusals.entry(&name).or_insert(refusal);
            let said = match responses.get(&status.to_string()) {
                None => json!({"$ref": format!("#/components/responses/{name}")}),
                Some(answer) => {
                    let mut both = answer.clone();
                    both["content"]["application/problem+json"] = entry["content"]["application/problem+json"].clone();
                    both
                }
            };
            responses.insert(status.to_string(), said);
        }
        let security = match self.who {
            Who::Anybody => json!([]),
            Who::People => json!([{"api_key": []}]),
            Who::Sites => json!([{"site_key": []}]),
            Who::Both => json!([{"api_key": []}, {"site_key": []}]),
        };
        let mut operation = json!({
            "operationId": self.id, "summary": self.summary, "security": security, "responses": responses,
        });
        if !self.parameters.is_empty() {
            operation["parameters"] = self.parameters.clone().into();
        }
        if let Some(schema) = &self.body {
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        operation
    }
}

/// The answer of these problems, which have one status, and its name.
fn refusal(problems: &[&Problem]) -> (String, Value) {
    let answers: Vec<_> = problems.iter().map(|problem| problem.response()).collect();
    let said: Vec<Value> = answers.iter().map(|answer| serde_json::from_str(&answer.body).unwrap()).collect();
    let of = |name: &str| {
        let mut words: Vec<&str> = said.iter().map(|body| body[name].as_str().unwrap()).collect();
        words.dedup();
        words
    };
    let codes = of("code");
    let headers: Map<String, Value> = answers
        .iter()
        .flat_map(|answer| &answer.headers)
        .filter(|(name, _)| *name != "content-type")
        .map(|(name, _)| ((*name).to_owned(), json!({"schema": {"type": "string"}})))
        .collect();
    let shape = json!({
        "allOf": [{"$ref": format!("{SCHEMAS}Problem")}, {"properties": {"code": {"enum": codes}}}],
    });
    let mut refusal = json!({
        "description": format!("{}.", of("title").join(", or ")),
        "content": {"application/problem+json": {"schema": shape}},
    });
    if !headers.is_empty() {
        refusal["headers"] = headers.into();
    }
    (codes.join("."), refusal)
}

/// The whole document.
fn document() -> Value {
    let mut shapes = Shapes::new();
    shapes.going::<ProblemBody>();
    let operations = operations(&mut shapes);
    let told = shapes.going::<Told<'_>>();
    let mut refusals = Map::new();
    let mut paths = Map::new();
    for operation in &operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let before =
            path.as_object_mut().unwrap().insert(operation.method.to_owned(), operation.to_json(&mut refusals));
        assert!(before.is_none(), "{} {} is there twice", operation.method, operation.path);
    }
    let header = |name: &str, description: &str| {
        let mut header = query(name, json!({"type": "string"}), description);
        (header["in"], header["required"]) = ("header".into(), true.into());
        header
    };
    let key = |header: &str, setting: &str| {
        let description = format!("The {setting} of the edge.");
        json!({"type": "apiKey", "in": "header", "name": header, "description": description})
    };
    paths["/jobs"]["post"]["callbacks"] = json!({"job": {"{$request.body#/callback/url}": {"post": {
        "summary": "The job is so far; called at least once for each state that `callback.events` names",
        "description": "Signed as Standard Webhooks say (https://www.standardwebhooks.com).",
        "parameters": [
            header("webhook-id", "The same for each try of one call."),
            header("webhook-timestamp", "When the call was made, in seconds since 1970."),
            header("webhook-signature", "`v1,` and HMAC-SHA256 of `ID.TIMESTAMP.BODY`, in base64."),
        ],
        "requestBody": {"required": true, "content": {"application/json": {"schema": told}}},
        "responses": {
            "2XX": {"description": "Understood."},
            "410": {"description": "Do not call again."},
            "default": {"description": "Call again, later and later, for a day; a redirect is not followed."},
        },
    }}}});
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hpc-queue",
            "summary": "Submit jobs to a cluster, follow them, cancel them",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"api_key": key("x-api-key", "API_KEY"), "site_key": key("x-site-key", "SITE_KEY")},
            "responses": refusals,
        },
    });
    let going = shapes.going.take_definitions(true).into_iter().map(|(name, mut shape)| {
        without_null(&mut shape);
        (name, shape)
    });
    let mut definitions: Map<String, Value> = going.collect();
    add_coming(&mut document, &mut definitions, shapes.coming.take_definitions(true));
    // Another name of the field: see `JobSpec`.
    let spec = definitions["JobSpec"]["properties"].as_object_mut().unwrap();
    let mut runtime = spec["pool"].clone();
    runtime["description"] = "Another name of `pool`; give one of them.".into();
    spec.insert("runtime".to_owned(), runtime);
    definitions["JobSpec"]["not"] = json!({"required": ["pool", "runtime"]});
    definitions["CancelMany"]["properties"]["state"]["pattern"] = format!("^{}$", states()).into();
    let given = |field: &str| json!({"required": [field], "properties": {field: {"type": "string"}}});
    definitions["CancelMany"]["anyOf"] = ["state", "task", "pool", "name"].map(given).to_vec().into();
    document["components"]["schemas"] = definitions.into();
    plainly(&mut document);
    document
}

/// What goes out leaves out what is not there.
fn without_null(shape: &mut Value) {
    let required = shape["required"].clone();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|given| given == name));
    if let Some(fields) = shape.get_mut("properties").and_then(Value::as_object_mut) {
        for (_, field) in fields.iter_mut().filter(|(name, _)| !is_required(name)) {
            if let Some(kinds) = field.get_mut("type").and_then(Value::as_array_mut) {
                kinds.retain(|kind| kind != "null");
                if let [kind] = kinds.as_slice() {
                    field["type"] = kind.clone();
                }
            }
            if let Some(choices) = field.get_mut("anyOf").and_then(Value::as_array_mut) {
                choices.retain(|choice| choice["type"] != "null");
            }
            let only = field.get("anyOf").and_then(Value::as_array).filter(|choices| choices.len() == 1).cloned();
            if let (Some(only), Some(field)) = (only, field.as_object_mut()) {
                field.remove("anyOf");
                field.extend(only[0].as_object().unwrap().clone());
            }
        }
    }
    match shape {
        Value::Object(fields) => fields.values_mut().for_each(without_null),
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// Adds the shapes of what comes. One that differs from that of what goes gets a name of its own.
fn add_coming(document: &mut Value, definitions: &mut Map<String, Value>, coming: Map<String, Value>) {
    let mut coming: Vec<(String, Value)> = coming.into_iter().collect();
    while let Some(at) =
        coming.iter().position(|(name, shape)| definitions.get(name).is_some_and(|other| other != shape))
    {
        let (name, shape) = coming.remove(at);
        let given = format!("{name}Given");
        let (from, to) = (format!("{SCHEMAS}{name}"), format!("{SCHEMAS}{given}"));
        coming.push((given, shape));
        coming.iter_mut().for_each(|(_, shape)| rename(shape, &from, &to));
        for path in document["paths"].as_object_mut().unwrap().values_mut() {
            for operation in path.as_object_mut().unwrap().values_mut() {
                for place in ["requestBody", "parameters"] {
                    if let Some(place) = operation.get_mut(place) {
                        rename(place, &from, &to);
                    }
                }
            }
        }
    }
    definitions.extend(coming);
}

fn rename(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text == from => *text = to.to_owned(),
        Value::Object(fields) => fields.values_mut().for_each(|value| rename(value, from, to)),
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, from, to)),
        _ => {}
    }
}

/// Descriptions are comments of the code: without its links, and with numbers for names.
fn plainly(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                for (name, number) in [
                    ("limits::RETRIES_MAX", limits::RETRIES_MAX.to_string()),
                    ("JOBS_MAX", protocol::link::JOBS_MAX.to_string()),
                    ("LOG_BYTES_MAX", protocol::link::LOG_BYTES_MAX.to_string()),
                    ("TAIL_SECONDS", format!("{} seconds", protocol::link::TAIL_SECONDS)),
                    ("crate::Reason::Lost", "`lost`".to_owned()),
                    ("crate::limits::FILES_COUNT_MAX", limits::FILES_COUNT_MAX.to_string()),
                ] {
                    *text = text.replace(&format!("[`{name}`]"), &number);
                }
                *text = text.replace('\n', " ");
                assert!(!text.contains("[`"), "a link in the description {text:?}; say what it stands for above");
            }
            fields.values_mut().for_each(plainly);
        }
        Value::Array(values) => values.iter_mut().for_each(plainly),
        _ => {}
    }
}

/// JSON for people: what fits on a line stands on one. Of the line `used` is taken already.
fn pretty(value: &Value, indent: usize, used: usize) -> String {
    let line = value.to_string();
    // With a comma after it.
    if used + line.chars().count() < WIDTH {
        return line;
    }
    let deeper = indent + 2;
    let (open, close, parts): (_, _, Vec<String>) = match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let name = json!(name).to_string();
                format!("{name}: {}", pretty(value, deeper, deeper + name.len() + 2))
            };
            ('{', '}', fields.iter().map(field).collect())
        }
        Value::Array(values) => ('[', ']', values.iter().map(|value| pretty(value, deeper, deeper)).collect()),
        _ => return line,
    };
    let begin = " ".repeat(indent);
    let parts = parts.iter().map(|part| format!("{begin}  {part}")).collect::<Vec<_>>().join(",\n");
    format!("{open}\n{parts}\n{begin}{close}")
}

#[test]
fn openapi_json_is_that_of_the_code() {
    let document = document();
    let text = pretty(&document, 0, 0) + "\n";
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    // What it shows when they differ ends with the line that writes it anew.
    snapbox::assert_data_eq!(text, snapbox::file!["../openapi.json"].raw());
}

/// What is referred to is there, and what is there is referred to.
#[test]
fn openapi_refers_to_all_that_it_has() {
    let document = document();
    let text = document.to_string();
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(text.contains(&format!(r##""#/components/{kind}/{name}""##)), "nothing refers to {name}");
        }
    }
    for reference in text.split(r##""$ref":"#"##).skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is not there");
    }
}

/// What a request without a query leads to: nothing, or else another method, or something.
fn routed(method: &str, path: &str) -> Result<(), Option<String>> {
    let key = || Secret::new("k");
    let keys = crate::files::Keys { access_key_id: "k".to_owned(), secret_access_key: "k".to_owned() };
    let files = Some(crate::files::Store::own("/s3", "files", "auto", keys));
    let config = Config { api_key: key(), site_key: key(), hub: true, files, ..Config::default() };
    let content_type = Some("application/json");
    let (api_key, site_key) = (Some("k"), Some("k"));
    match route(&Head { method, path, content_type, api_key, site_key, ..Head::default() }, &config) {
        Route::Answer(answer) if answer.status == 404 => Err(None),
        Route::Answer(answer) if answer.status == 405 => {
            let allow = answer.headers.into_iter().find(|(name, _)| *name == "allow");
            Err(Some(allow.expect("a 405 says what is allowed").1))
        }
        _ => Ok(()),
    }
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// Every path that the code could know, by the texts that occur in it.
fn paths_of_the_code() -> Vec<String> {
    let code = concat!(
        include_str!("route.rs"),
        include_str!("hub/request.rs"),
        include_str!("files/request.rs"),
        include_str!("noetl.rs")
    );
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let texts: std::collections::BTreeSet<&str> = code.split('"').collect();
    let plain = |text: &&&str| {
        (1..24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'.'))
    };
    let words: Vec<&str> = texts.iter().filter(plain).copied().collect();
    let mut paths: Vec<String> =
        texts.iter().filter(|text| text.starts_with('/')).map(|&text| text.to_owned()).collect();
    for first in &words {
        paths.push(format!("/{first}"));
        for second in &words {
            paths.extend([format!("/{first}/{second}"), format!("/{first}/some-job/{second}")]);
        }
    }
    paths
}

#[test]
fn openapi_has_every_path_that_is_routed_and_no_other() {
    let document = document();
    let described = |method: &str, path: &str| !document["paths"][path][method.to_lowercase()].is_null();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path.replace("{job_id}", "some-job").replace("{sha256}", &"0".repeat(64));
        for method in METHODS {
            assert_eq!(routed(method, &real).is_ok(), methods.get(method.to_lowercase()).is_some(), "{method} {path}");
        }
        let Err(Some(allow)) = routed("PUT", &real) else { panic!("PUT {path} is taken") };
        for method in allow.split(", ") {
            assert!(described(method, path), "{path} allows {method}");
        }
    }
    let mut found = std::collections::BTreeSet::new();
    for path in paths_of_the_code() {
        if routed("PUT", &path) == Err(None) || PAGES.contains(&path.as_str()) {
            continue;
        }
        let mut parts: Vec<&str> = path.split('/').collect();
        // What stands at the place of an id is one, unless the whole path is another one.
        if parts.get(1) == Some(&"jobs") && parts.len() > 2 && document["paths"][&path].is_null() {
            parts[2] = "{job_id}";
        }
        if parts.get(1) == Some(&"files") && parts.len() > 2 {
            parts[2] = "{sha256}";
        }
        let path = parts.join("/");
        assert!(!document["paths"][&path].is_null(), "{path} is routed and not described");
        found.insert(path);
    }
    let described: std::collections::BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(found, described, "the paths of the code are not all found by its texts");
}

const PAGE: &str = include_str!("../../../docs/hub.md");

#[test]
fn docs_have_every_path_that_is_described() {
    let document = document();
    for path in document["paths"].as_object().unwrap().keys().filter(|path| *path != "/health") {
        let path = path.replace("{job_id}", "ID").replace("{sha256}", "SHA256");
        let is_named = PAGE.split('`').skip(1).step_by(2).any(|code| {
            let target = code.split(' ').nth(1).unwrap_or_default();
            target.split('?').next() == Some(&path)
        });
        assert!(is_named || ["/jobs/batch", "/link", "/report"].contains(&path.as_str()), "docs/hub.md has no {path}");
    }
    let (_, table) = PAGE.split_once("| request | what it does |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let requests = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    for request in requests.filter(|request| request.starts_with(['G', 'P'])) {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let operation =
            &document["paths"][path.replace("ID", "{job_id}").replace("SHA256", "{sha256}")][method.to_lowercase()];
        assert!(PAGES.contains(&path) || operation.is_object(), "{request} is not described");
        for name in query.split('&').filter_map(|field| field.split('=').next()).filter(|name| !name.is_empty()) {
            let described = operation["parameters"].as_array().unwrap().iter().any(|given| given["name"] == name);
            assert!(described, "{name} of {request} is not described");
        }
    }
}

#[test]
fn docs_show_a_job_with_a_callback_that_is_taken() {
    let (_, example) = PAGE.split_once("```json\n").unwrap();
    let spec = JobSpec::parse(example.split("```").next().unwrap()).unwrap();
    let callback = spec.callback.unwrap();
    assert!(crate::Callbacks::default().check(&callback.url).is_ok());
    assert!(callback.is_told(JobState::Running) && !callback.is_told(JobState::Cancelled));
}
