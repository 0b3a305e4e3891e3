"""The printed tables, and the targets that the project has set itself, reached or not.

Rows of targets are read from the saved results alone, so that they can be printed, or drawn,
without measuring again.
"""

from typing import NamedTuple

import numpy as np

PAPER = "torch plain iteration"
TORCH = ("torch newton", "torch lbfgs", "torch anderson")


class Target(NamedTuple):
    """One row: against what, on which task, to which error, and the ratio wanted."""

    against: str
    task: str
    error: str
    wanted: float


TARGETS = (
    Target(PAPER, "denoising", "0.001", 50),
    Target(PAPER, "denoising", "1e-06", 100),
    Target(PAPER, "deblurring", "0.001", 500),
    Target("torch, best", "denoising", "1e-06", 10),
    Target("torch, best", "deblurring", "1e-06", 10),
    Target("jax convolutions", "denoising", "1e-06", 8),
    Target("jax convolutions", "deblurring", "1e-06", 8),
    Target("jax stencil", "denoising", "1e-06", 1.5),
    Target("jax stencil", "deblurring", "1e-06", 1.5),
    Target("torch, best", "inpainting", "1e-06", 10),
    Target("torch, best", "denoising, untied", "1e-06", 10),
    Target("torch, best", "deblurring, untied", "1e-06", 10),
)
GRADIENTS = {
    "30x3x3 float32": 8,
    "30x3x3 float64": 5,
    "2x11x11 float32": 1,
    "2x11x11 float64": 5,
}
# Anderson's method with the paper's ridge; the ratio wanted of it, and the share of the peak.
DENSE_RIVALS = ("torch anderson float32 ridge 0.0001", "torch anderson float64 ridge 0.0001")
DENSE, PEAK = 3, 0.4


def reached_ratio(results: dict, target: Target) -> tuple[float | None, str]:
    """The ratio of a target's rival to refimpl, and the name of the rival that is meant."""
    rows = results.get("tasks", {}).get(target.task, {}).get("targets", {}).get(target.error, {})
    names = TORCH if target.against == "torch, best" else (target.against,)
    ratios = {name: rows[name]["ratio"] for name in names if "ratio" in rows.get(name, {})}
    if not ratios:
        return None, target.against
    best = min(ratios, key=ratios.get)
    return ratios[best], best


def target_rows(results: dict) -> list[dict]:
    """Every target with the ratio reached: None where nothing was measured."""
    rows = []
    for target in TARGETS:
        ratio, name = reached_ratio(results, target)
        what = f"{target.task}, error {target.error}"
        label = name if name == target.against else f"{target.against} ({name})"
        rows.append(entry(label, what, target.wanted, ratio))
    gradients = results.get("gradients", {})
    for key, wanted in GRADIENTS.items():
        row, what = gradients.get(key, {}), f"one gradient, {key}"
        rows.append(entry(row.get("best", "torch"), what, wanted, row.get("ratio")))
    dense = results.get("dense", {}).get("rows", {})
    for name in DENSE_RIVALS:
        rows.append(entry(name, "dense, error 5e-06", DENSE, dense.get(name, {}).get("ratio")))
    for key in ("30x3x3 float32", "30x3x3 float64"):
        share = results.get("fractions", {}).get(key, {}).get("fraction_with_tanh")
        rows.append(entry("matrix-product peak", f"one gradient, {key}", PEAK, share))
    return rows


def entry(against: str, what: str, wanted: float, ratio: float | None) -> dict:
    """One line of the table of targets."""
    verdict = "not measured" if ratio is None else "reached" if ratio >= wanted else "missed"
    return {
        "against": against, "work": what, "wanted": wanted, "measured": ratio, "verdict": verdict
    }


def print_results(results: dict, say=print) -> None:
    """All tables of what was measured."""
    for name, task in results.get("tasks", {}).items():
        for error, rows in task["targets"].items():
            say(f"\n{name}, relative error of dℓ/dθ ≤ {error}; second method differs by "
                f"{task['cross_check'][1]:.0e}")
            print_rows(rows, say)
    if "dense" in results:
        say("\ndense model, 100 faces, ReLU, relative error ≤ 5e-06")
        print_rows(results["dense"]["rows"], say)
    print_single(results, say)
    print_scaling(results.get("scaling", {}), say)
    for name, row in results.get("memory", {}).items():
        if "growth" in row:
            batches = row["growth"] / row["batch"]
            say(f"memory {name}: {row['growth']:.0f} MB beyond start, {batches:.0f} batches")
    for name, seconds in results.get("cold_start", {}).items():
        say(f"cold start, {name}: {seconds:.1f} s until the first gradient")
    print_targets(results, say)


def print_rows(rows: dict[str, dict], say) -> None:
    """One line for each variant."""
    say(f"  {'':34} {'seconds':>9} {'ratio':>7} {'error':>8} {'evals':>6} {'prods':>6} {'adj':>6}")
    for name, row in rows.items():
        if "failed" in row:
            say(f"  {name:34} {row['failed']}")
            continue
        counts = [row.get(key, 0) for key in ("evaluations", "products", "adjoint_products")]
        error = row.get("gradient_error", np.nan)
        say(f"  {name:34} {row['seconds']:9.3f} {row.get('ratio', np.nan):7.1f} {error:8.1e} "
            + " ".join(f"{count:6}" for count in counts) + notes(row))


def notes(row: dict) -> str:
    """What a reader must know of a row's time."""
    said = []
    if row.get("extrapolated"):
        said.append(f"extrapolated, {row['precision']}")
    if row.get("estimated"):
        said.append("counts estimated")
    if row.get("scaled"):
        said.append(f"timed on {row['images']} images")
    return f"  ({', '.join(said)})" if said else ""


def print_single(results: dict, say) -> None:
    """Gradients, products, and the machine."""
    for key, row in results.get("gradients", {}).items():
        times = ", ".join(f"{name} {1e3 * t:.1f}" for name, t in row["seconds"].items())
        say(f"\none gradient, {key}: {times} ms; ratio {row['ratio']:.1f} to {row['best']}")
    if "products" in results:
        say("\none Hessian product, float64:")
        for name, t in results["products"]["seconds"].items():
            say(f"  {name:34} {1e3 * t:9.1f} ms")
    if "limits" in results:
        limits = results["limits"]
        say(f"\nmatrix product {limits['gflops_float32']:.0f} / {limits['gflops_float64']:.0f} "
            f"Gflop/s (float32 / float64), triad {limits['gigabytes_per_second']:.1f} GB/s")
    for key, row in results.get("fractions", {}).items():
        say(f"gradient {key}: {100 * row['fraction_filters']:.0f} % of that peak by the filters' "
            f"operations, {100 * row['fraction_with_tanh']:.0f} % with tanh's")


def print_scaling(scaling: dict[str, list[dict]], say) -> None:
    """Time against size, filters and batch."""
    for axis, rows in scaling.items():
        say(f"\ntime against {axis}")
        for row in rows:
            say(f"  {row['size']:5}² {row['filters']:4} filters {row['batch']:4} images: gradient "
                f"{1e3 * row['gradient_seconds']:8.1f} ms "
                f"({row['gradient_nanoseconds_per_pixel']:.0f} ns per pixel), "
                f"hypergradient {row['hypergradient_seconds']:8.2f} s")


def print_targets(results: dict, say) -> None:
    """Every target; information, not a verdict on the run."""
    say("\ntargets (information only)")
    for row in target_rows(results):
        measured = "-" if row["measured"] is None else f"{row['measured']:.2f}"
        say(f"  {row['work']:38} {row['against']:38} wanted {row['wanted']:5g}  measured "
            f"{measured:>8}  {row['verdict']}")
