"""Picks the torch device, limits its memory and measures it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nst.config import Device
from nst.errors import NstError, UsageError
from nst.system.memory import peak_rss


def pick_device(name: Device) -> torch.device:
    """Return the torch device of a name; `auto` is CUDA if it works, else the CPU.

    Raises:
        UsageError: an unknown name. NstError: `cuda` without a usable CUDA device.
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
                "use the CPU (device cpu), or check nvidia-smi"
            ) from error
        return torch.device("cpu")
    return torch.device("cuda")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a GPU or of the machine ran out."""
    # On a CPU PyTorch raises RuntimeError itself.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into an `NstError` that ends with `advice`."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        place = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        raise NstError(f"the {place} has too little memory: {advice}") from error


@contextmanager
def limit_memory(most: float | None) -> Iterator[None]:
    """Limit PyTorch to `most` GB (10⁹ bytes) of the current GPU's memory; None for no limit.

    The driver takes a few hundred megabytes more.

    Raises:
        UsageError: the GPU has less than `most`.
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
    """Return the peak in GB (10⁹ bytes) of what PyTorch took of a GPU, or this process of RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    peak = peak_rss()
    return None if peak is None else peak / 1e9
