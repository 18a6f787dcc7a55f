// Cloudflare's SDK for TypeScript against a server of the Queues API: every call that a consumer needs.
//
// Arguments: base URL, account id, API token, the directory with node_modules. Prints one line of JSON with what was
// seen.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [baseURL, account_id, apiToken, tools] = process.argv.slice(2);
// A script looks for packages beside itself; these are elsewhere.
const require = createRequire(join(tools, 'package.json'));
const { Cloudflare, APIError } = require('cloudflare');

const client = new Cloudflare({ apiToken, baseURL, maxRetries: 0 });
const { queues } = client;
const { messages } = queues;
const manifest = readFileSync(join(tools, 'node_modules/cloudflare/package.json'), 'utf8');
const seen = { version: JSON.parse(manifest).version };

async function names() {
  const found = [];
  for await (const queue of queues.list({ account_id })) found.push(queue.queue_name);
  return found.sort();
}

seen.names = await names();

const queue = await queues.create({ account_id, queue_name: 'by-typescript' });
seen.created = [queue.queue_name, queue.consumers_total_count, queue.producers_total_count];
const id = queue.queue_id;
seen.got = (await queues.get(id, { account_id })).queue_name;
const edited = await queues.edit(id, { account_id, settings: { message_retention_period: 3600 } });
seen.edited = edited.settings.message_retention_period;

const consumer = await queues.consumers.create(id, {
  account_id,
  type: 'http_pull',
  dead_letter_queue: 'hpc-jobs-dlq',
  settings: { batch_size: 50, max_retries: 5, retry_delay: 0, visibility_timeout_ms: 60_000 },
});
seen.consumer = [consumer.type, consumer.dead_letter_queue, consumer.settings.max_retries];
seen.consumers = [];
for await (const found of queues.consumers.list(id, { account_id })) seen.consumers.push(found.type);

await messages.push(id, { account_id, body: 'as text', content_type: 'text' });
await messages.push(id, { account_id, body: { as: 'json' }, content_type: 'json' });
await messages.bulkPush(id, {
  account_id,
  messages: [
    { body: 'bulk text', content_type: 'text' },
    { body: ['bulk', 1], content_type: 'json' },
    { body: 'later', content_type: 'text', delay_seconds: 600 },
  ],
});
const backlog = async () => (await queues.getMetrics(id, { account_id })).backlog_count;
seen.backlog = await backlog();
seen.peeked = (await messages.peek(id, { account_id, batch_size: 10 })).messages.length;

const shown = (message) => [message.body, message.attempts];
const byBody = (a, b) => (a[0] < b[0] ? -1 : 1);
const pull = () => messages.pull(id, { account_id, batch_size: 10, visibility_timeout_ms: 60_000 });
const first = (await pull()).messages;
seen.first = first.map(shown).sort(byBody);
seen.message = first.every((m) => m.id && m.lease_id && m.timestamp_ms > 0 && m.metadata != null);
seen.leased = (await pull()).messages.length;

const lease = (message) => ({ lease_id: message.lease_id });
let settled = await messages.ack(id, {
  account_id,
  acks: first.filter((message) => message.body !== 'as text').map(lease),
  retries: first.filter((message) => message.body === 'as text').map((m) => ({ ...lease(m), delay_seconds: 0 })),
});
seen.settled = [settled.ackCount, settled.retryCount];

const second = (await pull()).messages;
seen.second = second.map(shown);
settled = await messages.ack(id, { account_id, acks: second.map(lease) });
seen.end = [settled.ackCount, await backlog()];

async function statusOf(call) {
  try {
    await call();
  } catch (error) {
    if (error instanceof APIError) return [error.constructor.name, error.status];
    throw error;
  }
  return null;
}

const stranger = new Cloudflare({ apiToken: 'wrong', baseURL, maxRetries: 0 });
seen.stranger = await statusOf(() => stranger.queues.messages.pull(id, { account_id }));
await queues.delete(id, { account_id });
seen.gone = await statusOf(() => queues.get(id, { account_id }));
seen.names_after = await names();

console.log(JSON.stringify(seen));
