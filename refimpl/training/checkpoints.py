"""Checkpoints: the whole `TrainingState` of a training in one npz file of arrays and JSON."""

from pathlib import Path

from refimpl.storage import decoded, encoded, npz_bytes, read_arrays, write_file
from refimpl.training.adam import AdamState
from refimpl.training.loop import TrainingState

ARRAYS = ("x", "accepted", "states", "test_states", "best")


def save_checkpoint(path: Path | str, progress: TrainingState) -> None:
    """Write `progress` to `path` (npz), whole or not at all."""
    scalars = {
        "epoch": progress.epoch,
        "t": progress.adam.t,
        "reduction": progress.adam.reduction,
        "records": progress.records,
    }
    arrays = {name: getattr(progress, name) for name in ARRAYS}
    arrays |= {"m": progress.adam.m, "v": progress.adam.v}
    arrays["scalars"] = encoded(scalars)
    write_file(path, npz_bytes(arrays))


def load_checkpoint(path: Path | str) -> TrainingState:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or not a checkpoint.
    """
    data = read_arrays(path)
    try:
        scalars = decoded(data["scalars"])
        adam = AdamState(data["m"], data["v"], scalars["t"], scalars["reduction"])
        arrays = {name: data[name] for name in ARRAYS}
        return TrainingState(
            epoch=scalars["epoch"], adam=adam, records=tuple(scalars["records"]), **arrays
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint ({error}); delete it to start anew") from error
