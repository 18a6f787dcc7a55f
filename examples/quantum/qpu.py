"""Has a vendor compute a payload, and waits for it: the program of a pool with a quantum machine.

The input is the payload, that of `estimate.py` or `sample.py`; the output is what they give. The pool has the token as
a secret, `vendor`, and the address as `VENDOR_URL`.

The job's id is the tag under which the vendor knows the task, and a job that is tried again has the same id. So it
looks first whether the vendor has it already: what is paid is not ordered a second time, wherever the attempt before
was cut off. Ended before its time (cancelled, or past its limit), it cancels what still waits at the vendor.
"""

import os
import pathlib
import signal
import sys
import time

import client
import work

SECRET = pathlib.Path("/run/secrets/vendor")

# Seconds: the longest pause between two questions, and how long it bears with a vendor that is busy or out of reach
# before it leaves the rest to another attempt.
PAUSE_MAX, PATIENCE = 10, 300

# What may be over the next time.
PASSING = (client.Busy, client.Unreached, client.Unknown)


def order(vendor, tag, payload):
    """Has the task computed, unless it is ordered already; returns it."""
    for _ in tries():
        try:
            # Also after an order without an answer: whether it was taken, only a look can tell.
            task = vendor.find(tag) or vendor.submit(tag, payload)
            if task.get("tag") == tag:
                return task
        except PASSING as error:
            bear(error)


def wait(vendor, name, tag):
    """The task when it has ended."""
    pause = 0.1
    while True:
        for _ in tries():
            try:
                task = vendor.show(name)
                break
            except PASSING as error:
                bear(error)
        # An answer with somebody else's task says nothing of ours.
        ours = task.get("id") == name and task.get("tag") == tag
        if ours and task["status"] not in ("queued", "running"):
            return task
        time.sleep(pause)
        pause = min(pause * 1.5, PAUSE_MAX)


def tries():
    """Again and again, with growing pauses, for some minutes."""
    end, pause = time.monotonic() + PATIENCE, 0.1
    while time.monotonic() < end:
        yield
        time.sleep(pause)
        pause = min(pause * 1.5, PAUSE_MAX)
    sys.exit(f"the vendor has not answered for {PATIENCE} s")


def bear(error):
    print(f"asking again: {error}", file=sys.stderr)
    time.sleep(getattr(error, "seconds", 0))


def main():
    given = work.job()
    tag, vendor = given["job_id"], client.Client(os.environ["VENDOR_URL"], SECRET.read_text().strip())
    name = order(vendor, tag, given["input"])["id"]

    def ended(*_):
        vendor.cancel(name)
        sys.exit("ended before the vendor has computed it")

    signal.signal(signal.SIGTERM, ended)
    task = wait(vendor, name, tag)
    if task["status"] != "completed":
        sys.exit(f"the vendor's task {name} is {task['status']}: {task.get('error', 'no reason was given')}")
    work.end(task["result"])


if __name__ == "__main__":
    try:
        main()
    except client.Refused as refused:
        sys.exit(f"the vendor refused: {refused}")
