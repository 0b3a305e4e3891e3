"""The libraries that are measured, set up alike: all cores, float64, no other devices."""

import os
import warnings


def prepare_libraries() -> None:
    """All cores for torch, float64 for JAX, which never looks for other devices.

    Threads of torch sleep when they have nothing to do: else they would turn idle loops on a core
    while the next library is timed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="refimpl")
