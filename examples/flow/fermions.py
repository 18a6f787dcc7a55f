#!/usr/bin/env python3
"""The magnetization without a circuit, on a processor: `fermions.py SETTINGS CURVE`

The chain is one of free fermions (Jordan and Wigner), so matrices of twice as many rows as there are spins will do, for
thousands of spins as well. Those rows are a₁, b₁, a₂, b₂ and so on, with Zᵢ = −i aᵢbᵢ and XᵢXᵢ₊₁ = −i bᵢaᵢ₊₁.
"""

import json
import sys

import numpy


def magnetization(spins, coupling, field, times):
    """The mean of all Zᵢ at each of these times."""
    turning = numpy.zeros((2 * spins, 2 * spins))
    for a in range(0, 2 * spins, 2):
        turning[a, a + 1] = 2 * field
    for b in range(1, 2 * spins - 1, 2):
        turning[b, b + 1] = 2 * coupling
    turning -= turning.T
    energies, modes = numpy.linalg.eigh(1j * turning)
    # All spins along the field.
    start = numpy.kron(numpy.eye(spins), [[0, -1], [1, 0]])
    means = []
    for time in times:
        turned = (modes * numpy.exp(-1j * energies * time) @ modes.conj().T).real
        now = turned @ start @ turned.T
        means.append(-float(numpy.diagonal(now, 1)[::2].mean()))
    return means


def main():
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    times = [settings["until"] * number / settings["times"] for number in range(1, settings["times"] + 1)]
    values = magnetization(settings["spins"], settings["coupling"], settings["field"], times)
    with open(sys.argv[2], "w") as file:
        json.dump({"times": times, "values": values}, file)


if __name__ == "__main__":
    main()
