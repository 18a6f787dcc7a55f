"""Has a vendor compute a payload, and waits for it: the program of a pool with a quantum machine.

The input is the payload, that of `estimate.py` or `sample.py`; the output is what they give. The pool has the token as
a secret, `vendor`, and the address as `VENDOR_URL`.

The job's id is the tag under which the vendor knows the task, and a job that is tried again has the same id. So it
looks first whether the vendor has it already: what is paid is not ordered a second time, wherever the attempt before
was cut off. Ended before its time (cancelled, or past its limit), it cancels what still waits at the vendor.
"""

import http.client
import json
import os
import pathlib
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import work

SECRET = pathlib.Path("/run/secrets/vendor")

# Seconds: how long an answer may take, how long the pause between questions grows, and how long it bears with failures
# of the network before it leaves the rest to another attempt.
ANSWER, PAUSE_MAX, PATIENCE = 30, 10, 300


class Refused(Exception):
    """The vendor has said no."""


class Vendor:
    def __init__(self, url, token):
        self.url, self.token = url.rstrip("/"), token

    def find(self, tag):
        """The task with this tag, or `None`."""
        query = urllib.parse.urlencode({"tag": tag})
        # A list may have more than was asked for, and one task twice.
        tasks = [task for task in self.ask("GET", f"/tasks?{query}")["tasks"] if task.get("tag") == tag]
        return tasks[0] if tasks else None

    def order(self, tag, payload):
        """Has the task computed; returns it. One that was ordered before costs nothing."""
        end = time.monotonic() + PATIENCE
        for pause in pauses():
            task = self.find(tag)
            if task:
                return task
            try:
                task = self.ask("POST", "/tasks", {"tag": tag, "payload": payload}, tries=1)
                if task.get("tag") == tag:
                    return task
            except OSError as error:
                # Taken or not? Only a look can tell.
                if time.monotonic() > end:
                    raise
                print(f"no answer to the order: {error}", file=sys.stderr)
            time.sleep(pause)

    def wait(self, task):
        """The task when it has ended."""
        name, tag = task["id"], task["tag"]
        for pause in pauses():
            # An answer with somebody else's task says nothing of ours.
            if task.get("id") == name and task.get("tag") == tag:
                if task["status"] not in ("queued", "running"):
                    return task
            time.sleep(pause)
            task = self.ask("GET", f"/tasks/{name}")

    def cancel(self, task):
        self.ask("DELETE", f"/tasks/{task['id']}", tries=1)

    def ask(self, method, path, body=None, tries=None):
        """One request and its answer; asked again while the vendor is busy or out of reach, for some minutes."""
        end = time.monotonic() + PATIENCE
        for number, pause in enumerate(pauses(), 1):
            data = None if body is None else json.dumps(body).encode()
            headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise Refused(f"{method} {path.split('?')[0]}: {error.code} {error.read(1000).decode()}") from error
                trouble = error
                pause = max(pause, seconds(error.headers.get("retry-after")))
            except (OSError, ValueError, http.client.HTTPException) as error:
                trouble = OSError(str(error))
            if number == tries or time.monotonic() > end:
                raise trouble
            time.sleep(pause)


def seconds(text):
    """How long the vendor asks to be left alone; within reason, and a date says nothing."""
    return min(int(text), 60) if text and text.isdecimal() else 0


def pauses():
    """Seconds between questions, growing."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 1.5, PAUSE_MAX)


def main():
    given = work.job()
    vendor = Vendor(os.environ["VENDOR_URL"], SECRET.read_text().strip())
    task = vendor.order(given["job_id"], given["input"])

    def ended(*_):
        vendor.cancel(task)
        sys.exit("ended before the vendor has computed it")

    signal.signal(signal.SIGTERM, ended)
    task = vendor.wait(task)
    if task["status"] != "completed":
        sys.exit(f"the vendor's task {task['id']} is {task['status']}: {task.get('error', 'no reason was given')}")
    work.end(task["result"])


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"the vendor refused: {refused}")
