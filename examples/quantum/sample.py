"""What is measured at the end of a circuit, by Aer, Qiskit's simulator.

    {"circuits": ["OPENQASM 2.0; …", …], "shots": 1024, "seed": 1}

Output: `{"counts": [{"011": 512, …}, …]}`, one for each circuit; qubit 0 is the last character.
"""

import work
from qiskit import qasm2
from qiskit_aer import AerSimulator

given = work.job()["input"]
circuits = [qasm2.loads(circuit) for circuit in given["circuits"]]
for circuit in circuits:
    circuit.measure_all()
simulator = AerSimulator(seed_simulator=given.get("seed", 1))
result = simulator.run(circuits, shots=given.get("shots", 1024)).result()
work.end({"counts": [result.get_counts(circuit) for circuit in circuits]})
