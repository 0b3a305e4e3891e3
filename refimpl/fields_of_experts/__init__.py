"""Fields of experts: the regulariser R and its field F (E2 to E6), tied and untied.

`definition` holds the formulas in plain NumPy, `fused` the same functions through compiled kernels,
`slopes` which slopes of σ make a Jacobian, `jacobians` the two forms of ∂F, and `field` the objects
that the rest of the package uses.
"""

from refimpl.fields_of_experts.field import (
    FieldLinearization,
    FieldsOfExperts,
    TiedFieldLinearization,
    TiedFieldsOfExperts,
    make_field,
)

__all__ = [
    "FieldLinearization",
    "FieldsOfExperts",
    "TiedFieldLinearization",
    "TiedFieldsOfExperts",
    "make_field",
]
