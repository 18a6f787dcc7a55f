"""Means of an observable, by Aer, Qiskit's simulator: what a quantum machine is asked for in most algorithms.

    {"circuits": ["OPENQASM 2.0; …", …], "terms": [[0.5, "XX"], …], "shots": null}

Without `shots` the values are exact. With it they are off by chance, as if each had been measured so often. Output:
`{"values": [number, …]}`, one for each circuit.
"""

import work
from qiskit import qasm2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer.primitives import EstimatorV2

given = work.job()["input"]
observable = SparsePauliOp.from_list([(pauli, coefficient) for coefficient, pauli in given["terms"]])
precision = 0.0 if given.get("shots") is None else given["shots"] ** -0.5
asked = [(qasm2.loads(circuit), observable) for circuit in given["circuits"]]
results = EstimatorV2().run(asked, precision=precision).result()
work.end({"values": [float(result.data.evs) for result in results]})
