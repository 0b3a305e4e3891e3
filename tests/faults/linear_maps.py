"""Faults in A, C and K: filters, kernels, transposes, boundaries, masks."""

from faults.fault import constant, fault, flipped, framework, transforms


@fault("apply", "filters_flipped")
class FiltersFlipped:
    """Convolution in the place of correlation."""

    def analyse(self, p, A, u):
        return super().analyse(p, A if p.analysis == "dense" else flipped(A, 2, 3), u)


@fault("apply", "filter_rows_flipped")
class FilterRowsFlipped:
    def analyse(self, p, A, u):
        return super().analyse(p, A if p.analysis == "dense" else flipped(A, 2), u)


@fault("apply", "filter_columns_flipped")
class FilterColumnsFlipped:
    def analyse(self, p, A, u):
        return super().analyse(p, A if p.analysis == "dense" else flipped(A, 3), u)


@fault("apply", "filters_transposed")
class FiltersTransposed:
    def analyse(self, p, A, u):
        return super().analyse(p, A if p.analysis == "dense" else A.swapaxes(2, 3), u)


@fault("apply", "filters_flipped")
class SynthesisFiltersFlipped:
    """A correlates and C convolves: the transpose of the wrong one. Untied."""

    def synthesise(self, p, C, z):
        return super().synthesise(p, C if p.analysis == "dense" else flipped(C, 2, 3), z)


@fault("apply", "filters_transposed")
class SynthesisFiltersTransposed:
    """A filter transposed where it should be flipped. Untied."""

    def synthesise(self, p, C, z):
        return super().synthesise(p, C if p.analysis == "dense" else C.swapaxes(2, 3), z)


@fault("apply", "channels_reversed")
class FilterChannelsReversed:
    """BGR in the place of RGB."""

    def analyse(self, p, A, u):
        return super().analyse(p, A if p.analysis == "dense" else flipped(A, 1), u)


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


@fault("apply", "kernel_flipped")
class KernelFlipped:
    """Blur by correlation."""

    def forward(self, p, u):
        if p.operator != "convolution":
            return super().forward(p, u)
        return super().forward(p._replace(kernel=flipped(p.kernel, 0, 1)), u)


@fault("apply", "kernel_transposed")
class KernelTransposed:
    def forward(self, p, u):
        if p.operator != "convolution":
            return super().forward(p, u)
        return super().forward(p._replace(kernel=p.kernel.swapaxes(0, 1)), u)


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
        return self.forward(p._replace(kernel=flipped(p.kernel, 0, 1)), z)


@fault("apply", "operator_adjoint_ignored")
class OperatorAdjointIgnored:
    """The data term is λ (Ku − y). Untied."""

    def transpose(self, p, z):
        return z if p.operator == "convolution" else super().transpose(p, z)


@fault("apply", "operator_ignored")
class BlurIgnored:
    def forward(self, p, u):
        return u if p.operator == "convolution" else super().forward(p, u)


@fault("apply", "operator_ignored")
class MaskIgnored:
    def forward(self, p, u):
        return u if p.operator == "mask" else super().forward(p, u)


@fault("apply", "mask_complement")
class MaskComplement:
    """1 marks hidden values."""

    def forward(self, p, u):
        if p.operator != "mask":
            return super().forward(p, u)
        return super().forward(p._replace(mask=1 - p.mask), u)


@fault("energy", "mask_on_data")
class MaskOnData:
    """The residual is m (u − y): another energy, the same gradient."""

    def data_energy(self, p, u):
        y = p.mask * p.y if p.operator == "mask" else p.y
        return super().data_energy(p._replace(y=y), u)


@fault("apply", "transposed_image")
class ImageTransposed:
    """Column-major order."""

    def apply(self, problem, u):
        value = super().apply(problem, u)
        return value.swapaxes(2, 3).reshape(value.shape) + 0


def padding_by(name: str) -> type:
    """Filters under one boundary, whatever the problem says."""

    def analyse(self, p, A, u):
        if p.analysis == "dense":
            return super(cls, self).analyse(p, A, u)
        return self.correlate(u, A, name)

    cls = type(f"AnalysisPadsBy{name.title()}", (), {"analyse": analyse})
    return fault("apply", f"analysis_boundary:{name}")(cls)


def blurring_by(name: str) -> type:
    """Blur under one boundary, whatever the problem says."""

    def forward(self, p, u):
        return super(cls, self).forward(p._replace(operator_boundary=name), u)

    cls = type(f"OperatorPadsBy{name.title()}", (), {"forward": forward})
    return fault("apply", f"operator_boundary:{name}")(cls)


def synthesising_by(name: str) -> type:
    """Cᵀ as the transpose under another boundary. Untied."""

    def synthesise(self, p, C, z):
        return super(cls, self).synthesise(p._replace(boundary=name), C, z)

    cls = type(f"SynthesisPadsBy{name.title()}", (), {"synthesise": synthesise})
    return fault("apply", f"synthesis_boundary:{name}")(cls)


AnalysisPadsByZero = padding_by("zero")
AnalysisPadsByPeriodic = padding_by("periodic")
AnalysisPadsBySymmetric = padding_by("symmetric")
AnalysisPadsByReflect = padding_by("reflect")
AnalysisPadsByReplicate = padding_by("replicate")
OperatorPadsByZero = blurring_by("zero")
OperatorPadsByPeriodic = blurring_by("periodic")
OperatorPadsBySymmetric = blurring_by("symmetric")
OperatorPadsByReflect = blurring_by("reflect")
OperatorPadsByReplicate = blurring_by("replicate")
SynthesisPadsByZero = synthesising_by("zero")
SynthesisPadsByPeriodic = synthesising_by("periodic")
SynthesisPadsByReplicate = synthesising_by("replicate")


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
        return super().norm(p._replace(target=patch), A)


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
        return super().norm(p._replace(boundary="periodic"), A)


@fault("apply", "norm_size_ignored")
class NormOne:
    """Rescaled to norm 1."""

    def used(self, p, theta):
        return super().used(p if p.norm is None else p._replace(norm=1.0), theta)


@fault("vjp", "adjoint_not_transposed")
class CotangentIsTangent:
    """J where Jᵀ belongs. Untied."""

    def step_vjp(self, p, theta, u, w):
        return transforms(u).jvp(lambda x: self.step(p, theta, x), (u,), (w,))[1]
