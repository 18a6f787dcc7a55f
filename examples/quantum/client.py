"""One question to the vendor of `vendor.py`, and its answer or what it means that there is none."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request

# Seconds that an answer may take, and the longest pause that a vendor may ask for.
ANSWER, PAUSE_MAX = 30, 60


class Refused(Exception):
    """The vendor has said no, and would say so again."""


class Busy(Exception):
    """Not now; it was not taken. `seconds`: how long the vendor wants to be left alone."""

    def __init__(self, seconds):
        super().__init__("the vendor is busy")
        self.seconds = seconds


class Unreached(Exception):
    """Nothing has reached the vendor."""


class Unknown(Exception):
    """There is no answer that can be read, and nobody knows what the vendor has done."""


class Client:
    def __init__(self, url, token):
        self.url, self.token = url.rstrip("/"), token

    def submit(self, tag, payload):
        return self.ask("POST", "/tasks", {"tag": tag, "payload": payload})

    def find(self, tag):
        """The task with this tag, or `None`."""
        query = urllib.parse.urlencode({"tag": tag})
        # A list may have more than was asked for, and one task twice.
        tasks = [task for task in self.ask("GET", f"/tasks?{query}")["tasks"] if task.get("tag") == tag]
        return tasks[0] if tasks else None

    def show(self, name):
        return self.ask("GET", f"/tasks/{name}")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 429:
                raise Busy(_seconds(error.headers.get("retry-after"))) from error
            if error.code < 500:
                raise Refused(f"{method} {path.split('?')[0]}: {error.code} {error.read(1000).decode()}") from error
            raise Unknown(f"{error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            kind = Unreached if isinstance(error.reason, ConnectionRefusedError) else Unknown
            raise kind(str(error.reason)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unknown(str(error)) from error


def _seconds(text):
    """Within reason; a date says nothing."""
    return min(int(text), PAUSE_MAX) if text and text.isdecimal() else 0
