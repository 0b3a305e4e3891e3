"""Checkpoints: the whole `TrainingState` of a training in one npz file of arrays and JSON."""

from pathlib import Path

from refimpl.arrays import count, positive
from refimpl.storage import as_records, keep, read_kept
from refimpl.training.adam import AdamState
from refimpl.training.loop import TrainingState

FORMAT = "refimpl-checkpoint/1"
PACKED = ("x", "accepted", "best", "average")
ARRAYS = (*PACKED, "states", "test_states")


def save_checkpoint(path: Path | str, progress: TrainingState) -> None:
    """Write `progress` to `path` (npz), whole or not at all."""
    text = {
        "epoch": progress.epoch,
        "t": progress.adam.t,
        "reduction": progress.adam.reduction,
        "records": progress.records,
        "fingerprint": progress.fingerprint,
    }
    arrays = {name: getattr(progress, name) for name in ARRAYS}
    keep(path, FORMAT, text, arrays | {"m": progress.adam.m, "v": progress.adam.v})


def load_checkpoint(path: Path | str) -> TrainingState:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or not a checkpoint.
    """
    with read_kept(path, FORMAT) as (text, data):
        records, epoch = as_records(text["records"]), count(text["epoch"], "epoch", least=0)
        if len(records) != epoch + 1:
            raise ValueError(f"{len(records)} records of epoch {epoch}")
        sizes = {name: data[name].shape for name in (*PACKED, "m", "v")}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"shapes are {sizes}, expected one")
        steps, reduction = count(text["t"], "t", least=0), positive(text["reduction"], "reduction")
        return TrainingState(
            epoch=epoch,
            adam=AdamState(data["m"], data["v"], steps, reduction),
            records=records,
            fingerprint=str(text["fingerprint"]),
            **{name: data[name] for name in ARRAYS},
        )
