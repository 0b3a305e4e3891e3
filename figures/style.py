"""How every figure looks, and where it is saved.

Colours are Okabe and Ito's, readable by colour-blind readers; line styles and markers differ
too, so that figures survive printing in grey.
"""

import io
import textwrap
from pathlib import Path

import matplotlib

from refimpl.storage import write_file

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
METHOD_STYLES = {
    "bilevel": {"color": BLUE, "linestyle": "-", "marker": "o", "label": "tied (bilevel)"},
    "deq": {"color": RED, "linestyle": "--", "marker": "s", "label": "untied (DEQ)"},
    "deq_from_bilevel": {
        "color": GREEN,
        "linestyle": ":",
        "marker": "^",
        "label": "untied from tied",
    },
}
BASELINE_STYLE = {
    "color": BLACK,
    "linestyle": "-.",
    "linewidth": 1.0,
    "label": "total variation, best weight",
}
SOLVER_COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 150,
    }
)


def bare(axes) -> None:
    """No grid, ticks or frame."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def save(figure: plt.Figure, output: Path, name: str, caption: str = "") -> None:
    """Write a figure as PNG and PDF, without time stamps, and close it.

    The caption stands under the figure, and in NAME.txt.
    """
    if caption:
        width = int(18 * figure.get_figwidth())
        lines = [textwrap.fill(line, width) for line in caption.splitlines()]
        figure.supxlabel("\n".join(lines), fontsize=7.5, x=0.01, ha="left")
        write_file(output / f"{name}.txt", (caption + "\n").encode())
    for format, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=format, metadata=metadata)
        write_file(output / f"{name}.{format}", content.getvalue())
    plt.close(figure)
