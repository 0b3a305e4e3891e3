"""Fields of experts: the regulariser R and its field F (E2 to E6), tied and untied.

`definition` holds the formulae in plain NumPy, `fused` the same five functions through compiled
kernels, and `field` the objects that the rest of the package uses.
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
