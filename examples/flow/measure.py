#!/usr/bin/env python3
"""Runs a share of the circuits on a virtual QPU: `measure.py SERVICE SHARE COUNTS`

Should that go away in between, the task fails and is begun again with another instance. The counts are written at the
end, so each circuit counts once.
"""

import json
import os
import sys

# Of examples/services: how one of its virtual QPUs is asked.
from circuits import run


def main():
    service, share, counts = sys.argv[1:]
    # The services of a job are in its own directory; the files of the workflow are in the current one.
    with open(os.path.join(os.environ["WORK_DIR"], "services", service + ".json")) as file:
        vqpu = json.load(file)
    with open(share) as file:
        circuits = json.load(file)
    results = [{"number": circuit["number"], **run(vqpu, circuit)} for circuit in circuits]
    with open(counts, "w") as file:
        json.dump({"service": service, "instance": vqpu["instance"], "results": results}, file)


if __name__ == "__main__":
    main()
