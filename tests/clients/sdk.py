"""Cloudflare's SDK for Python against a server of the Queues API: every call that a consumer needs.

Arguments: base URL, account id, API token. Prints one line of JSON with what was seen.
"""

import json
import sys

import cloudflare
from cloudflare import Cloudflare

base_url, account_id, token = sys.argv[1:]
client = Cloudflare(api_token=token, base_url=base_url, max_retries=0)
queues, messages = client.queues, client.queues.messages
seen = {"version": cloudflare.__version__}

seen["names"] = sorted(queue.queue_name for queue in queues.list(account_id=account_id))

queue = queues.create(account_id=account_id, queue_name="by-python")
seen["created"] = [queue.queue_name, int(queue.consumers_total_count), int(queue.producers_total_count)]
queue_id = queue.queue_id
seen["got"] = queues.get(queue_id, account_id=account_id).queue_name
edited = queues.edit(queue_id, account_id=account_id, settings={"message_retention_period": 3600})
seen["edited"] = int(edited.settings.message_retention_period)

consumer = queues.consumers.create(
    queue_id,
    account_id=account_id,
    type="http_pull",
    dead_letter_queue="hpc-jobs-dlq",
    settings={"batch_size": 50, "max_retries": 5, "retry_delay": 0, "visibility_timeout_ms": 60_000},
)
seen["consumer"] = [consumer.type, consumer.dead_letter_queue, int(consumer.settings.max_retries)]
seen["consumers"] = [found.type for found in queues.consumers.list(queue_id, account_id=account_id)]

messages.push(queue_id, account_id=account_id, body="as text", content_type="text")
messages.push(queue_id, account_id=account_id, body={"as": "json"}, content_type="json")
messages.bulk_push(
    queue_id,
    account_id=account_id,
    messages=[
        {"body": "bulk text", "content_type": "text"},
        {"body": ["bulk", 1], "content_type": "json"},
        {"body": "later", "content_type": "text", "delay_seconds": 600},
    ],
)


def backlog():
    return int(queues.get_metrics(queue_id, account_id=account_id).backlog_count)


seen["backlog"] = backlog()
seen["peeked"] = len(messages.peek(queue_id, account_id=account_id, batch_size=10).messages)

first = messages.pull(queue_id, account_id=account_id, batch_size=10, visibility_timeout_ms=60_000)
seen["first"] = sorted([message.body, int(message.attempts)] for message in first.messages)
seen["message"] = all(
    message.id and message.lease_id and message.timestamp_ms > 0 and message.metadata is not None
    for message in first.messages
)
seen["leased"] = len(messages.pull(queue_id, account_id=account_id, batch_size=10).messages)

kept = [message for message in first.messages if message.body == "as text"]
others = [message for message in first.messages if message.body != "as text"]
settled = messages.ack(
    queue_id,
    account_id=account_id,
    acks=[{"lease_id": message.lease_id} for message in others],
    retries=[{"lease_id": message.lease_id, "delay_seconds": 0} for message in kept],
)
seen["settled"] = [int(settled.ack_count), int(settled.retry_count)]

second = messages.pull(queue_id, account_id=account_id, batch_size=10, visibility_timeout_ms=60_000)
seen["second"] = [[message.body, int(message.attempts)] for message in second.messages]
settled = messages.ack(
    queue_id, account_id=account_id, acks=[{"lease_id": message.lease_id} for message in second.messages]
)
seen["end"] = [int(settled.ack_count), backlog()]


def status_of(call):
    try:
        call()
    except cloudflare.APIStatusError as error:
        return [type(error).__name__, error.status_code]
    return None


stranger = Cloudflare(api_token="wrong", base_url=base_url, max_retries=0)
seen["stranger"] = status_of(lambda: stranger.queues.messages.pull(queue_id, account_id=account_id))
queues.delete(queue_id, account_id=account_id)
seen["gone"] = status_of(lambda: queues.get(queue_id, account_id=account_id))
seen["names_after"] = sorted(queue.queue_name for queue in queues.list(account_id=account_id))

print(json.dumps(seen))
