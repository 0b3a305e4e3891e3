"""Faults in A, C and K: filters, kernels, transposes, boundaries, masks."""

from dataclasses import replace

from faults.fault import constant, fault, flipped, framework, overriding, transforms
from refimpl.paper.operators import BOUNDARIES


def rearranged(change):
    """A bank whose filters are changed first."""
    return lambda self, right, p, A, x: right(p, A if p.analysis == "dense" else change(A), x)


TABLES = overriding(
    "analyse",
    "apply",
    rearranged,
    ("FiltersFlipped", "filters_flipped", lambda A: flipped(A, 2, 3)),
    ("FilterRowsFlipped", "filter_rows_flipped", lambda A: flipped(A, 2)),
    ("FilterColumnsFlipped", "filter_columns_flipped", lambda A: flipped(A, 3)),
    ("FiltersTransposed", "filters_transposed", lambda A: A.swapaxes(2, 3)),
    ("FilterChannelsReversed", "channels_reversed", lambda A: flipped(A, 1)),
) + overriding(  # the transpose of the wrong one; untied
    "synthesise",
    "apply",
    rearranged,
    ("SynthesisFiltersFlipped", "filters_flipped", lambda C: flipped(C, 2, 3)),
    ("SynthesisFiltersTransposed", "filters_transposed", lambda C: C.swapaxes(2, 3)),
)


@fault("apply", "synthesis_not_transposed")
class SynthesisNotTransposed:
    """Cᵀ by the same correlation. Untied."""

    def synthesise(self, p, C, z):
        if p.analysis == "dense":
            return super().synthesise(p, C, z)
        return self.correlate(z, C.swapaxes(0, 1), p.boundary)


@fault("apply", "synthesis_padding_adjoint_missing")
class SynthesisPadsResponses:
    """Cᵀ turns the filters, and pads responses where it should fold the border back. Untied."""

    def synthesise(self, p, C, z):
        if p.analysis == "dense":
            return super().synthesise(p, C, z)
        return self.correlate(z, flipped(C.swapaxes(0, 1), 2, 3), p.boundary)


@fault("apply", "border_responses_dropped")
class BorderDropped:
    """Responses of filters that reach over the border are dropped, as by a valid convolution."""

    def responses(self, p, theta, u):
        z, (h, w) = self.analyse(p, theta["A"], u), theta["A"].shape[-2:]
        if p.analysis == "convolution":
            rows, columns = h // 2, w // 2
            inside = z[:, :, rows : z.shape[2] - rows, columns : z.shape[3] - columns]
            z = self.pad(inside, (rows, columns), "zero") if 0 not in inside.shape else 0 * z
        return z + self.per_filter(p, theta["b"])


@fault("apply", "kernel_adjoint_missing")
class KernelAdjointMissing:
    """K for Kᵀ. Untied."""

    def transpose(self, p, z):
        return self.forward(p, z) if p.operator == "convolution" else super().transpose(p, z)


@fault("apply", "operator_padding_adjoint_missing")
class OperatorPadsData:
    """Kᵀ turns the kernel, and pads where it should fold the border back. Untied."""

    def transpose(self, p, z):
        if p.operator != "convolution":
            return super().transpose(p, z)
        return self.forward(replace(p, kernel=flipped(p.kernel, 0, 1)), z)


@fault("apply", "operator_adjoint_ignored")
class OperatorAdjointIgnored:
    """The data term is λ (Ku − y). Untied."""

    def transpose(self, p, z):
        return z if p.operator == "convolution" else super().transpose(p, z)


def misread(change):
    """A map of the question as it is misread."""
    return lambda self, right, p, *arrays: right(replace(p, **change(p)), *arrays)


def under(**boundary):
    """One boundary, whatever the question says."""
    return lambda p: boundary


def without(kind):
    """The identity in the place of an operator."""
    return lambda p: {"operator": "identity"} if p.operator == kind else {}


def other_array(kind, name, change):
    """Another array of an operator."""
    return lambda p: {name: change(getattr(p, name))} if p.operator == kind else {}


TABLES += overriding(
    "forward",
    "apply",
    misread,
    ("BlurIgnored", "operator_ignored", without("convolution")),
    ("MaskIgnored", "operator_ignored", without("mask")),
    # 1 marks hidden values.
    ("MaskComplement", "mask_complement", other_array("mask", "mask", lambda m: 1 - m)),
    # Blur by correlation.
    (
        "KernelFlipped",
        "kernel_flipped",
        other_array("convolution", "kernel", lambda k: flipped(k, 0, 1)),
    ),
    (
        "KernelTransposed",
        "kernel_transposed",
        other_array("convolution", "kernel", lambda k: k.swapaxes(0, 1)),
    ),
    *(
        (f"OperatorPadsBy{x.title()}", f"operator_boundary:{x}", under(operator_boundary=x))
        for x in BOUNDARIES
    ),
)


@fault("energy", "energy_constant")
class MaskOnData:
    """The residual is m (u − y): another energy, the same gradient."""

    def data_energy(self, p, u):
        y = p.mask * p.y if p.operator == "mask" else p.y
        return super().data_energy(replace(p, y=y), u)


@fault("apply", "transposed_image")
class ImageTransposed:
    """Column-major order."""

    def apply(self, problem, u):
        value = super().apply(problem, u)
        return value.swapaxes(2, 3).reshape(value.shape) + 0


TABLES += overriding(
    "analyse",
    "apply",
    misread,
    *(
        (f"AnalysisPadsBy{x.title()}", f"analysis_boundary:{x}", under(boundary=x))
        for x in BOUNDARIES
    ),
) + overriding(
    "synthesise",
    "apply",
    misread,  # Cᵀ as the transpose under another boundary; untied
    *(
        (f"SynthesisPadsBy{name.title()}", f"synthesis_boundary:{name}", under(boundary=name))
        for name in ("zero", "periodic", "replicate")
    ),
)


@fault("apply", "norm_ignored")
class NormIgnored:
    def used(self, p, theta):
        return theta


@fault("params_vjp", "norm_frozen")
class NormFrozen:
    """The norm is a constant in the backward pass."""

    def norm(self, p, A):
        return constant(super().norm(p, A))


@fault("apply", "norm_of_patch")
class NormOfPatch:
    """The norm on images as small as a filter."""

    def norm(self, p, A):
        if p.analysis == "dense":
            return super().norm(p, A)
        patch = framework(A).zeros_like(A[:1])
        return super().norm(replace(p, target=patch), A)


@fault("apply", "norm_frobenius")
class NormFrobenius:
    """The norm of the coefficients as a vector."""

    def norm(self, p, A):
        return (A**2).sum() ** 0.5


@fault("apply", "norm_of_reshaped_filters")
class NormOfReshapedFilters:
    """The norm of the (F, C·h·w) matrix, as torch's spectral_norm has it."""

    def norm(self, p, A):
        return framework(A).linalg.norm(A.reshape(len(A), -1), 2)


@fault("apply", "norm_under_boundary:periodic")
class NormOfSymbol:
    """The norm from the FFT, which is that under the periodic boundary."""

    def norm(self, p, A):
        return super().norm(replace(p, boundary="periodic"), A)


@fault("apply", "norm_size_ignored")
class NormOne:
    """Rescaled to norm 1."""

    def used(self, p, theta):
        return super().used(p if p.norm is None else replace(p, norm=1.0), theta)


@fault("vjp", "adjoint_not_transposed")
class CotangentIsTangent:
    """J where Jᵀ belongs. Untied."""

    def step_vjp(self, p, theta, u, w):
        return transforms(u).jvp(lambda x: self.step(p, theta, x), (u,), (w,))[1]
