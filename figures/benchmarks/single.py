"""One gradient here and in torch, one product in each form, and how near the machine's limit.

Floating-point operations of one gradient of F filters h × w on n pixels, one for a multiplication
and one for an addition: 4 F h w n for Au and Cᵀ(·), which is 36 n for each filter of 3 × 3, and
with tanh counted as `TANH` operations, those of refimpl's own formula in each precision (one or two
polynomials, one division, scaling), (36 + TANH) n. The peak is that of NumPy's matrix product on as
many threads.
"""

import numpy as np
import torch

from figures.benchmarks.plain import plain
from figures.benchmarks.problems import SLOPE
from figures.benchmarks.timing import paired, ratio
from figures.benchmarks.torch_model import FORMS, TorchBank
from figures.task import Task
from refimpl import FieldOfExperts, FilterBank, make_potential
from refimpl.engine import make_field

FILTERS = ((30, 3, 3), (2, 11, 11))
TANH = {"float32": 25, "float64": 40}
MATRIX, VECTOR = 2048, 20_000_000


def gradient_calls(images: np.ndarray, filters: tuple, dtype: type) -> dict:
    """The field Aᵀ tanh(χ Au) here, and in torch in every form, zero boundary."""
    rng = np.random.default_rng(0)
    A = (0.3 * rng.standard_normal((filters[0], 1, *filters[1:]))).astype(dtype)
    u = images.astype(dtype)
    bank = FilterBank(u.shape[1:], filters, "zero")
    field = make_field(FieldOfExperts(bank, make_potential("log_cosh", slope=SLOPE), A))
    tensors = torch.from_numpy(u), torch.from_numpy(A)
    calls = {f"torch {form}": lambda form=form: torch_field(*tensors, form) for form in FORMS}
    return {"refimpl": lambda: field.value(u)} | calls


@torch.no_grad()
def torch_field(u: torch.Tensor, A: torch.Tensor, form: str) -> np.ndarray:
    """Aᵀ tanh(χ Au) with torch's own zero padding."""
    pad = A.shape[-1] // 2
    if form == "unfold":
        (F, _, h, w), (H, W) = A.shape, u.shape[2:]
        windows = torch.nn.functional.unfold(u, (h, w), padding=pad)
        s = torch.tanh(SLOPE * torch.matmul(A.reshape(F, -1), windows))
        columns = torch.matmul(A.reshape(F, -1).T, s)
        return torch.nn.functional.fold(columns, (H, W), (h, w), padding=pad).numpy()
    u, taps = (TorchBank(x, form)._in_form(x) for x in (u, A))
    s = torch.tanh(SLOPE * torch.nn.functional.conv2d(u, taps, padding=pad))
    return torch.nn.functional.conv_transpose2d(s, taps, padding=pad).numpy()


def compare_gradients(images: np.ndarray, rounds: int) -> dict:
    """Times and ratios for every filter shape and precision, with the distance of the results."""
    results = {}
    for filters in FILTERS:
        for dtype in (np.float32, np.float64):
            calls = gradient_calls(images, filters, dtype)
            ours = calls["refimpl"]()
            differences = {
                name: float(np.linalg.norm(call() - ours) / np.linalg.norm(ours))
                for name, call in calls.items()
            }
            times = paired(calls, rounds)
            key = f"{filters[0]}x{filters[1]}x{filters[2]} {np.dtype(dtype).name}"
            results[key] = summary(times) | {"relative_difference": max(differences.values())}
    return results


def summary(times: dict[str, list[float]]) -> dict:
    """Medians, refimpl's best time, ratios to refimpl, and the ratio of the fastest rival."""
    ratios = {name: ratio(row, times["refimpl"]) for name, row in times.items()}
    rivals = [name for name in times if not name.startswith("refimpl") and "assembly" not in name]
    best = min(rivals, key=lambda name: ratios[name])
    medians = {name: float(np.median(row)) for name, row in times.items()}
    shortest = {"shortest_seconds": min(times["refimpl"])}
    return {"seconds": medians, "ratios": ratios, "best": best, "ratio": ratios[best]} | shortest


def compare_products(problem: Task, rounds: int) -> dict:
    """One product with the Hessian, d given: here and in every form of torch and JAX, float64."""
    import jax

    from figures.benchmarks.jax_model import make_model
    from figures.benchmarks.jax_products import PRODUCTS, assemble, prior_products
    from figures.benchmarks.torch_model import TorchModel

    step = problem.step
    u = step.operator.adjoint(step.problem.y)
    numbers, lin = plain(step, problem.truth), step.linearize(u)
    _, slopes = lin.field.responses
    d, v = torch.from_numpy(slopes), torch.from_numpy(u)
    calls = {
        "refimpl": lambda: lin.field.jvp(u),
        "refimpl assembly of the stencil": lambda: step.linearize(u).field.jacobian,
    }
    for form in FORMS:
        calls[f"torch {form}"] = torch_product(TorchModel(numbers, form), d, v)
    A = make_model(numbers, "stencil").arrays.A
    slopes, image = jax.numpy.asarray(slopes), jax.numpy.asarray(u[:, 0])
    for name in PRODUCTS[:2]:
        product = jax.jit(lambda d, v, name=name: prior_products(d, A, None, name)[0](v))
        calls[f"jax {name}"] = ready(product, slopes, image)
    stencil = jax.jit(lambda d: assemble(d, A, A, half=True))
    calls["jax assembly of the stencil"] = ready(stencil, slopes)
    calls["jax stencil"] = ready(jax.jit(stencil_only(A)), stencil(slopes), image)
    return summary(paired(calls, rounds))


def torch_product(model, d: torch.Tensor, v: torch.Tensor):
    """v ↦ Aᵀ( d ⊙ Av ) as a call."""

    @torch.no_grad()
    def call() -> torch.Tensor:
        return model.A.synthesise(d * model.A.analyse(v))

    return call


def stencil_only(A):
    """(S, v) ↦ Σ_p S_p v(· + p) for tied filters."""
    from figures.benchmarks.jax_products import stencil_product

    return lambda S, v: stencil_product(S, v, A.shape[1:], "symmetric")


def ready(program, *arguments):
    """A call that waits for JAX's result."""
    return lambda: program(*arguments).block_until_ready()


def machine_limits(rounds: int) -> dict:
    """Peak of NumPy's matrix product in Gflop/s, and bytes/s of a large triad."""
    rng = np.random.default_rng(0)
    limits = {}
    for dtype in (np.float32, np.float64):
        a, b = (rng.standard_normal((MATRIX, MATRIX)).astype(dtype) for _ in range(2))
        out = np.empty_like(a)
        times = paired({"dot": lambda a=a, b=b, out=out: np.dot(a, b, out=out)}, rounds)["dot"]
        limits[f"gflops_{np.dtype(dtype).name}"] = 2e-9 * MATRIX**3 / min(times)
    x, y, z = (torch.ones(VECTOR, dtype=torch.float64) for _ in range(3))
    times = paired({"triad": lambda: torch.add(x, y, alpha=3.0, out=z)}, rounds)["triad"]
    return limits | {"gigabytes_per_second": 3 * 8e-9 * VECTOR / min(times)}


def fractions(gradients: dict, limits: dict, pixels: int) -> dict:
    """The share of the matrix-product peak that refimpl's gradient reaches, both at their best."""
    shares = {}
    for key, result in gradients.items():
        shape, precision = key.split()
        F, h, w = map(int, shape.split("x"))
        rate = pixels * F / result["shortest_seconds"] * 1e-9
        peak = limits[f"gflops_{precision}"]
        filters = 4 * h * w * rate
        shares[key] = {
            "gflops_filters": filters,
            "fraction_filters": filters / peak,
            "fraction_with_tanh": (filters + TANH[precision] * rate) / peak,
        }
    return shares
