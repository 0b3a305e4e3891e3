"""Errors that results state, held against the truth; and what is called converged, too.

    problems    random problems: every potential, bank, operator and boundary, tied and untied
    hard        missing pixels with steep slopes, wide blurs, no fixed point, singular Jacobians
    extended    σ, and dense linear systems, in np.longdouble
    truth       u* by Newton's method in np.longdouble, and what rounding leaves of it
    answers     what refimpl says: states, gradients, their errors; the one place that calls it
    gradients   dℓ/dθ at the true states
    judgement   one answer beside the truth
    runs        all problems of a set, in parallel
    table       all judgements as rates, with the seeds of what is wrong

Nothing in `extended`, `truth` and `gradients` is computed by `refimpl.engine` or
`refimpl.paper`. `python -m errors` (`make errors`) prints the tables; with `--seed`, one problem.
"""
