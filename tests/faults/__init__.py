"""The catalogue of planted faults: what crosscheck must find, and what it must call it.

    fault          what a fault is, and what torch and JAX write differently
    linear_maps    A, C, K, boundaries, transposes, norms
    formulas       constants, bias, weights, potentials, sums, signs
    precision      the next lower precision hidden inside
    derivatives    derivatives by hand, tied gradients, implicit differentiation
    behaviours     state, batches, arguments, shapes, solves that stop early
    catalogue      all of them, and what cannot be found in principle
    runs           one fault held against the reference; all of them in parallel

`python -m faults` (`make faults`) prints the table.
"""
