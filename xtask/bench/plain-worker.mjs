// What the compiled Worker is measured against: the same request, the same checks, the same message, in JavaScript as
// one would write it by hand. It is no second implementation of the edge: it knows `POST /jobs` only.

const encoder = new TextEncoder();
const known = new Set(["task", "input", "metadata", "time_limit_seconds", "retries", "rerunnable", "idempotency_key"]);

function sameKey(given, expected) {
  const a = encoder.encode(given);
  const b = encoder.encode(expected);
  return a.byteLength === b.byteLength && crypto.subtle.timingSafeEqual(a, b);
}

function problem(status, code, detail) {
  return new Response(JSON.stringify({ type: "about:blank", status, code, detail }), {
    status,
    headers: { "content-type": "application/problem+json" },
  });
}

function invalidField(job) {
  for (const name of Object.keys(job)) {
    if (!known.has(name)) return name;
  }
  if (typeof job.task !== "string" || job.task.length === 0 || encoder.encode(job.task).byteLength > 128) return "task";
  if (job.metadata != null && (typeof job.metadata !== "object" || Array.isArray(job.metadata))) return "metadata";
  const limit = job.time_limit_seconds;
  if (limit != null && (!Number.isInteger(limit) || limit < 1)) return "time_limit_seconds";
  const retries = job.retries;
  if (retries != null && (!Number.isInteger(retries) || retries < 0 || retries > 100)) return "retries";
  if (job.rerunnable != null && typeof job.rerunnable !== "boolean") return "rerunnable";
  return null;
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname !== "/jobs") return problem(404, "not_found", "there is nothing at this path");
    if (request.method !== "POST") return problem(405, "method_not_allowed", "jobs are sent with POST");
    if (!sameKey(request.headers.get("x-api-key") ?? "", env.API_KEY)) {
      return problem(401, "unauthorized", "the header x-api-key is missing or wrong");
    }
    const type = (request.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
    if (type !== "application/json") return problem(415, "unsupported_media_type", "send application/json");
    const text = await request.text();
    if (text.length > 1_000_000) return problem(413, "too_large", "the body is too large");
    let job;
    try {
      job = JSON.parse(text);
    } catch (error) {
      return problem(400, "invalid_json", String(error));
    }
    if (typeof job !== "object" || job === null || Array.isArray(job)) {
      return problem(422, "invalid_job", "a job is a JSON object");
    }
    const field = invalidField(job);
    if (field !== null) return problem(422, "invalid_field", `\`${field}\` is invalid`);

    const message = {
      v: 1,
      job_id: crypto.randomUUID(),
      task: job.task,
      input: job.input ?? null,
      created_at: new Date().toISOString(),
    };
    if (job.metadata != null) message.metadata = job.metadata;
    if (job.time_limit_seconds != null) message.time_limit_seconds = job.time_limit_seconds;
    if (job.retries != null) message.retries = job.retries;
    if (job.rerunnable != null) message.rerunnable = job.rerunnable;
    const body = JSON.stringify(message);
    if (encoder.encode(body).byteLength > 127_900) return problem(413, "too_large", "the message is too large");
    try {
      await env.HPC_QUEUE.send(body, { contentType: "text" });
    } catch (error) {
      return problem(503, "queue_unavailable", String(error));
    }
    return new Response(JSON.stringify({ status: "queued", job_id: message.job_id, queue: "hpc-jobs" }), {
      status: 202,
      headers: { "content-type": "application/json" },
    });
  },
};
