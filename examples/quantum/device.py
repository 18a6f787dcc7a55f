"""A quantum machine of a few qubits, in plain Python: what `vendor.py` has behind its counter.

Takes OpenQASM 2 with the gates below. Qubit 0 is the last letter of a bit string and of a Pauli string, as in Qiskit.
"""

import cmath
import math
import random
import re

QUBITS_MAX = 12


def expectation(qasm, terms):
    """The mean of an observable, `[[coefficient, "XZ"], ...]`, in the state that the circuit prepares."""
    state = run(qasm)
    return sum(coefficient * _pauli(state, pauli) for coefficient, pauli in terms)


def counts(qasm, shots, seed):
    """How often each bit string is measured."""
    state = run(qasm)
    width = (len(state) - 1).bit_length()
    chances = [abs(amplitude) ** 2 for amplitude in state]
    found = {}
    for index in random.Random(seed).choices(range(len(state)), chances, k=shots):
        text = format(index, f"0{width}b")
        found[text] = found.get(text, 0) + 1
    return found


def run(qasm):
    """The amplitudes after the circuit, measurements aside."""
    size = re.search(r"qreg\s+q\[(\d+)\]", qasm)
    if not size or not 1 <= int(size[1]) <= QUBITS_MAX:
        raise ValueError(f"the circuit needs one register, q, of 1 to {QUBITS_MAX} qubits")
    state = [0j] * 2 ** int(size[1])
    state[0] = 1 + 0j
    for statement in qasm.split(";"):
        gate = re.fullmatch(r"\s*(\w+)(?:\(([^()]*)\))?\s+(q\[\d+\](?:\s*,\s*q\[\d+\])*)\s*", statement)
        if not gate or gate[1] in ("qreg", "barrier"):
            continue
        qubits = [int(number) for number in re.findall(r"\d+", gate[3])]
        if max(qubits) >= int(size[1]) or len(set(qubits)) != len(qubits):
            raise ValueError(f"no such qubits: {statement.strip()}")
        _apply(state, gate[1], float(gate[2]) if gate[2] else 0.0, qubits)
    return state


def _apply(state, name, angle, qubits):
    matrix = _matrix(name.lstrip("c"), angle)
    controls, target = sum(1 << qubit for qubit in qubits[:-1]), 1 << qubits[-1]
    if name.count("c") != len(qubits) - 1 or not matrix:
        raise ValueError(f"this machine has no gate {name} on {len(qubits)} qubits")
    (a, b), (c, d) = matrix
    for zero in range(len(state)):
        if zero & controls == controls and not zero & target:
            one = zero | target
            state[zero], state[one] = a * state[zero] + b * state[one], c * state[zero] + d * state[one]


def _matrix(name, angle):
    half = angle / 2
    sine, cosine, root = math.sin(half), math.cos(half), math.sqrt(0.5)
    return {
        "h": ((root, root), (root, -root)),
        "x": ((0, 1), (1, 0)),
        "z": ((1, 0), (0, -1)),
        "rx": ((cosine, -1j * sine), (-1j * sine, cosine)),
        "ry": ((cosine, -sine), (sine, cosine)),
        "rz": ((cmath.exp(-1j * half), 0), (0, cmath.exp(1j * half))),
    }.get(name)


def _pauli(state, pauli):
    flips = signs = ys = 0
    for bit, letter in enumerate(reversed(pauli)):
        flips |= (letter in "XY") << bit
        signs |= (letter in "ZY") << bit
        ys += letter == "Y"
    total = sum(
        state[index ^ flips].conjugate() * amplitude * (-1) ** (index & signs).bit_count()
        for index, amplitude in enumerate(state)
    )
    return (total * 1j**ys).real
