"""The library of Standard Webhooks as somebody who is called has it: it says which calls it believes.

Arguments: the secret, a file with a list of calls, `{"headers": {...}, "body": "..."}`, and a file with the example of
the documentation. Prints one line of JSON: for each call what was said, by the example as well, and which changes of it
were believed, too.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

secret, path, example = sys.argv[1:]
webhook = Webhook(secret)
other = Webhook("whsec_" + "A" * 43 + "=")


def believed(body, headers, by=webhook):
    try:
        return by.verify(body, headers)
    except WebhookVerificationError:
        return None


def by_example(body, headers):
    names = {"secret": secret, "body": body, "headers": headers}
    with open(example, encoding="utf-8") as file:
        exec(file.read(), names)
    return names["message"]


def seen(call):
    headers, body = call["headers"], call["body"]
    middle = len(body) // 2
    changed_byte = body[:middle] + chr(ord(body[middle]) ^ 1) + body[middle + 1 :]
    later = str(int(headers["webhook-timestamp"]) + 1)
    changed = {
        "byte": (changed_byte, headers),
        "id": (body, headers | {"webhook-id": headers["webhook-id"] + "x"}),
        "timestamp": (body, headers | {"webhook-timestamp": later}),
        "signature": (body, headers | {"webhook-signature": "v1," + "A" * 43 + "="}),
    }
    also = [name for name, (body, headers) in changed.items() if believed(body, headers) is not None]
    if believed(body, headers, other) is not None:
        also.append("secret")
    return {"said": believed(body, headers), "by_example": by_example(body, headers), "changed": also}


with open(path, encoding="utf-8") as file:
    print(json.dumps([seen(call) for call in json.load(file)]))
