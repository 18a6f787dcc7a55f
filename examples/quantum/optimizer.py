"""Finds the lowest energy of circuits whose angles are those of rotations.

The energy is a sine of each such angle when the others stay. Three points say which sine it is, and so where it is
lowest: one is known, the other two are asked for, at the same time. Angle by angle, again and again, this goes down; no
step can be too long, and nothing has to be chosen by hand. (Nakanishi, Fujii, Todo 2020; Ostaszewski and others 2021.)
Where energies are measured, and off by chance, the known one is measured anew each time: else errors would add up.

All that it knows is in `state`, plain data that can be kept in a file:
`{"angles", "energy", "next", "exact", "evaluations", "curve": [[evaluations, energy], ...]}`.
"""

import math


def begin(angles, exact=True):
    """A search that begins at these angles."""
    return {"angles": list(angles), "energy": None, "next": 0, "exact": exact, "evaluations": 0, "curve": []}


def ask(state):
    """The points whose energies are needed now. They can be computed at the same time."""
    if state["energy"] is None:
        return [state["angles"]]
    sides = [_moved(state, math.pi / 2), _moved(state, -math.pi / 2)]
    return sides if state["exact"] else [*sides, state["angles"]]


def tell(state, energies):
    """The state after these energies of the points that `ask` gave."""
    state = dict(state, evaluations=state["evaluations"] + len(energies))
    if state["energy"] is None:
        state["energy"] = energies[0]
    else:
        above, below, here = energies if len(energies) == 3 else (*energies, state["energy"])
        # energy(angle + x) = mean + cosine * cos x + sine * sin x
        mean, sine = (above + below) / 2, (above - below) / 2
        cosine = here - mean
        state["angles"] = _moved(state, math.atan2(-sine, -cosine))
        state["energy"] = mean - math.hypot(sine, cosine)
        state["next"] = (state["next"] + 1) % len(state["angles"])
    state["curve"] = state["curve"] + [[state["evaluations"], state["energy"]]]
    return state


def converged(state, tolerance):
    """Has a whole turn through all angles brought less than this?"""
    turn = len(state["angles"])
    curve = state["curve"]
    return len(curve) > turn and curve[-1 - turn][1] - curve[-1][1] < tolerance


def _moved(state, by):
    angles = list(state["angles"])
    angles[state["next"]] = math.remainder(angles[state["next"]] + by, 2 * math.pi)
    return angles
