"""The same as `vqe.py` in one go: it asks a machine through the broker of the lease, and stays while it waits.

    {"qpu": "vendor", "start": [0.1, 0.1, 0.1, 0.1], "tolerance": 1e-5, "steps": 40, "shots": null}

The broker listens on a Unix socket in the container. It has the vendor's token; this program has none, and needs no
network.
"""

import http.client
import itertools
import json
import pathlib
import socket
import sys
import time
import urllib.parse

import h2
import optimizer
import work

SOCKET = "/run/hpc-queue/qpu.sock"

# Seconds that one question waits for the end of a task, at most.
WAIT = 60

# Seconds for which the broker may be away.
PATIENCE = 300


class Qpu:
    """One quantum machine."""

    def __init__(self, name):
        self.path = f"/v1/qpus/{urllib.parse.quote(name)}/tasks"

    def submit(self, payload, key):
        """Hands a task over; returns its id. With a key that was used before, it is the task of then."""
        return self.ask("POST", self.path, payload, {"idempotency-key": key})["id"]

    def result(self, name):
        """What came of a task, once it has ended."""
        while True:
            task = self.ask("GET", f"{self.path}/{name}?wait={WAIT}")
            if task["status"] == "completed":
                return task["result"]
            if task["status"] not in ("queued", "running"):
                sys.exit(f"the task {name} is {task['status']}: {task.get('error', 'no reason was given')}")

    def ask(self, method, path, body=None, headers=None):
        """One request and its answer. The broker may be away for a moment, as in an update: what it has taken it keeps,
        and with its key a task can be handed over again."""
        end = time.monotonic() + PATIENCE
        while True:
            connection = OverSocket("localhost", timeout=WAIT + 30)
            try:
                text = None if body is None else json.dumps(body)
                connection.request(method, path, text, {"content-type": "application/json", **(headers or {})})
                answer = connection.getresponse()
                status, text = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                status, text = 503, str(error).encode()
            finally:
                connection.close()
            if status < 400:
                return json.loads(text)
            if (status < 500 and status != 429) or time.monotonic() > end:
                sys.exit(f"the broker refused {method} {path}: {status} {text.decode()}")
            time.sleep(1)


class OverSocket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def main():
    given = work.job()["input"] or {}
    qpu = Qpu(given.get("qpu", "vendor"))
    # An attempt that was cut off has left the search where it was.
    kept = pathlib.Path(work.DIRECTORY, "search.json")
    search = optimizer.begin(given.get("start", h2.START), exact=given.get("shots") is None)
    if kept.exists():
        search = json.loads(kept.read_text())
    converged = False
    for _ in range(given.get("steps", 40)):
        # All of a step at once: they are computed side by side, as far as the machine lets them. The keys say where the
        # search is, so an attempt that begins anew orders nothing twice.
        keys = itertools.count(search["evaluations"] + 1)
        tasks = [qpu.submit(payload(point, given), f"energy-{next(keys)}") for point in optimizer.ask(search)]
        search = optimizer.tell(search, [qpu.result(task)["values"][0] for task in tasks])
        work.write(kept.name, search)
        converged = optimizer.converged(search, given.get("tolerance", 1e-5))
        if converged:
            break
    work.end(
        {
            "energy": search["energy"],
            "angles": search["angles"],
            "converged": converged,
            "evaluations": search["evaluations"],
            "curve": search["curve"],
        }
    )


def payload(angles, given):
    return {"circuits": [h2.circuit(angles)], "terms": h2.TERMS, "shots": given.get("shots")}


if __name__ == "__main__":
    main()
