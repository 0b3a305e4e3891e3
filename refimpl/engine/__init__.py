"""The maps of the paper, fast: `make_step` is the door.

    make_step(problem, tau)   a Step, or a TiedStep where an energy exists
    step.apply, direction     T(u), G(u); tied: energy, gradient
    step.linearize(u)         derivatives at u: jvp, vjp, params_vjp, direction_jvp, …
    make_field(experts)       the same for the field alone
    compiled(operator)        the twin of an operator or a bank in compiled loops
    is_known(object, classes) whether it is of exactly one of these, with no method exchanged

`refimpl.paper.equations` defines what they compute. What a solve asks of a step besides: how a
batch is cut (`parts_for`, `solve_in_parts`, `joined`), what its Jacobian can be divided by
(`find_preconditioner`), and how steep its field is (`slope_bound`).

Behind the door: `fused` kernels for the field of experts and the `general` path for what these do
not know, two forms of `jacobians`, Newton's `slopes`, and all of float32 in `single`.
"""

from refimpl.engine.batches import joined, parts_for, solve_in_parts
from refimpl.engine.field import Field, FieldLinearization, TiedField, make_field
from refimpl.engine.preconditioners import FACTORED, find_preconditioner
from refimpl.engine.safe_steps import bank_norm_bound, norm_bound, slope_bound, strength
from refimpl.engine.step import (
    Step,
    StepLinearization,
    TiedStep,
    TiedStepLinearization,
    as_step,
    make_step,
)
from refimpl.engine.twins import compiled, is_known

__all__ = [
    "FACTORED",
    "Field",
    "FieldLinearization",
    "Step",
    "StepLinearization",
    "TiedField",
    "TiedStep",
    "TiedStepLinearization",
    "as_step",
    "bank_norm_bound",
    "compiled",
    "find_preconditioner",
    "is_known",
    "joined",
    "make_field",
    "make_step",
    "norm_bound",
    "parts_for",
    "slope_bound",
    "solve_in_parts",
    "strength",
]
