#!/usr/bin/env python3
"""Puts it all together: `combine.py SETTINGS STATES FERMIONS RESULT COUNTS…`

Every circuit has to be there once, each measured as often as was asked; then the magnetization at each time is what was
measured, and beside it what the other two tasks have found.
"""

import json
import sys


def read(name):
    with open(name) as file:
        return json.load(file)


def measured(counts, spins):
    """The mean of all Zᵢ: 1 for a 0, −1 for a 1."""
    shots = sum(counts.values())
    return sum(often * (spins - 2 * bits.count("1")) for bits, often in counts.items()) / shots / spins


def main():
    settings, states, fermions = (read(name) for name in sys.argv[1:4])
    shares = [read(name) for name in sys.argv[5:]]
    results = sorted((result for share in shares for result in share["results"]), key=lambda result: result["number"])
    numbers = [result["number"] for result in results]
    if numbers != list(range(1, settings["times"] + 1)):
        raise SystemExit(f"every circuit has to be there once, and these are there: {numbers}")
    shots = [sum(result["counts"].values()) for result in results]
    if set(shots) != {settings["shots"]}:
        raise SystemExit(f"each circuit has to be measured {settings['shots']} times, and these were: {shots}")
    values = [measured(result["counts"], settings["spins"]) for result in results]
    pairs = list(zip(values, states["values"], strict=True))
    references = zip(states["values"], fermions["values"], strict=True)
    result = {
        "circuits": len(results),
        "shots": sum(shots),
        "shares": {share["service"]: len(share["results"]) for share in shares},
        "instances": [share["instance"] for share in shares],
        "device": states["device"],
        "times": states["times"],
        "measured": values,
        "exact": states["values"],
        # By steps that are not infinitely small, and by chance.
        "largest_difference": max(abs(one - other) for one, other in pairs),
        # By rounding alone.
        "references_differ_by": max(abs(one - other) for one, other in references),
    }
    with open(sys.argv[4], "w") as file:
        json.dump(result, file, indent=1)
    for time, (value, exact) in zip(states["times"], pairs):
        print(f"t = {time:4.2f}: measured {value:+.3f}, exact {exact:+.3f}")


if __name__ == "__main__":
    main()
