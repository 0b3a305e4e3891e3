"""What can be seen of a backend by calling it, without knowing the right numbers.

    not_deterministic       the same call, other numbers
    stale_state             numbers that depend on earlier calls, or stay when the problem changes
    leaks_between_images    an image alone, or elsewhere in the batch, gives other numbers
    batch_global_stopping   the same, for solves, and because another image is larger
    times_batch, …          parameter gradients that do not add up over the images
    not_adjoint             ⟨∂T v, w⟩ ≠ ⟨v, (∂T)ᵀ w⟩
    not_symmetric           ⟨H v, w⟩ ≠ ⟨v, H w⟩
    not_linear              derivatives that are not linear in v, w or ∇ℓ
    too_few_…               solves that fall short of the tolerance that they are given

Every check is a function from a probe to a finding or None. Numbers count as other numbers when
they differ by more than the tolerances of both.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.kernels.vectors import norm
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.anatomy import local_output, make_parts
from refimpl.verification.crosscheck.calls import Call, Finding, Session
from refimpl.verification.crosscheck.fixed import keeps
from refimpl.verification.crosscheck.reference import Reference
from refimpl.verification.crosscheck.stages import STAGES, applies
from refimpl.verification.crosscheck.variants import (
    all_changed,
    changed_cases,
    with_arrays,
    with_images,
    with_quick_first_image,
)

Outputs = dict[str, Array]

# Looser tolerance and larger image by this factor; what falls with a tolerance falls at least so.
LOOSER, LOOSEST, FALLS = 1e3, 0.1, 5.0
# Numbers that belong to another problem are off by more than so many tolerances.
ANOTHER = 1e3
# Residuals of solves may be measured in other norms than ours.
RESIDUAL_SLACK = 10.0


class Probe(NamedTuple):
    """One stage of a backend at one case.

    Attributes
    ----------
    session : Session
    stage : str
    reference : Reference
        Its case is the one to call with.
    outputs : dict of arrays
        What the backend answered.
    agrees : bool
        Whether that is right.
    """

    session: Session
    stage: str
    reference: Reference
    outputs: Outputs
    agrees: bool

    @property
    def case(self) -> Case:
        """The case of the reference."""
        return self.reference.case

    def call(self, case: Case, *, tol: float | None = None) -> Call:
        """This stage with another case."""
        return self.session.call(self.stage, case, tol=tol)

    def ratio(self, given: Outputs, expected: Outputs) -> float:
        """The largest difference in units of what two right answers may differ."""
        ratios = [0.0]
        for name in given.keys() & expected.keys():
            allowed = 2 * self.reference.tolerances.get(name, np.inf)
            difference = float(np.linalg.norm(given[name] - expected[name]))
            ratios.append(difference / allowed if difference > 0 else 0.0)
        return max(ratios)

    @property
    def per_image(self) -> bool:
        """Whether the stage has one output summed over the images."""
        return not STAGES[self.stage].mapping


def not_deterministic(probe: Probe) -> Finding | None:
    """The same call twice more."""
    again = [probe.call(probe.case).outputs for _ in range(2)]
    worst = max(probe.ratio(outputs, probe.outputs) for outputs in again)
    if worst > 1:
        return Finding("not_deterministic", f"the same call again differs, {times(worst)}")
    return None


def stale_state(probe: Probe) -> Finding | None:
    """Problems of the same shapes in which one part is another, and others in between."""
    for part, case in changed_cases(probe.case, probe.session.only).items():
        if not depends(probe, part, case):
            continue
        outputs = probe.call(case).outputs
        if same_outputs(outputs, probe.outputs):
            return Finding("stale_state", f"other {part}, and not one digit changes")
        if probe.agrees and probe.ratio(outputs, local_outputs(probe, case)) > ANOTHER:
            return Finding("stale_state", f"right at first, wrong with other {part} afterwards")
    other = all_changed(probe.case, probe.session.only)
    for stage in STAGES:
        if probe.session.offers(stage) and applies(stage, other) and not STAGES[stage].solved:
            probe.session.call(stage, other)
    worst = probe.ratio(probe.call(probe.case).outputs, probe.outputs)
    if worst > 1:
        return Finding("stale_state", f"after calls with another problem {times(worst)} different")
    return None


def local_outputs(probe: Probe, case: Case) -> Outputs:
    """The right answers of a stage without solves at another case; none for a solved stage."""
    if STAGES[probe.stage].solved:
        return {}
    parts, arrays = make_parts(case), case.arrays
    return {name: local_output(parts, name, arrays) for name in probe.outputs}


def depends(probe: Probe, part: str, case: Case) -> bool:
    """Whether the right answer changes with this part of the problem.

    Parts that a wrong backend may ignore tell only where the backend is right.
    """
    if not probe.agrees and part not in ("filters", "constants", "state", "data"):
        return False
    if STAGES[probe.stage].solved:
        return part not in ("state", "tangent", "target") or (
            part == "target" and probe.stage == "hypergradient"
        )
    return probe.ratio(local_outputs(probe, case), probe.reference.outputs) > RESIDUAL_SLACK


def same_outputs(given: Outputs, expected: Outputs) -> bool:
    """Whether both hold the same numbers, to the last bit."""
    return bool(given) and all(
        name in expected and np.array_equal(x, expected[name]) for name, x in given.items()
    )


def independent_images(probe: Probe) -> Finding | None:
    """Each image alone, and the batch in reverse order."""
    N = len(probe.case.arrays["u"])
    if N < 2:
        return None
    alone = [probe.call(with_images(probe.case, [n])) for n in range(N)]
    reverse = probe.call(with_images(probe.case, range(N)[::-1]))
    for call in (*alone, reverse):
        if call.findings:
            return call.findings[0]._replace(message=f"other batch: {call.findings[0].message}")
    if not probe.per_image:
        return sums_over_images(probe, [call.outputs for call in alone], reverse.outputs)
    name = STAGES[probe.stage].output
    rows = {name: np.concatenate([call.outputs[name] for call in alone])}
    turned = {name: reverse.outputs[name][::-1]}
    for outputs, what in ((rows, "each image alone"), (turned, "the batch in reverse order")):
        if (worst := probe.ratio(outputs, probe.outputs)) > 1:
            return Finding("leaks_between_images", f"{what} differs, {times(worst)}")
    return None


def sums_over_images(probe: Probe, alone: list[Outputs], reverse: Outputs) -> Finding | None:
    """Parameter gradients are sums over the images, hypergradients means."""
    N, mean = len(alone), probe.stage == "hypergradient"
    whole = {
        name: sum(outputs[name] for outputs in alone) / (N if mean else 1)
        for name in probe.outputs
        if all(name in outputs for outputs in alone)
    }
    if probe.ratio(whole, probe.outputs) > 1:
        for factor, cause in ((N, "times_batch"), (1 / N, "divided_by_batch")):
            if probe.ratio({k: factor * x for k, x in whole.items()}, probe.outputs) <= N:
                kind = "mean" if mean else "sum"
                message = f"the batch gives {factor:.3g} times the {kind} of its images"
                return Finding(cause, message)
    worst = max(probe.ratio(x, probe.outputs) for x in (whole, reverse))
    if worst > 1:
        return Finding("leaks_between_images", f"images alone do not add up, {times(worst)}")
    return None


def duplicated_batch(probe: Probe) -> Finding | None:
    """The batch twice over: the mean loss, and so its gradient, stays."""
    if probe.stage != "hypergradient":
        return None
    N = len(probe.case.arrays["u"])
    twice = probe.call(with_images(probe.case, [*range(N), *range(N)])).outputs
    if probe.ratio(twice, probe.outputs) <= 1:
        return None
    for factor, cause in ((2.0, "sum_not_mean"), (0.5, "divided_by_batch")):
        if probe.ratio({k: x / factor for k, x in twice.items()}, probe.outputs) <= 1:
            return Finding(cause, f"the batch twice over gives {factor:g} times the gradient")
    return Finding("leaks_between_images", "the batch twice over gives another gradient")


def batch_global_stopping(probe: Probe) -> Finding | None:
    """Fixed points beside an image that is larger and found sooner: do the others stop with it?"""
    case, N = probe.case, len(probe.case.arrays["u"])
    if probe.stage != "fixed_point" or N < 2 or not case.tied or case.operator == "mask":
        return None
    other = with_quick_first_image(case, LOOSER)
    if not keeps(other, probe.session.only):
        message = "whether images stop each on its own, which takes the quadratic potential"
        return Finding("not_checked", message)
    alone = probe.call(with_images(other, range(1, N))).outputs
    beside = {k: x[1:] for k, x in probe.call(other).outputs.items()}
    worst = probe.ratio(beside, alone)
    if worst > RESIDUAL_SLACK:
        message = f"beside an image {LOOSER:g} times as large the others differ, {times(worst)}"
        return Finding("batch_global_stopping", message)
    return None


def paired(probe: Probe) -> Finding | None:
    """⟨∂T v, w⟩ = ⟨v, (∂T)ᵀ w⟩, and ⟨H v, w⟩ = ⟨v, H w⟩, summed over the images."""
    arrays, stage = probe.case.arrays, probe.stage
    v, w = arrays["v"], arrays["w"]
    if stage == "vjp" and probe.session.offers("jvp"):
        tangent = probe.session.call("jvp", probe.case).outputs.get("jvp")
        cause, cotangent = "not_adjoint", probe.outputs.get("vjp")
    elif stage == "hvp":
        tangent, cause = probe.outputs.get("hvp"), "not_symmetric"
        cotangent = probe.call(with_arrays(probe.case, v=w)).outputs.get("hvp")
    else:
        return None
    if tangent is None or cotangent is None:
        return None
    left, right = float(np.vdot(tangent, w)), float(np.vdot(v, cotangent))
    allowed = probe.reference.tolerances[stage] * float(np.linalg.norm(v) + np.linalg.norm(w))
    if abs(left - right) <= 2 * allowed:
        return None
    return Finding(cause, f"inner products {left:.6g} and {right:.6g} should be equal")


def linear(probe: Probe) -> Finding | None:
    """Derivatives at −2 v are −2 times those at v."""
    names = {"jvp": "v", "hvp": "v", "vjp": "w", "params_vjp": "w"}
    if probe.stage not in names:
        return None
    name = names[probe.stage]
    scaled = with_arrays(probe.case, **{name: -2 * probe.case.arrays[name]})
    outputs = {k: x / -2 for k, x in probe.call(scaled).outputs.items()}
    if (worst := probe.ratio(outputs, probe.outputs)) > 1:
        return Finding("not_linear", f"not linear in {name}, {times(worst)}")
    return None


def energy_constant(probe: Probe) -> Finding | None:
    """A wrong energy whose differences are right: at another u it is off by the same number."""
    if probe.stage != "energy" or probe.agrees or "energy" not in probe.outputs:
        return None
    other = with_arrays(probe.case, u=-2 * probe.case.arrays["u"])
    off = probe.outputs["energy"] - probe.reference.outputs["energy"]
    again = probe.call(other).outputs.get("energy", np.inf) - local_outputs(probe, other)["energy"]
    # Energies are quadratic at most, and so is their rounding, once more for the difference.
    if np.linalg.norm(again - off) > 8 * probe.reference.tolerances["energy"]:
        return None
    return Finding("energy_constant", f"off by {float(off[0]):.4g} for the first image, at any u")


def loss_scaled(probe: Probe) -> Finding | None:
    """With the target eight times as far from u*, the gradient is eight times as large."""
    star = probe.reference.outputs.get("fixed_point")
    if probe.stage != "hypergradient" or star is None:
        return None
    far = with_arrays(probe.case, target=star + 8 * (probe.case.arrays["target"] - star))
    outputs = {k: x / 8 for k, x in probe.call(far).outputs.items() if k != "loss"}
    if (worst := probe.ratio(outputs, probe.outputs)) > 1:
        return Finding("not_linear", f"not linear in the gradient of the loss, {times(worst)}")
    return None


def stops_early(probe: Probe) -> Finding | None:
    """A wrong solve, far from its own fixed point, or nearer the right one when tightened."""
    if probe.agrees or not STAGES[probe.stage].solved or not probe.outputs:
        return None
    if probe.stage == "fixed_point" and (left := own_residual(probe)) is not None:
        tol = probe.session.tol
        if left > RESIDUAL_SLACK * tol + 64 * np.finfo(probe.session.dtype).eps:
            message = f"‖T(u) − u‖ / ‖u‖ is {left:.1e} by its own apply, asked for was {tol:.0e}"
            return Finding("too_few_forward_iterations", message)
    tight = errors(probe, probe.outputs)
    loosest = min(LOOSER * probe.session.tol, LOOSEST)
    loose = errors(probe, probe.call(probe.case, tol=loosest).outputs)
    falls = {k for k in tight if k in loose and loose[k] > FALLS * tight[k]}
    wrong = {k for k in tight if tight[k] > probe.reference.tolerances.get(k, np.inf)}
    if not wrong & falls:
        return None
    forward = wrong & {"fixed_point", "loss"}
    cause = "too_few_forward_iterations" if forward else "too_few_adjoint_iterations"
    return Finding(cause, "the error falls when the tolerance is tightened")


def own_residual(probe: Probe) -> float | None:
    """‖T(u) − u‖ / ‖u‖ of the worst image, T being the backend's own."""
    u = probe.outputs.get("fixed_point")
    if u is None or not probe.session.offers("apply"):
        return None
    value = probe.session.call("apply", with_arrays(probe.case, u=u)).outputs.get("map")
    return None if value is None else float((norm(value - u) / norm(u)).max())


def errors(probe: Probe, outputs: Outputs) -> dict[str, float]:
    """Distance of each output from the reference."""
    known = probe.reference.outputs
    return {k: float(np.linalg.norm(x - known[k])) for k, x in outputs.items() if k in known}


def times(ratio: float) -> str:
    """A ratio to what is allowed, in words."""
    return f"{ratio:.1e} times what rounding and tolerances allow"


Check = Callable[[Probe], Finding | None]

# Seen directly: they explain wrong numbers whatever these are.
DIRECT: tuple[Check, ...] = (not_deterministic, stale_state)
# Consequences of a mistake in the formula, too: a cause found in the numbers is the better one.
INDIRECT: tuple[Check, ...] = (
    batch_global_stopping,
    energy_constant,
    independent_images,
    stops_early,
    duplicated_batch,
    loss_scaled,
    linear,
    paired,
)
