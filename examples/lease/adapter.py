"""What every adapter of `qpu-broker` does in the same way: a question on a line, an answer on a line.

    class Vendor:
        def submit(self, tag, payload): return vendor_id      # or raise Fault
        def find(self, tag): return Told(vendor_id, tag), or None where there is no such task
        def status(self, vendor_id): return "queued" | "running" | "completed" | "failed" | "cancelled", message or None
        def result(self, vendor_id): return anything that JSON can say
        def cancel(self, vendor_id): ...

    adapter.serve(Vendor())

A method may return `Told(value, tag)` in place of its value, where the vendor says under which tag it keeps the task:
the broker compares it, and takes nothing of somebody else's. What was found it takes by its tag only. What the
questions mean is in docs/lease.md.
"""

import json
import re
import sys
import traceback


class Fault(Exception):
    """There is no answer, and what that means:

    busy         surely nothing was done; later it may be
    refused      surely nothing was done, and never will be
    unreachable  the vendor was surely not reached
    unknown      nobody can say what was done
    """

    def __init__(self, kind, message, retry_after=None):
        super().__init__(message)
        self.kind, self.retry_after = kind, retry_after


class Told:
    """A value, and the tag under which the vendor keeps the task."""

    def __init__(self, value, tag):
        self.value, self.tag = value, tag


def answer(vendor, asked):
    told = ask(vendor, asked)
    value, tag = (told.value, {"tag": told.tag}) if isinstance(told, Told) else (told, {})
    match asked["op"]:
        case "submit":
            return {"ok": True, "vendor_id": value, **tag}
        case "find" if value is None:
            return {"ok": True, "found": False}
        case "find":
            return {"ok": True, "found": True, "vendor_id": value, **tag}
        case "status":
            return {"ok": True, "status": value[0], "message": value[1], **tag}
        case "result":
            return {"ok": True, "result": value, **tag}
        case _:
            return {"ok": True}


def ask(vendor, asked):
    match asked["op"]:
        case "submit":
            return vendor.submit(asked["tag"], asked["payload"])
        case "find":
            return vendor.find(asked["tag"])
        case "status" | "result" | "cancel" as op:
            return getattr(vendor, op)(asked["vendor_id"])
    raise Fault("refused", f"this adapter knows no {asked['op']!r}")


def read(line):
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Fault("refused", f"this adapter cannot read the payload: {error}") from error


def serve(vendor):
    """Answers until the broker has gone: then there is nothing more to read."""
    # What libraries print is not to stand among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        # It stands first, whatever a job has written behind it.
        number = int(re.match(r'{"id":(\d+)', line)[1])
        try:
            told = answer(vendor, read(line))
        except Fault as fault:
            error = {"kind": fault.kind, "message": str(fault), "retry_after_seconds": fault.retry_after}
            told = {"error": error}
        except Exception as error:
            # Whether it has reached the vendor is not known.
            traceback.print_exc()
            told = {"error": {"kind": "unknown", "message": f"{type(error).__name__}: {error}"}}
        print(json.dumps({"id": number, **told}), file=answers, flush=True)
