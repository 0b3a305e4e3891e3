"""The stages at which a backend is held against the reference, and the outputs of each.

    operator         operator                                K u
    operator_adjoint operator_adjoint                        Kᵀ y
    apply            map                                     T(u), E8
    energy           energy            tied only             E(u), E2
    gradient         gradient          tied only             ∇E(u)
    jvp              jvp                                     ∂_u T v
    hvp              hvp               tied only             ∇²E(u) v
    vjp              vjp                                     (∂_u T)ᵀ w
    params_vjp       vjp_A, …                                (∂_θ T)ᵀ w
    fixed_point      fixed_point                             u*
    hypergradient    loss, hypergradient_A, …                ℓ(u*), dℓ/dθ

Later stages are made of earlier ones and inherit their errors.
"""

from typing import NamedTuple

from refimpl.verification.cases import Case

# The version of the suite: raised when a stage is added.
SUITE = 2


class Stage(NamedTuple):
    """A stage: which arrays of the case it takes, and what it returns.

    Attributes
    ----------
    arguments : tuple of str
        Arrays of the case, in order.
    output : str
        The name of its output, or the prefix of its outputs if it returns a mapping.
    since : int
        The version of the suite that has it first.
    """

    arguments: tuple[str, ...]
    output: str
    mapping: bool = False
    tied_only: bool = False
    solved: bool = False
    since: int = 1


STAGES = {
    "operator": Stage(("u",), "operator", since=2),
    "operator_adjoint": Stage(("y",), "operator_adjoint", since=2),
    "apply": Stage(("u",), "map"),
    "energy": Stage(("u",), "energy", tied_only=True),
    "gradient": Stage(("u",), "gradient", tied_only=True),
    "jvp": Stage(("u", "v"), "jvp"),
    "hvp": Stage(("u", "v"), "hvp", tied_only=True),
    "vjp": Stage(("u", "w"), "vjp"),
    "params_vjp": Stage(("u", "w"), "vjp_", mapping=True),
    "fixed_point": Stage((), "fixed_point", solved=True),
    "hypergradient": Stage((), "hypergradient_", mapping=True, solved=True),
}


def applies(stage: str, case: Case) -> bool:
    """Whether the stage makes sense for the case: energies need a tied one."""
    return case.tied or not STAGES[stage].tied_only


def output_shapes(stage: str, case: Case) -> dict[str, tuple[int, ...]]:
    """The outputs that a stage may have for a case, and their shapes."""
    arrays = case.arrays
    if stage == "energy":
        return {"energy": arrays["u"].shape[:1]}
    if stage == "operator":
        return {"operator": arrays["y"].shape}
    if not STAGES[stage].mapping:
        return {STAGES[stage].output: arrays["u"].shape}
    count = arrays["A"].shape[:1]
    shapes = {"A": arrays["A"].shape, "C": arrays["A"].shape, "b": count, "weights": count}
    shapes = {name: s for name, s in shapes.items() if name != "C" or not case.tied}
    loss = {"loss": ()} if stage == "hypergradient" else {}
    return loss | {STAGES[stage].output + name: shape for name, shape in shapes.items()}
