"""Fields of experts: the regulariser R and its field F (E2 to E6), tied and untied.

`definition` holds the formulae in plain NumPy, `fused` the same five functions through compiled
kernels, `field` the objects that the rest of the package uses, and `safeguard` the slopes with
which Newton's method starts.
"""

from refimpl.fields_of_experts.field import (
    FieldLinearization,
    FieldsOfExperts,
    TiedFieldLinearization,
    TiedFieldsOfExperts,
    make_field,
)
from refimpl.fields_of_experts.safeguard import MAJORIZED, safeguard

__all__ = [
    "MAJORIZED",
    "FieldLinearization",
    "FieldsOfExperts",
    "TiedFieldLinearization",
    "TiedFieldsOfExperts",
    "make_field",
    "safeguard",
]
