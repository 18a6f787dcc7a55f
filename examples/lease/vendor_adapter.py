"""The adapter for a vendor that speaks HTTP and knows tags: `examples/quantum/vendor.py`, which stands in for one.

VENDOR_URL and VENDOR_TOKEN are in its environment: the first by `environment` of the machine, the second by `secrets`.
"""

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request

import adapter

# Seconds: how long the vendor may take to answer. Less than `timeout` of the machine, so that it is this program that
# knows what did not come.
ANSWER = 30


class Vendor:
    def __init__(self, url, token):
        self.url, self.token = url.rstrip("/"), token

    def submit(self, tag, payload):
        task = self.ask("POST", "/tasks", {"tag": tag, "payload": payload})
        return adapter.Told(task["id"], task["tag"])

    def find(self, tag):
        tasks = self.ask("GET", f"/tasks?{urllib.parse.urlencode({'tag': tag})}")["tasks"]
        # A list may have more than was asked for, and one task twice.
        found = [task for task in tasks if task["tag"] == tag]
        return adapter.Told(found[0]["id"], found[0]["tag"]) if found else None

    def status(self, vendor_id):
        task = self.task(vendor_id)
        return adapter.Told((task["status"], task.get("error")), task["tag"])

    def result(self, vendor_id):
        task = self.task(vendor_id)
        if "result" not in task:
            raise adapter.Fault("busy", f"the task is {task['status']} and has no result")
        return adapter.Told(task["result"], task["tag"])

    def cancel(self, vendor_id):
        self.ask("DELETE", f"/tasks/{urllib.parse.quote(vendor_id)}")

    def task(self, vendor_id):
        return self.ask("GET", f"/tasks/{urllib.parse.quote(vendor_id)}")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            message = f"{method} {path.split('?')[0]}: {error.code} {error.read(1000).decode(errors='replace')}"
            # A token that is refused is mended by somebody; until then tasks wait.
            if error.code in (401, 403, 429, 503):
                raise adapter.Fault("busy", message, seconds(error.headers.get("retry-after"))) from error
            # What a server that fails has done, nobody knows.
            raise adapter.Fault("refused" if error.code < 500 else "unknown", message) from error
        except urllib.error.URLError as error:
            # Only where there was no connection nothing can have been done.
            refused = isinstance(error.reason, ConnectionRefusedError)
            raise adapter.Fault("unreachable" if refused else "unknown", f"{method}: {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise adapter.Fault("unknown", f"{method}: no answer that can be read: {error}") from error


def seconds(text):
    """How long the vendor asks to be left alone; a date says nothing."""
    return int(text) if text and text.isdecimal() else None


if __name__ == "__main__":
    adapter.serve(Vendor(os.environ["VENDOR_URL"], os.environ["VENDOR_TOKEN"]))
