"""The models that ship with refimpl, and the one of a family that suits an image best.

A file `refimpl/models/NAME.npz` is the model NAME; those whose names begin with "tied-" are the
family "tied", and so on: one for each noise level, and for images in colour.
"""

from pathlib import Path

import numpy as np

from refimpl.arrays import shown
from refimpl.training.trained import TrainedModel, read_model

MODELS = Path(__file__).parents[1] / "models"


def shipped() -> dict[str, Path]:
    """The files of the models that ship, by name."""
    return {path.stem: path for path in sorted(MODELS.glob("*.npz"))}


def families() -> list[str]:
    """The names of the families."""
    return sorted({name.partition("-")[0] for name in shipped()})


def find_model(name: str | Path, channels: int, noise_level: float) -> TrainedModel:
    """A model by the name of a family, its own name or its file.

    Of a family, the one for images of that many channels, or else for grey ones, whose noise level
    is nearest, by ratio.

    Raises
    ------
    ValueError
        If there is no such family, name or file, or the file is not a model.
    """
    paths = [p for n, p in shipped().items() if n == str(name) or n.startswith(f"{name}-")]
    if not paths:
        return load_model(name)
    models = [read_model(path) for path in paths]
    fitting = [m for m in models if m.channels == channels]
    fitting = fitting or [m for m in models if m.channels == 1] or models
    return min(fitting, key=lambda m: abs(np.log(m.unit_noise_level / max(noise_level, 1e-12))))


def load_model(name: str | Path) -> TrainedModel:
    """A model by its name, if it ships with refimpl, or else from its file, which `save` wrote.

    Nothing in the file is executed.

    Raises
    ------
    ValueError
        If there is neither, or the file is not a model.
    """
    known = shipped()
    if isinstance(name, str) and name in known:
        return read_model(known[name])
    named = isinstance(name, str) and "\0" not in name and Path(name).name == name
    if named and not Path(name).exists():
        names = ", ".join([*families(), *known]) or "none"
        raise ValueError(f"model: {shown(name)} is no file, and not one of those shipped ({names})")
    return read_model(name)
