"""Which torch device to compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nst.config import Device
from nst.errors import NstError, UsageError


def pick_device(name: Device) -> torch.device:
    """`auto` is CUDA where it works, else the CPU.

    Raises:
        UsageError: an unknown name. NstError: `cuda` without a CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device is {name!r}: choose auto, cpu or cuda")
    if name == "cpu":
        return torch.device("cpu")
    try:
        torch.zeros(1, device="cuda").add(1).item()
    except (RuntimeError, AssertionError) as error:  # no card, no driver, no kernels for it
        if name == "cuda":
            raise NstError(
                f"no CUDA device can be used ({str(error).splitlines()[0]}): "
                "use --device cpu, or check nvidia-smi"
            ) from error
        return torch.device("cpu")
    return torch.device("cuda")


@contextmanager
def memory_advice(mend: str) -> Iterator[None]:
    """Turn a GPU's out-of-memory error into one line that says `mend`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NstError(f"the GPU has too little memory: {mend}") from error
