"""A stand-in for the service of a vendor of quantum machines: nothing costs money, and it counts what would.

    python3 vendor.py --token-file TOKEN --state FILE [--listen 127.0.0.1:0] [--address-file FILE]

| request                    | answer                                                                     |
|----------------------------|----------------------------------------------------------------------------|
| POST /tasks                | 201 {"id", "tag", "status"}: takes {"tag", "payload"}, once for each tag   |
| GET /tasks/ID              | 200 {"id", "tag", "status", "result"?, "error"?}; `queued` at first        |
| GET /tasks?tag=TAG         | 200 {"tasks": [task, …]}                                                   |
| DELETE /tasks/ID           | 200, and it is `cancelled` if it has not ended                             |
| GET /bill                  | 200 {"paid", "tags": {tag: tasks}, "requests": {kind: number}}             |
| PUT /faults                | 200: from now on with these faults, below                                  |

Each request needs `Authorization: Bearer TOKEN`. A task is paid when it is taken, and a restart forgets none. Payloads
are those of `qpu.py`. What may be wrong, as `{"name": number}`; 0 is none of it:

    delay     seconds that a task waits in the queue of the machine
    too_many  of so many requests, one is refused with 429
    late      seconds after which a submission is answered, when it was taken long before
    lose      of so many submissions, one is taken and never answered
    twice     an answer is sent two times, and a task is listed two times
    stranger  of so many questions for a task, one is answered with somebody else's task
    forgetful a tag that comes again is a new task, which costs again
"""

import argparse
import http.server
import json
import os
import pathlib
import secrets
import threading
import time
import urllib.parse

import device

STRANGER = {"id": "task-of-somebody-else", "tag": "not yours", "status": "completed", "result": {"values": [42.0]}}


class Vendor:
    """Tasks and faults. What was paid stands in a file, one line for each task, before anybody is told of it."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = open(path, "a+", encoding="utf-8")
        self.file.seek(0)
        self.tasks = {}
        for line in self.file:
            task = json.loads(line)
            self.tasks[task["id"]] = task
        self.faults = {"delay": 0.2}
        self.requests = {}

    def happens(self, fault, kind):
        """Is it the turn of a fault that comes once in so many requests of a kind?"""
        every = self.faults.get(fault, 0)
        return every > 0 and self.requests.get(kind, 0) % every == every - 1

    def count(self, kind):
        self.requests[kind] = self.requests.get(kind, 0) + 1

    def by_tag(self, tag):
        return [task for task in self.tasks.values() if task["tag"] == tag]

    def take(self, tag, payload):
        known = [] if self.faults.get("forgetful") else self.by_tag(tag)
        if known:
            return known[0]
        task = {"id": f"task-{secrets.token_hex(8)}", "tag": tag, "payload": payload, "taken": time.time()}
        self.write(task)
        return task

    def write(self, task):
        self.tasks[task["id"]] = task
        self.file.write(json.dumps(task) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def seen(self, task):
        """A task as it is told of."""
        told = {"id": task["id"], "tag": task["tag"], "status": "queued"}
        if task.get("cancelled"):
            told["status"] = "cancelled"
        elif time.time() >= task["taken"] + self.faults.get("delay", 0):
            try:
                told.update(status="completed", result=computed(task["payload"]))
            except (ValueError, KeyError, TypeError) as error:
                told.update(status="failed", error=str(error))
        return told


def computed(payload):
    """What the machine says to a payload."""
    if "terms" in payload:
        return {"values": [device.expectation(circuit, payload["terms"]) for circuit in payload["circuits"]]}
    return {"counts": [device.counts(circuit, payload.get("shots", 1024), 1) for circuit in payload["circuits"]]}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        vendor, url = self.server.vendor, urllib.parse.urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        kind = f"{self.command} /{parts[0]}"
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with vendor.lock:
            shown = self.headers.get("authorization", "").encode()
            if not secrets.compare_digest(shown, f"Bearer {self.server.token}".encode()):
                vendor.count("unauthorized")
                return self.send(401, {"error": "the token is missing or wrong"})
            control = parts[0] in ("faults", "bill")
            vendor.count(kind)
            if not control:
                vendor.count("all")
                if vendor.happens("too_many", "all"):
                    return self.send(429, {"error": "too many requests"}, {"retry-after": "1"})
            status, told = self.decide(vendor, parts, url.query, body)
            lost = kind == "POST /tasks" and vendor.happens("lose", kind)
            late = vendor.faults.get("late", 0) if kind == "POST /tasks" else 0
            twice = bool(vendor.faults.get("twice")) and not control
        time.sleep(late)
        if not lost:
            self.send(status, told, twice=twice)

    def decide(self, vendor, parts, query, body):
        match (self.command, *parts):
            case ("POST", "tasks"):
                asked = json.loads(body)
                return 201, vendor.seen(vendor.take(asked["tag"], asked["payload"]))
            case ("GET", "tasks"):
                tasks = vendor.by_tag(urllib.parse.parse_qs(query).get("tag", [""])[0])
                return 200, {"tasks": [vendor.seen(task) for task in tasks] * (2 if vendor.faults.get("twice") else 1)}
            case ("GET", "tasks", _) if vendor.happens("stranger", "GET /tasks"):
                return 200, STRANGER
            case ("GET", "tasks", name) if name in vendor.tasks:
                return 200, vendor.seen(vendor.tasks[name])
            case ("DELETE", "tasks", name) if name in vendor.tasks:
                if vendor.seen(vendor.tasks[name])["status"] == "queued":
                    vendor.write(dict(vendor.tasks[name], cancelled=True))
                return 200, vendor.seen(vendor.tasks[name])
            case ("GET", "bill"):
                tags = {}
                for task in vendor.tasks.values():
                    tags[task["tag"]] = tags.get(task["tag"], 0) + 1
                return 200, {"paid": len(vendor.tasks), "tags": tags, "requests": vendor.requests}
            case ("PUT", "faults"):
                vendor.faults = json.loads(body)
                return 200, vendor.faults
        return 404, {"error": "there is nothing here"}

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def send(self, status, body, headers=None, twice=False):
        text = json.dumps(body).encode()
        headers = {"content-type": "application/json", "content-length": len(text), **(headers or {})}
        for _ in range(2 if twice else 1):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            try:
                self.wfile.write(text)
            except ConnectionError:
                # Whoever asked has gone.
                return

    def log_message(self, *_):
        """Says nothing of each request."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:8900", metavar="HOST:PORT")
    parser.add_argument("--token-file", required=True, type=pathlib.Path)
    parser.add_argument("--state", required=True, help="where tasks are kept")
    parser.add_argument("--address-file", type=pathlib.Path, help="where to write the address, once it listens")
    given = parser.parse_args()
    host, port = given.listen.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    server.vendor, server.token = Vendor(given.state), given.token_file.read_text().strip()
    address = f"http://{host}:{server.server_port}"
    if given.address_file:
        beside = given.address_file.with_suffix(".new")
        beside.write_text(address)
        beside.replace(given.address_file)
    print(f"listening on {address}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
