#!/usr/bin/env python3
"""Runs the circuits of its input on the virtual QPU that it needs: `{"circuits": [{…}, …]}` → `{"results": [{…}, …]}`.

A job of it says `"needs": ["vqpu"]`, and finds the QPU in `services/vqpu.json`. Should that go away in between, the job
fails, and is begun again with another one.
"""

import json
import urllib.error
import urllib.request

# What is on this node or in this cluster is reached without a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(vqpu, circuit):
    request = urllib.request.Request(
        vqpu["url"] + "/circuits",
        data=json.dumps(circuit).encode(),
        headers={"authorization": "Bearer " + vqpu["token"], "content-type": "application/json"},
    )
    try:
        with OPENER.open(request, timeout=600) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"the virtual QPU refuses a circuit: {error.read().decode()}")


def main():
    with open("input.json") as file:
        circuits = json.load(file)["input"]["circuits"]
    with open("services/vqpu.json") as file:
        vqpu = json.load(file)
    results = [run(vqpu, circuit) for circuit in circuits]
    with open("output.json", "w") as file:
        json.dump({"results": results, "instance": vqpu["instance"], "qubits": vqpu["facts"]["qubits"]}, file)


if __name__ == "__main__":
    main()
