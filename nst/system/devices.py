"""Which torch device to compute on."""

from __future__ import annotations

import sys
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


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a GPU's or the machine's."""
    # On a CPU PyTorch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_advice(mend: str) -> Iterator[None]:
    """Turn an error of memory that ran out into one line that says `mend`."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        place = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        raise NstError(f"the {place} has too little memory: {mend}") from error


@contextmanager
def limit_memory(most: float | None) -> Iterator[None]:
    """Let PyTorch take at most `most` GB (10⁹ bytes) of the current GPU; None for all.

    The driver's own few hundred megabytes come on top.

    Raises:
        UsageError: the GPU has less.
    """
    if most is None:
        yield
        return
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 1e9
    if most > total:
        raise UsageError(f"max memory is {most:g} GB: the GPU has {total:.0f}")
    torch.cuda.set_per_process_memory_fraction(most / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def peak_memory(device: torch.device) -> float | None:
    """GB (10⁹ bytes) at the peak: of the GPU as PyTorch took it, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
