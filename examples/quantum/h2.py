"""The hydrogen molecule on two qubits, and circuits that may prepare its ground state.

The terms are the electronic Hamiltonian at 0.735 Å in the basis STO-3G, after parity mapping with two qubits tapered
off. Its lowest eigenvalue is -1.857275 hartree; without the repulsion of the nuclei, 0.719969 hartree.
"""

TERMS = [
    [-1.052373245772859, "II"],
    [0.39793742484318045, "IZ"],
    [-0.39793742484318045, "ZI"],
    [-0.01128010425623538, "ZZ"],
    [0.18093119978423156, "XX"],
]

# Where the search begins: almost nothing is turned.
START = [0.1, 0.1, 0.1, 0.1]


def circuit(angles):
    """Four rotations around an entangling gate, in OpenQASM 2."""
    a, b, c, d = angles
    return (
        'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\n'
        f"ry({a!r}) q[0];\nry({b!r}) q[1];\ncx q[0],q[1];\nry({c!r}) q[0];\nry({d!r}) q[1];\n"
    )
