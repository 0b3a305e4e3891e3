"""Training: move θ̂ downhill on the loss of a set of images.

`learn` has `train`, from photographs to a `TrainedModel`, which `trained` keeps in files; `library`
has those that ship. Below it, `loop` runs Adam over minibatches, of fresh `crops` or, in `epochs`,
of a fixed set; `objective` has their loss and its gradient, `parametrisations` what is moved;
`lbfgs` is for small problems, `checkpoints` saves and resumes.
"""

from refimpl.training.adam import AdamState, TrainingSettings, adam_step, learning_rate
from refimpl.training.checkpoints import load_checkpoint, save_checkpoint
from refimpl.training.epochs import run_epochs
from refimpl.training.lbfgs import train_lbfgs
from refimpl.training.learn import train
from refimpl.training.library import families, load_model, shipped
from refimpl.training.loop import TrainingResult
from refimpl.training.trained import TrainedModel

__all__ = [
    "AdamState",
    "TrainedModel",
    "TrainingResult",
    "TrainingSettings",
    "adam_step",
    "families",
    "learning_rate",
    "load_checkpoint",
    "load_model",
    "run_epochs",
    "save_checkpoint",
    "shipped",
    "train",
    "train_lbfgs",
]
