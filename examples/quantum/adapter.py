"""How the broker of the lease speaks with the vendor of `vendor.py`: a question in each line, an answer in each line.

    {"id": 7, "op": "submit", "tag": "…", "payload": {…}}  ->  {"id": 7, "ok": true, "vendor_id": "…", "tag": "…"}

The broker starts it, outside of all containers, with `VENDOR_URL` and `VENDOR_TOKEN` in its environment.
"""

import json
import os
import sys

import client


def answer(vendor, asked):
    """What the vendor says to one question."""
    name = asked.get("vendor_id")
    match asked["op"]:
        case "submit":
            task = vendor.submit(asked["tag"], asked["payload"])
            return {"vendor_id": task["id"], "tag": task["tag"]}
        case "find":
            task = vendor.find(asked["tag"])
            return {"found": True, "vendor_id": task["id"], "tag": task["tag"]} if task else {"found": False}
        case "cancel":
            vendor.cancel(name)
            return {}
    task = vendor.show(name)
    if task["id"] != name:
        raise client.Unknown("the vendor told of another task")
    if asked["op"] == "result":
        return {"result": task["result"], "tag": task["tag"]}
    return {"status": task["status"], "message": task.get("error"), "tag": task["tag"]}


def failure(error):
    """What the broker may conclude when there is no answer."""
    match error:
        case client.Busy():
            return {"kind": "busy", "retry_after_seconds": error.seconds, "message": str(error)}
        case client.Refused():
            return {"kind": "refused", "message": str(error)}
        case client.Unreached():
            return {"kind": "unreachable", "message": str(error)}
    return {"kind": "unknown", "message": repr(error)}


def main():
    vendor = client.Client(os.environ["VENDOR_URL"], os.environ["VENDOR_TOKEN"])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"ok": True, **answer(vendor, asked)}
        except Exception as error:
            told = {"error": failure(error)}
        print(json.dumps({"id": asked["id"], **told}), flush=True)


if __name__ == "__main__":
    main()
