"""Grover's search with a classical half and a quantum half: this program prepares the oracle, a machine runs it, and
this program checks what was found.

    {"marked": "101", "shots": 1024, "task": "sample"}

`task` runs the circuit: `sample` with a simulator, `qpu` at a vendor.
"""

import math

import work


def circuit(marked):
    """Makes the marked bit string likely, in OpenQASM 2. Three qubits: the oracle needs a gate with two controls."""
    zeros = [f"x q[{qubit}];" for qubit, bit in enumerate(reversed(marked)) if bit == "0"]
    everywhere = [f"h q[{qubit}];" for qubit in range(3)]
    flips = [f"x q[{qubit}];" for qubit in range(3)]
    # Turns the sign of 111 alone.
    turn = ["h q[2];", "ccx q[0],q[1],q[2];", "h q[2];"]
    oracle = [*zeros, *turn, *zeros]
    diffusion = [*everywhere, *flips, *turn, *flips, *everywhere]
    steps = math.floor(math.pi / 4 * math.sqrt(2**3))
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', "qreg q[3];", *everywhere, *(oracle + diffusion) * steps]
    return "\n".join(lines) + "\n"


def main():
    given = work.job()["input"] or {}
    marked = given.get("marked", "101")
    if len(marked) != 3 or set(marked) - {"0", "1"}:
        raise SystemExit(f"`marked` must be three characters of 0 and 1, and it is {marked!r}")
    if work.ROUND == 1:
        asked = {"circuits": [circuit(marked)], "shots": given.get("shots", 1024)}
        return work.wait_for([{"task": given.get("task", "sample"), "input": asked, "name": "grover", "retries": 3}])
    run = work.child(1)
    if run["status"] != "completed":
        raise SystemExit(f"{run['job_id']}, the task with the circuit, failed: {run.get('reason')}")
    counts = run["output"]["counts"][0]
    found = max(counts, key=counts.get)
    probability = counts.get(marked, 0) / sum(counts.values())
    work.end({"marked": marked, "found": found, "correct": found == marked, "probability": probability})


if __name__ == "__main__":
    main()
