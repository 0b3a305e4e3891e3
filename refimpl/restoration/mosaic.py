"""A large image in tiles that overlap, each solved alone, of which the middle is kept.

What a pixel of u* owes to data at distance d falls like ρ^d. Where R is convex, J = λ KᵀK + ∂F and
K = I, that is a theorem: a matrix with entries within r of the diagonal and condition number κ has

    |(J⁻¹)_ij| ≤ c ((√κ − 1) / (√κ + 1))^{|i − j| / r}.

So tiles that overlap by enough change no pixel by more than `CHANGE`.

References
----------
S. Demko, W. Moss and P. Smith, "Decay rates for inverses of band matrices", Mathematics of
Computation 43(168):491-499, 1984.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array

# What tiles may change of a pixel, where white is 1.
CHANGE = 1e-3


class Tile(NamedTuple):
    """A part of an image that is solved, and the part of it that is kept."""

    solved: tuple[slice, slice]
    kept: tuple[slice, slice]

    @property
    def middle(self) -> tuple[slice, slice]:
        """What is kept, as a part of what is solved."""
        starts = (part.start for part in self.solved)
        return tuple(
            slice(part.start - first, part.stop - first)
            for part, first in zip(self.kept, starts, strict=True)
        )


def mosaic(size: tuple[int, int], side: int, overlap: int) -> Iterator[Tile]:
    """Tiles whose kept parts, of about side × side pixels, cover an image of this size once."""
    rows, columns = (_intervals(length, side, overlap) for length in size)
    for solved_rows, kept_rows in rows:
        for solved_columns, kept_columns in columns:
            yield Tile((solved_rows, solved_columns), (kept_rows, kept_columns))


def _intervals(length: int, side: int, overlap: int) -> list[tuple[slice, slice]]:
    """Intervals that cover 0 to length once, each with the wider one that is solved for it."""
    number = 1 if length <= side + 2 * overlap else -(-length // side)
    edges = [length * n // number for n in range(number + 1)]
    return [
        (slice(max(a - overlap, 0), min(b + overlap, length)), slice(a, b))
        for a, b in zip(edges, edges[1:])
    ]


def by_tiles(
    solve: Callable[[tuple[slice, slice]], Array], like: Array, side: int, overlap: int
) -> Array:
    """Images (N, C, H, W) like given ones, put together from `solve` of each tile's place."""
    result = np.empty_like(like)
    for tile in mosaic(like.shape[2:], max(side, 2 * overlap), overlap):
        result[:, :, *tile.kept] = solve(tile.solved)[:, :, *tile.middle]
    return result
