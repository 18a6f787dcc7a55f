#!/usr/bin/env python3
"""The magnetization from all amplitudes, on a GPU: `states.py SETTINGS CURVE`

It diagonalizes the Hamiltonian of the chain, which has 2ⁿ rows for n spins. CuPy does it where the image has it and the
job a GPU, else NumPy.
"""

import json
import os
import sys

import numpy


def arrays():
    """CuPy and what it computes on, or NumPy."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() > 0:
            return cupy, "GPU " + os.environ.get("HPC_QUEUE_GPUS", "")
    except Exception:  # Not there, no driver, no GPU: each has an error of its own.
        pass
    return numpy, "processor"


def magnetization(spins, coupling, field, times, xp):
    """The mean of all Zᵢ at each of these times."""
    states = xp.arange(1 << spins)
    means = sum(1 - 2 * (states >> spin & 1) for spin in range(spins)) / spins
    energy = xp.diag(-field * spins * means)
    for spin in range(spins - 1):
        energy[states, states ^ (3 << spin)] -= coupling
    energies, modes = xp.linalg.eigh(energy)
    # All spins along the field are the state 0.
    start = modes[0]
    amplitudes = (modes @ (start * xp.exp(-1j * energies * time)) for time in times)
    return [float((abs(now) ** 2 * means).sum()) for now in amplitudes]


def main():
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    times = [settings["until"] * number / settings["times"] for number in range(1, settings["times"] + 1)]
    xp, device = arrays()
    values = magnetization(settings["spins"], settings["coupling"], settings["field"], times, xp)
    with open(sys.argv[2], "w") as file:
        json.dump({"times": times, "values": values, "device": device}, file)


if __name__ == "__main__":
    main()
