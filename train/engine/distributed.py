"""Joins the processes of one host that torchrun starts, one for each GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nst.config import Device
from nst.errors import UsageError
from nst.system.devices import pick_device

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)  # the others wait while the first process exports and scores


@dataclass(frozen=True)
class World:
    """The processes that train one network together; alone by default.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Return whether this process writes the files."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def broadcast(self, value: T) -> T:
        """Return the first process's `value` in all processes."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]


ALONE = World()


@contextmanager
def join_world(device: Device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started; yield them and the device of this process.

    Raises:
        UsageError: there are more processes than GPUs. NstError: as
        `nst.system.devices.pick_device`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, pick_device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device != "cpu" and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"{size} processes for {torch.cuda.device_count()} GPUs: "
                "start one process for each GPU, or compute on the CPU"
            )
        torch.cuda.set_device(local)
    picked = pick_device(device)
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), size), picked
    finally:
        dist.destroy_process_group()
