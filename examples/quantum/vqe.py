"""The ground state of hydrogen by a variational quantum eigensolver that waits without holding anything.

Each round reads the energies that the round before has asked for, decides where to look next, asks for the energies
there, and ends. Between rounds no process of it is there, and its slot is free. Input, each of it optional:

    {"task": "estimate", "start": [0.1, 0.1, 0.1, 0.1], "tolerance": 1e-5, "rounds": 40, "shots": null}

`task` computes the energies: `estimate` with a simulator, `qpu` at a vendor.
"""

import sys

import h2
import optimizer
import work

# How many tasks may fail in all before it gives up.
FAILURES = 10


def main():
    given = work.job()["input"] or {}
    search = optimizer.begin(given.get("start", h2.START), exact=given.get("shots") is None)
    state = work.load({"search": search, "points": optimizer.ask(search), "energies": {}, "asked": 0, "failures": 0})
    if work.ROUND > 1:
        read(state)
    if len(state["energies"]) == len(state["points"]):
        energies = [state["energies"][str(index)] for index in range(len(state["points"]))]
        search = optimizer.tell(state["search"], energies)
        state.update(search=search, points=optimizer.ask(search), energies={})
        if optimizer.converged(search, given.get("tolerance", 1e-5)):
            return work.end(report(search, True))
    if work.ROUND > given.get("rounds", 40):
        return work.end(report(state["search"], False))
    # What has failed is asked for once more, and what is known is not.
    state["open"] = [index for index in range(len(state["points"])) if str(index) not in state["energies"]]
    state["asked"] += len(state["open"])
    work.keep(state)
    work.wait_for([energy_at(state["points"][index], given) for index in state["open"]])


def read(state):
    """Takes in what the tasks of the round before have ended with."""
    first = state["asked"] - len(state["open"]) + 1
    for number, index in enumerate(state["open"], first):
        child = work.child(number)
        if child["status"] == "completed":
            state["energies"][str(index)] = child["output"]["values"][0]
            continue
        state["failures"] += 1
        if state["failures"] > FAILURES:
            sys.exit(f"{child['job_id']} is the {FAILURES + 1}th task that failed: {child.get('reason')}")


def energy_at(angles, given):
    """The job that computes the energy at these angles."""
    # Read by tasks of both kinds.
    asked = {"circuits": [h2.circuit(angles)], "terms": h2.TERMS, "shots": given.get("shots")}
    return {"task": given.get("task", "estimate"), "input": asked, "name": f"energy, round {work.ROUND}", "retries": 3}


def report(search, converged):
    return {
        "energy": search["energy"],
        "angles": search["angles"],
        "converged": converged,
        "evaluations": search["evaluations"],
        "rounds": work.ROUND,
        "curve": search["curve"],
    }


if __name__ == "__main__":
    main()
