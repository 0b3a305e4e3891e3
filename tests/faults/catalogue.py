"""All planted faults, the slugs they may name, and the mistakes that nothing can find."""

from faults import behaviours, derivatives, formulas, linear_maps, precision
from faults.fault import Fault, faults_of
from refimpl.verification.crosscheck.suspects import EXPLANATIONS

CATALOGUE: tuple[Fault, ...] = tuple(
    fault
    for module in (linear_maps, formulas, precision, derivatives, behaviours)
    for fault in faults_of(module)
)

KNOWN_CAUSES = frozenset(EXPLANATIONS)

# Mistakes that change no number that a backend returns, or none beyond what it is allowed.
NOT_SEPARABLE = {
    "another solver, or another start": (
        "the fixed point of a well-posed case is unique: every solver that reaches the tolerance "
        "returns the same numbers"
    ),
    "a wrong τ in the solves alone": (
        "u* and dℓ/dθ do not depend on τ, and apply and the vjps, which do, are right"
    ),
    "masked data in the residual m u − m y": (
        "m² = m, so G and all that follows from it are the same; only the energy differs, and an "
        "untied case has none (tied: the fault MaskOnData)"
    ),
    "an absolute residual test, where ‖u‖ is at least 1": (
        "it is stricter than the relative one that was asked for"
    ),
    "one iteration fewer, above the tolerance by less than the safety factor": (
        "a tolerance on residuals is met to within what rounding and the safety factor allow"
    ),
    "σ′ at a kink taken from the other side": (
        "both values are derivatives of a subgradient there; cases keep responses off kinks"
    ),
    "float64 inside a float32 backend": (
        "the results are float32 and at least as accurate as float32 arithmetic"
    ),
    "float32 inside a float32 backend": "there is nothing hidden; float16 is planted instead",
    "−A in the place of A where σ is odd and b is 0": (
        "φ is even: E, T and every derivative with respect to the A given are the same function"
    ),
    "filters in another order inside": (
        "the sum over filters does not depend on it; gradients must be returned in the given order"
    ),
    "a slow program, or one that keeps memory": "crosscheck looks at numbers; only a hang shows",
}
