#!/usr/bin/env python3
"""The same virtual QPU as `vqpu.py`, with Aer behind it, Qiskit's simulator: for more qubits, and faster.

It needs the image of `containers/quantum.def`, and says `"kind": "aer"` of itself.
"""

import vqpu
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator


def run(circuit, qubits_max):
    """Measures a circuit so often, and counts what was seen."""
    qubits, shots, gates = vqpu.read(circuit, qubits_max)
    made = QuantumCircuit(qubits)
    for name, angles, on in gates:
        getattr(made, name)(*angles, *on)
    made.measure_all()
    # As many threads as the pool gives.
    return AerSimulator(seed_simulator=circuit.get("seed")).run(made, shots=shots).result().get_counts()


if __name__ == "__main__":
    vqpu.main(run, "aer", 24)
