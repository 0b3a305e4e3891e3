"""Training: move θ̂ downhill on the loss of a set of images.

`loop` runs Adam over minibatches, `lbfgs` is for small problems, `checkpoints` saves and resumes.
"""

from refimpl.training.adam import AdamState, TrainingSettings, adam_step, learning_rate
from refimpl.training.checkpoints import load_checkpoint, save_checkpoint
from refimpl.training.lbfgs import train_lbfgs
from refimpl.training.loop import Progress, TrainingResult, train

__all__ = [
    "AdamState",
    "Progress",
    "TrainingResult",
    "TrainingSettings",
    "adam_step",
    "learning_rate",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "train_lbfgs",
]
