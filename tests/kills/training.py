"""`python -m kills.training`: the command line of refimpl, with a preset "tiny" in it.

With KILL_AT=n in the environment the process kills itself at the n-th step of writing to the disk:
when a file's content is written, is brought to the disk, or is to be renamed.
"""

import itertools
import os
import signal
import sys
from dataclasses import replace

from refimpl import cli
from refimpl.experiments import EXPERIMENTS, dense_experiment
from refimpl.training import TrainingSettings


def add_tiny(epochs: int = 30) -> None:
    """A preset whose epochs take a moment, so that many kills hit the writing of a checkpoint."""
    EXPERIMENTS["tiny"] = replace(
        dense_experiment("denoising", "relu", 0.1),
        name="tiny",
        filters=(5,),
        train_images=2,
        test_images=1,
        training=TrainingSettings(epochs=epochs, trained=("A", "C")),
    )


def kill_at(number: int) -> None:
    """Have the process killed instead of its call of os.fsync or os.replace of this number."""
    calls = itertools.count(1)

    def killing(function):
        def call(*arguments):
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    os.fsync, os.replace = killing(os.fsync), killing(os.replace)


if __name__ == "__main__":
    add_tiny()
    if "KILL_AT" in os.environ:
        kill_at(int(os.environ["KILL_AT"]))
    sys.exit(cli.main())
