"""A cut of a graph that separates as many edges as can be, by QAOA, the quantum approximate optimization algorithm.

Each round has several jobs compute the points of a grid of angles, row by row. The next round has a finer grid around
the best point, and the last one draws cuts from the circuit there. Input, each of it optional:

    {"edges": [[0, 1], …], "rounds": 4, "shots": 1024}
"""

import itertools
import math

import work

# A prism: two triangles, and an edge between each pair of their corners. No cut separates more than 7 of its 9 edges.
EDGES = [[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3], [0, 3], [1, 4], [2, 5]]

# Points in each direction of the grid.
GRID = 5


def main():
    given = work.job()["input"] or {}
    edges, rounds = given.get("edges", EDGES), given.get("rounds", 4)
    start = {"center": [math.pi / 4, math.pi / 4], "width": math.pi / 4, "best": None, "curve": [], "asked": 0}
    state = work.load(start)
    children = [completed(state["asked"] - number) for number in reversed(range(len(state.get("rows", []))))]
    if state.get("drawn"):
        return work.end(report(edges, state, completed(state["asked"])["counts"][0]))
    if work.ROUND > 1:
        # The energy is less by one for each edge that is separated.
        points = [point for row in state["rows"] for point in row]
        values = [value for child in children for value in child["values"]]
        value, point = min(zip(values, points))
        if state["best"] is None or value < state["best"]:
            state.update(best=value, center=point)
        state["curve"] = state["curve"] + [-state["best"]]
        state["width"] /= GRID // 2
    if work.ROUND <= rounds:
        rows = grid(state["center"], state["width"])
        terms = [[0.5, pair(edge, size(edges))] for edge in edges] + [[-len(edges) / 2, "I" * size(edges)]]
        asked = [{"circuits": [circuit(edges, *point) for point in row], "terms": terms} for row in rows]
        jobs = [{"task": "estimate", "input": one, "name": f"grid, round {work.ROUND}", "retries": 3} for one in asked]
    else:
        asked = {"circuits": [circuit(edges, *state["center"])], "shots": given.get("shots", 1024)}
        rows, jobs = [], [{"task": "sample", "input": asked, "name": "cuts", "retries": 3}]
        state["drawn"] = True
    work.keep(dict(state, rows=rows, asked=state["asked"] + len(jobs)))
    work.wait_for(jobs)


def completed(number):
    child = work.child(number)
    if child["status"] != "completed":
        raise SystemExit(f"{child['job_id']} failed: {child.get('reason')}")
    return child["output"]


def grid(center, width):
    """Rows of points around one."""
    steps = [width * (2 * step / (GRID - 1) - 1) for step in range(GRID)]
    return [[[center[0] + gamma, center[1] + beta] for beta in steps] for gamma in steps]


def size(edges):
    """How many corners the graph has."""
    return 1 + max(itertools.chain.from_iterable(edges))


def pair(edge, corners):
    """Z on both ends of an edge. Qubit 0 is the last letter."""
    return "".join("Z" if qubit in edge else "I" for qubit in reversed(range(corners)))


def circuit(edges, gamma, beta):
    """One layer, in OpenQASM 2."""
    qubits = range(size(edges))
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{len(qubits)}];", *(f"h q[{q}];" for q in qubits)]
    for a, b in edges:
        lines += [f"cx q[{a}],q[{b}];", f"rz({gamma!r}) q[{b}];", f"cx q[{a}],q[{b}];"]
    lines += [f"rx({2 * beta!r}) q[{q}];" for q in qubits]
    return "\n".join(lines) + "\n"


def report(edges, state, counts):
    def cut(bits):
        return sum(bits[-1 - a] != bits[-1 - b] for a, b in edges)

    best = max(counts, key=cut)
    mean = sum(cut(bits) * count for bits, count in counts.items()) / sum(counts.values())
    return {
        "cut": cut(best),
        "sides": best,
        "mean": mean,
        "angles": state["center"],
        "rounds": work.ROUND,
        "curve": state["curve"],
    }


if __name__ == "__main__":
    main()
