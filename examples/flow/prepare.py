#!/usr/bin/env python3
"""Makes the circuits and shares them out: `prepare.py SETTINGS SHARE…`

A chain of spins in a transverse field, H = −J Σ XᵢXᵢ₊₁ − h Σ Zᵢ, begins with all spins along the field and is left to
itself. A circuit goes to each time, in small steps: half a turn by the field, one by the coupling, half one by the
field (Trotter and Suzuki). In `settings.json` are the `spins`, `coupling` J, `field` h, how many `times` there are
`until` the last one, the `steps` from one time to the next, and how often each circuit is measured (`shots`).
"""

import json
import sys


def circuit(number, settings):
    """What goes to the time of this number, from 1: one circuit of a virtual QPU."""
    spins, step = settings["spins"], settings["until"] / settings["times"] / settings["steps"]
    half = [["rz", -settings["field"] * step, spin] for spin in range(spins)]
    turn = []
    for one, other in zip(range(spins), range(1, spins)):
        around = [["h", one], ["h", other]]
        turned = ["rz", -2 * settings["coupling"] * step, other]
        turn += [*around, ["cx", one, other], turned, ["cx", one, other], *around]
    gates = (half + turn + half) * (number * settings["steps"])
    return {"number": number, "qubits": spins, "gates": gates, "shots": settings["shots"], "seed": number}


def main():
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    shares = sys.argv[2:]
    circuits = [circuit(number, settings) for number in range(1, settings["times"] + 1)]
    # In turns, so that each share has short ones and long ones.
    for place, share in enumerate(shares):
        with open(share, "w") as file:
            json.dump(circuits[place :: len(shares)], file)


if __name__ == "__main__":
    main()
