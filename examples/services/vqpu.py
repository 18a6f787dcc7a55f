#!/usr/bin/env python3
"""A virtual QPU as a service: it runs small circuits for whoever has its token. It needs Python alone.

    vqpu.py [--listen ADDRESS] [--qubits N] [--seconds S]

It listens on a free port, and says which in `address.json`, with how many qubits it has. `GET /health` says that it is
ready; `POST /circuits` runs a circuit:

    {"qubits": 2, "gates": [["h", 0], ["cx", 0, 1]], "shots": 1000, "seed": 7}    →    {"counts": {"00": 537, "11": 463}}
"""

import argparse
import cmath
import hmac
import http.server
import json
import math
import os
import random
import time

ROOT = 1 / math.sqrt(2)

# Gates on one qubit, each with a matrix for its angles.
GATES = {
    "h": lambda: ((ROOT, ROOT), (ROOT, -ROOT)),
    "x": lambda: ((0, 1), (1, 0)),
    "z": lambda: ((1, 0), (0, -1)),
    "ry": lambda a: ((math.cos(a / 2), -math.sin(a / 2)), (math.sin(a / 2), math.cos(a / 2))),
    "rz": lambda a: ((cmath.exp(-0.5j * a), 0), (0, cmath.exp(0.5j * a))),
}

# How many angles each gate has, and on how many qubits it is.
ARGUMENTS = {"h": (0, 1), "x": (0, 1), "z": (0, 1), "ry": (1, 1), "rz": (1, 1), "cx": (0, 2)}


def apply(state, matrix, qubit, control=None):
    """Applies a gate, in place; qubit 0 is the last bit of a place in the state."""
    for low in range(len(state)):
        high = low | 1 << qubit
        if low == high or (control is not None and not low >> control & 1):
            continue
        a, b = state[low], state[high]
        state[low] = matrix[0][0] * a + matrix[0][1] * b
        state[high] = matrix[1][0] * a + matrix[1][1] * b


def read(circuit, qubits_max):
    """How many qubits a circuit has, how often it is measured, and its gates: a name, angles, and qubits, of which the
    last one is changed. What is wrong with it is a ValueError.
    """
    qubits, shots = circuit.get("qubits"), circuit.get("shots", 1000)
    if not isinstance(qubits, int) or not 1 <= qubits <= qubits_max:
        raise ValueError(f"a circuit has 1 to {qubits_max} qubits here")
    if not isinstance(shots, int) or not 1 <= shots <= 100_000:
        raise ValueError("a circuit is measured 1 to 100000 times")
    gates = []
    for name, *arguments in circuit.get("gates", []):
        if name not in ARGUMENTS:
            raise ValueError(f"there is no gate {name}")
        angles, on = ARGUMENTS[name]
        if len(arguments) != angles + on:
            raise ValueError(f"the gate {name} has {angles} angles and is on {on} qubits")
        angles, on = arguments[:angles], arguments[angles:]
        if not all(isinstance(angle, (int, float)) for angle in angles):
            raise ValueError(f"an angle of the gate {name} is no number")
        if not all(isinstance(qubit, int) and 0 <= qubit < qubits for qubit in on) or len(set(on)) != len(on):
            raise ValueError(f"the gate {name} is on a qubit that is not there")
        gates.append((name, angles, on))
    return qubits, shots, gates


def run(circuit, qubits_max):
    """Measures a circuit so often, and counts what was seen."""
    qubits, shots, gates = read(circuit, qubits_max)
    state = [0j] * (1 << qubits)
    state[0] = 1 + 0j
    for name, angles, (*controls, target) in gates:
        apply(state, GATES[name.removeprefix("c")](*angles), target, *controls)
    places = random.Random(circuit.get("seed")).choices(range(len(state)), [abs(a) ** 2 for a in state], k=shots)
    counts = {}
    for place in places:
        bits = format(place, f"0{qubits}b")
        counts[bits] = counts.get(bits, 0) + 1
    return counts


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(*((200, {"status": "ready"}) if self.path == "/health" else (404, {"error": "not here"})))

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length <= 1_000_000 else b""
        given = self.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            return self.answer(401, {"error": "the token is not that of this instance"})
        if self.path != "/circuits":
            return self.answer(404, {"error": "not here"})
        try:
            counts = self.server.run(json.loads(body), self.server.qubits)
        except (ValueError, TypeError, AttributeError) as error:
            return self.answer(400, {"error": str(error)})
        # A machine takes its time.
        time.sleep(self.server.seconds)
        self.answer(200, {"counts": dict(sorted(counts.items()))})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *arguments):
        print(form % arguments, flush=True)


def main(run=run, kind="statevector", qubits=12):
    """Serves with this function, which counts what is seen of a circuit, and says that it is of this kind."""
    parser = argparse.ArgumentParser()
    # On the node alone; jobs on other nodes reach 0.0.0.0.
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--qubits", type=int, default=qubits)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a circuit takes beside its calculation")
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer((options.listen, 0), Handler)
    server.daemon_threads = True
    server.token = os.environ["SERVICE_TOKEN"]
    server.run, server.qubits, server.seconds = run, options.qubits, options.seconds
    address = {"port": server.server_address[1], "facts": {"qubits": options.qubits, "kind": kind}}
    # Whole or not at all: it may be read at any moment.
    with open("address.json.new", "w") as file:
        json.dump(address, file)
    os.replace("address.json.new", "address.json")
    server.serve_forever()


if __name__ == "__main__":
    main()
