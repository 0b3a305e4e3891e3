"""`make bench`: one gradient of the regulariser here and by torch's convolutions, side by side.

Ten images of 178 x 218, 30 filters of 3 x 3, σ = tanh(100 z), zero boundary: the same numbers
from both, in both precisions. Repetitions are paired, so that both meet the same load; medians
are compared. Nothing passes or fails.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from refimpl.fields_of_experts import make_field
from refimpl.operators import FilterBank
from refimpl.potentials import make_potential

IMAGES, FILTERS, SLOPE, REPETITIONS = (10, 1, 178, 218), (30, 3, 3), 100.0, 15


def torch_field(u: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Aᵀ tanh(χ A u) by convolutions."""
    pad = A.shape[-1] // 2
    responses = torch.tanh(SLOPE * torch.nn.functional.conv2d(u, A, padding=pad))
    return torch.nn.functional.conv_transpose2d(responses, A, padding=pad)


def seconds(function, *arguments) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def compare(dtype: type) -> dict[str, float]:
    """Medians of paired repetitions, their ratio, and how far the two results are apart."""
    rng = np.random.default_rng(0)
    u = rng.uniform(size=IMAGES).astype(dtype)
    A = (0.3 * rng.standard_normal((FILTERS[0], 1, *FILTERS[1:]))).astype(dtype)
    bank = FilterBank(IMAGES[1:], FILTERS, "zero")
    field = make_field(bank, make_potential("log_cosh", slope=SLOPE), A)
    tensors = torch.from_numpy(u), torch.from_numpy(A)
    with torch.no_grad():
        ours, theirs = field.value(u), torch_field(*tensors).numpy()
        pairs = np.array(
            [
                (seconds(field.value, u), seconds(torch_field, *tensors))
                for _ in range(REPETITIONS)
            ]
        )
    return {
        "refimpl_ms": 1e3 * float(np.median(pairs[:, 0])),
        "torch_ms": 1e3 * float(np.median(pairs[:, 1])),
        "ratio": float(np.median(pairs[:, 1] / pairs[:, 0])),
        "relative_difference": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
    }


def main() -> int:
    """Print the table and save it as output/benchmark.json."""
    results = {np.dtype(dtype).name: compare(dtype) for dtype in (np.float32, np.float64)}
    print(f"one gradient, {FILTERS[0]} filters of 3 x 3, images {IMAGES}, {REPETITIONS} pairs")
    for precision, row in results.items():
        print(
            f"{precision}: refimpl {row['refimpl_ms']:.1f} ms, torch {row['torch_ms']:.1f} ms, "
            f"ratio {row['ratio']:.1f}, relative difference {row['relative_difference']:.1e}"
        )
    output = Path(__file__).parent / "output"
    output.mkdir(exist_ok=True)
    (output / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
